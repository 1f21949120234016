"""How a test talks with a process of its own: one JSON line for each call, one for each answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conftest import MS, PATIENCE

_TESTS = Path(__file__).parent


class Process:
    """A script that answers calls on its standard input; it ends with the test.

    The environment's BELL is the descriptor of a pipe from the test, which is heard by a process
    that is stalled.
    """

    def __init__(self, script: str, *args: str, **environment: str) -> None:
        self._waiting = b""
        self.expected: tuple[int, str] = (0, "")  # its exit status, and the end of its stderr
        self.events: list[dict[str, Any]] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._side, self._bell = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-X", "faulthandler", "-W", "error"),
                # Python 3.12 and newer warn of each fork of a process with threads.
                *("-W", "ignore:This process:DeprecationWarning", str(_TESTS / script), *args),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[self._side],
            env=os.environ | {"BELL": str(self._side)} | environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if error is not None:
            self._process.kill()
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process.stdout.close()
        os.close(self._side)
        os.close(self._bell)
        with self._errors:
            self._errors.seek(0)
            errors = self._errors.read().decode()
        if error is not None:
            error.add_note(f"{self._process.args!r}: status {status}\n{errors}")
        else:
            said = errors[-len(self.expected[1]) :] if self.expected[1] else errors
            assert (status, said) == self.expected, errors

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, method: str, **arguments: Any) -> None:
        """Call without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def call(self, method: str, **arguments: Any) -> Any:
        self.tell(method, **arguments)
        return self.answer()

    def answer(self) -> Any:
        """The answer to the oldest call that has none yet."""
        while True:
            line = self._line()
            if "answer" in line:
                return line["answer"]
            assert "failed" not in line, line["failed"]
            self.events.append(line)

    def event(self, name: str) -> Any:
        """Wait for an event that the process tells by itself."""
        while True:
            line = self._line()
            assert "failed" not in line, line["failed"]
            if line.get("event") == name:
                return line
            self.events.append(line)

    def ring(self) -> None:
        """Write a byte to the pipe."""
        os.write(self._bell, b"!")

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._waiting:
            assert select.select([fd], [], [], PATIENCE)[0], "no answer"
            piece = os.read(fd, 1 << 20)
            assert piece, "the process ended"
            self._waiting += piece
        line, _, self._waiting = self._waiting.partition(b"\n")
        result: dict[str, Any] = json.loads(line)
        return result


class Peer(Process):
    """The strict peer, in its process: see peer.py for what it can be told."""

    def __init__(self) -> None:
        super().__init__("peer.py")

    def connect(self, port: int, count: int = 1, path: str = "/take", **options: Any) -> list[int]:
        """Open connections and wait until their handshakes are done."""
        ids: list[int] = self.call("connect", port=port, count=count, path=path, **options)
        self.until(ids, lambda look: look["state"] != "connecting")
        return ids

    def looks(self, ids: list[int]) -> list[dict[str, Any]]:
        """A short report of each connection."""
        result: list[dict[str, Any]] = self.call("look", ids=ids)
        return result

    def reports(self, ids: list[int]) -> list[dict[str, Any]]:
        """All that is known of each connection."""
        result: list[dict[str, Any]] = self.call("report", ids=ids)
        return result

    def until(self, ids: list[int], true: Callable[[dict[str, Any]], object]) -> None:
        """Wait until this is so for each of the connections."""
        give_up = time.monotonic() + PATIENCE
        while not all(map(true, looks := self.looks(ids))):
            assert time.monotonic() < give_up, f"what was waited for did not come: {looks}"
            time.sleep(5 * MS)

    def until_pongs(self, ids: list[int], more: int) -> None:
        """Wait until each of the connections got so many Pongs more."""
        before = dict(zip(ids, (look["pongs"] for look in self.looks(ids)), strict=True))
        self.until(ids, lambda look: look["pongs"] >= before[look["id"]] + more)


class Subject(Process):
    """The side under test, in its process: see isolated/guarded.py for what it can be told."""

    def __init__(self, loop: str, kind: str = "guarded", *, preload: str = "") -> None:
        libraries = f"{os.environ.get('LD_PRELOAD', '')} {preload}".strip()
        super().__init__("isolated/guarded.py", loop, kind, LD_PRELOAD=libraries)

    @contextmanager
    def stalled(self, kind: str, *, answers: bool = True) -> Iterator[list[float]]:
        """Stall its loop for as long as this lasts; the list then tells from when to when.

        Without `answers` the answer is left to the caller, who waits for another one too.
        """
        times: list[float] = []
        self.tell("stall", kind=kind)
        self.event("stalled")
        try:
            yield times
        finally:
            # A thread may lose the GIL before it can look at the clock, so this one looks.
            rung = time.monotonic()
            self.ring()
        if answers:
            times += [self.answer()[0][0], rung]

    def reports(self, ids: list[int]) -> list[dict[str, Any]]:
        """What it knows of the connections to the peer's connections `ids`."""
        found = self.call("report")
        return [found[str(id_)] for id_ in ids]

    def until(self, ids: list[int], true: Callable[[dict[str, Any]], object]) -> None:
        """Wait until this is so for each of its connections."""
        give_up = time.monotonic() + PATIENCE
        while not all(map(true, reports := self.reports(ids))):
            assert time.monotonic() < give_up, f"what was waited for did not come: {reports}"
            time.sleep(5 * MS)


def in_parallel(scenario: Callable[..., None], variants: Iterable[tuple[Any, ...]]) -> None:
    """Run the scenario once for each tuple of arguments, all at the same time."""
    variants = list(variants)
    with ThreadPoolExecutor(len(variants)) as pool:
        futures = [pool.submit(scenario, *variant) for variant in variants]
    failed = []
    for variant, future in zip(variants, futures, strict=True):
        error = future.exception()
        if error is not None:
            error.add_note(f"in the variant {variant}")
            failed.append(error)
    if failed:
        raise failed[0] if len(failed) == 1 else BaseExceptionGroup("variants that failed", failed)


def alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that each side got what the other sent, whole and in order, by the rules."""
    assert one["errors"] == []
    assert (one["messages"], one["digest"]) == (other["sent_messages"], other["sent_digest"])
    assert (other["messages"], other["digest"]) == (one["sent_messages"], one["sent_digest"])
