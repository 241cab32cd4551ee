"""The table, part one: what concerns the server as a whole: processes, listeners, identities, the MPMs.

Runs as: compile (pure).  Source: history.md 2.1 and 4.1 (defaults, ranges), httpd's mpm_common, mod_unixd, mod_so.
"""

from __future__ import annotations

from typing import Any

from perchild import limits
from perchild.config import modules
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import HOST, MANY, SERVER, Row, custom, one
from perchild.config.values import (
    FLAG,
    MAX_ID,
    PATH,
    TEXT,
    Env,
    Kind,
    choice,
    number,
    pack_ip,
    parse_number,
    parse_port,
    time_ms,
)

MAX_SERVERS = 20_000  # MAX_SERVER_LIMIT of httpd's threaded MPMs
MAX_THREADS = limits.value("MAX_THREADS")
MAX_WORKERS = MAX_SERVERS * MAX_THREADS
ACCEPT_MUTEXES = ("default", "flock", "fcntl", "pthread", "sysvsem")
_TOKENS = ("Prod", "ProductOnly", "Major", "Minor", "Min", "Minimal", "OS", "Full")


def _parse_listen(words: list[str], env: Env) -> list[tuple[int, str, int]]:
    """Return (family, address, port) of a Listen; a bare port means every address of both families."""
    if len(words) > 1 and words[1].lower() not in {"http", "https"}:
        message = f"protocol '{words[1]}' is not supported on a listener: http and https are"
        raise BadDirectiveError(message, 1)
    word = words[0]
    host, colon, port = word.rpartition(":")
    if not colon or word.endswith("]"):
        host, port = ("*", word) if "." not in word and "]" not in word else (word, "")
    if not port:
        message = f"Port must be specified in '{word}'"
        raise BadDirectiveError(message, 0)
    if not port.isdecimal():
        message = f"'{word}' is no port and no address: port, address:port or [v6address]:port expected"
        raise BadDirectiveError(message, 0)
    port_number = parse_port(port)
    if host == "*":
        return [(4, "0.0.0.0", port_number), *([(6, "::", port_number)] if env.has_ipv6 else [])]  # noqa: S104 (as asked)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        message = f"'{word}': an IPv6 address must stand in brackets: [{host}]:{port}"
        raise BadDirectiveError(message, 0)
    return _listen_host(host, port_number, env)


def _listen_host(host: str, port: int, env: Env) -> list[tuple[int, str, int]]:
    address = pack_ip(host.strip("[]"))
    if address is not None:
        return [(address[0], host.strip("[]").lower(), port)]
    found = env.resolve(host)
    if not found:
        message = f"'{host}' is no address, and there is no host of this name"
        raise BadDirectiveError(message, 0)
    import socket  # noqa: PLC0415 (only to print what a name stands for)

    return [(family, socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, packed), port)  # noqa: PLR2004
            for family, packed in found]


def _parse_id_range(words: list[str], _env: Env) -> tuple[int, int]:
    low, high = (parse_number(word, index, 1, MAX_ID) for index, word in enumerate(words))
    if low > high:
        message = f"the range is empty: {low} is more than {high}"
        raise BadDirectiveError(message, 0)
    return low, high


def _parse_user_group(words: list[str], _env: Env) -> tuple[str, ...]:
    return tuple(words)


def _parse_accept_mutex(words: list[str], _env: Env) -> str:
    name = words[0].lower()
    if name not in ACCEPT_MUTEXES:
        message = f"{words[0]} is an invalid mutex mechanism; Valid accept mutexes for this platform and MPM are: {', '.join(ACCEPT_MUTEXES)}."
        raise BadDirectiveError(message, 0)
    return name


def _parse_load_module(words: list[str], env: Env) -> str:
    name = words[0]
    if name not in modules.MPM_OF_MODULE and not modules.is_provided(name, "perchild"):
        env.warn(f"LoadModule {name}: nothing is loaded; directives of this module are not available", 0)
    return name


def _parse_name_virtual_host(words: list[str], env: Env) -> None:
    env.warn("NameVirtualHost has no effect and will be removed in the next release", -1)
    _ = words


def _parse_error_log_format(words: list[str], _env: Env) -> bool:
    if len(words) != 1 or words[0].lower() not in {"json", "default"}:
        message = "ErrorLogFormat takes json or default; other formats are not supported"
        raise BadDirectiveError(message, 0)
    return words[0].lower() == "json"


def _count(low: int, high: int) -> Kind:
    return number(low, high, "", "number")


_USER = Kind("name|#number", "", "", TEXT.parse)
_BUFFER = number(0, 1 << 30, "bytes, 0 = the system's", "bytes")
_SPARE = _count(1, MAX_WORKERS)
_REQUESTS = _count(0, 0x7FFFFFFF)

