"""TLS and HTTP/2: certificates, configurations and loads, and what an idle connection costs in memory.

Each server has an ECDSA certificate (P-256) for each tenant, on a port of its own beside the plain one, and speaks TLS 1.2 and 1.3, HTTP/2
and HTTP/1.1. What is not said is as each comes: ciphers, curves and tickets are OpenSSL's in all of them. bench/tlsload.c makes the handshakes,
h2load the requests on streams: it takes one host, so one runs for each tenant.
Runs as: root.  Talks to 127.0.0.0/8 only.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import load, procfs
from bench.servers import PROJECT, Running, event_text, host_section, nginx_text, perchildd_text
from bench.tenants import Tenant

THREADS = 64
H2_CONNECTIONS = 100
IDLE = 2_000
_BESIDE = 100  # the TLS port is this much above the plain one
_NGINX_HTTP2_ON = (1, 25, 1)  # the first nginx whose http2 is a directive of its own


# --- certificates, and the program that makes handshakes -------------------------------------------------------------------


def _place(tenants: Sequence[Tenant]) -> Path:
    """Return the directory that has every tenant's site; root's alone."""
    return tenants[0].root.parent


def add_tls(tenants: Sequence[Tenant]) -> None:
    """Give each tenant a certificate whose key only root can read, and build the program that makes handshakes.

    Raises:
        RuntimeError: there is no C compiler, or no libssl-dev.
    """
    for tenant in tenants:
        stem = _place(tenants) / tenant.host
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60",
                        "-subj", f"/CN={tenant.host}", "-addext", f"subjectAltName=DNS:{tenant.host}",
                        "-keyout", f"{stem}.key", "-out", f"{stem}.crt"], check=True, capture_output=True)
    built = subprocess.run([os.environ.get("CC", "cc"), "-O2", "-D_GNU_SOURCE", "-o", str(_place(tenants) / "tlsload"),
                            str(PROJECT / "bench/tlsload.c"), "-lssl", "-lcrypto", "-pthread"], capture_output=True, text=True, check=False)
    if built.returncode:
        raise RuntimeError(f"bench/tlsload.c could not be built (apt install gcc libssl-dev):\n{built.stderr}")


# --- configurations --------------------------------------------------------------------------------------------------------

_HTTPD_INSIDE = """\
    SSLEngine on
    SSLProtocol TLSv1.2 TLSv1.3
    SSLCertificateFile "{tenant.root.parent}/{tenant.host}.crt"
    SSLCertificateKeyFile "{tenant.root.parent}/{tenant.host}.key"
    Protocols h2 http/1.1
"""
_EVENT_MODULES = ("ssl_module mod_ssl.so", "http2_module mod_http2.so")


def _httpd_hosts(run: Path, port: int, tenants: Sequence[Tenant], *, is_assigned: bool) -> str:
    hosts = (host_section(tenant, port, run / f"{tenant.host}.log", is_assigned=is_assigned, inside=_HTTPD_INSIDE) for tenant in tenants)
    return f"Listen {load.ADDRESS}:{port} https\n{''.join(hosts)}"


def perchildd_tls(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return perchildd's configuration with each tenant's host twice: plain on `port`, and by TLS."""
    return perchildd_text(run, port, tenants, "") + _httpd_hosts(run, port + _BESIDE, tenants, is_assigned=True)


