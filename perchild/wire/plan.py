"""The plan: what the dispatcher knows of a configuration. Written by compile as JSON, read by the dispatcher.

It names identities, listeners and numbers; nothing of what a host contains (that is in the records).
Runs as: compile (writes), dispatcher (reads).  Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

VERSION = 1
_MAX_GROUPS_BYTES = 24

UNASSIGNED = "unassigned"  # the children under User/Group
FIXED = "fixed"  # named by ChildPerUserID: always there, accepts if AcceptScope is any
ON_DEMAND = "on-demand"  # named by AssignUserID only: forked at the first connection, ends when idle


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening address. address: text; port 1..65535; backlog and buffers 0 = system's default (bytes)."""

    family: int  # 4 or 6
    address: str
    port: int
    backlog: int
    send_buffer_bytes: int
    receive_buffer_bytes: int
    source: str  # "FILE:LINE" of its Listen


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log file of one identity, in the order of its record's LOG_FILE items."""

    path: str
    source: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a child runs as, how many children there are, and where its record is.

    number is stable while the dispatcher lives: (uid, gid, groups) keeps it over reloads.
    record: file name below the run directory's `records`; digest: hex SHA-256 of its bytes.
    runner: file name of the runner's file, beside the record; "" = nothing of this identity is a program run here.
    """

    number: int
    name: str  # for people: "alice" or "#1001"
    uid: int
    gid: int
    groups: tuple[int, ...]
    kind: str
    children: int  # FIXED: how many; ON_DEMAND: at most; UNASSIGNED: the MPM decides
    record: str
    digest: str
    host_count: int
    start_threads: int
    min_spare_threads: int
    max_spare_threads: int
    max_threads: int
    max_connections: int  # MaxConnectionsPerChild, 0 = any number
    idle_timeout_s: int  # ON_DEMAND only
    logs: tuple[LogFile, ...] = ()
    runner: str = ""
    keys: tuple[str, ...] = ()  # absolute paths of its hosts' TLS keys, by KEY_NUMBER; not empty: it has session tickets
    tls_files: tuple[tuple[str, str], ...] = ()  # every file that its hosts' TLS is made of: path, stamp (config/certs.py) when it was read
    tls_held: str = ""  # why hosts of it have another certificate than these files, which have become worse; "" = none has
    new_privs: bool = False  # its programs go without no_new_privs (NoNewPrivileges Off); the runner's file says the same
    source: str = ""  # compile's: hash of all that the record is made of; the same at a later compilation: it is not made again
    source_until_s: int = 0  # until then, seconds since 1970; 0 = for ever


@dataclass(frozen=True, slots=True)
class Scale:
    """How many unassigned children: the MPM's numbers. For perchild: NumServers less the fixed children, at least one."""

    start_servers: int
    min_spare: int  # prefork: servers; worker: threads over all children
    max_spare: int
    server_limit: int
    threads_per_child: int
    max_workers: int  # MaxRequestWorkers


