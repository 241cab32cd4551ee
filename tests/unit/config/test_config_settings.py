"""Settings become the items that wire/record.py describes."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from perchild.config.formats import NICKNAMES, compile_log_format
from perchild.wire.record import ACCESS_KINDS, FORMAT_OPS

OPS = {number: name for name, number in FORMAT_OPS.items()}
KINDS = {number: name for name, number in ACCESS_KINDS.items()}


def operations(raw: bytes) -> list[tuple[str, int, bytes]]:
    """Return FORMAT operations as (name, flags, argument)."""
    out, at = [], 0
    while at < len(raw):
        op, flags, length = struct.unpack_from("<BBH", raw, at)
        out.append((OPS[op], flags, raw[at + 4 : at + 4 + length]))
        at += 4 + length
    return out


def nodes(raw: bytes) -> list[Any]:
    """Return ACCESS nodes: (kind, negated, payload or nodes)."""
    out, at = [], 0
    while at < len(raw):
        kind, negated, length = struct.unpack_from("<BBH", raw, at)
        payload = raw[at + 4 : at + 4 + length]
        name = KINDS[kind]
        out.append((("not " if negated else "") + name, nodes(payload) if name in {"all", "any", "none"} else payload))
        at += 4 + length
    return out


def section(world: Any, lines: str) -> list[tuple[str, Any]]:
    """Return the settings of a Directory with `lines`."""
    host = world.host(f"<VirtualHost *>\n<Directory /x>\n{lines}\n</Directory>\n</VirtualHost>\n")
    settings: list[tuple[str, Any]] = dict(host["SECTION"][0])["SECTION_SETTINGS"]
    return settings


@pytest.mark.parametrize(("lines", "item"), [
    ("Options All", ("OPTIONS", (1, 23, 0))),
    ("Options None", ("OPTIONS", (1, 0, 0))),
    ("Options Indexes FollowSymLinks", ("OPTIONS", (1, 5, 0))),
    ("Options +Includes -Indexes +ExecCGI", ("OPTIONS", (0, 18, 1))),
    ("Options +MultiViews -FollowSymLinks +SymLinksIfOwnerMatch", ("OPTIONS", (0, 40, 4))),
    ("Options -ExecCGI -Includes", ("OPTIONS", (0, 0, 18))),
    ("Options +FollowSymlinks\nOptions -followsymlinks", ("OPTIONS", (0, 0, 4))),
    ("Options Indexes\nOptions +ExecCGI", ("OPTIONS", (1, 17, 0))),
    ("AllowOverride All", ("ALLOW_OVERRIDE", 31)),
    ("AllowOverride None", ("ALLOW_OVERRIDE", 0)),
    ("AllowOverride AuthConfig FileInfo Limit Options Indexes Options=All,MultiViews", ("ALLOW_OVERRIDE", 31)),
    ("AllowOverride AuthConfig Indexes Limit Options=Indexes,MultiViews \\\n Fileinfo=RewriteEngine,RewriteOptions Nonfatal=Override",
     ("ALLOW_OVERRIDE", 31)),
    ("AllowOverride Limit", ("ALLOW_OVERRIDE", 8)),
    ("DirectoryIndex a b\nDirectoryIndex c", ("DIRECTORY_INDEX", ("a", "b", "c"))),
    ("DirectoryIndex disabled", ("DIRECTORY_INDEX", ())),
    ("ForceType None", ("FORCE_TYPE", "")),
    ("DefaultType text/plain", ("DEFAULT_TYPE", "text/plain")),
    ("AddDefaultCharset On", ("DEFAULT_CHARSET", "iso-8859-1")),
    ("AddDefaultCharset utf-8", ("DEFAULT_CHARSET", "utf-8")),
    ("AddEncoding x-gzip .tgz", ("ADD_ENCODING", ("tgz", "x-gzip"))),
    ("AddCharset UTF-8 .HTML", ("ADD_CHARSET", ("html", "UTF-8"))),
    ("SetHandler Drupal_Security_Do_Not_Remove_See_SA_2006_006", ("HANDLER", "Drupal_Security_Do_Not_Remove_See_SA_2006_006")),
    ("SetHandler none", ("HANDLER", "")),
    ("SetEnv A", ("SET_ENV", ("A", ""))),
    ('SetEnv A "b c"', ("SET_ENV", ("A", "b c"))),
    ("SetEnv A b\nUnsetEnv A", ("UNSET_ENV", "A")),
    ("FileETag None", ("FILE_ETAG", (1, 0, 0))),
    ("FileETag -INode", ("FILE_ETAG", (0, 0, 1))),
    ("AcceptPathInfo On", ("ACCEPT_PATH_INFO", 1)),
    ("LimitRequestBody 5000000000", ("LIMIT_BODY", 5_000_000_000)),
    ("ServerSignature EMail", ("SIGNATURE", 2)),
    ('ErrorDocument 404 "not \\"here\\""', ("ERROR_DOCUMENT", [("VALUE_U32S", (404, 0)), ("VALUE_STR", 'not "here"')])),
    ("ErrorDocument 404 /e.html", ("ERROR_DOCUMENT", [("VALUE_U32S", (404, 1)), ("VALUE_STR", "/e.html")])),
    ("ErrorDocument 500 https://x/", ("ERROR_DOCUMENT", [("VALUE_U32S", (500, 2)), ("VALUE_STR", "https://x/")])),
    ("ErrorDocument 500 default", ("ERROR_DOCUMENT", [("VALUE_U32S", (500, 3)), ("VALUE_STR", "")])),
    ("Redirect http://x/", ("REDIRECT", [("VALUE_U32S", (302, 2)), ("VALUE_STR", ""), ("VALUE_STR", "http://x/")])),
    ("Redirect 410", ("REDIRECT", [("VALUE_U32S", (410, 2)), ("VALUE_STR", "")])),
    ("RedirectMatch 301 ^/a(.*) /b$1", ("REDIRECT", [("VALUE_U32S", (301, 1)), ("VALUE_STR", "^/a(.*)"), ("VALUE_STR", "/b$1")])),
    ("RedirectMatch 404 /\\.git", ("REDIRECT", [("VALUE_U32S", (404, 1)), ("VALUE_STR", "/\\.git")])),
    ("RedirectPermanent /a http://b", ("REDIRECT", [("VALUE_U32S", (301, 0)), ("VALUE_STR", "/a"), ("VALUE_STR", "http://b")])),
])
def test_a_line_becomes_its_item(world: Any, lines: str, item: tuple[str, Any]) -> None:
    """One setting, one item, in the shape of the record's table."""
    assert section(world, lines) == [item]


