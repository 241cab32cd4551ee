"""perchildctl check: each row of its table finds what it is for, with file and line, and nothing where nothing is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perchild.control.checks import CHECKS
from tests.certs import make_certificate
from tests.lab import PYTHON, ROOT, Lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
NOTES = {"no-user", "docroot-readable"}


class Checked(Lab):
    """A configuration that is looked at, without a server."""

    def __init__(self) -> None:
        super().__init__(names=("alice", "bob"), tls=False)
        self.extra = {"alice": "", "bob": ""}
        self.base.chmod(0o711)

    def config_text(self) -> str:
        """Return the whole configuration, with what a test puts into hosts."""
        self.has_vhosts = False
        self.config_tail = "".join(self.host_block(self.tenants[name], extra) for name, extra in self.extra.items()) + self.tail
        return super().config_text()

    tail = ""

    def check(self) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """Run perchildctl check; return its status, and findings by check."""
        self.write_config()
        said = subprocess.run([PYTHON, "-m", "perchild.control", "check", "--json", "-d", str(self.base), "-f", str(self.config_path)], cwd=ROOT,
                              capture_output=True, text=True, timeout=60, check=False)
        report = json.loads(said.stdout)
        assert report["ok"] == (said.returncode == 0)
        return said.returncode, {one["check"]: one["found"] for one in report["findings"]}


@pytest.fixture
def lab() -> Iterator[Checked]:
    with Checked() as one:
        yield one


def listen(path: Path, mode: int, uid: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(mode)
    os.chown(path, uid, uid)
    return sock


def make_key(lab: Checked) -> None:
    key = lab.base / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key),
                    "-out", str(lab.base / "cert.pem"), "-subj", "/CN=tls.test", "-days", "90"], check=True, capture_output=True)
    key.chmod(0o644)
    lab.config = "Listen 127.0.0.1:1\n"
    lab.tail = (f"<VirtualHost *:1>\nServerName tls.test\nDocumentRoot {lab.tenants['alice'].docroot}\n"
                f"AssignUserID #{lab.tenants['alice'].uid} #{lab.tenants['alice'].uid}\nSSLEngine On\n"
                f"SSLCertificateFile {lab.base}/cert.pem\nSSLCertificateKeyFile {key}\n</VirtualHost>\n")


def expire_certificate(lab: Checked) -> None:
    made = make_certificate(lab.base, "tls.test", days=-1)
    lab.config = "Listen 127.0.0.1:1\n"
    lab.tail = (f"<VirtualHost *:1>\nServerName tls.test\nDocumentRoot {lab.tenants['alice'].docroot}\n"
                f"AssignUserID #{lab.tenants['alice'].uid} #{lab.tenants['alice'].uid}\n{made.directives()}</VirtualHost>\n")


def break_link(lab: Checked) -> None:
    (lab.base / "sites-enabled").mkdir()
    (lab.base / "sites-enabled/gone.conf").symlink_to("../sites-available/gone.conf")


def open_config(lab: Checked) -> None:
    folder = lab.base / "conf"
    folder.mkdir()
    (folder / "x.conf").write_text("KeepAlive On\n")
    os.chown(folder / "x.conf", lab.tenants["alice"].uid, 0)
    lab.config = f"Include {folder}/x.conf\n"


def open_state(lab: Checked) -> None:
    (lab.base / "state").mkdir()
    (lab.base / "state").chmod(0o777)


def close_root(lab: Checked) -> None:
    os.chown(lab.tenants["alice"].docroot, 0, 0)


def share_root(lab: Checked) -> None:
    alice, bob = lab.tenants["alice"], lab.tenants["bob"]
    alice.home.chmod(0o755)
    alice.docroot.chmod(0o755)
    (alice.docroot / "bobs").mkdir()
    os.chown(alice.docroot / "bobs", bob.uid, bob.uid)
    lab.extra["bob"] = f"DocumentRoot {alice.docroot}/bobs\n"


def open_root(lab: Checked) -> None:
    lab.tenants["alice"].home.chmod(0o755)
    lab.tenants["alice"].docroot.chmod(0o777)


def deny_root(lab: Checked) -> None:
    lab.tail = (f"<Directory {lab.base}/nobodys>\nRequire all denied\n</Directory>\n<VirtualHost *:{lab.port}>\nServerName new.test\n"
                f"DocumentRoot {lab.base}/nobodys\nAssignUserID #{lab.tenants['bob'].uid} #{lab.tenants['bob'].uid}\n</VirtualHost>\n")
    (lab.base / "nobodys").mkdir()


def want_php(lab: Checked) -> None:
    lab.extra["bob"] = "PHPPool 4.9\n"


def put_htaccess(lab: Checked) -> None:
    lab.tenants["alice"].write(".htaccess", "Deny from all\n")


def no_user(lab: Checked) -> None:
    lab.tail = f"<VirtualHost *:{lab.port}>\nServerName all.test\nDocumentRoot {lab.main_root}\n</VirtualHost>\n"


def open_log(lab: Checked) -> None:
    lab.extra["alice"] = f"ErrorLog {lab.tenants['alice'].home}/error.log\n"


def lose_log(lab: Checked) -> None:
    lab.extra["alice"] = f"CustomLog {lab.base}/nowhere/access.log combined\n"


def open_socket(lab: Checked) -> None:
    listen(lab.base / "open.sock", 0o666, 0).close()
    lab.extra["alice"] = f'<FilesMatch "\\.php$">\nSetHandler "proxy:unix:{lab.base}/open.sock|fcgi://localhost"\n</FilesMatch>\n'


def close_socket(lab: Checked) -> None:
    listen(lab.base / "closed.sock", 0o660, lab.user_uid).close()
    lab.extra["alice"] = f'<FilesMatch "\\.php$">\nSetHandler "proxy:unix:{lab.base}/closed.sock|fcgi://localhost"\n</FilesMatch>\n'


def break_site(lab: Checked) -> None:
    lab.extra["alice"] = "NoSuchDirective on\n"


def doubt(lab: Checked) -> None:
    lab.extra["alice"] = "DocumentRoot /nowhere\n"


CASES: dict[str, tuple[Callable[[Checked], None], str]] = {
    "broken-site": (break_site, "Invalid command 'NoSuchDirective'"),
    "broken-link": (break_link, "gone.conf is a link to ../sites-available/gone.conf, which is not there"),
    "configuration": (doubt, "DocumentRoot [/nowhere] does not exist"),
    "certificate": (expire_certificate, "tls.test.crt"),
    "config-writable": (open_config, "x.conf can be written by uid "),
    "key-readable": (make_key, "key.pem can be read by everybody"),
    "state-writable": (open_state, "state is not a directory of root's"),
    "docroot-unreadable": (close_root, "cannot enter it (mode 0700, uid 0)"),
    "docroot-overlap": (share_root, "is within "),
    "docroot-writable": (open_root, "/public of "),
    "docroot-readable": (open_root, "/public of "),
    "docroot-denied": (deny_root, "/nobodys of new.test: Require all denied ("),
    "php-missing": (want_php, "php-fpm4.9 is not installed"),
    "htaccess": (put_htaccess, "/public/.htaccess of "),
    "no-user": (no_user, "all.test is served by "),
    "log-writable": (open_log, "the directory of "),
    "log-missing": (lose_log, "nowhere, the directory of "),
    "socket-open": (open_socket, "has mode 0666"),
    "socket-closed": (close_socket, "cannot connect"),
}


def test_each_check_has_its_case() -> None:
    """No row of the table without a test; what cannot be looked at is tested with what looks (tests/unit/control/test_as_tenant.py)."""
    assert set(CASES) | {"not-looked-at"} == {check.name for check in CHECKS}
    assert all(check.what and check.remedy for check in CHECKS)


def test_nothing_is_found_where_nothing_is_wrong(lab: Checked) -> None:
    """Status 0, and no finding."""
    assert lab.check() == (0, {})


@pytest.mark.parametrize("name", CASES)
def test_check_finds_what_it_is_for(lab: Checked, name: str) -> None:
    """Status 1 but for notes; the words say what and where; file and line are those of the host, where it is about one."""
    prepare, words = CASES[name]
    prepare(lab)
    status, found = lab.check()
    assert any(words in one["what"] for one in found[name]), found
    assert status == (0 if set(found) <= NOTES else 1)
    lines = lab.config_path.read_text().splitlines()
    for one in found[name]:
        if one["line"]:
            assert one["file"] == str(lab.config_path)
            assert 1 <= one["line"] <= len(lines)


def test_ports_of_back_ends_are_found(lab: Checked) -> None:
    """A port has no owner."""
    lab.extra["alice"] = "ProxyPass /app http://127.0.0.1:8001/\n"
    assert "127.0.0.1:8001" in lab.check()[1]["socket-open"][0]["what"]


def test_links_of_a_tenant_lead_root_nowhere(lab: Checked) -> None:
    """A document root that is a link to what only root can see is one that its user cannot enter."""
    alice = lab.tenants["alice"]
    link = alice.home / "link"
    link.symlink_to("/root")
    lab.extra["alice"] = f"DocumentRoot {link}\n"
    status, found = lab.check()
    assert status == 1
    assert "Permission denied" in found["docroot-unreadable"][0]["what"] or "cannot enter" in found["docroot-unreadable"][0]["what"]


def test_configuration_that_is_broken_as_a_whole_is_refused(lab: Checked) -> None:
    """Its errors, and status 1."""
    lab.config = "KeepAliveTimeout soon\n"
    lab.write_config()
    said = subprocess.run([PYTHON, "-m", "perchild.control", "check", "-d", str(lab.base), "-f", str(lab.config_path)], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1
    assert "KeepAliveTimeout" in said.stderr


def test_text_names_check_place_and_remedy(lab: Checked) -> None:
    """For people; --list shows every row."""
    put_htaccess(lab)
    lab.write_config()
    command = [PYTHON, "-m", "perchild.control", "check", "-d", str(lab.base), "-f", str(lab.config_path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "warning: htaccess: " in said.stdout
    assert "\n  Remedy: " in said.stdout
    listed = subprocess.run([*command, "--list"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert listed.stdout.count("Remedy: ") == len(CHECKS)
