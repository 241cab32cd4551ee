"""Children that die, hang, lie or break what they hold: what the dispatcher does about it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from dispatcher_lab import BASE_UID, Lab, default_config, forge_load, read_answer, run_lab, tenant

from tests.boundary.procs import descriptors

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]


def test_killed_fixed_child_is_replaced_and_reaped(tmp_path: Path) -> None:
    """kill -9: a successor with another pid serves, and no zombie is left."""
    with run_lab(tmp_path) as lab:
        pid = lab.get("alice")["pid"]
        os.kill(pid, signal.SIGKILL)
        lab.wait(lambda: lab.pids("alice") not in ({pid}, set()))
        assert lab.get("alice")["pid"] != pid
        assert not Path(f"/proc/{pid}").exists()
        assert "exit signal Killed (9)" in lab.log()


def test_connection_queued_at_a_kill_is_served_by_the_successor(tmp_path: Path) -> None:
    """A stopped child is killed with connections in its inbox: all of them are answered by its successor."""
    with run_lab(tmp_path) as lab:
        pid = lab.get("bob")["pid"]
        os.kill(pid, signal.SIGSTOP)
        conns = [lab.connect("bob") for _ in range(20)]
        lab.wait(lambda: lab.get("main")["uid"] > 0)  # the accepting child has gone through all of them
        os.kill(pid, signal.SIGKILL)
        answers = [read_answer(conn) for conn in conns]
        assert all(answer.get("name") == "bob" and answer["pid"] != pid for answer in answers)
        for conn in conns:
            conn.close()


def test_burst_on_a_sleeping_identity_forks_one_child(tmp_path: Path) -> None:
    """Fifty connections at once to an on-demand identity are served by one process."""
    with run_lab(tmp_path) as lab:
        conns = [lab.connect("bob") for _ in range(50)]
        assert len({read_answer(conn)["pid"] for conn in conns}) == 1
        lab.wait(lambda: "of bob started" in lab.log())  # which is said when it may have served already
        assert lab.log().count("of bob started") == 1
        for conn in conns:
            conn.close()


def test_on_demand_child_that_ends_idle_is_forked_again_without_a_complaint(tmp_path: Path) -> None:
    """MSG_IDLE and exit 0 are no failure; the next connection is served by a new child."""
    with run_lab(tmp_path) as lab:
        pid = lab.get("bob")["pid"]
        assert lab.get("bob idle") == {}
        lab.wait(lambda: not lab.members()["bob"]["children"])
        assert lab.get("bob")["pid"] != pid
        assert "ended with status" not in lab.log()


def test_child_that_dies_young_is_held_back_and_others_are_not(tmp_path: Path) -> None:
    """A child that never becomes ready is started again a few times, then once in a while; other identities serve."""
    config = default_config(tmp_path)
    config["tenants"].append(tenant("never-ready", 4, "fixed"))
    with run_lab(tmp_path, config) as lab:
        lab.wait(lambda: lab.members()["never-ready"]["is_held_back"])
        starts = lab.log().count("of never-ready started")
        assert 3 <= starts <= 6
        assert lab.get("alice")["name"] == "alice"
        assert "(never-ready) ended with status 3 before it was ready" in lab.log()


def test_failed_drop_names_the_step_and_the_server_goes_on(tmp_path: Path) -> None:
    """A tenant's child that cannot become its uid is told with uid and step; the others serve."""
    config = default_config(tmp_path)
    config["tenants"].append(tenant("carol", 666))
    with run_lab(tmp_path, config) as lab:
        conn = lab.connect("carol")
        lab.wait(lambda: f"could not become carol (uid {BASE_UID + 666}): uid failed" in lab.log())
        assert lab.get("alice")["name"] == "alice"
        conn.close()


@pytest.mark.parametrize("raw", ["0300", "02000000" + "00000000", "ff00000000000000", "0301000000000000", "01" + "00" * 7, "00" * 9])
def test_child_that_breaks_the_protocol_is_killed(tmp_path: Path, raw: str) -> None:
    """Wrong length, wrong kind, wrong phase: killed, replaced, the server goes on."""
    with run_lab(tmp_path) as lab:
        pid = lab.get("alice")["pid"]
        assert lab.get(f"alice control {raw}") == {}
        lab.wait(lambda: lab.pids("alice") not in ({pid}, set()))
        assert f"child {pid} broke the protocol" in lab.log()
        assert lab.get("alice")["name"] == "alice"


def test_load_of_a_tenant_does_not_change_the_number_of_unassigned_children(tmp_path: Path) -> None:
    """Counts feed the unassigned children only, and are clamped."""
    with run_lab(tmp_path, {**default_config(tmp_path), "mpm": "worker", "scale": (1, 1, 5, 8, 1, 8)}) as lab:
        lab.get(f"alice control {forge_load(65535, 0xFFFFFFFF)}")
        child = lab.members()["alice"]["children"][0]
        lab.wait(lambda: lab.members()["alice"]["children"][0]["busy"] == 1024)
        assert child["pid"] in lab.pids("alice")
        assert len(lab.pids("main")) == 1


