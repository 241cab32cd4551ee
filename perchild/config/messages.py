"""What the operator is told about a configuration: where, what, and which word.

Runs as: compile (pure).  Sees: the configuration.  Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from perchild.config.tokens import word_columns

PROGRAM = "perchildd"
_UNPRINTABLE = re.compile("[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning.

    line: 1-based, 0 if the matter is the configuration as a whole; text: the line as written, continuation lines joined;
    column: 0-based place of the offending word in text, -1 if there is none; code: httpd's message number; other: FILE:LINE of the line
    that it does not go together with, "" if it is wrong by itself.
    """

    file: str
    line: int
    reason: str
    text: str = ""
    column: int = -1
    code: str = "AH00526"
    other: str = ""

    def render_line(self) -> str:
        """Return it in one line, as warnings are shown."""
        where = f" ({self.file}:{self.line})" if self.line else ""
        return make_printable(f"{self.code}: {self.reason}{where}" if self.code else f"{self.reason}{where}")


class BadDirectiveError(Exception):
    """A directive that cannot be taken; word: index of the offending argument, -1 for the directive's name."""

    def __init__(self, reason: str, word: int = -1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.word = word


def locate(file: str, line: int, text: str, reason: str, word: int = -1, code: str = "AH00526", other: str = "") -> Diagnostic:
    """Return the diagnostic for argument `word` (-1: the name) of the directive in `text`."""
    columns = word_columns(text)
    column = columns[word + 1] if 0 <= word + 1 < len(columns) else (columns[0] if columns else 0)
    return Diagnostic(file, line, reason, text, column, code, other)


def make_printable(text: str) -> str:
    """Return `text` with control characters, and bytes that are no UTF-8, in hexadecimal: a terminal must not obey them."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match.group()) & 0xFF:02x}", text)


def format_error(error: Diagnostic) -> str:
    """Return one error in httpd's shape: head line, reason, the line itself, a caret below the offending word."""
    if not error.line:
        start = f"{error.code}: {PROGRAM}: Configuration error" if error.code else PROGRAM
        return make_printable(f"{start}: {error.reason}") + "\n"
    head = make_printable(f"{error.code}: Syntax error on line {error.line} of {error.file}:") + f"\n{make_printable(error.reason)}\n"
    if not error.text:
        return head
    shown = error.text.strip()
    shift = len(error.text) - len(error.text.lstrip())
    before = make_printable(shown[: max(0, error.column - shift)])
    pad = "".join("\t" if char == "\t" else " " for char in before)
    return f"{head}{make_printable(shown)}\n{pad}^\n"


def format_errors(errors: Iterable[Diagnostic]) -> str:
    """Return all errors, one after the other, as the command line prints them."""
    return "".join(format_error(error) for error in errors)
