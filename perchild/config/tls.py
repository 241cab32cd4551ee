"""TLS of hosts -> TLS and PROTOCOLS items of the record; and TLS items made anew when a file has changed.

Runs as: compile (pure).
Before: hosts.py   After: certs.py
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from perchild.config import directives_tls
from perchild.config.certs import Before, Materials, Sources, Store, World, read_materials, unpack_sources
from perchild.config.merge import Settings
from perchild.config.tree import Node
from perchild.wire import record
from perchild.wire.record import PROTOCOL_BITS

Warn = Callable[[Node | None, str, int], None]
Fail = Callable[[Node, str, int], None]

_TAG = {tag.name: tag.number for tag in record.TAGS}
_HEAD = struct.Struct("<HHI")
_MADE = frozenset(_TAG[name] for name in ("TLS_BROKEN", "TLS_CERT", "TLS_CA", "TLS_CRL"))
H1_FIRST = PROTOCOL_BITS["h1_first"]
_NO_SECOND_HANDSHAKE = (
    "SSLVerifyClient in a section would need a second handshake in the middle of a connection, which TLS 1.3 and HTTP/2 do not have: let the "
    "host ask with SSLVerifyClient optional in its <VirtualHost>, beside SSLCACertificateFile; then this refuses who has shown no certificate")


class TlsPacker:
    """Packs what the hosts of one configuration say of TLS, all against the same main server."""

    def __init__(self, main: Settings, world: World, warn: Warn, fail: Fail) -> None:
        self._main = {**directives_tls.DEFAULTS, **main}
        self._world = world
        self._warn = warn
        self._fail = fail
        self._said: set[tuple[str, int | None]] = set()

    def speaks_tls(self, host: Settings) -> bool:
        """Return whether a host speaks TLS."""
        engine: tuple[bool, Node] | tuple[bool, None] = host.get("tls_engine", self._main.get("tls_engine", (False, None)))
        return engine[0]

    def speaks_h2c(self, host: Settings) -> bool:
        """Return whether a host speaks HTTP/2 without TLS."""
        return bool(self._get(host, "protocols").bits & PROTOCOL_BITS["h2c"]) and not self.speaks_tls(host)

    def pack(self, host: Settings, store: Store, asks: Sequence[Node] = ()) -> bytes:
        """Return the TLS and PROTOCOLS items of a host; store: of its identity; asks: SSLVerifyClient in its sections."""
        raw = self._pack_protocols(host)
        if not self.speaks_tls(host):
            return raw  # whose sections may be in a file that a host with TLS includes, too; they refuse
        if not self._get(host, "tls_verify")[0]:
            for node in asks:
                self._fail(node, _NO_SECOND_HANDSHAKE, -1)
        return self._pack_tls(host, store) + raw

    def _get(self, host: Settings, name: str) -> Any:  # noqa: ANN401 (any field's)
        return host.get(name, self._main.get(name))

    def _pack_protocols(self, host: Settings) -> bytes:
        spoken, is_ordered = self._get(host, "protocols").bits, self._get(host, "protocols_order")
        bits = spoken if is_ordered else spoken & ~H1_FIRST
        return record.u32s("PROTOCOLS", bits) if bits != PROTOCOL_BITS["http/1.1"] else b""

    def _pack_tls(self, host: Settings, store: Store) -> bytes:
        sources, nodes = self._find_sources(host)
        materials = read_materials(sources, self._world, store)
        verify = self._get(host, "tls_verify")[0]
        crl_check = self._check_revocation(host, store)
        if verify in {1, 2} and not (materials.has_authorities or materials.is_broken):
            what = (f"{sources.ca_path} has no file that is called by its hash: run openssl rehash there, for until then" if sources.ca_path else
                    "SSLVerifyClient without SSLCACertificateFile:")
            self._say(self._engine_node(host), f"{what} no client's certificate will be believed", is_own=True)
        for remark in materials.remarks:
            at = nodes.get(remark.part, [])
            self._say(at[remark.index] if remark.index < len(at) else self._engine_node(host), remark.text, is_own=remark.part == "engine")
        for _, node in self._idle_keys(host):
            self._say(node, "SSLCertificateKeyFile without a certificate beside it has no effect: name that, too, with SSLCertificateFile",
                      is_own=True)
        ciphers = {**self._main["tls_ciphers"], **host.get("tls_ciphers", {})}
        commands = [one for one in (*self._main["tls_commands"], *host.get("tls_commands", ())) if one]
        return record.item("TLS", b"".join((
            sources.pack(), materials.items,
            record.u32s("TLS_PROTOCOLS", self._get(host, "tls_protocols")),
            record.text("TLS_CIPHERS", ciphers["CipherString"]) if "CipherString" in ciphers else b"",
            record.text("TLS_SUITES", ciphers["Ciphersuites"]) if "Ciphersuites" in ciphers else b"",
            record.u32s("TLS_SERVER_ORDER", int(self._get(host, "tls_server_order"))),
            *(record.texts("TLS_CONF", *command) for command in commands),
            record.u32s("TLS_TICKETS", int(self._get(host, "tls_tickets"))),
            record.u32s("TLS_TIMEOUT", self._get(host, "tls_timeout_s")),
            record.u32s("TLS_VERIFY", verify), record.u32s("TLS_DEPTH", self._get(host, "tls_depth")),
            record.u32s("TLS_CRL_CHECK", crl_check) if crl_check else b"",
            record.u32s("TLS_STRICT", int(self._get(host, "tls_strict"))),
        )))

    def _check_revocation(self, host: Settings, store: Store) -> int:
        """Return SSLCARevocationCheck's bits; check and lists belong together."""
        bits, node = self._get(host, "tls_crl_check")
        named = [value for value in (self._get(host, "tls_crl_file"), self._get(host, "tls_crl_path")) if value]
        if bits and not named:
            self._fail(node, "AH01899: CRL checking has been enabled, but there is no list: name it with SSLCARevocationFile or "
                             "SSLCARevocationPath", -1)
        if named and not bits:
            store.has_remarks = True
            self._say(named[0][1], f"AH01902: {named[0][0]} is not looked at: write SSLCARevocationCheck chain (or leaf), too")
        return int(bits)

    def _engine_node(self, host: Settings) -> Node | None:
        node: Node | None = host.get("tls_engine", self._main.get("tls_engine", (False, None)))[1]
        return node

    def _find_sources(self, host: Settings) -> tuple[Sources, dict[str, list[Node]]]:
        certs = host.get("tls_certs", self._main.get("tls_certs", []))
        keys = self._get(host, "tls_keys") or [] if "tls_certs" not in host else host.get("tls_keys", [])
        pairs = tuple((path, keys[index][0] if index < len(keys) else path) for index, (path, _) in enumerate(certs))
        single = {name: self._get(host, f"tls_{name}") for name in ("chain", "ca_file", "ca_path", "crl_file", "crl_path")}
        if not self._get(host, "tls_crl_check")[0]:
            single["crl_file"] = single["crl_path"] = None
        paths = {name: value[0] if value else "" for name, value in single.items()}
        cert_nodes = [node for _, node in certs]
        nodes = {"certs": cert_nodes, "keys": [keys[index][1] if index < len(keys) else node for index, node in enumerate(cert_nodes)],
                 "chain": [value[1] for value in (single["chain"],) if value],
                 "ca": [value[1] if value else None for value in (single["ca_file"], single["ca_path"])],
                 "crl": [value[1] if value else None for value in (single["crl_file"], single["crl_path"])]}
        return Sources(pairs, **paths), nodes

    def _idle_keys(self, host: Settings) -> list[tuple[str, Node]]:
        """Return a host's keys that belong to no certificate: of the main server's, its own are the keys."""
        keys: list[tuple[str, Node]] = host.get("tls_keys", [])
        return keys[len(host.get("tls_certs", [])):]

    def _say(self, node: Node | None, text: str, *, is_own: bool = False) -> None:
        """Warn, once for each file: the same certificate may be a hundred hosts'. is_own: it is about the host, so once for each."""
        key = (text, id(node) if is_own else None)
        if key not in self._said:
            self._said.add(key)
            self._warn(node, text, 0)


