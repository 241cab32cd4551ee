"""The configuration in httpd's own shapes: -S, -L, -M, -D DUMP_VHOSTS, DUMP_RUN_CFG, DUMP_INCLUDES, DUMP_MODULES.

Panels and certbot read these. Each function returns text; the command line prints it.
Runs as: compile, perchildd (pure).  Source: httpd's vhost.c, core.c, config.c, mod_so.c.
"""

from __future__ import annotations

import socket

from perchild.config import modules
from perchild.config.directives import ROWS, SECTIONS
from perchild.config.directives_server import READ_ROWS
from perchild.config.model import HostInfo, Model
from perchild.config.rows import HOST, SECTION, SERVER

Key = tuple[int, bytes, int]


def format_vhosts(model: Model) -> str:
    """Return `VirtualHost configuration:` and its lines: addresses first, then wildcards, each in configuration order."""
    by_address: dict[Key, list[HostInfo]] = {}
    for host in model.hosts:
        for key in dict.fromkeys(address[:3] for address in host.addresses):
            by_address.setdefault(key, []).append(host)
    keys = sorted(by_address, key=lambda key: key[0] == 0)
    return "".join(("VirtualHost configuration:\n", *(_format_address(key, by_address[key], model) for key in keys)))


def _format_address(key: Key, hosts: list[HostInfo], model: Model) -> str:
    family, packed, port = key
    if family == 0:
        shown = "*"
    elif family == 4:  # noqa: PLR2004
        shown = socket.inet_ntop(socket.AF_INET, packed)
    else:
        shown = f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"
    shown += f":{port or '*'}"
    first = hosts[0]
    if len(hosts) == 1 and not first.aliases:
        return f"{shown:<22} {_name(first, model)} ({first.file}:{first.line})\n"
    lines = [f"{shown:<22} is a NameVirtualHost\n{'':8} default server {_name(first, model)} ({first.file}:{first.line})\n"]
    for host in hosts:
        lines.append(f"{'':8} port {port or '*'} namevhost {_name(host, model)} ({host.file}:{host.line})\n")
        plain = [alias for alias in host.aliases if "*" not in alias and "?" not in alias]
        lines += [f"{'':16} alias {alias}\n" for alias in plain]
        lines += [f"{'':16} wild alias {alias}\n" for alias in host.aliases if alias not in plain]
    return "".join(lines)


def _name(host: HostInfo, model: Model) -> str:
    return host.name or model.main.name or "localhost"


def format_run_cfg(model: Model) -> str:
    """Return the lines of DUMP_RUN_CFG: ServerRoot to Group."""
    lines = [
        f'ServerRoot: "{model.server_root}"',
        f'Main DocumentRoot: "{model.main.document_root}"',
        f'Main ErrorLog: "{model.error_log}"',
        f'Mutex accept: dir="{model.run_dir}/" mechanism={model.accept_mutex}',
        f'PidFile: "{model.pid_file}"',
        *(f"Define: {name}={value}" if value else f"Define: {name}" for name, value in sorted(model.defines.items())),
        f'User: name="{model.user.name}" id={model.user.uid}',
        f'Group: name="{model.group_name}" id={model.user.gid}',
    ]
    return "\n".join(lines) + "\n"


def format_settings(model: Model) -> str:
    """Return what -S prints."""
    return format_vhosts(model) + format_run_cfg(model)


def format_identities(model: Model) -> str:
    """Return who serves which host, one line each: address of the definition, name, user, uid, gid, groups. Ours, not httpd's."""
    lines = [f"{host.name or '-'} {host.person.name} uid={host.person.uid} gid={host.person.gid} "
             f"groups={','.join(map(str, host.person.groups)) or '-'} ({host.file}:{host.line})" for host in (model.main, *model.hosts)]
    return "\n".join(lines) + "\n"


def format_includes(model: Model) -> str:
    """Return the files read, indented by depth, each with the line of its Include."""
    lines = ["Included configuration files:"]
    for depth, line, path in model.includes:
        lines.append(f"{'  ' * (depth + 1)}({line or '*'}) {path}")
    return "\n".join(lines) + "\n"


def format_modules(mpm: str) -> str:
    """Return what -M prints: what stands behind <IfModule>, all of it static."""
    names = [name for _, name, _ in modules.PROVIDED if name not in {"itk_module", "mpm_perchild_module"}]
    return "".join(("Loaded Modules:\n", *(f" {name} (static)\n" for name in [*names, f"mpm_{mpm}_module"])))


def format_directives() -> str:
    """Return what -L prints: every directive, what it does, where it may stand."""
    parts = [f"{row.name}\n\t{row.doc}\n\t{_places(row.contexts)}\n" for row in ROWS]
    parts += [f"{name}\n\t{doc}\n\t{_places(contexts)}\n" for name, (contexts, _, doc) in SECTIONS.items()]
    parts += [f"{name}\n\t{doc}\n\tAllowed in *.conf anywhere\n" for name, _, doc in READ_ROWS]
    return "".join(sorted(parts, key=lambda part: part.lower().lstrip("<")))


_PLACES = {
    SERVER: "Allowed in *.conf only outside <Directory>, <Files>, <Location>, or <VirtualHost>",
    HOST: "Allowed in *.conf only inside <VirtualHost>",
    SERVER | HOST: "Allowed in *.conf only outside <Directory>, <Files>, or <Location>",
    SECTION: "Allowed in *.conf only inside <Directory>, <Files>, or <Location>",
}


def _places(contexts: int) -> str:
    return _PLACES.get(contexts, "Allowed in *.conf anywhere")
