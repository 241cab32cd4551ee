"""Says at the end of `pytest --h2` how much of it was HTTP/2: it must not look like more than it was.

Runs as: pytest and the processes of pytest-xdist, whose conftest.py takes it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.h2socket import H2Socket

BEFORE = pytest.StashKey[int]()
LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what is left out."""
    if items:
        stash = items[0].config.stash
        stash[LEFT_OUT] = stash.get(LEFT_OUT, 0) + sum(bool(item.get_closest_marker("http1")) for item in items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note how many streams there were before a test and its fixtures."""
    item.stash[BEFORE] = H2Socket.streams
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Count the streams of a test. None: its clients are programs of their own, or it asks nothing."""
    item.user_properties.append(("streams", H2Socket.streams - item.stash[BEFORE]))
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell pytest-xdist's first process what was left out here."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["http1"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it; each process has left out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("http1", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say it."""
    reports = [one for one in terminalreporter.stats.get("", []) if one.when == "teardown"]
    counts = [dict(one.user_properties).get("streams", 0) for one in reports]
    terminalreporter.write_line(f"HTTP/2: {len(counts) - counts.count(0)} tests on {sum(counts)} streams, {counts.count(0)} with clients of their own or none, "
                                f"{config.stash.get(LEFT_OUT, 0)} left out as HTTP/1.1's own")
