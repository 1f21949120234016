"""Tests of wsoffload/_doctor.py: the facts are those of this process, the self-test is honest."""

import asyncio
import os
import re
import resource
import socket
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest

from wsoffload import _doctor


@pytest.fixture(scope="module", autouse=True)
def first_guard() -> None:
    """The first guarded connection makes what the process keeps: a thread and its descriptors."""
    passed, says = _doctor.self_test(asyncio.SelectorEventLoop)
    assert passed, says


def control_groups(root: Path, group: str, files: dict[str, str]) -> Path:
    """A /proc and a /sys with these control groups, of version 2."""
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"1:name=systemd:/elsewhere\n0::{group}\n")
    return root


def test_command_prints_each_fact_and_passes() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "wsoffload", "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    lines = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    assert list(lines)[: len(_doctor.facts())] == list(_doctor.facts())
    assert lines["wsoffload"] == version("wsoffload")
    says = lines["self-test on asyncio"]
    assert re.fullmatch(
        r"ok, a call and its answer took \d+ us; "
        r"a Ping was answered \d+ ms after the loop had stalled",
        says,
    )


def test_facts_are_those_of_this_process() -> None:
    facts = _doctor.facts()
    major, minor, micro = sys.version_info[:3]
    assert facts["Python"].startswith(f"CPython {major}.{minor}.{micro}")
    assert "\n" not in facts["Python"]
    usable, total = len(os.sched_getaffinity(0)), os.cpu_count()
    assert facts["cores"] == f"{usable} usable of {total}"
    assert facts["kernel"] == f"Linux {os.uname().release} {os.uname().machine}"
    assert facts["switch interval"] == f"{sys.getswitchinterval() * 1000:g} ms"
    assert facts["default event loop"].startswith("asyncio.unix_events._UnixSelectorEventLoop with")


def test_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "PACKAGES", ("wsoffload", "no-such-package-as-this"))
    assert _doctor.facts()["no-such-package-as-this"] == "not installed"


def test_build_flags_are_those_of_this_interpreter() -> None:
    debug = "yes" if hasattr(sys, "gettotalrefcount") else "no"
    # Where it could be off, importing wsoffload has turned it on.
    assert _doctor.facts()["build"].startswith("GIL enabled: yes, free-threaded build: ")
    assert _doctor.facts()["build"].endswith(f"debug build: {debug}")


def test_loop_without_a_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        def close(self) -> None:
            assert not self.__dict__

    monkeypatch.setattr(asyncio, "new_event_loop", Loop)
    name = f"{__name__}.test_loop_without_a_selector.<locals>.Loop"
    assert _doctor.facts()["default event loop"] == name


def test_limits_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert _doctor.facts()["RLIMIT_NOFILE"] == f"{soft} (at most {hard}) open files"
    monkeypatch.setattr(resource, "getrlimit", lambda which: (512, resource.RLIM_INFINITY))
    facts = _doctor.facts()
    for name, meaning in _doctor.LIMITS.items():
        assert facts[name] == f"512 (at most unlimited) {meaning}"


def test_thread_stack_size() -> None:
    assert _doctor.facts()["thread stack size"] == "the system's default"
    before = threading.stack_size(1 << 20)
    try:
        assert _doctor.facts()["thread stack size"] == "1048576 bytes"
    finally:
        threading.stack_size(before)


@pytest.mark.parametrize(
    ("group", "files", "quota", "threads"),
    [
        ("/", {"cgroup.procs": ""}, "none", "none"),
        ("/", {"cpu.max": "max 100000\n", "pids.max": "max\n"}, "none", "none"),
        (
            "/a/b",
            {"a/b/cpu.max": "50000 100000\n", "a/b/pids.max": "max\n", "a/pids.max": "64\n"},
            "50000 100000 (microseconds of CPU, of each period)",
            "64",
        ),
        (
            "/a/b",
            {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "20000 100000\n"},
            "50000 100000, 20000 100000 (microseconds of CPU, of each period)",
            "none",
        ),
    ],
)
def test_control_groups(
    group: str, files: dict[str, str], quota: str, threads: str, tmp_path: Path
) -> None:
    facts = _doctor.facts(control_groups(tmp_path, group, files))
    assert facts["CPU quota of the control group"] == quota
    assert facts["thread limit of the control group"] == threads


def test_no_control_groups(tmp_path: Path) -> None:
    facts = _doctor.facts(tmp_path)
    assert facts["CPU quota of the control group"] == "none"
    assert facts["thread limit of the control group"] == "none"


def test_unknown_libc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor.platform, "libc_ver", lambda: ("", ""))
    assert _doctor.facts()["libc"] == "unknown"


def test_failing_self_test_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Mute(asyncio.SelectorEventLoop):
        def add_reader(self, fd: object, *args: object) -> None:
            if fd != self._ssock.fileno():  # type: ignore[attr-defined]
                raise NotImplementedError
            super().add_reader(fd, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(_doctor, "_loops", lambda: {"a mute loop": Mute, "asyncio": None})
    assert _doctor.main([]) == 1
    failed, passed = capsys.readouterr().out.splitlines()[-2:]
    assert failed.startswith("self-test on a mute loop: failed, RuntimeError: the event loop ")
    assert passed.startswith("self-test on asyncio: ok, ")


def test_self_test_knows_a_call_that_never_left_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoPool:
        def __init__(self, max_workers: int) -> None:
            assert max_workers == 1

        async def __aenter__(self) -> "NoPool":
            return self

        async def __aexit__(self, *unused: object) -> None:
            assert len(unused) == 3

        async def run(self, fn: "type[object]") -> object:
            return fn()

    monkeypatch.setattr(_doctor, "Pool", NoPool)
    passed, says = _doctor.self_test(asyncio.new_event_loop)
    assert not passed
    assert says.startswith("failed, RuntimeError: the calls ran on the threads ")


def test_self_test_knows_a_connection_that_ends_without_a_pong() -> None:
    peer, other = socket.socketpair()
    with peer:
        with other:
            other.sendall(_doctor.HEAD)
            other.shutdown(socket.SHUT_WR)
            with pytest.raises(RuntimeError, match=r"Switching Protocols.* came instead of"):
                _doctor._await_pong(peer)


def test_self_test_fails_without_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "PATIENCE", 0.05)
    # A frame that is no Ping is not answered.
    monkeypatch.setattr(_doctor, "PING", b"\x81\x80\0\0\0\0")
    passed, says = _doctor.self_test(asyncio.new_event_loop)
    assert not passed
    assert says == "failed, TimeoutError: timed out"


def test_uvloop_is_tested_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("uvloop")
    module.new_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", module)
    assert list(_doctor._loops()) == ["asyncio", "uvloop"]
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert list(_doctor._loops()) == ["asyncio"]
