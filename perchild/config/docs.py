"""Writes docs/directives.md from the table: `python3 -m perchild.config.docs [FILE]`.

Runs as: whoever builds the documentation.
"""

from __future__ import annotations

import sys
from pathlib import Path

from perchild.config import modules
from perchild.config.directives import ROWS, SECTIONS
from perchild.config.directives_server import READ_ROWS
from perchild.config.rows import HOST, SECTION, SERVER, Row

_HEAD = """# Directives

Generated from the table in `perchild/config/` (`python3 -m perchild.config.docs`); do not edit.

The language is httpd's: names are without regard to case, a backslash at the end of a line continues it, `#` begins a comment
line, `"..."` and `'...'` hold words with blanks, `${NAME}` stands for what `Define` or the environment says. The order of
directives does not matter, but for `Define` and `Include`, which act where they stand, and for lists (aliases, redirects, headers),
which keep their order.

Where: **s** outside any section, **v** in `<VirtualHost>`, **d** in `<Directory>`, `<Files>`, `<Location>` and their Match forms.
"""


def render() -> str:
    """Return the text of docs/directives.md."""
    parts = [_HEAD, "\n## All of them\n\n| Directive | Where | Default | Range, unit | |\n|---|---|---|---|---|\n"]
    parts += sorted((_render_row(row) for row in ROWS), key=str.lower)
    parts.append("\n## Sections\n\n| Section | Where | |\n|---|---|---|\n")
    parts += [f"| `{_section(name, usage)}` | {_where(contexts)} | {_cell(doc)} |\n" for name, (contexts, usage, doc) in SECTIONS.items()]
    parts.append("\n## Read where they stand\n\n| Directive | |\n|---|---|\n")
    parts += [f"| `{_section(name, usage)}` | {doc} |\n" for name, usage, doc in READ_ROWS]
    parts.append("\n## Modules\n\n`<IfModule>` is true for these names, and `LoadModule` takes them without a word:\n\n| | | |\n|---|---|---|\n")
    parts += [f"| `{source}` | `{name}` | {what} |\n" for source, name, what in modules.PROVIDED]
    parts += [f"| {', '.join(f'`{name}`' for name in names)} | | when the MPM is {mpm} |\n"
              for mpm, names in modules.MPM_NAMES.items() if names]
    chosen = ", ".join(f"`{name}` ({mpm})" for name, mpm in modules.MPM_OF_MODULE.items())
    parts.append(f"\n`LoadModule` with one of {chosen} chooses the MPM, as `MPM` does; `mpm_itk_module` beside `mpm_prefork_module` is "
                 "perchild. It is false for every other name.\n")
    version = ".".join(map(str, modules.HTTPD_VERSION))
    parts.append(f"\n`<IfVersion>` compares with {version}, the httpd whose language this is.\n")
    return "".join(parts)


def _section(name: str, usage: str) -> str:
    return f"{name[:-1]} {usage}".rstrip().replace("|", "\\|") + ">" if name.endswith(">") else f"{name} {usage}".replace("|", "\\|")


def _where(contexts: int) -> str:
    return "".join(letter for letter, bit in (("s", SERVER), ("v", HOST), ("d", SECTION)) if contexts & bit)


def _render_row(row: Row) -> str:
    bounds = ", ".join(part for part in (row.range, row.unit) if part).replace("|", "\\|")
    usage = row.usage.replace("|", "\\|")
    return f"| `{row.name} {usage}` | {_where(row.contexts)} | {row.default} | {bounds} | {_cell(row.doc)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "docs/directives.md").write_text(render(), encoding="utf-8")
