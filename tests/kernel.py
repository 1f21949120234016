"""What the tests ask the kernel about this process, and how they run a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import PATIENCE, descriptors

_SELF = Path("/proc/self")
_ISOLATED = Path(__file__).parent / "isolated"


# "asan", "tsan" or "": the sanitizer under which these tests run.
SANITIZER = next((s for s in ("asan", "tsan") if f"lib{s}" in os.environ.get("LD_PRELOAD", "")), "")


def tasks() -> dict[int, str]:
    """The kernel's name of each thread of this process, by its number."""
    names = {}
    for entry in (_SELF / "task").iterdir():
        try:
            names[int(entry.name)] = (entry / "comm").read_text().rstrip("\n")
        except (FileNotFoundError, ProcessLookupError):
            # It ended since the folder was read.
            continue
    return names


def _status(native_id: int) -> dict[str, str]:
    lines = (_SELF / "task" / str(native_id) / "status").read_text().splitlines()
    return {label: value.strip() for label, _, value in (line.partition(":") for line in lines)}


def waits_of(native_id: int) -> int:
    """How often the thread has gone to sleep by itself: it grows with each wake-up."""
    return int(_status(native_id)["voluntary_ctxt_switches"])


def blocked_signals(native_id: int) -> int:
    """The thread's signal mask, one bit for each signal."""
    return int(_status(native_id)["SigBlk"], 16)


def sleeps_soundly(native_id: int, window: float = 0.3) -> Callable[[], bool]:
    """A condition: the thread is asleep and was not awake for as long as the window."""

    def condition() -> bool:
        if not _status(native_id)["State"].startswith("S"):
            return False
        before = waits_of(native_id)
        time.sleep(window)
        return waits_of(native_id) == before

    return condition


def eventfds() -> dict[int, int]:
    """The count in each eventfd of this process, by its descriptor."""
    found = {}
    for fd, target in descriptors().items():
        if target == "anon_inode:[eventfd]":
            lines = (_SELF / "fdinfo" / str(fd)).read_text().splitlines()
            count = next(line for line in lines if line.startswith("eventfd-count:"))
            found[fd] = int(count.partition(":")[2], 16)
    return found


def resident_bytes() -> int:
    """The memory of this process that lies in RAM."""
    return int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_isolated(
    script: str, *args: str, timeout: float = PATIENCE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a script of tests/isolated in a Python of its own, with warnings as errors."""
    return subprocess.run(
        # Python 3.12 and newer warn of each fork of a process with threads, which is tested here.
        [
            *(sys.executable, "-X", "faulthandler", "-W", "error"),
            *("-W", "ignore:This process:DeprecationWarning", str(_ISOLATED / script), *args),
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | environment,
    )
