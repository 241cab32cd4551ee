"""Links in *-enabled to files in *-available, made and removed by a2ensite's rules: one code for perchildctl ensite and pc2ensite.

Nothing is in force until the server is reloaded.
Runs as: root, or whoever owns the configuration.  Trusts: its directories, which are root's.  Source: a2ensite(8) of Debian's apache2.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_ROOT = "/etc/perchild"
SUFFIX = ".conf"
HINT = "To activate the new configuration, you need to run:\n  systemctl reload perchildd\n"
DONE, UNCHANGED, ERROR = "done", "unchanged", "error"


class _Refused(Exception):  # noqa: N818 - a step of the work, not a fault
    """One file cannot be enabled or disabled; why."""


@dataclass(slots=True)
class Links:
    """One call: which directories, which way, what came of it in words (kind, line), and how to take it back."""

    root: Path
    noun: str
    directory: str
    is_enabling: bool
    said: list[tuple[str, str]] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def available(self) -> Path:
        """Where the files are."""
        return self.root / f"{self.directory}-available"

    @property
    def enabled(self) -> Path:
        """Where the links are."""
        return self.root / f"{self.directory}-enabled"

    def lines(self, kind: str) -> list[str]:
        """Return what was said of one kind: done, unchanged or error."""
        return [line for one, line in self.said if one == kind]

    def choices(self, pattern: str = "*") -> list[str]:
        """Return the names that a pattern stands for: files to enable, links to disable; without wildcard the name itself."""
        directory = self.available if self.is_enabling else self.enabled
        name = pattern.removesuffix(SUFFIX)
        if not glob.has_magic(name):
            return [name]
        return sorted(Path(one).name.removesuffix(SUFFIX) for one in glob.glob(f"{glob.escape(str(directory))}/{name}{SUFFIX}"))

    def act(self, pattern: str) -> list[str]:
        """Enable or disable all that `pattern` stands for; return the names."""
        names = self.choices(pattern)
        if not names:
            self.said.append((ERROR, f"No {self.noun} found matching {pattern.removesuffix(SUFFIX)}!"))
        for name in names:
            try:
                (self._enable if self.is_enabling else self._disable)(name)
            except (_Refused, OSError) as error:
                self.said.append((ERROR, str(error)))
        return names

    def _enable(self, name: str) -> None:
        target, link = self._paths(name)
        if link.is_symlink() and not link.exists():
            self._remove(link)
        if not target.exists():
            raise _Refused(f"{self._title} {name} does not exist!")
        if not os.path.lexists(link):
            link.parent.mkdir(mode=0o755, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent))
            self.undo.append(link.unlink)
            self.said.append((DONE, f"Enabling {self.noun} {name}."))
        elif not link.is_symlink():
            raise _Refused(f"{self._title} {name} not properly enabled: {link} is a real file, not touching it")
        elif link.resolve() != target.resolve():
            raise _Refused(f"{self._title} {name} not properly enabled: {link} exists but does not point to {target}, not touching it")
        else:
            self.said.append((UNCHANGED, f"{self._title} {name} already enabled"))

    def _disable(self, name: str) -> None:
        target, link = self._paths(name)
        if link.is_symlink():
            if target.exists():
                self._unlink(link)
                self.said.append((DONE, f"{self._title} {name} disabled."))
            else:
                self._remove(link)
        elif link.exists():
            raise _Refused(f"{link} is a real file and not a symbolic link, not touching it")
        elif target.exists():
            self.said.append((UNCHANGED, f"{self._title} {name} already disabled"))
        else:
            raise _Refused(f"{self._title} {name} does not exist!")

    def _remove(self, link: Path) -> None:
        self._unlink(link)
        self.said.append((DONE, f"removing dangling symlink {link}"))

    def _unlink(self, link: Path) -> None:
        where = os.readlink(link)
        link.unlink()
        self.undo.append(lambda: link.symlink_to(where))

    def _paths(self, name: str) -> tuple[Path, Path]:
        if not name or "/" in name or name in {".", ".."} or not name.isprintable():
            raise _Refused(f"{name!r} is no name of a {self.noun}: give that of its file in {self.available}")
        return self.available / f"{name}{SUFFIX}", self.enabled / f"{name}{SUFFIX}"

    @property
    def _title(self) -> str:
        return self.noun.capitalize()
