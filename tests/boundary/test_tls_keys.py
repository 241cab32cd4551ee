"""A tenant's TLS key is in its own child's memory and in no other process; whoever passes a connection on has read nothing of it.

Runs as: root.  Source: security.md R-TLS-1, R-TLS-3; docs/security.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boundary import procs
from tests.certs import make_certificate, private_numbers
from tests.lab import Lab, Tenant, read_response, tree_of, wait_until
from tests.tls import client_context

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
NAMES = ("alice", "bob")


class KeyLab(Lab):
    """Each tenant has a certificate of each kind."""

    def __init__(self, accept_scope: str) -> None:
        super().__init__(names=NAMES, accept_scope=accept_scope, tls=True)
        self.rsa = {name: make_certificate(self.tls_directory, f"{name}.test", kind="rsa", file=f"{name}-rsa") for name in NAMES}

    def host_block(self, tenant: Tenant, extra: str = "") -> str:
        """Return a tenant's host with its second certificate."""
        return super().host_block(tenant, f"{extra}\n{self.rsa[tenant.name].directives().replace('SSLEngine On', '')}")

    def secrets(self, name: str) -> list[bytes]:
        """Return every form of what is secret of a tenant's keys: numbers, and a line of each file."""
        keys = (self.rsa[name], self.certificates[name])
        return [form for one in keys for form in (*private_numbers(one), one.key.read_bytes().splitlines()[2])]


@pytest.fixture(scope="module", params=["unassigned", "any"])
def lab(request: pytest.FixtureRequest) -> Iterator[KeyLab]:
    """A server that has compiled twice, and made handshakes with every key."""
    with KeyLab(request.param) as lab:
        lab.config = "NumServers 1\n"
        if request.param == "any":
            lab.config = "NumServers 5\n" + "".join(f"ChildPerUserID #{one.uid} #{one.uid} {index}\n"
                                                    for index, one in enumerate(lab.tenants.values(), 1))
        lab.start()
        assert lab.reload()["ok"]
        for name in NAMES:
            for algorithms in ("ECDSA+SHA256", "RSA-PSS+SHA256"):
                done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{lab.port}", "-servername", f"{name}.test", "-sigalgs",
                                       algorithms], input=b"Q\n", capture_output=True, timeout=30, check=False)
                assert b"Peer signature type: " + algorithms.split("+")[0].encode() in done.stdout
        count = 5 if request.param == "any" else 1 + len(NAMES)
        wait_until(lambda: len(lab.children()) == count, "what the reload has replaced is gone")
        wait_until(lambda: procs.has_ready_children(lab), "those that were not asked have begun as well")
        yield lab


def child_of(lab: KeyLab, name: str) -> int:
    """Return the pid of the child that serves a tenant now."""
    return lab.children(lab.tenants[name].uid)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_key_is_in_its_own_child_and_nowhere_else(lab: KeyLab, name: str) -> None:
    """Primes, exponents, private numbers, in both orders of bytes, and the file's text; every process of the server is searched."""
    own = child_of(lab, name)
    others = [pid for pid in tree_of(lab.pid) if pid not in lab.children(lab.tenants[name].uid)]
    assert {0, lab.user_uid} < {int(procs.read_status(pid)["Uid"].split()[1]) for pid in others}
    for one in (lab.rsa[name], lab.certificates[name]):
        assert sum(procs.count_in_memory(own, form) for form in private_numbers(one)) > 0, "the search finds nothing at all"
    found = {pid: procs.count_in_memory(pid, form) for form in lab.secrets(name) for pid in others if procs.count_in_memory(pid, form)}
    assert not found, {pid: Path(f"/proc/{pid}/comm").read_text() for pid in found}


def test_no_process_holds_a_key_file_open(lab: KeyLab) -> None:
    """The descriptors that the dispatcher has opened for a child are closed everywhere."""
    for pid in tree_of(lab.pid):
        assert not [target for target in procs.descriptors(pid).values() if target.startswith(str(lab.tls_directory))]


def test_a_child_wipes_the_text_of_its_key(lab: KeyLab) -> None:
    """Only the key itself stays of the file."""
    for name in NAMES:
        for one in (lab.rsa[name], lab.certificates[name]):
            lines = one.key.read_bytes().splitlines()[1:-1]
            assert procs.count_in_memory(child_of(lab, name), b"\n".join(lines[:2])) == 0


@pytest.mark.parametrize("lab", ["unassigned"], indirect=True)  # else the tenant's own child may be the one that accepts
def test_the_sender_of_a_hand_off_has_read_nothing(lab: KeyLab) -> None:
    """The child that accepts looks at the ClientHello, and takes no byte of it: every reading call on that socket is a look."""
    sender = wait_until(lambda: found[0] if len(found := lab.children(lab.user_uid)) == 1 else 0, "the child before the reload to end")
    watched = "accept4,read,readv,pread64,recvfrom,recvmsg,sendto,sendmsg,write,splice,close"
    with procs.traced(sender, lab.base / "trace", watched) as trace:
        with lab.connect_tls("alice.test") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: alice.test\r\n\r\n")
            assert read_response(sock).body == b"alice\n"
        wait_until(lambda: "sendmsg(" in procs.whole_calls(trace), "the hand-off in the trace")
    text = procs.whole_calls(trace)
    (fd,) = re.findall(r"accept4\(.*\) = (\d+)$", text, re.MULTILINE)
    calls = re.findall(rf"^\d+ +(\w+)\({fd},(.*)$", text, re.MULTILINE)
    looks = [line for call, line in calls if call == "recvfrom" and "MSG_PEEK" in line]
    assert looks
    assert [call for call, line in calls if call != "close" and line not in looks] == []
    assert any(call == "sendmsg" for call, _ in re.findall(r"^\d+ +(\w+)\((\d+),", text, re.MULTILINE))


def first_random(lab: KeyLab, name: str) -> bytes:
    """Return the random bytes of the ServerHello (RFC 8446 4.1.3) that a new child of a tenant says first."""
    for pid in lab.children(lab.tenants[name].uid):
        os.kill(pid, signal.SIGKILL)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname=f"{name}.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", lab.port), timeout=10) as sock:
        sock.sendall(outgoing.read())
        head = b""
        while len(head) < 43:
            part = sock.recv(4096)
            assert part, "the connection was closed"
            head += part
    assert head[0] == 22  # handshake
    assert head[5] == 2  # ServerHello
    return head[11:43]


@pytest.mark.parametrize("lab", ["unassigned"], indirect=True)
def test_children_of_one_nursery_draw_their_own_random_numbers(lab: KeyLab) -> None:
    """OpenSSL's state is inherited from where they were forked, and must not be gone on with."""
    said = [first_random(lab, name) for _ in range(3) for name in NAMES]
    assert len(set(said)) == len(said)
    assert len({one[:8] for one in said}) == len(said)
