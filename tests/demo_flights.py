"""What the tests of the demo share: a small file of flights, and who has which children."""

import contextlib
import zipfile
from pathlib import Path

FLIGHTS = 300
# Longer than any Pong takes, in seconds.
MINUTE = 60.0


def write_flights(folder: Path) -> Path:
    """Write a file of flights like the real one: zipped, with columns that nobody asks for."""
    lines = ["year,minute,dep_delay,carrier,flight,origin,dest,distance,time_hour"]
    for number in range(FLIGHTS):
        delay = "" if number % 50 == 7 else str(number * 37 % 101 - 10)
        origin = ("EWR", "JFK", "LGA")[number % 3]
        hour = f"2013-01-{1 + number // 240:02}T{number // 10 % 24:02}:00:00Z"
        lines.append(f"2013,{number % 10 * 6},{delay},AA,{number},{origin},MIA,999,{hour}")
    path = folder / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", "\n".join(lines) + "\n")
    return path


def children(pid: int | str = "self") -> set[int]:
    """The processes that a process has started and not yet waited for."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread that has just ended has handed its children to another one.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found
