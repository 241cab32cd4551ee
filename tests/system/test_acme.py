"""ACME's HTTP-01 challenges are answered from the host's own files, ahead of everything that would keep an authority from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Lab

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
ANSWER = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
PLACE = ".well-known/acme-challenge"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Alice redirects and denies everything, bob passes everything on, carol has challenges in another place."""
    blocks = {
        "alice": "Redirect permanent / https://alice.example/\n<Location />\nRequire all denied\n</Location>\n",
        "bob": "ProxyPass / http://127.0.0.1:1/\n",
        "carol": "Alias /.well-known/acme-challenge/ {root}/challenges/\nScriptAlias /cgi-bin/ {root}/cgi/\nRedirect / https://carol.example/\n",
    }
    lab = Lab(vhosts=False, tls=False)
    for tenant in lab.tenants.values():
        tenant.write(f"{PLACE}/{TOKEN}", ANSWER)
        tenant.write(f"{PLACE}/index.php", "<?php secret ?>")
        tenant.write(f"{PLACE}/dir/{TOKEN}", "below")
        tenant.write(f"challenges/{TOKEN}", "from the alias")
        lab.config_tail += lab.host_block(tenant, blocks[tenant.name].format(root=tenant.docroot))
    with lab:
        yield lab.start()


@pytest.mark.parametrize(("name", "body"), [("alice", ANSWER), ("bob", ANSWER), ("carol", "from the alias")])
def test_a_challenge_is_answered_ahead_of_everything(lab: Lab, name: str, body: str) -> None:
    """Redirects, access rules and back ends do not count for it; an Alias does."""
    got = lab.get(f"{name}.test", f"/{PLACE}/{TOKEN}")
    assert (got.status, got.body.decode()) == (200, body)
    assert got.fields["content-type"] == "text/plain"
    head = lab.get(f"{name}.test", f"/{PLACE}/{TOKEN}", method="HEAD")
    assert (head.status, head.fields["content-length"]) == (200, str(len(body)))


@pytest.mark.parametrize("path", ["nothing-here", "index.php", f"dir/{TOKEN}", "", "a" * 129, "%2e%2e", TOKEN + "/"])
def test_what_is_no_challenge_is_as_any_other_path(lab: Lab, path: str) -> None:
    """The rules of the host count; a program's source is not sent."""
    assert lab.get("alice.test", f"/{PLACE}/{path}").status in {301, 403}
    assert lab.get("bob.test", f"/{PLACE}/{path}").status == 503


def test_only_reading_is_answered_so(lab: Lab) -> None:
    """Another method meets the host's rules."""
    assert lab.get("alice.test", f"/{PLACE}/{TOKEN}", method="DELETE").status in {301, 403, 405}
