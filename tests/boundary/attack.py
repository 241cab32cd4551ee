"""What a tenant's program may try: each attack by its name, and what it comes to.

Runs as: a tenant, or any other uid: as a CGI program of that tenant (the order is the request's body, the results are the answer's),
or from a command line (the order is the first argument). Nothing but the standard library, for it is copied to where it runs.
An order is {"attacks": [[name, argument...]...], "addresses": {pid: readable address}}; each result is "ok", an errno's name, or
the text that the attack found.
Before: tests/boundary/test_tenants.py, test_attack_suite.py
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
IS_X86 = platform.machine() == "x86_64"
# Name -> number on x86-64, on arm64 (-1: it has none).
CALLS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "ioprio_set": (251, 30),
    "prlimit64": (302, 261), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "clone": (56, 220),
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "unshare": (272, 97),
    "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "reboot": (169, 142),
    "syslog": (103, 116), "swapon": (167, 224), "acct": (163, 89), "fanotify_init": (300, 262), "clock_settime": (227, 112),
    "settimeofday": (164, 170), "sethostname": (170, 161), "iopl": (172, -1), "ioperm": (173, -1), "setuid": (105, 146),
    "semctl": (66, 191),
}
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
IPC_RMID, SETVAL, RENAME_EXCHANGE, X32 = 0, 16, 2, 0x40000000
ADDRESSES: dict[str, int] = {}
HELD = sorted(os.listdir("/proc/self/fd"))  # before anything is opened; the last one is the listing's own


def check(result: int) -> int:
    """Raise what errno says of a result below 0."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def call(name: str | int, *arguments: Any) -> int:
    """Make a system call by its name or number; integers are passed as they are."""
    number = name if isinstance(name, int) else CALLS[name][0 if IS_X86 else 1]
    return check(libc.syscall(ctypes.c_long(number), *[ctypes.c_void_p(one) if isinstance(one, int) else one for one in arguments]))


def in_child(act: Callable[[], Any]) -> str:
    """Do it in a process of its own; "ok", an errno's name, or the signal that it ended by."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
        finally:
            os._exit(255)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        return signal.Signals(-status).name
    return errno.errorcode.get(status, str(status)) if status else "ok"


# ---------------------------------------------------------------- processes


def with_pidfd(pid: int, then: Callable[[int], Any]) -> Any:
    """Do something with a pidfd."""
    fd = os.pidfd_open(pid)
    try:
        return then(fd)
    finally:
        os.close(fd)


def move_memory(pid: int, name: str) -> int:
    """Read or write 8 bytes of another's memory."""
    class Vec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))
    room = ctypes.create_string_buffer(64)
    local, remote = Vec(ctypes.addressof(room), 8), Vec(ADDRESSES.get(str(pid), 4096), 8)
    return call(name, pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


def read_limit(pid: int) -> int:
    """Ask for another's limit of descriptors."""
    room = ctypes.create_string_buffer(16)
    return call("prlimit64", pid, resource.RLIMIT_NOFILE, 0, ctypes.byref(room))


def list_processes() -> str:
    """Return names and pids of every process that /proc shows."""
    found = []
    for name in sorted((one for one in os.listdir("/proc") if one.isdigit()), key=int):
        comm = Path(f"/proc/{name}/comm").read_text().strip()
        found.append(f"{comm} {name}" if int(name) != os.getpid() else "me")
    return ", ".join(found)


def list_tasks_by_number(last: int) -> str:
    """Return every pid up to `last` that takes a signal, without asking /proc."""
    found = []
    for pid in range(2, last):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        if pid != os.getpid():
            found.append(str(pid))
    return " ".join(found)


def kill_everybody() -> None:
    """Signal all that may be signalled; nobody else being there is an ESRCH."""
    os.kill(-1, signal.SIGKILL)


# ---------------------------------------------------------------- files and sockets


def opened(path: str, flags: int = os.O_RDONLY) -> int:
    """Open, and read a little if it is for reading."""
    fd = os.open(path, flags | os.O_NONBLOCK)
    try:
        return len(os.read(fd, 10)) if flags == os.O_RDONLY else 0
    finally:
        os.close(fd)


def replaced(path: str, make: Callable[[str], Any]) -> Any:
    """Make something in place of what there is."""
    if os.path.lexists(path):
        os.unlink(path)
    return make(path)


def listening(path: str) -> None:
    """Leave a Unix socket behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def swapped(one: str, other: str, seconds: float) -> str:
    """Let two names change places again and again; return how often."""
    import time  # noqa: PLC0415 - not needed by the others
    end_s, count = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        for _ in range(100):
            check(libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE))
        count += 100
    return str(count)


def connected(path: str, kind: int) -> None:
    """Connect to a Unix socket."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(path)


def list_reachable() -> str:
    """Return inodes of all Unix sockets that take a connection from here, whatever they are called."""
    reached = []
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) < 8:
            continue
        name = "\0" + fields[7][1:] if fields[7].startswith("@") else fields[7]
        try:
            connected(name, int(fields[4], 16))
        except OSError:
            continue
        reached.append(fields[6])
    return " ".join(reached)


