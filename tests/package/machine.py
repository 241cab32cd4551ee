"""A whole Debian, booted: made by debootstrap, run by systemd-nspawn with a network of its own; and the package, built for it.

    ROOTS/SUITE          Debian as debootstrap leaves it, and what its tests need; kept between runs
    ROOTS/SUITE.build    the same with what it takes to build the package; kept between runs
    ROOTS/SUITE.live     the machine under test, a copy that is removed at the end
Packages come from Debian while a root is made, by way of this machine's settings of apt; a booted machine has no network but its loopback.
Runs as: root.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.lab import ROOT, Response, parse_response, read_all
from tests.load import Load
from tests.package.terminal import Terminal

ROOTS = Path(os.environ.get("PERCHILD_ROOTS", ROOT / "build/package"))
MIRROR = "http://deb.debian.org/debian"
TOOLS = ("ca-certificates", "curl", "libpam-modules", "man-db", "procps", "systemd", "systemd-sysv")
# Installed without a network, in the test: what our package depends on, and servers that it shall stand beside.
NEEDED = ("bash-completion", "logrotate", "media-types", "python3-cffi", "python3-pampy", "python3-prometheus-client",
          "python3-rich", "python3-sdnotify", "python3-structlog",
          "libnghttp2-14", "libpcre2-8-0", "libseccomp2", "openssl", "apache2", "nginx", "zsh", "certbot", "pebble")
BORROWED = "/etc/apt/borrowed.conf"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
CLONE_NEWNET = 0x40000000
BOOT_S = 120.0
_Value = TypeVar("_Value")
_libc = ctypes.CDLL(None, use_errno=True)


class UnbootableError(Exception):
    """This machine cannot boot another; why."""


def check_possible() -> str:
    """Return why no machine can be made here; "" if one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(name) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def run_host(*command: str, timeout_s: float = 1800, **options: Any) -> str:
    """Run a command of this machine; return its output. Fails with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout


# ---------------------------------------------------------------- roots


def make_root(suite: str) -> Path:
    """Return ROOTS/SUITE, made if it is not there."""
    root = ROOTS / suite
    stamp = " ".join((*TOOLS, *NEEDED))
    if _is_made(root, stamp):
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    run_host("debootstrap", "--variant=minbase", f"--include={','.join(TOOLS)}", suite, str(root), MIRROR)
    with borrowed_settings(root):
        chroot(root, "apt-get", "update", "-qq")
        chroot(root, "apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends", *NEEDED)
    _mark(root, stamp)
    return root


def make_build_root(suite: str) -> Path:
    """Return ROOTS/SUITE.build, made if it is not there."""
    plain, root = make_root(suite), ROOTS / f"{suite}.build"
    script = ". packaging/lib.sh; echo ${run_packages[@]} ${package_packages[@]}"
    packages = run_host("bash", "-c", script, cwd=ROOT).split()
    stamp = " ".join(packages)
    if _is_made(root, stamp):
        return root
    copy_root(plain, root)
    with borrowed_settings(root):
        chroot(root, "apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)
    _mark(root, stamp)
    return root


def copy_root(source: Path, target: Path) -> None:
    """Copy a root as it is; what was there before is removed. In the copy dpkg does not wait for the disk: nothing of it outlives the tests."""
    shutil.rmtree(target, ignore_errors=True)
    run_host("cp", "-a", "--reflink=auto", str(source), str(target))
    (target / "etc/dpkg/dpkg.cfg.d/test").write_text("force-unsafe-io\n")


def _is_made(root: Path, stamp: str) -> bool:
    made = root / "etc/.made-of"
    return made.exists() and made.read_text() == stamp


def _mark(root: Path, stamp: str) -> None:
    (root / "etc/.made-of").write_text(stamp)


@contextlib.contextmanager
def borrowed_settings(root: Path) -> Iterator[None]:
    """Let a root use this machine's ways to Debian (name servers, settings of apt, certificates) for a while, and nothing else of it."""
    put: list[Path] = []
    for source in (Path("/etc/resolv.conf"), *Path("/usr/local/share/ca-certificates").glob("*.crt")):
        target = root / source.relative_to("/")
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            put.append(target)
    settings = root / BORROWED.lstrip("/")
    put.append(settings)
    settings.write_text("\n".join(line for line in run_host("apt-config", "dump").splitlines() if line.startswith("Acquire::")))
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    run_host("mount", "-t", "proc", "proc", str(root / "proc"))
    try:
        yield
    finally:
        run_host("umount", str(root / "proc"))
        for path in (*put, policy):
            path.unlink(missing_ok=True)


def chroot(root: Path, *command: str) -> str:
    """Run a command in a root that is not booted."""
    return run_host("chroot", str(root), *command, env={**ENVIRONMENT, **({"APT_CONFIG": BORROWED} if (root / BORROWED.lstrip("/")).exists() else {})})


def build_package(suite: str, version: str) -> Path:
    """Build the package for a suite by packaging/build-deb, in a root of that suite; return the .deb."""
    root = make_build_root(suite)
    mark = root / "src.mark"
    stamp = f"{version} {hash_sources()}"
    if mark.exists() and mark.read_text() == stamp:
        return find_package(root, version)
    mark.unlink(missing_ok=True)
    shutil.rmtree(root / "src", ignore_errors=True)
    (root / "src").mkdir()
    run_host("sh", "-c", 'tar --create --exclude-vcs --exclude=./build --exclude="*.so" --exclude=__pycache__ . | tar --extract -C "$1"', "sh",
             str(root / "src"), cwd=ROOT)
    run_host("mount", "-t", "proc", "proc", str(root / "proc"))
    try:
        chroot(root, "/src/packaging/build-deb", "--version", version, "--output", "/src/build/deb")
    finally:
        run_host("umount", str(root / "proc"))
    mark.write_text(stamp)
    return find_package(root, version)


