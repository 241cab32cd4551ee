"""Signals: what each asks for, how they are queued, and the steps of a stop.

Handlers do nothing; the interpreter writes the signal's number to a socket that the loop reads (signal.set_wakeup_fd).
    TERM, INT  stop now      HUP  restart      USR1  graceful      WINCH  graceful-stop
A stop escalates as httpd's: TERM at 0, 3, 5 and 7 s, KILL at 9 s, given up at 10 s.
Runs as: dispatcher.  Source: httpd mpm_unix.c ap_reclaim_child_processes, history.md 4.3.
"""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass

STOP = "stop"
RESTART = "restart"
GRACEFUL = "graceful"
GRACEFUL_STOP = "graceful-stop"

ACTIONS: dict[int, str] = {
    signal.SIGTERM: STOP,
    signal.SIGINT: STOP,
    signal.SIGHUP: RESTART,
    signal.SIGUSR1: GRACEFUL,
    signal.SIGWINCH: GRACEFUL_STOP,
}
SIGNAL_OF = {STOP: signal.SIGTERM, RESTART: signal.SIGHUP, GRACEFUL: signal.SIGUSR1, GRACEFUL_STOP: signal.SIGWINCH}


class SignalQueue:
    """Signals as numbers on a socket pair; `fd` becomes readable when one came."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.fd = self._reader.fileno()

    def install(self) -> None:
        """Take the handlers over; main thread only."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in ACTIONS:
            signal.signal(number, _ignore)

    def take(self) -> tuple[str, ...]:
        """Return the actions asked for since the last call, in order."""
        try:
            raw_numbers = self._reader.recv(512)
        except BlockingIOError:
            return ()
        return tuple(ACTIONS[number] for number in raw_numbers if number in ACTIONS)

    def close(self) -> None:
        """Give the handlers back."""
        signal.set_wakeup_fd(-1)
        for number in ACTIONS:
            signal.signal(number, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the number is already on its way to the loop."""


def block_all() -> set[signal.Signals]:
    """Block every signal around a fork; returns the mask to go back to."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))  # type: ignore[arg-type]


def restore_mask(mask: set[signal.Signals]) -> None:
    """Go back to the mask that block_all returned."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def reset_in_child() -> None:
    """Give a child the default handlers and an empty mask; what came for the dispatcher meanwhile is its own."""
    signal.set_wakeup_fd(-1)
    for number in ACTIONS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a stop: after so many seconds, this signal (0 = give up), and what the log says of each child left."""

    after_s: float
    signal: int
    level: str
    code: str
    text: str  # with {pid}


STEPS = (
    Step(0.0, signal.SIGTERM, "", "", ""),
    Step(3.0, signal.SIGTERM, "warn", "AH00045", "child process {pid} still did not exit, sending a SIGTERM"),
    Step(5.0, signal.SIGTERM, "warn", "AH00045", "child process {pid} still did not exit, sending a SIGTERM"),
    Step(7.0, signal.SIGTERM, "warn", "AH00045", "child process {pid} still did not exit, sending a SIGTERM"),
    Step(9.0, signal.SIGKILL, "error", "AH00046", "child process {pid} still did not exit, sending a SIGKILL"),
    Step(10.0, 0, "error", "AH00047", "could not make child process {pid} exit, attempting to continue anyway"),
)


class Escalation:
    """The steps of one stop, by a clock that the caller reads."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._next = 0

    def due(self, now_s: float) -> tuple[Step, ...]:
        """Return the steps whose time has come since the last call."""
        first = self._next
        while self._next < len(STEPS) and STEPS[self._next].after_s <= now_s - self._start_s:
            self._next += 1
        return STEPS[first : self._next]

    def deadline_s(self) -> float | None:
        """Return when the next step is due; None when all are done."""
        return self._start_s + STEPS[self._next].after_s if self._next < len(STEPS) else None

    @property
    def is_over(self) -> bool:
        """Whether the last step is done."""
        return self._next == len(STEPS)
