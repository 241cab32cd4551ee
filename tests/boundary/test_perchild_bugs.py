"""The old perchild's bugs, each with a test that would have shown it: whole servers, real uids.

The quotations are what was found in the code of 2000 to 2004 and its successors; A is an error of architecture, I of
implementation.
Runs as: root.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from perchild import roles
from tests.boundary import procs
from tests.lab import Lab, Response, is_alive, read_all, read_response, uid_of, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

PROMPT_S = 2.0  # far below any time-out of the server, far above what a busy machine needs
SCOPES = pytest.mark.parametrize("scope", ["any", "unassigned"])


def assigned(lab: Lab, servers: int = 5) -> str:
    """Return ChildPerUserID for every tenant of the lab."""
    lines = [f"ChildPerUserID #{one.uid} #{one.uid} {index}" for index, one in enumerate(lab.tenants.values(), 1)]
    return "\n".join([f"NumServers {servers}", *lines]) + "\n"


@contextmanager
def running(scope: str = "unassigned", config: str = "", *, names: tuple[str, ...] = ("alice", "bob"), host_config: str = "",
            fixed: bool = False) -> Iterator[Lab]:
    """A started server; with `fixed` every tenant has a child by ChildPerUserID."""
    with Lab(config, names=names, host_config=host_config, accept_scope=scope) as lab:
        if fixed or scope == "any":
            lab.config += "\n" + assigned(lab)
        lab.start()
        yield lab


def child_of(lab: Lab, name: str) -> int:
    """Return the pid of a tenant's only child."""
    (pid,) = lab.children(lab.tenants[name].uid)
    return pid


def ask(sock: socket.socket, host: str, path: str = "/", *, more: str = "") -> Response:
    """Make one request on a kept connection."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
    return read_response(sock)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """These processes stand still meanwhile."""
    try:
        wait_until(lambda: procs.stand_still(*pids), "they stand still")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def queued(lab: Lab, count: int, host: str, before: int) -> list[socket.socket]:
    """Send a request on each of `count` connections; return them when all have been handed out."""
    socks = [lab.connect(20) for _ in range(count)]
    for sock in socks:
        sock.sendall(f"GET /whoami HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    wait_until(lambda: handed_out(lab) >= before + count, "all connections are handed over")
    return socks


def handed_out(lab: Lab) -> int:
    """Return how many connections the unassigned children have passed on."""
    return sum(procs.counter(lab, pid, "handed_out") for pid in lab.children(lab.user_uid))


def statuses(socks: list[socket.socket]) -> list[int]:
    """Read one answer from each and close it; 0 = none came."""
    results = []
    for sock in socks:
        with sock:
            results.append(int([*read_all(sock).split(b" "), b"0", b"0"][1]))
    return results


@pytest.mark.parametrize("mutex", ["default", "flock", "fcntl", "pthread", "sysvsem"])
def test_b01_no_hand_off_waits_for_the_accept_lock(mutex: str) -> None:
    """B1, A: "The accept mutex is server-wide; its holder polls for ever its own set. A request passed to uid B waits until a B
    thread wins the mutex: unbounded delay on a quiet server." Here nothing else happens, and each is answered at once."""
    with running("any", f"AcceptMutex {mutex}\n") as lab:
        for host in ("alice.test", "bob.test", "main.test") * 4:
            start_s = time.monotonic()
            assert lab.get(host, timeout_s=PROMPT_S).status == 200
            assert time.monotonic() - start_s < PROMPT_S


def test_b02_no_tenant_accepts_or_reads_anothers_connection() -> None:
    """B2, A: "Every child accepts every connection and parses other tenants' requests (cookies, bodies, TLS keys in memory)."
    Under AcceptScope unassigned tenants accept none, and who accepts reads no byte of what it passes on."""
    with running() as lab:
        for host in ("alice.test", "bob.test") * 5:
            assert lab.get(host, fields={"Cookie": "secret"}).status == 200
        for pid in lab.children(lab.user_uid):
            assert procs.counter(lab, pid, "bytes_in") == procs.counter(lab, pid, "requests") == 0
        for name in lab.tenants:
            assert procs.counter(lab, child_of(lab, name), "accepted") == 0
            assert procs.counter(lab, child_of(lab, name), "handed_in") == 5


