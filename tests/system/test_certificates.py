"""Certificates of a live server: a change is taken up by its own identity, by a reload or without being told; nobody else notices."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.boundary import procs
from tests.certs import Certificate, make_certificate
from tests.lab import Lab, free_port, wait_until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificate]:
    """Certificates to be put in place."""
    directory = tmp_path_factory.mktemp("made")
    return {name: make_certificate(directory, "alice.test", file=name) for name in ("first", "second")}


class TlsLab(Lab):
    """A lab whose tenants have a host by TLS besides, on another port; certificates lie in `certs`, root's alone."""

    def __init__(self, made: dict[str, Certificate]) -> None:
        super().__init__(names=("alice", "bob"), tls=False)
        self.tls_port = free_port()
        self.certs = self.base / "certs"
        self.certs.mkdir(0o700)
        for tenant in self.tenants.values():
            self.put(tenant.name, made["first"])
            self.config_tail += self.host_block(tenant, self.files(tenant.name).directives()).replace(f":{self.port}>", f":{self.tls_port}>")
        self.config += f"Listen 127.0.0.1:{self.tls_port} https\n"

    def files(self, name: str) -> Certificate:
        """Return where a tenant's certificate lies."""
        return Certificate(self.certs / f"{name}.crt", self.certs / f"{name}.key")

    def put(self, name: str, one: Certificate) -> None:
        """Put a certificate and its key in place, each by a rename."""
        for source, target in ((one.cert, self.files(name).cert), (one.key, self.files(name).key)):
            shutil.copy(source, f"{target}.new")
            Path(f"{target}.new").chmod(0o600)
            Path(f"{target}.new").rename(target)

    def shown(self, name: str) -> bytes:
        """Return the certificate that a client sees, and get a page with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.tls_port), timeout=10) as plain, context.wrap_socket(plain, server_hostname=f"{name}.test") as tls:
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}.test\r\nConnection: close\r\n\r\n".encode())
            assert tls.recv(4096).startswith(b"HTTP/1.1 200 ")
            return tls.getpeercert(binary_form=True) or b""

    def child_of(self, name: str) -> int:
        """Return the pid of a tenant's child, which a request has made there be."""
        assert self.get(f"{name}.test").status == 200
        return self.children(self.tenants[name].uid)[-1]


def der_of(one: Certificate) -> bytes:
    """Return a certificate as clients get it."""
    return ssl.PEM_cert_to_DER_cert(one.cert.read_text())


def shows(lab: TlsLab, one: Certificate) -> bool:
    """Return whether alice's clients see this certificate."""
    return lab.shown("alice") == der_of(one)


class Visitors:
    """Clients that come to alice all the time, until the block ends; none may be refused. seen: the certificates that they were shown."""

    def __init__(self, lab: TlsLab, count: int) -> None:
        self.lab = lab
        self.seen: set[bytes] = set()
        self.wrong: list[Exception] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(count)]

    def __enter__(self) -> Self:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._is_over.set()
        for one in self._threads:
            one.join()
        if reason[0] is None:
            assert self.wrong == []

    def wait_seen(self, count: int = 1) -> None:
        """Wait until so many certificates have been shown, or somebody was refused."""
        wait_until(lambda: len(self.seen) >= count or self.wrong, f"a visitor has seen {count} of them")

    def _visit(self) -> None:
        while not self._is_over.is_set():
            try:
                self.seen.add(self.lab.shown("alice"))
            except (OSError, AssertionError) as error:
                self.wrong.append(error)


@pytest.fixture
def lab(made: dict[str, Certificate]) -> Iterator[TlsLab]:
    """A running server."""
    with TlsLab(made) as lab:
        lab.start()
        yield lab


def test_a_changed_certificate_is_taken_up_without_being_told(lab: TlsLab, made: dict[str, Certificate]) -> None:
    """Alice gets a new child, and only alice."""
    alice, bob = lab.child_of("alice"), lab.child_of("bob")
    assert lab.shown("alice") == der_of(made["first"])
    lab.put("alice", made["second"])
    wait_until(lambda: lab.shown("alice") == der_of(made["second"]), "alice's certificate to be taken up")
    assert lab.child_of("alice") != alice
    assert lab.child_of("bob") == bob
    assert lab.shown("bob") == der_of(made["first"])
    assert "certificates of #" in lab.error_log()


KEPT = "until then the host goes on with what it had"


@pytest.mark.parametrize("order", [("cert", "key"), ("key", "cert")])
def test_half_a_pair_breaks_no_handshake(lab: TlsLab, made: dict[str, Certificate], order: tuple[str, str]) -> None:
    """Clients come all the time: they see the old certificate until the pair is whole, though the first half is long read by then."""
    child = lab.child_of("alice")
    with Visitors(lab, 1) as visitors:
        visitors.wait_seen()
        first, last = ({"cert": (made["second"].cert, lab.files("alice").cert), "key": (made["second"].key, lab.files("alice").key)}[one]
                       for one in order)
        shutil.copy(*first)
        wait_until(lambda: KEPT in lab.error_log(), "the log to say what is wrong")
        assert lab.shown("alice") == der_of(made["first"])
        assert lab.child_of("alice") == child
        assert visitors.seen == {der_of(made["first"])}
        assert lab.reload()["ok"]
        assert lab.shown("alice") == der_of(made["first"])
        shutil.copy(*last)
        wait_until(lambda: lab.shown("alice") == der_of(made["second"]), "alice's certificate to be taken up")
    assert "is not that of the certificate" in lab.error_log()
    assert "TLS of alice.test is out of order" not in lab.error_log()


