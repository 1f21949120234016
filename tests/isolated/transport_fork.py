"""Fork a process that has a guarded connection. Run by tests/test_transport_guard.py.

The peer is a socket of the same process, which only the parent uses.
"""

import asyncio
import gc
import os
import socket
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from wsoffload import _core

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
PING = b"\x89\x81\0\0\0\0p"
PONG = b"\x8a\x01p"
TEXT = b"\x81\x81\0\0\0\0t"


class Protocol(asyncio.Protocol):
    """Notes what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


# What is said of rescues is not looked at here.
_core._set_rescue_report(None)

#: The connection at the time of the fork.
held: list[Any] = []

AHEAD = _core.ReadAhead(2**20)


async def connect() -> tuple[_core.Transport, Protocol, socket.socket]:
    sock, peer = socket.socketpair()
    sock.setblocking(False)
    peer.settimeout(60)
    protocol = Protocol()
    transport = _core.Transport(
        asyncio.get_running_loop(),
        sock,
        protocol,
        {},
        role="server",
        at_upgrade=True,
        received=b"",
        read_ahead=AHEAD,
        read_ahead_each=2**16,
    )
    transport.write(HEAD)
    assert peer.recv(100) == HEAD
    start(transport)
    return transport, protocol, peer


def start(transport: _core.Transport) -> None:
    transport._start(
        rsv1=False,
        max_message=None,
        max_fragment=None,
        ping_interval=None,
        ping_timeout=None,
        max_stall=300,
        log=True,
        on_dead=int,
    )


def raises(call: Callable[..., object], *args: object) -> None:
    try:
        call(*args)
    except RuntimeError as error:
        assert "fork" in str(error), error
    else:
        raise AssertionError(f"{call} did not raise")


def use(transport: Any) -> None:
    """Each method in the child is harmless, and those that could not do their work say so."""
    raises(transport.write, b"child")
    raises(transport.writelines, [b"child"])
    raises(start, transport)
    transport.write_eof()
    transport.pause_reading()
    transport.resume_reading()
    transport.set_write_buffer_limits(1)
    transport.set_protocol(transport.get_protocol())
    transport._set_pings(1, 1)
    assert transport.get_write_buffer_size() == 0
    assert transport._counts()["state"] == "retired"
    assert transport._take_notes() == ([], 0)
    assert transport.get_extra_info("socket").fileno() >= 0
    assert "Transport" in repr(transport)
    assert AHEAD.lent == 0
    transport.close()
    assert transport.get_extra_info("socket").fileno() == -1
    transport.abort()
    assert transport.is_closing()


def forget(loop: Any) -> None:
    """Nobody in the child knows the transport any more: it goes without a word."""
    alive, sock = weakref.ref(held[0]), held[0].get_extra_info("socket")
    # Not by remove_reader(), which would change the parent's poll set too.
    loop._selector._fd_to_key.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held.clear()
        gc.collect()
    assert alive() is None
    assert sock.fileno() == -1


def new_connection() -> None:
    """The child's own connections are guarded by a guard of its own."""

    async def main() -> None:
        transport, protocol, peer = await connect()
        peer.sendall(PING + TEXT)
        assert peer.recv(100) == PONG
        while protocol.data != TEXT:
            await asyncio.sleep(0)
        transport.close()
        await protocol.lost
        peer.close()

    # A loop of the parent's seems to run in the child of a fork within a coroutine.
    asyncio.events._set_running_loop(None)
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


async def main(case: str) -> None:
    transport, protocol, peer = await connect()
    await asyncio.sleep(0)
    peer.sendall(TEXT)
    loop = asyncio.get_running_loop()
    held.append(transport)
    del transport
    pid = os.fork()
    if pid == 0:
        in_child(case, loop)
    transport = held.pop()
    if case == "loop":
        # The child turns the loop first, which sees the parent's bytes.
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    while protocol.data != TEXT:
        await asyncio.sleep(0)
    if case != "loop":
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    peer.sendall(PING + TEXT)
    # The loop stalls in this until the guard has answered.
    assert peer.recv(100) == PONG
    while protocol.data != TEXT * 2:
        await asyncio.sleep(0)
    transport.write(b"\x81\x01x")
    assert peer.recv(100) == b"\x81\x01x"
    transport.close()
    await protocol.lost
    assert peer.recv(100) == b""
    peer.close()
    print("ok")


def in_child(case: str, loop: Any) -> NoReturn:
    status = 1
    try:
        if case == "use":
            use(held[0])
            # Whoever waits for the end in the child is not left waiting.
            protocol = held[0].get_protocol()
            loop._run_once()
            assert protocol.lost.done()
        elif case == "new":
            new_connection()
        elif case == "loop":
            for _ in range(20):
                loop._run_once()
            assert held[0].get_protocol().data == b""
        elif case == "forget":
            forget(loop)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


asyncio.run(main(sys.argv[1]))
