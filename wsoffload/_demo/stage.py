"""The processes of the demo: two servers, the clients of each, and nothing left of them later."""

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from .report import Report
from .server import SERVERS

# How long a process that was asked to end may take for it, in seconds.
PATIENCE = 5.0

Show = Callable[[dict[str, Report]], None]


class StageError(Exception):
    """A process of the demo ended before its part was over, or the whole took too long."""


@dataclass(frozen=True)
class Settings:
    """What the clients do; times in seconds.

    `connections` counts those that only keep alive: one more asks for `minutes`. After
    `time_limit` the demo gives up.
    """

    minutes: int
    connections: int = 50
    ping_interval: float = 0.5
    ping_timeout: float = 1.0
    time_limit: float = 120.0

    def client_arguments(self, url: str) -> list[str]:
        return [
            url,
            f"--connections={self.connections + 1}",
            f"--minutes={self.minutes}",
            f"--ping-interval={self.ping_interval}",
            f"--ping-timeout={self.ping_timeout}",
        ]


@contextlib.asynccontextmanager
async def child(module: str, *arguments: str) -> AsyncIterator[Process]:
    """Run a module of the demo in a process that ends with the block, or with this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"{__package__}.{module}"),
        *arguments,
        stdin=PIPE,
        stdout=PIPE,
        # Ctrl-C is for this process alone, which then ends the others.
        start_new_session=True,
    )
    try:
        yield process
        if process.returncode is None:
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: Process, name: str) -> str:
    """Return the next line that a process prints; StageError if it has ended instead."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise StageError(f"the process of the {name} ended early, status {await process.wait()}")
    return line.decode().strip()


async def start(
    stack: contextlib.AsyncExitStack, database: Path, settings: Settings
) -> dict[str, Process]:
    """Start each server and then its clients; return the latter's processes."""
    clients: dict[str, Process] = {}
    servers = {
        name: await stack.enter_async_context(child("server", name, str(database)))
        for name in SERVERS
    }
    for name, server in servers.items():
        url = await line_of(server, f"{name} server")
        crowd = child("clients", *settings.client_arguments(url))
        clients[name] = await stack.enter_async_context(crowd)
    return clients


@contextlib.asynccontextmanager
async def production(time_limit: float) -> AsyncIterator[contextlib.AsyncExitStack]:
    """Give a stack for the processes of a part of the demo, which all end with the block.

    SIGTERM cancels the task, as Ctrl-C does. StageError after `time_limit` seconds.
    """
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with asyncio.timeout(time_limit), contextlib.AsyncExitStack() as stack:
            yield stack
    except TimeoutError as error:
        raise StageError(f"the demo was not over after {time_limit:g} s") from error


def go(process: Process) -> None:
    """Let the clients of a server begin with what they wait to do."""
    assert process.stdin is not None
    process.stdin.write(b"!")


async def report_of(process: Process, name: str) -> Report:
    """Return the next report of the clients of a server."""
    return Report(**json.loads(await line_of(process, f"{name} clients")))


async def follow(process: Process, name: str, reports: dict[str, Report], show: Show) -> None:
    """Show what the clients of a server report, to the last, and let them say goodbye."""
    while not reports[name].final:
        reports[name] = await report_of(process, name)
        show(reports)
    await process.wait()


async def play(database: Path, settings: Settings, show: Show) -> dict[str, Report]:
    """Run both servers with their clients, ask both at once, and return the last reports.

    `show` is called with the reports of both whenever one is new. Raise StageError if a process
    ends early or `time_limit` passes.
    """
    reports = {name: Report() for name in SERVERS}
    async with production(settings.time_limit) as stack:
        clients = await start(stack, database, settings)
        for name, process in clients.items():
            reports[name] = await report_of(process, name)
            show(reports)
        for process in clients.values():
            go(process)
        await asyncio.gather(
            *(follow(process, name, reports, show) for name, process in clients.items())
        )
    return reports
