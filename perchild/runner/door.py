r"""The socket of one start of a service, and the path that leads to it.

    own path      NAME.TOKEN.sock   where it is bound, and what /proc/net/unix calls its connections; another for each start
    public path   NAME.sock         what children connect to: a second name of the same socket, put there by rename(2)
So a successor takes the path over in one step, and who has lost it, or given it away, sees by its own path who is still connected.
The directory is the tenant's, who may put anything there: names are only unlinked where they lead to this socket.
Runs as: runner.  Distrusts: the directory.  Source: unix(7), proc(5).  Before: keeper.py
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import select
import socket
from itertools import islice

BACKLOG = 511
PENDING, CONNECTED = b"02", b"03"  # column St of /proc/net/unix: not accepted yet, accepted
PATH_COLUMN = 7
MAX_STALE = 64  # sockets that killed predecessors left, of one service


def count_connected(path: str) -> int:
    """Return how many connections there are to the Unix socket that was bound at `path`, accepted or not."""
    end = b" " + os.fsencode(path) + b"\n"
    with open("/proc/net/unix", "rb") as file:
        found = [line.split(None, PATH_COLUMN) for line in file if line.endswith(end)]
    return sum(line[5] in {PENDING, CONNECTED} and line[-1] == end[1:] for line in found)


def remove_stale(path: str) -> None:
    """Remove what dead predecessors of the service at `path` have left: sockets that nobody listens on."""
    for one in islice(glob.iglob(f"{glob.escape(path.removesuffix('.sock'))}.*.sock"), MAX_STALE):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.connect(one)
            except ConnectionRefusedError:
                os.unlink(one)


class Door:
    """One socket."""

    def __init__(self, public: str) -> None:
        self.public, self.own = public, f"{public.removesuffix('.sock')}.{secrets.token_hex(3)}.sock"
        self.listener: socket.socket | None = None  # None: the program binds it itself
        self._inode = 0

    def bind(self) -> None:
        """Listen, at the own path; OSError if that cannot be."""
        self.clear()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            old_mask = os.umask(0o177)
            try:
                listener.bind(self.own)
            finally:
                os.umask(old_mask)
            listener.listen(BACKLOG)
            self._inode = os.lstat(self.own).st_ino
        except OSError:
            listener.close()
            raise
        self.listener = listener

    def adopt(self) -> None:
        """Take what the program has bound; OSError if it has not."""
        self._inode = os.lstat(self.own).st_ino

    def _is_at(self, path: str) -> bool:
        try:
            return bool(self._inode) and os.lstat(path).st_ino == self._inode
        except OSError:
            return False

    @property
    def is_bound(self) -> bool:
        """Whether we listen, and the own path leads here."""
        return self.listener is not None and self._is_at(self.own)

    @property
    def is_published(self) -> bool:
        """Whether the public path leads here."""
        return self._is_at(self.public)

    def publish(self) -> None:
        """Let the public path lead here, whatever it led to; OSError if that cannot be, as when the own path is gone."""
        if self.is_published:
            return
        if not self._is_at(self.own):
            raise FileNotFoundError(f"{self.own} was taken away")
        aside = f"{self.own}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        os.link(self.own, aside)
        os.rename(aside, self.public)

    def unpublish(self) -> None:
        """Let the public path lead nowhere, if it leads here."""
        if self.is_published:
            with contextlib.suppress(OSError):
                os.unlink(self.public)

    def has_pending(self) -> bool:
        """Whether a connection waits in our listener."""
        return self.listener is not None and bool(select.select([self.listener], [], [], 0)[0])

    def has_users(self) -> bool:
        """Whether somebody is connected, or waits; if that cannot be known, yes."""
        try:
            return self.has_pending() or count_connected(self.own) > 0
        except (OSError, ValueError):
            return True

    def clear(self) -> None:
        """Remove the own path, and close the listener."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        with contextlib.suppress(OSError):
            os.unlink(self.own)

    def remove(self) -> None:
        """Both paths and the listener."""
        self.unpublish()
        self.clear()
        self._inode = 0
