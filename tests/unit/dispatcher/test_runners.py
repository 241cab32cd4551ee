"""What the dispatcher does about runners, one event at a time, on a server that is no more than that needs.

Runs as: any user.
"""

from __future__ import annotations

import array
import os
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from perchild.dispatcher import inbox, runners, signals
from perchild.dispatcher.loop import READ
from perchild.dispatcher.state import Programs, Runner
from perchild.wire.job import LOG, decode_job

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


def test_a_runner_that_cannot_be_watched_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE at its pidfd: it would take jobs, and never be told to end."""
    killed, said = [], []
    monkeypatch.setattr(runners, "_make_directory", lambda *_: None)
    monkeypatch.setattr(runners, "_fork_surely", lambda *_: 77)

    def refuse(_pid: int) -> int:
        raise OSError(24, "Too many open files")
    world.server.sys.open_pidfd = refuse
    world.server.sys.kill_unknown = lambda: killed.append(77) or [77]
    world.server.events = SimpleNamespace(say=lambda *words, **_: said.append(words[2]))
    runners._start_runner(world.server, world.member, world.programs)
    assert killed == [77]
    assert world.programs.runner is None
    assert world.programs.retry_s is not None
    assert any("Too many open files" in text for text in said)


def test_a_reopened_log_is_sent_to_the_runner(world: World) -> None:
    """As a job with one descriptor; no message for whoever has none, and none that waits in a full box."""
    with socket.socket(fileno=os.dup(world.programs.box.read_fd)) as box:
        runners.reopen_logs(world.server)
        with pytest.raises(BlockingIOError):
            box.recvmsg(1000, 100)
        runner = world.run()
        runners.reopen_logs(world.server)
        raw, control, _, _ = box.recvmsg(1000, 100)
        fds = array.array("i", control[0][2])
        assert decode_job(raw, len(fds)).kind == LOG
        assert os.path.samestat(os.fstat(fds[0]), os.fstat(2))
        os.close(fds[0])
        for _ in range(10_000):
            runners.reopen_logs(world.server)
            if world.programs.runner is None:
                break
        assert world.programs.runner is None
        assert runner.is_asked_to_end
        assert world.sent == [signal.SIGUSR1]
