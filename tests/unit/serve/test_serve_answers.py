"""pc_serve on real files, answered as httpd does: error pages, Header, RequestHeader and the environment.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import native_serve as ns
import pytest
from native_serve import (
    DENIED,
    LOCATION,
    Answer,
    Start,
)

from perchild.wire import record

# ---------------------------------------------------------------- errors


def test_serve_puts_nothing_of_the_request_on_its_pages(start: Start) -> None:
    """An error page is the same for every path, and closes its elements."""
    server = start(record.u32s("SIGNATURE", 2))
    answer = server.get("/<script>alert(1)", host="evil.example")
    assert answer.status == 404
    assert "script" not in answer.text
    assert "evil" not in answer.text
    assert '<address>perchildd Server at <a href="mailto:root@example.org">www.example.org</a> Port 80</address>' in answer.text
    assert answer.field("Content-Type") == "text/html; charset=utf-8"


def test_serve_uses_error_documents(start: Start) -> None:
    """Text, local path with its status and REDIRECT_ variables, URL, and back to the default in a section."""
    settings = (ns.error_document(403, 0, "<p>no"), ns.error_document(404, 1, "/sub/c.txt?x=1"), ns.error_document(410, 2, "http://g.example/"),
                ns.redirect(410, 0, "/gone"), record.texts("SET_ENV", "A", "b"), ns.header("set", "X-Ok", "1"))
    sections = (ns.section(LOCATION, "/closed", DENIED), ns.section(LOCATION, "/plain", ns.error_document(404, 3)))
    server = start(*settings, sections=sections)
    answer = server.get("/none?q", "Range: bytes=0-0", "If-None-Match: *")
    assert (answer.status, answer.body, answer.field("X-Ok")) == (404, b"c", "1")
    assert answer.env == {"REDIRECT_A": "b", "REDIRECT_STATUS": "404", "REDIRECT_URL": "/none", "REDIRECT_REQUEST_METHOD": "GET",
                          "REDIRECT_QUERY_STRING": "q", "A": "b"}
    assert server.get("/none", method="PUT").status == 405
    assert (server.get("/closed").status, server.get("/closed").text, server.get("/closed").field("X-Ok")) == (403, "<p>no", None)
    assert (server.get("/gone").status, server.get("/gone").field("Location")) == (302, "http://g.example/")
    assert "Not Found" in server.get("/plain/x").text


@pytest.mark.parametrize("document", ["/missing", "/closed/x", "/sub/", "/../x"])
def test_serve_says_both_errors_when_the_document_fails(start: Start, document: str) -> None:
    """An ErrorDocument that is missing, denied or malformed: the first status, our page, no circle."""
    server = start(ns.error_document(404, 1, document), ns.error_document(403, 1, document),
                   sections=(ns.section(LOCATION, "/closed", DENIED),))
    answer = server.get("/none")
    assert answer.status == 404
    assert "Additionally, a 40" in answer.text


def test_serve_error_answers_for_those_who_call_it(start: Start) -> None:
    """pc_serve_error: page, document, and our page where the document would need Python."""
    server = start(ns.error_document(408, 1, "/a.txt"), ns.error_document(503, 1, "/who"), ns.header("set", "X-A", "1", always=True),
                   sections=(ns.section(LOCATION, "/who", record.text("HANDLER", "whoami")),))
    answers = {status: server.get("/x", error=status) for status in (400, 408, 503, 431)}
    assert {status: answer.status for status, answer in answers.items()} == {400: 400, 408: 408, 503: 503, 431: 431}
    assert answers[408].body == b"0123456789"
    assert answers[503].field("Retry-After") == "1"
    assert all(answer.field("X-A") == "1" for answer in answers.values())


# ---------------------------------------------------------------- Header, RequestHeader, environment


def values(answer: Answer, name: str) -> list[str]:
    """All response fields called `name`, in order."""
    return [value for key, value in answer.fields if key.lower() == name.lower()]


@pytest.mark.parametrize(("items", "expected"), [
    ((ns.header("set", "X", "1"), ns.header("set", "x", "2")), ["2"]),
    ((ns.header("add", "X", "1"), ns.header("add", "X", "2")), ["1", "2"]),
    ((ns.header("append", "X", "1"), ns.header("append", "X", "1")), ["1, 1"]),
    ((ns.header("merge", "X", "a"), ns.header("merge", "X", "b"), ns.header("merge", "X", "a")), ["a, b"]),
    ((ns.header("set", "X", "1"), ns.header("unset", "X")), []),
    ((ns.header("setifempty", "X", "1"), ns.header("setifempty", "X", "2")), ["1"]),
    ((ns.header("set", "X", "aXbX"), ns.header("edit", "X", "[$0]", pattern="X")), ["a[X]bX"]),
    ((ns.header("set", "X", "aXbX"), ns.header("edit", "X", "-$1", pattern="(X)", every=True)), ["a-Xb-X"]),
    ((ns.header("set", "X", "ab"), ns.header("edit", "X", "-", pattern="", every=True)), ["-a-b"]),
    ((ns.header("set", "X", "1", env="YES"), ns.header("append", "X", "2", env="!YES"), ns.header("append", "X", "3", env="!NO")), ["1, 3"]),
    ((ns.header("echo", "^X$"),), ["from client"]),
])
def test_header_does_what_its_action_says(start: Start, items: tuple[bytes, ...], expected: list[str]) -> None:
    """set, add, append, merge, unset, setifempty, edit, edit*, env= and echo."""
    answer = start(record.texts("SET_ENV", "YES", "1"), *items).get("/a.txt", "X: from client")
    assert values(answer, "X") == expected


def test_header_sees_our_fields_and_not_those_that_frame(start: Start) -> None:
    """ETag can be unset, Content-Type edited; Content-Length and Connection cannot be touched; errors take always alone."""
    items = (ns.header("unset", "ETag"), ns.header("edit", "Content-Type", "x", pattern="plain"), ns.header("set", "Content-Length", "0"),
             ns.header("set", "Transfer-Encoding", "chunked"), ns.header("set", "A", "1"), ns.header("set", "B", "1", always=True))
    server = start(*items)
    answer = server.get("/a.txt")
    assert (answer.field("ETag"), answer.field("Content-Type"), answer.field("Content-Length")) == (None, "text/x", "10")
    assert answer.field("Transfer-Encoding") is None
    assert (server.get("/none").field("A"), server.get("/none").field("B")) == (None, "1")
    assert server.get("/a.txt", "If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT").field("A") == "1"


def test_header_never_overflows_the_fields(start: Start) -> None:
    """More fields than fit: the rest is left out and the log says so."""
    server = start(*(ns.header("add", "X", str(number)) for number in range(200)))
    answer = server.get("/a.txt")
    assert len(answer.fields) == 96 + 1  # the driver writes Content-Length itself
    assert "more than 96 fields" in server.log_text


def test_requestheader_changes_what_handlers_will_see(start: Start) -> None:
    """set, append, merge, edit and unset of request fields."""
    def make(action: str, name: str, value: str = "", **rest: str) -> bytes:
        return ns.header(action, name, value, item="REQUEST_HEADER", **rest)  # type: ignore[arg-type]

    items = (make("set", "A", "1"), make("append", "B", "2"), make("edit", "C", "x", pattern="c"), make("unset", "D"), make("unset", "E"),
             make("setifempty", "B", "9"))
    answer = start(*items).get("/a.txt", "B: 1", "C: ccc", "D: d")
    assert answer.edits == {"A": "1", "B": "1, 2", "C": "xcc", "D": None}


def test_setenv_and_unsetenv_merge_by_section(start: Start) -> None:
    """The more specific section wins; a section can take away what is set above it."""
    sections = (ns.section(LOCATION, "/sub", record.texts("SET_ENV", "A", "2"), record.text("UNSET_ENV", "B")),)
    server = start(record.texts("SET_ENV", "A", "1"), record.texts("SET_ENV", "B", "1"), sections=sections)
    assert server.get("/a.txt").env == {"A": "1", "B": "1"}
    assert server.get("/sub/c.txt").env == {"A": "2"}
