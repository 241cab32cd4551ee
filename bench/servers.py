"""The servers: their configurations for files, written for one run, and starting and stopping them and what runs beside them.

Each is tuned as its own manual says, and what was chosen is said in `choices`, which the report prints. All log every
request, keep connections without bound, listen with the same backlog and send files by sendfile.
Runs as: root; the servers drop their privileges themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import load, procfs
from bench.tenants import Tenant

PROJECT = Path(__file__).resolve().parents[1]
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
PORTS = {"perchildd": 8101, "nginx": 8102, "event": 8103, "itk": 8104, "nginx-cached": 8105}
BACKLOG = 4096
KEEP_S = 600
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_PAUSE_S = 0.01

Write = Callable[[Path, int, Sequence[Tenant]], str]


@dataclass(frozen=True, slots=True)
class Spec:
    """One server: key, name for people, whether tenants are apart, choices made, and how to write and start it."""

    key: str
    label: str
    isolation: bool
    choices: str
    write: Write
    command: Callable[[Path], list[str]]
    can_hold: bool = True


@dataclass(frozen=True, slots=True)
class Beside:
    """A process that a server needs beside it: name, command, its sockets (a path, or a port), whether its CPU time is the server's."""

    name: str
    command: tuple[str, ...]
    sockets: tuple[Path | int, ...]
    is_part: bool


def environ_as_installed() -> dict[str, str]:
    """Return the environment in which Python finds our modules compiled, as Debian's packages leave them behind; they are, if need be."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(PROJECT / "build" / "pycache")
    if not _is_compiled:
        subprocess.run([PYTHON, "-m", "compileall", "-q", "perchild"], cwd=PROJECT, env=environ, check=True)
        _is_compiled.append(True)
    return environ


_is_compiled: list[bool] = []


def perchildd_head(run: Path, port: int) -> str:
    """Return what every perchildd configuration here begins with; run is its private directory."""
    return f"""\
ServerRoot "{run}"
DefaultRuntimeDir "{run}/run"
PidFile "{run}/pid"
ErrorLog "{run}/error.log"
LogLevel warn
Listen {load.ADDRESS}:{port}
ListenBacklog {BACKLOG}
ServerName bench.test
User www-data
Group www-data
MPM perchild
NumServers {os.cpu_count() or 1}
AcceptScope unassigned
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout {KEEP_S}
Timeout 60
AddType text/html .html
<Directory "/">
    AllowOverride None
    Options FollowSymLinks
    Require all granted
</Directory>
"""


def host_section(tenant: Tenant, port: int, log: Path, *, is_assigned: bool, inside: str = "") -> str:
    """Return the <VirtualHost> of one tenant in httpd's language; {tenant.NAME} and {run} in `inside` are filled in."""
    assign = f"    AssignUserID #{tenant.uid} #{tenant.uid}\n" if is_assigned else ""
    return (f'<VirtualHost {load.ADDRESS}:{port}>\n    ServerName {tenant.host}\n    DocumentRoot "{tenant.root}"\n{assign}'
            f'    CustomLog "{log}" combined\n{inside.format(tenant=tenant, run=log.parent)}</VirtualHost>\n')


def _hosts(run: Path, port: int, tenants: Sequence[Tenant], inside: str, *, is_assigned: bool) -> str:
    return "".join(host_section(tenant, port, run / f"{tenant.host}.log", is_assigned=is_assigned, inside=inside) for tenant in tenants)


