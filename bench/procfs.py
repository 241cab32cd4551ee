"""What /proc says about a server: its processes, their CPU time, their memory.

Runs as: root (smaps_rollup of another uid needs it).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat: ids, and CPU seconds of itself and of the children it has waited for."""

    pid: int
    parent: int
    cpu: float


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2:].split()
    return Process(pid, int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)


def tree(root: int) -> list[Process]:
    """Return the process `root` and all its descendants, those that live now; empty if `root` is gone."""
    processes = [process for entry in os.listdir("/proc") if entry.isdigit() if (process := _read(int(entry)))]
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found = [process for process in processes if process.pid == root]
    for process in found:
        found.extend(children.get(process.pid, ()))
    return found


def cpu_seconds(root: int) -> float:
    """Return the CPU seconds that the tree under `root` has used, those of its dead and waited-for children included."""
    return sum(process.cpu for process in tree(root))


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of `pid` in bytes; 0 if it is gone. Source: proc(5), smaps_rollup."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def uid_of(pid: int) -> int | None:
    """Return the real uid of `pid`, None if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    except OSError:
        return None
    return None
