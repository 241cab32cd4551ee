"""The runner and what it executes: who they are, what they hold and see, what is refused, and that nothing stays behind.

Runs as: root; a real runner forked by native/runner.c, real uids, real programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perchild import roles
from perchild.wire import job as wire
from tests.boundary import procs
from tests.boundary.runner_case import ALONE_UID, OTHER_UID, UID, Case, Limits, Run, pids_of
from tests.lab import comm_of, is_alive, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

NO_CAPABILITIES = "0" * 16
EXTRA_GROUP = 59998
STATUS = "#!/bin/sh\nexec cat /proc/self/status\n"
FOREVER = "#!/bin/sh\necho begun\nexec sleep 1000\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Case]:
    """One runner for the tests that leave it as it was."""
    with Case(uid=UID) as one:
        yield one


def status_of(text: str) -> dict[str, str]:
    """Return /proc/self/status as a program printed it."""
    return {name: value.strip() for name, value in (line.split(":", 1) for line in text.splitlines())}


# ---------------------------------------------------------------- who they are


def test_a_program_is_its_tenant_and_no_more(shared: Case) -> None:
    """All four uids and gids are the tenant's, no groups, five empty capability sets, no_new_privs, one filter; its own session."""
    out, err = shared.run(shared.program("status", STATUS))
    assert err == ""
    status = status_of(out)
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    assert [status[name] for name in procs.CAPABILITY_SETS] == [NO_CAPABILITIES] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {status[name] for name in ("SigBlk", "SigIgn")} == {NO_CAPABILITIES}
    out, _ = shared.shell("echo $$; ps -o pgid=,sid= -p $$; umask; ulimit -c; ulimit -Sn; ulimit -Hn; pwd")
    assert out.split() == [out.split()[0]] * 3 + ["0022", "0", "1024", "4096", str(shared.root)]


