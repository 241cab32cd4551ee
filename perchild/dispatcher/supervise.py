"""Supervision: who has how many children, by events and by one look each second.

    identity     children
    unassigned   as many as the MPM's policy says
    fixed        as many as ChildPerUserID says, always
    on-demand    none until its inbox becomes readable; while it has none, the inbox is watched (and never read)
A removed identity is treated as on-demand until its inbox is empty and its children are gone.
Nothing here depends on what children write into their pages; LOAD counts feed the number of unassigned children only.
Runs as: dispatcher.  Before: start.py  After: children.py, mpm/
"""

from __future__ import annotations

import os
import signal
from functools import partial

from perchild.dispatcher import board, inbox, nursery, tls
from perchild.dispatcher.children import (
    MAX_ENDING,
    add_child,
    announce_inbox,
    drain_child,
    on_ending,
    on_exit,
    on_ready,
    post,
    replace_dead,
)
from perchild.dispatcher.compile import identity_key
from perchild.dispatcher.loop import HANGUP, READ
from perchild.dispatcher.runners import drop_programs, look_at_runners
from perchild.dispatcher.signals import STOP, Escalation, Step
from perchild.dispatcher.state import Child, Member, Phase, Reclaim, Server
from perchild.mpm.policy import Counts
from perchild.wire.control import MSG_TICKETS, Message
from perchild.wire.plan import FIXED, ON_DEMAND, UNASSIGNED

TICK_S = 1.0
START_LIMIT_S = 60.0  # from fork to READY
CLOSED_LIMIT_S = 5.0  # from the end of its control pair to the exit
LINGER_S = 2.0  # a removed identity's inbox is kept at least so long


def settle(server: Server, member: Member) -> None:
    """Bring one identity to what it should have after something changed."""
    _SETTLE["on-demand" if member.is_on_demand else member.identity.kind](server, member)


def _settle_fixed(server: Server, member: Member) -> None:
    for _ in range(member.identity.children - len(member.live())):
        if server.stopping or replace_dead(server, member) is None:
            break
    _watch_inbox(server, member)


def _settle_on_demand(server: Server, member: Member) -> None:
    _watch_inbox(server, member)


