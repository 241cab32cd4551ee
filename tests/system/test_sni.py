"""TLS connections are routed by the name in their ClientHello, which nobody reads but its owner; whatever else comes to a TLS port."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.boundary import procs
from tests.certs import make_certificate
from tests.lab import Lab, Tenant, free_port, parse_response, read_all, wait_until

ALERTS = {50: "decode_error", 80: "internal_error", 112: "unrecognized_name"}
TARGET = b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"


class SniLab(Lab):
    """Tenants with a host by TLS on one port; alice's is the first there. With fronts, PROXY protocol headers come first."""

    def __init__(self, *, with_fronts: bool = False, config: str = "") -> None:
        super().__init__(config, tls=False)
        self.tls_port = free_port()
        extra = "RemoteIPProxyProtocol On\n" if with_fronts else ""
        for tenant in self.tenants.values():
            self.config_tail += self.sni_block(tenant, extra)
        self.config += f"\nListen 127.0.0.1:{self.tls_port} https\n"

    def sni_block(self, tenant: Tenant, extra: str = "") -> str:
        """Return a tenant's VirtualHost on the TLS port."""
        made = make_certificate(self.base, tenant.host)
        return self.host_block(tenant, made.directives() + extra).replace(f":{self.port}>", f":{self.tls_port}>")

    def dial(self) -> socket.socket:
        """Return a connection to the TLS port."""
        sock = socket.create_connection(("127.0.0.1", self.tls_port), timeout=30)
        self._socks.add(sock)
        return sock

    def shake(self, name: str | None, sock: socket.socket | None = None) -> ssl.SSLSocket:
        """Return a connection whose handshake named `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock or self.dial(), server_hostname=name)

    def fetch(self, name: str | None, host: str = "", sock: socket.socket | None = None) -> tuple[str, int, bytes]:
        """Return whose certificate was shown, and status and body of the answer."""
        with self.shake(name, sock) as tls:
            raw = tls.getpeercert(binary_form=True)
            assert raw is not None
            owner = next(one.host for one in self.tenants.values() if one.host.encode() in raw)
            tls.sendall(TARGET % (host or name or owner).encode())
            answer = parse_response(read_all(tls))
            return owner, answer.status, answer.body


@pytest.fixture(scope="module")
def lab() -> Iterator[SniLab]:
    """A running server."""
    with SniLab() as lab:
        lab.start()
        yield lab


def hello_of(name: str | None) -> bytes:
    """Return the bytes of a ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def alert_of(raw: bytes) -> str:
    """Return the name of the one alert that was answered, unencrypted."""
    assert len(raw) == 7, raw
    assert raw[0] == 21
    assert raw[5] == 2
    return ALERTS[raw[6]]


@pytest.mark.parametrize("name", ["alice.test", "bob.test", "carol.test", "BOB.test"])
def test_each_name_is_answered_by_its_owner(lab: SniLab, name: str) -> None:
    """With its certificate, and its page."""
    tenant = name.lower().partition(".")[0]
    assert lab.fetch(name) == (name.lower(), 200, f"{tenant}\n".encode())


@pytest.mark.parametrize("name", [None, "nobody.test", "192.0.2.1"])
def test_no_name_and_a_strangers_are_the_first_hosts(lab: SniLab, name: str | None) -> None:
    """As in httpd; the request then names it, or has no host here."""
    owner, status, _ = lab.fetch(name, "alice.test")
    assert (owner, status) == ("alice.test", 200)


def test_a_request_for_another_identity_is_misdirected(lab: SniLab) -> None:
    """The handshake was bob's: so is all that follows, and a client that is told 421 connects anew."""
    assert lab.fetch("bob.test", "alice.test")[1] == 421
    assert lab.fetch(None, "carol.test")[1] == 421


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_hello_in_pieces_is_routed_when_its_name_is_there(lab: SniLab, size: int) -> None:
    """However it is cut into segments."""
    hello = hello_of("bob.test")
    with lab.dial() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(hello), size):
            sock.sendall(hello[at : at + size])
        answer = sock.recv(5)
    assert answer[0] == 22


