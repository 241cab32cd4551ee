"""A translation as files: DIR/perchild.conf, one file per site in sites-available, and links in sites-enabled.

Files are numbered, since the first host of an address answers for names that no other has.
Runs as: whoever calls perchildctl; writes into a directory of its own, which it makes.
Before: translate.py
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perchild.importer.translate import Host, Out, Translation

_UNSAFE = re.compile(r"[^\w.-]")
_INDENT = "    "
_HEAD = """# Made by `perchildctl import {source}` on {date}.
# Test it with `perchildd -t -d {directory}`.

# Only those that run as User accept connections; they own no site.
AcceptScope unassigned
"""
_TAIL = "\nIncludeOptional sites-enabled/*.conf\n"


class WriteError(Exception):
    """Nothing was written; the text says why."""


@dataclass(frozen=True, slots=True)
class Site:
    """A site's file: its name below sites-available, its hosts, and why it is not enabled ("" if it is)."""

    file: str
    hosts: tuple[Host, ...]
    reason: str


def group_sites(hosts: list[Host]) -> list[Site]:
    """Return the sites: neighbours of one name are one, for panels write a site's two ports one after the other."""
    groups: list[list[Host]] = []
    for host in hosts:
        last = groups[-1][-1] if groups else None
        is_same = last is not None and host.name and (last.name, bool(last.reason)) == (host.name, bool(host.reason))
        if is_same:
            groups[-1].append(host)
        else:
            groups.append([host])
    width = max(3, len(str(len(groups))))
    return [Site(f"{number:0{width}}-{_file_name(group[0])}.conf", tuple(group), group[0].reason) for number, group in enumerate(groups)]


def _file_name(host: Host) -> str:
    name = _UNSAFE.sub("_", host.name.lower()).strip(".")
    return name or "default"


def render(outs: Iterable[Out], depth: int = 0, file: str = "") -> Iterator[str]:
    """Yield the lines of a result. file: where the lines around it come from; others get a comment that says where they come from."""
    indent = _INDENT * depth
    for out in outs:
        if out.node is None:
            yield f"{indent}# {out.comment}"
            continue
        node = out.node
        if node.file != file:
            file = node.file
            yield f"{indent}# from {node.file}:{node.line}"
        name = node.text.lstrip("<").split(None, 1)[0].rstrip(">")
        if out.children is None:
            yield f"{indent}{name} {node.rest}".rstrip()
            continue
        yield f"{indent}<{f'{name} {node.rest}'.rstrip()}>"
        yield from render(out.children, depth + 1, node.file)
        yield f"{indent}</{name}>"


def _render_site(site: Site) -> str:
    parts = []
    for host in site.hosts:
        parts.append(f"# {host.source.file}:{host.source.line}")
        if host.reason:
            parts.append(f"# not enabled: {host.reason}")
        parts += [*render([host.out], 0, host.source.file), ""]
    return "\n".join(parts)


def _render_main(translation: Translation, source: str, directory: str, error_log: str) -> str:
    outs = [out for out in translation.server if out.node is None or out.node.name != "acceptscope"]
    head = _HEAD.format(source=source, directory=directory, date=time.strftime("%Y-%m-%d"))
    has_log = any(out.node is not None and out.node.name == "errorlog" for out in outs)
    log = "" if has_log else f'ErrorLog "{error_log}"\n'
    return f"{head}{log}" + "\n".join(render(outs)) + "\n" + _TAIL


def check_target(directory: str, source: str) -> None:
    """Check that a configuration may be written to `directory`.

    Raises:
        WriteError: something is there already, or it is within the source.
    """
    real, origin = os.path.realpath(directory), os.path.realpath(source)
    if os.path.commonpath([real, origin]) == origin:
        message = f"{directory} is within {source}, which is never touched: name another directory with -o"
        raise WriteError(message)
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        message = f"{directory} is not empty, and nothing is overwritten: name a new directory with -o"
        raise WriteError(message)


def write_all(translation: Translation, directory: str, source: str, server_root: str) -> list[Site]:
    """Write the configuration; the directory is new or empty (check_target). Returns its sites."""
    sites = group_sites(translation.hosts)
    for name in ("", "/sites-available", "/sites-enabled"):
        os.makedirs(directory + name, mode=0o755, exist_ok=True)
    _write(f"{directory}/perchild.conf", _render_main(translation, source, directory, f"{server_root}/logs/error_log"))
    for site in sites:
        _write(f"{directory}/sites-available/{site.file}", _render_site(site))
        if not site.reason:
            os.symlink(f"../sites-available/{site.file}", f"{directory}/sites-enabled/{site.file}")
    return sites


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
