"""A real dispatcher with real forks, a toy compiler and a toy child, for the tests of supervision.

The "configuration" is a JSON object; the route table is JSON too. The toy child drops to its uid, takes connections, reads
one line (a host name), hands the connection to the identity that the route table names, and answers with a line of JSON:
who served, under which uid, pid and generation, and which kinds of descriptors it holds. "exit N" and "abort" end it,
"hold" keeps the connection open; "pass N" on one that is held hands it over to identity N. "busy" is the last that a child takes.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import mmap
import os
import selectors
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from perchild.control.client import ask_server
from perchild.dispatcher.compile import Request, identity_key
from perchild.dispatcher.errors import DispatcherError
from perchild.dispatcher.signals import reset_in_child
from perchild.dispatcher.start import Start, run_server
from perchild.dispatcher.state import Hooks
from perchild.wire import control
from perchild.wire.child import ChildSpec
from perchild.wire.plan import FIXED, ON_DEMAND, UNASSIGNED, Compiled, Identity, Listener, LogFile, Plan, Scale
from tests.lab import free_port

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:] or 0)
BASE_UID = 30000 + 1000 * WORKER  # each test worker has uids of its own, which no system gives out by itself


def drop(spec: ChildSpec) -> None:
    """Close what the spec does not list, and become the identity; all that the real drop does, in Python."""
    keep = [0, 1, 2, *spec.descriptors()]
    for low, high in zip(keep, [*keep[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    if spec.uid == BASE_UID + 666:
        os._exit(64 + 9)  # the drop's own end: setresuid failed
    if spec.is_privileged:
        os.setgroups(spec.groups)
        os.setresgid(spec.gid, spec.gid, spec.gid)
        os.setresuid(spec.uid, spec.uid, spec.uid)


class ToyChild:
    """One thread, one selector."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.loop = selectors.DefaultSelector()
        self.control = socket.socket(fileno=spec.control_fd)
        self.inbox = socket.socket(fileno=spec.inbox_fd)
        self.listeners = [socket.socket(fileno=fd) for fd in spec.listener_fds]
        self.route = self._load_route(spec.route_fd) if spec.route_fd >= 0 else {}
        self.inboxes = dict(spec.inbox_write_fds)
        self.log_fds = list(spec.log_fds)
        self.held: list[socket.socket] = []
        self.is_draining = False

    @staticmethod
    def _load_route(fd: int) -> dict[str, int]:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as raw:
            return dict(json.loads(raw[:]))

    def tell(self, kind: int, small: int = 0, number: int = 0) -> None:
        self.control.send(control.FORMAT.pack(kind, 0, small, number))

    def run(self) -> NoReturn:
        self.loop.register(self.control, selectors.EVENT_READ, self.on_control)
        self.loop.register(self.inbox, selectors.EVENT_READ, self.on_inbox)
        for listener in self.listeners:
            self.loop.register(listener, selectors.EVENT_READ, self.on_accept)
        if "never-ready" in self.spec.name:
            os._exit(3)
        self.tell(control.MSG_READY, number=os.getpid())
        self.tell(control.MSG_LOAD, 1, 0)
        while not (self.is_draining and not self.held):
            for key, _ in self.loop.select():
                key.data(key.fileobj)
        os._exit(0)

    def on_control(self, sock: socket.socket) -> None:
        raw, ancillary, _, _ = sock.recvmsg(8, socket.CMSG_SPACE(4 * 64))
        if not raw:
            os._exit(0)
        kind, _, small, number = control.FORMAT.unpack(raw)
        fds = [fd for _, _, data in ancillary for fd in array.array("i", data)]
        if kind == control.MSG_ROUTE:
            self.route = self._load_route(fds[0])
            os.close(fds[0])
        elif kind == control.MSG_INBOX:
            old = self.inboxes.pop(number, -1)
            if old >= 0:
                os.close(old)
            if fds:
                self.inboxes[number] = fds[0]
        elif kind == control.MSG_REOPEN:
            for new, old in zip(fds, [fd for fd in self.log_fds if fd >= 0], strict=True):
                os.dup2(new, old)
                os.close(new)
            assert small == 1
        elif kind == control.MSG_DRAIN:
            self.is_draining = True
            for one in (*self.listeners, self.inbox):
                self.loop.unregister(one)
                one.close()

    def on_accept(self, listener: socket.socket) -> None:
        try:
            conn, _ = listener.accept()
        except BlockingIOError:
            return
        self.serve(conn, handed=False)

    def on_inbox(self, sock: socket.socket) -> None:
        try:
            _, ancillary, _, _ = sock.recvmsg(64, socket.CMSG_LEN(4))
        except BlockingIOError:
            return
        for _, _, data in ancillary:
            self.serve(socket.socket(fileno=array.array("i", data)[0]), handed=True)

    def serve(self, conn: socket.socket, *, handed: bool) -> None:
        conn.setblocking(True)
        raw = conn.recv(200, socket.MSG_PEEK)
        host, _, command = raw.decode().strip().partition(" ")
        owner = self.route.get(host, self.spec.number) if not handed else self.spec.number
        if owner != self.spec.number:
            with socket.socket(fileno=os.dup(self.inboxes[owner])) as out:
                out.sendmsg([b"conn"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [conn.fileno()]))])
            conn.close()
            return
        conn.recv(len(raw))
        self.answer(conn, command)

    def answer(self, conn: socket.socket, command: str) -> None:
        word, _, argument = command.partition(" ")
        if word == "exit":
            os._exit(int(argument))
        if word == "abort":
            os.kill(os.getpid(), signal.SIGKILL)
        silent: dict[str, Callable[[], object]] = {
            "control": lambda: self.control.send(bytes.fromhex(argument)), "busy": self.be_busy,
            "break-inbox": lambda: self.inbox.shutdown(socket.SHUT_RD)}
        if word in silent:
            silent[word]()
            conn.close()
            return
        if word == "idle":
            self.tell(control.MSG_IDLE)
            os._exit(0)
        if word == "deaf":
            self.listeners[0].shutdown(socket.SHUT_RD)
        if word == "log":
            os.write(self.log_fds[0], argument.encode() + b"\n")
        reply = {"name": self.spec.name, "uid": os.getuid(), "pid": os.getpid(), "generation": self.spec.generation,
                 "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd")), "inboxes": sorted(self.inboxes),
                 "listeners": len(self.listeners), "routes": len(self.route), "logs": list(self.spec.log_fds)}
        conn.sendall(json.dumps(reply).encode() + b"\n")
        if word == "hold":
            self.held.append(conn)
            self.loop.register(conn, selectors.EVENT_READ, self.on_held)
        else:
            conn.close()

    def be_busy(self) -> None:
        """Do as a prefork child with a request does: accept nothing more, and say so."""
        while self.listeners:
            listener = self.listeners.pop()
            self.loop.unregister(listener)
            listener.close()
        self.tell(control.MSG_LOAD, 0, 1)

    def on_held(self, conn: socket.socket) -> None:
        raw = conn.recv(7)  # "pass N\n": what follows is for the receiver
        if raw.startswith(b"pass "):
            with socket.socket(fileno=os.dup(self.inboxes[int(raw[5:])])) as out:
                conn.setblocking(True)
                out.sendmsg([b"conn"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [conn.fileno()]))])
        if not raw or raw.startswith(b"pass "):
            self.loop.unregister(conn)
            self.held.remove(conn)
            conn.close()
        else:
            conn.sendall(b"still here\n")


