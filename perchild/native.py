"""The only importer of the C extension: typed calls, one translator of error codes.

Runs as: dispatcher (build_seccomp, the accept locks), compile (restrict_to_read_search), child (everything else).
Source: native/pc.h, native/child.h, nursery.h, runner.h and runexec.h are the contracts.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Any

from perchild import _native
from perchild.wire.child import ChildSpec, ForkLostError, RunnerSpec

_lib: Any = _native.lib
_ffi: Any = _native.ffi

WORK_ASK, WORK_LEAVE = 0, 1
MAIN_END, MAIN_PYTHON = 0, 1
ASK_HOSTNAME, ASK_POLICY, ASK_HANDLER = 1, 2, 3
MUTEX_KINDS = {"default": 0, "flock": 1, "fcntl": 2, "pthread": 3, "sysvsem": 4}
MAX_NAME_BYTES = 63
RESERVED_FDS = 128  # of RLIMIT_NOFILE: for files, logs and the child's own descriptors

_E_CLOSED, _E_SYS = 12, 16
_ERRORS = {
    1: "malformed", 2: "request line too long", 3: "head too large", 4: "unknown HTTP version", 5: "not implemented",
    6: "body too large", 7: "expectation", 8: "not found", 9: "forbidden", 10: "range", 11: "try again", 12: "closed",
    13: "a hand-off breaks the rules", 14: "a record or table that this version did not write", 15: "out of memory",
    16: "a system call failed",
}


class NativeError(OSError):
    """A call into the extension failed; `code` is its PC_E_* number."""

    def __init__(self, what: str, code: int) -> None:
        """Say what failed and why."""
        reason = _ERRORS.get(code, f"error {code}")
        if code == _E_SYS:
            reason += f": {os.strerror(_ffi.errno)}"
        super().__init__(f"{what}: {reason}")
        self.code = code


def _check(result: int, what: str) -> None:
    if result < 0:
        raise NativeError(what, -result)


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A compiled filter: address of struct sock_filter[count], for the process's life."""

    bpf: Any
    count: int


def build_seccomp() -> Seccomp:
    """Compile the children's system call filter. Runs as: dispatcher, once."""
    bpf, count = _ffi.new("void **"), _ffi.new("size_t *")
    _check(_lib.pc_seccomp_build_child(bpf, count), "seccomp filter")
    return Seccomp(bpf[0], count[0])


def build_runner_seccomp() -> Seccomp:
    """Compile the filter of runners and of what they execute. Runs as: dispatcher, once."""
    bpf, count = _ffi.new("void **"), _ffi.new("size_t *")
    _check(_lib.pc_seccomp_build_runner(bpf, count), "seccomp filter of runners")
    return Seccomp(bpf[0], count[0])


@dataclass(frozen=True, slots=True)
class Prepared:
    """A child's arguments in C, made before the fork: what Python touches behind it becomes memory of that child alone."""

    drop: Any
    options: Any
    kept: tuple[Any, ...]  # arrays the two point to


def prepare_child(spec: ChildSpec, seccomp: Seccomp | None) -> None:
    """Fill spec.prepared. Runs as: dispatcher, before the fork."""
    keep = spec.descriptors()
    groups, fds = _ffi.new("uint32_t[]", list(spec.groups) or [0]), _ffi.new("int[]", list(keep) or [-1])
    drop = _ffi.new("struct pc_drop *")
    drop.uid, drop.gid, drop.groups, drop.group_count = spec.uid, spec.gid, groups, len(spec.groups)
    drop.keep_fds, drop.keep_count = fds, len(keep)
    drop.parent_pid, drop.nofile, drop.is_privileged = spec.parent_pid, spec.nofile, spec.is_privileged
    drop.seccomp_bpf, drop.seccomp_count = (seccomp.bpf, seccomp.count) if seccomp else (_ffi.NULL, 0)
    options, arrays = _make_options(spec)
    spec.prepared = Prepared(drop, options, (groups, fds, *arrays))


