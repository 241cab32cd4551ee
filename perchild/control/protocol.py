"""Requests and answers on the control socket: one line of JSON each.

Requests: {"op": NAME, ...}. Answers: {"ok": true|false, "text": what to tell people, ...}. The answer to "board" carries
a board (wire/board.py) as a descriptor with its first byte.
Runs as: dispatcher and perchildctl.  Pure.
"""

from __future__ import annotations

import json
from typing import Any

MAX_REQUEST_BYTES = 65536
MAX_FDS = 1  # descriptors in one answer


class ProtocolError(Exception):
    """What came is no request, or no answer."""


def socket_path(run_dir: str) -> str:
    """Return where the control socket of a server with this run directory is."""
    return f"{run_dir}/control.sock"


def encode(tree: dict[str, Any]) -> bytes:
    """Return one line."""
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"


def decode_request(raw: bytes) -> dict[str, Any]:
    """Return the request in a line.

    Raises:
        ProtocolError: no JSON object with a text called "op".
    """
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as error:
        message = f"not a request: {error}"
        raise ProtocolError(message) from error
    if not isinstance(tree, dict) or not isinstance(tree.get("op"), str):
        message = "not a request: no op"
        raise ProtocolError(message)
    return tree


def decode_answer(raw: bytes) -> dict[str, Any]:
    """Return the answer in a line; ProtocolError if it is none."""
    try:
        tree = json.loads(raw)
    except ValueError as error:
        message = f"not an answer: {error}"
        raise ProtocolError(message) from error
    if not isinstance(tree, dict):
        message = "not an answer"
        raise ProtocolError(message)
    return tree
