"""TLS through a real server: curl, openssl s_client and Python's clients; sessions, certificates, programs, logs.

Runs as: root, which starts the server.  Source: RFC 8446, RFC 5246; httpd 2.4's mod_ssl for variables and statuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild.control.client import ask_server
from perchild.control.watch import take
from tests.certs import make_certificate, sign_certificate
from tests.lab import Lab, Tenant, free_port, join_chunks, parse_response, read_all, read_response, wait_until
from tests.php import PHP_FPM, PhpFpm
from tests.tls import client_context

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
LARGE = 20 << 20
ENV = ("#!/usr/bin/python3\nimport json, os\nprint('Content-Type: application/json\\n')\nprint(json.dumps(dict(os.environ)))\n")
SUM = ("#!/usr/bin/python3\nimport hashlib, sys\nbody = sys.stdin.buffer.read()\n"
       "print('Content-Type: text/plain\\n')\nprint(len(body), hashlib.sha256(body).hexdigest())\n")
PHP = "<?php $in = file_get_contents('php://input'); echo json_encode([$_SERVER['HTTPS'], strlen($in), hash('sha256', $in)]);"


class TlsLab(Lab):
    """alice has two kinds of certificate and programs, bob is as tenants are, carol asks clients for a certificate."""

    def __init__(self) -> None:
        super().__init__(tls=True)
        self.plain_port = free_port()
        alice = self.tenants["alice"]
        self.rsa = make_certificate(self.tls_directory, alice.host, kind="rsa", file="alice-rsa")
        self.authority = make_certificate(self.tls_directory, "authority")
        self.joe = sign_certificate(self.tls_directory, "joe", self.authority)
        self.config = (f"Listen 127.0.0.1:{self.plain_port}\nKeepAliveTimeout 20\nMaxKeepAliveRequests 0\n"
                       f'CustomLog {self.log}/tls.log "%v %{{SSL_PROTOCOL}}x %{{SSL_CIPHER}}x %{{SSL_SESSION_RESUMED}}x %{{nonsense}}x %U %>s"\n')
        self.config_tail = (f"<VirtualHost *:{self.plain_port}>\nServerName {alice.host}\nDocumentRoot {alice.docroot}\n"
                            f"AssignUserID #{alice.uid} #{alice.uid}\n<Directory {alice.docroot}>\nRequire all granted\n</Directory>\n"
                            "<Location /secure>\nSSLRequireSSL\n</Location>\n</VirtualHost>\n")
        middle = sign_certificate(self.tls_directory, "middle", self.authority, is_authority=True)
        self.config_tail += "".join(
            f"<VirtualHost *:{self.port}>\nServerName {name}.alice.test\nDocumentRoot {alice.docroot}\nAssignUserID #{alice.uid} #{alice.uid}\n"
            f"<Directory {alice.docroot}>\nRequire all granted\n</Directory>\n{made.directives()}{more}</VirtualHost>\n" for name, made, more in (
                ("chain", sign_certificate(self.tls_directory, "chain.alice.test", middle), f"SSLCACertificateFile {middle.cert}\n"),
                ("modern", make_certificate(self.tls_directory, "modern.alice.test"), "SSLProtocol TLSv1.3\n"),
                ("other", make_certificate(self.tls_directory, "other.alice.test"), "SSLCipherSuite ECDHE-ECDSA-AES128-GCM-SHA256\n"),
                ("same", make_certificate(self.tls_directory, "same.alice.test"), "")))
        for name, text in (("env", ENV), ("sum", SUM)):
            alice.write(f"cgi-bin/{name}", text, 0o755)
        alice.write("info.php", PHP)
        alice.write("large", os.urandom(LARGE))
        alice.write("secure/index.html", "secure\n")
        alice.write("folder/index.html", "folder\n")

    def host_block(self, tenant: Tenant, extra: str = "") -> str:
        """Return a tenant's host with what it has besides."""
        more = {
            "alice": f"SSLCertificateFile {self.rsa.cert}\nSSLCertificateKeyFile {self.rsa.key}\n"
                     f"ScriptAlias /cgi-bin/ {tenant.docroot}/cgi-bin/\n<Location /secure>\nSSLRequireSSL\n</Location>\n"
                     "<Location /cgi-bin/>\nSSLOptions +StdEnvVars\n</Location>\n"
                     f'<FilesMatch "\\.php$">\nSetHandler "proxy:unix:{tenant.home}/fpm.sock|fcgi://localhost/"\n</FilesMatch>\n',
            "carol": f"SSLVerifyClient require\nSSLVerifyDepth 1\nSSLCACertificateFile {self.authority.cert}\n",
            "bob": f"Protocols h2 http/1.1\nSSLVerifyClient optional\nSSLVerifyDepth 1\nSSLCACertificateFile {self.authority.cert}\n"
                   "<Location /members>\nSSLVerifyClient require\n</Location>\n<Location /members/hall>\nSSLVerifyClient none\n</Location>\n",
        }
        return super().host_block(tenant, extra + more.get(tenant.name, ""))

    def url(self, name: str, path: str = "/") -> list[str]:
        """Return curl's arguments for a page of a tenant, whose certificate is the one that is believed."""
        return ["--resolve", f"{name}.test:{self.port}:127.0.0.1", "--cacert", str(self.certificates[name].cert),
                f"https://{name}.test:{self.port}{path}"]

    def s_client(self, name: str, *arguments: str, text: str = "") -> str:
        """Return what openssl s_client prints; text is what it sends."""
        done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", f"{name}.test", *arguments],
                              input=text or "Q\n", capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def lab() -> Iterator[TlsLab]:
    """A running server."""
    with TlsLab() as lab:
        lab.start()
        yield lab


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run curl."""
    return subprocess.run(["curl", "--silent", "--show-error", "--max-time", "30", *arguments], capture_output=True, check=False)


def ask(sock: ssl.SSLSocket, host: str, path: str = "/", *, last: bool = False) -> tuple[int, bytes]:
    """Make one request on a connection; return status and body."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{'Connection: close' if last else 'X: y'}\r\n\r\n".encode())
    answer = parse_response(read_all(sock)) if last else read_response(sock)
    return answer.status, answer.body


