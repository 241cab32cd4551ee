"""Worker threads of the interpreter: they answer questions about requests, each in a slot of its own.

The child's other threads are C's and serve (native/loop.c). Between two questions such a thread waits in C, too.
Runs as: the identity.  Sees: questions about requests.
Before: child/main.py  After: native/loop.c, child/questions.py
"""

from __future__ import annotations

import sys
import threading

from perchild import native
from perchild.child.questions import Answerer

MIN_STACK_BYTES = 131072  # below it the interpreter may not start a thread
JOIN_S = 5.0


class Workers:
    """The interpreter's threads of one child."""

    def __init__(self, child: native.Child) -> None:
        """Start nothing yet."""
        self._child = child
        facts = child.facts()
        self._max = facts.max_threads
        self._answerer = Answerer(child, facts)
        self._answering: set[threading.Thread] = set()
        if facts.thread_stack_bytes:
            threading.stack_size(max(facts.thread_stack_bytes, MIN_STACK_BYTES))

    def add_answering(self) -> None:
        """Start threads for the questions that wait. There is always room for one."""
        facts = self._child.facts()
        room = max(self._max - facts.threads, 1 - facts.python_threads)
        for _ in range(min(max(1, facts.ask_count), room)):
            slot = self._child.start_worker()
            thread = threading.Thread(target=self._work, args=(slot,), name=f"worker-{slot}", daemon=True)
            self._answering.add(thread)
            thread.start()

    def join(self) -> None:
        """Wait until they are gone; after child.stop()."""
        for thread in tuple(self._answering):
            thread.join(timeout=JOIN_S)

    def _work(self, slot: int) -> None:
        try:
            while self._child.run_worker(slot) == native.WORK_ASK:
                self._answerer.answer(slot)
        except BaseException:  # noqa: BLE001 - a dead worker must be seen
            sys.excepthook(*sys.exc_info())
        finally:
            self._child.end_worker(slot)
            self._answering.discard(threading.current_thread())
