"""Words and lines are cut as httpd cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perchild.config.tokens import QuoteError, split_lines, split_words, word_columns


@pytest.mark.parametrize(("text", "words"), [
    ("a b\tc", ["a", "b", "c"]),
    ('"a b" c', ["a b", "c"]),
    ("'a \"b\"' c", ['a "b"', "c"]),
    (r'"a \"b\" \\ \n"', ['a "b" \\ \\n']),
    (r"\.php$", [r"\.php$"]),
    (r"a\\b", [r"a\b"]),
    ('a"b"', ['a"b"']),
    ('"a""b"', ["a", "b"]),
    ("", []),
    ("  ", []),
    ('""', [""]),
])
def test_split_words_follows_ap_getword_conf(text: str, words: list[str]) -> None:
    """Quotes hold words together only at a word's beginning; a backslash protects the quote and itself."""
    assert split_words(text) == words


@pytest.mark.parametrize("text", ['"a', "'a b", r'"a\"', 'x "'])
def test_split_words_refuses_a_quote_that_is_never_closed(text: str) -> None:
    """An open quote is an error, not the rest of the line."""
    with pytest.raises(QuoteError):
        split_words(text)


def test_word_columns_count_quotes_and_blanks() -> None:
    """The column of a quoted word is that of its quote."""
    assert word_columns('Foo  "a b" c') == [0, 5, 11]


@given(st.text(max_size=60))
def test_word_columns_never_raise_and_lie_in_the_text(text: str) -> None:
    """Whatever the line is, there is a place for a caret."""
    assert all(0 <= column < max(1, len(text)) for column in word_columns(text))


@pytest.mark.parametrize(("text", "lines"), [
    ("a\n\n  b  \n", [(1, "a"), (3, "b")]),
    ("# x\na # y", [(2, "a # y")]),
    ("a \\\n  b\\\nc\nd", [(1, "a   bc"), (4, "d")]),
    ("# a \\\nstill comment\nb", [(3, "b")]),
    ("a\r\nb \\\r\nc\r\n", [(1, "a"), (2, "b c")]),
    ("a \\ \nb", [(1, "a \\"), (2, "b")]),
    ("a \\", [(1, "a")]),
    ("\\\n\\\n", []),
])
def test_split_lines_joins_continuations_and_keeps_numbers(text: str, lines: list[tuple[int, str]]) -> None:
    """A backslash at the very end joins lines, in comments too; the number is the first line's."""
    assert list(split_lines(text)) == lines


@given(st.text(alphabet="ab \\\n#\t\r", max_size=80))
def test_split_lines_end_for_any_text_and_number_upwards(text: str) -> None:
    """Every text has an end, and line numbers only grow."""
    numbers = [number for number, _ in split_lines(text)]
    assert numbers == sorted(set(numbers))
