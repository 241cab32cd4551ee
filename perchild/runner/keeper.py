r"""One start of a service after the other, behind one socket: the program is started, watched, and ended when idle.

    DOWN --WAKE, or a connection--> STARTING --takes connections--> UP --idle, followed, told to--> GOING --left alone--> ENDING --exit--> DOWN
       \<----------- exit; too soon and too often: HELD, and the socket is gone, until its pause is over -------------------------------/
The socket (door.py) is bound here, 0600 in a directory of the tenant's, and stays while the runner lives: connections that come while
the program starts wait in it. A command that names {socket} binds it itself; then a WAKE is answered when it can be connected.
GOING: the path is given away first, and the program told to end only when nobody is connected any more, so that no request is lost,
whatever the program does with what it has accepted. Idle ones come back if somebody is still connected after IDLE_WAIT_S: that is use.
A keeper may be a *successor*: it starts behind a path of its own, takes the public one when the program has accepted a connection, and
is dropped, with nobody the wiser, if it does not.
Runs as: runner.  Distrusts: the programs.  Before: services.py  After: door.py, commands.py, native/runexec.c
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import signal
import socket
from dataclasses import replace
from functools import partial
from typing import Protocol

from perchild import native
from perchild.runner.commands import Command, CommandError, make_command
from perchild.runner.door import Door
from perchild.runner.jobs import limits_of, signal_group
from perchild.runner.kernel import answer, has_children, make_file
from perchild.runner.log import Log
from perchild.runner.loop import ONCE, READ, Loop, Timer
from perchild.runner.output import HostLog, Output
from perchild.wire.runner import PHP, RunnerFile, Service

READY_S = 30.0  # for a command that binds its socket itself, and for a successor
READY_LOOK_S = 0.05
LOOK_S = 1.0  # at files that are touched, and for being idle
IDLE_WAIT_S = 3.0  # for children to give up connections to an idle service that they only keep: they look once a second
FINISH_S = 30.0  # for what is connected to one that has been followed, or goes with its runner
GONE_LOOK_S = 0.25
QUIET_LOOKS = 2  # in a row that see nobody: who had looked the path up before it changed may connect between them
END_S = 20.0  # from the signal that asks a program to finish to KILL
YOUNG_S = 5.0  # who ends by itself sooner has failed
MAX_PAUSE_S = 30.0
FREE_FAILURES = 1  # started again at once
MAX_WAITING = 1024  # WAKEs of one service: each is a descriptor


class State(enum.Enum):
    """Where a service is in its life."""

    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    GOING = "going"
    ENDING = "ending"
    HELD = "held back"


class Owner(Protocol):
    """Who knows a service's keepers."""

    def follow(self, keeper: Keeper) -> bool:
        """Start a successor, which takes whoever waits; False: not now."""

    def take_over(self, keeper: Keeper) -> None:
        """Let the successor be the keeper: it takes connections."""

    def forget(self, keeper: Keeper) -> None:
        """Note that a successor has failed, or that a predecessor has gone."""


