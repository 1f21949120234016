"""The side under test, in a process of its own so that its stalls stall nobody else.

Arguments: "asyncio" or "uvloop"; "guarded" or "plain". Each line of its standard input is a call,
`["method", {arguments}]`, of a method of `Subject`; each line of its standard output is an answer
or an event. What a connection does is the first word of its path. Run through peer_speech.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import importlib
import inspect
import json
import logging
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from peer_frames import Messages
from websockets.exceptions import ConnectionClosed

# Where connect, serve and their classes come from.
_GUARDED = sys.argv[2] == "guarded"
_client: Any = importlib.import_module("wsoffload" if _GUARDED else "websockets.asyncio.client")
_server: Any = importlib.import_module("wsoffload" if _GUARDED else "websockets.asyncio.server")
_BELL = int(os.environ["BELL"])
# Each function of this one keeps the GIL.
_C = ctypes.PyDLL(None)


def _hold(seconds: float | None) -> None:
    """One C call that holds the GIL: for so long, or until the bell rings."""
    if seconds is not None:
        _C.usleep(int(seconds * 1e6))
        return
    _C.read(_BELL, ctypes.create_string_buffer(1), 1)


def _sleep(seconds: float | None) -> None:
    """Keep this thread, not the GIL."""
    if seconds is not None:
        time.sleep(seconds)
        return
    while not select.select([_BELL], [], [], 0)[0]:
        time.sleep(0.02)
    os.read(_BELL, 1)


def _tell(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what, default=repr).encode() + b"\n")


def _stall(function: Callable[[float | None], None], seconds: float | None) -> tuple[float, float]:
    """Say that it begins, stall, and return from when to when."""
    _tell({"event": "stalled"})
    began = time.monotonic()
    function(seconds)
    return began, time.monotonic()


class Record:
    """What one connection went through, in its handler's eyes."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.received = Messages()
        self.sent = Messages()
        self.resume = asyncio.Event()
        self.lost = 0
        self.error: BaseException | None = None
        self.done = False

    def report(self) -> dict[str, Any]:
        connection, error = self.connection, self.error
        guard = getattr(connection, "guard", None)
        return {
            "messages": self.received.count,
            "digest": self.received.digest,
            "sent_messages": self.sent.count,
            "sent_digest": self.sent.digest,
            "lost": self.lost,
            "done": self.done,
            "error": error and type(error).__name__,
            "message": error and str(error),
            "cause": error and error.__cause__ and type(error.__cause__).__name__,
            "code": connection.close_code,
            "reason": connection.close_reason,
            "latency": connection.latency,
            "guard": guard and dataclasses.asdict(guard),
        }


class Handlers:
    """What a connection does, by the first word of its path."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._random = random.Random(8)

    async def handle(self, connection: Any) -> None:
        word, _, name = connection.request.path.partition("?")
        _, word, *numbers = word.split("/")
        record = self.records[name] = Record(connection)
        connection.lost.append(record)
        try:
            await getattr(self, word)(record, *map(int, numbers))
        except ConnectionClosed as error:
            record.error = error
        finally:
            record.done = True

    async def take(self, record: Record) -> None:
        """Receive all."""
        while True:
            message = await record.connection.recv()
            text = isinstance(message, str)
            record.received.add(text, message.encode() if text else message)

    async def later(self, record: Record) -> None:
        """Receive nothing before `resume`."""
        await record.resume.wait()
        await self.take(record)

    async def echo(self, record: Record) -> None:
        async for message in record.connection:
            text = isinstance(message, str)
            payload = message.encode() if text else message
            record.received.add(text, payload)
            record.sent.add(text, payload)
            await record.connection.send(message)

    async def idle(self, record: Record) -> None:
        """Neither send nor receive; in the end find out why."""
        await record.connection.wait_closed()
        await record.connection.send("")

    async def send(self, record: Record, count: int, size: int) -> None:
        """Send so many messages, then receive all."""
        for _ in range(count):
            payload = self._random.randbytes(size)
            record.sent.add(False, payload)
            await record.connection.send(payload)
        await self.take(record)

    async def ends(self, record: Record) -> None:
        """Return at once."""


def _counted(base: Any) -> Any:
    """The class, counting its calls of `connection_lost`."""

    class Counted(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.lost: list[Any] = []

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for record in self.lost:
                record.lost += 1

    return Counted


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of serve and connect."""
    guard = given.pop("guard", None)
    if guard is not None and _GUARDED:
        given["guard"] = _server.Guard(**guard)
    return {"compression": None, "logger": logging.getLogger("test")} | given


