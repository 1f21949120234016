"""A WebSocket client that stays connected although it blocks its event loop.

    python guarded_client.py URL

It asks guarded_server.py to block for a second, and blocks for a second itself.
"""

import asyncio
import sys
import time

import wsoffload


def work() -> None:
    """Nothing else of this process runs meanwhile on the thread of the event loop."""
    time.sleep(1)


async def main(url: str) -> None:
    async with wsoffload.connect(url, ping_interval=0.25) as websocket:
        await websocket.send("1")
        work()
        print("the server:", await websocket.recv())
        guard = websocket.guard
        print(f"the client: {guard.state}, {guard.pings_answered} Pings answered so far")


asyncio.run(main(sys.argv[1]))
