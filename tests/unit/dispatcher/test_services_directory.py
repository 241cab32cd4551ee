"""The directory of an identity's service sockets, when the identity goes: it is the tenant's, who may fill it or race with root.

Runs as: any user.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perchild.dispatcher import inbox, runners
from perchild.dispatcher.state import Programs
from perchild.wire import plan
from perchild.wire.plan import tenant_directory


class Loop:
    """Watches nothing."""

    def forget(self, _fd: int) -> None:
        """Nothing to do."""


def make_identity(run: Path) -> tuple[Any, Any, Path]:
    """Return a server and a member that has programs and no runner, as far as their end needs them, and the directory."""
    identity = SimpleNamespace(name="alice", number=1, uid=os.geteuid(), gid=os.getegid(), groups=())
    directory = Path(tenant_directory(str(run), identity.uid, identity.gid, identity.groups))
    directory.mkdir(parents=True)
    server = SimpleNamespace(plan=SimpleNamespace(run_dir=str(run)), loop=Loop())
    return server, SimpleNamespace(identity=identity, programs=Programs(inbox.make_inbox(65536), "file", new_privs=False)), directory


def test_it_has_its_name_when_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that connects to a socket in it meanwhile finds none, and has it started; in one of root's it would be refused."""
    server, member, directory = make_identity(tmp_path)
    server.is_privileged = False
    directory.rmdir()
    directory.parent.rmdir()
    seen, fchmod = [], os.fchmod

    def look(fd: int, mode: int) -> None:
        seen.append((directory.parent.exists(), directory.exists()))
        fchmod(fd, mode)
    monkeypatch.setattr(os, "fchmod", look)
    runners._make_directory(server, member)
    runners._make_directory(server, member)
    assert seen == [(False, False), (True, False), (True, True), (True, True)]
    assert (directory.stat().st_mode & 0o777, directory.parent.stat().st_mode & 0o777) == (0o700, 0o711)


def test_it_is_not_in_memory_that_the_system_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else is configured, tenants can write to nothing below /run: their directories are made on a disk, with what leads there."""
    assert tenant_directory("/run/perchildd", 1001, 1001, (5,)) == "/var/lib/perchild-tenants/1001:1001:5"
    assert tenant_directory("/srv/run", 1001, 1001, ()) == "/srv/run/tenants/1001:1001:"
    run, tenants = tmp_path / "run", tmp_path / "tenants"
    server, member, below = make_identity(run)
    below.rmdir()
    below.parent.rmdir()
    server.is_privileged = False
    monkeypatch.setattr(plan, "RUN_DIR", str(run))
    monkeypatch.setattr(plan, "TENANTS_DIR", str(tenants))
    runners._make_directory(server, member)
    assert [path.name for path in tenants.iterdir()] == [below.name]
    assert list(run.iterdir()) == []
    assert runners.drop_programs(server, member)
    assert list(tenants.iterdir()) == []


def test_it_goes_with_sockets_and_links_and_nothing_else(tmp_path: Path) -> None:
    """A link's target stays."""
    server, member, directory = make_identity(tmp_path)
    (tmp_path / "precious").write_text("kept")
    (directory / "link").symlink_to(tmp_path / "precious")
    (directory / "pool.sock").touch()
    assert runners.drop_programs(server, member)
    assert not directory.exists()
    assert (tmp_path / "precious").read_text() == "kept"


def test_no_more_is_read_than_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant that fills it keeps what is over."""
    server, member, directory = make_identity(tmp_path)
    monkeypatch.setattr(runners, "MAX_STALE", 10)
    monkeypatch.delattr(os, "listdir")  # which reads all of it, however much that is
    for number in range(25):
        (directory / str(number)).touch()
    assert runners.drop_programs(server, member)
    monkeypatch.undo()
    assert len(os.listdir(directory)) == 15


@pytest.mark.parametrize("error", [IsADirectoryError, FileNotFoundError, PermissionError])
def test_whoever_is_at_work_in_it_does_not_end_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """A name that became a directory, or nothing, between looking and removing."""
    server, member, directory = make_identity(tmp_path)
    for name in ("a", "b"):
        (directory / name).touch()
    unlink = os.unlink

    def race(name: str, **more: int) -> None:
        if name == "a":
            raise error(name)
        unlink(name, **more)
    monkeypatch.setattr(os, "unlink", race)
    assert runners.drop_programs(server, member)
    monkeypatch.undo()
    assert [path.name for path in directory.iterdir()] == ["a"]


def test_a_directory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Somebody cleaned the run directory up."""
    server, member, directory = make_identity(tmp_path)
    directory.rmdir()
    directory.parent.rmdir()
    assert runners.drop_programs(server, member)
    assert member.programs is None
