"""perchildctl: the table of its commands, and those that are one question to the server.

Exit status: 0 done, 1 refused (and why), 2 wrong call, 3 no server answers.
Runs as: root, or the uid the server was started by.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from perchild.control import check, explain, import_command, site_files, watch
from perchild.control.client import NoServerError, ask_server
from perchild.control.protocol import ProtocolError
from perchild.control.table import Command

DEFAULT_RUN_DIR = "/run/perchildd"
_OPERATIONS = {"reload": "graceful", "graceful": "graceful", "restart": "restart", "reopen": "reopen", "stop": "stop",
               "graceful-stop": "graceful-stop", "drain": "drain"}
EXIT_NO_SERVER = 3


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
        return _fail(options, EXIT_NO_SERVER, str(error))
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - whoever read has enough; the interpreter must not say so at its end
        return 0
    except (ProtocolError, OSError) as error:
        return _fail(options, 1, str(error))


def _fail(options: argparse.Namespace, status: int, text: str) -> int:
    """Say why nothing was done: on standard error, and as JSON where that was asked for."""
    if options.json:
        sys.stdout.write(json.dumps({"ok": False, "text": text}) + "\n")
    sys.stderr.write(f"perchildctl: {text}\n")
    return status


def _run_operation(options: argparse.Namespace) -> int:
    request = {"op": _OPERATIONS[options.command]}
    if options.command == "drain":
        request["identity"] = options.identity
    return _tell(options, ask_server(options.run_dir, request))


def _tell(options: argparse.Namespace, answer: dict[str, Any]) -> int:
    if options.json:
        sys.stdout.write(json.dumps(answer) + "\n")
    elif answer.get("text"):
        (sys.stdout if answer["ok"] else sys.stderr).write(f"{answer['text']}\n")
    return 0 if answer["ok"] else 1


def _run_reload(options: argparse.Namespace) -> int:
    """Reload; with a site, succeed only if that site is in force as it is on disk."""
    answer = ask_server(options.run_dir, {"op": "graceful"})
    if answer["ok"] and options.site:
        answer = {**answer, **_look_at_site(options.run_dir, options.site)}
    elif answer["ok"] and not answer.get("text"):
        answer = {**answer, "text": "the configuration is in force"}
    return _tell(options, answer)


def _look_at_site(run_dir: str, site: str) -> dict[str, Any]:
    """Return whether a site (a host's name, or its file's) is in force as it is on disk, and else why not."""
    broken = ask_server(run_dir, {"op": "status"}).get("broken_sites", ())
    for one in broken:
        if site.lower() in {*map(str.lower, one["hosts"]), os.path.basename(one["file"]).removesuffix(".conf").lower()}:
            served = f"its {one['stand_in']} is served" if one["stand_in"].startswith("last") else f"{one['stand_in']} is served instead"
            return {"ok": False, "text": f"{one['file']}:{one['line']}: {one['reason']}; {served}. Mend it, then: perchildctl reload {site}"}
    from perchild.control import site_list  # noqa: PLC0415 - it compiles the configuration

    call = ask_server(run_dir, {"op": "config"})
    if site_list.knows(call, site):
        return {"ok": True, "text": f"{site} is in force"}
    return {"ok": False, "text": f"the configuration was taken, but has no site {site}: perchildctl sites lists them; "
                                 f"perchildctl ensite enables one of sites-available"}


def _add_identity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("identity", help="name or number")


def _add_site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", help="a host's name: fail unless this one is in force as it is on disk")


COMMANDS: tuple[Command, ...] = (
    *watch.COMMANDS,
    Command("reload", "take the configuration; wait until it is in force", _run_reload, _add_site),
    Command("graceful", "the same", _run_operation),
    Command("restart", "take the configuration and replace every child at once", _run_operation),
    Command("reopen", "open the logs anew", _run_operation),
    Command("drain", "replace the children of one identity gracefully", _run_operation, _add_identity),
    Command("stop", "stop now", _run_operation),
    Command("graceful-stop", "finish and stop", _run_operation),
    *check.COMMANDS,
    *site_files.COMMANDS,
    *explain.COMMANDS,
    *import_command.COMMANDS,
)
