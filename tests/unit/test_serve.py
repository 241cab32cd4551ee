"""pc_serve on real files: what a parsed request is answered with, as httpd answers it.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import native_serve as ns
import pytest
from native_serve import (
    DENIED,
    DIRECTORY,
    DIRECTORY_MATCH,
    FILES,
    FILES_MATCH,
    GRANTED,
    LOCATION,
    LOCATION_MATCH,
    Answer,
    Host,
    Server,
)

from perchild.wire import record

OLD_S = 1_600_000_000  # a time at which no test file is "just written"
Start = Callable[..., Server]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, built once."""
    return ns.build_driver(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A document root with an index page, a text, a page with two extensions and a subdirectory without index."""
    top = tmp_path / "www"
    (top / "sub").mkdir(parents=True)
    for name, text in {"index.html": "<h1>home</h1>", "a.txt": "0123456789", "b.html.gz": "gz", "noext": "?", "sub/c.txt": "c"}.items():
        (top / name).write_text(text)
        os.utime(top / name, (OLD_S, OLD_S))
    return top


@pytest.fixture
def start(program: Path, root: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a server for the root: start(settings..., sections=..., aliases=...)."""
    with ExitStack() as stack:

        def run(*settings: bytes, **rest: object) -> Server:
            host = Host(root, settings, **rest)  # type: ignore[arg-type]
            return stack.enter_context(ns.serving(program, host, tmp_path))

        yield run


# ---------------------------------------------------------------- files


def test_serve_answers_a_file_with_its_bytes_and_validators(start: Start) -> None:
    """200, the bytes, Content-Type, Last-Modified, Accept-Ranges and httpd's size-mtime ETag."""
    answer = start().get("/a.txt")
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.field("Content-Type") == "text/plain"
    assert answer.field("Last-Modified") == "Sun, 13 Sep 2020 12:26:40 GMT"
    assert answer.field("ETag") == f'"a-{OLD_S * 1_000_000:x}"'
    assert answer.field("Accept-Ranges") == "bytes"


def test_serve_makes_a_weak_etag_of_a_file_that_was_just_written(start: Start, root: Path) -> None:
    """Within a second of its mtime a file may change without changing its tag."""
    server = start()
    (root / "new.txt").write_text("x")
    tag = server.get("/new.txt").field("ETag")
    assert tag is not None
    assert tag.startswith('W/"1-')


def test_serve_takes_file_etag_from_the_layers(start: Start) -> None:
    """FileETag None sends none; Size alone sends the size."""
    sections = (ns.section(LOCATION, "/sub", record.u32s("FILE_ETAG", 1, 4, 0)),)
    server = start(record.u32s("FILE_ETAG", 1, 0, 0), sections=sections)
    assert server.get("/a.txt").field("ETag") is None
    assert server.get("/sub/c.txt").field("ETag") == '"1"'


@pytest.mark.parametrize(("target", "status"), [
    ("/none", 404), ("/sub/none", 404), ("/a.txt/x", 404), ("/a.txt/", 404), ("/none/x", 404), ("/" + "x" * 300, 404),
    ("/..%5ca.txt", 404), ("/a.txt%20", 404), ("/sub", 301), ("/sub/", 403),
])
def test_serve_answers_what_is_no_file_without_a_file(start: Start, target: str, status: int) -> None:
    """Missing names are 404, a directory without slash 301, one without index 403."""
    assert start(ns.options("FollowSymLinks")).get(target).status == status


def test_serve_redirects_a_directory_to_the_name_that_was_asked_for(start: Start, root: Path) -> None:
    """The Host's name and port, the path escaped, the query kept."""
    (root / "d <&>").mkdir()
    answer = start().get("/d%20%3c&%3e?q=1", host="www.example.org:8080")
    assert answer.field("Location") == "http://www.example.org:8080/d%20%3c%26%3e/?q=1"
    assert "<&>" not in answer.text


def test_serve_gives_files_that_are_not_readable_403_and_a_line(start: Start, root: Path) -> None:
    """FIFO and socket are 403 at once; the log says which."""
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "sock"))
        server = start()
        assert server.get("/pipe").status == 403
        assert server.get("/sock").status == 403
    assert f"neither a file nor a directory: {root}/pipe" in server.log_text


def test_serve_answers_503_when_no_descriptor_is_left(start: Start) -> None:
    """EMFILE is the server's trouble, not the file's: 503 with Retry-After, and the next request is served."""
    server = start()
    assert server.get("/a.txt").status == 200
    answer = server.get("/a.txt", nofile=1)
    assert (answer.status, answer.field("Retry-After")) == (503, "1")
    assert server.get("/a.txt").status == 200


