"""Tests of wsoffload/_guard.py and _guard_report.py: settings, taking over, what is said of it."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import errno
import gc
import logging
import math
import os
import pickle
import re
import socket
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from conftest import MS, RunAsync, descriptors, until

import wsoffload
from wsoffload import (
    Guard,
    GuardedTransport,
    Unguardable,
    _core,
    _doctor,
    _guard,
    _guard_report,
    adopt,
)

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OPEN: dict[str, Any] = {
    "rsv": False,
    "max_message": None,
    "max_fragment": None,
    "ping_interval": None,
    "ping_timeout": None,
}


@pytest.fixture(scope="module", autouse=True)
def first_guard(first_uvloop: None) -> None:
    """The first guarded connection makes what the process keeps: a thread and its descriptors."""
    passed, says = _doctor.self_test(asyncio.SelectorEventLoop)
    assert passed, says


def masked(opcode: int, payload: bytes = b"") -> bytes:
    """A client's frame, with a mask of zeros."""
    return bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload


def nobody_dies() -> None:
    raise AssertionError("the peer was given up")


class Adopter(asyncio.Protocol):
    """A server's protocol that is taken over as soon as it is connected."""

    def __init__(self, **options: Any) -> None:
        self.options = {"role": "server", "on_dead": nobody_dies, **options}
        self.refused: BaseException | None = None
        self.data = b""
        self.lost: list[Exception | None] = []
        self.original: Any = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.original = self.transport = transport
        try:
            self.transport = adopt(transport, self, **self.options)  # type: ignore[arg-type]
        except (RuntimeError, TypeError, ValueError) as error:
            self.refused = error

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Line:
    """A protocol on one end of a pair of sockets, and a plain socket on the other."""

    def __init__(self, family: str = "unix", **options: Any) -> None:
        self.protocol = Adopter(**options)
        self._family = family

    async def __aenter__(self) -> Line:
        loop = asyncio.get_running_loop()
        if self._family == "unix":
            near, self.peer = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.peer = socket.create_connection(listener.getsockname())
                near, _ = listener.accept()
        self.peer.setblocking(False)
        await loop.connect_accepted_socket(lambda: self.protocol, near)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.protocol.transport.abort()
        await until(lambda: self.protocol.lost)
        # Once, and not for the original too.
        await asyncio.sleep(0)
        assert self.protocol.lost == [None]
        self.peer.close()

    async def hear(self, size: int) -> bytes:
        """So many bytes, as the peer gets them."""
        heard = b""
        loop = asyncio.get_running_loop()
        while len(heard) < size:
            piece = await loop.sock_recv(self.peer, size - len(heard))
            assert piece
            heard += piece
        return heard

    async def works(self) -> None:
        """Whoever serves it, bytes go both ways."""
        before = self.protocol.data
        self.peer.send(b"ping pong")
        await until(lambda: self.protocol.data == before + b"ping pong")
        self.protocol.transport.write(b"pong ping")
        assert await self.hear(9) == b"pong ping"

    async def open(self, **settings: Any) -> GuardedTransport:
        """Answer with an HTTP head, and start."""
        transport = self.protocol.transport
        transport.write(HEAD)
        transport.start(**{**OPEN, **settings})
        assert await self.hear(len(HEAD)) == HEAD
        return transport  # type: ignore[no-any-return]


# ---- Settings.


