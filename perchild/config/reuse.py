"""What an earlier compilation knows of site files that have not changed, so that they are neither read nor parsed again.

    notes of a file   who it is (stamp), hash of its text, of what it includes and what patterns stood for, what stood above it (context),
                      and of each of its hosts only what other hosts are concerned by: addresses, names, who it is of, where it stands
    record            is made anew only for an identity whose `source` is another than that in the plan in force: a hash of all its hosts, of
                      what stands outside of hosts, of its user, its names as they were routed, and the stamps of its certificates

Whatever is not plain (a file that defines variables, warns, asks for names or files, says something of its whole address) has no notes and
is read each time. A site with notes that its identity's record needs is read again then (expand).
The notes go from one compile to the next in a sealed memfd, which only the dispatcher holds, and never reads: JSON, nothing that is executed.
Runs as: compile (pure: files come through the Loader).  Trusts: notes, which only compile can have written.
Before: load.py   After: tree.py, compile.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from perchild import __version__
from perchild.config.collect import Draft
from perchild.config.tree import Builder, Loader, LoadError, Node, Tree, Unit
from perchild.config.values import pack_ip, split_address
from perchild.wire.plan import Identity

VERSION = 1
_HOST = "<virtualhost"
# What a host says that others are concerned by beyond its addresses and names: such a file is read each time.
_FAR = frozenset(("wsgi_daemons", "remote_ip_header", "remote_ip_internal", "remote_ip_trusted", "proxy_protocol"))


class Files(Loader, Protocol):
    """A loader that can tell whether a file has changed."""

    def stamp(self, path: str) -> str:
        """Return what is another when the file is; "" if that cannot be told."""

    def has_warned(self, path: str) -> bool:
        """Tell whether there is something odd about the file, of which the operator is told each time."""


def digest(value: Any) -> str:  # noqa: ANN401 (anything that JSON can say)
    """Return a hash of a value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(slots=True)
class Notes:
    """Notes of one site file. files: path -> (stamp, hash of its text), itself among them; hosts: as pack_host makes them."""

    context: str
    files: dict[str, list[str]]
    matches: dict[str, list[str]]
    includes: list[list[Any]]
    asked: list[bool]
    hosts: list[list[Any]]
    raw: bytes = b""  # the same as it is passed on


def _node_of(parts: Sequence[Any] | None) -> Node | None:
    return None if parts is None else Node(parts[0], parts[1], parts[2], parts[3], parts[4], None)


def pack_host(draft: Draft) -> list[Any]:
    """Return what is noted of a host."""
    host, node = draft.host, draft.node
    assign, root, engine = host.get("assign"), host.get("document_root"), host.get("tls_engine")
    return [
        node[:5] if node else None, draft.source, draft.speaks,
        [[family, packed.hex(), port, word] for family, packed, port, word in draft.addresses],
        list(host["name"]) if "name" in host else None, host.get("aliases"),
        [list(assign[0]), assign[1][:5]] if assign else None,
        [root[0], root[1][:5]] if root else None,
        [engine[0], engine[1][:5] if engine[1] else None] if engine else None,
    ]


def unpack_host(noted: list[Any]) -> Draft:
    """Return a draft that knows of a host what pack_host has noted."""
    node, source, speaks, addresses, name, aliases, assign, root, engine = noted
    draft = Draft(Node(node[0], node[1], node[2], node[3], node[4], []), source=source, speaks=(speaks[0], speaks[1]))
    draft.addresses = [(family, bytes.fromhex(packed), port, word) for family, packed, port, word in addresses]
    host = draft.host
    if name is not None:
        host["name"] = (name[0], name[1])
    if aliases is not None:
        host["aliases"] = aliases
    if assign is not None:
        host["assign"] = (tuple(assign[0]), _node_of(assign[1]))
    if root is not None:
        host["document_root"] = (root[0], _node_of(root[1]))
    if engine is not None:
        host["tls_engine"] = (engine[0], _node_of(engine[1]))
    return draft


@dataclass(slots=True)
class Base:
    """The plan in force. identities: by number; present: names of the records that are there."""

    identities: Mapping[int, Identity] = field(default_factory=dict)
    present: frozenset[str] = frozenset()


