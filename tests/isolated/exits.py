"""End a process in one of several ways while jobs of one kind run. Run by tests/test_exit.py.

Arguments: the kind of loop, what runs, how the process ends.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import wsoffload

#: Seconds; whoever waits for this is killed first.
FOREVER = 3600.0

running = threading.Semaphore(0)


def sleep() -> None:
    running.release()
    time.sleep(FOREVER)


def spin() -> NoReturn:
    running.release()
    while True:
        sum(range(100))


def block() -> None:
    lock = threading.Lock()
    lock.acquire()
    running.release()
    lock.acquire()


def switch() -> NoReturn:
    """Let the GIL go and take it again without end."""
    running.release()
    while True:
        time.sleep(0)


def numbers() -> Iterator[int]:
    for number in range(1_000_000):
        if number == 15:
            running.release()
        yield number


def sleeper() -> Iterator[int]:
    yield 1
    sleep()


async def reached(count: int) -> None:
    for _ in range(count):
        while not running.acquire(blocking=False):
            await asyncio.sleep(0.001)


def start_calls(job: Callable[[], object], count: int = 2) -> Callable[[wsoffload.Pool], int]:
    def start(pool: wsoffload.Pool) -> int:
        futures = [pool.run(job) for _ in range(count)]
        # Behind them, so that it never starts.
        futures += [pool.run(job) for _ in range(3)] if count == 4 else []
        kept.extend(futures)
        return count

    return start


def start_streams(source: Callable[[], Iterator[int]]) -> Callable[[wsoffload.Pool], int]:
    def start(pool: wsoffload.Pool) -> int:
        for _ in range(2):
            stream = pool.iterate(source)
            stream.__aiter__()
            kept.append(stream)
        return 2

    return start


def start_short_calls(pool: wsoffload.Pool) -> int:
    """Calls that end while the process does, each making the next."""
    loop = asyncio.get_running_loop()

    def again(_: object = None) -> None:
        if not loop.is_closed():
            future = pool.run(sum, range(50))
            future.add_done_callback(again)
            kept.append(future)

    for _ in range(20):
        again()
    return 0


kept: list[object] = []

JOBS: dict[str, Callable[[wsoffload.Pool], int]] = {
    "sleep": start_calls(sleep),
    "spin": start_calls(spin),
    "block": start_calls(block),
    "switch": start_calls(switch),
    "more than threads": start_calls(sleep, 4),
    "full stream": start_streams(numbers),
    "sleeping stream": start_streams(sleeper),
    "short calls": start_short_calls,
}


def by_exception() -> None:
    raise ValueError("the end")


def by_signal_handler() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
    os.kill(os.getpid(), signal.SIGTERM)


ENDS: dict[str, Callable[[], None]] = {
    "return": lambda: None,
    "exception": by_exception,
    "sys.exit": lambda: sys.exit(3),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGTERM handler": by_signal_handler,
}


async def main(job: str, end: str) -> None:
    pool = wsoffload.Pool(4)
    kept.append(pool)
    await reached(JOBS[job](pool))
    ENDS[end]()
    if end.startswith("SIG"):
        # The signal is handled on the way.
        await asyncio.sleep(FOREVER)


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if kind == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    loop_kind, job_name, end_name = sys.argv[1:]
    # A shell lets what it runs in the background ignore this signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with asyncio.Runner(loop_factory=loop_factory(loop_kind)) as runner:
        runner.run(main(job_name, end_name))
