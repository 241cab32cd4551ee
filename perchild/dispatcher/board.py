"""The board (wire/board.py): made for who asks, of what that one may see.

    who asks                                  sees
    root, on control.sock                     everything
    an unassigned child                       everything
    any other child                           its own identity
Pages are copied by sendfile, so no byte that a child wrote comes into this process's memory.
Runs as: dispatcher.  Before: answer.py, children.py  After: wire/board.py
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from perchild.dispatcher.state import Child, Member, Server
from perchild.wire.board import PAGE_STRIDE, encode_text
from perchild.wire.page import PAGE_BYTES
from perchild.wire.plan import UNASSIGNED, BrokenSite

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
FRESH_S = 0.25  # children that ask sooner than that get the last one once more
KEPT_S = 1.0
ALL = -1  # scope: every identity; else an identity's number


def board_for(server: Server, child: Child) -> int:
    """Return the board that a child may see; the descriptor stays ours."""
    member = server.members[child.number]
    scope = ALL if member.identity.kind == UNASSIGNED else child.number
    made_s, fd = server.boards.get(scope, (0.0, -1))
    now_s = server.sys.now_s()
    if fd < 0 or now_s - made_s > FRESH_S:
        if fd >= 0:
            os.close(fd)
            del server.boards[scope]
        fd = make_board(server, ALL if scope == ALL else member)
        server.boards[scope] = (now_s, fd)
    return fd


def forget_boards(server: Server) -> None:
    """Close those that are too old to be given to anybody. Each second."""
    now_s = server.sys.now_s()
    for scope, (made_s, fd) in list(server.boards.items()):
        if now_s - made_s > KEPT_S:
            os.close(fd)
            del server.boards[scope]


def make_board(server: Server, member: Member | int = ALL) -> int:
    """Return a new sealed board of one identity, or of all; the descriptor is the caller's.

    Raises:
        OSError: out of descriptors or memory.
    """
    pages: list[int] = []
    tree = describe_all(server, pages) if isinstance(member, int) else describe_own(server, member, pages)
    text = encode_text(tree)
    fd = os.memfd_create("perchild-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, len(text) + len(pages) * PAGE_STRIDE)
        os.write(fd, text)
        for number, page_fd in enumerate(pages):
            _copy_page(fd, len(text) + number * PAGE_STRIDE, page_fd)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _copy_page(fd: int, at: int, page_fd: int) -> None:
    for begin, end in _extents(page_fd):
        os.lseek(fd, at + begin, os.SEEK_SET)
        done = begin
        while done < end and (count := os.sendfile(fd, page_fd, done, end - done)):
            done += count


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """Yield where a page has been written to: most of it never is."""
    begin = 0
    while begin < PAGE_BYTES:
        try:
            begin = os.lseek(fd, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end
        begin = end


# ---------------------------------------------------------------- what the dispatcher knows


def describe_all(server: Server, pages: list[int]) -> dict[str, Any]:
    """Return the server, its identities and their children, in the order of their numbers; adds the pages' descriptors."""
    return {
        **_describe_server(server), "pid": os.getpid(), "is_privileged": server.is_privileged, "host_count": server.plan.host_count,
        "accept_scope": server.plan.accept_scope, "broken_sites": [_describe_broken(one) for one in server.plan.broken_sites],
        "held_certificates": [{"identity": one.name, "reason": one.tls_held} for one in server.plan.identities if one.tls_held],
        "listeners": [{"address": one.address, "port": one.port} for one in server.plan.listeners],
        "identities": [_describe_member(server, server.members[number], pages) for number in sorted(server.members)],
    }


def describe_own(server: Server, member: Member, pages: list[int]) -> dict[str, Any]:
    """Return the same for who may see one identity only: nothing of the others, not even how many there are."""
    return {**_describe_server(server), "identities": [_describe_member(server, member, pages)]}


def _describe_server(server: Server) -> dict[str, Any]:
    uptime_s = server.sys.now_s() - server.started_s
    return {
        "ok": True, "mpm": server.plan.mpm, "generation": server.generation, "uptime_s": round(uptime_s, 3),
        "started_at": round(time.time() - uptime_s), "state": server.stopping or ("reloading" if server.transition else "running"),
    }


def _describe_broken(one: BrokenSite) -> dict[str, Any]:
    return {"file": one.file, "line": one.line, "reason": one.reason, "stand_in": one.stand_in, "when": one.when, "hosts": list(one.hosts)}


def _describe_member(server: Server, member: Member, pages: list[int]) -> dict[str, Any]:
    identity = member.identity
    return {
        "number": identity.number, "name": identity.name, "uid": identity.uid, "gid": identity.gid,
        "groups": list(identity.groups), "kind": identity.kind, "hosts": identity.host_count, "max_threads": identity.max_threads,
        "is_removed": member.removed_s is not None, "is_held_back": identity.number in server.retries,
        "children": [_describe_child(child, _add_pages(pages, [child.page_fd])[0]) for child in member.children.values()],
        "past_pages": _add_pages(pages, member.free_pages),
        "runner": _describe_runner(member),
    }


def _add_pages(pages: list[int], fds: Iterable[int]) -> list[int]:
    """Put descriptors into the list; return their numbers there."""
    begin = len(pages)
    pages.extend(fds)
    return list(range(begin, len(pages)))


def _describe_runner(member: Member) -> dict[str, Any] | None:
    """Return the runner that takes jobs (pid None: none, it comes on demand) and how many finish; None: no programs."""
    programs = member.programs
    if programs is None:
        return None
    return {"pid": programs.runner.pid if programs.runner else None, "is_held_back": programs.retry_s is not None,
            "ending": len(programs.all) - (programs.runner is not None)}


def _describe_child(child: Child, page: int) -> dict[str, Any]:
    return {"pid": child.pid, "state": child.phase.value, "generation": child.generation, "page": page,
            "is_accepting": child.is_accepting, "idle": child.idle, "busy": child.busy}
