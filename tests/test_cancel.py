"""Tests of cancelling: what becomes of the await, of the job, and who gets to know."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from conftest import MS, PATIENCE, Gate, RunAsync, until, wait_until

import wsoffload
from wsoffload import _core
from wsoffload._futures import WaitFuture


@pytest.fixture(params=["anyio imported", "anyio not imported"])
def with_anyio(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a cancelled call takes two ways, depending on whether anyio may be in use."""
    if request.param == "anyio not imported":
        monkeypatch.delitem(sys.modules, "anyio")


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    return []


def collect(reports: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))


class Checker(Gate):
    """A gate that says, once it is open, whether anybody still waits for it."""

    def __call__(self, value: Any = None) -> Any:
        super().__call__()
        try:
            wsoffload.check_cancelled()
        except asyncio.CancelledError:
            self.unwanted = True
            raise
        self.unwanted = False
        return value


# Queued.


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_a_queued_call_never_runs(run_async: RunAsync[Any], gate: Gate, on_cancel: Any) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            pool.run(gate)
            gate.wait_entered()
            queued = [pool.using(on_cancel=on_cancel).run(gate) for _ in range(100)]
            assert all(future.cancel("why") for future in queued)
            stats = pool.stats()
            assert (stats.queued, stats.cancelled, stats.abandoned) == (0, 100, 0)
            for future in queued:
                with pytest.raises(asyncio.CancelledError, match="why"):
                    await future
            gate.open()
        assert gate.entered == 1
        assert pool.stats().completed == 1

    run_async(main)


# on_cancel="abandon".


def test_abandon_ends_the_await_and_counts_the_job(run_async: RunAsync[Any]) -> None:
    checker = Checker()

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            task = asyncio.create_task(asyncio.wait_for(pool.run(checker), None))
            await until(lambda: checker.entered)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stats = pool.stats()
            assert (stats.running, stats.abandoned, stats.cancelled) == (1, 1, 0)
            await asyncio.sleep(2 * MS)
            assert pool.stats().abandoned == 1
            checker.open()
            await until(lambda: pool.stats().running == 0)
            stats = pool.stats()
            assert (stats.abandoned, stats.completed) == (0, 1)
        assert checker.unwanted

    run_async(main)


def test_an_abandoned_job_may_fail_in_silence(run_async: RunAsync[Any], gate: Gate) -> None:
    def job() -> None:
        gate()
        raise ValueError("on purpose")

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.run(job)
            gate.wait_entered()
            assert future.cancel()
            assert future.cancelled()
            assert not future.cancel()
            assert pool.stats().abandoned == 1
            gate.open()

    run_async(main)


# on_cancel="wait".


@pytest.mark.usefixtures("with_anyio")
def test_wait_lasts_until_the_job_has_ended(run_async: RunAsync[Any]) -> None:
    checker = Checker()

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:

            async def use() -> None:
                await pool.using(on_cancel="wait").run(checker)

            task = asyncio.create_task(use())
            await until(lambda: checker.entered)
            # No number of cancels cuts it short.
            for number in range(5):
                task.cancel(f"cancel {number}")
                await asyncio.sleep(MS)
                assert not task.done()
            assert pool.stats().abandoned == 0
            checker.open()
            with pytest.raises(asyncio.CancelledError, match="cancel 0"):
                await task
            assert checker.left == 1
            assert pool.stats().completed == 1
        assert checker.unwanted

    run_async(main)


