"""What an idle guarded connection costs beside a plain one: memory, descriptors, processor time.

    python benchmarks/idle.py [--connections 1000] [--seconds 10] [--loop asyncio]

Each server runs in a process of its own, with the library's defaults but for the Pings, which are
off. The exit status is 0 if the goals are met: 4 KiB of memory more, and the same descriptors.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import websockets.asyncio.server
from echo import connect

import wsoffload

MOST_MEMORY = 4096


def state(begun: float) -> dict[str, float]:
    """What this process has: anonymous memory in bytes, descriptors, processor time since then."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return {
        "memory": int(line.split()[1]) * 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "cpu": time.process_time() - begun,
    }


async def serve(side: str) -> None:
    """The server's process: for each line on standard input it says what it has."""

    async def idle(websocket: websockets.asyncio.server.ServerConnection) -> None:
        await websocket.wait_closed()

    begun = time.process_time()
    make = wsoffload.serve if side == "guarded" else websockets.asyncio.server.serve
    async with make(idle, "127.0.0.1", 0, ping_interval=None) as server:
        print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(state(begun)), flush=True)


def run_server(loop: str, side: str) -> None:
    """Be the server."""
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(side))


def measure(options: argparse.Namespace, side: str) -> dict[str, float]:
    """What one connection of that side costs: bytes, descriptors, percent of a core."""
    command = [sys.executable, __file__, "--loop", options.loop, "--side", side]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask() -> dict[str, float]:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write("\n")
            server.stdin.flush()
            answer: dict[str, float] = json.loads(server.stdout.readline())
            return answer

        port = json.loads(server.stdout.readline())
        # The first connections also pay for what is imported and made once.
        connections = [connect(port) for _ in range(50)]
        before = ask()
        connections += [connect(port) for _ in range(options.connections)]
        after = ask()
        time.sleep(options.seconds)
        later = ask()
        with contextlib.suppress(OSError):
            for connection in connections:
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()
        server.kill()
    count = options.connections
    return {
        "memory": (after["memory"] - before["memory"]) / count,
        "descriptors": (after["descriptors"] - before["descriptors"]) / count,
        "cpu": (later["cpu"] - after["cpu"]) / options.seconds * 100,
    }


def main() -> int:
    """Measure, or be a server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--side", choices=["guarded", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_server(options.loop, options.side)
        return 0
    sides = {side: measure(options, side) for side in ("plain", "guarded")}
    for side, costs in sides.items():
        print(
            f"{options.loop} {side:8} {costs['memory']:8.0f} bytes and {costs['descriptors']:.3f} "
            f"descriptors for each connection; all of them idle: {costs['cpu']:.2f} % of a core"
        )
    more = sides["guarded"]["memory"] - sides["plain"]["memory"]
    print(f"{options.loop} guarded connections take {more:.0f} bytes more (goal: {MOST_MEMORY})")
    same = abs(sides["guarded"]["descriptors"] - sides["plain"]["descriptors"]) < 0.01
    return 0 if more <= MOST_MEMORY and same else 1


if __name__ == "__main__":
    sys.exit(main())
