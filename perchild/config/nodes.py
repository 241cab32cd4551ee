"""What the reading of a configuration gives: nodes, the parts they belong to, the whole; and what it asks for.

Runs as: compile (pure).
After: tree.py fills them
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from perchild.config.messages import Diagnostic

if TYPE_CHECKING:
    from perchild.config.tree import Builder


class LoadError(Exception):
    """A file that cannot be had; the text says why."""


class Loader(Protocol):
    """Where included files come from; warnings: what was odd about them."""

    warnings: list[Diagnostic]

    def read(self, path: str) -> str:
        """Return the text of `path`; LoadError."""

    def match(self, pattern: str) -> list[str]:
        """Return the paths that a file name, directory or wildcard stands for, sorted; empty if there is none; LoadError."""

    def exists(self, path: str) -> bool:
        """Tell whether `path` exists."""


class Node(NamedTuple):
    """A directive (children is None) or a section (its name begins with '<'); name in lower case, rest resolved, text as written."""

    name: str
    rest: str
    text: str
    file: str
    line: int
    children: list[Node] | None


@dataclass(slots=True)
class Assumptions:
    """What the reading of a configuration depends on and only the whole of it tells; see compile.read_tree."""

    mpm: str
    server_root: str
    mpm_was_asked: bool = False
    root_was_used: bool = False


@dataclass(slots=True)
class Unit:
    """A part of the configuration that can be refused without the rest (isolate.py).

    It is one of the files that a wildcard or a directory stands for, or a <VirtualHost> of another file.

    line, last: of the <VirtualHost> and its end, 0 for a file; start, end: its nodes in Tree.nodes; files: path -> text of what it was
    made of; matches: what its Includes with wildcards stood for; errors: what was wrong with its file as such.

    For reuse.py: is_ready: it is known from before, and one node stands for it; is_plain: a file of hosts alone that reads the same next
    time if context (what was defined above it) and files do; nodes: its hosts; includes: as Tree's, but depth counts from its own;
    mpm_was_asked, root_was_used: as in Assumptions.
    """

    file: str
    line: int = 0
    last: int = 0
    start: int = 0
    end: int = 0
    files: dict[str, str] = field(default_factory=dict)
    matches: dict[str, list[str]] = field(default_factory=dict)
    errors: list[Diagnostic] = field(default_factory=list)
    is_ready: bool = False
    is_plain: bool = False
    context: str = ""
    nodes: list[Node] = field(default_factory=list)
    includes: list[tuple[int, int, str]] = field(default_factory=list)
    mpm_was_asked: bool = False
    root_was_used: bool = False


class Known(Protocol):
    """Sites that need not be parsed (reuse.py)."""

    def find(self, path: str, builder: Builder) -> bool:
        """Tell whether the file `path` is one; then what it depends on has been put into the builder's tree."""

    def files_of(self, path: str) -> dict[str, str]:
        """Return the files it is made of, without their texts."""


@dataclass(slots=True)
class Tree:
    """What was read. includes: (depth, line of the Include, path), depth 0 for the main file."""

    nodes: list[Node] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)  # path -> text of the files that were read outside of any unit
    defines: dict[str, str] = field(default_factory=dict)
    includes: list[tuple[int, int, str]] = field(default_factory=list)
    errors: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    server_root: str = ""
