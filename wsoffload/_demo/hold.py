"""The third act: a handler holds the GIL, on a plain server and on a guarded one, in one run."""

import asyncio
import contextlib
import json
from asyncio.subprocess import Process
from dataclasses import dataclass

from .hold_report import MARKS, Pings
from .stage import child, go, line_of, production


@dataclass(frozen=True)
class Settings:
    """How long the handlers hold the GIL, and what the clients do; times in seconds.

    `margin` is what is seen before and after. One client more than `connections` asks the handler.
    After `time_limit` the demo gives up.
    """

    hold: float
    connections: int = 50
    ping_interval: float = 0.25
    ping_timeout: float = 1.0
    margin: float = 0.75
    time_limit: float = 60.0

    def client_arguments(self, url: str) -> list[str]:
        return [
            url,
            f"--connections={self.connections + 1}",
            f"--margin={self.margin}",
            f"--ping-interval={self.ping_interval}",
            f"--ping-timeout={self.ping_timeout}",
        ]


async def start(
    stack: contextlib.AsyncExitStack, name: str, settings: Settings
) -> tuple[str, Process]:
    """Start a server and its clients; return the latter's process when all are connected."""
    hold = str(settings.hold)
    server = await stack.enter_async_context(child("hold_server", name, hold))
    url = await line_of(server, f"{name} server")
    clients = await stack.enter_async_context(
        child("hold_clients", *settings.client_arguments(url))
    )
    await line_of(clients, f"{name} clients")
    return name, clients


async def follow(name: str, clients: Process) -> tuple[str, Pings]:
    """Return what the clients of a server saw, and let them say goodbye."""
    pings = Pings(**json.loads(await line_of(clients, f"{name} clients")))
    await clients.wait()
    return name, pings


async def play(settings: Settings) -> dict[str, Pings]:
    """Run both servers with their clients, and return what became of the Pings.

    Raise StageError if a process ends early or `time_limit` passes.
    """
    async with production(settings.time_limit) as stack:
        crowds = [await start(stack, name, settings) for name in MARKS]
        for _, clients in crowds:
            go(clients)
        return dict(await asyncio.gather(*(follow(name, clients) for name, clients in crowds)))
