"""From a URL's path to a place, and the lines that count there: native/map.c's order, told from the configuration.

Runs as: whoever calls perchildctl (pure).
Before: explain_host.py   After: explain.py
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from perchild.config.access import SECTION_KINDS
from perchild.config.directives import TABLE
from perchild.config.merge import MERGES
from perchild.config.tokens import QuoteError, split_words
from perchild.config.tree import Node, section_title
from perchild.control.explain_host import wild_pattern

_DIRECTORIES = ("<directory", "<directorymatch")
_FILES = ("<files", "<filesmatch")
_LOCATIONS = ("<location", "<locationmatch")
_PASSES = frozenset(("proxypass", "proxypassmatch", "appserver", "wsgiscriptalias"))
_ALIASES = frozenset(("alias", "aliasmatch", "scriptalias", "scriptaliasmatch"))
_REDIRECTS = frozenset(("redirect", "redirectmatch", "redirectpermanent", "redirecttemp"))
_WORDS = {"permanent": 301, "temp": 302, "seeother": 303, "gone": 410}
_CODES = {"redirectpermanent": 301, "redirecttemp": 302}
_ACCESS_FIELDS = ("require", "order", "allow", "deny")


def words_of(node: Node) -> list[str]:
    """Return a line's arguments."""
    try:
        return split_words(node.rest)
    except QuoteError:
        return node.rest.split()


def _search(pattern: str, text: str) -> re.Match[str] | None:
    try:
        return re.search(pattern, text)
    except re.error:
        return None  # PCRE2 knows forms that Python's re does not


