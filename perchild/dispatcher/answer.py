"""The dispatcher's end of the control socket: RUN/control.sock, for root (and the uid the server was started by) alone.

One request, one answer, both a line of JSON (control/protocol.py). What children count is passed as a board (board.py), which
perchildctl decodes: the dispatcher never reads what a child wrote.
Runs as: dispatcher.  Trusts: the kernel's word on who connects.  Distrusts: the text of a request, which is bounded.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from perchild.control import protocol
from perchild.dispatcher.board import make_board
from perchild.dispatcher.loop import HANGUP, READ, WRITE
from perchild.dispatcher.state import Server

MAX_CLIENTS = 16
_UCRED = struct.Struct("3i")
Reply = Callable[[dict[str, Any]], None]
Operation = Callable[[Server, dict[str, Any], Reply], None]


@dataclass(slots=True)
class Client:
    """One connection to the control socket."""

    sock: socket.socket
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)
    is_waiting: bool = False  # for the end of an operation


class ControlSocket:
    """The listening socket and its clients."""

    def __init__(self, server: Server, operations: dict[str, Operation]) -> None:
        self._server = server
        self._operations = operations
        self._clients: set[int] = set()
        self.path = protocol.socket_path(server.plan.run_dir)
        Path(self.path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        old_mask = os.umask(0o177)
        try:
            self._listener.bind(self.path)
        finally:
            os.umask(old_mask)
        self._listener.listen(MAX_CLIENTS)
        server.loop.watch(self._listener.fileno(), READ, self._on_connect)

    def close(self) -> None:
        """Close and remove the socket."""
        self._server.loop.forget(self._listener.fileno())
        self._listener.close()
        Path(self.path).unlink(missing_ok=True)

    def _on_connect(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in {0, os.geteuid()} or len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        client = Client(sock)
        self._clients.add(sock.fileno())
        self._server.loop.watch(sock.fileno(), READ, partial(self._on_client, client))

    def _on_client(self, client: Client, events: int) -> None:
        try:
            if events & WRITE:
                self._flush(client)
            if events & (READ | HANGUP) and not self._read(client):
                self._drop(client)
        except (OSError, protocol.ProtocolError):
            self._drop(client)

    def _read(self, client: Client) -> bool:
        raw = client.sock.recv(4096)
        client.incoming += raw
        if len(client.incoming) > protocol.MAX_REQUEST_BYTES:
            return False
        if b"\n" in client.incoming and not client.is_waiting:
            line, _, rest = bytes(client.incoming).partition(b"\n")
            client.incoming[:] = rest
            self._answer(client, protocol.decode_request(line))
        return bool(raw)

    def _answer(self, client: Client, request: dict[str, Any]) -> None:
        if request["op"] == "board":
            self._answer_board(client)
            return
        operation = self._operations.get(request["op"])
        client.is_waiting = True
        if operation is None:
            self._reply(client, {"ok": False, "text": f"unknown request {request['op']}"})
        else:
            operation(self._server, request, partial(self._reply, client))

    def _reply(self, client: Client, response: dict[str, Any]) -> None:
        client.is_waiting = False
        if client.sock.fileno() < 0:
            return  # it did not wait for the answer
        client.outgoing += protocol.encode(response)
        try:
            self._flush(client)
        except OSError:
            self._drop(client)

    def _answer_board(self, client: Client) -> None:
        """Pass a board of everything, made now."""
        fd = make_board(self._server)
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            client.sock.sendmsg([protocol.encode({"ok": True})], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        finally:
            os.close(fd)

    def _flush(self, client: Client) -> None:
        while client.outgoing:
            try:
                sent = client.sock.send(client.outgoing, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            del client.outgoing[:sent]
        mask = READ | (WRITE if client.outgoing else 0)
        self._server.loop.watch(client.sock.fileno(), mask, partial(self._on_client, client))

    def _drop(self, client: Client) -> None:
        fd = client.sock.fileno()
        if fd >= 0:
            self._server.loop.forget(fd)
            self._clients.discard(fd)
            client.sock.close()
