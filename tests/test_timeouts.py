"""Tests of `timeout` and `queue_timeout`: which of them ended a call, and what becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import MS, Gate, RunAsync, until, wait_until

import wsoffload

SOON = 2 * MS
NEVER = 10_000.0


def text(setting: str, where: str, name: str = "", seconds: float = SOON) -> str:
    return f"^{name}call timed out: {setting}={seconds!r} s passed while it was {where}$"


@pytest.mark.parametrize("setting", ["timeout", "queue_timeout"])
def test_of_a_queued_call(run_async: RunAsync[Any], gate: Gate, setting: str) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            pool.run(gate)
            gate.wait_entered()
            future = pool.using(**{setting: SOON}).run(gate)  # type: ignore[arg-type]
            with pytest.raises(TimeoutError, match=text(setting, "still queued")):
                await future
            stats = pool.stats()
            assert (stats.queued, stats.cancelled, stats.abandoned) == (0, 1, 0)
            gate.open()
        assert gate.entered == 1

    run_async(main)


def test_of_a_call_that_waits_for_admission(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1) as pool:
            pool.run(gate)
            gate.wait_entered()
            queued = pool.run(int)
            future = pool.using(queue_timeout=SOON, name="report").run(gate)
            assert pool.stats().waiting == 1
            with pytest.raises(
                TimeoutError, match=text("queue_timeout", "still queued", "'report' ")
            ):
                await future
            assert pool.stats().waiting == 0
            gate.open()
            assert await queued == 0

    run_async(main)


def test_of_a_running_call(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.using(timeout=SOON, name="report").run(gate)
            gate.wait_entered()
            with pytest.raises(TimeoutError, match=text("timeout", "running", "'report' ")):
                await future
            assert gate.left == 0
            assert pool.stats().abandoned == 1
            gate.open()
            await until(lambda: pool.stats().running == 0)
            assert pool.stats().abandoned == 0

    run_async(main)


def test_of_a_running_call_that_is_waited_for(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.using(timeout=SOON, on_cancel="wait").run(gate)
            gate.wait_entered()
            await asyncio.sleep(5 * SOON)
            assert not future.done()
            assert pool.stats().abandoned == 0
            gate.open()
            with pytest.raises(TimeoutError, match=text("timeout", "running")):
                await future
            assert gate.left == 1

    run_async(main)


def test_an_exception_behind_a_timeout_is_reported(run_async: RunAsync[Any], gate: Gate) -> None:
    reports: list[dict[str, Any]] = []

    def job() -> None:
        gate()
        raise ValueError("on purpose")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        async with wsoffload.Pool(1) as pool:
            future = pool.using(timeout=SOON, on_cancel="wait").run(job)
            gate.wait_entered()
            await asyncio.sleep(5 * SOON)
            gate.open()
            with pytest.raises(TimeoutError):
                await future
        (report,) = reports
        assert str(report["exception"]) == "on purpose"

    run_async(main)


def test_queue_timeout_does_not_concern_a_running_call(
    run_async: RunAsync[Any], gate: Gate
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            for caller in (
                pool.using(queue_timeout=SOON),
                pool.using(queue_timeout=SOON, on_cancel="wait", timeout=NEVER),
            ):
                gate = Gate()
                future = caller.run(gate, "result")
                gate.wait_entered()
                await asyncio.sleep(5 * SOON)
                gate.open()
                assert await future == "result"

    run_async(main)


def test_the_earlier_of_both_counts(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            pool.run(gate)
            gate.wait_entered()
            with pytest.raises(TimeoutError, match=text("timeout", "still queued")):
                await pool.using(timeout=SOON, queue_timeout=NEVER).run(int)
            with pytest.raises(TimeoutError, match=text("queue_timeout", "still queued")):
                await pool.using(timeout=NEVER, queue_timeout=SOON).run(int)
            gate.open()

    run_async(main)


def test_zero_seconds(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            pool.run(gate)
            gate.wait_entered()
            with pytest.raises(TimeoutError, match=text("timeout", "still queued", seconds=0.0)):
                await pool.using(timeout=0).run(int)
            gate.open()

    run_async(main)


def test_in_time(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            caller = pool.using(timeout=NEVER, queue_timeout=NEVER, on_cancel="wait")
            assert await asyncio.gather(*(caller.run(int, i) for i in range(50))) == list(range(50))
            with pytest.raises(ValueError, match="invalid literal"):
                await caller.run(int, "x")
            assert await pool.using(timeout=float("inf")).run(int) == 0

    run_async(main)


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_a_call_that_ended_in_time_but_is_delivered_late(
    run_async: RunAsync[Any], on_cancel: Any
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.using(timeout=0, on_cancel=on_cancel).run(int)
            # The loop does not turn meanwhile, so the timer comes after the end of the job.
            wait_until(lambda: pool.stats().completed == 1)
            assert await future == 0

    run_async(main)


def test_a_cancelled_error_wins_over_a_timeout(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            careful = pool.using(timeout=SOON, on_cancel="wait")

            async def use(future: asyncio.Future[Any]) -> None:
                await future

            futures = [careful.run(gate) for _ in range(2)]
            gate.wait_entered(2)
            early, late = (asyncio.create_task(use(future)) for future in futures)
            await asyncio.sleep(0)
            early.cancel("early")
            await asyncio.sleep(5 * SOON)
            late.cancel("late")
            await asyncio.sleep(0)
            assert not early.done()
            assert not late.done()
            gate.open()
            with pytest.raises(asyncio.CancelledError, match="early"):
                await early
            with pytest.raises(asyncio.CancelledError, match="late"):
                await late

    run_async(main)


def test_a_future_that_is_already_done_is_left_alone(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            futures = [
                pool.using(timeout=SOON, on_cancel=on_cancel).run(gate)  # type: ignore[arg-type]
                for on_cancel in ("abandon", "wait", "abandon")
            ]
            gate.wait_entered(2)
            for future in futures:
                future.set_result("mine")
            await asyncio.sleep(5 * SOON)
            gate.open()
        assert [await future for future in futures] == ["mine"] * 3

    run_async(main)


def test_using_keeps_what_it_does_not_change() -> None:
    with wsoffload.Pool(1) as pool:
        caller = pool.using(timeout=1.0, name="report", on_cancel="wait", max_items=3)
        changed = caller.using(timeout=2.0)._settings
        assert (changed.timeout, changed.name) == (2.0, "report")
        assert (changed.on_cancel, changed.max_items) == ("wait", 3)
        assert caller._settings.timeout == 1.0
        assert caller.using(name=None)._settings.name is None
