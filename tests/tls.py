"""TLS for tests: certificates made by openssl when they are needed, and a client's socket that says its server name by itself.

Runs as: the developer.  Before: lab.py
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_HOST = re.compile(rb"^(?:[A-Z]+ [a-z]+://([^/: ]+)|.*?\r\nHost:[ \t]*([^\r\n:]+))", re.DOTALL | re.IGNORECASE)
KINDS = {"ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "rsa": ("-newkey", "rsa:2048")}


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a certificate and its key, both PEM."""

    path: Path
    key: Path

    def numbers(self) -> list[bytes]:
        """Return what of the key is nobody else's business, as OpenSSL holds it: words of 64 bits, the least first; and as it is written.

        That is the private exponent and the primes of an RSA key, the private number of an elliptic one.
        """
        text = run("openssl", "pkey", "-in", str(self.key), "-noout", "-text")
        found = re.findall(r"(?:^|\n)(?:priv|privateExponent|prime1|prime2):\n((?:    [0-9a-f:]+\n)+)", text)
        raw = [bytes.fromhex(re.sub(r"[\s:]", "", one)).lstrip(b"\0") for one in found]
        assert raw, f"{self.key}: no private number in it"
        return [form for one in raw for form in (one, one[::-1])]


def run(*command: str, text: str = "") -> str:
    """Return a command's output; its words if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def make_certificate(directory: Path, name: str, *, kind: str = "ec", days: int = 30, issuer: Certificate | None = None,
                     is_authority: bool = False, file: str = "") -> Certificate:
    """Make a certificate for `name` (and what is below it), its key 0600; self-signed without an issuer.

    kind: "ec" or "rsa"; file: what the files are called, else as name.
    """
    made = Certificate(directory / f"{file or name}.crt", directory / f"{file or name}.key")
    if issuer is None:
        run("openssl", "req", "-x509", *KINDS[kind], "-nodes", "-days", str(days), "-subj", f"/CN={name}", "-keyout", str(made.key),
            "-out", str(made.path), "-config", "/dev/null", "-addext", f"basicConstraints={'critical,CA:TRUE' if is_authority else 'CA:FALSE'}",
            "-addext", f"subjectAltName=DNS:{name},DNS:*.{name}")
    else:
        _sign(made, name, kind, days, issuer)
    made.key.chmod(0o600)
    return made


def _sign(made: Certificate, name: str, kind: str, days: int, issuer: Certificate) -> None:
    request = run("openssl", "req", "-new", *KINDS[kind], "-nodes", "-subj", f"/CN={name}", "-keyout", str(made.key), "-config", "/dev/null")
    run("openssl", "x509", "-req", "-days", str(days), "-CA", str(issuer.path), "-CAkey", str(issuer.key), "-CAcreateserial",
        "-out", str(made.path), text=request)


def client_context(version: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return what a client's connections are made with: it believes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class TlsSocket:
    """A client's connection as tests of plain HTTP use it. The handshake comes before the first bytes, with the name that they ask for."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, default_name: str) -> None:
        """sock: connected; default_name: said where the first bytes name no host."""
        self._sock: socket.socket = sock
        self._context, self._default_name = context, default_name
        self._is_open = False

    def open(self, name: str | None) -> ssl.SSLSocket:
        """Make the handshake now, for this server name (None: for none), and return the socket."""
        self._sock = self._context.wrap_socket(self._sock, server_hostname=name)
        self._is_open = True
        return self._sock

    def _open_for(self, data: bytes) -> None:
        if not self._is_open:
            found = _HOST.match(bytes(data))
            name = (found.group(1) or found.group(2)).decode("latin-1").strip().lower().rstrip(".") if found else ""
            is_name = re.fullmatch(r"(?=.*[a-z])[a-z0-9_.-]{1,250}", name) is not None
            self.open(name if is_name else self._default_name)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send; the first call makes the handshake."""
        self._open_for(data)
        self._sock.sendall(data, flags)

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send; the first call makes the handshake."""
        self._open_for(data)
        return self._sock.send(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive; an end without a goodbye is an end, too."""
        with contextlib.suppress(ssl.SSLEOFError):
            return self._sock.recv(size, flags)
        return b""

    def shutdown(self, how: int) -> None:
        """Half-close: with a goodbye, and the socket's own."""
        if self._is_open and isinstance(self._sock, ssl.SSLSocket):
            raw = socket.socket(fileno=socket.dup(self._sock.fileno()))
            with raw:
                raw.shutdown(how)
            return
        self._sock.shutdown(how)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        """Return what the socket has: close, fileno, settimeout..."""
        return getattr(self._sock, name)
