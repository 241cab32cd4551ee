"""Under a service manager: what it is told, sockets that it passes, and that nothing is refused while the server is away."""

from __future__ import annotations

import os
import select
import signal
import socket

import pytest

from perchild import roles
from tests.boundary.procs import descriptors, is_stopped, look_at_fds
from tests.lab import Lab, free_port, read_all, wait_until
from tests.service_manager import Manager

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
REQUEST = b"GET / HTTP/1.1\r\nHost: alice.test\r\nConnection: close\r\n\r\n"


def ask(lab: Lab) -> socket.socket:
    """Connect and ask for alice's page; the answer is read later."""
    sock = lab.connect(timeout_s=60)
    sock.sendall(REQUEST)
    return sock


def test_manager_is_told_each_step_and_the_watchdog_is_fed() -> None:
    """READY with the pid, a status, RELOADING with the clock and READY again, WATCHDOG=1, STOPPING."""
    with Lab() as lab, Manager(lab) as manager:
        manager.start(environment={"WATCHDOG_USEC": "400000"})
        assert f"MAINPID={lab.pid}" in manager.words()
        assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in manager.words())
        assert any(line.startswith("STATUS=serving 3 hosts of 4 users") for line in manager.words()), manager.words()
        manager.wait_for("WATCHDOG=1")
        manager.said.clear()
        lab.host_config = "Header set X-Turn two"
        assert manager.reload()["ok"]
        manager.wait_for("READY=1")
        text = "\n".join(manager.said)
        assert text.index("RELOADING=1\nMONOTONIC_USEC=") < text.index("READY=1")
        assert "generation 2" in text
        manager.said.clear()
        lab.config = "NoSuchDirective on"
        assert not manager.reload()["ok"]
        manager.wait_for("READY=1")
        assert any("the last reload was refused: " in line and "NoSuchDirective" in line for line in manager.words()), manager.words()
        lab.config = ""
        manager.stop()
        assert "STOPPING=1" in manager.words()


def test_nothing_of_the_manager_is_inherited_further() -> None:
    """No process below the dispatcher holds the manager's socket; that programs have none of its variables is in test_cgi.py."""
    with Lab() as lab, Manager(lab) as manager:
        manager.start()
        assert lab.get("alice.test").status == 200
        mine = {os.fstat(fd).st_ino for fd in manager.store.values()}
        assert len(mine) == 9  # a listener, four inboxes with two ends
        (said_to,) = [one.target for one in look_at_fds(lab, lab.pid) if one.kind == roles.NOTIFY]
        for pid in (lab.nursery, *lab.children()):
            assert said_to not in descriptors(pid).values()
        manager.stop()


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_connections_wait_for_the_next_start(how: str) -> None:
    """Whoever connects while the server is away is answered by the next one: after a graceful stop, after kill -9."""
    with Lab() as lab, Manager(lab) as manager:
        manager.start()
        assert lab.get("alice.test").body == b"alice\n"
        getattr(manager, how)()
        waiting = [ask(lab) for _ in range(20)]
        manager.start()
        for sock in waiting:
            assert read_all(sock).endswith(b"\r\n\r\nalice\n")
        assert "which no Listen" not in lab.error_log()
        manager.stop()


def test_connection_in_an_inbox_outlives_the_dispatcher() -> None:
    """A connection that was handed to alice, whose child had not taken it when all were killed, is served by the next server."""
    with Lab() as lab, Manager(lab) as manager:
        manager.start()
        assert lab.get("alice.test").status == 200
        (child,) = lab.children(lab.tenants["alice"].uid)
        before = {int(os.fstat(fd).st_ino) for fd in manager.store.values()}
        os.kill(child, signal.SIGSTOP)
        wait_until(lambda: is_stopped(child), "it stands still")
        sock = ask(lab)
        wait_until(lambda: is_in_inbox(manager), "the connection lies in an inbox")
        manager.crash()
        manager.start()
        assert read_all(sock).endswith(b"\r\n\r\nalice\n")
        assert {int(os.fstat(fd).st_ino) for fd in manager.store.values()} == before  # the same sockets, none more
        manager.stop()


def is_in_inbox(manager: Manager) -> bool:
    """Whether any inbox that the manager keeps has something in it."""
    poller = select.poll()
    for name, fd in manager.store.items():
        if name.startswith("inbox-in-"):
            poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def test_store_follows_the_configuration() -> None:
    """A new Listen and a new user are kept, removed ones no longer; what the next start does not want is given back."""
    with Lab() as lab, Manager(lab) as manager:
        other = free_port()
        lab.config = f"Listen 127.0.0.1:{other}"
        manager.start()
        names = set(manager.store)
        assert {f"listen-{lab.port}-7f000001", f"listen-{other}-7f000001"} <= names
        lab.config = ""
        lab.add_tenant("dora")
        assert manager.reload()["ok"]
        manager.wait_for("FDSTOREREMOVE=1")
        manager.hear()
        assert names - set(manager.store) == {f"listen-{other}-7f000001"}
        assert len(set(manager.store) - names) == 2
        manager.crash()
        del lab.tenants["dora"]
        manager.start()
        manager.hear()
        assert len(manager.store) == len(names) - 1
        manager.stop()


def test_sockets_of_a_socket_unit_are_taken_and_a_strange_one_is_not() -> None:
    """What is bound to an address that Listen names is served; what no Listen names is closed with a line in the log."""
    with Lab() as lab, Manager(lab) as manager, socket.socket() as ours, socket.socket() as strange:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("127.0.0.1", lab.port))
        ours.listen()
        strange.bind(("127.0.0.1", 0))
        strange.listen()
        early = ask(lab)  # socket activation: it was there before the server
        manager.start({"perchildd.socket": ours.fileno(), "other": strange.fileno()})
        assert read_all(early).endswith(b"\r\n\r\nalice\n")
        assert "passed other, which no Listen directive names" in lab.error_log()
        targets = set(descriptors(lab.pid).values())
        assert f"socket:[{os.fstat(ours.fileno()).st_ino}]" in targets
        assert f"socket:[{os.fstat(strange.fileno()).st_ino}]" not in targets
        manager.stop()


def test_dual_stack_socket_is_refused_with_the_remedy() -> None:
    """An IPv6 socket that takes IPv4, too, cannot be told apart from a Listen for IPv4: the start fails and says what to set."""
    with Lab() as lab, Manager(lab) as manager, socket.socket(socket.AF_INET6) as dual:
        dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        dual.bind(("::", 0))
        dual.listen()
        lab.config = f"Listen [::]:{dual.getsockname()[1]}"
        with pytest.raises(AssertionError, match="BindIPv6Only=ipv6-only"):
            manager.start({"perchildd.socket": dual.fileno()})
        lab.process = None
