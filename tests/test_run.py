"""Tests of `run`: what it hands over and gives back, and how its results reach the loop."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import itertools
import os
import random
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Gate, RunAsync, descriptors, until, wait_until

import wsoffload
from wsoffload import _process

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

# What csrc/py/loop.c settles in one pass.
MOST_PER_PASS = 256


def test_arguments_and_result(run_async: RunAsync[Any]) -> None:
    def everything(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs, threading.get_ident()

    async def main() -> None:
        args, kwargs, ident = await wsoffload.run(
            everything, 1, [2], function=3, fn=4, self=5, args=6
        )
        assert args == (1, [2])
        assert kwargs == {"function": 3, "fn": 4, "self": 5, "args": 6}
        assert ident != threading.get_ident()
        assert await wsoffload.run(everything) == ((), {}, ident)

    run_async(main)


def test_returns_a_future_of_the_loop_at_once(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        future = wsoffload.run(gate, "value")
        assert isinstance(future, asyncio.Future)
        assert asyncio.isfuture(future)
        assert future.get_loop() is asyncio.get_running_loop()
        assert not future.done()
        gate.open()
        assert await future == "value"
        assert future.result() == "value"

    run_async(main)


def test_future_works_with_asyncio(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        run = wsoffload.run
        assert await asyncio.gather(*(run(abs, -i) for i in range(20))) == list(range(20))
        assert await asyncio.wait_for(run(int, "5"), None) == 5
        assert {await f for f in asyncio.as_completed([run(int, "1"), run(int, "2")])} == {1, 2}
        kept = run(gate, 7)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(kept), 0)
        gate.open()
        assert await kept == 7

    run_async(main)


def test_context_is_a_copy(run_async: RunAsync[Any]) -> None:
    def job() -> str:
        before = variable.get()
        variable.set("job")
        return before

    async def main() -> None:
        variable.set("caller")
        future = wsoffload.run(job)
        variable.set("later")
        assert await future == "caller"
        assert variable.get() == "later"
        assert await wsoffload.run(job) == "later"

    run_async(main)


def test_exception_has_its_traceback(run_async: RunAsync[Any]) -> None:
    raised = ValueError("on purpose")

    def inner() -> None:
        raise raised

    def outer() -> None:
        inner()

    async def main() -> None:
        with pytest.raises(ValueError, match="on purpose") as caught:
            await wsoffload.run(outer)
        assert caught.value is raised
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["outer", "inner"]

    run_async(main)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_any_exception_is_the_awaiters(run_async: RunAsync[Any], kind: type[BaseException]) -> None:
    def job() -> None:
        raise kind("on purpose")

    async def main() -> None:
        with pytest.raises(kind, match="on purpose"):
            await wsoffload.run(job)
        # The thread has survived it.
        assert await wsoffload.run(int) == 0
        assert wsoffload.stats().started == 1

    run_async(main)


def test_stop_iteration_becomes_runtime_error(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await wsoffload.run(next, iter([]))
        assert isinstance(caught.value.__cause__, StopIteration)

    run_async(main)


def test_a_cancelled_error_of_the_job_is_its_own(run_async: RunAsync[Any]) -> None:
    def job() -> None:
        raise asyncio.CancelledError("by the job")

    async def main() -> None:
        future = wsoffload.run(job)
        with pytest.raises(asyncio.CancelledError, match="by the job"):
            await future

    run_async(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_in_an_eager_task(run_async: RunAsync[Any]) -> None:
    async def child() -> int:
        return await wsoffload.run(abs, -3)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.Task(child(), loop=loop, eager_start=True) for _ in range(50)]
        # They have started, so their calls are under way already.
        assert wsoffload.stats().accepted == 50
        assert await asyncio.gather(*tasks) == [3] * 50

    run_async(main)


def test_one_pool_for_the_process(run_async: RunAsync[Any]) -> None:
    async def main() -> int:
        ident: int = await wsoffload.run(threading.get_ident)
        return ident

    assert run_async(main) == run_async(main)
    pool = _process._process_pool()
    assert pool is _process._process_pool()
    assert pool._max_workers == min(32, len(os.sched_getaffinity(0)) + 4)
    counts = dataclasses.asdict(wsoffload.stats())
    del counts["guard"]
    assert counts == dataclasses.asdict(pool.stats())
    assert wsoffload.stats().completed == 2


# Invariant 7.


@pytest.fixture
def watched_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    """Makes loops that note which thread called call_soon, as settling a future does."""
    base = type(loop := loop_factory())
    loop.close()

    class Watched(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.callers: Counter[int] = Counter()

        def call_soon(self, *args: Any, **kwargs: Any) -> Any:
            self.callers[threading.get_ident()] += 1
            return super().call_soon(*args, **kwargs)

    return Watched


def test_futures_are_settled_on_their_loops_thread(watched_loop: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        # A future that has an awaiter calls call_soon on the thread that settles it.
        with wsoffload.Pool(4, max_queue=10, when_full="drop_oldest") as pool:
            futures = [pool.run(abs, -1) for _ in range(200)]
            futures += [pool.using(timeout=0).run(time.sleep, 0)]
            await asyncio.gather(*futures, return_exceptions=True)
        assert set(loop.callers) == {threading.get_ident()}

    with asyncio.Runner(loop_factory=watched_loop) as runner:
        runner.run(main())


def test_a_future_that_is_already_done_is_left_alone(run_async: RunAsync[Any], gate: Gate) -> None:
    def fail() -> None:
        gate()
        raise ValueError("on purpose")

    async def main() -> None:
        async with wsoffload.Pool(3) as pool:
            first, second = pool.run(gate), pool.run(fail)
            third = pool.using(on_cancel="wait").run(fail)
            gate.wait_entered(3)
            for future in (first, second, third):
                future.set_result("mine")
            gate.open()
        assert [await first, await second, await third] == ["mine"] * 3

    run_async(main)


def test_exactly_one_done(run_async: RunAsync[Any]) -> None:
    count = 3000
    chance = random.Random(5)
    ran = itertools.count()
    settled: Counter[int] = Counter()

    async def main() -> None:
        async with wsoffload.Pool(3, max_queue=50, when_full="drop_oldest") as pool:
            careful = pool.using(on_cancel="wait")
            futures = []
            for number in range(count):
                future = chance.choice([pool, careful]).run(next, ran)
                future.add_done_callback(lambda _, number=number: settled.update([number]))
                futures.append(future)
                if chance.random() < 0.3:
                    chance.choice(futures[-40:]).cancel()
                if chance.random() < 0.05:
                    await asyncio.sleep(0)
            results = await asyncio.gather(*futures, return_exceptions=True)
        await asyncio.sleep(0)
        assert settled == Counter(range(count))
        kinds = Counter(type(result) for result in results)
        assert set(kinds) <= {int, wsoffload.Dropped, asyncio.CancelledError}
        # A call that runs although its future was cancelled before has a number that nobody got.
        numbers = [result for result in results if type(result) is int]
        assert len(set(numbers)) == len(numbers)
        stats = pool.stats()
        assert stats.accepted == count
        assert stats.completed + stats.cancelled + stats.dropped == count
        assert stats.dropped == kinds[wsoffload.Dropped]
        assert stats.queued == stats.waiting == stats.running == stats.abandoned == 0
        # Some of each, or the test says nothing.
        assert min(stats.completed, stats.cancelled) > 0

    run_async(main)


# The bell.


def test_one_write_wakes_the_loop_for_many_jobs(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            before = pool.stats().wakeups
            futures = [pool.run(int) for _ in range(200)]
            # The loop does not turn meanwhile. Only idle threads have surely rung already.
            wait_until(lambda: pool.stats().completed == 200)
            wait_until(lambda: pool.stats().idle == pool.stats().threads)
            assert not any(future.done() for future in futures)
            assert await asyncio.gather(*futures) == [0] * 200
            assert pool.stats().wakeups == before + 1

    run_async(main)


def test_bounded_drain_per_pass(run_async: RunAsync[Any]) -> None:
    count = 3000

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        settled = []
        at_each_turn = []

        def turn() -> None:
            at_each_turn.append(sum(future.done() for future in settled))

        async with wsoffload.Pool(2) as pool:
            settled = [pool.run(int) for _ in range(count)]
            wait_until(lambda: pool.stats().completed == count)
            wait_until(lambda: pool.stats().idle == pool.stats().threads)
            before = pool.stats().wakeups
            # There is always something to read, so each turn of the loop looks at it once.
            far.send(b"x")
            loop.add_reader(near, turn)
            await asyncio.gather(*settled)
            loop.remove_reader(near)
            wakeups = pool.stats().wakeups - before
        near.close()
        far.close()
        steps = [after - before for before, after in itertools.pairwise([0, *at_each_turn, count])]
        assert 0 < max(steps) <= MOST_PER_PASS
        # The rest of each pass is asked for by one more write, and by no more than one.
        assert wakeups <= count // MOST_PER_PASS + 1

    run_async(main)


def test_no_ring_is_lost(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        # Each trip has to wake a loop that sleeps or is about to; a lost ring hangs here.
        async with wsoffload.Pool(4) as pool:

            async def trips() -> int:
                return sum([await pool.run(abs, -1) for _ in range(250)])

            assert await asyncio.gather(*(trips() for _ in range(8))) == [250] * 8

    run_async(main)


def test_one_eventfd_for_everything(run_async: RunAsync[Any]) -> None:
    def eventfds() -> int:
        return sum("eventfd" in target for target in descriptors().values())

    async def main() -> None:
        before = eventfds()
        async with wsoffload.Pool() as one, wsoffload.Pool() as two:
            await asyncio.gather(one.run(int), two.run(int), wsoffload.run(int))
            async with one.iterate(range(3)) as stream:
                assert [item async for item in stream] == [0, 1, 2]
            assert eventfds() == before + 1

    run_async(main)


def test_work_and_loop_go_on_while_a_job_runs(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        future = wsoffload.run(gate)
        await until(lambda: gate.entered)
        for _ in range(100):
            assert await wsoffload.run(int) == 0
        assert not future.done()
        gate.open()
        await future

    run_async(main)