def test_guard_says_what_it_may_do() -> None:
    guard = Guard()
    assert dataclasses.asdict(guard) == {
        "max_stall": 300,
        "read_ahead": 2**20,
        "read_ahead_total": 2**26,
        "required": False,
    }
    assert guard == Guard() != Guard(required=True)
    assert "memory" not in repr(guard)
    assert guard._memory.lent == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        guard.max_stall = 5  # type: ignore[misc]
    assert Guard(max_stall=math.inf, read_ahead=4096, read_ahead_total=4096).read_ahead == 4096
    assert guard._memory is guard._memory


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))]
)
def test_a_copied_guard_has_memory_of_its_own(copied: Callable[[Guard], Guard]) -> None:
    guard = Guard(max_stall=7)
    memory = guard._memory
    other = copied(guard)
    assert other == guard
    assert other._memory is not memory


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"max_stall": 0}, ValueError, "max_stall must be more than 0 seconds, not 0"),
        ({"max_stall": -1}, ValueError, "max_stall must be more than 0"),
        ({"max_stall": math.nan}, ValueError, "max_stall must be more than 0 seconds, not nan"),
        ({"max_stall": "5"}, TypeError, "max_stall must be None or a number of seconds, not '5'"),
        ({"max_stall": None}, TypeError, "max_stall must be a number of seconds, not None: math.i"),
        ({"read_ahead": 4095}, ValueError, "read_ahead must be at least 4096 bytes, not 4095: a"),
        ({"read_ahead": 1e6}, TypeError, "read_ahead must be a number of bytes, not 1000000.0"),
        ({"read_ahead": 2**63}, ValueError, "read_ahead must be at least 4096 bytes"),
        (
            {"read_ahead_total": 2**20 - 1},
            ValueError,
            "read_ahead_total must be at least 1048576 bytes, not 1048575: it must have room",
        ),
        ({"read_ahead_total": None}, TypeError, "read_ahead_total must be a number of bytes"),
        ({"required": 1}, TypeError, "required must be True or False, not 1"),
    ],
)
def test_wrong_settings_are_named(
    settings: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=re.escape(says)):
        Guard(**settings)


# ---- Taking over.


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_adopted_transport_takes_the_place(run_async: RunAsync[None], family: str) -> None:
    async def main() -> None:
        before = wsoffload.stats().guard
        async with Line(family) as line:
            transport, original = line.protocol.transport, line.protocol.original
            assert isinstance(transport, GuardedTransport)
            assert isinstance(transport, asyncio.Transport)
            assert original.is_closing()
            assert original.get_protocol() is not line.protocol
            assert transport.get_protocol() is line.protocol
            for name, get in (("peername", "getpeername"), ("sockname", "getsockname")):
                assert (
                    transport.get_extra_info(name)
                    == getattr(transport.get_extra_info("socket"), get)()
                )
            await line.works()
            assert transport.guard == wsoffload.GuardStatus("starting")
            assert transport.latency == 0
            after = wsoffload.stats().guard
            assert (after.adopted, after.guarded) == (before.adopted + 1, before.guarded)
        assert transport.guard.state == "ended"

    run_async(main)


