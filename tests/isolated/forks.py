"""Fork a process whose pools are busy; prints "ok" at the end of the parent. Run by test_fork.py.

Argument: the name of the case. A child says what is wrong by its exit status.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import wsoffload
from wsoffload._worker import WorkerThread

RIGHT = 7
PATIENCE = 60.0


def numbers(count: int = 1_000_000) -> Iterator[int]:
    yield from range(count)


def wait_for(pid: int) -> int:
    """The exit status of a child, which is killed if it hangs."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, 6)
            raise AssertionError("the child hangs")
        time.sleep(0.001)


def in_child(task: Callable[[], object], end: Callable[[int], object] = os._exit) -> int:
    """The process number of a child that ends with RIGHT if the task does not raise.

    With `sys.exit`, for the main thread outside a loop, the child's interpreter finalizes.
    """
    pid = os.fork()
    if pid == 0:
        # What asyncio says of its parent's tasks.
        logging.disable()
        try:
            task()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        end(RIGHT)
    return pid


class Loop:
    """A loop that turns on a thread of its own, so that the main thread can fork."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def uses_its_own() -> None:
    """The process's pool is a new one, with threads and a loop of its own."""

    async def main() -> None:
        assert [thread for thread in threading.enumerate() if isinstance(thread, WorkerThread)] in (
            [],
            [threading.current_thread()],
        )
        results = await asyncio.gather(*[wsoffload.run(pow, 2, n) for n in range(100)])
        assert results == [2**n for n in range(100)]
        assert [item async for item in wsoffload.iterate(numbers, 50)] == list(range(50))
        assert wsoffload.stats().completed == 100
        assert await wsoffload.run(os.getpid) == os.getpid()
        worker = await wsoffload.run(threading.current_thread)
        assert worker.name.startswith("wsoffload_")
        assert worker.is_alive()
        async with wsoffload.Pool(2) as pool:
            assert await pool.run(int, "5") == 5
        assert not pool._threads or not any(thread.is_alive() for thread in pool._threads)

    asyncio.run(main())


class Busy:
    """Pools at work in the parent, and what a child finds of them."""

    def __init__(self) -> None:
        self.pool = wsoffload.Pool(2, max_queue=50)
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.futures: list[Any] = []
        self.submitted = [self.pool.submit(self.job) for _ in range(6)]

    def job(self) -> int:
        self.started.release()
        self.gate.wait(PATIENCE)
        return 1

    async def begin(self) -> None:
        self.futures = [wsoffload.run(self.job) for _ in range(10)]
        self.futures += [self.pool.run(self.job) for _ in range(5)]
        self.stream = self.pool.iterate(numbers)
        assert await anext(aiter(self.stream)) == 0
        for _ in range(4):
            while not self.started.acquire(blocking=False):
                await asyncio.sleep(0.001)

    def refuses(self) -> None:
        async def main() -> None:
            stream = self.stream
            for use in (
                lambda: self.pool.run(int),
                lambda: self.pool.submit(int),
                lambda: self.pool.iterate(numbers),
                lambda: self.pool.stats(),
                lambda: self.pool.using(timeout=1).run(int),
                lambda: list(self.pool.map(int, "12")),
                lambda: stream.__anext__(),
            ):
                try:
                    use()
                except RuntimeError as error:
                    assert "before a fork" in str(error), error
                else:
                    raise AssertionError("a pool of the parent was used")

        asyncio.run(main())
        self.pool.shutdown(wait=True, cancel_futures=True)
        with self.pool:
            pass

    def drops_all(self) -> None:
        """Letting go of the parent's objects neither blocks nor runs anything."""
        for name in ("pool", "futures", "submitted", "stream"):
            delattr(self, name)
        gc.collect()

    async def goes_on(self) -> None:
        self.gate.set()
        assert await asyncio.gather(*self.futures) == [1] * len(self.futures)
        assert [future.result() for future in self.submitted] == [1] * len(self.submitted)
        for number in range(1, 100):
            assert await anext(self.stream) == number
        await self.stream.aclose()
        await self.pool.aclose()


