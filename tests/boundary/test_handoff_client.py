"""Where front ends name clients (RemoteIPProxyProtocol), a taken-over sender can name none of its own choice.

A hand-off says who the client is, for the header that said so is gone from the socket. Tenants' children have their messages from those
who listen; but the unassigned children take messages from every tenant's child, and pass on to the others. Therefore who takes a header
signs address and socket with a key that only those who listen have. The attacker here has the write end of an inbox.
Runs as: root, which starts the server.  Source: docs/protocol.md; docs/security.md.
"""

from __future__ import annotations

import array
import os
import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boundary import procs
from tests.boundary.test_handoff import CARRIED, FRESH, Attack, connection, message, request
from tests.lab import Lab, Response, read_response, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SO_COOKIE = 57
ADDRESS, PORT = bytes((192, 0, 2, 1)), 1234
HEADER = b"PROXY TCP4 192.0.2.1 127.0.0.1 1234 80\r\n"
MASK = (1 << 64) - 1


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4, from the paper: what an attacker would compute who has the key."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turn(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & MASK

    def mix(a: int, b: int, bits: int) -> None:
        v[a] = (v[a] + v[b]) & MASK
        v[b] = turn(v[b], bits) ^ v[a]

    def sip_round() -> None:
        mix(0, 1, 13)
        v[0] = turn(v[0], 32)
        mix(2, 3, 16)
        mix(0, 3, 21)
        mix(2, 1, 17)
        v[2] = turn(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        sip_round()
        sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(4):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


@dataclass
class Fronts:
    """A server that expects headers; its key, and the attacker at the unassigned child's inbox and at alice's."""

    lab: Lab
    key: bytes
    unassigned: Attack
    alice: Attack

    def sign(self, fd: int, address: bytes = ADDRESS, port: int = PORT) -> int:
        """Return the tag that a child that listens would make for a socket."""
        with socket.socket(fileno=os.dup(fd)) as sock:
            cookie = sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
        family = 4 if len(address) == len(ADDRESS) else 6
        return siphash(self.key, cookie + struct.pack("<BBHI16s", family, 0, port, 0, address))


def read_key(lab: Lab) -> bytes:
    """Return the key in the route table that the dispatcher holds: read from a descriptor, as only root can."""
    number = next(number for number, target in procs.descriptors(lab.pid).items() if "perchild-routes" in target)
    table = Path(f"/proc/{lab.pid}/fd/{number}").read_bytes()
    _, _, count, offset, _ = struct.unpack_from("<8sIIII", table)
    for index in range(count):
        row = struct.unpack_from("<BBH16sIIIII", table, offset + 40 * index)
        if row[1] & 2:
            at, = struct.unpack_from("<I", table, row[8] + 4 * row[7])
            return table[at : at + 16]
    raise AssertionError("no address expects headers")


@pytest.fixture(scope="module")
def fronts() -> Iterator[Fronts]:
    """A server with alice and bob behind a front end; one child listens."""
    host = "<Location /office>\nRequire ip 192.0.2.0/24\n</Location>\n"
    with Lab("RemoteIPProxyProtocol On\nNumServers 1\n", names=("bob", "alice"), host_config=host) as lab:
        for tenant in lab.tenants.values():
            tenant.write("office/index.html", f"{tenant.name}'s office\n")
        lab.start()
        for name in lab.tenants:
            assert ask(lab, name).status == 200
        listening, = lab.children(lab.user_uid)
        alice, = lab.children(lab.tenants["alice"].uid)
        with procs.borrowed(lab.pid, procs.inbox_of(lab, listening)) as one, procs.borrowed(lab.pid, procs.inbox_of(lab, alice)) as other:
            yield Fronts(lab, read_key(lab), Attack(lab, listening, one), Attack(lab, alice, other))
        assert lab.children(lab.user_uid) == [listening], "the unassigned child was replaced: it fell to an attack"


def ask(lab: Lab, name: str, path: str = "/office/", header: bytes = HEADER) -> Response:
    """Return the answer to a request by way of the front end."""
    with lab.connect() as sock:
        sock.sendall(header + request(f"{name}.test", path))
        return read_response(sock)


def is_refused(attack: Attack, client: socket.socket, raw: bytes, fd: int) -> bool:
    """Send a hand-off; whether it is counted as refused, and nothing is answered to the client."""
    refused, handed = attack.counter("refused"), attack.counter("handed_in")
    attack.send(raw, fd)
    wait_until(lambda: attack.counter("refused") + attack.counter("handed_in") > refused + handed, "it was looked at")
    client.setblocking(False)
    try:
        answer = client.recv(1)
    except BlockingIOError:
        answer = b""
    return attack.counter("refused") == refused + 1 and attack.counter("handed_in") == handed and not answer


REQUEST = request("bob.test", "/office/")


def test_what_is_signed_is_believed(fronts: Fronts) -> None:
    """The attack is the right one: with the key, both kinds are served to the client that was signed, IPv4 and IPv6."""
    with connection(fronts.unassigned, REQUEST) as (client, fd):
        fronts.unassigned.send(message(client=(4, PORT, ADDRESS, fronts.sign(fd))), fd)
        response = read_response(client)
        assert (response.status, response.body) == (200, b"bob's office\n")
    with connection(fronts.unassigned, b"x") as (client, fd):
        tag = fronts.sign(fd, bytes(16), 0)
        fronts.unassigned.send(message(CARRIED, REQUEST, requests=1, client=(6, 0, bytes(16), tag)), fd)
        assert read_response(client).status == 403


@pytest.mark.parametrize("kind", [FRESH, CARRIED])
def test_a_client_that_nobody_signed_is_refused(fronts: Fronts, kind: int) -> None:
    """No tag, random tags, and the right one with one bit of tag, address or port changed; then the right one."""
    carried = REQUEST if kind == CARRIED else b""
    rng = random.Random(11)
    with connection(fronts.unassigned, b"x" if carried else REQUEST) as (client, fd):
        tag = fronts.sign(fd)
        wrong = [(4, PORT, ADDRESS, 0), *((4, PORT, ADDRESS, rng.getrandbits(64)) for _ in range(50)),
                 *((4, PORT, ADDRESS, tag ^ 1 << bit) for bit in range(64)), (4, PORT ^ 1, ADDRESS, tag), (4, PORT, bytes((192, 0, 2, 2)), tag),
                 (6, PORT, ADDRESS + bytes(12), tag), (4, PORT, b"\x7f\0\0\x01", tag)]
        for one in wrong:
            assert is_refused(fronts.unassigned, client, message(kind, carried, requests=1, client=one), fd), one
        client.settimeout(10)
        fronts.unassigned.send(message(kind, carried, requests=1, client=(4, PORT, ADDRESS, tag)), fd)
        assert read_response(client).status == 200


def test_a_tag_is_for_one_socket(fronts: Fronts) -> None:
    """That of one connection is of no use for another: an attacker cannot lend its clients' addresses to others."""
    with connection(fronts.unassigned, REQUEST) as (_one, first), connection(fronts.unassigned, REQUEST) as (client, second):
        assert is_refused(fronts.unassigned, client, message(client=(4, PORT, ADDRESS, fronts.sign(first))), second)


def test_a_connection_whose_client_is_not_named_is_refused(fronts: Fronts) -> None:
    """Else the front end itself, which may be a trusted address, would be the client: at the unassigned child and at alice's."""
    for attack in (fronts.unassigned, fronts.alice):
        with connection(attack, request("alice.test", "/")) as (client, fd):
            assert is_refused(attack, client, message(), fd)
            assert is_refused(attack, client, message(requests=3), fd)


def test_a_tenants_child_believes_those_who_send_to_it(fronts: Fronts) -> None:
    """It has no key and needs none: only who listens has the write end of its inbox (see test_live_roles)."""
    with connection(fronts.alice, request("alice.test", "/office/")) as (client, fd):
        fronts.alice.send(message(client=(4, PORT, ADDRESS, 1)), fd)
        assert read_response(client).status == 200


def test_no_tenants_child_has_the_key(fronts: Fronts) -> None:
    """Neither in its memory nor behind a descriptor; the one that listens has it, so it would be found."""
    assert procs.count_in_memory(fronts.unassigned.pid, fronts.key) > 0
    for tenant in fronts.lab.tenants.values():
        for pid in fronts.lab.children(tenant.uid):
            assert procs.count_in_memory(pid, fronts.key) == 0
            assert not any("perchild-routes" in target for target in procs.descriptors(pid).values())


def test_the_header_is_not_seen_by_the_owner(fronts: Fronts) -> None:
    """What is passed on begins with the request: a name in the header's TLVs means nothing."""
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    tlv = b"GET / HTTP/1.1\r\nHost: alice.test\r\n\r\n"
    rest = ADDRESS + bytes(4) + struct.pack(">HH", PORT, 80) + b"\xe0" + struct.pack(">H", len(tlv)) + tlv
    header = signature + struct.pack(">BBH", 0x21, 0x11, len(rest)) + rest
    assert ask(fronts.lab, "bob", header=header).body == b"bob's office\n"


def test_messages_with_two_sockets_are_refused(fronts: Fronts) -> None:
    """A right tag does not change what a message may carry."""
    with connection(fronts.unassigned, REQUEST) as (_client, fd):
        refused = fronts.unassigned.counter("refused")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd, fd]))]
        fronts.unassigned.inbox.sendmsg([message(client=(4, PORT, ADDRESS, fronts.sign(fd)))], rights)
        wait_until(lambda: fronts.unassigned.counter("refused") == refused + 1, "it is refused")


def test_no_key_is_known_where_there_was_none() -> None:
    """Headers come to be expected by a reload. The table before it had no key, and what anybody could compute with it is refused."""
    with Lab("NumServers 1\n", names=("bob", "alice")) as lab:
        lab.start()
        listening, = lab.children(lab.user_uid)
        lab.host_config = "RemoteIPProxyProtocol On\n"
        assert lab.reload()["ok"]
        assert ask(lab, "bob", "/").body == b"bob\n"
        assert lab.children(lab.user_uid) == [listening]
        with procs.borrowed(lab.pid, procs.inbox_of(lab, listening)) as inbox:
            unassigned = Attack(lab, listening, inbox)
            anybody, owner = Fronts(lab, bytes(16), unassigned, unassigned), Fronts(lab, read_key(lab), unassigned, unassigned)
            with connection(unassigned, request("bob.test", "/")) as (client, fd):
                assert is_refused(unassigned, client, message(client=(4, PORT, ADDRESS, anybody.sign(fd))), fd)
                client.settimeout(10)
                unassigned.send(message(client=(4, PORT, ADDRESS, owner.sign(fd))), fd)
                assert read_response(client).status == 200
