"""Restarts and stops while clients run: a graceful one fails no request, none loses a line of an answer, nothing grows."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Callable

import pytest

from perchild.control.client import ask_server
from tests.boundary import procs
from tests.lab import Lab, is_alive, tree_of, wait_until
from tests.load import Download, Load, Report, reconcile, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1200),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
IS_LONG = bool(os.environ.get("PERCHILD_LONG"))
RESTARTS = 1000 if IS_LONG else 80 if os.environ.get("PERCHILD_TEST_H2") else 200  # where clients are slower
NAMES = ("alice", "bob", "carol")
CLIENTS = 60


def check_lines(lab: Lab, report: Report) -> None:
    """Check that every answered request stands in the log once, in a whole line."""
    account = reconcile(report, [lab.log / "access.log"])
    assert not account.missing, f"{len(account.missing)} of {len(report.answers)}: {account.missing[:5]}"
    assert not account.doubled
    assert not account.torn
    assert not account.wrong
    assert not account.unasked


def check_all(lab: Lab, report: Report) -> None:
    """Check that every request was answered with the host's own secret and stands in the log once."""
    assert not report.bad(), f"{report.summary()}: {report.bad()[:5]}"
    check_lines(lab, report)


def generation(lab: Lab) -> int:
    """Return the number of the plan in force."""
    return int(lab.status()["generation"])


def is_settled(lab: Lab) -> bool:
    """Whether no reload is in progress."""
    return bool(lab.status()["state"] == "running")


def sizes(lab: Lab) -> tuple[int, int]:
    """Return the dispatcher's number of descriptors and its resident memory in KB."""
    return len(procs.descriptors(lab.pid)), int(procs.read_status(lab.pid)["VmRSS"].split()[0])


def signal_graceful(lab: Lab) -> None:
    """Ask for a graceful restart by a signal and wait until its plan is in force."""
    before = generation(lab)
    os.kill(lab.pid, signal.SIGUSR1)
    wait_until(lambda: generation(lab) > before and is_settled(lab), "the graceful restart is done", 30)


def ask_graceful(lab: Lab) -> None:
    """The same as perchildctl does."""
    answer = ask_server(str(lab.run), {"op": "graceful"})
    assert answer["ok"], answer


def alternate(lab: Lab, nth: int) -> None:
    """Change every host's part of the configuration, so that every tenant's child is replaced."""
    lab.host_config = f"Header set X-Turn turn{nth}"
    lab.write_config()


def wake_all(lab: Lab) -> list[int]:
    """Have every tenant's child started; return the unassigned children's pids when they are all there and hold no connection."""
    for tenant in lab.tenants.values():
        assert lab.get(tenant.host).status == 200
    pids = wait_until(lambda: len(found := lab.children(lab.user_uid)) == 2 and found, "both unassigned children are there")
    wait_until(lambda: not any(procs.counter(lab, pid, "connections") for pid in pids), "they hold no connection")
    return pids


def count_descriptors(pids: tuple[int, ...]) -> dict[int, int]:
    """Return how many descriptors each has, but for pages: an identity keeps as many as it has ever had children at a time."""
    return {pid: sum("perchild-page" not in target for target in procs.lasting_descriptors(pid).values()) for pid in pids}


def check_flat(values: list[int], slack: int) -> None:
    """Check that the last quarter is no larger than the second but for `slack`."""
    quarter = len(values) // 4
    assert statistics.median(values[-quarter:]) <= statistics.median(values[quarter:2 * quarter]) + slack, values


