"""HTTP/2 on the wire, as its users speak it: curl, nghttp and h2load from Debian, over TLS and by prior knowledge; every tenant's own.

What a client can do with single frames is in tests/native/test_h2.c.
Runs as: root, which starts the server.
"""

from __future__ import annotations

import hashlib
import os
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, Tenant, read_response, wait_until
from tests.system.h2wire import H2Client
from tests.tls import client_context

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

BIG = hashlib.shake_128(b"h2").digest(3_000_000)
ECHO = """#!/bin/sh
printf 'Content-Type: text/plain\\nX-Https: %s %s\\n\\n%s %s ' "$HTTPS" "$SSL_TLS_SNI" "$SERVER_PROTOCOL" "$REQUEST_METHOD"
id -u
cat
"""


class H2Lab(Lab):
    """Hosts with programs, on a port that speaks HTTP/2 by prior knowledge."""

    def host_block(self, tenant: Tenant, extra: str = "") -> str:
        """One host, with its own /cgi/."""
        return super().host_block(tenant, f"{extra}\nScriptAlias /cgi/ {tenant.docroot}/cgi/\n")


@pytest.fixture(scope="module", params=["h2c", "h2"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A server that speaks HTTP/2 without TLS, or with it."""
    with H2Lab(f"Protocols {request.param} http/1.1\n", tls=request.param == "h2") as one:
        for tenant in one.tenants.values():
            tenant.write("big", BIG)
            tenant.write("cgi/echo", ECHO, 0o700)
        yield one.start()


def curl(lab: Lab, *arguments: str, host: str = "alice.test", data: bytes | None = None) -> tuple[int, bytes]:
    """Ask once; return status and body. The last argument is the path."""
    command = ["curl", "--silent", "--show-error", "--http2" if lab.tls else "--http2-prior-knowledge", "--insecure", "--max-time", "60",
               "--resolve", f"{host}:{lab.port}:127.0.0.1", "--write-out", "\n%{http_code} %{http_version}", *arguments[:-1],
               f"{'https' if lab.tls else 'http'}://{host}:{lab.port}{arguments[-1]}"]
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=90)
    body, _, tail = done.stdout.rpartition(b"\n")
    status, version = tail.split()
    assert version == b"2"
    return int(status), body


def connect(lab: Lab, host: str = "alice.test") -> H2Client:
    """A connection of frames."""
    if not lab.tls:
        return H2Client(lab.connect())
    context = client_context()
    context.set_alpn_protocols(["h2"])
    sock = lab.connect_tls(host, context=context)
    assert sock.selected_alpn_protocol() == "h2"
    return H2Client(sock)


@pytest.mark.parametrize("name", ["alice", "bob", "carol"])
def test_each_tenant_serves_its_own(lab: Lab, name: str) -> None:
    status, body = curl(lab, "/", host=f"{name}.test")
    assert (status, body) == (200, f"{name}\n".encode())
    status, body = curl(lab, "/cgi/echo", host=f"{name}.test")
    assert status == 200
    assert body.split() == [b"HTTP/2.0", b"GET", str(lab.tenants[name].uid).encode()]


def test_a_large_file_arrives_whole(lab: Lab) -> None:
    assert curl(lab, "/big") == (200, BIG)
    assert curl(lab, "--range", "1000000-1999999", "/big") == (206, BIG[1000000:2000000])


def test_a_body_goes_to_its_program_and_back(lab: Lab) -> None:
    status, body = curl(lab, "--data-binary", "@-", "/cgi/echo", data=BIG)
    assert status == 200
    head, _, rest = body.partition(b"\n")
    assert head.split()[1] == b"POST"
    assert rest == BIG
    status, body = curl(lab, "--upload-file", "-", "/cgi/echo", data=BIG)  # of unknown length
    assert (status, body.partition(b"\n")[2]) == (200, BIG)


def test_python_answers_on_a_stream(lab: Lab) -> None:
    status, body = curl(lab, "/whoami")
    assert status == 200
    assert f'"uid": {lab.tenants["alice"].uid}'.encode() in body


def test_a_connection_of_one_tenant_is_not_anothers(lab: Lab) -> None:
    """Whoever it came to, a foreign name is 421 on its stream, and the connection goes on."""
    with connect(lab) as one:
        streams = [one.ask(host) for host in ("alice.test", "bob.test", "main.test", "alice.test")]
        answers = [one.finish(number) for number in streams]
        assert [answer.status for answer in answers] == [200, 421, 421, 200]
        assert [answer.body for answer in (answers[0], answers[3])] == [b"alice\n"] * 2
        assert one.goaway is None


def test_programs_are_told_of_tls(lab: Lab) -> None:
    with connect(lab) as one:
        answer = one.finish(one.ask("alice.test", "/cgi/echo"))
        assert answer.fields["x-https"].strip() == ("on alice.test" if lab.tls else "")


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A back end that takes every upgrade to a WebSocket, says what it was asked, and then what it hears."""

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b"".join(iter(self.rfile.readline, b"\r\n"))
            found = re.search(rb"(?i)\nsec-websocket-key: (\S{24})\r", head)
            if found is None or not re.search(rb"(?i)\nupgrade: websocket\r", head):
                self.wfile.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n" + head.partition(b"\r")[0] + b"|")
            while part := self.connection.recv(65536):
                self.wfile.write(part.upper())

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def test_a_websocket_runs_on_a_stream(echo_port: int) -> None:
    """RFC 8441: CONNECT for a protocol reaches a back end of HTTP/1.1, beside other streams; where there is none, it is no tunnel."""
    passes = f"ProxyPass /ws http://127.0.0.1:{echo_port}/ws upgrade=websocket\nProxyPass /no http://127.0.0.1:{echo_port}/no\n"
    with Lab("Protocols h2c http/1.1\n", names=("alice",), host_config=passes, tls=False) as lab:
        lab.start()
        with H2Client(lab.connect()) as one:
            socket_stream = one.ask("alice.test", "/ws", method="CONNECT", protocol="websocket", has_body=True,
                                    more=(("sec-websocket-version", "13"),))
            one.send(socket_stream, b"hello")
            answer = one.answers[socket_stream]
            while not answer.body.endswith(b"HELLO"):
                assert one.read()
            assert answer.status == 200
            assert answer.body == b"GET /ws HTTP/1.1|HELLO"
            assert answer.fields["sec-websocket-protocol"] == "chat"
            assert not {"upgrade", "connection", "sec-websocket-accept"} & set(answer.fields)
            assert one.finish(one.ask("alice.test")).body == b"alice\n"
            one.send(socket_stream, b"bye", last=True)
            assert one.finish(socket_stream).body.endswith(b"HELLOBYE")
            file = one.ask("alice.test", "/", method="CONNECT", protocol="websocket", has_body=True)
            refused = one.ask("alice.test", "/no", method="CONNECT", protocol="websocket", has_body=True)
            assert (one.finish(file).status, one.finish(refused).status) == (501, 400)
            plain = one.ask("alice.test", "/", method="CONNECT")
            assert one.finish(plain).status in {0, 400, 501}
            assert one.settings[8] == 1


def test_a_slow_program_holds_up_nobody(lab: Lab) -> None:
    """It waits for its body; meanwhile files, Python and the same program answer on other streams."""
    with connect(lab) as one:
        slow = one.ask("alice.test", "/cgi/echo", method="POST", has_body=True)
        others = [one.ask("alice.test", path) for path in ("/", "/whoami", "/cgi/echo", "/big")]
        assert [one.finish(number).status for number in others] == [200] * 4
        assert not one.answers[slow].ended
        one.send(slow, b"at last", last=True)
        assert one.finish(slow).body.endswith(b"at last")


def test_the_access_log_says_so(lab: Lab) -> None:
    curl(lab, "/big?logged")
    line = wait_until(lambda: re.search(r'.*"GET /big\?logged HTTP/2\.0" .*', (lab.log / "access.log").read_text()), "the line")
    assert line.group(0).split('" ')[1].startswith(f"200 {len(BIG)}")


def test_the_access_log_says_so_of_what_is_refused(lab: Lab) -> None:
    """Before its stream is anything but a head: another's host, an expectation that is not known, a field too long."""
    refusals = {"expects": (("expect", "wonders"),), "misdirected": (), "long": (("x", "y" * 9000),)}
    with connect(lab) as client:
        statuses = {name: client.finish(client.ask("bob.test" if name == "misdirected" else "alice.test", f"/?{name}", more=more)).status
                    for name, more in refusals.items()}
    assert statuses == {"expects": 417, "misdirected": 421, "long": 431}
    for name, status in statuses.items():
        wait_until(lambda name=name, status=status: f'"GET /?{name} HTTP/2.0" {status} ' in (lab.log / "access.log").read_text(), name)


def test_nghttp_fetches_many_at_once(lab: Lab) -> None:
    base = f"{'https' if lab.tls else 'http'}://127.0.0.1:{lab.port}"
    paths = [f"{base}/{path}?{number}" for path in ("", "big", "cgi/echo", "nothing", "whoami") for number in range(4)]
    done = subprocess.run(["nghttp", "--no-dep", "--null-out", "--stat", "--header=:authority: alice.test", *paths], capture_output=True,
                          check=True, timeout=60, text=True)
    statuses = re.findall(r"^ *\d+ +\+?\S+ +\S+ +\S+ +(\d{3}) ", done.stdout, re.MULTILINE)
    assert sorted(statuses) == ["200"] * 16 + ["404"] * 4


@pytest.mark.parametrize(("path", "streams"), [("/index.html", 1), ("/index.html", 32), ("/big", 8), ("/cgi/echo", 10)])
def test_h2load_has_no_failure(lab: Lab, path: str, streams: int) -> None:
    count = {"/big": 40, "/cgi/echo": 60}.get(path, 4000)
    done = subprocess.run(["h2load", f"--requests={count}", "--clients=4", f"--max-concurrent-streams={streams}",
                           f"--connect-to=127.0.0.1:{lab.port}", f"{'https' if lab.tls else 'http'}://bob.test:{lab.port}{path}"],
                          capture_output=True, check=True, timeout=100, text=True)
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout


def test_http_1_1_is_spoken_on_the_same_port(lab: Lab) -> None:
    with lab.connect() as sock:  # with TLS it offers nothing by ALPN
        sock.sendall(b"GET / HTTP/1.1\r\nHost: alice.test\r\n\r\n")
        assert read_response(sock).body == b"alice\n"


def test_a_host_without_h2c_refuses_it() -> None:
    with Lab(tls=False) as one:
        one.start()
        done = subprocess.run(["curl", "--silent", "--http2-prior-knowledge", "--header", "Host: alice.test", f"http://127.0.0.1:{one.port}/"],
                              capture_output=True, check=False, timeout=30)
        assert done.returncode != 0
        settings, head = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), bytes((0, 0, 12, 1, 5, 0, 0, 0, 1, 0x41, 10)) + b"alice.test"
        assert one.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + head).startswith(b"HTTP/1.1 505 ")


def test_a_restart_answers_what_was_asked(tmp_path: Path) -> None:
    """Requests in work when the child drains are answered, and the client is told to come again elsewhere."""
    with Lab("Protocols h2c http/1.1\n", names=("alice",), tls=False) as one:
        one.tenants["alice"].write("big", BIG)
        one.start()
        out = tmp_path / "out"
        with out.open("wb") as file, subprocess.Popen(
                ["curl", "--silent", "--show-error", "--http2-prior-knowledge", "--limit-rate", "2M", "--header", "Host: alice.test",
                 f"http://127.0.0.1:{one.port}/big"], stdout=file) as process:
            wait_until(lambda: out.stat().st_size > 100_000, "the beginning")
            one.config_tail = "# another generation\n"
            one.host_config = "Header set X-New yes"
            assert one.reload()["ok"]
            assert process.wait(30) == 0
        assert out.read_bytes() == BIG
