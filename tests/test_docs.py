"""Tests of docs/: what it shows runs, and what it names is there."""

import doctest
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

import wsoffload

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))
API = (DOCS / "reference/api.md").read_text()
INTERNALS = (DOCS / "internals/index.md").read_text()
INVARIANTS = (DOCS / "internals/invariants.md").read_text()


def named(page: Path) -> str:
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_code_is_run(page: Path) -> None:
    text = page.read_text()
    # Python code stands in files that tests run, or is a session that runs here.
    kinds = set(re.findall(r"^```\{?([\w:-]+)", text, re.MULTILINE))
    shown = {"console", "pycon", "literalinclude", "code-block"}
    assert kinds <= {*shown, "toctree", "eval-rst", "py:module", "include"}
    for language in re.findall(r"^```\{code-block\} (.*)$", text, re.MULTILINE):
        assert language == "text"
    session = doctest.DocTestParser().get_doctest(text, {}, named(page), str(page), 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.REPORT_NDIFF)
    assert runner.run(session).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_included_files_are_examples_that_run(page: Path) -> None:
    tested = (ROOT / "tests/test_examples.py").read_text() + (
        ROOT / "tests/test_demo.py"
    ).read_text()
    for target in re.findall(r"\{literalinclude\} (.*)$", page.read_text(), re.MULTILINE):
        file = (page.parent / target).resolve()
        assert file.is_file()
        assert Path(target).parent.name == "examples"
        assert file.name in tested


def test_output_of_the_example_of_cancelling() -> None:
    # The program's own test compares its output with the same lines.
    lines = re.findall(r"^\d\. .*", (DOCS / "howto/cancel-and-time-out.md").read_text(), re.M)
    assert [line[0] for line in lines] == ["1", "2", "3", "4"]
    assert "timeout=0.1 s passed while it was running" in lines[0]
    assert "queue_timeout=0.1 s passed while it was still queued" in lines[1]


@pytest.mark.parametrize("name", wsoffload.__all__)
def test_each_public_name_is_in_the_reference(name: str) -> None:
    assert re.search(rf"^\.\. py:\w+:: {name}\b", API, re.MULTILINE)


def signature(function: object) -> str:
    """As the reference writes it: without `self` and without types."""
    assert callable(function)
    written = []
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    keyword_only = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            written.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        keyword_only = keyword_only or star == "*"
        default = parameter.default
        shown = "" if default is parameter.empty else f"={default!r}".replace("'", '"')
        written.append(f"{star}{parameter.name}{shown}")
    return f"({', '.join(written)})"


@pytest.mark.parametrize("method", ["using", "map", "shutdown", "aclose", "stats"])
def test_methods_of_pool_are_as_in_the_reference(method: str) -> None:
    assert f"py:method:: {method}{signature(getattr(wsoffload.Pool, method))}\n" in API


def test_parameters_of_pool_are_as_in_the_reference() -> None:
    assert f"py:class:: Pool{signature(wsoffload.Pool.__init__)}\n" in API
    for function in (wsoffload.Pool.__init__, wsoffload.Pool.using):
        for name in list(inspect.signature(function).parameters)[1:]:
            assert re.search(rf":param (\w+ )?{name}:", API)


def test_parameters_of_the_guard_are_as_in_the_reference() -> None:
    assert f"py:class:: Guard{signature(wsoffload.Guard)}\n" in API
    assert f"py:method:: start{signature(wsoffload.GuardedTransport.start)}\n" in API
    for function in (
        wsoffload.serve,
        wsoffload.unix_serve,
        wsoffload.unix_connect,
        wsoffload.adopt,
    ):
        shown = re.sub(r"guard=Guard\(.*?\)", "guard=DEFAULT", signature(function))
        assert f"py:function:: {function.__name__}{shown}\n" in API


def written(kind: object) -> str:
    """A type as the reference writes it."""
    if get_origin(kind) is Literal:
        return "str"
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return re.sub(r"\b[\w.]+\.(?=\w)", "", name)


