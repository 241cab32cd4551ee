"""One epoll set with a callback for each descriptor, and timers: all that a runner waits for.

Runs as: runner, one thread.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
ONCE = select.EPOLLONESHOT  # with READ: one event, then none until watch is called again
MAX_CANCELLED = 256  # timers that wait to be nothing, until they are thrown away
HANGUP = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP


class Timer:
    """Something that is due; cancel() makes it nothing."""

    def __init__(self, loop: Loop, due_s: float, call: Callable[[], None]) -> None:
        self._loop, self.due_s = loop, due_s
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never call it."""
        if self.call is not None:
            self.call = None
            self._loop.note_cancelled()


class Loop:
    """Descriptors and timers. The loop owns none of the descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._fresh: set[int] = set()  # watched since the last events came: none of those is theirs, whatever its number
        self._cancelled = 0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def now_s(self) -> float:
        """Return the monotonic clock, seconds."""
        return time.monotonic()

    def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Watch `fd` from now on; a second call changes mask and callback, and arms ONCE again."""
        if fd in self._callbacks:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
            self._fresh.add(fd)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once, in `delay_s` seconds."""
        timer = Timer(self, self.now_s() + delay_s, call)
        heapq.heappush(self._timers, (timer.due_s, next(self._numbers), timer))
        return timer

    def note_cancelled(self) -> None:
        """Throw cancelled timers away when they are many: one that was due in an hour would be kept for that long."""
        self._cancelled += 1
        if self._cancelled > max(MAX_CANCELLED, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if entry[2].call is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def run_once(self) -> None:
        """Wait for the next event or timer, and call what is due."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        wait_s = max(0.0, self._timers[0][0] - self.now_s()) if self._timers else -1
        found = self._epoll.poll(wait_s)
        self._fresh.clear()
        for fd, events in found:
            callback = self._callbacks.get(fd)
            if callback is not None and fd not in self._fresh:  # an earlier callback of this round may have forgotten it, or closed it
                callback(events)
        now_s = self.now_s()
        while self._timers and self._timers[0][0] <= now_s:  # what they add is due in the next round, even if it is due at once
            timer = heapq.heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                call()