# ------------------------------------------------------------------ clients


@pytest.mark.parametrize("version", VERSIONS)
def test_curl_believes_the_certificate_and_gets_the_page(lab: TlsLab, version: str) -> None:
    """Each tenant's page comes with the tenant's own certificate."""
    for name in ("alice", "bob"):
        done = curl(f"--tlsv{version}", "--tls-max", version, *lab.url(name))
        assert (done.returncode, done.stdout) == (0, f"{name}\n".encode()), done.stderr


def test_another_tenants_certificate_is_not_shown(lab: TlsLab) -> None:
    """A client that believes bob alone is not given alice's page."""
    done = curl("--cacert", str(lab.certificates["bob"].cert), *lab.url("alice")[:2], f"https://alice.test:{lab.port}/")
    assert done.returncode == 60


def test_old_protocols_are_not_spoken(lab: TlsLab) -> None:
    """TLS 1.1 gets an alert, whatever the client would accept."""
    text = lab.s_client("alice", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    assert "alert protocol version" in text
    assert "New, (NONE)" in text


def test_both_kinds_of_certificate_are_served(lab: TlsLab) -> None:
    """What the client can check decides."""
    kinds = [re.findall(r"Peer signature type: (\S+)", lab.s_client("alice", "-sigalgs", one))[0]
             for one in ("ECDSA+SHA256", "RSA-PSS+SHA256")]
    assert kinds == ["ECDSA", "RSA-PSS"]


def test_there_is_no_compression_no_renegotiation_and_no_early_data(lab: TlsLab) -> None:
    """As s_client sees it; a wish for a new handshake is not granted, and the connection serves on or ends."""
    text = lab.s_client("alice", "-tls1_2")
    assert "Compression: NONE" in text
    assert "Secure Renegotiation IS supported" in text
    assert "Max Early Data: 0" in lab.s_client("alice", "-tls1_3", "-ign_eof", text="GET / HTTP/1.0\r\nHost: alice.test\r\n\r\n")
    text = lab.s_client("alice", "-tls1_2", text="R\n")
    assert "RENEGOTIATING" in text
    assert "no renegotiation" in text


@pytest.mark.parametrize("version", VERSIONS)
def test_a_kept_connection_serves_many_requests(lab: TlsLab, version: str) -> None:
    """One after the other, then a hundred at once, then the end is said."""
    with lab.connect_tls("alice.test", context=client_context(VERSIONS[version])) as sock:
        assert sock.version() == f"TLSv{version}"
        for _ in range(100):
            assert ask(sock, "alice.test") == (200, b"alice\n")
        many = b"GET / HTTP/1.1\r\nHost: alice.test\r\n\r\n" * 99 + b"GET / HTTP/1.1\r\nHost: alice.test\r\nConnection: close\r\n\r\n"
        sock.sendall(many)
        assert read_all(sock).count(b"\r\n\r\nalice\n") == 100  # a missing goodbye would be an SSLEOFError


@pytest.mark.parametrize("version", VERSIONS)
def test_a_large_file_arrives_whole(lab: TlsLab, version: str) -> None:
    """To a client that reads little at a time, too."""
    want = hashlib.sha256((lab.tenants["alice"].docroot / "large").read_bytes()).hexdigest()
    done = curl(f"--tlsv{version}", "--tls-max", version, *lab.url("alice", "/large"))
    assert hashlib.sha256(done.stdout).hexdigest() == want, done.stderr
    done = curl(f"--tlsv{version}", "--tls-max", version, "--range", "1000000-1999999", *lab.url("alice", "/large"))
    assert done.stdout == (lab.tenants["alice"].docroot / "large").read_bytes()[1_000_000:2_000_000]
    got = hashlib.sha256()
    with lab.connect_tls("alice.test", context=client_context(VERSIONS[version])) as sock:
        sock.sendall(b"GET /large HTTP/1.0\r\nHost: alice.test\r\n\r\n")
        head, _, body = sock.recv(4096).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        got.update(body)
        while part := sock.recv(3001):
            got.update(part)
    assert got.hexdigest() == want


def test_a_directory_is_for_those_who_have_shown_a_certificate(lab: TlsLab) -> None:
    """The host asks, the section refuses who showed none, by HTTP/1.1 and HTTP/2; a section within it may let everybody in again."""
    for name in ("members", "members/hall"):
        lab.tenants["bob"].write(f"{name}/index.html", f"{name}\n")
    shown = ["--cert", str(lab.joe.cert), "--key", str(lab.joe.key)]
    for version in ("--http1.1", "--http2"):
        def ask_for(path: str, *more: str, version: str = version) -> bytes:
            return curl(version, "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}", *more, *lab.url("bob", path)).stdout

        spoken = b" 2" if version == "--http2" else b" 1.1"
        assert ask_for("/members/") == b"403" + spoken
        assert ask_for("/members/", *shown) == b"200" + spoken
        assert ask_for("/members/hall/") == b"200" + spoken
        assert ask_for("/") == b"200" + spoken
    wait_until(lambda: "AH02263: access to" in lab.error_log(), what="the refusal in the error log")


# ------------------------------------------------------------------ sessions


def visit(lab: TlsLab, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
    """Make a request on a new connection; return whether its session was resumed, and the next one."""
    raw = socket.create_connection(("127.0.0.1", lab.port), timeout=30)
    with context.wrap_socket(raw, server_hostname=name, session=session) as sock:
        assert ask(sock, name)[0] == 200
        reused, found = sock.session_reused, sock.session
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        read_all(sock)
        assert reused is not None
        assert found is not None
        return reused, found


def counted(lab: TlsLab, name: str) -> list[int]:
    """Return how many handshakes of a tenant were full, resumed, failed."""
    one, = (one for one in take(str(lab.run))["identities"] if one["uid"] == lab.tenants[name].uid)
    return [one["tls_handshakes"], one["tls_resumed"], one["tls_failed"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_outlives_its_child(lab: TlsLab, version: str) -> None:
    """The successor has the identity's ticket keys from the dispatcher."""
    context = client_context(VERSIONS[version])
    reused, session = visit(lab, context, "alice.test", None)
    assert not reused
    reused, session = visit(lab, context, "alice.test", session)
    assert reused
    for pid in lab.children(lab.tenants["alice"].uid):
        os.kill(pid, signal.SIGKILL)
    reused, session = visit(lab, context, "alice.test", session)
    assert reused
    assert lab.reload()["ok"]
    reused, session = visit(lab, context, "alice.test", session)
    assert reused


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_for_its_own_name(lab: TlsLab, version: str) -> None:
    """Alice's ticket is nothing to bob's child: a full handshake, not an error."""
    context = client_context(VERSIONS[version])
    session = visit(lab, context, "alice.test", None)[1]
    assert not visit(lab, context, "bob.test", session)[0]
    assert visit(lab, context, "alice.test", session)[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_s_client_resumes(lab: TlsLab, tmp_path: Path, version: str) -> None:
    """With the session that it wrote to a file."""
    option, path = f"-tls{version.replace('.', '_')}", str(tmp_path / "session")
    request = "GET / HTTP/1.0\r\nHost: bob.test\r\n\r\n"
    first = lab.s_client("bob", option, "-sess_out", path, "-ign_eof", text=request)
    second = lab.s_client("bob", option, "-sess_in", path, "-ign_eof", text=request)
    assert f"New, TLSv{version}" in first
    assert f"Reused, TLSv{version}" in second
    assert first.count("\nbob\n") == second.count("\nbob\n") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_handshakes_are_counted(lab: TlsLab, version: str) -> None:
    """As perchildctl and the metrics show them, of their identity: full ones, resumed ones, and what came to nothing."""
    before = counted(lab, "alice")
    context = client_context(VERSIONS[version])
    visit(lab, context, "alice.test", visit(lab, context, "alice.test", None)[1])
    assert "alert protocol version" in lab.s_client("alice", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    wait_until(lambda: [now - then for now, then in zip(counted(lab, "alice"), before, strict=True)] == [1, 1, 1], "one of each")


# ------------------------------------------------------------------ who may ask for what


def test_a_request_for_anothers_host_is_misdirected(lab: TlsLab) -> None:
    """The connection came for alice: bob's page is not to be had on it, under whatever name."""
    for host, status in (("bob.test", 421), ("nobody.test", 421), ("alice.test", 200), ("ALICE.test:443", 200)):
        with lab.connect_tls("alice.test") as sock:
            assert ask(sock, "alice.test")[0] == 200
            assert ask(sock, host)[0] == status
    assert "AH02032: Hostname bob.test is not served on the TLS connection to alice.test" in lab.error_log()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_host_that_speaks_otherwise_is_another_connections(lab: TlsLab, version: str) -> None:
    """Of one identity: protocols and ciphers of the one count for the other's requests only if they are the same, as in httpd."""
    with lab.connect_tls("alice.test", context=client_context(VERSIONS[version])) as sock:
        statuses = [ask(sock, f"{name}.alice.test")[0] for name in ("same", "modern")]
    with lab.connect_tls("alice.test") as sock:
        statuses += [ask(sock, "other.alice.test")[0]]
    assert statuses == [200, 421, 421]


def test_a_chain_may_be_among_the_authorities_of_clients(lab: TlsLab) -> None:
    """As panels write it: the issuer in SSLCACertificateFile, where no client is asked for a certificate."""
    arguments = ["--resolve", f"chain.alice.test:{lab.port}:127.0.0.1", "--cacert", str(lab.authority.cert)]
    done = curl(*arguments, f"https://chain.alice.test:{lab.port}/")
    assert (done.returncode, done.stdout) == (0, b"alice\n"), done.stderr
    told = lab.s_client("chain.alice", "-showcerts")
    assert told.count("BEGIN CERTIFICATE") == 2
    assert "No client certificate CA names sent" in told


def test_clients_show_a_certificate_where_they_must(lab: TlsLab) -> None:
    """carol's host: with joe's, but not without one, and not with one that nobody has signed."""
    joe, other = lab.joe, lab.certificates["bob"]
    for version in VERSIONS:
        limits = (f"--tlsv{version}", "--tls-max", version)
        assert curl(*limits, "--cert", str(joe.cert), "--key", str(joe.key), *lab.url("carol")).stdout == b"carol\n"
        assert curl(*limits, *lab.url("carol")).returncode != 0
        assert curl(*limits, "--cert", str(other.cert), "--key", str(other.key), *lab.url("carol")).returncode != 0
        assert curl(*limits, *lab.url("bob")).stdout == b"bob\n"


def test_what_must_be_encrypted_is_refused_in_plain(lab: TlsLab) -> None:
    """SSLRequireSSL, on the plain port of the same host."""
    base = ["--resolve", f"alice.test:{lab.plain_port}:127.0.0.1", "--write-out", " %{http_code}"]
    assert curl(*base, f"http://alice.test:{lab.plain_port}/").stdout == b"alice\n 200"
    assert curl(*base, f"http://alice.test:{lab.plain_port}/secure/").stdout.endswith(b" 403")
    assert curl(*lab.url("alice", "/secure/")).stdout == b"secure\n"
    assert "AH02219: access to" in lab.error_log()


def test_plain_http_on_the_port_is_told_so(lab: TlsLab) -> None:
    """400 and a sentence, as httpd; nothing of a tenant's."""
    done = curl("--write-out", " %{http_code}", "--header", "Host: alice.test", f"http://127.0.0.1:{lab.port}/")
    assert done.stdout.endswith(b" 400")
    assert b"alice\n" not in done.stdout


# ------------------------------------------------------------------ programs, logs, links


def test_programs_learn_of_tls(lab: TlsLab) -> None:
    """HTTPS, the scheme, the port, and with StdEnvVars mod_ssl's variables."""
    done = curl("--tlsv1.3", *lab.url("alice", "/cgi-bin/env"))
    env = json.loads(done.stdout)
    wanted = {"HTTPS": "on", "REQUEST_SCHEME": "https", "SERVER_PORT": str(lab.port), "SSL_PROTOCOL": "TLSv1.3",
              "SSL_TLS_SNI": "alice.test", "SSL_CLIENT_VERIFY": "NONE", "SSL_SERVER_S_DN_CN": "alice.test", "SSL_SESSION_RESUMED": "Initial",
              "SSL_CIPHER_USEKEYSIZE": "256"}
    assert {name: env.get(name) for name in wanted} == wanted
    assert "SSL_SERVER_CERT" not in env
    assert env["SSL_VERSION_LIBRARY"].startswith("OpenSSL/")


def test_a_body_reaches_programs(lab: TlsLab, tmp_path: Path) -> None:
    """CGI and PHP; with a length and without."""
    body = os.urandom(3 << 20)
    (tmp_path / "body").write_bytes(body)
    want = hashlib.sha256(body).hexdigest()
    for more in ((), ("--header", "Transfer-Encoding: chunked")):
        done = curl("--data-binary", f"@{tmp_path}/body", *more, *lab.url("alice", "/cgi-bin/sum"))
        assert done.stdout.decode().split() == [str(len(body)), want], done.stderr
    if not PHP_FPM:
        pytest.fail("php-fpm is missing: apt-get install php-fpm")
    with contextlib.closing(PhpFpm(lab.tenants["alice"])):
        done = curl("--data-binary", f"@{tmp_path}/body", "--header", "Content-Type: application/octet-stream", *lab.url("alice", "/info.php"))
        assert json.loads(done.stdout) == ["on", len(body), want]


def test_a_slow_client_gets_an_answer_that_is_made_meanwhile(lab: TlsLab) -> None:
    """A body that comes in pieces, and an answer that follows it; 100 Continue in between."""
    with lab.connect_tls("alice.test") as sock:
        sock.sendall(b"POST /cgi-bin/sum HTTP/1.1\r\nHost: alice.test\r\nContent-Length: 60\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert sock.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for number in range(60):
            sock.sendall(bytes([number]))
        head, _, rest = read_all(sock).partition(b"\r\n\r\n")
        body = join_chunks(rest) if b"chunked" in head else rest
        assert body.decode().split() == ["60", hashlib.sha256(bytes(range(60))).hexdigest()]


def test_logs_say_how_it_was_encrypted(lab: TlsLab) -> None:
    """%{SSL_PROTOCOL}x and its like, - where there is nothing to say."""
    marker = f"/log-{time.monotonic_ns()}"
    curl("--tlsv1.3", *lab.url("alice", marker))
    curl("--resolve", f"alice.test:{lab.plain_port}:127.0.0.1", f"http://alice.test:{lab.plain_port}{marker}")
    lines = wait_until(lambda: found if len(found := re.findall(rf".* {marker} .*", (lab.log / "tls.log").read_text())) == 2 else None,
                       "both lines in the log")
    assert f"alice.test TLSv1.3 TLS_AES_256_GCM_SHA384 Initial - {marker} 404" in lines
    assert f"alice.test - - - - {marker} 404" in lines


def test_redirects_lead_to_https(lab: TlsLab) -> None:
    """A directory without its slash: with the scheme and the port of the request."""
    done = curl("--write-out", "%{redirect_url}", "--output", "/dev/null", *lab.url("alice", "/folder"))
    assert done.stdout.decode() == f"https://alice.test:{lab.port}/folder/"


# ------------------------------------------------------------------ a new certificate under load


class Clients:
    """Threads that ask without a pause, on new and on kept connections, and note every failure."""

    def __init__(self, lab: TlsLab) -> None:
        """Begin."""
        self.lab, self.failures, self.answers = lab, [], 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(5 if number % 2 == 0 else 1,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    failures: list[str]

    def _run(self, requests: int) -> None:
        while not self._end.is_set():
            try:
                with self.lab.connect_tls("bob.test") as sock:
                    left = requests
                    while left > 0:
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: bob.test\r\n\r\n")
                        answer = read_response(sock)
                        left = left - 1 if answer.fields.get("connection") != "close" else 0
                        if (answer.status, answer.body) != (200, b"bob\n"):
                            self.failures.append(repr(answer))
                        self.answers += 1
            except OSError as error:
                self.failures.append(repr(error))

    def finish(self) -> None:
        """End them."""
        self._end.set()
        for thread in self._threads:
            thread.join(30)


def serial(lab: TlsLab, name: str) -> str:
    """Return the serial number of the certificate that is shown now."""
    with lab.connect_tls(f"{name}.test") as sock:
        raw = sock.getpeercert(binary_form=True)
        assert raw is not None
        return hashlib.sha256(raw).hexdigest()


def test_a_reload_swaps_a_certificate_under_load(lab: TlsLab) -> None:
    """Five times; no request fails, and from the reload on the new one is shown."""
    clients = Clients(lab)
    try:
        for number in range(5):
            before, target = serial(lab, "bob"), lab.certificates["bob"]
            fresh = make_certificate(lab.tls_directory, "bob.test", file=f"fresh-{number}")
            for source, to in ((fresh.key, target.key), (fresh.cert, target.cert)):
                shutil.move(source, to)
            assert ask_server(str(lab.run), {"op": "graceful"})["ok"]
            wait_until(lambda: serial(lab, "bob") != before, "the new certificate is shown", 20)  # noqa: B023 - called within the turn
    finally:
        clients.finish()
    assert not clients.failures, clients.failures[:5]
    assert clients.answers > 50
