"""PROXY protocol on the wire: who the client is, in programs, access control and logs, whichever child answers; and who is refused.

127.0.0.2 is the front end of most servers here; a peer's address is the one that the test connects from.
Runs as: root, which starts the server.  Source: HAProxy's doc/proxy-protocol.txt; mod_remoteip for words.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.lab import Lab, Response, free_port, wait_until
from tests.system.wire import Client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FRONT, STRANGER = "127.0.0.2", "127.0.0.3"
ON = "RemoteIPProxyProtocol On\n"
LISTED = f"{ON}RemoteIPTrustedProxy {FRONT}\n"
PROGRAM = '#!/bin/sh\nprintf \'Content-Type: text/plain\\n\\n%s\' "$REMOTE_ADDR:$REMOTE_PORT"\n'
HOST = """
ScriptAlias /cgi-bin/ {home}/cgi-bin/
<Directory {home}/cgi-bin>
Require all granted
</Directory>
<Location /office>
Require ip 192.0.2.0/24 2001:db8::/32
</Location>
<Location /local>
Require local
</Location>
CustomLog {log}/{name}.log "%a %h %{{remote}}p %m %U %>s"
"""


def v1(client: str = "192.0.2.1", port: int = 1234) -> bytes:
    """Return a header of version 1."""
    family = ipaddress.ip_address(client).version
    return f"PROXY TCP{family} {client} {'::1' if family == 6 else '127.0.0.1'} {port} 80\r\n".encode()


def v2(client: str = "192.0.2.1", port: int = 1234, more: bytes = b"", command: int = 0x21) -> bytes:
    """Return a header of version 2; more: TLVs."""
    source = ipaddress.ip_address(client)
    rest = source.packed + bytes(len(source.packed)) + struct.pack(">HH", port, 80) + more
    return SIGNATURE + struct.pack(">BBH", command, 0x11 if source.version == 4 else 0x21, len(rest)) + rest


def make_lab(config: str, hosts: str = "", **options: object) -> Lab:
    """Return a server with alice and bob, not started. config: before the hosts; hosts: inside each."""
    lab = Lab(config, names=("alice", "bob"), **options)  # type: ignore[arg-type]
    blocks = ""
    for tenant in lab.tenants.values():
        tenant.put_programs({"client": PROGRAM})
        tenant.write("office/index.html", "office\n")
        tenant.write("local/index.html", "local\n")
        blocks += lab.host_block(tenant, HOST.format(home=tenant.home, log=lab.log, name=tenant.name) + hosts)
    lab.has_vhosts, lab.config_tail = False, blocks
    return lab


@pytest.fixture(scope="module")
def listed() -> Iterator[Lab]:
    """A server with one front end."""
    with make_lab(LISTED) as lab:
        yield lab.start()


@contextlib.contextmanager
def from_peer(lab: Lab, source: str = FRONT) -> Iterator[Client]:
    """A connection from an address of the machine."""
    with Client(("127.0.0.1", lab.port), source=source) as one:
        yield one


def ask(lab: Lab, raw: bytes, source: str = FRONT) -> Response | None:
    """Send bytes and read one answer; None: closed without."""
    with from_peer(lab, source) as one:
        one.send(raw)
        return one.read()


def client_of(response: Response | None) -> str:
    """Return what the program said."""
    assert response is not None
    assert response.status == 200
    return response.body.decode()


CLIENT = get("alice.test", "/cgi-bin/client")
HEADERS: dict[str, tuple[bytes, str]] = {
    "v1": (v1(), "192.0.2.1:1234"),
    "v1 of IPv6": (v1("2001:db8::7", 65535), "2001:db8::7:65535"),
    "v2": (v2(), "192.0.2.1:1234"),
    "v2 of IPv6": (v2("2001:db8::7", 1), "2001:db8::7:1"),
    "v2 with TLVs": (v2(more=b"\x02\0\x05alice" + b"\x04\0\x64" + bytes(100)), "192.0.2.1:1234"),
    "v2 as long as can be": (v2(more=bytes(508)), "192.0.2.1:1234"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_program_sees_the_client_that_the_front_end_names(listed: Lab, name: str) -> None:
    """The header's address, though the socket's peer is the front end."""
    header, wanted = HEADERS[name]
    assert client_of(ask(listed, header + CLIENT)) == wanted


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n", SIGNATURE + b"\x20\0\0\0",
                                    v2(command=0x20), SIGNATURE + b"\x21\0\0\0"])
def test_a_front_end_that_speaks_for_itself_is_the_client(listed: Lab, header: bytes) -> None:
    """UNKNOWN, LOCAL and an unspecified family: the socket's peer, whatever else the header says."""
    assert client_of(ask(listed, header + CLIENT)).rpartition(":")[0] == FRONT


