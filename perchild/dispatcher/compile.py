"""compile: the throw-away process that turns configuration text into a plan.

It keeps CAP_DAC_READ_SEARCH alone and no network, imports the configuration's code, writes records that are not there
yet, and puts the route table, the types table, the plan (JSON), what it has to say and notes for the next compile into five memfds
that the dispatcher made. A crash, a hang or an error there changes nothing: the dispatcher takes the memfds only from a process
that exited with 0, and seals them first.
Runs as: dispatcher (start_job, finish_job), compile (everything below _be_compile).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from perchild import __version__, environment
from perchild.dispatcher import signals
from perchild.dispatcher.system import Sys
from perchild.wire.plan import Compiled, Plan, decode_plan, encode_plan

LIMIT_S = 60.0
KILLED_S = 10.0  # until one that was killed is given up
MAX_TEXT_BYTES = 1 << 20
HURRY = 10  # less of the nice value: nine times the share of a process that has none
EXIT_ERRORS = 1
PROGRAM = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_RESTART = "Restart the server to change anything: systemctl restart perchildd (perchildctl check says what may keep it from starting)\n"
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Request:
    """What is compiled: file (-f), ServerRoot (-d), lines before and after it (-C, -c), names (-D)."""

    config_file: str
    server_root: str
    lines_before: tuple[str, ...] = ()
    lines_after: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    generation: int = 1
    is_test: bool = False  # no record is written
    notes_fd: int = -1  # what the compilation before has noted of unchanged sites (config/reuse.py); only compile reads it
    base: Plan | None = None  # the plan in force, whose records may be used again
    program: str = ""  # stamp_program() when the server was started; "" = it is not compared


# Compiles: (what to compile, identity key -> known number) -> (compiled or None if there are errors, text for people: what is wrong,
# with the whole, or, beside what was compiled, with parts of it that were refused).
Compiler = Callable[[Request, Mapping[str, int]], tuple[Compiled | None, str]]


def identity_key(uid: int, gid: int, groups: Sequence[int]) -> str:
    """Return what keeps an identity's number over reloads: "uid:gid:g1,g2"."""
    return f"{uid}:{gid}:{','.join(map(str, groups))}"


def compile_by_config(request: Request, known: Mapping[str, int]) -> tuple[Compiled | None, str]:
    """Compile with perchild.config, which is imported here and so only in the process that calls this."""
    wrong = check_program(request)
    if wrong:
        return None, wrong
    from perchild.config import load  # noqa: PLC0415 - never in the dispatcher

    options = load.Options(
        config_file=request.config_file, server_root=request.server_root, before=request.lines_before,
        after=request.lines_after, defines=request.defines, caller_uid=os.geteuid(), caller_gid=os.getegid(),
        caller_groups=tuple(os.getgroups()), generation=request.generation, environ=dict(environment.read_starters()))
    raw = _read_all(request.notes_fd, os.fstat(request.notes_fd).st_size) if request.notes_fd >= 0 else b""
    reuse = load.make_reuse(options, raw, request.base)
    result = load.compile_config(options, known, is_isolating=True, reuse=reuse)
    if result.errors:
        return None, load.format_errors(result.errors)
    report = result.report
    if not request.is_test:
        try:
            load.LastGood(result.state_dir).save(result.good, result.held)
            if result.compiled is not None:
                result.compiled.notes = reuse[0].dump()
        except OSError as error:
            report += f"what is good of the sites now cannot be kept for later: {error}\n"
    return result.compiled, report


def stamp_program(folder: Path = PROGRAM) -> str:
    """Return what is another when the program's files are: a hash of their names, sizes and times."""
    files = sorted((*folder.rglob("*.py"), *folder.glob("*.so")))
    states = [(str(path.relative_to(folder)), state.st_size, state.st_mtime_ns) for path in files for state in (path.stat(),)]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def check_program(request: Request, folder: Path = PROGRAM) -> str:
    """Return why this server must not load code now, "" if it may: what is installed is what it was started with.

    After an upgrade whose restart was refused the server of the version before goes on. New code would write records that its children,
    and plans that it itself, cannot read.
    """
    try:
        if not request.program or stamp_program(folder) == request.program:
            return ""
        found = _VERSION.search((folder / "__init__.py").read_text())
    except OSError as error:
        return f"the program's files cannot be read ({error}): are they being replaced? {_RESTART}"
    installed = found.group(1) if found else "unknown"
    return (f"the program's files were replaced since this server was started: it is version {__version__}, and version {installed} is "
            f"installed. {_RESTART}")


