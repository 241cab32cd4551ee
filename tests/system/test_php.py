"""PHP through a real server: Debian's php-fpm, one for each tenant: behind SetHandler proxy:unix, and kept by the runner (PHPPool).

Runs as: root, which starts the server; php-fpm and its scripts run as their tenants.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
from collections.abc import Iterator

import pytest

from tests.lab import Lab, comm_of, is_alive, tree_of, uid_of, wait_until
from tests.php import PHP_FPM, PhpFpm
from tests.system.wire import client, get

pytestmark = [pytest.mark.root, pytest.mark.timeout(120),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"), pytest.mark.skipif(not PHP_FPM, reason="no php-fpm")]

NAMES = ("alice", "bob")
OLD_S = 60  # of the scripts: opcache keeps no file that is younger than 2 s
OWN = """
<FilesMatch "\\.php$">
SetHandler "proxy:unix:{home}/fpm.sock|fcgi://localhost/"
</FilesMatch>
<Files other.php>
SetHandler "proxy:unix:{other}/fpm.sock|fcgi://localhost/"
</Files>
ProxyPassMatch "^/pass/(.*[.]php(/.*)?)$" "unix:{home}/fpm.sock|fcgi://localhost{home}/public/$1"
"""
POOL = "PHPPool on max_children=3\n"
HOST = """
DirectoryIndex index.php index.html
php_value memory_limit 77M
php_value post_max_size 16M
php_value upload_max_filesize 16M
php_flag display_errors off
php_flag log_errors on
php_admin_value open_basedir {home}:/tmp
<Files loose.php>
php_value memory_limit 55M
</Files>
<Files limited.php>
LimitRequestBody 100000
</Files>
"""
SCRIPTS = {
    "uid.php": "<?php echo posix_getuid(), ' ', posix_getgid();",
    "server.php": "<?php header('Content-Type: application/json'); echo json_encode($_SERVER);",
    "loose.php": "<?php echo ini_get('memory_limit');",
    "ini.php": "<?php ini_set('open_basedir', '/'); echo ini_get('memory_limit'), ' ', ini_get('open_basedir');",
    "upload.php": "<?php $f = $_FILES['f']; echo $f['size'], ' ', hash_file('sha256', $f['tmp_name']), ' ', $_POST['a'];",
    "limited.php": "<?php echo strlen(file_get_contents('php://input')), ' ', $_SERVER['CONTENT_LENGTH'];",
    "raw.php": "<?php echo strlen(file_get_contents('php://input'));",
    "opcache.php": "<?php echo json_encode(array_keys(opcache_get_status()['scripts'] ?? []));",
    "error.php": "<?php error_log('what the script says'); http_response_code(503); echo 'sorry';",
    "fatal.php": "<?php undefined_function();",
    "redirect.php": "<?php header('Location: /elsewhere');",
    "index.php": "<?php echo 'index of ', $_SERVER['SCRIPT_NAME'], ' ', $_SERVER['PATH_INFO'] ?? '-';",
    "other.php": "<?php echo 'secret';",
    "steps.php": "<?php while (ob_get_level()) { ob_end_flush(); } for ($i = 0; $i < 3; $i++) { echo chr(97 + $i); flush(); "
                 'while ($i < 2 && !file_exists("step$i")) { usleep(1000); } }',
}


class Site:
    """A server, and a php-fpm for each tenant: of the test's (OWN), or the runner's (POOL)."""

    def __init__(self, way: str) -> None:
        """Start all of it."""
        self.lab = Lab(names=NAMES)
        blocks = []
        for name, other in zip(NAMES, reversed(NAMES), strict=True):
            tenant = self.lab.tenants[name]
            for script, text in SCRIPTS.items():
                path = tenant.write(script, text)
                os.utime(path, (path.stat().st_mtime - OLD_S,) * 2)
            tenant.home.chmod(0o711)  # as carelessly as it happens
            blocks.append(self.lab.host_block(tenant, (way + HOST).format(home=tenant.home, other=self.lab.tenants[other].home)))
        self.pools = {name: PhpFpm(tenant) for name, tenant in self.lab.tenants.items() if way == OWN}
        self.lab.has_vhosts, self.lab.config_tail = False, "".join(blocks)
        self.lab.start()

    def text(self, path: str, name: str = "alice") -> str:
        """Return the body of a request that succeeds."""
        answer = self.lab.get(f"{name}.test", path)
        assert answer.status == 200, (answer, self.lab.error_log()[-1000:])
        return answer.body.decode()

    def close(self) -> None:
        """Stop all of it."""
        for pool in self.pools.values():
            pool.close()
        self.lab.close()


@pytest.fixture(scope="module", params=[OWN, POOL], ids=["own", "pool"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """One server of each way for all tests."""
    one = Site(request.param)
    yield one
    one.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Site]:
    """One with php-fpms of the test's; its last test stops one of them."""
    one = Site(OWN)
    yield one
    one.close()


