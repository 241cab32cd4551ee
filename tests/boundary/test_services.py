"""Services: php-fpm, application servers and WSGI applications that a runner keeps: started on demand, watched, ended when idle.

Runs as: root; a real runner, real uids, Debian's php-fpm, waitress and gunicorn.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild.runner.commands import PHP_DIRECTORIES
from perchild.runner.door import remove_stale
from perchild.runner.keeper import MAX_WAITING
from perchild.wire import job as wire
from perchild.wire.runner import APP, PHP, WSGI, Limits, Service
from tests.boundary import procs
from tests.boundary.runner_case import OTHER_UID, Case
from tests.lab import comm_of, is_alive, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"), pytest.mark.interop]

HAS_PHP = any(name.startswith("php-fpm") for directory in PHP_DIRECTORIES if os.path.isdir(directory) for name in os.listdir(directory))
needs_php = pytest.mark.skipif(not HAS_PHP, reason="needs php-fpm")
needs_waitress = pytest.mark.skipif(not Path("/usr/lib/python3/dist-packages/waitress").exists(), reason="needs python3-waitress")
needs_gunicorn = pytest.mark.skipif(not Path("/usr/bin/gunicorn").exists(), reason="needs gunicorn")

# Takes connections on descriptor 3 (or binds argv[1]), answers each with who it is; "crash" ends it.
SERVER = """#!/usr/bin/python3 -I
import os, signal, socket, sys
if len(sys.argv) > 1 and sys.argv[1].startswith("/"):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
else:
    listener = socket.socket(fileno=3)
print("begun", os.getpid(), flush=True)
while True:
    sock, _ = listener.accept()
    word = sock.recv(100)
    if not word:  # the runner looks whether it is there
        continue
    if word == b"crash":
        print("as asked", file=sys.stderr, flush=True)
        os._exit(7)
    fds = sorted(os.listdir("/proc/self/fd"))[:-1]
    env = " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name != "LC_CTYPE")
    sock.sendall(f"{os.getpid()}|{os.getuid()}|{sys.argv[1:]}|{env}|{fds}|{os.getcwd()}".encode())
    sock.close()
