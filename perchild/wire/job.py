r"""A job: one message of a child to its identity's runner, on the identity's job box (SOCK_SEQPACKET).

    u32 magic "PCJO"; u16 version; u8 kind; u8 zero; u64 id; u32 service; u32 path_len; u32 cwd_len; u32 arg_len; u32 env_len
then path, working directory, arguments ("a\0b\0"), environment ("NAME=value\0"), without gaps; little endian; struct pc_job in
native/job.h. Descriptors: RUN three (the program's 0, 1 and 2), CANCEL none, WAKE one (a stream socket, on which one line
is answered: "ok", "error TEXT", or "again": the runner is ending, ask its successor), LOG one (the server's error log, opened anew; the
dispatcher's, and who else sends it changes where its own tenant's runner complains).
Runs as: runner (decode_job), dispatcher (encode_job).  Pure.  Distrusts: every byte; a child may be taken over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = 0x4F4A4350  # "PCJO"
VERSION = 1
RUN, CANCEL, WAKE, LOG = 1, 2, 3, 4
FORMAT = struct.Struct("<IHBBQIIIII")
MAX_BYTES = 131072  # PC_JOB_MAX_BYTES: one message
MAX_ARGUMENTS = 256
MAX_VARIABLES = 1024
FDS = {RUN: 3, CANCEL: 0, WAKE: 1, LOG: 1}  # kind -> how many descriptors come with it
MAX_FDS = max(FDS.values())


class JobError(Exception):
    """A message breaks the rules: it is dropped, and said in the error log."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    id: of a RUN, unique per child (its pid << 32 | counter). service: for WAKE the number in the runner's file, for CANCEL the seconds
    that the program still has to end by itself.
    """

    kind: int
    id: int
    service: int = 0
    path: bytes = b""
    cwd: bytes = b""
    arguments: tuple[bytes, ...] = ()
    environment: tuple[bytes, ...] = ()  # "NAME=value"


def encode_job(job: Job) -> bytes:
    """Return the message; the caller sends the descriptors with it."""
    parts = (job.path, job.cwd, _join(job.arguments), _join(job.environment))
    head = FORMAT.pack(MAGIC, VERSION, job.kind, 0, job.id, job.service, *(len(part) for part in parts))
    return head + b"".join(parts)


def _join(strings: tuple[bytes, ...]) -> bytes:
    return b"".join(one + b"\0" for one in strings)


def decode_job(raw: bytes, fd_count: int) -> Job:
    """Decode one message.

    Args:
        raw: one whole message; 0..any bytes; not trusted.
        fd_count: descriptors that came with it.
    Raises:
        JobError: it breaks a rule of this page; the caller closes the descriptors.
    """
    if not FORMAT.size <= len(raw) <= MAX_BYTES:
        raise JobError(f"a message of {len(raw)} bytes")
    magic, version, kind, zero, number, service, *lengths = FORMAT.unpack_from(raw)
    if (magic, version, zero) != (MAGIC, VERSION, 0) or kind not in FDS:
        raise JobError(f"magic {magic:#x}, version {version}, kind {kind}")
    if FORMAT.size + sum(lengths) != len(raw):
        raise JobError("lengths that do not agree")
    if fd_count != FDS[kind]:
        raise JobError(f"{fd_count} descriptors with kind {kind}")
    path, cwd, arguments, environment = _split(raw, lengths)
    if (kind == RUN) != bool(path) or (kind != RUN and any(lengths)):
        raise JobError(f"kind {kind} with{'out' if kind == RUN else ''} a program")
    if any(one and (one[:1] != b"/" or b"\0" in one) for one in (path, cwd)):
        raise JobError("a path that is not absolute, or has a NUL")
    return Job(kind, number, service, path, cwd, _strings(arguments, MAX_ARGUMENTS), _variables(environment))


def _split(raw: bytes, lengths: list[int]) -> list[bytes]:
    parts, at = [], FORMAT.size
    for length in lengths:
        parts.append(raw[at : at + length])
        at += length
    return parts


def _strings(raw: bytes, most: int) -> tuple[bytes, ...]:
    if not raw:
        return ()
    strings = raw.split(b"\0")
    if strings.pop() or len(strings) > most:
        raise JobError("a list of strings without its end, or too long")
    return tuple(strings)


def _variables(raw: bytes) -> tuple[bytes, ...]:
    variables = _strings(raw, MAX_VARIABLES)
    if any(one.find(b"=") < 1 for one in variables):
        raise JobError("a variable without a name or without =")
    return variables