def test_a_hello_in_many_records_is_routed(lab: SniLab) -> None:
    """The owner's OpenSSL puts it together again."""
    body = hello_of("carol.test")[5:]
    with lab.dial() as sock:
        sock.sendall(b"".join(b"\x16\x03\x01" + len(body[at : at + 40]).to_bytes(2, "big") + body[at : at + 40] for at in range(0, len(body), 40)))
        assert sock.recv(5)[0] == 22


def test_plain_http_on_a_tls_port_is_told_so(lab: SniLab) -> None:
    """In httpd's words."""
    with lab.dial() as sock:
        sock.sendall(TARGET % b"alice.test")
        answer = parse_response(read_all(sock))
    assert answer.status == 400
    assert b"Reason: You're speaking plain HTTP to an SSL-enabled server port." in answer.body
    assert "AH01996" not in lab.error_log()  # of no interest at the usual LogLevel


@pytest.mark.parametrize(("raw", "alert"), [
    (b"\x00\x01\x02\x03\x04\x05", "decode_error"), (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "decode_error"),
    (b"\x16\x03\x01\x40\x01", "decode_error"), (b"\x80\x2e\x01\x03\x01\x00", "decode_error"),
])
def test_what_is_neither_is_ended_by_an_alert(lab: SniLab, raw: bytes, alert: str) -> None:
    """Nothing in plain words; nobody else notices."""
    with lab.dial() as sock:
        sock.sendall(raw)
        assert alert_of(read_all(sock)) == alert
    assert lab.fetch("bob.test")[1] == 200


def test_a_name_that_no_host_can_have_is_refused(lab: SniLab) -> None:
    """With the alert that says so."""
    raw = hello_of("bobxtest").replace(b"bobxtest", b"bob\0test")
    with lab.dial() as sock:
        sock.sendall(raw)
        assert alert_of(read_all(sock)) == "unrecognized_name"


def test_a_hello_that_does_not_end_is_not_waited_for(lab: SniLab) -> None:
    """A client that has finished sending is let go of."""
    with lab.dial() as sock:
        sock.sendall(hello_of("bob.test")[:50])
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""


def test_the_plain_port_is_plain(lab: SniLab) -> None:
    """Hosts of both ports are the same tenant's."""
    assert lab.get("alice.test").body == b"alice\n"


def test_a_host_that_is_broken_refuses_alone() -> None:
    """Its clients get an alert, the log says why; the others are served."""
    lab = SniLab()
    with lab:
        (lab.base / "bob.test.key").write_text((lab.base / "carol.test.key").read_text())
        lab.start()
        with lab.dial() as sock:
            sock.sendall(hello_of("bob.test"))
            assert alert_of(read_all(sock)) == "internal_error"
        wait_until(lambda: "is not that of the certificate" in lab.error_log(), "the reason to be logged")
        assert lab.fetch("alice.test")[1] == 200
        assert lab.fetch("carol.test")[1] == 200


def test_keys_that_only_root_can_read_are_used_and_closed(lab: SniLab) -> None:
    """0600 of root, whose directory others may only pass through; and no process has one open."""
    key = os.stat(lab.base / "alice.test.key")
    assert (key.st_uid, key.st_mode & 0o777) == (0, 0o600)
    assert lab.fetch("alice.test")[1] == 200
    for pid in lab.children():
        assert not [path for path in procs.descriptors(pid).values() if path.endswith(".key")]


