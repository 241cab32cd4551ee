"""TLS for tests: a client's socket that says its server name by itself.

Runs as: the developer.  Before: lab.py
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from typing import Any, Self

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
    """A client's connection as tests of plain HTTP use it. The handshake comes before the first bytes, with the name that they ask for."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, default_name: str) -> None:
        """sock: connected; default_name: said where the first bytes name no host."""
        self._sock: socket.socket = sock
        self._context, self._default_name = context, default_name
        self._is_open = False

    def open(self, name: str | None) -> ssl.SSLSocket:
        """Make the handshake now, for this server name (None: for none), and return the socket."""
        self._sock = self._context.wrap_socket(self._sock, server_hostname=name)
        self._is_open = True
        return self._sock

    def open_for(self, data: bytes) -> None:
        """Make the handshake with the name that `data`, which begins a request, asks for; once."""
        if not self._is_open:
            found = _HOST.match(bytes(data))
            name = (found.group(1) or found.group(2)).decode("latin-1").strip().lower().rstrip(".") if found else ""
            is_name = re.fullmatch(r"(?=.*[a-z])(?=.{1,250}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", name) is not None
            self.open(name if is_name else self._default_name)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send; the first call makes the handshake."""
        self.open_for(data)
        self._sock.sendall(data, flags)

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send; the first call makes the handshake."""
        self.open_for(data)
        return self._sock.send(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive; an end without a goodbye is an end, too."""
        with contextlib.suppress(ssl.SSLEOFError):
            return self._sock.recv(size, flags)
        return b""

    def shutdown(self, how: int) -> None:
        """Half-close: with a goodbye, and the socket's own."""
        if self._is_open and isinstance(self._sock, ssl.SSLSocket):
            raw = socket.socket(fileno=socket.dup(self._sock.fileno()))
            with raw:
                raw.shutdown(how)
            return
        self._sock.shutdown(how)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        """Return what the socket has: close, fileno, settimeout..."""
        return getattr(self._sock, name)
