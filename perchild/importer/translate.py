"""httpd's tree -> the same for perchildd, and what became of each directive.

A line is understood (it stands in the result, as it was or in other words), without effect here, or missing. What perchildd's own
compiler refuses is missing, with the compiler's reason: so what is written passes perchildd -t. Where a missing line kept somebody out,
its place is closed (Require all denied), or the report says that it is weaker now.
Runs as: whoever calls perchildctl (pure, but for the compiler's look at users).
Before: source.py   After: write.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from perchild.config import known
from perchild.config.access import SECTION_KINDS
from perchild.config.directives import ALL_NAMES, SECTION_CONTEXTS, TABLE
from perchild.config.messages import Diagnostic
from perchild.config.tokens import QuoteError, split_words
from perchild.config.tree import Node, section_title
from perchild.importer import rewrite, rules

UNDERSTOOD, WITHOUT_EFFECT, MISSING = "understood", "without effect", "missing"
_ORDER = (UNDERSTOOD, WITHOUT_EFFECT, MISSING)
_FILES_SECTION = 'FilesMatch "\\.(php[0-9]?|phtml|phar)$"'
_HOST = "<virtualhost"

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the source. is_weaker: it kept somebody out, and nothing does so now."""

    file: str
    line: int
    text: str
    state: str
    note: str = ""
    is_weaker: bool = False


@dataclass(slots=True)
class Out:
    """A line of the result, or a comment (node None)."""

    node: Node | None
    comment: str = ""
    children: list[Out] | None = None


_CLOSED = "closed"  # comment of a line that nothing beside it may outvote; of a line it is not written


@dataclass(slots=True)
class Host:
    """A <VirtualHost> of the result. reason: why it is not enabled, "" if it is."""

    out: Out
    source: Node
    name: str
    user: str = ""
    reason: str = ""


@dataclass(slots=True)
class Translation:
    """The whole."""

    server: list[Out] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    findings: dict[Place, Finding] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    errors: list[Diagnostic] = field(default_factory=list)

    def nodes(self) -> list[Node]:
        """Return what the compiler is to read; hosts that are not enabled are not."""
        return [*to_nodes(self.server), *to_nodes(host.out for host in self.hosts if not host.reason)]


def to_nodes(outs: Iterable[Out]) -> list[Node]:
    """Return the nodes of a result, without comments."""
    return [out.node._replace(children=None if out.children is None else to_nodes(out.children)) for out in outs if out.node is not None]


def words_of(node: Node) -> list[str]:
    """Return a directive's arguments; as far as they go if a quote is not closed."""
    try:
        return split_words(node.rest)
    except QuoteError:
        return node.rest.split()


def translate(nodes: list[Node], server_root: str, check: Callable[[list[Node]], list[Diagnostic]]) -> Translation:
    """Translate a configuration.

    Args:
        nodes: the source's tree.
        server_root: the source's, for its relative paths.
        check: compiles a tree; what is wrong with it.
    Returns:
        The translation; its `errors` are what the compiler says of the whole that no line can be blamed for.
    """
    refused: dict[Place, str] = {}
    twice: set[Place] = set()
    while True:
        result = with_listeners(_Translator(nodes, server_root, refused, twice).run())
        errors = [error for error in check(result.nodes()) if not _is_about_people(error)]
        again = {(error.file, error.line) for error in errors if (error.file, error.line) in refused} - twice
        fresh = {(error.file, error.line): error.reason for error in errors if (error.file, error.line) not in refused}
        if not fresh and not again:
            result.errors = errors
            return result
        refused |= fresh
        twice |= again


def _is_about_people(error: Diagnostic) -> bool:
    """Tell whether an error is about this machine's users, not about the configuration."""
    return "there is no such user" in error.reason or "there is no such group" in error.reason


