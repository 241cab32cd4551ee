"""Programs in the configuration of a running server: whose runner's file is where, and whom a change of it concerns."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120), pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]


def runner_files(lab: Lab) -> dict[int, tuple[Path, dict[str, Any]]]:
    """Return the runners' files by the uid they are for."""
    found = {}
    for path in (lab.run / "records").glob("*.runner"):
        tree = json.loads(path.read_bytes())
        found[int(tree["uid"])] = (path, tree)
    return found


def test_a_runners_file_is_roots_alone_and_changes_for_its_identity_only() -> None:
    """Who has programs has one; another limit renews that identity's file and child, and leaves the others' alone."""
    with Lab(names=("alice", "bob", "carol")) as lab:
        alice, bob, carol = (lab.tenants[name] for name in ("alice", "bob", "carol"))
        more = "ScriptAlias /cgi-bin/ /srv/cgi/\nRLimitCPU {}\n"

        def configure(seconds: int) -> None:
            lab.config_tail = (lab.host_block(alice, more.format(seconds)).replace("alice.test", "cgi.alice.test")
                               + lab.host_block(bob, more.format(5)).replace("bob.test", "cgi.bob.test"))

        configure(5)
        lab.start()
        bodies = [lab.get(tenant.host).body for tenant in (alice, bob, carol)]
        before, children = runner_files(lab), {uid: lab.children(uid) for uid in (alice.uid, bob.uid, carol.uid)}
        configure(6)
        assert lab.reload() == {"ok": True, "text": ""}
        wait_until(lambda: not set(children[alice.uid]) & set(lab.children(alice.uid)), "alice's old child ends")
        after = runner_files(lab)
        assert bodies == [b"alice\n", b"bob\n", b"carol\n"]
        assert set(before) == set(after) == {alice.uid, bob.uid}
        assert (after[alice.uid][1]["limits"]["cpu"], after[bob.uid][1]["limits"]["cpu"]) == ([6, 6], [5, 5])
        assert after[bob.uid] == before[bob.uid]
        assert lab.children(bob.uid) == children[bob.uid]
        assert lab.children(carol.uid) == children[carol.uid]
        states = [path.stat() for path, _ in after.values()]
        assert [(stat.S_IMODE(one.st_mode), one.st_uid) for one in states] == [(0o600, 0)] * 2
        assert not before[alice.uid][0].exists()
        lab.stop()
