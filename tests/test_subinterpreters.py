"""Tests of subinterpreters: what the module declares is run, closed and ended here."""

import sys

import pytest
from kernel import run_isolated

CASES = {"closed": [], "idle": [], "running": ["late", "late"], "streaming": [], "busy": []}

if sys.version_info < (3, 12):
    # There is one GIL for all interpreters, and `destroy` refuses an interpreter that still has
    # threads, those of ThreadPoolExecutor like ours.
    GILS, CASES = ["shared"], {"closed": []}
else:
    GILS = ["shared", "own"]


@pytest.mark.parametrize("gil", GILS)
@pytest.mark.parametrize("case", CASES)
def test_three_interpreters_one_after_the_other(gil: str, case: str) -> None:
    result = run_isolated("subinterpreters.py", gil, case)
    assert (result.returncode, result.stderr) == (0, "")
    # In the end no thread is left but the main one.
    assert result.stdout.splitlines() == 3 * CASES[case] + ["ended 1"]
