"""Programs of every kind on streams of one HTTP/2 connection: a slow one holds up no other, and each ends when it is done.

A slow program says that it has begun by a file and waits for another: no clock decides.
Runs as: root, which starts the server; programs run as their tenant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fastcgi import Call, Responder
from tests.lab import Lab, Tenant, wait_until
from tests.php import PHP_FPM
from tests.system.h2wire import H2Client
from tests.system.test_apps import has
from tests.tls import client_context

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.timeout(120), pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"),
              pytest.mark.skipif(not PHP_FPM, reason="no php-fpm"), pytest.mark.skipif(not has("gunicorn", "waitress"), reason="gunicorn, python3-waitress")]

WSGI = """
import os, time

def application(environ, start_response):
    slow = environ["PATH_INFO"].endswith("slow")
    if slow:
        open("{home}/{kind}.begun", "w").close()
        while not os.path.exists("{home}/{kind}.go"):
            time.sleep(0.005)
        open("{home}/{kind}.done", "w").close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{kind} {{'slow' if slow else 'quick'}} {{os.getuid()}}".encode()]
"""
PHP = """<?php
$slow = $_SERVER['QUERY_STRING'] == 'slow';
if ($slow) {{
    touch('{home}/{kind}.begun');
    while (!file_exists('{home}/{kind}.go')) {{ usleep(5000); clearstatcache(); }}
    touch('{home}/{kind}.done');
}}
echo '{kind} ', $slow ? 'slow' : 'quick', ' ', posix_getuid();
"""
HOST = """
PHPPool on max_children=4
AppServer /app/ /usr/bin/gunicorn --chdir {home} --worker-tmp-dir /dev/shm --threads 4 app:application
WSGIScriptAlias /wsgi {home}/wsgi.wsgi
ProxyPass /fastcgi/ unix:{home}/fastcgi.sock|fcgi://localhost/
"""
PATHS = {"fastcgi": "/fastcgi/{}", "php": "/pool.php?{}", "wsgi": "/wsgi/{}", "app": "/app/{}"}


class Site:
    """One server; its host has a program of each kind."""

    def __init__(self, *, tls: bool) -> None:
        """tls: HTTP/2 by ALPN; else by prior knowledge."""
        self.lab = Lab(f"Protocols {'h2' if tls else 'h2c'} http/1.1\n", names=("alice",), tls=tls, h2=False)
        self.tenant = self.lab.tenants["alice"]
        home = self.tenant.home
        put(self.tenant, home / "app.py", WSGI.format(home=home, kind="app"))
        put(self.tenant, home / "wsgi.wsgi", WSGI.format(home=home, kind="wsgi"))
        self.tenant.write("pool.php", PHP.format(home=home, kind="php"))
        self.responder = Responder(home / "fastcgi.sock", self._answer, self.tenant.uid)
        self.lab.has_vhosts, self.lab.config_tail = False, self.lab.host_block(self.tenant, HOST.format(home=home))
        self.lab.start()

    def _answer(self, call: Call) -> None:
        slow = call.read_params()["REQUEST_URI"].endswith("slow")
        call.read_body()
        if slow:
            self.file("fastcgi", "begun").touch()
            wait_until(self.file("fastcgi", "go").exists, "it may go on", 60)
            self.file("fastcgi", "done").touch()
        call.out(f"Content-Type: text/plain\n\nfastcgi {'slow' if slow else 'quick'} {self.tenant.uid}")
        call.end()

    def file(self, kind: str, name: str) -> Path:
        """The file by which a slow program says something, or is told something."""
        return self.tenant.home / f"{kind}.{name}"

    def connect(self) -> H2Client:
        """Return a connection of frames."""
        if not self.lab.tls:
            return H2Client(self.lab.connect(60))
        return H2Client(self.lab.connect_tls("alice.test", context=client_context(alpn=("h2",)), timeout_s=60))

    def begin(self, one: H2Client, kind: str) -> int:
        """Ask for what takes its time; return its stream when the program is at it."""
        number = one.ask("alice.test", PATHS[kind].format("slow"))
        wait_until(self.file(kind, "begun").exists, f"{kind} has begun", 30)
        return number

    def said(self, kind: str, pace: str) -> bytes:
        """Return what that program says."""
        return f"{kind} {pace} {self.tenant.uid}".encode()

    def forget(self) -> None:
        """Remove what slow programs have said and were told."""
        for kind in PATHS:
            for name in ("begun", "go", "done"):
                self.file(kind, name).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop all of it."""
        self.responder.close()
        self.lab.close()


def put(tenant: Tenant, path: Path, text: str) -> None:
    """Write a file of the tenant's."""
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, tenant.uid, tenant.uid)


@pytest.fixture(scope="module", params=[False, True], ids=["h2c", "h2"])
def running(request: pytest.FixtureRequest) -> Iterator[Site]:
    """One server for each way to HTTP/2; each program has answered once."""
    one = Site(tls=request.param)
    with one.connect() as conn:
        for kind, path in PATHS.items():
            assert conn.finish(conn.ask("alice.test", path.format("quick"))).body == one.said(kind, "quick"), one.lab.error_log()
    yield one
    one.close()


@pytest.fixture
def site(running: Site) -> Site:
    """Return the server, with nothing begun."""
    running.forget()
    return running


@pytest.mark.parametrize("kind", PATHS)
def test_a_slow_program_holds_up_no_other_stream(site: Site, kind: str) -> None:
    """Its own kind, the others, a file and Python answer meanwhile on the same connection, several at a time."""
    with site.connect() as one:
        slow = site.begin(one, kind)
        quick = {one.ask("alice.test", path.format("quick")): site.said(name, "quick") for name, path in PATHS.items() for _ in range(3)}
        file, python = one.ask("alice.test", "/"), one.ask("alice.test", "/whoami")
        assert {number: one.finish(number).body for number in quick} == quick
        assert one.finish(file).body == b"alice\n"
        assert one.finish(python).status == 200
        assert not one.answers[slow].fields
        site.file(kind, "go").touch()
        answer = one.finish(slow)
        assert (answer.status, answer.body) == (200, site.said(kind, "slow"))
        assert one.goaway is None


def test_slow_programs_of_all_kinds_end_one_by_one(site: Site) -> None:
    """All wait at once; each that may go on is answered, while those behind it still wait."""
    with site.connect() as one:
        streams = {kind: site.begin(one, kind) for kind in PATHS}
        waiting = list(reversed(PATHS))
        while waiting:
            assert one.finish(one.ask("alice.test", "/")).body == b"alice\n"
            assert not any(one.answers[streams[kind]].fields for kind in waiting)
            kind = waiting.pop(0)
            site.file(kind, "go").touch()
            assert one.finish(streams[kind]).body == site.said(kind, "slow")


@pytest.mark.parametrize("kind", PATHS)
def test_a_stream_that_is_reset_disturbs_no_other(site: Site, kind: str) -> None:
    """Its client has lost interest in a slow program; the connection and the program's other requests go on."""
    with site.connect() as one:
        slow = site.begin(one, kind)
        one.reset(slow)
        numbers = [one.ask("alice.test", path.format("quick")) for path in PATHS.values()]
        assert [one.finish(number).status for number in numbers] == [200] * len(PATHS)
        site.file(kind, "go").touch()
        assert one.finish(one.ask("alice.test", PATHS[kind].format("quick"))).body == site.said(kind, "quick")
        wait_until(site.file(kind, "done").exists, "nobody waits any more")
