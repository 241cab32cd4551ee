"""Lines -> a tree of directives and sections: what httpd does while it reads.

Resolved here, because they decide what is read at all: Define, UnDefine, ${VAR}, Include, IncludeOptional, <IfModule>, <IfDefine>,
<IfVersion>, <IfFile>, ServerRoot (relative Includes depend on it). Everything else is only put in its place.
Names are without regard to case; a section must end in the file in which it began.
Runs as: compile (pure: files come through the injected Loader).  Sees: the configuration.  Trusts: nothing.
Before: load.py   After: collect.py
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from perchild.config import modules
from perchild.config.messages import BadDirectiveError, Diagnostic, locate
from perchild.config.nodes import Assumptions, Known, Loader, LoadError, Node, Tree, Unit
from perchild.config.tokens import QuoteError, split_lines, split_words

__all__ = ["KNOWN", "Assumptions", "Builder", "LoadError", "Loader", "Node", "Tree", "Unit", "section_title"]

MAX_INCLUDE_DEPTH = 20  # AP_MAX_INCLUDE_DEPTH is 128 in httpd 2.4, its directory depth 20; no sane tree is deeper than this
MAX_INCLUDES = 200_000  # files in all: two that include each other under many names would never end
MAX_SECTION_DEPTH = 32  # nested sections; httpd has no bound, a parser should
KNOWN = "<known"  # name of the node that stands for a file which is not parsed
_TYPO = 0.7  # how alike two names are that are taken for the same, mistyped
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class _Frame(NamedTuple):
    name: str  # with its '<', lower case
    node: Node
    siblings: list[Node] | None  # where the enclosing section collects; None: a condition, nothing to restore


class Builder:
    """Reads one configuration. Feed it texts in their order, then take `tree`."""

    def __init__(self, loader: Loader, assumed: Assumptions, environ: Mapping[str, str], defines: Sequence[str] = (),
                 label: str = "", known: Known | None = None) -> None:
        """label: what is put behind the names of files, for those who read messages; known: files that need not be parsed."""
        self.tree = Tree(server_root=assumed.server_root)
        self._known = known
        self._context: tuple[str, dict[str, str]] | None = None
        self.has_looked = False  # at more than is in the files: whether one exists, or a variable that is not defined
        self._label = label
        self.eager = _EAGER
        self._unit: Unit | None = None  # the part that is being read
        self.assumed = assumed
        self._loader = loader
        self._environ = environ
        self._current = self.tree.nodes
        self._stack: list[_Frame] = []
        self._skip: list[tuple[str, Node]] = []  # open sections within a false condition, that condition first
        self._open: list[str] = []  # files being read, outermost first
        self._undefined: set[str] = set()
        for one in defines:
            name, _, value = one.partition("=")
            self.tree.defines[name] = value

    def feed_file(self, path: str, source: Node | None = None, text: str | None = None) -> None:
        """Read the file `path`; source: the Include that asks for it; text: what is in it, if that is known already."""
        if path in self._open or len(self._open) >= MAX_INCLUDE_DEPTH or len(self.tree.includes) >= MAX_INCLUDES:
            message = (f"{path} includes itself, through {' -> '.join([*self._open, path])}" if path in self._open else
                       f"Exceeded the maximum include nesting level of {MAX_INCLUDE_DEPTH} (or {MAX_INCLUDES} files). "
                       "You have probably a recursion somewhere.")
            raise BadDirectiveError(message, 0)
        try:
            text = self._loader.read(path) if text is None else text
        except LoadError as error:
            if source is None:
                self.tree.errors.append(Diagnostic(path, 0, str(error), code=""))
                return
            raise BadDirectiveError(str(error), 0) from None
        self.tree.includes.append((len(self._open), source.line if source else 0, path))
        if self._unit is None:
            self.tree.shared[path] = text
        else:
            self._unit.files[path] = text
        self._open.append(path)
        self.feed_text(text, path + self._label)
        self._open.pop()

    def feed_text(self, text: str, file: str) -> None:
        """Read `text`, which came from `file`."""
        floor = len(self._stack)
        eager = self.eager
        make = Node
        for number, raw in split_lines(text):
            if raw[0] == "<":
                self._read_tag(raw, file, number, floor)
                continue
            if self._skip:
                continue
            line = self._resolve(raw, file, number) if "${" in raw else raw
            parts = line.split(None, 1)
            if not parts:
                continue
            name = parts[0].lower()
            node = make(name, parts[1] if len(parts) > 1 else "", raw, file, number, None)
            handler = eager.get(name)
            if handler is None:
                self._current.append(node)
            else:
                self._run(handler, node)
        self._close_all(floor)

    def has_module(self, name: str) -> bool:
        """Answer <IfModule name>."""
        return modules.is_provided(name, self.assumed.mpm)

    def fail(self, node: Node, reason: str, word: int = -1) -> None:
        """Note an error at argument `word` of `node`."""
        self.tree.errors.append(locate(node.file, node.line, node.text, reason, word))

    # --- sections ----------------------------------------------------------------------------------------------

    def _read_tag(self, raw: str, file: str, number: int, floor: int) -> None:
        line = self._resolve(raw, file, number) if "${" in raw and not self._skip else raw
        node = Node("", "", raw, file, number, None)
        if line.startswith("</"):
            self._close(line[2:].rstrip(">").strip(), node, floor)
            return
        name, _, rest = line[1:].partition(" ") if "\t" not in line else _cut_tab(line[1:])
        if self._skip:
            self._skip.append(("<" + name.rstrip(">").lower(), node))
            return
        if name.rstrip(">") == "":
            self.fail(node, "'<' without the name of a section")
            return
        if not line.endswith(">"):
            self.fail(node, f"<{name}> directive missing closing '>'")
            rest += ">"
        name = "<" + name.rstrip(">").lower()
        rest = rest[:-1].strip() if rest else ""
        if len(self._stack) >= MAX_SECTION_DEPTH:
            self.fail(node, f"sections are nested deeper than {MAX_SECTION_DEPTH}")
        condition = _CONDITIONS.get(name)
        if condition is None:
            section = Node(name, rest, raw, file, number, [])
            if name == "<virtualhost" and self._unit is None and self._current is self.tree.nodes:
                self._open_unit(Unit(file, number))
            self._current.append(section)
            self._stack.append(_Frame(name, section, self._current))
            self._current = section.children if section.children is not None else []
            return
        node = Node(name, rest, raw, file, number, None)
        if self._run_condition(condition, node):
            self._stack.append(_Frame(name, node, None))
        else:
            self._skip.append((name, node))

    def _run_condition(self, condition: Callable[[Builder, list[str]], bool], node: Node) -> bool:
        try:
            words = split_words(node.rest)
            if not words:
                message = f"{node.name}> needs an argument"
                raise BadDirectiveError(message)
            return condition(self, words)
        except BadDirectiveError as error:
            self.fail(node, error.reason, error.word)
        except QuoteError as error:
            self.fail(node, str(error))
        return True

    def _close(self, shown: str, node: Node, floor: int) -> None:
        wanted = "<" + shown.lower()
        if self._skip:
            self._close_skipped(wanted, shown, node)
            return
        depth = len(self._stack) - 1
        while depth >= floor and self._stack[depth].name != wanted:
            depth -= 1
        if depth < floor:
            if len(self._stack) == floor:
                self.fail(node, f"</{shown}> without matching <{shown}> section")
                return
            top = self._stack[-1]
            self.fail(node, f"Expected </{section_title(top.node)}> but saw </{shown}>")
            if difflib.SequenceMatcher(None, top.name, wanted).ratio() > _TYPO:
                self._pop()
            return
        while len(self._stack) > depth + 1:
            inner = self._pop().node
            self.fail(node, f"Expected </{section_title(inner)}> but saw </{shown}>: {section_title(inner)} of line {inner.line} is not closed")
        closed = self._pop()
        if self._unit is not None and self._unit.line == closed.node.line and self._current is self.tree.nodes:
            self._close_unit(node.line)

    def _open_unit(self, unit: Unit) -> None:
        unit.start = len(self.tree.nodes)
        self._unit = unit
        self.tree.units.append(unit)

    def _close_unit(self, line: int) -> None:
        if self._unit is not None:
            self._unit.end, self._unit.last = len(self.tree.nodes), line
        self._unit = None

    def _close_skipped(self, wanted: str, shown: str, node: Node) -> None:
        if all(one != wanted for one, _ in self._skip):
            self.fail(node, f"Expected </{section_title(self._skip[-1][1])}> but saw </{shown}>")
            return
        while self._skip[-1][0] != wanted:
            _, inner = self._skip.pop()
            self.fail(node, f"Expected </{section_title(inner)}> but saw </{shown}>: {section_title(inner)} of line {inner.line} is not closed")
        self._skip.pop()

    def _pop(self) -> _Frame:
        frame = self._stack.pop()
        if frame.siblings is not None:
            self._current = frame.siblings
        return frame

    def _close_all(self, floor: int) -> None:
        if self._unit is not None and self._unit.line and any(frame.node.line == self._unit.line for frame in self._stack[floor:]):
            self.tree.units.remove(self._unit)  # it swallowed what follows
            self._unit = None
        for _, node in self._skip:
            self.fail(node, f"<{section_title(node)}> was not closed.")
        self._skip.clear()
        while len(self._stack) > floor:
            frame = self._pop()
            self.fail(frame.node, f"<{section_title(frame.node)}> was not closed.")

    # --- variables and eager directives --------------------------------------------------------------------------

    def _resolve(self, raw: str, file: str, number: int) -> str:
        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            value = self.tree.defines.get(name)
            if value is None:
                value = self._environ.get(name)
            if value is not None:
                return value
            if ":" not in name:
                self.has_looked = True  # the first to do so is warned of, whichever that is next time
            if ":" not in name and name not in self._undefined:
                self._undefined.add(name)
                self.tree.warnings.append(Diagnostic(file, number, f"Config variable ${{{name}}} is not defined", code="AH00111"))
            return match.group(0)

        return _VARIABLE.sub(replace, raw)

    def _run(self, handler: Callable[[Builder, Node, list[str]], None], node: Node) -> None:
        try:
            handler(self, node, split_words(node.rest))
        except BadDirectiveError as error:
            self.fail(node, error.reason, error.word)
        except QuoteError as error:
            self.fail(node, str(error))

    def include(self, node: Node, words: list[str], *, is_optional: bool) -> None:
        """Read what an Include or IncludeOptional names."""
        _need(words, 1, 1, node)
        pattern = words[0]
        if not pattern.startswith("/"):
            self.assumed.root_was_used = True
            pattern = f"{self.tree.server_root}/{pattern}"
        try:
            paths = self._loader.match(pattern)
        except LoadError as error:
            raise BadDirectiveError(str(error), 0) from None
        if self._unit is not None:
            self._unit.matches[pattern] = paths
        if not paths and not is_optional:
            if any(char in pattern for char in "*?["):
                message = f"No matches for the wildcard '{pattern}', failing (use IncludeOptional if required)"
            else:
                message = f"Could not open configuration file {pattern}: No such file or directory"
            raise BadDirectiveError(message, 0)
        is_set = paths != [pattern] and self._current is self.tree.nodes
        may_be_known = is_set and self._known is not None and self._unit is None and len(self._open) < MAX_INCLUDE_DEPTH
        for path in paths:
            if may_be_known and len(self.tree.includes) < MAX_INCLUDES and self._known is not None and self._known.find(path, self):
                self._add_known(path, self._known.files_of(path), node)
            elif may_be_known:
                self._feed_noting(path, node)
            elif is_set:
                self._feed_unit(path, node)
            else:
                self.feed_file(path, node)

    def _feed_unit(self, path: str, node: Node) -> None:
        """Read one file of several; what is wrong with it as such does not keep the others from being read."""
        outer = self._unit
        self._open_unit(Unit(path))
        before = len(self.tree.errors)
        try:
            self.feed_file(path, node)
        except BadDirectiveError as error:
            self.fail(node, error.reason, error.word)
            if self._unit is not None:
                self._unit.errors = self.tree.errors[before:]
        self._close_unit(0)
        self._unit = outer

    # --- for reuse.py ------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Return how many files are being read."""
        return len(self._open)

    def context(self) -> tuple[str, dict[str, str]]:
        """Return a hash of what the next file's reading depends on beside its text, and the variables that are defined now."""
        if self._context is None:
            defines = dict(self.tree.defines)
            raw = repr((sorted(defines.items()), self.tree.server_root, self.assumed.mpm, self.assumed.server_root))
            self._context = hashlib.sha256(raw.encode("utf-8", "surrogateescape")).hexdigest(), defines
        return self._context

    def forget_context(self) -> None:
        """Note that a variable or ServerRoot was changed."""
        self._context = None

    def later(self, path: str) -> Callable[[], list[Node]]:
        """Return what reads a file as it would be read now."""
        defines, root = self.context()[1], self.tree.server_root

        def read() -> list[Node]:
            builder = Builder(self._loader, self.assumed, self._environ)
            builder.tree.defines, builder.tree.server_root = dict(defines), root
            builder.feed_file(path)
            return builder.tree.nodes

        return read

    def _add_known(self, path: str, files: dict[str, str], node: Node) -> None:
        """Put one node in the place of a file that is not parsed."""
        at = len(self.tree.nodes)
        self.tree.nodes.append(Node(KNOWN, path, "", path, node.line, None))
        self.tree.units.append(Unit(path, start=at, end=at + 1, files=files, is_ready=True))

    def _feed_noting(self, path: str, node: Node) -> None:
        """Read one file of several, and note what that depended on."""
        tree, assumed = self.tree, self.assumed
        context, before = self.context()[0], (len(tree.errors), len(tree.warnings), len(tree.includes))
        asked, used, looked = assumed.mpm_was_asked, assumed.root_was_used, self.has_looked
        assumed.mpm_was_asked = assumed.root_was_used = self.has_looked = False
        count = len(tree.units)
        self._feed_unit(path, node)
        unit = tree.units[count]
        unit.context, unit.nodes = context, tree.nodes[unit.start : unit.end]
        unit.includes = [(level - self.depth, line, one) for level, line, one in tree.includes[before[2] :]]
        unit.mpm_was_asked, unit.root_was_used = assumed.mpm_was_asked, assumed.root_was_used
        unit.is_plain = (not self.has_looked and (len(tree.errors), len(tree.warnings)) == before[:2] and self.context()[0] == context
                         and all(one.name == "<virtualhost" for one in unit.nodes))
        assumed.mpm_was_asked, assumed.root_was_used = asked or unit.mpm_was_asked, used or unit.root_was_used
        self.has_looked = looked or self.has_looked

    def take_root(self, node: Node, words: list[str]) -> None:
        """Note ServerRoot: later relative Includes start there."""
        _need(words, 1, 1, node)
        if not words[0].startswith("/"):
            message = f"ServerRoot must be an absolute path, not '{words[0]}'"
            raise BadDirectiveError(message, 0)
        self.tree.server_root = words[0].rstrip("/") or "/"
        self.forget_context()
        self._current.append(node)


