"""perchildctl ensite, dissite: links in sites-enabled to files in sites-available, with a2ensite's words and exit statuses.

With --reload the change is in force, or taken back, when the command returns.
Runs as: root, or whoever owns the configuration.  Source: a2enmod(8) of Debian's apache2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from perchild.control.client import ask_server
from perchild.control.links import DEFAULT_ROOT, DONE, ERROR, HINT, SUFFIX, UNCHANGED, Links
from perchild.control.table import Command


def _run(options: argparse.Namespace) -> int:
    links = Links(Path(options.config_dir), "site", "sites", is_enabling=options.command == "ensite")
    folder = links.available if links.is_enabling else links.enabled
    if not options.site:
        sys.stderr.write(f"Your choices are: {' '.join(links.choices()) or f'none: {folder} is empty'}\n")
        return 2
    names = list(dict.fromkeys(name for pattern in dict.fromkeys(options.site) for name in links.act(pattern)))
    reloaded = _reload(options.run_dir, links, names) if options.reload and links.lines(DONE) and not links.lines(ERROR) else None
    _report(options, links, reloaded)
    return int(bool(links.lines(ERROR)))


def _reload(run_dir: str, links: Links, names: list[str]) -> dict[str, Any]:
    """Have the server take the change; take it back if it refuses it, or one of these sites is broken."""
    answer = ask_server(run_dir, {"op": "graceful"})
    files = {f"{name}{SUFFIX}" for name in names}
    broken = [one for one in ask_server(run_dir, {"op": "status"}).get("broken_sites", ()) if os.path.basename(one["file"]) in files]
    if answer["ok"] and not broken:
        return answer
    for undo in reversed(links.undo):
        undo()
    wrong = [f"{one['file']}:{one['line']}: {one['reason']}" for one in broken] or [answer.get("text") or "the configuration was refused"]
    links.said = [(kind, line) for kind, line in links.said if kind != DONE] + [(ERROR, line) for line in wrong]
    if answer["ok"]:
        ask_server(run_dir, {"op": "graceful"})
    links.said.append((ERROR, "The change was taken back, and the server goes on as before"))
    return {**answer, "ok": False}


def _report(options: argparse.Namespace, links: Links, reloaded: dict[str, Any] | None) -> None:
    done, unchanged, errors = (links.lines(kind) for kind in (DONE, UNCHANGED, ERROR))
    if options.json:
        result = {"ok": not errors, "done": done, "unchanged": unchanged, "errors": errors, "is_in_force": bool(reloaded and reloaded["ok"])}
        sys.stdout.write(json.dumps(result) + "\n")
        return
    if not options.quiet:
        for line in (*done, *unchanged):
            sys.stdout.write(f"{line}\n")
        if done and reloaded is None:
            sys.stdout.write(HINT)
    for line in errors:
        sys.stderr.write(f"ERROR: {line}\n")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="*", help="name of the site's file, with or without .conf; * and ? stand for what they do in a shell")
    parser.add_argument("-q", "--quiet", action="store_true", help="say errors only")
    parser.add_argument("--reload", action="store_true", help="put the change in force at once, or take it back if the server refuses it")
    parser.add_argument("--config-dir", default=os.environ.get("PERCHILD_CONFDIR", DEFAULT_ROOT), metavar="DIR",
                        help=f"where sites-available and sites-enabled are ({DEFAULT_ROOT})")


COMMANDS: tuple[Command, ...] = (
    Command("ensite", "enable sites: link their files into sites-enabled", _run, _add_arguments),
    Command("dissite", "disable sites: remove their links from sites-enabled", _run, _add_arguments),
)
