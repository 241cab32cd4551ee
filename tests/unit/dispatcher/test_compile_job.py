"""compile's edges: records on disk, what the dispatcher takes from a job."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dispatcher_plans import make_plan

from perchild import __version__
from perchild.config.identity import Person
from perchild.dispatcher import compile as compiling
from perchild.dispatcher import start
from perchild.dispatcher.compile import (
    Outcome,
    Request,
    check_program,
    compile_by_config,
    ensure_directory,
    finish_job,
    identity_key,
    kill_job,
    make_renewer,
    stamp_program,
    start_job,
    write_records,
)
from perchild.dispatcher.loop import READ, Loop
from perchild.dispatcher.system import Sys
from perchild.wire.plan import Compiled

REQUEST = Request("x.conf", "/")


def run_job(compiler: compiling.Compiler, *, kill: bool = False, request: Request = REQUEST) -> Outcome:
    """Run one job to its end."""
    job = start_job(Sys(), request, {}, compiler, lambda: None)
    if kill:
        kill_job(Sys(), job)
    poller = select.poll()
    poller.register(job.pidfd, select.POLLIN)
    poller.poll()
    outcome = finish_job(Sys(), job)
    assert outcome is not None
    return outcome


def test_job_gives_a_plan_and_sealed_tables(tmp_path: Path) -> None:
    """The tables arrive whole, and nobody can write to them any more."""
    plan = replace(make_plan(), run_dir=str(tmp_path / "run"))

    def compiler(_request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
        return Compiled(plan, b"routes" * 100000, b"types", {"1-a": b"secret"}), ""

    outcome = run_job(compiler)
    assert outcome.plan == plan
    assert os.pread(outcome.route_fd, 1 << 20, 0) == b"routes" * 100000
    assert fcntl.fcntl(outcome.types_fd, fcntl.F_GET_SEALS) == compiling.SEALS
    with pytest.raises(PermissionError):
        os.pwrite(outcome.route_fd, b"x", 0)
    assert (tmp_path / "run/records/1-a").read_bytes() == b"secret"
    os.close(outcome.route_fd)
    os.close(outcome.types_fd)


def test_job_that_cannot_begin_leaves_no_descriptor() -> None:
    """EAGAIN at its fork, EMFILE at its pidfd: whoever asked is told, and may ask again."""
    class Full(Sys):
        def fork(self) -> int:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        start_job(Full(), REQUEST, {}, refuse, lambda: None)
    assert os.listdir("/proc/self/fd") == before


def refuse(_request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
    """A compiler that finds an error."""
    return None, "AH00526: no\n"


def fail(_request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
    """A compiler with a bug."""
    message = "a bug"
    raise KeyError(message)


def leave(_request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
    """A compiler that ends with success and no plan."""
    os._exit(0)


def hang(_request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
    """A compiler that does not end by itself."""
    signal.pause()
    return None, ""


@pytest.mark.parametrize(("compiler", "kill", "text"), [
    (refuse, False, "AH00526: no"), (fail, False, "KeyError: 'a bug'"), (leave, False, "gave no plan"), (hang, True, "signal 9"),
])
def test_failed_job_gives_text_and_no_plan(compiler: compiling.Compiler, kill: bool, text: str) -> None:  # noqa: FBT001
    """Errors, a bug, no plan, a kill: the outcome has no plan, says why, and no descriptor is left."""
    before = os.listdir("/proc/self/fd")
    outcome = run_job(compiler, kill=kill)
    assert outcome.plan is None
    assert text in outcome.text
    assert len(os.listdir("/proc/self/fd")) == len(before)


class Stuck(Sys):
    """A system in which no signal ends a process: it waits in the kernel for a file system."""

    now = 0.0

    def now_s(self) -> float:
        """Return the time that the test sets."""
        return self.now

    def signal_pidfd(self, pidfd: int, number: int) -> None:
        """Do nothing to it."""


def test_a_job_that_no_signal_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked for the reload is told why, the next one can begin, and no descriptor is left."""
    before = os.listdir("/proc/self/fd")
    sys, loop, said, answers = Stuck(), Loop(), cast("list[str]", []), cast("list[tuple[bool, str]]", [])
    events = SimpleNamespace(say=lambda *words: said.append(words[2]))
    job = start_job(sys, REQUEST, {}, hang, lambda: None)
    try:
        monkeypatch.setattr(start, "describe", lambda *_words: "")
        service = SimpleNamespace(say_status=lambda _text: None, say_ready=lambda: None)
        one: Any = start.Dispatcher.__new__(start.Dispatcher)
        one.server = SimpleNamespace(sys=sys, loop=loop, events=events, stopping=False, service=service)
        one._job, one._is_renewal, one._job_done = job, False, [lambda *answer: answers.append(answer)]
        loop.watch(job.pidfd, READ, lambda _events: None)
        for sys.now in (compiling.LIMIT_S, compiling.LIMIT_S + compiling.KILLED_S):
            assert one._job.deadline_s <= sys.now
            one._end_late_job(one._job)
        assert one._job is None
        assert [is_done for is_done, _ in answers] == [False]
        assert f"process {job.pid} cannot be ended" in answers[0][1]
        assert len(said) == 2
    finally:
        loop.close()
        os.kill(job.pid, signal.SIGKILL)
        os.waitpid(job.pid, 0)
    assert os.listdir("/proc/self/fd") == before


