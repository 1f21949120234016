"""wsoffload keeps WebSocket connections alive while Python is busy: the public names."""

from wsoffload import _lifecycle as _lifecycle
from wsoffload._core import Dropped, QueueFull, check_cancelled
from wsoffload._iterate import Stream
from wsoffload._pool import Caller, Pool
from wsoffload._process import iterate, run, stats
from wsoffload._stats import Durations, PoolStats

__all__ = [
    "Caller",
    "Dropped",
    "Durations",
    "Pool",
    "PoolStats",
    "QueueFull",
    "Stream",
    "check_cancelled",
    "iterate",
    "run",
    "stats",
]
