"""Tests of wsoffload/__main__.py: each command gets its arguments, and wrong ones are refused."""

import importlib
import subprocess
import sys

import pytest

from wsoffload.__main__ import COMMANDS, main


def wsoffload(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "wsoffload", *args],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_command_gets_its_arguments(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def record(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    monkeypatch.setattr(importlib.import_module(f"wsoffload._{command}"), "main", record)
    assert main([command, "--help", "more"]) == 7
    assert seen == [["--help", "more"]]


def test_status_of_the_process_is_that_of_the_command() -> None:
    result = wsoffload("doctor", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: python -m wsoffload doctor")
    result = wsoffload("doctor", "--nonsense")
    assert result.returncode == 2
    assert "--nonsense" in result.stderr


def test_help_names_each_command() -> None:
    result = wsoffload("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    for command, purpose in COMMANDS.items():
        assert f"{command:<8}{purpose}" in result.stdout


@pytest.mark.parametrize("args", [(), ("dance",), ("--dance",), ("dance", "--help")])
def test_wrong_command_is_refused_with_the_usage(args: tuple[str, ...]) -> None:
    result = wsoffload(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("usage: python -m wsoffload [--help] {demo,bench,doctor} ...")
