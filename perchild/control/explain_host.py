"""Which address, host and identity answer a URL, and why: the rules of wire/route.py, told from the configuration.

Runs as: whoever calls perchildctl (pure).
Before: explain.py   After: explain_map.py
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from perchild.config.model import HostInfo, Model
from perchild.config.tree import Node, Tree
from perchild.config.values import pack_ip
from perchild.wire.plan import Listener

_DEFAULT_PORTS = {"http": 80, "https": 443}
_V4, _V6 = 4, 6


class ExplainError(Exception):
    """The URL, or the configuration, cannot be explained; the text says why."""


@dataclass(frozen=True, slots=True)
class Url:
    """A URL's parts. path is decoded and normalised, as the server does; address: the IP that its host is, "" if it is a name."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    address: str


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answers. listener: None if nobody listens there; node: of the <VirtualHost>, None for the main server; how: in words."""

    listener: Listener | None
    address: str
    host: HostInfo
    node: Node | None
    how: str
    decided: Node | None  # the line with the name that fitted


def parse_url(text: str) -> Url:
    """Return the parts of a URL; ExplainError if it is none of HTTP's."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        message = f"{text}: {error}"
        raise ExplainError(message) from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        message = f"{text}: a URL is wanted, as http://alice.example/path"
        raise ExplainError(message)
    host = parts.hostname.rstrip(".")
    return Url(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], normalise(unquote(parts.path) or "/"), parts.query,
               host if pack_ip(host) else "")


def normalise(path: str) -> str:
    """Return a path without empty components, `.` and `..`; ExplainError if it leaves the top."""
    out: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            if not out:
                message = "the path leaves the top: 400 Bad Request"
                raise ExplainError(message)
            out.pop()
        elif part not in {"", "."}:
            out.append(part)
    has_end = not out or parts[-1] in {"", ".", ".."}
    return "/" + "/".join(out) + ("/" if has_end and out else "")


def find_answerer(model: Model, tree: Tree, listeners: tuple[Listener, ...], url: Url, address: str) -> Answerer:
    """Return who answers a URL.

    Args:
        address: the local address that the client connects to; "" = any that fits.
    """
    local = address or url.address or _guess_address(model, url)
    packed = pack_ip(local)
    if packed is None:
        message = f"{local} is no IP address"
        raise ExplainError(message)
    listener = next((one for one in listeners if one.port == url.port and _covers(one, packed)), None)
    hosts = _hosts_of(model, packed, url.port)
    if not hosts:
        return Answerer(listener, local, model.main, None, "no <VirtualHost> is for this address: the main server answers", None)
    for test, how in ((_has_exactly, "it has this name"), (_has_pattern, "a pattern of its names fits")):
        found = next((host for host in hosts if test(host, url.host)), None)
        if found is not None:
            node = _node_of(tree, found)
            return Answerer(listener, local, found, node, how, _naming_line(node, url.host))
    return Answerer(listener, local, hosts[0], _node_of(tree, hosts[0]), "no host has this name: the first of the address answers", None)


def _guess_address(model: Model, url: Url) -> str:
    """Return an address of a host with this name and port; 127.0.0.1 if its hosts are for any."""
    for host in model.hosts:
        if _has_exactly(host, url.host) or _has_pattern(host, url.host):
            for family, packed, port, _ in host.addresses:
                if family and port in {url.port, 0}:
                    return socket.inet_ntop(socket.AF_INET if family == _V4 else socket.AF_INET6, packed)
    return "127.0.0.1"


def _covers(listener: Listener, packed: tuple[int, bytes]) -> bool:
    own = pack_ip(listener.address)
    return own is not None and own[0] == packed[0] and (not any(own[1]) or own[1] == packed[1])


def _hosts_of(model: Model, packed: tuple[int, bytes], port: int) -> list[HostInfo]:
    """Return the hosts of the most specific address that there is: (ip, port), (ip, any), (any, port), (any, any)."""
    for key in ((*packed, port), (*packed, 0), (0, b"", port), (0, b"", 0)):
        found = [host for host in model.hosts if any(one[:3] == key for one in host.addresses)]
        if found:
            return found
    return []


def wild_pattern(pattern: str, *, is_path: bool) -> re.Pattern[str]:
    """Return a wildcard as a pattern; in a path * and ? do not match a slash."""
    out = []
    for char in pattern:
        if char == "*":
            out.append("[^/]*" if is_path else ".*")
        elif char == "?":
            out.append("[^/]" if is_path else ".")
        else:
            out.append(char if char in "[]" else re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _has_exactly(host: HostInfo, name: str) -> bool:
    return name in {host.name, *host.aliases}


def _has_pattern(host: HostInfo, name: str) -> bool:
    return any(wild_pattern(one, is_path=False).fullmatch(name) for one in (host.name, *host.aliases) if "*" in one or "?" in one)


def _node_of(tree: Tree, host: HostInfo) -> Node | None:
    return next((node for node in tree.nodes if node.name == "<virtualhost" and (node.file, node.line) == (host.file, host.line)), None)


def _naming_line(node: Node | None, name: str) -> Node | None:
    lines = [child for child in (node.children if node else None) or () if child.name in {"servername", "serveralias"}]
    for child in lines:
        words = [word.lower().partition("://")[2] or word.lower() for word in child.rest.split()]
        if any(word.partition(":")[0] == name or wild_pattern(word, is_path=False).fullmatch(name) for word in words):
            return child
    return lines[0] if lines else None
