"""The table, part four: programs: CGI, FastCGI, PHP, application servers, and the limits they run under.

Runs as: compile (pure).  Source: httpd's mod_alias, mod_cgi, mod_actions, mod_mime, mod_proxy_fcgi; mod_fcgid, mod_wsgi, mod_php,
mpm_itk (NiceValue).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from perchild.config.directives_host import SCRIPT_ALIAS, alias_match_parser, alias_parser
from perchild.config.formats import literal, operation
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import ANYWHERE, HOST, MANY, SERVER, Parse, Row, custom, one
from perchild.config.targets import MAX_TIME_MS, Parameters, parse_handler
from perchild.config.values import FLAG, Env, check_php_name, number, parse_number, parse_time_ms

BOTH = SERVER | HOST
MAX_CHILDREN = 1000
DEFAULT_MAX_CHILDREN = 8
DEFAULT_WRAPPER_PROCESSES = 4
NO_LIMIT = -1  # of an RLimit: max
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PHP_VERSION = re.compile(r"\d{1,2}\.\d{1,2}\Z")
_PHP_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
_PHP_FOR_GOOD = frozenset(("disable_functions", "disable_classes", "extension", "zend_extension"))
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
    """WSGIScriptAlias: its file, the URL path it stands at, the WSGIDaemonProcess it names ("" = none)."""

    file: str
    mount: str
    group: str = ""


class Daemon(NamedTuple):
    """WSGIDaemonProcess: root of a virtual environment, directories for imports, directory to start in; "" = not said."""

    python_home: str = ""
    python_path: tuple[str, ...] = ()
    home: str = ""


class Pass(NamedTuple):
    """ProxyPass and its like: kind of wire PROXY_KIND, prefix or pattern, where to ("!" = not here), parameters."""

    kind: int
    origin: str
    target: str | App | Wsgi
    parameters: Parameters
    is_section: bool = False  # within <Location>: comes before the others, the last one first


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
    check_php_name(name, 1)
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

    def parse(words: list[str], env: Env) -> dict[tuple[bool, str], tuple[str, str]]:
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
        if "'" in value and any(char in '"$\\' for char in value):
            message = "a value may not contain ' together with \", $ or \\: no quotes of an ini file hold them"
            raise BadDirectiveError(message, 1)
        if words[0] in _PHP_FOR_GOOD and env.context not in _OUTSIDE:
            message = f"{words[0]} may stand in a virtual host only: PHP does not take it back when it goes on with what lies elsewhere"
            raise BadDirectiveError(message, 0)
        return {(is_admin, words[0]): (directive, value)}

    return parse


# --- application servers -----------------------------------------------------------------------------------------


_DAEMON = "every application runs as its host's own user, in a process of its own"
_USUAL_OPTIONS = frozenset(("display-name", "lang", "locale"))  # nobody misses them


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
    group = ""
    for index, word in enumerate(words[2:], 2):
        key, _, value = word.partition("=")
        if key.lower() == "process-group":
            group = value
        else:
            env.warn(f"{word} has no effect: {_DAEMON}", index)
    mount = _mount(words[0])
    return Pass(0, mount, Wsgi(env.path(words[1], 1), mount, group), Parameters())


def _parse_daemon(words: list[str], env: Env) -> dict[str, Daemon]:
    daemon = Daemon()
    for index, word in enumerate(words[1:], 1):
        key, equals, value = word.partition("=")
        if not equals:
            message = f"'{word}' is no option of WSGIDaemonProcess: name=value expected"
            raise BadDirectiveError(message, index)
        if key == "python-home":
            daemon = daemon._replace(python_home=env.path(value, index))
        elif key == "python-path":
            daemon = daemon._replace(python_path=tuple(env.path(part, index) for part in value.split(":") if part))
        elif key == "home":
            daemon = daemon._replace(home=env.path(value, index))
        elif key not in _USUAL_OPTIONS:
            env.warn(f"{key} has no effect: {_DAEMON}", index)
    return {words[0]: daemon}


def _parse_group(words: list[str], _env: Env) -> str:
    return "" if words[0].startswith("%{") else words[0]


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
_STREAMED = "there is no forward proxy, and bodies are streamed as they come"
_IDLE_NAMES: tuple[tuple[int, str, str], ...] = (
    (BOTH, ("FcgidBusyScanInterval FcgidBusyTimeout FcgidCmdOptions FcgidConnectTimeout FcgidErrorScanInterval FcgidIdleScanInterval "
           "FcgidIdleTimeout FcgidIOTimeout FcgidIPCDir FcgidMaxProcesses FcgidMaxRequestInMem "
           "FcgidMaxRequestLen FcgidMaxRequestsPerProcess FcgidMinProcessesPerClass FcgidOutputBufferSize FcgidPassHeader "
           "FcgidProcessLifeTime FcgidProcessTableFile FcgidSpawnScore FcgidSpawnScoreUpLimit FcgidTerminationScore FcgidTimeScore "
           "FcgidZombieScanInterval FcgidFixPathinfo"), _FCGID),
    (BOTH, "ScriptLog ScriptLogBuffer ScriptLogLength", "what a program writes to its standard error is in the host's error log"),
    (BOTH, "ScriptSock CGIDScriptTimeout CGIScriptTimeout", "there is no CGI daemon; Timeout is how long a program may be silent"),
    (BOTH, ("ProxyIOBufferSize ProxyReceiveBufferSize ProxyAddHeaders ProxyBadHeader ProxyMaxForwards ProxyVia ProxyStatus ProxyBlock "
           "ProxyDomain NoProxy ProxyFCGIBackendType ProxyPassInterpolateEnv ProxyWebsocketFallbackToProxyHttp"), _STREAMED),
    (ANYWHERE, "ProxyErrorOverride", "the back end's own error pages are sent"),
    (ANYWHERE, "WSGIApplicationGroup WSGIPassAuthorization WSGIScriptReloading", _DAEMON),
    (BOTH, ("WSGISocketPrefix WSGIPythonHome WSGIPythonPath WSGIImportScript WSGIRestrictEmbedded "
           "WSGIChunkedRequest WSGIPythonOptimize"), _DAEMON),
)
_IDLE_ROWS = tuple(
    custom(name, contexts, "...", (1, MANY), _idle(name, reason), "host", "", f"Without effect: {reason}", store="ignore")
    for contexts, names, reason in _IDLE_NAMES for name in names.split())

_COUNTS = "seconds, bytes or processes; max"

ROWS: tuple[Row, ...] = (
    custom("ScriptAlias", BOTH, "URL-path path", (2, 2), alias_parser("ScriptAlias", SCRIPT_ALIAS), "host", "url_aliases",
           "Like Alias, for a directory (or a file) of CGI programs", store="append"),
    custom("ScriptAliasMatch", BOTH, "regex path", (2, 2), alias_match_parser("ScriptAliasMatch", SCRIPT_ALIAS + 1), "host", "url_aliases",
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
             "FastCGI program, checked as CGI programs are, that runs files of the handler fcgid-script where ExecCGI is on; kept while it "
             "is used", store="update")
      for name in ("FcgidWrapper", "FCGIWrapper")),
    custom("FcgidInitialEnv", BOTH, "name [value]", (1, 2),
           lambda words, env: {words[0]: words[1] if len(words) > 1 else env.environ.get(words[0], "")}, "host", "fcgid_env",
           "Variable that programs of FcgidWrapper are started with; they have no others of the server's", store="update"),
    one("FcgidMaxProcessesPerClass", BOTH, number(1, MAX_CHILDREN), "host", "fcgid_processes",
        "Processes of a FcgidWrapper's program at most; each serves one request at a time, and another is started when requests wait",
        default=str(DEFAULT_WRAPPER_PROCESSES)),
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
    custom("WSGIDaemonProcess", BOTH, "name [python-home=path] [python-path=path:...] [home=path] ...", (1, MANY), _parse_daemon, "host",
           "wsgi_daemons", "Virtual environment, directories for imports and directory to start in of the applications that name it, or "
           "that are in the same host; other options have no effect, the user is always the host's", store="update"),
    custom("WSGIProcessGroup", BOTH, "name", (1, 1), _parse_group, "host", "wsgi_group",
           "WSGIDaemonProcess whose Python the host's applications use"),
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
