"""Tests of `submit`: from plain threads that may block, and from loops and workers that may not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import threading
from typing import Any

import pytest
from conftest import MS, PATIENCE, Gate, RunAsync, wait_until

import wsoffload


class Submitter(threading.Thread):
    """A plain thread that submits one call, and blocks where the pool lets it wait."""

    def __init__(self, pool: wsoffload.Pool, *call: Any) -> None:
        super().__init__()
        self.accepted: list[concurrent.futures.Future[Any]] = []
        self._submit = lambda: self.accepted.append(pool.submit(*call))

    def run(self) -> None:
        self._submit()


def waiting(pool: wsoffload.Pool, count: int) -> None:
    wait_until(lambda: pool.stats().waiting == count)


def test_arguments_result_and_exception() -> None:
    with wsoffload.Pool(1) as pool:
        future = pool.submit(dict, function=1, self=2)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(PATIENCE) == {"function": 1, "self": 2}
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result(PATIENCE)
        called = pool.submit(threading.get_ident)
        seen: list[int] = []
        called.add_done_callback(lambda future: seen.append(future.result()))
        wait_until(lambda: seen)


def test_a_future_that_is_already_done_is_left_alone(gate: Gate) -> None:
    with wsoffload.Pool(1) as pool:
        future = pool.submit(gate, "late")
        gate.wait_entered()
        future.set_result("mine")
        gate.open()
    assert future.result() == "mine"


def test_the_bound_counts_queued_and_running(gate: Gate) -> None:
    with wsoffload.Pool(2, max_queue=3, when_full="raise") as pool:
        futures = [pool.submit(gate, number) for number in range(5)]
        gate.wait_entered(2)
        with pytest.raises(wsoffload.QueueFull, match="queue is full"):
            pool.submit(gate)
        assert pool.stats().accepted == 5
        assert pool.stats().queued == 3
        gate.open()
        assert [future.result(PATIENCE) for future in futures] == list(range(5))
        wait_until(lambda: pool.stats().running == 0)
        assert pool.submit(int).result(PATIENCE) == 0


def test_without_a_bound_everything_is_accepted(gate: Gate) -> None:
    with wsoffload.Pool(1) as pool:
        futures = [pool.submit(gate, number) for number in range(5000)]
        gate.wait_entered()
        stats = pool.stats()
        assert (stats.queued, stats.waiting, stats.over) == (4999, 0, 0)
        gate.open()
        assert [future.result(PATIENCE) for future in futures] == list(range(5000))


def test_waits_for_its_turn_first_come_first_served() -> None:
    order: list[int] = []
    gate = Gate()
    with wsoffload.Pool(1, max_queue=1) as pool:
        pool.submit(gate)
        gate.wait_entered()
        pool.submit(order.append, 0)
        submitters = []
        for number in range(1, 6):
            submitters.append(Submitter(pool, order.append, number))
            submitters[-1].start()
            waiting(pool, number)
        assert all(submitter.accepted == [] for submitter in submitters)
        gate.open()
        for submitter in submitters:
            submitter.join()
            assert submitter.accepted[0].result(PATIENCE) is None
    assert order == list(range(6))
    assert pool.stats().over == 0


def test_a_cancelled_future_makes_room_for_who_waits(gate: Gate) -> None:
    with wsoffload.Pool(1, max_queue=1) as pool:
        pool.submit(gate)
        gate.wait_entered()
        queued = pool.submit(gate)
        submitter = Submitter(pool, int)
        submitter.start()
        waiting(pool, 1)
        assert queued.cancel()
        submitter.join()
        gate.open()
        assert submitter.accepted[0].result(PATIENCE) == 0
    assert gate.entered == 1


def test_drop_oldest(gate: Gate) -> None:
    with wsoffload.Pool(1, max_queue=2, when_full="drop_oldest") as pool:
        running = pool.submit(gate, "running")
        gate.wait_entered()
        first, second, third = (pool.submit(int, number) for number in range(3))
        with pytest.raises(wsoffload.Dropped, match="make room") as caught:
            first.result(PATIENCE)
        assert isinstance(caught.value, wsoffload.QueueFull)
        assert isinstance(caught.value, RuntimeError)
        assert not second.done()
        assert pool.stats().dropped == 1
        gate.open()
        assert [future.result(PATIENCE) for future in (running, second, third)] == ["running", 1, 2]


@pytest.mark.parametrize("when_full", ["wait", "raise", "drop_oldest"])
def test_from_a_loops_thread_always_accepted(
    run_async: RunAsync[Any], gate: Gate, when_full: Any
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with wsoffload.Pool(1, max_queue=1, when_full=when_full) as pool:
            kept = [pool.submit(gate, number) for number in range(2)]
            gate.wait_entered()
            kept.append(pool.submit(gate, 2))
            assert pool.stats().over == 1
            wrapped = loop.run_in_executor(pool, gate, 3)
            stats = pool.stats()
            assert (stats.over, stats.over_max, stats.waiting, stats.dropped) == (2, 2, 0, 0)
            # What was accepted that way is never dropped either.
            if when_full == "drop_oldest":
                with pytest.raises(wsoffload.QueueFull):
                    pool.run(int)
            gate.open()
            assert await wrapped == 3
            assert [future.result(PATIENCE) for future in kept] == [0, 1, 2]

    run_async(main)


@pytest.mark.parametrize("when_full", ["wait", "raise", "drop_oldest"])
def test_from_a_worker_of_the_same_pool_always_accepted(gate: Gate, when_full: Any) -> None:
    def job() -> list[concurrent.futures.Future[Any]]:
        return [pool.submit(gate, number) for number in range(4)]

    with wsoffload.Pool(1, max_queue=1, when_full=when_full) as pool:
        futures = pool.submit(job).result(PATIENCE)
        gate.open()
        assert [future.result(PATIENCE) for future in futures] == list(range(4))
        # One ran, one was within the bound, and of the job itself the place was taken.
        assert pool.stats().over == 3
        assert pool.stats().over_max == 3


def test_from_a_worker_of_another_pool_as_from_any_thread(gate: Gate) -> None:
    with wsoffload.Pool(1) as other, wsoffload.Pool(1, max_queue=1) as pool:
        pool.submit(gate)
        gate.wait_entered()
        pool.submit(int)
        outer = other.submit(pool.submit, int)
        waiting(pool, 1)
        assert not outer.done()
        gate.open()
        assert outer.result(PATIENCE).result(PATIENCE) == 0


def test_shutdown_while_a_submit_waits(gate: Gate) -> None:
    for cancel in (False, True):
        gate = Gate()
        pool = wsoffload.Pool(1, max_queue=1)
        pool.submit(gate)
        gate.wait_entered()
        queued = pool.submit(int)
        submitter = Submitter(pool, int)
        submitter.start()
        waiting(pool, 1)
        pool.shutdown(wait=False, cancel_futures=cancel)
        gate.open()
        submitter.join()
        # It was accepted before the shutdown.
        (accepted,) = submitter.accepted
        pool.shutdown()
        assert queued.cancelled() == accepted.cancelled() == cancel
        assert cancel or accepted.result(PATIENCE) == 0


class Interrupted(Exception):
    """Raised by a signal handler."""


@pytest.mark.parametrize("raises", [True, False])
def test_a_signal_while_submit_waits(gate: Gate, raises: bool) -> None:
    handled = []

    def handle(*_: object) -> None:
        handled.append(pool.stats().accepted)
        if raises:
            raise Interrupted
        gate.open()

    with wsoffload.Pool(1, max_queue=1) as pool:
        pool.submit(gate)
        gate.wait_entered()
        pool.submit(int)
        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 10 * MS)
        try:
            if raises:
                with pytest.raises(Interrupted):
                    pool.submit(int)
                # As if it had never been.
                stats = pool.stats()
                assert (stats.waiting, stats.queued, stats.accepted) == (0, 1, 2)
                gate.open()
            else:
                assert pool.submit(int).result(PATIENCE) == 0
        finally:
            signal.signal(signal.SIGALRM, before)
        assert len(handled) == 1


# Cancelling.


def test_a_cancelled_queued_future_never_runs_and_frees_its_place(gate: Gate) -> None:
    with wsoffload.Pool(1) as pool:
        pool.submit(gate)
        gate.wait_entered()
        queued = [pool.submit(gate) for _ in range(10)]
        assert pool.stats().queued == 10
        assert all(future.cancel() for future in queued)
        assert all(future.cancel() for future in queued)
        stats = pool.stats()
        assert (stats.queued, stats.cancelled) == (0, 10)
        gate.open()
    assert gate.entered == 1
    assert pool.stats().completed == 1


def test_whoever_waits_for_many_futures_hears_of_the_cancelled(gate: Gate) -> None:
    with wsoffload.Pool(1) as pool:
        pool.submit(gate)
        gate.wait_entered()
        early, late = pool.submit(int), pool.submit(int)
        early.cancel()
        waits = concurrent.futures.as_completed([early, late], PATIENCE)
        assert next(waits) is early
        canceller = threading.Timer(1 * MS, late.cancel)
        canceller.start()
        assert next(waits) is late
        canceller.join()
        assert concurrent.futures.wait([early, late], PATIENCE).not_done == set()
        gate.open()


def test_a_running_future_cannot_be_cancelled(gate: Gate) -> None:
    with wsoffload.Pool(1) as pool:
        future = pool.submit(gate, 1)
        gate.wait_entered()
        assert future.running()
        assert not future.cancel()
        gate.open()
        assert future.result(PATIENCE) == 1


def test_cancelling_races_with_running() -> None:
    with wsoffload.Pool(4) as pool:
        ran: list[int] = []
        futures = [pool.submit(ran.append, number) for number in range(3000)]
        cancelled = {number for number in range(2999, -1, -1) if futures[number].cancel()}
        concurrent.futures.wait(futures, PATIENCE)
        assert sorted(ran) == [number for number in range(3000) if number not in cancelled]
        assert all(futures[number].cancelled() for number in cancelled)
        wait_until(lambda: pool.stats().running == 0)
        stats = pool.stats()
        # A worker may have had a call in hand when it was cancelled, and not run it.
        assert stats.completed >= len(ran)
        assert stats.completed + stats.cancelled == 3000


def test_callbacks_of_cancelled_futures_may_cancel_others(gate: Gate) -> None:
    pool = wsoffload.Pool(1)
    pool.submit(gate)
    gate.wait_entered()
    futures = [pool.submit(int) for _ in range(20)]
    for future in futures:
        future.add_done_callback(lambda _: [other.cancel() for other in reversed(futures)])
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert not concurrent.futures.wait(futures, PATIENCE).not_done
    assert pool.stats().cancelled == 20
    gate.open()
    pool.shutdown()
