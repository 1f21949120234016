"""What the figures depend on: the machine, the interpreter, the loops and the libraries."""

import asyncio
import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from ._contenders import LIBRARIES

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def pool_size() -> int:
    """What the pool of the process has, and `ThreadPoolExecutor` by default."""
    return min(32, usable_cores() + 4)


def loops() -> dict[str, LoopFactory | None]:
    """The kinds of loop to measure on; None for one that is not installed."""
    try:
        uvloop: LoopFactory | None = import_module("uvloop").new_event_loop
    except ModuleNotFoundError:
        uvloop = None
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def describe() -> list[str]:
    """One line for each fact that another machine needs in order to compare."""
    packages = ("wsoffload", "uvloop", *LIBRARIES)
    return [
        f"Python {platform.python_version()} ({platform.python_compiler()}), "
        f"switch interval {sys.getswitchinterval() * 1000:g} ms",
        f"Linux {platform.release()} {platform.machine()}, {usable_cores()} usable cores, "
        f"load {os.getloadavg()[0]:.1f}",
        f"pools of {pool_size()} threads",
        ", ".join(f"{package} {_version(package)}" for package in packages),
    ]
