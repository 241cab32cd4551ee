"""When a certificate's files are read again: once they have changed and are quiet, not too often, each in its turn."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from perchild.dispatcher import renew
from perchild.dispatcher.state import Member, Phase, Server
from tests.unit.dispatcher.dispatcher_plans import make_identity


class Clock:
    """A server's time, and the files as they are now."""

    def __init__(self, *files: tuple[str, ...]) -> None:
        self.now = 1000.0
        self.stamps = {path: "old" for one in files for path in one}
        members = {number: self._member(number, one) for number, one in enumerate(files, 1)}
        self.server = cast("Server", SimpleNamespace(sys=SimpleNamespace(now_s=lambda: self.now), members=members, renew_at=0))

    def _member(self, number: int, files: tuple[str, ...]) -> Member:
        identity = replace(make_identity(number), tls_files=tuple((path, "old") for path in files))
        return Member(identity, cast("Any", None), ())

    def look(self, path: str) -> str:
        """Return a stamp."""
        return self.stamps[path]

    def tick(self) -> list[int]:
        """Look a second later."""
        self.now += 1
        return renew.find_changed(self.server, self.look)


def test_a_change_is_taken_up_when_it_is_quiet() -> None:
    """Whoever writes a certificate writes its key, too."""
    clock = Clock(("cert", "key"), ("other",), ())
    assert clock.tick() == []
    clock.stamps["cert"] = "new"
    assert clock.tick() == []
    clock.stamps["key"] = "new"
    assert clock.tick() == []
    assert clock.tick() == [1]


def test_a_change_that_is_undone_is_none() -> None:
    """A file that is moved away for a moment."""
    clock = Clock(("cert",))
    clock.stamps["cert"] = ""
    assert clock.tick() == []
    clock.stamps["cert"] = "old"
    assert [clock.tick(), clock.tick()] == [[], []]


def test_an_identity_is_not_renewed_all_the_time() -> None:
    """Its owner may write each second."""
    clock = Clock(("cert",))
    clock.stamps["cert"] = "new"
    taken = 0
    for _ in range(60):
        for number in clock.tick():
            taken += 1
            renew.note_renewal(clock.server, [number])
    assert taken == 6


def test_many_files_are_looked_at_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second costs more than LOOKS_PER_S; whoever has changed is looked at again at once."""
    monkeypatch.setattr(renew, "LOOKS_PER_S", 4)
    clock = Clock(*((f"cert{number}", f"key{number}") for number in range(10)))
    looked: list[str] = []

    def look(path: str) -> str:
        looked.append(path)
        return clock.stamps[path]

    for _ in range(5):
        looked.clear()
        clock.now += 1
        assert renew.find_changed(clock.server, look) == []
        assert len(looked) == 4
    clock.stamps["cert0"] = "new"
    found = [clock.tick() for _ in range(6)]
    assert [1] in found


def test_no_child_is_started_with_an_old_certificate_for_a_while() -> None:
    """But not for ever: it may be that it cannot be read again."""
    clock = Clock(("cert",))
    member = clock.server.members[1]
    assert not renew.must_wait(clock.server, member, clock.look)
    clock.stamps["cert"] = "new"
    assert renew.must_wait(clock.server, member, clock.look)
    clock.now += renew.HOLD_S / 2
    assert renew.must_wait(clock.server, member, clock.look)
    clock.now += renew.HOLD_S / 2
    assert not renew.must_wait(clock.server, member, clock.look)
    clock.stamps["cert"] = "old"
    assert not renew.must_wait(clock.server, member, clock.look)
    assert member.stale_s is None


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_who_has_changed_is_looked_at_before_the_others(monkeypatch: pytest.MonkeyPatch, is_waited_for: bool) -> None:  # noqa: FBT001
    """However many there are, a child that waits for a new certificate gets it at the second look, before HOLD_S is over."""
    monkeypatch.setattr(renew, "LOOKS_PER_S", 4)
    clock = Clock(*((f"cert{number}", f"key{number}") for number in range(100)))
    assert clock.tick() == []
    clock.stamps["cert70"] = "new"
    if is_waited_for:
        assert renew.must_wait(clock.server, clock.server.members[71], clock.look)
    else:
        turns = next(turn for turn in range(100) if clock.tick() == [] and clock.server.members[71].seen_stamps)
        assert turns <= 50
        assert clock.tick() == [71]
        return
    assert clock.tick() == []
    assert clock.tick() == [71]
    assert renew.HOLD_S > 2
    renew.note_renewal(clock.server, [71])
    clock.stamps["cert70"] = "old"
    clock.tick()
    assert clock.server.members[71].stale_s is None


def test_what_was_not_taken_up_is_looked_at_again_sooner() -> None:
    """As soon as it changes and is quiet; but whoever writes nonsense all the time is read every PAUSE_S."""
    clock = Clock(("cert",))
    member = clock.server.members[1]
    taken = []
    for second in range(60):
        clock.stamps["cert"] = f"nonsense {second // 2}"
        for number in clock.tick():
            taken.append(second)
            renew.note_renewal(clock.server, [number])
            member.identity = replace(member.identity, tls_files=(("cert", clock.stamps["cert"]),), tls_held="nonsense")
    assert taken[:2] == [1, 3]
    assert 6 <= len(taken) <= 10


def test_who_has_nobody_left_is_renewed_whatever_is_there() -> None:
    """While a child is ready that has the old key, the others' want of it changes nothing."""
    clock = Clock(("cert",))
    member = clock.server.members[1]
    renew.note_stale(member)
    assert not member.must_renew
    member.identity = replace(member.identity, tls_held="half a pair")
    member.children[7] = cast("Any", SimpleNamespace(phase=Phase.READY))
    renew.note_stale(member)
    assert not member.must_renew
    member.children[7] = cast("Any", SimpleNamespace(phase=Phase.DRAINING))
    renew.note_stale(member)
    assert [clock.tick(), clock.tick()] == [[], [1]]
    assert renew.find_forced(clock.server, [1]) == {1}
    renew.note_renewal(clock.server, [1])
    assert renew.find_forced(clock.server, [1]) == frozenset()
    assert [clock.tick(), clock.tick()] == [[], []]


def test_a_table_without_the_other_is_given_back() -> None:
    """Descriptors run out between the two."""
    with open(os.devnull, "rb") as file:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            renew.keep_tables(cast("Server", SimpleNamespace(route_fd=file.fileno(), types_fd=-1)))
        assert set(os.listdir("/proc/self/fd")) == before
