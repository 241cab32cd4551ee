"""The board: what the dispatcher knows of identities and children, and copies of children's pages, in one sealed memfd.

The dispatcher makes it for whoever may see it: perchildctl sees all, an unassigned child sees all, any other child what is its
own identity's. It copies pages by the kernel's hand and never looks into them; the reader decodes them.
    u64 magic "PCBOARD1", u64 bytes of text, text (JSON, dispatcher/board.py says its members), from the next multiple of 4096 on
    the pages, PAGE_STRIDE bytes apart, in the order that the text's numbers of pages mean
Runs as: dispatcher (writes), perchildctl and children (read).  Pure but for open_board.  Distrusts: the pages, not the text.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from perchild.wire.page import PAGE_BYTES, Page, decode_page

MAGIC = int.from_bytes(b"PCBOARD1", "little")
_HEAD = struct.Struct("<QQ")
_UNIT = 4096
PAGE_STRIDE = (PAGE_BYTES + _UNIT - 1) // _UNIT * _UNIT


@dataclass(frozen=True, slots=True)
class Board:
    """A decoded board. pages: by number, as the text names them; one that is nonsense is left out."""

    tree: dict[str, Any]
    pages: dict[int, Page]


def encode_text(tree: dict[str, Any]) -> bytes:
    """Return what stands before the pages, padded: its length is where they begin."""
    text = json.dumps(tree, separators=(",", ":")).encode()
    raw = _HEAD.pack(MAGIC, len(text)) + text
    return raw + bytes(-len(raw) % _UNIT)


@contextlib.contextmanager
def map_board(fd: int) -> Iterator[memoryview]:
    """Yield the bytes of a board; the descriptor stays the caller's. ValueError if there are none."""
    with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        yield view


def decode_board(raw: memoryview) -> Board:
    """Return what a board says.

    Raises:
        ValueError: it is none.
    """
    if len(raw) < _HEAD.size:
        message = f"board of {len(raw)} bytes"
        raise ValueError(message)
    magic, length = _HEAD.unpack_from(raw)
    if magic != MAGIC or length > len(raw) - _HEAD.size:
        message = "not a board"
        raise ValueError(message)
    tree = json.loads(bytes(raw[_HEAD.size : _HEAD.size + length]))
    begin = (_HEAD.size + length + _UNIT - 1) // _UNIT * _UNIT
    pages: dict[int, Page] = {}
    for number in range((len(raw) - begin) // PAGE_STRIDE):
        at = begin + number * PAGE_STRIDE
        with contextlib.suppress(ValueError):
            pages[number] = decode_page(raw[at : at + PAGE_STRIDE])
    return Board(tree, pages)


def read_board(fd: int) -> Board:
    """Return what the board behind a descriptor says, and close it. ValueError if it is none."""
    try:
        with map_board(fd) as raw:
            return decode_board(raw)
    finally:
        os.close(fd)
