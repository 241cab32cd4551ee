"""Configuration text -> logical lines -> words, by httpd's rules (server/util.c: ap_cfg_getline, ap_getword_conf).

A backslash as the last character of a line joins it with the next one, in comments too. `#` begins a comment only as the first
character of a line. A word is what stands between blanks; a word that begins with " or ' ends at the next one of its kind, and
within it a backslash protects the quote and itself.
Runs as: compile (pure).  Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"""\s*(?:"((?:\\["\\]|[^"])*+)"|'((?:\\['\\]|[^'])*+)'|([^\s"']\S*))""")
_BLANKS = re.compile(r"\s*$")
_UNESCAPE = {'"': re.compile(r'\\(["\\])'), "'": re.compile(r"\\(['\\])"), "": re.compile(r"\\(\\)")}


class QuoteError(Exception):
    """A quote that is never closed; column: its 0-based place in the text."""

    def __init__(self, column: int) -> None:
        super().__init__("missing closing quote")
        self.column = column


def split_words(text: str) -> list[str]:
    """Return the words of `text` (a directive's arguments), without their quotes.

    Raises:
        QuoteError: a quote is never closed.
    """
    if '"' not in text and "'" not in text and "\\" not in text:
        return text.split()
    return [word for word, _ in _scan_words(text)]


def word_columns(text: str) -> list[int]:
    """Return the 0-based columns of the words of a whole line, the directive's name first; never raises."""
    columns: list[int] = []
    try:
        columns.extend(column for _, column in _scan_words(text))
    except QuoteError as error:
        columns.append(error.column)
    return columns


def _scan_words(text: str) -> Iterator[tuple[str, int]]:
    at = 0
    while not _BLANKS.match(text, at):
        match = _WORD.match(text, at)
        if match is None:
            raise QuoteError(at + len(text[at:]) - len(text[at:].lstrip()))
        group = match.lastindex or 3
        quote = ('"', "'", "")[group - 1]
        word = match.group(group)
        if "\\" in word:
            word = _UNESCAPE[quote].sub(r"\1", word)
        yield word, match.start(group) - (1 if quote else 0)
        at = match.end()


def split_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of every logical line that is neither empty nor a comment.

    Lines are stripped; the number is that of the first physical line (1-based).
    """
    lines = text.split("\n")
    count = len(lines)
    at = 0
    while at < count:
        raw = lines[at]
        at += 1
        line = raw.strip()
        if not line:
            continue
        number = at
        if line[-1] == "\\" and raw.rstrip("\r")[-1] == "\\":
            line, at = _join(lines, at - 1)
            if not line:
                continue
        if line[0] != "#":
            yield number, line


def _join(lines: list[str], at: int) -> tuple[str, int]:
    parts: list[str] = []
    while at < len(lines):
        raw = lines[at].rstrip("\r")
        at += 1
        if not raw.endswith("\\"):
            parts.append(raw)
            break
        parts.append(raw[:-1])
    return "".join(parts).strip(), at
