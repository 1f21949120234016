"""A pytest plugin that hunts leaks on a debug Python: `pytest -p refhunt --refhunt 3:3`.

Each test runs a few times so that every cache is filled, and then some more times. After each of
these the plugin counts the references and the memory blocks of the whole interpreter and the open
descriptors of the process. What grew every single time is a leak, and fails the test. A thread that
is still ending can look like one, so a suspicion must hold in a second round of as many runs.

Nothing can be counted in another process: a test that starts one runs once.
"""

from __future__ import annotations

import gc
import linecache
import os
import re
import sys
import urllib.parse
from array import array
from collections.abc import Callable
from itertools import pairwise

import pytest
from _pytest.runner import runtestprotocol

COUNTERS: dict[str, Callable[[], int]] = {
    "references": lambda: sys.gettotalrefcount(),
    "memory blocks": lambda: sys.getallocatedblocks(),
    "descriptors": lambda: len(os.listdir("/proc/self/fd")),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refhunt", metavar="WARMUP:RUNS", help="hunt leaked references")


def pytest_configure(config: pytest.Config) -> None:
    value = config.getoption("--refhunt")
    if value is None:
        return
    if not hasattr(sys, "gettotalrefcount"):
        raise pytest.UsageError("--refhunt needs a debug build of Python, such as python3-dbg")
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", value):
        raise pytest.UsageError("--refhunt takes two numbers of runs, as in 3:3")
    warmup, runs = map(int, value.split(":"))
    config.pluginmanager.register(Hunter(warmup, runs))


class Hunter:
    """Runs each test many times and compares the counters."""

    def __init__(self, warmup: int, runs: int) -> None:
        self.warmup = warmup
        self.runs = runs
        self.hunted = 0
        self.not_here = 0
        self.processes = 0
        sys.addaudithook(self.audit)

    def audit(self, event: str, _arguments: tuple[object, ...]) -> None:
        if event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
            self.processes += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(
            f"refhunt: {self.hunted} tests counted in each run; "
            f"{self.not_here} start other processes, and ran once"
        )

    def pytest_collection_finish(self) -> None:
        # What there is by now stays; not to look at it each time makes collections fast.
        gc.collect()
        gc.freeze()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.hunt(item):
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def hunt(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Run the test until it fails, is skipped, or is known to leak or not to leak."""
        processes = self.processes
        for _ in range(self.warmup):
            reports = run_once(item)
            if not all(report.passed for report in reports):
                return reports
            if self.processes != processes:
                self.not_here += 1
                return reports
        self.hunted += 1
        for _ in range(2):
            # An array keeps no references to the numbers in it, so it does not count itself.
            counts = {name: array("q", bytes(8 * (self.runs + 1))) for name in COUNTERS}
            count(counts, 0)
            for run in range(1, self.runs + 1):
                reports = run_once(item)
                if not all(report.passed for report in reports):
                    return reports
                count(counts, run)
            leaks = describe(counts)
            if not leaks:
                return reports
        call = next(report for report in reports if report.when == "call")
        call.outcome = "failed"
        call.longrepr = f"{item.nodeid} leaked in each of its runs: {leaks}"
        return reports


def run_once(item: pytest.Item) -> list[pytest.TestReport]:
    # As if no test came after: a fixture that outlives a test remembers each of its users.
    reports = runtestprotocol(item, nextitem=None, log=False)
    # Output captured in one run would be kept in the item, and be taken for a leak in the next.
    item._report_sections.clear()
    return reports


def count(counts: dict[str, array[int]], run: int) -> None:
    linecache.clearcache()
    re.purge()
    urllib.parse.clear_cache()
    sys._clear_type_cache()
    # What one collection ends may be what kept another cycle alive.
    for _ in range(3):
        gc.collect()
    for name, counter in COUNTERS.items():
        counts[name][run] = counter()


def describe(counts: dict[str, array[int]]) -> str:
    """Which counters grew in every run, and by how much; empty if none did."""
    growth = {
        name: [after - before for before, after in pairwise(numbers)]
        for name, numbers in counts.items()
    }
    return ", ".join(f"{name} {steps}" for name, steps in growth.items() if min(steps) > 0)