class Item:
    """Says so when it is freed in another process than that which made it."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.process:
            os.write(2, b"an item of the parent was freed in the child\n")


async def unread(over: threading.Event) -> wsoffload.Stream[Item]:
    """A stream with items in its buffer, whose source is at work."""
    made = threading.Event()

    def source() -> Iterator[Item]:
        yield Item()
        yield Item()
        made.set()
        over.wait(PATIENCE)

    stream = wsoffload.iterate(source)
    stream.__aiter__()
    while not made.is_set():
        await asyncio.sleep(0.001)
    return stream


def os_fork() -> None:
    """Children do each thing and end in each way, and the parent goes on."""
    loop = Loop()
    busy = Busy()
    over = threading.Event()
    stream = loop.start(unread(over)).result(PATIENCE)
    loop.start(busy.begin()).result(PATIENCE)
    for task in (uses_its_own, busy.refuses, busy.drops_all, lambda: None):
        for end in (os._exit, sys.exit):
            status = wait_for(in_child(task, end))
            assert status == RIGHT, (task, end, status)
    over.set()
    loop.start(stream.aclose()).result(PATIENCE)
    loop.start(busy.goes_on()).result(PATIENCE)
    loop.close()


def in_the_middle() -> None:
    """Forks hit the pools' threads at any point, also holding any lock; each child is finalized."""
    chance = random.Random(1)
    over = threading.Event()
    pool = wsoffload.Pool(3)

    async def calls() -> None:
        while not over.is_set():
            await asyncio.gather(*[pool.run(sum, range(20)) for _ in range(20)])

    async def stream() -> None:
        while not over.is_set():
            async for number in pool.using(max_items=2).iterate(numbers, 200):
                if number % 10 == 0:
                    await asyncio.sleep(0)

    loop = Loop()
    work = [loop.start(each()) for each in (calls, calls, stream, stream)]
    for number in range(60):
        time.sleep(chance.random() * 0.002)
        status = wait_for(in_child(uses_its_own if number % 10 == 0 else gc.collect, sys.exit))
        assert status == RIGHT, (number, status)
    over.set()
    for each in work:
        each.result(PATIENCE)
    loop.start(pool.aclose()).result(PATIENCE)
    loop.close()


def in_a_job() -> None:
    """The child's only thread is inside a job of a pool that it does not have."""

    def job(end: str) -> int:
        pid = os.fork()
        if pid:
            return wait_for(pid)
        if end == "_exit":
            uses_its_own()
            os._exit(RIGHT)
        if end == "raise":
            raise ValueError("in the child")
        return 0

    with wsoffload.Pool(1) as pool:
        assert pool.submit(job, "_exit").result() == RIGHT
        # As with any thread that forks: the process ends with the thread.
        assert pool.submit(job, "return").result() == 0
        assert pool.submit(job, "raise").result() == 0
        assert pool.submit(int, "3").result() == 3

    async def main() -> None:
        def source() -> Iterator[int]:
            yield job("_exit")
            yield job("return")

        assert await wsoffload.run(job, "_exit") == RIGHT
        assert await wsoffload.run(job, "return") == 0
        assert [item async for item in wsoffload.iterate(source)] == [RIGHT, 0]
        assert await wsoffload.run(int, "3") == 3

    asyncio.run(main())


def process_target(queue: Any) -> None:
    uses_its_own()
    queue.put(os.getpid())


def start_process() -> int | None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=process_target, args=(queue,))
    process.start()
    assert queue.get() == process.pid
    process.join(PATIENCE)
    return process.exitcode


def by_multiprocessing() -> None:
    """From the main thread and from jobs."""
    loop = Loop()
    busy = Busy()
    loop.start(busy.begin()).result(PATIENCE)
    assert start_process() == 0

    async def from_jobs() -> None:
        with wsoffload.Pool(1) as pool:
            assert await pool.run(start_process) == 0
            assert await asyncio.wrap_future(pool.submit(start_process)) == 0

    loop.start(from_jobs()).result(PATIENCE)
    loop.start(busy.goes_on()).result(PATIENCE)
    loop.close()
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(abs, [-1, -2, -3]) == [1, 2, 3]


def grandchild() -> None:
    """A child's own pools are as foreign to its children as its parent's."""

    def child() -> None:
        busy = Busy()
        asyncio.run(busy.begin())
        pid = in_child(busy.refuses)
        assert wait_for(pid) == RIGHT
        assert wait_for(in_child(uses_its_own)) == RIGHT
        busy.gate.set()

    busy = Busy()
    asyncio.run(busy.begin())
    assert wait_for(in_child(child)) == RIGHT
    busy.gate.set()
    busy.pool.shutdown()


def within_the_loop() -> None:
    """A child that goes on inside its parent's coroutine has no loop that runs."""

    async def main() -> None:
        busy = Busy()
        await busy.begin()

        def child() -> None:
            try:
                wsoffload.run(int)
            except RuntimeError as error:
                assert "running event loop" in str(error)
            else:
                raise AssertionError("there is no running loop in the child")

        assert wait_for(in_child(child)) == RIGHT
        await busy.goes_on()

    asyncio.run(main())


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
