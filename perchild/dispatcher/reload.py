"""A reload: what a new plan changes, and the steps that bring it about without losing a connection.

Nothing is touched until the whole plan is known to be usable (compiled, same MPM, new listeners bound). Then:
 1. new identities get an inbox, whose write end every accepting child receives;
 2. identities whose children would differ get new children, which know the new plan;
 3. when each has a child that is ready (or ten seconds are over), the old children are drained, and when they have
    read so, accepting children get the new route table;
 4. removed identities serve what is in their inbox, then end.
Children of identities that did not change only reopen their logs, and not even that when the reload was asked for over the
control socket. With `restart` every child is replaced, by force.
Runs as: dispatcher.  Before: start.py  After: children.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from perchild.dispatcher import inbox, logs, runners
from perchild.dispatcher.children import add_child, announce_inbox, drain_child, has_unread, on_exit, on_ready, post
from perchild.dispatcher.compile import Outcome, identity_key
from perchild.dispatcher.errors import BindError, DispatcherError
from perchild.dispatcher.runners import make_programs, settle_runner, update_programs
from perchild.dispatcher.signals import GRACEFUL, RESTART
from perchild.dispatcher.spawn import is_accepting, tenant_gids
from perchild.dispatcher.state import Child, Member, Phase, Server, Transition
from perchild.dispatcher.supervise import count_unassigned_at_start, reclaim_children, settle
from perchild.mpm.policy import hold_off
from perchild.wire.control import MAX_FDS, MSG_INBOX, MSG_REOPEN, MSG_ROUTE, Message
from perchild.wire.plan import FIXED, UNASSIGNED, Identity, Plan

INBOX_FDS = 2
CHILD_FDS = 3  # pidfd, control, page
SPARE_FDS = 64  # listeners, unassigned children, what a fork needs for a moment
RELOAD = "reload"  # beside signals.GRACEFUL and RESTART: asked for over the control socket, without reopening logs
REOPEN_AT_ONCE = 20  # children that are told to reopen their logs in one turn of the loop
READ_LIMIT_S = 1.0  # for the old children, then for the accepting ones, to read their messages
READY_LIMIT_S = 10.0  # for the new children of changed identities


def sign_identity(plan: Plan, identity: Identity) -> tuple[object, ...]:
    """Return everything that a running child of this identity cannot be told by a message.

    Two plans with the same signature need no new child: the record's digest covers hosts, logs and thread numbers, the name of the
    runner's file what programs are told.
    """
    accepting = is_accepting(plan, identity)
    return (identity.uid, identity.gid, identity.groups, identity.kind, identity.digest, identity.runner, identity.keys, accepting,
            plan.accept_scope, plan.types_digest, plan.thread_stack_bytes,
            (plan.accept_mutex, plan.lock_file) if identity.kind == UNASSIGNED else None,
            plan.listeners if accepting else None)


def _sign_plan(plan: Plan) -> tuple[object, ...]:
    """Return everything of a plan that sign_identity looks at beside the identity."""
    return plan.accept_scope, plan.types_digest, plan.thread_stack_bytes, plan.accept_mutex, plan.lock_file, plan.listeners


@dataclass(frozen=True, slots=True)
class Changes:
    """Numbers of identities, by what a new plan does to them."""

    added: tuple[int, ...]
    changed: tuple[int, ...]
    kept: tuple[int, ...]
    removed: tuple[int, ...]


def compare_plans(signatures: Mapping[int, tuple[object, ...]], plan: Plan, old: Plan | None = None) -> Changes:
    """Compare the signatures in force (identity number -> signature) with a new plan. Pure.

    old: the plan that the signatures were made of: an identity that is the very same object in both needs none.
    """
    same: frozenset[int] = frozenset()
    if old is not None and _sign_plan(old) == _sign_plan(plan):
        known = {id(identity) for identity in old.identities}
        same = frozenset(identity.number for identity in plan.identities if id(identity) in known)
    wanted = {identity.number: signatures[identity.number] if identity.number in same and identity.number in signatures
              else sign_identity(plan, identity) for identity in plan.identities}
    both = [number for number in wanted if number in signatures]
    return Changes(
        added=tuple(number for number in wanted if number not in signatures),
        changed=tuple(number for number in both if wanted[number] != signatures[number]),
        kept=tuple(number for number in both if wanted[number] == signatures[number]),
        removed=tuple(number for number in signatures if number not in wanted))


def check_plan(old: Plan, new: Plan) -> tuple[Plan, tuple[str, ...]]:
    """Check what cannot change while the server runs.

    Returns:
        The new plan, with ServerLimit and paths that stay as they were, and a warning for each of these.
    Raises:
        DispatcherError: AH00534, another MPM.
    """
    if new.mpm != old.mpm:
        raise DispatcherError("AH00534", "perchildd: Configuration error: The MPM cannot be changed during restart.")
    warnings = []
    if new.scale.server_limit != old.scale.server_limit:
        warnings.append(f"changing ServerLimit to {new.scale.server_limit} from original value of "
                        f"{old.scale.server_limit} not allowed during restart")
    fixed = ("run_dir", "pid_file", "accept_mutex", "lock_file")
    for name in fixed:
        if getattr(new, name) != getattr(old, name):
            warnings.append(f"changing {name} to {getattr(new, name)} from original value of {getattr(old, name)} "
                            "not allowed during restart")
    scale = replace(new.scale, server_limit=old.scale.server_limit)
    return replace(new, scale=scale, **{name: getattr(old, name) for name in fixed}), tuple(warnings)


def check_room(server: Server, plan: Plan) -> None:
    """Check that the plan's new identities and fixed children fit into the limit of descriptors.

    Raises:
        DispatcherError: they do not; with the numbers and the remedy.
    """
    fresh = [one for one in plan.identities if one.number not in server.members]
    fresh_boxes = [one for one in fresh if one.runner]
    wanted = INBOX_FDS * len(fresh) + (INBOX_FDS + 1) * len(fresh_boxes)
    wanted += sum(1 for one in plan.identities if one.keys and (one.number not in server.members or server.members[one.number].ticket_fd < 0))
    wanted += CHILD_FDS * sum(one.children for one in plan.identities if one.kind == FIXED)
    if not wanted:
        return
    used = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # since Linux 6.2 its size is their number
    if used + wanted + SPARE_FDS > server.nofile:
        raise DispatcherError("", f"{len(plan.identities)} identities need {used + wanted + SPARE_FDS} descriptors, the limit is "
                              f"{server.nofile}: raise LimitNOFILE= of the service (ulimit -Hn)")


def apply_outcome(server: Server, outcome: Outcome, kind: str, done: Callable[[bool, str], None]) -> None:
    """Take what compile made, or say why not.

    Args:
        outcome: its descriptors become ours.
        kind: signals.GRACEFUL, signals.RESTART, or RELOAD, which is graceful and leaves the logs as they are.
        done: called once with success and text, when the reload is complete or refused.
    """
    try:
        plan = _check_outcome(server, outcome)
        check_room(server, plan)
        ready = server.listeners.prepare(plan.listeners)
    except DispatcherError as error:
        outcome.close()
        if outcome.plan is not None:
            _take_notes(server, -1)  # versions that were kept belong to the plan that is refused
        _refuse(server, error)
        done(False, str(error))
        return
    server.listeners.adopt(ready)
    _take_tables(server, outcome)
    signatures = {number: member.signature for number, member in server.members.items()}
    changes = compare_plans(signatures, plan, server.plan)
    is_as_before = _sign_plan(plan) == _sign_plan(server.plan)
    server.plan = plan
    server.generation += 1
    server.rate = hold_off(server.rate)
    old_pids = _change_members(server, changes, kind, is_as_before=is_as_before)
    server.transition = Transition(_pending(server, old_pids), old_pids, server.sys.now_s() + READY_LIMIT_S,
                                   lambda is_done, _text: done(is_done, outcome.text.rstrip()))
    if kind == RESTART:
        reclaim_children(server, set(old_pids))
    advance_transition(server)
    if kind == GRACEFUL:
        reopen_children(server, changes.kept)
        runners.reopen_logs(server)


def _check_outcome(server: Server, outcome: Outcome) -> Plan:
    if outcome.plan is None:
        raise DispatcherError("", outcome.text.rstrip())
    plan, warnings = check_plan(server.plan, outcome.plan)
    for warning in (*warnings, *plan.warnings):
        server.events.say("warn", "", warning)
    tell_broken(server, outcome)
    server.events.say("debug", "", f"compiled {plan.sites_read} of {plan.sites} files of sites, {plan.records_made} of {len(plan.identities)} users")
    return plan


def tell_broken(server: Server, outcome: Outcome) -> None:
    """Log which sites were refused without the rest, why, and what is served instead."""
    for line in outcome.text.splitlines():
        server.events.say("error", "", line)


def _refuse(server: Server, error: DispatcherError) -> None:
    for line in str(error).splitlines():
        server.events.say("error", "", line)
    hint = "no listening socket was changed; " if isinstance(error, BindError) else ""
    server.events.say("error", "", f"{hint}the configuration was not taken; the server goes on with the one in force")


def _take_tables(server: Server, outcome: Outcome) -> None:
    os.close(server.route_fd)
    os.close(server.types_fd)
    server.route_fd, server.types_fd = outcome.route_fd, outcome.types_fd
    if outcome.notes_fd >= 0:
        _take_notes(server, outcome.notes_fd)


def _take_notes(server: Server, fd: int) -> None:
    if server.notes_fd >= 0:
        os.close(server.notes_fd)
    server.notes_fd = fd


# ---------------------------------------------------------------- members


def make_member(server: Server, identity: Identity) -> Member:
    """Take an identity into the server: an inbox (that of the run before, if it was kept), no children yet."""
    key = identity_key(identity.uid, identity.gid, identity.groups)
    box = server.service.take_inbox(key) or inbox.make_inbox()
    server.service.keep_inbox(key, box)
    member = Member(identity, box, sign_identity(server.plan, identity))
    server.members[identity.number] = member
    server.numbers[key] = identity.number
    make_programs(member)
    settle_runner(server, member)
    return member


def _change_members(server: Server, changes: Changes, kind: str, *, is_as_before: bool) -> set[int]:
    """Make the members what the plan says and start new children. Whose part of the plan is the same object is not touched at all.

    Returns:
        Pids of the children to be replaced.
    """
    by_number = {identity.number: identity for identity in server.plan.identities}
    for number in changes.added:
        announce_inbox(server, make_member(server, by_number[number]))
    for number in changes.removed:
        if server.members[number].removed_s is None:
            server.members[number].removed_s = server.sys.now_s()
    kept = changes.kept
    if kind != RESTART and is_as_before:
        kept = tuple(number for number in kept if server.members[number].identity is not by_number[number]
                     or server.members[number].removed_s is not None)
    renewed = (*changes.changed, *(changes.kept if kind == RESTART else ()))
    for number in (*changes.changed, *kept):
        member = server.members[number]
        was_removed = member.removed_s is not None
        member.identity, member.removed_s = by_number[number], None
        member.signature = sign_identity(server.plan, by_number[number])
        update_programs(server, member, is_forced=kind == RESTART)
        if was_removed:  # and not gone yet: accepting children were told to forget its inbox
            announce_inbox(server, member)
    old_pids = {pid for number in renewed for pid in server.members[number].children}
    for number in renewed:
        _renew(server, server.members[number])
    for number in (*changes.added, *kept, *changes.removed):
        settle(server, server.members[number])
    for number in kept:
        _trim(server, server.members[number])
    return old_pids


def _renew(server: Server, member: Member) -> None:
    """Start the successors of an identity's children; the old ones go on meanwhile."""
    live_count = len(member.live())
    wanted = {UNASSIGNED: max(count_unassigned_at_start(server), live_count if server.mpm.name != "perchild" else 0),
              FIXED: member.identity.children}
    for _ in range(wanted.get(member.identity.kind, min(1, live_count))):
        add_child(server, member)
    if not member.children:
        settle(server, member)


