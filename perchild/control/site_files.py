"""perchildctl ensite, dissite: links in sites-enabled to files in sites-available, with a2ensite's words and exit statuses.

With --reload the change is in force, or taken back, when the command returns.
Runs as: root, or whoever owns the configuration.  Source: a2enmod(8) of Debian's apache2.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perchild.control.client import ask_server
from perchild.control.table import Command

DEFAULT_CONFIG_DIR = "/etc/perchild"
_SUFFIX = ".conf"


@dataclass(slots=True)
class Change:
    """What was done, in words, and how to take it back."""

    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)


def enable(config_dir: Path, name: str, change: Change) -> None:
    """Make the link of one site."""
    link, target = config_dir / "sites-enabled" / f"{name}{_SUFFIX}", config_dir / "sites-available" / f"{name}{_SUFFIX}"
    if not target.exists():
        if link.is_symlink() and not link.exists():
            link.unlink()
            change.errors.append(f"Site {name} does not exist! Its link pointed nowhere and was removed")
        else:
            change.errors.append(f"Site {name} does not exist! There is no {target}")
    elif link.is_symlink() and link.resolve() == target.resolve():
        change.unchanged.append(f"Site {name} already enabled")
    elif link.is_symlink() or link.exists():
        change.errors.append(f"Site {name} not properly enabled: {link} is not a link to {target}; not touching it")
    else:
        link.parent.mkdir(mode=0o755, exist_ok=True)
        link.symlink_to(Path("..") / "sites-available" / link.name)
        change.done.append(f"Enabling site {name}.")
        change.undo.append(link.unlink)


def disable(config_dir: Path, name: str, change: Change) -> None:
    """Remove the link of one site."""
    link, target = config_dir / "sites-enabled" / f"{name}{_SUFFIX}", config_dir / "sites-available" / f"{name}{_SUFFIX}"
    if link.is_symlink():
        where = os.readlink(link)
        link.unlink()
        change.done.append(f"Site {name} disabled.")
        change.undo.append(lambda: link.symlink_to(where))
    elif link.exists():
        change.errors.append(f"Site {name}: {link} is a file, not a link; not touching it. Move it to {target.parent}, then disable it")
    elif target.exists():
        change.unchanged.append(f"Site {name} already disabled")
    else:
        change.errors.append(f"Site {name} does not exist! There is no {target}")


def expand(config_dir: Path, folder: str, words: list[str]) -> list[str]:
    """Return names of sites, without .conf; a word with * or ? stands for those that fit it."""
    there = sorted(path.name.removesuffix(_SUFFIX) for path in (config_dir / folder).glob(f"*{_SUFFIX}"))
    names: list[str] = []
    for word in (one.removesuffix(_SUFFIX) for one in words):
        names += fnmatch.filter(there, word) if set(word) & set("*?[") else [word]
    return list(dict.fromkeys(names))


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and name not in {".", ".."} and name.isprintable()


def _run(options: argparse.Namespace) -> int:
    config_dir = Path(options.config_dir)
    act, folder = (enable, "sites-available") if options.command == "ensite" else (disable, "sites-enabled")
    if not options.site:
        choices = " ".join(expand(config_dir, folder, ["*"])) or f"none: {config_dir / folder} is empty"
        sys.stderr.write(f"Your choices are: {choices}\n")
        return 2
    change = Change()
    names = expand(config_dir, folder, options.site)
    for name in names:
        if _is_name(name):
            act(config_dir, name, change)
        else:
            change.errors.append(f"{name!r} is no name of a site: give that of its file below {config_dir / folder}")
    if not names:
        change.errors.append(f"No site matches {' '.join(options.site)} in {config_dir / folder}")
    reloaded = _reload(options.run_dir, change, names) if options.reload and change.done and not change.errors else None
    _report(options, change, reloaded)
    return 1 if change.errors else 0


def _reload(run_dir: str, change: Change, names: list[str]) -> dict[str, Any]:
    """Have the server take the change; take it back if it refuses it, or one of these sites is broken."""
    answer = ask_server(run_dir, {"op": "graceful"})
    files = {f"{name}{_SUFFIX}" for name in names}
    broken = [one for one in ask_server(run_dir, {"op": "status"}).get("broken_sites", ()) if os.path.basename(one["file"]) in files]
    if answer["ok"] and not broken:
        return answer
    for undo in reversed(change.undo):
        undo()
    change.done.clear()
    change.errors += [f"{one['file']}:{one['line']}: {one['reason']}" for one in broken] or [answer.get("text") or "the configuration was refused"]
    if answer["ok"]:
        ask_server(run_dir, {"op": "graceful"})
    change.errors.append("The change was taken back, and the server goes on as before")
    return {**answer, "ok": False}


def _report(options: argparse.Namespace, change: Change, reloaded: dict[str, Any] | None) -> None:
    if options.json:
        result = {"ok": not change.errors, "done": change.done, "unchanged": change.unchanged, "errors": change.errors,
                  "is_in_force": bool(reloaded and reloaded["ok"])}
        sys.stdout.write(json.dumps(result) + "\n")
        return
    if not options.quiet:
        for line in (*change.done, *change.unchanged):
            sys.stdout.write(f"{line}\n")
        if change.done and reloaded is None:
            sys.stdout.write("To activate the new configuration, you need to run:\n  systemctl reload perchildd\n")
    for line in change.errors:
        sys.stderr.write(f"ERROR: {line}\n")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="*", help="name of the site's file, with or without .conf; * and ? stand for what they do in a shell")
    parser.add_argument("-q", "--quiet", action="store_true", help="say errors only")
    parser.add_argument("--reload", action="store_true", help="put the change in force at once, or take it back if the server refuses it")
    parser.add_argument("--config-dir", default=os.environ.get("PERCHILD_CONFDIR", DEFAULT_CONFIG_DIR), metavar="DIR",
                        help=f"where sites-available and sites-enabled are ({DEFAULT_CONFIG_DIR})")


COMMANDS: tuple[Command, ...] = (
    Command("ensite", "enable sites: link their files into sites-enabled", _run, _add_arguments),
    Command("dissite", "disable sites: remove their links from sites-enabled", _run, _add_arguments),
)
