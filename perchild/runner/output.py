"""What a service prints, line by line, into the error log: of its host if the tenant may write to that, else of the server.

A program never gets a log's descriptor, with which it could write any line, or none. Too many lines are counted instead.
Runs as: runner.  Distrusts: every byte.
"""

from __future__ import annotations

import os
import re
import stat

from perchild.runner.log import Log, escape_text
from perchild.runner.loop import HANGUP, READ, Loop

MAX_LINE_BYTES = 2000
READ_BYTES = 16384
BYTES_PER_S = 8192  # on average, of one service; 0.7 GB a day
BURST_BYTES = 262_144
LINE_BYTES = 100  # that each line costs besides
CLOSE_READS = 8  # of what is left in a pipe: who holds it still may fill it as fast as it is read
_LEVELS = {b"debug": "debug", b"trace": "debug", b"info": "info", b"notice": "notice", b"warn": "warn", b"warning": "warn",
           b"error": "error", b"err": "error", b"fatal": "crit", b"critical": "crit", b"crit": "crit", b"alert": "alert", b"emerg": "emerg"}
_LEVEL = re.compile(rb"(?:^|[\s\[(<|])(" + b"|".join(_LEVELS) + rb")(?=[\s\]):>|])", re.IGNORECASE)
_LEVEL_WITHIN = 80  # bytes, of a line


def find_level(line: bytes) -> str:
    """Return the level that a line says it has, in httpd's words: [INFO], WARNING:, (error); notice if it says none."""
    match = _LEVEL.search(line[:_LEVEL_WITHIN])
    return _LEVELS[match[1].lower()] if match else "notice"


def open_log(path: str, uid: int) -> int:
    """Return a descriptor of the tenant's own log file for appending, -1 if it is none or not writable."""
    if not path.startswith("/"):
        return -1
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1
    state = os.fstat(fd)
    if stat.S_ISREG(state.st_mode) and state.st_uid == uid and state.st_nlink == 1:
        return fd
    os.close(fd)
    return -1


class HostLog:
    """A host's own error log if the tenant may write to it, else the server's. Rotated files are left at the next look."""

    def __init__(self, server: Log, path: str, uid: int) -> None:
        self._server, self._path, self._uid = server, path, uid
        self._fd, self._file = -1, (0, 0)

    def refresh(self) -> None:
        """Open the file that the path leads to now, if that is another one."""
        if not self._path.startswith("/"):
            return
        try:
            state = os.lstat(self._path)
        except OSError:
            return  # being rotated: the old file takes the lines
        if (state.st_dev, state.st_ino) != self._file:
            self.close()
            self._fd, self._file = open_log(self._path, self._uid), (state.st_dev, state.st_ino)

    def close(self) -> None:
        """Give it back; the server's takes the lines."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._file = -1, (0, 0)

    def say(self, level: str, text: str) -> None:
        """Log one line; see Log.say."""
        (self._server if self._fd < 0 else self._server.beside(self._fd)).say(level, text)


class Output:
    """The pipe of one service: `write_fd` is for the program, to be closed here once it has it."""

    def __init__(self, loop: Loop, log: HostLog, name: str) -> None:
        self._loop, self._log, self._name = loop, log, name
        self._fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rest = b""
        self._room, self._at_s, self._lost = float(BURST_BYTES), loop.now_s(), 0
        self.last_line = ""
        try:
            os.set_blocking(self.write_fd, True)
            loop.watch(self._fd, READ | HANGUP, self._on_event)
        except OSError:
            os.close(self._fd)
            os.close(self.write_fd)
            raise

    def close_write(self) -> None:
        """Let the program alone hold it."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        """Take what is there, and end. What else still holds the pipe gets EPIPE."""
        if self._fd >= 0:
            for _ in range(CLOSE_READS):
                if not self._read():
                    break
            self._end()
        self.close_write()

    def _on_event(self, events: int) -> None:
        if not self._read() and events & HANGUP:
            self._end()

    def _read(self) -> bool:
        """Take some; False at the end, and when there is nothing now but the program is gone."""
        try:
            raw = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not raw:
            return False
        *lines, self._rest = (self._rest + raw).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._say(line)
        return True

    def _end(self) -> None:
        if self._rest:
            self._say(self._rest)
            self._rest = b""
        if self._lost:
            self._log.say("warn", f"{self._name}: {self._lost} lines were left out")
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _say(self, raw: bytes) -> None:
        now_s = self._loop.now_s()
        self._room = min(BURST_BYTES, self._room + (now_s - self._at_s) * BYTES_PER_S)
        self._at_s = now_s
        line = raw.rstrip(b"\r").decode("utf-8", "backslashreplace")
        if not line:
            return
        self.last_line = line
        cost = LINE_BYTES + (len(escape_text(line)) if self._room > LINE_BYTES + len(line) else BURST_BYTES)
        if self._room < cost:
            self._lost += 1
            return
        self._room -= cost
        if self._lost:
            self._log.say("warn", f"{self._name}: {self._lost} lines were left out")
            self._lost = 0
        self._log.say(find_level(raw), f"{self._name}: {line}")
