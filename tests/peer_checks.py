"""What the tests of the guard's stalls and hazards share: settings, talks, looks from outside.

No test has an opinion on how fast things are: a stall lasts until the peer has got what it must.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import MS, PATIENCE, has_uvloop
from peer_speech import Peer, Subject, alike, in_parallel

LOOPS = ("asyncio", "uvloop") if has_uvloop() else ("asyncio",)
STALLS = ("sleep", "hold", "thread")
PING_TIMEOUT = 400 * MS
PINGS = {"ping_interval": 200 * MS, "ping_timeout": PING_TIMEOUT}
# For tests that are about something else, in which the peer may be busy for a while.
PATIENT = {"ping_interval": 50 * MS, "ping_timeout": PATIENCE}
# Longer than a Ping may take, so that whoever judges by a clock that was stalled judges wrongly.
STALL = 500 * MS
# Plain asyncio needs a turn to wake its pinger, one to send the Ping and one to see it late.
CHAIN = 4
READ_AHEAD = 1 << 20


def connect(
    role: str,
    subject: Subject,
    peer: Peer,
    count: int,
    pings: dict[str, float] = PINGS,
    **options: Any,
) -> list[int]:
    """Connections between the two, the subject being the server or the client."""
    if role == "server":
        port = subject.call("serve", **pings)
        return peer.connect(port, count, "/echo", **options)
    port = peer.call("listen", **options)
    subject.call("connect", port=port, count=count, path="/echo", **pings)
    return sorted(peer.call("ids"))


def named(peer: Peer, subject: Subject, ids: list[int]) -> list[dict[str, Any]]:
    """The subject's reports of the peer's connections: the name is in the path."""
    return subject.reports([int(r["path"].partition("?")[2]) for r in peer.reports(ids)])


def talk(peer: Peer, ids: list[int]) -> None:
    """Some messages each, which come back."""
    sent = [report["sent_messages"] for report in peer.reports(ids)]
    peer.call("send", ids=ids, count=3, size=1000, fragments=3, pings=1)
    more = dict(zip(ids, sent, strict=True))
    peer.until(ids, lambda look: look["messages"] == more[look["id"]] + 3 or look["end"])


def check_whole(subject: Subject, peer: Peer, ids: list[int]) -> None:
    """Each Ping has its Pong, each side got all that the other sent; then the subject closes."""
    peer.call("set", ids=ids, ping_every=0.0)
    peer.until(ids, lambda look: look["pongs"] == look["pings"])
    for one, other in zip(peer.reports(ids), named(peer, subject, ids), strict=True):
        alike(one, other)
    subject.call("finish")
    peer.until(ids, lambda look: look["end"])
    for report in peer.reports(ids):
        assert report["close"][0] in (1000, 1001)
        assert report["end"][0] in ("EOF", "ours")
        assert report["errors"] == []


def in_each_stall(scenario: Callable[..., None], loop: str, *arguments: Any) -> None:
    """Run the scenario in a stall without the GIL and in one with it."""
    in_parallel(scenario, itertools.product([loop], ("sleep", "hold"), *([a] for a in arguments)))


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_share(pid: int, seconds: float) -> float:
    """The share of a core that the process takes in the next seconds."""
    began, before = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


def resident_bytes(pid: int) -> int:
    """The memory of a process that lies in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def blocked_by(pid: int, name: str) -> set[signal.Signals]:
    """The signals that the process's thread of this name blocks."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text() == name + "\n":
            lines = (task / "status").read_text().splitlines()
            mask = int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16)
            return {number for number in signal.Signals if mask >> (number - 1) & 1}
    raise LookupError(name)
