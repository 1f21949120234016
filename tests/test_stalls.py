"""Stalls of a server and a client, made in each way: guarded connections live on, plain ones die.

The peer is another process (peer.py), so is the side that stalls (isolated/guarded.py). No test has
an opinion on how fast things are: a stall lasts until the peer has got the Pongs that it must get.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import MS
from peer_checks import (
    CHAIN,
    LOOPS,
    PATIENT,
    PING_TIMEOUT,
    READ_AHEAD,
    STALL,
    STALLS,
    check_whole,
    connect,
    named,
    resident_bytes,
    talk,
)
from peer_speech import Peer, Subject, alike, in_parallel

pytestmark = pytest.mark.stalls


def check_lost_by_plain(loop: str, kind: str, role: str) -> None:
    """What the tests below would see without a guard."""
    with Subject(loop, "plain") as subject, Peer() as peer:
        ids = connect(role, subject, peer, 4)
        pinging, answering = ids[:2], ids[2:]
        peer.call("set", ids=pinging, ping_every=20 * MS)
        with subject.stalled(kind) as stall:
            time.sleep(STALL)
        began, ended = stall
        for report in peer.reports(pinging):
            assert [p for p in report["pongs"] if p[0] > began and p[1] < ended] == []
        peer.until(answering, lambda look: look["pinged"] or look["closed"])
        # A Pong that comes within the one turn saves a connection, until the next chain.
        while not any(look["closed"] for look in peer.looks(ids)):
            subject.call("stall", kind=kind, seconds=STALL, count=CHAIN)
        lost = [report["close"] for report in peer.reports(ids) if report["close"]]
        assert {(code, reason) for code, reason, _ in lost} == {(1011, "keepalive ping timeout")}
        subject.call("finish")


@pytest.mark.parametrize("role", ["server", "client"])
def test_plain_loses_its_connections(role: str) -> None:
    in_parallel(check_lost_by_plain, itertools.product(LOOPS, STALLS, [role]))


def check_kept(loop: str, kind: str, role: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        ids = connect(role, subject, peer, 6)
        pinging, answering, silent = ids[:2], ids[2:4], ids[4:]
        alive = pinging + answering
        talk(peer, ids)
        peer.call("set", ids=pinging, ping_every=20 * MS)
        # One stall: each Ping gets its Pong while it lasts, those who only answer are pinged.
        with subject.stalled(kind):
            peer.until_pongs(pinging, 20)
            pinged = {look["id"]: look["pinged"] for look in peer.looks(answering)}
            peer.until(answering, lambda look: look["pinged"] >= pinged[look["id"]] + 2)
            time.sleep(STALL)
            assert all(look["state"] == "open" for look in peer.looks(alive))
        # A chain of stalls, with one turn of the loop between two; one peer falls silent before.
        peer.call("silence", ids=silent)
        silenced = time.monotonic()
        subject.call("stall", kind=kind, seconds=STALL, count=CHAIN)
        peer.until(silent, lambda look: look["closed"])
        for report in peer.reports(silent):
            assert report["close"][:2] == [1011, "keepalive ping timeout"]
            # Not before a Ping was late, and none was before the peer fell silent.
            assert report["close"][2] - silenced >= PING_TIMEOUT / 2
        peer.call("drop", ids=silent)
        talk(peer, alive)
        for look in peer.looks(alive):
            assert (look["state"], look["closed"]) == ("open", False)
        for report in named(peer, subject, alive):
            guard = report["guard"]
            assert guard["state"] == "guarded"
            assert guard["rescues"] >= 1
            assert guard["longest_rescue"] >= STALL / 2
            assert report["latency"] > 0
        check_whole(subject, peer, alive)


@pytest.mark.essential
@pytest.mark.parametrize("role", ["server", "client"])
def test_guarded_connections_live_on(role: str) -> None:
    in_parallel(check_kept, itertools.product(LOOPS, STALLS, [role]))


# What may happen to one connection, the victim, while the others must get their Pongs.


def new_connection(peer: Peer, port: int, victim: int) -> list[int]:
    return list(peer.call("connect", port=port, count=1, path="/echo"))


def http_request(peer: Peer, port: int, victim: int) -> list[int]:
    return [peer.call("request", port=port, data="GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")]


def close(peer: Peer, port: int, victim: int) -> list[int]:
    peer.call("close", ids=[victim])
    return [victim]


def reset(peer: Peer, port: int, victim: int) -> list[int]:
    peer.call("rst", ids=[victim])
    return [victim]


def end(peer: Peer, port: int, victim: int) -> list[int]:
    peer.call("fin", ids=[victim])
    return [victim]


def end_behind_message(peer: Peer, port: int, victim: int) -> list[int]:
    peer.call("send", ids=[victim], count=1, size=10)
    peer.until([victim], lambda look: not look["unsent"])
    peer.call("fin", ids=[victim])
    return [victim]


def reset_behind_message(peer: Peer, port: int, victim: int) -> list[int]:
    peer.call("send", ids=[victim], count=1, size=10)
    peer.until([victim], lambda look: not look["unsent"])
    peer.call("rst", ids=[victim])
    return [victim]


ENDINGS = [close, reset, end, end_behind_message, reset_behind_message]


def how_it_ended(loop: str, kind: str, stall: str, event: Callable[..., list[int]]) -> Any:
    """What the victim's handler and the victim were told in the end."""
    with Subject(loop, kind) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        (victim,) = peer.connect(port, 1, "/take")
        with subject.stalled(stall):
            event(peer, port, victim)
            if kind == "guarded":
                peer.until_pongs(watchers, 20)
        subject.until([victim], lambda report: report["done"] and report["lost"])
        peer.until([victim], lambda look: look["end"])
        (report,) = subject.reports([victim])
        (seen,) = peer.reports([victim])
        check_whole(subject, peer, watchers)
        return (
            {name: value for name, value in report.items() if name not in ("guard", "latency")},
            (seen["close"] and seen["close"][:2], seen["end"][0], seen["errors"]),
        )


