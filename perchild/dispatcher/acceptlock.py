"""What AcceptMutex needs beyond the children: a file, a shared memfd, or a semaphore. Never shared between two uids.

Runs as: dispatcher.  Source: native/acceptlock.c, httpd AcceptMutex.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from perchild.dispatcher.errors import DispatcherError
from perchild.dispatcher.state import Server


def make_lock(server: Server) -> None:
    """Make what the plan's AcceptMutex needs.

    Raises:
        DispatcherError: AH00023 ("Couldn't create the accept mutex"), with the reason.
    """
    try:
        _MAKERS[server.plan.accept_mutex](server)
    except (OSError, KeyError) as error:
        raise DispatcherError("AH00023", f"Couldn't create the {server.plan.accept_mutex} accept mutex "
                              f"({server.plan.lock_file}): {error}") from error


def _make_nothing(_server: Server) -> None:
    """AcceptMutex default: listeners are waited for exclusively."""


def _make_file(server: Server) -> None:
    fd = os.open(server.plan.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.close(fd)
    server.mutex_path = server.plan.lock_file


def _make_memfd(server: Server) -> None:
    from perchild import native  # noqa: PLC0415 - only where it is used

    server.mutex_fd = os.memfd_create("perchild-accept", os.MFD_CLOEXEC)
    native.init_accept_mutex(server.mutex_fd)


def _make_semaphore(server: Server) -> None:
    from perchild import native  # noqa: PLC0415 - only where it is used

    identity = server.unassigned().identity if server.members else next(
        one for one in server.plan.identities if one.number == 0)
    server.mutex_id = native.make_accept_semaphore(identity.uid, identity.gid)


_MAKERS: dict[str, Callable[[Server], None]] = {
    "default": _make_nothing, "flock": _make_file, "fcntl": _make_file, "pthread": _make_memfd, "sysvsem": _make_semaphore,
}


def remove_lock(server: Server) -> None:
    """Remove what make_lock made."""
    if server.mutex_path:
        try:
            os.unlink(server.mutex_path)
        except OSError:
            server.events.say("warn", "", f"could not remove {server.mutex_path}")
    if server.mutex_fd >= 0:
        os.close(server.mutex_fd)
    if server.mutex_id >= 0:
        from perchild import native  # noqa: PLC0415 - only where it is used

        native.remove_accept_semaphore(server.mutex_id)
