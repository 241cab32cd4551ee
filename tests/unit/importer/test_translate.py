"""What becomes of httpd's lines: identities, PHP, rewriting, access; nothing that kept somebody out is lost without a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from perchild.config.compile import compile_nodes
from perchild.config.load import Files, make_env
from perchild.config.messages import Diagnostic
from perchild.config.model import Options
from perchild.config.tree import Node, Tree
from perchild.importer import rules
from perchild.importer.source import SourceError, find_main, read_environment, read_source
from perchild.importer.translate import MISSING, UNDERSTOOD, WITHOUT_EFFECT, Translation, translate
from perchild.importer.write import group_sites, render

ROOT = "<Directory /srv/a>\nRequire all granted\n</Directory>\n"


def check(nodes: list[Node]) -> list[Diagnostic]:
    env = make_env(Options())
    return compile_nodes(Options(), env, Files(-1), {}, Tree(nodes, server_root="/etc/apache2"), "perchild").errors


def bring(tmp_path: Path, text: str, more: Mapping[str, str] | None = None) -> Translation:
    """Translate a configuration."""
    for name, content in {"httpd.conf": text, **(more or {})}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    source = read_source(str(tmp_path))
    return translate(source.tree.nodes, "/etc/apache2", check)


def host(tmp_path: Path, inside: str, before: str = "") -> tuple[str, Translation]:
    """Return the text of a single host's result."""
    result = bring(tmp_path, f"{before}Listen 127.0.0.1:80\n<VirtualHost *:80>\nServerName a.test\n{inside}</VirtualHost>\n")
    assert result.errors == []
    return "\n".join(render([result.hosts[0].out], 0, result.hosts[0].source.file)), result


def state(result: Translation, text: str) -> str:
    return next(one.state for one in result.findings.values() if one.text == text)


@pytest.mark.parametrize(("lines", "expected"), [
    ("AssignUserID #1001 #1002\n", "#1001 #1002"),
    ("RUidGid #1001 #1002\n", "#1001 #1002"),
    ('SuexecUserGroup "#1001" "#1002"\n', "#1001 #1002"),
    ("suPHP_UserGroup #1001 #1002\n", "#1001 #1002"),
    ("SuexecUserGroup #5 #5\nAssignUserID #1001 #1002\nRUidGid #6 #6\n", "#1001 #1002"),
    ("ServerEnvironment #1001 #1002 /jail\n", "#1001 #1002"),
    ("ServerEnvironment web\n", "#1001 #1002"),
    ("<IfModule mpm_itk.c>\nAssignUserID #1001 #1002\n</IfModule>\n", "#1001 #1002"),
])
def test_identity_of_each_kind(tmp_path: Path, lines: str, expected: str) -> None:
    """One AssignUserID, of the strongest word."""
    before = "<Processor web>\nUser #1001\nGroup #1002\nMaxProcessors 5\n</Processor>\n"
    text, result = host(tmp_path, lines, before)
    assert text.count("AssignUserID") == 1
    assert f"    AssignUserID {expected}\n" in text
    assert result.hosts[0].user == expected.partition(" ")[0]


def test_identity_of_the_server_is_that_of_hosts_without(tmp_path: Path) -> None:
    """mpm-itk inherits it."""
    text, _ = host(tmp_path, "", "AssignUserID #1001 #1002\n")
    assert "AssignUserID #1001 #1002" in text


def test_identity_that_depends_on_the_request_is_not_enabled(tmp_path: Path) -> None:
    """Served as www-data it would be something else."""
    _, result = host(tmp_path, "AssignUserIDExpr %{reqenv:USER}\n")
    assert "depends on the request" in result.hosts[0].reason


def test_identity_in_a_directory_is_missing(tmp_path: Path) -> None:
    """And said so."""
    text, result = host(tmp_path, "<Directory /srv/a>\nAssignUserID #1001 #1001\n</Directory>\n")
    assert state(result, "AssignUserID #1001 #1001") == MISSING
    assert "# missing: AssignUserID" in text


