"""pc_serve on real files, answered as httpd does: sections, access and what stands behind a file's name.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import re
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
    Start,
)

from perchild.wire import record

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