@SCOPES
def test_b03_nobody_holds_the_read_end_of_anothers_inbox(scope: str) -> None:
    """B3, A: "Every child inherits both ends of every tenant's socketpair: user code in it can recvmsg() others' connections."
    Each read end is held by the dispatcher and one uid, and a write end cannot be read from."""
    with running(scope) as lab:
        for host in ("alice.test", "bob.test"):
            assert lab.get(host).status == 200
        holders: dict[int, set[int]] = {}
        for pid in lab.children():
            for fd in procs.look_at_fds(lab, pid):
                if fd.kind == roles.INBOX:
                    holders.setdefault(fd.inode, set()).add(uid_of(pid))
                if fd.kind == roles.INBOX_WRITE:
                    with procs.borrowed(pid, fd.number) as sock:
                        assert sock.recv(100, socket.MSG_DONTWAIT) == b""
        assert sorted(map(len, holders.values())) == [1, 1, 1]


@SCOPES
def test_b04_every_header_arrives(scope: str) -> None:
    """B4, I: "perchild_header_field drops apr_pstrcat's result: only request line and Host arrive. No Cookie, Authorization,
    Content-Length; a POST body is parsed as the next request." All arrive, in a fresh and in a carried request."""
    with running(scope) as lab:
        lab.config += (f'LogFormat "%v|%m|%{{Cookie}}i|%{{Authorization}}i|%{{Content-Length}}i|%{{X-Last}}i" heads\n'
                       f"CustomLog {lab.log}/heads.log heads\n")
        assert lab.reload()["ok"]
        body = b"GET /smuggled HTTP/1.1\r\nHost: bob.test\r\n\r\n"
        with lab.connect() as sock:
            for host in ("bob.test", "alice.test", "bob.test"):
                sock.sendall(f"POST /whoami HTTP/1.1\r\nHost: {host}\r\nCookie: c=1; d=2\r\nAuthorization: Basic eDp5\r\n"
                             f"Content-Length: {len(body)}\r\nX-Last: end\r\n\r\n".encode() + body)
                assert read_response(sock).status == 200
            lines = [f"{host}|POST|c=1; d=2|Basic eDp5|{len(body)}|end" for host in ("bob.test", "alice.test", "bob.test")]
            log = lab.log / "heads.log"
            wait_until(lambda: log.exists() and sorted(log.read_text().splitlines()) == sorted(lines), "the log has all, once")
        assert "smuggled" not in (lab.log / "access.log").read_text()


@SCOPES
def test_b05_two_hosts_of_one_uid_are_both_served(scope: str) -> None:
    """B5, I: "Two vhosts, one uid:gid: each AssignUserID makes a new pair and overwrites the children's input; the earlier
    vhost's requests go to a pair nobody reads: hang." """
    with Lab(names=("alice", "bob"), accept_scope=scope) as lab:
        alice = lab.tenants["alice"]
        alice.write("second/index.html", "second\n")
        lab.config = (assigned(lab) if scope == "any" else "") + (
            f"<VirtualHost *:{lab.port}>\nServerName second.test\nDocumentRoot {alice.docroot}/second\n"
            f"AssignUserID #{alice.uid} #{alice.uid}\n<Directory {alice.docroot}>\nRequire all granted\n</Directory>\n</VirtualHost>\n")
        lab.start()
        for _ in range(5):
            assert lab.get("alice.test", timeout_s=PROMPT_S).body == b"alice\n"
            assert lab.get("second.test", timeout_s=PROMPT_S).body == b"second\n"
        assert len(lab.children(alice.uid)) == 1
        with lab.connect() as sock:
            assert [ask(sock, host).body for host in ("alice.test", "second.test")] == [b"alice\n", b"second\n"]