def _make_options(spec: ChildSpec) -> tuple[Any, tuple[Any, ...]]:
    options = _ffi.new("struct pc_child_options *")
    listeners = _ffi.new("int[]", list(spec.listener_fds) or [-1])
    numbers = _ffi.new("uint32_t[]", list(spec.inbox_write_fds) or [0])
    inboxes = _ffi.new("int[]", list(spec.inbox_write_fds.values()) or [-1])
    logs = _ffi.new("int[]", list(spec.log_fds) or [-1])
    keys = _ffi.new("int[]", list(spec.key_fds) or [-1])
    options.control_fd, options.inbox_fd, options.record_fd = spec.control_fd, spec.inbox_fd, spec.record_fd
    options.types_fd, options.page_fd, options.route_fd = spec.types_fd, spec.page_fd, spec.route_fd
    options.listener_fds, options.listener_count = listeners, len(spec.listener_fds)
    options.inbox_numbers, options.inbox_fds, options.inbox_count = numbers, inboxes, len(spec.inbox_write_fds)
    options.log_fds, options.log_count = logs, len(spec.log_fds)
    options.key_fds, options.key_count, options.ticket_fd = keys, len(spec.key_fds), spec.ticket_fd
    options.takes_any_key = spec.takes_any_key
    options.max_open = max(16, spec.nofile - RESERVED_FDS - len(spec.descriptors()))
    options.mutex_kind = MUTEX_KINDS[spec.accept_mutex]
    options.mutex_fd, options.mutex_id, options.job_fd = spec.mutex_fd, spec.mutex_id, spec.job_fd
    options.may_scale_leaders = (os.cpu_count() or 1) > 1 and not spec.has_one_worker
    options.thread_stack_bytes = spec.thread_stack_bytes
    options.has_one_worker, options.generation = spec.has_one_worker, spec.generation
    options.name = spec.name.encode()[:MAX_NAME_BYTES]
    return options, (listeners, numbers, inboxes, logs, keys)


def fork_child(spec: ChildSpec) -> int:
    """Fork the child that prepare_child was called for; it drops its privileges and serves, in C.

    Returns:
        In the dispatcher the child's pid. In the child 0, and only once it needs Python: `Child(spec)` is then its C part.
    Raises:
        NativeError: it could not be forked.
    """
    prepared = spec.prepared
    if not isinstance(prepared, Prepared):
        raise TypeError("prepare_child comes first")
    pid = _ask_nursery(prepared) if not spec.listener_fds else -1
    if pid > 0:
        return pid
    child = _ffi.new("struct pc_child **")
    pid = int(_lib.pc_spawn(prepared.drop, prepared.options, child))
    _check(pid, "fork")
    if pid == 0:
        _here.append(child[0])
    return pid


def start_nursery() -> int:
    """Start the process that tenants' children are forked from: before there is a plan, and before the signal handlers.

    Returns:
        In the dispatcher its pid. In a tenant's child 0, once it needs Python, as fork_child does; and 0 in a runner.
    """
    fd, child = _ffi.new("int *"), _ffi.new("struct pc_child **")
    pid = int(_lib.pc_nursery_start(fd, child))
    _check(pid, "nursery")
    if pid == 0:
        _here.append(child[0])
    else:
        _nursery.append((pid, fd[0]))
    return pid


def _ask_nursery(prepared: Prepared) -> int:
    """Return the pid of a child that the nursery forked, or -1: fork it here.

    Raises:
        ForkLostError: it did not answer. It is no longer asked; if it lives, the caller kills it.
    """
    return _ask(_lib.pc_nursery_spawn, prepared.drop, prepared.options)


def _ask(spawn: Any, drop: Any, options: Any) -> int:  # noqa: ANN401 - cdata has no type
    if not _nursery:
        return -1
    pid, fd = _nursery[0]
    result = int(spawn(fd, drop, options))
    if result == -_E_CLOSED:
        _nursery.clear()
        os.close(fd)
        raise ForkLostError(f"the nursery (pid {pid}) is gone or did not answer in time")
    return result


def nursery_pid() -> int:
    """Return the pid of the nursery that is asked; 0 = there is none."""
    return _nursery[0][0] if _nursery else 0


