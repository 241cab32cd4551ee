"""The table, part four: programs and back ends: CGI, FastCGI, PHP, application servers, proxying, and the limits they run under.

Runs as: compile (pure).  Source: httpd's mod_alias, mod_cgi, mod_actions, mod_mime, mod_proxy, mod_proxy_fcgi, mod_remoteip; mod_fcgid,
mod_wsgi, mod_php, mpm_itk (NiceValue).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from perchild.config.access import pack_address, pack_node
from perchild.config.formats import literal, operation
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import ANYWHERE, HOST, MANY, SECTION, SERVER, Parse, Row, custom, one
from perchild.config.targets import MAX_TIME_MS, Parameters, find_worker, parse_handler, parse_parameters, parse_target
from perchild.config.values import FLAG, Env, number, parse_number, parse_time_ms, time_ms

BOTH = SERVER | HOST
MAX_CHILDREN = 1000
DEFAULT_MAX_CHILDREN = 8
NO_LIMIT = -1  # of an RLimit: max
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PHP_VERSION = re.compile(r"\d{1,2}\.\d{1,2}\Z")
_PHP_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
_LOCATIONS = frozenset(("<location", "<locationmatch"))
_OUTSIDE = frozenset(("", "<virtualhost"))


class Pool(NamedTuple):
    """PHPPool: whether there is one, PHP's version ("" = the newest there is), most workers, idle time in s (0 = RunnerIdle)."""

    is_on: bool
    version: str = ""
    max_children: int = DEFAULT_MAX_CHILDREN
    idle_s: int = 0


class App(NamedTuple):
    """AppServer: the words of its command."""

    command: tuple[str, ...]


class Wsgi(NamedTuple):
    """WSGIScriptAlias: its file, and the URL path it stands at."""

    file: str
    mount: str


class Pass(NamedTuple):
    """ProxyPass and its like: kind of wire PROXY_KIND, prefix or pattern, where to ("!" = not here), parameters."""

    kind: int
    origin: str
    target: str | App | Wsgi
    parameters: Parameters
    is_section: bool = False  # within <Location>: comes before the others, the last one first


# --- ScriptAlias -------------------------------------------------------------------------------------------------


def _parse_script_alias(words: list[str], env: Env) -> tuple[int, str, str]:
    if not words[0].startswith("/"):
        message = f"ScriptAlias needs a URL path that begins with '/', not '{words[0]}'"
        raise BadDirectiveError(message, 0)
    path = env.path(words[1], 1)
    return 2, words[0], path + "/" if words[1].endswith("/") and words[0].endswith("/") and path != "/" else path


def _parse_script_alias_match(words: list[str], env: Env) -> tuple[int, str, str]:
    pattern = env.pattern(words[0])
    return 3, pattern, words[1] if words[1].startswith(("/", "$")) else f"{env.server_root}/{words[1]}"


# --- handlers ----------------------------------------------------------------------------------------------------


def _extensions(words: list[str], value: str) -> dict[str, str]:
    return {word.lstrip(".").lower(): value for word in words}


def _parse_set_handler(words: list[str], env: Env) -> str:
    return parse_handler(words[0], 0, env)


def _parse_add_handler(words: list[str], env: Env) -> dict[str, str]:
    return _extensions(words[1:], parse_handler(words[0], 0, env))


def _parse_remove_handler(words: list[str], _env: Env) -> dict[str, str]:
    return _extensions(words, "")


def _parse_action(words: list[str], _env: Env) -> dict[str, tuple[str, str]]:
    if not words[1].startswith("/"):
        message = f"Action needs a URL path that begins with '/', not '{words[1]}'"
        raise BadDirectiveError(message, 1)
    kind = words[2].lower() if len(words) > 2 else ""  # noqa: PLR2004
    if kind not in {"", "virtual"}:
        message = f"unrecognized option '{words[2]}': virtual expected"
        raise BadDirectiveError(message, 2)
    return {words[0].lower() if "/" in words[0] else words[0]: (words[1], kind)}


