"""The process of the clients of one server of the third act, where a handler holds the GIL.

It prints "ready" when all are connected and waits for a byte on standard input. Then the last
client asks the handler to hold the GIL, and when that is over the process prints what became of the
Pings, as a line of JSON.
"""

import argparse
import asyncio
import contextlib
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .child import attend_parent, client_arguments, tell
from .clients import PATIENCE, PERIOD, Watched
from .hold_report import COLUMNS, Pings


def outcomes(connections: Sequence[Watched]) -> Iterator[tuple[float, float | None]]:
    """When each Ping was sent, and how long its Pong took; None if it was never answered."""
    for connection in connections:
        yield from connection.pongs
        if connection.closed and connection.asked is not None:
            yield connection.asked, None


def sum_up(connections: Sequence[Watched], first: float, held: float, over: float) -> Pings:
    """Say what became of the Pings that were sent from `first` on; all are moments of one clock."""
    now = time.monotonic()
    width = (now - first) / COLUMNS
    columns: list[float | None] = [None] * COLUMNS
    unanswered: set[int] = set()
    delays = []
    for sent, delay in outcomes(connections):
        column = math.floor((sent - first) / width)
        if not 0 <= column < COLUMNS:
            continue
        if delay is None:
            unanswered.add(column)
            continue
        columns[column] = max(delay, columns[column] or 0.0)
        # What was under way when it began counts, too.
        if sent <= over and sent + delay >= held:
            delays.append(delay)
    return Pings(
        connections=len(connections),
        kept=sum(connection.kept for connection in connections),
        columns=columns,
        unanswered=sorted(unanswered),
        answered=len(delays),
        median=statistics.median(delays or [0.0]),
        longest=max(delays, default=0.0),
        begin=(held - first) / width,
        end=(over - first) / width,
        seconds=now - first,
    )


async def connect_all(options: argparse.Namespace) -> list[Watched]:
    """Connect one after the other, so that their Pings are spread over the interval."""
    connections: list[Watched] = []
    for _ in range(options.connections):
        connection = await connect(
            options.url,
            ping_interval=options.ping_interval,
            ping_timeout=options.ping_timeout,
            close_timeout=PATIENCE,
            create_connection=Watched,
        )
        assert isinstance(connection, Watched)
        connections.append(connection)
        await asyncio.sleep(options.ping_interval / options.connections)
    return connections


async def hold(asker: Watched) -> tuple[float, float]:
    """Have the GIL held; return when that began and when it was over, or the connection lost."""
    await asker.send("hold")
    await asker.recv()
    held = time.monotonic()
    with contextlib.suppress(ConnectionClosed):
        await asker.recv()
    return held, time.monotonic()


async def attend(options: argparse.Namespace, go: asyncio.Event) -> None:
    """Connect, wait for `go`, have the GIL held, and report when nothing can change any more."""
    connections = await connect_all(options)
    tell("ready")
    await go.wait()
    first = time.monotonic()
    await asyncio.sleep(options.margin)
    held, over = await hold(connections[-1])
    await asyncio.sleep(options.margin)
    while True:
        if all(connection.closed or connection.heard > over for connection in connections):
            break
        await asyncio.sleep(PERIOD)
    tell(json.dumps(asdict(sum_up(connections, first, held, over))))
    await asyncio.gather(*(connection.close() for connection in connections))


def main(argv: Sequence[str]) -> None:
    """Read the arguments and run until all is reported."""
    parser = client_arguments()
    parser.add_argument("--margin", type=float, required=True, help="seconds before and after")
    asyncio.run(attend_parent(attend, parser.parse_args(argv)))


if __name__ == "__main__":
    main(sys.argv[1:])
