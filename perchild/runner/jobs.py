"""Programs that answer one request: RUN starts one, CANCEL ends it with its whole group, its exit is only noted.

Runs as: runner.  Distrusts: the child's messages, the programs.
Before: main.py  After: native/runexec.c
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

from perchild import native
from perchild.runner.log import Log
from perchild.runner.loop import Loop, Timer
from perchild.wire.job import Job, JobError
from perchild.wire.runner import RunnerFile

KILL_AFTER_S = 2.0  # between TERM and KILL
MAX_GRACE_S = 3600.0  # that a CANCEL may give
LEAVE_S = 1.0  # from a program's end to TERM for what is left in its group: who becomes a daemon has left it by then


def limits_of(facts: RunnerFile) -> tuple[tuple[int, int] | None, ...]:
    """Return the limits in the order of enum PC_EXEC_CPU, PC_EXEC_MEMORY, PC_EXEC_PROCESSES."""
    return facts.limits.cpu, facts.limits.mem, facts.limits.nproc


def signal_group(group: int, number: int) -> bool:
    """Signal every process of a group; False if there is none left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a set-uid program among them: the others were signalled
        return True
    return True


class Jobs:
    """Running programs, by their job's id and by their pid, which is their group's number."""

    def __init__(self, loop: Loop, log: Log, facts: RunnerFile) -> None:
        self._loop, self._log, self._facts = loop, log, facts
        self._roots = tuple(os.fsencode(root) for root in facts.roots)
        self._pids: dict[int, int] = {}  # job -> pid
        self._jobs: dict[int, int] = {}  # pid -> job
        self._graces: dict[int, Timer] = {}  # job -> when its program is told to end
        self._ending: dict[int, Timer] = {}  # groups that are told to end, and what comes next: TERM, or KILL
        self.start: Callable[[native.Program], int] = native.start_program

    @property
    def count(self) -> int:
        """How many run, or still have to be killed."""
        return len(self._jobs) + len(self._ending.keys() - self._jobs.keys())

    def run(self, job: Job, fds: tuple[int, ...]) -> None:
        """Start a program; the descriptors stay the caller's. A refusal is explained on the last of them.

        Raises:
            JobError: its number is in use: who could cancel which?
        """
        facts = self._facts
        if job.id in self._pids:
            raise JobError(f"number {job.id} is in use")
        try:
            pid = self.start(native.Program(
                job.path, job.cwd, self._roots, job.arguments, job.environment, os.fsencode(facts.path), facts.uid, facts.gid,
                (fds[0], fds[1], fds[2]), limits_of(facts), facts.nice))
        except native.RefusedError:
            return
        self._forget_group(pid)  # a number is given anew only when no group has it any more
        self._pids[job.id], self._jobs[pid] = pid, job.id

    def cancel(self, number: int, grace_s: float = 0.0) -> None:
        """End a job's program and whatever is in its group, at once or in a while; one that is gone is no error."""
        pid = self._pids.get(number)
        if pid is None:
            return
        if not grace_s:
            self._end_group(pid)
        elif number not in self._graces:
            self._graces[number] = self._loop.after(min(grace_s, MAX_GRACE_S), partial(self.cancel, number))

    def _forget_group(self, group: int) -> None:
        """What was to come for it must not meet another that gets its number."""
        timer = self._ending.pop(group, None)
        if timer is not None:
            timer.cancel()

    def _end_group(self, group: int) -> None:
        if group not in self._ending:
            self._tell_group(group)

    def _tell_group(self, group: int) -> None:
        self._forget_group(group)
        if signal_group(group, signal.SIGTERM):
            signal_group(group, signal.SIGCONT)  # a stopped program hears TERM when it goes on
            self._ending[group] = self._loop.after(KILL_AFTER_S, partial(self._kill_group, group))

    def _kill_group(self, group: int) -> None:
        self._forget_group(group)
        signal_group(group, signal.SIGKILL)

    def note_exit(self, pid: int) -> bool:
        """Forget a program that has ended; False if it was none of ours. Whoever it leaves in its group is ended a little later."""
        job = self._jobs.pop(pid, None)
        if job is not None:
            self._pids.pop(job, None)
            if job in self._graces:
                self._graces.pop(job).cancel()
            if pid not in self._ending:
                self._ending[pid] = self._loop.after(LEAVE_S, partial(self._tell_group, pid))
        for group in self._ending.keys() - self._jobs.keys():
            if not signal_group(group, 0):
                self._forget_group(group)  # nobody is left, and the number may become another's
        return job is not None

    def end_all(self) -> None:
        """Tell every program to end."""
        for pid in list(self._jobs):
            self._end_group(pid)