class _Translator:
    """Walks one tree. refused: lines that the compiler did not take, and why; twice: nor what stood in for them."""

    def __init__(self, nodes: list[Node], server_root: str, refused: Mapping[Place, str], twice: Collection[Place]) -> None:
        self._twice = twice
        self._nodes = nodes
        self._server_root = server_root
        self._refused = refused
        self._result = Translation()
        self._processors: dict[str, list[str]] = {}  # peruser's: name -> user, group
        self._default_identity: Node | None = None
        self._has_php = False  # of the scope that is being read
        self._name = ""  # of the host that is being read
        self._sections: dict[str, Callable[[Node, str], list[Out]]] = {
            "<limit": self._take_limit, "<limitexcept": self._take_limit, "<processor": self._take_processor}
        self._special: dict[str, Callable[[Node, str], list[Out]]] = {
            **dict.fromkeys((*rules.IDENTITIES, "serverenvironment"), self._take_identity_elsewhere),
            **dict.fromkeys(("multiplexer", "processor"), self._take_peruser), "listen": self._take_listen, "rmode": self._take_mode}

    def run(self) -> Translation:
        """Return the translation."""
        self._find_processors()
        hosts = [node for node in self._nodes if node.name == _HOST]
        self._result.server = self._take_all([node for node in self._nodes if node.name != _HOST], "")
        if self._has_php:
            self._result.server.append(_added("PHPPool", "on", hosts[0] if hosts else self._nodes[0]))
        for node in hosts:
            self._result.hosts.append(self._take_host(node))
        return self._result

    # --- what is found -----------------------------------------------------------------------------------------

    def _say(self, node: Node, state: str, note: str = "", *, is_weaker: bool = False) -> None:
        """Note what became of a line; of several uses of it (an included file) the worst counts."""
        place = (node.file, node.line)
        old = self._result.findings.get(place)
        if old is None or _ORDER.index(state) > _ORDER.index(old.state) or (is_weaker and not old.is_weaker):
            self._result.findings[place] = Finding(node.file, node.line, node.text, state, note, is_weaker)

    def _miss(self, node: Node, note: str, *, is_weaker: bool = False) -> list[Out]:
        self._say(node, MISSING, note, is_weaker=is_weaker)
        outs = [Out(None, f"missing: {_one_line(node)} ({note})")]
        for child in node.children or ():
            self._miss(child, f"within <{section_title(node)}>, which is not here", is_weaker=child.name in rules.PROTECTIVE)
        return outs

    # --- lines -------------------------------------------------------------------------------------------------

    def _take_all(self, nodes: Iterable[Node], context: str) -> list[Out]:
        """Translate the lines of one place; context: the section that they stand in."""
        outs: list[Out] = []
        rules_of_place = rewrite.Rules(context)
        for node in nodes:
            if node.name in rewrite.NAMES:
                outs += self._take_rewrite(node, rules_of_place)
            elif node.children is not None:
                outs += self._take_section(node, context)
            else:
                outs += self._take(node, context)
        for one in rules_of_place.take_conditions():
            outs += self._miss(one, "there is no RewriteRule behind it")
        return outs if context in SECTION_KINDS else _without_ways_in(outs)

    def _take(self, node: Node, context: str) -> list[Out]:
        name = node.name
        if name in self._special:
            return self._special[name](node, context)
        reason = rules.WITHOUT_EFFECT.get(name) or _why_without_effect(node)
        if reason:
            self._say(node, WITHOUT_EFFECT, reason)
            return []
        if _is_mod_php(node):
            self._has_php = True
            self._say(node, UNDERSTOOD, "PHPPool on: a php-fpm of the host's own user")
            return []
        if name.startswith("php_") and _turns_php_off(node):
            return self._turn_php_off(node, context)
        return self._take_known(node, context)

    def _take_known(self, node: Node, context: str) -> list[Out]:
        name, place = node.name, (node.file, node.line)
        if place in self._refused:
            return self._take_refused(node, context, self._refused[place])
        if name not in TABLE:
            return self._take_unknown(node, context)
        is_override = name == "allowoverride" and node.rest.strip().lower() != "none"
        self._say(node, MISSING if is_override else UNDERSTOOD, rules.MISSING["allowoverride"] if is_override else "", is_weaker=is_override)
        return [Out(self._absolute(node))]

    def _take_unknown(self, node: Node, context: str) -> list[Out]:
        name = node.name
        if name in rules.CLOSING:
            return self._close(node, context, "it is not here: the place is closed")
        module = known.find_module(name)
        note = rules.MISSING.get(name) or (f"a directive of {module}, which is not here" if module else
                                           known.explain(node.text.split(None, 1)[0], ALL_NAMES))
        return self._miss(node, note, is_weaker=name in rules.GUARDS)

    def _take_refused(self, node: Node, context: str, reason: str) -> list[Out]:
        if node.name in rules.CLOSING:
            return self._close(node, context, f"{reason}: the place is closed")
        return self._miss(node, reason, is_weaker=node.name in rules.PROTECTIVE)

    def _close(self, node: Node, context: str, note: str) -> list[Out]:
        """Shut a place whose rule of access cannot be had."""
        outs = self._miss(node, note)
        if context not in {"", _HOST} and (node.file, node.line) not in self._twice:
            outs.append(_shut(node, context, may_join=node.name == "require"))
        else:
            self._say(node, MISSING, note.removesuffix(": the place is closed"), is_weaker=True)
        return outs

    def _absolute(self, node: Node) -> Node:
        """Return a line whose relative path is absolute."""
        index = rules.PATHS.get(node.name)
        words = words_of(node)
        if index is None or index >= len(words) or words[index][:1] in {"/", "|", "$"} or words[index].startswith("syslog"):
            return node
        words[index] = f"{self._server_root}/{words[index]}"
        return node._replace(rest=" ".join(_quote(word) for word in words))

    def _take_listen(self, node: Node, context: str) -> list[Out]:
        """The protocol of a Listen is said by its hosts."""
        return self._take_known(node._replace(rest=(words_of(node) or [""])[0]), context)

    # --- PHP, rewriting ----------------------------------------------------------------------------------------

    def _turn_php_off(self, node: Node, context: str) -> list[Out]:
        if context != "<directory":
            return self._miss(node, "PHP cannot be turned off here: say Require all denied for its files", is_weaker=True)
        self._say(node, UNDERSTOOD, "PHP files are refused here")
        section = Node("<filesmatch", _FILES_SECTION.split(None, 1)[1], f"<{_FILES_SECTION}>", node.file, node.line, [])
        return [Out(section, "", [_added("Require", "all denied", node)])]

    def _take_rewrite(self, node: Node, known_rules: rewrite.Rules) -> list[Out]:
        if node.name == "rewritecond":
            known_rules.add_condition(node)
            return []
        if node.name != "rewriterule":
            return self._take(node, known_rules.context)
        conditions = known_rules.take_conditions()
        is_refused = (node.file, node.line) in self._refused
        found = None if is_refused else known_rules.translate(conditions, node)
        if found is None or ("{name}" in found[1] and not self._name):
            outs: list[Out] = []
            for one in (*conditions, node):
                outs += self._miss(one, "URLs are not rewritten", is_weaker=one is node and rewrite.is_refusal(node))
            return outs
        name, rest, note = found
        for one in (*conditions, node):
            self._say(one, UNDERSTOOD, note)
        return [_added(name, rest.replace("{name}", self._name), node)]

    # --- sections ----------------------------------------------------------------------------------------------

    def _take_section(self, node: Node, context: str) -> list[Out]:
        special = self._sections.get(node.name)
        if special is not None:
            return special(node, context)
        if (node.file, node.line) in self._refused and node.name in SECTION_KINDS:
            return self._close(node, context, f"{self._refused[node.file, node.line]}: the place is closed")
        if (node.file, node.line) in self._refused:
            return self._miss(node, self._refused[node.file, node.line], is_weaker=_has_protection(node))
        if node.name not in SECTION_CONTEXTS:
            return self._miss(node, rules.MISSING.get(node.name.strip("<"), f"<{section_title(node)}> is not here"),
                              is_weaker=_has_protection(node))
        self._say(node, UNDERSTOOD)
        return [Out(node, "", self._take_all(node.children or (), node.name))]

    def _take_limit(self, node: Node, context: str) -> list[Out]:
        """<Limit> that keeps out closes its place; one that lets in is none; <LimitExcept> that keeps out leaves a door open."""
        strict = [child for child in node.children or () if child.name in rules.CLOSING and not _lets_in(child)]
        if node.name == "<limit" and strict and context not in {"", _HOST}:
            return [*self._miss(node, "rules for methods are not here: the place is closed"), _shut(node, context)]
        if not strict:
            for one in (node, *(node.children or ())):
                self._say(one, WITHOUT_EFFECT, "it lets in who may come in anyhow")
            return []
        return self._miss(node, "rules for methods are not here: other methods than these are not refused", is_weaker=True)

    # --- identities --------------------------------------------------------------------------------------------

    def _find_processors(self) -> None:
        for node in self._nodes:
            if node.name == "<processor" and words_of(node):
                values = {child.name: words_of(child) for child in node.children or ()}
                if "user" in values and "group" in values:
                    self._processors[words_of(node)[0]] = [*values["user"][:1], *values["group"][:1]]
            elif node.name in rules.IDENTITIES:
                self._default_identity = node

    def _take_processor(self, node: Node, _context: str) -> list[Out]:
        self._say(node, UNDERSTOOD, "hosts that name it get AssignUserID")
        for child in node.children or ():
            if child.name in {"user", "group"}:
                self._say(child, UNDERSTOOD, "hosts that name it get AssignUserID")
            elif child.name in rules.WITHOUT_EFFECT:
                self._say(child, WITHOUT_EFFECT, rules.WITHOUT_EFFECT[child.name])
            else:
                self._miss(child, rules.MISSING.get(child.name, "limits are a host's: see docs/limits.md"), is_weaker=child.name in rules.GUARDS)
        return []

    def _take_peruser(self, node: Node, _context: str) -> list[Out]:
        words = words_of(node)
        if node.name == "processor" or len(words) < 2:  # noqa: PLR2004
            self._say(node, WITHOUT_EFFECT, "the hosts say who serves them")
            return []
        self._say(node, UNDERSTOOD, "User and Group of those that accept")
        return [_added("User", words[0], node), _added("Group", words[1], node)]

    def _take_mode(self, node: Node, _context: str) -> list[Out]:
        if words_of(node)[:1] == ["config"]:
            self._say(node, WITHOUT_EFFECT, rules.NO_MODES)
            return []
        return self._miss(node, "mod_ruid2 served each file as its owner; here a host has one user: see that AssignUserID names him", is_weaker=True)

    def _take_identity_elsewhere(self, node: Node, context: str) -> list[Out]:
        if context == "":
            self._say(node, UNDERSTOOD, "hosts without an identity of their own get it")
            return []
        return self._miss(node, "a whole host is served by one user: give what stands here a host of its own")

    def _identity_of(self, node: Node) -> list[str]:
        words = words_of(node)
        if node.name == "serverenvironment" and len(words) == 1:
            return self._processors.get(words[0], [])
        return words[:2] if len(words) > 1 else []

    def _choose_identity(self, node: Node) -> Out | None:
        """Return the AssignUserID of a host: of its identities the strongest, else the server's."""
        names = (*rules.IDENTITIES, "serverenvironment")
        found = sorted((child for child in node.children or () if child.name in names), key=lambda child: names.index(child.name))
        chosen = next((child for child in found if self._identity_of(child)), None)
        for child in found:
            if child is chosen:
                self._say(child, UNDERSTOOD, "" if child.name == "assignuserid" else "AssignUserID")
                if len(words_of(child)) > len(self._identity_of(child)) > 1:  # peruser: ServerEnvironment USER GROUP CHROOT
                    self._say(child, MISSING, f"AssignUserID, and {rules.MISSING['chroot']}", is_weaker=True)
            elif chosen is None:
                self._miss(child, "who this is cannot be told")
            else:
                self._say(child, WITHOUT_EFFECT, f"line {chosen.line} says who serves this host")
        chosen = chosen or self._default_identity
        words = self._identity_of(chosen) if chosen else []
        self._result.users.update(words[:1])
        return _added("AssignUserID", " ".join(_quote(word) for word in words), chosen) if chosen and words else None

    # --- hosts -------------------------------------------------------------------------------------------------

    def _take_host(self, node: Node) -> Host:
        server_has_php, self._has_php = self._has_php, False
        identity = self._choose_identity(node)
        name = next((words_of(child)[0] for child in node.children or () if child.name == "servername" and words_of(child)), "")
        self._name = (name.partition("://")[2] or name).partition(":")[0]
        names = (*rules.IDENTITIES, "serverenvironment")
        outs = self._take_all([child for child in node.children or () if child.name not in names], _HOST)
        if identity is not None:
            outs.insert(_after_names(outs), identity)
        if self._has_php and not server_has_php:
            outs.append(_added("PHPPool", "on", node))
        self._has_php = server_has_php
        self._say(node, UNDERSTOOD)
        user = words_of(identity.node)[0] if identity is not None and identity.node is not None else ""
        return Host(Out(node, "", outs), node, self._name, user, self._why_not(node))

    def _why_not(self, node: Node) -> str:
        """Return why a host must not be enabled: without what is missing it would be something else."""
        if (node.file, node.line) in self._refused:
            return self._refused[node.file, node.line]
        for child in node.children or ():
            found = self._result.findings.get((child.file, child.line))
            is_missing = found is not None and found.state == MISSING
            if is_missing and child.name == "sslengine" and child.rest.strip().lower() == "on":
                return "TLS is not here: it would be served in plain text"
            if child.name in {"assignuseridexpr", "assigngroupidexpr"}:
                return "who serves it depends on the request: write a host for each user"
        return ""


