"""Tree -> drafts: every directive looked up in the table, checked for its place, its arguments parsed, its value stored.

Sections become bytes here at once: those of thousands of hosts are alike but for their path, so their contents are compiled once.
All errors are gathered; none ends the reading.
Runs as: compile (pure).  Trusts: nothing.
Before: tree.py   After: compile.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from perchild.config import access, known, proxies
from perchild.config.directives import ALL_NAMES, SECTION_CONTEXTS, TABLE
from perchild.config.encode import pack_section, pack_settings
from perchild.config.merge import Settings, store_value
from perchild.config.messages import BadDirectiveError, Diagnostic, locate
from perchild.config.rows import HOST, SECTION, SERVER, Row, check_count
from perchild.config.tokens import QuoteError, split_words, word_columns
from perchild.config.tree import KNOWN, Node, section_title
from perchild.config.values import Env, pack_ip, split_address
from perchild.wire import record

# Section -> (wire kind of the plain form, of the ~ form).
_KINDS = {"<directory": (0, 1), "<directorymatch": (1, 1), "<files": (2, 3), "<filesmatch": (3, 3), "<location": (4, 5),
          "<locationmatch": (5, 5)}
_PATTERN_KINDS = frozenset((1, 3, 5))
_INNER = frozenset(("<files", "<filesmatch"))
_LOCATION = 4
_PLACED = frozenset(("redirects", "proxy_reverse"))  # their meaning depends on where they stand
_HOST_SECTION = "<virtualhost"


@dataclass(slots=True)
class Draft:
    """What one host says (or the main server): values by field, its sections as (wire kind, depth, bytes)."""

    node: Node | None
    addresses: list[tuple[int, bytes, int, str]] = field(default_factory=list)  # family (0 any), packed, port (0 any), as written
    host: Settings = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    settings_key: list[tuple[str, str]] = field(default_factory=list)  # what `settings` were made of
    sections: list[tuple[int, int, bytes]] = field(default_factory=list)
    has_programs: bool = False  # something here is run as a program by the host's user
    wrappers: list[str] = field(default_factory=list)  # commands of FcgidWrapper
    asks: list[Node] = field(default_factory=list)  # sections' directives that count on a certificate of the client's
    php_names: dict[str, bool] = field(default_factory=dict)  # PHP's settings that sections change: whether one does by php_admin_value
    source: str = ""  # hash of its nodes, if somebody wants to know (reuse.py)
    speaks: tuple[bool, bool] | None = None  # TLS, HTTP/2 without it; None: not known yet
    is_plain: bool = False  # nothing was wrong or odd in it, and all that it says is its own
    expand: Callable[[], Draft] | None = None  # it is known from before, in part; this returns all of it


class Contents(NamedTuple):
    """What is within a section: its items, and what its host takes from it."""

    raw: bytes
    passes: tuple[Any, ...]
    has_programs: bool
    wrappers: tuple[str, ...]
    php_names: Mapping[str, bool]
    asks: tuple[Node, ...]


@dataclass(slots=True)
class Collected:
    """All of a configuration, by host."""

    server: Settings = field(default_factory=dict)
    main: Draft = field(default_factory=lambda: Draft(None))
    hosts: list[Draft] = field(default_factory=list)


class KnownSites(Protocol):
    """Site files that were not parsed (reuse.py)."""

    def drafts_of(self, path: str) -> list[Draft]:
        """Return what is known of the hosts of a file."""

    def expand(self, path: str) -> list[Node]:
        """Parse the file after all; return its hosts."""


class Collector:
    """Walks one tree. `errors` and `warnings` grow; `result` is what was understood."""

    def __init__(self, env: Env, known_sites: KnownSites | None = None) -> None:
        """known_sites: those that a node called tree.KNOWN stands for; with it, drafts say what they are made of."""
        self.env = env
        self._known_sites = known_sites
        self.result = Collected()
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self._values: dict[tuple[str, str], Any] = {}
        self._contents: dict[Any, Contents] = {}
        self._proxies = proxies.Reader(env, self.fail, self._take_inside)
        self._node: Node | None = None
        self._is_odd = False  # the host being read: a directive that is about the whole server, or that was warned of elsewhere
        self._odd: set[Any] = set()  # keys of _values and _contents that were warned of, once
        env.warn = self._warn

    def collect(self, nodes: Sequence[Node]) -> Collected:
        """Take all top-level nodes."""
        main = self.result.main
        self._proxies.find_of_server(nodes)
        for node in nodes:
            if node.name == KNOWN and self._known_sites is not None:
                self._take_known(node.rest, self._known_sites)
            elif node.children is None:
                self._take(node, SERVER, main, "")
            elif node.name == _HOST_SECTION:
                self.result.hosts.append(self._take_host(node))
            elif node.name == proxies.SECTION:
                pass  # taken before
            else:
                self._take_section(node, main, SERVER, "")
        return self.result

    def fail(self, node: Node, reason: str, word: int = -1) -> None:
        """Note an error at argument `word` of `node`."""
        self.errors.append(locate(node.file, node.line, node.text, reason, word))

    def _warn(self, reason: str, word: int) -> None:
        if self._node is not None:
            node = self._node
            self.warnings.append(locate(node.file, node.line, node.text, reason, word, ""))

    # --- one directive -----------------------------------------------------------------------------------------

    def _take(self, node: Node, place: int, draft: Draft, context: str) -> None:
        row = TABLE.get(node.name)
        if row is None:
            self.fail(node, known.explain(node.text.split(None, 1)[0], ALL_NAMES))
            return
        if not row.contexts & place:
            self._refuse_place(node, row.name, context)
            return
        if row.scope == "settings":
            self._store_setting(node, row, draft, context)
            draft.settings_key.append((node.name, node.rest))
            return
        try:
            value = self._parse(node, row, context)
        except BadDirectiveError as error:
            self.fail(node, error.reason, error.word)
            return
        self._is_odd = self._is_odd or row.scope == "server"
        target = self.result.server if row.scope == "server" else draft.host
        store_value(target, row.field, row.store, (value, node) if row.is_located else value)

    def _store_setting(self, node: Node, row: Row, draft: Draft, context: str) -> None:
        key = (node.name, node.rest)
        settings = draft.settings
        value = self._values.get(key)
        self._is_odd = self._is_odd or key in self._odd
        if value is None:
            warned = len(self.warnings)
            try:
                value = self._parse(node, row, context)
            except BadDirectiveError as error:
                self.fail(node, error.reason, error.word)
                return
            if len(self.warnings) != warned:
                self._odd.add(key)
            if row.field not in _PLACED and not (self.env.workers and row.field in proxies.HANDLERS):
                self._values[key] = value
        store_value(settings, row.field, row.store, (value, node) if row.is_located else value)
        if row.field in proxies.PROGRAM_FIELDS:
            self._note_programs(draft, row.field, value)

    def _note_programs(self, draft: Draft, field_name: str, value: Any) -> None:  # noqa: ANN401 (any field's)
        draft.has_programs = draft.has_programs or proxies.is_run_here(field_name, value)
        draft.wrappers += proxies.find_wrappers(field_name, value)
        timeout_ms = proxies.find_timeout_ms(field_name, value, self.env.workers)
        if timeout_ms:
            draft.settings.setdefault("proxy_timeout_ms", timeout_ms)

    def _parse(self, node: Node, row: Row, context: str) -> Any:  # noqa: ANN401 (any field's)
        try:
            words = split_words(node.rest)
        except QuoteError as error:
            columns = word_columns(node.text)
            raise BadDirectiveError(str(error), len(columns) - 2) from None
        if not row.low <= len(words) <= row.high:
            check_count(row, words)
        self._node = node
        self.env.context = context
        try:
            return row.parse(words, self.env)
        except BadDirectiveError as error:
            if error.reason.startswith("must be"):
                error.reason = f"{row.name} {error.reason}"
            raise

    def _refuse_place(self, node: Node, name: str, context: str) -> None:
        where = f"<{_TITLES.get(context, context[1:])}> context" if context else "the server's context, outside of any section"
        self.fail(node, f"{name} not allowed in {where}")

    # --- sections ----------------------------------------------------------------------------------------------

    def _take_section(self, node: Node, draft: Draft, place: int, context: str) -> None:
        contexts = SECTION_CONTEXTS.get(node.name)
        if contexts is None:
            self.fail(node, known.explain("<" + section_title(node) + ">", ALL_NAMES))
            return
        if not contexts & place or node.name not in _KINDS:
            self._refuse_place(node, f"<{section_title(node)}>", context)
            return
        try:
            kind, depth, raw, contents = self._compile_section(node)
        except BadDirectiveError as error:
            self.fail(node, error.reason, error.word)
            return
        draft.sections.append((kind, depth, raw))
        _add_contents(draft, contents)

    def _compile_section(self, node: Node) -> tuple[int, int, bytes, Contents]:
        kind, pattern = self._parse_pattern(node)
        key = _content_key(node)
        if self.env.workers:
            key = (key, self._proxies.key)
        if kind >= _LOCATION:
            self.env.location, self.env.is_location_pattern = pattern, kind > _LOCATION
            if any(child.name.startswith("proxypass") for child in node.children or ()):
                key = (key, pattern)
        contents = self._contents.get(key)
        self._is_odd = self._is_odd or key in self._odd
        if contents is None:
            before, warned = len(self.errors), len(self.warnings)
            contents = self._compile_contents(node)
            if len(self.warnings) != warned:
                self._odd.add(key)
            if len(self.errors) == before and not contents.asks:  # of which each is to be found in its own file
                self._contents[key] = contents
        depth = pattern.count("/") if kind == 0 and pattern != "/" else 0
        return kind, depth, pack_section(kind, pattern, contents.raw), contents

    def _parse_pattern(self, node: Node) -> tuple[int, str]:
        try:
            words = split_words(node.rest)
        except QuoteError as error:
            raise BadDirectiveError(str(error), 0) from None
        plain, regex = _KINDS[node.name]
        is_tilde = len(words) == 2 and words[0] == "~"  # noqa: PLR2004
        if len(words) != 1 and not is_tilde:
            message = f"<{section_title(node)}> takes one argument"
            raise BadDirectiveError(message, 1 if words else -1)
        kind, word = (regex, words[1]) if is_tilde else (plain, words[0])
        if kind in _PATTERN_KINDS:
            return kind, self.env.pattern(word, len(words) - 1)
        if kind == 0:
            return kind, self.env.path(word)
        if kind == 4 and not word.startswith(("/", "*")) and "://" not in word:  # noqa: PLR2004
            message = f"<Location> needs a URL path that begins with '/', not '{word}'"
            raise BadDirectiveError(message, 0)
        return kind, word

    def _take_inside(self, node: Node, context: str) -> tuple[Settings, Settings]:
        """Return settings and host's values of a section that is neither of URLs nor of files."""
        draft = Draft(node)
        for child in node.children or ():
            if child.children is None:
                self._take(child, SECTION, draft, context)
            elif child.name in access.SECTION_KINDS:
                self._take_container(child, draft.settings.setdefault("require", []), context)
            else:
                self._take_section(child, draft, 0, context)
        return draft.settings, draft.host

    def _compile_contents(self, node: Node) -> Contents:
        draft = Draft(node)
        inner: list[bytes] = []
        requirements: list[tuple[access.Requirement, Node]] = []
        for child in node.children or ():
            if child.children is None:
                self._take(child, SECTION, draft, node.name)
            elif child.name in access.SECTION_KINDS:
                self._take_container(child, requirements, node.name)
            elif child.name in _INNER and node.name.startswith("<directory"):
                self._take_inner(child, inner, draft)
            else:
                self._take_section(child, draft, 0, node.name)
        requirements = draft.settings.pop("require", []) + requirements
        if requirements:
            self._join(node, "any", requirements, "<RequireAny>", draft.settings)
        if "tls_verify" in draft.host:
            draft.settings["ssl_verify"], asked_at = draft.host["tls_verify"]
            draft.asks += [asked_at] if draft.settings["ssl_verify"] else []
        for is_admin, name in draft.settings.get("php_values", ()):
            draft.php_names[name] = draft.php_names.get(name, False) or is_admin
        return Contents(pack_settings(draft.settings) + b"".join(inner), tuple(draft.host.get("passes", ())), draft.has_programs,
                        tuple(draft.wrappers), draft.php_names, tuple(draft.asks))

    def _take_inner(self, node: Node, inner: list[bytes], draft: Draft) -> None:
        try:
            _, _, raw, contents = self._compile_section(node)
        except BadDirectiveError as error:
            self.fail(node, error.reason, error.word)
            return
        inner.append(record.item("SECTION_INNER", raw))
        _add_contents(draft, contents)

    def _join(self, node: Node, kind: str, parts: list[tuple[access.Requirement, Node]], shown: str, settings: Settings) -> None:
        try:
            settings["require"] = access.join_requirements(kind, [part for part, _ in parts], shown)
        except BadDirectiveError as error:
            at = next((place for part, place in parts if part.is_negative), node)
            self.fail(at, error.reason)

    def _take_container(self, node: Node, into: list[tuple[access.Requirement, Node]], context: str) -> None:
        parts: list[tuple[access.Requirement, Node]] = []
        for child in node.children or ():
            if child.name in access.SECTION_KINDS and child.children is not None:
                self._take_container(child, parts, node.name)
            elif child.name == "require":
                draft = Draft(node)
                self._take(child, SECTION, draft, context)
                parts += draft.settings.get("require", [])
            else:
                self._refuse_place(child, child.text.split(None, 1)[0], node.name)
        settings: Settings = {}
        if not parts:
            return
        self._join(node, access.SECTION_KINDS[node.name], parts, access.requirement_name(node), settings)
        if "require" in settings:
            into.append((settings["require"], node))

    # --- hosts -------------------------------------------------------------------------------------------------

    def _take_known(self, path: str, sites: KnownSites) -> None:
        for index, draft in enumerate(sites.drafts_of(path)):
            draft.expand = partial(self._expand, draft, sites, path, index)
            self.result.hosts.append(draft)

    def _expand(self, known_draft: Draft, sites: KnownSites, path: str, index: int) -> Draft:
        draft = self._take_host(sites.expand(path)[index])
        draft.speaks = known_draft.speaks
        return draft

    def _take_host(self, node: Node) -> Draft:
        draft = Draft(node)
        before = (len(self.errors), len(self.warnings))
        self._is_odd = False
        self._take_addresses(node, draft)
        has_own = self._proxies.find_of_host(node.children or ())
        if has_own:
            draft.settings_key.append(("", self._proxies.key))  # two hosts may give one name to two back ends
        take = self._take
        for child in node.children or ():
            if child.children is None:
                take(child, HOST, draft, _HOST_SECTION)
            elif child.name != proxies.SECTION:
                self._take_section(child, draft, HOST, _HOST_SECTION)
        if has_own:
            self._proxies.leave_host()
        if self._known_sites is not None:
            draft.source = hash_nodes(node)
            draft.is_plain = (len(self.errors), len(self.warnings)) == before and not self._is_odd
        return draft

    def _take_addresses(self, node: Node, draft: Draft) -> None:
        try:
            words = split_words(node.rest)
        except QuoteError as error:
            self.fail(node, str(error), 0)
            return
        if not words:
            self.fail(node, "<VirtualHost> directive requires additional arguments: address[:port] ...")
        for index, word in enumerate(words):
            try:
                draft.addresses += self._parse_address(node, word, index)
            except BadDirectiveError as error:
                self.fail(node, error.reason, error.word)

    def _parse_address(self, node: Node, word: str, index: int) -> list[tuple[int, bytes, int, str]]:
        host, port = split_address(word, index)
        if host in {"*", ""} or host.lower() == "_default_":
            if not host:
                message = f"'{word}' has no address before its port; write *{word}"
                raise BadDirectiveError(message, index)
            return [(0, b"", port, word)]
        address = pack_ip(host)
        if address is not None:
            return [(*address, port, word)]
        found = self.env.resolve(host)
        if not found:
            self._node = node
            self.env.warn(f"Could not resolve host name {host} -- ignoring!", index)
        return [(family, packed, port, word) for family, packed in found]


