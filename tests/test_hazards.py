"""HAZARDS, lines 1 to 27, what concerns the bytes: one test for each, its number in its name.

Those that concern time, ends and processes are in test_hazards_life.py. Each runs on both loops and
in stalls of both kinds; the peer is another process that looks at every byte.
"""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MS, wait_until
from peer_checks import (
    PATIENT,
    check_whole,
    connect,
    cpu_share,
    in_each_stall,
    named,
    resident_bytes,
    talk,
)
from peer_speech import Peer, Subject, alike

pytestmark = pytest.mark.stalls

MIB = 1 << 20


def watch(peer: Peer, port: int, count: int = 3) -> list[int]:
    """Connections that ping and must get every Pong."""
    return peer.connect(port, count, "/echo", ping_every=20 * MS)


def check_01(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=10 * MS, ping_timeout=None)
        subject.call("extra", module="guarded_more", function="send_buffer", size=4096)
        slow = {"read_size": 50, "rcvbuf": 4096, "in_order": False, "ping_every": 10 * MS}
        ids = peer.connect(port, 2, f"/send/3/{MIB // 4}", **slow)
        ids += peer.connect(port, 1, f"/send/1/{MIB}", **slow)
        chance = random.Random(1)
        wanted = [3, 3, 1]
        while [look["messages"] for look in peer.looks(ids)] != wanted:
            assert [look["errors"] for look in peer.looks(ids)] == [[], [], []]
            subject.call("stall", kind=stall, seconds=chance.uniform(5, 100) * MS, count=2)
        peer.call("set", ids=ids, read_size=1 << 16, ping_every=0.0)
        for one, other in zip(peer.reports(ids), named(peer, subject, ids), strict=True):
            alike(one, other)
            assert len(one["pongs"]) > 0
            assert len(one["pinged"]) > 0
            assert other["guard"]["rescues"] > 0
        subject.call("finish")


def test_01_no_pong_inside_a_frame(loop_kind: str) -> None:
    """Frames leave in many pieces, in and out of stalls, and Pongs between frames only."""
    in_each_stall(check_01, loop_kind)