def test_the_runner_is_what_its_role_says(shared: Case) -> None:
    """Ids, capabilities, filter, dumpable, limits and the kind of each descriptor, asked from outside."""
    role, status = roles.find_role(roles.RUNNER), procs.read_status(shared.pid)
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert [status[name] for name in procs.CAPABILITY_SETS] == [NO_CAPABILITIES] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == (str(int(role.no_new_privs)), str(role.seccomp))
    assert status["NSpid"].split()[-1] == "1"
    assert os.stat(f"/proc/{shared.pid}/environ").st_uid == 0  # not dumpable
    assert os.readlink(f"/proc/{shared.pid}/cwd") == "/"
    wait_until(lambda: shared.pids() == [], "what earlier tests ran has ended")
    kinds = [kind_of(shared, number, target) for number, target in procs.descriptors(shared.pid).items()]
    assert roles.compare_fds(role, kinds) == (), kinds
    with open(f"/proc/{shared.pid}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits["Max core file size"] == ["0", "0"]


def kind_of(case: Case, number: int, target: str) -> str:
    """Return what a descriptor of a runner without a server around it is."""
    if number <= 1:
        return roles.NULL  # the case's own; of a live server's see test_live_roles.py
    if target == str(case.errors):
        return roles.ERROR_LOG
    if target.startswith("socket:"):
        with procs.borrowed(case.pid, number) as sock:
            return roles.JOB if sock.type == socket.SOCK_SEQPACKET else f"socket {sock}"
    return {"anon_inode:[eventpoll]": roles.EPOLL, "anon_inode:[signalfd]": roles.SIGNALFD}.get(target, target)


def test_supplementary_groups_are_the_identitys() -> None:
    """What the plan says, and none of root's."""
    with Case(groups=(EXTRA_GROUP,)) as one:
        assert status_of(one.run(one.program("status", STATUS))[0])["Groups"] == str(EXTRA_GROUP)


def test_new_privs_off_by_configuration_alone() -> None:
    """NoNewPrivileges Off: a set-group-id program gets its group, set-user-id root no capability; the filter is there all the same."""
    with Case(may_gain=True) as one:
        status = status_of(one.run(one.program("status", STATUS))[0])
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")
        assert [status[name] for name in procs.CAPABILITY_SETS] == [NO_CAPABILITIES] * 5
        shutil.copy("/bin/cat", one.base / "setgid")
        os.chown(one.base / "setgid", 0, OTHER_UID)
        (one.base / "setgid").chmod(0o2755)
        shutil.copy("/bin/cat", one.base / "setuid")
        (one.base / "setuid").chmod(0o4755)
        out, _ = one.shell(f"{one.base}/setgid /proc/self/status")
        assert status_of(out)["Gid"].split() == [str(ALONE_UID), *[str(OTHER_UID)] * 3]
        status = status_of(one.shell(f"{one.base}/setuid /proc/self/status")[0])
        assert [status[name] for name in procs.CAPABILITY_SETS] == [NO_CAPABILITIES] * 5
    with Case() as one:
        shutil.copy("/bin/cat", one.base / "setgid")
        os.chown(one.base / "setgid", 0, OTHER_UID)
        (one.base / "setgid").chmod(0o2755)
        assert status_of(one.shell(f"{one.base}/setgid /proc/self/status")[0])["Gid"].split() == [str(ALONE_UID)] * 4


def test_a_program_holds_three_descriptors(shared: Case) -> None:
    """0, 1 and 2 are the job's own pipes; nothing of the runner's, a child's or an earlier program's is left open."""
    out, _ = shared.shell("ls -l /proc/$$/fd; :")  # no pipeline: the shell would hold it
    out = "\n".join(f"{number} {what}" for number, what in re.findall(r" (\d+) -> (\w*/?)", out))
    shell_keeps = "10 /"  # a shell reads its script by a descriptor of its own
    found = [line for line in out.splitlines() if not line.startswith(shell_keeps.split(maxsplit=1)[0])]
    assert found == ["0 pipe", "1 pipe", "2 pipe"]
    binary = shared.program("ls", Path("/bin/ls").read_bytes())
    out, _ = shared.run(binary, arguments=("/proc/self/fd",))
    assert out.split() == ["0", "1", "2", "3"]  # 3: ls reads the directory


def test_the_environment_is_the_jobs_and_a_fixed_path(shared: Case) -> None:
    """Nothing of the starter's, nothing that steers a loader or an interpreter, no HTTP_PROXY; the rest as it is, in order."""
    sent = ("GATEWAY_INTERFACE=CGI/1.1", "HTTP_HOST=a", "HTTP_PROXY=http://evil", "PATH=/evil", "LD_PRELOAD=/evil.so", "LD_X=1", "ENV=/evil",
            "BASH_ENV=/evil", "PYTHONPATH=/evil", "PERL5LIB=/evil", "GLIBC_TUNABLES=x", "IFS=x", "APP_ENV=production", "X=a=b", "A-B=1", "1X=2",
            "HTTP_X_A=", "QUERY_STRING=a b")
    binary = shared.program("env", Path("/usr/bin/env").read_bytes())
    out, _ = shared.run(binary, environment=sent)
    assert out.splitlines() == ["PATH=/usr/local/bin:/usr/bin:/bin", "GATEWAY_INTERFACE=CGI/1.1", "HTTP_HOST=a", "APP_ENV=production", "X=a=b",
                                "HTTP_X_A=", "QUERY_STRING=a b"]


def test_arguments_and_directory(shared: Case) -> None:
    """A script sees its own path and the arguments; its directory is its own, or the one that was asked for."""
    out, _ = shared.shell('printf "%s\\n" "$0" "$@"; pwd', arguments=("a b", "", "*"))
    assert out.splitlines() == [str(shared.root / "script.sh"), "a b", "", "*", str(shared.root)]
    assert shared.shell("pwd", cwd="/usr")[0] == "/usr\n"
    assert "working directory cannot be entered" in shared.shell("pwd", cwd="/nowhere")[1]
    out, _ = shared.run(shared.program("opt", "#!/bin/echo -n   x \nnever read\n"), arguments=("y",))
    assert out == f"-n   x {shared.root}/opt y\n"  # all behind the interpreter is one argument


# ---------------------------------------------------------------- what they can see


def test_programs_see_their_own_processes_alone(shared: Case) -> None:
    """/proc shows the runner and its programs; a process of the same uid outside is out of sight and out of reach."""
    wait_until(lambda: shared.pids() == [], "what earlier tests ran has ended")
    outside = os.fork()
    if outside == 0:
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        signal.pause()
    try:
        out, _ = shared.shell(f"ls /proc | grep '^[0-9]' | tr '\\n' ' '; kill -0 {outside} || echo gone; kill -9 -1; echo done")
        pids = [int(one) for one in out.split() if one.isdigit()]
        assert 1 in pids and len(pids) <= 6
        assert out.endswith("gone\ndone\n")
        assert is_alive(outside)
        assert is_alive(shared.pid)  # nor does kill -9 -1 reach PID 1
    finally:
        os.kill(outside, signal.SIGKILL)
        os.waitpid(outside, 0)
    assert shared.shell("kill -TERM 1; kill -KILL 1; kill -STOP 1; echo ok")[0] == "ok\n"
    assert shared.shell("echo still")[0] == "still\n"


def test_a_program_cannot_open_the_runner(shared: Case) -> None:
    """Its memory, descriptors and environment are shut to programs of the same uid."""
    out, _ = shared.shell("for f in mem environ fd/3 maps; do cat /proc/1/$f >/dev/null 2>&1 && echo $f; done; ls /proc/1/fd 2>/dev/null; echo end")
    assert out == "end\n"


TRIES = """#!/usr/bin/python3 -I
import ctypes, errno, socket, fcntl
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, result):
    print(name, errno.errorcode.get(ctypes.get_errno(), "?") if result < 0 else "ok")
for name, number in (("unshare", 272), ("setns", 308), ("mount", 165), ("umount2", 166), ("pivot_root", 155), ("bpf", 321),
                     ("perf_event_open", 298), ("userfaultfd", 323), ("io_uring_setup", 425), ("keyctl", 250), ("add_key", 248),
                     ("init_module", 175), ("kexec_load", 246), ("open_by_handle_at", 304), ("reboot", 169), ("fsopen", 430)):
    ctypes.set_errno(0)
    tried(name, libc.syscall(number, 0, 0, 0, 0, 0, 0))
ctypes.set_errno(0)
tried("clone_newuser", libc.syscall(56, 0x10000000, 0, 0, 0, 0))
ctypes.set_errno(0)
tried("clone3", libc.syscall(435, 0, 0))
for name, family in (("inet", socket.AF_INET), ("unix", socket.AF_UNIX), ("netlink", socket.AF_NETLINK), ("alg", 38), ("vsock", 40), ("packet", 17)):
    try:
        socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_STREAM).close()
        print(name, "ok")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
one, two = socket.socketpair()
try:
    fcntl.ioctl(one, 0x5412, b"x")
except OSError as error:
    print("TIOCSTI", errno.errorcode[error.errno])
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
def test_the_filter_refuses_the_kernels_wide_doors_alone(shared: Case) -> None:
    """No namespaces, mounts, BPF, perf, io_uring, keyrings, modules; odd socket families; sockets, netlink and processes as ever."""
    out, err = shared.run(shared.program("tries", TRIES))
    assert err == ""
    tried = dict(line.split() for line in out.splitlines())
    fine = {"inet": "ok", "unix": "ok", "netlink": "ok", "clone3": "ENOSYS"}
    assert tried == {name: fine.get(name, "EPERM") for name in tried}
    assert len(tried) == 25


# ---------------------------------------------------------------- suEXEC's conditions


def write_in(case: Case, directory: str, *, uid: int = UID, gid: int = UID, mode: int = 0o700, dir_uid: int = UID, dir_gid: int = UID,
             dir_mode: int = 0o700) -> Path:
    """Write a program that prints `ran` into a directory of its own; return its path."""
    path = case.root / directory
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    program = path / "p.cgi"
    program.write_text("#!/bin/sh\necho ran\n")
    os.chown(program, uid, gid)
    program.chmod(mode)
    os.chown(path, dir_uid, dir_gid)
    path.chmod(dir_mode)
    return program


def linked(case: Case) -> Path:
    program = write_in(case, "linked")
    (program.parent / "link.cgi").symlink_to("p.cgi")
    return program.parent / "link.cgi"


def outward(case: Case) -> Path:
    """Below the root by name, outside by a link of a directory."""
    other = case.base / "outside"
    if not other.exists():
        case.make_directory(other)
    shutil.copy(case.program("out.cgi", "#!/bin/sh\necho ran\n"), other / "p.cgi")
    os.chown(other / "p.cgi", UID, UID)
    (case.root / "out").unlink(missing_ok=True)
    (case.root / "out").symlink_to(other)
    return case.root / "out" / "p.cgi"


def sibling(case: Case) -> Path:
    """root_backup beside root: CVE-2007-1742."""
    other = case.base / "root_backup"
    if not other.exists():
        case.make_directory(other)
    (other / "p.cgi").write_text("#!/bin/sh\necho ran\n")
    (other / "p.cgi").chmod(0o700)
    os.chown(other / "p.cgi", UID, UID)
    return other / "p.cgi"


def with_line(line: bytes) -> Callable[[Case], Path]:
    def make(case: Case) -> Path:
        program = write_in(case, "line")
        program.write_bytes(line)
        return program

    return make


def fifo(case: Case) -> Path:
    path = write_in(case, "fifo").with_name("f.cgi")
    os.mkfifo(path, 0o700)
    os.chown(path, UID, UID)
    return path


def listening(case: Case) -> Path:
    path = write_in(case, "sock").with_name("s.cgi")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    os.chown(path, UID, UID)
    path.chmod(0o700)
    return path


def hard_linked(case: Case) -> Path:
    """A file of root's in a tenant's directory."""
    program = write_in(case, "hard")
    os.chown(program, 0, 0)
    program.chmod(0o755)
    return program


REFUSED: dict[str, tuple[Callable[[Case], Path | str], str]] = {
    "not plain": (lambda case: f"{write_in(case, 'x').parent}/../x/p.cgi", "not absolute and plain"),
    "double slash": (lambda case: f"{write_in(case, 'x').parent}//p.cgi", "not absolute and plain"),
    "a directory": (lambda case: write_in(case, "x").parent, "no regular file"),
    "outside": (lambda _case: "/usr/bin/id", "lies below no DocumentRoot"),
    "sibling prefix": (sibling, "lies below no DocumentRoot"),
    "outside by a link": (outward, "lies below no DocumentRoot"),
    "no such file": (lambda case: write_in(case, "x").with_name("none.cgi"), "cannot be opened: No such file"),
    "no such directory": (lambda case: case.root / "none" / "p.cgi", "its directory cannot be opened"),
    "a link": (linked, "is a symbolic link"),
    "a FIFO": (fifo, "no regular file"),
    "a socket": (listening, "no regular file"),
    "file of another user": (lambda case: write_in(case, "x", uid=OTHER_UID, mode=0o755), "does not belong to"),
    "file of another group": (lambda case: write_in(case, "x", gid=OTHER_UID), "does not belong to"),
    "file of root in a tenant's directory": (hard_linked, "does not belong to"),
    "directory of another user": (lambda case: write_in(case, "x", dir_uid=OTHER_UID, dir_mode=0o755), "its directory belongs neither"),
    "directory of another group": (lambda case: write_in(case, "x", dir_gid=OTHER_UID), "its directory belongs neither"),
    "file that the group writes": (lambda case: write_in(case, "x", mode=0o720), "it can be written to by group or others"),
    "file that others write": (lambda case: write_in(case, "x", mode=0o702), "it can be written to by group or others"),
    "directory that the group writes": (lambda case: write_in(case, "x", dir_mode=0o770), "its directory can be written to"),
    "directory that others write": (lambda case: write_in(case, "x", dir_mode=0o707), "its directory can be written to"),
    "set-user-id": (lambda case: write_in(case, "x", mode=0o4700), "set-user-id or set-group-id"),
    "set-group-id": (lambda case: write_in(case, "x", mode=0o2700), "set-user-id or set-group-id"),
    "not executable": (lambda case: write_in(case, "x", mode=0o600), "not executable"),
    "executable by others alone": (lambda case: write_in(case, "x", mode=0o655), "not executable"),
    "no interpreter named": (with_line(b"#!\necho\n"), "names no interpreter"),
    "relative interpreter": (with_line(b"#!sh\n"), "names no interpreter"),
    "endless first line": (with_line(b"#!/" + b"x" * 5000), "names no interpreter"),
    "NUL in the first line": (with_line(b"#!/bin/sh\0x\n"), "names no interpreter"),
    "CR LF": (with_line(b"#!/bin/sh\r\necho ran\r\n"), "ends with CR LF"),
    "interpreter that is not there": (with_line(b"#!/no/such\n"), "interpreter in its first line cannot be opened: No such file"),
    "interpreter that is a directory": (with_line(b"#!/bin\n"), "interpreter in its first line is no executable file"),
    "interpreter that is not executable": (with_line(b"#!/etc/passwd\n"), "interpreter in its first line is no executable file"),
    "neither binary nor script": (with_line(b"echo ran\n"), "the system does not execute it: Exec format error"),
    "empty": (with_line(b""), "the system does not execute it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_each_condition_of_suexec_refuses(shared: Case, what: str) -> None:
    """Each breach has its own words on the program's standard error, and nothing runs."""
    make, words = REFUSED[what]
    path = make(shared)
    out, err = shared.run(path)
    assert out == ""
    assert err.startswith(f"{path} is not executed: ")
    assert words in err
    assert err.count("\n") == 1


def inner_link(case: Case) -> Path:
    write_in(case, "ok")
    (case.root / "inner").unlink(missing_ok=True)
    (case.root / "inner").symlink_to("ok")
    return case.root / "inner" / "p.cgi"


KEPT: dict[str, Callable[[Case], Path]] = {
    "plain": lambda case: write_in(case, "ok"),
    "mode 755 in 755": lambda case: write_in(case, "ok", mode=0o755, dir_mode=0o755),
    "deep": lambda case: [(case.root / "a" / "b").mkdir(parents=True, exist_ok=True), os.chown(case.root / "a", UID, UID),
                          write_in(case, "a/b")][-1],  # type: ignore[list-item,return-value]
    "of root in a directory of root's": lambda case: write_in(case, "roots", uid=0, gid=0, mode=0o755, dir_uid=0, dir_gid=0, dir_mode=0o755),
    "below a link inside": inner_link,
    "CR LF further down": with_line(b"#!/bin/sh\necho ran # \r\n"),
    "spaces": with_line(b"#! \t/bin/sh \t \necho ran\n"),
    "env": with_line(b"#!/usr/bin/env sh\necho ran\n"),
    "first line is all": with_line(b"#!/bin/echo ran"),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_keeps_the_conditions_is_executed(shared: Case, what: str) -> None:
    """The positive of every test above."""
    out, err = shared.run(KEPT[what](shared))
    assert (out.split()[0], err) == ("ran", "")


def test_a_root_may_be_one_program() -> None:
    """ScriptAlias of a file: that file, and none beside it or below a name that begins so."""
    with Case(roots=("/usr/bin/echo",)) as case:
        assert case.run(Path("/usr/bin/echo"), arguments=("ran",)) == ("ran\n", "")
        for path in (Path("/usr/bin/id"), Path("/usr/bin/echo/id"), Path("/usr/bin/ech")):
            out, err = case.run(path)
            assert (out, err.startswith(f"{path} is not executed: ")) == ("", True)


def test_a_binary_that_cannot_be_read_is_executed(shared: Case) -> None:
    """Mode 0100 of its owner is enough for a binary."""
    path = shared.program("true", Path("/bin/echo").read_bytes(), mode=0o100)
    assert shared.run(path, arguments=("x",)) == ("x\n", "")


def test_what_is_swapped_meanwhile_is_never_executed_wrongly(shared: Case) -> None:
    """While a binary and a link to another's, and directories, change places: it runs as checked, or is refused (CVE-2007-1741)."""
    right, wrong = shared.root / "swap", shared.base / "wrong"
    for path in (right, wrong):
        if not path.exists():
            shared.make_directory(path)
    for path, word in ((right, "right"), (wrong, "WRONG")):
        (path / "p").write_bytes(Path("/bin/echo").read_bytes())
        (path / "script").write_text(f"#!/bin/echo {word}\n")
        for name in ("p", "script"):
            (path / name).chmod(0o700)
            os.chown(path / name, UID, UID)
    os.chown(wrong / "p", OTHER_UID, OTHER_UID)  # would be refused if it were looked at
    (shared.root / "link").symlink_to(wrong)
    (right / "to").symlink_to(wrong / "p")
    stop, swaps = threading.Event(), [0]

    def swap() -> None:
        flags = 2  # RENAME_EXCHANGE
        while not stop.is_set():
            procs._libc.renameat2(-100, bytes(right / "p"), -100, bytes(right / "to"), flags)
            procs._libc.renameat2(-100, bytes(right), -100, bytes(shared.root / "link"), flags)
            swaps[0] += 2

    thread = threading.Thread(target=swap)
    thread.start()
    outcomes: dict[str, int] = {}
    try:
        deadline = time.monotonic() + 60
        while (swaps[0] < 5000 or sum(outcomes.values()) < 300) and time.monotonic() < deadline:
            out, err = shared.run(right / "p", arguments=("ran",))
            assert (out, err) == ("ran\n", "") or (out == "" and "is not executed" in err)
            outcomes["ran" if out else "refused"] = outcomes.get("ran" if out else "refused", 0) + 1
            out, err = shared.run(right / "script")
            assert out == "" or out.startswith("right "), out
    finally:
        stop.set()
        thread.join()
    assert swaps[0] >= 5000
    assert set(outcomes) == {"ran", "refused"}, outcomes


# ---------------------------------------------------------------- limits


def test_limits_and_nice_value_are_each_programs() -> None:
    """CPU time, memory and processes as configured, soft and hard; nice; `max` is what the system allows."""
    with Case(limits=Limits(cpu=(5, 7), mem=(1 << 30, -1), nproc=(50, 60)), nice=7) as one:
        out, _ = one.shell("ulimit -St; ulimit -Ht; ulimit -Sv; ulimit -Hv; nice; cat /proc/self/limits | grep processes")
        assert out.split()[:5] == ["5", "7", str(1 << 20), "unlimited", "7"]
        assert out.split()[7:9] == ["50", "60"]


def test_a_program_that_burns_the_processor_is_ended() -> None:
    """RLimitCPU."""
    with Case(limits=Limits(cpu=(1, 1))) as one:
        started = time.monotonic()
        assert one.shell("echo begun; while :; do :; done")[0] == "begun\n"
        assert time.monotonic() - started < 15


BOMB = """#!/usr/bin/python3 -I
import os
while True:
    try:
        os.fork()
    except BlockingIOError:
        pass
"""


def test_a_fork_bomb_stays_within_its_number() -> None:
    """RLimitNPROC bounds it, the runner goes on, and the cancel ends all of it."""
    with Case(limits=Limits(nproc=(40, 40))) as one:
        bomb = one.start(one.program("bomb", BOMB))
        wait_until(lambda: len(pids_of(one.uid)) >= 35, "the bomb has gone off")
        assert len(pids_of(one.uid)) <= 42
        bomb.cancel()
        wait_until(lambda: not one.pids(), "all of it is gone", 15)
        bomb.close()
        assert one.shell("echo fine")[0] == "fine\n"


# ---------------------------------------------------------------- cancel, end


def begin(case: Case, text: str = FOREVER, name: str = "long") -> Run:
    """Start a program and wait until it says that it runs."""
    run = case.start(case.program(name, text), stdin=None)
    assert run.read().startswith(b"begun")
    return run


def test_cancel_ends_the_whole_group(shared: Case) -> None:
    """The program and its children get TERM; descriptors close, nothing stays."""
    wait_until(lambda: shared.pids() == [], "what earlier tests ran has ended")
    run = begin(shared, "#!/bin/sh\nsleep 1001 & sleep 1002 &\necho begun\nwait\n")
    assert len(shared.pids()) == 3
    run.cancel()
    run.finish(timeout_s=5)
    wait_until(lambda: not shared.pids(), "its processes are gone")


def test_who_ignores_term_is_killed(shared: Case) -> None:
    """KILL follows 2 s later; the leader's exit does not save what is left of its group."""
    run = begin(shared, "#!/bin/sh\ntrap '' TERM\necho begun\nwhile :; do sleep 1; done\n")
    other = begin(shared, "#!/bin/sh\n(trap '' TERM; sleep 1003) &\necho begun\nwait\n", "leaves")
    started = time.monotonic()
    run.cancel()
    other.cancel()
    run.finish(timeout_s=8)
    other.finish(timeout_s=8)
    assert 1 < time.monotonic() - started < 6
    wait_until(lambda: not shared.pids(), "its processes are gone")


def test_what_a_program_leaves_in_its_group_is_ended(shared: Case) -> None:
    """It ends by itself; TERM for the others a moment later, KILL for who ignores it. Nobody has to ask for that."""
    told = shared.root / "told"
    # $$ is the shell, if it is there
    hears = "(trap 'kill -0 $$ || echo alone >told; exit' TERM; echo >hears; while :; do sleep 1004 & wait; done) 3>&- &"
    ignores = "(trap '' TERM; echo >ignores; exec sleep 1005 3>&-) &"
    text, _ = shared.shell(f"exec 3>&1 >/dev/null 2>&1 </dev/null; {hears} {ignores} "
                           "until [ -e hears ] && [ -e ignores ]; do sleep 0.01; done; echo begun >&3")
    assert text == "begun\n"
    wait_until(told.exists, "TERM came when the shell itself was gone")
    wait_until(lambda: not shared.pids(), "its group is gone", 8)


def test_a_stopped_program_is_ended_too(shared: Case) -> None:
    """SIGSTOP is no way to stay."""
    run = begin(shared, "#!/bin/sh\necho begun\nkill -STOP $$\n")
    run.cancel()
    run.finish(timeout_s=8)
    wait_until(lambda: not shared.pids(), "its processes are gone")


def test_cancel_of_another_number_does_nothing(shared: Case) -> None:
    """Unknown and ended jobs are no error."""
    run = begin(shared)
    for number in (0, run.number + 1, 2**64 - 1):
        shared.send(wire.Job(wire.CANCEL, number))
    assert shared.shell("echo fine")[0] == "fine\n"
    assert shared.pids()
    run.cancel()
    run.finish()


DAEMON = """#!/usr/bin/python3 -I
import os, sys, time
if os.fork():
    print("begun", flush=True)
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for fd in (0, 1, 2):
    os.close(fd)
os.chdir("/")
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_runner(number: int) -> None:
    """Programs, their children, and what made itself a daemon: the namespace ends with its PID 1."""
    with Case() as one:
        long = begin(one)
        stubborn = begin(one, "#!/bin/sh\ntrap '' TERM\necho begun\nwhile :; do sleep 1; done\n", "stubborn")
        begin(one, DAEMON, "daemon").finish()
        wait_until(lambda: sum(comm_of(pid) in {"daemon", "python3"} for pid in one.pids()) == 1, "the daemon is alone")
        assert one.end(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        wait_until(lambda: not pids_of(one.uid), "nothing is left")
        long.close()
        stubborn.close()


def test_nothing_outlives_the_dispatcher() -> None:
    """kill -9 of the parent is the end of the runner and of all below it."""
    with Case() as one:
        run = begin(one)
        one.process.kill()
        wait_until(lambda: not pids_of(one.uid), "nothing is left")
        run.close()


def test_without_namespaces_it_says_so_and_still_ends_what_it_started() -> None:
    """As in a container without CAP_SYS_ADMIN: one line in the log; at its end even daemons are ended."""
    with Case(has_namespaces=False) as one:
        assert one.shell("echo fine")[0] == "fine\n"
        assert one.log().count("no PID namespace can be made for runners (errno 1)") == 1
        assert procs.read_status(one.pid)["NSpid"] == str(one.pid)
        assert status_of(one.run(one.program("status", STATUS))[0])["Seccomp"] == "2"
        run = begin(one)
        begin(one, DAEMON, "daemon").finish()
        wait_until(lambda: len(one.pids()) == 2, "the daemon is alone")
        assert one.end() == 0
        assert not pids_of(one.uid)
        run.close()


FORGER = """#!/usr/bin/python3
import ctypes, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
for number in (signal.SIGTERM, signal.SIGUSR1):
    info = struct.pack("=iiii", number, 0, -1, 0) + bytes(112)  # SI_QUEUE, from pid 0
    print(libc.syscall(129, 1, number, info), flush=True)  # rt_sigqueueinfo, to the runner
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of a system call")
def test_a_signal_that_names_no_sender_is_a_programs_still(shared: Case) -> None:
    """rt_sigqueueinfo(2) lets a program say that it comes from outside: the runner goes on, and takes jobs."""
    assert shared.run(shared.program("forger", FORGER))[0] == "0\n0\n"
    for _ in range(3):
        assert shared.shell("echo here")[0] == "here\n"


def test_messages_with_odd_descriptors_cost_nothing(shared: Case) -> None:
    """WAKEs and LOGs with whatever a child that was taken over holds: no descriptor of the runner's is left behind."""
    shared.shell("true")
    before = len(os.listdir(f"/proc/{shared.pid}/fd"))
    with open("/dev/null", "rb") as null:
        for _ in range(50):
            shared.send(wire.Job(wire.WAKE, 0, 0), (null.fileno(),))
            shared.send(wire.Job(wire.LOG, 0), (null.fileno(),))
    shared.shell("true")
    assert len(os.listdir(f"/proc/{shared.pid}/fd")) <= before
    assert "a log that is no file to append to" in shared.log()


def test_usr1_lets_programs_finish_and_takes_no_more() -> None:
    """A successor reads the box; what runs goes on."""
    with Case() as one:
        run = begin(one, "#!/bin/sh\necho begun\nread x\necho got $x\n")
        os.kill(one.pid, signal.SIGUSR1)
        wait_until(lambda: len(os.listdir(f"/proc/{one.pid}/fd")) > 0, "it is alive")
        late = one.start(one.root / "long")
        os.write(run.stdin, b"it\n")
        assert run.finish()[0] == "got it\n"
        assert one.wait() == 0
        late.close()


def test_an_idle_runner_ends_by_itself() -> None:
    """After idle_s without a job; one that runs keeps it."""
    with Case(idle_s=1) as one:
        run = begin(one)
        time.sleep(1.6)
        assert is_alive(one.pid)
        run.cancel()
        run.finish()
        assert one.wait() == 0


def test_orphans_are_reaped(shared: Case) -> None:
    """PID 1 waits for whoever lost their parent: no zombie stays."""
    shared.shell("for i in 1 2 3 4 5; do (sleep 0.05 &) ; done")
    wait_until(lambda: not shared.pids(), "nothing is left, zombies neither")


# ---------------------------------------------------------------- the box


def dropped_in(log: str) -> int:
    """Return how many jobs a runner says that it has dropped."""
    return log.count("a job breaks the rules: ") + sum(int(number) for number in re.findall(r"(\d+) more jobs broke the rules", log))


def test_broken_messages_are_dropped_and_named(shared: Case) -> None:
    """No crash, no descriptor kept, a line in the log; the next job runs."""
    before = sorted(procs.descriptors(shared.pid))
    good = wire.encode_job(wire.Job(wire.RUN, 1, 0, b"/x"))
    reader, writer = os.pipe()
    for raw, fds in ((b"x", ()), (b"", (reader,)), (good, (reader,)), (good, (reader,) * 4), (good, (reader,) * 200), (good[:-1], (reader,) * 3),
                     (b"\0" * 131072, (reader,) * 3), (wire.encode_job(wire.Job(wire.CANCEL, 1)), (reader, writer))):
        with contextlib.suppress(OSError):
            socket.send_fds(shared.box, [raw], fds)
    os.close(reader)
    os.close(writer)
    assert shared.shell("echo fine")[0] == "fine\n"
    wait_until(lambda: not shared.pids(), "it has ended")
    assert sorted(procs.descriptors(shared.pid)) == before
    wait_until(lambda: dropped_in(shared.log()) >= 7, "all are counted")
    said = shared.log().count("broke the rules") + shared.log().count("a job breaks the rules")
    for _ in range(500):
        shared.send(wire.Job(wire.WAKE, 1))
    assert shared.shell("echo fine")[0] == "fine\n"
    wait_until(lambda: dropped_in(shared.log()) >= 507, "all are counted")
    assert shared.log().count("broke the rules") + shared.log().count("a job breaks the rules") - said < 20


def test_a_refusal_never_waits_for_its_reader(shared: Case) -> None:
    """A full pipe as standard error holds nobody up."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    os.set_blocking(writer, True)
    shared.send(wire.Job(wire.RUN, 99, 0, b"/usr/bin/id"), (writer, writer, writer))
    assert shared.shell("echo fine")[0] == "fine\n"
    os.close(reader)
    os.close(writer)


def test_the_largest_job_arrives(shared: Case) -> None:
    """100 KB of environment, 256 arguments."""
    sent = tuple(f"V{index}={'x' * 1000}" for index in range(100))
    binary = shared.program("env", Path("/usr/bin/env").read_bytes())
    assert len(shared.run(binary, environment=sent)[0]) > 100_000
    echo = shared.program("echo", Path("/bin/echo").read_bytes())
    assert len(shared.run(echo, arguments=("y",) * 256)[0].split()) == 256
