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
from perchild.wire.job import RUN, Job, JobError
from perchild.wire.runner import Limits, RunnerFile

FACTS = RunnerFile(user="x", uid=1, gid=1, home="/", roots=("/srv",), limits=Limits(nproc=(1, 2)))


def test_timers_are_called_in_order_and_not_when_cancelled() -> None:
    loop, called = Loop(), []
    loop.after(0.02, lambda: called.append("b"))
    loop.after(0.01, lambda: called.append("a"))
    loop.after(0.0, lambda: called.append("never")).cancel()
    while len(called) < 2:
        loop.run_once()
    assert called == ["a", "b"]


def test_timers_that_add_timers_do_not_hold_the_loop_up() -> None:
    """What is due at once is due in the next round."""
    loop, called = Loop(), []

    def again() -> None:
        called.append(1)
        assert len(called) < 100, "it never comes back"
        loop.after(0.0, again)

    loop.after(0.0, again)
    time.sleep(0.001)
    loop.run_once()
    assert len(called) == 1


def test_cancelled_timers_take_no_memory() -> None:
    """A child may ask for many that are due in an hour, and that its programs' ends cancel."""
    loop = Loop()
    kept = loop.after(3600.0, lambda: None)
    for _ in range(10_000):
        loop.after(3600.0, lambda: None).cancel()
    assert len(loop._timers) < 1000
    assert any(entry[2] is kept for entry in loop._timers)


def test_an_event_of_a_closed_descriptor_is_not_its_successors() -> None:
    """One that is closed in a round, whose number another descriptor gets in the same round: the event that has come was the first one's."""
    loop, called = Loop(), []
    pipes = [os.pipe() for _ in range(2)]
    spare = os.pipe()
    for index, (reader, writer) in enumerate(pipes):
        os.write(writer, b"x")

        def call(_events: int, mine: int = index) -> None:
            called.append(mine)
            other = pipes[1 - mine][0]
            loop.forget(other)
            os.dup2(spare[0], other)
            loop.watch(other, READ, lambda _events: called.append(7))

        loop.watch(reader, READ, call)
    loop.run_once()
    assert len(called) == 1
    for fd in {fd for pair in (*pipes, spare) for fd in pair}:
        os.close(fd)


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
        assert process.wait(30) == -signal.SIGTERM
    assert jobs.note_exit(process.pid)
    assert not jobs.note_exit(process.pid)
    assert jobs.count == 0


def test_a_kill_is_not_for_whoever_gets_the_number_next() -> None:
    """A group that has gone within its two seconds, and another of the same number that was told to end just now."""
    loop, sent, is_there = Loop(), [], [True]
    jobs = Jobs(loop, Log("x"), FACTS)
    jobs.start = lambda _program: 77
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perchild.runner.jobs.signal_group", lambda group, number: sent.append((group, number)) or is_there[0])
        patch.setattr("perchild.runner.jobs.KILL_AFTER_S", 0.05)
        jobs.run(Job(RUN, 1, 0, b"/srv/x"), (0, 1, 2))
        jobs.cancel(1)
        is_there[0] = False
        assert jobs.note_exit(77)
        assert jobs.count == 0
        is_there[0] = True
        patch.setattr("perchild.runner.jobs.KILL_AFTER_S", 1000)
        jobs.run(Job(RUN, 2, 0, b"/srv/x"), (0, 1, 2))
        jobs.cancel(2)
        time.sleep(0.06)
        loop.after(0, lambda: None)
        loop.run_once()
        assert (77, signal.SIGKILL) not in sent


def test_a_number_is_one_programs() -> None:
    """A child that was taken over repeats one: the first one is still its own."""
    jobs = Jobs(Loop(), Log("x"), FACTS)
    pids = iter((71, 72))
    jobs.start = lambda _program: next(pids)
    jobs.run(Job(RUN, 1, 0, b"/srv/x"), (0, 1, 2))
    with pytest.raises(JobError):
        jobs.run(Job(RUN, 1, 0, b"/srv/x"), (0, 1, 2))
    assert jobs.count == 1


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
