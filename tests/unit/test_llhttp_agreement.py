"""Our head parser against llhttp (httptools): what we accept, llhttp accepts and reads in the same way.

So whatever llhttp rejects we reject; we may reject more. Where llhttp is lenient there is nothing to compare.
Runs as: the developer (pytest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_parsers import Case, Driver, Parsed, build_driver, load_corpus

CASES = load_corpus()
HTTP_METHODS = frozenset(b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH".split())
TRAILERS = re.compile(rb"\r\n(content-length|transfer-encoding|connection|upgrade)[ \t]*:", re.IGNORECASE)


@dataclass(slots=True)
class Seen:
    """What llhttp called back with."""

    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    data: bytes = b""
    complete: int = 0

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        self.target += url

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """One field; llhttp keeps blanks behind a value."""
        self.fields.append((name, (value or b"").rstrip(b" \t")))

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        self.data += data

    def on_message_complete(self) -> None:
        """The end of the body."""
        self.complete += 1


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One driver process for all examples."""
    with Driver(build_driver(tmp_path_factory.mktemp("llhttp"))) as running:
        yield running


def exception_of(ours: Parsed, body: bytes) -> str | None:
    """Why llhttp may refuse what we accept: the whole list of such reasons. None: it may not."""
    if ours.text("method") not in HTTP_METHODS:
        return "llhttp knows a list of methods; ours are open, and an unknown one is answered 501 or 405"
    if any(byte >= 0x80 for byte in ours.text("target")):
        return "httpd takes raw bytes from 0x80 on in a target, and so do we; llhttp's strict table does not"
    if TRAILERS.search(body):
        return "llhttp takes trailers for fields of the head and judges them; we drop them"
    return None


def feed(parser: httptools.HttpRequestParser, raw: bytes) -> httptools.HttpParserError | None:
    """Feed llhttp. Returns why it refuses, None if it accepts."""
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # the head asked for an upgrade, which llhttp reports this way; all callbacks were made
    except httptools.HttpParserError as error:
        return error
    return None


def check_agreement(ours: Parsed, raw: bytes) -> None:
    """Feed llhttp the head, and the body if it is chunked, and compare."""
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    body_end = ours.number("body")
    body = raw[ours.head : ours.head + max(body_end, 0)]
    refusal = feed(parser, raw[: ours.head] + body)
    if refusal is not None:
        assert exception_of(ours, body) is not None, f"llhttp refuses what we accept: {refusal!r}"
        return
    assert parser.get_method() == ours.text("method")
    assert seen.target == ours.text("target")
    assert tuple(seen.fields[: len(ours.fields)]) == ours.fields  # trailers may follow
    assert body_end > 0 or len(seen.fields) == len(ours.fields)
    assert parser.get_http_version() == f"1.{ours.number('minor')}"
    if body_end > 0:
        assert (seen.data, seen.complete) == (ours.text("data"), 1)


def compare(driver: Driver, raw: bytes) -> bool:
    """Compare the two on one input. Returns whether we accepted it."""
    ours = driver.parse(raw)
    if ours.head > 0:
        check_agreement(ours, raw)
    return ours.head > 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus_case_means_the_same_to_llhttp(driver: Driver, case: Case) -> None:
    """Every head of the corpus that we accept."""
    compare(driver, case.raw)


METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"get", b"PRI", b""])
TARGETS = st.one_of(
    st.sampled_from([b"/", b"*", b"/a?b", b"http://a/", b"http://a", b"http://a:80/b?c", b"a:80", b"//a", b"/#", b"http://a?b", b"/a b"]),
    st.binary(max_size=12).map(lambda tail: b"/" + tail),
    st.text(alphabet='/.?%:@[]{}|\\^`"<>~;=&+', max_size=12).map(lambda tail: b"/" + tail.encode()),
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""])
NAMES = st.one_of(
    st.sampled_from(
        [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"Cookie", b"X", b"Host ", b"", b" X", b"content-length"]
    ),
    st.binary(min_size=1, max_size=6),
)
VALUES = st.one_of(
    st.sampled_from(
        [b"a", b"", b"0", b"5", b"05", b"+5", b"5, 5", b"chunked", b"gzip, chunked", b"identity", b"close", b"keep-alive", b"upgrade", b"100-continue"]
    ),
    st.binary(max_size=10),
)
BLANKS = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t "])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
LINES = st.tuples(NAMES, st.just(b":"), BLANKS, VALUES, BLANKS, ENDS).map(b"".join)
BODIES = st.one_of(
    st.sampled_from([b"", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5 \r\nhello"]),
    st.binary(max_size=20),
)
HEADS = st.builds(
    lambda method, target, version, end, host, lines, tail, body: b"".join([method, b" ", target, b" ", version, end, host, *lines, tail, body]),
    METHODS,
    TARGETS,
    VERSIONS,
    ENDS,
    st.sampled_from([b"Host: a\r\n"] * 4 + [b"", b"Host: a:80\r\n", b"Host:\r\n"]),
    st.lists(LINES, max_size=5),
    st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b""]),
    BODIES,
)
MUTATIONS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)


def mutate(raw: bytes, mutations: list[tuple[int, int, int]]) -> bytes:
    """Replace (0), insert (1) or delete (2) single bytes."""
    changed = bytearray(raw)
    for kind, place, byte in mutations:
        at = place % (len(changed) + 1)
        changed[at : at + (kind != 1)] = b"" if kind == 2 else bytes([byte])
    return bytes(changed)


GENEROUS = settings(
    max_examples=3000, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@GENEROUS
@given(raw=HEADS)
def test_generated_head_means_the_same_to_llhttp(driver: Driver, raw: bytes) -> None:
    """Heads put together from good and bad parts."""
    compare(driver, raw)


@GENEROUS
@given(case=st.sampled_from([case for case in CASES if len(case.raw) < 1000]), mutations=MUTATIONS)
def test_mutated_corpus_means_the_same_to_llhttp(driver: Driver, case: Case, mutations: list[tuple[int, int, int]]) -> None:
    """Heads of the corpus with some bytes changed."""
    compare(driver, mutate(case.raw, mutations))


EXCEPTIONS = (
    b"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
)


@pytest.mark.parametrize("raw", EXCEPTIONS)
def test_each_exception_is_still_needed(driver: Driver, raw: bytes) -> None:
    """llhttp refuses an example of each exception; one that it has come to accept is to be struck from the list."""
    ours = driver.parse(raw)
    assert ours.head > 0 and exception_of(ours, raw[ours.head :]) is not None
    with pytest.raises(httptools.HttpParserError):
        httptools.HttpRequestParser(Seen()).feed_data(raw)


def test_comparison_sees_accepted_heads(driver: Driver) -> None:
    """The comparison is not empty: a good part of the corpus is accepted."""
    assert sum(compare(driver, case.raw) for case in CASES) > 100
