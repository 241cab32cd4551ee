"""How the server ends: at once (TERM), or gracefully (WINCH), when nothing that was accepted is lost.

A graceful stop has two parts. First the accepting children let go of the listeners and finish; what they still hand
over is served by its identity's children (which are forked for it if need be). When no accepting child is left,
every child whose inbox is empty is drained. When no child is left and no inbox holds a connection, the server ends.
Runs as: dispatcher.  Source: httpd stopping.html; history.md 4.3.
"""

from __future__ import annotations

import os

from perchild.dispatcher import inbox, pidfile
from perchild.dispatcher.children import drain_child, on_exit
from perchild.dispatcher.runners import drop_programs, end_all_runners
from perchild.dispatcher.signals import GRACEFUL_STOP, STOP
from perchild.dispatcher.state import Child, Member, Server
from perchild.dispatcher.supervise import reclaim_children, settle


def begin_stop(server: Server) -> None:
    """Stop now: close the listeners and end all children, TERM to KILL."""
    if server.stopping == STOP:
        return
    server.stopping = STOP
    server.listeners.close()
    for member in server.members.values():
        settle(server, member)
    reclaim_children(server, set(server.children))
    advance_stop(server)


def begin_graceful_stop(server: Server) -> None:
    """Stop when everything that was accepted is served, or GracefulShutdownTimeout is over."""
    if server.stopping:
        return
    server.stopping = GRACEFUL_STOP
    server.events.say("notice", "AH00170", "caught SIGWINCH, shutting down gracefully")
    server.listeners.close()
    pidfile.remove_pid(server.plan.pid_file, os.getpid())
    if server.plan.graceful_shutdown_timeout_s:
        server.stop_deadline_s = server.sys.now_s() + server.plan.graceful_shutdown_timeout_s
    for child in list(server.children.values()):
        if child.is_accepting:
            drain_child(server, child)
    for member in server.members.values():
        settle(server, member)
    advance_stop(server)


def advance_stop(server: Server) -> None:
    """Go on with a stop: called after every exit and every second."""
    if server.stopping == STOP:
        are_runners_gone = end_all_runners(server)
        if are_runners_gone and (not server.children or not server.reclaims):
            _end(server)
    elif server.stopping == GRACEFUL_STOP:
        _advance_graceful(server)


def _advance_graceful(server: Server) -> None:
    if server.stop_deadline_s is not None and server.sys.now_s() >= server.stop_deadline_s:
        begin_stop(server)
        return
    if any(child.is_accepting for child in server.children.values()):
        return
    is_quiet = True
    for member in server.members.values():
        if inbox.is_waiting(member.inbox):
            is_quiet = False
            continue
        for child in member.live():
            drain_child(server, child)
    if is_quiet and not server.children and end_all_runners(server):
        _end(server)


def _end(server: Server) -> None:
    if server.exit_code is not None:
        return
    for member in server.members.values():
        drop_programs(server, member)
    if pidfile.remove_pid(server.plan.pid_file, os.getpid()):
        server.events.say("info", "AH00168", f"removed PID file {server.plan.pid_file} (pid={os.getpid()})")
    if not server.has_failed:
        server.events.say("notice", "AH00169", "caught SIGTERM, shutting down")
    server.exit_code = int(server.has_failed)


@on_exit
def note_exit(server: Server, _member: Member, _child: Child) -> None:
    """A stop may be over when a child is gone."""
    advance_stop(server)
