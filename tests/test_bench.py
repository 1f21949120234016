"""The benchmarks answer every question completely; how fast anything is, no test asks."""

import asyncio
import importlib.util
import subprocess
import sys
import threading
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from wsoffload._bench import _cli, _contenders, _machine, _memory, _plot, _trip, main
from wsoffload._bench._rounds import Sizes, Spread, alternate, ratios
from wsoffload._bench._table import HEADINGS, Row, compare, markdown, plain

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TINY = Sizes(rounds=2, burst=20, trip_rounds=2, trips=10, items=50, single_items=5, queued=500)
COMPARED = {"burst", "tasks", "trip", "core"}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trip, "_counter", lambda: None)


# Questions.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("question", _cli.QUESTIONS)
def test_every_question_is_answered(question: str, loop: str) -> None:
    factory = _machine.loops()[loop]
    rows = _cli.ask(question, loop, factory, TINY)
    assert rows
    for row in rows:
        # A row shows a value and its spread, or says why not.
        assert (row.ours is None) == (row.spread is None) == bool(row.note)
        assert row.what
        assert row.verdict or row.goal is None
    if factory is not None and question in COMPARED:
        assert set(_contenders.OPENERS) - {"wsoffload"} <= {row.against for row in rows}


def test_a_loop_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert _machine.loops()["uvloop"] is None
    rows = _cli.measure(TINY, ["wakeups"])
    assert [(row.loop, row.note) for row in rows] == [
        ("asyncio", ""),
        ("uvloop", "uvloop is not installed"),
    ]


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asgiref.sync", None)
    for question in COMPARED:
        rows = _cli.ask(question, "asyncio", asyncio.new_event_loop, TINY)
        (row,) = [row for row in rows if row.against == "asgiref"]
        assert row.verdict.startswith("asgiref")
        assert row.verdict.endswith("is not installed")


def test_memory_is_weighed_once() -> None:
    assert len(_cli.measure(TINY, ["memory"])) == 1


def test_weighing_leaves_no_job_behind() -> None:
    weight = asyncio.run(_memory.weigh(1000))
    # The resident size moves in pages, so that few jobs may seem to weigh nothing at all.
    assert abs(weight) < 1 << 20


def test_weight_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _memory.print_weight(100)
    assert float(capsys.readouterr().out) < 1 << 20


# Contenders.


class AioMisc(ModuleType):
    """What the benchmark uses of aiomisc, for where it is not installed."""

    from concurrent.futures import ThreadPoolExecutor

    @staticmethod
    def threaded(function: _contenders.Call) -> _contenders.Call:
        return lambda: asyncio.get_running_loop().run_in_executor(None, function)


class AsgirefSync(ModuleType):
    """What the benchmark uses of asgiref, for where it is not installed."""

    @staticmethod
    def sync_to_async(function: _contenders.Call, thread_sensitive: bool) -> _contenders.Call:
        assert not thread_sensitive
        return lambda: asyncio.get_running_loop().run_in_executor(None, function)


@pytest.fixture
def every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("aiomisc") is None:
        monkeypatch.setitem(sys.modules, "aiomisc", AioMisc("aiomisc"))
    if importlib.util.find_spec("asgiref") is None:
        monkeypatch.setitem(sys.modules, "asgiref.sync", AsgirefSync("asgiref.sync"))


@pytest.mark.usefixtures("every_library")
@pytest.mark.parametrize("name", _contenders.OPENERS)
def test_every_contender_calls_on_another_thread(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[int] = []
    monkeypatch.setattr(_contenders, "noop", lambda: callers.append(threading.get_ident()))

    async def call() -> None:
        with ExitStack() as stack:
            contender = _contenders.OPENERS[name](stack, 2)
            contender.prepare()
            await contender.call()
            await contender.call()

    asyncio.run(call())
    assert len(callers) == 2
    assert threading.get_ident() not in callers


# System calls.


def test_trips_are_made_for_a_counter_outside() -> None:
    called: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_contenders, "noop", lambda: called.append(None))
        _trip.make_trips("wsoffload", "asyncio", 7)
    assert len(called) == 7


@pytest.mark.usefixtures("no_counter")
def test_without_a_counter_the_row_says_so() -> None:
    (row,) = asyncio.run(_trip.system_calls("asyncio", TINY))
    assert row.verdict == "neither perf nor strace can count here"


def test_a_counter_is_tried_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: tool)
    monkeypatch.setattr(_trip, "_counted", lambda command, report, program: command[0] == "strace")
    found = _trip._counter()
    assert found is not None
    assert found[0] == "strace"
    monkeypatch.setattr(_trip, "_counted", lambda command, report, program: 0)
    assert _trip._counter() is None


