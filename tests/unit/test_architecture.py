"""The house is as docs/architecture.md says: stations exist, folders import what they may, generated files are fresh."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from perchild import limits
from perchild.wire import control, page, record

ROOT = Path(__file__).resolve().parents[2]
STATION = re.compile(r"`((?:native|perchild)/[\w/]+\.(?:c|py)):(\w+)`")

# What a folder may not import. A name stands for itself and everything below it.
SYSTEM = ("os", "socket", "subprocess", "signal", "fcntl", "select", "ctypes", "shutil", "pwd", "grp")
FORBIDDEN = {
    "perchild/config": (*SYSTEM, "perchild.dispatcher", "perchild.child", "perchild.control", "perchild.native"),
    "perchild/mpm": (*SYSTEM, "perchild.dispatcher", "perchild.child", "perchild.config", "perchild.control", "perchild.native"),
    "perchild/dispatcher": ("perchild.child", "perchild.runner", "perchild._native"),
    "perchild/child": ("perchild.runner", "perchild.dispatcher", "perchild.config", "perchild.control", "perchild._native", "subprocess"),
    "perchild/control": ("perchild.child", "perchild._native"),
    "perchild/runner": ("perchild.dispatcher", "perchild.config", "perchild.control", "perchild.child", "perchild._native", "subprocess"),
    "perchild/status": (*SYSTEM, "perchild.dispatcher", "perchild.child", "perchild.config", "perchild.control", "perchild.native"),
    "perchild/wire": ("subprocess", "perchild.dispatcher", "perchild.child", "perchild.config", "perchild.control"),
}
ALLOWED = {"perchild/config/load.py": (*SYSTEM, "perchild.native"),  # certificates are looked at in C
           "perchild/config/users.py": SYSTEM, "perchild/config/kept.py": SYSTEM, "perchild/config/docs.py": SYSTEM, "perchild/wire/control.py": ("socket",),
           # inet_pton and inet_ntop are functions of bytes
           **{f"perchild/config/{name}.py": ("socket",) for name in ("directives_server", "show", "values")}}


def modules() -> list[Path]:
    return sorted(ROOT.glob("perchild/**/*.py"))


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_within(name: str, rule: str) -> bool:
    return name == rule or name.startswith(f"{rule}.")


def function_exists(path: Path, name: str) -> bool:
    text = path.read_text()
    if path.suffix == ".c":
        return re.search(rf"^{name}\(", text, re.MULTILINE) is not None
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(ast.parse(text)))


STATIONS = STATION.findall((ROOT / "docs/architecture.md").read_text())


@pytest.mark.parametrize(("file", "function"), STATIONS, ids=[f"{file}:{function}" for file, function in STATIONS])
def test_architecture_station_exists(file: str, function: str) -> None:
    """Each file:function that docs/architecture.md names is there."""
    assert (ROOT / file).exists(), f"docs/architecture.md names {file}"
    assert function_exists(ROOT / file, function), f"docs/architecture.md names {file}:{function}"


def test_architecture_names_every_file_of_the_data_plane() -> None:
    """A connection's path has no station that the page forgets."""
    named = {file for file, _ in STATIONS}
    path = {"loop", "accept", "peek", "route", "hand", "conn", "transport", "h1", "request", "serve", "map", "access", "file",
            "listing", "respond", "log", "record", "drop", "restrict", "child"}
    assert {f"native/{one}.c" for one in path} <= named


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_what_its_folder_may(path: Path) -> None:
    """A folder is a trust domain: its modules do not reach into another's."""
    relative = str(path.relative_to(ROOT))
    rules = next((rules for folder, rules in FORBIDDEN.items() if relative.startswith(f"{folder}/")), ())
    allowed = ALLOWED.get(relative, ())
    wrong = [name for name in imports_of(path) for rule in rules if is_within(name, rule) and rule not in allowed]
    assert not wrong, f"{relative} imports {wrong}"


def test_native_py_alone_imports_the_extension() -> None:
    """No cdata spreads: one module knows the extension."""
    users = [str(path.relative_to(ROOT)) for path in modules()
             if any(is_within(name, "perchild._native") for name in imports_of(path))]
    assert users == ["perchild/native.py"]


@pytest.mark.parametrize(("module", "name"), [(limits, "limits.h"), (record, "record.h"), (page, "page.h")],
                         ids=["limits.h", "record.h", "page.h"])
def test_generated_header_is_fresh(module: object, name: str) -> None:
    """Python's tables and C's constants are the same numbers."""
    assert (ROOT / "native" / name).read_text() == module.render_header(), f"native/{name}: generate it again"  # type: ignore[attr-defined]


def test_control_kinds_are_unique_odd_from_children_and_in_protocol_md() -> None:
    """A message's number tells its direction, and docs/protocol.md has a row for each."""
    kinds = {name[4:]: value for name, value in vars(control).items() if name.startswith("MSG_")}
    assert len(set(kinds.values())) == len(kinds)
    assert {name for name, value in kinds.items() if value % 2} == {"READY", "LOAD", "IDLE", "ASK_BOARD"}
    text = (ROOT / "docs/protocol.md").read_text()
    for name, value in kinds.items():
        assert re.search(rf"^\| {value} \| {name} \|", text, re.MULTILINE), f"docs/protocol.md: {value} {name}"


def test_record_tags_are_unique() -> None:
    """A tag has one number and one name."""
    assert len({tag.number for tag in record.TAGS}) == len({tag.name for tag in record.TAGS}) == len(record.TAGS)


def test_native_does_not_include_python() -> None:
    """The data plane knows nothing of the interpreter."""
    assert not [path.name for path in ROOT.glob("native/*.[ch]") if "Python.h" in path.read_text()]


@pytest.mark.parametrize("path", [*modules(), *sorted(ROOT.glob("native/*.c"))], ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_one_room(path: Path) -> None:
    """Files stay readable: at most 500 lines of Python, 800 of C."""
    lines = path.read_text().count("\n")
    assert lines <= (500 if path.suffix == ".py" else 800)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    """No Python function is longer than 50 lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{path.name}:{node.name}"
