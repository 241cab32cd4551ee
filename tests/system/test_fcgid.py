"""FcgidWrapper through a real server: Debian's php-cgi behind starters as hosting panels write them.

Runs as: root, which starts the server; starters, php-cgi and scripts run as their tenants.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, Response, Tenant, comm_of, tree_of, uid_of, wait_until
from tests.system.wire import client, get

PHP_CGI = shutil.which("php-cgi")
pytestmark = [pytest.mark.root, pytest.mark.timeout(120),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"), pytest.mark.skipif(not PHP_CGI, reason="no php-cgi")]

STARTER = """#!/bin/sh
PHPRC={home}/etc
export PHPRC
{more}
exec {php} "$@"
"""
FORMS = {
    "hestia": "<Directory {root}>\nOptions +ExecCGI -Indexes\n<Files *.php>\nSetHandler fcgid-script\n</Files>\n"
              "FCGIWrapper {starter} .php\n</Directory>\n",
    "ispconfig": '<Directory {root}>\n<FilesMatch "\\.php[345]?$">\nSetHandler fcgid-script\n</FilesMatch>\n'
                 "FCGIWrapper {starter} .php\nFCGIWrapper {starter} .php3\nOptions +ExecCGI\nAllowOverride None\nRequire all granted\n"
                 "</Directory>\n",
    "virtualmin": "<Directory {root}>\nOptions -Indexes +SymLinksIfOwnerMatch +ExecCGI\nAddType application/x-httpd-php .php\n"
                  "AddHandler fcgid-script .php\nFCGIWrapper {starter} .php\n</Directory>\nRemoveHandler .php\n",
    "froxlor": '<FilesMatch "\\.(php)$">\nSetHandler fcgid-script\nFcgidWrapper {starter} .php\n'
               "Options +ExecCGI\n</FilesMatch>\n",
    "plain": "FcgidWrapper '{starter} -d precision=9' .php\nAddHandler fcgid-script .php\nOptions +ExecCGI\n",
}
SCRIPTS = {
    "who.php": "<?php echo posix_getuid(), ' ', posix_getgid(), ' ', getmypid(), ' ', ini_get('memory_limit');",
    "server.php": "<?php header('Content-Type: application/json'); echo json_encode($_SERVER);",
    "env.php": "<?php header('Content-Type: application/json'); echo file_get_contents('/proc/self/environ') === '' ? '' : "
               "json_encode(explode(\"\\0\", trim(file_get_contents('/proc/self/environ'), \"\\0\")));",
    "post.php": "<?php echo $_POST['a'], ' ', strlen($_POST['b']);",
    "wait.php": "<?php touch('in' . getmypid()); while (!file_exists('go')) { usleep(2000); clearstatcache(); } echo getmypid();",
    "log.php": "<?php error_log('a script says'); echo 'ok';",
}


def put_starter(tenant: Tenant, more: str = "", text: str = STARTER, mode: int = 0o700) -> Path:
    """Write a tenant's starter with the php.ini that it names."""
    path, ini = tenant.home / "fcgi-bin/php.fcgi", tenant.home / "etc/php.ini"
    for one in (path, ini):
        one.parent.mkdir(exist_ok=True)
    path.write_text(text.format(home=tenant.home, php=PHP_CGI, more=more))
    ini.write_text("memory_limit = 73M\nlog_errors = On\ndisplay_errors = Off\n")
    path.chmod(mode)
    for one in (path, ini, path.parent, ini.parent):
        os.chown(one, tenant.uid, tenant.uid)
    path.parent.chmod(0o700)
    return path


ONE = "FcgidMaxProcessesPerClass 1\n"  # else a request that waits for a slow start would have a second one started


def make_lab(form: str = FORMS["hestia"], config: str = ONE, *, more: str = "", text: str = STARTER, mode: int = 0o700) -> Lab:
    """Return a started server whose tenants have a starter and scripts."""
    lab = Lab(config, names=("alice", "bob"))
    lab.has_vhosts = False
    blocks = []
    for tenant in lab.tenants.values():
        starter = put_starter(tenant, more, text, mode)
        for name, script in SCRIPTS.items():
            tenant.write(name, script)
        blocks.append(lab.host_block(tenant, form.format(root=tenant.docroot, starter=starter)))
    lab.config_tail = "".join(blocks)
    try:
        return lab.start()
    except BaseException:
        lab.close()
        raise