@pytest.mark.parametrize("name", ["v1", "v2 with TLVs"])
def test_a_header_may_come_byte_by_byte(listed: Lab, name: str) -> None:
    """As may the request behind it."""
    header, wanted = HEADERS[name]
    with from_peer(listed) as one:
        for byte in header + CLIENT:
            one.send(bytes([byte]))
        assert client_of(one.read()) == wanted


def test_a_header_may_come_in_any_two_pieces(listed: Lab) -> None:
    """The accepting child has seen the first one before the second comes: it holds the connection by then."""
    raw = v2("2001:db8::7", 9) + CLIENT
    rng = random.Random(7)
    for at in (1, 12, 15, 16, 51, 52, 53, *(rng.randrange(1, len(raw)) for _ in range(5))):
        with from_peer(listed) as one:
            one.send(raw[:at])
            assert ask(listed, v1() + CLIENT) is not None
            one.send(raw[at:])
            assert client_of(one.read()) == "2001:db8::7:9"


def test_requests_on_a_kept_connection_keep_their_client(listed: Lab) -> None:
    """Also those that are sent with the first, and those of another tenant: bob's child has the address from alice's."""
    with from_peer(listed) as one:
        one.send(v1("192.0.2.77", 7) + CLIENT + CLIENT)
        assert [client_of(one.read()) for _ in range(2)] == ["192.0.2.77:7"] * 2
        for host in ("bob.test", "alice.test", "alice.test", "bob.test"):
            one.send(get(host, "/cgi-bin/client"))
            assert client_of(one.read()) == "192.0.2.77:7"
    with from_peer(listed) as one:
        one.send(b"PROXY UNKNOWN\r\n" + CLIENT + get("bob.test", "/cgi-bin/client"))
        assert {client_of(one.read()).rpartition(":")[0] for _ in range(2)} == {FRONT}


def test_a_header_is_taken_once(listed: Lab) -> None:
    """A second one is a request that makes no sense."""
    response = ask(listed, v1() + v1("192.0.2.2") + CLIENT)
    assert response is not None
    assert response.status == 400


@pytest.mark.parametrize(("client", "path", "status"), [
    ("192.0.2.1", "/office/", 200), ("2001:db8::1", "/office/", 200), ("198.51.100.1", "/office/", 403), (FRONT, "/office/", 403),
    ("192.0.2.1", "/local/", 403), ("127.0.0.1", "/local/", 200),
])
def test_access_is_the_clients(listed: Lab, client: str, path: str, status: int) -> None:
    """And not the front end's, which is local here."""
    for header in (v1(client), v2(client)):
        response = ask(listed, header + get("bob.test", path))
        assert response is not None
        assert response.status == status


def test_logs_name_the_client(listed: Lab) -> None:
    """The access log, and the error log's [client ...]."""
    assert ask(listed, v2("198.51.100.99", 4321) + get("bob.test", "/office/")) is not None
    log = listed.log / "bob.log"
    wait_until(lambda: log.exists() and "198.51.100.99 198.51.100.99 4321 GET /office/ 403\n" in log.read_text(), "the access log names it")
    wait_until(lambda: "[client 198.51.100.99:4321] AH01630: client denied by server configuration" in listed.error_log(), "so does the error log")


