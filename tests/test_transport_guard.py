"""Tests of csrc/py/guard.c and transport_guard.c: what the guard has to say reaches the loop.

What the guard does for its peers in a stall is tested elsewhere; here the peer is a socket of this
very process, which is looked at after the stall.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import MS, PATIENCE, descriptors, until
from kernel import SANITIZER, run_isolated, tasks
from links import Factory, Recorder, guarded_transport, pair, turns

from wsoffload import _core, _guard

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"

#: Long enough to be noticed: some pulses of the guard.
STALL = 300 * MS


def ping(payload: bytes) -> bytes:
    """As a client sends it, with a mask of zeros."""
    return bytes([0x89, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def pong(payload: bytes) -> bytes:
    """As a server sends it."""
    return bytes([0x8A, len(payload)]) + payload


def text(payload: bytes) -> bytes:
    """As a client sends it."""
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def hold_gil(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def stall_until(true: Callable[[], object], stall: Callable[[float], None] = time.sleep) -> None:
    """Keep the loop from its turn until this is so."""
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, "what was waited for did not come"
        stall(20 * MS)


@pytest.fixture(params=[time.sleep, hold_gil], ids=["sleep", "hold_gil"])
def stall(request: pytest.FixtureRequest) -> Callable[[float], None]:
    """The ways to stall a loop."""
    way: Callable[[float], None] = request.param
    return way


class Guarded:
    """A guarded connection and the socket of its peer."""

    def __init__(self, transport: Any, protocol: Recorder, peer: socket.socket) -> None:
        self.transport = transport
        self.protocol = protocol
        self.peer = peer
        self.deaths = 0

    def die(self) -> None:
        self.deaths += 1

    def start(self, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "rsv1": False,
            "max_message": 2**20,
            "max_fragment": None,
            "ping_interval": None,
            "ping_timeout": None,
            "max_stall": 300.0,
            "log": True,
            "on_dead": self.die,
        }
        self.transport._start(**defaults | settings)

    def heard(self) -> bytes:
        """What the peer can receive now."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while more := self.peer.recv(65536):
                data += more
        return data

    def hears(self, expected: bytes) -> Callable[[], bool]:
        """A condition: the peer has received this, and nothing else since now."""
        received = bytearray()

        def condition() -> bool:
            received.extend(self.heard())
            assert expected.startswith(received)
            return received == expected

        return condition

    async def close(self) -> None:
        self.transport.abort()
        await until(self.protocol.lost)
        self.peer.close()


async def connect(**options: Any) -> Guarded:
    """A connection whose handshake is over."""
    protocol = Recorder(keep_open=options.pop("keep_open", False))
    sock, peer = pair(options.pop("family", "tcp"), options.pop("sndbuf", None))
    transport = guarded_transport(sock, protocol, **options)
    protocol.connection_made(transport)
    transport.write(HEAD)
    await until(lambda: peer.recv(100) == HEAD)
    return Guarded(transport, protocol, peer)


@pytest.fixture(scope="session", autouse=True)
def guard(first_uvloop: None) -> None:
    """The guard keeps its thread and two descriptors once something was guarded."""

    async def main() -> None:
        link = await connect()
        link.start()
        await link.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def reports() -> Iterator[list[Any]]:
    """What is reported of rescues."""
    rescues: list[Any] = []
    _core._set_rescue_report(rescues.append)
    yield rescues
    _core._set_rescue_report(_guard._report)


