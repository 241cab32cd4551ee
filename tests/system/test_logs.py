"""Access and error logs on the wire: httpd's lines, every byte counted, whose file it is, and nothing lost when it is reopened.

Runs as: root, which starts the servers.  Source: operators.md 2 (9, 30, 31), 6.3; security.md 4.6.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perchild.control.client import ask_server
from tests.lab import Lab, Tenant, wait_until
from tests.system.wire import HAS_APACHE, Client, Httpd, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

ITEMS = ("%h", "%a", "%{c}a", "%A", "%l", "%u", "%r", "%>s", "%s", "%b", "%B", "%H", "%m", "%q", "%U", "%f", "%V", "%v", "%p", "%{canonical}p",
         "%{local}p", "%{Referer}i", "%{User-Agent}i", "%{X-None}i", "%{X-A}o", "%{Content-Type}o", "%{NONE}e", "%{COLOR}e", "%k", "%X", "%%",
         "%I", "%200,304{X-Only}i", "%!200,304{X-Only}i", "%{%Y}t")
CONFIG = r"""
LogFormat "{items}" all
LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{{Referer}}i\" \"%{{User-Agent}}i\"" vhost_combined
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{{Referer}}i\" \"%{{User-Agent}}i\"" combined
LogFormat "%h %l %u %t \"%r\" %>s %O" common
SetEnv COLOR "red \"wine\""
<Location /quiet>
SetEnv quiet 1
</Location>
Header set X-A "a \"b\""
CustomLog {log}/all.log all
CustomLog {log}/some.log "%r" env=!quiet
CustomLog {log}/quiet.log "%r" env=quiet
CustomLog {log}/vhost.log vhost_combined
CustomLog {log}/combined.log combined
CustomLog {log}/common.log common
CustomLog {log}/bytes.log "%r|%I|%O|%D|%T|%{{ms}}T|%{{us}}T|%{{sec}}t|%t|%P"
<Directory {root}>
Options Indexes FollowSymLinks
AllowOverride None
Require all granted
</Directory>
Redirect /red http://example.org/
<Location /denied>
Require all denied
</Location>
"""
LOUD_LOGS = [name for name in re.findall(r"CustomLog {log}/(\S+)", CONFIG) if name != "quiet.log"]  # all but that have a line of every loud request
LAST_LOG = LOUD_LOGS[-1]  # which httpd writes last, and which has a line of every request
OLD = 1_600_000_000
REQUESTS = {
    "plain": get("alice.test", "/file.txt", "User-Agent: Mozilla/5.0 (X11; Linux)", "Referer: http://example.org/a?b"),
    "query": get("alice.test", "/file.txt?a=1&b=%20%22"),
    "quotes": get("alice.test", "/file.txt", 'User-Agent: a "quoted" \\ backslash', "Referer: \t tab\tinside"),
    "8 bit": get("alice.test", "/file.txt", "User-Agent: \udcff\udc80\udc9b ü"),
    "escape in path": get("alice.test", "/file.txt%0a%1b"),
    "space": get("alice.test", "/sp%20ace.txt"), "head": get("alice.test", "/file.txt", method="HEAD"),
    "missing": get("alice.test", "/missing"), "denied": get("alice.test", "/denied/x"), "redirect": get("alice.test", "/red"),
    "empty": get("alice.test", "/empty.txt"), "not modified": get("alice.test", "/file.txt", "If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT"),
    "range": get("alice.test", "/file.txt", "Range: bytes=0-9"), "post": get("alice.test", "/file.txt", "Content-Length: 7", method="POST") + b"a=b&c=d",
    "chunked": get("alice.test", "/file.txt", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n",
    "directory": get("alice.test", "/sub"), "index": get("alice.test", "/sub/"), "unknown method": get("alice.test", "/file.txt", method="BREW"),
    "http 1.0": b"GET /file.txt HTTP/1.0\r\nHost: alice.test\r\n\r\n", "absolute": get("alice.test", "http://alice.test/file.txt"),
    "other port": get("alice.test:8080", "/file.txt"), "capital host": get("ALICE.test", "/file.txt"),
    "only": get("alice.test", "/file.txt", "X-Only: x"), "only when failed": get("alice.test", "/missing", "X-Only: x"),
}
DIFFERENCES = {
    ("denied", "%f"): "what the URL means; httpd stops at the last directory that is there",
    ("index", "%U"): "what was asked for, not the file that DirectoryIndex found",
    ("escape in path", "%{COLOR}e"): "refused before the host's settings are looked at",
    ("unknown method", "%X"): "the connection is kept",
    ("escape in path", "%>s"): "400, where httpd looks for the file", ("escape in path", "%s"): "the same",
    ("escape in path", "%U"): "the same", ("escape in path", "%f"): "the same",
}

OF_CONNECTIONS = {"%I", "%k", "%X"}  # which a stream shares with others


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers, and where their logs are."""

    lab: Lab
    httpd: Httpd | None
    ours: Path
    theirs: Path


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """perchildd, and httpd if there is one."""
    with Lab(names=("alice", "bob")) as lab:
        alice = lab.tenants["alice"]
        for name, data in {"file.txt": "0123456789" * 10, "empty.txt": "", "sp ace.txt": "x\n", "sub/index.html": "sub\n"}.items():
            os.utime(alice.write(name, data), (OLD, OLD))
        theirs = lab.base / "httpd-log"
        theirs.mkdir()
        text = CONFIG.format(items="|~|".join(ITEMS), log="{log}", root=alice.docroot)
        lab.host_config = text.replace("{log}", str(lab.log)).replace(f"<Directory {alice.docroot}>", f"<Directory {lab.base}>")
        lab.start()
        if not HAS_APACHE:
            yield Pair(lab, None, lab.log, theirs)
            return
        host = f"ServerName alice.test\nDocumentRoot {alice.docroot}\nUseCanonicalName Off\n{text}".replace("{log}", str(theirs))
        with Httpd(lab.base / "httpd", alice.uid, f"<VirtualHost *:{{port}}>\n{host}\n</VirtualHost>\n") as httpd:
            yield Pair(lab, httpd, lab.log, theirs)


