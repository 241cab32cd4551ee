"""kill -9 of any process at any time: only what the killed process held is lost, and every request is accounted for.

A victim is stopped first, so that its connections can be listed; then it is killed, and exactly these may fail.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.boundary import procs
from tests.lab import Lab, comm_of, is_alive, parse_response, read_all, tree_of, uid_of, wait_until
from tests.load import Answer, Load, Report, reconcile, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
SECONDS = 600.0 if os.environ.get("PERCHILD_LONG") else 12.0
PAUSE_S = 0.2
CLIENTS = 200
NAMES = ("alice", "bob", "carol", "dave", "erin")
FIXED = ("alice", "bob")  # the others sleep until somebody comes


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that was killed: whose it was, when, and the client ports of the connections that it held."""

    pid: int
    uid: int
    at_s: float
    ports: frozenset[int]


def make_lab(*, accept_scope: str = "unassigned") -> Lab:
    """Return a server of five tenants, two of them with a child of their own at all times, not started yet."""
    lab = Lab(names=NAMES, accept_scope=accept_scope)
    fixed = "".join(f"ChildPerUserID #{lab.tenants[name].uid} #{lab.tenants[name].uid} {nth}\n" for nth, name in enumerate(FIXED, 1))
    lab.config = f"NumServers 5\nTimeout 10\n{fixed}"
    lab.config_tail = lab.main_block()
    return lab


def client_ports(pid: int) -> frozenset[int]:
    """Return the client's port of each TCP connection that a process holds."""
    ports = set()
    for number, target in procs.descriptors(pid).items():
        if not target.startswith("socket:"):
            continue
        with procs.borrowed(pid, number) as sock:
            if sock.family == socket.AF_INET:
                try:
                    ports.add(sock.getpeername()[1])
                except OSError:  # a listener, or reset by its client
                    continue
    return frozenset(ports)


def kill_child(pid: int) -> Kill | None:
    """Stop, list, kill; None if it had ended by itself."""
    uid = uid_of(pid)
    try:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: procs.is_stopped(pid), f"{pid} stops")
        ports = client_ports(pid)
        at_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return None
    return Kill(pid, uid, at_s, ports)


def is_allowed(answer: Answer, kills: list[Kill]) -> bool:
    """Whether a killed process held this very connection while the request was under way."""
    return any(answer.port in one.ports and answer.opened_s <= one.at_s <= answer.done_s for one in kills)


def kill_for_a_while(lab: Lab, load: Load, seed: int) -> list[Kill]:
    """Kill a random child each 200 ms of the load's time, until SECONDS are over."""
    draw = random.Random(seed)
    kills: list[Kill] = []
    end_s = time.monotonic() + SECONDS
    while (next_s := time.monotonic() + PAUSE_S) < end_s:
        while time.monotonic() < next_s:
            load.wait_answers(1)
        pids = lab.children()
        kill = kill_child(draw.choice(pids)) if pids else None
        kills += [kill] if kill else []
    return kills


def zombies(pid: int) -> list[int]:
    """Return a process's children that are dead and not waited for."""
    return [one for one in tree_of(pid)[1:] if not is_alive(one) and Path(f"/proc/{one}").exists()]


def is_refused(one: Answer) -> bool:
    """Return whether a request met a full inbox."""
    return (one.status == 503 and one.has_retry_after) or one.error == "TLSV1_ALERT_INTERNAL_ERROR"


def check_account(lab: Lab, report: Report, kills: list[Kill], *, held_back: str = "") -> None:
    """Check that nothing failed but what the killed held, and that the log has whole lines, each id once.

    held_back: a host whose children die so often that it may answer 503 with Retry-After; over TLS, where nobody else has its key, the
    handshake is refused instead.
    """
    bad = [one for one in report.bad() if not (one.host == held_back and is_refused(one))]
    failed = [one for one in bad if one.error]
    answered_wrong = [one for one in bad if not one.error]
    assert not answered_wrong, f"answered, but not as asked: {answered_wrong[:5]} of {len(answered_wrong)}"
    unexplained = [one for one in failed if not is_allowed(one, kills)]
    assert not unexplained, f"no killed process held these ({len(unexplained)} of {len(failed)} failed): {unexplained[:5]}"
    account = reconcile(report, [lab.log / "access.log"])
    assert not account.doubled
    assert not account.torn
    assert not account.wrong
    assert not account.unasked
    # What a killed child had answered and not yet written is lost with it; nobody else loses a line.
    uids = {kill.uid for kill in kills}
    spared = [one for one in account.missing if lab.tenants[one.writer.partition(".")[0]].uid not in uids]
    assert not spared


