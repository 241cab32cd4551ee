"""What the runner does in one turn of its loop, without a process of its own.

Runs as: any user.
"""

from __future__ import annotations

import os
import signal
import struct
import tempfile
import time
from types import SimpleNamespace

import pytest

from perchild.runner import main
from perchild.runner.loop import Loop
from perchild.wire.job import JobError


def make_runner(*, is_apart: bool = True) -> main.Runner:
    """Return a runner with a loop and nothing else."""
    runner = main.Runner.__new__(main.Runner)
    runner._signal_fd, runner.loop, runner._here = 9, Loop(), SimpleNamespace(is_apart=is_apart)  # type: ignore[assignment]
    runner._is_reaping = False
    return runner


def test_signals_without_end_do_not_keep_the_runner_from_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of its uid may send them as fast as they are read: so many in a row, then the loop goes round."""
    runner, read = make_runner(), []

    def flood(fd: int, size: int) -> bytes:
        read.append((fd, size))
        assert len(read) < 1000, "it reads for ever"
        return struct.pack("=I124x", signal.SIGCHLD)

    monkeypatch.setattr(os, "read", flood)
    runner._on_signal(1)
    assert read == [(9, main.SIGNAL_BYTES)] * main.SIGNALS_AT_ONCE


def test_orphans_without_end_do_not_keep_the_runner_from_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may make them as fast as they are reaped: so many in a row, then the loop goes round, and goes on with them."""
    runner, reaped, others = make_runner(), [], []

    def reap(_pid: int, _flags: int) -> tuple[int, int]:
        reaped.append(1)
        assert len(reaped) < 1000, "it reaps for ever"
        return 7, 0

    monkeypatch.setattr(os, "waitpid", reap)
    runner.jobs = runner.services = SimpleNamespace(note_exit=lambda *_: True)  # type: ignore[assignment]
    runner._reap_soon()
    runner._reap_soon()
    runner.loop.after(0.0, lambda: others.append(len(reaped)))
    runner.loop.run_once()
    assert others == [main.REAPS_AT_ONCE]
    runner.loop.run_once()
    assert len(reaped) == 2 * main.REAPS_AT_ONCE


@pytest.mark.parametrize(("number", "code", "sender", "is_apart", "what"), [
    (signal.SIGTERM, 0, 0, True, "end"), (signal.SIGUSR1, 0, 0, True, "drain"), (signal.SIGTERM, 0, 5, True, ""),
    (signal.SIGTERM, -1, 0, True, ""), (signal.SIGUSR1, -6, 0, True, ""), (signal.SIGTERM, 0, 5, False, "end"),
])
def test_whose_signals_count(number: int, code: int, sender: int, is_apart: bool, what: str,  # noqa: FBT001
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Those from outside the namespace, which have no sender there; with rt_sigqueueinfo(2) a program could say that it has none."""
    runner, done = make_runner(is_apart=is_apart), []
    monkeypatch.setattr(runner, "_end_now", lambda: done.append("end"), raising=False)
    monkeypatch.setattr(runner, "_drain", lambda: done.append("drain"), raising=False)
    raws = [struct.pack("=IiiI112x", number, 0, code, sender)]
    monkeypatch.setattr(main, "SIGNALS_AT_ONCE", 1)
    monkeypatch.setattr(os, "read", lambda _fd, _size: raws.pop())
    runner._on_signal(1)
    assert done == ([what] if what else [])


def test_a_log_is_a_file_to_append_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else could make the runner wait for whoever reads it, or overwrite what is there."""
    reader, writer = os.pipe()
    with tempfile.NamedTemporaryFile() as file, open(file.name, "ab") as appended:
        for fd in (writer, file.fileno()):
            with pytest.raises(JobError):
                main.take_log(fd)
        other = os.dup(file.fileno())
        monkeypatch.setattr(main, "STDERR_FD", other)
        main.take_log(appended.fileno())
        os.write(other, b"line")
        os.close(other)
        assert file.read() == b"line"
    os.close(reader)
    os.close(writer)


def test_what_cannot_be_killed_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set-user-id program that a program started, where there is no namespace."""
    monkeypatch.setattr(main, "DESCENDANTS_S", 0.1)
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    monkeypatch.setattr(main, "signal_group", lambda _pid, _number: True)  # EPERM for the leader
    started_s = time.monotonic()
    main.end_descendants()
    assert time.monotonic() - started_s < 100
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