def test_a_rescue(run_async: Any, stall: Callable[[float], None], reports: list[Any]) -> None:
    async def main() -> None:
        link = await connect()
        assert link.transport._counts()["state"] == "new"
        link.start()
        assert repr(link.transport).endswith(" guarded>")
        link.peer.send(ping(b"one") + text(b"data") + ping(b"two"))
        stall_until(link.hears(pong(b"one") + pong(b"two")), stall)
        assert link.protocol.data() == b""
        await until(lambda: reports)
        assert link.protocol.data() == text(b"data")
        [[(transport, duration, answered, pinged, read)]] = reports
        assert transport is link.transport
        assert 0 < duration < 60
        assert (answered, pinged) == (2, 0)
        assert read == len(ping(b"one") + text(b"data") + ping(b"two"))
        counts = link.transport._counts()
        assert counts.pop("longest_rescue") == duration
        assert counts == {
            "state": "guarded",
            "answered": 2,
            "pinged": 0,
            "latency": 0.0,
            "inbox": 0,
            "read_ahead": read,
            "rescues": 1,
        }
        notes, missed = link.transport._take_notes()
        assert sorted(notes) == sorted(
            [(False, 9, b"one"), (True, 10, b"one"), (False, 9, b"two"), (True, 10, b"two")]
        )
        assert missed == 0
        del transport, reports[:]
        await link.close()
        assert link.transport._counts()["state"] == "retired"

    run_async(main)


def test_pings_are_answered_without_a_stall(run_async: Any) -> None:
    async def main() -> None:
        link = await connect()
        link.start()
        link.peer.send(ping(b"x") + text(b"data"))
        await until(lambda: link.protocol.data() == text(b"data"))
        await until(link.hears(pong(b"x")))
        notes, missed = link.transport._take_notes()
        assert sorted(notes) == [(False, 9, b"x"), (True, 10, b"x")]
        assert missed == 0
        for i in range(40):
            link.peer.send(ping(b"%d" % i))
            await until(lambda i=i: link.transport._counts()["answered"] == i + 2)
        notes, missed = link.transport._take_notes()
        assert len(notes) + missed == 80
        assert link.transport._take_notes() == ([], 0)
        await link.close()

    run_async(main)


def test_pings_are_answered_while_reading_is_paused(run_async: Any) -> None:
    """Hazard 5: the unread data before them waits."""

    async def main() -> None:
        link = await connect()
        link.start()
        link.transport.pause_reading()
        expected = b""
        for i in range(40):
            link.peer.send(text(b"message %d" % i))
            expected += text(b"message %d" % i)
        link.peer.send(ping(b"x"))
        heard = bytearray()
        await until(lambda: heard.extend(link.heard()) or heard == pong(b"x"))
        assert link.protocol.data() == b""
        link.transport.resume_reading()
        await until(lambda: link.protocol.data() == expected)
        await link.close()

    run_async(main)


def test_a_paused_connection_costs_nothing(run_async: Any) -> None:
    """What was read ahead waits without a turn of the loop."""

    async def main() -> None:
        link = await connect()
        link.start()
        link.transport.pause_reading()
        link.peer.send(text(b"unread"))
        await until(lambda: link.transport._counts()["inbox"] > 0)
        before = time.thread_time()
        await asyncio.sleep(300 * MS)
        assert time.thread_time() - before < 100 * MS
        await link.close()

    run_async(main)


def test_a_full_inbox_stops_reading(run_async: Any) -> None:
    async def main() -> None:
        link = await connect(read_ahead_each=8192)
        link.start()
        link.transport.pause_reading()
        frame = bytes([0x82, 0xFE, 0x03, 0xE8, 0, 0, 0, 0]) + bytes(1000)
        sent = 0
        while "read=polling" in repr(link.transport):
            with contextlib.suppress(BlockingIOError):
                sent += link.peer.send(frame)
            await asyncio.sleep(0)
        inbox = link.transport._counts()["inbox"]
        assert 8192 - 1100 <= inbox <= 8192 + 16384
        await turns()
        assert link.transport._counts()["inbox"] == inbox
        link.transport.resume_reading()
        await until(lambda: len(link.protocol.data()) == sent)
        await until(lambda: "read=polling" in repr(link.transport))
        await link.close()

    run_async(main)


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_the_end_in_a_stall(run_async: Any, stall: Callable[[float], None], end: str) -> None:
    """It comes after the bytes, of the class of the unguarded case, once."""

    async def main() -> None:
        link = await connect()
        link.start()
        # Bytes that the peer leaves unread make its close a reset.
        if end == "reset":
            link.transport.write(b"\x81\x01x")
        # The guard's Pong may be the first to meet the reset.
        link.peer.send(ping(b"x") + text(b"last"))
        threading.Timer(STALL / 3, link.peer.close).start()
        stall(STALL)
        await until(link.protocol.lost)
        expected: list[Any] = [("made",), ("data", text(b"last"))]
        if end == "eof" and ("eof",) in link.protocol.events:
            expected += [("eof",), ("lost", None)]
        else:
            expected += [("lost", ConnectionResetError)]
        assert link.protocol.events == expected
        await link.close()

    run_async(main)


