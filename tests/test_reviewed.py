"""Races and wrong ends that a review forced; each test breaks with its mend taken out."""

import asyncio
import os

import pytest
from conftest import RunAsync
from kernel import run_isolated

import wsoffload


@pytest.mark.parametrize(
    ("case", "output", "times"),
    [
        ("pools_that_end_at_exit", "", 20),
        ("stream_at_exit", "the stream was cut short by interpreter shutdown\n", 1),
        ("closing_at_exit", "came to its end\n", 1),
        ("giving_up_meets_shutdown", "gave up\n", 1),
        ("child_of_a_job_settles_its_own_calls", "child: 5\n", 1),
        ("queued_stream_of_a_closed_loop", "survived\n", 1),
        ("interrupts_while_settling", "all came\n", 1),
        ("ctrl_c_while_a_thread_is_prepared", "interrupted\n" * 2, 1),
    ],
)
def test_in_a_process_of_its_own(case: str, output: str, times: int) -> None:
    for _ in range(times):
        result = run_isolated("reviewed.py", case, PYTHONMALLOC="debug")
        assert (result.returncode, result.stdout, result.stderr) == (0, output, "")


def test_closing_does_not_wait_for_a_paused_stream(run_async: RunAsync[None]) -> None:
    # The loop was left early and the stream is still known, so nothing closes its source.
    async def main() -> None:
        async with wsoffload.Pool(1) as pool:
            stream = pool.iterate(range, 1000)
            async for number in stream:
                assert number == 0
                break
        assert await anext(stream) == 1
        await stream.aclose()

    run_async(main)


def test_a_default_executor_with_a_paused_stream_ends_with_its_loop(
    run_async: RunAsync[None],
) -> None:
    kept = []

    async def main() -> None:
        pool = wsoffload.Pool(1)
        asyncio.get_running_loop().set_default_executor(pool)
        stream = pool.iterate(range, 1000)
        kept.append(stream)
        assert await anext(aiter(stream)) == 0

    run_async(main)
    kept.clear()


class Forgetful(asyncio.SelectorEventLoop):
    """A loop that does not keep the callbacks of its readers."""

    def add_reader(self, fd: object, callback: object, *args: object) -> None:
        if getattr(callback, "__name__", "") != "_drain":
            super().add_reader(fd, callback, *args)  # type: ignore[arg-type,type-var]


def test_a_loop_that_forgets_its_readers_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="did not keep the callback given to add_reader"):
            wsoffload.run(int)

    with asyncio.Runner(loop_factory=Forgetful) as runner:
        runner.run(main())


def test_workers_do_not_interrupt_who_wakes_them() -> None:
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        pytest.skip("this process was given a scheduling policy, which workers keep")
    with wsoffload.Pool(1) as pool:
        assert pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
