"""What is executed for a service of each kind: program, arguments, variables, files of ours.

    php   php-fpm in the foreground, with a configuration of its own; workers on demand; an opcache that nobody else shares
    app   the command as configured; {fd} and {socket} are replaced
    wsgi  wsgi_host.py under the application's interpreter: waitress, one process and some threads
    fcgid the command of a FcgidWrapper, in its own directory, with the variables of FcgidInitialEnv
The listening socket is descriptor 3 (LISTEN_FDS=1) unless the command names {socket} and so binds it itself; of fcgid it is 0
(FCGI_LISTENSOCK_FILENO).
waitress and not gunicorn: one process instead of two or more, no heartbeat (an idle application costs no wake-up), no files,
SCRIPT_NAME by url_prefix, pure Python without dependencies, and a socket that it is given. Both are in Debian.
Runs as: runner.  Source: php-fpm.conf(5), sd_listen_fds(3), waitress's arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perchild.wire.runner import APP, FCGID, PHP, WSGI, RunnerFile, Service

LISTEN_FD, CONFIG_FD = 3, 4
PHP_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin")
PHP_EXTENSIONS = ".php .php3 .php4 .php5 .php7 .php8 .phtml .phar"
PHP_WORKER_IDLE_S = 10  # an idle worker ends after it, or after the service's own time if that is less
PHP_REQUESTS = 500  # of one worker, against leaks in extensions
PYTHON = "/usr/bin/python3"
SHELL = "/bin/sh"
RESTART_FILE = "tmp/restart.txt"  # below the directory that an application starts in (Passenger's)
WSGI_HOST = Path(__file__).with_name("wsgi_host.py").read_bytes()  # read by root: the tenant need not see where we are installed
_PHP_BINARY = re.compile(r"php-fpm(\d+)\.(\d+)\Z")
_INI_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


class CommandError(Exception):
    """A service cannot be started as it is configured; the text names the remedy."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute. stdin: bytes that it reads there, b"" = nothing; binds_itself: the program makes the socket."""

    path: str
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    cwd: str
    stdin: bytes = b""
    config: bytes = b""  # readable at CONFIG_FD, and nobody can change it; b"" = no such descriptor
    binds_itself: bool = False
    end_signal: str = "SIGTERM"  # asks it to finish what it has and end
    is_fastcgi: bool = False  # its socket is descriptor 0, and its file is checked as a CGI program's is
    search_path: str = ""  # PATH; "" = the runner's
    touched: tuple[str, ...] = ()  # files whose change means that it shall start anew


def make_command(service: Service, facts: RunnerFile) -> Command:
    """Return what is executed; CommandError if that is not possible."""
    maker = _MAKERS.get(service.kind)
    if maker is None:
        raise CommandError(f"a service of kind {service.kind} is not known to this version")
    return maker(service, facts)


def _environment(facts: RunnerFile, *more: str) -> tuple[str, ...]:
    home = facts.home
    return (f"HOME={home}", f"USER={facts.user}", f"LOGNAME={facts.user}", "LANG=C.UTF-8", *more)


# ---------------------------------------------------------------- php


def find_php(version: str, directories: tuple[str, ...] = PHP_DIRECTORIES) -> str:
    """Return the path of php-fpm: of that version, or the newest; CommandError names what there is."""
    found: dict[tuple[int, int], str] = {}
    for directory in directories:
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            match = _PHP_BINARY.match(name)
            if match:
                found.setdefault((int(match[1]), int(match[2])), f"{directory}/{name}")
    if not version and found:
        return found[max(found)]
    wanted = tuple(int(part) for part in version.split(".")) if version else ()
    for key, path in found.items():
        if key == wanted:
            return path
    there = ", ".join(f"{one}.{two}" for one, two in sorted(found)) or "none"
    package = f"php{version}-fpm" if version else "php-fpm"
    raise CommandError(f"php-fpm{version} is not installed (there is: {there}): apt-get install {package}")


# Executed by sh: php-fpm, told as perchild.NAME what it says itself of each of these settings where nobody has set them. Arguments: its
# path, how many names, each name and a pattern of sed for it, php-fpm's own arguments. -i shows what On and Off stand for, and
# "no value"; a script sees 1, 0 and nothing.
_PHP_WITH_BASE = r"""
php=$1 count=$2
shift 2
all=$("$php" -i)
while [ "$count" -gt 0 ]; do
    value=$(printf '%s\n' "$all" | sed -n "s/^$2 => .* => //p" | head -n 1)
    case $value in "no value") value= ;; On) value=1 ;; Off) value=0 ;; esac
    case $value in *\'*) quote='"' ;; *) quote="'" ;; esac
    set -- "$@" -d "perchild.$1=$quote$value$quote"
    shift 2
    count=$((count - 1))
done
exec "$php" "$@"
"""


