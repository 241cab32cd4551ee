"""Certificates for tests, made by openssl: self-signed or by an authority, for any time, with RSA or ECDSA keys."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEYS = {"rsa": ("rsa:2048",), "rsa1024": ("rsa:1024",), "ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")}


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a certificate and its key, both in PEM form."""

    cert: Path
    key: Path

    def directives(self) -> str:
        """Return the lines of a host that speaks TLS with it."""
        return f"SSLEngine On\nSSLCertificateFile {self.cert}\nSSLCertificateKeyFile {self.key}\n"


def make_certificate(directory: Path, name: str, *, kind: str = "ecdsa", days: int = 60, file: str = "",
                     names: Sequence[str] = ()) -> Certificate:
    """Make a certificate for the host `name`, self-signed, in directory/file.crt and .key (0600).

    Args:
        directory: where.
        name: of the host.
        kind: of the key (KEYS).
        days: how long it is valid from now on; negative: it has expired so many days ago.
        file: name without suffix; default: name.
        names: all that it is good for; default: name alone.
    """
    cert, key = directory / f"{file or name}.crt", directory / f"{file or name}.key"
    times = ["-days", str(days)]
    if days < 0:
        times = ["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"]
    command = ["openssl", "req", "-x509", "-newkey", *KEYS[kind], "-nodes", "-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}",
               "-addext", "subjectAltName=" + ",".join(f"DNS:{one}" for one in names or [name])]
    if days < 0 and not _knows_dates():
        _make_expired(cert, key, name, kind)
    else:
        subprocess.run([*command, *times], check=True, capture_output=True)
    key.chmod(0o600)
    return Certificate(cert, key)


def sign_certificate(directory: Path, name: str, issuer: Certificate, *, is_authority: bool = False) -> Certificate:
    """Make a certificate for `name`, which may be a client's or an authority's, signed by `issuer`, in directory/name.crt and .key (0600)."""
    made = Certificate(directory / f"{name}.crt", directory / f"{name}.key")
    request = directory / f"{name}.request"
    subprocess.run(["openssl", "req", "-new", "-newkey", *KEYS["ecdsa"], "-nodes", "-keyout", str(made.key), "-out", str(request),
                    "-subj", f"/O=Tests/CN={name}"], check=True, capture_output=True)
    extensions = directory / f"{name}.extensions"
    extensions.write_text("basicConstraints = critical, CA:TRUE\n" if is_authority else f"subjectAltName = DNS:{name}\n")
    subprocess.run(["openssl", "x509", "-req", "-in", str(request), "-days", "60", "-CA", str(issuer.cert), "-CAkey", str(issuer.key),
                    "-set_serial", "4711", "-extfile", str(extensions), "-out", str(made.cert)], check=True, capture_output=True)
    made.key.chmod(0o600)
    return made


def private_numbers(made: Certificate) -> list[bytes]:
    """Return what of the key is nobody else's business: of RSA the private exponent and the primes, else the private number.

    Each twice: as it is written, and as OpenSSL holds it, the least byte first.
    """
    text = subprocess.run(["openssl", "pkey", "-in", str(made.key), "-noout", "-text"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"(?:^|\n)(?:priv|privateExponent|prime1|prime2):\n((?:    [0-9a-f:]+\n)+)", text)
    raw = [bytes.fromhex(re.sub(r"[\s:]", "", one)).lstrip(b"\0") for one in found]
    assert raw, f"{made.key}: no private number in it"
    return [form for one in raw for form in (one, one[::-1])]


def _knows_dates() -> bool:
    """Whether openssl req has -not_before (3.4 and newer)."""
    return b"-not_before" in subprocess.run(["openssl", "req", "-help"], capture_output=True, check=False).stderr


def _make_expired(cert: Path, key: Path, name: str, kind: str) -> None:
    """As openssl x509 and req cannot give times in the past before 3.4, but openssl ca can."""
    directory = cert.parent / f".ca-{cert.name}"
    directory.mkdir()
    (directory / "index.txt").write_text("")
    (directory / "config").write_text(
        f"[ca]\ndefault_ca = one\n[one]\ndatabase = {directory}/index.txt\nnew_certs_dir = {directory}\nrand_serial = yes\n"
        "default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n")
    request = directory / "request"
    subprocess.run(["openssl", "req", "-new", "-newkey", *KEYS[kind], "-nodes", "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}"],
                   check=True, capture_output=True)
    subprocess.run(["openssl", "ca", "-batch", "-selfsign", "-config", str(directory / "config"), "-keyfile", str(key), "-in", str(request), "-notext",
                    "-out", str(cert), "-startdate", "20200101000000Z", "-enddate", "20200201000000Z"], check=True, capture_output=True)
