"""Logs that are reopened while something else changes."""

from __future__ import annotations

from types import SimpleNamespace

from perchild.dispatcher import reload


def test_child_of_another_configuration_is_left_alone() -> None:
    """A reload gave its identity another number of logs; it has those of before, and is about to be drained."""
    identity = SimpleNamespace(name="alice", logs=(SimpleNamespace(path="/var/log/a"), SimpleNamespace(path="/var/log/b")))
    child = SimpleNamespace(pid=7, number=1, signature=("before",), log_is_ours=(True,))
    member = SimpleNamespace(identity=identity, signature=("now",), live=lambda: [child])
    server = SimpleNamespace(children={7: child}, members={1: member}, reopening=[])
    reload.reopen_children(server, (1,))
    reload.advance_reopening(server)
    assert server.reopening == []
