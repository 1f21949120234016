"""Tests of csrc/py/transport*.c: it does what asyncio's own transport does.

Each scenario runs on asyncio's transport too, so that what is expected here is what asyncio does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import struct
import tempfile
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from conftest import MS, _uvloop_factory, until
from links import Buffered, Factory, Peer, Recorder, attach, guarded_transport, link, pair, turns

from wsoffload import _core

Main: TypeAlias = Callable[[], Any]


class Setting:
    """Which transport a scenario runs on, and what it reports to the loop's exception handler."""

    def __init__(self, ours: bool, factory: Factory, family: str) -> None:
        self.ours = ours
        self.family = family
        self.reports: list[tuple[str, type[BaseException] | None]] = []
        self._factory = factory

    def link(self, protocol: Any, sndbuf: int | None = None) -> Any:
        return link(self.ours, self.family, protocol, sndbuf)

    def run(self, main: Main) -> Any:
        with asyncio.Runner(loop_factory=self._factory) as runner:
            runner.get_loop().set_exception_handler(self._note)
            result = runner.run(main())
            gc.collect()
        return result

    def _note(self, loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
        exception = report.get("exception")
        assert not report["message"].startswith("Fatal") or isinstance(
            report["transport"], asyncio.Transport
        )
        self.reports.append((report["message"], exception and type(exception)))


@pytest.fixture(params=["unix", "tcp"])
def family(request: pytest.FixtureRequest) -> str:
    """The kinds of socket."""
    kind: str = request.param
    return kind


@pytest.fixture(params=["asyncio's own", "ours on asyncio", "ours on uvloop"])
def setting(request: pytest.FixtureRequest, family: str) -> Setting:
    """The transports that are to behave alike."""
    ours = request.param != "asyncio's own"
    uvloop = request.param == "ours on uvloop"
    return Setting(ours, _uvloop_factory() if uvloop else asyncio.SelectorEventLoop, family)


def test_bytes_go_both_ways(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            expected = b""
            for size in (0, 1, 125, 4095, 4096, 65536, 300_001):
                data = bytes(size % 251 for size in range(size))
                transport.write(data)
                expected += data
                assert await peer.receive(len(expected)) == expected
                sent = 0
                while sent < size:
                    sent += peer.send(data[sent:])
                    await asyncio.sleep(0)
                await until(lambda expected=expected: protocol.data() == expected)
            assert {event[0] for event in protocol.events} <= {"made", "data", "pause", "resume"}

    setting.run(main)
    assert setting.reports == []


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_write_takes_a_copy(setting: Setting, make: Callable[[bytes], Any]) -> None:
    async def main() -> None:
        async with setting.link(Recorder(), 4096) as (transport, peer):
            source = bytearray(b"ab" * 200_000)
            data = memoryview(source) if make is memoryview else make(source)
            transport.write(data)
            # asyncio of 3.12 and newer keeps views of what it was given, ours never does.
            if setting.ours:
                if make is memoryview:
                    data.release()
                source[:] = b"z" * len(source)
            assert await peer.receive(400_000) == b"ab" * 200_000

    setting.run(main)


def test_writelines(setting: Setting) -> None:
    async def main() -> None:
        async with setting.link(Recorder()) as (transport, peer):
            transport.writelines([])
            transport.writelines([b"", b""])
            transport.writelines([b"a", bytearray(b"b"), memoryview(b"c"), b""])
            # More pieces than sendmsg(2) takes.
            transport.writelines([b"%d," % i for i in range(3000)])
            expected = b"abc" + b"".join(b"%d," % i for i in range(3000))
            assert await peer.receive(len(expected)) == expected

    setting.run(main)


def test_wrong_calls(setting: Setting) -> None:
    async def main() -> None:
        async with setting.link(Recorder()) as (transport, peer):
            for wrong in ("text", 7, None, [b"x"]):
                with pytest.raises(TypeError, match="data argument must be a bytes"):
                    transport.write(wrong)
            with pytest.raises(TypeError, match="not 'str'"):
                transport.write("text")
            for lines in (["text"], 7):
                with pytest.raises(TypeError):
                    transport.writelines(lines)
            for high, low in ((1, 2), (-1, None), (1, -1), (None, -5)):
                with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be"):
                    transport.set_write_buffer_limits(high, low)
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
                transport.write(b"x")
            with pytest.raises(RuntimeError, match=r"Cannot call write.*\(\) after write_eof\(\)"):
                transport.writelines([b"x"])
            assert await peer.end() == "fin"
            assert peer.received == b""

    setting.run(main)
    assert setting.reports == []


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({}, (16384, 65536)),
        ({"high": 100}, (25, 100)),
        ({"low": 100}, (100, 400)),
        ({"high": 0}, (0, 0)),
        ({"high": 7, "low": 7}, (7, 7)),
        ({"high": 2.5, "low": 1}, (1, 2.5)),
        ({"high": 10**30}, (10**30 // 4, 10**30)),
    ],
)
def test_limits(setting: Setting, given: dict[str, Any], limits: tuple[Any, Any]) -> None:
    async def main() -> None:
        async with setting.link(Recorder()) as (transport, _):
            assert transport.get_write_buffer_limits() == (16384, 65536)
            transport.set_write_buffer_limits(1, 1)
            transport.set_write_buffer_limits(**given)
            assert transport.get_write_buffer_limits() == limits

    setting.run(main)


async def fill(transport: Any) -> int:
    """Write until something waits; how much was written."""
    written = 0
    while transport.get_write_buffer_size() == 0:
        transport.write(b"x" * 10_000)
        written += 10_000
    return written


def test_flow_control(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.set_write_buffer_limits(high=30_000, low=5_000)
            written = await fill(transport)
            waits = transport.get_write_buffer_size()
            assert 0 < waits <= 10_000
            while waits <= 30_000:
                assert protocol.events == [("made",)]
                transport.write(b"x" * 10_000)
                written += 10_000
                waits += 10_000
                assert transport.get_write_buffer_size() == waits
            assert protocol.events == [("made",), ("pause",)]
            transport.write(b"x" * 10_000)
            await peer.receive(written + 10_000)
            await until(lambda: protocol.events[-1] == ("resume",))
            assert protocol.events == [("made",), ("pause",), ("resume",)]
            assert transport.get_write_buffer_size() == 0
            # A limit that is lowered counts at once, one that is raised does not resume.
            written = await fill(transport)
            transport.set_write_buffer_limits(high=0)
            assert protocol.events[3:] == [("pause",)]
            transport.set_write_buffer_limits()
            assert protocol.events[3:] == [("pause",)]
            peer.received.clear()
            await peer.receive(written)
            await until(lambda: protocol.events[3:] == [("pause",), ("resume",)])

    setting.run(main)
    assert setting.reports == []


def test_writing_within_resume_writing(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.set_write_buffer_limits(high=0)

            def more(event: Any) -> None:
                if event == ("resume",) and len(protocol.events) < 6:
                    transport.write(b"y" * 500_000)

            protocol.react = more
            transport.write(b"x" * 500_000)
            await peer.receive(1_500_000)
            await until(lambda: len(protocol.events) == 7)
            assert protocol.events == [("made",), *[("pause",), ("resume",)] * 3]

    setting.run(main)
    assert setting.reports == []


def test_flow_callbacks_that_raise_are_reported(setting: Setting) -> None:
    class Refuser(Recorder):
        def pause_writing(self) -> None:
            raise LookupError

        def resume_writing(self) -> None:
            raise ArithmeticError

    async def main() -> None:
        protocol = Refuser()
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.write(b"x" * 500_000)
            await peer.receive(500_000)
            await until(lambda: len(setting.reports) == 2)
            assert not transport.is_closing()

    setting.run(main)
    assert setting.reports == [
        ("protocol.pause_writing() failed", LookupError),
        ("protocol.resume_writing() failed", ArithmeticError),
    ]


def test_pause_and_resume_reading(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            assert peer.send(b"first") == 5
            await turns()
            assert peer.send(b" second") == 7
            await turns()
            assert protocol.data() == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            assert protocol.data() == b""
            await until(lambda: protocol.data() == b"first second")
            assert peer.send(b" third") == 6
            await until(lambda: protocol.data() == b"first second third")

    setting.run(main)


def test_pausing_within_data_received(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            protocol.react = lambda event: event[0] == "data" and transport.pause_reading()
            for i in range(20):
                assert peer.send(b"%02d" % i) == 2
                await turns()
            assert protocol.data() == b"00"
            protocol.react = lambda event: None
            transport.resume_reading()
            await until(lambda: len(protocol.data()) == 40)
            assert protocol.data() == b"".join(b"%02d" % i for i in range(20))

    setting.run(main)


def test_a_paused_reader_pushes_back(setting: Setting) -> None:
    """What the peer can send is bounded, and all of it comes in the end."""

    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            transport.pause_reading()
            sent = quiet = 0
            while quiet < 50:
                count = peer.send(bytes((sent + i) % 251 for i in range(65536)))
                sent += count
                quiet = 0 if count else quiet + 1
                await asyncio.sleep(MS)
            assert sent < 2**24
            assert protocol.data() == b""
            transport.resume_reading()
            await until(lambda: len(protocol.data()) == sent)
            assert protocol.data() == bytes(i % 251 for i in range(sent))
            assert peer.send(b"more") == 4
            await until(lambda: len(protocol.data()) == sent + 4)

    setting.run(main)


@pytest.mark.parametrize("paused", [False, True])
def test_eof_of_the_peer_closes(setting: Setting, paused: bool) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            if paused:
                transport.pause_reading()
            assert peer.send(b"last") == 4
            peer.sock.shutdown(socket.SHUT_WR)
            if paused:
                await turns()
                assert protocol.events == [("made",)]
                transport.resume_reading()
            await until(protocol.lost)
            assert protocol.events == [("made",), ("data", b"last"), ("eof",), ("lost", None)]
            assert transport.is_closing()
            assert await peer.end() == "fin"

    setting.run(main)
    assert setting.reports == []


def test_eof_of_the_peer_keeps_open(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder(keep_open=True)
        async with setting.link(protocol) as (transport, peer):
            peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: ("eof",) in protocol.events)
            await turns()
            assert not transport.is_closing()
            transport.write(b"answer")
            assert await peer.receive(6) == b"answer"
            transport.write_eof()
            assert await peer.end() == "fin"
            await turns()
            assert protocol.events == [("made",), ("eof",)]
            transport.close()
            await until(protocol.lost)
            assert protocol.events == [("made",), ("eof",), ("lost", None)]

    setting.run(main)


def test_eof_comes_once() -> None:
    """asyncio's own tells it again after a pause, which no protocol can want."""

    async def main() -> None:
        protocol = Recorder(keep_open=True)
        async with link(True, "unix", protocol) as (transport, peer):
            peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: ("eof",) in protocol.events)
            transport.pause_reading()
            await turns()
            transport.resume_reading()
            await turns()
            assert protocol.events == [("made",), ("eof",)]

    asyncio.run(main())


def test_write_eof(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol, 4096) as (transport, peer):
            assert transport.can_write_eof()
            transport.write(b"x" * 300_000)
            transport.write_eof()
            transport.write_eof()
            assert not transport.is_closing()
            assert await peer.end() == "fin"
            assert len(peer.received) == 300_000
            # The other direction still works.
            assert peer.send(b"heard") == 5
            await until(lambda: protocol.data() == b"heard")
            assert not transport.is_closing()

    setting.run(main)


def reset(peer: Peer) -> None:
    """End the peer's side as a process that is killed does."""
    linger = struct.pack("ii", 1, 0)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    peer.sock.close()


def test_reset_by_the_peer(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            transport.write(b"unread by the peer")
            await turns()
            reset(peer)
            await until(protocol.lost)
            assert protocol.events == [("made",), ("lost", ConnectionResetError)]
            transport.write(b"x")
            if setting.ours:
                # asyncio's own fails here in 3.12 and 3.13.
                transport.writelines([b"x"])

    setting.run(main)
    assert setting.reports == []


def test_writing_to_a_peer_that_is_gone(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder(keep_open=True)
        async with setting.link(protocol) as (transport, peer):
            peer.sock.close()
            await until(lambda: ("eof",) in protocol.events)
            while not transport.is_closing():
                transport.write(b"x")
                await asyncio.sleep(0)
            await until(protocol.lost)
            assert protocol.events[:2] == [("made",), ("eof",)]
            assert protocol.events[2][0] == "lost"
            assert issubclass(protocol.events[2][1], BrokenPipeError)

    setting.run(main)
    assert setting.reports == []


def test_output_that_waits_when_the_peer_goes(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder(keep_open=True)
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.write(b"x" * 500_000)
            assert transport.get_write_buffer_size() > 0
            reset(peer)
            await until(protocol.lost)
            assert issubclass(protocol.events[-1][1], ConnectionError)
            assert transport.get_write_buffer_size() == 0

    setting.run(main)
    assert setting.reports == []


def test_writes_to_a_lost_connection_are_logged(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with setting.link(Recorder()) as (transport, _):
            transport.abort()
            for count in range(8):
                transport.write(b"")
                transport.write(b"x")
                assert len(caplog.records) == max(0, count - 3)

    setting.run(main)
    assert {record.getMessage() for record in caplog.records} == {"socket.send() raised exception."}
    assert {record.name for record in caplog.records} == {"asyncio"}


def test_close_sends_what_waits(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.write(b"x" * 500_000)
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert not transport.is_reading()
            await turns()
            assert not protocol.lost()
            transport.write(b"y")
            assert await peer.receive(500_001) == b"x" * 500_000 + b"y"
            await until(protocol.lost)
            assert protocol.events == [("made",), ("pause",), ("resume",), ("lost", None)]
            assert await peer.end() == "fin"

    setting.run(main)
    assert setting.reports == []


def test_nothing_is_heard_after_close(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.write(b"x" * 500_000)
            transport.close()
            assert peer.send(b"not heard") == 9
            await turns()
            assert protocol.events == [("made",), ("pause",)]

    setting.run(main)
    assert setting.reports == []


def test_nothing_more_is_heard_after_close_within_a_callback(setting: Setting) -> None:
    """Although more is there, and the connection stays open for what waits to be sent."""

    async def main() -> None:
        protocol = Buffered(2)
        async with setting.link(protocol, 4096) as (transport, peer):

            def close(event: Any) -> None:
                if event[0] == "data":
                    transport.write(b"x" * 500_000)
                    transport.close()

            protocol.react = close
            assert peer.send(b"abcdef") == 6
            await until(protocol.data)
            await turns()
            assert protocol.events == [("made",), ("data", b"ab"), ("pause",)]

    setting.run(main)
    assert setting.reports == []


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("unread", [False, True])
def test_what_the_peer_sees_of_the_end(setting: Setting, end: str, unread: bool) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            transport.write(b"last words")
            await peer.receive(10)
            if unread:
                transport.pause_reading()
                # It lies in the kernel: read ahead from a Unix socket it could not be unread.
                peer.send(b"unread")
                if setting.family == "tcp":
                    await turns()
            getattr(transport, end)()
            assert protocol.events == [("made",)]
            await until(protocol.lost)
            assert protocol.events == [("made",), ("lost", None)]
            assert await peer.end() == ("reset" if unread else "fin")

    setting.run(main)
    assert setting.reports == []


def test_abort_drops_what_waits(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol, 4096) as (transport, peer):
            transport.write(b"x" * 500_000)
            transport.close()
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await until(protocol.lost)
            assert protocol.events == [("made",), ("pause",), ("lost", None)]
            assert await peer.end() == "fin"
            assert len(peer.received) < 500_000

    setting.run(main)


def test_closed_transports_are_quiet(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, _):
            transport.close()
            await until(protocol.lost)
            events = list(protocol.events)
            transport.close()
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()
            transport.write_eof()
            transport.write(b"")
            transport.set_write_buffer_limits(5)
            assert transport.get_write_buffer_size() == 0
            assert transport.get_write_buffer_limits() == (1, 5)
            assert transport.is_closing()
            assert not transport.is_reading()
            assert transport.get_protocol() is None
            assert transport.get_extra_info("socket").fileno() == -1
            assert "closed" in repr(transport)
            await turns()
            assert protocol.events == events

    setting.run(main)
    assert setting.reports == []


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 100_000])
def test_buffered_protocols(setting: Setting, size: int) -> None:
    async def main() -> None:
        protocol = Buffered(size)
        async with setting.link(protocol) as (_, peer):
            data = bytes(i % 251 for i in range(20_000))
            assert peer.send(data) == 20_000
            await until(lambda: len(protocol.data()) == 20_000)
            assert protocol.data() == data
            assert peer.send(b"last") == 4
            peer.sock.shutdown(socket.SHUT_WR)
            await until(protocol.lost)
            assert protocol.events == [
                ("made",),
                ("data", data + b"last"),
                ("eof",),
                ("lost", None),
            ]

    setting.run(main)
    assert setting.reports == []


def test_set_protocol_in_mid_stream(setting: Setting) -> None:
    async def main() -> None:
        first = Recorder()
        others = [Buffered(3, first.events), Recorder(first.events), Buffered(9000, first.events)]
        async with setting.link(first) as (transport, peer):
            assert transport.get_protocol() is first
            expected = b""
            for other in others:
                data = bytes(range(200))
                # Half of a small buffer's worth is under way when the protocol is changed.
                assert peer.send(data) == 200
                expected += data
                await asyncio.sleep(0)
                transport.set_protocol(other)
                assert transport.get_protocol() is other
                await until(lambda expected=expected: first.data() == expected)
            peer.sock.shutdown(socket.SHUT_WR)
            await until(first.lost)
            assert first.events == [("made",), ("data", expected), ("eof",), ("lost", None)]

    setting.run(main)
    assert setting.reports == []


def test_set_protocol_within_a_callback(setting: Setting) -> None:
    async def main() -> None:
        first = Buffered(2)
        second = Recorder(first.events)
        async with setting.link(first) as (transport, peer):
            first.react = lambda event: transport.set_protocol(second)
            assert peer.send(b"abcdef") == 6
            await until(lambda: first.data() == b"abcdef")

    setting.run(main)


def failing(base: type[Any], callback: str, error: BaseException, *args: Any) -> Any:
    """A protocol one of whose callbacks raises."""

    def fail(*args: Any) -> None:
        raise error

    protocol = base(*args)
    setattr(protocol, callback, fail)
    return protocol


@pytest.mark.parametrize("error", [LookupError(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize(
    "callback", ["data_received", "eof_received", "get_buffer", "buffer_updated"]
)
def test_callbacks_that_raise(setting: Setting, callback: str, error: BaseException) -> None:
    async def main() -> None:
        if "buffer" in callback:
            protocol = failing(Buffered, callback, error, 10)
        else:
            protocol = failing(Recorder, callback, error)
        async with setting.link(protocol) as (_, peer):
            if callback == "eof_received":
                peer.sock.shutdown(socket.SHUT_WR)
            else:
                peer.send(b"x")
            await until(protocol.lost)
            assert protocol.events == [("made",), ("lost", type(error))]

    setting.run(main)
    assert setting.reports == [(f"Fatal error: protocol.{callback}() call failed.", type(error))]


def test_callbacks_that_raise_oserror_are_no_news(setting: Setting) -> None:
    async def main() -> None:
        protocol = failing(Recorder, "data_received", FileNotFoundError())
        async with setting.link(protocol) as (_, peer):
            peer.send(b"x")
            await until(protocol.lost)
            assert protocol.events == [("made",), ("lost", FileNotFoundError)]

    setting.run(main)
    assert setting.reports == []


@pytest.mark.parametrize("buffer", [b"", 7, b"not writable", None])
def test_wrong_buffers(setting: Setting, buffer: Any) -> None:
    class Wrong(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            return buffer

    async def main() -> None:
        protocol = Wrong(1)
        async with setting.link(protocol) as (_, peer):
            peer.send(b"x")
            await until(protocol.lost)
            kind = RuntimeError if buffer == b"" else protocol.events[-1][1]
            assert protocol.events == [("made",), ("lost", kind)]

    setting.run(main)
    message = (
        "Fatal read error on socket transport"
        if buffer == b"not writable"
        else "Fatal error: protocol.get_buffer() call failed."
    )
    assert [report[0] for report in setting.reports] == [message]


@pytest.mark.parametrize("callback", ["data_received", "eof_received", "connection_lost"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_leave_the_loop(
    setting: Setting, callback: str, error: type[BaseException]
) -> None:
    sock, peer = pair(setting.family)
    protocol = failing(Recorder, callback, error())
    made: list[Any] = []

    async def begin() -> None:
        made.append(await attach(setting.ours, sock, protocol))
        peer.send(b"x")
        if callback != "data_received":
            peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(3600)

    async def end() -> None:
        transport = made.pop()
        if callback != "connection_lost":
            assert not transport.is_closing()
            # It goes on, if the loop does.
            del protocol.__dict__[callback]
            if callback == "data_received":
                peer.send(b"y")
                await until(lambda: protocol.data() == b"y")
        transport.abort()
        await until(lambda: sock.fileno() < 0)
        await turns()

    loop = setting._factory()
    with peer:
        with pytest.raises(error):
            loop.run_until_complete(begin())
        loop.run_until_complete(end())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert setting.reports == []


def test_connection_lost_that_raises(setting: Setting) -> None:
    async def main() -> None:
        protocol = failing(Recorder, "connection_lost", LookupError())
        sock, peer = pair(setting.family)
        with peer:
            transport = await attach(setting.ours, sock, protocol)
            transport.close()
            await until(lambda: sock.fileno() < 0)
            assert transport.get_protocol() is None
            await turns()

    setting.run(main)
    assert [report[1] for report in setting.reports] == [LookupError]


def test_abort_within_a_callback(setting: Setting) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            protocol.react = lambda event: event[0] == "data" and transport.abort()
            peer.send(b"first")
            await until(protocol.lost)
            assert protocol.events == [("made",), ("data", b"first"), ("lost", None)]

    setting.run(main)


def test_debug_mode(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asyncio")

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            caplog.clear()
            transport.pause_reading()
            transport.resume_reading()
            peer.sock.shutdown(socket.SHUT_WR)
            await until(protocol.lost)
        protocol = Recorder()
        async with setting.link(protocol) as (transport, peer):
            transport.write(b"unread")
            await turns()
            reset(peer)
            await until(protocol.lost)

    setting.run(main)
    said = [record for record in caplog.records if str(record.msg).startswith("%r")]
    said = [record for record in said if "handled" not in record.msg]
    assert [record.msg for record in said] == [
        "%r pauses reading",
        "%r resumes reading",
        "%r received EOF",
        "%r: %s",
    ]
    assert said[3].args is not None
    assert said[3].args[1] == "Fatal read error on socket transport"
    assert said[3].exc_info is not None
    assert said[3].exc_info[0] is ConnectionResetError


def test_extra_info(setting: Setting) -> None:
    async def main() -> None:
        async with setting.link(Recorder()) as (transport, _):
            sock = transport.get_extra_info("socket")
            assert type(sock) is asyncio.trsock.TransportSocket
            assert sock.fileno() >= 0
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 7) == 7
            if setting.ours:
                assert transport.get_extra_info("answer") == 42

    setting.run(main)


def test_start_tls_and_sendfile_are_refused(run_async: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder()
        async with link(True, "tcp", protocol) as (transport, peer):
            context = ssl.create_default_context()
            with pytest.raises(TypeError, match=r"is not supported by start_tls|expected"):
                await loop.start_tls(transport, protocol, context, server_hostname="x")
            with tempfile.TemporaryFile() as file:
                file.write(b"x")
                # uvloop has no sendfile at all.
                with pytest.raises((RuntimeError, NotImplementedError)):
                    await loop.sendfile(transport, file)
            transport.write(b"still works")
            assert await peer.receive(11) == b"still works"

    run_async(main)


def test_it_is_an_asyncio_transport(run_async: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with link(True, "unix", protocol) as (transport, _):
            assert isinstance(transport, asyncio.Transport)
            assert type(transport) is _core.Transport
            assert weakref.ref(transport)() is transport
            assert repr(transport).startswith("<Transport fd=")
            assert "read=polling write=<idle, bufsize=0>>" in repr(transport)
            assert not hasattr(transport, "__dict__")
            assert type(transport).__doc__

    run_async(main)


def test_subclasses(run_async: Any) -> None:
    class Mine(_core.Transport):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.note = "mine"

    class Slotted(_core.Transport):
        __slots__ = ("note",)

    async def main() -> None:
        for make in (Mine, Slotted):
            protocol = Recorder()
            sock, peer_sock = pair("unix")
            with peer_sock:
                transport = guarded_transport(sock, protocol, make=make)
                transport.note = "mine"  # type: ignore[attr-defined]
                protocol.connection_made(transport)
                peer_sock.send(b"hello")
                await until(lambda protocol=protocol: protocol.data() == b"hello")
                assert repr(transport).startswith(f"<{make.__name__} fd=")
                alive = weakref.ref(transport)
                transport.close()
                await until(protocol.lost)
                del transport, protocol
                await until(lambda alive=alive: gc.collect() >= 0 and alive() is None)

    run_async(main)


def test_received_before(run_async: Any) -> None:
    """Bytes that the original transport had read come first, in a callback of their own."""

    async def main() -> None:
        protocol = Recorder()
        sock, peer = pair("unix")
        with peer:
            peer.send(b" and after")
            transport = guarded_transport(sock, protocol, received=b"before")
            protocol.connection_made(transport)
            assert protocol.data() == b""
            await until(lambda: protocol.data() == b"before and after")
            transport.abort()
            await until(protocol.lost)

    run_async(main)


def test_received_before_waits_for_resume_reading(run_async: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        sock, peer = pair("unix")
        with peer:
            transport = guarded_transport(sock, protocol, received=b"x" * 50_000)
            protocol.connection_made(transport)
            transport.pause_reading()
            await turns()
            assert protocol.data() == b""
            transport.resume_reading()
            await until(lambda: protocol.data() == b"x" * 50_000)
            transport.abort()
            await until(protocol.lost)

    run_async(main)


def test_wrong_constructors(run_async: Any) -> None:
    async def main() -> None:
        sock, peer = pair("unix")
        with sock, peer:
            protocol = Recorder()
            for wrong, error in [
                ({"role": "both"}, ValueError),
                ({"role": 7}, TypeError),
                ({"read_ahead": None}, TypeError),
                ({"read_ahead_each": -1}, TypeError),
                ({"received": "text"}, TypeError),
                ({"received": b"x" * 2**23}, MemoryError),
            ]:
                with pytest.raises(error):
                    guarded_transport(sock, protocol, **wrong)
            with pytest.raises(TypeError):
                _core.Transport(asyncio.get_running_loop(), sock, protocol, {})  # type: ignore[call-arg]
            with pytest.raises(AttributeError):
                guarded_transport(7, protocol)  # type: ignore[arg-type]
            closed, other = pair("unix")
            closed.close()
            other.close()
            with pytest.raises(ValueError, match="the socket is closed"):
                guarded_transport(closed, protocol)
            # The socket is still the caller's.
            peer.send(b"x")
            assert sock.recv(1) == b"x"
            with pytest.raises(OverflowError):
                _core.ReadAhead(2**64)
            with pytest.raises(ValueError, match="negative"):
                _core.ReadAhead(-1)

    run_async(main)


def test_a_transport_is_made_only_once(run_async: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        async with link(True, "unix", protocol) as (transport, peer):
            with pytest.raises(RuntimeError, match="made only once"):
                transport.__init__()
            peer.send(b"works")
            await until(lambda: protocol.data() == b"works")

    run_async(main)


def test_a_transport_that_was_never_made() -> None:
    transport = _core.Transport.__new__(_core.Transport)
    assert transport.is_closing()
    transport.close()
    transport.abort()
    transport.pause_reading()
    transport.resume_reading()
    transport.write(b"x")
    transport.write_eof()
    transport.set_write_buffer_limits()
    transport.set_protocol(Recorder())
    assert transport.get_write_buffer_size() == 0
    assert transport._counts()["state"] == "retired"
    assert transport._take_notes() == ([], 0)
    transport._set_pings(1, 1)
    with pytest.raises(RuntimeError, match="closing"):
        transport._start(
            rsv1=False,
            max_message=None,
            max_fragment=None,
            ping_interval=None,
            ping_timeout=None,
            max_stall=1,
            log=False,
            on_dead=int,
        )
    assert repr(transport) == "<Transport closed fd=-1>"


def test_a_closed_loop_is_no_place(loop_factory: Factory) -> None:
    sock, peer = pair("unix")
    loop = loop_factory()
    loop.close()
    with sock, peer:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="closed"):
                _core.Transport(
                    loop,
                    sock,
                    Recorder(),
                    {},
                    role="client",
                    at_upgrade=False,
                    received=b"",
                    read_ahead=_core.ReadAhead(0),
                    read_ahead_each=0,
                )
        peer.send(b"x")
        assert sock.recv(1) == b"x"


def drop(protocol: Recorder, kept: list[Any]) -> None:
    """Forget the transport, which was all that `kept` held."""
    protocol.transport = None
    kept.clear()
    gc.collect()


def test_unclosed_transports_warn(setting: Setting) -> None:
    sock, peer = pair(setting.family)
    protocol = Recorder()

    async def main() -> Any:
        return await attach(setting.ours, sock, protocol)

    loop = setting._factory()
    with peer:
        kept = [loop.run_until_complete(main())]
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed transport <.*Transport"):
            drop(protocol, kept)
        assert sock.fileno() < 0
        assert protocol.events == [("made",)]
        peer.setblocking(True)
        assert peer.recv(1) == b""


def test_an_abandoned_cycle_is_collected(run_async: Any) -> None:
    """A connection whose reader is gone holds nothing alive but itself."""

    async def main() -> None:
        protocol = Recorder(keep_open=True)
        sock, peer = pair("unix")
        with peer:
            transport: Any = guarded_transport(sock, protocol)
            protocol.connection_made(transport)
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: ("eof",) in protocol.events)
            await turns()
            alive = weakref.ref(transport)
            kept = [transport]
            del transport
            with pytest.warns(ResourceWarning, match="unclosed transport"):
                drop(protocol, kept)
            assert alive() is None
            assert sock.fileno() < 0
            assert peer.recv(1) == b""

    run_async(main)


def test_a_subclass_with_a_del_of_its_own(run_async: Any) -> None:
    """Whatever it does there, the socket is given back."""
    gone: list[str] = []

    class Mine(_core.Transport):
        def __del__(self) -> None:
            gone.append("del")

    async def main() -> None:
        protocol = Recorder(keep_open=True)
        sock, peer = pair("unix")
        with peer:
            transport: Any = guarded_transport(sock, protocol, make=Mine)
            protocol.connection_made(transport)
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: ("eof",) in protocol.events)
            await turns()
            kept = [transport]
            del transport
            drop(protocol, kept)
            assert gone == ["del"]
            assert sock.fileno() < 0

    run_async(main)


def test_read_ahead_is_given_back(run_async: Any) -> None:
    async def main() -> None:
        ahead = _core.ReadAhead(2**20)
        assert ahead.lent == 0
        protocol = Recorder()
        sock, peer = pair("unix")
        with peer:
            transport = guarded_transport(sock, protocol, read_ahead=ahead)
            protocol.connection_made(transport)
            transport.pause_reading()
            peer.send(b"x" * 20_000)
            await until(lambda: transport._counts()["inbox"] == 20_000)
            assert 20_000 <= ahead.lent < 40_000
            transport.abort()
            await until(protocol.lost)
            assert ahead.lent == 0
            assert transport._counts()["inbox"] == 0

    run_async(main)