@SCOPES
def test_b06_unassigned_hosts_are_served_when_all_children_are_assigned(scope: str) -> None:
    """B6, I: "All children assigned, some vhost (or the main server) unassigned: requests go to the default pair, no reader:
    hang." There is always an unassigned child."""
    with Lab(names=("alice", "bob"), accept_scope=scope) as lab:
        lab.config = assigned(lab, servers=2) + f"<VirtualHost *:{lab.port}>\nServerName plain.test\nDocumentRoot {lab.main_root}\n</VirtualHost>\n"
        lab.start()
        for _ in range(5):
            assert lab.get("plain.test", timeout_s=PROMPT_S).body == b"main\n"
            assert lab.get("alice.test", timeout_s=PROMPT_S).body == b"alice\n"
        assert lab.children(lab.user_uid)


def test_b07_a_connection_is_passed_with_its_bytes_untouched() -> None:
    """B7, A, no TLS: "the TLS state is in the accepting process; result ignored, garbage passed." What TLS will need holds: the
    accepting child reads nothing, and the owner reads every byte that the client sent. (TLS itself is not built yet: its first
    bytes are answered and closed at once, never passed on as garbage.)"""
    with running() as lab:
        raw = b"GET /whoami HTTP/1.1\r\nHost: bob.test\r\nConnection: close\r\nX-Fill: " + b"x" * 3000 + b"\r\n\r\n"
        with lab.connect() as sock:  # byte by byte at first: looked at again and again, never taken
            for at in range(40):
                sock.sendall(raw[at : at + 1])
            sock.sendall(raw[40:])
            assert read_response(sock).status == 200
        assert [procs.counter(lab, pid, "bytes_in") for pid in lab.children(lab.user_uid)] == [0] * len(lab.children(lab.user_uid))
        wait_until(lambda: procs.counter(lab, child_of(lab, "bob"), "bytes_in") == len(raw), "bob's child has read them all")
        before = handed_out(lab)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)
        with lab.connect(PROMPT_S) as sock:
            sock.sendall(hello)
            assert read_all(sock)[:13] in {b"HTTP/1.1 400 ", b""}
        assert handed_out(lab) == before


@SCOPES
@pytest.mark.parametrize("size", [1, 8192, 8193, 30_000, 200_000])
def test_b08_binary_bodies_and_pipelined_bytes_are_carried_whole(scope: str, size: int) -> None:
    """B8, I: "binary body cut at its first NUL; over 8 KB of unread data silently dropped; iov[1] length l+1 reads one past the
    buffer." A kept connection changes its owner with a binary body and further requests behind it; nothing is lost or added."""
    body = random.Random(size).randbytes(size).replace(b"\r\n", b"\0\0")
    head = f"POST /whoami HTTP/1.1\r\nHost: bob.test\r\nContent-Length: {size}\r\n\r\n".encode()
    chunked = (b"POST /whoami HTTP/1.1\r\nHost: alice.test\r\nTransfer-Encoding: chunked\r\n\r\n"
               + b"%x\r\n%s\r\n0\r\n\r\n" % (min(size, 5000), body[:5000]))
    last = b"GET / HTTP/1.1\r\nHost: bob.test\r\nConnection: close\r\n\r\n"
    with running(scope) as lab, lab.connect() as sock:
        assert ask(sock, "alice.test").status == 200
        sock.sendall(head + body + chunked + last)
        everything = read_all(sock)
        bob, alice = (everything.index(b'"uid": %d' % lab.tenants[name].uid) for name in ("bob", "alice"))
        assert bob < alice
        assert everything.count(b"HTTP/1.1 200 ") == everything.count(b"HTTP/1.1 ") == 3
        assert everything.endswith(b"\r\n\r\nbob\n")


