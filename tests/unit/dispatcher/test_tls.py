"""Keys are opened where only root made the way, and read by nobody here; ticket keys are renewed in time, and outlive children."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from perchild import native
from perchild.dispatcher import supervise, tls
from perchild.dispatcher.state import Member, Server
from perchild.wire.control import MSG_TICKETS, Message
from tests.unit.dispatcher.dispatcher_plans import make_identity


class Clock:
    """A server with its time, and one identity with TLS and one without."""

    def __init__(self) -> None:
        self.now = 0.0
        identities = (replace(make_identity(1), keys=("/key",)), make_identity(2))
        members = {one.number: Member(one, cast("Any", None), ()) for one in identities}
        hooks = SimpleNamespace(rotate_tickets=native.rotate_tickets)
        self.said: list[str] = []
        events = SimpleNamespace(say=lambda *words, **_more: self.said.append(words[2]))
        self.server = cast("Server", SimpleNamespace(sys=SimpleNamespace(now_s=lambda: self.now), members=members, hooks=hooks,
                                                     events=events))

    @property
    def member(self) -> Member:
        """The one with TLS."""
        return self.server.members[1]


def keys_of(fd: int) -> list[bytes]:
    """Return the ticket keys in a memfd, newest first."""
    raw = os.pread(fd, 8 + 4 * 80, 0)
    assert raw[:4] == b"PCTK"
    return [raw[8 + 80 * index : 88 + 80 * index] for index in range(int.from_bytes(raw[4:8], "little"))]


def test_ticket_keys_are_made_when_they_are_needed() -> None:
    """For identities with TLS alone, and once."""
    clock = Clock()
    assert tls.have_tickets(clock.server, clock.server.members[2]) == -1
    fd = tls.have_tickets(clock.server, clock.member)
    assert len(keys_of(fd)) == 1
    assert tls.have_tickets(clock.server, clock.member) == fd
    tls.forget_tickets(clock.member)
    assert clock.member.ticket_fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_ticket_keys_are_renewed_in_time_and_children_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest seals; those before it still open what they have sealed."""
    clock = Clock()
    child = SimpleNamespace()
    told: list[Message] = []
    monkeypatch.setattr(supervise, "post", lambda _server, _child, message: told.append(message))
    first = keys_of(tls.have_tickets(clock.server, clock.member))
    clock.member.children[7] = cast("Any", child)
    clock.now = tls.ROTATE_S - 1
    supervise.rotate_tickets(clock.server)
    assert told == []
    clock.now = tls.ROTATE_S
    supervise.rotate_tickets(clock.server)
    assert told == [Message(MSG_TICKETS, fds=(clock.member.ticket_fd,))]
    second = keys_of(clock.member.ticket_fd)
    assert second[1:] == first
    assert second[0] != first[0]
    tls.forget_tickets(clock.member)


def test_one_whose_ticket_keys_cannot_be_renewed_keeps_the_others_waiting_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have new keys are told of them, and what else is done each second is done; the one is tried again in a while."""
    clock = Clock()
    other = Member(replace(make_identity(3), keys=("/other",)), cast("Any", None), ())
    clock.server.members[3] = other
    told: list[Message] = []
    tried: list[int] = []
    monkeypatch.setattr(supervise, "post", lambda _server, _child, message: told.append(message))
    old = tls.have_tickets(clock.server, clock.member), tls.have_tickets(clock.server, other)
    for member in (clock.member, other):
        member.children[7] = cast("Any", SimpleNamespace())

    def rotate(before: int, fd: int) -> None:
        tried.append(before)
        if before == old[1]:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        native.rotate_tickets(before, fd)

    clock.server.hooks.rotate_tickets = rotate
    for clock.now in (tls.ROTATE_S, tls.ROTATE_S + 1, tls.ROTATE_S + tls.AGAIN_S):
        supervise.rotate_tickets(clock.server)
    assert told == [Message(MSG_TICKETS, fds=(clock.member.ticket_fd,))]
    assert tried == [old[0], old[1], old[1]]
    assert other.ticket_fd == old[1]
    assert len(clock.said) == 2
    for member in (clock.member, other):
        tls.forget_tickets(member)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes such ways")
def test_root_follows_no_way_that_another_can_change() -> None:
    """A tenant's link to another's key would else be opened for its child."""
    base = Path("/root" if os.access("/root", os.W_OK) else "/run") / f"perchild-test-keys.{os.getpid()}"
    base.mkdir(0o700)
    try:
        (base / "good.key").write_text("key")
        os.mkfifo(base / "fifo")
        (base / "link").symlink_to("good.key")
        home = base / "home"
        home.mkdir()
        os.chown(home, 4242, 4242)
        (home / "own.key").write_text("key")
        (home / "link").symlink_to(base / "good.key")
        (base / "through").symlink_to(home / "own.key")
        good = {name: tls.open_key(str(base / name), frozenset(), is_privileged=True) for name in ("good.key", "link")}
        bad = {name: tls.open_key(str(base / name), frozenset(), is_privileged=True)
               for name in ("home/own.key", "home/link", "through", "fifo", "missing", "home")}
        for fd in good.values():
            assert stat.S_ISREG(os.fstat(fd).st_mode)
            assert not os.get_inheritable(fd)
            os.close(fd)
        assert set(bad.values()) == {-1}
    finally:
        for path in (home / "own.key", home / "link", base / "good.key", base / "fifo", base / "link", base / "through"):
            path.unlink(missing_ok=True)
        home.rmdir()
        base.rmdir()


def test_without_root_a_key_is_opened_as_it_is(tmp_path: Path) -> None:
    """All is one user's then."""
    (tmp_path / "key").write_text("key")
    fd = tls.open_key(str(tmp_path / "key"), frozenset(), is_privileged=False)
    assert os.read(fd, 3) == b"key"
    os.close(fd)
    assert tls.open_key(str(tmp_path), frozenset(), is_privileged=False) == -1
