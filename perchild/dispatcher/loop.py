"""One epoll set with a callback for each descriptor: all that the dispatcher waits for.

Runs as: dispatcher, one thread.
"""

from __future__ import annotations

import select
from collections.abc import Callable

Callback = Callable[[int], None]  # argument: the events that are pending (select.EPOLL*)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLRDHUP  # with EPOLLHUP and EPOLLERR, which always come


class Loop:
    """Descriptors and what to call when something happens on them. The loop owns none of the descriptors."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._fresh: set[int] = set()  # watched since the last events came: none of those is theirs, whatever its number

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """Watch `fd` from now on; a second call for the same descriptor changes mask and callback."""
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

    def has(self, fd: int) -> bool:
        """Return whether `fd` is watched."""
        return fd in self._callbacks

    def run_once(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` and call what is due."""
        found = self._epoll.poll(timeout_s)
        self._fresh.clear()
        for fd, events in found:
            callback = self._callbacks.get(fd)
            if callback is not None and fd not in self._fresh:  # an earlier callback of this round may have forgotten it, or closed it
                callback(events)

    def close(self) -> None:
        """Give the epoll descriptor back."""
        self._callbacks.clear()
        self._epoll.close()
