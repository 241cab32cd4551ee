"""One booted machine for each suite, for all tests of a module, in their order: they are the life of one installation."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.package import machine as machines

SUITES = os.environ.get("PERCHILD_SUITES", "bookworm trixie").split()
_cannot: dict[str, str] = {}  # suite -> why


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[machines.Machine]:
    """A booted machine, in which nothing of ours is installed yet."""
    reason = machines.check_possible() or _cannot.get(request.param, "")
    if reason:
        pytest.skip(f"a machine cannot be made here: {reason}")
    one = machines.Machine(request.param)
    try:
        one.boot()
    except machines.UnbootableError as error:
        _cannot[request.param] = str(error)
        pytest.skip(str(error))
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def quiet(machine: machines.Machine) -> Iterator[None]:
    """Nothing in the journal is an error, and nothing of our unit's is even a warning, while the test runs."""
    machine.try_run("systemctl", "reset-failed", "perchildd")  # the tests start it more often than systemd lets a unit in ten seconds
    cursor = machine.run("journalctl", "--no-pager", "-n", "1", "--show-cursor", "-o", "cat").rpartition("-- cursor: ")[2].strip()
    yield
    assert not machine.journal("--after-cursor", cursor, "-p", "err")
    assert not machine.journal("--after-cursor", cursor, "-p", "warning", "-u", "perchildd")
