"""The hand-off's receiver trusts nothing: what a taken-over sender could put into an inbox is refused and leaks nothing.

The attacker here holds a write end of alice's inbox, taken as root from the dispatcher, which is what a taken-over sender
has; and, where it needs a connection that the server accepted, a duplicate of the listener.
Runs as: root.  Source: docs/protocol.md, security.md 4.3 (R-PASS-1, R-PASS-5).
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perchild import limits, roles
from tests.boundary import procs
from tests.lab import Lab, read_response, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

HEAD = struct.Struct("<IHBBIIIBBH16sQ")
MAGIC, VERSION, FRESH, CARRIED = 0x4F484350, 2, 1, 2
CARRIED_MAX = limits.value("MAX_HEAD_BYTES") + 8192
HOPS_MAX = limits.value("MAX_HOPS")


def message(kind: int = FRESH, carried: bytes = b"", *, hops: int = 1, magic: int = MAGIC, version: int = VERSION,
            carried_len: int | None = None, requests: int = 0, client: tuple[int, int, bytes, int] = (0, 0, b"", 0), zero: int = 0) -> bytes:
    """Return a hand-off's bytes; a right one unless told otherwise. client: family, port, address, tag."""
    length = len(carried) if carried_len is None else carried_len
    family, port, address, tag = client
    return HEAD.pack(magic, version, kind, hops, length, requests, 0, family, zero, port, address, tag) + carried


@dataclass
class Attack:
    """A server, alice's child and the write end of her inbox."""

    lab: Lab
    pid: int
    inbox: socket.socket

    def send(self, raw: bytes, *fds: int, timeout_s: float = 10) -> None:
        """Put one message into alice's inbox; waits while it is full."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        poller = select.poll()
        poller.register(self.inbox, select.POLLOUT)
        while True:
            try:
                self.inbox.sendmsg([raw], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                assert poller.poll(timeout_s * 1000), "the inbox stays full"
            else:
                return

    def counter(self, name: str) -> int:
        """One counter of alice's child."""
        return procs.counter(self.lab, self.pid, name)

    def fds(self) -> dict[int, str]:
        """The descriptors of alice's child."""
        return procs.lasting_descriptors(self.pid)

    def fds_alone(self) -> dict[int, str]:
        """The same when no connection is open any more: one that was answered a moment ago may still be waited for to end."""
        wait_until(lambda: self.counter("connections") == 0, "earlier connections have gone")
        return self.fds()

    @contextlib.contextmanager
    def refusing(self, count: int = 1) -> Iterator[None]:
        """What happens inside is refused `count` times exactly, leaves no descriptor, and alice's child serves on."""
        refused, before, handed = self.counter("refused"), self.fds_alone(), self.counter("handed_in")
        yield
        wait_until(lambda: self.counter("refused") >= refused + count, f"{count} hand-offs are refused")
        response = self.lab.get("alice.test", "/whoami")
        assert (response.status, response.json()["pid"]) == (200, self.pid)
        assert self.counter("refused") == refused + count
        assert self.counter("handed_in") == handed + 1, "what was refused was adopted first"
        procs.wait_for_descriptors(self.pid, before)


@pytest.fixture(scope="module")
def attack() -> Iterator[Attack]:
    """A server with alice and bob; alice's child has served, so that whatever it keeps open is open."""
    with Lab(names=("bob", "alice")) as lab:  # bob's is the address's first host: unknown names are his
        lab.start()
        for path in ("/", "/whoami", "/"):
            assert lab.get("alice.test", path).status == 200
            assert lab.get("bob.test", path).status == 200
        pid = lab.children(lab.tenants["alice"].uid)[0]
        with procs.borrowed(lab.pid, procs.inbox_of(lab, pid)) as inbox:
            yield Attack(lab, pid, inbox)
        assert lab.children(lab.tenants["alice"].uid) == [pid], "alice's child was replaced: it fell to an attack"


