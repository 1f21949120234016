"""Tests of refhunt.py: a leak is found, and a clean test is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

CASES = """
import os
import subprocess
import sys

import pytest

kept = []

def test_reference():
    kept.append(object())

def test_memory():
    kept.append(bytearray(10))

def test_descriptor():
    kept.append(os.dup(0))

def test_clean():
    print("printed")
    assert [object()] != kept

def test_other_process():
    kept.append(os.dup(0))
    subprocess.run([sys.executable, "-c", "pass"], check=True)

def test_failing():
    raise ValueError("on purpose")

@pytest.mark.skipif(os.name == "posix", reason="on purpose")
def test_skipped():
    raise AssertionError
"""


def hunt(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_cases.py").write_text(CASES)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, "-rA", "-p", "refhunt", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="needs a debug build of Python")
def test_finds_each_kind_of_leak_and_nothing_else(tmp_path: Path) -> None:
    result = hunt(tmp_path, "--refhunt", "2:3")
    lines = result.stdout.splitlines()
    outcomes = [line.split(" - ")[0] for line in lines if line.startswith(("PASSED", "FAILED"))]
    assert outcomes == [
        "PASSED test_cases.py::test_clean",
        "PASSED test_cases.py::test_other_process",
        "FAILED test_cases.py::test_reference",
        "FAILED test_cases.py::test_memory",
        "FAILED test_cases.py::test_descriptor",
        "FAILED test_cases.py::test_failing",
    ], result.stdout
    assert "leaked in each of its runs: references [" in result.stdout
    assert "descriptors [1, 1, 1]" in result.stdout
    assert "refhunt: 4 tests counted in each run; 1 start other processes" in result.stdout
    assert "4 failed, 2 passed, 1 skipped" in result.stdout


@pytest.mark.skipif(hasattr(sys, "gettotalrefcount"), reason="needs a Python that cannot count")
def test_says_that_it_needs_a_debug_build(tmp_path: Path) -> None:
    result = hunt(tmp_path, "--refhunt", "2:3")
    assert "--refhunt needs a debug build of Python" in result.stderr
    assert result.returncode == pytest.ExitCode.USAGE_ERROR


def test_does_nothing_unless_asked(tmp_path: Path) -> None:
    result = hunt(tmp_path)
    assert "1 failed, 5 passed, 1 skipped" in result.stdout
