"""The runner's file: what the process that runs an identity's programs is told, as JSON (perchild/runner reads it).

    {"version", "user", "uid", "gid", "home", "roots", "limits": {"cpu", "mem", "nproc"}, "nice", "new_privs", "path", "idle_s", "is_json",
     "services": [{"name", "kind", "socket", "idle_s", ...}]}

Limits are [soft, hard] or null (the system's); -1 stands for no limit. Times are seconds.
Runs as: compile (pure).
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perchild.config.directives_program import NO_LIMIT, App, Daemon, Pool, Wsgi
from perchild.config.identity import Person

VERSION = 1
PROGRAM_PATH = "/usr/local/bin:/usr/bin:/bin"
FCGI, HTTP = 0, 1  # wire SERVICE_KIND
_LIMITS = {"cpu": "rlimit_cpu", "mem": "rlimit_mem", "nproc": "rlimit_nproc"}


class Service(NamedTuple):
    """A long-lived program: kind of wire SERVICE_KIND, path of its socket, its entry in the file.

    workers: how many connections it serves at once, each by a worker that serves no other meanwhile; 0 = that is not known.
    """

    kind: int
    socket: str
    entry: dict[str, Any]
    workers: int = 0

    def note_php(self, names: Mapping[str, bool]) -> None:
        """Take settings of PHP that sections of a host of this pool change, and whether one does by php_admin_value."""
        known = self.entry["changed"]
        known.update({name: known.get(name, False) or is_admin for name, is_admin in names.items()})


class Site(NamedTuple):
    """What a service takes from the host that asks for it: root, error log, variables of SetEnv, settings of PHP."""

    document_root: str
    error_log: str
    env: Mapping[str, str]
    php_values: tuple[tuple[str, str, str], ...]  # directive, name, value


@dataclass(slots=True)
class Programs:
    """What one identity's programs are and may: gathered host by host."""

    is_needed: bool = False
    roots: dict[str, None] = field(default_factory=dict)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    may_gain: bool = False
    services: list[Service] = field(default_factory=list)
    _known: dict[tuple[object, ...], int] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def limit(self, values: Mapping[str, Any]) -> None:
        """Take the limits of one host; of several, the least counts (of nice values the highest)."""
        for name, key in _LIMITS.items():
            if key in values:
                self.limits[name] = _least(self.limits.get(name), values[key])
        if "nice" in values:
            self.nice = values["nice"] if self.nice is None else max(self.nice, values["nice"])
        self.may_gain = self.may_gain or not values.get("no_new_privs", True)

    def find_pool(self, pool: Pool, site: Site, directory: str) -> int:
        """Return the index of the php-fpm that `pool` asks for: hosts with the same settings share one."""
        return self._find("php", (pool, site.php_values), FCGI, directory, pool.idle_s, {
            "version": pool.version, "max_children": pool.max_children, "values": [list(value) for value in site.php_values],
            "changed": {}}, pool.max_children)

    def find_app(self, app: App, site: Site, directory: str) -> int:
        """Return the index of the application server `app`."""
        cwd, env = find_cwd(site.document_root), dict(site.env)
        return self._find("app", (app, cwd, tuple(env.items())), HTTP, directory, 0,
                          {"command": list(app.command), "cwd": cwd, "env": env, "log": site.error_log})

    def find_wsgi(self, wsgi: Wsgi, daemon: Daemon, site: Site, directory: str) -> int:
        """Return the index of the server of the WSGI application `wsgi`."""
        cwd, env = daemon.home or posixpath.dirname(wsgi.file), dict(site.env)
        return self._find("wsgi", (wsgi.file, wsgi.mount, daemon, tuple(env.items())), HTTP, directory, 0, {
            "file": wsgi.file, "mount": wsgi.mount, "python_home": daemon.python_home, "python_path": list(daemon.python_path),
            "cwd": cwd, "env": env, "log": site.error_log})

    def find_wrapper(self, command: str, processes: int, env: Mapping[str, str], site: Site, directory: str) -> int:
        """Return the index of the program of a FcgidWrapper; at most so many processes of it, which start with `env`."""
        return self._find("fcgid", (command, processes, tuple(env.items())), FCGI, directory, 0, {
            "command": command.split(), "max_children": processes, "env": dict(env), "log": site.error_log})

    def _find(self, kind: str, key: tuple[object, ...], wire_kind: int, directory: str, idle_s: int, more: dict[str, Any],
              workers: int = 0) -> int:
        index = self._known.get((kind, *key))
        if index is None:
            count = self._counts[kind] = self._counts.get(kind, -1) + 1
            name = kind if kind == "php" and count == 0 else f"{kind}{count}"
            socket = f"{directory}/{name}.sock"
            index = self._known[kind, *key] = len(self.services)
            self.services.append(Service(wire_kind, socket, {"name": name, "kind": kind, "socket": socket, "idle_s": idle_s, **more},
                                         workers))
            self.is_needed = True
        return index


def find_cwd(document_root: str) -> str:
    """Return where an application server starts: the directory that holds DocumentRoot, as application and public files mostly lie."""
    parent = posixpath.dirname(document_root)
    return parent if parent != "/" else document_root


def _least(one: tuple[int, int] | None, other: tuple[int, int]) -> tuple[int, int]:
    if one is None:
        return other
    soft, hard = (b if a == NO_LIMIT else a if b == NO_LIMIT else min(a, b) for a, b in zip(one, other, strict=True))
    return soft, hard


def _sorted_names(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    return {"changed": sorted(entry["changed"])} if "changed" in entry else {}


def render(person: Person, home: str, programs: Programs, idle_s: int, *, is_json: bool) -> bytes:
    """Return the runner's file of an identity.

    Args:
        person, home: who programs run as, and the home directory ("/" if there is none).
        programs: what its hosts ask for.
        idle_s: RunnerIdle.
        is_json: ErrorLogFormat json.
    """
    limits = {name: list(programs.limits[name]) if name in programs.limits else None for name in _LIMITS}
    services = [{**service.entry, **_sorted_names(service.entry), "idle_s": service.entry["idle_s"] or idle_s} for service in programs.services]
    whole = {
        "version": VERSION, "user": person.name, "uid": person.uid, "gid": person.gid, "home": home, "roots": list(programs.roots),
        "limits": limits, "nice": programs.nice or 0, "new_privs": programs.may_gain, "path": PROGRAM_PATH, "idle_s": idle_s,
        "services": services, "is_json": is_json,
    }
    return json.dumps(whole, separators=(",", ":")).encode()