@pytest.mark.parametrize("is_changing", [False, True], ids=["unchanged", "changing"])
@pytest.mark.parametrize("how", [signal_graceful, ask_graceful])
def test_graceful_restarts_lose_nothing(how: Callable[[Lab], None], *, is_changing: bool) -> None:
    """200 graceful restarts in four ways, children replaced or not: no request fails, descriptors and memory stay."""
    with Lab("NumServers 2\nKeepAliveTimeout 2\n", names=NAMES) as lab:
        lab.start()
        secrets = write_secrets(lab)
        watched = (lab.pid, *wake_all(lab))
        fds_before = count_descriptors(watched)
        with Load(lab, secrets, clients=CLIENTS, pace_s=0.1) as load:
            load.wait_answers(CLIENTS * 3)
            pids_before = set(lab.children())
            grown = []
            for nth in range(RESTARTS // 4):
                if is_changing:
                    alternate(lab, nth)
                how(lab)
                load.wait_answers(1)
                grown.append(sizes(lab))
            replaced = len(pids_before - set(lab.children()))
            report = load.stop()
        assert generation(lab) == RESTARTS // 4 + 1
        assert replaced == (len(NAMES) if is_changing else 0)
        wait_until(lambda: count_descriptors(watched) == fds_before,
                   "replaced children have ended, and as many descriptors are open as before", 20)
        lab.stop()
        check_all(lab, report)
        print(f"{len(report.answers)} requests, dispatcher: {grown[0]} -> {grown[-1]} (descriptors, KB)")
        check_flat([fds for fds, _ in grown], 9)
        check_flat([rss_kb for _, rss_kb in grown], 1024)


def test_restart_by_force_replaces_every_child_and_loses_no_line() -> None:
    """HUP: every child is another one, what they cut off is no more than what was under way, every answer is in the log."""
    with Lab("NumServers 2\n", names=NAMES) as lab:
        lab.start()
        with Load(lab, write_secrets(lab), clients=CLIENTS, pace_s=0.05) as load:
            for _ in range(5):
                load.wait_answers(CLIENTS * 3)
                before, old = generation(lab), lab.children()
                os.kill(lab.pid, signal.SIGHUP)
                wait_until(lambda before=before: generation(lab) > before and is_settled(lab), "the restart is done", 30)
                wait_until(lambda old=old: not any(is_alive(pid) for pid in old), "the old children have ended")
            load.wait_answers(CLIENTS, of=lambda one: one.is_good)
            report = load.stop()
        lab.stop()
        check_lines(lab, report)
        assert all(one.error for one in report.bad()), report.summary()
        assert len(report.bad()) <= 5 * CLIENTS


def test_stop_under_load_loses_no_line_of_an_answer() -> None:
    """TERM in the middle of everything: who got an answer stands in the log."""
    with Lab("NumServers 2\n", names=NAMES) as lab:
        for _ in range(3):
            lab.start()
            with Load(lab, write_secrets(lab), clients=CLIENTS, pace_s=0.02, name=f"r{lab.pid}") as load:
                load.wait_answers(CLIENTS * 5)
                lab.stop()
                report = load.stop()
            check_lines_of(lab, report, load.name)


def check_lines_of(lab: Lab, report: Report, name: str) -> None:
    """check_lines for one of several loads."""
    path = lab.log / "access.log"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if f"?id={name}-" in line or "?id=" not in line))
    check_lines(lab, report)


def test_graceful_stop_finishes_a_slow_download_first() -> None:
    """WINCH: nobody new is served, a download in the middle is finished to the last byte, then all end; it is in the log."""
    with Lab("Timeout 20\n", names=NAMES) as lab:
        size = 8 << 20
        lab.tenants["alice"].write("big.bin", b"x" * size)
        lab.start()
        download = Download(lab, "alice.test", "/big.bin?id=big-1")
        pids = tree_of(lab.pid)
        os.kill(lab.pid, signal.SIGWINCH)
        wait_until(lambda: not accepts(lab), "no listener is open any more")
        assert is_alive(lab.pid)
        response = download.finish()
        assert (response.status, len(response.body)) == (200, size)
        assert lab.process is not None
        assert lab.process.wait(timeout=60) == 0
        lab.process.communicate()
        lab.process = None
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "all have ended")
        assert "?id=big-1" in (lab.log / "access.log").read_text()


def accepts(lab: Lab) -> bool:
    """Whether a new connection is taken."""
    try:
        lab.connect().close()
    except OSError:
        return False
    return True


def test_stop_does_not_wait_for_ever_for_a_child_that_ignores_everything() -> None:
    """TERM while one child stands still: the others end at once, that one is killed after nine seconds, and it is said so."""
    with Lab(names=NAMES) as lab:
        lab.start()
        for name in NAMES:
            assert lab.get(f"{name}.test").status == 200
        stuck, = lab.children(lab.tenants["bob"].uid)
        rest = [pid for pid in lab.children() if pid != stuck]
        os.kill(stuck, signal.SIGSTOP)
        wait_until(lambda: procs.is_stopped(stuck), "it stands still")
        os.kill(lab.pid, signal.SIGTERM)
        wait_until(lambda: not any(is_alive(pid) for pid in rest), "the others end at once", 8)
        assert is_alive(stuck)
        lab.stop()
        log = lab.error_log()
        assert log.count(f"AH00045: child process {stuck} still") == 3
        assert f"AH00046: child process {stuck} still did not exit, sending a SIGKILL" in log
