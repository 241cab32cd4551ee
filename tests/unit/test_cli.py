"""perchildd's command line: httpd's options, shapes and exit statuses, as far as they need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from perchild import cli

CONFIG = """ServerRoot {root}
Listen 127.0.0.1:8080
User nobody
Group nogroup
ServerName x.test
PidFile {root}/pid
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Return the path of a small good configuration."""
    path = tmp_path / "c.conf"
    path.write_text(CONFIG.format(root=tmp_path))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize(("argv", "flags", "defines"), [
    (["-X"], {"X"}, ()),
    (["-DFOO", "-D", "BAR"], set(), ("FOO", "BAR")),
    (["-S"], {"S"}, ("DUMP_VHOSTS", "DUMP_RUN_CFG")),
    (["-M"], {"M"}, ("DUMP_MODULES",)),
    (["-tD", "DUMP_VHOSTS"], {"t"}, ("DUMP_VHOSTS",)),
])
def test_options_are_understood_as_httpd_does(argv: list[str], flags: set[str], defines: tuple[str, ...]) -> None:
    """Attached and separate values, bundled letters, -S and -M as synonyms."""
    call = cli.parse_call(argv)
    assert (call.flags, call.defines) == (frozenset(flags), defines)


@pytest.mark.parametrize(("argv", "is_foreground", "has_one_worker"), [
    ([], False, False), (["-X"], True, True), (["-DFOREGROUND"], True, False), (["-DNO_DETACH"], True, False),
    (["-DONE_PROCESS"], True, True), (["-DDEBUG"], True, True), (["-DOTHER"], False, False),
])
def test_foreground_and_one_worker_come_from_flag_or_define(argv: list[str], is_foreground: bool, has_one_worker: bool) -> None:  # noqa: FBT001
    """-X and the four names."""
    call = cli.parse_call(argv)
    assert (call.is_foreground, call.has_one_worker) == (is_foreground, has_one_worker)


@pytest.mark.parametrize("argv", [["-k", "explode"], ["-Q"], ["word"], ["-f"], ["-e", "loud"]])
def test_call_that_is_none_ends_with_usage_and_status_one(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown options and values: usage on stderr."""
    assert cli.main(argv) == 1
    assert "Usage: perchildd" in capsys.readouterr().err


def test_server_root_moves_the_default_configuration() -> None:
    """-d DIR: DIR/perchild.conf; without it /etc/perchild/perchild.conf."""
    assert cli.parse_call(["-d", "/srv/x"]).file == "/srv/x/perchild.conf"
    assert cli.parse_call([]).file == "/etc/perchild/perchild.conf"


def test_syntax_test_says_syntax_ok(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """-t: "Syntax OK" on stderr, nothing on stdout, status 0."""
    assert cli.main(["-t", "-f", config]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("Syntax OK\n")


def test_syntax_test_shows_every_error_and_ends_with_one(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """-t: AH00526 with line and file for each error."""
    with open(config, "a") as file:
        file.write("Bogus on\nListen nonsense:port\n")
    assert cli.main(["-t", "-f", config]) == 1
    err = capsys.readouterr().err
    assert f"AH00526: Syntax error on line 7 of {config}:" in err
    assert f"AH00526: Syntax error on line 8 of {config}:" in err
    assert "Syntax OK" not in err


def test_directives_of_the_command_line_are_in_force(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """-c is read after the file: its error is shown."""
    assert cli.main(["-t", "-f", config, "-c", "Bogus"]) == 1
    assert "Bogus" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "head"), [
    (["-S"], "VirtualHost configuration:\n"), (["-M"], "Loaded Modules:\n"), (["-t", "-D", "DUMP_INCLUDES"], "Included configuration files:\n"),
    (["-t", "-D", "DUMP_RUN_CFG"], "ServerRoot: "),
])
def test_dumps_have_httpds_heads_on_stdout(config: str, argv: list[str], head: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Panels read these: on stdout, status 0; no "Syntax OK", as with httpd."""
    assert cli.main([*argv, "-f", config]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(head)
    assert "Syntax OK" not in err


@pytest.mark.parametrize(("flag", "head", "status"), [
    ("-v", "Server version: perchildd/", 0), ("-l", "Compiled in modules:\n  core.c\n", 0), ("-h", "Usage: perchildd", 1), ("-L", "", 0),
])
def test_what_needs_no_configuration_is_answered(flag: str, head: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    """-v, -l, -h, -L answer on stdout with httpd's status."""
    assert cli.main([flag]) == status
    assert capsys.readouterr().out.startswith(head)


def test_version_can_be_found_by_panels(capsys: pytest.CaptureFixture[str]) -> None:
    """Panels look for Apache/2.4 in -v."""
    cli.main(["-v"])
    assert "Apache/2.4" in capsys.readouterr().out


@pytest.mark.parametrize(("mpm", "threaded", "forked"), [
    ("perchild", "yes (variable thread count)", "yes (fixed process count)"),
    ("worker", "yes (fixed thread count)", "yes (variable process count)"),
    ("prefork", "no", "yes (variable process count)"),
])
def test_settings_name_the_mpm_of_the_configuration(config: str, mpm: str, threaded: str, forked: str, capsys: pytest.CaptureFixture[str]) -> None:
    """-V: Server MPM, threaded, forked."""
    assert cli.main(["-V", "-f", config, "-C", f"MPM {mpm}"]) == 0
    out = capsys.readouterr().out
    assert f"Server MPM:     {mpm}\n  threaded:     {threaded}\n    forked:     {forked}\n" in out