ROWS: tuple[Row, ...] = (
    one("ServerRoot", SERVER, PATH, "server", "server_root", "Directory that relative paths start from", default="/etc/perchild, or -d"),
    custom("Listen", SERVER, "[address:]port [http|https]", (1, 2), _parse_listen, "server", "listen",
           "Address and port to listen on, at least one; SSLEngine says whether it speaks TLS", store="append", is_located=True),
    one("ListenBacklog", SERVER, number(1, 65535, "connections"), "server", "listen_backlog",
        "Longest queue of connections not yet accepted", default="511"),
    one("SendBufferSize", SERVER, _BUFFER, "server", "send_buffer_bytes", "TCP send buffer", default="0"),
    one("ReceiveBufferSize", SERVER, _BUFFER, "server", "receive_buffer_bytes", "TCP receive buffer", default="0"),
    one("User", SERVER, _USER, "server", "user", "User of the unassigned children, as name or #uid; never root",
        default="www-data", is_located=True),
    one("Group", SERVER, _USER, "server", "group", "Group of the unassigned children, as name or #gid; never gid 0",
        default="www-data", is_located=True),
    one("DefaultRuntimeDir", SERVER, PATH, "server", "run_dir", "Directory for what exists only while the server runs",
        default="/run/perchildd; run below ServerRoot when not started by root"),
    one("DefaultStateDir", SERVER, PATH, "server", "state_dir",
        "Directory for what outlives the server: the last good version of each site, which nobody but root may read",
        default="/var/lib/perchildd; state below ServerRoot when that is not /etc/perchild, or when not started by root"),
    one("PidFile", SERVER, PATH, "server", "pid_file", "File with the dispatcher's process id", default="perchildd.pid in DefaultRuntimeDir"),
    one("ScoreBoardFile", SERVER, PATH, "server", "score_board_file", "File that shows the score board; none if not given"),
    one("CoreDumpDirectory", SERVER, PATH, "server", "core_dump_dir", "Directory the dispatcher changes to before it dumps core",
        default="ServerRoot"),
    one("GracefulShutdownTimeout", SERVER, time_ms(0, 86_400_000), "server", "graceful_shutdown_timeout_ms",
        "How long a graceful stop waits for requests; 0 = for ever", default="0"),
    one("ThreadStackSize", SERVER, number(0, 1 << 30, "bytes, 0 = the system's", "bytes"), "server", "thread_stack_bytes",
        "Stack of each worker thread", default="0"),
    one("MaxMemFree", SERVER, number(0, 1 << 22, "KiB, 0 = no bound", "KBytes"), "server", "max_mem_free_kb",
        "Free memory that a child keeps before it gives some back", default="2048"),
    one("EnableExceptionHook", SERVER, FLAG, "server", "exception_hook", "Run a hook when a child crashes", default="Off"),
    custom("AcceptMutex", SERVER, "|".join(ACCEPT_MUTEXES), (1, 1), _parse_accept_mutex, "server", "accept_mutex",
           "How unassigned children take turns in accepting; default needs no lock", default="default"),
    one("LockFile", SERVER, PATH, "server", "lock_file", "File that AcceptMutex flock and fcntl lock", default="accept.lock in DefaultRuntimeDir"),
    custom("LoadModule", SERVER, "name [file]", (1, 2), _parse_load_module, "server", "load_module",
           "Answered, nothing is loaded: an MPM's name chooses the MPM, other names are known or warned about",
           store="append", is_located=True),
    custom("NameVirtualHost", SERVER, "address[:port]", (1, 1), _parse_name_virtual_host, "server", "",
           "Without effect, as in httpd 2.4", store="ignore"),
    custom("ErrorLogFormat", SERVER | HOST, "json|default", (1, MANY), _parse_error_log_format, "server", "error_log_json",
           "Shape of the lines of the error log", default="default"),
    one("TypesConfig", SERVER, PATH, "server", "types_config", "File that maps extensions to media types", default="/etc/mime.types",
        is_located=True),
    one("ServerTokens", SERVER, choice({word.lower(): word.lower() for word in _TOKENS}, "|".join(_TOKENS)), "server", "server_tokens",
        "How much the Server field tells", default="Full"),
    one("MPM", SERVER, choice({name: name for name in ("perchild", "worker", "event", "prefork")}), "server", "mpm",
        "How the unassigned children scale; assigned children always scale as perchild does", default="perchild",
        store="append", is_located=True),
    one("AcceptScope", SERVER, choice({"any": "any", "unassigned": "unassigned"}), "server", "accept_scope",
        "Which children accept connections: every one, or only those under User", default="any"),
    custom("ChildPerUserID", SERVER, "user group child_id", (3, 3), _parse_user_group, "server", "child_per_user_id",
           "Child number child_id (1..NumServers) runs as user and group for good; repeat it for more children of one identity",
           store="append", is_located=True),
    custom("LimitUIDRange", SERVER, "min max", (2, 2), _parse_id_range, "server", "uid_range",
           "Uids that AssignUserID and ChildPerUserID may name", default=f"1 {MAX_ID}", range=f"1..{MAX_ID}"),
    custom("LimitGIDRange", SERVER, "min max", (2, 2), _parse_id_range, "server", "gid_range",
           "Gids that AssignUserID and ChildPerUserID may name", default=f"1 {MAX_ID}", range=f"1..{MAX_ID}"),
    one("IdleTimeout", SERVER, time_ms(0, 86_400_000), "server", "idle_timeout_ms",
        "How long a child that was forked on demand stays without a connection; 0 = for ever", default="300"),
    one("NumServers", SERVER, _count(1, MAX_SERVERS), "server", "num_servers",
        "perchild: number of children, assigned by ChildPerUserID or not", default="5"),
    one("StartThreads", SERVER, _count(1, MAX_THREADS), "server", "start_threads", "perchild: threads a child begins with", default="5"),
    one("MinSpareThreads", SERVER, _SPARE, "server", "min_spare_threads",
        "Fewest idle threads; perchild: of each child, worker: of all", default="5, worker: 75"),
    one("MaxSpareThreads", SERVER, _SPARE, "server", "max_spare_threads",
        "Most idle threads; perchild: of each child, worker: of all", default="10, worker: 250"),
    one("MaxThreadsPerChild", SERVER, _count(1, MAX_THREADS), "server", "max_threads_per_child", "perchild: most threads of a child",
        default="ThreadLimit"),
    one("ThreadLimit", SERVER, _count(1, MAX_THREADS), "server", "thread_limit",
        "Bound of MaxThreadsPerChild and ThreadsPerChild", default="64"),
    one("ServerLimit", SERVER, _count(1, MAX_SERVERS), "server", "server_limit", "Bound of the number of children",
        default="perchild: NumServers, at least 8; worker: 16; prefork: 256"),
    one("StartServers", SERVER, _count(1, MAX_SERVERS), "server", "start_servers", "worker, prefork: children at the start",
        default="worker: 3, prefork: 5"),
    one("MinSpareServers", SERVER, _count(1, MAX_SERVERS), "server", "min_spare_servers", "prefork: fewest idle children", default="5"),
    one("MaxSpareServers", SERVER, _count(1, MAX_SERVERS), "server", "max_spare_servers", "prefork: most idle children", default="10"),
    *(one(name, SERVER, _count(1, MAX_WORKERS), "server", "max_request_workers", doc, default="worker: 400, prefork: 256")
      for name, doc in (("MaxRequestWorkers", "worker, prefork: most requests at a time"), ("MaxClients", "Old name of MaxRequestWorkers"))),
    one("ThreadsPerChild", SERVER, _count(1, MAX_THREADS), "server", "threads_per_child", "worker: threads of each child", default="25"),
    *(one(name, SERVER, _REQUESTS, "server", "max_connections", doc, default="0")
      for name, doc in (("MaxConnectionsPerChild", "Connections after which a child is replaced; 0 = never"),
                        ("MaxRequestsPerChild", "Old name of MaxConnectionsPerChild"))),
)