# ---------------------------------------------------------------- directories


def test_serve_takes_the_first_index_that_is_there(start: Start, root: Path) -> None:
    """DirectoryIndex in order; a directory of that name does not count."""
    (root / "first").mkdir()
    server = start(record.texts("DIRECTORY_INDEX", "missing", "first", "a.txt", "index.html"))
    answer = server.get("/")
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.words["path"] == b"/a.txt"
    assert answer.words["filename"] == str(root / "a.txt").encode()


def test_serve_applies_sections_to_the_index_that_it_found(start: Start) -> None:
    """An index file that Files denies is denied under the directory's name, too."""
    server = start(sections=(ns.section(FILES, "index.html", DENIED),))
    assert server.get("/").status == 403
    assert server.get("/a.txt").status == 200


def test_serve_sees_aliases_and_redirects_for_the_index_that_it_found(start: Start, root: Path) -> None:
    """The index's path goes through Alias again, as httpd's subrequest does."""
    server = start(aliases=(ns.alias("/index.html", root / "a.txt"),))
    assert server.get("/").body == b"0123456789"


def test_serve_takes_an_index_with_a_slash_as_a_url_path(start: Start) -> None:
    """DirectoryIndex none /sub/c.txt."""
    assert start(record.texts("DIRECTORY_INDEX", "none", "/sub/c.txt")).get("/").body == b"c"


def test_serve_ends_an_index_that_leads_to_itself(start: Start) -> None:
    """A circle of internal redirects is 500 after its bound, not a hang."""
    server = start(record.texts("DIRECTORY_INDEX", "/sub/"))
    assert server.get("/sub/").status == 500
    assert "AH00124" in server.log_text


def test_serve_lists_a_directory_sorted_escaped_and_without_hidden_names(start: Start, root: Path) -> None:
    """Names are escaped for HTML and for URLs; hidden ones, FIFOs and denied ones are not there."""
    for name in ("<b>.txt", "B", "a&b", "javascript:x", ".hidden", "x~", "denied.txt", "nl\n"):
        (root / "sub" / name).write_text("x" * 1500)
    os.mkfifo(root / "sub" / "pipe")
    (root / "sub" / "dir").mkdir()
    server = start(ns.options("Indexes"), sections=(ns.section(FILES, "denied.txt", DENIED),))
    answer = server.get("/sub/")
    assert answer.status == 200
    assert answer.field("Content-Type") == "text/html; charset=utf-8"
    links = re.findall(r'<td><a href="([^"]*)">([^<]*)</a>', answer.text)
    assert links == [("../", "Parent Directory"), ("%3cb%3e.txt", "&lt;b&gt;.txt"), ("B", "B"), ("a%26b", "a&amp;b"),
                     ("c.txt", "c.txt"), ("dir/", "dir/"), ("javascript%3ax", "javascript:x"), ("nl%0a", "nl?")]
    assert "<td>1.5K</td>" in answer.text
    assert "denied" not in server.log_text


@pytest.mark.parametrize(("query", "names"), [
    ("", ["a", "b", "c.txt"]), ("?C=N;O=D", ["c.txt", "b", "a"]), ("?C=S;O=A", ["c.txt", "b", "a"]), ("?C=M;O=D", ["c.txt", "b", "a"]),
    ("?C=M&O=A", ["a", "b", "c.txt"]), ("?C=x;O=<script>", ["a", "b", "c.txt"]),
])
def test_serve_sorts_a_listing_as_its_columns_say(start: Start, root: Path, query: str, names: list[str]) -> None:
    """Name, time and size, both ways; nonsense is the default and is not shown."""
    for at, (name, size) in enumerate({"a": 30, "b": 20}.items()):
        (root / "sub" / name).write_text("x" * size)
        os.utime(root / "sub" / name, (OLD_S - 100 + at, OLD_S - 100 + at))
    answer = start(ns.options("Indexes")).get("/sub/" + query)
    assert re.findall(r'<tr><td><a href="([^".]+|c.txt)">', answer.text) == names
    assert "script" not in answer.text


def test_serve_does_not_list_in_a_thread_that_leads(start: Start) -> None:
    """Without may_block it says so, keeps no descriptor, and lists when asked again."""
    server = start(ns.options("Indexes"))
    assert server.get("/sub/", flags=0).served == ns.BLOCKS
    assert server.get("/sub/", flags=0, again=1).status == 200


