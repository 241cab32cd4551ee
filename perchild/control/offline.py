"""What the commands share that look at a configuration without asking a server.

Runs as: whoever calls perchildctl; as root it sees what the server would see.
"""

from __future__ import annotations

import argparse
import os
import sys

from perchild.config.load import Options, compile_config, format_errors
from perchild.config.messages import make_printable
from perchild.config.model import Result
from perchild.config.tree import Node

DEFAULT_ROOT = "/etc/perchild"
DEFAULT_CONFIG = "perchild.conf"


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add perchildd's -d, -f and -D."""
    parser.add_argument("-d", dest="root", default=DEFAULT_ROOT, metavar="DIR", help=f"ServerRoot to begin with ({DEFAULT_ROOT})")
    parser.add_argument("-f", dest="file", default="", metavar="FILE", help=f"main configuration file ({DEFAULT_CONFIG} in ServerRoot)")
    parser.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME", help="define a name for <IfDefine>")


def compile_offline(options: argparse.Namespace) -> Result:
    """Compile as the server would as root, with last good versions in the places of broken sites."""
    root = os.path.abspath(options.root)
    return compile_config(Options(config_file=options.file or os.path.join(root, DEFAULT_CONFIG), server_root=root,
                                  defines=tuple(options.defines), environ=dict(os.environ)), {}, is_isolating=True)


def refuse(result: Result) -> int:
    """Say on stderr why a configuration cannot be looked at; return the exit status."""
    sys.stderr.write(format_errors(result.errors))
    sys.stderr.write("perchildctl: the configuration is broken as a whole; what is above must be mended first\n")
    return 1


def say(lines: list[str]) -> None:
    """Write lines to stdout, without characters that a terminal would obey."""
    sys.stdout.write("".join(f"{make_printable(line)}\n" for line in lines))


def show(node: Node) -> str:
    """Return a line of the configuration, and where it stands."""
    return f"{' '.join(node.text.split())} ({node.file}:{node.line})"