@pytest.mark.silent("looks at processes alone")
def test_no_php_outlives_the_test_that_started_it() -> None:
    """Also where that is killed and can stop nothing."""
    with Lab(names=("alice",)) as lab:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writer, str(PhpFpm(lab.tenants["alice"]).process.pid).encode())
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.close(writer)
        with open(reader, encoding="ascii") as said:
            master = int(said.read())
        os.waitpid(pid, 0)
        try:
            wait_until(lambda: not is_alive(master), "php-fpm has ended")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(master, signal.SIGTERM)


def test_each_tenants_scripts_are_its_own(site: Site) -> None:
    """The uid that a script has is its tenant's, and its code is in a cache that the other has no part in."""
    for name in NAMES:
        uid = site.lab.tenants[name].uid
        assert site.text("/uid.php", name) == f"{uid} {uid}"
        assert json.loads(site.text("/opcache.php", name)), "what this tenant has run"
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        assert f"/{other}/" not in site.text("/opcache.php", name)


def test_php_sees_the_request(site: Site) -> None:
    """SCRIPT_NAME, PATH_INFO and the like, as under httpd."""
    answer = site.lab.get("alice.test", "/server.php/more/x?a=1", fields={"Authorization": "Basic eDp5"})
    said, root = answer.json(), site.lab.tenants["alice"].docroot
    wanted = {"SCRIPT_NAME": "/server.php", "PHP_SELF": "/server.php/more/x", "PATH_INFO": "/more/x", "QUERY_STRING": "a=1",
              "SCRIPT_FILENAME": f"{root}/server.php", "DOCUMENT_ROOT": str(root), "REQUEST_URI": "/server.php/more/x?a=1",
              "PHP_AUTH_USER": "x", "PHP_AUTH_PW": "y", "REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "alice.test"}
    assert {name: said.get(name) for name in wanted} == wanted


def test_php_values_are_the_configurations(site: Site) -> None:
    """php_value by place; what php_admin_value says a script cannot change."""
    assert site.text("/ini.php") == f"77M {site.lab.tenants['alice'].home}:/tmp"
    assert site.text("/loose.php") == "55M"
    assert site.text("/ini.php") == f"77M {site.lab.tenants['alice'].home}:/tmp"


def test_an_upload_of_5_mb_arrives_whole(site: Site) -> None:
    """As a browser sends it, in a form; and as it is."""
    data = os.urandom(5 << 20)
    body = (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--b\r\nContent-Disposition: form-data; name="f"; '
            b'filename="x"\r\nContent-Type: application/octet-stream\r\n\r\n' + data + b"\r\n--b--\r\n")
    answer = site.lab.get("alice.test", "/upload.php", method="POST", body=body,
                          fields={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.body.decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()} value"
    answer = site.lab.get("alice.test", "/raw.php", method="POST", body=data, fields={"Content-Type": "application/octet-stream"})
    assert answer.body == str(len(data)).encode()


def test_an_upload_without_a_length_arrives_whole(site: Site) -> None:
    """In chunks, as `curl -T -` and many programs send it: PHP is asked when all of it is there, with its length; 413 as soon as it is
    more than LimitRequestBody, and other requests go on meanwhile."""
    data = os.urandom(3 << 20)
    body = (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--b\r\nContent-Disposition: form-data; name="f"; '
            b'filename="x"\r\nContent-Type: application/octet-stream\r\n\r\n' + data + b"\r\n--b--\r\n")
    with client(site.lab) as one:
        one.send(get("alice.test", "/upload.php", "Transfer-Encoding: chunked", "Content-Type: multipart/form-data; boundary=b", method="POST"))
        one.send(chunks(body))
        assert site.text("/uid.php")
        one.send(b"0\r\n\r\n")
        answer = one.read()
        assert answer is not None
        assert answer.body.decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()} value"
        for size, status, text in ((7, 200, b"7 7"), (100000, 200, b"100000 100000"), (100001, 413, None)):
            one.send(get("alice.test", "/limited.php", "Transfer-Encoding: chunked", method="POST") + chunks(data[:size]) + b"0\r\n\r\n")
            answer = one.read()
            assert answer is not None
            assert answer.status == status
            assert text is None or answer.body == text


def chunks(body: bytes) -> bytes:
    """Return it as chunks, without the last one, which is empty."""
    return b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 50000]), body[at : at + 50000]) for at in range(0, len(body), 50000))


