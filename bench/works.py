"""The side-by-side works: what each server is asked to do, and one measurement of one work on one server.

A measurement is requests/s and latencies as the load saw them, failures, and the CPU time that all processes of the server used
per request. Memory is looked at with one kept connection per tenant, each having made one request.
Runs as: root.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench import load, procfs
from bench.load import Load, Loading
from bench.programs import CGI, CGI_PATH, FILES, PHP, PHP_PATH, PROXY, TLS, can_run
from bench.servers import PROJECT, Running, Spec
from bench.tenants import LARGE_BYTES, SMALL_BYTES, Tenant
from bench.tls import Handshakes, Streams

DESCRIPTORS = 20_000
HELD = 10_000
_WARM_S = 1.0

Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Work:
    """One work: key, title, what it is in a sentence, the load, how many idle connections are held meanwhile, and its group.

    The works of a group are done by the same servers with the same configurations (bench/programs.py).
    """

    key: str
    title: str
    sentence: str
    load: Loading
    held: int = 0
    group: str = FILES


WORKS: tuple[Work, ...] = (
    Work("keepalive", "Keep-alive", "1 KB files, kept connections, each of one of 20 tenants",
         Load("pinned", "/1k.html", 20, 100)),
    Work("close", "New connections", "1 KB files, a new connection per request, to a random tenant",
         Load("random", "/1k.html", 2, 64)),
    Work("large", "100 KB files", "100 KB files, kept connections, each of one of 20 tenants",
         Load("pinned", "/100k.html", 20, 100)),
    Work("idle", "10,000 idle", f"as keep-alive, while {HELD:,} idle connections are held",
         Load("pinned", "/1k.html", 20, 100), HELD),
    Work("php", "PHP, keep-alive", "hello world by php-fpm (mpm-itk: mod_php), kept connections, each of one of 20 tenants",
         Load("pinned", PHP_PATH, 20, 100), group=PHP),
    Work("php-close", "PHP, new connections", "hello world by php-fpm (mpm-itk: mod_php), a new connection per request, to a random tenant",
         Load("random", PHP_PATH, 2, 64), group=PHP),
    Work("cgi", "CGI, keep-alive", "hello world of /bin/sh, kept connections, each of one of 20 tenants",
         Load("pinned", CGI_PATH, 20, 40), group=CGI),
    Work("proxy", "Proxy, keep-alive", "1 KB files of one back end, kept connections, each of one of 20 tenants",
         Load("pinned", "/1k.html", 20, 100), group=PROXY),
    Work("proxy-close", "Proxy, new connections", "1 KB files of one back end, a new connection per request, to a random tenant",
         Load("random", "/1k.html", 2, 64), group=PROXY),
    Work("tls-full", "TLS 1.3, full handshakes", "1 KB files, a new TLS connection per request, to a random tenant",
         Handshakes("full"), group=TLS),
    Work("tls-resumed", "TLS 1.3, resumed", "1 KB files, a new TLS connection per request, resuming the session before it",
         Handshakes("resumed"), group=TLS),
    Work("tls-kept", "TLS 1.3, keep-alive", "1 KB files, kept TLS connections, each of one of 20 tenants",
         Handshakes("kept"), group=TLS),
    *(Work(f"h2-{streams}-{name}", f"HTTP/2, {title}, -m {streams}",
           f"{title} files over TLS 1.3, {streams} {'streams' if streams > 1 else 'stream'} at once on each of 100 connections, of 20 tenants",
           Streams(f"/{name}.html", size, streams), group=TLS)
      for streams in (1, 16) for name, title, size in (("1k", "1 KB", SMALL_BYTES), ("100k", "100 KB", LARGE_BYTES))),
)


def raise_limits() -> None:
    """Let this process and what it starts hold DESCRIPTORS descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), max(hard, DESCRIPTORS)))


def can_do(spec: Spec, work: Work) -> bool:
    """Say whether `spec` can do `work`: it has a way to, and mpm-itk needs two processes for each connection that is held."""
    return can_run(work.group, spec.key) and (spec.can_hold or not work.held)


def measure(server: Running, work: Work, tenants: Sequence[Tenant], seconds: float) -> Sample:
    """Do `work` on `server` for `seconds`, after a second of warming up, and return the sample.

    Returns:
        rps (1/s), cpu_us (microseconds of server CPU per request), requests, failed, what the load says of latencies (p50_ms, p90_ms,
        p99_ms, max_ms), and held (idle connections that stood at the end) where the work holds some.
    """
    server.check(tenants, work.load.path)
    with _held(server, work, [tenant.host for tenant in tenants]) as holder:
        work.load.run(server.port, tenants, _WARM_S)
        before = server.cpu_seconds()
        seen = work.load.run(server.port, tenants, seconds)
        used = server.cpu_seconds() - before
        sample = _sample(seen, used)
        if holder:
            sample["held"] = holder.end()
            sample["failed"] += work.held - sample["held"]
    return sample


def _sample(seen: load.Outcome, cpu_seconds: float) -> Sample:
    return {"rps": seen.requests / seen.seconds, **seen.latencies, "cpu_us": cpu_seconds * 1e6 / max(seen.requests, 1),
            "requests": seen.requests, "failed": seen.failed}


class Holder:
    """The process that holds idle connections (bench/hold.py)."""

    def __init__(self, port: int, count: int, hosts: Sequence[str]) -> None:
        """Start it and wait until it says how many stand."""
        command = [sys.executable, "-m", "bench.hold", str(port), str(count), "/1k.html", *hosts]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.held = self._line("held")

    def _line(self, word: str) -> int:
        assert self._process.stdout
        words = self._process.stdout.readline().split()
        if len(words) != 2 or words[0] != word:
            raise RuntimeError(f"the holder ended early (exit status {self._process.wait()})")
        return int(words[1])

    def end(self) -> int:
        """Close all and return how many were still open."""
        if self._process.poll() is not None:
            return 0
        assert self._process.stdin
        self._process.stdin.close()
        count = self._line("open")
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()
        return count


@contextmanager
def _held(server: Running, work: Work, hosts: Sequence[str]) -> Iterator[Holder | None]:
    if not work.held:
        yield None
        return
    holder = Holder(server.port, work.held, hosts)
    try:
        yield holder
    finally:
        holder.end()


def measure_memory(server: Running, tenants: Sequence[Tenant]) -> Sample:
    """Return the server's PSS in bytes with one kept connection per tenant: total, per_tenant, processes."""
    server.check(tenants, "/1k.html")
    holder = Holder(server.port, len(tenants), [tenant.host for tenant in tenants])
    try:
        processes = [process.pid for process in procfs.tree(server.pid)]
        total = sum(procfs.pss_bytes(pid) for pid in processes)
    finally:
        holder.end()
    return {"total": total, "per_tenant": total / len(tenants), "processes": len(processes)}
