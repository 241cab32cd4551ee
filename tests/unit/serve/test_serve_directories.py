"""pc_serve on real files, answered as httpd does: directories: their index and their listing.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import native_serve as ns
import pytest
from native_serve import (
    DENIED,
    DIRECTORY,
    FILES,
    OLD_S,
    Start,
)

from perchild.wire import record

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
