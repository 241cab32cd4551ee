"""The tenant attack suite: what a program of alice's tries in a real server, each attempt with the outcome that it must have.

The attempts are attack.py's, executed as CGI programs of hers by her runner; bob is the neighbour who must not notice. Tables name
each attempt; a test fails with the rows that came to something else.
Runs as: root, which starts the server; the attacks run as alice.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.boundary import procs
from tests.boundary.test_tenants import ON_HER_OWN
from tests.lab import Lab, Tenant, comm_of, is_alive, tree_of, uid_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

ATTACK = Path(__file__).with_name("attack.py")
IS_X86 = platform.machine() == "x86_64"
MEGABYTE = 1 << 20
TIMEOUT_S = 3  # alice's: programs that do nothing are ended then
MAX_PROCESSES, MAX_MEMORY = 100, 512 * MEGABYTE
LEAVERS = 300
STARTERS = {"PERCHILD_SECRET": "operator", "LD_LIBRARY_PATH": "/operator", "PYTHONPATH": str(Path(__file__).parents[2])}

HOST = """
ScriptAlias /cgi-bin/ {home}/cgi-bin/
<Directory {home}/cgi-bin>
Require all granted
</Directory>
<Directory {home}/public/owned>
Options SymLinksIfOwnerMatch
</Directory>
SetEnv APP_SETTING kept
SetEnv LD_PRELOAD /evil.so
SetEnv GATEWAY_INTERFACE forged
"""
LIMITS = f"Timeout {TIMEOUT_S}\nRLimitNPROC {MAX_PROCESSES} {MAX_PROCESSES}\nRLimitMEM {MAX_MEMORY} {MAX_MEMORY}\n"

PROGRAMS = {
    "attack": "#!/usr/bin/python3 -I\n" + ATTACK.read_text(),
    "hello": "#!/bin/sh\nprintf 'X: y\\n\\nhello\\n'\n",
    "cat": "#!/bin/sh\nprintf 'X: y\\n\\n'\nexec cat\n",
    "say": "#!/usr/bin/python3 -I\nimport os\nfrom urllib.parse import unquote_to_bytes\n"
           "os.write(1, unquote_to_bytes(os.environ['QUERY_STRING']))\n",
    "bomb": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
    "hog": "#!/usr/bin/python3 -I\nheld = []\ntry:\n    while True:\n        held.append(bytearray(8 << 20))\n"
           "except MemoryError:\n    count = len(held)\n    held.clear()\n    print('X: y\\n\\n' + str(count * 8))\n",
    "deaf": "#!/bin/sh\nexec sleep 1000\n",
    "flood": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    os.write(2, b'flood ' * 10000 + b'\\n')\n",
    "stubborn": "#!/bin/sh\ntrap '' TERM HUP INT\nprintf 'X: y\\n\\nbegun\\n'\nwhile :; do sleep 1; done\n",
    "forge": "#!/usr/bin/python3 -I\nimport os\nos.write(2, b'x\\n[Sat Jan 01 00:00:00.000000 2000] [core:error] [pid 1] forged\\n'\n"
             "         b'a\\rforged\\x1b[31m\\x9b forged \\x00forged \\xff\\n')\nos.write(1, b'X: y\\n\\nsaid')\n",
}


def put_programs(tenant: Tenant) -> None:
    """Give a tenant its cgi-bin."""
    directory = tenant.home / "cgi-bin"
    directory.mkdir()
    for name, text in PROGRAMS.items():
        (directory / name).write_text(text)
    for path in (directory, *directory.iterdir()):
        path.chmod(0o700)
        os.chown(path, tenant.uid, tenant.uid)


def put_bait(lab: Lab) -> None:
    """What lies around: a set-user-id and a set-group-id program of root's, bob's readable file, sockets of bob's, alice's trap."""
    bob = lab.tenants["bob"]
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755)):
        shutil.copy("/usr/bin/id", lab.base / name)
        (lab.base / name).chmod(mode)
    (lab.base / "bobs-open").write_text("BOBS\n")
    os.chown(lab.base / "bobs-open", bob.uid, bob.uid)
    lab.tenants["alice"].write("owned/own.html", "mine\n")
    bob.write("secret.html", "BOBS\n")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A server at work: alice attacks, bob is the neighbour, carol has no limits."""
    with Lab("KeepAliveTimeout 20\n", names=("alice", "bob", "carol")) as one:
        for tenant in one.tenants.values():
            put_programs(tenant)
        put_bait(one)
        more = {"alice": LIMITS}
        one.config_tail = "".join(one.host_block(tenant, HOST.format(home=tenant.home) + more.get(name, ""))
                                  for name, tenant in one.tenants.items())
        one.has_vhosts = False
        one.start(environment=STARTERS)
        for tenant in one.tenants.values():
            assert one.get(tenant.host, "/cgi-bin/hello", timeout_s=30).body == b"hello\n"
        before = children(one)
        with bobs_sockets(one):
            yield one
        assert children(one) == before, "a process ended or was replaced: an attack had an effect"
        for tenant in one.tenants.values():
            assert one.get(tenant.host, "/cgi-bin/hello", timeout_s=30).body == b"hello\n"


