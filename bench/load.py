"""The load: wrk with bench/wrk.lua, and plain requests of our own for checks and waking. bench/tls.py has that for TLS and HTTP/2.

Runs as: root.  Talks to 127.0.0.0/8 only.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.tenants import Tenant

ADDRESS = "127.0.0.1"
_SCRIPT = Path(__file__).with_name("wrk.lua")
_REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load saw: requests, seconds, failures of any kind, and what it can say of latencies: p50_ms, p90_ms, p99_ms, max_ms."""

    requests: int
    seconds: float
    failed: int
    latencies: Mapping[str, float]


class Loading(Protocol):
    """Anything that makes requests: the path that every tenant must answer rightly before, and one run of it."""

    @property
    def path(self) -> str:
        """The path that is asked for."""
        ...

    def run(self, port: int, tenants: Sequence[Tenant], seconds: float) -> Outcome:
        """Ask the server on `port` for `seconds`; RuntimeError if the load itself failed."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load by wrk: how hosts are chosen (pinned, random), the path, wrk's threads and connections."""

    choice: str
    path: str
    threads: int
    connections: int

    def run(self, port: int, tenants: Sequence[Tenant], seconds: float) -> Outcome:
        """Run wrk against `port` for whole `seconds`."""
        return end_wrk(start_wrk(port, self, [tenant.host for tenant in tenants], seconds))


def start_wrk(port: int, load: Load, hosts: Sequence[str], seconds: float) -> subprocess.Popen[str]:
    """Start wrk against `port` for whole `seconds`; give the process to `end_wrk`."""
    command = ["wrk", f"-t{load.threads}", f"-c{load.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "5s",
               "-s", str(_SCRIPT), f"http://{ADDRESS}:{port}{load.path}", "--", load.choice, load.path, *hosts]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end_wrk(process: subprocess.Popen[str]) -> Outcome:
    """Wait for wrk and return its outcome.

    Raises:
        RuntimeError: wrk said nothing that can be understood; its output is in the message.
    """
    output, _ = process.communicate()
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return _outcome(json.loads(line[7:]))
    raise RuntimeError(f"wrk gave no result (exit status {process.returncode}):\n{output}")


def _outcome(seen: dict[str, int]) -> Outcome:
    failed = sum(seen[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    latencies = {f"{name}_ms": seen[f"{name}_us"] / 1000 for name in ("p50", "p90", "p99", "max")}
    return Outcome(seen["requests"], seen["microseconds"] / 1e6, failed, latencies)


def fetch(port: int, host: str, path: str) -> tuple[int, bytes]:
    """Make one request on a connection of its own and return (status, body)."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=_REQUEST_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Host": host, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_right(port: int, host: str, path: str) -> bool:
    """Say whether `path` is answered with 200 and with this host's own file."""
    try:
        status, body = fetch(port, host, path)
    except (OSError, http.client.HTTPException):
        return False
    return status == http.client.OK and body.startswith(f"{host}\n".encode())


def wait_until_right(port: int, host: str, path: str, timeout_s: float, pause_s: float = 0.01) -> float | None:
    """Ask again and again until the answer is right; return the seconds it took, None after `timeout_s`."""
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if is_right(port, host, path):
            return time.monotonic() - start
        time.sleep(pause_s)
    return None
