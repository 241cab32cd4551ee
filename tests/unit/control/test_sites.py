"""pc2ensite and its three siblings: links, words, exit statuses."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from perchild.control import sites

HINT = "To activate the new configuration, you need to run:\n  systemctl reload perchildd\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration directory with two sites and a conf, nothing enabled."""
    for name in ("sites", "conf"):
        (tmp_path / f"{name}-available").mkdir()
        (tmp_path / f"{name}-enabled").mkdir()
    (tmp_path / "sites-available/one.conf").touch()
    (tmp_path / "sites-available/two.example.conf").touch()
    (tmp_path / "conf-available/charset.conf").touch()
    monkeypatch.setenv("PERCHILD_CONFDIR", str(tmp_path))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], program: str, *arguments: str) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error."""
    status = sites.main(arguments, program)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_enable_and_disable_a_site(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A relative link is made and removed; each step twice is no error."""
    link = root / "sites-enabled/one.conf"
    assert run(capsys, "pc2ensite", "one") == (0, f"Enabling site one.\n{HINT}", "")
    assert str(link.readlink()) == "../sites-available/one.conf"
    assert run(capsys, "pc2ensite", "one.conf") == (0, "Site one already enabled\n", "")
    assert run(capsys, "pc2ensite", "-q", "one") == (0, "", "")
    assert run(capsys, "pc2dissite", "one") == (0, f"Site one disabled.\n{HINT}", "")
    assert not link.is_symlink()
    assert run(capsys, "pc2dissite", "one") == (0, "Site one already disabled\n", "")
    assert run(capsys, "pc2ensite", "-qm", "one") == (0, "Enabling site one.\n", "")


def test_conf_files_have_programs_of_their_own(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pc2enconf and pc2disconf act on conf-*."""
    assert run(capsys, "pc2enconf", "charset")[:2] == (0, f"Enabling conf charset.\n{HINT}")
    assert (root / "conf-enabled/charset.conf").exists()
    assert run(capsys, "pc2disconf", "charset")[:2] == (0, f"Conf charset disabled.\n{HINT}")


def test_what_is_not_there_is_an_error_and_the_others_are_done(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and each argument is looked at."""
    assert run(capsys, "pc2ensite", "none", "one") == (1, f"Enabling site one.\n{HINT}", "ERROR: Site none does not exist!\n")
    assert run(capsys, "pc2dissite", "none") == (1, "", "ERROR: Site none does not exist!\n")
    assert run(capsys, "pc2ensite", "n*") == (1, "", "ERROR: No site found matching n*!\n")
    assert (root / "sites-enabled/one.conf").exists()


def test_wildcards_stand_for_files_to_enable_and_links_to_disable(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sites by *, then both links by *."""
    assert run(capsys, "pc2ensite", "*")[:2] == (0, f"Enabling site one.\nEnabling site two.example.\n{HINT}")
    assert run(capsys, "pc2dissite", "*.conf")[:2] == (0, f"Site one disabled.\nSite two.example disabled.\n{HINT}")
    assert not list((root / "sites-enabled").iterdir())


def test_dangling_links_go_and_real_files_stay(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to nothing is removed by either program; a file or another's link is never touched."""
    enabled = root / "sites-enabled"
    (enabled / "gone.conf").symlink_to("../sites-available/gone.conf")
    assert run(capsys, "pc2dissite", "gone") == (0, f"removing dangling symlink {enabled}/gone.conf\n{HINT}", "")
    (enabled / "one.conf").symlink_to("/nowhere")
    assert run(capsys, "pc2ensite", "one")[0] == 0
    (enabled / "two.example.conf").write_text("mine")
    status, _, error = run(capsys, "pc2ensite", "two.example")
    assert (status, error) == (1, f"ERROR: Site two.example not properly enabled: {enabled}/two.example.conf is a real file, not touching it\n")
    assert run(capsys, "pc2dissite", "two.example")[0] == 1
    assert (enabled / "two.example.conf").read_text() == "mine"
    (enabled / "one.conf").unlink()
    (enabled / "one.conf").symlink_to("../sites-available/two.example.conf")
    assert "does not point to" in run(capsys, "pc2ensite", "one")[2]


def test_paths_are_no_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a slash would leave the directory."""
    (root / "secret.conf").touch()
    assert run(capsys, "pc2ensite", "../secret")[0] == 1
    assert not list((root / "sites-enabled").iterdir())


def test_without_names_it_asks(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The choices are listed and a line of names is read."""
    monkeypatch.setattr("sys.stdin", io.StringIO("one two.example\n"))
    status, out, _ = run(capsys, "pc2ensite")
    assert status == 0
    assert out.startswith("Your choices are: one two.example\nWhich site(s) do you want to enable (wildcards ok)?\nEnabling site one.\n")


def test_unknown_option_is_status_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a2ensite."""
    with pytest.raises(SystemExit) as end:
        sites.main(["-z"], "pc2ensite")
    assert end.value.code == 2
    assert "pc2ensite" in capsys.readouterr().err
