"""THE table: every directive by its name in lower case, and the names that only sections have.

Runs as: compile (pure).
"""

from __future__ import annotations

from perchild.config import directives_host, directives_program, directives_proxy, directives_section, directives_server, directives_tls
from perchild.config.rows import HOST, SECTION, SERVER, Row

ROWS: tuple[Row, ...] = (*directives_server.ROWS, *directives_host.ROWS, *directives_section.ROWS, *directives_program.ROWS,
                         *directives_proxy.ROWS, *directives_tls.ROWS)
TABLE: dict[str, Row] = {row.name.lower(): row for row in ROWS}

# Section -> (contexts, usage, documentation).
SECTIONS: dict[str, tuple[int, str, str]] = {
    "<VirtualHost>": (SERVER, "address[:port] ...", "A host, or several of one address told apart by name"),
    "<Directory>": (SERVER | HOST, "[~] path", "Settings for a directory and all below; * ? [] are wildcards, ~ makes it a pattern"),
    "<DirectoryMatch>": (SERVER | HOST, "regex", "Settings for directories that match"),
    "<Files>": (SERVER | HOST | SECTION, "[~] name", "Settings for files of this name; may stand within <Directory>"),
    "<FilesMatch>": (SERVER | HOST | SECTION, "regex", "Settings for files whose name matches; may stand within <Directory>"),
    "<Location>": (SERVER | HOST, "[~] URL-path", "Settings for URLs that begin so"),
    "<LocationMatch>": (SERVER | HOST, "regex", "Settings for URLs that match"),
    "<Proxy>": (SERVER | HOST, "URL|*",
                ("Parameters (ProxySet) of the back end whose URL begins so; unix:/path|fcgi://name gives fcgi://name its socket")),
    "<RequireAll>": (SECTION, "", "All of the Require lines within must agree"),
    "<RequireAny>": (SECTION, "", "One of the Require lines within must agree; what a section without container means"),
    "<RequireNone>": (SECTION, "", "None of the Require lines within may agree"),
}
SECTION_CONTEXTS: dict[str, int] = {name[:-1].lower(): row[0] for name, row in SECTIONS.items()}

ALL_NAMES: tuple[str, ...] = (*(row.name for row in ROWS), *(name for name, _, _ in directives_server.READ_ROWS), *SECTIONS)
