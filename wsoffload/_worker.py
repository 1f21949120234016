"""The `threading.Thread` that stands for a worker thread, which the C core has started.

`threading` learns of the thread exactly as if it had started it, so that `current_thread()`, log
records, debuggers and `threading.enumerate()` are right. It touches the same few private names of
`threading` that its own `_DummyThread` uses; they are alike in 3.11 and 3.12, and since 3.13.
"""

import _thread
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsoffload._pool import Pool

# How long `submit` waits for a thread that it has made, in seconds.
_PATIENCE = 1.0

# The kernel keeps 15 bytes of a thread's name (pthread_setname_np(3)).
_OS_NAME_BYTES = 15

# Since 3.13 a Thread's state lives in a native handle; before, in a lock and a flag.
_make_handle: Callable[[int], Any] | None = getattr(_thread, "_make_thread_handle", None)
# Renamed in 3.14.
_HANDLE = "_os_thread_handle" if hasattr(threading.Thread(), "_os_thread_handle") else "_handle"


def _active() -> dict[int, threading.Thread]:  # untraced: a worker calls it outside its trace
    threads: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
    return threads


def _limbo_lock() -> AbstractContextManager[Any]:  # untraced: likewise
    # Looked up each time, because `threading` makes a new one after a fork.
    lock: AbstractContextManager[Any] = threading._active_limbo_lock  # type: ignore[attr-defined]
    return lock


def _os_name(name: str) -> bytes:
    """The name for the kernel: cut in the middle, because the number at its end tells most."""
    encoded = name.encode("utf-8", "replace")
    if len(encoded) <= _OS_NAME_BYTES:
        return encoded
    stem, _, number = encoded.rpartition(b"_")
    kept = _OS_NAME_BYTES - len(number) - 1
    # A character is kept whole or not at all.
    return stem[:kept].decode("utf-8", "ignore").encode() + b"_" + number


class WorkerThread(threading.Thread):
    """A worker of a pool. It cannot be started: the pool does that."""

    # Of threading.Thread.
    _started: threading.Event
    _ident: int | None
    _tstate_lock: Any

    def __init__(
        self, pool: "Pool", name: str, initializer: Callable[..., object] | None, initargs: Any
    ) -> None:
        super().__init__(name=name, daemon=False)
        self.os_name = _os_name(name)
        self._pool = weakref.ref(pool)
        self._initializer = initializer
        self._initargs = initargs
        self._alive = True
        # Held until the thread has ended.
        self._running = _thread.allocate_lock()
        self._running.acquire()

    def start(self) -> None:
        """Raise RuntimeError: the pool starts its threads itself."""
        raise RuntimeError("a worker thread is started by its pool")

    def begin(self) -> None:  # untraced: it takes the trace up
        """On the thread, first: make it known, and run the pool's initializer."""
        ident = threading.get_ident()
        self._ident = ident
        self._native_id = threading.get_native_id()
        if _make_handle is not None:
            setattr(self, _HANDLE, _make_handle(ident))
        self._started.set()
        with _limbo_lock():
            _active()[ident] = self
        if (trace := threading.gettrace()) is not None:
            sys.settrace(trace)
        if (profile := threading.getprofile()) is not None:
            sys.setprofile(profile)
        if self._initializer is not None:
            self._initialize(self._initializer)

    def await_begin(self) -> None:
        """Wait, without the GIL, until the thread has begun; it may lack memory for long."""
        self._started.wait(_PATIENCE)

    def _initialize(self, initializer: Callable[..., object]) -> None:
        try:
            initializer(*self._initargs)
        except BaseException:
            # As ThreadPoolExecutor does, in its words and on its logger.
            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=True
            )
            pool = self._pool()
            if pool is not None:  # one way: the pool of a running thread is hardly ever gone
                pool._initializer_failed()

    def end(self) -> None:  # untraced: it drops the trace
        """On the thread, last: it is about to be gone."""
        sys.settrace(None)
        sys.setprofile(None)
        with _limbo_lock():
            # It is not there if `begin` could not be called for want of memory.
            _active().pop(threading.get_ident(), None)
        self.give_up()

    def give_up(self) -> None:  # untraced: nearly always in `end`
        """The thread is no more, or could not be made."""
        pool = self._pool()
        if pool is not None:
            pool._worker_ended(self)
        self._alive = False
        if _make_handle is None:
            self._is_stopped = True
        elif self._ident is not None:
            getattr(self, _HANDLE)._set_done()
        self._running.release()

    def is_alive(self) -> bool:
        """Whether the thread has started and not ended."""
        return self._started.is_set() and self._alive

    def join(self, timeout: float | None = None) -> None:
        """Wait, without the GIL, until the thread has ended; at most `timeout` seconds."""
        if self is threading.current_thread():
            raise RuntimeError("cannot join current thread")
        seconds = -1 if timeout is None else max(timeout, 0)
        if self._running.acquire(timeout=seconds):
            self._running.release()

    # What `threading` calls in the child of a fork: before 3.13 the first two, since then the last.

    def _reset_internal_locks(self, is_alive: bool) -> None:  # untraced: before 3.13
        self._started._at_fork_reinit()  # type: ignore[attr-defined]
        self._forget_after_fork(is_alive)
        if is_alive:
            # This thread forked, so it is the child's main thread, of which `threading._shutdown`
            # expects a locked lock.
            self._tstate_lock = _thread.allocate_lock()
            self._tstate_lock.acquire()

    def _stop(self) -> None:  # untraced: before 3.13
        self._is_stopped = True
        self._tstate_lock = None

    def _after_fork(self, new_ident: int | None = None) -> None:
        self._started._at_fork_reinit()  # type: ignore[attr-defined]
        self._forget_after_fork(new_ident is not None)
        if new_ident is not None:
            self._ident = new_ident
            self._native_id = threading.get_native_id()

    def _forget_after_fork(self, is_alive: bool) -> None:
        if is_alive:
            self._started.set()
            return
        self._alive = False
        self._running = _thread.allocate_lock()