def _trim(server: Server, member: Member) -> None:
    if member.identity.kind == FIXED:
        for child in member.live()[member.identity.children :]:
            drain_child(server, child)


# ---------------------------------------------------------------- the transition


def _pending(server: Server, old_pids: set[int]) -> set[int]:
    return {child.number for child in server.children.values()
            if child.pid not in old_pids and child.generation == server.generation and child.phase is Phase.STARTING}


def advance_transition(server: Server) -> None:
    """Go on with the reload in progress: drain the old children when the new ones are ready or late; then send the routes.

    An old child that still read its inbox would be handed connections to names that only its successor knows.
    """
    transition = server.transition
    if transition is None or transition.is_sent:
        return
    if not transition.is_draining:
        if transition.pending and server.sys.now_s() < transition.deadline_s:
            return
        _drain_old(server, transition)
    old = [server.children[pid] for pid in transition.old_pids if pid in server.children]
    if server.sys.now_s() < transition.deadline_s and any(has_unread(server, child) for child in old):
        return
    transition.is_sent = True
    transition.deadline_s = server.sys.now_s() + READ_LIMIT_S
    _send_routes(server)
    sweep_records(server)
    finish_transition(server)


def _drain_old(server: Server, transition: Transition) -> None:
    transition.is_draining = True
    transition.deadline_s = server.sys.now_s() + READ_LIMIT_S
    for pid in transition.old_pids:
        if pid in server.children:
            drain_child(server, server.children[pid])
    late = [server.members[number].identity.name for number in transition.pending if number in server.members]
    if late:
        server.events.say("error", "", f"no new child is ready for {', '.join(sorted(late))}; the old ones were drained")


