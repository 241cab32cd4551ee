"""Hosts and users that come and go while clients run: nobody else's process changes, no request fails; bad input changes nothing."""

from __future__ import annotations

import os
import signal

import pytest

from perchild.control.client import ask_server
from tests.boundary import procs
from tests.lab import Lab, is_alive, wait_until
from tests.load import Download, Load, reconcile, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
ROUNDS = 50 if os.environ.get("PERCHILD_LONG") else 5
NAMES = ("alice", "bob", "carol")


def make_lab() -> Lab:
    """Return a server one of whose tenants has a child at all times, not started yet."""
    lab = Lab(names=NAMES)
    uid = lab.tenants["alice"].uid
    lab.config = f"NumServers 3\nChildPerUserID #{uid} #{uid} 1\n"
    return lab


def all_children(lab: Lab) -> list[int]:
    """Return the pids of all children, once the two unassigned ones and alice's are there."""
    wait_until(lambda: len(lab.children(lab.user_uid)) == 2 and len(lab.children(lab.tenants["alice"].uid)) == 1, "the children that a start makes are there")
    return sorted(lab.children())


def test_hosts_and_users_come_and_go_and_nobody_else_notices() -> None:
    """Add a user with a host, a second host of another user, take both away, again and again: no other pid changes, nothing fails."""
    with make_lab() as lab:
        lab.start()
        secrets = write_secrets(lab)
        with Load(lab, secrets, clients=80, pace_s=0.05) as load:
            load.wait_answers(300)
            all_children(lab)
            pids = {name: lab.children(lab.tenants[name].uid) for name in ("alice", "carol")}
            pids["the unassigned"] = lab.children(lab.user_uid)
            assert all(pids.values())
            for nth in range(ROUNDS):
                dave = lab.add_tenant(f"dave{nth}")
                lab.config_tail = lab.host_block(lab.tenants["bob"]).replace("ServerName bob.test", f"ServerName second{nth}.test")
                assert lab.reload() == {"ok": True, "text": ""}
                assert lab.get(dave.host).body == f"dave{nth}\n".encode()  # in force when the answer comes
                assert lab.get(f"second{nth}.test").body == b"bob\n"
                load.wait_answers(100)
                del lab.tenants[dave.name]
                lab.config_tail = ""
                assert lab.reload()["ok"]
                assert lab.get(f"second{nth}.test").body == b"alice\n"  # the address's first host
                wait_until(lambda uid=dave.uid: not lab.children(uid), "the removed user's child ends")
                load.wait_answers(100)
            now = {name: lab.children(lab.tenants[name].uid) for name in ("alice", "carol")}
            now["the unassigned"] = lab.children(lab.user_uid)
            report = load.stop()
        lab.stop()
        assert {name: sorted(one) for name, one in now.items()} == {name: sorted(one) for name, one in pids.items()}
        assert not report.bad(), f"{report.summary()}: {report.bad()[:3]}"
        account = reconcile(report, [lab.log / "access.log"])
        assert not account.missing
        assert not account.doubled
        assert not account.torn


def test_broken_configuration_at_a_reload_changes_nothing() -> None:
    """By request and by signal: the answer and the log name file and line, every pid stays, no request fails."""
    with make_lab() as lab:
        lab.start()
        with Load(lab, write_secrets(lab), clients=50, pace_s=0.05) as load:
            load.wait_answers(200, of=lambda one: one.host != "alice.test")
            for name in NAMES:
                assert lab.get(f"{name}.test").status == 200
            pids, status = all_children(lab), lab.status()
            good = lab.config
            lab.config = f"{good}NoSuchDirective on\n"
            line = 1 + lab.config_text().splitlines().index("NoSuchDirective on")
            answer = lab.reload()
            assert not answer["ok"]
            assert f"AH00526: Syntax error on line {line} of {lab.config_path}:" in answer["text"]
            assert "NoSuchDirective" in answer["text"]
            os.kill(lab.pid, signal.SIGUSR1)
            wait_until(lambda: lab.error_log().count("the configuration was not taken") == 2, "it is refused by signal, too")
            os.kill(lab.pid, signal.SIGHUP)
            wait_until(lambda: lab.error_log().count("the configuration was not taken") == 3, "a restart as well")
            load.wait_answers(200)
            assert sorted(lab.children()) == pids
            assert lab.status()["generation"] == status["generation"]
            lab.config = good
            assert lab.reload()["ok"]
            report = load.stop()
        lab.stop()
        assert not report.bad(), report.summary()
        assert lab.error_log().count(f"Syntax error on line {line} of {lab.config_path}:") == 3


@pytest.mark.silent("there is no server")
def test_broken_configuration_at_the_start_is_named_and_leaves_nothing() -> None:
    """Exit status 1, file and line on standard error, no process, no pid file."""
    with make_lab() as lab:
        lab.config += "KeepAliveTimeout soon\n"
        lab.write_config()
        line = 1 + lab.config_text().splitlines().index("KeepAliveTimeout soon")
        result = lab.cli("-D", "FOREGROUND")
        assert result.returncode == 1
        assert f"AH00526: Syntax error on line {line} of {lab.config_path}:" in result.stderr
        assert "KeepAliveTimeout soon" in result.stderr
        assert not list(lab.run.glob("*.pid"))


