"""One broken site does not take the others down.

What is wrong is put on the parts of the configuration that it is in, and these are replaced, each by itself: by its last good version;
where there is none, by hosts of the same names that answer 503; and where even their names cannot be had, by nothing.

A part (tree.Unit) is one of the files that an Include with a wildcard, or of a directory, stands for, if it is a site's (it has a
<VirtualHost>, or had one, or lies in a directory called sites-enabled); or a <VirtualHost> of any other file. What is wrong outside
of them is everybody's, and refuses the whole.
Runs as: compile (pure: versions come through Kept).  Trusts: nothing.
Before: compile.py   After: compile.py, once more
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from perchild.config.messages import Diagnostic, format_errors, make_printable
from perchild.config.model import Result, Version
from perchild.config.tokens import QuoteError, split_words
from perchild.config.tree import Assumptions, Builder, Loader, Node, Tree, Unit
from perchild.wire.plan import BrokenSite

LAST_GOOD, UNAVAILABLE, LEFT_OUT = "last good version", "503", "nothing"
_STEPS = (LAST_GOOD, UNAVAILABLE, UNAVAILABLE, LEFT_OUT)  # the second time without user and certificate
_BARE = 2
_LABELS = {LAST_GOOD: " (last good version)", UNAVAILABLE: " (503)", LEFT_OUT: ""}
_SITES = "sites-enabled"
_HOST = re.compile(r"(?im)^[ \t]*<virtualhost\b")
_NAMING = frozenset(("servername", "serveralias", "sslengine"))
_KEYS = frozenset(("sslcertificatefile", "sslcertificatekeyfile", "sslcertificatechainfile"))
_FEW = 4  # sites that may be unserved at a reload, however few there are
_RETRY_AFTER_S = 300  # what a crawler is told; a person mends a configuration in about that


def plain_name(file: str) -> str:
    """Return the name of the file that a stand-in's lines are told of with a label behind it."""
    return next((file.removesuffix(label) for label in _LABELS.values() if label and file.endswith(label)), file)


class Kept(Protocol):
    """Where last good versions are."""

    def find(self, key: str) -> Version | None:
        """Return the last good version of the part `key`, None if there is none."""


@dataclass(slots=True)
class _Broken:
    """A part that cannot be taken: what was wrong with it, and what stands in for it."""

    unit: Unit
    key: str
    errors: list[Diagnostic]
    version: Version | None
    step: int = -1
    nodes: list[Node] = field(default_factory=list)
    files: set[str] = field(default_factory=set)  # of its stand-in, with label

    @property
    def stand_in(self) -> str:
        """Return what is served instead."""
        return _STEPS[self.step]


def make_keys(tree: Tree) -> dict[str, Unit]:
    """Return the parts by their keys: a file's path, or path, addresses and name of a <VirtualHost>, the same at every reading."""
    keys: dict[str, Unit] = {}
    for unit in tree.units:
        node = tree.nodes[unit.start] if unit.line and unit.start < len(tree.nodes) else None
        key = f"{unit.file}#{node.rest}#{_first_word(node, 'servername')}" if node else unit.file
        shown, count = key, 1
        while shown in keys:
            count += 1
            shown = f"{key}#{count}"
        keys[shown] = unit
    return keys


def _first_word(node: Node, name: str) -> str:
    return next((child.rest for child in node.children or () if child.name == name), "")


def version_of(tree: Tree, unit: Unit) -> Version | None:
    """Return what a part is made of now; None if that is not known (it stood on the command line)."""
    if not unit.line:
        return Version(unit.files.get(unit.file, ""), unit.files, unit.matches)
    text = tree.shared.get(unit.file)
    return None if text is None else Version("\n".join(text.split("\n")[unit.line - 1 : unit.last]), unit.files, unit.matches)


