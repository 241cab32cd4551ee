"""What the kernel says of live processes: ids, descriptors and what each of them is, pages, memory; and attacks on them.

Everything here asks as root, from outside: no process under test helps. Descriptors are duplicated by pidfd_getfd(2),
which is also how a test gets what a taken-over process would have.
Runs as: root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perchild import limits, roles
from perchild.wire import page as wire_page
from tests.lab import Lab, comm_of, wait_until

SYS_PIDFD_GETFD = 438
SO_ACCEPTCONN, SO_DOMAIN, SO_PROTOCOL = 30, 39, 38
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, UDIAG_SHOW_PEER, UNIX_DIAG_PEER = 4, 20, 4, 2
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

_WAITS = "restart_syscall,epoll_wait,epoll_pwait,epoll_pwait2,futex,poll,ppoll,recvmsg,clock_nanosleep"
_FOR_A_MOMENT = re.compile(r"/proc/\d+/smaps_rollup")  # roles.USAGE

_RECVFROM = {"45", "207"}  # of amd64, arm64

_libc = ctypes.CDLL(None, use_errno=True)


# ---------------------------------------------------------------- one process

def read_status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status as name -> value."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process stands still after SIGSTOP."""
    states = [Path(f"/proc/{pid}/task/{one}/stat").read_text().rpartition(")")[2].split()[0] for one in os.listdir(f"/proc/{pid}/task")]
    return set(states) == {"T"}


def stand_still(*pids: int) -> bool:
    """Stop processes; whether all of them stand still by now: a stop is heard when a process next comes out of the kernel."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return all(map(is_stopped, pids))


def has_ready_children(lab: Lab) -> bool:
    """Whether every child of the server has said READY: until then it still opens, maps and closes what it begins with."""
    states = [child["state"] for one in lab.status()["identities"] for child in one["children"]]
    return set(states) == {"ready"}


def is_receiving(pid: int) -> bool:
    """Whether a process's first thread waits in recvfrom(2)."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in _RECVFROM


def watched_events(pid: int) -> dict[str, int]:
    """Return the epoll events that a process waits for: what the descriptor is (as /proc/PID/fd shows) -> EPOLL* bits."""
    fds = descriptors(pid)
    found = {}
    for number, target in fds.items():
        if target == "anon_inode:[eventpoll]":
            text = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
            found |= {fds.get(int(fd), ""): int(events, 16) for fd, events in re.findall(r"^tfd:\s+(\d+) events:\s+(\w+)", text, re.MULTILINE)}
    return found


def descriptors(pid: int) -> dict[int, str]:
    """Return a process's open descriptors: number -> what /proc/PID/fd shows."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def lasting_descriptors(pid: int) -> dict[int, str]:
    """Return descriptors() without what a child opens for a moment whenever it is time to, beside all that a test makes it do."""
    return {number: target for number, target in descriptors(pid).items() if not _FOR_A_MOMENT.fullmatch(target)}


def wait_for_descriptors(pid: int, wanted: dict[int, str], timeout_s: float = 30) -> None:
    """Wait until a process has these lasting descriptors again; fail with those that are too many or too few."""
    try:
        wait_until(lambda: lasting_descriptors(pid) == wanted, f"{comm_of(pid)} has the descriptors that it had before", timeout_s)
    except AssertionError as error:
        found = lasting_descriptors(pid)
        differences = [f"{number}: {wanted.get(number, 'none')} before, {found.get(number, 'none')} now"
                       for number in sorted(wanted.keys() | found.keys()) if wanted.get(number) != found.get(number)]
        message = f"{error}: {differences}"
        raise AssertionError(message) from None


@contextlib.contextmanager
def traced(pid: int, trace: Path, calls: str, *options: str, has_forks: bool = True) -> Iterator[Path]:
    """Have strace write a process's calls, of all its threads, to `trace`; calls: their names with commas.

    It begins when a call of each thread is there, one in which threads wait: that strace is their tracer, and says so, comes before it
    sees what they do. has_forks: what the process forks is traced like itself; without, it must have one thread.
    """
    command = ["strace", *(["-f"] if has_forks else []), "-qq", "-p", str(pid), "-o", str(trace), "-e", f"trace={calls},{_WAITS}", *options]

    def is_seen(task: str) -> bool:
        text = trace.read_text() if trace.exists() else ""
        return task in re.findall(r"^(\d+) ", text, re.MULTILINE) if has_forks else bool(text)

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        try:
            wait_until(lambda: all(map(is_seen, os.listdir(f"/proc/{pid}/task"))), "every thread is traced")
            yield trace
        finally:
            tracer.terminate()


def whole_calls(trace: Path) -> str:
    """Return what traced() wrote, each call that is over on one line: strace splits it where another thread's comes between its ends."""
    begun: dict[str, str] = {}  # task: its call so far
    whole = []
    for line in trace.read_text().splitlines():
        task, _, rest = line.partition(" ")
        rest = rest.lstrip()
        if rest.endswith("<unfinished ...>"):
            begun[task] = rest.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", rest)
        whole.append(f"{task} {begun.pop(task, '')}{rest[resumed.end():]}" if resumed else f"{task} {rest}")
    return "\n".join(whole)


