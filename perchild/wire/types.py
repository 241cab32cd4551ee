"""The types table: file extension -> media type, from TypesConfig; one sealed memfd that all children share.

    header  8s magic "PCTYPES1", u32 total length, u32 bucket count (a power of two)
    bucket  u32 offset of an entry, 0 = free; open addressing, first slot = crc32(extension) & (count - 1)
    entry   u16 extension length, u16 type length, extension in lower case, type

Read in native/mime.c.  Runs as: compile (writes).  Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

MAGIC = b"PCTYPES1"


def build_types(types: Mapping[str, str]) -> bytes:
    """Return the table's bytes for extension (lower case, no dot) -> media type."""
    count = 1
    while count < 2 * len(types):
        count *= 2
    buckets = [0] * count
    body = bytearray(16 + 4 * count)
    for extension, media_type in types.items():
        raw, value = extension.encode("utf-8", "surrogateescape"), media_type.encode("utf-8", "surrogateescape")
        slot = zlib.crc32(raw) & (count - 1)
        while buckets[slot]:
            slot = (slot + 1) & (count - 1)
        buckets[slot] = len(body)
        body += struct.pack("<HH", len(raw), len(value)) + raw + value
        body += bytes(-len(body) % 4)
    struct.pack_into("<8sII", body, 0, MAGIC, len(body), count)
    struct.pack_into(f"<{count}I", body, 16, *buckets)
    return bytes(body)
