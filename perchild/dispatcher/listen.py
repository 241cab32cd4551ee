"""Listening sockets: bound once, kept over reloads, looked after.

Runs as: dispatcher (binds ports below 1024).  Distrusts: children, which hold the same sockets and could shut them down.
Source: security.md 2.1 (R-ACC-2), httpd listen.c make_sock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from perchild.dispatcher.errors import BindError
from perchild.dispatcher.service import Service
from perchild.wire.plan import Listener

IPV6 = 6
TCP_LISTEN = 10  # state in the first byte of TCP_INFO
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
Key = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Bound:
    """One listening socket; the dispatcher owns it."""

    listener: Listener
    sock: socket.socket


def key_of(listener: Listener) -> Key:
    """Return what makes two Listen directives the same socket."""
    return (listener.family, listener.address, listener.port)


def format_address(listener: Listener) -> str:
    """Return address:port as httpd writes it."""
    address = f"[{listener.address}]" if listener.family == IPV6 else listener.address
    return f"{address}:{listener.port}"


def bind_listener(listener: Listener, service: Service | None = None) -> Bound:
    """Bind and listen; a socket of this address that the service manager passed is taken instead of a new one.

    Raises:
        BindError: AH00072 with the address, the reason and what to do.
    """
    sock = None
    try:
        sock = service.take_listener(key_of(listener)) if service else None
        is_given = sock is not None
        sock = sock or socket.socket(_FAMILIES[listener.family], socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        _set_options(sock, listener, is_bound=is_given)
        if not is_given:
            sock.bind((listener.address, listener.port))
        _listen(sock, listener)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise BindError("AH00072", _explain(listener, error)) from error
    return Bound(listener, sock)


def _listen(sock: socket.socket, listener: Listener) -> None:
    sock.listen(listener.backlog or socket.SOMAXCONN)
    # listen() forgets it, accepted sockets inherit it: the answer acknowledges the request, which saves a packet. A child that
    # waits for more of a request takes it back (native/transport.c).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def _set_options(sock: socket.socket, listener: Listener, *, is_bound: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit both: no call of their own per connection, and none is accepted before its first bytes are
    # there to be looked at (httpd's AcceptFilter http data; a silent client is accepted after a second all the same).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    if listener.family == IPV6 and not is_bound:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if listener.send_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, listener.send_buffer_bytes)
    if listener.receive_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, listener.receive_buffer_bytes)


_REMEDIES = {
    errno.EADDRINUSE: "another program listens there",
    errno.EACCES: "ports below 1024 need a start as root",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def _explain(listener: Listener, error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0, "")
    return (f"make_sock: could not bind to address {format_address(listener)} ({listener.source}): "
            f"{f'({error.errno}){os.strerror(error.errno)}' if error.errno else error}{': ' + remedy if remedy else ''}")


class Listeners:
    """The listening sockets in force, in the plan's order."""

    def __init__(self, service: Service | None = None) -> None:
        """Listen to nothing yet. service: who keeps the sockets over restarts."""
        self._bound: dict[Key, Bound] = {}
        self._service = service or Service()

    def prepare(self, wanted: Sequence[Listener]) -> dict[Key, Bound]:
        """Bind what is not bound yet; nothing is changed.

        Returns:
            All wanted sockets, for adopt().
        Raises:
            BindError: then whatever was bound here is closed again.
        """
        ready: dict[Key, Bound] = {}
        fresh: list[Bound] = []
        try:
            for listener in wanted:
                known = self._bound.get(key_of(listener))
                if known is None:
                    fresh.append(bind_listener(listener, self._service))
                ready[key_of(listener)] = Bound(listener, known.sock if known else fresh[-1].sock)
        except BindError:
            for bound in fresh:
                bound.sock.close()
            raise
        return ready

    def discard(self, ready: dict[Key, Bound]) -> None:
        """Close what prepare() bound, when the plan is not taken after all."""
        for key, bound in ready.items():
            if key not in self._bound:
                bound.sock.close()

    def adopt(self, ready: dict[Key, Bound]) -> None:
        """Take what prepare() returned; sockets that are no longer wanted are closed."""
        for key, bound in self._bound.items():
            if key not in ready:
                self._service.forget_listener(key)
                bound.sock.close()
        for key, bound in ready.items():
            self._service.keep_listener(key, bound.sock)
            if key in self._bound and self._bound[key].listener.backlog != bound.listener.backlog:
                _listen(bound.sock, bound.listener)
        self._bound = dict(ready)

    def descriptors(self) -> tuple[int, ...]:
        """Return the sockets' numbers, in the plan's order."""
        return tuple(bound.sock.fileno() for bound in self._bound.values())

    def revive(self) -> tuple[str, ...]:
        """Look at every socket: one that no longer listens listens again; O_NONBLOCK is set again.

        Returns:
            Addresses of those that had to be revived.
        """
        return tuple(format_address(bound.listener) for bound in self._bound.values() if _revive_one(bound))

    def close(self) -> None:
        """Close all of them; those that the service manager keeps go on, and connections wait in them for the next start."""
        for bound in self._bound.values():
            bound.sock.close()
        self._bound = {}


def _revive_one(bound: Bound) -> bool:
    flags = fcntl.fcntl(bound.sock, fcntl.F_GETFL)
    is_blocking = not flags & os.O_NONBLOCK
    if is_blocking:
        fcntl.fcntl(bound.sock, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    is_deaf = bound.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_LISTEN
    if is_deaf:
        _listen(bound.sock, bound.listener)
    return is_blocking or is_deaf
