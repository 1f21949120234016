"""The rows of the result and their Markdown table, which reads as well in a terminal."""

from collections.abc import Iterable
from dataclasses import dataclass

from ._rounds import Spread, ratios

HEADINGS = ("what", "loop", "against", "wsoffload", "other", "ratio", "low", "high", "goal", "")


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio of two costs, a plain value, or the reason why neither."""

    what: str
    loop: str
    against: str = ""
    unit: str = ""
    ours: float | None = None  # the median, in `unit`
    theirs: float | None = None  # likewise; None if the row compares with nobody
    spread: Spread | None = None  # of the ratio, or of our own value if `plain`
    goal: float | None = None  # the spread's middle should be this or less
    plain: bool = False  # a value that stands for itself
    note: str = ""  # why there is nothing to show

    @property
    def verdict(self) -> str:
        if self.spread is None:
            return self.note
        if self.goal is None:
            return ""
        return "reached" if self.spread.middle <= self.goal else "not reached"


def compare(
    what: str,
    loop: str,
    against: str,
    unit: str,
    ours: list[float],
    theirs: list[float],
    goal: float | None = None,
) -> Row:
    """A row that sets what one call costs here beside what it costs there."""
    ours_middle, theirs_middle = Spread.of(ours).middle, Spread.of(theirs).middle
    spread = ratios(ours, theirs)
    return Row(what, loop, against, unit, ours_middle, theirs_middle, spread, goal)


def plain(
    what: str,
    loop: str,
    unit: str,
    ours: list[float],
    goal: float | None = None,
    against: str = "",
    theirs: list[float] | None = None,
) -> Row:
    """A row of counts, which may be zero, so that no quotient can be formed."""
    spread = Spread.of(ours)
    other = Spread.of(theirs).middle if theirs else None
    return Row(what, loop, against, unit, spread.middle, other, spread, goal, plain=True)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    return f"{value:.3g} {unit}".rstrip() if value < 1000 else f"{value:,.0f} {unit}".rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    spread = row.spread
    return (
        row.what,
        row.loop,
        row.against,
        _number(row.ours, row.unit),
        _number(row.theirs, row.unit),
        _number(spread.middle) if spread and not row.plain else "",
        _number(spread.low) if spread else "",
        _number(spread.high) if spread else "",
        f"<= {_number(row.goal)}" if row.goal is not None else "",
        row.verdict,
    )


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table whose columns are aligned."""
    lines = [HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
