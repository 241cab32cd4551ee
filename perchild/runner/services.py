r"""Services: long-lived programs that the runner keeps, each behind a Unix socket of its own.

    DOWN --WAKE, or a connection--> STARTING --takes connections--> UP --idle, touched, told to--> ENDING --exit--> DOWN
       \<----------- exit; too soon and too often: HELD, and the socket is gone, until its pause is over -----------/
The socket is bound here, 0600 in a directory of the tenant's, and stays while the runner lives: connections that come while the
program ends or starts wait in it. A command that names {socket} binds it itself; then a WAKE is answered when it can be connected.
Runs as: runner.  Distrusts: the programs.  Before: main.py  After: commands.py, native/runexec.c
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import socket
from collections.abc import Mapping
from functools import partial

from perchild import native
from perchild.runner.commands import Command, CommandError, make_command
from perchild.runner.jobs import limits_of, signal_group
from perchild.runner.log import Log
from perchild.runner.loop import ONCE, READ, Loop, Timer
from perchild.runner.output import Output, open_log
from perchild.wire.runner import RunnerFile, Service

BACKLOG = 511
READY_S = 30.0  # for a command that binds its socket itself
READY_LOOK_S = 0.05
LOOK_S = 1.0  # at files that are touched, and for being idle
END_S = 20.0  # from the signal that asks a program to finish to KILL
YOUNG_S = 5.0  # who ends by itself sooner has failed
MAX_PAUSE_S = 30.0
FREE_FAILURES = 1  # started again at once
UNIX_CONNECTED = "03"  # column St of /proc/net/unix


class State(enum.Enum):
    """Where a service is in its life."""

    DOWN = "down"
    STARTING = "starting"
    UP = "up"
    ENDING = "ending"
    HELD = "held back"


def answer(fd: int, line: str) -> None:
    """Write the answer of a WAKE and close it; who asked may be gone."""
    with contextlib.suppress(OSError), socket.socket(fileno=fd) as sock:
        text = line.replace("\n", " ").encode("utf-8", "backslashreplace")[:500]
        sock.send(text + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Keeper:
    """One service."""

    def __init__(self, loop: Loop, log: Log, facts: RunnerFile, service: Service) -> None:
        self._loop, self._facts, self.service = loop, facts, service
        fd = open_log(service.log, facts.uid)
        self._log = log if fd < 0 else Log(facts.user, fd)
        self.state = State.DOWN
        self.pid = 0
        self._listener: socket.socket | None = None
        self._inode = 0  # of the path that was bound
        self._output: Output | None = None
        self._waiting: list[int] = []  # sockets of WAKEs
        self._command: Command | None = None
        self._failures, self._why = 0, ""
        self._started_s = self._used_s = 0.0
        self._stamps: tuple[int, ...] = ()
        self._timer: Timer | None = None
        self._is_leaving = False
        self._wants_restart = False

    # ------------------------------------------------------------ what others ask

    @property
    def is_running(self) -> bool:
        """Whether its program lives."""
        return self.pid != 0

    def wake(self, fd: int) -> None:
        """Answer on `fd`, which is ours now, when the socket takes connections, or why it does not."""
        if self._is_leaving:
            answer(fd, f"error {self.service.name} is ending with its runner: ask again")
            return
        if self.state is State.HELD:
            answer(fd, f"error {self._why}")
            return
        self._waiting.append(fd)
        if self.state is State.UP:
            self._answer_up()
        elif self.state is State.DOWN:
            self.start()

    def _answer_up(self) -> None:
        if self._listener is not None and not self._is_bound():
            self._bind_again()
        else:
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
        if was is State.ENDING:
            self._failures = 0
            self._go_on_after_end()
        else:
            self._note_failure(status)
        return True

    def _go_on_after_end(self) -> None:
        if self._is_leaving:
            self._answer_all(f"error {self.service.name} has ended with its runner: ask again")
            self.close()
        elif self._wants_restart or self._waiting:
            self.start()
        else:
            self._watch_down()

    # ------------------------------------------------------------ start

    def start(self) -> None:
        """Start the program; whoever waits is answered when it is up, or has failed."""
        self._wants_restart = False
        try:
            self._command = make_command(self.service, self._facts)
            self._listen(self._command)
            self._launch(self._command)
        except (CommandError, native.RefusedError, OSError) as error:
            if self._output is not None:
                self._output.close()
            self._why = f"{self.service.name} cannot be started: {error}"
            self._hold_back()
            return
        self._started_s = self._used_s = self._loop.now_s()
        self._stamps = self._look_at_files()
        self.state = State.STARTING
        if self._command.binds_itself:
            self._timer = self._loop.after(READY_LOOK_S, self._look_ready)
        else:
            self._be_up()

    def _listen(self, command: Command) -> None:
        if command.binds_itself:
            self._close_listener()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.service.socket)
        elif self._listener is None or not self._is_bound():
            self._close_listener()
            self._bind()
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())

    def _bind(self) -> None:
        path = self.service.socket
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            old_mask = os.umask(0o177)
            try:
                listener.bind(path)
            finally:
                os.umask(old_mask)
            listener.listen(BACKLOG)
            self._inode = os.stat(path).st_ino
        except OSError:
            listener.close()
            raise
        self._listener = listener

    def _is_bound(self) -> bool:
        try:
            return os.stat(self.service.socket, follow_symlinks=False).st_ino == self._inode
        except OSError:
            return False

    def _launch(self, command: Command) -> None:
        self._output = Output(self._loop, self._log, self.service.name)
        self.pid = self._execute(command, self._output)

    def _execute(self, command: Command, output: Output) -> int:
        """Start one process, which prints to `output`; return its pid."""
        facts, listen_fd = self._facts, self._listener.fileno() if self._listener else -1
        stdin = os.dup(listen_fd) if command.is_fastcgi else _make_stdin(command.stdin)
        _, memory, processes = limits_of(facts)  # CPU time is a request's, and this program answers many
        try:
            return native.start_program(native.Program(
                os.fsencode(command.path), os.fsencode(command.cwd), tuple(map(os.fsencode, facts.roots)), tuple(map(os.fsencode, command.arguments)),
                tuple(map(os.fsencode, command.environment)), os.fsencode(command.search_path or facts.path), facts.uid,
                facts.gid, (stdin, output.write_fd, output.write_fd), (None, memory, processes), facts.nice,
                -1 if command.is_fastcgi else listen_fd, is_service=not command.is_fastcgi, has_own_env=True))
        finally:
            os.close(stdin)
            output.close_write()

    def _look_ready(self) -> None:
        """Whether a program that binds its socket itself takes connections."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            if sock.connect_ex(self.service.socket) == 0:
                self._be_up()
                return
        if self._loop.now_s() - self._started_s > READY_S:
            self._answer_all(f"error {self.service.name} took no connection on {self.service.socket} within {READY_S:.0f} s")
            self._end(signal.SIGKILL)
            return
        self._timer = self._loop.after(READY_LOOK_S, self._look_ready)

    def _be_up(self) -> None:
        self.state = State.UP
        self._answer_all("ok")
        self._watch_up()
        self._timer = self._loop.after(LOOK_S, self._look)

    def _answer_all(self, line: str) -> None:
        waiting, self._waiting = self._waiting, []
        for fd in waiting:
            answer(fd, line)

    # ------------------------------------------------------------ the socket

    def _watch_down(self) -> None:
        """A connection to the socket starts the program."""
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), READ, lambda _events: self.start())

    def _watch_up(self) -> None:
        """A connection to the socket says that it is used; one is enough between two looks."""
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), READ | ONCE, self._note_use)

    def _note_use(self, _events: int) -> None:
        self._used_s = self._loop.now_s()

    def _bind_again(self) -> None:
        """The path is gone or another's (a tenant may remove it): bind anew, and hand it to a successor."""
        try:
            self._close_listener()
            self._bind()
        except OSError as error:
            self._answer_all(f"error {self.service.socket} cannot be bound: {error}")
        self._wants_restart = True
        self._end()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def has_pending(self) -> bool:
        """Whether a connection waits in the socket."""
        return self._listener is not None and bool(select.select([self._listener], [], [], 0)[0])

    # ------------------------------------------------------------ while it runs

    def _look(self) -> None:
        self._timer = self._loop.after(LOOK_S, self._look)
        now_s = self._loop.now_s()
        if now_s - self._started_s >= YOUNG_S:
            self._failures = 0
        stamps = self._look_at_files()
        if stamps != self._stamps:
            self._stamps = stamps
            self._log.say("notice", f"{self.service.name}: started anew, for a file was touched")
            self._wants_restart = True
            self._end()
            return
        self._watch_up()
        if not self.service.idle_s:
            return
        if now_s - self._used_s >= self.service.idle_s and self._is_busy():
            self._used_s = now_s
        if now_s - self._used_s >= self.service.idle_s:
            self._end()

    def _is_busy(self) -> bool:
        """Whether somebody is connected, or a worker of php-fpm lives (each ends when idle)."""
        if self.service.kind == "php" and _has_children(self.pid):
            return True
        return count_connected(self.service.socket) > 0

    def _look_at_files(self) -> tuple[int, ...]:
        stamps = []
        for path in self._command.touched if self._command else ():
            try:
                stamps.append(os.stat(path).st_mtime_ns)
            except OSError:
                stamps.append(0)
        return tuple(stamps)

    # ------------------------------------------------------------ the end

    def _end(self, number: int = 0) -> None:
        """Ask the program to finish and end."""
        if not self.pid or self.state is State.ENDING:
            return
        self._cancel_timer()
        self.state = State.ENDING
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
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
        if self._is_leaving:
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

    def _hold_back(self) -> None:
        """Take no connection for a while: who asks is told why at once, and does not wait."""
        self._failures += 1
        pause_s = min(MAX_PAUSE_S, 2.0 ** min(self._failures, 10) / 2)
        self.state = State.HELD
        self._remove_socket()
        self._log.say("error", f"{self._why}; it is tried again in {pause_s:.0f} s at the earliest")
        self._answer_all(f"error {self._why}")
        self._timer = self._loop.after(pause_s, self._let_go)

    def _let_go(self) -> None:
        self.state = State.DOWN

    def _remove_socket(self) -> None:
        if self._listener is not None and self._is_bound():
            with contextlib.suppress(OSError):
                os.unlink(self.service.socket)
        self._close_listener()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self, *, is_forced: bool) -> None:
        """End for good: the socket's path goes, so that a successor can bind it; what is connected is finished unless forced."""
        if self._is_leaving and not is_forced:
            return
        self._is_leaving = True
        if self._listener is not None and self._is_bound():
            with contextlib.suppress(OSError):
                os.unlink(self.service.socket)
        if is_forced or not self.has_pending():
            self._end()
        elif self.pid:
            self._loop.after(READY_LOOK_S, self._leave_later)
        if not self.pid:
            self.close()

    def _leave_later(self) -> None:
        self._is_leaving = False
        self.leave(is_forced=False)

    def try_close(self) -> bool:
        """Close the socket of a service that is down, if nobody has just connected; False: it is needed again."""
        if self.is_running or self._waiting:
            return False
        if self._listener is None:
            return True
        aside = f"{self.service.socket}.going"
        if not self._is_bound():
            self.close()
            return True
        os.rename(self.service.socket, aside)
        if self.has_pending():
            os.rename(aside, self.service.socket)
            return False
        os.unlink(aside)
        self.close()
        return True

    def close(self) -> None:
        """Give back what is held; the path stays as it is."""
        self._cancel_timer()
        self._answer_all(f"error {self.service.name} has ended: ask again")
        self._close_listener()
        self.state = State.DOWN


