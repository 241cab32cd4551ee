"""Fork a child: make its descriptors, fork, drop, hand over to child_main.

Between the fork and the end of the drop only native code runs (native/spawn.c), which closes every descriptor that the
spec does not list. Nothing here returns in the child.
Runs as: dispatcher; the last two functions in the child, as root, for a moment.
Before: supervise.py  After: native/spawn.c, native/drop.c
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import traceback
from typing import NoReturn

from perchild.dispatcher import logs, nursery, signals, tls
from perchild.dispatcher.errors import RecordError
from perchild.dispatcher.state import Child, Hooks, Member, Server
from perchild.wire.child import ChildSpec, ForkLostError
from perchild.wire.page import PAGE_BYTES
from perchild.wire.plan import FIXED, UNASSIGNED, Identity, Plan

EXIT_BUG = 101  # child_main failed with an exception; clear of the drop's statuses
PAGE_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_LISTENING_KINDS = {"any": frozenset({UNASSIGNED, FIXED}), "unassigned": frozenset({UNASSIGNED})}


def is_accepting(plan: Plan, identity: Identity) -> bool:
    """Return whether children of this identity hold the listeners."""
    return identity.kind in _LISTENING_KINDS[plan.accept_scope]


def tenant_gids(plan: Plan) -> frozenset[int]:
    """Return every group that a child may be in: a directory that one of them can write to is not root's."""
    if not _gids or _gids[0][0] is not plan:
        _gids[:] = [(plan, frozenset(gid for identity in plan.identities for gid in (identity.gid, *identity.groups)))]
    return _gids[0][1]


_gids: list[tuple[Plan, frozenset[int]]] = []  # of the plan in force: it is asked for with every log that is opened


def make_page() -> int:
    """Return a memfd of PAGE_BYTES that can no longer change its size."""
    fd = os.memfd_create("perchild-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, PAGE_SEALS)
    return fd


def take_page(member: Member) -> int:
    """Return a page for a new child: that of one of its identity that has ended, which it counts on, or a new one."""
    return member.free_pages.pop() if member.free_pages else make_page()


def open_record(records_fd: int, name: str) -> int:
    """Open a record for reading.

    Raises:
        RecordError: not there, or not a file of ours alone.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=records_fd)
    except OSError as error:
        raise RecordError("", f"record {name}: {error.strerror}; reload to write it again") from error
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
        os.close(fd)
        raise RecordError("", f"record {name}: must be a file that only uid {os.geteuid()} can read")
    return fd


def start_child(server: Server, member: Member) -> Child:
    """Fork one child of an identity and register nothing: the caller watches pidfd and control.

    If the nursery is lost over it, another one is forked without: a child that it may have left ends before it has begun.

    Nobody accepts any more while the server stops: a child that is forked then serves its inbox, and ends.

    Raises:
        OSError: out of descriptors, processes or memory.
        RecordError: its record is not usable.
    """
    try:
        return _start_child(server, member)
    except ForkLostError as error:
        server.events.say("error", "", f"{error}: forking {member.identity.name}'s child without it", identity=member.identity.number)
        nursery.kill_nursery(server)
        return _start_child(server, member)


def _start_child(server: Server, member: Member) -> Child:
    accepts = not server.stopping and is_accepting(server.plan, member.identity)
    spec = make_spec(server, member, accepts=accepts)
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as for_child:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        ours.callback(control.close)
        for_child.callback(theirs.close)
        spec.control_fd, spec.page_fd = theirs.fileno(), take_page(member)
        ours.callback(member.free_pages.append, spec.page_fd)
        spec.record_fd = _keep(for_child, open_record(server.records_fd, member.identity.record))
        log_fds = logs.open_logs([log.path for log in member.identity.logs], tenant_gids(server.plan),
                                 is_privileged=server.is_privileged)
        spec.log_fds = tuple(_keep(for_child, fd) for fd in log_fds)
        gids = tenant_gids(server.plan)
        spec.key_fds = tuple(_keep(for_child, tls.open_key(path, gids, is_privileged=server.is_privileged))
                             for path in member.identity.keys)
        spec.mutex_fd = _open_mutex(server, member, for_child)
        server.hooks.prepare_child(spec)
        pid = _fork_into(server, spec)
        ours.pop_all()
    control.setblocking(False)
    return Child(pid=pid, pidfd=server.sys.open_pidfd(pid), number=member.identity.number, generation=server.generation,
                 control=control, page_fd=spec.page_fd, signature=member.signature, is_accepting=accepts,
                 log_is_ours=tuple(fd >= 0 for fd in log_fds), started_s=server.sys.now_s())


def _keep(stack: contextlib.ExitStack, fd: int) -> int:
    """Have the descriptor closed at the stack's end, if it is one; return it."""
    if fd >= 0:
        stack.callback(os.close, fd)
    return fd


def make_spec(server: Server, member: Member, *, accepts: bool) -> ChildSpec:
    """Return what the child gets, but for the descriptors that are made for it alone.

    An accepting child may send to every inbox; any other only to that of the unassigned children.
    """
    identity, plan = member.identity, server.plan
    may_send_to_all = accepts or identity.kind == UNASSIGNED
    writes = {number: other.inbox.write_fd for number, other in server.members.items()
              if may_send_to_all or other.identity.kind == UNASSIGNED}
    return ChildSpec(
        number=identity.number, name=identity.name, uid=identity.uid, gid=identity.gid, groups=identity.groups,
        kind=identity.kind, generation=server.generation, parent_pid=os.getpid(), is_privileged=server.is_privileged,
        nofile=server.nofile, accept_scope=plan.accept_scope, control_fd=-1,
        accept_mutex=plan.accept_mutex if identity.kind == UNASSIGNED else "default",  # never shared between two uids
        inbox_fd=member.inbox.read_fd, record_fd=-1, types_fd=server.types_fd, page_fd=-1,
        route_fd=server.route_fd if may_send_to_all else -1,
        listener_fds=server.listeners.descriptors() if accepts else (), inbox_write_fds=writes,
        ticket_fd=tls.have_tickets(server, member), takes_any_key=member.takes_any_key,
        job_fd=member.programs.box.write_fd if member.programs else -1,
        mutex_id=server.mutex_id if identity.kind == UNASSIGNED else -1, has_one_worker=server.has_one_worker,
        thread_stack_bytes=plan.thread_stack_bytes)


def _open_mutex(server: Server, member: Member, stack: contextlib.ExitStack) -> int:
    """Return the descriptor of AcceptMutex for an unassigned child: a description of its own (flock), or the memfd."""
    if member.identity.kind != UNASSIGNED:
        return -1
    if server.mutex_path:
        return _keep(stack, os.open(server.mutex_path, os.O_RDWR | os.O_CLOEXEC))
    return server.mutex_fd


def _fork_into(server: Server, spec: ChildSpec) -> int:
    mask = signals.block_all()
    try:
        pid = server.hooks.fork_child(spec) if server.hooks.fork_child else server.sys.fork()
        if pid == 0:
            _be_child(spec, server.hooks)
    finally:
        signals.restore_mask(mask)
    return pid


def _be_child(spec: ChildSpec, hooks: Hooks) -> NoReturn:
    status = EXIT_BUG
    try:
        if not hooks.fork_child:
            hooks.drop_privileges(spec)
        hooks.child_main(spec)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - nothing may go back into the dispatcher's code
        traceback.print_exc()
    os._exit(status)
