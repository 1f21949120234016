"""One raw WebSocket connection of the tests' peer: what it does, and what it saw (see peer.py)."""

from __future__ import annotations

import errno
import heapq
import itertools
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peer_frames import (
    CLOSE,
    PING,
    PONG,
    Frame,
    FrameParser,
    MessageParser,
    MessageWriter,
    ViolationError,
    accept_of,
)

if TYPE_CHECKING:
    from peer import Peer

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Timers:
    """Calls that are due later."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time.monotonic() + delay, next(self._order), call))

    def wait(self) -> float | None:
        """Seconds until the next is due; None if there is none."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def run(self) -> None:
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()


class Connection:
    """One connection: what it does is in its options, what it saw in its report."""

    def __init__(self, peer: Peer, sock: socket.socket, id_: int, options: dict[str, Any]) -> None:
        self.peer = peer
        self.sock = sock
        self.id = id_
        self.client = options["client"]
        # Options, all of which can be changed on the way.
        self.read_size = 1 << 16  # bytes at a time; 0: reads nothing
        self.read_every = 0.0  # seconds between two reads
        self.write_size = 1 << 20  # bytes at a time
        self.write_every = 0.0
        self.ping_every = 0.0  # 0: never by itself
        self.answer_pings = True
        self.answer_close = True
        self.in_order = True  # each Ping gets its Pong; else only some do, in order (5.5.3)
        self.accept = ""  # as a server: another Sec-WebSocket-Accept than the right one
        self.behind_head = ""  # hex: bytes in the segment of our HTTP head
        self.deflate = False
        self.waits = False  # as a server: accepts the handshake when it is told to
        # What happens.
        self.state = "connecting"
        self.head = b""
        self.path = ""
        self.out: deque[memoryview] = deque()
        self.may_read = True
        self.may_write = True
        self.pinging = False
        self.pings: deque[tuple[bytes, float]] = deque()
        self.pongs: list[tuple[float, float]] = []
        self.pinged: list[float] = []
        self.pinged_with: deque[str] = deque(maxlen=100)
        self.keys: set[bytes] = set()
        self.keys_repeated = 0
        self.close: tuple[int, str, float] | None = None
        self.sent_close = False
        self.end: tuple[str, float] | None = None
        self.errors: list[str] = []
        self.received = 0
        self.sent = 0
        self.tail = b""  # what came last, before the end
        self.incoming = MessageParser()
        self.outgoing = MessageWriter(masked=self.client)
        self.parser = FrameParser(masked=not self.client, deflate=False)
        self.set(options)

    def set(self, options: dict[str, Any]) -> None:
        for name, value in options.items():
            if name in ("rcvbuf", "sndbuf"):
                option = socket.SO_RCVBUF if name == "rcvbuf" else socket.SO_SNDBUF
                self.sock.setsockopt(socket.SOL_SOCKET, option, value)
            elif name != "client":
                assert hasattr(self, name), name
                setattr(self, name, value)
        self._ping_on()
        self.watch()

    # The socket.

    def watch(self) -> None:
        events = 0
        if self.end is None:
            events |= selectors.EVENT_READ * (self.may_read and self.read_size > 0)
            waits = bool(self.out) or self.state == "connecting"
            events |= selectors.EVENT_WRITE * (self.may_write and waits)
        self.peer.watch(self, events)

    def ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE and self.end is None:
            self._write()
        if events & selectors.EVENT_READ and self.end is None and self.read_size:
            self._read()
        self.watch()

    def _write(self) -> None:
        room = self.write_size
        while self.out and room:
            piece = self.out.popleft()
            try:
                size = self.sock.send(piece[:room])
            except BlockingIOError:
                size = 0
            except OSError as error:
                # What the kernel still holds for us is read first; reading then tells the end.
                self.out.clear()
                self.errors += (
                    [] if error.errno in (errno.EPIPE, errno.ECONNRESET) else [repr(error)]
                )
                return
            self.sent += size
            room -= size
            if size < len(piece):
                self.out.appendleft(piece[size:])
                break
        if not self.client and self.sent_close and self.close and not self.out:
            # The server ends the connection first (7.1.1).
            self.ended("ours")
        elif self.write_every:
            self.may_write = False
            self.peer.timers.later(self.write_every, self._may_write)

    def _may_write(self) -> None:
        self.may_write = True
        self.watch()

    def _may_read(self) -> None:
        self.may_read = True
        self.watch()

    def _read(self) -> None:
        try:
            data = self.sock.recv(self.read_size)
        except BlockingIOError:
            return
        except OSError as error:
            self.ended(errno.errorcode[error.errno or 0])
            return
        if self.read_every:
            self.may_read = False
            self.peer.timers.later(self.read_every, self._may_read)
        if not data:
            self.ended("EOF")
            return
        self.received += len(data)
        self.tail = (self.tail + data)[-256:]
        try:
            self._feed(data)
        except ViolationError as error:
            self.errors.append(str(error))
            self.read_size = 0

    def ended(self, how: str) -> None:
        self.end = (how, time.monotonic())
        if self.state == "open" and not self.parser.between_frames():
            self.errors.append("the end came within a frame")
        self.state = "closed"
        self.watch()
        self.sock.close()

    def put(self, *pieces: bytes) -> None:
        self.out.extend(map(memoryview, pieces))
        self.watch()

    # The protocol.

    def _feed(self, data: bytes) -> None:
        if self.state == "connecting":
            self.head += data
            head, found, data = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            self.head = head
            if self.client and not head.startswith(b"HTTP/1.1 101 "):
                self.state = "refused"
            elif self.client:
                self._open(head)
            else:
                self.path = head.split(b" ", 2)[1].decode()
                if not self.waits:
                    self.accept_handshake()
        if self.state == "open":
            for frame in self.parser.feed(data):
                self._frame(frame)

    def _open(self, head: bytes) -> None:
        if f"sec-websocket-accept: {accept_of(_KEY)}".encode().lower() not in head.lower():
            self.errors.append("Sec-WebSocket-Accept")
        self._opened(b"permessage-deflate" in head)

    def accept_handshake(self) -> None:
        head = self.head
        lines = head.decode().split("\r\n")
        key = next(
            line[18:].strip() for line in lines if line.lower().startswith("sec-websocket-key")
        )
        deflate = self.deflate and "permessage-deflate" in head.decode()
        self.put(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + b"Sec-WebSocket-Extensions: permessage-deflate\r\n" * deflate
            + f"Sec-WebSocket-Accept: {self.accept or accept_of(key)}\r\n\r\n".encode()
            + bytes.fromhex(self.behind_head)
        )
        self._opened(deflate)

    def ask(self, path: str) -> None:
        """Send the request of a client."""
        offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" * self.deflate
        self.path = path
        self.put(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n"
            f"{offer}\r\n".encode()
            + bytes.fromhex(self.behind_head)
        )

    def _opened(self, deflate: bool) -> None:
        self.outgoing.deflate = deflate
        self.parser = FrameParser(masked=not self.client, deflate=deflate)
        self.state = "open"
        self._ping_on()

    def _frame(self, frame: Frame) -> None:
        if frame.key:
            self.keys_repeated += frame.key in self.keys
            self.keys.add(frame.key)
        if frame.opcode == PONG:
            self._pong(frame.payload)
        elif frame.opcode == PING:
            self.pinged.append(time.monotonic())
            self.pinged_with.append(frame.payload.hex())
            if self.answer_pings and not self.sent_close:
                self.put(self.outgoing.control(PONG, frame.payload))
        elif frame.opcode == CLOSE:
            code = int.from_bytes(frame.payload[:2]) if frame.payload else 1005
            self.close = (code, frame.payload[2:].decode(), time.monotonic())
            if self.answer_close and not self.sent_close:
                self.put_close(frame.payload)
        else:
            self.incoming.add(frame)

    def _pong(self, payload: bytes) -> None:
        while self.pings and not self.in_order and self.pings[0][0] != payload:
            self.pings.popleft()
        if not self.pings or self.pings[0][0] != payload:
            self.errors.append(f"a Pong that was not due: {payload.hex()}")
            return
        _, sent = self.pings.popleft()
        self.pongs.append((sent, time.monotonic()))

    def ping(self, payload: bytes = b"") -> bytes:
        """A Ping to put; its Pong is waited for."""
        payload = payload or struct.pack("!IQ", self.id, self.peer.number())
        self.pings.append((payload, time.monotonic()))
        return self.outgoing.control(PING, payload)

    def _ping_on(self) -> None:
        if not self.pinging and self.ping_every and self.state == "open":
            self.pinging = True
            self.peer.timers.later(self.ping_every, self._ping_by_time)

    def _ping_by_time(self) -> None:
        self.pinging = False
        if self.ping_every and self.state == "open" and not self.sent_close:
            self.put(self.ping())
            self._ping_on()

    def put_close(self, payload: bytes) -> None:
        self.sent_close = True
        self.put(self.outgoing.control(CLOSE, payload))

    def look(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            "pings": len(self.pongs) + len(self.pings),
            "pongs": len(self.pongs),
            "pinged": len(self.pinged),
            "pinged_with": list(self.pinged_with),
            "messages": self.incoming.messages.count,
            "received": self.received,
            "sent": self.sent,
            "unsent": sum(map(len, self.out)),
            "closed": self.close is not None,
            "end": self.end and self.end[0],
            "errors": self.errors,
        }

    def report(self) -> dict[str, Any]:
        return self.look() | {
            "path": self.path,
            "head": self.head.decode("latin-1"),
            "pongs": self.pongs,
            "unanswered": len(self.pings),
            "pinged": self.pinged,
            "digest": self.incoming.messages.digest,
            "sent_messages": self.outgoing.messages.count,
            "sent_digest": self.outgoing.messages.digest,
            "keys": len(self.keys),
            "keys_repeated": self.keys_repeated,
            "close": self.close,
            "end": self.end,
            "tail": self.tail.hex(),
        }
