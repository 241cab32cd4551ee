"""Applications as people write them, each with a framework's own habits, each as its tenant: Flask, Django, Node.

    alice  Flask by WSGIScriptAlias                         bob    Flask by AppServer and gunicorn
    carol  Django, made by startproject, under uvicorn: its admin, its static files, a WebSocket
    dave   Node's own http server on the descriptor that it is given: pages, streams, a WebSocket answered by hand
Each is used as a browser does, started anew while it is used, ended when idle and started again.
Runs as: root, which starts the server; the applications run as their tenant.  Source: RFC 6455; docs/programs.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.lab import PYTHON, Lab, Response, Tenant, tree_of, uid_of, wait_until
from tests.system.websocket import CLOSE, TEXT, frame, read_frame, shake_hands
from tests.system.wire import Client, client, get


def has(*modules: str) -> bool:
    """Whether the system's Python, which the applications run with, has these modules."""
    return subprocess.run([PYTHON, "-c", "import " + ", ".join(modules)], check=False, capture_output=True).returncode == 0


HAS_ALL = has("flask", "django", "gunicorn", "waitress", "uvicorn", "websockets") and shutil.which("node") is not None
MISSING = "needs python3-flask, python3-django, gunicorn, python3-waitress, python3-uvicorn, python3-websockets, nodejs: packaging/test gets them"

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(120),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"), pytest.mark.skipif(not HAS_ALL, reason=MISSING)]

IDLE_S = 5  # no test takes so long between two requests that it needs the same process for
PACE_S = 0.03  # between the pieces of a slow upload
PASSWORD = "only this site's"
ADDRESSES = {"alice": "127.0.0.1", "bob": "127.0.0.2", "carol": "127.0.0.3", "dave": "127.0.0.4"}  # a browser's name of each host

