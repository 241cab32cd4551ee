"""The dispatcher's life: compile, bind, write the pid file, fork the children, run until told to stop.

Runs as: dispatcher (root, one thread).  Sees: plans, listeners, inboxes.  Trusts: compile's exit status and sealed memfds.
Before: cli.py  After: supervise.py
"""

from __future__ import annotations

import gc
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from perchild.dispatcher import acceptlock, answer, board, logs, nursery, pidfile, reload, renew, runners, stop, supervise
from perchild.dispatcher.children import drain_child
from perchild.dispatcher.compile import (
    KILLED_S,
    Compiler,
    Job,
    Outcome,
    Request,
    abandon_job,
    finish_job,
    kill_job,
    make_renewer,
    start_job,
)
from perchild.dispatcher.compile import LIMIT_S as COMPILE_LIMIT_S
from perchild.dispatcher.errors import AlreadyRunningError, ConfigError, DispatcherError, LogError
from perchild.dispatcher.events import Events
from perchild.dispatcher.listen import Listeners
from perchild.dispatcher.loop import READ, Loop
from perchild.dispatcher.service import Service
from perchild.dispatcher.signals import GRACEFUL, GRACEFUL_STOP, RESTART, STOP, SignalQueue
from perchild.dispatcher.spawn import tenant_gids
from perchild.dispatcher.state import Hooks, Server
from perchild.dispatcher.system import Sys
from perchild.mpm import MPMS
from perchild.wire.plan import Plan
from perchild.words import count_of

