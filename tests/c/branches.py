"""The core's branch coverage, per file, against the list of branches that cannot be reached.

Usage: branches.py FOLDER, where FOLDER has the objects and the counts of a build with coverage.

Prints each file of the core with its reached and existing branches. Fails if a branch that no test
reaches is not in unreached.txt, or if one that is listed there was reached or is gone. The list
names a branch by its file and the text of its line, so that it survives other changes of the file.
A reason that begins with "sometimes" is for what depends on the machine, and may be reached.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
CORE = (HERE / "../../csrc/core").resolve()

# File and line number: how often each branch of the line was taken, or the line was executed.
Lines = dict[tuple[str, int], list[int]]


def read_counts(folder: Path) -> tuple[Lines, Lines]:
    """The executions of each line and those of each of its branches, over all objects."""
    executions: Lines = defaultdict(lambda: [0])
    branches: Lines = {}
    for notes in sorted(folder.glob("core-*.gcno")):
        command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", notes.name]
        output = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout
        for file in json.loads(output)["files"]:
            path = (folder / file["file"]).resolve()
            path = path if path.exists() else (HERE / file["file"]).resolve()
            if path.parent != CORE:
                continue
            for line in file["lines"]:
                where = (path.name, line["line_number"])
                executions[where][0] += line["count"]
                counts = [branch["count"] for branch in line["branches"]]
                before = branches.get(where, [])
                # An inline function of a header has counts in each object that uses it.
                if counts and len(before) in (0, len(counts)):
                    before = before or [0] * len(counts)
                    branches[where] = [a + b for a, b in zip(before, counts, strict=True)]
                elif counts:
                    branches[where] = before + counts
    return executions, branches


def read_list() -> dict[tuple[str, str], str]:
    """File and text of a line: the reason why a branch of it is not reached."""
    listed = {}
    for line in (HERE / "unreached.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            file, text, reason = (part.strip() for part in line.split(" :: "))
            listed[file, text] = reason
    return listed


def main() -> int:
    """Print the table and the differences; the status of the command."""
    executions, branches = read_counts(Path(sys.argv[1]).resolve())
    sources = {path.name: path.read_text(encoding="utf-8").splitlines() for path in CORE.iterdir()}
    unreached: dict[tuple[str, str], int] = {}
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (file, number), counts in sorted(branches.items()):
        totals[file][0] += sum(count > 0 for count in counts)
        totals[file][1] += len(counts)
        if 0 in counts:
            unreached[file, sources[file][number - 1].strip()] = number
    for (file, number), (count,) in sorted(executions.items()):
        if count == 0:
            unreached[file, sources[file][number - 1].strip()] = number
    for file, (reached, all_of_them) in sorted(totals.items()):
        print(f"{file:16}{reached:5} of {all_of_them:4} branches")
    listed = read_list()
    certain = {where for where, reason in listed.items() if not reason.startswith("sometimes")}
    for (file, text), number in sorted(unreached.items()):
        if (file, text) not in listed:
            print(f"not reached and not listed: {file}:{number}: {text}")
    for file, text in sorted(certain - set(unreached)):
        print(f"listed but reached, or gone: {file}: {text}")
    return int(bool(set(unreached) - set(listed) or certain - set(unreached)))


if __name__ == "__main__":
    sys.exit(main())
