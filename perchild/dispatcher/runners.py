"""Runners: one process for each identity whose programs are executed, forked when there is something to execute.

    job box     both ends are kept, as an inbox's are; children of the identity get the write end, a runner the read end
    no runner   the box is watched (and never read): readable -> a runner is forked, unless it is held back
    a runner    ends by itself when it is idle; what then lies in the box is its successor's
A runner whose file a reload changed is told to finish (USR1, and TERM after FINISH_S), and a successor comes on demand; a stop, a restart
and the end of the identity end it (TERM, then KILL, and with it every program below it).
Runs as: dispatcher.  Distrusts: nothing a runner says, for it says nothing.  Before: supervise.py  After: native/runner.c
"""

from __future__ import annotations

import array
import os
import signal
import socket
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice

from perchild import limits
from perchild.dispatcher import inbox, nursery, signals
from perchild.dispatcher.children import DROP_STEPS, EXIT_DROP, FORK_PAUSE_S, drain_child, name_signal
from perchild.dispatcher.errors import DispatcherError
from perchild.dispatcher.loop import HANGUP, READ
from perchild.dispatcher.spawn import EXIT_BUG, open_record
from perchild.dispatcher.state import DEATH_POINTS, YOUNG_S, Member, Programs, Runner, Server
from perchild.wire import job
from perchild.wire.child import ForkLostError, RunnerSpec
from perchild.wire.plan import tenant_directory

FINISH_S = limits.value("RUNNER_FINISH_MS") / 1000
KILL_AFTER_S = 4.0  # between TERM and KILL; a runner gives its programs 2 s
GIVE_UP_S = 2.0  # from KILL until a stop goes on without it
MAX_NOFILE = 65536  # a runner's and, as the hard limit, its programs'
STDERR_FD = 2  # the error log
MAX_STALE = 4096  # names removed from a tenant's directory


def make_programs(member: Member) -> None:
    """Give an identity that has a runner's file a box."""
    identity = member.identity
    if not identity.runner:
        return
    if member.programs is None:
        member.programs = Programs(_make_box(), identity.runner, new_privs=identity.new_privs)


def _make_box() -> inbox.Inbox:
    return inbox.make_inbox(limits.value("JOB_SNDBUF_BYTES"))


def update_programs(server: Server, member: Member, *, is_forced: bool) -> None:
    """Do what a new plan asks for: is_forced (a restart) ends the runner; a changed file makes a successor come on demand."""
    make_programs(member)
    programs, identity = member.programs, member.identity
    if programs is None:
        return
    is_changed = bool(identity.runner) and (identity.runner, identity.new_privs) != (programs.file, programs.new_privs)
    if is_changed:
        programs.file, programs.new_privs = identity.runner, identity.new_privs
    if is_forced:
        end_runners(server, member)
    elif is_changed:
        _let_finish(server, programs)
    settle_runner(server, member)


def settle_runner(server: Server, member: Member) -> None:
    """Watch the box for jobs while nobody reads it, and always for being shut down by a holder."""
    programs = member.programs
    if programs is None:
        return
    is_waiting = programs.runner is None and programs.retry_s is None and server.stopping != signals.STOP
    mask = (READ if is_waiting else 0) | (0 if server.stopping else HANGUP)
    if mask:
        server.loop.watch(programs.box.read_fd, mask, partial(_on_box, server, member))
    else:
        server.loop.forget(programs.box.read_fd)


def _on_box(server: Server, member: Member, events: int) -> None:
    programs = member.programs
    if programs is not None and events & ~READ:
        server.loop.forget(programs.box.read_fd)
        if not server.stopping:
            _repair_box(server, member, programs)
        return
    if programs is None or programs.runner is not None:
        return
    if server.stopping == signals.STOP:  # what still lies in the box is nobody's any more
        settle_runner(server, member)
        return
    now_s = server.sys.now_s()
    programs.retry_s = programs.damping.blocked_until_s(now_s)
    if programs.retry_s is None:
        _start_runner(server, member, programs)
    settle_runner(server, member)


def _repair_box(server: Server, member: Member, programs: Programs) -> None:
    """Replace a box that a holder of it shut down: a new one for new children and a new runner; the old ones finish what they have."""
    server.events.say("error", "", f"the job box of {member.identity.name} was shut down by a process that holds it: replaced",
                      identity=member.identity.number)
    old, programs.box = programs.box, _make_box()
    inbox.close_inbox(old)
    _let_finish(server, programs)
    for child in list(member.children.values()):
        drain_child(server, child)
    settle_runner(server, member)