def test_env_from_the_environment_is_resolved_when_compiled(world: Any) -> None:
    """PassEnv becomes SET_ENV; a variable that is not there is warned about."""
    result = world.good("PassEnv HOME NOT\n", environ={"HOME": "/h"})
    base = dict(next(value for tag, value in world.record(result) if tag == "HOST"))["BASE"]
    assert [value for tag, value in base if tag == "SET_ENV"] == [("HOME", "/h")]
    assert [warning.reason for warning in result.warnings] == ["PassEnv variable NOT was undefined"]


def test_base_holds_the_built_in_settings(world: Any) -> None:
    """A configuration that says nothing has httpd's defaults, written out, and files for PHP are never text."""
    assert world.host("<VirtualHost *>\n</VirtualHost>\n")["BASE"] == [
        ("OPTIONS", (1, 4, 0)), ("DIRECTORY_INDEX", ("index.html",)), ("ADD_TYPE", ("php", "application/x-httpd-php")),
        ("ADD_TYPE", ("phtml", "application/x-httpd-php")), ("DEFAULT_CHARSET", ""), ("FILE_ETAG", (1, 6, 0)),
        ("ACCEPT_PATH_INFO", 2), ("LIMIT_BODY", 1073741824), ("SIGNATURE", 0), ("ALLOW_OVERRIDE", 0)]


@pytest.mark.parametrize(("line", "action", "rest"), [
    ("Header set X-A b", (0, 0, 0), {"HEADER_NAME": "X-A"}),
    ('Header always append Vary: "a b"', (1, 1, 0), {"HEADER_NAME": "Vary"}),
    ("Header onsuccess unset X", (4, 0, 0), {"HEADER_NAME": "X"}),
    ("Header setifempty X y env=!Z", (6, 0, 0), {"HEADER_ENV": "!Z"}),
    ("Header edit Set-Cookie ^(.*)$ $1;secure", (5, 0, 0), {"HEADER_PATTERN": "^(.*)$"}),
    ("Header edit* X a b", (5, 0, 1), {"HEADER_PATTERN": "a"}),
    ("Header merge X y env=Q", (3, 0, 0), {"HEADER_ENV": "Q"}),
    ("Header echo ^X-", (7, 0, 0), {"HEADER_NAME": "^X-"}),
    ("Header note X y", (8, 0, 0), {"HEADER_NAME": "X"}),
    ("header ADD X y", (2, 0, 0), {"HEADER_NAME": "X"}),
])
def test_header_takes_httpds_forms(world: Any, line: str, action: tuple[int, ...], rest: dict[str, str]) -> None:
    """Actions, conditions, patterns."""
    ((tag, items),) = section(world, line)
    assert tag == "HEADER"
    assert dict(items)["HEADER_ACTION"] == action
    assert {name: dict(items)[name] for name in rest} == rest


