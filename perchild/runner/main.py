"""The runner's life: read the file, take jobs from the box, reap what ends, end when there is nothing to do.

TERM from outside: end everything and go. USR1: take no job any more, let run what runs, then go. In a PID namespace nothing that
was started survives the runner: the kernel ends it. Without one, what is left is ended here.
Runs as: the identity, after the drop.  Sees: jobs of its identity's children.  Holds: perchild/roles.py, RUNNER.
Before: native/runner.c  After: jobs.py, services.py, crew.py
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
import stat
import struct
import time
import traceback
from pathlib import Path
from typing import NoReturn

from perchild import native
from perchild.runner.crew import Crew
from perchild.runner.jobs import Jobs, signal_group
from perchild.runner.log import STDERR_FD, Log
from perchild.runner.loop import HANGUP, READ, Loop
from perchild.runner.services import Services
from perchild.wire import job as wire
from perchild.wire.runner import FCGID, RunnerFile, decode_runner

EXIT_OK, EXIT_BUG, EXIT_FILE = 0, 1, 3
JOBS_AT_ONCE = 16  # taken from the box in a row
SIGNALS_AT_ONCE = 16  # read in a row: a program may send them without end
REAPS_AT_ONCE = 64  # orphans may end as fast as they are reaped
DESCENDANTS_S = 3.0  # to end what is left, where there is no PID namespace
SAY_S = 1.0  # between two lines about jobs that break the rules
MIN_LOOK_S = 0.05
CONTROL_BYTES = socket.CMSG_LEN(wire.MAX_FDS * 4)  # not CMSG_SPACE, which has room for one descriptor more
SIGNAL_BYTES = 128  # struct signalfd_siginfo: number, errno, code, sender's pid
SI_USER = 0  # code of kill(2) and pidfd_send_signal(2): who says another (rt_sigqueueinfo(2)) names a sender of its choice
_SIGNAL = struct.Struct("=IiiI112x")


class Runner:
    """One runner."""

    def __init__(self, here: native.RunnerHere, facts: RunnerFile) -> None:
        self._here = here
        self.log = Log(facts.user, is_json=facts.is_json)
        self.loop = Loop()
        self._idle_s = facts.idle_s
        self._box = socket.socket(fileno=here.box_fd)
        self._room = bytearray(wire.MAX_BYTES + 1)
        self._signal_fd = native.watch_runner_signals()
        self.jobs = Jobs(self.loop, self.log, facts)
        self.services = Services(self.loop, self.log, facts, {FCGID: Crew})
        if facts.nice < 0:
            self.log.say("warn", f"NiceValue {facts.nice} needs root: programs run with 0")
        self._is_said, self._unsaid = False, 0  # about jobs that break the rules
        self._is_draining = self._is_ending = self._is_over = self._is_reaping = False
        self._active_s = self.loop.now_s()
        self.loop.watch(self._signal_fd, READ, self._on_signal)
        self.loop.watch(here.box_fd, READ | HANGUP, self._on_box)
        self.loop.after(self._idle_s, self._look)

    def run(self) -> None:
        """Serve until the end."""
        while not self._is_over:
            self.loop.run_once()
            if (self._is_draining or self._is_ending) and self._is_quiet():
                self._is_over = True
        if not self._here.is_apart:
            end_descendants()

    # ------------------------------------------------------------ jobs

    def _on_box(self, events: int) -> None:
        self._active_s = self.loop.now_s()
        for _ in range(JOBS_AT_ONCE):
            try:
                length, control, flags, _ = self._box.recvmsg_into(
                    [self._room], CONTROL_BYTES, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            if not length and not control and events & HANGUP:  # a holder has shut it down: the dispatcher makes another
                self._drain()
                return
            fds = _descriptors(control)
            try:
                self._take(bytes(memoryview(self._room)[:length]), fds, flags)
            except (wire.JobError, OSError) as error:
                self._note_broken(str(error))
            finally:
                for fd in fds:
                    os.close(fd)

    def _take(self, raw: bytes, fds: list[int], flags: int) -> None:
        """Do what a message says; descriptors that are kept are taken out of the list."""
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise wire.JobError("it was cut")
        job = wire.decode_job(raw, len(fds))
        if job.kind == wire.RUN:
            self.jobs.run(job, tuple(fds))
        elif job.kind == wire.CANCEL:
            self.jobs.cancel(job.id, float(job.service))
        elif job.kind == wire.LOG:
            take_log(fds[0])
        else:
            self.services.wake(job.service, fds.pop())

    def _note_broken(self, why: str) -> None:
        """Say that a job was dropped, one line a second: a child that was taken over may send as many as it likes."""
        if self._is_said:
            self._unsaid += 1
            return
        self._is_said = True
        self.log.say("error", f"a job breaks the rules: {why}")
        self.loop.after(SAY_S, self._say_broken)

    def _say_broken(self) -> None:
        if self._unsaid:
            self.log.say("error", f"{self._unsaid} more jobs broke the rules since the last line about one")
            self.loop.after(SAY_S, self._say_broken)
        self._is_said = self._unsaid > 0
        self._unsaid = 0

    # ------------------------------------------------------------ signals and children

    def _on_signal(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(SIGNALS_AT_ONCE):
                number, _, code, sender = _SIGNAL.unpack(os.read(self._signal_fd, SIGNAL_BYTES))
                if number == signal.SIGCHLD:
                    self._reap_soon()
                elif self._here.is_apart and (sender or code != SI_USER):
                    continue  # a program's: only who is outside the namespace may end us
                elif number == signal.SIGTERM:
                    self._end_now()
                else:
                    self._drain()

    def _reap_soon(self) -> None:
        if not self._is_reaping:
            self._is_reaping = True
            self.loop.after(0.0, self._reap)

    def _reap(self) -> None:
        """Reap so many; then the loop goes round."""
        self._is_reaping = False
        with contextlib.suppress(ChildProcessError):
            for _ in range(REAPS_AT_ONCE):
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._active_s = self.loop.now_s()
                if not self.jobs.note_exit(pid):
                    self.services.note_exit(pid, status)
            self._reap_soon()

    # ------------------------------------------------------------ the end

    def _is_quiet(self) -> bool:
        return self.jobs.count == 0 and self.services.count == 0

    def _look(self) -> None:
        """End if nothing was to be done for a while. A job that comes meanwhile lies in the box, for a successor."""
        left_s = self._active_s + self._idle_s - self.loop.now_s()
        if self._is_quiet() and left_s <= 0 and self.services.try_close():
            self._is_over = True
            return
        self.loop.after(max(left_s, self._idle_s / 4 if not self._is_quiet() else 0.0, MIN_LOOK_S), self._look)

    def _drain(self) -> None:
        """Take no job any more; the dispatcher asks for it each second."""
        if self._is_draining:
            return
        self._is_draining = True
        self.loop.forget(self._here.box_fd)
        self.services.leave(is_forced=False)

    def _end_now(self) -> None:
        self._drain()
        self._is_ending = True
        self.services.leave(is_forced=True)
        self.jobs.end_all()


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def take_log(fd: int) -> None:
    """Log to this file from now on; JobError if writing to it could ever wait for somebody, or overwrite something."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        raise wire.JobError("a log that is no file to append to")
    os.dup2(fd, STDERR_FD, inheritable=False)