def test_the_end_of_the_peer_is_told_once(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with Line() as line:
            line.peer.shutdown(socket.SHUT_WR)
            await until(lambda: line.protocol.lost)

    run_async(main)


def test_bytes_that_were_read_before_come_first(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with Line(at="upgrade", received=b"before ") as line:
            line.peer.send(b"after")
            await until(lambda: line.protocol.data == b"before after")

    run_async(main)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"guard": None}, TypeError, "guard must be a wsoffload.Guard, not None"),
        ({"at": "end"}, ValueError, "at must be 'start' or 'upgrade', not 'end'"),
        ({"on_dead": 5}, TypeError, "on_dead must be callable, not 5"),
        ({"role": "peer"}, ValueError, "role must be 'server' or 'client'"),
        ({"received": "text"}, TypeError, "received"),
    ],
)
def test_wrong_use_is_named_and_changes_nothing(
    run_async: RunAsync[None], options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    async def main() -> None:
        async with Line(**options) as line:
            assert isinstance(line.protocol.refused, kind)
            if "received" not in options:
                assert says in str(line.protocol.refused)
            assert line.protocol.transport is line.protocol.original
            await line.works()

    run_async(main)


def test_loops_and_transports_that_nobody_tried(run_async: RunAsync[None]) -> None:
    class Wrapper:
        """Looks like a transport; may change what goes through it."""

        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Line(guard=None) as line:
            original = line.protocol.original
            assert _guard._why_not(loop, original) is None
            stub: Any = object()
            assert _guard._why_not(stub, original) == (
                "its event loop is neither asyncio's selector loop nor uvloop"
            )
            wrapper: Any = Wrapper(original)
            with pytest.raises(Unguardable) as raised:
                adopt(wrapper, line.protocol, role="server", on_dead=nobody_dies)
            assert raised.value.reason == str(raised.value)
            assert raised.value.reason.startswith("its transport is not the one of the event loop")
            await line.works()
            original.close()
            assert _guard._why_not(loop, original) == "it is closing"

    run_async(main)


def test_without_uvloop_other_loops_are_still_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # type: ignore[arg-type]

    class Transport(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return default

    stub: Any = object()
    assert _guard._why_not(stub, Transport()) == (
        "its event loop is neither asyncio's selector loop nor uvloop"
    )


def test_output_that_is_still_there_is_not_lost(run_async: RunAsync[None]) -> None:
    size = 4 * 2**20

    async def main() -> None:
        async with Line(guard=None) as line:
            original = line.protocol.original
            original.write(bytes(size))
            # uvloop sends in a later turn.
            await asyncio.sleep(0)
            with pytest.raises(Unguardable, match="still holds output"):
                adopt(original, line.protocol, role="server", on_dead=nobody_dies)
            assert await line.hear(size) == bytes(size)
            await line.works()

    run_async(main)


def out_of_descriptors(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("owner", "name", "failure", "reason"),
    [
        (os, "dup", out_of_descriptors, "[Errno 24] Too many open files"),
        (_guard.socket, "socket", out_of_descriptors, "[Errno 24] Too many open files"),
        (_core.Transport, "__init__", out_of_memory, "there is not enough memory"),
    ],
)
def test_what_the_system_does_not_give_leaves_all_as_it_was(
    run_async: RunAsync[None],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    failure: Callable[..., Any],
    reason: str,
) -> None:
    if owner is _core.Transport:
        # Types of C cannot be patched.
        owner = GuardedTransport

    async def main() -> None:
        async with Line(guard=None) as line:
            before = descriptors()
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, failure)
                with pytest.raises(Unguardable) as raised:
                    adopt(line.protocol.original, line.protocol, role="server", on_dead=nobody_dies)
            assert raised.value.reason == reason
            assert descriptors() == before
            await line.works()

    run_async(main)


# ---- The guard at work.


def test_start_needs_websocket_frames(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with Line() as line:
            transport = line.protocol.transport
            # The request has not come yet.
            with pytest.raises(Unguardable, match="the connection cannot be guarded") as raised:
                transport.start(**OPEN)
            assert transport.guard == wsoffload.GuardStatus("unguarded", raised.value.reason)
            await line.works()

    run_async(main)


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout"])
def test_wrong_ping_settings_are_named(run_async: RunAsync[None], name: str) -> None:
    async def main() -> None:
        async with Line(at="upgrade") as line:
            for wrong, kind in ((-1, ValueError), (math.nan, ValueError), ("1", TypeError)):
                with pytest.raises(kind, match=f"^{name} must be"):
                    line.protocol.transport.start(**{**OPEN, name: wrong})
            transport = await line.open()
            for wrong, kind in ((-1, ValueError), (math.nan, ValueError), ("1", TypeError)):
                with pytest.raises(kind, match=f"^{name} must be"):
                    setattr(transport, name, wrong)
            assert getattr(transport, name) is None
            assert transport.guard.state == "guarded"

    run_async(main)


def test_pings_are_answered_and_what_else_comes_is_not_touched(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with Line(at="start", role="server") as line:
            line.peer.send(REQUEST)
            await until(lambda: line.protocol.data == REQUEST)
            transport = await line.open()
            line.peer.send(masked(9, b"you?") + masked(2, b"data"))
            await until(lambda: line.protocol.data == REQUEST + masked(2, b"data"))
            assert await line.hear(6) == b"\x8a\x04you?"
            status = transport.guard
            assert (status.state, status.pings_answered, status.pings_sent) == ("guarded", 1, 0)
            before = wsoffload.stats().guard
            assert before.guarded >= 1
        gone = weakref.ref(transport)
        del transport
        line.protocol.transport = line.protocol.original = None
        gc.collect()
        assert gone() is None
        after = wsoffload.stats().guard
        assert after.guarded == before.guarded - 1
        # What a connection counted stays when it is gone.
        assert after.pings_answered == before.pings_answered

    run_async(main)


def test_pings_are_sent_as_it_is_said_now(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with Line(at="upgrade") as line:
            transport = await line.open(ping_interval=0, ping_timeout=60)
            assert (transport.ping_interval, transport.ping_timeout) == (0, 60)
            await asyncio.sleep(60 * MS)
            assert transport.guard.pings_sent == 0
            transport.ping_interval = 30 * MS
            ping = await line.hear(6)
            assert ping[:2] == b"\x89\x04"
            transport.ping_interval = None
            transport.ping_timeout = None
            assert (transport.ping_interval, transport.ping_timeout) == (None, None)
            assert transport.latency == 0
            line.peer.send(masked(10, ping[2:]))
            await until(lambda: transport.latency > 0)
            # The Pong was for the guard.
            assert line.protocol.data == b""

    run_async(main)


def test_a_dead_peer_is_told_once(run_async: RunAsync[None]) -> None:
    told: list[None] = []

    async def main() -> None:
        async with Line(at="upgrade", on_dead=lambda: told.append(None)) as line:
            transport = await line.open(ping_interval=30 * MS, ping_timeout=60)
            await line.hear(6)
            assert told == []
            transport.ping_timeout = 30 * MS
            await until(lambda: told)
            await asyncio.sleep(100 * MS)
            assert told == [None]

    run_async(main)


def test_each_ping_and_pong_is_logged(run_async: RunAsync[None]) -> None:
    lines: list[str] = []

    async def main() -> None:
        async with Line(at="upgrade") as line:
            transport = await line.open(log=lines.append)
            line.peer.send(masked(9, b"\x01\x02"))
            await until(lambda: len(lines) == 2)
            assert sorted(lines) == [
                "< PING 01 02 [2 bytes, the guard's]",
                "> PONG 01 02 [2 bytes, the guard's]",
            ]
            # More than are kept.
            line.peer.send(masked(9) * 40)
            await line.hear(4 + 2 * 40)
            await until(lambda: len(lines) > 2)
            transport.flush_log()
            assert lines[-1].startswith("% ")
            missed = int(re.fullmatch(r"% (\d+) more of the guard's Pings and Pongs", lines[-1])[1])  # type: ignore[index]
            assert missed + len(lines) - 3 == 80
            before = len(lines)
            line.peer.send(masked(9))
            await line.hear(2)
        transport.flush_log()
        assert len(lines) == before + 2

    run_async(main)


def test_a_rescue_is_counted_and_reported(
    run_async: RunAsync[None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(_guard, "LOG_EVERY", 60)

    async def main() -> None:
        before = wsoffload.stats().guard
        async with Line(at="upgrade") as line:
            transport = await line.open(log=lines.append)
            # Once the loop is known to turn, a stall is known from it.
            await asyncio.sleep(60 * MS)
            line.peer.send(masked(9, b"a"))
            time.sleep(300 * MS)
            assert await line.hear(3) == b"\x8a\x01a"
            await until(lambda: transport.guard.rescues)
            await until(lambda: wsoffload.stats().guard.rescues == before.rescues + 1)
            status = transport.guard
            assert status.pings_answered == 1
            assert 0 < status.longest_rescue < 10
            after = wsoffload.stats().guard
            assert after.longest_rescue >= status.longest_rescue
            await until(lambda: caplog.records)
            (record,) = caplog.records
            assert re.fullmatch(
                r"an event loop stood still for \d\.\d{3} s; the guard kept 1 connection "
                r"\(unnamed\): Pings answered 1, sent 0, bytes read \d+",
                record.getMessage(),
            )
            assert len(lines) == 2

    with caplog.at_level(logging.INFO, "wsoffload"):
        run_async(main)


# ---- What is said.


class Named(_core.Transport):
    """A transport with nothing but a name."""

    def __init__(self, **names: object) -> None:
        self._names = names

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._names.get(name, default)


def said(caplog: pytest.LogCaptureFixture, *rescued: tuple[Any, float, int, int, int]) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "wsoffload"):
        _guard_report.report_rescue(rescued)
    long = max(row[1] for row in rescued) >= 1
    for record in caplog.records:
        assert record.levelno == (logging.WARNING if long else logging.INFO)
    return [record.getMessage() for record in caplog.records]


def test_report_names_up_to_ten_connections(caplog: pytest.LogCaptureFixture) -> None:
    peers = [
        Named(peername=("127.0.0.1", 80)),
        Named(peername=("::1", 80, 0, 0)),
        Named(peername="/run/peer"),
        Named(peername="", sockname="/run/own"),
        Named(),
    ]
    rows = [(peer, i / 10, 1, 2, 3) for i, peer in enumerate(peers)]
    assert said(caplog, *rows) == [
        "an event loop stood still for 0.400 s; the guard kept 5 connections (127.0.0.1:80, "
        "[::1]:80, /run/peer, /run/own, unnamed): Pings answered 5, sent 10, bytes read 15"
    ]
    many = [(Named(), 2.0, 0, 0, 1)] * 10
    (ten,) = said(caplog, *many)
    assert "kept 10 connections (unnamed" in ten
    (eleven,) = said(caplog, *many, many[0])
    assert "kept 11 connections: Pings answered 0, sent 0, bytes read 11" in eleven


def test_short_rescues_that_answered_nothing_are_not_worth_a_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = wsoffload.stats().guard.rescues
    assert said(caplog, (Named(), 0.9, 0, 1, 500)) == []
    assert len(said(caplog, (Named(), 1.0, 0, 0, 0))) == 1
    assert len(said(caplog, (Named(), 0.1, 1, 0, 0))) == 1
    assert wsoffload.stats().guard.rescues == before + 3


def test_unguarded_connections_are_warned_of_once_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sums = _guard_report.sums
    reasons = (f"reason {id(caplog)}", f"other {id(caplog)}")
    for reason in (*reasons, *reasons, reasons[0]):
        _guard_report.warn_unguarded(reason)
    assert [record.getMessage() for record in caplog.records] == [
        f"a connection is served unguarded: {reason}. Others for the same reason are only counted."
        for reason in reasons
    ]
    unguarded = wsoffload.stats().guard.unguarded
    assert [unguarded[reason] for reason in reasons] == [3, 2]
    assert sums.stats().unguarded == unguarded


def test_sums_begin_anew_in_a_child() -> None:
    sums = _guard_report.Sums()
    transport = Named()
    sums.adopted(transport)
    sums.unguarded("why")
    sums.rescued()
    assert sums.stats().adopted == 1
    sums.gone(transport)
    assert sums.stats() == wsoffload.GuardStats(0, 1, {"why": 1}, 1, 0, 0, 0, 0.0)
    sums.forget()
    assert sums.stats() == wsoffload.GuardStats(0, 0, {}, 0, 0, 0, 0, 0.0)


def test_a_transport_that_is_gone_is_gone(run_async: RunAsync[None]) -> None:
    gone: list[weakref.ref[GuardedTransport]] = []

    async def main() -> None:
        async with Line(at="upgrade") as line:
            gone.append(weakref.ref(await line.open(log=lambda line: None)))
            line.protocol.original = None
        line.protocol.transport = None

    run_async(main)
    gc.collect()
    assert gone[0]() is None


def test_a_transport_that_nobody_closes_is_warned_of() -> None:
    async def main() -> socket.socket:
        near, far = socket.socketpair()
        protocol = Adopter()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, near)
        assert protocol.refused is None
        # The original goes in the next turn.
        await asyncio.sleep(0)
        return far

    # The socket may warn too: it goes with the transport, in any order.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            far = runner.run(main())
        del runner
        gc.collect()
    texts = [str(warning.message) for warning in warned]
    assert sum(text.startswith("unclosed transport <GuardedTransport fd=") for text in texts) == 1
    # It closed the connection.
    assert far.recv(1) == b""
    far.close()


def test_nothing_is_said_at_the_end_of_the_interpreter() -> None:
    program = """
import asyncio, socket, wsoffload
kept = []
class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        kept.append(wsoffload.adopt(transport, self, role="server", on_dead=print))
async def main():
    near, far = socket.socketpair()
    await asyncio.get_running_loop().connect_accepted_socket(Protocol, near)
    kept[0].abort()
    await asyncio.sleep(0.01)
    far.close()
asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
