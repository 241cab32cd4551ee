"""One child from its fork to its end: messages from it, messages to it, its exit.

The child is not trusted: it may send four kinds of message, each in its phase; anything else ends it.
Runs as: dispatcher.  Distrusts: what children send.  Before: supervise.py  After: spawn.py, wire/control.py
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from perchild import limits
from perchild.dispatcher.board import board_for
from perchild.dispatcher.errors import DispatcherError
from perchild.dispatcher.loop import HANGUP, READ, WRITE
from perchild.dispatcher.renew import must_wait, note_stale
from perchild.dispatcher.spawn import start_child
from perchild.dispatcher.state import DEATH_POINTS, SPAWN_POINTS, YOUNG_S, Child, Member, Phase, Server
from perchild.wire.control import (
    FORMAT,
    MSG_ASK_BOARD,
    MSG_BOARD,
    MSG_DRAIN,
    MSG_IDLE,
    MSG_INBOX,
    MSG_LOAD,
    MSG_READY,
    MSG_ROUTE,
    Message,
    WireError,
    decode_from_child,
    send_message,
)
from perchild.wire.plan import UNASSIGNED

EXIT_DROP = 64  # PC_EXIT_DROP: exit status of a child whose drop failed, plus the step
DROP_STEPS = (
    "descriptors", "session", "limits", "keyring", "bounding set", "ambient set", "securebits", "groups", "gid", "uid",
    "capabilities", "check of ids", "check of going back", "check of capabilities", "dumpable", "parent",
    "no_new_privs", "seccomp",
)
EXIT_STALE_KEY = 4  # native/spawn.c: a key was changed since the child's record was made
LOOK_AGAIN_S = 0.2  # whether a certificate that has changed was read again
FORK_PAUSE_S = 10.0  # httpd's pause after a failed fork
MAX_ENDING = 8  # children of one identity that still finish what they have; then new ones wait for an exit
MAX_READ = 64  # messages taken from one child in a row
Notify = Callable[[Server, Member, Child], None]


def add_child(server: Server, member: Member) -> Child | None:
    """Start a child of `member` and watch it; None if that failed, which is logged and tried again later."""
    try:
        child = start_child(server, member)
    except (OSError, DispatcherError) as error:
        server.events.say("error", "AH00159", f"fork: unable to start a child for {member.identity.name}: {error}")
        server.retries[member.identity.number] = server.sys.now_s() + FORK_PAUSE_S
        return None
    server.children[child.pid] = child
    member.children[child.pid] = child
    server.loop.watch(child.pidfd, READ, partial(_on_exit, server, child))
    server.loop.watch(child.control.fileno(), READ | HANGUP, partial(_on_control, server, child))
    server.events.say("debug", "", f"child {child.pid} of {member.identity.name} started", identity=member.identity.number)
    return child


def replace_dead(server: Server, member: Member) -> Child | None:
    """Start the successor of a child that died or is ending; within the back-off only a retry is noted.

    While MAX_ENDING others of its identity still finish what they have, none is started: each exit asks again.
    """
    if len(member.children) - len(member.live()) >= MAX_ENDING:
        return None
    now_s = server.sys.now_s()
    blocked_s = member.damping.blocked_until_s(now_s)
    if must_wait(server, member):
        blocked_s = max(blocked_s or 0.0, now_s + LOOK_AGAIN_S)
    pause_s = server.retries.get(member.identity.number, 0.0)
    if blocked_s is not None or pause_s > now_s:
        server.retries[member.identity.number] = max(blocked_s or 0.0, pause_s)
        return None
    server.retries.pop(member.identity.number, None)
    if member.damping.points > 0:
        member.damping.add(SPAWN_POINTS, now_s)
    return add_child(server, member)


# ---------------------------------------------------------------- from the child


def _on_control(server: Server, child: Child, events: int) -> None:
    if events & WRITE:
        _flush(server, child)
    if not events & ~WRITE:
        return
    try:
        _read_messages(server, child)
    except WireError as error:
        server.events.say("error", "", f"child {child.pid} broke the protocol ({error}): killed", identity=child.number)
        forget_control(server, child)
        server.sys.signal_pidfd(child.pidfd, signal.SIGKILL)


def _read_messages(server: Server, child: Child) -> None:
    for _ in range(MAX_READ):
        try:
            raw = child.control.recv(FORMAT.size + 1)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            raw = b""
        if not raw:  # it closed its end: the exit follows, or the look each second ends it
            forget_control(server, child)
            child.closed_s = server.sys.now_s()
            return
        message = decode_from_child(raw)
        _ANSWERS[message.kind](server, child, message)


def answer_ready(server: Server, child: Child, _message: Message) -> None:
    """The child serves. Once, after its start."""
    if child.phase is Phase.DRAINING:
        return
    if child.phase is not Phase.STARTING:
        reason = "ready twice"
        raise WireError(reason)
    child.phase = Phase.READY
    server.members[child.number].takes_any_key = False
    child.idle = max(1, server.plan.scale.threads_per_child)  # until it says otherwise
    member = server.members[child.number]
    for notify in _ON_READY:
        notify(server, member, child)


def answer_load(_server: Server, child: Child, message: Message) -> None:
    """Take idle and busy threads, clamped; they feed the number of unassigned children only."""
    if child.phase is Phase.STARTING:
        reason = "load before ready"
        raise WireError(reason)
    child.idle = min(message.small, limits.value("MAX_THREADS"))
    child.busy = min(message.number, limits.value("MAX_THREADS"))


def answer_idle(server: Server, child: Child, _message: Message) -> None:
    """A child takes nothing any more and ends when it has finished what it has: its successor may come now."""
    if child.phase is Phase.STARTING:
        reason = "idle before ready"
        raise WireError(reason)
    child.is_asked_to_end = True
    if child.phase is Phase.READY:
        child.phase = Phase.ENDING
        for notify in _ON_ENDING:
            notify(server, server.members[child.number], child)


def answer_board(server: Server, child: Child, _message: Message) -> None:
    """Give a child a board of what it may see. Who asks again before it has read the last one is not answered twice."""
    if child.phase is Phase.STARTING:
        reason = "board before ready"
        raise WireError(reason)
    if not any(one.kind == MSG_BOARD for one in child.outgoing):
        post(server, child, Message(MSG_BOARD))


_ANSWERS: dict[int, Callable[[Server, Child, Message], None]] = {
    MSG_READY: answer_ready, MSG_LOAD: answer_load, MSG_IDLE: answer_idle, MSG_ASK_BOARD: answer_board,
}
_ON_READY: list[Notify] = []
_ON_ENDING: list[Notify] = []
_ON_EXIT: list[Notify] = []


def on_ready(notify: Notify) -> Notify:
    """Have `notify` called when a child becomes ready."""
    _ON_READY.append(notify)
    return notify


def on_ending(notify: Notify) -> Notify:
    """Have `notify` called when a child says that it takes nothing any more."""
    _ON_ENDING.append(notify)
    return notify


def on_exit(notify: Notify) -> Notify:
    """Have `notify` called when a child is gone, in the order of registration."""
    _ON_EXIT.append(notify)
    return notify


# ---------------------------------------------------------------- to the child


def post(server: Server, child: Child, message: Message) -> None:
    """Send a message, or queue it until the child's queue has room.

    Descriptors in it are duplicated here. Inboxes and the route table are not given but looked up when the message goes
    out, so that thousands of queued ones hold no descriptor; a route table that still waits is overtaken by the new one.
    """
    if not server.loop.has(child.control.fileno()):
        return
    if message.kind == MSG_ROUTE:
        child.outgoing = deque(one for one in child.outgoing if one.kind != MSG_ROUTE)
    child.outgoing.append(replace(message, fds=tuple(os.dup(fd) for fd in message.fds)))
    _flush(server, child)


def _flush(server: Server, child: Child) -> None:
    while child.outgoing and send_message(child.control, _complete(server, child, child.outgoing[0])):
        for fd in child.outgoing.popleft().fds:
            os.close(fd)
    mask = READ | HANGUP | (WRITE if child.outgoing else 0)
    server.loop.watch(child.control.fileno(), mask, partial(_on_control, server, child))


def has_unread(server: Server, child: Child) -> bool:
    """Return whether the child has yet to read something that was sent to it (SIOCOUTQ counts what the peer has not read)."""
    if not server.loop.has(child.control.fileno()):
        return False
    raw = fcntl.ioctl(child.control, termios.TIOCOUTQ, bytes(4))
    return bool(child.outgoing) or raw != bytes(4)


def drain_child(server: Server, child: Child) -> None:
    """Tell a child to let go of listeners and inbox, finish what it has, and end."""
    if child.phase is Phase.DRAINING:
        return
    child.phase = Phase.DRAINING
    child.is_asked_to_end = True
    post(server, child, Message(MSG_DRAIN))


def _complete(server: Server, child: Child, message: Message) -> Message:
    """Return the message with what it stands for now: the inbox in force (none: forget it), the route table in force, a board."""
    if message.kind == MSG_BOARD:
        try:
            return replace(message, fds=(board_for(server, child),))
        except OSError:  # no memory or descriptor: the status page can wait
            return message
    if message.kind == MSG_INBOX:
        member = server.members.get(message.number)
        return replace(message, fds=() if member is None or member.removed_s is not None else (member.inbox.write_fd,))
    if message.kind == MSG_ROUTE:
        return Message(MSG_ROUTE, number=server.generation, fds=(server.route_fd,))
    return message


def announce_inbox(server: Server, member: Member) -> None:
    """Send the write end of an inbox to every child that may use it."""
    message = Message(MSG_INBOX, number=member.identity.number)
    for child in server.children.values():
        if child.is_accepting or member.identity.kind == UNASSIGNED:
            post(server, child, message)


def terminate_child(server: Server, child: Child, number: int = signal.SIGTERM) -> None:
    """End a child by a signal."""
    child.phase = Phase.DRAINING
    child.is_asked_to_end = True
    server.sys.signal_pidfd(child.pidfd, number)


# ---------------------------------------------------------------- its end


def forget_control(server: Server, child: Child) -> None:
    """Stop listening to a child; what waited to be sent is dropped."""
    server.loop.forget(child.control.fileno())
    while child.outgoing:
        for fd in child.outgoing.popleft().fds:
            os.close(fd)


def _on_exit(server: Server, child: Child, _events: int) -> None:
    if server.loop.has(child.control.fileno()):
        with contextlib.suppress(WireError):  # it is dead already
            _read_messages(server, child)  # its last words: ready, idle
    status = server.sys.reap(child.pidfd)
    if status is None:
        return
    close_child(server, child)
    member = server.members[child.number]
    if status == EXIT_STALE_KEY and child.phase is Phase.STARTING:
        member.takes_any_key = True
        note_stale(member)
        server.events.say("notice", "", f"a key of {member.identity.name} is no longer its certificate's: a child that was to be started "
                          "waits for the new certificate", identity=child.number)
    elif not child.is_asked_to_end and (status != 0 or child.phase is Phase.STARTING):
        now_s = server.sys.now_s()
        if child.phase is Phase.STARTING or now_s - child.started_s < YOUNG_S:
            member.damping.add(DEATH_POINTS, now_s)
        _report_death(server, member, child, status)
    for notify in _ON_EXIT:
        notify(server, member, child)


def close_child(server: Server, child: Child) -> None:
    """Forget a child that was reaped and close what we hold of it."""
    server.loop.forget(child.pidfd)
    forget_control(server, child)
    child.control.close()
    os.close(child.pidfd)
    del server.children[child.pid]
    member = server.members[child.number]
    member.free_pages.append(child.page_fd)
    member.children.pop(child.pid, None)


def _report_death(server: Server, member: Member, child: Child, status: int) -> None:
    name = member.identity.name
    if status < 0:
        server.events.say("notice", "AH00052", f"child pid {child.pid} ({name}) exit signal {name_signal(-status)} "
                          f"({-status})", identity=child.number)
    elif EXIT_DROP <= status < EXIT_DROP + len(DROP_STEPS):
        server.events.say("crit", "", f"child pid {child.pid} could not become {name} (uid {member.identity.uid}): "
                          f"{DROP_STEPS[status - EXIT_DROP]} failed; nothing is served as {name}", identity=child.number)
    else:
        server.events.say("error", "", f"child pid {child.pid} ({name}) ended with status {status}"
                          f"{' before it was ready' if child.phase is Phase.STARTING else ''}", identity=child.number)
    if member.identity.kind == UNASSIGNED and not server.was_ready and EXIT_DROP <= status < EXIT_DROP + len(DROP_STEPS):
        server.events.say("alert", "AH00050", f"Child {child.pid} returned a Fatal error... perchildd is exiting!")
        server.has_failed = True


def name_signal(number: int) -> str:
    """Return what people call a signal."""
    return signal.strsignal(number) or f"signal {number}"
