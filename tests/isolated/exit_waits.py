"""End a process with work of `submit` under way: it prints what was done. Run by test_exit.py.

Argument: the name of the case.
"""

import asyncio
import atexit
import signal
import sys
import threading
import time

import wsoffload

FOREVER = 3600.0


def late(word: object, seconds: float = 0.02) -> object:
    time.sleep(seconds)
    print(word)
    return word


def running() -> None:
    wsoffload.Pool(2).submit(late, "running", 0.5)


def queued() -> None:
    pool = wsoffload.Pool(1)
    for number in range(10):
        pool.submit(late, number)


def bounded() -> None:
    """Plain threads whose submit waits for room when the process ends."""
    pool = wsoffload.Pool(1, max_queue=1)
    for number in range(6):
        threading.Thread(target=pool.submit, args=(late, number)).start()


def behind_abandoned() -> None:
    """All threads are inside calls of `run` that never end; one more is brought up."""
    pool = wsoffload.Pool(2, max_queue=20)
    started = threading.Semaphore(0)

    def forever() -> None:
        started.release()
        time.sleep(FOREVER)

    async def main() -> None:
        for _ in range(2):
            pool.run(forever)
        for _ in range(2):
            while not started.acquire(blocking=False):
                await asyncio.sleep(0.001)
        pool.run(print, "never")
        for number in range(10):
            pool.submit(late, number)

    asyncio.run(main())


def across_pools() -> None:
    """A job of one pool waits for a job of another, which is still queued."""
    first, second = wsoffload.Pool(1), wsoffload.Pool(1)
    second.submit(time.sleep, 0.05)
    answer = second.submit(lambda: "across")
    first.submit(lambda: print(answer.result()))


def refused() -> None:
    """What is submitted by a job or by atexit after the process began to end."""
    pool = wsoffload.Pool(1)
    began = threading.Event()
    # Called before wsoffload's own hook, which was registered earlier.
    threading._register_atexit(began.set)  # type: ignore[attr-defined]

    def submit() -> None:
        began.wait()
        time.sleep(0.05)
        attempt()

    def attempt() -> None:
        for make in (lambda: pool.submit(print), lambda: wsoffload.Pool(1)):
            try:
                make()
            except RuntimeError as error:
                print(error)

    pool.submit(submit)
    atexit.register(attempt)


def default_executor() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(wsoffload.Pool())
        await asyncio.to_thread(late, "awaited")
        loop.run_in_executor(None, late, "left to itself")

    asyncio.run(main())


def callbacks() -> None:
    """Callbacks of futures run on the worker, also at the end."""
    future = wsoffload.Pool(1).submit(late, "called")
    future.add_done_callback(lambda done: print(done.result(), "back"))


def interrupted() -> None:
    """Ctrl-C ends the wait."""
    # A shell lets what it runs in the background ignore this signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wsoffload.Pool(1).submit(time.sleep, FOREVER)
    threading._register_atexit(print, "leaving", flush=True)  # type: ignore[attr-defined]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