def test_serve_shows_no_link_in_a_listing_that_it_would_not_follow(start: Start, root: Path) -> None:
    """Without Options FollowSymLinks links are not listed."""
    (root / "sub" / "link").symlink_to("c.txt")
    sections = (ns.section(DIRECTORY, str(root / "sub"), ns.options("Indexes", "FollowSymLinks")),)
    assert "link" in start(ns.options("Indexes"), sections=sections).get("/sub/").text
    assert "link" not in start(ns.options("Indexes")).get("/sub/").text


# ---------------------------------------------------------------- links


def outside_file(root: Path, name: str, owner: int | None = None) -> None:
    """A link in the root to a file beside it, which belongs to `owner`."""
    target = root.parent / f"{name}.outside"
    target.write_text("outside")
    if owner is not None:
        os.chown(target, owner, owner)
    (root / name).symlink_to(target)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def test_serve_follows_links_as_options_say(start: Start, root: Path) -> None:
    """A link inside the root: followed by default and by FollowSymLinks, by owner, or refused."""
    (root / "link").symlink_to("a.txt")
    assert start().get("/link").body == b"0123456789"
    assert start(ns.options("SymLinksIfOwnerMatch")).get("/link").body == b"0123456789"
    server = start(ns.options())
    assert server.get("/link").status == 403
    assert server.get("/a.txt").status == 200
    assert f"AH00037: Symbolic link not allowed or link target not accessible: {root}/link" in server.log_text


@needs_root
def test_serve_follows_a_link_out_of_the_root_only_to_own_files(start: Start, root: Path) -> None:
    """Own target: served; another's: 403, although this process (root) could read it."""
    outside_file(root, "own")
    outside_file(root, "foreign", 12345)
    server = start()
    assert server.get("/own").body == b"outside"
    assert server.get("/foreign").status == 403


@needs_root
def test_serve_goes_by_the_targets_owner_under_symlinksifownermatch(start: Start, root: Path) -> None:
    """Inside the root, too; and out of the root never."""
    outside_file(root, "own")
    (root / "theirs").write_text("x")
    os.chown(root / "theirs", 12345, 12345)
    (root / "link").symlink_to("theirs")
    server = start(ns.options("SymLinksIfOwnerMatch"))
    assert server.get("/theirs").status == 200
    assert server.get("/link").status == 403
    assert server.get("/own").status == 403


def test_serve_does_not_let_a_location_loosen_links(start: Start, root: Path) -> None:
    """Options FollowSymLinks counts outside Location only, as in httpd."""
    (root / "link").symlink_to("a.txt")
    sections = (ns.section(LOCATION, "/", ns.options("FollowSymLinks", "Indexes")),)
    server = start(ns.options(), sections=sections)
    assert server.get("/link").status == 403
    assert server.get("/sub/").status == 200


def test_serve_refuses_proc_links(start: Start, root: Path) -> None:
    """A link to /proc/self/root is no way out of anything."""
    (root / "proc").symlink_to("/proc/self/root")
    assert start().get("/proc/etc/hostname").status == 403


def test_serve_notices_a_document_root_that_was_swapped(start: Start, root: Path) -> None:
    """A root replaced by rename is served within the recheck time; one that is gone is 404 until it is back."""
    server = start()
    assert server.get("/a.txt").status == 200
    other = root.parent / "next"
    other.mkdir()
    (other / "a.txt").write_text("next")
    root.rename(root.parent / "before")
    assert server.get("/a.txt", ago=10).status == 404
    other.rename(root)
    assert server.get("/a.txt", ago=20).body == b"next"


# ---------------------------------------------------------------- conditions and ranges


@pytest.mark.parametrize(("fields", "status"), [
    (("If-None-Match: *",), 304), (("If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT",), 304),
    (("If-Modified-Since: Sun, 13 Sep 2020 12:26:39 GMT",), 200), (('If-Match: "x"',), 412),
    (("If-Unmodified-Since: Sun, 13 Sep 2020 12:26:39 GMT",), 412), (("Range: bytes=0-3",), 206),
    (("Range: bytes=99-",), 416), (("Range: bytes=0-3", 'If-Range: "x"'), 200), (("Range: nonsense",), 200),
    (("Range: bytes=0-,5-,6-,7-,8-,9-",), 200),
])
def test_serve_answers_conditions_and_ranges(start: Start, fields: tuple[str, ...], status: int) -> None:
    """304, 412, 206 and 416 as RFC 9110 has them."""
    answer = start().get("/a.txt", *fields)
    assert answer.status == status
    if status == 304:
        assert (answer.body, answer.field("ETag") is not None, answer.field("Content-Type")) == (b"", True, None)
    if status == 206:
        assert (answer.body, answer.field("Content-Range")) == (b"0123", "bytes 0-3/10")
    if status == 416:
        assert answer.field("Content-Range") == "bytes */10"