@pytest.mark.parametrize(("tls", "h2"), [(True, False), (False, True), (True, True)], ids=["TLS", "h2c", "h2"])
def test_whatever_is_spoken_comes_behind_the_header(tls: bool, h2: bool) -> None:  # noqa: FBT001 - what is spoken
    """A front end that passes bytes on, and knows nothing of them but whose they are."""
    with make_lab(LISTED, tls=tls, h2=h2) as lab:
        lab.start()
        for header in (v1(), v2(more=bytes(508))):
            with from_peer(lab) as one:
                one.send(header)
                one.sock = lab.speak(one.sock)
                for _ in range(2):
                    assert client_of(one.ask(CLIENT)) == "192.0.2.1:1234"


# ---------------------------------------------------------------- who is refused

BROKEN: dict[str, tuple[bytes, str]] = {
    "no header": (CLIENT, "AH03496: RemoteIPProxyProtocol data is missing, but required! Aborting request."),
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100), "AH03496: "),
    "unknown family": (b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n" + CLIENT, "AH03499: "),
    "no address": (b"PROXY TCP4 here there 1 2\r\n" + CLIENT, "AH03500: "),
    "no end of line": (b"PROXY TCP4 " + b"1" * 200, "AH10185: "),
    "version 3": (SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), "AH03509: "),
    "unknown command": (v2(command=0x22) + CLIENT, "AH03507: "),
    "too short": (SIGNATURE + b"\x21\x11\0\x04" + bytes(4), "AH10597: "),
    "too long": (v2(more=bytes(509)) + CLIENT, "AH10186: "),
    "UDP": (SIGNATURE + b"\x21\x12\0\x0c" + bytes(12), "AH10183: "),
}


def port_of(one: Client) -> int:
    """Return the client's own port: error log lines name it."""
    return int(one.sock.getsockname()[1])


def news(lab: Lab, said: str) -> str:
    """Return what is in the error log behind `said`: a port that a connection had before may be given to another."""
    return lab.error_log()[len(said):]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_closes_the_connection(listed: Lab, name: str) -> None:
    """Without an answer and with one line, which names the peer."""
    raw, text = BROKEN[name]
    said = listed.error_log()
    with from_peer(listed) as one:
        one.send(raw)
        assert one.read() is None
        peer = f"[client {FRONT}:{port_of(one)}] "
    wait_until(lambda: peer in news(listed, said), "the error log has its line")
    lines = [line for line in news(listed, said).splitlines() if peer in line]
    assert len(lines) == 1
    assert "[remoteip:error] [pid " in lines[0]
    assert f"{peer}{text}" in lines[0]


def test_half_a_header_and_no_more_closes_the_connection(listed: Lab) -> None:
    """A client that has finished sending; and one that never sent anything is no news."""
    said = listed.error_log()
    with from_peer(listed) as one:
        one.send(v1()[:20])
        one.sock.shutdown(socket.SHUT_WR)
        assert one.read() is None
        peer = f"[client {FRONT}:{port_of(one)}] AH10634: RemoteIPProxyProtocol: connection closed before a complete header was received"
    wait_until(lambda: peer in news(listed, said), "the error log says so")
    said = listed.error_log()
    with from_peer(listed) as one:
        one.sock.shutdown(socket.SHUT_WR)
        assert one.read() is None
        assert f":{port_of(one)}]" not in news(listed, said)


@pytest.mark.parametrize("raw", [v1("127.0.0.1"), v2("127.0.0.1"), b"PROXY UNKNOWN\r\n", b""])
def test_a_peer_that_is_not_listed_is_nobodys_front_end(listed: Lab, raw: bytes) -> None:
    """Whatever address it names, and also if it names none: closed before a byte of it means anything."""
    said = listed.error_log()
    with from_peer(listed, STRANGER) as one:
        one.send(raw + get("alice.test", "/local/"))
        assert one.read() is None
        line = (f"[client {STRANGER}:{port_of(one)}] RemoteIPProxyProtocol: neither RemoteIPInternalProxy nor RemoteIPTrustedProxy lists "
                "this peer")
    wait_until(lambda: line in news(listed, said), "the error log says so")


