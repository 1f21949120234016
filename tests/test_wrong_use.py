"""Tests of wrong use: each is refused at once, in words that name the argument and the cure."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from conftest import PATIENCE, Gate, RunAsync

import wsoffload
from wsoffload import _core


@pytest.fixture
def pool() -> Iterator[wsoffload.Pool]:
    with wsoffload.Pool(1) as made:
        yield made


@pytest.mark.parametrize(
    ("setting", "value", "error", "words"),
    [
        ("max_workers", 0, ValueError, "max_workers must be greater than 0.*, not 0"),
        ("max_workers", -1, ValueError, "max_workers must be greater than 0.*, not -1"),
        ("max_workers", 2**31, ValueError, "max_workers must be .* at most .*, not 2147483648"),
        ("max_workers", 1.5, TypeError, "max_workers must be an integer, not 1.5"),
        ("max_workers", "4", TypeError, "max_workers must be an integer, not '4'"),
        ("max_queue", 0, ValueError, "max_queue must be greater than 0.*, not 0"),
        ("max_queue", "4", TypeError, "max_queue must be an integer, not '4'"),
        ("max_streams", 0, ValueError, "max_streams must be greater than 0.*, not 0"),
        ("max_streams", None, TypeError, "max_streams must be an integer, not None"),
        (
            "when_full",
            "block",
            ValueError,
            "when_full must be 'wait', 'raise' or 'drop_oldest', not 'block'",
        ),
        ("when_full", [], ValueError, "when_full must be"),
        ("when_full", None, ValueError, "when_full must be"),
        ("keep_alive", -1, ValueError, "keep_alive must be None or at least 0 seconds, not -1"),
        ("keep_alive", float("nan"), ValueError, "keep_alive must be None or at least 0"),
        ("keep_alive", "1", TypeError, "keep_alive must be None or a number of seconds, not '1'"),
        ("initializer", 5, TypeError, "initializer must be a callable"),
    ],
)
def test_of_pool(setting: str, value: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wsoffload.Pool(**{setting: value})  # type: ignore[arg-type]


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(TypeError, match="max_que"):
        wsoffload.Pool(max_que=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        wsoffload.Pool(1, "", None, (), 5)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "value", "error", "words"),
    [
        ("timeout", -1, ValueError, "timeout must be None or at least 0 seconds, not -1"),
        ("timeout", float("nan"), ValueError, "timeout must be None or at least 0"),
        ("timeout", "1", TypeError, "timeout must be None or a number of seconds, not '1'"),
        ("queue_timeout", -1, ValueError, "queue_timeout must be None or at least 0 seconds"),
        ("queue_timeout", "1", TypeError, "queue_timeout must be None or a number of seconds"),
        ("on_cancel", "kill", ValueError, "on_cancel must be 'abandon' or 'wait', not 'kill'"),
        ("on_cancel", [], ValueError, "on_cancel must be"),
        ("name", 5, TypeError, "name must be None or a string, not 5"),
        ("max_items", 0, ValueError, "max_items must be greater than 0.*, not 0"),
        ("max_items", "4", TypeError, "max_items must be an integer, not '4'"),
        ("nonsense", 1, TypeError, "nonsense"),
    ],
)
def test_of_using(
    pool: wsoffload.Pool, setting: str, value: object, error: type[Exception], words: str
) -> None:
    for caller in (pool, pool.using(name="before")):
        with pytest.raises(error, match=words):
            caller.using(**{setting: value})  # type: ignore[arg-type]


async def coroutine_function() -> None:
    """Not for a thread."""


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Methods:
    async def method(self) -> None:
        """Not for a thread."""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (5, r"run\(\): the first argument must be callable, got 5"),
        (None, r"run\(\): the first argument must be callable, got None"),
        (coroutine_function, "is an async function: await it on the event loop"),
        (async_generator, "is an async generator: use it in `async for`"),
        (Methods().method, "is an async function"),
    ],
)
def test_of_run_and_submit(
    run_async: RunAsync[Any], pool: wsoffload.Pool, function: Any, words: str
) -> None:
    async def main() -> None:
        for run in (wsoffload.run, pool.run, pool.using(name="x").run):
            with pytest.raises(TypeError, match=words):
                run(function)

    run_async(main)
    with pytest.raises(TypeError, match=words.replace("run", "submit")):
        pool.submit(function)
    assert pool.stats().accepted == 0


def test_a_coroutine_is_not_run(run_async: RunAsync[Any], pool: wsoffload.Pool) -> None:
    async def main() -> None:
        coroutine = coroutine_function()
        with pytest.raises(TypeError, match="must be callable, got <coroutine"):
            pool.run(coroutine)  # type: ignore[arg-type]
        coroutine.close()

    run_async(main)


def test_without_any_argument(run_async: RunAsync[Any], pool: wsoffload.Pool) -> None:
    async def main() -> None:
        for run, name in ((pool.run, "run"), (pool.using().run, "run"), (pool.submit, "submit")):
            with pytest.raises(TypeError, match=rf"{name}\(\) needs a callable"):
                run()  # type: ignore[operator]
            with pytest.raises(TypeError, match=rf"{name}\(\) needs a callable"):
                run(function=int)  # type: ignore[operator]

    run_async(main)


def test_without_a_running_loop(pool: wsoffload.Pool) -> None:
    words = r"run\(\) needs a running event loop on this thread: .*use submit\(\) in plain code"
    for run in (wsoffload.run, pool.run, pool.using(timeout=1).run):
        with pytest.raises(RuntimeError, match=words):
            run(int)
    # A job's thread has none either.
    with pytest.raises(RuntimeError, match=words):
        pool.submit(pool.run, int).result(PATIENCE)


@pytest.mark.parametrize(
    ("source", "args", "words"),
    [
        (5, (), r"iterate\(\): the source must be callable or iterable, got 5"),
        ([1], (1,), "arguments were given for .*, which cannot be called"),
        (coroutine_function, (), "is an async function"),
        (async_generator, (), "is an async generator: use it in `async for`"),
    ],
)
def test_of_iterate(pool: wsoffload.Pool, source: Any, args: Any, words: str) -> None:
    for iterate in (wsoffload.iterate, pool.iterate, pool.using(name="x").iterate):
        with pytest.raises(TypeError, match=words):
            iterate(source, *args)


def test_an_async_iterator_needs_no_thread(pool: wsoffload.Pool) -> None:
    with pytest.raises(TypeError, match="use it in `async for` as it is"):
        pool.iterate(async_generator())


def test_of_a_closed_pool(run_async: RunAsync[Any], pool: wsoffload.Pool) -> None:
    async def main() -> None:
        pool.shutdown()
        words = "cannot schedule new futures after shutdown"
        for call in (pool.run, pool.submit, pool.using(timeout=1, queue_timeout=1).run):
            with pytest.raises(RuntimeError, match=words):
                call(int)
        with pytest.raises(RuntimeError, match=words):
            list(pool.map(int, [1]))
        with pytest.raises(RuntimeError, match=words):
            await pool.iterate([1]).__aenter__()
        # Nothing is due later, either.
        await asyncio.sleep(0)

    run_async(main)


def test_a_pool_that_was_not_set_up() -> None:
    class Forgetful(wsoffload.Pool):
        def __init__(self) -> None:
            """Does not call its base."""

    pool = Forgetful()
    for use in (
        lambda: pool.submit(int),
        lambda: pool.run(int),
        pool.stats,
        pool.shutdown,
        lambda: pool.iterate([1]),
        pool._break,
        pool._wait,
    ):
        with pytest.raises(RuntimeError, match=r"Pool.__init__\(\) was not called"):
            use()


def test_a_pool_that_is_set_up_twice() -> None:
    with wsoffload.Pool(1) as pool, pytest.raises(RuntimeError, match="called twice"):
        pool.__init__()  # type: ignore[misc]


class Incomplete(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as asyncio's documentation allows."""

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError


