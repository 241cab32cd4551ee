"""perchildctl import: httpd's configurations in many shapes are read, reported, written anew, tested and served."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import PYTHON, ROOT, Lab
from tests.system.panels import HEAD, PANELS

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
APACHE2 = next((path for path in (ROOT / "build/debian/etc/apache2", Path("/etc/apache2")) if (path / "mods-available").is_dir()), None)


class Imported(Lab):
    """A server that runs what perchildctl import wrote."""

    def __init__(self) -> None:
        super().__init__(names=("alice", "bob"), vhosts=False)
        self.source = self.base / "source"
        self.target = self.base / "target"
        self.config_path = self.target / "perchild.conf"

    def write_source(self, files: dict[str, str]) -> None:
        """Write a configuration of httpd."""
        words: dict[str, Any] = {"port": self.port, "log": self.log, "source": self.source, "user": self.user_uid}
        for key, tenant in zip("ab", self.tenants.values(), strict=True):
            words |= {f"{key}_name": tenant.host, f"{key}_uid": tenant.uid, f"{key}_root": tenant.docroot}
        for name, text in files.items():
            path = self.source / name.format(**words)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(**words))

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run perchildctl."""
        return subprocess.run([PYTHON, "-m", "perchild.control", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def do_import(self, *arguments: str) -> dict[str, Any]:
        """Import the source and return the report."""
        said = self.control("import", str(self.source), "-o", str(self.target), "--json", *arguments)
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    def write_config(self, text: str | None = None) -> Path:
        """Nothing: the importer wrote it."""
        return self.config_path

    def command(self, *arguments: str) -> list[str]:
        """Return the command line, with what a test needs behind the configuration."""
        return [PYTHON, "-m", "perchild", "-d", str(self.target), "-C", f"DefaultRuntimeDir {self.run}", *arguments]


def digest(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def lab() -> Iterator[Imported]:
    with Imported() as one:
        yield one


def states(report: dict[str, Any]) -> dict[str, set[str]]:
    """Return directive -> its states."""
    found: dict[str, set[str]] = {}
    for line in report["lines"]:
        found.setdefault(line["text"].split()[0], set()).add(line["state"])
    return found


@pytest.mark.parametrize("name", PANELS)
def test_panel_is_imported_tested_and_served(lab: Imported, name: str) -> None:
    """Both tenants' hosts are served by their uids; the source is untouched; the report adds up and names every line's place."""
    lab.write_source(PANELS[name])
    before = digest(lab.source)
    report = lab.do_import()
    assert digest(lab.source) == before
    assert report["errors"] == []
    assert report["percent"] >= 70
    assert sum(report["counts"].values()) == len(report["lines"])
    for line in report["lines"]:
        physical = Path(line["file"]).read_text().splitlines()[line["line"] - 1]
        assert physical.split()[0] == line["text"].split()[0]
        assert line["note"] or line["state"] == "understood"
    assert [site["is_enabled"] for site in report["sites"]] == [True, True]
    tested = lab.cli("-t")
    assert tested.returncode == 0, tested.stderr
    lab.start()
    for tenant in lab.tenants.values():
        host = tenant.host
        if name == "ispconfig":
            assert lab.get(f"www.{host}").status == 200
        response = lab.get(host)
        assert (response.status, response.body) == (200, f"{tenant.name}\n".encode())
        assert lab.children(tenant.uid)
    lab.stop()


def test_plain_site_keeps_its_meaning(lab: Imported) -> None:
    """What is password protected is closed, refusals refuse, redirects redirect, the rest is named as missing."""
    alice = lab.tenants["alice"]
    alice.write("private/secret.html", "secret")
    alice.write(".svn/entries", "secret")
    lab.write_source(PANELS["plain"])
    report = lab.do_import()
    found = states(report)
    assert found["AssignUserID"] == found["<VirtualHost"] == {"understood"}
    assert found["StartServers"] == found["LoadModule"] == {"without effect"}
    assert found["Require"] == {"understood", "missing", "without effect"}  # that of <Limit> lets in whom the next line lets in
    weaker = {line["text"] for line in report["lines"] if line["is_weaker"]}
    assert weaker == {"AllowOverride All", "MaxClientsVHost 50"}
    text = (lab.target / "sites-available/000-alice.test.conf").read_text()
    assert f"# {lab.source}/sites-enabled/010-a.conf:1\n" in text
    assert "# missing: Require valid-user" in text
    lab.start()
    assert lab.get("alice.test", "/private/secret.html").status == 403
    assert lab.get("alice.test", "/.svn/entries").status == 403
    moved = lab.get("www.alice.test", "/old")
    assert (moved.status, moved.fields["location"]) == (301, "https://elsewhere.test/new")
    lab.stop()


def test_first_host_stays_the_first(lab: Imported) -> None:
    """Unknown names are answered by the host that answered them before; links are in the hosts' order."""
    lab.write_source(PANELS["plain"])
    lab.do_import()
    names = sorted(os.listdir(lab.target / "sites-enabled"))
    assert names == ["000-alice.test.conf", "001-bob.test.conf"]
    assert os.readlink(lab.target / "sites-enabled" / names[0]) == "../sites-available/000-alice.test.conf"
    lab.start()
    assert lab.get("unknown.test").body == b"alice\n"
    lab.stop()


def test_nothing_is_overwritten_or_written_into_the_source(lab: Imported) -> None:
    """A directory with something in it, the source itself, and one below it are refused; nothing is written."""
    lab.write_source(PANELS["plain"])
    lab.target.mkdir()
    (lab.target / "mine").write_text("x")
    for target, words in ((lab.target, "nothing is overwritten"), (lab.source, "never touched"), (lab.source / "new", "never touched")):
        said = lab.control("import", str(lab.source), "-o", str(target))
        assert said.returncode == 1
        assert words in said.stderr
    assert os.listdir(lab.target) == ["mine"]
    assert not (lab.source / "new").exists()


def test_dry_run_reports_and_writes_nothing(lab: Imported) -> None:
    """For people: numbers, a percentage, and file and line of what is missing."""
    lab.write_source(PANELS["plain"])
    said = lab.control("import", str(lab.source), "-n", "-o", str(lab.target))
    assert said.returncode == 0
    assert "% of the lines keep their meaning" in said.stdout
    assert f"{lab.source}/sites-enabled/010-a.conf:8: MaxClientsVHost 50" in said.stdout
    assert not lab.target.exists()


@pytest.mark.parametrize(("text", "words"), [("", "none of apache2.conf"), ("x", "")])
def test_source_that_is_none_is_said(lab: Imported, text: str, words: str) -> None:
    """An empty directory is named with what was looked for; a file with a word that nobody knows is all missing."""
    lab.source.mkdir()
    if text:
        (lab.source / "httpd.conf").write_text("Listen 127.0.0.1:1\nNonsense on\nInclude nowhere.conf\n<VirtualHost *:1>\n")
        report = lab.do_import()
        missing = {line["text"]: line["note"] for line in report["lines"] if line["state"] == "missing"}
        assert "Invalid command 'Nonsense'" in missing["Nonsense on"]
        assert "No such file" in missing["Include nowhere.conf"]
        assert "was not closed" in missing["<VirtualHost *:1>"]
        return
    said = lab.control("import", str(lab.source), "-o", str(lab.target))
    assert said.returncode == 1
    assert words in said.stderr


def test_copy_that_leads_to_the_original_is_said(lab: Imported) -> None:
    """ServerRoot and Include of a copied tree name places of the machine it came from: no host, or another machine's."""
    elsewhere = lab.base / "elsewhere"
    elsewhere.mkdir()
    lab.write_source({"httpd.conf": f"ServerRoot {elsewhere}\nListen 127.0.0.1:1\nIncludeOptional sites/*.conf\n", "sites/a.conf": PLAIN_HOST})
    said = lab.control("import", str(lab.source), "-n").stdout
    assert f"There is no <VirtualHost> in these files. Relative names of Include were looked for below ServerRoot, {elsewhere}" in said
    (elsewhere / "sites").mkdir()
    (elsewhere / "sites/other.conf").write_text(PLAIN_HOST)
    said = lab.control("import", str(lab.source), "-n").stdout
    assert f"Read from elsewhere, as ServerRoot ({elsewhere}) and Include say: {elsewhere}/sites/other.conf" in said
    assert "Served by User, all together, as long as no AssignUserID names one of their own: plain.test" in said
    assert lab.do_import()["elsewhere"] == [f"{elsewhere}/sites/other.conf"]


PLAIN_HOST = "<VirtualHost *:1>\nServerName plain.test\n</VirtualHost>\n"
TLS_SITE = """<VirtualHost *:{port}>
    ServerName {host}
    DocumentRoot {root}
    AssignUserID #{uid} #{uid}
    SSLEngine on
    SSLProtocol All -SSLv2 -SSLv3
    SSLCertificateFile {cert}
    SSLCertificateKeyFile {key}
    SSLUseStapling on
    Protocols h2 http/1.1
    Header always add Strict-Transport-Security "max-age=15768000"
    <Directory {root}>
        SSLRequireSSL
        Require all granted
    </Directory>
</VirtualHost>
"""


def test_sites_of_tls_are_imported_and_served() -> None:
    """Each with its own certificate, by its own user."""
    with Imported() as lab:
        lab.tls = True
        texts = [TLS_SITE.format(port=lab.port, host=one.host, root=one.docroot, uid=one.uid, cert=lab.certificate(one.name).cert,
                                 key=lab.certificate(one.name).key) for one in lab.tenants.values()]
        lab.write_source({"httpd.conf": HEAD.replace("Listen 127.0.0.1:{port}", "Listen 127.0.0.1:{port} https") + "Include hosts.conf\n"})
        (lab.source / "hosts.conf").write_text("".join(texts))
        report = lab.do_import()
        assert [site["is_enabled"] for site in report["sites"]] == [True, True]
        assert {line["text"].split()[0] for line in report["lines"] if line["state"] == "missing"} == set()
        lab.start()
        for tenant in lab.tenants.values():
            response = lab.get(tenant.host)
            assert (response.status, response.body) == (200, f"{tenant.name}\n".encode())
            assert response.fields["strict-transport-security"] == "max-age=15768000"
        lab.stop()


@pytest.mark.skipif(APACHE2 is None, reason="no tree of Debian's apache2")
def test_debians_default_tree_is_imported(lab: Imported) -> None:
    """With mpm_itk and PHP enabled: nine tenths keep their meaning, nothing is weaker, and the default site is there."""
    assert APACHE2 is not None
    shutil.copytree(APACHE2, lab.source, symlinks=True)
    for kind in ("mods", "sites"):
        for name in ({"mods": ("mpm_prefork", "mpm_itk", "alias", "authz_core", "authz_host", "dir", "mime", "setenvif", "autoindex", "deflate",
                               "negotiation", "reqtimeout", "env", "access_compat"), "sites": ("000-default",)})[kind]:
            for ending in ("load", "conf"):
                link = lab.source / f"{kind}-enabled/{name}.{ending}"
                if (lab.source / f"{kind}-available/{name}.{ending}").exists() and not link.is_symlink():
                    link.parent.mkdir(exist_ok=True)
                    link.symlink_to(f"../{kind}-available/{name}.{ending}")
    report = lab.do_import()
    assert report["percent"] >= 90
    assert not [line for line in report["lines"] if line["is_weaker"]]
    assert [site["file"] for site in report["sites"]] == ["000-default.conf"]
    assert lab.cli("-t").returncode == 0
    text = (lab.target / "perchild.conf").read_text()
    assert "ErrorLog /var/log/apache2/error.log\n" in text
    assert "User www-data\n" in text
