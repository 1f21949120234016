"""Tests of readers of a stream that are cancelled while they wait: none loses an item."""

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from conftest import MS, Gate, RunAsync, until, wait_until
from test_iterate import Source, numbers

import wsoffload


def test_no_item_is_lost_to_a_cancelled_reader(run_async: RunAsync[None]) -> None:
    # As when a reader waits a moment for the next item and does something else if none comes.
    def source() -> Iterator[int]:
        chance = random.Random(1)
        for number in range(500):
            time.sleep(chance.random() * 0.6 * MS)
            yield number

    async def main() -> None:
        chance = random.Random(2)
        got: list[int] = []
        given_up = 0
        async with wsoffload.iterate(source) as stream:
            while True:
                try:
                    async with asyncio.timeout(chance.random() * 0.6 * MS):
                        got.append(await anext(stream))
                except TimeoutError:
                    given_up += 1
                except StopAsyncIteration:
                    break
        assert got == list(range(500))
        assert given_up > 0

    run_async(main)


def test_a_reader_that_never_waits_gets_on(run_async: RunAsync[None]) -> None:
    # Each attempt is given one turn of the loop, in which it is cancelled if it gives way.
    source = Source(300)

    async def main() -> None:
        got: list[int] = []
        async with wsoffload.iterate(source) as stream:
            for _ in range(20_000):
                try:
                    async with asyncio.timeout(0):
                        got.append(await anext(stream))
                except TimeoutError:
                    # Longer than a reader goes on before it gives way.
                    time.sleep(0.003)
                except StopAsyncIteration:
                    break
        assert got == list(range(300))

    run_async(main)


def test_an_item_asked_for_and_never_awaited_stays(run_async: RunAsync[None]) -> None:
    source = Source(30)

    async def main() -> None:
        got: list[int] = []
        async with wsoffload.iterate(source) as stream:
            for _ in range(30):
                await until(lambda: source.closed_by is not None or source.yielded > len(got))
                stream.__anext__()
                with pytest.raises(TimeoutError):
                    # On Python 3.11 in a task of its own, which is cancelled before it starts.
                    await asyncio.wait_for(asyncio.ensure_future(anext(stream)), 0)
                got.append(await anext(stream))
        assert got == list(range(30))

    run_async(main)


def test_an_item_is_awaited_once(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with wsoffload.iterate(numbers, 3) as stream:
            item = stream.__anext__()
            assert await item == 0
            with pytest.raises(RuntimeError, match="awaited twice"):
                await item

    run_async(main)


def test_item_that_comes_as_the_reader_is_cancelled_stays(
    run_async: RunAsync[None], gate: Gate
) -> None:
    """The race of the test above, played for certain: the item wakes the task that is cancelled."""

    def source() -> Iterator[int]:
        yield gate(7)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wsoffload.iterate(source) as stream:

            async def read() -> int:
                return await anext(stream)

            reader = loop.create_task(read())
            await until(lambda: gate.entered == 1)
            gate.open()
            wait_until(lambda: wsoffload.stats().streams_completed == 1)
            # The next turn's poll finds the bell, but runs this before what the bell is for; in the
            # turn after that, the cancellation comes before the reader that was woken.
            loop.call_soon(lambda: loop.call_soon(reader.cancel))
            try:
                first = await reader
            except asyncio.CancelledError:
                first = await anext(stream)
            assert first == 7

    run_async(main)