"""


class Kept(Case):
    """A runner with services; their sockets lie in a directory of the tenant's."""

    def __init__(self, *services: Service, log_kind: str = "", **facts: object) -> None:
        self._services, self._log_kind = services, log_kind
        super().__init__(**facts)  # type: ignore[arg-type]

    def prepare(self) -> None:
        self.sockets = self.make_directory(self.base / "tenant")
        self.program("server", SERVER)
        if self._log_kind:
            make_log(self, is_link=self._log_kind == "link")
        placed = []
        for one in self._services:
            words = tuple(word.replace("@root", str(self.root)) for word in one.command)
            placed.append(self.replaced(one, socket=str(self.sockets / f"{one.name}.sock"), command=words, cwd=one.cwd or str(self.root),
                                        file=one.file.replace("@root", str(self.root)), log=one.log.replace("@base", str(self.base))))
        self.facts = self.replaced(self.facts, services=tuple(placed))

    def path(self, number: int = 0) -> str:
        return self.facts.services[number].socket

    def wake(self, number: int = 0, timeout_s: float = 35) -> str:
        """Send a WAKE; return the answer."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.send(wire.Job(wire.WAKE, 0, number), (theirs.fileno(),))
            theirs.close()
            ours.settimeout(timeout_s)
            return b"".join(iter(lambda: ours.recv(1000), b"")).decode()

    def wait_asleep(self, timeout_s: float) -> None:
        """Wait until the programs have ended and the runner, which hears of it, has put the path of the first service back."""
        wait_until(lambda: not self.pids() and os.path.exists(self.path()), "it has ended, and its path leads to the runner", timeout_s)

    def connect(self, number: int = 0) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(15)
        try:
            sock.connect(self.path(number))
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, word: bytes = b"who", number: int = 0) -> list[str]:
        """Ask the toy server; return the parts of its answer, [] if it says nothing."""
        with self.connect(number) as sock:
            sock.sendall(word)
            with contextlib.suppress(ConnectionResetError):
                return b"".join(iter(lambda: sock.recv(1000), b"")).decode().split("|")
        return []

    def http(self, path: str, number: int = 0, fields: str = "") -> tuple[int, str]:
        """Make one HTTP request; return status and body."""
        with self.connect(number) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n".encode())
            raw = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        head, _, body = raw.partition("\r\n\r\n")
        return int(head.split()[1]), body

    def fastcgi(self, file: Path, number: int = 0) -> str:
        """Make one FastCGI request; return what the program wrote."""
        names = {"SCRIPT_FILENAME": str(file), "REQUEST_METHOD": "GET", "SCRIPT_NAME": f"/{file.name}", "SERVER_PROTOCOL": "HTTP/1.1"}
        params = b"".join(struct.pack("BB", len(name), len(value)) + name.encode() + value.encode() for name, value in names.items())
        out = struct.pack(">BBHHBB", 1, 1, 1, 8, 0, 0) + struct.pack(">HB5x", 1, 0)
        out += struct.pack(">BBHHBB", 1, 4, 1, len(params), 0, 0) + params + struct.pack(">BBHHBB", 1, 4, 1, 0, 0, 0)
        out += struct.pack(">BBHHBB", 1, 5, 1, 0, 0, 0)
        with self.connect(number) as sock:
            sock.sendall(out)
            raw = b"".join(iter(lambda: sock.recv(65536), b""))
        text = b""
        while raw:
            _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", raw[:8])
            text += raw[8:8 + length] if kind in {6, 7} else b""
            raw = raw[8 + length + padding:]
        return text.decode()


def app(*words: str, name: str = "app0", idle_s: int = 600, **more: object) -> Service:
    return Service(name, APP, "", idle_s, command=words or ("@root/server",), **more)  # type: ignore[arg-type]


@contextlib.contextmanager
def kept(*services: Service, **facts: object) -> Iterator[Kept]:
    with Kept(*services, **facts) as one:
        yield one


# ---------------------------------------------------------------- start


def test_a_service_is_started_by_the_first_wake_and_holds_its_socket_alone() -> None:
    """ok, then it serves as the tenant; descriptors 0..3, the environment of the configuration, its directory; socket 0600."""
    with kept(app(env=(("APP_ENV", "production"),))) as one:
        assert not one.pids()
        with pytest.raises(FileNotFoundError):
            one.connect()
        assert one.wake() == "ok\n"
        pid, uid, arguments, env, fds, cwd = one.ask()
        assert (uid, arguments, cwd) == (str(one.uid), "[]", str(one.root))
        assert eval(fds) == ["0", "1", "2", "3", "4"]  # 4: the connection
        assert env.split() == sorted(["APP_ENV=production", f"HOME={one.base}", "LANG=C.UTF-8", "LISTEN_FDS=1", f"LISTEN_PID={pid}",
                                      "LOGNAME=case", "PATH=/usr/local/bin:/usr/bin:/bin", "USER=case"])
        state = os.stat(one.path())
        assert (state.st_uid, state.st_mode & 0o777) == (one.uid, 0o600)
        assert one.wake() == "ok\n"
        assert one.ask()[0] == pid
        wait_until(lambda: "app0: begun" in one.log(), "what it said is in the log")


def test_another_user_cannot_connect() -> None:
    """The directory is the tenant's alone."""
    with kept(app()) as one:
        one.wake()
        pid = os.fork()
        if pid == 0:
            os.setresgid(OTHER_UID, OTHER_UID, OTHER_UID)
            os.setresuid(OTHER_UID, OTHER_UID, OTHER_UID)
            try:
                one.connect()
            except PermissionError:
                os._exit(13)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 13


def test_a_command_may_bind_its_socket_itself() -> None:
    """{socket}: the answer comes when it can be connected; a socket left by a killed one is no hindrance."""
    with kept(app("@root/server", "{socket}")) as one:
        assert one.wake() == "ok\n"
        first, _, arguments, env, *_ = one.ask()
        own, = eval(arguments)  # a path of this start's, to which the service's path leads
        assert own != one.path()
        assert os.path.samefile(own, one.path())
        assert "LISTEN_FDS" not in env
        one.ask(b"crash")
        wait_until(lambda: not one.pids(), "it has ended")
        with pytest.raises(ConnectionRefusedError):
            one.connect()
        assert one.wake() == "ok\n"
        assert one.ask()[0] != first


