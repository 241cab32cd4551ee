"""A runner by itself: forked by native/runner.c with real ids, driven over its job box, without a server around it.

Runs as: root.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

from perchild.wire import job as wire
from perchild.wire.runner import Limits, RunnerFile
from tests.lab import BASE_UID, PYTHON, ROOT, tree_of, wait_until

UID = BASE_UID + 400
OTHER_UID = BASE_UID + 401
ALONE_UID = BASE_UID + 402  # of a runner beside the one that tests share

# Stands for the dispatcher: forks the runner, says its pid, reaps it and says how it ended; "kill" is done to itself by the test.
DISPATCHER = """
import ctypes, json, os, sys
from perchild import native
from perchild.runner.main import runner_main
from perchild.wire.child import RunnerSpec
box, file, uid, gid, may_gain, has_namespaces, groups = json.loads(sys.argv[1])
if not has_namespaces:  # root without CAP_SYS_ADMIN, as in many a container
    libc, head = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(head, data)
    data[0] &= ~(1 << 21)
    data[1] &= ~(1 << 21)
    assert libc.capset(head, data) == 0
seccomp = native.build_runner_seccomp()
parent = os.pidfd_open(os.getpid())
spec = RunnerSpec("case", uid, gid, tuple(groups), True, 4096, may_gain, box, file, parent)
pid = native.fork_runner(spec, seccomp)
if pid == 0:
    runner_main()
