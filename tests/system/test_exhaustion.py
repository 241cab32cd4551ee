"""Out of descriptors: accepting pauses, nothing spins, nothing that was accepted is dropped, and all is well when there are some again."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boundary import procs
from tests.lab import Lab, Response, parse_response, read_all, read_response, uid_of, wait_until
from tests.load import Load, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LOOK_S = 2.0
NO_PLACE = "TLSV1_ALERT_INTERNAL_ERROR"  # a handshake is refused with it
MAX_SHARE = 0.10  # of one processor, while there is nothing that can be done


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def share_of_cpu(*pids: int) -> float:
    """Return how much of one processor these processes use within LOOK_S (a measured time: nothing can be waited for)."""
    before_s = sum(cpu_s(pid) for pid in pids)
    with contextlib.suppress(TimeoutError):
        select.select([], [], [], LOOK_S)
    return (sum(cpu_s(pid) for pid in pids) - before_s) / LOOK_S


@contextlib.contextmanager
def few_descriptors(pid: int, more: int) -> Iterator[None]:
    """This process may open exactly `more` descriptors (the limit is on the number, and the lowest free one is taken)."""
    used = procs.lasting_descriptors(pid)
    free = [number for number in range(len(used) + more + 1) if number not in used]
    limit = soft_limit(pid)
    set_soft_limit(pid, free[more])
    try:
        yield
    finally:
        set_soft_limit(pid, limit)


def soft_limit(pid: int) -> int:
    """Return how many descriptors a process may have."""
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open files"))
    return int(line.split()[3])


def set_soft_limit(pid: int, limit: int) -> None:
    """Set it as the process's own user: root may do it only with CAP_SYS_RESOURCE, which a container need not have."""
    uid = uid_of(pid)
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={limit}:"], user=uid, group=uid, extra_groups=[], check=True, timeout=60)


def ask(lab: Lab, host: str, path: str = "/", *, closes: bool = True) -> socket.socket:
    """Connect and ask; the answer is read later."""
    sock = lab.connect(timeout_s=30)
    close = "Connection: close\r\n" if closes else ""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n".encode())
    return sock


def begin(lab: Lab, host: str) -> socket.socket:
    """Connect and send a head that says whose it is and does not end."""
    sock = lab.connect(timeout_s=30)
    sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n".encode())
    return sock


def finish(sock: socket.socket) -> Response:
    """Read the answer to the end of the connection."""
    with sock:
        return parse_response(read_all(sock))


def readable(socks: list[socket.socket]) -> list[socket.socket]:
    """Return those on which something has come."""
    return select.select(socks, [], [], 0)[0]


@pytest.mark.plain("who is not accepted makes no handshake, and its clients would wait for it")
def test_accepting_child_without_descriptors_pauses_and_goes_on() -> None:
    """The only accepting child may open five more: what it cannot take waits in the backlog, it does not spin, none is lost."""
    with Lab("NumServers 1\nKeepAliveTimeout 60\n", names=("alice",)) as lab:
        lab.config_tail = lab.main_block()
        lab.start()
        assert lab.get("main.test").status == 200
        assert lab.get("alice.test").status == 200  # whose child is there from now on
        pid, = lab.children(lab.user_uid)
        wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "it holds none")
        fds_before = procs.lasting_descriptors(pid)
        with few_descriptors(pid, 5):
            held = [begin(lab, "main.test") for _ in range(5)]
            waiting = [ask(lab, "main.test") for _ in range(30)]
            wait_until(lambda: procs.counter(lab, pid, "paused") > 0, "accepting pauses")
            assert share_of_cpu(pid, lab.pid) < MAX_SHARE
            answered = len(readable(waiting))
            for sock in held[:2]:  # two connections end: the others get through, one after the other
                sock.close()
            wait_until(lambda: len(readable(waiting)) == 30, f"all are answered ({answered} were)")
            assert {finish(sock).status for sock in waiting[:10]} <= {200, 503}
        assert lab.get("main.test").status == 200
        assert lab.get("alice.test").status == 200
        assert all(finish(sock).status in {200, 503} for sock in waiting[10:])
        for sock in held:
            sock.close()
        procs.wait_for_descriptors(pid, fds_before)
        assert "no room for another connection; pausing" in lab.error_log()
        lab.stop()


