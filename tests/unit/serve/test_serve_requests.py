"""pc_serve on real files, answered as httpd does: conditions, ranges, methods and media types.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import native_serve as ns
import pytest
from native_serve import (
    LOCATION,
    Start,
)

from perchild.wire import record

# ---------------------------------------------------------------- conditions and ranges


@pytest.mark.parametrize(("fields", "status"), [
    (("If-None-Match: *",), 304), (("If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT",), 304),
    (("If-Modified-Since: Sun, 13 Sep 2020 12:26:39 GMT",), 200), (('If-Match: "x"',), 412),
    (("If-Unmodified-Since: Sun, 13 Sep 2020 12:26:39 GMT",), 412), (("Range: bytes=0-3",), 206),
    (("Range: bytes=99-",), 416), (("Range: bytes=0-3", 'If-Range: "x"'), 200), (("Range: nonsense",), 200),
    (("Range: bytes=0-,5-,6-,7-,8-,9-",), 200),
])
def test_serve_answers_conditions_and_ranges(start: Start, fields: tuple[str, ...], status: int) -> None:
    """304, 412, 206 and 416 as RFC 9110 has them."""
    answer = start().get("/a.txt", *fields)
    assert answer.status == status
    if status == 304:
        assert (answer.body, answer.field("ETag") is not None, answer.field("Content-Type")) == (b"", True, None)
    if status == 206:
        assert (answer.body, answer.field("Content-Range")) == (b"0123", "bytes 0-3/10")
    if status == 416:
        assert answer.field("Content-Range") == "bytes */10"


def test_serve_puts_several_ranges_into_parts(start: Start) -> None:
    """multipart/byteranges: each part with its type and place, and the length is that of the whole."""
    answer = start().get("/a.txt", "Range: bytes=0-1,-2")
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]+)", answer.field("Content-Type") or "")
    assert (answer.status, boundary is not None) == (206, True)
    mark = f"\r\n--{boundary[1] if boundary else ''}"
    part = "\r\nContent-Type: text/plain\r\nContent-Range: bytes {}/10\r\n\r\n{}"
    assert answer.text == mark + part.format("0-1", "01") + mark + part.format("8-9", "89") + mark + "--\r\n"
    assert answer.field("Content-Length") == str(len(answer.body))


def test_serve_serves_large_and_empty_files(start: Start, root: Path) -> None:
    """Every byte of a large file, none of an empty one, whose ranges are ignored."""
    raw = hashlib.shake_128(b"x").digest(300_000)
    (root / "large").write_bytes(raw)
    (root / "empty").write_bytes(b"")
    server = start()
    assert server.get("/large").body == raw
    assert server.get("/large", "Range: bytes=200000-").body == raw[200_000:]
    assert (server.get("/empty").status, server.get("/empty", "Range: bytes=0-").status) == (200, 200)


def test_serve_forgets_conditions_that_requestheader_took_away(start: Start) -> None:
    """RequestHeader unset Range and If-None-Match."""
    names = ("Range", "If-None-Match")
    server = start(*(ns.header("unset", name, item="REQUEST_HEADER") for name in names))
    assert server.get("/a.txt", "Range: bytes=0-1").status == 200
    assert server.get("/a.txt", "If-None-Match: *").status == 200


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize(("method", "status"), [
    ("GET", 200), ("HEAD", 200), ("POST", 200), ("OPTIONS", 200), ("PUT", 405), ("DELETE", 405), ("PATCH", 405), ("TRACE", 405),
    ("PROPFIND", 501),
])
def test_serve_answers_methods_as_httpds_default_handler(start: Start, method: str, status: int) -> None:
    """What a file allows; what it does not allow says so in Allow."""
    answer = start().get("/a.txt", method=method)
    assert answer.status == status
    assert answer.field("Allow") == ("GET,POST,OPTIONS,HEAD" if status == 405 or method == "OPTIONS" else None)


def test_serve_answers_options_of_the_whole_server(start: Start) -> None:
    """OPTIONS * is 200 without a body."""
    answer = start().get("*", method="OPTIONS")
    assert (answer.status, answer.body) == (200, b"")


def test_serve_refuses_bodies_above_the_limit(start: Start) -> None:
    """LimitRequestBody of the most specific section; 0 is no limit."""
    sections = (ns.section(LOCATION, "/sub", record.u64("LIMIT_BODY", 0)),)
    server = start(record.u64("LIMIT_BODY", 10), sections=sections)
    assert server.get("/a.txt", "Content-Length: 11", method="POST").status == 413
    assert server.get("/a.txt", "Content-Length: 10", method="POST").status == 200
    assert server.get("/sub/c.txt", "Content-Length: 11", method="POST").status == 200


# ---------------------------------------------------------------- types


def test_serve_finds_type_charset_and_encoding_by_extensions(start: Start, root: Path) -> None:
    """Any extension counts, in any order and case; the default charset only for text/plain and text/html."""
    (root / "P.TXT").write_text("x")
    (root / "p.png").write_text("x")
    (root / "d.html.latin").write_text("x")
    settings = (record.texts("ADD_ENCODING", "gz", "gzip"), record.text("DEFAULT_CHARSET", "utf-8"), record.texts("ADD_TYPE", "gz", "x/y"),
                record.texts("ADD_CHARSET", "latin", "iso-8859-1"))
    server = start(*settings, sections=(ns.section(LOCATION, "/b.html.gz", record.texts("ADD_TYPE", "gz", "text/html")),))
    assert server.get("/P.TXT").field("Content-Type") == "text/plain; charset=utf-8"
    assert server.get("/p.png").field("Content-Type") == "image/png"
    assert server.get("/d.html.latin").field("Content-Type") == "text/html; charset=iso-8859-1"
    answer = server.get("/b.html.gz")
    assert (answer.field("Content-Type"), answer.field("Content-Encoding")) == ("text/html; charset=utf-8", "gzip")


def test_serve_forces_and_defaults_types(start: Start) -> None:
    """ForceType beats extensions, DefaultType fills gaps, and without either there is no guessing."""
    sections = (ns.section(LOCATION, "/sub", record.text("FORCE_TYPE", "x/forced")),
                ns.section(LOCATION, "/noext", record.text("DEFAULT_TYPE", "x/default")))
    server = start(sections=sections)
    assert server.get("/sub/c.txt").field("Content-Type") == "x/forced"
    assert server.get("/noext").field("Content-Type") == "x/default"
    answer = start().get("/noext")
    assert (answer.field("Content-Type"), answer.field("X-Content-Type-Options")) == (None, "nosniff")


@pytest.mark.parametrize("media_type", ["application/x-httpd-php", "Application/X-HTTPD-Alt-PHP84"])
def test_serve_never_sends_a_program_by_its_type(start: Start, media_type: str) -> None:
    """AddType application/x-httpd-php without PHP is 503, not the source."""
    answer = start(record.texts("ADD_TYPE", "txt", media_type)).get("/a.txt")
    assert answer.status == 503
    assert b"0123" not in answer.body
