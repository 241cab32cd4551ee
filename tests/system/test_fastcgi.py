"""FastCGI through a real server: a responder written here, which keeps or breaks the rules, and Debian's php-fpm.

What a client sees, what the responder gets, and what the error log says. The responder listens on a Unix socket that is its tenant's
alone, or on a TCP port.
Runs as: root, which starts the server.  Source: FastCGI 1.0; httpd 2.4's mod_proxy_fcgi for statuses and the words of the log.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.fastcgi import STDOUT, Call, Responder
from tests.lab import Lab, Response, free_port, wait_until
from tests.system.wire import Client, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SHORT_S = 4
MEGABYTE = 1 << 20
SOURCE = "<?php /* secret */ echo 1;\n"
HOST = """
<FilesMatch "\\.php$">
SetHandler "proxy:unix:{home}/app.sock|fcgi://localhost/"
</FilesMatch>
<FilesMatch "\\.tcp$">
SetHandler "proxy:fcgi://127.0.0.1:{port}"
</FilesMatch>
<FilesMatch "\\.gone$">
SetHandler "proxy:unix:{home}/gone.sock|fcgi://localhost/"
</FilesMatch>
<FilesMatch "\\.bobs$">
SetHandler "proxy:unix:{bob}/app.sock|fcgi://localhost/"
</FilesMatch>
AddHandler proxy:fcgi://127.0.0.1:{closed} refused
AddHandler application/x-httpd-php83 php83
AddHandler fcgid-script fcgid
Action wrapped /x.php
Action virtual-one /x.php virtual
AddHandler wrapped wrapped
Action looped /program.looped
AddHandler looped looped
<Location /virtual>
SetHandler virtual-one
</Location>
<Files sendcl.tcp>
SetEnv proxy-sendcl 1
</Files>
php_value memory_limit 64M
php_admin_value open_basedir /srv
php_flag display_errors off
<Files special.php>
php_value memory_limit 99M
</Files>
<Files full.php>
{many}
</Files>
"""


class Site:
    """A server with alice and bob, and one responder for each of alice's sockets; what they do is set by each test."""

    def __init__(self, config: str = "") -> None:
        """Start all of it."""
        self.serve: Callable[[Call], None] = plain
        self.lab = Lab(config, names=("alice", "bob"))
        self.alice, self.bob = self.lab.tenants["alice"], self.lab.tenants["bob"]
        for name in ("x.php", "special.php", "sendcl.tcp", "full.php", "x.tcp", "x.gone", "x.bobs", "x.refused", "x.php83", "x.fcgid", "x.wrapped",
                     "x.php-notes.wrapped", "program.looped"):
            self.alice.write(name, SOURCE)
        (self.alice.docroot / "dir.php").mkdir()
        os.chown(self.alice.docroot / "dir.php", self.alice.uid, self.alice.uid)
        self.unix = Responder(self.alice.home / "app.sock", self._serve, self.alice.uid)
        self.tcp = Responder(None, self._serve)
        self.bobs = Responder(self.bob.home / "app.sock", self._serve, self.bob.uid)
        host = HOST.format(home=self.alice.home, bob=self.bob.home, port=self.tcp.port, closed=free_port(),
                           many="\n".join(f"ProxyFCGISetEnvIf true V{number} 1" for number in range(70)))
        self.bob.home.chmod(0o711)  # as carelessly as it happens
        self.lab.has_vhosts, self.lab.config_tail = False, self.lab.host_block(self.alice, host)
        self.lab.start()

    def _serve(self, call: Call) -> None:
        self.serve(call)

    def get(self, path: str, **more: object) -> Response:
        """Make one request to alice's host."""
        return self.lab.get("alice.test", path, **more)  # type: ignore[arg-type]

    def log(self, text: str) -> bool:
        """Whether the error log says so."""
        return text in self.lab.error_log()

    def close(self) -> None:
        """Stop all of it."""
        for one in (self.unix, self.tcp, self.bobs):
            one.close()
        self.lab.close()


def plain(call: Call) -> None:
    """Answer with the variables and a digest of the body."""
    params = call.read_params()
    body = call.read_body()
    lines = "".join(f"{name}={value}\n" for name, value in params.items())
    call.out(f"Content-Type: text/plain\n\nbody={len(body)} {hashlib.sha256(body).hexdigest()}\n{lines}")
    call.end()