def test_b09_a_stopped_tenant_and_slow_senders_delay_nobody() -> None:
    """B9, A: "Blocking sendmsg on a full socket: a slow tenant wedges everybody's threads. Blocking header read before the vhost
    is known: slowloris eats any child's threads." With 200 half heads open and bob stopped behind a full inbox, alice is served;
    bob's clients get 503 in time."""
    with running() as lab, ExitStack() as stack:
        assert lab.get("bob.test").status == 200
        for at in range(200):
            sock = stack.enter_context(lab.connect())
            sock.sendall(b"GET / HTTP/1.1\r\nHos" if at % 2 else b"GET / HTTP/1.1\r\nHost: bob.test\r\nX-Slow: ")
        with stopped([child_of(lab, "bob")]):
            waiting = [stack.enter_context(lab.connect(20)) for _ in range(600)]
            for sock in waiting:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: bob.test\r\nConnection: close\r\n\r\n")
            for _ in range(20):
                start_s = time.monotonic()
                assert lab.get("alice.test", timeout_s=PROMPT_S).status == 200
                assert time.monotonic() - start_s < PROMPT_S
            refused = wait_until(lambda: select.select(waiting, [], [], 5)[0], "those that find no room are answered")
            assert all(sock.recv(20).startswith(b"HTTP/1.1 503 ") for sock in refused)
        wait_until(lambda: lab.get("bob.test", timeout_s=20).status == 200, "bob is back")


@SCOPES
def test_b10_hand_offs_go_on_and_never_answer_on_an_old_descriptor(scope: str) -> None:
    """B10, I: "goto got_from_other_child skips unlocking both accept mutexes: the server stops after the first passed request.
    table[t] never reset to -1: the thread's next connection is answered on a stale descriptor (cross-client leak)." """
    with running(scope, "AcceptMutex flock\n") as lab:
        def one(number: int) -> bool:
            name = ("alice", "bob")[number % 2]
            answer = lab.get(f"{name}.test", f"/whoami?{number}").json()
            return bool(answer["uid"] == lab.tenants[name].uid and answer["host"] == f"{name}.test")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(200)))
        for pid in [child_of(lab, name) for name in lab.tenants]:
            wait_until(lambda pid=pid: {slot.value for slot in procs.read_page(lab, pid).slots} == {-1},
                       "every slot is back at -1")


def test_b11_after_a_hand_off_the_thread_is_whole_again() -> None:
    """B11, I: "longjmp out of a hook: no lingering close, scoreboard left BUSY, one jmp_buf for many threads." Threads are idle
    afterwards, in both children, and an early answer reaches a client that is still sending."""
    with running() as lab:
        for _ in range(20):
            assert lab.get("bob.test", "/whoami").status == 200
        for pid in [child_of(lab, "bob"), *lab.children(lab.user_uid)]:
            wait_until(lambda pid=pid: procs.counter(lab, pid, "idle_threads") == procs.counter(lab, pid, "threads"), "all idle")
            wait_until(lambda pid=pid: procs.counter(lab, pid, "connections") == 0, "all closed")
        with lab.connect() as sock:  # 1 MB that nobody wants: answered early, read on until the client is done
            sock.sendall(b"POST / HTTP/1.1\r\nHost: bob.test\r\nContent-Length: 1000000\r\n\r\n")
            sock.sendall(b"x" * 1_000_000)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock).startswith(b"HTTP/1.1 ")


def test_b12_graceful_restarts_crash_no_child() -> None:
    """B12, I: "check_pipe_of_death or a failed accept leaves csd uninitialised, process_socket(csd) still runs: graceful restart
    can crash the child." Twenty graceful restarts with changed hosts, hand-offs all the while: every request served, no death."""
    with running() as lab:
        for turn in range(20):
            lab.host_config = f"Header set X-Turn {turn}"
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                results = pool.map(lambda number: lab.get(("alice.test", "bob.test")[number % 2]).status, range(16))
                assert lab.reload()["ok"]
                assert set(results) == {200}
        assert lab.get("bob.test").fields["x-turn"] == "19"
        assert "exit signal" not in lab.error_log()
        assert "ended with status" not in lab.error_log()


@SCOPES
def test_b13_the_first_read_of_a_body_is_right(scope: str) -> None:
    """B13, I: "net->in_ctx not zeroed, tmpbb never set: the first READBYTES read (any POST) follows garbage." The first request
    that a child ever gets is a POST that arrives in pieces."""
    with running(scope) as lab:
        for name in lab.tenants:
            with lab.connect() as sock:
                sock.sendall(f"POST /whoami HTTP/1.1\r\nHost: {name}.test\r\nContent-Length: 6\r\n\r\n".encode())
                for byte in b"\0\r\n\r\n\xff":
                    sock.sendall(bytes([byte]))
                assert read_response(sock).json()["uid"] == lab.tenants[name].uid
                assert ask(sock, f"{name}.test").body == f"{name}\n".encode()