def test_an_index_and_what_is_not_there(site: Site) -> None:
    """/ is /index.php; missing scripts are 404 by the server, and their text is nobody's."""
    assert site.text("/") == "index of /index.php -"
    assert site.text("/index.php/foo") == "index of /index.php /foo"
    assert [site.lab.get("alice.test", path).status for path in ("/none.php", "/index.html/x.php", "/none/index.php")] == [404] * 3


def test_statuses_and_errors_are_the_scripts(site: Site) -> None:
    """http_response_code, Location, and what a script says to the error log."""
    answer = site.lab.get("alice.test", "/error.php")
    assert (answer.status, answer.body) == (503, b"sorry")
    wait_until(lambda: "AH01071: Got error 'PHP message: what the script says'" in site.lab.error_log(), "its line")
    assert site.lab.get("alice.test", "/fatal.php").status == 500
    wait_until(lambda: "undefined_function" in site.lab.error_log(), "what PHP says")
    answer = site.lab.get("alice.test", "/redirect.php")
    assert (answer.status, answer.fields["location"]) == (302, "/elsewhere")


def test_an_answer_comes_as_it_is_written(site: Site) -> None:
    """Each step of a script is read before it takes the next one."""
    alice = site.lab.tenants["alice"]
    with client(site.lab) as one:
        one.send(get("alice.test", "/steps.php"))
        for number, step in enumerate((b"a", b"b")):
            while b"\r\n" + step + b"\r\n" not in one.buffer:
                assert one.fill()
            alice.write(f"step{number}", "")
        answer = one.read()
    assert answer is not None
    assert answer.body == b"abc"


def test_a_script_may_be_named_by_the_url_of_its_back_end(own: Site) -> None:
    """ProxyPassMatch: the path behind the host is the script, and what is behind the script its PATH_INFO."""
    answer = own.lab.get("alice.test", "/pass/server.php/more?a=1")
    said, root = answer.json(), own.lab.tenants["alice"].docroot
    wanted = {"SCRIPT_FILENAME": f"{root}/server.php", "PATH_INFO": "/more", "QUERY_STRING": "a=1", "REQUEST_URI": "/pass/server.php/more?a=1"}
    assert {name: said.get(name) for name in wanted} == wanted
    assert own.lab.get("alice.test", "/pass/none.php").status == 404


def test_a_tenant_cannot_use_anothers_pool(own: Site) -> None:
    """bob's socket is bob's, whatever alice's configuration says: 503, and no text."""
    for name in NAMES:
        answer = own.lab.get(f"{name}.test", "/other.php")
        assert (answer.status, b"secret" in answer.body) == (503, False)
    assert "Permission denied" in own.lab.error_log()


