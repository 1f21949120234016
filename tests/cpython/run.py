"""Run CPython's own tests of ThreadPoolExecutor against wsoffload.Pool.

    python tests/cpython/run.py [-v] [NAME ...]

The Python that runs this must bring its package `test`, as python.org's and pyenv's do. All thread
pool tests of `test.test_concurrent_futures` run, or those whose name contains a NAME, and so do the
scripts that they start, with ThreadPoolExecutor replaced. The status is 0 only if all of them
passed, none was skipped, and there were at least 45 (as in Python 3.13).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import pkgutil
import sys
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import wsoffload

FEWEST = 45

# A script of a test imports the executor by the name of its class.
PRELUDE = """
import concurrent.futures, wsoffload
concurrent.futures.ThreadPoolExecutor = concurrent.futures.Pool = wsoffload.Pool
"""


def replace_executor() -> None:
    """In this process: the tests look it up in `concurrent.futures` when they are imported."""
    exec(PRELUDE)
    assert concurrent.futures.ThreadPoolExecutor is wsoffload.Pool


def replace_executor_in_scripts(module: ModuleType) -> None:
    """In the processes that a test module starts by `assert_python_ok("-c", script)`."""
    original = getattr(module, "assert_python_ok", None)
    if original is None:
        return

    def assert_python_ok(option: str, script: str, *args: str, **env: str) -> Any:
        assert option == "-c"
        return original(option, PRELUDE + script, *args, **env)

    module.assert_python_ok = assert_python_ok  # type: ignore[attr-defined]


def test_modules() -> Iterator[ModuleType]:
    package = importlib.import_module("test.test_concurrent_futures")
    for found in pkgutil.iter_modules(package.__path__):
        if found.name.startswith("test_") and "process" not in found.name:
            yield importlib.import_module(f"{package.__name__}.{found.name}")


def thread_pool_tests(module: ModuleType) -> Iterator[unittest.TestCase]:
    mixin = importlib.import_module("test.test_concurrent_futures.util").ThreadPoolMixin
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            if not issubclass(value, mixin):
                continue
            assert value.executor_type is wsoffload.Pool
            yield from unittest.defaultTestLoader.loadTestsFromTestCase(value)  # type: ignore[misc]


def collect(names: list[str]) -> unittest.TestSuite:
    suite = unittest.TestSuite()
    for module in test_modules():
        replace_executor_in_scripts(module)
        for test in thread_pool_tests(module):
            if not names or any(name in test.id() for name in names):
                suite.addTest(test)
    return suite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    replace_executor()
    suite = collect(options.names)
    result = unittest.TextTestRunner(sys.stdout, verbosity=1 + options.verbose).run(suite)
    passed = result.testsRun - len(result.failures) - len(result.errors) - len(result.skipped)
    print(f"{passed} of {result.testsRun} tests of CPython {sys.version.split()[0]} passed")
    if result.testsRun < FEWEST and not options.names:
        print(f"there should be at least {FEWEST}")
        return 1
    return 0 if passed == result.testsRun and result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
