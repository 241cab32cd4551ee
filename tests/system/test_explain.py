"""perchildctl explain: what it says of a URL is what the server answers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import PYTHON, ROOT, Lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
CONFIG = """<Directory />
Options None
</Directory>
<FilesMatch "^\\.ht">
Require all denied
</FilesMatch>
"""
HOST = """ServerAlias *.wild.test
Alias /aliased/ {root}/real/
ScriptAlias /cgi-bin/ {root}/cgi-bin/
Redirect permanent /moved http://elsewhere.test/there
Redirect permanent /back http://elsewhere.test/never
Redirect permanent /.well-known http://elsewhere.test/never
<Location /inner>
Redirect 303 http://elsewhere.test/inner
</Location>
RedirectMatch 410 ^/gone/
ProxyPass /back/ http://127.0.0.1:1/
<Directory {root}/listed>
Options +Indexes
</Directory>
<Location /closed>
Require all denied
</Location>
<Location /mine>
Require ip 127.0.0.1
</Location>
<Files "*.txt">
Header set X-Text yes
ForceType text/x-mine
</Files>
"""
# Path -> status that the server answers with, and a word of the handler that explain names.
PATHS = {
    "/": (200, "file"), "/index.html": (200, "file"), "/nothing": (404, ""), "/real/x.txt": (200, "file"), "/aliased/x.txt": (200, "file"),
    "/moved/on": (301, ""), "/gone/x": (410, ""), "/listed": (301, ""), "/listed/": (200, "listing"), "/unlisted/": (403, ""),
    "/closed/": (403, ""), "/mine/x.txt": (200, "file"), "/.htsecret": (403, ""), "/secret.html": (403, "file"), "/cgi-bin/who": (200, "CGI"),
    "/.well-known/acme-challenge/token": (200, "challenge"), "/.well-known/acme-challenge/other": (301, ""), "/inner/x": (303, ""),
    "/back/x": (503, "http://127.0.0.1:1/"), "/whoami": (200, "whoami"), "/a/../real/./x.txt": (200, "file"),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(CONFIG, names=("alice", "bob"), tls=False) as one:
        alice = one.tenants["alice"]
        for name in ("real/x.txt", "listed/a.txt", "unlisted/a.txt", "mine/x.txt", ".htsecret", ".well-known/acme-challenge/token"):
            alice.write(name, "text")
        alice.write("cgi-bin/who", "#!/bin/sh\necho 'Content-Type: text/plain'\necho\nid -u\n", 0o700)
        alice.write("secret.html", "root's").chmod(0o600)
        os.chown(alice.docroot / "secret.html", 0, 0)
        one.has_vhosts = False
        one.config_tail = one.host_block(alice, HOST.format(root=alice.docroot)) + one.host_block(one.tenants["bob"])
        yield one.start()


def explain(lab: Lab, url: str, *arguments: str) -> dict[str, Any]:
    said = subprocess.run([PYTHON, "-m", "perchild.control", "explain", "--json", "-f", str(lab.config_path), url, *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


@pytest.mark.parametrize("path", PATHS)
def test_explanation_is_the_servers_answer(lab: Lab, path: str) -> None:
    """Status and handler; the host's name and its user."""
    status, handler = PATHS[path]
    assert lab.get("alice.test", path).status == status
    said = explain(lab, f"http://alice.test:{lab.port}{path}")
    assert said["status"].startswith(str(status)) or (handler in {"CGI", "whoami", "http://127.0.0.1:1/"} and "what" in said["status"]), said["status"]
    assert handler in said["handler"]["name"]
    assert said["host"]["name"] == "alice.test"
    assert said["identity"]["uid"] == lab.tenants["alice"].uid


def decided(said: dict[str, Any], *keys: str) -> str:
    for key in keys:
        said = said[key]
    return said["text"]


def test_each_decision_has_its_line(lab: Lab) -> None:
    """File and line are those of the directive in the configuration."""
    said = explain(lab, f"http://alice.test:{lab.port}/real/x.txt")
    lines = lab.config_path.read_text().splitlines()
    found = [said["host"]["decided"], said["identity"]["decided"], said["place"]["decided"], *said["access"]["decided"], *said["headers"],
             *said["lines"], *({**one, "text": one["title"]} for one in said["sections"])]
    assert len(found) > 8
    for one in found:
        assert one["file"] == str(lab.config_path)
        assert lines[one["line"] - 1].split()[0].strip("<>") == one["text"].split()[0].strip("<>")
    assert decided(said, "identity", "decided").startswith("AssignUserID #")
    assert decided(said, "place", "decided").startswith("DocumentRoot ")
    assert [one["text"] for one in said["headers"]] == ["Header set X-Text yes"]
    assert said["media_type"]["type"] == "text/x-mine"
    assert lab.get("alice.test", "/real/x.txt").fields["content-type"].startswith("text/x-mine")
    assert said["address"]["listen"].startswith(f"{lab.config_path}:")


@pytest.mark.parametrize(("name", "host", "how"), [
    ("alice.test", "alice.test", "it has this name"), ("ALICE.test.", "alice.test", "it has this name"),
    ("any.wild.test", "alice.test", "a pattern of its names fits"), ("bob.test", "bob.test", "it has this name"),
    ("nobody.test", "alice.test", "the first of the address answers"), ("127.0.0.1", "alice.test", "the first of the address answers"),
])
def test_host_is_the_one_that_answers(lab: Lab, name: str, host: str, how: str) -> None:
    """By name, by pattern, by default, as the router does."""
    body = lab.get(name.lower().rstrip(".")).body
    said = explain(lab, f"http://{name}:{lab.port}/")
    assert said["host"]["name"] == host
    assert how in said["host"]["how"]
    assert body == f"{host.removesuffix('.test')}\n".encode()


def test_what_cannot_be_explained_is_said(lab: Lab) -> None:
    """No URL, a port that nobody listens on, a configuration that is broken as a whole."""
    for url in ("alice.test", "ftp://alice.test/", "http://alice.test:99999/"):
        said = subprocess.run([PYTHON, "-m", "perchild.control", "explain", "-f", str(lab.config_path), url], cwd=ROOT,
                              capture_output=True, text=True, timeout=60, check=False)
        assert said.returncode == 1
        assert "perchildctl: " in said.stderr
    assert explain(lab, "http://alice.test:1/")["status"] == "no answer: nobody listens there"


def test_plain_address_is_not_asked_by_https(lab: Lab) -> None:
    """TLS and plain HTTP are an address's, not a client's choice."""
    assert explain(lab, f"https://alice.test:{lab.port}/")["status"] == "no answer: this address speaks plain HTTP: ask http://"


def test_tenants_link_leads_root_nowhere(lab: Lab) -> None:
    """What the tenant cannot see is not seen for him."""
    link = lab.tenants["alice"].docroot / "shadow"
    link.symlink_to("/root")
    said = explain(lab, f"http://alice.test:{lab.port}/shadow/x")
    assert said["seen"]["kind"] == ""
    assert said["seen"]["error"] == "Permission denied"
    link.unlink()


def test_text_is_for_people(lab: Lab) -> None:
    """One row for each question."""
    said = subprocess.run([PYTHON, "-m", "perchild.control", "explain", "-f", str(lab.config_path), f"http://alice.test:{lab.port}/"], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)
    assert [line.split()[0] for line in said.stdout.splitlines() if line[0] != " "] == [
        "answer", "address", "host", "identity", "place", "file", "handler", "access", "headers", "sections", "lines"]
