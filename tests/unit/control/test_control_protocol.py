"""The control socket's lines, and perchildctl's text."""

from __future__ import annotations

import struct

import pytest

from perchild.control import protocol
from perchild.control.command import add_pages, render_status
from perchild.wire.control import MSG_ASK_BOARD, MSG_IDLE, MSG_LOAD, MSG_READY, Message, WireError, decode_from_child
from perchild.wire.page import COUNTERS, MAGIC, PAGE_BYTES, SLOTS_AT, decode_page


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


def test_status_is_shown_with_what_pages_say() -> None:
    """A line for the identity, one for the child with its counters and slots; a page that is nonsense is left out."""
    raw = bytearray(PAGE_BYTES)
    struct.pack_into("<Q", raw, 0, MAGIC)
    struct.pack_into("<Q", raw, 8 + 8 * COUNTERS.index("requests"), 42)
    struct.pack_into("<I", raw, SLOTS_AT - 8, 1)
    struct.pack_into("<iI8i", raw, SLOTS_AT, -2, 2, -1, -2, 0, 0, 0, 0, 0, 0)
    status = {
        "pid": 7, "state": "running", "mpm": "perchild", "accept_scope": "any", "generation": 3, "uptime_s": 5.0, "host_count": 1,
        "listeners": [{"address": "127.0.0.1", "port": 80}],
        "identities": [{"number": 1, "name": "alice", "uid": 1001, "gid": 1001, "kind": "fixed", "hosts": 1, "is_removed": False,
                        "is_held_back": True, "children": [{"pid": 9, "state": "ready", "generation": 3, "is_accepting": True, "idle": 4, "busy": 0}]}],
    }
    add_pages(status, {9: decode_page(bytes(raw))})
    text = render_status(status)
    assert "alice uid=1001 gid=1001 fixed, 1 hosts, 1 children, held back" in text
    assert "pid 9 ready generation=3 accepting idle=4 busy=0 requests=42" in text
    assert "slots=-2" in text
    assert status["identities"][0]["children"][0]["slot_histories"] == [[-1, -2]]
