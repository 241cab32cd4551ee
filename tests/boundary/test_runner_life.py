"""Runners of a live server: made on demand, kept over reloads, replaced when killed, gone with their identity and their server.

Runs as: root; a whole server, real uids.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild import roles
from perchild.control.client import ask_server
from tests.boundary import procs
from tests.lab import Lab, Response, is_alive, tree_of, uid_of, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

HOST = "AddHandler cgi-script .cgi\nOptions +ExecCGI"
WHO = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; id -u; ls /proc | grep -c '^[0-9]'\n"
SLOW = "#!/bin/sh\ntouch \"$DOCUMENT_ROOT/begun\"\nsleep 1\nprintf 'Content-Type: text/plain\\n\\ndone\\n'\n"
FOREVER = '#!/bin/sh\ntouch "$DOCUMENT_ROOT/begun"\nsleep 1000\n'


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A server whose tenants have programs; nobody has asked for one yet."""
    with Lab(names=("alice", "bob"), host_config=HOST) as one:
        for tenant in one.tenants.values():
            tenant.write("who.cgi", WHO, 0o700)
            tenant.write("slow.cgi", SLOW, 0o700)
            tenant.write("forever.cgi", FOREVER, 0o700)
        yield one.start()


def who(lab: Lab, name: str) -> int:
    """Ask a tenant's program who it is; return the pid of the runner that executed it."""
    answer = lab.get(f"{name}.test", "/who.cgi")
    assert (answer.status, answer.body.split()[0]) == (200, str(lab.tenants[name].uid).encode())
    # While others end, the kernel's list of children may leave some out: look again.
    return int(wait_until(lambda: [pid for pid in lab.runners(lab.tenants[name].uid) if is_alive(pid)], "it is there")[0])


def in_background(lab: Lab, name: str, path: str) -> tuple[threading.Thread, list[Response]]:
    """Ask in a thread, and wait until the program has begun."""
    answers: list[Response] = []
    begun = lab.tenants[name].docroot / "begun"
    begun.unlink(missing_ok=True)
    thread = threading.Thread(target=lambda: answers.append(lab.get(f"{name}.test", path, timeout_s=20)))
    thread.start()
    wait_until(begun.exists, "the program has begun")
    return thread, answers


def runner_of(lab: Lab, name: str) -> dict[str, object]:
    """Return what the status says of a tenant's runner."""
    return next(one["runner"] for one in lab.status()["identities"] if one["uid"] == lab.tenants[name].uid)


def test_a_runner_is_forked_by_the_first_program_and_is_its_tenants(lab: Lab) -> None:
    """None before; then one for that tenant, in a namespace of its own, a child of the dispatcher; the status knows it."""
    assert lab.get("alice.test").status == 200
    assert lab.runners() == []
    assert runner_of(lab, "alice") == {"pid": None, "is_held_back": False, "ending": 0}
    pid = who(lab, "alice")
    assert lab.runners() == [pid]
    assert runner_of(lab, "alice")["pid"] == pid
    status = procs.read_status(pid)
    assert status["NSpid"].split() == [str(pid), "1"]
    assert status["PPid"] == str(lab.pid)
    assert who(lab, "bob") != pid
    namespaces = {os.readlink(f"/proc/{one}/ns/pid") for one in (*lab.runners(), lab.pid)}
    assert len(namespaces) == 3


def test_a_live_runner_holds_what_its_role_lists(lab: Lab) -> None:
    """Descriptors, ids, capabilities; so does the dispatcher with boxes, and the child with its box's write end."""
    for name in lab.tenants:
        pid = who(lab, name)
        status = procs.read_status(pid)
        assert status["Uid"].split() == status["Gid"].split() == [str(lab.tenants[name].uid)] * 4
        assert [status[one] for one in procs.CAPABILITY_SETS] == ["0" * 16] * 5
        assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
        fds = procs.look_at_fds(lab, pid)
        assert roles.compare_fds(roles.find_role(roles.RUNNER), [fd.kind for fd in fds]) == (), fds
    for pid, role in ((lab.pid, roles.DISPATCHER), (lab.children(lab.tenants["alice"].uid)[0], "on-demand")):
        fds = procs.look_at_fds(lab, pid)
        assert roles.compare_fds(roles.find_role(role), [fd.kind for fd in fds]) == (), fds
        assert sum(fd.kind == roles.JOB_WRITE for fd in fds) == (2 if pid == lab.pid else 1)


def test_a_runners_own_memory_is_small(lab: Lab) -> None:
    """What it shares with the nursery is shared: below 4 MB of its own."""
    text = Path(f"/proc/{who(lab, 'alice')}/smaps_rollup").read_text()
    private_kb = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
    assert private_kb < 4096, text


