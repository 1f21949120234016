"""Tests of loops: many at once, one after the other, and closed with work under way."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from conftest import PATIENCE, Gate, RunAsync, descriptors, until, wait_until

import wsoffload

Factory = Callable[[], asyncio.AbstractEventLoop]


def test_one_pool_serves_many_loops(loop_factory: Factory) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    async def main() -> None:
        own = threading.get_ident()

        def settled(future: asyncio.Future[Any]) -> None:
            assert threading.get_ident() == own
            seen.append(future.result())

        seen: list[int] = []
        for base in range(0, 1000, 100):
            futures = [pool.run(abs, -number) for number in range(base, base + 100)]
            for future in futures:
                future.add_done_callback(settled)
            await asyncio.gather(*futures)
        async with pool.iterate(range(500)) as stream:
            assert [item async for item in stream] == list(range(500))
        assert sorted(seen) == list(range(1000))

    def serve() -> None:
        try:
            barrier.wait(PATIENCE)
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            errors.append(error)
            raise

    with wsoffload.Pool(3) as pool:
        threads = [threading.Thread(target=serve) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: pool.stats().running == 0)
        assert pool.stats().completed == 8000
        assert pool.stats().streams_completed == 8
        assert pool.stats().dropped_results == 0 or not errors
    assert errors == []


def test_each_loop_has_a_bell_of_its_own(loop_factory: Factory) -> None:
    def eventfds() -> int:
        return sum("eventfd" in target for target in descriptors().values())

    with wsoffload.Pool(1) as pool:

        async def use() -> None:
            await pool.run(int)

        loops = [loop_factory() for _ in range(3)]
        before = eventfds()
        for count, loop in enumerate(loops, 1):
            for _ in range(3):
                loop.run_until_complete(use())
            assert eventfds() == before + count
        for loop in loops:
            loop.close()
        gc.collect()
        # uvloop's loops have one of their own.
        assert eventfds() <= before


def test_many_loops_one_after_the_other(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        assert await wsoffload.run(int) == 0

    for _ in range(5):
        run_async(main)
    before = descriptors()
    for _ in range(50):
        run_async(main)
    assert descriptors() == before


def test_a_loop_is_let_go(loop_factory: Factory) -> None:
    async def main() -> None:
        assert await wsoffload.run(int) == 0

    loop = loop_factory()
    loop.run_until_complete(main())
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_a_loop_that_closes_with_jobs_under_way(run_async: RunAsync[Any], gate: Gate) -> None:
    futures: list[asyncio.Future[Any]] = []

    async def leave() -> None:
        futures.append(pool.run(gate, "running"))
        gate.wait_entered()
        futures.append(pool.run(gate, "queued"))
        futures.append(pool.using(timeout=1000, on_cancel="wait").run(gate, "queued"))

    async def use() -> None:
        assert await pool.run(int, "7") == 7

    with wsoffload.Pool(1) as pool:
        before = pool.stats().dropped_results
        run_async(leave)
        gate.open()
        wait_until(lambda: pool.stats().completed == 3)
        assert pool.stats().dropped_results == before + 3
        assert not any(future.done() for future in futures)
        # Pool and process go on.
        run_async(use)
    assert gate.left == 3
    # Nobody hears of it: the loop is closed.
    assert all(future.cancel() for future in futures)


def test_a_loop_that_closes_with_results_in_its_mailbox(run_async: RunAsync[Any]) -> None:
    class Result:
        """Can be weakly referred to."""

    results: list[weakref.ref[Result]] = []

    def job() -> Result:
        result = Result()
        results.append(weakref.ref(result))
        return result

    async def leave() -> None:
        futures.extend(pool.run(job) for _ in range(5000))
        wait_until(lambda: pool.stats().completed == 5000)

    futures: list[asyncio.Future[Result]] = []
    with wsoffload.Pool(1) as pool:
        before = pool.stats().dropped_results
        run_async(leave)
        gc.collect()
        # How many the loop takes in its last turns is its own affair.
        dropped = pool.stats().dropped_results - before
        assert dropped == sum(not future.done() for future in futures) > 0
    futures.clear()
    assert [result() for result in results] == [None] * 5000


def test_a_loop_that_closes_while_its_pool_is_being_closed(
    loop_factory: Factory, gate: Gate
) -> None:
    pool = wsoffload.Pool(1)
    loop = loop_factory()

    async def start(pool: wsoffload.Pool) -> asyncio.Task[None]:
        pool.run(gate)
        gate.wait_entered()
        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        return closing

    closing = loop.run_until_complete(start(pool))
    closing.cancel()
    loop.run_until_complete(asyncio.wait([closing]))
    loop.close()
    del closing, loop
    gc.collect()
    gate.open()
    pool.shutdown()
    assert pool.stats().threads == 0
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None


def test_a_stream_whose_loop_closes_ends(loop_factory: Factory) -> None:
    closed = threading.Event()

    def source() -> Any:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    loop = loop_factory()
    with wsoffload.Pool(1) as pool:

        async def use() -> Any:
            stream = pool.iterate(source)
            await stream.__aenter__()
            assert await anext(stream) == 0
            return stream

        stream = loop.run_until_complete(use())
        loop.close()
        gc.collect()
        assert closed.wait(PATIENCE)
        del stream


def test_jobs_may_run_loops(run_async: RunAsync[Any], loop_factory: Factory) -> None:
    async def inner() -> Any:
        # The loop of a job uses the same pool, and a bell of its own.
        return await asyncio.gather(*(pool.run(abs, -number) for number in range(20)))

    def job() -> Any:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(inner())

    async def main() -> None:
        assert await asyncio.gather(*(pool.run(job) for _ in range(3))) == [list(range(20))] * 3

    with wsoffload.Pool(4) as pool:
        run_async(main)


def test_a_callback_may_close_the_pool(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        pool = wsoffload.Pool(1)
        future = pool.run(int)
        future.add_done_callback(lambda _: pool.shutdown())
        await future
        await until(lambda: pool._shutdown)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.run(int)

    run_async(main)


def test_a_loop_closed_by_what_it_settles(loop_factory: Factory) -> None:
    # The last reference to a result may run any code, also code that stops everything.
    loop = loop_factory()

    async def main() -> None:
        future = pool.run(int)
        future.add_done_callback(lambda _: loop.stop())
        for _ in range(600):
            pool.run(int)
        wait_until(lambda: pool.stats().completed == 601)
        await asyncio.Event().wait()

    with wsoffload.Pool(1) as pool:
        task = loop.create_task(main())
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
    assert task.cancelled()
