"""Tests of making worker threads: with which stack, and what happens when none can be made."""

import asyncio
import ctypes
import threading
from collections.abc import Callable, Iterator

import pytest
from conftest import Gate, RunAsync, until

import wsoffload

#: More than any address space has: no thread with such a stack can be made.
IMPOSSIBLE_STACK = 1 << 60


@pytest.fixture
def no_threads() -> Iterator[Callable[[bool], None]]:
    """Say whether new threads can be made."""
    before = threading.stack_size()

    def forbid(forbidden: bool) -> None:
        threading.stack_size(IMPOSSIBLE_STACK if forbidden else before)

    yield forbid
    forbid(False)


def test_stack_size_is_honoured(no_threads: Callable[[bool], None]) -> None:
    size = 24 * 1024 * 1024
    threading.stack_size(size)
    with wsoffload.Pool(1) as pool:
        assert pool.submit(_stack_size).result() == size


def _stack_size() -> int:
    """What the thread library says of this thread's stack (pthread_getattr_np(3))."""
    library = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t()
    assert library.pthread_getattr_np(ctypes.c_ulong(threading.get_ident()), attributes) == 0
    assert library.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
    assert library.pthread_attr_destroy(attributes) == 0
    return size.value


def test_no_thread_to_be_had_and_none_runs(
    run_async: RunAsync[None], no_threads: Callable[[bool], None]
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            no_threads(True)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    pool.submit(int)
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    pool.run(int)
                stream = pool.iterate([1])
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    stream.__aiter__()
            stats = pool.stats()
            assert (stats.threads, stats.queued, stats.accepted, stats.started) == (0, 0, 0, 0)
            assert pool._threads == set()
            no_threads(False)
            assert await pool.run(int) == 0
            assert [item async for item in stream] == [1]

    run_async(main)


def test_no_thread_to_be_had_but_one_runs(
    run_async: RunAsync[None], no_threads: Callable[[bool], None], gate: Gate
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(3) as pool:
            first = pool.run(gate, 1)
            await until(lambda: gate.entered == 1)
            no_threads(True)
            second, third = pool.run(int), pool.submit(int)
            assert pool.stats().queued == 2
            assert len(pool._threads) == 1
            gate.open()
            assert await first == 1
            assert await second == 0
            assert await asyncio.wrap_future(third) == 0

    run_async(main)