def test_fd_is_replaced_and_programs_are_found() -> None:
    """{fd} is 3; a bare name is looked for in PATH."""
    with kept(app("python3", "@root/server", "{fd}")) as one:
        assert one.wake() == "ok\n"
        assert one.ask()[2] == "['3']"


def test_wakes_of_many_children_are_all_answered() -> None:
    """One start, an answer for each."""
    with kept(app("@root/server", "{socket}")) as one:
        pairs = [socket.socketpair() for _ in range(20)]
        for _, theirs in pairs:
            one.send(wire.Job(wire.WAKE, 0, 0), (theirs.fileno(),))
            theirs.close()
        for ours, _ in pairs:
            ours.settimeout(20)
            assert ours.recv(100) == b"ok\n"
            ours.close()
        wait_until(lambda: "begun" in one.log(), "what it said is in the log")
        assert one.log().count("begun") == 1
        assert one.wake(5).startswith("error there is no service 5")


def test_wakes_without_end_are_told_so() -> None:
    """Each that waits is a descriptor of the runner's: a child that was taken over gets no more of them than that."""
    with kept(app("/bin/sh", "-c", "exec sleep 1000; : {socket}")) as one:
        pairs = []
        for _ in range(MAX_WAITING + 50):
            pairs.append(socket.socketpair())
            one.send(wire.Job(wire.WAKE, 0, 0), (pairs[-1][1].fileno(),))
            pairs[-1][1].close()
        pairs[-1][0].settimeout(10)
        assert pairs[-1][0].recv(100) == b"error %d requests wait for app0 already\n" % MAX_WAITING
        assert len(os.listdir(f"/proc/{one.pid}/fd")) < MAX_WAITING + 50
        for ours, _ in pairs:
            ours.close()


# ---------------------------------------------------------------- failure


@pytest.mark.parametrize(("command", "words"), [
    (("no-such-program",), "there is no program no-such-program in /usr/local/bin"),
    (("/no/such",), "the system does not execute it: No such file"),
    (("@root",), "the system does not execute it: Permission denied"),
])
def test_what_cannot_be_started_says_why(command: tuple[str, ...], words: str) -> None:
    """At once, on the WAKE and in the log; no socket that takes connections and answers none stays."""
    with kept(app(*command)) as one:
        assert words in one.wake()
        assert words in one.wake()
        assert words in one.log()
        with pytest.raises(FileNotFoundError):
            one.connect()


def test_a_program_that_dies_is_started_again_and_held_back_when_it_goes_on() -> None:
    """The next connection starts it; after the second early death it is held back, and said with its last line."""
    with kept(app()) as one:
        one.wake()
        pid = one.ask()[0]
        one.ask(b"crash")
        wait_until(lambda: "ended with status 7" in one.log(), "it has ended")
        assert one.ask()[0] != pid  # a connection starts it: no WAKE was needed
        one.ask(b"crash")
        wait_until(lambda: "it is tried again in" in one.log(), "it has ended again, and is held back")  # said when the socket is gone
        with pytest.raises(FileNotFoundError):
            one.connect()
        answer = one.wake()
        assert answer == "error app0 ended with status 7 just after its start: as asked\n"
        wait_until(lambda: one.wake() == "ok\n", "it is tried again", 10)


def test_a_program_that_never_binds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """{socket} but no socket: while it lives it is waited for; its death is the answer."""
    with kept(app("/bin/sh", "-c", "echo no thanks; sleep 0.5; exit 3; : {socket}")) as one:
        assert one.wake().startswith("ok") is False
        assert "ended with status 3" in one.log()


def test_output_is_bounded_and_cannot_forge_lines() -> None:
    """Control characters are escaped, floods are counted, the runner goes on."""
    flood = "import sys\nprint('\\x1b[1mforged\\r[x]')\nfor i in range(20000): print('line', i)\nprint('last')\n"
    with kept(app("python3", "-c", flood + "import time; time.sleep(1000)")) as one:
        one.wake()
        wait_until(lambda: "\\x1b[1mforged" in one.log(), "its first line is there")
        wait_until(lambda: one.wake() == "ok\n", "the runner answers")
        assert len(one.log().splitlines()) < 3000
    with kept(app("python3", "-c", flood)) as one:
        one.wake()
        wait_until(lambda: "lines were left out" in one.log(), "the rest was counted")


