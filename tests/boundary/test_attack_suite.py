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
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.boundary import procs
from tests.boundary.neighbour import (
    Leaver,
    Neighbour,
    nothing_left,
    process_of,
    programs_of,
    set_off_bomb,
    wait_for_nothing_but_the_runner,
)
from tests.boundary.test_tenants import ON_HER_OWN
from tests.lab import Lab, Tenant, comm_of, is_alive, tree_of, wait_until
from tests.system.wire import client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

ATTACK = Path(__file__).with_name("attack.py")
IS_X86 = platform.machine() == "x86_64"
MEGABYTE = 1 << 20
TIMEOUT_S = 3  # dave's: programs that do nothing are ended then
MAX_PROCESSES, MAX_MEMORY = 100, 512 * MEGABYTE
LEAVERS, WAVES = 1000, 10
STUBBORN = 40
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
MORE = {"alice": f"RLimitMEM {MAX_MEMORY} {MAX_MEMORY}\n", "dave": f"Timeout {TIMEOUT_S}\n",
        "erin": f"RLimitNPROC {MAX_PROCESSES} {MAX_PROCESSES}\n"}

PROGRAMS = {
    "attack": "#!/usr/bin/python3 -I\n" + ATTACK.read_text(),
    "hello": "#!/bin/sh\nprintf 'X: y\\n\\nhello\\n'\n",
    "cat": "#!/bin/sh\nprintf 'X: y\\n\\n'\nexec cat\n",
    "say": "#!/usr/bin/python3 -I\nimport os\nfrom urllib.parse import unquote_to_bytes\n"
           "os.write(1, unquote_to_bytes(os.environ['QUERY_STRING']))\n",
    "bomb": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        os.sched_yield()\n",
    "hog": "#!/usr/bin/python3 -I\nheld = []\ntry:\n    while True:\n        held.append(bytearray(8 << 20))\n"
           "except MemoryError:\n    count = len(held)\n    held.clear()\n    print('X: y\\n\\n' + str(count * 8))\n",
    "deaf": "#!/bin/sh\nexec sleep 1000\n",
    "flood": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    os.write(2, b'flood ' * 10000 + b'\\n')\n",
    "stubborn": "#!/usr/bin/python3 -I\nimport signal\nfor one in range(1, 65):\n    try:\n        signal.signal(one, signal.SIG_IGN)\n"
                "    except (OSError, ValueError):\n        pass\nprint('X: y\\n\\nbegun', flush=True)\nwhile True:\n    signal.pause()\n",
    "loop": "#!/bin/sh\nprintf 'Location: /cgi-bin/loop\\n\\n'\n",
    "wordy": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    os.write(1, b'X-Word: ' + b'w' * 1000 + b'\\n')\n",
    "endless-line": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    os.write(1, b'X' * 4096)\n",
    "forge": "#!/usr/bin/python3 -I\nimport os\nos.write(2, b'x\\n[Sat Jan 01 00:00:00.000000 2000] [core:error] [pid 1] forged\\n'\n"
             "         b'a\\rforged\\x1b[31m\\x9b forged \\x00forged \\xff\\n')\nos.write(1, b'X: y\\n\\nsaid')\n",
}


