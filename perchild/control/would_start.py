"""`python3 -m perchild.control.would_start [FILE]`: whether a start would take the configuration. Before a restart, so that it is not one's last.

`perchildd -t` says no as soon as anything is wrong; a start takes what is good, and a broken site waits for its mending.
Exit status: 0 it would, 1 not, and why on standard error.
Runs as: root, called by the package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from perchild.cli import DEFAULT_CONFIG, DEFAULT_ROOT
from perchild.config import load


def main(argv: Sequence[str]) -> int:
    """Compile as a start does, and keep nothing of it; return the exit status."""
    file = os.path.abspath(argv[0]) if argv else os.path.join(DEFAULT_ROOT, DEFAULT_CONFIG)
    options = load.Options(config_file=file, server_root=os.path.dirname(file), caller_uid=os.geteuid(), caller_gid=os.getegid(),
                           caller_groups=tuple(os.getgroups()), environ=dict(os.environ))
    errors = load.compile_config(options, {}, is_isolating=True).errors
    sys.stderr.write(load.format_errors(errors))
    return int(bool(errors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