def test_the_end_in_a_stall_while_paused(run_async: Any) -> None:
    async def main() -> None:
        link = await connect(keep_open=True)
        link.start()
        link.transport.pause_reading()
        link.peer.send(text(b"last"))
        link.peer.shutdown(socket.SHUT_WR)
        stall_until(lambda: link.transport._counts()["state"] == "ended")
        await turns()
        assert link.protocol.events == [("made",)]
        link.transport.resume_reading()
        await until(lambda: ("eof",) in link.protocol.events)
        assert link.protocol.events == [("made",), ("data", text(b"last")), ("eof",)]
        link.transport.write(b"answer")
        await until(lambda: link.heard() == b"answer")
        await link.close()

    run_async(main)


def test_output_that_waits_goes_on_in_a_stall(run_async: Any) -> None:
    """And the protocol hears of it afterwards."""

    async def main() -> None:
        link = await connect()
        link.start()
        frame = bytes([0x82, 127]) + (2**23).to_bytes(8, "big") + bytes(2**23)
        link.transport.write(frame)
        assert link.protocol.events == [("made",), ("pause",)]
        got = 0

        def drain() -> None:
            nonlocal got
            link.peer.setblocking(True)
            while got < len(frame):
                got += len(link.peer.recv(2**20))

        thread = threading.Thread(target=drain)
        thread.start()
        # Python code that keeps the loop, but not the GIL, busy.
        stop = time.monotonic() + STALL
        while time.monotonic() < stop:
            time.sleep(MS)
        await until(lambda: not thread.is_alive())
        thread.join()
        await until(lambda: link.protocol.events == [("made",), ("pause",), ("resume",)])
        assert link.transport.get_write_buffer_size() == 0
        await link.close()

    run_async(main)


@pytest.mark.parametrize("then", ["nothing", "pause", "close"])
def test_output_that_is_lost_in_a_stall(run_async: Any, then: str) -> None:
    """The guard's thread meets the error; the protocol hears of it as if its own writer had."""

    async def main() -> None:
        link = await connect()
        link.start()
        if then == "pause":
            link.transport.pause_reading()
        link.transport.write(bytes([0x82, 127]) + (2**23).to_bytes(8, "big") + bytes(2**23))
        assert link.transport.get_write_buffer_size() > 0
        link.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.peer.close()
        stall_until(lambda: link.transport.get_write_buffer_size() == 0)
        if then == "close":
            link.transport.close()
        assert link.protocol.events == [("made",), ("pause",)]
        await until(link.protocol.lost)
        assert issubclass(link.protocol.events[-1][1], ConnectionError)
        await link.close()

    run_async(main)


@pytest.mark.parametrize("stalled", [False, True])
def test_a_pong_that_waits_for_the_peer_goes_out(run_async: Any, stalled: bool) -> None:
    """Nothing else happens on the connection that would take it along."""

    async def main() -> None:
        link = await connect(sndbuf=4096)
        link.start()
        sent = 0
        before = -1
        # Until no Pong has gone out in a while: the peer reads none.
        while before != (before := link.transport._counts()["answered"]) or sent < 2000:
            for _ in range(500):
                with contextlib.suppress(BlockingIOError):
                    link.peer.send(ping(b"%0125d" % sent))
                    sent += 1
            if stalled:
                time.sleep(20 * MS)
            await turns()
        heard = bytearray()
        last = pong(b"%0125d" % (sent - 1))
        await until(lambda: heard.extend(link.heard()) or heard.endswith(last))
        # Whole frames, each once.
        assert len(heard) % len(last) == 0
        await link.close()

    run_async(main)


