"""What systemd does for a service of Type=notify, as far as a server can tell: its socket, its file descriptor store, LISTEN_FDS.

Runs as: whoever tests.  Source: sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Self

from tests.lab import ROOT, Lab, is_alive, kill_all, tree_of, wait_until

# Puts the descriptors named in its first argument at 3, 4 ... and becomes the rest of its arguments, as systemd's executor does.
LAUNCHER = """
import fcntl, os, sys
high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 200) for one in sys.argv[1].split(",") if one]
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index)
os.closerange(3 + len(high), 1000)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """Starts a lab's server again and again; `store` is what it keeps in between, `said` all it was told."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store: dict[str, int] = {}
        self.said: list[str] = []
        self.path = str(lab.base / "manager")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        for fd in self.store.values():
            os.close(fd)

    def start(self, given: dict[str, int] | None = None, environment: dict[str, str] | None = None) -> None:
        """Start the server with what is kept, and `given` besides; wait until it is ready."""
        passed = {**self.store, **(given or {})}
        self.lab.write_config()
        self.said.clear()
        self.lab.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, ",".join(map(str, passed.values())), *self.lab.command("-D", "FOREGROUND")], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=tuple(passed.values()),
            env={**os.environ, "NOTIFY_SOCKET": self.path, "LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": ":".join(passed),
                 **(environment or {})})
        wait_until(lambda: (self.hear() and "READY=1" in self.words()) or self.has_ended(), "READY=1", 60)
        assert "READY=1" in self.words(), self.lab.process.communicate()[0]

    def has_ended(self) -> bool:
        """Whether the server is gone."""
        assert self.lab.process is not None
        return self.lab.process.poll() is not None

    def hear(self) -> bool:
        """Take what the server says; True when nothing more lies there."""
        while True:
            try:
                raw, ancillary, _, _ = self.sock.recvmsg(65536, 1024, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            self._take(raw.decode(), list(fds))

    def _take(self, text: str, fds: list[int]) -> None:
        fields = dict(line.partition("=")[::2] for line in text.splitlines())
        self.said.append(text)
        name = fields.get("FDNAME", "stored")
        if "FDSTORE" in fields and name not in self.store and fds:
            self.store[name] = fds.pop(0)
        if "FDSTOREREMOVE" in fields and name in self.store:
            os.close(self.store.pop(name))
        for fd in fds:
            os.close(fd)

    def words(self) -> list[str]:
        """Return all lines that were said since the start."""
        return [line for text in self.said for line in text.splitlines()]

    def wait_for(self, word: str) -> None:
        """Wait until a line begins so."""
        wait_until(lambda: self.hear() and any(line.startswith(word) for line in self.words()), word, 60)

    def reload(self) -> dict[str, Any]:
        """Reload as the lab does, and hear what is said meanwhile: a socket holds ten messages, and who sends another one waits."""
        answers: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: answers.append(self.lab.reload()))
        asking.start()
        while asking.is_alive():
            self.hear()
            asking.join(0.01)
        return answers[0]

    def crash(self) -> None:
        """Kill the dispatcher, and what it leaves, as KillMode=mixed does."""
        process = self.lab.process
        assert process is not None
        pids = tree_of(process.pid)
        self.lab.process = None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kill_all(pids[1:])
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "the whole server is gone")
        self.hear()

    def stop(self, number: int = signal.SIGWINCH) -> None:
        """Stop the server by a signal and wait for its end; fail if that is no clean one."""
        process = self.lab.process
        assert process is not None
        pids = tree_of(process.pid)
        process.send_signal(number)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            self.hear()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        self.hear()
        assert process.returncode == 0, f"it has not ended by itself: {process.returncode}"
        assert not [pid for pid in pids if is_alive(pid)], "a process is left behind"
        self.lab.stop()
