"""Drafts of hosts -> HOST items, by identity.

What hosts have in common (the server's values, sections, settings, log formats) is made into bytes once.
Runs as: compile (pure).
Before: collect.py   After: plan.py
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perchild.config import directives_host, directives_section
from perchild.config.collect import Draft
from perchild.config.directives_host import ReadTimeout
from perchild.config.encode import pack_items
from perchild.config.formats import DEFAULT_FORMAT, NICKNAMES, compile_log_format
from perchild.config.identity import Person
from perchild.config.merge import Settings, merge_settings
from perchild.config.messages import BadDirectiveError
from perchild.config.tree import Node
from perchild.wire import record
from perchild.wire.plan import LogFile
from perchild.wire.route import Address

Report = Callable[[Node, str, int], None]

_HEAD = struct.Struct("<HHI")
_TAG = {tag.name: tag.number for tag in record.TAGS}
_NAME, _PORT, _ADMIN, _ROOT = _TAG["NAME"], _TAG["PORT"], _TAG["ADMIN"], _TAG["DOCUMENT_ROOT"]
_LOG, _ERROR_LOG, _SECTION, _HOST = _TAG["LOG"], _TAG["ERROR_LOG"], _TAG["SECTION"], _TAG["HOST"]
_U32 = struct.Struct("<I")
_TIME_FIELDS = ("timeout_ms", "keep_alive_timeout_ms", "read_timeouts", "keep_alive", "max_keep_alive_requests", "keep_alive_scope",
                "limit_line_bytes", "limit_field_bytes", "limit_fields")


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
    addresses: dict[tuple[int, bytes, int], Address] = field(default_factory=dict)

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

    def __init__(self, main: Draft, server_root: str, report: Report, warn: Report) -> None:
        self._main = {**directives_host.DEFAULTS, "error_log": (f"{server_root}/logs/error_log"),
                      "document_root": (f"{server_root}/htdocs", None), **main.host}
        self._main["read_timeouts"] = {**directives_host.DEFAULTS["read_timeouts"], **main.host.get("read_timeouts", {})}
        self._main_settings = merge_settings(dict(directives_section.DEFAULTS), main.settings)
        self._base: dict[tuple[tuple[str, str], ...], bytes] = {}
        self._times: dict[tuple[Any, ...], bytes] = {}
        self._formats: dict[str, bytes] = {}
        self._dirs = sorted(((depth, _item(_SECTION, raw)) for kind, depth, raw in main.sections if kind == 0), key=_depth)
        self._others = {kind: b"".join(_item(_SECTION, raw) for one, _, raw in main.sections if one // 2 == kind // 2 and one != 0)
                        for kind in (1, 2, 4)}
        self._shared_sections = b"".join(raw for _, raw in self._dirs) + b"".join(self._others.values())
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
        name, port = host.get("name", ("", 0) if draft.node else main["name"])
        aliases = [*host.get("url_aliases", ()), *(self._main["url_aliases"] if draft.node else ())]
        return _item(_HOST, b"".join((
            _item(_NAME, name.encode("ascii")),
            _item(_PORT, _U32.pack(port)),
            _item(_ADMIN, _raw(host.get("admin", main["admin"]))),
            _item(_ROOT, _raw(host.get("document_root", main["document_root"])[0])),
            self._pack_times(host),
            self._pack_logs(draft, group),
            _item(_ERROR_LOG, struct.pack("<II", group.find_log(host.get("error_log", main["error_log"]), source),
                                          host.get("log_level", main["log_level"]))),
            self._pack_base(draft),
            self._pack_sections(draft),
            b"".join(map(_pack_alias, aliases)) if aliases else b"",
        )))

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

    def _pack_base(self, draft: Draft) -> bytes:
        key = tuple(draft.settings_key) if draft.node else ()
        raw = self._base.get(key)
        if raw is None:
            settings = merge_settings(self._main_settings, draft.settings) if draft.node else self._main_settings
            raw = self._base[key] = record.item("BASE", pack_items(settings))
        return raw

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


def _depth(pair: tuple[int, bytes]) -> int:
    return pair[0]


def _pack_alias(alias: tuple[int, str, str]) -> bytes:
    kind, origin, target = alias
    return record.item("ALIAS", record.u32s("ALIAS_KIND", kind) + record.text("ALIAS_FROM", origin) + record.text("ALIAS_TO", target))
