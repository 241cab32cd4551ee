"""Works that only perchildd does: waking a sleeping tenant and its PHP, memory of 200 tenants' PHP, 2,000 live children; scale.py has more.

Runs as: root.
"""

from __future__ import annotations

import os
import select
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import load, procfs
from bench.programs import PHP_PATH, add_programs
from bench.scale import measure_scale
from bench.servers import PORTS, Running, host_section, perchildd_head, spec_of
from bench.tenants import Tenant, make_tenants
from bench.works import Holder, Sample

Say = Callable[[str], None]

COLD_ROUNDS = 5
PHP_ROUNDS = 3
PHP_TENANTS = 200
CHILDREN = 2_000
_SLEEP_TIMEOUT_S = 30.0
_PHP_IDLE_S = 40  # longer than it takes to wake PHP_TENANTS tenants' PHP and to look at their memory
_PHP_TIMEOUT_S = 120.0
_PAUSE_S = 0.2
_AWAKE_PROCESSES = 4  # child, runner, php-fpm, its worker


def _start(base: Path, tenants: Sequence[Tenant], text: str) -> Running:
    return Running(spec_of("perchildd"), base / "server", tenants, text)


def _text(base: Path, tenants: Sequence[Tenant], extra: str, log: str = "", behind: str = "", inside: str = "") -> str:
    run, port = base / "server", PORTS["perchildd"]
    hosts = "".join(host_section(tenant, port, run / (log or f"{tenant.host}.log"), is_assigned=True, inside=inside)
                    for tenant in tenants)
    return perchildd_head(run, port) + extra + hosts + behind


def _wake(server: Running, tenants: Sequence[Tenant], path: str = "/1k.html") -> tuple[float, int]:
    """Ask every tenant once; return the seconds it took and how many did not answer rightly."""
    start = time.monotonic()
    failed = sum(not load.is_right(server.port, tenant.host, path) for tenant in tenants)
    return time.monotonic() - start, failed


# --- cold: the first byte of a sleeping tenant -----------------------------------------------------------------------------


def measure_cold(base: Path, say: Say) -> Sample:
    """Wake each of 20 sleeping tenants, COLD_ROUNDS times; return first-byte times in ms: median, p90, worst; and the count."""
    tenants = make_tenants(base / "sites", 20, has_large=False)
    server = _start(base, tenants, _text(base, tenants, "IdleTimeout 1\n"))
    return _cold(server, tenants, "/1k.html", COLD_ROUNDS, partial(_say_as, say, "cold"))


def measure_php_cold(base: Path, say: Say) -> Sample:
    """Ask each of 20 tenants that have no process for its PHP, PHP_ROUNDS times; return times of the whole answer as `measure_cold` does."""
    tenants = make_tenants(base / "sites", 20, has_large=False)
    add_programs(tenants)
    text = _text(base, tenants, "IdleTimeout 1\nRunnerIdle 1\n", inside="    PHPPool on idle=1\n")
    return _cold(_start(base, tenants, text), tenants, PHP_PATH, PHP_ROUNDS, partial(_say_as, say, "php-cold"))


def _say_as(say: Say, key: str, text: str) -> None:
    say(f"{key}: {text}")


def _cold(server: Running, tenants: Sequence[Tenant], path: str, rounds: int, say: Say) -> Sample:
    times: list[float] = []
    try:
        for number in range(rounds):
            _wait_asleep(server, tenants)
            times += [_first_byte_ms(server, tenant, path) for tenant in tenants]
            say(f"round {number + 1} of {rounds}, median so far {statistics.median(times):.1f} ms")
    finally:
        server.stop()
    times.sort()
    return {"median_ms": statistics.median(times), "p90_ms": times[int(len(times) * 0.9)], "max_ms": times[-1], "count": len(times)}


def _first_byte_ms(server: Running, tenant: Tenant, path: str) -> float:
    start = time.monotonic()
    status, body = load.fetch(server.port, tenant.host, path)
    took = (time.monotonic() - start) * 1000
    if status != 200 or not body.startswith(tenant.host.encode()):
        raise RuntimeError(f"cold: {tenant.host} answered {status}:\n{server.said()}")
    return took


def _wait_asleep(server: Running, tenants: Sequence[Tenant]) -> None:
    """Wait until no tenant has a process; each one's end is waited for by its pidfd."""
    uids = {tenant.uid for tenant in tenants}
    deadline = time.monotonic() + _SLEEP_TIMEOUT_S
    while awake := [process.pid for process in procfs.tree(server.pid) if procfs.uid_of(process.pid) in uids]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"cold: children {awake} did not end within {_SLEEP_TIMEOUT_S:.0f} s of IdleTimeout 1:\n{server.said()}")
        for pid in awake:
            _wait_ended(pid, deadline)


