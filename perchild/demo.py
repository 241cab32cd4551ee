"""`perchildd demo`: three tenants, one port, and tables that say under whom each of them was served, and its programs run.

Makes sites in a temporary directory, writes a configuration, starts the server on it, asks each site /whoami and each of its
programs (demo_programs), prints the answers and waits for ctrl-C. Whatever ends it (the last site answered with --once, ctrl-C,
TERM, an error), the server is ended and all that was made is removed.
Started by another user than root it makes a user namespace, in which it may use the uids that /etc/subuid gives to that user;
where there are none, everything runs under the caller's one uid. It says which.
Runs as: root, or any user; the server it starts drops privileges itself.  Before: cli.  After: the dispatcher, as a process.
"""

from __future__ import annotations

import argparse
import grp
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perchild.demo_page import render_index
from perchild.demo_programs import Program, ProgramError, make_program, split_programs, uid_of

TENANTS = ("alice", "bob", "carol")
ADDRESS = "127.0.0.1"
FIRST_ID = 40_001
_LAST_ID = 59_999  # Debian policy 9.2: 60000 and above have other uses
_INSIDE = "PERCHILDD_DEMO_INSIDE"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05
_LOG_TAIL_BYTES = 4000


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Site:
    """One tenant: name, host name, home with document root and logs, and the ids its files and its processes have."""

    name: str
    host: str
    home: Path
    uid: int
    gid: int

    @property
    def root(self) -> Path:
        """Its document root."""
        return self.home / "public_html"

    @property
    def logs(self) -> Path:
        """Where its logs are: its own, so its own process opens them."""
        return self.home / "logs"


@dataclass(frozen=True, slots=True)
class Mode:
    """How far tenants are apart here, and the sentence that says so."""

    is_apart: bool
    sentence: str


def pick_ids(count: int, first: int = FIRST_ID) -> list[int]:
    """Return `count` numbers from `first` on that are neither a user's nor a group's.

    Raises:
        DemoError: there are not so many below 60000.
    """
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    free = [number for number in range(first, _LAST_ID + 1) if number not in taken][:count]
    if len(free) < count:
        message = f"no {count} free uids between {first} and {_LAST_ID}"
        raise DemoError(message)
    return free


def main(argv: Sequence[str]) -> int:
    """Run the demo with `argv` (without the word demo); return the exit status."""
    options = _parse(argv)
    try:
        return _enter_namespace(argv) if os.geteuid() != 0 and _INSIDE not in os.environ else _run(options, _mode())
    except DemoError as error:
        print(f"perchildd demo: {error}", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="perchildd demo", description="Three tenants of three uids, served through one port.")
    parser.add_argument("--once", action="store_true", help="end when the tables are printed; status 1 if a program did not run")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    return parser.parse_args(argv)


# --- who we may be -------------------------------------------------------------------------------------------------------


def _mode() -> Mode:
    inside = os.environ.get(_INSIDE, "")
    if os.geteuid() == 0:
        if inside:
            return Mode(is_apart=True, sentence="In a user namespace: three uids out of those that /etc/subuid gives you.")
        return Mode(is_apart=True, sentence="As root: three uids that no user of this machine has.")
    return Mode(is_apart=False, sentence=f"Everything runs under your one uid {os.geteuid()}, for {inside or 'no namespace can be made'}.\n"
                "Run it with sudo to see three uids.")


def _enter_namespace(argv: Sequence[str]) -> int:
    reason = _why_no_namespace()
    environment = {**os.environ, _INSIDE: reason or "namespace", "PYTHONPATH": _package_path()}
    again = [sys.executable, "-m", "perchild", "demo", *argv]
    prefix = [] if reason else ["unshare", "--user", "--map-root-user", "--map-auto"]
    sys.stdout.flush()
    os.execvpe((prefix + again)[0], prefix + again, environment)  # noqa: S606 (no shell is wanted)


def _why_no_namespace() -> str:
    """Return why this user cannot have a namespace with uids enough, '' if it can."""
    for tool in ("unshare", "newuidmap", "newgidmap"):
        if shutil.which(tool) is None:
            return f"there is no {tool} (package {'util-linux' if tool == 'unshare' else 'uidmap'})"
    probe = "import sys; a=sum(int(l.split()[2]) for l in open('/proc/self/uid_map')); sys.exit(a <= int(sys.argv[1]))"
    command = ["unshare", "--user", "--map-root-user", "--map-auto", sys.executable, "-I", "-c", probe, str(FIRST_ID + len(TENANTS))]
    status, said = _try(command)
    if status == 0:
        return ""
    return f"no user namespace with enough uids can be made ({said or 'too few in /etc/subuid'})"


