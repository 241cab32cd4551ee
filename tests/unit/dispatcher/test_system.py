"""Reaping: who is known is left to whoever waits for it, who is not is found."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from perchild.dispatcher.system import Sys


def fork(act: Callable[[], None]) -> int:
    """Return the pid of a child that does `act`, ends with 3, and is dead already, not reaped."""
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_unknown_children_are_killed_and_known_ones_are_not() -> None:
    """One that a nursery did not tell of, which would go on for ever."""
    sys = Sys()
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
    known, unknown = pids
    pidfd = sys.open_pidfd(known)
    assert sys.kill_unknown() == [unknown]
    assert os.waitid(os.P_PID, unknown, os.WEXITED | os.WNOWAIT) is not None
    assert sys.reap_unknown() == [(unknown, -signal.SIGKILL)]
    assert sys.kill_unknown() == []
    assert sys.reap(pidfd) is None
    sys.signal_pidfd(pidfd, signal.SIGKILL)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert sys.reap(pidfd) == -signal.SIGKILL
    os.close(pidfd)


class First(Sys):
    """As the first process of a container."""

    def is_first(self) -> bool:
        return True


def test_the_first_process_ends_no_orphan_of_others() -> None:
    """What was executed elsewhere and lost its parent is not what a nursery forked from us."""
    sys = First()
    orphan = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # Popen returns when it has been executed
    forked = os.fork()
    if forked == 0:
        signal.pause()
    try:
        assert sys.kill_unknown() == [forked]
        assert os.waitid(os.P_PID, forked, os.WEXITED | os.WNOWAIT) is not None
        assert sys.reap_unknown() == [(forked, -signal.SIGKILL)]
        assert orphan.communicate(b"lives", timeout=30)[0] == b"lives"
    finally:
        orphan.kill()
        orphan.wait()


def test_unknown_children_are_reaped_and_known_ones_are_not() -> None:
    """In whichever order they die: the known one's status stays for reap(), the others are found once it is taken."""
    sys = Sys()
    first = fork(lambda: None)
    assert sys.reap_unknown() == [(first, 3)]
    known = fork(lambda: None)
    pidfd = sys.open_pidfd(known)
    killed = fork(lambda: os.kill(os.getpid(), signal.SIGKILL))
    found = sys.reap_unknown()
    assert sys.reap(pidfd) == 3
    os.close(pidfd)
    assert found + sys.reap_unknown() == [(killed, -signal.SIGKILL)]
    assert sys.reap_unknown() == []