def _fits_prefix(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def _expand(target: str, match: re.Match[str]) -> str:
    return re.sub(r"\$(\d)", lambda one: match.group(int(one.group(1))) or "" if int(one.group(1)) <= (match.re.groups) else "", target)


@dataclass(slots=True)
class Place:
    """Where a URL leads. file: "" if it is passed on or redirected; line: what decided."""

    file: str = ""
    line: Node | None = None
    redirect: tuple[int, str] | None = None
    passed_to: str = ""
    is_script: bool = False
    layers: list[tuple[str, Node | None, list[Node]]] = field(default_factory=list)  # title, section, its lines


def find_place(path: str, main: list[Node], host: Node | None, document_root: str) -> Place:
    """Return where `path` leads in a host (None: the main server): to a back end, elsewhere, or to a file."""
    own = host.children or [] if host else []
    place = Place()
    for node in (one for one in (*own, *main) if one.name in _PASSES):
        target = _try_pass(node, path)
        if target == "!":
            break
        if target:
            place.passed_to, place.line = target, node
            return place
    for node in (one for one in (*own, *main) if one.name in _REDIRECTS):
        place.redirect = _try_redirect(node, path)
        if place.redirect is not None:
            place.line = node
            return place
    return find_file(path, main, host, document_root)


def find_file(path: str, main: list[Node], host: Node | None, document_root: str) -> Place:
    """Return the file that `path` is, by an alias or below the document root."""
    own = host.children or [] if host else []
    place = Place()
    for node in (one for one in (*own, *main) if one.name in _ALIASES):
        found = _try_alias(node, path)
        if found is not None:
            place.file, place.line, place.is_script = found, node, node.name.startswith("script")
            return place
    roots = [one for one in (*own, *main) if one.name == "documentroot"]
    place.file, place.line = document_root.rstrip("/") + path, roots[0] if roots else None
    return place


def _try_redirect(node: Node, path: str) -> tuple[int, str] | None:
    words = words_of(node)
    status = _CODES.get(node.name, 302)
    if words and node.name in {"redirect", "redirectmatch"} and (words[0].lower() in _WORDS or words[0].isdecimal()):
        status = _WORDS.get(words[0].lower()) or int(words[0])
        words = words[1:]
    target = words[1] if len(words) > 1 else ""
    if not words:
        return None
    if node.name == "redirectmatch":
        match = _search(words[0], path)
        return (status, _expand(target, match)) if match else None
    return (status, target + path[len(words[0]) :] if target else "") if _fits_prefix(path, words[0]) else None


def find_section_redirect(settings: dict[str, list[Setting]], path: str) -> tuple[tuple[int, str], Node] | None:
    """Return the redirect of a <Location> or <Directory> that applies, and its line."""
    for one in settings.get("redirects", []):
        if one.section == "server" or one.section.startswith("<VirtualHost"):
            continue
        words = words_of(one.node)
        is_status = one.node.name == "redirect" and bool(words) and (words[0].isdecimal() or words[0].lower() in _WORDS)
        rest = words[1:] if is_status else words
        has_path = len(rest) > 1 or one.node.name == "redirectmatch"
        node = one.node if has_path else one.node._replace(rest=" ".join([*words[: len(words) - len(rest)], "/", *rest]))
        found = _try_redirect(node, path if has_path else "/")
        if found is not None:
            return found, one.node
    return None


def _try_pass(node: Node, path: str) -> str:
    words = words_of(node)
    if node.name == "proxypassmatch" and len(words) > 1:
        match = _search(words[0], path)
        return _expand(words[1], match) if match else ""
    origin = words[0] if words and words[0].startswith("/") else "/"
    target = words[1] if words and words[0].startswith("/") and len(words) > 1 else " ".join(words)
    return target if _fits_prefix(path, origin) else ""


def _try_alias(node: Node, path: str) -> str | None:
    words = words_of(node)
    if len(words) < 2:  # noqa: PLR2004
        return None
    if node.name.endswith("match"):
        match = _search(words[0], path)
        return _expand(words[1], match) if match else None
    if not _fits_prefix(path, words[0]):
        return None
    rest = path[len(words[0]) :].lstrip("/")
    return f"{words[1].rstrip('/')}/{rest}" if rest or path.endswith("/") else words[1].rstrip("/") or "/"


# --- layers --------------------------------------------------------------------------------------------------------------


def find_layers(place: Place, path: str, main: list[Node], host: Node | None) -> None:
    """Fill in the layers of a place, from the least to the most specific: outside of sections, Directory, Files, Location."""
    own = host.children or [] if host else []
    place.layers = [("server", None, _plain(main))]
    if host is not None:
        place.layers.append((f"<VirtualHost {host.rest}>", host, _plain(own)))
    both = [*main, *own]
    if not place.passed_to:
        _add_directories(place, both)
    for node in both:
        if node.name in _LOCATIONS and _fits_location(node, path):
            place.layers.append((_title(node), node, node.children or []))


def _add_directories(place: Place, nodes: list[Node]) -> None:
    plain = [node for node in nodes if node.name == "<directory" and not _is_pattern(node) and _fits_directory(node, place.file)]
    plain.sort(key=lambda node: 0 if words_of(node)[0] == "/" else words_of(node)[0].rstrip("/").count("/"))
    matched = [node for node in nodes if node.name in _DIRECTORIES and _is_pattern(node) and _search(words_of(node)[-1], place.file)]
    name = place.file.rpartition("/")[2]
    files = [node for node in nodes if node.name in _FILES and name and _fits_files(node, name)]
    inner = [child for node in (*plain, *matched) for child in node.children or () if child.name in _FILES and name and _fits_files(child, name)]
    place.layers += [(_title(node), node, node.children or []) for node in (*plain, *matched, *files, *inner)]


def _plain(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.children is None]


def _title(node: Node) -> str:
    return f"<{section_title(node)} {node.rest}>"


def _is_pattern(node: Node) -> bool:
    return node.name.endswith("match") or words_of(node)[:1] == ["~"]


def _fits_directory(node: Node, file: str) -> bool:
    pattern = words_of(node)[0].rstrip("/") or "/"
    if pattern == "/":
        return True
    if any(char in pattern for char in "*?["):
        depth = pattern.count("/")
        head = "/".join(file.split("/")[: depth + 1])
        return head.count("/") == depth and wild_pattern(pattern, is_path=True).fullmatch(head) is not None
    return _fits_prefix(file, pattern)


def _fits_files(node: Node, name: str) -> bool:
    word = words_of(node)[-1]
    return _search(word, name) is not None if _is_pattern(node) else wild_pattern(word, is_path=False).fullmatch(name) is not None


def _fits_location(node: Node, path: str) -> bool:
    word = words_of(node)[-1]
    if _is_pattern(node):
        return _search(word, path) is not None
    if any(char in word for char in "*?"):
        return wild_pattern(word, is_path=True).fullmatch(path) is not None
    return _fits_prefix(path, word)


# --- what counts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """A line that counts: its field in the table of directives, the line, and the section that it stands in."""

    field: str
    node: Node
    section: str


def find_settings(place: Place) -> dict[str, list[Setting]]:
    """Return the lines that decided, by field: what an inner place replaces is not among them."""
    result: dict[str, list[Setting]] = {}
    for title, _, nodes in place.layers:
        layer: dict[str, list[Setting]] = {}
        for node in nodes:
            name, is_set = _field_of(node)
            if name:
                layer[name] = [Setting(name, node, title)] if is_set else [*layer.get(name, []), Setting(name, node, title)]
        for name, found in layer.items():
            result[name] = [*result.get(name, []), *found] if name in MERGES else found
    return result


def _field_of(node: Node) -> tuple[str, bool]:
    """Return the field that a line fills, "" if it is no setting, and whether the last one wins."""
    if node.name in SECTION_KINDS:
        return "require", False
    row = TABLE.get(node.name)
    if row is None or row.scope == "server" or not row.field:
        return "", False
    return row.field, row.store == "set"


def judge_access(settings: dict[str, list[Setting]]) -> tuple[str, list[Setting]]:
    """Return "granted", "denied" or "depends on the client", and the lines that say so."""
    found = [one for name in _ACCESS_FIELDS for one in settings.get(name, [])]
    verdicts = set()
    for one in settings.get("require", []):
        words = [word.lower() for word in words_of(one.node)]
        verdicts.add(words[1] if one.node.name == "require" and words[:1] == ["all"] and len(words) > 1 else "?")
    required = _judge_require(verdicts)
    ordered = _judge_order(settings)
    if "denied" in {required, ordered}:
        return "denied", found
    return ("granted", found) if (required, ordered) == ("granted", "granted") else ("depends on the client", found)


def _judge_require(verdicts: set[str]) -> str:
    """One of the Require lines is enough."""
    if "granted" in verdicts or not verdicts:
        return "granted"
    return "denied" if verdicts == {"denied"} else "depends on the client"


def _judge_order(settings: dict[str, list[Setting]]) -> str:
    if not any(settings.get(name) for name in ("order", "allow", "deny")):
        return "granted"
    said = {name: [one.node.rest.lower().split() for one in settings.get(name, [])] for name in ("allow", "deny")}
    everybody = {name: ["from", "all"] in lines for name, lines in said.items()}
    order = settings["order"][-1].node.rest.replace(" ", "").lower() if settings.get("order") else "deny,allow"
    if any(lines not in ([], [["from", "all"]]) for lines in said.values()):
        return "depends on the client"
    if order == "deny,allow":
        return "denied" if everybody["deny"] and not everybody["allow"] else "granted"
    return "granted" if everybody["allow"] and not everybody["deny"] else "denied"