def test_modules_that_are_not_loaded_are_not_there(tmp_path: Path) -> None:
    """As httpd answers <IfModule>, in the order of its lines; without any LoadModule all are there."""
    inside = "<IfModule mod_ruid2.c>\nRUidGid #1 #1\n</IfModule>\n<IfModule !mod_ruid2.c>\nAssignUserID #1001 #1001\n</IfModule>\n"
    text, _ = host(tmp_path, inside, "LoadModule mpm_itk_module x.so\n")
    assert "AssignUserID #1001 #1001" in text


@pytest.mark.parametrize(("lines", "expected"), [
    ("RewriteRule ^/\\.git - [F]\n", 'RedirectMatch 403 "^/\\.git"'),
    ("RewriteRule \\.bak$ - [NC,F,L]\n", 'RedirectMatch 403 "(?i)\\.bak$"'),
    ("RewriteRule ^/gone - [G]\n", 'RedirectMatch 410 "^/gone"'),
    ("RewriteRule ^/a$ https://b.test/c [R=301,L]\n", 'RedirectMatch 301 "^/a$" https://b.test/c'),
    ("RewriteRule ^/a/(.*)$ /b/$1 [R]\n", 'RedirectMatch 302 "^/a/(.*)$" /b/$1'),
    ("RewriteCond %{HTTPS} off\nRewriteRule (.*) https://%{HTTP_HOST}%{REQUEST_URI} [R=301,L]\n", 'RedirectMatch 301 "^/(.*)$" https://a.test/$1'),
    ("RewriteCond %{REQUEST_URI} !^/\\.well-known/acme-challenge/\nRewriteCond %{HTTPS} off\nRewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [R=permanent]\n",
     'RedirectMatch 301 "^/(?!\\.well-known/acme-challenge/)(.*)$" https://a.test/$1'),
])
def test_rule_that_is_a_redirect_is_one(tmp_path: Path, lines: str, expected: str) -> None:
    """In other words, and noted as understood."""
    text, result = host(tmp_path, f"RewriteEngine On\n{lines}")
    assert f"    {expected}\n" in text + "\n"
    assert all(one.state != MISSING for one in result.findings.values())


@pytest.mark.parametrize("lines", [
    "RewriteRule ^/(.*)$ /index.php [L]\n", "RewriteCond %{HTTP_USER_AGENT} bot\nRewriteRule .* - [F]\n",
    "RewriteRule !^/x - [F]\n", "RewriteRule ^/a$ http://b.test/ [P]\n", "RewriteRule ^/a$ /b [R,C]\n",
    "RewriteCond %{HTTP_HOST} ^www\nRewriteRule (.*) https://%{HTTP_HOST}%{REQUEST_URI} [R]\n",
    "<Directory /srv/a>\nRewriteRule ^x$ - [F]\n</Directory>\n",
])
def test_rule_that_is_more_is_missing(tmp_path: Path, lines: str) -> None:
    """Nothing half right is written; one that refused is among what is weaker."""
    text, result = host(tmp_path, lines)
    assert "RedirectMatch" not in text
    rule = next(one for one in result.findings.values() if one.text.startswith("RewriteRule"))
    assert rule.state == MISSING
    assert rule.is_weaker == ("[F]" in rule.text)


@pytest.mark.parametrize(("inside", "expected"), [
    ("AuthType Basic\nAuthName x\nAuthUserFile /x\nRequire expr %{TIME_HOUR} -gt 9\n", "Require all denied"),
    ("<RequireAll>\nRequire ip 10.0.0.0/8\n<RequireNone>\nRequire expr true\n</RequireNone>\n</RequireAll>\n", "Require all granted"),
    ("<RequireNone>\nRequire expr true\n</RequireNone>\n", "Require all denied"),
    ("<Limit GET POST>\nDeny from all\n</Limit>\n", "Require all denied"),
    ("SSLRequire %{SSL_CIPHER} !~ m/^EXP/\n", "Require all denied"),
])
def test_place_whose_guard_is_missing_is_closed(tmp_path: Path, inside: str, expected: str) -> None:
    """Nobody comes in until somebody has looked."""
    text, result = host(tmp_path, f"<Directory /srv/a>\n{inside}</Directory>\n")
    assert expected in text
    assert any(one.state == MISSING for one in result.findings.values())


