"""wsoffload keeps WebSocket connections alive while Python is busy: the public names."""

import importlib
from typing import TYPE_CHECKING

from wsoffload import _lifecycle as _lifecycle
from wsoffload._core import Dropped, QueueFull, check_cancelled
from wsoffload._guard import Guard, GuardedTransport, GuardStatus, Unguardable, adopt
from wsoffload._iterate import Stream
from wsoffload._pool import Caller, Pool
from wsoffload._process import iterate, run, stats
from wsoffload._stats import Durations, GuardStats, PoolStats, ProcessStats

if TYPE_CHECKING:
    from wsoffload._websockets import (
        ClientConnection,
        ServerConnection,
        connect,
        serve,
        unix_connect,
        unix_serve,
    )

__all__ = [
    "Caller",
    "ClientConnection",
    "Dropped",
    "Durations",
    "Guard",
    "GuardStats",
    "GuardStatus",
    "GuardedTransport",
    "Pool",
    "PoolStats",
    "ProcessStats",
    "QueueFull",
    "ServerConnection",
    "Stream",
    "Unguardable",
    "adopt",
    "check_cancelled",
    "connect",
    "iterate",
    "run",
    "serve",
    "stats",
    "unix_connect",
    "unix_serve",
]

_OF_WEBSOCKETS = frozenset(
    ("ClientConnection", "ServerConnection", "connect", "serve", "unix_connect", "unix_serve")
)


def __getattr__(name: str) -> object:
    # `websockets` is imported only by programs that use it.
    if name not in _OF_WEBSOCKETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("wsoffload._websockets"), name)
