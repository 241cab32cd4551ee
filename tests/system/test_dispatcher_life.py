"""The dispatcher with real forks: start, the three kinds of children, and the end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from dispatcher_lab import BASE_UID, Lab, default_config, read_answer, run_lab, tenant, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]


def test_each_kind_of_child_serves_under_its_own_uid(tmp_path: Path) -> None:
    """Unassigned, fixed and on-demand identities answer through one port, each under its uid."""
    with run_lab(tmp_path) as lab:
        answers = {name: lab.get(name) for name in ("main", "alice", "bob")}
        assert {name: answer["uid"] - BASE_UID for name, answer in answers.items()} == {"main": 0, "alice": 1, "bob": 2}


def test_on_demand_child_is_not_there_before_its_first_connection(tmp_path: Path) -> None:
    """An on-demand identity has no process until a connection lies in its inbox, and one after it."""
    with run_lab(tmp_path) as lab:
        assert lab.members()["bob"]["children"] == []
        pid = lab.get("bob")["pid"]
        assert lab.get("bob")["pid"] == pid


def test_tenants_children_hold_only_what_scope_unassigned_allows(tmp_path: Path) -> None:
    """Without a listener, without the route table, and of the inboxes only the unassigned children's and their own."""
    with run_lab(tmp_path) as lab:
        for name in ("alice", "bob"):
            answer = lab.get(name)
            assert (answer["listeners"], answer["routes"], answer["inboxes"]) == (0, 0, [0])
        main = lab.get("main")
        assert (main["listeners"], main["routes"], main["inboxes"]) == (1, 3, [0, 1, 2])


def test_fixed_children_accept_under_scope_any_and_on_demand_ones_do_not(tmp_path: Path) -> None:
    """AcceptScope any gives fixed children the listeners and every inbox; on-demand children never listen."""
    config = {**default_config(tmp_path), "scope": "any"}
    with run_lab(tmp_path, config) as lab:
        assert lab.get("alice")["listeners"] == 1
        assert lab.get("alice")["inboxes"] == [0, 1, 2]
        assert lab.get("bob")["listeners"] == 0


def test_stop_ends_everything_and_removes_its_files(tmp_path: Path) -> None:
    """SIGTERM: exit status 0, no child, no pid file, no control socket; AH00169 in the log."""
    with run_lab(tmp_path) as lab:
        lab.get("bob")
        assert (tmp_path / "run/pid").read_text() == f"{lab.pid}\n"
        lab.signal(signal.SIGTERM)
        assert lab.join() == 0
        assert not (tmp_path / "run/pid").exists()
        assert not (tmp_path / "run/control.sock").exists()
        assert "[mpm_perchild:notice]" in lab.log()
        assert "AH00489: perchildd/test configured -- resuming normal operations" in lab.log()
        assert "AH00169: caught SIGTERM, shutting down" in lab.log()


def is_refused(lab: Lab) -> bool:
    try:
        lab.connect("main").close()
    except ConnectionRefusedError:
        return True
    except ConnectionError:  # the listener was closed between the handshake and what was sent
        return False
    return False


def test_graceful_stop_serves_what_was_accepted(tmp_path: Path) -> None:
    """SIGWINCH: no new connection, an open one goes on, the server ends when it is closed."""
    with run_lab(tmp_path) as lab:
        conn = lab.connect("bob hold")
        assert read_answer(conn)["name"] == "bob"
        lab.signal(signal.SIGWINCH)
        wait_until(lambda: "AH00170" in lab.log())
        wait_until(lambda: is_refused(lab))  # the last child lets go of the listener when it has read its message
        assert not (tmp_path / "run/pid").exists()
        conn.sendall(b"again\n")
        assert conn.recv(100) == b"still here\n"
        conn.close()
        assert lab.join() == 0


@pytest.mark.parametrize("scope", ["any", "unassigned"])
def test_graceful_stop_serves_what_comes_back_after_the_last_unassigned_child(tmp_path: Path, scope: str) -> None:
    """A tenant hands a connection back when nobody accepts any more: it is served, its server does not accept, and the stop ends."""
    with run_lab(tmp_path, {**default_config(tmp_path), "scope": scope}) as lab:
        conn = lab.connect("bob hold")
        assert read_answer(conn)["name"] == "bob"
        pids = lab.pids("main")
        lab.signal(signal.SIGWINCH)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        conn.sendall(b"pass 0\n")
        conn.sendall(b"main\n")
        with conn:
            answer = read_answer(conn)
        assert (answer["name"], answer["listeners"]) == ("main", 0)
        assert answer["pid"] not in pids
        wait_until(lambda: os.waitid(os.P_PID, lab.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        assert lab.join() == 0


def test_graceful_stop_is_cut_off_at_its_timeout(tmp_path: Path) -> None:
    """GracefulShutdownTimeout: after it, children that still hold a connection are ended."""
    config = {**default_config(tmp_path), "graceful_s": 1}
    with run_lab(tmp_path, config) as lab, lab.connect("bob hold") as conn:
        assert read_answer(conn)["name"] == "bob"
        lab.signal(signal.SIGWINCH)
        assert lab.join() == 0
        assert conn.recv(1) == b""


def test_start_fails_with_the_diagnostics_of_compile(tmp_path: Path) -> None:
    """A configuration with errors: exit status 1, its text, and nothing left behind."""
    with pytest.raises(AssertionError, match="AH00526: Syntax error"), run_lab(tmp_path, {
            **default_config(tmp_path), "error": "Invalid command 'Foo'"}):
        pass
    assert not (tmp_path / "run").exists()


def test_start_fails_when_the_address_is_taken(tmp_path: Path) -> None:
    """AH00072 names the address and where it was configured; exit status 1."""
    with run_lab(tmp_path / "one" if (tmp_path / "one").mkdir() is None else tmp_path) as lab:
        (tmp_path / "two").mkdir()
        config = {**default_config(tmp_path / "two"), "ports": lab.config["ports"]}
        with pytest.raises(AssertionError, match=f"AH00072: make_sock: could not bind to address 127.0.0.1:{lab.port}"), \
                run_lab(tmp_path / "two", config):
            pass


def test_start_ends_when_unassigned_children_cannot_drop(tmp_path: Path) -> None:
    """The first unassigned child fails in the drop: the server exits with 1 and says which step it was."""
    config = default_config(tmp_path)
    config["tenants"][0] = tenant("main", 666, "unassigned")
    with pytest.raises(AssertionError, match="uid failed"), run_lab(tmp_path, config):
        pass
