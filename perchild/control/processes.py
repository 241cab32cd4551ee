"""What the system says of processes: memory and processor time, of the server's and of those that runners execute.

perchildctl runs as root and asks the system itself: it need not believe what children say. Where it may not, their own figures stay.
Runs as: root, or the uid the server was started by.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MANY = 300  # processes; above it only those that are shown are measured: half a millisecond each
_TICKS = os.sysconf("SC_CLK_TCK")
_TIMES_AT = 11  # utime behind the name, in /proc/PID/stat
Tree = dict[str, Any]


def memory_kb(pid: int) -> int | None:
    """Return the proportional set size of a process, KB; None if it is gone or not ours to look at."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), None)


def cpu_s(pid: int) -> float | None:
    """Return the processor time of a process with its ended children, seconds; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rfind(")") + 2 :].split()  # a name may hold anything
    return sum(map(int, fields[_TIMES_AT : _TIMES_AT + 4])) / _TICKS


def tree_of(pid: int) -> list[int]:
    """Return a process and all below it."""
    pids = [pid]
    for parent in pids:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                pids += [int(one) for one in Path(f"/proc/{parent}/task/{task}/children").read_text().split()]
        except OSError:
            continue
    return pids


def measure(tree: Tree) -> Tree:
    """Put the system's figures into a tally: memory of children, and `programs`, `programs_memory_kb`, `programs_cpu_s` of runners."""
    is_few = tree["totals"]["children"] <= MANY
    for one in tree["identities"]:
        runner = one["runner"]["pid"] if one["runner"] else None
        one["programs"] = tree_of(runner) if runner else []
        one["programs_cpu_s"] = round(sum(cpu_s(pid) or 0.0 for pid in one["programs"]), 3)
        one["programs_memory_kb"] = sum(memory_kb(pid) or 0 for pid in one["programs"]) if is_few else 0
        if is_few:
            _measure_children(one)
    tree["totals"]["memory_kb"] = sum(one["memory_kb"] for one in tree["identities"])
    for name in ("programs_cpu_s", "programs_memory_kb"):
        tree["totals"][name] = round(sum(one[name] for one in tree["identities"]), 3)
    return tree


def _measure_children(one: Tree) -> None:
    for child in one["children"]:
        found = memory_kb(child["pid"])
        if found is not None:
            child["memory_kb"] = found
    one["memory_kb"] = sum(child.get("memory_kb", 0) for child in one["children"])
