"""Run by test_faults.py: each scenario with the Nth call of the extension failing, for each N.

    python scenarios.py EXTENSION SCENARIO

A scenario ends in its result or in an error that says what was wanting; nothing hangs, crashes or
keeps a reference to its argument; and afterwards the pool works as if nothing had been. Prints how
many calls were made to fail.
"""

import asyncio
import ctypes
import faulthandler
import gc
import importlib.machinery
import importlib.util
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

PATIENCE = 60.0

faulthandler.enable()


def load(path: str) -> ctypes.CDLL:
    """Put the extension at this path in the place of the installed one."""
    name = "wsoffload._core"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return ctypes.CDLL(path)


faults = load(sys.argv[1])

import wsoffload  # noqa: E402  (after the extension was put in its place)


class Argument:
    """Something whose references are counted."""


def identity(argument: Argument, *, keyword: int = 0) -> Argument:
    return argument


def fail(argument: Argument) -> None:
    raise ValueError("as asked")


def three(argument: Argument) -> list[int]:
    return [1, 2, 3]


async def run(pool: wsoffload.Pool, argument: Argument) -> None:
    assert await pool.run(identity, argument, keyword=1) is argument


async def run_that_raises(pool: wsoffload.Pool, argument: Argument) -> None:
    try:
        await pool.run(fail, argument)
    except ValueError:
        return
    raise AssertionError("the call raised nothing")


async def run_with_settings(pool: wsoffload.Pool, argument: Argument) -> None:
    careful = pool.using(timeout=PATIENCE, queue_timeout=PATIENCE, on_cancel="wait", name="careful")
    assert await careful.run(identity, argument) is argument


async def run_out_of_time(pool: wsoffload.Pool, argument: Argument) -> None:
    try:
        await pool.using(timeout=0).run(identity, argument)
    except TimeoutError:
        return


async def cancel(pool: wsoffload.Pool, argument: Argument) -> None:
    future = pool.run(identity, argument)
    future.cancel()
    await asyncio.wait([future])


async def submit(pool: wsoffload.Pool, argument: Argument) -> None:
    assert await asyncio.wrap_future(pool.submit(identity, argument, keyword=1)) is argument


async def iterate(pool: wsoffload.Pool, argument: Argument) -> None:
    async with pool.using(max_items=1).iterate(three, argument) as stream:
        assert [item async for item in stream] == [1, 2, 3]


async def leave_a_stream(pool: wsoffload.Pool, argument: Argument) -> None:
    async with pool.using(max_items=1).iterate(three, argument) as stream:
        async for _ in stream:
            break


async def make_a_pool(pool: wsoffload.Pool, argument: Argument) -> None:
    async with wsoffload.Pool(max_workers=1) as other:
        assert await other.run(identity, argument) is argument


SCENARIOS: dict[str, Callable[[wsoffload.Pool, Argument], Coroutine[Any, Any, None]]] = {
    scenario.__name__: scenario
    for scenario in (
        run,
        run_that_raises,
        run_with_settings,
        run_out_of_time,
        cancel,
        submit,
        iterate,
        leave_a_stream,
        make_a_pool,
    )
}


def is_want(error: BaseException) -> bool:
    """Whether this is an error that a failed call may end in."""
    return isinstance(error, MemoryError | OSError) or "can't start new thread" in str(error)


async def attempt(name: str, n: int, argument: Argument) -> bool:
    """Whether the Nth call was reached, on a fresh loop with a fresh pool."""
    pool = wsoffload.Pool(max_workers=2)
    faults.fault_arm(n)
    try:
        await asyncio.wait_for(SCENARIOS[name](pool, argument), PATIENCE)
    except TimeoutError:
        print(f"{name}: hangs when call {n} fails")
        faulthandler.dump_traceback()
        sys.exit(1)
    except BaseException as error:
        if not is_want(error):
            print(f"{name}: when call {n} fails, it ends in {error!r}")
            raise
    finally:
        reached = faults.fault_disarm() == 1
    await run(pool, argument)
    await pool.aclose()
    return reached


def main(name: str) -> None:
    # What cannot be told to anybody is reported here, and that is as it should be.
    sys.unraisablehook = lambda _: None
    n = 1
    argument = Argument()
    before = sys.getrefcount(argument)
    while asyncio.run(attempt(name, n, argument)):
        # A timer that could not be cancelled keeps its future until the loop is closed, as now; a
        # thread that closing did not wait for, because nobody did, is about to let go.
        deadline = time.monotonic() + PATIENCE
        while sys.getrefcount(argument) != before and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.001)
        if sys.getrefcount(argument) != before:
            print(f"{name}: keeps a reference when call {n} fails: {gc.get_referrers(argument)}")
            sys.exit(1)
        n += 1
    print(f"{name}: {n - 1} calls were made to fail")


if __name__ == "__main__":
    main(sys.argv[2])
