"""Connections to an own pool of PHP that are kept for the next request: used again, given up, and never in anybody's way.

A kept connection is seen as a socket that the child holds between two requests.
Runs as: root, which starts the server; php-fpm and its scripts run as their tenant.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild.limits import LIMITS
from tests.boundary import procs
from tests.lab import Lab, Response, comm_of, is_alive, tree_of, uid_of, wait_until
from tests.php import PHP_FPM, PhpFpm

pytestmark = [pytest.mark.root, pytest.mark.timeout(120),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"), pytest.mark.skipif(not PHP_FPM, reason="no php-fpm")]

KEPT_S = next(limit.value for limit in LIMITS if limit.name == "KEPT_FCGI_MS") / 1000
SCRIPTS = {
    "pid.php": "<?php echo getmypid();",
    "body.php": "<?php echo strlen(file_get_contents('php://input'));",
    "slow.php": "<?php touch(\"began$_GET[n]\"); while (!file_exists('go')) { usleep(1000); } echo $_GET['n'];",
    "suicide.php": "<?php posix_kill(posix_getpid(), 9);",
}


class Site:
    """One tenant with a pool of `most` workers."""

    def __init__(self, lab: Lab, most: int = 0) -> None:
        self.lab, self.alice, self.most = lab, lab.tenants["alice"], most
        assert self.get("/").status == 200
        self.before = self.idle_sockets()

    def ask_slow(self, count: int) -> tuple[list[threading.Thread], dict[int, bytes]]:
        """Ask for slow.php so many times at once; return the threads, and where they put the answers."""
        answers: dict[int, bytes] = {}
        threads = [threading.Thread(target=lambda n=n: answers.update({n: self.get(f"/slow.php?n={n}").body})) for n in range(count)]
        for thread in threads:
            thread.start()
        return threads, answers

    def began(self) -> int:
        """Return how many slow.php have begun."""
        return len(list(self.alice.docroot.glob("began*")))

    def end_slow(self, threads: list[threading.Thread]) -> None:
        """Let them end, and wait for that."""
        self.alice.write("go", "")
        for thread in threads:
            thread.join()

    def get(self, path: str, method: str = "GET", body: bytes = b"") -> Response:
        """Return the answer, of a connection that ends with it."""
        return self.lab.get("alice.test", path, method=method, body=body)

    def idle_sockets(self) -> set[str]:
        """Return those that it holds without a connection."""
        [child] = self.lab.children(self.alice.uid)
        wait_until(lambda: procs.counter(self.lab, child, "connections") == 0, "its connections have ended")
        return self.sockets()

    def sockets(self) -> set[str]:
        """Return the sockets that alice's child holds."""
        [child] = self.lab.children(self.alice.uid)
        names = set()
        for fd in os.listdir(f"/proc/{child}/fd"):
            try:
                names.add(os.readlink(f"/proc/{child}/fd/{fd}"))
            except FileNotFoundError:
                continue
        return {name for name in names if name.startswith("socket:")}

    def kept(self, before: set[str], count: int) -> set[str]:
        """Return the sockets beyond `before`, once they are so many, or as many as are left when an idle one would have been closed."""
        end_s = time.monotonic() + KEPT_S
        while len(found := self.sockets() - before) != count and time.monotonic() < end_s:
            time.sleep(0.005)
        return found

    def keep_twice(self, count: int) -> tuple[set[str], set[str]]:
        """Ask twice, and return what is kept behind each request; again, if that took as long as an idle connection may last."""
        for _ in range(20):
            wait_until(lambda: not self.sockets() - self.before, "nothing is kept")
            start_s = time.monotonic()
            found = []
            for _ in range(2):
                assert self.get("/pid.php").status == 200
                found.append(self.kept(self.before, count))
            if time.monotonic() - start_s < KEPT_S:
                return found[0], found[1]
        raise AssertionError(f"never within {KEPT_S} s")

    def workers(self) -> list[int]:
        """Return the pids of its pool's workers."""
        pids = [pid for pid in tree_of(self.lab.pid)[1:] if uid_of(pid) == self.alice.uid and comm_of(pid).startswith("php-fpm")]
        return [pid for pid in pids if not any(comm_of(below).startswith("php-fpm") for below in tree_of(pid)[1:])]