@pytest.mark.parametrize("is_changed", [False, True], ids=["same-hosts", "changed-hosts"])
def test_b14_connections_in_an_inbox_outlive_a_graceful_restart(*, is_changed: bool) -> None:
    """B14, I: "Graceful: ap_child_table re-allocated zeroed, old pids forgotten; new socketpairs per configuration, messages in
    old ones lost." Twenty connections lie in bob's inbox while the configuration is read anew: all are answered."""
    with running() as lab:
        assert lab.get("bob.test").status == 200
        old, before = child_of(lab, "bob"), handed_out(lab)
        with stopped([old]):
            socks = queued(lab, 20, "bob.test", before)
            if is_changed:
                lab.host_config = "Header set X-New yes"
            assert lab.reload()["ok"]
        assert statuses(socks) == [200] * 20
        if is_changed:
            wait_until(lambda: not is_alive(old), "the old child has ended")
        else:
            assert child_of(lab, "bob") == old
        assert "long lost" not in lab.error_log()


def test_b14_connections_in_an_inbox_outlive_their_child() -> None:
    """B14, continued: the child is killed with connections queued; its successor answers all of them."""
    with running() as lab:
        assert lab.get("bob.test").status == 200
        old, before = child_of(lab, "bob"), handed_out(lab)
        wait_until(lambda: procs.stand_still(old), "it stands still")
        socks = queued(lab, 20, "bob.test", before)
        os.kill(old, signal.SIGKILL)
        assert statuses(socks) == [200] * 20
        assert child_of(lab, "bob") != old


def test_b15_every_child_of_an_identity_has_its_uid_and_gid() -> None:
    """B15, I: "ChildPerUserID had for(...);, stray semicolon: one child of a group got its uid. Group looked up with uname2id."
    Three children of one identity by names, whose group's number is not the user's, and whose names mean different numbers in
    the two databases."""
    with Lab(names=("alice", "bob")) as lab:
        uid, gid = lab.tenants["alice"].uid, lab.tenants["alice"].uid + 100
        lab.add_user_database([f"laba:x:{uid}:{gid}::/:/bin/false", f"labgroup:x:{uid + 1}:{uid + 1}::/:/bin/false"],
                              [f"labgroup:x:{gid}:", f"laba:x:{gid + 1}:"])
        lab.assign["alice"] = "laba labgroup"
        lab.config = "NumServers 6\n" + "".join(f"ChildPerUserID laba labgroup {number}\n" for number in (1, 2, 3))
        lab.start()
        wait_until(lambda: len(lab.children(uid)) == 3, "all three are there")
        answers = [lab.get("alice.test", "/whoami").json() for _ in range(30)]
        pids = lab.children(uid)
        assert len(pids) == 3
        for pid in pids:
            status = procs.read_status(pid)
            assert (status["Uid"].split(), status["Gid"].split()) == ([str(uid)] * 4, [str(gid)] * 4)
        assert {(answer["uid"], answer["gid"]) for answer in answers} == {(uid, gid)}


@SCOPES
def test_b16_the_clients_address_survives_the_hand_off(scope: str) -> None:
    """B16, I: "Socket wrapped as AF_INET, remote address unknown." IPv4 and IPv6 clients stand in the log as themselves, after a
    fresh hand-off and after a carried one."""
    with running(scope) as lab:
        lab.config += f'Listen [::1]:{lab.port}\nLogFormat "%a %v %{{remote}}p" who\nCustomLog {lab.log}/who.log who\n'
        assert lab.reload()["ok"]
        wanted = []
        for family, source, target in ((socket.AF_INET, "127.0.0.77", "127.0.0.1"), (socket.AF_INET6, "::1", "::1")):
            with socket.socket(family) as sock:
                sock.settimeout(10)
                sock.bind((source, 0))
                sock.connect((target, lab.port))
                for host in ("alice.test", "bob.test"):
                    assert ask(sock, host).status == 200
                    wanted.append(f"{source} {host} {sock.getsockname()[1]}")
        log = lab.log / "who.log"
        wait_until(lambda: log.exists() and sorted(log.read_text().splitlines()) == sorted(wanted), "the log names the clients")