def _try(command: Sequence[str]) -> tuple[int, str]:
    """Run `command` and return its status and the last line of its stderr.

    What it forked is ended with it: where namespaces are refused, unshare leaves a helper that waits for ever.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
        _kill_group(process)
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    return process.returncode, lines[-1] if lines else ""


def _package_path() -> str:
    return str(Path(__file__).resolve().parents[1])


# --- what is made --------------------------------------------------------------------------------------------------------


def make_sites(base: Path, mode: Mode, programs: Sequence[Program]) -> list[Site]:
    """Make the three sites below `base`; their files and programs belong to them, and nobody else may read them."""
    ids = pick_ids(len(TENANTS)) if mode.is_apart else [os.geteuid()] * len(TENANTS)
    sites = []
    for name, number in zip(TENANTS, ids, strict=True):
        gid = number if mode.is_apart else os.getegid()
        site = Site(name, f"{name}.localhost", base / name, number, gid)
        for directory in (site.home, site.root, site.logs):
            directory.mkdir(mode=0o700)
        index = site.root / "index.html"
        index.write_text(render_index(name, [(program.name, program.path) for program in programs]), encoding="utf-8")
        index.chmod(0o600)
        for path in (index, site.root, site.logs, site.home):
            os.chown(path, site.uid, site.gid)
        for program in programs:
            make_program(program, site.home, site.uid, site.gid)
        sites.append(site)
    return sites


def write_configuration(base: Path, port: int, sites: Sequence[Site], mode: Mode, programs: Sequence[Program]) -> Path:
    """Write perchildd.conf for `sites` and their `programs` into `base` and return its path."""
    who = "User www-data\nGroup www-data\n" if mode.is_apart else ""
    head = f"""\
ServerRoot "{base}"
DefaultRuntimeDir "{base}/run"
PidFile "{base}/perchildd.pid"
ErrorLog {"/dev/stderr" if mode.is_apart else base / "error.log"}
Listen {ADDRESS}:{port}
ServerName localhost
{who}AcceptScope unassigned
AddType text/html .html
AddDefaultCharset utf-8
<Location "/whoami">
    SetHandler whoami
</Location>
"""
    hosts = "".join(_host_section(site, port, mode, programs) for site in sites)
    path = base / "perchildd.conf"
    path.write_text(head + hosts, encoding="utf-8")
    return path


def _host_section(site: Site, port: int, mode: Mode, programs: Sequence[Program]) -> str:
    directives = "".join(program.directives.format(home=site.home) for program in programs)
    assign = f"    AssignUserID #{site.uid} #{site.gid}\n" if mode.is_apart else ""
    return f"""\
<VirtualHost {ADDRESS}:{port}>
    ServerName {site.host}
    DocumentRoot "{site.root}"
{assign}    CustomLog "{site.logs}/access.log" combined
    ErrorLog "{site.logs}/error.log"
    <Directory "{site.root}">
        DirectoryIndex index.html
        Require all granted
    </Directory>
{directives}</VirtualHost>
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _temporary(prefix: str) -> Iterator[Path]:
    """Give a directory that everybody may pass through and only we may list; remove it with all that is in it."""
    base = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        base.chmod(0o711)
        yield base
    finally:
        shutil.rmtree(base)


# --- the server ----------------------------------------------------------------------------------------------------------


