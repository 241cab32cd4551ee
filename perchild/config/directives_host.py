"""The table, part two: what a virtual host is: names, root, identity, times, limits, logs, aliases.

Outside <VirtualHost> these describe the main server, whose values the hosts inherit.
Runs as: compile (pure).  Source: httpd's core, mod_log_config, mod_alias, mod_reqtimeout.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from perchild import limits
from perchild.config.formats import compile_log_format
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import HOST, MANY, SERVER, Parse, Row, custom, one
from perchild.config.values import (
    FLAG,
    PATH,
    TEXT,
    Env,
    choice,
    number,
    parse_choice,
    parse_host_name,
    parse_number,
    parse_port,
    time_ms,
)

BOTH = SERVER | HOST
MAX_LINE_BYTES = limits.value("MAX_HEAD_BYTES")
MAX_FIELDS_HARD = limits.value("MAX_FIELDS_HARD")
MAX_TIME_MS = 86_400_000
SCRIPT_ALIAS = 2  # wire ALIAS_KIND from here on: CGI programs

LOG_LEVELS: dict[str, int] = {
    "emerg": 0, "alert": 1, "crit": 2, "error": 3, "warn": 4, "notice": 5, "info": 6, "debug": 7,
    **{f"trace{number}": 7 + number for number in range(1, 9)},
}
_SERVER_NAME = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+)(?::(?P<port>\d+))?/?\Z", re.IGNORECASE)


class Log(NamedTuple):
    """A CustomLog or TransferLog: path, format or nickname (None: TransferLog's), condition of wire LOG_ENV."""

    path: str
    format: str | None
    condition: str


class ReadTimeout(NamedTuple):
    """Head or body of RequestReadTimeout: first and longest time in ms (0 = none), bytes/s (0 = not checked)."""

    initial_ms: int
    maximum_ms: int
    rate: int


def _parse_server_name(words: list[str], _env: Env) -> tuple[str, int]:
    match = _SERVER_NAME.match(words[0])
    if match is None:
        message = f"Invalid ServerName '{words[0]}': [scheme://]name[:port] expected"
        raise BadDirectiveError(message, 0)
    host = match["host"]
    name = host.lower() if host.startswith("[") else parse_host_name(host, 0)
    return name, parse_port(match["port"]) if match["port"] else 0


def _parse_server_alias(words: list[str], _env: Env) -> list[str]:
    return [parse_host_name(word, index, may_be_wild=True) for index, word in enumerate(words)]


def _check_log_path(word: str, env: Env, name: str) -> str:
    if word.startswith("|"):
        message = (f"{name} to a program is not supported: write to a file and let the program follow it (tail -F), "
                   "or rotate the file with logrotate and perchildctl reopen")
        raise BadDirectiveError(message, 0)
    if word.lower().startswith("syslog"):
        message = f"{name} to syslog is not supported: write to a file; systemd's journal or a syslog daemon can read it from there"
        raise BadDirectiveError(message, 0)
    return env.path(word)


def _parse_custom_log(words: list[str], env: Env) -> Log:
    condition = ""
    if len(words) > 2:  # noqa: PLR2004
        if not words[2].lower().startswith("env=") or len(words[2]) <= len("env=!"):
            message = f"'{words[2]}' is no condition: env=NAME or env=!NAME expected"
            raise BadDirectiveError(message, 2)
        condition = words[2][4:]
    path = _check_log_path(words[0], env, "CustomLog")
    if "%" in words[1]:
        _check_format(words[1], 1)
    return Log(path, words[1], condition)


def _check_format(text: str, word: int) -> None:
    try:
        compile_log_format(text)
    except BadDirectiveError as error:
        raise BadDirectiveError(error.reason, word) from None


def _parse_transfer_log(words: list[str], env: Env) -> Log:
    return Log(_check_log_path(words[0], env, "TransferLog"), None, "")


def _parse_log_format(words: list[str], _env: Env) -> dict[str | None, str]:
    _check_format(words[0], 0)
    if len(words) > 1 and "%" in words[1]:
        message = f"'{words[1]}' is no nickname: it may not contain %"
        raise BadDirectiveError(message, 1)
    return {words[1] if len(words) > 1 else None: words[0]}


def _parse_error_log(words: list[str], env: Env) -> str:
    return _check_log_path(words[0], env, "ErrorLog")


def _parse_log_level(words: list[str], env: Env) -> int:
    level = LOG_LEVELS["warn"]
    for index, word in enumerate(words):
        module, colon, name = word.rpartition(":")
        value = int(parse_choice(name, index, LOG_LEVELS))
        if colon:
            env.warn(f"LogLevel of a single module ({module}) has no effect: there is one level for all", index)
        else:
            level = value
    return level


def _parse_max_requests(words: list[str], _env: Env) -> int:
    return parse_number(words[0], 0, 0, 0x7FFFFFFF)


_TIMEOUT = re.compile(r"(?P<kind>header|body|handshake)=(?P<first>\d{1,5})(?:-(?P<most>\d{1,5}))?(?:,MinRate=(?P<rate>\d{1,9}))?\Z",
                      re.IGNORECASE)


def _parse_read_timeout(words: list[str], _env: Env) -> dict[str, ReadTimeout]:
    result: dict[str, ReadTimeout] = {}
    for index, word in enumerate(words):
        match = _TIMEOUT.match(word)
        if match is None:
            message = f"'{word}' is no RequestReadTimeout parameter: header|body=seconds[-seconds][,MinRate=bytes_per_second] expected"
            raise BadDirectiveError(message, index)
        first, most, rate = int(match["first"]), int(match["most"] or 0), int(match["rate"] or 0)
        if match["most"] and most <= first:
            message = f"Maximum timeout must be larger than initial timeout: '{word}'"
            raise BadDirectiveError(message, index)
        if max(first, most) * 1000 > MAX_TIME_MS:
            message = f"'{word}' is out of range: 0..{MAX_TIME_MS // 1000} seconds expected"
            raise BadDirectiveError(message, index)
        result[match["kind"].lower()] = ReadTimeout(first * 1000, most * 1000, rate)
    return result


def _parse_canonical(words: list[str], env: Env) -> None:
    value = parse_choice(words[0], 0, {"on": "on", "off": "off", "dns": "dns"})
    if value != "off":
        env.warn(f"UseCanonicalName {words[0]} has no effect: addresses are made from the request's Host, as with Off", 0)


def _parse_assign(words: list[str], _env: Env) -> tuple[str, ...]:
    return tuple(words)


def alias_parser(name: str, kind: int) -> Parse:
    """Return the parser of Alias or ScriptAlias; kind: wire ALIAS_KIND."""
    def parse(words: list[str], env: Env) -> tuple[int, str, str]:
        if not words[0].startswith("/"):
            message = f"{name} needs a URL path that begins with '/', not '{words[0]}'"
            raise BadDirectiveError(message, 0)
        path = env.path(words[1], 1)
        if words[1].endswith("/") and words[0].endswith("/") and path != "/":
            path += "/"
        return kind, words[0], path

    return parse


def alias_match_parser(name: str, kind: int) -> Parse:
    """Return the parser of AliasMatch or ScriptAliasMatch; kind: wire ALIAS_KIND."""
    def parse(words: list[str], env: Env) -> tuple[int, str, str]:
        if words[1].startswith("$"):
            message = f"{name} needs a path that begins with a directory, not with what the client sent: '{words[1]}'"
            raise BadDirectiveError(message, 1)
        return kind, env.pattern(words[0]), words[1] if words[1].startswith("/") else f"{env.server_root}/{words[1]}"

    return parse


_LINE = number(1, MAX_LINE_BYTES, "bytes", "bytes")

ROWS: tuple[Row, ...] = (
    custom("ServerName", BOTH, "[scheme://]name[:port]", (1, 1), _parse_server_name, "host", "name",
           "Name of the host; requests are routed by it"),
    custom("ServerAlias", HOST, "name ...", (1, MANY), _parse_server_alias, "host", "aliases",
           "Other names of the host; * and ? stand for any characters, any character", store="extend"),
    one("ServerAdmin", BOTH, TEXT, "host", "admin", "Address or URL shown on error pages"),
    one("DocumentRoot", BOTH, PATH, "host", "document_root", "Directory the host is served from", default="htdocs below ServerRoot",
        is_located=True),
    custom("AssignUserID", HOST, "user group", (2, 2), _parse_assign, "host", "assign",
           "The host is served by processes of this user and group, as names or #n; never root", is_located=True),
    one("KeepAliveScope", BOTH, choice({"any": 0, "identity": 1}), "host", "keep_alive_scope",
        "Whether a kept connection may go on to a host of another identity (any), or gets 421 and ends (identity)", default="any"),
    one("Timeout", BOTH, time_ms(1, MAX_TIME_MS), "host", "timeout_ms", "How long to wait for a client that sends or takes nothing",
        default="60"),
    one("KeepAlive", BOTH, FLAG, "host", "keep_alive", "Whether a connection may carry more than one request", default="On"),
    one("KeepAliveTimeout", BOTH, time_ms(0, MAX_TIME_MS), "host", "keep_alive_timeout_ms", "How long to wait for the next request",
        default="5"),
    custom("MaxKeepAliveRequests", BOTH, "number", (1, 1), _parse_max_requests, "host", "max_keep_alive_requests",
           "Requests on one connection; 0 = any number", default="100", range="0..2147483647"),
    custom("RequestReadTimeout", BOTH, "header|body=seconds[-seconds][,MinRate=rate] ...", (1, 3), _parse_read_timeout, "host",
           "read_timeouts", "How long head and body of a request may take to arrive", store="update", unit="seconds, bytes/s",
           default="header=20-40,MinRate=500 body=20,MinRate=500"),
    one("LimitRequestLine", BOTH, _LINE, "host", "limit_line_bytes", "Longest request line", default="8190"),
    one("LimitRequestFieldSize", BOTH, _LINE, "host", "limit_field_bytes", "Longest header field", default="8190"),
    one("LimitRequestFields", BOTH, number(0, MAX_FIELDS_HARD), "host", "limit_fields",
        f"Most header fields; 0 = as many as there can be ({MAX_FIELDS_HARD})", default="100"),
    custom("CustomLog", BOTH, "file format|nickname [env=[!]variable]", (2, 3), _parse_custom_log, "host", "logs",
           "Access log; may be repeated; a host with one of its own does not use the main server's", store="append", is_located=True),
    custom("TransferLog", BOTH, "file", (1, 1), _parse_transfer_log, "host", "logs",
           "Access log in the format of the LogFormat without nickname", store="append", is_located=True),
    custom("LogFormat", BOTH, "format [nickname]", (1, 2), _parse_log_format, "host", "log_formats",
           "A format for CustomLog (with nickname) or TransferLog (without)", store="update",
           default="common, combined, vhost_combined, referer and agent are known"),
    custom("ErrorLog", BOTH, "file", (1, 1), _parse_error_log, "host", "error_log", "Error log", default="logs/error_log below ServerRoot"),
    custom("LogLevel", BOTH, "[module:]level ...", (1, MANY), _parse_log_level, "host", "log_level",
           "Least severity that is logged: emerg, alert, crit, error, warn, notice, info, debug, trace1..trace8", default="warn"),
    custom("UseCanonicalName", BOTH, "Off", (1, 1), _parse_canonical, "host", "", "Off is what we do; On and DNS are warned about",
           store="ignore", default="Off"),
    custom("Alias", BOTH, "URL-path path", (2, 2), alias_parser("Alias", 0), "host", "url_aliases", "Serve URLs that begin so from another place",
           store="append"),
    custom("AliasMatch", BOTH, "regex path", (2, 2), alias_match_parser("AliasMatch", 1), "host", "url_aliases",
           "Serve URLs that match from another place; $0..$9 stand for what matched", store="append"),
)

DEFAULTS: dict[str, Any] = {
    "name": ("", 0), "admin": "", "keep_alive_scope": 0, "timeout_ms": 60_000, "keep_alive": True, "keep_alive_timeout_ms": 5_000,
    "max_keep_alive_requests": 100,
    "read_timeouts": {"header": ReadTimeout(20_000, 40_000, 500), "body": ReadTimeout(20_000, 0, 500)},
    "limit_line_bytes": 8190, "limit_field_bytes": 8190, "limit_fields": 100, "log_level": LOG_LEVELS["warn"], "logs": (),
    "log_formats": {}, "url_aliases": (),
}
