"""testssl.sh finds nothing on this server that it does not find on Debian's nginx with the same certificate.

Runs as: root, which starts both.  Source: testssl.sh(1); its findings are compared by name and severity.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, free_port, wait_until
from tests.tls import client_context

TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh") or ""
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"),
              pytest.mark.skipif(not (TESTSSL and NGINX), reason="apt-get install testssl.sh nginx")]

SEVERITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")  # WARN: testssl.sh could not look, which is a matter of time
LOOKS = ("--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--headers", "--vulnerable")


class Nginx:
    """Debian's nginx with its own choice of protocols and ciphers, and the certificate of a lab's tenant."""

    def __init__(self, lab: Lab) -> None:
        """Start it and wait until it makes handshakes."""
        self.port = free_port()
        made = lab.certificates["alice"]
        base = lab.base / "nginx"
        base.mkdir()
        config = base / "nginx.conf"
        config.write_text(
            f"worker_processes 1; daemon off; pid {base}/pid; error_log {base}/error.log; user root;\nevents {{}}\nhttp {{\naccess_log off;\n"
            + "".join(f"{name}_temp_path {base}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"server {{ listen 127.0.0.1:{self.port} ssl; server_name alice.test; root {lab.tenants['alice'].docroot};\n"
            f"ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {made.cert}; ssl_certificate_key {made.key}; }} }}\n")
        self.process = subprocess.Popen([NGINX, "-e", f"{base}/error.log", "-c", str(config)], stdout=subprocess.DEVNULL)
        wait_until(lambda: self._answers(lab), "nginx makes handshakes")

    def _answers(self, lab: Lab) -> bool:
        port, lab.port = lab.port, self.port
        try:
            lab.connect_tls("alice.test", context=client_context()).close()
        except OSError:
            return False
        finally:
            lab.port = port
        return True

    def close(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """What testssl.sh finds, name -> severity, on both servers, which are looked at side by side."""
    directory = tmp_path_factory.mktemp("testssl")
    with Lab(names=("alice",), tls=True) as lab:
        lab.start()
        nginx = Nginx(lab)
        try:
            runs = {name: look(port, directory / f"{name}.json") for name, port in (("ours", lab.port), ("nginx", nginx.port))}
            for run in runs.values():
                run.wait(1000)
        finally:
            nginx.close()
        yield {name: read_findings(directory / f"{name}.json") for name in runs}


def look(port: int, path: Path) -> subprocess.Popen[bytes]:
    """Start testssl.sh with Debian's openssl, which speaks TLS 1.3."""
    return subprocess.Popen([TESTSSL, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1", "--jsonfile",
                             str(path), *LOOKS, f"alice.test:{port}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, env={**os.environ, "OPENSSL": "/usr/bin/openssl"})


def read_findings(path: Path) -> dict[str, str]:
    """Return name -> severity."""
    rows = json.loads(path.read_text())
    return {row["id"]: row["severity"] for row in rows}


def test_both_were_looked_at_to_the_end(findings: dict[str, dict[str, str]]) -> None:
    """Protocols, ciphers, certificate and known weaknesses: the comparison compares something."""
    for found in findings.values():
        assert {"TLS1_3", "TLS1_2", "cert_signatureAlgorithm", "heartbleed", "ROBOT", "BREACH"} <= set(found)
        assert found["TLS1_3"] == "OK"


def test_nothing_is_worse_than_with_nginx(findings: dict[str, dict[str, str]]) -> None:
    """Each finding of ours is nginx's, too, and not graver."""
    graver = {name: (severity, findings["nginx"].get(name)) for name, severity in findings["ours"].items() if severity in SEVERITIES
              and SEVERITIES.index(severity) > (SEVERITIES.index(found) if (found := findings["nginx"].get(name)) in SEVERITIES else -1)}
    assert not graver


@pytest.mark.parametrize("name", ["heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS", "SWEET32",
                                  "POODLE_SSL", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4", "TLS1", "TLS1_1", "SSLv2", "SSLv3"])
def test_known_weaknesses_are_absent(findings: dict[str, dict[str, str]], name: str) -> None:
    """By the names that testssl.sh has for them."""
    assert findings["ours"].get(name) in {"OK", "INFO"}
