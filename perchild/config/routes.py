"""Addresses and names of hosts -> the server's route table, and each record's own.

The first host of an address is its default; the first mention of a name wins; the main server (host 0 of the unassigned identity)
answers on every address that no <VirtualHost> covers.
Runs as: compile (pure).  Source: httpd's vhost.c.
"""

from __future__ import annotations

from perchild.config.collect import Draft
from perchild.config.hosts import Group
from perchild.config.tree import Node
from perchild.config.work import Work
from perchild.wire.route import Address

Key = tuple[int, bytes, int]
ANY: Key = (0, b"", 0)


class Routes:
    """Gathers the routes of one configuration; groups must have their numbers."""

    def __init__(self, work: Work) -> None:
        self.addresses: dict[Key, Address] = {}
        self._work = work
        self._sources: dict[tuple[Key, str], Node | None] = {}

    def add(self, draft: Draft, group: Group, index: int) -> None:
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

    def finish(self, unassigned: Group) -> None:
        """Add what answers where no host does: the main server."""
        if ANY not in self.addresses:
            self.addresses[ANY] = Address(*ANY, unassigned.number)
            unassigned.addresses.setdefault(ANY, Address(*ANY)).default = 0