@pytest.mark.parametrize("inside", [
    "SSLRequire %{SSL_CIPHER} !~ m/^EXP/\nRequire all granted\n", "<Limit PUT>\nRequire valid-user\n</Limit>\nRequire all granted\n",
    "Satisfy Any\nSSLRequire true\nAllow from all\n", "<Limit GET POST>\nOrder allow,deny\nAllow from 10.0.0.0/8\n</Limit>\n",
])
def test_nothing_beside_it_opens_a_place_that_is_closed(tmp_path: Path, inside: str) -> None:
    """One Require among others is enough to come in."""
    text, _ = host(tmp_path, f"<Directory /srv/a>\n{inside}</Directory>\n")
    lines = [line.strip() for line in text.splitlines()]
    assert "Require all denied" in lines
    assert not {"Require all granted", "Satisfy Any"} & set(lines)


@pytest.mark.parametrize("inside", [
    "<LimitExcept GET>\nRequire all denied\n</LimitExcept>\n", '<If "%{REQUEST_URI} == \'/x\'">\nRequire all denied\n</If>\n',
])
def test_guard_that_cannot_be_closed_is_said_to_be_weaker(tmp_path: Path, inside: str) -> None:
    """Closing the whole place would be something else."""
    text, result = host(tmp_path, f"<Directory /srv/a>\nRequire all granted\n{inside}</Directory>\n")
    assert "    Require all denied" not in text.replace("# missing: Require all denied", "")
    assert any(one.is_weaker for one in result.findings.values())


def test_limit_that_lets_in_is_nothing(tmp_path: Path) -> None:
    """The usual three lines of old configurations."""
    _, result = host(tmp_path, f"{ROOT}<Directory /srv/b>\n<Limit GET>\nOrder allow,deny\nAllow from all\n</Limit>\n</Directory>\n")
    assert {one.state for one in result.findings.values()} == {UNDERSTOOD, WITHOUT_EFFECT}


@pytest.mark.parametrize("line", [
    "SetHandler application/x-httpd-php", "AddHandler php5-script .php", "AddType application/x-httpd-php .php .phtml",
    "AddHandler application/x-httpd-php82 .php", "AddHandler application/x-httpd-ea-php83___lsphp .php",
])
def test_mod_php_becomes_a_pool(tmp_path: Path, line: str) -> None:
    """In the host that has it; once for the server if it stands there."""
    text, _ = host(tmp_path, f"{line}\n")
    assert text.count("PHPPool on") == 1
    assert "x-httpd-php" not in text
    result = bring(tmp_path, f'Listen 127.0.0.1:80\n<FilesMatch "\\.php$">\n{line}\n</FilesMatch>\n<VirtualHost *:80>\nServerName a.test\n</VirtualHost>\n')
    assert [out.node.name for out in result.server if out.node].count("phppool") == 1


def test_php_that_is_turned_off_is_refused(tmp_path: Path) -> None:
    """php-fpm with engine off would send the source."""
    text, _ = host(tmp_path, "<Directory /srv/a/uploads>\nphp_admin_flag engine Off\n</Directory>\n")
    assert "engine" not in text
    assert '<FilesMatch "\\.(php[0-9]?|phtml|phar)$">\n            Require all denied' in text


