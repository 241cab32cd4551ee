"""The drop of privileges (native/drop.c, seccomp.c): it holds, it is verified, and any fault in it ends the process.

A driver program (drop_driver.c) drops under faults that a seccomp filter of the test's own puts into single system
calls: they fail, or they lie ("succeed" and do nothing).
Runs as: root, on a machine where ids 54321.. belong to nobody.  Trusts: the kernel's /proc.
"""

from __future__ import annotations

import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"
UID, GID, GROUPS = 54321, 54322, (54323, 54324)
IDS = (f"uid={UID}", f"gid={GID}", f"groups={','.join(map(str, GROUPS))}")
EXIT_DROP = 64
COMPILE = ("gcc", "-std=gnu17", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", f"-I{NATIVE}")
SOURCES = tuple(str(NATIVE / name) for name in ("drop.c", "seccomp.c", "util.c"))

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="drops root's privileges: needs root"),
    pytest.mark.timeout(60),
]


def read_steps() -> dict[str, int]:
    """Return the steps of enum pc_drop_step in pc.h: name without PC_DROP_ -> number."""
    body = re.search(r"enum pc_drop_step \{(.*?)\};", (NATIVE / "pc.h").read_text(), re.DOTALL)
    assert body
    names = re.findall(r"PC_DROP_(\w+),", re.sub(r"/\*.*?\*/", "", body[1]))
    assert names.pop() == "STEPS"
    return {name: number for number, name in enumerate(names)}


STEPS = read_steps()


@pytest.fixture(scope="session")
def build_dir() -> Iterator[Path]:
    """A directory that other uids may read: pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="perchildd-drop-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def driver(build_dir: Path) -> Path:
    """The compiled driver."""
    path = build_dir / "drop_driver"
    source = str(Path(__file__).with_name("drop_driver.c"))
    subprocess.run([*COMPILE, source, *SOURCES, "-o", str(path), "-lseccomp"], check=True)
    return path


def run(driver: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the driver to its end; its standard input is empty."""
    return subprocess.run([str(driver), *arguments], stdin=subprocess.DEVNULL, capture_output=True,  # type: ignore[call-overload,no-any-return]
                          text=True, timeout=30, check=False, **options)


def assert_ended_at(result: subprocess.CompletedProcess[str], step: str) -> None:
    """The process ended with the step's exit status, said one line, and never came out of the drop."""
    assert "dropped" not in result.stdout
    assert result.returncode == EXIT_DROP + STEPS[step], result.stderr
    assert result.stderr.count("\n") == 1
    assert "privileges not dropped: " in result.stderr


# ----------------------------------------------------------------------------------------------- faults

EPERM, EAGAIN = 1, 11
LIE = 0
PR = {"pdeathsig": 1, "get_dumpable": 3, "dumpable": 4, "capbset_read": 23, "capbset_drop": 24, "securebits": 28,
      "no_new_privs": 38, "ambient": 47}


def prctl(operation: str, error: int) -> str:
    """A fault in one operation of prctl(2)."""
    return f"fault=prctl:{error}:0:{PR[operation]}"


