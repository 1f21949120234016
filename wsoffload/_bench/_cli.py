"""The command: which questions are asked, in which order, and how the answers are shown."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence

from ._burst import bare_burst, task_burst, wakeups
from ._iterate import iterate
from ._machine import LoopFactory, describe, loops
from ._memory import memory
from ._plot import plot
from ._rounds import FULL, QUICK, Sizes
from ._table import Row, markdown
from ._trip import on_one_core, round_trip, system_calls

Question = Callable[[str, Sizes], Awaitable[list[Row]]]

QUESTIONS: dict[str, Question] = {
    "burst": bare_burst,
    "tasks": task_burst,
    "trip": round_trip,
    "core": on_one_core,
    "syscalls": system_calls,
    "wakeups": wakeups,
    "iterate": iterate,
    "memory": memory,
}
# The memory of a job does not depend on the kind of loop.
ON_ONE_LOOP = ("memory",)


def ask(name: str, loop: str, factory: LoopFactory | None, sizes: Sizes) -> list[Row]:
    """Answer one question on a fresh loop of one kind."""
    if factory is None:
        return [Row(name, loop, note=f"{loop} is not installed")]
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_answer(QUESTIONS[name], loop, sizes))


async def _answer(question: Question, loop: str, sizes: Sizes) -> list[Row]:
    return await question(loop, sizes)


def measure(sizes: Sizes, questions: Iterable[str]) -> list[Row]:
    """Answer the questions one after the other, each on every kind of loop that matters to it."""
    rows: list[Row] = []
    for name in questions:
        for loop, factory in loops().items():
            if name in ON_ONE_LOOP and loop != "asyncio":
                continue
            print(f"measuring: {name} on {loop}", file=sys.stderr)
            rows += ask(name, loop, factory, sizes)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wsoffload bench",
        description="Compare what an offloaded call costs here with what it costs elsewhere. "
        "Everything is measured in one run, in turns; the goals never change the exit status.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument(
        "--only",
        action="append",
        choices=QUESTIONS,
        metavar="QUESTION",
        help=f"answer this question only; may be repeated; one of {', '.join(QUESTIONS)}",
    )
    parser.add_argument("--plot", metavar="FILE", help="also draw the ratios (SVG, PNG, PDF)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measure and print the result as Markdown. Return 0: a goal that is missed is no error."""
    options = _parser().parse_args(argv)
    sizes = QUICK if options.quick else FULL
    facts = describe()
    rows = measure(sizes, options.only or QUESTIONS)
    print(*(f"- {fact}" for fact in facts), "", markdown(rows), sep="\n")
    if options.plot:
        plot(rows, facts, options.plot)
    return 0