def test_reload_that_cannot_bind_changes_nothing() -> None:
    """A Listen on an address that is taken: refused with its name; the server goes on with what it had."""
    with make_lab() as lab, Lab(names=("zoe",)) as other:
        other.start()
        lab.start()
        pids = all_children(lab)
        lab.config += f"Listen 127.0.0.1:{other.port}\n"
        answer = lab.reload()
        assert not answer["ok"]
        assert f"127.0.0.1:{other.port}" in answer["text"]
        assert sorted(lab.children()) == pids
        assert lab.get("bob.test").body == b"bob\n"
        other.stop()
        assert lab.reload()["ok"]
        lab.stop()


def test_user_who_comes_back_at_once_is_served() -> None:
    """Removed by one reload and back by the next, while the rest of it is still being put away: it is served as before."""
    with make_lab() as lab:
        lab.start()
        bob = lab.tenants["bob"]
        for _ in range(3):
            assert lab.get("bob.test").body == b"bob\n"
            del lab.tenants["bob"]
            assert lab.reload()["ok"]
            assert lab.get("bob.test").body == b"alice\n"
            lab.tenants["bob"] = bob
            assert lab.reload()["ok"]
            assert lab.get("bob.test").body == b"bob\n"
        wait_until(lambda: not any(one["is_removed"] for one in lab.status()["identities"]), "nothing is being removed")
        assert lab.get("bob.test").body == b"bob\n"
        lab.stop()


def test_drained_child_with_a_slow_download_has_a_successor_meanwhile() -> None:
    """A child that was told to end finishes a download; who comes meanwhile is served by another one."""
    with make_lab() as lab:
        size = 8 << 20
        lab.tenants["bob"].write("big.bin", b"x" * size)
        lab.start()
        download = Download(lab, "bob.test", "/big.bin")
        pid, = lab.children(lab.tenants["bob"].uid)
        number = next(one["number"] for one in lab.status()["identities"] if one["uid"] == lab.tenants["bob"].uid)
        assert ask_server(str(lab.run), {"op": "drain", "identity": str(number)})["ok"]
        for _ in range(5):
            assert lab.get("bob.test").body == b"bob\n"
        assert pid in lab.children(lab.tenants["bob"].uid)
        assert len(download.finish().body) == size
        wait_until(lambda: not is_alive(pid), "the drained child ends")
        lab.stop()


@pytest.mark.parametrize("name", ["alice", "bob", "main"])
def test_child_that_has_served_its_number_has_a_successor_meanwhile(name: str) -> None:
    """MaxConnectionsPerChild with a slow download in the old child: fixed, on-demand or unassigned, the next clients do not wait."""
    size = 8 << 20
    with Lab(names=("alice", "bob")) as lab:
        alice = lab.tenants["alice"]
        lab.config = f"NumServers 2\nMaxConnectionsPerChild 4\nChildPerUserID #{alice.uid} #{alice.uid} 1\n"
        lab.config_tail = lab.main_block()
        for root in (lab.main_root, *(tenant.docroot for tenant in lab.tenants.values())):
            (root / "big.bin").write_bytes(b"x" * size)
        lab.start()
        download = Download(lab, f"{name}.test", "/big.bin")
        for _ in range(20):
            assert lab.get(f"{name}.test").status == 200
        assert len(download.finish().body) == size
        lab.stop()


def test_new_name_of_a_user_is_served_as_soon_as_the_reload_says_so() -> None:
    """Forty times another name for a user who has a child: the old child is handed nothing that only its successor knows."""
    with make_lab() as lab:
        lab.start()
        bob = lab.tenants["bob"]
        for nth in range(40):
            lab.config_tail = lab.host_block(bob).replace("ServerName bob.test", f"ServerName new{nth}.test")
            assert lab.reload()["ok"]
            response = lab.get(f"new{nth}.test")
            assert (response.status, response.body) == (200, b"bob\n")
        lab.stop()


def test_reload_waits_until_routes_are_taken_and_not_only_read() -> None:
    """A child that is held up behind the system call that reads a message: the answer comes when new connections go by the new routes."""
    with Lab("NumServers 1\n", names=("alice", "bob")) as lab:
        lab.start()
        assert lab.get("bob.test").body == b"bob\n"
        child, = lab.children(lab.user_uid)
        lab.config_tail = lab.host_block(lab.tenants["bob"]).replace("ServerName bob.test", "ServerName new.test")
        with procs.traced(child, lab.base / "trace", "recvmsg", "-e", "inject=recvmsg:delay_exit=200000", has_forks=False):  # its main thread
            assert lab.reload() == {"ok": True, "text": ""}
            assert lab.get("new.test").body == b"bob\n"
        lab.stop()
