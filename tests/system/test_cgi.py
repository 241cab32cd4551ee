"""CGI through a real server: the request to the program, its answer to the client, and whoever of the two misbehaves.

Each program is executed by its tenant's runner; the tests look at what a client sees, at the error log, and at the processes.
Runs as: root, which starts the server.  Source: RFC 3875; httpd 2.4's mod_cgi for statuses and the words of the log.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.lab import Lab, Tenant, comm_of, is_alive, tree_of, uid_of, wait_until
from tests.system.wire import client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SHORT_S = 3  # Timeout of the host that waits for what does not come
CONFIG = """
KeepAliveTimeout 20
RequestReadTimeout body=10
"""
HOST = """
ScriptAlias /cgi-bin/ {home}/cgi-bin/
ScriptAlias /one {home}/cgi-bin/env
ScriptAlias /two/ {home}/cgi-bin/env/
ScriptAliasMatch ^/three(/.*)?$ {home}/cgi-bin/env$1
Alias /page {home}/public/index.html
AddHandler cgi-script .cgi
<Directory {home}/cgi-bin>
Require all granted
</Directory>
<Directory {home}/public/on>
Options +ExecCGI
DirectoryIndex none.html x.cgi
ErrorDocument 404 /cgi-bin/env
</Directory>
<Location /cgi-bin/env/auth>
CGIPassAuth On
</Location>
"""
MEGABYTE = 1 << 20

PROGRAMS = {
    "hello": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello\\n'\n",
    "env": "#!/usr/bin/python3\nimport json, os, sys\nprint('Content-Type: application/json\\n')\n"
           "json.dump({'env': dict(os.environ), 'uid': os.getuid(), 'argv': sys.argv, 'cwd': os.getcwd(), 'pid': os.getpid(),"
           " 'fds': sorted(int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd))}, sys.stdout)\n",
    "echo": "#!/bin/sh\nprintf 'Content-Type: application/octet-stream\\n\\n'\nexec cat\n",
    "sum": "#!/usr/bin/python3\nimport hashlib, os, sys\nbody = sys.stdin.buffer.read()\n"
           "print('X: y\\n\\n' + str(len(body)), hashlib.sha256(body).hexdigest(), os.environ.get('CONTENT_LENGTH', '-'))\n",
    "zeros": "#!/bin/sh\nprintf 'X: y\\n\\n'\nexec head -c 10485760 /dev/zero\n",
    "endless": "#!/bin/sh\nprintf 'X: y\\n\\n'\nexec cat /dev/zero\n",
    "say": "#!/usr/bin/python3\nimport os, sys\nfrom urllib.parse import unquote_to_bytes\n"
           "os.write(1, unquote_to_bytes(os.environ['QUERY_STRING']))\n",
    "nph-say": "#!/bin/sh\nprintf 'HTTP/1.1 299 Own\\r\\nX-Own: yes\\r\\n\\r\\nas it is'\n",
    "sleep": '#!/bin/sh\necho $$ > "$DOCUMENT_ROOT/pid"\nsleep 1000\n',
    "stall": "#!/bin/sh\nprintf 'X: y\\n\\nsome'\necho $$ > \"$DOCUMENT_ROOT/pid\"\nsleep 1000\n",
    "flood": "#!/usr/bin/python3\nimport os\nfor i in range(1000):\n    os.write(2, b'%04d ' % i + b'x' * 4000 + b'\\n')\n"
             "os.write(1, b'X: y\\n\\nfine')\n",
    "babble": "#!/usr/bin/python3\nimport os\nos.write(2, b'a\\n' * 5000)\nos.write(1, b'X: y\\n\\nfine')\n",
    "fail": "#!/bin/sh\necho 'it is broken' >&2\nexit 1\n",
    "complete": "#!/bin/sh\nprintf 'Content-Length: 2\\n\\nok'\nsleep 1000\n",
    "leads": "#!/bin/sh\nprintf 'Location: /cgi-bin/hello\\n\\n'\nsleep 1000\n",
    "careful": "#!/bin/sh\nprintf 'Content-Length: 2\\n\\nok'\nsleep 0.3\necho x > \"$DOCUMENT_ROOT/careful\"\n",
    "head": "#!/usr/bin/python3\nimport sys\nsys.stdout.write('X-Long: ' + 'a' * 60000 + '\\n\\nok')\n",
    "huge": "#!/usr/bin/python3\nimport sys\nsys.stdout.write('X-Long: ' + 'a' * 100000 + '\\n\\nok')\n",
}


def put_programs(tenant: Tenant) -> None:
    """Give a tenant its cgi-bin, and scripts among its files: on/ (ExecCGI) and off/."""
    tenant.put_programs(PROGRAMS)
    for name in ("on/x.cgi", "on/x.cgi.txt", "off/x.cgi"):
        tenant.write(name, PROGRAMS["hello"], 0o700)


def make_lab(config: str = CONFIG) -> Lab:
    """Return a server with two tenants that have programs, not started."""
    lab = Lab(config, names=("alice", "bob"))
    for tenant in lab.tenants.values():
        put_programs(tenant)
    blocks = "".join(lab.host_block(tenant, HOST.format(home=tenant.home)) for tenant in lab.tenants.values())
    lab.has_vhosts, lab.config_tail = False, blocks
    return lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A server with patience."""
    with make_lab() as one:
        yield one.start()


