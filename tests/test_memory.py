"""Tests of memory: what a call was given and what it gave go promptly, and nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import MS, PATIENCE, Gate, RunAsync, until, wait_until
from kernel import SANITIZER

import wsoffload


class Thing:
    """Can be weakly referred to."""


def give(_: Any = None, **__: Any) -> Thing:
    return Thing()


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Cycles stay, so whatever goes was let go by counting alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def used(pool: wsoffload.Pool) -> list[Any]:
    """Every way to run a call."""
    return [
        pool,
        pool.using(timeout=10_000, queue_timeout=10_000, name="x"),
        pool.using(on_cancel="wait", timeout=10_000),
    ]


@pytest.mark.usefixtures("no_gc")
def test_arguments_go_when_the_job_has_ended(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            for caller in used(pool):
                first, second = Thing(), Thing()
                gone = [weakref.ref(first), weakref.ref(second)]
                future = caller.run(give, first, key=second)
                del first, second
                # The future has not been settled yet, because the loop did not turn.
                wait_until(lambda gone=gone: [ref() for ref in gone] == [None, None])
                assert not future.done()
                await future

    run_async(main)


@pytest.mark.usefixtures("no_gc")
def test_a_result_goes_with_its_future(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            for caller in used(pool):
                future = caller.run(give)
                gone = weakref.ref(await future)
                del future
                # The loop's own step has it until this turn is over; then not the idle thread, not
                # a timer that lies in the loop, not the pool.
                await asyncio.sleep(0)
                assert gone() is None
            submitted = pool.submit(give)
            gone = weakref.ref(submitted.result(PATIENCE))
            del submitted
            wait_until(lambda: gone() is None)

    run_async(main)


@pytest.mark.usefixtures("no_gc")
def test_an_exception_makes_no_cycle(run_async: RunAsync[Any]) -> None:
    def fail(thing: Thing) -> None:
        raise ValueError(thing)

    async def use(caller: Any) -> weakref.ref[Thing]:
        thing = Thing()
        gone = weakref.ref(thing)
        with contextlib.suppress(ValueError):
            await caller.run(fail, thing)
        return gone

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            for caller in used(pool):
                gone = await use(caller)
                await until(lambda gone=gone: gone() is None)

    run_async(main)


@pytest.mark.usefixtures("no_gc")
def test_arguments_of_a_call_that_never_runs_go_at_once(
    run_async: RunAsync[Any], gate: Gate
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1, when_full="raise") as pool:
            pool.run(gate)
            gate.wait_entered()
            for caller in used(pool):
                thing = Thing()
                gone = weakref.ref(thing)
                future = caller.run(give, thing)
                with pytest.raises(wsoffload.QueueFull):
                    caller.run(give, thing)
                del thing
                future.cancel()
                assert gone() is None
                thing = Thing()
                gone = weakref.ref(thing)
                future = caller.using(queue_timeout=MS).run(give, thing)
                del thing
                with pytest.raises(TimeoutError):
                    await future
                assert gone() is None
            submitted = pool.submit(give, thing := Thing())
            gone = weakref.ref(thing)
            del thing
            submitted.cancel()
            assert gone() is None
            gate.open()

    run_async(main)


@pytest.mark.usefixtures("no_gc")
def test_arguments_of_a_dropped_call_go(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1, when_full="drop_oldest") as pool:
            pool.run(gate)
            gate.wait_entered()
            thing = Thing()
            gone = weakref.ref(thing)
            dropped = pool.run(give, thing)
            del thing
            kept = pool.run(int)
            with pytest.raises(wsoffload.Dropped):
                await dropped
            assert gone() is None
            gate.open()
            await kept

    run_async(main)


def test_counts_of_references_do_not_change(run_async: RunAsync[Any], gate: Gate) -> None:
    things = [Thing() for _ in range(4)]
    key = "keyword"
    message = Thing()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError

    async def use(pool: wsoffload.Pool) -> None:
        callers = used(pool)
        for caller in callers:
            futures = [caller.run(give, things[0], **{key: things[1]}) for _ in range(10)]
            await asyncio.gather(*futures)
            failing = [caller.run(fail, things[0], **{key: things[1]}) for _ in range(10)]
            await asyncio.gather(*failing, return_exceptions=True)
            # Taken off the queue.
            inner = Gate()
            blocker = pool.run(inner)
            for future in [caller.run(give, things[2]) for _ in range(10)]:
                future.cancel(message)
            submitted = [pool.submit(give, things[2]) for _ in range(10)]
            assert all(future.cancel() for future in submitted)
            timed = [caller.using(timeout=0).run(give, things[3]) for _ in range(10)]
            await asyncio.gather(*timed, return_exceptions=True)
            inner.open()
            await blocker
            # Cancelled while it runs.
            inner = Gate()
            running = caller.run(inner, things[3])
            inner.wait_entered()
            running.cancel(message)
            inner.open()
            await asyncio.gather(running, return_exceptions=True)
            await until(lambda inner=inner: inner.left)
        await until(lambda: pool.stats().running == 0)
        # Mail comes in order: with this result all that was posted before has been let go.
        await pool.run(int)

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            await use(pool)
            gc.collect()
            before = [sys.getrefcount(thing) for thing in (*things, message, key)]
            for _ in range(3):
                await use(pool)
            gc.collect()
            assert [sys.getrefcount(thing) for thing in (*things, message, key)] == before

    run_async(main)


def test_memory_is_flat(run_async: RunAsync[Any]) -> None:
    async def use(pool: wsoffload.Pool) -> None:
        careful = pool.using(on_cancel="wait", timeout=10_000)
        for caller in (pool, careful):
            futures = [caller.run(int) for _ in range(300)]
            for future in futures[::3]:
                future.cancel()
            await asyncio.gather(*futures, return_exceptions=True)
            assert await caller.run(int) == 0
        submitted = [pool.submit(int) for _ in range(300)]
        for other in submitted[::3]:
            other.cancel()
        await asyncio.gather(*map(asyncio.wrap_future, submitted), return_exceptions=True)
        async with pool.iterate(range(300)) as stream:
            async for item in stream:
                if item == 200:
                    break

    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            for _ in range(5):
                await use(pool)
            gc.collect()
            before = sys.getallocatedblocks()
            for _ in range(20):
                await use(pool)
            await until(lambda: pool.stats().running == pool.stats().streams_running == 0)
            gc.collect()
            # A block for each of the thousands of calls would be far more.
            assert sys.getallocatedblocks() < before + 1000

    run_async(main)


def test_cycles_are_collected(run_async: RunAsync[Any]) -> None:
    async def main() -> list[weakref.ref[Any]]:
        pool = wsoffload.Pool(1)
        pool.itself = pool  # type: ignore[attr-defined]
        caller = pool.using(name="x")
        caller.itself = caller  # type: ignore[attr-defined]
        # A result that knows its future, of either kind.
        thing, careful = Thing(), Thing()
        thing.future = pool.run(lambda: thing)  # type: ignore[attr-defined]
        careful.future = pool.using(on_cancel="wait").run(  # type: ignore[attr-defined]
            lambda: careful
        )
        await asyncio.gather(thing.future, careful.future)  # type: ignore[attr-defined]
        stream = pool.iterate(range(3))
        stream.itself = stream  # type: ignore[attr-defined]
        unstarted = pool.iterate(lambda: unstarted)
        submitted = pool.submit(lambda: submitted)
        await pool.aclose()
        return [weakref.ref(x) for x in (pool, caller, thing, careful, stream, submitted)]

    gone = run_async(main)
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


def test_a_cycle_through_a_job_is_alive_while_it_runs(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        pool = wsoffload.Pool(1)
        thing = Thing()
        gone = weakref.ref(thing)

        def job(thing: Thing) -> bool:
            gate()
            return thing.future is not None  # type: ignore[attr-defined]

        thing.future = pool.run(job, thing)  # type: ignore[attr-defined]
        future = thing.future  # type: ignore[attr-defined]
        gate.wait_entered()
        del thing, pool
        gc.collect()
        assert gone() is not None
        gate.open()
        assert await future
        del future
        await until(lambda: gc.collect() >= 0 and gone() is None)

    run_async(main)


def test_the_last_reference_may_go_on_a_worker(gate: Gate) -> None:
    class Argument:
        def __init__(self, pool: wsoffload.Pool) -> None:
            self.pool = pool

        def __del__(self) -> None:
            gone.append(threading.current_thread().name)

    gone: list[str] = []
    pool = wsoffload.Pool(1, "last")
    # The job holds the only reference to its own pool.
    pool.submit(lambda _: gate(), Argument(pool))
    thread = next(iter(pool._threads))
    del pool
    gate.open()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert gone == ["last_0"]


@pytest.mark.skipif(SANITIZER == "asan", reason="AddressSanitizer keeps what is freed")
def test_pools_that_are_gone_are_forgotten() -> None:
    def blocks() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    def use(count: int) -> None:
        for _ in range(count):
            pool = wsoffload.Pool(1)
            pool.submit(int).result(PATIENCE)

    use(200)
    gc.collect()
    before = blocks()
    use(1500)
    gc.collect()
    # Each pool has two histograms of several KiB; kept, they would be thousands of pages.
    assert blocks() < before + 1500