def end_descendants() -> None:
    """Kill whatever is left below us: where there is no PID namespace the kernel does not do it. Orphans are ours to reap.

    Not for ever: a set-user-id program may be another's, whom we cannot end.
    """
    end_s = time.monotonic() + DESCENDANTS_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < end_s:
            pid = os.getpid()
            for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if not signal_group(int(one), signal.SIGKILL):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(int(one), signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(MIN_LOOK_S)


def read_file(fd: int) -> RunnerFile:
    """Read and close the runner's file; ValueError if it is none."""
    with open(fd, "rb") as file:
        return decode_runner(file.read())


def runner_main() -> NoReturn:
    """Be the runner that this process is, to its end."""
    status, is_json = EXIT_BUG, False
    try:
        signal.set_wakeup_fd(-1)  # the dispatcher's
        here = native.runner_here()
        if here is None:
            raise RuntimeError("this process is no runner")
        try:
            facts = read_file(here.file_fd)
        except ValueError as error:
            Log("runner").say("error", str(error))
            status = EXIT_FILE
        else:
            is_json = facts.is_json
            Runner(here, facts).run()
            status = EXIT_OK
    except BaseException:  # noqa: BLE001 - the last line of defence: said, in one line, and the dispatcher starts another
        Log("runner", is_json=is_json).say("crit", traceback.format_exc(limit=-6))
    finally:
        os._exit(status)