def lines_of(path: Path, count: int) -> list[str]:
    """Return the lines of a log, when `count` are there."""
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, f"{count} lines in {path}")
    return path.read_text().splitlines()


def clear(*paths: Path) -> None:
    """Empty logs: they are written in append mode."""
    for directory in paths:
        for path in directory.glob("*.log"):
            os.truncate(path, 0)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def ask_both(pair: Pair, raws: list[bytes]) -> None:
    """Send each request on a connection of its own to both servers."""
    for raw in raws:
        with client(pair.lab) as conn:
            conn.ask(raw)
            conn.end()
    before = count_lines(pair.theirs / LAST_LOG)
    for number, raw in enumerate(raws if pair.httpd else ()):
        with Client(("127.0.0.1", pair.httpd.port)) as conn:
            conn.ask(raw)
        # httpd's threads write behind the answer: the next one's line could come first.
        wait_until(lambda wanted=before + number + 1: count_lines(pair.theirs / LAST_LOG) >= wanted, "httpd has written its lines")


@pytest.mark.interop
@pytest.mark.skipif(not HAS_APACHE, reason="Debian's apache2 is not installed")
def test_lines_are_httpds(pair: Pair) -> None:
    """35 formats for 24 requests: each item is what httpd writes for the same request."""
    time_to_settle(pair)
    requests = {name: raw for name, raw in REQUESTS.items() if not (pair.lab.h2 and name in {"absolute", "http 1.0"})}
    ask_both(pair, list(requests.values()))
    assert pair.httpd is not None
    ours, theirs = (lines_of(where / "all.log", len(requests)) for where in (pair.ours, pair.theirs))
    assert len(ours) == len(theirs) == len(requests)
    found, listed = [], set()
    for name, one, other in zip(requests, ours, theirs, strict=True):
        columns = zip(ITEMS, as_plain(pair.lab, one).split("|~|"), other.replace(str(pair.httpd.port), "PORT").split("|~|"), strict=True)
        for item, mine, his in columns:
            if mine == his or (item in {"%b", "%B"} and re.search(r"[345]\d\d", one.split("|~|")[7])):
                continue  # pages of our own have their own length
            if pair.lab.h2 and item in OF_CONNECTIONS:
                continue
            if item == "%{Content-Type}o" and mine.replace("utf-8", "iso-8859-1") == his:
                continue
            if (name, item) in DIFFERENCES:
                listed.add((name, item))
                continue
            found.append(f"{name} {item}: {mine!r}, httpd {his!r}")
    assert not found, "\n".join(found)
    assert listed == {(name, item) for name, item in DIFFERENCES if not (pair.lab.h2 and item in OF_CONNECTIONS)}, "listed differences that are none"


