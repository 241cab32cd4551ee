"""`perchildctl import SOURCE [-o DIR]`: httpd's configuration anew for perchildd, with a report by file and line.

Runs as: whoever calls perchildctl.  Sees: the source, which it only reads.
Before: command.py  After: importer/
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from perchild.config.compile import compile_nodes
from perchild.config.load import Files, make_env
from perchild.config.messages import Diagnostic, make_printable
from perchild.config.model import Options
from perchild.config.tree import Node, Tree
from perchild.control.table import Command
from perchild.importer import source as sources
from perchild.importer import translate as translation
from perchild.importer.write import Site, WriteError, check_target, write_all
from perchild.words import count_of

DEFAULT_TARGET = "/etc/perchild.imported"
_MANY = 3  # lines of one directive in one file, and of one reason, that are shown each by itself
_WIDTH = 100  # characters of a line of the source that the report shows


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="httpd's configuration: its directory, as /etc/apache2, or its main file")
    parser.add_argument("-o", "--output", default=DEFAULT_TARGET, metavar="DIR", help=f"where to write to: new or empty ({DEFAULT_TARGET})")
    parser.add_argument("-n", "--dry-run", action="store_true", help="write nothing, report only")


def _check(nodes: list[Node], server_root: str) -> list[Diagnostic]:
    """Compile a tree as root's; return what is wrong with it."""
    options = Options(server_root=server_root, environ=dict(os.environ))
    env = make_env(options)
    env.server_root = server_root
    return compile_nodes(options, env, Files(-1), {}, Tree(nodes, server_root=server_root), "perchild").errors


def _run(options: argparse.Namespace) -> int:
    directory = os.path.abspath(options.output)
    try:
        source = sources.read_source(options.source)
        base = options.source if os.path.isdir(options.source) else os.path.dirname(source.main)
        if not options.dry_run:
            check_target(directory, base)
    except (sources.SourceError, WriteError) as error:
        sys.stderr.write(f"perchildctl: {error}\n")
        return 1
    root = source.tree.server_root
    result = translation.translate(source.tree.nodes, root, lambda nodes: _check(nodes, root))
    for one in sources.unread(source.tree):
        result.findings[one.file, one.line] = translation.Finding(one.file, one.line, one.text, translation.MISSING, one.reason)
    sites = [] if options.dry_run else write_all(result, directory, options.source, root)
    report = make_report(source, result, sites, "" if options.dry_run else directory)
    sys.stdout.write(json.dumps(report) + "\n" if options.json else render_report(report))
    return 0


# ---------------------------------------------------------------- the report


def make_report(source: sources.Source, result: translation.Translation, sites: Iterable[Site], directory: str) -> dict[str, Any]:
    """Return everything that --json prints; lines in the order in which the source's files were read."""
    order = {path: number for number, (_, _, path) in enumerate(source.tree.includes)}
    base = os.path.abspath(source.base)
    findings = sorted(result.findings.values(), key=lambda one: (order.get(one.file, -1), one.line))
    counts = Counter(one.state for one in findings)
    kept = counts[translation.UNDERSTOOD] + counts[translation.WITHOUT_EFFECT]
    known = make_env(Options()).users
    return {
        "ok": True, "source": source.main, "files": len(order), "directory": directory, "server_root": source.tree.server_root,
        "elsewhere": [path for path in order if not os.path.abspath(path).startswith(f"{base}/")],
        "counts": {state: counts[state] for state in (translation.UNDERSTOOD, translation.WITHOUT_EFFECT, translation.MISSING)},
        "percent": 100 * kept // max(1, len(findings)), "hosts": len(result.hosts),
        "unassigned": [host.name or "_default_" for host in result.hosts if not host.user],
        "sites": [{"file": site.file, "names": sorted({host.name for host in site.hosts if host.name}),
                   "users": sorted({host.user for host in site.hosts if host.user}), "is_enabled": not site.reason, "reason": site.reason,
                   "sources": [f"{host.source.file}:{host.source.line}" for host in site.hosts]} for site in sites],
        "lines": [{"file": one.file, "line": one.line, "text": " ".join(one.text.split()), "state": one.state, "note": one.note,
                   "is_weaker": one.is_weaker} for one in findings],
        "unknown_users": sorted(user for user in result.users if not user.startswith("#") and known.user(user) is None),
        "errors": [error.render_line() for error in result.errors],
    }


