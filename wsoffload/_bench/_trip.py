"""What does one awaited call cost: in time, in context switches, in system calls?"""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns

from ._contenders import BASELINE, OPENERS, OURS, Contender, open_all
from ._machine import loops, pool_size
from ._rounds import Sizes, alternate
from ._table import Row, compare, plain

TRIP = "one awaited call"
ON_ONE_CORE = "one awaited call on one core"
SWITCHES = "context switches"
SYSTEM_CALLS = "system calls"
GOAL = 1 / 2


def _switches() -> int:
    """All of this process's threads, whether they gave up the core or it was taken from them."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


async def _take(contender: Contender, trips: int, switches: list[float]) -> float:
    contender.prepare()
    switches_before, start = _switches(), perf_counter_ns()
    for _ in range(trips):
        await contender.call()
    elapsed = perf_counter_ns() - start
    switches.append((_switches() - switches_before) / trips)
    return elapsed / trips / 1000


async def _trips(what: str, workers: int, loop: str, sizes: Sizes) -> list[Row]:
    with ExitStack() as stack:
        present, missing = open_all(stack, workers)
        switches: dict[str, list[float]] = {name: [] for name in present}
        samples = {
            name: partial(_take, contender, sizes.trips, switches[name])
            for name, contender in present.items()
        }
        values = await alternate(samples, sizes.trip_rounds)
    ours, baseline = values.pop(OURS), values.pop(BASELINE)
    rows = [compare(what, loop, BASELINE, "µs", ours, baseline, GOAL)]
    rows += [compare(what, loop, name, "µs", ours, theirs, 1.0) for name, theirs in values.items()]
    rows += [Row(what, loop, name, note=note) for name, note in missing.items()]
    counted = f"{SWITCHES} of {what}"
    rows.append(plain(counted, loop, "", switches[OURS], None, BASELINE, switches[BASELINE]))
    return rows


async def round_trip(loop: str, sizes: Sizes) -> list[Row]:
    """Compare calls that are awaited one after the other."""
    return await _trips(TRIP, pool_size(), loop, sizes)


async def on_one_core(loop: str, sizes: Sizes) -> list[Row]:
    """The same with all threads on one core, where no other core has to be woken up first."""
    workers, cores = pool_size(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return await _trips(ON_ONE_CORE, workers, loop, sizes)
    finally:
        os.sched_setaffinity(0, cores)


def make_trips(name: str, loop: str, trips: int) -> None:
    """Await `trips` calls of one contender, for a counter that watches this process."""

    async def trip() -> None:
        with ExitStack() as stack:
            contender = OPENERS[name](stack, pool_size())
            contender.prepare()
            for _ in range(trips):
                await contender.call()

    with asyncio.Runner(loop_factory=loops()[loop]) as runner:
        runner.run(trip())


def _counter() -> tuple[str, list[str]] | None:
    """The tool that counts the system calls of all threads, and how to call it."""
    # perf counts in the kernel; strace stops the threads at each call, which changes their dance.
    tools = {
        "perf": ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o"],
        "strace": ["strace", "-f", "-c", "-o"],
    }
    for tool, command in tools.items():
        with TemporaryDirectory() as folder:
            if shutil.which(tool) and _counted(command, Path(folder) / "count", ["true"]):
                return tool, command
    return None


def _counted(command: list[str], report: Path, program: list[str]) -> int:
    """Run the program under the counter; 0 if the counter cannot do its work here."""
    run = subprocess.run([*command, str(report), *program], capture_output=True, check=False)
    if run.returncode != 0:
        return 0
    for line in report.read_text().splitlines():
        words = line.replace(",", " ").split()
        if "raw_syscalls:sys_enter" in words:
            return int(words[0]) if words[0].isdigit() else 0
        if words[-1:] == ["total"]:
            return int(words[3])
    return 0


def _calls_per_trip(command: list[str], name: str, loop: str, trips: int) -> float:
    """Two runs of different length, so that starting and ending the interpreter cancels out."""
    with TemporaryDirectory() as folder:
        few, many = (
            _counted(
                command,
                Path(folder) / "count",
                [
                    sys.executable,
                    "-c",
                    f"from wsoffload._bench._trip import make_trips\n"
                    f"make_trips({name!r}, {loop!r}, {count})",
                ],
            )
            for count in (trips, 3 * trips)
        )
    return (many - few) / (2 * trips)


async def system_calls(loop: str, sizes: Sizes) -> list[Row]:
    """Count the system calls of a trip, by another process whose every call is counted."""
    counter = _counter()
    if counter is None:
        return [
            Row(
                f"{SYSTEM_CALLS} of {TRIP}",
                loop,
                BASELINE,
                note="neither perf nor strace can count here",
            )
        ]
    tool, command = counter
    rounds = min(sizes.rounds, 5)
    counts: dict[str, list[float]] = {OURS: [], BASELINE: []}
    for _ in range(rounds):
        for name, values in counts.items():
            values.append(_calls_per_trip(command, name, loop, sizes.trips))
    what = f"{SYSTEM_CALLS} of {TRIP} ({tool})"
    return [plain(what, loop, "", counts[OURS], None, BASELINE, counts[BASELINE])]
