"""perchildd's command line: httpd's options, shapes and exit statuses.

The only place that knows both the dispatcher and the child: it gives the one the other's main function.
Runs as: whoever calls it; becomes the dispatcher.  Source: httpd main.c, mpm_unix.c ap_signal_server.
Before: -  After: dispatcher/start.py
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from perchild import environment
from perchild.mpm import DEFAULT_MPM, MPMS
from perchild.version import HTTPD, SERVER

if TYPE_CHECKING:
    from perchild.config.model import Model, Result
    from perchild.dispatcher.start import Start
    from perchild.wire.plan import Plan

DEFAULT_ROOT = "/etc/perchild"
DEFAULT_CONFIG = "perchild.conf"
ACTIONS = ("start", "restart", "graceful", "graceful-stop", "stop")
LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug", *(f"trace{step}" for step in range(1, 9)))
FOREGROUND = frozenset({"FOREGROUND", "NO_DETACH", "ONE_PROCESS", "DEBUG"})
ONE_WORKER = frozenset({"ONE_PROCESS", "DEBUG"})

USAGE = """Usage: perchildd [-D name] [-d directory] [-f file]
                 [-C "directive"] [-c "directive"]
                 [-k start|restart|graceful|graceful-stop|stop]
                 [-v] [-V] [-h] [-l] [-L] [-t] [-T] [-S] [-X] [-M]
       perchildd demo [options]
Options:
  -D name            : define a name for use in <IfDefine name> directives;
                       FOREGROUND, NO_DETACH, ONE_PROCESS, DEBUG, DUMP_VHOSTS,
                       DUMP_MODULES, DUMP_RUN_CFG and DUMP_INCLUDES do something
  -d directory       : specify an alternate initial ServerRoot
  -f file            : specify an alternate ServerConfigFile
  -C "directive"     : process directive before reading config files
  -c "directive"     : process directive after reading config files
  -e level           : show startup errors of level (see LogLevel)
  -E file            : log startup errors to file
  -v                 : show version number
  -V                 : show compile settings
  -h                 : list available command line options (this page)
  -l                 : list compiled in modules
  -L                 : list available configuration directives
  -t -D DUMP_VHOSTS  : show parsed vhost settings
  -t -D DUMP_RUN_CFG : show parsed run settings
  -S                 : a synonym for -t -D DUMP_VHOSTS -D DUMP_RUN_CFG
  -t -D DUMP_MODULES : show all loaded modules
  -M                 : a synonym for -t -D DUMP_MODULES
  -t -D DUMP_INCLUDES: show all included configuration files
  -t                 : run syntax check for config files
  -T                 : start without DocumentRoot(s) check
  -X                 : debug mode (only one worker, do not detach)
"""


class UsageError(Exception):
    """The command line cannot be understood."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of httpd's options."""
    parser = _Parser(prog="perchildd", add_help=False, allow_abbrev=False)
    for letter, name in (("D", "defines"), ("C", "before"), ("c", "after")):
        parser.add_argument(f"-{letter}", dest=name, action="append", default=[])
    for letter, name in (("d", "root"), ("f", "file"), ("E", "error_file")):
        parser.add_argument(f"-{letter}", dest=name, default="")
    parser.add_argument("-e", dest="level", default="notice", type=str.lower, choices=LEVELS)
    parser.add_argument("-k", dest="action", default="", choices=ACTIONS)
    for letter in "vVhlLtTSMX":
        parser.add_argument(f"-{letter}", dest=f"flag_{letter}", action="store_true")
    return parser


@dataclass(frozen=True, slots=True)
class Call:
    """A command line, understood."""

    root: str
    file: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    defines: tuple[str, ...]
    action: str
    flags: frozenset[str]
    error_file: str

    @property
    def is_foreground(self) -> bool:
        """Whether the server stays in the foreground."""
        return "X" in self.flags or bool(FOREGROUND & set(self.defines))

    @property
    def has_one_worker(self) -> bool:
        """Whether there is one worker only."""
        return "X" in self.flags or bool(ONE_WORKER & set(self.defines))


