"""Tests of examples/: each program runs as a user would run it, servers with a real client."""

import asyncio
import contextlib
import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

websockets = pytest.importorskip("websockets.asyncio.client", reason="the client of the servers")


def complaints(stderr: str) -> str:
    """What a program has to complain of; that the guard was at work is no complaint."""
    return re.sub(r"^an event loop stood still for .*; the guard kept .*\n", "", stderr, flags=re.M)


def run(name: str, *args: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert complaints(result.stderr) == ""
    assert result.returncode == 0
    return result.stdout.splitlines()


@contextlib.contextmanager
def served(name: str, *args: str, end: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """Run a server on a port that the kernel chooses; it must end with this signal, in silence."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *args, "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
            server.send_signal(end)
            _, stderr = server.communicate()
            assert complaints(stderr) == ""
            assert server.returncode == 0
        finally:
            server.kill()


def digest(password: str) -> str:
    return hashlib.scrypt(password.encode(), salt=b"example", n=2**14, r=8, p=1).hex()


def test_hello() -> None:
    first, second = digest("correct horse")[:16], digest("battery staple")[:16]
    assert run("hello.py") == [f"{first} {second}"]


def test_websocket_server() -> None:
    async def ask(url: str) -> list[str]:
        async with websockets.connect(url) as one, websockets.connect(url) as other:
            await one.send("first")
            await other.send("second")
            return [await one.recv(), await other.recv()]

    with served("websocket_server.py") as url:
        assert asyncio.run(ask(url)) == [digest("first"), digest("second")]


def test_sqlite_stream(tmp_path: Path) -> None:
    async def ask(url: str, city: str) -> list[str]:
        async with websockets.connect(url) as client:
            await client.send(city)
            chunks = []
            while (chunk := await client.recv()) != "":
                chunks.append(chunk)
            return chunks

    with served("sqlite_stream.py", str(tmp_path / "measured.db")) as url:
        assert asyncio.run(ask(url, "Nowhere")) == []
        chunks = asyncio.run(ask(url, "Oslo"))
    parts = [json.loads(chunk) for chunk in chunks]
    assert [len(part) for part in parts] == [1000] * 10
    rows = [tuple(row) for part in parts for row in part]
    expected = [(i, i * i % 97) for i in range(30_000) if i % 3 == 1]
    assert rows == sorted(expected, key=lambda row: (row[1], row[0]))


def test_sqlite_stream_uses_the_database_that_is_there(tmp_path: Path) -> None:
    database = tmp_path / "measured.db"
    for _ in range(2):
        with served("sqlite_stream.py", str(database)) as url:
            assert url.startswith("ws://127.0.0.1:")


def test_bounded_pool() -> None:
    async def overload(url: str) -> str:
        async with contextlib.AsyncExitStack() as stack:
            connect = stack.enter_async_context
            clients = [await connect(websockets.connect(url)) for _ in range(7)]
            # More seconds than any machine needs to refuse the seventh.
            for client in clients:
                await client.send("600")
            answers = [asyncio.ensure_future(client.recv()) for client in clients]
            done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            (answer,) = done
            # The server never answers the others: no close handshake is waited for.
            for client in clients:
                client.transport.abort()
            return str(answer.result())

    async def ask(url: str) -> str:
        async with websockets.connect(url) as client:
            await client.send("0.01")
            return str(await client.recv())

    with served("bounded_pool.py") as url:
        assert asyncio.run(ask(url)) == "worked for 0.01 s"
    command = [sys.executable, str(EXAMPLES / "bounded_pool.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert asyncio.run(overload(url)) == "busy, try again later"
        finally:
            server.kill()


def test_cancel_and_timeout() -> None:
    late, unbegun, cancelled, finished = run("cancel_and_timeout.py")
    assert re.fullmatch(r"1\. 'report' call timed out: timeout=0\.1 s passed while it was .*", late)
    assert re.fullmatch(r"2\. call timed out: queue_timeout=0\.1 s .* it was still queued", unbegun)
    assert cancelled == "3. cancelled, and the call has ended: True"
    assert finished == "4. finished"


def test_default_executor() -> None:
    thread, calls = run("default_executor.py")
    assert thread == "to_thread runs on default_0"
    assert calls == "getaddrinfo too: 2 calls so far"


def test_executor_map() -> None:
    keys = (
        hashlib.pbkdf2_hmac("sha256", b"secret", str(number).encode(), 20_000).hex()[:16]
        for number in range(1, 6)
    )
    assert run("executor_map.py") == [f"{i} {key}" for i, key in enumerate(keys, 1)]


def test_guarded_server_and_client() -> None:
    with served("guarded_server.py") as url:
        lines = run("guarded_client.py", url)
    # The guard has its time while the other side blocks, and how many Pings that is, no test asks.
    answered = r"guarded, \d+ Pings answered so far"
    assert re.fullmatch(rf"the server: {answered}\nthe client: {answered}", "\n".join(lines))


def test_guarded_server_tells_what_was_answered() -> None:
    async def ask(url: str) -> str:
        async with websockets.connect(url, ping_interval=None) as client:
            await (await client.ping())
            await client.send("0.01")
            return str(await client.recv())

    with served("guarded_server.py") as url:
        assert asyncio.run(ask(url)) == "guarded, 1 Pings answered so far"


@pytest.mark.parametrize(
    "name", ["websocket_server.py", "bounded_pool.py", "sqlite_stream.py", "guarded_server.py"]
)
def test_servers_end_with_ctrl_c(name: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "measured.db")] if name == "sqlite_stream.py" else []
    with served(name, *arguments, end=signal.SIGINT) as url:
        assert url.startswith("ws://127.0.0.1:")


def test_each_example_has_a_test() -> None:
    source = Path(__file__).read_text() + (Path(__file__).parent / "test_demo.py").read_text()
    untested = [path.name for path in EXAMPLES.glob("*.py") if path.name not in source]
    assert untested == []
