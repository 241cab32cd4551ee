"""What docs/programs.md tells people to write works: each configuration serves, and each sentence of its table is logged.

Runs as: root, which starts the servers.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import ROOT, Lab, Tenant, wait_until
from tests.system.test_git import HAS_GIT, put_repository

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

PAGE = (ROOT / "docs/programs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```apache\n(.*?)```", PAGE, re.DOTALL)
CGI, AMONG_FILES, PHP, OWN_FPM, STARTER, APP, WSGI, PROXY, LIMITS, GIT = BLOCKS
ROWS = re.findall(r"^\| (\d+|any) \| `(.*?)`", PAGE, re.MULTILINE)
WHO = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' \"$(id -u) $(ulimit -t) $(ulimit -v)\"\n"
HAS_PHP = any(name.startswith("php-fpm") for name in os.listdir("/usr/sbin"))


def put(tenant: Tenant, name: str, text: str, mode: int = 0o700) -> Path:
    """Put a program below the tenant's home."""
    path = tenant.home / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    for one, bits in ((path.parent, 0o700), (path, mode)):
        one.chmod(bits)
        os.chown(one, tenant.uid, tenant.uid)
    return path


def make_lab(block: str, more: Callable[[Tenant], None] = lambda _: None) -> Lab:
    """Return a started server with one block of the page; `more` prepares the home first."""
    lab = Lab(names=("alice",))
    alice = lab.tenants["alice"]
    block = (block.replace("/home/alice/public_html", str(alice.docroot)).replace("/home/alice", str(alice.home))
             .replace("alice alice", f"#{alice.uid} #{alice.uid}").replace("*:80", f"*:{lab.port}")
             .replace("</VirtualHost>", f"{lab.tls_block(alice)}</VirtualHost>"))
    lab.has_vhosts, lab.config_tail = False, block
    more(alice)
    return lab.start()


@pytest.mark.parametrize("block", [CGI, LIMITS])
def test_a_directory_of_programs_runs_as_the_user(block: str) -> None:
    """And within the limits that the block sets."""
    with make_lab(block, lambda alice: put(alice, "cgi-bin/who", WHO) and None) as lab:
        response = lab.get("alice.example", "/cgi-bin/who")
        uid, cpu_s, memory_kib = response.body.decode().split()
        assert (response.status, int(uid)) == (200, lab.tenants["alice"].uid)
        assert (cpu_s, memory_kib) == (("5", "524288") if block is LIMITS else ("unlimited", "unlimited"))


def test_programs_among_files_run_as_the_user() -> None:
    """Those with the extension; the others are files."""
    with make_lab(AMONG_FILES, lambda alice: alice.write("who.cgi", WHO, 0o700) and None) as lab:
        assert lab.get("alice.example", "/who.cgi").body.decode().split()[0] == str(lab.tenants["alice"].uid)
        assert lab.get("alice.example", "/").body == b"alice\n"


@pytest.mark.skipif(not HAS_PHP, reason="needs php-fpm")
def test_php_runs_as_the_user() -> None:
    """With its settings, as the directory's index."""
    source = "<?php echo posix_geteuid(), ' ', ini_get('open_basedir'), ' ', PHP_SAPI;"
    with make_lab(PHP, lambda alice: alice.write("index.php", source) and None) as lab:
        alice = lab.tenants["alice"]
        response = lab.get("alice.example", "/", timeout_s=30)
        assert (response.status, response.body.decode()) == (200, f"{alice.uid} {alice.home}:/tmp fpm-fcgi")
        assert b"<?php" not in response.body


def test_a_php_fpm_of_ones_own_is_connected_to_by_the_user() -> None:
    """Here the socket's other end only looks who comes."""
    with Lab(names=("alice",)) as other:  # a directory that the socket may be in
        path, seen = other.tenants["alice"].home / "own.sock", []
        os.chmod(other.tenants["alice"].home, 0o711)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()

            def look() -> None:
                with listener.accept()[0] as sock:
                    pid_uid_gid = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    seen.append(int.from_bytes(pid_uid_gid[4:8], "little"))

            thread = threading.Thread(target=look)
            thread.start()
            block = OWN_FPM.replace("/run/php/alice.sock", str(path))
            with make_lab(block, lambda alice: alice.write("x.php", "<?php secret();") and os.chown(path, alice.uid, alice.uid)) as lab:
                path.chmod(0o600)
                response = lab.get("alice.example", "/x.php")
                thread.join(30)
                assert (response.status, seen) == (502, [lab.tenants["alice"].uid])
                assert b"secret" not in response.raw


@pytest.mark.skipif(not Path("/usr/bin/php-cgi").exists(), reason="needs php-cgi")
def test_a_starter_runs_as_the_user() -> None:
    """The shell script that the page describes."""
    def prepare(alice: Tenant) -> None:
        put(alice, "fcgi-bin/php.fcgi", "#!/bin/sh\nexec /usr/bin/php-cgi\n")
        alice.write("x.php", "<?php echo posix_geteuid(), ' ', PHP_SAPI;")

    with make_lab(STARTER, prepare) as lab:
        response = lab.get("alice.example", "/x.php", timeout_s=30)
        assert (response.status, response.body.decode()) == (200, f"{lab.tenants['alice'].uid} cgi-fcgi")


PYTHON_APP = """import os
def {name}(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{os.getuid()}} {{environ['PATH_INFO']}}".encode()]
"""