@pytest.fixture(scope="module")
def short() -> Iterator[Lab]:
    """A server that waits for SHORT_S seconds."""
    with make_lab(f"Timeout {SHORT_S}\nRequestReadTimeout body={SHORT_S}\n") as one:
        yield one.start()


def programs_of(lab: Lab, tenant: Tenant) -> list[int]:
    """Return the pids of a tenant's processes that are neither child nor runner."""
    return [pid for pid in tree_of(lab.pid)[1:] if uid_of(pid) == tenant.uid and is_alive(pid)
            and not comm_of(pid).startswith(("pc:", "pc-", "pr:"))]


def running(lab: Lab, name: str) -> list[int]:
    """Return the pids of a tenant's processes called `name`."""
    return [pid for pid in programs_of(lab, lab.tenants["alice"]) if comm_of(pid) == name]


def post(path: str, *fields: str, method: str = "POST") -> bytes:
    """Return the head of one request with a body."""
    return get("alice.test", path, *fields, method=method)


# ---------------------------------------------------------------- requests


def test_program_runs_as_its_tenant_with_the_request_as_its_environment(lab: Lab) -> None:
    """uid, working directory, descriptors 0 to 2, RFC 3875's variables; nothing of the server's own environment."""
    for tenant in lab.tenants.values():
        answer = lab.get(tenant.host, "/cgi-bin/env/more/path?a=1&b=2", fields={"X-One": "1", "X_Two": "2", "Proxy": "evil"})
        assert answer.status == 200
        assert answer.fields["content-type"] == "application/json"
        said = answer.json()
        env = said["env"]
        assert said["uid"] == tenant.uid
        assert said["cwd"] == str(tenant.home / "cgi-bin")
        assert [fd for fd in said["fds"] if fd > 2] == []
        wanted = {"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "QUERY_STRING": "a=1&b=2", "SCRIPT_NAME": "/cgi-bin/env",
                  "PATH_INFO": "/more/path", "SCRIPT_FILENAME": str(tenant.home / "cgi-bin/env"), "SERVER_NAME": tenant.host,
                  "SERVER_PROTOCOL": lab.version, "SERVER_PORT": "443" if lab.tls else "80", "HTTPS": "on" if lab.tls else None, "REMOTE_ADDR": "127.0.0.1", "HTTP_X_ONE": "1",
                  "DOCUMENT_ROOT": str(tenant.docroot)}
        assert {name: env.get(name) for name in wanted} == wanted
        assert not {"HTTP_X_TWO", "HTTP_PROXY", "CONTENT_LENGTH", "NOTIFY_SOCKET", "PYTHONPATH"} & env.keys()


