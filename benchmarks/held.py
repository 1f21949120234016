"""How a guarded server answers Pings while one C call holds the GIL.

    python benchmarks/held.py [--seconds 60] [--connections 1000]

A server in a process of its own holds the GIL in one C call; each connection is sent a Ping every
second, before and during that call. The exit status is 0 if every Ping was answered.
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from echo import connect

import wsoffload

PONG_SIZE = 10


async def serve(seconds: float) -> None:
    """The server's process: one line on standard input and it holds the GIL."""

    async def idle(websocket: wsoffload.ServerConnection) -> None:
        await websocket.wait_closed()

    async with wsoffload.serve(idle, "127.0.0.1", 0, ping_interval=None) as server:
        print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        threading.Timer(0, ctypes.PyDLL(None).usleep, [int(seconds * 1e6)]).start()
        await asyncio.to_thread(sys.stdin.readline)


def guard_cpu(pid: int) -> float:
    """The processor time of the guard's thread, in seconds."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("wso-guard"):
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    raise RuntimeError("the server has no guard")


class Pinger:
    """Sends each connection a Ping every second and notes when its Pong comes."""

    def __init__(self, connections: list[socket.socket]) -> None:
        self.connections = connections
        self.selector = selectors.DefaultSelector()
        for connection in connections:
            self.selector.register(connection, selectors.EVENT_READ)

    def run(self, seconds: float) -> tuple[int, list[float]]:
        """For this long: how many Pings were sent, and the delays of their Pongs in ms."""
        sent: dict[socket.socket, float] = {}
        delays: list[float] = []
        count = 0
        begun = time.perf_counter()
        rounds = int(seconds)
        total = rounds * len(self.connections)
        # The Pings are spread over each second; the last may take a second more.
        while count < total or (sent and time.perf_counter() < begun + seconds + 1):
            now = time.perf_counter()
            due = min(total, int((now - begun) * len(self.connections)))
            while count < due:
                connection = self.connections[count % len(self.connections)]
                sent[connection] = time.perf_counter()
                connection.sendall(b"\x89\x84" + bytes(4) + struct.pack("!I", count))
                count += 1
            for key, _ in self.selector.select(0.0005):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                got = connection.recv(4096)
                assert got[:2] == b"\x8a\x04", got
                delays.append((time.perf_counter() - sent.pop(connection)) * 1000)
        return count, delays


def describe(what: str, count: int, delays: list[float]) -> None:
    """One line of the answer."""
    cuts = statistics.quantiles(delays, n=1000)
    print(
        f"{what:24} {len(delays)} of {count} Pings answered, p50 {cuts[499]:.2f} ms, "
        f"p99 {cuts[989]:.2f} ms, p99.9 {cuts[998]:.2f} ms, max {max(delays):.2f} ms",
        flush=True,
    )


def main() -> int:
    """Measure, or be the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        asyncio.run(serve(options.seconds))
        return 0
    command = [sys.executable, __file__, "--server", "--seconds", str(options.seconds + 3)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())
        connections = [connect(port) for _ in range(options.connections)]
        pinger = Pinger(connections)
        describe("while the loop is idle:", *pinger.run(min(10, options.seconds)))
        server.stdin.write("\n")
        server.stdin.flush()
        time.sleep(0.5)
        before = guard_cpu(server.pid)
        count, delays = pinger.run(options.seconds)
        cpu = (guard_cpu(server.pid) - before) / options.seconds
        describe(f"GIL held {options.seconds:.0f} s:", count, delays)
        print(f"the guard's thread used {cpu:.1%} of a core", flush=True)
        with contextlib.suppress(BrokenPipeError):
            server.stdin.write("\n")
            server.stdin.close()
    return 0 if len(delays) == count else 1


if __name__ == "__main__":
    sys.exit(main())
