"""Unit tests of what tests of the whole server reckon with: the account of an access log (tests/load.py)."""

from __future__ import annotations

from pathlib import Path

from tests.load import Answer, Report, reconcile

HEAD = '127.0.0.1 - - [22/Nov/2026:04:24:26 +0000] "GET /secret.txt?'


def answered(name: str) -> Answer:
    """Return a request that succeeded."""
    return Answer(name, "alice.test", "", 1, 0.0, 0.0, 0.0, 200, has_secret=True, has_retry_after=False, error="", is_bound=False)


def line(name: str) -> str:
    """Return its line."""
    return f'{HEAD}id={name} HTTP/1.1" 200 184 "-" "-"\n'


def test_as_many_lines_are_torn_as_are_missing_wherever_one_is_cut_in_two(tmp_path: Path) -> None:
    """Another child's line between the parts, which is missing too if it cannot be told apart; other requests' lines are whole."""
    report, path = Report([answered("r-1"), answered("r-2")]), tmp_path / "access.log"
    other = '127.0.0.1 - - [22/Nov/2026:04:24:26 +0000] "GET /\\"" 400 - "a \\" b" "-"\n'
    for at in range(1, len(line("r-1"))):
        path.write_text(other + line("r-1")[:at] + line("r-2") + line("r-1")[at:] + other)
        account = reconcile(report, [path])
        assert len(account.missing) == len(account.torn) == (2 if at >= len(HEAD) else len(account.torn)), at
    path.write_text(other + line("r-1") + "localhost:80 " + other + line("r-2") + other)
    account = reconcile(report, [path])
    assert (account.torn, account.missing, account.doubled, account.wrong) == ((), (), (), ())
