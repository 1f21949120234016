"""Faults that a review forced, one function each; prints what happened. Run by test_reviewed.py.

Each needs a process of its own, because what went wrong was a crash, a hang or a process's end.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import wsoffload

MS = float(os.environ.get("WSO_TEST_MS", "1")) / 1000


class Stop(Exception):
    """Raised by a signal handler."""


def raise_stop(*_: object) -> None:
    raise Stop


def pools_that_end_at_exit() -> None:
    """The last reference of each pool is its last job, and all end while the exit waits."""
    together = threading.Barrier(6)

    def job() -> None:
        together.wait()
        sum(range(20_000))

    for _ in range(6):
        wsoffload.Pool(1).submit(job)


def slow_numbers() -> Iterator[int]:
    for number in range(4):
        time.sleep(100 * MS)
        yield number


def in_a_thread_at_exit(wait: Callable[[], object]) -> None:
    """Main ends while the loop of a thread that is no daemon waits for something of ours."""
    begun = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().call_later(20 * MS, begun.set)
        await wait()  # type: ignore[misc]

    def run() -> None:
        try:
            asyncio.run(main())
        except RuntimeError as error:
            print(error, flush=True)
        else:
            print("came to its end", flush=True)

    threading.Thread(target=run).start()
    begun.wait()


def stream_at_exit() -> None:
    async def read() -> None:
        async for _ in wsoffload.iterate(slow_numbers):
            pass

    in_a_thread_at_exit(read)


def closing_at_exit() -> None:
    async def close() -> None:
        pool = wsoffload.Pool(1)
        pool.submit(time.sleep, 100 * MS)
        await pool.aclose()

    in_a_thread_at_exit(close)


def giving_up_meets_shutdown() -> None:
    """1. A submit waits for room. 2. A shutdown takes its job off the line and calls back. 3. In
    that callback a signal handler of the submitting thread raises."""
    signal.signal(signal.SIGALRM, raise_stop)
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    pool = wsoffload.Pool(1, max_queue=1)
    go = threading.Event()
    pool.submit(go.wait)
    queued = pool.submit(int)

    def interrupt(_: object) -> None:
        signal.pthread_kill(main_thread, signal.SIGALRM)
        time.sleep(50 * MS)

    queued.add_done_callback(interrupt)
    threading.Timer(100 * MS, pool.shutdown, [False], {"cancel_futures": True}).start()
    with contextlib.suppress(Stop):
        pool.submit(int)
        raise AssertionError("the handler's exception did not come")
    go.set()
    print("gave up")


def child_of_a_job_settles_its_own_calls() -> None:
    """A child that was forked in a job is no worker any more, whatever it settles itself."""

    def job() -> int:
        child = os.fork()
        if child == 0:
            pool = wsoffload.Pool(1)
            go = threading.Event()
            pool.submit(go.wait)
            pool.submit(int)
            pool.shutdown(wait=False, cancel_futures=True)
            os._exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with wsoffload.Pool(1) as pool:
        print("child:", pool.submit(job).result())


def queued_stream_of_a_closed_loop() -> None:
    """1. A stream is queued behind another. 2. Its only reference is its own waiter. 3. The loop is
    closed, which lets the waiter go."""
    for _ in range(50):
        go = threading.Event()

        def block(go: threading.Event = go) -> Iterator[int]:
            go.wait()
            yield 1

        pool = wsoffload.Pool(1, max_streams=1)

        async def main(
            pool: wsoffload.Pool = pool, block: Callable[..., Iterator[int]] = block
        ) -> wsoffload.Stream[int]:
            first = pool.iterate(block)
            aiter(first)
            second = pool.iterate(block)
            aiter(second)
            waiter = next(second.__anext__())
            waiter.add_done_callback(lambda _, kept=second: None)
            return first

        loop = asyncio.new_event_loop()
        first = loop.run_until_complete(main())
        loop.close()
        go.set()
        del first
        pool.shutdown()
    print("survived")


def interrupts_while_settling() -> None:
    """A Ctrl-C that comes while the loop settles results leaves the loop, each time."""

    class Interrupt(KeyboardInterrupt):
        pass

    def interrupt(_: int, frame: FrameType | None) -> None:
        # In a turn of the loop, and not while asyncio begins or ends a run.
        while frame is not None and frame.f_code.co_name != "_run_once":
            frame = frame.f_back
        if frame is not None:
            raise Interrupt
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    async def main() -> None:
        while True:
            await asyncio.gather(*[wsoffload.run(int) for _ in range(300)])

    signal.signal(signal.SIGALRM, interrupt)
    sys.unraisablehook = lambda _: print("swallowed")
    for attempt in range(25):
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        task = loop.create_task(main())
        signal.setitimer(signal.ITIMER_REAL, 0.02 + attempt * 0.001)
        with contextlib.suppress(Interrupt):
            loop.run_until_complete(task)
        loop.close()
    print("all came", flush=True)
    os._exit(0)


def ctrl_c_while_a_thread_is_prepared() -> None:
    """It reaches the one who submits, also where another thread could run the call."""

    class Interrupted(wsoffload.Pool):
        made = 0
        at = 0

        def _new_worker(self):  # type: ignore[no-untyped-def]
            self.made += 1
            if self.made == self.at:
                signal.raise_signal(signal.SIGINT)
            return super()._new_worker()

    for at in (1, 2):
        pool = Interrupted(4)
        pool.at = at
        go = threading.Event()
        try:
            pool.submit(go.wait)
            pool.submit(go.wait)
        except KeyboardInterrupt:
            print("interrupted")
        go.set()
        pool.shutdown()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
