"""A server of the third act: `python -m wsoffload._demo.hold_server plain|guarded SECONDS`.

Its handler makes one long call into C that keeps the GIL, as some libraries do. No Python code of
this process runs meanwhile, on no thread. The two servers differ in nothing but `serve`.
"""

import asyncio
import contextlib
import ctypes
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

import wsoffload

from .child import follow_parent, tell

SERVE: dict[str, Any] = {
    "plain": websockets.asyncio.server.serve,
    "guarded": wsoffload.serve,
}

# Functions that are called through PyDLL keep the GIL.
usleep = ctypes.PyDLL(None).usleep


async def handler(seconds: float, websocket: ServerConnection) -> None:
    """Hold the GIL for each message, with a message before and one after."""
    # A client that gave up meanwhile is not there to hear of it.
    with contextlib.suppress(ConnectionClosed):
        async for _ in websocket:
            await websocket.send("holding")
            usleep(round(seconds * 1e6))
            await websocket.send("over")


async def serve(name: str, seconds: float) -> None:
    """Serve until SIGTERM or the end of the parent."""
    async with SERVE[name](partial(handler, seconds), "127.0.0.1", 0) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        port = next(iter(server.sockets)).getsockname()[1]
        tell(f"ws://127.0.0.1:{port}")
        await server.wait_closed()


def main(argv: Sequence[str]) -> None:
    """Print the address and serve until SIGTERM or the end of the parent."""
    name, seconds = argv
    follow_parent()
    asyncio.run(serve(name, float(seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
