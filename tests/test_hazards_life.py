"""HAZARDS, lines 14 to 42, what concerns time, ends and processes: one test for each line.

See test_hazards.py for the others.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from conftest import MS, wait_until
from peer_checks import (
    PATIENT,
    PING_TIMEOUT,
    PINGS,
    STALL,
    STALLS,
    blocked_by,
    check_whole,
    connect,
    cpu_share,
    in_each_stall,
    named,
    talk,
)
from peer_speech import Peer, Process, Subject, in_parallel

pytestmark = pytest.mark.stalls

MIB = 1 << 20
#: What the library says of a peer that did not answer.
TIMED_OUT = "sent 1011 (internal error) keepalive ping timeout; no close frame received"


def more(subject: Process, function: str, **arguments: Any) -> Any:
    """Call a function of isolated/guarded_more.py in the subject."""
    return subject.call("extra", module="guarded_more", function=function, **arguments)


def how_we_ended(loop: str, kind: str, fork: bool) -> list[Any]:
    """What peers see of close and abort, each without and with bytes of theirs unread."""
    with Subject(loop, kind) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None, max_queue=1)
        ids = peer.connect(port, 4, "/later")
        if fork:
            more(subject, "fork")
        unread = ids[2:]
        # The library stops to read when it has more than one message; what comes then is unread.
        for size in (1000, 10_000):
            peer.call("send", ids=unread, count=20, size=size)
            peer.until(unread, lambda look: look["unsent"] == 0)
            # Between two answers the loop has turned, and has seen what was there before.
            subject.call("report")
            subject.call("report")
        subject.call("close_transport", ids=[ids[0], ids[2]])
        subject.call("abort", ids=[ids[1], ids[3]])
        peer.until(ids, lambda look: look["end"])
        ends = [report["end"][0] for report in peer.reports(ids)]
        if fork:
            more(subject, "end_child")
        subject.call("resume")
        subject.call("finish")
        return ends


@pytest.mark.essential
@pytest.mark.parametrize("fork", [False, True])
def test_14_peers_see_the_same_end(loop_kind: str, fork: bool) -> None:
    """FIN or RST as from the plain transport; also at once if a forked child has the socket too."""
    assert how_we_ended(loop_kind, "guarded", fork) == how_we_ended(loop_kind, "plain", False)


@pytest.mark.essential
def test_16_no_descriptor_passes_an_exec(loop_kind: str) -> None:
    with Subject(loop_kind) as subject, Peer() as peer:
        ids = connect("server", subject, peer, 3)
        found = more(subject, "inherited")
        assert [name for name in found if name.startswith(("socket:", "anon_inode:"))] == []
        check_whole(subject, peer, ids)


#: How a process can end: its status, and what it may say.
EXITS = {
    "by_return": (0, ""),
    "by_sys_exit": (3, ""),
    "by_exception": (1, "RuntimeError: the end\n"),
    "by_signal": (-signal.SIGTERM, ""),
    "by_os_exit": (4, ""),
}


def check_17(loop: str, case: str) -> None:
    for _ in range(3):
        with Process("isolated/guarded_exits.py", loop, case) as subject, Peer() as peer:
            subject.expected = EXITS[case]
            port = subject.event("serving")["port"]
            ids = peer.connect(port, 5, "/", ping_every=5 * MS)
            peer.until_pongs(ids, 3)
            subject.ring()
            peer.until(ids, lambda look: look["end"])


def test_17_the_process_ends_amid_stalls(loop_kind: str) -> None:
    in_parallel(check_17, [(loop_kind, case) for case in EXITS])


def check_18(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        lease = 300 * MS
        guard = {"max_stall": lease}
        # A Ping that waits when the lease ends has waited too long by the stall's end.
        port = subject.call("serve", ping_interval=100 * MS, ping_timeout=3 * lease, guard=guard)
        pinging = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        answering = peer.connect(port, 3, "/echo")
        patient = peer.connect(port, 3, "/echo")
        everybody = pinging + answering + patient
        peer.until(everybody, lambda look: look["pinged"])
        with subject.stalled(stall) as times:
            peer.call("set", ids=patient, answer_pings=False)
            peer.until_pongs(pinging, 3)
            time.sleep(5 * lease)
            silent = peer.looks(everybody)
            time.sleep(lease)
            # It has fallen silent: no Pong, no Ping.
            for before, after in zip(silent, peer.looks(everybody), strict=True):
                assert after["received"] == before["received"]
            pinged = peer.looks(patient)[0]["pinged"]
        assert times[1] - times[0] >= 6 * lease
        # It recovers with its loop, and holds its own silence against nobody: not even against
        # those who answer no sooner than the second Ping from now.
        peer.until(patient, lambda look: look["pinged"] >= pinged + 2)
        peer.call("set", ids=patient, answer_pings=True)
        peer.until(pinging, lambda look: look["pings"] - look["pongs"] < 3)
        peer.until(answering, lambda look: look["pinged"] >= 3)
        talk(peer, everybody)
        check_whole(subject, peer, everybody)


def test_18_the_lease_of_a_hung_server_runs_out(loop_kind: str) -> None:
    in_each_stall(check_18, loop_kind)


def test_18_a_closed_loop_is_silent(loop_kind: str) -> None:
    """Its connections are kept by a global, and nobody answers for them."""
    with Process("isolated/guarded_closed.py", loop_kind) as subject, Peer() as peer:
        port = subject.event("serving")["port"]
        ids = peer.connect(port, 3, "/", ping_every=20 * MS)
        peer.until_pongs(ids, 3)
        subject.ring()
        subject.event("closed")
        # What was on its way has come.
        time.sleep(100 * MS)
        before = peer.looks(ids)
        time.sleep(300 * MS)
        for one, other in zip(before, peer.looks(ids), strict=True):
            assert one["received"] == other["received"]


def check_19(loop: str, stall: str, role: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        ids = connect(role, subject, peer, 4)
        living, dead = ids[:2], ids[2:]
        peer.until(ids, lambda look: look["pinged"])
        peer.call("silence", ids=dead)
        subject.call("stall", kind=stall, seconds=3.5 * PING_TIMEOUT)
        peer.until(dead, lambda look: look["closed"])
        for report in peer.reports(dead):
            assert report["close"][:2] == [1011, "keepalive ping timeout"]
        peer.call("drop", ids=dead)
        wait_until(lambda: all(report["done"] for report in named(peer, subject, dead)))
        for report in named(peer, subject, dead):
            assert (report["error"], report["message"]) == ("ConnectionClosedError", TIMED_OUT)
        talk(peer, living)
        check_whole(subject, peer, living)


@pytest.mark.parametrize("role", ["server", "client"])
def test_19_a_stall_of_many_ping_timeouts(loop_kind: str, role: str) -> None:
    """A living peer is kept, a dead one is closed as the library would."""
    in_each_stall(check_19, loop_kind, role)


def check_20(loop: str, stall: str, role: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        ids = connect(role, subject, peer, 4)
        peer.call("set", ids=ids[:2], ping_every=50 * MS)
        subject.call("stall", kind=stall, seconds=0.7 * PING_TIMEOUT, count=6)
        talk(peer, ids)
        check_whole(subject, peer, ids)


@pytest.mark.parametrize("role", ["server", "client"])
def test_20_a_chain_of_stalls(loop_kind: str, role: str) -> None:
    in_parallel(check_20, [(loop_kind, stall, role) for stall in STALLS])


def check_26(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        ended = peer.connect(port, 40, "/take")
        talkative = ended[::2]
        with subject.stalled(stall):
            peer.call("send", ids=talkative, count=3, size=1000)
            peer.until(ended, lambda look: look["unsent"] == 0)
            peer.until_pongs(watchers, 5)
            peer.call("fin", ids=ended[:20])
            peer.call("rst", ids=ended[20:])
            peer.until_pongs(watchers, 5)
            assert cpu_share(subject.pid, 1000 * MS) < 0.2
        subject.until(ended, lambda report: report["done"] and report["lost"])
        for id_, report in zip(ended, subject.reports(ended), strict=True):
            assert report["lost"] == 1
            # What came before the end came first.
            assert report["messages"] == (3 if id_ in talkative else 0)
        check_whole(subject, peer, watchers)


def test_26_ends_in_the_stall_cost_no_cpu(loop_kind: str) -> None:
    in_each_stall(check_26, loop_kind)


def how_reset_ended(loop: str, kind: str, stall: str, path: str) -> dict[str, Any]:
    with Subject(loop, kind) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        (id_,) = peer.connect(port, 1, path)
        with subject.stalled(stall):
            peer.call("rst", ids=[id_])
            if kind == "guarded":
                peer.until_pongs(watchers, 10)
        subject.until([id_], lambda report: report["done"])
        (report,) = subject.reports([id_])
        check_whole(subject, peer, watchers)
        return {name: report[name] for name in ("error", "cause", "code", "reason", "lost")}


def check_27(loop: str, stall: str, path: str) -> None:
    guarded = how_reset_ended(loop, "guarded", stall, path)
    assert guarded == how_reset_ended(loop, "plain", stall, path)
    assert guarded["cause"] == "ConnectionResetError"


@pytest.mark.essential
def test_27_a_reset_has_the_same_cause(loop_kind: str) -> None:
    in_each_stall(check_27, loop_kind, "/take")


def check_28(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", **PATIENT)
        more(subject, "die_of_sigpipe")
        watchers = peer.connect(port, 3, "/echo", ping_every=20 * MS)
        gone = peer.connect(port, 5, "/take")
        arguments = {"function": "stall_and_write", "kind": stall, "ids": gone}
        subject.tell("extra", module="guarded_more", **arguments)
        subject.event("stalled")
        peer.call("drop", ids=gone)
        peer.until_pongs(watchers, 20)
        subject.ring()
        subject.answer()
        subject.until(gone, lambda report: report["done"])
        talk(peer, watchers)
        check_whole(subject, peer, watchers)


def test_28_no_sigpipe(loop_kind: str) -> None:
    in_each_stall(check_28, loop_kind)


def check_29(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        ids = connect("server", subject, peer, 4, PATIENT)
        peer.call("set", ids=ids, ping_every=20 * MS)
        more(subject, "alarms", every=0.001)
        assert signal.SIGALRM in blocked_by(subject.pid, "wso-guard")
        assert signal.SIGSEGV not in blocked_by(subject.pid, "wso-guard")
        with subject.stalled(stall):
            peer.until_pongs(ids, 20)
        talk(peer, ids)
        assert more(subject, "alarms_seen") > 0
        more(subject, "alarms", every=0)
        check_whole(subject, peer, ids)


def test_29_signals_are_not_the_guards(loop_kind: str) -> None:
    """A thousand SIGALRM each second, of which the guard's thread takes none."""
    # A signal that comes into usleep(3) or read(2) ends a stall of the other kind.
    in_parallel(check_29, [(loop_kind, "sleep")])


