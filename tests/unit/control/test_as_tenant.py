"""Looking as a tenant: what is found comes back, and nobody who stops the process that looks holds us up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from perchild.config.identity import Person
from perchild.config.model import Result
from perchild.config.tree import Tree
from perchild.control import as_tenant, checks
from perchild.control.as_tenant import look_at, run_as

IDS = (os.getuid(), os.getgid(), ())


def test_what_is_found_comes_back() -> None:
    """Through JSON, however long it is."""
    assert run_as(*IDS, lambda: look_at("/")["kind"]) == "directory"
    assert len(run_as(*IDS, lambda: "x" * 300_000)) == 300_000


def test_one_that_ends_without_an_answer_is_an_error() -> None:
    """Its status is named."""
    with pytest.raises(OSError, match="ended with status -9"):
        run_as(*IDS, lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_one_that_is_stopped_is_killed_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tenant may stop it; the error says so."""
    monkeypatch.setattr(as_tenant, "LIMIT_S", 0.2)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="its process was stopped, or a file system"):
        run_as(*IDS, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    assert time.monotonic() - start >= 0.2
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_finding_says_whose_files_were_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that row finds it; nobody else's files are concerned."""
    def refuse(uid: int, _gid: int, _groups: object, work: Callable[[], Any]) -> Any:
        if uid == 1001:
            message = "looking as uid 1001 took more than 30 s"
            raise TimeoutError(message)
        return work()

    monkeypatch.setattr(checks, "run_as", refuse)
    subject = checks.Subject(Result(), cast("Any", None), cast("Any", None), Tree(), "/etc/perchild")
    assert checks._look(subject, Person(1001, 1001, (), "alice"), ["/"]) == {}
    assert checks._look(subject, Person(1002, 1002, (), "bob"), ["/"])["/"]["kind"] == "directory"
    row = next(check for check in checks.CHECKS if check.name == "not-looked-at")
    assert [found.what for found in row.find(subject)] == ["files of alice: looking as uid 1001 took more than 30 s"]
