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
HANGUP = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP


class Timer:
    """Something that is due; cancel() makes it nothing."""

    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s = due_s
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Never call it."""
        self.call = None


class Loop:
    """Descriptors and timers. The loop owns none of the descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
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
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once, in `delay_s` seconds."""
        timer = Timer(self.now_s() + delay_s, call)
        heapq.heappush(self._timers, (timer.due_s, next(self._numbers), timer))
        return timer

    def run_once(self) -> None:
        """Wait for the next event or timer, and call what is due."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        wait_s = max(0.0, self._timers[0][0] - self.now_s()) if self._timers else -1
        for fd, events in self._epoll.poll(wait_s):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback of this round may have forgotten it
                callback(events)
        while self._timers and self._timers[0][0] <= self.now_s():
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                timer.call()