def _cut_tab(line: str) -> tuple[str, str, str]:
    parts = line.split(None, 1)
    return (parts[0], " ", parts[1]) if len(parts) > 1 else (parts[0] if parts else "", "", "")


def section_title(node: Node) -> str:
    """Return the name of a section as it is written, without brackets; may be empty."""
    words = node.text[1:].split(None, 1)
    return words[0].rstrip(">") if words else ""


def _need(words: list[str], low: int, high: int, node: Node) -> None:
    if not low <= len(words) <= high:
        count = "one argument" if low == high == 1 else f"{low}-{high} arguments"
        message = f"{node.text.split(None, 1)[0]} takes {count}"
        raise BadDirectiveError(message, high if len(words) > high else -1)


def _define(builder: Builder, node: Node, words: list[str]) -> None:
    _need(words, 1, 2, node)
    if any(char in words[0] for char in ":${}"):
        message = f"'{words[0]}' is no name for a variable: it may not contain ':', '$', '{{' or '}}'"
        raise BadDirectiveError(message, 0)
    builder.tree.defines[words[0]] = words[1] if len(words) > 1 else ""
    builder.forget_context()


def _undefine(builder: Builder, node: Node, words: list[str]) -> None:
    _need(words, 1, 1, node)
    builder.tree.defines.pop(words[0], None)
    builder.forget_context()


