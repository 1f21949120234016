"""The processes of the demo play their parts and never outlive it; how fast, no test asks.

No client here loses its connection because the machine is slow: each waits for its Pongs for a
minute, and where a connection must be lost, its server goes.
"""

# What the demo needs is asked for before it is imported.
# ruff: noqa: E402

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import PATIENCE, wait_until
from demo_flights import FLIGHTS, MINUTE, children, write_flights

for package in ("pandas", "rich", "websockets"):
    pytest.importorskip(package, reason="the demo needs it, and it is not installed")

from wsoffload._demo import child, clients, data, stage
from wsoffload._demo.report import Report, fault

# Clients that never send a Ping never hear a Pong, so that their demo goes on until it is ended.
ENDLESS = stage.Settings(minutes=5, connections=2, ping_interval=60 * MINUTE)

# A server that hears nobody from the first message on, as its own input never ends.
DEAF_SERVER = """
import asyncio, os
from websockets.asyncio.server import serve

async def handler(websocket):
    async for message in websocket:
        os.read(0, 1)

async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()

asyncio.run(main())
"""

# The whole command on a small file, for a test that ends it; argv: the file, the settings.
COMMAND = """
import functools, json, pathlib, sys
from wsoffload._demo import cli, data, stage
data.find = lambda: pathlib.Path(sys.argv[1])
stage.Settings = functools.partial(stage.Settings, **json.loads(sys.argv[2]))
sys.exit(cli.main(["--connections", "2", "--seconds", "0.01"]))
"""