def finish_transition(server: Server) -> None:
    """End the reload when the accepting children have read their messages, or were given the time to."""
    transition = server.transition
    if transition is None or not transition.is_sent:
        return
    is_late = server.sys.now_s() >= transition.deadline_s
    if is_late or not any(child.is_accepting and has_unread(server, child) for child in server.children.values()):
        server.transition = None
        transition.done(True, "")


def _send_routes(server: Server) -> None:
    removed = [number for number, member in server.members.items() if member.removed_s is not None]
    for child in server.children.values():
        if child.is_accepting and child.generation != server.generation:
            child.generation = server.generation
            post(server, child, Message(MSG_ROUTE))
            for number in removed:
                post(server, child, Message(MSG_INBOX, number=number))


@on_ready
def note_ready(server: Server, _member: Member, child: Child) -> None:
    """A reload may go on when a new child is ready."""
    if server.transition is not None and child.generation == server.generation:
        server.transition.pending.discard(child.number)
        advance_transition(server)


@on_exit
def note_exit(server: Server, member: Member, _child: Child) -> None:
    """A reload does not wait for an identity none of whose new children is left."""
    if server.transition is not None and not any(
            child.pid not in server.transition.old_pids for child in member.children.values()):
        server.transition.pending.discard(member.identity.number)
        advance_transition(server)


