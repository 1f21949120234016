"""Tests of wsoffload/_websockets.py: serve and connect, with all that websockets offers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import logging
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from conftest import MS, RunAsync, until
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.extensions.base import ClientExtensionFactory, Extension, ServerExtensionFactory

import wsoffload
from wsoffload import Guard, Unguardable, _doctor, _guard_report, _websockets

LibraryServer = websockets.asyncio.server.ServerConnection
LibraryClient = websockets.asyncio.client.ClientConnection

without_13_0 = pytest.mark.skipif(
    not hasattr(websockets.asyncio.client.connect, "__aiter__"),
    reason="websockets 13.0 cannot reconnect, makes a connect() only in a loop, and starts its "
    "keepalive within the handshake",
)


@pytest.fixture(scope="module", autouse=True)
def first_guard(first_uvloop: None) -> None:
    """The first guarded connection makes what the process keeps: a thread and its descriptors."""
    passed, says = _doctor.self_test(asyncio.SelectorEventLoop)
    assert passed, says


@pytest.fixture(autouse=True)
def unwarned() -> None:
    """Each test has its first warning of each kind."""
    _guard_report.sums.forget()


async def echo(websocket: Any) -> None:
    async for message in websocket:
        await websocket.send(message)


async def wait(websocket: Any) -> None:
    await websocket.wait_closed()


def port_of(server: Any) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


@contextlib.asynccontextmanager
async def serving(handler: Callable[[Any], Any] = echo, **options: Any) -> AsyncIterator[Any]:
    """A guarded server, as an object with its `uri`."""
    if "sock" not in options:
        options = {"host": "127.0.0.1", "port": 0, **options}
    async with wsoffload.serve(handler, **options) as server:
        server.uri = f"ws://127.0.0.1:{port_of(server)}"  # type: ignore[attr-defined]
        yield server


def connections(server: Any) -> set[Any]:
    """The open connections of a server."""
    if hasattr(server, "connections"):
        return set(server.connections)
    # Websockets 13.
    return {each for each in server.handlers if each.protocol.state.name == "OPEN"}


async def accepted(server: Any) -> Any:
    """The server's only connection."""
    await until(lambda: connections(server))
    (connection,) = connections(server)
    return connection


async def one_echo(websocket: Any) -> None:
    await websocket.send("said")
    assert await websocket.recv() == "said"


