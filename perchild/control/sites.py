"""pc2ensite, pc2dissite, pc2enconf, pc2disconf: links in *-enabled to files in *-available, by a2ensite's contract.

Nothing is in force until the server is reloaded. Options, words and exit statuses (0 done, 1 something was not, 2 wrong option) are
those of a2ensite(8), so that scripts written for it go on working.
Runs as: root, called by people, panels and the package.  Trusts: its directories, which are root's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from perchild.control.links import DEFAULT_ROOT, DONE, ERROR, HINT, SUFFIX, Links

# The program's name -> what it acts on, the directories' first part, whether it enables.
PROGRAMS = {
    "pc2ensite": ("site", "sites", True), "pc2dissite": ("site", "sites", False),
    "pc2enconf": ("conf", "conf", True), "pc2disconf": ("conf", "conf", False),
}


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of one of PROGRAMS."""
    noun, _, is_enabling = PROGRAMS[program]
    verb = "Enable" if is_enabling else "Disable"
    parser = argparse.ArgumentParser(prog=program, allow_abbrev=False, description=f"{verb} a {noun} of perchildd. Nothing is in "
                                     "force until the server is reloaded.")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not tell what is the case already, nor what to do next")
    for letter, name in (("m", "maintmode"), ("p", "purge"), ("f", "force")):
        parser.add_argument(f"-{letter}", f"--{name}", action="store_true", help="taken for a2ensite's sake, without effect")
    parser.add_argument("names", nargs="*", metavar=noun, help=f"name of a file in {PROGRAMS[program][1]}-available, with or without "
                        f"{SUFFIX}; wildcards are taken")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "") -> int:
    """Run one of PROGRAMS, by the name it was called by; return the exit status."""
    program = program or Path(sys.argv[0]).name
    options = make_parser(program).parse_args(argv)
    noun, directory, is_enabling = PROGRAMS[program]
    links = Links(Path(os.environ.get("PERCHILD_CONFDIR", DEFAULT_ROOT)), noun, directory, is_enabling)
    for pattern in options.names or _ask(links):
        links.act(pattern)
    for kind, line in links.said:
        if kind == ERROR:
            sys.stderr.write(f"ERROR: {line}\n")
        elif kind == DONE or not options.quiet:
            sys.stdout.write(f"{line}\n")
    if links.lines(DONE) and not options.quiet:
        sys.stdout.write(HINT)
    return int(bool(links.lines(ERROR)))


def _ask(links: Links) -> list[str]:
    sys.stdout.write(f"Your choices are: {' '.join(links.choices())}\n"
                     f"Which {links.noun}(s) do you want to {'enable' if links.is_enabling else 'disable'} (wildcards ok)?\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        return sys.stdin.readline().split()
    return []
