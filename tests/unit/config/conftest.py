"""A world of its own for the configuration: users, files and names that no system needs to have."""

from __future__ import annotations

import fnmatch
import struct
from collections.abc import Callable
from typing import Any

import pytest

from perchild.config.compile import compile_tree
from perchild.config.load import check_pattern
from perchild.config.messages import Diagnostic
from perchild.config.model import Options, Result
from perchild.config.tree import LoadError
from perchild.config.values import Env, pack_ip
from perchild.wire.record import TAGS

USERS = {"root": (0, 0), "www-data": (33, 33), "alice": (1001, 1001), "bob": (1002, 1002), "carol": (1003, 1003), "rooty": (1004, 1004)}
GROUPS = {"root": 0, "www-data": 33, "alice": 1001, "bob": 1002, "carol": 1003, "rooty": 1004, "web": 2000}
MEMBERS = {"alice": (2000, 2001), "rooty": (0, 2000)}
NAMES = {"localhost": [(4, bytes((127, 0, 0, 1)))], "two.example": [(4, bytes((10, 0, 0, 1))), (6, bytes(15) + b"\1")]}
HEAD = "Listen 127.0.0.1:8080\nAcceptScope unassigned\n"


class FakeUsers:
    """The databases above."""

    def user(self, name: str) -> tuple[int, int] | None:
        """Return (uid, gid)."""
        return USERS.get(name)

    def user_name(self, uid: int) -> str | None:
        """Return a name."""
        return next((name for name, ids in USERS.items() if ids[0] == uid), None)

    def group(self, name: str) -> int | None:
        """Return a gid."""
        return GROUPS.get(name)

    def group_name(self, gid: int) -> str | None:
        """Return a name."""
        return next((name for name, number in GROUPS.items() if number == gid), None)

    def groups(self, name: str, gid: int) -> tuple[int, ...]:
        """Return supplementary groups."""
        return tuple(one for one in MEMBERS.get(name, ()) if one != gid)


    def home(self, uid: int) -> str | None:
        """Return a home directory."""
        name = self.user_name(uid)
        return f"/home/{name}" if name else None


class FakeFiles:
    """Files by path."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.warnings: list[Diagnostic] = []

    def read(self, path: str) -> str:
        """Return a text."""
        if path not in self.files:
            message = f"Could not open configuration file {path}: No such file or directory"
            raise LoadError(message)
        return self.files[path]

    def match(self, pattern: str) -> list[str]:
        """Return matching paths."""
        return sorted(path for path in self.files if fnmatch.fnmatchcase(path, pattern))

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return path in self.files


class World:
    """Compiles texts in it; `compile` returns the Result, `good` fails the test on errors."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {"/etc/mime.types": "text/html html htm\n# no\nimage/png\tpng\n"}
        self.known: dict[str, int] = {}
        self.directories = True
        self.roots = ("/var/log/",)

    def env(self, environ: dict[str, str] | None = None) -> Env:
        """Return the world outside."""
        return Env(server_root="/etc/perchild", environ=environ or {}, users=FakeUsers(), resolve=lambda name: NAMES.get(name, []),
                   check_pattern=check_pattern, is_directory=lambda _path: self.directories,
                   may_root_open=lambda path, _gids: path.startswith(self.roots))

    def compile(self, text: str, **options: Any) -> Result:
        """Compile `text`, exactly as it is."""
        full = Options(**{"config_file": "/main.conf", **options})
        return compile_tree(full, self.env(dict(full.environ)), FakeFiles(self.files), self.known, text)

    def good(self, text: str, **options: Any) -> Result:
        """Compile HEAD and `text`; there must be no errors."""
        result = self.compile(HEAD + text, **options)
        assert result.errors == []
        assert result.compiled is not None
        return result

    def reasons(self, text: str, **options: Any) -> list[str]:
        """Return the reasons of all errors of HEAD and `text`."""
        return [error.reason for error in self.compile(HEAD + text, **options).errors]

    def record(self, result: Result, name: str = "www-data") -> list[tuple[str, Any]]:
        """Return the decoded record of an identity."""
        assert result.compiled is not None
        identity = next(one for one in result.compiled.plan.identities if one.name == name)
        return decode(result.compiled.records[identity.record])

    def host(self, text: str, index: int = 1) -> dict[str, Any]:
        """Return HOST `index` of the unassigned record as {tag: value, or list of values if it may repeat}."""
        hosts = [value for tag, value in self.record(self.good(text)) if tag == "HOST"]
        return group(hosts[index])


