"""Text for people: tables and lines, in colour by rich where there is a terminal, plain otherwise, and the same words in both.

Runs as: whoever calls perchildctl.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

UNITS = ("B", "KB", "MB", "GB", "TB")
_KILO = 1000.0
_TEN = 10.0


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. is_text: left-aligned; style: rich's, for a terminal."""

    name: str
    is_text: bool = False
    style: str = ""


_STYLES = {"USER": "bold", "SITE": "bold", "SLOTS": "cyan", "WHERE": "dim"}


def columns(names: str) -> tuple[Column, ...]:
    """Return columns from their names; a `<` behind a name means text."""
    return tuple(Column(name.rstrip("<"), name.endswith("<"), _STYLES.get(name.rstrip("<"), "")) for name in names.split())


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with a style of its own."""

    text: str
    style: str = ""


class Screen:
    """Where text goes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """stream: None is standard output. Colour needs a terminal, python3-rich, and no NO_COLOR in the environment."""
        self.stream = stream or sys.stdout
        self.console: Any = None
        if self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            try:
                from rich.console import Console  # noqa: PLC0415 - only where it is used

                self.console = Console(file=self.stream, highlight=False)
            except ImportError:
                self.console = None

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line."""
        if self.console is not None:
            self.console.print(text, style=style or None, markup=False, soft_wrap=True)
        else:
            self.stream.write(f"{text}\n")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]], least: Sequence[str] = ()) -> None:
        """Write a table. least: columns that go first where a terminal is too narrow, which is said; what is too wide even so is not cut."""
        if self.console is None:
            self.stream.write(plain_table(columns, rows))
            return
        shown, kept = fit(columns, list(rows), self.console.width, least)
        wide = type(self.console)(file=self.stream, highlight=False, width=max(self.console.width, sum(measure(shown, kept))))
        wide.print(rich_table(shown, kept))
        gone = [column.name for column in columns if column not in shown]
        if gone:
            self.line(f"no room for {' '.join(gone)}: widen the terminal, or read all of it through a pipe (| less -S)", "dim")


def plain_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> str:
    """Return a table without colour: two blanks between columns, none at a line's end."""
    lines = [[column.name for column in columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    shown = ("  ".join(cell.ljust(width) if column.is_text else cell.rjust(width)
                       for cell, width, column in zip(line, widths, columns, strict=True)).rstrip() for line in lines)
    return "".join(f"{line}\n" for line in shown)


def measure(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> list[int]:
    """Return how wide each column is, with the blanks behind it."""
    lines = [[column.name for column in columns], *([_text(cell) for cell in row] for row in rows)]
    return [2 + max(len(line[at]) for line in lines) for at in range(len(columns))]


def fit(wanted: Sequence[Column], rows: Sequence[Sequence[str | Cell]], width: int,
        least: Sequence[str]) -> tuple[list[Column], list[list[str | Cell]]]:
    """Return a table without as many of the columns `least`, in this order, as must go for it to fit into `width` characters."""
    widths = dict(zip((column.name for column in wanted), measure(wanted, rows), strict=True))
    gone: set[str] = set()
    for name in least:
        if sum(size for one, size in widths.items() if one not in gone) > width:
            gone.add(name)
    kept = [at for at, column in enumerate(wanted) if column.name not in gone]
    return [wanted[at] for at in kept], [[row[at] for at in kept] for row in rows]


def rich_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> Any:  # noqa: ANN401 - rich is optional
    """Return the same as a table of rich's."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.name, justify="left" if column.is_text else "right", style=column.style or None, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_text(cell), style=cell.style if isinstance(cell, Cell) else "") for cell in row))
    return table


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


# ---------------------------------------------------------------- figures


def spell_bytes(count: float) -> str:
    """Return "940 B", "1.5 MB"."""
    unit = 0
    while count >= _KILO and unit < len(UNITS) - 1:
        count, unit = count / _KILO, unit + 1
    return f"{count:.1f} {UNITS[unit]}" if unit and count < _TEN else f"{count:.0f} {UNITS[unit]}"


def spell_ms(ms: float | None) -> str:
    """Return "85 us", "2.4 ms", "1.2 s", or "-"."""
    if ms is None:
        return "-"
    if ms < 1:
        return f"{ms * 1000:.0f} us"
    return f"{ms:.1f} ms" if ms < _TEN else f"{ms:.0f} ms" if ms < _KILO else f"{ms / 1000:.1f} s"


def spell_rate(rate: float) -> str:
    """Return "0", "0.4", "1250"."""
    return "0" if not rate else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"  # noqa: PLR2004 - digits


def spell_span(seconds: float) -> str:
    """Return "95 s", "12 min", "5 h", "8 days"."""
    for size, unit in ((172800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