def as_plain(lab: Lab, text: str) -> str:
    """Return what stands in a log as it would if the lab spoke as httpd does here, plain HTTP/1.1."""
    text = text.replace(str(lab.port), "PORT").replace(f'{lab.version}"', 'HTTP/1.1"')
    text = text.replace(f"|~|{lab.version}|~|", "|~|HTTP/1.1|~|").replace(f" {lab.version}|~|", " HTTP/1.1|~|")
    return re.sub(r"(?<=\|~\|)443(?=\|~\|)", "80", text) if lab.tls else text


def time_to_settle(pair: Pair) -> None:
    """Empty all logs when every line of earlier requests is in them: a log is written after the other."""
    with client(pair.lab) as conn:
        conn.ask(get("alice.test", "/marker"))
    for name in LOUD_LOGS:
        wait_until(lambda name=name: "/marker" in (pair.ours / name).read_text(), f"the marker is written to {name}")
    clear(pair.ours, pair.theirs)


def test_known_names_have_httpds_shape(pair: Pair) -> None:
    """common, combined and vhost_combined, timestamp and all."""
    time_to_settle(pair)
    ask_both(pair, [REQUESTS["plain"]])
    common = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /file\.txt VERSION" 200 \d+'
    combined = common + r' "http://example\.org/a\?b" "Mozilla/5\.0 \(X11; Linux\)"'
    for where, version in [(pair.ours, pair.lab.version)] + ([(pair.theirs, "HTTP/1.1")] if pair.httpd else []):
        for name, wanted in {"common": common, "combined": combined, "vhost": r"alice\.test:\d+ " + combined}.items():
            assert re.fullmatch(wanted.replace("VERSION", re.escape(version)), lines_of(where / f"{name}.log", 1)[0])


def test_formats_are_known_without_a_logformat() -> None:
    """common, combined, vhost_combined by name alone; an unnamed TransferLog is common's shape."""
    with Lab(names=("alice",), config="CustomLog log/a.log common\nCustomLog log/b.log combined\nCustomLog log/c.log vhost_combined\n") as lab:
        lab.start()
        lab.get("alice.test", fields={"User-Agent": "x"})
        assert re.fullmatch(rf'127\.0\.0\.1 - - \[[^]]+\] "GET / {re.escape(lab.version)}" 200 \d+', lines_of(lab.log / "a.log", 1)[0])
        assert lines_of(lab.log / "b.log", 1)[0].endswith('"-" "x"')
        assert lines_of(lab.log / "c.log", 1)[0].startswith(f"alice.test:{443 if lab.tls else 80} 127.0.0.1 ")  # as Host says, as with httpd


@pytest.mark.http1("bytes of a connection, which a stream shares with others")
def test_bytes_are_those_on_the_wire_and_times_are_plausible(pair: Pair) -> None:
    """%I and %O are exactly what was sent and received, also with sendfile, chunked bodies and pipelining; %D %T are near."""
    time_to_settle(pair)
    pair.lab.tenants["alice"].write("big.bin", bytes(3_000_000))
    wanted = []
    for name in ("plain", "head", "missing", "post", "chunked", "range", "directory", "http 1.0", "not modified"):
        raw = REQUESTS[name].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        began = time.monotonic()
        got = pair.lab.exchange(raw)
        wanted.append((len(raw), len(got), time.monotonic() - began))
    raw = get("alice.test", "/big.bin", "Connection: close")
    began = time.monotonic()
    got = pair.lab.exchange(raw)
    wanted.append((len(raw), len(got), time.monotonic() - began))
    lines = lines_of(pair.ours / "bytes.log", len(wanted))
    for line, (sent, received, took) in zip(lines, wanted, strict=True):
        _, bytes_in, bytes_out, micro, whole, milli, micro_again, stamp, _, pid = line.split("|")
        assert (int(bytes_in), int(bytes_out)) == (sent, received), line
        assert 0 <= int(micro) <= took * 1e6 + 1000
        assert int(micro) // 1000 == int(milli)
        assert int(micro) == int(micro_again)
        assert int(whole) == int(micro) // 1_000_000
        assert abs(int(stamp) - time.time()) < 300
        assert int(pid) in pair.lab.children(pair.lab.tenants["alice"].uid)


