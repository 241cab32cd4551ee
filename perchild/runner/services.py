"""The services of a runner: each is one keeper after the other, the next of which is started before the last one ends.

A successor is started when a file is touched, or when the socket's own path was taken away. Until it takes connections the present
keeper goes on; then that one is left alone, and ends. Where the successor fails, nothing has changed.
Runs as: runner.  Before: main.py  After: keeper.py, crew.py
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from perchild.runner.door import remove_stale
from perchild.runner.keeper import Keeper
from perchild.runner.kernel import answer
from perchild.wire.runner import RunnerFile, Service

if TYPE_CHECKING:
    from perchild.runner.log import Log
    from perchild.runner.loop import Loop

MAX_OLD = 2  # that still finish what they have, until another successor is started


class Succession:
    """The keepers of one service."""

    def __init__(self, make: partial[Keeper]) -> None:
        """make: returns a keeper, of (owner, is_successor)."""
        self._make = make
        self._now: Keeper = make(self)
        self._next: Keeper | None = None
        self._old: list[Keeper] = []

    def _all(self) -> list[Keeper]:
        return [*self._old, self._now, *([self._next] if self._next else [])]

    # ------------------------------------------------------------ what keepers say

    def follow(self, keeper: Keeper) -> bool:
        """Start a successor, which takes whoever waits; False: not now."""
        if keeper is not self._now or self._next is not None or len(self._old) >= MAX_OLD:
            return False
        self._next = successor = self._make(self, is_successor=True)
        successor.inherit(keeper)
        successor.start()
        return True

    def take_over(self, keeper: Keeper) -> None:
        """Let the successor be the keeper: it takes connections."""
        old, self._now, self._next = self._now, keeper, None
        self._old.append(old)
        keeper.inherit(old)
        old.leave(is_forced=False)

    def forget(self, keeper: Keeper) -> None:
        """Note that a successor has failed, or that a predecessor has gone."""
        if keeper is self._next:
            self._next = None
        elif keeper in self._old:
            self._old.remove(keeper)

    # ------------------------------------------------------------ what the runner asks

    def wake(self, fd: int) -> None:
        """Answer on `fd`, which is ours now."""
        self._now.wake(fd)

    def note_exit(self, pid: int, status: int) -> bool:
        """Take a program's end; False if it is none of ours."""
        return any(keeper.note_exit(pid, status) for keeper in self._all())

    @property
    def count(self) -> int:
        """How many programs run."""
        return sum(keeper.is_running for keeper in self._all())

    def leave(self, *, is_forced: bool) -> None:
        """End all."""
        for keeper in self._all():
            keeper.leave(is_forced=is_forced)

    def try_close(self) -> bool:
        """Give the socket back, if nobody has just connected to it; False: go on."""
        return not self._old and self._next is None and self._now.try_close()


class Services:
    """All services of one runner, by number."""

    def __init__(self, loop: Loop, log: Log, facts: RunnerFile, kinds: Mapping[str, type[Keeper]]) -> None:
        """kinds: who keeps services of a kind, if that is not Keeper itself."""

        def make(service: Service) -> Succession:
            remove_stale(service.socket)
            return Succession(partial(kinds.get(service.kind, Keeper), loop, log, facts, service))

        self._services = [make(service) for service in facts.services]

    def wake(self, number: int, fd: int) -> None:
        """Answer a WAKE on `fd`, which is ours now."""
        if number < len(self._services):
            self._services[number].wake(fd)
        else:
            answer(fd, f"error there is no service {number}")

    def note_exit(self, pid: int, status: int) -> bool:
        """Take a program's end; False if it is none of ours."""
        return any(service.note_exit(pid, status) for service in self._services)

    @property
    def count(self) -> int:
        """How many run."""
        return sum(service.count for service in self._services)

    def leave(self, *, is_forced: bool) -> None:
        """End all."""
        for service in self._services:
            service.leave(is_forced=is_forced)

    def try_close(self) -> bool:
        """Give all sockets back, if nobody has just connected to one; False: go on."""
        closed = [service.try_close() for service in self._services]  # each, whatever the others say
        return all(closed)
