"""The pool of the process, made when it is first used, and made anew in the child of a fork."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from wsoffload._core import Future
from wsoffload._guard_report import sums
from wsoffload._iterate import Stream
from wsoffload._pool import Pool
from wsoffload._stats import ProcessStats

P = ParamSpec("P")
T = TypeVar("T")

_pool: Pool | None = None
_making = threading.Lock()


def _process_pool() -> Pool:
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:  # one way: unless two threads come at once
                _pool = Pool(thread_name_prefix="wsoffload")
    return _pool


def forget() -> None:
    """In the child of a fork: the pool is the parent's, and so is whoever held the lock."""
    global _pool, _making
    _pool = None
    _making = threading.Lock()


def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Call ``function(*args, **kwargs)`` on a thread of the process's pool.

    As `Pool.run`. The pool has ``min(32, usable cores + 4)`` threads and no bound; it is made on
    first use, and again in the child of a fork.
    """
    return _process_pool().run(function, *args, **kwargs)


@overload
def iterate(source: Iterable[T], /) -> Stream[T]: ...
@overload
def iterate(
    source: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs
) -> Stream[T]: ...
def iterate(source: Any, /, *args: Any, **kwargs: Any) -> Stream[Any]:
    """Iterate over blocking code on a thread of the process's pool. As `Pool.iterate`."""
    stream: Stream[Any] = _process_pool().iterate(source, *args, **kwargs)
    return stream


def stats() -> ProcessStats:
    """The counts of the process's pool, as `Pool.stats`, and as ``.guard`` those of the guard."""
    return ProcessStats._of(*_process_pool()._counts(), guard=sums.stats())
