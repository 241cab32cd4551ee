"""pc_serve on real files, answered as httpd does: handlers, programs and what only Python can decide.

Runs as: the developer (pytest).
"""

from __future__ import annotations

from pathlib import Path

import native_serve as ns
import pytest
from native_serve import (
    LOCATION,
    Start,
)

from perchild.wire import record

# ---------------------------------------------------------------- handlers and questions


@pytest.mark.parametrize("handler", ["proxy:scgi://127.0.0.1:1", "fcgid-script", "php", "php8.2-fcgi",
                                     "application/x-httpd-php"])
def test_serve_never_sends_a_program_by_its_handler(start: Start, handler: str) -> None:
    """A handler that cannot run is 503, not the source."""
    answer = start(record.text("HANDLER", handler)).get("/a.txt")
    assert answer.status == 503
    assert b"0123" not in answer.body


@pytest.mark.parametrize("handler", ["proxy:unix:/run/x|fcgi://localhost", "proxy:fcgi://127.0.0.1:9000/"])
def test_serve_leaves_a_script_to_its_back_end(start: Start, handler: str) -> None:
    """What is there goes to the gate; what is not is 404 before anybody is asked."""
    server = start(record.text("HANDLER", handler))
    assert [server.get(path).served for path in ("/a.txt", "/a.txt/more")] == [ns.GATE] * 2
    assert [server.get(path).status for path in ("/none.php", "/none/x.php")] == [404, 404]


EXEC = ns.options("ExecCGI", "FollowSymLinks")
CGI = "cgi-script"


@pytest.mark.parametrize("item", [
    record.text("HANDLER", CGI), record.text("HANDLER", "CGI-Script"), record.texts("ADD_HANDLER", "txt", CGI),
    record.texts("ADD_TYPE", "txt", "application/x-httpd-cgi"),
], ids=["SetHandler", "any-case", "AddHandler", "AddType"])
def test_serve_runs_a_script_only_where_options_allow_it(start: Start, item: bytes) -> None:
    """Options ExecCGI: a gate; without: 403, never the source."""
    run = start(item, EXEC).get("/a.txt")
    assert (run.served, run.words["handler"].lower()) in {(ns.GATE, b"cgi-script"), (ns.GATE, b"application/x-httpd-cgi")}
    server = start(item, ns.options("FollowSymLinks"))
    answer = server.get("/a.txt")
    assert (answer.served, answer.status) == (ns.SERVED, 403)
    assert b"0123" not in answer.body
    assert "AH02809: Options ExecCGI is off in this directory" in server.log_text


def test_serve_runs_what_is_below_a_script_alias(start: Start, root: Path) -> None:
    """ScriptAlias: every file is a program, whatever its name; nothing there: 404; the directory: 403."""
    server = start(ns.options("Indexes"), aliases=(ns.alias("/bin/", root / "sub", kind=2), ns.alias("^/m/(.*)$", f"{root}/sub/$1", kind=3)))
    for path in ("/bin/c.txt", "/m/c.txt"):
        answer = server.get(path)
        assert (answer.served, answer.words["filename"]) == (ns.GATE, str(root / "sub/c.txt").encode())
    assert server.get("/bin/none").status == 404
    assert server.get("/bin/").status == 403
    assert "AH02811: script not found or unable to stat" in server.log_text
    assert "AH02812: attempt to invoke directory as script" in server.log_text
    assert server.get("/sub/c.txt").served == ns.SERVED


def test_serve_looks_at_every_extension_for_a_handler(start: Start, root: Path) -> None:
    """x.cgi.txt is a script too (mod_mime); RemoveHandler, SetHandler and an unknown handler take their turn."""
    for name in ("x.cgi", "x.cgi.txt", "x.CGI"):
        (root / "sub" / name).write_text("source")
    handlers = (record.texts("ADD_HANDLER", "cgi", CGI), EXEC)
    server = start(*handlers)
    assert [server.get(f"/sub/{name}").served for name in ("x.cgi", "x.cgi.txt", "x.CGI", "c.txt")] == [ns.GATE] * 3 + [ns.SERVED]
    below = ns.section(LOCATION, "/sub", record.texts("ADD_HANDLER", "cgi", ""))
    assert start(*handlers, sections=(below,)).get("/sub/x.cgi").status == 200
    other = ns.section(LOCATION, "/sub", record.text("HANDLER", "Drupal_Security_Do_Not_Remove"))
    answer = start(*handlers, sections=(other,)).get("/sub/x.cgi")
    assert (answer.served, answer.status) == (ns.SERVED, 200)
    plain = ns.section(LOCATION, "/sub", record.text("HANDLER", "default-handler"))
    assert start(*handlers, sections=(plain,)).get("/sub/x.cgi").status == 200


