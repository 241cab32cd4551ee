"""Require, Order, Allow and Deny -> the ACCESS bytes of wire/record.py.

Runs as: compile (pure).  Source: httpd's mod_authz_core, mod_authz_host, mod_access_compat.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perchild.config.messages import BadDirectiveError
from perchild.config.tree import Node, section_title
from perchild.config.values import Env, pack_ip, parse_host_name
from perchild.wire.record import ACCESS_KINDS

MAX_NODE_BYTES = 0xFFFF  # the wire's payload length is a u16
SECTION_KINDS = {"<requireall": "all", "<requireany": "any", "<requirenone": "none"}
_PARTIAL_V4 = re.compile(r"\d{1,3}(\.\d{1,3}){0,2}\.?\Z")
_V4_PARTS = 4
_METHOD = re.compile(r"[A-Z][A-Z0-9-]*\Z")
_LATER = {
    "user": "authentication", "valid-user": "authentication", "group": "authentication", "expr": "expressions",
    "forward-dns": "forward DNS", "ldap-user": "LDAP", "ldap-group": "LDAP", "file-owner": "authentication",
    "file-group": "authentication", "dbm-group": "authentication", "ssl": "TLS requirements", "ssl-verify-client": "TLS requirements",
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One Require line, or a container of them: its bytes, and whether it is negative (Require not)."""

    raw: bytes
    is_negative: bool


def pack_node(kind: str, payload: bytes = b"", *, is_negative: bool = False) -> bytes:
    """Return one ACCESS node; BadDirectiveError if it does not fit."""
    if len(payload) > MAX_NODE_BYTES:
        message = f"too much for one access list: {len(payload)} bytes of {MAX_NODE_BYTES}; split it over several sections"
        raise BadDirectiveError(message)
    return struct.pack("<BBH", ACCESS_KINDS[kind], is_negative, len(payload)) + payload


def pack_address(word: str, index: int) -> bytes | None:
    """Return the leaf for an IP address, a partial one, a network/netmask or network/bits; None if `word` is none of them."""
    base, slash, mask = word.partition("/")
    parts = base.rstrip(".").split(".")
    if _PARTIAL_V4.match(base) and (len(parts) < _V4_PARTS or base.endswith(".")):
        if any(int(part) > 255 for part in parts):  # noqa: PLR2004
            message = f"ip address '{word}' appears to be invalid"
            raise BadDirectiveError(message, index)
        mask = mask if slash else str(8 * len(parts))
        base, slash = ".".join([*parts, *["0"] * (_V4_PARTS - len(parts))]), "/"
    address = pack_ip(base)
    if address is None:
        if "/" in word:
            message = f"ip address '{word}' appears to be invalid"
            raise BadDirectiveError(message, index)
        return None
    family, packed = address
    bits = _parse_mask(mask, family, word, index) if slash else 8 * len(packed)
    number = int.from_bytes(packed, "big") >> (8 * len(packed) - bits) << (8 * len(packed) - bits)
    return pack_node("ip", struct.pack("<BB", family, bits) + number.to_bytes(len(packed), "big"))


def _parse_mask(mask: str, family: int, word: str, index: int) -> int:
    most = 32 if family == 4 else 128  # noqa: PLR2004
    if mask.isdecimal() and len(mask) <= 3 and int(mask) <= most:  # noqa: PLR2004
        return int(mask)
    packed = pack_ip(mask)
    if packed is not None and packed[0] == 4 == family:  # noqa: PLR2004
        bits = f"{int.from_bytes(packed[1], 'big'):032b}"
        if "01" not in bits:
            return bits.count("1")
    message = f"the specified IP range '{word}' is invalid: a mask of 0..{most} bits expected"
    raise BadDirectiveError(message, index)


def _leaf_ip(words: Sequence[str], at: int, _env: Env) -> list[bytes]:
    leaves = []
    for index, word in enumerate(words, at):
        leaf = pack_address(word, index)
        if leaf is None:
            message = f"ip address '{word}' appears to be invalid"
            raise BadDirectiveError(message, index)
        leaves.append(leaf)
    return leaves


def _leaf_host(words: Sequence[str], at: int, _env: Env) -> list[bytes]:
    return [pack_node("host", _host(word, index)) for index, word in enumerate(words, at)]


def _host(word: str, index: int) -> bytes:
    dot = "." if word.startswith(".") else ""
    return (dot + parse_host_name(word.removeprefix("."), index)).encode("ascii")


def _leaf_env(words: Sequence[str], _at: int, _env: Env) -> list[bytes]:
    return [pack_node("env", word.encode("utf-8", "surrogateescape")) for word in words]


