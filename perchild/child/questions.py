"""What Python decides about a request: the one policy hook of the data plane.

Kinds: a client's host name for `Require host` (forward-confirmed reverse DNS, which may block), a handler that Python
implements (HANDLERS), and later .htaccess.
Runs as: the identity, in a worker thread.  Sees: the request.  Distrusts: every string of it.
Before: child/workers.py  After: native/serve.c
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable

from perchild import native
from perchild.child.answer import Answer


def whoami(child: native.Facts, question: native.Question) -> Answer:
    """Say under whom this request is served: the handler `whoami`."""
    facts = {
        "uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid(), "slot": question.slot, "generation": child.generation,
        "identity": child.name, "came": "handed over" if question.is_handed else "accepted", "host": question.host,
        "slot_value": question.slot_value,
    }
    return Answer(200, "application/json", json.dumps(facts).encode() + b"\n")


HANDLERS: dict[str, Callable[[native.Facts, native.Question], Answer]] = {"whoami": whoami}
STATUS_HANDLERS = frozenset({"server-status", "perchild-status", "prometheus"})  # child/status.py


class Answerer:
    """Answers the questions of one child's workers."""

    def __init__(self, child: native.Child, facts: native.Facts) -> None:
        """Keep what answers need."""
        self._child, self._facts = child, facts
        self._kinds = {native.ASK_HOSTNAME: self._name, native.ASK_HANDLER: self._handle, native.ASK_POLICY: self._decide}

    def answer(self, slot: int) -> None:
        """Answer the question of the worker in `slot`; a failure of ours is a 500 for that request alone."""
        question = self._child.question(slot)
        try:
            self._kinds[question.kind](question)
        except Exception:  # noqa: BLE001 - a request must never end its thread
            sys.excepthook(*sys.exc_info())
            self._child.answer(slot, 500, "", b"")

    def _name(self, question: native.Question) -> None:
        self._child.answer_name(question.slot, confirmed_name(question.client))

    def _handle(self, question: native.Question) -> None:
        if question.handler.lower() in STATUS_HANDLERS:
            from perchild.child import status  # noqa: PLC0415 - a child that is never asked has none of it

            shown = status.show(self._child, question)
            self._child.answer(question.slot, shown.status, shown.content_type, shown.body)
            return
        handler = HANDLERS.get(question.handler.lower())
        answer = handler(self._facts, question) if handler else Answer(500, "", b"")
        self._child.answer(question.slot, answer.status, answer.content_type, answer.body)

    def _decide(self, question: native.Question) -> None:
        self._child.answer(question.slot, 0, "", b"")


def confirmed_name(address: str) -> str:
    """Return the host name of `address` in lower case if it resolves back to that address, else "".

    Source: httpd's double reverse look-up (HostnameLookups double, which Require host always does).
    """
    try:
        name = socket.gethostbyaddr(address)[0]
        back = {info[4][0] for info in socket.getaddrinfo(name, None)}
    except OSError:
        return ""
    return name.lower() if address in back else ""
