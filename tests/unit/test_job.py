"""The job message: what is encoded is decoded, what breaks a rule is refused, and C means the same bytes."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perchild.wire import job as wire

HEADER = (Path(__file__).resolve().parents[2] / "native/job.h").read_text()
RUN = wire.Job(wire.RUN, 7 << 32 | 1, 0, b"/srv/a.cgi", b"/srv", (b"x", b""), (b"A=1", b"B="))

words = st.lists(st.binary(max_size=20).filter(lambda one: b"\0" not in one), max_size=5).map(tuple)
variables = st.lists(st.tuples(st.from_regex(rb"[A-Z_]{1,9}", fullmatch=True), st.binary(max_size=9).filter(lambda v: b"\0" not in v))
                     .map(lambda pair: pair[0] + b"=" + pair[1]), max_size=5).map(tuple)


@given(st.integers(0, 2**64 - 1), words, variables)
def test_what_is_encoded_is_decoded(number: int, arguments: tuple[bytes, ...], environment: tuple[bytes, ...]) -> None:
    one = wire.Job(wire.RUN, number, 0, b"/a/b", b"/a", arguments, environment)
    assert wire.decode_job(wire.encode_job(one), 3) == one
    wake = wire.Job(wire.WAKE, 0, 3)
    assert wire.decode_job(wire.encode_job(wake), 1) == wake
    assert wire.decode_job(wire.encode_job(wire.Job(wire.CANCEL, number)), 0).id == number


@given(st.binary(max_size=200), st.integers(0, 4))
def test_any_bytes_are_decoded_or_refused(raw: bytes, fd_count: int) -> None:
    for tail in (raw, wire.encode_job(RUN)[:36] + raw, wire.encode_job(RUN)[:8] + raw):
        try:
            job = wire.decode_job(tail, fd_count)
        except wire.JobError:
            continue
        assert wire.encode_job(job) == tail


def changed(**changes: object) -> bytes:
    """Return RUN's message with some members of its head replaced."""
    names = ("magic", "version", "kind", "zero", "id", "service", "path_len", "cwd_len", "arg_len", "env_len")
    raw = wire.encode_job(RUN)
    values = dict(zip(names, wire.FORMAT.unpack_from(raw), strict=True)) | changes
    return wire.FORMAT.pack(*(values[name] for name in names)) + raw[wire.FORMAT.size:]


@pytest.mark.parametrize("raw", [
    b"", changed(magic=1), changed(version=2), changed(kind=4), changed(kind=0), changed(zero=1), changed(path_len=9),
    changed(env_len=2**32 - 1), changed(kind=wire.CANCEL), wire.encode_job(RUN) + b"x", wire.encode_job(RUN)[:-1],
    wire.encode_job(wire.Job(wire.RUN, 1)), wire.encode_job(wire.Job(wire.RUN, 1, 0, b"a/b")),
    wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/a\0b")), wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/a", b"b")),
    wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/a", environment=(b"A",))),
    wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/a", environment=(b"=A",))),
    wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/a", arguments=(b"x",) * 257)),
    wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/a", arguments=(b"x" * 131072,))),
])
def test_what_breaks_a_rule_is_refused(raw: bytes) -> None:
    with pytest.raises(wire.JobError):
        wire.decode_job(raw, 3)


@pytest.mark.parametrize(("kind", "path", "right"), [(wire.RUN, b"/a", 3), (wire.CANCEL, b"", 0), (wire.WAKE, b"", 1)])
def test_each_kind_has_its_number_of_descriptors(kind: int, path: bytes, right: int) -> None:
    raw = wire.encode_job(wire.Job(kind, 1, 0, path))
    for count in range(5):
        if count == right:
            assert wire.decode_job(raw, count).kind == kind
        else:
            with pytest.raises(wire.JobError):
                wire.decode_job(raw, count)


def test_c_means_the_same_bytes() -> None:
    """Numbers and members of struct pc_job are those that Python packs, in their order."""
    numbers = dict(re.findall(r"PC_JOB_(\w+)(?: =)? (0x[0-9A-F]+|\d+)", HEADER))
    assert (int(numbers["MAGIC"], 16), int(numbers["VERSION"]), int(numbers["MAX_BYTES"])) == (wire.MAGIC, wire.VERSION, wire.MAX_BYTES)
    assert (int(numbers["MAX_ARGUMENTS"]), int(numbers["MAX_VARIABLES"])) == (wire.MAX_ARGUMENTS, wire.MAX_VARIABLES)
    assert [int(numbers[name]) for name in ("RUN", "CANCEL", "WAKE")] == [wire.RUN, wire.CANCEL, wire.WAKE]
    body = HEADER.partition("struct pc_job {")[2].partition("}")[0]
    body = re.sub(r"/\*.*?\*/", "", body)
    members = [(kind, name.strip()) for kind, names in re.findall(r"uint(\d+)_t ([^;]+);", body) for name in names.split(",")]
    assert [name for _, name in members] == ["magic", "version", "kind", "zero", "id", "service", "path_len", "cwd_len", "arg_len", "env_len"]
    assert "<" + "".join({"8": "B", "16": "H", "32": "I", "64": "Q"}[bits] for bits, _ in members) == wire.FORMAT.format
    assert struct.pack("<I", wire.MAGIC) == b"PCJO"
