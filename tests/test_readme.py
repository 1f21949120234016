"""Tests of README.md: its program runs as it is printed, but for the port."""

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


async def ask(host: str, port: int, password: str) -> str:
    async with websockets.connect(f"ws://{host}:{port}") as websocket:
        await websocket.send(password)
        return str(await websocket.recv())


def test_program(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # The kernel chooses the port, and the program says which.
    for printed, changed in [
        ('"localhost", 8765', '"127.0.0.1", 0'),
        (
            "await server.serve_forever()",
            "print(*server.sockets[0].getsockname(), flush=True); await server.serve_forever()",
        ),
    ]:
        assert printed in program
        program = program.replace(printed, changed)
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            host, port = server.stdout.readline().split()
            answer = asyncio.run(ask(host, int(port), "secret"))
        finally:
            server.kill()
    assert answer == hashlib.scrypt(b"secret", salt=b"example", n=2**14, r=8, p=1).hex()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