def check_ending(loop: str, stall: str, event: Callable[..., list[int]]) -> None:
    guarded = how_it_ended(loop, "guarded", stall, event)
    assert guarded == how_it_ended(loop, "plain", stall, event)
    assert guarded[0]["lost"] == 1


@pytest.mark.parametrize("event", ENDINGS, ids=lambda event: event.__name__)
def test_one_ends_in_the_stall(event: Callable[..., list[int]]) -> None:
    """It ends as it would without a guard, and mutes nobody."""
    in_parallel(check_ending, itertools.product(LOOPS, ("hold", "sleep"), [event]))


def check_arrival(loop: str, stall: str, event: Callable[..., list[int]]) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", **PATIENT)
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        with subject.stalled(stall):
            (new,) = event(peer, port, -1)
            peer.until_pongs(watchers, 20)
        peer.until([new], lambda look: look["state"] != "connecting")
        if event is new_connection:
            talk(peer, [new])
            alike(peer.reports([new])[0], subject.reports([new])[0])
        else:
            peer.until([new], lambda look: look["end"])
            assert "426 Upgrade Required" in peer.reports([new])[0]["head"]
        check_whole(subject, peer, watchers)


@pytest.mark.parametrize("event", [new_connection, http_request], ids=lambda event: event.__name__)
def test_one_arrives_in_the_stall(event: Callable[..., list[int]]) -> None:
    in_parallel(check_arrival, itertools.product(LOOPS, ("hold", "sleep"), [event]))


def check_load(loop: str, stall: str, count: int, size: int) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", max_size=None, **PATIENT)
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        (victim,) = peer.connect(port, 1, "/take")
        with subject.stalled(stall):
            before = resident_bytes(subject.pid)
            peer.call("send", ids=[victim], count=count, size=size)
            peer.until_pongs(watchers, 20)
            # What is read ahead, and what the process may need besides.
            assert resident_bytes(subject.pid) - before < READ_AHEAD + (3 << 20)
        subject.until([victim], lambda report: report["messages"] == count)
        (report,) = subject.reports([victim])
        assert report["guard"]["bytes_read_ahead"] > 0
        check_whole(subject, peer, [*watchers, victim])


@pytest.mark.parametrize(("count", "size"), [(1000, 64), (30, 1 << 20)])
def test_one_sends_much_in_the_stall(count: int, size: int) -> None:
    in_parallel(check_load, itertools.product(LOOPS, ("hold", "sleep"), [count], [size]))


def check_deaf(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        (deaf,) = peer.connect(port, 1, f"/send/20/{1 << 20}", rcvbuf=1 << 16)
        peer.call("set", ids=[deaf], read_size=0)
        with subject.stalled(stall):
            peer.call("ping", ids=[deaf], count=3)
            peer.until_pongs(watchers, 20)
        peer.call("set", ids=[deaf], read_size=1 << 16, in_order=False)
        peer.until([deaf], lambda look: look["messages"] == 20)
        check_whole(subject, peer, watchers)


def test_one_reads_nothing_of_20_mib() -> None:
    in_parallel(check_deaf, itertools.product(LOOPS, ("hold", "sleep")))
