"""TLS in the dispatcher: it opens keys and holds memfds of ticket keys, and reads neither.

A key file is opened with root's rights only where nobody else could have put a link on the way to it (dispatcher/logs.py's rule):
else a tenant could have another's key opened for its child. What is left, the child opens as its identity.
Ticket keys are one memfd for each identity with TLS, filled in C: a new one every TICKET_ROTATE_S, which its children are sent.
Runs as: dispatcher.  Before: spawn.py  After: native/tickets.c
"""

from __future__ import annotations

import os
import stat

from perchild import limits
from perchild.dispatcher.logs import Rule, UnsafePathError, walk_as_root
from perchild.dispatcher.state import Member, Server

ROTATE_S = limits.value("TICKET_ROTATE_S")
AGAIN_S = 60.0  # behind a renewal that failed


def open_key(path: str, tenant_gids: frozenset[int], *, is_privileged: bool) -> int:
    """Return a descriptor of a key file, which the caller owns; -1: it cannot be opened here, or root must not follow the path."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        if not is_privileged:
            fd = os.open(path, flags)
        else:
            directory_fd, name = walk_as_root(path, Rule(tenant_gids, may_be_sticky=False))
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory_fd)
            finally:
                os.close(directory_fd)
    except (UnsafePathError, OSError):
        return -1
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return -1


def have_tickets(server: Server, member: Member) -> int:
    """Return the memfd of an identity's ticket keys, made now if there is none yet; -1: it has no TLS."""
    if member.identity.keys and member.ticket_fd < 0:
        _renew_tickets(server, member)
    return member.ticket_fd if member.identity.keys else -1


def renew_old_tickets(server: Server) -> list[Member]:
    """Give identities whose newest ticket key is old another one; return them, for their children are still to be told.

    One that cannot have it now goes on with what it has, and is in nobody's way.
    """
    now_s = server.sys.now_s()
    renewed = []
    for member in server.members.values():
        if member.ticket_fd < 0 or now_s - member.ticket_s < ROTATE_S:
            continue
        try:
            _renew_tickets(server, member)
        except OSError as error:
            member.ticket_s = now_s - ROTATE_S + AGAIN_S
            server.events.say("error", "", f"no new ticket keys for {member.identity.name}: {error}; it goes on with its old ones",
                              identity=member.identity.number)
        else:
            renewed.append(member)
    return renewed


def _renew_tickets(server: Server, member: Member) -> None:
    fd = os.memfd_create("perchild-tickets", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        server.hooks.rotate_tickets(member.ticket_fd, fd)
    except OSError:
        os.close(fd)
        raise
    forget_tickets(member)
    member.ticket_fd, member.ticket_s = fd, server.sys.now_s()


def forget_tickets(member: Member) -> None:
    """Close an identity's ticket keys."""
    if member.ticket_fd >= 0:
        os.close(member.ticket_fd)
        member.ticket_fd = -1
