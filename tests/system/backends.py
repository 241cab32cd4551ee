"""Back ends in the test's own process: each connection has a thread, each path a script that answers one request.

Runs as: the tests.  Nothing here is lenient: a request that is not exactly framed ends the connection and is remembered.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

TIMEOUT_S = 20


@dataclass(frozen=True)
class Request:
    """One request as it came: the line, fields in their order, body."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes
    number: int  # of the connection it came on

    def get(self, name: str) -> str | None:
        """Return the value of the last such field, None if there is none."""
        return {key.lower(): value for key, value in self.fields}.get(name.lower())


class Peer:
    """One connection, from the back end's side."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        """sock: accepted; number: counted from 1."""
        self.sock, self.number, self.buffer = sock, number, b""
        sock.settimeout(TIMEOUT_S)

    def send(self, raw: bytes | str) -> None:
        """Send all of it."""
        self.sock.sendall(raw.encode() if isinstance(raw, str) else raw)

    def read_until(self, end: bytes) -> bytes:
        """Return everything up to `end`, with it; EOFError at the end of the connection."""
        while end not in self.buffer:
            self._fill()
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    def take(self, size: int) -> bytes:
        """Return `size` bytes."""
        while len(self.buffer) < size:
            self._fill()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def _fill(self) -> None:
        part = self.sock.recv(65536)
        if not part:
            raise EOFError
        self.buffer += part

    def read_head(self) -> Request:
        """Return a request whose body has not been read."""
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Request(lines[0], pairs, b"", self.number)

    def read_body(self, request: Request) -> bytes:
        """Return the body, framed as the head says."""
        if request.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.read_until(b"\r\n"), 16):
                parts.append(self.take(size))
                assert self.take(2) == b"\r\n"
            assert self.take(2) == b"\r\n"
            return b"".join(parts)
        return self.take(int(request.get("content-length") or 0))


Script = Callable[[Request, Peer], bool]  # False ends the connection


def echo(request: Request, peer: Peer) -> bool:
    """Answer with what came, as JSON."""
    return say(peer, json.dumps({"line": request.line, "fields": request.fields, "body": request.body.decode("latin-1"),
                                 "number": request.number}))


def say(peer: Peer, body: str = "ok", *fields: str, status: str = "200 OK") -> bool:
    """Send an answer with a Content-Length; the connection stays."""
    peer.send("\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", body]))
    return True


def answer(raw: bytes | str, *, keep: bool = False) -> Script:
    """Return a script that sends these bytes, whatever came."""

    def script(_request: Request, peer: Peer) -> bool:
        peer.send(raw)
        return keep

    return script


@dataclass
class BackEnd:
    """Listens on a loopback port, or a Unix socket; `scripts` by path, echo for the others."""

    path: Path | None = None
    scripts: dict[str, Script] = field(default_factory=dict)
    raw_scripts: dict[str, Script] = field(default_factory=dict)  # the body is left to the script
    requests: list[Request] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    accepted: int = 0

    def __enter__(self) -> Self:
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        self._listener.bind(str(self.path) if self.path else ("127.0.0.1", 0))
        self._listener.listen(64)
        self.port: int = 0 if self.path else self._listener.getsockname()[1]
        self._peers: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT_S)
        self.cut()
        assert not self.faults, self.faults

    def cut(self) -> None:
        """End all connections."""
        for sock in tuple(self._peers):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._peers.add(sock)
            threading.Thread(target=self._serve, args=(Peer(sock, self.accepted),), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        try:
            with peer.sock, contextlib.suppress(EOFError, OSError):
                while self._serve_one(peer):
                    pass
        except (AssertionError, ValueError, IndexError) as error:
            self.faults.append(repr(error))
        finally:
            self._peers.discard(peer.sock)

    def _serve_one(self, peer: Peer) -> bool:
        request = peer.read_head()
        path = request.line.split(" ")[1].partition("?")[0]
        if path in self.raw_scripts:
            self.requests.append(request)
            return self.raw_scripts[path](request, peer)
        request = Request(request.line, request.fields, peer.read_body(request), request.number)
        self.requests.append(request)
        return self.scripts.get(path, echo)(request, peer)


def fields_of(body: Any) -> dict[str, str]:
    """Return the fields of an echo's JSON by lower-case name."""
    return {name.lower(): value for name, value in body["fields"]}
