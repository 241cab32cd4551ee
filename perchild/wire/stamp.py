"""What tells whether a file was changed: compile notes it before it reads a certificate, the dispatcher compares it.

Runs as: compile, dispatcher.
"""

from __future__ import annotations

import os


def stamp_file(path: str) -> str:
    """Return device, inode, size and time of the last change of the file that `path` leads to; "" if there is none."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"
