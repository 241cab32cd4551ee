"""What the package asks before it restarts the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from perchild.control import would_start

SITE = "<VirtualHost *:8080>\nServerName {name}.example\nDocumentRoot {root}\n{line}\n</VirtualHost>\n"


def ask(root: Path, capsys: pytest.CaptureFixture[str], *, main: str = "", site: str = "") -> tuple[int, str]:
    """Return the exit status and what was said, for a configuration with a line in the main file and one in one of two sites."""
    (root / "sites-enabled").mkdir(exist_ok=True)
    for name, line in (("one", ""), ("two", site)):
        (root / f"sites-enabled/{name}.conf").write_text(SITE.format(name=name, root=root, line=line))
    file = root / "perchild.conf"
    file.write_text(f"ServerRoot {root}\nDefaultRuntimeDir {root}/run\nErrorLog {root}/error.log\nDocumentRoot {root}\nListen 8080\n{main}\n"
                    "IncludeOptional sites-enabled/*.conf\n")
    return would_start.main([str(file)]), capsys.readouterr().err


def test_one_broken_site_does_not_keep_a_server_from_starting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good, one broken site: yes. Broken as a whole: no, with the reason."""
    assert ask(tmp_path, capsys) == (0, "")
    assert ask(tmp_path, capsys, site="NoSuchDirective on")[0] == 0
    status, said = ask(tmp_path, capsys, main="NoSuchDirective on")
    assert status == 1
    assert "NoSuchDirective" in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["perchild.conf", "sites-enabled"]