def test_a_killed_runner_is_replaced_and_queued_jobs_are_served(lab: Lab) -> None:
    """kill -9 while jobs lie in the box: its programs end with it, what it had not taken is executed by the successor."""
    pid = who(lab, "alice")
    thread, lost = in_background(lab, "alice", "/forever.cgi")
    program = tree_of(pid)[1:]
    wait_until(lambda: procs.stand_still(pid), "it takes no job any more")
    answers: list[Response] = []
    threads = [threading.Thread(target=lambda: answers.append(lab.get("alice.test", "/who.cgi", timeout_s=20))) for _ in range(8)]
    for one in threads:
        one.start()
    box = next(fd for fd in procs.look_at_fds(lab, pid) if fd.kind == roles.JOB)
    with procs.borrowed(pid, box.number) as sock:
        wait_until(lambda: select.select([sock], [], [], 0)[0], "jobs lie in the box")
    os.kill(pid, signal.SIGKILL)
    for one in (*threads, thread):
        one.join()
    assert [answer.status for answer in answers] == [200] * 8
    assert lost[0].status in {500, 502, 503}
    assert not any(is_alive(one) for one in program)
    assert who(lab, "alice") != pid
    assert "exit signal Killed (9): its programs ended with it" in lab.error_log()


def test_a_graceful_restart_leaves_an_unchanged_identitys_runner_alone(lab: Lab) -> None:
    """Same process, and what it executes goes on."""
    pid = who(lab, "alice")
    thread, answers = in_background(lab, "alice", "/slow.cgi")
    assert lab.reload()["ok"]
    thread.join()
    assert answers[0].body == b"done\n"
    assert who(lab, "alice") == pid


def test_a_changed_file_brings_a_successor_and_the_old_one_finishes(lab: Lab) -> None:
    """A limit of bob's host: bob's runner finishes what it has and ends, alice's stays."""
    alice, bob = who(lab, "alice"), who(lab, "bob")
    thread, answers = in_background(lab, "bob", "/slow.cgi")
    block = lab.host_block
    lab.host_block = lambda tenant, extra="": block(tenant, "RLimitCPU 100 100" if tenant.name == "bob" else extra)  # type: ignore[method-assign]
    assert lab.reload()["ok"]
    thread.join()
    assert answers[0].body == b"done\n"
    wait_until(lambda: not is_alive(bob), "the old one has ended")
    assert who(lab, "bob") != bob
    assert who(lab, "alice") == alice


def test_tenants_share_no_memory_that_they_can_write_to(lab: Lab) -> None:
    """Of what is mapped shared and writable each child has its page alone, also those that are forked behind the first runner."""
    who(lab, "alice")
    who(lab, "bob")
    wait_until(lambda: all(tree_of(pid) == [pid] for pid in lab.runners()), "what has answered is gone")
    for pid in tree_of(lab.pid):
        if uid_of(pid) in {tenant.uid for tenant in lab.tenants.values()}:
            lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
            assert {line[5] for line in lines if line[1] == "rw-s"} <= {"/memfd:perchild-page"}


def test_a_restart_ends_runners_by_force(lab: Lab) -> None:
    """HUP. An accepting child that is about to end is told the new routes, and is of their generation, as the new ones are."""
    pid = who(lab, "alice")
    old = lab.children()
    thread, _ = in_background(lab, "alice", "/forever.cgi")
    os.kill(lab.pid, signal.SIGHUP)
    wait_until(lambda: not is_alive(pid), "it has ended", 10)
    thread.join()
    wait_until(lambda: not any(is_alive(one) for one in old), "no child is left that might take the next connection and end", 15)
    assert who(lab, "alice") != pid


def test_a_removed_identity_takes_its_runner_and_its_directory_along(lab: Lab) -> None:
    """Nothing of bob's is left; alice is not touched."""
    alice, bob = who(lab, "alice"), who(lab, "bob")
    assert len(os.listdir(lab.run / "tenants")) == 2
    tenant = lab.tenants.pop("bob")
    assert lab.reload()["ok"]
    wait_until(lambda: not is_alive(bob), "its runner has ended", 15)
    wait_until(lambda: len(os.listdir(lab.run / "tenants")) == 1, "its directory is gone", 15)
    assert who(lab, "alice") == alice
    lab.tenants["bob"] = tenant
    assert lab.reload()["ok"]
    assert who(lab, "bob") != bob


