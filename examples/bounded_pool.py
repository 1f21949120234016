"""A WebSocket server that says at once when it has too much to do.

    python bounded_pool.py [PORT]

Each message is a number of seconds of work. Two calls run, four are queued; the next is refused.
"""

import asyncio
import contextlib
import signal
import sys
import time
from functools import partial

from websockets.asyncio.server import ServerConnection, serve

import wsoffload


def work(seconds: float) -> str:
    time.sleep(seconds)
    return f"worked for {seconds} s"


async def handler(pool: wsoffload.Pool, websocket: ServerConnection) -> None:
    async for seconds in websocket:
        try:
            answer = await pool.run(work, float(seconds))
        except wsoffload.QueueFull:
            answer = "busy, try again later"
        await websocket.send(answer)


async def main(port: int) -> None:
    async with (
        wsoffload.Pool(max_workers=2, max_queue=4, when_full="raise") as pool,
        serve(partial(handler, pool), "127.0.0.1", port) as server,
    ):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
