"""The nursery as the dispatcher sees it: watched, started again when it ends, and done without meanwhile.

The first one is older than the plan. Its successors are forked from the dispatcher as it is, so what the dispatcher knows (names,
uids, paths of logs; no tenant's settings) is in their memory, as it is in that of every child that the dispatcher forks itself.
Runs as: dispatcher.  Before: start.py, supervise.py  After: native/nursery.c
"""

from __future__ import annotations

import os
import signal
from functools import partial

from perchild.dispatcher.loop import READ
from perchild.dispatcher.state import DEATH_POINTS, Server


def watch_nursery(server: Server) -> None:
    """Hear of the nursery's end, if there is one."""
    pid = server.hooks.nursery_pid()
    if pid > 0:
        server.nursery_pidfd = server.sys.open_pidfd(pid)
        server.loop.watch(server.nursery_pidfd, READ, partial(_on_end, server, pid))


def _on_end(server: Server, pid: int, _events: int) -> None:
    status = server.sys.reap(server.nursery_pidfd)
    if status is None:
        return
    server.loop.forget(server.nursery_pidfd)
    os.close(server.nursery_pidfd)
    server.nursery_pidfd = -1
    server.hooks.forget_nursery()
    kill_unknown(server)
    server.nursery_damping.add(DEATH_POINTS, server.sys.now_s())
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    server.events.say("error", "", f"the nursery (pid {pid}) {how}: starting another; until then children are forked without it")
    renew_nursery(server)


def renew_nursery(server: Server) -> None:
    """Start a nursery if there should be one and is none, unless the last ones ended too soon."""
    if server.hooks.renew_nursery is None or server.nursery_pidfd >= 0 or server.stopping:
        return
    if server.nursery_damping.blocked_until_s(server.sys.now_s()) is None:
        server.hooks.renew_nursery()
        watch_nursery(server)


def kill_nursery(server: Server) -> None:
    """End a nursery that did not answer; its end shows at its pidfd."""
    if server.nursery_pidfd >= 0:
        server.sys.signal_pidfd(server.nursery_pidfd, signal.SIGKILL)


def kill_unknown(server: Server) -> None:
    """Kill children that nobody here knows; to be called when no fork is under way.

    A nursery that is killed behind a fork leaves one whose number it did not tell. It ends by itself, since nobody gives it the word to
    begin (native/nursery.c); one that does not, because somebody has stopped it, is not left to stand there.
    """
    for pid in server.sys.kill_unknown():
        server.events.say("error", "", f"pid {pid} was forked by a nursery that did not live to say so: killed")


def reap_unknown(server: Server) -> None:
    """Reap children that nobody here knows, which kill_unknown has ended, or which have ended by themselves.

    To reap orphans is the duty of a container's first process, and nothing to speak of.
    """
    level = "debug" if server.sys.is_first() else "error"
    for pid, status in server.sys.reap_unknown():
        how = f"signal {-status}" if status < 0 else f"status {status}"
        server.events.say(level, "", f"reaped a process that this server does not know: pid {pid}, {how}")
