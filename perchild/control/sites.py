"""pc2ensite, pc2dissite, pc2enconf, pc2disconf: links in *-enabled to files in *-available, by a2ensite's contract.

Nothing is in force until the server is reloaded. Options, words and exit statuses (0 done, 1 something was not, 2 wrong option) are
those of a2ensite(8), so that scripts written for it go on working.
Runs as: root, called by people, panels and the package.  Trusts: its directories, which are root's.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = "/etc/perchild"
SUFFIX = ".conf"
# The program's name -> what it acts on, the directories' first part, whether it enables.
PROGRAMS = {
    "pc2ensite": ("site", "sites", True), "pc2dissite": ("site", "sites", False),
    "pc2enconf": ("conf", "conf", True), "pc2disconf": ("conf", "conf", False),
}


class _Refused(Exception):  # noqa: N818 - a step of the work, not a fault
    """One file cannot be enabled or disabled; why."""


@dataclass(slots=True)
class Work:
    """One call: which directories, which way, and what came of it."""

    root: Path
    noun: str
    directory: str
    is_enabling: bool
    is_quiet: bool = False
    is_changed: bool = False
    has_failed: bool = False

    @property
    def available(self) -> Path:
        """Where the files are."""
        return self.root / f"{self.directory}-available"

    @property
    def enabled(self) -> Path:
        """Where the links are."""
        return self.root / f"{self.directory}-enabled"

    def choices(self, pattern: str = "*") -> list[str]:
        """Return the names that a pattern stands for: files to enable, links to disable; without wildcard the name itself."""
        directory = self.available if self.is_enabling else self.enabled
        name = pattern.removesuffix(SUFFIX)
        if not glob.has_magic(name):
            return [name]
        return sorted(Path(one).name.removesuffix(SUFFIX) for one in glob.glob(f"{glob.escape(str(directory))}/{name}{SUFFIX}"))

    def act(self, pattern: str) -> None:
        """Enable or disable all that `pattern` stands for."""
        names = self.choices(pattern)
        if not names:
            self._fail(f"No {self.noun} found matching {pattern.removesuffix(SUFFIX)}!")
        for name in names:
            try:
                (self._enable if self.is_enabling else self._disable)(name)
            except (_Refused, OSError) as error:
                self._fail(str(error))

    def _enable(self, name: str) -> None:
        target, link = self._paths(name)
        self._check_there(name, target)
        if link.is_symlink() and not link.exists():
            self._inform(f"removing dangling symlink {link}")
            link.unlink()
        if not os.path.lexists(link):
            self._say(f"Enabling {self.noun} {name}.")
            link.symlink_to(os.path.relpath(target, link.parent))
            self.is_changed = True
        elif not link.is_symlink():
            raise _Refused(f"{self._title} {name} not properly enabled: {link} is a real file, not touching it")
        elif link.resolve() != target.resolve():
            raise _Refused(f"{self._title} {name} not properly enabled: {link} exists but does not point to {target}, not touching it")
        else:
            self._inform(f"{self._title} {name} already enabled")

    def _disable(self, name: str) -> None:
        target, link = self._paths(name)
        if link.is_symlink() and not target.exists():
            self._inform(f"removing dangling symlink {link}")
            link.unlink()
            self.is_changed = True
            return
        if not os.path.lexists(link):
            self._check_there(name, target)
            self._inform(f"{self._title} {name} already disabled")
            return
        if not link.is_symlink():
            raise _Refused(f"{link} is not a symbolic link, not deleting")
        link.unlink()
        self.is_changed = True
        self._say(f"{self._title} {name} disabled.")

    def _check_there(self, name: str, target: Path) -> None:
        if not target.exists():
            raise _Refused(f"{self._title} {name} does not exist!")

    def _paths(self, name: str) -> tuple[Path, Path]:
        if not name or "/" in name or name in {".", ".."}:
            raise _Refused(f"{name!r} is no name of a {self.noun}")
        return self.available / f"{name}{SUFFIX}", self.enabled / f"{name}{SUFFIX}"

    @property
    def _title(self) -> str:
        return self.noun.capitalize()

    def _say(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")

    def _inform(self, line: str) -> None:
        if not self.is_quiet:
            self._say(line)

    def _fail(self, line: str) -> None:
        self.has_failed = True
        sys.stderr.write(f"ERROR: {line}\n")


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
    work = Work(Path(os.environ.get("PERCHILD_CONFDIR", DEFAULT_ROOT)), noun, directory, is_enabling, is_quiet=options.quiet)
    for pattern in options.names or _ask(work):
        work.act(pattern)
    if work.is_changed and not work.is_quiet:
        sys.stdout.write("To activate the new configuration, you need to run:\n  systemctl reload perchildd\n")
    return int(work.has_failed)


def _ask(work: Work) -> list[str]:
    sys.stdout.write(f"Your choices are: {' '.join(work.choices())}\n"
                     f"Which {work.noun}(s) do you want to {'enable' if work.is_enabling else 'disable'} (wildcards ok)?\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        return sys.stdin.readline().split()
    return []