@contextmanager
def _server(conf: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run perchildd in the foreground on `conf`; end it at the end, whatever happened."""
    environment = {**os.environ, "PYTHONPATH": _package_path()}
    command = [sys.executable, "-m", "perchild", "-f", str(conf), "-D", "FOREGROUND"]
    with (conf.parent / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                   start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for(process: subprocess.Popen[bytes], base: Path, port: int, site: Site) -> None:
    """Wait until `site` answers; DemoError with the server's own words if it ends or stays silent."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            message = f"the server ended with status {process.returncode}:\n{_said(base)}"
            raise DemoError(message)
        with suppress(OSError, http.client.HTTPException, DemoError):
            ask(port, site)
            return
        time.sleep(_POLL_S)
    message = f"the server did not answer within {_START_TIMEOUT_S:.0f} s:\n{_said(base)}"
    raise DemoError(message)


def _said(base: Path) -> str:
    texts = [path.read_text(errors="replace")[-_LOG_TAIL_BYTES:].strip() for path in (base / "said", base / "error.log") if path.exists()]
    return "\n".join(text for text in texts if text)


def ask(port: int, site: Site) -> dict[str, Any]:
    """Ask `site` who serves it, on a connection of its own, and return what its process says.

    Raises:
        DemoError: the answer is none of whoami's.
    """
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
    try:
        connection.request("GET", "/whoami", headers={"Host": f"{site.host}:{port}", "Accept": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            message = f"{site.host} answered {answer.status} to /whoami"
            raise DemoError(message)
        said = json.loads(body)
    except json.JSONDecodeError as error:
        message = f"{site.host} answered no JSON to /whoami"
        raise DemoError(message) from error
    finally:
        connection.close()
    if not isinstance(said, dict):
        message = f"{site.host} answered no JSON object to /whoami"
        raise DemoError(message)
    return said


# --- what is shown -------------------------------------------------------------------------------------------------------


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Return `rows` (the first is the head) as aligned plain text, a line under the head; columns of numbers to the right."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    aligned = [str.rjust if all(map(_is_figure, column[1:])) else str.ljust for column in columns]
    lines = ["  ".join(align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _is_figure(cell: str) -> bool:
    return cell == "" or cell[0].isdigit()


def _rows(port: int, sites: Sequence[Site]) -> list[list[str]]:
    rows = [["address", "uid", "pid", "connection", "file owner"]]
    for site in sites:
        said = ask(port, site)
        owner = (site.root / "index.html").stat().st_uid
        rows.append([f"http://{site.host}:{port}/", str(said.get("uid")), str(said.get("pid")), str(said.get("came")), f"uid {owner}"])
    return rows


def _run(options: argparse.Namespace, mode: Mode) -> int:
    restore = _signals_as_exceptions()
    try:
        with _temporary("perchildd-demo-") as base:
            port = options.port or _free_port()
            programs, left_out = split_programs()
            sites = make_sites(base, mode, programs)
            conf = write_configuration(base, port, sites, mode, programs)
            with _server(conf) as process:
                _wait_for(process, base, port, sites[0])
                print(f"{mode.sentence}\n\n{render_table(_rows(port, sites))}\n", flush=True)
                all_ran = _show_programs(port, sites, programs, left_out)
                _show_ways(port, sites, conf)
                return int(not all_ran) if options.once else _stay(process, base)
    except KeyboardInterrupt:
        print("\nEnded; all of it is removed.")
        return 0
    finally:
        restore()


def _ask_programs(port: int, site: Site, programs: Sequence[Program]) -> list[list[str]]:
    """Ask each program of `site` and return its row: address, uid or what went wrong, kind."""
    rows = []
    for program in programs:
        try:
            said = uid_of(program, port, site.host)
        except ProgramError as error:
            said = str(error)
        rows.append([f"http://{site.host}:{port}{program.path}", said, program.name])
    return rows


def _show_programs(port: int, sites: Sequence[Site], programs: Sequence[Program], left_out: Sequence[Program]) -> bool:
    """Print who runs each program, and what is left out; return whether all of them answered."""
    with ThreadPoolExecutor(len(sites)) as asking:
        rows = dict(zip(sites, asking.map(lambda site: _ask_programs(port, site, programs), sites), strict=True))
    if programs:
        print(f"{render_table([['program', 'uid', 'kind'], *(row for some in rows.values() for row in some)])}\n")
    if left_out:
        print("".join(f"Left out: {program.name}. It needs: apt-get install {program.package}\n" for program in left_out))
    failed = [site for site, some in rows.items() if not all(said.isdigit() for _, said, _ in some)]
    for site in failed:
        print(f"{site.host}'s error log says:\n{(site.logs / 'error.log').read_text(errors='replace')[-_LOG_TAIL_BYTES:]}")
    return not failed


def _show_ways(port: int, sites: Sequence[Site], conf: Path) -> None:
    print("Open an address in a browser; each page shows who served it. Without a browser:")
    print(f"    curl http://{sites[0].host}:{port}/whoami")
    print(f"The configuration is {conf}", flush=True)


def _stay(process: subprocess.Popen[bytes], base: Path) -> int:
    print("Ctrl-C ends it and removes everything.", flush=True)
    status = process.wait()
    message = f"the server ended with status {status}:\n{_said(base)}"
    raise DemoError(message)


def _signals_as_exceptions() -> Callable[[], None]:
    """Make TERM and HUP raise KeyboardInterrupt, so that every end takes the same way out; return what undoes it."""

    def interrupt(_number: int, _frame: object) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough: the second must not cut the cleaning short
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore
