"""The runner's file: what compile tells the process that executes an identity's programs. JSON, written beside the record.

Runs as: runner; compile writes it (config/runner.py).  Pure.  Trusts: the file, which root alone can write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

VERSION = 1
PHP, APP, WSGI, FCGID = "php", "app", "wsgi", "fcgid"
TOKEN_BYTES = 7  # by which the path that a service's socket is bound at (".0a1b2c") is longer than the one that leads to it
NO_LIMIT = -1  # of an RLimit: as much as the system allows


@dataclass(frozen=True, slots=True)
class Service:
    """A long-lived program. Members below idle_s belong to the kinds that stand beside them; paths are absolute."""

    name: str  # unique in the file; letters and digits
    kind: str
    socket: str
    idle_s: int = 0  # without a connection; 0 = it is never ended for that
    version: str = ""  # php: "8.2"; "" = the newest there is
    max_children: int = 8  # php; fcgid: processes of the command, each of which serves one request at a time
    values: tuple[tuple[str, str, str], ...] = ()  # php: directive (php_admin_value ...), name, value
    changed: tuple[str, ...] = ()  # php: names of settings that sections change, and other requests set back
    command: tuple[str, ...] = ()  # app: its words; {fd} and {socket} are replaced; fcgid
    cwd: str = ""  # app, wsgi; "" = the home directory
    env: tuple[tuple[str, str], ...] = ()  # app, wsgi, fcgid
    log: str = ""  # app, wsgi, fcgid: the host's error log; for its lines, if it is the tenant's
    file: str = ""  # wsgi: the file that defines `application`
    mount: str = "/"  # wsgi: URL path it stands at
    python_home: str = ""  # wsgi: a virtual environment
    python_path: tuple[str, ...] = ()  # wsgi


@dataclass(frozen=True, slots=True)
class Limits:
    """(soft, hard) of each program; None = as the runner has them. cpu: s of CPU time; mem: bytes; nproc: processes of the user."""

    cpu: tuple[int, int] | None = None
    mem: tuple[int, int] | None = None
    nproc: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RunnerFile:
    """One identity's. roots: directories below which a program may lie; path: of PATH; idle_s: without anything to do."""

    user: str
    uid: int
    gid: int
    home: str
    roots: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    nice: int = 0
    new_privs: bool = False  # set-uid and set-gid programs give what they give; Identity.new_privs says the same
    path: str = "/usr/local/bin:/usr/bin:/bin"
    idle_s: int = 300
    services: tuple[Service, ...] = ()
    is_json: bool = False  # ErrorLogFormat json: the runner's lines are objects, as everybody's are
    version: int = VERSION


def decode_runner(raw: bytes) -> RunnerFile:
    """Return what `raw` holds; ValueError if it is another version or shape."""
    tree: dict[str, Any] = json.loads(raw)
    if tree.get("version") != VERSION:
        raise ValueError(f"runner file version {tree.get('version')!r}, expected {VERSION}")
    try:
        tree["roots"] = tuple(tree["roots"])
        tree["limits"] = Limits(**{name: tuple(pair) if pair else None for name, pair in tree["limits"].items()})
        tree["services"] = tuple(_decode_service(one) for one in tree["services"])
        return RunnerFile(**tree)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"runner file: {error}") from error


def _decode_service(tree: dict[str, Any]) -> Service:
    tree["values"] = tuple(tuple(row) for row in tree.get("values", ()))
    tree["env"] = tuple(tree.get("env", {}).items())
    for name in ("command", "python_path", "changed"):
        tree[name] = tuple(tree.get(name, ()))
    return Service(**tree)
