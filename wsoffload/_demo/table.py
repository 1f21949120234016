"""How the demo shows what happens: a live table on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.live import Live
from rich.table import Table

from .report import ENDS, Report
from .server import SERVERS
from .stage import Show

TITLE = "Two websockets servers answer the same query"
# How often a line is printed where there is no live table, in seconds.
PERIOD = 1.0


def draw(reports: dict[str, Report]) -> Table:
    """One column for each server."""
    table = Table(title=TITLE)
    table.add_column()
    for name in reports:
        table.add_column(name, min_width=22)
    seen = reports.values()
    table.add_row("query", *(_colored(report.state, report.state != "lost") for report in seen))
    table.add_row("time of the query", *(report.query_text() for report in seen))
    table.add_row("chunks", *(f"{report.chunks:,}" for report in seen))
    table.add_row("rows", *(f"{report.rows:,}" for report in seen))
    table.add_row(
        "connections kept", *(_colored(report.kept_text(), report.all_kept) for report in seen)
    )
    table.add_row(
        "longest Pong delay", *(_colored(report.delay_text(), report.all_kept) for report in seen)
    )
    return table


def _colored(text: str, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{text}[/]"


class Lines:
    """Prints a line for a server when its query gets on, and once a second."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, float]] = {}

    def show(self, reports: dict[str, Report]) -> None:
        now = time.monotonic()
        for name, report in reports.items():
            state, when = self._shown.get(name, ("", 0.0))
            over = report.state in ENDS or now - when < PERIOD
            if report.state == "starting" or (report.state == state and over):
                continue
            self._shown[name] = (report.state, now)
            print(
                f"{name}: {report.state}, {report.rows:,} rows, "
                f"{report.kept_text()} connections kept, "
                f"longest Pong delay {report.delay_text()}",
                flush=True,
            )


@contextlib.contextmanager
def display() -> Iterator[Show]:
    """Give the function that shows the reports of both servers."""
    if not sys.stdout.isatty():
        yield Lines().show
        return
    first = draw({name: Report() for name in SERVERS})
    with Live(first, refresh_per_second=10) as live:
        yield lambda reports: live.update(draw(reports))
