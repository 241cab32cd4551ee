"""Files of tenants on the wire: bytes, sizes, links, roots that are swapped, files that are cut, connections that are kept.

What can be compared with httpd is compared in test_static_httpd.py.
Runs as: root, which starts the server.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.lab import PYTHON, Lab, wait_until
from tests.system.wire import client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SIZES = (0, 1, 1023, 16383, 16384, 16385, 1_000_000, 60_000_000)
MB = 1 << 20
HOST = """
<Directory {root}>
Options Indexes FollowSymLinks
</Directory>
<Location /byname>
Require host localhost
</Location>
<Location /noname>
Require host example.org
</Location>
<Directory {root}/owned>
Options -FollowSymLinks +SymLinksIfOwnerMatch
</Directory>
ErrorDocument 403 /error/403.html
"""


SEGMENTS_IN_AT = 140  # tcpi_segs_in of struct tcp_info, linux/tcp.h


def noise(size: int) -> bytes:
    """Bytes that show where they are from, the same each time."""
    return hashlib.shake_128(str(size).encode()).digest(size)


def seconds_of(lab: Lab) -> None:
    """Make the second tenant's files: secret, and open to the world."""
    bob = lab.tenants["bob"]
    bob.write("secret.txt", "bob's secret\n", 0o600)
    bob.home.chmod(0o711)
    bob.docroot.chmod(0o711)
    bob.write("open.txt", "bob's open file\n", 0o644)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two tenants; alice's files."""
    with Lab(names=("alice", "bob")) as one:
        alice = one.tenants["alice"]
        for size in SIZES:
            alice.write(f"size/{size}", noise(size))
        for name in ("byname/f.txt", "noname/f.txt", "owned/own.txt", "file.txt"):
            alice.write(name, "yes\n")
        alice.write("error/403.html", "my 403\n")
        seconds_of(one)
        one.host_config = HOST.format(root=alice.docroot)
        yield one.start()


def link(lab: Lab, name: str, target: str | Path) -> None:
    """Make a symbolic link of alice's."""
    alice = lab.tenants["alice"]
    path = alice.docroot / name
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    os.chown(path, alice.uid, alice.uid, follow_symlinks=False)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("size", SIZES)
def test_file_is_served_byte_for_byte(lab: Lab, size: int) -> None:
    """GET: length and bytes; HEAD: the length, no byte; the connection serves on."""
    with client(lab) as conn:
        answer = conn.ask(get("alice.test", f"/size/{size}"))
        assert (answer.status, answer.fields["content-length"]) == (200, str(size))
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(noise(size)).digest()
        head = conn.ask(get("alice.test", f"/size/{size}", method="HEAD"))
        assert (head.status, head.fields["content-length"], head.body) == (200, str(size), b"")
        assert conn.ask(get("alice.test", "/file.txt")).body == b"yes\n"


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 16383), (16384, 16385), (999_999, 30_000_000), (59_999_999, 59_999_999), (1, 59_999_998)])
def test_range_of_a_large_file_is_served_byte_for_byte(lab: Lab, first: int, last: int) -> None:
    """206 with exactly those bytes."""
    with client(lab) as conn:
        answer = conn.ask(get("alice.test", "/size/60000000", f"Range: bytes={first}-{last}"))
    assert (answer.status, answer.fields["content-range"]) == (206, f"bytes {first}-{last}/60000000")
    assert answer.body == noise(60_000_000)[first:last + 1]


def test_several_large_ranges_are_parts_of_one_answer(lab: Lab) -> None:
    """multipart/byteranges across sendfile's pieces: every part's bytes, in the order asked for."""
    wanted = [(0, 2 * MB), (5 * MB, 5 * MB), (50 * MB, 53 * MB)]
    ranges = ",".join(f"{first}-{last}" for first, last in wanted)
    with client(lab) as conn:
        answer = conn.ask(get("alice.test", "/size/60000000", f"Range: bytes={ranges}"))
        assert conn.ask(get("alice.test", "/file.txt")).body == b"yes\n"
    boundary = answer.fields["content-type"].split("boundary=")[1].encode()
    parts = answer.body.split(b"\r\n--" + boundary)[1:-1]
    data = noise(60_000_000)
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [data[first:last + 1] for first, last in wanted]


