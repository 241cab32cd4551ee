"""The pid file: written at the start, removed at the end, read by -k.

Runs as: dispatcher, and the command line.  Distrusts: the file's content (a number is all that is taken from it).
Source: httpd log.c ap_log_pid, ap_read_pid.
"""

from __future__ import annotations

import os
from pathlib import Path

from perchild.dispatcher.errors import PidFileError

MAX_BYTES = 32
MAX_PID = 1 << 22  # PID_MAX_LIMIT


def read_pid(path: str) -> int | None:
    """Return the pid in the file, None if there is no file.

    Raises:
        PidFileError: it cannot be read, or holds no pid (AH00056 ...).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PidFileError("", f"Error retrieving pid file {path}: {error.strerror}") from error
    try:
        raw_text = os.read(fd, MAX_BYTES).strip()
    finally:
        os.close(fd)
    if not raw_text.isdigit() or not 0 < int(raw_text) <= MAX_PID:
        raise PidFileError("", f"Error retrieving pid file {path}: it holds no process id; "
                               "remove it before continuing if it is corrupted.")
    return int(raw_text)


def find_running(path: str) -> int | None:
    """Return the pid of the running server whose pid file this is, None if there is none.

    A pid file that a crash left behind may name a process of another program: only one that runs perchild counts.
    Raises:
        PidFileError: the file cannot be read.
    """
    pid = read_pid(path)
    if pid is None or not is_alive(pid):
        return None
    try:
        raw_command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return pid  # alive, and nothing says that it is another program
    return pid if b"perchild" in raw_command else None


def is_alive(pid: int) -> bool:
    """Return whether a process with that number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_pid(path: str, pid: int) -> bool:
    """Write the pid file, by a temporary name and rename.

    Returns:
        Whether another pid was in it (AH00098: unclean shutdown of a previous run).
    Raises:
        PidFileError: AH00099, could not create it.
    """
    try:
        old_pid = read_pid(path)
    except PidFileError:
        old_pid = -1
    temporary = f"{path}.{pid}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, f"{pid}\n".encode())
        finally:
            os.close(fd)
        Path(temporary).replace(path)
    except OSError as error:
        raise PidFileError("AH00099", f"could not create {path}: {error.strerror}") from error
    return old_pid is not None and old_pid != pid


def remove_pid(path: str, pid: int) -> bool:
    """Remove the pid file if it is still ours; return whether it was removed."""
    try:
        if read_pid(path) != pid:
            return False
        Path(path).unlink()
    except (PidFileError, OSError):
        return False
    return True
