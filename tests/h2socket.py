"""HTTP/2 for tests: a client's socket that is given requests of HTTP/1.1 and asks them on streams of one connection.

What a test writes is read as HTTP/1.1, each request becomes a stream, and what comes on it is told as HTTP/1.1 again, in the order of
the requests. The `h2` library says whether the server keeps to the protocol: what it does not like fails the test.
Told as HTTP/1.1 means: a body without Content-Length is chunked, a stream that is reset is a connection that ends too early, and after the
answer to `Connection: close` there is an end. What only HTTP/1.1 can say is refused with NoMeaningError: such tests are marked `http1`.
Runs as: the developer.  Before: lab.py
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Self

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.tls import TlsSocket

Fields = list[tuple[bytes, bytes]]
GOAWAY = 7
REFUSED_STREAM = 7  # the error; RFC 9113 7
OF_CONNECTION = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host"}
SPELLED = {b"etag": b"ETag", b"www-authenticate": b"WWW-Authenticate"}  # others have a capital for each word
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 4.2.2
REQUEST_LINE = re.compile(rb"([!-~]+) ([!-\xff]+) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")


class NoMeaningError(Exception):
    """What was written says something that HTTP/2 has no words for: the test is HTTP/1.1's own (mark `http1`)."""


@dataclass
class Head:
    """A request's head."""

    method: bytes
    target: bytes
    fields: Fields

    def get(self, name: bytes) -> bytes:
        """Return the first field of that name, b"" if there is none."""
        return next((value for one, value in self.fields if one == name), b"")

    @property
    def length(self) -> int | None:
        """Bytes of the body, None: it is chunked."""
        if self.get(b"transfer-encoding"):
            return None
        return int(self.get(b"content-length") or 0)

    @property
    def is_websocket(self) -> bool:
        """Whether the connection is to become one."""
        return self.get(b"upgrade").lower() == b"websocket"

    def pack(self, scheme: bytes) -> Fields:
        """Return the fields of HTTP/2."""
        pseudo = [(b":method", b"CONNECT" if self.is_websocket else self.method)]
        path, host, skip = self.target, self.get(b"host"), OF_CONNECTION
        if whole := re.match(rb"(?i:(https?))://([^/?#]*)(.*)", self.target):
            scheme, path = whole.group(1).lower(), whole.group(3) or b"/"
            host, skip = whole.group(2), skip - {b"host"} if host.lower() != whole.group(2).lower() else skip
        if self.method != b"CONNECT":
            pseudo += [(b":scheme", scheme), (b":path", path)]
        else:
            host = path
        if self.is_websocket:
            pseudo.append((b":protocol", b"websocket"))
        if host:
            pseudo.append((b":authority", host))
        skip = skip | ({b"sec-websocket-key"} if self.is_websocket else set())
        return pseudo + [pair for pair in self.fields if pair[0] not in skip]


def parse_head(raw: bytes) -> Head:
    """Parse a request's head, without the empty line."""
    first, *lines = raw.split(b"\r\n")
    line, pairs = REQUEST_LINE.fullmatch(first), [FIELD.fullmatch(one) for one in lines]
    if line is None or None in pairs or re.search(rb"[\r\n\0]", raw.replace(b"\r\n", b"")):
        raise NoMeaningError(f"no well-formed head of HTTP/1.1: {raw[:200]!r}")
    head = Head(line.group(1), line.group(2), [(one.group(1).lower(), one.group(2)) for one in pairs if one])
    names = [name for name, _ in head.fields]
    if names.count(b"host") > 1 or names.count(b"content-length") > 1:
        raise NoMeaningError(f"fields that contradict each other: {raw[:200]!r}")
    framing = head.get(b"transfer-encoding"), head.get(b"content-length")
    if not re.fullmatch(rb"(?i:chunked)?", framing[0]) or all(framing) or \
            (b"content-length" in names and not re.fullmatch(rb"0|[1-9][0-9]{0,15}", framing[1])):
        raise NoMeaningError(f"no framing that HTTP/2 could take the place of: {raw[:200]!r}")
    return head


