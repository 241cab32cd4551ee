"""On what a run was made: processor, kernel, memory, distribution, versions. Never the machine's name.

Runs as: anybody.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import perchild
from bench.install import PACKAGES


def describe_machine() -> dict[str, str | int]:
    """Return cpu, cores, memory_gb, kernel and system of this machine."""
    release = platform.freedesktop_os_release()
    return {"cpu": _cpu(), "cores": os.cpu_count() or 1, "kernel": platform.release().split("-")[0],
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": release.get("PRETTY_NAME", "Linux")}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].replace("(R)", "").replace("(TM)", "").split())
    return platform.machine()


def versions() -> dict[str, str]:
    """Return the versions that were run: Debian's packages as dpkg names them, and perchildd's own."""
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES], capture_output=True, text=True, check=False)
    found = dict(line.split(" ", 1) for line in asked.stdout.splitlines() if " " in line)
    return {"perchildd": perchild.__version__, **found}