def make_renewer(plan: Plan, numbers: list[int], forced: frozenset[int] = frozenset()) -> Compiler:
    """Return what start_job is to call: it reads the certificates of these identities again, and no configuration.

    forced: those of which no child is left that could go on with what is not on disk any more.
    """
    def renew(request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
        wrong = check_program(request)
        return (None, wrong) if wrong else renew_plan(plan, numbers, forced)

    return renew


def renew_plan(plan: Plan, numbers: list[int], forced: frozenset[int] = frozenset()) -> tuple[Compiled, str]:
    """Return the plan with new records for these identities, and what the operator should know. The tables are not made anew.

    An identity keeps its record, and so its children, if a host of it works and would not with the new one.
    """
    from perchild.config import load  # noqa: PLC0415 - never in the dispatcher

    records: dict[str, bytes] = {}
    said: list[str] = []
    identities = []
    for identity in plan.identities:
        if identity.number not in numbers:
            identities.append(identity)
            continue
        one = load.renew_record_file(f"{plan.run_dir}/records/{identity.record}", identity.keys, may_break=identity.number in forced)
        digest = hashlib.sha256(one.raw).hexdigest()
        name = f"{identity.number}-{digest[:16]}"
        records[name] = one.raw
        said += [f"certificates of {identity.name}{' stay as they are, all of them' if one.is_old else ''}: {words}" for words in one.said]
        identities.append(replace(identity, record=name, digest=digest, tls_files=one.files, tls_held=one.held))
    renewed = replace(plan, identities=tuple(identities), warnings=tuple(said))
    return Compiled(renewed, b"", b"", records), ""


@dataclass(frozen=True, slots=True)
class Job:
    """A running compile. The descriptors are ours until finish_job."""

    pid: int
    pidfd: int
    deadline_s: float
    plan_fd: int
    route_fd: int
    types_fd: int
    text_fd: int
    notes_fd: int
    base: Plan | None
    is_killed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job came to. The caller owns route_fd, types_fd and notes_fd (-1 if refused).

    plan None: refused, and text says why. Else text says which sites were refused without the rest, "" if none.
    """

    plan: Plan | None
    text: str
    route_fd: int = -1
    types_fd: int = -1
    notes_fd: int = -1

    def close(self) -> None:
        """Close what nobody has taken."""
        for fd in (self.route_fd, self.types_fd, self.notes_fd):
            if fd >= 0:
                os.close(fd)


def start_job(sys: Sys, request: Request, known: Mapping[str, int], compiler: Compiler,
              restrict: Callable[[], None]) -> Job:
    """Fork compile, in which `restrict` is called first. Watch the job's pidfd, then call finish_job; kill it at the deadline.

    Raises:
        OSError: there is no descriptor, memory or process left for it.
    """
    names = ("plan", "routes", "types", "text", "notes")
    with contextlib.ExitStack() as made:
        plan_fd, route_fd, types_fd, text_fd, notes_fd = fds = tuple(_make_memfd(name, made) for name in names)
        mask = signals.block_all()
        try:
            pid = sys.fork()
            if pid == 0:
                _be_compile(request, known, compiler, restrict, fds)
        finally:
            signals.restore_mask(mask)
        job = Job(pid, sys.open_pidfd(pid), sys.now_s() + LIMIT_S, plan_fd, route_fd, types_fd, text_fd, notes_fd, request.base)
        made.pop_all()
    return job


def _make_memfd(name: str, made: contextlib.ExitStack) -> int:
    fd = os.memfd_create(f"perchild-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    made.callback(os.close, fd)
    return fd


def finish_job(sys: Sys, job: Job) -> Outcome | None:
    """Reap a job and take what it made; None while it still runs."""
    status = sys.reap(job.pidfd)
    if status is None:
        return None
    os.close(job.pidfd)
    try:
        outcome = _take(job, status)
    finally:
        os.close(job.plan_fd)
        os.close(job.text_fd)
    if outcome.plan is None:
        for fd in (job.route_fd, job.types_fd, job.notes_fd):
            os.close(fd)
    return outcome


def kill_job(sys: Sys, job: Job) -> Job:
    """End a job that took too long; its pidfd becomes readable, by the new deadline or never."""
    sys.signal_pidfd(job.pidfd, 9)
    return replace(job, deadline_s=sys.now_s() + KILLED_S, is_killed=True)


def abandon_job(job: Job) -> str:
    """Let go of a job that was killed and has not ended, and say so: the kernel waits for a file system on its behalf.

    It has nothing that is taken from it any more, and is reaped whenever it ends.
    """
    for fd in (job.pidfd, job.plan_fd, job.route_fd, job.types_fd, job.text_fd, job.notes_fd):
        os.close(fd)
    return (f"compiling the configuration took too long, and its process {job.pid} cannot be ended: a file system that the configuration "
            "or a certificate lies on does not answer; nothing was changed\n")


def _take(job: Job, status: int) -> Outcome:
    for fd in (job.plan_fd, job.route_fd, job.types_fd, job.text_fd, job.notes_fd):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    text = _read_all(job.text_fd, MAX_TEXT_BYTES).decode("utf-8", "backslashreplace")
    if status == EXIT_ERRORS and text:
        return Outcome(None, text)
    if status != 0:
        how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
        return Outcome(None, f"{text}compiling the configuration {how}; nothing was changed\n")
    try:
        plan = decode_plan(_read_all(job.plan_fd, os.fstat(job.plan_fd).st_size), job.base)
    except (ValueError, KeyError, TypeError) as error:
        return Outcome(None, f"{text}compiling the configuration gave no plan ({error}); nothing was changed\n")
    return Outcome(plan, text, job.route_fd, job.types_fd, job.notes_fd)


def _read_all(fd: int, limit_bytes: int) -> bytes:
    return os.pread(fd, limit_bytes, 0)


# ---------------------------------------------------------------- the process itself


def _be_compile(request: Request, known: Mapping[str, int], compiler: Compiler, restrict: Callable[[], None],
                fds: tuple[int, ...]) -> NoReturn:
    plan_fd, route_fd, types_fd, text_fd, notes_fd = fds
    status = EXIT_ERRORS
    try:
        signals.reset_in_child()
        _hurry()
        environment.read_starters()  # its descriptor is closed with the others
        _close_others((*fds, request.notes_fd) if request.notes_fd >= 0 else fds)
        restrict()
        compiled, text = compiler(request, known)
        _write_all(text_fd, text.encode("utf-8", "backslashreplace")[:MAX_TEXT_BYTES])
        if compiled is not None:
            if not request.is_test:
                write_records(compiled.plan.run_dir, compiled.records)
            _write_all(route_fd, compiled.route_table)
            _write_all(types_fd, compiled.types_table)
            _write_all(notes_fd, compiled.notes)
            _write_all(plan_fd, encode_plan(compiled.plan, request.base))
            status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it ends here and is told
        _write_all(text_fd, traceback.format_exc().encode())
    os._exit(status)


def _hurry() -> None:
    """Go before the tenants' processes: a change takes a third of a second of one processor, and somebody waits for it."""
    with contextlib.suppress(OSError):  # without CAP_SYS_NICE it takes as long as its share of a busy machine
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - HURRY)


def _close_others(fds: tuple[int, ...]) -> None:
    first = 3
    for fd in sorted(fds):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _write_all(fd: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(fd, view) :]


def ensure_directory(path: str, mode: int) -> None:
    """Make a directory of ours, or check that the one that is there is ours and nobody else can write to it.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        Path(path).mkdir(mode=mode)
    except FileExistsError:
        state = os.lstat(path)
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
            message = f"{path}: must be a directory of uid {os.geteuid()} that nobody else can write to"
            raise PermissionError(message) from None


def write_records(run_dir: str, records: Mapping[str, bytes]) -> int:
    """Write the records that are not there yet, 0600, each by a temporary name and rename.

    Args:
        run_dir: absolute; made if missing.
        records: file name (which holds the digest, so one that is there is the same) -> bytes.
    Returns:
        How many were written.
    """
    ensure_directory(run_dir, 0o755)
    directory = f"{run_dir}/records"
    ensure_directory(directory, 0o700)
    present = set(os.listdir(directory))
    fresh = [name for name in records if name not in present]
    for name in fresh:
        temporary = f"{directory}/.new.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, records[name])
        finally:
            os.close(fd)
        Path(temporary).rename(f"{directory}/{name}")
    return len(fresh)
