"""RemoteIPHeader: whom a server takes a client for when front ends say who it is, and what it makes of those who only pretend to be one.

Runs as: root, which starts the server.  Source: httpd 2.4's mod_remoteip, which the same requests are compared with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, wait_until
from tests.system.backends import BackEnd, fields_of
from tests.system.wire import HAS_APACHE, MODULES, Client, Httpd, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

HOST = """
RemoteIPHeader X-Forwarded-For
{lists}
ProxyPass /back http://127.0.0.1:{port}/
<Location /only>
Require ip 192.0.2.0/24
</Location>
<Location /peers>
Require ip 127.0.0.0/8
</Location>
LogFormat "%a %h %{{c}}a %{{X-Forwarded-For}}i %U" who
CustomLog {log} who
"""
LISTS = {
    "internal": "RemoteIPInternalProxy 127.0.0.0/8 10.0.0.0/8",
    "trusted": "RemoteIPTrustedProxy 127.0.0.1 198.51.100.0/24",
    "both": "RemoteIPInternalProxy 127.0.0.1\nRemoteIPTrustedProxy 10.0.0.0/8 198.51.100.7",
    "stranger": "RemoteIPInternalProxy 203.0.113.1",
    "none": "",
}
VALUES = [
    [], ["192.0.2.7"], ["192.0.2.7, 10.1.2.3"], ["1.2.3.4, 192.0.2.7, 10.1.2.3"], ["10.9.9.9"], ["2001:db8::1"], ["::1"], ["fd00::1, 192.0.2.1"],
    ["garbage"], ["192.0.2.7, garbage"], ["garbage, 192.0.2.7"], [""], [" , 192.0.2.7 "], ["192.0.2.7,"], ["192.0.2.7:80"], ["[2001:db8::1]"],
    ["192.0.2.7", "198.51.100.7"], ["192.0.2.7", "8.8.8.8, 198.51.100.7"], ["172.16.0.1, 198.51.100.7"], ["192.0.2.7 198.51.100.7"], ["unknown"],
    ["169.254.0.1"], ["192.168.1.1, 198.51.100.7"],
]


def ask(connection: Client, values: list[str], path: str = "/back/x") -> dict[str, object]:
    """Ask on a new connection; return status and the fields that the back end got."""
    with connection as one:
        found = one.ask(get("alice.test", path, *(f"X-Forwarded-For: {value}" for value in values)))
        one.end()
    fields = fields_of(found.json()) if found.body.startswith(b'{"line"') else {}
    listed = [one.strip() for one in fields.get("x-forwarded-for", "").split(",")]
    return {"status": found.status, "for": ", ".join(one for one in listed if one)}  # httpd writes empty elements down, too


@pytest.fixture(scope="module")
def back() -> Iterator[BackEnd]:
    """Says what it gets."""
    with BackEnd() as one:
        yield one


def make_lab(back: BackEnd, lists: str) -> Lab:
    """Return a server, not started, whose host logs whom it takes a client for."""
    lab = Lab(names=("alice",))
    lab.has_vhosts = False
    lab.config_tail = lab.host_block(lab.tenants["alice"], HOST.format(lists=lists, port=back.port, log=lab.log / "who.log"))
    return lab


def test_access_logs_and_back_ends_see_the_client(back: BackEnd) -> None:
    """Not the front end; and a client that writes the field itself gains nothing."""
    with make_lab(back, LISTS["internal"]) as lab:
        lab.start()
        assert ask(client(lab), ["192.0.2.7"]) == {"status": 200, "for": "192.0.2.7"}
        assert ask(client(lab), ["6.6.6.6, 192.0.2.7"]) == {"status": 200, "for": "6.6.6.6, 192.0.2.7"}
        assert ask(client(lab), [], "/only/x")["status"] == 403
        assert ask(client(lab), ["192.0.2.7"], "/only/x")["status"] == 404
        assert ask(client(lab), ["192.0.2.7, 6.6.6.6"], "/only/x")["status"] == 403
        assert ask(client(lab), ["192.0.2.7"], "/peers/x")["status"] == 403
        assert ask(client(lab), [], "/peers/x")["status"] == 404
        log = lab.log / "who.log"
        wait_until(lambda: log.exists() and log.read_text().count("\n") == 7, "the log's lines")
        assert log.read_text().split("\n")[:3] == ["192.0.2.7 192.0.2.7 127.0.0.1 - /back/x", "192.0.2.7 192.0.2.7 127.0.0.1 6.6.6.6 /back/x",
                                                   "127.0.0.1 127.0.0.1 127.0.0.1 - /only/x"]
        assert "[client 192.0.2.7:" in lab.error_log()


def test_requests_of_one_connection_are_told_apart(back: BackEnd) -> None:
    """A front end's connection carries several clients."""
    with make_lab(back, LISTS["internal"]) as lab:
        lab.start()
        with client(lab) as one:
            for address in ("192.0.2.7", "198.51.100.1", "192.0.2.8"):
                found = one.ask(get("alice.test", "/back/x", f"X-Forwarded-For: {address}"))
                assert fields_of(found.json())["x-forwarded-for"] == address
            assert fields_of(one.ask(get("alice.test", "/back/x")).json())["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.skipif(not HAS_APACHE or not (MODULES / "mod_remoteip.so").exists(), reason="no Debian apache2")
@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_the_same_clients_as_httpd(back: BackEnd, lists: str) -> None:
    """Every value with every kind of list: the same address in the log, the same rest of the field, the same for the back end."""
    with make_lab(back, lists) as lab:
        lab.start()
        loads = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in ("proxy", "proxy_http", "remoteip"))
        tenant = lab.tenants["alice"]
        log = lab.base / "httpd-who.log"
        config = (f"{loads}LoadModule log_config_module {MODULES}/mod_log_config.so\n" if not is_built_in("log_config") else loads) + (
            f"<VirtualHost *:{{port}}>\nServerName alice.test\nDocumentRoot {tenant.docroot}\n"
            f"{HOST.format(lists=lists, port=back.port, log=log)}</VirtualHost>\n")
        with Httpd(lab.base / "httpd", tenant.uid, config) as httpd:
            for count, values in enumerate(VALUES, 1):
                assert ask(client(lab), values) == ask(Client(("127.0.0.1", httpd.port)), values), values
                wait_until(lambda count=count: log.read_text().count("\n") == count, "httpd's line, which it writes behind its answer")
        ours = lab.log / "who.log"
        wait_until(lambda: ours.exists() and ours.read_text().count("\n") == len(VALUES), "the log's lines")
        for values, one, other in zip(VALUES, lines(ours), lines(log), strict=True):
            assert one == other, values


def lines(path: Path) -> list[str]:
    """Return the addresses of a log's lines; what is left of the field, the back end has shown."""
    return [" ".join(line.split(" ")[:3]) for line in path.read_text().splitlines()]


def is_built_in(name: str) -> bool:
    """Whether Debian's apache2 has the module without loading it."""
    return not (MODULES / f"mod_{name}.so").exists()