def test_job_holds_no_descriptor_of_the_dispatcher() -> None:
    """compile sees its four memfds and 0, 1, 2."""
    def look(_request: Request, _known: Mapping[str, int]) -> tuple[Compiled | None, str]:
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}")]
        return None, "|".join(sorted(link.split()[0] for link in held))

    with open("/etc/passwd"):
        text = run_job(look).text
    assert text == "/memfd:perchild-notes|/memfd:perchild-plan|/memfd:perchild-routes|/memfd:perchild-text|/memfd:perchild-types"


def test_records_are_written_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    """A record that is there is left alone; new ones are 0600; no temporary file stays."""
    run = str(tmp_path / "run")
    assert write_records(run, {"1-a": b"one", "2-b": b"two"}) == 2
    inode = (tmp_path / "run/records/1-a").stat().st_ino
    assert write_records(run, {"1-a": b"one", "3-c": b"three"}) == 1
    records = sorted((tmp_path / "run/records").iterdir())
    assert [record.name for record in records] == ["1-a", "2-b", "3-c"]
    assert (tmp_path / "run/records/1-a").stat().st_ino == inode
    assert {record.stat().st_mode & 0o777 for record in records} == {0o600}


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_run_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """A directory somebody else could put a record into is not used."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(PermissionError, match="nobody else can write to"):
        ensure_directory(str(tmp_path / "run"), 0o755)


def test_run_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A symbolic link is not followed."""
    (tmp_path / "run").symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        ensure_directory(str(tmp_path / "run"), 0o755)


def test_identity_key_is_that_of_the_configuration() -> None:
    """The dispatcher's key equals the one that numbers are kept by (config/identity.py)."""
    assert identity_key(7, 8, (9, 10)) == Person(7, 8, (9, 10), "x").key


# ---------------------------------------------------------------- another version's code


def test_another_versions_code_is_not_loaded(tmp_path: Path) -> None:
    """After an upgrade whose restart was refused: whichever file was replaced, added or removed is noticed; the words say what to do."""
    (tmp_path / "config").mkdir()
    (tmp_path / "__init__.py").write_text('"""The program."""\n\n__version__ = "9.9.9"\n')
    (tmp_path / "config/load.py").write_text("old")
    request = replace(REQUEST, program=stamp_program(tmp_path))
    assert check_program(request, tmp_path) == ""
    os.utime(tmp_path / "config/load.py", ns=(1, 1))
    words = check_program(request, tmp_path)
    assert f"it is version {__version__}, and version 9.9.9 is installed" in words
    assert "systemctl restart perchildd" in words
    for change in ((tmp_path / "config/new.py").touch, (tmp_path / "config/new.py").unlink,
                   lambda: (tmp_path / "_native.so").write_bytes(b"")):
        request = replace(REQUEST, program=stamp_program(tmp_path))
        change()
        assert check_program(request, tmp_path)
    (tmp_path / "__init__.py").unlink()
    assert "cannot be read" in check_program(request, tmp_path)
    assert check_program(REQUEST, tmp_path) == "", "without a stamp nothing is compared"


def test_neither_reload_nor_renewal_goes_on_with_it() -> None:
    """The server goes on with what is in force, and says why."""
    request = replace(REQUEST, program="what it was started with")
    assert "files were replaced" in compile_by_config(request, {})[1]
    for compiler in (compile_by_config, make_renewer(make_plan(), [1])):
        outcome = run_job(compiler, request=request)
        assert outcome.plan is None
        assert "files were replaced" in outcome.text


@pytest.mark.parametrize("error", [None, PermissionError()])
def test_a_job_goes_before_tenants_if_it_may(monkeypatch: pytest.MonkeyPatch, error: OSError | None) -> None:
    """A lower nice value than the dispatcher's; where that is not allowed, it goes on as it is."""
    asked: list[tuple[int, int, int]] = []

    def note(which: int, who: int, nice: int) -> None:
        asked.append((which, who, nice))
        if error is not None:
            raise error

    monkeypatch.setattr(os, "setpriority", note)
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: 3)
    assert run_job(lambda _request, _known: (None, repr(asked))).text == repr([(os.PRIO_PROCESS, 0, 3 - compiling.HURRY)])
    assert asked == []