def test_wait_of_a_bare_future(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.using(on_cancel="wait").run(gate, "result")
            gate.wait_entered()
            assert future.cancel(msg="why")
            assert future.cancel(msg="again")
            assert not future.done()
            gate.open()
            with pytest.raises(asyncio.CancelledError, match="why"):
                await future
            assert future.cancelled()

    run_async(main)


@pytest.mark.usefixtures("with_anyio")
def test_wait_logs_the_jobs_own_exception(
    run_async: RunAsync[Any], gate: Gate, reports: list[dict[str, Any]]
) -> None:
    def job() -> None:
        gate()
        raise ValueError("on purpose")

    async def main() -> None:
        collect(reports)
        async with wsoffload.Pool(1) as pool:

            async def use() -> None:
                await pool.using(on_cancel="wait").run(job)

            task = asyncio.create_task(use())
            await until(lambda: gate.entered)
            task.cancel()
            await asyncio.sleep(0)
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await task
        (report,) = reports
        assert str(report["exception"]) == "on purpose"
        assert "given up" in report["message"]
        assert isinstance(report["future"], WaitFuture)

    run_async(main)


@pytest.mark.usefixtures("with_anyio")
def test_wait_within_asyncio_timeout(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            opener = threading.Timer(20 * MS, gate.open)
            opener.start()

            async def use() -> None:
                async with asyncio.timeout(1 * MS):
                    future = pool.using(on_cancel="wait").run(gate)
                    gate.wait_entered()
                    await future

            with pytest.raises(TimeoutError):
                await use()
            assert gate.left == 1
            opener.join()

    run_async(main)


@pytest.mark.usefixtures("with_anyio")
def test_a_task_that_is_cancelled_sees_it_although_the_call_has_ended(
    run_async: RunAsync[Any], gate: Gate
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.using(on_cancel="wait").run(gate, "result")

            async def use() -> Any:
                return await future

            task = asyncio.create_task(use())
            # The first callback, so it runs between the end of the call and the task's turn.
            future.add_done_callback(lambda _: task.cancel("why"))
            await until(lambda: gate.entered)
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert future.result() == "result"

    run_async(main)


@pytest.mark.usefixtures("with_anyio")
def test_wait_gives_results_and_exceptions(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            careful = pool.using(on_cancel="wait")
            assert await careful.run(int, "5") == 5
            with pytest.raises(ValueError, match="invalid literal"):
                await careful.run(int, "x")
            done = careful.run(int, "6")
            await asyncio.sleep(0)
            await until(done.done)
            assert await done == 6
            assert await asyncio.gather(*(careful.run(int, i) for i in range(9))) == list(range(9))

    run_async(main)


def test_anyio_is_never_imported(monkeypatch: pytest.MonkeyPatch, run_async: RunAsync[Any]) -> None:
    monkeypatch.delitem(sys.modules, "anyio")

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            assert await pool.using(on_cancel="wait").run(int) == 0
            async with pool.using(on_cancel="wait").iterate(range(3)) as stream:
                assert [item async for item in stream] == [0, 1, 2]

    run_async(main)
    assert "anyio" not in sys.modules


# anyio's scopes cancel again on each turn of the loop until the task has left them.


@pytest.fixture
def turns(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    """A class of loops that counts its call_soon, which each delivery of a cancel needs."""
    base = type(loop := loop_factory())
    loop.close()

    class Counting(base):  # type: ignore[misc, valid-type]
        calls = 0

        def call_soon(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().call_soon(*args, **kwargs)

    return Counting


@pytest.mark.parametrize("how", ["scope", "move_on_after", "task group"])
def test_wait_under_anyio_does_not_spin(
    turns: Any, gate: Gate, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancels = []

    def cancel(self: Any, *args: Any) -> bool:
        cancels.append(args)
        return _core.Future.cancel(self, *args)

    monkeypatch.setattr(WaitFuture, "cancel", cancel)

    async def cancelled_scope(careful: wsoffload.Caller) -> anyio.CancelScope:
        with anyio.CancelScope() as scope:
            future = careful.run(gate)
            gate.wait_entered()
            scope.cancel()
            await future
        return scope

    async def timed_scope(careful: wsoffload.Caller) -> anyio.CancelScope:
        with anyio.move_on_after(2 * MS) as scope:
            future = careful.run(gate)
            gate.wait_entered()
            await future
        return scope

    async def cancelled_group(careful: wsoffload.Caller) -> anyio.CancelScope:
        async def child() -> None:
            future = careful.run(gate)
            gate.wait_entered()
            await future

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await until(lambda: gate.entered)
            group.cancel_scope.cancel()
        return group.cancel_scope

    users = {
        "scope": cancelled_scope,
        "move_on_after": timed_scope,
        "task group": cancelled_group,
    }

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with wsoffload.Pool(1) as pool:
            task = asyncio.create_task(users[how](pool.using(on_cancel="wait")))
            await until(lambda: cancels)
            before = loop.calls
            # Ample time to spin, if it did: it would then turn all the time.
            await asyncio.sleep(100 * MS)
            spent = loop.calls - before
            assert not task.done()
            gate.open()
            scope = await task
            assert scope.cancel_called
            assert gate.left == 1
        assert spent < 20
        assert len(cancels) < 5

    with asyncio.Runner(loop_factory=turns) as runner:
        runner.run(main())


def test_abandon_under_anyio(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            with anyio.move_on_after(2 * MS) as scope:
                await pool.run(gate)
            assert scope.cancelled_caught
            assert gate.left == 0
            gate.open()

    run_async(main)


# When a cancel comes late, or wrong.


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_cancel_between_the_end_of_the_job_and_its_delivery(
    run_async: RunAsync[Any], on_cancel: Any
) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            future = pool.using(on_cancel=on_cancel).run(int, "x")
            wait_until(lambda: pool.stats().completed == 1)
            assert future.cancel("late")
            assert future.cancelled()
            with pytest.raises(asyncio.CancelledError, match="late"):
                await future
            assert pool.stats().abandoned == 0

    run_async(main)


def test_cancel_after_the_end(run_async: RunAsync[Any]) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            for caller in (pool, pool.using(on_cancel="wait")):
                future = caller.run(int)
                assert await future == 0
                assert not future.cancel()
                assert future.result() == 0

    run_async(main)


def test_cancel_with_wrong_arguments_cancels_nothing(run_async: RunAsync[Any], gate: Gate) -> None:
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            pool.run(gate)
            gate.wait_entered()
            future = pool.run(int)
            with pytest.raises(TypeError, match="nonsense"):
                future.cancel(nonsense=1)  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="at most one"):
                future.cancel(1, 2)  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="at most one"):
                future.cancel(1, msg=2)  # type: ignore[misc]
            assert pool.stats().queued == 1
            gate.open()
            assert await future == 0

    run_async(main)


def test_garbage_that_cancels(run_async: RunAsync[Any], gate: Gate) -> None:
    class Canceller:
        """An argument whose end cancels the call that it was given to."""

        future: asyncio.Future[Any]

        def __init__(self, pool: wsoffload.Pool) -> None:
            self.pool = pool

        def __del__(self) -> None:
            answers.append((self.future.cancel(), self.pool.stats().abandoned))

    answers: list[tuple[bool, int]] = []

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            canceller = Canceller(pool)
            pool.run(gate)
            future = canceller.future = pool.run(isinstance, canceller, str)
            del canceller
            gate.open()
            # The loop does not turn, so nobody awaits the future when it is cancelled elsewhere.
            wait_until(lambda: pool.stats().completed == 2)
            with pytest.raises(asyncio.CancelledError):
                await future
            # The job had ended when its arguments went: it could not be abandoned any more.
            assert answers == [(True, 0)]

    run_async(main)


@pytest.mark.parametrize("max_streams", [1, 2])
def test_a_stream_that_is_let_go_by_a_cancelled_task(
    run_async: RunAsync[Any], gate: Gate, max_streams: int
) -> None:
    def source() -> Any:
        yield gate()

    async def main() -> None:
        async with wsoffload.Pool(1, max_streams=max_streams) as pool:

            async def read() -> None:
                # The exception lets the stream go while it unwinds.
                async for _ in pool.iterate(source):
                    raise AssertionError("an item came")

            first = asyncio.create_task(read())
            await until(lambda: gate.entered)
            second = asyncio.create_task(read())
            await until(lambda: pool.stats().streams_queued or max_streams == 2)
            for task in (first, second):
                task.cancel("why")
                with pytest.raises(asyncio.CancelledError, match="why"):
                    await task
            gate.open()

    run_async(main)


# check_cancelled.


def test_check_cancelled_in_a_wanted_job(run_async: RunAsync[Any]) -> None:
    def source() -> Any:
        yield wsoffload.check_cancelled()

    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            assert await pool.run(wsoffload.check_cancelled) is None
            assert pool.submit(wsoffload.check_cancelled).result(PATIENCE) is None
            async with pool.iterate(source) as stream:
                assert [item async for item in stream] == [None]

    run_async(main)


def test_check_cancelled_outside_a_job() -> None:
    found: list[str] = []

    def check() -> None:
        with pytest.raises(RuntimeError, match="inside a job") as caught:
            wsoffload.check_cancelled()
        found.append(str(caught.value))

    check()
    with wsoffload.Pool(1, initializer=check) as pool:
        pool.submit(int).result(PATIENCE)
    assert len(found) == 2


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_check_cancelled_in_an_unwanted_job(
    run_async: RunAsync[Any], on_cancel: Any, how: str, reports: list[dict[str, Any]]
) -> None:
    checker = Checker()

    async def main() -> None:
        # With "wait" the CancelledError of the job itself is its own exception, and reported.
        collect(reports)
        async with wsoffload.Pool(1) as pool:
            timeout = 1 * MS if how == "timeout" else None
            future = pool.using(on_cancel=on_cancel, timeout=timeout).run(checker)
            if how == "cancel":
                checker.wait_entered()
                future.cancel()
            else:
                checker.wait_entered()
                await asyncio.sleep(5 * MS)
            checker.open()
            with pytest.raises(asyncio.CancelledError if how == "cancel" else TimeoutError):
                await future
            await until(lambda: checker.left)
        assert checker.unwanted

    run_async(main)


def test_check_cancelled_after_the_loop_was_closed(run_async: RunAsync[Any]) -> None:
    checker = Checker()

    async def main() -> None:
        pool.run(checker)
        checker.wait_entered()

    with wsoffload.Pool(1) as pool:
        run_async(main)
        gc.collect()
        checker.open()
    assert checker.unwanted


def test_check_cancelled_in_a_stream_that_was_left(run_async: RunAsync[Any]) -> None:
    checker = Checker()

    def source() -> Any:
        yield 1
        yield checker()

    async def main() -> None:
        async with wsoffload.Pool(1) as pool, pool.iterate(source) as stream:
            assert await anext(stream) == 1
            checker.wait_entered()
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0)
            checker.open()
            await closing
        assert checker.unwanted

    run_async(main)


def test_check_cancelled_after_shutdown(run_async: RunAsync[Any]) -> None:
    checker = Checker()

    async def main() -> None:
        pool = wsoffload.Pool(1)
        future = pool.run(checker)
        checker.wait_entered()
        pool.shutdown(wait=False)
        pool.shutdown(wait=False, cancel_futures=True)
        checker.open()
        with pytest.raises(asyncio.CancelledError):
            await future
        assert checker.unwanted
        await pool.aclose()

    run_async(main)
