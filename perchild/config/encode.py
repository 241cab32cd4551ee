"""Settings and sections -> items of the record (wire/record.py).

Runs as: compile (pure).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perchild.config.merge import Settings
from perchild.wire import record


def _bits(name: str) -> Callable[[Any], bytes]:
    return lambda bits: record.u32s(name, *bits)


def _number(name: str) -> Callable[[Any], bytes]:
    return lambda number: record.u32s(name, number)


def _text(name: str) -> Callable[[Any], bytes]:
    return lambda text: record.text(name, text)


def _pairs(name: str) -> Callable[[Any], bytes]:
    return lambda mapping: b"".join(record.texts(name, key, value) for key, value in mapping.items())


def _error_documents(documents: Mapping[int, tuple[int, str]]) -> bytes:
    return b"".join(
        record.item("ERROR_DOCUMENT", record.u32s("VALUE_U32S", status, kind) + record.text("VALUE_STR", text))
        for status, (kind, text) in documents.items()
    )


def _env(variables: Mapping[str, str | None]) -> bytes:
    return b"".join(record.text("UNSET_ENV", name) if value is None else record.texts("SET_ENV", name, value)
                    for name, value in variables.items())


def _actions(actions: Mapping[str, tuple[str, str]]) -> bytes:
    return b"".join(record.texts("ACTION", name, path, kind) for name, (path, kind) in actions.items())


def _turned_pairs(name: str) -> Callable[[Any], bytes]:
    return lambda mapping: b"".join(record.texts(name, value, key) for key, value in mapping.items())


def _pair_list(name: str) -> Callable[[Any], bytes]:
    return lambda pairs: b"".join(record.texts(name, *pair) for pair in pairs)


def _fcgi_env(variables: Mapping[str, bytes | None]) -> bytes:
    return b"".join(
        record.item("FCGI_SETENV", record.text("FCGI_ENV_NAME", name) + (b"" if raw is None else record.item("FCGI_ENV_VALUE", raw)))
        for name, raw in variables.items())


def _php_values(values: Mapping[tuple[bool, str], tuple[str, str]]) -> bytes:
    return b"".join(record.texts("PHP_VALUE", directive, name, value) for (_, name), (directive, value) in values.items())


# In the order in which they stand in the record.
_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "options": _bits("OPTIONS"),
    "directory_index": lambda names: record.texts("DIRECTORY_INDEX", *names),
    "require": lambda requirement: record.item("REQUIRE", requirement.raw),
    "error_documents": _error_documents,
    "add_type": _pairs("ADD_TYPE"),
    "force_type": _text("FORCE_TYPE"),
    "default_type": _text("DEFAULT_TYPE"),
    "add_charset": _pairs("ADD_CHARSET"),
    "default_charset": _text("DEFAULT_CHARSET"),
    "add_encoding": _pairs("ADD_ENCODING"),
    "handler": _text("HANDLER"),
    "headers": b"".join,
    "request_headers": b"".join,
    "env": _env,
    "file_etag": _bits("FILE_ETAG"),
    "accept_path_info": _number("ACCEPT_PATH_INFO"),
    "limit_body_bytes": lambda number: record.u64("LIMIT_BODY", number),
    "signature": _number("SIGNATURE"),
    "redirects": b"".join,
    "allow_override": _number("ALLOW_OVERRIDE"),
    "add_handler": _pairs("ADD_HANDLER"),
    "actions": _actions,
    "proxy_reverse": _pair_list("PROXY_REVERSE"),
    "cookie_paths": _pair_list("COOKIE_PATH"),
    "cookie_domains": _pair_list("COOKIE_DOMAIN"),
    "preserve_host": lambda flag: record.u32s("PRESERVE_HOST", int(flag)),
    "cgi_pass_auth": lambda flag: record.u32s("CGI_PASS_AUTH", int(flag)),
    "proxy_timeout_ms": _number("PROXY_TIMEOUT"),
    "wrappers": _turned_pairs("FCGID_WRAPPER"),
    "fcgi_env": _fcgi_env,
    "php_values": _php_values,
    "ssl_require": _number("SSL_REQUIRE"),
    "ssl_verify": _number("SSL_VERIFY"),
    "ssl_options": _bits("SSL_OPTIONS"),
}


def pack_items(settings: Settings) -> bytes:
    """Return the SETTING items of `settings`."""
    items = [encode(settings[name]) for name, encode in _ENCODERS.items() if name in settings]
    if "order" in settings or "allow" in settings or "deny" in settings:
        items.append(record.item("ORDER_ALLOW_DENY", b"".join((
            record.u32s("ORDER", settings.get("order", 0)),
            record.item("ALLOW_FROM", b"".join(settings.get("allow", ()))),
            record.item("DENY_FROM", b"".join(settings.get("deny", ()))),
        ))))
    return b"".join(items)


def pack_settings(settings: Settings) -> bytes:
    """Return the SECTION_SETTINGS item of `settings`."""
    return record.item("SECTION_SETTINGS", pack_items(settings))


def pack_section(kind: int, pattern: str, contents: bytes) -> bytes:
    """Return the payload of a SECTION or SECTION_INNER item; contents: SECTION_SETTINGS and SECTION_INNER items."""
    return record.u32s("SECTION_KIND", kind) + record.text("SECTION_PATTERN", pattern) + contents
