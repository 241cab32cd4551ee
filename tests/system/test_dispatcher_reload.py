"""Reloads: what changes, what is not touched, and what is refused."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from perchild.dispatcher import compile as compiling
from perchild.dispatcher.system import Sys

sys.path.insert(0, str(Path(__file__).parent))
from dispatcher_lab import BASE_UID, Lab, default_config, free_ports, read_answer, run_lab, tenant, toy_compile

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]


def all_pids(lab: Lab) -> dict[str, set[int]]:
    """Return the pids of all identities."""
    return {name: lab.pids(name) for name in lab.members()}


def test_adding_an_identity_touches_no_other_child(tmp_path: Path) -> None:
    """Route table and inbox reach the accepting children in place: the new host answers, every old pid is the same."""
    with run_lab(tmp_path) as lab:
        lab.get("bob")
        before = all_pids(lab)
        lab.config["tenants"].append(tenant("carol", 3))
        assert lab.reload()["ok"]
        assert lab.get("carol")["uid"] == BASE_UID + 3
        after = all_pids(lab)
        assert {name: after[name] for name in before} == before
        assert lab.ask("status")["generation"] == 2


def test_many_new_identities_reach_the_accepting_children(tmp_path: Path) -> None:
    """Four hundred new inboxes, more than a socket's queue holds, arrive at children that stay."""
    with run_lab(tmp_path) as lab:
        before = lab.pids("main")
        lab.config["tenants"] += [tenant(f"t{number}", 10 + number) for number in range(400)]
        assert lab.reload()["ok"]
        assert lab.get("t399")["uid"] == BASE_UID + 409
        assert lab.get("main")["inboxes"] == list(range(403))
        assert lab.pids("main") == before


def test_changed_identity_gets_a_new_child_and_the_old_one_finishes(tmp_path: Path) -> None:
    """alice's record changes: a new child serves the new host, the old one keeps its open connection and then ends."""
    with run_lab(tmp_path) as lab:
        conn = lab.connect("alice hold")
        old = read_answer(conn)["pid"]
        lab.config["tenants"][1]["hosts"].append("alice2")
        assert lab.reload()["ok"]
        assert lab.get("alice2")["pid"] != old
        assert {child["pid"]: child["state"] for child in lab.members()["alice"]["children"]}[old] == "draining"
        conn.sendall(b"again\n")
        assert conn.recv(100) == b"still here\n"
        conn.close()
        lab.wait(lambda: len(lab.members()["alice"]["children"]) == 1)


def test_sleeping_identity_that_changes_stays_asleep(tmp_path: Path) -> None:
    """A reload forks nothing for an on-demand identity that has no child."""
    with run_lab(tmp_path) as lab:
        lab.config["tenants"][2]["hosts"].append("bob2")
        assert lab.reload()["ok"]
        assert lab.members()["bob"]["children"] == []
        assert lab.get("bob2")["uid"] == BASE_UID + 2


def test_removed_identity_is_gone_and_its_number_is_kept_for_it(tmp_path: Path) -> None:
    """Its children drain, its inbox closes; when it comes back it has its old number."""
    with run_lab(tmp_path) as lab:
        number = lab.members()["bob"]["number"]
        lab.get("bob")
        bob = lab.config["tenants"].pop(2)
        lab.config["tenants"].append(tenant("carol", 3))
        assert lab.reload()["ok"]
        lab.wait(lambda: "bob" not in lab.members())
        assert lab.get("main")["inboxes"] == [0, 1, 3]
        lab.config["tenants"].append(bob)
        assert lab.reload()["ok"]
        assert lab.members()["bob"]["number"] == number
        assert lab.get("bob")["uid"] == BASE_UID + 2


def test_records_of_gone_configurations_are_removed(tmp_path: Path) -> None:
    """The run directory holds one record for each identity, readable by root alone."""
    with run_lab(tmp_path) as lab:
        for step in range(3):
            lab.config["tenants"][2]["hosts"].append(f"bob{step}")
            assert lab.reload()["ok"]
        records = list((tmp_path / "run/records").iterdir())
        assert len(records) == 3
        assert {record.stat().st_mode & 0o777 for record in records} == {0o600}


