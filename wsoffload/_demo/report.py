"""What the clients of a server saw, and what the demo concludes from it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "ready", "querying", "streaming", "complete", "lost"]
ENDS: tuple[State, ...] = ("complete", "lost")


@dataclass(frozen=True)
class Report:
    """The state of all clients of one server at one moment.

    `pong_delay` is the longest wait for a Pong, in seconds, and counts also one that never came;
    `seconds` is the time from the question to the end of the answer, to its loss, or to now.
    """

    state: State = "starting"
    connections: int = 0
    kept: int = 0
    pong_delay: float = 0.0
    chunks: int = 0
    rows: int = 0
    seconds: float = 0.0
    final: bool = False

    @property
    def all_kept(self) -> bool:
        return self.kept == self.connections

    def kept_text(self) -> str:
        return f"{self.kept} of {self.connections}"

    def delay_text(self) -> str:
        return (
            f"{self.pong_delay:.2f} s"
            if self.all_kept
            else f"no answer for {self.pong_delay:.2f} s"
        )

    def query_text(self) -> str:
        if self.state == "lost":
            return f"lost after {self.seconds:.2f} s"
        return f"{self.seconds:.2f} s"


def fault(report: Report, rows: int) -> str:
    """Say why this is not what wsoffload promises; nothing if it is. `rows` is the whole answer."""
    if not report.all_kept:
        return f"only {report.kept_text()} connections were kept"
    if report.state != "complete":
        return "the query did not come to its end"
    if report.rows != rows:
        return f"{report.rows:,} rows arrived instead of {rows:,}"
    return ""


def verdict(reports: dict[str, Report], rows: int) -> tuple[list[str], bool]:
    """Sum up what happened: lines to print, and whether wsoffload kept its promise."""
    width = max(map(len, reports))
    lines = [
        f"{name:{width}}  connections kept: {report.kept_text()}; "
        f"longest Pong delay: {report.delay_text()}; "
        f"query: {report.query_text()}, {report.rows:,} rows"
        for name, report in reports.items()
    ]
    wrong = fault(reports["wsoffload"], rows)
    if wrong:
        return [*lines, f"wsoffload failed: {wrong}."], False
    lines.append(
        f"wsoffload kept {reports['wsoffload'].kept_text()} connections while the query ran; "
        f"the naive server kept {reports['naive'].kept_text()}."
    )
    if reports["naive"].all_kept:
        lines.append("So did the naive server: the query was short, --seconds makes it longer.")
    return lines, True