@pytest.fixture(scope="module")
def short_sends(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library which, preloaded, lets sendmsg(2) take few bytes at a time."""
    target = tmp_path_factory.mktemp("preload") / "short_sends.so"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    source = Path(__file__).parent / "faults" / "short_sends.c"
    command = [*compiler, "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-fPIC", "-shared", str(source)]
    subprocess.run([*command, "-o", str(target), "-ldl"], check=True)
    return str(target)


def check_02(loop: str, stall: str, role: str, library: str) -> None:
    with Subject(loop, preload=library) as subject, Peer() as peer:
        # When the kernel takes nothing, only the latest Pong is owed.
        ids = connect(role, subject, peer, 2, PATIENT, in_order=False)
        with subject.stalled(stall):
            for number in range(300):
                peer.call("ping", ids=ids, payload=f"{number:04x}" + "ab" * 123)
                if number % 10 == 9:
                    peer.until(ids, lambda look: look["pongs"] == look["pings"])
        for _ in range(30):
            talk(peer, ids)
            subject.call("stall", kind=stall, seconds=30 * MS)
        check_whole(subject, peer, ids)


@pytest.mark.parametrize("role", ["server", "client"])
def test_02_frames_of_the_guard_leave_in_parts(loop_kind: str, role: str, short_sends: str) -> None:
    """Nothing overtakes the rest of a Pong of which the kernel took k bytes, for each k."""
    in_each_stall(check_02, loop_kind, role, short_sends)


def test_03_a_hog_starts_inside_the_read_callback(loop_kind: str) -> None:
    """The order is exact and each Ping is answered once."""
    with Subject(loop_kind) as subject, Peer() as peer:
        port = subject.call("serve", **PATIENT)
        (id_,) = peer.connect(port, 1, "/echo")
        more = {"module": "guarded_more"}
        subject.call("extra", function="hogs", id_=id_, count=40, **more)
        while subject.call("extra", function="hogs_left", **more):
            assert peer.looks([id_])[0]["state"] == "open"
            peer.call("send", ids=[id_], count=3, size=1000, fragments=4, pings=1)
        # The Pong of the last Ping can overtake the last echo.
        sent = peer.reports([id_])[0]["sent_messages"]
        peer.until([id_], lambda look: look["messages"] == sent)
        check_whole(subject, peer, [id_])


def check_04(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        ids = peer.connect(port, 2, "/echo")
        with subject.stalled(stall):
            peer.call("send", ids=ids, count=1, size=100, pings=1)
            peer.until(ids, lambda look: look["pongs"] == 1)
        # Nobody sends anything now, and nobody asks the other side.
        peer.until(ids, lambda look: look["messages"] == 1)
        check_whole(subject, peer, ids)


def test_04_the_loop_is_told_what_the_guard_read(loop_kind: str) -> None:
    in_each_stall(check_04, loop_kind)


def check_05(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", max_queue=4, guard={"read_ahead": 1 << 16}, **PATIENT)
        subject.call("extra", module="guarded_more", function="receive_buffer", size=1 << 16)
        paused = peer.connect(port, 2, "/later")
        full = peer.connect(port, 30, "/later", sndbuf=1 << 16)
        peer.call("send", ids=paused, count=40, size=1000)
        peer.until(paused, lambda look: look["unsent"] == 0)
        # The loop is idle, the library does not read.
        peer.call("ping", ids=paused, count=3)
        peer.until(paused, lambda look: look["pongs"] == 3)
        peer.call("send", ids=full, count=8, size=1 << 18)
        assert cpu_share(subject.pid, 1000 * MS) < 0.2
        with subject.stalled(stall):
            peer.call("ping", ids=paused, count=3)
            peer.until(paused, lambda look: look["pongs"] == 6)
            assert cpu_share(subject.pid, 1000 * MS) < 0.2
            # What the peers could send is in the kernel's buffers and in the inboxes.
            assert all(look["unsent"] > 0 for look in peer.looks(full))
        subject.call("resume")
        subject.until(paused, lambda report: report["messages"] == 40)
        subject.until(full, lambda report: report["messages"] == 8)
        check_whole(subject, peer, paused + full)


def test_05_unread_messages_of_a_paused_library(loop_kind: str) -> None:
    """Pings behind them are answered; a full inbox costs no CPU; all arrives in the end."""
    in_each_stall(check_05, loop_kind)


def check_06(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        ids = peer.connect(port, 2, "/echo")
        for sent in range(0, 10_000, 2000):
            peer.call("ping", ids=ids, count=1000)
            with subject.stalled(stall):
                peer.call("ping", ids=ids, count=1000)
                peer.until(ids, lambda look: look["pongs"] >= sent + 1100)  # noqa: B023
        peer.until(ids, lambda look: look["pongs"] == 10_000)
        check_whole(subject, peer, ids)


def test_06_one_pong_for_each_of_10_000_pings(loop_kind: str) -> None:
    in_each_stall(check_06, loop_kind)


def check_07(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=20 * MS, ping_timeout=None)
        watchers = watch(peer, port)
        ids = peer.connect(port, 3, "/take")
        with subject.stalled(stall):
            peer.call("close", ids=ids, then_ping=True)
            peer.until_pongs(watchers, 1)
            before = [look["received"] for look in peer.looks(ids)]
            peer.until_pongs(watchers, 20)
            assert [look["received"] for look in peer.looks(ids)] == before
        peer.until(ids, lambda look: look["end"])
        for report in peer.reports(ids):
            # The strict parser takes no byte behind a Close frame, nor a Pong that was not due.
            assert (report["close"][0], report["errors"], report["end"][0]) == (1000, [], "EOF")
        check_whole(subject, peer, watchers)


@pytest.mark.essential
def test_07_nothing_after_a_close_frame(loop_kind: str) -> None:
    """A Ping behind Close is not answered, by anybody, and we ping no more."""
    in_each_stall(check_07, loop_kind)


#: Frames that a server must fail the connection for, each before a good Ping.
WRONG = {
    "rsv1 that was not negotiated": "c18000000000",
    "rsv2": "a18000000000",
    "rsv3": "918000000000",
    "opcode 3": "838000000000",
    "opcode 11": "8b8000000000",
    "continuation of nothing": "808000000000",
    "fragmented Ping": "098000000000",
    "Ping with RSV1": "c98000000000",
    "Ping of 126": "89fe007e00000000" + "00" * 126,
    "unmasked text": "810161",
    "unmasked Ping": "8900",
    "length of 2^63": "82ff800000000000000000000000",
    "message past max_size": "82fe03e900000000" + "00" * 1001,
    "fragments past max_size": "02fe025800000000" + "00" * 600 + "80fe025800000000" + "00" * 600,
    "text within a fragmented message": "018000000000818000000000",
    "close of one byte": "88810000000000",
}
GOOD_PING = "898000000000"


def undated(report: dict[str, Any]) -> bytes:
    """What came last, but for the time of day."""
    return re.sub(rb"Date: [^\r]*", b"", bytes.fromhex(report["tail"]))


def frames_of(report: dict[str, Any]) -> bytes:
    """What came behind the HTTP head."""
    return bytes.fromhex(report["tail"]).rpartition(b"\r\n\r\n")[2]


def how_wrong_ended(loop: str, kind: str, stall: str) -> dict[str, Any]:
    with Subject(loop, kind) as subject, Peer() as peer:
        port = subject.call("serve", max_size=1000, ping_interval=None)
        watchers = watch(peer, port)
        ids = peer.connect(port, len(WRONG), "/take")
        with subject.stalled(stall):
            before = [look["received"] for look in peer.looks(ids)]
            for id_, data in zip(ids, WRONG.values(), strict=True):
                peer.call("raw", ids=[id_], data=data + GOOD_PING)
            if kind == "guarded":
                peer.until_pongs(watchers, 20)
            assert [look["received"] for look in peer.looks(ids)] == before
        peer.until(ids, lambda look: look["end"])
        ended = {
            name: (report["close"] and report["close"][:2], frames_of(report), report["errors"])
            for name, report in zip(WRONG, peer.reports(ids), strict=True)
        }
        check_whole(subject, peer, watchers)
        return ended


def check_wrong_frames(loop: str, stall: str) -> None:
    assert how_wrong_ended(loop, "guarded", stall) == how_wrong_ended(loop, "plain", stall)


def test_08_nothing_is_answered_behind_a_wrong_frame(loop_kind: str) -> None:
    """The peer sees what it would see without a guard, byte for byte."""
    in_each_stall(check_wrong_frames, loop_kind)


def how_undecided_ended(loop: str, kind: str, stall: str, path: str) -> tuple[Any, ...]:
    with Subject(loop, kind) as subject, Peer() as peer:
        port = subject.call("extra", module="guarded_more", function="serve_asking")
        # A Ping and a text in the segment of the request; some libraries answer it at once.
        hello = GOOD_PING + "818200000000" + b"hi".hex()
        (id_,) = peer.call("connect", port=port, count=1, path=path, behind_head=hello)
        wait_until(lambda: subject.call("extra", module="guarded_more", function="asked"))
        with subject.stalled(stall):
            before = peer.looks([id_])[0]["received"]
            peer.call("raw", ids=[id_], data=GOOD_PING)
            time.sleep(100 * MS)
            assert peer.looks([id_])[0]["received"] == before
        subject.call("extra", module="guarded_more", function="admit")
        peer.until([id_], lambda look: look["received"] > 0)
        if path == "/take":
            subject.until([id_], lambda report: report["messages"] == 1)
            peer.call("close", ids=[id_])
        peer.until([id_], lambda look: look["end"])
        (report,) = peer.reports([id_])
        subject.call("finish")
        return report["close"] and report["close"][0], undated(report), report["errors"]


def check_undecided(loop: str, stall: str, path: str) -> None:
    guarded = how_undecided_ended(loop, "guarded", stall, path)
    assert guarded == how_undecided_ended(loop, "plain", stall, path)


@pytest.mark.parametrize("path", ["/take", "/refused"])
def test_08_nothing_is_answered_before_the_handshake(loop_kind: str, path: str) -> None:
    in_each_stall(check_undecided, loop_kind, path)


def how_wrong_accept_ended(loop: str, kind: str, stall: str) -> tuple[Any, ...]:
    with Subject(loop, kind) as subject, Peer() as peer:
        port = peer.call("listen", accept="wrong", behind_head="8900", waits=True)
        subject.tell("extra", module="guarded_more", function="refused", port=port)
        wait_until(lambda: peer.call("ids") and peer.reports([0])[0]["head"])
        with subject.stalled(stall, answers=False):
            peer.call("accept", ids=[0])
            time.sleep(100 * MS)
        (failure,) = (a for a in (subject.answer(), subject.answer()) if isinstance(a, str))
        peer.until([0], lambda look: look["end"])
        (report,) = peer.reports([0])
        subject.call("finish")
        behind_request = report["received"] - len(report["head"]) - len("\r\n\r\n")
        return failure, behind_request, report["end"][0]


def check_wrong_accept(loop: str, stall: str) -> None:
    guarded = how_wrong_accept_ended(loop, "guarded", stall)
    assert guarded == how_wrong_accept_ended(loop, "plain", stall)
    assert guarded[:2] == ("InvalidHeaderValue", 0)


def test_08_nothing_is_answered_after_a_wrong_accept(loop_kind: str) -> None:
    in_each_stall(check_wrong_accept, loop_kind)


@pytest.mark.essential
def test_09_masking_keys_do_not_repeat(loop_kind: str) -> None:
    """20,000 of them, half by the guard's thread; a server's frames are checked to have none."""
    with Subject(loop_kind) as subject, Peer() as peer:
        (id_,) = connect("client", subject, peer, 1, PATIENT)
        for _ in range(10):
            peer.call("ping", ids=[id_], count=1000)
            peer.until([id_], lambda look: look["pongs"] == look["pings"])
            with subject.stalled("hold"):
                peer.call("ping", ids=[id_], count=1000)
                peer.until([id_], lambda look: look["pongs"] == look["pings"])
        (report,) = peer.reports([id_])
        assert report["keys"] >= 20_000 - 5
        # 0.05 are to be expected.
        assert report["keys_repeated"] <= 5
        check_whole(subject, peer, [id_])


def check_10(loop: str, stall: str, deflate: bool) -> None:
    with Subject(loop) as subject, Peer() as peer:
        compression = "deflate" if deflate else None
        port = subject.call("serve", compression=compression, **PATIENT)
        ids = peer.connect(port, 2, "/echo", deflate=deflate)
        with subject.stalled(stall):
            peer.call("send", ids=ids, count=1, size=50_000, fragments=1000, pings=1, text=True)
            peer.until(ids, lambda look: look["pings"] > 500 and look["pongs"] == look["pings"])
        peer.until(ids, lambda look: look["messages"] == 1)
        peer.call("send", ids=ids, count=3, size=50_000, fragments=100, pings=1, text=True)
        peer.until(ids, lambda look: look["messages"] == 4)
        check_whole(subject, peer, ids)


@pytest.mark.parametrize("deflate", [False, True])
def test_10_pings_between_fragments(loop_kind: str, deflate: bool) -> None:
    in_each_stall(check_10, loop_kind, deflate)


def check_21(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=None)
        subject.call("extra", module="guarded_more", function="send_buffer", size=4096)
        watchers = watch(peer, port)
        flooders = peer.connect(port, 2, "/take", rcvbuf=4096, in_order=False)
        peer.call("set", ids=flooders, read_size=0)
        with subject.stalled(stall):
            peer.until_pongs(watchers, 1)
            before = resident_bytes(subject.pid)
            for _ in range(20):
                peer.call("ping", ids=flooders, count=2500)
            peer.until(flooders, lambda look: look["unsent"] == 0)
            peer.until_pongs(watchers, 20)
            assert resident_bytes(subject.pid) - before < 4 * MIB
        peer.call("set", ids=flooders, read_size=1 << 16)
        # The latest is answered.
        peer.call("ping", ids=flooders, payload="ff")
        peer.until(flooders, lambda look: look["pongs"] and look["pongs"] == look["pings"])
        check_whole(subject, peer, watchers + flooders)


def test_21_a_flood_of_pings_by_peers_that_do_not_read(loop_kind: str) -> None:
    in_each_stall(check_21, loop_kind)


def check_22(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", ping_interval=20 * MS, ping_timeout=None)
        watchers = watch(peer, port, 1)
        blocked = peer.connect(port, 30, f"/send/2/{2 * MIB}", rcvbuf=1 << 16)
        peer.call("set", ids=blocked, read_size=0, in_order=False)
        with subject.stalled(stall):
            peer.call("ping", ids=blocked, count=3)
            peer.until_pongs(watchers, 3)
            assert cpu_share(subject.pid, 1000 * MS) < 0.2
        peer.call("set", ids=blocked, read_size=1 << 16)
        peer.until(blocked, lambda look: look["messages"] == 2)
        peer.until(blocked, lambda look: look["pongs"])
        check_whole(subject, peer, watchers)


def test_22_full_send_buffers_cost_no_cpu(loop_kind: str) -> None:
    in_each_stall(check_22, loop_kind)


def check_23(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        guard = {"read_ahead": MIB, "read_ahead_total": 4 * MIB}
        port = subject.call("serve", max_size=None, guard=guard, **PATIENT)
        quiet = watch(peer, port, 20)
        flooders = peer.connect(port, 20, "/take")
        before = resident_bytes(subject.pid)
        with subject.stalled(stall):
            peer.call("send", ids=flooders, count=2, size=MIB)
            peer.until_pongs(quiet, 20)
            # The bound, a floor page each, and what the process may need besides.
            assert resident_bytes(subject.pid) - before < 8 * MIB
        subject.until(flooders, lambda report: report["messages"] == 2)
        check_whole(subject, peer, quiet + flooders)


def test_23_floods_do_not_seize_the_common_bound(loop_kind: str) -> None:
    in_each_stall(check_23, loop_kind)


LENGTHS = {
    125: "82fd",
    126: "82fe007e",
    65535: "82feffff",
    65536: "82ff0000000000010000",
    1 << 31: "82ff0000000080000000",
    1 << 62: "82ff4000000000000000",
    1 << 63: "82ff8000000000000000",
}


def check_24(loop: str, stall: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        port = subject.call("serve", max_size=None, **PATIENT)
        watchers = watch(peer, port)
        ids = peer.connect(port, len(LENGTHS), "/take")
        before = resident_bytes(subject.pid)
        with subject.stalled(stall):
            for id_, head in zip(ids, LENGTHS.values(), strict=True):
                peer.call("raw", ids=[id_], data=head + "00000000" + "11" * 10)
            peer.until_pongs(watchers, 20)
        talk(peer, watchers)
        assert resident_bytes(subject.pid) - before < 8 * MIB
        assert not any(look["closed"] for look in peer.looks(ids[:-1]))
        peer.call("drop", ids=ids)
        check_whole(subject, peer, watchers)


def test_24_announced_lengths_take_no_memory(loop_kind: str) -> None:
    in_each_stall(check_24, loop_kind)


def check_25(loop: str, stall: str, role: str) -> None:
    with Subject(loop) as subject, Peer() as peer:
        ids = connect(role, subject, peer, 20, PATIENT)
        peer.call("set", ids=ids, write_size=1, write_every=1 * MS)
        peer.call("send", ids=ids, count=2, size=50, fragments=3, pings=1)
        with subject.stalled(stall):
            peer.call("send", ids=ids, count=1, size=130, fragments=2, pings=2)
            peer.until(ids, lambda look: look["unsent"] == 0)
            peer.until(ids, lambda look: look["pongs"] == look["pings"])
        peer.until(ids, lambda look: look["messages"] == 3)
        check_whole(subject, peer, ids)


@pytest.mark.parametrize("role", ["server", "client"])
def test_25_input_comes_one_byte_at_a_time(loop_kind: str, role: str) -> None:
    in_each_stall(check_25, loop_kind, role)
