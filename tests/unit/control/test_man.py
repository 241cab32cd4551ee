"""Manual pages: every directive, option and command stands in them, and man(1) has nothing to complain of."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perchild import cli, roff
from perchild.config import man as config_man
from perchild.config.directives import ROWS, SECTIONS
from perchild.control import command, man

PAGES = {**man.PAGES, "perchild.conf.5": config_man.render}


def plain(page: str) -> str:
    """Return a page's text without escapes."""
    for escaped, char in (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\(ga", "`"), ("\\(ha", "^"), ("\\(ti", "~"), ("\\&", ""), ("\\e", "\\")):
        page = page.replace(escaped, char)
    return page


def test_perchild_conf_lists_every_directive_and_section() -> None:
    """One term for each row of the table."""
    text = plain(config_man.render())
    for row in ROWS:
        assert f'.B "{row.name}' in text, row.name
    for name in SECTIONS:
        assert f'.B "{name[:-1]}' in text, name


def test_perchildd_lists_every_option() -> None:
    """What -h prints."""
    text = plain(man.render_perchildd())
    options = re.findall(r"^  (-\w)", cli.USAGE, re.MULTILINE)
    assert len(options) > 15
    for option in options:
        assert f'.B "{option}' in text, option


def test_perchildctl_lists_every_command() -> None:
    """What its parser knows, with their arguments."""
    text = plain(man.render_perchildctl())
    names = [name for name, _, _ in man._commands(command.make_parser())]
    assert "reload" in names
    for name in names:
        assert f'.B "{name}"' in text


def test_nothing_in_a_text_is_taken_for_markup() -> None:
    """A backslash, a leading dot and quotes come out as they went in."""
    assert roff.escape(r".a\b-c'd") == r"\&.a\eb\-c\(aqd"
    assert plain(roff.escape(r".a\b-c'd")) == r".a\b-c'd"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_no_warning(name: str, tmp_path: Path) -> None:
    """All warnings on, and none."""
    render: Callable[[], str] = PAGES[name]
    (tmp_path / name).write_text(render())
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", str(tmp_path / name)], capture_output=True, text=True, check=True)
    assert not done.stderr
