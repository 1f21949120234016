"""What the guard says: warnings, one record per rescue, and the sums of the process."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wsoffload import _core
from wsoffload._stats import GuardStats

logger = logging.getLogger("wsoffload")

#: A rescue of this many seconds is a warning, also if nobody asked anything meanwhile.
LONG = 1.0

#: The most connections that a report names.
MOST_NAMES = 10

#: A transport, how long its loop was late in seconds, Pings answered and sent, bytes read.
Rescued = tuple[_core.Transport, float, int, int, int]


class Sums:
    """What all connections of this process have in common. Any thread."""

    def __init__(self) -> None:
        # The collector may end a transport amid anything that this thread does here.
        self._lock = threading.RLock()
        self._live: weakref.WeakSet[_core.Transport] = weakref.WeakSet()
        self._unguarded: Counter[str] = Counter()
        self._adopted = self._rescues = 0
        # Of the transports that are gone.
        self._answered = self._pinged = self._read_ahead = 0
        self._longest = 0.0

    def adopted(self, transport: _core.Transport) -> None:
        """There is one more."""
        with self._lock:
            self._adopted += 1
            self._live.add(transport)

    def gone(self, transport: _core.Transport) -> None:
        """It is about to go: keep what it counted."""
        counts = transport._counts()
        with self._lock:
            self._live.discard(transport)
            self._answered += counts["answered"]
            self._pinged += counts["pinged"]
            self._read_ahead += counts["read_ahead"]
            self._longest = max(self._longest, counts["longest_rescue"])

    def unguarded(self, reason: str) -> bool:
        """One more connection is not guarded; true for the first with this reason."""
        with self._lock:
            self._unguarded[reason] += 1
            return self._unguarded[reason] == 1

    def rescued(self) -> None:
        """A stall is over in which the guard did something."""
        with self._lock:
            self._rescues += 1

    def stats(self) -> GuardStats:
        """All of it, as of now."""
        with self._lock:
            live = list(self._live)
            adopted, rescues, longest = self._adopted, self._rescues, self._longest
            answered, pinged, read_ahead = self._answered, self._pinged, self._read_ahead
            unguarded = dict(self._unguarded)
        counts: list[dict[str, Any]] = [transport._counts() for transport in live]
        return GuardStats(
            guarded=sum(each["state"] == "guarded" for each in counts),
            adopted=adopted,
            unguarded=unguarded,
            rescues=rescues,
            pings_answered=answered + sum(each["answered"] for each in counts),
            pings_sent=pinged + sum(each["pinged"] for each in counts),
            bytes_read_ahead=read_ahead + sum(each["read_ahead"] for each in counts),
            longest_rescue=max([longest, *(each["longest_rescue"] for each in counts)]),
        )

    def forget(self) -> None:
        """In the child of a fork: all of it is the parent's, and so is whoever held the lock."""
        Sums.__init__(self)


sums = Sums()


def warn_unguarded(reason: str) -> None:
    """Count a connection that is served unguarded, and say so if it is the first of its kind."""
    if sums.unguarded(reason):
        logger.warning(
            "a connection is served unguarded: %s. Others for the same reason are only counted.",
            reason,
        )


def _name(transport: _core.Transport) -> str:
    peer = transport.get_extra_info("peername") or transport.get_extra_info("sockname")
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # A Unix socket: the path of whichever end has one.
    return str(peer or "unnamed")


def report_rescue(rescued: Sequence[Rescued]) -> None:
    """The loop is back: one record of what the guard did meanwhile, if it was worth one."""
    sums.rescued()
    duration = max(row[1] for row in rescued)
    answered = sum(row[2] for row in rescued)
    pinged = sum(row[3] for row in rescued)
    held = sum(row[4] for row in rescued)
    if answered == 0 and duration < LONG:
        return
    connections = "1 connection" if len(rescued) == 1 else f"{len(rescued)} connections"
    if len(rescued) <= MOST_NAMES:
        connections += f" ({', '.join(_name(row[0]) for row in rescued)})"
    # Short ones are many on a busy machine.
    logger.log(
        logging.WARNING if duration >= LONG else logging.INFO,
        "an event loop stood still for %.3f s; the guard kept %s: "
        "Pings answered %d, sent %d, bytes read %d",
        duration,
        connections,
        answered,
        pinged,
        held,
    )
