"""The same server written the naive way: the query runs where every connection is served."""

import contextlib
from functools import partial

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from .stream_query import flights, listen


async def answer(database: str, websocket: ServerConnection) -> None:
    """Answer the questions of one client; nobody else is heard before a chunk is there."""
    with contextlib.suppress(ConnectionClosed):
        async for question in websocket:
            for chunk in flights(database, int(question)):
                await websocket.send(chunk)
            await websocket.send("")


async def main(database: str, port: int) -> None:
    """Serve the database."""
    await listen(partial(answer, database), port)
