"""An identity's inbox: a SOCK_SEQPACKET pair of which the dispatcher keeps both ends and reads neither.

Children of the identity hold the read end, whoever may send to it a write end. Because the dispatcher keeps the read
end, a connection that is queued when a child is killed is served by the child's successor.
Runs as: dispatcher.  Source: security.md 2.4, 2.6.
"""

from __future__ import annotations

import os
import select
import socket
from dataclasses import dataclass

from perchild import limits


@dataclass(frozen=True, slots=True)
class Inbox:
    """Both ends; owned by the identity's Member until close_inbox."""

    read_fd: int
    write_fd: int


def make_inbox(depth_bytes: int = limits.value("INBOX_SNDBUF_BYTES")) -> Inbox:
    """Return a new inbox, both ends non-blocking (the kernel doubles the depth that is set).

    The pair is made one-way: what a child of the identity would send back is refused.
    """
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, depth_bytes // 2)
    writer.shutdown(socket.SHUT_RD)
    return Inbox(reader.detach(), writer.detach())


def is_waiting(inbox: Inbox) -> bool:
    """Return whether a connection lies in the inbox; reads nothing."""
    return bool(_poll(inbox, select.POLLIN) & select.POLLIN)


def is_broken(inbox: Inbox) -> bool:
    """Return whether somebody who holds an end has shut it down."""
    return bool(_poll(inbox, select.POLLRDHUP) & (select.POLLRDHUP | select.POLLHUP | select.POLLERR))


def _poll(inbox: Inbox, mask: int) -> int:
    poller = select.poll()
    poller.register(inbox.read_fd, mask)
    ready = poller.poll(0)
    return ready[0][1] if ready else 0


def close_inbox(inbox: Inbox) -> None:
    """Close both ends; what lies in it is lost."""
    os.close(inbox.read_fd)
    os.close(inbox.write_fd)
