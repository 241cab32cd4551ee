"""HTTP back ends behind a real server: which requests they get, what they are sent, what clients are sent of their answers.

Runs as: root, which starts the server.  Source: RFC 9110 and 9112; httpd 2.4's mod_proxy_http for statuses and words of the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab import Lab, free_port, wait_until
from tests.system.backends import BackEnd, Peer, Request, answer, echo, fields_of, say
from tests.system.wire import HAS_APACHE, HTTPD_MODULES, MODULES, Client, Httpd, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SHORT_S = 1  # timeout= of the pass that waits for what does not come
PASSES = """
ProxyPass /a/not !
ProxyPass /a http://{to}/b
ProxyPass /slash/ http://{to}/b/
ProxyPassMatch ^/match/(.*)\\.x$ http://{to}/m/$1
ProxyPassMatch ^/whole/ http://{to}/w
ProxyPass /short http://{to}/s timeout={short} retry=0
ProxyPass /single http://{to}/single disablereuse=On
ProxyPass /ws ws://{to}/ws
ProxyPass /up http://{to}/ws upgrade=websocket
ProxyPass /local unix:{socket}|http://inner.test/u
ProxyPass /dead http://127.0.0.1:{dead}/ retry=0
ProxyPass /held http://127.0.0.1:{held}/
ProxyPass /full http://127.0.0.1:{full}/ connectiontimeout=1 retry=0
ProxyPass /v6 http://[::1]:{dead}/ retry=0
ProxyPass /name http://no-such-name.invalid/ retry=0
ProxyPass /localhost http://localhost:{port}/l
ProxyPass /aliased http://{to}/not-the-alias
Alias /aliased {home}/public
Redirect /a/moved http://elsewhere.test/
ProxyPassReverse /a http://{to}/b
ProxyPassReverse /local http://inner.test/u
ProxyPassReverseCookiePath /b /a
ProxyPassReverseCookieDomain inner.test alice.test
<Location /a/denied>
Require all denied
</Location>
<Location /a/keep>
ProxyPreserveHost On
</Location>
<Location /a/field>
RequestHeader set X-Added yes
Header set X-Out yes
</Location>
<Location /a/limited>
LimitRequestBody 10
</Location>
<Location /handled>
SetHandler proxy:http://{to}/h
</Location>
<Directory />
Require all denied
</Directory>
"""


class Scene:
    """A server with one host whose passes lead to one back end."""

    def __init__(self, lab: Lab, back: BackEnd, local: BackEnd, held: int) -> None:
        """lab: started; back, local: listening; held: a port that nobody listens on."""
        self.lab, self.back, self.local, self.held = lab, back, local, held

    def get(self, path: str, *fields: str, method: str = "GET", body: bytes = b"") -> object:
        """Return the answer of one request on a connection of its own."""
        extra = [f"Content-Length: {len(body)}"] if body else []
        with client(self.lab) as one:
            return one.ask(get("alice.test", path, *fields, *extra, method=method) + body)


def quiet_port() -> socket.socket:
    """Return a bound socket that does not listen: connections to its port are refused, and nobody else gets it."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One server for the whole file."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab("KeepAliveTimeout 20\nMaxKeepAliveRequests 0\nRequestReadTimeout body=5\n", names=("alice",)))
        tenant = lab.tenants["alice"]
        path = tenant.home / "back.sock"
        back, local = stack.enter_context(BackEnd()), stack.enter_context(BackEnd(path))
        os.chown(path, tenant.uid, tenant.uid)
        path.chmod(0o600)
        dead, held = stack.enter_context(quiet_port()), stack.enter_context(quiet_port())
        full = stack.enter_context(quiet_port())
        full.listen(0)
        stack.enter_context(socket.create_connection(full.getsockname()))  # its queue has room for one, which it is
        lab.has_vhosts = False
        lab.config_tail = lab.host_block(tenant, PASSES.format(
            to=f"127.0.0.1:{back.port}", port=back.port, socket=path, dead=dead.getsockname()[1], held=held.getsockname()[1], full=full.getsockname()[1], home=tenant.home,
            short=SHORT_S))
        lab.start(environment={"RES_OPTIONS": "timeout:1 attempts:1"})  # /name is looked up, wherever this runs
        yield Scene(lab, back, local, held.getsockname()[1])


