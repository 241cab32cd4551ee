"""The starter's environment: what the server's processes keep of it, and where compile finds the rest.

Whoever starts a server may have secrets in their environment (a deployment's tokens, sudo's leftovers). It would lie in the memory of
every child, forked as they are, and in /proc/PID/environ, which a child's own tenant may read. So perchildd executes itself
again with the few variables that a server needs. `PassEnv` and `${NAME}` in the configuration may mean any of the others: all of them
go into a sealed memfd, which the dispatcher holds, never reads, and only compile opens.
Runs as: whoever calls perchildd (keep_what_is_needed), compile (read_starters).  Source: security.md 4.1.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Mapping
from functools import cache

# Programs are found by PATH, messages and times are in LANG, LC_* and TZ; sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3);
# how the interpreter and the loader find their parts, and how sanitizers report, must stay as it was.
KEPT = re.compile(r"PATH|LANG|LANGUAGE|LC_\w+|TZ|NOTIFY_SOCKET|LISTEN_(PID|FDS|FDNAMES)|FDSTORE|WATCHDOG_(PID|USEC)|PYTHON\w+|"
                  r"LD_LIBRARY_PATH|LD_PRELOAD|\w+SAN_OPTIONS")
FD_NAME = "PERCHILDD_ENVIRON_FD"
MEMFD_NAME = "perchild-environ"
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ENDED = b"\0"


def choose_kept(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a server needs. Pure."""
    return {name: value for name, value in variables.items() if KEPT.fullmatch(name)}


def keep_what_is_needed() -> None:
    """Execute this process again without the rest of its environment, unless that has been done or there is no rest.

    Raises:
        OSError: the interpreter cannot be executed.
    """
    if _starters_fd() >= 0:
        os.set_inheritable(_starters_fd(), False)
        os.environ.pop(FD_NAME, None)
        return
    kept = choose_kept(os.environ)
    if kept.keys() == os.environ.keys():
        return
    fd = os.memfd_create(MEMFD_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    raw = b"".join(name + b"=" + value + _ENDED for name, value in os.environb.items())
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(raw)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    os.set_inheritable(fd, True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**kept, FD_NAME: str(fd)})  # noqa: S606 - ourselves


@cache
def _starters_fd() -> int:
    """Return the memfd that the execution before this one left, or -1; what only bears its number is none."""
    number = os.environ.get(FD_NAME, "")
    if not number.isdecimal():
        return -1
    try:
        is_ours = fcntl.fcntl(int(number), fcntl.F_GET_SEALS) == SEALS
    except OSError:
        return -1
    return int(number) if is_ours else -1


@cache
def read_starters() -> Mapping[str, str]:
    """Return the whole environment of whoever started the server. For compile: what reads it has it in its memory."""
    if _starters_fd() < 0:
        return dict(os.environ)
    raw = os.pread(_starters_fd(), os.fstat(_starters_fd()).st_size, 0)
    pairs = (os.fsdecode(one).partition("=") for one in raw.split(_ENDED) if one)
    return {name: value for name, _, value in pairs}
