"""What a run needs from Debian: looks what is missing and installs that, without starting any of it.

Runs as: root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("apache2", "libapache2-mod-php", "libapache2-mpm-itk", "nginx", "nghttp2-client", "openssl", "php-fpm", "wrk")
POLICY = Path("/usr/sbin/policy-rc.d")
_UNITS = Path("/lib/systemd/system")
_SERVICES = {"apache2": "apache2.service", "nginx": "nginx.service", "php-fpm": "php*-fpm.service"}  # package -> pattern of its unit


def find_missing(packages: Sequence[str]) -> list[str]:
    """Return those of `packages` that dpkg does not know as installed."""
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
                           capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in there]


@contextmanager
def services_held() -> Iterator[None]:
    """Keep Debian's maintainer scripts from starting services meanwhile (the documented way: policy-rc.d says 101)."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install(packages: Sequence[str] = PACKAGES) -> list[str]:
    """Install what is missing of `packages` and return it. New servers are neither started nor enabled at boot.

    Raises:
        SystemExit: apt-get failed; its own words are on stderr.
    """
    missing = find_missing(packages)
    if not missing:
        return []
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with services_held():
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *missing]):
            if subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
                raise SystemExit(f"bench: apt-get {' '.join(command)} failed; install {' '.join(missing)} by hand and run again")
    if shutil.which("systemctl") and Path("/run/systemd/system").is_dir():
        units = [unit.name for package in missing if package in _SERVICES for unit in _UNITS.glob(_SERVICES[package])]
        if units:
            subprocess.run(["systemctl", "disable", "-q", *units], check=False)
    return missing
