"""pc_serve on real files, answered as httpd does: files and links: their bytes and validators, and which of them are not sent.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import native_serve as ns
import pytest
from native_serve import (
    LOCATION,
    OLD_S,
    Start,
)

from perchild.wire import record

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
    os.utime(root / "new.txt", (time.time() + 3600,) * 2)  # as new as can be, however long the request takes
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
