"""Certificates of hosts: from the files that directives name to items of the record, and what is wrong with them in words.

A certificate that cannot be used takes down its own host: the record says why (TLS_BROKEN), the operator is told, no other host is
concerned. Of several certificates the good ones are used. Private keys never come here: World.check compares them in C.
Where there is a record already, a host that works there goes on with the certificate that it has, if the files have become worse than that: in the
new record, if the key on disk is still that certificate's (Store.kept); else only the children that run have it (Store.lost).
Runs as: compile (pure: files come through World).  Distrusts: the files, which a tenant may have written: only CERTIFICATE blocks are taken.
"""

from __future__ import annotations

import dataclasses as dc
import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from perchild.wire import record

SOON_S = 14 * 86400  # an operator who renews at 30 days before the end has missed it by now
MAX_AUTHORITY_FILES = 1024
_BLOCK = re.compile(r"-----BEGIN (?P<kind>(?:X509 )?CERTIFICATE)-----\s[A-Za-z0-9+/=\s]+-----END (?P=kind)-----")
_CRL = re.compile(r"-----BEGIN X509 CRL-----\s[A-Za-z0-9+/=\s]+-----END X509 CRL-----")
_HASH_NAME = re.compile(r"[0-9a-f]{8}\.\d+\Z")
_CRL_NAME = re.compile(r"[0-9a-f]{8}\.r\d+\Z")
_CONSEQUENCE = "; until then this host's handshakes are refused, those of others are not"
_OTHER_IS_USED = "; until then the host's other certificate is used"
_OLD_IS_USED = "; until then the host goes on with what it had"
_BREAKING = frozenset(("chain", "ca", "crl"))  # parts whose faults break a host that has a good certificate
_BEGIN = re.compile(r"-----BEGIN (?:X509 )?CERTIFICATE-----")
# What a file without a certificate holds instead: how it begins, or what is in it; what to do.
_INSTEAD = (
    ("0\ufffd", ", but perhaps one in DER form: openssl x509 -inform DER -in FILE -out FILE.pem"),
    ("PRIVATE KEY-----", ", but a private key: SSLCertificateFile names the certificate, SSLCertificateKeyFile its key"),
    ("-----BEGIN CERTIFICATE REQUEST-----", ", but a request for one: write there what the authority has answered"),
    ("-----BEGIN NEW CERTIFICATE REQUEST-----", ", but a request for one: write there what the authority has answered"),
    ("-----BEGIN TRUSTED CERTIFICATE-----", ", but a trusted one: openssl x509 -in FILE -out FILE.pem"),
    ("-----BEGIN PKCS7-----", ", but PKCS #7: openssl pkcs7 -print_certs -in FILE -out FILE.pem"),
)


class UnreadableError(Exception):
    """A file that cannot be read; says why."""


class Facts(Protocol):
    """What is known of a certificate (native.CertFacts)."""

    @property
    def problem(self) -> int:
        """0: it can be used; else enum pc_cert_problem."""

    @property
    def kind(self) -> int:
        """The key's algorithm, as OpenSSL numbers them."""

    @property
    def bits(self) -> int:
        """The key's length."""

    @property
    def not_before_s(self) -> int:
        """Valid from, s since 1970."""

    @property
    def not_after_s(self) -> int:
        """Valid until, s since 1970."""

    @property
    def words(self) -> str:
        """OpenSSL's, for a problem."""


class World(Protocol):
    """The files."""

    def read(self, path: str) -> str:
        """Return a text file; UnreadableError."""

    def stamp(self, path: str) -> str:
        """Return what tells whether a file was changed: device, inode, size, time; "" if it is not there."""

    def names(self, path: str) -> list[str]:
        """Return the names in a directory; UnreadableError."""

    def check(self, pem: str, key_path: str) -> Facts:
        """Look at a leaf with its chain, and its key; UnreadableError: of the key."""

    def check_list(self, pem: str) -> str | None:
        """Return what is wrong with certificates or revocation lists, None if all can be read."""

    def command(self, name: str, value: str) -> str | None:
        """Return what is wrong with a command of SSL_CONF_cmd(3)."""

    def now_s(self) -> int:
        """Return the time, s since 1970."""