def event_tls(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return httpd event's configuration, likewise."""
    return event_text(run, port, tenants, _EVENT_MODULES) + _httpd_hosts(run, port + _BESIDE, tenants, is_assigned=False)


def nginx_tls(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return nginx's configuration, likewise; each server listens on both ports."""
    has_directive = _nginx_version() >= _NGINX_HTTP2_ON
    listen, http2 = ("ssl", "http2 on; ") if has_directive else ("ssl http2", "")
    inside = (f"listen {load.ADDRESS}:{port + _BESIDE} {listen}; {http2}ssl_certificate {{tenant.root.parent}}/{{tenant.host}}.crt; "
              "ssl_certificate_key {tenant.root.parent}/{tenant.host}.key; ")
    return nginx_text(run, port, tenants, "  ssl_protocols TLSv1.2 TLSv1.3;\n", inside)


def _nginx_version() -> tuple[int, ...]:
    """Return nginx's version; () if there is none, or it says nothing that is one."""
    try:
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return ()
    found = re.search(r"nginx/(\d+(?:\.\d+)*)", said)
    return tuple(map(int, found[1].split("."))) if found else ()


# --- loads -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Handshakes:
    """The load by bench/tlsload.c: mode full, resumed or kept."""

    mode: str
    path: str = "/1k.html"

    def run(self, port: int, tenants: Sequence[Tenant], seconds: float) -> load.Outcome:
        """Make connections, or requests, for `seconds`; RuntimeError if sessions that should be were not resumed."""
        command = [str(_place(tenants) / "tlsload"), str(port + _BESIDE), f"{seconds:g}", str(THREADS), self.mode,
                   *(tenant.host for tenant in tenants)]
        seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.removeprefix("RESULT "))
        if self.mode == "resumed" and seen["resumed"] < 0.5 * seen["done"]:
            raise RuntimeError(f"of {seen['done']} sessions {seen['resumed']} were resumed")
        return load.Outcome(seen["done"], seen["microseconds"] / 1e6, seen["failed"], {})


@dataclass(frozen=True, slots=True)
class Streams:
    """The load by h2load: the path, its bytes, and how many streams each connection has at once."""

    path: str
    size: int
    streams: int

    def run(self, port: int, tenants: Sequence[Tenant], seconds: float) -> load.Outcome:
        """Run one h2load for each tenant, all at once, for whole `seconds`; add up what they have seen."""
        processes = [subprocess.Popen(self.command(port, tenant, len(tenants), seconds), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                     for tenant in tenants]
        seen = [read_h2load(process.communicate()[0], self.size) for process in processes]
        return load.Outcome(sum(one.requests for one in seen), max(one.seconds for one in seen), sum(one.failed for one in seen),
                            {"max_ms": max(one.latencies["max_ms"] for one in seen)})

    def command(self, port: int, tenant: Tenant, count: int, seconds: float) -> list[str]:
        """Return the command of one of `count` tenants' h2load."""
        authority = f"{tenant.host}:{port + _BESIDE}"
        return ["h2load", "-t1", f"-c{H2_CONNECTIONS // count}", f"-m{self.streams}", f"-D{max(1, round(seconds))}",
                f"--connect-to={load.ADDRESS}:{port + _BESIDE}", f"https://{authority}{self.path}"]


_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}  # in milliseconds


def read_h2load(output: str, size: int) -> load.Outcome:
    """Return what an h2load says that has asked for a file of `size` bytes; of times it knows the longest only.

    An answer is a success if it is 2xx and whole. h2load counts one that is cut short when the time is over in no row.

    Raises:
        RuntimeError: it spoke something else than HTTP/2 over TLS 1.3, or gave no figures; what it said is in the message.
    """
    for sign in ("TLS Protocol: TLSv1.3", "Application protocol: h2"):
        if sign not in output:
            raise RuntimeError(f"h2load did not say '{sign}':\n{output}")
    seconds = re.search(r"and (\d+)s of main duration", output)
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    traffic = re.search(r"\((\d+)\) data", output)
    longest = re.search(r"time for request: +\S+ +([\d.]+)(us|ms|s) ", output)
    if not (seconds and counts and statuses and traffic and longest):
        raise RuntimeError(f"h2load gave no figures:\n{output}")
    done, succeeded, failed = (int(counts[number]) for number in (1, 2, 3))
    others = sum(int(statuses[number]) for number in (2, 3, 4))
    short = max(0, succeeded - int(traffic[1]) // size)
    return load.Outcome(succeeded, float(seconds[1]), max(failed, done - succeeded) + others + short,
                        {"max_ms": float(longest[1]) * _TIMES[longest[2]]})


# --- memory ----------------------------------------------------------------------------------------------------------------


def measure_tls_memory(server: Running, tenants: Sequence[Tenant]) -> dict[str, float]:
    """Return how many bytes (PSS) of the server each of IDLE connections takes that have made a request and wait: per_connection, connections."""
    server.check(tenants, "/1k.html")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before = _memory(server)
    with ExitStack() as stack:
        for number in range(IDLE):
            host = tenants[number % len(tenants)].host
            raw = socket.create_connection((load.ADDRESS, server.port + _BESIDE), timeout=30)
            sock = stack.enter_context(context.wrap_socket(raw, server_hostname=host))
            sock.sendall(f"HEAD /1k.html HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{server.spec.label}: a wrong answer over TLS")
        return {"per_connection": (_memory(server) - before) / IDLE, "connections": IDLE}


def _memory(server: Running) -> float:
    return float(sum(procfs.pss_bytes(process.pid) for process in procfs.tree(server.pid)))