def test_a_prefix_is_replaced_and_the_rest_appended(scene: Scene) -> None:
    """ProxyPass /a http://h/b: /a/x?y is /b/x?y there; a path is encoded as it must be."""
    for path, there in (("/a", "/b"), ("/a/", "/b/"), ("/a/x?y=1&z", "/b/x?y=1&z"), ("/a/%20%3f%25", "/b/%20%3f%25"), ("/a//x/../y", "/b/y"),
                        ("/slash/", "/b/"), ("/slash/x", "/b/x"), ("/match/q/r.x", "/m/q/r"), ("/whole/z", "/w/whole/z"),
                        ("/localhost/x", "/l/x"), ("/aliased/index.html", "/not-the-alias/index.html"), ("/a/moved", "/b/moved"),
                        ("/a?", "/b?")):
        found = scene.get(path)
        assert found.status == 200, path
        assert found.json()["line"].lower() == f"GET {there} HTTP/1.1".lower(), path


def test_what_is_not_passed_is_served_as_ever(scene: Scene) -> None:
    """An exclamation mark, other paths, and /ab for /a."""
    scene.lab.tenants["alice"].write("a/not/here", "a file")
    assert scene.get("/a/not/here").body == b"a file"
    assert scene.get("/ab").status == 404
    assert scene.get("/slash").status == 404
    assert scene.get("/").body == b"alice\n"


def test_sections_of_the_url_path_apply_and_those_of_directories_do_not(scene: Scene) -> None:
    """Location's access control and settings; <Directory /> denies everything, which is no matter for a back end."""
    before = len(scene.back.requests)
    assert scene.get("/a/denied/x").status == 403
    assert len(scene.back.requests) == before
    found = scene.get("/a/field")
    assert fields_of(found.json())["x-added"] == "yes"
    assert found.fields["x-out"] == "yes"
    assert scene.get("/a/limited", method="POST", body=b"0123456789").status == 200
    assert scene.get("/a/limited", method="POST", body=b"0123456789a").status == 413


def test_a_handler_leads_to_a_back_end_too(scene: Scene) -> None:
    """SetHandler proxy:http://...: behind its path comes the file's, as in httpd."""
    found = scene.get("/handled/x")
    assert found.json()["line"] == f"GET /h{scene.lab.tenants['alice'].docroot}/handled/x HTTP/1.1"


def test_a_socket_of_the_tenant(scene: Scene) -> None:
    """unix:/path|http://name/: the name is the Host field there."""
    found = scene.get("/local/x").json()
    assert found["line"] == "GET /u/x HTTP/1.1"
    assert fields_of(found)["host"] == "inner.test"
    assert len(scene.local.requests) >= 1


def test_fields_that_the_back_end_gets(scene: Scene) -> None:
    """Host, X-Forwarded-*; nothing hop-by-hop, and nothing that Connection takes away."""
    found = fields_of(scene.get("/a/x", "X-Mine: 1", "Connection: keep-alive, X-Gone", "X-Gone: 1", "Keep-Alive: 5", "TE: trailers", "Upgrade: h2c",
                                "Proxy: evil", "X-Forwarded-For: 192.0.2.9", "Expect: 100-continue").json())
    assert found["host"] == f"127.0.0.1:{scene.back.port}"
    assert found["x-forwarded-for"] == "192.0.2.9, 127.0.0.1"
    assert found["x-forwarded-host"] == "alice.test"
    assert found["x-forwarded-server"] == "alice.test"
    assert found["x-forwarded-proto"] == scene.lab.scheme
    assert found["x-mine"] == "1"
    assert ("x-gone" in found) == scene.lab.h2  # HTTP/2 has no Connection field that could take it away
    assert (found["te"], found["connection"]) == ("trailers", "TE")  # ours: the client takes trailers
    assert not {"keep-alive", "upgrade", "proxy", "expect", "transfer-encoding", "content-length"} & set(found)
    assert fields_of(scene.get("/a/keep").json())["host"] == "alice.test"