# Read while the text is read (tree.py); here for the documentation, the contexts and the nearest-name search.
READ_ROWS: tuple[tuple[str, str, str], ...] = (
    ("Include", "path|directory|wildcard", "Read other files in this place; it is an error if there is none"),
    ("IncludeOptional", "path|directory|wildcard", "The same; it is no error if there is none"),
    ("Define", "name [value]", "Give ${name} a value, and make <IfDefine name> true"),
    ("UnDefine", "name", "Forget a Define"),
    ("<IfDefine>", "[!]name", "Read what is inside only if the name is defined (Define or -D)"),
    ("<IfModule>", "[!]name", "Read what is inside only if the module is provided"),
    ("<IfVersion>", "[[!]operator] version", "Read what is inside only if httpd's version, whose language this is, compares so"),
    ("<IfFile>", "[!]path", "Read what is inside only if the file exists"),
)

DEFAULTS: dict[str, Any] = {
    "listen": (), "listen_backlog": 511, "send_buffer_bytes": 0, "receive_buffer_bytes": 0, "graceful_shutdown_timeout_ms": 0,
    "thread_stack_bytes": 0, "max_mem_free_kb": 2048, "exception_hook": False, "accept_mutex": "default", "score_board_file": "",
    "load_module": (), "mpm": (), "error_log_json": False, "server_tokens": "full", "accept_scope": "any", "child_per_user_id": (),
    "uid_range": (1, MAX_ID), "gid_range": (1, MAX_ID), "idle_timeout_ms": 300_000, "runner_idle_s": 300, "num_servers": 5, "start_threads": 5,
    "thread_limit": 64, "max_connections": 0,
}
