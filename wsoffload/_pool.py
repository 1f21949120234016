"""The pool: a ThreadPoolExecutor whose threads and queue are native, with asyncio built in."""

import asyncio
import enum
import itertools
import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, cast, overload

from wsoffload import _core
from wsoffload._futures import WaitFuture
from wsoffload._iterate import Stream
from wsoffload._stats import PoolStats
from wsoffload._worker import WorkerThread

P = ParamSpec("P")
T = TypeVar("T")

WhenFull = Literal["wait", "raise", "drop_oldest"]
OnCancel = Literal["abandon", "wait"]

_WHEN_FULL: dict[str, int] = {"wait": 0, "raise": 1, "drop_oldest": 2}

#: How many items a stream reads ahead where nothing else is said.
DEFAULT_MAX_ITEMS = 16

#: The most that it may be set to: the room for them is made when a stream is.
MOST_ITEMS = 2**20

_BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


class _Kept(enum.Enum):
    """A setting that is not given and stays as it is."""

    KEPT = "kept"

    def __repr__(self) -> str:
        return "..."


KEPT: Final = _Kept.KEPT


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of calls that `Pool.using` was given. Timeouts are in seconds."""

    timeout: float | None = None
    queue_timeout: float | None = None
    on_cancel: OnCancel = "abandon"
    name: str | None = None
    max_items: int = DEFAULT_MAX_ITEMS

    @property
    def waits(self) -> bool:
        """Whether a cancelled await lasts until the call has ended."""
        return self.on_cancel == "wait"

    def __post_init__(self) -> None:
        for label, seconds in (("timeout", self.timeout), ("queue_timeout", self.queue_timeout)):
            _check_seconds(label, seconds)
        if self.on_cancel not in ("abandon", "wait"):
            raise ValueError(f"on_cancel must be 'abandon' or 'wait', not {self.on_cancel!r}")
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be None or a string, not {self.name!r}")
        _at_least_one("max_items", self.max_items, MOST_ITEMS)


def _at_least_one(label: str, value: int, most: int = 2**31 - 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{label} must be an integer, not {value!r}") from None
    if not 0 < number <= most:
        raise ValueError(f"{label} must be greater than 0 and at most {most}, not {value!r}")
    return number


def _check_seconds(label: str, value: float | None) -> None:
    if value is None:
        return
    try:
        valid = value >= 0
    except TypeError:
        raise TypeError(f"{label} must be None or a number of seconds, not {value!r}") from None
    if not valid:
        raise ValueError(f"{label} must be None or at least 0 seconds, not {value!r}")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0))


class _Iterates:
    """What a pool and a caller have in common: `iterate`."""

    _settings = Settings()

    @property
    def _pool(self) -> "Pool":
        raise NotImplementedError

    @overload
    def iterate(self, source: Iterable[T], /) -> Stream[T]: ...
    @overload
    def iterate(
        self, source: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Stream[T]: ...
    def iterate(self, source: Any, /, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Iterate over blocking code on a thread of its own.

        ``source(*args, **kwargs)`` is called, iterated and closed on one thread; an iterable is
        iterated and closed there. Use the stream in ``async for``, best within ``async with``,
        which closes the source when the loop is left early. At most `max_items` items are read
        ahead (16, or as `using(max_items=)` says), and at most `max_streams` streams of a pool run
        at once; further ones wait, as `when_full` says.

        Raises TypeError for a source that can be neither called nor iterated.
        """
        if callable(source):
            _core._check_callable(source, "iterate()")
            stream = Stream(self._pool, self._settings.max_items, source, args, kwargs or None)
        elif args or kwargs:
            raise TypeError(
                f"iterate(): arguments were given for {source!r}, which cannot be called"
            )
        elif isinstance(source, Iterable):
            stream = Stream(self._pool, self._settings.max_items, source, None, None)
        else:
            raise TypeError(
                f"iterate(): the source must be callable or iterable, got {source!r}; an "
                "asynchronous iterator needs no thread: use it in `async for` as it is"
            )
        stream._settings = self._settings
        return stream


class Caller(_Iterates, _core.Caller):
    """A pool together with settings for the calls made through it; made by `Pool.using`."""

    def __new__(cls, pool: "Pool", settings: Settings) -> Self:
        future_type: type[Any] = WaitFuture if settings.waits else _core.Future
        self = super().__new__(
            cls,
            pool,
            -1.0 if settings.timeout is None else settings.timeout,
            -1.0 if settings.queue_timeout is None else settings.queue_timeout,
            settings.waits,
            settings.name,
            future_type,
        )
        self._settings = settings
        return self

    @property
    def _pool(self) -> "Pool":
        pool: Pool = self.pool
        return pool

    def using(
        self,
        *,
        timeout: float | _Kept | None = KEPT,
        queue_timeout: float | _Kept | None = KEPT,
        on_cancel: OnCancel | _Kept = KEPT,
        name: str | _Kept | None = KEPT,
        max_items: int | _Kept = KEPT,
    ) -> "Caller":
        """The same pool with the settings that are given changed. As `Pool.using`."""
        given: dict[str, Any] = {
            "timeout": timeout,
            "queue_timeout": queue_timeout,
            "on_cancel": on_cancel,
            "name": name,
            "max_items": max_items,
        }
        changes = {setting: value for setting, value in given.items() if value is not KEPT}
        return Caller(self._pool, replace(self._settings, **changes))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings} of {self._pool!r}>"