def test_bodies_are_framed_anew(scene: Scene) -> None:
    """With a length, chunked, large, none at all; the back end takes exactly what was sent."""
    body = os.urandom(300_000)
    digest = hashlib.sha256(body).hexdigest()
    scene.back.scripts["/b/sum"] = lambda request, peer: say(peer, f"{hashlib.sha256(request.body).hexdigest()} "
                                                                   f"{request.get('transfer-encoding')} {request.get('content-length')}")
    assert scene.get("/a/sum", method="POST", body=body).body.decode() == f"{digest} None 300000"
    chunks = b"".join(f"{len(part):x};ext=1\r\n".encode() + part + b"\r\n" for part in (body[:70_000], body[70_000:70_001], body[70_001:]))
    with client(scene.lab) as one:
        found = one.ask(get("alice.test", "/a/sum", "Transfer-Encoding: chunked", method="PUT") + chunks + b"0\r\nTrailer: x\r\n\r\n")
        assert found.body.decode() == f"{digest} chunked None"
        empty = hashlib.sha256().hexdigest()
        assert one.ask(get("alice.test", "/a/sum", "Transfer-Encoding: chunked", method="PUT") + b"0\r\n\r\n").body.startswith(empty.encode())
        assert one.ask(get("alice.test", "/a/sum", "Content-Length: 0", method="POST")).body.decode() == f"{empty} None 0"
        assert one.ask(get("alice.test", "/a/sum", method="GET")).body.decode() == f"{empty} None None"