def test_output_goes_to_the_hosts_own_log() -> None:
    """A file of the tenant's; where there is none, the server's."""
    with kept(app(log="@base/own.log")) as one:
        one.wake()
        wait_until(lambda: "begun" in one.log(), "no such file: the server's log")


@pytest.mark.parametrize("is_link", [False, True])
def test_output_goes_to_the_hosts_own_log_unless_that_is_a_link(is_link: bool) -> None:  # noqa: FBT001
    """What root could be led to write to by a name, a tenant's process writes as the tenant."""
    with Kept(app(log="@base/own.log"), log_kind="link" if is_link else "file") as one:
        one.wake()
        own = one.base / "own.log"
        wait_until(lambda: "begun" in (one.log() if is_link else own.read_text()), "a line")
        assert ("begun" in own.read_text()) is not is_link


def make_log(case: Case, *, is_link: bool) -> None:
    target = case.base / ("target.log" if is_link else "own.log")
    target.touch()
    os.chown(target, case.uid, case.uid)
    if is_link:
        (case.base / "own.log").symlink_to(target)


# ---------------------------------------------------------------- idle, restart, end


def test_an_idle_service_ends_and_the_next_connection_starts_it() -> None:
    """No connection for idle_s; who connects meanwhile is served by the next process, without a WAKE."""
    with kept(app(idle_s=2)) as one:
        one.wake()
        pid = one.ask()[0]
        one.wait_asleep(8)
        assert one.ask()[0] != pid


def test_a_connection_keeps_a_service_awake() -> None:
    """One that is open for longer than idle_s."""
    with kept(app(idle_s=2)) as one:
        one.wake()
        with one.connect() as sock:
            pids = one.pids()
            time.sleep(4.5)
            assert one.pids() == pids
            sock.sendall(b"who")
            assert sock.recv(10)
        wait_until(lambda: not one.pids(), "it has ended", 8)


def test_touching_restart_txt_starts_it_anew() -> None:
    """Within about a second, and it is there again without being asked."""
    with kept(app()) as one:
        one.wake()
        pid = one.ask()[0]
        (one.root / "tmp").mkdir()
        (one.root / "tmp" / "restart.txt").touch()
        wait_until(lambda: (one.ask() or [""])[0] not in {"", pid}, "another process answers")  # the toy drops what it has
        assert "a file was touched" in one.log()


# Answers each connection with its pid and the words that it was started with; a line "crash" in state.txt makes the next start fail.
# It neither hears TERM nor finishes anything: what it has accepted when it ends is lost.
CRUDE = """import os, socket, sys, time
words = open("state.txt").read().split()
if "crash" in words:
    sys.exit("no thanks")
time.sleep(0.3 if "slow" in words else 0)
listener = socket.socket(fileno=3)
while True:
    sock, _ = listener.accept()
    word = sock.recv(100)
    time.sleep(0.02)
    if word:
        sock.sendall(f"{os.getpid()} {' '.join(words)}".encode())
    sock.close()
"""


def crude(one: Kept, words: str) -> None:
    """Say how the next start shall be, and touch restart.txt."""
    one.program("state.txt", words, mode=0o600)
    (one.root / "tmp").mkdir(exist_ok=True)
    (one.root / "tmp" / "restart.txt").touch()


def test_a_successor_loses_no_connection_of_a_program_that_just_dies() -> None:
    """Connections come one after the other while it is started anew, three times: each is answered."""
    with kept(app("python3", "@root/crude")) as one:
        one.program("crude", CRUDE)
        one.program("state.txt", "0", mode=0o600)
        assert one.wake() == "ok\n"
        for number in range(1, 4):
            crude(one, f"{number} slow")
            wait_until(lambda number=number: one.ask()[0].endswith(f" {number} slow"), "the successor answers", 10)
        wait_until(lambda: len(one.pids()) == 1, "its predecessors have ended", 10)
        assert "killed" not in one.log()
        assert len(os.listdir(one.sockets)) == 2  # its own path, and the public one


def test_a_successor_that_fails_is_dropped_and_nothing_has_changed() -> None:
    """The old one goes on, which the log says; what is mended comes with the next touch."""
    with kept(app("python3", "@root/crude")) as one:
        one.program("crude", CRUDE)
        one.program("state.txt", "good", mode=0o600)
        one.wake()
        before = one.ask()
        crude(one, "crash")
        wait_until(lambda: "no thanks: the one that it was to follow goes on" in one.log(), "it has failed")
        assert one.wake() == "ok\n"
        assert one.ask() == before
        crude(one, "better")
        wait_until(lambda: one.ask()[0].endswith("better"), "the next one answers", 10)


