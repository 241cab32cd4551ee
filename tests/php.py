"""Debian's php-fpm for tests: a master and its pool as one tenant, on a Unix socket that is the tenant's alone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.lab import Tenant, wait_until

PHP_FPM = next((path for path in map(shutil.which, ("php-fpm", *(f"php-fpm8.{minor}" for minor in range(9)))) if path),
               next((str(path) for path in sorted(Path("/usr/sbin").glob("php-fpm*"))), ""))

CONFIG = """[global]
pid = {home}/fpm.pid
error_log = {home}/fpm.log
daemonize = no
[www]
listen = {socket}
listen.mode = 0600
pm = static
pm.max_children = {children}
"""


class PhpFpm:
    """One php-fpm; close() stops it, and so does the end of the thread that started it."""

    def __init__(self, tenant: Tenant, children: int = 2) -> None:
        """Start it as the tenant, and wait until it takes connections."""
        self.socket = tenant.home / "fpm.sock"
        config = tenant.home / "fpm.conf"
        config.write_text(CONFIG.format(home=tenant.home, socket=self.socket, children=children))
        config.chmod(0o644)
        command = ["setpriv", "--pdeathsig", "TERM", PHP_FPM, "-y", str(config), "-c", "/nonexistent", "-F"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, user=tenant.uid, group=tenant.uid,
                                        extra_groups=[], cwd=tenant.home, start_new_session=True)
        wait_until(self._takes_connections, "php-fpm listens")

    def _takes_connections(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.socket))
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Stop the master, which stops the pool."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            self.process.wait(20)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()