def options(sock: socket.socket, host: str) -> int:
    """Ask what needs no file, and return the status."""
    sock.sendall(f"OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return read_response(sock).status


@pytest.mark.parametrize("host", ["main.test", "alice.test"])
@pytest.mark.parametrize("shortage", ["descriptors", "places", "places of HTTP/2"])
def test_full_child_closes_those_first_that_have_been_idle_for_longest(host: str, shortage: str) -> None:
    """Every place is a kept connection's: newcomers are served within moments, and it is the longest idle that are closed for them."""
    h2 = True if shortage == "places of HTTP/2" else None  # whose requests need places, too
    with Lab("NumServers 1\nKeepAliveTimeout 60\n", names=("alice",), h2=h2) as lab, contextlib.ExitStack() as stack:
        lab.config_tail = lab.main_block()
        if shortage != "descriptors":
            lab.prefix = ["prlimit", "--nofile=200:200", "--"]
        lab.start()
        assert lab.get(host).status == 200
        pid, = lab.children(lab.user_uid if host == "main.test" else lab.tenants["alice"].uid)
        wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "it holds none")
        fds_before = procs.lasting_descriptors(pid)
        if shortage == "descriptors":
            stack.enter_context(few_descriptors(pid, 6))
            seen_s = time.monotonic() + 2  # it looks at its limit four times a second
            wait_until(lambda: time.monotonic() > seen_s, "it has seen its new limit")
        kept: list[socket.socket] = []
        while len(readable(kept)) < 8:
            assert len(kept) < 200, "nobody was closed"
            kept.append(stack.enter_context(lab.connect()))
            assert options(kept[-1], host) == 200
        closed = [sock in readable(kept) for sock in kept]
        assert closed == sorted(closed, reverse=True), "one that has been idle for less was closed first"
        assert all(sock.recv(1) == b"" for sock, is_closed in zip(kept, closed, strict=True) if is_closed)
        assert [options(sock, host) for sock, is_closed in zip(kept, closed, strict=True) if not is_closed].count(200) >= 5
        stack.close()
        procs.wait_for_descriptors(pid, fds_before)
        lab.stop()


@pytest.mark.plain("who is not accepted makes no handshake, and its clients would wait for it")
def test_accepting_goes_on_when_the_limit_is_raised() -> None:
    """Not one more descriptor: everybody waits, nobody is dropped; with a raised limit all are answered."""
    with Lab("NumServers 1\n", names=("alice",)) as lab:
        lab.start()
        assert lab.get("alice.test").status == 200
        pid, = lab.children(lab.user_uid)
        wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "it holds none")
        with few_descriptors(pid, 0):
            waiting = [ask(lab, "alice.test") for _ in range(50)]
            wait_until(lambda: procs.counter(lab, pid, "paused") > 0, "accepting pauses")
            assert share_of_cpu(pid, lab.pid) < MAX_SHARE
            assert not readable(waiting)
        wait_until(lambda: len(readable(waiting)) == 50, "all are answered")
        assert {finish(sock).status for sock in waiting} == {200}
        lab.stop()


@pytest.mark.http1("half a head")
@pytest.mark.plain("who is not accepted makes no handshake, and its clients would wait for it")
def test_tenant_without_descriptors_loses_no_connection_in_its_inbox() -> None:
    """A tenant's child may open two more: further connections stay in its inbox, the child does not spin, others are not touched."""
    with Lab("NumServers 1\nKeepAliveTimeout 60\n", names=("alice", "bob")) as lab:
        lab.start()
        assert lab.get("alice.test").status == 200
        pid, = lab.children(lab.tenants["alice"].uid)
        wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "it holds none")
        fds_before = procs.lasting_descriptors(pid)
        with few_descriptors(pid, 2):
            slow = [begin(lab, "alice.test") for _ in range(2)]
            wait_until(lambda: procs.counter(lab, pid, "connections") == 2, "both places are taken")
            seen_s = time.monotonic() + 2  # it looks at its limit four times a second
            wait_until(lambda: time.monotonic() > seen_s, "it has seen its new limit")
            waiting = [ask(lab, "alice.test") for _ in range(20)]
            wait_until(lambda: procs.counter(lab, pid, "paused") > 0, "receiving pauses")
            assert share_of_cpu(pid, lab.pid) < MAX_SHARE
            assert lab.get("bob.test").status == 200
        assert lab.get("alice.test").status == 200
        assert [finish(sock).status for sock in waiting] == [200] * 20
        for sock in slow:
            sock.sendall(b"\r\n")
            assert read_response(sock).status == 200
            sock.close()
        procs.wait_for_descriptors(pid, fds_before)
        lab.stop()