@pytest.mark.skipif(not Path("/usr/bin/gunicorn").exists(), reason="needs gunicorn")
def test_an_application_server_runs_as_the_user() -> None:
    """Started by the first request; files of an Alias are not its business."""
    def prepare(alice: Tenant) -> None:
        put(alice, "app/app.py", PYTHON_APP.format(name="app"), 0o600)
        alice.write("static/x.txt", "a file\n")

    with make_lab(APP, prepare) as lab:
        response = lab.get("alice.example", "/some/where", timeout_s=30)
        assert (response.status, response.body.decode()) == (200, f"{lab.tenants['alice'].uid} /some/where")
        assert lab.get("alice.example", "/static/x.txt").body == b"a file\n"


def test_a_python_application_runs_as_the_user() -> None:
    """Without a server of its own."""
    with make_lab(WSGI, lambda alice: put(alice, "app/app.wsgi", PYTHON_APP.format(name="application"), 0o600) and None) as lab:
        response = lab.get("alice.example", "/some/where", timeout_s=30)
        assert (response.status, response.body.decode()) == (200, f"{lab.tenants['alice'].uid} /some/where")


def test_a_proxied_back_end_is_connected_to_by_the_user() -> None:
    """All but what is said to be here; Location comes back as the client's."""
    def serve(listener: socket.socket, seen: list[int]) -> None:
        with listener.accept()[0] as sock:
            seen.append(int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], "little"))
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://localhost/there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    seen: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        def prepare(alice: Tenant) -> None:
            alice.write("static/x.txt", "a file\n")
            path = alice.home / "app.sock"
            listener.bind(str(path))
            listener.listen()
            os.chown(path, alice.uid, alice.uid)
            path.chmod(0o600)

        with make_lab(PROXY, prepare) as lab:
            thread = threading.Thread(target=serve, args=(listener, seen))
            thread.start()
            response = lab.get("alice.example", "/here")
            thread.join(30)
            assert (response.status, response.fields["location"]) == (302, f"{lab.scheme}://alice.example/there")
            assert seen == [lab.tenants["alice"].uid]
            assert lab.get("alice.example", "/static/x.txt").body == b"a file\n"


@pytest.mark.skipif(not HAS_GIT, reason="needs git, libcgi-pm-perl: packaging/test gets them")
def test_git_and_gitweb_read_the_users_repository() -> None:
    """Both programs are root's, and run as the user: the repository is nobody else's."""
    with make_lab(GIT, put_repository) as lab:
        refs = lab.get("alice.example", "/git/work.git/info/refs?service=git-upload-pack")
        assert (refs.status, refs.fields["content-type"]) == (200, "application/x-git-upload-pack-advertisement")
        page = lab.get("alice.example", "/gitweb/work.git")
        assert (page.status, b"<title>git of alice - work.git/summary</title>" in page.body) == (200, True)
        assert lab.get("alice.example", "/static/gitweb.css").fields["content-type"].startswith("text/css")


def test_sentences_of_the_table_are_logged() -> None:
    """Each cause makes its status and its sentence; a program's text is never sent."""
    alice_block = AMONG_FILES.replace("</VirtualHost>", "    Timeout 5\n    ScriptAlias /bin/ /home/alice/bin/\n    <Directory /home/alice/bin>\n"
                                      "    Require all granted\n    </Directory>\n    <Files gone.php>\n"
                                      '    SetHandler "proxy:unix:/home/alice/none.sock|fcgi://localhost"\n    </Files>\n'
                                      "    <Directory /home/alice/public_html/off>\n    Options -ExecCGI\n    </Directory>\n"
                                      "    AddHandler application/x-httpd-php .php\n    AddHandler fcgid-script .fcgi\n"
                                      "    ProxyPass /app unix:/home/alice/none.sock|http://localhost/\n</VirtualHost>")

    def prepare(alice: Tenant) -> None:
        put(alice, "bin/ok", WHO)
        for name, text, mode in (("group", WHO, 0o770), ("plain", WHO, 0o600), ("dos", "#!/bin/sh\r\n" + WHO, 0o700), ("text", "secret", 0o700),
                                 ("foreign", WHO, 0o755), ("slow", "#!/bin/sh\nsleep 30\n", 0o700), ("says", WHO + "echo oh >&2\n", 0o700)):
            put(alice, f"bin/{name}", text, mode)
        (alice.home / "bin/link").symlink_to("ok")
        os.chown(alice.home / "bin/foreign", alice.uid + 7, alice.uid + 7)
        for name in ("off/x.cgi", "open/x.cgi", "x.php", "gone.php", "x.fcgi"):
            alice.write(name, WHO, 0o700)
        (alice.docroot / "open").chmod(0o777)

    paths = {"/bin/group": "it can be written to by group", "/open/x.cgi": "its directory can be written", "/bin/plain": "not executable by its user",
             "/bin/foreign": "does not belong to", "/bin/link": "symbolic link", "/bin/dos": "CR LF", "/bin/text": "Exec format error", "/off/x.cgi": "AH02809",
             "/bin/none": "AH02811", "/bin/slow": "AH01220", "/x.php": "no PHP runs here", "/x.fcgi": "no FcgidWrapper", "/gone.php": "AH01079",
             "/app": "AH01114", "/bin/says": "AH01215"}
    with make_lab(alice_block, prepare) as lab:
        for path, words in paths.items():
            status, sentence = next((status, text) for status, text in ROWS if words in text)
            response = lab.get("alice.example", path)
            assert path == "/bin/says" or response.status == int(status), path
            assert b"secret" not in response.raw
            assert b"#!" not in response.body
            fixed = [part for part in re.split(r"PATH|unix:/path|\.\.\.", sentence) if part.strip(": ")]
            wait_until(lambda fixed=fixed: all(part in lab.error_log() for part in fixed), f"the log says {sentence}")
    assert len(paths) == len(ROWS), "a row of the table is not tried"