def _added(name: str, rest: str, at: Node) -> Out:
    return Out(Node(name.lower(), rest, f"{name} {rest}", at.file, at.line, None))


def _after_names(outs: list[Out]) -> int:
    """Return the place behind a host's names, where AssignUserID is looked for by people."""
    names = [index for index, out in enumerate(outs) if out.node is not None and out.node.name in {"servername", "serveralias"}]
    return names[-1] + 1 if names else 0


def _quote(word: str) -> str:
    return f'"{word}"' if not word or any(char in word for char in " \t\"'") else word


def _one_line(node: Node) -> str:
    return " ".join(node.text.split())


def _why_without_effect(node: Node) -> str:
    """Return why a line has no effect here, by what it says."""
    row = TABLE.get(node.name)
    if row is not None and row.store == "ignore":
        return row.doc.removeprefix("Without effect: ")
    is_match = node.name in {"browsermatch", "browsermatchnocase"}
    if is_match and all(word.partition("=")[0].lower() in rules.OLD_BROWSERS for word in words_of(node)[1:]):
        return "it is about browsers of the last century"
    return ""


def _is_mod_php(node: Node) -> bool:
    if node.name not in {"sethandler", "addhandler", "addtype", "forcetype"}:
        return False
    word = (words_of(node) or [""])[0].lower()
    return any(word == one or (word.startswith(one) and re.fullmatch(r"\w+", word[len(one):]) is not None) for one in rules.MOD_PHP)


