"""What the dispatcher does about runners, one event at a time, on a server that is no more than that needs.

Runs as: any user.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from perchild.dispatcher import inbox, runners, signals
from perchild.dispatcher.loop import READ
from perchild.dispatcher.state import Programs, Runner

PIDFD = 4


class World:
    """A server with one identity, whose clock stands where a test puts it, and what was done to it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.watched: dict[int, int] = {}
        self.sent: list[int] = []
        loop = SimpleNamespace(watch=lambda fd, mask, _call: self.watched.update({fd: mask}), forget=lambda fd: self.watched.pop(fd, None))
        system = SimpleNamespace(now_s=lambda: self.now_s, signal_pidfd=lambda _fd, number: self.sent.append(number))
        identity = SimpleNamespace(name="alice", number=1, runner="new", new_privs=False)
        self.programs = Programs(inbox.make_inbox(65536), "file", new_privs=False)
        self.member: Any = SimpleNamespace(identity=identity, programs=self.programs, children={})
        self.server: Any = SimpleNamespace(loop=loop, sys=system, members={1: self.member}, stopping=None)

    def run(self) -> Runner:
        """Give the identity a runner."""
        runner = self.programs.runner = self.programs.all[3] = Runner(3, PIDFD, self.now_s)
        return runner

    def look(self, after_s: float) -> list[int]:
        """Let time pass, and a look happen; return the signals that it sent."""
        self.now_s += after_s
        self.sent.clear()
        runners.look_at_runners(self.server)
        return list(self.sent)


@pytest.fixture
def world() -> Iterator[World]:
    """One, whose box is closed afterwards."""
    one = World()
    yield one
    inbox.close_inbox(one.programs.box)


def test_a_server_that_stops_starts_no_runner(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that comes behind the signal stays in its box, which is not watched any more."""
    started: list[object] = []
    monkeypatch.setattr(runners, "_start_runner", lambda *arguments: started.append(arguments))
    runners.settle_runner(world.server, world.member)
    box_fd = world.programs.box.read_fd
    assert world.watched[box_fd] & READ
    world.server.stopping = signals.STOP
    runners._on_box(world.server, world.member, READ)
    assert not started
    assert box_fd not in world.watched


def test_a_replaced_runner_is_told_again_and_ended_in_the_end(world: World) -> None:
    """USR1 each second, for one may be lost; TERM when its programs have had the time of any Timeout; KILL."""
    runner = world.run()
    assert world.look(1) == []
    runners.update_programs(world.server, world.member, is_forced=False)
    assert world.sent == [signal.SIGUSR1]
    assert world.programs.runner is None
    assert world.look(1) == [signal.SIGUSR1]
    assert world.look(runners.FINISH_S - 2) == [signal.SIGUSR1]
    assert world.look(1) == [signal.SIGTERM]
    assert world.look(1) == []
    assert world.look(runners.KILL_AFTER_S) == [signal.SIGKILL]
    assert runner.is_asked_to_end
