"""What the dispatcher and the policies may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def imports_of(path: Path) -> set[str]:
    """Return the modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "perchild/dispatcher").glob("*.py")), ids=lambda path: path.name)
def test_dispatcher_imports_no_child_and_no_parser(path: Path) -> None:
    """No module of dispatcher/ imports child, runner or auth; config only in the function that runs in compile."""
    forbidden = ("perchild.child", "perchild.runner", "perchild.auth")
    assert not [name for name in imports_of(path) if name.startswith(forbidden)]
    configured = {name for name in imports_of(path) if name.startswith("perchild.config")}
    assert configured <= ({"perchild.config.load"} if path.name == "compile.py" else set())


@pytest.mark.parametrize("path", sorted((ROOT / "perchild/mpm").glob("*.py")), ids=lambda path: path.name)
def test_policies_are_pure(path: Path) -> None:
    """mpm/ imports nothing that touches the system."""
    allowed = ("__future__", "collections.abc", "dataclasses", "perchild.mpm", "perchild.wire.plan")
    assert all(name.startswith(allowed) for name in imports_of(path))


def test_dispatcher_in_memory_holds_no_parser() -> None:
    """After all of dispatcher/ is loaded, neither config nor child is; so children do not inherit them from it."""
    code = ("import sys, perchild.dispatcher.start; "
            "print([name for name in sys.modules if name.startswith(('perchild.config', 'perchild.child'))])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
