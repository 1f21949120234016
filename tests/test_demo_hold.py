"""The third act of the demo: what its clients saw is summed up, drawn and judged as it was.

No connection of a whole act is lost because the machine is slow: its clients wait for their Pongs
for a minute, and where a connection must be lost, its server goes.
"""

# What the demo needs is asked for before it is imported.
# ruff: noqa: E402

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MS, PATIENCE, until
from demo_flights import MINUTE, children

for package in ("pandas", "websockets"):
    pytest.importorskip(package, reason="the demo needs it, and it is not installed")

from websockets.asyncio.server import serve

import wsoffload
from wsoffload._demo import hold, hold_clients, hold_report, hold_server, stage
from wsoffload._demo.hold_report import BOTH, COLUMNS, MARGIN, Pings, plot, verdict

PATIENT = hold.Settings(hold=300 * MS, connections=3, ping_timeout=MINUTE, margin=0.05)

# A server that says that it holds, and is deaf from then on, as its own input never ends.
DEAF_SERVER = """
import asyncio, os
from websockets.asyncio.server import serve

async def handler(websocket):
    async for message in websocket:
        await websocket.send("holding")
        os.read(0, 1)

async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.wait_closed()

asyncio.run(main())
"""


@pytest.fixture
def no_child_left() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


def pings(**given: Any) -> Pings:
    """What nobody pinged, but for what is given."""
    whole: dict[str, Any] = {"connections": 51, "kept": 51, "columns": [None] * COLUMNS}
    return Pings(**{**whole, "begin": 8.0, "end": 58.0, "seconds": 6.6, **given})


# What the clients saw.


def connection(
    *pongs: tuple[float, float], asked: float | None = None, closed: bool = False
) -> Any:
    return SimpleNamespace(pongs=list(pongs), asked=asked, closed=closed, kept=not closed)


def test_what_became_of_the_pings_is_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # A column is a second wide.
    end = 1000.0 + COLUMNS
    monkeypatch.setattr(hold_clients, "time", SimpleNamespace(monotonic=lambda: end))
    seen = hold_clients.sum_up(
        [
            # Before the first column, under way when the holding begins, within, and after.
            connection((999.5, 0.1), (1004.5, 0.6), (1004.6, 0.7), (1007.2, 0.3), (1030.1, 0.2)),
            connection((1007.0, 0.4), asked=1007.9, closed=True),
            connection((1004.7, 0.01), asked=end - 0.1),
            connection(asked=900.0, closed=True),
        ],
        1000.0,
        1005.0,
        1010.0,
    )
    assert (seen.connections, seen.kept) == (4, 2)
    assert {i: delay for i, delay in enumerate(seen.columns) if delay is not None} == {
        4: 0.7,
        7: 0.4,
        30: 0.2,
    }
    assert seen.unanswered == [7]
    assert (seen.answered, seen.median, seen.longest) == (4, pytest.approx(0.5), 0.7)
    assert (seen.begin, seen.end, seen.seconds) == (5.0, 10.0, COLUMNS)


def test_a_server_that_answers_nothing_can_be_summed_up() -> None:
    seen = hold_clients.sum_up([connection(asked=1.0, closed=True)], 0.0, 1.0, 2.0)
    assert (seen.answered, seen.median, seen.longest) == (0, 0.0, 0.0)
    assert seen.delay_text() == "Pings answered meanwhile: none"