def test_pipelined_files_of_all_sizes_come_whole_and_in_order(lab: Lab) -> None:
    """Small and large ones in turn on one connection."""
    sizes = [size for size in SIZES if size < 10_000_000] * 3
    with client(lab) as conn:
        sender = threading.Thread(target=conn.send, args=(b"".join(get("alice.test", f"/size/{size}") for size in sizes),))
        sender.start()
        for size in sizes:
            answer = conn.read()
            assert answer is not None
            assert answer.body == noise(size)
        sender.join()


# ---------------------------------------------------------------- files that change under the server


def shrunk(lab: Lab, raw: bytes, name: str) -> bytes:
    """Ask for a file, read a little, cut the file, read the rest until the end; return the body that came."""
    path = lab.tenants["alice"].write(name, noise(30_000_000))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", lab.port))
    with lab.speak(sock) as speaking:
        speaking.sendall(raw)
        got = speaking.recv(1000)
        os.truncate(path, 100)
        with contextlib.suppress(ConnectionResetError):
            while part := speaking.recv(1 << 20):
                got += part
        return got.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("field", [(), ("Range: bytes=1000-29000000",), ("Range: bytes=0-9,1000-29000000",)])
def test_file_cut_while_it_is_sent_ends_the_connection_early(lab: Lab, field: tuple[str, ...]) -> None:
    """The promised length cannot be kept: no made-up byte, the connection ends, the child lives and serves on."""
    assert lab.get("alice.test", "/file.txt").body == b"yes\n"  # her child is there
    pids = lab.children(lab.tenants["alice"].uid)
    body = shrunk(lab, get("alice.test", "/cut.bin", *field), "cut.bin")
    assert len(body) < 29_000_000
    if not field:
        # The kernel clears the rest of the pages in which a file is cut, also where they wait to be sent.
        assert all(one in {0, other} for one, other in zip(body, noise(30_000_000), strict=False))
    assert lab.get("alice.test", "/file.txt").body == b"yes\n"
    assert lab.children(lab.tenants["alice"].uid) == pids


def test_small_file_cut_between_open_and_read_never_gets_made_up_bytes(lab: Lab) -> None:
    """A file that is cut and filled all the time: each answer is what it was at some moment, or the connection ends early."""
    path = lab.tenants["alice"].write("flap.txt", b"A" * 9000)
    stop = threading.Event()

    def flap() -> None:
        while not stop.is_set():
            os.truncate(path, 10)
            os.truncate(path, 9000)  # zeros behind the first ten

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        for _ in range(300):
            raw = lab.exchange(get("alice.test", "/flap.txt", "Connection: close"))
            head, _, body = raw.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
            assert len(body) <= length
            assert set(body) <= {0, 65}
    finally:
        stop.set()
        thread.join()


def test_document_root_swapped_by_rename_is_noticed() -> None:
    """A release by `mv -T new current` (a link) or by renaming directories is served within about a second, without a reload."""
    with Lab(names=("alice",)) as one:
        alice = one.tenants["alice"]
        for number in (1, 2, 3):
            release = alice.home / f"release{number}"
            release.mkdir()
            (release / "v").write_text(f"{number}\n")
            os.chown(release, alice.uid, alice.uid)
            os.chown(release / "v", alice.uid, alice.uid)
        (alice.docroot / "index.html").unlink()
        alice.docroot.rmdir()
        alice.docroot.symlink_to("release1")
        one.start()
        assert one.get("alice.test", "/v").body == b"1\n"
        (alice.home / "next").symlink_to("release2")
        (alice.home / "next").rename(alice.docroot)
        wait_until(lambda: one.get("alice.test", "/v").body == b"2\n", "the second release is served")
        with client(one) as conn:  # a kept connection notices too
            assert conn.ask(get("alice.test", "/v")).body == b"2\n"
            (alice.home / "release2").rename(alice.home / "old")
            (alice.home / "release3").rename(alice.home / "release2")
            wait_until(lambda: conn.ask(get("alice.test", "/v")).body == b"3\n", "the third release is served")


