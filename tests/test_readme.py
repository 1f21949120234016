"""Tests of README.md: its programs run as they are printed, but for the port."""

import asyncio
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

websockets = pytest.importorskip("websockets.asyncio.client", reason="the program's client")


OFFLOADED, GUARDED = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


async def ask(host: str, port: int, message: str) -> str:
    async with websockets.connect(f"ws://{host}:{port}") as websocket:
        await websocket.send(message)
        return str(await websocket.recv())


def answer(program: str, script: Path, message: str) -> str:
    """What the program, on a port that the kernel chooses, answers to this message."""
    for printed, changed in [
        ('"localhost", 8765', '"127.0.0.1", 0'),
        (
            "await server.serve_forever()",
            "print(*server.sockets[0].getsockname(), flush=True); await server.serve_forever()",
        ),
    ]:
        assert printed in program
        program = program.replace(printed, changed)
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            host, port = server.stdout.readline().split()
            return asyncio.run(ask(host, int(port), message))
        finally:
            server.kill()


def test_program(tmp_path: Path) -> None:
    digest = hashlib.scrypt(b"secret", salt=b"example", n=2**14, r=8, p=1).hex()
    assert answer(OFFLOADED, tmp_path / "program.py", "secret") == digest


def test_guarded_program(tmp_path: Path) -> None:
    assert "time.sleep(50)" in GUARDED
    program = GUARDED.replace("time.sleep(50)", "time.sleep(0.05)")
    assert answer(program, tmp_path / "program.py", "hello") == "hello"


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
