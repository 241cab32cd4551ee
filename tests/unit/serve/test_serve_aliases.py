"""pc_serve on real files, answered as httpd does: aliases and redirections.

Runs as: the developer (pytest).
"""

from __future__ import annotations

from pathlib import Path

import native_serve as ns
import pytest
from native_serve import (
    DENIED,
    LOCATION,
    Start,
)

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