class Subject(Handlers):
    """What a test can call."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        self.log: list[str] = []
        self._servers: list[Any] = []
        self._clients: list[asyncio.Task[None]] = []
        self._waiting = b""
        self._tasks: set[asyncio.Task[None]] = set()
        handler = logging.Handler()
        handler.emit = lambda record: self.log.append(record.getMessage())  # type: ignore[method-assign]
        for name in ("test", "wsoffload"):
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).propagate = False
        logging.getLogger("wsoffload").setLevel(logging.INFO)

    # For the test.

    async def serve(self, **options: Any) -> int:
        connection = _counted(_server.ServerConnection)
        server = await _server.serve(
            self.handle, "127.0.0.1", 0, create_connection=connection, **_options(options)
        )
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self, port: int, count: int = 1, path: str = "/take", **options: Any) -> None:
        """Open client connections; each ends with its handler."""
        opened: asyncio.Queue[Exception | None] = asyncio.Queue()

        async def client(number: int) -> None:
            try:
                await talk(number)
            except Exception as error:
                opened.put_nowait(error)

        async def talk(number: int) -> None:
            async with _client.connect(
                f"ws://127.0.0.1:{port}{path}?{number}",
                create_connection=_counted(_client.ClientConnection),
                proxy=None,
                **_options(dict(options)),
            ) as connection:
                opened.put_nowait(None)
                await self.handle(connection)

        first = len(self._clients)
        new = [asyncio.create_task(client(first + number)) for number in range(count)]
        self._clients += new
        for _ in range(count):
            error = await opened.get()
            if error is not None:
                raise error

    async def stall(
        self, kind: str, seconds: float | None = None, count: int = 1
    ) -> list[tuple[float, float]]:
        """Stall the loop, with exactly one turn of it between two stalls; says when.

        Kinds: "sleep" and "hold" on the loop, without and with the GIL; "thread" holds the GIL in
        a thread. Without a time each stall lasts until the bell rings.
        """
        times = []
        for _ in range(count):
            if kind == "thread":
                times.append(await asyncio.to_thread(_stall, _hold, seconds))
            else:
                times.append(self.stall_now(kind, seconds))
                await asyncio.sleep(0)
        return times

    def stall_now(self, kind: str, seconds: float | None = None) -> tuple[float, float]:
        """Stall the loop before anything else happens; says when."""
        return _stall({"sleep": _sleep, "hold": _hold}[kind], seconds)

    async def report(self) -> dict[str, Any]:
        return {name: record.report() for name, record in self.records.items()}

    async def resume(self) -> None:
        for record in self.records.values():
            record.resume.set()

    async def messages(self) -> list[str]:
        return self.log

    async def close(self, ids: list[int], code: int = 1000) -> None:
        for id_ in ids:
            await self.records[str(id_)].connection.close(code)

    async def abort(self, ids: list[int]) -> None:
        for id_ in ids:
            self.records[str(id_)].connection.transport.abort()

    async def close_transport(self, ids: list[int]) -> None:
        for id_ in ids:
            self.records[str(id_)].connection.transport.close()

    async def ping(self, id_: int, payload: str = "") -> float:
        """A Ping of the user's; its latency."""
        connection = self.records[str(id_)].connection
        latency: float = await (await connection.ping(payload or None))
        return latency

    async def set(self, ids: list[int], **attributes: Any) -> None:
        for id_ in ids:
            for name, value in attributes.items():
                setattr(self.records[str(id_)].connection, name, value)

    async def extra(self, module: str, function: str, **arguments: Any) -> Any:
        """Call a function of another module with this object."""
        result = getattr(importlib.import_module(module), function)(self, **arguments)
        return await result if inspect.isawaitable(result) else result

    async def shut_down(self) -> dict[str, Any]:
        """Close the servers, whatever is open; the last report."""
        for server in self._servers:
            server.close()
            await server.wait_closed()
        self._servers.clear()
        self.over.set()
        return await self.report()

    async def finish(self) -> None:
        """Close all and end."""
        for server in self._servers:
            server.close()
            await server.wait_closed()
        if self._clients:
            await asyncio.gather(*(record.connection.close() for record in self.records.values()))
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self.over.set()

    # The process.

    async def _answer(self, method: str, arguments: dict[str, Any]) -> None:
        try:
            _tell({"answer": await getattr(self, method)(**arguments)})
        except Exception:
            _tell({"failed": traceback.format_exc()})

    def calls(self) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            self.loop.remove_reader(0)
            self.over.set()
            return
        self._waiting += data
        *lines, self._waiting = self._waiting.split(b"\n")
        for line in lines:
            method, arguments = json.loads(line)
            task = asyncio.create_task(self._answer(method, arguments))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _main() -> None:
    subject = Subject()
    subject.loop.add_reader(0, subject.calls)
    await subject.over.wait()
    subject.loop.remove_reader(0)


def _factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.argv[1] == "uvloop":
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return asyncio.SelectorEventLoop


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with asyncio.Runner(loop_factory=_factory()) as runner:
        runner.run(_main())
