"""Tests of admission: what `run` meets at a full pool, under each policy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import PATIENCE, Gate, RunAsync, until

import wsoffload


def test_without_a_bound_everything_is_accepted(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            futures = [pool.run(gate, number) for number in range(5000)]
            gate.wait_entered()
            stats = pool.stats()
            assert (stats.queued, stats.waiting, stats.over) == (4999, 0, 0)
            gate.open()
            assert await asyncio.gather(*futures) == list(range(5000))

    run_async(main)


def test_wait_is_first_come_first_served(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        order: list[int] = []
        async with wsoffload.Pool(1, max_queue=2) as pool:
            blocker = pool.run(gate)
            gate.wait_entered()
            futures = [pool.run(order.append, number) for number in range(50)]
            stats = pool.stats()
            # Not a moment is lost by waiting: the loop turns.
            assert (stats.running, stats.queued, stats.waiting) == (1, 2, 48)
            assert stats.accepted == 51
            await asyncio.sleep(0)
            gate.open()
            await asyncio.gather(blocker, *futures)
        assert order == list(range(50))
        assert pool.stats().over == 0

    run_async(main)


def test_wait_never_overtakes(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        order: list[str] = []
        async with wsoffload.Pool(1, max_queue=1) as pool:
            pool.run(gate)
            gate.wait_entered()
            queued = pool.run(order.append, "queued")
            pool.run(order.append, "waiting")
            # Its place goes to who waits, not to who comes now.
            queued.cancel()
            pool.run(order.append, "late")
            stats = pool.stats()
            assert (stats.queued, stats.waiting) == (1, 1)
            gate.open()
        assert order == ["waiting", "late"]

    run_async(main)


def test_raise(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2, max_queue=1, when_full="raise") as pool:
            futures = [pool.run(gate, number) for number in range(3)]
            with pytest.raises(wsoffload.QueueFull, match="queue is full"):
                pool.run(gate)
            with pytest.raises(wsoffload.QueueFull):
                pool.using(timeout=100, queue_timeout=100, name="x").run(gate)
            assert pool.stats().accepted == 3
            gate.wait_entered(2)
            # A cancelled call gives its place back at once, also if it is only queued.
            futures.pop().cancel()
            futures.append(pool.run(gate, 2))
            gate.open()
            assert await asyncio.gather(*futures) == [0, 1, 2]
        assert gate.entered == 3

    run_async(main)


def test_an_abandoned_call_keeps_its_place(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1, when_full="raise") as pool:
            running, queued = pool.run(gate), pool.run(int)
            gate.wait_entered()
            running.cancel()
            with pytest.raises(wsoffload.QueueFull):
                pool.run(int)
            gate.open()
            assert await queued == 0
            await until(lambda: pool.stats().running == 0)
            assert await pool.run(int) == 0

    run_async(main)


def test_drop_oldest(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=2, when_full="drop_oldest") as pool:
            running = pool.run(gate, "running")
            gate.wait_entered()
            futures = [pool.run(int, number) for number in range(6)]
            # Dropped is told by the bell, as every end is.
            results = asyncio.gather(*futures, return_exceptions=True)
            await until(lambda: futures[3].done())
            assert not futures[4].done()
            gate.open()
            found = await results
            assert [type(result) for result in found[:4]] == [wsoffload.Dropped] * 4
            assert found[4:] == [4, 5]
            assert await running == "running"
            assert pool.stats().dropped == 4
            assert pool.stats().over == 0

    run_async(main)


@pytest.mark.parametrize("when_full", ["wait", "raise", "drop_oldest"])
def test_the_same_bound_for_every_policy(
    run_async: RunAsync[Any], gate: Gate, when_full: Any
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(3, max_queue=4, when_full=when_full) as pool:
            futures = [pool.run(gate, number) for number in range(7)]
            gate.wait_entered(3)
            stats = pool.stats()
            assert (stats.running, stats.queued, stats.waiting, stats.dropped) == (3, 4, 0, 0)
            gate.open()
            assert await asyncio.gather(*futures) == list(range(7))

    run_async(main)


def test_the_loop_turns_while_thousands_wait(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1) as pool:
            futures = [pool.run(gate, number) for number in range(3000)]
            await until(lambda: gate.entered)
            assert pool.stats().waiting == 2998
            for future in futures[2:]:
                future.cancel()
            assert pool.stats().waiting == 0
            gate.open()
            assert await asyncio.gather(*futures[:2]) == [0, 1]
        assert gate.entered == 2

    run_async(main)


def test_closing_runs_what_waits(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1, max_queue=1) as pool:
            futures = [pool.run(gate, number) for number in range(10)]
            gate.open()
        assert await asyncio.gather(*futures) == list(range(10))

    run_async(main)


def test_streams_are_admitted_by_the_same_rule(run_async: RunAsync[Any], gate: Gate) -> None:
    def source(value: int) -> Any:
        yield gate(value)

    async def main() -> None:
        pool = wsoffload.Pool(1, max_queue=1, when_full="raise", max_streams=1)
        async with pool:
            streams = [pool.iterate(source, number) for number in range(3)]
            for stream in streams[:2]:
                await stream.__aenter__()
            with pytest.raises(wsoffload.QueueFull):
                await streams[2].__aenter__()
            await until(lambda: gate.entered)
            # Streams and calls do not take each other's places.
            assert await asyncio.wait_for(pool.run(int), PATIENCE) == 0
            assert pool.stats().streams_queued == 1
            gate.open()
            for number, stream in enumerate(streams[:2]):
                assert await anext(stream) == number
                await stream.aclose()

    run_async(main)
