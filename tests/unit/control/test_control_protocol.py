"""The control socket's lines, and children's messages."""

from __future__ import annotations

import struct

import pytest

from perchild.control import protocol
from perchild.wire.control import MSG_ASK_BOARD, MSG_IDLE, MSG_LOAD, MSG_READY, Message, WireError, decode_from_child


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"op":1}', b"\xff", b"[" * 60000, b"nonsense"])
def test_request_that_is_none_is_refused(raw: bytes) -> None:
    """Anything but an object with a text op raises ProtocolError."""
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_request(raw)


def test_request_survives_encoding() -> None:
    """One line, and the same tree comes back."""
    raw = protocol.encode({"op": "drain", "identity": "alice"})
    assert raw.count(b"\n") == 1
    assert protocol.decode_request(raw) == {"op": "drain", "identity": "alice"}


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x01" * 9, struct.pack("<BBHI", 1, 1, 0, 0),
                                 *(struct.pack("<BBHI", kind, 0, 0, 0) for kind in (0, 2, 4, 6, 8, 9, 10, 12, 255))])
def test_message_that_no_child_sends_is_refused(raw: bytes) -> None:
    """Length, the zero byte, and the kind are checked."""
    with pytest.raises(WireError):
        decode_from_child(raw)


@pytest.mark.parametrize("kind", [MSG_READY, MSG_LOAD, MSG_IDLE, MSG_ASK_BOARD])
def test_message_of_a_child_is_decoded(kind: int) -> None:
    """Kind, small and number arrive."""
    assert decode_from_child(struct.pack("<BBHI", kind, 0, 65535, 0xFFFFFFFF)) == Message(kind, 65535, 0xFFFFFFFF)
