"""The peer of the guard's tests: raw WebSocket connections, many in one process, on plain sockets.

It parses and judges every byte itself and can misbehave in each way that the tests need. Standard
library only. Each line of its standard input is a call, `["method", {arguments}]`, of a method of
`Peer`; each line of its standard output an answer. It ends with its input.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import selectors
import socket
import struct
import sys
import traceback
from typing import Any

from peer_connection import Connection, Timers
from peer_frames import CLOSE, PING


class Peer:
    """What a test can call; `ids` are the connections that it means."""

    def __init__(self) -> None:
        self.timers = Timers()
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._watched: dict[int, int] = {}
        self._listeners: list[socket.socket] = []
        self._numbers = itertools.count(1)
        self._random = random.Random(4)
        self._waiting = b""

    # For the connections.

    def number(self) -> int:
        return next(self._numbers)

    def watch(self, connection: Connection, events: int) -> None:
        before = self._watched.pop(connection.id, 0)
        if events:
            self._watched[connection.id] = events
        if before and events and before != events:
            self._selector.modify(connection.sock, events, connection.ready)
        elif before and not events:
            self._selector.unregister(connection.sock)
        elif events and not before:
            self._selector.register(connection.sock, events, connection.ready)

    def _add(self, sock: socket.socket, options: dict[str, Any]) -> Connection:
        sock.setblocking(False)
        id_ = len(self._connections)
        connection = self._connections[id_] = Connection(self, sock, id_, options)
        return connection

    def _of(self, ids: list[int]) -> list[Connection]:
        return [self._connections[id_] for id_ in ids]

    # For the test.

    def connect(self, port: int, count: int, path: str, **options: Any) -> list[int]:
        """Open connections to a server of this machine, each with `?id` at its path's end."""
        ids = []
        for _ in range(count):
            sock = socket.socket()
            if "rcvbuf" in options:
                # It sets the window, so it must be known before the connection is made.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["rcvbuf"])
            sock.connect(("127.0.0.1", port))
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._add(sock, options | {"client": True})
            connection.ask(f"{path}?{connection.id}")
            ids.append(connection.id)
        return ids

    def listen(self, **options: Any) -> int:
        """Serve with these options; returns the port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listeners.append(listener)

        def accept(_: int) -> None:
            sock, _address = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._add(sock, options | {"client": False})

        self._selector.register(listener, selectors.EVENT_READ, accept)
        port: int = listener.getsockname()[1]
        return port

    def ids(self) -> list[int]:
        return list(self._connections)

    def look(self, ids: list[int]) -> list[dict[str, Any]]:
        return [connection.look() for connection in self._of(ids)]

    def report(self, ids: list[int]) -> list[dict[str, Any]]:
        return [connection.report() for connection in self._of(ids)]

    def set(self, ids: list[int], **options: Any) -> None:
        for connection in self._of(ids):
            connection.set(options)

    def silence(self, ids: list[int]) -> None:
        """Send nothing any more, read on."""
        self.set(ids, ping_every=0.0, answer_pings=False, answer_close=False)

    def send(
        self,
        ids: list[int],
        count: int,
        size: int,
        fragments: int = 1,
        pings: int = 0,
        text: bool = False,
    ) -> None:
        """Send messages; that many Pings after each fragment, which is between two of them."""
        for connection in self._of(ids):
            for _ in range(count):
                payload = self._random.randbytes(size)
                if text:
                    payload = payload.hex()[:size].encode()
                for frame in connection.outgoing.frames(text, payload, fragments):
                    connection.put(frame, *(connection.ping() for _ in range(pings)))

    def ping(self, ids: list[int], count: int = 1, payload: str = "") -> None:
        """Send Pings in one write."""
        for connection in self._of(ids):
            pings = [connection.ping(bytes.fromhex(payload)) for _ in range(count)]
            connection.put(b"".join(pings))

    def close(self, ids: list[int], code: int = 1000, then_ping: bool = False) -> None:
        """Start the closing handshake; with a Ping behind it, in the same segment."""
        for connection in self._of(ids):
            close = connection.outgoing.control(CLOSE, code.to_bytes(2))
            ping = connection.outgoing.control(PING, b"behind Close") if then_ping else b""
            connection.sent_close = True
            connection.put(close + ping)

    def raw(self, ids: list[int], data: str) -> None:
        for connection in self._of(ids):
            connection.put(bytes.fromhex(data))

    def fin(self, ids: list[int]) -> None:
        for connection in self._of(ids):
            connection.sock.shutdown(socket.SHUT_WR)

    def rst(self, ids: list[int]) -> None:
        for connection in self._of(ids):
            if connection.end is not None:
                continue
            linger = struct.pack("ii", 1, 0)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.ended("our RST")

    def accept(self, ids: list[int]) -> None:
        """Accept the handshakes that wait."""
        for connection in self._of(ids):
            connection.accept_handshake()

    def drop(self, ids: list[int]) -> None:
        """close(2) of the socket."""
        for connection in self._of(ids):
            if connection.end is None:
                connection.ended("dropped")

    def request(self, port: int, data: str) -> int:
        """Connect and send these bytes; the connection's id."""
        sock = socket.create_connection(("127.0.0.1", port))
        connection = self._add(sock, {"client": True})
        connection.put(data.encode())
        return connection.id

    # The loop.

    def _calls(self, _: int) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            sys.exit()
        self._waiting += data
        *lines, self._waiting = self._waiting.split(b"\n")
        for line in lines:
            method, arguments = json.loads(line)
            try:
                answer = {"answer": getattr(self, method)(**arguments)}
            except Exception:
                answer = {"failed": traceback.format_exc()}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    def run(self) -> None:
        self._selector.register(0, selectors.EVENT_READ, self._calls)
        try:
            while True:
                for key, events in self._selector.select(self.timers.wait()):
                    key.data(events)
                self.timers.run()
        finally:
            self._selector.close()
            for listener in self._listeners:
                listener.close()
            for connection in self._connections.values():
                connection.sock.close()


if __name__ == "__main__":
    Peer().run()
