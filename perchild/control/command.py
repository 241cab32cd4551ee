"""perchildctl: the table of its commands, and those that are one question to the server.

Exit status: 0 done, 1 refused (and why), 2 wrong call, 3 no server answers.
Runs as: root, or the uid the server was started by.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perchild.control import check, explain, import_command
from perchild.control.client import NoServerError, ask_pages, ask_server
from perchild.control.protocol import ProtocolError
from perchild.control.table import Command
from perchild.wire.page import Page

DEFAULT_RUN_DIR = "/run/perchildd"
_OPERATIONS = {"reload": "graceful", "graceful": "graceful", "restart": "restart", "reopen": "reopen", "stop": "stop",
               "graceful-stop": "graceful-stop", "drain": "drain"}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of perchildctl."""
    parser = argparse.ArgumentParser(prog="perchildctl", description="Ask a running perchildd, and look at configurations.")
    parser.add_argument("--run-dir", default=os.environ.get("PERCHILD_RUN_DIR", DEFAULT_RUN_DIR), help="where its control.sock is")
    commands = parser.add_subparsers(dest="command", required=True)
    for row in COMMANDS:
        command = commands.add_parser(row.name, help=row.help, description=row.help)
        command.add_argument("--json", action="store_true", help="answer in JSON")
        row.add_arguments(command)
        command.set_defaults(run=row.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run perchildctl with `argv` (without the program's name; None: the process's own); return the exit status."""
    options = make_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except NoServerError as error:
        sys.stderr.write(f"perchildctl: {error}\n")
        return 3
    except (ProtocolError, OSError) as error:
        sys.stderr.write(f"perchildctl: {error}\n")
        return 1


def _run_operation(options: argparse.Namespace) -> int:
    request = {"op": _OPERATIONS[options.command]}
    if options.command == "drain":
        request["identity"] = options.identity
    answer = ask_server(options.run_dir, request)
    if options.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    elif answer.get("text"):
        (sys.stdout if answer["ok"] else sys.stderr).write(f"{answer['text']}\n")
    return 0 if answer["ok"] else 1


def _run_status(options: argparse.Namespace) -> int:
    status = ask_server(options.run_dir, {"op": "status"})
    pids = [child["pid"] for identity in status["identities"] for child in identity["children"]]
    pages = ask_pages(options.run_dir, pids)
    add_pages(status, pages)
    sys.stdout.write(json.dumps(status) + "\n" if options.json else render_status(status))
    return 0


def add_pages(status: dict[str, Any], pages: Mapping[int, Page]) -> None:
    """Put what each child says of itself next to what the dispatcher knows of it."""
    for identity in status["identities"]:
        for child in identity["children"]:
            page = pages.get(child["pid"])
            if page is not None:
                child["counters"] = page.counters
                child["slots"] = [slot.value for slot in page.slots]
                child["slot_histories"] = [list(slot.history) for slot in page.slots]


def render_status(status: Mapping[str, Any]) -> str:
    """Return the status as text: a head, then a line for each identity and one for each child."""
    head = (f"perchildd pid {status['pid']}: {status['state']}, MPM {status['mpm']}, AcceptScope {status['accept_scope']}, "
            f"generation {status['generation']}, up {status['uptime_s']:.0f} s, {status['host_count']} hosts")
    lines = [head, "listening on " + (" ".join(f"{one['address']}:{one['port']}" for one in status["listeners"]) or "nothing")]
    for identity in status["identities"]:
        notes = "".join(f", {note}" for key, note in (("is_removed", "removed"), ("is_held_back", "held back")) if identity[key])
        lines.append(f"{identity['number']:>5} {identity['name']} uid={identity['uid']} gid={identity['gid']} {identity['kind']}, "
                     f"{identity['hosts']} hosts, {len(identity['children'])} children{notes}")
        lines += [_render_child(child) for child in identity["children"]]
    return "\n".join(lines) + "\n"


def _render_child(child: Mapping[str, Any]) -> str:
    counters = child.get("counters", {})
    facts = "".join(f" {name}={counters[name]}" for name in ("requests", "connections", "parked", "handed_in", "handed_out")
                    if name in counters)
    slots = f" slots={' '.join(map(str, child['slots']))}" if "slots" in child else ""
    return (f"      pid {child['pid']} {child['state']} generation={child['generation']}"
            f"{' accepting' if child['is_accepting'] else ''} idle={child['idle']} busy={child['busy']}{facts}{slots}")


def _add_identity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("identity", help="name or number")


COMMANDS: tuple[Command, ...] = (
    Command("status", "identities, their children, and what these have done", _run_status),
    Command("reload", "take the configuration; wait until it is in force", _run_operation),
    Command("graceful", "the same", _run_operation),
    Command("restart", "take the configuration and replace every child at once", _run_operation),
    Command("reopen", "open the logs anew", _run_operation),
    Command("drain", "replace the children of one identity gracefully", _run_operation, _add_identity),
    Command("stop", "stop now", _run_operation),
    Command("graceful-stop", "finish and stop", _run_operation),
    *check.COMMANDS,
    *explain.COMMANDS,
    *import_command.COMMANDS,
)