def forget_nursery() -> None:
    """Close what leads to a nursery that has ended, and was reaped. Runs as: dispatcher."""
    for _pid, fd in _nursery:
        os.close(fd)
    _nursery.clear()


def fork_runner(spec: RunnerSpec, seccomp: Seccomp | None) -> int:
    """Fork a runner, from the nursery if there is one; it drops its privileges.

    Returns:
        In the dispatcher its pid. In the runner 0: runner_here() is what it holds.
    Raises:
        NativeError: it could not be forked.
        ForkLostError: the nursery did not answer, as with _ask_nursery.
    """
    keep = (spec.box_fd, spec.file_fd, spec.parent_fd)
    groups, fds = _ffi.new("uint32_t[]", list(spec.groups) or [0]), _ffi.new("int[]", keep)
    drop, options = _ffi.new("struct pc_drop *"), _ffi.new("struct pc_runner_options *")
    drop.uid, drop.gid, drop.groups, drop.group_count = spec.uid, spec.gid, groups, len(spec.groups)
    drop.keep_fds, drop.keep_count, drop.parent_pid = fds, len(keep), os.getpid()
    drop.nofile, drop.is_privileged, drop.is_runner, drop.may_gain = spec.nofile, spec.is_privileged, True, spec.may_gain
    drop.seccomp_bpf, drop.seccomp_count = (seccomp.bpf, seccomp.count) if seccomp else (_ffi.NULL, 0)
    options.box_fd, options.file_fd, options.parent_fd = keep
    drop.parent_fd, options.name = spec.parent_fd, spec.name.encode()[:MAX_NAME_BYTES]
    pid = _ask(_lib.pc_nursery_spawn_runner, drop, options)
    if pid < 0:
        pid = int(_lib.pc_runner_spawn(drop, options))
    _check(pid, "fork of a runner")
    return pid


@dataclass(frozen=True, slots=True)
class RunnerHere:
    """What the runner that this process is holds. is_apart: it is PID 1 of a namespace of its own."""

    box_fd: int
    file_fd: int
    is_apart: bool


def runner_here() -> RunnerHere | None:
    """Return what this process holds if it is a runner."""
    box, file, is_apart = _ffi.new("int *"), _ffi.new("int *"), _ffi.new("bool *")
    return RunnerHere(box[0], file[0], bool(is_apart[0])) if _lib.pc_runner_here(box, file, is_apart) else None


def watch_runner_signals() -> int:
    """Return a signalfd of TERM, USR1 and CHLD, which are blocked from now on. Runs as: runner."""
    fd = int(_lib.pc_runner_signals())
    _check(fd, "signals of a runner")
    return fd


@dataclass(frozen=True, slots=True)
class Program:
    """What is executed: struct pc_exec_wish in native/runexec.h. limits: (soft, hard) or None of CPU s, bytes, processes."""

    path: bytes
    cwd: bytes
    roots: tuple[bytes, ...]
    arguments: tuple[bytes, ...]
    environment: tuple[bytes, ...]
    search_path: bytes
    uid: int
    gid: int
    fds: tuple[int, int, int]
    limits: tuple[tuple[int, int] | None, ...] = (None, None, None)
    nice: int = 0
    listen_fd: int = -1
    config_fd: int = 0
    is_service: bool = False
    has_own_env: bool = False


class RefusedError(Exception):
    """A program is not executed; the reason was written to its standard error. `number` is an enum pc_exec_refusal."""

    def __init__(self, number: int, error: int) -> None:
        """Name the reason, with the system's if there is one."""
        reason = _text(_lib.pc_exec_reason(number))
        super().__init__(f"{reason}: {os.strerror(error)}" if error else reason)
        self.number, self.error = number, error