class NoWorld:
    """Where there are no files."""

    def read(self, path: str) -> str:
        """There is none."""
        message = f"{path}: there are no files here"
        raise UnreadableError(message)

    def stamp(self, _path: str) -> str:
        """It is not there."""
        return ""

    def names(self, path: str) -> list[str]:
        """There is none."""
        message = f"{path}: there are no files here"
        raise UnreadableError(message)

    def check(self, _pem: str, key_path: str) -> Facts:
        """There is no key."""
        message = f"{key_path}: there are no files here"
        raise UnreadableError(message)

    def check_list(self, _pem: str) -> str | None:
        """Nobody is there to ask."""
        return None

    def command(self, _name: str, _value: str) -> str | None:
        """Nobody is there to ask."""
        return None

    def now_s(self) -> int:
        """Return the beginning of time."""
        return 0


@dataclass(frozen=True, slots=True)
class Sources:
    """What a host's directives name. pairs: certificate and key; paths are absolute, "" = none."""

    pairs: tuple[tuple[str, str], ...]
    chain: str = ""
    ca_file: str = ""
    ca_path: str = ""
    crl_file: str = ""
    crl_path: str = ""

    def pack(self) -> bytes:
        """Return TLS_SOURCE items."""
        named = [one for pair in self.pairs for one in zip(("cert", "key"), pair, strict=True)]
        named += [("chain", self.chain), ("ca", self.ca_file), ("ca-path", self.ca_path), ("crl", self.crl_file),
                  ("crl-path", self.crl_path)]
        return b"".join(record.texts("TLS_SOURCE", kind, path) for kind, path in named if path)


def unpack_sources(named: list[tuple[str, str]]) -> Sources:
    """Return what Sources.pack has packed."""
    of = dict(named)
    certs, keys = ([path for kind, path in named if kind == wanted] for wanted in ("cert", "key"))
    return Sources(tuple(zip(certs, keys, strict=True)), *(of.get(kind, "") for kind in ("chain", "ca", "ca-path", "crl", "crl-path")))


@dataclass(frozen=True, slots=True)
class Remark:
    """Something the operator should know: about which file (a member of Sources, and its index), in words."""

    part: str  # "engine", "certs", "keys", "chain", "ca", "crl"
    index: int
    text: str
    is_fault: bool = False  # what it is about is not used


@dataclass(frozen=True, slots=True)
class Before:
    """What a host that works has in its record. certs: PEM and the key's path; others: items of authorities and lists, as they are."""

    certs: tuple[tuple[str, str], ...]
    others: bytes = b""
    has_authorities: bool = False


@dataclass(slots=True)
class Materials:
    """What the files gave: items for the TLS box; remarks; and whether TLS is impossible."""

    items: bytes = b""
    remarks: list[Remark] = field(default_factory=list)
    is_broken: bool = False
    has_authorities: bool = False
    expired: list[str] = field(default_factory=list)  # certificates: what is said of them, among the remarks, too

    def add_fault(self, part: str, index: int, text: str) -> None:
        """Note what cannot be used, without what comes of it."""
        self.remarks.append(Remark(part, index, text, is_fault=True))
        self.is_broken = self.is_broken or part in _BREAKING

    def end_faults(self, *, has_certificate: bool) -> str:
        """Say what comes of the faults; return why the host is broken, "" if it is not."""
        self.is_broken = self.is_broken or not has_certificate
        consequence = _CONSEQUENCE if self.is_broken else _OTHER_IS_USED
        self.remarks = [dc.replace(one, text=one.text + consequence) if one.is_fault else one for one in self.remarks]
        faults = [one for one in self.remarks if one.is_fault]
        return min(faults, key=lambda one: has_certificate and one.part not in _BREAKING).text if self.is_broken else ""

    def keep(self, before: Before, items: bytes) -> None:
        """Go on with what the host had: no fault has a consequence."""
        self.items, self.is_broken, self.has_authorities = items, False, before.has_authorities
        self.remarks = [dc.replace(one, text=_as_kept(one.text)) for one in self.remarks if one.is_fault or one.text in self.expired]


@dataclass(slots=True)
class Store:
    """Of one identity: its keys in the order of KEY_NUMBER, every file that was read for it, with its stamp, and what was found."""

    keys: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    has_remarks: bool = False  # there is something that the operator should know
    until_s: int = 0  # when there will be, seconds since 1970; 0 = never
    before: Mapping[Sources, Before] = field(default_factory=dict)  # what its hosts that work have in the record in force
    kept: list[str] = field(default_factory=list)  # why hosts go on with that, each in words
    lost: list[str] = field(default_factory=list)  # why hosts that work cannot: the key on disk is not that certificate's

    def note(self, path: str, world: World) -> None:
        """Remember a file, before it is read."""
        if path not in self.files:
            self.files[path] = world.stamp(path)


