"""Where requests are passed on to: URLs of back ends, their key=value parameters, and what <Proxy> says of them.

A target is kept as it is written: http://host[:port]/path, ws://..., fcgi://host[:port]/dir, or unix:/socket|http://host/path and
unix:/socket|fcgi://host/dir. Who connects is the identity's own child, under its uid: a socket of another tenant needs no check here,
the kernel refuses it.
Runs as: compile (pure).  Source: httpd's mod_proxy (workers, ProxySet), mod_proxy_fcgi.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from perchild.config.messages import BadDirectiveError
from perchild.config.values import Env, parse_number, parse_time_ms

MAX_TIME_MS = 86_400_000
SOCKET_BYTES = 107  # sun_path without its NUL: unix(7)
HANDLER_PREFIX = "proxy:"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:\[\]|?#]*)(?::(?P<port>[^/|]*))?(?P<path>/.*)?\Z",
                  re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_.-]+\Z")
_SCHEMES = frozenset(("http", "fcgi", "ws"))
_REFUSED = {
    "https": "a back end under https needs a TLS client, which this version does not have: speak http to one on this machine or network",
    "wss": "a back end under wss needs a TLS client, which this version does not have: speak ws to one on this machine or network",
    "balancer": "balancing over several back ends is not supported: name one back end",
    "h2": "HTTP/2 to a back end is not supported: speak http:// to it",
    "h2c": "HTTP/2 to a back end is not supported: speak http:// to it",
    "ajp": "AJP is not supported: let the back end listen for HTTP too and speak http:// to it",
    "scgi": "SCGI is not supported: speak http:// or fcgi:// to the back end",
    "uwsgi": "the uwsgi protocol is not supported: start uWSGI with --http-socket and speak http:// to it",
    "ftp": "FTP is not supported",
}
# Parameters of a worker that mean nothing here, and why nobody needs them.
_IDLE_PARAMETERS = frozenset((
    "acquire", "addressttl", "flushpackets", "flushwait", "failonstatus", "failontimeout", "forcerecovery",
    "hcexpr", "hcfails", "hcinterval", "hcmethod", "hcpasses", "hctemplate", "hcuri", "iobuffersize", "keepalive", "lbmethod", "lbset",
    "loadfactor", "maxattempts", "min", "nofailover", "nonce", "ping", "receivebuffersize", "redirect", "responsefieldsize",
    "route", "scolonpathdelim", "secret", "smax", "stickysession", "stickysessionsep", "status", "ttl", "growth", "mapping"))
_MOST, _MOST_MAX = 16, 1024  # connections to a FastCGI responder whose number of workers nobody has named
_BARE_WORDS = frozenset(("nocanon", "noquery", "interpolate"))


class Parameters(NamedTuple):
    """What key=value words say: ms, ms, s + 1 (0 = default), protocols to upgrade to ("" = not said), whether connections are not kept.

    is_reused, most: enablereuse=on and max: connections to a FastCGI responder are kept while there are no more of them (0 = default).
    """

    timeout_ms: int = 0
    connect_ms: int = 0
    retry_s_plus_1: int = 0
    upgrade: str = ""
    is_single_use: bool = False
    is_reused: bool = False
    most: int = 0

    def within(self, outer: Parameters) -> Parameters:
        """Return these, with those of `outer` (what <Proxy> says) where nothing is said here."""
        return Parameters(self.timeout_ms or outer.timeout_ms, self.connect_ms or outer.connect_ms,
                          self.retry_s_plus_1 or outer.retry_s_plus_1,
                          self.upgrade or outer.upgrade, self.is_single_use or outer.is_single_use,
                          self.is_reused or outer.is_reused, self.most or outer.most)

    @property
    def kept(self) -> int:
        """Return how many connections to a FastCGI responder there may be for them to be kept; 0 = none is."""
        return (self.most or _MOST) if self.is_reused and not self.is_single_use else 0


Setter = Callable[[Parameters, str, int], Parameters]  # so far, value, index among the arguments


class Worker(NamedTuple):
    """A <Proxy URL> or ProxySet URL: "unix:/path|" or "", and its parameters."""

    socket: str
    parameters: Parameters


def _connect_ms(now: Parameters, value: str, index: int) -> Parameters:
    return now._replace(connect_ms=parse_time_ms(value, index, 1, MAX_TIME_MS))


def _reuse_of(word: str) -> Setter:
    def set_it(now: Parameters, value: str, index: int) -> Parameters:
        if value.lower() not in {"on", "off"}:
            message = f"{word} must be On or Off, not '{value}'"
            raise BadDirectiveError(message, index)
        is_reused = (value.lower() == "on") == (word == "enablereuse")
        return now._replace(is_single_use=not is_reused, is_reused=is_reused)

    return set_it


_SETTERS: dict[str, Setter] = {
    "timeout": lambda now, value, index: now._replace(timeout_ms=parse_time_ms(value, index, 1, MAX_TIME_MS)),
    "connectiontimeout": _connect_ms,
    "connecttimeout": _connect_ms,
    "retry": lambda now, value, index: now._replace(retry_s_plus_1=parse_number(value, index, 0, MAX_TIME_MS // 1000) + 1),
    "upgrade": lambda now, value, _index: now._replace(upgrade=value),
    "disablereuse": _reuse_of("disablereuse"),
    "enablereuse": _reuse_of("enablereuse"),
    "max": lambda now, value, index: now._replace(most=parse_number(value, index, 1, _MOST_MAX)),
}


def _set_parameter(now: Parameters, key: str, value: str, index: int, env: Env) -> Parameters:
    if key in _SETTERS:
        return _SETTERS[key](now, value, index)
    if key not in _IDLE_PARAMETERS:
        message = f"unknown worker parameter '{key}': there are timeout, connectiontimeout, retry, upgrade, disablereuse, enablereuse, max"
        raise BadDirectiveError(message, index)
    env.warn(f"{key}={value} has no effect: each child keeps the connections to a back end that it needs", index)
    return now


def parse_parameters(words: Sequence[str], first: int, env: Env) -> Parameters:
    """Return what the words behind a URL say.

    Args:
        words: key=value, or nocanon, noquery, interpolate.
        first: index of words[0] among the directive's arguments.
        env: where warnings go.
    Raises:
        BadDirectiveError: an unknown parameter, or a value that is none.
    """
    result = Parameters()
    for index, word in enumerate(words, first):
        key, equals, value = word.partition("=")
        if equals and value:
            result = _set_parameter(result, key.lower(), value, index, env)
        elif word.lower() in _BARE_WORDS:
            env.warn(f"{word} has no effect", index)
        else:
            message = f"'{word}' is no parameter: key=value expected"
            raise BadDirectiveError(message, index)
    return result


def _check_socket(socket: str, word: str, index: int) -> None:
    if not socket.startswith("/"):
        message = f"'{word}': the path of the socket must be absolute: unix:/path|scheme://host"
        raise BadDirectiveError(message, index)
    if "$" in socket:
        message = f"'{word}': the path of the socket cannot come from the request"
        raise BadDirectiveError(message, index)
    if len(socket.encode("utf-8", "surrogateescape")) > SOCKET_BYTES:
        message = f"the path of the socket is longer than {SOCKET_BYTES} bytes, the most a Unix socket's path can be"
        raise BadDirectiveError(message, index)


def _check_place(match: re.Match[str], word: str, index: int, *, has_socket: bool) -> None:
    host, port = match["host"], match["port"]
    if "$" in host or "$" in (port or ""):
        message = f"'{word}': the back end's host and port cannot come from the request: a client could choose where we connect to"
        raise BadDirectiveError(message, index)
    if not has_socket and not host:
        message = f"'{word}': the URL names no host"
        raise BadDirectiveError(message, index)
    if host and not host.startswith("[") and not _HOST.match(host):
        message = f"'{word}': '{host}' is no host name"
        raise BadDirectiveError(message, index)
    if port is not None and not has_socket:
        parse_number(port, index, 1, 65535)


def parse_target(word: str, index: int, env: Env, schemes: frozenset[str] = _SCHEMES) -> str:
    """Return a back end's URL, scheme in lower case, with the socket that a <Proxy> of the same name gives it.

    Args:
        word: the URL.
        index: of the word among the directive's arguments.
        env: env.workers are the <Proxy> sections in force.
        schemes: those that make sense here.
    Raises:
        BadDirectiveError: no URL, a scheme that is not spoken, a host that the client would choose.
    """
    socket, bar, url = word.rpartition("|")
    is_unix = socket[:5].lower() == "unix:"
    if (bar and not is_unix) or (not bar and word[:5].lower() == "unix:"):
        message = f"'{word}' is no back end: unix:/path|scheme://host or scheme://host[:port]/path expected"
        raise BadDirectiveError(message, index)
    match = _URL.match(url)
    if match is None:
        message = f"'{word}' is no URL of a back end: scheme://host[:port]/path expected"
        raise BadDirectiveError(message, index)
    scheme = match["scheme"].lower()
    if scheme not in schemes:
        what = _REFUSED.get(scheme, f"{scheme}:// is not spoken to back ends: there are {', '.join(sorted(schemes))}")
        raise BadDirectiveError(what, index)
    if is_unix:
        _check_socket(socket[5:], word, index)
    _check_place(match, word, index, has_socket=is_unix)
    target = f"{scheme}{url[len(scheme):]}"
    worker = find_worker(target, env.workers)
    if is_unix:
        return f"unix:{socket[5:]}|{target}"
    return f"{worker.socket}{target}" if worker else target


def find_worker(target: str, workers: Mapping[str, Worker]) -> Worker | None:
    """Return the <Proxy> whose URL `target` begins with, the longest one; None if there is none."""
    url = target.rpartition("|")[2]
    best = max((name for name in workers if url == name or url.startswith(f"{name}/")), key=len, default=None)
    return workers[best] if best is not None else None


def parse_worker(words: Sequence[str], env: Env) -> tuple[str, Worker]:
    """Return (URL without trailing slash, the back end) of the words of <Proxy URL key=value ...>; see parse_target."""
    socket, bar, url = parse_target(words[0], 0, env).rpartition("|")
    return url.rstrip("/"), Worker(socket + bar, parse_parameters(words[1:], 1, env))


def parse_handler(word: str, index: int, env: Env) -> str:
    """Return a handler's name, "" for none; what proxy: leads to is checked.

    Raises:
        BadDirectiveError: proxy: and no FastCGI back end.
    """
    lower = word.lower()
    if lower == "none":
        return ""
    if not lower.startswith(HANDLER_PREFIX):
        return word
    target = parse_target(word[len(HANDLER_PREFIX) :], index, env, frozenset(("fcgi", "http")))
    return HANDLER_PREFIX + target
