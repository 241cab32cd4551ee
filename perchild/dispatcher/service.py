"""The service manager (systemd): what it is told, and the descriptors it keeps for the next start.

    told   READY, RELOADING, STOPPING, STATUS, MAINPID, WATCHDOG, EXTEND_TIMEOUT_USEC    sd_notify(3)
    given  sockets of a socket unit, and what an earlier start had kept                  sd_listen_fds(3)
    kept   listeners and inboxes, by FDSTORE=1 and a name of each                        file descriptor store
So a restart, an upgrade or a crash refuses no connection: while nobody is there to accept they wait in listeners that the manager holds
open. Without a service manager all of this does nothing.
Runs as: dispatcher.  Trusts: whoever started it.  Distrusts: names of descriptors; what each is, the kernel is asked.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import time
from array import array
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Self

from perchild import limits
from perchild.dispatcher.inbox import Inbox, is_broken

FIRST_FD = 3  # SD_LISTEN_FDS_START
SEND_LIMIT_S = 1.0  # the manager's socket may be full for a moment
LISTENER_ROOM = limits.value("MAX_LISTENERS")  # of the store, that inboxes leave free
READ_NAME, WRITE_NAME = "inbox-in-", "inbox-out-"
Address = tuple[int, str, int]  # family (4 or 6), address, port
_FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6}


@dataclass(slots=True)
class Given:
    """One descriptor that was passed at the start; whoever takes it out of Service.given owns it."""

    name: str
    fd: int


@dataclass(slots=True)
class Service:
    """The manager as the dispatcher sees it; without `notifier` there is none."""

    notifier: Any = None  # sdnotify.SystemdNotifier, whose socket also carries descriptors
    watchdog_s: float | None = None  # it wants to hear from us this often
    room: int = 0  # descriptors that it keeps at most
    given: list[Given] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)  # names
    status: str = ""
    next_feed_s: float = 0.0

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self:
        """Take what the manager left in the environment (and nobody below us shall see), and the descriptors it passed."""
        given = take_given(environ)
        watchdog = environ.pop("WATCHDOG_USEC", "")
        is_ours = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        stored = environ.pop("FDSTORE", "")
        if not environ.get("NOTIFY_SOCKET"):
            return cls(given=given)
        import sdnotify  # noqa: PLC0415 - only where it is used

        notifier = sdnotify.SystemdNotifier()
        del environ["NOTIFY_SOCKET"]
        if notifier.socket is not None:
            notifier.socket.settimeout(SEND_LIMIT_S)
        room = min(limits.value("MAX_STORED_FDS"), int(stored)) if stored.isdecimal() else limits.value("MAX_STORED_FDS")
        return cls(notifier, int(watchdog) / 1e6 if watchdog.isdecimal() and is_ours else None, room, given)

    # ------------------------------------------------------------ what it is told

    def tell(self, *lines: str) -> None:
        """Send one message; what the manager does not take is not said again."""
        if self.notifier is not None:
            self.notifier.notify("\n".join(lines))

    def say_ready(self) -> None:
        """Everything that was asked for is done: the start, or a reload."""
        self.tell("READY=1", f"MAINPID={os.getpid()}")

    def say_reloading(self) -> None:
        """A reload begins; ready ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def say_stopping(self) -> None:
        """The end begins."""
        self.tell("STOPPING=1", "STATUS=stopping: what was accepted is being finished")

    def say_status(self, text: str) -> None:
        """One line for people, sent when it is another than before."""
        if text != self.status:
            self.status = text
            self.tell(f"STATUS={text}")

    def extend(self, more_s: float) -> None:
        """Ask for this much time from now for the start, reload or stop in progress."""
        self.tell(f"EXTEND_TIMEOUT_USEC={int(more_s * 1e6)}")

    def feed_watchdog(self, now_s: float) -> None:
        """Say that we live, twice in the time that the manager allows."""
        if self.watchdog_s is not None and now_s >= self.next_feed_s:
            self.next_feed_s = now_s + self.watchdog_s / 2
            self.tell("WATCHDOG=1")

    # ------------------------------------------------------------ what it keeps

    def keep(self, name: str, fd: int) -> bool:
        """Have a descriptor kept, under a name of its own; return whether it is. Kept ones are passed at the next start."""
        if name in self.kept:
            return True
        if self.notifier is None or self.notifier.socket is None or len(self.kept) >= self.room:
            return False
        message = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode()  # without FDPOLL=0 a socket that a child shut down would be let go of
        try:
            self.notifier.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])
        except OSError:
            return False
        self.kept.add(name)
        return True

    def forget(self, name: str) -> None:
        """Have a descriptor kept no longer."""
        if name in self.kept:
            self.kept.discard(name)
            self.tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def keep_listener(self, address: Address, sock: socket.socket) -> None:
        """Keep a listening socket."""
        self.keep(name_listener(address), sock.fileno())

    def forget_listener(self, address: Address) -> None:
        """Keep it no longer."""
        self.forget(name_listener(address))

    def keep_inbox(self, key: str, box: Inbox) -> None:
        """Keep both ends of the inbox of the identity with this key, if there is room beside all listeners."""
        if len(self.kept) + LISTENER_ROOM <= self.room:
            self.keep(READ_NAME + _short(key), box.read_fd)
            self.keep(WRITE_NAME + _short(key), box.write_fd)

    def forget_inbox(self, key: str) -> None:
        """Keep it no longer."""
        self.forget(READ_NAME + _short(key))
        self.forget(WRITE_NAME + _short(key))

    # ------------------------------------------------------------ what it gave

    def take_listener(self, address: Address) -> socket.socket | None:
        """Return the stream socket bound to this address that was passed, if one was; the caller owns it.

        Raises:
            OSError: it is an IPv6 socket that takes IPv4 connections, too, so that its addresses cannot be told apart.
        """
        for one in self.given:
            if _address_of(one.fd) == address:
                sock = socket.socket(fileno=one.fd)
                self.given.remove(one)
                self.kept |= {one.name} & {name_listener(address)}
                if sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                    sock.close()
                    raise OSError("the socket that was passed takes IPv4, too: set BindIPv6Only=ipv6-only in the socket unit")
                return sock
        return None

    def take_inbox(self, key: str) -> Inbox | None:
        """Return the inbox that an earlier start had for the identity with this key; the caller owns it."""
        ends = [next((one for one in self.given if one.name == name + _short(key)), None) for name in (READ_NAME, WRITE_NAME)]
        if ends[0] is None or ends[1] is None or not all(_is_unix(one.fd) for one in ends if one):
            return None
        box = Inbox(ends[0].fd, ends[1].fd)
        if is_broken(box):  # its names are given anew: what has them now must be gone from the store before
            for one in (end for end in ends if end is not None):
                self.tell("FDSTOREREMOVE=1", f"FDNAME={one.name}")
                os.close(one.fd)
            self.given = [one for one in self.given if one not in ends]
            return None
        self.given = [one for one in self.given if one not in ends]
        self.kept |= {READ_NAME + _short(key), WRITE_NAME + _short(key)}
        return box

    def discard_given(self) -> tuple[str, ...]:
        """Close what was passed and nobody took, and have it kept no longer; return the names of those that were none of ours."""
        strange = []
        for one in self.given:
            self.tell("FDSTOREREMOVE=1", f"FDNAME={one.name}")
            if not one.name.startswith((READ_NAME, WRITE_NAME, "listen-")):
                strange.append(one.name)
            os.close(one.fd)
        self.given.clear()
        return tuple(strange)