def put_bait(lab: Lab) -> None:
    """What lies around: a set-user-id and a set-group-id program of root's, bob's readable file, sockets of bob's, alice's trap."""
    bob = lab.tenants["bob"]
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755)):
        shutil.copy("/usr/bin/id", lab.base / name)
        (lab.base / name).chmod(mode)
    (lab.base / "bobs-open").mkdir()
    (lab.base / "bobs-open/own.html").write_text("BOBS\n")
    for path in (lab.base / "bobs-open", lab.base / "bobs-open/own.html"):
        os.chown(path, bob.uid, bob.uid)
    lab.tenants["alice"].write("owned/own.html", "mine\n")
    lab.tenants["alice"].write("owned/deep/own.html", "mine\n")
    bob.write("secret.html", "BOBS\n")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A server at work: alice attacks, bob is the neighbour, carol has no limits, dave little time, erin few processes."""
    with Lab("KeepAliveTimeout 20\nMaxKeepAliveRequests 0\nAcceptMutex sysvsem\n", names=("alice", "bob", "carol", "dave", "erin")) as one:
        for tenant in one.tenants.values():
            tenant.put_programs(PROGRAMS)
        put_bait(one)
        one.config_tail = "".join(one.host_block(tenant, HOST.format(home=tenant.home) + MORE.get(name, ""))
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


def attack(lab: Lab, attacks: list[tuple[Any, ...]], path: str = "/cgi-bin/attack", *, addresses: dict[str, int] | None = None,
           fields: dict[str, str] | None = None) -> list[str]:
    """Let alice's program make attempts; return what each came to."""
    order = json.dumps({"attacks": attacks, "addresses": addresses or {}}).encode()
    answer = lab.get("alice.test", path, method="POST", body=order, fields=fields, timeout_s=60)
    assert answer.status == 200, lab.error_log()[-3000:]
    results: list[str] = answer.json()
    return results


def run_table(lab: Lab, table: list[Item], **addresses: int) -> None:
    """Execute a table as one program of alice's; fail with the rows that came to something else."""
    results = attack(lab, [(one.name, *one.arguments) for one in table], addresses=addresses)
    found = list(zip(table, results, strict=True))
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
    owners = {int(line.split()[4]) for line in Path("/proc/sysvipc/sem").read_text().splitlines()[1:]}
    assert lab.user_uid in owners  # the accept mutex
    return [*table, Item("remove semaphores", (), "EPERM"), Item("set semaphores", (), "EACCES")]


def protects_links() -> bool:
    """Whether the kernel keeps others' files from being linked (fs.protected_hardlinks)."""
    return Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"