def bound(port: int, reuse: int, address: str = "127.0.0.1") -> None:
    """Bind and listen on a port; reuse: SO_REUSEPORT (15), SO_REUSEADDR (2), or 0."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, reuse, 1)
        sock.bind((address, port))
        sock.listen()


def each_ipc(at: str, act: Callable[[int], Any]) -> str:
    """Do something to every System V object of a kind; return the outcomes, each once."""
    outcomes = set()
    for line in Path(f"/proc/sysvipc/{at}").read_text().splitlines()[1:]:
        number = int(line.split()[1])
        try:
            act(number)
            outcomes.add("ok")
        except OSError as error:
            outcomes.add(errno.errorcode[error.errno])
    return " ".join(sorted(outcomes)) or "none"


# ---------------------------------------------------------------- privileges


def with_flags(flags: int) -> None:
    """clone(2): what the child becomes ends at once."""
    pid = call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def call_i386(number: int, first: int = 0, second: int = 0) -> int:
    """Make a system call by the 32-bit gate, as 32-bit programs do: push rbx; number, first, second into eax, ebx, ecx; int 0x80."""
    code = bytes.fromhex("53 89f8 89f3 89d1 31d2 31f6 31ff cd80 5b c3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
    result = function(ctypes.addressof(ctypes.c_char.from_buffer(page)))(number, first, second)
    if -4096 < result < 0:
        raise OSError(-result, os.strerror(-result))
    return int(result)


def with_flags_i386(flags: int) -> None:
    """clone(2) by the 32-bit gate, where it has the number 120."""
    pid = call_i386(120, flags | signal.SIGCHLD)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def raise_core_limit() -> None:
    """Allow oneself core dumps."""
    limit = (ctypes.c_ulong * 2)(1 << 30, 1 << 30)
    check(libc.setrlimit(resource.RLIMIT_CORE, ctypes.byref(limit)))


def dump(number: int) -> str:
    """End a process by a signal that dumps; return what lies around then."""
    before = set(os.listdir("."))
    pid = os.fork()
    if pid == 0:
        libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(0)
    os.waitpid(pid, 0)
    return " ".join(sorted(set(os.listdir(".")) - before)) or "nothing"


def outcome_of(command: list[str]) -> str:
    """Run a program; return what it printed."""
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()


DOES: dict[str, Callable[..., Any]] = {
    # processes
    "signal": lambda pid: os.kill(pid, 0),
    "terminate": lambda pid: os.kill(pid, signal.SIGTERM),
    "user signal": lambda pid: os.kill(pid, signal.SIGUSR1),
    "child signal": lambda pid: os.kill(pid, signal.SIGCHLD),
    "stop": lambda pid: os.kill(pid, signal.SIGSTOP),
    "kill": lambda pid: os.kill(pid, signal.SIGKILL),
    "kill everybody": kill_everybody,
    "pidfd open": lambda pid: with_pidfd(pid, lambda _: None),
    "pidfd signal": lambda pid: with_pidfd(pid, lambda fd: call("pidfd_send_signal", fd, signal.SIGKILL, 0, 0)),
    "ptrace attach": lambda pid: call("ptrace", PTRACE_ATTACH, pid, 0, 0),
    "ptrace seize": lambda pid: call("ptrace", PTRACE_SEIZE, pid, 0, 0),
    "process_vm_readv": lambda pid: move_memory(pid, "process_vm_readv"),
    "process_vm_writev": lambda pid: move_memory(pid, "process_vm_writev"),
    "pidfd_getfd": lambda pid: with_pidfd(pid, lambda fd: call("pidfd_getfd", fd, 3, 0)),
    "process_madvise": lambda pid: with_pidfd(pid, lambda fd: call("process_madvise", fd, 0, 0, 20, 0)),
    "kcmp": lambda pid: call("kcmp", pid, os.getpid(), 0, 0, 0),
    "prlimit": read_limit,
    "affinity": lambda pid: os.sched_setaffinity(pid, {0}),
    "priority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
    "ioprio": lambda pid: call("ioprio_set", 1, pid, 3 << 13),
    "scheduler": lambda pid: os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0)),
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "nice down": lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
    "list fd": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "open fd": lambda pid: opened(f"/proc/{pid}/fd/2"),
    "list map_files": lambda pid: os.listdir(f"/proc/{pid}/map_files"),
    "mem": lambda pid: opened(f"/proc/{pid}/mem"),
    "mem for writing": lambda pid: opened(f"/proc/{pid}/mem", os.O_WRONLY),
    "maps": lambda pid: opened(f"/proc/{pid}/maps"),
    "environ": lambda pid: opened(f"/proc/{pid}/environ"),
    "auxv": lambda pid: opened(f"/proc/{pid}/auxv"),
    "pagemap": lambda pid: opened(f"/proc/{pid}/pagemap"),
    "cmdline": lambda pid: opened(f"/proc/{pid}/cmdline"),
    "cwd": lambda pid: len(os.readlink(f"/proc/{pid}/cwd")),
    "root": lambda pid: os.listdir(f"/proc/{pid}/root"),
    "exe": lambda pid: len(os.readlink(f"/proc/{pid}/exe")),
    "oom_score_adj": lambda pid: opened(f"/proc/{pid}/oom_score_adj", os.O_WRONLY),
    "processes in /proc": list_processes,
    "processes by number": list_tasks_by_number,
    # files
    "read": opened,
    "write": lambda path: opened(path, os.O_WRONLY),
    "list": os.listdir,
    "remove": os.unlink,
    "rename": lambda path: os.rename(path, path + ".x"),
    "create": lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL)),
    "append": lambda path: opened(path, os.O_WRONLY | os.O_APPEND),
    "chmod": lambda path: os.chmod(path, 0o777),
    "link here": lambda path: os.link(path, "linked"),
    "put symlink": lambda path, to: replaced(path, lambda at: os.symlink(to, at)),
    "put pipe": lambda path: replaced(path, os.mkfifo),
    "put socket": lambda path: replaced(path, listening),
    "put directory": lambda path: replaced(path, os.mkdir),
    "put device": lambda path: replaced(path, lambda at: os.mknod(at, 0o20600, os.makedev(1, 5))),
    "swap": swapped,
    # sockets
    "connect stream": lambda path: connected(path, socket.SOCK_STREAM),
    "connect seqpacket": lambda path: connected(path, socket.SOCK_SEQPACKET),
    "reachable sockets": list_reachable,
    "bind": bound,
    "socket": lambda *wanted: socket.socket(*wanted).close(),
    "remove semaphores": lambda: each_ipc("sem", lambda number: call("semctl", number, 0, IPC_RMID, 0)),
    "set semaphores": lambda: each_ipc("sem", lambda number: call("semctl", number, 0, SETVAL, 0)),
    # privileges
    "setuid": os.setuid,
    "setgid": os.setgid,
    "setresuid": lambda uid: os.setresuid(uid, uid, uid),
    "setresgid": lambda gid: os.setresgid(gid, gid, gid),
    "setgroups": lambda gid: os.setgroups([gid]),
    "held descriptors": lambda: " ".join(HELD[:-1]),
    "run": lambda *command: outcome_of(list(command)),
    "unshare": lambda flags: call("unshare", flags),
    "clone": with_flags,
    "clone by the 32-bit gate": with_flags_i386,
    "call": call,
    "call by the 32-bit gate": call_i386,
    "call in x32": lambda number: in_child(lambda: call(X32 | number, 0)),
    # leaks
    "variables": lambda: json.dumps(dict(os.environ)),
    "arguments": lambda: json.dumps(sys.argv),
    "raise core limit": raise_core_limit,
    "dump core": dump,
}


def attempt(name: str, *arguments: Any) -> str:
    """Make one attack; return what it came to."""
    try:
        result = DOES[name](*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return result if isinstance(result, str) else "ok"


def main() -> None:
    """Do what the order says."""
    is_cgi = "GATEWAY_INTERFACE" in os.environ
    order = json.load(sys.stdin) if is_cgi else json.loads(sys.argv[1])
    ADDRESSES.update(order.get("addresses", {}))
    results = [attempt(*one) for one in order["attacks"]]
    if is_cgi:
        print("Content-Type: application/json\n")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
