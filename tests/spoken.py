"""Which of the tests of whole servers run over TLS (`--tls`) and over HTTP/2 (`--h2`): all of tests/system, but for the files of OWN, tests
that have a reason (markers `plain`, `http1`), and those whose lab says itself what it speaks.

A test that is run so must have spoken so, or say why not (marker `silent`): what is not spoken must not look as if it had been.
Runs as: pytest and the processes of pytest-xdist, whose conftest.py takes it in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tls import TlsSocket

SYSTEM = Path(__file__).parent / "system"
# Files that mean the same, or nothing, whatever is spoken; tests/unit/test_spoken.py keeps the list true.
OWN = {
    "test_acme": "authorities ask by HTTP/1.1 on the plain port",
    "test_applications": "a browser, which is told http; test_apps has what depends on what is spoken",
    "test_browser_tls": "a browser, which speaks TLS and HTTP/2 by itself",
    "test_certificates": "is about TLS, with clients of its own",
    "test_check": "a command",
    "test_cli_wire": "a command",
    "test_corpus_elsewhere": "test_http_corpus over TLS and HTTP/2",
    "test_demo": "a command, which has clients of its own",
    "test_dispatcher_life": "toy children, who speak nothing",
    "test_dispatcher_reload": "toy children, who speak nothing",
    "test_dispatcher_supervision": "toy children, who speak nothing",
    "test_explain": "a command, beside the server's answers",
    "test_git": "a browser and git itself, which are told to speak HTTP/1.1",
    "test_h2": "is about HTTP/2, with clients of its own",
    "test_h2_memory": "is about HTTP/2, with clients of its own",
    "test_h2_programs": "is about HTTP/2, with clients of its own",
    "test_http_corpus": "bytes of HTTP/1.1; test_corpus_elsewhere has what of them has a meaning elsewhere",
    "test_import": "a command",
    "test_last_bytes": "a moment between two system calls on a socket, in thousands of tries",
    "test_perchildctl": "a command",
    "test_proxy_protocol": "what comes before the first byte; a test of its own speaks each language behind it",
    "test_readme": "what README.md tells people to write",
    "test_server_cli": "a command",
    "test_service_manager": "sockets that are passed, and connections that wait for a server ahead of any handshake",
    "test_sni": "is about TLS, with clients of its own",
    "test_stop_one": "compares times, which the handshakes of its own clients would be a part of; whoever stands still makes none",
    "test_testssl": "is about TLS, with a client of its own",
    "test_tls": "is about TLS, with clients of its own",
    "test_trailers": "speaks HTTP/1.1 and HTTP/2, plain and over TLS, by itself",
    "test_wordpress": "a browser, which is told http",
}
BEFORE = pytest.StashKey[tuple[int, int]]()
LEFT_OUT = pytest.StashKey[int]()


def count_spoken() -> tuple[int, int]:
    """Return how many handshakes of TLS this process's clients have made, and on how many streams they have asked."""
    h2socket = sys.modules.get("tests.h2socket")  # which wants a library that other runs can do without
    return TlsSocket.handshakes, h2socket.H2Socket.streams if h2socket else 0


def is_own(item: pytest.Item) -> bool:
    """Whether a test's file is of OWN."""
    return item.path.parent == SYSTEM and item.path.stem in OWN


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what is left out for a reason of its own, without the files of OWN."""
    if items:
        stash = items[0].config.stash
        stash[LEFT_OUT] = stash.get(LEFT_OUT, 0) + sum(not is_own(item) and any(map(item.get_closest_marker, ("http1", "plain"))) for item in items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note how much was spoken before a test and its fixtures."""
    item.stash[BEFORE] = count_spoken()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that has spoken something else without a reason."""
    yield
    if item.path.parent != SYSTEM or item.get_closest_marker("silent"):
        return
    for option, before, now in zip(("tls", "h2"), item.stash[BEFORE], count_spoken(), strict=True):
        if item.config.getoption(option) and now == before:
            pytest.fail(f"--{option}: its clients have spoken something else; see the markers silent, plain, http1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Count what a test has spoken."""
    item.user_properties += zip(("handshakes", "streams"), (now - before for now, before in zip(count_spoken(), item.stash[BEFORE], strict=True)), strict=True)
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell pytest-xdist's first process what was left out here."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it; each process has left out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say it."""
    told = [dict(one.user_properties) for one in terminalreporter.stats.get("", []) if one.when == "teardown"]
    counts = [(one.get("handshakes", 0), one.get("streams", 0)) for one in told]
    terminalreporter.write_line(f"spoken: {sum(map(any, counts))} tests made {sum(one for one, _ in counts)} handshakes of TLS and asked on "
                                f"{sum(one for _, one in counts)} streams, {counts.count((0, 0))} had clients of their own or none, "
                                f"{config.stash.get(LEFT_OUT, 0)} were left out")