@pytest.mark.usefixtures("no_child_left")
def test_clients_report_what_a_deaf_server_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    connect_all = hold_clients.connect_all

    async def attend(server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        go = asyncio.Event()
        killing: list[asyncio.Task[None]] = []

        async def kill(connections: Any) -> None:
            # Deaf for long enough that each waits for a Pong: now it goes, with all connections.
            await until(lambda: told and all(c.asked is not None for c in connections))
            await asyncio.sleep(0.3)
            await until(lambda: all(c.asked is not None for c in connections))
            server.kill()

        async def noted(options: argparse.Namespace) -> Any:
            connections = await connect_all(options)
            killing.append(asyncio.create_task(kill(connections)))
            return connections

        def tell(line: str) -> None:
            told.append(line)
            go.set()

        monkeypatch.setattr(hold_clients, "connect_all", noted)
        monkeypatch.setattr(hold_clients, "tell", tell)
        options = argparse.Namespace(
            url=f"ws://127.0.0.1:{server.stdout.readline().strip()}",
            connections=3,
            margin=0.05,
            ping_interval=0.1,
            ping_timeout=MINUTE,
        )
        async with asyncio.timeout(PATIENCE):
            await hold_clients.attend(options, go)
            await killing[0]

    command = [sys.executable, "-c", DEAF_SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as deaf:
        try:
            asyncio.run(attend(deaf))
        finally:
            deaf.kill()
    ready, report = told
    assert ready == "ready"
    seen = Pings(**json.loads(report))
    assert (seen.connections, seen.kept) == (3, 0)
    assert seen.unanswered
    assert 0 < seen.begin < seen.end < COLUMNS


# The plot.


def drawn(plain: Pings, guarded: Pings) -> list[str]:
    lines = list(plot({"plain": plain, "guarded": guarded}))
    # Any terminal, file or log takes it.
    assert all(len(line) <= 80 and line.isascii() and line.isprintable() for line in lines)
    return lines


@pytest.mark.parametrize(
    ("delay", "label"),
    [
        (12.0, ""),
        (1.5, "1 s"),
        (0.4, ""),
        (0.1, "100 ms"),
        (0.011, "10 ms"),
        (0.0012, "1 ms"),
        (0.0004, "< 1 ms"),
    ],
)
def test_each_delay_has_its_row(delay: float, label: str) -> None:
    columns: list[float | None] = [None] * COLUMNS
    columns[3] = delay
    lines = drawn(pings(), pings(columns=columns))
    (line,) = [line for line in lines if line.endswith("o")]
    assert line == f"{label:>{MARGIN - 2}} |   o"


def test_both_servers_are_drawn() -> None:
    plain: list[float | None] = [0.002, 0.002, None, 0.002, *[None] * (COLUMNS - 4)]
    guarded: list[float | None] = [0.002, None, 0.02, 0.0001, *[0.002] * (COLUMNS - 4)]
    lines = drawn(pings(columns=plain, unanswered=[2, 8]), pings(columns=guarded))
    rows = {line[: MARGIN - 1].strip(" |"): line[MARGIN:] for line in lines if "|" in line}
    assert rows["never"] == "  x     x"
    assert rows["10 ms"] == "  o"
    assert rows["1 ms"] == f"{BOTH}x x{'o' * (COLUMNS - 4)}"
    assert rows["< 1 ms"] == "   o"


@pytest.mark.parametrize(
    ("begin", "end", "bar"),
    [(8.0, 58.0, f"{' the GIL is held ':=^50}"), (30.2, 35.1, "====="), (30.2, 30.3, "==")],
)
def test_the_time_that_the_gil_is_held_is_drawn(begin: float, end: float, bar: str) -> None:
    lines = drawn(pings(), pings(begin=begin, end=end))
    assert " " * (MARGIN + round(begin)) + bar in lines
    assert lines[-2].split() == ["0", "s", "6.6", "s"]


# The verdict.

LOST = pings(kept=0, unanswered=[8])
GOOD = pings(answered=1020, median=0.0004, longest=0.0381)


def test_a_verdict_sums_up_both_servers() -> None:
    lines, kept = verdict({"plain": LOST, "guarded": GOOD})
    assert kept
    assert lines == [
        "plain    connections kept: 0 of 51; Pings answered meanwhile: none",
        "guarded  connections kept: 51 of 51; Pings answered meanwhile: 1020, median 0.4 ms, "
        "longest 38.1 ms",
        "wsoffload kept 51 of 51 connections while the GIL was held; plain websockets kept "
        "0 of 51.",
    ]


def test_a_verdict_does_not_claim_more_than_happened() -> None:
    lines, kept = verdict({"plain": pings(answered=3, longest=1.234), "guarded": GOOD})
    assert kept
    assert "longest 1.23 s" in lines[0]
    assert lines[-1].startswith("So did plain websockets")


def test_a_lost_connection_is_a_failure() -> None:
    lines, kept = verdict({"plain": LOST, "guarded": pings(kept=50)})
    assert not kept
    assert lines[-1] == "wsoffload failed: only 50 of 51 guarded connections were kept."


# The processes.


def test_the_servers_differ_by_one_function() -> None:
    assert hold_server.SERVE["plain"] is serve
    assert hold_server.SERVE["guarded"] is wsoffload.serve
    assert list(hold_server.SERVE) == list(hold_report.MARKS)


@pytest.mark.usefixtures("no_child_left")
def test_a_small_act_comes_to_its_end() -> None:
    seen = asyncio.run(hold.play(PATIENT))
    assert list(seen) == list(hold_report.MARKS)
    for name, one in seen.items():
        assert (one.connections, one.kept) == (4, 4)
        assert one.unanswered == []
        assert one.answered > 0
        assert 0 < one.begin < one.end < COLUMNS
        assert one.longest >= one.median > 0
        assert one.kept_text() in verdict(seen)[0][0 if name == "plain" else 1]
    assert verdict(seen)[1]


@pytest.mark.usefixtures("no_child_left")
def test_a_server_that_cannot_start_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "MARKS", {"unknown": "?"})
    with pytest.raises(stage.StageError, match="unknown server ended early, status 1"):
        asyncio.run(hold.play(PATIENT))


@pytest.mark.usefixtures("no_child_left")
def test_the_act_gives_up_in_the_end() -> None:
    settings = hold.Settings(hold=0.01, time_limit=0.001)
    with pytest.raises(stage.StageError, match=r"not over after 0\.001 s"):
        asyncio.run(hold.play(settings))


@pytest.mark.parametrize("server", hold_report.MARKS)
def test_a_server_without_a_parent_ends(server: str) -> None:
    command = [sys.executable, "-m", "wsoffload._demo.hold_server", server, "0.01"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == b""
