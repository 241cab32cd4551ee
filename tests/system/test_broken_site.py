"""One broken site: refused with file, line and reason, while its last good version and everybody else are served, at reload and start."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator

import pytest

from perchild.control.client import ask_server
from tests.lab import Lab, Tenant, wait_until
from tests.load import Load, write_secrets

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]
NAMES = ("alice", "bob", "carol")


class Sites(Lab):
    """A server whose hosts are files in sites-enabled."""

    def __init__(self, *, tls: bool | None = None) -> None:
        super().__init__(names=NAMES, tls=tls)
        self.has_vhosts = False
        self.enabled = self.base / "sites-enabled"
        self.enabled.mkdir()
        self.config_tail = "IncludeOptional sites-enabled/*.conf\n"
        for tenant in self.tenants.values():
            self.put(tenant)

    def put(self, tenant: Tenant, extra: str = "") -> None:
        """Write the file of a tenant's site."""
        (self.enabled / f"{tenant.name}.conf").write_text(self.host_block(tenant, extra))

    def graceful(self) -> dict[str, object]:
        """Ask for a reload."""
        return ask_server(str(self.run), {"op": "graceful"})

    def bodies(self) -> dict[str, tuple[int, bytes]]:
        """Ask each tenant's host."""
        found = {name: self.get(f"{name}.test") for name in NAMES}
        return {name: (one.status, one.body if one.status == 200 else b"") for name, one in found.items()}


GOOD = {name: (200, f"{name}\n".encode()) for name in NAMES}


@pytest.fixture
def lab() -> Iterator[Sites]:
    with Sites() as one:
        yield one


def test_broken_site_at_a_reload_goes_on_as_it_was(lab: Sites) -> None:
    """Its child is the one that it had, the others' changes are taken, nothing fails; mended, it is as new."""
    lab.start()
    with Load(lab, write_secrets(lab), clients=20, pace_s=0.05) as load:
        load.wait_answers(100)
        assert lab.bodies() == GOOD
        bob = lab.tenants["bob"]
        pids = lab.children(bob.uid)
        lab.put(bob, "NoSuchDirective on\nHeader set X-New yes")
        lab.put(lab.tenants["alice"], "Header set X-New yes")
        line = 1 + (lab.enabled / "bob.conf").read_text().splitlines().index("NoSuchDirective on")
        answer = lab.graceful()
        assert answer["ok"]
        assert f"AH00526: Syntax error on line {line} of {lab.enabled}/bob.conf:\nInvalid command 'NoSuchDirective'" in str(answer["text"])
        assert lab.bodies() == GOOD
        assert lab.get("alice.test").fields["x-new"] == "yes"
        assert "x-new" not in lab.get("bob.test").fields
        assert lab.children(bob.uid) == pids
        broken, = lab.status()["broken_sites"]
        assert (broken["file"], broken["line"], broken["stand_in"]) == (f"{lab.enabled}/bob.conf", line, "last good version")
        assert f"bob.conf was not taken: its last good version, of {broken['when']}, is served" in lab.error_log()
        lab.put(bob, "Header set X-New yes")
        assert lab.graceful() == {"ok": True, "text": ""}
        assert lab.get("bob.test").fields["x-new"] == "yes"
        assert lab.status()["broken_sites"] == []
        load.wait_answers(100)
        report = load.stop()
    lab.stop()
    assert not report.bad(), f"{report.summary()}: {report.bad()[:3]}"


def test_broken_site_at_the_start_is_served_as_it_was(lab: Sites) -> None:
    """The last good version outlives the server, as a file that nobody but root can read."""
    lab.start()
    lab.stop()
    state = lab.base / "state/sites"
    assert len(list(state.iterdir())) == len(NAMES)
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (state, *state.iterdir())} == {(0, 0o700), (0, 0o600)}
    lab.put(lab.tenants["bob"], "</Directory>")
    lab.put(lab.tenants["alice"], "Header set X-New yes")
    lab.start()
    assert lab.bodies() == GOOD
    assert lab.get("alice.test").fields["x-new"] == "yes"
    assert "bob.conf was not taken: its last good version, of " in lab.error_log()
    lab.stop()


@pytest.mark.plain("over TLS bob has a child, which has his key; test_broken_site_of_tls_takes_no_other_down is about that")
def test_broken_site_that_never_was_good_answers_503(lab: Sites) -> None:
    """At the start and at a reload: loud, and by nobody else's files; the tenant has no process."""
    bob = lab.tenants["bob"]
    lab.put(bob, "NoSuchDirective on")
    lab.start()
    assert lab.bodies() == {**GOOD, "bob": (503, b"")}
    assert lab.get("bob.test", "/any/where").fields["retry-after"] == "300"
    assert "bob.test will answer 503 until it is mended" in lab.error_log()
    assert not lab.children(bob.uid)
    lab.put(bob)
    assert lab.graceful()["ok"]
    assert lab.bodies() == GOOD
    lab.stop()