def read_materials(sources: Sources, world: World, store: Store) -> Materials:
    """Read a host's certificates and check them.

    Args:
        sources: what the configuration names.
        world: the files.
        store: of the host's identity; new keys and files are added.
    """
    found = Materials()
    certs: dict[int, bytes] = {}
    for number in (store.keys.setdefault(key, len(store.keys)) for _, key in sources.pairs):
        del number  # also of what is broken: numbers stay what they are when it is put right
    chain = _read_blocks(sources.chain, "chain", 0, found, store, world) if sources.chain else []
    for index, pair in enumerate(sources.pairs):
        _add_certificate(index, pair, chain, found, certs, (world, store))
    authorities = _read_authorities(sources, found, store, world)
    lists = _read_lists(sources, found, store, world)
    if not sources.pairs:
        found.add_fault("engine", 0, "SSLEngine On without a certificate: name it with SSLCertificateFile, and its key with SSLCertificateKeyFile")
    why = found.end_faults(has_certificate=bool(certs))
    found.has_authorities = bool(authorities)
    items = [record.text("TLS_BROKEN", why)] if why else list(certs.values())
    if authorities:
        items.append(record.text("TLS_CA", authorities))
    if lists:
        items.append(record.text("TLS_CRL", lists))
    found.items = b"".join(items)
    _compare(found, store.before.get(sources), len(certs), world, store)
    store.has_remarks = store.has_remarks or bool(found.remarks)
    return found


def _as_kept(text: str) -> str:
    """Say of a fault that the host goes on with the certificate that it had."""
    return text.removesuffix(_CONSEQUENCE).removesuffix(_OTHER_IS_USED) + _OLD_IS_USED


def _compare(found: Materials, before: Before | None, cert_count: int, world: World, store: Store) -> None:
    """Go on with what a host has, if what was found is worse: broken, a certificate less, or one that has expired where none had."""
    faults = [one.text for one in found.remarks if one.is_fault]
    if before is None or not (found.is_broken or found.expired or (faults and cert_count < len(before.certs))):
        return
    try:
        facts = [world.check(pem, key_path) for pem, key_path in before.certs]
    except UnreadableError:
        facts = []
    if not faults and any(one.not_after_s <= world.now_s() for one in facts):
        return  # it had expired as well
    if facts and not any(one.problem for one in facts):
        certs = b"".join(_pack_certificate(pem, key_path, store) for pem, key_path in before.certs)
        found.keep(before, certs + before.others)
        store.kept += [one.text for one in found.remarks]
    else:
        store.lost += [_as_kept(text) for text in faults or found.expired]


def _pack_certificate(pem: str, key_path: str, store: Store) -> bytes:
    return record.item("TLS_CERT", record.text("CERT_PEM", pem) + record.u32s("KEY_NUMBER", store.keys[key_path]) + record.text("KEY_PATH", key_path))


def _add_certificate(index: int, pair: tuple[str, str], chain: list[str], found: Materials, certs: dict[int, bytes],
                     where: tuple[World, Store]) -> None:
    (path, key_path), (world, store) = pair, where
    blocks = _read_blocks(path, "certs", index, found, store, world)
    store.note(key_path, world)
    if not blocks:
        return
    pem = "\n".join(dict.fromkeys((*blocks, *chain))) + "\n"
    try:
        facts = world.check(pem, key_path)
    except UnreadableError as error:
        found.add_fault("keys", index, str(error))
        return
    if facts.problem:
        part, text = _explain(facts, path, key_path)
        found.add_fault(part, index, text)
        return
    if facts.kind in certs:
        found.remarks.append(Remark("certs", index, f"{path}: there is a certificate with this kind of key before it, which is used"))
        return
    said = list(_look_at_times(path, facts, world.now_s()))
    found.remarks += [Remark("certs", index, text) for text in said]
    found.expired += said[-1:] if facts.not_after_s <= world.now_s() else []
    ahead = [at_s for at_s in (store.until_s, facts.not_before_s, facts.not_after_s - SOON_S, facts.not_after_s) if at_s > world.now_s()]
    store.until_s = min(ahead, default=0)
    certs[facts.kind] = _pack_certificate(pem, key_path, store)


def _explain(facts: Facts, path: str, key_path: str) -> tuple[str, str]:
    """Return which part is wrong, and what, with a remedy (enum pc_cert_problem)."""
    words = f" ({facts.words})" if facts.words else ""
    return {
        1: ("certs", f"{path} holds no certificate that can be read{words}: write it there in PEM form, its chain behind it"),
        2: ("keys", f"{key_path} holds no private key that can be read{words}: write it there in PEM form" if key_path != path else
            f"{path} holds no private key: name the file that does with SSLCertificateKeyFile"),
        3: ("keys", f"the key in {key_path} has a pass phrase, and nobody is there to say it when a child starts: take it off with openssl pkey"),
        4: ("keys", f"the key in {key_path} is not that of the certificate in {path}: name the one that the certificate was made for"),
        5: ("certs", f"{path}: too weak for OpenSSL's security level{words}: have one issued for RSA with 2048 bits or more, or for P-256"),
        7: ("certs", f"{path}: the key in {key_path} is that of a certificate further down: put that one first, its chain behind it"),
    }.get(facts.problem, ("certs", f"{path}: OpenSSL does not take it{words}"))


