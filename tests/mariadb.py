"""A database server of a test's own: Debian's mariadbd on a Unix socket, with its own directory, under a uid that no user has.

Runs as: root, which starts it; the database runs as `uid`.  Source: mariadb-install-db(1), mariadbd(8).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

from tests.lab import wait_until

PROGRAMS = (Path("/usr/bin/mariadb-install-db"), Path("/usr/sbin/mariadbd"))
HAS_MARIADB = all(path.exists() for path in PROGRAMS)
START_S = 60.0
SMALL = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--innodb-use-native-aio=0", "--skip-networking")
# What is lost when the machine stops is lost with the test, too.
QUICK = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-log-bin", "--performance-schema=off")


class Mariadb:
    """A context: the server answers on `socket` within it. `user` may do everything in the database `name`."""

    def __init__(self, directory: Path, uid: int, *, name: str, user: str, password: str) -> None:
        """Make the directory, through which others reach the socket, and the files of an empty database server."""
        self.directory, self.uid = directory, uid
        self.socket = directory / "mysqld.sock"
        self.log = directory / "log"
        self.data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.data.mkdir(parents=True)
        (directory / "first.sql").write_text(
            f"CREATE DATABASE {name};\nCREATE USER '{user}'@'localhost' IDENTIFIED BY '{password}';\n"
            f"GRANT ALL ON {name}.* TO '{user}'@'localhost';\n")
        for path in (directory, self.data):
            os.chown(path, uid, uid)
        directory.chmod(0o711)
        self.data.chmod(0o700)

    def _run(self, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(program), "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.directory}", *SMALL, *arguments],
                user=self.uid, group=self.uid, extra_groups=[], cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env={"PATH": os.environ["PATH"], "HOME": str(self.directory)}, start_new_session=True)

    def __enter__(self) -> Self:
        """Start it; wait until it has made its socket."""
        install, server = PROGRAMS
        made = self._run(install, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        assert made.wait(START_S) == 0, self.log.read_text(errors="replace")
        self._process = self._run(server, f"--socket={self.socket}", f"--pid-file={self.directory}/pid",
                                  f"--init-file={self.directory}/first.sql", *QUICK)
        wait_until(lambda: self.socket.exists() or self._ended(), "the database's socket", START_S)
        assert not self._ended(), self.log.read_text(errors="replace")
        return self

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(START_S)
            finally:
                process.kill()
