"""Which host answers, and under which uid: names, wildcards, addresses, ports, several children, MPMs, accept locks.

Names are compared with Debian's httpd on the same <VirtualHost> sections: `AssignUserID` stands within <IfModule mpm_itk.c>,
which httpd event skips.
Runs as: root, which starts the servers.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild.control.client import ask_pages
from tests.lab import Lab, uid_of, wait_until
from tests.system.wire import HAS_APACHE, Client, Httpd, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

# (section's addresses, ServerName, ServerAlias, tenant or "" for the unassigned identity)
HOSTS = (
    ("*:{port}", "first.test", "", "alice"),
    ("*:{port}", "exact.example.org", "other.example.net www.example.net", "bob"),
    ("*:{port}", "star.test", "*.example.org w?ld.test", "carol"),
    ("*:{port}", "plain.test", "", ""),
    ("*:{port}", "late.test", "a.example.org *.late.test", "bob"),
    ("127.0.0.2:{port}", "two.test", "", "bob"),
    ("127.0.0.2:{port}", "exact.example.org", "", "alice"),
    ("127.0.0.1:{second}", "second.test", "", "carol"),
    ("127.0.0.3:{port} 127.0.0.4:{port}", "both.test", "", "alice"),
)
NAMES = ("first.test", "FIRST.test", "first.test.", "first.test:1", "exact.example.org", "Exact.Example.ORG:80", "other.example.net", "www.example.net",
         "star.test", "a.example.org", "b.example.org", "a.b.example.org", "example.org", "wild.test", "wld.test", "wiild.test", "plain.test", "late.test",
         "x.late.test", "two.test", "second.test", "both.test", "unknown.test", "main.test", "127.0.0.1", "[::1]", "")
DIFFERENCES = {
    "": "RFC 9112 3.2 allows an empty Host: the address's first host, as for any name that is nobody's; httpd answers 400",
    "a.example.org": "an exact name comes before an earlier host's wildcard, whose owner may be another tenant; httpd goes by order",
}
THREADS = {"prefork": 2, "worker": 4}  # the MPM's own number of them, and the one that hears the dispatcher
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")


def sections(lab: Lab) -> str:
    """Return the <VirtualHost> sections; {port} and {second} are left open."""
    text = ""
    for number, (addresses, name, aliases, tenant) in enumerate(HOSTS):
        root = lab.base / f"host{number}"
        root.mkdir()
        (root / "index.html").write_text(f"{number} {name}\n")
        uid = lab.tenants[tenant].uid if tenant else 0
        identity = f"<IfModule mpm_itk.c>\nAssignUserID #{uid} #{uid}\n</IfModule>\n" if tenant else ""
        text += (f"<VirtualHost {addresses}>\nServerName {name}\n" + (f"ServerAlias {aliases}\n" if aliases else "")
                 + f"DocumentRoot {root}\n<Directory {root}>\nRequire all granted\n</Directory>\n{identity}</VirtualHost>\n")
    return text + f"<Directory {lab.main_root}>\nRequire all granted\n</Directory>\n"


def listens(port: int, second: int) -> str:
    """Return the Listen lines beside that of 127.0.0.1:port."""
    return "".join(f"Listen {address}:{port}\n" for address in ADDRESSES[1:]) + f"Listen 127.0.0.1:{second}\nListen 127.0.0.2:{second}\n"


@pytest.fixture(scope="module", params=["unassigned", "any"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The hosts of HOSTS, for each AcceptScope."""
    with Lab(vhosts=False, accept_scope=request.param) as one:
        second = one.port + 500
        if request.param == "any":  # tenants' children listen too
            fixed = [f"ChildPerUserID #{tenant.uid} #{tenant.uid} {number}\n" for number, tenant in enumerate(one.tenants.values(), 1)]
            one.config = "".join(fixed)
        one.config += listens(one.port, second) + sections(one).replace("{port}", str(one.port)).replace("{second}", str(second))
        yield one.start()


def body_of(connection: Client, name: str) -> str:
    """Return what a host answers on a new connection: its number and name, or the status."""
    with connection as conn:
        answer = conn.ask(get(name, "/", "Connection: close"))
        return answer.body.decode().strip() if answer.status == 200 else str(answer.status)