class Isolation:
    """Puts the errors of one reading on its parts, and gives the nodes that stand in for those that are broken."""

    def __init__(self, tree: Tree, assumed: Assumptions, loader: Loader, environ: Mapping[str, str], kept: Kept,
                 expand: Callable[[str], list[Node]] | None = None) -> None:
        """expand: returns the nodes of a file that was not parsed (reuse.py)."""
        self._tree = tree
        self._expand = expand
        self._assumed = assumed
        self._loader = loader
        self._environ = environ
        self._kept = kept
        self._keys = make_keys(tree)
        self.broken: dict[str, _Broken] = {}

    def take(self, errors: list[Diagnostic]) -> bool:
        """Move every part that `errors` are in one step on; return False if one of them is in none, or none is left to move."""
        wanted: dict[str, list[Diagnostic]] = {}
        for error in errors:
            keys = self._find_keys(error)
            if not keys:
                return False
            for key in keys:
                wanted.setdefault(key, []).append(error)
        for key, found in wanted.items():
            if key not in self.broken:
                self.broken[key] = _Broken(self._keys[key], key, found, self._kept.find(key))
            if not self._advance(self.broken[key]):
                return False
        return bool(wanted)

    def patch(self) -> Tree:
        """Return the tree with the stand-ins in their places, and without the errors that they are there for."""
        nodes = list(self._tree.nodes)
        known = {error for one in self.broken.values() for error in one.errors}
        units = [one.unit for one in self.broken.values()]
        for one in sorted(self.broken.values(), key=lambda one: one.unit.start, reverse=True):
            if not any(_is_within(one.unit, unit) for unit in units):
                nodes[one.unit.start : one.unit.end] = one.nodes
        return Tree(nodes, self._tree.units, self._tree.shared, self._tree.defines, self._tree.includes,
                    [error for error in self._tree.errors if error not in known], self._tree.warnings, self._tree.server_root)

    @property
    def count(self) -> int:
        """Return how many parts there are."""
        return len(self._keys)

    def good_versions(self) -> dict[str, Version]:
        """Return what the parts that were taken are made of."""
        found = {key: version_of(self._tree, unit) for key, unit in self._keys.items() if key not in self.broken and not unit.is_ready}
        return {key: version for key, version in found.items() if version is not None}

    def unchanged(self) -> list[str]:
        """Return the parts that are made of what they were made of before."""
        return [key for key, unit in self._keys.items() if unit.is_ready and key not in self.broken]

    def _find_keys(self, error: Diagnostic) -> list[str]:
        """Return the parts that an error is put on; of two that do not go together the one that is new or was changed."""
        own = self._find_own(error)
        if not error.other or not all(self._is_as_kept(key) for key in own):
            return own
        file, _, line = error.other.rpartition(":")
        others = self._find_own(replace(error, file=file, line=int(line)))
        return others if others and not any(self._is_as_kept(key) for key in others) else own

    def _is_as_kept(self, key: str) -> bool:
        if self._keys[key].is_ready:
            return True
        kept, now = self._kept.find(key), version_of(self._tree, self._keys[key])
        return kept is not None and now is not None and (kept.text, dict(kept.files)) == (now.text, dict(now.files))

    def _find_own(self, error: Diagnostic) -> list[str]:
        stand_ins = [key for key, one in self.broken.items() if error.file in one.files]
        if stand_ins:
            return stand_ins
        for key, unit in self._keys.items():
            if error in unit.errors or (not unit.line and error.file == unit.file):
                return [key] if self._is_site(key, unit) else []
            if unit.line and error.file == unit.file and unit.line <= error.line <= unit.last:
                return [key]
        if error.file in self._tree.shared:
            return []
        readers = [key for key, unit in self._keys.items() if error.file in unit.files]
        return readers if all(self._is_site(key, self._keys[key]) for key in readers) else []

    def _is_site(self, key: str, unit: Unit) -> bool:
        return bool(unit.line or unit.is_ready or _HOST.search(unit.files.get(unit.file, ""))
                    or posixpath.basename(posixpath.dirname(unit.file)) == _SITES
                    or self._kept.find(key) is not None)

    # --- stand-ins ---------------------------------------------------------------------------------------------

    def _advance(self, one: _Broken) -> bool:
        """Take the next step that can be taken for a part."""
        while one.step + 1 < len(_STEPS):
            one.step += 1
            label = _LABELS[one.stand_in]
            one.files = {one.unit.file + label, *(path + label for path in (one.version.files if one.version else ()))}
            if one.stand_in == LEFT_OUT:
                one.nodes = []
                return True
            nodes = self._replay(one, label) if one.stand_in == LAST_GOOD else self._make_unavailable(one, label)
            if nodes and (one.step != _BARE or nodes != one.nodes):
                one.nodes = nodes
                return True
        return False

    def _replay(self, one: _Broken, label: str) -> list[Node]:
        """Return the nodes of a part's last good version, none if there is none or it cannot be read any more."""
        if one.version is None:
            return []
        builder = Builder(_Replay(one.version, self._loader), self._assumed, self._environ, label=label)
        builder.tree.defines = dict(self._tree.defines)
        shift = "\n" * max(0, one.unit.line - 1)  # so that lines are numbered as they were
        builder.feed_text(shift + one.version.text, one.unit.file + label)
        one.files |= {path + label for _, _, path in builder.tree.includes}
        return [] if builder.tree.errors else builder.tree.nodes

    def _make_unavailable(self, one: _Broken, label: str) -> list[Node]:
        """Return hosts with the names of the broken ones that answer 503."""
        nodes = self._tree.nodes[one.unit.start : one.unit.end]
        if one.unit.is_ready and self._expand is not None:
            nodes = self._expand(one.unit.file)
        found = [node for node in nodes if node.name == "<virtualhost" and node.rest]
        return [_unavailable(node, one.unit.file + label, is_bare=one.step == _BARE) for node in found]


