"""The system calls that only a live dispatcher can make, behind one small object, so that tests can stand in for them.

Runs as: dispatcher.
"""

from __future__ import annotations

import os
import resource
import signal
import time


class Sys:
    """The real thing; tests pass an object of the same shape."""

    def __init__(self) -> None:
        """Know of no child yet."""
        self._pids: dict[int, int] = {}  # pidfd -> pid of every child that somebody waits for

    def now_s(self) -> float:
        """Return the monotonic clock, seconds."""
        return time.monotonic()

    def fork(self) -> int:
        """fork(2)."""
        return os.fork()

    def open_pidfd(self, pid: int) -> int:
        """Return a pidfd of our own child, which cannot be somebody else's: it is not reaped yet."""
        pidfd = os.pidfd_open(pid)
        self._pids[pidfd] = pid
        return pidfd

    def signal_pidfd(self, pidfd: int, number: int) -> None:
        """Send a signal to the child that the pidfd stands for; a child that is gone is no error."""
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return

    def reap(self, pidfd: int) -> int | None:
        """Reap the child: its exit status 0..255, or the negative number of the signal that ended it; None if it lives."""
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return None
        self._pids.pop(pidfd, None)
        return _status(result)

    def reap_unknown(self) -> list[tuple[int, int]]:
        """Reap children that are dead and were never given to open_pidfd; return their pids and statuses, as reap() does.

        One that is known and not reaped yet hides those behind it: they are found at a later call.
        """
        found: list[tuple[int, int]] = []
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return found
            if result is None or result.si_pid in self._pids.values():
                return found
            os.waitpid(result.si_pid, 0)
            found.append((result.si_pid, _status(result)))

    def kill_unknown(self) -> list[int]:
        """Kill children that were never given to open_pidfd; return their pids. Whoever is not reaped yet keeps its number.

        As a container's first process we inherit whatever loses its parent there: of those only what was forked from us is ended.
        """
        pid, known = self.own_pid(), set(self._pids.values())
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                unknown = [one for one in map(int, file.read().split()) if one not in known]
        except OSError:  # a kernel that does not tell
            return []
        if self.is_first():
            ours = _look_of(pid)
            unknown = [one for one in unknown if _look_of(one) == ours]
        for one in unknown:
            os.kill(one, signal.SIGKILL)
        return unknown

    def own_pid(self) -> int:
        """Return our pid."""
        return os.getpid()

    def is_first(self) -> bool:
        """Return whether we are the first process of a PID namespace, whose orphans become our children."""
        return os.getpid() == 1

    def is_root(self) -> bool:
        """Return whether we can become other users."""
        return os.geteuid() == 0

    def raise_nofile(self) -> int:
        """Raise the soft limit of descriptors to the hard one; return it."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard


def _look_of(pid: int) -> tuple[str, bytes] | None:
    """Return what a process executes, and with which arguments: a fork's are its parent's. None: it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.readlink(f"/proc/{pid}/exe"), file.read()
    except OSError:
        return None


def _status(result: os.waitid_result) -> int:
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
