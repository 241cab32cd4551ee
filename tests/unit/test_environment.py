"""What a server keeps of its starter's environment, and that compile can still read the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perchild import environment

ROOT = Path(__file__).resolve().parents[2]
SHOW = "import os, sys; from perchild import environment as e; e.keep_what_is_needed(); print(dict(os.environ)); print(dict(e.read_starters()))"


@pytest.mark.parametrize(("name", "is_kept"), [
    ("PATH", True), ("LC_TIME", True), ("TZ", True), ("NOTIFY_SOCKET", True), ("LISTEN_FDS", True), ("WATCHDOG_USEC", True),
    ("PYTHONPATH", True), ("HOME", False), ("AWS_SECRET_ACCESS_KEY", False), ("PATH_TO_KEY", False), ("MY_PATH", False), ("LC", False),
    ("SUDO_USER", False), ("path", False),
])
def test_what_a_server_needs_is_kept_by_whole_name(name: str, is_kept: bool) -> None:  # noqa: FBT001
    """Names are compared whole and in their case."""
    assert (name in environment.choose_kept({name: "x"})) is is_kept


def run(variables: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a process keeps, and what its compile would read."""
    said = subprocess.run([sys.executable, "-c", SHOW], cwd=ROOT, env=variables, capture_output=True, text=True, check=True, timeout=30).stdout
    kept, whole = said.splitlines()
    return eval(kept), eval(whole)


def test_the_rest_is_there_for_compile_alone() -> None:
    """After executing itself again the process has the kept ones; the memfd has all, whatever bytes they hold."""
    needed = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    rest = {"SECRET": "a=b\nc", "EMPTY": "", "ODD": "\udcff"}
    kept, whole = run({**needed, **rest})
    assert kept == needed
    assert whole == {**needed, **rest}


def test_without_a_rest_nothing_is_done() -> None:
    """No second execution: nothing is taken away, compile reads what is there."""
    needed = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    assert run(needed) == (needed, needed)


@pytest.mark.parametrize("number", ["0", "2", "99", "-1", "x", ""])
def test_a_number_that_is_no_such_memfd_is_not_believed(number: str) -> None:
    """The variable alone makes no descriptor ours: it counts as one of the rest."""
    needed = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    kept, whole = run({**needed, environment.FD_NAME: number})
    assert kept == needed
    assert whole == {**needed, environment.FD_NAME: number}
