"""Numbers that contradict each other are corrected as httpd corrects them."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(("text", "field", "number"), [
    ("MPM worker\nThreadsPerChild 30\nMaxRequestWorkers 100\n", "max_workers", 90),
    ("MPM worker\nMaxRequestWorkers 10\n", "max_workers", 25),
    ("MPM worker\nMaxClients 1000\n", "max_workers", 400),
    ("MPM worker\nMaxSpareThreads 80\n", "max_spare", 100),
    ("MPM prefork\nMaxRequestWorkers 300\n", "max_workers", 256),
    ("MPM prefork\nMinSpareServers 20\n", "max_spare", 21),
    ("StartThreads 64\nMaxThreadsPerChild 4\n", "threads_per_child", 4),
    ("MinSpareThreads 20\n", "max_spare", 20),
])
def test_a_contradiction_is_corrected_and_warned_about(world: Any, text: str, field: str, number: int) -> None:
    """One warning, one number."""
    result = world.good(text)
    assert len(result.warnings) == 1
    assert getattr(result.compiled.plan.scale, field) == number


@pytest.mark.parametrize(("text", "reason"), [
    ("NumServers 9\nServerLimit 8\n", "NumServers 9 is out of range: 1..8 expected (ServerLimit is 8)"),
    ("MPM worker\nThreadsPerChild 65\n", "ThreadsPerChild 65 is out of range: 1..64 expected (ThreadLimit is 64)"),
    ("ThreadLimit 10\nMaxThreadsPerChild 11\n", "MaxThreadsPerChild 11 is out of range: 1..10 expected (ThreadLimit is 10)"),
])
def test_a_broken_limit_is_an_error_with_its_range(world: Any, text: str, reason: str) -> None:
    """Limits hold in any order of the lines."""
    assert world.reasons(text) == [reason]
    assert world.reasons("".join(reversed(text.splitlines(keepends=True)))) == [reason]


@pytest.mark.parametrize("name", ["MaxRequestsPerChild", "MaxConnectionsPerChild"])
def test_old_and_new_names_mean_the_same(world: Any, name: str) -> None:
    """2.0's names and 2.4's."""
    assert world.good(f"{name} 77\n").compiled.plan.identities[0].max_connections == 77


def test_many_servers_need_no_server_limit(world: Any) -> None:
    """ServerLimit follows NumServers unless it is said."""
    assert world.good("NumServers 50\n").compiled.plan.scale.server_limit == 50
