"""A browser over TLS: Debian's Chromium loads a page of many parts by HTTP/2, asks two tenants that share a certificate, opens a WebSocket.

Runs as: root, which starts the server.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.certs import Certificate, make_certificate
from tests.chromium import PROGRAM, Chromium
from tests.lab import Lab, Tenant, wait_until
from tests.system.websocket import GUID

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"),
              pytest.mark.skipif(not PROGRAM, reason="no chromium")]

PARTS = 60
PAGE = "<!DOCTYPE html><title>%s</title>" + "".join(f'<script src="/part{number}.js"></script>' for number in range(PARTS))
HEARD = "performance.getEntriesByType('resource').map(one => one.nextHopProtocol)"
CGI = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nAccess-Control-Allow-Origin: *\\n\\n%s ' \"$SERVER_PROTOCOL\"\nid -u\n"


class BrowserLab(Lab):
    """Tenants whose one certificate is good for all of their names, as a wildcard's is."""

    def __init__(self, config: str, host_config: str) -> None:
        super().__init__(f"Protocols h2 http/1.1\n{config}", names=("alice", "bob"), host_config=host_config, tls=True)
        self.shared = make_certificate(self.tls_directory, "alice.test", names=[one.host for one in self.tenants.values()])

    def certificate(self, name: str) -> Certificate:
        """Return the one for all tenants."""
        return self.shared if name in self.tenants else super().certificate(name)

    def host_block(self, tenant: Tenant, extra: str = "") -> str:
        """One host, with its own /cgi/."""
        return super().host_block(tenant, f"{extra}\nScriptAlias /cgi/ {tenant.docroot}/cgi/\n")

    def browser(self) -> Chromium:
        """Return one that believes the certificate."""
        public = subprocess.run(["openssl", "x509", "-in", str(self.shared.cert), "-noout", "-pubkey"], check=True, capture_output=True).stdout
        key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=public, check=True, capture_output=True).stdout
        pin = base64.b64encode(hashlib.sha256(key).digest()).decode()
        return Chromium(f"--ignore-certificate-errors-spki-list={pin}")

    def logged(self, pattern: str) -> list[str]:
        """Return the protocols that the access log names for requests like this."""
        return re.findall(rf'"{pattern} (HTTP/[0-9.]+)"', (self.log / "access.log").read_text())


class Echo(socketserver.StreamRequestHandler):
    """A back end that says what it hears, by WebSocket (RFC 6455)."""

    def handle(self) -> None:
        """Shake hands, then send each short message of text back in capitals."""
        head = b"".join(iter(self.rfile.readline, b"\r\n")).decode()
        key = re.search(r"(?i)\nsec-websocket-key: (\S{24})\r", head)
        assert key is not None, head
        answer = base64.b64encode(hashlib.sha1(f"{key[1]}{GUID}".encode()).digest()).decode()
        self.wfile.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         f"Sec-WebSocket-Accept: {answer}\r\n\r\n".encode())
        while len(start := self.rfile.read(2)) == 2 and start[0] & 15 == 1:
            mask = self.rfile.read(4)
            text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(start[1] & 127)))
            self.wfile.write(struct.pack("BB", 0x81, len(text)) + text.upper())


@contextlib.contextmanager
def echo_port() -> Iterator[int]:
    """Run the back end."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def lab() -> Iterator[BrowserLab]:
    """A server with a page of many parts, a program and a WebSocket for each tenant."""
    with echo_port() as port, BrowserLab("", f"ProxyPass /ws http://127.0.0.1:{port}/ws upgrade=websocket\n") as one:
        for tenant in one.tenants.values():
            tenant.write("index.html", PAGE % tenant.name)
            tenant.write("cgi/whoami", CGI, 0o700)
            for number in range(PARTS):
                tenant.write(f"part{number}.js", f"window.parts = (window.parts || 0) + {number};\n")
        yield one.start()


@pytest.fixture
def browser(lab: BrowserLab) -> Iterator[Chromium]:
    """A browser that shows alice's page."""
    with lab.browser() as one:
        one.open(f"https://alice.test:{lab.port}/")
        one.wait("document.readyState == 'complete' && document.title == 'alice'")
        yield one


def test_a_page_of_many_parts_comes_by_http_2(lab: BrowserLab, browser: Chromium) -> None:
    """Each part whole, all by HTTP/2, none complained of."""
    assert browser.ask("window.parts") == sum(range(PARTS))
    assert browser.ask(f"{HEARD}.filter(one => one == 'h2').length") >= PARTS
    assert browser.ask(f"[...new Set({HEARD})].join()") == "h2"
    assert not [one for one in browser.complaints() if "favicon" not in one]
    wait_until(lambda: len(lab.logged("GET /part[0-9]+.js")) >= PARTS, "every part is in the log")
    assert set(lab.logged("GET /part[0-9]+.js")) == {"HTTP/2.0"}


def test_tenants_with_one_certificate_each_answer_for_themselves(lab: BrowserLab, browser: Chromium) -> None:
    """The certificate would let a browser ask for bob's pages on alice's connection; whatever it does, each answer is its owner's."""
    for name, tenant in sorted(lab.tenants.items()):
        said = browser.ask(f"fetch('https://{name}.test:{lab.port}/cgi/whoami').then(answer => answer.text())")
        assert said == f"HTTP/2.0 {tenant.uid}\n"


def test_a_websocket_shares_the_connection_of_http_2(lab: BrowserLab, browser: Chromium) -> None:
    """RFC 8441, to a back end that speaks HTTP/1.1."""
    said = browser.ask(f"new Promise((done, fail) => {{ const one = new WebSocket('wss://alice.test:{lab.port}/ws'); "
                       "one.onopen = () => one.send('hello'); one.onerror = () => fail('error'); "
                       "one.onmessage = event => { one.close(); done(event.data) } })")
    assert said == "HELLO"
    wait_until(lambda: lab.logged("GET /ws"), "it is in the log")
    assert set(lab.logged("GET /ws")) == {"HTTP/2.0"}
