"""Tests of worker threads: how `threading` and the kernel see them, and that they go when idle."""

import _thread
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from conftest import MS, PATIENCE, Gate, RunAsync, until, wait_until
from kernel import SANITIZER, blocked_signals, resident_bytes, sleeps_soundly, tasks

import wsoffload


def test_worker_is_a_thread_among_threads() -> None:
    with wsoffload.Pool(1, "reader") as pool:
        thread = pool.submit(threading.current_thread).result()
        assert thread.name == "reader_0"
        assert thread.ident == pool.submit(threading.get_ident).result()
        assert thread.native_id == pool.submit(threading.get_native_id).result()
        assert thread.is_alive()
        assert not thread.daemon
        assert thread in threading.enumerate()
        assert thread.ident is not None
        assert thread.native_id is not None
        assert f"{thread.ident}" in repr(thread)
        assert "started" in repr(thread)
        assert pool.submit(lambda: threading.get_ident() in sys._current_frames()).result()
        assert tasks()[thread.native_id] == "reader_0"
    assert not thread.is_alive()
    assert thread not in threading.enumerate()
    assert "stopped" in repr(thread)
    wait_until(lambda: thread.native_id not in tasks())


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps to ask")
def test_ps_shows_the_worker() -> None:
    with wsoffload.Pool(1, "reader") as pool:
        native_id = pool.submit(threading.get_native_id).result()
        listing = subprocess.run(
            ["ps", "-L", "-p", str(os.getpid()), "-o", "lwp=,comm="],
            capture_output=True,
            text=True,
            check=True,
            # A sanitizer that is loaded before this Python is not wanted in ps.
            env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
            timeout=PATIENCE,
        ).stdout
    assert f"{native_id} reader_0" in [" ".join(line.split()) for line in listing.splitlines()]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a-prefix-longer-than-the-kernel-keeps", "a-prefix-long_0"),
        ("päuse-päuse-päuse", "päuse-päuse_0"),
        ("", None),
    ],
)
def test_kernel_names_keep_the_number(prefix: str, expected: str | None) -> None:
    with wsoffload.Pool(1, prefix) as pool:
        thread = pool.submit(threading.current_thread).result()
        assert thread.native_id is not None
        name = tasks()[thread.native_id]
    assert name.endswith("_0")
    assert len(name.encode()) <= 15
    assert expected is None or name == expected


def test_log_records_name_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    with wsoffload.Pool(1, "logging") as pool:
        pool.submit(logging.getLogger("test").warning, "from a job").result()
        thread = pool.submit(threading.get_ident).result()
    (record,) = caplog.records
    assert (record.threadName, record.thread) == ("logging_0", thread)


def test_join_waits_without_the_gil(gate: Gate) -> None:
    pool = wsoffload.Pool(1, keep_alive=0)
    future = pool.submit(gate, 1)
    gate.wait_entered()
    (thread,) = pool._threads
    thread.join(MS)
    assert thread.is_alive()
    joined = threading.Event()

    def join() -> None:
        thread.join()
        joined.set()

    joiner = threading.Thread(target=join)
    joiner.start()
    gate.open()
    joiner.join()
    assert joined.is_set()
    assert not thread.is_alive()
    assert future.result() == 1
    thread.join()
    thread.join(-1)
    pool.shutdown()


def test_worker_cannot_join_or_start_itself() -> None:
    with wsoffload.Pool(1) as pool:
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            pool.submit(lambda: threading.current_thread().join()).result()
        thread = pool.submit(threading.current_thread).result()
        with pytest.raises(RuntimeError, match="started by its pool"):
            thread.start()
        assert thread.is_alive()


def test_threading_hooks_are_taken_up(gate: Gate) -> None:
    seen: set[tuple[str, str]] = set()

    def traced_function() -> None:
        return None

    def note(kind: str) -> Callable[..., Any]:
        def hook(frame: FrameType, event: str, argument: object) -> Any:
            if event == "call" and frame.f_code is traced_function.__code__:
                seen.add((kind, threading.current_thread().name))
            return None

        return hook

    before = threading.gettrace(), threading.getprofile()
    threading.settrace(note("trace"))
    threading.setprofile(note("profile"))
    try:
        with wsoffload.Pool(1, "hooked") as pool:
            pool.submit(traced_function).result()
    finally:
        threading.settrace(before[0])
        threading.setprofile(before[1])
    assert seen == {("trace", "hooked_0"), ("profile", "hooked_0")}


def test_workers_keep_the_signal_mask_of_their_creator() -> None:
    def mask() -> int:
        return blocked_signals(threading.get_native_id())

    with wsoffload.Pool(1) as pool:
        assert pool.submit(mask).result() == mask()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        with wsoffload.Pool(1) as pool:
            assert pool.submit(mask).result() == mask()
            assert mask() >> (signal.SIGUSR1 - 1) & 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_process_started_by_a_job_can_be_killed() -> None:
    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["sleep", "1000"])

    with wsoffload.Pool(1) as pool, pool.submit(start).result() as process:
        process.terminate()
        assert process.wait() == -signal.SIGTERM


def test_threads_start_on_demand_and_no_more_than_allowed(gate: Gate) -> None:
    with wsoffload.Pool(3) as pool:
        assert pool.stats().threads == 0
        for _ in range(5):
            pool.submit(int).result()
            wait_until(lambda: pool.stats().idle == 1)
        assert pool.stats().threads == 1
        futures = [pool.submit(gate) for _ in range(10)]
        gate.wait_entered(3)
        stats = pool.stats()
        assert (stats.threads, stats.running, stats.queued) == (3, 3, 7)
        assert len(pool._threads) == 3
        gate.open()
        assert len([future.result() for future in futures]) == 10


