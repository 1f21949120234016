"""What pools and the guard count, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations in seconds; the percentiles are at most 6.25 % too high, never too low."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of one pool since it was made, and how long its calls waited and ran.

    The gauges (`threads` to `abandoned`) say how it is now. Streams have threads of their own and
    are counted by the fields that begin with `streams`.
    """

    threads: int
    idle: int
    queued: int
    #: Calls accepted by a full pool with ``when_full="wait"``: they stand in line for the queue.
    waiting: int
    running: int
    #: Running calls that nobody waits for any more.
    abandoned: int
    accepted: int
    completed: int
    #: Calls that ended before they ran: cancelled, timed out in the queue, or shut down.
    cancelled: int
    dropped: int
    #: Calls of `submit` that were accepted although the pool was full.
    over: int
    #: The most calls that ever stood over the bound at once.
    over_max: int
    #: Threads started so far.
    started: int
    waited: Durations
    ran: Durations
    streams_running: int
    streams_queued: int
    streams_completed: int
    #: Wake-ups of event loops by any pool of this process, and by the guard, which asks each loop
    #: with guarded connections 40 times a second: writes to their eventfds.
    wakeups: int
    #: Results of this process's pools whose event loop was closed before it could take them.
    dropped_results: int

    @classmethod
    def _of(
        cls,
        calls: Mapping[str, Any],
        streams: Mapping[str, Any],
        wakeups: int,
        dropped: int,
        **more: Any,
    ) -> Self:
        counts = dict(calls)
        waited, ran = Durations(*counts.pop("waited")), Durations(*counts.pop("ran"))
        return cls(
            waited=waited,
            ran=ran,
            streams_running=streams["running"],
            streams_queued=streams["queued"] + streams["waiting"],
            streams_completed=streams["completed"],
            wakeups=wakeups,
            dropped_results=dropped,
            **counts,
            **more,
        )


@dataclass(frozen=True, slots=True)
class GuardStats:
    """What the guard did for all connections of this process."""

    #: Connections that are guarded now.
    guarded: int
    #: Connections that were taken over so far.
    adopted: int
    #: Connections that were served unguarded, by reason.
    unguarded: Mapping[str, int]
    #: Stalls of an event loop in which the guard did something.
    rescues: int
    #: Pings of peers that were answered, with and without a stall.
    pings_answered: int
    #: Pings that the guard sent, likewise.
    pings_sent: int
    #: Bytes read in stalls, Pings included.
    bytes_read_ahead: int
    #: Seconds.
    longest_rescue: float


@dataclass(frozen=True, slots=True)
class ProcessStats(PoolStats):
    """The counts of the process's pool, and those of the guard."""

    guard: GuardStats