def _parse_wrapper(words: list[str], env: Env) -> dict[str, str]:
    extension = words[1].lstrip(".").lower() if len(words) > 1 and words[1].lower() != "virtual" else ""
    if words[-1].lower() == "virtual" and len(words) > 1:
        env.warn("virtual has no effect: the file must exist, else the answer is 404", len(words) - 1)
    parts = words[0].split()
    if not parts or not parts[0].startswith("/"):
        message = f"'{words[0]}' is no command: the absolute path of a program expected, and its arguments behind it"
        raise BadDirectiveError(message, 0)
    return {extension: words[0]}


# --- FastCGI variables -------------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"%\{(?:(?P<kind>[A-Za-z]+):)?(?P<name>[^}]+)\}")
_OF_KIND = {"reqenv": "e", "env": "e", "http": "i", "req": "i"}
_OF_NAME = {"REMOTE_ADDR": ("a", b""), "REQUEST_METHOD": ("m", b""), "SERVER_NAME": ("v", b""), "REQUEST_URI": ("U", b""),
            "SERVER_ADDR": ("A", b""), "SERVER_PORT": ("p", b"canonical"), "REQUEST_FILENAME": ("f", b"")}


def _compile_variables(text: str, word: int) -> bytes:
    """Return the FORMAT operations of a value: literals, %{reqenv:NAME}, %{HTTP:Field} and a few names."""
    out: list[bytes] = []
    at = 0
    for match in _VARIABLE.finditer(text):
        out.append(literal(text[at : match.start()]))
        at = match.end()
        kind, name = (match["kind"] or "").lower(), match["name"]
        if kind in _OF_KIND:
            out.append(operation(_OF_KIND[kind], name.encode("utf-8", "surrogateescape")))
        elif not kind and name in _OF_NAME:
            out.append(operation(*_OF_NAME[name]))
        else:
            message = f"{match.group()} is not supported here: %{{reqenv:NAME}}, %{{HTTP:Field}}, {', '.join(_OF_NAME)} expected"
            raise BadDirectiveError(message, word)
    return b"".join([*out, literal(text[at:])])


def _parse_fcgi_set_env(words: list[str], _env: Env) -> dict[str, bytes | None]:
    if words[0].lower() != "true":
        message = 'a condition needs expressions, which this version does not have: only "true" is taken'
        raise BadDirectiveError(message, 0)
    name = words[1].removeprefix("!")
    if not _TOKEN.match(name):
        message = f"'{words[1]}' is no name for a variable"
        raise BadDirectiveError(message, 1)
    if words[1].startswith("!"):
        return {name: None}
    return {name: _compile_variables(words[2], 2) if len(words) > 2 else b""}  # noqa: PLR2004


# --- PHP ---------------------------------------------------------------------------------------------------------


