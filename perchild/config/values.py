"""Typed arguments: one Kind per sort of value, each with its unit and range, from a word to a value.

Runs as: compile (pure: users, names, patterns and the environment come through Env).  Trusts: nothing.
"""

from __future__ import annotations

import posixpath
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from perchild import limits
from perchild.config.certs import NoWorld, World
from perchild.config.messages import BadDirectiveError

MAX_PATH_BYTES = limits.value("MAX_PATH_BYTES")
MAX_HOST_BYTES = limits.value("MAX_HOST_BYTES")
MAX_ID = 0xFFFFFFFE  # (uid_t)-1 means "leave as it is" to the kernel
U32 = 0xFFFFFFFF

_DIGITS = re.compile(r"-?\d{1,20}\Z")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")
_WILD_NAME = re.compile(r"[A-Za-z0-9_.*?-]+\Z")
_PLAIN_PATH = re.compile(r"(/[^/.][^/]*)+\Z")


class Users(Protocol):
    """The user and group databases."""

    def user(self, name: str) -> tuple[int, int] | None:
        """Return (uid, primary gid) of a user name."""

    def user_name(self, uid: int) -> str | None:
        """Return the name of a uid."""

    def group(self, name: str) -> int | None:
        """Return the gid of a group name."""

    def group_name(self, gid: int) -> str | None:
        """Return the name of a gid."""

    def groups(self, name: str, gid: int) -> tuple[int, ...]:
        """Return the supplementary groups of a user whose primary group is gid, sorted, without gid."""

    def home(self, uid: int) -> str | None:
        """Return the home directory of a uid."""