def child_main(spec: ChildSpec) -> NoReturn:
    """What the dispatcher is given as the child's life; its signals are still blocked."""
    reset_in_child()
    ToyChild(spec).run()


def toy_compile(request: Request, known: Mapping[str, int]) -> tuple[Compiled | None, str]:
    """Compile the JSON configuration; "error", "crash" and "hang" do what they say."""
    config = json.loads(Path(request.config_file).read_text())
    if "error" in config:
        return None, f"AH00526: Syntax error on line 1 of {request.config_file}:\n{config['error']}\n"
    if "crash" in config:
        os.kill(os.getpid(), signal.SIGSEGV)
    numbers = dict(known)
    records, identities, routes = {}, [], {}
    for tenant in config["tenants"]:
        uid = tenant["uid"]
        key = identity_key(uid, uid, ())
        is_main = tenant["kind"] == UNASSIGNED
        number = 0 if is_main else numbers.setdefault(key, max(numbers.values(), default=0) + 1)
        record = json.dumps(tenant).encode()
        digest = hashlib.sha256(record).hexdigest()
        records[f"{number}-{digest}"] = record
        routes.update(dict.fromkeys(tenant.get("hosts", ()), number))
        identities.append(Identity(
            number, tenant["name"], uid, uid, (), tenant["kind"], tenant.get("children", 1), f"{number}-{digest}", digest,
            len(tenant.get("hosts", ())), 1, 1, 1, 1, 0, 5, tuple(LogFile(path, "x:1") for path in tenant.get("logs", ()))))
    run_dir = config["run_dir"]
    plan = Plan(
        mpm=config.get("mpm", "perchild"), server_root=run_dir, pid_file=f"{run_dir}/pid", run_dir=run_dir, score_board_file="",
        core_dump_dir=run_dir, error_log=f"{run_dir}/error.log", error_log_level=7, error_log_json=False,
        accept_scope=config.get("scope", "any"), accept_mutex="default", lock_file="",
        graceful_shutdown_timeout_s=config.get("graceful_s", 0), thread_stack_bytes=0, max_mem_free_kb=0, exception_hook=False,
        uid=BASE_UID, gid=BASE_UID, groups=(), listeners=tuple(Listener(4, "127.0.0.1", port, 0, 0, 0, "x:1")
                                                               for port in config["ports"]),
        identities=tuple(identities), scale=Scale(*config.get("scale", (2, 1, 5, 32, 1, 32))), types_digest="t", host_count=len(routes),
        server_name="x")
    return Compiled(plan, json.dumps(routes).encode(), b"types", records), ""


