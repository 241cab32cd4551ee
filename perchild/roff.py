"""Manual pages: the little of man(7) that ours need.

Runs as: whoever builds the pages (pure).
"""

from __future__ import annotations

from collections.abc import Iterable

from perchild import __version__


def escape(text: str) -> str:
    """Return text that stands for itself: no escapes, no hyphens that break words, no requests at the line's start."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{safe}" if safe.startswith(".") else safe


def head(name: str, section: int, what: str) -> str:
    """Return the page's head and its NAME. name: of the page, as in `man name`; what: in a few words."""
    return f'.TH {name.upper()} {section} "" "perchildd {__version__}" "perchildd"\n.SH NAME\n{escape(name)} \\- {escape(what)}\n'


def section(title: str, *paragraphs: str) -> str:
    """Return a section of plain paragraphs."""
    return f'.SH "{escape(title)}"\n' + ".PP\n".join(f"{escape(one)}\n" for one in paragraphs)


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms, in bold, and what each means."""
    return "".join(f".TP\n.B {_word(term)}\n{escape(text)}\n" for term, text in pairs)


def example(*lines: str) -> str:
    """Return lines that are shown as they are."""
    return ".PP\n.RS 4\n.nf\n" + "".join(f"{escape(line)}\n" for line in lines) + ".fi\n.RE\n"


def _word(term: str) -> str:
    """Return a macro's argument."""
    safe = escape(term).replace('"', "\\(dq")
    return f'"{safe}"'