@contextlib.contextmanager
def bobs_sockets(lab: Lab) -> Iterator[None]:
    """Listening sockets where bob's services have theirs, and in his home; and one without a file's name, which anybody reaches."""
    bob = lab.tenants["bob"]
    with contextlib.ExitStack() as stack:
        for path in (tenants_directory(lab, bob) / "app.sock", bob.home / "app.sock"):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(path))
            sock.listen()
            path.chmod(0o600)
            os.chown(path, bob.uid, bob.uid)
        yield


def tenants_directory(lab: Lab, tenant: Tenant) -> Path:
    """Return the directory that a tenant's services listen in."""
    return next(path for path in (lab.run / "tenants").iterdir() if path.stat().st_uid == tenant.uid)


def children(lab: Lab) -> list[int]:
    """Return the server's own processes but its runners, which end when they are idle, and what these execute."""
    return [pid for pid in tree_of(lab.pid) if comm_of(pid).startswith(("pc:", "pc-")) or pid == lab.pid]


def process_of(lab: Lab, tenant: Tenant, kind: str) -> int:
    """Return the pid of a tenant's child ("pc:") or runner ("pr:")."""
    return next(pid for pid in tree_of(lab.pid) if uid_of(pid) == tenant.uid and comm_of(pid).startswith(kind))


def programs_of(lab: Lab, tenant: Tenant) -> list[int]:
    """Return the pids of a tenant's processes that are neither child nor runner."""
    return [pid for pid in tree_of(lab.pid)[1:] if uid_of(pid) == tenant.uid and is_alive(pid)
            and not comm_of(pid).startswith(("pc:", "pc-", "pr:"))]


# ---------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class Item:
    """One attempt: its name in attack.py, arguments, and the one outcome that is right."""

    name: str
    arguments: tuple[Any, ...]
    wanted: str


def items(wanted: str, name: str, *arguments: Any) -> list[Item]:
    """Return one attempt for each argument; a tuple is several arguments of one."""
    return [Item(name, one if isinstance(one, tuple) else (one,), wanted) for one in arguments]


def run_table(lab: Lab, table: list[Item], **addresses: int) -> None:
    """Execute a table as one program of alice's; fail with the rows that came to something else."""
    order = json.dumps({"attacks": [[one.name, *one.arguments] for one in table], "addresses": addresses}).encode()
    answer = lab.get("alice.test", "/cgi-bin/attack", method="POST", body=order, timeout_s=60)
    assert answer.status == 200, lab.error_log()[-3000:]
    found = list(zip(table, answer.json(), strict=True))
    wrong = [f"{one.name} {one.arguments}: {result}, not {one.wanted}" for one, result in found if result != one.wanted]
    assert not wrong, "\n".join(["attempts that came to something else:", *wrong])