class Reader:
    """What a client writes, as HTTP/1.1 means it: heads, pieces of bodies, and their ends."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self._buffer, self._parse = b"", self._read_head
        self._left = 0

    _parse: Callable[[], Iterator[Head | bytes | Fields]]

    def feed(self, data: bytes) -> Iterator[Head | bytes | Fields]:
        """Yield what there is now: a Head, bytes of its body, and its trailers (mostly none), which end it."""
        self._buffer += data
        while self._buffer:
            before = len(self._buffer), self._parse
            yield from self._parse()
            if before == (len(self._buffer), self._parse):
                return

    def _read_head(self) -> Iterator[Head | bytes | Fields]:
        raw, end, rest = self._buffer.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if not end:
            return
        head, self._buffer = parse_head(raw), rest
        if head.is_websocket:
            self._parse = self._read_tunnel
        elif head.length is None:
            self._parse = self._read_chunk
        elif head.length:
            self._left, self._parse = head.length, self._read_length
        yield head

    def _read_tunnel(self) -> Iterator[Head | bytes | Fields]:
        data, self._buffer = self._buffer, b""
        yield data

    def _read_length(self) -> Iterator[Head | bytes | Fields]:
        data, self._buffer = self._buffer[:self._left], self._buffer[self._left:]
        self._left -= len(data)
        yield data
        if not self._left:
            self._parse = self._read_head
            yield []

    def _read_chunk(self) -> Iterator[Head | bytes | Fields]:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}(;.*)?", line):
            raise NoMeaningError(f"no chunk: {line[:100]!r}")
        size = int(line.partition(b";")[0], 16)
        if size and len(rest) >= size + 2:
            self._buffer = rest[size + 2:]
            yield rest[:size]
        elif not size and (lines := self._read_trailers(rest)) is not None:
            self._parse = self._read_head
            yield lines

    def _read_trailers(self, rest: bytes) -> Fields | None:
        if rest.startswith(b"\r\n"):
            self._buffer = rest[2:]
            return []
        raw, end, behind = rest.partition(b"\r\n\r\n")
        if not end:
            return None
        self._buffer = behind
        return [(one.group(1).lower(), one.group(2)) for one in map(FIELD.fullmatch, raw.split(b"\r\n")) if one]


@dataclass
class Exchange:
    """One request and what comes on its stream."""

    number: int
    head: Head
    pieces: deque[tuple[bytes, int]] = field(default_factory=deque)  # text of HTTP/1.1, and what it gives back to the stream's window
    is_chunked: bool = False
    is_tunnel: bool = False
    is_answered: bool = False  # to its end
    is_cut: bool = False  # reset: nothing more goes either way
    is_refused: bool = False  # and was not looked at
    is_farewell: bool = False  # the server has said that it wants no other

    @property
    def is_last(self) -> bool:
        """Whether nothing comes behind it."""
        return self.is_cut or self.is_farewell or b"close" in self.head.get(b"connection").lower() or self.is_tunnel

    def take_head(self, fields: Fields) -> None:
        """A head has come, of the answer or of what precedes it."""
        status, names = int(dict(fields)[b":status"]), {name for name, _ in fields}
        rest = fields[1:]
        if self.head.is_websocket and status == HTTPStatus.OK:
            status, self.is_tunnel = 101, True
            accept = base64.b64encode(hashlib.sha1(self.head.get(b"sec-websocket-key") + WEBSOCKET).digest())
            rest += [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept)]
        elif status >= HTTPStatus.OK:
            has_body = self.head.method != b"HEAD" and status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
            self.is_chunked = has_body and b"content-length" not in names
            rest += [(b"transfer-encoding", b"chunked")] * self.is_chunked
            rest += [(b"connection", b"close")] * self.is_last
        phrase = HTTPStatus(status).phrase if status in iter(HTTPStatus) else ""
        self.pieces.append((f"HTTP/1.1 {status} {phrase}\r\n".encode() + write_fields(rest) + b"\r\n", 0))

    def take_data(self, data: bytes, size: int) -> None:
        """A piece of the answer's body has come."""
        text = b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked and data else data
        self.pieces.append((text, size))

    def end(self, trailers: Fields | None = None) -> None:
        """The answer is complete."""
        if self.is_chunked:
            self.pieces.append((b"0\r\n" + write_fields(trailers or []) + b"\r\n", 0))
            self.is_chunked = False
        self.is_answered = True