@contextlib.contextmanager
def connection(attack: Attack, raw: bytes, *, receive_buffer_bytes: int = 0) -> Iterator[tuple[socket.socket, int]]:
    """A client that has sent `raw` and a descriptor of the server's end, which the attacker accepted itself."""
    accepting = attack.lab.children(None if attack.lab.accept_scope == "any" else attack.lab.user_uid)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(procs.borrowed(attack.lab.pid, procs.dispatcher_listener(attack.lab)))
        for pid in accepting:
            stack.callback(os.kill, pid, signal.SIGCONT)
        wait_until(lambda: procs.stand_still(*accepting), "nobody else accepts")
        client = stack.enter_context(socket.socket())
        client.settimeout(10)
        if receive_buffer_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        client.connect(("127.0.0.1", attack.lab.port))
        client.sendall(raw)
        assert select.select([listener], [], [], 5)[0], "the connection did not arrive"
        server = stack.enter_context(listener.accept()[0])
        for pid in accepting:
            os.kill(pid, signal.SIGCONT)
        yield client, server.fileno()


def request(host: str, path: str = "/whoami") -> bytes:
    """Return a request that closes its connection."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


# ---------------------------------------------------------------- descriptors of every wrong kind


def open_many(stack: contextlib.ExitStack, count: int) -> list[int]:
    """Return so many descriptors of the null device."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    for fd in fds:
        stack.callback(os.close, fd)
    return fds


def keep(stack: contextlib.ExitStack, fd: int) -> int:
    """Have the descriptor closed at the end."""
    stack.callback(os.close, fd)
    return fd


def keep_sock(stack: contextlib.ExitStack, sock: socket.socket) -> int:
    """Have the socket closed at the end."""
    stack.enter_context(sock)
    return sock.fileno()


def tcp_to_another_listener(stack: contextlib.ExitStack) -> socket.socket:
    """Return the accepted end of a connection to a port that the server does not listen on."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = stack.enter_context(socket.create_connection(listener.getsockname()))
    client.sendall(request("alice.test"))
    return stack.enter_context(listener.accept()[0])


def tcp_shut(stack: contextlib.ExitStack) -> socket.socket:
    """Return a TCP socket that was connected and is closed on both sides."""
    sock = tcp_to_another_listener(stack)
    sock.shutdown(socket.SHUT_RDWR)
    return sock


def clients_end(attack: Attack, stack: contextlib.ExitStack) -> socket.socket:
    """Return the client's end of a connection to the server: its local address is nobody's listener."""
    return stack.enter_context(attack.lab.connect())


def own_listener(attack: Attack, stack: contextlib.ExitStack) -> socket.socket:
    """Return the server's own listener."""
    return stack.enter_context(procs.borrowed(attack.lab.pid, procs.dispatcher_listener(attack.lab)))


def eventfd() -> int:
    """Return an eventfd."""
    return os.eventfd(0)


