"""What a program under alice's uid can do to the server's processes: nothing that its own uid does not allow anyway.

The attacks run in a process of alice's uid and gid, as a script of hers would; each has its expected errno. Against other
identities everything is refused. Against alice's own child, which shares her uid, non-dumpability must hold; what Linux lets
one uid do to itself (signals, limits) is named as such, and is hers alone.
Runs as: root, which starts the attacker.  Source: security.md 2.3, 8 (T-ISO).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.boundary import procs
from tests.lab import PYTHON, Lab, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

ATTACKER = Path(__file__).with_name("attack.py").read_text()

# What each attack on another identity's process comes to.
ON_OTHERS = {
    "signal": "EPERM", "terminate": "EPERM", "stop": "EPERM", "pidfd signal": "EPERM", "ptrace attach": "EPERM",
    "ptrace seize": "EPERM", "process_vm_readv": "EPERM", "process_vm_writev": "EPERM", "pidfd_getfd": "EPERM", "kcmp": "EPERM",
    "process_madvise": "EACCES", "prlimit": "EPERM", "affinity": "EPERM", "priority": "EPERM", "ioprio": "EPERM",
    "scheduler": "EPERM", "list fd": "EACCES", "open fd": "EACCES", "list map_files": "EACCES", "mem": "EACCES",
    "mem for writing": "EACCES", "maps": "EACCES", "environ": "EACCES", "auxv": "EACCES", "pagemap": "EACCES", "cwd": "EACCES",
    "root": "EACCES", "exe": "EACCES", "oom_score_adj": "EACCES",
}
# Her own child: what dumpable 0 keeps from the same uid.
ON_HER_OWN = {name: ON_OTHERS[name] for name in (
    "ptrace attach", "ptrace seize", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "list fd", "open fd",
    "list map_files", "mem", "mem for writing", "maps", "environ", "auxv", "pagemap", "cwd", "root", "exe", "oom_score_adj",
    "process_madvise")}
# What one uid may do to its own processes; programs therefore run in a PID namespace of their own. It concerns her alone.
HER_OWN_BUSINESS = {"signal": "ok", "prlimit": "ok", "affinity": "ok", "priority": "ok"}


def run_as(uid: int, attacks: Sequence[tuple[Any, ...]], addresses: dict[int, int] | None = None) -> list[str]:
    """Run attacks in a process of that uid and gid alone; return what each came to."""
    order = json.dumps({"attacks": attacks, "addresses": addresses or {}})
    done = subprocess.run([PYTHON, "-I", "-c", ATTACKER, order], capture_output=True, text=True, timeout=60, check=False,
                          user=uid, group=uid, extra_groups=[], cwd="/", env={})
    assert done.returncode == 0, done.stderr
    results: list[str] = json.loads(done.stdout)
    return results


def assert_each(uid: int, wanted: dict[str, str], pids: list[int]) -> None:
    """Every attack on every process comes to what the table says."""
    attacks = [(name, pid) for pid in pids for name in wanted]
    addresses = {pid: procs.readable_mappings(pid)[0][0] for pid in pids}
    results = run_as(uid, attacks, addresses)
    got = {(name, pid): result for (name, pid), result in zip(attacks, results, strict=True)}
    assert got == {(name, pid): wanted[name] for name, pid in attacks}


@pytest.fixture(scope="module", params=["unassigned", "any"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A server with alice's and bob's children at work."""
    with Lab(accept_scope=request.param, names=("alice", "bob")) as lab:
        if request.param == "any":
            lab.config = "NumServers 5\n" + "".join(f"ChildPerUserID #{one.uid} #{one.uid} {index}\n"
                                                    for index, one in enumerate(lab.tenants.values(), 1))
        lab.start()
        for tenant in lab.tenants.values():
            assert lab.get(tenant.host).status == 200
        before = lab.children()
        yield lab
        assert lab.children() == before, "a process ended or was replaced: an attack had an effect"
        for tenant in lab.tenants.values():
            assert lab.get(tenant.host).status == 200


def alice(lab: Lab) -> int:
    """Alice's uid."""
    return lab.tenants["alice"].uid


@pytest.mark.parametrize("victim", ["bob", "unassigned", "dispatcher", "nursery"])
def test_alice_can_do_nothing_to_other_processes(lab: Lab, victim: str) -> None:
    """Signals, ptrace, memory, descriptors, limits and scheduling of bob's child, unassigned children, dispatcher and nursery:
    refused."""
    pids = {"bob": lab.children(lab.tenants["bob"].uid), "unassigned": lab.children(lab.user_uid), "dispatcher": [lab.pid],
            "nursery": [lab.nursery]}
    assert pids[victim]
    assert_each(alice(lab), ON_OTHERS, pids[victim])


def test_nobody_can_do_anything_to_any_process(lab: Lab) -> None:
    """A local user who is no tenant is refused the same, alice's child included."""
    assert_each(65534, ON_OTHERS, [lab.pid, lab.nursery, *lab.children()])


def test_the_server_uid_can_do_nothing_to_tenants_or_dispatcher(lab: Lab) -> None:
    """What a taken-over unassigned child could start under User: refused against tenants' children and the dispatcher."""
    tenants = [pid for tenant in lab.tenants.values() for pid in lab.children(tenant.uid)]
    assert_each(lab.user_uid, ON_OTHERS, [lab.pid, lab.nursery, *tenants])


def test_alice_cannot_open_her_own_child(lab: Lab) -> None:
    """Her own child is not dumpable: no descriptor, memory, environment or trace of it is hers, though the uid is the same."""
    assert_each(alice(lab), ON_HER_OWN, lab.children(alice(lab)))


