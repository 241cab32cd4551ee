"""A child that has come to need Python: its main thread, from the first question on.

Until then, and for good in a child that serves files alone, the process runs nothing but C (native/main.c): every object that
Python touches is memory that the child no longer shares with the others.
Runs as: the identity, after the drop.
Before: native/main.c  After: child/workers.py
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from perchild import native
from perchild.child.workers import Workers

EXIT_OK, EXIT_BUG = 0, 1


def child_main() -> NoReturn:
    """Start a thread of the interpreter whenever a question waits; end when the child shall end."""
    status = EXIT_OK
    try:
        # The fork was C's, in a process of one thread that held no lock, so there is nothing that the interpreter would have to
        # put right; what Python code registered for a fork is not called (and PyOS_AfterFork_Child alone would be an error).
        signal.set_wakeup_fd(-1)  # the dispatcher's
        child = native.Child()
        workers = Workers(child)
        while True:
            workers.add_answering()
            if child.main() == native.MAIN_END:
                break
        child.stop()
        workers.join()
        child.finish()
    except BaseException:  # noqa: BLE001 - the last line of defence: said, and the dispatcher starts another
        sys.excepthook(*sys.exc_info())
        status = EXIT_BUG
    finally:
        os._exit(status)
