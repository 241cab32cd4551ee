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

    def watch(self, fd: int, mask: int, callback: Callback) -> None:
        """Watch `fd` from now on; a second call for the same descriptor changes mask and callback."""
        if fd in self._callbacks:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
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
        for fd, events in self._epoll.poll(timeout_s):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback of this round may have forgotten it
                callback(events)

    def close(self) -> None:
        """Give the epoll descriptor back."""
        self._callbacks.clear()
        self._epoll.close()
