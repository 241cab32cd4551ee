"""httpd's configuration as httpd would read it: its modules answer <IfModule>, its environment gives ${NAME}.

Runs as: whoever calls perchildctl; opens files for reading, and nothing else.
Before: control/import_command.py   After: translate.py
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from perchild.config.load import Files
from perchild.config.messages import Diagnostic
from perchild.config.tree import Assumptions, Builder, Node, Tree

MAIN_FILES = ("apache2.conf", "httpd.conf", "conf/httpd.conf", "conf/apache2.conf", "httpd2.conf")
_NOBODY = -1  # a reader to whom it does not matter who else can write the source
# Built into every httpd that Debian, cPanel or a panel's own build ships.
_STATIC = ("core_module", "so_module", "http_module", "watchdog_module", "log_config_module", "logio_module", "version_module",
           "unixd_module")
_SOURCES = {"itk.c": ("mpm_itk_module",), "http_core.c": ("http_module",), "prefork.c": ("mpm_prefork_module",),
            "worker.c": ("mpm_worker_module",), "event.c": ("mpm_event_module",), "peruser.c": ("mpm_peruser_module",),
            "mod_php.c": ("php_module",)}
_NEVER = frozenset(("perchild.c", "mpm_perchild_module", "lsapi_module", "mod_lsapi.c", "litespeed", "LiteSpeed", "pagespeed_module"))
_EXPORT = re.compile(r"^\s*(?:export\s+)?([A-Z_][A-Z0-9_]*)=(\S*)\s*$")
_SHELL = re.compile(r"\$\{?(\w+)\}?")


class SourceError(Exception):
    """There is no configuration to read; the text says what was looked for."""


@dataclass(frozen=True, slots=True)
class Source:
    """What was read. main: its main file; base: the directory that is its tree; has_modules: whether it says which modules it loads."""

    main: str
    base: str
    tree: Tree
    has_modules: bool


def find_main(path: str) -> str:
    """Return the main file of a configuration: `path` itself, or one of the usual names below it; SourceError."""
    path = os.path.abspath(path)
    if os.path.isfile(path):
        return path
    for name in MAIN_FILES:
        if os.path.isfile(f"{path}/{name}"):
            return f"{path}/{name}"
    message = f"{path}: no such file, and none of {', '.join(MAIN_FILES)} in such a directory"
    raise SourceError(message)


def read_environment(directory: str) -> dict[str, str]:
    """Return what Debian's envvars sets, without running it; nothing where there is none."""
    found: dict[str, str] = {"SUFFIX": ""}
    try:
        with open(f"{directory}/envvars", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in lines:
        match = _EXPORT.match(line)
        if match and match.group(1) != "SUFFIX":
            value = match.group(2).strip("\"'")
            found[match.group(1)] = _SHELL.sub(lambda one: found.get(one.group(1), ""), value)
    return found


class SourceBuilder(Builder):
    """Reads as httpd does: <IfModule> asks which modules have been loaded so far."""

    def __init__(self, assumed: Assumptions, environ: dict[str, str], *, knows_modules: bool) -> None:
        """knows_modules: the source says what it loads; else every module is there, but for those of no httpd."""
        super().__init__(Files(_NOBODY), assumed, environ)
        self._modules = set(_STATIC)
        self._knows_modules = knows_modules
        self.eager = {**self.eager, "loadmodule": lambda _builder, node, words: self._take_module(node, words)}
        self.has_modules = False

    def _take_module(self, node: Node, words: list[str]) -> None:
        self.has_modules = True
        self._modules.update(words[:1])
        self._current.append(node)

    def has_module(self, name: str) -> bool:
        """Answer <IfModule name> as the source's httpd does."""
        if name in _NEVER:
            return False
        if not self._knows_modules:
            return True
        base = name.removesuffix(".c")
        if name == base:
            return name in self._modules
        wanted = {f"{base}_module", f"{base.removeprefix('mod_')}_module", *_SOURCES.get(name, ())}
        return not wanted.isdisjoint(self._modules)


def read_source(path: str) -> Source:
    """Read the configuration at `path`, a file or a directory.

    Raises:
        SourceError: there is none.
    """
    main = find_main(path)
    root = os.path.dirname(main)
    root = os.path.dirname(root) if os.path.basename(root) == "conf" else root
    environ = {**os.environ, **read_environment(os.path.dirname(main))}
    builder = _read(main, root, environ, knows_modules=True)
    if not builder.has_modules:
        builder = _read(main, builder.tree.server_root, environ, knows_modules=False)
    return Source(main, root, builder.tree, builder.has_modules)


def _read(main: str, root: str, environ: dict[str, str], *, knows_modules: bool) -> SourceBuilder:
    builder = SourceBuilder(Assumptions("prefork", root), environ, knows_modules=knows_modules)
    builder.feed_file(main)
    return builder


def unread(tree: Tree) -> list[Diagnostic]:
    """Return what could not be read at all: files that are not there, sections that are not closed."""
    return list(dict.fromkeys(tree.errors))