class Reuse:
    """The notes of the compilation before, and what becomes of them in this one."""

    def __init__(self, loader: Files, raw: bytes = b"", base: Base | None = None, now_s: float = 0.0) -> None:
        """raw: what the compilation before has returned from `dump`; base: the plan in force, if its records may be used."""
        self._loader = loader
        self.base = base or Base()
        self._now_s = now_s
        self.server, self._notes = _load(raw)
        self._ready: dict[str, Callable[[], list[Node]]] = {}  # files that are not parsed this time: how to, after all
        self._expanded: dict[str, list[Node]] = {}
        self.parsed: set[str] = set()
        self.packed = 0  # identities whose records were made

    def is_current(self, identity: Identity) -> bool:
        """Tell whether an identity's files in the run directory are there, and nothing has to be said of its certificates by now."""
        return (identity.record in self.base.present and (not identity.runner or identity.runner in self.base.present)
                and (not identity.source_until_s or self._now_s < identity.source_until_s))

    def forget(self) -> None:
        """Use no note: what stands outside of sites is another than it was."""
        self._notes = {}
        self.reset()

    def reset(self) -> None:
        """Begin anew: the configuration is read once more."""
        self._ready.clear()
        self._expanded.clear()
        self.parsed.clear()

    # --- reading -------------------------------------------------------------------------------------------------

    def find(self, path: str, builder: Builder) -> bool:
        """Tell whether the site file `path` need not be parsed; its includes and what it depends on are noted in the tree then."""
        noted = self._notes.get(path)
        if noted is None or path in self._ready or noted.context != builder.context()[0] or not self._is_same(noted):
            self.parsed.add(path)
            return False
        depth = builder.depth
        builder.tree.includes += [(depth + level, line, one) for level, line, one in noted.includes]
        builder.assumed.mpm_was_asked = builder.assumed.mpm_was_asked or noted.asked[0]
        builder.assumed.root_was_used = builder.assumed.root_was_used or noted.asked[1]
        self._ready[path] = builder.later(path)
        return True

    def files_of(self, path: str) -> dict[str, str]:
        """Return the files that a file which is not parsed is made of, without their texts."""
        return dict.fromkeys(self._notes[path].files, "")

    def _is_same(self, noted: Notes) -> bool:
        try:
            return (all(self._is_same_file(noted, path, known) for path, known in noted.files.items())
                    and all(self._loader.match(pattern) == paths for pattern, paths in noted.matches.items()))
        except LoadError:
            return False  # it is said where it is read

    def _is_same_file(self, noted: Notes, path: str, known: list[str]) -> bool:
        stamp = self._loader.stamp(path)
        if stamp and stamp == known[0]:
            return True
        if _hash_text(self._loader.read(path)) != known[1] or self._loader.has_warned(path):
            return False
        known[0] = self._loader.stamp(path)
        noted.raw = b""
        return True

    # --- its hosts -----------------------------------------------------------------------------------------------

    def drafts_of(self, path: str) -> list[Draft]:
        """Return the hosts of a file that is not parsed."""
        return [unpack_host(noted) for noted in self._notes[path].hosts]

    def expand(self, path: str) -> list[Node]:
        """Parse a file of which there are notes, after all."""
        nodes = self._expanded.get(path)
        if nodes is None:
            self.parsed.add(path)
            nodes = self._expanded[path] = self._ready[path]()
        return nodes

    # --- notes for the next one ----------------------------------------------------------------------------------

    def note(self, tree: Tree, drafts: Sequence[Draft], server: str) -> None:
        """Note the sites of a tree that was compiled without errors; server: hash of what stands outside of them."""
        of_node = {id(draft.node): draft for draft in drafts}
        self.server = server
        notes: dict[str, Notes] = {}
        for unit in tree.units:
            if unit.is_ready:
                notes[unit.file] = self._notes[unit.file]
            elif unit.is_plain and unit.file not in notes:
                hosts = [of_node.get(id(node)) for node in unit.nodes]
                if hosts and all(one is not None and is_plain(one) for one in hosts):
                    notes[unit.file] = self._make(unit, [one for one in hosts if one is not None])
        self._notes = notes

    def _make(self, unit: Unit, hosts: list[Draft]) -> Notes:
        files = {path: [self._old_stamp(path), _hash_text(text)] for path, text in unit.files.items()}
        return Notes(unit.context, files, unit.matches, [list(one) for one in unit.includes], [unit.mpm_was_asked, unit.root_was_used],
                     [pack_host(draft) for draft in hosts])

    def _old_stamp(self, path: str) -> str:
        """Return the stamp of a file, as it was when it was read; "" if it may change and keep it, or must be warned of each time."""
        return "" if self._loader.has_warned(path) else self._loader.stamp(path)

    def dump(self) -> bytes:
        """Return the notes for the next compilation."""
        lines = [json.dumps([VERSION, __version__, self.server]).encode()]
        lines += [one.raw or _encode(path, one) for path, one in self._notes.items()]
        return b"\n".join(lines)


def _load(raw: bytes) -> tuple[str, dict[str, Notes]]:
    if not raw:
        return "", {}
    first, *lines = raw.split(b"\n")
    version, program, server = json.loads(first)
    if (version, program) != (VERSION, __version__):
        return "", {}
    notes = {}
    for line in lines:
        path, context, files, matches, includes, asked, hosts = json.loads(line)
        notes[path] = Notes(context, files, matches, includes, asked, hosts, line)
    return server, notes


def _encode(path: str, one: Notes) -> bytes:
    return json.dumps([path, one.context, one.files, one.matches, one.includes, one.asked, one.hosts], separators=(",", ":")).encode()


def is_plain(draft: Draft) -> bool:
    """Tell whether what is noted of a host is all that concerns others."""
    return draft.is_plain and draft.speaks is not None and _FAR.isdisjoint(draft.host) and all(map(_is_number, draft.addresses))


def _is_number(address: tuple[int, bytes, int, str]) -> bool:
    """Tell whether an address was written as such: a name may mean another one tomorrow."""
    word = split_address(address[3], 0)[0]
    return word == "*" or word.lower() == "_default_" or pack_ip(word) is not None
