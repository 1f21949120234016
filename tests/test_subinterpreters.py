"""Tests of subinterpreters: what the module declares is run, closed and ended here."""

import os
import sys

import pytest
from kernel import SANITIZER, run_isolated

CASES = {"closed": [], "idle": [], "running": ["late", "late"], "streaming": [], "busy": []}

if sys.version_info < (3, 12):
    # There is one GIL for all interpreters, and `destroy` refuses an interpreter that still has
    # threads, those of ThreadPoolExecutor like ours.
    GILS, CASES = ["shared"], {"closed": []}
else:
    GILS = ["shared", "own"]


@pytest.mark.parametrize("gil", GILS)
@pytest.mark.parametrize("case", CASES)
def test_three_interpreters_one_after_the_other(
    gil: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Coverage would start itself in the new interpreters too, where its tracer cannot be loaded.
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)
    result = run_isolated("subinterpreters.py", gil, case)
    assert (result.returncode, result.stderr) == (0, "")
    # In the end no thread is left but the main one, and ThreadSanitizer's own.
    left = 2 if SANITIZER == "tsan" else 1
    assert result.stdout.splitlines() == 3 * CASES[case] + [f"ended {left}"]
