"""What the steps of one compilation share.

Runs as: compile (pure).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perchild.config.collect import Collected
from perchild.config.hosts import Group
from perchild.config.identity import People
from perchild.config.messages import Diagnostic, locate
from perchild.config.model import Options, Result
from perchild.config.tree import Node
from perchild.config.values import Env


class ConfigurationError(Exception):
    """Something is wrong with the configuration as a whole."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Work:
    """What the steps of one compilation share."""

    options: Options
    env: Env
    known_numbers: Mapping[str, int]
    result: Result
    people: People
    server: dict[str, Any] = field(default_factory=dict)
    collected: Collected = field(default_factory=Collected)
    groups: dict[str, Group] = field(default_factory=dict)  # by Person.key; the unassigned first
    of_words: dict[tuple[str, ...], Group] = field(default_factory=dict)  # words of a directive that names one -> its group
    unassigned: Group | None = None
    gids: frozenset[int] | None = None  # of all identities, once they are known
    foreign: list[Node] = field(default_factory=list)  # asked for another identity than a caller who is not root can give

    def fail(self, node: Node | None, reason: str, word: int = -1, other: str = "") -> None:
        """Note an error at a directive, or of the whole; other: FILE:LINE of what it does not go together with."""
        if node is None:
            self.result.errors.append(Diagnostic("", 0, reason))
        else:
            self.result.errors.append(locate(node.file, node.line, node.text, reason, word, other=other))

    def warn(self, node: Node | None, reason: str, word: int = -1) -> None:
        """Note a warning at a directive, or of the whole."""
        one = Diagnostic("", 0, reason, code="") if node is None else locate(node.file, node.line, node.text, reason, word, "")
        self.result.warnings.append(one)