def check_30(loop: str, role: str, stall: str | None) -> None:
    with Subject(loop) as subject, Peer() as peer:
        pings = {"ping_interval": 100 * MS, "ping_timeout": 800 * MS}
        ids = connect(role, subject, peer, 6, pings)
        pinging, slow = ids[:2], ids[4:]
        peer.call("set", ids=pinging, ping_every=20 * MS)
        peer.until(ids, lambda look: look["pinged"])
        if stall is not None:
            subject.tell("stall", kind=stall, seconds=STALL)
            subject.event("stalled")
        for _ in range(2):
            # Those who are slow have a Ping to answer, and nothing of theirs is on its way.
            peer.call("set", ids=slow, answer_pings=False)
            before = {look["id"]: look["pinged"] for look in peer.looks(slow)}
            peer.until(slow, lambda look: look["pinged"] > before[look["id"]])  # noqa: B023
            os.kill(subject.pid, signal.SIGSTOP)
            time.sleep(1000 * MS)
            before = {look["id"]: look["pinged"] for look in peer.looks(slow)}
            os.kill(subject.pid, signal.SIGCONT)
            peer.until(slow, lambda look: look["pinged"] > before[look["id"]])  # noqa: B023
            peer.call("set", ids=slow, answer_pings=True)
            peer.until_pongs(pinging, 3)
        if stall is not None:
            subject.answer()
        talk(peer, ids)
        check_whole(subject, peer, ids)