# --- again -------------------------------------------------------------------------------------------------------


def _items(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(raw):
        tag, _, length = _HEAD.unpack_from(raw, at)
        yield tag, raw[at + _HEAD.size : at + _HEAD.size + length]
        at += _HEAD.size + length


def _item(tag: int, payload: bytes) -> bytes:
    return _HEAD.pack(tag, 0, len(payload)) + payload


def _texts(payload: bytes) -> list[str]:
    found, at = [], 0
    while at < len(payload):
        length = int.from_bytes(payload[at : at + 4], "little")
        found.append(payload[at + 4 : at + 4 + length].decode("utf-8", "surrogateescape"))
        at += 4 + length
    return found


def renew_record(raw: bytes, world: World, store: Store) -> tuple[bytes, list[str]]:
    """Read the certificates of a record again.

    Args:
        raw: the record.
        world: the files.
        store: of its identity, with its keys in their order; its files are noted anew.
    Returns:
        The record with TLS items made anew, and what the operator should know. Hosts that work, and would not with what the files have
        now, have what they had (store.kept), or are broken nevertheless (store.lost).
    """
    said: list[str] = []
    store.before = read_before(raw)
    boxes: dict[int, Callable[[bytes], bytes]] = {}
    boxes[_TAG["HOST"]] = lambda payload: _rewrite(payload, {_TAG["TLS"]: lambda tls: _renew_tls(tls, world, store, said)})
    return _rewrite(raw, boxes), list(dict.fromkeys(said))


def read_before(raw: bytes) -> dict[Sources, Before]:
    """Return what the hosts of a record have that work."""
    found: dict[Sources, Before] = {}
    for tag, host in _items(raw):
        for own_tag, tls in _items(host) if tag == _TAG["HOST"] else ():
            if own_tag == _TAG["TLS"]:
                items = list(_items(tls))
                certs = tuple(_read_certificate(payload) for one, payload in items if one == _TAG["TLS_CERT"])
                others = [(one, payload) for one, payload in items if one in _MADE and one != _TAG["TLS_CERT"]]
                if certs and not any(one == _TAG["TLS_BROKEN"] for one, _ in others):
                    found[_read_sources(items)] = Before(certs, b"".join(_item(*one) for one in others),
                                                         has_authorities=any(one == _TAG["TLS_CA"] for one, _ in others))
    return found


def _read_certificate(raw: bytes) -> tuple[str, str]:
    of = dict(_items(raw))
    pem, path = (of[_TAG[name]].decode("utf-8", "surrogateescape") for name in ("CERT_PEM", "KEY_PATH"))
    return pem, path


def _read_sources(items: list[tuple[int, bytes]]) -> Sources:
    return unpack_sources([(kind, path) for tag, payload in items if tag == _TAG["TLS_SOURCE"] for kind, path in [_texts(payload)]])


def _rewrite(raw: bytes, boxes: Mapping[int, Callable[[bytes], bytes]]) -> bytes:
    return b"".join(_item(tag, boxes[tag](payload) if tag in boxes else payload) for tag, payload in _items(raw))


def _renew_tls(raw: bytes, world: World, store: Store, said: list[str]) -> bytes:
    kept = [(tag, payload) for tag, payload in _items(raw) if tag not in _MADE]
    materials: Materials = read_materials(_read_sources(kept), world, store)
    said += [remark.text for remark in materials.remarks]
    sources = b"".join(_item(tag, payload) for tag, payload in kept if tag == _TAG["TLS_SOURCE"])
    return sources + materials.items + b"".join(_item(tag, payload) for tag, payload in kept if tag != _TAG["TLS_SOURCE"])
