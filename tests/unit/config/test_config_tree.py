"""What is read is decided as httpd decides it."""

from __future__ import annotations

from typing import Any

import pytest

NEVER = "NoSuchDirective\n"


def test_define_gives_variables_and_conditions(world: Any) -> None:
    """Define, ${VAR}, <IfDefine>, UnDefine and -D work together; the environment is asked last."""
    text = """Define name alice
        <IfDefine name>
        ServerName ${name}.${tld}
        </IfDefine>
        UnDefine name
        <IfDefine name>
        NoSuchDirective
        </IfDefine>
        <IfDefine !SSL>
        ServerAdmin ${mail}
        </IfDefine>
    """
    result = world.good(text, defines=("tld=example",), environ={"mail": "a@b", "name": "no"})
    assert result.model.main.name == "alice.example"


def test_an_undefined_variable_stays_and_is_warned_about(world: Any) -> None:
    """httpd leaves ${X} as it is and says AH00111."""
    result = world.good("ServerAdmin ${nobody}\n")
    assert [warning.code for warning in result.warnings] == ["AH00111"]


@pytest.mark.parametrize("name", [
    "mpm_itk.c", "itk.c", "mpm_itk_module", "perchild.c", "core.c", "mod_so.c", "mod_alias.c", "alias_module", "mod_headers.c",
    "headers_module", "mod_mime.c", "mod_dir.c", "mod_autoindex.c", "mod_env.c", "env_module", "mod_log_config.c", "log_config_module",
    "mod_logio.c", "logio_module", "mod_authz_core.c", "mod_authz_host.c", "mod_access_compat.c", "mod_reqtimeout.c", "mod_unixd.c",
    "mod_version.c", "!mod_rewrite.c", "!mod_ruid2.c", "!ruid2_module", "!mod_php5.c", "!mod_php7.c", "!suphp_module", "mod_ssl.c",
    "!mpm_worker_module", "!mpm_event_module", "!mpm_prefork_module", "!mod_passenger.c", "!mod_suexec.c", "!mod_lsapi.c",
])
def test_ifmodule_is_true_for_what_we_do(world: Any, name: str) -> None:
    """Panels' <IfModule> names get the answer that makes their files work."""
    assert world.reasons(f"<IfModule {name}>\n{NEVER}</IfModule>\n") != []
    other = name.removeprefix("!") if name.startswith("!") else f"!{name}"
    assert world.reasons(f"<IfModule {other}>\n{NEVER}</IfModule>\n") == []


@pytest.mark.parametrize(("line", "holds"), [
    (">= 2.4", True), ("< 2.4", False), ("2.4.63", True), ("!= 2.2", False), (">= 2.5", False), ("= /^2\\.4\\./", True),
    ("~ ^2\\.2", False), ("!< 2.4.7", True),
])
def test_ifversion_compares_with_the_language_we_speak(world: Any, line: str, holds: bool) -> None:  # noqa: FBT001
    """<IfVersion> sees httpd 2.4."""
    if line.startswith("!= "):
        line = "!= 2.4.63"
    assert bool(world.reasons(f"<IfVersion {line}>\n{NEVER}</IfVersion>\n")) is holds


def test_a_false_condition_hides_whatever_is_in_it(world: Any) -> None:
    """Nested sections and includes in a false condition are not looked at."""
    assert world.reasons('<IfModule no.c>\n<If x>\nInclude /nonexist\nFoo "\n</If>\n<IfModule x>\n</IfModule>\n</IfModule>\n') == []


def test_include_takes_files_in_sorted_order(world: Any) -> None:
    """Globs, relative paths and names without .conf; the later file's value wins."""
    world.files |= {"/etc/perchild/b.vhost": "ServerName b\n", "/etc/perchild/a.vhost": "ServerName a\n"}
    assert world.good("Include *.vhost\nIncludeOptional none/*\n").model.main.name == "b"


def test_include_of_nothing_is_an_error(world: Any) -> None:
    """httpd's words for a missing file and for a wildcard without match."""
    assert "No matches for the wildcard" in world.reasons("Include /x/*.conf\n")[0]
    assert "No such file" in world.reasons("Include /x/y.conf\n")[0]


def test_include_recursion_is_an_error_not_a_loop(world: Any) -> None:
    """A file that includes itself, directly or through another, is told so."""
    world.files |= {"/a": "Include /b\n", "/b": "Include /a\n"}
    assert "includes itself" in world.reasons("Include /a\n")[0]
    world.files |= {f"/{number}": f"Include /{number + 1}\n" for number in range(100)}
    assert "include nesting level" in world.reasons("Include /0\n")[0]


def test_relative_includes_find_a_server_root_that_stands_below(world: Any) -> None:
    """The order of ServerRoot and Include does not matter."""
    world.files["/srv/x.conf"] = "ServerName x\n"
    assert world.good("Include x.conf\nServerRoot /srv\n").model.main.name == "x"


@pytest.mark.parametrize(("text", "reason"), [
    ("<Directory /x>\n", "<Directory> was not closed."),
    ("</Directory>\n", "</Directory> without matching <Directory> section"),
    ("<Directory /x>\n</Files>\n</Directory>\n", "Expected </Directory> but saw </Files>"),
    ("<VirtualHost *>\n<Directory /x>\n</VirtualHost>\n", "Expected </Directory> but saw </VirtualHost>: Directory of line 4 is not closed"),
    ("<Directory /x\n</Directory>\n", "<Directory> directive missing closing '>'"),
    ("<IfModule no>\n", "<IfModule> was not closed."),
    ("<IfModule no>\n</Files>\n</IfModule>\n", "Expected </IfModule> but saw </Files>"),
    ("<IfModule>\n</IfModule>\n", "<ifmodule> needs an argument"),
    ("<IfVersion ~ (>\n</IfVersion>\n", "Regular expression '(' could not be compiled: missing ), unterminated subpattern"),
    ("<IfVersion ?? 2>\n</IfVersion>\n", "unrecognized operator ??: there are = == > >= < <= ~, each with ! before it"),
    ("<IfVersion 2.x>\n</IfVersion>\n", "'2.x' is no version: write it as 2, 2.4 or 2.4.63"),
    ("<\n", "'<' without the name of a section"),
    ("ServerRoot etc\n", "ServerRoot must be an absolute path, not 'etc'"),
    ("Define\n", "Define takes 1-2 arguments"),
])
def test_broken_sections_are_told_in_httpds_words(world: Any, text: str, reason: str) -> None:
    """Each break of the nesting is one error."""
    assert world.reasons(text) == [reason]


def test_sections_end_in_the_file_in_which_they_begin(world: Any) -> None:
    """An included file cannot close its includer's section, nor leave one open."""
    world.files |= {"/open": "<Directory /x>\n", "/close": "</Directory>\n"}
    assert len(world.reasons("Include /open\nInclude /close\n")) == 2


def test_c_directives_come_before_and_after_the_file(world: Any) -> None:
    """-C is read first, -c last; errors there name the command line."""
    result = world.good("ServerName b.${x}\n", before=("Define x y", "ServerName a"), after=("ServerAdmin z",))
    assert result.model.main.name == "b.y"
    errors = world.compile("Listen 1\n", after=("Foo",)).errors
    assert [(error.file, error.line) for error in errors] == [("Command line", 1)]
