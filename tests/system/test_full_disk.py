"""A disk without room under the logs: every request is served, every line that is lost is counted, and logging goes on later."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boundary import procs
from tests.lab import Lab, wait_until
from tests.load import Load, reconcile, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
ROOM_KB = 1024
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of ROOM_KB at `path`, gone at the end."""
    if _libc.mount(b"tmpfs", bytes(path), b"tmpfs", 0, f"size={ROOM_KB}k,mode=755".encode()) != 0:
        pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        assert _libc.umount2(bytes(path), 0) == 0, os.strerror(ctypes.get_errno())


def fill(path: Path) -> Path:
    """Take all the room that is left."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def is_full(path: Path) -> bool:
    """Whether there is no room at all."""
    return os.statvfs(path).f_bfree == 0


def lost(lab: Lab) -> int:
    """Return how many lines the children say they have lost."""
    return sum(procs.counter(lab, pid, "log_lost") for pid in lab.children())


def test_full_disk_under_the_logs_costs_counted_lines_and_nothing_else() -> None:
    """The access log's disk is full from the middle of a load on: all is served; lost and written lines add up to the answers."""
    with Lab("NumServers 2\n", names=("alice", "bob", "carol")) as lab:
        disk = lab.base / "disk"
        disk.mkdir()
        with small_disk(disk), contextlib.ExitStack() as stack:
            lab.config += f"CustomLog {disk}/small.log combined\n"
            lab.start()
            stack.callback(lab.stop)
            with Load(lab, write_secrets(lab), clients=100, pace_s=0.05) as load:
                load.wait_answers(100)
                filler = fill(disk)
                load.wait_answers(1000)
                wait_until(lambda: lost(lab) > 0, "lines are lost")
                load.wait_answers(100)
                filler.unlink()
                load.wait_answers(1)
                wait_until(lambda: "small.log goes on" in lab.error_log(), "logging goes on")
                load.wait_answers(100)
                report = load.stop()
            wait_until(lambda: all(procs.counter(lab, pid, "connections") == 0 for pid in lab.children()), "all is accounted for")
            children = len(lab.children())
            pages = {pid: procs.open_page(lab, pid) for pid in lab.children()}
            stack.pop_all()
            lab.stop()
            counted = 0
            for fd in pages.values():
                counted += procs.wire_page.decode_page(os.pread(fd, procs.wire_page.PAGE_BYTES, 0)).counters["log_lost"]
                os.close(fd)
            assert not report.bad(), report.summary()
            account = reconcile(report, [disk / "small.log"])
            print(f"{len(report.answers)} answers, {len(account.missing)} lines missing, {counted} counted, {len(account.torn)} torn")
            assert account.missing
            # A line of which a part was written when the disk became full may be cut in two by another child's line.
            assert len(account.torn) <= 2 * children
            assert counted <= len(account.missing) <= counted + len(account.torn)
            assert not account.doubled
            assert not account.wrong
            assert re.search(r"writing the access log \S+small.log fails: No space left on device; \d+ lines lost so far; still serving",
                             lab.error_log())
            check_other_log(lab, report)


def check_other_log(lab: Lab, report: object) -> None:
    """The log on the other disk has everything."""
    account = reconcile(report, [lab.log / "access.log"])
    assert not account.missing
    assert not account.torn


def test_log_that_is_dev_full_is_survived() -> None:
    """CustomLog /dev/full: every request is served, every line counted, the dispatcher's stop is clean."""
    with Lab("CustomLog /dev/full combined\n", names=("alice",)) as lab:
        lab.start()
        with Load(lab, write_secrets(lab), clients=50, pace_s=0.02) as load:
            load.wait_answers(500)
            report = load.stop()
        assert not report.bad(), report.summary()
        wait_until(lambda: lost(lab) > 0, "lines are lost")
        assert "/dev/full fails: No space left on device" in lab.error_log()
        lab.stop()
        check_other_log(lab, report)


def test_lines_that_are_lost_are_counted_to_the_last() -> None:
    """Those too that still wait for room when their child ends."""
    with Lab("CustomLog /dev/full combined\n", names=("alice",)) as lab:
        lab.start()
        assert [lab.get("alice.test").status for _ in range(20)] == [200] * 20
        pid, = lab.children(lab.tenants["alice"].uid)
        fd = procs.open_page(lab, pid)
        lab.stop()
        page = procs.wire_page.decode_page(os.pread(fd, procs.wire_page.PAGE_BYTES, 0))
        os.close(fd)
        assert page.counters["log_lost"] == 20


def test_full_disk_under_the_error_log_is_survived() -> None:
    """Nowhere to complain, and every request would: all are answered, a reload works, a killed child is replaced."""
    with Lab(names=("alice", "bob")) as lab, small_disk(lab.log):
        lab.config += "LogLevel debug\n"
        with contextlib.ExitStack() as stack:
            lab.start()
            stack.callback(lab.stop)
            fill(lab.log)
            for _ in range(300):
                assert lab.get("alice.test", "/not-there").status == 404
            assert is_full(lab.log)
            assert lab.reload()["ok"]
            pid, = lab.children(lab.tenants["alice"].uid)
            os.kill(pid, 9)
            assert lab.get("alice.test").status == 200
            (lab.log / "filler").unlink()
            assert lab.reload()["ok"]
            wait_until(lambda: "AH00171" in lab.error_log() or "resuming normal operations" in lab.error_log(), "it is written again")
