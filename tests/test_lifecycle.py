"""Tests of wsoffload/_lifecycle.py, and of the end of a loop, invariant 15: gone means gone."""

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Gate, wait_until
from kernel import eventfds

import wsoffload
from wsoffload import _lifecycle

Factory = Callable[[], asyncio.AbstractEventLoop]


def test_import_needs_the_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(ImportError, match="PYTHON_GIL=0 or -X gil=0"):
        _lifecycle._require_gil()
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    _lifecycle._require_gil()
    monkeypatch.delattr(sys, "_is_gil_enabled")
    _lifecycle._require_gil()


def free_threaded_python() -> str | None:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}t"
    return shutil.which(name)


@pytest.mark.skipif(free_threaded_python() is None, reason="there is no free-threaded Python")
@pytest.mark.parametrize("gil", ["0", "1", None])
def test_free_threaded_python(gil: str | None, tmp_path: Path) -> None:
    python = free_threaded_python()
    assert python is not None
    root = Path(__file__).parent.parent
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    if gil is not None:
        environment["PYTHON_GIL"] = gil
    install = [python, "-m", "pip", "install", "-q", "--target", str(tmp_path), str(root)]
    subprocess.run(install, check=True, env=environment)
    result = subprocess.run(
        [python, "-c", "import wsoffload; print(wsoffload.Pool(1).submit(int).result())"],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"PYTHONPATH": str(tmp_path)},
    )
    if gil == "0":
        assert "ImportError: wsoffload needs the GIL" in result.stderr
    else:
        assert (result.returncode, result.stdout) == (0, "0\n")
        assert ("RuntimeWarning" in result.stderr) == (gil is None)


def test_a_loop_has_one_eventfd_for_everything(loop_factory: Factory) -> None:
    async def main() -> None:
        before = set(eventfds())
        async with wsoffload.Pool(2) as first, wsoffload.Pool(2) as second:
            await asyncio.gather(first.run(int), second.run(int), wsoffload.run(int))
            assert [item async for item in first.iterate(range(100))] == list(range(100))
            assert len(set(eventfds()) - before) == 1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_closing_a_loop_frees_its_eventfd_at_once(loop_factory: Factory, gate: Gate) -> None:
    gc.collect()
    gc.disable()
    try:
        before = set(eventfds())
        loop = loop_factory()

        async def main() -> list[object]:
            # Under way when the loop closes: each shares the loop's mailbox.
            running = wsoffload.run(gate, 1)
            stream = wsoffload.iterate(range(1000))
            assert await anext(aiter(stream)) == 0
            return [running, stream]

        kept = loop.run_until_complete(main())
        of_the_loop = set(eventfds()) - before
        assert len(of_the_loop) >= 1
        loop.close()
        assert set(eventfds()) == before
        loop_alive = weakref.ref(loop)
        gate.open()
        wait_until(lambda: wsoffload.stats().running == 0)
        del kept, loop
        # The stream's thread lets go of its source by and by.
        wait_until(lambda: gc.collect() >= 0 and loop_alive() is None)
    finally:
        gc.enable()


@pytest.fixture(params=range(30))
def attempt(request: pytest.FixtureRequest) -> object:
    """One of many, each of which may hit the race."""
    return request.param


@pytest.mark.usefixtures("attempt")
def test_a_reused_descriptor_gets_no_foreign_bytes(loop_factory: Factory) -> None:
    """The number of a closed loop's eventfd is used anew while jobs of that loop end."""
    gates = [Gate() for _ in range(8)]
    before = set(eventfds())
    loop = loop_factory()
    with wsoffload.Pool(9) as pool, wsoffload.Pool(1) as other:

        async def main() -> None:
            for gate in gates:
                pool.run(gate)
            await pool.run(int)

        loop.run_until_complete(main())
        own = set(eventfds()) - before
        loop.close()
        reader, writer = os.pipe2(os.O_NONBLOCK)
        for fd in own - {reader, writer}:
            os.dup2(writer, fd)
        list(other.map(Gate.open, gates))
        wait_until(lambda: pool.stats().completed == 9)
        pool.shutdown()
        if reader not in own:
            with pytest.raises(BlockingIOError):
                os.read(reader, 8)
        for fd in own | {reader, writer}:
            os.close(fd)


def test_results_for_a_closed_loop_are_dropped_and_counted(
    loop_factory: Factory, gate: Gate
) -> None:
    dropped = wsoffload.stats().dropped_results
    loop = loop_factory()

    async def main() -> None:
        for _ in range(3):
            wsoffload.run(gate)

    loop.run_until_complete(main())
    gate.wait_entered(3)
    loop.close()
    gate.open()
    wait_until(lambda: wsoffload.stats().dropped_results == dropped + 3)
    stats = wsoffload.stats()
    assert (stats.completed, stats.running) == (3, 0)