@dataclass(slots=True)
class Env:
    """What parsers of arguments may ask. warn: takes (reason, word); it belongs to the directive being read."""

    server_root: str
    environ: Mapping[str, str]
    users: Users
    resolve: Callable[[str], list[tuple[int, bytes]]]  # host name -> (family 4|6, packed)
    check_pattern: Callable[[str], str | None]  # PCRE2 pattern -> what is wrong with it
    is_directory: Callable[[str], bool]
    may_root_open: Callable[[str, frozenset[int]], bool]  # log file path, tenants' gids -> is its directory root's alone
    has_ipv6: bool = True
    tls: World = field(default_factory=NoWorld)
    warn: Callable[[str, int], None] = lambda _reason, _word: None
    context: str = ""  # of the directive being read: "", "<virtualhost", "<directory" ...
    location: str = ""  # of the directive being read: path or pattern of its <Location>
    is_location_pattern: bool = False
    workers: Mapping[str, Any] = field(default_factory=dict)  # URL -> targets.Worker: the <Proxy> sections in force
    good_patterns: set[str] = field(default_factory=set)

    def path(self, word: str, index: int = 0) -> str:
        """Return an absolute path for `word`, which may be relative to ServerRoot; no trailing slash but for '/'."""
        path = word if word.startswith("/") else f"{self.server_root}/{word}"
        if not _PLAIN_PATH.match(path):
            path = posixpath.normpath(path)
            path = path[1:] if path.startswith("//") else path
        if len(path.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES:
            message = f"path is longer than {MAX_PATH_BYTES} bytes"
            raise BadDirectiveError(message, index)
        return path

    def pattern(self, word: str, index: int = 0) -> str:
        """Return `word` if it is a regular expression."""
        if word not in self.good_patterns:
            wrong = self.check_pattern(word)
            if wrong is not None:
                message = f"Regular expression '{word}' could not be compiled: {wrong}"
                raise BadDirectiveError(message, index)
            self.good_patterns.add(word)
        return word


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of argument: how the documentation writes it, its unit and range, and its parser (word, index, env) -> value."""

    usage: str
    unit: str
    range: str
    parse: Callable[[str, int, Env], Any]


def parse_number(word: str, index: int, low: int, high: int) -> int:
    """Return a decimal number; BadDirectiveError names the range."""
    if not _DIGITS.match(word):
        message = f"'{word}' is not a number: {low}..{high} expected"
        raise BadDirectiveError(message, index)
    number = int(word)
    if not low <= number <= high:
        message = f"{word} is out of range: {low}..{high} expected"
        raise BadDirectiveError(message, index)
    return number


def number(low: int, high: int, unit: str = "", usage: str = "number") -> Kind:
    """Return the kind of numbers low..high."""
    return Kind(usage, unit, f"{low}..{high}", lambda word, index, _env: parse_number(word, index, low, high))


_TIME = re.compile(r"(\d{1,12})(ms|s|min|mi|h)?\Z", re.IGNORECASE)
_TIME_MS = {"ms": 1, "s": 1000, "mi": 60_000, "min": 60_000, "h": 3_600_000}


def parse_time_ms(word: str, index: int, low_ms: int, high_ms: int) -> int:
    """Return a time in ms; plain numbers are seconds, units ms, s, mi(n), h as in httpd."""
    match = _TIME.match(word)
    if match is None:
        message = f"'{word}' is not a time: seconds, or a number with ms, s, min or h expected"
        raise BadDirectiveError(message, index)
    time_ms = int(match.group(1)) * _TIME_MS[(match.group(2) or "s").lower()]
    if not low_ms <= time_ms <= high_ms:
        message = f"{word} is out of range: {low_ms / 1000:g}..{high_ms // 1000} seconds expected"
        raise BadDirectiveError(message, index)
    return time_ms


def time_ms(low_ms: int, high_ms: int) -> Kind:
    """Return the kind of times, read as seconds unless a unit follows, kept in ms."""
    return Kind("seconds[unit]", "seconds; ms, s, min, h may follow", f"{low_ms / 1000:g}..{high_ms // 1000}",
                lambda word, index, _env: parse_time_ms(word, index, low_ms, high_ms))


def parse_choice(word: str, index: int, choices: Mapping[str, Any]) -> Any:  # noqa: ANN401 (the table's values)
    """Return the value of a word of `choices` (keys in lower case), without regard to case."""
    value = choices.get(word.lower(), choices)
    if value is choices:
        message = f"'{word}' is none of {', '.join(choices)}"
        raise BadDirectiveError(message, index)
    return value


def choice(choices: Mapping[str, Any], usage: str = "") -> Kind:
    """Return the kind of words of a table."""
    shown = usage or "|".join(choices)
    return Kind(shown, "", "", lambda word, index, _env: parse_choice(word, index, choices))


def _parse_flag(word: str, index: int, _env: Env) -> bool:
    lower = word.lower()
    if lower not in {"on", "off"}:
        message = f"must be On or Off, not '{word}'"
        raise BadDirectiveError(message, index)
    return lower == "on"


FLAG = Kind("On|Off", "", "", _parse_flag)
PATH = Kind("path", "absolute, or relative to ServerRoot", "", lambda word, index, env: env.path(word, index))
TEXT = Kind("text", "", "", lambda word, _index, _env: word)
REGEX = Kind("regex", "PCRE2", "", lambda word, index, env: env.pattern(word, index))


def parse_port(word: str, index: int = 0) -> int:
    """Return a port, 1..65535."""
    return parse_number(word, index, 1, 65535)


def pack_ip(word: str) -> tuple[int, bytes] | None:
    """Return (4|6, packed) of an IP address in text, None if it is none."""
    try:
        return (6, socket.inet_pton(socket.AF_INET6, word)) if ":" in word else (4, socket.inet_pton(socket.AF_INET, word))
    except (OSError, ValueError):
        return None


def split_address(word: str, index: int) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port`, `port`-less forms and `host:*` into (host, port); port 0 = any.

    Raises:
        BadDirectiveError: unbalanced bracket, a bare IPv6 address, a bad port.
    """
    if word.startswith("["):
        host, bracket, rest = word[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            message = f"'{word}' is no address: [v6address]:port expected"
            raise BadDirectiveError(message, index)
        port = rest[1:]
    else:
        host, _, port = word.partition(":")
        if ":" in port:
            message = f"'{word}': an IPv6 address must stand in brackets: [{word}]:port"
            raise BadDirectiveError(message, index)
    return host, 0 if port in {"", "*"} else parse_port(port, index)


def parse_host_name(word: str, index: int, *, may_be_wild: bool = False) -> str:
    """Return a host name in lower case without trailing dot.

    Raises:
        BadDirectiveError: a character that cannot stand in a name, or too long. Names beyond ASCII belong in punycode.
    """
    if (_WILD_NAME if may_be_wild else _HOST_NAME).match(word) is None:
        hint = "" if word.isascii() else " (write international names in their xn-- form)"
        message = f"Invalid host name '{word}'{hint}"
        raise BadDirectiveError(message, index)
    if len(word) > MAX_HOST_BYTES:
        message = f"host name is longer than {MAX_HOST_BYTES} bytes"
        raise BadDirectiveError(message, index)
    return word.rstrip(".").lower()


_STATUSES = frozenset((100, 101, 102, 103, *range(200, 209), 226, *range(300, 309), *range(400, 419), *range(421, 427), 428, 429, 431,
                       451, *range(500, 509), 510, 511))


def parse_status(word: str, index: int, low: int = 100, high: int = 599) -> int:
    """Return an HTTP status that is known, low..high."""
    status = parse_number(word, index, low, high)
    if status not in _STATUSES:
        message = f"Unsupported HTTP response code {word}"
        raise BadDirectiveError(message, index)
    return status


def check_php_name(word: str, index: int) -> None:
    """Refuse the variables by which php-fpm takes settings: among them is what php_admin_value locks.

    Args:
        word: name of a variable that programs are to have.
        index: its place among the directive's arguments.
    Raises:
        BadDirectiveError: it is one of them.
    """
    if word in {"PHP_VALUE", "PHP_ADMIN_VALUE"}:
        message = f"{word} is made by {word.lower()} name value, for each setting: no variable changes PHP's settings"
        raise BadDirectiveError(message, index)
