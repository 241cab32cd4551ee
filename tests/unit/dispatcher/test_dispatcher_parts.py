"""Signals, damping, pid file, inbox, listeners, logs and events, each alone and without root."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild import limits
from perchild.dispatcher import inbox, pidfile, signals
from perchild.dispatcher.errors import BindError, PidFileError
from perchild.dispatcher.events import Events, escape_text
from perchild.dispatcher.listen import Listeners
from perchild.dispatcher.logs import UnsafePathError, open_log, open_logs
from perchild.dispatcher.signals import STEPS, Escalation, SignalQueue
from perchild.dispatcher.state import Damping
from perchild.wire.plan import Listener
from tests.lab import free_port

# ---------------------------------------------------------------- signals


def test_escalation_takes_httpds_steps_at_httpds_times() -> None:
    """TERM at 0, 3, 5, 7 s, KILL at 9 s, given up at 10 s; each step once."""
    escalation = Escalation(100.0)
    seen = []
    for tenth in range(111):
        seen += [(tenth / 10, step.signal, step.code) for step in escalation.due(100.0 + tenth / 10)]
    assert seen == [(0.0, 15, ""), (3.0, 15, "AH00045"), (5.0, 15, "AH00045"), (7.0, 15, "AH00045"), (9.0, 9, "AH00046"), (10.0, 0, "AH00047")]
    assert escalation.is_over
    assert escalation.deadline_s() is None


def test_escalation_gives_all_steps_that_were_missed() -> None:
    """A clock that jumps loses no step."""
    escalation = Escalation(0.0)
    assert escalation.deadline_s() == 0.0
    assert escalation.due(9.5) == STEPS[:5]
    assert escalation.deadline_s() == 10.0


def test_signals_are_queued_in_order() -> None:
    """Handlers do nothing; the numbers come out of the queue as actions."""
    queue = SignalQueue()
    queue.install()
    try:
        assert queue.take() == ()
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGWINCH, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert queue.take() == (signals.GRACEFUL, signals.RESTART, signals.GRACEFUL_STOP, signals.STOP)
    finally:
        queue.close()


# ---------------------------------------------------------------- damping


def test_damping_blocks_after_a_few_deaths_and_lets_go_in_time() -> None:
    """Death 2 and spawn 1 each second that passes takes one: at ten points no spawn until the surplus is gone."""
    damping = Damping()
    deaths = 0
    while damping.blocked_until_s(50.0) is None:
        damping.add(2.0, 50.0)
        deaths += 1
        if damping.blocked_until_s(50.0) is None:
            damping.add(1.0, 50.0)
    assert deaths == 4
    until = damping.blocked_until_s(50.0)
    assert until is not None
    assert damping.blocked_until_s(until) is None
    assert damping.blocked_until_s(until - 0.02) is not None


# ---------------------------------------------------------------- pid file


def test_pid_file_is_written_read_and_removed_by_its_owner_only(tmp_path: Path) -> None:
    """write, read, unclean shutdown noticed, removed only while it names us."""
    path = str(tmp_path / "pid")
    assert pidfile.read_pid(path) is None
    assert not pidfile.write_pid(path, 4711)
    assert pidfile.read_pid(path) == 4711
    assert pidfile.write_pid(path, 4712)
    assert not pidfile.remove_pid(path, 4711)
    assert pidfile.remove_pid(path, 4712)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "abc", "-1", "0", "99999999999", "12 34", "1\x002"])
def test_pid_file_with_nonsense_is_an_error(tmp_path: Path, content: str) -> None:
    """Only a number that can be a pid is taken; -k never signals anything else."""
    (tmp_path / "pid").write_text(content)
    with pytest.raises(PidFileError, match="holds no process id"):
        pidfile.read_pid(str(tmp_path / "pid"))


def test_pid_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Neither reading nor writing goes through a symbolic link."""
    (tmp_path / "target").write_text("77\n")
    (tmp_path / "pid").symlink_to(tmp_path / "target")
    with pytest.raises(PidFileError):
        pidfile.read_pid(str(tmp_path / "pid"))
    pidfile.write_pid(str(tmp_path / "pid"), 5)
    assert (tmp_path / "target").read_text() == "77\n"


