"""A client's side of WebSockets, for tests.

Runs as: the tests.  Source: RFC 6455.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct

from tests.system.wire import Client, get

TEXT, BINARY, CLOSE = 1, 2, 8  # opcodes
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def shake_hands(one: Client, host: str, path: str, *fields: str) -> None:
    """Open a WebSocket; fails unless the server takes it and answers the key."""
    key = base64.b64encode(os.urandom(16)).decode()
    one.send(get(host, path, "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
                 *fields))
    head = one.read()
    assert head is not None
    assert head.status == 101, head.raw
    assert head.fields["sec-websocket-accept"] == base64.b64encode(hashlib.sha1(f"{key}{GUID}".encode()).digest()).decode()


def frame(data: bytes, opcode: int) -> bytes:
    """Return one masked frame (5.2)."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data)) if len(data) < 65536 else (
        b"\xff" + struct.pack(">Q", len(data)))
    mask = os.urandom(4)
    return bytes([0x80 | opcode]) + size + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def read_frame(one: Client) -> tuple[int, bytes]:
    """Return opcode and data of one unmasked, unfragmented frame."""

    def take(size: int) -> bytes:
        while len(one.buffer) < size:
            assert one.fill(), "the tunnel ended within a frame"
        found = bytes(one.buffer[:size])
        del one.buffer[:size]
        return found

    first, second = take(2)
    size = second
    if second == 126:
        size = struct.unpack(">H", take(2))[0]
    elif second == 127:
        size = struct.unpack(">Q", take(8))[0]
    return first & 15, take(size)