Make = Callable[[Attack, contextlib.ExitStack], list[int]]
WRONG: dict[str, Make] = {
    "no descriptor": lambda _, __: [],
    "two descriptors": lambda _, stack: open_many(stack, 2),
    "253 descriptors": lambda _, stack: open_many(stack, 253),
    "a file": lambda _, stack: [keep(stack, os.open("/etc/passwd", os.O_RDONLY))],
    "a directory": lambda _, stack: [keep(stack, os.open("/etc", os.O_RDONLY | os.O_DIRECTORY))],
    "a path": lambda _, stack: [keep(stack, os.open("/etc/shadow", os.O_PATH))],
    "a device": lambda _, stack: [keep(stack, os.open("/dev/zero", os.O_RDWR))],
    "a pipe": lambda _, stack: [keep(stack, one) for one in os.pipe()][:1],
    "a UDP socket": lambda _, stack: [keep_sock(stack, socket.socket(socket.AF_INET, socket.SOCK_DGRAM))],
    "a Unix stream": lambda _, stack: [keep_sock(stack, one) for one in socket.socketpair()][:1],
    "a Unix seqpacket": lambda _, stack: [keep_sock(stack, one) for one in socket.socketpair(type=socket.SOCK_SEQPACKET)][:1],
    "the inbox itself": lambda attack, _: [attack.inbox.fileno()],
    "a netlink socket": lambda _, stack: [keep_sock(stack, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))],
    "the server's listener": lambda attack, stack: [own_listener(attack, stack).fileno()],
    "another listener": lambda _, stack: [keep_sock(stack, socket.create_server(("127.0.0.1", 0)))],
    "an IPv6 socket": lambda _, stack: [keep_sock(stack, socket.socket(socket.AF_INET6, socket.SOCK_STREAM))],
    "an epoll set": lambda _, stack: [stack.enter_context(select.epoll()).fileno()],
    "an eventfd": lambda _, stack: [keep(stack, eventfd())],
    "a memfd": lambda _, stack: [keep(stack, os.memfd_create("x"))],
    "a pidfd": lambda attack, stack: [keep(stack, os.pidfd_open(attack.pid))],
    "a connection to another listener": lambda _, stack: [tcp_to_another_listener(stack).fileno()],
    "the client's end of a connection": lambda attack, stack: [clients_end(attack, stack).fileno()],
    "a closed connection": lambda _, stack: [tcp_shut(stack).fileno()],
    "a socket never connected": lambda _, stack: [keep_sock(stack, socket.socket())],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_descriptor_is_refused(attack: Attack, name: str) -> None:
    """A right message with anything but one connection to our addresses is refused, counted once, and leaks nothing."""
    with contextlib.ExitStack() as stack:
        fds = WRONG[name](attack, stack)
        with attack.refusing():
            attack.send(message(), *fds)


def test_the_same_descriptor_that_is_refused_elsewhere_is_served_when_it_is_right(attack: Attack) -> None:
    """The way the attacker sends is the right one: a connection to our listener, for alice, is served by alice."""
    with connection(attack, request("alice.test")) as (client, fd):
        attack.send(message(), fd)
        answer = read_response(client).json()
        assert (answer["uid"], answer["came"]) == (attack.lab.tenants["alice"].uid, "handed over")


# ---------------------------------------------------------------- messages that break the rules

