"""A FastCGI responder that does as a test says: on a Unix socket of a tenant, or on a TCP port.

It runs in threads of the test. Each connection is given to the test's function as a `Call`, which reads and writes records.
Source: FastCGI specification 1.0.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = range(1, 8)
HEAD = struct.Struct(">BBHHBx")  # version, type, request id, content length, padding length


class Call:
    """One connection of the server, with one request."""

    def __init__(self, sock: socket.socket) -> None:
        """Take the connection over."""
        self.sock = sock
        self.keep = False
        self.params: dict[str, str] = {}

    def read_record(self) -> tuple[int, bytes]:
        """Return the next record's type and content; (0, b"") when the server has closed."""
        head = self._read(HEAD.size)
        if len(head) < HEAD.size:
            return 0, b""
        _, kind, _, length, padding = HEAD.unpack(head)
        return kind, self._read(length + padding)[:length]

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                break
            data += part
        return data

    def read_params(self) -> dict[str, str]:
        """Read BEGIN_REQUEST and all PARAMS."""
        kind, begin = self.read_record()
        assert kind == BEGIN, kind
        self.keep = bool(begin[2] & 1)
        raw = b""
        while content := self._expect(PARAMS):
            raw += content
        self.params = dict(split_params(raw))
        return self.params

    def read_body(self) -> bytes:
        """Read all of STDIN."""
        parts = []
        while content := self._expect(STDIN):
            parts.append(content)
        return b"".join(parts)

    def _expect(self, wanted: int) -> bytes:
        kind, content = self.read_record()
        assert kind == wanted, (kind, wanted)
        return content

    def write(self, kind: int, content: bytes, request: int = 1, version: int = 1) -> None:
        """Write records of this type that hold `content`."""
        for start in range(0, max(len(content), 1), 65528):
            part = content[start : start + 65528]
            padding = -len(part) % 8
            self.sock.sendall(HEAD.pack(version, kind, request, len(part), padding) + part + bytes(padding))

    def out(self, text: bytes | str) -> None:
        """Write STDOUT."""
        self.write(STDOUT, text.encode() if isinstance(text, str) else text)

    def err(self, text: str) -> None:
        """Write STDERR."""
        self.write(STDERR, text.encode())

    def end(self, protocol: int = 0) -> None:
        """Write END_REQUEST."""
        self.write(END, struct.pack(">IB3x", 0, protocol))

    def wait_closed(self) -> bool:
        """Wait for the server to close the connection; False: it wrote something instead."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def split_params(raw: bytes) -> list[tuple[str, str]]:
    """Return names and values of a PARAMS stream, in its order."""
    pairs, at = [], 0

    def length() -> int:
        nonlocal at
        size = 4 if raw[at] & 0x80 else 1
        value = int.from_bytes(raw[at : at + size], "big") & (0x7FFFFFFF if size == 4 else 0x7F)
        at += size
        return value

    while at < len(raw):
        name_len, value_len = length(), length()
        name, value = raw[at : at + name_len], raw[at + name_len : at + name_len + value_len]
        at += name_len + value_len
        pairs.append((name.decode(), value.decode(errors="surrogateescape")))
    return pairs


class Responder:
    """Listens, and has each connection answered by `serve` in a thread of its own. Failures of `serve` are raised by close()."""

    def __init__(self, place: Path | None, serve: Callable[[Call], None], uid: int = 0) -> None:
        """Listen on the Unix socket `place`, 0600 of `uid`; None: on a free TCP port."""
        self.serve = serve
        self.calls = 0
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        if place is None:
            self._sock = socket.create_server(("127.0.0.1", 0))
        else:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sock.bind(str(place))
            place.chmod(0o600)
            os.chown(place, uid, uid)
            self._sock.listen(64)
        self._accepter = threading.Thread(target=self._accept)
        self._accepter.start()

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._sock.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.calls += 1
            thread = threading.Thread(target=self._run, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        with sock:
            try:
                self.serve(Call(sock))
            except (BrokenPipeError, ConnectionResetError):
                return  # the server has closed, which some tests mean it to
            except BaseException as error:  # noqa: BLE001  raised by close()
                self._failures.append(error)

    def close(self) -> None:
        """Take no more connections, and wait for those there are."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._accepter.join()
        self._sock.close()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()
