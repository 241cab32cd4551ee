"""What a configuration means, before it becomes bytes: for show.py, and for whoever wants to look.

Runs as: compile (pure).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perchild.config.identity import Person
from perchild.config.messages import Diagnostic
from perchild.config.tree import Tree
from perchild.wire.plan import BrokenSite, Compiled


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    config_file: as given (-f), absolute or relative to server_root; server_root: -d; before, after: directives of -C and -c;
    defines: names of -D; caller_uid, caller_gid, caller_groups: who reads (0: identities are real, else all is the caller's);
    environ: for ${VAR}, PassEnv.
    """

    config_file: str = "perchild.conf"
    server_root: str = "/etc/perchild"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    caller_uid: int = 0
    caller_gid: int = 0
    caller_groups: tuple[int, ...] = ()
    generation: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """What a part of the configuration is made of (tree.Unit). text: its own; files, matches: as there; when: for people."""

    text: str
    files: Mapping[str, str]
    matches: Mapping[str, list[str]]
    when: str = ""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A virtual host, or the main server (line 0): what -S shows. Addresses as (family, packed, port, as written)."""

    name: str
    port: int
    aliases: tuple[str, ...]
    addresses: tuple[tuple[int, bytes, int, str], ...]
    file: str
    line: int
    document_root: str
    person: Person


@dataclass(frozen=True, slots=True)
class Model:
    """The whole configuration, for people."""

    main: HostInfo
    hosts: tuple[HostInfo, ...]
    server_root: str
    error_log: str
    pid_file: str
    run_dir: str
    accept_mutex: str
    defines: Mapping[str, str]
    includes: tuple[tuple[int, int, str], ...]
    modules: tuple[str, ...]
    user: Person
    group_name: str
    mpm: str


@dataclass(slots=True)
class Result:
    """What compiling gives: `compiled` and `model` if there are no errors."""

    compiled: Compiled | None = None
    errors: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    model: Model | None = None
    tree: Tree | None = None  # what was compiled
    state_dir: str = ""  # DefaultStateDir
    broken: list[BrokenSite] = field(default_factory=list)  # parts that were refused without the rest (isolate.py)
    report: str = ""  # the same for people, with every error in them
    good: dict[str, Version] = field(default_factory=dict)  # parts that were taken, by key: what they are made of now
    held: tuple[str, ...] = ()  # keys of the others, of which the versions that are kept stay: they are refused, or have not changed