def take_fd(pid: int, fd: int) -> int:
    """Return a duplicate of another process's descriptor (pidfd_getfd); the caller closes it."""
    pidfd = os.pidfd_open(pid)
    try:
        got = _libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
        if got < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return int(got)
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def borrowed(pid: int, fd: int) -> Iterator[socket.socket]:
    """A duplicate of another process's socket, closed at the end."""
    with socket.socket(fileno=take_fd(pid, fd)) as sock:
        yield sock


def inode_of(target: str) -> int:
    """Return the inode of "socket:[N]"."""
    return int(target.partition("[")[2].rstrip("]"))


# ---------------------------------------------------------------- what a descriptor is


@dataclass(frozen=True, slots=True)
class Fd:
    """One open descriptor: its number, its kind (perchild/roles.py), what /proc shows, the socket's inode (0 = none)."""

    number: int
    kind: str
    target: str
    inode: int = 0


_ANONYMOUS = {
    "/dev/null": roles.NULL, "anon_inode:[eventpoll]": roles.EPOLL, "anon_inode:[eventfd]": roles.EVENTFD,
    "anon_inode:[signalfd]": roles.SIGNALFD, "anon_inode:[pidfd]": roles.PIDFD,
    "/memfd:perchild-page (deleted)": roles.PAGE, "/memfd:perchild-routes (deleted)": roles.ROUTE,
    "/memfd:perchild-types (deleted)": roles.TYPES, "/memfd:perchild-tickets (deleted)": roles.TICKETS, "/memfd:perchild-plan (deleted)": roles.PLAN,
    "/memfd:perchild-text (deleted)": roles.PLAN, "/memfd:perchild-notes (deleted)": roles.NOTES, "/memfd:perchild-environ (deleted)": roles.ENVIRON,
    "/memfd:perchild-board (deleted)": roles.BOARD,
}


def look_at_fds(lab: Lab, pid: int) -> list[Fd]:
    """Return what each descriptor of one of the lab's processes is."""
    reads, found = read_ends(lab), []
    for number, target in sorted(descriptors(pid).items()):
        with closed_meanwhile():
            inode = inode_of(target) if target.startswith("socket:") else 0
            found.append(Fd(number, _kind_of(lab, pid, number, target, reads), target, inode))
    return found


@contextlib.contextmanager
def closed_meanwhile() -> Iterator[None]:
    """Go on when a descriptor that was listed is no longer there."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EBADF, errno.ENOTSOCK}:  # closed, or its number is another file's by now
            raise


def read_ends(lab: Lab) -> dict[int, str]:
    """Return the inodes and kinds of the read ends of all inboxes and job boxes: where the dispatcher's write ends lead to."""
    other = peers()
    found = {}
    for number, target in descriptors(lab.pid).items():
        if target.startswith("socket:") and inode_of(target) in other:
            with closed_meanwhile(), borrowed(lab.pid, number) as sock:
                if sock.type == socket.SOCK_SEQPACKET and is_write_end(sock):
                    is_box = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > limits.value("INBOX_SNDBUF_BYTES")
                    found[other[inode_of(target)]] = roles.JOB if is_box else roles.INBOX
    return found


def _kind_of(lab: Lab, pid: int, number: int, target: str, reads: dict[int, str]) -> str:
    if target in _ANONYMOUS:
        return _ANONYMOUS[target]
    if target.startswith("socket:"):
        with borrowed(pid, number) as sock:
            return reads.get(inode_of(target)) or _kind_of_socket(sock)
    return _kind_of_file(lab, number, target)


