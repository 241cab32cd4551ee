"""Looking at files as the tenant would: in a process of the tenant's uid, so that no link of a tenant's leads root astray.

Runs as: whoever calls perchildctl; root becomes the identity, in a process that ends when it has looked.
Distrusts: everything below a tenant's directories.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any

_ANSWER_BYTES = 1 << 20
LIMIT_S = 30.0  # a tenant may stop a process of its own uid, and its files may lie on a network that is down
_KILL_S = 1.0
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device",
          stat.S_IFBLK: "device"}
CAN_READ = "can_read"


def look_at(path: str) -> dict[str, Any]:
    """Return what this process sees of `path`: kind ("" = it is not there), mode, uid, gid, size, can_read, can_write, and error.

    A file is never opened: it may be a pipe that blocks, or a device that acts.
    """
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return {"path": path, "kind": "", "error": reason or "", CAN_READ: False, "can_write": False}
    is_directory = stat.S_ISDIR(state.st_mode)
    return {"path": path, "kind": _KINDS.get(stat.S_IFMT(state.st_mode), "file"), "mode": stat.S_IMODE(state.st_mode), "uid": state.st_uid,
            "gid": state.st_gid, "size": state.st_size, "error": "", "inode": [state.st_dev, state.st_ino],
            CAN_READ: os.access(path, os.R_OK | (os.X_OK if is_directory else 0)), "can_enter": is_directory and os.access(path, os.X_OK),
            "can_write": os.access(path, os.W_OK)}


def run_as(uid: int, gid: int, groups: Sequence[int], work: Callable[[], Any]) -> Any:  # noqa: ANN401 (JSON)
    """Return what `work` returns, through JSON, from a process with these ids; where we are not root, of our own ids.

    Raises:
        OSError: no process could be had, or it ended without an answer.
        TimeoutError: it had none within LIMIT_S, and was killed: the tenant may have stopped it, or its files hang.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _answer(uid, gid, groups, work, write_fd)
    os.close(write_fd)
    pidfd = os.pidfd_open(pid)
    try:
        raw = _read(read_fd, pidfd, uid)
    finally:
        os.close(read_fd)
        os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0 or not raw:
        message = f"looking as uid {uid} ended with status {status}"
        raise OSError(message)
    return json.loads(raw)


def _read(fd: int, pidfd: int, uid: int) -> bytes:
    """Return all that is written until the other side closes its end; TimeoutError after LIMIT_S, when the process was killed and reaped.

    One that waits in the kernel for a file system that is down does not end by SIGKILL before that answers: it is left to the system.
    """
    raw, deadline_s = b"", time.monotonic() + LIMIT_S
    while len(raw) < _ANSWER_BYTES:
        if not select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if select.select([pidfd], [], [], _KILL_S)[0]:
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            message = f"looking as uid {uid} took more than {LIMIT_S:.0f} s: its process was stopped, or a file system of it does not answer"
            raise TimeoutError(message)
        part = os.read(fd, _ANSWER_BYTES)
        if not part:
            break
        raw += part
    return raw


def _answer(uid: int, gid: int, groups: Sequence[int], work: Callable[[], Any], fd: int) -> None:
    status = 1
    try:
        if os.geteuid() == 0:
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        raw = json.dumps(work()).encode()
        while raw:
            raw = raw[os.write(fd, raw) :]
        status = 0
    finally:
        os._exit(status)