class Pool(_Iterates, _core.Pool, ThreadPoolExecutor):
    """Native worker threads with a queue: an Executor, and awaitable from asyncio.

    Threads start on demand and end after `keep_alive` seconds of idleness.

    :param max_workers: the most threads for calls; default ``min(32, usable cores + 4)``.
    :param thread_name_prefix: as ThreadPoolExecutor's.
    :param initializer: called with `initargs` on each new thread; if it raises, the pool is broken
        and everything queued ends with ``concurrent.futures.thread.BrokenThreadPool``.
    :param max_queue: how many calls may be queued while `max_workers` run; None for any number.
    :param when_full: what a call meets when there are more: ``"wait"`` for its turn, first come
        first served; ``"raise"`` `QueueFull`; ``"drop_oldest"`` ends the oldest queued call with
        `Dropped`. Calls of `submit` from a thread that runs an event loop, or from a worker of this
        pool, are always accepted.
    :param keep_alive: seconds that a thread may be idle before it ends; None for any time.
    :param max_streams: the most streams that run at once, each on a thread beside `max_workers`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_queue: int | None = None,
        when_full: WhenFull = "wait",
        keep_alive: float | None = 60.0,
        max_streams: int = 32,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, _usable_cores() + 4)
        max_workers = _at_least_one("max_workers", max_workers)
        if not isinstance(when_full, str) or when_full not in _WHEN_FULL:
            raise ValueError(
                f"when_full must be 'wait', 'raise' or 'drop_oldest', not {when_full!r}"
            )
        _check_seconds("keep_alive", keep_alive)
        ThreadPoolExecutor.__init__(self, max_workers, thread_name_prefix, initializer, initargs)
        # Where ThreadPoolExecutor keeps them has changed in Python 3.14.
        self._first_call = initializer, initargs
        self._open(
            max_workers,
            0 if max_queue is None else _at_least_one("max_queue", max_queue),
            _WHEN_FULL[when_full],
            float("inf") if keep_alive is None else keep_alive,
            _at_least_one("max_streams", max_streams),
        )

    @property
    def _pool(self) -> "Pool":
        return self

    def using(
        self,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        on_cancel: OnCancel = "abandon",
        name: str | None = None,
        max_items: int = DEFAULT_MAX_ITEMS,
    ) -> Caller:
        """This pool with settings for the calls made through the result.

        :param timeout: seconds from the call to its end, after which the await raises TimeoutError;
            what becomes of a call that runs, `on_cancel` says.
        :param queue_timeout: seconds from the call to its start, likewise.
        :param on_cancel: ``"abandon"`` ends the await at once, while the call goes on unheeded;
            ``"wait"`` ends it when the call has ended.
        :param name: what errors and logs call these calls.
        :param max_items: how many items a stream reads ahead.
        """
        return Caller(self, Settings(timeout, queue_timeout, on_cancel, name, max_items))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As Executor.map; `buffersize`, new there in Python 3.14, bounds the calls under way."""
        if buffersize is None:
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)
        size = _at_least_one("buffersize", buffersize)
        return _map_buffered(self, fn, zip(*iterables, strict=False), timeout, size)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more, and end the threads when the work is done.

        With `wait`, block until then, but not for abandoned calls. With `cancel_futures`, what no
        thread has taken yet is cancelled, and `check_cancelled` raises in what runs. May be called
        again, and from any thread; with `wait` not from a job of this pool (RuntimeError).
        """
        self._shutdown = True
        self._close(cancel_futures)
        if wait:
            self._wait()

    async def aclose(self) -> None:
        """As `shutdown`, without blocking the loop. Cancelling it cancels what is queued."""
        self.shutdown(wait=False)
        closing = _core.Closing(self)
        try:
            await closing.future
        except asyncio.CancelledError:
            self._close(True)
            raise
        finally:
            closing.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def stats(self) -> PoolStats:
        """What the pool counts, and how long its calls waited and ran. Cheap; any thread."""
        return PoolStats._of(*self._counts())

    @property
    def _workers(self) -> set[threading.Thread]:
        return cast("set[threading.Thread]", self._threads)

    def _new_worker(self) -> WorkerThread:
        """The representative of a thread that is about to be made."""
        with self._shutdown_lock:
            taken = {thread.name for thread in self._threads}
            names = (f"{self._thread_name_prefix}_{i}" for i in itertools.count())
            name = next(name for name in names if name not in taken)
            thread = WorkerThread(self, name, *self._first_call)
            self._workers.add(thread)
        return thread

    def _worker_ended(self, thread: WorkerThread) -> None:
        # After a shutdown the set stays as it is, because people join the threads in it.
        with self._shutdown_lock:
            if not self._shutdown:  # one way: a worker calls it outside its trace
                self._workers.discard(thread)

    def _initializer_failed(self) -> None:
        self._broken = _BROKEN  # type: ignore[assignment]
        self._break()

    def __repr__(self) -> str:
        name = self._thread_name_prefix
        return f"<{type(self).__name__} {name!r} max_workers={self._max_workers}>"


def _map_buffered(
    pool: Pool,
    fn: Callable[..., T],
    calls: Iterator[tuple[Any, ...]],
    timeout: float | None,
    size: int,
) -> Iterator[T]:
    """The results in order, with at most `size` calls under way; the first start at once."""
    deadline = None if timeout is None else monotonic() + timeout
    futures: deque[Future[T]] = deque()
    try:
        for args in itertools.islice(calls, size):
            futures.append(pool.submit(fn, *args))
    except BaseException:
        for future in futures:
            future.cancel()
        raise

    def results() -> Iterator[T]:
        try:
            while futures:
                left = None if deadline is None else deadline - monotonic()
                result = futures[0].result(left)
                futures.popleft()
                for args in itertools.islice(calls, 1):
                    futures.append(pool.submit(fn, *args))
                yield result
                del result
        finally:
            for future in futures:
                future.cancel()

    return results()