def test_the_last_to_go_idle_is_the_first_to_work() -> None:
    gates = [Gate() for _ in range(3)]

    def named(gate: Gate) -> str:
        gate()
        return threading.current_thread().name

    with wsoffload.Pool(3, keep_alive=None) as pool:
        futures = [pool.submit(named, gate) for gate in gates]
        for gate in gates:
            gate.wait_entered()
        names = []
        for index in (1, 2, 0):
            gates[index].open()
            names.append(futures[index].result())
            wait_until(lambda: pool.stats().idle == len(names))
        for _ in range(20):
            assert pool.submit(lambda: threading.current_thread().name).result() == names[-1]
            wait_until(lambda: pool.stats().idle == 3)


def test_an_idle_worker_does_not_poll() -> None:
    with wsoffload.Pool(1, keep_alive=None) as pool:
        native_id = pool.submit(threading.get_native_id).result()
        wait_until(sleeps_soundly(native_id))


def test_keep_alive_ends_idle_threads_and_work_starts_them_again() -> None:
    with wsoffload.Pool(2, "brief", keep_alive=20 * MS) as pool:
        names = set()
        for _ in range(3):
            thread = pool.submit(threading.current_thread).result()
            names.add(thread.name)
            wait_until(lambda: pool.stats().threads == 0)
            assert not thread.is_alive()
            assert thread not in threading.enumerate()
            assert pool._threads == set()
        assert names == {"brief_0"}
        assert pool.stats().started == 3


def test_nothing_is_left_of_a_thousand_threads() -> None:
    def left() -> tuple[int, int, int, int]:
        return (
            len(tasks()),
            len(threading._active),  # type: ignore[attr-defined]
            len(threading._dangling),  # type: ignore[attr-defined]
            _mappings(),
        )

    def start_and_end(pool: wsoffload.Pool, count: int) -> None:
        for _ in range(count):
            pool.submit(int).result()
            wait_until(lambda: pool.stats().threads == 0)

    with wsoffload.Pool(1, keep_alive=0) as pool:
        start_and_end(pool, 100)
        before, resident = left(), resident_bytes()
        start_and_end(pool, 1000)
        assert pool.stats().started >= 1100
        wait_until(lambda: len(tasks()) <= before[0])
        after = left()
        assert after[:3] <= before[:3]
        # Each stack that nobody gave back would be a mapping of its own.
        assert after[3] - before[3] < 50
        assert SANITIZER == "asan" or resident_bytes() - resident < 4 * 1024 * 1024


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)


def test_nothing_is_left_of_five_hundred_pools() -> None:
    def use() -> None:
        with wsoffload.Pool(2) as pool:
            assert list(pool.map(abs, [-1, -2])) == [1, 2]

    for _ in range(50):
        use()
    before, mappings, resident = len(tasks()), _mappings(), resident_bytes()
    for _ in range(500):
        use()
    wait_until(lambda: len(tasks()) <= before)
    assert _mappings() - mappings < 50
    # AddressSanitizer keeps what is freed.
    assert SANITIZER == "asan" or resident_bytes() - resident < 4 * 1024 * 1024


def test_a_dropped_pool_ends_its_threads() -> None:
    pool = wsoffload.Pool(2, keep_alive=None)
    threads = {pool.submit(threading.current_thread).result() for _ in range(4)}
    del pool
    for thread in threads:
        thread.join()
    wait_until(lambda: tasks().keys().isdisjoint(thread.native_id for thread in threads))


def test_thread_local_data_ends_with_the_thread() -> None:
    local = threading.local()
    ended: list[bool] = []

    class Resource:
        def __del__(self) -> None:
            ended.append(_thread.get_ident() in threading._active)  # type: ignore[attr-defined]

    def use() -> None:
        local.resource = Resource()

    with wsoffload.Pool(1) as pool:
        pool.submit(use).result()
        assert ended == []
    wait_until(lambda: len(ended) == 1)


def test_a_job_of_another_pool_that_ends_calls_tells_their_loop_at_once(
    run_async: RunAsync[None], gate: Gate
) -> None:
    """Invariant 6: a worker that rings when it lets the GIL go must not wait for its job's end."""
    told = threading.Event()

    async def main() -> None:
        async with wsoffload.Pool(1) as other:
            pool = wsoffload.Pool(1)
            running = pool.run(gate)
            await until(lambda: gate.entered == 1)
            queued = pool.run(int)
            queued.add_done_callback(lambda _: told.set())

            def job() -> bool:
                pool.shutdown(wait=False, cancel_futures=True)
                return told.wait(30)

            assert await other.run(job)
            assert queued.cancelled()
            gate.open()
            await running
            await pool.aclose()

    run_async(main)


def test_a_worker_offers_the_gil_between_calls(gate: Gate) -> None:
    # Calls of C functions alone never reach the interpreter's own check for a thread that waits.
    with wsoffload.Pool(1) as pool:
        pool.submit(gate)
        futures = [pool.submit(sum, range(20_000)) for _ in range(3000)]
        gate.open()
        turns = 0
        while not futures[-1].done():
            turns += 1
            time.sleep(0)
        assert turns > 10
