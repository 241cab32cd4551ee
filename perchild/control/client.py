"""perchildctl's end of the control socket: ask, read the answer, take the board.

Runs as: perchildctl (root, or the uid the server was started by).  Trusts: the dispatcher.  Distrusts: the pages' content.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence
from typing import Any

from perchild.control import protocol
from perchild.wire.board import Board, read_board
from perchild.wire.page import Page

TIMEOUT_S = 90.0  # a reload compiles for at most 60 s


_START = "Start it (systemctl start perchildd), or say where its run directory is: --run-dir DIR"
_REMEDIES: dict[type, str] = {
    PermissionError: "Root, and whoever started the server, may ask: sudo perchildctl ...",
    TimeoutError: "It is busy, or stands still: see its error log",
}


class NoServerError(Exception):
    """Nobody answers on the control socket."""


def _connect(run_dir: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(protocol.socket_path(run_dir))
    except OSError as error:
        sock.close()
        message = f"no server answers at {protocol.socket_path(run_dir)}: {error.strerror or error}. {_REMEDIES.get(type(error), _START)}"
        raise NoServerError(message) from error
    return sock


def _read_line(sock: socket.socket, fds: list[int]) -> bytes:
    raw = b""
    while not raw.endswith(b"\n"):
        part, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(4 * protocol.MAX_FDS), socket.MSG_CMSG_CLOEXEC)
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


def ask_board(run_dir: str) -> Board:
    """Return what the server knows and its children count, as of now.

    Raises:
        NoServerError: nobody answers.
        protocol.ProtocolError: what came is no board.
    """
    fds: list[int] = []
    with _connect(run_dir) as sock:
        sock.sendall(protocol.encode({"op": "board"}))
        answer = protocol.decode_answer(_read_line(sock, fds))
    if not answer.get("ok") or len(fds) != 1:
        raise protocol.ProtocolError(answer.get("text") or "the server gave no board: is it of another version?")
    try:
        return read_board(fds[0])
    except ValueError as error:
        raise protocol.ProtocolError(str(error)) from error


def ask_pages(run_dir: str, pids: Sequence[int]) -> dict[int, Page]:
    """Return the pages of these children; children that are gone, or wrote nonsense, are left out."""
    board = ask_board(run_dir)
    numbers = {child["pid"]: child["page"] for identity in board.tree["identities"] for child in identity["children"]}
    return {pid: board.pages[numbers[pid]] for pid in pids if numbers.get(pid) in board.pages}
