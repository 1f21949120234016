"""A WebSocket server that computes for its clients and still answers every Ping.

    python websocket_server.py [PORT]

Each message is a password; the answer is its digest.
"""

import asyncio
import contextlib
import hashlib
import signal
import sys

from websockets.asyncio.server import ServerConnection, serve

import wsoffload


def digest(password: str) -> str:
    return hashlib.scrypt(password.encode(), salt=b"example", n=2**14, r=8, p=1).hex()


async def handler(websocket: ServerConnection) -> None:
    async for password in websocket:
        await websocket.send(await wsoffload.run(digest, str(password)))


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