@dataclass
class Lab:
    """A running dispatcher."""

    pid: int
    directory: Path
    config: dict[str, Any]

    @property
    def port(self) -> int:
        """The first listening port."""
        return int(self.config["ports"][0])

    def log(self) -> str:
        """Return the error log."""
        return (self.directory / "stderr").read_text()

    def ask(self, op: str, **more: object) -> dict[str, Any]:
        """Send a request to the control socket."""
        return ask_server(self.config["run_dir"], {"op": op, **more})

    def write(self) -> None:
        """Write the configuration."""
        (self.directory / "config").write_text(json.dumps(self.config))

    def reload(self, op: str = "graceful") -> dict[str, Any]:
        """Write the configuration and reload."""
        self.write()
        return self.ask(op)

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the identities in force by name."""
        return {one["name"]: one for one in self.ask("status")["identities"]}

    def has_starting(self) -> bool:
        """Whether a child is yet to become ready."""
        return any(child["state"] == "starting" for one in self.members().values() for child in one["children"])

    def pids(self, name: str) -> set[int]:
        """Return the pids of the ready children of an identity."""
        return {child["pid"] for child in self.members()[name]["children"] if child["state"] == "ready"}

    def connect(self, line: str) -> socket.socket:
        """Connect and send one line."""
        conn = socket.create_connection(("127.0.0.1", self.port), 30)
        conn.sendall(line.encode() + b"\n")
        return conn

    def get(self, line: str) -> dict[str, Any]:
        """Ask one question and return the answer; {} when the connection ended without one."""
        with self.connect(line) as conn:
            return read_answer(conn)

    def wait(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Wait until a condition holds that no descriptor tells us of."""
        wait_until(condition, limit_s)

    def signal(self, number: int) -> None:
        """Signal the dispatcher."""
        os.kill(self.pid, number)

    def join(self) -> int:
        """Wait for the dispatcher to end; return its exit status."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Poll a condition each 10 ms until it holds; AssertionError after limit_s."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        select_nothing(0.01)


def select_nothing(seconds: float) -> None:
    """Pause between two looks."""
    time.sleep(seconds)


def read_answer(conn: socket.socket) -> dict[str, Any]:
    """Read one line of JSON."""
    with conn.makefile() as stream:
        line = stream.readline()
    return dict(json.loads(line)) if line else {}


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    return [free_port() for _ in range(count)]


def tenant(name: str, offset: int, kind: str = ON_DEMAND, **more: object) -> dict[str, Any]:
    """Return one identity of the configuration; its host is its name."""
    return {"name": name, "uid": BASE_UID + offset, "kind": kind, "hosts": [name], **more}


def default_config(directory: Path) -> dict[str, Any]:
    """Return unassigned children, a fixed and an on-demand tenant on one port."""
    return {"run_dir": str(directory / "run"), "ports": free_ports(1), "scope": "unassigned",
            "tenants": [tenant("main", 0, UNASSIGNED), tenant("alice", 1, FIXED), tenant("bob", 2, ON_DEMAND)]}


@contextlib.contextmanager
def run_lab(directory: Path, config: dict[str, Any] | None = None, **start: Any) -> Iterator[Lab]:
    """Run a dispatcher in a process of its own; it is up when this yields, and gone with all its children afterwards."""
    directory.chmod(0o755)
    lab = Lab(0, directory, config or default_config(directory))
    lab.write()
    up_read, up_write = os.pipe()
    lab.pid = os.fork()
    if lab.pid == 0:
        os.close(up_read)
        _be_dispatcher(lab, up_write, start)
    os.close(up_write)
    try:
        with os.fdopen(up_read, "rb") as stream:
            assert stream.read(1) == b"1", f"the dispatcher did not start: {lab.log()}"
        lab.wait(lambda: not lab.has_starting())  # it is up with its first child: the others follow
        yield lab
    finally:
        if lab.pid:
            os.kill(lab.pid, signal.SIGTERM)
            lab.join()
    assert not leftover_children(), "a child outlived the dispatcher"


def leftover_children() -> list[str]:
    """Return processes that run under the lab's uids (a zombie whose parent was killed does not run)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "status").read_text()
                uid = int(status.partition("Uid:")[2].split()[0])
                if BASE_UID <= uid < BASE_UID + 1000 and "State:\tZ" not in status:
                    found.append(entry.name)
    return found


def _be_dispatcher(lab: Lab, up_fd: int, start: dict[str, Any]) -> NoReturn:
    status = 99
    try:
        os.setsid()
        error_fd = os.open(lab.directory / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(error_fd, 2)
        hooks = Hooks(child_main, drop, lambda: None)
        one = Start(Request(str(lab.directory / "config"), "/"), toy_compile, hooks, "perchildd/test", is_foreground=True,
                    keeps_stderr=True, on_up=lambda: _say_up(up_fd))
        status = run_server(replace(one, **start))
    except DispatcherError as error:
        os.write(2, f"{error}\n".encode())
        status = error.exit_code
    except BaseException:  # noqa: BLE001 - the test reads it in the log
        os.write(2, traceback.format_exc().encode())
    os._exit(status)


def _say_up(fd: int) -> None:
    os.write(fd, b"1")
    os.close(fd)


def forge_load(idle: int, busy: int) -> str:
    """Return a LOAD message as the toy child's `control` command takes it."""
    return struct.pack("<BBHI", control.MSG_LOAD, 0, idle, busy).hex()
