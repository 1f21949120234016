"""Tests of forks, invariant 16: the parent goes on, the child begins anew and says so."""

import pytest
from kernel import SANITIZER, run_isolated

pytestmark = pytest.mark.skipif(
    SANITIZER == "tsan", reason="ThreadSanitizer cannot follow a fork of a process with threads"
)


@pytest.mark.parametrize(
    "case",
    [
        "os_fork",
        pytest.param(
            "in_the_middle",
            marks=pytest.mark.skipif(
                SANITIZER == "asan",
                reason="a thread holds AddressSanitizer's allocator locked while another forks",
            ),
        ),
        "in_a_job",
        "by_multiprocessing",
        "grandchild",
        "within_the_loop",
    ],
)
def test_fork(case: str) -> None:
    result = run_isolated("forks.py", case, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("case", ["by_subprocess", "eventfds", "parents_loop"])
def test_eventfds_of_the_parent(case: str) -> None:
    result = run_isolated("fork_eventfds.py", case)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
