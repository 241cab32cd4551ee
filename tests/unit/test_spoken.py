"""The list of what is not run over TLS and over HTTP/2 is true: whatever else is in tests/system is run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.spoken import OWN, SYSTEM

ROOT = Path(__file__).resolve().parents[2]


def test_each_file_that_is_left_out_is_there_and_has_a_reason() -> None:
    """A file that was renamed or removed does not stay in the list."""
    files = {path.stem for path in SYSTEM.glob("test_*.py")}
    assert OWN.keys() <= files
    assert all(reason.strip() for reason in OWN.values())


def test_the_rest_is_run_over_tls_and_over_http2() -> None:
    """Whole directories are named, not files: a new one is run without being asked for."""
    steps = [line for line in (ROOT / "packaging/test").read_text().splitlines() if re.match(r"step \w+ .*--(tls|h2)", line)]
    for options in ("--tls -m 'not slow'", "--h2 -m 'not slow'", "--tls --h2 -m slow"):
        assert any(f"{options} tests/system" in line and line.rstrip().endswith("tests/system") for line in steps), options


def test_each_test_that_is_left_out_has_a_reason() -> None:
    """Markers without an argument say nothing."""
    bare = [f"{path.name}: {line}" for path in SYSTEM.glob("test_*.py") for line in path.read_text().splitlines()
            if re.search(r"mark\.(plain|http1|silent)\b(?!\(\"[^\"]{3,}\"\))", line)]
    assert bare == []