@pytest.mark.parametrize(
    ("report", "count"),
    [
        ("# started\n\n29,,raw_syscalls:sys_enter,892631,100.00,,\n", 29),
        ("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n", 0),
        ("% time  seconds  usecs/call  calls  errors syscall\n100.00 0.01 9 104 3 total\n", 104),
        ("", 0),
    ],
)
def test_reports_of_both_counters_are_read(report: str, count: int, tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    command = [sys.executable, "-c", script]
    assert _trip._counted(command, tmp_path / "report", [report]) == count


def test_a_counter_that_fails_counts_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    assert _trip._counted(command, tmp_path / "report", []) == 0


def test_starting_the_interpreter_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([5000 + 10 * 8, 5000 + 30 * 8])
    monkeypatch.setattr(_trip, "_counted", lambda command, report, program: next(counts))
    assert _trip._calls_per_trip([], "wsoffload", "asyncio", 10) == 8


# Rounds, rows and the table.


def test_rounds_alternate_and_warm_up() -> None:
    order: list[str] = []

    async def sample(name: str) -> float:
        order.append(name)
        return float(len(order))

    values = asyncio.run(alternate({name: partial(sample, name) for name in "ab"}, 3))
    assert order == list("ab" + "abbaab")
    assert values == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([1.0, 30.0, 2.0], [10.0, 100.0, 10.0]) == Spread(0.1, 0.2, 0.3)


def test_a_goal_is_reached_or_not() -> None:
    assert compare("a", "asyncio", "b", "µs", [1.0], [2.0], 0.5).verdict == "reached"
    assert compare("a", "asyncio", "b", "µs", [1.1], [2.0], 0.5).verdict == "not reached"
    assert compare("a", "asyncio", "b", "µs", [1.0], [2.0]).verdict == ""


def test_the_table_is_aligned_markdown() -> None:
    rows = [
        compare("burst", "asyncio", "run_in_executor", "µs", [3.0, 2.0, 4.0], [30.0] * 3, 0.1),
        plain("wake-ups", "uvloop", "", [12345.0], 300),
        plain("switches", "uvloop", "", [2.0], None, "other", [4.0]),
        Row("trip", "asyncio", "anyio", note="anyio is not installed"),
    ]
    lines = markdown(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(HEADINGS)
    assert all(set(cell) == {"-"} for cell in cells[1])
    assert cells[2][3:] == ["3 µs", "30 µs", "0.1", "0.0667", "0.133", "<= 0.1", "reached"]
    assert cells[3][3:] == ["12,345", "", "", "12,345", "12,345", "<= 300", "not reached"]
    assert cells[4][3:] == ["2", "4", "", "2", "2", "", ""]
    assert cells[5][3:] == ["", "", "", "", "", "", "anyio is not installed"]


def test_the_facts_name_what_was_compared() -> None:
    assert f"wsoffload {version('wsoffload')}" in "\n".join(_machine.describe())
    assert _machine._version("a-package-that-nobody-has") == "not installed"
    assert _machine.pool_size() == min(32, _machine.usable_cores() + 4)


# The command.


def test_the_command_prints_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cli, "QUICK", TINY)
    assert main(["--quick", "--only", "wakeups", "--only", "iterate"]) == 0
    out = capsys.readouterr().out
    assert "eventfd writes of a burst" in out
    assert "one item of a stream, max_items=1000" in out
    assert "one awaited call" not in out


def test_a_question_that_is_not_asked_here_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--only", "everything"])
    assert caught.value.code == 2
    assert "everything" in capsys.readouterr().err


BARS = [
    compare("burst", "asyncio", "run_in_executor", "µs", [3.0], [30.0], 0.1),
    compare("burst", "uvloop", "run_in_executor", "µs", [3.0], [30.0]),
    plain("wake-ups", "asyncio", "", [3.0]),
]
FORMATS = {"svg": b"<?xml", "png": b"\x89PNG"}


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """matplotlib keeps the files of its fonts open, so it opens them before a test begins."""
    pytest.importorskip("matplotlib", reason="draws the plot, and is not installed")
    for ending in FORMATS:
        _plot.plot(BARS, ["facts"], str(tmp_path_factory.mktemp("fonts") / f"first.{ending}"))


@pytest.mark.usefixtures("fonts")
@pytest.mark.parametrize("ending", FORMATS)
def test_the_ratios_are_drawn(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cli, "measure", lambda sizes, questions: BARS)
    monkeypatch.setattr(_cli, "describe", lambda: ["facts"])
    path, again = tmp_path / f"figures.{ending}", tmp_path / f"again.{ending}"
    assert main(["--plot", str(path)]) == 0
    assert path.read_bytes().startswith(FORMATS[ending])
    _plot.plot(BARS, ["facts"], str(again))
    assert path.read_bytes() == again.read_bytes()


# The scripts.


@pytest.mark.parametrize("question", _cli.QUESTIONS)
def test_every_question_has_a_script_of_its_own(question: str) -> None:
    script = BENCHMARKS / f"{question}.py"
    shown = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, check=True
    )
    assert "--only" in shown.stdout
    assert f'"--only", "{question}"' in script.read_text()


@pytest.mark.parametrize(
    ("jobs", "max_queue", "when_full"),
    [
        (100_000, None, "wait"),
        (20_000, 20, "wait"),
        (20_000, 20, "raise"),
        (20_000, 20, "drop_oldest"),
    ],
)
def test_each_job_is_settled_exactly_once(jobs: int, max_queue: int | None, when_full: str) -> None:
    ledger, _memory = load(BENCHMARKS / "soak.py").soak(jobs, max_queue, when_full)
    assert not ledger.faults()
    assert len(ledger.ran) == jobs
    assert sum(ledger.returned) > 0
    assert sum(ledger.cancelled) > 0
    if when_full != "raise":
        assert not sum(ledger.refused)
    if when_full != "drop_oldest":
        assert not sum(ledger.dropped)


@pytest.mark.parametrize(
    ("column", "values", "fault"),
    [
        ("returned", (0, 0), "never settled"),
        ("returned", (1, 2), "settled twice"),
        ("ran", (2, 1), "ran twice"),
        ("ran", (0, 1), "returned without having run"),
        ("barred", (0, 1), "ran although it must not"),
    ],
)
def test_the_soak_sees_faults(column: str, values: tuple[int, int], fault: str) -> None:
    ledger = load(BENCHMARKS / "soak.py").Ledger(2)
    ledger.ran[:] = ledger.returned[:] = b"\1\1"
    assert not ledger.faults()
    getattr(ledger, column)[:] = bytes(values)
    assert ledger.faults()[fault] >= 1


def test_the_soak_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert load(BENCHMARKS / "soak.py").main(["500"]) == 0
    assert "500 jobs" in capsys.readouterr().out