def find_package(root: Path, version: str) -> Path:
    """Return what was built in a root."""
    (deb,) = (root / "src/build/deb").glob(f"perchildd_{version}*.deb")
    return deb


def hash_sources() -> str:
    """Return a digest of all that goes into the package."""
    digest = hashlib.sha256()
    for name in ("CHANGELOG.md", "README.md", "conf", "docs", "native", "packaging", "perchild"):
        for path in sorted((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name]):
            if path.is_file() and path.suffix not in {".so", ".pyc", ".o"}:
                digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- a booted one


class Machine:
    """A copy of a suite's root, booted; run() is a command in it."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.root = ROOTS / f"{suite}.live"
        copy_root(make_root(suite), self.root)
        self._process: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def boot(self) -> None:
        """Boot it and wait until systemd has nothing left to start.

        Raises:
            UnbootableError: it does not come up.
        """
        log = self.root.with_suffix(".log")
        with log.open("wb") as stream:
            # A hierarchy of the unified kind, whatever this machine's is; no registration, for which it would need a service manager itself.
            self._process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit", "--private-network",
                 "--link-journal=no", "--console=pipe", "--machine=perchild-test"], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}, start_new_session=True)
        deadline_s = time.monotonic() + BOOT_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                said = log.read_text(errors="replace").strip()
                self.close()
                raise UnbootableError(f"systemd-nspawn did not boot {self.suite}: {said[-500:]}")
            time.sleep(0.2)

    def _is_up(self) -> bool:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.leader = int(children[0]) if children else 0
        if not self.leader or Path(f"/proc/{self.leader}/comm").read_text().strip() != "systemd":
            return False
        return self.try_run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}

    def try_run(self, *command: str, timeout_s: float = 300, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it, whatever its exit status."""
        return subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", "--", *command], capture_output=True, text=True, timeout=timeout_s, check=False, input=text,
            env=ENVIRONMENT)

    def run(self, *command: str, timeout_s: float = 300, text: str | None = None) -> str:
        """Run a command in it; return what it printed. Fails with that if its exit status is not 0."""
        done = self.try_run(*command, timeout_s=timeout_s, text=text)
        assert done.returncode == 0, f"{command}: {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
        return done.stdout + done.stderr

    def shell(self, script: str) -> str:
        """Run a script of sh."""
        return self.run("sh", "-ec", script)

    def open_terminal(self, shell: str) -> Terminal:
        """Return an interactive shell in it that is not started yet."""
        return Terminal(shell, ("nsenter", f"--target={self.leader}", "--all", "--"), ENVIRONMENT)

    def put(self, package: Path) -> str:
        """Copy a package into it; return its path there."""
        shutil.copyfile(package, self.root / "root" / package.name)
        return f"/root/{package.name}"

    def install(self, package: Path) -> str:
        """Install a package with apt, from what is there already: nothing can be downloaded."""
        return self.run("apt-get", "install", "-y", "--no-install-recommends", "--reinstall", "-o", "Dpkg::Options::=--force-confold", self.put(package))

    def property(self, name: str) -> str:
        """Return a property of perchildd.service."""
        return self.run("systemctl", "show", "--value", "-p", name, "perchildd").strip()

    def journal(self, *arguments: str) -> list[str]:
        """Return lines of the journal."""
        return [line for line in self.run("journalctl", "--no-pager", "-o", "short", *arguments).splitlines() if not line.startswith("--")]

    def in_network(self, function: Callable[[], _Value]) -> _Value:
        """Call a function in a thread whose network is the machine's."""
        result: list[Any] = []

        def call() -> None:
            try:
                self.enter_network()
                result.append((function(), None))
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                result.append((None, error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        value, error = result[0]
        if error is not None:
            raise error
        return value

    def enter_network(self) -> None:
        """Make the machine's network that of the calling thread."""
        with Path(f"/proc/{self.leader}/ns/net").open("rb") as stream:
            if _libc.setns(stream.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def get(self, host: str, path: str = "/", port: int = 80) -> Response:
        """Make one request on a connection of its own."""
        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return read_all(sock)

        return parse_response(self.in_network(ask))

    def load(self, hosts: Mapping[str, bytes], **options: Any) -> Load:
        """Return a load of requests that is not started yet."""
        return _MachineLoad(self, hosts, **options)

    def close(self) -> None:
        """Power it off, and remove it."""
        if self._process is not None:
            if self._process.poll() is None and self.leader:
                os.kill(self.leader, signal.SIGRTMIN + 4)  # systemd: poweroff.target
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self.root, ignore_errors=True)


class _MachineLoad(Load):
    """A load whose thread lives in the machine's network."""

    def __init__(self, machine: Machine, hosts: Mapping[str, bytes], **options: Any) -> None:
        super().__init__(80, hosts, **options)
        self._machine = machine

    def _run(self) -> None:
        self._machine.enter_network()
        super()._run()
