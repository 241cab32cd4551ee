"""The runner's lines in the error log, in httpd's shape, and those of the services it keeps.

[Sat Nov 21 01:03:00.123456 2026] [runner:error] [pid 7] alice: text
With ErrorLogFormat json an object, with the same keys as those of the dispatcher and the children.
One line, one write; control characters are escaped, so a program cannot forge one.
Runs as: runner.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

STDERR_FD = 2
MAX_TEXT = 2000  # characters of one line


def escape_text(text: str) -> str:
    r"""Return `text` with control characters as \xNN, so that it stays one line, and cut to MAX_TEXT."""
    if text[:MAX_TEXT].isprintable():
        return text[:MAX_TEXT]
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:MAX_TEXT])


class Log:
    """Where one runner says what happens; a full disk is survived."""

    def __init__(self, name: str, fd: int = STDERR_FD, *, is_json: bool = False) -> None:
        self.name, self._fd, self._is_json = name, fd, is_json

    def say(self, level: str, text: str) -> None:
        """Log one line; level: error, warn, notice."""
        now_us = time.time_ns() // 1000
        line = (_render_json if self._is_json else _render_line)(now_us, level, self.name, text)
        with contextlib.suppress(OSError):
            os.write(self._fd, line.encode("utf-8", "backslashreplace") + b"\n")

    def beside(self, fd: int) -> Log:
        """Return the same log, in another file."""
        return Log(self.name, fd, is_json=self._is_json)


def _render_line(now_us: int, level: str, name: str, text: str) -> str:
    stamp = time.strftime(f"%a %b %d %H:%M:%S.{now_us % 1_000_000:06d} %Y", time.localtime(now_us // 1_000_000))
    return f"[{stamp}] [runner:{level}] [pid {os.getpid()}] {name}: {escape_text(text)}"


def _render_json(now_us: int, level: str, name: str, text: str) -> str:
    stamp = time.strftime(f"%Y-%m-%dT%H:%M:%S.{now_us % 1_000_000:06d}Z", time.gmtime(now_us // 1_000_000))
    facts = {"event": f"{name}: {text[:MAX_TEXT]}", "level": level, "module": "runner", "pid": os.getpid(), "tid": os.getpid(), "timestamp": stamp}
    return json.dumps(facts, sort_keys=True)
