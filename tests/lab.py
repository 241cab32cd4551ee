"""A whole server under test: real tenants (numeric uids that no user has), real files, real processes, one port.

`Lab` is a context: it makes its directory below /tmp, starts `perchildd` in the foreground, waits for READY (not for time),
and at the end stops the server and fails if it left a process or wrote something unexpected to its standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from perchild.control.client import ask_server
from tests.certs import Certificate, make_certificate
from tests.tls import TlsSocket, client_context

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:] or 0)
BASE_UID = 50000 + 500 * WORKER
START_S = 60.0
PATIENCE_S = 30.0  # far more than a busy machine needs: what takes longer does not come
SAFE_DIR = "/run" if os.geteuid() == 0 else None  # root writes no log below a directory that others can write


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant: its name is also its host's first label (`alice` serves alice.test)."""

    name: str
    uid: int
    home: Path

    @property
    def docroot(self) -> Path:
        """The host's DocumentRoot, 0700 of the tenant."""
        return self.home / "public"

    @property
    def host(self) -> str:
        """The host's ServerName."""
        return f"{self.name}.test"

    def write(self, name: str, data: bytes | str, mode: int = 0o600) -> Path:
        """Put a file into the document root, owned by the tenant."""
        path = self.docroot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        for one in (path, *path.parents):
            if one == self.home:
                break
            os.chown(one, self.uid, self.uid)
        return path

    def put_programs(self, programs: Mapping[str, str]) -> Path:
        """Make cgi-bin, beside the document root, with `programs` in it; return its path."""
        directory = self.home / "cgi-bin"
        directory.mkdir()
        for name, text in programs.items():
            (directory / name).write_text(text)
        for path in (directory, *directory.iterdir()):
            path.chmod(0o700)
            os.chown(path, self.uid, self.uid)
        return directory


