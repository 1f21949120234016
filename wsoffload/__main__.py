"""The commands of `python -m wsoffload`: demo, bench and doctor."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "demo": "one server with wsoffload and one without, side by side",
    "bench": "what an offloaded call costs here, beside other ways to leave the loop",
    "doctor": "what a bug report needs: versions, loop, machine, limits, and a self-test",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wsoffload",
        usage="%(prog)s [--help] {" + ",".join(COMMANDS) + "} ...",
        description="Commands that come with wsoffload.",
        epilog="Each command has a --help of its own.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lines = "\n".join(f"{name:<8}{purpose}" for name, purpose in COMMANDS.items())
    parser.add_argument_group("commands", lines)
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command that `argv` begins with, and return its exit status.

    What follows the name of the command is the command's own. Raises SystemExit with status 2 for
    a command that does not exist or none at all.
    """
    command: str = _parser().parse_args(argv[:1]).command
    # The demo and the benchmark need packages that doctor must do without.
    status: int = import_module(f"wsoffload._{command}").main(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
