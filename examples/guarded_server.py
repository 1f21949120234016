"""A WebSocket server whose connections stay alive although its handlers block the event loop.

    python guarded_server.py [PORT]

Each message is a number of seconds for which the handler blocks; the answer is what the guard did.
"""

import asyncio
import contextlib
import signal
import sys
import time

import wsoffload


def work(seconds: float) -> None:
    """Nothing else of this process runs meanwhile on the thread of the event loop."""
    time.sleep(seconds)


async def handler(websocket: wsoffload.ServerConnection) -> None:
    async for seconds in websocket:
        work(float(seconds))
        guard = websocket.guard
        await websocket.send(f"{guard.state}, {guard.pings_answered} Pings answered so far")


async def main(port: int) -> None:
    # Pings every 20 seconds are the default. More of them can be seen at work.
    async with wsoffload.serve(handler, "127.0.0.1", port, ping_interval=0.25) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