def test_pid_of_another_program_is_no_running_server(tmp_path: Path) -> None:
    """A stale pid file that names somebody else's process does not count."""
    (tmp_path / "pid").write_text("1\n")
    assert pidfile.find_running(str(tmp_path / "pid")) is None


# ---------------------------------------------------------------- inbox


def test_inbox_has_its_depth_keeps_borders_and_goes_one_way() -> None:
    """SO_SNDBUF is PC_INBOX_SNDBUF_BYTES, messages stay apart, the read end cannot send."""
    box = inbox.make_inbox()
    reader, writer = socket.socket(fileno=os.dup(box.read_fd)), socket.socket(fileno=os.dup(box.write_fd))
    try:
        assert writer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == limits.value("INBOX_SNDBUF_BYTES")
        assert not inbox.is_waiting(box)
        assert not inbox.is_broken(box)
        writer.send(b"one")
        writer.send(b"two")
        assert inbox.is_waiting(box)
        assert reader.recv(100) == b"one"
        with pytest.raises(BrokenPipeError):
            reader.send(b"back")
        reader.shutdown(socket.SHUT_RD)
        assert inbox.is_broken(box)
    finally:
        reader.close()
        writer.close()
        inbox.close_inbox(box)


# ---------------------------------------------------------------- listeners


def listener(port: int, address: str = "127.0.0.1") -> Listener:
    """Return a Listen."""
    return Listener(4, address, port, 5, 0, 0, "f.conf:3")


def test_listener_is_kept_over_a_change_of_the_others() -> None:
    """The same address keeps its socket; a removed one is closed; a new one is bound."""
    one, two = free_port(), free_port()
    listeners = Listeners()
    listeners.adopt(listeners.prepare([listener(one)]))
    kept = listeners.descriptors()[0]
    listeners.adopt(listeners.prepare([listener(two), listener(one)]))
    assert listeners.descriptors()[1] == kept
    listeners.adopt(listeners.prepare([listener(two)]))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", one))
    listeners.close()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6")
def test_ipv6_listener_takes_no_ipv4() -> None:
    """IPV6_V6ONLY: [::1] and 127.0.0.1 are two listeners on one port."""
    port = free_port()
    listeners = Listeners()
    listeners.adopt(listeners.prepare([Listener(6, "::", port, 0, 0, 0, "f:1"), listener(port)]))
    assert len(listeners.descriptors()) == 2
    socket.create_connection(("::1", port)).close()
    listeners.close()