def start_program(program: Program) -> int:
    """Execute a program in a process group of its own; return its pid, which is the group's. Runs as: runner.

    Raises:
        RefusedError: a check failed, or the system refuses.
    """
    wish = _ffi.new("struct pc_exec_wish *")
    blocks = [_ffi.from_buffer(b"".join(one + b"\0" for one in strings) or b"\0")
              for strings in (program.roots, program.arguments, program.environment)]
    wish.roots, wish.args, wish.env = blocks
    wish.roots_len, wish.args_len, wish.env_len = (
        len(block) if strings else 0
        for block, strings in zip(blocks, (program.roots, program.arguments, program.environment), strict=True))
    texts = [_ffi.from_buffer(text + b"\0") for text in (program.path, program.cwd, program.search_path)]
    wish.path, wish.cwd, wish.search_path = texts
    wish.uid, wish.gid, wish.fds = program.uid, program.gid, program.fds
    wish.listen_fd, wish.config_fd = program.listen_fd, program.config_fd
    for index, pair in enumerate(program.limits):
        if pair is not None:
            wish.limits[index].is_set = True
            wish.limits[index].soft, wish.limits[index].hard = (number if number >= 0 else _NO_LIMIT for number in pair)
    wish.nice, wish.is_service, wish.has_own_env = program.nice, program.is_service, program.has_own_env
    pid = int(_lib.pc_exec_start(wish))
    if pid < 0:
        raise RefusedError(-pid, _ffi.errno)
    return pid


_NO_LIMIT = 2**64 - 1  # RLIM_INFINITY


def end_nursery() -> None:
    """End it, and wait for it. Runs as: dispatcher, at the end."""
    for pid, fd in _nursery:
        os.close(fd)
        os.kill(pid, signal.SIGKILL)  # it may stand still; not reaped yet, so it is ours
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    _nursery.clear()


_nursery: list[tuple[int, int]] = []  # pid and descriptor; one at most
_here: list[Any] = []  # the C part of the child that this process is; one at most


def restrict_to_read_search() -> None:
    """Keep CAP_DAC_READ_SEARCH alone, for good, and lose the network. Runs as: root, in the compile process."""
    _check(_lib.pc_restrict_to_read_search(), "giving up capabilities")


def init_accept_mutex(fd: int) -> None:
    """Put the pthread mutex of AcceptMutex into a fresh memfd. Runs as: dispatcher."""
    _check(_lib.pc_acceptlock_init_shared(fd), "AcceptMutex pthread")


def make_accept_semaphore(uid: int, gid: int) -> int:
    """Return the id of a System V semaphore that `uid` may use. Runs as: dispatcher."""
    result = int(_lib.pc_acceptlock_new_semaphore(uid, gid))
    _check(result, "AcceptMutex sysvsem")
    return result


def remove_accept_semaphore(semaphore_id: int) -> None:
    """Remove it; NativeError if it is gone. Runs as: dispatcher."""
    _check(_lib.pc_acceptlock_remove_semaphore(semaphore_id), "AcceptMutex sysvsem")


def rotate_tickets(before_fd: int, fd: int) -> None:
    """Put a new key of session tickets, and the newer ones of before_fd (-1 = none), into an empty memfd. Runs as: dispatcher."""
    _check(_lib.pc_tickets_rotate(before_fd, fd), "ticket keys")


@dataclass(frozen=True, slots=True)
class CertFacts:
    """What is known of a certificate. problem: enum pc_cert_problem, 0 = it can be used; times in s since 1970; words: OpenSSL's."""

    problem: int
    kind: int
    bits: int
    chain_count: int
    not_before_s: int
    not_after_s: int
    words: str


def check_certificate(pem: bytes, key_fd: int) -> CertFacts:
    """Look at a certificate with its chain, and the key in an open file (-1 = there is none). Runs as: compile."""
    facts = _ffi.new("struct pc_cert_facts *")
    _lib.pc_cert_check(pem, len(pem), key_fd, facts)
    return CertFacts(facts.problem, facts.kind, facts.bits, facts.chain_count, facts.not_before_s, facts.not_after_s, _text(facts.words))


def check_certificate_list(pem: bytes) -> str | None:
    """Return what is wrong with certificates or revocation lists, None if all can be read. Runs as: compile."""
    words = _ffi.new("char[128]")
    is_whole = _lib.pc_cert_check_list(pem, len(pem), words) == 0
    return None if is_whole else _text(words)