def test_where_none_is_listed_any_peer_is_a_front_end() -> None:
    """As in httpd; and what has no header is refused all the same. Another port of the same host expects none."""
    with make_lab("") as lab:
        other = free_port()
        lab.config = f"Listen 127.0.0.1:{other}\n"
        lab.config_tail = lab.config_tail.replace("</VirtualHost>", f"{ON}</VirtualHost>", 1)
        alice = lab.tenants["alice"]
        lab.config_tail += (f"<VirtualHost *:{other}>\nServerName alice.test\nDocumentRoot {alice.docroot}\nAssignUserID #{alice.uid} #{alice.uid}\n"
                            f"{HOST.format(home=alice.home, log=lab.log, name='other')}</VirtualHost>\n")
        lab.start()
        for source in (FRONT, STRANGER):
            assert client_of(ask(lab, v1() + CLIENT, source)) == "192.0.2.1:1234"
            assert client_of(ask(lab, v2() + get("bob.test", "/cgi-bin/client"), source)) == "192.0.2.1:1234"
            assert ask(lab, CLIENT, source) is None
            with Client(("127.0.0.1", other), source=source) as one:
                one.send(CLIENT)
                assert client_of(one.read()).rpartition(":")[0] == source
            with Client(("127.0.0.1", other), source=source) as one:
                one.send(v1() + CLIENT)
                refused = one.read()
                assert refused is not None
                assert refused.status == 400


@pytest.mark.parametrize("scope", ["unassigned", "any"])
def test_every_child_passes_the_client_on(scope: str) -> None:
    """Fixed children too, which accept for all under AcceptScope any: whoever takes the header, whoever answers."""
    with make_lab(LISTED, accept_scope=scope) as lab:
        lab.config += "NumServers 3\n" + "".join(f"ChildPerUserID #{one.uid} #{one.uid} {number}\n" for number, one in
                                                 enumerate(lab.tenants.values(), 1))
        lab.start()
        for number in range(30):
            with from_peer(lab) as one:
                one.send(v2("192.0.2.9", number + 1) + CLIENT)
                for host in ("bob.test", "bob.test", "alice.test"):
                    assert client_of(one.read()) == f"192.0.2.9:{number + 1}"
                    one.send(get(host, "/cgi-bin/client"))
                assert client_of(one.read()) == f"192.0.2.9:{number + 1}"


def test_a_kept_connection_outlives_a_reload() -> None:
    """Its client is known behind a reload as before, to its child and to another tenant's; and headers are expected from then on."""
    with make_lab(LISTED) as lab:
        lab.start()
        with from_peer(lab) as one:
            one.send(v1() + CLIENT)
            assert client_of(one.read()) == "192.0.2.1:1234"
            assert lab.reload()["ok"]
            one.send(CLIENT)
            assert client_of(one.read()) == "192.0.2.1:1234"
            one.send(get("bob.test", "/cgi-bin/client"))
            assert client_of(one.read()) == "192.0.2.1:1234"
        assert client_of(ask(lab, v2() + CLIENT)) == "192.0.2.1:1234"


def test_a_reload_turns_it_on_and_off() -> None:
    """For connections that come after it."""
    with make_lab("") as lab:
        lab.start()
        expects: list[tuple[str, Callable[[bytes], bytes]]] = [("", bytes), (LISTED, lambda raw: v1(FRONT) + raw), ("", bytes)]
        for config, wrap in expects:
            lab.config = config
            assert lab.reload()["ok"]
            wait_until(lambda: (ask(lab, wrap(b"") + get("alice.test")) or Response(0, {}, (), b"", b"")).status == 200, "served so")  # noqa: B023
            assert client_of(ask(lab, wrap(b"") + CLIENT)).rpartition(":")[0] == FRONT


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_speaks_to_us() -> None:
    """Somebody else's writer of headers: its own address, as it sees itself."""
    with make_lab(ON) as lab:
        lab.start()
        arguments = ["curl", "-sS", "--max-time", "10", "--haproxy-protocol", "--interface", "127.0.0.9", "-H", "Host: alice.test",
                     f"http://127.0.0.1:{lab.port}/cgi-bin/client", f"http://127.0.0.1:{lab.port}/cgi-bin/client"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert done.stdout.count("127.0.0.9:") == 2
