"""A WebSocket server that streams the answer of a slow query and stays awake meanwhile.

    python -m wsoffload._demo.data flights.db       # makes the database
    python examples/stream_query.py flights.db      # serves it, on port 8765 or the one named next

A client sends a number of minutes. The server compares the delay of each flight with the average
of all flights that left the same airport within so many minutes, and answers with the flights that
were late for a reason of their own first: in chunks of JSON lines, then an empty message.
"""

import asyncio
import contextlib
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pandas as pd
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

import wsoffload

QUERY = """
SELECT flight.carrier, flight.number, flight.origin, flight.dest, flight.scheduled, flight.delay,
       count(*) AS departures, avg(other.delay) AS usual_delay
FROM flights AS flight
JOIN flights AS other
  ON other.origin = flight.origin
 AND other.scheduled BETWEEN flight.scheduled - :minutes AND flight.scheduled + :minutes
GROUP BY flight.id
ORDER BY flight.delay - avg(other.delay) DESC
"""


def flights(database: str, minutes: int) -> Iterator[str]:
    """Yield the answer in chunks of JSON lines.

    All of this blocks: the first chunk comes after seconds of joining and sorting, and each one
    is read and serialised before it is yielded.
    """
    with contextlib.closing(sqlite3.connect(database)) as connection:
        params = {"minutes": minutes}
        for chunk in pd.read_sql(QUERY, connection, params=params, chunksize=5000):
            yield chunk.to_json(orient="records", lines=True)


async def answer(pool: wsoffload.Pool, database: str, websocket: ServerConnection) -> None:
    """Answer one client after another question of its, while the loop serves all others."""
    # A client that leaves early ends the query, too.
    with contextlib.suppress(ConnectionClosed):
        async for question in websocket:
            async with pool.iterate(flights, database, int(question)) as chunks:
                async for chunk in chunks:
                    await websocket.send(chunk)
            await websocket.send("")


async def listen(handler: Callable[[ServerConnection], Awaitable[None]], port: int) -> None:
    """Serve until SIGTERM; port 0 lets the system choose."""
    async with serve(handler, "127.0.0.1", port) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"ws://127.0.0.1:{port}", flush=True)
        await server.wait_closed()


async def main(database: str, port: int) -> None:
    """Serve the database with a pool that ends with the server."""
    async with wsoffload.Pool() as pool:
        await listen(partial(answer, pool, database), port)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8765))