def _turns_php_off(node: Node) -> bool:
    words = [word.lower() for word in words_of(node)]
    return len(words) > 1 and words[0] == "engine" and words[1] in {"off", "0", "false", "no"}


def _shut(node: Node, context: str, *, may_join: bool = False) -> Out:
    """Return the line that closes a place. may_join: it stands for one Require among others, which may let in as before."""
    out = _added("Require", "all granted" if context == "<requirenone" else "all denied", node)
    out.comment = "" if may_join else _CLOSED
    return out


def _without_ways_in(outs: list[Out]) -> list[Out]:
    """Return the lines of a place; if it is closed, without those beside it that would let somebody in all the same."""
    if not any(out.comment == _CLOSED for out in outs):
        return outs
    ways_in = {"require", "satisfy", *SECTION_KINDS}
    return [out for out in outs if out.comment == _CLOSED or out.node is None or out.node.name not in ways_in]


def _lets_in(node: Node) -> bool:
    words = [word.lower() for word in words_of(node)]
    return (node.name, words) in (("require", ["all", "granted"]), ("allow", ["from", "all"])) or node.name == "order"


def _has_protection(node: Node) -> bool:
    return any((child.name in rules.CLOSING and not _lets_in(child)) or child.name in rules.LIMITS or _has_protection(child)
               for child in node.children or ())


def with_listeners(translation: Translation) -> Translation:
    """Return a translation that listens: where the source says nowhere, on the ports of its hosts."""
    if any(out.node is not None and out.node.name == "listen" for out in translation.server):
        return translation
    ports: dict[str, Node] = {}
    for host in translation.hosts:
        for word in words_of(host.source):
            port = word.rpartition(":")[2] if ":" in word.rpartition("]")[2] else "80"
            if port.isdecimal():
                ports.setdefault(port, host.source)
    added = [_added("Listen", port, node) for port, node in ports.items()]
    return replace(translation, server=[*added, *translation.server])