def _wait_ended(pid: int, deadline: float) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(handle)


# --- php-memory: memory of many tenants' PHP ---------------------------------------------------------------------------------


def measure_php_memory(base: Path, say: Say) -> Sample:
    """Wake the PHP of PHP_TENANTS tenants; return PSS in bytes of all the server's processes, then and after sleep came.

    A connection that is held keeps each tenant's child awake, so that PHP falls asleep first.

    Returns:
        awake, awake_tenant (of it, each), processes; missing (tenants that lacked child, runner, php-fpm or worker then); php_asleep
        (PHP and runners have ended, the children live), asleep (no tenant has a process).
    """
    tenants = make_tenants(base / "sites", PHP_TENANTS, has_large=False)
    add_programs(tenants)
    text = _text(base, tenants, "IdleTimeout 1\nRunnerIdle 1\n", "access.log", inside=f"    PHPPool on idle={_PHP_IDLE_S}\n")
    say(f"php-memory: starting with {PHP_TENANTS} tenants")
    server = _start(base, tenants, text)
    try:
        holder = Holder(server.port, len(tenants), [tenant.host for tenant in tenants])
        try:
            found = _php_awake(server, tenants, say)
            _wait_few(server, tenants, 1)
            found["php_asleep"] = _pss(server)
        finally:
            holder.end()
        _wait_few(server, tenants, 0)
        found["asleep"] = _pss(server)
        say(f"php-memory: {found['php_asleep'] / 2**20:,.0f} MB when PHP slept, {found['asleep'] / 2**20:,.0f} MB when all slept")
    finally:
        server.stop()
    return found


def _php_awake(server: Running, tenants: Sequence[Tenant], say: Say) -> Sample:
    woken_s, failed = _wake(server, tenants, PHP_PATH)
    _, again = _wake(server, tenants, PHP_PATH)  # the first one's workers may have ended by now
    if failed or again:
        raise RuntimeError(f"php-memory: {failed} first and {again} second answers were wrong:\n{server.said()}")
    counts = _processes_of(server, tenants)
    total, processes = _pss(server), len(procfs.tree(server.pid))
    say(f"php-memory: {total / 2**20:,.0f} MB PSS with PHP awake, {processes:,} processes, {woken_s * 1000 / len(tenants):.1f} ms each to wake")
    missing = sum(counts[tenant.uid] < _AWAKE_PROCESSES for tenant in tenants)
    return {"awake": total, "awake_tenant": total / len(tenants), "processes": processes, "missing": missing}


def _pss(server: Running) -> int:
    return sum(procfs.pss_bytes(process.pid) for process in procfs.tree(server.pid))


def _processes_of(server: Running, tenants: Sequence[Tenant]) -> Counter[int]:
    """Return uid -> how many processes that tenant has."""
    uids = {tenant.uid for tenant in tenants}
    return Counter(uid for process in procfs.tree(server.pid) if (uid := procfs.uid_of(process.pid)) is not None and uid in uids)


def _wait_few(server: Running, tenants: Sequence[Tenant], most: int) -> None:
    """Wait until no tenant has more than `most` processes."""
    deadline = time.monotonic() + _PHP_TIMEOUT_S
    while max(_processes_of(server, tenants).values(), default=0) > most:
        if time.monotonic() > deadline:
            raise RuntimeError(f"php-memory: a tenant still has more than {most} processes after {_PHP_TIMEOUT_S:.0f} s:\n{server.said()}")
        time.sleep(_PAUSE_S)


# --- children: memory of many live children ----------------------------------------------------------------------------------


def measure_children(base: Path, say: Say) -> Sample:
    """Wake CHILDREN tenants of as many uids; return PSS in bytes of all and per child, how many live, and seconds to wake them."""
    tenants = make_tenants(base / "sites", CHILDREN, has_large=False)
    say(f"children: starting with {CHILDREN:,} tenants")
    server = _start(base, tenants, _text(base, tenants, "IdleTimeout 0\n", "access.log"))
    try:
        woken_s, failed = _wake(server, tenants)
        processes = procfs.tree(server.pid)
        uids = {tenant.uid for tenant in tenants}
        live = sum(procfs.uid_of(process.pid) in uids for process in processes)
        total = sum(procfs.pss_bytes(process.pid) for process in processes)
        say(f"children: {live:,} live, {total / 2**20:,.0f} MB PSS, {woken_s * 1000 / CHILDREN:.1f} ms each to wake")
    finally:
        server.stop()
    return {"live": live, "total": total, "per_child": total / max(live, 1), "wake_seconds": woken_s, "failed": failed}


EXTRAS: dict[str, Callable[[Path, Say], Sample]] = {
    "cold": measure_cold,
    "php-cold": measure_php_cold,
    "php-memory": measure_php_memory,
    "children": measure_children,
    "scale": measure_scale,
}
