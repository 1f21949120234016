"""What became of the Pings while the GIL was held: as a plot, and as a verdict."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# The columns of the plot, and those left of it; together they fit a terminal of 80.
COLUMNS = 66
MARGIN = 11
# The rows of the plot, from the top: their labels, and the shortest delay that each shows, in
# seconds. The scale is logarithmic, two rows for each power of ten.
ROWS = (
    ("never", math.inf),
    ("", 3.16),
    ("1 s", 1.0),
    ("", 0.316),
    ("100 ms", 0.1),
    ("", 0.0316),
    ("10 ms", 0.01),
    ("", 0.00316),
    ("1 ms", 0.001),
    ("< 1 ms", 0.0),
)
MARKS = {"plain": "x", "guarded": "o"}
BOTH = "*"


@dataclass(frozen=True)
class Pings:
    """What the clients of one server saw.

    The time from `seconds` before the end to the end is cut into equal columns. `columns` has for
    each the longest Pong delay, in seconds, of the Pings that were sent in it, and None where none
    was sent that was answered; `unanswered` are the columns of Pings that never were. The GIL was
    held from column `begin` to column `end`. `answered` counts the Pings that were under way
    meanwhile and were answered at some time; `median` and `longest` are the delays of their Pongs.
    """

    connections: int
    kept: int
    columns: list[float | None] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    answered: int = 0
    median: float = 0.0
    longest: float = 0.0
    begin: float = 0.0
    end: float = 0.0
    seconds: float = 0.0

    def kept_text(self) -> str:
        return f"{self.kept} of {self.connections}"

    def delay_text(self) -> str:
        if not self.answered:
            return "Pings answered meanwhile: none"
        return (
            f"Pings answered meanwhile: {self.answered}, "
            f"median {shown(self.median)}, longest {shown(self.longest)}"
        )

    def row_at(self, column: int) -> int | None:
        """The row of the mark in a column; None for no mark."""
        if column in self.unanswered:
            return 0
        delay = self.columns[column]
        if delay is None:
            return None
        return next(row for row, (_, least) in enumerate(ROWS) if delay >= least)


def shown(delay: float) -> str:
    """A delay in words."""
    return f"{delay:.2f} s" if delay >= 1 else f"{delay * 1000:.3g} ms"


def plot(pings: Mapping[str, Pings]) -> Iterator[str]:
    """Draw the longest Pong delays of both servers over time, in lines of at most 80 columns."""
    guarded = pings["guarded"]
    yield "Longest Pong delay, by when its Ping was sent:"
    for row, (label, _) in enumerate(ROWS):
        marks = "".join(mark_at(pings, row, column) for column in range(COLUMNS))
        yield f"{label:>{MARGIN - 2}} |{marks}".rstrip()
    yield " " * (MARGIN - 1) + "+" + "-" * COLUMNS
    begin, end = round(guarded.begin), max(round(guarded.end), round(guarded.begin) + 2)
    bar = f"{' the GIL is held ':=^{end - begin}}"
    yield " " * (MARGIN + begin) + (bar if len(bar) == end - begin else "=" * (end - begin))
    times = f"0 s{f'{guarded.seconds:.1f} s':>{COLUMNS - 3}}"
    yield " " * MARGIN + times
    yield " " * MARGIN + f"x plain websockets   o guarded by wsoffload   {BOTH} both"


def mark_at(pings: Mapping[str, Pings], row: int, column: int) -> str:
    names = [name for name, seen in pings.items() if seen.row_at(column) == row]
    if len(names) > 1:
        return BOTH
    return MARKS[names[0]] if names else " "


def verdict(pings: Mapping[str, Pings]) -> tuple[list[str], bool]:
    """Sum up what happened: lines to print, and whether wsoffload kept its promise."""
    plain, guarded = pings["plain"], pings["guarded"]
    width = max(map(len, pings))
    lines = [
        f"{name:{width}}  connections kept: {seen.kept_text()}; {seen.delay_text()}"
        for name, seen in pings.items()
    ]
    if guarded.kept < guarded.connections:
        lost = f"only {guarded.kept_text()} guarded connections were kept"
        return [*lines, f"wsoffload failed: {lost}."], False
    lines.append(
        f"wsoffload kept {guarded.kept_text()} connections while the GIL was held; "
        f"plain websockets kept {plain.kept_text()}."
    )
    if plain.kept == plain.connections:
        lines.append("So did plain websockets: the time was short, --hold makes it longer.")
    return lines, True