class Lab:
    """A server, its tenants and its configuration."""

    def __init__(self, config: str = "", *, names: tuple[str, ...] = ("alice", "bob", "carol"), host_config: str = "",
                 accept_scope: str = "unassigned", vhosts: bool = True, tls: bool | None = None, h2: bool | None = None) -> None:
        """Make directories and tenants.

        config: directives before the hosts; host_config: directives inside each host; vhosts: write a VirtualHost for each.
        tls: hosts speak TLS, and so do this lab's clients, with the name they ask for as SNI; None: as pytest's --tls says.
        h2: hosts speak HTTP/2 besides HTTP/1.1, and this lab's clients ask by it; None: as pytest's --h2 says, on labs with its say on TLS.
        """
        self.h2 = h2 if h2 is not None else tls is None and bool(os.environ.get("PERCHILD_TEST_H2"))
        self.tls = tls if tls is not None else vhosts and bool(os.environ.get("PERCHILD_TEST_TLS"))
        self.base = Path(tempfile.mkdtemp(prefix="perchild-lab.", dir=SAFE_DIR))
        self.base.chmod(0o711)
        self.port = free_port()
        self.certificates: dict[str, Certificate] = {}  # by tenant's name
        self.client = client_context(alpn=("h2",) if self.h2 else ())
        self.tls_directory = self.base / "tls"
        self.tls_directory.mkdir(mode=0o700)
        self.tenants = {name: self._make_tenant(name, BASE_UID + 1 + index) for index, name in enumerate(names)}
        self.accept_scope, self.config, self.host_config, self.has_vhosts = accept_scope, config, host_config, vhosts
        self.user_uid = BASE_UID + 499
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.base / "log"
        self.log.mkdir()
        self.run = self.base / "run"
        self.main_root = self.base / "main"
        self.main_root.mkdir()
        (self.main_root / "index.html").write_text("main\n")
        self.config_path = self.base / "perchild.conf"
        self.config_tail = ""  # behind the hosts
        self.assign: dict[str, str] = {}  # tenant's name -> what stands behind AssignUserID instead of its numbers
        self.prefix: list[str] = []  # a program that execs the server
        self._socks: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def _make_tenant(self, name: str, uid: int) -> Tenant:
        tenant = Tenant(name, uid, self.base / name)
        tenant.docroot.mkdir(parents=True)
        for path in (tenant.home, tenant.docroot):
            path.chmod(0o700)
            os.chown(path, uid, uid)
        tenant.write("index.html", f"{name}\n")
        return tenant

    def add_tenant(self, name: str) -> Tenant:
        """Make one more tenant; the server knows it after a reload()."""
        uid = 1 + max((one.uid for one in self.tenants.values()), default=BASE_UID)
        self.tenants[name] = self._make_tenant(name, uid)
        return self.tenants[name]

    # ------------------------------------------------------------------ configuration

    def host_block(self, tenant: Tenant, extra: str = "") -> str:
        """Return the VirtualHost of one tenant."""
        identity = self.assign.get(tenant.name, f"#{tenant.uid} #{tenant.uid}")
        return (f"<VirtualHost *:{self.port}>\nServerName {tenant.host}\nDocumentRoot {tenant.docroot}\n"
                f"AssignUserID {identity}\n<Directory {tenant.docroot}>\nRequire all granted\n</Directory>\n"
                f"<Location /whoami>\nSetHandler whoami\n</Location>\n{self.tls_block(tenant)}{self.host_config}\n{extra}\n</VirtualHost>\n")

    def main_block(self) -> str:
        """Return the VirtualHost of main.test, which is nobody's: an unassigned child serves it."""
        return (f"<VirtualHost *:{self.port}>\nServerName main.test\nDocumentRoot {self.main_root}\n"
                f"<Directory {self.main_root}>\nRequire all granted\n</Directory>\n{self.tls_of('main')}</VirtualHost>\n")

    def certificate(self, name: str) -> Certificate:
        """Return the certificate of name.test, made when it is first asked for; its key is root's alone."""
        if name not in self.certificates:
            self.certificates[name] = make_certificate(self.tls_directory, f"{name}.test")
        return self.certificates[name]

    def tls_block(self, tenant: Tenant) -> str:
        """Return the directives that make a host speak TLS, if this lab's do."""
        return self.tls_of(tenant.name)

    def tls_of(self, name: str) -> str:
        """Return the same for any host, name.test."""
        return self.certificate(name).directives() if self.tls else ""

    def config_text(self) -> str:
        """Return the whole configuration."""
        hosts = "".join(self.host_block(tenant) for tenant in self.tenants.values()) if self.has_vhosts else ""
        protocols = f"Protocols {'h2' if self.tls else 'h2c'} http/1.1\n" if self.h2 else ""
        return (f"ServerRoot {self.base}\nDefaultRuntimeDir {self.run}\nErrorLog {self.log}/error.log\n"
                f"CustomLog {self.log}/access.log combined\nListen 127.0.0.1:{self.port}\nServerName main.test\n"
                f"User #{self.user_uid}\nGroup #{self.user_uid}\nDocumentRoot {self.main_root}\n"
                f"{protocols}AcceptScope {self.accept_scope}\n{self.config}\n{hosts}{self.config_tail}")

    def write_config(self, text: str | None = None) -> Path:
        """Write the configuration file; `text` instead of config_text()."""
        self.config_path.write_text(text if text is not None else self.config_text())
        return self.config_path

    def add_user_database(self, users: list[str], groups: list[str]) -> None:
        """Let the server see more users and groups (lines of passwd and group) than the machine has: a mount of its own."""
        for name, lines in (("passwd", users), ("group", groups)):
            (self.base / name).write_text(Path(f"/etc/{name}").read_text() + "\n".join(lines) + "\n")
        script = f'mount --bind {self.base}/passwd /etc/passwd && mount --bind {self.base}/group /etc/group && exec "$@"'
        self.prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]

    # ------------------------------------------------------------------ life

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of perchildd for this configuration."""
        return [*self.prefix, PYTHON, "-m", "perchild", "-d", str(self.base), "-f", str(self.config_path), *arguments]

    def cli(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run perchildd with `arguments` and wait for it."""
        return subprocess.run(self.command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> Self:
        """Start the server in the foreground and wait until it says READY."""
        self.write_config()
        with notify_socket(self.base) as (path, sock):
            self.process = subprocess.Popen(
                self.command("-D", "FOREGROUND", *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": path, **(environment or {})}, start_new_session=True)
            wait_ready(sock, self.process)
        self._wait_for_uids()
        return self

    def _wait_for_uids(self) -> None:
        """READY is said when one child is up; wait until those that were forked with it have become who they are, if they can."""
        deadline = time.monotonic() + START_S
        while os.geteuid() == 0 and time.monotonic() < deadline and any(uid_of(pid) == 0 for pid in self.children()):
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60) -> str:
        """Stop the server; return what it printed. Fails if a process of it stays behind."""
        if self.process is None:
            return ""
        process, self.process = self.process, None
        pids = tree_of(process.pid)
        process.send_signal(number)
        try:
            output = process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired:
            kill_all(pids)
            process.kill()
            process.communicate()
            raise
        left = {pid: f"{comm_of(pid)} {uid_of(pid)}" for pid in pids if is_alive(pid)}
        kill_all(list(left))
        assert not left, f"processes left behind: {left}"
        return output.decode(errors="replace")

    def close(self) -> None:
        """Stop what runs and remove every file."""
        try:
            self.stop()
        finally:
            for sock in tuple(self._socks):
                sock.close()
            shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> Self:
        """Nothing: start() is explicit."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    # ------------------------------------------------------------------ looking at it

    @property
    def pid(self) -> int:
        """The dispatcher's pid."""
        assert self.process is not None
        return self.process.pid

    def status(self) -> dict[str, Any]:
        """Ask the control socket for the status."""
        return ask_server(str(self.run), {"op": "status"})

    def children(self, uid: int | None = None) -> list[int]:
        """Return pids of the server's children, of one uid if given; runners and what they execute are none."""
        programs = {one for pid in self.runners() for one in tree_of(pid)}
        return [pid for pid in tree_of(self.pid)[1:]
                if pid not in programs and (uid is None or uid_of(pid) == uid) and comm_of(pid) != "pc-nursery"]

    def runners(self, uid: int | None = None) -> list[int]:
        """Return pids of the runners, of one uid if given."""
        return [pid for pid in tree_of(self.pid)[1:] if comm_of(pid).startswith("pr:") and (uid is None or uid_of(pid) == uid)]

    @property
    def nursery(self) -> int:
        """The pid of the process that tenants' children are forked from."""
        return next(pid for pid in tree_of(self.pid)[1:] if uid_of(pid) == 0 and comm_of(pid) == "pc-nursery")

    def reload(self) -> dict[str, Any]:
        """Write the configuration anew and reload; return the answer ({"ok": ..., "text": ...})."""
        self.write_config()
        return ask_server(str(self.run), {"op": "graceful"})

    def connect(self, timeout_s: float = PATIENCE_S) -> socket.socket:
        """Return a new connection to the server; close() closes what is left of them."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        self._socks.add(sock)
        return self.speak(sock)

    def speak(self, sock: socket.socket) -> socket.socket:
        """Return what speaks as this lab's clients do on a connected socket."""
        spoken: Any = TlsSocket(sock, self.client, next(iter(self.tenants.values())).host) if self.tls else sock
        if self.h2:
            from tests.h2socket import H2Socket  # noqa: PLC0415 - it wants a library that other runs can do without
            spoken = H2Socket(spoken)
        return cast("socket.socket", spoken)

    @property
    def version(self) -> str:
        """What this lab's clients speak, as the server calls it."""
        return "HTTP/2.0" if self.h2 else "HTTP/1.1"

    @property
    def scheme(self) -> str:
        """The scheme of this lab's URLs."""
        return "https" if self.tls else "http"

    def connect_tls(self, name: str | None, *, context: ssl.SSLContext | None = None, timeout_s: float = PATIENCE_S) -> ssl.SSLSocket:
        """Return a new connection behind its handshake for the server name `name`."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        self._socks.add(sock)
        return (context or self.client).wrap_socket(sock, server_hostname=name)

    def get(self, host: str, path: str = "/", *, method: str = "GET", fields: dict[str, str] | None = None,
            body: bytes = b"", timeout_s: float = PATIENCE_S) -> Response:
        """Make one request on a connection of its own."""
        extra = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        raw = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{extra}\r\n".encode() + body
        return parse_response(self.exchange(raw, timeout_s=timeout_s), method)

    def exchange(self, raw: bytes, *, timeout_s: float = PATIENCE_S) -> bytes:
        """Send bytes and return everything until the server closes."""
        with self.connect(timeout_s) as sock:
            sock.sendall(raw)
            return read_all(sock)

    def error_log(self) -> str:
        """Return the error log's text."""
        path = self.log / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""


@dataclass(frozen=True, slots=True)
class Response:
    """One response: status, fields by lower-case name (last wins), all fields, body."""

    status: int
    fields: dict[str, str]
    all_fields: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def parse_response(raw: bytes, method: str = "GET") -> Response:
    """Parse one whole response that ended with the connection (chunked bodies are joined)."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    pairs = tuple((name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
    fields = {name.lower(): value for name, value in pairs}
    if fields.get("transfer-encoding") == "chunked" and method != "HEAD":
        body = join_chunks(body)
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
    return Response(status, fields, pairs, body, raw)


def join_chunks(raw: bytes) -> bytes:
    """Return the data of a chunked body."""
    parts, at = [], 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        length = int(raw[at:end].split(b";")[0], 16)
        if not length:
            break
        parts.append(raw[end + 2:end + 2 + length])
        at = end + 4 + length
    return b"".join(parts)


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side closes (a reset ends it too)."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_response(sock: socket.socket, method: str = "GET") -> Response:
    """Read one response with a Content-Length from a connection that stays open."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = sock.recv(65536)
        if not part:
            break
        raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    length = 0
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and method != "HEAD":
            length = int(value)
    while len(body) < length:
        part = sock.recv(65536)
        if not part:
            break
        body += part
    return parse_response(head + b"\r\n\r\n" + body, method)


@contextlib.contextmanager
def notify_socket(directory: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket: yields its path and the socket."""
    path = directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(START_S)
        yield str(path), sock
    path.unlink()


def wait_ready(sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Wait for READY=1, or fail with what the server printed when it ended instead."""
    deadline = time.monotonic() + START_S
    sock.settimeout(0.2)
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in sock.recv(4096):
                return
        if process.poll() is not None:
            output = process.stdout.read() if process.stdout else b""
            raise AssertionError(f"the server ended with {process.returncode}: {output.decode(errors='replace')}")
    raise AssertionError("the server did not become ready")


def wait_until(condition: Any, what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Look every 10 ms until `condition()` is true; return its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {what}")


_NEXT_PORT = [12000 + 2000 * WORKER + os.getpid() % 1000]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on; each test worker has a range of its own, below those that connections get."""
    while True:
        _NEXT_PORT[0] += 1
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", _NEXT_PORT[0]))
                return _NEXT_PORT[0]


def tree_of(pid: int) -> list[int]:
    """Return pid and all its descendants."""
    pids = [pid]
    for parent in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                pids += children_of(Path(f"/proc/{parent}/task/{task}/children"))
    return pids


def children_of(path: Path) -> list[int]:
    """Return what a task's list of children says twice: while one of them ends, it may leave others out (proc_pid_children(5))."""
    last, text = None, path.read_text()
    while text != last:
        last, text = text, path.read_text()
    return [int(one) for one in text.split()]


def uid_of(pid: int) -> int:
    """Return the effective uid of a process; -1 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[2])
    return -1


def comm_of(pid: int) -> str:
    """Return the short name of a process; "" if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def kill_all(pids: list[int]) -> None:
    """Kill what is left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