def test_env_chooses_the_log(pair: Pair) -> None:
    """env=quiet and env=!quiet: each request in exactly one of two logs."""
    time_to_settle(pair)
    ask_both(pair, [get("alice.test", "/quiet"), get("alice.test", "/loud"), get("alice.test", "/quiet/x")])
    for where, version in [(pair.ours, pair.lab.version)] + ([(pair.theirs, "HTTP/1.1")] if pair.httpd else []):
        assert lines_of(where / "quiet.log", 2) == [f"GET /quiet {version}", f"GET /quiet/x {version}"]
        assert lines_of(where / "some.log", 1) == [f"GET /loud {version}"]


def test_hostile_text_stays_on_one_line(pair: Pair) -> None:
    """Quotes, backslashes, tabs, ESC as %1b, formats, 8 KB agents, 8 bit: one line each, without a control byte."""
    time_to_settle(pair)
    agents = ['"', "\\", '\\"', "%h %{x}i %n", "\t", "a" * 8000, "\udcff" * 2000, "\udc1b".replace("\udc1b", "ü"), "x\udc9b31m", "\u2028"]
    for agent in agents:
        with client(pair.lab) as conn:
            conn.send(get("alice.test", "/file.txt", f"User-Agent: {agent}"))
            conn.read()
    lines = lines_of(pair.ours / "combined.log", len(agents))
    raw = (pair.ours / "combined.log").read_bytes()
    assert len(lines) == len(agents)
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", raw)
    assert all(len(line) <= 8192 for line in lines)
    for shown in ('"\\""', "%h %{x}i %n"):  # lines of several connections need not be in the order of these
        assert sum(shown in line for line in lines) == 1


# ---------------------------------------------------------------- whose file it is


def own_log(tenant: Tenant) -> Path:
    """Make the tenant's own directory for logs."""
    directory = tenant.home / "logs"
    directory.mkdir(exist_ok=True)
    os.chown(directory, tenant.uid, tenant.uid)
    directory.chmod(0o700)
    return directory


def tenants_logs(names: tuple[str, ...] = ("alice", "bob")) -> Lab:
    """Return a server whose hosts log into their tenants' homes, not started."""
    lab = Lab(names=names)
    for tenant in lab.tenants.values():
        own_log(tenant)
    plain = lab.host_block
    lab.host_block = lambda tenant, extra="": plain(  # type: ignore[method-assign]
        tenant, f'{extra}CustomLog {tenant.home}/logs/access.log "%U %>s"\nErrorLog {tenant.home}/logs/error.log\n')
    return lab


def test_log_in_a_tenants_directory_is_the_tenants_file() -> None:
    """Owned by its uid, written by its child, with its requests alone; root's log has none of them."""
    with tenants_logs() as lab:
        lab.start()
        for name, tenant in lab.tenants.items():
            lab.get(tenant.host, f"/of-{name}")
        for name, tenant in lab.tenants.items():
            path = tenant.home / "logs/access.log"
            assert lines_of(path, 1) == [f"/of-{name} 404"]
            assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (tenant.uid, 0)
            errors = tenant.home / "logs/error.log"
            if errors.exists():
                assert errors.stat().st_uid == tenant.uid


