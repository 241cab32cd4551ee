"""TLS for tests: a client's socket that says its server name by itself.

Runs as: the developer.  Before: lab.py
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar

R = TypeVar("R")
_HOST = re.compile(rb"^(?:[A-Z]+ [a-z]+://([^/: ]+)|.*?\r\nHost:[ \t]*([^\r\n:]+))", re.DOTALL | re.IGNORECASE)


def client_context(version: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return what a client's connections are made with: it believes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class TlsSocket:
    """A client's connection as tests of plain HTTP use it. The handshake comes before the first bytes, with the name that they ask for.

    One thread may send while another receives: OpenSSL's calls come one after the other, and what they wait for is waited for between them.
    """

    handshakes: ClassVar[int] = 0  # made by all of them

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, default_name: str) -> None:
        """sock: connected; default_name: said where the first bytes name no host."""
        self._sock: socket.socket = sock
        self._fd = sock.fileno()  # stays what it is, while ssl moves it from the one socket object to the other
        self._context, self._default_name = context, default_name
        self._is_open = False
        self._timeout_s = sock.gettimeout()
        self._lock, self._opening = threading.Lock(), threading.Lock()

    def open(self, name: str | None) -> ssl.SSLSocket:
        """Make the handshake now, for this server name (None: for none), and return the socket."""
        with self._opening:
            sock = self._wrap(name)
            self._call(sock.do_handshake)
            self._is_open = True
        TlsSocket.handshakes += 1
        return sock

    def _wrap(self, name: str | None) -> ssl.SSLSocket:
        if not isinstance(self._sock, ssl.SSLSocket):
            self._sock.setblocking(False)
            self._sock = self._context.wrap_socket(self._sock, server_hostname=name, do_handshake_on_connect=False)
        return self._sock

    def open_for(self, data: bytes) -> None:
        """Make the handshake with the name that `data`, which begins a request, asks for; once."""
        if not self._is_open:
            found = _HOST.match(bytes(data))
            name = (found.group(1) or found.group(2)).decode("latin-1").strip().lower().rstrip(".") if found else ""
            is_name = re.fullmatch(r"(?=.*[a-z])(?=.{1,250}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", name) is not None
            self.open(name if is_name else self._default_name)

    def step(self, name: str) -> int:
        """On a socket that does not block: go on with the handshake for this server name; return what epoll is to wait for, 0: it is made."""
        try:
            self._wrap(name).do_handshake()
        except ssl.SSLWantReadError:
            return select.EPOLLIN
        except ssl.SSLWantWriteError:
            return select.EPOLLOUT
        self._is_open = True
        TlsSocket.handshakes += 1
        return 0

    def _call(self, operation: Callable[[], R]) -> R:
        """Do it as soon as it can be done."""
        deadline_s = self._deadline_s()
        while True:
            with self._lock:
                try:
                    return operation()
                except ssl.SSLWantReadError:
                    event = select.POLLIN
                except ssl.SSLWantWriteError:
                    event = select.POLLOUT
            self._wait(event, deadline_s)

    def _deadline_s(self) -> float | None:
        return None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def _wait(self, event: int, deadline_s: float | None) -> None:
        if self._timeout_s == 0:
            raise BlockingIOError
        poller = select.poll()
        poller.register(self._fd, event)
        if not poller.poll(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()) * 1000):
            raise TimeoutError("timed out")

    def settimeout(self, timeout_s: float | None) -> None:
        """As a socket's."""
        self._timeout_s = timeout_s
        if not isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(timeout_s)

    def gettimeout(self) -> float | None:
        """As a socket's."""
        return self._timeout_s

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send; the first call makes the handshake."""
        assert not flags
        self.open_for(data)
        left = memoryview(data)
        while left:
            piece = left[:16384]
            left = left[self._call(lambda: self._sock.send(piece)):]  # noqa: B023 - called at once

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send all of it."""
        self.sendall(data, flags)
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive; an end without a goodbye is an end, too."""
        assert not flags
        if not self._is_open:  # by a thread that sends; or the server ends a connection on which nobody has said anything
            self._wait(select.POLLIN, self._deadline_s())
            with self._opening:
                pass
        try:
            return self._call(lambda: self._sock.recv(size))
        except ssl.SSLEOFError:
            return b""

    def shutdown(self, how: int) -> None:
        """Half-close the socket. A goodbye of TLS's own before it is more than Python's ssl can say: it drops what comes after its own."""
        with socket.socket(fileno=socket.dup(self._sock.fileno())) as raw:
            raw.shutdown(how)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        """Return what the socket has: close, fileno..."""
        return getattr(self._sock, name)
