"""A driver, a document root and servers for it: what every test of pc_serve begins with.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import native_serve as ns
import pytest
from native_serve import OLD_S, Host, Server, Start


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, built once."""
    return ns.build_driver(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A document root with an index page, a text, a page with two extensions and a subdirectory without index."""
    top = tmp_path / "www"
    (top / "sub").mkdir(parents=True)
    for name, text in {"index.html": "<h1>home</h1>", "a.txt": "0123456789", "b.html.gz": "gz", "noext": "?", "sub/c.txt": "c"}.items():
        (top / name).write_text(text)
        os.utime(top / name, (OLD_S, OLD_S))
    return top


@pytest.fixture
def start(program: Path, root: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a server for the root: start(settings..., sections=..., aliases=...)."""
    with ExitStack() as stack:

        def run(*settings: bytes, **rest: object) -> Server:
            host = Host(root, settings, **rest)  # type: ignore[arg-type]
            return stack.enter_context(ns.serving(program, host, tmp_path))

        yield run
