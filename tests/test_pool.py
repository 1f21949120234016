"""Tests of Pool as an Executor: its threads, its initializer, map, shutdown and closing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import gc
import inspect
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest
from conftest import MS, PATIENCE, Gate, RunAsync, until, wait_until

import wsoffload
from wsoffload._worker import WorkerThread


def comm() -> str:
    with open(f"/proc/self/task/{threading.get_native_id()}/comm") as file:
        return file.read().strip()


# Threads.


def test_is_a_thread_pool_executor() -> None:
    assert issubclass(wsoffload.Pool, concurrent.futures.ThreadPoolExecutor)
    with wsoffload.Pool() as pool:
        assert pool._max_workers == min(32, len(os.sched_getaffinity(0)) + 4)
        assert pool.submit(pow, 2, 5).result() == 32


def test_threads_start_on_demand_up_to_max_workers(gate: Gate) -> None:
    with wsoffload.Pool(3) as pool:
        assert pool.stats().threads == 0
        futures = []
        for count in (1, 2, 3, 3, 3):
            futures.append(pool.submit(gate))
            gate.wait_entered(count)
            assert pool.stats().threads == count
        assert pool.stats().queued == 2
        gate.open()
        concurrent.futures.wait(futures)
        assert pool.stats().started == 3


def test_an_idle_thread_is_used_again() -> None:
    with wsoffload.Pool(8) as pool:
        idents = set()
        for _ in range(50):
            idents.add(pool.submit(threading.get_ident).result())
            wait_until(lambda: pool.stats().idle == 1)
        assert len(idents) == 1
        assert pool.stats().started == 1


def test_the_thread_that_went_idle_last_is_woken_first() -> None:
    with wsoffload.Pool(3) as pool:
        gates = [Gate() for _ in range(3)]
        futures = [pool.submit(lambda gate: gate(threading.get_ident()), gate) for gate in gates]
        for gate in gates:
            gate.wait_entered()
        for count, number in enumerate((1, 2, 0), 1):
            gates[number].open()
            wait_until(lambda count=count: pool.stats().idle == count)
        assert pool.submit(threading.get_ident).result() == futures[0].result()


def test_threads_end_after_keep_alive_and_start_again() -> None:
    with wsoffload.Pool(2, "short", keep_alive=5 * MS) as pool:
        for count in (1, 2, 3):
            assert pool.submit(lambda: threading.current_thread().name).result() == "short_0"
            wait_until(lambda: pool.stats().threads == 0)
            assert pool.stats().started == count
            assert pool._threads == set()


def test_keep_alive_none_keeps_threads() -> None:
    with wsoffload.Pool(1, keep_alive=None) as pool:
        pool.submit(int).result()
        wait_until(lambda: pool.stats().idle == 1)
        assert not pool._shutdown
        assert pool.submit(int).result() == 0
        assert pool.stats().started == 1


def test_nothing_is_left_of_a_thousand_threads() -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)

    with wsoffload.Pool(1, keep_alive=0) as pool:
        for count in range(1, 1001):
            pool.submit(int).result()
            wait_until(lambda: pool.stats().threads == 0)
            if count == 100:
                before = mappings()
        assert pool.stats().started == 1000
        assert threading.enumerate() == [threading.current_thread()]
        # A thread that nobody joined would keep its stack: a mapping and its guard.
        assert mappings() < before + 100


def test_thread_is_known_to_threading() -> None:
    def look() -> tuple[Any, ...]:
        thread = threading.current_thread()
        assert thread in threading.enumerate()
        assert thread.is_alive()
        assert thread.ident == threading.get_ident()
        assert thread.native_id == threading.get_native_id()
        assert not thread.daemon
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            thread.join()
        with pytest.raises(RuntimeError, match="started by its pool"):
            thread.start()
        return thread, comm()

    with wsoffload.Pool(1, "a-rather-long-prefix") as pool:
        thread, in_the_kernel = pool.submit(look).result()
        assert isinstance(thread, WorkerThread)
        assert thread.name == "a-rather-long-prefix_0"
        # The kernel keeps 15 bytes; the number at the end is among them.
        assert in_the_kernel == "a-rather-long_0"
        assert thread.is_alive()
        thread.join(timeout=0)
        assert thread.is_alive()
        assert pool._threads == {thread}
    thread.join()
    assert not thread.is_alive()
    assert thread not in threading.enumerate()
    assert pool._threads == {thread}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", "ThreadPoolExe_0"), ("short", "short_0"), ("é" * 20, "é" * 6 + "_0"), ("\ud800", "?_0")],
)
def test_name_of_the_thread_in_the_kernel(prefix: str, expected: str) -> None:
    with wsoffload.Pool(1, prefix) as pool:
        assert pool.submit(comm).result() == expected


def test_log_records_name_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    with wsoffload.Pool(1, "logger") as pool:
        pool.submit(logging.getLogger("test").warning, "from a job").result()
    (record,) = caplog.records
    assert record.threadName == "logger_0"


def test_threads_keep_their_creators_signal_mask() -> None:
    def mask() -> set[int]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    before = mask()
    for blocked in (set(), {signal.SIGUSR1}):
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        try:
            with wsoffload.Pool(1) as pool:
                assert pool.submit(mask).result() == blocked
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_subprocess_of_a_job_can_be_terminated() -> None:
    def job() -> int:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        child.terminate()
        return child.wait(PATIENCE)

    with wsoffload.Pool(1) as pool:
        assert pool.submit(job).result() == -signal.SIGTERM


def stack_size() -> int:
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_void_p
    attributes = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t()
    libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes)
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    return size.value


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Iterator[Any]:
    before = threading.stack_size()
    yield threading.stack_size
    threading.stack_size(before)


def test_stack_size_is_honoured(stack: Any) -> None:
    with wsoffload.Pool(1) as pool:
        usual = pool.submit(stack_size).result()
    # More than any stack that the C library may have kept of a thread before.
    asked = 8 * usual
    stack(asked)
    with wsoffload.Pool(1) as pool:
        assert pool.submit(stack_size).result() >= asked


def test_no_thread_can_be_made(stack: Any, run_async: RunAsync[Any]) -> None:
    with wsoffload.Pool(1) as pool:
        # More than there are addresses.
        stack(2**47)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)

        async def main() -> None:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.run(int)

        run_async(main)
        assert pool.stats().accepted == 0
        assert pool.stats().threads == 0
        assert pool._threads == set()
        stack(0)
        assert pool.submit(int).result() == 0


def test_a_job_waits_for_the_thread_that_there_is(stack: Any, gate: Gate) -> None:
    with wsoffload.Pool(2) as pool:
        first = pool.submit(gate)
        gate.wait_entered()
        stack(2**47)
        second = pool.submit(int, "2")
        assert not second.done()
        assert pool.stats().threads == 1
        gate.open()
        assert second.result() == 2
        first.result()


def test_trace_and_profile_hooks_are_taken_up() -> None:
    traced, profiled = [], []

    def marked_job() -> None:
        return None

    def trace(frame: Any, event: str, _: Any) -> None:
        traced.append((frame.f_code.co_name, event))

    def profile(frame: Any, event: str, _: Any) -> None:
        profiled.append((frame.f_code.co_name, event))

    before = threading.gettrace(), threading.getprofile()
    threading.settrace(trace)
    threading.setprofile(profile)
    try:
        with wsoffload.Pool(1) as pool:
            pool.submit(marked_job).result()
    finally:
        threading.settrace(before[0])  # type: ignore[arg-type]
        threading.setprofile(before[1])
    assert ("marked_job", "call") in traced
    assert ("marked_job", "call") in profiled
    assert ("marked_job", "return") in profiled


# The initializer.


def test_initializer_runs_once_on_each_thread(gate: Gate) -> None:
    local = threading.local()
    calls = itertools.count()

    def initialize(name: str) -> None:
        local.value = (name, threading.get_ident())
        next(calls)

    with wsoffload.Pool(2, initializer=initialize, initargs=("name",)) as pool:
        futures = [pool.submit(lambda: gate(local.value)) for _ in range(2)]
        gate.wait_entered(2)
        gate.open()
        values = {future.result() for future in futures}
        assert {name for name, _ in values} == {"name"}
        assert len(values) == 2
    assert next(calls) == 2


def test_a_failing_initializer_breaks_the_pool(
    run_async: RunAsync[Any], caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    def initialize() -> None:
        gate()
        raise ValueError("on purpose")

    async def main() -> None:
        async with wsoffload.Pool(1, initializer=initialize) as pool:
            submitted, running = pool.submit(int), pool.run(int)
            gate.open()
            with pytest.raises(BrokenThreadPool, match="initializer"):
                await running
            with pytest.raises(BrokenThreadPool, match="initializer"):
                submitted.result(PATIENCE)
            with pytest.raises(BrokenThreadPool, match="initializer"):
                pool.submit(int)
            with pytest.raises(BrokenThreadPool, match="initializer"):
                pool.run(int)

    run_async(main)
    assert [record.message for record in caplog.records] == ["Exception in initializer:"]
    assert "on purpose" in caplog.text


# map.


def test_map() -> None:
    with wsoffload.Pool(3) as pool:
        assert list(pool.map(pow, range(5), range(5))) == [1, 1, 4, 27, 256]
        assert list(pool.map(pow, range(5), range(5), chunksize=2)) == [1, 1, 4, 27, 256]
        assert list(pool.map(pow, range(5), range(5), buffersize=2)) == [1, 1, 4, 27, 256]
        assert list(pool.map(int, [], buffersize=2)) == []


def test_map_with_buffersize_reads_no_further_than_it_may(gate: Gate) -> None:
    source = itertools.count()
    with wsoffload.Pool(2) as pool:
        results = pool.map(str, source, buffersize=4)
        assert next(source) == 4
        assert [next(results) for _ in range(3)] == ["0", "1", "2"]
        assert next(source) == 8
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("buffersize", [None, 2])
def test_map_raises_what_a_call_raised(buffersize: int | None) -> None:
    with wsoffload.Pool(1) as pool:
        results = pool.map(int, ["1", "x", "3"], buffersize=buffersize)
        assert next(results) == 1
        with pytest.raises(ValueError, match="invalid literal"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


@pytest.mark.parametrize("buffersize", [None, 2])
def test_map_times_out_and_cancels_the_rest(buffersize: int | None, gate: Gate) -> None:
    with wsoffload.Pool(1) as pool:
        results = pool.map(gate, range(3), timeout=1 * MS, buffersize=buffersize)
        gate.wait_entered()
        with pytest.raises(TimeoutError):
            next(results)
        assert pool.stats().queued == 0
        gate.open()
    assert gate.entered == 1


def test_map_that_is_refused_halfway_cancels_what_it_has_submitted(gate: Gate) -> None:
    with wsoffload.Pool(1, max_queue=1, when_full="raise") as pool:
        with pytest.raises(wsoffload.QueueFull):
            pool.map(gate, range(3), buffersize=3)
        assert pool.stats().queued == 0
        gate.open()


def test_settings_that_are_kept_are_shown_as_dots() -> None:
    with wsoffload.Pool(1) as pool:
        using = inspect.signature(pool.using(timeout=1).using)
    assert repr(using.parameters["timeout"].default) == "..."


@pytest.mark.parametrize("buffersize", [0, -1])
def test_map_refuses_a_buffersize(buffersize: int) -> None:
    with wsoffload.Pool(1) as pool:
        with pytest.raises(ValueError, match="buffersize must be greater than 0"):
            pool.map(int, [], buffersize=buffersize)
        with pytest.raises(TypeError, match="buffersize must be an integer"):
            pool.map(int, [], buffersize="2")  # type: ignore[arg-type]


# shutdown.


def test_shutdown_waits_and_may_be_repeated(gate: Gate) -> None:
    pool = wsoffload.Pool(1)
    futures = [pool.submit(gate, number) for number in range(3)]
    pool.shutdown(wait=False)
    pool.shutdown(wait=False)
    assert not futures[0].done()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    gate.open()
    pool.shutdown()
    assert [future.result(0) for future in futures] == [0, 1, 2]
    assert pool.stats().threads == 0
    pool.shutdown()


def test_shutdown_from_several_threads(gate: Gate) -> None:
    pool = wsoffload.Pool(2)
    future = pool.submit(gate)
    closers = [threading.Thread(target=pool.shutdown) for _ in range(5)]
    for closer in closers:
        closer.start()
    assert not future.done()
    gate.open()
    for closer in closers:
        closer.join()
    assert future.done()


def test_shutdown_cancels_what_no_thread_took(run_async: RunAsync[Any], gate: Gate) -> None:
    def job() -> str:
        gate()
        try:
            wsoffload.check_cancelled()
        except asyncio.CancelledError:
            return "unwanted"
        return "wanted"

    async def main() -> None:
        pool = wsoffload.Pool(1)
        running = pool.submit(job)
        queued, awaited = pool.submit(int), pool.run(int)
        gate.wait_entered()
        pool.shutdown(wait=False, cancel_futures=True)
        assert queued.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await awaited
        # Whoever waits for many futures hears of it too.
        assert concurrent.futures.wait([queued], PATIENCE).done == {queued}
        gate.open()
        assert running.result(PATIENCE) == "unwanted"
        pool.shutdown()
        assert pool.stats().cancelled == 2

    run_async(main)


def test_a_job_cannot_wait_for_its_own_pool() -> None:
    pool = wsoffload.Pool(1)
    with pytest.raises(RuntimeError, match=r"of its own pool.*shutdown\(wait=False\)"):
        pool.submit(pool.shutdown).result()
    pool.shutdown()


def test_a_pool_that_is_let_go_ends_its_threads() -> None:
    pool = wsoffload.Pool(2)
    thread = pool.submit(threading.current_thread).result()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_pool_that_is_let_go_finishes_its_jobs(gate: Gate) -> None:
    pool = wsoffload.Pool(1)
    futures = [pool.submit(gate, number) for number in range(3)]
    del pool
    gate.open()
    assert [future.result(PATIENCE) for future in futures] == [0, 1, 2]


def test_default_executor_of_a_loop(run_async: RunAsync[Any]) -> None:
    pool = wsoffload.Pool(2, "default")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        thread = await asyncio.to_thread(threading.current_thread)
        assert thread.name.startswith("default_")
        assert await loop.run_in_executor(None, pow, 2, 3) == 8
        assert await loop.getaddrinfo("127.0.0.1", 80)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await loop.run_in_executor(None, next, iter([]))

    run_async(main)
    # The loop has closed it, from a thread of its own.
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    assert pool.stats().threads == 0


# Closing.


def test_closing_awaits_jobs_without_blocking_the_loop(
    run_async: RunAsync[Any], gate: Gate
) -> None:
    async def main() -> None:
        async def use() -> None:
            async with wsoffload.Pool(1) as pool:
                futures.extend(pool.run(gate, number) for number in range(3))
                futures.append(pool.submit(gate, 3))
            assert pool.stats().threads == 0

        futures: list[Any] = []
        user = asyncio.create_task(use())
        await until(lambda: gate.entered)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not user.done()
        gate.open()
        await user
        assert [future.result() for future in futures] == [0, 1, 2, 3]

    run_async(main)


def test_closing_stops_admission(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        pool = wsoffload.Pool(1)
        running = pool.run(gate)
        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.run(int)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)
        gate.open()
        await closing
        # Settled by the same bell, before the closing.
        assert running.done()
        await pool.aclose()

    run_async(main)


def test_closing_does_not_await_abandoned_jobs(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(2) as pool:
            early, late = pool.run(gate), pool.run(gate)
            gate.wait_entered(2)
            early.cancel()
            assert pool.stats().abandoned == 1
            closing = asyncio.create_task(pool.aclose())
            await asyncio.sleep(0)
            # While it is being closed, too.
            assert not closing.done()
            late.cancel()
            await closing
        assert gate.left == 0
        assert pool.stats().abandoned == pool.stats().threads == 2
        gate.open()
        await until(lambda: pool.stats().threads == 0)
        assert pool.stats().abandoned == 0

    run_async(main)


def test_shutdown_does_not_wait_for_abandoned_jobs(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        with wsoffload.Pool(1) as pool:
            future = pool.run(gate)
            gate.wait_entered()
            future.cancel()
        assert gate.left == 0
        gate.open()

    run_async(main)


def test_cancelled_closing_cancels_what_is_queued(run_async: RunAsync[Any], gate: Gate) -> None:
    def job() -> str:
        gate()
        try:
            wsoffload.check_cancelled()
        except asyncio.CancelledError:
            return "unwanted"
        return "wanted"

    async def main() -> None:
        pool = wsoffload.Pool(1)
        running, queued = pool.run(job), pool.run(int)
        gate.wait_entered()
        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        assert not queued.done()
        closing.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await closing
        with pytest.raises(asyncio.CancelledError):
            await queued
        gate.open()
        assert await running == "unwanted"
        await pool.aclose()

    run_async(main)


def test_many_close_at_once(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        pool = wsoffload.Pool(1)
        pool.run(gate)
        gate.wait_entered()
        closings = [asyncio.create_task(pool.aclose()) for _ in range(5)]
        await asyncio.sleep(0)
        closings.pop().cancel()
        gate.open()
        await asyncio.gather(*closings)

    run_async(main)


def test_closing_after_an_exception(run_async: RunAsync[Any]) -> None:
    async def use() -> None:
        async with wsoffload.Pool(1) as pool:
            futures.append(pool.run(int))
            raise ValueError("on purpose")

    async def main() -> None:
        with pytest.raises(ValueError, match="on purpose"):
            await use()
        assert futures[0].result() == 0

    futures: list[asyncio.Future[int]] = []

    run_async(main)


# Invariant 3. With the GIL held nothing would ever time out here, so it is another process.
WAITS = {
    "shutdown": "pool.shutdown()",
    "submit": "pool.submit(int)",
    "join": "pool.shutdown(wait=False); next(iter(pool._threads)).join()",
    "stream": "asyncio.run(consume())",
}

SCRIPT = """
import asyncio, threading, wsoffload
opened, waiting = threading.Event(), threading.Event()
pool = wsoffload.Pool(1, max_queue=1)
pool.submit(opened.wait)
pool.submit(int)

