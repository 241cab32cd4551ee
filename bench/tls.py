"""TLS 1.3: handshakes and requests per second with SNI spread over 20 tenants, and what an idle connection costs in memory.

Each server has a certificate (ECDSA, P-256) for each tenant, on a port of its own beside the plain one. bench/tlsload.c makes the load.
Runs as: root.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import load, procfs
from bench.servers import PORTS, PROJECT, Running, event_text, host_section, nginx_text, perchildd_text, spec_of
from bench.tenants import Tenant, make_tenants

SERVERS = ("perchildd", "nginx", "event")
MODES = ("full", "resumed", "kept")
ROUNDS = 3
SECONDS = 5.0
THREADS = 64
IDLE = 2_000
_BESIDE = 100  # the TLS port is this much above the plain one
_TENANTS = 20


def measure_tls(base: Path, say: Callable[[str], None], seconds: float = SECONDS, rounds: int = ROUNDS) -> dict[str, float]:
    """Return MODE_SERVER (1/s, best of `rounds`), MODE_over_SERVER (ratios), idle_SERVER (bytes per connection), and failed."""
    tenants = make_tenants(base / "sites", _TENANTS, has_large=False)
    certs = _make_certificates(base / "certs", tenants)
    program = _build(base)
    found: dict[str, float] = {"failed": 0}
    for number in range(rounds):
        for key in SERVERS:
            _one_server(key, base / f"{key}-{number}", tenants, certs, program, seconds, found, say)
    for mode in MODES:
        for key in SERVERS[1:]:
            found[f"{mode}_over_{key}"] = found[f"{mode}_perchildd"] / found[f"{mode}_{key}"]
            say(f"tls: {mode}: {found[f'{mode}_over_{key}']:.2f}x {key}")
    return found


def _make_certificates(directory: Path, tenants: Sequence[Tenant]) -> Path:
    directory.mkdir(mode=0o700)
    for tenant in tenants:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60",
                        "-subj", f"/CN={tenant.host}", "-addext", f"subjectAltName=DNS:{tenant.host}",
                        "-keyout", str(directory / f"{tenant.host}.key"), "-out", str(directory / f"{tenant.host}.crt")],
                       check=True, capture_output=True)
    return directory


def _build(base: Path) -> Path:
    program = base / "tlsload"
    source = PROJECT / "bench/tlsload.c"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-D_GNU_SOURCE", "-o", str(program), str(source), "-lssl", "-lcrypto", "-pthread"], check=True)
    return program


def _httpd_hosts(run: Path, port: int, tenants: Sequence[Tenant], certs: Path, *, is_assigned: bool) -> str:
    return f"Listen {load.ADDRESS}:{port} https\n" + "".join(
        host_section(tenant, port, run / f"{tenant.host}.log", is_assigned=is_assigned,
                     inside=f"SSLEngine on\nSSLCertificateFile {certs}/{tenant.host}.crt\nSSLCertificateKeyFile {certs}/{tenant.host}.key\n")
        for tenant in tenants)


def _text(key: str, run: Path, tenants: Sequence[Tenant], certs: Path) -> str:
    port = PORTS[key]
    if key == "perchildd":
        return perchildd_text(run, port, tenants, "") + _httpd_hosts(run, port + _BESIDE, tenants, certs, is_assigned=True)
    if key == "event":
        return event_text(run, port, tenants, ("ssl_module mod_ssl.so",)) + _httpd_hosts(run, port + _BESIDE, tenants, certs, is_assigned=False)
    inside = (f"listen {load.ADDRESS}:{port + _BESIDE} ssl; ssl_certificate {certs}/{{tenant.host}}.crt; "
              f"ssl_certificate_key {certs}/{{tenant.host}}.key; ")
    return nginx_text(run, port, tenants, "  ssl_protocols TLSv1.2 TLSv1.3;\n", inside)


def _one_server(key: str, run: Path, tenants: Sequence[Tenant], certs: Path, program: Path, seconds: float, found: dict[str, float],
                say: Callable[[str], None]) -> None:
    server = Running(spec_of(key), run, tenants, _text(key, run, tenants, certs))
    try:
        server.check(tenants, "/1k.html")
        found[f"idle_{key}"] = _idle_bytes(server, tenants)
        say(f"tls: {server.spec.label:13} {found[f'idle_{key}'] / 1024:.1f} KB per idle connection")
        for mode in MODES:
            rate = _load(program, server, mode, tenants, seconds, found)
            found[f"{mode}_{key}"] = max(rate, found.get(f"{mode}_{key}", 0))
            say(f"tls: {server.spec.label:13} {mode:8} {rate:9,.0f}/s")
    finally:
        server.stop()


def _load(program: Path, server: Running, mode: str, tenants: Sequence[Tenant], seconds: float, found: dict[str, float]) -> float:
    command = [str(program), str(server.port + _BESIDE), f"{seconds:g}", str(THREADS), mode, *(tenant.host for tenant in tenants)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout.removeprefix("RESULT "))
    found["failed"] += seen["failed"]
    if mode == "resumed" and seen["resumed"] < 0.5 * seen["done"]:
        raise RuntimeError(f"{server.spec.label}: of {seen['done']} sessions {seen['resumed']} were resumed")
    return float(seen["done"] / (seen["microseconds"] / 1e6))


def _idle_bytes(server: Running, tenants: Sequence[Tenant]) -> float:
    """Return how much the server's memory grows for each of IDLE connections that have made a request and wait."""
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
        return (_memory(server) - before) / IDLE


def _memory(server: Running) -> float:
    return float(sum(procfs.pss_bytes(process.pid) for process in procfs.tree(server.pid)))
