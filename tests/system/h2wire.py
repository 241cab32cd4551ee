"""An HTTP/2 client made of frames, for tests that need to choose them: hpack packs and unpacks fields, nothing else is hidden.

Runs as: the tests.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Self

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4


@dataclass
class Answer:
    """What came on one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    ended: bool = False
    interim: list[dict[str, str]] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The status, 0 = no head came."""
        return int(self.fields.get(":status", "0"))


class H2Client:
    """One connection; windows are opened as bytes come."""

    def __init__(self, sock: socket.socket) -> None:
        """Say hello on a connected socket."""
        self.sock, self.encoder, self.decoder = sock, Encoder(), Decoder()
        self.next_id, self.buffer, self.goaway, self.settings = 1, b"", None, {}
        self.answers: dict[int, Answer] = {}
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

    goaway: int | None
    settings: dict[int, int]

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.sock.close()

    def ask(self, host: str, path: str = "/", *, method: str = "GET", more: tuple[tuple[str, str], ...] = (), has_body: bool = False,
            protocol: str = "") -> int:
        """Send a request's head; return its stream."""
        number, self.next_id = self.next_id, self.next_id + 2
        self.answers[number] = Answer()
        fields = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
        fields += [(":protocol", protocol)] if protocol else []
        block = self.encoder.encode([*fields, *more])
        self.sock.sendall(frame(HEADERS, END_HEADERS | (0 if has_body else END_STREAM), number, block))
        return number

    def send(self, number: int, data: bytes, *, last: bool = False) -> None:
        """Send a piece of a body."""
        self.sock.sendall(frame(DATA, END_STREAM if last else 0, number, data))

    def send_trailers(self, number: int, *fields: tuple[str, str]) -> None:
        """End a body with these fields."""
        self.sock.sendall(frame(HEADERS, END_HEADERS | END_STREAM, number, self.encoder.encode(fields)))

    def reset(self, number: int, code: int = 8) -> None:
        """Reset a stream."""
        self.sock.sendall(frame(RST_STREAM, 0, number, struct.pack("!I", code)))

    def finish(self, number: int) -> Answer:
        """Read until that stream is over."""
        answer = self.answers[number]
        while not answer.ended and answer.reset is None:
            assert self.read(), "the connection ended"
        return answer

    def read(self) -> bool:
        """Take what comes next; False: the end."""
        part = self.sock.recv(65536)
        self.buffer += part
        while len(self.buffer) >= 9:
            size = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + size:
                break
            head, payload, self.buffer = self.buffer[:9], self.buffer[9:9 + size], self.buffer[9 + size:]
            self._take(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
        return bool(part)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        answer = self.answers.get(number, Answer())
        if kind == SETTINGS and not flags & ACK:
            self.settings.update(struct.iter_unpack("!HI", payload))
            self.sock.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == HEADERS:
            self._take_head(answer, payload)
        elif kind == DATA:
            answer.body += payload
            if payload:
                self.sock.sendall(b"".join(frame(WINDOW_UPDATE, 0, one, struct.pack("!I", len(payload))) for one in (0, number)))
        elif kind == RST_STREAM:
            answer.reset = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            answer.ended = True

    def _take_head(self, answer: Answer, block: bytes) -> None:
        fields = {str(name): str(value) for name, value in self.decoder.decode(block)}
        if answer.fields:
            answer.trailers = fields
        elif fields[":status"].startswith("1"):
            answer.interim.append(fields)
        else:
            answer.fields = fields


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload
