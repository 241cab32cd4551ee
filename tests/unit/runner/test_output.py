"""What services print: bounded, one line each, with the level that it says it has, in the log that is there now.

Runs as: any user.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from perchild.runner import output
from perchild.runner.kernel import answer
from perchild.runner.log import Log
from perchild.runner.loop import READ, Loop
from perchild.runner.output import HostLog, Output, find_level


class Lines(HostLog):
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(Log("x"), "", 0)
        self.lines: list[tuple[str, str]] = []

    def say(self, level: str, text: str) -> None:
        """Keep it."""
        self.lines.append((level, text))


def open_fds() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("line", "level"), [
    (b"[2026-11-21 01:03:00 +0000] [7] [INFO] Booting worker with pid: 7", "info"),
    (b"INFO:     Started server process [7]", "info"),
    (b"[21-Nov-2026 01:03:00] WARNING: [pool php] server reached max_children setting", "warn"),
    (b"[21-Nov-2026 01:03:00] NOTICE: fpm is running, pid 7", "notice"),
    (b"ERROR:root:it broke", "error"),
    (b"2026-11-21 01:03:00 CRITICAL: it burns", "crit"),
    (b"level=info", "notice"), (b"12 errors were found", "notice"), (b"Traceback (most recent call last):", "notice"),
    (b"x" * 100 + b" ERROR: far behind", "notice"), (b"", "notice"), (b"\xff\xfe [debug] y", "debug"),
])
def test_a_line_has_the_level_that_it_names(line: bytes, level: str) -> None:
    assert find_level(line) == level


def test_a_pipe_that_is_filled_as_fast_as_it_is_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever left the service's session may hold it still, and write for ever."""
    one = Output(Loop(), Lines(), "app0")
    read = []

    def flood(_fd: int, size: int) -> bytes:
        read.append(size)
        assert len(read) < 1000, "it reads for ever"
        return b"x" * size
    monkeypatch.setattr(os, "read", flood)
    one.close()
    monkeypatch.undo()
    assert len(read) == output.CLOSE_READS


def test_an_event_without_anything_to_read_is_no_end() -> None:
    """The pipe stays open, and its next line is logged."""
    log, loop = Lines(), Loop()
    one = Output(loop, log, "app0")
    one._on_event(READ)
    os.write(one.write_fd, b"late\n")
    loop.run_once()
    one.close()
    assert log.lines == [("notice", "app0: late")]


def test_the_bytes_that_are_logged_are_bounded() -> None:
    """Long lines, and short ones, and those that grow fourfold when they are escaped."""
    for text in (b"x" * 1900, b"y", b"\0" * 1500):
        log = Lines()
        one = Output(Loop(), log, "app0")
        for _ in range(20_000):
            one._say(text)
        one.close()
        assert sum(len(line) for _, line in log.lines) < 2 * output.BURST_BYTES
        assert len(log.lines) < 5000
        assert "lines were left out" in log.lines[-1][1]


def test_a_pipe_that_cannot_be_watched_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC: the user's programs have used up its epoll watches."""
    loop, before = Loop(), open_fds()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(loop, "watch", refuse)
    with pytest.raises(OSError, match="No space"):
        Output(loop, Lines(), "app0")
    assert open_fds() == before


def test_a_rotated_log_is_left_for_the_new_one(tmp_path: Path) -> None:
    """Lines go to the file that the path leads to; while there is none, to the old one."""
    path = tmp_path / "own.log"
    path.touch()
    log = HostLog(Log("x"), str(path), os.getuid())
    log.refresh()
    log.say("notice", "first")
    path.rename(tmp_path / "own.log.1")
    log.refresh()
    log.say("notice", "second")
    path.touch()
    log.refresh()
    log.say("notice", "third")
    log.close()
    assert ["first" in path.read_text(), "second" in path.read_text(), "third" in path.read_text()] == [False, False, True]
    assert "second" in (tmp_path / "own.log.1").read_text()


def test_a_line_of_json_is_one_object(tmp_path: Path) -> None:
    """Whatever a program prints."""
    with (tmp_path / "log").open("ab") as file:
        Log("alice", file.fileno(), is_json=True).say("error", 'x\n{"level": "none"}\x1b\udcff' + "y" * 5000)
    line, = (tmp_path / "log").read_text().splitlines()
    found = json.loads(line)
    assert (found["level"], found["module"], found["event"][:10]) == ("error", "runner", "alice: x\n{")
    assert set(found) == {"event", "level", "module", "pid", "tid", "timestamp"}


def test_what_is_sent_in_place_of_a_socket_is_closed() -> None:
    """A child that was taken over sends a WAKE with anything."""
    before = open_fds()
    answer(os.open("/dev/null", os.O_RDWR), "ok")
    reader, writer = os.pipe()
    answer(reader, "ok")
    os.close(writer)
    assert open_fds() == before