@pytest.mark.parametrize(("change", "text"), [
    ({"error": "Invalid command 'Foo'"}, "Invalid command 'Foo'"),
    ({"crash": True}, "was ended by signal 11"),
    ({"tenants": None}, "Traceback"),
    ({"mpm": "worker"}, "AH00534"),
])
def test_refused_configuration_leaves_all_as_it_was(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    """Errors, a crash or another MPM: the answer and the log say why; no child, plan or socket changes."""
    with run_lab(tmp_path) as lab:
        lab.get("bob")
        before = all_pids(lab)
        good = dict(lab.config)
        lab.config = {**good, **change}
        answer = lab.reload()
        assert not answer["ok"]
        assert text in answer["text"]
        assert text in lab.log()
        assert "the server goes on with the one in force" in lab.log()
        lab.config = good
        assert all_pids(lab) == before
        assert lab.ask("status")["generation"] == 1
        assert lab.get("bob")["name"] == "bob"


def test_new_listener_that_cannot_be_bound_refuses_the_reload(tmp_path: Path) -> None:
    """AH00072 in answer and log; the old listener serves on."""
    with run_lab(tmp_path) as lab, socket.create_server(("127.0.0.1", 0)) as taken:
        lab.config["ports"].append(taken.getsockname()[1])
        answer = lab.reload()
        assert not answer["ok"]
        assert "AH00072" in answer["text"]
        assert lab.get("main")["name"] == "main"


def test_new_listener_is_served_and_an_unchanged_one_is_never_closed(tmp_path: Path) -> None:
    """A second port answers after the reload; connections to the first one meanwhile are never refused."""
    with run_lab(tmp_path) as lab:
        failures: list[Exception] = []
        is_over = threading.Event()

        def hammer() -> None:
            while not is_over.is_set():
                try:
                    assert lab.get("main")["name"] == "main"
                except (OSError, AssertionError) as error:
                    failures.append(error)

        thread = threading.Thread(target=hammer)
        thread.start()
        try:
            lab.config["ports"] += free_ports(1)
            assert lab.reload()["ok"]
            with socket.create_connection(("127.0.0.1", lab.config["ports"][1])) as conn:
                conn.sendall(b"alice\n")
                assert read_answer(conn)["name"] == "alice"
        finally:
            is_over.set()
            thread.join()
        assert failures == []


def test_graceful_restarts_under_load_lose_nothing(tmp_path: Path) -> None:
    """Forty reloads by SIGUSR1, each changing alice, while four clients ask all identities: every one is answered."""
    with run_lab(tmp_path) as lab:
        failures: list[str] = []
        is_over = threading.Event()

        def hammer(name: str) -> None:
            while not is_over.is_set():
                try:
                    if lab.get(name).get("name") != name:
                        failures.append(f"{name}: no answer")
                except OSError as error:
                    failures.append(f"{name}: {error}")

        threads = [threading.Thread(target=hammer, args=(name,)) for name in ("main", "alice", "bob", "alice")]
        for thread in threads:
            thread.start()
        try:
            for step in range(40):
                lab.config["tenants"][1]["hosts"] = ["alice", f"step{step}"]
                lab.write()
                lab.signal(signal.SIGUSR1)
                lab.wait(lambda step=step: lab.ask("status")["generation"] == step + 2)  # type: ignore[misc]
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert failures == []
        assert lab.log().count("AH00171") == 40


def test_restart_replaces_every_child_by_force(tmp_path: Path) -> None:
    """SIGHUP: all pids are new, AH00173 in the log, and the server answers."""
    with run_lab(tmp_path) as lab:
        lab.get("bob")
        before = all_pids(lab)
        lab.signal(signal.SIGHUP)
        lab.wait(lambda: lab.ask("status")["generation"] == 2)
        lab.wait(lambda: not any(all_pids(lab)[name] & before[name] for name in before))
        assert {lab.get(name)["name"] for name in ("main", "alice", "bob")} == {"main", "alice", "bob"}
        assert "AH00173" in lab.log()


def test_number_of_fixed_children_follows_the_plan(tmp_path: Path) -> None:
    """More: started beside the old ones; fewer: the surplus drains."""
    with run_lab(tmp_path) as lab:
        lab.config["tenants"][1]["children"] = 3
        lab.reload()
        lab.wait(lambda: len(lab.pids("alice")) == 3)
        lab.config["tenants"][1]["children"] = 1
        lab.reload()
        lab.wait(lambda: len(lab.members()["alice"]["children"]) == 1)


def test_safe_log_is_opened_by_root_and_reopened_in_place(tmp_path: Path) -> None:
    """A log below root's directories arrives as a descriptor; after a rename and `reopen` lines go to a new file."""
    directory = Path("/var/log") / f"perchild-test-{os.getpid()}"
    directory.mkdir(mode=0o755)
    try:
        config = default_config(tmp_path)
        config["tenants"][1]["logs"] = [str(directory / "access.log"), str(tmp_path / "own.log")]
        with run_lab(tmp_path, config) as lab:
            answer = lab.get("alice log one")
            assert answer["logs"][0] >= 0
            assert answer["logs"][1] == -1  # below a directory that others can write to: the tenant opens it
            (directory / "access.log").rename(directory / "access.log.1")
            assert lab.ask("reopen")["ok"]
            lab.wait((directory / "access.log").exists)
            pid = lab.get("alice")["pid"]
            assert pid == answer["pid"]
            lab.get("alice log two")
            assert (directory / "access.log.1").read_text() == "one\n"
            assert (directory / "access.log").read_text() == "two\n"
            assert (directory / "access.log").stat().st_mode & 0o777 == 0o640
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_plan_that_needs_too_many_descriptors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit of descriptors: refused with the numbers and the remedy, and the server goes on."""
    monkeypatch.setattr(Sys, "raise_nofile", lambda _self: 320)
    with run_lab(tmp_path) as lab:
        good = list(lab.config["tenants"])
        lab.config["tenants"] += [tenant(f"t{number}", 10 + number) for number in range(200)]
        answer = lab.reload()
        assert not answer["ok"]
        assert "203 identities need" in answer["text"]
        assert "the limit is 320: raise LimitNOFILE=" in answer["text"]
        lab.config["tenants"] = good
        assert lab.reload()["ok"]
        assert lab.get("alice")["name"] == "alice"


def test_reload_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compile that never ends is killed at its limit; the server answers meanwhile and goes on."""
    monkeypatch.setattr(compiling, "LIMIT_S", 4.0)

    def hang(request: Any, known: Any) -> Any:
        if request.generation > 1:
            signal.pause()
        return toy_compile(request, known)

    with run_lab(tmp_path, compiler=hang) as lab:
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(lab.ask("graceful")))
        thread.start()
        assert lab.get("bob")["name"] == "bob"
        thread.join()
        assert "was ended by signal 9" in answers[0]["text"]
        assert lab.get("bob")["name"] == "bob"
