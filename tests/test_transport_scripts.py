"""The same random scripts on asyncio's transport and on ours: the same callbacks in the same order,
the same bytes.

A script is a list of calls of the transport and of what its peer does, with the loop left to settle
after each; and of what the protocol does within its callbacks. Its number is its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from conftest import _uvloop_factory
from links import Buffered, Event, Peer, Recorder, attach, pair, turns

Step: TypeAlias = tuple[Any, ...]

#: Scripts in one test, and such tests; `make soak` runs more.
SCRIPTS = int(os.environ.get("WSO_TEST_SCRIPTS", "30"))
BATCHES = 12


def make_steps(rng: random.Random) -> list[Step]:
    """What the transport's user and its peer do."""
    choices: list[Callable[[], Step]] = [
        lambda: ("write", rng.choice([0, 1, 100, 5_000, 60_000])),
        lambda: ("write", rng.choice([1, 100, 200_000])),
        lambda: ("writelines", [rng.randrange(2_000) for _ in range(rng.randrange(5))]),
        lambda: ("send", rng.choice([1, 10, 1_000, 2_000])),
        lambda: ("send", rng.choice([1, 10, 1_000, 2_000])),
        lambda: ("drain",),
        lambda: ("limits", *rng.choice([(0, 0), (None, None), (1000, 10), (100_000, 1)])),
        lambda: ("pause_reading",),
        lambda: ("resume_reading",),
        lambda: ("resume_reading",),
        lambda: ("set_protocol", rng.choice([0, 0, 7, 1_000, 10_000])),
    ]
    steps = [rng.choice(choices)() for _ in range(rng.randrange(4, 25))]
    ends: list[Step] = [("write_eof",), ("peer_eof",), ("peer_close",), ("close",), ("abort",)]
    for _ in range(rng.randrange(4)):
        steps.insert(rng.randrange(len(steps) // 2, len(steps) + 1), rng.choice(ends))
    return steps


def make_reactions(rng: random.Random) -> dict[tuple[str, int], str]:
    """What the protocol does within the nth callback of a kind."""
    choices = {
        "data": ["write", "pause_reading", "close", "abort", "raise", "write_eof"],
        "eof": ["write", "close", "abort", "raise"],
        "pause": ["write", "close", "abort", "raise"],
        # asyncio's own reports connection_lost twice if it is closed there.
        "resume": ["write", "raise"],
        # asyncio's own still sends what is written there after a close() that had to wait.
        "lost": ["raise"],
    }
    reactions = {}
    for _ in range(rng.randrange(3)):
        kind = rng.choice(list(choices))
        # asyncio's own may tell the end twice.
        count = 0 if kind == "eof" else rng.randrange(3)
        reactions[kind, count] = rng.choice(choices[kind])
    return reactions


class Run:
    """One script on one kind of transport."""

    def __init__(self, seed: int, ours: bool) -> None:
        rng = random.Random(seed)
        self.ours = ours
        self.keep_open = rng.random() < 0.5
        self.steps = make_steps(rng)
        self.reactions = make_reactions(rng)
        self.sndbuf = rng.choice([4096, 30_000, None])
        self.events: list[Event] = []
        self.counts: dict[str, int] = {}
        self.written = 0
        self.sent = 0
        self.transport: Any = None

    def payload(self, size: int, at: int) -> bytes:
        return bytes((at + i) % 251 for i in range(size))

    def protocol(self, size: int) -> Any:
        if size == 0:
            made: Any = Recorder(self.events, self.keep_open)
        else:
            made = Buffered(size, self.events, self.keep_open)
        made.react = self.react
        return made

    def react(self, event: Event) -> None:
        kind = event[0]
        count = self.counts[kind] = self.counts.get(kind, -1) + 1
        reaction = self.reactions.get((kind, count))
        if reaction == "raise":
            raise LookupError(kind)
        if reaction == "write":
            self.call("write", 3_000)
        elif reaction is not None:
            self.call(reaction)

    def call(self, name: str, *args: Any) -> None:
        """A method of the transport; what it raises is part of the result."""
        try:
            if name == "write":
                self.transport.write(self.payload(args[0], self.written))
                self.written += args[0]
            elif name == "writelines":
                pieces = []
                for size in args[0]:
                    pieces.append(self.payload(size, self.written))
                    self.written += size
                if self.ours:
                    self.transport.writelines(pieces)
                else:
                    # asyncio's own forgets flow control there in 3.12 and 3.13.
                    self.transport.write(b"".join(pieces))
            elif name == "limits":
                self.transport.set_write_buffer_limits(*args)
            elif name == "set_protocol":
                self.transport.set_protocol(self.protocol(*args))
            else:
                getattr(self.transport, name)()
        except (RuntimeError, TypeError, ValueError) as error:
            self.events.append(("raised", name, type(error)))

    async def settle(self) -> None:
        """Until nothing happens any more: socket pairs deliver at once."""
        before: Any = None
        while before != (now := (list(self.events), len(self.peer.received), self.size())):
            before = now
            await turns(6)

    def size(self) -> int:
        size: int = self.transport.get_write_buffer_size()
        return size

    async def drain(self) -> None:
        while self.peer.take():
            await self.settle()

    async def step(self, name: str, *args: Any) -> None:
        if name == "send":
            self.sent += self.peer.send(self.payload(args[0], self.sent))
        elif name == "drain":
            await self.drain()
        elif name == "peer_eof":
            # Closed already, or the other side is.
            with contextlib.suppress(OSError):
                self.peer.sock.shutdown(socket.SHUT_WR)
        elif name == "peer_close":
            # A reset after an end: whoever has not read yet never sees the end.
            if ("peer_eof",) not in self.steps:
                self.peer.sock.close()
        else:
            self.call(name, *args)
        await self.settle()

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []

        def note(loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
            # A callback's name is the implementation's own.
            message = report["message"].partition(" callback ")[0]
            reports.append((message, type(report["exception"])))

        loop.set_exception_handler(note)
        sock, peer_sock = pair("unix", self.sndbuf)
        self.peer = Peer(peer_sock)
        protocol = self.protocol(0)
        protocol.react = lambda event: None
        self.transport = await attach(self.ours, sock, protocol)
        protocol.react = self.react
        for step in self.steps:
            # After connection_lost asyncio's transport cannot be asked.
            if any(event[0] == "lost" for event in self.events):
                break
            await self.step(*step)
        state = self.state()
        await self.drain()
        if not any(event[0] == "lost" for event in self.events):
            self.transport.abort()
        await self.settle()
        await self.drain()
        peer_sock.close()
        assert sock.fileno() < 0
        return state | {
            "events": self.events,
            "received": bytes(self.peer.received),
            "ended": self.peer.ended,
            "reports": reports,
        }

    def state(self) -> dict[str, Any]:
        return {
            "closing": self.transport.is_closing(),
            "reading": self.transport.is_reading(),
            "size": self.size(),
            "limits": self.transport.get_write_buffer_limits(),
        }


def normal(result: dict[str, Any], run: Run) -> dict[str, Any]:
    """Without what may differ, each with its reason."""
    events = []
    for event in result["events"]:
        # asyncio's own tells the end again after a pause.
        if event == ("eof",) and event in events:
            continue
        # Of a connection that is gone, reading ahead can be the first to hear of it.
        if event[0] == "lost" and event[1] in (ConnectionResetError, BrokenPipeError):
            event = ("lost", ConnectionError)
        if event[0] == "data" and events and events[-1][0] == "data":
            events[-1] = ("data", events[-1][1] + event[1])
        else:
            events.append(event)
    names = {step[0] for step in run.steps} | set(run.reactions.values())
    ahead = "pause_reading" in names or "set_protocol" in names
    # What was read ahead from a Unix socket cannot be unread, so closing it is no reset.
    return result | {"events": events, "ended": "" if ahead else result["ended"]}


def run_all(seeds: range, ours: bool, factory: Any) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        results = []
        for seed in seeds:
            run = Run(seed, ours)
            results.append(normal(await run.run(), run))
        return results

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_scripts(batch: int) -> None:
    seeds = range(batch * SCRIPTS, (batch + 1) * SCRIPTS)
    expected = run_all(seeds, False, asyncio.SelectorEventLoop)
    for factory in (asyncio.SelectorEventLoop, _uvloop_factory()):
        for seed, wanted, got in zip(seeds, expected, run_all(seeds, True, factory), strict=True):
            assert got == wanted, f"script {seed}: {Run(seed, True).steps}"


def test_scripts_reach_what_they_are_for() -> None:
    """A check of the scripts themselves: they see every kind of callback and end."""
    results = run_all(range(300), True, asyncio.SelectorEventLoop)
    kinds = {event[0] for result in results for event in result["events"]}
    assert kinds == {"made", "data", "eof", "pause", "resume", "lost", "raised"}
    assert {result["ended"] for result in results} == {"", "fin"}
    assert len({report for result in results for report in result["reports"]}) >= 4