def test_dead_peers_are_reported_once(run_async: Any) -> None:
    async def main() -> None:
        link = await connect()
        link.start(ping_interval=20 * MS, ping_timeout=30 * MS)
        await until(lambda: link.deaths)
        assert link.heard().startswith(b"\x89\x04")
        # The guard proposes it again after a second.
        await asyncio.sleep(1.2)
        assert link.deaths == 1
        assert link.transport._counts()["pinged"] >= 1
        assert not link.transport.is_closing()
        await link.close()

    run_async(main)


def test_peers_that_answer_live(run_async: Any) -> None:
    async def main() -> None:
        link = await connect()
        link.start(ping_interval=20 * MS, ping_timeout=2000 * MS)
        answered = 0
        while link.transport._counts()["latency"] == 0.0:
            for frame in link.heard().split(b"\x89\x04")[1:]:
                link.peer.send(b"\x8a\x84\0\0\0\0" + frame)
                answered += 1
            await asyncio.sleep(MS)
        assert answered >= 1
        assert link.deaths == 0
        assert link.protocol.data() == b""
        # Settings change while it runs: no more Pings.
        link.transport._set_pings(None, None)
        pinged = link.transport._counts()["pinged"]
        await asyncio.sleep(100 * MS)
        assert link.transport._counts()["pinged"] == pinged
        link.transport._set_pings(10 * MS, None)
        await until(lambda: link.transport._counts()["pinged"] > pinged)
        await link.close()
        link.transport._set_pings(1, 1)

    run_async(main)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"ping_interval": -1}, ValueError),
        ({"ping_timeout": float("nan")}, ValueError),
        ({"max_stall": "long"}, TypeError),
        ({"max_message": -1}, OverflowError),
        ({"max_message": 1.5}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_wrong_settings(run_async: Any, settings: dict[str, Any], error: type[Exception]) -> None:
    async def main() -> None:
        link = await connect()
        with pytest.raises(error):
            link.start(**settings)
        with pytest.raises(TypeError, match="needs all"):
            link.transport._start(log=True)
        with pytest.raises(error if "ping_interval" in settings else ValueError):
            link.transport._set_pings(-1, None)
        link.start(ping_interval=float("inf"), ping_timeout=1e300, max_stall=float("inf"))
        await link.close()

    run_async(main)


def test_what_cannot_be_guarded_works_on(run_async: Any) -> None:
    async def main() -> None:
        link = await connect()
        link.start()
        with pytest.raises(RuntimeError, match="guarded already"):
            link.start()
        await link.close()
        with pytest.raises(RuntimeError, match="closing"):
            link.start()
        # Not WebSocket: the peer's first byte is no frame of a client's.
        link = await connect()
        link.peer.send(b"\x81\x01x")
        await until(lambda: link.protocol.data() == b"\x81\x01x")
        with pytest.raises(RuntimeError, match="cannot be guarded"):
            link.start()
        assert link.transport._counts()["state"] == "new"
        link.peer.send(b"more")
        await until(lambda: link.protocol.data() == b"\x81\x01xmore")
        await link.close()

    run_async(main)


def test_only_its_own_loop_can_start_it(run_async: Any) -> None:
    async def main() -> None:
        link = await connect()
        raised: list[BaseException] = []

        def elsewhere(in_loop: bool) -> None:
            async def start() -> None:
                link.start()

            try:
                asyncio.run(start()) if in_loop else link.start()
            except RuntimeError as error:
                raised.append(error)

        for in_loop in (False, True):
            await asyncio.to_thread(elsewhere, in_loop)
        assert "running event loop" in str(raised[0])
        assert "another event loop" in str(raised[1])
        await link.close()

    run_async(main)


def test_callbacks_run_in_the_connections_context(run_async: Any) -> None:
    variable = contextvars.ContextVar("variable", default="")
    seen: list[str] = []

    async def main() -> None:
        variable.set("the connection's")
        link = await connect()
        link.protocol.react = lambda event: seen.append(f"{event[0]} {variable.get()}")
        # Another context makes the hub.
        await contextvars.Context().run(asyncio.create_task, start(link))
        link.peer.send(text(b"x"))
        hold_gil(STALL)
        await until(lambda: link.protocol.data())
        assert seen == ["data the connection's"]
        await link.close()

    async def start(link: Guarded) -> None:
        link.start()

    run_async(main)


@pytest.mark.parametrize("what", ["on_dead", "report"])
def test_callbacks_that_raise_are_reported(loop_factory: Factory, what: str) -> None:
    reports: list[Any] = []

    def fail(*args: Any) -> None:
        raise LookupError(what)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, report: reports.append((report["message"], report["exception"]))
        )
        link = await connect()
        if what == "on_dead":
            link.start(ping_interval=5 * MS, ping_timeout=5 * MS, on_dead=fail)
        else:
            link.start()
            link.peer.send(ping(b"x"))
            _core._set_rescue_report(fail)
            stall_until(link.hears(pong(b"x")))
        await until(lambda: reports)
        link.peer.send(text(b"x"))
        await until(lambda: link.protocol.data() == text(b"x"))
        await link.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    message = "a callback of a guarded connection" if what == "on_dead" else "of a rescue"
    assert message in reports[0][0]
    assert str(reports[0][1]) == what


