"""Log files that root opens: only where nobody else could have put a link.

Every directory on the way to the file must belong to root and be closed to others (a sticky /tmp is not enough) and to
the groups that children are in (the same rule as config/load.py, which tells the children who opens what). A symbolic
link in such a directory was made by root and is followed by the same rule. Anything else is left to the child, which
opens the file as the tenant.
Runs as: dispatcher.  Distrusts: every path component that another user could change.
Source: security.md 4.6; CVE-2016-1247.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAX_LINKS = 16
LOG_MODE = 0o640
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


class UnsafePathError(Exception):
    """Somebody who is not root could change what this path means."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Whose directories are safe: root's that nobody else can write to, tenants' groups included; also sticky ones, if it says so."""

    tenant_gids: frozenset[int]
    may_be_sticky: bool


def open_log(path: str, tenant_gids: frozenset[int] = frozenset(), *, may_be_sticky: bool = False) -> int:
    """Open a log file for appending as root.

    Args:
        path: absolute.
        tenant_gids: groups that children are in.
        may_be_sticky: below a sticky directory like /tmp nobody can replace what is root's; that is enough for the main
            server's log, which no tenant asked for, if every component below it is root's.
    Returns:
        A descriptor that the caller owns (O_APPEND, close-on-exec).
    Raises:
        UnsafePathError: a component is not root's alone, or the file is neither regular nor a device.
        OSError: it cannot be opened.
    """
    if path in _STANDARD:
        return os.dup(_STANDARD[path])
    directory_fd, name = walk_as_root(path, Rule(tenant_gids, may_be_sticky))
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(name, flags, LOG_MODE, dir_fd=directory_fd)
    finally:
        os.close(directory_fd)
    state = os.fstat(fd)
    is_plain = stat.S_ISREG(state.st_mode) and not (may_be_sticky and (state.st_uid != 0 or state.st_nlink > 1))
    if not is_plain and not stat.S_ISCHR(state.st_mode):
        os.close(fd)
        message = f"{path}: not a regular file of root's"
        raise UnsafePathError(message)
    os.set_blocking(fd, True)
    return fd


def open_logs(paths: Iterable[str], tenant_gids: frozenset[int], *, is_privileged: bool) -> tuple[int, ...]:
    """Return a descriptor for each path, -1 where the child has to open the file itself."""
    return tuple(_open_or_leave(path, tenant_gids) if is_privileged else -1 for path in paths)


def _open_or_leave(path: str, tenant_gids: frozenset[int]) -> int:
    try:
        return open_log(path, tenant_gids)
    except (UnsafePathError, OSError):
        return -1


def walk_as_root(path: str, rule: Rule) -> tuple[int, str]:
    """Return the directory of `path`, opened, and the last component; symbolic links are followed where root made them.

    Raises:
        UnsafePathError, OSError: as open_log.
    """
    pending = path.split("/")
    current = _enter_root(rule)
    links = 0
    try:
        while True:
            name = pending.pop(0)
            if name in {"", "."}:
                if pending:
                    continue
                message = f"{path}: names a directory"
                raise UnsafePathError(message)
            target = _read_link(current, name)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    message = f"{path}: too many symbolic links"
                    raise UnsafePathError(message)
                pending = [*target.split("/"), *pending]
                if target.startswith("/"):
                    os.close(current)
                    current = -1
                    current = _enter_root(rule)
                continue
            if not pending:
                return current, name
            parent, current = current, _enter(current, name, rule)
            os.close(parent)
    except BaseException:
        if current >= 0:
            os.close(current)
        raise


def _enter_root(rule: Rule) -> int:
    return _checked(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), rule)


def _enter(parent_fd: int, name: str, rule: Rule) -> int:
    return _checked(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd), rule)


def _checked(fd: int, rule: Rule) -> int:
    state = os.fstat(fd)
    is_open = state.st_mode & stat.S_IWOTH or (state.st_mode & stat.S_IWGRP and state.st_gid in rule.tenant_gids)
    is_held = rule.may_be_sticky and state.st_mode & stat.S_ISVTX
    if state.st_uid != 0 or (is_open and not is_held):
        os.close(fd)
        message = "a directory on the way can be changed by others than root"
        raise UnsafePathError(message)
    return fd


def _read_link(directory_fd: int, name: str) -> str | None:
    try:
        target = os.readlink(name, dir_fd=directory_fd)
    except OSError:
        return None  # not a link, or not there: opening it says which
    if os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_uid != 0:
        message = f"{name}: a symbolic link that is not root's"
        raise UnsafePathError(message)
    return target