@dataclass(frozen=True, slots=True)
class BrokenSite:
    """A part of the configuration that was refused without the rest.

    line, reason: of the first thing that is wrong with it, line 0 = its file as such; stand_in: what is served instead, one of
    "last good version" (which is of the time `when`), "503" and "nothing"; hosts: names that it is about.
    """

    file: str
    line: int
    reason: str
    stand_in: str
    when: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the dispatcher acts on. Paths are absolute; times in seconds."""

    mpm: str  # "perchild", "worker" or "prefork"
    server_root: str
    pid_file: str
    run_dir: str
    score_board_file: str  # "" = none
    core_dump_dir: str
    error_log: str  # the main server's: where the dispatcher writes
    error_log_level: int
    error_log_json: bool
    accept_scope: str  # "any" or "unassigned"
    accept_mutex: str  # "default", "flock", "fcntl", "pthread", "sysvsem"
    lock_file: str
    graceful_shutdown_timeout_s: int  # 0 = wait for ever
    thread_stack_bytes: int  # 0 = system's
    max_mem_free_kb: int
    exception_hook: bool
    uid: int  # User
    gid: int  # Group
    groups: tuple[int, ...]
    listeners: tuple[Listener, ...]
    identities: tuple[Identity, ...]
    scale: Scale
    types_digest: str
    host_count: int
    server_name: str
    warnings: tuple[str, ...] = ()
    broken_sites: tuple[BrokenSite, ...] = ()
    sites: int = 0  # files of sites
    sites_read: int = 0  # of these, read and parsed this time
    records_made: int = 0  # identities whose records were made this time; those of the others are as they were
    version: int = VERSION


@dataclass(slots=True)
class Compiled:
    """All that compile makes: the plan, the route table, the types table, the records by file name."""

    plan: Plan
    route_table: bytes
    types_table: bytes
    records: dict[str, bytes] = field(default_factory=dict)  # also the runners' files: they lie in the same directory
    notes: bytes = b""  # for the next compile: config/reuse.py


RUN_DIR, TENANTS_DIR = "/run/perchildd", "/var/lib/perchild-tenants"  # of a server that root starts, if DefaultRuntimeDir names no other


def tenant_directory(run_dir: str, uid: int, gid: int, groups: Sequence[int]) -> str:
    """Return the directory of an identity's service sockets: its key, or a hash in place of groups that would make it too long.

    A socket's path has 107 bytes of room (unix(7)). The tenant can write to it, and /run is memory that the whole system needs: so
    below the run directory that we choose ourselves there is none, but one on a disk, where quotas hold. Whoever chooses another
    run directory has them below that.
    """
    names = ",".join(map(str, groups))
    if len(names) > _MAX_GROUPS_BYTES:
        names = hashlib.sha256(names.encode()).hexdigest()[:16]
    return f"{TENANTS_DIR if run_dir == RUN_DIR else f'{run_dir}/tenants'}/{uid}:{gid}:{names}"


def encode_plan(plan: Plan, base: Plan | None = None) -> bytes:
    """Return the plan as JSON; an identity that is in `base` as it is, as its number alone."""
    tree = _members(plan)
    known = {identity.number: identity for identity in base.identities} if base else {}
    tree["identities"] = [one.number if known.get(one.number) == one else one for one in plan.identities]
    return json.dumps(tree, default=_members, separators=(",", ":")).encode()


def _members(one: object) -> dict[str, object]:
    """Return a record's members; asdict would copy each of them, which takes 0.2 s for 2,000 identities."""
    return {name: getattr(one, name) for name in one.__slots__}  # type: ignore[attr-defined]


def decode_plan(raw: bytes, base: Plan | None = None) -> Plan:
    """Return the plan that `raw` holds; ValueError if it is another version or shape.

    base: that with which it was encoded; its identities are used again.
    """
    tree = json.loads(raw)
    if tree.get("version") != VERSION:
        message = f"plan version {tree.get('version')!r}, expected {VERSION}"
        raise ValueError(message)
    tree["listeners"] = tuple(Listener(**one) for one in tree["listeners"])
    known = {identity.number: identity for identity in base.identities} if base else {}
    tree["identities"] = tuple(known[one] if isinstance(one, int) else _decode_identity(one) for one in tree["identities"])
    tree["scale"] = Scale(**tree["scale"])
    tree["groups"] = tuple(tree["groups"])
    tree["warnings"] = tuple(tree["warnings"])
    tree["broken_sites"] = tuple(BrokenSite(**{**one, "hosts": tuple(one["hosts"])}) for one in tree["broken_sites"])
    return Plan(**tree)


def _decode_identity(tree: dict[str, object]) -> Identity:
    tree["groups"] = tuple(tree["groups"])  # type: ignore[arg-type]
    tree["keys"] = tuple(tree["keys"])  # type: ignore[arg-type]
    tree["tls_files"] = tuple((path, stamp) for path, stamp in tree["tls_files"])  # type: ignore[attr-defined]
    tree["logs"] = tuple(LogFile(**one) for one in tree["logs"])  # type: ignore[attr-defined]
    return Identity(**tree)  # type: ignore[arg-type]