@pytest.mark.parametrize("kind", ["link to root's", "link to bob's", "hard link", "fifo", "directory", "device", "directory link"])
def test_odd_thing_in_place_of_a_tenants_log_does_no_harm(kind: str) -> None:
    """A link, hard link, FIFO, directory or device where alice's log should be, at the start and at a reopening: nothing is
    written through it, nothing hangs, her site and bob's are served."""
    with tenants_logs() as lab:
        alice, bob = lab.tenants["alice"], lab.tenants["bob"]
        victim = lab.base / "victim"
        victim.write_text("untouched\n")
        victim.chmod(0o666)
        theirs = bob.write("victim.txt", "untouched\n", 0o666)
        bob.home.chmod(0o711)
        bob.docroot.chmod(0o711)
        path = alice.home / "logs/access.log"

        def place() -> None:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            if kind == "directory link":
                shutil.rmtree(alice.home / "logs", ignore_errors=True)
                (alice.home / "logs").unlink(missing_ok=True)
                (lab.base / "open").mkdir(exist_ok=True, mode=0o777)
                (lab.base / "open").chmod(0o777)
                (alice.home / "logs").symlink_to(lab.base / "open")
                return
            makers = {"link to root's": lambda: path.symlink_to(victim), "link to bob's": lambda: path.symlink_to(theirs),
                      "hard link": lambda: os.link(theirs, path), "fifo": lambda: os.mkfifo(path, 0o666), "directory": path.mkdir,
                      "device": lambda: os.mknod(path, 0o20666, os.makedev(1, 7))}
            makers[kind]()

        def has_looked(times: int) -> bool:
            if kind == "directory link":
                return path.exists()  # place() has taken away what it made the last time
            return lab.error_log().count(f"could not open transfer log file {path}: ") == times

        def check() -> None:
            assert (victim.read_text(), theirs.read_text()) == ("untouched\n", "untouched\n")
            made = list((lab.base / "open").glob("*")) if kind == "directory link" else []
            assert {one.stat().st_uid for one in made} <= {alice.uid}  # hers, by her own right

        place()
        lab.start()
        for opened in range(1, 4):
            assert lab.get("alice.test").body == b"alice\n"
            assert lab.get("bob.test").body == b"bob\n"
            wait_until(lambda: " 200" in (bob.home / "logs/access.log").read_text(), "bob's line is written")
            # From then on until the next reopening nobody makes or opens a file in this place.
            wait_until(lambda opened=opened: has_looked(opened), "her child has tried to open it")
            check()
            place()
            assert ask_server(str(lab.run), {"op": "reopen"})["ok"]
        lab.stop()  # what is held back is written now
        check()


@pytest.mark.parametrize("how", ["perchildctl reopen", "SIGUSR1"])
def test_no_line_is_lost_when_logs_are_renamed_and_reopened(how: str) -> None:
    """Under load from four clients, rename and reopen five times, logs of root's and of a tenant's: each request is in exactly one
    of the files, and the last file is not empty."""
    with tenants_logs(("alice",)) as lab:
        lab.config = 'CustomLog log/main.log "%U %>s"\n'
        lab.tenants["carol"] = lab._make_tenant("carol", lab.tenants["alice"].uid + 100)
        alice_block, carol_block = lab.host_block(lab.tenants["alice"]), Lab.host_block(lab, lab.tenants["carol"])
        lab.has_vhosts = False
        lab.config += alice_block + carol_block
        lab.start()
        stop = threading.Event()
        sent: dict[str, int] = {"alice.test": 0, "carol.test": 0}

        def load(host: str, number: int) -> None:
            count = 0
            while not stop.is_set():
                with client(lab) as conn:
                    for _ in range(50):
                        answer = conn.ask(get(host, f"/r{number}-{count}"))
                        assert answer.status == 404
                        count += 1
            sent[host] += count

        threads = [threading.Thread(target=load, args=(host, number)) for host in sent for number in (1, 2)]
        for thread in threads:
            thread.start()
        paths = {"alice.test": lab.tenants["alice"].home / "logs/access.log", "carol.test": lab.log / "main.log"}
        try:
            for number in range(5):
                wait_until(lambda: all(path.exists() and path.stat().st_size > 0 for path in paths.values()), "both have lines")
                for path in paths.values():
                    path.rename(path.with_suffix(f".{number}"))
                if how == "SIGUSR1":
                    os.kill(lab.pid, signal.SIGUSR1)
                else:
                    assert ask_server(str(lab.run), {"op": "reopen"})["ok"]
                wait_until(lambda: all(path.exists() for path in paths.values()), "both are there again")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for host, path in paths.items():
            wait_until(lambda: sum(text_of(path).values()) >= sent[host], "all lines are written")  # noqa: B023
            lines = text_of(path)
            assert len(lines) == sent[host]
            assert set(lines.values()) == {1}


