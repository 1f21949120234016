"""A guarded connection of a thread that outlives the main thread. Run by tests/test_exit.py."""

import asyncio
import socket
import threading
import time

from wsoffload import _core

PATIENCE = 60
PING, PONG = b"\x89\x81\0\0\0\0p", b"\x8a\x01p"
HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


async def main() -> None:
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
    assert peer.recv(100) == HEAD
    while threading.main_thread().is_alive():
        await asyncio.sleep(0.01)
    transport._start(
        rsv1=False,
        max_message=None,
        max_fragment=None,
        ping_interval=None,
        ping_timeout=None,
        max_stall=300,
        log=False,
        on_dead=int,
    )
    peer.send(PING)
    peer.setblocking(False)
    deadline = time.monotonic() + PATIENCE
    pong = b""
    # The loop stands still meanwhile: nobody but the guard can answer.
    while pong == b"" and time.monotonic() < deadline:
        time.sleep(0.01)
        try:
            pong = peer.recv(100)
        except BlockingIOError:
            continue
    assert pong == PONG, pong
    transport.abort()
    await asyncio.sleep(0.01)
    peer.close()
    print("answered")


threading.Thread(target=asyncio.run, args=(main(),)).start()