def test_serve_gives_programs_what_is_behind_their_name(start: Start, root: Path) -> None:
    """AcceptPathInfo is on by default for a program, off for a file."""
    (root / "sub" / "x.cgi").write_text("source")
    handlers = (record.texts("ADD_HANDLER", "cgi", CGI), EXEC)
    server = start(*handlers)
    answer = server.get("/sub/x.cgi/a/b.html")
    assert (answer.served, answer.words["path_info"], answer.words["filename"]) == (ns.GATE, b"/a/b.html", str(root / "sub/x.cgi").encode())
    assert server.get("/a.txt/b").status == 404
    assert start(*handlers, record.u32s("ACCEPT_PATH_INFO", 0)).get("/sub/x.cgi/a").status == 404


def test_serve_gives_programs_every_method(start: Start, root: Path) -> None:
    """PUT and unknown methods are the program's; a file beside it goes on refusing them."""
    (root / "sub" / "x.cgi").write_text("source")
    server = start(record.texts("ADD_HANDLER", "cgi", CGI), EXEC)
    methods = ("PUT", "DELETE", "OPTIONS", "PROPFIND")
    assert [server.get("/sub/x.cgi", method=method).served for method in methods] == [ns.GATE] * 4
    assert [server.get("/a.txt", method=method).status for method in methods] == [405, 405, 200, 501]


def test_serve_asks_python_for_its_handlers_and_serves_by_unknown_ones(start: Start) -> None:
    """whoami: PC_ASK_HANDLER, also where there is no file; an unknown name is a warning and the file."""
    sections = (ns.section(LOCATION, "/who", record.text("HANDLER", "whoami")), ns.section(LOCATION, "/sub", record.text("HANDLER", "")))
    server = start(record.text("HANDLER", "odd"), sections=sections)
    asked = server.get("/who/am/i")
    assert (asked.served, asked.ask, asked.words["handler"]) == (ns.ASK, ns.ASK_HANDLER, b"whoami")
    assert server.get("/a.txt").status == 200
    assert server.get("/sub/c.txt").status == 200
    assert server.log_text.count('handler "odd" not found') == 1


def test_serve_asks_the_policy_once(start: Start) -> None:
    """Requests in its section wait for the answer, are served with it, and others are not asked."""
    server = start(sections=(ns.section(LOCATION, "/sub", record.u32s("ASK", 1)),))
    asked = server.get("/sub/c.txt")
    assert (asked.served, asked.ask) == (ns.ASK, ns.ASK_POLICY)
    assert server.get("/sub/c.txt", flags=3, ask=ns.ASK_POLICY).status == 200
    assert server.get("/sub/c.txt", flags=3, ask=ns.ASK_POLICY, status=403).status == 403
    assert server.get("/a.txt").status == 200


def test_serve_answers_with_what_a_handler_made(start: Start) -> None:
    """Status, type and body of the handler; an error without a body gets the host's document; Header applies."""
    sections = (ns.section(LOCATION, "/who", record.text("HANDLER", "whoami")),)
    server = start(ns.header("set", "X", "1"), ns.error_document(502, 1, "/a.txt"), sections=sections)
    made = server.get("/who", flags=3, ask=ns.ASK_HANDLER, answer="me", status=200)
    assert (made.status, made.body, made.field("Content-Type"), made.field("X")) == (200, b"me", "text/x-made", "1")
    failed = server.get("/who", flags=3, ask=ns.ASK_HANDLER, status=502)
    assert (failed.status, failed.body) == (502, b"0123456789")


def test_serve_asks_for_the_clients_name_only_when_it_decides(start: Start) -> None:
    """Require host: asked unless an address already grants; the answer decides; no name is no access."""
    by_ip = ns.node("ip", bytes([4, 24, 192, 0, 2, 0]))
    sections = (ns.section(LOCATION, "/sub", ns.require(ns.node("host", b"example.net"))),
                ns.section(LOCATION, "/a.txt", ns.require(ns.node("host", b"example.net"), by_ip)))
    server = start(sections=sections)
    asked = server.get("/sub/c.txt")
    assert (asked.served, asked.ask) == (ns.ASK, ns.ASK_HOSTNAME)
    answers = {name: server.get("/sub/c.txt", flags=3, ask=1, answer=name).status for name in ("h.example.net", "example.net", "badexample.net", "")}
    assert answers == {"h.example.net": 200, "example.net": 200, "badexample.net": 403, "": 403}
    assert server.get("/a.txt").status == 200
