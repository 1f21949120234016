"""What does one item of a stream cost, beside one `asyncio.to_thread` for each item?"""

import asyncio
from collections.abc import Iterator
from functools import partial
from time import perf_counter_ns

import wsoffload

from ._machine import pool_size
from ._rounds import Sizes, alternate
from ._table import Row, compare

ITERATE = "one item of a stream"
GOAL = 1 / 50
MANY_ITEMS = 1000


async def _streamed(caller: wsoffload.Pool | wsoffload.Caller, count: int) -> float:
    """Take all items of a stream. Give back the microseconds per item."""
    start = perf_counter_ns()
    async with caller.iterate(range, count) as items:
        async for _ in items:
            pass
    return (perf_counter_ns() - start) / count / 1000


async def _fetched(count: int) -> float:
    items: Iterator[int] = iter(range(count))
    start = perf_counter_ns()
    for _ in range(count):
        await asyncio.to_thread(next, items)
    return (perf_counter_ns() - start) / count / 1000


async def iterate(loop: str, sizes: Sizes) -> list[Row]:
    """Compare streams that read ahead little and much with a thread's round trip per item."""
    with wsoffload.Pool(pool_size()) as pool:
        wide = pool.using(max_items=MANY_ITEMS)
        samples = {
            ITERATE: partial(_streamed, pool, sizes.items),
            f"{ITERATE}, max_items={MANY_ITEMS}": partial(_streamed, wide, sizes.items),
            "to_thread": partial(_fetched, sizes.single_items),
        }
        values = await alternate(samples, sizes.rounds)
    single = values.pop("to_thread")
    return [
        compare(what, loop, "to_thread", "µs", ours, single, GOAL) for what, ours in values.items()
    ]