def test_the_client_is_invited_to_send_its_body(scene: Scene) -> None:
    """Expect: 100-continue is answered here."""
    with client(scene.lab) as one:
        one.send(get("alice.test", "/a/x", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        first = one.read()
        assert first is not None
        assert first.status == 100
        assert one.ask(b"abc").json()["body"] == "abc"


def test_answers_are_framed_anew(scene: Scene) -> None:
    """Length, chunks with extensions and trailers, until the end, none; the client's connection goes on behind each."""
    cases = {
        "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-T: 1\r\n\r\n", b"abc"),
        "end": (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        "old": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        "none": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        "same": (b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 7\r\n\r\n', b""),
        "zero": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        "hints": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        "more": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"abc"),
    }
    with client(scene.lab) as one:
        for name, (raw, body) in cases.items():
            scene.back.scripts[f"/b/{name}"] = answer(raw)
            found = one.ask(get("alice.test", f"/a/{name}"))
            assert found.body == body, name
            assert found.status == int(raw.split(b"HTTP/1.")[-1][2:5]) if name != "more" else found.status == 200
        assert one.ask(get("alice.test", "/a/after")).json()["line"] == "GET /b/after HTTP/1.1"


def test_an_answer_keeps_its_date_and_server_and_loses_what_is_hop_by_hop(scene: Scene) -> None:
    """As httpd's: the back end's Date and Server go through."""
    scene.back.scripts["/b/fields"] = answer(
        "HTTP/1.1 299 Own Words\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: inner/1\r\nConnection: X-Gone, close\r\nX-Gone: 1\r\nKeep-Alive: 9\r\n"
        "Proxy-Authenticate: Basic\r\nTrailer: X\r\nX-Stays: 1\r\nX-Stays: 2\r\nContent-Length: 2\r\n\r\nok")
    found = scene.get("/a/fields")
    assert found.raw.startswith(b"HTTP/1.1 299 \r\n" if scene.lab.h2 else b"HTTP/1.1 299 Own Words\r\n")
    assert found.fields["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert [value for name, value in found.all_fields if name == "Server"] == ["inner/1"]
    assert [value for name, value in found.all_fields if name == "X-Stays"] == ["1", "2"]
    assert not {"x-gone", "keep-alive", "trailer", "connection"} & set(found.fields)


def test_head_has_the_length_and_no_body(scene: Scene) -> None:
    """And the connection to the back end is used again."""
    scene.back.scripts["/b/head"] = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", keep=True)
    with client(scene.lab) as one:
        found = one.ask(get("alice.test", "/a/head", method="HEAD"))
        assert found.fields["content-length"] == "1000"
        first = scene.back.requests[-1].number
        assert one.ask(get("alice.test", "/a/x")).json()["number"] == first


def test_locations_and_cookies_are_turned_outwards(scene: Scene) -> None:
    """ProxyPassReverse, its cookie paths and domains."""
    to = f"http://127.0.0.1:{scene.back.port}"
    scene.back.scripts["/b/move"] = answer(
        f"HTTP/1.1 302 Found\r\nLocation: {to}/b/next?x=1\r\nContent-Location: {to}/b/c\r\nURI: {to}/b/u\r\nContent-Length: 0\r\n"
        "Set-Cookie: a=1; Path=/b/x; Domain=inner.test\r\nSet-Cookie: b=2; Path=/other\r\n\r\n")
    found = scene.get("/a/move")
    own = f"{scene.lab.scheme}://alice.test"
    assert found.fields["location"].replace(f":{scene.lab.port}", "") == f"{own}/a/next?x=1"
    assert found.fields["content-location"].replace(f":{scene.lab.port}", "") == f"{own}/a/c"
    assert found.fields["uri"].replace(f":{scene.lab.port}", "") == f"{own}/a/u"
    cookies = [value for name, value in found.all_fields if name == "Set-Cookie"]
    assert cookies == ["a=1; Path=/a/x; Domain=alice.test", "b=2; Path=/other"]
    scene.back.scripts["/b/away"] = answer("HTTP/1.1 302 Found\r\nLocation: http://other.test/b\r\nContent-Length: 0\r\n\r\n")
    assert scene.get("/a/away").fields["location"] == "http://other.test/b"


def test_answers_that_break_the_rules_are_502(scene: Scene) -> None:
    """None of their text reaches the client."""
    broken = ["", "\r\n", "garbage\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n",
              "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n",
              "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + "a" * 70_000 + "\r\n\r\n",
              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"]
    for number, raw in enumerate(broken):
        scene.back.scripts[f"/b/broken{number}"] = answer(raw)
        found = scene.get(f"/a/broken{number}")
        assert found.status == 502, raw[:60]
        assert b"evil" not in found.raw
    assert "AH00898: Error reading from remote server returned by /a/broken1" in scene.lab.error_log()


def test_an_answer_that_ends_too_early_is_cut_for_the_client_too(scene: Scene) -> None:
    """A length or last chunk that never comes must not look like a whole answer."""
    scene.back.scripts["/b/short"] = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    with client(scene.lab) as one, pytest.raises(AssertionError, match="too early"):
        one.ask(get("alice.test", "/a/short"))
    scene.back.scripts["/b/chunk"] = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
    with client(scene.lab) as one, pytest.raises(AssertionError, match=r"ended within|too early"):
        one.ask(get("alice.test", "/a/chunk"))


def test_a_back_end_that_is_not_there_is_503(scene: Scene) -> None:
    """Refused connections, unknown names; with the default retry it is left alone for a minute."""
    assert scene.get("/dead/x").status == 503
    assert "AH01114: HTTP: failed to make connection to backend" in scene.lab.error_log()
    assert scene.get("/v6/x").status == 503
    assert scene.get("/name/x").status == 502
    assert "AH00898: DNS lookup failure for: no-such-name.invalid returned by /name/x" in scene.lab.error_log()
    assert scene.get("/held/x").status == 503
    with socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert scene.get("/held/x").status == 503
    assert "AH00940" in scene.lab.error_log()


def test_retry_0_tries_again_at_once(scene: Scene) -> None:
    """What was refused a moment ago is asked again."""
    before = scene.lab.error_log().count("AH00957")
    assert scene.get("/dead/x").status == 503
    assert scene.get("/dead/x").status == 503
    assert scene.lab.error_log().count("AH00957") == before + 2


def test_a_silent_back_end_is_504(scene: Scene) -> None:
    """timeout= of the pass."""
    over = threading.Event()
    scene.back.raw_scripts["/s/wait"] = lambda _request, _peer: not over.wait(60)
    try:
        assert scene.get("/short/wait").status == 504
        assert not over.is_set()
    finally:
        over.set()


def test_a_back_end_that_takes_no_connection_is_503(scene: Scene) -> None:
    """connectiontimeout= of the pass; meanwhile others are served."""
    with client(scene.lab) as one, client(scene.lab) as other:
        one.send(get("alice.test", "/full/x"))
        assert other.ask(get("alice.test", "/")).status == 200
        assert (found := one.read()) is not None
        assert found.status == 503
    assert "failed: The timeout specified has expired" in scene.lab.error_log()


def test_connections_are_kept_and_a_stale_one_does_no_harm(scene: Scene) -> None:
    """The same connection serves the next request; one that the back end ends meanwhile is replaced without a word."""
    with client(scene.lab) as one:
        first, begun = one.ask(get("alice.test", "/a/x")).json()["number"], time.monotonic()
        while time.monotonic() - begun < 1.5:  # once a second those that have been idle for too long are looked for
            assert one.ask(get("alice.test", "/a/x")).json()["number"] == first
        scene.back.scripts["/b/bye"] = lambda _request, peer: say(peer) and False
        assert one.ask(get("alice.test", "/a/bye")).status == 200
        assert one.ask(get("alice.test", "/a/x")).json()["number"] != first
        before = scene.back.accepted
        single = one.ask(get("alice.test", "/single/x")).json()
        assert fields_of(single)["connection"] == ("close, TE" if scene.lab.h2 else "close")
        assert single["number"] == before + 1
        assert one.ask(get("alice.test", "/single/x")).json()["number"] == before + 2


@pytest.mark.parametrize("head", ["Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"])
def test_a_connection_with_more_than_its_answer_is_not_used_again(scene: Scene, head: str) -> None:
    """Who knows whose answer that is: neither this client nor the next one hears it."""
    scene.back.scripts["/b/more"] = answer(f"HTTP/1.1 200 OK\r\n{head}HTTP/1.1 200 OK\r\nContent-Le", keep=True)
    with client(scene.lab) as one:
        first = one.ask(get("alice.test", "/a/x")).json()["number"]
        assert one.ask(get("alice.test", "/a/more")).body == b"ok"
        assert one.ask(get("alice.test", "/a/x")).json()["number"] != first


def test_a_kept_connection_that_ends_under_the_request_is_replaced(scene: Scene) -> None:
    """The back end reads a repeatable request on a kept connection and closes: it is sent once more, on a new one."""
    with client(scene.lab) as one:
        first = one.ask(get("alice.test", "/a/x")).json()["number"]
        scene.back.scripts["/b/flaky"] = lambda request, peer: request.number != first and echo(request, peer)
        found = one.ask(get("alice.test", "/a/flaky")).json()
        assert found["number"] != first
        scene.back.scripts["/b/never"] = lambda _request, _peer: False
        assert one.ask(get("alice.test", "/a/never")).status == 502
        assert one.ask(get("alice.test", "/a/never", "Content-Length: 2", method="POST") + b"ab").status == 502
        assert sum("/b/never" in request.line and request.line.startswith("POST") for request in scene.back.requests) == 1


def test_both_directions_flow_at_once(scene: Scene) -> None:
    """A back end that answers while it reads: neither waits for the other to end."""

    def mirror(request: Request, peer: Peer) -> bool:
        length = int(request.get("content-length") or 0)
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
        for _ in range(length // 1000):
            peer.send(peer.take(1000))
        return True

    scene.back.raw_scripts["/b/mirror"] = mirror
    with client(scene.lab) as one:
        one.send(get("alice.test", "/a/mirror", "Content-Length: 100000", method="POST") + b"x" * 50_000)
        while len(one.buffer) < 50_000:
            assert one.fill()
        one.send(b"y" * 50_000)
        found = one.read("POST")
        assert found is not None
        assert found.body == b"x" * 50_000 + b"y" * 50_000


def upgrade(path: str, *fields: str) -> bytes:
    """Return the bytes of a WebSocket handshake."""
    return get("alice.test", path, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==", *fields)


def mirror_frames(request: Request, peer: Peer) -> bool:
    """Switch protocols, then send back what comes until the client has ended; then say goodbye."""
    if (request.get("upgrade") or "").lower() != "websocket":
        return echo(request, peer)
    peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: z\r\n\r\nhello")
    while part := peer.buffer or peer.sock.recv(65536):
        peer.buffer = b""
        peer.send(part)
    peer.send(b"bye")
    return False


@pytest.mark.plain("its client ends its half, which Python's ssl cannot")
@pytest.mark.parametrize("path", ["/ws/x", "/up/x"])
def test_a_tunnel_carries_bytes_both_ways(scene: Scene, path: str) -> None:
    """Bytes that came along with the handshake, bytes of both sides in any order, more than any buffer, half-close, the log."""
    scene.back.raw_scripts["/ws/x"] = mirror_frames
    with client(scene.lab) as one:
        one.send(upgrade(path) + b"early")
        head = one.read()
        assert head is not None
        assert head.status == 101
        assert head.fields["upgrade"] == "websocket"
        assert head.fields["connection"] == "Upgrade"
        assert scene.lab.h2 or head.fields["sec-websocket-accept"] == "z"
        assert not {"content-length", "transfer-encoding"} & set(head.fields)
        big = os.urandom(2_000_000)
        sender = threading.Thread(target=lambda: (one.send(big), one.sock.shutdown(socket.SHUT_WR)))
        sender.start()
        while one.fill():
            pass
        sender.join()
        assert bytes(one.buffer) == b"helloearly" + big + b"bye"
    log = scene.lab.log / "access.log"
    wait_until(lambda: f'GET {path} {scene.lab.version}" 101 2000013' in log.read_text(), "the log line")


def test_a_tunnel_is_kept_while_bytes_come_and_not_by_time_for_a_body(scene: Scene) -> None:
    """RequestReadTimeout is not for tunnels; silence of the host's Timeout would be."""
    scene.back.raw_scripts["/ws/long"] = mirror_frames
    with client(scene.lab) as one:
        one.send(upgrade("/ws/long"))
        assert (head := one.read()) is not None
        assert head.status == 101
        begun = time.monotonic()
        while time.monotonic() - begun < 6.5:  # longer than RequestReadTimeout body=5
            del one.buffer[:]
            one.send(b"ping")
            while len(one.buffer) < 4:
                assert one.fill()
            threading.Event().wait(0.2)


@pytest.mark.http1("an Upgrade that is not taken; CONNECT is in test_h2.py")
def test_no_tunnel_where_none_is_allowed_or_asked_for(scene: Scene) -> None:
    """An Upgrade on a plain pass, or of another protocol, is left out; so is one with a body."""
    scene.back.raw_scripts["/ws/x"] = mirror_frames
    scene.back.raw_scripts["/b/ws"] = mirror_frames
    for path, raw in (("/a/ws", upgrade("/a/ws")), ("/up/x", get("alice.test", "/up/x", "Connection: Upgrade", "Upgrade: h2c")),
                      ("/up/x", get("alice.test", "/up/x", "Upgrade: websocket"))):
        with client(scene.lab) as one:
            found = one.ask(raw)
            assert found.status == 200, path
            assert "upgrade" not in fields_of(found.json())


@pytest.mark.http1("two framings of one body")
def test_what_a_client_smuggles_stays_in_its_request(scene: Scene) -> None:
    """What looks like a second request is a body, or refused before the back end hears of it."""
    before = len(scene.back.requests)
    inner = b"GET /b/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    raw = [get("alice.test", "/a/x", f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked", method="POST") + b"0\r\n\r\n" + inner,
           get("alice.test", "/a/x", "Transfer-Encoding : chunked", method="POST") + b"0\r\n\r\n" + inner,
           get("alice.test", "/a/x", "Transfer-Encoding: x, chunked", method="POST") + b"0\r\n\r\n" + inner,
           b"GET /a/x HTTP/1.1\nHost: alice.test\nX: y\n\rContent-Length: 3\n\n" + inner]
    for one_raw in raw:
        with client(scene.lab) as one:
            assert one.ask(one_raw).status >= 400
    with client(scene.lab) as one:
        assert one.ask(get("alice.test", "/a/x", f"Content-Length: {len(inner)}", method="POST") + inner).json()["body"].encode() == inner
    assert not any("smuggled" in request.line for request in scene.back.requests[before:])


def test_a_client_that_leaves_ends_the_request_there(scene: Scene) -> None:
    """The back end's connection is closed when nobody waits for its answer."""
    seen = threading.Event()

    def wait(_request: Request, peer: Peer) -> bool:
        if not peer.sock.recv(1):
            seen.set()
        return False

    scene.back.raw_scripts["/b/leave"] = wait
    with client(scene.lab) as one:
        one.send(get("alice.test", "/a/leave"))
        wait_until(lambda: any("/b/leave" in request.line for request in scene.back.requests), "the request")
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert seen.wait(30)


COMPARED = [
    get("alice.test", "/a/x"), get("alice.test", "/a/x?q=%20&r"), get("alice.test", "/a/%7e%40%3a%2b%20%c3%bc%22%3c%7c"), get("alice.test", "/a"),
    get("alice.test", "/a/!$&'()*+,;=:@-._~"), get("alice.test:8080", "/a/x"), get("alice.test", "/match/1/2.x"), get("alice.test", "/whole/z"),
    get("alice.test", "/a/x", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: h.test", "X-Forwarded-Server: s.test"),
    get("alice.test", "/a/x", "Connection: close, X-Gone", "X-Gone: 1"), get("alice.test", "/a/x", "Cookie: a=b", "Accept: */*", method="DELETE"),
    get("alice.test", "/a/x", "Content-Length: 4", method="PUT") + b"body", get("alice.test", "/a/x", "Content-Length: 0", method="POST"),
    get("alice.test", "/a/x", method="HEAD"), get("alice.test", "/slash/x"), get("alice.test", "/slash"), get("alice.test", "/a/keep"),
    get("alice.test", "/a/x", "Authorization: Basic eDp5", 'If-None-Match: "x"'), get("alice.test", "/a/move"),
    get("alice.test", "/a/fields"), get("alice.test", "/a/denied"), get("alice.test", "/dead/x"), get("alice.test", "/handled"),
    get("alice.test", "/a/chunks"), get("alice.test", "/a/none"), get("alice.test", "/a/same"), get("alice.test", "/a/end"),
    get("alice.test", "/aliased/x"), get("alice.test", "/a/moved"), get("alice.test", "/a/tea"),
]
OURS_ALONE = {"x-forwarded-proto", "connection"}  # httpd sends no X-Forwarded-Proto, and says Connection: close


@pytest.mark.http1("httpd's clients are HTTP/1.1's here, who do not take trailers unless they say so")
@pytest.mark.plain("URLs are compared with httpd's, which say http")
@pytest.mark.skipif(not HAS_APACHE or not (MODULES / "mod_proxy_http.so").exists(), reason="no Debian apache2")
def test_back_ends_and_clients_see_what_they_see_of_httpd(scene: Scene) -> None:
    """The same requests through Debian's apache2: what the back end gets and what the client gets, but for names of the servers."""
    back, lab = scene.back, scene.lab
    tenant = lab.tenants["alice"]
    to = f"127.0.0.1:{back.port}"
    back.scripts["/b/move"] = answer(f"HTTP/1.1 301 Moved Permanently\r\nLocation: http://{to}/b/y\r\nSet-Cookie: c=d; path=/b\r\nContent-Length: 0\r\n\r\n")
    back.scripts["/b/tea"] = answer("HTTP/1.1 418 I'm a teapot\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\ntea")
    back.scripts["/b/chunks"] = answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    back.scripts["/b/none"] = answer("HTTP/1.1 204 No Content\r\n\r\n")
    back.scripts["/b/same"] = answer('HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n')
    back.scripts["/b/end"] = answer("HTTP/1.1 200 OK\r\n\r\nabc")
    passes = "".join(line + "\n" for line in PASSES.splitlines() if not line.startswith(("ProxyPass /ws", "ProxyPass /up")))
    text = passes.format(to=to, port=back.port, socket=tenant.home / "back.sock", dead=free_port(), held=free_port(), full=free_port(), home=tenant.home, short=SHORT_S)
    loads = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in ("proxy", "proxy_http") if name not in HTTPD_MODULES)
    config = (f"{loads}<VirtualHost *:{{port}}>\nServerName alice.test\nDocumentRoot {tenant.docroot}\n{text}"
              f"<Directory {tenant.docroot}>\nRequire all granted\n</Directory>\n</VirtualHost>\n")
    with Httpd(lab.base / "httpd", tenant.uid, config) as httpd:
        for raw in COMPARED:
            ours, theirs = (view(back, one, raw) for one in (client(lab), Client(("127.0.0.1", httpd.port))))
            assert ours == theirs, raw


def view(back: BackEnd, connection: Client, raw: bytes) -> object:
    """Return what the back end got of a request on a new connection, and what the client got back."""
    before, port = len(back.requests), connection.sock.getpeername()[1]
    with connection as one:
        found = one.ask(raw)
    got = [(request.line, sorted((name.lower(), value) for name, value in request.fields if name.lower() not in OURS_ALONE), request.body)
           for request in back.requests[before:]]
    names = ("location", "set-cookie", "server", "content-type", "etag", "x-stays", "x-gone")
    is_own = not got or found.status in {502, 503}
    fields = {} if is_own else {name: value.replace(f":{port}", "") for name, value in found.fields.items() if name in names}
    if fields.get("server", "").startswith(("Apache", "perchild")):
        del fields["server"]
    is_echo = found.body.startswith(b'{"line"')
    return got, found.status, fields, b"" if is_own or is_echo else found.body
