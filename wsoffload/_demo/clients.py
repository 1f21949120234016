"""The process of one server's clients: many that only keep alive, and one that asks.

It prints a report as a line of JSON ten times a second. After the first one, which says "ready", it
waits for a byte on standard input before the one client asks.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State as ConnectionState

from .child import attend_parent, client_arguments, tell
from .report import Report, State

# How often the clients are looked at, in seconds.
PERIOD = 0.1
# A failed connection waits for the server to wake up, to tell how long it was deaf; in seconds.
PATIENCE = 30.0


class Watched(ClientConnection):
    """A connection that knows how long it waited for its Pongs."""

    heard = 0.0
    _asked: float | None = None
    _longest = 0.0
    _latency = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: When each Ping was sent that was answered, and how long its Pong took, in seconds.
        self.pongs: list[tuple[float, float]] = []
        super().__init__(*args, **kwargs)

    @property
    def asked(self) -> float | None:
        """When the Ping was sent that is not answered yet; None if there is none."""
        return self._asked

    async def ping(self, data: Any = None) -> Awaitable[float]:
        """Send a Ping, as the keepalive of the library does, and note when."""
        self._asked = time.monotonic()
        return await super().ping(data)

    @property
    def latency(self) -> float:
        """What the library measured last, in seconds; it sets this at each Pong."""
        return self._latency

    @latency.setter
    def latency(self, value: float) -> None:
        self._latency = value
        self._longest = max(self._longest, value)
        # The library sets a first latency before it sends anything.
        if self._asked is not None:
            self.pongs.append((self._asked, value))
        self._asked = None
        self.heard = time.monotonic()

    @property
    def kept(self) -> bool:
        return self.state is ConnectionState.OPEN

    @property
    def closed(self) -> bool:
        return self.state is ConnectionState.CLOSED

    def longest(self) -> float:
        """The longest wait for a Pong, in seconds, with the one that may last still."""
        if self._asked is not None and not self.closed:
            self._longest = max(self._longest, time.monotonic() - self._asked)
        return self._longest


class Crowd:
    """The clients of one server, all connected; the last one asks."""

    def __init__(self, connections: Sequence[Watched]) -> None:
        self._connections = connections
        self._asker = connections[-1]
        self._chunks = self._rows = 0
        self._complete = False
        self._started = self._ended = 0.0

    async def ask(self, minutes: int) -> None:
        """Ask, count what comes until the empty message, and note when it ended or was lost."""
        self._started = time.monotonic()
        with contextlib.suppress(ConnectionClosed):
            await self._asker.send(str(minutes))
            async for message in self._asker:
                if not message:
                    self._complete = True
                    self._ended = time.monotonic()
                    break
                self._chunks += 1
                self._rows += str(message).count("\n")

    def settled(self) -> bool:
        """Whether the query is over and each connection has since heard a Pong or is closed."""
        return bool(self._ended) and all(
            connection.closed or connection.heard > self._ended for connection in self._connections
        )

    def report(self) -> Report:
        """Sum up the present moment; this is also what notices that the query was lost."""
        now = time.monotonic()
        if self._started and not self._ended and not self._asker.kept:
            self._ended = now
        return Report(
            state=self._state(),
            connections=len(self._connections),
            kept=sum(connection.kept for connection in self._connections),
            pong_delay=max(connection.longest() for connection in self._connections),
            chunks=self._chunks,
            rows=self._rows,
            seconds=(self._ended or now) - self._started if self._started else 0.0,
            final=self.settled(),
        )

    def _state(self) -> State:
        if not self._started:
            return "ready"
        if self._ended:
            return "complete" if self._complete else "lost"
        return "streaming" if self._chunks else "querying"


def emit(present: Report) -> None:
    tell(json.dumps(asdict(present)))


async def attend(options: argparse.Namespace, go: asyncio.Event) -> None:
    """Connect, wait for `go`, ask, and report until nothing can change any more."""
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
    crowd = Crowd(connections)
    emit(crowd.report())
    await go.wait()
    asking = asyncio.create_task(crowd.ask(options.minutes))
    while True:
        present = crowd.report()
        emit(present)
        if present.final:
            break
        await asyncio.sleep(PERIOD)
    await asyncio.gather(asking, *(connection.close() for connection in connections))


def main(argv: Sequence[str]) -> None:
    """Read the arguments and run until the report says that it is final."""
    parser = client_arguments()
    parser.add_argument("--minutes", type=int, required=True)
    asyncio.run(attend_parent(attend, parser.parse_args(argv)))


if __name__ == "__main__":
    main(sys.argv[1:])
