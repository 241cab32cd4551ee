"""The works with programs: what each tenant is given, and how each server that can runs PHP, CGI and proxies, as its manual says.

A way is a configuration of its own: the servers that serve files load no module for programs. PHP is the same everywhere: pools
of as many workers, on demand, of one process per tenant's uid; the process manager of nginx's and httpd's pools is Debian's
php-fpm, one master that the bench starts, and mpm-itk has mod_php.
Runs as: root; the servers and php-fpm drop their privileges themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import ADDRESS
from bench.servers import BACKLOG, Beside, Write, event_text, itk_text, nginx_command, nginx_text, perchildd_text
from bench.tenants import Tenant
from bench.tls import event_tls, nginx_tls, perchildd_tls
from perchild.runner.commands import PHP_REQUESTS, PHP_WORKER_IDLE_S, find_php

FILES, PHP, CGI, PROXY, TLS = "files", "php", "cgi", "proxy", "tls"
PHP_PATH, CGI_PATH = "/hello.php", "/cgi-bin/hello"
PHP_CHILDREN = 8  # of each tenant's pool: 20 x 8 is more than the 100 connections of any work
BACK_PORT = 8109
_OLD_S = 60  # opcache keeps no script that is younger than 2 s
_MANY = 1_000_000_000
_KEPT = 64  # connections that each of nginx's processes keeps to the back end
# And to each pool. In all half the pool's workers: an idle connection holds a worker that the other processes of nginx then
# wait for (with as many as there are workers: p99 of 2 s), and with none kept it does fewer requests/s.
_KEPT_TO_PHP = max(1, PHP_CHILDREN // 2 // (os.cpu_count() or 1))


def no_beside(_run: Path, _tenants: Sequence[Tenant]) -> tuple[Beside, ...]:
    """Say that nothing runs beside the server."""
    return ()


@dataclass(frozen=True, slots=True)
class Way:
    """How one server does one group of works: choices made, its configuration, and what is started beside it."""

    choices: str
    write: Write
    beside: Callable[[Path, Sequence[Tenant]], tuple[Beside, ...]] = no_beside


# --- what a tenant is given --------------------------------------------------------------------------------------------------


def add_programs(tenants: Sequence[Tenant]) -> None:
    """Give each tenant a hello world in PHP and one as CGI; each says the host's name first, so that an answer shows whose it is."""
    for tenant in tenants:
        php = _write(tenant, PHP_PATH, f'<?php echo "{tenant.host}\\nHello, world\\n";\n', 0o644)
        then = php.stat().st_mtime - _OLD_S
        os.utime(php, (then, then))
        _write(tenant, CGI_PATH, f"#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n{tenant.host}\\nHello, world\\n'\n", 0o755)


def _write(tenant: Tenant, path: str, text: str, mode: int) -> Path:
    file = tenant.root / path[1:]
    if not file.parent.exists():
        file.parent.mkdir(mode=0o755)
        os.chown(file.parent, tenant.uid, tenant.uid)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    os.chown(file, tenant.uid, tenant.uid)
    return file


# --- PHP ---------------------------------------------------------------------------------------------------------------------


def pools_text(run: Path, tenants: Sequence[Tenant]) -> str:
    """Return a php-fpm.conf with a pool per tenant, each on a socket that the web server's user may open."""
    head = f"[global]\nerror_log = {run}/fpm-error.log\ndaemonize = no\nlog_level = warning\n"
    return head + "".join(f"""\

[t{tenant.number}]
user = {tenant.uid}
group = {tenant.uid}
listen = {_socket(run, tenant)}
listen.owner = www-data
listen.group = www-data
listen.mode = 0600
pm = ondemand
pm.max_children = {PHP_CHILDREN}
pm.process_idle_timeout = {PHP_WORKER_IDLE_S}s
pm.max_requests = {PHP_REQUESTS}
""" for tenant in tenants)


def _socket(run: Path, tenant: Tenant) -> Path:
    return run / f"t{tenant.number}.sock"


def _php_fpm(run: Path, tenants: Sequence[Tenant]) -> tuple[Beside, ...]:
    conf = run / "php-fpm.conf"
    conf.write_text(pools_text(run, tenants))
    command = (find_php(""), "--nodaemonize", "--fpm-config", str(conf))
    return (Beside("php-fpm", command, tuple(_socket(run, tenant) for tenant in tenants), is_part=True),)


