"""Every host of the configuration as it is on disk, beside what the server has counted of it: perchildctl sites, reload SITE.

The dispatcher knows no host's name, so the configuration is compiled here, once more, with the options that the server was started with.
Runs as: root, or the uid the server was started by.  Sees: the operator's configuration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from perchild.config.isolate import plain_name
from perchild.config.load import compile_config
from perchild.config.messages import make_printable
from perchild.config.model import HostInfo, Options, Result
from perchild.status.tally import CLASSES

Tree = dict[str, Any]
_NOTHING: Tree = {"requests": 0, "responses": dict.fromkeys(CLASSES, 0), "bytes_in": 0, "bytes_out": 0, "duration_s": 0.0}


def compile_for(call: Mapping[str, Any]) -> Result:
    """Compile what a server would take now. call: the dispatcher's answer to `config`."""
    options = Options(config_file=call["config_file"], server_root=call["server_root"], before=tuple(call["lines_before"]),
                      after=tuple(call["lines_after"]), defines=tuple(call["defines"]), caller_uid=os.geteuid(), caller_gid=os.getegid(),
                      caller_groups=tuple(os.getgroups()), environ=dict(os.environ))
    return compile_config(options, {}, is_isolating=True)


def list_sites(call: Mapping[str, Any], tally: Tree) -> Tree:
    """Return `sites` (each host), `broken` (parts that are not in force as they are on disk), and `errors` (why nothing would be taken)."""
    result = compile_for(call)
    counted = {(one["uid"], site["name"]): site for one in tally["identities"] for site in one["sites"]}
    broken = {name: one for one in result.broken for name in one.hosts}
    hosts = result.model.hosts if result.model else ()
    return {"sites": [_show(host, broken, counted) for host in hosts], "broken": [asdict(one) for one in result.broken],
            "errors": [make_printable(error.render_line()) for error in result.errors]}


def _show(host: HostInfo, broken: Mapping[str, Any], counted: Mapping[tuple[int, str], Tree]) -> Tree:
    figures = counted.get((host.person.uid, host.name), _NOTHING)
    trouble = broken.get(host.name)
    return {
        "name": host.name or "_default_", "aliases": list(host.aliases), "user": host.person.name, "uid": host.person.uid,
        "addresses": list(dict.fromkeys(address[3] for address in host.addresses)), "document_root": host.document_root,
        "file": plain_name(host.file), "line": host.line, "state": "ok" if trouble is None else trouble.stand_in,
        **{name: figures[name] for name in _NOTHING},
    }


def knows(call: Mapping[str, Any], name: str) -> bool:
    """Return whether the configuration on disk has a host of that name or alias, or in a file of that name (without .conf)."""
    model = compile_for(call).model
    return model is not None and any(name.lower() in _names(host) for host in model.hosts)


def _names(host: HostInfo) -> set[str]:
    return {one.lower() for one in (host.name, *host.aliases, os.path.basename(plain_name(host.file)).removesuffix(".conf"))}
