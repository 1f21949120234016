"""What the guard costs an echo server that never stalls, beside plain websockets.

    python benchmarks/echo.py [--pairs 20] [--seconds 0.5]

Each pair is one plain and one guarded server, each in a process of its own, measured one after
the other in changing order by the same client; the table shows medians of the ratios within a
pair. A "rate" above 1 means more messages per second through wsoffload.serve, a "cpu" above 1 less
processor time of the server for each message.
"""

import argparse
import asyncio
import contextlib
import json
import os
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import Any

CASES = [(64, 1), (64, 100), (65536, 1), (65536, 100)]
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def serve(kind: str) -> None:
    """The server: echo until standard input ends, and tell its processor time when asked."""
    if kind == "guarded":
        from wsoffload import serve
    else:
        from websockets.asyncio.server import serve  # type: ignore[assignment]

    from websockets.exceptions import ConnectionClosed

    async def echo(websocket: Any) -> None:
        # The client just goes.
        with contextlib.suppress(ConnectionClosed):
            async for message in websocket:
                await websocket.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
        loop = asyncio.get_running_loop()
        asked = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
        while await asked.readline():
            print(json.dumps(time.process_time()), flush=True)


class Server:
    """One echo server in a process of its own."""

    def __init__(self, kind: str, loop: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--server", kind, "--loop", loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port: int = self._line()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds: float = self._line()
        return seconds

    def close(self) -> None:
        """End it, as its standard input ends."""
        self.process.communicate()


def masked(size: int) -> bytes:
    """A binary message of a client's, with a mask that changes nothing."""
    if size < 126:
        head = struct.pack("!BB", 0x82, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x82, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, 0x80 | 127, size)
    return head + bytes(4) + os.urandom(size)


def connect(port: int) -> socket.socket:
    """A connection after its handshake."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(4096)
    return connection


def load(port: int, size: int, connections: int, seconds: float) -> tuple[int, float, list[float]]:
    """Each connection sends its next message when the last came back: messages, seconds, delays."""
    message = masked(size)
    answer_size = len(message) - 4
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, int] = {}
    sent_at: dict[socket.socket, float] = {}
    for _ in range(connections):
        connection = connect(port)
        selector.register(connection, selectors.EVENT_READ)
        left[connection] = answer_size
    delays = []
    begun = time.perf_counter()
    for connection in left:
        sent_at[connection] = time.perf_counter()
        connection.sendall(message)
    ends = begun + seconds
    while time.perf_counter() < ends:
        for key, _ in selector.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            left[connection] -= len(connection.recv(1 << 20))
            if left[connection] == 0:
                now = time.perf_counter()
                delays.append(now - sent_at[connection])
                left[connection] = answer_size
                sent_at[connection] = now
                connection.sendall(message)
    took = time.perf_counter() - begun
    for connection in left:
        connection.close()
    return len(delays), took, delays


def measure(server: Server, case: tuple[int, int], seconds: float) -> dict[str, float]:
    """One run of one case."""
    before = server.cpu()
    count, took, delays = load(server.port, *case, seconds)
    cpu = (server.cpu() - before) / count
    return {"rate": count / took, "cpu": cpu, "p99": statistics.quantiles(delays, n=100)[98]}


def compare(loop: str, pairs: int, seconds: float) -> None:
    """Print one line for each case on this kind of loop."""
    for case in CASES:
        ratios: dict[str, list[float]] = {"rate": [], "cpu": [], "p99": []}
        for pair in range(pairs):
            found = {}
            for kind in ("plain", "guarded")[:: 1 if pair % 2 else -1]:
                server = Server(kind, loop)
                load(server.port, *case, seconds / 5)
                found[kind] = measure(server, case, seconds)
                server.close()
            plain, guarded = found["plain"], found["guarded"]
            ratios["rate"].append(guarded["rate"] / plain["rate"])
            ratios["cpu"].append(plain["cpu"] / guarded["cpu"])
            ratios["p99"].append(guarded["p99"] / plain["p99"])
        cells = [
            f"{name} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            for name, values in ratios.items()
        ]
        print(f"{loop:8}{case[0]:6} B x {case[1]:3}  " + "  ".join(cells), flush=True)


def main() -> None:
    """Measure, or be the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--server", choices=["plain", "guarded"], help=argparse.SUPPRESS)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=None)
    options = parser.parse_args()
    if options.server:
        factory = None
        if options.loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve(options.server))
        return
    for loop in [options.loop] if options.loop else ["asyncio", "uvloop"]:
        compare(loop, options.pairs, options.seconds)


if __name__ == "__main__":
    main()