def test_without_its_pool_a_script_is_503(own: Site) -> None:
    """Never its text; the other tenant's pool goes on."""
    own.pools["bob"].close()
    answer = own.lab.get("bob.test", "/uid.php")
    assert (answer.status, b"posix" in answer.body) == (503, False)
    assert "AH01079: failed to make connection to backend: " in own.lab.error_log()
    assert own.text("/uid.php").startswith(f"{own.lab.tenants['alice'].uid} ")


def test_a_pool_starts_with_its_first_requests_and_answers_all_of_them() -> None:
    """Nothing runs before; many at once wait for one php-fpm; its socket is its tenant's alone."""
    lab = Lab(names=NAMES, host_config=POOL)
    with lab:
        alice, bob = (lab.tenants[name] for name in NAMES)
        for tenant in (alice, bob):
            tenant.write("uid.php", SCRIPTS["uid.php"])
        lab.start()
        assert [lab.get("alice.test", "/").status, masters(lab, alice.uid)] == [200, []]
        clients = [client(lab) for _ in range(8)]
        for one in clients:
            one.send(get("alice.test", "/uid.php"))
        answers = [one.read() for one in clients]
        for one in clients:
            one.sock.close()
        assert [answer and answer.body for answer in answers] == [f"{alice.uid} {alice.uid}".encode()] * 8
        assert len(masters(lab, alice.uid)) == 1
        assert masters(lab, bob.uid) == []
        sockets = list((lab.run / "tenants").glob("*/*.sock"))
        assert len({path.stat().st_ino for path in sockets}) == 1
        assert {(path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in sockets} == {(alice.uid, 0o600)}
        assert (sockets[0].parent.stat().st_uid, stat.S_IMODE(sockets[0].parent.stat().st_mode)) == (alice.uid, 0o700)
        assert lab.get("bob.test", "/uid.php").body == f"{bob.uid} {bob.uid}".encode()
        lab.stop()


def masters(lab: Lab, uid: int) -> list[int]:
    """Return the pids of a tenant's php-fpm masters."""
    pids = [pid for pid in tree_of(lab.pid)[1:] if uid_of(pid) == uid and comm_of(pid).startswith("php-fpm")]
    workers = {below for pid in pids for below in tree_of(pid)[1:]}
    return [pid for pid in pids if pid not in workers]


def test_a_pool_that_ends_is_started_again() -> None:
    """php-fpm killed between two requests: the next one waits for its successor."""
    with Lab(names=("alice",), host_config=POOL) as lab:
        alice = lab.tenants["alice"]
        alice.write("uid.php", SCRIPTS["uid.php"])
        lab.start()
        assert lab.get("alice.test", "/uid.php").status == 200
        [master] = masters(lab, alice.uid)
        pids = tree_of(master)
        os.kill(master, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, pids)), "php-fpm and its workers end")
        assert lab.get("alice.test", "/uid.php", timeout_s=30).body == f"{alice.uid} {alice.uid}".encode()
        lab.stop()


SECTIONS = """
PHPPool on max_children=1
php_value memory_limit 77M
php_admin_value arg_separator.output "it's; a = b"
<Files loose.php>
php_value memory_limit 55M
php_value session.name other
php_value precision 5
php_flag log_errors off
php_flag html_errors off
php_value date.timezone Europe/Vienna
php_value session.save_path "2;/tmp"
php_value error_reporting "E_ALL & ~E_NOTICE"
</Files>
<Files locked.php>
php_admin_value memory_limit 99M
php_admin_value default_charset latin1
</Files>
<Files mixed.php>
php_value default_charset ascii
</Files>
"""
SETTINGS = ("memory_limit", "session.name", "precision", "log_errors", "html_errors", "date.timezone", "session.save_path", "error_reporting",
            "default_charset", "arg_separator.output", "max_execution_time")