def test_file_that_cannot_be_opened_is_answered_503_and_leaks_nothing() -> None:
    """A kept connection in the last place: its file cannot be opened now, which is said; with a raised limit it can."""
    with Lab("NumServers 1\nKeepAliveTimeout 60\n", names=("alice",)) as lab:
        lab.tenants["alice"].write("new.txt", "new\n")
        lab.start()
        assert lab.get("alice.test").status == 200
        pid, = lab.children(lab.tenants["alice"].uid)
        wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "it holds none")
        fds_before = procs.lasting_descriptors(pid)
        sock = ask(lab, "alice.test", closes=False)
        assert read_response(sock).status == 200
        wait_until(lambda: len(procs.lasting_descriptors(pid)) == len(fds_before) + 1, "the file is closed")
        with few_descriptors(pid, 0):
            sock.sendall(b"GET /new.txt HTTP/1.1\r\nHost: alice.test\r\n\r\n")
            response = read_response(sock)
            assert response.status == 503
        if response.fields.get("connection", "").lower() != "close":
            sock.sendall(b"GET /new.txt HTTP/1.1\r\nHost: alice.test\r\n\r\n")
            assert read_response(sock).body == b"new\n"
        sock.close()
        assert lab.get("alice.test", "/new.txt").body == b"new\n"
        procs.wait_for_descriptors(pid, fds_before)
        lab.stop()


def test_low_limit_from_the_start_serves_more_clients_than_descriptors() -> None:
    """LimitNOFILE of 200, 400 clients on kept connections: each is served in the end, or told 503; nothing is dropped."""
    with Lab("NumServers 1\nKeepAliveTimeout 1\n", names=("alice", "bob")) as lab:
        lab.prefix = ["prlimit", "--nofile=200:200", "--"]
        lab.start()
        secrets = write_secrets(lab)
        with Load(lab, secrets, clients=400, pace_s=0.2, keep=4, timeout_s=30) as load:
            load.wait_answers(3000, 90)
            report = load.stop()
        print(report.summary())
        told = [one for one in report.bad() if not (lab.tls and one.error == NO_PLACE)]
        if lab.tls or lab.h2:  # their clients take so long that a kept connection is closed while they write: that is asked anew (RFC 9110 9.2.2)
            told = [one for one in told if not (one.error == "end" and one.host_before)]
        assert all(not one.error for one in told), report.summary()
        assert all(one.status == 503 and one.has_retry_after for one in told), report.summary()
        assert len(report.bad()) < len(report.answers) / 2
        for host in secrets:
            assert lab.get(host).status == 200
        lab.stop()


@pytest.mark.http1("a stream for which there is no place is refused by a frame")
def test_downloads_that_take_every_descriptor_drop_nobody() -> None:
    """LimitNOFILE of 400 and more slow downloads than that allows (two descriptors each): who comes is served, or told 503."""
    with Lab("NumServers 1\n", names=("alice", "bob")) as lab, contextlib.ExitStack() as stack:
        lab.prefix = ["prlimit", "--nofile=400:400", "--"]
        lab.tenants["alice"].write("big.bin", b"x" * (8 << 20))
        lab.start()
        assert lab.get("alice.test").status == 200
        pid, = lab.children(lab.tenants["alice"].uid)
        downloads = [stack.enter_context(ask(lab, "alice.test", "/big.bin")) for _ in range(230)]
        wait_until(lambda: len(procs.descriptors(pid)) > 380, "nearly every descriptor is taken")
        assert lab.get("bob.test").status == 200
        wait_until(lambda: len(readable(downloads)) > 200, "many are answered")
        assert share_of_cpu(pid, lab.pid) < MAX_SHARE
        answered = readable(downloads)
        assert {parse_head(sock) for sock in answered} <= {200, 503}
        for sock in answered:
            downloads.remove(sock)
            sock.close()
        wait_until(lambda: len(readable(downloads)) == len(downloads), "the rest is answered when these have ended")
        assert {parse_head(sock) for sock in downloads} <= {200, 503}
        stack.close()
        wait_until(lambda: lab.get("alice.test").status == 200 and len(procs.descriptors(pid)) < 40, "nothing is left open")
        lab.stop()


def parse_head(sock: socket.socket) -> int:
    """Return the status of an answer that goes on; 0: the connection was dropped without one."""
    try:
        raw = sock.recv(4096)
    except ConnectionResetError:
        return 0
    return int(raw.split(b" ", 2)[1]) if raw.startswith(b"HTTP/1.1 ") else 0
