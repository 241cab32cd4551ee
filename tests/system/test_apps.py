"""Application servers and WSGI applications behind a real server: started at the first request, spoken to over their socket.

Runs as: root, which starts the server; the applications run as their tenant.  Source: docs/protocol.md for WAKE; RFC 6455.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab import PYTHON, Lab, Tenant, tree_of, uid_of, wait_until
from tests.system.websocket import BINARY, CLOSE, TEXT, frame, read_frame, shake_hands
from tests.system.wire import client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]


def has(*modules: str) -> bool:
    """Whether the system's Python, which the applications run with, has these modules."""
    return subprocess.run([PYTHON, "-c", "import " + ", ".join(modules)], check=False, capture_output=True).returncode == 0


needs_gunicorn = pytest.mark.skipif(not has("gunicorn", "flask"), reason="apt-get install gunicorn python3-flask")
needs_uvicorn = pytest.mark.skipif(not has("uvicorn", "websockets"), reason="apt-get install python3-uvicorn python3-websockets")
needs_waitress = pytest.mark.skipif(not has("waitress"), reason="apt-get install python3-waitress")

FLASK = """
import os
from flask import Flask, Response, redirect, request

app = Flask(__name__)

@app.route("/flask/who")
def who():
    return {"uid": os.getuid(), "host": request.host, "for": request.headers["X-Forwarded-For"], "url": request.url}

@app.route("/flask/sum", methods=["POST", "PUT"])
def total():
    return {"bytes": len(request.get_data())}

@app.route("/flask/stream")
def stream():
    return Response(b"%06d" % i for i in range(20000))

@app.route("/flask/away")
def away():
    return redirect("/flask/who")
"""
ASGI = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()} if message.get("text") is not None else
                       {"type": "websocket.send", "bytes": message["bytes"][::-1]})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"%d %s " % (os.getuid(), scope["path"].encode()), "more_body": True})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})
"""
WSGI = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getuid()}|{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{environ['REMOTE_ADDR']}|{environ['HTTP_HOST']}".encode()]
"""
# Ends every other connection without a word, as a server does with what it has accepted when it is told to end; answers the rest.
SHY = """
import itertools, socket
listener = socket.socket(fileno=3)
for number in itertools.count():
    sock, _ = listener.accept()
    head = sock.recv(65536) if number % 2 else b""
    if head:
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n%d" % number)
    sock.close()
"""
HOST = """
ProxyPass /plain/not !
AppServer /flask/ /usr/bin/gunicorn --chdir {home} --worker-tmp-dir /dev/shm flaskapp:app
AppServer /asgi/ /usr/bin/python3 -m uvicorn --app-dir {home} --fd {{fd}} asgiapp:app
AppServer /shy/ /usr/bin/python3 {home}/shy.py
AppServer /broken/ /usr/bin/python3 -c raise(SystemExit(3))
WSGIScriptAlias /wsgi {home}/app.wsgi
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One server; its host has all kinds of applications."""
    with Lab("KeepAliveTimeout 20\n", names=("alice",)) as one:
        tenant = one.tenants["alice"]
        for name, text in (("flaskapp.py", FLASK), ("asgiapp.py", ASGI), ("app.wsgi", WSGI), ("shy.py", SHY)):
            put(tenant, name, text)
        one.has_vhosts, one.config_tail = False, one.host_block(tenant, HOST.format(home=tenant.home))
        yield one.start()


def put(tenant: Tenant, name: str, text: str) -> None:
    """Write a file of the tenant's home."""
    path = tenant.home / name
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, tenant.uid, tenant.uid)


@needs_gunicorn
def test_flask_behind_gunicorn(lab: Lab) -> None:
    """It runs as the tenant, sees the client's host, takes bodies of either framing, streams, redirects."""
    uid = lab.tenants["alice"].uid
    with client(lab, timeout_s=30) as one:
        found = one.ask(get("alice.test", "/flask/who?x=1"))
        assert found.status == 200, lab.error_log()
        assert found.json() == {"uid": uid, "host": "alice.test", "for": "127.0.0.1", "url": f"{lab.scheme}://alice.test/flask/who?x=1"}
        body = b"x" * 200_000
        assert one.ask(get("alice.test", "/flask/sum", f"Content-Length: {len(body)}", method="POST") + body).json() == {"bytes": len(body)}
        chunk = b"%x\r\n%s\r\n" % (len(body), body)
        assert one.ask(get("alice.test", "/flask/sum", "Transfer-Encoding: chunked", method="PUT") + chunk + b"0\r\n\r\n").json() == {
            "bytes": len(body)}
        assert one.ask(get("alice.test", "/flask/stream")).body == b"".join(b"%06d" % i for i in range(20000))
        moved = one.ask(get("alice.test", "/flask/away"))
        assert (moved.status, moved.fields["location"]) == (302, "/flask/who")
        assert one.ask(get("alice.test", "/flask/none")).status == 404
        assert one.ask(get("alice.test", "/")).body == b"alice\n"