OUT_OF_SIGHT = {  # in a PID namespace of its own: nobody has that number, and /proc shows no such directory
    "ESRCH": ("signal", "terminate", "stop", "kill", "pidfd open", "pidfd signal", "ptrace attach", "ptrace seize", "process_vm_readv",
              "process_vm_writev", "pidfd_getfd", "process_madvise", "kcmp", "affinity", "priority", "ioprio", "scheduler"),
    "EPERM": ("prlimit",),  # of others' limits the filter speaks first
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
    table += items("ok", "user signal", 1) + items("ok", "child signal", 1) + items("ok", "signal", 1) + items("ok", "affinity", 1) + items("ok", "ioprio", 1) + items("EPERM", "prlimit", 1)
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


@pytest.mark.parametrize("when", ["", "after a reload"])
@pytest.mark.parametrize("group", TABLES)
def test_each_attempt_comes_to_what_the_table_says(lab: Lab, group: str, when: str) -> None:
    """Every row of a table; her runner is the same afterwards."""
    if when:
        assert lab.reload()["ok"]
        assert lab.get("alice.test", "/cgi-bin/hello").status == lab.get("bob.test", "/cgi-bin/hello").status == 200
    alice = lab.tenants["alice"]
    runner = wait_for_nothing_but_the_runner(lab, alice)  # the tables name every process that she may see
    assert procs.read_status(runner)["NSpid"].split()[-1] == "1", "these tables are those of runners in a PID namespace"
    address = procs.readable_mappings(runner)[0][0]
    run_table(lab, TABLES[group](lab), **{"1": address})
    assert process_of(lab, alice, "pr:") == runner
    assert is_alive(runner)


def test_no_socket_of_the_server_takes_a_connection(lab: Lab) -> None:
    """Whatever names /proc/net/unix shows, in the file system or abstract: none that answers is the server's or bob's."""
    reached = set(attack(lab, [("reachable sockets",)])[0].split())
    wait_for_nothing_but_the_runner(lab, lab.tenants["alice"])
    own = {str(procs.inode_of(target)) for pid in (*children(lab), *lab.runners(), os.getpid())
           for target in procs.descriptors(pid).values() if target.startswith("socket:")}
    assert own
    assert not reached & own


# ---------------------------------------------------------------- files that are not what they seem


# What she makes: attempt, name, what it leads to; then the request, and the statuses that it may have.
PLANTED: dict[str, tuple[str, str, str, str, set[int]]] = {
    "link to bob's file": ("put symlink", "public/a.html", "{bob}/public/secret.html", "/a.html", {403, 404}),
    "link to bob's directory": ("put symlink", "public/b", "{bob}/public", "/b/secret.html", {403, 404}),
    "link to shadow": ("put symlink", "public/c.html", "/etc/shadow", "/c.html", {403, 404}),
    "link to the log": ("put symlink", "public/d.html", "{log}/error.log", "/d.html", {403, 404}),
    "link to the records": ("put symlink", "public/e", "{run}/records", "/e/", {403, 404}),
    "link to the child's memory": ("put symlink", "public/f.html", "/proc/self/mem", "/f.html", {403, 404}),
    "link to the child's mappings": ("put symlink", "public/g.html", "/proc/self/maps", "/g.html", {403, 404}),
    "link to the child's environment": ("put symlink", "public/h.html", "/proc/self/environ", "/h.html", {403, 404}),
    "link to the child's descriptors": ("put symlink", "public/i", "/proc/self/fd", "/i/2", {403, 404}),
    "link to a descriptor of the child's": ("put symlink", "public/j.html", "/proc/self/fd/0", "/j.html", {403, 404}),
    "link to the child's root": ("put symlink", "public/k", "/proc/self/root", "/k/etc/passwd", {403, 404}),
    "link to the dispatcher's environment": ("put symlink", "public/l.html", "/proc/{pid}/environ", "/l.html", {403, 404}),
    "link to an endless device": ("put symlink", "public/m.html", "/dev/zero", "/m.html", {403, 404}),
    "link to itself": ("put symlink", "public/n.html", "n.html", "/n.html", {403, 404}),
    "pipe": ("put pipe", "public/o.html", "", "/o.html", {403, 404}),
    "socket": ("put socket", "public/p.html", "", "/p.html", {403, 404}),
    "pipe as index": ("put pipe", "public/q/index.html", "", "/q/", {403, 404}),
    "directory as index": ("put directory", "public/r/index.html", "", "/r/", {403, 404}),
    "link as index": ("put symlink", "public/s/index.html", "{bob}/public/secret.html", "/s/", {403, 404}),
    "program: link to a binary": ("put symlink", "cgi-bin/a", "/usr/bin/id", "/cgi-bin/a", {403, 500}),
    "program: link to bob's": ("put symlink", "cgi-bin/b", "{bob}/cgi-bin/hello", "/cgi-bin/b", {403, 404, 500}),
    "program: pipe": ("put pipe", "cgi-bin/c", "", "/cgi-bin/c", {403, 404, 500}),
    "program: socket": ("put socket", "cgi-bin/d", "", "/cgi-bin/d", {403, 404, 500}),
    "program: directory": ("put directory", "cgi-bin/e", "", "/cgi-bin/e", {301, 403, 404, 500}),
    "program: link to a device": ("put symlink", "cgi-bin/f", "/dev/zero", "/cgi-bin/f", {403, 404, 500}),
    "program: link to a program of the child's": ("put symlink", "cgi-bin/g", "/proc/self/exe", "/cgi-bin/g", {403, 404, 500}),
}


def test_what_she_puts_in_place_of_files(lab: Lab) -> None:
    """Links to what she may not read, pipes, sockets, devices and directories: refused at once, and nobody waits."""
    alice = lab.tenants["alice"]
    places = {"bob": lab.tenants["bob"].home, "log": lab.log, "run": lab.run, "pid": lab.pid}
    for directory in ("q", "r", "s"):
        alice.write(f"{directory}/x", "")
    attacks = [(make, str(alice.home / name), *([to.format(**places)] if to else [])) for make, name, to, _, _ in PLANTED.values()]
    assert attack(lab, [*attacks, ("put device", str(alice.docroot / "device"))]) == ["ok"] * len(attacks) + ["EPERM"]
    wrong = []
    for what, (_, _, _, path, statuses) in PLANTED.items():
        answer = lab.get("alice.test", path)
        if answer.status not in statuses or any(word in answer.raw for word in (b"BOBS", b"hello\n", b"root:", b"uid=")):
            wrong.append(f"{what}: {answer.raw[:200]!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("own", "path", "target"), [
    ("owned/own.html", "/owned/own.html", "bobs-open/own.html"), ("owned/deep", "/owned/deep/own.html", "bobs-open")])