def test_touching_without_end_does_not_start_programs_without_end() -> None:
    """One successor at a time, and at most two that finish what they have."""
    with kept(app("python3", "@root/crude")) as one:
        one.program("crude", CRUDE)
        one.program("state.txt", "0", mode=0o600)
        one.wake()
        most, held = 0, [one.connect()]
        with contextlib.ExitStack() as stack:
            stack.enter_context(held[0])
            for number in range(25):
                crude(one, str(number))
                most = max(most, len(one.pids()))
                time.sleep(0.2)
        assert 2 <= most <= 4
        wait_until(lambda: len(one.pids()) == 1, "one is left", 15)


def test_a_removed_socket_is_bound_anew() -> None:
    """A tenant may delete it: the WAKE that follows brings it back."""
    with kept(app()) as one:
        one.wake()
        os.unlink(one.path())
        assert one.wake() == "ok\n"
        first = one.ask()[0]
        for name in os.listdir(one.sockets):
            os.unlink(one.sockets / name)
        assert one.wake() == "ok\n"  # from a successor, for no name leads to the socket any more
        assert one.ask()[1] == str(one.uid)
        assert one.ask()[0] != first


def test_a_runner_with_services_ends_when_all_is_idle_and_takes_its_sockets_along() -> None:
    """Services first, then the runner; nothing stays in the directory."""
    with kept(app(idle_s=1), idle_s=2) as one:
        one.wake()
        assert one.wait(20) == 0
        assert os.listdir(one.sockets) == []


def test_usr1_lets_connections_finish_and_frees_the_path() -> None:
    """The successor can bind; whoever is connected is answered, even by a program that would end at once when told to."""
    with kept(app("python3", "@root/slow")) as one:
        one.program("slow", SLOW)
        one.wake()
        with one.connect() as sock:
            sock.sendall(b"x")
            wait_until(lambda: "taken" in one.log(), "it was accepted")
            os.kill(one.pid, signal.SIGUSR1)
            wait_until(lambda: not os.path.exists(one.path()), "the path is free")
            assert sock.recv(100) == b"late"
        assert one.wait() == 0


SLOW = """import socket, time
listener = socket.socket(fileno=3)
sock, _ = listener.accept()
print("taken", flush=True)
time.sleep(1.5)
sock.sendall(b"late")
sock.close()
time.sleep(1000)
"""


