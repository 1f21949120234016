"""Tests of compatibility: CPython's own tests of ThreadPoolExecutor pass with Pool in its place."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent / "cpython" / "run.py"
# Debian's packages and many images leave the tests of the standard library out.
COMES_WITH_TESTS = (
    sys.version_info >= (3, 13)
    and importlib.util.find_spec("test") is not None
    and importlib.util.find_spec("test.test_concurrent_futures") is not None
)


@pytest.mark.skipif(not COMES_WITH_TESTS, reason="needs the `test` package of Python 3.13 or newer")
def test_cpythons_thread_pool_tests() -> None:
    done = subprocess.run(
        [sys.executable, str(RUNNER), "-v"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) of (\d+) tests of CPython", done.stdout, re.MULTILINE)
    assert found is not None
    passed, ran = map(int, found.groups())
    assert passed == ran >= 45