# ---------------------------------------------------------------- another tenant's files


def test_links_to_another_tenants_files_give_none_of_its_bytes(lab: Lab) -> None:
    """FollowSymLinks: the kernel refuses what is secret; SymLinksIfOwnerMatch: what is open to the world too; a FIFO does not hang."""
    bob = lab.tenants["bob"]
    for name, target, status in (("to-secret", bob.docroot / "secret.txt", 403), ("owned/to-open", bob.docroot / "open.txt", 403),
                                 ("owned/to-secret", bob.docroot / "secret.txt", 403), ("owned/to-dir", bob.docroot, 403)):
        link(lab, name, target)
        answer = lab.get("alice.test", f"/{name}" + ("/open.txt" if name.endswith("dir") else ""))
        assert (answer.status, b"bob" in answer.body) == (status, False), name
    link(lab, "owned/to-own", "own.txt")
    assert lab.get("alice.test", "/owned/to-own").body == b"yes\n"
    os.mkfifo(lab.tenants["alice"].docroot / "fifo", 0o666)
    assert lab.get("alice.test", "/fifo").status in {403, 404}


def test_swapping_a_file_and_a_link_never_gives_another_tenants_bytes(lab: Lab) -> None:
    """A program of alice's exchanges her file and a link to bob's world-readable one all the time: no byte of bob's under
    SymLinksIfOwnerMatch, while both her file and refusals are seen."""
    alice, bob = lab.tenants["alice"], lab.tenants["bob"]
    directory = alice.docroot / "owned"
    alice.write("owned/swap", "yes\n")
    link(lab, "owned/other", bob.docroot / "open.txt")
    swapper = subprocess.Popen([PYTHON, "-c", SWAP, str(directory)], user=alice.uid, group=alice.uid, extra_groups=[])
    seen = {b"yes\n": 0, b"my 403\n": 0}
    try:
        start = time.monotonic()
        while is_too_early(start, has_seen_both=min(seen.values()) > 0):
            with client(lab) as conn:
                conn.send(get("alice.test", "/owned/swap") * 90)
                for _ in range(90):
                    answer = conn.read()
                    assert answer is not None
                    assert answer.body in seen, answer.raw
                    seen[answer.body] += 1
    finally:
        swapper.kill()
        swapper.wait()
    assert min(seen.values()) > 0, seen


def is_too_early(start_s: float, *, has_seen_both: bool) -> bool:
    """Whether to go on: for a second and a half, and then until both were seen, as far as that is to be expected at all."""
    return time.monotonic() - start_s < (1.5 if has_seen_both else 60)


SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
one, two = (f"{sys.argv[1]}/{name}".encode() for name in ("swap", "other"))
while True:
    libc.renameat2(-100, one, -100, two, 2)
