"""Say back what WebSockets say, by Python's standard library alone: python3 demo_echo.py, listening on descriptor 3.

The demo copies this file into each tenant's home, where AppServer runs it. Asked for a page it sends one that opens a WebSocket
to where it came from. The first message says under which uid it runs; each frame that comes goes back as it is.
Runs as: a tenant's program.  Sees: what clients send.  Holds: the listening socket.  Distrusts: lengths (64 KiB at most).
Before: the runner, which binds the socket (LISTEN_FDS).  After: nothing.  Source: RFC 6455.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import socketserver
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from typing import BinaryIO, NamedTuple

LISTEN_FD = 3
MOST_BYTES = 65_536
FINAL, TEXT, CLOSE, PING, PONG = 0x80, 1, 8, 9, 10
# RFC 6455 5.2: data of up to so many octets, what its length's first octet says (itself if nothing follows), how many follow
_LENGTHS = ((125, 0, 0), (0xFFFF, 126, 2), (MOST_BYTES, 127, 8))
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_PAGE = b"""<!doctype html><meta charset="utf-8"><title>WebSocket echo</title>
<form><input id="text" placeholder="say something" autofocus> <button>Send</button></form><pre id="said"></pre>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws")), said = document.getElementById("said");
  socket.onmessage = message => said.append(message.data + "\\n");
  socket.onclose = () => said.append("closed\\n");
  document.forms[0].onsubmit = () => { socket.send(text.value); text.value = ""; return false; };
</script>
"""


class Frame(NamedTuple):
    """One frame: its first octet (FINAL and the opcode) and its data, unmasked."""

    first: int
    data: bytes

    @property
    def opcode(self) -> int:
        """What kind of frame it is."""
        return self.first & 15


def accept_of(key: bytes) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()


def encode(frame: Frame, mask: bytes = b"") -> bytes:
    """Return a frame's octets; a client's have a mask of 4 octets, a server's none (RFC 6455 5.2)."""
    size = len(frame.data)
    code, octets = next((code, octets) for most, code, octets in _LENGTHS if size <= most)
    length = size.to_bytes(octets, "big") if octets else b""
    head = bytes([frame.first, (size if not octets else code) | (0x80 if mask else 0)]) + length
    return head + mask + (_masked(frame.data, mask) if mask else frame.data)


def read_frame(stream: BufferedIOBase | BinaryIO) -> Frame | None:
    """Return the next frame; None at the end of the stream, or if a frame is longer than we take."""
    head = stream.read(2)
    if len(head) < 2:  # noqa: PLR2004
        return None
    code = head[1] & 0x7F
    octets = {126: 2, 127: 8}.get(code, 0)
    size = int.from_bytes(stream.read(octets), "big") if octets else code
    if size > MOST_BYTES:
        return None
    mask_size = 4 if head[1] & 0x80 else 0
    mask, data = stream.read(mask_size), stream.read(size)
    if (len(mask), len(data)) != (mask_size, size):
        return None
    return Frame(head[0], _masked(data, mask) if mask else data)


def _masked(data: bytes, mask: bytes) -> bytes:
    return bytes(octet ^ mask[place % 4] for place, octet in enumerate(data))


class Echo(BaseHTTPRequestHandler):
    """One connection: a page, or a WebSocket."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, or change to WebSocket and say back what comes."""
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._switch(self.headers.get("Sec-WebSocket-Key", "").encode())
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.end_headers()
        self.wfile.write(_PAGE)

    def _switch(self, key: bytes) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_of(key))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encode(Frame(FINAL | TEXT, b"uid %d, a WebSocket echo" % os.geteuid())))
        while (frame := read_frame(self.rfile)) is not None:
            if frame.opcode != PONG:
                self.wfile.write(encode(Frame(FINAL | PONG, frame.data) if frame.opcode == PING else frame))
            if frame.opcode == CLOSE:
                return

    def log_message(self, *_words: object) -> None:
        """Be silent: the server has an access log."""


class Server(socketserver.ThreadingUnixStreamServer):
    """The listening socket that the runner gave, with a thread for each connection."""

    daemon_threads = True

    def __init__(self) -> None:
        """Take the socket."""
        super().__init__("", Echo, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=LISTEN_FD)


if __name__ == "__main__":
    Server().serve_forever()