def test_only_what_a_killed_child_held_is_lost() -> None:
    """A kill each 200 ms under 200 clients: connections queued or held by others are all served; no zombie is left."""
    with make_lab() as lab:
        lab.start()
        with Load(lab, write_secrets(lab), clients=CLIENTS, pace_s=0.15) as load:
            load.wait_answers(2 * CLIENTS)
            kills = kill_for_a_while(lab, load, load.seed)
            for name in NAMES:
                load.wait_answers(1, of=lambda one, host=f"{name}.test": one.is_good and one.host == host)
            report = load.stop()
        wait_until(lambda: not zombies(lab.pid), "the dead are reaped")
        lab.stop()
        held = sum(len(kill.ports) for kill in kills)
        print(f"{len(kills)} kills, {held} connections held, {len(report.answers)} requests: {report.summary()}")
        assert len(kills) >= SECONDS / PAUSE_S / 3
        check_account(lab, report, kills)


def test_tenants_that_are_not_killed_see_nothing() -> None:
    """Kills of one tenant's child alone, again and again: no other tenant's request fails."""
    with make_lab() as lab:
        lab.start()
        secrets = write_secrets(lab)
        uid = lab.tenants["carol"].uid
        with Load(lab, secrets, clients=CLIENTS, pace_s=0.15) as load:
            load.wait_answers(2 * CLIENTS)
            kills = []
            for _ in range(8):
                pids = wait_until(lambda: lab.children(uid), "carol's child is there")
                kills += [kill for kill in [kill_child(pids[0])] if kill]
                load.wait_answers(CLIENTS // 2)
            report = load.stop()
        lab.stop()
        others = report.of(*(host for host in secrets if host != "carol.test"))
        assert not others.bad(), others.summary()
        assert others.answers
        check_account(lab, report, kills, held_back="carol.test")


def held_back(lab: Lab) -> list[str]:
    """Return whose children are started with a pause, for they die so often."""
    return [one["name"] for one in lab.status()["identities"] if one["is_held_back"]]


def test_a_killed_child_has_a_successor_soon() -> None:
    """Fixed, on-demand and unassigned: the next request is the successor's, and no tenant is held back."""
    with make_lab() as lab:
        lab.start()
        secrets = write_secrets(lab)
        hosts = {**secrets, "main.test": b"main\n"}
        times = []
        for _ in range(2):
            for host, body in hosts.items():
                name = host.partition(".")[0]
                path = "/" if name == "main" else "/secret.txt"
                uid = lab.user_uid if name == "main" else lab.tenants[name].uid
                assert lab.get(host, path).body == body
                for pid in lab.children(uid):
                    os.kill(pid, signal.SIGKILL)
                start_s = time.monotonic()
                assert lab.get(host, path).body == body
                times.append(time.monotonic() - start_s)
                if name != "main":  # of the five that are killed there at once, some may have only begun, and that counts
                    assert f"#{uid}" not in held_back(lab)
        print("seconds:", [round(one, 3) for one in times])


def test_a_child_killed_after_a_life_is_replaced_at_once_however_often() -> None:
    """The back-off is for children that die young: one that has served is replaced at once at its fifth death as well."""
    with make_lab() as lab:
        lab.start()
        uid = lab.tenants["alice"].uid
        times = []
        for _ in range(5):
            pid = wait_until(lambda: lab.children(uid), "alice's child is there")[0]
            born_s = time.monotonic()
            wait_until(lambda born_s=born_s: time.monotonic() - born_s > 0.5 and lab.get("alice.test").body == b"alice\n", "it serves")
            os.kill(pid, signal.SIGKILL)
            start_s = time.monotonic()
            assert lab.get("alice.test").body == b"alice\n"
            times.append(time.monotonic() - start_s)
            assert not held_back(lab)
        print("seconds:", [round(one, 3) for one in times])


def test_without_its_nursery_the_server_goes_on() -> None:
    """kill -9 of the process that tenants' children are forked from: the dispatcher forks them itself, and reaps it."""
    with make_lab() as lab:
        lab.start()
        with Load(lab, write_secrets(lab), clients=50, pace_s=0.05) as load:
            load.wait_answers(200)
            nursery = [pid for pid in tree_of(lab.pid) if comm_of(pid) == "pc-nursery"]
            assert len(nursery) == 1
            os.kill(nursery[0], signal.SIGKILL)
            kills = [kill_child(pid) for name in ("alice", "carol", "dave") for pid in lab.children(lab.tenants[name].uid)]
            for name in NAMES:
                load.wait_answers(20, of=lambda one, host=f"{name}.test": one.is_good and one.host == host)
            report = load.stop()
        wait_until(lambda: not zombies(lab.pid), "the nursery is reaped")
        lab.stop()
        check_account(lab, report, [kill for kill in kills if kill])


def test_nursery_killed_while_idle_is_reaped_and_replaced() -> None:
    """kill -9 of an idle nursery, three times: within a moment no zombie is left, another one sits there, and forks for tenants."""
    with make_lab() as lab:
        lab.start()
        for name in ("carol", "dave", "erin"):
            old = lab.nursery
            os.kill(old, signal.SIGKILL)
            wait_until(lambda old=old: not Path(f"/proc/{old}").exists() and other_nursery(lab, old), "another nursery")
            assert lab.get(f"{name}.test").body == f"{name}\n".encode()
            assert zombies(lab.pid) == []
        assert lab.error_log().count("was ended by signal 9: starting another") == 3
        assert "it: forking" not in lab.error_log()
        lab.stop()


def other_nursery(lab: Lab, old: int) -> bool:
    """Whether there is a nursery that is not `old`."""
    return any(pid != old and uid_of(pid) == 0 and comm_of(pid) == "pc-nursery" for pid in tree_of(lab.pid))


def test_nursery_that_stands_still_holds_nobody_up_for_long() -> None:
    """SIGSTOP of the nursery: the next tenant's child is forked without it in 2 s, the one that stands still is replaced."""
    with make_lab() as lab:
        lab.start()
        old = lab.nursery
        os.kill(old, signal.SIGSTOP)
        assert lab.get("carol.test").body == b"carol\n"
        wait_until(lambda: not Path(f"/proc/{old}").exists() and other_nursery(lab, old), "another nursery")
        assert "did not answer in time: forking" in lab.error_log()
        os.kill(lab.nursery, signal.SIGSTOP)
        lab.stop()


def test_child_of_a_nursery_that_dies_before_its_answer_is_reaped() -> None:
    """The nursery is killed at its answer, a sendto(2): the child that nobody knows ends and is reaped with a word, another one serves."""
    with make_lab() as lab:
        lab.start()
        old = lab.nursery
        with procs.traced(old, lab.base / "trace", "sendto", "-e", "inject=sendto:signal=SIGKILL", has_forks=False):  # before the kernel does it
            assert lab.get("carol.test").body == b"carol\n"
        wait_until(lambda: "reaped a process that this server does not know: pid" in lab.error_log(), "it is reaped")
        wait_until(lambda: zombies(lab.pid) == [] and other_nursery(lab, old), "another nursery")
        assert len(lab.children(lab.tenants["carol"].uid)) == 1
        assert lab.get("carol.test").body == b"carol\n"
        lab.stop()


WHERE = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec readlink /proc/self/ns/pid\n"


@pytest.mark.plain("its client would make a handshake with whom the test lets go on only later")
@pytest.mark.parametrize(("who", "path"), [("child", "/whoami"), ("runner", "/cgi-bin/where")])
def test_what_a_killed_nursery_has_forked_takes_nothing(who: str, path: str) -> None:
    """The nursery is killed at its answer, when the dispatcher stands still behind its request: what was forked, of which nobody will
    hear, takes neither the connection from the inbox nor the job from the box, and whoever is forked instead serves it."""
    with Lab("NumServers 1\n", names=("carol",)) as lab:
        carol = lab.tenants["carol"]
        programs = carol.put_programs({"where": WHERE})
        lab.host_config = f"ScriptAlias /cgi-bin/ {programs}/\n<Directory {programs}>\nRequire all granted\n</Directory>\n"
        lab.start()
        if who == "runner":
            assert lab.get("carol.test").body == b"carol\n"  # her child is there, and only her runner is forked
        nursery, known = lab.nursery, set(tree_of(lab.pid))
        at_request, at_answer = "inject=sendmsg:signal=SIGSTOP:when=1", "inject=sendto:signal=SIGKILL"
        with (procs.traced(nursery, lab.base / "nursery", "sendto", "-e", at_answer, has_forks=False),
              procs.traced(lab.pid, lab.base / "dispatcher", "sendmsg", "-e", at_request, has_forks=False), lab.connect() as client):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: carol.test\r\nConnection: close\r\n\r\n".encode())
            try:
                wait_until(lambda: not is_alive(nursery), "the nursery is killed")
                stranger, = set(tree_of(lab.pid)) - known
                wait_until(lambda: waits_to_begin(stranger) or select.select([client], [], [], 0)[0], "it waits, or has answered")
            finally:
                os.kill(lab.pid, signal.SIGCONT)
            answer = parse_response(read_all(client))
        wait_until(lambda: not Path(f"/proc/{stranger}").exists() and other_nursery(lab, nursery), "the stranger is gone, a nursery is there")
        assert answer.status == 200
        if who == "child":
            assert [answer.json()["pid"]] == lab.children(carol.uid)
        else:
            assert [answer.body.decode().strip()] == [os.readlink(f"/proc/{pid}/ns/pid") for pid in lab.runners(carol.uid)]
        lab.stop()


def waits_to_begin(pid: int) -> bool:
    """Whether a process that a nursery has forked sleeps before it has become anything else."""
    return comm_of(pid) == "pc-nursery" and procs.read_status(pid)["State"].startswith("S")


def test_nothing_outlives_a_killed_dispatcher() -> None:
    """kill -9 of the dispatcher under load: every child and the nursery end within seconds."""
    with make_lab() as lab:
        lab.start()
        with Load(lab, write_secrets(lab), clients=100, pace_s=0.05, timeout_s=5) as load:
            load.wait_answers(300)
            pids = tree_of(lab.pid)
            assert len(pids) > len(NAMES)
            process, lab.process = lab.process, None
            assert process is not None
            process.kill()
            process.communicate(timeout=60)
            wait_until(lambda: not any(is_alive(pid) for pid in pids), "all are gone")