@pytest.mark.parametrize(("path", "name", "behind"), [
    ("/one", "/one", None), ("/one/", "/one", "/"), ("/one/more/a%20b", "/one", "/more/a b"), ("/two/", "/two", "/"), ("/two/a", "/two", "/a"),
    ("/three", "/three", None), ("/three/a/b/", "/three", "/a/b/")])
def test_an_alias_of_one_program_takes_what_is_behind_it(lab: Lab, path: str, name: str, behind: str | None) -> None:
    """ScriptAlias /git/ /usr/lib/git-core/git-http-backend/: as git's manual has it."""
    answer = lab.get("alice.test", path + "?q=1")
    assert answer.status == 200
    env = answer.json()["env"]
    program = str(lab.tenants["alice"].home / "cgi-bin/env")
    assert (env["SCRIPT_NAME"], env.get("PATH_INFO"), env["SCRIPT_FILENAME"], env["QUERY_STRING"]) == (name, behind, program, "q=1")


def test_an_alias_of_one_file_takes_nothing_behind_it(lab: Lab) -> None:
    """A page is no program; "/onemore" is another name."""
    assert [lab.get("alice.test", path).status for path in ("/page", "/page/", "/page/more", "/onemore")] == [200, 404, 404, 404]
    assert lab.get("alice.test", "/page").body == b"alice\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "PROPFIND"])
def test_program_gets_the_body_whatever_the_method(lab: Lab, method: str) -> None:
    """A body of known length, then the next request on the same connection."""
    with client(lab) as conn:
        for size in (0, 1, 70_000):
            body = os.urandom(size)
            answer = conn.ask(post("/cgi-bin/sum", f"Content-Length: {size}", method=method) + body)
            assert answer.status == 200
            assert answer.body.decode().split() == [str(size), hashlib.sha256(body).hexdigest(), str(size)]
        assert conn.ask(get("alice.test", "/index.html")).body == b"alice\n"


