"""The only file of config/ that touches the system: files, users, names, patterns, for compile.py.

Runs as: compile (root keeps CAP_DAC_READ_SEARCH alone; or whoever calls perchildd).  Sees: configuration files.
Trusts: files that nobody but root can write, when root reads them.  Distrusts: everything else about them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import fnmatch
import gc
import os
import re
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass

from perchild import native
from perchild.config import certs
from perchild.config.compile import compile_tree
from perchild.config.kept import LastGood
from perchild.config.messages import Diagnostic, format_errors
from perchild.config.model import Options, Result
from perchild.config.reuse import Base, Reuse
from perchild.config.tls import renew_record
from perchild.config.tree import LoadError
from perchild.config.users import SystemUsers
from perchild.config.values import Env
from perchild.wire.plan import Plan
from perchild.wire.stamp import stamp_file

__all__ = ["LastGood", "Options", "Result", "compile_config", "compile_text", "format_errors"]

MAX_FILE_BYTES = 16 << 20  # a configuration file; no hand and no panel writes a longer one
MAX_CERTIFICATE_BYTES = 4 << 20  # of authorities; a certificate with its chain has 10 KB
MAX_DIR_DEPTH = 20  # AP_MAX_INCLUDE_DIR_DEPTH
SETTLED_NS = 2_000_000_000  # age of a change after which another one shows: clocks of file systems go by 4 ms, of some by 2 s
_WILD = re.compile(r"[*?\[]")


class Files:
    """Reads configuration files, each once."""

    def __init__(self, caller_uid: int) -> None:
        self._is_root = caller_uid == 0
        self._texts: dict[str, str] = {}
        self._stamps: dict[str, str] = {}
        self._matches: dict[str, list[str]] = {}
        self._start_ns = time.time_ns()
        self.warnings: list[Diagnostic] = []

    def read(self, path: str) -> str:
        """Return the text of `path`; LoadError if it is no file for us."""
        text = self._texts.get(path)
        if text is None:
            text = self._texts[path] = self._read(path)
        return text

    def stamp(self, path: str) -> str:
        """Return what is another when the file, its owner or its mode is: as it was when it was read, else as it is now.

        "" if it is not there, or was changed so lately that it could be changed once more without a sign of it.
        """
        known = self._stamps.get(path)
        if known is None:
            try:
                known = self._stamps[path] = self._make_stamp(os.stat(path))
            except (OSError, ValueError):
                return ""
        return known

    def _make_stamp(self, status: os.stat_result) -> str:
        if max(status.st_ctime_ns, status.st_mtime_ns) > self._start_ns - SETTLED_NS:
            return ""
        return (f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_mode}:{status.st_uid}:"
                f"{status.st_gid}")

    def has_warned(self, path: str) -> bool:
        """Tell whether there is something odd about the file."""
        return any(warning.file == path for warning in self.warnings)

    def _read(self, path: str) -> str:
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer. Symlinks are followed: sites-enabled is made of them.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it has a NUL byte in its name"
            message = f"Could not open configuration file {path}: {reason}"
            raise LoadError(message) from None
        try:
            status = os.fstat(fd)
            self._check(path, status)
            self._stamps[path] = self._make_stamp(status)
            raw = _read_all(fd)
        except OSError as error:
            message = f"Could not read configuration file {path}: {error.strerror}"
            raise LoadError(message) from None
        finally:
            os.close(fd)
        if len(raw) > MAX_FILE_BYTES:
            message = f"Configuration file {path} is longer than {MAX_FILE_BYTES} bytes"
            raise LoadError(message)
        if b"\0" in raw:
            message = f"Configuration file {path} contains a NUL byte (line {raw[: raw.index(0)].count(10) + 1}): it is no text file"
            raise LoadError(message)
        return raw.decode("utf-8", "surrogateescape")

    def _check(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            message = f"Configuration file {path} is not a regular file"
            raise LoadError(message)
        if status.st_size > MAX_FILE_BYTES:
            message = f"Configuration file {path} is longer than {MAX_FILE_BYTES} bytes"
            raise LoadError(message)
        if not self._is_root:
            return
        if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != 0):
            message = (f"Configuration file {path} can be written by {'others' if status.st_mode & stat.S_IWOTH else 'its group'}: "
                       f"root does not read it; chmod go-w {path}")
            raise LoadError(message)
        if status.st_uid != 0:
            self.warnings.append(Diagnostic(path, 0, f"{path} belongs to uid {status.st_uid}, who can name any identity in it; "
                                                     f"chown root {path}", code=""))

    def match(self, pattern: str) -> list[str]:
        """Return the files that `pattern` stands for, sorted: one file, all files below a directory, or a wildcard's."""
        found = self._matches.get(pattern)
        if found is None:
            found = self._matches[pattern] = self._match(pattern)
        return found

    def _match(self, pattern: str) -> list[str]:
        paths = _expand(pattern) if _WILD.search(pattern) else ([pattern] if os.path.lexists(pattern) else [])
        found: list[str] = []
        for path in paths:
            if self._is_directory(path):
                _walk(path, found, 0)
            else:
                found.append(path)
        return found

    def _is_directory(self, path: str) -> bool:
        """Tell whether a path leads to a directory; the stamp is taken with the same look."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return False
        if stat.S_ISDIR(status.st_mode):
            return True
        self._stamps.setdefault(path, self._make_stamp(status))
        return False

    def exists(self, path: str) -> bool:
        """Tell whether `path` exists."""
        return os.path.exists(path)


def _read_all(fd: int) -> bytes:
    parts = []
    total = 0
    while total <= MAX_FILE_BYTES:
        part = os.read(fd, 1 << 20)
        if not part:
            break
        parts.append(part)
        total += len(part)
        if len(part) < 65536:  # noqa: PLR2004 (a regular file's short read is its end; the next read would say so)
            tail = os.read(fd, 1 << 20)
            if not tail:
                break
            parts.append(tail)
            total += len(tail)
    return b"".join(parts)


def _expand(pattern: str) -> list[str]:
    """Return the paths that match a wildcard, component by component, sorted (httpd: names that begin with a dot too)."""
    paths, is_listed = ["/"], False  # is_listed: they come from directories, and so are there
    for part in pattern.strip("/").split("/"):
        is_listed = bool(_WILD.search(part))
        if not is_listed:
            paths = [os.path.join(path, part) for path in paths]
            continue
        following: list[str] = []
        for path in paths:
            try:
                names = sorted(os.listdir(path))
            except OSError:
                continue
            is_match = re.compile(fnmatch.translate(part)).match
            following += [os.path.join(path, name) for name in names if is_match(name) and (name[0] != "." or part[0] == ".")]
        paths = following
    return paths if is_listed else [path for path in paths if os.path.lexists(path)]


def _walk(path: str, found: list[str], depth: int) -> None:
    if depth > MAX_DIR_DEPTH:
        message = f"Directory {path} exceeds the maximum include directory nesting level of {MAX_DIR_DEPTH}"
        raise LoadError(message)
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        message = f"Could not open config directory {path}: {error.strerror}"
        raise LoadError(message) from None
    for name in names:
        full = os.path.join(path, name)
        if os.path.isdir(full):
            _walk(full, found, depth + 1)
        else:
            found.append(full)


# --- patterns, names, log directories ----------------------------------------------------------------------------


def check_pattern(pattern: str) -> str | None:
    """Return what PCRE2 finds wrong with `pattern`, None if nothing; with Python's re where the library is not there."""
    library = _load_pcre2()
    if library is None:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"{error.msg} at offset {error.pos}"
        return None
    raw = pattern.encode("utf-8", "surrogateescape")
    code, offset = ctypes.c_int(), ctypes.c_size_t()
    compiled = library.pcre2_compile_8(raw, ctypes.c_size_t(len(raw)), ctypes.c_uint32(0), ctypes.byref(code), ctypes.byref(offset), None)
    if compiled:
        library.pcre2_code_free_8(ctypes.c_void_p(compiled))
        return None
    text = ctypes.create_string_buffer(256)
    library.pcre2_get_error_message_8(code, text, ctypes.c_size_t(256))
    return f"{text.value.decode('ascii', 'replace')} at offset {offset.value}"