"""


def test_swapping_a_directory_and_a_link_never_leaves_the_document_root(lab: Lab) -> None:
    """The same with a directory in the middle of the path."""
    alice, bob = lab.tenants["alice"], lab.tenants["bob"]
    alice.write("owned/swap-dir/open.txt", "yes\n")
    link(lab, "owned/other-dir", bob.docroot)
    swap = SWAP.replace('"swap", "other"', '"swap-dir", "other-dir"')
    swapper = subprocess.Popen([PYTHON, "-c", swap, str(alice.docroot / "owned")], user=alice.uid, group=alice.uid, extra_groups=[])
    seen: dict[int, int] = {}
    try:
        start = time.monotonic()
        while is_too_early(start, has_seen_both=0 < seen.get(200, 0) < sum(seen.values())):
            with client(lab) as conn:
                conn.send(get("alice.test", "/owned/swap-dir/open.txt") * 90)
                for _ in range(90):
                    answer = conn.read()
                    assert answer is not None
                    assert b"bob" not in answer.body
                    seen[answer.status] = seen.get(answer.status, 0) + 1
    finally:
        swapper.kill()
        swapper.wait()
    assert seen.get(200, 0) > 0 and sum(seen.values()) > seen[200], seen


# ---------------------------------------------------------------- listings


class Links(HTMLParser):
    """Collects what a browser would make of a listing: (href, text), and names of elements."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.links: list[list[str]] = []
        self.elements: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element, and a link's target."""
        self.elements.add(tag)
        if tag == "a":
            self.links.append([str(dict(attrs).get("href")), ""])

    def handle_data(self, data: str) -> None:
        """Add to the link's text."""
        if self.links:
            self.links[-1][1] += data


NAMES = ("<b>&\"'.txt", "a b.txt", "100%.txt", "ü.txt", "new\nline.txt", "tab\there", "javascript:alert(1)", "x'y", "#hash", "?query", "+plus", "z" * 200,
         "a:b", "%41", "//x".replace("/", "_"), "\x01ctl", "\x7fdel")


def test_listing_survives_every_name(lab: Lab) -> None:
    """Each odd name is a link that leads to its file (or to 400, with control bytes), none becomes markup, and names that are no UTF-8 do no harm."""
    alice = lab.tenants["alice"]
    for name in NAMES:
        alice.write(f"odd/{name}", f"{name}\n")
    with open(os.fsencode(alice.docroot / "odd") + b"/bad\xff\xfe.txt", "wb") as file:
        file.write(b"bad\n")
    page = lab.get("alice.test", "/odd/")
    assert page.status == 200
    text = page.body.decode(errors="replace")
    links = Links()
    links.feed(text)
    assert not {"b", "script"} & links.elements
    reached = 0
    for href, _ in links.links:
        if href.startswith(("?", "..")) or href == "/":
            continue
        assert not href.lower().startswith("javascript:")
        target = href if href.startswith("/") else f"/odd/{href.removeprefix('./')}"
        answer = lab.get("alice.test", target.partition("#")[0].partition("?")[0])
        name = unquote_to_bytes(href.removeprefix("./").removeprefix("/odd/"))
        has_control = any(byte < 32 or byte == 127 for byte in name)
        assert answer.status == (400 if has_control else 200), href  # control bytes in a path are refused (corpus 401 to 404)
        if not has_control and not name.startswith(b"bad"):
            assert answer.body == name + b"\n"
        reached += 1
    assert reached == len(NAMES) + 1


# ---------------------------------------------------------------- access


def has_localhost() -> bool:
    """Return whether 127.0.0.1 is called localhost both ways, as /etc/hosts of every installed system says."""
    with contextlib.suppress(OSError):
        return "127.0.0.1" in socket.gethostbyname_ex(socket.gethostbyaddr("127.0.0.1")[0])[2]
    return False


@pytest.mark.skipif(not has_localhost(), reason="127.0.0.1 has no name here: /etc/hosts is missing")
def test_require_host_decides_by_the_clients_name(lab: Lab) -> None:
    """127.0.0.1 is localhost (looked up both ways): its section is open, another name's is closed, with the ErrorDocument."""
    assert lab.get("alice.test", "/byname/f.txt").body == b"yes\n"
    answer = lab.get("alice.test", "/noname/f.txt")
    assert (answer.status, answer.body) == (403, b"my 403\n")


# ---------------------------------------------------------------- keeping connections


def limited(config: str) -> Lab:
    """Return a server with these directives."""
    return Lab(config, names=("alice",)).start()


