"""perchildctl's end of the control socket: ask, read the answer, take the pages.

Runs as: perchildctl (root, or the uid the server was started by).  Trusts: the dispatcher.  Distrusts: the pages' content.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Any

from perchild.control import protocol
from perchild.wire.page import PAGE_BYTES, Page, decode_page

TIMEOUT_S = 90.0  # a reload compiles for at most 60 s


class NoServerError(Exception):
    """Nobody answers on the control socket."""


def _connect(run_dir: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(protocol.socket_path(run_dir))
    except OSError as error:
        sock.close()
        message = f"no server answers at {protocol.socket_path(run_dir)}: {error.strerror}"
        raise NoServerError(message) from error
    return sock


def _read_line(sock: socket.socket, fds: list[int]) -> bytes:
    raw = b""
    while not raw.endswith(b"\n"):
        part, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(4 * protocol.MAX_PAGES), socket.MSG_CMSG_CLOEXEC)
        for _, _, data in ancillary:
            fds.extend(array.array("i", data))
        if not part:
            message = "the server ended without an answer"
            raise NoServerError(message)
        raw += part
    return raw


def ask_server(run_dir: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request and return its answer.

    Raises:
        NoServerError: nobody answers.
        protocol.ProtocolError: what came is no answer.
    """
    with _connect(run_dir) as sock:
        sock.sendall(protocol.encode(request))
        return protocol.decode_answer(_read_line(sock, []))


def ask_pages(run_dir: str, pids: Sequence[int]) -> dict[int, Page]:
    """Return the pages of these children, decoded here; children that are gone, or wrote nonsense, are left out."""
    pages: dict[int, Page] = {}
    for at in range(0, len(pids), protocol.MAX_PAGES):
        fds: list[int] = []
        with _connect(run_dir) as sock:
            sock.sendall(protocol.encode({"op": "pages", "pids": list(pids[at : at + protocol.MAX_PAGES])}))
            answer = protocol.decode_answer(_read_line(sock, fds))
        for pid, fd in zip(answer.get("pids", ()), fds, strict=False):
            try:
                pages[pid] = decode_page(os.pread(fd, PAGE_BYTES, 0))
            except ValueError:
                continue
            finally:
                os.close(fd)
    return pages