def test_unreadable_site_breaks_itself_alone(lab: Sites) -> None:
    """A link to nothing, a file that others can write, at a reload by signal; a site that is taken away is no broken one."""
    lab.start()
    bob, carol = lab.enabled / "bob.conf", lab.enabled / "carol.conf"
    bob.unlink()
    bob.symlink_to(lab.base / "nowhere")
    carol.chmod(0o666)
    os.kill(lab.pid, signal.SIGUSR1)
    wait_until(lambda: len(lab.status()["broken_sites"]) == 2, "both are refused")
    assert lab.bodies() == GOOD
    assert "can be written by others: root does not read it; chmod go-w" in lab.error_log()
    bob.unlink()
    carol.chmod(0o644)
    assert lab.graceful() == {"ok": True, "text": ""}
    assert lab.bodies() == {**GOOD, "bob": (200, b"alice\n")}  # the address's first host
    lab.stop()


@pytest.mark.plain("a key whose user is gone is nobody's; over TLS it is in test_broken_site_of_tls_takes_no_other_down")
def test_user_who_is_gone_takes_nobody_with_him(lab: Sites) -> None:
    """At the start: his site names a user whom the machine does not know."""
    lab.assign["bob"] = "nosuchuser nosuchuser"
    lab.put(lab.tenants["bob"])
    lab.start()
    assert lab.bodies() == {**GOOD, "bob": (503, b"")}
    assert "bad user name nosuchuser: there is no such user" in lab.error_log()
    lab.stop()


def test_configuration_test_and_graceful_tell_the_operator(lab: Sites) -> None:
    """perchildd -t says no, since something is wrong; -k graceful goes on, and says what was refused."""
    lab.start()
    lab.put(lab.tenants["bob"], "NoSuchDirective on")
    tested = lab.cli("-t")
    assert tested.returncode == 1
    assert f"of {lab.enabled}/bob.conf:" in tested.stderr
    assert tested.stderr.endswith("perchildd: 1 of the sites is refused; the others would be taken\n")
    asked = lab.cli("-k", "graceful")
    assert asked.returncode == 0
    assert f"of {lab.enabled}/bob.conf:" in asked.stderr
    wait_until(lambda: lab.status()["broken_sites"], "the server has seen it")
    assert lab.bodies() == GOOD
    lab.stop()


def test_what_is_everybodys_still_refuses_the_whole(lab: Sites) -> None:
    """A broken site beside a broken main file: nothing is taken."""
    lab.start()
    generation = lab.status()["generation"]
    lab.put(lab.tenants["bob"], "NoSuchDirective on")
    lab.config = "KeepAliveTimeout soon\n"
    answer = lab.reload()
    assert not answer["ok"]
    assert "KeepAliveTimeout" in answer["text"]
    assert lab.status()["generation"] == generation
    assert lab.bodies() == GOOD
    lab.stop()


def test_state_that_cannot_be_kept_is_said_and_no_more(lab: Sites) -> None:
    """A directory that others can write to: the server starts, and says that it keeps nothing there."""
    state = lab.base / "state"
    state.mkdir()
    state.chmod(0o777)
    lab.start()
    assert lab.bodies() == GOOD
    assert f"{state} must be a directory of uid 0 that nobody else can write to" in lab.error_log()
    lab.stop()


@pytest.mark.silent("says itself what it speaks")
def test_broken_site_of_tls_takes_no_other_down() -> None:
    """Without a good version it answers 503, with its own key in its own user's process; with one it goes on as it was."""
    with Sites(tls=True) as lab:
        bob = lab.tenants["bob"]
        lab.put(bob, "NoSuchDirective on")
        lab.start()
        assert lab.get("alice.test").body == b"alice\n"
        assert lab.get("bob.test").status == 503
        assert lab.children(bob.uid)
        unassigned = next(one for one in lab.status()["identities"] if one["kind"] == "unassigned")
        assert unassigned["hosts"] == 0  # only the main server: bob's key is in no process but bob's
        lab.assign["bob"] = "nosuchuser nosuchuser"
        lab.put(bob)
        assert lab.graceful()["ok"]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            lab.get("bob.test")  # a key whose user is gone is nobody's
        del lab.assign["bob"]
        lab.put(bob)
        assert lab.graceful() == {"ok": True, "text": ""}
        assert lab.bodies() == GOOD
        lab.put(bob, "NoSuchDirective on")
        assert "its last good version" in str(lab.graceful()["text"])
        assert lab.bodies() == GOOD
        lab.stop()


def test_log_directory_that_is_gone_takes_nobody_down(lab: Sites) -> None:
    """At the start and at a reload, as when a panel has removed a domain's directory: all are served, and the log says which is lost."""
    for name in ("bob", "carol"):
        lab.put(lab.tenants[name], f"CustomLog {lab.base}/nowhere/{name}/access.log combined\nErrorLog {lab.base}/nowhere/{name}/error.log")
        if name == "bob":
            lab.start()
        else:
            assert lab.graceful()["ok"]
        assert lab.bodies() == GOOD
    lab.stop()
    assert f"AH00649: could not open transfer log file {lab.base}/nowhere/bob/" in lab.error_log()