def _look_at_times(path: str, facts: Facts, now_s: int) -> Iterator[str]:
    until = dt.datetime.fromtimestamp(facts.not_after_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if facts.not_before_s > now_s:
        yield f"{path}: the certificate is not valid yet; clients will refuse it. Is the clock right?"
    if facts.not_after_s <= now_s:
        yield f"{path}: the certificate has expired ({until}); clients will refuse it: renew it"
    elif facts.not_after_s - now_s < SOON_S:
        yield f"{path}: the certificate expires soon ({until}): renew it"


def _read_blocks(path: str, part: str, index: int, found: Materials, store: Store, world: World) -> list[str]:
    """Return the CERTIFICATE blocks of a file; none, with a remark, if there is none, or one of them is cut off."""
    store.note(path, world)
    try:
        text = world.read(path)
    except UnreadableError as error:
        found.add_fault(part, index, str(error))
        return []
    blocks = [match.group().replace("X509 CERTIFICATE", "CERTIFICATE") for match in _BLOCK.finditer(text)]
    wrong = _explain_blocks(text, len(blocks))
    unread = world.check_list("\n".join(blocks)) if blocks and part == "ca" else None
    if unread is not None:
        wrong = f"a certificate that cannot be read ({unread}): write it anew"
    if wrong:
        found.add_fault(part, index, f"{path} holds {wrong}")
    return [] if wrong else blocks


def _explain_blocks(text: str, count: int) -> str:
    """Return what a file holds instead of certificates, with a remedy; "" if it has some, and all are whole."""
    if len(_BEGIN.findall(text)) > count:
        return "a certificate that is cut off: write the whole file"
    if count:
        return ""
    instead = next((words for sign, words in _INSTEAD if (text.startswith(sign) if sign[0] == "0" else sign in text)), ": write it there")
    return f"no certificate in PEM form{instead}"


def _read_authorities(sources: Sources, found: Materials, store: Store, world: World) -> str:
    """Return the authorities of clients' certificates; one that is missing breaks the host: nobody may come in who should not."""
    blocks: list[str] = []
    if sources.ca_file:
        blocks += _read_blocks(sources.ca_file, "ca", 0, found, store, world)
    for path in _hashed(sources.ca_path, "ca", _HASH_NAME, found, (world, store)):
        blocks += _read_blocks(path, "ca", 1, found, store, world)
    return "".join(f"{block}\n" for block in dict.fromkeys(blocks))


def _hashed(directory: str, part: str, pattern: re.Pattern[str], found: Materials, where: tuple[World, Store]) -> list[str]:
    """Return the files of a directory that are called by a hash; "" has none."""
    world, store = where
    if not directory:
        return []
    store.note(directory, world)
    try:
        names = [name for name in sorted(world.names(directory)) if pattern.match(name)]
    except UnreadableError as error:
        found.add_fault(part, 1, str(error))
        return []
    return [f"{directory}/{name}" for name in names[:MAX_AUTHORITY_FILES]]


def _read_lists(sources: Sources, found: Materials, store: Store, world: World) -> str:
    """Return the revocation lists; one that is missing or cut off breaks the host, as a missing authority does."""
    blocks: list[str] = []
    named = [(sources.crl_file, 0)] if sources.crl_file else []
    for path, index in [*named, *((path, 1) for path in _hashed(sources.crl_path, "crl", _CRL_NAME, found, (world, store)))]:
        store.note(path, world)
        try:
            text = world.read(path)
        except UnreadableError as error:
            found.add_fault("crl", index, str(error))
            continue
        lists = _CRL.findall(text)
        if not lists or len(lists) != text.count("-----BEGIN X509 CRL-----"):
            found.add_fault("crl", index, f"{path} holds no revocation list in PEM form, or is cut off: write it anew")
        elif (unread := world.check_list("\n".join(lists))) is not None:
            found.add_fault("crl", index, f"{path} holds a revocation list that cannot be read ({unread}): write it anew")
        blocks += lists
    return "".join(f"{block}\n" for block in dict.fromkeys(blocks))