def test_relative_paths_are_the_sources(tmp_path: Path) -> None:
    """ServerRoot of httpd is not ours."""
    text, _ = host(tmp_path, "DocumentRoot htdocs\nErrorLog logs/error_log\nAlias /x 'my files'\n")
    assert "DocumentRoot /etc/apache2/htdocs" in text
    assert "ErrorLog /etc/apache2/logs/error_log" in text
    assert 'Alias /x "/etc/apache2/my files"' in text


def test_sites_are_neighbours_of_one_name(tmp_path: Path) -> None:
    """Two ports of a name are one site, and the order of hosts stays."""
    blocks = "".join(f"<VirtualHost *:{port}>\nServerName {name}\n</VirtualHost>\n" for name, port in (
        ("a.test", 80), ("a.test", 81), ("b.test", 80), ("a.test", 82), ("", 83)))
    result = bring(tmp_path, "".join(f"Listen 127.0.0.1:{port}\n" for port in range(80, 84)) + blocks.replace("ServerName \n", ""))
    assert [site.file for site in group_sites(result.hosts)] == ["000-a.test.conf", "001-b.test.conf", "002-a.test.conf", "003-default.conf"]


def test_listeners_are_those_of_hosts_where_none_are_said(tmp_path: Path) -> None:
    """A panel's single file has no Listen."""
    result = bring(tmp_path, "<VirtualHost 127.0.0.1:8081>\nServerName a.test\n</VirtualHost>\n<VirtualHost *>\nServerName b.test\n</VirtualHost>\n")
    assert [out.node.rest for out in result.server if out.node and out.node.name == "listen"] == ["8081", "80"]


def test_variables_come_from_envvars_without_running_it(tmp_path: Path) -> None:
    """Debian's file, read by its lines."""
    (tmp_path / "envvars").write_text("unset HOME\nSUFFIX=-x\nexport A_DIR=/var/log/x$SUFFIX\nexport B=$(touch /tmp/never)\nexport LANG=C\n")
    found = read_environment(str(tmp_path))
    assert found["A_DIR"] == "/var/log/x"
    assert found["LANG"] == "C"
    assert not Path("/tmp/never").exists()


def test_main_file_is_found_by_its_usual_names(tmp_path: Path) -> None:
    """A file, Debian's, cPanel's; else it is said what was looked for."""
    with pytest.raises(SourceError, match=r"apache2\.conf, httpd\.conf"):
        find_main(str(tmp_path))
    for name in ("conf/httpd.conf", "apache2.conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        assert find_main(str(tmp_path)) == str(tmp_path / name)
    assert find_main(str(tmp_path / "conf/httpd.conf")) == str(tmp_path / "conf/httpd.conf")


def test_tables_do_not_contradict_each_other() -> None:
    """A line is without effect or missing, never both; what closes is no guard that is only told."""
    assert not set(rules.WITHOUT_EFFECT) & set(rules.MISSING)
    assert not rules.CLOSING & rules.GUARDS


def test_what_depended_on_files_owners_is_said(tmp_path: Path) -> None:
    """RMode stat served each file as its owner; without another line the host is served by User now."""
    _, result = host(tmp_path, "RMode stat\n")
    found = next(one for one in result.findings.values() if one.text == "RMode stat")
    assert (found.state, found.is_weaker) == (MISSING, True)
    _, result = host(tmp_path, "RMode config\nRUidGid #1001 #1002\nRGroups mail\n")
    assert (state(result, "RMode config"), state(result, "RGroups mail")) == (WITHOUT_EFFECT, MISSING)


def test_lost_chroot_is_said(tmp_path: Path) -> None:
    """The user of ServerEnvironment is kept, its jail is not."""
    _, result = host(tmp_path, "ServerEnvironment #1001 #1002 /jail\n")
    found = next(one for one in result.findings.values() if one.text.startswith("ServerEnvironment"))
    assert (found.state, found.is_weaker) == (MISSING, True)
    assert "no chroot" in found.note
    assert state(host(tmp_path, "ServerEnvironment #1001 #1002\n")[1], "ServerEnvironment #1001 #1002") == UNDERSTOOD