FLASK = '''
import os, secrets
from flask import Flask, flash, redirect, render_template_string, request, session, url_for

app = Flask(__name__)
app.secret_key = "only this application's"
BOOT = secrets.token_hex()
PAGE = """<!doctype html><title>Notes</title><h1>{{ session.get("name", "nobody") }}</h1>
{% for line in get_flashed_messages() %}<p class="said">{{ line }}</p>{% endfor %}
<form method="post" action="{{ url_for("sign") }}"><input name="name"><textarea name="text"></textarea></form>"""

@app.get("/")
def index():
    return render_template_string(PAGE)

@app.post("/sign")
def sign():
    session["name"] = request.form["name"]
    flash(request.form["text"])
    return redirect(url_for("index", _external=True))

@app.post("/upload")
def upload():
    file = request.files["file"]
    return {"name": file.filename, "text": request.form["text"], "bytes": len(file.read())}

@app.route("/who", methods=["GET", "POST"])
def who():
    return {"uid": os.getuid(), "boot": BOOT, "bytes": len(request.get_data())}
'''
DJANGO_SETTINGS = """
DEBUG = False
ALLOWED_HOSTS = ["{address}", "{host}"]
STATIC_ROOT = "{docroot}/static"
"""
DJANGO_URLS = """
import os, secrets
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt

BOOT = secrets.token_hex()

@csrf_exempt
def who(request):
    return JsonResponse({"uid": os.getuid(), "boot": BOOT, "bytes": len(request.body), "host": request.get_host(),
                         "address": request.META["REMOTE_ADDR"]})

urlpatterns.append(path("who", who))
"""
DJANGO_ASGI = """
django_application = application

async def application(scope, receive, send):
    if scope["type"] != "websocket":
        await django_application(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{os.getuid()} {scope['path']} {message['text']}"})
"""
DJANGO_MAKE = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
call_command("createsuperuser", interactive=False, username="carol", email="carol@example.org", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
"""
NODE = """
'use strict';
const crypto = require('node:crypto'), http = require('node:http');
const boot = crypto.randomUUID(), waiting = [];
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const pages = {
  '/': (request, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>Node</title>'),
  '/who': (request, response) => {
    const hash = crypto.createHash('sha256');
    let bytes = 0;
    request.on('data', (part) => { bytes += part.length; hash.update(part); });
    request.on('end', () => response.end(JSON.stringify(
      {uid: process.getuid(), boot, bytes, sha256: hash.digest('hex'), host: request.headers.host, framed: request.headers['transfer-encoding'] || ''})));
  },
  '/stream': (request, response) => { response.write('first\\n'); waiting.push(response); },
  '/go': (request, response) => { for (const one of waiting.splice(0)) one.end('second\\n'); response.end(); },
};
const server = http.createServer((request, response) => {
  const page = pages[request.url];
  if (page) page(request, response);
  else response.writeHead(404).end('there is no such page\\n');
});

function unmask(frame) { // of a small text: the only frame that is sent here
  const mask = frame.subarray(2, 6);
  return Buffer.from(frame.subarray(6, 6 + (frame[1] & 127)).map((byte, i) => byte ^ mask[i % 4]));
}

server.on('upgrade', (request, socket, head) => {
  const accept = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ${accept}\\r\\n\\r\\n`);
  let held = head;
  socket.on('error', () => socket.destroy());
  socket.on('data', (part) => {
    held = Buffer.concat([held, part]);
    while (held.length >= 6 && held.length >= 6 + (held[1] & 127)) {
      const data = unmask(held), opcode = held[0] & 15;
      const reply = opcode === 8 ? data : Buffer.concat([Buffer.from(`${process.getuid()} `), data]);
      held = held.subarray(6 + data.length);
      socket.write(Buffer.concat([Buffer.from([0x80 | opcode, reply.length]), reply]));
      if (opcode === 8) socket.end();
    }
  });
});
server.listen({fd: 3});
"""
HOSTS = {
    "alice": "WSGIScriptAlias / {home}/notes.wsgi\n",
    "bob": "AppServer gunicorn --worker-tmp-dir /dev/shm --workers 2 notes:app\n",
    "carol": "AppServer python3 -m uvicorn --fd {{fd}} --forwarded-allow-ips * notes.asgi:application\nAlias /static/ {docroot}/static/\n",
    "dave": "AppServer node server.js\n",
}


def put(tenant: Tenant, name: str, text: str) -> None:
    """Write a file of the tenant's home."""
    path = tenant.home / name
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, tenant.uid, tenant.uid)


def append(path: Path, text: str) -> None:
    """Write behind what is there."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def do_as(tenant: Tenant, *command: str, **variables: str) -> None:
    """Run a command as the tenant would, in its home."""
    subprocess.run(command, cwd=tenant.home, user=tenant.uid, group=tenant.uid, extra_groups=[], check=True, umask=0o077, timeout=60,
                   env={"PATH": "/usr/bin:/bin", "HOME": str(tenant.home), "LANG": "C.UTF-8", **variables})


def make_django(tenant: Tenant) -> None:
    """Make a project, its database, its first user, its static files."""
    do_as(tenant, PYTHON, "-m", "django", "startproject", "notes", ".")
    project = tenant.home / "notes"
    append(project / "settings.py", DJANGO_SETTINGS.format(address=ADDRESSES[tenant.name], host=tenant.host, docroot=tenant.docroot))
    append(project / "urls.py", DJANGO_URLS)
    append(project / "asgi.py", DJANGO_ASGI)
    do_as(tenant, PYTHON, "-c", DJANGO_MAKE, DJANGO_SETTINGS_MODULE="notes.settings", DJANGO_SUPERUSER_PASSWORD=PASSWORD)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One server with all of them; children and programs that nobody uses end soon."""
    with Lab(f"IdleTimeout {IDLE_S}\nRunnerIdle {IDLE_S}\n", names=tuple(HOSTS)) as one:
        alice, bob, carol, dave = one.tenants.values()
        for tenant in (alice, bob):
            put(tenant, "notes.py", FLASK)
        put(alice, "notes.wsgi", "from notes import app as application\n")
        make_django(carol)
        put(dave, "server.js", NODE)
        one.config += "".join(f"Listen {address}:{one.port}\n" for name, address in ADDRESSES.items() if name != "alice")
        one.has_vhosts = False
        one.config_tail = "".join(
            one.host_block(tenant, f"ServerAlias {ADDRESSES[name]}\n" + HOSTS[name].format(home=tenant.home, docroot=tenant.docroot))
            for name, tenant in one.tenants.items())
        yield one.start()


def browse(lab: Lab, name: str) -> Browser:
    """Return a browser for a tenant's site."""
    return Browser(f"http://{ADDRESSES[name]}:{lab.port}")


# ---------------------------------------------------------------- as a browser sees them


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_flask_keeps_a_session_and_takes_forms_and_files(lab: Lab, name: str) -> None:
    """A form leads back by a redirect that names the browser's host; a signed cookie is the session; uploads are whole."""
    browser = browse(lab, name)
    page = browser.open("/")
    assert "<h1>nobody</h1>" in page.text, lab.error_log()
    page = browser.send(page.form("name", "text"), name="Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}", text="a & b\r\nc")
    assert (page.status, page.url) == (200, browser.base + "/")
    assert "<h1>Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}</h1>" in page.text
    assert "a &amp; b\r\nc" in page.text
    assert [cookie.name for cookie in browser.cookies] == ["session"]
    assert 'class="said"' not in browser.open("/").text
    content = os.urandom(700_000)
    assert browser.upload("/upload", {"text": "x"}, "file", "a.bin", "application/octet-stream", content).json() == {
        "name": "a.bin", "text": "x", "bytes": len(content)}
    assert browser.open("/none").status == 404
    assert browser.open("/who").json()["uid"] == lab.tenants[name].uid


def test_djangos_admin_is_used_with_its_styles_and_its_tokens(lab: Lab) -> None:
    """Log in, add a group, find it; without the token it is 403. Static files are the server's own: Django has none of them here."""
    browser, docroot = browse(lab, "carol"), lab.tenants["carol"].docroot
    page = browser.open("/admin/")
    assert page.url == f"{browser.base}/admin/login/?next=/admin/", lab.error_log()
    form = page.form("username", "password")
    for part in page.parts:
        file = browser.open(part)
        assert (file.status, file.body) == (200, (docroot / part.removeprefix(f"{browser.base}/")).read_bytes()), part
    assert any(part.endswith(".css") for part in page.parts)
    assert browse(lab, "carol").send(form, username="carol", password=PASSWORD).status == 403  # the token without its cookie
    page = browser.send(form, username="carol", password=PASSWORD)
    assert page.url == f"{browser.base}/admin/", page.text
    assert {cookie.name for cookie in browser.cookies} == {"csrftoken", "sessionid"}
    form = browser.open("/admin/auth/group/add/").form("csrfmiddlewaretoken", "name")
    page = browser.send(form, name="<Readers>")
    assert page.url == f"{browser.base}/admin/auth/group/"
    assert "&lt;Readers&gt;" in page.text
    assert browser.open("/who").json().items() >= {
        "uid": lab.tenants["carol"].uid, "host": browser.base.removeprefix("http://"), "address": "127.0.0.1"}.items()


@pytest.mark.parametrize(("name", "echo"), [("carol", "{uid} /socket hello"), ("dave", "{uid} hello")])
def test_a_websocket_is_echoed(lab: Lab, name: str, echo: str) -> None:
    """Frames go through as they come, by uvicorn's implementation and by one written by hand; it ends as it should."""
    tenant = lab.tenants[name]
    with client(lab, timeout_s=30) as one:
        shake_hands(one, tenant.host, "/socket")
        for _ in range(3):
            one.send(frame(b"hello", TEXT) + frame(b"hello", TEXT))
            assert [read_frame(one) for _ in range(2)] == [(TEXT, echo.format(uid=tenant.uid).encode())] * 2
        one.send(frame(b"\x03\xe8", CLOSE))
        assert read_frame(one) == (CLOSE, b"\x03\xe8")
        assert one.reads_end()


def test_node_serves_pages_and_takes_bodies(lab: Lab) -> None:
    """On the descriptor that it was given; either framing of a body reaches it whole."""
    tenant = lab.tenants["dave"]
    page = browse(lab, "dave").open("/")
    assert (page.status, page.type, page.text) == (200, "text/html", "<!doctype html><title>Node</title>"), lab.error_log()
    body = os.urandom(300_000)
    expected = {"uid": tenant.uid, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "host": tenant.host}
    with client(lab, timeout_s=30) as one:
        found = one.ask(get(tenant.host, "/who", f"Content-Length: {len(body)}", method="POST") + body).json()
        assert found.items() >= {**expected, "framed": ""}.items()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:1], body[1:]))
        found = one.ask(get(tenant.host, "/who", "Transfer-Encoding: chunked", method="PUT") + chunks + b"0\r\n\r\n").json()
        assert found.items() >= {**expected, "framed": "chunked"}.items()
        assert one.ask(get(tenant.host, "/none")).status == 404


def test_node_streams_what_it_has(lab: Lab) -> None:
    """The first chunk is here before the second is made."""
    host = lab.tenants["dave"].host
    with client(lab, timeout_s=30) as one, client(lab, timeout_s=30) as other:
        one.send(get(host, "/stream"))
        while b"first\n" not in one.buffer:
            assert one.fill(), "the answer ended without its first chunk"
        assert b"second" not in one.buffer
        assert other.ask(get(host, "/go")).status == 200
        answer = one.read()
        assert answer is not None
        assert answer.fields["transfer-encoding"] == "chunked"
        assert answer.body == b"first\nsecond\n"


# ---------------------------------------------------------------- their lives


class User(threading.Thread):
    """Asks again and again until told to stop; `boots`: which starts of the application have answered; `failures`: all else."""

    def __init__(self, lab: Lab, host: str, *, keeps: bool, method: str = "GET") -> None:
        """keeps: all requests on one connection."""
        super().__init__()
        self._lab, self._host, self._keeps, self._method = lab, host, keeps, method
        self.boots: list[str] = []
        self.failures: list[str] = []
        self.wants_end = threading.Event()

    def run(self) -> None:
        """Ask until told to stop, or until something fails."""
        body = b"x" * 3000 if self._method == "POST" else b""
        raw = get(self._host, "/who", *([f"Content-Length: {len(body)}"] if body else []), method=self._method) + body
        with contextlib.ExitStack() as stack:
            one: Client | None = None
            while not self.wants_end.is_set() and not self.failures:
                one = one or stack.enter_context(client(self._lab, timeout_s=30))
                try:
                    one = one if self._look_at(one.ask(raw), len(body)) else None
                except (AssertionError, OSError) as error:
                    self.failures.append(repr(error))

    def _look_at(self, answer: Response, size: int) -> bool:
        """Note who answered; return whether the connection is used again."""
        assert answer.status == 200, answer.raw
        found = answer.json()
        assert found["bytes"] == size
        if found["boot"] not in self.boots:
            self.boots.append(found["boot"])
        return self._keeps and answer.fields.get("connection") != "close"


def touch_restart(_lab: Lab, tenant: Tenant) -> None:
    """As its owner does behind a change."""
    (tenant.home / "tmp").mkdir(exist_ok=True)
    (tenant.home / "tmp/restart.txt").touch()


def reload_with_a_change(lab: Lab, tenant: Tenant) -> None:
    """Another variable for the tenant's programs: its runner and its child are replaced."""
    lab.config_tail = lab.config_tail.replace(f"ServerName {tenant.host}\n", f"ServerName {tenant.host}\nSetEnv CHANGED_{time.monotonic_ns()} 1\n")
    answer = lab.reload()
    assert answer["ok"], answer


@pytest.mark.parametrize("how", [touch_restart, reload_with_a_change])
@pytest.mark.parametrize("name", list(HOSTS))
def test_starting_anew_fails_no_request(lab: Lab, name: str, how: Callable[[Lab, Tenant], None]) -> None:
    """While requests come, on a kept connection, on new ones, and with bodies: each is answered.

    uvicorn ends connections that it has accepted and not yet read, Node ends at once, and a POST is not asked twice: so neither may be told
    to end while anybody is connected.
    """
    tenant = lab.tenants[name]
    users = [User(lab, tenant.host, keeps=True), User(lab, tenant.host, keeps=False), User(lab, tenant.host, keeps=False, method="POST"),
             User(lab, tenant.host, keeps=True, method="POST")]
    for user in users:
        user.start()
    try:
        wait_until(lambda: all(user.boots or user.failures for user in users), "all are answered", 30)
        for _ in range(2):
            before = {boot for user in users for boot in user.boots}
            how(lab, tenant)
            wait_until(lambda seen=before: all(set(user.boots) - seen or user.failures for user in users), "the next one answers all", 30)
    finally:
        for user in users:
            user.wants_end.set()
        for user in users:
            user.join()
    assert [failure for user in users for failure in user.failures] == [], lab.error_log()[-3000:]


def find_accepted(lab: Lab, tenant: Tenant) -> set[str]:
    """Return the inodes of the connections that the tenant's application has accepted; others have none yet (/proc/net/unix)."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
    inside = f"{lab.run}/tenants/{tenant.uid}:"
    return {line[6] for line in lines if len(line) == 8 and line[7].startswith(inside) and line[5] == "03" and line[6] != "0"}


@pytest.mark.parametrize("name", list(HOSTS))
def test_an_upload_outlasts_starting_anew(lab: Lab, name: str) -> None:
    """What is half sent when tmp/restart.txt is touched is answered by the one that began with it; its successor follows."""
    tenant, size, pieces = lab.tenants[name], 1000, 12
    (tenant.home / "tmp").mkdir(exist_ok=True)
    touched = f"#{tenant.uid}: {'wsgi0' if name == 'alice' else 'app0'}: started anew, for a file was touched"
    before, count, had = lab.get(tenant.host, "/who", timeout_s=30).json()["boot"], lab.error_log().count(touched), find_accepted(lab, tenant)
    with client(lab, timeout_s=30) as one:
        one.send(get(tenant.host, "/who", f"Content-Length: {size * pieces}", method="POST") + bytes(size))
        wait_until(lambda: find_accepted(lab, tenant) - had, "it has begun")
        (tenant.home / "tmp/restart.txt").touch()
        wait_until(lambda: lab.error_log().count(touched) > count, "it was told to end")
        for _ in range(pieces - 1):
            time.sleep(PACE_S)
            one.send(bytes(size))
        found = one.ask(b"")
        assert found.status == 200, lab.error_log()[-3000:]
        assert found.json()["bytes"] == size * pieces
        assert found.json()["boot"] == before or name == "bob"  # gunicorn's workers each have a start of their own
    wait_until(lambda: lab.get(tenant.host, "/who", timeout_s=30).json()["boot"] != before, "the successor answers")


def test_what_nobody_uses_ends_and_the_next_request_starts_it(lab: Lab) -> None:
    """No process of the tenant's is left; then the same page is there, from another start, and nothing was logged as failed."""
    hosts = [(tenant.uid, tenant.host) for tenant in lab.tenants.values()]
    before = {host: lab.get(host, "/who", timeout_s=30).json() for _, host in hosts}
    size = len(lab.error_log())
    uids = {uid for uid, _ in hosts}
    wait_until(lambda: not uids & {uid_of(pid) for pid in tree_of(lab.pid)}, "all have ended", 60)
    for uid, host in hosts:
        found = lab.get(host, "/who", timeout_s=30)
        assert found.status == 200, lab.error_log()
        assert found.json()["uid"] == uid
        assert found.json()["boot"] != before[host]["boot"]
    assert "AH0" not in lab.error_log()[size:]
