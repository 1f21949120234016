"""`python -m wsoffload doctor`: what a bug report needs, and a self-test."""

import argparse
import asyncio
import os
import platform
import resource
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsoffload._pool import Pool

#: The libraries that are used together with wsoffload, or that it takes notice of.
PACKAGES = ("wsoffload", "websockets", "uvloop", "anyio")

LIMITS = {
    "RLIMIT_NOFILE": "open files",
    "RLIMIT_NPROC": "processes and threads of this user",
    "RLIMIT_STACK": "stack, bytes; the size of new threads where none is set",
}

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _build() -> str:
    """How this interpreter was built, as far as it matters to an extension with threads."""
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    # Where the GIL cannot be off there is no function to ask.
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    flags = {
        "GIL enabled": enabled(),
        "free-threaded build": free_threaded,
        "debug build": hasattr(sys, "gettotalrefcount"),
    }
    return ", ".join(f"{flag}: {'yes' if value else 'no'}" for flag, value in flags.items())


def _default_loop() -> str:
    loop = asyncio.new_event_loop()
    # asyncio's own loops have one; others keep to themselves how they wait.
    selector = getattr(loop, "_selector", None)
    loop.close()
    name = f"{type(loop).__module__}.{type(loop).__qualname__}"
    return name if selector is None else f"{name} with {type(selector).__name__}"


def _libc() -> str:
    return " ".join(platform.libc_ver()).strip() or "unknown"


def _limit(name: str) -> str:
    bounds = resource.getrlimit(getattr(resource, name))
    soft, hard = ("unlimited" if n == resource.RLIM_INFINITY else str(n) for n in bounds)
    return f"{soft} (at most {hard})"


def _control_groups(root: Path) -> Iterator[Path]:
    """The directories of this process's control group (version 2) and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        if line.startswith("0::/"):
            group = mount / line.removeprefix("0::/")
            yield from (folder for folder in (group, *group.parents) if mount in folder.parents)
            yield mount


def _group_limit(file: str, root: Path) -> str:
    """What the control groups say in this file, innermost first; "none" where nothing bounds."""
    found = []
    for folder in _control_groups(root):
        try:
            text = (folder / file).read_text().strip()
        except OSError:
            # The root group has no such file, and a container may hide those around its own.
            continue
        if not text.startswith("max"):
            found.append(text)
    return ", ".join(found) or "none"


def _cpu_quota(root: Path) -> str:
    limit = _group_limit("cpu.max", root)
    return limit if limit == "none" else f"{limit} (microseconds of CPU, of each period)"


def facts(root: Path = Path("/")) -> dict[str, str]:
    """What a bug report needs, by name. `root` is where /proc and /sys are looked up."""
    stack = threading.stack_size()
    return {
        **{package: _version(package) for package in PACKAGES},
        "Python": f"{platform.python_implementation()} {sys.version}".replace("\n", ""),
        "build": _build(),
        "default event loop": _default_loop(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": _libc(),
        **{name: f"{_limit(name)} {meaning}" for name, meaning in LIMITS.items()},
        "CPU quota of the control group": _cpu_quota(root),
        "thread limit of the control group": _group_limit("pids.max", root),
        "switch interval": f"{sys.getswitchinterval() * 1000:g} ms",
        "thread stack size": f"{stack} bytes" if stack else "the system's default",
    }


async def _round_trip() -> str:
    async with Pool(max_workers=1) as pool:
        # The first call starts the thread.
        thread = await pool.run(threading.get_native_id)
        begin = time.perf_counter()
        again = await pool.run(threading.get_native_id)
        took = time.perf_counter() - begin
    if not thread == again != threading.get_native_id():
        raise RuntimeError(f"the calls ran on the threads {thread} and {again}")
    return f"ok, a call and its answer took {took * 1e6:.0f} us"


def _loops() -> dict[str, LoopFactory]:
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    try:
        loops["uvloop"] = import_module("uvloop").new_event_loop
    except ImportError:
        # It is optional; its version is among the facts.
        return loops
    return loops


def self_test(loop_factory: LoopFactory) -> tuple[bool, str]:
    """Whether a call runs and comes back on such a loop, and what to say about it."""
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return True, runner.run(_round_trip())
    except Exception as error:
        return False, f"failed, {type(error).__name__}: {error}"


def main(argv: Sequence[str]) -> int:
    """Print the facts and the self-tests. Return 0 if all self-tests passed, else 1."""
    argparse.ArgumentParser(
        prog="python -m wsoffload doctor",
        description="Print what a bug report needs, and test one call on each event loop.",
    ).parse_args(argv)
    for name, fact in facts().items():
        print(f"{name}: {fact}")
    healthy = True
    for name, loop_factory in _loops().items():
        passed, says = self_test(loop_factory)
        healthy = healthy and passed
        print(f"self-test on {name}: {says}")
    return 0 if healthy else 1
