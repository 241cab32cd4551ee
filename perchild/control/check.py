"""`perchildctl check`: everything about a configuration and its files that an operator should know, errors or not.

Exit status: 0 nothing, or notes only; 1 something that is to be mended.
Runs as: whoever calls perchildctl; root sees everything.
Before: command.py  After: checks.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from perchild.control.checks import CHECKS, NOTE, make_subject, run_checks
from perchild.control.offline import add_config_arguments, compile_offline, refuse, say
from perchild.control.table import Command
from perchild.words import count_of


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="show the table of checks, and check nothing")
    add_config_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    if options.list:
        rows = [{"check": one.name, "severity": one.severity, "what": one.what, "remedy": one.remedy} for one in CHECKS]
        if options.json:
            sys.stdout.write(json.dumps(rows) + "\n")
        else:
            say([line for row in rows for line in (f"{row['check']:<20} {row['severity']:<8} {row['what']}",
                                                   f"{'':<29} Remedy: {row['remedy']}")])
        return 0
    result = compile_offline(options)
    subject = make_subject(result, os.path.abspath(options.root))
    if subject is None:
        return refuse(result)
    report = [{"check": check.name, "severity": check.severity, "what": check.what, "remedy": check.remedy,
               "found": [{"what": one.what, "file": one.file, "line": one.line} for one in found]} for check, found in run_checks(subject)]
    is_bad = any(one["severity"] != NOTE for one in report)
    if options.json:
        sys.stdout.write(json.dumps({"ok": not is_bad, "hosts": len(subject.model.hosts), "findings": report}) + "\n")
    else:
        say(_render(report, len(subject.model.hosts)))
    return 1 if is_bad else 0


def _render(report: list[dict[str, Any]], host_count: int) -> list[str]:
    head = [count_of(host_count, "host") + (f", looked at as uid {os.geteuid()}: only root sees what each user sees" if os.geteuid() else "")]
    if not report:
        return [f"{head[0]}: nothing found by {len(CHECKS)} checks"]
    for one in report:
        head += ["", f"{one['severity']}: {one['check']}: {one['what']}"]
        head += [f"  {found['what']}" + (f" ({found['file']}:{found['line']})" if found["line"] else "") for found in one["found"]]
        head.append(f"  Remedy: {one['remedy']}")
    return head


COMMANDS = (Command("check", "look for what is wrong, or dangerous, with a configuration and its files", _run, _add_arguments),)