@pytest.mark.parametrize(
    "record",
    [
        wsoffload.PoolStats,
        wsoffload.Durations,
        wsoffload.ProcessStats,
        wsoffload.GuardStats,
        wsoffload.GuardStatus,
    ],
)
def test_fields_are_in_the_reference_in_their_order(record: type) -> None:
    (part,) = re.findall(rf"py:class:: {record.__name__}\n(.*?)(?:\n\.\. py:class|```)", API, re.S)
    attributes = re.findall(r"py:attribute:: (\w+)\n\s+:type: (.+)", part)
    types = get_type_hints(record)
    inherited = {name for base in record.__mro__[1:-1] for name in get_type_hints(base)}
    own = [field.name for field in fields(record) if field.name not in inherited]
    assert attributes == [(name, written(types[name])) for name in own]


def test_methods_are_in_the_reference() -> None:
    for owner in (wsoffload.Pool, wsoffload.Caller, wsoffload.Stream):
        (part,) = re.findall(rf"py:class:: {owner.__name__}\b(.*?)```", API, re.S)
        documented = set(re.findall(r"py:(?:method|attribute):: (\w+)", part))
        # What other Pythons add to ThreadPoolExecutor is not ours to document.
        ours = [base for base in owner.__mro__ if base.__module__.startswith("wsoffload")]
        names = {name for base in ours for name in vars(base)}
        assert documented == {name for name in names if not name.startswith("_")}


# The table of the binding and that of the core: a file and what it may include.
ROOMS = re.findall(r"^\| (`[\w.\[\]]+`) \| .*? \|(?: (.*?) ?\|)?$", INTERNALS, re.MULTILINE)


def rooms() -> dict[str, set[str]]:
    """What each file of C may include, by the file's name; `pool.c` is there twice."""
    found: dict[str, set[str]] = {}
    for file, may_include in ROOMS:
        name = file.strip("`")
        allowed = set(re.findall(r"`([\w.]+)`", may_include))
        for suffix in re.findall(r"\[(.*)\]", name):
            stem = name.removesuffix(f".[{suffix}]")
            found[f"{stem}.h"] = allowed
            found[f"{stem}.c"] = {f"{stem}.h", *allowed}
        if "[" not in name:
            found[name] = found.get(name, set()) | allowed
    return found


def includes(file: Path) -> set[str]:
    return set(re.findall(r'^#include "(.*)"', file.read_text(), re.MULTILINE))


def test_who_may_include_whom() -> None:
    allowed = rooms()
    for file in sorted((ROOT / "csrc").glob("*/*.[ch]")):
        assert file.name in allowed, f"{file.name} is in no room of docs/internals/index.md"
        assert includes(file) <= allowed[file.name], file


def test_the_core_knows_no_python() -> None:
    binding = {file.name for file in (ROOT / "csrc/py").glob("*.h")} | {"Python.h"}
    for file in sorted((ROOT / "csrc/core").glob("*.[ch]")):
        angled = set(re.findall(r"^#include <(.*)>", file.read_text(), re.MULTILINE))
        assert not (includes(file) | angled) & binding, file


def test_each_file_of_the_package_has_a_room() -> None:
    for file in (ROOT / "wsoffload").glob("*.py*"):
        assert file.suffix == ".pyc" or f"`{file.name}`" in INTERNALS


TESTS_NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.(?:py|c))::(\w+)`", INVARIANTS)))


@pytest.mark.parametrize(("file", "name"), TESTS_NAMED)
def test_tests_named_by_the_invariants_exist(file: str, name: str) -> None:
    definition = rf"^TEST\({name}\)" if file.endswith(".c") else rf"^\s*(async )?def {name}\("
    assert re.search(definition, (ROOT / file).read_text(), re.MULTILINE)


def test_each_invariant_names_a_test() -> None:
    parts = INVARIANTS.split("\n## ")[1:]
    numbers = [int(part.split(".")[0]) for part in parts]
    assert numbers == list(range(1, 18))
    for part in parts:
        assert re.search(r"`tests/[\w/]+\.(py|c)::\w+`", part), part.splitlines()[0]
