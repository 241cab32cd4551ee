"""A FcgidWrapper's program in several processes: each serves one request at a time, so another is started while requests wait.

All accept from one socket. The first is the service's own (keeper.py); when it ends, another takes its place. An end with status 0
is no failure: php-cgi leaves after PHP_FCGI_MAX_REQUESTS. They end together, when none has been used for a while.
Runs as: runner.  Distrusts: the programs.  Source: mod_fcgid.  Before: services.py  After: keeper.py
"""

from __future__ import annotations

import os
import signal

from perchild import native
from perchild.runner.jobs import signal_group
from perchild.runner.keeper import Keeper, Owner, State
from perchild.runner.log import Log
from perchild.runner.loop import Loop, Timer
from perchild.runner.output import Output
from perchild.wire.runner import RunnerFile, Service

WAIT_S = 0.05  # that a request may wait before another process is thought of
START_S = 0.25  # for the newest process to take what waits
FAILED_S = 5.0  # without another process after one of them has failed
NO_FASTCGI_S = 0.02  # who ends with status 0 sooner, and leaves requests behind, is no FastCGI program
SHORT_S = 1.0  # who does it before that may be none
SHORT_ENDS = 10  # in a row, until there is a pause between them
SHORT_PAUSE_S = 0.5


class Crew(Keeper):
    """One service of several processes."""

    def __init__(self, loop: Loop, log: Log, facts: RunnerFile, service: Service, owner: Owner, *, is_successor: bool = False) -> None:
        super().__init__(loop, log, facts, service, owner, is_successor=is_successor)
        self._others: dict[int, Output] = {}  # by pid
        self._grow: Timer | None = None
        self._rest_until_s = 0.0  # no process is added before
        self._short_ends = 0

    # ------------------------------------------------------------ more of them

    def _note_use(self, events: int) -> None:
        super()._note_use(events)
        if self._grow is None and len(self._others) + 1 < self.service.max_children:
            self._grow = self._loop.after(WAIT_S, self._look_waiting)

    def _look_waiting(self) -> None:
        """Start another one if a request still waits; then be told of the next."""
        self._grow = None
        if self.state is not State.UP:
            return
        if self.has_pending() and self._loop.now_s() >= max(self._rest_until_s, self._started_s + START_S):
            self._add()
        self._watch_up()

    def _add(self) -> None:
        if self._command is None:
            return
        self._rest_until_s = self._loop.now_s() + START_S
        output = Output(self._loop, self._log, self.service.name)
        try:
            self._others[self._execute(self._command, output)] = output
        except (native.RefusedError, OSError) as error:
            output.close()
            self._log.say("error", f"{self.service.name}: no other process can be started: {error}")
            self._rest_until_s += FAILED_S

    # ------------------------------------------------------------ less of them

    def note_exit(self, pid: int, status: int) -> bool:
        """Take the end of a process; False if it is none of this service's."""
        if pid in self._others:
            self._others.pop(pid).close()
        elif pid == self.pid and self._others:
            if self._output is not None:
                self._output.close()
            self.pid, self._output = self._others.popitem()
        else:
            return super().note_exit(pid, status)
        signal_group(pid, signal.SIGKILL)
        if status != 0 and self.state not in {State.GOING, State.ENDING}:
            self._log.say("error", f"{self.service.name}: one of its processes ended: {_describe(status)}")
            self._rest_until_s = self._loop.now_s() + FAILED_S
        return True

    def _note_failure(self, status: int) -> None:
        lived_s = self._loop.now_s() - self._started_s
        leaves_requests = self.has_pending()
        if status != 0 or self.is_successor or (leaves_requests and lived_s < NO_FASTCGI_S):
            super()._note_failure(status)
            return
        self._short_ends = self._short_ends + 1 if leaves_requests and lived_s < SHORT_S else 0
        if self._short_ends < SHORT_ENDS or self._is_leaving:
            self._go_on_after_end()
            return
        if self._short_ends == SHORT_ENDS:
            self._log.say("error", f"{self.service.name}: ended {SHORT_ENDS} times just after its start, with status 0: is it a FastCGI "
                                   "program, or is its PHP_FCGI_MAX_REQUESTS very small?")
        self._timer = self._loop.after(SHORT_PAUSE_S, self._watch_down)

    def _end(self, number: int = 0) -> None:
        if self.pid and self.state is not State.ENDING:
            super()._end(number)
            for pid in self._others:
                signal_group(pid, number or signal.SIGTERM)

    def _kill(self, pid: int) -> None:
        super()._kill(self.pid or pid)
        for one in self._others:
            signal_group(one, signal.SIGKILL)


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"status {code}"
