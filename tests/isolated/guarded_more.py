"""What some tests need of the side under test besides guarded.py: each function is called with the
`Subject` of that script, by its `extra`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from typing import Any

_C = ctypes.PyDLL(None)
_children: list[int] = []


def send_buffer(subject: Any, size: int) -> None:
    """Give all connections that come from now on this SO_SNDBUF."""
    for server in subject._servers:
        for sock in server.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def receive_buffer(subject: Any, size: int) -> None:
    """The same with SO_RCVBUF."""
    for server in subject._servers:
        for sock in server.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def hogs(subject: Any, id_: int, count: int) -> None:
    """So many times, start a thread that takes the GIL within the reading callback."""
    connection = subject.records[str(id_)].connection
    receive = connection.data_received
    left = count

    def data_received(data: bytes) -> None:
        nonlocal left
        if left:
            left -= 1
            threading.Thread(target=_C.usleep, args=(20_000,)).start()
        receive(data)

    connection.data_received = data_received
    subject.hogs_left = lambda: left


def hogs_left(subject: Any) -> int:
    left: int = subject.hogs_left()
    return left


def die_of_sigpipe(subject: Any) -> None:
    """The signal's default: it kills."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def stall_and_write(subject: Any, kind: str, ids: list[int]) -> None:
    """Write more than once before the loop can see that the peers are gone."""
    subject.stall_now(kind)
    for id_ in ids:
        transport = subject.records[str(id_)].connection.transport
        for _ in range(3):
            transport.write(b"\x82\0")
            # The answer to a segment that nobody is there to take.
            time.sleep(0.01)


def fork(subject: Any) -> None:
    """A child that has all our descriptors and does nothing."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    _children.append(child)


def end_child(subject: Any) -> None:
    child = _children.pop()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def alarms(subject: Any, every: float) -> None:
    """SIGALRM again and again; 0: no more."""
    subject.alarms = getattr(subject, "alarms", 0)

    def count(_number: int, _frame: Any) -> None:
        subject.alarms += 1

    if every:
        signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, every, every)


def alarms_seen(subject: Any) -> int:
    seen: int = subject.alarms
    return seen


def fight_for_the_gil(subject: Any, threads: int) -> None:
    """Threads that never wait."""
    subject.at_war = True

    def fight() -> None:
        while subject.at_war:
            pass

    subject.fighters = [threading.Thread(target=fight) for _ in range(threads)]
    for thread in subject.fighters:
        thread.start()


def make_peace(subject: Any) -> None:
    subject.at_war = False
    for thread in subject.fighters:
        thread.join()


def inherited(subject: Any) -> list[str]:
    """What the descriptors of a child that was exec'd lead to."""
    script = """
import os
for name in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink(f"/proc/self/fd/{name}"))
    except FileNotFoundError:
        pass
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


async def serve_asking(subject: Any) -> int:
    """A server that asks for a while whether it wants a connection."""

    async def process_request(connection: Any, request: Any) -> Any:
        subject.asked = True
        await subject.admit.wait()
        if request.path.startswith("/refused"):
            return connection.respond(HTTPStatus.FORBIDDEN, "no\n")
        return None

    subject.asked = False
    subject.admit = asyncio.Event()
    port: int = await subject.serve(process_request=process_request, ping_interval=None)
    return port


def asked(subject: Any) -> bool:
    asked: bool = subject.asked
    return asked


def admit(subject: Any) -> None:
    subject.admit.set()


async def refused(subject: Any, port: int) -> str:
    """The exception with which a client's handshake fails."""
    try:
        await subject.connect(port)
    except Exception as error:
        return type(error).__name__
    return "accepted"