# No spare child is ended while it is looked at.
@pytest.mark.parametrize("mpm", ["MPM prefork\nMaxSpareServers 100", "MaxThreadsPerChild 1\nStartThreads 1\nMinSpareThreads 1\nMaxSpareThreads 1"],
                         ids=["prefork", "one-thread"])
def test_b17_one_thread_for_each_child_is_possible(mpm: str) -> None:
    """B17, A: "PHP and others not thread-safe, perchild threaded only." No foreign code runs in a child at all (execve is refused
    by its filter), and a child with a single slot serves hand-offs like any other."""
    with running(config=f"{mpm}\n") as lab:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = pool.map(lambda number: lab.get(("alice.test", "bob.test", "main.test")[number % 3]).status, range(30))
            assert set(results) == {200}
        # More children may be starting: the load was for more than a few of them.
        wait_until(lambda: {procs.read_status(pid)["Seccomp"] for pid in lab.children()} == {"2"}, "all have their filter")
        single = lab.children(lab.user_uid) if "prefork" in mpm else [child_of(lab, "bob")]
        for pid in single:
            wait_until(lambda pid=pid: procs.read_page(lab, pid).slots, "it has begun")
            assert len(procs.read_page(lab, pid).slots) == 1


@SCOPES
def test_b18_descriptor_and_data_travel_in_one_message(scope: str) -> None:
    """B18, A: "Linux only; STATUS wants a portable way to pass data and descriptors." It is Linux still, but one way for all:
    SCM_RIGHTS with a fixed head and the bytes in the same message, which is whole or not there. Counted: one hand-off for each
    change of owner, each with bytes."""
    with running(scope) as lab:
        def total(name: str) -> int:
            return sum(procs.counter(lab, pid, name) for pid in lab.children())

        with lab.connect() as sock:
            assert ask(sock, "alice.test").status == 200
            assert ask(sock, "bob.test").status == 200
            before = {name: total(name) for name in ("handed_in", "carried", "refused")}
            for _ in range(5):
                assert ask(sock, "alice.test", more="X-More: " + "y" * 5000 + "\r\n").body == b"alice\n"
                assert ask(sock, "bob.test").body == b"bob\n"
        hops = 1 if scope == "any" else 2  # a tenant's child that does not listen returns it to the unassigned ones
        assert {name: total(name) - before[name] for name in before} == {"handed_in": 10 * hops, "carried": 10 * hops, "refused": 0}


def test_b19_hosts_and_users_come_and_go_live() -> None:
    """B19, A: "Static sizing: NumServers, ServerLimit 8; new tenant = full restart; idle tenants keep processes." Ten tenants are
    added to a running server, served, and removed; nobody else's child is touched; an idle tenant has no process."""
    with running(config="IdleTimeout 1\n", names=("alice",)) as lab:
        with lab.connect() as kept:
            assert ask(kept, "alice.test").status == 200
            alice, unassigned = child_of(lab, "alice"), lab.children(lab.user_uid)
            for number in range(10):
                lab.add_tenant(f"new{number}")
            assert lab.reload()["ok"]
            assert lab.children(lab.user_uid) == unassigned
            for number in range(10):
                name = f"new{number}"
                assert lab.get(f"{name}.test", "/whoami").json()["uid"] == lab.tenants[name].uid
            assert ask(kept, "alice.test").status == 200
            assert child_of(lab, "alice") == alice
        wait_until(lambda: lab.children() == unassigned, "idle tenants have no process")
        for number in range(10):
            del lab.tenants[f"new{number}"]
        assert lab.reload()["ok"]
        assert lab.get("alice.test").status == 200


def test_each_bug_has_its_test() -> None:
    """B1 to B19: no number is missing above."""
    text = Path(__file__).read_text()
    assert [number for number in range(1, 20) if f"def test_b{number:02}_" not in text] == []
