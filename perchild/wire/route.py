"""The route table: listening address and server name -> value, as bytes that children map read-only.

In the server's table (a sealed memfd) values are identity numbers; in a record's own table they are host indexes.
Read in native/route.c. Little endian; offsets count from the table's first byte.

    header   8s magic "PCROUTE1", u32 total length, u32 address count, u32 address offset, u32 generation
    address  u8 family (0 any, 4, 6), u8 flags (1 = TLS, 2 = PROXY protocol), u16 port (0 any), 16s address, u32 default value,
             u32 bucket count (a power of two), u32 bucket offset, u32 wildcard count, u32 wildcard offset
             sorted by (family, address, port) descending: the more specific first
    bucket   u32 offset of an entry, 0 = free; open addressing, linear, first slot = crc32(name) & (count - 1)
    entry    u32 crc32, u32 value, u16 length, name in lower case
    wildcard u32 offset of an entry whose name holds * or ?, in configuration order
    front    for an address with PROXY protocol, u32 behind its wildcards: offset of 16s key, u32 length, ACCESS leaves of the front
             ends (none: any peer is one); 0 in a record's own table. The key is for those who listen: see native/hand.c

Which address entry applies to a connection: (ip, port), (ip, any port), (any, port), (any, any); the first there is.
Runs as: compile (writes).  Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

MAGIC = b"PCROUTE1"
NO_VALUE = 0xFFFFFFFF

_HEADER = struct.Struct("<8sIIII")
_ADDRESS = struct.Struct("<BBH16sIIIII")
_TLS, _FRONT, _H2C = 1, 2, 4


@dataclass(slots=True)
class Address:
    """One listening address and the names served there.

    family 0 (any), 4 or 6; packed: 0, 4 or 16 bytes; port 0 = any; names and wildcards map a lower-case name to a value,
    the first mention wins; default: value of the address's first host, or NO_VALUE; is_front: connections begin with a PROXY
    protocol header, which peers (ACCESS leaves; empty: everybody) may send.
    """

    family: int
    packed: bytes
    port: int
    default: int = NO_VALUE
    is_tls: bool = False
    names: dict[str, int] = field(default_factory=dict)
    wildcards: list[tuple[str, int]] = field(default_factory=list)
    is_front: bool = False
    peers: bytes = b""
    is_h2c: bool = False  # a host of it speaks HTTP/2 without TLS


def build_table(addresses: Sequence[Address], generation: int = 0, key: bytes = b"") -> bytes:
    """Return the table's bytes.

    Args:
        addresses: at most one for each (family, packed, port).
        generation: number of the plan.
        key: 16 bytes that nobody else knows; b"" in a record's own table.
    """
    rows = sorted(addresses, key=lambda one: (one.family, one.packed.ljust(16, b"\0"), one.port), reverse=True)
    body = bytearray(_HEADER.size + len(rows) * _ADDRESS.size)
    entries: dict[tuple[bytes, int], int] = {}
    packed_rows = [_pack_address(row, body, entries, key) for row in rows]
    body[: _HEADER.size] = _HEADER.pack(MAGIC, len(body), len(rows), _HEADER.size, generation)
    body[_HEADER.size : _HEADER.size + len(rows) * _ADDRESS.size] = b"".join(packed_rows)
    return bytes(body)


def _pack_address(row: Address, body: bytearray, entries: dict[tuple[bytes, int], int], key: bytes) -> bytes:
    count = 1
    while count < 2 * len(row.names):
        count *= 2
    buckets = [0] * count
    for name, value in row.names.items():
        raw = name.encode("ascii", "replace")
        slot = zlib.crc32(raw) & (count - 1)
        while buckets[slot]:
            slot = (slot + 1) & (count - 1)
        buckets[slot] = _entry(raw, value, body, entries)
    wilds = [_entry(name.encode("ascii", "replace"), value, body, entries) for name, value in row.wildcards]
    _align(body)
    front = [_front(row, body, key)] if row.is_front else []
    bucket_at = len(body)
    body += struct.pack(f"<{count}I", *buckets)
    wild_at = len(body)
    body += struct.pack(f"<{len(wilds) + len(front)}I", *wilds, *front)
    flags = _TLS * row.is_tls | _FRONT * row.is_front | _H2C * row.is_h2c
    return _ADDRESS.pack(row.family, flags, row.port, row.packed.ljust(16, b"\0"), row.default, count, bucket_at, len(wilds), wild_at)


def _front(row: Address, body: bytearray, key: bytes) -> int:
    at = len(body) if key else 0
    if key:
        body += key + struct.pack("<I", len(row.peers)) + row.peers
        _align(body)
    return at


def _entry(raw: bytes, value: int, body: bytearray, entries: dict[tuple[bytes, int], int]) -> int:
    key = (raw, value)
    if key not in entries:
        _align(body)
        entries[key] = len(body)
        body += struct.pack("<IIH", zlib.crc32(raw), value, len(raw)) + raw
    return entries[key]


def _align(body: bytearray) -> None:
    body += bytes(-len(body) % 4)