def _write_perchildd(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    return perchildd_text(run, port, tenants, "")


def perchildd_text(run: Path, port: int, tenants: Sequence[Tenant], inside: str) -> str:
    """Return a configuration whose children stay, with `inside` in each host."""
    return perchildd_head(run, port) + "IdleTimeout 0\n" + _hosts(run, port, tenants, inside, is_assigned=True)


_FILE_CACHE = """\
  open_file_cache max=1000 inactive=20s;
  open_file_cache_valid 30s;
  open_file_cache_min_uses 2;
  open_file_cache_errors on;
"""


def _write_nginx(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    return nginx_text(run, port, tenants)


def _write_nginx_cached(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    return nginx_text(run, port, tenants, _FILE_CACHE)


def nginx_text(run: Path, port: int, tenants: Sequence[Tenant], more: str = "", inside: str = "") -> str:
    """Return nginx's configuration with `more` in http and `inside`, filled in as in host_section, in each server; braces in it are doubled."""
    servers = "".join(
        f"  server {{ listen {load.ADDRESS}:{port}{f' backlog={BACKLOG}' if tenant.number == 1 else ''}; "
        f'server_name {tenant.host}; root "{tenant.root}"; access_log "{run}/{tenant.host}.log" combined buffer=4k flush=1s; '
        f"{inside.format(tenant=tenant, run=run)}}}\n"
        for tenant in tenants)
    temporary = "".join(f'  {name}_temp_path "{run}/{name}";\n' for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""\
user www-data;
worker_processes auto;
worker_rlimit_nofile 20000;
pid "{run}/pid";
error_log "{run}/error.log" warn;
events {{ worker_connections 16384; }}
http {{
  types {{ text/html html; }}
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout {KEEP_S}s;
  keepalive_requests 1000000000;
{more}{temporary}{servers}}}
"""


_HTTPD_HEAD = """\
ServerRoot "{run}"
DefaultRuntimeDir "{run}"
PidFile "{run}/pid"
ErrorLog "{run}/error.log"
LogLevel warn
{modules}
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
TypesConfig /etc/mime.types
Listen {address}:{port}
ListenBacklog {backlog}
ServerName bench.test
User www-data
Group www-data
{scale}
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout {keep}
Timeout 60
EnableSendfile On
BufferedLogs On
HostnameLookups Off
LogFormat "%h %l %u %t \\"%r\\" %>s %b \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
<Directory "/">
    AllowOverride None
    Options FollowSymLinks
    Require all granted
</Directory>
"""
_EVENT_SCALE = """\
ServerLimit 8
StartServers 2
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 1024
MinSpareThreads 128
MaxSpareThreads 1024
AsyncRequestWorkerFactor 24"""
_ITK_SCALE = """\
ServerLimit 1024
MaxRequestWorkers 1024
StartServers 20
MinSpareServers 20
MaxSpareServers 100"""
_MODULES = "/usr/lib/apache2/modules"


def _httpd_head(run: Path, port: int, modules: Sequence[str], scale: str) -> str:
    lines = "\n".join(f"LoadModule {name} {_MODULES}/{file}" for name, file in (word.split() for word in modules))
    return _HTTPD_HEAD.format(run=run, port=port, address=load.ADDRESS, backlog=BACKLOG, keep=KEEP_S, modules=lines, scale=scale)


def event_text(run: Path, port: int, tenants: Sequence[Tenant], modules: Sequence[str] = (), inside: str = "") -> str:
    """Return httpd event's configuration with further modules ("name file") and `inside` in each host."""
    head = _httpd_head(run, port, ("mpm_event_module mod_mpm_event.so", *modules), _EVENT_SCALE)
    return head + _hosts(run, port, tenants, inside, is_assigned=False)


def itk_text(run: Path, port: int, tenants: Sequence[Tenant], modules: Sequence[str] = (), inside: str = "") -> str:
    """Return mpm-itk's configuration with further modules ("name file") and `inside` in each host."""
    needed = ("mpm_prefork_module mod_mpm_prefork.so", "mpm_itk_module mpm_itk.so", *modules)
    return _httpd_head(run, port, needed, _ITK_SCALE) + _hosts(run, port, tenants, inside, is_assigned=True)


def _perchildd_command(conf: Path) -> list[str]:
    return [PYTHON, "-m", "perchild", "-f", str(conf), "-D", "FOREGROUND"]


def nginx_command(conf: Path) -> list[str]:
    """Return the command of an nginx that stays in the foreground."""
    return ["nginx", "-c", str(conf), "-e", str(conf.parent / "error.log"), "-g", "daemon off;"]


def _httpd_command(conf: Path) -> list[str]:
    return ["apache2", "-d", str(conf.parent), "-f", str(conf), "-D", "FOREGROUND"]


SPECS: tuple[Spec, ...] = (
    Spec("perchildd", "perchildd", True,
         "AcceptScope unassigned (as shipped), one accepting child per processor, tenants' children on demand; no file cache",
         _write_perchildd, _perchildd_command),
    Spec("nginx", "nginx", False,
         "worker_processes auto, sendfile, tcp_nopush, access_log buffer=4k, as its manual says for static files; each request opens "
         "its file, as in all the others (open_file_cache is off by default)",
         _write_nginx, nginx_command),
    Spec("event", "httpd event", False,
         "MaxRequestWorkers 1024, AsyncRequestWorkerFactor 24 (10,000 idle connections need it), EnableSendfile, BufferedLogs, "
         "AllowOverride None and FollowSymLinks as its performance page says",
         event_text, _httpd_command),
    Spec("itk", "httpd mpm-itk", True,
         "MaxRequestWorkers 1024, 20 to 100 spare processes, otherwise as event",
         itk_text, _httpd_command, can_hold=False),
    Spec("nginx-cached", "nginx, files cached", False,
         "as nginx, with the open_file_cache of its manual's example: quickest, and it answers from descriptors up to 30 s old",
         _write_nginx_cached, nginx_command),
)
BY_DEFAULT = ("perchildd", "nginx", "nginx-cached", "event", "itk")


class _Started:
    """One process with what it says on its terminal, and the end of it and all its descendants."""

    def __init__(self, name: str, command: Sequence[str], said: Path) -> None:
        self.name, self.command = name, command
        self._said = said.open("wb")
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
                                         start_new_session=True, env=environ_as_installed())

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, is_ready: Callable[[], bool]) -> str:
        """Return "" when `is_ready`, else what went wrong: it ended, or was not ready in time."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if is_ready():
                return ""
            time.sleep(_PAUSE_S)
        problem = "did not answer in time" if self._process.poll() is None else f"ended with {self._process.returncode}"
        return f"{self.name} {problem} ({' '.join(self.command)})"

    def stop(self) -> None:
        """End it and all its processes: TERM first, after a while KILL, and then say so."""
        handles = [handle for process in procfs.tree(self.pid) if (handle := _handle_of(process.pid)) is not None]
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"bench: {self.name} did not end within {_STOP_TIMEOUT_S:.0f} s of TERM; killing it", file=sys.stderr)
            self._process.kill()
            self._process.wait()
        finally:
            for handle in handles:
                _kill(handle)
            self._said.close()


class Running:
    """One started server: its configuration's directory, its port, its first process and those beside it."""

    def __init__(self, spec: Spec, run: Path, tenants: Sequence[Tenant], text: str | None = None, beside: Sequence[Beside] = ()) -> None:
        """Write the configuration (`text` in place of the spec's own), start what is beside the server and it, wait for its first right answer.

        Raises:
            RuntimeError: one of them ended, or did not answer in time; what it said is in the message.
        """
        self.spec, self.run, self.port = spec, run, PORTS[spec.key]
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.conf = run / "server.conf"
        self.conf.write_text(text or spec.write(run, self.port, tenants))
        self._started: list[tuple[_Started, bool]] = []
        try:
            for one in beside:
                self._start(one.name, one.command, partial(_do_listen, one.sockets), is_part=one.is_part)
            environ_as_installed()
            start = time.monotonic()
            self.pid = self._start(spec.label, spec.command(self.conf), partial(load.is_right, self.port, tenants[0].host, "/1k.html"))
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - start

    def _start(self, name: str, command: Sequence[str], is_ready: Callable[[], bool], *, is_part: bool = True) -> int:
        started = _Started(name, command, self.run / f"said-{len(self._started)}")
        self._started.append((started, is_part))
        problem = started.wait(is_ready)
        if problem:
            raise RuntimeError(f"{problem}:\n{self.said()}")
        return started.pid

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the server has used, and those beside it that are part of what it does."""
        return sum(procfs.cpu_seconds(started.pid) for started, is_part in self._started if is_part)

    def said(self) -> str:
        """Return the last of what was written on terminals and in error logs."""
        paths = (*sorted(self.run.glob("said-*")), *sorted(self.run.glob("*error.log")))
        return "\n".join(text for path in paths if (text := path.read_text(errors="replace")[-3000:]))

    def check(self, tenants: Sequence[Tenant], path: str) -> None:
        """Ask every tenant's host once, which also wakes every child; RuntimeError if one answers wrongly."""
        wrong = [tenant.host for tenant in tenants if not load.is_right(self.port, tenant.host, path)]
        if wrong:
            raise RuntimeError(f"{self.spec.label}: wrong answers for {path} of {', '.join(wrong[:5])}:\n{self.said()}")

    def stop(self) -> None:
        """End the server, then what is beside it."""
        while self._started:
            self._started.pop()[0].stop()


def _do_listen(sockets: Sequence[Path | int]) -> bool:
    return all(map(_does_listen, sockets))


def _does_listen(where: Path | int) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET) as one:
        return not one.connect_ex(str(where) if isinstance(where, Path) else (load.ADDRESS, where))


def _handle_of(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _kill(handle: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)


def spec_of(key: str) -> Spec:
    """Return the server called `key`; KeyError if there is none."""
    return {spec.key: spec for spec in SPECS}[key]