def fetch(lab: Lab, path: str, name: str = "alice") -> Response:
    """Return an answer that succeeds."""
    answer = lab.get(f"{name}.test", path, timeout_s=30)
    assert answer.status == 200, (answer, lab.error_log()[-1000:])
    return answer


def programs(lab: Lab, uid: int) -> list[int]:
    """Return the pids of a tenant's php-cgi."""
    return [pid for pid in tree_of(lab.pid)[1:] if uid_of(pid) == uid and comm_of(pid) == "php-cgi"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """One server for the tests that leave it as it was."""
    with make_lab(config=ONE + "FcgidInitialEnv GREETING 'hello you'\n") as lab:
        yield lab


@pytest.mark.parametrize("form", FORMS)
def test_what_panels_write_runs_as_each_tenant(form: str) -> None:
    """The uid is the tenant's, the settings are those of the php.ini that its starter names."""
    with make_lab(FORMS[form]) as lab:
        for name, tenant in lab.tenants.items():
            uid, gid, pid, memory = fetch(lab, "/who.php", name).body.decode().split()
            assert (int(uid), int(gid), memory) == (tenant.uid, tenant.uid, "73M")
            assert fetch(lab, "/who.php", name).body.split()[2] == pid.encode(), "it is kept"
        lab.stop()


def test_php_sees_the_request(shared: Lab) -> None:
    """SCRIPT_NAME, PATH_INFO, a form's fields; the error log has what a script says."""
    said, root = fetch(shared, "/server.php/more/x?a=1").json(), shared.tenants["alice"].docroot
    wanted = {"SCRIPT_NAME": "/server.php", "PATH_INFO": "/more/x", "QUERY_STRING": "a=1", "SCRIPT_FILENAME": f"{root}/server.php",
              "DOCUMENT_ROOT": str(root), "REQUEST_URI": "/server.php/more/x?a=1", "SERVER_NAME": "alice.test"}
    assert {name: said.get(name) for name in wanted} == wanted
    answer = shared.get("alice.test", "/post.php", method="POST", body=b"a=value&b=" + b"x" * 300_000,
                        fields={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.body == b"value 300000"
    assert fetch(shared, "/log.php").body == b"ok"
    wait_until(lambda: "a script says" in shared.error_log(), "the line")


def test_it_is_started_with_nothing_of_the_servers(shared: Lab) -> None:
    """Its variables are ours and those of FcgidInitialEnv; its descriptors are the socket, and the log's pipe."""
    names = {line.partition("=")[0]: line.partition("=")[2] for line in json.loads(fetch(shared, "/env.php").body)}
    assert names["GREETING"] == "hello you"
    assert names.keys() <= {"PATH", "HOME", "USER", "LOGNAME", "LANG", "GREETING", "PHPRC", "PWD", "OLDPWD", "_", "SHLVL"}
    [pid] = programs(shared, shared.tenants["alice"].uid)
    links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in ("0", "1", "2")}
    assert links == {"0": "socket", "1": "pipe", "2": "pipe"}
    assert os.readlink(f"/proc/{pid}/cwd") == str(shared.tenants["alice"].home / "fcgi-bin")


def test_what_is_not_there_and_what_may_not_run(shared: Lab) -> None:
    """404 by the server, 403 without ExecCGI; never the source."""
    assert [shared.get("alice.test", path).status for path in ("/none.php", "/none/x.php")] == [404, 404]
    with make_lab("FcgidWrapper {starter} .php\nAddHandler fcgid-script .php .other\n") as lab:
        lab.tenants["alice"].write("x.other", "<?php secret")
        for path, status, line in (("/who.php", 403, "Options ExecCGI is off in this directory"), ("/x.other", 503, "no FcgidWrapper names")):
            answer = lab.get("alice.test", path)
            assert (answer.status, b"<?php" in answer.body) == (status, False)
            assert line in lab.error_log()


def test_waiting_requests_start_more_processes_up_to_the_limit() -> None:
    """Four at once and two processes at most: two are served, the others wait for them."""
    with make_lab(config="FcgidMaxProcessesPerClass 2\n") as lab:
        alice = lab.tenants["alice"]
        clients = [client(lab) for _ in range(4)]
        for one in clients:
            one.send(get("alice.test", "/wait.php"))
        wait_until(lambda: len(list(alice.docroot.glob("in[0-9]*"))) == 2, "two are within the script")
        assert len(programs(lab, alice.uid)) == 2
        alice.write("go", "")
        answers = [one.read() for one in clients]
        for one in clients:
            one.sock.close()
        assert [one.status for one in answers if one] == [200] * 4
        assert len({one.body for one in answers if one}) == 2
        lab.stop()


def test_processes_that_are_killed_are_started_again() -> None:
    """One of two, then both."""
    with make_lab(config="FcgidMaxProcessesPerClass 2\n") as lab:
        alice = lab.tenants["alice"]
        clients = [client(lab) for _ in range(2)]
        for one in clients:
            one.send(get("alice.test", "/wait.php"))
        wait_until(lambda: len(programs(lab, alice.uid)) == 2 and len(list(alice.docroot.glob("in[0-9]*"))) == 2, "two of them")
        alice.write("go", "")
        assert all(one.read() for one in clients)
        for one in clients:
            one.sock.close()
        for count in (1, 2):
            pids = programs(lab, alice.uid)
            for pid in pids[:count]:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda gone=pids[:count]: not set(gone) & set(programs(lab, alice.uid)), "they end")
            assert fetch(lab, "/who.php").body.split()[0] == str(alice.uid).encode()
        wait_until(lambda: "signal 9" in lab.error_log(), "the runner has said how they ended")
        lab.stop()


def test_an_end_after_so_many_requests_is_no_failure() -> None:
    """PHP_FCGI_MAX_REQUESTS in the starter: a new process for each two requests, and no error."""
    with make_lab(more="PHP_FCGI_MAX_REQUESTS=2\nexport PHP_FCGI_MAX_REQUESTS") as lab:
        pids = [fetch(lab, "/who.php").body.split()[2] for _ in range(8)]
        assert len(set(pids)) == 4
        assert "ended with" not in lab.error_log()
        lab.stop()


def test_a_starter_may_bring_children_of_its_own() -> None:
    """PHP_FCGI_CHILDREN: they end with it."""
    with make_lab(more="PHP_FCGI_CHILDREN=3\nexport PHP_FCGI_CHILDREN") as lab:
        fetch(lab, "/who.php")
        wait_until(lambda: len(programs(lab, lab.tenants["alice"].uid)) == 4, "a master and three")
        lab.stop()


def test_it_ends_when_idle_and_comes_back() -> None:
    """RunnerIdle; the next request starts it again."""
    with make_lab(config=ONE + "RunnerIdle 1\n") as lab:
        alice = lab.tenants["alice"]
        first = fetch(lab, "/who.php").body
        wait_until(lambda: not programs(lab, alice.uid), "it ends")
        assert "error" not in lab.error_log()
        assert fetch(lab, "/who.php").body != first
        lab.stop()


def test_a_changed_starter_is_started_anew() -> None:
    """Panels write another version of PHP into it."""
    with make_lab() as lab:
        alice = lab.tenants["alice"]
        first = fetch(lab, "/who.php").body.split()[2]
        put_starter(alice)
        os.utime(alice.home / "fcgi-bin/php.fcgi", (1, 1))
        wait_until(lambda: fetch(lab, "/who.php").body.split()[2] != first, "another process")
        lab.stop()


@pytest.mark.parametrize(("text", "mode", "line"), [
    (STARTER, 0o770, "php.fcgi is not executed: it can be written to by group or others"),
    (STARTER, 0o600, "php.fcgi is not executed: it is not executable by its user"),
    ("#!/bin/sh\necho no FastCGI here\n", 0o700, "fcgid0: no FastCGI here"),
    ("#!/bin/sh\necho broken >&2; exit 3\n", 0o700, "ended with status 3 just after its start: broken"),
], ids=["writable", "mode", "exit 0", "exit 3"])
def test_a_starter_that_does_not_start_is_said(text: str, mode: int, line: str) -> None:
    """The line says why, and nobody sees the source; 502 for a request that waited in its socket."""
    with make_lab(text=text, mode=mode) as lab:
        answer = lab.get("alice.test", "/who.php", timeout_s=30)
        assert answer.status == (503 if mode != 0o700 else 502), lab.error_log()[-1500:]
        assert b"posix" not in answer.body
        wait_until(lambda: line in lab.error_log(), "the runner has said why")
        lab.stop()
