"""The corpus tests/corpus/http1 against the native parsers, whole, bytewise and in random pieces.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_parsers import BYTEWISE, ERRORS, NO_BODY, WHOLE, Case, Driver, Parsed, build_driver, load_corpus

CASES = load_corpus()
SPLITS = (WHOLE, BYTEWISE, 7, 1234, 99991)
STATUS_OF_HEAD = {"bad": 400, "uri_long": 414, "head_large": 431, "version": 505, "unknown": 501, "expect": 417}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One driver process for all cases."""
    program: Path = build_driver(tmp_path_factory.mktemp("parsers"))
    with Driver(program) as running:
        yield running


def same(first: Parsed, second: Parsed) -> bool:
    """Whether two answers agree; after a refusal nothing but the error counts."""
    if first.head <= 0 or second.head <= 0:
        return (first.head, first.peek) == (second.head, second.peek)
    return first == second


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parsers_answer_each_case_as_listed_in_any_pieces(driver: Driver, case: Case) -> None:
    """The head's and the body's result are those of the table, however the bytes arrive."""
    whole = driver.parse(case.raw)
    if case.head == "ok":
        assert whole.head > 0
        body = whole.number("body")
        assert {"ok": body > 0, "bad": body == ERRORS["bad"], None: body == NO_BODY}[case.body]
    else:
        assert whole.head == ERRORS[case.head]
    for split in SPLITS:
        assert same(whole, driver.parse(case.raw, split))


@pytest.mark.parametrize("case", [case for case in CASES if case.head == "ok"], ids=lambda case: case.name)
def test_peek_finds_the_name_that_the_whole_head_has(driver: Driver, case: Case) -> None:
    """Routing by the first bytes and serving by the whole head mean the same host."""
    parsed = driver.parse(case.raw)
    assert 0 < parsed.peek <= parsed.head
    name = re.sub(rb":\d+$", b"", parsed.text("name").lower()).removesuffix(b".")
    assert name == parsed.text("host")


@pytest.mark.parametrize("case", [case for case in CASES if case.after and case.body != "bad"], ids=lambda case: case.name)
def test_smuggled_bytes_stay_behind_the_framing(driver: Driver, case: Case) -> None:
    """An accepted request that ends neither connection nor answer covers what must not be parsed, or closes."""
    parsed = driver.parse(case.raw)
    if parsed.head <= 0 or case.close or case.status[0] == 400:
        return
    framed = parsed.number("body") if parsed.number("body") > 0 else max(parsed.number("length"), 0)
    rest = case.raw[parsed.head + framed :]
    assert not [text for text in case.after if text.encode() in rest]


def test_corpus_statuses_follow_from_the_parsers_results() -> None:
    """A refused head's status is the one of its error, it closes, and every case says where it is from."""
    for case in CASES:
        if case.head != "ok":
            assert case.status == (STATUS_OF_HEAD[case.head],) and case.close, case.name
        if case.body == "bad":
            assert case.status == (400,) and case.close, case.name
        assert re.fullmatch(r"(RFC \d+ [\dA-Z.]+|CVE-\d+-\d+|CWE-\d+|security\.md [\d.]+|\w+\(7\))", case.source), case.name
        assert case.reason and re.fullmatch(r"\d{3}-[a-z0-9-]+", case.name), case.name


def test_corpus_is_whole() -> None:
    """Each .http has its .toml and each .toml its .http, numbers are unique, and there are enough of them."""
    numbers = [case.name[:3] for case in CASES]
    assert len(set(numbers)) == len(numbers) >= 150
    directory = Path(__file__).resolve().parent.parent / "corpus" / "http1"
    assert {path.stem for path in directory.glob("*.toml")} == {case.name for case in CASES}