def _if_define(builder: Builder, words: list[str]) -> bool:
    name = words[0]
    return (name[1:] not in builder.tree.defines) if name.startswith("!") else (name in builder.tree.defines)


def _if_module(builder: Builder, words: list[str]) -> bool:
    name = words[0]
    is_negated = name.startswith("!")
    name = name.removeprefix("!")
    if modules.depends_on_mpm(name):
        builder.assumed.mpm_was_asked = True
    return builder.has_module(name) is not is_negated


def _if_version(_builder: Builder, words: list[str]) -> bool:
    return modules.compare_version(words)


def _if_file(builder: Builder, words: list[str]) -> bool:
    name = words[0].removeprefix("!")
    if not name.startswith("/"):
        builder.assumed.root_was_used = True
        name = f"{builder.tree.server_root}/{name}"
    builder.has_looked = True
    return builder._loader.exists(name) is not words[0].startswith("!")  # noqa: SLF001 (same file)


_CONDITIONS: dict[str, Callable[[Builder, list[str]], bool]] = {
    "<ifdefine": _if_define,
    "<ifmodule": _if_module,
    "<ifversion": _if_version,
    "<iffile": _if_file,
}

_EAGER: dict[str, Callable[[Builder, Node, list[str]], None]] = {
    "define": _define,
    "undefine": _undefine,
    "include": lambda builder, node, words: builder.include(node, words, is_optional=False),
    "includeoptional": lambda builder, node, words: builder.include(node, words, is_optional=True),
    "serverroot": Builder.take_root,
}
