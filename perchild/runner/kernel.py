"""What a keeper asks the kernel for, and one line on a socket that somebody has sent.

Runs as: runner.  Distrusts: a descriptor that came with a WAKE.  Before: keeper.py
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket


def answer(fd: int, line: str) -> None:
    """Write the answer of a WAKE and close it; who asked may be gone, and what was sent need be no socket."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return
    with contextlib.suppress(OSError), sock:
        text = line.replace("\n", " ").encode("utf-8", "backslashreplace")[:500]
        sock.send(text + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def make_file(text: bytes) -> int:
    """Return a file in memory that holds `text`, for good: the program, of our own uid, cannot write to it."""
    fd = os.memfd_create("service", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, text)
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def has_children(pid: int) -> bool:
    """Whether a process has any."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return bool(file.read().strip())
    return False