os.close(box)
print(pid, flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def encode(facts: RunnerFile) -> bytes:
    """Return the file's bytes, as config/runner.py writes them."""
    tree = asdict(facts)
    for service in tree["services"]:
        service["env"] = dict(service["env"])
    return json.dumps(tree).encode()


class Case:
    """A runner, its box, and a tenant's directory `root` (0700 of UID) that programs lie in."""

    def __init__(self, *, uid: int = ALONE_UID, may_gain: bool = False, has_namespaces: bool = True, groups: tuple[int, ...] = (), **facts: object) -> None:
        self.uid = uid
        self.base = Path(tempfile.mkdtemp(prefix="perchild-runner.", dir="/var/lib"))  # /run may be mounted nosuid
        self.base.chmod(0o711)
        self.root = self.base / "root"
        self.make_directory(self.root)
        self._ids = itertools.count(1)
        self.errors = self.base / "error.log"
        self.facts = RunnerFile(user="case", uid=uid, gid=uid, home=str(self.base), roots=(str(self.root),), idle_s=600, new_privs=may_gain)
        self.facts = replace(self.facts, **facts)  # type: ignore[arg-type]
        self._has_namespaces = has_namespaces
        self.prepare()
        self._start(groups)

    def prepare(self) -> None:
        """Before the start; here nothing."""

    def _start(self, groups: tuple[int, ...]) -> None:
        reader, self.box = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryFile() as file, reader, open(self.errors, "wb") as errors:
            file.write(encode(self.facts))
            file.seek(0)
            arguments = json.dumps([reader.fileno(), file.fileno(), self.uid, self.uid, self.facts.new_privs, self._has_namespaces, groups])
            self.process = subprocess.Popen([PYTHON, "-c", DISPATCHER, arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=errors, text=True, pass_fds=(reader.fileno(), file.fileno()),
                                            env={"PYTHONPATH": str(ROOT), "SECRET": "1"})
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        self.pid = int(line)

    def make_directory(self, path: Path, mode: int = 0o700) -> Path:
        """Make a directory of the tenant's."""
        path.mkdir(parents=True)
        path.chmod(mode)
        os.chown(path, self.uid, self.uid)
        return path

    replaced = staticmethod(replace)

    def program(self, name: str, text: str | bytes, *, mode: int = 0o700) -> Path:
        """Write a program into the root (or at an absolute path)."""
        path = self.root / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        os.chown(path, self.uid, self.uid)
        path.chmod(mode)
        return path

    def send(self, job: wire.Job, fds: tuple[int, ...] = ()) -> None:
        """Send one message."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.box.sendmsg([wire.encode_job(job)], rights)

    def start(self, path: Path | str, *, environment: tuple[str, ...] = (), arguments: tuple[str, ...] = (), stdin: bytes | None = b"",
              cwd: str = "") -> Run:
        """Send a RUN; stdin None: a pipe that stays open."""
        number = 7 << 32 | next(self._ids)
        return Run(self, number, wire.Job(
            wire.RUN, number, 0, os.fsencode(path), cwd.encode(), tuple(one.encode() for one in arguments),
            tuple(one.encode() for one in environment)), stdin)

    def run(self, path: Path | str, **options: object) -> tuple[str, str]:
        """Run a program to its end; return what it wrote to 1 and to 2."""
        run = self.start(path, **options)  # type: ignore[arg-type]
        return run.finish()

    def shell(self, text: str, **options: object) -> tuple[str, str]:
        """Run a shell script as a program."""
        return self.run(self.program("script.sh", f"#!/bin/sh\n{text}\n"), **options)

    def log(self) -> str:
        """Return what the runner said."""
        return self.errors.read_text()

    def pids(self) -> list[int]:
        """Return the runner's descendants."""
        return tree_of(self.pid)[1:]

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 10) -> int:
        """Signal the runner; return how it ended."""
        os.kill(self.pid, number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 10) -> int:
        """Wait for the runner's end; return its status."""
        assert self.process.stdout
        ready = select.select([self.process.stdout], [], [], timeout_s)[0]
        assert ready, "the runner did not end"
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End everything; fails if a process of the tenant is left."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout
        self.process.stdout.close()
        self.box.close()
        wait_until(lambda: not pids_of(self.uid), "no process of the tenant is left")
        shutil.rmtree(self.base)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Run:
    """One RUN: the test's ends of the program's descriptors."""

    def __init__(self, case: Case, number: int, job: wire.Job, stdin: bytes | None) -> None:
        self._case, self.number = case, number
        theirs_in, self.stdin = os.pipe()
        self.stdout, theirs_out = os.pipe()
        self.stderr, theirs_err = os.pipe()
        try:
            case.send(job, (theirs_in, theirs_out, theirs_err))
        finally:
            for fd in (theirs_in, theirs_out, theirs_err):
                os.close(fd)
        if stdin is not None:
            os.write(self.stdin, stdin)
            os.close(self.stdin)
            self.stdin = -1

    def cancel(self) -> None:
        """Send the CANCEL."""
        self._case.send(wire.Job(wire.CANCEL, self.number))

    def read(self, timeout_s: float = 10) -> bytes:
        """Return what comes next on the program's standard output."""
        assert select.select([self.stdout], [], [], timeout_s)[0], "the program wrote nothing"
        return os.read(self.stdout, 65536)

    def finish(self, timeout_s: float = 20) -> tuple[str, str]:
        """Read both to their ends."""
        texts = []
        for fd in (self.stdout, self.stderr):
            parts = []
            while True:
                assert select.select([fd], [], [], timeout_s)[0], f"no end of output: {b''.join(parts)!r}"
                part = os.read(fd, 65536)
                if not part:
                    break
                parts.append(part)
            texts.append(b"".join(parts).decode(errors="replace"))
        self.close()
        return texts[0], texts[1]

    def close(self) -> None:
        """Leave, as a client does."""
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdin = self.stdout = self.stderr = -1


def pids_of(uid: int) -> list[int]:
    """Return every process of a uid that is no zombie."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{entry}/status").read_text()
                if f"\nUid:\t{uid}\t" in status and "\nState:\tZ" not in status:
                    found.append(int(entry))
    return found


__all__ = ["ALONE_UID", "OTHER_UID", "UID", "Case", "Limits", "Run", "pids_of"]