EXHAUSTED_PAUSE_S = 0.1
STOP_MORE_S = 10.0  # asked for each second of a graceful stop that has a limit of its own
MAX_REASON = 300  # characters of why a reload was refused, in the status line
READ_LOOK_S = 0.002  # between looks whether children have read the new route table
Done = Callable[[bool, str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """What cli.py decides before the dispatcher begins."""

    request: Request
    compiler: Compiler
    hooks: Hooks
    version: str
    is_foreground: bool
    has_one_worker: bool = False
    keeps_stderr: bool = False  # -X, and tests: the error log stays where stderr is
    on_up: Callable[[], None] = lambda: None  # once, when the first unassigned child is ready
    service: Service = field(default_factory=Service)  # the service manager


class Dispatcher:
    """The server with what only its loop needs: signals, the compile in progress, the control socket."""

    def __init__(self, start: Start, server: Server) -> None:
        self.start = start
        self.server = server
        self.signals = SignalQueue()
        self._job: Job | None = None
        self._job_kind = ""
        self._job_done: list[Done] = []
        self._is_renewal = False  # the job reads certificates, and no configuration
        self._reopen_replies: list[answer.Reply] = []
        self._refused = ""  # why the last reload was
        self._queued: list[tuple[str, Done]] = []  # reloads asked for while one is in progress
        self._next_look_s = server.sys.now_s() + supervise.TICK_S
        server.on_ready = self._on_up
        self.control = answer.ControlSocket(server, {
            "status": lambda one, _request, reply: reply(board.describe_all(one, [])),
            "graceful": lambda _one, _request, reply: self.ask_reload(reload.RELOAD, _reply_text(reply)),
            "restart": lambda _one, _request, reply: self.ask_reload(RESTART, _reply_text(reply)),
            "reopen": self._answer_reopen, "drain": self._answer_drain,
            "config": self._answer_config, "stop": self._answer_stop, "graceful-stop": self._answer_stop,
        })

    def run(self) -> int:
        """Serve until the end; returns the exit status."""
        server = self.server
        server.loop.watch(self.signals.fd, READ, self._on_signal)
        nursery.watch_nursery(server)
        supervise.start_all(server)
        while server.exit_code is None:
            try:
                server.service.feed_watchdog(server.sys.now_s())
                server.loop.run_once(max(0.0, self._next_deadline_s() - server.sys.now_s()))
                self._do_due()
            except OSError as error:  # out of descriptors, memory or processes: what could not be done is done later
                server.events.say("crit", "", f"the dispatcher could not do something: {error}; it goes on")
                time.sleep(EXHAUSTED_PAUSE_S)
        return server.exit_code

    def _next_deadline_s(self) -> float:
        server = self.server
        if server.reopening:
            return 0.0
        deadlines = [self._next_look_s, *(one.escalation.deadline_s() for one in server.reclaims)]
        deadlines += [server.service.next_feed_s if server.service.watchdog_s else None]
        deadlines += [self._job.deadline_s if self._job else None]
        deadlines += [server.transition.deadline_s if server.transition else None, server.stop_deadline_s]
        if server.transition is not None and server.transition.is_draining:
            deadlines.append(server.sys.now_s() + READ_LOOK_S)
        return min(one for one in deadlines if one is not None)

    def _do_due(self) -> None:
        server, now_s = self.server, self.server.sys.now_s()
        supervise.advance_reclaims(server)
        reload.advance_transition(server)
        self._go_on_reopening()
        reload.finish_transition(server)
        if self._job is not None and now_s >= self._job.deadline_s:
            self._end_late_job(self._job)
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + supervise.TICK_S
            supervise.look_around(server)
            self._renew_certificates()
            self._report()
        if server.has_failed:
            stop.begin_stop(server)
        if server.stopping:
            stop.advance_stop(server)
        elif self._queued and self._job is None and server.transition is None:
            kind, done = self._queued.pop(0)
            self.ask_reload(kind, done)

    def _report(self) -> None:
        """Once a second: tell the service manager how things are, and that a stop with a limit of its own takes that long."""
        server = self.server
        if not server.stopping:
            server.service.say_status(describe(server, self._refused))
        elif server.stop_deadline_s is not None:
            server.service.extend(STOP_MORE_S)

    def _go_on_reopening(self) -> None:
        reload.advance_reopening(self.server)
        if not self.server.reopening:
            for reply in self._reopen_replies:
                reply({"ok": True, "text": "logs reopened"})
            self._reopen_replies.clear()

    def _on_up(self) -> None:
        self.start.on_up()
        self.server.service.say_status(describe(self.server, ""))
        self.server.service.say_ready()

    # ------------------------------------------------------------ signals and requests

    def _on_signal(self, _events: int) -> None:
        for action in self.signals.take():
            if action in {STOP, GRACEFUL_STOP}:
                self._stop(action)
            else:
                code, text = _CAUGHT[action]
                self.server.events.say("notice", code, text)
                self.ask_reload(action, lambda _ok, _text: None)

    def _stop(self, action: str) -> None:
        self.server.service.say_stopping()
        {STOP: stop.begin_stop, GRACEFUL_STOP: stop.begin_graceful_stop}[action](self.server)

    def _answer_stop(self, _server: Server, request: dict[str, object], reply: answer.Reply) -> None:
        reply({"ok": True, "text": ""})
        self._stop(STOP if request["op"] == "stop" else GRACEFUL_STOP)

    def _answer_config(self, _server: Server, _request: dict[str, object], reply: answer.Reply) -> None:
        """Say what the configuration is read from, for who wants to read it, too."""
        one = self.start.request
        reply({"ok": True, "config_file": one.config_file, "server_root": one.server_root, "defines": list(one.defines),
               "lines_before": list(one.lines_before), "lines_after": list(one.lines_after)})

    def _answer_reopen(self, server: Server, _request: dict[str, object], reply: answer.Reply) -> None:
        self._reopen_error_log()
        reload.reopen_children(server, tuple(server.members))
        runners.reopen_logs(server)
        self._reopen_replies.append(reply)

    def _answer_drain(self, server: Server, request: dict[str, object], reply: answer.Reply) -> None:
        """Replace the children of one identity, named by its name or number, gracefully."""
        wanted = str(request.get("identity", ""))
        found = [member for member in server.members.values()
                 if wanted in {member.identity.name, str(member.identity.number)}]
        children = [child for member in found for child in member.live()]
        for child in children:
            drain_child(server, child)
        for member in found:
            supervise.settle(server, member)
        done = f"{count_of(len(children), 'child', 'children')} drained"
        text = done if found else f"no identity is called {wanted}: perchildctl tenants lists them"
        reply({"ok": bool(found), "text": text})

    # ------------------------------------------------------------ reload

    def ask_reload(self, kind: str, done: Done) -> None:
        """Begin a reload, or queue it behind the one in progress; `done` is called when it is complete or refused."""
        server = self.server
        if server.stopping:
            done(False, "the server is stopping")
            return
        if self._job is not None or server.transition is not None:
            self._queued.append((kind, done))
            return
        request = replace(self.start.request, generation=server.generation + 1, notes_fd=server.notes_fd, base=server.plan)
        try:
            self._job = start_job(server.sys, request, _tenants(server), self.start.compiler, server.hooks.restrict_compile)
        except OSError as error:
            done(False, f"the configuration cannot be read now: {error.strerror}; the old one stays in force")
            return
        server.service.say_reloading()
        server.service.extend(COMPILE_LIMIT_S + reload.READY_LIMIT_S)
        self._job_kind, self._job_done = kind, [done]
        server.loop.watch(self._job.pidfd, READ, self._on_compiled)

    def _renew_certificates(self) -> None:
        """Read again the certificates whose files have changed; once a second."""
        server = self.server
        if server.stopping or self._job is not None or server.transition is not None:
            return
        numbers = renew.find_changed(server)
        if not numbers:
            return
        names = renew.name_identities(server, numbers)
        request = replace(self.start.request, generation=server.generation + 1, base=server.plan)
        renewer = make_renewer(server.plan, numbers, renew.find_forced(server, numbers))
        try:
            self._job = start_job(server.sys, request, {}, renewer, server.hooks.restrict_compile)
        except OSError as error:
            server.events.say("error", "", f"certificates of {names} have changed and cannot be read now: {error.strerror}")
            renew.note_renewal(server, numbers)
            return
        server.events.say("notice", "", f"certificates of {names} have changed: they are read again")
        renew.note_renewal(server, numbers)
        self._job_kind, self._job_done, self._is_renewal = reload.RELOAD, [], True
        server.loop.watch(self._job.pidfd, READ, self._on_compiled)

    def _on_compiled(self, _events: int) -> None:
        job, server = self._job, self.server
        if job is None:
            return
        server.loop.forget(job.pidfd)
        outcome = finish_job(server.sys, job)
        self._job = None
        if outcome is None:
            return
        is_renewal, self._is_renewal = self._is_renewal, False
        if is_renewal:
            outcome.close()
            kept = renew.keep_tables(server) if outcome.plan is not None else (-1, -1)
            outcome = replace(outcome, route_fd=kept[0], types_fd=kept[1], notes_fd=-1)
        if server.stopping:
            outcome.close()
            self._finish_reload(False, "the server is stopping")
            return
        if outcome.plan is not None and not is_renewal:
            self._reopen_error_log(outcome.plan)
        reload.apply_outcome(server, outcome, self._job_kind, partial(self._finish_reload, is_renewal=is_renewal))

    def _end_late_job(self, job: Job) -> None:
        server = self.server
        if not job.is_killed:
            server.events.say("error", "", "compiling the configuration took too long: ended")
            self._job = kill_job(server.sys, job)
            return
        server.loop.forget(job.pidfd)
        is_renewal, self._is_renewal, self._job = self._is_renewal, False, None
        text = abandon_job(job)
        server.events.say("error", "", text.rstrip())
        self._finish_reload(False, text, is_renewal=is_renewal)

    def _finish_reload(self, is_done: bool, text: str, *, is_renewal: bool = False) -> None:  # noqa: FBT001 - the shape of Done
        server = self.server
        if is_done and self._job_done:
            server.events.say("notice", server.mpm.configured_code, _configured(self.start))
        if not is_renewal:
            self._refused = "" if is_done else " ".join(text.split())[:MAX_REASON]
        if not server.stopping:
            server.service.say_status(describe(server, self._refused))
            server.service.say_ready()
        gc.collect()
        gc.freeze()
        for done in self._job_done:
            done(is_done, text)
        self._job_done = []

    def _reopen_error_log(self, plan: Plan | None = None) -> None:
        if not self.start.keeps_stderr:
            plan = plan or self.server.plan
            self.server.events = Events(f"mpm_{plan.mpm}", plan.error_log_level, is_json=plan.error_log_json)
            try:
                _open_error_log(plan, is_privileged=self.server.is_privileged)
            except LogError as error:
                self.server.events.say("error", error.code, f"{error.text}; the old one is kept")

    def close(self) -> None:
        """Give back what the loop holds; after run()."""
        if self._job is not None:
            kill_job(self.server.sys, self._job)
        self.control.close()
        self.server.listeners.close()


def describe(server: Server, refused: str) -> str:
    """Return the line that `systemctl status` shows. refused: why the last reload was, "" = it was not."""
    held_back = sum(1 for number in server.retries if number in server.members)
    facts = [f"{count_of(server.plan.host_count, 'host')} of {count_of(len(server.members), 'user')}",
             count_of(len(server.children), "process", "processes"), f"generation {server.generation}"]
    facts += [f"{count_of(held_back, 'user')} held back"] if held_back else []
    facts += [f"the last reload was refused: {refused}"] if refused else []
    return "serving " + ", ".join(facts)


_CAUGHT = {
    GRACEFUL: ("AH00171", "Graceful restart requested, doing restart"),
    RESTART: ("AH00173", "SIGHUP received.  Attempting to restart"),
}


def _reply_text(reply: answer.Reply) -> Done:
    return lambda is_done, text: reply({"ok": is_done, "text": text})


def _tenants(server: Server) -> dict[str, int]:
    return {key: number for key, number in server.numbers.items() if number}


def _configured(start: Start) -> str:
    return f"{start.version} configured -- resuming normal operations"


# ---------------------------------------------------------------- start


def run_server(start: Start, sys: Sys | None = None) -> int:
    """Start the server and serve until it is told to stop.

    Returns:
        Exit status: 0 after a stop.
    Raises:
        DispatcherError: the start failed; nothing is left behind.
    """
    sys = sys or Sys()
    start.hooks.prepare()
    start.service.extend(COMPILE_LIMIT_S + supervise.START_LIMIT_S)
    outcome = compile_now(sys, start.request, start)
    server = _make_server(sys, start, outcome)
    try:
        reload.check_room(server, server.plan)
        is_unclean = _write_pid(server)
        server.listeners.adopt(server.listeners.prepare(server.plan.listeners))
        acceptlock.make_lock(server)
    except DispatcherError:
        server.listeners.close()
        pidfile.remove_pid(server.plan.pid_file, os.getpid())
        raise
    dispatcher = None
    try:
        for identity in server.plan.identities:
            reload.make_member(server, identity)
        reload.sweep_records(server)
        strange = start.service.discard_given()
        _enter_service(start, server, outcome, is_unclean=is_unclean)
        dispatcher = Dispatcher(start, server)
        dispatcher.signals.install()
        for name in strange:
            server.events.say("warn", "", f"the service manager passed {name or 'a socket'}, which no Listen directive names: closed")
        return dispatcher.run()
    finally:
        if dispatcher is not None:
            dispatcher.close()
        start.hooks.finish()
        acceptlock.remove_lock(server)
        pidfile.remove_pid(server.plan.pid_file, os.getpid())
        if dispatcher is not None:
            dispatcher.signals.close()  # last: a second signal during the end would leave the nursery and these files behind


def compile_now(sys: Sys, request: Request, start: Start) -> Outcome:
    """Compile and wait for it; ConfigError with what is wrong."""
    job = start_job(sys, request, {}, start.compiler, start.hooks.restrict_compile)
    poller = select.poll()
    poller.register(job.pidfd, select.POLLIN)
    if not poller.poll(int((job.deadline_s - sys.now_s()) * 1000)):
        job = kill_job(sys, job)
        if not poller.poll(int(KILLED_S * 1000)):
            raise ConfigError("", abandon_job(job).rstrip())
    outcome = finish_job(sys, job)
    if outcome is None or outcome.plan is None:
        raise ConfigError("", outcome.text.rstrip() if outcome else "compiling the configuration did not end")
    return outcome


def _make_server(sys: Sys, start: Start, outcome: Outcome) -> Server:
    plan = outcome.plan
    if plan is None:
        raise ConfigError("", outcome.text)
    events = Events(f"mpm_{plan.mpm}", plan.error_log_level, is_json=plan.error_log_json)
    records_fd = os.open(f"{plan.run_dir}/records", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return Server(plan=plan, mpm=MPMS[plan.mpm], sys=sys, events=events, loop=Loop(), hooks=start.hooks, service=start.service,
                  listeners=Listeners(start.service), route_fd=outcome.route_fd, types_fd=outcome.types_fd, records_fd=records_fd,
                  notes_fd=outcome.notes_fd,
                  nofile=sys.raise_nofile(), is_privileged=sys.is_root(), has_one_worker=start.has_one_worker,
                  started_s=sys.now_s())


def _write_pid(server: Server) -> bool:
    """Write the pid file; return whether a previous run left one. AlreadyRunningError if that run goes on."""
    running_pid = pidfile.find_running(server.plan.pid_file)
    if running_pid not in {None, os.getpid()}:
        raise AlreadyRunningError("", f"perchildd (pid {running_pid}) already running")
    return pidfile.write_pid(server.plan.pid_file, os.getpid())


def _enter_service(start: Start, server: Server, outcome: Outcome, *, is_unclean: bool) -> None:
    """Log to the error log from now on, and make the memory that children will share quiet."""
    if not start.keeps_stderr:
        os.write(2, outcome.text.encode("utf-8", "backslashreplace"))  # for who started us, too
        _open_error_log(server.plan, is_privileged=server.is_privileged)
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null_fd, 0)
        os.dup2(null_fd, 1)
        os.close(null_fd)
    if is_unclean:
        server.events.say("warn", "AH00098", f"pid file {server.plan.pid_file} overwritten -- Unclean shutdown of previous "
                          "perchildd run?")
    for warning in server.plan.warnings:
        server.events.say("warn", "", warning)
    reload.tell_broken(server, outcome)
    server.events.say("notice", server.mpm.configured_code, _configured(start))
    gc.disable()
    gc.collect()
    gc.freeze()


def _open_error_log(plan: Plan, *, is_privileged: bool) -> None:
    """Make the main server's error log our standard error.

    Raises:
        LogError: AH00091, and why; nothing is changed then.
    """
    try:
        if is_privileged:
            fd = logs.open_log(plan.error_log, tenant_gids(plan), may_be_sticky=True)
        else:
            fd = os.open(plan.error_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, logs.LOG_MODE)
    except (OSError, logs.UnsafePathError) as error:
        raise LogError("AH00091", f"could not open error log file {plan.error_log}: {error}") from error
    os.dup2(fd, 2)
    os.close(fd)