def test_chunked_body_reaches_the_program_as_it_comes(lab: Lab) -> None:
    """No CONTENT_LENGTH is made up; pieces of any size; a request behind it."""
    body = os.urandom(300_000)
    with client(lab) as conn:
        conn.send(post("/cgi-bin/sum", "Transfer-Encoding: chunked"))
        for at in range(0, len(body), 7919):
            piece = body[at:at + 7919]
            conn.send(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
        conn.send(b"0\r\nTrailer: yes\r\n\r\n" + get("alice.test", "/index.html"))
        answer = conn.read()
        assert answer is not None
        assert answer.body.decode().split() == [str(len(body)), hashlib.sha256(body).hexdigest(), "-"]
        behind = conn.read()
        assert behind is not None
        assert behind.body == b"alice\n"


def test_bodies_of_ten_megabytes_go_both_ways_at_once(lab: Lab) -> None:
    """An echoing program: what it cannot keep it must give back before it takes more."""
    body = os.urandom(MEGABYTE) * 10
    with client(lab, timeout_s=60) as conn:
        sender = threading.Thread(target=conn.send, args=(post("/cgi-bin/echo", f"Content-Length: {len(body)}") + body,))
        sender.start()
        answer = conn.read()
        sender.join()
        assert answer is not None
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
        assert conn.ask(get("alice.test", "/index.html")).status == 200


def test_a_client_is_asked_for_its_body_when_a_program_wants_it(lab: Lab) -> None:
    """Expect: 100-continue."""
    with client(lab) as conn:
        conn.send(post("/cgi-bin/sum", "Content-Length: 4", "Expect: 100-continue"))
        interim = conn.read()
        assert interim is not None
        assert interim.status == 100
        conn.send(b"body")
        answer = conn.read()
        assert answer is not None
        assert answer.body.startswith(b"4 ")


def test_answer_begins_before_the_request_has_ended(lab: Lab) -> None:
    """Neither direction waits for the other."""
    with client(lab) as conn:
        conn.send(post("/cgi-bin/echo", "Transfer-Encoding: chunked") + b"5\r\nfirst\r\n")
        while b"first" not in conn.buffer:
            assert conn.fill()
        conn.send(b"6\r\nsecond\r\n0\r\n\r\n")
        answer = conn.read()
        assert answer is not None
        assert answer.body == b"firstsecond"


# ---------------------------------------------------------------- answers


def say(text: str) -> str:
    """Return the path of the program that answers `text`, byte for byte."""
    return "/cgi-bin/say?" + "".join(f"%{byte:02x}" for byte in text.encode("latin-1"))


@pytest.mark.parametrize(("text", "status", "field", "body"), [
    ("Content-Type: text/x\r\n\r\nbody", 200, ("content-type", "text/x"), b"body"),
    ("Status: 404 Gone Fishing\n\nnone", 404, None, b"none"),
    ("Location: http://elsewhere.test/x\n\n", 302, ("location", "http://elsewhere.test/x"), b""),
    ("Status: 301\nLocation: /cgi-bin/hello\n\nmoved", 301, ("location", "/cgi-bin/hello"), b"moved"),
    ("Location: /cgi-bin/hello?x\n\n", 200, ("content-type", "text/plain"), b"hello\n"),
    ("Location: /index.html\n\n", 200, None, b"alice\n"),
    ("Location: /nowhere\n\n", 404, None, None),
    ("Status: 204\n\nunheard", 204, None, b""),
    ("Content-Length: 2\n\nabcd", 200, ("content-length", "2"), b"ab"),
    ("Status: 200\nX-A: 1\r\nX-B: 2\n\n", 200, ("x-b", "2"), b""),
    ("X-A: 1\rX-B: 2\n\nsplit", 500, None, None),
    ("X-A: 1\n folded\n\n", 500, None, None),
    ("X-A : 1\n\n", 500, None, None),
    ("X-A: 1\0\n\n", 500, None, None),
    ("Content-Length: 1\nContent-Length: 2\n\n", 500, None, None),
    ("Status: 100\n\n", 500, None, None),
    ("no header at all\n\n", 500, None, None),
    ("", 500, None, None),
])
def test_answers(lab: Lab, text: str, status: int, field: tuple[str, str] | None, body: bytes | None) -> None:
    """Status, redirects local and not, framing; whatever breaks a rule is 500 and nothing of it is passed on."""
    with client(lab) as conn:
        answer = conn.ask(get("alice.test", say(text)))
        assert answer.status == status
        assert field is None or answer.fields.get(field[0]) == field[1]
        assert body is None or answer.body == body
        if status == 500:
            assert b"split" not in answer.raw
            assert "x-b" not in answer.fields
        assert conn.ask(get("alice.test", "/index.html")).body == b"alice\n"


def test_nph_script_has_the_last_word(lab: Lab) -> None:
    """Its own status line and fields; the connection of HTTP/1.1 ends behind it."""
    with client(lab) as conn:
        answer = conn.ask(get("alice.test", "/cgi-bin/nph-say"))
        assert (answer.status, answer.fields["x-own"], answer.body) == (299, "yes", b"as it is")
        assert lab.h2 or conn.reads_end()


def test_head_and_conditional_requests_get_heads(lab: Lab) -> None:
    """HEAD: no body; validators of the program's own: 304."""
    dated = say('ETag: "e1"\nContent-Type: text/plain\n\nbody')
    with client(lab) as conn:
        head = conn.ask(get("alice.test", "/cgi-bin/zeros", method="HEAD"))
        assert (head.status, head.body) == (200, b"")
        assert conn.ask(get("alice.test", dated)).body == b"body"
        assert conn.ask(get("alice.test", dated, 'If-None-Match: "e1"')).status == 304
        assert conn.ask(get("alice.test", dated, 'If-Match: "e2"')).status == 412
        assert conn.ask(get("alice.test", "/index.html")).status == 200


def test_large_heads_pass_and_larger_ones_do_not(lab: Lab) -> None:
    """60 KB of one field arrive; 100 KB are 500."""
    assert len(lab.get("alice.test", "/cgi-bin/head").fields["x-long"]) == 60000
    assert lab.get("alice.test", "/cgi-bin/huge").status == 500


@pytest.mark.http1("HTTP/1.0")
def test_http10_clients_get_bodies_without_chunks(lab: Lab) -> None:
    """The connection's end is the body's."""
    with client(lab) as conn:
        conn.send("GET /cgi-bin/zeros HTTP/1.0\r\nHost: alice.test\r\n\r\n")
        answer = conn.read()
        assert answer is not None
        assert "transfer-encoding" not in answer.fields
        assert len(answer.body) == 10 * MEGABYTE


def test_requests_behind_a_program_are_answered_in_order(lab: Lab) -> None:
    """A pipeline of programs and files."""
    paths = ["/cgi-bin/hello", "/index.html", "/cgi-bin/env", "/cgi-bin/none", "/index.html"]
    with client(lab) as conn:
        conn.send(b"".join(get("alice.test", path) for path in paths))
        answers = [conn.read() for _ in paths]
        assert [answer.status if answer else None for answer in answers] == [200, 200, 200, 404, 200]
        assert answers[0] is not None
        assert answers[0].body == b"hello\n"


# ---------------------------------------------------------------- what is a program


def test_scripts_run_only_where_they_may(lab: Lab) -> None:
    """ExecCGI; every extension counts; a source is never sent."""
    assert lab.get("alice.test", "/on/x.cgi").body == b"hello\n"
    assert lab.get("alice.test", "/on/x.cgi.txt").body == b"hello\n"
    assert lab.get("alice.test", "/on/x.cgi/info").body == b"hello\n"
    for path, status in (("/off/x.cgi", 403), ("/cgi-bin/none", 404), ("/cgi-bin/", 403)):
        answer = lab.get("alice.test", path)
        assert answer.status == status
        assert b"/bin/sh" not in answer.body
    log = lab.error_log()
    for words in ("AH02809: Options ExecCGI is off in this directory: ", "AH02811: script not found or unable to stat: ",
                  "AH02812: attempt to invoke directory as script: "):
        assert words in log


def test_programs_as_index_and_as_error_document(lab: Lab) -> None:
    """A directory's index may be a script; an ErrorDocument may, and knows what it stands for; the status stays."""
    assert lab.get("alice.test", "/on/").body == b"hello\n"
    with client(lab) as conn:
        answer = conn.ask(get("alice.test", "/on/nothing?x=1"))
        assert answer.status == 404
        env = answer.json()["env"]
        wanted = {"REDIRECT_STATUS": "404", "REDIRECT_URL": "/on/nothing", "REDIRECT_QUERY_STRING": "x=1", "REQUEST_METHOD": "GET"}
        assert {name: env.get(name) for name in wanted} == wanted
        assert conn.ask(post("/on/nothing", "Content-Length: 4") + b"body").status == 404


def test_credentials_reach_a_program_only_if_it_is_said(lab: Lab) -> None:
    """CGIPassAuth."""
    fields = {"Authorization": "Basic eDp5"}
    assert "HTTP_AUTHORIZATION" not in lab.get("alice.test", "/cgi-bin/env", fields=fields).json()["env"]
    assert lab.get("alice.test", "/cgi-bin/env/auth", fields=fields).json()["env"]["HTTP_AUTHORIZATION"] == "Basic eDp5"


def test_what_cannot_be_executed_is_500_and_its_reason_in_the_log(lab: Lab) -> None:
    """suEXEC's checks are the runner's; it says on the program's error output why."""
    alice = lab.tenants["alice"]
    path = alice.home / "cgi-bin" / "loose"
    path.write_text(PROGRAMS["hello"])
    path.chmod(0o777)
    os.chown(path, alice.uid, alice.uid)
    assert lab.get("alice.test", "/cgi-bin/loose").status == 500
    assert f"AH01215: stderr from {path}: " in lab.error_log()
    assert "End of script output before headers: loose" in lab.error_log()


# ---------------------------------------------------------------- programs and clients that misbehave


def test_error_output_goes_to_the_hosts_log(lab: Lab) -> None:
    """In whole lines, with its prefix; a program that says nothing else is 500."""
    assert lab.get("alice.test", "/cgi-bin/fail").status == 500
    path = lab.tenants["alice"].home / "cgi-bin" / "fail"
    assert f"AH01215: stderr from {path}: it is broken\n" in lab.error_log()
    assert "End of script output before headers: fail\n" in lab.error_log()


def test_a_flood_of_error_output_does_not_block_the_program(lab: Lab) -> None:
    """4 MB of it: the answer comes, and the log holds at most the limit."""
    before = len(lab.error_log())
    assert lab.get("alice.test", "/cgi-bin/flood", timeout_s=30).body == b"fine"
    grown = len(lab.error_log()) - before
    assert MEGABYTE // 2 < grown < 2 * MEGABYTE
    assert "more than 1048576 bytes, the rest is not logged" in lab.error_log()


def test_lines_of_error_output_are_bounded_too(lab: Lab) -> None:
    """Each gets a prefix many times as long as a short line; how many are left out is said."""
    path = lab.tenants["alice"].home / "cgi-bin" / "babble"
    assert lab.get("alice.test", "/cgi-bin/babble").body == b"fine"
    wait_until(lambda: f"stderr from {path}: 904 more lines are not logged\n" in lab.error_log(), "it is said")
    assert lab.error_log().count(f"AH01215: stderr from {path}: a\n") == 4096


def test_a_program_that_does_not_read_its_input_still_answers(lab: Lab) -> None:
    """The body goes nowhere; the connection ends if it was not read to its end."""
    with client(lab) as conn:
        assert conn.ask(post("/cgi-bin/hello", "Content-Length: 1000") + bytes(1000)).body == b"hello\n"
    body = bytes(5 * MEGABYTE)
    with client(lab) as conn:
        sender = threading.Thread(target=conn.send, args=(post("/cgi-bin/hello", f"Content-Length: {len(body)}") + body,))
        sender.start()
        answer = conn.read()
        sender.join()
        assert answer is not None
        assert answer.body == b"hello\n"


@pytest.mark.parametrize("path", ["/cgi-bin/sleep", "/cgi-bin/endless"])
def test_a_client_that_leaves_ends_its_program(lab: Lab, path: str) -> None:
    """Whether it waits for the head or has read some of the body: no process of the program stays."""
    wait_until(lambda: not programs_of(lab, lab.tenants["alice"]), "nothing of other tests runs")
    with client(lab) as conn:
        conn.send(get("alice.test", path))
        if path == "/cgi-bin/endless":
            assert conn.fill()
        wait_until(lambda: programs_of(lab, lab.tenants["alice"]), "the program runs")
    wait_until(lambda: not programs_of(lab, lab.tenants["alice"]), "the program has ended")


def test_a_client_that_leaves_a_stalled_answer_is_seen_at_the_timeout(short: Lab) -> None:
    """A closed connection looks like a half-closed one until something is sent, and within a body nothing else may be."""
    with client(short) as conn:
        conn.send(get("alice.test", "/cgi-bin/stall"))
        assert conn.fill()
        wait_until(lambda: programs_of(short, short.tenants["alice"]), "the program runs")
    wait_until(lambda: not programs_of(short, short.tenants["alice"]), "the program has ended")


def test_a_client_that_leaves_in_its_body_ends_its_program(lab: Lab) -> None:
    """The program waits for more input, which never comes."""
    wait_until(lambda: not running(lab, "cat"), "nothing of other tests runs")
    with client(lab) as conn:
        conn.send(post("/cgi-bin/echo", "Content-Length: 100") + b"some")
        wait_until(lambda: running(lab, "cat"), "the program runs")
    wait_until(lambda: not running(lab, "cat"), "the program has ended")


def test_a_client_that_reads_slowly_gets_it_all(lab: Lab) -> None:
    """10 MB through a small window, while others are served."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", lab.port))
    sock.settimeout(30)
    with lab.speak(sock) as speaking:
        speaking.sendall(get("alice.test", "/cgi-bin/zeros", "Connection: close"))
        assert lab.get("alice.test", "/cgi-bin/hello").body == b"hello\n"
        received = 0
        while part := speaking.recv(1 << 16):
            received += len(part)
    assert received > 10 * MEGABYTE


def test_silent_programs_are_504_or_cut_and_gone(short: Lab) -> None:
    """Timeout: before its head 504, behind it the connection is cut; the program is ended."""
    answer = short.get("alice.test", "/cgi-bin/sleep", timeout_s=60)
    assert answer.status == 504
    assert "AH01220: Timeout waiting for output from " in short.error_log()
    cut = short.get("alice.test", "/cgi-bin/stall", timeout_s=60)
    assert cut.status == 200
    assert not cut.raw.endswith(b"0\r\n\r\n")
    wait_until(lambda: not programs_of(short, short.tenants["alice"]), "the programs have ended")


@pytest.mark.parametrize(("path", "body"), [("complete", b"ok"), ("leads", b"hello\n")])
def test_a_program_that_stays_behind_its_answer_is_ended(short: Lab, path: str, body: bytes) -> None:
    """A length or a redirect says that nothing more is to come: it has Timeout to end by itself."""
    assert short.get("alice.test", f"/cgi-bin/{path}").body == body
    assert programs_of(short, short.tenants["alice"])
    wait_until(lambda: not programs_of(short, short.tenants["alice"]), "the program has ended")


def test_a_program_may_tidy_up_behind_its_answer(short: Lab) -> None:
    """Nobody waits for it, and nobody ends it for a while."""
    assert short.get("alice.test", "/cgi-bin/careful").body == b"ok"
    wait_until((short.tenants["alice"].docroot / "careful").exists, "it has done what it had to")


def test_a_program_that_never_reads_and_a_client_that_never_sends(short: Lab) -> None:
    """The one is the program's fault (504), the other the client's (408)."""
    with client(short, timeout_s=60) as conn:
        conn.sock.settimeout(60)
        sender = threading.Thread(target=conn.send, args=(post("/cgi-bin/sleep", "Content-Length: 5000000") + bytes(5_000_000),))
        sender.start()
        answer = conn.read()
        sender.join()
        assert answer is not None
        assert answer.status == 504
    with client(short, timeout_s=60) as conn:
        answer = conn.ask(post("/cgi-bin/sum", "Content-Length: 10") + b"some")
        assert answer.status == 408
    wait_until(lambda: not programs_of(short, short.tenants["alice"]), "the programs have ended")


def test_a_hundred_clients_that_leave_leave_nothing(lab: Lab) -> None:
    """Processes and descriptors are as before; the other tenant is served meanwhile."""
    assert lab.get("alice.test", "/cgi-bin/hello").status == 200
    wait_until(lambda: not programs_of(lab, lab.tenants["alice"]), "nothing runs")
    child = next(pid for pid in lab.children(lab.tenants["alice"].uid) if comm_of(pid).startswith("pc:"))
    before = len(os.listdir(f"/proc/{child}/fd"))
    clients = [client(lab) for _ in range(100)]
    for one in clients:
        one.send(get("alice.test", "/cgi-bin/sleep"))
    assert lab.get("bob.test", "/cgi-bin/hello").body == b"hello\n"
    for one in clients:
        one.sock.close()
    wait_until(lambda: not programs_of(lab, lab.tenants["alice"]), "their programs have ended", 30)
    wait_until(lambda: len(os.listdir(f"/proc/{child}/fd")) <= before, "their descriptors are closed")
    assert lab.get("alice.test", "/cgi-bin/hello").body == b"hello\n"


def test_a_stop_is_over_when_the_programs_are() -> None:
    """One that finishes what it does when it is asked to end has the time to, and nothing is left when the main process ends."""
    with make_lab() as one:
        alice = one.tenants["alice"]
        program = alice.home / "cgi-bin" / "careful"
        program.write_text('#!/bin/sh\ncd "$DOCUMENT_ROOT"\ntrap "sleep 1; echo x >ended; exit" TERM\necho $$ >pid\nsleep 1000 &\nwait\n')
        program.chmod(0o700)
        os.chown(program, alice.uid, alice.uid)
        one.start()
        with client(one) as asking:
            asking.send(get("alice.test", "/cgi-bin/careful"))
            wait_until((alice.docroot / "pid").exists, "it runs")
            one.stop()
        assert (alice.docroot / "ended").exists()