def test_what_no_child_has_any_more_is_broken_and_mended(lab: TlsLab, made: dict[str, Certificate]) -> None:
    """The key of before is not on disk: a child that has it goes on, one that is started anew cannot."""
    alice = lab.child_of("alice")
    shutil.copy(made["second"].key, lab.files("alice").key)
    wait_until(lambda: KEPT in lab.error_log(), "the log to say what is wrong")
    os.kill(alice, signal.SIGKILL)
    wait_until(lambda: alice not in lab.children(), "alice's child to be gone")
    assert lab.get("alice.test").status == 200
    wait_until(lambda: "TLS of alice.test is out of order" in lab.error_log(), "the log to say that there is none left")
    lab.put("alice", made["second"])

    def is_mended() -> bool:
        try:
            return lab.shown("alice") == der_of(made["second"])
        except OSError:
            return False

    wait_until(is_mended, "alice's certificate to be taken up", timeout_s=60)


def test_a_reload_takes_it_up_too(lab: TlsLab, made: dict[str, Certificate]) -> None:
    """With the identity's children alone."""
    alice, bob = lab.child_of("alice"), lab.child_of("bob")
    lab.put("alice", made["second"])
    lab.reload()
    assert lab.child_of("alice") != alice
    assert lab.child_of("bob") == bob


def test_reloads_swap_certificates_without_a_failed_request(lab: TlsLab, made: dict[str, Certificate]) -> None:
    """Clients come all the time, and each sees one certificate or the other."""
    with Visitors(lab, 3) as visitors:
        visitors.wait_seen()
        for name in ("second", "first", "second"):
            lab.put("alice", made[name])
            lab.reload()
            wait_until(partial(shows, lab, made[name]), "the certificate to be shown")
        visitors.wait_seen(2)
    assert visitors.seen == {der_of(made["first"]), der_of(made["second"])}


def test_a_sleeping_tenant_wakes_with_the_new_certificate(made: dict[str, Certificate]) -> None:
    """No child is started with the certificate of before: the request that wakes it waits for a moment."""
    lab = TlsLab(made)
    lab.config += "IdleTimeout 1\n"
    with lab:
        lab.start()
        lab.child_of("alice")
        wait_until(lambda: not lab.children(lab.tenants["alice"].uid), "alice to sleep")
        lab.put("alice", made["second"])
        assert lab.shown("alice") == der_of(made["second"])
        assert "certificates of #" in lab.error_log()


class OwnKeys(TlsLab):
    """As TlsLab, but certificates lie where their tenant may change the path: its child opens the key itself, after the fork."""

    def files(self, name: str) -> Certificate:
        """Return where a tenant's certificate lies."""
        home = self.tenants[name].home
        return Certificate(home / "own.crt", home / "own.key")

    def put(self, name: str, one: Certificate) -> None:
        """Put a certificate and its key in place, which are the tenant's."""
        super().put(name, one)
        for path in (self.files(name).cert, self.files(name).key):
            os.chown(path, self.tenants[name].uid, self.tenants[name].uid)


def test_a_pair_that_is_put_in_place_while_a_child_starts_breaks_no_handshake(made: dict[str, Certificate]) -> None:
    """The child's record has the certificate of before, the key is the new one: it ends before it serves, and the request waits."""
    with OwnKeys(made) as lab, concurrent.futures.ThreadPoolExecutor() as clients:
        lab.start()
        assert lab.get("bob.test").status == 200  # the nursery forks
        os.kill(lab.nursery, signal.SIGSTOP)
        try:
            shown = clients.submit(lab.shown, "alice")
            wait_until(lambda: procs.is_receiving(lab.pid), "the dispatcher has asked the nursery for alice's child")
            lab.put("alice", made["second"])
        finally:
            os.kill(lab.nursery, signal.SIGCONT)
        assert shown.result() == der_of(made["second"])
        assert "is no longer its certificate's" in lab.error_log()
        assert "TLS of alice.test is out of order" not in lab.error_log()


def test_a_key_that_its_child_cannot_open_breaks_its_host_alone(made: dict[str, Certificate]) -> None:
    """Root can, who has looked at it before: the child that finds that out ends once, and the next one serves what it can."""
    with OwnKeys(made) as lab:
        os.chown(lab.files("alice").key, 0, 0)
        lab.start()
        for _ in range(2):
            with pytest.raises((OSError, AssertionError)):
                lab.shown("alice")
            assert lab.get("alice.test").status == 200
        assert lab.shown("bob") == der_of(made["first"])
        assert "TLS of alice.test is out of order" in lab.error_log()


def test_the_dispatcher_holds_no_key(lab: TlsLab) -> None:
    """Nor does a child that is ready."""
    lab.child_of("alice")
    for pid in (lab.pid, lab.nursery, *lab.children()):
        assert not [path for path in procs.descriptors(pid).values() if path.startswith(str(lab.certs))]
