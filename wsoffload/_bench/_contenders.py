"""The ways to run a function on another thread that are compared, each as its users write it."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import wsoffload

Call = Callable[[], Awaitable[object]]

OURS = "wsoffload"
BASELINE = "run_in_executor"
LIBRARIES = ("anyio", "asgiref", "aiomisc")


@dataclass(frozen=True)
class Contender:
    """A no-op's way to a worker thread and back, on the running loop."""

    call: Call
    executor: ThreadPoolExecutor | None = None  # the loop's default one while this is measured

    def prepare(self) -> None:
        if self.executor is not None:
            asyncio.get_running_loop().set_default_executor(self.executor)


def noop() -> None:
    """The job: all that is measured is the way to it and back."""


def _wsoffload(stack: ExitStack, workers: int) -> Contender:
    return Contender(partial(stack.enter_context(wsoffload.Pool(workers)).run, noop))


def _run_in_executor(stack: ExitStack, workers: int) -> Contender:
    executor = stack.enter_context(ThreadPoolExecutor(workers))
    loop = asyncio.get_running_loop()
    return Contender(partial(loop.run_in_executor, None, noop), executor)


def _to_thread(stack: ExitStack, workers: int) -> Contender:
    executor = stack.enter_context(ThreadPoolExecutor(workers))
    return Contender(partial(asyncio.to_thread, noop), executor)


def _anyio(_stack: ExitStack, workers: int) -> Contender:
    anyio, to_thread = import_module("anyio"), import_module("anyio.to_thread")
    limiter = anyio.CapacityLimiter(workers)
    return Contender(partial(to_thread.run_sync, noop, limiter=limiter))


def _asgiref(stack: ExitStack, workers: int) -> Contender:
    sync = import_module("asgiref.sync")
    executor = stack.enter_context(ThreadPoolExecutor(workers))
    return Contender(sync.sync_to_async(noop, thread_sensitive=False), executor)


def _aiomisc(stack: ExitStack, workers: int) -> Contender:
    aiomisc = import_module("aiomisc")
    # aiomisc's own loop policy makes this pool the default executor, so here it is too.
    executor = stack.enter_context(aiomisc.ThreadPoolExecutor(workers))
    return Contender(aiomisc.threaded(noop), executor)


OPENERS: dict[str, Callable[[ExitStack, int], Contender]] = {
    OURS: _wsoffload,
    BASELINE: _run_in_executor,
    "to_thread": _to_thread,
    "anyio": _anyio,
    "asgiref": _asgiref,
    "aiomisc": _aiomisc,
}


def open_all(stack: ExitStack, workers: int) -> tuple[dict[str, Contender], dict[str, str]]:
    """Set up every contender that is installed; also say what the others lack, by name."""
    present: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name, opener in OPENERS.items():
        try:
            present[name] = opener(stack, workers)
        except ModuleNotFoundError as error:
            missing[name] = f"{error.name} is not installed"
    return present, missing
