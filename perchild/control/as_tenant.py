"""Looking at files as the tenant would: in a process of the tenant's uid, so that no link of a tenant's leads root astray.

Runs as: whoever calls perchildctl; root becomes the identity, in a process that ends when it has looked.
Distrusts: everything below a tenant's directories.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

_ANSWER_BYTES = 1 << 20
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
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _answer(uid, gid, groups, work, write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as stream:
        raw = stream.read(_ANSWER_BYTES)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0 or not raw:
        message = f"looking as uid {uid} ended with status {status}"
        raise OSError(message)
    return json.loads(raw)


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
