"""Many hosts of many users, each in a file of its own: start, configuration test, and what one change costs while all of them are served.

Runs as: root.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import load, procfs
from bench.servers import PORTS, PROJECT, Running, environ_as_installed, host_section, perchildd_head, spec_of
from bench.tenants import Tenant, make_tenants
from bench.works import Sample
from perchild.control.client import ask_server

Say = Callable[[str], None]

HOSTS = 5_000
USERS = 2_000
_LIVE_TIMEOUT_S = 60.0
_LOAD_S = 30.0  # longer than all changes under load take together
_TESTS = 3
_LOADED = 20  # users whose hosts the load asks for
_CHANGED, _BROKEN, _BESIDE = 3, 4, 5  # of these users; what befalls their hosts
_FOUND = 302


class Sites:
    """The files of all hosts, and a server that includes them."""

    def __init__(self, base: Path, users: Sequence[Tenant]) -> None:
        """Write the files and start the server."""
        self.run = base / "server"
        self.folder = self.run / "sites-enabled"
        self.folder.mkdir(parents=True)
        for number in range(HOSTS):
            user = users[number % USERS]
            self.put(user if number < USERS else Tenant(user.number, user.uid, f"h{number // USERS}.{user.host}", user.root))
        text = perchildd_head(self.run, PORTS["perchildd"]) + f"IdleTimeout 0\nInclude {self.folder}/*.conf\n"
        self.server = Running(spec_of("perchildd"), self.run, users, text)

    def path(self, tenant: Tenant) -> Path:
        """Return the file of a host; newcomers' stand behind the others, for the address's first host answers for unknown names."""
        return self.folder / f"{'zz-' if tenant.number > USERS else ''}{tenant.host}.conf"

    def put(self, tenant: Tenant, inside: str = "") -> None:
        """Write the file of a host, with `inside` in it."""
        text = host_section(tenant, PORTS["perchildd"], self.run / "access.log", is_assigned=True, inside=inside)
        self.path(tenant).write_text(text)

    def wait(self, what: str, is_in_force: Callable[[], bool]) -> float:
        """Reload, as `systemctl reload` does; return the seconds until the change is in force."""
        start = time.monotonic()
        answer = ask_server(str(self.run / "run"), {"op": "graceful"})
        if not answer["ok"]:
            raise RuntimeError(f"scale: {what} was refused: {answer['text']}")
        while not is_in_force():
            if time.monotonic() - start > _LIVE_TIMEOUT_S:
                raise RuntimeError(f"scale: {what} was not in force within {_LIVE_TIMEOUT_S:.0f} s:\n{self.server.said()}")
            time.sleep(0.01)
        return time.monotonic() - start

    def answers(self, tenant: Tenant) -> bool:
        """Whether a host answers with its own file."""
        return load.is_right(self.server.port, tenant.host, "/1k.html")

    def redirects(self, tenant: Tenant) -> bool:
        """Whether a host's change is in force."""
        return load.fetch(self.server.port, tenant.host, "/changed")[0] == _FOUND


_CHANGE = "    Redirect /changed http://elsewhere.test/\n"


def measure_scale(base: Path, say: Say) -> Sample:
    """Serve HOSTS hosts of USERS users, add, change, break and remove one, and see what the others notice.

    Returns:
        test_seconds (median), start_seconds, live (children awake); quiet_seconds (one host added without load), and with a load
        running loaded_seconds (added), changed_seconds, broken_seconds (a change beside a site that is refused), removed_seconds;
        failed and requests of that load; touched (children of users that nothing was changed of whose pid changed);
        memory and dispatcher, PSS in bytes.
    """
    people = make_tenants(base / "sites", USERS + 2, has_large=False)
    users, newcomers = people[:USERS], people[USERS:]
    say(f"scale: starting with {HOSTS:,} hosts of {USERS:,} users")
    sites = Sites(base, users)
    try:
        found: Sample = {"start_seconds": sites.server.start_seconds, "test_seconds": _test_seconds(sites.server)}
        say(f"scale: configuration test {found['test_seconds']:.2f} s, start {found['start_seconds']:.2f} s; waking all users")
        found["live"] = sum(sites.answers(user) for user in users)
        found |= _change_all(sites, users, newcomers, say)
        found["dispatcher"] = procfs.pss_bytes(sites.server.pid)
        found["memory"] = sum(procfs.pss_bytes(process.pid) for process in procfs.tree(sites.server.pid))
        say(f"scale: {found['memory'] / 2**20:,.0f} MB PSS of all, {found['dispatcher'] / 2**20:,.0f} MB of the dispatcher")
        return found
    finally:
        sites.server.stop()