def test_bind_error_names_address_place_and_remedy_and_leaks_nothing() -> None:
    """AH00072 for a taken port; sockets bound before it are closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, free = taken.getsockname()[1], free_port()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(BindError, match=rf"AH00072: make_sock: could not bind to address 127.0.0.1:{port} \(f.conf:3\).*another program"):
            Listeners().prepare([listener(free), listener(port)])
        assert len(os.listdir("/proc/self/fd")) == before


def test_listener_that_was_shut_down_is_revived_and_made_non_blocking_again() -> None:
    """TCP_INFO says it; listen() again; O_NONBLOCK set again; said once."""
    port = free_port()
    listeners = Listeners()
    listeners.adopt(listeners.prepare([listener(port)]))
    assert listeners.revive() == ()
    with socket.socket(fileno=os.dup(listeners.descriptors()[0])) as held:
        held.shutdown(socket.SHUT_RD)
        held.setblocking(True)
        assert listeners.revive() == (f"127.0.0.1:{port}",)
        assert not os.get_blocking(held.fileno())
    socket.create_connection(("127.0.0.1", port)).close()
    assert listeners.revive() == ()
    listeners.close()


def test_accepted_sockets_acknowledge_with_their_answer() -> None:
    """Also after a revival, which forgets it; what the listener says its sockets inherit."""
    listeners = Listeners()
    listeners.adopt(listeners.prepare([listener(free_port())]))
    with socket.socket(fileno=os.dup(listeners.descriptors()[0])) as held:
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0
        held.shutdown(socket.SHUT_RD)
        assert listeners.revive() != ()
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0
    listeners.close()


# ---------------------------------------------------------------- logs


def test_log_below_a_directory_of_others_is_left_to_the_child(tmp_path: Path) -> None:
    """A sticky /tmp on the way, or a server not started by root: -1."""
    assert open_logs([str(tmp_path / "log")], frozenset(), is_privileged=True) == (-1,)
    assert open_logs(["/dev/null"], frozenset(), is_privileged=False) == (-1,)
    assert list(tmp_path.iterdir()) == []


def test_log_is_opened_for_appending_where_only_root_can_change_the_way() -> None:
    """/dev/null by its safe way: O_APPEND, close-on-exec."""
    fd = open_log("/dev/null")
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("path", ["/etc", "/", "/etc/../etc/", "/proc/self/ns/net"])
def test_log_that_is_no_file_is_refused(path: str) -> None:
    """Directories and magic links are no logs."""
    with pytest.raises((UnsafePathError, OSError)):
        open_log(path)


# ---------------------------------------------------------------- events


@contextlib.contextmanager
def events_in_a_pipe(*, is_json: bool, level: int = 7) -> Iterator[tuple[Events, int]]:
    """Yield events that go to a pipe, and its read end."""
    reader, writer = os.pipe()
    try:
        yield Events("mpm_perchild", level, is_json=is_json, fd=writer), reader
    finally:
        os.close(reader)
        os.close(writer)


def test_event_has_httpds_shape_in_one_line() -> None:
    """[time] [module:level] [pid:tid] code: text; control characters cannot make a second line."""
    with events_in_a_pipe(is_json=False) as (events, reader):
        events.say("notice", "AH00489", "hello\n[forged] line\x1b[0m")
        line = os.read(reader, 1000).decode()
    assert line.count("\n") == 1
    assert line.endswith(f"[mpm_perchild:notice] [pid {os.getpid()}:tid {os.getpid()}] AH00489: hello\\n[forged] line\\x1b[0m\n")
    assert line.startswith("[")


def test_event_in_json_has_its_facts() -> None:
    """One object with level, code, message and facts."""
    with events_in_a_pipe(is_json=True) as (events, reader):
        events.say("error", "AH00052", "gone", identity=7)
        tree = json.loads(os.read(reader, 1000))
    assert (tree["level"], tree["code"], tree["event"], tree["identity"], tree["pid"]) == ("error", "AH00052", "AH00052: gone", 7, os.getpid())
    assert tree["timestamp"].endswith("Z")


def test_every_event_in_json_is_one_object_in_one_line() -> None:
    """Whatever is in it; without a number of httpd's the text stands alone, and its time is that of the event, UTC."""
    texts = ("plain", "two\nlines", 'quote " and \\ and \x1b[0m', "Grüße \udcff", "")
    with events_in_a_pipe(is_json=True) as (events, reader):
        before = time.time()
        for text in texts:
            events.say("warn", "", text)
        lines = os.read(reader, 10_000).decode().splitlines()
    assert [json.loads(line)["event"] for line in lines] == list(texts)
    for tree in map(json.loads, lines):
        assert set(tree) == {"event", "level", "timestamp", "module", "pid", "tid", "code"}
        assert tree["level"] == "warn"
        at = dt.datetime.fromisoformat(tree["timestamp"])
        assert at.utcoffset() == dt.timedelta()
        assert before - 1 <= at.timestamp() <= time.time() + 1


def test_event_below_its_level_is_not_written() -> None:
    """LogLevel notice: info is silent."""
    with events_in_a_pipe(is_json=False, level=5) as (events, reader):
        events.say("info", "", "quiet")
        events.say("notice", "", "loud")
        assert b"quiet" not in os.read(reader, 1000)


def test_escape_keeps_what_can_be_printed() -> None:
    """Letters of any script stay; a newline, a NUL and an invalid byte do not."""
    assert escape_text("Grüße\n\0\udcff") == "Grüße\\n\\x00\\udcff"
