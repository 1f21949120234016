"""Connections for the tests of the transport: asyncio's own or ours on one side, a plain socket on
the other, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

from conftest import until

from wsoffload import _core

Factory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
Event: TypeAlias = tuple[Any, ...]

#: One page of a small read-ahead is enough for what these tests leave unread.
READ_AHEAD = 2**20


class _Recording:
    """What both kinds of protocol do: note each callback, in order, and then what a test wants."""

    def __init__(self, events: list[Event] | None = None, keep_open: bool = False) -> None:
        self.events: list[Event] = [] if events is None else events
        self.keep_open = keep_open
        #: Called with each event right after it was noted.
        self.react: Callable[[Event], object] = lambda event: None
        self.transport: Any = None

    def note(self, *event: Any) -> None:
        last = self.events[-1] if self.events else ()
        if event[0] == "data" == (last or (None,))[0]:
            # How a stream is cut is nobody's promise.
            self.events[-1] = ("data", last[1] + event[1])
        else:
            self.events.append(event)
        self.react(event)

    def data(self) -> bytes:
        return b"".join(event[1] for event in self.events if event[0] == "data")

    def lost(self) -> bool:
        return any(event[0] == "lost" for event in self.events)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost", None if exc is None else type(exc))

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")


class Recorder(_Recording, asyncio.Protocol):
    """A protocol that takes what comes."""

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        self.note("data", data)


class Buffered(_Recording, asyncio.BufferedProtocol):
    """A protocol with a buffer of its own."""

    def __init__(
        self, size: int, events: list[Event] | None = None, keep_open: bool = False
    ) -> None:
        super().__init__(events, keep_open)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.buffer)
        self.note("data", bytes(self.buffer[:nbytes]))


def pair(family: str, sndbuf: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, neither of which blocks; ours first."""
    if family == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
    if sndbuf is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        # A smaller window is opened only after delayed acknowledgements.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


def guarded_transport(
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    received: bytes = b"",
    make: type[_core.Transport] = _core.Transport,
    **options: Any,
) -> _core.Transport:
    """A transport of ours, without its connection_made."""
    loop = asyncio.get_running_loop()
    settings: dict[str, Any] = {
        "role": "server",
        "at_upgrade": True,
        "read_ahead": _core.ReadAhead(2**22),
        "read_ahead_each": READ_AHEAD,
    } | options
    return make(loop, sock, protocol, {"answer": 42}, received=received, **settings)


async def attach(ours: bool, sock: socket.socket, protocol: Any) -> Any:
    """A transport of ours or of the loop's own, with its protocol connected."""
    if ours:
        transport = guarded_transport(sock, protocol)
        protocol.connection_made(transport)
    else:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    await asyncio.sleep(0)
    return transport


class Peer:
    """The other side: a plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        #: How the stream ended: "fin", "reset", or "" while it has not.
        self.ended = ""

    def send(self, data: bytes) -> int:
        if self.sock.fileno() < 0:
            return 0
        try:
            return self.sock.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, ConnectionError):
            return 0

    def take(self, size: int = 2**20) -> bool:
        """Receive once; whether anything was there."""
        if self.ended or self.sock.fileno() < 0:
            return False
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.ended = "reset"
            return True
        self.received += data
        if not data:
            self.ended = "fin"
        return True

    async def receive(self, size: int) -> bytes:
        """Receive until this many bytes have come in all."""
        await until(lambda: (self.take(), len(self.received) >= size)[1])
        assert len(self.received) == size
        return bytes(self.received)

    async def end(self) -> str:
        """Receive to the end, and say how it ended."""
        await until(lambda: (self.take(), self.ended)[1])
        return self.ended


@contextlib.asynccontextmanager
async def link(
    ours: bool, family: str, protocol: Any, sndbuf: int | None = None
) -> AsyncIterator[tuple[Any, Peer]]:
    """A connection that is gone afterwards: connection_lost has come, exactly once."""
    sock, peer_sock = pair(family, sndbuf)
    events = protocol.events
    with peer_sock:
        transport = await attach(ours, sock, protocol)
        try:
            yield transport, Peer(peer_sock)
        finally:
            # asyncio's own abort() fails once a close() is over that had something to send.
            if not any(event[0] == "lost" for event in events):
                transport.abort()
            await until(lambda: any(event[0] == "lost" for event in events))
            # A second one would come in the next turn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [event[0] for event in events].count("lost") == 1
            assert sock.fileno() < 0


async def turns(count: int = 10) -> None:
    """Let the loop turn this often: enough for all that is due without waiting for anybody."""
    for _ in range(count):
        await asyncio.sleep(0)
