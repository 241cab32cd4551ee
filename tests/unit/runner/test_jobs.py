"""Jobs and the loop without processes of their own: numbers, groups, timers."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from perchild import native
from perchild.runner.jobs import Jobs, limits_of, signal_group
from perchild.runner.log import Log, escape_text
from perchild.runner.loop import READ, Loop
from perchild.wire.job import RUN, Job
from perchild.wire.runner import Limits, RunnerFile

FACTS = RunnerFile(user="x", uid=1, gid=1, home="/", roots=("/srv",), limits=Limits(nproc=(1, 2)))


def test_timers_are_called_in_order_and_not_when_cancelled() -> None:
    loop, called = Loop(), []
    loop.after(0.02, lambda: called.append("b"))
    loop.after(0.01, lambda: called.append("a"))
    loop.after(0.0, lambda: called.append("never")).cancel()
    started = time.monotonic()
    while len(called) < 2:
        loop.run_once()
    assert called == ["a", "b"]
    assert time.monotonic() - started < 2


def test_a_callback_may_forget_another_of_the_same_round() -> None:
    loop, called = Loop(), []
    pipes = [os.pipe() for _ in range(2)]
    for index, (reader, writer) in enumerate(pipes):
        os.write(writer, b"x")

        def call(_events: int, mine: int = index) -> None:
            called.append(mine)
            for other, _ in pipes:
                loop.forget(other)

        loop.watch(reader, READ, call)
    loop.run_once()
    assert len(called) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_cancel_ends_a_group_and_the_exit_is_counted() -> None:
    loop = Loop()
    jobs = Jobs(loop, Log("x"), FACTS)
    with subprocess.Popen(["/bin/sleep", "100"], start_new_session=True) as process:
        jobs.start = lambda program: process.pid if program.fds == (0, 1, 2) else -1
        jobs.run(Job(RUN, 5, 0, b"/srv/x"), (0, 1, 2))
        assert jobs.count == 1
        jobs.cancel(6)
        jobs.cancel(5)
        jobs.cancel(5)
        assert process.wait(5) == -signal.SIGTERM
    assert jobs.note_exit(process.pid)
    assert not jobs.note_exit(process.pid)
    assert jobs.count == 0


def test_a_refused_program_is_no_job() -> None:
    jobs = Jobs(Loop(), Log("x"), FACTS)

    def refuse(_program: native.Program) -> int:
        raise native.RefusedError(1, 0)

    jobs.start = refuse
    jobs.run(Job(RUN, 5, 0, b"/srv/x"), (0, 1, 2))
    assert jobs.count == 0


def test_limits_have_the_order_of_the_extension() -> None:
    assert limits_of(FACTS) == (None, None, (1, 2))


def test_a_group_that_is_not_there_is_no_error() -> None:
    with subprocess.Popen(["/bin/true"], start_new_session=True) as process:
        process.wait()
    assert not signal_group(process.pid, 0)


@pytest.mark.parametrize(("raw", "shown"), [("a\nb", "a\\nb"), ("\x1b[0m", "\\x1b[0m"), ("é", "é"), ("\u202e", "\\u202e"), ("x" * 9000, "x" * 2000)])
def test_lines_cannot_be_forged(raw: str, shown: str) -> None:
    assert escape_text(raw) == shown