def _settle_unassigned(server: Server, member: Member) -> None:
    wanted = count_unassigned_at_start(server)
    if not server.stopping and len(member.live()) < min(wanted, 1 + wanted // 2):
        replace_dead(server, member)
    _watch_inbox(server, member)


_SETTLE = {FIXED: _settle_fixed, ON_DEMAND: _settle_on_demand, UNASSIGNED: _settle_unassigned}


def count_unassigned_at_start(server: Server) -> int:
    """Return how many unassigned children a start makes: one with -X, else what the MPM says."""
    return 1 if server.has_one_worker else server.mpm.count_at_start(server.plan.scale)


def start_all(server: Server) -> None:
    """Start the children of a new server: fixed ones, unassigned ones; on-demand inboxes are watched."""
    for member in server.members.values():
        if member.identity.kind == UNASSIGNED:
            for _ in range(count_unassigned_at_start(server)):
                add_child(server, member)
            _watch_inbox(server, member)
        else:
            settle(server, member)


# ---------------------------------------------------------------- inboxes


def _watch_inbox(server: Server, member: Member) -> None:
    """Watch an inbox for connections while nobody else does, and always for being shut down by a holder."""
    is_pausing = member.identity.number in server.retries
    may_start = member.is_on_demand or server.stopping
    waits = may_start and not _has_taker(server, member) and not is_pausing and server.stopping != STOP
    mask = READ | HANGUP if waits else HANGUP
    server.loop.watch(member.inbox.read_fd, mask, partial(_on_inbox, server, member))


def _has_taker(server: Server, member: Member) -> bool:
    """Return whether a child takes what lies in the inbox, or will soon.

    One that is about to end takes nothing any more, and may go on for hours with what it has; there are not many of these.
    """
    if server.stopping:
        return bool(member.children)
    return bool(member.live()) or len(member.children) >= MAX_ENDING


def _on_inbox(server: Server, member: Member, events: int) -> None:
    if events & ~READ:
        server.loop.forget(member.inbox.read_fd)
        if not server.stopping:
            repair_inbox(server, member)
        return
    if _has_taker(server, member) or replace_dead(server, member) is not None:
        server.loop.watch(member.inbox.read_fd, HANGUP, partial(_on_inbox, server, member))
        return
    _watch_inbox(server, member)


def repair_inbox(server: Server, member: Member) -> None:
    """Replace an inbox that a holder of it shut down: a new one for new children; the old children are drained."""
    server.events.say("error", "", f"the inbox of {member.identity.name} was shut down by a process that holds it: replaced",
                      identity=member.identity.number)
    old, member.inbox = member.inbox, inbox.make_inbox()
    inbox.close_inbox(old)
    server.service.forget_inbox(_key_of(member))
    server.service.keep_inbox(_key_of(member), member.inbox)
    announce_inbox(server, member)
    for child in list(member.children.values()):
        drain_child(server, child)
    settle(server, member)


def _key_of(member: Member) -> str:
    """Return the key of a member's identity, by which the service manager keeps its inbox."""
    return identity_key(member.identity.uid, member.identity.gid, member.identity.groups)


# ---------------------------------------------------------------- children's events


@on_ready
def note_ready(server: Server, member: Member, _child: Child) -> None:
    """The first unassigned child that is ready means that the server is up."""
    if member.identity.kind == UNASSIGNED and not server.was_ready:
        server.was_ready = True
        server.on_ready()


@on_ending
def note_ending(server: Server, member: Member, _child: Child) -> None:
    """Bring in the successor of a child that takes nothing any more, if its identity should have one."""
    if server.exit_code is None:
        settle(server, member)


@on_exit
def note_exit(server: Server, member: Member, child: Child) -> None:
    """Replace a child that is gone, if its identity should have it."""
    for reclaim in server.reclaims:
        reclaim.pids.discard(child.pid)
    if server.exit_code is None:
        settle(server, member)


# ---------------------------------------------------------------- once a second


def look_around(server: Server) -> None:
    """Do what is done each second."""
    revive_listeners(server)
    end_stuck_children(server)
    retry_blocked(server)
    nursery.reap_unknown(server)
    nursery.renew_nursery(server)
    look_at_runners(server)
    rotate_tickets(server)
    board.forget_boards(server)
    if not server.stopping:
        scale_unassigned(server)
        relieve_crowded(server)
    retire_removed(server)


def rotate_tickets(server: Server) -> None:
    """Renew ticket keys that are old, and send them to their identities' children."""
    for member in tls.renew_old_tickets(server):
        for child in member.children.values():
            post(server, child, Message(MSG_TICKETS, fds=(member.ticket_fd,)))


def revive_listeners(server: Server) -> None:
    """Listen again where a child that holds a listener shut it down (security.md R-ACC-2)."""
    for address in server.listeners.revive():
        server.events.say("error", "", f"the listener {address} was shut down or changed by a process that holds it: "
                          "listening again; AcceptScope unassigned keeps listeners away from tenants' children")


def end_stuck_children(server: Server) -> None:
    """Kill children that never became ready, or closed their control pair and live on."""
    now_s = server.sys.now_s()
    for child in server.children.values():
        is_late = child.phase is Phase.STARTING and now_s - child.started_s > START_LIMIT_S
        is_deaf = child.closed_s is not None and now_s - child.closed_s > CLOSED_LIMIT_S
        if is_late or is_deaf:
            why = "was not ready in time" if is_late else "no longer answers to the dispatcher"
            server.events.say("error", "", f"child {child.pid} {why}: killed", identity=child.number)
            server.sys.signal_pidfd(child.pidfd, signal.SIGKILL)


def retry_blocked(server: Server) -> None:
    """Go on with identities whose back-off is over."""
    now_s = server.sys.now_s()
    for number in [number for number, until_s in server.retries.items() if until_s <= now_s]:
        del server.retries[number]
        if number in server.members:
            settle(server, server.members[number])


def count_unassigned(server: Server) -> Counts:
    """Return the unassigned children's counts; a starting child's threads count as idle."""
    member = server.unassigned()
    live = member.live()
    idle = sum(child.idle if child.phase is Phase.READY else max(1, server.plan.scale.threads_per_child) for child in live)
    return Counts(len(live), len(member.children) - len(live), idle, sum(child.busy for child in live))


def scale_unassigned(server: Server) -> None:
    """Let the MPM's policy start and end unassigned children."""
    member = server.unassigned()
    if server.has_one_worker or member.identity.number in server.retries:
        return
    if server.transition is not None and member.identity.number in server.transition.pending:
        return
    decision = server.mpm.decide_children(server.plan.scale, count_unassigned(server), server.rate)
    server.rate = decision.rate
    for message in decision.messages:
        server.events.say(message.level, message.code, message.text)
    for _ in range(decision.start):
        if replace_dead(server, member) is None:
            break
    quietest = sorted(member.live(), key=lambda child: (child.busy, -child.started_s))
    for child in quietest[: decision.end]:
        drain_child(server, child)


def relieve_crowded(server: Server) -> None:
    """Give an on-demand identity one more child, up to its number, when its inbox was not empty at two looks in a row."""
    for member in server.members.values():
        if member.identity.kind != ON_DEMAND or member.identity.children == 1 or not member.children:
            continue
        was_crowded, member.is_crowded = member.is_crowded, inbox.is_waiting(member.inbox)
        if was_crowded and member.is_crowded and len(member.children) < member.identity.children:
            replace_dead(server, member)


def retire_removed(server: Server) -> None:
    """End identities that a reload removed, and at a graceful stop all of them, as soon as their inboxes are empty."""
    now_s = server.sys.now_s()
    for member in [one for one in server.members.values() if one.removed_s is not None]:
        if inbox.is_waiting(member.inbox) or now_s - (member.removed_s or 0.0) < LINGER_S:
            continue
        for child in member.live():
            drain_child(server, child)
        if not member.children and drop_programs(server, member):
            drop_member(server, member)


def drop_member(server: Server, member: Member) -> None:
    """Forget an identity that has no children any more."""
    server.loop.forget(member.inbox.read_fd)
    inbox.close_inbox(member.inbox)
    tls.forget_tickets(member)
    server.service.forget_inbox(_key_of(member))
    while member.free_pages:
        os.close(member.free_pages.pop())
    server.retries.pop(member.identity.number, None)
    del server.members[member.identity.number]


# ---------------------------------------------------------------- ending by force


def reclaim_children(server: Server, pids: set[int]) -> None:
    """End these children: TERM now, again at 3, 5 and 7 s, KILL at 9 s."""
    reclaim = Reclaim(Escalation(server.sys.now_s()), pids)
    server.reclaims.append(reclaim)
    advance_reclaims(server)


def advance_reclaims(server: Server) -> None:
    """Do the steps that are due, and forget the reclaims that are over."""
    now_s = server.sys.now_s()
    for reclaim in server.reclaims:
        for step in reclaim.escalation.due(now_s):
            for pid in sorted(reclaim.pids):
                _take_step(server, step, pid)
    server.reclaims = [one for one in server.reclaims if one.pids and not one.escalation.is_over]


def _take_step(server: Server, step: Step, pid: int) -> None:
    child = server.children.get(pid)
    if child is None:
        return
    child.is_asked_to_end = True
    child.phase = Phase.DRAINING
    if step.code:
        server.events.say(step.level, step.code, step.text.format(pid=pid))
    if step.signal:
        server.sys.signal_pidfd(child.pidfd, step.signal)