TELL = ("<?php ini_set('default_charset', 'koi8-r'); ini_set('memory_limit', '66M'); $all = []; "
        f"foreach ({list(SETTINGS)!r} as $name) {{ $all[$name] = ini_get($name); }} "
        "header('Content-Type: application/json'); echo json_encode([getmypid(), $all]);")


def test_what_one_place_sets_is_not_left_for_another() -> None:
    """One worker for two hosts: what it was told for one script it does not keep for the next, nor what is locked."""
    with Lab(names=("alice",)) as lab:
        alice = lab.tenants["alice"]
        for name in ("plain", "loose", "locked", "mixed"):
            alice.write(f"{name}.php", TELL)
        block = lab.host_block(alice, SECTIONS)
        other = lab.host_block(alice, SECTIONS[: SECTIONS.index("<Files")]).replace("ServerName alice.test", "ServerName other.test")
        lab.has_vhosts, lab.config_tail = False, block + other
        lab.start()

        def ask(host: str, name: str) -> tuple[int, dict[str, str]]:
            answer = lab.get(f"{host}.test", f"/{name}.php", timeout_s=30)
            assert answer.status == 200, (answer, lab.error_log()[-2000:])
            pid, values = json.loads(answer.body)
            return pid, values

        pid, base = ask("alice", "plain")
        assert {name: base[name] for name in SETTINGS if name != "session.save_path"} == {
            "memory_limit": "77M", "session.name": "PHPSESSID", "precision": "14", "log_errors": "1", "html_errors": "1",
            "date.timezone": base["date.timezone"], "error_reporting": "22527", "default_charset": "UTF-8",
            "arg_separator.output": "it's; a = b", "max_execution_time": "30"}
        loose = {**base, "memory_limit": "66M", "session.name": "other", "precision": "5", "log_errors": "0", "html_errors": "0",
                 "date.timezone": "Europe/Vienna", "session.save_path": "2;/tmp", "error_reporting": str(32767 & ~8)}
        locked = {**base, "memory_limit": "99M", "default_charset": "latin1"}
        wanted = {"plain": base, "loose": {**loose, "memory_limit": "55M"}, "locked": locked, "mixed": {**base, "default_charset": "ascii"}}
        for host, name in (("alice", "loose"), ("alice", "plain"), ("alice", "locked"), ("alice", "plain"), ("other", "plain"),
                           ("alice", "mixed"), ("alice", "loose"), ("other", "plain"), ("alice", "locked"), ("other", "loose")):
            assert ask(host, name) == (pid, wanted[name] if host == "alice" else base), (host, name)
        assert "unable to set" not in lab.error_log()
        lab.stop()


def test_a_php_that_is_not_installed_is_503_and_said() -> None:
    """The line names the package; the script's text is nobody's."""
    with Lab(names=("alice",), host_config="PHPPool 9.9\n") as lab:
        lab.tenants["alice"].write("uid.php", SCRIPTS["uid.php"])
        lab.start()
        answer = lab.get("alice.test", "/uid.php", timeout_s=30)
        assert (answer.status, b"posix" in answer.body) == (503, False)
        wait_until(lambda: "php-fpm9.9 is not installed" in lab.error_log(), "it is said")
        lab.stop()


def test_a_source_is_never_sent_where_nothing_runs_php() -> None:
    """No directive says a word of PHP: 503 and the remedy in the log; whoever wants the text says so."""
    with Lab(names=("alice",)) as lab:
        alice = lab.tenants["alice"]
        for name in ("x.php", "old.phtml", "shown/x.php"):
            alice.write(name, "<?php $secret = 1;")
        lab.config_tail = f"<Directory {alice.docroot}/shown>\nForceType text/plain\n</Directory>\n"
        lab.start()
        for name in ("/x.php", "/old.phtml", "/x.php/info"):
            answer = lab.get("alice.test", name)
            assert (answer.status, b"secret" in answer.body) == (503, False), name
        assert lab.get("alice.test", "/shown/x.php").body == b"<?php $secret = 1;"
        assert "no PHP runs here, PHPPool in the virtual host starts one" in lab.error_log()
