"""docs/troubleshooting.md has every message that an operator may meet, and none that the server does not write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perchild.control.checks import CHECKS
from tests.docs.messages import ROOT, Message, all_messages

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ROWS = [row for line in PAGE.partition("## What `perchildctl check`")[0].splitlines() if line.startswith("| `") for row in re.findall(r"`([^`]+)`", line.split(" | ")[0])]
PLAIN = " ".join(re.sub(r"\.\.\.|`", "\0", PAGE).split())
SOURCES = [path for folder in ("native/*.c", "perchild/**/*.py") for path in sorted(ROOT.glob(folder))]


def source_text() -> str:
    """Return all of the source, its strings joined over lines."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    return " ".join(re.sub(r'"\s*\n?\s*f?"', "", text).replace("%%", "%").split())


SOURCE = source_text()


@pytest.mark.parametrize("message", all_messages(), ids=lambda one: f"{Path(one.file).name}:{one.line}")
def test_message_is_explained(message: Message) -> None:
    """Its longest part that is always the same stands on the page, without a number before it if that varies."""
    wanted = " ".join(message.part.split())
    assert wanted in PLAIN, (f"{message.file}:{message.line} can write {message.text!r}: say in docs/troubleshooting.md what it means, "
                             "and what to do")


@pytest.mark.parametrize("row", ROWS)
def test_row_is_still_written_by_the_source(row: str) -> None:
    """The longest part of each row of the page stands in the source."""
    part = max((piece.strip(" :;,()") for piece in row.split("...")), key=len)
    part = " ".join(re.sub(r"^AH\d{5}: ", "", part).split())
    assert part in SOURCE, f"docs/troubleshooting.md explains {row!r}, which the server does not say any more"


def test_checks_are_the_programs() -> None:
    """The table of what perchildctl check looks for."""
    for check in CHECKS:
        assert f"| `{check.name}` | {check.severity} | {check.what} | {check.remedy} |\n" in PAGE, check.name


def test_page_has_many_rows() -> None:
    """The page is read as it is meant to be."""
    assert len(ROWS) > 100
    assert len(all_messages()) > 100