@pytest.mark.parametrize("role", ["server", "client"])
def test_30_a_stopped_process_judges_nobody(loop_kind: str, role: str) -> None:
    """By SIGSTOP and SIGCONT, in health and in stalls: no wrong close, no doubled Pong."""
    in_parallel(check_30, [(loop_kind, role, stall) for stall in (None, "sleep", "hold")])


@pytest.mark.essential
def test_35_connection_lost_comes_once(loop_kind: str) -> None:
    """Whoever ends the connection, and however."""
    with Subject(loop_kind) as subject, Peer() as peer:
        port = subject.call("serve", **PINGS)
        ids = peer.connect(port, 8, "/echo")
        fin, rst, peers_close, our_close, abort, close_transport, dead, stays = ids
        (ends,) = peer.connect(port, 1, "/ends")
        peer.call("fin", ids=[fin])
        peer.call("rst", ids=[rst])
        peer.call("close", ids=[peers_close])
        subject.call("close", ids=[our_close])
        subject.call("abort", ids=[abort])
        subject.call("close_transport", ids=[close_transport])
        peer.call("silence", ids=[dead])
        gone = [fin, rst, peers_close, our_close, abort, close_transport, dead, ends]
        peer.until([dead], lambda look: look["closed"])
        subject.until(gone, lambda report: report["done"] and report["lost"])
        talk(peer, [stays])
        assert [report["lost"] for report in subject.reports(gone)] == [1] * len(gone)
        assert subject.reports([stays])[0]["lost"] == 0
        assert subject.call("shut_down")[str(stays)]["lost"] == 1
        peer.until([stays], lambda look: look["end"] == "EOF")