def _leaf_method(words: Sequence[str], at: int, _env: Env) -> list[bytes]:
    for index, word in enumerate(words, at):
        if not _METHOD.match(word):
            message = f"'{word}' is no method: capital letters expected"
            raise BadDirectiveError(message, index)
    return [pack_node("method", " ".join(words).encode("ascii"))]


def _leaf_all(words: Sequence[str], at: int, _env: Env) -> list[bytes]:
    if len(words) != 1 or words[0].lower() not in {"granted", "denied"}:
        message = "Argument for 'Require all' must be 'granted' or 'denied'"
        raise BadDirectiveError(message, at if words else at - 1)
    return [pack_node(words[0].lower())]


_LEAVES: dict[str, Callable[[Sequence[str], int, Env], list[bytes]]] = {
    "all": _leaf_all, "ip": _leaf_ip, "host": _leaf_host, "env": _leaf_env, "method": _leaf_method,
}


def parse_require(words: list[str], env: Env) -> Requirement:
    """Return the requirement of the arguments of one Require line."""
    is_negative = words[0].lower() == "not"
    at = 1 if is_negative else 0
    if len(words) == at:
        message = "'not' needs a requirement after it"
        raise BadDirectiveError(message, 0)
    kind = words[at].lower()
    if kind == "local":
        if len(words) > at + 1:
            message = "'local' takes no argument"
            raise BadDirectiveError(message, at + 1)
        return Requirement(pack_node("local", is_negative=is_negative), is_negative)
    parse = _LEAVES.get(kind)
    if parse is None:
        what = _LATER.get(kind)
        message = (f"Require {kind} needs {what}, which this version does not have" if what
                   else f"Unknown Authz provider: {words[at]}; there are {', '.join([*_LEAVES, 'local'])}")
        raise BadDirectiveError(message, at)
    if len(words) == at + 1:
        message = f"'{kind}' requires at least one argument"
        raise BadDirectiveError(message, at)
    if kind == "all" and is_negative:
        message = "Require not all is not supported; say Require all granted or Require all denied"
        raise BadDirectiveError(message, 0)
    leaves = parse(words[at + 1 :], at + 1, env)
    if len(leaves) > 1:
        return Requirement(pack_node("any", b"".join(leaves), is_negative=is_negative), is_negative)
    raw = leaves[0]
    return Requirement(raw[:1] + bytes([is_negative]) + raw[2:], is_negative)


def join_requirements(kind: str, parts: Sequence[Requirement], shown: str) -> Requirement:
    """Return the container of `parts`.

    Args:
        kind: "all", "any" or "none".
        shown: the container's name for messages.
    Raises:
        BadDirectiveError: httpd's rules on negative requirements are broken.
    """
    if parts and all(part.is_negative for part in parts):
        message = f"{shown} directive contains only negative authorization directives"
        raise BadDirectiveError(message)
    if kind != "all" and any(part.is_negative for part in parts):
        message = f"negative Require directive has no effect in {shown} directive"
        raise BadDirectiveError(message)
    return Requirement(pack_node(kind, b"".join(part.raw for part in parts)), kind == "none")


def parse_order(words: list[str], _env: Env) -> int:
    """Return 0 for deny,allow and 1 for allow,deny (also for mutual-failure, which is the same)."""
    order = ",".join(words).lower().replace(",,", ",")
    if order not in {"deny,allow", "allow,deny", "mutual-failure"}:
        message = "unknown order: deny,allow | allow,deny | mutual-failure expected"
        raise BadDirectiveError(message, 0)
    return 0 if order == "deny,allow" else 1


def parse_allow(words: list[str], _env: Env) -> bytes:
    """Return the leaves of the arguments of Allow or Deny: `from` and then all, env=[!]NAME, addresses or host names."""
    if words[0].lower() != "from":
        message = "allow and deny must be followed by 'from'"
        raise BadDirectiveError(message, 0)
    return b"".join(_allow_leaf(word, index) for index, word in enumerate(words[1:], 1))


def _allow_leaf(word: str, index: int) -> bytes:
    lower = word.lower()
    if lower == "all":
        return pack_node("granted")
    if lower.startswith("env="):
        name = word[4:]
        is_negative = name.startswith("!")
        return pack_node("env", name.removeprefix("!").encode("utf-8", "surrogateescape"), is_negative=is_negative)
    return pack_address(word, index) or pack_node("host", _host(word, index))


def requirement_name(node: Node) -> str:
    """Return a container's name for messages: <RequireAny>."""
    return f"<{section_title(node)}>"
