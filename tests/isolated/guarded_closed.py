"""A loop that is closed while its guarded connections are kept: run by test_hazards_life.py.

Argument: the kind of loop. It closes the loop when the bell rings and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import wsoffload

kept: list[Any] = []


def tell(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


async def handler(connection: Any) -> None:
    kept.append(connection)
    async for _ in connection:
        pass


async def main() -> None:
    loop = asyncio.get_running_loop()
    bell = asyncio.Event()
    loop.add_reader(int(os.environ["BELL"]), bell.set)
    server = await wsoffload.serve(handler, "127.0.0.1", 0, ping_interval=0.05)
    kept.append(server)
    tell(event="serving", port=server.sockets[0].getsockname()[1])
    await bell.wait()
    # uvloop waits for ever for what it still has to close itself.
    loop.remove_reader(int(os.environ["BELL"]))
    server.server.close()


if __name__ == "__main__":
    loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
    if sys.argv[1] == "uvloop":
        import uvloop

        loop.close()
        loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    tell(event="closed")
    os.read(0, 1)
    # What is left of a loop that was closed too early has much to say at the interpreter's end.
    os._exit(0)