def text_of(path: Path) -> dict[str, int]:
    """Return line -> how often it is in a log and its renamed predecessors."""
    counts: dict[str, int] = {}
    for one in path.parent.glob(path.stem + ".*"):
        for line in one.read_text().splitlines():
            counts[line] = counts.get(line, 0) + 1
    return counts


def test_lines_are_not_lost_at_a_graceful_end() -> None:
    """200 answered requests, then at once SIGTERM: 200 lines."""
    with Lab('CustomLog log/end.log "%U"\n', names=("alice",)) as lab:
        lab.start()
        with client(lab) as conn:
            conn.send(b"".join(get("alice.test", f"/{number}") for number in range(99)))
            for _ in range(99):
                conn.read()
        lab.stop()
        assert len((lab.log / "end.log").read_text().splitlines()) == 99


# ---------------------------------------------------------------- the error log


DENIED = "<Location /denied>\nRequire all denied\n</Location>\n<Location /order>\nOrder deny,allow\nDeny from all\n</Location>\n"
PREFIX = r"\[\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d\.\d{6} \d{4}\] \[\w+:error\] \[pid \d+:tid \d+\] \[client 127\.0\.0\.1:\d+\] "


def test_denied_clients_are_named_as_fail2ban_expects() -> None:
    """httpd's prefix and sentence, with the path; and, if fail2ban is installed, its own apache filters find the address."""
    with Lab(names=("alice",), host_config=DENIED) as lab:
        lab.start()
        for _ in range(3):
            lab.get("alice.test", "/denied/x")
            lab.get("alice.test", "/order/x")
        wait_until(lambda: lab.error_log().count("client denied by server configuration") == 6, "six refusals are logged")
        root = re.escape(str(lab.tenants["alice"].docroot))
        assert re.search(PREFIX + rf"AH01630: client denied by server configuration: {root}/denied", lab.error_log())
        assert re.search(PREFIX + rf"AH01797: client denied by server configuration: {root}/order", lab.error_log())
        program = shutil.which("fail2ban-regex")
        if program is not None:
            said = subprocess.run([program, str(lab.log / "error.log"), "apache-auth"], capture_output=True, text=True, check=False).stdout
            assert re.search(r"Lines: .* 6 matched", said), said


# What Debian's fail2ban 1.0.2 looks for in filter.d/apache-overflows.conf, once its date is taken away; <HOST> is an IPv4 address here.
OVERFLOWS = re.compile(
    r"\[(:?error|\S+:\S+)\]( \[pid \d+(:\S+ \d+)?\])? \[client (?P<host>[\d.]+)(:\d{1,5})?\] "
    r"(?:(?:AH001[23][456]: )?Invalid (method|URI) in request\b|(?:AH00565: )?request failed: URI too long \(longer than \d+\))")
REFUSED = {
    b"FOO / HTTP/1.1\r\nHost: {}\r\n\r\n": (501, "core:error", "AH00135: Invalid method in request FOO / HTTP/1.1"),
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: {}\r\n\r\n":
        (414, "core:info", "AH00565: request failed: URI too long (longer than 8190)"),
    b"GET /../x HTTP/1.1\r\nHost: {}\r\n\r\n": (400, "core:error", "AH10244: invalid URI path (/../x)"),
    b"GET /a%2fb HTTP/1.1\r\nHost: {}\r\n\r\n":
        (404, "core:info", "AH00026: found %2f (encoded '/') in URI path (/a%2fb), returning 404"),
    b"GET / HTTP/1.1\r\nHost: {}\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n":
        (431, "core:info", "AH00561: Request header exceeds LimitRequestFieldSize: X-Long"),
    b"GET / HTTP/1.1\r\nHost: {}\r\n" + b"A: b\r\n" * 100 + b"\r\n":
        (431, "core:info", "AH00563: Number of request headers exceeds LimitRequestFields"),
    b"GET / HTTP/1.1\r\nHost: {}\r\nExpect: x\r\n\r\n":
        (417, "core:info", "AH00570: client sent an unrecognized expectation value of Expect: x"),
    b"POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":
        (400, "http:info", "AH01590: Error reading/parsing chunk"),
    b"GET / HTTP/1.1\r\nHost: {}\r\nX-Sl": (408, "reqtimeout:info", "AH01382: Request header read timeout"),
    b"POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\n\r\nabc":
        (408, "reqtimeout:info", "AH01382: Request body read timeout"),
    b"garbage\r\n\r\n": (400, "core:debug", "AH03454: HTTP Request Line; URI incorrectly encoded: ''"),
    b"GET / HTTP/1.1\r\n\r\n":
        (400, "core:debug", "AH00569: client sent HTTP/1.1 request without hostname (see RFC2616 section 14.23): /"),
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n": (400, "core:debug", "AH00550: Client sent malformed Host header: a/b"),
    b"GET / HTTP/3.0\r\nHost: {}\r\n\r\n":
        (505, "core:debug", "AH02418: HTTP Request Line; Unrecognized protocol 'HTTP/3.0' (perhaps whitespace was injected?)"),
}