def name_listener(address: Address) -> str:
    """Return a listener's name in the store: "listen-80-7f000001". A colon would divide names."""
    family, host, port = address
    return f"listen-{port}-{socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, host).hex()}"  # noqa: PLR2004 - IPv4


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def take_given(environ: MutableMapping[str, str]) -> list[Given]:
    """Take the descriptors that LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES name out of the environment; none is inherited further."""
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    environ.pop("LISTEN_PIDFDID", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    known = names.split(":") if names else []
    given = []
    for index in range(min(int(count), limits.value("MAX_STORED_FDS") + LISTENER_ROOM)):
        os.set_inheritable(FIRST_FD + index, False)
        given.append(Given(known[index] if index < len(known) else "", FIRST_FD + index))
    return given


def _address_of(fd: int) -> Address | None:
    """Return what a stream socket of the internet is bound to; None for any other descriptor."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return None
    sock = socket.socket(fileno=fd)
    try:
        if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
            return None
        host, port = sock.getsockname()[:2]
        return (_FAMILIES[sock.family], host, port)
    finally:
        sock.detach()


def _is_unix(fd: int) -> bool:
    """Return whether a descriptor is what inboxes are made of."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    sock = socket.socket(fileno=fd)
    try:
        return sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET
    finally:
        sock.detach()
