"""What the runner does in one turn of its loop, without a process of its own.

Runs as: any user.
"""

from __future__ import annotations

import os
import signal
import struct

import pytest

from perchild.runner import main


def test_signals_without_end_do_not_keep_the_runner_from_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of its uid may send them as fast as they are read: so many in a row, then the loop goes round."""
    runner, read = main.Runner.__new__(main.Runner), []
    runner._signal_fd = 9

    def flood(fd: int, size: int) -> bytes:
        read.append((fd, size))
        assert len(read) < 1000, "it reads for ever"
        return struct.pack("=I124x", signal.SIGCHLD)

    monkeypatch.setattr(main.Runner, "_reap", lambda _runner: None)
    monkeypatch.setattr(os, "read", flood)
    runner._on_signal(1)
    assert read == [(9, main.SIGNAL_BYTES)] * main.SIGNALS_AT_ONCE
