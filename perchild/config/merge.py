"""How settings of an outer place and an inner one become one: server's with host's, earlier with later line.

Runs as: compile (pure).  Source: httpd's create/merge functions of the modules named at each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Settings = dict[str, Any]
Merge = Callable[[Any, Any], Any]


def _combine(base: Any, over: Any) -> Any:  # noqa: ANN401 (Bits)
    return base.then(over)


def _update(base: Mapping[Any, Any], over: Mapping[Any, Any]) -> dict[Any, Any]:
    return {**base, **over}


def _join(base: list[Any], over: list[Any]) -> list[Any]:
    return [*base, *over]


def _join_inner_first(base: list[Any], over: list[Any]) -> list[Any]:
    return [*over, *base]


# Fields not listed: the inner value replaces the outer one.
MERGES: dict[str, Merge] = {
    "options": _combine,  # core
    "file_etag": _combine,  # core
    "ssl_options": _combine,  # mod_ssl
    "error_documents": _update,  # core
    "add_type": _update,  # mod_mime
    "add_charset": _update,  # mod_mime
    "add_encoding": _update,  # mod_mime
    "env": _update,  # mod_env
    "headers": _join,  # mod_headers
    "request_headers": _join,  # mod_headers
    "redirects": _join_inner_first,  # mod_alias
    "add_handler": _update,  # mod_mime
    "actions": _update,  # mod_actions
    "wrappers": _update,  # mod_fcgid
    "fcgi_env": _update,  # mod_proxy_fcgi
    "php_values": _update,  # mod_php
    "proxy_reverse": _join_inner_first,  # mod_proxy
    "cookie_paths": _join_inner_first,  # mod_proxy
    "cookie_domains": _join_inner_first,  # mod_proxy
}


def merge_settings(base: Settings, over: Settings) -> Settings:
    """Return the settings of `over` within `base`; neither is changed."""
    if not over:
        return base
    merged = dict(base)
    for field, value in over.items():
        merge = MERGES.get(field)
        merged[field] = merge(base[field], value) if merge and field in base else value
    return merged


def store_value(target: Settings, field: str, store: str, value: Any) -> None:  # noqa: ANN401 (any field's)
    """Put the value of one directive into `target`, by the rule its row names."""
    if store == "set":
        target[field] = value
    elif store == "append":
        target.setdefault(field, []).append(value)
    elif store == "extend":
        target.setdefault(field, []).extend(value)
    elif store == "update":
        target[field] = {**target.get(field, {}), **value}
    elif store == "combine":
        target[field] = target[field].then(value) if field in target else value
    elif store == "names":  # DirectoryIndex: several lines add up, `disabled` begins anew
        target[field] = (*target.get(field, ()), *value) if value else ()