@pytest.mark.parametrize("what", ["on_dead", "report", "data_received"])
def test_interrupts_leave_the_loop(loop_factory: Factory, what: str) -> None:
    links: list[Guarded] = []
    died: list[Any] = []

    def fail(*args: Any) -> None:
        died.append(args)
        raise KeyboardInterrupt

    async def begin() -> None:
        links.extend([await connect() for _ in range(3)])
        # No turn of the loop between them: nothing comes before all are there.
        for link in links:
            link.start(
                ping_interval=5 * MS if what == "on_dead" else None,
                ping_timeout=5 * MS,
                on_dead=fail,
            )
        if what == "data_received":
            links[1].protocol.react = fail
        if what == "report":
            _core._set_rescue_report(fail)
        for link in links if what != "on_dead" else []:
            link.peer.send(text(b"x") + ping(b"x"))
            stall_until(link.hears(pong(b"x")))
        await asyncio.sleep(3600)

    async def end() -> None:
        for link in links:
            link.protocol.react = lambda event: None
            if what != "on_dead":
                await until(lambda link=link: link.protocol.data() == text(b"x"))
            link.transport._set_pings(None, None)
            await link.close()

    loop = loop_factory()
    main = loop.create_task(begin())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main)
    _core._set_rescue_report(None)
    main.cancel()
    # The other verdicts come in the loop's next runs, of which uvloop ends one more than is due.
    give_up = time.monotonic() + PATIENCE
    while not main.done() or (what == "on_dead" and len(died) < 3):
        assert time.monotonic() < give_up
        loop.call_later(10 * MS, loop.stop)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.run_until_complete(end())
    loop.close()


def test_the_report_must_be_callable() -> None:
    with pytest.raises(TypeError, match="callable"):
        _core._set_rescue_report(7)  # type: ignore[arg-type]


def test_closing_the_loop_silences_its_wires(loop_factory: Factory) -> None:
    """Hazard 18: also where a connection is kept in a global."""
    loop = loop_factory()
    link = loop.run_until_complete(connect())

    async def start() -> None:
        link.start()

    loop.run_until_complete(start())
    link.peer.send(ping(b"one"))
    stall_until(link.hears(pong(b"one")))
    loop.close()
    link.peer.send(ping(b"two"))
    time.sleep(STALL)
    assert link.heard() == b""
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        link.protocol.transport = link.transport = None
    gc.collect()
    link.peer.close()