# Step that must notice, and what is done to the process.
FAULTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("DESCRIPTORS", (f"fault=close_range:{EPERM}",)),
    ("DESCRIPTORS", ("keep=250",)),
    ("DESCRIPTORS", ("keep=-1",)),
    ("SESSION", (f"fault=setsid:{EPERM}",)),
    ("SESSION", (f"fault=chdir:{EPERM}",)),
    ("SESSION", ("fault=unshare:22",)),
    ("LIMITS", (f"fault=prlimit64:{EPERM}",)),
    ("LIMITS", (f"fault=prlimit64:{LIE}",)),
    ("KEYRING", (f"fault=keyctl:{EPERM}",)),
    ("KEYRING", ("fault=keyctl:38",)),
    ("KEYRING", (f"fault=keyctl:{LIE}",)),
    ("BOUNDING", (prctl("capbset_drop", EPERM),)),
    ("BOUNDING", (prctl("capbset_read", EPERM),)),
    ("AMBIENT", (prctl("ambient", EPERM),)),
    ("SECUREBITS", (prctl("securebits", EPERM),)),
    ("GROUPS", (f"fault=setgroups:{EPERM}",)),
    ("GID", (f"fault=setresgid:{EPERM}",)),
    ("UID", (f"fault=setresuid:{EAGAIN}",)),
    ("UID", (f"fault=setresuid:{EPERM}",)),
    ("CAPABILITIES", (f"fault=capset:{EPERM}",)),
    ("VERIFY_IDS", (f"fault=setgroups:{LIE}",)),
    ("VERIFY_IDS", (f"fault=setresgid:{LIE}",)),
    ("VERIFY_IDS", (f"fault=setresuid:{LIE}",)),
    ("VERIFY_IDS", (f"fault=getresuid:{EPERM}",)),
    ("VERIFY_IDS", (f"fault=getresuid:{LIE}",)),
    ("VERIFY_IDS", (f"fault=getresgid:{LIE}",)),
    ("VERIFY_IDS", (f"fault=getgroups:{EPERM}",)),
    ("VERIFY_IDS", (f"fault=getgroups:{LIE}",)),
    ("VERIFY_IDS", (f"fault=setfsuid:{LIE}",)),
    ("VERIFY_IDS", (f"fault=setfsgid:{LIE}",)),
    ("VERIFY_BACK", (f"fault=setresuid:{LIE}:1:0",)),
    ("VERIFY_BACK", (f"fault=setresuid:{LIE}:0:0",)),
    ("VERIFY_BACK", (f"fault=setresuid:{EAGAIN}:2:0",)),
    ("VERIFY_BACK", (f"fault=setreuid:{LIE}",)),
    ("VERIFY_BACK", (f"fault=setuid:{LIE}",)),
    ("VERIFY_BACK", (f"fault=setresgid:{LIE}:1:0",)),
    ("VERIFY_BACK", (f"fault=setregid:{LIE}",)),
    ("VERIFY_BACK", (f"fault=setgid:{LIE}",)),
    ("VERIFY_BACK", (f"fault=setgroups:{LIE}:0:0",)),
    ("VERIFY_CAPABILITIES", (f"fault=capget:{EPERM}",)),
    ("VERIFY_CAPABILITIES", (f"fault=capget:{LIE}",)),
    ("VERIFY_CAPABILITIES", ("inherit=1", f"fault=capset:{LIE}")),
    ("VERIFY_CAPABILITIES", (prctl("capbset_drop", LIE),)),
    ("VERIFY_CAPABILITIES", (prctl("securebits", LIE),)),
    ("DUMPABLE", (prctl("dumpable", EPERM),)),
    ("DUMPABLE", (prctl("get_dumpable", EPERM),)),
    ("PARENT", (prctl("pdeathsig", EPERM),)),
    ("PARENT", (prctl("pdeathsig", LIE),)),
    ("PARENT", ("parent=wrong",)),
    ("NO_NEW_PRIVS", (prctl("no_new_privs", EPERM),)),
    ("NO_NEW_PRIVS", (prctl("no_new_privs", LIE),)),
    ("SECCOMP", (f"fault=seccomp:{EPERM}",)),
    ("SECCOMP", (f"fault=seccomp:{LIE}",)),
)


@pytest.mark.parametrize(("step", "arguments"), FAULTS, ids=[f"{step}-{'-'.join(what)}" for step, what in FAULTS])
def test_a_fault_in_any_step_ends_the_process(driver: Path, step: str, arguments: tuple[str, ...]) -> None:
    """A call that fails or lies ends the process with PC_EXIT_DROP + step; it never serves."""
    assert_ended_at(run(driver, *IDS, *arguments), step)


def test_every_step_has_a_fault() -> None:
    """No step of the table is without a row above."""
    assert {step for step, _ in FAULTS} == set(STEPS)


@pytest.mark.parametrize(("step", "arguments"), [
    ("UID", ("uid=0", f"gid={GID}")),
    ("UID", ("uid=4294967295", f"gid={GID}")),
    ("GID", (f"uid={UID}", "gid=0")),
    ("GID", (f"uid={UID}", "gid=4294967295")),
    ("GROUPS", (f"uid={UID}", f"gid={GID}", f"groups={GROUPS[0]},0")),
    ("UID", ("uid=0", "gid=0", "priv=0")),
])
def test_root_is_refused_before_anything_is_done(driver: Path, step: str, arguments: tuple[str, ...]) -> None:
    """Uid 0, gid 0, group 0 and -1 are no identities; close_range, the first call of all, is not reached."""
    assert_ended_at(run(driver, *arguments, f"fault=close_range:{EPERM}"), step)


# ----------------------------------------------------------------------------------------------- what holds afterwards


