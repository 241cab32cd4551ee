"""Commands of services: php-fpm is found and configured, values are quoted so that they mean themselves, words are replaced."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perchild.runner import commands
from perchild.wire.runner import APP, FCGID, PHP, WSGI, RunnerFile, Service

FACTS = RunnerFile(user="alice", uid=1, gid=1, home="/home/alice")


def directory(tmp_path: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (tmp_path / name).touch()
    return (str(tmp_path), "/no/such/directory")


def test_the_newest_php_is_found_by_number_not_by_letter(tmp_path: Path) -> None:
    places = directory(tmp_path, "php-fpm8.2", "php-fpm8.10", "php-fpm7.4", "php-fpm", "php-fpm9.x")
    assert commands.find_php("", places).endswith("php-fpm8.10")
    assert commands.find_php("7.4", places).endswith("php-fpm7.4")


@pytest.mark.parametrize(("names", "version", "words"), [
    ((), "", r"php-fpm is not installed \(there is: none\): apt-get install php-fpm"),
    (("php-fpm8.2", "php-fpm7.4"), "8.3", r"php-fpm8.3 is not installed \(there is: 7.4, 8.2\): apt-get install php8.3-fpm"),
])
def test_a_php_that_is_missing_names_its_package(tmp_path: Path, names: tuple[str, ...], version: str, words: str) -> None:
    with pytest.raises(commands.CommandError, match=words):
        commands.find_php(version, directory(tmp_path, *names))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_quoted_value_has_one_meaning(value: str) -> None:
    """Either it is refused, or the quotes hold nothing that an ini file would read otherwise."""
    try:
        quoted = commands.quote_ini(value)
    except commands.CommandError:
        assert "'" in value
        return
    assert quoted[1:-1] == value
    assert quoted[0] not in quoted[1:-1]
    assert quoted[0] == "'" or not any(char in value for char in "$\\")


@pytest.mark.parametrize("value", ["a\nb = c", "a\0", "\r", "it's \"x\"", "it's $HOME", "it's \\"])
def test_values_that_no_quotes_can_hold_are_refused(value: str) -> None:
    with pytest.raises(commands.CommandError):
        commands.quote_ini(value)


def test_php_is_configured_for_its_tenant() -> None:
    service = Service("php0", PHP, "/run/t/php0.sock", 5, max_children=3, values=(("php_admin_value", "memory_limit", "1M; x"),))
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(commands.render_php(service, FACTS))
    pool = dict(parser["php0"])
    assert (pool["pm"], pool["pm.max_children"], pool["pm.process_idle_timeout"]) == ("ondemand", "3", "5s")
    assert pool["php_admin_value[memory_limit]"] == "'1M; x'"
    assert (pool["clear_env"], pool["env[HOME]"]) == ("yes", "'/home/alice'")
    assert ":" not in pool["listen"]  # php-fpm would take it for an address
    with pytest.raises(commands.CommandError):
        commands.render_php(Service("p", PHP, "", values=(("php_value", "a]\nb", "1"),)), FACTS)


def test_words_of_an_app_are_replaced() -> None:
    service = Service("a", APP, "/run/t/a.sock", command=("/bin/x", "--fd={fd}", "unix:{socket}"), cwd="/srv", env=(("A", "1"),))
    command = commands.make_command(service, FACTS)
    assert (command.path, command.arguments, command.binds_itself) == ("/bin/x", ("--fd=3", "unix:/run/t/a.sock"), True)
    assert command.touched == ("/srv/tmp/restart.txt",)
    assert set(command.environment) >= {"A=1", "HOME=/home/alice", "USER=alice"}
    assert commands.make_command(Service("a", APP, "", command=("./x",), cwd="/srv"), FACTS).path == "/srv/./x"
    with pytest.raises(commands.CommandError, match="no program no-such in"):
        commands.make_command(Service("a", APP, "", command=("no-such",)), FACTS)


def test_wsgi_needs_an_interpreter() -> None:
    with pytest.raises(commands.CommandError, match="python-home"):
        commands.make_command(Service("w", WSGI, "", file="/srv/a.wsgi", python_home="/no/such"), FACTS)
    command = commands.make_command(Service("w", WSGI, "", file="/srv/a.wsgi", mount="/m", python_path=("/x",)), FACTS)
    assert command.arguments == ("-", "/srv/a.wsgi", "/m", "/x")
    assert b"def main" in command.stdin


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(commands.CommandError, match="kind odd"):
        commands.make_command(Service("x", "odd", ""), FACTS)


def test_a_wrapper_starts_in_its_directory_with_its_own_variables() -> None:
    service = Service("fcgid0", FCGID, "/run/x.sock", command=("/home/alice/fcgi-bin/php.fcgi", "-x"),
                      env=(("PATH", "/opt/bin"), ("HOME", "/elsewhere"), ("A", "1")))
    command = commands.make_command(service, FACTS)
    assert (command.path, command.arguments, command.cwd) == ("/home/alice/fcgi-bin/php.fcgi", ("-x",), "/home/alice/fcgi-bin")
    assert (command.is_fastcgi, command.search_path, command.touched) == (True, "/opt/bin", (command.path,))
    assert command.environment == ("USER=alice", "LOGNAME=alice", "LANG=C.UTF-8", "HOME=/elsewhere", "A=1")