def check_37(loop: str, role: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        interval = 200 * MS
        options = {"ping_interval": interval, "ping_timeout": None}
        if role == "server":
            port = subject.call("serve", **options)
            none_port = subject.call("serve", ping_interval=None)
            ids = peer.connect(port, 2, "/echo")
            quiet = peer.connect(none_port, 2, "/echo")
        else:
            port = peer.call("listen")
            subject.call("connect", port=port, count=2, path="/echo", **options)
            subject.call("connect", port=port, count=2, path="/echo", ping_interval=None)
            all_ids = peer.call("ids")
            paths = {report["path"]: report["id"] for report in peer.reports(all_ids)}
            ids, quiet = ([paths[f"/echo?{n}"] for n in ns] for ns in ((0, 1), (2, 3)))
        peer.until(ids, lambda look: look["pinged"] >= 4)
        for report in peer.reports(ids):
            first, last = report["pinged"][0], report["pinged"][-1]
            # The first may have been seen late, the others are never sent early.
            assert len(report["pinged"]) <= (last - first) / interval + 2
        assert [look["pinged"] for look in peer.looks(quiet)] == [0, 0]
        # Changed on the way, both ways.
        numbers = [int(r["path"].partition("?")[2]) for r in peer.reports(ids + quiet)]
        subject.call("set", ids=numbers[:2], ping_interval=None)
        subject.call("set", ids=numbers[2:], ping_interval=50 * MS)
        peer.until(quiet, lambda look: look["pinged"] >= 1)
        before = [look["pinged"] for look in peer.looks(ids)]
        peer.until(quiet, lambda look: look["pinged"] >= 12)
        assert [look["pinged"] for look in peer.looks(ids)] == before
        check_whole(subject, peer, ids + quiet)


def test_37_the_users_ping_settings(loop_kind: str) -> None:
    in_parallel(check_37, [(loop_kind, role) for role in ("server", "client")])


def check_41(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        guard = {"read_ahead": 1 << 16, "max_stall": 2000 * MS}
        pings = {"ping_interval": 200 * MS, "ping_timeout": 1000 * MS}
        # The library stops to read when it holds more than one message.
        port = subject.call("serve", guard=guard, max_queue=1, close_timeout=100 * MS, **pings)
        ids = peer.connect(port, 2, "/idle", sndbuf=1 << 16)
        peer.call("send", ids=ids, count=20, size=MIB // 10)
        peer.until(ids, lambda look: look["sent"] > 1 << 17)
        peer.call("silence", ids=ids)
        # Nobody judges within a stall, and the full inbox counts from when it was last emptied.
        subject.call("stall", kind=stall, seconds=STALL)
        peer.until(ids, lambda look: look["closed"])
        for report in peer.reports(ids):
            assert report["close"][:2] == [1011, "keepalive ping timeout"]
        peer.call("rst", ids=ids)
        subject.until(ids, lambda report: report["done"])
        for report in subject.reports(ids):
            assert (report["error"], report["message"]) == ("ConnectionClosedError", TIMED_OUT)
        subject.call("finish")


def test_41_a_full_inbox_puts_the_verdict_off_not_away(loop_kind: str) -> None:
    """The handler receives nothing, the peer fills the inbox and vanishes."""
    in_each_stall(check_41, loop_kind)


def check_42(loop: str, role: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        (id_,) = connect(role, subject, peer, 1, answer_pings=False)
        peer.call("set", ids=[id_], ping_every=20 * MS)
        (number,) = (int(r["path"].partition("?")[2]) for r in peer.reports([id_]))
        subject.tell("ping", id_=number, payload="the user's")
        peer.until([id_], lambda look: b"the user's".hex() in look["pinged_with"])
        # Only those that come from now on are answered: Pings of the guard.
        peer.call("set", ids=[id_], answer_pings=True)
        assert subject.answer() > 0
        assert named(peer, subject, [id_])[0]["latency"] > 0
        check_whole(subject, peer, [id_])


def test_42_a_pong_for_the_guard_settles_the_users_ping(loop_kind: str) -> None:
    in_parallel(check_42, [(loop_kind, role) for role in ("server", "client")])


def test_43_the_wire_and_the_gil_are_not_in_each_others_way(loop_kind: str) -> None:
    """Three threads fight for the GIL with the loop, which is at the wires all the time."""
    with Subject(loop_kind) as subject, Peer() as peer:
        ids = connect("server", subject, peer, 10, PATIENT)
        more(subject, "fight_for_the_gil", threads=3)
        for _ in range(5):
            peer.call("set", ids=ids, ping_every=5 * MS)
            peer.call("send", ids=ids, count=5, size=1000, fragments=3, pings=1)
            peer.until_pongs(ids, 20)
        more(subject, "make_peace")
        check_whole(subject, peer, ids)