def test_serve_puts_several_ranges_into_parts(start: Start) -> None:
    """multipart/byteranges: each part with its type and place, and the length is that of the whole."""
    answer = start().get("/a.txt", "Range: bytes=0-1,-2")
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]+)", answer.field("Content-Type") or "")
    assert (answer.status, boundary is not None) == (206, True)
    mark = f"\r\n--{boundary[1] if boundary else ''}"
    part = "\r\nContent-Type: text/plain\r\nContent-Range: bytes {}/10\r\n\r\n{}"
    assert answer.text == mark + part.format("0-1", "01") + mark + part.format("8-9", "89") + mark + "--\r\n"
    assert answer.field("Content-Length") == str(len(answer.body))


def test_serve_serves_large_and_empty_files(start: Start, root: Path) -> None:
    """Every byte of a large file, none of an empty one, whose ranges are ignored."""
    raw = hashlib.shake_128(b"x").digest(300_000)
    (root / "large").write_bytes(raw)
    (root / "empty").write_bytes(b"")
    server = start()
    assert server.get("/large").body == raw
    assert server.get("/large", "Range: bytes=200000-").body == raw[200_000:]
    assert (server.get("/empty").status, server.get("/empty", "Range: bytes=0-").status) == (200, 200)


def test_serve_forgets_conditions_that_requestheader_took_away(start: Start) -> None:
    """RequestHeader unset Range and If-None-Match."""
    names = ("Range", "If-None-Match")
    server = start(*(ns.header("unset", name, item="REQUEST_HEADER") for name in names))
    assert server.get("/a.txt", "Range: bytes=0-1").status == 200
    assert server.get("/a.txt", "If-None-Match: *").status == 200


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize(("method", "status"), [
    ("GET", 200), ("HEAD", 200), ("POST", 200), ("OPTIONS", 200), ("PUT", 405), ("DELETE", 405), ("PATCH", 405), ("TRACE", 405),
    ("PROPFIND", 501),
])
def test_serve_answers_methods_as_httpds_default_handler(start: Start, method: str, status: int) -> None:
    """What a file allows; what it does not allow says so in Allow."""
    answer = start().get("/a.txt", method=method)
    assert answer.status == status
    assert answer.field("Allow") == ("GET,POST,OPTIONS,HEAD" if status == 405 or method == "OPTIONS" else None)


def test_serve_answers_options_of_the_whole_server(start: Start) -> None:
    """OPTIONS * is 200 without a body."""
    answer = start().get("*", method="OPTIONS")
    assert (answer.status, answer.body) == (200, b"")


def test_serve_refuses_bodies_above_the_limit(start: Start) -> None:
    """LimitRequestBody of the most specific section; 0 is no limit."""
    sections = (ns.section(LOCATION, "/sub", record.u64("LIMIT_BODY", 0)),)
    server = start(record.u64("LIMIT_BODY", 10), sections=sections)
    assert server.get("/a.txt", "Content-Length: 11", method="POST").status == 413
    assert server.get("/a.txt", "Content-Length: 10", method="POST").status == 200
    assert server.get("/sub/c.txt", "Content-Length: 11", method="POST").status == 200


# ---------------------------------------------------------------- types


def test_serve_finds_type_charset_and_encoding_by_extensions(start: Start, root: Path) -> None:
    """Any extension counts, in any order and case; the default charset only for text/plain and text/html."""
    (root / "P.TXT").write_text("x")
    (root / "p.png").write_text("x")
    (root / "d.html.latin").write_text("x")
    settings = (record.texts("ADD_ENCODING", "gz", "gzip"), record.text("DEFAULT_CHARSET", "utf-8"), record.texts("ADD_TYPE", "gz", "x/y"),
                record.texts("ADD_CHARSET", "latin", "iso-8859-1"))
    server = start(*settings, sections=(ns.section(LOCATION, "/b.html.gz", record.texts("ADD_TYPE", "gz", "text/html")),))
    assert server.get("/P.TXT").field("Content-Type") == "text/plain; charset=utf-8"
    assert server.get("/p.png").field("Content-Type") == "image/png"
    assert server.get("/d.html.latin").field("Content-Type") == "text/html; charset=iso-8859-1"
    answer = server.get("/b.html.gz")
    assert (answer.field("Content-Type"), answer.field("Content-Encoding")) == ("text/html; charset=utf-8", "gzip")


