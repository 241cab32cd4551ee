"""Who notices when a tenant's programs misbehave: a neighbour who is asked all the while, and the processes and descriptors that stay.

Runs as: root, beside a server of the lab.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

from tests.boundary import procs
from tests.lab import Lab, Tenant, comm_of, is_alive, tree_of, uid_of, wait_until
from tests.system.wire import Client, get


def process_of(lab: Lab, tenant: Tenant, kind: str) -> int:
    """Return the pid of a tenant's child ("pc:") or runner ("pr:")."""
    return next(pid for pid in tree_of(lab.pid) if uid_of(pid) == tenant.uid and comm_of(pid).startswith(kind))


def programs_of(lab: Lab, tenant: Tenant) -> list[int]:
    """Return the pids of a tenant's processes that are neither child nor runner."""
    return [pid for pid in tree_of(lab.pid)[1:] if uid_of(pid) == tenant.uid and is_alive(pid)
            and not comm_of(pid).startswith(("pc:", "pc-", "pr:"))]


def wait_for_nothing_but_the_runner(lab: Lab, tenant: Tenant) -> int:
    """Wait until all that a tenant's runner has executed is reaped too: what has answered may be a zombie still. Return the runner."""
    runner = process_of(lab, tenant, "pr:")
    wait_until(lambda: tree_of(runner) == [runner], f"the runner of {tenant.name} has reaped what has answered")
    return runner


SAMPLES = 100  # at least, of each kind, before and during: what a 99th percentile needs
# How much longer an answer may take meanwhile: so many times as long, and so many seconds. The machine may be busy with other tests.
SLACK = {"median": (3.0, 0.05), "p99": (3.0, 0.5)}
PATHS = {"/index.html": b"bob\n", "/cgi-bin/hello": b"hello\n"}


def measures(times_s: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, seconds."""
    return {"median": statistics.median(times_s), "p99": statistics.quantiles(times_s, n=100)[98]}


class Neighbour:
    """Bob, who is asked for a file and a program again and again: every answer must be right; how long each took is kept."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._before_s: dict[str, list[float]] = {path: [] for path in PATHS}
        self._during_s: dict[str, list[float]] = {path: [] for path in PATHS}
        for _ in range(SAMPLES):
            self._ask(self._before_s)

    def _ask(self, times_s: dict[str, list[float]]) -> None:
        for path, body in PATHS.items():
            started_s = time.monotonic()
            assert self._lab.get("bob.test", path, timeout_s=30).body == body
            times_s[path].append(time.monotonic() - started_s)

    def ask_until(self, is_over: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        """Ask until something has happened."""
        end_s = time.monotonic() + timeout_s
        while not is_over():
            assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
            self._ask(self._during_s)

    def ask_enough(self) -> None:
        """Ask until there is enough to compare."""
        while len(self._during_s["/index.html"]) < SAMPLES:
            self._ask(self._during_s)

    def was_served(self) -> None:
        """Median and 99th percentile are where they were, of files and of programs."""
        for path in PATHS:
            before, during = measures(self._before_s[path]), measures(self._during_s[path])
            for name, (times, more_s) in SLACK.items():
                assert during[name] <= times * before[name] + more_s, f"{path}: {name}: {before[name]:.4f} s before, {during[name]:.4f} s during"


class Leaver:
    """A client that asks and does not wait for its answer."""

    def __init__(self, lab: Lab, host: str, path: str, *fields: str, body: bytes = b"") -> None:
        self.client = Client(("127.0.0.1", lab.port))
        self.client.send(get(host, path, *fields, method="POST" if fields else "GET") + body)

    def leave(self) -> None:
        """Close."""
        self.client.sock.close()


class Bomb:
    """A tenant's program that makes as many processes as it is let."""

    def __init__(self, lab: Lab, tenant: Tenant) -> None:
        self._lab, self._tenant = lab, tenant
        self.sizes: list[int] = []

    def has_grown(self) -> bool:
        """Whether it has been as large as now for a while."""
        self.sizes.append(len(programs_of(self._lab, self._tenant)))
        return len(self.sizes) > 3 and self.sizes[-1] == self.sizes[-3] > 10


@contextlib.contextmanager
def nothing_left(lab: Lab, *tenants: Tenant) -> Iterator[None]:
    """Afterwards the tenants have the processes and descriptors that they had before: child, runner, and what these hold."""
    pids = [process_of(lab, tenant, kind) for tenant in tenants for kind in ("pc:", "pr:")] + [lab.pid]
    for tenant in tenants:
        assert lab.get(tenant.host, "/index.html").status == 200
        wait_until(lambda tenant=tenant: not programs_of(lab, tenant), f"nothing of {tenant.name} runs")
    before = {pid: len(procs.descriptors(pid)) for pid in pids}
    yield
    for tenant in tenants:
        wait_until(lambda tenant=tenant: not programs_of(lab, tenant), f"no program of {tenant.name} is left", 30)
    for pid in pids:
        wait_until(lambda pid=pid: len(procs.descriptors(pid)) <= before[pid], f"{comm_of(pid)}'s descriptors are as before", 30)


def set_off_bomb(lab: Lab, tenant: Tenant) -> int:
    """Ask for a tenant's /cgi-bin/bomb and leave once it has grown; return to how many processes.

    Bob is served meanwhile as before, and when its client leaves all of it goes.
    """
    neighbour, bomb = Neighbour(lab), Bomb(lab, tenant)
    with nothing_left(lab, tenant):
        one = Leaver(lab, tenant.host, "/cgi-bin/bomb")
        neighbour.ask_until(bomb.has_grown, "the bomb has gone off")
        neighbour.ask_enough()
        one.leave()
    neighbour.was_served()
    return max(bomb.sizes)