def test_what_alice_may_do_to_her_own_child_is_her_business(lab: Lab) -> None:
    """One uid may signal and limit its own processes: Linux allows it, it is known, and it reaches nobody else."""
    assert_each(alice(lab), HER_OWN_BUSINESS, lab.children(alice(lab)))


def test_a_stopped_and_killed_child_is_alices_loss_alone(lab: Lab) -> None:
    """Alice stops and kills her own child: bob is served meanwhile, and her own host by the successor."""
    with Lab(names=("alice", "bob")) as own:
        own.start()
        for tenant in own.tenants.values():
            assert own.get(tenant.host).status == 200
        pid = own.children(alice(own))[0]
        assert run_as(alice(own), [("stop", pid)]) == ["ok"]
        wait_until(lambda: procs.is_stopped(pid), "her child stands still")
        assert own.get("bob.test").status == 200
        assert run_as(alice(own), [("pidfd signal", pid)]) == ["ok"]
        assert own.get("alice.test", "/whoami").json()["pid"] != pid
    assert lab.get("bob.test").status == 200


def test_alice_cannot_read_or_change_what_belongs_to_others(lab: Lab) -> None:
    """Bob's files, every record, the run directory's contents, logs and configuration's neighbours: refused."""
    bob = lab.tenants["bob"]
    records = lab.run / "records"
    attacks: list[tuple[str, Any]] = [
        ("read", str(bob.docroot / "index.html")), ("list", str(bob.docroot)), ("list", str(bob.home)),
        ("create", str(bob.docroot / "x")), ("list", str(records)), ("create", str(records / "x")),
        ("remove", str(lab.run / "control.sock")), ("rename", str(lab.run / "control.sock")), ("create", str(lab.run / "x")),
        ("append", str(lab.log / "access.log")), ("append", str(lab.log / "error.log")), ("remove", str(lab.log / "error.log")),
        ("create", str(lab.log / "x")), ("remove", str(lab.config_path)), ("append", str(lab.config_path)),
    ]
    attacks += [("read", str(path)) for path in records.iterdir()]
    assert len(attacks) > 16, "there are records to try"
    assert dict(zip(attacks, run_as(alice(lab), attacks), strict=True)) == dict.fromkeys(attacks, "EACCES")


def test_records_are_roots_alone() -> None:
    """Records and their directory: root's, 0600 in 0700, under any umask."""
    with Lab(names=("alice", "bob")) as lab:
        lab.prefix = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
        lab.start()
        directory = lab.run / "records"
        assert (directory.stat().st_mode & 0o7777, directory.stat().st_uid) == (0o700, 0)
        files = list(directory.iterdir())
        assert len(files) == 3
        assert {(path.stat().st_mode & 0o7777, path.stat().st_uid) for path in files} == {(0o600, 0)}
        socket_path = lab.run / "control.sock"
        assert (socket_path.stat().st_mode & 0o777, socket_path.stat().st_uid) == (0o600, 0)


def test_alice_can_connect_to_no_socket_of_the_server(lab: Lab) -> None:
    """control.sock is refused; inboxes and control pairs have no name; nothing of the server's is in the abstract name space."""
    path = str(lab.run / "control.sock")
    attacks: list[tuple[str, Any]] = [("connect stream", path), ("connect seqpacket", path)]
    assert run_as(alice(lab), attacks) == ["EACCES", "EACCES"]
    own = {fd.inode for pid in (lab.pid, *lab.children()) for fd in procs.look_at_fds(lab, pid) if fd.inode}
    named = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[6]) in own and len(fields) > 7:
            named[int(fields[6])] = fields[7]
    assert set(named.values()) == {path}


def test_alice_cannot_take_the_port(lab: Lab) -> None:
    """The listening port is bound without SO_REUSEPORT: nobody can bind it again, with the option or without."""
    attacks: list[tuple[Any, ...]] = [("bind", lab.port, 0), ("bind", lab.port, socket.SO_REUSEPORT)]
    assert run_as(alice(lab), attacks) == ["EADDRINUSE"] * 2


def test_alice_cannot_become_another(lab: Lab) -> None:
    """Root's, bob's and the server's ids are refused to a process of alice's: the attacker above is what it seems."""
    ids = [0, lab.tenants["bob"].uid, lab.user_uid]
    attacks: list[tuple[str, Any]] = [(name, one) for name in ("setuid", "setgid") for one in ids]
    assert run_as(alice(lab), attacks) == ["EPERM"] * len(attacks)


def test_attacks_work_where_they_may() -> None:
    """The attacks themselves work: against a process of her own that is dumpable, each of them succeeds or fails otherwise."""
    uid = 50123
    with subprocess.Popen(["cat"], user=uid, group=uid, extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        names = ["signal", "list fd", "maps", "environ", "mem", "cwd", "exe", "pidfd_getfd", "process_vm_readv", "prlimit", "auxv",
                 "kcmp", "oom_score_adj", "ptrace seize"]
        assert victim.stdin
        assert victim.stdout
        os.write(victim.stdin.fileno(), b"x")
        assert os.read(victim.stdout.fileno(), 1) == b"x"  # it runs: all is mapped that will be
        address = procs.readable_mappings(victim.pid)[0][0]
        results = dict(zip(names, run_as(uid, [(name, victim.pid) for name in names], {victim.pid: address}), strict=True))
        victim.send_signal(signal.SIGKILL)
    # Opened, and nothing is mapped at 0; asked, and there is no descriptor 3: permitted both.
    assert results == {**dict.fromkeys(names, "ok"), "mem": "EIO", "pidfd_getfd": "EBADF"}
