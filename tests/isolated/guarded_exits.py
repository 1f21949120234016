"""End a process with guarded connections open: run by test_hazards_life.py.

Arguments: the kind of loop and the name of the case. It ends when the bell rings; a thread stalls
the loop for half of the time from when it serves until it is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import wsoffload

kept: list[Any] = []


def stall_again_and_again() -> None:
    library = ctypes.PyDLL(None)
    pause = threading.Event()
    while True:
        library.usleep(30_000)
        pause.wait(0.03)


def by_return() -> None:
    """Nothing more."""


def by_sys_exit() -> None:
    sys.exit(3)


def by_exception() -> None:
    raise RuntimeError("the end")


def by_signal() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def by_os_exit() -> None:
    os._exit(4)


async def main(end: Callable[[], None]) -> None:
    async def handler(connection: Any) -> None:
        kept.append(connection)
        await connection.wait_closed()

    loop = asyncio.get_running_loop()
    bell = asyncio.Event()
    loop.add_reader(int(os.environ["BELL"]), bell.set)
    async with wsoffload.serve(handler, "127.0.0.1", 0, ping_interval=0.02) as server:
        port = server.sockets[0].getsockname()[1]
        os.write(1, json.dumps({"event": "serving", "port": port}).encode() + b"\n")
        threading.Thread(target=stall_again_and_again, daemon=True).start()
        await bell.wait()
        loop.remove_reader(int(os.environ["BELL"]))
        end()


if __name__ == "__main__":
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    if sys.argv[1] == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    # The rescues are not news here.
    logging.getLogger("wsoffload").setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(globals()[sys.argv[2]]))
