"""The last good version of each site, in DefaultStateDir/sites: one file each, 0600, in a directory that is root's alone.

A file's name is a hash of its part's key (isolate.make_keys) and one of its content, so what is there already is not written again, and
a file that a crash left half written is no version.
Runs as: compile.  Distrusts: nobody; a directory that others could write to is not used.
Before: isolate.py   After: isolate.py, at a later start or reload
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping

from perchild.config.model import Version

_HASH_DIGITS = 32
_FOLDER = "sites"


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:_HASH_DIGITS]


def _name_key(key: str) -> str:
    return _hash(key.encode("utf-8", "surrogateescape"))


def _encode(key: str, version: Version) -> bytes:
    tree = {"key": key, "text": version.text, "files": dict(version.files), "matches": dict(version.matches)}
    return json.dumps(tree, ensure_ascii=True, separators=(",", ":")).encode("ascii")


class LastGood:
    """Versions of earlier starts and reloads. Nothing is read until one is asked for."""

    def __init__(self, state_dir: str) -> None:
        self._directory = f"{state_dir}/{_FOLDER}"
        self._names: dict[str, list[str]] | None = None  # key's hash -> files' names

    def find(self, key: str) -> Version | None:
        """Return the last good version of the part `key`; None if there is none that can be used.

        There are two where a crash came between the writing of the new one and the removal of the old one: the newer counts.
        """
        if self._names is None:
            self._names = {}
            for name in self._list():
                self._names.setdefault(name.partition("-")[0], []).append(name)
        names = self._names.get(_name_key(key), [])
        found = map(self._read, sorted(names, key=self._age, reverse=True) if len(names) > 1 else names)
        return next((version for version in found if version is not None), None)

    def _age(self, name: str) -> int:
        try:
            return os.lstat(f"{self._directory}/{name}").st_mtime_ns
        except OSError:
            return 0

    def _list(self) -> list[str]:
        try:
            status = os.lstat(self._directory)
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
            return os.listdir(self._directory) if is_ours else []
        except OSError:
            return []

    def _read(self, name: str) -> Version | None:
        try:
            fd = os.open(f"{self._directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as stream:
                raw, saved_s = stream.read(), os.fstat(fd).st_mtime
        except OSError:
            return None
        if _hash(raw) != name.partition("-")[2]:
            return None
        tree = json.loads(raw)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved_s))
        return Version(tree["text"], tree["files"], tree["matches"], when)

    # --- after a good compilation ------------------------------------------------------------------------------

    def save(self, good: Mapping[str, Version], refused: Iterable[str]) -> int:
        """Keep what is good now, and what was good of those that are not; forget the rest.

        Returns:
            How many files were written.
        Raises:
            OSError: the directory cannot be made, or is not ours alone; a file cannot be written.
        """
        _make_private(os.path.dirname(self._directory), 0o755)
        _make_private(self._directory, 0o700)
        present = set(os.listdir(self._directory))
        held = {_name_key(key) for key in refused}
        wanted = {name for name in present if name.partition("-")[0] in held}
        written = 0
        for key, version in good.items():
            raw = _encode(key, version)
            name = f"{_name_key(key)}-{_hash(raw)}"
            wanted.add(name)
            if name not in present:
                self._write(name, raw)
                written += 1
        for name in present - wanted:
            os.unlink(f"{self._directory}/{name}")
        return written

    def _write(self, name: str, raw: bytes) -> None:
        temporary = f"{self._directory}/new-{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(raw)
        os.rename(temporary, f"{self._directory}/{name}")


def _make_private(path: str, mode: int) -> None:
    """Make a directory, or check that the one that is there is ours and nobody else can write to it."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.mkdir(path, mode)
    except FileExistsError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            message = f"{path} must be a directory of uid {os.geteuid()} that nobody else can write to"
            raise PermissionError(message) from None
