"""Somebody at a terminal: types a line and Tab at an interactive shell of a machine, and sees what the shell makes of it.

Runs as: root.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from typing import Self

PATIENCE_S = 60.0
# How to start each shell without anybody's settings, and to switch its completion on.
SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), ". /usr/share/bash-completion/bash_completion"),
    "zsh": (("zsh", "-f", "-i"), "autoload -U compinit; compinit -D"),
}
_BEGINNING = "\x01"  # ctrl-A: to the beginning of the line


class Terminal:
    """A shell with a terminal of its own. enter: the command that goes before it, to run it elsewhere."""

    def __init__(self, shell: str, enter: tuple[str, ...], environment: dict[str, str]) -> None:
        self._command, self._begin = SHELLS[shell]
        self._enter, self._environment = enter, environment
        self._seen = ""

    def __enter__(self) -> Self:
        """Start it; wait until it has done what switches its completion on."""
        self._master, slave = os.openpty()
        self._process = subprocess.Popen([*self._enter, *self._command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                         env=self._environment)
        os.close(slave)
        self._type(f"{self._begin}; echo rea'dy'\n")
        self._wait(r"[\r\n]ready\r?\n")
        return self

    def __exit__(self, *_: object) -> None:
        """End it, with what it has started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=PATIENCE_S)
        os.close(self._master)

    def complete(self, line: str) -> str:
        """Return what a line has become when Tab was pressed behind it, without blanks at its end."""
        self._seen = ""
        self._type(f"{line}\t{_BEGINNING}echo @\n")
        return self._wait(r"[\r\n]@([^\r\n]*)\r?\n")[1].rstrip()

    def _type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _wait(self, pattern: str) -> re.Match[str]:
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self._seen)) is None:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline_s - time.monotonic()))
            assert ready, f"no {pattern} within {PATIENCE_S} s, but {self._seen!r}"
            self._seen += os.read(self._master, 65536).decode(errors="replace")
        return found
