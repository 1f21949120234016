"""End a process that has a guarded connection. Run by tests/test_transport_guard.py.

Arguments: the kind of loop, how the process ends.
"""

import asyncio
import atexit
import ctypes
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any


def threads() -> list[str]:
    return [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]


def check_stopped() -> None:
    assert "wso-guard" not in threads()
    print("ok", flush=True)


if sys.argv[2] == "stopped":
    # Before the package registers its own, in order to be called after that.
    atexit.register(check_stopped)

from wsoffload import _core  # noqa: E402

PING = b"\x89\x81\0\0\0\0p"
HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"

kept: list[Any] = []

# What is said of rescues is not looked at here.
_core._set_rescue_report(None)


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.SelectorEventLoop()


async def connect() -> tuple[_core.Transport, socket.socket]:
    sock, peer = socket.socketpair()
    sock.setblocking(False)
    transport = _core.Transport(
        asyncio.get_running_loop(),
        sock,
        asyncio.Protocol(),
        {},
        role="server",
        at_upgrade=True,
        received=b"",
        read_ahead=_core.ReadAhead(2**20),
        read_ahead_each=2**16,
    )
    transport.write(HEAD)
    transport._start(
        rsv1=False,
        max_message=None,
        max_fragment=None,
        ping_interval=0.05,
        ping_timeout=None,
        max_stall=300,
        log=True,
        on_dead=int,
    )
    assert peer.recv(100) == HEAD
    await asyncio.sleep(0)
    return transport, peer


async def main(how: str) -> None:
    transport, peer = await connect()
    peer.sendall(PING)
    assert "wso-guard" in threads()
    print("ok", flush=True)
    if how == "exit":
        kept.append((transport, peer))
        sys.exit(3)
    if how == "raise":
        kept.append((transport, peer))
        raise LookupError
    if how == "kept":
        kept.append((transport, peer))
        return
    transport.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    peer.close()


def serve(kind: str, connected: threading.Event) -> None:
    """A loop that stalls, again and again, while the process ends."""

    async def run() -> None:
        kept.append(await connect())
        connected.set()
        while True:
            kept[0][1].sendall(PING)
            ctypes.PyDLL(None).usleep(30_000)
            await asyncio.sleep(0)

    new_loop(kind).run_until_complete(run())


kind, how = sys.argv[1:]
# What is left open on purpose.
warnings.simplefilter("ignore", ResourceWarning)
if how == "thread":
    connected = threading.Event()
    threading.Thread(target=serve, args=(kind, connected), daemon=True).start()
    connected.wait()
    print("ok", flush=True)
elif how == "stopped":

    async def stop() -> None:
        kept.append(await connect())

    kept.append(new_loop(kind))
    kept[0].run_until_complete(stop())
elif how == "kept":
    kept.append(new_loop(kind))
    kept[0].run_until_complete(main(how))
else:
    with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
        runner.run(main(how))
