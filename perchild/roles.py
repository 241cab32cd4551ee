"""Who exists: one row for each kind of process, with everything the kernel can be asked about it.

The boundary tests compare this table with /proc of live processes; docs/security.md is written from it.
A child's row holds from READY on: record, types, page, route table, TLS keys and ticket keys come to it as descriptors too, are
mapped or read, and closed. The dispatcher has a TLS key open for the moment of a fork.
Runs as: any role (pure).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from perchild.wire.plan import FIXED, ON_DEMAND, UNASSIGNED, Identity, Plan

DISPATCHER = "dispatcher"
COMPILE = "compile"
NURSERY = "nursery"
RUNNER = "runner"

# Whose ids a process has.
ROOT = "root (or the caller, when not started by root)"
USER_GROUP = "User and Group"
IDENTITY = "the identity's"

# Kinds of descriptors, as tests/boundary/procs.py names what /proc/PID/fd shows.
NULL = "null"  # /dev/null
ERROR_LOG = "error log"
CONTROL = "control"  # SOCK_SEQPACKET to the dispatcher
INBOX = "inbox"  # read end of the own identity's
INBOX_WRITE = "inbox write end"
JOB = "job box"  # read end of the own identity's
JOB_WRITE = "job box write end"  # of the identity's, to its runner
RECORD = "record"
TYPES = "types"
PAGE = "page"
ROUTE = "route table"
TICKETS = "ticket keys"
LISTENER = "listener"
MUTEX = "accept mutex"
LOG = "log"
PIDFD = "pidfd"
EPOLL = "epoll"
EVENTFD = "eventfd"
SIGNALFD = "signalfd"
CONNECTION = "connection"
SIGNALS = "signal queue"
CONTROL_SOCKET = "control.sock"
RECORDS = "records directory"
PLAN = "plan memfd"
NOTES = "compile's notes"  # of unchanged sites, for the next compile; the dispatcher holds and never reads them
DOCUMENT = "document root or file"
SERVICE = "service's socket"  # listening, a path of the tenant's
PIPE = "service's output"
WAKER = "wait for a service"
NOTIFY = "service manager's socket"
ENVIRON = "starter's environment"
STDERR = "standard error of the start"
BOARD = "board"
USAGE = "own memory's figures"


@dataclass(frozen=True, slots=True)
class Fds:
    """How many descriptors of one kind a process may hold. most None: as many as the reason says."""

    kind: str
    least: int
    most: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of process.

    capabilities: names, of each set that is not empty (permitted, effective); the bounding set equals it, inheritable and
    ambient are empty. seccomp: 0 none, 2 filter. limits: resource -> value both soft and hard, None = the spec says it.
    """

    name: str
    ids: str
    capabilities: frozenset[str] | None  # None: all
    no_new_privs: bool
    seccomp: int
    is_dumpable: bool
    limits: Mapping[str, int | None]
    fds: tuple[Fds, ...]
    lives: str  # when there is such a process

    def may_hold(self, kind: str) -> bool:
        """Return whether this role has a row for that kind of descriptor."""
        return any(row.kind == kind for row in self.fds)


_NO_LIMITS: Mapping[str, int | None] = MappingProxyType({})
_CHILD_LIMITS: Mapping[str, int | None] = MappingProxyType({"RLIMIT_CORE": 0, "RLIMIT_NOFILE": None})

_STANDARD = (
    Fds(NULL, 2, 3, "0 and 1; 2 where there is no log"),
    Fds(ERROR_LOG, 0, 1, "2"),
)
_EVERY_CHILD = (
    *_STANDARD,
    Fds(CONTROL, 1, 1, "messages from and to the dispatcher"),
    Fds(INBOX, 1, 1, "connections handed to its identity"),
    Fds(LOG, 0, None, "log files of its identity"),
    Fds(EPOLL, 1, 1, "what it waits for"),
    Fds(EVENTFD, 2, 2, "wake its leader and its main thread"),
    Fds(SIGNALFD, 1, 1, "TERM, as an event"),
    Fds(JOB_WRITE, 0, 1, "what its identity's runner shall execute; none where nothing is executed"),
    Fds(CONNECTION, 0, None, "clients, those of its identity or not yet routed"),
    Fds(DOCUMENT, 0, None, "document roots and files of its identity"),
    Fds(BOARD, 0, 2, "for a status page, while it is read: what it may see of others"),
    Fds(USAGE, 0, 1, "for half a millisecond, every ten seconds at most: what its page says of memory"),
)
_ACCEPTING = (
    Fds(LISTENER, 1, None, "every Listen"),
    Fds(INBOX_WRITE, 1, None, "one for each identity"),
)
_RETURNING = (Fds(INBOX_WRITE, 1, 1, "that of the unassigned children"),)


def _child(name: str, ids: str, lives: str, *fds: Fds) -> Role:
    return Role(name, ids, frozenset(), no_new_privs=True, seccomp=2, is_dumpable=False, limits=_CHILD_LIMITS,
                fds=(*_EVERY_CHILD, *fds), lives=lives)


