"""TLS in the configuration: what hosts say, what certificates are worth, which addresses speak it."""

from __future__ import annotations

import shutil
import ssl
import struct
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from perchild.config import directives_tls, load
from perchild.config.certs import Store
from perchild.config.tls import renew_record
from tests.certs import Certificate, make_certificate
from tests.unit.config.conftest import HEAD, World, decode, group


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Certificate]:
    """One of each kind."""
    directory = tmp_path_factory.mktemp("certs")
    kinds = {"a": {}, "other": {}, "rsa": {"kind": "rsa"}, "weak": {"kind": "rsa1024"}, "old": {"days": -1}, "soon": {"days": 3}}
    return {name: make_certificate(directory, "a.example", file=name, **given) for name, given in kinds.items()}  # type: ignore[arg-type]


class Made(NamedTuple):
    """Files that are no good."""

    der: Path
    request: Path
    cut: Path
    turned: Path
    garbage: Path


@pytest.fixture(scope="module")
def made(certs: dict[str, Certificate]) -> Made:
    """A certificate in DER form, a request, a chain that is cut off, one that is the wrong way round, and what is none."""
    directory, cert = certs["a"].cert.parent, certs["a"].cert.read_text()
    files = Made(*(directory / f"no-good.{name}" for name in Made._fields))
    der = ssl.PEM_cert_to_DER_cert(cert)
    files.der.write_bytes(der)
    files.request.write_text("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
    files.cut.write_text(cert + certs["other"].cert.read_text()[:300])
    files.turned.write_text(certs["other"].cert.read_text() + cert)
    files.garbage.write_text(cert + ssl.DER_cert_to_PEM_cert(der[:-8]))
    return files


class TlsWorld(World):
    """The world of the other tests, with the system's certificates."""

    def env(self, environ: dict[str, str] | None = None) -> Any:
        """Return the world outside."""
        env = super().env(environ)
        env.tls = load.CertificateFiles()
        return env


@pytest.fixture
def tls() -> TlsWorld:
    """A world with files."""
    return TlsWorld()


def host(text: str, *, address: str = "*:443", name: str = "a.example") -> str:
    """Return a VirtualHost."""
    return f"<VirtualHost {address}>\nServerName {name}\nDocumentRoot /srv\n{text}</VirtualHost>\n"


def box_of(world: TlsWorld, text: str) -> dict[str, Any]:
    """Return the TLS items of the one host."""
    return group(world.host(host(text))["TLS"])


def test_defaults_are_what_browsers_speak_today(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """TLS 1.2 and 1.3, tickets, no certificate asked for; ciphers are the child's own list."""
    box = box_of(tls, certs["a"].directives())
    assert box["TLS_PROTOCOLS"] == 3
    assert (box["TLS_TICKETS"], box["TLS_TIMEOUT"], box["TLS_VERIFY"], box["TLS_SERVER_ORDER"], box["TLS_STRICT"]) == (1, 300, 0, 0, 0)
    assert "TLS_CIPHERS" not in box
    assert "TLS_BROKEN" not in box
    cert = group(box["TLS_CERT"][0])
    assert cert["KEY_NUMBER"] == 0
    assert cert["KEY_PATH"] == str(certs["a"].key)
    assert cert["CERT_PEM"].count("BEGIN CERTIFICATE") == 1


def test_rsa_and_ecdsa_side_by_side(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """Each with its key; the identity's plan names the keys in their order."""
    text = certs["a"].directives() + certs["rsa"].directives().replace("SSLEngine On\n", "")
    result = tls.good(host(text))
    assert result.warnings == []
    assert result.compiled is not None
    assert result.compiled.plan.identities[0].keys == (str(certs["a"].key), str(certs["rsa"].key))
    box = box_of(tls, text)
    assert [group(one)["KEY_NUMBER"] for one in box["TLS_CERT"]] == [0, 1]


def test_hosts_share_keys_and_values_of_the_server(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """What the main server says counts for all hosts; one key is one descriptor."""
    text = certs["a"].directives() + "SSLProtocol -all +TLSv1.3\nSSLSessionTickets Off\n" + host("") + host("SSLProtocol all\n", name="b.example")
    result = tls.good(text)
    assert result.compiled is not None
    assert result.compiled.plan.identities[0].keys == (str(certs["a"].key),)
    first, second = (group(tls.host(text, index)["TLS"]) for index in (1, 2))
    assert (first["TLS_PROTOCOLS"], second["TLS_PROTOCOLS"]) == (2, 3)
    assert (first["TLS_TICKETS"], second["TLS_TICKETS"]) == (0, 0)


@pytest.mark.parametrize(("text", "words"), [
    ("SSLCertificateFile {a.cert}\nSSLCertificateKeyFile {other.key}\n", "is not that of the certificate"),
    ("SSLCertificateFile {weak.cert}\nSSLCertificateKeyFile {weak.key}\n", "too weak"),
    ("SSLCertificateFile {a.cert}\nSSLCertificateKeyFile /nowhere/key\n", "/nowhere/key cannot be read (No such file or directory)"),
    ("SSLCertificateFile /nowhere/cert\n", "/nowhere/cert cannot be read"),
    ("SSLCertificateFile {a.key}\nSSLCertificateKeyFile {a.key}\n", "holds no certificate in PEM form, but a private key: SSLCertificateFile names"),
    ("SSLCertificateFile {made.der}\nSSLCertificateKeyFile {a.key}\n", "but perhaps one in DER form: openssl x509 -inform DER"),
    ("SSLCertificateFile {made.request}\nSSLCertificateKeyFile {a.key}\n", "but a request for one"),
    ("SSLCertificateFile {made.cut}\nSSLCertificateKeyFile {a.key}\n", "holds a certificate that is cut off: write the whole file"),
    ("SSLCertificateFile {made.turned}\nSSLCertificateKeyFile {a.key}\n", "is that of a certificate further down: put that one first"),
    ("SSLCertificateFile {a.cert}\nSSLCertificateKeyFile {a.key}\nSSLCACertificateFile {made.garbage}\n", "holds a certificate that cannot be read"),
    ("SSLCertificateFile {soon.cert}\nSSLCertificateKeyFile {soon.key}\nSSLCACertificateFile /nowhere/ca\n", "/nowhere/ca cannot be read"),
    ("SSLCertificateFile {a.cert}\n", "a.crt holds no private key: name the file that does with SSLCertificateKeyFile"),
    ("SSLCertificateFile {a.cert}\nSSLCertificateKeyFile /dev/null\n", "is no regular file"),
    ("SSLCertificateFile {a.cert}\nSSLCertificateKeyFile {a.key}\nSSLCACertificateFile /nowhere/ca\n", "/nowhere/ca cannot be read"),
    ("SSLCertificateFile {a.cert}\nSSLCertificateKeyFile {a.key}\nSSLCertificateChainFile {a.key}\n", "holds no certificate"),
    ("", "SSLEngine On without a certificate"),
])
def test_what_cannot_be_used_breaks_its_own_host(tls: TlsWorld, certs: dict[str, Certificate], made: Made, text: str, words: str) -> None:
    """A warning with file, line and remedy; the record says so to the child; the other host is as it was."""
    text = host("SSLEngine On\n" + text.format(**certs, made=made)) + host(certs["rsa"].directives(), name="b.example")
    faults = [one for one in tls.good(text).warnings if "expires soon" not in one.reason]
    assert [words in one.reason and one.line > 0 and "until then this host" in one.reason for one in faults] == [True]
    broken, good = (group(tls.host(text, index)["TLS"]) for index in (1, 2))
    assert words in broken["TLS_BROKEN"]
    assert not broken.get("TLS_CERT")
    assert "TLS_BROKEN" not in good
    assert len(good["TLS_CERT"]) == 1


def test_the_good_one_of_two_is_used(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """A host is broken only if none of its certificates can be used."""
    text = "SSLEngine On\nSSLCertificateFile {a.cert}\nSSLCertificateKeyFile {other.key}\nSSLCertificateFile {rsa.cert}\nSSLCertificateKeyFile {rsa.key}\n"
    box = box_of(tls, text.format(**certs))
    assert "TLS_BROKEN" not in box
    assert [group(one)["KEY_NUMBER"] for one in box["TLS_CERT"]] == [1]
    assert ["until then the host's other certificate is used" in one.reason for one in tls.good(host(text.format(**certs))).warnings] == [True]


def test_each_host_is_told_of_what_it_lacks(tls: TlsWorld, certs: dict[str, Certificate], tmp_path: Path) -> None:
    """What names no file is said for each host; a key without a certificate, and authorities that are none, are said, too."""
    bare = host("SSLEngine On\n") + host(f"SSLEngine On\nSSLCertificateKeyFile {certs['a'].key}\n", name="b.example")
    reasons = [one.reason.partition(":")[0] for one in tls.good(bare).warnings]
    assert reasons == ["SSLEngine On without a certificate", "SSLEngine On without a certificate",
                       "SSLCertificateKeyFile without a certificate beside it has no effect"]
    asks = certs["a"].directives() + f"SSLVerifyClient require\nSSLCACertificatePath {tmp_path}\n"
    assert [f"{tmp_path} has no file that is called by its hash: run openssl rehash" in one.reason for one in tls.good(host(asks)).warnings] == [True]


@pytest.mark.parametrize(("name", "words"), [("old", "has expired (2020-02-01 00:00 UTC)"), ("soon", "expires soon")])
def test_times_are_warned_about_and_the_host_serves_on(tls: TlsWorld, certs: dict[str, Certificate], name: str, words: str) -> None:
    """Clients decide; nobody else is concerned."""
    result = tls.good(host(certs[name].directives()))
    assert [words in one.reason for one in result.warnings] == [True]
    assert "TLS_BROKEN" not in box_of(tls, certs[name].directives())


def test_no_private_key_gets_into_a_record(tls: TlsWorld, certs: dict[str, Certificate], tmp_path: Path) -> None:
    """A file with both is common; only its CERTIFICATE blocks are taken."""
    both = tmp_path / "both.pem"
    both.write_text(certs["a"].key.read_text() + certs["a"].cert.read_text())
    result = tls.good(host(f"SSLEngine On\nSSLCertificateFile {both}\n"))
    assert result.warnings == []
    assert result.compiled is not None
    assert not [name for name, raw in result.compiled.records.items() if b"PRIVATE KEY" in raw]
    assert result.compiled.plan.identities[0].keys == (str(both),)


@pytest.mark.parametrize(("text", "wanted"), [
    ("all -SSLv3 -TLSv1 -TLSv1.1", 3), ("-all +TLSv1.2", 1), ("TLSv1.3", 2), ("all -TLSv1.2", 2), ("+TLSv1.2 +TLSv1.3", 3)])
def test_protocols(tls: TlsWorld, certs: dict[str, Certificate], text: str, wanted: int) -> None:
    """As httpd reads them."""
    assert box_of(tls, certs["a"].directives() + f"SSLProtocol {text}\n")["TLS_PROTOCOLS"] == wanted


@pytest.mark.parametrize(("text", "words"), [
    ("SSLProtocol SSLv3", "no protocol is left"), ("SSLProtocol TLSv1.4", "'TLSv1.4' is none of"), ("SSLCipherSuite NONSENSE", "OpenSSL does not take"),
    ("SSLCipherSuite TLSv1.3 NONSENSE", "OpenSSL does not take"), ("SSLEngine optional", "is not supported"),
    ("SSLOpenSSLConfCmd PrivateKey /etc/ssl/x", "is not supported"), ("SSLOpenSSLConfCmd Curves nonsense", "OpenSSL does not take"),
    ("SSLOptions +FakeBasicAuth", "is not supported"), ("SSLOCSPEnable on", "does not support"), ("SSLRequire %{X} eq 1", "does not support"),
    ("SSLUserName SSL_CLIENT_S_DN_CN", "does not support"), ("<Location /a>\nSSLVerifyDepth 2\n</Location>", "second handshake"),
    ("SSLCARevocationCheck most", "'most' is none of"), ("<Location /a>\nSSLVerifyClient optional_no_ca\n</Location>", "has no meaning"),
    ("Protocols spdy/3", "no protocol is left"), ("H2WindowSize 1", "out of range"),
    ("<Location /a>\nSSLCipherSuite HIGH\n</Location>", "second handshake"), ("H2MaxSessionStreams 100000", "out of range"),
])
def test_what_is_wrong_is_an_error(tls: TlsWorld, text: str, words: str) -> None:
    """Nothing that decides who may see what is passed over."""
    assert [words in reason for reason in tls.reasons(host(text + "\n"))] == [True]


@pytest.mark.parametrize(("asked", "inner", "words"), [
    ("", "require", "SSLVerifyClient optional in its <VirtualHost>"), ("none", "optional", "second handshake"), ("", "none", None),
    ("optional", "require", None), ("require", "none", None), ("optional_no_ca", "require", None)])
def test_a_section_counts_on_a_certificate_that_its_host_asks_for(tls: TlsWorld, certs: dict[str, Certificate], asked: str, inner: str,
                                                                 words: str | None) -> None:
    """Wherever in the host the section stands; the error is at the section's own line, of each host that has it."""
    ask = f"SSLVerifyClient {asked}\nSSLCACertificateFile {certs['other'].cert}\n" if asked else ""
    section = f'<Directory /srv>\n<Files "x">\nSSLVerifyClient {inner}\n</Files>\n</Directory>\n'
    text = host(certs["a"].directives() + section + ask)
    if words is None:
        assert tls.good(text).warnings == []
        return
    result = tls.compile(HEAD + text + host(section, address="*:80", name="plain.example"))
    lines = (HEAD + text).split("\n")
    assert [(words in one.reason, one.line) for one in result.errors] == [(True, lines.index(f"SSLVerifyClient {inner}") + 1)]


def make_list(directory: Path, issuer: Certificate) -> str:
    """Return an authority's revocation list, which names nobody, in PEM form."""
    (directory / "index.txt").write_text("")
    (directory / "config").write_text(f"[ca]\ndefault_ca = one\n[one]\ndatabase = {directory}/index.txt\ndefault_md = sha256\n")
    done = subprocess.run(["openssl", "ca", "-gencrl", "-config", str(directory / "config"), "-cert", str(issuer.cert), "-keyfile", str(issuer.key),
                           "-crldays", "30"], check=True, capture_output=True, text=True)
    return done.stdout


def test_revocation_lists(tls: TlsWorld, certs: dict[str, Certificate], tmp_path: Path) -> None:
    """They are in the record where they count, with the files that compile watches; cut off, they take the host down."""
    block, another = make_list(tmp_path, certs["other"]), make_list(tmp_path, certs["a"])
    one, directory = tmp_path / "one.crl", tmp_path / "lists"
    directory.mkdir()
    one.write_text("words\n" + block)
    (directory / "0a1b2c3d.r0").write_text(another)
    (directory / "other.pem").write_text("nonsense")
    said = f"SSLVerifyClient require\nSSLCACertificateFile {certs['other'].cert}\nSSLCARevocationFile {one}\nSSLCARevocationPath {directory}\n"
    box = box_of(tls, certs["a"].directives() + said + "SSLCARevocationCheck chain no_crl_for_cert_ok\n")
    assert (box["TLS_CRL_CHECK"], box["TLS_CRL"].count("X509 CRL-----\n"), "TLS_BROKEN" in box) == (7, 4, False)
    sources = [tuple(source) for source in box["TLS_SOURCE"]]
    assert ("crl", str(one)) in sources
    assert ("crl-path", str(directory)) in sources
    quiet = tls.good(host(certs["a"].directives() + said))
    assert ["AH01902" in warning.reason for warning in quiet.warnings] == [True]
    one.write_text(block + block[:40])
    again = TlsWorld()
    broken = box_of(again, certs["a"].directives() + said + "SSLCARevocationCheck leaf\n")
    assert "cut off" in broken["TLS_BROKEN"]
    one.write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    assert "one.crl holds a revocation list that cannot be read" in box_of(TlsWorld(), certs["a"].directives() + said +
                                                                           "SSLCARevocationCheck leaf\n")["TLS_BROKEN"]
    reasons = tls.reasons(host(certs["a"].directives() + "SSLCARevocationCheck leaf\n"))
    assert ["AH01899" in reason for reason in reasons] == [True]


def test_directives_without_effect_are_taken(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """What panels write; the documentation says which."""
    text = ("SSLUseStapling on\nSSLStaplingCache shmcb:/x\nSSLSessionCache shmcb:/x(512000)\nSSLRandomSeed startup builtin\nSSLCompression off\n"
            "SSLPassPhraseDialog exec:/x\nSSLProxyEngine on\nH2Push off\nH2Direct on\n")
    assert tls.good(text + host(certs["a"].directives())).warnings == []
    assert [one.reason for one in tls.good("SSLCompression on\n").warnings] == ["SSLCompression has no effect: compression gives secrets away (CRIME)"]
    other = ("SSLOptions -FakeBasicAuth -OptRenegotiate +StdEnvVars\nSSLVerifyClient off\nH2MaxHeaderBlockLen 8192\nH2MaxStreamErrors 8\n"
             "H2SessionExtraFiles 5\n")
    assert tls.good(host(certs["a"].directives() + other)).warnings == []
    said = ("SSLOpenSSLConfCmd DHParameters /etc/ssl/dh.pem\nSSLFIPS On\nH2MaxSessionStreams 200\n<Location /x>\nH2EarlyHints On\n</Location>\n")
    assert [one.reason.partition(" has no effect")[0] for one in tls.good(host(certs["a"].directives() + said)).warnings] == [
        "SSLOpenSSLConfCmd DHParameters", "SSLFIPS", "this counts for the whole server, and", "this counts for the whole server, and"]
    assert "TLS_CONF" not in box_of(tls, certs["a"].directives() + said)
    idle = {row.name for row in directives_tls.ROWS if row.doc.startswith("Without effect: ")}
    assert {"SSLUseStapling", "H2Push", "SSLFIPS"} <= idle


@pytest.mark.parametrize(("text", "wanted"), [
    ("", None), ("Protocols h2 http/1.1", 3), ("Protocols http/1.1 h2", 11), ("Protocols h2c http/1.1", 5), ("Protocols h2\nProtocols http/1.1", 3),
    ("Protocols http/1.1 h2\nProtocolsHonorOrder Off", 3), ("Protocols h2", 2), ("Protocols h2 acme-tls/1", 2)])
def test_protocols_of_clients(tls: TlsWorld, text: str, wanted: int | None) -> None:
    """Bits, and whether http/1.1 is preferred."""
    assert tls.host(host(text + "\n" if text else "", address="*:80")).get("PROTOCOLS") == wanted


def test_limits_of_http2(tls: TlsWorld) -> None:
    """They are the server's."""
    result = tls.good("H2MaxSessionStreams 50\nH2EarlyHints On\n" + host("", address="*:80"))
    assert dict(tls.record(result))["H2_LIMITS"] == (50, 65535, 0, 1)
    assert not [warning for warning in result.warnings if "H2" in warning.reason]


def flags(table: bytes) -> dict[int, int]:
    """Return port -> flags of a route table's addresses (wire/route.py)."""
    _, _, count, offset, _ = struct.unpack_from("<8sIIII", table)
    rows = (struct.unpack_from("<BBH16sIIIII", table, offset + 40 * index) for index in range(count))
    return {row[2]: row[1] for row in rows}


def test_an_address_speaks_tls_when_its_hosts_do(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """In the server's table and in the identity's own."""
    result = tls.good("Listen 127.0.0.1:443 https\n" + host(certs["a"].directives()) + host("", address="*:80"))
    assert result.compiled is not None
    assert flags(result.compiled.route_table) == {443: 1, 80: 0, 0: 0}
    own = dict(tls.record(result))["ROUTE"]
    assert flags(own) == {443: 1, 80: 0, 0: 0}


def test_hosts_of_one_address_must_agree(tls: TlsWorld, certs: dict[str, Certificate]) -> None:
    """A client speaks before it names a host."""
    text = host(certs["a"].directives()) + host("", name="b.example")
    result = tls.compile(HEAD + text)
    assert [("speaks plain HTTP" in one.reason, "on the same address" in one.reason, one.line) for one in result.errors] == [(True, True, 10)]


def test_a_record_is_renewed_from_its_files_alone(tls: TlsWorld, certs: dict[str, Certificate], tmp_path: Path) -> None:
    """What changes is the certificate; and a host that was broken is whole again, or the other way round."""
    cert, key = tmp_path / "cert", tmp_path / "key"
    shutil.copy(certs["a"].cert, cert)
    shutil.copy(certs["other"].key, key)
    result = tls.good(host(f"SSLEngine On\nSSLCertificateFile {cert}\nSSLCertificateKeyFile {key}\nSSLHonorCipherOrder On\n"))
    assert result.compiled is not None
    identity = result.compiled.plan.identities[0]
    raw = result.compiled.records[identity.record]
    store = Store(keys={path: number for number, path in enumerate(identity.keys)})
    assert renew_record(raw, load.CertificateFiles(), store)[0] == raw
    assert dict(identity.tls_files) == store.files
    shutil.copy(certs["a"].key, key)
    store = Store(keys=store.keys)
    renewed, said = renew_record(raw, load.CertificateFiles(), store)
    assert said == []
    assert store.files[str(key)] != dict(identity.tls_files)[str(key)]
    hosts = [group(value) for tag, value in decode(renewed) if tag == "HOST"]
    box = group(hosts[-1]["TLS"])
    assert "TLS_BROKEN" not in box
    assert box["TLS_SERVER_ORDER"] == 1
    shutil.copy(certs["other"].key, key)
    store = Store(keys=store.keys)
    assert renew_record(renewed, load.CertificateFiles(), store)[0] == raw
    assert ["is not that of the certificate" in one for one in store.lost] == [True]


def copy_pair(one: Certificate, cert: Path, key: Path) -> None:
    """Put a pair in place."""
    shutil.copy(one.cert, cert)
    shutil.copy(one.key, key)


@pytest.mark.parametrize(("name", "words"), [("other", "is not that of the certificate"), ("cut", "cut off"),
                                             ("garbage", "holds"), ("", "cannot be read")])
def test_a_host_that_works_goes_on_with_what_it_had(tls: TlsWorld, certs: dict[str, Certificate], made: Made, tmp_path: Path,
                                                    name: str, words: str) -> None:
    """The new certificate is no good, the old key is there: the record stays, and another host of it gets its new one."""
    one, two = ((tmp_path / f"{number}.crt", tmp_path / f"{number}.key") for number in (1, 2))
    for pair in (one, two):
        copy_pair(certs["a"], *pair)
    text = "".join(host(Certificate(*pair).directives(), name=name) for pair, name in ((one, "a.example"), (two, "b.example")))
    result = tls.good(text)
    assert result.compiled is not None
    identity = result.compiled.plan.identities[0]
    raw = result.compiled.records[identity.record]
    path = tmp_path / "record"
    path.write_bytes(raw)
    new = certs[name].cert if name in certs else getattr(made, name) if name else None
    one[0].unlink()
    if new:
        shutil.copy(new, one[0])
    renewed = load.renew_record_file(str(path), identity.keys, may_break=False)
    assert renewed.raw == raw
    assert words in renewed.held
    assert not renewed.is_old
    copy_pair(certs["other"], *two)
    renewed = load.renew_record_file(str(path), identity.keys, may_break=False)
    assert renewed.raw != raw
    assert b"cut off" not in renewed.raw


def test_a_record_stays_if_its_key_is_gone(tls: TlsWorld, certs: dict[str, Certificate], tmp_path: Path) -> None:
    """Only the children that run have it; who has none breaks."""
    one = (tmp_path / "one.crt", tmp_path / "one.key")
    copy_pair(certs["a"], *one)
    result = tls.good(host(Certificate(*one).directives()))
    assert result.compiled is not None
    identity = result.compiled.plan.identities[0]
    path = tmp_path / "record"
    path.write_bytes(result.compiled.records[identity.record])
    shutil.copy(certs["other"].key, one[1])
    renewed = load.renew_record_file(str(path), identity.keys, may_break=False)
    assert (renewed.raw, renewed.is_old) == (path.read_bytes(), True)
    assert renewed.said == [renewed.held]
    assert "goes on with what it had" in renewed.held
    assert dict(renewed.files) != dict(identity.tls_files)
    forced = load.renew_record_file(str(path), identity.keys, may_break=True)
    assert forced.raw != path.read_bytes()
    assert forced.held == ""
    copy_pair(certs["old"], *one)
    assert "has expired" in load.renew_record_file(str(path), identity.keys, may_break=False).held
