"""What code inside a taken-over child of alice's could try on the dispatcher and on the others, beyond the hand-off.

The attacker holds duplicates of that child's own descriptors, taken as root: the same open files that code inside it has.
Runs as: root.  Source: security.md 3 A3, 4.5 (R-SB-1), R-PASS-2.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from perchild import roles
from perchild.wire import control
from perchild.wire import page as wire_page
from tests.boundary import procs
from tests.lab import PYTHON, Lab, comm_of, is_alive, read_response, tree_of, uid_of, wait_until
from tests.system.test_cgi import make_lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A server with alice's and bob's children at work."""
    with Lab(names=("bob", "alice")) as lab:
        lab.start()
        for tenant in lab.tenants.values():
            assert lab.get(tenant.host).status == 200
        yield lab


def child_of(lab: Lab, name: str) -> int:
    """Return the pid of a tenant's only child."""
    (pid,) = lab.children(lab.tenants[name].uid)
    return pid


def own(lab: Lab, pid: int, kind: str) -> int:
    """Return a child's descriptor number of one kind."""
    return next(fd.number for fd in procs.look_at_fds(lab, pid) if fd.kind == kind)


NONSENSE = {
    "nothing known": control.FORMAT.pack(99, 0, 0, 0),
    "the dispatcher's kind": control.FORMAT.pack(control.MSG_DRAIN, 0, 0, 0),
    "too short": b"\x03",
    "too long": control.FORMAT.pack(control.MSG_LOAD, 0, 0, 0) + b"x",
    "a second ready": control.FORMAT.pack(control.MSG_READY, 0, 0, 1),
    "not zero": control.FORMAT.pack(control.MSG_LOAD, 1, 0, 0),
    "a megabyte": b"\xff" * 100_000,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_on_the_control_pair_ends_that_child_alone(lab: Lab, name: str) -> None:
    """A child that breaks the control protocol is killed; nobody else is touched, and its host is served by a successor."""
    alice, others = child_of(lab, "alice"), [child_of(lab, "bob"), *lab.children(lab.user_uid)]
    with procs.borrowed(alice, own(lab, alice, roles.CONTROL)) as sock:
        sock.send(NONSENSE[name])
    wait_until(lambda: not is_alive(alice), "that child is ended")
    assert lab.get("alice.test", "/whoami").json()["pid"] != alice
    assert [child_of(lab, "bob"), *lab.children(lab.user_uid)] == others


def test_descriptors_on_the_control_pair_do_not_stay(lab: Lab) -> None:
    """Descriptors that a child pushes to the dispatcher are not kept by it: its table is as before."""
    alice = child_of(lab, "alice")
    before = len(procs.descriptors(lab.pid))
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    with procs.borrowed(alice, own(lab, alice, roles.CONTROL)) as sock:
        for _ in range(20):
            sock.sendmsg([control.FORMAT.pack(control.MSG_LOAD, 0, 1, 1)],
                         [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    for fd in fds:
        os.close(fd)
    assert lab.status()["ok"]
    wait_until(lambda: len(procs.descriptors(lab.pid)) <= before, "nothing of it stays")
    assert lab.get("bob.test").status == 200


def test_lies_about_load_start_nothing(lab: Lab) -> None:
    """A tenant's child that claims any number of busy threads does not change how many children there are."""
    alice, before = child_of(lab, "alice"), lab.children()
    with procs.borrowed(alice, own(lab, alice, roles.CONTROL)) as sock:
        for idle, busy in ((0, 0xFFFFFFFF), (0xFFFF, 0), (0, 0)) * 100:
            sock.send(control.FORMAT.pack(control.MSG_LOAD, 0, idle, busy))
        looks = lab.status()["uptime_s"] + 2.5
        wait_until(lambda: lab.status()["uptime_s"] >= looks, "two looks around have passed")
    assert lab.children() == before


def test_random_bytes_in_the_page_move_nothing(lab: Lab) -> None:
    """R-SB-1, in short: alice's page is overwritten with random bytes through reloads, status and stop; nobody is affected."""
    alice, before = child_of(lab, "alice"), lab.children()
    fd = procs.open_page(lab, alice)
    with mmap.mmap(fd, wire_page.PAGE_BYTES) as page:
        for _ in range(50):
            page[:] = os.urandom(wire_page.PAGE_BYTES)
            assert lab.status()["ok"]
        assert lab.reload()["ok"]
        page[:] = b"\xff" * wire_page.PAGE_BYTES
        assert lab.get("bob.test").status == 200
    with pytest.raises(OSError, match="Operation not permitted"):  # sealed: no SIGBUS for who reads it
        os.ftruncate(fd, 0)
    os.close(fd)
    assert lab.children() == before
    assert "Traceback" not in lab.error_log()


def test_the_unassigned_inbox_shut_down_by_a_tenant_is_replaced(lab: Lab) -> None:
    """A tenant's child can shut down the inbox that it returns connections to: it is replaced, and returning works again."""
    alice = child_of(lab, "alice")
    with procs.borrowed(alice, own(lab, alice, roles.INBOX_WRITE)) as inbox:
        inbox.shutdown(socket.SHUT_WR)
    wait_until(lambda: "was shut down by a process that holds it" in lab.error_log(), "the dispatcher replaces it")
    for host in ("bob.test", "main.test", "alice.test"):
        assert lab.get(host).status == 200

    def returns() -> bool:
        with lab.connect() as sock:
            for host in ("alice.test", "bob.test"):
                sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                last = read_response(sock)
            return last.body == b"bob\n"

    wait_until(returns, "a kept connection is returned and passed on again")


def test_a_flooded_unassigned_inbox_delays_nobody(lab: Lab) -> None:
    """A tenant's child fills the unassigned children's inbox with refused messages: others are served all the while."""
    alice, sent = child_of(lab, "alice"), 0
    with procs.borrowed(alice, own(lab, alice, roles.INBOX_WRITE)) as inbox:
        for _ in range(10):
            try:
                while sent < 20_000:
                    inbox.send(struct.pack("<IHBBIIIBBH16sQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"", 0), socket.MSG_DONTWAIT)
                    sent += 1
            except BlockingIOError:
                pass
            assert lab.get("bob.test", timeout_s=5).status == 200
    assert sent > 100


def test_a_child_without_descriptors_recovers(lab: Lab) -> None:
    """R-PASS-2, G5: alice lowers her own child's limit of descriptors; bob is served, nothing spins, and she is back with it."""
    alice = child_of(lab, "alice")
    hard = limit_as_alice(lab, alice, 3)
    with lab.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: alice.test\r\nConnection: close\r\n\r\n")
        wait_until(lambda: procs.counter(lab, alice, "paused") > 0, "it pauses")
        start = cpu_ticks(alice)
        for _ in range(20):
            assert lab.get("bob.test", timeout_s=5).status == 200
        assert cpu_ticks(alice) - start < 20, "it spins without descriptors"
    limit_as_alice(lab, alice, hard)
    wait_until(lambda: lab.get("alice.test").status == 200, "it serves again")
    assert child_of(lab, "alice") == alice


def limit_as_alice(lab: Lab, pid: int, soft: int) -> int:
    """Set the soft limit of descriptors of alice's child, in a process of hers; return the hard one."""
    script = f"import resource as r; old = r.prlimit({pid}, r.RLIMIT_NOFILE); r.prlimit({pid}, r.RLIMIT_NOFILE, ({soft}, old[1])); print(old[1])"
    uid = lab.tenants["alice"].uid
    done = subprocess.run([PYTHON, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=30, user=uid, group=uid,
                          extra_groups=[], cwd="/")
    return int(done.stdout)


def cpu_ticks(pid: int) -> int:
    """Return the processor time that a process has used, in hundredths of a second."""
    with open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def job_box_of(child: int, runner: int) -> int:
    """Return a child's descriptor number of the write end of its runner's job box."""
    other = procs.peers()
    ours = {procs.inode_of(target) for target in procs.descriptors(runner).values() if target.startswith("socket:")}
    ends = {f"socket:[{other[inode]}]" for inode in ours & other.keys()}
    return next(number for number, target in procs.descriptors(child).items() if target in ends)


def test_a_job_box_shut_down_by_a_child_is_replaced() -> None:
    """Neither does the dispatcher fork runner after runner for it, nor do the tenant's programs stay away."""
    with make_lab() as lab:
        lab.start()
        assert lab.get("alice.test", "/cgi-bin/hello").body == b"hello\n"
        pids = {comm_of(pid)[:3]: pid for pid in tree_of(lab.pid) if uid_of(pid) == lab.tenants["alice"].uid}
        with procs.borrowed(pids["pc:"], job_box_of(pids["pc:"], pids["pr:"])) as box:
            box.shutdown(socket.SHUT_WR)
        wait_until(lambda: "the job box of #" in lab.error_log(), "the dispatcher replaces it")
        wait_until(lambda: lab.get("alice.test", "/cgi-bin/hello").status == 200, "her programs run again")
        assert lab.get("bob.test", "/cgi-bin/hello").body == b"hello\n"
        assert lab.error_log().count("was shut down by a process that holds it") == 1