def _add_contents(draft: Draft, contents: Contents) -> None:
    """Give the host, or the outer section, what it takes from a section."""
    if contents.passes:
        draft.host.setdefault("passes", []).extend(contents.passes)
    draft.has_programs = draft.has_programs or contents.has_programs
    draft.wrappers += contents.wrappers
    draft.asks += contents.asks
    for name, is_admin in contents.php_names.items():
        draft.php_names[name] = draft.php_names.get(name, False) or is_admin


def hash_nodes(nodes: Node | Sequence[Node]) -> str:
    """Return a hash of nodes and all below them."""
    return hashlib.sha256(json.dumps(nodes).encode()).hexdigest()


_TITLES = {"<proxy": "Proxy", "<virtualhost": "VirtualHost", "<directory": "Directory", "<directorymatch": "DirectoryMatch", "<files": "Files",
           "<filesmatch": "FilesMatch", "<location": "Location", "<locationmatch": "LocationMatch", "<requireall": "RequireAll",
           "<requireany": "RequireAny", "<requirenone": "RequireNone"}


def _content_key(node: Node) -> tuple[Any, ...]:
    """Return what the contents of a section depend on: its kind and the lines in it, whatever its path."""
    return (node.name, *((child[0], child[1], None if child[5] is None else _content_key(child)) for child in node.children or ()))
