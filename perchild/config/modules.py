"""Which of httpd's modules we stand for: the answers to <IfModule>, LoadModule and <IfVersion>.

True is said only where the module's directives are taken and do what they do in httpd. Published in docs/directives.md.
Runs as: compile (pure).
"""

from __future__ import annotations

import re

from perchild.config.messages import BadDirectiveError

HTTPD_VERSION = (2, 4, 63)  # the httpd whose language this is; what <IfVersion> compares with

# Source file name -> module name (for LoadModule and IfModule), and what stands behind it.
PROVIDED: tuple[tuple[str, str, str], ...] = (
    ("core.c", "core_module", "core directives"),
    ("http_core.c", "http_module", "HTTP/1.1"),
    ("mod_so.c", "so_module", "LoadModule is answered, nothing is loaded"),
    ("mod_unixd.c", "unixd_module", "User, Group"),
    ("mod_version.c", "version_module", "IfVersion"),
    ("perchild.c", "mpm_perchild_module", "ChildPerUserID, AssignUserID: in force under every MPM"),
    ("mpm_itk.c", "mpm_itk_module", "AssignUserID, LimitUIDRange, LimitGIDRange: in force under every MPM"),
    ("itk.c", "itk_module", "the same, old name"),
    ("mod_alias.c", "alias_module", "Alias, ScriptAlias, Redirect"),
    ("mod_headers.c", "headers_module", "Header, RequestHeader"),
    ("mod_mime.c", "mime_module", "AddType, AddHandler, AddCharset, AddEncoding, TypesConfig"),
    ("mod_dir.c", "dir_module", "DirectoryIndex"),
    ("mod_autoindex.c", "autoindex_module", "Options Indexes"),
    ("mod_env.c", "env_module", "SetEnv, UnsetEnv, PassEnv"),
    ("mod_log_config.c", "log_config_module", "LogFormat, CustomLog, TransferLog"),
    ("mod_logio.c", "logio_module", "%I, %O, %S"),
    ("mod_authz_core.c", "authz_core_module", "Require"),
    ("mod_authz_host.c", "authz_host_module", "Require ip, host, local"),
    ("mod_access_compat.c", "access_compat_module", "Order, Allow, Deny"),
    ("mod_cgi.c", "cgi_module", "ScriptAlias, Options ExecCGI, cgi-script"),
    ("mod_cgid.c", "cgid_module", "the same"),
    ("mod_actions.c", "actions_module", "Action"),
    ("mod_fcgid.c", "fcgid_module", "FcgidWrapper, fcgid-script"),
    ("mod_proxy.c", "proxy_module", "ProxyPass and what belongs to it"),
    ("mod_proxy_http.c", "proxy_http_module", "http:// back ends"),
    ("mod_proxy_fcgi.c", "proxy_fcgi_module", "fcgi:// back ends, SetHandler proxy:"),
    ("mod_proxy_wstunnel.c", "proxy_wstunnel_module", "ws:// back ends, upgrade=websocket"),
    ("mod_ssl.c", "ssl_module", "SSLEngine and what belongs to it"),
    ("mod_http2.c", "http2_module", "Protocols h2 h2c"),
    ("mod_remoteip.c", "remoteip_module", "RemoteIPHeader, RemoteIPProxyProtocol"),
    ("mod_wsgi.c", "wsgi_module", "WSGIScriptAlias"),
    ("mod_reqtimeout.c", "reqtimeout_module", "RequestReadTimeout"),
)

# Names that are true only for the chosen MPM.
MPM_NAMES: dict[str, tuple[str, ...]] = {
    "perchild": (),
    "worker": ("worker.c", "mpm_worker_module", "event.c", "mpm_event_module"),
    "prefork": ("prefork.c", "mpm_prefork_module"),
}

# What LoadModule NAME chooses.
MPM_OF_MODULE: dict[str, str] = {
    "mpm_worker_module": "worker",
    "mpm_event_module": "worker",
    "mpm_prefork_module": "prefork",
    "mpm_perchild_module": "perchild",
    "mpm_itk_module": "perchild",
}

_TRUE = frozenset(name for row in PROVIDED for name in row[:2]) | {"mpm_perchild", "mod_itk.c"}
_OF_MPM = frozenset(name for names in MPM_NAMES.values() for name in names)
_OPERATORS = ("=", "==", ">", ">=", "<", "<=", "~")


def depends_on_mpm(name: str) -> bool:
    """Tell whether the answer for `name` depends on the chosen MPM."""
    return name in _OF_MPM


def is_provided(name: str, mpm: str) -> bool:
    """Tell whether <IfModule name> holds."""
    return name in _TRUE or name in MPM_NAMES[mpm]


def compare_version(words: list[str]) -> bool:
    """Answer <IfVersion [[!]operator] version>; words: its arguments.

    Raises:
        BadDirectiveError: no such operator, or no version.
    Source: httpd's mod_version.
    """
    operator = words[0] if len(words) > 1 else "="
    is_negated = operator.startswith("!")
    operator = operator.removeprefix("!")
    if operator not in _OPERATORS:
        message = f"unrecognized operator {operator}: there are {' '.join(_OPERATORS)}, each with ! before it"
        raise BadDirectiveError(message, 0)
    return _holds(operator, words[-1]) is not is_negated


def _holds(operator: str, version: str) -> bool:
    is_slashed = len(version) > 1 and version.startswith("/") and version.endswith("/") and operator in {"=", "=="}
    if is_slashed or operator == "~":
        try:
            return re.search(version[1:-1] if is_slashed else version, ".".join(map(str, HTTPD_VERSION))) is not None
        except re.error as error:
            message = f"Regular expression '{version}' could not be compiled: {error.msg}"
            raise BadDirectiveError(message, 1) from None
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4}){0,2}", version):
        message = f"'{version}' is no version: write it as 2, 2.4 or 2.4.{HTTPD_VERSION[2]}"
        raise BadDirectiveError(message, 1)
    numbers = [int(part) for part in version.split(".")]
    have, want = HTTPD_VERSION, (*numbers, 0, 0)[:3]
    return {"=": have == want, "==": have == want, ">": have > want, ">=": have >= want,
            "<": have < want, "<=": have <= want}[operator]
