"""perchildctl against a whole server: what it shows is so, what it changes is in force, and its JSON is what docs/status.md says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import PYTHON, ROOT, Lab, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
DOCUMENTED = set(re.findall(r"`(\w+)`", (ROOT / "docs/status.md").read_text()))
CLASSES = {"1xx", "2xx", "3xx", "4xx", "5xx"}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Sites in files of their own; alice was asked, bob sleeps."""
    with Lab(names=("alice", "bob"), vhosts=False) as lab:
        for folder in ("sites-available", "sites-enabled"):
            (lab.base / folder).mkdir()
        for tenant in lab.tenants.values():
            (lab.base / f"sites-available/{tenant.name}.conf").write_text(lab.host_block(tenant))
            (lab.base / f"sites-enabled/{tenant.name}.conf").symlink_to(f"../sites-available/{tenant.name}.conf")
        lab.config_tail = f"IncludeOptional {lab.base}/sites-enabled/*.conf\nDefaultStateDir {lab.base}/state\n"
        (lab.base / "state").mkdir(mode=0o700)
        lab.start()
        assert lab.get("alice.test").status == 200
        yield lab


def ctl(lab: Lab, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run perchildctl."""
    return subprocess.run([PYTHON, "-m", "perchild.control", "--run-dir", str(lab.run), *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False, env={**os.environ, **(environment or {})})


def show(lab: Lab, *arguments: str, **environment: str) -> str:
    """Run it on a terminal; return what that shows. (script(1) would stop for ever where somebody stops what it runs for a moment.)"""
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as screen:
        with open(theirs, "wb", buffering=0) as terminal, subprocess.Popen(
                [PYTHON, "-m", "perchild.control", "--run-dir", str(lab.run), *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=terminal,
                stderr=terminal, env={**os.environ, "TERM": "xterm", **environment}) as process:
            terminal.close()
            shown = bytearray()
            with contextlib.suppress(OSError):  # EIO, when nobody holds the other end any more
                while part := screen.read(65536):
                    shown += part
        assert process.returncode == 0, shown
    return shown.decode()


def ask(lab: Lab, *arguments: str) -> dict[str, Any]:
    """Run it with --json; return its answer."""
    done = ctl(lab, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def names_in(tree: Any) -> set[str]:
    """Return every member's name, at any depth, but those that are data: buckets and classes."""
    if isinstance(tree, list):
        return {name for one in tree for name in names_in(one)}
    if not isinstance(tree, dict):
        return set()
    return {name for name in tree if not name.isdigit()} | {name for one in tree.values() for name in names_in(one)}


@pytest.mark.parametrize("command", [("status",), ("tenants",), ("sites",), ("top", "-n", "1", "-i", "0.2"), ("reload",), ("reopen",)])
def test_every_member_of_the_json_is_described(lab: Lab, command: tuple[str, ...]) -> None:
    """docs/status.md names each; a panel can rely on them."""
    assert names_in(ask(lab, *command)) - CLASSES <= DOCUMENTED


def test_status_shows_processes_and_their_slots(lab: Lab) -> None:
    """Alice's child with its pid; bob asleep. Its memory is what the system says."""
    tree = ask(lab, "status")
    alice = next(one for one in tree["identities"] if one["uid"] == lab.tenants["alice"].uid)
    (pid,) = lab.children(lab.tenants["alice"].uid)
    assert [child["pid"] for child in alice["children"]] == [pid]
    assert alice["memory_kb"] > 200
    assert alice["requests"] == 1
    text = ctl(lab, "status").stdout
    assert re.search(rf"^#{lab.tenants['alice'].uid} +on-demand +{pid} +ready .* -1", text, re.MULTILINE)
    assert re.search(rf"^#{lab.tenants['bob'].uid} +on-demand +- +asleep", text, re.MULTILINE)


def test_top_shows_what_happens_meanwhile(lab: Lab) -> None:
    """Requests of the interval, not of before; plain text where there is no terminal."""
    assert lab.get("bob.test").status == 200  # has a child: its start, on a busy machine, may take as long as the interval
    command = [PYTHON, "-m", "perchild.control", "--run-dir", str(lab.run), "top", "-n", "2", "-i", "2", "--json"]
    is_over = threading.Event()

    def ask_bob() -> None:
        while not is_over.is_set():
            lab.get("bob.test")

    asking = threading.Thread(target=ask_bob)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        asking.start()
        sample = json.loads(process.stdout.readline())
        is_over.set()
        asking.join()
    assert process.returncode == 0
    rates = {one["uid"]: one["requests_per_s"] for one in sample["tenants"]}
    assert next(iter(rates)) == lab.tenants["bob"].uid
    assert rates[lab.tenants["bob"].uid] > 0
    assert not rates.get(lab.tenants["alice"].uid)  # she was asked before
    text = ctl(lab, "top", "-n", "1", "-i", "0.2").stdout
    assert text.splitlines()[1].split()[:4] == ["USER", "PROCS", "PROGS", "SLOTS"]
    assert "\x1b" not in text


def test_a_terminal_gets_colour_and_others_none(lab: Lab) -> None:
    """NO_COLOR, and a terminal that can do nothing, are heard."""
    assert "\x1b[1m" in show(lab, "status")
    assert "\x1b[32m" not in show(lab, "status", NO_COLOR="1")
    assert "\x1b" not in show(lab, "status", TERM="dumb")
    assert "\x1b" not in ctl(lab, "status").stdout


def test_narrow_terminal_shows_whole_cells(lab: Lab) -> None:
    """Columns that have no room are left out, and named; no cell is cut."""
    text = show(lab, "tenants", NO_COLOR="1", COLUMNS="70")
    assert "\u2026" not in text
    head = next(line for line in text.splitlines() if "USER" in line and "REQUESTS" in line)
    gone = re.search(r"no room for ([A-Z0-9 ]+): widen the terminal", text)
    assert gone is not None
    assert not set(gone[1].split()) & set(head.split())
    assert max(map(len, re.sub("\x1b\\[[0-9;]*m", "", text.partition("no room")[0]).splitlines())) <= 70


def test_sites_say_where_they_are_written_and_what_they_did(lab: Lab) -> None:
    """File and line, user, state."""
    sites = {site["name"]: site for site in ask(lab, "sites")["sites"]}
    assert sites["alice.test"]["file"].endswith("sites-enabled/alice.conf")
    assert sites["alice.test"]["uid"] == lab.tenants["alice"].uid
    assert (sites["alice.test"]["requests"], sites["bob.test"]["requests"]) == (1, 0)
    assert sites["alice.test"]["state"] == "ok"
    assert "alice.test" in ctl(lab, "sites").stdout


def test_reload_of_a_site_fails_if_that_site_is_broken(lab: Lab) -> None:
    """With file, line and reason; the others are in force. Status and sites show it."""
    path = lab.base / "sites-available/bob.conf"
    good = path.read_text()
    path.write_text(good.replace("ServerName bob.test", "ServerName bob.test\nNonsense on"))
    done = ctl(lab, "reload", "bob.test")
    assert done.returncode == 1
    assert re.search(r"bob\.conf:3: .*Nonsense", done.stderr)
    assert ctl(lab, "reload", "alice.test").stdout.strip() == "alice.test is in force"
    assert "bob.conf:3: not in force" in ctl(lab, "status").stdout
    assert {site["name"]: site["state"] for site in ask(lab, "sites")["sites"]}["bob.test"] != "ok"
    path.write_text(good)
    assert ctl(lab, "reload", "bob").returncode == 0
    assert ctl(lab, "reload", "bob.test").returncode == 0
    assert ctl(lab, "reload", "nobody.test").returncode == 1


def test_ensite_with_reload_is_in_force_or_taken_back(lab: Lab) -> None:
    """A site that is new answers when the command returns; a broken one leaves no trace."""
    carol = lab.add_tenant("carol")
    (lab.base / "sites-available/carol.conf").write_text(lab.host_block(carol))
    done = ctl(lab, "ensite", "carol", "--reload", "--config-dir", str(lab.base))
    assert (done.returncode, done.stdout) == (0, "Enabling site carol.\n")
    assert lab.get("carol.test").body == b"carol\n"
    assert ctl(lab, "dissite", "carol", "--reload", "--config-dir", str(lab.base)).returncode == 0
    wait_until(lambda: lab.get("carol.test").body != b"carol\n", "carol is gone")
    (lab.base / "sites-available/dora.conf").write_text("<VirtualHost *:80>\nNonsense on\n</VirtualHost>\n")
    done = ctl(lab, "ensite", "dora", "--reload", "--config-dir", str(lab.base))
    assert done.returncode == 1
    assert "Nonsense" in done.stderr
    assert not (lab.base / "sites-enabled/dora.conf").is_symlink()
    assert not ask(lab, "status")["server"]["broken_sites"]
    assert lab.get("alice.test").status == 200


def test_drain_replaces_the_children_of_one_user(lab: Lab) -> None:
    """Who is drained ends; others keep their pids. Who is unknown is refused, with the remedy."""
    alice = lab.tenants["alice"]
    assert lab.get("bob.test").status == 200
    before, bobs = lab.children(alice.uid), lab.children(lab.tenants["bob"].uid)
    assert ctl(lab, "drain", f"#{alice.uid}").returncode == 0
    wait_until(lambda: not set(before) & set(lab.children(alice.uid)), "it ended")
    assert lab.children(lab.tenants["bob"].uid) == bobs
    assert lab.get("alice.test").status == 200
    done = ctl(lab, "drain", "nobody")
    assert done.returncode == 1
    assert "perchildctl tenants" in done.stderr


def test_others_than_root_are_told_to_ask_root(lab: Lab) -> None:
    """The socket is root's: exit status 3, and no figure of anybody."""
    tenant = lab.tenants["alice"]
    tree = Path("/proc/self/cwd")
    command = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import os; from perchild.control.command import main; os.setgid({tenant.uid}); "
               f"os.setuid({tenant.uid}); sys.exit(main(['--run-dir', {str(lab.run)!r}, 'status']))")
    done = subprocess.run([PYTHON, "-c", command], cwd=tree, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "Root, and whoever started the server, may ask" in done.stderr
    assert done.stdout == ""
