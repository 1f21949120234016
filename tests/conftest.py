"""What all tests share: loops of both kinds, a unit of time, and the check that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from wsoffload import _process
from wsoffload._worker import WorkerThread

T = TypeVar("T")
RunAsync = Callable[[Callable[[], Awaitable[T]]], T]

#: A millisecond, in seconds; longer on a slow machine, by the environment's WSO_TEST_MS.
MS = float(os.environ.get("WSO_TEST_MS", "1")) / 1000

#: How long a test waits for what must come, before it fails. Never a measure of anything.
PATIENCE = 60_000 * MS


def wait_until(true: Callable[[], object]) -> None:
    """Block until this is so."""
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, "what was waited for did not come"
        time.sleep(MS)


async def until(true: Callable[[], object]) -> None:
    """Let the loop turn, once at least, until this is so."""
    give_up = time.monotonic() + PATIENCE
    await asyncio.sleep(0)
    while not true():
        assert time.monotonic() < give_up, "what was waited for did not come"
        await asyncio.sleep(MS)


class Gate:
    """A job that lasts until the test opens the gate; it returns what it was given."""

    def __init__(self) -> None:
        self.entered = 0
        self.left = 0
        self._count = threading.Lock()
        self._opened = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        with self._count:
            self.entered += 1
        opened = self._opened.wait(PATIENCE)
        with self._count:
            self.left += 1
        assert opened, "the gate was not opened"
        return value

    def open(self) -> None:
        self._opened.set()

    def wait_entered(self, count: int = 1) -> None:
        wait_until(lambda: self.entered >= count)


def has_uvloop() -> bool:
    """False where uvloop has no release for this Python."""
    return sys.version_info < (3, 15) or importlib.util.find_spec("uvloop") is not None


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if not has_uvloop():
        pytest.skip("uvloop has no release for this Python")
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    """The kinds of loop that each test runs on."""
    kind: str = request.param
    if kind == "uvloop":
        # Skips where there is none.
        _uvloop_factory()
    return kind


@pytest.fixture
def loop_factory(loop_kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop of that kind."""
    return _uvloop_factory() if loop_kind == "uvloop" else asyncio.SelectorEventLoop


@pytest.fixture
def run_async(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> RunAsync[Any]:
    """Run a coroutine function on a new loop of that kind; what the loop had to report is raised.

    A test that expects a report sets a handler of its own.
    """

    def run(main: Callable[[], Any]) -> Any:
        reports: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.get_loop().set_exception_handler(lambda _, report: reports.append(report))
            result = runner.run(main())
            # Tasks and futures that nobody looked at report when they go.
            gc.collect()
        assert reports == []
        return result

    return run


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open when the test is over."""
    made = Gate()
    yield made
    made.open()


def descriptors() -> dict[int, str]:
    """The open descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # The one that listed the folder.
            continue
    return found


def workers() -> list[str]:
    """The worker threads that there are, in words."""
    return [repr(thread) for thread in threading.enumerate() if isinstance(thread, WorkerThread)]


def _close_process_pool() -> None:
    pool = _process._pool
    if pool is not None:
        pool.shutdown()
        _process.forget()


@pytest.fixture(scope="session")
def first_uvloop() -> None:
    """The first loop of uvloop opens a pipe that the process keeps."""
    if importlib.util.find_spec("uvloop") is not None:
        _uvloop_factory()().close()


@pytest.fixture(autouse=True)
def nothing_left(first_uvloop: None) -> Iterator[None]:
    """No test may leave a worker, a descriptor or unreachable garbage with finalizers that fail.

    A worker that is no longer needed ends by itself, so it is waited for.
    """
    _close_process_pool()
    before = descriptors()
    yield
    _close_process_pool()
    gc.collect()
    wait_until(lambda: not workers())
    assert gc.garbage == []
    left = {fd: target for fd, target in descriptors().items() if before.get(fd) != target}
    assert left == {}
