"""How much memory does a queued job take, beyond its future, its context and its arguments?"""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from pathlib import Path

import wsoffload

from ._contenders import noop
from ._rounds import Sizes
from ._table import Row, plain

MEMORY = "memory of a queued job"
MOST_BYTES = 256


def resident_bytes() -> int:
    """The memory of this process that is in RAM now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def weigh(jobs: int) -> float:
    """Queue `jobs` calls that cannot start. Give back the bytes that each takes of our own."""
    loop = asyncio.get_running_loop()
    gate = threading.Event()
    with wsoffload.Pool(1) as pool:
        blocker = pool.run(gate.wait)
        futures: list[object] = [None] * jobs
        contexts: list[object] = [None] * jobs
        calls: list[asyncio.Future[None] | None] = [None] * jobs
        before = resident_bytes()
        # What is not ours stays alive, so that what is weighed next gets fresh memory.
        for number in range(jobs):
            futures[number] = loop.create_future()
            contexts[number] = contextvars.copy_context()
        between = resident_bytes()
        for number in range(jobs):
            calls[number] = pool.run(noop)
        after = resident_bytes()
        gate.set()
        await asyncio.gather(blocker, *filter(None, calls))
    return ((after - between) - (between - before)) / jobs


def print_weight(jobs: int) -> None:
    print(asyncio.run(weigh(jobs)))


def _weights(jobs: int, times: int) -> list[float]:
    """Weigh in fresh processes, whose memory has no holes that could be filled first."""
    command = f"from wsoffload._bench._memory import print_weight\nprint_weight({jobs})"
    program = [sys.executable, "-c", command]
    return [float(subprocess.check_output(program)) for _ in range(times)]


async def memory(_loop: str, sizes: Sizes) -> list[Row]:
    """Weigh the jobs of a queue."""
    weights = _weights(sizes.queued, min(sizes.rounds, 3))
    return [plain(MEMORY, "asyncio", "bytes", weights, MOST_BYTES)]