_PCRE2: list[ctypes.CDLL | None] = []


def _load_pcre2() -> ctypes.CDLL | None:
    if not _PCRE2:
        try:
            library = ctypes.CDLL("libpcre2-8.so.0")
            library.pcre2_compile_8.restype = ctypes.c_void_p
            library.pcre2_code_free_8.restype = None
            _PCRE2.append(library)
        except (OSError, AttributeError):
            _PCRE2.append(None)
    return _PCRE2[0]


def resolve_name(name: str) -> list[tuple[int, bytes]]:
    """Return the addresses of a host name as (4|6, packed)."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    families = {socket.AF_INET: 4, socket.AF_INET6: 6}
    return list(dict.fromkeys((families[family], socket.inet_pton(family, str(address[0]).partition("%")[0]))
                              for family, _, _, _, address in found if family in families))


class Directories:
    """Answers whether root may open files in a directory: only if nobody else can put anything there."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, frozenset[int]], bool] = {}

    def may_root_open(self, path: str, gids: frozenset[int]) -> bool:
        """Tell whether the directory of `path`, and all above it, are root's and closed to others and to the groups `gids`."""
        return self._is_roots(os.path.dirname(path), gids, 0)

    def _is_roots(self, path: str, gids: frozenset[int], depth: int) -> bool:
        known = self._known.get((path, gids))
        if known is None:
            known = self._known[path, gids] = self._look(path, gids, depth)
        return known

    def _look(self, path: str, gids: frozenset[int], depth: int) -> bool:
        if depth > MAX_DIR_DEPTH:
            return False
        if path != "/" and not self._is_roots(os.path.dirname(path), gids, depth + 1):
            return False
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
                return status.st_uid == 0 and self._is_roots(target, gids, depth + 1)
        except OSError:
            return False
        writable = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid in gids)
        return status.st_uid == 0 and not writable


