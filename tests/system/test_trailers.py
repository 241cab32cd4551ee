"""Trailers: what stands behind a back end's chunked body goes on to clients that take it, and nothing of it that belongs into a head.

The clients are frames and lines of the test's own, the h2 library, curl and nghttp from Debian; the back end is a thread with sockets.
Runs as: root, which starts the server.  Source: RFC 9110 6.5, 6.6.2, 10.1.4; RFC 9112 7.1.2; RFC 9113 8.1.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from perchild import limits
from tests.h2socket import H2Socket
from tests.lab import Lab, Response
from tests.system.backends import BackEnd, answer, fields_of
from tests.system.h2wire import H2Client
from tests.system.wire import Client, client, get
from tests.tls import client_context

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.timeout(120), pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

INTERNAL_ERROR = 2
MAX_FIELDS = next(limit.value for limit in limits.LIMITS if limit.name == "MAX_TRAILER_FIELDS")
MAX_BYTES = next(limit.value for limit in limits.LIMITS if limit.name == "MAX_TRAILER_BYTES")
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-Hop\r\nTrailer: X-Sum, X-Hop, Set-Cookie\r\n\r\n"
MIXED = b"X-Sum: 42\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\nServer-Timing: db;dur=2\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD = {
    "no-colon": b"X-Sum\r\n\r\n", "blank": b"X-Sum : 1\r\n\r\n", "folded": b"X-Sum: 1\r\n 2\r\n\r\n", "lf": b"X-Sum: 1\n\r\n", "nul": b"X-Sum: \0\r\n\r\n",
    "long": b"X-Sum: " + b"x" * MAX_BYTES + b"\r\n\r\n", "many": b"a:\r\n" * (MAX_FIELDS + 1) + b"\r\n", "pseudo": b":status: 500\r\n\r\n",
    "head": b"HTTP/1.1 200 OK\r\n\r\n",
}
PASSES = """
ProxyPass /a http://127.0.0.1:{port}/a
ProxyPass /single http://127.0.0.1:{port}/single disablereuse=On
ProxyPass /plain http://127.0.0.1:{port}/plain
<Location /plain>
RequestHeader set TE none
</Location>
"""


class Scene:
    """A server with one host whose passes lead to one back end, for clients of HTTP/1.1 and HTTP/2."""

    def __init__(self, back: BackEnd, *, tls: bool) -> None:
        """back: listening; tls: HTTP/2 by ALPN, else by prior knowledge."""
        self.back, self.lab = back, Lab(f"Protocols {'h2' if tls else 'h2c'} http/1.1\n", names=("alice",), tls=tls, h2=False)
        self.lab.has_vhosts = False
        self.lab.config_tail = self.lab.host_block(self.lab.tenants["alice"], PASSES.format(port=back.port))
        self.lab.start()

    def h2(self) -> H2Client:
        """Return a connection of frames."""
        if not self.lab.tls:
            return H2Client(self.lab.connect(60))
        return H2Client(self.lab.connect_tls("alice.test", context=client_context(alpn=("h2",)), timeout_s=60))

    def curl(self, *arguments: str) -> str:
        """Return all that curl has received: head, body, trailers. The last argument is the path."""
        return self._run("curl", "--silent", "--show-error", "--insecure", "--resolve", f"alice.test:{self.lab.port}:127.0.0.1", "--dump-header", "-",
                         *arguments[:-1], host="alice.test", path=arguments[-1])

    def nghttp(self, *arguments: str) -> str:
        """Return what nghttp says, by its options the frames, too."""
        return self._run("nghttp", "--no-dep", "--header=:authority: alice.test", *arguments[:-1], host="127.0.0.1", path=arguments[-1])

    def _run(self, *command: str, host: str, path: str) -> str:
        url = f"{'https' if self.lab.tls else 'http'}://{host}:{self.lab.port}{path}"
        return subprocess.run([*command, url], capture_output=True, check=True, timeout=60, text=True).stdout


@pytest.fixture(scope="module", params=["plain", "tls"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """One server for the whole file."""
    with BackEnd() as back, contextlib.closing((one := Scene(back, tls=request.param == "tls")).lab):
        yield one


def chunked(trailers: bytes, body: bytes = b"2\r\nab\r\n1\r\nc\r\n", head: bytes = HEAD) -> bytes:
    """Return an answer with these trailers."""
    return head + body + b"0\r\n" + trailers


def trailers_of(found: Response) -> bytes:
    """Return the trailer section of an answer of HTTP/1.1."""
    return found.raw.partition(b"\r\n0\r\n")[2]


def test_http1_clients_get_those_that_they_take(scene: Scene) -> None:
    """TE says so; all on one connection, and one to the back end."""
    scene.back.scripts["/a/t"] = answer(chunked(MIXED), keep=True)
    with client(scene.lab) as one:
        numbers = set()
        for te, section in (("TE: trailers", b"X-Sum: 42\r\nServer-Timing: db;dur=2\r\n\r\n"), ("TE: gzip", b"\r\n"), ("X-A: b", b"\r\n"),
                            ("TE: gzip;q=0.1, trailers", b"X-Sum: 42\r\nServer-Timing: db;dur=2\r\n\r\n")):
            found = one.ask(get("alice.test", "/a/t", te))
            assert (found.status, found.body, trailers_of(found)) == (200, b"abc", section), te
            assert found.fields.get("trailer") == ("X-Sum" if len(section) > 2 else None), te
            numbers.add(scene.back.requests[-1].number)
            assert scene.back.requests[-1].get("te") == ("trailers" if len(section) > 2 else None), te
            assert scene.back.requests[-1].get("connection") == ("TE" if len(section) > 2 else None), te
        assert len(numbers) == 1, "the connection to the back end is kept"


def test_http2_clients_get_them_as_the_end_of_the_stream(scene: Scene) -> None:
    """Whether there is a body or none, and many streams at a time."""
    scene.back.scripts["/a/t"] = answer(chunked(MIXED), keep=True)
    scene.back.scripts["/a/none"] = answer(chunked(MIXED, b""), keep=True)
    scene.back.scripts["/a/large"] = answer(chunked(MIXED, b"186a0\r\n" + b"x" * 100_000 + b"\r\n"), keep=True)
    with scene.h2() as one:
        asked = [(one.ask("alice.test", path), size) for path, size in (("/a/t", 3), ("/a/none", 0), ("/a/large", 100_000)) for _ in range(5)]
        for number, size in asked:
            found = one.finish(number)
            assert (found.status, len(found.body), found.ended, found.reset) == (200, size, True, None)
            assert found.trailers == {"x-sum": "42", "server-timing": "db;dur=2"}
            assert found.fields["trailer"] == "X-Sum"
        assert one.finish(one.ask("alice.test", "/index.html")).body == b"alice\n"


def test_the_h2_library_takes_them(scene: Scene) -> None:
    """A second opinion on the frames."""
    scene.back.scripts["/a/t"] = answer(chunked(MIXED), keep=True)
    sock = scene.lab.connect_tls("alice.test", context=client_context(alpn=("h2",))) if scene.lab.tls else scene.lab.connect()
    with Client(("127.0.0.1", scene.lab.port)) as one:
        one.sock.close()
        one.sock = H2Socket(sock)  # type: ignore[assignment]
        for _ in range(3):
            found = one.ask(get("alice.test", "/a/t"))
            assert (found.body, trailers_of(found)) == (b"abc", b"X-Sum: 42\r\nServer-Timing: db;dur=2\r\n\r\n")


def test_curl_and_nghttp_show_them(scene: Scene) -> None:
    """By both protocols."""
    scene.back.scripts["/a/t"] = answer(chunked(MIXED), keep=True)
    version = "--http2" if scene.lab.tls else "--http2-prior-knowledge"
    for arguments in ((version,), ("--http1.1", "--header", "TE: trailers")):
        behind = scene.curl(*arguments, "/a/t").lower().partition("abc")[2]
        assert "x-sum: 42\nserver-timing: db;dur=2\n" in behind
        assert "set-cookie" not in behind
    assert "x-sum" not in scene.curl("--http1.1", "/a/t").lower().partition("abc")[2]
    assert re.search(r"recv .*x-sum: 42$", scene.nghttp("--verbose", "/a/t"), re.MULTILINE)


def test_there_are_none_where_an_answer_has_no_body(scene: Scene) -> None:
    """HEAD, 204, 304, an answer with a length; a part of a whole that comes in chunks has some."""
    scene.back.scripts |= {
        "/a/head": answer(HEAD, keep=True), "/a/204": answer(b"HTTP/1.1 204 No Content\r\nTrailer: X-Sum\r\n\r\n", keep=True),
        "/a/304": answer(b"HTTP/1.1 304 Not Modified\r\nTrailer: X-Sum\r\n\r\n", keep=True),
        "/a/length": answer(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 3\r\n\r\nabc", keep=True),
        "/a/part": answer(chunked(b"X-Sum: 42\r\n\r\n", head=HEAD.replace(b"200 OK", b"206 Partial Content\r\nContent-Range: bytes 0-2/9")), keep=True),
    }
    rows = (("HEAD", "/a/head", 200, b""), ("GET", "/a/204", 204, b""), ("GET", "/a/304", 304, b""), ("GET", "/a/length", 200, b"abc"),
            ("GET", "/a/part", 206, b"abc"))
    before = len(scene.back.requests)
    with client(scene.lab) as one, scene.h2() as two:
        for method, path, status, body in rows:
            found = one.ask(get("alice.test", path, "TE: trailers", "Range: bytes=0-2", method=method))
            assert (found.status, found.body, "trailer" in found.fields) == (status, body, path == "/a/part"), path
            other = two.finish(two.ask("alice.test", path, method=method, more=(("range", "bytes=0-2"),)))
            assert (other.status, other.body, other.reset, "trailer" in other.fields) == (status, body, None, path == "/a/part"), path
            assert other.trailers == ({"x-sum": "42"} if path == "/a/part" else {}), path
    # Each connection to the back end is kept; the other client may ask before the last one is back, so there may be two.
    used = [one.number for one in scene.back.requests[before:]]
    assert (len(used), len(set(used)) <= 2) == (2 * len(rows), True), used


@pytest.mark.parametrize("name", BAD)
def test_bad_ones_cut_the_answer(scene: Scene, name: str) -> None:
    """The client sees that it is not whole, whether it takes trailers or not, and the connection to the back end is not used again."""
    scene.back.scripts["/a/bad"] = answer(chunked(BAD[name]), keep=True)
    for fields in ((), ("TE: trailers",)):
        with client(scene.lab) as one:
            one.send(get("alice.test", "/a/bad", *fields))
            while one.fill():
                pass
            assert b"c\r\n" in one.buffer
            assert b"\r\n0\r\n" not in one.buffer
    cut = scene.back.requests[-1].number
    with scene.h2() as two:
        found = two.finish(two.ask("alice.test", "/a/bad"))
        assert (found.status, found.body, found.ended, found.reset, found.trailers) == (200, b"abc", False, INTERNAL_ERROR, {})
        assert scene.back.requests[-1].number != cut
        cut = scene.back.requests[-1].number
        assert two.finish(two.ask("alice.test", "/a/echo")).status == 200
        assert scene.back.requests[-1].number != cut


def test_as_many_and_as_long_as_they_may_be(scene: Scene) -> None:
    """The limits themselves pass."""
    rows = {"/a/many": b"".join(b"X-%d: y\r\n" % i for i in range(MAX_FIELDS)) + b"\r\n", "/a/long": b"X-Sum: " + b"x" * (MAX_BYTES - 10) + b"\r\n\r\n"}
    for path, section in rows.items():
        scene.back.scripts[path] = answer(chunked(section), keep=True)
        with client(scene.lab) as one, scene.h2() as two:
            assert trailers_of(one.ask(get("alice.test", path, "TE: trailers"))) == section
            pairs = [line.decode().lower().split(": ") for line in section.split(b"\r\n")[:-2]]
            assert two.finish(two.ask("alice.test", path)).trailers == dict(pairs)


def test_a_back_end_that_goes_within_them_cuts_the_answer(scene: Scene) -> None:
    """What has come of them until then is no trailer."""
    scene.back.scripts["/a/half"] = answer(chunked(b"X-Sum: 42\r\nX-Other: "))
    with client(scene.lab) as one:
        one.send(get("alice.test", "/a/half", "TE: trailers"))
        while one.fill():
            pass
        assert b"c\r\n" in one.buffer
        assert b"X-Sum: 42" not in one.buffer
    with scene.h2() as two:
        found = two.finish(two.ask("alice.test", "/a/half"))
        assert (found.body, found.ended, found.reset, found.trailers) == (b"abc", False, INTERNAL_ERROR, {})


def test_requestheader_says_whether_they_are_asked_for(scene: Scene) -> None:
    """RequestHeader set TE none: nobody asks for them, and what comes all the same is left out; disablereuse closes as ever."""
    scene.back.scripts["/plain/t"] = answer(chunked(MIXED), keep=True)
    scene.back.scripts["/single/t"] = answer(chunked(MIXED), keep=True)
    with client(scene.lab) as one, scene.h2() as two:
        assert trailers_of(one.ask(get("alice.test", "/plain/t", "TE: trailers"))) == b"\r\n"
        assert two.finish(two.ask("alice.test", "/plain/t")).trailers == {}
        assert not {"te", "connection"} & set(fields_of(one.ask(get("alice.test", "/plain/echo", "TE: trailers")).json()))
        assert trailers_of(one.ask(get("alice.test", "/single/t", "TE: trailers"))) == b"X-Sum: 42\r\nServer-Timing: db;dur=2\r\n\r\n"
        assert scene.back.requests[-1].get("connection") == "close, TE"


def test_a_requests_own_end_here(scene: Scene) -> None:
    """They are checked, and none becomes a field or goes on; the next request on the connection is read where it begins."""
    upload = get("alice.test", "/a/echo", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n"
    with client(scene.lab) as one:
        found = one.ask(upload + b"Content-Length: 99\r\nTransfer-Encoding: x\r\nHost: bob.test\r\nX-Up: 1\r\n\r\n").json()
        assert (found["body"], fields_of(found).get("x-up"), fields_of(found)["host"]) == ("abc", None, f"127.0.0.1:{scene.back.port}")
        assert one.ask(get("alice.test", "/index.html")).body == b"alice\n"
        assert one.ask(upload + b"a:\r\n" * MAX_FIELDS + b"\r\n").status == 200
        assert one.ask(upload + b"a:\r\n" * (MAX_FIELDS + 1) + b"\r\n").status == 400
        assert one.reads_end()
    with scene.h2() as two:
        for fields, reset in (((("x-up", "1"),), None), (((":path", "/"),), 1), ((("connection", "close"),), 1), ((("x-up", "1"),) * MAX_FIELDS, None),
                              ((("x-up", "1"),) * (MAX_FIELDS + 1), INTERNAL_ERROR)):
            number = two.ask("alice.test", "/a/echo", method="POST", has_body=True)
            two.send(number, b"abc")
            two.send_trailers(number, *fields)
            other = two.finish(number)
            assert other.reset == reset, fields[0]
            if reset is None:
                assert b'"x-up"' not in other.body.lower(), fields[0]
                assert b'"abc"' in other.body
        assert two.finish(two.ask("alice.test", "/index.html")).body == b"alice\n"


def test_nghttp_sends_some(scene: Scene) -> None:
    """Its --trailer: the back end gets the body and nothing else."""
    upload = scene.lab.base / "upload"
    upload.write_text("abc")
    said = scene.nghttp(f"--data={upload}", "--trailer=x-up: 1", "/a/echo")
    assert '"abc"' in said
    assert "x-up" not in said.lower()
