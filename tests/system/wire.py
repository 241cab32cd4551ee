"""What the tests on the wire share: a client that reads answers one by one, and an httpd of one's own to compare with.

Runs as: the tests; Httpd starts Debian's apache2 as root, which serves as a tenant's uid.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.lab import PATIENCE_S, Lab, Response, free_port, parse_response, wait_until

MODULES = Path("/usr/lib/apache2/modules")
APACHE = shutil.which("apache2") or "/usr/sbin/apache2"
HAS_APACHE = Path(APACHE).exists() and MODULES.is_dir()
HTTPD_MODULES = ["mpm_event", "authz_core", "authz_host", "access_compat", "alias", "autoindex", "dir", "env", "headers", "mime",
                 "setenvif", "filter", "negotiation", "authn_core"]


class Client:
    """One connection; answers are read one by one, whatever frames them."""

    def __init__(self, address: tuple[str, int], *, timeout_s: float = PATIENCE_S, source: str = "") -> None:
        """Connect; source: the client's own address."""
        self.sock = socket.create_connection(address, timeout=timeout_s, source_address=(source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.is_over = False

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.sock.close()

    def send(self, raw: bytes | str) -> None:
        """Send all of it; a server that has closed is not an error here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(raw.encode() if isinstance(raw, str) else raw)

    def fill(self) -> bool:
        """Read once; False at the end."""
        if self.is_over:
            return False
        part = b""
        with contextlib.suppress(ConnectionResetError):
            part = self.sock.recv(1 << 20)
        self.buffer += part
        self.is_over = not part
        return bool(part)

    def read(self, method: str = "GET") -> Response | None:
        """Return the next answer (interim ones too); None at the end."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                assert not self.buffer, f"the server ended within a head: {bytes(self.buffer[:200])!r}"
                return None
        head = self._take(self.buffer.index(b"\r\n\r\n") + 4)
        body = self._read_body(parse_response(head, method), method)
        return parse_response(head + body, method)

    def _read_body(self, head: Response, method: str) -> bytes:
        if method == "HEAD" or head.status in {204, 304} or head.status < 200:
            return b""
        if head.fields.get("transfer-encoding") == "chunked":
            return self._read_chunks()
        if "content-length" in head.fields:
            return self._take(int(head.fields["content-length"]))
        while self.fill():
            pass
        return self._take(len(self.buffer))

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert self.fill(), f"the server ended {size - len(self.buffer)} bytes too early"
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int((line := self._take_line()).split(b";")[0], 16):
            parts += [line, self._take(size + 2)]
        parts.append(line)
        while (line := self._take_line()) != b"\r\n":  # trailers
            parts.append(line)
        return b"".join([*parts, line])

    def _take_line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n")) < 0:
            assert self.fill(), "the server ended within a chunk"
        return self._take(end + 2)

    def ask(self, raw: bytes | str) -> Response:
        """Send one request and return its final answer; fails if there is none."""
        self.send(raw)
        method = (raw.decode("latin-1") if isinstance(raw, bytes) else raw).split(" ", 1)[0]
        while (answer := self.read(method)) is not None:
            if answer.status >= 200:
                return answer
        raise AssertionError(f"no answer to {raw[:200]!r}")

    def end(self) -> None:
        """Send no more, and wait for the server's end: its lines in the log are ahead of those of later connections then."""
        self.sock.shutdown(socket.SHUT_WR)
        while self.fill():
            pass

    def reads_end(self) -> bool:
        """Whether the server says nothing more and ends the connection; TimeoutError if it keeps it."""
        while self.fill():
            pass
        return not self.buffer


def client(lab: Lab, address: tuple[str, int] | None = None, **more: object) -> Client:
    """Return a connection to the server of `lab`, which speaks as the lab does; address: another one of the server's."""
    made = Client(address or ("127.0.0.1", lab.port), **more)  # type: ignore[arg-type]
    made.sock = lab.speak(made.sock)
    return made


def get(host: str, path: str = "/", *fields: str, method: str = "GET") -> bytes:
    """Return the bytes of one request that keeps the connection."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode("utf-8", "surrogateescape")


class Httpd:
    """Debian's apache2 (event) with a private configuration on a loopback port."""

    def __init__(self, base: Path, uid: int, config: str, *, extra_listen: str = "") -> None:
        """base: an empty directory; uid: whom it serves as; config: all behind the basics. {port} is filled in.

        httpd runs as nobody who has no name, so it sees a passwd and a group of its own.
        """
        self.base, self.port = base, free_port()
        base.mkdir(exist_ok=True)
        base.chmod(0o711)
        loads = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in HTTPD_MODULES)
        self.config = base / "httpd.conf"
        self.config.write_text(
            f"ServerRoot {base}\nPidFile {base}/pid\nMutex posixsem\nErrorLog {base}/error.log\nServerName main.test\n{loads}TypesConfig /etc/mime.types\n"
            f"Listen 127.0.0.1:{self.port}\n{extra_listen}User #{uid}\nGroup #{uid}\n"
            + config.replace("{port}", str(self.port)))
        for name, line in (("passwd", f"lab:x:{uid}:{uid}::/:/bin/false"), ("group", f"lab:x:{uid}:")):
            (base / name).write_text(Path(f"/etc/{name}").read_text() + line + "\n")
        script = f'mount --bind {base}/passwd /etc/passwd && mount --bind {base}/group /etc/group && exec "$@"'
        self.command = ["unshare", "--mount", "sh", "-c", script, "sh", APACHE, "-f", str(self.config)]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it takes connections."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C"}
        self.process = subprocess.Popen([*self.command, "-D", "FOREGROUND"], env=environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_until(self._is_up, "apache2 takes connections")
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            said = self.process.stdout.read().decode() if self.process.stdout else ""
            log = self.base / "error.log"
            raise AssertionError(f"apache2 ended: {said} {log.read_text() if log.exists() else ''}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=60)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run apache2 with this configuration and `arguments`."""
        return subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=30,
                              env={"PATH": os.environ["PATH"], "LANG": "C"}, check=False)