def _is_within(unit: Unit, outer: Unit) -> bool:
    return outer is not unit and outer.start <= unit.start and unit.end <= outer.end and bool(unit.end - unit.start)


class _Replay:
    """Gives files as they were when a part was good; what it did not read then is as it is now."""

    def __init__(self, version: Version, loader: Loader) -> None:
        self._version = version
        self._loader = loader
        self.warnings: list[Diagnostic] = []

    def read(self, path: str) -> str:
        """Return a text."""
        return self._version.files[path] if path in self._version.files else self._loader.read(path)

    def match(self, pattern: str) -> list[str]:
        """Return what a pattern stood for."""
        return self._version.matches[pattern] if pattern in self._version.matches else self._loader.match(pattern)

    def exists(self, path: str) -> bool:
        """Tell whether `path` exists now."""
        return self._loader.exists(path)


def _unavailable(node: Node, file: str, *, is_bare: bool) -> Node:
    """Return a host that answers 503 by the names of another.

    One that has a key says so behind TLS, by its own user, for nobody else's process may have it. is_bare: neither user nor key.
    """
    has_key = not is_bare and any(child.name in _KEYS for child in node.children or ())
    wanted = _NAMING | _KEYS | {"assignuserid"} if has_key else _NAMING
    children = [child._replace(file=file) for child in node.children or () if child.name in wanted]
    for name, rest in (("redirect", "503 /"), ("header", f"always set Retry-After {_RETRY_AFTER_S}")):
        children.append(Node(name, rest, f"{name} {rest}", file, node.line, None))
    return node._replace(file=file, children=children)


# --- the whole -----------------------------------------------------------------------------------------------------------


def isolate(isolation: Isolation, first: Result, again: Callable[[Tree], Result], *, is_start: bool = True) -> Result:
    """Compile once more, and once more, until what is left is good.

    Args:
        isolation: of the tree that gave `first`.
        first: the first result.
        again: compiles a tree that has been patched.
        is_start: there is no server yet that could go on.
    Returns:
        A result without errors, whose `broken` says what was replaced; or the first one, if what is wrong is everybody's.
    """
    latest = first
    while latest.errors:
        if not isolation.take(latest.errors):
            return first
        latest = again(isolation.patch())
    unserved = [one for one in isolation.broken.values() if one.stand_in != LAST_GOOD]
    if not is_start and len(unserved) > _FEW and 2 * len(unserved) > isolation.count:
        return first  # what breaks most sites is no site; the server has a configuration to go on with
    latest.broken = [_describe(one) for one in isolation.broken.values()]
    latest.report = "".join(_report(one) for one in isolation.broken.values())
    latest.good = isolation.good_versions()
    latest.held = (*isolation.broken, *isolation.unchanged())
    if latest.compiled is not None and latest.broken:
        latest.compiled.plan = replace(latest.compiled.plan, broken_sites=tuple(latest.broken))
    return latest


def _hosts_of(one: _Broken) -> list[str]:
    names: list[str] = []
    for node in one.nodes:
        if node.name == "<virtualhost":
            try:
                names += split_words(_first_word(node, "servername"))[:1]
            except QuoteError:
                continue
    return list(dict.fromkeys(names))


def _describe(one: _Broken) -> BrokenSite:
    first = one.errors[0]
    return BrokenSite(one.unit.file, first.line, make_printable(first.reason), one.stand_in, one.version.when if one.version else "",
                      tuple(_hosts_of(one)))


def _report(one: _Broken) -> str:
    where = f"line {one.unit.line} of {one.unit.file}" if one.unit.line else one.unit.file
    names = " ".join(_hosts_of(one)) or "its hosts"
    ends = {
        LAST_GOOD: f"its last good version, of {one.version.when if one.version else ''}, is served",
        UNAVAILABLE: f"there is no good version of it to go on with: {names} will answer 503 until it is mended",
        LEFT_OUT: "there is no good version of it to go on with, and no name that could answer 503: nothing of it is served",
    }
    return format_errors(one.errors) + make_printable(f"the site of {where} was not taken: {ends[one.stand_in]}") + "\n"