def parse_call(argv: Sequence[str]) -> Call:
    """Understand a command line; UsageError if it is none."""
    parsed = make_parser().parse_args(argv)
    flags = frozenset(letter for letter in "vVhlLtTSMX" if getattr(parsed, f"flag_{letter}"))
    defines = [*parsed.defines]
    defines += ["DUMP_VHOSTS", "DUMP_RUN_CFG"] if "S" in flags else []
    defines += ["DUMP_MODULES"] if "M" in flags else []
    root = os.path.abspath(parsed.root) if parsed.root else DEFAULT_ROOT
    return Call(root, parsed.file or os.path.join(root, DEFAULT_CONFIG), tuple(parsed.before), tuple(parsed.after), tuple(defines),
                parsed.action, flags, parsed.error_file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run perchildd with `argv` (without the program's name; None: the process's own); return the exit status."""
    is_own_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "demo":
        from perchild import demo  # noqa: PLC0415 - only where it is used

        return demo.main(argv[1:])
    try:
        call = parse_call(argv)
    except UsageError as error:
        _complain(f"perchildd: {error}\n{USAGE}")
        return 1
    for letter, show in _SHOWS.items():
        if letter in call.flags:
            return show(call)
    if call.flags & {"t", "S", "M"} or any(name.startswith("DUMP_") for name in call.defines):
        return check_config(call)
    if is_own_process:
        environment.keep_what_is_needed()
    return _ACTIONS[call.action](call)


def _complain(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# ---------------------------------------------------------------- what needs no configuration


def _show_help(_call: Call) -> int:
    _say(USAGE)
    return 1  # as httpd


def _version_lines() -> str:
    return f"Server version: {SERVER} ({platform.system()}; configuration of {HTTPD})\n"


def _show_version(_call: Call) -> int:
    _say(_version_lines())
    return 0


def _show_settings(call: Call) -> int:
    from perchild.config.modules import PROVIDED  # noqa: PLC0415

    result = _compile_here(call) if os.path.exists(os.path.join(call.root, call.file)) else None
    name = result.compiled.plan.mpm if result is not None and result.compiled is not None else DEFAULT_MPM
    mpm = MPMS[name]
    _say(f"{_version_lines()}Architecture:   {platform.architecture()[0].replace('bit', '-bit')}\nServer MPM:     {mpm.name}\n"
         f"  threaded:     {mpm.threaded}\n    forked:     {mpm.forked}\nServer compiled with....\n"
         f' -D HTTPD_ROOT="{DEFAULT_ROOT}"\n -D SERVER_CONFIG_FILE="{DEFAULT_CONFIG}"\n'
         f' -D DEFAULT_PIDLOG="/run/perchildd/perchildd.pid"\n -D DEFAULT_ERRORLOG="logs/error_log"\n'
         f" -D MODULES={len(PROVIDED)}\n")
    return 0


def _show_modules(_call: Call) -> int:
    from perchild.config.modules import PROVIDED  # noqa: PLC0415

    sources = dict.fromkeys([*(row[0] for row in PROVIDED), *(mpm.source for mpm in MPMS.values())])
    _say("Compiled in modules:\n" + "".join(f"  {source}\n" for source in sources))
    return 0


def _show_directives(_call: Call) -> int:
    from perchild.config import show  # noqa: PLC0415

    _say(show.format_directives())
    return 0


_SHOWS: dict[str, Callable[[Call], int]] = {
    "h": _show_help, "v": _show_version, "V": _show_settings, "l": _show_modules, "L": _show_directives,
}


# ---------------------------------------------------------------- -t, -S, -M


def _compile_here(call: Call, *, is_isolating: bool = False) -> Result:
    """Compile in this process, which then only prints; drops nothing, starts nothing."""
    from perchild.config import load  # noqa: PLC0415 - never in a process that becomes the dispatcher

    options = load.Options(config_file=call.file, server_root=call.root, before=call.before, after=call.after, defines=call.defines,
                           caller_uid=os.geteuid(), caller_gid=os.getegid(), caller_groups=tuple(os.getgroups()),
                           environ=dict(os.environ))
    return load.compile_config(options, {}, is_isolating=is_isolating)


def check_config(call: Call) -> int:
    """-t and the dumps: 0, and "Syntax OK" on stderr where nothing is dumped, as httpd does; else 1 and every error."""
    from perchild.config import load  # noqa: PLC0415

    result = _compile_here(call)
    for warning in result.warnings:
        _complain(f"{warning.render_line()}\n")
    if result.errors or result.compiled is None or result.model is None:
        _complain(load.format_errors(result.errors))
        broken = _compile_here(call, is_isolating=True).broken
        if broken:
            _complain(f"perchildd: {len(broken)} of the sites {'is' if len(broken) == 1 else 'are'} refused; the others would be taken\n")
        return 1
    dumps = [dump for name, dump in _DUMPS.items() if name in call.defines]
    for dump in dumps:
        _say(dump(result.model, result.compiled.plan))
    if not dumps:
        _complain("Syntax OK\n")
    return 0


def _dump_vhosts(model: Model, _plan: Plan) -> str:
    from perchild.config import show  # noqa: PLC0415

    return show.format_vhosts(model)


def _dump_run_cfg(model: Model, _plan: Plan) -> str:
    from perchild.config import show  # noqa: PLC0415

    return show.format_run_cfg(model)


def _dump_modules(_model: Model, plan: Plan) -> str:
    from perchild.config import show  # noqa: PLC0415

    return show.format_modules(plan.mpm)


def _dump_includes(model: Model, _plan: Plan) -> str:
    from perchild.config import show  # noqa: PLC0415

    return show.format_includes(model)


_DUMPS: dict[str, Callable[[Model, Plan], str]] = {
    "DUMP_VHOSTS": _dump_vhosts, "DUMP_RUN_CFG": _dump_run_cfg, "DUMP_MODULES": _dump_modules, "DUMP_INCLUDES": _dump_includes,
}


# ---------------------------------------------------------------- -k


def _make_start(call: Call) -> Start:
    """Put the dispatcher and the child together."""
    from perchild import native  # noqa: PLC0415 - needs the extension
    from perchild.child.main import child_main  # noqa: PLC0415
    from perchild.dispatcher import compile as compiling  # noqa: PLC0415
    from perchild.dispatcher import signals  # noqa: PLC0415
    from perchild.dispatcher.start import Start  # noqa: PLC0415
    from perchild.dispatcher.state import Hooks  # noqa: PLC0415
    from perchild.runner.main import runner_main  # noqa: PLC0415 - before the nursery, whose memory runners share

    seccomp, runner_seccomp = native.build_seccomp(), native.build_runner_seccomp()

    def prepare() -> None:
        gc.collect()
        gc.freeze()
        if native.start_nursery() == 0:
            (runner_main if native.runner_here() else child_main)()

    def renew_nursery() -> None:
        """As prepare, in a dispatcher that runs: signals wait, as with every fork there; the nursery's children begin with none blocked."""
        mask = signals.block_all()
        try:
            if native.start_nursery() == 0:
                (runner_main if native.runner_here() else child_main)()
        finally:
            signals.restore_mask(mask)

    hooks = Hooks(
        nursery_pid=native.nursery_pid, forget_nursery=native.forget_nursery, renew_nursery=renew_nursery,
        child_main=lambda _spec: child_main(), drop_privileges=lambda _spec: None, prepare=prepare, finish=native.end_nursery,
        restrict_compile=native.restrict_to_read_search if os.geteuid() == 0 else lambda: None,
        prepare_child=lambda spec: native.prepare_child(spec, seccomp), fork_child=native.fork_child,
        fork_runner=lambda spec: native.fork_runner(spec, runner_seccomp), runner_main=runner_main,
        rotate_tickets=native.rotate_tickets)
    request = compiling.Request(call.file, call.root, call.before, call.after, call.defines, program=compiling.stamp_program())
    return Start(request, compiling.compile_by_config, hooks, SERVER, is_foreground=call.is_foreground,
                 has_one_worker=call.has_one_worker)


def start_server(call: Call) -> int:
    """-k start: in the foreground, or in a new session; then the caller waits until the server is up or has failed."""
    if call.error_file:
        fd = os.open(call.error_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        os.dup2(fd, 2)
        os.close(fd)
    from perchild.dispatcher.service import Service  # noqa: PLC0415

    service = Service.take(os.environ)  # before anything else opens descriptors or looks at the environment
    start = replace(_make_start(call), service=service)
    if call.is_foreground:
        return _serve(start)
    up_read, up_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(up_read)
        os.setsid()
        os.chdir("/")
        os._exit(_serve(replace(start, on_up=lambda: _tell_up(up_write))))
    os.close(up_write)
    with os.fdopen(up_read, "rb") as stream:
        if stream.read(1):
            return 0
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        _complain(f"perchildd: the server did not come up (status {status}); what is not said here is in its error log\n")
    return abs(status)


def _tell_up(fd: int) -> None:
    os.write(fd, b"1")
    os.close(fd)


def _serve(start: Start) -> int:
    """Be the server; a failed start is told on stderr."""
    from perchild.dispatcher.errors import BindError, DispatcherError  # noqa: PLC0415
    from perchild.dispatcher.start import run_server  # noqa: PLC0415

    try:
        return run_server(start)
    except BindError as error:
        _complain(f"{error}\nno listening sockets available, shutting down\nAH00015: Unable to open logs\n")
        return error.exit_code
    except DispatcherError as error:
        (_complain if error.exit_code else _say)(f"{error}\n")
        return error.exit_code


def _find_server(call: Call) -> tuple[int, str, int | None]:
    """Test the configuration in a throw-away process, and look for the server that its pid file names.

    Returns:
        exit status (0 = go on), text of the pid file's state for messages, pid of the running server.
    """
    from perchild.dispatcher import pidfile  # noqa: PLC0415
    from perchild.dispatcher.errors import DispatcherError  # noqa: PLC0415
    from perchild.dispatcher.start import compile_now  # noqa: PLC0415
    from perchild.dispatcher.system import Sys  # noqa: PLC0415

    start = _make_start(call)
    try:
        outcome = compile_now(Sys(), replace(start.request, is_test=True), start)
        if outcome.plan is None:
            return 1, "", None
        _complain(outcome.text)
        pid = pidfile.find_running(outcome.plan.pid_file)
        stale_pid = pidfile.read_pid(outcome.plan.pid_file)
    except DispatcherError as error:
        _complain(f"{error}\n")
        return error.exit_code, "", None
    return 0, "no pid file" if stale_pid is None else f"pid {stale_pid}?", pid


def signal_server(call: Call) -> int:
    """-k stop, graceful-stop, restart, graceful: the configuration is tested first, and an error there refuses all of them."""
    from perchild.dispatcher.signals import GRACEFUL, RESTART, SIGNAL_OF  # noqa: PLC0415

    status, state, pid = _find_server(call)
    if status:
        return status
    if pid is None and call.action in {RESTART, GRACEFUL}:
        _say("perchildd not running, trying to start\n")
        return start_server(call)
    if pid is None:
        _say(f"perchildd ({state}) not running\n")
        return 0
    try:
        os.kill(pid, SIGNAL_OF[call.action])
    except PermissionError:
        _complain(f"perchildd: sending signal to server (pid {pid}): Operation not permitted\n")
        return 1
    except ProcessLookupError:
        _say(f"perchildd (pid {pid}?) not running\n")
    return 0


_ACTIONS: dict[str, Callable[[Call], int]] = {
    "": start_server, "start": start_server, "restart": signal_server, "graceful": signal_server,
    "graceful-stop": signal_server, "stop": signal_server,
}
