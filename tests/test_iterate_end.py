"""Tests of how a stream ends: whatever ends it, its source is closed on the thread that ran it."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from conftest import MS, Gate, RunAsync, until, wait_until
from test_iterate import Source, items_of

import wsoffload


async def full(source: Source) -> None:
    """The source waits for room in the buffer, or will when the reader has taken an item or two."""
    await until(lambda: source.yielded >= 16)


async def by_exhaustion(source: Source) -> None:
    source.count = 40
    assert await items_of(wsoffload.iterate(source)) == list(range(40))


async def by_leaving(source: Source) -> None:
    async with wsoffload.iterate(source) as stream:
        async for number in stream:
            if number == 5:
                break
    assert source.closed_by is not None


async def by_leaving_unread(source: Source) -> None:
    async with wsoffload.iterate(source):
        await full(source)
    assert source.closed_by is not None


async def by_an_exception_in_the_body(source: Source) -> None:
    with pytest.raises(KeyError):
        async with wsoffload.iterate(source) as stream:
            async for _ in stream:
                raise KeyError("in the body")
    assert source.closed_by is not None


async def by_aclose(source: Source) -> None:
    stream = wsoffload.iterate(source)
    await stream.aclose()
    assert await anext(aiter(stream)) == 0
    await stream.aclose()
    assert source.closed_by is not None
    await stream.aclose()
    assert await anext(stream, "over") == "over"


async def by_cancelling_the_task(source: Source) -> None:
    async def read() -> None:
        async with wsoffload.iterate(source) as stream:
            async for _ in stream:
                await asyncio.Event().wait()

    reading = asyncio.ensure_future(read())
    await full(source)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def by_cancelling_a_bare_loop(source: Source) -> None:
    async def read() -> None:
        async for _ in wsoffload.iterate(source):
            await asyncio.Event().wait()

    reading = asyncio.ensure_future(read())
    await full(source)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def by_losing_the_last_reference(source: Source) -> None:
    async for number in wsoffload.iterate(source):
        if number == 3:
            break
    gc.collect()


async def by_losing_a_cycle(source: Source) -> None:
    stream = wsoffload.iterate(source)
    holder: list[Any] = [stream]
    holder.append(holder)
    stream.__aiter__()
    await full(source)
    del stream, holder
    gc.collect()


async def by_its_timeout(source: Source) -> None:
    with wsoffload.Pool(1) as pool:
        stream = pool.using(timeout=50 * MS, name="report").iterate(source)
        with pytest.raises(TimeoutError, match=r"'report' stream .* timeout=.* it was running"):
            async for _ in stream:
                await asyncio.sleep(MS)
        await stream.aclose()
    assert source.closed_by is not None


async def by_closing_the_loop(source: Source) -> None:
    stream = wsoffload.iterate(source)
    stream.__aiter__()
    await full(source)
    # So that nothing but the loop's end can end it.
    source.held = stream


@pytest.mark.parametrize(
    "end",
    [
        by_exhaustion,
        by_leaving,
        by_leaving_unread,
        by_an_exception_in_the_body,
        by_aclose,
        by_cancelling_the_task,
        by_cancelling_a_bare_loop,
        by_losing_the_last_reference,
        by_losing_a_cycle,
        by_its_timeout,
        by_closing_the_loop,
    ],
)
def test_source_is_closed_on_its_thread(
    end: Callable[[Source], Awaitable[None]], run_async: RunAsync[None]
) -> None:
    source = Source()

    async def main() -> None:
        await end(source)
        if end is not by_closing_the_loop:
            await until(lambda: source.closed_by is not None)

    run_async(main)
    wait_until(lambda: source.closed_by is not None)
    source.held = None
    assert set(source.threads) == {source.closed_by}
    assert source.closed_by is not threading.current_thread()


def test_generator_that_others_hold_is_closed_too(run_async: RunAsync[None]) -> None:
    source = Source()
    generator = source()

    async def main() -> None:
        async with wsoffload.iterate(generator) as stream:
            assert await anext(stream) == 0
        assert source.closed_by is not None

    run_async(main)
    assert next(generator, "closed") == "closed"
    assert set(source.threads) == {source.closed_by}


def test_shutdown_with_cancel_futures_is_seen_by_the_source(run_async: RunAsync[None]) -> None:
    closed: list[threading.Thread] = []
    started: list[threading.Thread] = []

    def source() -> Iterator[int]:
        started.append(threading.current_thread())
        try:
            while True:
                wsoffload.check_cancelled()
                yield len(started)
        finally:
            closed.append(threading.current_thread())

    async def main() -> None:
        pool = wsoffload.Pool(1, max_streams=1)
        running, queued = pool.iterate(source), pool.iterate(source)
        assert await anext(aiter(running)) == 1
        queued.__aiter__()
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(asyncio.CancelledError):
            await anext(queued)
        with pytest.raises(asyncio.CancelledError):
            async for _ in running:
                pass
        await pool.aclose()

    run_async(main)
    assert len(started) == 1
    assert closed == started


def test_left_source_is_told_when_it_asks(run_async: RunAsync[None], gate: Gate) -> None:
    told: list[BaseException] = []

    def source() -> Iterator[int]:
        yield 1
        gate()
        try:
            wsoffload.check_cancelled()
        except asyncio.CancelledError as error:
            told.append(error)
            raise
        yield 2

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            stream = pool.iterate(source)
            assert await anext(aiter(stream)) == 1
            await until(lambda: gate.entered == 1)
            closing = asyncio.ensure_future(stream.aclose())
            await asyncio.sleep(0)
            assert not closing.done()
            gate.open()
            await closing
            assert len(told) == 1

    run_async(main)


def test_cancelled_leaving_abandons_the_source(run_async: RunAsync[None], gate: Gate) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield gate(2)

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            stream = pool.iterate(source)
            assert await anext(aiter(stream)) == 1
            await until(lambda: gate.entered == 1)
            closing = asyncio.ensure_future(stream.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        # The pool has closed although the source is still at work.
        assert gate.left == 0
        gate.open()
        await until(lambda: gate.left == 1)

    run_async(main)


def test_with_on_cancel_wait_leaving_lasts(run_async: RunAsync[None], gate: Gate) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield gate(2)

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:

            async def read() -> None:
                async with pool.using(on_cancel="wait").iterate(source) as stream:
                    async for _ in stream:
                        await asyncio.Event().wait()

            reading = asyncio.ensure_future(read())
            await until(lambda: gate.entered == 1)
            for _ in range(3):
                reading.cancel()
                await asyncio.sleep(2 * MS)
                assert not reading.done()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert gate.left == 1

    run_async(main)


def test_queued_stream_times_out(run_async: RunAsync[None]) -> None:
    source, queued = Source(), Source()

    async def main() -> None:
        async with wsoffload.Pool(1, max_streams=1) as pool, pool.iterate(source):
            await full(source)
            for name, caller in (
                ("timeout", pool.using(timeout=MS)),
                ("queue_timeout", pool.using(queue_timeout=MS)),
            ):
                with pytest.raises(TimeoutError, match=f"stream .*: {name}=.*still queued"):
                    await items_of(caller.iterate(queued))
            assert pool.stats().streams_queued == 0
        assert queued.yielded == 0

    run_async(main)


def test_queue_timeout_does_not_end_what_runs(run_async: RunAsync[None]) -> None:
    source = Source(60)

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            stream = pool.using(queue_timeout=20 * MS).iterate(source)
            assert await anext(aiter(stream)) == 0
            await asyncio.sleep(40 * MS)
            assert await items_of(stream) == list(range(1, 60))

    run_async(main)


def test_error_in_closing_is_reported_and_not_raised(
    run_async: RunAsync[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[BaseException | None] = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: unraisable.append(report.exc_value))

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise ValueError("in closing")

    async def main() -> None:
        async with wsoffload.iterate(source) as stream:
            assert await anext(stream) == 1

    run_async(main)
    assert [str(error) for error in unraisable] == ["in closing"]


class Item:
    """What can be referred to weakly."""


def test_items_and_source_are_let_go(run_async: RunAsync[None]) -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()

    class Made:
        def __call__(self) -> Iterator[Item]:
            while True:
                item = Item()
                alive.add(item)
                yield item

    async def main() -> None:
        made = Made()
        alive.add(made)
        async with wsoffload.iterate(made) as stream:
            del made
            for _ in range(40):
                await anext(stream)
            # The source, and at most as many items as the buffer has room for.
            await until(lambda: len(alive) > 1)
            assert len(alive) <= 1 + 16
        gc.collect()
        await until(lambda: len(alive) == 0)

    run_async(main)


def test_stream_that_was_never_started_closes_nothing(run_async: RunAsync[None]) -> None:
    source = Source()

    async def main() -> None:
        stream = wsoffload.iterate(source)
        del stream
        gc.collect()
        assert source.threads == []

    run_async(main)


def test_many_readers_leave_at_random(run_async: RunAsync[None]) -> None:
    sources = [Source() for _ in range(60)]

    async def read(pool: wsoffload.Pool, number: int) -> None:
        async with pool.using(max_items=1 + number % 3).iterate(sources[number]) as stream:
            async for item in stream:
                if item == number * 7 % 50:
                    break

    async def main() -> None:
        async with wsoffload.Pool(1, max_streams=7) as pool:
            reading = [asyncio.ensure_future(read(pool, number)) for number in range(60)]
            for number in range(0, 60, 5):
                await asyncio.sleep(0)
                reading[number].cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        assert pool.stats().streams_running == 0

    run_async(main)
    wait_until(lambda: all(bool(source.closed_by) == bool(source.threads) for source in sources))
    for source in sources:
        assert set(source.threads) <= {source.closed_by}