def perchildd_php(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return perchildd's configuration with a pool of PHP in each host."""
    return perchildd_text(run, port, tenants, f"    PHPPool on max_children={PHP_CHILDREN}\n")


def nginx_php(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return nginx's configuration with each host's .php files passed to its tenant's pool, by connections that are kept."""
    more = "".join(f"  upstream t{tenant.number} {{ server unix:{_socket(run, tenant)}; keepalive {_KEPT_TO_PHP}; "
                   f"keepalive_requests {_MANY}; }}\n" for tenant in tenants)
    return nginx_text(run, port, tenants, more, "location ~ \\.php$ {{ include /etc/nginx/fastcgi.conf; fastcgi_keep_conn on; "
                                                "fastcgi_pass t{tenant.number}; }} ")


def event_php(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return httpd event's configuration with each host's .php files passed to its tenant's pool."""
    return event_text(run, port, tenants, ("proxy_module mod_proxy.so", "proxy_fcgi_module mod_proxy_fcgi.so"), """\
    <FilesMatch "\\.php$">
        SetHandler "proxy:unix:{run}/t{tenant.number}.sock|fcgi://t{tenant.number}"
    </FilesMatch>
""")


def itk_php(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return mpm-itk's configuration with mod_php of the same version as php-fpm."""
    version = find_php("").rpartition("php-fpm")[2]
    return itk_text(run, port, tenants, (f"php_module libphp{version}.so",), """\
    <FilesMatch "\\.php$">
        SetHandler application/x-httpd-php
    </FilesMatch>
""")


# --- CGI ---------------------------------------------------------------------------------------------------------------------

_SCRIPT_ALIAS = '    ScriptAlias /cgi-bin/ "{tenant.root}/cgi-bin/"\n'


def perchildd_cgi(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return perchildd's configuration with a directory of programs in each host."""
    return perchildd_text(run, port, tenants, _SCRIPT_ALIAS)


def itk_cgi(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return mpm-itk's configuration with a directory of programs in each host."""
    return itk_text(run, port, tenants, ("alias_module mod_alias.so", "cgi_module mod_cgi.so"), _SCRIPT_ALIAS)


# --- proxies -----------------------------------------------------------------------------------------------------------------


def _back_end(run: Path, tenants: Sequence[Tenant]) -> tuple[Beside, ...]:
    back = run / "back"
    back.mkdir(mode=0o755)
    conf = back / "server.conf"
    conf.write_text(nginx_text(back, BACK_PORT, tenants))
    return (Beside("the back end", tuple(nginx_command(conf)), (BACK_PORT,), is_part=False),)


def perchildd_proxy(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return perchildd's configuration that passes all on."""
    return perchildd_text(run, port, tenants, f"    ProxyPass / http://{ADDRESS}:{BACK_PORT}/\n    ProxyPreserveHost On\n")


def nginx_proxy(run: Path, port: int, tenants: Sequence[Tenant]) -> str:
    """Return nginx's configuration that passes all on, by connections that it keeps."""
    more = f"  upstream back {{ server {ADDRESS}:{BACK_PORT}; keepalive {_KEPT}; keepalive_requests {_MANY}; }}\n"
    return nginx_text(run, port, tenants, more, 'location / {{ proxy_pass http://back; proxy_http_version 1.1; '
                                                'proxy_set_header Connection ""; proxy_set_header Host $host; }} ')


# --- who does what -----------------------------------------------------------------------------------------------------------

_POOLS = f"one php-fpm with a pool per tenant (ondemand, {PHP_CHILDREN} workers)"
WAYS: dict[str, dict[str, Way]] = {
    PHP: {
        "perchildd": Way(f"PHPPool on max_children={PHP_CHILDREN}: a php-fpm per tenant, workers on demand", perchildd_php),
        "nginx": Way(f"{_POOLS}; fastcgi_keep_conn, keepalive {_KEPT_TO_PHP} in each process", nginx_php, _php_fpm),
        "event": Way(f"mod_proxy_fcgi to {_POOLS}; a connection to it per request, as shipped", event_php, _php_fpm),
        "itk": Way("mod_php in each process", itk_php),
    },
    CGI: {
        "perchildd": Way("ScriptAlias, a script of /bin/sh", perchildd_cgi),
        "itk": Way("mod_cgi, ScriptAlias, the same script", itk_cgi),
    },
    PROXY: {
        "perchildd": Way(f"ProxyPass to one nginx (its CPU time is not counted; backlog {BACKLOG})", perchildd_proxy, _back_end),
        "nginx": Way(f"proxy_pass to the same; keepalive {_KEPT}, HTTP/1.1", nginx_proxy, _back_end),
    },
    TLS: {
        "perchildd": Way("a certificate per tenant (ECDSA, P-256), its key in that tenant's process alone; Protocols h2 http/1.1", perchildd_tls),
        "nginx": Way("the same certificates and keys, all in one process; http2", nginx_tls),
        "event": Way("the same, mod_ssl and mod_http2", event_tls),
    },
}
GROUPS = (FILES, *WAYS)


def can_run(group: str, key: str) -> bool:
    """Say whether the server `key` does the works of `group`; files are served by all."""
    return group == FILES or key in WAYS[group]