ROLES: tuple[Role, ...] = (
    Role(DISPATCHER, ROOT, None, no_new_privs=False, seccomp=0, is_dumpable=True, limits=_NO_LIMITS, lives="always; one",
         fds=(
             *_STANDARD,
             Fds(LISTENER, 1, None, "every Listen"),
             Fds(INBOX, 1, None, "read ends of all, so that they outlive children"),
             Fds(INBOX_WRITE, 1, None, "write ends of all, for new children"),
             Fds(JOB, 0, None, "read ends of all, so that jobs outlive runners"),
             Fds(JOB_WRITE, 0, None, "write ends of all, for new children"),
             Fds(CONTROL, 0, None, "one for each child, and the nursery's"),
             Fds(PIDFD, 0, None, "one for each child, each runner, compile and the nursery"),
             Fds(PAGE, 0, None, "one for each child, and those of children that have ended; never read"),
             Fds(BOARD, 0, None, "copies of pages, for status pages, for a second; never read"),
             Fds(ROUTE, 1, 1, "for new children"),
             Fds(TYPES, 1, 1, "for new children"),
             Fds(TICKETS, 0, None, "one for each identity with TLS: they outlive its children; never read"),
             Fds(PLAN, 0, 2, "plan and text of a compile in progress"),
             Fds(NOTES, 0, 2, "for the next compile; what one in progress writes"),
             Fds(RECORDS, 1, 1, "records are opened at the fork"),
             Fds(MUTEX, 0, 1, "AcceptMutex pthread"),
             Fds(EPOLL, 1, 1, "what it waits for"),
             Fds(SIGNALS, 2, 2, "set_wakeup_fd and its reader"),
             Fds(CONTROL_SOCKET, 1, None, "its listener and its clients"),
             Fds(ENVIRON, 0, 1, "for compile, which alone reads it; none where the server needs every variable"),
             Fds(NOTIFY, 0, 1, "READY and the like, if a service manager asks for them"),
         )),
    Role(NURSERY, ROOT, None, no_new_privs=False, seccomp=0, is_dumpable=True, limits=_NO_LIMITS,
         lives="always; one: children that do not listen are forked from it, as children of the dispatcher",
         fds=(
             Fds(NULL, 2, 3, "0 and 1; 2 where the server was started with it"),
             Fds(STDERR, 0, 1, "2, as the server was started with it"),
             Fds(CONTROL, 1, 1, "requests of the dispatcher"),
         )),
    Role(COMPILE, ROOT, frozenset({"CAP_DAC_READ_SEARCH"}), no_new_privs=True, seccomp=0, is_dumpable=True, limits=_NO_LIMITS,
         lives="at a start, a reload, and -k; at most 60 s",
         fds=(*_STANDARD, Fds(PLAN, 2, 2, "plan and text"), Fds(ROUTE, 1, 1, "writes it"), Fds(TYPES, 1, 1, "writes it"),
              Fds(NOTES, 1, 2, "reads those of the compile before, writes its own"))),
    Role(RUNNER, IDENTITY, frozenset(), no_new_privs=True, seccomp=2, is_dumpable=False, limits=_CHILD_LIMITS,
         lives="from the first program of its identity until it is idle; without no_new_privs where NoNewPrivileges is Off",
         fds=(
             *_STANDARD,
             Fds(JOB, 1, 1, "what its children ask it to execute"),
             Fds(EPOLL, 1, 1, "what it waits for"),
             Fds(SIGNALFD, 1, 1, "TERM, USR1 and CHLD, as events"),
             Fds(SERVICE, 0, None, "one for each service that inherits its socket"),
             Fds(WAKER, 0, None, "children that wait for a service"),
             Fds(LOG, 0, None, "error logs of its hosts, if they are the tenant's own files"),
             Fds(PIPE, 0, None, "one for each service that runs: what it prints goes to the error log"),
         )),
    _child(UNASSIGNED, USER_GROUP, "as many as the MPM says", *_ACCEPTING, Fds(MUTEX, 0, 1, "AcceptMutex flock, fcntl, pthread")),
    _child(f"{FIXED}, accepting", IDENTITY, "AcceptScope any: as many as ChildPerUserID says", *_ACCEPTING),
    _child(FIXED, IDENTITY, "AcceptScope unassigned: as many as ChildPerUserID says", *_RETURNING),
    _child(ON_DEMAND, IDENTITY, "from the first connection until it is idle", *_RETURNING),
)
_BY_NAME = {role.name: role for role in ROLES}


def role_of(plan: Plan, identity: Identity) -> Role:
    """Return the role of the children of one identity under this plan."""
    is_accepting = identity.kind == FIXED and plan.accept_scope == "any"
    return _BY_NAME[f"{FIXED}, accepting" if is_accepting else identity.kind]


def find_role(name: str) -> Role:
    """Return the role called `name`; KeyError if there is none."""
    return _BY_NAME[name]


def compare_fds(role: Role, kinds: Iterable[str]) -> tuple[str, ...]:
    """Compare the kinds of a live process's descriptors with its role.

    Args:
        kinds: one entry for each descriptor.
    Returns:
        What is wrong, one line each; empty if it holds what it may.
    """
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    wrong = [f"{role.name}: {count} of kind {kind!r}, which it may not hold" for kind, count in counts.items()
             if not role.may_hold(kind)]
    for row in role.fds:
        count = counts.get(row.kind, 0)
        if count < row.least or (row.most is not None and count > row.most):
            wrong.append(f"{role.name}: {count} of kind {row.kind!r}, expected {row.least}..{row.most or 'any'}")
    return tuple(wrong)