def variables(response: Response) -> dict[str, str]:
    """Return what plain() says, by name; a value with several lines is cut."""
    pairs = (line.partition("=") for line in response.body.decode().splitlines())
    return {name: value for name, _, value in pairs}


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    """One server for the tests that leave it as it was."""
    one = Site(f"Timeout {SHORT_S}\nLogLevel info\n")
    yield one
    one.close()


@pytest.fixture
def site(shared: Site) -> Site:
    """Return the server with a responder that answers as plain() does."""
    shared.serve = plain
    return shared


# ---------------------------------------------------------------- what the responder gets


@pytest.mark.parametrize("name", ["x.php", "x.tcp"])
def test_the_request_is_the_responders_variables(site: Site, name: str) -> None:
    """RFC 3875's names, the file's path, what is behind it, Authorization; no connection is kept."""
    answer = site.get(f"/{name}/more/path?a=1", fields={"Authorization": "Basic eDp5", "X-One": "1", "Proxy": "evil"})
    assert answer.status == 200
    said = variables(answer)
    wanted = {"SCRIPT_FILENAME": str(site.alice.docroot / name), "SCRIPT_NAME": f"/{name}", "PATH_INFO": "/more/path",
              "PATH_TRANSLATED": f"{site.alice.docroot}/more/path", "QUERY_STRING": "a=1", "REQUEST_URI": f"/{name}/more/path?a=1",
              "HTTP_AUTHORIZATION": "Basic eDp5", "HTTP_X_ONE": "1", "REQUEST_METHOD": "GET", "DOCUMENT_ROOT": str(site.alice.docroot)}
    assert {key: said.get(key) for key in wanted} == wanted
    assert not {"HTTP_PROXY", "CONTENT_LENGTH", "PATH"} & said.keys()


def test_php_settings_become_variables_of_the_request(site: Site) -> None:
    """php_value in lines, the most specific last; php_admin_value apart from them."""
    seen: dict[str, str] = {}

    def keep(call: Call) -> None:
        seen.update(call.read_params())
        assert not call.keep
        call.out("X: y\n\nok")
        call.end()

    site.serve = keep
    assert site.get("/special.php").body == b"ok"
    assert seen["PHP_ADMIN_VALUE"] == "open_basedir=/srv"
    assert seen["PHP_VALUE"].splitlines()[-1] == "memory_limit=99M"
    assert sorted(seen["PHP_VALUE"].splitlines()[:-1]) == ["display_errors=0", "memory_limit=64M"]


def test_no_variable_is_left_out_silently(site: Site) -> None:
    """More than there is room for are an error of the configuration, before one that holds a script back is lost."""
    assert site.get("/full.php").status == 500
    assert "more than 62 variables come from ProxyFCGISetEnvIf: none may be left out" in site.lab.error_log()


def test_lines_of_errors_are_bounded(site: Site) -> None:
    """Each gets a prefix many times as long as a short line; how many are left out is said."""
    def babble(call: Call) -> None:
        call.read_params()
        call.err("a\n" * 5000)
        call.out("X: y\n\nok")
        call.end()

    site.serve = babble
    assert site.get("/x.php").body == b"ok"
    wait_until(lambda: "904 more lines of errors are not logged\n" in site.lab.error_log(), "it is said")
    assert site.lab.error_log().count("AH01071: Got error 'a'") == 4096


def test_a_body_is_streamed_whole(site: Site) -> None:
    """5 MB with a Content-Length, and chunked without one."""
    body = os.urandom(5 * MEGABYTE)
    digest = f"body={len(body)} {hashlib.sha256(body).hexdigest()}"
    answer = site.get("/x.php", method="POST", body=body)
    assert answer.body.decode().splitlines()[0] == digest
    assert variables(answer)["CONTENT_LENGTH"] == str(len(body))
    with client(site.lab) as one:
        one.send(get("alice.test", "/x.tcp", "Transfer-Encoding: chunked", method="POST"))
        for at in range(0, len(body), 100000):
            part = body[at : at + 100000]
            one.send(b"%x\r\n%s\r\n" % (len(part), part))
        one.send(b"0\r\n\r\n")
        answer = read(one)
    assert answer.body.decode().splitlines()[0] == digest
    assert "CONTENT_LENGTH" not in variables(answer)


def read(one: Client) -> Response:
    """Return the next answer, which must come."""
    answer = one.read()
    assert answer is not None
    return answer