def test_serve_forces_and_defaults_types(start: Start) -> None:
    """ForceType beats extensions, DefaultType fills gaps, and without either there is no guessing."""
    sections = (ns.section(LOCATION, "/sub", record.text("FORCE_TYPE", "x/forced")),
                ns.section(LOCATION, "/noext", record.text("DEFAULT_TYPE", "x/default")))
    server = start(sections=sections)
    assert server.get("/sub/c.txt").field("Content-Type") == "x/forced"
    assert server.get("/noext").field("Content-Type") == "x/default"
    answer = start().get("/noext")
    assert (answer.field("Content-Type"), answer.field("X-Content-Type-Options")) == (None, "nosniff")


@pytest.mark.parametrize("media_type", ["application/x-httpd-php", "Application/X-HTTPD-Alt-PHP84"])
def test_serve_never_sends_a_program_by_its_type(start: Start, media_type: str) -> None:
    """AddType application/x-httpd-php without PHP is 503, not the source."""
    answer = start(record.texts("ADD_TYPE", "txt", media_type)).get("/a.txt")
    assert answer.status == 503
    assert b"0123" not in answer.body


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


# ---------------------------------------------------------------- sections and access


def test_serve_logs_a_refusal_in_the_words_that_fail2ban_matches(start: Start, root: Path) -> None:
    """AH01630 with the client's address and the path; AH01797 for Order, Allow, Deny."""
    server = start(DENIED)
    assert server.get("/a.txt").status == 403
    pattern = r"\[authz_core:error\] \[pid \d+:tid \d+\] \[client 192\.0\.2\.7:\d+\] AH01630: client denied by server configuration: "
    assert re.search(pattern + re.escape(str(root / "a.txt")), server.log_text)
    order = record.item("ORDER_ALLOW_DENY", record.u32s("ORDER", 1))
    server = start(order)
    assert server.get("/a.txt").status == 403
    assert "[access_compat:error]" in server.log_text
    assert "AH01797: client denied by server configuration" in server.log_text


def test_serve_merges_sections_in_httpds_order(start: Start, root: Path) -> None:
    """Location over FilesMatch over Files in Directory over Files over DirectoryMatch over Directory; deeper over shallower."""
    top, sub = str(root), str(root / "sub")

    def mark(value: str) -> bytes:
        return ns.header("append", "X-Order", value)

    sections = (ns.section(DIRECTORY, "/", mark("root")), ns.section(DIRECTORY, top, mark("top"), inner=(ns.inner(FILES, "c.*", mark("inner")),)),
                ns.section(DIRECTORY, sub, mark("sub")), ns.section(DIRECTORY, str(root / "su"), mark("never")),
                ns.section(DIRECTORY_MATCH, "/sub/", mark("dirmatch")), ns.section(FILES, "c.txt", mark("files")),
                ns.section(FILES_MATCH, r"\.txt$", mark("filesmatch")), ns.section(LOCATION, "/sub", mark("location")),
                ns.section(LOCATION, "/su", mark("never")), ns.section(LOCATION_MATCH, "^/sub/c", mark("locationmatch")))
    answer = start(mark("base"), sections=sections).get("/sub/c.txt")
    assert answer.field("X-Order") == "base, root, top, sub, dirmatch, files, filesmatch, inner, location, locationmatch"


@pytest.mark.parametrize(("kind", "pattern", "target", "applies"), [
    (DIRECTORY, "{root}/s*", "/sub/c.txt", True), (DIRECTORY, "{root}/*", "/sub/c.txt", True), (DIRECTORY, "{root}/?", "/sub/c.txt", False),
    (DIRECTORY, "{root}/*/*", "/a.txt", False), (DIRECTORY, "{root}/sub", "/sub", True), (DIRECTORY, "{root}/a.txt", "/a.txt", True),
    (DIRECTORY, "{root}x", "/a.txt", False), (FILES, "[ab].txt", "/a.txt", True), (FILES, "a.txt", "/sub/c.txt", False),
    (LOCATION, "/s*/c.txt", "/sub/c.txt", True), (LOCATION, "/*", "/sub/c.txt", False), (LOCATION, "/sub/", "/sub/c.txt", True),
    (LOCATION, "/a", "/a.txt", False), (LOCATION, "/", "/a.txt", True), (LOCATION_MATCH, r"^/a\.txt$", "/a.txt", True),
    (FILES_MATCH, r"^\.ht", "/a.txt", False), (DIRECTORY_MATCH, "/www/", "/a.txt", True),
])
def test_serve_applies_a_section_to_what_it_names(start: Start, root: Path, kind: int, pattern: str, target: str, *, applies: bool) -> None:
    """Literals by components, wildcards per component, patterns anywhere."""
    server = start(sections=(ns.section(kind, pattern.replace("{root}", str(root)), DENIED),))
    assert (server.get(target).status == 403) == applies


