"""SIGSTOP of one process: the others serve on as before, and its own clients are answered 503 instead of waiting for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from perchild import limits
from tests.boundary import procs
from tests.lab import Lab, parse_response, read_all, wait_until
from tests.load import Load, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
STOP_S = 60.0 if os.environ.get("PERCHILD_LONG") else 10.0
QUIET_S = 4.0  # several times as long as the accepting child keeps a connection for a full inbox
OTHERS = ("alice", "bob", "carol")
VICTIM = "dave"


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            wait_until(lambda pid=pid: procs.is_stopped(pid), f"{pid} stops")
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def ask(lab: Lab, host: str, path: str = "/") -> socket.socket:
    """Connect and ask; the answer is read later."""
    sock = lab.connect(timeout_s=60)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    return sock


def test_stopped_tenant_harms_no_other() -> None:
    """One tenant's child stands still while its clients come: the others have no error, and none of them waits for it.

    Who had to wait for it would wait for most of STOP_S. Times before and during are measured in one run, with the same load on the
    others, and printed. The victim's inbox and held-back connections are filled by clients of its own, so the accepting children do have work with it.
    """
    with Lab("NumServers 2\n", names=(*OTHERS, VICTIM)) as lab:
        lab.start()
        secrets = write_secrets(lab)
        victim = {f"{VICTIM}.test": secrets.pop(f"{VICTIM}.test")}
        assert lab.get(f"{VICTIM}.test").status == 200
        pids = lab.children(lab.tenants[VICTIM].uid)
        with Load(lab, secrets, clients=60, pace_s=0.1, name="others") as others:
            others.wait_answers(300)  # everybody is awake
            start_s = time.monotonic()
            while time.monotonic() < start_s + 3:
                others.wait_answers(20)
            stop_s = time.monotonic()
            with Load(lab, victim, clients=200, pace_s=0.1, keep=1, timeout_s=2 * STOP_S, name="victim") as own:
                with stopped(*pids):
                    while time.monotonic() < stop_s + STOP_S:
                        others.wait_answers(20)
                    end_s = time.monotonic()
                own.wait_answers(200, of=lambda one: one.is_good)  # it goes on where it stood
                own_report = own.stop()
            others_report = others.stop()
        lab.stop()
    before, during = others_report.between(start_s, stop_s), others_report.between(stop_s, end_s)
    print(f"others: median {before.median_s() * 1e3:.2f} -> {during.median_s() * 1e3:.2f} ms, "
          f"p99 {before.percentile_s(0.99) * 1e3:.1f} -> {during.percentile_s(0.99) * 1e3:.1f} ms; victim: {own_report.summary()}")
    assert not others_report.bad(), others_report.summary()
    assert during.median_s() < STOP_S / 4
    refused = [one for one in own_report.answers if not one.is_good]
    assert refused
    assert all(not one.error and one.status == 503 and one.has_retry_after for one in refused), own_report.summary()
    assert min(one.done_s for one in refused) < end_s, "nobody was refused before it went on"


def test_queued_clients_of_a_stopped_child_are_served_when_it_goes_on() -> None:
    """What lies in the inbox is answered after SIGCONT; a client that went away meanwhile costs nothing and hangs nothing."""
    with Lab(names=(VICTIM,)) as lab:
        lab.start()
        host = f"{VICTIM}.test"
        assert lab.get(host).status == 200
        pid, = lab.children(lab.tenants[VICTIM].uid)
        with stopped(pid):
            patient = [ask(lab, host) for _ in range(20)]
            gone = [ask(lab, host) for _ in range(20)]
            wait_until(lambda: sum(procs.counter(lab, one, "handed_out") for one in lab.children(lab.user_uid)) >= 41, "all are handed over")
            for sock in gone:
                sock.close()
        for sock in patient:
            with sock:
                assert parse_response(read_all(sock)).status == 200
        wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "the stale ones are closed")
        assert lab.get(host).status == 200


def readable(socks: list[socket.socket]) -> list[socket.socket]:
    """Return those that can be read from now or soon (select knows descriptors below 1,024 only)."""
    poller = select.poll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poller.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poller.poll(20)]


def test_connections_beyond_the_inbox_are_refused_in_time_and_none_hangs() -> None:
    """A stopped child's inbox holds some, the accepting child some more for a second; the rest gets 503 at once, with Retry-After."""
    wanted = 85 + limits.value("MAX_WAITING") + 60
    with Lab("NumServers 1\n", names=("alice", VICTIM)) as lab:
        lab.start()
        host = f"{VICTIM}.test"
        assert lab.get(host).status == 200
        pid, = lab.children(lab.tenants[VICTIM].uid)
        with stopped(pid):
            socks = [ask(lab, host) for _ in range(wanted)]
            assert lab.get("alice.test").body == b"alice\n"
            refused = []
            end_s = time.monotonic() + 30
            quiet_s = time.monotonic() + QUIET_S
            while time.monotonic() < (end_s if len(refused) < 60 + limits.value("MAX_WAITING") - 20 else quiet_s):
                for sock in readable(socks):
                    socks.remove(sock)
                    with sock:
                        refused.append(parse_response(read_all(sock)))
                    quiet_s = time.monotonic() + QUIET_S
            assert len(refused) >= 60 + limits.value("MAX_WAITING") - 20
            assert {one.status for one in refused} == {503}
            assert all(one.fields.get("retry-after") for one in refused)
        for sock in socks:
            with sock:
                assert parse_response(read_all(sock)).status == 200
        assert lab.get(host).status == 200


def stop_an_acceptor(lab: Lab, pid: int, secrets: dict[str, bytes]) -> None:
    """Stop a process that listens, once it holds no connection, and have a thousand new connections served by the others."""
    wait_until(lambda: procs.counter(lab, pid, "connections") == 0, "it has none of its own")
    with stopped(pid), Load(lab, secrets, clients=100, pace_s=0.05, keep=1, timeout_s=30) as load:
        load.wait_answers(1000)
        report = load.stop()
    assert not report.bad(), report.summary()


def test_stopped_unassigned_child_is_not_waited_for() -> None:
    """One of four unassigned children stands still: new connections are taken by the others."""
    with Lab("NumServers 4\n", names=OTHERS) as lab:
        lab.start()
        secrets = write_secrets(lab)
        pids = wait_until(lambda: len(lab.children(lab.user_uid)) == 4 and lab.children(lab.user_uid), "four children accept")
        stop_an_acceptor(lab, pids[0], secrets)
        lab.stop()


def test_stopped_tenant_that_listens_is_not_waited_for() -> None:
    """AcceptScope any: a tenant's own child holds the listeners and stands still; the others' connections are taken by others."""
    with Lab(names=("alice", "bob"), accept_scope="any") as lab:
        lab.config = f"NumServers 3\nChildPerUserID #{lab.tenants['alice'].uid} #{lab.tenants['alice'].uid} 1\n"
        lab.start()
        secrets = write_secrets(lab)
        pids = wait_until(lambda: lab.children(lab.tenants["alice"].uid), "alice's child is there")
        del secrets["alice.test"]
        stop_an_acceptor(lab, pids[0], secrets)
        lab.stop()