# --- certificates ------------------------------------------------------------------------------------------------


class CertificateFiles:
    """Certificates and keys in the system's files (certs.World). Each is read once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._facts: dict[tuple[str, str], native.CertFacts] = {}
        self._lists: dict[str, str | None] = {}

    def read(self, path: str) -> str:
        """Return the text of a file with certificates; UnreadableError."""
        text = self._texts.get(path)
        if text is None:
            fd = _open_plain(path)
            try:
                text = self._texts[path] = os.read(fd, MAX_CERTIFICATE_BYTES).decode("ascii", "replace")
            except OSError as error:
                raise _unreadable(path, error) from None
            finally:
                os.close(fd)
        return text

    def stamp(self, path: str) -> str:
        """Return device, inode, size and time of a file's last change, "" if it is not there."""
        return stamp_file(path)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory; UnreadableError."""
        try:
            return os.listdir(path)
        except OSError as error:
            raise _unreadable(path, error) from None

    def check(self, pem: str, key_path: str) -> native.CertFacts:
        """Look at a certificate and its key; UnreadableError."""
        found = self._facts.get((pem, key_path))
        if found is None:
            fd = _open_plain(key_path)
            try:
                found = self._facts[pem, key_path] = native.check_certificate(pem.encode("ascii", "replace"), fd)
            finally:
                os.close(fd)
        return found

    def check_list(self, pem: str) -> str | None:
        """Return what is wrong with certificates or revocation lists, None if all can be read."""
        if pem not in self._lists:
            self._lists[pem] = native.check_certificate_list(pem.encode("ascii", "replace"))
        return self._lists[pem]

    def command(self, name: str, value: str) -> str | None:
        """Return what is wrong with a command of SSL_CONF_cmd(3)."""
        return native.check_tls_command(name, value)

    def now_s(self) -> int:
        """Return the time."""
        return int(time.time())


@dataclass(frozen=True, slots=True)
class Renewed:
    """A record whose certificates were read again: its bytes; the files, with their stamps; what the operator should know.

    held: why hosts go on with what they had, "" = none does; is_old: the record is the one that there was, for the children that run
    have a key that is no longer on disk.
    """

    raw: bytes
    files: tuple[tuple[str, str], ...]
    said: list[str]
    held: str = ""
    is_old: bool = False


def renew_record_file(path: str, keys: tuple[str, ...], *, may_break: bool) -> Renewed:
    """Read the certificates of a record again.

    Args:
        path: of the record.
        keys: of its identity, by KEY_NUMBER.
        may_break: also if a host that works would not then.
    """
    store = certs.Store(keys={key: number for number, key in enumerate(keys)})
    with open(path, "rb") as file:
        old = file.read()
    raw, said = renew_record(old, CertificateFiles(), store)
    files = tuple(store.files.items())
    if store.lost and not may_break:
        return Renewed(old, files, list(dict.fromkeys(store.lost)), store.lost[0], is_old=True)
    return Renewed(raw, files, said, store.kept[0] if store.kept else "")


def _open_plain(path: str) -> int:
    """Open a regular file for reading; UnreadableError. A FIFO must not hold us up."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_CERTIFICATE_BYTES:
        return fd
    os.close(fd)
    message = f"{path} is {'too long' if stat.S_ISREG(status.st_mode) else 'no regular file'}"
    raise certs.UnreadableError(message)


