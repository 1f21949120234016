"""Tests of iterate: what is refused, and how many streams run at once."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Iterator

import pytest
from conftest import Gate, RunAsync, until
from test_iterate import Source, items_of, numbers

import wsoffload


def test_wrong_sources_are_refused_in_words() -> None:
    async def coroutine_function() -> None:
        raise AssertionError("it must not be called")

    with pytest.raises(TypeError, match="must be callable or iterable"):
        wsoffload.iterate(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="cannot be called"):
        wsoffload.iterate([1], 2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"iterate\(\)"):
        wsoffload.iterate(coroutine_function)  # type: ignore[call-overload]


def test_what_is_returned_must_be_iterable(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="returned 7, which cannot be iterated"):
            await items_of(wsoffload.iterate(lambda: 7))  # type: ignore[call-overload]

    run_async(main)


def test_a_stream_is_read_once_and_by_one(run_async: RunAsync[None], gate: Gate) -> None:
    def source() -> Iterator[int]:
        yield gate(1)

    async def main() -> None:
        stream = wsoffload.iterate(source)
        with pytest.raises(RuntimeError, match="not started"):
            await anext(stream)
        async with stream:
            with pytest.raises(RuntimeError, match="only once"):
                await stream.__aenter__()
            first = asyncio.ensure_future(items_of(stream))
            await until(lambda: gate.entered == 1)
            with pytest.raises(RuntimeError, match="another task already waits"):
                await anext(stream)
            gate.open()
            assert await first == [1]

    run_async(main)


def test_a_stream_needs_a_running_loop() -> None:
    stream = wsoffload.iterate(numbers, 1)
    with pytest.raises(RuntimeError, match="running event loop"):
        stream.__aiter__()


def test_max_streams_bounds_the_streams_that_run(run_async: RunAsync[None]) -> None:
    sources = [Source() for _ in range(3)]

    async def main() -> None:
        async with wsoffload.Pool(1, max_streams=2) as pool:
            first, second, third = (pool.iterate(source) for source in sources)
            async with first:
                async with second:
                    async with third:
                        await until(lambda: sources[0].yielded == sources[1].yielded == 16)
                        stats = pool.stats()
                        assert (stats.streams_running, stats.streams_queued) == (2, 1)
                        assert sources[2].yielded == 0
                        await first.aclose()
                        assert await anext(third) == 0
        assert pool.stats().streams_completed == 3

    run_async(main)


def test_slow_readers_do_not_stop_run(run_async: RunAsync[None]) -> None:
    sources = [Source() for _ in range(8)]

    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1, when_full="raise") as pool:
            streams = [pool.iterate(source) for source in sources]
            for stream in streams:
                await stream.__aenter__()
            await until(lambda: all(source.yielded == 16 for source in sources))
            assert await pool.run(pow, 2, 10) == 1024
            for stream in streams:
                await stream.aclose()

    run_async(main)


def test_a_refused_stream_may_be_tried_again(run_async: RunAsync[None]) -> None:
    sources = [Source(20) for _ in range(3)]
    variable: contextvars.ContextVar[Source] = contextvars.ContextVar("variable")

    async def main() -> None:
        value = Source()
        in_context.append(weakref.ref(value))
        variable.set(value)
        async with wsoffload.Pool(1, max_queue=1, when_full="raise", max_streams=1) as pool:
            first, second, third = (pool.iterate(source) for source in sources)
            await first.__aenter__()
            await second.__aenter__()
            for _ in range(3):
                with pytest.raises(wsoffload.QueueFull):
                    await third.__aenter__()
            await first.aclose()
            await second.aclose()
            async with third:
                assert await items_of(third) == list(range(20))

    in_context: list[weakref.ref[Source]] = []
    run_async(main)
    gc.collect()
    # The copies of the context that were made in vain are gone.
    assert in_context[0]() is None


def test_dropped_stream(run_async: RunAsync[None]) -> None:
    source = Source()

    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1, when_full="drop_oldest", max_streams=1) as pool:
            first, second, third = pool.iterate(source), pool.iterate([2]), pool.iterate([3])
            await first.__aenter__()
            await until(lambda: source.yielded == 16)
            second.__aiter__()
            third.__aiter__()
            with pytest.raises(wsoffload.Dropped):
                await anext(second)
            await first.aclose()
            assert await items_of(third) == [3]

    run_async(main)
