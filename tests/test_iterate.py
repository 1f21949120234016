"""Tests of iterate: what a stream delivers, and how far it reads ahead.

How streams end is in test_iterate_end.py.
"""

import asyncio
import contextvars
import hashlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MS, PATIENCE, Gate, RunAsync, until, wait_until
from kernel import sleeps_soundly

import wsoffload


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


class Source:
    """A generator that records on which threads it is called, goes on and is closed."""

    def __init__(self, count: int = 1_000_000) -> None:
        self.count = count
        self.yielded = 0
        self.threads: list[threading.Thread] = []
        self.closed_by: threading.Thread | None = None
        self.held: object = None

    def __call__(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                self.threads.append(threading.current_thread())
                self.yielded += 1
                yield number
        finally:
            self.closed_by = threading.current_thread()


async def items_of(stream: wsoffload.Stream[Any]) -> list[Any]:
    return [item async for item in stream]


def test_callable_gets_its_arguments_and_context(run_async: RunAsync[None]) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def source(*args: int, **kwargs: str) -> Iterator[object]:
        yield args
        yield kwargs
        yield variable.get()
        variable.set("changed on the worker")

    async def main() -> None:
        variable.set("of the caller")
        stream = wsoffload.iterate(source, 1, 2, key="word")
        assert await items_of(stream) == [(1, 2), {"key": "word"}, "of the caller"]
        assert variable.get() == "of the caller"

    run_async(main)


@pytest.mark.parametrize("make", [list, iter, tuple, set, lambda n: (i for i in n)])
def test_iterables_and_iterators(make: Callable[[range], Any], run_async: RunAsync[None]) -> None:
    async def main() -> None:
        assert await items_of(wsoffload.iterate(make(range(50)))) == list(range(50))
        assert await items_of(wsoffload.iterate(make(range(0)))) == []
        assert await items_of(wsoffload.iterate(lambda: make(range(50)))) == list(range(50))

    run_async(main)


def test_called_iterated_and_closed_on_one_thread(run_async: RunAsync[None]) -> None:
    source = Source(100)

    async def main() -> None:
        async with wsoffload.Pool(1, "readers") as pool, pool.iterate(source) as stream:
            assert await items_of(stream) == list(range(100))

    run_async(main)
    assert set(source.threads) == {source.closed_by}
    assert source.closed_by is not threading.current_thread()
    assert source.closed_by is not None
    assert source.closed_by.name.startswith("readers_")


def test_sqlite_connection_lives_on_the_worker(run_async: RunAsync[None], tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("create table numbers (n integer)")
        connection.executemany("insert into numbers values (?)", ((n,) for n in range(1000)))
    connection.close()
    closed = []

    def rows(most: int) -> Iterator[int]:
        connection = sqlite3.connect(path)
        try:
            for (number,) in connection.execute("select n from numbers limit ?", (most,)):
                yield number
        finally:
            # Raises ProgrammingError on any other thread than that of connect().
            connection.close()
            closed.append(most)

    async def main() -> None:
        assert await items_of(wsoffload.iterate(rows, 700)) == list(range(700))
        async with wsoffload.iterate(rows, 900) as stream:
            async for number in stream:
                if number == 400:
                    break
        assert closed == [700, 900]

    run_async(main)


def test_producer_slower_than_the_loop_gives_way(run_async: RunAsync[None]) -> None:
    # The reader has items less often than it would give way to the loop.
    def slow() -> Iterator[int]:
        for number in range(20):
            time.sleep(4 * MS)
            yield number

    async def main() -> None:
        assert await items_of(wsoffload.iterate(slow)) == list(range(20))

    run_async(main)


def test_reader_slower_than_the_producer(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        got = []
        async for number in wsoffload.iterate(numbers, 30):
            got.append(number)
            await asyncio.sleep(4 * MS)
        assert got == list(range(30))

    run_async(main)


def test_bytes_and_order_are_conserved_under_random_pauses(run_async: RunAsync[None]) -> None:
    """Invariant 11 where it applies here: what the source yields arrives, in order, once."""
    expected: dict[int, str] = {}

    def chunks(seed: int) -> Iterator[bytes]:
        chance = random.Random(seed)
        digest = hashlib.sha256()
        for _ in range(400):
            if chance.random() < 0.1:
                time.sleep(chance.random() * 3 * MS)
            chunk = chance.randbytes(chance.randrange(200))
            digest.update(chunk)
            yield chunk
        expected[seed] = digest.hexdigest()

    async def read(pool: wsoffload.Pool, seed: int) -> None:
        chance = random.Random(-seed)
        digest = hashlib.sha256()
        async for chunk in pool.using(max_items=chance.choice([1, 2, 16])).iterate(chunks, seed):
            digest.update(chunk)
            if chance.random() < 0.1:
                await asyncio.sleep(chance.random() * 3 * MS)
        assert digest.hexdigest() == expected[seed]

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            await asyncio.gather(*[read(pool, seed) for seed in range(1, 13)])

    run_async(main)
    assert len(expected) == 12


@pytest.mark.parametrize("max_items", [1, 2, 7, None])
def test_reads_ahead_a_bounded_number(max_items: int | None, run_async: RunAsync[None]) -> None:
    """Invariant 12: the source is never asked for more than `max_items` that nobody took."""
    source = Source()
    most = max_items or 16
    excess: list[int] = []

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            caller = pool if max_items is None else pool.using(max_items=max_items)
            async with caller.iterate(source) as stream:
                await until(lambda: source.yielded == most)
                native_id = source.threads[0].native_id
                assert native_id is not None
                wait_until(sleeps_soundly(native_id))
                assert source.yielded == most
                for taken in range(1, 200):
                    assert await anext(stream) == taken - 1
                    excess.append(source.yielded - taken - most)
                await until(lambda: source.yielded > 199)

    run_async(main)
    assert max(excess) <= 0


def test_a_blocked_producer_does_not_poll(run_async: RunAsync[None]) -> None:
    source = Source()

    async def main() -> None:
        async with wsoffload.iterate(source):
            await until(lambda: source.yielded == 16)
            native_id = source.threads[0].native_id
            assert native_id is not None
            condition = sleeps_soundly(native_id)
            await asyncio.get_running_loop().run_in_executor(None, wait_until, condition)
            assert source.yielded == 16

    run_async(main)


def test_a_waiting_reader_does_not_poll(run_async: RunAsync[None], gate: Gate) -> None:
    loop_thread = threading.get_native_id()
    slept: list[bool] = []

    def source() -> Iterator[int]:
        wait_until(sleeps_soundly(loop_thread))
        slept.append(True)
        yield 1

    async def main() -> None:
        assert await items_of(wsoffload.iterate(source)) == [1]

    run_async(main)
    assert slept == [True]


def test_exception_comes_after_the_items_before_it(run_async: RunAsync[None]) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise ValueError("after five items")

    async def main() -> None:
        got = []
        with pytest.raises(ValueError, match="after five items") as caught:
            async for number in wsoffload.iterate(source):
                await asyncio.sleep(2 * MS)
                got.append(number)
        assert got == list(range(5))
        assert "source" in [entry.name for entry in caught.traceback]

    run_async(main)


def test_after_an_exception_the_stream_is_over(run_async: RunAsync[None]) -> None:
    def source() -> Iterator[int]:
        raise ValueError("at once")
        yield

    async def main() -> None:
        async with wsoffload.iterate(source) as stream:
            with pytest.raises(ValueError, match="at once"):
                await anext(stream)
            assert await anext(stream, "nothing") == "nothing"

    run_async(main)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
def test_stop_exceptions_do_not_pass_for_the_end(
    kind: type[Exception], run_async: RunAsync[None]
) -> None:
    def when_called() -> Iterator[int]:
        raise kind("when called")

    def when_iterated() -> Iterator[int]:
        yield 1
        raise StopAsyncIteration("when iterated")

    async def main() -> None:
        for source in (when_called, when_iterated):
            with pytest.raises(RuntimeError, match=r"Stop(Async)?Iteration") as caught:
                await asyncio.wait_for(items_of(wsoffload.iterate(source)), PATIENCE)
            assert isinstance(caught.value.__cause__, (StopIteration, StopAsyncIteration))

    run_async(main)


def test_the_loop_is_served_while_items_are_there(run_async: RunAsync[None]) -> None:
    source = Source(400)

    async def main() -> None:
        turns = 0
        over = False

        async def count_turns() -> None:
            nonlocal turns
            while not over:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count_turns())
        async with wsoffload.Pool(1) as pool, pool.using(max_items=500).iterate(source) as stream:
            await until(lambda: source.closed_by is not None)
            before = turns
            async for _ in stream:
                # The body computes for a quarter of a millisecond and never waits.
                end = time.monotonic() + 0.00025
                while time.monotonic() < end:
                    pass
            # A tenth of a second in all: the loop was to have a turn each two milliseconds.
            assert turns - before >= 10
        over = True
        await counting

    run_async(main)
