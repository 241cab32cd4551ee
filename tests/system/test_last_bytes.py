"""The end of an answer behind which the connection is closed at once."""

from __future__ import annotations

import os
import socket

import pytest

from tests.lab import Lab, read_all

pytestmark = [pytest.mark.root, pytest.mark.timeout(600), pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

REQUEST = b"GET / HTTP/1.1\r\nHost: alice.test\r\nConnection: close\r\n\r\n"
CONNECTIONS = 6000  # of which some six would lose their answer if the close were a reset
STEPS = 40


def test_no_answer_is_lost_to_what_a_client_sends_behind_its_last_request() -> None:
    """It comes between the server's last look and its close, now a little sooner and now a little later."""
    with Lab(names=("alice",)) as lab:
        lab.start()
        assert lab.get("alice.test").status == 200
        lost = [number for number in range(CONNECTIONS) if not ask(lab, number % STEPS * 8)]
        lab.stop()
    assert lost == []


def ask(lab: Lab, wait_turns: int) -> bytes:
    """Return what comes for a request behind which a byte of another follows."""
    with socket.create_connection(("127.0.0.1", lab.port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(REQUEST)
        for _ in range(wait_turns):
            pass
        try:
            sock.sendall(b"G")
            return read_all(sock)
        except ConnectionError:
            return b""