class Foreign:
    """A loop of which nothing is known."""


def test_a_loop_without_add_reader(pool: wsoffload.Pool, gate: Gate) -> None:
    words = r"has no add_reader\(\).*use asyncio's selector event loop or uvloop"

    async def main() -> None:
        for call in (wsoffload.run, pool.run, pool.using(timeout=1).run):
            with pytest.raises(RuntimeError, match=words):
                call(int)
        with pytest.raises(RuntimeError, match=words):
            await pool.iterate([1]).__aenter__()
        # What needs no bell works on it.
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, int) == 0
        with pytest.raises(RuntimeError, match=words):
            await pool.aclose()

    with asyncio.Runner(loop_factory=Incomplete) as runner:
        runner.run(main())

    asyncio._set_running_loop(Foreign())  # type: ignore[arg-type]
    try:
        with pytest.raises(RuntimeError, match=words):
            pool.run(int)
    finally:
        asyncio._set_running_loop(None)


def test_a_loop_whose_add_reader_fails(pool: wsoffload.Pool) -> None:
    class Failing(asyncio.SelectorEventLoop):
        def add_reader(self, *_: Any) -> None:
            raise OSError("no more descriptors")

    async def main() -> None:
        # It is not our error to explain.
        with pytest.raises(OSError, match="no more descriptors"):
            pool.run(int)

    with asyncio.Runner(loop_factory=Failing) as runner:
        runner.run(main())


def test_native_parts_refuse_what_python_never_gives(pool: wsoffload.Pool) -> None:
    with pytest.raises(TypeError):
        _core.Caller("pool", 1.0, 1.0, False, None, _core.Future)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="future_type must be a subclass"):
        _core.Caller(pool, 1.0, 1.0, False, None, int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"subclass of _core\.Link"):
        _core._set_submit_future(int)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Closing("pool")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        _core.Closing(pool)


def test_a_partial_and_a_callable_object_are_fine(
    run_async: RunAsync[Any], pool: wsoffload.Pool
) -> None:
    class Callable:
        def __call__(self, value: int) -> int:
            return value

    async def main() -> None:
        assert await pool.run(functools.partial(int, "5")) == 5
        assert await pool.run(Callable(), 6) == 6
        assert await pool.run(threading.Lock) is not None
        assert await pool.run("text".upper) == "TEXT"

    run_async(main)
