"""What a row of the table of directives is, and short ways to write one.

Runs as: compile (pure).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from perchild.config.messages import BadDirectiveError
from perchild.config.values import Env, Kind

SERVER, HOST, SECTION = 1, 2, 4  # where a directive may stand: outside any section, <VirtualHost>, <Directory> and the like
ANYWHERE = SERVER | HOST | SECTION

Parse = Callable[[list[str], Env], Any]

MANY = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One directive.

    usage: arguments as the documentation shows them; low, high: how many there may be; parse: words -> value;
    scope: whose field it fills: "server", "host" or "settings"; store: "set" (the last one wins), "append", "update" (dict),
    "combine" (Options-like), "ignore"; is_located: the value is kept with its Node, for errors found later.
    """

    name: str
    contexts: int
    usage: str
    low: int
    high: int
    parse: Parse
    scope: str
    field: str
    store: str
    unit: str
    default: str
    range: str
    doc: str
    is_located: bool = False


def one(name: str, contexts: int, kind: Kind, scope: str, field: str, doc: str, *, default: str = "", store: str = "set",
        is_located: bool = False) -> Row:
    """Return the row of a directive with a single argument of `kind`."""
    return Row(name, contexts, kind.usage, 1, 1, lambda words, env: kind.parse(words[0], 0, env), scope, field, store,
               kind.unit, default, kind.range, doc, is_located)


def custom(name: str, contexts: int, usage: str, arity: tuple[int, int], parse: Parse, scope: str, field: str, doc: str, *,
           store: str = "set", unit: str = "", default: str = "", range: str = "",  # noqa: A002 (the column's name)
           is_located: bool = False) -> Row:
    """Return the row of a directive with a parser of its own."""
    return Row(name, contexts, usage, *arity, parse, scope, field, store, unit, default, range, doc, is_located)


_COUNTS = {1: "one argument", 2: "two arguments", 3: "three arguments"}


def check_count(row: Row, words: Sequence[str]) -> None:
    """Raise BadDirectiveError in httpd's words if `words` are too few or too many for `row`."""
    count = len(words)
    if row.low <= count <= row.high:
        return
    if row.high == 0:
        wanted = "takes no arguments"
    elif row.low == row.high:
        wanted = f"takes {_COUNTS.get(row.low, row.low)}"
    elif row.high == MANY:
        wanted = f"requires at least {_COUNTS.get(row.low, row.low)}"
    else:
        wanted = f"takes {row.low}-{row.high} arguments"
    message = f"{row.name} {wanted}, {row.usage}" if row.usage else f"{row.name} {wanted}"
    raise BadDirectiveError(message, row.high if count > row.high else -1)