_TAGS = {tag.number: tag for tag in TAGS}
_MANY = {tag.name for tag in TAGS if tag.many}


def decode(raw: bytes) -> list[tuple[str, Any]]:
    """Decode a container: (tag name, value), boxes as lists again."""
    out: list[tuple[str, Any]] = []
    at = 0
    while at < len(raw):
        number, zero, length = struct.unpack_from("<HHI", raw, at)
        assert zero == 0
        payload = raw[at + 8 : at + 8 + length]
        assert len(payload) == length
        tag = _TAGS[number]
        out.append((tag.name, _decode_value(tag.type, payload)))
        at += 8 + length
    return out


def _decode_value(kind: str, payload: bytes) -> Any:  # noqa: PLR0911 (a row per type)
    if kind == "box":
        return decode(payload)
    if kind == "u32":
        return struct.unpack("<I", payload)[0]
    if kind == "u64":
        return struct.unpack("<Q", payload)[0]
    if kind == "u32s":
        return struct.unpack(f"<{len(payload) // 4}I", payload)
    if kind == "str":
        return payload.decode()
    if kind == "strs":
        texts, at = [], 0
        while at < len(payload):
            (length,) = struct.unpack_from("<I", payload, at)
            texts.append(payload[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return tuple(texts)
    return payload


def group(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return items by tag; a list where the tag may repeat."""
    out: dict[str, Any] = {}
    for tag, value in items:
        if tag in _MANY:
            out.setdefault(tag, []).append(value)
        else:
            assert tag not in out, f"{tag} stands twice"
            out[tag] = value
    return out


def lookup(table: bytes, ip: str, port: int, name: str) -> int:
    """Find a name in a route table, as wire/route.py describes it; the address's default else, NO_VALUE if none."""
    magic, _, count, offset, _ = struct.unpack_from("<8sIIII", table)
    assert magic == b"PCROUTE1"
    address = pack_ip(ip)
    assert address is not None
    rows = [struct.unpack_from("<BBH16sIIIII", table, offset + 40 * index) for index in range(count)]
    for family, packed, number in ((*address, port), (*address, 0), (0, b"", port), (0, b"", 0)):
        for row in rows:
            if (row[0], row[3], row[2]) == (family, packed.ljust(16, b"\0"), number):
                return _find_name(table, row, name)
    return 0xFFFFFFFF


def _find_name(table: bytes, row: tuple[Any, ...], name: str) -> int:
    entries = [*struct.unpack_from(f"<{row[5]}I", table, row[6]), *struct.unpack_from(f"<{row[7]}I", table, row[8])]
    found = {}
    for at in filter(None, entries):
        _, value, length = struct.unpack_from("<IIH", table, at)
        found.setdefault(table[at + 10 : at + 10 + length].decode(), value)
    if name in found:
        return int(found[name])
    wild = [value for pattern, value in found.items() if ("*" in pattern or "?" in pattern) and fnmatch.fnmatchcase(name, pattern)]
    return int(wild[0] if wild else row[4])


@pytest.fixture
def world() -> World:
    """Return a fresh world."""
    return World()


@pytest.fixture
def find_route() -> Callable[[bytes, str, int, str], int]:
    """Return the reader of route tables."""
    return lookup


@pytest.fixture
def by_tag() -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return `group`."""
    return group
