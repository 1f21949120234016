"""What does a call cost when thousands are under way, and how often is the loop woken for them?"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from time import perf_counter_ns

import wsoffload

from ._contenders import BASELINE, OURS, Call, Contender, noop, open_all
from ._machine import pool_size
from ._rounds import Sizes, alternate
from ._table import Row, compare, plain

EMPTY = "empty tasks"
# The goal is the ratio to the baseline; every other library has only to be slower.
BARE = "burst, bare awaitables"
TASKS = "burst, a task for each call"
WAKEUPS = "eventfd writes of a burst"
MOST_WAKEUPS = 300

Way = Callable[[Call, int], Awaitable[float]]


async def bare(call: Call, count: int) -> float:
    """Gather what the calls return. Give back the microseconds per call."""
    start = perf_counter_ns()
    await asyncio.gather(*[call() for _ in range(count)])
    return (perf_counter_ns() - start) / count / 1000


async def in_tasks(call: Call, count: int) -> float:
    """Await each call in a coroutine of its own, as a server's handlers do."""

    async def handler() -> None:
        await call()

    return await bare(handler, count)


async def _nothing() -> None:
    """What a task costs that calls nobody."""


async def _take(way: Way, contender: Contender, count: int) -> float:
    contender.prepare()
    return await way(contender.call, count)


async def burst(what: str, way: Way, goal: float, loop: str, sizes: Sizes) -> list[Row]:
    """Compare a burst of calls, made in one of the two ways, with all other contenders."""
    with ExitStack() as stack:
        present, missing = open_all(stack, pool_size())
        if way is in_tasks:
            present[EMPTY] = Contender(_nothing)
        samples = {
            # Nothing is called in the empty task, so it needs no second coroutine around it.
            name: partial(_take, bare if name == EMPTY else way, contender, sizes.burst)
            for name, contender in present.items()
        }
        values = await alternate(samples, sizes.rounds)
    ours, baseline, empty = values.pop(OURS), values.pop(BASELINE), values.pop(EMPTY, None)
    rows = [compare(what, loop, BASELINE, "µs", ours, baseline, goal)]
    rows += [compare(what, loop, name, "µs", ours, theirs, 1.0) for name, theirs in values.items()]
    rows += [Row(what, loop, name, note=note) for name, note in missing.items()]
    if empty is not None:
        rows.append(compare(what, loop, EMPTY, "µs", ours, empty))
    return rows


async def bare_burst(loop: str, sizes: Sizes) -> list[Row]:
    return await burst(BARE, bare, 1 / 10, loop, sizes)


async def task_burst(loop: str, sizes: Sizes) -> list[Row]:
    return await burst(TASKS, in_tasks, 1 / 4, loop, sizes)


async def wakeups(loop: str, sizes: Sizes) -> list[Row]:
    """Count how often the loop's eventfd is written for one burst."""
    counts: list[float] = []
    with wsoffload.Pool(pool_size()) as pool:
        for _ in range(sizes.rounds):
            before = pool.stats().wakeups
            await bare(partial(pool.run, noop), sizes.burst)
            counts.append(pool.stats().wakeups - before)
    return [plain(WAKEUPS, loop, "", counts, MOST_WAKEUPS)]