def _make_php(service: Service, facts: RunnerFile) -> Command:
    path = find_php(service.version)
    arguments: tuple[str, ...] = ("--nodaemonize", "--force-stderr", "--fpm-config", f"/proc/self/fd/{CONFIG_FD}")
    if service.changed:
        names = [word for name in service.changed for word in (name, name.replace(".", "[.]"))]
        arguments = ("-c", _PHP_WITH_BASE, "sh", path, str(len(service.changed)), *names, *arguments)
        path = SHELL
    return Command(path, arguments,
                   _environment(facts, f"FPM_SOCKETS={listen_name(service)}={LISTEN_FD}"), facts.home if os.path.isdir(facts.home) else "/",
                   config=render_php(service, facts).encode("utf-8", "surrogateescape"), end_signal="SIGQUIT")


def listen_name(service: Service) -> str:
    """Return what php-fpm's `listen` says: only the name of descriptor 3 in FPM_SOCKETS. It unlinks that path at its end, so it is none."""
    return f"/perchildd/{service.name}"


def render_php(service: Service, facts: RunnerFile) -> str:
    """Return the text of php-fpm.conf; CommandError for a value that no quotes can hold."""
    idle_s = min(PHP_WORKER_IDLE_S, service.idle_s) if service.idle_s else PHP_WORKER_IDLE_S
    lines = [
        "[global]", "error_log = /proc/self/fd/2", "daemonize = no", "log_level = warning", "",
        f"[{service.name}]", f"listen = {listen_name(service)}", "pm = ondemand", f"pm.max_children = {service.max_children}",
        f"pm.process_idle_timeout = {idle_s}s", f"pm.max_requests = {PHP_REQUESTS}", "catch_workers_output = no",
        "decorate_workers_output = no", f"security.limit_extensions = {PHP_EXTENSIONS}", "clear_env = yes",
        f"env[PATH] = {quote_ini(facts.path)}", f"env[HOME] = {quote_ini(facts.home)}", f"env[USER] = {quote_ini(facts.user)}",
    ]
    for directive, name, value in service.values:
        if not _INI_NAME.match(name):
            raise CommandError(f"'{name}' is no name of a PHP setting")
        lines.append(f"{directive}[{name}] = {quote_ini(value)}")
    return "\n".join([*lines, ""])


def quote_ini(value: str) -> str:
    """Return a value in quotes of an ini file, in which it means itself; CommandError if there are none for it."""
    if any(ord(char) < 0x20 for char in value):  # noqa: PLR2004 - control characters
        raise CommandError("a PHP setting's value may not contain control characters")
    if "'" not in value:
        return f"'{value}'"
    if any(char in '"$\\' for char in value):
        raise CommandError(f"a PHP setting's value may not contain ' together with \", $ or \\: {value}")
    return f'"{value}"'


# ---------------------------------------------------------------- app


def _make_app(service: Service, facts: RunnerFile) -> Command:
    words = [word.replace("{fd}", str(LISTEN_FD)).replace("{socket}", service.socket) for word in service.command]
    cwd = service.cwd or facts.home
    path = find_program(words[0], facts.path, cwd)
    return Command(path, tuple(words[1:]), _environment(facts, *(f"{name}={value}" for name, value in service.env)), cwd,
                   binds_itself=any("{socket}" in word for word in service.command), touched=(f"{cwd}/{RESTART_FILE}",))


def find_program(word: str, search_path: str, cwd: str) -> str:
    """Return the path of a command's first word; CommandError if there is no such program."""
    if "/" in word:
        return word if word.startswith("/") else f"{cwd}/{word}"
    for directory in search_path.split(":"):
        path = f"{directory}/{word}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise CommandError(f"there is no program {word} in {search_path}: install it, or name its absolute path in AppServer")


# ---------------------------------------------------------------- wsgi


def _make_wsgi(service: Service, facts: RunnerFile) -> Command:
    python = f"{service.python_home}/bin/python3" if service.python_home else PYTHON
    if not os.access(python, os.X_OK):
        raise CommandError(f"there is no {python}: the virtual environment named by python-home must have it")
    cwd = service.cwd or os.path.dirname(service.file)
    return Command(python, ("-", service.file, service.mount, *service.python_path),
                   _environment(facts, *(f"{name}={value}" for name, value in service.env)), cwd, stdin=WSGI_HOST,
                   touched=(f"{cwd}/{RESTART_FILE}", service.file))


# ---------------------------------------------------------------- fcgid


def _make_fcgid(service: Service, facts: RunnerFile) -> Command:
    path, *arguments = service.command
    variables = dict(service.env)
    search_path = variables.pop("PATH", "")
    inherited = (one for one in _environment(facts) if one.partition("=")[0] not in variables)
    return Command(path, tuple(arguments), (*inherited, *(f"{name}={value}" for name, value in variables.items())), os.path.dirname(path),
                   is_fastcgi=True, search_path=search_path, touched=(path,))


_MAKERS: dict[str, Callable[[Service, RunnerFile], Command]] = {PHP: _make_php, APP: _make_app, WSGI: _make_wsgi, FCGID: _make_fcgid}