@pytest.mark.plain("names of hosts without certificates; those in handshakes are in test_sni.py")
@pytest.mark.interop
@pytest.mark.skipif(not HAS_APACHE, reason="Debian's apache2 is not installed")
def test_names_lead_where_httpd_leads_them(lab: Lab) -> None:
    """25 names at 5 addresses and 2 ports: the host that answers is httpd's."""
    second = lab.port + 500
    text = lab.config.split("<VirtualHost", 1)[1]
    with contextlib.ExitStack() as stack:
        httpd = Httpd(lab.base / "httpd", lab.tenants["alice"].uid, "", extra_listen="")
        config = httpd.config.read_text() + listens(httpd.port, httpd.port + 500) + f"DocumentRoot {lab.main_root}\n<VirtualHost" + text
        httpd.config.write_text(config.replace(f":{lab.port}>", f":{httpd.port}>").replace(f":{lab.port} ", f":{httpd.port} ")
                                .replace(f":{second}>", f":{httpd.port + 500}>"))
        stack.enter_context(httpd)
        places = [(address, 0) for address in ADDRESSES] + [("127.0.0.1", 500), ("127.0.0.2", 500)]
        wrong = [f"{name!r} at {address}+{offset}: {ours!r}, httpd {theirs!r}" for address, offset in places for name in NAMES if name not in DIFFERENCES
                 if (ours := body_of(client(lab, (address, lab.port + offset)), name))
                 != (theirs := body_of(Client((address, httpd.port + offset)), name))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.plain("names of hosts without certificates; those in handshakes are in test_sni.py")
def test_exact_name_comes_before_another_hosts_wildcard(lab: Lab) -> None:
    """What DIFFERENCES lists: an exact name beats a wildcard that stands earlier; an empty name is the first host's."""
    assert body_of(client(lab), "a.example.org") == "4 late.test"
    if not lab.h2:  # whose client says no name rather than an empty one
        assert body_of(client(lab), "") == "0 first.test"


@pytest.mark.http1("a connection that goes to another tenant; a stream's request for one is 421")
@pytest.mark.plain("names of hosts without certificates; those in handshakes are in test_sni.py")
def test_every_host_answers_on_one_kept_connection(lab: Lab) -> None:
    """Hosts of three tenants and of nobody in turn, and back: each answered, by name, on the connection's own address."""
    wanted = {"exact.example.org": "1", "star.test": "2", "plain.test": "3", "late.test": "4", "first.test": "0", "b.example.org": "2",
              "a.example.org": "4", "unknown.test": "0"}
    with client(lab) as conn:
        for name, number in list(wanted.items()) * 3:
            assert conn.ask(get(name)).body.decode().split()[0] == number, name
    with client(lab, ("127.0.0.2", lab.port)) as conn:
        for name, number in {"two.test": "5", "exact.example.org": "6", "plain.test": "5"}.items():
            assert conn.ask(get(name)).body.decode().split()[0] == number, name


# ---------------------------------------------------------------- identities and children


def test_hosts_of_one_identity_share_its_child() -> None:
    """Two hosts of alice: one process serves both, and its uid is hers."""
    with Lab(names=("alice", "bob")) as lab:
        alice = lab.tenants["alice"]
        lab.tenants["bob"] = lab.tenants["bob"].__class__("bob", alice.uid, lab.tenants["bob"].home)
        for path in (lab.tenants["bob"].home, *lab.tenants["bob"].home.rglob("*")):
            os.chown(path, alice.uid, alice.uid)
        lab.start()
        facts = [lab.get(host, "/whoami").json() for host in ("alice.test", "bob.test")]
        assert [one["uid"] for one in facts] == [alice.uid] * 2
        assert facts[0]["pid"] == facts[1]["pid"]


def test_two_children_of_one_identity_share_its_work() -> None:
    """ChildPerUserID twice: two processes of alice's, each of which serves when the other is stopped; a killed one is replaced."""
    with Lab(names=("alice", "bob")) as lab:
        uid = lab.tenants["alice"].uid
        lab.config = f"NumServers 4\nChildPerUserID #{uid} #{uid} 1\nChildPerUserID #{uid} #{uid} 2\n"
        lab.start()
        wait_until(lambda: len(lab.children(uid)) == 2, "both are there")
        pids = lab.children(uid)
        for pid, other in (pids, pids[::-1]):
            with stopped(pid):
                assert {lab.get("alice.test", "/whoami").json()["pid"] for _ in range(20)} == {other}
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: len(lab.children(uid)) == 2 and pids[0] not in lab.children(uid), "it is replaced")
        assert lab.get("alice.test").status == 200


@pytest.mark.plain("the main server has no certificate")
def test_main_server_answers_where_no_host_is_configured() -> None:
    """No <VirtualHost> for an address: the main server, under User."""
    with Lab(vhosts=False, config="<Location /whoami>\nSetHandler whoami\n</Location>\n") as lab:
        lab.start()
        for name in ("main.test", "any.test"):
            assert lab.get(name).body == b"main\n"
            assert lab.get(name, "/whoami").json()["uid"] == lab.user_uid


# ---------------------------------------------------------------- MPMs