def test_directories_of_services_are_their_tenants_alone(lab: Lab) -> None:
    """0700 of the tenant below a directory of root's that only lets pass."""
    who(lab, "alice")
    who(lab, "bob")
    assert os.stat(lab.run / "tenants").st_mode & 0o777 == 0o711
    found = {os.stat(lab.run / "tenants" / name).st_uid: os.stat(lab.run / "tenants" / name).st_mode & 0o777
             for name in os.listdir(lab.run / "tenants")}
    assert found == {tenant.uid: 0o700 for tenant in lab.tenants.values()}


def test_a_directory_that_was_prepared_by_somebody_else_is_not_taken(lab: Lab) -> None:
    """A link, or a directory of another's: an error in the log, and nothing behind it is changed."""
    lab.stop()
    target = lab.base / "target"
    target.mkdir(mode=0o750)
    (lab.run / "tenants").mkdir(mode=0o711)
    alice, bob = (lab.tenants[name].uid for name in ("alice", "bob"))
    (lab.run / "tenants" / f"{alice}:{alice}:").symlink_to(target)
    other = lab.run / "tenants" / f"{bob}:{bob}:"
    other.mkdir(mode=0o750)
    os.chown(other, alice, alice)
    lab.start()
    who(lab, "alice")
    assert who(lab, "bob")  # programs need no directory
    assert lab.error_log().count("the directory of #") == 2
    assert (os.stat(target).st_uid, os.stat(target).st_mode & 0o777) == (0, 0o750)
    assert os.stat(other).st_uid == alice


def test_a_runner_that_cannot_start_is_tried_again_later_and_stops_nobody(lab: Lab) -> None:
    """Its file is gone: said, held back; other tenants go on."""
    for name in os.listdir(lab.run / "records"):
        if name.endswith(".runner") and name.startswith("1-"):
            os.unlink(lab.run / "records" / name)
    thread = threading.Thread(target=lambda: lab.get("alice.test", "/who.cgi", timeout_s=20))
    thread.start()
    wait_until(lambda: "no runner can be started for" in lab.error_log(), "it is said")
    assert runner_of(lab, "alice")["is_held_back"]
    assert who(lab, "bob")
    lab.stop()
    thread.join()


def exactly_three(lab: Lab) -> list[int]:
    """Return the pids below and of the runners if there are three: who has just answered may not have ended yet."""
    pids = [pid for one in lab.runners() for pid in tree_of(one)]
    return pids if len(pids) == 3 else []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGWINCH, signal.SIGKILL])
def test_no_program_outlives_the_server(lab: Lab, number: int) -> None:
    """At once, gracefully, and killed."""
    who(lab, "alice")
    who(lab, "bob")
    tenant = lab.tenants["alice"]
    tenant.write("daemon.cgi", "#!/bin/sh\nsetsid sleep 1234 >/dev/null 2>&1 </dev/null &\nprintf 'X: y\\n\\n'\n", 0o700)
    lab.get("alice.test", "/daemon.cgi")
    pids = wait_until(lambda: exactly_three(lab), "two runners and the daemon are left")
    started = time.monotonic()
    if number == signal.SIGKILL:
        assert lab.process
        lab.process.kill()
        lab.process.communicate()
        lab.process = None
    else:
        lab.stop(number)
        assert not os.path.exists(lab.run / "tenants") or os.listdir(lab.run / "tenants") == []
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "all have ended")
    assert time.monotonic() - started < 8


def test_a_stop_waits_for_runners_whose_programs_ignore_term(lab: Lab) -> None:
    """Children end at once, the program is killed after two seconds: the server is still there, and removes what is left."""
    lab.tenants["alice"].write("deaf.cgi", '#!/bin/sh\ntrap "" TERM\ntouch "$DOCUMENT_ROOT/begun"\nsleep 1234\n', 0o700)
    thread, _ = in_background(lab, "alice", "/deaf.cgi")
    lab.stop()
    thread.join()
    assert os.listdir(lab.run / "tenants") == []


@pytest.mark.parametrize("op", ["graceful", "reopen"])
def test_a_runner_goes_on_in_the_log_that_was_opened_anew(lab: Lab, op: str) -> None:
    """logrotate renames the error log: what the runner and its services say comes into the new one, and nobody was started anew."""
    pid = who(lab, "alice")
    log = lab.log / "error.log"
    log.rename(lab.log / "error.log.1")
    if op == "graceful":
        os.kill(lab.pid, signal.SIGUSR1)
    else:
        assert ask_server(str(lab.run), {"op": op})["ok"]
    [runner] = lab.runners(lab.tenants["alice"].uid)
    wait_until(lambda: os.path.exists(log) and os.path.samefile(f"/proc/{runner}/fd/2", log), "it writes to the new one")
    assert who(lab, "alice") == pid