@needs_waitress
def test_a_wsgi_application(lab: Lab) -> None:
    """WSGIScriptAlias: SCRIPT_NAME is its mount, and the client's address and host are the client's."""
    with client(lab, timeout_s=30) as one:
        found = one.ask(get("alice.test", "/wsgi/a%20b?q"))
        assert found.status == 200, lab.error_log()
        assert found.body.decode() == f"{lab.tenants['alice'].uid}|/wsgi|/a b|127.0.0.1|alice.test"
        assert one.ask(get("alice.test", "/wsgi")).body.decode().split("|")[1:3] == ["/wsgi", ""]


@needs_uvicorn
def test_an_asgi_application_and_its_websockets(lab: Lab) -> None:
    """HTTP and WebSocket through the same application; frames of both kinds, small and large, and the closing handshake."""
    with client(lab, timeout_s=30) as one:
        found = one.ask(get("alice.test", "/asgi/x", "Content-Length: 3", method="POST") + b"abc")
        assert found.body.decode() == f"{lab.tenants['alice'].uid} /asgi/x 3", lab.error_log()
        shake_hands(one, "alice.test", "/asgi/ws")
        for data in (b"hello", b"x" * 300, b"y" * 100_000):
            one.send(frame(data, TEXT))
            assert read_frame(one) == (TEXT, data.upper())
            one.send(frame(data, BINARY))
            assert read_frame(one) == (BINARY, data[::-1])
        one.send(frame(struct.pack(">H", 1000), CLOSE))
        assert read_frame(one)[0] == CLOSE
        assert one.reads_end()
    wait_until(lambda: f'"GET /asgi/ws {lab.version}" 101 ' in (lab.log / "access.log").read_text(), "the log line")


def test_an_application_that_does_not_start_is_503_and_says_why(lab: Lab) -> None:
    """What the runner says of it is in the error log; a file of the same name is not what the client gets."""
    with client(lab, timeout_s=30) as one:
        assert one.ask(get("alice.test", "/broken/x")).status in {502, 503}
        wait_until(lambda: one.ask(get("alice.test", "/broken/x")).status == 503, "it is known to be broken")
    wait_until(lambda: "AH01114: HTTP: failed to make connection to backend" in lab.error_log(), "the log line")


def test_a_connection_that_ends_without_a_word_is_tried_once_more_if_that_is_safe(lab: Lab) -> None:
    """GET is answered by the next connection; POST, which may have been done, is 502."""
    with client(lab, timeout_s=30) as one:
        assert [one.ask(get("alice.test", "/shy/x")).body for _ in range(2)] == [b"1", b"3"], lab.error_log()
        assert one.ask(get("alice.test", "/shy/x", "Content-Length: 1", method="POST") + b"x").status == 502
        assert one.ask(get("alice.test", "/shy/x", "Content-Length: 1", method="POST") + b"x").body == b"5"


@needs_gunicorn
def test_applications_run_as_the_tenant_and_end_with_the_server(lab: Lab) -> None:
    """No process of theirs has another uid."""
    with client(lab, timeout_s=30) as one:
        assert one.ask(get("alice.test", "/flask/who")).status == 200
    pids = [pid for pid in tree_of(lab.pid) if "gunicorn" in command_of(pid)]
    assert pids
    assert {uid_of(pid) for pid in pids} == {lab.tenants["alice"].uid}


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it has gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


@needs_waitress
def test_connections_that_a_child_only_keeps_keep_no_application_awake() -> None:
    """It ends soon behind RunnerIdle, though its tenant's child would keep the connection for a minute; a client that is served counts."""
    with Lab("KeepAliveTimeout 60\nRunnerIdle 2\nIdleTimeout 300\n", names=("alice",)) as one:
        tenant = one.tenants["alice"]
        put(tenant, "app.wsgi", WSGI)
        one.has_vhosts, one.config_tail = False, one.host_block(tenant, f"WSGIScriptAlias /wsgi {tenant.home}/app.wsgi\n")
        one.start()
        with client(one, timeout_s=30) as user:
            for _ in range(2):
                assert user.ask(get("alice.test", "/wsgi/x")).status == 200, one.error_log()
                assert find_connected(one)
                child = one.children(tenant.uid)
                wait_until(lambda: not one.runners(tenant.uid), "service and runner have ended")
                assert one.children(tenant.uid) == child
        assert "AH0" not in one.error_log().replace("AH00489", "")


def find_connected(lab: Lab) -> list[str]:
    """Return the lines of /proc/net/unix of connections to services of this server."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        return [line for line in file if f" {lab.run}/tenants/" in line and line.split()[5] == "03"]
