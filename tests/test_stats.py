"""Tests of `stats`: what is counted, and that the durations are right."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from typing import Any

import pytest
from conftest import MS, Gate, RunAsync, until, wait_until

import wsoffload

GAUGES = ("threads", "idle", "queued", "waiting", "running", "abandoned")


def gauges(pool: wsoffload.Pool) -> tuple[int, ...]:
    stats = pool.stats()
    return tuple(getattr(stats, name) for name in GAUGES)


def test_is_plain_frozen_data() -> None:
    with wsoffload.Pool(1) as pool:
        stats = pool.stats()
    assert dataclasses.is_dataclass(stats)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.queued = 5  # type: ignore[misc]
    empty = wsoffload.Durations(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert stats.waited == stats.ran == empty
    counts = dataclasses.asdict(stats)
    for process_wide in ("wakeups", "dropped_results", "waited", "ran"):
        counts.pop(process_wide)
    assert set(counts.values()) == {0}


def test_gauges_follow_the_calls(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2, max_queue=1) as pool:
            assert gauges(pool) == (0, 0, 0, 0, 0, 0)
            first = pool.run(gate)
            gate.wait_entered()
            assert gauges(pool) == (1, 0, 0, 0, 1, 0)
            futures = [pool.run(gate) for _ in range(3)]
            gate.wait_entered(2)
            assert gauges(pool) == (2, 0, 1, 1, 2, 0)
            first.cancel()
            assert gauges(pool) == (2, 0, 1, 1, 2, 1)
            futures[-1].cancel()
            assert gauges(pool) == (2, 0, 1, 0, 2, 1)
            gate.open()
            await asyncio.gather(*futures[:-1])
            await until(lambda: pool.stats().idle == 2)
            assert gauges(pool) == (2, 2, 0, 0, 0, 0)
            stats = pool.stats()
            assert (stats.accepted, stats.completed, stats.cancelled) == (4, 3, 1)
            assert (stats.started, stats.dropped, stats.over) == (2, 0, 0)
        assert gauges(pool) == (0, 0, 0, 0, 0, 0)

    run_async(main)


def test_durations() -> None:
    with wsoffload.Pool(1) as pool:
        gate = Gate()
        first = pool.submit(gate)
        gate.wait_entered()
        second = pool.submit(int)
        began = time.monotonic()
        time.sleep(5 * MS)
        elapsed = time.monotonic() - began
        gate.open()
        first.result()
        second.result()
        wait_until(lambda: pool.stats().ran.count == 2)
        stats = pool.stats()
    for durations in (stats.waited, stats.ran):
        assert durations.count == 2
        assert durations.p50 <= durations.p90 <= durations.p99 <= durations.max * 1.0625
        assert durations.max >= elapsed
        assert durations.mean * 2 >= elapsed
        # The other call of the two was the shorter one.
        assert durations.p50 <= durations.max


def test_streams_are_counted_apart(run_async: RunAsync[Any], gate: Gate) -> None:
    def source() -> Any:
        yield gate()

    async def main() -> None:
        async with wsoffload.Pool(1, max_streams=1) as pool:
            streams = [pool.iterate(source) for _ in range(3)]
            for stream in streams:
                await stream.__aenter__()
            gate.wait_entered()
            stats = pool.stats()
            assert (stats.streams_running, stats.streams_queued) == (1, 2)
            assert (stats.running, stats.queued, stats.threads) == (0, 0, 0)
            gate.open()
            for stream in streams:
                assert await anext(stream) is None
                await stream.aclose()
            await until(lambda: pool.stats().streams_completed == 3)
            assert pool.stats().accepted == 0

    run_async(main)


def test_results_of_a_closed_loop_are_counted_as_dropped(
    run_async: RunAsync[Any], gate: Gate
) -> None:
    async def main() -> None:
        for _ in range(3):
            pool.run(gate)

    with wsoffload.Pool(1) as pool:
        before = pool.stats().dropped_results
        run_async(main)
        gate.open()
    assert pool.stats().dropped_results == before + 3
    assert pool.stats().completed == 3


def test_from_any_thread_and_after_the_end(run_async: RunAsync[Any]) -> None:
    with wsoffload.Pool(2) as pool:
        seen: list[wsoffload.PoolStats] = []
        threads = [threading.Thread(target=lambda: seen.append(pool.stats())) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert pool.submit(pool.stats).result().running == 1
        for thread in threads:
            thread.join()
    assert len(seen) == 4
    assert pool.stats().completed == 1


def test_wakeups_are_of_the_process(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool, wsoffload.Pool(1) as other:
            before = pool.stats().wakeups
            await other.run(int)
            assert pool.stats().wakeups > before
            after.append(pool.stats().wakeups)

    after: list[int] = []
    run_async(main)
    # Also of loops that are gone.
    with wsoffload.Pool(1) as pool:
        assert pool.stats().wakeups >= after[0]