class Keeper:
    """One service, or its successor."""

    def __init__(self, loop: Loop, log: Log, facts: RunnerFile, service: Service, owner: Owner, *, is_successor: bool = False) -> None:
        self._loop, self._facts, self.service, self._owner, self.is_successor = loop, facts, service, owner, is_successor
        self._log = HostLog(log, service.log, facts.uid)
        self.state = State.DOWN
        self.pid = 0
        self._door = Door(service.socket)
        self._output: Output | None = None
        self._waiting: list[int] = []  # sockets of WAKEs
        self._command: Command | None = None
        self._probe: socket.socket | None = None  # that a successor has to accept
        self._failures, self._why = 0, ""
        self._started_s = self._used_s = 0.0
        self._stamps: tuple[int, ...] = ()
        self._timer: Timer | None = None
        self._is_leaving = False
        self._until_s, self._quiet_looks = 0.0, 0  # GOING

    # ------------------------------------------------------------ what others ask

    @property
    def is_running(self) -> bool:
        """Whether its program lives."""
        return self.pid != 0

    def wake(self, fd: int) -> None:
        """Answer on `fd`, which is ours now, when the socket takes connections, or why it does not."""
        if self._is_leaving:
            answer(fd, "again")
        elif self.state is State.HELD:
            answer(fd, f"error {self._why}")
        elif len(self._waiting) >= MAX_WAITING:
            answer(fd, f"error {MAX_WAITING} requests wait for {self.service.name} already")
        else:
            self._waiting.append(fd)
            self._wake_up()

    def _wake_up(self) -> None:
        if self.state is State.DOWN:
            self.start()
        elif self.state in {State.UP, State.GOING}:
            self._come_back()

    def inherit(self, other: Keeper) -> None:
        """Take whoever waits for another start of the service."""
        self._waiting += other._waiting
        other._waiting = []

    def _come_back(self) -> None:
        """Be UP, with the path leading here; who has lost even its own path is followed by one that binds another."""
        if self.state is State.GOING:
            self._go_on()
        try:
            self._door.publish()
        except OSError as error:
            if not self._owner.follow(self):
                self._answer_all(f"error {self.service.socket} cannot be bound: {error}")
            return
        self._answer_all("ok")

    def note_exit(self, pid: int, status: int) -> bool:
        """Take the end of a program; False if it is not this one's."""
        if pid != self.pid:
            return False
        signal_group(pid, signal.SIGKILL)  # what is left of it would hold the old socket
        self.pid = 0
        was, self.state = self.state, State.DOWN
        self._cancel_timer()
        if self._output is not None:
            self._output.close()
        if was in {State.ENDING, State.GOING}:
            self._failures = 0
            self._go_on_after_end()
        else:
            self._note_failure(status)
        return True

    def _go_on_after_end(self) -> None:
        if self._is_leaving or self.is_successor:
            self._answer_all("again" if self._is_leaving else f"error {self._why or self.service.name}")
            self.close()
            self._owner.forget(self)
        elif self._waiting:
            self.start()
        else:
            self._watch_down()

    # ------------------------------------------------------------ start

    def start(self) -> None:
        """Start the program; whoever waits is answered when it is up, or has failed."""
        self._log.refresh()
        try:
            self._command = make_command(replace(self.service, socket=self._door.own), self._facts)
            self._stamps = self._look_at_files()  # what changes from now on, it may not have read
            self._listen(self._command)
            self._launch(self._command)
        except (CommandError, native.RefusedError, OSError) as error:
            if self._output is not None:
                self._output.close()
            self._why = f"{self.service.name} cannot be started: {error}"
            self._hold_back()
            return
        self._started_s = self._used_s = self._loop.now_s()
        self.state = State.STARTING
        if self._command.binds_itself or self.is_successor:
            self._timer = self._loop.after(READY_LOOK_S, self._look_ready)
        else:
            self._be_up()

    def _listen(self, command: Command) -> None:
        self._forget_listener()
        if command.binds_itself:
            self._door.clear()
        elif not self._door.is_bound:
            self._door.bind()
        if not command.binds_itself and not self.is_successor and not self._is_leaving:
            self._door.publish()

    def _launch(self, command: Command) -> None:
        self._output = Output(self._loop, self._log, self.service.name)
        self.pid = self._execute(command, self._output)

    def _execute(self, command: Command, output: Output) -> int:
        """Start one process, which prints to `output`; return its pid."""
        listener = self._door.listener
        facts, listen_fd = self._facts, listener.fileno() if listener else -1
        _, memory, processes = limits_of(facts)  # CPU time is a request's, and this program answers many
        with contextlib.ExitStack() as stack:
            stack.callback(output.close_write)
            stdin = os.dup(listen_fd) if command.is_fastcgi else make_file(command.stdin) if command.stdin else os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, stdin)
            config = make_file(command.config) if command.config else 0
            if config:
                stack.callback(os.close, config)
            return native.start_program(native.Program(
                os.fsencode(command.path), os.fsencode(command.cwd), tuple(map(os.fsencode, facts.roots)), tuple(map(os.fsencode, command.arguments)),
                tuple(map(os.fsencode, command.environment)), os.fsencode(command.search_path or facts.path), facts.uid,
                facts.gid, (stdin, output.write_fd, output.write_fd), (None, memory, processes), facts.nice,
                -1 if command.is_fastcgi else listen_fd, config, is_service=not command.is_fastcgi, has_own_env=True))

    def _look_ready(self) -> None:
        """Whether a program that binds its socket itself takes connections, or a successor has accepted one."""
        if self._is_ready():
            self._be_up()
            return
        if self._loop.now_s() - self._started_s > READY_S:
            self._why = f"{self.service.name} took no connection on {self._door.own} within {READY_S:.0f} s"
            self._answer_all(f"error {self._why}")
            self._end(signal.SIGKILL)
            return
        self._timer = self._loop.after(READY_LOOK_S, self._look_ready)

    def _is_ready(self) -> bool:
        if self._probe is None:
            self._probe = self._knock()
        is_ready = self._probe is not None and not self._door.has_pending()
        if is_ready:
            self._end_probe()
        return is_ready

    def _knock(self) -> socket.socket | None:
        """Return a connection to the socket, None if it takes none yet."""
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:  # no descriptor is to be had now
            return None
        if sock.connect_ex(self._door.own) in {0, errno.EAGAIN}:  # EAGAIN: its queue is full
            return sock
        sock.close()
        return None

    def _end_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _be_up(self) -> None:
        self.state = State.UP
        if self._is_leaving:
            self._answer_all("again")
            self._go()
            return
        try:
            if self._command is not None and self._command.binds_itself:
                self._door.adopt()
            self._door.publish()
        except OSError as error:
            self._why = f"{self.service.socket} cannot be bound: {error}"
            self._log.say("error", f"{self.service.name}: {self._why}")
            self._answer_all(f"error {self._why}")
            self._end(signal.SIGKILL)
            return
        if self.is_successor:
            self.is_successor = False
            self._owner.take_over(self)
        self._answer_all("ok")
        self._go_on()

    def _go_on(self) -> None:
        self._cancel_timer()
        self.state, self._used_s = State.UP, self._loop.now_s()
        self._watch_up()
        self._timer = self._loop.after(LOOK_S, self._look)

    def _answer_all(self, line: str) -> None:
        waiting, self._waiting = self._waiting, []
        for fd in waiting:
            answer(fd, line)

    # ------------------------------------------------------------ the socket

    def _watch_down(self) -> None:
        """A connection to the socket starts the program."""
        if self._door.listener is None:
            return
        try:
            self._loop.watch(self._door.listener.fileno(), READ, lambda _events: self.start())
            self._door.publish()
        except OSError:  # whoever finds no path sends a WAKE
            self._door.unpublish()

    def _watch_up(self) -> None:
        """A connection to the socket says that it is used; one is enough between two looks."""
        if self._door.listener is not None:
            with contextlib.suppress(OSError):  # the next look tries it again
                self._loop.watch(self._door.listener.fileno(), READ | ONCE, self._note_use)

    def _note_use(self, _events: int) -> None:
        self._used_s = self._loop.now_s()

    def _forget_listener(self) -> None:
        if self._door.listener is not None:
            self._loop.forget(self._door.listener.fileno())

    def has_pending(self) -> bool:
        """Whether a connection waits in the socket."""
        return self._door.has_pending()

    # ------------------------------------------------------------ while it runs

    def _look(self) -> None:
        self._timer = self._loop.after(LOOK_S, self._look)
        self._log.refresh()
        now_s = self._loop.now_s()
        if now_s - self._started_s >= YOUNG_S:
            self._failures = 0
        if self._look_at_files() != self._stamps and self._owner.follow(self):
            self._stamps = self._look_at_files()
            self._log.say("notice", f"{self.service.name}: started anew, for a file was touched")
        self._watch_up()
        if not self.service.idle_s or now_s - self._used_s < self.service.idle_s:
            return
        if self.service.kind == PHP and has_children(self.pid):
            self._used_s = now_s  # each of its workers ends when idle
        else:
            self._go()

    def _look_at_files(self) -> tuple[int, ...]:
        stamps = []
        for path in self._command.touched if self._command else ():
            try:
                stamps.append(os.stat(path).st_mtime_ns)
            except OSError:
                stamps.append(0)
        return tuple(stamps)

    # ------------------------------------------------------------ the end

    def _go(self) -> None:
        """Give the path away; end when nobody is connected."""
        self._cancel_timer()
        self._forget_listener()
        self._door.unpublish()
        self.state, self._quiet_looks = State.GOING, 0
        self._until_s = self._loop.now_s() + (FINISH_S if self._is_leaving else IDLE_WAIT_S)
        self._look_gone()

    def _look_gone(self) -> None:
        self._quiet_looks = 0 if self._door.has_users() else self._quiet_looks + 1
        is_late = self._loop.now_s() >= self._until_s
        if self._quiet_looks >= QUIET_LOOKS or (is_late and self._is_leaving):
            self._end()
        elif is_late:
            self._come_back()
        else:
            self._timer = self._loop.after(GONE_LOOK_S, self._look_gone)

    def _end(self, number: int = 0) -> None:
        """Ask the program to finish and end."""
        if not self.pid or self.state is State.ENDING:
            return
        self._cancel_timer()
        self._end_probe()
        self.state = State.ENDING
        self._forget_listener()
        number = number or getattr(signal, self._command.end_signal if self._command else "SIGTERM")
        if self._command is not None and self._command.end_signal == "SIGQUIT":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)  # its workers mean something else by it
        else:
            signal_group(self.pid, number)
        self._timer = self._loop.after(END_S, partial(self._kill, self.pid))

    def _kill(self, pid: int) -> None:
        if pid == self.pid:
            self._log.say("error", f"{self.service.name}: did not end within {END_S:.0f} s: killed")
            signal_group(pid, signal.SIGKILL)

    def _note_failure(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        young = self._loop.now_s() - self._started_s < YOUNG_S
        last = self._output.last_line if self._output else ""
        self._why = f"{self.service.name} {how}{' just after its start' if young else ''}{': ' if last else ''}{last}"
        self._log.say("error", f"{self.service.name}: {how}{' just after its start' if young else ''}")
        if self._is_leaving or self.is_successor:
            self._fail_as_successor()
            self._go_on_after_end()
            return
        if not young:
            self._failures = 0
        if young and self._failures >= FREE_FAILURES:
            self._hold_back()
            return
        self._failures += 1
        if self._waiting or self.has_pending():
            self.start()
        else:
            self._watch_down()

    def _fail_as_successor(self) -> None:
        self._end_probe()
        if self.is_successor:
            self._log.say("error", f"{self._why}: the one that it was to follow goes on")

    def _hold_back(self) -> None:
        """Take no connection for a while: who asks is told why at once, and does not wait."""
        if self.is_successor or self._is_leaving:
            self._fail_as_successor()
            self._go_on_after_end()
            return
        self._failures += 1
        pause_s = min(MAX_PAUSE_S, 2.0 ** min(self._failures, 10) / 2)
        self.state = State.HELD
        self._forget_listener()
        self._door.remove()
        self._log.say("error", f"{self._why}; it is tried again in {pause_s:.0f} s at the earliest")
        self._answer_all(f"error {self._why}")
        self._timer = self._loop.after(pause_s, self._let_go)

    def _let_go(self) -> None:
        self.state = State.DOWN

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self, *, is_forced: bool) -> None:
        """End for good, once nobody is connected; at once if forced. Whoever waits is told to ask again."""
        if self._is_leaving and not is_forced:
            return
        self._is_leaving = True
        self._door.unpublish()
        if self.state is State.DOWN and not is_forced and self.has_pending():
            self.start()
        elif not self.pid:
            self._go_on_after_end()
        elif is_forced or self.is_successor:
            self._end()
        elif self.state in {State.UP, State.GOING}:
            self._go()

    def try_close(self) -> bool:
        """Close the socket of a service that is down, if nobody has just connected; False: it is needed again."""
        if self.is_running or self._waiting:
            return False
        if self._door.listener is None:
            self._door.remove()
            return True
        was_published = self._door.is_published
        self._door.unpublish()
        if self._door.has_users():
            if was_published:
                self._watch_down()
            return False
        self.close()
        return True

    def close(self) -> None:
        """Give back what is held."""
        self._cancel_timer()
        self._end_probe()
        self._answer_all("again")
        self._forget_listener()
        self._door.remove()
        self._log.close()
        self.state = State.DOWN