def _test_seconds(server: Running) -> float:
    times = []
    for _ in range(_TESTS):
        start = time.monotonic()
        tested = subprocess.run([*spec_of("perchildd").command(server.conf)[:-2], "-t"], cwd=PROJECT, capture_output=True, text=True, check=False,
                                env=environ_as_installed())
        times.append(time.monotonic() - start)
        if tested.returncode:
            raise RuntimeError(f"scale: the configuration test failed:\n{tested.stdout}{tested.stderr}")
    return statistics.median(times)


def _change_all(sites: Sites, users: Sequence[Tenant], newcomers: Sequence[Tenant], say: Say) -> Sample:
    before = _tenant_pids(sites.server)
    quiet = _add(sites, newcomers[0])
    say(f"scale: one host added in {quiet:.2f} s")
    wrk = load.start_wrk(sites.server.port, load.Load("pinned", "/1k.html", 2, 16), [user.host for user in users[:_LOADED]], _LOAD_S)
    loaded = _add(sites, newcomers[1])
    sites.put(users[_CHANGED], _CHANGE)
    changed = sites.wait("a change", lambda: sites.redirects(users[_CHANGED]))
    broken = _break(sites, users[_BROKEN], users[_BESIDE])
    sites.path(newcomers[1]).unlink()
    removed = sites.wait("a removal", lambda: not sites.answers(newcomers[1]))
    still_runs = wrk.poll() is None
    seen = load.end_wrk(wrk)
    meant = {users[_CHANGED].uid, users[_BESIDE].uid}
    after = _tenant_pids(sites.server)
    touched = {uid: (sorted(pids), sorted(after.get(uid, ()))) for uid, pids in before.items() if after.get(uid) != pids and uid not in meant}
    say(f"scale: under load: added in {loaded:.2f} s, changed in {changed:.2f} s, beside a broken one in {broken:.2f} s, removed in {removed:.2f} s; "
        f"{seen.failed} of {seen.requests:,} requests failed, {len(touched)} children touched"
        + ("" if still_runs else "; the load ended before the changes did"))
    for uid, (old, new) in list(touched.items())[:5]:
        say(f"scale: uid {uid} had processes {old} and has {new}")
    return {"quiet_seconds": quiet, "loaded_seconds": loaded, "changed_seconds": changed, "broken_seconds": broken, "removed_seconds": removed,
            "failed": seen.failed, "requests": seen.requests, "touched": len(touched)}


def _add(sites: Sites, tenant: Tenant) -> float:
    sites.put(tenant)
    return sites.wait("a new host", lambda: sites.answers(tenant))


def _break(sites: Sites, broken: Tenant, beside: Tenant) -> float:
    """Break one site and change another; return the seconds until the change is in force, while the broken one answers as before."""
    sites.put(broken, "    NoSuchDirective on\n")
    sites.put(beside, _CHANGE)
    took = sites.wait("a change beside a broken site", lambda: sites.redirects(beside))
    known = ask_server(str(sites.run / "run"), {"op": "status"})["broken_sites"]
    if [one["file"] for one in known] != [str(sites.path(broken))] or not sites.answers(broken):
        raise RuntimeError(f"scale: {broken.host} is broken, and the server says {known}:\n{sites.server.said()}")
    return took


def _tenant_pids(server: Running) -> dict[int, frozenset[int]]:
    """Return uid -> pids of all children but the unassigned and the dispatcher."""
    pids: dict[int, set[int]] = {}
    for process in procfs.tree(server.pid):
        uid = procfs.uid_of(process.pid)
        if uid is not None and uid >= 40_000:
            pids.setdefault(uid, set()).add(process.pid)
    return {uid: frozenset(group) for uid, group in pids.items()}