def _start_runner(server: Server, member: Member, programs: Programs) -> None:
    name = member.identity.name
    try:
        _make_directory(server, member)
    except OSError as error:  # programs need none
        server.events.say("error", "", f"the directory of {name}'s services cannot be made: {error}", identity=member.identity.number)
    try:
        pid = _fork_surely(server, member, programs)
        try:
            runner = Runner(pid, server.sys.open_pidfd(pid), server.sys.now_s())
        except OSError:
            nursery.kill_unknown(server)  # it would take jobs, and never be told to end
            raise
    except (OSError, DispatcherError) as error:
        server.events.say("error", "", f"no runner can be started for {name}: {error}; its programs wait", identity=member.identity.number)
        programs.retry_s = server.sys.now_s() + FORK_PAUSE_S
        return
    programs.runner = runner
    programs.all[pid] = runner
    server.loop.watch(runner.pidfd, READ, partial(_on_exit, server, member, runner))
    server.events.say("debug", "", f"runner {pid} of {name} started", identity=member.identity.number)


def _fork_surely(server: Server, member: Member, programs: Programs) -> int:
    """Fork it; if the nursery is lost over it, without one. A runner that it may have left is killed when the nursery has ended."""
    try:
        return _fork(server, member, programs)
    except ForkLostError as error:
        server.events.say("error", "", f"{error}: forking {member.identity.name}'s runner without it", identity=member.identity.number)
        nursery.kill_nursery(server)
        return _fork(server, member, programs)


def _fork(server: Server, member: Member, programs: Programs) -> int:
    identity, hooks = member.identity, server.hooks
    if hooks.fork_runner is None:
        raise DispatcherError("", "this server has no part that executes programs")
    with ExitStack() as stack:
        file_fd = open_record(server.records_fd, programs.file)
        stack.callback(os.close, file_fd)
        parent_fd = os.pidfd_open(os.getpid())
        stack.callback(os.close, parent_fd)
        spec = RunnerSpec(
            name=identity.name, uid=identity.uid, gid=identity.gid, groups=identity.groups, is_privileged=server.is_privileged,
            nofile=min(server.nofile, MAX_NOFILE), may_gain=programs.new_privs, box_fd=programs.box.read_fd, file_fd=file_fd,
            parent_fd=parent_fd)
        mask = signals.block_all()
        try:
            pid = hooks.fork_runner(spec)
            if pid == 0:
                _be_runner(server)
        finally:
            signals.restore_mask(mask)
    return pid


def _be_runner(server: Server) -> None:
    try:
        server.hooks.runner_main()
    finally:
        os._exit(EXIT_BUG)