def render_report(report: dict[str, Any]) -> str:
    """Return the report for people: numbers, what is weaker, what is missing, what has no effect, and what to do next."""
    lines, counts = report["lines"], report["counts"]
    users = {user for site in report["sites"] for user in site["users"]}
    size = f"{report['source']}: {count_of(report['files'], 'file')}, {count_of(report['hosts'], 'host')}"
    parts = [f"{size} of {count_of(len(users), 'user')}" if report["sites"] else size,
             *(f"{counts[state]:>6} lines {state}" for state in counts),
             f"{report['percent']:>5} % of the lines keep their meaning"]
    parts += _warn_of_places(report)
    if report["unassigned"]:
        more = len(report["unassigned"]) - _MANY
        shown = ", ".join(report["unassigned"][:_MANY]) + (f" and {more} more" if more > 0 else "")
        parts.append(f"\nServed by User, all together, as long as no AssignUserID names one of their own: {shown}")
    missing = [one for one in lines if one["state"] == translation.MISSING]
    parts += _list("Weaker now: these lines kept somebody out, or made something safer, and nothing does so here",
                   [one for one in missing if one["is_weaker"]])
    parts += _list("Missing", [one for one in missing if not one["is_weaker"]])
    parts += _list("Without effect here", [one for one in lines if one["state"] == translation.WITHOUT_EFFECT])
    parts += [f"\nNot enabled: {site['file']}: {site['reason']}" for site in report["sites"] if not site["is_enabled"]]
    if report["unknown_users"]:
        parts.append(f"\nUsers that this machine does not have, whose sites cannot be served: {' '.join(report['unknown_users'])}")
    parts += [f"\nperchildd does not take it: {error}" for error in report["errors"]]
    if report["directory"]:
        parts.append(f"\n{count_of(len(report['sites']), 'site')} written to {report['directory']}. Next: perchildd -t -d {report['directory']}")
    return make_printable_lines(parts)


def _warn_of_places(report: dict[str, Any]) -> list[str]:
    """Return what to say where other files may have been read than was meant: a copy of a tree whose lines name the original's places."""
    parts = []
    if report["elsewhere"]:
        shown = ", ".join(report["elsewhere"][:_MANY]) + (", ..." if len(report["elsewhere"]) > _MANY else "")
        parts.append(f"\nRead from elsewhere, as ServerRoot ({report['server_root']}) and Include say: {shown}. "
                     "If this is a copy of another machine's, change these lines in the copy")
    if not report["hosts"]:
        parts.append("\nThere is no <VirtualHost> in these files. Relative names of Include were looked for below ServerRoot, "
                     f"{report['server_root']}")
    return parts


def make_printable_lines(parts: Iterable[str]) -> str:
    """Return lines, each without characters that a terminal would obey."""
    return "".join(f"{make_printable(line)}\n" for part in parts for line in part.split("\n"))


def _list(title: str, lines: list[dict[str, Any]]) -> list[str]:
    """Return lines by reason; many of one directive in one file, or in many files, are one."""
    if not lines:
        return []
    out = [f"\n{title} ({len(lines)}):"]
    for note in sorted({one["note"] for one in lines}):
        out.append(f"  {note}")
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for one in (one for one in lines if one["note"] == note):
            groups.setdefault((one["text"].split(None, 1)[0] if one["text"] else "", one["file"]), []).append(one)
        for (name, file), group in groups.items():
            if len(group) > _MANY:
                out.append(f"    {file}:{group[0]['line']}-{group[-1]['line']}: {name} ({len(group)} lines)")
            else:
                out += [f"    {one['file']}:{one['line']}: {_cut(one['text'])}" for one in group]
    return out


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


COMMANDS = (Command("import", "write httpd's configuration (mpm-itk, mod_ruid2, suEXEC, peruser) anew for perchildd", _run, _add_arguments),)