class Raw:
    """A client without a library, which answers nothing."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Raw:
        self.sock = socket.create_connection(("127.0.0.1", self._port))
        self.sock.setblocking(False)
        key = base64.b64encode(bytes(16)).decode()
        self.sock.send(
            f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self.hear(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.sock.close()

    async def hear(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        heard = b""
        while len(heard) < size:
            piece = await loop.sock_recv(self.sock, size - len(heard))
            assert piece
            heard += piece
        return heard

    def say(self, opcode: int, payload: bytes) -> None:
        self.sock.send(bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload)


# ---- With and without options.


@pytest.mark.parametrize("compression", ["deflate", None])
def test_both_sides_are_guarded(run_async: RunAsync[None], compression: Any) -> None:
    async def main() -> None:
        async with serving(compression=compression) as server:
            async with wsoffload.connect(server.uri, compression=compression) as websocket:
                await one_echo(websocket)
                for connection in (websocket, await accepted(server)):
                    assert connection.guard.state == "guarded"
                    assert connection.guard.reason is None
                    assert connection.keepalive_task is None
                    assert isinstance(connection.transport, wsoffload.GuardedTransport)
                    assert bool(connection.protocol.extensions) is (compression is not None)
                big = "x" * 500_000
                await websocket.send([big, big])
                assert await websocket.recv() == big + big
            assert websocket.guard.state == "ended"
            assert websocket.protocol.close_rcvd.code == 1000

    run_async(main)


def test_a_stall_is_survived(run_async: RunAsync[None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsoffload")

    async def stall(websocket: Any) -> None:
        async for message in websocket:
            time.sleep(500 * MS)
            await websocket.send(message)

    async def main() -> None:
        timing = {"ping_interval": 50 * MS, "ping_timeout": 100 * MS}
        async with serving(stall, **timing) as server:
            async with wsoffload.connect(server.uri, **timing) as websocket:
                await asyncio.sleep(60 * MS)
                await one_echo(websocket)
                await one_echo(websocket)
                await until(lambda: websocket.guard.rescues)
                assert websocket.guard.pings_answered > 0
                assert websocket.guard.longest_rescue > 0
        assert wsoffload.stats().guard.rescues > 0

    run_async(main)
    assert any("an event loop stood still" in record.getMessage() for record in caplog.records)


def test_process_request_and_response(run_async: RunAsync[None]) -> None:
    async def process_request(connection: Any, request: Any) -> Any:
        if request.path == "/health":
            return connection.respond(200, "OK\n")
        return None

    def process_response(connection: Any, request: Any, response: Any) -> None:
        response.headers["X-Seen"] = connection.guard.state

    async def main() -> None:
        options = {"process_request": process_request, "process_response": process_response}
        async with serving(**options) as server:
            with pytest.raises(InvalidStatus, match="HTTP 200"):
                await wsoffload.connect(f"{server.uri}/health")
            async with wsoffload.connect(server.uri) as websocket:
                assert websocket.response is not None
                assert websocket.response.headers["X-Seen"] == "starting"
                await one_echo(websocket)

    run_async(main)


def test_subprotocols(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with serving(subprotocols=["two", "one"]) as server:
            async with wsoffload.connect(server.uri, subprotocols=["one"]) as websocket:
                assert websocket.subprotocol == "one"
                await one_echo(websocket)

    run_async(main)


@pytest.mark.parametrize("guard", [None, Guard()])
def test_unix_sockets(run_async: RunAsync[None], guard: Guard | None) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            async with wsoffload.unix_serve(echo, path, guard=guard):
                async with wsoffload.unix_connect(path, guard=guard) as websocket:
                    await one_echo(websocket)
                    assert websocket.guard.state == ("guarded" if guard else "unguarded")
                async with wsoffload.unix_connect(path, "ws://localhost/there") as websocket:
                    assert websocket.request is not None
                    assert websocket.request.path == "/there"

    run_async(main)


@without_13_0
def test_unix_uri_of_tls() -> None:
    assert wsoffload.unix_connect("/nowhere").uri == "ws://localhost/"
    context = ssl.create_default_context()
    assert wsoffload.unix_connect("/nowhere", ssl=context).uri == "wss://localhost/"


def test_sockets_of_ones_own(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        async with serving(sock=listener, reuse_port=False) as server:
            sock = socket.create_connection(listener.getsockname())
            async with wsoffload.connect(server.uri, sock=sock) as websocket:
                assert websocket.guard.state == "guarded"
                assert websocket.local_address == websocket.transport.get_extra_info("sockname")
                assert websocket.remote_address[1] == port_of(server)
                # Taken over: when this object goes, it closes nothing.
                await until(lambda: sock.fileno() == -1)
                await one_echo(websocket)

    run_async(main)


def test_limits(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with serving(max_size=1000, max_queue=2, write_limit=(2000, 500)) as server:
            async with wsoffload.connect(server.uri, compression=None) as websocket:
                connection = await accepted(server)
                assert connection.transport.get_write_buffer_limits() == (500, 2000)
                for _ in range(20):
                    await websocket.send("m" * 900)
                for _ in range(20):
                    assert await websocket.recv() == "m" * 900
                await websocket.send("m" * 1001)
                with pytest.raises(ConnectionClosedError) as raised:
                    await websocket.recv()
                assert raised.value.rcvd is not None
                assert raised.value.rcvd.code == 1009

    run_async(main)


def test_broadcast(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(wsoffload.connect(server.uri)) for _ in range(3)
            ]
            await until(lambda: len(connections(server)) == 3)
            websockets.asyncio.server.broadcast(connections(server), "all")
            assert [await client.recv() for client in clients] == ["all"] * 3

    run_async(main)


def test_closing_with_open_connections_and_pending_handshakes(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        entered, go = asyncio.Event(), asyncio.Event()

        async def process_request(connection: Any, request: Any) -> None:
            if request.path == "/slow":
                entered.set()
                await go.wait()

        async with serving(process_request=process_request) as server:
            async with wsoffload.connect(server.uri) as websocket:
                pending = asyncio.ensure_future(
                    wsoffload.connect(f"{server.uri}/slow").__aenter__()
                )
                await entered.wait()
                server.close()
                await websocket.wait_closed()
                assert websocket.protocol.close_rcvd.code == 1001
                go.set()
                with pytest.raises(InvalidStatus, match="HTTP 503"):
                    await pending
                await server.wait_closed()

    run_async(main)


@without_13_0
def test_reconnection(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with serving() as server:
            states = []
            async for websocket in wsoffload.connect(server.uri):
                states.append(websocket.guard.state)
                if len(states) == 2:
                    break
                await websocket.close()
            assert states == ["guarded", "guarded"]

    run_async(main)


def test_timeout_of_the_handshake(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"ws://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(TimeoutError):
                await wsoffload.connect(uri, open_timeout=50 * MS)

    run_async(main)


def test_router(run_async: RunAsync[None]) -> None:
    pytest.importorskip("werkzeug", reason="the router of websockets needs werkzeug")
    pytest.importorskip("websockets.asyncio.router", reason="websockets 13 has no router")
    from websockets.asyncio.router import route
    from werkzeug.routing import Map, Rule

    async def channel(websocket: Any, name: str) -> None:
        await websocket.send(f"{name} {websocket.guard.state}")

    async def main() -> None:
        rules = Map([Rule("/channel/<name>", endpoint=channel)])
        kind = wsoffload.ServerConnection
        async with route(rules, "127.0.0.1", 0, create_connection=kind) as server:
            uri = f"ws://127.0.0.1:{port_of(server)}/channel/one"
            async with wsoffload.connect(uri) as websocket:
                assert await websocket.recv() == "one guarded"

    run_async(main)


@contextlib.asynccontextmanager
async def http_proxy() -> AsyncIterator[str]:
    """A proxy that knows CONNECT and no more."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        host, port = head.split()[1].decode().split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        for side in (writer, far_writer):
            await side.wait_closed()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port_of(server)}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.skipif(
    not hasattr(websockets.asyncio.client, "HTTPProxyConnection"),
    reason="websockets before 15 knows no proxies",
)
def test_through_a_proxy(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with http_proxy() as proxy, serving() as server:
            async with wsoffload.connect(server.uri, proxy=proxy) as websocket:
                assert websocket.guard.state == "guarded"
                await one_echo(websocket)

    run_async(main)


# ---- Keepalive.


def test_settings_can_be_changed_at_any_time(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with serving(wait, ping_interval=None, ping_timeout=None) as server:
            async with wsoffload.connect(server.uri, ping_interval=None) as websocket:
                connection = await accepted(server)
                assert connection.latency == 0
                assert (connection.ping_interval, connection.ping_timeout) == (None, None)
                connection.ping_timeout = 60
                connection.ping_interval = 30 * MS
                assert (connection.ping_interval, connection.ping_timeout) == (30 * MS, 60)
                await until(lambda: connection.guard.pings_sent)
                await until(lambda: connection.latency > 0)
                assert websocket.guard.pings_answered > 0
                assert connection.keepalive_task is None
                for name in ("ping_interval", "ping_timeout"):
                    with pytest.raises(ValueError, match=f"^{name} must be more than 0 seconds"):
                        setattr(connection, name, -1)
                # The later of both measurements is shown.
                connection.ping_interval = None
                await asyncio.sleep(60 * MS)
                guards = connection.latency
                connection.latency = 5.0
                assert connection.latency == 5.0
                assert guards != 5.0

    run_async(main)


def test_an_answered_ping_of_the_guards_settles_the_users(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with serving(wait, ping_interval=None) as server:
            async with Raw(port_of(server)) as peer:
                connection = await accepted(server)
                pong = await connection.ping(b"user")
                assert await peer.hear(6) == b"\x89\x04user"
                connection.ping_interval = 30 * MS
                ping = await peer.hear(6)
                connection.ping_interval = None
                assert not pong.done()
                peer.say(10, ping[2:])
                assert await pong >= 0
                assert connection.latency >= 0

    run_async(main)


def test_a_dead_peer_is_closed_as_websockets_does_it(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        timing = {"ping_interval": 30 * MS, "ping_timeout": 30 * MS, "close_timeout": 30 * MS}
        async with serving(wait, **timing) as server:
            async with Raw(port_of(server)) as peer:
                connection = await accepted(server)
                with pytest.raises(ConnectionClosedError) as raised:
                    await connection.recv()
                assert raised.value.rcvd is None
                assert raised.value.sent is not None
                assert (raised.value.sent.code, raised.value.sent.reason) == (
                    1011,
                    "keepalive ping timeout",
                )
                heard = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := await asyncio.get_running_loop().sock_recv(peer.sock, 4096):
                        heard += piece
                assert heard.endswith(b"\x88\x18\x03\xf3keepalive ping timeout")
                # Websockets 17 lets it go, those before only cancel it.
                task = connection.keepalive_task
                await until(lambda: task is None or task.cancelled())
                assert connection.guard.state == "ended"

    with caplog.at_level(logging.DEBUG, "websockets.server"):
        run_async(main)
    messages = [record.getMessage() for record in caplog.records]
    assert "- timed out waiting for keepalive pong" in messages
    assert not any("keepalive ping failed" in message for message in messages)
    # The guard's own Pings, on the connection's logger.
    assert any(re.fullmatch(r"> PING [0-9a-f ]+ \[4 bytes, the guard's\]", m) for m in messages)


def test_an_error_in_closing_is_logged(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> bool:
        return "keepalive ping failed" in [record.getMessage() for record in caplog.records]

    async def main() -> None:
        timing = {"ping_interval": 30 * MS, "ping_timeout": 30 * MS}
        async with serving(wait, **timing) as server:
            async with Raw(port_of(server)):
                connection = await accepted(server)

                def fail() -> None:
                    raise RuntimeError("cannot send")

                connection.send_context = fail
                await until(logged)
                del connection.send_context

    run_async(main)


def test_pings_of_the_guard_are_logged_with_debug(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(ping_interval=None) as server:
            async with wsoffload.connect(server.uri, ping_interval=None) as websocket:
                await (await websocket.ping(b"\x07"))

    with caplog.at_level(logging.DEBUG, "websockets.server"):
        run_async(main)
    ours = [m for r in caplog.records if "the guard's" in (m := r.getMessage())]
    assert sorted(ours) == ["< PING 07 [1 bytes, the guard's]", "> PONG 07 [1 bytes, the guard's]"]
    assert all(hasattr(r, "websocket") for r in caplog.records if "the guard's" in r.getMessage())


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout"])
def test_wrong_settings_are_refused_by_the_call(name: str) -> None:
    wrong: dict[str, Any] = {name: -5}
    for call in (
        lambda: wsoffload.serve(echo, "127.0.0.1", 0, **wrong),
        lambda: wsoffload.connect("ws://127.0.0.1", **wrong),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be more than 0 seconds, not -5"):
            call()


# ---- Other classes.


def test_websockets_with_our_classes(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        async with websockets.asyncio.server.serve(
            echo, "127.0.0.1", 0, create_connection=wsoffload.ServerConnection
        ) as server:
            async with websockets.asyncio.client.connect(
                f"ws://127.0.0.1:{port_of(server)}", create_connection=wsoffload.ClientConnection
            ) as websocket:
                await one_echo(websocket)
                for connection in (websocket, await accepted(server)):
                    assert connection.guard.state == "guarded"

    run_async(main)


def test_classes_of_the_user_are_combined(run_async: RunAsync[None]) -> None:
    class Counting(LibraryServer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.made: list[Any] = []

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.made.append(transport)
            super().connection_made(transport)

    class More(Counting):
        """Another subclass is not taken for the one with the guard."""

    class Ours(wsoffload.ClientConnection):
        def __init__(self, protocol: Any, **kwargs: Any) -> None:
            super().__init__(protocol, **kwargs)

    guard = Guard()

    async def main() -> None:
        kinds = set()
        for _ in range(2):
            async with serving(create_connection=Counting) as server:
                connect = wsoffload.connect(server.uri, create_connection=Ours, guard=guard)
                async with connect as websocket:
                    assert type(websocket) is Ours
                    assert websocket._settings is guard
                    connection = await accepted(server)
                    kinds.add(type(connection))
                    assert isinstance(connection, Counting)
                    assert connection.made == [connection.transport]
                    assert connection.guard.state == websocket.guard.state == "guarded"
        (kind,) = kinds
        assert kind.__name__ == "GuardedCounting"
        assert kind.__module__ == __name__

    run_async(main)


def test_a_guarded_connection_keeps_its_attributes_as_compactly(run_async: RunAsync[None]) -> None:
    async def main() -> None:
        sizes = []
        for guard in (None, Guard()):
            async with (
                serving(wait, guard=guard) as server,
                websockets.asyncio.client.connect(server.uri),
            ):
                sizes.append(sys.getsizeof(vars(await accepted(server))))
        # From 30 attributes on it is a kibibyte more.
        assert sizes[1] <= sizes[0] + 64

    run_async(main)


def test_what_is_no_such_class_is_refused() -> None:
    def make(*args: Any, **kwargs: Any) -> Any:
        return LibraryServer(*args, **kwargs)

    for given in (make, LibraryClient, object, 5):
        wrong: Any = given
        with pytest.raises(TypeError, match=r"^create_connection must be a subclass of Server"):
            wsoffload.serve(echo, create_connection=wrong)
    with pytest.raises(TypeError, match=r"^create_connection must be a subclass of Client"):
        wsoffload.connect("ws://localhost", create_connection=LibraryServer)  # type: ignore[arg-type]
    for guard in (5, True, "Guard"):
        with pytest.raises(TypeError, match=r"^guard must be a wsoffload\.Guard or None, not"):
            wsoffload.serve(echo, guard=guard)  # type: ignore[arg-type]


def test_without_a_guard_it_is_plain_websockets(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture
) -> None:
    def make(*args: Any, **kwargs: Any) -> Any:
        return LibraryServer(*args, **kwargs)

    factory: Any = make

    async def main() -> None:
        async with serving(guard=None, ping_interval=30 * MS) as server:
            async with wsoffload.connect(server.uri, guard=None) as websocket:
                connection = await accepted(server)
                for each in (connection, websocket):
                    assert not isinstance(each.transport, wsoffload.GuardedTransport)
                    assert each.guard.state == "unguarded"
                    assert each.guard.reason == "it was made with guard=None"
                    assert each.keepalive_task is not None
                connection.ping_interval = 60
                connection.ping_timeout = None
                assert (connection.ping_interval, connection.ping_timeout) == (60, None)
                await one_echo(websocket)
        for given in (factory, LibraryServer):
            async with serving(guard=None, create_connection=given) as server:
                async with wsoffload.connect(
                    server.uri, guard=None, create_connection=wsoffload.ClientConnection
                ) as websocket:
                    assert type(await accepted(server)) is LibraryServer
                    assert websocket.guard.state == "unguarded"
                    await one_echo(websocket)

    with caplog.at_level(logging.INFO, "wsoffload"):
        run_async(main)
    assert [record for record in caplog.records if record.name == "wsoffload"] == []


# ---- What cannot be guarded.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server for 127.0.0.1 and of a client that trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no command openssl to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("certificate")
    names = {"key": str(folder / "key.pem"), "certificate": str(folder / "certificate.pem")}
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=wsoffload", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", names["key"], "-out", names["certificate"]),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(names["certificate"], names["key"])
    return server, ssl.create_default_context(cafile=names["certificate"])


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
TLS = "it uses TLS, which the guard cannot read yet"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the logger wsoffload got."""
    return [record.getMessage() for record in caplog.records if record.name == "wsoffload"]


def test_tls_is_served_unguarded_with_one_warning(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture, certificate: Contexts
) -> None:
    async def main() -> None:
        async with serving(ssl=certificate[0]) as server:
            uri = server.uri.replace("ws:", "wss:")
            for _ in range(2):
                async with wsoffload.connect(uri, ssl=certificate[1]) as websocket:
                    await one_echo(websocket)
                    for connection in (websocket, await accepted(server)):
                        assert connection.guard == wsoffload.GuardStatus("unguarded", TLS)
                        assert connection.keepalive_task is not None
                        connection.ping_timeout = 5

    run_async(main)
    assert warnings_of(caplog) == [
        f"a connection is served unguarded: {TLS}. Others for the same reason are only counted."
    ]
    assert wsoffload.stats().guard.unguarded == {TLS: 4}


def test_tls_is_refused_where_a_guard_is_required(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture, certificate: Contexts
) -> None:
    guard = Guard(required=True)
    with pytest.raises(Unguardable, match=TLS):
        wsoffload.serve(echo, ssl=certificate[0], guard=guard)

    async def main() -> None:
        async with serving(ssl=certificate[0]) as server:
            uri = server.uri.replace("ws:", "wss:")
            with pytest.raises(Unguardable) as raised:
                await wsoffload.connect(uri, ssl=certificate[1], guard=guard)
            assert raised.value.reason == TLS
            # A server's connections need one each for themselves.
            kind = wsoffload.ServerConnection
            required: Any = type("Required", (kind,), {"_settings": guard})
        async with websockets.asyncio.server.serve(
            echo, "127.0.0.1", 0, ssl=certificate[0], create_connection=required
        ) as plain:
            with pytest.raises((websockets.exceptions.InvalidMessage, OSError, EOFError)):
                await wsoffload.connect(
                    f"wss://127.0.0.1:{port_of(plain)}", ssl=certificate[1], guard=None
                )

    run_async(main)
    refused = f"a connection is refused, because it cannot be guarded: {TLS}"
    assert warnings_of(caplog).count(refused) == 2


class OtherExtension(Extension):
    """An extension that does nothing, of which nobody knows that."""

    name = "x-other"  # type: ignore[assignment]

    def decode(self, frame: Any, *, max_size: int | None = None) -> Any:
        return frame

    def encode(self, frame: Any) -> Any:
        return frame


class OtherClientFactory(ClientExtensionFactory):
    name = "x-other"  # type: ignore[assignment]

    def get_request_params(self) -> Any:
        return []

    def process_response_params(self, params: Any, accepted_extensions: Any) -> Extension:
        return OtherExtension()


class OtherServerFactory(ServerExtensionFactory):
    name = "x-other"  # type: ignore[assignment]

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        return [], OtherExtension()


UNKNOWN = "the guard does not know the extension x-other"


def test_other_extensions_are_served_unguarded(
    run_async: RunAsync[None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(extensions=[OtherServerFactory()]) as server:
            async with wsoffload.connect(
                server.uri, extensions=[OtherClientFactory()]
            ) as websocket:
                await one_echo(websocket)
                for connection in (websocket, await accepted(server)):
                    assert connection.guard == wsoffload.GuardStatus("unguarded", UNKNOWN)
                    assert connection.keepalive_task is not None
                    connection.ping_interval = 60

    run_async(main)
    assert len(warnings_of(caplog)) == 1


def test_other_extensions_are_refused_where_a_guard_is_required(
    run_async: RunAsync[None],
) -> None:
    guard = Guard(required=True)

    async def main() -> None:
        async with serving(extensions=[OtherServerFactory()]) as server:
            with pytest.raises(Unguardable, match=UNKNOWN):
                await wsoffload.connect(server.uri, extensions=[OtherClientFactory()], guard=guard)
            # It was open already, and nobody else would close it.
            await until(lambda: not connections(server))
        async with serving(extensions=[OtherServerFactory()], guard=guard) as server:
            async with wsoffload.connect(
                server.uri, extensions=[OtherClientFactory()]
            ) as websocket:
                with pytest.raises(ConnectionClosedError):
                    await websocket.recv()

    run_async(main)


@pytest.mark.parametrize("name", ["start_keepalive", "keepalive", "send_context"])
def test_a_version_that_lacks_what_is_needed_is_served_unguarded(
    run_async: RunAsync[None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """As if it had another name there, and in all of the library that uses it."""
    renamed = f"other_{name}"
    for owner in (LibraryServer, LibraryClient):
        monkeypatch.setattr(owner, name, getattr(owner, name), raising=False)
    monkeypatch.setattr(Connection, renamed, getattr(Connection, name), raising=False)
    monkeypatch.delattr(Connection, name)

    async def main() -> None:
        async with serving() as server:
            async with wsoffload.connect(server.uri) as websocket:
                await one_echo(websocket)
                for connection in (websocket, await accepted(server)):
                    assert connection.guard.reason == f"this version of websockets has no {name}"
                    assert connection.keepalive_task is not None

    run_async(main)
    assert len(warnings_of(caplog)) == 1


def test_a_keepalive_of_ones_own_is_left_alone(run_async: RunAsync[None]) -> None:
    class Own(LibraryServer):
        async def keepalive(self) -> None:
            await asyncio.sleep(60)

    async def main() -> None:
        async with serving(create_connection=Own) as server:
            async with wsoffload.connect(server.uri) as websocket:
                await one_echo(websocket)
                connection = await accepted(server)
                assert connection.guard.state == "unguarded"
                assert connection.guard.reason.startswith("its class has a keepalive of its own: ")
                assert connection.keepalive_task is not None

    run_async(main)


@without_13_0
def test_a_keepalive_that_runs_already_is_left_alone(run_async: RunAsync[None]) -> None:
    class Early(LibraryClient):
        async def handshake(self, *args: Any, **kwargs: Any) -> None:
            await super().handshake(*args, **kwargs)
            self.keepalive_task = self.loop.create_task(self.keepalive())

    async def main() -> None:
        async with serving() as server:
            async with wsoffload.connect(server.uri, create_connection=Early) as websocket:
                assert websocket.guard.reason == "the keepalive of websockets runs already"
                first = websocket.keepalive_task
                await one_echo(websocket)
        # The library's own second one has taken its place.
        assert first is not None

    run_async(main)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_message_size": None, "max_fragment_size": 5000}, (None, 5000)),
        ({"max_message_size": 1e6 + 0.5, "max_fragment_size": -1}, (1000000, 0)),
        ({"max_message_size": float("inf"), "max_fragment_size": None}, (None, None)),
        # Before websockets 16.
        ({"max_size": 700}, (700, None)),
        ({"max_size": None}, (None, None)),
    ],
)
def test_limits_are_those_of_the_library(
    limits: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    class Protocol:
        extensions = ()

    class Transport:
        def start(self, **settings: Any) -> None:
            self.settings = settings

    class Fake(_websockets.GuardedConnection):
        def __init__(self) -> None:
            self.protocol: Any = Protocol()
            self.protocol.__dict__.update(limits)
            self.keepalive_task = None
            self._pings = _websockets._Pings()
            self.debug = False

    transport: Any = Transport()
    Fake()._start(transport)
    settings = transport.settings
    assert (settings["max_message"], settings["max_fragment"]) == expected
    assert settings["log"] is None


# ---- Without websockets.


def test_without_websockets_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "wsoffload._websockets")
    for name in ("serve", "connect", "ServerConnection"):
        with pytest.raises(ImportError, match=r"pip install 'wsoffload\[websockets\]'") as raised:
            getattr(wsoffload, name)
        assert raised.value.name == "websockets"


def test_import_does_not_need_websockets() -> None:
    program = (
        "import sys; sys.modules['websockets'] = None; import wsoffload; wsoffload.run; "
        "print('websockets.asyncio' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "False\n", "")


def test_names_are_those_of_the_adapter() -> None:
    module = importlib.import_module("wsoffload._websockets")
    for name in ("ClientConnection", "ServerConnection", "connect", "serve", "unix_serve"):
        assert getattr(wsoffload, name) is getattr(module, name)
        assert name in wsoffload.__all__
    with pytest.raises(AttributeError, match="module 'wsoffload' has no attribute 'sever'"):
        wsoffload.sever  # type: ignore[attr-defined]  # noqa: B018