def test_what_she_swaps_is_hers_or_refused(lab: Lab, own: str, path: str, target: str) -> None:
    """Where links need their owner's consent: while a file, or directory, and a link to bob's change places, bob's is never sent."""
    alice = lab.tenants["alice"]
    link = f"{alice.docroot}/owned/link"
    assert attack(lab, [("put symlink", link, str(lab.base / target))]) == ["ok"]
    assert lab.get("alice.test", "/owned/link" + path.removeprefix(f"/{own}")).status == 403
    swaps: list[str] = []
    swapper = threading.Thread(target=lambda: swaps.extend(attack(lab, [("swap", f"{alice.docroot}/{own}", link, 1.5)])))
    swapper.start()
    answers = []
    with client(lab) as conn:
        while swapper.is_alive():
            answers.append(conn.ask(get("alice.test", path)))
    swapper.join()
    assert int(swaps[0]) >= 100
    assert {(one.status, one.body if one.status == 200 else b"") for one in answers} <= {(200, b"mine\n"), (403, b""), (503, b"")}


@pytest.mark.parametrize(("head", "status"), [
    ("X-Sendfile: {bob}/public/secret.html", 200), ("X-Accel-Redirect: /../bob/public/secret.html", 200),
    ("Location: /../../bob/public/secret.html", 500), ("Location: /%2e%2e/bob/public/secret.html", 500),
    ("Location: file://{bob}/public/secret.html", 302)])
def test_what_her_answers_ask_for(lab: Lab, head: str, status: int) -> None:
    """Fields that other servers take for orders are passed on as fields; a redirect leaves no document root."""
    text = head.format(bob=lab.tenants["bob"].home) + "\n\nown"
    answer = lab.get("alice.test", "/cgi-bin/say?" + "".join(f"%{byte:02x}" for byte in text.encode()))
    assert answer.status == status
    assert b"BOBS" not in answer.raw


@pytest.mark.parametrize("name", ["loop", "wordy", "endless-line"])
def test_answers_without_end_have_one(lab: Lab, name: str) -> None:
    """A redirect to itself, a head that does not end: 500, and the program does."""
    with nothing_left(lab, lab.tenants["alice"]):
        assert lab.get("alice.test", f"/cgi-bin/{name}").status == 500


# ---------------------------------------------------------------- environment, log


def test_what_she_learns_from_her_environment(lab: Lab) -> None:
    """Nothing of the operator's, nothing that a client or SetEnv may not say; the query is no argument."""
    fields = {"Proxy": "http://evil", "X_Under": "1", "Authorization": "Basic eDp5", "LD-PRELOAD": "/evil.so", "X-Kept": "1", "X.Dot": "1"}
    said = attack(lab, [("variables",), ("arguments",)], "/cgi-bin/attack?-d+allow_url_include%3d1", fields=fields)
    variables = json.loads(said[0])
    wanted = {"GATEWAY_INTERFACE": "CGI/1.1", "APP_SETTING": "kept", "HTTP_X_KEPT": "1", "HTTP_LD_PRELOAD": "/evil.so",
              "SERVER_NAME": "alice.test", "QUERY_STRING": "-d+allow_url_include%3d1"}
    assert {name: variables.get(name) for name in wanted} == wanted
    refused = {"HTTP_PROXY", "HTTP_X_UNDER", "HTTP_X_DOT", "HTTP_AUTHORIZATION", "LD_PRELOAD", "NOTIFY_SOCKET", *STARTERS}
    assert not refused & variables.keys()
    assert not any(value in variables.values() for value in STARTERS.values())
    assert json.loads(said[1]) == [str(lab.tenants["alice"].home / "cgi-bin/attack")]


