"""Tests of the end of a process, invariant 17: only what `submit` accepted is waited for."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PATIENCE
from kernel import run_isolated

JOBS = [
    "sleep",
    "spin",
    "block",
    "switch",
    "more than threads",
    "full stream",
    "sleeping stream",
    "short calls",
]

STATUS = {
    "return": 0,
    "exception": 1,
    "sys.exit": 3,
    "SIGINT": -signal.SIGINT,
    "SIGTERM": -signal.SIGTERM,
    "SIGTERM handler": 4,
}


def end_with(loop_kind: str, job: str, end: str) -> None:
    """Fails by its timeout if the exit waits for a job, all of which last an hour."""
    result = run_isolated("exits.py", loop_kind, job, end)
    assert (result.returncode, result.stdout) == (STATUS[end], ""), result.stderr
    if end in ("exception", "SIGINT"):
        assert result.stderr.startswith("Traceback (most recent call last):")
        last = result.stderr.splitlines()[-1]
        assert last == ("ValueError: the end" if end == "exception" else "KeyboardInterrupt")
        assert "ignored" not in result.stderr
    else:
        assert result.stderr == ""


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.usefixtures("loop_factory")
def test_running_calls_and_streams_do_not_hold_the_exit(loop_kind: str, job: str) -> None:
    end_with(loop_kind, job, "return")


@pytest.mark.parametrize("end", [end for end in STATUS if end != "return"])
@pytest.mark.parametrize("job", JOBS)
def test_status_of_other_ends(job: str, end: str) -> None:
    end_with("asyncio", job, end)


@pytest.mark.parametrize("job", ["switch", "short calls", "full stream"])
def test_races_of_the_exit(job: str) -> None:
    for _ in range(50):
        end_with("asyncio", job, "return")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("running", ["running"]),
        ("queued", [str(number) for number in range(10)]),
        ("behind_abandoned", [str(number) for number in range(10)]),
        ("across_pools", ["across"]),
        ("default_executor", ["awaited", "left to itself"]),
        ("callbacks", ["called", "called back"]),
    ],
)
def test_what_was_submitted_is_waited_for(case: str, expected: list[str]) -> None:
    result = run_isolated("exit_waits.py", case)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split("\n")[:-1] == expected


def test_submits_that_wait_for_room_are_waited_for() -> None:
    result = run_isolated("exit_waits.py", "bounded")
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(result.stdout.split()) == [str(number) for number in range(6)]


def test_new_work_is_refused_once_the_process_ends() -> None:
    result = run_isolated("exit_waits.py", "refused")
    assert (result.returncode, result.stderr) == (0, "")
    attempt = [
        "cannot schedule new futures after interpreter shutdown",
        "cannot make a Pool after interpreter shutdown",
    ]
    assert result.stdout.splitlines() == 2 * attempt


def test_ctrl_c_ends_the_wait_for_what_was_submitted() -> None:
    script = Path(__file__).parent / "isolated" / "exit_waits.py"
    with subprocess.Popen(
        [sys.executable, str(script), "interrupted"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"leaving\n"
        give_up = time.monotonic() + PATIENCE
        # A signal that comes a moment before the wait begins does not end it.
        while process.poll() is None and time.monotonic() < give_up:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        ended = process.poll() is not None
        process.kill()
    assert ended


def test_the_guard_outlives_the_main_thread() -> None:
    result = run_isolated("guarded_thread.py")
    assert (result.returncode, result.stdout, result.stderr) == (0, "answered\n", "")
