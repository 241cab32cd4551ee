"""RemoteIPProxyProtocol belongs to an address, not to a host: which addresses expect a front end's header, and from whom.

What httpd does was seen with Debian's mod_remoteip (2.4.62), row by row.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from perchild.wire.record import TAGS

ON, OFF = "RemoteIPProxyProtocol On\n", "RemoteIPProxyProtocol Off\n"
ROUTE = next(tag.number for tag in TAGS if tag.name == "ROUTE")
LEAF_10 = b"\6\0\6\0\4\10\12\0\0\0"
LEAF_192 = b"\6\0\6\0\4\40\300\0\2\1"


def host(addresses: str, name: str, text: str = "") -> str:
    """Return a VirtualHost of alice."""
    return f"<VirtualHost {addresses}>\nServerName {name}\nDocumentRoot /home/alice/web\nAssignUserID alice alice\n{text}</VirtualHost>\n"


def fronts(table: bytes) -> dict[str, bytes | None]:
    """Return "address:port" of every row that expects headers -> its peers, None in an own table (as wire/route.py describes it)."""
    _, _, count, offset, _ = struct.unpack_from("<8sIIII", table)
    out: dict[str, bytes | None] = {}
    for row in (struct.unpack_from("<BBH16sIIIII", table, offset + 40 * index) for index in range(count)):
        family, flags, port, packed, *_, wild_count, wild_at = row
        if flags & 2:
            at, = struct.unpack_from("<I", table, wild_at + 4 * wild_count)
            length = struct.unpack_from("<I", table, at + 16)[0] if at else 0
            out[f"{'.'.join(map(str, packed[:4])) if family else '*'}:{port}"] = table[at + 20 : at + 20 + length] if at else None
    return out


def own_table(result: Any, name: str) -> bytes:
    """Return the route table in an identity's record."""
    raw = result.compiled.records[next(one.record for one in result.compiled.plan.identities if one.name == name)]
    at = 0
    while at < len(raw):
        number, _, length = struct.unpack_from("<HHI", raw, at)
        if number == ROUTE:
            return bytes(raw[at + 8 : at + 8 + length])
        at += 8 + length
    raise AssertionError("no ROUTE")


@pytest.mark.parametrize(("text", "wanted"), [
    (host("*:80", "a.example") + ON, {"*:80", "*:0"}),
    (OFF + host("*:80", "a.example", ON), set()),
    (host("*:80", "a.example", ON) + host("127.0.0.1:80", "b.example"), {"*:80", "127.0.0.1:80"}),
    (host("*:80", "a.example", ON) + host("127.0.0.1:80", "b.example", OFF), {"*:80"}),
    (host("*:80", "a.example", ON) + host("*:81", "b.example"), {"*:80"}),
    (host("127.0.0.1:80", "a.example", ON) + host("*:80", "b.example"), {"127.0.0.1:80"}),
    (host("*:80", "a.example", ON) + host("*:80", "b.example", OFF), set()),
    (host("*:80", "a.example") + host("*:80", "b.example", ON), {"*:80"}),
    (host("*:80", "a.example", OFF) + host("*:80", "b.example", ON), {"*:80"}),
    (host("*:80 127.0.0.2:81", "a.example", ON), {"*:80", "127.0.0.2:81"}),
    (host("*:80", "a.example", OFF), set()),
    ("", set()),
])
def test_an_address_expects_headers_where_httpd_does(world: Any, text: str, wanted: set[str]) -> None:
    """In the server's table and in each record's own: the receiver of a hand-off looks there."""
    result = world.good(text)
    assert set(fronts(result.compiled.route_table)) == wanted
    if "ServerName" in text:
        own = fronts(own_table(result, "alice"))
        assert set(own) == wanted - {"*:0"}
        assert not any(own.values()), "the key is for who listens"


@pytest.mark.parametrize(("text", "peers"), [
    (host("*:80", "a.example", ON), b""),
    ("RemoteIPTrustedProxy 10/8\n" + host("*:80", "a.example", ON), LEAF_10),
    ("RemoteIPTrustedProxy 10/8\n" + host("*:80", "a.example", f"{ON}RemoteIPTrustedProxy 192.0.2.1\n"), LEAF_192),
    (host("*:80", "a.example", f"{ON}RemoteIPInternalProxy 10/8\n") + host("*:80", "b.example", "RemoteIPTrustedProxy 192.0.2.1 10/8\n"),
     LEAF_10 + LEAF_192),
    (host("*:80", "a.example", ON) + host("*:80", "b.example", "RemoteIPTrustedProxy 10/8\n"), LEAF_10),
    (host("*:80", "a.example", ON) + host("*:81", "b.example", "RemoteIPTrustedProxy 10/8\n"), b""),
])
def test_front_ends_of_an_address_are_those_of_its_hosts(world: Any, text: str, peers: bytes) -> None:
    """Both lists of all its hosts together, the server's where a host has none; empty: any peer is one."""
    assert fronts(world.good(text).compiled.route_table)["*:80"] == peers


def test_the_main_server_has_its_own_front_ends(world: Any) -> None:
    """Where no VirtualHost is."""
    assert fronts(world.good(f"{ON}RemoteIPInternalProxy 10/8\n").compiled.route_table) == {"*:0": LEAF_10}


def test_a_setting_that_is_overridden_is_told(world: Any) -> None:
    """As httpd does (AH03491): the first host's On means nothing then."""
    result = world.good(host("*:80", "a.example", ON) + host("*:80", "b.example", OFF))
    texts = [one.reason for one in result.warnings if "RemoteIPProxyProtocol" in one.reason]
    assert len(texts) == 1
    assert texts[0].startswith("RemoteIPProxyProtocol Off here is for the whole address, and so overrides that of the host of /main.conf:")


def test_each_server_table_has_a_key_of_its_own(world: Any) -> None:
    """And a record has none, so that it stays the same when nothing changes."""
    text = host("*:80", "a.example", ON)
    one, two = world.good(text), world.good(text)
    assert one.compiled.route_table != two.compiled.route_table
    assert one.compiled.records == two.compiled.records