def namespace_pid(pid: int) -> int:
    """Return what a process of a runner takes for its pid."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


@pytest.fixture(params=[1, 3], ids=["one-worker", "three-workers"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A server whose tenant's pool has been started, and keeps nothing."""
    with Lab(names=("alice",), host_config=f"PHPPool on max_children={request.param}\n") as lab:
        for name, text in SCRIPTS.items():
            lab.tenants["alice"].write(name, text)
        lab.tenants["alice"].docroot.chmod(0o700)
        lab.start()
        yield Site(lab, request.param)
        lab.stop()


def test_the_next_request_goes_by_the_same_connection_which_ends_when_idle(site: Site) -> None:
    """One socket for two requests; none when KEPT_FCGI_MS are over."""
    site.get("/pid.php")  # the pool is up
    first, second = site.keep_twice(1)
    assert len(first) == 1
    assert first == second
    wait_until(lambda: not site.sockets() - site.before, "the idle connection is closed")


def test_a_body_goes_by_a_connection_of_its_own_and_waits_for_no_kept_one(site: Site) -> None:
    """With one worker, which a kept connection holds, it would wait until that is idle for long enough."""
    took_s = []
    while len(took_s) < 5 or (min(took_s) >= KEPT_S / 2 and len(took_s) < 50):  # a busy machine can be slow: once is enough
        site.get("/pid.php")
        start = time.monotonic()
        assert site.get("/body.php", "POST", b"x" * 100_000).body == b"100000"
        took_s.append(time.monotonic() - start)
    assert min(took_s) < KEPT_S / 2


def test_more_requests_than_workers_are_all_answered(site: Site) -> None:
    """The surplus waits for workers, none of which stays with a connection that nobody uses."""
    site.get("/pid.php")
    threads, answers = site.ask_slow(8)
    wait_until(site.began, "the first is in work")
    site.end_slow(threads)
    assert answers == {n: str(n).encode() for n in range(8)}


def test_requests_that_come_at_once_are_all_begun_at_once(site: Site) -> None:
    """As far as there may be workers. php-fpm looks once for however many come at a time, and would begin some when others have ended."""
    site.get("/pid.php")
    threads, answers = site.ask_slow(site.most)
    wait_until(lambda: site.began() == site.most, "each has a worker while none has ended")
    site.end_slow(threads)
    assert answers == {n: str(n).encode() for n in range(site.most)}


def test_a_worker_that_ends_while_its_connection_is_kept_harms_nobody(site: Site) -> None:
    """As php-fpm's do after pm.max_requests."""
    for _ in range(3):
        assert site.get("/pid.php").status == 200
        workers = site.workers()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda pids=workers: not any(map(is_alive, pids)), "they have ended")  # one that ends may still accept
        assert site.get("/pid.php").status == 200


def test_a_worker_that_ends_when_the_next_request_is_on_its_way_harms_nobody(site: Site) -> None:
    """It has taken none of it: the child asks another."""
    pid = int(site.get("/pid.php").body)
    [pid] = [one for one in site.workers() if namespace_pid(one) == pid]
    os.kill(pid, signal.SIGSTOP)
    before = site.sockets()
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(site.get("/pid.php").status))
    thread.start()
    wait_until(lambda: site.sockets() - before, "the request is there")
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert statuses == [200]


def test_a_script_that_ends_its_worker_is_502_and_not_asked_for_ever(site: Site) -> None:
    """Once on the kept connection, once on a new one."""
    assert site.get("/pid.php").status == 200
    answer = site.get("/suicide.php")
    assert (answer.status, site.lab.error_log().count("AH01067")) == (502, 1)


@pytest.mark.parametrize(("words", "count"), [("enablereuse=on max=2", 1), ("enablereuse=off", 0), ("", 0)])
def test_a_php_that_runs_already_keeps_what_it_is_told_to(words: str, count: int) -> None:
    """As in httpd it has to be asked for: only who wrote the pool knows its workers."""
    with Lab(names=("alice",)) as lab:
        alice = lab.tenants["alice"]
        alice.write("pid.php", SCRIPTS["pid.php"])
        target = f'"unix:{alice.home}/fpm.sock|fcgi://localhost{alice.docroot}/$1"'
        lab.has_vhosts, lab.config_tail = False, lab.host_block(alice, f'ProxyPassMatch "^/(.*[.]php)$" {target} {words}\n')
        with contextlib.closing(PhpFpm(alice)):
            lab.start()
            first, second = Site(lab).keep_twice(count)
            assert len(first) == count
            assert first == second
            lab.stop()
