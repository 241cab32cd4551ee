"""Nothing of bob's part of the configuration, and nothing that his clients send, is in any other identity's memory.

The secrets stand only in bob's VirtualHost: a header, an environment variable, a path, a redirect's target, an administrator.
Every readable mapping of every process is searched as root.
Runs as: root.  Source: DESIGN 3, security.md G18.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boundary import procs
from tests.lab import Lab, is_alive, read_response, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

KINDS = ("header", "environment", "path", "target", "admin", "alias")


class Secrets:
    """A random word for each place in bob's host where one can stand."""

    def __init__(self) -> None:
        self.words = {kind: f"secret{kind}{secrets.token_hex(8)}" for kind in KINDS}

    def directives(self, docroot: str) -> str:
        """Return what bob's VirtualHost says besides its usual lines."""
        word = self.words
        return (f"Header set X-Secret {word['header']}\nSetEnv BOB_KEY {word['environment']}\nAlias /a /srv/{word['path']}\n"
                f"Redirect /away http://{word['target']}.example/\nServerAdmin {word['admin']}@bob.test\n"
                f"Alias /{word['alias']} {docroot}/index.html\n")


class SecretLab(Lab):
    """A lab in which bob's host holds the secrets."""

    def __init__(self, words: Secrets, **options: object) -> None:
        super().__init__(names=("alice", "bob"), **options)  # type: ignore[arg-type]
        self.secrets = words

    def host_block(self, tenant: object, extra: str = "") -> str:
        """Return the tenant's host; bob's with the secrets."""
        one = self.tenants["bob"]
        return super().host_block(tenant, self.secrets.directives(str(one.docroot)) if tenant is one else extra)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["unassigned", "any"])
def lab(request: pytest.FixtureRequest) -> Iterator[SecretLab]:
    """A server that has compiled twice (a start and a reload) and served everybody."""
    with SecretLab(Secrets(), accept_scope=request.param) as lab:
        if request.param == "any":
            lab.config = "NumServers 5\n" + "".join(f"ChildPerUserID #{one.uid} #{one.uid} {index}\n"
                                                    for index, one in enumerate(lab.tenants.values(), 1))
        lab.start()
        assert lab.reload()["ok"]
        for host in ("alice.test", "bob.test", "main.test"):
            for _ in range(3):
                assert lab.get(host).status == 200
        assert lab.get("bob.test").fields["x-secret"] == lab.secrets.words["header"]
        wait_until(lambda: procs.has_ready_children(lab), "those that were not asked have begun as well")
        yield lab


def others(lab: Lab) -> list[int]:
    """Return every process of the server that is not bob's."""
    bob = set(lab.children(lab.tenants["bob"].uid))
    assert bob
    return [pid for pid in (lab.pid, lab.nursery, *lab.children()) if pid not in bob]


@pytest.mark.parametrize("kind", KINDS)
def test_bobs_settings_are_in_no_other_process(lab: SecretLab, kind: str) -> None:
    """A word of bob's host is in his child's memory (so the search works) and in no other process, the dispatcher included."""
    word = lab.secrets.words[kind].encode()
    (bob,) = lab.children(lab.tenants["bob"].uid)
    assert procs.count_in_memory(bob, word) > 0
    assert {pid: procs.count_in_memory(pid, word) for pid in others(lab)} == dict.fromkeys(others(lab), 0)


def test_bobs_requests_are_in_no_other_tenants_process(lab: SecretLab) -> None:
    """What bob's client sends, handed over once and kept, is never in alice's memory or the dispatcher's."""
    word = "cookie" + secrets.token_hex(8)
    with lab.connect() as sock:
        for _ in range(3):
            sock.sendall(f"GET / HTTP/1.1\r\nHost: bob.test\r\nCookie: {word}\r\n\r\n".encode())
            assert read_response(sock).status == 200
        (bob,) = lab.children(lab.tenants["bob"].uid)
        wait_until(lambda: procs.count_in_memory(bob, word.encode()), "bob's child has it")
        apart = [lab.pid, lab.nursery, *(lab.children(lab.tenants["alice"].uid) if lab.accept_scope == "unassigned" else [])]
        assert {pid: procs.count_in_memory(pid, word.encode()) for pid in apart} == dict.fromkeys(apart, 0)


