"""A WebSocket server that streams the answer of a query, chunk by chunk.

    python sqlite_stream.py DATABASE [PORT]

The database is made if it is not there. Each message is a city; the answer is its measurements in
chunks of JSON, then an empty message.
"""

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

import wsoffload

ROWS_PER_CHUNK = 1000


def make_database(database: str) -> None:
    """Fill a new database; leave one that is there as it is."""
    if Path(database).exists():
        return
    cities = ("Lima", "Oslo", "Pune")
    rows = ((cities[i % 3], i, i * i % 97) for i in range(30_000))
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE measured (city TEXT, minute INTEGER, value INTEGER)")
        connection.executemany("INSERT INTO measured VALUES (?, ?, ?)", rows)


def measurements(database: str, city: str) -> Iterator[str]:
    """Yield JSON. Connecting, reading and closing happen on one thread, as sqlite3 demands."""
    query = "SELECT minute, value FROM measured WHERE city = ? ORDER BY value, minute"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        cursor = connection.execute(query, (city,))
        while rows := cursor.fetchmany(ROWS_PER_CHUNK):
            yield json.dumps(rows)


async def handler(pool: wsoffload.Pool, database: str, websocket: ServerConnection) -> None:
    async for city in websocket:
        async with pool.iterate(measurements, database, str(city)) as chunks:
            async for chunk in chunks:
                await websocket.send(chunk)
        await websocket.send("")


async def main(database: str, port: int) -> None:
    await wsoffload.run(make_database, database)
    async with (
        wsoffload.Pool() as pool,
        serve(partial(handler, pool, database), "127.0.0.1", port) as server,
    ):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8765))