def test_header_values_know_their_few_formats(world: Any) -> None:
    """%%, %t, %D, %{X}e, %{X}s."""
    ((_, items),) = section(world, 'RequestHeader set X "a%%b %t %{HOME}e%{SSL_PROTOCOL}s"')
    assert operations(dict(items)["HEADER_VALUE"]) == [
        ("literal", 0, b"a%b t="), ("t", 0, b"usec"), ("literal", 0, b" "), ("e", 0, b"HOME"), ("x", 0, b"SSL_PROTOCOL")]


def ip(text: str, bits: int) -> bytes:
    """Return the payload of an ip leaf."""
    return struct.pack("<BB", 4, bits) + bytes(map(int, text.split(".")))


@pytest.mark.parametrize(("lines", "tree"), [
    ("Require all granted", [("any", [("granted", b"")])]),
    ("Require all denied", [("any", [("denied", b"")])]),
    ("Require ip 10 10/9 192.168.1. 172.16.0.0/12 1.2.3.4 10.1.0.0/255.255.0.0", [("any", [("any", [
        ("ip", ip("10.0.0.0", 8)), ("ip", ip("10.0.0.0", 9)), ("ip", ip("192.168.1.0", 24)), ("ip", ip("172.16.0.0", 12)), ("ip", ip("1.2.3.4", 32)),
        ("ip", ip("10.1.0.0", 16))])])]),
    ("Require ip ::1 fe80::/10", [("any", [("any", [("ip", b"\x06\x80" + bytes(15) + b"\1"), ("ip", b"\x06\x0a\xfe\x80" + bytes(14))])])]),
    ("Require host Example.org .x.net", [("any", [("any", [("host", b"example.org"), ("host", b".x.net")])])]),
    ("Require local\nRequire env A\nRequire method GET HEAD", [("any", [("local", b""), ("env", b"A"), ("method", b"GET HEAD")])]),
    ("<RequireAll>\nRequire all granted\nRequire not ip 1.2.3.4\nRequire not host a b\n</RequireAll>", [("any", [("all", [
        ("granted", b""), ("not ip", ip("1.2.3.4", 32)), ("not any", [("host", b"a"), ("host", b"b")])])])]),
    ("<RequireAny>\n<RequireAll>\nRequire local\n</RequireAll>\nRequire all denied\n</RequireAny>",
     [("any", [("any", [("all", [("local", b"")]), ("denied", b"")])])]),
    ("<RequireAll>\nRequire all granted\n<RequireNone>\nRequire ip 10\n</RequireNone>\n</RequireAll>",
     [("any", [("all", [("granted", b""), ("none", [("ip", ip("10.0.0.0", 8))])])])]),
])
def test_require_becomes_a_tree_of_one_container(world: Any, lines: str, tree: list[Any]) -> None:
    """Leaves, partial addresses, networks, negation, containers."""
    ((tag, raw),) = section(world, lines)
    assert tag == "REQUIRE"
    assert nodes(raw) == tree


@pytest.mark.parametrize(("lines", "order", "allow", "deny"), [
    ("Order deny,allow\nDeny from all\nAllow from 10.0.0.0/8 .x.net", 0, [("ip", ip("10.0.0.0", 8)), ("host", b".x.net")], [("granted", b"")]),
    ("Order Allow,Deny\nAllow from all", 1, [("granted", b"")], []),
    ("Order allow, deny\nallow from env=A env=!B", 1, [("env", b"A"), ("not env", b"B")], []),
    ("Order mutual-failure", 1, [], []),
    ("deny from all", 0, [], [("granted", b"")]),
])
def test_order_allow_deny_become_their_box(world: Any, lines: str, order: int, allow: list[Any], deny: list[Any]) -> None:
    """httpd 2.2's access control."""
    ((tag, items),) = section(world, lines)
    assert (tag, items[0]) == ("ORDER_ALLOW_DENY", ("ORDER", order))
    assert (nodes(items[1][1]), nodes(items[2][1])) == (allow, deny)