def test_bytes_behind_the_peek_are_not_seen_by_the_accepting_child(lab: SecretLab) -> None:
    """An accepting child looks at the first bytes of a connection only: what a client sends after its hand-off stays bob's."""
    word = "later" + secrets.token_hex(8)
    with lab.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: bob.test\r\n\r\n")
        assert read_response(sock).status == 200
        sock.sendall(f"GET / HTTP/1.1\r\nHost: bob.test\r\nAuthorization: {word}\r\n\r\n".encode())
        assert read_response(sock).status == 200
        (bob,) = lab.children(lab.tenants["bob"].uid)
        assert procs.count_in_memory(bob, word.encode()) > 0
        assert {pid: procs.count_in_memory(pid, word.encode()) for pid in others(lab)} == dict.fromkeys(others(lab), 0)


def test_the_nursery_has_no_tenants_name(lab: SecretLab) -> None:
    """What tenants' children are forked from is older than the first plan: no host name is in its memory."""
    assert [procs.count_in_memory(lab.nursery, name) for name in (b"alice.test", b"bob.test")] == [0, 0]


def test_the_route_table_holds_names_and_no_more(lab: SecretLab) -> None:
    """Accepting children know bob's names, which are public; under AcceptScope unassigned alice's child does not even do that."""
    name = b"bob.test"
    assert all(procs.count_in_memory(pid, name) > 0 for pid in lab.children(lab.user_uid))
    if lab.accept_scope == "unassigned":
        fresh = b"unheard" + secrets.token_hex(6).encode() + b".test"
        lab.config += f"\n<VirtualHost *:{lab.port}>\nServerName {fresh.decode()}\nDocumentRoot {lab.main_root}\n</VirtualHost>\n"
        uid = lab.tenants["alice"].uid
        (old,) = lab.children(uid)
        assert lab.reload()["ok"]  # the new host comes first, which is told to her: she gets a new child
        wait_until(lambda: not is_alive(old), "her old child has ended")
        assert lab.get("alice.test").status == 200
        (alice,) = wait_until(lambda: len(found := lab.children(uid)) == 1 and found, "she has one child")
        assert procs.count_in_memory(alice, fresh) == 0
        wait_until(lambda: all(procs.count_in_memory(pid, fresh) for pid in lab.children(lab.user_uid)), "the new name is known")
        wait_until(lambda: all(len(lab.children(one.uid)) == 1 for one in lab.tenants.values()), "nobody's child is left that was replaced")


def test_the_starters_environment_is_in_no_process() -> None:
    """A secret variable of whoever starts the server is in no process's memory or environ, and yet the configuration may name it."""
    secret, name = secrets.token_hex(16), f"TOKEN_{secrets.token_hex(4)}".upper()
    with Lab(names=("alice", "bob"), host_config='Header set X-Told "%{TOLD}e"\nSetEnv TOLD ${TOLD_HERE}\n') as lab:
        lab.start(environment={name: secret, "TOLD_HERE": "by-the-starter"})
        for _ in range(2):
            for host in ("alice.test", "bob.test"):
                assert lab.get(host).fields["x-told"] == "by-the-starter"
            assert lab.get("alice.test", "/whoami").status == 200  # asks Python
            pids = {lab.pid, lab.nursery, *lab.children()}
            assert len(pids) >= 5
            assert {pid: procs.count_in_memory(pid, secret.encode()) for pid in pids} == dict.fromkeys(pids, 0)
            for pid in pids:
                environ = Path(f"/proc/{pid}/environ").read_bytes()
                assert secret.encode() not in environ
                assert b"PATH=" in environ
            lab.config = "# another generation\n"
            assert lab.reload()["ok"]
