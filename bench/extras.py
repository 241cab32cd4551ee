"""Works that only perchildd does: waking a sleeping tenant, 2,000 live children, 5,000 hosts of 2,000 users.

Runs as: root.
"""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import load, procfs
from bench.servers import PORTS, PROJECT, Running, host_section, perchildd_head, spec_of
from bench.tenants import Tenant, make_tenants
from bench.works import Sample

Say = Callable[[str], None]

COLD_ROUNDS = 5
CHILDREN = 2_000
HOSTS = 5_000
USERS = 2_000
_SLEEP_TIMEOUT_S = 30.0
_LIVE_TIMEOUT_S = 60.0
_LOAD_S = 12.0
_TESTS = 3


def _start(base: Path, tenants: Sequence[Tenant], text: str) -> Running:
    return Running(spec_of("perchildd"), base / "server", tenants, text)


def _text(base: Path, tenants: Sequence[Tenant], extra: str, log: str = "", behind: str = "") -> str:
    run, port = base / "server", PORTS["perchildd"]
    hosts = "".join(host_section(tenant, port, run / (log or f"{tenant.host}.log"), is_assigned=True) for tenant in tenants)
    return perchildd_head(run, port) + extra + hosts + behind


def _wake(server: Running, tenants: Sequence[Tenant]) -> tuple[float, int]:
    """Ask every tenant once; return the seconds it took and how many did not answer rightly."""
    start = time.monotonic()
    failed = sum(not load.is_right(server.port, tenant.host, "/1k.html") for tenant in tenants)
    return time.monotonic() - start, failed


# --- cold: the first byte of a sleeping tenant -----------------------------------------------------------------------------


def measure_cold(base: Path, say: Say) -> Sample:
    """Wake each of 20 sleeping tenants, COLD_ROUNDS times; return first-byte times in ms: median, p90, worst; and the count."""
    tenants = make_tenants(base / "sites", 20, has_large=False)
    server = _start(base, tenants, _text(base, tenants, "IdleTimeout 1\n"))
    times: list[float] = []
    try:
        for number in range(COLD_ROUNDS):
            _wait_asleep(server, tenants)
            times += [_first_byte_ms(server, tenant) for tenant in tenants]
            say(f"cold: round {number + 1} of {COLD_ROUNDS}, median so far {statistics.median(times):.1f} ms")
    finally:
        server.stop()
    times.sort()
    return {"median_ms": statistics.median(times), "p90_ms": times[int(len(times) * 0.9)], "max_ms": times[-1], "count": len(times)}


def _first_byte_ms(server: Running, tenant: Tenant) -> float:
    start = time.monotonic()
    status, body = load.fetch(server.port, tenant.host, "/1k.html")
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


# --- scale: many hosts -------------------------------------------------------------------------------------------------------


def measure_scale(base: Path, say: Say) -> Sample:
    """Serve HOSTS hosts of USERS users: seconds of the configuration test, of the start, and of one host added live.

    Returns:
        test_seconds (median), start_seconds, live (children awake), quiet_seconds and loaded_seconds (of adding one host, without
        and with a load running), failed (requests of that load), touched (children whose pid changed), requests.
    """
    people = make_tenants(base / "sites", USERS + 2, has_large=False)
    users, newcomers = people[:USERS], people[USERS:]
    hosts = [_host_of(users[number % USERS], number // USERS) for number in range(HOSTS)]
    conf_d = base / "server" / "hosts.d"
    conf_d.mkdir(parents=True)
    # Behind the others: a newcomer in front would be the address's first host, and so take its place from another's.
    text = _text(base, hosts, "IdleTimeout 0\n", "access.log", f"IncludeOptional {conf_d}/*.conf\n")
    say(f"scale: starting with {HOSTS:,} hosts of {USERS:,} users")
    server = _start(base, users, text)
    try:
        found: Sample = {"start_seconds": server.start_seconds, "test_seconds": _test_seconds(server)}
        say(f"scale: configuration test {found['test_seconds']:.2f} s, start {found['start_seconds']:.2f} s; waking all users")
        found["live"] = USERS - _wake(server, users)[1]
        return found | _add_hosts(server, users, newcomers, conf_d, say)
    finally:
        server.stop()


def _host_of(user: Tenant, number: int) -> Tenant:
    """Return the user's host number 0.. (0 is the user's own; the files are the user's, whatever the host)."""
    return user if number == 0 else Tenant(user.number, user.uid, f"h{number}.{user.host}", user.root)


def _test_seconds(server: Running) -> float:
    times = []
    for _ in range(_TESTS):
        start = time.monotonic()
        tested = subprocess.run([*spec_of("perchildd").command(server.conf)[:-2], "-t"], cwd=PROJECT, capture_output=True, text=True, check=False)
        times.append(time.monotonic() - start)
        if tested.returncode:
            raise RuntimeError(f"scale: the configuration test failed:\n{tested.stdout}{tested.stderr}")
    return statistics.median(times)


def _add_hosts(server: Running, users: Sequence[Tenant], newcomers: Sequence[Tenant], conf_d: Path, say: Say) -> Sample:
    before = _tenant_pids(server)
    quiet = _add_host(server, newcomers[0], conf_d)
    say(f"scale: one host added in {quiet:.2f} s")
    wrk = load.start_wrk(server.port, load.Load("pinned", "/1k.html", 2, 16), [user.host for user in users[:20]], _LOAD_S)
    loaded = _add_host(server, newcomers[1], conf_d)
    seen = load.end_wrk(wrk)
    after = _tenant_pids(server)
    changed = {uid: (sorted(pids), sorted(after.get(uid, ()))) for uid, pids in before.items() if after.get(uid) != pids}
    touched = len(changed)
    say(f"scale: one host added in {loaded:.2f} s under load; {seen.failed} of {seen.requests:,} requests failed, {touched} children touched")
    for uid, (old, new) in list(changed.items())[:5]:
        say(f"scale: uid {uid} had processes {old} and has {new}")
    return {"quiet_seconds": quiet, "loaded_seconds": loaded, "failed": seen.failed, "requests": seen.requests, "touched": touched}


def _add_host(server: Running, tenant: Tenant, conf_d: Path) -> float:
    """Add the host of `tenant`, ask for a graceful restart, and return the seconds until the new host answers rightly."""
    start = time.monotonic()
    text = host_section(tenant, server.port, server.run / "access.log", is_assigned=True)
    (conf_d / f"{tenant.host}.conf").write_text(text)
    os.kill(server.pid, signal.SIGUSR1)
    if load.wait_until_right(server.port, tenant.host, "/1k.html", _LIVE_TIMEOUT_S) is None:
        raise RuntimeError(f"scale: the new host did not answer within {_LIVE_TIMEOUT_S:.0f} s:\n{server.said()}")
    return time.monotonic() - start


def _tenant_pids(server: Running) -> dict[int, frozenset[int]]:
    """Return uid -> pids of all children but the unassigned and the dispatcher."""
    pids: dict[int, set[int]] = {}
    for process in procfs.tree(server.pid):
        uid = procfs.uid_of(process.pid)
        if uid is not None and uid >= 40_000:
            pids.setdefault(uid, set()).add(process.pid)
    return {uid: frozenset(group) for uid, group in pids.items()}


EXTRAS: dict[str, Callable[[Path, Say], Sample]] = {"cold": measure_cold, "children": measure_children, "scale": measure_scale}
