"""Who sees whose figures: a child that is taken over and asks the dispatcher itself learns of its own identity, and changes nothing.

Runs as: root.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from perchild import roles
from perchild.wire import control
from perchild.wire.board import Board, map_board, read_board
from tests.boundary import procs
from tests.lab import Lab, is_alive, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
ASK = control.FORMAT.pack(control.MSG_ASK_BOARD, 0, 0, 0)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A server with alice's and bob's children at work."""
    with Lab(names=("alice", "bob")) as lab:
        lab.start()
        for tenant in lab.tenants.values():
            assert lab.get(tenant.host).status == 200
        yield lab


@contextmanager
def taken_over(lab: Lab, pid: int) -> Iterator[socket.socket]:
    """Stand in for the code of a child: it stands still, and its control socket is ours."""
    wait_until(lambda: procs.stand_still(pid), "stopped")
    number = next(fd.number for fd in procs.look_at_fds(lab, pid) if fd.kind == roles.CONTROL)
    try:
        with procs.borrowed(pid, number) as sock:
            sock.settimeout(5)
            yield sock
    finally:
        os.kill(pid, signal.SIGCONT)


def ask(sock: socket.socket) -> int:
    """Ask for a board; return its descriptor."""
    sock.send(ASK)
    while True:
        raw, ancillary, _, _ = sock.recvmsg(64, socket.CMSG_SPACE(64))
        fds = [fd for _, _, data in ancillary for fd in array.array("i", data)]
        if control.FORMAT.unpack(raw)[0] == control.MSG_BOARD:
            assert len(fds) == 1
            return fds[0]
        for fd in fds:
            os.close(fd)


def names_of(board: Board) -> list[str]:
    """Return whom a board tells of."""
    return [one["name"] for one in board.tree["identities"]]


def test_a_tenants_child_is_told_of_its_own_identity_alone(lab: Lab) -> None:
    """Neither names nor pids nor figures of others are in any byte of what it gets."""
    alice, bob = lab.tenants["alice"], lab.tenants["bob"]
    with taken_over(lab, lab.children(alice.uid)[0]) as sock:
        fd = ask(sock)
        with map_board(fd) as view:
            raw = bytes(view)
        board = read_board(fd)
    assert names_of(board) == [f"#{alice.uid}"]
    assert b"alice.test" in raw
    assert not re.search(rb"(?<!\d)%d(?!\d)" % bob.uid, raw)  # digits of it may stand within any longer number
    assert b"bob" not in raw
    assert not [pid for pid in lab.children() if pid not in lab.children(alice.uid) and f":{pid},".encode() in raw]
    assert not board.tree.keys() & {"pid", "host_count", "listeners"}


def test_an_unassigned_child_is_told_of_all(lab: Lab) -> None:
    """It routes everybody's connections: what they count is the least of it."""
    with taken_over(lab, lab.children(lab.user_uid)[0]) as sock:
        assert len(names_of(read_board(ask(sock)))) == 3


def test_a_board_cannot_be_changed(lab: Lab) -> None:
    """It is sealed: two children that ask at the same time are given the same one."""
    with taken_over(lab, lab.children(lab.user_uid)[0]) as sock:
        fd = ask(sock)
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def test_who_asks_without_end_gets_no_more_than_it_reads(lab: Lab) -> None:
    """The dispatcher keeps its descriptors and its patience; others are served, and the asker is not killed for it."""
    pid = lab.children(lab.tenants["alice"].uid)[0]
    before = len(procs.descriptors(lab.pid))
    with taken_over(lab, pid) as sock:
        sock.setblocking(False)
        sent = 0
        for _ in range(3000):
            try:
                sent += sock.send(ASK) // len(ASK)
            except BlockingIOError:
                break
        assert sent > 100
        assert lab.get("bob.test").body == b"bob\n"
        assert len(procs.descriptors(lab.pid)) <= before + 4
    assert is_alive(pid)
    assert lab.get("alice.test").body == b"alice\n"
    wait_until(lambda: len(procs.descriptors(lab.pid)) <= before, "boards are closed")


def test_a_child_that_is_not_ready_may_not_ask() -> None:
    """READY comes first."""
    from perchild.dispatcher.children import answer_board  # noqa: PLC0415
    from perchild.dispatcher.state import Child, Phase  # noqa: PLC0415

    child = Child.__new__(Child)
    child.phase = Phase.STARTING
    with pytest.raises(control.WireError, match="before ready"):
        answer_board(None, child, control.Message(control.MSG_ASK_BOARD))  # type: ignore[arg-type]