def write_fields(fields: Fields) -> bytes:
    """Return lines of HTTP/1.1."""
    return b"".join(SPELLED.get(name, b"-".join(part.capitalize() for part in name.split(b"-"))) + b": " + value + b"\r\n" for name, value in fields)


class H2Socket:
    """A client's connection as tests of HTTP/1.1 use it."""

    streams: ClassVar[int] = 0  # asked by all of them

    def __init__(self, sock: socket.socket | TlsSocket) -> None:
        """sock: connected; with TLS, the handshake comes before the first request, with its name."""
        self._sock, self._reader = sock, Reader()
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False,
                                                normalize_outbound_headers=False))
        self._raw = b""  # frames that are not whole yet
        self._text = b""  # to be received next
        self._queue: deque[Exchange] = deque()  # not read to the end
        self._asked: dict[int, Exchange] = {}
        self._asking: Exchange | None = None  # whose body is being written
        self._is_over = self._is_leaving = self._has_said_hello = self._is_receiving = False
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)

    # ------------------------------------------------------------------ sending

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send what `data` completes: heads when they are whole, bodies as they come."""
        assert not flags
        with self._lock:
            parts = list(self._reader.feed(bytes(data)))
        for part in parts:
            if isinstance(part, Head):
                self._ask(part)
            elif isinstance(part, bytes):
                self._send_body(part)
            else:
                self._end_body(part)
        self._flush()

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send all of it."""
        self.sendall(data, flags)
        return len(data)

    def _ask(self, head: Head) -> None:
        if self._is_over:
            raise BrokenPipeError("the server has ended the connection")
        is_tls = isinstance(self._sock, TlsSocket)
        if not self._has_said_hello:
            self._has_said_hello = True
            if isinstance(self._sock, TlsSocket):
                self._sock.open_for(b"GET / HTTP/1.1\r\nHost: " + head.get(b"host"))
            self._h2.initiate_connection()
        with self._lock:
            number = self._h2.get_next_available_stream_id()
            exchange = self._asked[number] = Exchange(number, head)
            has_body = head.is_websocket or head.length != 0
            self._h2.send_headers(number, head.pack(b"https" if is_tls else b"http"), end_stream=not has_body)
            self._queue.append(exchange)
            self._asking = exchange if has_body else None
            H2Socket.streams += 1

    def _send_body(self, data: bytes) -> None:
        exchange, left = self._asking, memoryview(data)
        while left and exchange is not None:
            with self._lock:
                if exchange.is_cut or self._is_over:
                    return
                room = min(self._h2.local_flow_control_window(exchange.number), self._h2.max_outbound_frame_size)
                if room > 0:
                    self._h2.send_data(exchange.number, bytes(left[:room]))
                    left = left[room:]
                    continue
            self._flush()
            self._receive(lambda: self._h2_has_room(exchange))

    def _h2_has_room(self, exchange: Exchange) -> bool:
        return exchange.is_cut or self._is_over or self._h2.local_flow_control_window(exchange.number) > 0

    def _end_body(self, trailers: Fields) -> None:
        exchange, self._asking = self._asking, None
        if exchange is None:
            return
        with self._lock:
            if exchange.is_cut or self._is_over:
                return
            if trailers:
                self._h2.send_headers(exchange.number, trailers, end_stream=True)
            else:
                self._h2.end_stream(exchange.number)

    def _flush(self) -> None:
        with self._lock:
            if data := self._h2.data_to_send():
                self._sock.sendall(data)

    # ------------------------------------------------------------------ receiving

    @property
    def is_leaving(self) -> bool:
        """Whether the server wants no further stream on this connection."""
        return self._is_leaving

    @property
    def is_refused(self) -> bool:
        """Whether the request whose answer is to be read next was not worked on, says the server: it may be asked again elsewhere."""
        return bool(self._queue) and self._queue[0].is_refused

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive text of HTTP/1.1; b"": the end."""
        assert not flags & ~(socket.MSG_WAITALL | socket.MSG_DONTWAIT)
        data = b""
        while not data or (flags & socket.MSG_WAITALL and len(data) < size):
            if not self._find_text():
                if self._has_ended():
                    break
                if flags & socket.MSG_DONTWAIT and not select.select([self._sock], [], [], 0)[0]:
                    raise BlockingIOError
                self._receive(self._find_text)
                continue
            want = size - len(data)
            data, self._text = data + self._text[:want], self._text[want:]
        return data

    def _has_ended(self) -> bool:
        with self._lock:
            if self._queue and self._queue[0].is_answered | self._queue[0].is_cut and self._queue[0].is_last:
                return True
            return self._is_over

    def _find_text(self) -> bool:
        """Make the next piece ready; its room is given back to the server, who may send more."""
        with self._lock:
            while not self._text and self._queue:
                first = self._queue[0]
                if first.pieces:
                    self._text, size = first.pieces.popleft()
                    self._give_back(first, size)
                elif first.is_answered and not first.is_last:
                    self._queue.popleft()
                else:
                    break
        self._flush()
        return bool(self._text)

    def _give_back(self, exchange: Exchange, size: int) -> None:
        if size and not self._is_over:
            self._h2.acknowledge_received_data(size, exchange.number)

    def _receive(self, is_there: Callable[[], bool]) -> None:
        """Take what comes next from the server; while another thread does, wait for `is_there`."""
        with self._news:
            while self._is_receiving and not is_there():
                self._news.wait()
            if is_there():
                return
            self._is_receiving = True
        try:
            self._take_bytes(self._sock.recv(65536))
        except ConnectionResetError:
            self._take_bytes(b"")
        finally:
            with self._news:
                self._is_receiving = False
                self._news.notify_all()
        self._flush()

    def _take_bytes(self, part: bytes) -> None:
        with self._lock:
            self._is_over |= not part
            self._raw += part
            for event in self._h2.receive_data(self._take_frames()):
                self._take(event)

    def _take_frames(self) -> bytes:
        """Return whole frames but for GOAWAY, behind which `h2` wants no other, although running streams go on (RFC 9113 6.8)."""
        taken = b""
        while len(self._raw) >= 9 and len(self._raw) >= (size := 9 + int.from_bytes(self._raw[:3], "big")):
            frame, self._raw = self._raw[:size], self._raw[size:]
            if frame[3] == GOAWAY:
                self._go_away(int.from_bytes(frame[9:13], "big"))
            else:
                taken += frame
        return taken

    def _go_away(self, last: int) -> None:
        """Streams behind `last` were not worked on. The next answer says what HTTP/1.1 has for it, `Connection: close`."""
        self._is_leaving = True
        for number, exchange in self._asked.items():
            exchange.is_refused |= number > last and not exchange.is_answered
            exchange.is_cut |= exchange.is_refused

    def _take(self, event: events.Event) -> None:
        exchange = self._asked.get(getattr(event, "stream_id", None) or 0)
        if exchange is None:
            return
        if isinstance(event, events.ResponseReceived | events.InformationalResponseReceived):
            exchange.is_farewell = self._is_leaving and exchange is self._queue[-1]
            exchange.take_head(event.headers)
        elif isinstance(event, events.DataReceived):
            exchange.take_data(event.data, event.flow_controlled_length)
        elif isinstance(event, events.TrailersReceived):
            exchange.end(event.headers)
        elif isinstance(event, events.StreamEnded):
            exchange.end()
        elif isinstance(event, events.StreamReset):
            exchange.is_cut = True
            exchange.is_refused = event.error_code == REFUSED_STREAM

    # ------------------------------------------------------------------ the socket's own

    def shutdown(self, how: int) -> None:
        """Write no more: a stream whose body is not complete is reset, others have said their end already; a tunnel's ends.

        If all was answered, the connection's half ends, too; before that the server would take it for the end of all.
        """
        assert how == socket.SHUT_WR
        exchange = self._asking
        with self._lock:
            if exchange is not None and exchange.is_tunnel:
                self._end_body([])
            elif exchange is not None and not exchange.is_cut:
                self._h2.reset_stream(exchange.number, 8)
                exchange.is_cut = True
        self._flush()
        if all(one.is_answered or one.is_cut for one in self._asked.values()):
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
