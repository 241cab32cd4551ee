"""Drafts of hosts -> HOST items, by identity.

What hosts have in common (the server's values, sections, settings, log formats) is made into bytes once.
Runs as: compile (pure).
Before: collect.py   After: plan.py
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perchild.config import directives_host, directives_section
from perchild.config.certs import Store, World
from perchild.config.collect import Collected, Draft
from perchild.config.directives_host import ReadTimeout
from perchild.config.directives_program import DEFAULT_WRAPPER_PROCESSES, App, Daemon, Pass, Wsgi
from perchild.config.encode import pack_items
from perchild.config.formats import DEFAULT_FORMAT, NICKNAMES, compile_log_format
from perchild.config.identity import Person
from perchild.config.merge import Settings, merge_settings
from perchild.config.messages import BadDirectiveError
from perchild.config.runner import Programs, Site
from perchild.config.targets import Parameters
from perchild.config.tls import TlsPacker
from perchild.config.tree import Node
from perchild.wire import record
from perchild.wire.plan import LogFile, tenant_directory
from perchild.wire.route import Address

Report = Callable[[Node | None, str, int], None]

_HEAD = struct.Struct("<HHI")
_TAG = {tag.name: tag.number for tag in record.TAGS}
_NAME, _PORT, _ADMIN, _ROOT = _TAG["NAME"], _TAG["PORT"], _TAG["ADMIN"], _TAG["DOCUMENT_ROOT"]
_LOG, _ERROR_LOG, _SECTION, _HOST = _TAG["LOG"], _TAG["ERROR_LOG"], _TAG["SECTION"], _TAG["HOST"]
_U32 = struct.Struct("<I")
_TIME_FIELDS = ("timeout_ms", "keep_alive_timeout_ms", "read_timeouts", "keep_alive", "max_keep_alive_requests", "keep_alive_scope",
                "limit_line_bytes", "limit_field_bytes", "limit_fields")
_LIMIT_FIELDS = frozenset(("rlimit_cpu", "rlimit_mem", "rlimit_nproc", "nice", "no_new_privs"))
# Where no directive says what becomes of such files they ask for PHP, and get 503 where there is none: a source is never sent as text.
_PHP_TYPES = dict.fromkeys(("php", "phtml"), "application/x-httpd-php")
_FRONT_FIELDS = frozenset(("remote_ip_header", "remote_ip_internal", "remote_ip_trusted", "proxy_protocol"))


@dataclass(slots=True)
class Group:
    """All hosts of one identity, and what its record is made of. log_index: path -> index of its LOG_FILE."""

    person: Person
    kind: str
    children: int
    number: int = 0
    hosts: list[bytes] = field(default_factory=list)
    logs: list[LogFile] = field(default_factory=list)
    log_index: dict[str, int] = field(default_factory=dict)
    programs: Programs = field(default_factory=Programs)
    addresses: dict[tuple[int, bytes, int], Address] = field(default_factory=dict)
    tls: Store = field(default_factory=Store)
    drafts: list[tuple[Draft, str]] = field(default_factory=list)  # its hosts, each with FILE:LINE, before they are packed
    source: str = ""  # hash of what its record is made of; "" = it is made each time

    def find_log(self, path: str, source: str) -> int:
        """Return the index of the log file `path`, a new one if it is new."""
        index = self.log_index.get(path)
        if index is None:
            index = self.log_index[path] = len(self.logs)
            self.logs.append(LogFile(path, source))
        return index


def _item(tag: int, payload: bytes) -> bytes:
    return _HEAD.pack(tag, 0, len(payload)) + payload


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class HostPacker:
    """Packs the hosts of one configuration, all against the same main server."""

    def __init__(self, collected: Collected, server_root: str, run_dir: str, report: Report, warn: Report, world: World) -> None:
        main = collected.main
        drafts = (main, *collected.hosts)
        self._daemons: dict[str, Daemon] = {}
        for draft in drafts:  # one host may define what another one uses: the same site under two ports
            self._daemons.update(draft.host.get("wsgi_daemons", {}))
        self.daemons = sorted((name, repr(daemon)) for name, daemon in self._daemons.items())
        self._main = {**directives_host.DEFAULTS, "error_log": (f"{server_root}/logs/error_log"),
                      "document_root": (f"{server_root}/htdocs", None), **main.host}
        self._main["read_timeouts"] = {**directives_host.DEFAULTS["read_timeouts"], **main.host.get("read_timeouts", {})}
        self._main_settings = merge_settings(dict(directives_section.DEFAULTS), main.settings)
        self._main_draft = main
        self._run_dir = run_dir
        self._base: dict[tuple[tuple[tuple[str, str], ...], int], bytes] = {}
        self._times: dict[tuple[Any, ...], bytes] = {}
        self._formats: dict[str, bytes] = {}
        self._dirs = sorted(((depth, _item(_SECTION, raw)) for kind, depth, raw in main.sections if kind == 0), key=_depth)
        self._others = {kind: b"".join(_item(_SECTION, raw) for one, _, raw in main.sections if one // 2 == kind // 2 and one != 0)
                        for kind in (1, 2, 4)}
        self._shared_sections = b"".join(raw for _, raw in self._dirs) + b"".join(self._others.values())
        self._main_limits = {name: value for name, value in main.host.items() if name in _LIMIT_FIELDS}
        self._has_front_end = not _FRONT_FIELDS.isdisjoint(main.host)
        self.tls = TlsPacker(main.host, world, warn, report)
        self._report = report
        self._warn = warn

    @property
    def error_log(self) -> tuple[str, int]:
        """Return the main server's error log and level."""
        return self._main["error_log"], self._main["log_level"]

    def document_root(self, draft: Draft) -> tuple[str, Node | None]:
        """Return a host's root and the directive that says so."""
        root: tuple[str, Node | None] = draft.host.get("document_root", self._main["document_root"])
        return root

    def pack(self, draft: Draft, group: Group, source: str) -> bytes:
        """Return the HOST item of `draft`, whose identity is `group`; its log files are added to the group."""
        host, main = draft.host, self._main
        php, passes = self._take_programs(draft, group)
        name, port = host.get("name", ("", 0) if draft.node else main["name"])
        aliases = self._aliases(draft)
        return _item(_HOST, b"".join((
            _item(_NAME, name.encode("ascii")),
            _item(_PORT, _U32.pack(port)),
            _item(_ADMIN, _raw(host.get("admin", main["admin"]))),
            _item(_ROOT, _raw(host.get("document_root", main["document_root"])[0])),
            self._pack_times(host),
            self._pack_logs(draft, group),
            _item(_ERROR_LOG, struct.pack("<II", group.find_log(host.get("error_log", main["error_log"]), source),
                                          host.get("log_level", main["log_level"]))),
            self._pack_base(draft, php),
            self._pack_sections(draft),
            b"".join(map(_pack_alias, aliases)) if aliases else b"",
            passes,
            self._pack_remote_ip(host),
            self.tls.pack(host, group.tls, draft.asks),
        )))

    def _aliases(self, draft: Draft) -> list[tuple[int, str, str]]:
        return [*draft.host.get("url_aliases", ()), *(self._main["url_aliases"] if draft.node else ())]

    def _pack_times(self, host: Settings) -> bytes:
        main = self._main
        head: ReadTimeout
        body: ReadTimeout
        timeouts = {**main["read_timeouts"], **host["read_timeouts"]} if "read_timeouts" in host else main["read_timeouts"]
        head, body = timeouts["header"], timeouts["body"]
        key = (head, body, *(host.get(name, main[name]) for name in _TIME_FIELDS if name != "read_timeouts"))
        raw = self._times.get(key)
        if raw is None:
            timeout, keep, is_kept, most, scope, line, size, fields = key[2:]
            raw = self._times[key] = b"".join((
                record.u32s("TIMES", timeout, keep, head.initial_ms, head.maximum_ms, body.initial_ms, body.maximum_ms, head.rate,
                            body.rate),
                record.u32s("KEEP_ALIVE", int(is_kept), most, scope),
                record.u32s("LIMITS", line, size, fields or directives_host.MAX_FIELDS_HARD),
            ))
        return raw

    def _pack_logs(self, draft: Draft, group: Group) -> bytes:
        host = draft.host
        formats = host.get("log_formats", {})
        out = []
        for log, node in host.get("logs") or self._main["logs"]:
            index = group.find_log(log.path, f"{node.file}:{node.line}")
            raw = self._find_format(log.format, formats, node)
            payload = record.u32s("LOG_INDEX", index) + raw
            if log.condition:
                payload += record.text("LOG_ENV", log.condition)
            out.append(_item(_LOG, payload))
        return b"".join(out)

    def _find_format(self, name: str | None, own: dict[str | None, str], node: Node) -> bytes:
        main = self._main["log_formats"]
        if name is None:
            text = own.get(None) or main.get(None) or DEFAULT_FORMAT
        else:
            text = own.get(name) or main.get(name) or NICKNAMES.get(name) or name
            if text is name and "%" not in name:
                self._warn(node, f"'{name}' is no LogFormat's nickname: every line will be just this word", 1)
        raw = self._formats.get(text)
        if raw is None:
            try:
                raw = record.item("LOG_FORMAT", compile_log_format(text))
            except BadDirectiveError as error:
                self._report(node, error.reason, 1)
                return b""
            self._formats[text] = raw
        return raw

    def _pack_base(self, draft: Draft, php: int) -> bytes:
        """php: index of the service for .php files, -1 = none."""
        key = (tuple(draft.settings_key) if draft.node else (), php)
        raw = self._base.get(key)
        if raw is None:
            settings = self._merged(draft)
            if php >= 0:
                handlers = settings.get("add_handler", {})  # RemoveHandler takes away other places' handlers, not the pool
                settings = {**settings, "add_handler": {**handlers, "php": handlers.get("php") or f"service:{php}"}}
            types = {**_PHP_TYPES, **settings.get("add_type", {})}
            raw = self._base[key] = record.item("BASE", pack_items({**settings, "add_type": types}))
        return raw

    def _merged(self, draft: Draft) -> Settings:
        return merge_settings(self._main_settings, draft.settings) if draft.node else self._main_settings

    # --- programs ----------------------------------------------------------------------------------------------

    def _take_programs(self, draft: Draft, group: Group) -> tuple[int, bytes]:
        """Tell the identity of a host's programs; return the index of its PHP service (-1 = none), and its PROXY_PASS items."""
        host, main, programs = draft.host, self._main, group.programs
        programs.roots[host.get("document_root", main["document_root"])[0]] = None
        programs.is_needed = programs.is_needed or draft.has_programs or self._main_draft.has_programs
        wrappers = tuple(dict.fromkeys((*draft.wrappers, *self._main_draft.wrappers)))
        for command in wrappers:
            programs.roots[posixpath.dirname(command.split()[0])] = None
        for kind, _, target in self._aliases(draft):
            programs.is_needed = programs.is_needed or kind >= directives_host.SCRIPT_ALIAS
            programs.roots[_fixed_part(target) if kind % 2 else target.rstrip("/") or "/"] = None
        if self._main_limits or not _LIMIT_FIELDS.isdisjoint(host):
            programs.limit({**self._main_limits, **host})
        pool = host.get("php_pool", main.get("php_pool"))
        passes = self._order_passes(draft)
        if not passes and not wrappers and (pool is None or not pool.is_on):
            return -1, b""
        directory = tenant_directory(self._run_dir, group.person.uid, group.person.gid, group.person.groups)
        site = self._site(draft)
        php = programs.find_pool(pool, site, directory) if pool is not None and pool.is_on else -1
        for names in (self._main_draft.php_names, draft.php_names) if php >= 0 else ():
            programs.services[php].note_php(names)
        raw = b"".join(self._pack_pass(one, draft, programs, site, directory) for one in passes)
        raw += b"".join(self._pack_wrapper(command, draft, programs, site, directory) for command in wrappers)
        return php, raw + record.u32s("PHP_SERVICE", php) if php >= 0 else raw

    def _order_passes(self, draft: Draft) -> list[Pass]:
        """Return all that a host passes on: a Location's first, the last of them before the others; then own before the server's."""
        own = draft.host.get("passes", ())
        shared = self._main.get("passes", ()) if draft.node else ()
        if not own and not shared:
            return []
        sections = [one for one in (*shared, *own) if one.is_section]
        return [*reversed(sections), *(one for one in (*own, *shared) if not one.is_section)]

    def _site(self, draft: Draft) -> Site:
        settings = self._merged(draft)
        env = {name: value for name, value in settings.get("env", {}).items() if value is not None}
        values = tuple((directive, name, value) for (_, name), (directive, value) in settings.get("php_values", {}).items())
        return Site(self.document_root(draft)[0], draft.host.get("error_log", self._main["error_log"]), env, values)

    def _pack_pass(self, one: Pass, draft: Draft, programs: Programs, site: Site, directory: str) -> bytes:
        target = one.target
        if isinstance(target, str):
            return _pack_pass(one.kind, one.origin, target, one.parameters)
        index = (programs.find_app(target, site, directory) if isinstance(target, App)
                 else programs.find_wsgi(target, self._find_daemon(target, draft), site, directory))
        below = b"".join(_pack_pass(kind % 2, origin, "!", Parameters()) for kind, origin, _ in self._aliases(draft)
                         if one.origin == "/" or (not kind % 2 and f"{origin}/".startswith(f"{one.origin}/")))
        return below + _pack_pass(one.kind, one.origin, f"service:{index}{one.origin}", one.parameters)

    def _pack_wrapper(self, command: str, draft: Draft, programs: Programs, site: Site, directory: str) -> bytes:
        host, main = draft.host, self._main
        env = {**main.get("fcgid_env", {}), **host.get("fcgid_env", {})}
        processes = host.get("fcgid_processes", main.get("fcgid_processes", DEFAULT_WRAPPER_PROCESSES))
        index = programs.find_wrapper(command, processes, env, site, directory)
        return record.texts("FCGID_SERVICE", command, f"service:{index}")

    def _find_daemon(self, wsgi: Wsgi, draft: Draft) -> Daemon:
        """Return the WSGIDaemonProcess that an application is to run in: named by itself or its host, or the only one there."""
        name = wsgi.group or draft.host.get("wsgi_group", self._main.get("wsgi_group", ""))
        if name in self._daemons:
            return self._daemons[name]
        nearest: dict[str, Daemon] = draft.host.get("wsgi_daemons") or self._main.get("wsgi_daemons", {})
        return next(iter(nearest.values())) if not name and len(nearest) == 1 else Daemon()

    def _pack_remote_ip(self, host: Settings) -> bytes:
        main = self._main
        if not self._has_front_end and _FRONT_FIELDS.isdisjoint(host):
            return b""
        out = []
        header = host.get("remote_ip_header", main.get("remote_ip_header"))
        if header is not None:
            out.append(record.text("REMOTE_IP_HEADER", header))
        for name, tag in (("remote_ip_internal", "REMOTE_IP_INTERNAL"), ("remote_ip_trusted", "REMOTE_IP_TRUSTED")):
            leaves = host.get(name, main.get(name))
            if leaves is not None:
                out.append(record.item(tag, b"".join(leaves)))
        if host.get("proxy_protocol", main.get("proxy_protocol")):
            out.append(record.u32s("PROXY_PROTOCOL", 1))
        return b"".join(out)

    def _pack_sections(self, draft: Draft) -> bytes:
        if not draft.node or not draft.sections:
            return self._shared_sections
        own = draft.sections
        dirs = [(depth, _item(_SECTION, raw)) for kind, depth, raw in own if kind == 0]
        both = sorted([*self._dirs, *dirs], key=_depth) if dirs else self._dirs
        out = [raw for _, raw in both]
        for first, shared in self._others.items():
            out.append(shared)
            out += [_item(_SECTION, raw) for kind, _, raw in own if kind and kind // 2 == first // 2]
        return b"".join(out)


def _fixed_part(target: str) -> str:
    """Return the directory below which a pattern's path stays, whatever matches."""
    head, dollar, _ = target.partition("$")
    return (head.rpartition("/")[0] if dollar else head.rstrip("/")) or "/"


def _pack_pass(kind: int, origin: str, target: str, parameters: Parameters) -> bytes:
    times = parameters[:3]
    return record.item("PROXY_PASS", b"".join((
        record.u32s("PROXY_KIND", kind), record.text("PROXY_FROM", origin), record.text("PROXY_TO", target),
        record.u32s("PROXY_TIMES", *times) if any(times) else b"",
        record.text("PROXY_UPGRADE", parameters.upgrade) if parameters.upgrade else b"",
        record.u32s("PROXY_SINGLE_USE", 1) if parameters.is_single_use else b"",
        record.u32s("PROXY_KEPT", parameters.kept) if parameters.kept else b"",
    )))


def _depth(pair: tuple[int, bytes]) -> int:
    return pair[0]


def _pack_alias(alias: tuple[int, str, str]) -> bytes:
    kind, origin, target = alias
    return record.item("ALIAS", record.u32s("ALIAS_KIND", kind) + record.text("ALIAS_FROM", origin) + record.text("ALIAS_TO", target))