def others_data(lab: Lab) -> list[Item]:
    """Bob's files, logs, the run directory, the configuration, sockets."""
    bob = lab.tenants["bob"]
    services = tenants_directory(lab, bob)
    paths = {
        "read": [bob.docroot / "index.html", bob.home / "cgi-bin/hello", lab.log / "../bob/public/index.html", "/etc/shadow",
                 *(lab.run / "records").iterdir()],
        "list": [bob.docroot, bob.home, lab.run / "records", services],
        "create": [bob.docroot / "x", bob.home / "x", services / "x", lab.run / "x", lab.run / "tenants" / "x", lab.log / "x",
                   lab.main_root / "x", lab.base / "x"],
        "append": [lab.log / "access.log", lab.log / "error.log", lab.config_path, bob.docroot / "index.html"],
        "remove": [lab.run / "control.sock", lab.log / "error.log", lab.config_path, lab.main_root / "index.html", services / "app.sock"],
        "rename": [lab.run / "control.sock", lab.log / "access.log", lab.run / "records", bob.home],
        "connect stream": [lab.run / "control.sock", services / "app.sock", bob.home / "app.sock"],
        "connect seqpacket": [lab.run / "control.sock"],
        "write": ["/proc/sys/kernel/core_pattern", "/proc/sys/fs/suid_dumpable"],
    }
    table = [row for name, targets in paths.items() for row in items("EACCES", name, *map(str, targets))]
    table += items("EPERM", "chmod", str(lab.base / "bobs-open"), str(lab.log), str(lab.run / "tenants"), str(services))
    table += items("EPERM", "link here", str(lab.base / "setuid")) if protects_links() else []
    return [*table, *(Item(name, (), "EPERM") for name in ("remove semaphores", "remove shared memory", "remove queues"))]


def protects_links() -> bool:
    """Whether the kernel keeps others' files from being linked (fs.protected_hardlinks)."""
    return Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"


OUT_OF_SIGHT = {  # in a PID namespace of its own: nobody has that number, and /proc shows no such directory
    "ESRCH": ("signal", "terminate", "stop", "kill", "pidfd open", "pidfd signal", "ptrace attach", "ptrace seize", "process_vm_readv",
              "process_vm_writev", "pidfd_getfd", "process_madvise", "kcmp", "prlimit", "affinity", "priority", "ioprio", "scheduler"),
    "ENOENT": ("list fd", "open fd", "mem", "mem for writing", "maps", "environ", "auxv", "pagemap", "cmdline", "cwd", "root", "exe",
               "oom_score_adj", "list map_files"),
}


def processes(lab: Lab) -> list[Item]:
    """Dispatcher, nursery, unassigned children, bob's and alice's own child, bob's runner: none of them is there."""
    alice, bob = lab.tenants["alice"], lab.tenants["bob"]
    victims = [lab.pid, lab.nursery, *lab.children(lab.user_uid), *lab.children(bob.uid), process_of(lab, alice, "pc:"),
               process_of(lab, alice, "pr:")]
    assert len(victims) >= 6
    table = [row for wanted, names in OUT_OF_SIGHT.items() for name in names for row in items(wanted, name, *victims)]
    return [*table, Item("processes in /proc", (), f"pr:{alice.name} 1, me".replace(alice.name, runner_name(lab, alice))),
            Item("processes by number", (70000,), "")]


def runner_name(lab: Lab, tenant: Tenant) -> str:
    """Return what a tenant's runner is called behind pr:."""
    return comm_of(process_of(lab, tenant, "pr:"))[3:]


def her_runner(_lab: Lab) -> list[Item]:
    """The runner is 1: it cannot be opened, nor ended; what one uid may do to its own processes concerns her alone."""
    table = [Item(name, (1,), wanted) for name, wanted in ON_HER_OWN.items()]
    table += items("ok", "terminate", 1) + items("ok", "stop", 1) + items("ok", "kill", 1) + items("ok", "pidfd signal", 1)
    table += items("ok", "signal", 1) + items("ok", "affinity", 1) + items("ok", "ioprio", 1)
    return [*table, Item("kill everybody", (), "ESRCH"), Item("processes by number", (300,), "")]


NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "uts": 0x4000000, "ipc": 0x8000000, "cgroup": 0x2000000}
REFUSED_CALLS = ("io_uring_setup", "io_uring_enter", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "setns",
                 "mount", "umount2", "pivot_root", "chroot", "fsopen", "open_tree", "move_mount", "mount_setattr", "open_by_handle_at",
                 "init_module", "finit_module", "delete_module", "kexec_load", "reboot", "syslog", "swapon", "acct", "fanotify_init",
                 "clock_settime", "settimeofday", "sethostname")


