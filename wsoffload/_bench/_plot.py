"""The ratios as horizontal bars: shorter is cheaper, the line at 1 is what the others charge."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ._table import Row

COLOURS = {"asyncio": "#2f6fb0", "uvloop": "#e08a2c"}
GOAL_COLOUR = "#b01030"
LABEL = "cost with wsoffload / cost with the other (log scale; median, lowest, highest)"
PAIR_INCHES = 0.42
THICKNESS = 0.38


def plot(rows: Sequence[Row], facts: Sequence[str], path: str) -> None:
    """Draw every ratio that has a goal into the file `path`; its ending says which format.

    Raises ModuleNotFoundError if matplotlib is not installed.
    """
    matplotlib = import_module("matplotlib")
    # The same figures give the same file: no random identifiers, and no date (see savefig).
    matplotlib.rcParams.update({"svg.hashsalt": "wsoffload", "svg.fonttype": "none"})
    shown = [row for row in rows if row.goal is not None and not row.plain]
    labels = list(dict.fromkeys(_label(row) for row in shown))
    size = (9, 2 + PAIR_INCHES * len(labels))
    figure = import_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for row in shown:
        _draw(axes, labels.index(_label(row)), row)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel(LABEL, fontsize=8)
    axes.set_title("What wsoffload costs, beside the others")
    axes.legend(handles=_legend(), loc="lower right", fontsize=8)
    figure.text(0, -0.01, "\n".join(facts), fontsize=6, va="top")
    metadata = {"Date": None} if path.endswith(".svg") else None
    figure.savefig(path, bbox_inches="tight", metadata=metadata)


def _draw(axes: Any, position: int, row: Row) -> None:
    """One bar with its spread and its goal; the kinds of loop stand side by side."""
    assert row.spread is not None
    height = position + THICKNESS * (list(COLOURS).index(row.loop) - 0.5)
    axes.barh(height, row.spread.middle, color=COLOURS[row.loop], height=THICKNESS)
    axes.plot([row.spread.low, row.spread.high], [height] * 2, color="black", linewidth=0.8)
    ends = [height - THICKNESS / 2, height + THICKNESS / 2]
    axes.plot([row.goal] * 2, ends, color=GOAL_COLOUR, linewidth=1.5)


def _label(row: Row) -> str:
    return f"{row.what}, against {row.against}"


def _legend() -> list[Any]:
    patch = import_module("matplotlib.patches").Patch
    colours = {**COLOURS, "goal": GOAL_COLOUR}
    return [patch(color=colour, label=name) for name, colour in colours.items()]
