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

    def now_s(self) -> float:
        """Return the monotonic clock, seconds."""
        return time.monotonic()

    def fork(self) -> int:
        """fork(2)."""
        return os.fork()

    def open_pidfd(self, pid: int) -> int:
        """Return a pidfd of our own child, which cannot be somebody else's: it is not reaped yet."""
        return os.pidfd_open(pid)

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
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def is_root(self) -> bool:
        """Return whether we can become other users."""
        return os.geteuid() == 0

    def raise_nofile(self) -> int:
        """Raise the soft limit of descriptors to the hard one; return it."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
