"""Handlers that show what the server does: `server-status`, `perchild-status`, `prometheus`.

Whose figures there are is the dispatcher's to decide (dispatcher/board.py): a child of User and Group is given all identities, a
tenant's child its own. What comes is kept for a moment, so that many who look cost no more than one.
Runs as: the identity, in a thread of the interpreter.  Sees: a board; the request's path and query.  Distrusts: both.
Before: child/questions.py  After: status/tally.py
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from perchild import native
from perchild.child.answer import Answer
from perchild.status import server_status, tally
from perchild.wire.board import read_board

FRESH_S = 0.5
PATIENCE_S = 3.0
MAX_REFRESH_S = 3600
TEXT, HTML, JSON = "text/plain; charset=ISO-8859-1", "text/html; charset=utf-8", "application/json"


@dataclass(slots=True)
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_s: float = -FRESH_S
    tree: dict[str, Any] = field(default_factory=dict)


_kept = _Kept()


def current_tally(child: native.Child) -> dict[str, Any]:
    """Return what this child may see, FRESH_S old at most.

    Raises:
        native.NativeError: the dispatcher gave nothing.
    """
    with _kept.lock:
        if time.monotonic() - _kept.at_s > FRESH_S:
            _kept.tree = tally.add_up(read_board(child.ask_board(PATIENCE_S)), time.time())
            _kept.at_s = time.monotonic()
        return _kept.tree


def _load() -> tuple[float, float, float]:
    """Return the machine's load, or nothing where the system hides it (ProcSubset=pid)."""
    try:
        return os.getloadavg()
    except OSError:
        return (0.0, 0.0, 0.0)


def _show_server_status(question: native.Question, tree: dict[str, Any]) -> Answer:
    """Show httpd's page; `?auto`, `?refresh=N` and `?notable` as there."""
    query = dict(parse_qsl(question.query, keep_blank_values=True))
    load = _load()
    if "auto" in query:
        return Answer(200, TEXT, server_status.render_auto(tree, question.host, load).encode("latin-1", "replace"))
    word = query.get("refresh", "0")
    refresh_s = min(int(word), MAX_REFRESH_S) if word.isascii() and word.isdigit() else 10 * ("refresh" in query)
    page = server_status.render_page(tree, question.host, load, refresh_s, has_tables="notable" not in query)
    return Answer(200, HTML, page.encode())


def _show_own_page(question: native.Question, tree: dict[str, Any]) -> Answer:
    """Show our page, and with `?json` what it shows."""
    from perchild.status import own_page  # noqa: PLC0415 - a child that is never asked has none of it

    if "json" in dict(parse_qsl(question.query, keep_blank_values=True)):
        return Answer(200, JSON, own_page.render_json(tree))
    return Answer(200, HTML, own_page.PAGE)


def _show_metrics(_question: native.Question, tree: dict[str, Any]) -> Answer:
    """Show Prometheus' text format."""
    try:
        from perchild.status import metrics  # noqa: PLC0415
    except ImportError:
        return Answer(501, TEXT, b"SetHandler prometheus needs Python's prometheus_client: apt install python3-prometheus-client, "
                                 b"then perchildctl reload\n")
    return Answer(200, metrics.CONTENT_TYPE, metrics.render_metrics(tree))


HANDLERS: dict[str, Callable[[native.Question, dict[str, Any]], Answer]] = {
    "server-status": _show_server_status, "perchild-status": _show_own_page, "prometheus": _show_metrics,
}


def show(child: native.Child, question: native.Question) -> Answer:
    """Answer a request for one of HANDLERS; 405 to what is no GET or HEAD, 503 and why if nothing can be learned now."""
    if question.method not in {"GET", "HEAD"}:
        return Answer(405, "", b"")
    try:
        tree = current_tally(child)
    except (ValueError, OSError) as error:
        return Answer(503, TEXT, f"No figures now: {error}. Try again; if it stays so, see the error log and `perchildctl status`.\n".encode())
    return HANDLERS[question.handler.lower()](question, tree)