def test_what_a_killed_runner_left_is_removed(tmp_path: Path) -> None:
    """Sockets that nobody listens on, of this service; others, and those that live, stay."""
    names = ("app0.aaaaaa.sock", "app0.bbbbbb.sock", "app0.sock", "app1.cccccc.sock")
    listeners = []
    for name in names:
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(str(tmp_path / name))
        listeners[-1].listen()
    listeners[0].close()
    listeners[2].close()
    listeners[3].close()
    remove_stale(str(tmp_path / "app0.sock"))
    listeners[1].close()
    assert sorted(os.listdir(tmp_path)) == ["app0.bbbbbb.sock", "app0.sock", "app1.cccccc.sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_services_end_with_their_runner(number: int) -> None:
    """Even one that ignores TERM; a socket that a killed runner left is bound anew by its successor (ECONNREFUSED meanwhile)."""
    with kept(app("/bin/sh", "-c", "trap '' TERM; echo begun; while :; do sleep 1; done")) as one:
        one.wake()
        wait_until(lambda: "begun" in one.log(), "it runs")
        started = time.monotonic()
        os.kill(one.pid, signal.SIGKILL if number == signal.SIGKILL else number)
        if number == signal.SIGTERM:
            time.sleep(0.3)
            assert is_alive(one.pid)  # it waits for its service, as long as the dispatcher lets it
            os.kill(one.pid, signal.SIGKILL)
        one.wait()
        assert time.monotonic() - started < 5
        if number == signal.SIGKILL:
            with pytest.raises(ConnectionRefusedError):
                one.connect()


def test_limits_hold_for_services_but_for_processor_time() -> None:
    """Memory and processes; CPU time is a request's."""
    with kept(app("/bin/bash", "-c", "ulimit -t; ulimit -v; ulimit -u; sleep 1000"),
              limits=Limits(cpu=(5, 5), mem=(1 << 30, 1 << 30), nproc=(90, 90))) as one:
        one.wake()
        wait_until(lambda: one.log().count("app0:") >= 3, "three lines")
        lines = [line.rsplit(": ", 1)[1] for line in one.log().splitlines() if "app0:" in line]
        assert lines == ["unlimited", str(1 << 20), "90"]


# ---------------------------------------------------------------- php


@needs_php
def test_php_runs_as_its_tenant_with_its_own_settings() -> None:
    """php-fpm behind an inherited socket; php_value and php_admin_value are passed on; opcache is its own; nothing is left in /tmp."""
    values = (("php_value", "memory_limit", "77M"), ("php_admin_value", "open_basedir", "/run:/var/lib:/tmp"), ("php_flag", "display_errors", "1"),
              ("php_admin_value", "sendmail_from", 'a "quoted" $HOME; x = y'))
    with kept(Service("php", PHP, "", 600, max_children=3, values=values)) as one:
        page = one.root / "a.php"
        page.write_text("<?php echo posix_getuid(), '|', ini_get('memory_limit'), '|', ini_get('sendmail_from'), '|', "
                        "ini_set('open_basedir', '/') === false ? 'fixed' : 'open', '|', getenv('HOME'), '|', getenv('SECRET') ?: 'none';")
        os.chown(page, one.uid, one.uid)
        assert one.wake() == "ok\n"
        body = one.fastcgi(page).partition("\r\n\r\n")[2]
        assert body == f'{one.uid}|77M|a "quoted" $HOME; x = y|fixed|{one.base}|none'
        other = one.root / "a.jpg"
        other.write_text("<?php echo 'executed';")
        os.chown(other, one.uid, one.uid)
        assert "executed" not in one.fastcgi(other)
        fds = [target for pid in one.pids() for target in procs.descriptors(pid).values() if "perchild" in target]
        assert fds == []


@needs_php
def test_nobody_changes_the_settings_that_scripts_may_not_change() -> None:
    """They lie in no file that the user could write to, or put something else in the place of; telling php-fpm to read them again is in vain."""
    with kept(Service("php", PHP, "", 600, values=(("php_admin_value", "disable_functions", "system"),))) as one:
        os.mkfifo(one.sockets / "php.conf")  # what wrote to it would wait for ever
        page = one.root / "a.php"
        page.write_text("<?php echo ini_get('disable_functions'), '|', function_exists('system') ? 'there' : 'gone', '|', "
                        "@file_put_contents('/proc/self/fd/4', 'x') === false ? 'sealed' : 'open';")
        os.chown(page, one.uid, one.uid)
        assert one.wake() == "ok\n"
        first = one.fastcgi(page).partition("\r\n\r\n")[2].split("|")
        assert first[:3] == ["system", "gone", "sealed"]
        master, *workers = one.pids()
        assert workers
        os.kill(master, signal.SIGUSR2)
        wait_until(lambda: not any(is_alive(pid) for pid in workers), "its workers have ended")
        assert is_alive(master)
        assert one.fastcgi(page).partition("\r\n\r\n")[2].split("|")[:3] == first[:3]
        assert [name for name in os.listdir(one.sockets) if not name.endswith(".sock")] == ["php.conf"]


@needs_php
def test_php_is_quiet_when_idle_and_ends() -> None:
    """Its workers end, then its master, gracefully; the next request wakes it by connecting."""
    with kept(Service("php", PHP, "", 2)) as one:
        page = one.root / "pid.php"
        page.write_text("<?php echo getmypid();")
        os.chown(page, one.uid, one.uid)
        one.wake()
        first = one.fastcgi(page)
        one.wait_asleep(12)
        assert "killed" not in one.log() and "status" not in one.log()
        assert one.fastcgi(page) != first


@needs_php
def test_a_slow_php_request_keeps_it_awake() -> None:
    """Longer than its idle time."""
    with kept(Service("php", PHP, "", 1)) as one:
        page = one.root / "slow.php"
        page.write_text("<?php sleep(4); echo 'done';")
        os.chown(page, one.uid, one.uid)
        one.wake()
        assert one.fastcgi(page).endswith("done")


def test_php_that_is_not_installed_names_the_package() -> None:
    """A version that there is not."""
    with kept(Service("php", PHP, "", 600, version="5.9")) as one:
        answer = one.wake()
        assert answer.startswith("error php cannot be started: php-fpm5.9 is not installed (there is: ")
        assert answer.endswith("apt-get install php5.9-fpm\n")


# ---------------------------------------------------------------- Python


WSGI_FILE = """import os, time
print("loaded", flush=True)
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        print("slow", flush=True)
        time.sleep(1.5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("|".join([str(os.getuid()), str(os.getpid()), environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["REMOTE_ADDR"],
                       environ["wsgi.url_scheme"], os.environ.get("APP", ""), __file__])).encode()]
"""


def wsgi(**more: object) -> Service:
    return Service("wsgi0", WSGI, "", 600, file="@root/app.wsgi", mount="/app", env=(("APP", "1"),), **more)  # type: ignore[arg-type]


@needs_waitress
def test_a_wsgi_file_is_served_at_its_mount() -> None:
    """SCRIPT_NAME and PATH_INFO, the client as the server names it, its variables; touching the file loads it anew."""
    with kept(wsgi()) as one:
        file = one.program("app.wsgi", WSGI_FILE, mode=0o600)
        assert one.wake() == "ok\n"
        status, body = one.http("/app/x%20y?z", fields="X-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n")
        uid, pid, *rest = body.split("|")
        assert (status, uid, rest) == (200, str(one.uid), ["/app", "/x y", "192.0.2.7", "https", "1", str(file)])
        assert len(one.pids()) == 1
        os.utime(file, (1, 1))
        wait_until(lambda: one.http("/app/")[1].split("|")[1] != pid, "another process")
        assert comm_of(one.pids()[0]) == "python3"


@needs_waitress
def test_a_wsgi_request_survives_a_restart() -> None:
    """What is being answered is answered by the one that began with it; its successor takes what comes from then on."""
    with kept(wsgi()) as one:
        one.program("app.wsgi", WSGI_FILE, mode=0o600)
        one.wake()
        first = one.http("/app/")[1].split("|")[1]
        with one.connect() as sock:
            sock.sendall(b"GET /app/slow HTTP/1.0\r\n\r\n")
            wait_until(lambda: "slow" in one.log(), "it is being answered")
            os.utime(one.root / "app.wsgi", (2, 2))
            wait_until(lambda: one.http("/app/")[1].split("|")[1] != first, "its successor answers")
            assert first in b"".join(iter(lambda: sock.recv(1000), b"")).decode()


@needs_waitress
@pytest.mark.parametrize(("text", "words"), [("import no_such_module\n", "No module named 'no_such_module'"), ("x = 1\n", "defines no callable `application`")])
def test_a_broken_wsgi_file_says_so(text: str, words: str) -> None:
    """Its last line is the answer of the next WAKE, and in the log."""
    with kept(wsgi()) as one:
        one.program("app.wsgi", text, mode=0o600)
        one.wake()
        with contextlib.suppress(OSError):
            one.connect().close()
        wait_until(lambda: one.log().count("just after its start") >= 2, "it was tried twice", 15)
        assert words in one.wake()
        assert words in one.log()


@needs_waitress
def test_modules_of_the_applications_directory_are_the_applications_alone() -> None:
    """It may have a signal.py and a socket.py of its own: what serves it takes Python's."""
    with kept(wsgi()) as one:
        one.program("app.wsgi", WSGI_FILE, mode=0o600)
        for name in ("signal.py", "socket.py", "typing.py"):
            one.program(name, "raise SystemExit('not this one')\n", mode=0o600)
        assert one.wake() == "ok\n"
        assert one.http("/app/")[0] == 200


@needs_gunicorn
def test_gunicorn_inherits_the_socket() -> None:
    """LISTEN_FDS is all it needs; its graceful end loses nothing."""
    with kept(app("gunicorn", "--chdir", "@root", "--worker-tmp-dir", "/dev/shm", "application", idle_s=2)) as one:
        one.program("application.py", WSGI_FILE, mode=0o600)
        assert one.wake() == "ok\n"
        status, body = one.http("/hello")
        assert (status, body.split("|")[0]) == (200, str(one.uid))
        one.wait_asleep(15)
        assert one.http("/hello")[0] == 200