def test_serve_fails_closed_when_a_pattern_gives_up(start: Start) -> None:
    """A section whose pattern reaches its match limit might be the one that denies: 500, never the file."""
    server = start(sections=(ns.section(LOCATION_MATCH, r"^/(a|aa|aaa)*[bd]$", DENIED),))
    assert server.get("/" + "a" * 60 + "c").status == 500
    assert server.get("/a.txt").status == 200


def test_serve_fails_closed_when_too_many_sections_apply(start: Start) -> None:
    """More sections than there are layers: 500, never the file."""
    many = [ns.section(LOCATION, "/sub", GRANTED)] * 64
    server = start(sections=(*many, ns.section(LOCATION, "/sub", DENIED)))
    assert server.get("/sub/c.txt").status == 500
    assert server.get("/a.txt").status == 200


# ---------------------------------------------------------------- aliases and redirections


def test_serve_maps_aliases_by_whole_components(start: Start, root: Path) -> None:
    """Alias of a directory, with and without slashes, of one file; the first that fits counts."""
    other = root.parent / "other"
    other.mkdir()
    (other / "o.txt").write_text("other")
    (other / "index.html").write_text("other index")
    aliases = (ns.alias("/one", other / "o.txt"), ns.alias("/al/", f"{other}/"), ns.alias("/plain", other), ns.alias("/sub", other))
    server = start(aliases=aliases)
    bodies = {target: server.get(target).body for target in ("/al/o.txt", "/al/", "/plain/o.txt", "/plain/", "/one", "/sub/o.txt")}
    assert bodies == {"/al/o.txt": b"other", "/al/": b"other index", "/plain/o.txt": b"other", "/plain/": b"other index", "/one": b"other",
                      "/sub/o.txt": b"other"}
    statuses = {target: server.get(target).status for target in ("/al", "/plain", "/plainx", "/one/x", "/sub/c.txt")}
    assert statuses == {"/al": 404, "/plain": 301, "/plainx": 404, "/one/x": 404, "/sub/c.txt": 404}


def test_serve_keeps_an_alias_inside_its_directory(start: Start, root: Path) -> None:
    """A group that brings ".." along is refused; what stays inside is served."""
    (root.parent / "secret").write_text("secret")
    server = start(aliases=(ns.alias(r"^/x(.*?)/(.*)$", f"{root}/sub/$1/$2", 1), ns.alias("^/y/(.*)$", f"{root}/$1", 1)))
    assert server.get("/x../../secret").status in {400, 403, 404}
    assert server.get("/x../a.txt").status == 403
    assert server.get("/x/c.txt").body == b"c"
    assert server.get("/y/a.txt").body == b"0123456789"


def test_serve_notices_an_alias_that_was_swapped(start: Start, root: Path) -> None:
    """The directory that an alias names is looked at again, like a document root."""
    other = root.parent / "other"
    other.mkdir()
    (other / "f").write_text("one")
    server = start(aliases=(ns.alias("/o", other),))
    assert server.get("/o/f").body == b"one"
    other.rename(root.parent / "gone")
    other.mkdir()
    (other / "f").write_text("two")
    assert server.get("/o/f", ago=10).body == b"two"


@pytest.mark.parametrize(("item", "target", "status", "location"), [
    (ns.redirect(301, 0, "/old", "http://o.example/new"), "/old/a%20%3cb?q=1", 301, "http://o.example/new/a%20%3cb?q=1"),
    (ns.redirect(302, 0, "/old", "/new"), "/old", 302, "http://www.example.org/new"),
    (ns.redirect(302, 0, "/old", "/new"), "/older", 404, None),
    (ns.redirect(308, 0, "/old", "http://o.example/?x=1"), "/old?q=1", 308, "http://o.example/?x=1"),
    (ns.redirect(303, 1, "^/m/(.*)$", "/n/$1"), "/m/a%20b", 303, "http://www.example.org/n/a%20b"),
    (ns.redirect(307, 1, "^/m", "http://o.example/$0$9"), "/m", 307, "http://o.example//m"),
    (ns.redirect(410, 0, "/old"), "/old/x", 410, None),
    (ns.redirect(404, 1, r"\.git"), "/.git/config", 404, None),
])
def test_serve_redirects(start: Start, item: bytes, target: str, status: int, location: str | None) -> None:
    """Redirect and RedirectMatch: rest and groups escaped, the query appended, a path made a URL of this host."""
    answer = start(item).get(target)
    assert (answer.status, answer.field("Location")) == (status, location)