def _unreadable(path: str, error: Exception) -> certs.UnreadableError:
    reason = error.strerror if isinstance(error, OSError) else "it has a NUL byte in its name"
    return certs.UnreadableError(f"{path} cannot be read ({reason}): write it, or name the file that there is")


def make_env(options: Options) -> Env:
    """Return the world outside as compile.py asks for it."""
    return Env(server_root=options.server_root, environ=options.environ, users=SystemUsers(), resolve=resolve_name,
               check_pattern=check_pattern, is_directory=os.path.isdir, may_root_open=Directories().may_root_open,
               has_ipv6=os.path.exists("/proc/net/if_inet6"), tls=CertificateFiles())


def make_reuse(options: Options, notes: bytes, base: Plan | None) -> tuple[Reuse, Files]:
    """Return what an earlier compilation knows, and the files for this one. base: the plan in force, which notes are older than."""
    files = Files(options.caller_uid)
    known = Base()
    if base is not None:
        try:
            present = frozenset(os.listdir(f"{base.run_dir}/records"))
        except OSError:
            present = frozenset()
        known = Base({identity.number: identity for identity in base.identities}, present)
    return Reuse(files, notes, known, time.time()), files


def compile_config(options: Options, known_numbers: Mapping[str, int], *, is_isolating: bool = False,
                   reuse: tuple[Reuse, Files] | None = None) -> Result:
    """Compile the configuration that `options` names, with the system's files and users.

    Args:
        options: what the command line says.
        known_numbers: identity key -> its stable number; new identities get the next free one.
        is_isolating: a broken site is replaced by its last good version (isolate.py) and does not fail the whole.
        reuse: of make_reuse; it knows more afterwards.
    Returns:
        Result; errors end up in format_errors, in order.
    Runs as: compile.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # nothing here is cyclic; the collector would only go through the growing tree, again and again
    try:
        known, files = reuse or (None, Files(options.caller_uid))
        return compile_tree(options, make_env(options), files, known_numbers, None, LastGood if is_isolating else None, known)
    finally:
        if was_enabled:
            gc.enable()


def compile_text(text: str, options: Options, known_numbers: Mapping[str, int] | None = None, env: Env | None = None) -> Result:
    """Compile `text` as if it were options.config_file; for tests and tools. env: another world than the system's."""
    return compile_tree(options, env or make_env(options), Files(options.caller_uid), known_numbers or {}, text)