def test_removing_others_within_a_callback(run_async: Any) -> None:
    """Each of many connections has something to say; the first who is heard ends them all."""

    async def main() -> None:
        links = [await connect() for _ in range(20)]

        def abort_all(event: Any) -> None:
            for link in links:
                link.transport.abort()

        for link in links:
            link.start()
            link.protocol.react = abort_all
            link.peer.send(text(b"x") + ping(b"x"))
        time.sleep(STALL)
        for link in links:
            await until(link.protocol.lost)
            link.peer.close()
        heard = [link for link in links if link.protocol.data()]
        assert len(heard) == 1

    run_async(main)


def test_many_connections_come_and_go_in_stalls(run_async: Any) -> None:
    """The guard's thread is at the wires while they are used and removed."""

    async def main() -> None:
        for round_number in range(20):
            links = [await connect(family="unix") for _ in range(10)]
            for link in links:
                link.start(ping_interval=MS, ping_timeout=1000.0)
                link.peer.send((text(b"x" * 100) + ping(b"y")) * 50)
            time.sleep(20 * MS)
            for link in links[: round_number % 10]:
                await until(lambda link=link: len(link.protocol.data()) == 50 * 106)
                link.transport.write(b"\x81\x01x")
            for link in links:
                await link.close()

    run_async(main)


def test_one_guard_thread_for_all_loops(loop_factory: Factory) -> None:
    """Hazard 32: eight loops in eight threads."""
    problems: list[BaseException] = []

    def serve() -> None:
        async def main() -> None:
            link = await connect()
            link.start()
            for i in range(5):
                link.peer.send(ping(b"%d" % i) + text(b"x"))
                time.sleep(50 * MS)
                await asyncio.sleep(0)
                await until(lambda i=i: len(link.protocol.data()) == 7 * (i + 1))
            heard = link.heard()
            assert heard == b"".join(pong(b"%d" % i) for i in range(5))
            await link.close()

        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(tasks().values()).count("wso-guard") == 1


def test_an_abandoned_guarded_connection_is_given_back(run_async: Any) -> None:
    async def main() -> None:
        before = len(descriptors())
        link = await connect(keep_open=True)
        link.start()
        link.peer.shutdown(socket.SHUT_WR)
        await until(lambda: ("eof",) in link.protocol.events)
        await turns()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            link.protocol.transport = link.transport = None
        assert link.peer.recv(1) == b""
        link.peer.close()
        # The loop's ward keeps its own.
        assert len(descriptors()) <= before + 3

    run_async(main)


def test_without_descriptors_it_works_unguarded(run_async: Any) -> None:
    async def main() -> None:
        link = await connect()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The hub, the guard and the ward need one each, where they are not there yet.
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 1, hard))
        filled = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    filled.append(socket.socket())
            with pytest.raises(OSError, match="Too many open files"):
                link.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in filled:
                sock.close()
        link.peer.send(text(b"x"))
        await until(lambda: link.protocol.data() == text(b"x"))
        link.transport.write(b"y")
        await until(lambda: link.heard() == b"y")
        await link.close()

    run_async(main)


@pytest.mark.skipif(
    SANITIZER == "tsan", reason="ThreadSanitizer cannot follow a fork of a process with threads"
)
@pytest.mark.parametrize("case", ["quiet", "use", "loop", "new", "forget"])
def test_fork(case: str) -> None:
    result = run_isolated("transport_fork.py", case)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("how", ["return", "exit", "raise", "kept", "thread"])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_exit(how: str, kind: str) -> None:
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    result = run_isolated("transport_exit.py", kind, how)
    expected = {"exit": 3, "raise": 1}.get(how, 0)
    assert (result.returncode, result.stdout) == (expected, "ok\n")
    assert result.stderr == "" or how == "raise"
    assert "Fatal" not in result.stderr


def test_the_guard_thread_ends_with_the_process() -> None:
    result = run_isolated("transport_exit.py", "asyncio", "stopped")
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
