"""Tests of setup.py: where wsoffload is not supported, the build stops with one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "setup.py"


@pytest.mark.parametrize(
    ("pretence", "found"),
    [
        ("sys.platform = 'darwin'", "on darwin."),
        ("sys.platform = 'win32'", "on win32."),
        ("sys.version_info = (3, 10, 13)", "this is Python 3.10 on linux."),
        ("sys.version_info = (2, 7, 18)", "this is Python 2.7 on linux."),
        ("sys.implementation.name = 'pypy'", "this is pypy."),
    ],
)
def test_build_says_what_is_supported(pretence: str, found: str) -> None:
    build = f"import runpy, sys; {pretence}; runpy.run_path({str(SETUP)!r})"
    result = subprocess.run(
        [sys.executable, "-c", build], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("wsoffload supports Linux and CPython 3.11 or newer; ")
    assert sentence.endswith(found)