def _kind_of_socket(sock: socket.socket) -> str:
    domain, kind = sock.getsockopt(socket.SOL_SOCKET, SO_DOMAIN), sock.type
    if domain in {socket.AF_INET, socket.AF_INET6}:
        return roles.LISTENER if sock.getsockopt(socket.SOL_SOCKET, SO_ACCEPTCONN) else roles.CONNECTION
    if (domain, kind) == (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        if not is_write_end(sock):
            return roles.CONTROL
        is_box = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > limits.value("INBOX_SNDBUF_BYTES")
        return roles.JOB_WRITE if is_box else roles.INBOX_WRITE
    if (domain, kind) == (socket.AF_UNIX, socket.SOCK_DGRAM):
        return roles.NOTIFY
    if (domain, kind) == (socket.AF_UNIX, socket.SOCK_STREAM):
        return roles.CONTROL_SOCKET if sock.getsockname() else roles.SIGNALS
    return f"socket of domain {domain}, type {kind}"


def is_write_end(sock: socket.socket) -> bool:
    """Whether this is an inbox's write end: nothing can be received from it."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return bool(poller.poll(0))


def _kind_of_file(lab: Lab, number: int, target: str) -> str:
    if target.startswith(f"{lab.log}/"):
        return roles.ERROR_LOG if number == 2 and target == str(lab.log / "error.log") else roles.LOG
    if _FOR_A_MOMENT.fullmatch(target):
        return roles.USAGE
    if target == f"{lab.run}/records":
        return roles.RECORDS
    if target.startswith(f"{lab.run}/records/"):
        return roles.RECORD
    if any(target == str(root) or target.startswith(f"{root}/")
           for root in (lab.main_root, *(tenant.docroot for tenant in lab.tenants.values()))):
        return roles.DOCUMENT
    return f"unknown: {target}"


# ---------------------------------------------------------------- which socket is whose other end


def peers() -> dict[int, int]:
    """Return inode -> inode of the other end, of every Unix socket (sock_diag(7))."""
    request = struct.pack("<BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, UDIAG_SHOW_PEER, 0, 0)
    header = struct.pack("<IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, 0x301, 1, 0)
    found: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.send(header + request)
        while True:
            raw = sock.recv(1 << 18)
            while raw:
                length, kind = struct.unpack_from("<IH", raw)
                if kind != SOCK_DIAG_BY_FAMILY:
                    return found
                inode, peer = _read_diag(raw[16:length])
                found[inode] = peer
                raw = raw[(length + 3) & ~3:]


def _read_diag(raw: bytes) -> tuple[int, int]:
    inode = struct.unpack_from("<I", raw, 4)[0]
    at, peer = 16, 0
    while at + 4 <= len(raw):
        size, kind = struct.unpack_from("<HH", raw, at)
        if kind == UNIX_DIAG_PEER:
            peer = struct.unpack_from("<I", raw, at + 4)[0]
        at += max(4, (size + 3) & ~3)
    return inode, peer


def inbox_of(lab: Lab, pid: int) -> int:
    """Return the dispatcher's descriptor number of the write end of a child's inbox."""
    read_end = next(fd for fd in look_at_fds(lab, pid) if fd.kind == roles.INBOX)
    write_inode = peers()[read_end.inode]
    return next(number for number, target in descriptors(lab.pid).items() if target == f"socket:[{write_inode}]")


def dispatcher_listener(lab: Lab) -> int:
    """Return the dispatcher's descriptor number of its first listener."""
    return next(fd.number for fd in look_at_fds(lab, lab.pid) if fd.kind == roles.LISTENER)


# ---------------------------------------------------------------- pages


def read_page(lab: Lab, pid: int) -> wire_page.Page:
    """Return a child's page, read through the dispatcher's descriptor of it."""
    fd = open_page(lab, pid)
    try:
        return wire_page.decode_page(os.pread(fd, wire_page.PAGE_BYTES, 0))
    finally:
        os.close(fd)


def open_page(lab: Lab, pid: int) -> int:
    """Return a duplicate of the dispatcher's descriptor of a child's page; the caller closes it. A child that has just become itself maps it soon."""
    inode = wait_until(lambda: _inode_of_page(pid), "the child has mapped its page")
    for number, target in descriptors(lab.pid).items():
        if "perchild-page" in target and os.stat(f"/proc/{lab.pid}/fd/{number}").st_ino == inode:
            return take_fd(lab.pid, number)
    message = f"the dispatcher holds no page of {pid}"
    raise LookupError(message)


def _inode_of_page(pid: int) -> int:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next((int(line.split()[4]) for line in maps if "memfd:perchild-page" in line), 0)


def counter(lab: Lab, pid: int, name: str) -> int:
    """Return one counter of a child's page."""
    return read_page(lab, pid).counters[name]


# ---------------------------------------------------------------- memory


def count_in_memory(pid: int, needle: bytes) -> int:
    """Return how often bytes occur in a process's readable memory, all mappings."""
    hits, overlap = 0, len(needle) - 1
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for first, last in readable_mappings(pid):
            tail, at = b"", first
            while at < last:
                chunk = _read_memory(memory.fileno(), at, min(last - at, 1 << 22))
                if not chunk:
                    break
                hits += (tail + chunk).count(needle)
                tail, at = chunk[-overlap:] if overlap else b"", at + len(chunk)
    return hits


def _read_memory(fd: int, at: int, length: int) -> bytes:
    try:
        return os.pread(fd, length, at)
    except OSError:  # [vvar] and the like
        return b""


def readable_mappings(pid: int) -> list[tuple[int, int]]:
    """Return the readable mappings of a process as (first, last + 1)."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *rest = line.split(maxsplit=5)
        first, last = (int(one, 16) for one in span.split("-"))
        if rights[0] == "r" and not (rest and rest[-1].strip() in {"[vvar]", "[vsyscall]", "[vvar_vclock]"}):
            found.append((first, last))
    return found
