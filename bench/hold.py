"""The holder: opens kept connections, makes one request on each, and keeps them open and idle until its stdin ends.

    python3 -m bench.hold PORT COUNT PATH HOST...
Prints `held N` when they stand, and at the end `open N`: how many the server had not closed.
Runs as: root.  Source addresses: 127.0.1.0/24, so that the ports of one address do not run out.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Sequence

from bench.load import ADDRESS

_TIMEOUT_S = 20.0
_SOURCES = 20
_TAIL_BYTES = 65536


def open_one(port: int, path: str, host: str, number: int) -> socket.socket | None:
    """Connect, make one request, read its whole answer; None if the server refused or closed."""
    try:
        held = socket.create_connection((ADDRESS, port), _TIMEOUT_S, (f"127.0.1.{number % _SOURCES + 1}", 0))
    except OSError:
        return None
    try:
        held.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        if _read_answer(held):
            return held
    except OSError:
        pass
    held.close()
    return None


def _read_answer(held: socket.socket) -> bool:
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = held.recv(_TAIL_BYTES)
        if not piece:
            return False
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    left = int(lines.get(b"content-length", b"0")) - len(body)
    while left > 0:
        piece = held.recv(min(left, _TAIL_BYTES))
        if not piece:
            return False
        left -= len(piece)
    return head.startswith(b"HTTP/1.1 200") and lines.get(b"connection", b"").strip() != b"close"


def count_open(held: Sequence[socket.socket]) -> int:
    """Return how many of `held` the other side has not closed."""
    poll = select.poll()
    for connection in held:
        poll.register(connection, select.POLLIN | select.POLLHUP)
    return len(held) - len(poll.poll(0))


def main(argv: Sequence[str]) -> int:
    """Hold argv[1] connections to port argv[0] until stdin ends."""
    port, count, path, hosts = int(argv[0]), int(argv[1]), argv[2], argv[3:]
    opened = (open_one(port, path, hosts[number % len(hosts)], number) for number in range(count))
    held = [connection for connection in opened if connection]
    print(f"held {len(held)}", flush=True)
    sys.stdin.read()
    print(f"open {count_open(held)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
