"""Each call of the extension that can fail is made to fail, one at a time."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HERE = ROOT / "tests" / "faults"
SCENARIOS = re.findall(r"^async def (\w+)\(pool", (HERE / "scenarios.py").read_text(), re.M)


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the extension in which calls can be made to fail."""
    source = (HERE / "capi.c").read_text()
    names = re.findall(r"^WRAP\w*\((?:[\w *]+, )?(\w+),\s", source, re.M)
    names += re.findall(r"^PyObject \*__wrap_(\w+)\(.*\);", source, re.M)
    assert len(names) > 25
    target = tmp_path_factory.mktemp("faults") / "_core.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [
        *compiler,
        *("-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fPIC", "-shared", "-pthread"),
        *("-fvisibility=hidden", f"-I{ROOT / 'csrc/core'}", f"-I{ROOT / 'csrc/py'}"),
        f"-I{sysconfig.get_path('include')}",
        *(f"-Wl,--wrap={name}" for name in names),
        *map(str, sorted((ROOT / "csrc").glob("*/*.c"))),
        *(str(HERE / "capi.c"), "-o", str(target)),
    ]
    subprocess.run(command, check=True)
    return target


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_when_a_call_fails(extension: Path, scenario: str) -> None:
    result = subprocess.run(
        [sys.executable, str(HERE / "scenarios.py"), str(extension), scenario],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counted = re.search(r"(\d+) calls were made to fail", result.stdout)
    assert counted is not None, result.stdout
    assert int(counted[1]) > 5
