"""`python -m wsoffload doctor`: what a bug report needs, and a self-test."""

import argparse
import asyncio
import contextlib
import logging
import os
import platform
import resource
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from wsoffload._guard import adopt
from wsoffload._guard_report import logger
from wsoffload._pool import Pool

#: The libraries that are used together with wsoffload, or that it takes notice of.
PACKAGES = ("wsoffload", "websockets", "uvloop", "anyio")

LIMITS = {
    "RLIMIT_NOFILE": "open files",
    "RLIMIT_NPROC": "processes and threads of this user",
    "RLIMIT_STACK": "stack, bytes; the size of new threads where none is set",
}

#: The head of the answer to a WebSocket handshake; a client's Ping without payload; its Pong.
HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\x00"
#: How long the Pong may take, in seconds.
PATIENCE = 10.0

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
    return f"a call and its answer took {took * 1e6:.0f} us"


class _Guarded(asyncio.Protocol):
    """A connection that is guarded as soon as it is made."""

    def __init__(self) -> None:
        self.made = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by their class.
        given = cast(asyncio.Transport, transport)
        self.transport = adopt(given, self, role="server", at="upgrade", on_dead=bool)
        self.transport.write(HEAD)
        self.made.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def _await_pong(peer: socket.socket) -> None:
    """Send a Ping, and block this thread until its Pong has come."""
    peer.settimeout(PATIENCE)
    peer.sendall(PING)
    expected = HEAD + PONG
    received = b""
    while len(received) < len(expected) and (more := peer.recv(len(expected))):
        received += more
    if received != expected:
        raise RuntimeError(f"{received!r} came instead of {expected!r}")


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the guard from telling of a stall that was meant."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _stall() -> str:
    protocol = _Guarded()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with contextlib.closing(server), socket.create_connection(address) as peer, _unlogged():
        await protocol.made.wait()
        protocol.transport.start(
            rsv=False, max_message=None, max_fragment=None, ping_interval=None, ping_timeout=None
        )
        begin = time.perf_counter()
        try:
            _await_pong(peer)
            took = time.perf_counter() - begin
        finally:
            protocol.transport.abort()
            await protocol.lost.wait()
    return f"a Ping was answered {took * 1e3:.0f} ms after the loop had stalled"


async def _test() -> str:
    return f"ok, {await _round_trip()}; {await _stall()}"


def _loops() -> dict[str, LoopFactory]:
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    try:
        loops["uvloop"] = import_module("uvloop").new_event_loop
    except ImportError:
        # It is optional; its version is among the facts.
        return loops
    return loops


def self_test(loop_factory: LoopFactory) -> tuple[bool, str]:
    """Whether calls and guard work on such a loop, and what to say about it."""
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return True, runner.run(_test())
    except Exception as error:
        return False, f"failed, {type(error).__name__}: {error}"


def main(argv: Sequence[str]) -> int:
    """Print the facts and the self-tests. Return 0 if all self-tests passed, else 1."""
    argparse.ArgumentParser(
        prog="python -m wsoffload doctor",
        description="Print what a bug report needs, and test wsoffload on each event loop.",
    ).parse_args(argv)
    for name, fact in facts().items():
        print(f"{name}: {fact}")
    healthy = True
    for name, loop_factory in _loops().items():
        passed, says = self_test(loop_factory)
        healthy = healthy and passed
        print(f"self-test on {name}: {says}")
    return 0 if healthy else 1