def test_serve_redirects_before_aliases_and_sections_after_access(start: Start, root: Path) -> None:
    """Outside sections Redirect beats Alias; inside one, access comes first and everything below goes to one place."""
    sections = (ns.section(LOCATION, "/moved", ns.redirect(302, 2, "", "https://m.example/")),
                ns.section(LOCATION, "/closed", DENIED, ns.redirect(302, 2, "", "https://m.example/")))
    server = start(ns.redirect(302, 0, "/both", "https://r.example/"), aliases=(ns.alias("/both", root),), sections=sections)
    assert server.get("/both").field("Location") == "https://r.example/"
    assert server.get("/moved/a/b?c").field("Location") == "https://m.example/?c"
    assert server.get("/closed/x").status == 403


# ---------------------------------------------------------------- path info


def test_serve_accepts_path_info_only_where_told(start: Start) -> None:
    """AcceptPathInfo On: the file, with the rest apart; sections see the file's name; a missing file stays 404."""
    sections = (ns.section(FILES, "index.html", DENIED),)
    server = start(record.u32s("ACCEPT_PATH_INFO", 1), sections=sections)
    answer = server.get("/sub/c.txt/x/y")
    assert (answer.body, answer.words["path_info"]) == (b"c", b"/x/y")
    assert server.get("/a.txt/").words["path_info"] == b"/"
    assert server.get("/index.html/x").status == 403
    assert server.get("/none/x").status == 404
    assert start(record.u32s("ACCEPT_PATH_INFO", 0)).get("/a.txt/x").status == 404


# ---------------------------------------------------------------- errors


def test_serve_puts_nothing_of_the_request_on_its_pages(start: Start) -> None:
    """An error page is the same for every path, and closes its elements."""
    server = start(record.u32s("SIGNATURE", 2))
    answer = server.get("/<script>alert(1)", host="evil.example")
    assert answer.status == 404
    assert "script" not in answer.text
    assert "evil" not in answer.text
    assert '<address>perchildd Server at <a href="mailto:root@example.org">www.example.org</a> Port 80</address>' in answer.text
    assert answer.field("Content-Type") == "text/html; charset=utf-8"


def test_serve_uses_error_documents(start: Start) -> None:
    """Text, local path with its status and REDIRECT_ variables, URL, and back to the default in a section."""
    settings = (ns.error_document(403, 0, "<p>no"), ns.error_document(404, 1, "/sub/c.txt?x=1"), ns.error_document(410, 2, "http://g.example/"),
                ns.redirect(410, 0, "/gone"), record.texts("SET_ENV", "A", "b"), ns.header("set", "X-Ok", "1"))
    sections = (ns.section(LOCATION, "/closed", DENIED), ns.section(LOCATION, "/plain", ns.error_document(404, 3)))
    server = start(*settings, sections=sections)
    answer = server.get("/none?q", "Range: bytes=0-0", "If-None-Match: *")
    assert (answer.status, answer.body, answer.field("X-Ok")) == (404, b"c", "1")
    assert answer.env == {"REDIRECT_A": "b", "REDIRECT_STATUS": "404", "REDIRECT_URL": "/none", "REDIRECT_REQUEST_METHOD": "GET",
                          "REDIRECT_QUERY_STRING": "q", "A": "b"}
    assert server.get("/none", method="PUT").status == 405
    assert (server.get("/closed").status, server.get("/closed").text, server.get("/closed").field("X-Ok")) == (403, "<p>no", None)
    assert (server.get("/gone").status, server.get("/gone").field("Location")) == (302, "http://g.example/")
    assert "Not Found" in server.get("/plain/x").text


@pytest.mark.parametrize("document", ["/missing", "/closed/x", "/sub/", "/../x"])
def test_serve_says_both_errors_when_the_document_fails(start: Start, document: str) -> None:
    """An ErrorDocument that is missing, denied or malformed: the first status, our page, no circle."""
    server = start(ns.error_document(404, 1, document), ns.error_document(403, 1, document),
                   sections=(ns.section(LOCATION, "/closed", DENIED),))
    answer = server.get("/none")
    assert answer.status == 404
    assert "Additionally, a 40" in answer.text


def test_serve_error_answers_for_those_who_call_it(start: Start) -> None:
    """pc_serve_error: page, document, and our page where the document would need Python."""
    server = start(ns.error_document(408, 1, "/a.txt"), ns.error_document(503, 1, "/who"), ns.header("set", "X-A", "1", always=True),
                   sections=(ns.section(LOCATION, "/who", record.text("HANDLER", "whoami")),))
    answers = {status: server.get("/x", error=status) for status in (400, 408, 503, 431)}
    assert {status: answer.status for status, answer in answers.items()} == {400: 400, 408: 408, 503: 503, 431: 431}
    assert answers[408].body == b"0123456789"
    assert answers[503].field("Retry-After") == "1"
    assert all(answer.field("X-A") == "1" for answer in answers.values())