class Services:
    """All services of one runner, by number."""

    def __init__(self, loop: Loop, log: Log, facts: RunnerFile, kinds: Mapping[str, type[Keeper]]) -> None:
        """kinds: who keeps services of a kind, if that is not Keeper itself."""
        self._keepers = [kinds.get(service.kind, Keeper)(loop, log, facts, service) for service in facts.services]

    def wake(self, number: int, fd: int) -> None:
        """Answer a WAKE on `fd`, which is ours now."""
        if number < len(self._keepers):
            self._keepers[number].wake(fd)
        else:
            answer(fd, f"error there is no service {number}")

    def note_exit(self, pid: int, status: int) -> bool:
        """Take a program's end; False if it is none of ours."""
        return any(keeper.note_exit(pid, status) for keeper in self._keepers)

    @property
    def count(self) -> int:
        """How many run."""
        return sum(keeper.is_running for keeper in self._keepers)

    def leave(self, *, is_forced: bool) -> None:
        """End all."""
        for keeper in self._keepers:
            keeper.leave(is_forced=is_forced)

    def try_close(self) -> bool:
        """Give all sockets back, if nobody has just connected to one; False: go on."""
        closed = [keeper.try_close() for keeper in self._keepers]  # each, whatever the others say
        return all(closed)


def _make_stdin(text: bytes) -> int:
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("service", os.MFD_CLOEXEC)
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _has_children(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        return bool(file.read().strip())
    return False


def count_connected(path: str) -> int:
    """Return how many connections to a Unix socket's path there are, accepted or not."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split(None, 7) for line in file]
    return sum(len(line) == 8 and line[7].rstrip("\n") == path and line[5] == UNIX_CONNECTED for line in lines)  # noqa: PLR2004 - columns