@pytest.mark.http1("a stream has no Connection field, and its connection no number of requests")
def test_connection_ends_after_the_configured_number_of_requests() -> None:
    """MaxKeepAliveRequests 3: the third answer says close, a fourth pipelined request gets none."""
    with limited("MaxKeepAliveRequests 3\n") as lab, client(lab) as conn:
        conn.send(get("alice.test") * 4)
        answers = list(iter(conn.read, None))
    assert [answer.fields.get("connection") for answer in answers] == [None, None, "close"]


@pytest.mark.http1("a stream has no Connection field")
def test_keepalive_off_closes_after_each_answer() -> None:
    """KeepAlive Off: HTTP/1.1 says close; HTTP/1.0 that asks for keep-alive too."""
    with limited("KeepAlive Off\n") as lab:
        for raw in (get("alice.test"), b"GET / HTTP/1.0\r\nHost: alice.test\r\nConnection: keep-alive\r\n\r\n"):
            with client(lab) as conn:
                assert conn.ask(raw).fields["connection"] == "close"
                assert conn.reads_end()


@pytest.mark.http1("the end of a connection")
@pytest.mark.plain("segments of TCP are counted")
def test_last_answer_and_the_end_come_in_one_packet(lab: Lab) -> None:
    """A client that asks for the end hears three times: its handshake, the answer with the FIN, the last acknowledgement.

    The kernel acknowledges a request by itself if its answer takes 40 ms; a busy machine may do so now and then, and not always.
    """
    lab.tenants["alice"].write("last.txt", "last")
    heard = []
    while 2 not in heard and len(heard) < 100:
        with client(lab) as conn:
            conn.send(get("alice.test", "/last.txt", "Connection: close"))
            answer = conn.read()
            assert answer is not None
            assert answer.body == b"last"
            assert conn.read() is None
            info = conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            heard += struct.unpack_from("=I", info, SEGMENTS_IN_AT)
    assert min(heard) == 2  # the last acknowledgement comes after the client's own end


@pytest.mark.http1("HTTP/1.0")
def test_http_10_keeps_a_connection_when_asked(lab: Lab) -> None:
    """Connection: keep-alive in HTTP/1.0: answered with Keep-Alive, and a second request served; without it the end."""
    ten = b"GET /file.txt HTTP/1.0\r\nHost: alice.test\r\n"
    with client(lab) as conn:
        for _ in range(3):
            answer = conn.ask(ten + b"Connection: keep-alive\r\n\r\n")
            assert (answer.fields["connection"].lower(), "timeout=" in answer.fields["keep-alive"]) == ("keep-alive", True)
        assert conn.ask(ten + b"\r\n").fields["connection"] == "close"
        assert conn.reads_end()


def test_idle_kept_connection_is_closed_in_time() -> None:
    """KeepAliveTimeout 500ms: closed without a word, and not before."""
    with limited("KeepAliveTimeout 500ms\n") as lab, client(lab) as conn:
        began = time.monotonic()
        assert conn.ask(get("alice.test")).status == 200
        assert conn.reads_end()
        assert time.monotonic() - began > 0.4


def test_request_header_changes_what_the_log_sees() -> None:
    """RequestHeader set and unset are in force before the log, and SetEnv's variables are in it."""
    config = ('LogFormat "%{X-Seen}i|%{X-Gone}i|%{SEEN}e|%{COLOR}e" seen\nRequestHeader set X-Seen yes\nRequestHeader unset X-Gone\n'
              "SetEnv SEEN env\nSetEnv COLOR red\nUnsetEnv COLOR\nCustomLog log/seen.log seen\n")
    with limited(config) as lab:
        lab.get("alice.test", fields={"X-Gone": "here", "X-Seen": "no"})
        wait_until((lab.log / "seen.log").read_text, "the line is written")
        assert (lab.log / "seen.log").read_text() == "yes|-|env|-\n"
