"""What a row of perchildctl's table of commands is. command.py has the table; each of its modules gives rows.

Runs as: root, or the uid the server was started by; commands that ask no server as whoever calls them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


def _add_nothing(_parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Command:
    """One word after perchildctl. Every command has --json (options.json) and --run-dir (options.run_dir).

    run: what argparse made of the line -> exit status (0 done, 1 refused or findings, 2 wrong call, 3 no server answers);
    NoServerError, ProtocolError and OSError are told by command.main. add_arguments: those that it has besides.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _add_nothing
