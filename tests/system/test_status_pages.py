"""The status pages and metrics of a whole server: who sees what, what does not fall when children end, and real programs that read them.

Chromium, promtool, Prometheus, GoAccess and logrotate are Debian's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.boundary import procs
from tests.chromium import PROGRAM, Chromium
from tests.lab import PYTHON, ROOT, Lab, free_port, wait_until

pytestmark = [pytest.mark.root, pytest.mark.plain("monitoring, browsers and their URLs are told http"), pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
NAMES = ("alice", "bob", "carol", "dora")
READING_S = 0.5  # collectd's values of one reading come within this time; it reads once a second
LOCATIONS = """<Location /server-status>
SetHandler server-status
Require local
</Location>
<Location /perchild-status>
SetHandler perchild-status
</Location>
<Location /metrics>
SetHandler prometheus
</Location>
"""


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where Debian's package is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program}")


@contextmanager
def make_lab(config: str = "") -> Iterator[Lab]:
    """Run a server with the pages in every host, and in status.test, which is nobody's."""
    with Lab(f"{LOCATIONS}{config}", names=NAMES) as lab:
        users = [f"{one.name}:x:{one.uid}:{one.uid}::/:/bin/false" for one in lab.tenants.values()]
        lab.add_user_database(users, [f"{one.name}:x:{one.uid}:" for one in lab.tenants.values()])
        lab.assign = {name: f"{name} {name}" for name in NAMES}
        lab.config_tail = f"<VirtualHost *:{lab.port}>\nServerName status.test\n</VirtualHost>\n"
        yield lab.start()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A server whose alice, bob and carol were asked; dora sleeps."""
    with make_lab() as lab:
        for name in NAMES[:3]:
            assert lab.get(f"{name}.test").status == 200
        for name in NAMES[:3]:
            counted(lab, name, 1)
        yield lab


def look(lab: Lab, host: str = "status.test") -> dict[str, Any]:
    """Return what the page's data say to a host's visitor, a moment old at most."""
    return dict(lab.get(host, "/perchild-status?json").json())


def auto(lab: Lab, host: str = "status.test") -> dict[str, str]:
    """Return the keys of server-status?auto."""
    answer = lab.get(host, "/server-status?auto")
    assert answer.status == 200
    return dict(line.split(": ", 1) for line in answer.body.decode().splitlines()[1:])


def identity(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return one identity of a tally."""
    return next(one for one in tree["identities"] if one["name"] == name)


def counted(lab: Lab, name: str, requests: int) -> dict[str, Any]:
    """Return an identity as soon as so many requests are in all of its figures: a child adds them up behind the last byte, one after the other."""
    def look_at() -> dict[str, Any] | None:
        one = identity(look(lab), name)
        return one if one["requests"] == sum(one["latencies"].values()) == sum(one["responses"].values()) == requests else None

    return dict(wait_until(look_at, f"{requests} requests of {name}'s are counted"))


@contextmanager
def load(lab: Lab, threads: int = 3) -> Iterator[None]:
    """Ask alice, bob and carol without end, each request on a connection of its own, some for what is not there."""
    stop = threading.Event()

    def run(number: int) -> None:
        step = number
        while not stop.is_set():
            step += 1
            lab.get(f"{NAMES[step % 7 % 3]}.test", "/" if step % 20 else "/nothing")

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


# ---------------------------------------------------------------- who sees what


def test_the_operators_host_sees_all_and_a_tenants_sees_its_own(lab: Lab) -> None:
    """By every page, and in all bytes of it."""
    assert {one["name"] for one in look(lab)["identities"]} >= set(NAMES)
    own = look(lab, "alice.test")
    assert [one["name"] for one in own["identities"]] == ["alice"]
    assert own["server"]["scope"] == "own"
    for path in ("/perchild-status?json", "/server-status?auto", "/server-status", "/metrics"):
        body = lab.get("alice.test", path).body
        assert body
        assert not re.search(rb"bob|carol|dora|status\.test", body)
    assert b"bob.test" in lab.get("status.test", "/metrics").body