def privileges(lab: Lab) -> list[Item]:
    """No other id, no namespace, no wide kernel interface, by no way to call the kernel; set-user-id programs give nothing."""
    alice, bob = lab.tenants["alice"], lab.tenants["bob"]
    ids = (0, bob.uid, lab.user_uid)
    table = [row for name in ("setuid", "setgid", "setresuid", "setresgid", "setgroups") for row in items("EPERM", name, *ids)]
    table += [Item("held descriptors", (), "0 1 2"), Item("run", (str(lab.base / "setuid"), "-u"), str(alice.uid)),
              Item("run", (str(lab.base / "setgid"), "-g"), str(alice.uid)), Item("real time", (), "EPERM"), Item("nice down", (), "EACCES")]
    table += items("EPERM", "unshare", *NEW.values(), NEW["user"] | NEW["mount"])
    table += items("EPERM", "clone", *NEW.values(), NEW["user"] | NEW["net"]) + items("ENOSYS", "call", "clone3")
    table += items("EPERM", "call", *((name, 0, 0, 0, 0, 0) for name in REFUSED_CALLS))
    packet, raw, alg, vsock, key = (17, 3, 0), (2, 3, 1), (38, 5, 0), (40, 1, 0), (15, 3, 2)
    table += items("EPERM", "socket", packet, raw, alg, vsock, key)
    return table + (privileges_x86() if IS_X86 else [])


def privileges_x86() -> list[Item]:
    """The other two ways into an x86-64 kernel: 32-bit programs are refused the same, x32 is the end of who tries it."""
    clone = items("EPERM", "clone by the 32-bit gate", *NEW.values(), NEW["user"] | NEW["net"])
    mount, ptrace_free = (21,), (20,)  # getpid: 32-bit programs work
    return [*clone, *items("EPERM", "call by the 32-bit gate", mount, (310, NEW["user"]), (288,), (357,), (336,), (425,)),
            *items("ok", "call by the 32-bit gate", ptrace_free), *items("SIGSYS", "call in x32", 39, 272)]


def network(lab: Lab) -> list[Item]:
    """The server's port is taken, in every guise; ports below 1024 are root's where the machine keeps them so."""
    reuses = (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    table = items("EADDRINUSE", "bind", *((lab.port, reuse, address) for reuse in reuses for address in ("127.0.0.1", "0.0.0.0", "::")))
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    return table + items("EACCES", "bind", *((port, reuse) for port in (80, 443) for reuse in reuses if port < first_free))


def leaks(_lab: Lab) -> list[Item]:
    """No core."""
    return [Item("raise core limit", (), "EPERM"), *items("nothing", "dump core", int(signal.SIGQUIT), int(signal.SIGSEGV))]


TABLES: dict[str, Callable[[Lab], list[Item]]] = {
    "processes": processes, "her runner": her_runner, "others' data": others_data, "privileges": privileges, "network": network,
    "leaks": leaks,
}


@pytest.mark.parametrize("group", TABLES)
def test_each_attempt_comes_to_what_the_table_says(lab: Lab, group: str) -> None:
    """Every row of a table; her runner is the same afterwards."""
    alice = lab.tenants["alice"]
    runner = process_of(lab, alice, "pr:")
    assert procs.read_status(runner)["NSpid"].split()[-1] == "1", "these tables are those of runners in a PID namespace"
    address = procs.readable_mappings(runner)[0][0]
    run_table(lab, TABLES[group](lab), **{"1": address})
    assert process_of(lab, alice, "pr:") == runner
    assert is_alive(runner)


def test_no_socket_of_the_server_takes_a_connection(lab: Lab) -> None:
    """Whatever names /proc/net/unix shows, in the file system or abstract: none that answers is the server's or bob's."""
    order = json.dumps({"attacks": [["reachable sockets"]]}).encode()
    reached = set(lab.get("alice.test", "/cgi-bin/attack", method="POST", body=order, timeout_s=60).json()[0].split())
    own = {str(procs.inode_of(target)) for pid in (*tree_of(lab.pid), os.getpid()) if is_alive(pid)
           for target in procs.descriptors(pid).values() if target.startswith("socket:")}
    assert own
    assert not reached & own
