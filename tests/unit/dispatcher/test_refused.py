"""What `systemctl status` says of a reload that was refused, and what a renewal of certificates does to it: nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perchild.dispatcher import start
from perchild.dispatcher.start import MAX_REASON, Dispatcher


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """A dispatcher of which there is only what the end of a reload touches."""
    monkeypatch.setattr(start, "describe", lambda _server, refused: f"refused: {refused}")
    monkeypatch.setattr(start.gc, "freeze", lambda: None)
    one: Any = Dispatcher.__new__(Dispatcher)
    said: list[str] = []
    events = SimpleNamespace(say=lambda _level, _code, text, **_facts: said.append(text))
    service = SimpleNamespace(say_status=lambda text: said.append(f"STATUS={text}"), say_ready=lambda: said.append("READY"))
    one.server = SimpleNamespace(events=events, service=service, stopping="", mpm=SimpleNamespace(configured_code="AH00489"))
    one.start = SimpleNamespace(version="perchildd/test")
    one.said, one._refused, one._job_done = said, "", []
    return one


def finish(dispatcher: Any, *, is_done: bool, text: str = "", is_renewal: bool = False) -> str:
    """End a reload or a renewal; return the status that the service manager was told."""
    heard: list[tuple[bool, str]] = []
    dispatcher.said.clear()
    dispatcher._job_done = [] if is_renewal else [lambda ok, reason: heard.append((ok, reason))]
    dispatcher._finish_reload(is_done, text, is_renewal=is_renewal)
    assert heard == ([] if is_renewal else [(is_done, text)])
    assert dispatcher.said[-1] == "READY"
    return next(line for line in dispatcher.said if line.startswith("STATUS="))


def test_a_renewal_leaves_what_is_said_of_the_last_reload(dispatcher: Any) -> None:
    """Whether it succeeds or not: the configuration is still the one that was refused."""
    assert finish(dispatcher, is_done=False, text="line 1\n  is  wrong") == "STATUS=refused: line 1 is wrong"
    assert finish(dispatcher, is_done=True, is_renewal=True) == "STATUS=refused: line 1 is wrong"
    assert finish(dispatcher, is_done=False, text="no certificate", is_renewal=True) == "STATUS=refused: line 1 is wrong"
    assert finish(dispatcher, is_done=True) == "STATUS=refused: "
    assert finish(dispatcher, is_done=False, text="no certificate", is_renewal=True) == "STATUS=refused: "


def test_the_reason_has_a_length(dispatcher: Any) -> None:
    """systemctl shows one line."""
    assert finish(dispatcher, is_done=False, text="x" * 1000) == f"STATUS=refused: {'x' * MAX_REASON}"