def test_an_access_list_beyond_the_wires_bound_is_an_error(world: Any) -> None:
    """The wire's length is 16 bits; more is refused, not cut."""
    addresses = " ".join(f"10.{number >> 8}.{number & 255}.1" for number in range(7000))
    assert "too much for one access list" in world.reasons(f"<Directory /x>\nRequire ip {addresses}\n</Directory>\n")[0]


@pytest.mark.parametrize(("text", "ops"), [
    ("a%%b", [("literal", 0, b"a%b")]),
    (r"a\tb\"\x", [("literal", 0, b'a\tb\\"\\x')]),
    ("%h %>s %<s", [("h", 0, b""), ("literal", 0, b" "), ("s", 2, b""), ("literal", 0, b" "), ("s", 1, b"")]),
    ("%{Referer}i%{c}a", [("i", 0, b"Referer"), ("a", 0, b"c")]),
    ("%400,501{User-agent}i", [("i", 4, b"\x02\x90\x01\xf5\x01User-agent")]),
    ("%!200,304,302{Referer}i", [("i", 12, b"\x03\xc8\x00\x30\x01\x2e\x01Referer")]),
    ("%{%F %T}t%{msec}t%t", [("t", 0, b"%F %T"), ("t", 0, b"msec"), ("t", 0, b"")]),
    ("%{local}p%{tid}P%{us}T%c%S", [("p", 0, b"local"), ("P", 0, b"tid"), ("T", 0, b"us"), ("X", 0, b""), ("S", 0, b"")]),
    ("%v %V %p %P %D %T %X %I %O %b %B %f %H %k %l %L %m %q %r %R %u %U %A %a %{a}C %{a}e %{a}n %{a}o %{a}x", None),
])
def test_log_formats_become_operations(text: str, ops: list[Any] | None) -> None:
    """The formats that panels use, byte by byte."""
    found = operations(compile_log_format(text.replace(r"\"", r"\"")))
    if ops is None:
        assert [name for name, _, _ in found if name != "literal"] == [word[-1] for word in text.split()]
    else:
        assert found == ops


def test_the_nicknames_of_httpd_are_known(world: Any) -> None:
    """common, combined, vhost_combined, referer and agent need no LogFormat; an own one goes before."""
    for name, text in NICKNAMES.items():
        log = dict(world.host(f"CustomLog logs/x {name}\n<VirtualHost *>\n</VirtualHost>\n")["LOG"][0])
        assert log["LOG_FORMAT"] == compile_log_format(text)
    own = dict(world.host('CustomLog logs/x common\nLogFormat "%h" common\n<VirtualHost *>\n</VirtualHost>\n')["LOG"][0])
    assert operations(own["LOG_FORMAT"]) == [("h", 0, b"")]


def test_a_nickname_that_nobody_defined_is_a_literal_and_warned_about(world: Any) -> None:
    """As in httpd, but not silently."""
    assert "is no LogFormat's nickname" in world.good("CustomLog logs/x nothing\n").warnings[0].reason


def test_transfer_log_takes_the_format_without_nickname(world: Any) -> None:
    """And the common one if there is none."""
    for text, wanted in (("", NICKNAMES["common"]), ('LogFormat "%a"\n', "%a")):
        log = dict(world.host(text + "TransferLog logs/x\n<VirtualHost *>\n</VirtualHost>\n")["LOG"][0])
        assert log["LOG_FORMAT"] == compile_log_format(wanted)


@pytest.mark.parametrize("line", [
    'LogFormat "%v:%p %h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" vhost_combined',
    'LogFormat "%v@@%p@@%a %l %u %t" plesk', 'LogFormat "%{LOGIN}e %T %{Host}i" alternc', 'LogFormat "%v:%{local}p" cpanel',
    'CustomLog logs/x "%{%s}t %I .\\n%{%s}t %O ."', 'CustomLog logs/x "%{%F}t %H %{SSL_PROTOCOL}x %{Host}i %I %O %{c}a %a"',
])
def test_panels_log_lines_are_taken(world: Any, line: str) -> None:
    """The exact forms that occur."""
    assert world.good(line + "\n").warnings == []