def test_a_chunked_body_is_kept_where_its_length_must_be_told(site: Site) -> None:
    """For what is a PHP script by its name, and for proxy-sendcl: the responder is asked when all of it is there."""
    for path in ("/sendcl.tcp", "/x.php"):
        with client(site.lab) as one:
            one.send(get("alice.test", path, "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n2\r\nyz\r\n0\r\n\r\n")
            answer = read(one)
        assert answer.body.decode().splitlines()[0] == f"body=3 {hashlib.sha256(b'xyz').hexdigest()}"
        assert variables(answer)["CONTENT_LENGTH"] == "3"


# ---------------------------------------------------------------- its answer


def test_answer_is_streamed_while_the_body_comes(site: Site) -> None:
    """Neither direction waits for the other: each byte is answered before the next one is sent."""
    def echo(call: Call) -> None:
        call.read_params()
        call.out("X: y\n\n")
        while True:
            _, content = call.read_record()
            if not content:
                break
            call.out(content.upper())
        call.end()

    site.serve = echo
    with client(site.lab) as one:
        one.send(get("alice.test", "/x.php", "Content-Length: 3", method="POST"))
        for byte in (b"a", b"b", b"c"):
            one.send(byte)
            while byte.upper() + b"\r\n" not in one.buffer:
                assert one.fill()
        assert read(one).body == b"ABC"


def test_a_long_answer_comes_whole_and_its_status_and_fields_are_the_programs(site: Site) -> None:
    """10 MB in large records with padding; Status and Location are the responder's."""
    data = os.urandom(10 * MEGABYTE + 5)

    def long(call: Call) -> None:
        call.read_params()
        call.out(b"Status: 203 Mine\r\nX-A: 1\r\nX-A: 2\r\n\r\n" + data)
        call.end()

    site.serve = long
    answer = site.get("/x.php")
    assert (answer.status, answer.body == data) == (203, True)
    assert [value for name, value in answer.all_fields if name == "X-A"] == ["1", "2"]


def test_errors_go_to_the_log_line_by_line(site: Site) -> None:
    """STDERR records, in pieces and without a last newline; not to the client."""
    def complain(call: Call) -> None:
        call.read_params()
        call.err("PHP message: one")
        call.err(" line\nsecond")
        call.out("X: y\n\nfine")
        call.end()

    site.serve = complain
    assert site.get("/x.php").body == b"fine"
    wait_until(lambda: site.log("AH01071: Got error 'PHP message: one line'"), "the first line")
    wait_until(lambda: site.log("AH01071: Got error 'second'"), "the rest")


def test_a_flood_of_errors_is_bounded_and_the_answer_comes(site: Site) -> None:
    """4 MB of errors before the head."""
    before = len(site.lab.error_log())

    def flood(call: Call) -> None:
        call.read_params()
        for _ in range(1024):
            call.err("x" * 4095 + "\n")
        call.out("X: y\n\nfine")
        call.end()

    site.serve = flood
    assert site.get("/x.php").body == b"fine"
    assert site.log("more than 1048576 bytes of errors")
    assert len(site.lab.error_log()) - before < 2 * MEGABYTE


def test_a_responder_that_does_not_read_its_input_may_answer(site: Site) -> None:
    """The body is thrown away then."""
    def ignore(call: Call) -> None:
        call.read_params()
        call.out("Status: 403\n\nno")
        call.end()
        call.wait_closed()

    site.serve = ignore
    answer = site.get("/x.php", method="POST", body=bytes(3 * MEGABYTE))
    assert (answer.status, answer.body) == (403, b"no")


# ---------------------------------------------------------------- broken answers

BROKEN: dict[str, tuple[Callable[[Call], object], int, str]] = {
    "closes at once": (lambda call: None, 502, "AH01067: Failed to read FastCGI header"),
    "no head": (lambda call: call.end(), 502, "End of script output before headers"),
    "half a head": (lambda call: (call.out("X: y\n"), call.end()), 502, "End of script output before headers"),
    "malformed head": (lambda call: (call.out("no field\n\n"), call.end()), 502, "malformed header from script"),
    "wrong version": (lambda call: call.write(STDOUT, b"X: y\n\n", version=2), 502, "AH01072: Got bogus record"),
    "wrong id": (lambda call: call.write(STDOUT, b"X: y\n\n", request=2), 502, "AH01072: Got bogus record"),
    "unknown type": (lambda call: call.write(11, b"x"), 502, "AH01072: Got bogus record"),
    "overloaded": (lambda call: call.end(2), 503, "it is overloaded"),
    "html": (lambda call: call.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 502, "AH01072: Got bogus record"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_answer_is_an_error_and_said(site: Site, case: str) -> None:
    """Its own status and line each; the next request is served."""
    act, status, line = BROKEN[case]

    def broken(call: Call) -> None:
        call.read_params()
        call.read_body()
        act(call)

    site.serve = broken
    before = len(site.lab.error_log())
    assert site.get("/x.php").status == status
    assert line in site.lab.error_log()[before:]
    site.serve = plain
    assert site.get("/x.php").status == 200


def test_an_answer_that_breaks_off_is_seen_to(site: Site) -> None:
    """Without END_REQUEST the last chunk does not come: nobody takes a part for the whole."""
    def cut(call: Call) -> None:
        call.read_params()
        call.out("X: y\n\npart")

    site.serve = cut
    raw = site.lab.exchange(b"GET /x.php HTTP/1.1\r\nHost: alice.test\r\n\r\n")
    assert b"part" in raw
    assert not raw.endswith(b"0\r\n\r\n")


def test_a_silent_responder_is_504(site: Site) -> None:
    """Timeout without a byte; its connection is closed."""
    closed = threading.Event()

    def silent(call: Call) -> None:
        call.read_params()
        call.read_body()
        if call.wait_closed():
            closed.set()

    site.serve = silent
    assert site.get("/x.php").status == 504
    assert site.log("(polling) the timeout specified has expired")
    assert closed.wait(30)


def test_a_client_that_leaves_ends_the_responders_connection(site: Site) -> None:
    """Before a byte of the answer, and within it."""
    for text in ("", "X: y\n\nsome"):
        begun, closed = threading.Event(), threading.Event()

        def endless(call: Call, text: str = text, begun: threading.Event = begun, closed: threading.Event = closed) -> None:
            call.read_params()
            call.read_body()
            if text:
                call.out(text)
            begun.set()
            if call.wait_closed():
                closed.set()

        site.serve = endless
        with client(site.lab) as one:
            one.send(get("alice.test", "/x.php"))
            assert begun.wait(30)
        assert closed.wait(30)


# ---------------------------------------------------------------- no responder, no script


@pytest.mark.parametrize("name", ["x.gone", "x.bobs", "x.refused", "x.php83", "x.fcgid"])
def test_without_a_responder_it_is_503_and_never_the_source(site: Site, name: str) -> None:
    """A missing socket, another tenant's, a closed port, no pool, a wrapper: each is said."""
    words = {"x.gone": "AH01079: failed to make connection to backend: ", "x.bobs": "Permission denied", "x.refused": "Connection refused",
             "x.php83": "PHPPool in the virtual host starts one", "x.fcgid": "no FcgidWrapper names the FastCGI program"}
    calls = site.bobs.calls
    for path in (f"/{name}", f"/{name}/more"):
        answer = site.get(path)
        assert (answer.status, b"secret" in answer.body) == (503, False)
    assert words[name] in site.lab.error_log()
    assert site.bobs.calls == calls


def test_what_is_not_there_is_404_before_a_connection(site: Site) -> None:
    """A missing script, below a missing directory, and a directory that is called like one."""
    calls = site.unix.calls
    assert [site.get(path).status for path in ("/none.php", "/none/x.php", "/none.php/more", "/dir.php/")] == [404, 404, 404, 403]
    assert site.unix.calls == calls
    assert site.log("script not found or unable to stat")


# ---------------------------------------------------------------- Action


def test_action_hands_a_file_to_its_program(site: Site) -> None:
    """The program gets the file as PATH_INFO and PATH_TRANSLATED, the method and the body."""
    answer = site.get("/x.wrapped?q=1", method="POST", body=b"12345")
    said = variables(answer)
    wanted = {"SCRIPT_NAME": "/x.php", "PATH_INFO": "/x.wrapped", "PATH_TRANSLATED": f"{site.alice.docroot}/x.wrapped",
              "QUERY_STRING": "q=1", "REDIRECT_STATUS": "200", "REDIRECT_URL": "/x.wrapped", "REDIRECT_HANDLER": "wrapped",
              "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5"}
    assert {name: said.get(name) for name in wanted} == wanted
    assert answer.body.startswith(b"body=5 ")
    assert site.get("/none.wrapped").status == 404
    assert variables(site.get("/virtual/what/ever"))["PATH_INFO"] == "/virtual/what/ever"


def test_what_an_action_is_for_is_never_sent_as_text(site: Site) -> None:
    """A name that only begins as the program's is its input like any other; a program of its own kind has nobody to run it."""
    assert variables(site.get("/x.php-notes.wrapped"))["PATH_INFO"] == "/x.php-notes.wrapped"
    for path in ("/program.looped", "/program.looped/more"):
        answer = site.get(path)
        assert answer.status >= 500
        assert b"secret" not in answer.body