def test_she_forges_no_line_of_the_log(lab: Lab) -> None:
    """Each line that her program says has the server's prefix, and no control character."""
    assert lab.get("alice.test", "/cgi-bin/forge").body == b"said"
    lines = wait_until(lambda: [line for line in lab.error_log().split("\n") if "forged" in line], "it is logged")
    assert len(lines) == 2
    for line in lines:
        assert "AH01215: stderr from " in line.partition("forged")[0]
        assert line.isprintable()


# ---------------------------------------------------------------- resources


def test_a_fork_bomb_is_its_owners_own(lab: Lab) -> None:
    """It grows to RLimitNPROC and no further; bob is served meanwhile as before, and when its client leaves all of it goes."""
    assert set_off_bomb(lab, lab.tenants["erin"]) <= MAX_PROCESSES


@pytest.mark.parametrize(("name", "body", "status"), [("hog", b"", 200), ("deaf", bytes(8 * MEGABYTE), 504), ("flood", b"", 504)])
def test_a_program_that_misbehaves_is_ended_and_bob_is_served(lab: Lab, name: str, body: bytes, status: int) -> None:
    """One takes all memory that it gets, one never reads a large body, one floods the log: time and again, until bob was asked enough."""
    tenant, neighbour, answers = lab.tenants["alice" if name == "hog" else "dave"], Neighbour(lab), []
    logged, has_enough = len(lab.error_log()), threading.Event()

    def ask() -> None:
        while not answers or not has_enough.is_set():
            answers.append(lab.get(tenant.host, f"/cgi-bin/{name}", method="POST", body=body, timeout_s=60))
    with nothing_left(lab, tenant):
        thread = threading.Thread(target=ask)
        thread.start()
        neighbour.ask_until(lambda: bool(programs_of(lab, tenant)), "it runs")
        neighbour.ask_enough()
        has_enough.set()
        neighbour.ask_until(lambda: not thread.is_alive(), "its client has been answered")
    assert {one.status for one in answers} == {status}
    if name == "hog":
        assert all(0 < int(one.body) * MEGABYTE < MAX_MEMORY for one in answers)
    assert len(lab.error_log()) - logged < 2 * MEGABYTE * len(answers)
    neighbour.was_served()


def test_a_program_that_ignores_every_signal_is_killed_and_bob_is_served(lab: Lab) -> None:
    """Its client leaves, and two seconds later it is gone; forty of them, one after the other."""
    dave, neighbour = lab.tenants["dave"], Neighbour(lab)
    with nothing_left(lab, dave):
        for _ in range(STUBBORN):
            stubborn = Leaver(lab, dave.host, "/cgi-bin/stubborn")
            assert stubborn.client.fill()
            stubborn.leave()
            neighbour.ask_until(lambda: True, "")
        neighbour.ask_enough()
    neighbour.was_served()


def test_a_thousand_clients_that_leave_in_the_middle_of_their_bodies(lab: Lab) -> None:
    """In waves: each has had its program started before it leaves; nothing of them is left, and bob is served as before."""
    carol, neighbour = lab.tenants["carol"], Neighbour(lab)
    with nothing_left(lab, carol):
        for _ in range(WAVES):
            leavers = [Leaver(lab, carol.host, "/cgi-bin/cat", "Content-Length: 100", body=b"some") for _ in range(LEAVERS // WAVES)]
            neighbour.ask_until(lambda: len(programs_of(lab, carol)) >= LEAVERS // WAVES // 2, "carol's programs run")
            for one in leavers:
                one.leave()
        neighbour.ask_enough()
    neighbour.was_served()
