"""perchildd itself: the command line, the real configuration, the real children."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from dispatcher_lab import wait_until

from tests.lab import SAFE_DIR, free_port

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
UID = 69000 + 10 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:] or 0)
CONFIG = """
ServerRoot {base}
Listen 127.0.0.1:{port}
User #{uid}
Group #{uid}
DefaultRuntimeDir {base}/run
PidFile {base}/pid
ErrorLog {base}/error_log
LogLevel debug
AcceptScope unassigned
ServerName main.test
DocumentRoot {base}/main
<Directory {base}>
  Require all granted
</Directory>
ChildPerUserID #{fixed} #{fixed} 1
<VirtualHost *:{port}>
  ServerName main.test
  DocumentRoot {base}/main
</VirtualHost>
<VirtualHost *:{port}>
  ServerName alice.test
  DocumentRoot {base}/alice
  AssignUserID #{fixed} #{fixed}
</VirtualHost>
<VirtualHost *:{port}>
  ServerName bob.test
  DocumentRoot {base}/bob
  AssignUserID #{demand} #{demand}
</VirtualHost>
"""


@dataclass
class Site:
    """A configured server."""

    base: Path
    port: int

    def run(self, *argv: str, cwd: Path = ROOT, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run perchildd with this configuration."""
        command = [PYTHON, "-m", "perchild", "-f", str(self.base / "c.conf"), *argv]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, **more)

    def readable_tree(self) -> Path:
        """Return a place that holds the package for everybody: the tree may lie below a home that is its owner's alone."""
        shutil.copytree(ROOT / "perchild", self.base / "tree/perchild", ignore=shutil.ignore_patterns("__pycache__"))
        for place in (self.base / "tree", *(self.base / "tree").rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
        return self.base / "tree"

    def ask(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run perchildctl."""
        command = [PYTHON, "-m", "perchild.control", "--run-dir", str(self.base / "run"), *argv]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> dict[str, Any]:
        """Return the status."""
        return dict(json.loads(self.ask("status", "--json").stdout))

    def pids(self) -> dict[int, set[int]]:
        """Return uid -> pids of its children."""
        return {one["uid"]: {child["pid"] for child in one["children"]} for one in self.status()["identities"]}

    def pid(self) -> int:
        """Return the dispatcher's pid."""
        return int((self.base / "pid").read_text())

    def get(self, host: str) -> str:
        """Return the last line of the answer to a request."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as conn:
            conn.sendall(f"GET /index.html HTTP/1.1\r\nHost: {host}.test\r\nConnection: close\r\n\r\n".encode())
            with conn.makefile() as stream:
                return stream.read().splitlines()[-1]

    def log(self) -> str:
        """Return the error log."""
        return (self.base / "error_log").read_text()


@pytest.fixture
def base() -> Iterator[Path]:
    """Yield a directory that every user may pass: each session of pytest makes the one that tmp_path lies in root's alone when it starts."""
    with tempfile.TemporaryDirectory(prefix="perchild-cli.", dir=SAFE_DIR) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def site(base: Path) -> Iterator[Site]:
    """Yield three sites, not started; whatever was started is stopped afterwards."""
    for name in ("main", "alice", "bob"):
        (base / name).mkdir()
        (base / name / "index.html").write_text(f"hello from {name}\n")
    one = Site(base, free_port())
    text = CONFIG.format(base=base, port=one.port, uid=UID, fixed=UID + 1, demand=UID + 2)
    (base / "c.conf").write_text(text)
    yield one
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = one.pid()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}/exe").exists())


def serves_all(site: Site) -> bool:
    """Check that the three sites answer."""
    assert [site.get(name) for name in ("main", "alice", "bob")] == ["hello from main", "hello from alice", "hello from bob"], site.log()
    return True


def test_start_returns_when_the_server_serves_and_stop_ends_it(site: Site) -> None:
    """-k start: status 0, at once three sites; -k start again: already running, 0; -k stop: gone; -k stop again: not running, 0."""
    started = site.run("-k", "start")
    assert (started.returncode, started.stderr) == (0, "")
    assert serves_all(site)
    again = site.run("-k", "start")
    assert (again.returncode, again.stdout) == (0, f"perchildd (pid {site.pid()}) already running\n")
    pid = site.pid()
    assert site.run("-k", "stop").returncode == 0
    wait_until(lambda: not (site.base / "pid").exists())
    stopped = site.run("-k", "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "perchildd (no pid file) not running\n")
    (site.base / "pid").write_text(f"{pid}\n")
    assert site.run("-k", "graceful-stop").stdout == f"perchildd (pid {pid}?) not running\n"
    assert "AH00169" in site.log()


def test_children_run_under_the_uids_of_the_configuration(site: Site) -> None:
    """/proc: real, effective, saved and file system uid of each child are its identity's; no capability is left."""
    site.run("-k", "start")
    assert serves_all(site)
    wait_until(lambda: all(child["state"] == "ready" for one in site.status()["identities"] for child in one["children"]))  # who begins is root
    for uid, pids in site.pids().items():
        assert len(pids) >= 1
        for pid in pids:
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
            assert "CapEff:\t0000000000000000\n" in status


def test_graceful_without_a_change_touches_no_child(site: Site) -> None:
    """-k graceful, same configuration: generation 2, and every pid is the same."""
    site.run("-k", "start")
    assert serves_all(site)
    before = site.pids()
    assert site.run("-k", "graceful").returncode == 0
    wait_until(lambda: site.status()["server"]["generation"] == 2)
    assert site.pids() == before
    assert serves_all(site)


def test_added_host_is_served_and_other_identities_are_not_touched(site: Site) -> None:
    """perchildctl reload returns when the new host's identity answers; the other tenants' pids are the same."""
    site.run("-k", "start")
    assert serves_all(site)
    before = site.pids()
    (site.base / "carol").mkdir()
    (site.base / "carol/index.html").write_text("hello from carol\n")
    with (site.base / "c.conf").open("a") as file:
        file.write(f"<VirtualHost *:{site.port}>\nServerName carol.test\nDocumentRoot {site.base}/carol\n"
                   f"AssignUserID #{UID + 3} #{UID + 3}\n</VirtualHost>\n")
    reloaded = site.ask("reload")
    assert (reloaded.returncode, reloaded.stderr) == (0, "")
    assert site.get("carol") == "hello from carol"
    after = site.pids()
    assert {uid: after[uid] for uid in (UID + 1, UID + 2)} == {uid: before[uid] for uid in (UID + 1, UID + 2)}


def test_broken_configuration_refuses_every_action_and_leaves_the_server(site: Site) -> None:
    """-k graceful, restart, stop with an error: status 1 and the error; a raw signal: the error log says it; all serve on."""
    site.run("-k", "start")
    before = site.pids()
    good = (site.base / "c.conf").read_text()
    (site.base / "c.conf").write_text(good + "Bogus\n")
    for action in ("graceful", "restart", "stop", "graceful-stop"):
        refused = site.run("-k", action)
        assert refused.returncode == 1
        assert "AH00526: Syntax error on line" in refused.stderr
    os.kill(site.pid(), signal.SIGHUP)
    wait_until(lambda: "the server goes on with the one in force" in site.log())
    refused = site.ask("reload")
    assert refused.returncode == 1
    assert "Invalid command 'Bogus'" in refused.stderr
    assert {uid: pids for uid, pids in site.pids().items() if pids} == {uid: pids for uid, pids in before.items() if pids}
    assert serves_all(site)


def test_graceful_stop_lets_a_request_finish_and_ends(site: Site) -> None:
    """-k graceful-stop while a request's head is half sent: it is answered, then nothing is left."""
    site.run("-k", "start")
    pid = site.pid()
    with socket.create_connection(("127.0.0.1", site.port), 30) as conn:
        conn.sendall(b"GET /index.html HTTP/1.1\r\nHost: alice.test\r\n")
        wait_until(lambda: any(child["busy"] or child.get("connections") for one in site.status()["identities"]
                               for child in one["children"]))
        assert site.run("-k", "graceful-stop").returncode == 0
        wait_until(lambda: "AH00170" in site.log())
        conn.sendall(b"Connection: close\r\n\r\n")
        with conn.makefile() as stream:
            assert stream.read().endswith("hello from alice\n")
    wait_until(lambda: not Path(f"/proc/{pid}/exe").exists())


def test_signals_during_the_end_leave_nothing_behind(site: Site) -> None:
    """Who stops a server that is ending already, again and again, does not keep it from taking away its pid file, lock and socket."""
    (site.base / "c.conf").write_text((site.base / "c.conf").read_text() + "AcceptMutex flock\n")
    site.run("-k", "start")
    pid = site.pid()
    os.kill(pid, signal.SIGWINCH)
    while Path(f"/proc/{pid}/exe").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert not (site.base / "pid").exists()
    assert not {"accept.lock", "control.sock"} & set(os.listdir(site.base / "run"))


def test_start_after_a_crash_works_and_says_so(site: Site) -> None:
    """kill -9 of the dispatcher: its children end, the next start takes over pid file and control socket, with AH00098."""
    site.run("-k", "start")
    pid, children = site.pid(), [pid for pids in site.pids().values() for pid in pids]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(os.access(f"/proc/{child}/exe", os.F_OK) for child in (pid, *children)))
    assert site.run("-k", "start").returncode == 0
    assert serves_all(site)
    assert "AH00098: pid file" in site.log()


def test_graceful_starts_a_server_that_does_not_run(site: Site) -> None:
    """-k graceful and -k restart: "not running, trying to start", and then it runs."""
    started = site.run("-k", "graceful")
    assert (started.returncode, started.stdout) == (0, "perchildd not running, trying to start\n")
    assert serves_all(site)


def test_start_fails_with_words_when_the_port_is_taken(site: Site) -> None:
    """AH00072, AH00015, status 1, no pid file."""
    with socket.create_server(("127.0.0.1", site.port)):
        failed = site.run("-k", "start")
    assert failed.returncode == 1
    assert f"AH00072: make_sock: could not bind to address 127.0.0.1:{site.port}" in failed.stderr
    assert "AH00015: Unable to open logs" in failed.stderr
    assert not (site.base / "pid").exists()


@pytest.mark.parametrize("lines", [
    "MPM worker\nStartServers 2\nThreadsPerChild 4\nMaxRequestWorkers 16\nMinSpareThreads 1\nMaxSpareThreads 16\n",
    "MPM prefork\nStartServers 3\nMinSpareServers 1\nMaxSpareServers 5\n",
    "AcceptMutex flock\n", "AcceptMutex fcntl\n", "AcceptMutex pthread\n", "AcceptMutex sysvsem\n",
    "AcceptScope any\n",
])
def test_each_mpm_and_accept_mutex_serves(site: Site, lines: str) -> None:
    """worker, prefork, every AcceptMutex with several unassigned children, and AcceptScope any: forty requests answered, clean stop."""
    text = (site.base / "c.conf").read_text().replace("AcceptScope unassigned\n", lines if "Scope" in lines else f"AcceptScope unassigned\n{lines}")
    (site.base / "c.conf").write_text(text)
    started = site.run("-k", "start")
    assert started.returncode == 0, started.stderr
    for _ in range(13):
        assert serves_all(site)
    assert site.run("-k", "stop").returncode == 0
    wait_until(lambda: not (site.base / "pid").exists())
    assert "exit signal" not in site.log()
    assert "ended with status" not in site.log()


def hear(manager: socket.socket, start: str) -> str:
    """Return the next message that begins so."""
    while not (text := manager.recv(1000).decode()).startswith(start):
        assert text.startswith(("STATUS=", "EXTEND_TIMEOUT_USEC=", "FDSTORE=1"))
    return text


def test_foreground_server_tells_its_service_manager(site: Site) -> None:
    """-D FOREGROUND with NOTIFY_SOCKET: READY=1 when it serves, STOPPING=1 at the end; exit status 0 after TERM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(site.base / "notify"))
        manager.settimeout(60)
        process = subprocess.Popen([PYTHON, "-m", "perchild", "-f", str(site.base / "c.conf"), "-D", "FOREGROUND"], cwd=ROOT,
                                   env={**os.environ, "NOTIFY_SOCKET": str(site.base / "notify")}, stderr=subprocess.DEVNULL)
        try:
            assert hear(manager, "READY=1") == f"READY=1\nMAINPID={process.pid}"
            assert serves_all(site)
            process.terminate()
            hear(manager, "STOPPING=1")
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


def test_one_worker_serves_in_debug_mode(site: Site) -> None:
    """-X: one unassigned child."""
    process = subprocess.Popen([PYTHON, "-m", "perchild", "-f", str(site.base / "c.conf"), "-X"], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: site.ask("status").returncode == 0 and bool(site.pids().get(UID)))
        assert serves_all(site)
        assert len(site.pids()[UID]) == 1
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_other_users_cannot_use_the_control_socket(site: Site) -> None:
    """0600, root's: a tenant's connect is refused by the kernel."""
    site.run("-k", "start")
    assert (site.base / "run/control.sock").stat().st_mode & 0o777 == 0o600
    probe = subprocess.run([PYTHON, "-m", "perchild.control", "--run-dir", str(site.base / "run"), "stop"], cwd=site.readable_tree(), user=UID + 1,
                           group=UID + 1, extra_groups=[], capture_output=True, text=True, check=False)
    assert probe.returncode == 3
    assert "Permission denied" in probe.stderr


def test_server_of_an_ordinary_user_serves_under_its_uid(site: Site) -> None:
    """Not started by root: everything under the caller's uid, and a warning says so."""
    os.chown(site.base, UID + 9, UID + 9)
    started = site.run("-k", "start", cwd=site.readable_tree(), user=UID + 9, group=UID + 9, extra_groups=[])
    assert started.returncode == 0, started.stderr
    assert site.get("alice") == "hello from alice"
    assert set(site.pids()) == {UID + 9}
    assert f"Uid:\t{UID + 9}" in Path(f"/proc/{site.pid()}/status").read_text()