@pytest.mark.http1("malformed heads and bodies")
def test_refused_requests_are_told_of_in_httpds_words() -> None:
    """Each refusal has one line, with httpd's number, module, level and words; fail2ban's overflow filter finds those that it would."""
    with Lab("LogLevel debug\nRequestReadTimeout header=1 body=1\n", names=("alice",)) as lab:
        lab.start()
        for raw, (status, _, _) in REFUSED.items():
            with client(lab) as conn:
                conn.send(raw.replace(b"{}", b"alice.test"))
                assert conn.read().status == status, raw[:60]
        expected = [f"{level}|{text}" for _, level, text in REFUSED.values()]

        def lines() -> list[str]:
            found = re.findall(r"\[(\w+:\w+)\] \[pid \d+:tid \d+\] \[client 127\.0\.0\.1:\d+\] (AH.*)", lab.error_log())
            return [f"{level}|{text}" for level, text in found]

        wait_until(lambda: len(lines()) >= len(expected), "all are told of")
        assert lines() == expected
        overflows = [line for line in lab.error_log().splitlines() if OVERFLOWS.search(line)]
        assert len(overflows) == 2
        program = shutil.which("fail2ban-regex")
        if program is not None:
            said = subprocess.run([program, str(lab.log / "error.log"), "apache-overflows"], capture_output=True, text=True, check=False).stdout
            assert re.search(r"Lines: .* 2 matched", said), said


def test_json_error_log_has_structlogs_keys_in_every_line() -> None:
    """ErrorLogFormat json: each line of dispatcher and children is one object with timestamp, level, event, module, pid, tid."""
    app = 'AppServer /app/ /bin/sh -c "echo begun; exec sleep 1000"\n'
    with Lab("ErrorLogFormat json\n", names=("alice",), host_config=DENIED + app) as lab:
        lab.start()
        with client(lab) as conn:
            conn.send(get("alice.test", "/app/x"))
            wait_until(lambda: "app0: begun" in lab.error_log(), "a service's line is logged")
        with client(lab) as conn:
            conn.ask(get("alice.test", '/denied/%22%5c%7f"'.replace('"', "") + "\udcff"))
        lab.get("alice.test", "/denied/x")
        wait_until(lambda: "denied by server" in lab.error_log(), "the refusal is logged")
        lab.stop()
        entries = [json.loads(line) for line in lab.error_log().splitlines()]
        assert len({entry["pid"] for entry in entries}) > 1
        for entry in entries:
            assert {"timestamp", "level", "event", "module", "pid", "tid"} <= set(entry), entry
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["timestamp"])
        refusals = [entry for entry in entries if entry["event"].startswith("AH01630: ")]
        assert refusals
        assert all(entry["client"].startswith("127.0.0.1") for entry in refusals)


def test_error_log_line_cannot_be_forged_by_a_request() -> None:
    """Line ends and escapes in a path or a name stay within their line."""
    with Lab(names=("alice",), host_config=DENIED) as lab:
        lab.start()
        with lab.connect() as sock:
            sock.sendall(b"GET /denied/%5B%22\x9b\xff[client%201.2.3.4] HTTP/1.1\r\nHost: alice.test\r\nReferer: x\ty\x80\r\nConnection: close\r\n\r\n")
            while sock.recv(4096):
                pass
        wait_until(lambda: "/denied/" in lab.error_log(), "the refusal is logged")
        raw = (lab.log / "error.log").read_bytes()
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", raw)
        assert all(line.startswith(b"[") for line in raw.splitlines())