def alive(pid: int) -> bool:
    """Whether a process runs; what has ended counts as gone, though nobody has waited for it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def no_child_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flights(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def database(source: Path) -> Path:
    path = source.with_name("flights.db")
    assert data.load(source, path) == FLIGHTS
    return path


# The clients.


@pytest.mark.usefixtures("no_child_left")
def test_clients_report_what_a_deaf_server_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Report] = []
    asked_early: list[bool] = []

    async def attend(server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        go = asyncio.Event()

        def emit(report: Report) -> None:
            reports.append(report)
            if not go.is_set():
                asked_early.append(report.state != "ready" or len(reports) > 1)
                asyncio.get_running_loop().call_later(0.05, go.set)
            # Deaf for long enough to be seen: now it goes, with all connections.
            if report.pong_delay > 0.3:
                server.kill()

        monkeypatch.setattr(clients, "emit", emit)
        options = argparse.Namespace(
            url=f"ws://127.0.0.1:{server.stdout.readline().strip()}",
            connections=3,
            minutes=5,
            ping_interval=0.1,
            ping_timeout=MINUTE,
        )
        async with asyncio.timeout(PATIENCE):
            await clients.attend(options, go)

    command = [sys.executable, "-c", DEAF_SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as deaf:
        try:
            asyncio.run(attend(deaf))
        finally:
            deaf.kill()
    assert asked_early == [False]
    states = [report.state for report in reports]
    assert states[0] == "ready"
    assert "querying" in states
    assert states[-1] == "lost"
    assert [report.final for report in reports] == [False] * (len(reports) - 1) + [True]
    last = reports[-1]
    assert last.kept == last.rows == last.chunks == 0
    assert last.pong_delay > 0.3
    assert last.seconds > 0


def test_a_connection_remembers_its_longest_wait() -> None:
    connection = clients.Watched.__new__(clients.Watched)
    for latency in (0.1, 0.3, 0.2):
        # As the library does it.
        connection.latency = latency
        assert connection.latency == latency
    assert connection.longest() == 0.3


# The processes.


def test_a_child_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[object] = []
    incoming = iter([b"!", b"!", b""])
    fake = SimpleNamespace(read=lambda fd, size: next(incoming), _exit=log.append)
    monkeypatch.setattr(child, "os", fake)
    child._follow(lambda: log.append("signal"))
    assert log == ["signal", "signal", 1]


def test_a_child_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    # The end of the parent may be noticed by a write first.
    class Unread:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    log: list[int] = []
    monkeypatch.setattr(child, "os", SimpleNamespace(_exit=log.append))
    monkeypatch.setattr(sys, "stdout", Unread())
    child.tell("a report")
    assert log == [1]


@pytest.mark.parametrize("server", stage.SERVERS)
def test_a_server_without_a_parent_ends(server: str, database: Path) -> None:
    command = [sys.executable, "-m", "wsoffload._demo.server", server, str(database)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == b""


@pytest.mark.usefixtures("no_child_left")
def test_a_small_demo_comes_to_its_end(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowds: list[asyncio.subprocess.Process] = []
    create = asyncio.create_subprocess_exec

    async def note(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await create(*command, **options)
        if "wsoffload._demo.clients" in command:
            crowds.append(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", note)
    settings = stage.Settings(minutes=30, connections=5, ping_timeout=MINUTE)
    seen: list[tuple[str, ...]] = []

    def show(reports: Mapping[str, Report]) -> None:
        seen.append(tuple(report.state for report in reports.values()))

    reports = asyncio.run(stage.play(database, settings, show))
    assert list(reports) == ["naive", "wsoffload"]
    for report in reports.values():
        assert fault(report, FLIGHTS) == ""
        assert report.final
        assert report.connections == 6
        assert report.chunks == 1
        assert report.pong_delay > 0
        assert report.seconds > 0
    # The clients could say goodbye.
    assert [process.returncode for process in crowds] == [0, 0]
    # Nobody asks before all are connected.
    assert seen[:2] == [("ready", "starting"), ("ready", "ready")]
    assert seen[-1] == ("complete", "complete")


@pytest.mark.usefixtures("no_child_left")
def test_a_server_that_cannot_start_ends_the_demo(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SERVERS", {"wsoffload": None, "unknown": None})
    with pytest.raises(stage.StageError, match="unknown server ended early, status 1"):
        asyncio.run(stage.play(database, ENDLESS, print))


@pytest.mark.usefixtures("no_child_left")
def test_the_demo_gives_up_in_the_end(database: Path) -> None:
    settings = stage.Settings(minutes=5, time_limit=0.001)
    with pytest.raises(stage.StageError, match="not over after"):
        asyncio.run(stage.play(database, settings, print))


@pytest.mark.usefixtures("no_child_left")
@pytest.mark.parametrize("state", ["ready", "complete"])
def test_cancelling_the_demo_ends_its_processes(database: Path, state: str) -> None:
    started: set[int] = set()

    async def scene() -> None:
        reached = asyncio.Event()

        def show(reports: Mapping[str, Report]) -> None:
            if state in [report.state for report in reports.values()]:
                started.update(children())
                reached.set()

        playing = asyncio.create_task(stage.play(database, ENDLESS, show))
        await reached.wait()
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(scene())
    assert len(started) >= 4
    assert not any(map(alive, started))


@pytest.mark.usefixtures("no_child_left")
def test_a_child_that_will_not_end_is_killed(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PATIENCE", 0.0)

    async def scene() -> int | None:
        async with stage.child("server", "naive", str(database)) as process:
            await stage.line_of(process, "server")
            process.send_signal(signal.SIGSTOP)
        return process.returncode

    assert asyncio.run(scene()) == -signal.SIGKILL


@pytest.mark.usefixtures("no_child_left")
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_no_signal_leaves_a_process_behind(
    number: int, status: int, source: Path, tmp_path: Path
) -> None:
    settings = json.dumps({"ping_interval": ENDLESS.ping_interval})
    command = [sys.executable, "-c", COMMAND, str(source), settings]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipe = subprocess.PIPE
    # A group of its own, as a terminal makes one: Ctrl-C is for all of the group.
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as demo:
        try:
            assert demo.stdout is not None
            assert demo.stderr is not None
            while "complete" not in demo.stdout.readline():
                assert demo.poll() is None
            started = children(demo.pid)
            assert len(started) == 4
            os.killpg(demo.pid, number)
            assert demo.wait() == status
            wait_until(lambda: not any(map(alive, started)))
            assert demo.stderr.read() == ("interrupted\n" if status == 130 else "")
        finally:
            demo.kill()
    # Only where the command could say goodbye, the database is gone, too.
    assert bool(list(tmp_path.iterdir())) == (status != 130)
