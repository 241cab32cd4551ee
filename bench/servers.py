"""The four servers: their configurations, written for one run, and starting and stopping them.

Each is tuned as its own manual says, and what was chosen is said in `choices`, which the report prints. All log every
request, keep connections without bound, listen with the same backlog and send files by sendfile.
Runs as: root; the servers drop their privileges themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Spec:
    """One server: key, name for people, whether tenants are apart, choices made, and how to write and start it."""

    key: str
    label: str
    isolation: bool
    choices: str
    write: Callable[[Path, int, Sequence[Tenant]], str]
    command: Callable[[Path], list[str]]
    can_hold: bool = True


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


def host_section(tenant: Tenant, port: int, log: Path, *, is_assigned: bool) -> str:
    """Return the <VirtualHost> of one tenant in httpd's language."""
    assign = f"    AssignUserID #{tenant.uid} #{tenant.uid}\n" if is_assigned else ""
    return (f'<VirtualHost {load.ADDRESS}:{port}>\n    ServerName {tenant.host}\n    DocumentRoot "{tenant.root}"\n{assign}'
            f'    CustomLog "{log}" combined\n</VirtualHost>\n')


def _hosts(run: Path, port: int, tenants: Sequence[Tenant], *, is_assigned: bool) -> str:
    return "".join(host_section(tenant, port, run / f"{tenant.host}.log", is_assigned=is_assigned) for tenant in tenants)


def _write_perchildd(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    return perchildd_head(run, port) + "IdleTimeout 0\n" + _hosts(run, port, tenants, is_assigned=True)


_FILE_CACHE = """\
  open_file_cache max=1000 inactive=20s;
  open_file_cache_valid 30s;
  open_file_cache_min_uses 2;
  open_file_cache_errors on;
"""


def _write_nginx(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    return _nginx_text(run, port, tenants, "")


def _write_nginx_cached(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    return _nginx_text(run, port, tenants, _FILE_CACHE)


def _nginx_text(run: Path, port: int, tenants: Sequence[Tenant], cache: str) -> str:
    servers = "".join(
        f"  server {{ listen {load.ADDRESS}:{port}{f' backlog={BACKLOG}' if tenant.number == 1 else ''}; "
        f'server_name {tenant.host}; root "{tenant.root}"; access_log "{run}/{tenant.host}.log" combined buffer=4k flush=1s; }}\n'
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
{cache}{temporary}{servers}}}
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


def _write_event(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    head = _httpd_head(run, port, ("mpm_event_module mod_mpm_event.so",), _EVENT_SCALE)
    return head + _hosts(run, port, tenants, is_assigned=False)


def _write_itk(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    modules = ("mpm_prefork_module mod_mpm_prefork.so", "mpm_itk_module mpm_itk.so")
    return _httpd_head(run, port, modules, _ITK_SCALE) + _hosts(run, port, tenants, is_assigned=True)


def _perchildd_command(conf: Path) -> list[str]:
    return [PYTHON, "-m", "perchild", "-f", str(conf), "-D", "FOREGROUND"]


def _nginx_command(conf: Path) -> list[str]:
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
         _write_nginx, _nginx_command),
    Spec("event", "httpd event", False,
         "MaxRequestWorkers 1024, AsyncRequestWorkerFactor 24 (10,000 idle connections need it), EnableSendfile, BufferedLogs, "
         "AllowOverride None and FollowSymLinks as its performance page says",
         _write_event, _httpd_command),
    Spec("itk", "httpd mpm-itk", True,
         "MaxRequestWorkers 1024, 20 to 100 spare processes, otherwise as event",
         _write_itk, _httpd_command, can_hold=False),
    Spec("nginx-cached", "nginx, files cached", False,
         "as nginx, with the open_file_cache of its manual's example: quickest, and it answers from descriptors up to 30 s old",
         _write_nginx_cached, _nginx_command),
)
BY_DEFAULT = ("perchildd", "nginx", "nginx-cached", "event", "itk")


class Running:
    """One started server: its configuration's directory, port and first process."""

    def __init__(self, spec: Spec, run: Path, tenants: Sequence[Tenant], text: str | None = None) -> None:
        """Write the configuration (`text` in place of the spec's own), start the server, wait for its first right answer.

        Raises:
            RuntimeError: it ended, or did not answer in time; what it said is in the message.
        """
        self.spec, self.run, self.port = spec, run, PORTS[spec.key]
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.conf = run / "server.conf"
        self.conf.write_text(text or spec.write(run, self.port, tenants))
        self._said = (run / "said").open("wb")
        start = time.monotonic()
        self._process = subprocess.Popen(spec.command(self.conf), cwd=PROJECT, stdin=subprocess.DEVNULL,
                                         stdout=self._said, stderr=self._said, start_new_session=True)
        try:
            self._wait(tenants[0])
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - start

    @property
    def pid(self) -> int:
        """The server's first process."""
        return self._process.pid

    def _wait(self, tenant: Tenant) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if load.is_right(self.port, tenant.host, "/1k.html"):
                return
            time.sleep(0.01)
        problem = "did not answer in time" if self._process.poll() is None else f"ended with {self._process.returncode}"
        raise RuntimeError(f"{self.spec.label} {problem} ({' '.join(self.spec.command(self.conf))}):\n{self.said()}")

    def said(self) -> str:
        """Return the last of what it wrote on its terminal and in its error log."""
        texts = [path.read_text(errors="replace")[-3000:] for path in (self.run / "said", self.run / "error.log") if path.exists()]
        return "\n".join(text for text in texts if text)

    def check(self, tenants: Sequence[Tenant], path: str) -> None:
        """Ask every tenant's host once, which also wakes every child; RuntimeError if one answers wrongly."""
        wrong = [tenant.host for tenant in tenants if not load.is_right(self.port, tenant.host, path)]
        if wrong:
            raise RuntimeError(f"{self.spec.label}: wrong answers for {path} of {', '.join(wrong[:5])}:\n{self.said()}")

    def stop(self) -> None:
        """End the server and all its processes: TERM first, after a while KILL, and then say so."""
        handles = [handle for process in procfs.tree(self.pid) if (handle := _handle_of(process.pid)) is not None]
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"bench: {self.spec.label} did not end within {_STOP_TIMEOUT_S:.0f} s of TERM; killing it", file=sys.stderr)
            self._process.kill()
            self._process.wait()
        finally:
            for handle in handles:
                _kill(handle)
            self._said.close()


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