def test_a_key_in_a_tenants_home_is_opened_by_the_tenant() -> None:
    """Where root must not follow the path; and if the tenant cannot read it, the host is broken, not the server."""
    lab = SniLab()
    with lab:
        for name in ("alice", "bob"):
            tenant = lab.tenants[name]
            source = lab.base / f"{tenant.host}.key"
            path = tenant.write("../key.pem", source.read_bytes())
            if name == "bob":
                os.chown(path, 0, 0)
            lab.config_tail = lab.config_tail.replace(f"SSLCertificateKeyFile {source}\n", f"SSLCertificateKeyFile {tenant.home}/key.pem\n")
        lab.start()
        assert lab.fetch("alice.test")[1] == 200
        with lab.dial() as sock:
            sock.sendall(hello_of("bob.test"))
            assert alert_of(read_all(sock)) == "internal_error"
        assert lab.fetch("carol.test")[1] == 200


@pytest.mark.parametrize(("said", "wanted"), [("h2 http/1.1", "h2"), ("http/1.1 h2", "http/1.1"), ("http/1.1", "http/1.1"), ("h2", "h2")])
def test_protocols_are_chosen_in_the_order_that_is_said(said: str, wanted: str) -> None:
    """As Protocols has them, whatever the client's order."""
    lab = SniLab(config=f"Protocols {said}\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1", "h2"])
    with lab:
        lab.start()
        with context.wrap_socket(lab.dial(), server_hostname="bob.test") as tls:
            assert tls.selected_alpn_protocol() == wanted


def test_any_child_that_listens_routes_without_a_key() -> None:
    """AcceptScope any: whoever accepts hands over to the owner, or keeps its own."""
    lab = SniLab()
    lab.accept_scope = "any"
    fixed = [lab.tenants[name].uid for name in ("alice", "bob")]
    lab.config += "NumServers 3\n" + "".join(f"ChildPerUserID #{uid} #{uid} {number}\n" for number, uid in enumerate(fixed, 1))
    with lab:
        lab.start()
        for _ in range(20):
            for name in lab.tenants:
                assert lab.fetch(f"{name}.test") == (f"{name}.test", 200, f"{name}\n".encode())


def test_hosts_without_a_user_and_users_with_many_keys() -> None:
    """The unassigned children get their keys at another fork; and more keys than one message to the nursery takes are no matter."""
    lab = SniLab()
    source = make_certificate(lab.base, "many.test")
    for number in range(250):
        key = lab.base / f"many{number}.key"
        shutil.copy(source.key, key)
        lab.config_tail += (f"<VirtualHost *:{lab.tls_port}>\nServerName h{number}.many.test\nDocumentRoot {lab.tenants['alice'].docroot}\n"
                            f"AssignUserID #{lab.tenants['alice'].uid} #{lab.tenants['alice'].uid}\nSSLEngine On\nSSLCertificateFile {source.cert}\n"
                            f"SSLCertificateKeyFile {key}\n</VirtualHost>\n")
    main = make_certificate(lab.base, "main.test")
    lab.config_tail += f"<VirtualHost *:{lab.tls_port}>\nServerName main.test\nDocumentRoot {lab.main_root}\n{main.directives()}</VirtualHost>\n"
    with lab:
        lab.start()
        for name, page in (("h249.many.test", b"alice\n"), ("main.test", b"main\n"), ("bob.test", b"bob\n")):
            with lab.shake(name) as tls:
                tls.sendall(TARGET % name.encode())
                answer = parse_response(read_all(tls))
            assert (answer.status, answer.body) == (200, page)


def test_a_front_ends_header_comes_before_tls() -> None:
    """It is read by who accepts; the ClientHello behind it stays in the socket for its owner."""
    lab = SniLab(with_fronts=True)
    with lab:
        lab.start()
        for name in ("alice.test", "bob.test"):
            sock = lab.dial()
            sock.sendall(b"PROXY TCP4 192.0.2.77 192.0.2.1 5000 443\r\n")
            assert lab.fetch(name, sock=sock)[:2] == (name, 200)
        wait_until(lambda: (lab.log / "access.log").read_text().count("192.0.2.77") == 2, "the client's address in the log")
        with lab.dial() as sock:
            sock.sendall(hello_of("bob.test"))
            assert read_all(sock) == b""