def _parse_pool(words: list[str], _env: Env) -> Pool:
    first = words[0].lower()
    if first == "off":
        if len(words) > 1:
            message = "PHPPool off takes no more words"
            raise BadDirectiveError(message, 1)
        return Pool(is_on=False)
    if first != "on" and not _PHP_VERSION.match(words[0]):
        message = f"'{words[0]}' is neither on, off nor a version of PHP such as 8.2"
        raise BadDirectiveError(message, 0)
    pool = Pool(is_on=True, version="" if first == "on" else words[0])
    for index, word in enumerate(words[1:], 1):
        key, _, value = word.partition("=")
        if key.lower() == "max_children":
            pool = pool._replace(max_children=parse_number(value, index, 1, MAX_CHILDREN))
        elif key.lower() == "idle":
            pool = pool._replace(idle_s=-(-parse_time_ms(value, index, 1000, MAX_TIME_MS) // 1000))
        else:
            message = f"'{word}' is no parameter of PHPPool: max_children=N or idle=seconds expected"
            raise BadDirectiveError(message, index)
    return pool


def _php(directive: str) -> Parse:
    is_flag = directive.endswith("_flag")
    is_admin = "_admin_" in directive

    def parse(words: list[str], _env: Env) -> dict[tuple[bool, str], tuple[str, str]]:
        if not _PHP_NAME.match(words[0]):
            message = f"'{words[0]}' is no name of a PHP setting"
            raise BadDirectiveError(message, 0)
        value = words[1]
        if is_flag:
            if value.lower() not in {"on", "off", "1", "0"}:
                message = f"must be On or Off, not '{value}'"
                raise BadDirectiveError(message, 1)
            value = "1" if value.lower() in {"on", "1"} else "0"
        if any(ord(char) < 0x20 for char in value):  # noqa: PLR2004
            message = "a value may not contain control characters: they would begin another setting"
            raise BadDirectiveError(message, 1)
        return {(is_admin, words[0]): (directive, value)}

    return parse


# --- application servers -----------------------------------------------------------------------------------------


def _mount(word: str) -> str:
    return word.rstrip("/") or "/"


def _parse_app_server(words: list[str], _env: Env) -> Pass:
    """Return the pass of an application server. A URL path ends with '/', which no command does."""
    mount = words[0] if words[0].startswith("/") and words[0].endswith("/") else ""
    command = words[1:] if mount else words
    if not command:
        message = "AppServer needs a command behind the URL path"
        raise BadDirectiveError(message, 0)
    return Pass(0, _mount(mount or "/"), App(tuple(command)), Parameters(upgrade="websocket"))


def _parse_wsgi_alias(words: list[str], env: Env) -> Pass:
    if not words[0].startswith("/"):
        message = f"WSGIScriptAlias needs a URL path that begins with '/', not '{words[0]}'"
        raise BadDirectiveError(message, 0)
    for index, word in enumerate(words[2:], 2):
        env.warn(f"{word} has no effect: an application runs in a process of its own", index)
    mount = _mount(words[0])
    return Pass(0, mount, Wsgi(env.path(words[1], 1), mount), Parameters())


# --- proxying ----------------------------------------------------------------------------------------------------


def _check_origin(name: str, word: str, kind: int, env: Env) -> None:
    if kind == 1:
        env.pattern(word)
    elif not word.startswith("/"):
        message = f"{name} needs a URL path that begins with '/', not '{word}'"
        raise BadDirectiveError(message, 0)


def _passer(name: str, kind: int) -> Parse:
    def parse(words: list[str], env: Env) -> Pass:
        if env.context in _LOCATIONS:
            at, origin, own_kind = 0, env.location, int(env.is_location_pattern)
            if len(words) > 1 and "=" not in words[1]:
                message = f"{name} within <Location> takes the back end's URL alone: the path is the section's"
                raise BadDirectiveError(message, 1)
        elif env.context not in _OUTSIDE:
            message = f"{name} not allowed in {env.context}> context: <Location> is the section for URLs"
            raise BadDirectiveError(message)
        else:
            at, origin, own_kind = 1, words[0], kind
            _check_origin(name, origin, kind, env)
            if len(words) < 2:  # noqa: PLR2004
                message = f"{name} needs a back end's URL behind the path, or '!'"
                raise BadDirectiveError(message, 0)
        is_section = at == 0
        if words[at] == "!":
            return Pass(own_kind, origin, "!", Parameters(), is_section)
        target = parse_target(words[at], at, env)
        worker = find_worker(target, env.workers)
        given = parse_parameters(words[at + 1 :], at + 1, env).within(worker.parameters if worker else Parameters())
        if target.startswith("ws://") and not given.upgrade:
            given = given._replace(upgrade="websocket")
        return Pass(own_kind, origin, target, given, is_section)

    return parse


def _parse_reverse(words: list[str], env: Env) -> tuple[str, str]:
    if words[-1].lower() == "interpolate" and len(words) > 1:
        env.warn("interpolate has no effect", len(words) - 1)
        words = words[:-1]
    if len(words) == 1:
        if env.context != "<location":
            message = "ProxyPassReverse needs the path that clients see, and the back end's URL"
            raise BadDirectiveError(message, 0)
        words = [env.location, *words]
    _check_origin("ProxyPassReverse", words[0], 0, env)
    url = words[1].rpartition("|")[2]
    if "://" not in url and not url.startswith("/"):
        message = f"'{words[1]}' is no URL"
        raise BadDirectiveError(message, 1)
    return words[0], url


def _parse_cookie(words: list[str], env: Env) -> tuple[str, str]:
    if len(words) > 2:  # noqa: PLR2004
        env.warn(f"{words[2]} has no effect", 2)
    return words[0], words[1]


def _parse_requests(words: list[str], env: Env) -> None:
    if FLAG.parse(words[0], 0, env):
        message = ("ProxyRequests On would make an open proxy, by which anybody reaches anything from this machine; it is not supported. "
                   "To pass requests on to a back end, ProxyPass is enough")
        raise BadDirectiveError(message, 0)


def _parse_proxy_set(words: list[str], env: Env) -> Parameters:
    if env.context != "<proxy":
        message = "ProxySet belongs into <Proxy URL>: there it says which back end is meant"
        raise BadDirectiveError(message)
    return parse_parameters(words, 0, env)


# --- addresses of clients ----------------------------------------------------------------------------------------


def _parse_field_name(words: list[str], _env: Env) -> str:
    if not _TOKEN.match(words[0]):
        message = f"'{words[0]}' is no name of a header field"
        raise BadDirectiveError(message, 0)
    return words[0]


def _parse_addresses(words: list[str], env: Env) -> list[bytes]:
    leaves: list[bytes] = []
    for index, word in enumerate(words):
        leaf = pack_address(word, index)
        if leaf is None:
            found = env.resolve(word)
            if not found:
                message = f"'{word}' is no IP address, no network, and no name that is known"
                raise BadDirectiveError(message, index)
            leaves += [pack_node("ip", bytes((family, 8 * len(packed))) + packed) for family, packed in found]
        else:
            leaves.append(leaf)
    return leaves


# --- limits ------------------------------------------------------------------------------------------------------


def _parse_limit(words: list[str], _env: Env) -> tuple[int, int]:
    values = [NO_LIMIT if word.lower() == "max" else parse_number(word, index, 0, (1 << 62)) for index, word in enumerate(words)]
    soft, hard = values[0], values[-1]
    if hard != NO_LIMIT and (soft == NO_LIMIT or soft > hard):
        message = f"the first number cannot be more than the second: {words[0]} and {words[-1]}"
        raise BadDirectiveError(message, 0)
    return soft, hard


def _parse_nice(words: list[str], _env: Env) -> int:
    return parse_number(words[0], 0, -20, 19)


# --- taken for other servers' sake -------------------------------------------------------------------------------


def _idle(name: str, reason: str) -> Parse:
    def parse(_words: list[str], env: Env) -> None:
        env.warn(f"{name} has no effect: {reason}", -1)

    return parse


_FCGID = "programs are started, kept and ended as RunnerIdle, Timeout and LimitRequestBody say"
_DAEMON = "every application runs as its host's own user, in a process of its own"
_STREAMED = "there is no forward proxy, and bodies are streamed as they come"
_IDLE_NAMES: tuple[tuple[int, str, str], ...] = (
    (BOTH, ("FcgidBusyScanInterval FcgidBusyTimeout FcgidCmdOptions FcgidConnectTimeout FcgidErrorScanInterval FcgidIdleScanInterval "
           "FcgidIdleTimeout FcgidIOTimeout FcgidIPCDir FcgidMaxProcesses FcgidMaxProcessesPerClass FcgidMaxRequestInMem "
           "FcgidMaxRequestLen FcgidMaxRequestsPerProcess FcgidMinProcessesPerClass FcgidOutputBufferSize FcgidPassHeader "
           "FcgidProcessLifeTime FcgidProcessTableFile FcgidSpawnScore FcgidSpawnScoreUpLimit FcgidTerminationScore FcgidTimeScore "
           "FcgidZombieScanInterval FcgidFixPathinfo"), _FCGID),
    (BOTH, "ScriptLog ScriptLogBuffer ScriptLogLength", "what a program writes to its standard error is in the host's error log"),
    (BOTH, "ScriptSock CGIDScriptTimeout CGIScriptTimeout", "there is no CGI daemon; Timeout is how long a program may be silent"),
    (BOTH, ("ProxyIOBufferSize ProxyReceiveBufferSize ProxyAddHeaders ProxyBadHeader ProxyMaxForwards ProxyVia ProxyStatus ProxyBlock "
           "ProxyDomain NoProxy ProxyFCGIBackendType ProxyPassInterpolateEnv ProxyWebsocketFallbackToProxyHttp"), _STREAMED),
    (ANYWHERE, "ProxyErrorOverride", "the back end's own error pages are sent"),
    (ANYWHERE, "WSGIProcessGroup WSGIApplicationGroup WSGIPassAuthorization WSGIScriptReloading", _DAEMON),
    (BOTH, ("WSGIDaemonProcess WSGISocketPrefix WSGIPythonHome WSGIPythonPath WSGIImportScript WSGIRestrictEmbedded "
           "WSGIChunkedRequest WSGIPythonOptimize"), _DAEMON),
)
_IDLE_ROWS = tuple(
    custom(name, contexts, "...", (1, MANY), _idle(name, reason), "host", "", f"Without effect: {reason}", store="ignore")
    for contexts, names, reason in _IDLE_NAMES for name in names.split())

_WORKER = "timeout=s, connectiontimeout=s, retry=s, upgrade=protocol, disablereuse=On|Off"
_COUNTS = "seconds, bytes or processes; max"

ROWS: tuple[Row, ...] = (
    custom("ScriptAlias", BOTH, "URL-path path", (2, 2), _parse_script_alias, "host", "url_aliases",
           "Like Alias, for a directory (or a file) of CGI programs", store="append"),
    custom("ScriptAliasMatch", BOTH, "regex path", (2, 2), _parse_script_alias_match, "host", "url_aliases",
           "Like AliasMatch, for CGI programs", store="append"),
    custom("SetHandler", ANYWHERE, "name|none|proxy:URL", (1, 1), _parse_set_handler, "settings", "handler",
           "Handler of everything here: cgi-script, fcgid-script, an Action's name, proxy:fcgi://host:port, proxy:unix:/path|fcgi://host "
           "(connected by the host's own user); none takes it away"),
    custom("AddHandler", ANYWHERE, "name|proxy:URL extension ...", (2, MANY), _parse_add_handler, "settings", "add_handler",
           "Handler of files with these extensions", store="update"),
    custom("RemoveHandler", ANYWHERE, "extension ...", (1, MANY), _parse_remove_handler, "settings", "add_handler",
           "Take away what AddHandler said", store="update"),
    custom("Action", ANYWHERE, "handler|media-type URL-path [virtual]", (2, 3), _parse_action, "settings", "actions",
           "Program that makes what files of this handler or type are asked for; virtual: even if there is no such file", store="update"),
    one("CGIPassAuth", ANYWHERE, FLAG, "settings", "cgi_pass_auth", "Whether CGI programs see the Authorization field", default="Off"),
    *(custom(name, ANYWHERE, '"command [argument ...]" [extension]', (1, 3), _parse_wrapper, "settings", "wrappers",
             "FastCGI program that runs files of the handler fcgid-script; kept while it is used", store="update")
      for name in ("FcgidWrapper", "FCGIWrapper")),
    custom("FcgidInitialEnv", BOTH, "name [value]", (1, 2),
           lambda words, _env: {words[0]: words[1] if len(words) > 1 else ""}, "settings", "env", "Like SetEnv", store="update"),
    custom("ProxyFCGISetEnvIf", ANYWHERE, '"true" [!]name [value]', (2, 3), _parse_fcgi_set_env, "settings", "fcgi_env",
           "Set or take away a variable that a FastCGI back end is sent; no other condition than true", store="update"),
    custom("PHPPool", BOTH, "on|off|version [max_children=n] [idle=s]", (1, 3), _parse_pool, "host", "php_pool",
           "A php-fpm of the host's own user, started at the first request for a PHP file and ended when idle; .php files, and what "
           "handlers and media types of PHP are given to, go there; hosts of one user with the same settings share it",
           default="off; max_children=8", range=f"max_children 1..{MAX_CHILDREN}"),
    *(custom(name, ANYWHERE, "name value", (2, 2), _php(name), "settings", "php_values", doc, store="update")
      for name, doc in (("php_value", "A setting of PHP, for FastCGI back ends that are php-fpm"), ("php_flag", "The same, On or Off"),
                        ("php_admin_value", "A setting of PHP that scripts and .user.ini cannot change"),
                        ("php_admin_flag", "The same, On or Off"))),
    custom("AppServer", BOTH, "[URL-path/] command [argument ...]", (1, MANY), _parse_app_server, "host", "passes",
           "Keep this program running as the host's user while it is used, and pass requests on to it over HTTP; {socket} and {fd} in the "
           "command stand for its socket's path and descriptor; an URL path ends with '/'; what an Alias names is not passed on",
           store="append", default="URL path /"),
    custom("WSGIScriptAlias", BOTH, "URL-path file", (2, MANY), _parse_wsgi_alias, "host", "passes",
           "Run this WSGI application as the host's user while it is used; what an Alias names is not passed on", store="append"),
    custom("ProxyPass", BOTH | SECTION, "[URL-path] URL|! [key=value ...]", (1, MANY), _passer("ProxyPass", 0), "host", "passes",
           f"Pass requests that begin so on to a back end; the first that fits counts; ! = not here. {_WORKER}. The host's own user connects, "
           "also to unix:/path|http://host/", store="append"),
    custom("ProxyPassMatch", BOTH | SECTION, "[regex] URL|! [key=value ...]", (1, MANY), _passer("ProxyPassMatch", 1), "host", "passes",
           "The same for URLs that match; $0..$9 stand for what matched, not in the host", store="append"),
    custom("ProxyPassReverse", ANYWHERE, "[URL-path] URL", (1, 3), _parse_reverse, "settings", "proxy_reverse",
           "Change Location, Content-Location and URI of a back end's responses back", store="append"),
    custom("ProxyPassReverseCookiePath", ANYWHERE, "internal public", (2, 3), _parse_cookie, "settings", "cookie_paths",
           "Change the path of a back end's cookies", store="append"),
    custom("ProxyPassReverseCookieDomain", ANYWHERE, "internal public", (2, 3), _parse_cookie, "settings", "cookie_domains",
           "Change the domain of a back end's cookies", store="append"),
    one("ProxyPreserveHost", ANYWHERE, FLAG, "settings", "preserve_host", "Whether a back end is sent the client's Host field", default="Off"),
    one("ProxyTimeout", BOTH, time_ms(1, MAX_TIME_MS), "settings", "proxy_timeout_ms", "How long a back end may be silent", default="Timeout"),
    custom("ProxyRequests", BOTH, "Off", (1, 1), _parse_requests, "host", "", "Off is what we do; On is refused", store="ignore",
           default="Off"),
    custom("ProxySet", SECTION, "key=value ...", (1, MANY), _parse_proxy_set, "host", "proxy_set",
           f"Within <Proxy>: parameters of this back end: {_WORKER}", store="append"),
    custom("RemoteIPHeader", BOTH, "field", (1, 1), _parse_field_name, "host", "remote_ip_header",
           "Field in which a trusted front end names the client"),
    custom("RemoteIPInternalProxy", BOTH, "address|network|host ...", (1, MANY), _parse_addresses, "host", "remote_ip_internal",
           "Front ends that are believed whatever address they name", store="extend"),
    custom("RemoteIPTrustedProxy", BOTH, "address|network|host ...", (1, MANY), _parse_addresses, "host", "remote_ip_trusted",
           "Front ends that are believed if they name a public address", store="extend"),
    one("RemoteIPProxyProtocol", BOTH, FLAG, "host", "proxy_protocol",
        "Whether connections begin with a PROXY protocol header (version 1 or 2), taken from the front ends above only", default="Off"),
    *(custom(name, BOTH, "soft|max [hard|max]", (1, 2), _parse_limit, "host", field,
             f"{what} of each program; of several hosts of one user the least counts", unit=_COUNTS, default="the system's")
      for name, field, what in (("RLimitCPU", "rlimit_cpu", "Seconds of CPU time"), ("RLimitMEM", "rlimit_mem", "Bytes of memory"),
                                ("RLimitNPROC", "rlimit_nproc", "Processes of the user"))),
    custom("NiceValue", BOTH, "number", (1, 1), _parse_nice, "host", "nice",
           "Nice value of programs; of several hosts of one user the highest counts", default="0", range="-20..19"),
    one("NoNewPrivileges", BOTH, FLAG, "host", "no_new_privs",
        "Whether set-uid and set-gid programs give nothing to the programs of the host's user; Off in one host is Off for that user",
        default="On"),
    one("RunnerIdle", SERVER, number(1, 86_400, "seconds", "seconds"), "server", "runner_idle_s",
        "How long the process that runs a user's programs, and what it keeps running, stays without a request", default="300"),
    *_IDLE_ROWS,
)
