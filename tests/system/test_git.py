"""git through CGI: gitweb as a person reads it, and git's own client, which fetches and pushes through git-http-backend.

Both programs are executed as Debian has them, root's in root's directory, and as a copy in the tenant's cgi-bin: a program belongs to
whom its directory belongs to. The repository is its tenant's alone (0700).
Runs as: root, which starts the server; the programs run as the tenant.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import re
import shutil
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.lab import Lab, Tenant, wait_until

GITWEB = Path("/usr/share/gitweb")
BACKEND = Path("/usr/lib/git-core/git-http-backend")
HAS_GIT = GITWEB.exists() and BACKEND.exists() and Path("/usr/share/perl5/CGI.pm").exists()
pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.timeout(120), pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"),
              pytest.mark.skipif(not HAS_GIT, reason="needs git, libcgi-pm-perl: packaging/test gets them")]

MEGABYTE = 1 << 20
HOST = """
ServerAlias {address}
SetEnv GITWEB_CONFIG {home}/gitweb.conf
SetEnv GIT_PROJECT_ROOT {home}/git
SetEnv GIT_HTTP_EXPORT_ALL 1
Alias /gitweb /usr/share/gitweb
<Directory /usr/share/gitweb>
Options +FollowSymLinks +ExecCGI
AddHandler cgi-script .cgi
DirectoryIndex index.cgi
Require all granted
</Directory>
ScriptAlias /own/ {home}/cgi-bin/
<Directory {home}/cgi-bin>
Require all granted
</Directory>
ScriptAlias /git/ /usr/lib/git-core/git-http-backend/
<Directory /usr/lib/git-core>
Require all granted
</Directory>
"""
GITWEB_CONFIG = """
our $projectroot = "{home}/git";
our $site_name = "git of {name}";
our @stylesheets = ("/gitweb/static/gitweb.css");
our $logo = "/gitweb/static/git-logo.png";
our $favicon = "/gitweb/static/git-favicon.png";
our $javascript = "/gitweb/static/gitweb.js";
$feature{{'pathinfo'}}{{'default'}} = [1];
$feature{{'snapshot'}}{{'default'}} = ['tgz'];
"""
PATHS = ("/gitweb/gitweb.cgi", "/own/gitweb.cgi")
PAGES = 40  # of gitweb, that are looked at
BLOB = random.Random(1).randbytes(300000)
# Each commit is a second later than the one before: what of its own git names first when it fetches goes by these times.
DATES = itertools.count(1_700_000_000)


def git(tenant: Tenant, *arguments: str, directory: Path | None = None, traced: bool = False) -> str:
    """Run git as a tenant, with nobody's configuration; return what it says, and with traced the fields that it sends."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tenant.home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    environment |= dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"@{next(DATES)} +0000")
    if traced:
        environment |= {"GIT_TRACE_CURL": "1", "GIT_TRACE_CURL_NO_DATA": "1"}
    identity = ("-c", "user.name=Älice", "-c", f"user.email={tenant.name}@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=directory or tenant.home, user=tenant.uid, group=tenant.uid, extra_groups=[],
                          env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout + done.stderr


def put_repository(tenant: Tenant) -> None:
    """Give a tenant work.git with two commits, a tag, a file that is not text, and both programs' configuration."""
    work, bare = tenant.home / "work", tenant.home / "git/work.git"
    git(tenant, "init", "-q", str(work))
    (work / "bin").mkdir()
    for name, data in (("README", b"A first line.\n<script>alert('\xc3\xa4')</script>\n"), ("bin/blob", BLOB), ("a b+c&d.txt", b"odd name\n")):
        (work / name).write_bytes(data)
    os.chown(work / "bin", tenant.uid, tenant.uid)
    git(tenant, "add", ".", directory=work)
    git(tenant, "commit", "-q", "-m", "First \N{SNOWMAN}", directory=work)
    (work / "README").write_bytes(b"A second line.\n")
    git(tenant, "commit", "-q", "-a", "-m", "Second", directory=work)
    git(tenant, "tag", "v1", directory=work)
    git(tenant, "clone", "-q", "--bare", str(work), str(bare))
    git(tenant, "config", "http.receivepack", "true", directory=bare)
    (bare / "description").write_text(f"what {tenant.name} does\n")
    (tenant.home / "git").chmod(0o700)
    programs = tenant.home / "cgi-bin"
    programs.mkdir()
    shutil.copy(GITWEB / "gitweb.cgi", programs)
    (tenant.home / "gitweb.conf").write_text(GITWEB_CONFIG.format(home=tenant.home, name=tenant.name))
    for path in (programs, programs / "gitweb.cgi", tenant.home / "gitweb.conf"):
        os.chown(path, tenant.uid, tenant.uid)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Alice at 127.0.0.1, bob at 127.0.0.2's name."""
    with Lab("LogLevel info\n", names=("alice", "bob")) as one:
        for tenant in one.tenants.values():
            put_repository(tenant)
        hosts = zip(one.tenants.values(), ("127.0.0.1", "127.0.0.2"), strict=True)
        one.has_vhosts, one.config_tail = False, "".join(
            one.host_block(tenant, HOST.format(home=tenant.home, address=address)) for tenant, address in hosts)
        yield one.start()
        one.stop()


@pytest.fixture
def alice(lab: Lab) -> Tenant:
    """Whose repository is read."""
    return lab.tenants["alice"]


@pytest.fixture
def reader(lab: Lab) -> Browser:
    """Somebody's browser at alice's host."""
    return Browser(f"http://127.0.0.1:{lab.port}")


# ---------------------------------------------------------------- gitweb


@pytest.mark.parametrize("path", PATHS)
def test_every_page_that_gitweb_links_to_is_there(reader: Browser, path: str) -> None:
    """From the list of repositories on: logs, commits, differences, trees, files, feeds, archives; each whole, with its type."""
    seen, left, kinds = set[str](), [f"{reader.base}{path}"], set[str]()
    while left and len(seen) < PAGES:
        address = left.pop(0)
        page = reader.open(address)
        seen.add(address)
        kinds.add(page.type)
        assert page.status == 200, f"{address}: {page.status} {page.text}"
        assert page.body, address
        if page.type == "text/html":
            assert page.text.endswith("</html>"), f"{address}: {page.text[-200:]}"
            found = (link.partition("#")[0] for link in page.links)
            left += [link for link in dict.fromkeys(found) if link.startswith(f"{reader.base}{path}") and link not in {*seen, *left}]
    assert len(seen) == PAGES
    assert {"text/html", "application/x-gzip", "application/rss+xml", "application/atom+xml"} <= kinds


def test_pages_are_of_the_tenants_repository(lab: Lab, reader: Browser, alice: Tenant) -> None:
    """Each tenant's own are listed, by each tenant's own configuration; nobody reads another's."""
    for address, name in (("127.0.0.1", "alice"), ("127.0.0.2", "bob")):
        answer = lab.get(address, "/gitweb/gitweb.cgi")
        assert f"<title>git of {name}</title>".encode() in answer.body
        assert f"what {name} does".encode() in answer.body
    page = reader.open("/own/gitweb.cgi/work.git")
    assert "<title>git of alice - work.git/summary</title>" in page.text
    assert "First \N{SNOWMAN}" in page.text
    assert "Älice" in page.text
    config = alice.home / "gitweb.conf"
    text = config.read_text()
    config.write_text(text.replace(f"{alice.home}/git", f"{lab.tenants['bob'].home}/git"))
    try:
        assert (reader.open("/own/gitweb.cgi/work.git").status, "bob does" in reader.open("/own/gitweb.cgi").text) == (404, False)
    finally:
        config.write_text(text)


def test_files_come_as_they_are(reader: Browser, alice: Tenant) -> None:
    """Bytes that are no text, names with odd characters, an archive that unpacks; the script in a file is shown and not run."""
    blob = reader.open("/own/gitweb.cgi/work.git/blob_plain/HEAD:/bin/blob")
    assert (blob.type, hashlib.sha256(blob.body).digest()) == ("application/octet-stream", hashlib.sha256(BLOB).digest())
    odd = reader.open("/own/gitweb.cgi/work.git/blob_plain/HEAD:/" + urllib.parse.quote("a b+c&d.txt"))
    assert (odd.status, odd.type, odd.body) == (200, "text/plain", b"odd name\n")
    assert any("a b+c&d.txt" in urllib.parse.unquote(link) for link in reader.open("/own/gitweb.cgi?p=work.git;a=tree").links)
    archive = reader.open("/gitweb/gitweb.cgi/work.git/snapshot/v1.tar.gz")
    assert re.fullmatch(r'inline; filename="work-v1-[0-9a-f]{7}\.tar\.gz"', archive.headers["Content-Disposition"])
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
        member = tar.extractfile(f"{tar.getnames()[0]}/bin/blob")
        assert member and member.read() == BLOB
    first = git(alice, "rev-parse", "v1~", directory=alice.home / "work").strip()
    shown = reader.open(f"/own/gitweb.cgi?p=work.git;a=blob;hb={first};f=README").text
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown


def test_what_is_not_there_is_gitwebs_own_404(lab: Lab, reader: Browser) -> None:
    """Its status and its page; HEAD has no body; what is only ours to say is ours."""
    for path in ("/own/gitweb.cgi?p=none.git;a=summary", "/own/gitweb.cgi?p=../../bob/git/work.git", "/own/gitweb.cgi/work.git/commit/" + "0" * 40):
        page = reader.open(path)
        assert (page.status, page.type, "error_page" in page.text or "generator" in page.text) == (404, "text/html", True), path
    assert reader.open("/own/none.cgi").status == 404
    head = lab.get("127.0.0.1", "/own/gitweb.cgi/work.git", method="HEAD")
    assert (head.status, head.fields["content-type"], head.body) == (200, "text/html; charset=utf-8", b"")


def test_its_styles_and_pictures_are_files_beside_it(reader: Browser) -> None:
    """Next to a program in one directory: /usr/share/gitweb/static."""
    parts = reader.open("/own/gitweb.cgi").parts
    assert {part.rpartition("/")[2] for part in parts} >= {"gitweb.css", "git-logo.png"}
    kinds = {"css": "text/css", "png": "image/png", "js": "text/javascript"}
    for part in parts:
        got = reader.open(part)
        assert (got.status, got.type) == (200, kinds[part.rpartition(".")[2]]), part
        assert got.body == (GITWEB / "static" / part.rpartition("/")[2]).read_bytes()


def test_a_program_that_is_a_link_is_refused_by_name(lab: Lab, reader: Browser) -> None:
    """Debian's index.cgi is a symbolic link, which suEXEC does not execute either; the log says so."""
    assert reader.open("/gitweb/").status == 500
    wait_until(lambda: "/usr/share/gitweb/index.cgi is not executed: it is a symbolic link" in lab.error_log(), "the log says so")


# ---------------------------------------------------------------- git's own client


def test_git_clones_and_pushes(lab: Lab, alice: Tenant) -> None:
    """A clone, a small push, one of 3 MB that git sends in chunks, and a fetch whose question is compressed: each arrives, as the tenant's."""
    bob = lab.tenants["bob"]
    there, here = f"http://127.0.0.1:{lab.port}/git/work.git", bob.home / "clone"
    git(bob, "clone", "-q", there, str(here))
    assert (here / "bin/blob").read_bytes() == BLOB
    big = random.Random(2).randbytes(3 * MEGABYTE)
    for name, data, framing in (("small", b"small\n", "content-length: "), ("big", big, "transfer-encoding: chunked")):
        (here / name).write_bytes(data)
        git(bob, "add", name, directory=here)
        git(bob, "commit", "-q", "-m", name, directory=here)
        assert framing in git(bob, "push", "origin", "HEAD", directory=here, traced=True).lower()
    bare = alice.home / "git/work.git"
    assert git(alice, "rev-parse", "main", directory=bare) == git(bob, "rev-parse", "HEAD", directory=here)
    git(alice, "fsck", "--full", "--strict", directory=bare)
    assert {path.stat().st_uid for path in bare.rglob("*")} == {alice.uid}
    ask_much(alice, bob, here)


def ask_much(alice: Tenant, bob: Tenant, here: Path) -> None:
    """Fetch what alice has written meanwhile, from a clone with more of its own than fits into a plain question."""
    mine = alice.home / "mine"
    git(alice, "clone", "-q", str(alice.home / "git/work.git"), str(mine))
    git(alice, "commit", "-q", "--allow-empty", "-m", "meanwhile", directory=mine)
    git(alice, "push", "-q", "origin", "HEAD", directory=mine)
    for number in range(40):
        git(bob, "commit", "-q", "--allow-empty", "-m", str(number), directory=here)
    assert "content-encoding: gzip" in git(bob, "fetch", "origin", directory=here, traced=True).lower()
    assert git(bob, "rev-parse", "origin/main", directory=here) == git(alice, "rev-parse", "HEAD", directory=mine)
