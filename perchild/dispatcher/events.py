"""The dispatcher's lines in the error log: httpd's shape, or JSON.

[Sat Nov 21 01:03:00.123456 2026] [mpm_perchild:notice] [pid 7:tid 7] AH00489: text
One event, one write. Control characters are escaped, so a line cannot be forged.
Runs as: dispatcher.  Source: httpd ErrorLogFormat's default.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

LEVELS = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
STDERR_FD = 2
_NOTICE = LEVELS.index("notice")


def escape_text(text: str) -> str:
    r"""Return `text` with control characters as \xNN, so that it stays one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def format_time(wall_us: int) -> str:
    """Return httpd's time, local, with microseconds: "Sat Nov 21 01:03:00.123456 2026"."""
    local = time.localtime(wall_us // 1_000_000)
    return time.strftime(f"%a %b %d %H:%M:%S.{wall_us % 1_000_000:06d} %Y", local)


def render_line(_logger: Any,  # noqa: ANN401 - structlog's shape
                _level: str, event: MutableMapping[str, Any]) -> str:
    """Return the event in httpd's shape."""
    prefix = f"[{format_time(event['wall_us'])}] [{event['module']}:{event['level']}] [pid {event['pid']}:tid {event['tid']}] "
    code = f"{event['code']}: " if event.get("code") else ""
    return prefix + code + escape_text(event["event"])


def render_json(_logger: Any,  # noqa: ANN401 - structlog's shape
                _level: str, event: MutableMapping[str, Any]) -> str:
    """Return the event as one JSON object: structlog's event, level and timestamp, as in children's lines (native/errlog.c)."""
    wall_us = event.pop("wall_us")
    event["timestamp"] = time.strftime(f"%Y-%m-%dT%H:%M:%S.{wall_us % 1_000_000:06d}Z", time.gmtime(wall_us // 1_000_000))
    if event.get("code"):
        event["event"] = f"{event['code']}: {event['event']}"
    return str(structlog.processors.JSONRenderer(sort_keys=True)(None, "", event))


def _stamp(_logger: Any,  # noqa: ANN401 - structlog's shape
           level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    event.update(level=level, wall_us=time.time_ns() // 1000, pid=os.getpid(), tid=threading.get_native_id())
    return event


class _Writer:
    """A structlog logger whose methods are httpd's levels; each line is one write, and a full disk is survived."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, line: str) -> None:
        try:
            os.write(self._fd, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            return  # there is nowhere else to say it

    emerg = alert = crit = error = warn = notice = info = debug = write


class Events:
    """Where the dispatcher says what happens."""

    def __init__(self, module: str, level: int = LEVELS.index("notice"), *, is_json: bool = False, fd: int = STDERR_FD) -> None:
        self.module = module
        self.level = level
        processors: list[structlog.typing.Processor] = [_stamp, render_json if is_json else render_line]
        self._log = structlog.wrap_logger(_Writer(fd), processors=processors, wrapper_class=structlog.BoundLogger,
                                          cache_logger_on_first_use=True)

    def say(self, level: str, code: str, text: str, **facts: object) -> None:
        """Log one event; notices are always logged, as httpd's are, whatever LogLevel says.

        Args:
            level: one of LEVELS.
            code: AH number, or "".
            text: for people; one line.
            facts: shown in JSON only.
        """
        if LEVELS.index(level) <= max(self.level, _NOTICE):
            getattr(self._log, level)(text, code=code, module=self.module, **facts)