def source():
    opened.wait()
    yield 1

async def consume():
    return [item async for item in pool.iterate(source)]

def wait():
    waiting.set()
    {wait}

waiter = threading.Thread(target=wait)
waiter.start()
waiting.wait()
count = 0
while count < 3_000_000:
    count += 1
assert waiter.is_alive()
opened.set()
waiter.join()
pool.shutdown()
print(count)
"""


@pytest.mark.parametrize("wait", WAITS)
def test_nobody_waits_attached(wait: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(wait=WAITS[wait])],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("3000000\n", "", 0)


def test_a_signal_interrupts_a_blocking_shutdown(gate: Gate) -> None:
    class Interrupted(Exception):
        """Raised by the handler."""

    def handle(*_: object) -> None:
        raise Interrupted

    pool = wsoffload.Pool(1)
    pool.submit(gate)
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 10 * MS)
    try:
        with pytest.raises(Interrupted):
            pool.shutdown()
    finally:
        signal.signal(signal.SIGALRM, before)
    gate.open()
    pool.shutdown()


def test_repr_and_representatives() -> None:
    with wsoffload.Pool(2, "named") as pool:
        assert repr(pool) == "<Pool 'named' max_workers=2>"
        caller = pool.using(timeout=1.5, name="report")
        assert "timeout=1.5" in repr(caller)
        assert "'report'" in repr(caller)
        assert repr(pool) in repr(caller)
        assert caller.pool is pool
        assert caller.using(timeout=None)._settings == pool.using(name="report")._settings
        # `keep_alive` may be longer than any clock.
        wsoffload.Pool(1, keep_alive=float("inf")).shutdown()
