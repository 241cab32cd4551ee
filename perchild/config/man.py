"""Writes perchild.conf(5) from the table of directives: `python3 -m perchild.config.man FILE`.

Runs as: whoever builds the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

from perchild import roff
from perchild.config.directives import ROWS, SECTIONS
from perchild.config.directives_server import READ_ROWS
from perchild.config.rows import HOST, SECTION, SERVER, Row

_PLACES = ((SERVER, "outside any section"), (HOST, "<VirtualHost>"), (SECTION, "<Directory>, <Files>, <Location>"))


def render() -> str:
    """Return the page."""
    return "".join((
        roff.head("perchild.conf", 5, "configuration of perchildd"),
        roff.section(
            "DESCRIPTION",
            "perchildd reads /etc/perchild/perchild.conf, and what that file includes: conf-enabled/*.conf and sites-enabled/*.conf, "
            "where pc2enconf(8) and pc2ensite(8) make links to files in conf-available and sites-available.",
            "The language is httpd's. Names are without regard to case, a backslash at the end of a line continues it, # begins a comment "
            "line, quotes hold words with blanks, ${NAME} stands for what Define or the environment says. A directive that is not listed "
            "here is an error that says so; none is ignored without a word.",
            "`perchildd -t` tests a configuration, `systemctl reload perchildd` puts it in force."),
        roff.section("EXAMPLE", "A host whose files and programs are alice's alone:"),
        roff.example("<VirtualHost *:80>", "    ServerName alice.example", "    AssignUserID alice alice",
                     "    DocumentRoot /home/alice/public_html", "    <Directory /home/alice/public_html>", "        Require all granted",
                     "    </Directory>", "</VirtualHost>"),
        roff.section("SECTIONS"), roff.terms((f"{name[:-1]} {usage}".rstrip() + ">", f"{doc}. In: {_where(contexts)}.")
                                             for name, (contexts, usage, doc) in SECTIONS.items()),
        roff.section("READ WHERE THEY STAND"), roff.terms((_usage(name, usage), f"{doc}.") for name, usage, doc in READ_ROWS),
        roff.section("DIRECTIVES"), roff.terms((_usage(row.name, row.usage), _describe(row)) for row in sorted(ROWS, key=_by_name)),
        roff.section("FILES"), roff.terms((
            ("/etc/perchild/perchild.conf", "The main file."),
            ("/etc/perchild/sites-available/, sites-enabled/", "Hosts, and links to those that are served."),
            ("/etc/perchild/conf-available/, conf-enabled/", "Pieces of configuration, and links to those that are in force."))),
        roff.section("SEE ALSO", "perchildd(8), perchildctl(8), pc2ensite(8)")))


def _by_name(row: Row) -> str:
    return row.name.lower()


def _usage(name: str, usage: str) -> str:
    return f"{name[:-1]} {usage}".rstrip() + ">" if name.endswith(">") else f"{name} {usage}".rstrip()


def _where(contexts: int) -> str:
    return "; ".join(text for bit, text in _PLACES if contexts & bit)


def _describe(row: Row) -> str:
    bounds = ", ".join(part for part in (row.range, row.unit) if part)
    facts = [f"{row.doc}.", f"In: {_where(row.contexts)}."]
    facts += [f"Values: {bounds}."] if bounds else []
    facts += [f"Default: {row.default}."] if row.default else []
    return " ".join(facts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