@contextmanager
def dropped(driver: Path, *arguments: str, fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process that has dropped and waits; ends when the block does."""
    command = [str(driver), *IDS, *arguments, "do=wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "dropped\n"
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


def read_status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status as name -> value."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


GOLDEN = {
    "Uid": "\t".join([str(UID)] * 4), "Gid": "\t".join([str(GID)] * 4), "Groups": " ".join(map(str, GROUPS)),
    "CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16, "CapAmb": "0" * 16,
    "NoNewPrivs": "1", "Seccomp": "2", "Threads": "1",
}


@pytest.mark.parametrize("before", [(), ("inherit=1",), ("userns=1",)], ids=["plain", "inheritable", "user-namespace"])
def test_status_is_the_golden_one(driver: Path, before: tuple[str, ...]) -> None:
    """Ids, groups, capabilities, no_new_privs and seccomp of a dropped process are these and no others."""
    with dropped(driver, *before) as process:
        status = read_status(process.pid)
        assert {name: status[name] for name in GOLDEN} == GOLDEN
        assert int(status["Seccomp_filters"]) == int(read_status(os.getpid())["Seccomp_filters"]) + 1  # a container has its own
        assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0, "dumpable: /proc/PID belongs to the tenant"


def test_no_supplementary_groups_means_none(driver: Path) -> None:
    """An empty list leaves no group of root's behind."""
    with dropped(driver, "groups=") as process:
        assert read_status(process.pid)["Groups"] == ""


def test_facts_that_proc_does_not_show(driver: Path) -> None:
    """Dumpable, death signal, securebits, umask, directory, environment, session and limits."""
    result = run(driver, *IDS, "nofile=300", "do=facts", env={"LD_PRELOAD": "", "SECRET": "x"}, cwd="/usr")
    facts = dict(line.split(" ", 1) for line in result.stdout.splitlines()[1:])
    assert facts == {
        "dumpable": "0", "pdeathsig": str(int(signal.SIGKILL)), "securebits": str(0b11101011), "umask": "77", "cwd": "/",
        "environment": "empty", "session": "own", "core": "0 0", "nofile": "300 300",
    }


def test_the_time_zone_outlives_the_environment(driver: Path) -> None:
    """TZ stays, for log lines are in the operator's zone; nothing else does."""
    result = run(driver, *IDS, "do=facts", env={"A": "1", "TZ": "Asia/Tokyo", "Z": "1"})
    assert "environment TZ=Asia/Tokyo\n" in result.stdout


def test_open_descriptors_are_exactly_the_kept_ones(driver: Path) -> None:
    """0, 1, 2 and the list stay, in any order and named twice; everything else is closed."""
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
    try:
        keep = (opened[6], opened[1], opened[6], opened[2], 1)
        with dropped(driver, f"keep={','.join(map(str, keep))}", fds=tuple(opened)) as process:
            have = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
        assert have == {0, 1, 2, *keep}
    finally:
        for fd in opened:
            os.close(fd)


def test_closed_standard_descriptors_become_the_null_device(driver: Path) -> None:
    """A child without stderr gets /dev/null there, not its first client."""
    with dropped(driver, "close=2") as process:
        assert os.readlink(f"/proc/{process.pid}/fd/2") == "/dev/null"
        assert {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")} == {0, 1, 2}


@pytest.mark.skipif(not Path("/proc/keys").exists(), reason="this kernel has no keyrings")
def test_the_session_keyring_is_a_new_one(driver: Path) -> None:
    """Keys in the caller's session keyring are not the child's."""
    assert run(driver, *IDS, "seccomp=0", "do=keyring").stdout == "dropped\nkeyring new\n"


TRIES_OK = {"prlimit_self", "personality_query", "socket_inet", "socket_inet6", "socket_unix", "semop", "semctl", "flock",
            "fcntl"}
TRIES_OTHER = {"clone3": "ENOSYS", "no_new_privs_off": "EINVAL"}


def test_every_way_out_is_refused_with_its_errno(driver: Path) -> None:
    """Programs, processes, ids, namespaces, wide kernel calls, listeners and odd sockets: EPERM; locks still work."""
    result = run(driver, *IDS, "do=tries")
    tried = dict(line.split(" ") for line in result.stdout.splitlines()[1:])
    assert len(tried) > 60
    wanted = {name: "ok" if name in TRIES_OK else TRIES_OTHER.get(name, "EPERM") for name in tried}
    assert tried == wanted
    assert set(wanted) >= TRIES_OK | set(TRIES_OTHER)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 are x86-64's")
@pytest.mark.parametrize("abi", ["x32", "i386"])
def test_foreign_system_call_numbers_kill(driver: Path, abi: str) -> None:
    """A call by another ABI's numbers is not refused but the end of the process."""
    result = run(driver, *IDS, f"do={abi}")
    assert result.returncode == -signal.SIGSYS
    assert result.stdout in {"", "dropped\n"}


def test_the_child_dies_with_its_dispatcher(driver: Path) -> None:
    """kill -9 of the parent is SIGKILL for the dropped child."""
    script = 'exec 3<&0; "$0" "$@" <&3 & wait'
    command = ["/bin/sh", "-c", script, str(driver), *IDS, "do=wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "dropped\n"
        child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        child_fd = os.pidfd_open(child)
        parent.kill()
        ended = select.select([child_fd], [], [], 10)[0]
        os.close(child_fd)
    assert ended, "the child outlived its parent"


# ----------------------------------------------------------------------------------------------- without root


def test_an_unprivileged_server_drops_the_rest(driver: Path) -> None:
    """Without root everything that needs no privilege still holds: dumpable 0, no_new_privs, filter, no way back."""
    as_user = {"user": UID, "group": GID, "extra_groups": list(GROUPS)}
    result = run(driver, *IDS, "priv=0", "do=tries", **as_user)
    tried = dict(line.split(" ") for line in result.stdout.splitlines()[1:])
    assert tried["execve"] == tried["setresuid"] == tried["memfd_create"] == "EPERM", result.stderr
    facts = run(driver, *IDS, "priv=0", "do=facts", **as_user).stdout
    assert "dumpable 0\npdeathsig 9\n" in facts


@pytest.mark.parametrize("wish", [(f"uid={UID + 1}", IDS[1], IDS[2]), (IDS[0], f"gid={GID + 1}", IDS[2]),
                                  (IDS[0], IDS[1], f"groups={GROUPS[0]}")], ids=["uid", "gid", "groups"])
def test_an_unprivileged_server_cannot_be_another(driver: Path, wish: tuple[str, ...]) -> None:
    """Ids that are not already the wanted ones are noticed."""
    result = run(driver, *wish, "priv=0", user=UID, group=GID, extra_groups=list(GROUPS))
    assert_ended_at(result, "VERIFY_IDS")


# ----------------------------------------------------------------------------------------------- Python behind the drop

THREADS = """
import ctypes, os, sys, threading, subprocess, socket
class Drop(ctypes.Structure):
    _fields_ = [("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32), ("groups", ctypes.c_void_p),
                ("group_count", ctypes.c_size_t), ("keep_fds", ctypes.c_void_p), ("keep_count", ctypes.c_size_t),
                ("parent_pid", ctypes.c_int), ("nofile", ctypes.c_uint64), ("is_privileged", ctypes.c_bool),
                ("seccomp_bpf", ctypes.c_void_p), ("seccomp_count", ctypes.c_size_t), ("is_runner", ctypes.c_bool),
                ("may_gain", ctypes.c_bool), ("parent_fd", ctypes.c_int)]
library = ctypes.CDLL(sys.argv[1])
bpf, count = ctypes.c_void_p(), ctypes.c_size_t()
assert library.pc_seccomp_build_child(ctypes.byref(bpf), ctypes.byref(count)) == 0
drop = Drop(uid=54321, gid=54322, parent_pid=os.getppid(), nofile=256, is_privileged=True, seccomp_bpf=bpf.value,
            seccomp_count=count.value)
if sys.argv[2] == "two":
    gate = threading.Event()
    threading.Thread(target=gate.wait, daemon=True).start()
library.pc_drop_privileges(ctypes.byref(drop))
seen = []
threads = [threading.Thread(target=lambda: seen.append(os.getresuid())) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sorted(set(seen)))
try:
    subprocess.run(["/bin/true"])
except PermissionError:
    print("no programs")
"""


def run_python(build_dir: Path, how_many: str) -> subprocess.CompletedProcess[str]:
    """Drop inside a Python process and start threads in it."""
    library = build_dir / "drop.so"
    if not library.exists():
        subprocess.run([*COMPILE, "-shared", "-fPIC", *SOURCES, "-o", str(library), "-lseccomp"], check=True)
    return subprocess.run([sys.executable, "-I", "-c", THREADS, str(library), how_many], capture_output=True, text=True,
                          timeout=30, check=False)


def test_python_threads_start_behind_the_drop(build_dir: Path) -> None:
    """clone3 answers ENOSYS, clone with CLONE_THREAD works: threads run, programs do not."""
    result = run_python(build_dir, "one")
    assert result.stdout == f"[({UID}, {UID}, {UID})]\nno programs\n", result.stderr
    assert result.returncode == 0


def test_a_process_with_threads_is_refused(build_dir: Path) -> None:
    """Ids are changed for one thread only, so a second one, which would stay root, ends the process."""
    result = run_python(build_dir, "two")
    assert result.stdout == ""
    assert result.returncode == EXIT_DROP + STEPS["SESSION"], result.stderr