def reopen_logs(server: Server) -> None:
    """Give every runner the error log that was opened anew; one whose box is full has a successor that was forked with it."""
    for member in server.members.values():
        programs = member.programs
        if programs is None or programs.runner is None:
            continue
        rights = array.array("i", [STDERR_FD])
        try:
            with socket.socket(fileno=os.dup(programs.box.write_fd)) as box:
                box.sendmsg([job.encode_job(job.Job(job.LOG, 0))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT)
        except OSError:
            _let_finish(server, programs)
            settle_runner(server, member)


# ---------------------------------------------------------------- their end


def _on_exit(server: Server, member: Member, runner: Runner, _events: int) -> None:
    status = server.sys.reap(runner.pidfd)
    programs = member.programs
    if status is None or programs is None:
        return
    server.loop.forget(runner.pidfd)
    os.close(runner.pidfd)
    del programs.all[runner.pid]
    if programs.runner is runner:
        programs.runner = None
    if status != 0 and not runner.is_asked_to_end:
        now_s = server.sys.now_s()
        programs.damping.add(DEATH_POINTS if now_s - runner.started_s < YOUNG_S * 5 else DEATH_POINTS / 2, now_s)
        _report_death(server, member, runner, status)
    settle_runner(server, member)


def _report_death(server: Server, member: Member, runner: Runner, status: int) -> None:
    name, number = member.identity.name, member.identity.number
    if status < 0:
        server.events.say("notice", "", f"runner pid {runner.pid} ({name}) exit signal {name_signal(-status)} ({-status}): its programs "
                          "ended with it", identity=number)
    elif EXIT_DROP <= status < EXIT_DROP + len(DROP_STEPS):
        server.events.say("crit", "", f"runner pid {runner.pid} could not become {name} (uid {member.identity.uid}): "
                          f"{DROP_STEPS[status - EXIT_DROP]} failed; nothing is executed as {name}", identity=number)
    else:
        server.events.say("error", "", f"runner pid {runner.pid} ({name}) ended with status {status}", identity=number)


def _let_finish(server: Server, programs: Programs) -> None:
    runner, programs.runner = programs.runner, None
    if runner is not None:
        runner.is_asked_to_end = True
        runner.finish_s = server.sys.now_s() + FINISH_S
        server.sys.signal_pidfd(runner.pidfd, signal.SIGUSR1)


def end_runners(server: Server, member: Member) -> None:
    """End all runners of an identity, TERM now, KILL in KILL_AFTER_S."""
    programs = member.programs
    if programs is None:
        return
    programs.runner = None
    for runner in programs.all.values():
        _end_runner(server, runner)


def _end_runner(server: Server, runner: Runner) -> None:
    if runner.kill_s is None:
        runner.is_asked_to_end = True
        runner.kill_s = server.sys.now_s() + KILL_AFTER_S
        server.sys.signal_pidfd(runner.pidfd, signal.SIGTERM)


def end_all_runners(server: Server) -> bool:
    """End every runner of a server that stops; return whether none is left that KILL may still end."""
    left: list[Runner] = []
    for member in server.members.values():
        end_runners(server, member)
        left += member.programs.all.values() if member.programs else ()
    latest_s = server.sys.now_s() - GIVE_UP_S
    return all(runner.kill_s is not None and runner.kill_s < latest_s for runner in left)


def _press(server: Server, runner: Runner, now_s: float) -> None:
    """Say again what a runner was told: a signal is lost where a program of its namespace has just sent the same."""
    if runner.kill_s is not None:
        if now_s >= runner.kill_s:
            server.sys.signal_pidfd(runner.pidfd, signal.SIGKILL)
    elif runner.finish_s is not None and now_s >= runner.finish_s:
        _end_runner(server, runner)
    elif runner.finish_s is not None:
        server.sys.signal_pidfd(runner.pidfd, signal.SIGUSR1)


def look_at_runners(server: Server) -> None:
    """Once a second: kill what did not end, go on with what was held back."""
    now_s = server.sys.now_s()
    for member in server.members.values():
        programs = member.programs
        if programs is None:
            continue
        for runner in programs.all.values():
            _press(server, runner, now_s)
        if programs.retry_s is not None and now_s >= programs.retry_s:
            programs.retry_s = None
            settle_runner(server, member)


def drop_programs(server: Server, member: Member) -> bool:
    """Give back what an identity that goes has for programs; False: its runners have yet to end."""
    programs = member.programs
    if programs is None:
        return True
    end_runners(server, member)
    if programs.all:
        return False
    server.loop.forget(programs.box.read_fd)
    inbox.close_inbox(programs.box)
    member.programs = None
    with suppress(OSError):  # what cannot be removed stays
        _remove_directory(server, member)
    return True


# ---------------------------------------------------------------- the directory of services' sockets


def _place_of(server: Server, member: Member) -> tuple[str, str]:
    identity = member.identity
    parent, _, name = tenant_directory(server.plan.run_dir, identity.uid, identity.gid, identity.groups).rpartition("/")
    return parent, name


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _make_directory(server: Server, member: Member) -> None:
    """Make it, 0700 of the identity, below a directory of ours; one that is there stays, if it is the identity's."""
    parent, name = _place_of(server, member)
    identity, us = member.identity, os.geteuid()
    top, _, parent_name = parent.rpartition("/")
    top_fd = os.open(top, _DIRECTORY)
    try:
        parent_fd = _open_or_make(top_fd, parent_name, 0o711, None)
    finally:
        os.close(top_fd)
    try:
        state = os.fstat(parent_fd)
        if state.st_uid != us or state.st_mode & 0o022:
            raise PermissionError(f"{parent} is not ours alone")
        fd = _open_or_make(parent_fd, name, 0o700, (identity.uid, identity.gid) if server.is_privileged else None)
        try:
            if os.fstat(fd).st_uid not in {us, identity.uid}:
                raise PermissionError(f"{parent}/{name} is another's")
            _adjust(fd, 0o700, (identity.uid, identity.gid) if server.is_privileged else None)
        finally:
            os.close(fd)
    finally:
        os.close(parent_fd)


def _open_or_make(parent_fd: int, name: str, mode: int, owner: tuple[int, int] | None) -> int:
    """Return a descriptor of a directory. It gets its name when it is ready: who looks it up meanwhile finds none, not one of root's."""
    with suppress(FileNotFoundError):
        return os.open(name, _DIRECTORY, dir_fd=parent_fd)
    aside = f".{name}"
    with suppress(FileExistsError):
        os.mkdir(aside, 0o700, dir_fd=parent_fd)
    fd = os.open(aside, _DIRECTORY, dir_fd=parent_fd)
    try:
        _adjust(fd, mode, owner)
        os.rename(aside, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _adjust(fd: int, mode: int, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.fchown(fd, *owner)
    os.fchmod(fd, mode)


def _remove_directory(server: Server, member: Member) -> None:
    """Remove it with the sockets and files in it, by names in an open directory: no link is followed, no file opened.

    It is the tenant's to write to, who may fill it or be at work in it: so no more is read than is removed, and nothing is certain.
    """
    parent, name = _place_of(server, member)
    parent_fd = os.open(parent, _DIRECTORY)
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        try:
            with os.scandir(fd) as entries:
                names = [entry.name for entry in islice(entries, MAX_STALE)]
            for one in names:
                with suppress(OSError):  # a directory, or gone meanwhile
                    os.unlink(one, dir_fd=fd)
        finally:
            os.close(fd)
        with suppress(OSError):  # what the tenant put there beside them stays
            os.rmdir(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)