def test_pages_are_read_and_not_written_to(lab: Lab) -> None:
    """GET and HEAD; others are told so."""
    assert lab.get("status.test", "/server-status", method="POST").status == 405
    head = lab.get("status.test", "/server-status?auto", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_a_dispatcher_that_stands_still_is_said(lab: Lab) -> None:
    """503 and why, as soon as what a child knows is no longer fresh; other requests are answered meanwhile."""
    os.kill(lab.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: procs.is_stopped(lab.pid), "it stands still")
        answer = wait_until(lambda: (one := lab.get("status.test", "/server-status?auto")).status != 200 and one, "its last figures are old")
        assert lab.get("alice.test").status == 200
    finally:
        os.kill(lab.pid, signal.SIGCONT)
    assert answer.status == 503
    assert b"the dispatcher gave no board" in answer.body
    assert wait_until(lambda: lab.get("status.test", "/server-status?auto").status == 200, "it goes on")


def test_an_identity_that_was_never_asked_sleeps(lab: Lab) -> None:
    """An identity that was never asked is there, without processes."""
    dora = identity(look(lab), "dora")
    assert (dora["children"], dora["requests"]) == ([], 0)


# ---------------------------------------------------------------- what is counted


def test_figures_are_those_of_the_requests(lab: Lab) -> None:
    """Requests, classes, bytes, hand-offs, hosts and latencies."""
    before = counted(lab, "alice", 1)
    for path in ("/", "/", "/nothing"):
        lab.get("alice.test", path)
    after = counted(lab, "alice", 4)
    assert after["handed_in"] == before["handed_in"] + 3
    assert after["responses"]["2xx"] == before["responses"]["2xx"] + 2
    assert after["responses"]["4xx"] == before["responses"]["4xx"] + 1
    assert after["bytes_out"] > before["bytes_out"]
    (site,) = after["sites"]
    assert (site["name"], site["requests"]) == ("alice.test", after["requests"])


def test_totals_do_not_fall_when_a_child_ends(lab: Lab) -> None:
    """Its successor counts on in the same page: what monitoring programs draw has no dents."""
    alice = lab.tenants["alice"]
    for _ in range(5):
        lab.get("alice.test")
    before = counted(lab, "alice", 6)
    (pid,) = lab.children(alice.uid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: identity(look(lab), "alice")["children"] == [], "it is gone")
    assert identity(look(lab), "alice")["requests"] == before["requests"]
    assert lab.get("alice.test").status == 200
    after = counted(lab, "alice", before["requests"] + 1)
    assert after["children"][0]["pid"] != pid


def test_pages_change_owners_only_within_an_identity(lab: Lab) -> None:
    """A reload that takes an identity away closes its pages; what comes later begins at nothing."""
    assert identity(look(lab), "carol")["requests"] == 1
    gone = lab.tenants.pop("carol")
    assert lab.reload()["ok"]
    wait_until(lambda: "carol" not in {one["name"] for one in look(lab)["identities"]}, "carol is gone")
    lab.tenants["carol"] = gone
    assert lab.reload()["ok"]
    back = wait_until(lambda: [one for one in look(lab)["identities"] if one["name"] == "carol"], "carol is back")
    assert back[0]["requests"] == 0


def test_memory_and_processor_time_are_told(lab: Lab) -> None:
    """By each child of itself, when it has had a connection open for a moment."""
    with lab.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: alice.test\r\n\r\n")
        sock.recv(4096)
        alice = wait_until(lambda: (one := identity(look(lab), "alice"))["memory_kb"] > 0 and one, "its memory is known")
    assert 200 < alice["memory_kb"] < 50_000
    assert alice["cpu_user_s"] + alice["cpu_system_s"] > 0


def test_a_busy_thread_is_seen_in_the_scoreboard(lab: Lab) -> None:
    """The one that answers, at least."""
    facts = wait_until(lambda: (one := auto(lab))["Processes"] == str(len(lab.children())) and one, "all who start are counted")
    assert int(facts["BusyWorkers"]) >= 1
    assert len(facts["Scoreboard"]) >= int(facts["BusyWorkers"]) + int(facts["IdleWorkers"])


def test_many_who_look_cost_the_dispatcher_little(lab: Lab) -> None:
    """It gives the same board to children that ask at the same time, and keeps none for longer than it must."""
    workers = [threading.Thread(target=look, args=(lab,)) for _ in range(30)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    def held() -> int:
        return sum("perchild-board" in link for link in procs.descriptors(lab.pid).values())

    assert held() <= 1
    wait_until(lambda: held() == 0, "boards are closed")


# ---------------------------------------------------------------- programs that read


@pytest.mark.skipif(not PROGRAM, reason="no chromium")
def test_a_browser_sees_slots_change(lab: Lab, tmp_path: Path) -> None:
    """The page under load: rows for each identity, slots that receive, rates; no error in its console; whole on a telephone, too."""
    with load(lab), Chromium() as browser:
        browser.resize(1280, 860)
        browser.open(f"http://status.test:{lab.port}/perchild-status")
        browser.wait("document.querySelectorAll('#rows tr').length >= 5")
        assert browser.ask("document.querySelector('#state').textContent") == "running"
        browser.wait("document.querySelectorAll('.slot.moved, td .slot.served, td .slot.wait').length > 0")
        browser.wait("parseFloat(document.querySelector('#rate').textContent) > 5")
        browser.wait("!document.querySelector('#flow-card').hidden && document.querySelectorAll('#flow path').length >= 3")
        browser.ask("(() => { const find = document.querySelector('#find'); find.value = 'bob.test'; find.dispatchEvent(new Event('input')); })()")
        browser.wait("document.querySelectorAll('#rows tr').length === 1 && document.querySelector('#rows b').textContent === 'bob'")
        browser.ask("(() => { const find = document.querySelector('#find'); find.value = ''; find.dispatchEvent(new Event('input')); })()")
        browser.wait("document.querySelectorAll('#rows tr').length >= 5")
        picture = browser.take_picture(Path(os.environ.get("STATUS_PICTURE", tmp_path / "status.png")))
        width, height = struct.unpack(">II", picture.read_bytes()[16:24])
        assert (width, height >= 860) == (1280, True)
        browser.resize(390, 844, is_phone=True, is_dark=True)
        browser.wait("document.documentElement.clientWidth === 390 && document.documentElement.scrollWidth <= 390")
        browser.wait("document.querySelectorAll('#flow text').length >= 4")
        browser.wait("((frame) => [...document.querySelectorAll('#flow text')].map((one) => one.getBoundingClientRect()).every("
                     "(one) => one.left >= frame.left && one.right <= frame.right))(document.querySelector('#flow').getBoundingClientRect())")
        assert browser.complaints() == []


@pytest.mark.skipif(not PROGRAM, reason="no chromium")
def test_a_browser_is_told_when_there_is_no_answer(lab: Lab) -> None:
    """And goes on when the server is there again."""
    with Chromium() as browser:
        browser.open(f"http://status.test:{lab.port}/perchild-status")
        browser.wait("document.querySelectorAll('#rows tr').length >= 5")
        for pid in lab.children(lab.user_uid):
            os.kill(pid, signal.SIGSTOP)
        os.kill(lab.pid, signal.SIGSTOP)
        browser.wait("!document.querySelector('#trouble').hidden && document.querySelector('#state').textContent === 'no answer'")
        os.kill(lab.pid, signal.SIGCONT)
        for pid in lab.children(lab.user_uid):
            os.kill(pid, signal.SIGCONT)
        browser.wait("document.querySelector('#trouble').hidden && document.querySelector('#state').textContent === 'running'")


@needs("promtool")
def test_promtool_finds_nothing_to_say(lab: Lab) -> None:
    """`promtool check metrics`, which knows names, units and types."""
    done = subprocess.run(["promtool", "check", "metrics"], input=lab.get("status.test", "/metrics").body, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@needs("prometheus")
def test_prometheus_scrapes_and_answers(lab: Lab, tmp_path: Path) -> None:
    """A Prometheus of Debian's, with one target: its rate of requests is not nothing, and its histogram has a quantile."""
    config, port = tmp_path / "prometheus.yml", free_port()
    config.write_text(f"scrape_configs:\n- job_name: perchild\n  scrape_interval: 500ms\n  scrape_timeout: 400ms\n"
                      f"  static_configs:\n  - targets: ['127.0.0.1:{lab.port}']\n")
    lab.config_tail = f"<VirtualHost *:{lab.port}>\nServerName status.test\nServerAlias 127.0.0.1\n</VirtualHost>\n"
    assert lab.reload()["ok"]
    with (tmp_path / "output").open("wb") as output, load(lab, 1):
        process = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"],
                                   stdout=output, stderr=output)
        try:
            def ask(query: str) -> float:
                address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
                try:
                    with urllib.request.urlopen(address, timeout=5) as answer:
                        found = json.load(answer)["data"]["result"]
                except OSError:
                    return 0.0
                return float(found[0]["value"][1]) if found else 0.0

            wait_until(lambda: ask('up{job="perchild"}') == 1, "it scrapes", 30)
            wait_until(lambda: ask('sum(rate(perchild_responses_total{identity="alice",class="2xx"}[10s]))') > 1, "a rate", 30)
            late = wait_until(lambda: ask("histogram_quantile(0.9, sum(rate(perchild_request_duration_seconds_bucket[10s])) by (le))"), "a quantile", 30)
            assert 0 < late < 5
            assert ask('perchild_host_responses_total{host="carol.test",class="2xx"}') > 0
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.skipif(not Path("/usr/share/munin/plugins/apache_accesses").exists(), reason="no munin-plugins-core")
def test_munins_plugins_read_the_status(lab: Lab, tmp_path: Path) -> None:
    """Munin's own apache_accesses, apache_processes and apache_volume find what they look for."""
    environment = {**os.environ, "ports": str(lab.port), "url": "http://127.0.0.1:%d/server-status?auto", "MUNIN_LIBDIR": "/usr/share/munin",
                   "MUNIN_PLUGSTATE": str(tmp_path), "MUNIN_STATEFILE": str(tmp_path / "state")}
    found: dict[str, int] = {}
    for plugin in ("apache_accesses", "apache_processes", "apache_volume"):
        done = subprocess.run(["perl", f"/usr/share/munin/plugins/{plugin}"], capture_output=True, text=True, check=True, timeout=60, env=environment)
        found |= {line.split(f"{lab.port}.value ")[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert found.keys() == {"accesses", "busy", "idle", "free", "volume"}
    assert found["accesses"] >= 1
    assert found["busy"] >= 1


@needs("prometheus-apache-exporter")
def test_apache_exporter_reads_the_status(lab: Lab) -> None:
    """Debian's prometheus-apache-exporter, for who has dashboards of httpd's."""
    port, program = free_port(), "prometheus-apache-exporter"
    words = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=60)
    option = "--telemetry.address" if "--telemetry.address" in words.stdout + words.stderr else "--web.listen-address"  # Debian 12, 13
    command = [program, f"--scrape_uri=http://127.0.0.1:{lab.port}/server-status?auto", f"{option}=127.0.0.1:{port}"]

    def ask() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            text = wait_until(ask, "it answers", 30)
        finally:
            process.terminate()
    assert "\napache_up 1\n" in text
    assert float(re.findall(r"^apache_accesses_total (\S+)$", text, re.MULTILINE)[0]) >= 1
    assert float(re.findall(r'^apache_workers\{state="idle"\} (\S+)$', text, re.MULTILINE)[0]) >= 1
    assert re.search(r'^apache_scoreboard\{state="idle"\}', text, re.MULTILINE)


@pytest.mark.parametrize("mpm", ["prefork", "worker"])
def test_every_mpm_shows_its_status(mpm: str) -> None:
    """One thread, or many of a fixed number: the one that answers is busy."""
    with make_lab(f"MPM {mpm}\nStartServers 2\n") as lab:
        lab.get("status.test", "/server-status?auto")
        facts = auto(lab)
        assert facts["ServerMPM"] == mpm
        assert int(facts["BusyWorkers"]) >= 1


def test_a_question_waits_for_no_thread_that_has_been_told_to_leave() -> None:
    """One thread of the interpreter beside as many as there may be: it is one too many, and leaves whenever it has nothing to do."""
    with make_lab("MPM worker\nStartServers 1\nThreadsPerChild 25\nMinSpareThreads 1\nMaxSpareThreads 25\nMaxRequestWorkers 25\n") as lab:
        for _ in range(300):
            assert lab.get("status.test", "/server-status?auto").status == 200


@needs("collectd")
def test_collectd_reads_the_status(lab: Lab, tmp_path: Path) -> None:
    """Its apache plugin: requests, bytes, workers, and each letter of the scoreboard."""
    config = tmp_path / "collectd.conf"
    config.write_text(f"""BaseDir "{tmp_path}"
PIDFile "{tmp_path}/pid"
TypesDB "/usr/share/collectd/types.db"
Interval 1
Hostname "here"
FQDNLookup false
LoadPlugin apache
LoadPlugin csv
<Plugin apache>
 <Instance "one">
  URL "http://127.0.0.1:{lab.port}/server-status?auto"
 </Instance>
</Plugin>
<Plugin csv>
 DataDir stdout
</Plugin>
""")
    found: dict[str, float] = {}
    wanted = {"requests", "bytes", "connections", "idle_workers", "scoreboard-waiting", "scoreboard-sending"}
    read_at = ""
    with subprocess.Popen(["collectd", "-f", "-C", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if put := re.match(r"PUTVAL here/apache-one/apache_(\S+) interval=\S+ ([\d.]+):([\d.]+)", line):
                if float(put[2]) - float(read_at or 0) > READING_S:  # another reading begins
                    found, read_at = {}, put[2]
                found[put[1]] = float(put[3])
            if wanted <= found.keys():
                break
        process.terminate()
    assert found["requests"] >= 1
    assert found["scoreboard-sending"] >= 1
    assert found["idle_workers"] == found["scoreboard-waiting"]


@needs("goaccess")
def test_goaccess_reads_the_access_log(lab: Lab) -> None:
    """Its own report of a combined log: every request, none invalid."""
    for number in range(10):
        lab.get("alice.test", f"/?page={number}", fields={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Referer": "http://example.org/a%20b"})
    lab.get("alice.test", "/nothing")
    text = wait_until(lambda: (one := (lab.log / "access.log").read_text()).count("/?page=") == 10 and "/nothing" in one and one, "logged")
    (lab.base / "lines").write_text(text)  # other requests' lines may come meanwhile
    done = subprocess.run(["goaccess", str(lab.base / "lines"), "--log-format=COMBINED", "--no-global-config", "-o", "json"],
                          capture_output=True, check=True, timeout=60, env={**os.environ, "HOME": str(lab.base)})
    report = json.loads(done.stdout)
    lines = len(text.splitlines())
    assert report["general"]["failed_requests"] == 0
    assert report["general"]["total_requests"] == report["general"]["valid_requests"] == lines
    assert "/nothing" in json.dumps(report["not_found"])


@needs("logrotate")
def test_logrotate_loses_no_line(lab: Lab) -> None:
    """Debian's logrotate, by renaming, with `perchildctl reopen` behind it, under load: each request has its line in one of the files."""
    config = lab.base / "logrotate.conf"
    config.write_text(f"{lab.log}/access.log {{\n  size 1\n  rotate 20\n  create 0640 root root\n  sharedscripts\n  postrotate\n"
                      f"    cd {ROOT} && {PYTHON} -m perchild.control --run-dir {lab.run} reopen\n  endscript\n}}\n")
    config.chmod(0o644)
    sent, stop = [0], threading.Event()

    def run() -> None:
        while not stop.is_set():
            assert lab.get("bob.test", f"/?line={sent[0]}").status == 200
            sent[0] += 1

    worker = threading.Thread(target=run)
    worker.start()
    try:
        for turn in range(4):
            wait_until(lambda turn=turn: sent[0] > 40 * (turn + 1), "requests")
            done = subprocess.run(["logrotate", "--force", "--state", str(lab.base / "logrotate.state"), str(config)],
                                  capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
    finally:
        stop.set()
        worker.join()

    def lines() -> list[str]:
        text = "".join(path.read_text() for path in lab.log.glob("access.log*"))
        return re.findall(r"/\?line=(\d+) ", text)

    wait_until(lambda: len(lines()) >= sent[0], "all were logged")
    assert sorted(map(int, lines())) == list(range(sent[0]))
    assert len(list(lab.log.glob("access.log*"))) == 5


def test_what_monitoring_sends_is_answered_without_a_name(lab: Lab) -> None:
    """munin and collectd ask http://127.0.0.1/server-status?auto in HTTP/1.0 or 1.1; the first host of the address answers."""
    with socket.create_connection(("127.0.0.1", lab.port), timeout=30) as sock:
        sock.sendall(b"GET /server-status?auto HTTP/1.0\r\n\r\n")
        raw = b""
        while part := sock.recv(65536):
            raw += part
    assert b"200 OK" in raw.split(b"\r\n", 1)[0]
    assert b"\nTotal Accesses: " in raw


def test_a_visitor_from_elsewhere_is_refused() -> None:
    """`Require local`, as in Debian's own status.conf, says who may look."""
    with make_lab("RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n") as lab:
        assert lab.get("status.test", "/server-status", fields={"X-Forwarded-For": "192.0.2.1"}).status == 403
        assert lab.get("status.test", "/server-status").status == 200