def check_tls_command(name: str, value: str) -> str | None:
    """Return what is wrong with a command of SSL_CONF_cmd(3), None if nothing. Runs as: compile."""
    words = _ffi.new("char[128]")
    is_taken = _lib.pc_cert_check_command(_to_c(name), _to_c(value), words) == 0
    return None if is_taken else _text(words)


def _to_c(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Question:
    """A request that Python decides: what is asked (ASK_*), and what is known of the request."""

    kind: int
    slot: int
    slot_value: int
    is_handed: bool
    method: str
    path: str
    query: str
    host: str
    handler: str
    client: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers of a child: its record's scale, and what it has now."""

    start_threads: int
    min_spare: int
    max_spare: int
    max_threads: int
    max_connections: int
    idle_s: int
    threads: int
    python_threads: int
    busy: int
    ask_count: int
    open_count: int
    generation: int
    thread_stack_bytes: int
    name: str


def _text(raw: Any) -> str:  # noqa: ANN401 - cdata has no type
    return str(_ffi.string(raw).decode("utf-8", "surrogateescape"))


class Child:
    """One child's C part. Every method may be called from any thread unless it says otherwise."""

    def __init__(self) -> None:
        """Speak for the child that this process is."""
        self._child = _here[0]

    def main(self) -> int:
        """Be the main thread until Python is needed (MAIN_PYTHON) or the child shall end (MAIN_END). Main thread only."""
        return int(_lib.pc_child_main(self._child))

    def finish(self) -> None:
        """Send every worker home and write what the logs hold. Main thread only."""
        _lib.pc_child_finish(self._child)

    def stop(self) -> None:
        """Send every worker home, without waiting."""
        _lib.pc_child_stop(self._child)

    def facts(self) -> Facts:
        """Return the child's numbers."""
        raw = _ffi.new("struct pc_child_facts *")
        _lib.pc_child_facts(self._child, raw)
        numbers = {name: getattr(raw, name) for name in Facts.__slots__ if name != "name"}
        return Facts(**numbers, name=_text(raw.name))

    def ask_board(self, timeout_s: float) -> int:
        """Return a board (wire/board.py) of what this child may see; the caller closes it. Not in the main thread, one at a time.

        Raises:
            NativeError: none came in time.
        """
        fd = int(_lib.pc_child_ask_board(self._child, int(timeout_s * 1000)))
        _check(fd, "the dispatcher gave no board")
        return fd

    def start_worker(self) -> int:
        """Take a slot for a thread of the interpreter, before it first runs; return the slot."""
        slot = int(_lib.pc_worker_start(self._child, True))
        _check(slot, "worker")
        return slot

    def run_worker(self, slot: int) -> int:
        """Serve until Python is asked (WORK_ASK) or the thread shall end (WORK_LEAVE). Without the interpreter's lock."""
        return int(_lib.pc_worker_run(self._child, slot))

    def end_worker(self, slot: int) -> None:
        """Give the slot back."""
        _lib.pc_worker_end(self._child, slot)

    def question(self, slot: int) -> Question:
        """Return what the worker in `slot` asks."""
        raw = _ffi.new("struct pc_question *")
        _check(_lib.pc_ask_question(self._child, slot, raw), "question")
        return Question(raw.kind, raw.slot, raw.slot_value, bool(raw.is_handed), _text(raw.method), _text(raw.path),
                        _text(raw.query), _text(raw.host), _text(raw.handler), _text(raw.client))

    def answer_name(self, slot: int, name: str) -> None:
        """Answer ASK_HOSTNAME: the client's confirmed host name, or empty."""
        _lib.pc_ask_answer_name(self._child, slot, name.encode("ascii", "replace"))

    def answer(self, slot: int, status: int, content_type: str, body: bytes) -> None:
        """Answer ASK_HANDLER (a whole response) or ASK_POLICY (0 = go on, else an error's status)."""
        _lib.pc_ask_answer(self._child, slot, status, content_type.encode(), body, len(body))