CARRIED_REQUEST = request("alice.test")
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"P",
    "a byte too few": message()[:-1],
    "a byte too many": message() + b"x",
    "wrong magic": message(magic=MAGIC + 1),
    "magic the other way round": message(magic=int.from_bytes(MAGIC.to_bytes(4, "little"), "big")),
    "version 0": message(version=0),
    "version 1": message(version=1),
    "version 3": message(version=3),
    "as long as version 1": message(version=1)[:20],
    "kind 0": message(0),
    "kind 3": message(3),
    "kind 255": message(255),
    "no hops": message(hops=0),
    "too many hops": message(hops=HOPS_MAX + 1),
    "255 hops": message(hops=255),
    "fresh with bytes": message(FRESH, CARRIED_REQUEST),
    "carried without bytes": message(CARRIED),
    "carried_len says more": message(CARRIED, CARRIED_REQUEST, carried_len=len(CARRIED_REQUEST) + 1),
    "carried_len says less": message(CARRIED, CARRIED_REQUEST, carried_len=len(CARRIED_REQUEST) - 1),
    "carried_len says most of all": message(CARRIED, CARRIED_REQUEST, carried_len=0xFFFFFFFF),
    "carried_len without bytes": message(CARRIED, carried_len=20),
    "fresh with a length": message(FRESH, carried_len=20),
    "a byte that must be zero": message(zero=1),
    "a client of family 5": message(client=(5, 0, b"", 0)),
    "a client of family 255": message(client=(255, 1, bytes(16), 1)),
    "a client's port without a family": message(client=(0, 80, b"", 0)),
    "a client's address without a family": message(client=(0, 0, b"\x7f\0\0\1", 0)),
    "a client's tag without a family": message(client=(0, 0, b"", 1)),
    "an IPv4 client with 16 bytes": message(client=(4, 80, b"\x7f\0\0\1" + bytes(11) + b"\1", 1)),
    "a client where no front end is expected": message(client=(4, 80, b"\x7f\0\0\1", 1)),
    "an IPv6 client where no front end is expected": message(client=(6, 80, bytes(15) + b"\1", 1)),
    "a client with carried bytes where no front end is expected": message(CARRIED, CARRIED_REQUEST, client=(4, 80, b"\x7f\0\0\1", 1)),
    "too much carried": message(CARRIED, CARRIED_REQUEST.ljust(CARRIED_MAX + 1, b"x")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_message_is_refused(attack: Attack, name: str) -> None:
    """A good connection with a message that breaks the protocol is closed, counted once, and never read from."""
    with connection(attack, request("alice.test")) as (client, fd), attack.refusing():
        attack.send(BROKEN[name], fd)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_the_longest_message_is_taken(attack: Attack) -> None:
    """CARRIED_MAX bytes are still within the rules: what comes back is HTTP's answer, not a refusal."""
    raw = b"GET /whoami HTTP/1.1\r\nHost: alice.test\r\n" + b"X-A: b\r\n" * 3000
    refused = attack.counter("refused")
    with connection(attack, b"x") as (client, fd):
        attack.send(message(CARRIED, raw[:CARRIED_MAX]), fd)
        assert read_response(client).status in {400, 431}
    assert attack.counter("refused") == refused


def test_random_messages_are_refused(attack: Attack) -> None:
    """10,000 messages of random bytes and lengths with a good connection: each refused, no descriptor left, no crash."""
    rng = random.Random(4711)
    with connection(attack, request("alice.test")) as (client, fd), attack.refusing(10_000):
        for _ in range(10_000):
            size = rng.choice((0, 1, 19, 20, 47, 48, 49, 64, 500))
            attack.send(rng.randbytes(size), fd)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_refused_messages_do_not_fill_the_error_log() -> None:
    """2,000 refusals at once: a line a second at most, and the lines account for every one of them, soon after the last."""
    with Lab(names=("alice",)) as lab:
        lab.start()
        pid = lab.get("alice.test", "/whoami").json()["pid"]
        with procs.borrowed(lab.pid, procs.inbox_of(lab, pid)) as inbox:
            attack, start_s = Attack(lab, pid, inbox), time.monotonic()
            for _ in range(2000):
                attack.send(b"x")

        def told() -> list[int]:
            return [int(more or 1) for more in re.findall(r"\] refused (?:a hand-off|(\d+) more hand-offs)", lab.error_log())]

        wait_until(lambda: sum(told()) >= 2000, "all are told of")
        assert sum(told()) == procs.counter(lab, pid, "refused") == 2000
        assert len(told()) <= time.monotonic() - start_s + 2


def test_damaged_messages_are_refused(attack: Attack) -> None:
    """Each byte of a right head (but for requests and sender) flipped in turn: refused."""
    right = message(CARRIED, CARRIED_REQUEST)
    with connection(attack, b"x") as (_client, fd), attack.refusing(12 - 1):
        for at in range(12):
            if at != 7:  # hops: 254 of 255 values are wrong; tested above
                attack.send(right[:at] + bytes([right[at] ^ 0x80]) + right[at + 1 :], fd)


def test_messages_without_descriptors_are_refused(attack: Attack) -> None:
    """Right and broken messages without any descriptor: each refused once."""
    with attack.refusing(1 + len(BROKEN)):
        attack.send(message())
        for raw in BROKEN.values():
            attack.send(raw)


def test_credentials_instead_of_descriptors_are_refused(attack: Attack) -> None:
    """SCM_CREDENTIALS, alone, is no SCM_RIGHTS."""
    with attack.refusing():
        attack.inbox.sendmsg([message()], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", os.getpid(), 0, 0))])


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("host", ["bob.test", "main.test", "nobody.test", ""])
@pytest.mark.parametrize("kind", ["fresh", "carried"])
def test_a_foreign_name_is_answered_421(attack: Attack, kind: str, host: str) -> None:
    """A connection for another's name is answered 421 by alice's child and ends; nothing of bob's is served."""
    raw = request(host)
    with connection(attack, raw if kind == "fresh" else b"x") as (client, fd):
        refused, before = attack.counter("refused"), attack.fds_alone()
        attack.send(message() if kind == "fresh" else message(CARRIED, raw), fd)
        response = read_response(client)
        assert response.status == 421
        assert attack.counter("refused") == refused + 1
    procs.wait_for_descriptors(attack.pid, before)


@pytest.mark.parametrize("requests", [1, 5])
def test_a_foreign_name_with_a_forged_history_is_answered_421(attack: Attack, requests: int) -> None:
    """A sender that claims earlier answers on the connection does not make alice's child pass it on in its name."""
    with connection(attack, request("bob.test")) as (client, fd):
        attack.send(message(requests=requests), fd)
        assert read_response(client).status == 421


def test_a_child_that_listens_answers_a_foreign_name_with_421() -> None:
    """AcceptScope any: alice's child has the whole route table, yet what is handed to it with bob's name is neither served nor sent on,
    unless it says that alice has answered on this connection before; then it is bob who serves it."""
    with Lab(names=("bob", "alice"), accept_scope="any") as lab:
        fixed = [f"ChildPerUserID #{one.uid} #{one.uid} {number}\n" for number, one in enumerate(lab.tenants.values(), 1)]
        lab.config += "NumServers 3\n" + "".join(fixed)
        lab.start()
        pid, = wait_until(lambda: lab.children(lab.tenants["alice"].uid), "alice's child has become hers")
        raw = request("bob.test", "/whoami")
        with procs.borrowed(lab.pid, procs.inbox_of(lab, pid)) as inbox:
            attack = Attack(lab, pid, inbox)
            for sent, waiting in ((message(CARRIED, raw), b"x"), (message(), raw), (message(requests=3), raw)):
                refused, handed = attack.counter("refused"), attack.counter("handed_out")
                with connection(attack, waiting) as (client, fd):
                    attack.send(sent, fd)
                    assert read_response(client).status == 421
                assert (attack.counter("refused"), attack.counter("handed_out")) == (refused + 1, handed)
            with connection(attack, b"x") as (client, fd):
                attack.send(message(CARRIED, raw, requests=3), fd)
                assert read_response(client).json()["uid"] == lab.tenants["bob"].uid


@pytest.mark.parametrize("hops", range(1, HOPS_MAX + 1))
def test_a_connection_is_handed_on_so_often_and_no_more(attack: Attack, hops: int) -> None:
    """What comes back to the unassigned children goes to its owner, until MAX_HOPS hand-offs have led nowhere: then 421."""
    pid = attack.lab.children(attack.lab.user_uid)[0]
    with (procs.borrowed(attack.lab.pid, procs.inbox_of(attack.lab, pid)) as inbox,
          connection(attack, request("alice.test", "/")) as (client, fd)):
        Attack(attack.lab, pid, inbox).send(message(hops=hops), fd)
        response = read_response(client)
    assert response.status == (421 if hops == HOPS_MAX else 200)


def test_who_has_the_first_host_answers_foreign_names_with_its_own(attack: Attack) -> None:
    """The owner of the address's first host serves names that it does not know, as its own host: it cannot tell another's name
    from an unknown one, and has nothing of another's to show."""
    lab = attack.lab
    pid = lab.children(lab.tenants["bob"].uid)[0]
    with (procs.borrowed(lab.pid, procs.inbox_of(lab, pid)) as inbox,
          connection(attack, request("alice.test", "/")) as (client, fd)):
        Attack(lab, pid, inbox).send(message(), fd)
        response = read_response(client)
    assert (response.status, response.body) == (200, b"bob\n")


@pytest.mark.parametrize("path", ["/", "/whoami", "/missing"])
@pytest.mark.parametrize("requests", [0, 3])
def test_carried_requests_are_served_as_they_are(attack: Attack, requests: int, path: str) -> None:
    """Carried bytes are parsed from the start: what is served is their request and nothing that was served before."""
    wanted = attack.lab.get("alice.test", path)
    with connection(attack, b"x") as (client, fd):
        attack.send(message(CARRIED, request("alice.test", path), requests=requests), fd)
        response = read_response(client)
    assert (response.status, response.body[:20]) == (wanted.status, wanted.body[:20])


@pytest.mark.parametrize("requests", [0, 3])
def test_carried_bytes_of_alice_are_served_by_alice(attack: Attack, requests: int) -> None:
    """Carried bytes count as read: the request in them is served, and those still in the socket come after."""
    raw = request("alice.test", "/")
    with connection(attack, raw[-20:]) as (client, fd):
        attack.send(message(CARRIED, raw[:-20], requests=requests), fd)
        response = read_response(client)
    assert (response.status, response.body) == (200, b"alice\n")


@pytest.mark.parametrize("requests", [0, 3])
def test_carried_bytes_without_a_whole_name_are_refused(attack: Attack, requests: int) -> None:
    """Whose a connection is must show in the carried bytes: a name cut in the middle is answered 400 and never guessed."""
    raw = request("alice.test", "/")
    cut = raw.index(b"alice.test") + 5
    with connection(attack, raw[cut:]) as (client, fd):
        attack.send(message(CARRIED, raw[:cut], requests=requests), fd)
        assert read_response(client).status == 400


# ---------------------------------------------------------------- attacks on time


def test_a_blocking_socket_stops_nobody(attack: Attack) -> None:
    """O_NONBLOCK is the sender's to turn off: a silent client on a blocking socket holds no thread of alice's child."""
    with connection(attack, b"GET /whoami HT") as (client, fd):
        os.set_blocking(fd, True)
        attack.send(message(), fd)
        assert attack.lab.get("alice.test", timeout_s=5).status == 200
        client.sendall(b"TP/1.1\r\nHost: alice.test\r\n\r\n")
        assert read_response(client).status == 200


def test_a_blocking_socket_that_is_not_read_stops_nobody(attack: Attack) -> None:
    """A large file on a blocking socket whose client does not read must not hold the thread that leads alice's child."""
    attack.lab.tenants["alice"].write("large.bin", b"\0" * (16 << 20))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            _client, fd = stack.enter_context(connection(attack, request("alice.test", "/large.bin")))
            os.set_blocking(fd, True)
            attack.send(message(), fd)
        for _ in range(5):
            assert attack.lab.get("alice.test", timeout_s=5).status == 200


def test_a_lingering_socket_stops_nobody(attack: Attack) -> None:
    """SO_LINGER is the sender's to set, and makes close(2) wait for a client that does not read, O_NONBLOCK or not: alice's child,
    which holds the last copy, gives such connections up without a moment's wait for anybody else."""
    lab = attack.lab
    lab.tenants["alice"].write("buffered.bin", b"\0" * 300_000)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            with connection(attack, b"x", receive_buffer_bytes=4096) as (client, fd):
                with socket.socket(fileno=os.dup(fd)) as server:
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000_000)
                stack.enter_context(client.dup())
                attack.send(message(CARRIED, request("alice.test", "/buffered.bin")), fd)
        wait_until(lambda: attack.counter("connections") >= 3, "alice's child has them")

        def gives_them_up() -> bool:
            assert lab.get("alice.test", timeout_s=5).status == 200
            return attack.counter("connections") == 0

        wait_until(gives_them_up, "it gives them up", 20)


def test_an_inbox_that_was_shut_down_is_replaced(attack: Attack) -> None:
    """A sender that shuts alice's inbox down stops nothing for long: a new one, a new child, and the log says it."""
    with Lab(names=("alice", "bob")) as lab:
        lab.start()
        assert lab.get("alice.test").status == 200
        pid = lab.children(lab.tenants["alice"].uid)[0]
        accepting = lab.children(lab.user_uid)
        try:
            wait_until(lambda: procs.stand_still(lab.pid), "the dispatcher does not look")
            with procs.borrowed(lab.pid, procs.inbox_of(lab, pid)) as inbox:
                inbox.shutdown(socket.SHUT_WR)
            early = lab.connect()
            early.sendall(b"GET / HTTP/1.1\r\nHost: alice.test\r\nConnection: close\r\n\r\n")
            wait_until(lambda: sum(procs.counter(lab, one, "waiting") for one in accepting) == 1, "an accepting child holds it back")
        finally:
            os.kill(lab.pid, signal.SIGCONT)
        with early:
            assert read_response(early).status == 200  # by way of the new inbox
        wait_until(lambda: "was shut down by a process that holds it" in lab.error_log(), "the dispatcher replaces the inbox")
        answer = lab.get("alice.test", "/whoami").json()
        assert answer["uid"] == lab.tenants["alice"].uid
        assert lab.get("bob.test").status == 200
        assert lab.error_log().count("\n") < 200, "a shut down inbox fills the log"


# ---------------------------------------------------------------- slots


def test_the_slot_says_minus_two_then_the_descriptor_then_minus_one(attack: Attack) -> None:
    """A handed-over file request: -1 OTHERCHILD, -2, the received descriptor, -1 again, in one slot, in this order."""
    lab, pid = attack.lab, attack.pid
    wait_until(lambda: {slot.value for slot in procs.read_page(lab, pid).slots} == {-1}, "whoever was at work has finished")
    before = {index: slot.changes for index, slot in enumerate(procs.read_page(lab, pid).slots)}
    assert lab.get("alice.test").status == 200
    wait_until(lambda: {slot.value for slot in procs.read_page(lab, pid).slots} == {-1}, "the slots are free again")
    changed = [slot for index, slot in enumerate(procs.read_page(lab, pid).slots) if slot.changes != before[index]]
    assert len(changed) == 1
    sequence = changed[0].history
    assert any(is_hand_off(sequence[at : at + 4]) for at in range(len(sequence) - 3)), sequence


def is_hand_off(four: tuple[int, ...]) -> bool:
    """Whether four values of a slot are -1, -2, a descriptor, -1."""
    return four[0] == -1 and four[1] == -2 and four[2] > 2 and four[3] == -1


def test_the_slot_keeps_the_descriptor_while_python_answers(attack: Attack) -> None:
    """While Python decides about a handed-over request, that thread's slot holds its descriptor: the answer shows it."""
    answer = attack.lab.get("alice.test", "/whoami").json()
    assert answer["slot_value"] > 2
    slot = procs.read_page(attack.lab, attack.pid).slots[answer["slot"]]
    wait_until(lambda: procs.read_page(attack.lab, attack.pid).slots[answer["slot"]].value == -1, "the slot is free again")
    assert answer["slot_value"] in slot.history


RESOLVER = "127.77.0.53"


def test_the_slot_keeps_the_descriptor_as_long_as_python_takes() -> None:
    """A slow question (a name server that does not answer): meanwhile the slot holds the descriptor, other requests of alice's are
    served in other slots, and when Python is done the slot goes back to -1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver, Lab(names=("alice",)) as lab:
        resolver.bind((RESOLVER, 53))
        resolver.settimeout(10)
        (lab.base / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions timeout:20 attempts:1\n")
        lab.prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {lab.base}/resolv.conf /etc/resolv.conf && exec "$@"', "sh"]
        lab.host_config = "<Location /slow>\nRequire host friends.test\n</Location>"
        lab.start()
        assert lab.get("alice.test").status == 200
        (pid,) = lab.children(lab.tenants["alice"].uid)
        with socket.create_connection(("127.0.0.1", lab.port), 20, source_address=("127.0.0.77", 0)) as client:
            client.sendall(request("alice.test", "/slow"))
            question, sender = resolver.recvfrom(512)  # Python is asked, and waits
            held = [slot.value for slot in procs.read_page(lab, pid).slots if slot.value > 2]
            assert len(held) == 1
            for _ in range(3):
                assert lab.get("alice.test").status == 200
            assert held[0] in [slot.value for slot in procs.read_page(lab, pid).slots], "it was let go of meanwhile"
            with procs.borrowed(pid, held[0]) as sock:
                assert sock.getpeername() == client.getsockname()
            resolver.sendto(question[:2] + b"\x81\x83" + question[4:], sender)  # no such name
            assert read_response(client).status == 403
        wait_until(lambda: {slot.value for slot in procs.read_page(lab, pid).slots} == {-1}, "every slot is back at -1")


def test_every_reader_of_an_inbox_hears_of_what_comes(attack: Attack) -> None:
    """A wake-up that one reader has for itself (EPOLLEXCLUSIVE) is lost when that one lets go of the inbox or dies before it looks."""
    for pid in (attack.pid, *attack.lab.children(attack.lab.user_uid)):
        inbox = next(fd for fd in procs.look_at_fds(attack.lab, pid) if fd.kind == roles.INBOX)
        events = procs.watched_events(pid)[f"socket:[{inbox.inode}]"]
        assert events & select.EPOLLIN
        assert not events & select.EPOLLEXCLUSIVE


def test_an_accepted_connection_never_shows_in_a_slot() -> None:
    """What a child accepted itself, a file as well as Python's answer, is served with the slot at -1: no -2, no descriptor in any table.

    Nothing is ever sent to this server's inboxes. Where something is, -2 also stands in the slot of a child that woke up for a message
    and found that another child of its identity had received it.
    """
    with Lab(names=(), vhosts=False, config="NumServers 2\n<Location /whoami>\nSetHandler whoami\n</Location>") as lab:
        lab.start()
        pids = wait_until(lambda: ready_children(lab, 2), "both children are ready")
        for _ in range(20):
            assert lab.get("main.test").body == b"main\n"
            answer = lab.get("main.test", "/whoami").json()
            assert (answer["came"], answer["slot_value"]) == ("accepted", -1)
        pages = [procs.read_page(lab, pid) for pid in pids]
        assert [sum(page.counters[name] for page in pages) for name in ("accepted", "handed_in", "handed_out")] == [40, 0, 0]
        assert {value for page in pages for slot in page.slots for value in (slot.value, *slot.history)} == {-1}


def ready_children(lab: Lab, count: int) -> list[int]:
    """Return the pids of the children that have said READY, if there are so many."""
    pids = [child["pid"] for one in lab.status()["identities"] for child in one["children"] if child["state"] == "ready"]
    return pids if len(pids) == count else []


def test_the_sender_has_read_nothing(attack: Attack) -> None:
    """A fresh hand-off leaves every byte in the socket: bytes_in of the accepting children does not move, alice's does."""
    lab = attack.lab
    pids = lab.children(lab.user_uid)
    before, own = sum(procs.counter(lab, pid, "bytes_in") for pid in pids), attack.counter("bytes_in")
    assert lab.get("alice.test").status == 200
    assert sum(procs.counter(lab, pid, "bytes_in") for pid in pids) == before
    wait_until(lambda: attack.counter("bytes_in") > own, "alice's child has read it")


def test_descriptor_kinds_are_roles_own(attack: Attack) -> None:
    """After all of the above alice's child still holds what its role says, and nothing else."""
    kinds = [fd.kind for fd in procs.look_at_fds(attack.lab, attack.pid)]
    assert roles.compare_fds(roles.find_role("on-demand"), kinds) == ()
    assert Path(f"/proc/{attack.pid}").exists()
