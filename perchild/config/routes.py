"""Addresses and names of hosts -> the server's route table, and each record's own.

The first host of an address is its default; the first mention of a name wins; the main server (host 0 of the unassigned identity)
answers on every address that no <VirtualHost> covers. Whether front ends send PROXY protocol headers belongs to an address too: they
do so before any name is known.
Runs as: compile (pure).  Source: httpd's vhost.c, mod_remoteip.c.
"""

from __future__ import annotations

from collections.abc import Iterable

from perchild.config.collect import Draft
from perchild.config.hosts import Group
from perchild.config.tree import Node
from perchild.config.work import Work
from perchild.wire.route import Address

Key = tuple[int, bytes, int]
_SPEECH = {True: "TLS", False: "plain HTTP"}
ANY: Key = (0, b"", 0)


class Routes:
    """Gathers the routes of one configuration; groups must have their numbers."""

    def __init__(self, work: Work) -> None:
        self.addresses: dict[Key, Address] = {}
        self._work = work
        self._sources: dict[tuple[Key, str], Node | None] = {}
        self._fronts: dict[Key, tuple[bool, Node | None]] = {}
        self._peers: dict[Key, dict[bytes, None]] = {}
        self._tls: dict[Key, tuple[bool, Draft]] = {}
        self._main = work.collected.main.host
        if "proxy_protocol" in self._main:
            self._fronts[ANY] = (self._main["proxy_protocol"], None)

    def add(self, draft: Draft, group: Group, index: int, *, is_tls: bool, is_h2c: bool) -> None:
        """Add a host: the one with `index` in the record of `group`."""
        name = draft.host.get("name", ("", 0))[0]
        names = ([name] if name else []) + draft.host.get("aliases", [])
        for family, packed, port, _ in draft.addresses:
            key = (family, packed, port)
            address = self.addresses.get(key)
            own = group.addresses.get(key)
            if own is None:
                own = group.addresses[key] = Address(family, packed, port)
            if address is None:
                address = self.addresses[key] = Address(family, packed, port, group.number)
                own.default = index
            for one in names:
                self._add_name(key, one, (address, group.number), (own, index), draft.node)
            self._add_front(key, draft)
            self._add_tls(key, draft, is_tls=is_tls)
            address.is_h2c = address.is_h2c or is_h2c

    def _add_name(self, key: Key, name: str, of_server: tuple[Address, int], of_group: tuple[Address, int], node: Node | None) -> None:
        if "*" in name or "?" in name:
            for address, value in (of_server, of_group):
                address.wildcards.append((name, value))
            return
        if name not in of_server[0].names:
            for address, value in (of_server, of_group):
                address.names[name] = value
            self._sources[key, name] = node
            return
        first = self._sources[key, name]
        if first is not node and first is not None:
            self._work.warn(node, f"{name} is already the name of the host of {first.file}:{first.line}: this one is not reached by it")

    def _add_front(self, key: Key, draft: Draft) -> None:
        """RemoteIPProxyProtocol of one host is that of its address: of all that say something the last one counts, as in httpd."""
        peers = self._peers.setdefault(key, {})
        for name in ("remote_ip_internal", "remote_ip_trusted"):
            peers.update(dict.fromkeys(draft.host.get(name) or self._main.get(name) or ()))
        if "proxy_protocol" not in draft.host:
            return
        is_on = draft.host["proxy_protocol"]
        was_on, node = self._fronts.get(key, (is_on, None))
        if was_on != is_on and node is not None:
            self._work.warn(draft.node, f"RemoteIPProxyProtocol {'On' if is_on else 'Off'} here is for the whole address, and so overrides "
                                        f"that of the host of {node.file}:{node.line}")
        self._fronts[key] = (is_on, draft.node)

    def _add_tls(self, key: Key, draft: Draft, *, is_tls: bool) -> None:
        """A client speaks TLS before it names a host: so all hosts of an address do, or none."""
        was_tls, first = self._tls.setdefault(key, (is_tls, draft))
        if was_tls == is_tls or draft.node is None or first.node is None:
            return
        node = draft.host.get("tls_engine", (is_tls, draft.node))[1] or draft.node
        place = f"{first.node.file}:{first.node.line}"
        self._work.fail(node, f"this host speaks {_SPEECH[is_tls]}, and that of {place}, on the same address, {_SPEECH[was_tls]}: give all hosts of "
                              "an address the same SSLEngine, or this one another port (443 is for TLS, 80 for plain HTTP)", 0, place)

    def _has_front(self, key: Key) -> bool:
        """Whether connections to an address begin with a header: On for it or a wider one, and not Off for any of them."""
        said = [is_on for one, (is_on, _) in self._fronts.items() if one[:2] in {key[:2], ANY[:2]} and one[2] in {key[2], 0}]
        return bool(said) and all(said)

    def finish(self, unassigned: Group, groups: Iterable[Group], *, is_main_tls: bool, is_main_h2c: bool) -> None:
        """Add what answers where no host does: the main server. Tell the addresses of all groups of TLS and front ends."""
        if ANY not in self.addresses:
            self.addresses[ANY] = Address(*ANY, unassigned.number)
            unassigned.addresses.setdefault(ANY, Address(*ANY)).default = 0
            self.addresses[ANY].is_h2c = is_main_h2c
        self._tls.setdefault(ANY, (is_main_tls, self._work.collected.main))
        for addresses in (self.addresses, *(group.addresses for group in groups)):
            for key, one in addresses.items():
                one.is_tls = self._tls[key][0]
        if not any(is_on for is_on, _ in self._fronts.values()):
            return
        for key, address in self.addresses.items():
            address.is_front = self._has_front(key)
            listed = self._peers.get(key, dict.fromkeys((*self._main.get("remote_ip_internal", ()), *self._main.get("remote_ip_trusted", ()))))
            address.peers = b"".join(listed)
        for group in groups:
            for key, own in group.addresses.items():
                own.is_front = self.addresses[key].is_front