def test_busy_unassigned_children_get_company_exponentially(tmp_path: Path) -> None:
    """prefork: without an idle child, more are started each second, up to the limit; then it is said once."""
    with run_lab(tmp_path, {**default_config(tmp_path), "mpm": "prefork", "scale": (1, 1, 2, 4, 1, 4)}) as lab:
        for _ in range(4):
            assert lab.get("main busy") == {}  # who is busy accepts nothing: this waits for a child that is not
        lab.wait(lambda: len(lab.pids("main")) == 4 and "AH00161" in lab.log())
        lab.wait(lambda: [child["busy"] for child in lab.members()["main"]["children"]] == [1] * 4)
        assert lab.log().count("AH00161") == 1


def test_shut_down_listener_listens_again(tmp_path: Path) -> None:
    """A child that holds the listener shuts it down: within about a second connections are accepted again."""
    with run_lab(tmp_path, {**default_config(tmp_path), "scope": "any"}) as lab:
        lab.get("main deaf")

        def answers() -> bool:
            try:
                return lab.get("main").get("name") == "main"
            except ConnectionRefusedError:
                return False

        lab.wait(answers)
        lab.wait(lambda: "listening again" in lab.log())  # which is said behind it


def test_shut_down_inbox_is_replaced(tmp_path: Path) -> None:
    """A child that shuts its identity's inbox down breaks nothing for long: a new inbox and a new child take over."""
    with run_lab(tmp_path) as lab:
        pid = lab.get("alice")["pid"]
        lab.get("alice break-inbox")
        lab.wait(lambda: lab.pids("alice") not in ({pid}, set()))
        assert lab.get("alice")["name"] == "alice"
        assert "the inbox of alice was shut down" in lab.log()


def test_children_end_when_the_dispatcher_is_killed(tmp_path: Path) -> None:
    """kill -9 of the dispatcher: the control pair closes, and no child outlives it."""
    with run_lab(tmp_path) as lab:
        pids = lab.pids("main") | lab.pids("alice")
        os.kill(lab.pid, signal.SIGKILL)
        assert lab.join() == -signal.SIGKILL
        lab.wait(lambda: not any(_is_running(pid) for pid in pids))


def _is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_child_has_no_descriptor_but_those_of_its_spec(tmp_path: Path) -> None:
    """A tenant's child holds record, types, page, and three sockets: control, inbox, the unassigned children's inbox."""
    with run_lab(tmp_path) as lab:
        answer = lab.get("alice")
        pid = answer["pid"]
        lab.wait(lambda: not any(_is_tcp(pid, link) for link in descriptors(pid).values()))  # it has let go of the connection
        links = list(descriptors(pid).values())
        memfds = sorted(link.partition("memfd:")[2].split()[0] for link in links if "memfd:" in link)
        assert memfds == ["perchild-page", "perchild-types"]
        assert len([link for link in links if "/run/" in link]) == 1  # its record
        sockets = [link for link in links if link.startswith("socket:")]
        assert not any(_is_tcp(pid, link) for link in sockets)
        assert len(sockets) == 3


def _is_tcp(pid: int, link: str) -> bool:
    inode = link[len("socket:[") : -1]
    return any(line.split()[9] == inode for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])


def test_second_on_demand_child_is_forked_for_a_crowded_inbox_up_to_its_number(tmp_path: Path) -> None:
    """children=2: while the one child is stopped and its inbox not empty, a second one serves, and no third."""
    config = default_config(tmp_path)
    config["tenants"][2]["children"] = 2
    with run_lab(tmp_path, config) as lab:
        pid = lab.get("bob")["pid"]
        os.kill(pid, signal.SIGSTOP)
        conn = lab.connect("bob")
        assert read_answer(conn)["pid"] != pid
        assert len(lab.members()["bob"]["children"]) == 2
        os.kill(pid, signal.SIGCONT)
        conn.close()


def test_dispatcher_leaks_no_descriptor(tmp_path: Path) -> None:
    """After children were killed, replaced and reloaded many times, the dispatcher holds no more descriptors than after the first time.

    The first reload leaves a page for each identity, of the child that was there beside its successor: the next one goes on with it.
    """
    with run_lab(tmp_path) as lab:
        lab.get("bob")
        before = 0
        for number in range(6):
            assert lab.get("bob idle") == {}
            lab.wait(lambda: not lab.members()["bob"]["children"])
            lab.get("bob")
            lab.config["tenants"][1]["hosts"].append(f"h{number}")
            assert lab.reload()["ok"]
            if number == 0:
                lab.wait(lambda: len(lab.members()["alice"]["children"]) == len(lab.members()["bob"]["children"]) == 1)
                before = _count_fds(lab)
        lab.wait(lambda: len(lab.members()["alice"]["children"]) == 1)
        lab.wait(lambda: _count_fds(lab) <= before)  # fewer, if the first reload was not quite over then


def _count_fds(lab: Lab) -> int:
    with socket.socket():
        return len(os.listdir(f"/proc/{lab.pid}/fd"))
