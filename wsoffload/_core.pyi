"""The native part of wsoffload; see csrc/py."""

import asyncio
import concurrent.futures
import socket
from collections.abc import Callable, Iterable
from types import GenericAlias
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, final

from typing_extensions import disjoint_base

_P = ParamSpec("_P")
_T = TypeVar("_T")

class QueueFull(RuntimeError): ...
class Dropped(QueueFull): ...

@disjoint_base
class Future(asyncio.Future[_T]):
    def cancel(self, msg: Any | None = None) -> bool: ...
    def _timed_out(self, in_queue: bool, /) -> None: ...

@disjoint_base
class Link:
    def _unlink(self) -> bool: ...

@disjoint_base
class Pool:
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def run(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_T]: ...
    def submit(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> concurrent.futures.Future[_T]: ...
    def _open(
        self,
        max_workers: int,
        max_queue: int,
        when_full: int,
        keep_alive: float,
        max_streams: int,
        /,
    ) -> None: ...
    def _close(self, cancel: bool, /) -> None: ...
    def _break(self) -> None: ...
    def _wait(self) -> None: ...
    def _counts(self) -> tuple[dict[str, Any], dict[str, Any], int, int]: ...

@disjoint_base
class Caller:
    def __new__(
        cls,
        pool: Pool,
        timeout: float,
        queue_timeout: float,
        wait_on_cancel: bool,
        name: str | None,
        future_type: type[Future[Any]],
        /,
    ) -> Self: ...
    @property
    def pool(self) -> Any: ...
    def run(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_T]: ...

@final
class Closing:
    def __new__(cls, pool: Pool, /) -> Self: ...
    @property
    def future(self) -> Any: ...
    def cancel(self) -> None: ...

@disjoint_base
class Stream(Generic[_T]):
    def __new__(
        cls,
        pool: Pool,
        max_items: int,
        source: Iterable[_T] | Callable[..., Iterable[_T]],
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None,
        /,
    ) -> Self: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __anext__(self) -> Any: ...
    @property
    def _started(self) -> bool: ...
    def _start(self) -> None: ...
    def _leave(self, error: BaseException | None, abandon: bool, /) -> None: ...
    def _closed(self) -> asyncio.Future[None] | None: ...
    def _queued(self) -> bool: ...

@final
class ReadAhead:
    def __new__(cls, total: int, /) -> Self: ...
    @property
    def lent(self) -> int: ...

@disjoint_base
class Transport(asyncio.Transport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, Any],
        /,
        *,
        role: Literal["server", "client"],
        at_upgrade: bool,
        received: bytes,
        read_ahead: ReadAhead,
        read_ahead_each: int,
    ) -> None: ...
    def _start(
        self,
        *,
        rsv1: bool,
        max_message: int | None,
        max_fragment: int | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        max_stall: float,
        log: bool,
        on_dead: Callable[[], object],
    ) -> None: ...
    def _set_pings(self, ping_interval: float | None, ping_timeout: float | None, /) -> None: ...
    def _counts(self) -> dict[str, Any]: ...
    def _take_notes(self) -> tuple[list[tuple[bool, int, bytes]], int]: ...

def check_cancelled() -> None: ...
def _check_callable(function: object, caller: str, /) -> None: ...
def _set_submit_future(future_type: type[Link], /) -> None: ...
def _set_rescue_report(
    function: Callable[[list[tuple[Transport, float, int, int, int]]], object] | None, /
) -> None: ...
def _leave() -> None: ...
def _end_guard() -> None: ...
def _after_fork() -> None: ...