def count_threads(pid: int) -> int:
    """Return how many threads a process has; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


@pytest.mark.parametrize(("lines", "mpm", "children"), [
    ("MPM perchild\nNumServers 3\n", "perchild", 3),
    ("LoadModule mpm_worker_module modules/mod_mpm_worker.so\nStartServers 2\nThreadsPerChild 3\nMaxRequestWorkers 12\n", "worker", 2),
    ("MPM prefork\nStartServers 4\nMinSpareServers 2\nMaxSpareServers 6\n", "prefork", 4),
])
def test_each_mpm_scales_its_own_children(lines: str, mpm: str, children: int) -> None:
    """The number of unassigned children and of threads is the MPM's; tenants are served the same; -V names it."""
    with Lab(lines, names=("alice",)) as lab:
        lab.start()
        wait_until(lambda: len(lab.children(lab.user_uid)) >= children, "its children are there")
        assert lab.status()["mpm"] == mpm
        assert re.search(f"Server MPM: +{mpm}$", lab.cli("-V").stdout, re.MULTILINE | re.IGNORECASE)
        assert lab.get("alice.test").body == b"alice\n"
        if mpm in THREADS:
            wait_until(lambda: {count_threads(pid) for pid in lab.children(lab.user_uid)} == {THREADS[mpm]}, "each has as many threads")


@pytest.mark.silent("there is no server")
def test_two_mpms_are_refused() -> None:
    """AH00534 in httpd's words, exit status 1."""
    with Lab("LoadModule mpm_worker_module x\nLoadModule mpm_prefork_module x\n", names=()) as lab:
        lab.write_config()
        said = lab.cli("-t")
        assert said.returncode == 1
        assert "AH00534: " in said.stderr
        assert "More than one MPM loaded." in said.stderr


# ---------------------------------------------------------------- accept locks


def accepted(lab: Lab) -> dict[int, int]:
    """Return what each unassigned child has accepted."""
    return {pid: page.counters["accepted"] for pid, page in ask_pages(str(lab.run), lab.children(lab.user_uid)).items()}


def is_served(lab: Lab, timeout_s: float) -> bool:
    """Whether a new connection is answered in time."""
    try:
        return lab.get("plain.test", timeout_s=timeout_s).status == 200
    except TimeoutError:
        return False


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process meanwhile, with all its threads: one that has not stopped yet can still be woken, and keep what woke it."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(one.read_text().rpartition(")")[2].split()[0] == "T" for one in Path(f"/proc/{pid}/task").glob("*/stat")),
               "its threads have stopped")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def holder_is_among(lab: Lab, pids: list[int]) -> int:
    """Stop one child after the other until nobody accepts: that one holds the lock; 0 if there is none.

    While it is stopped the others must not have accepted anything.
    """
    for pid in pids * 2:
        before = accepted(lab)
        with stopped(pid):
            if not is_served(lab, 6):  # far longer than a busy machine needs: a late answer would be an acceptance without the lock
                others = {one: count for one, count in accepted(lab).items() if one != pid}
                assert others == {one: count for one, count in before.items() if one != pid}, "somebody accepts without the lock"
                return pid
    return 0


@pytest.mark.parametrize("method", ["flock", "fcntl", "pthread", "sysvsem"])
def test_accept_lock_lets_one_child_accept_at_a_time(method: str) -> None:
    """With the lock's holder stopped no unassigned child accepts; when it goes on, or is killed, the waiting are served."""
    with Lab(f"AcceptMutex {method}\nNumServers 3\n", names=("alice",)) as lab:
        lab.start()
        wait_until(lambda: len(lab.children(lab.user_uid)) == 3, "three children")
        assert lab.get("alice.test").status == 200
        holder = holder_is_among(lab, lab.children(lab.user_uid))
        assert holder, "no child seems to hold the lock"
        if method in {"flock", "fcntl"}:
            locks = Path("/proc/locks").read_text()
            inode = (lab.run / "accept.lock").stat().st_ino
            kind = {"flock": "FLOCK", "fcntl": "POSIX"}[method]
            assert re.search(rf"{kind} .*:{inode} ", locks)
        assert is_served(lab, 30)
        with contextlib.suppress(ProcessLookupError):  # a lock is not lost with its holder
            os.kill(holder, signal.SIGKILL)
        assert is_served(lab, 30)
        assert is_served(lab, 30)


def test_without_a_lock_children_accept_side_by_side() -> None:
    """AcceptMutex default: whichever unassigned child is stopped, the others accept, though a wake-up may be lost on it."""
    with Lab("NumServers 3\n", names=("alice",)) as lab:
        lab.start()
        wait_until(lambda: len(lab.children(lab.user_uid)) == 3, "three children")
        for pid in lab.children(lab.user_uid):
            with stopped(pid):
                assert any(is_served(lab, 4) for _ in range(3))


def test_lock_does_not_reach_tenants_children() -> None:
    """AcceptScope any: with the lock's holder stopped the children of tenants go on accepting."""
    with Lab("AcceptMutex flock\nNumServers 3\n", names=("alice",), accept_scope="any") as lab:
        uid = lab.tenants["alice"].uid
        lab.config += f"ChildPerUserID #{uid} #{uid} 1\n"
        lab.start()
        wait_until(lambda: len(lab.children(lab.user_uid)) == 2, "two unassigned children")
        with contextlib.ExitStack() as stack:
            for pid in lab.children(lab.user_uid):
                stack.enter_context(stopped(pid))
            for _ in range(10):
                facts = lab.get("alice.test", "/whoami").json()
                assert (facts["uid"], uid_of(facts["pid"])) == (uid, uid)