# ---------------------------------------------------------------- Header, RequestHeader, environment


def values(answer: Answer, name: str) -> list[str]:
    """All response fields called `name`, in order."""
    return [value for key, value in answer.fields if key.lower() == name.lower()]


@pytest.mark.parametrize(("items", "expected"), [
    ((ns.header("set", "X", "1"), ns.header("set", "x", "2")), ["2"]),
    ((ns.header("add", "X", "1"), ns.header("add", "X", "2")), ["1", "2"]),
    ((ns.header("append", "X", "1"), ns.header("append", "X", "1")), ["1, 1"]),
    ((ns.header("merge", "X", "a"), ns.header("merge", "X", "b"), ns.header("merge", "X", "a")), ["a, b"]),
    ((ns.header("set", "X", "1"), ns.header("unset", "X")), []),
    ((ns.header("setifempty", "X", "1"), ns.header("setifempty", "X", "2")), ["1"]),
    ((ns.header("set", "X", "aXbX"), ns.header("edit", "X", "[$0]", pattern="X")), ["a[X]bX"]),
    ((ns.header("set", "X", "aXbX"), ns.header("edit", "X", "-$1", pattern="(X)", every=True)), ["a-Xb-X"]),
    ((ns.header("set", "X", "ab"), ns.header("edit", "X", "-", pattern="", every=True)), ["-a-b"]),
    ((ns.header("set", "X", "1", env="YES"), ns.header("append", "X", "2", env="!YES"), ns.header("append", "X", "3", env="!NO")), ["1, 3"]),
    ((ns.header("echo", "^X$"),), ["from client"]),
])
def test_header_does_what_its_action_says(start: Start, items: tuple[bytes, ...], expected: list[str]) -> None:
    """set, add, append, merge, unset, setifempty, edit, edit*, env= and echo."""
    answer = start(record.texts("SET_ENV", "YES", "1"), *items).get("/a.txt", "X: from client")
    assert values(answer, "X") == expected


def test_header_sees_our_fields_and_not_those_that_frame(start: Start) -> None:
    """ETag can be unset, Content-Type edited; Content-Length and Connection cannot be touched; errors take always alone."""
    items = (ns.header("unset", "ETag"), ns.header("edit", "Content-Type", "x", pattern="plain"), ns.header("set", "Content-Length", "0"),
             ns.header("set", "Transfer-Encoding", "chunked"), ns.header("set", "A", "1"), ns.header("set", "B", "1", always=True))
    server = start(*items)
    answer = server.get("/a.txt")
    assert (answer.field("ETag"), answer.field("Content-Type"), answer.field("Content-Length")) == (None, "text/x", "10")
    assert answer.field("Transfer-Encoding") is None
    assert (server.get("/none").field("A"), server.get("/none").field("B")) == (None, "1")
    assert server.get("/a.txt", "If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT").field("A") == "1"


def test_header_never_overflows_the_fields(start: Start) -> None:
    """More fields than fit: the rest is left out and the log says so."""
    server = start(*(ns.header("add", "X", str(number)) for number in range(200)))
    answer = server.get("/a.txt")
    assert len(answer.fields) == 96 + 1  # the driver writes Content-Length itself
    assert "more than 96 fields" in server.log_text


def test_requestheader_changes_what_handlers_will_see(start: Start) -> None:
    """set, append, merge, edit and unset of request fields."""
    def make(action: str, name: str, value: str = "", **rest: str) -> bytes:
        return ns.header(action, name, value, item="REQUEST_HEADER", **rest)  # type: ignore[arg-type]

    items = (make("set", "A", "1"), make("append", "B", "2"), make("edit", "C", "x", pattern="c"), make("unset", "D"), make("unset", "E"),
             make("setifempty", "B", "9"))
    answer = start(*items).get("/a.txt", "B: 1", "C: ccc", "D: d")
    assert answer.edits == {"A": "1", "B": "1, 2", "C": "xcc", "D": None}


def test_setenv_and_unsetenv_merge_by_section(start: Start) -> None:
    """The more specific section wins; a section can take away what is set above it."""
    sections = (ns.section(LOCATION, "/sub", record.texts("SET_ENV", "A", "2"), record.text("UNSET_ENV", "B")),)
    server = start(record.texts("SET_ENV", "A", "1"), record.texts("SET_ENV", "B", "1"), sections=sections)
    assert server.get("/a.txt").env == {"A": "1", "B": "1"}
    assert server.get("/sub/c.txt").env == {"A": "2"}