def sweep_records(server: Server) -> None:
    """Remove records and runners' files that no identity uses any more."""
    wanted = {name for member in server.members.values() for name in (member.identity.record, member.identity.runner)}
    wanted |= {member.programs.file for member in server.members.values() if member.programs}
    for name in os.listdir(server.records_fd):
        if name not in wanted:
            os.unlink(name, dir_fd=server.records_fd)


# ---------------------------------------------------------------- logs


def reopen_children(server: Server, numbers: tuple[int, ...]) -> None:
    """Have the children of these identities reopen their log files, a few with each turn of the loop.

    Files that the dispatcher opened are opened anew by it. Where that is no longer safe, the child is replaced.
    """
    server.reopening.extend(child.pid for number in numbers for child in server.members[number].live())


def advance_reopening(server: Server) -> None:
    """Go on with the children whose logs are still to be reopened; connections that wait for a child come first."""
    for pid in server.reopening[:REOPEN_AT_ONCE]:
        child = server.children.get(pid)
        member = server.members.get(child.number) if child else None
        if child is not None and member is not None and child in member.live():
            _reopen_child(server, member, child)
    del server.reopening[:REOPEN_AT_ONCE]


def _reopen_child(server: Server, member: Member, child: Child) -> None:
    if child.signature != member.signature:  # it has the logs of another configuration, and is about to be drained
        return
    ours = [log.path for log, is_ours in zip(member.identity.logs, child.log_is_ours, strict=True) if is_ours]
    fds = logs.open_logs(ours, tenant_gids(server.plan), is_privileged=server.is_privileged)
    if any(fd < 0 for fd in fds):
        server.events.say("error", "", f"a log of {member.identity.name} can no longer be opened by root: child replaced",
                          identity=child.number)
        add_child(server, member)
        drain_child(server, child)
    else:
        parts = [fds[at : at + MAX_FDS] for at in range(0, len(fds), MAX_FDS)] or [()]
        for part in parts:
            post(server, child, Message(MSG_REOPEN, small=int(part is parts[-1]), number=0, fds=tuple(part)))
    for fd in fds:
        if fd >= 0:
            os.close(fd)
