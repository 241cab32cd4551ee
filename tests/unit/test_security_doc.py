"""docs/security.md: every test that it names exists, every role has its table, every boundary file is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from perchild import roles

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py):(\w+)`", TEXT)


def functions_of(path: Path) -> set[str]:
    """Return the names of a file's functions."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_every_named_test_exists(file: str, test: str) -> None:
    """A boundary's test is where the page says."""
    assert (ROOT / file).is_file()
    assert test in functions_of(ROOT / file)


def test_every_boundary_file_is_named() -> None:
    """No file of tests/boundary proves something that the page does not mention."""
    files = {f"tests/boundary/{path.name}" for path in (ROOT / "tests/boundary").glob("test_*.py")}
    assert files == {file for file, _ in NAMED if file.startswith("tests/boundary/")}


@pytest.mark.parametrize("role", roles.ROLES, ids=lambda role: role.name)
def test_every_role_has_its_part(role: roles.Role) -> None:
    """Each row of the table of roles is a heading, with what an attacker would get."""
    part = TEXT.partition(f"\n### {role.name}\n")[2].partition("\n#")[0]
    assert part, f"docs/security.md says nothing of {role.name}"
    assert "| taken over, the attacker gets |" in part or "As *fixed*" in part


def test_the_trade_offs_are_there() -> None:
    """What was given up is said: fork without exec, carried bytes, AcceptScope any, shared logs."""
    for word in ("forked, not executed", "`AcceptScope any`", "`KeepAliveScope any`", "one memory layout", "Shared logs"):
        assert word in TEXT
