"""The demo: three tenants, one port, a table from real requests, and nothing left behind, however it ends."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild import demo, demo_echo

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
NAMES = ("alice", "bob", "carol")
TIMEOUT_S = 60
ROW = re.compile(r"^http://(\w+)\.localhost:(\d+)/ +(\d+) +(\d+) +(accepted|handed over) +uid (\d+)$", re.MULTILINE)
PROGRAM_ROW = re.compile(r"^http://(\w+)\.localhost:\d+(/\S+) +(\d+) +(\w+)$", re.MULTILINE)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may pass and write, for the demo's temporary files."""
    base = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    base.chmod(0o1777)
    try:
        yield base
    finally:
        shutil.rmtree(base)


@pytest.fixture
def tree(place: Path) -> Iterator[Path]:
    """The package where every user may read it, whatever the modes above the working tree are."""
    target = Path(tempfile.mkdtemp(prefix="demo-tree-", dir="/tmp"))
    try:
        shutil.copytree(PROJECT / "perchild", target / "perchild", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (target, *target.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield target
    finally:
        shutil.rmtree(target)


@contextlib.contextmanager
def started(place: Path, tree: Path, *words: str, uid: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """The demo, running; whatever the test does with it, it is ended and waited for."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(place), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree), "HOME": "/"}
    who = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    with subprocess.Popen([PYTHON, "-m", "perchild", "demo", *words], cwd="/", env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **who) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TIMEOUT_S)
            process.kill()


def run(place: Path, tree: Path, *words: str, uid: int | None = None) -> tuple[int, str]:
    with started(place, tree, *words, uid=uid) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output


def processes_of(place: Path) -> list[int]:
    """Processes whose command line or environment names `place`: the demo's, its server's, its children's."""
    mark = str(place).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def wait_for_table(process: subprocess.Popen[str]) -> str:
    output = ""
    assert process.stdout
    for line in process.stdout:
        output += line
        if line.startswith("Ctrl-C"):
            return output
    raise AssertionError(output)


@needs_root
@pytest.mark.root
def test_demo_serves_three_tenants_under_three_uids_of_nobody(place, tree):
    """As root each site is served under its own uid, which owns its file and which no user has, by a process of its own."""
    status, output = run(place, tree, "--once")
    rows = ROW.findall(output)
    assert status == 0, output
    assert tuple(row[0] for row in rows) == NAMES, output
    assert len({row[1] for row in rows}) == 1
    uids = [int(row[2]) for row in rows]
    assert uids == [int(row[5]) for row in rows]
    assert len(set(uids)) == 3
    assert not {entry.pw_uid for entry in pwd.getpwall()} & set(uids)
    assert len({row[3] for row in rows}) == 3, "one process each"
    assert [row[4] for row in rows] == ["handed over"] * 3, "no tenant's child listens"


def installed_programs() -> dict[str, str]:
    """Paths and kinds of the programs that can run here, looked for in other ways than the demo's."""
    found = {"/cgi-bin/who": "CGI", "/echo/": "WebSocket"}
    if list(Path("/usr/sbin").glob("php-fpm?*")):
        found["/who.php"] = "PHP"
    if Path("/usr/lib/python3/dist-packages/waitress").exists():
        found["/wsgi"] = "WSGI"
    return found


@needs_root
@pytest.mark.root
def test_demo_shows_each_tenants_programs_under_the_tenants_uid(place, tree):
    """Every kind that is installed answers for each tenant, with the uid that its pages are served under."""
    status, output = run(place, tree, "--once")
    assert status == 0, output
    pages = {name: uid for name, _, uid, *_ in ROW.findall(output)}
    programs = installed_programs()
    assert sorted(PROGRAM_ROW.findall(output)) == sorted((name, path, pages[name], kind) for name in NAMES for path, kind in programs.items())
    assert ("Left out: PHP" in output) == ("/who.php" not in programs)
    assert ("Left out: WSGI" in output) == ("/wsgi" not in programs)


def test_demo_leaves_out_what_is_not_installed_and_names_its_package(place, tree):
    """Where there is no php-fpm the others run, and the package's name is said."""
    commands = tree / "perchild/runner/commands.py"
    commands.write_text(re.sub(r"PHP_DIRECTORIES = .*", 'PHP_DIRECTORIES = ("/nowhere",)', commands.read_text()))
    status, output = run(place, tree, "--once")
    assert status == 0, output
    assert "Left out: PHP. It needs: apt-get install php-fpm" in output
    assert {path for _, path, *_ in PROGRAM_ROW.findall(output)} == set(installed_programs()) - {"/who.php"}


def test_demo_says_why_a_program_did_not_run(place, tree):
    """The row has its status, the error log's words follow, --once ends with status 1, and the other programs are shown."""
    programs = tree / "perchild/demo_programs.py"
    programs.write_text(programs.read_text().replace("#!/bin/sh", "#!/nowhere/sh"))
    status, output = run(place, tree, "--once")
    assert status == 1, output
    assert len(re.findall(r"/cgi-bin/who +status 500 +CGI$", output, re.MULTILINE)) == 3
    assert "cgi-bin/who is not executed: " in output
    assert {kind for *_, kind in PROGRAM_ROW.findall(output)} == set(installed_programs().values()) - {"CGI"}
    assert list(place.iterdir()) == []


@needs_root
@pytest.mark.root
def test_demo_leaves_no_file_and_no_process_when_done(place, tree):
    """After --once the temporary directory is empty, no process of it lives and nobody listens on the port."""
    _, output = run(place, tree, "--once")
    port = int(ROW.findall(output)[0][1])
    assert list(place.iterdir()) == []
    assert processes_of(place) == []
    with pytest.raises(ConnectionRefusedError):  # the port may be some client's by now: it is among those that connections get
        socket.create_connection((demo.ADDRESS, port), TIMEOUT_S)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_removes_all_it_made_when_a_signal_ends_it(place, tree, number):
    """Ctrl-C, TERM and a closed terminal end the server and remove the files, with status 0."""
    with started(place, tree) as process:
        output = wait_for_table(process)
        assert list(place.iterdir()), output
        process.send_signal(number)
        rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output + rest
    assert list(place.iterdir()) == []
    assert processes_of(place) == []


@needs_root
@pytest.mark.root
def test_demo_says_why_and_removes_all_when_the_server_is_killed(place, tree):
    """A server that dies under the demo is an error that names its status, and nothing stays."""
    with started(place, tree) as process:
        output = wait_for_table(process)
        server = int(next(place.glob("perchildd-demo-*/perchildd.pid")).read_text())
        os.kill(server, signal.SIGKILL)
        rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, output + rest
    assert "the server ended with status -9" in rest
    assert list(place.iterdir()) == []


@needs_root
@pytest.mark.root
def test_demo_says_which_when_the_port_is_taken(place, tree):
    """With a port in use the demo ends with status 1 and the server's own words."""
    with socket.socket() as taken:
        taken.bind((demo.ADDRESS, 0))
        taken.listen()
        status, output = run(place, tree, "--once", "--port", str(taken.getsockname()[1]))
    assert status == 1
    assert "Address already in use" in output
    assert list(place.iterdir()) == []


@needs_root
@pytest.mark.root
def test_demo_gives_each_tenant_files_that_only_the_tenant_reads(place, tree):
    """While it runs, the sites' directories and files are their tenants' own, closed to all others."""
    with started(place, tree) as process:
        rows = ROW.findall(wait_for_table(process))
        base = next(place.glob("perchildd-demo-*"))
        for name, _, uid, *_ in rows:
            root = base / name / "public_html"
            for path, mode in ((base / name, 0o700), (root, 0o700), (root / "index.html", 0o600)):
                assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (int(uid), mode)


@needs_root
@pytest.mark.root
def test_demo_keeps_each_tenants_logs_in_its_own_home_as_its_own_files(place, tree):
    """When the server has ended in order, each tenant's access log names its request, belongs to it, and nothing was refused."""
    with started(place, tree) as process:
        rows = ROW.findall(wait_for_table(process))
        base = next(place.glob("perchildd-demo-*"))
        kept = {name: (base / name / "logs" / "access.log").open() for name, *_ in rows}
        errors = (base / "said").open()
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
    with contextlib.ExitStack() as stack:
        for name, _, uid, *_ in rows:
            log = stack.enter_context(kept[name])
            assert '"GET /whoami HTTP/1.1" 200' in log.read()
            assert os.fstat(log.fileno()).st_uid == int(uid)
        assert "denied" not in stack.enter_context(errors).read()


def test_demo_runs_as_another_user_and_says_under_which_uids(place, tree):
    """Without root it serves all three, in a namespace or under the caller's one uid, and says which."""
    uid = demo.pick_ids(1, 45_000)[0] if os.geteuid() == 0 else None
    status, output = run(place, tree, "--once", uid=uid)
    rows = ROW.findall(output)
    assert status == 0, output
    assert tuple(row[0] for row in rows) == NAMES, output
    caller = str(uid if uid is not None else os.geteuid())
    if "In a user namespace" in output:
        assert len({row[2] for row in rows}) == 3
    else:
        assert f"Everything runs under your one uid {caller}" in output
        assert {row[2] for row in rows} == {caller}
    assert all(row[2] == row[5] for row in rows)
    pages = {row[0]: row[2] for row in rows}
    assert sorted(PROGRAM_ROW.findall(output)) == sorted((name, path, pages[name], kind) for name in NAMES
                                                         for path, kind in installed_programs().items())
    assert list(place.iterdir()) == []
    assert processes_of(place) == []


def test_pick_ids_gives_numbers_that_no_user_and_no_group_has():
    """Ids of the machine's users are passed over."""
    taken = [entry.pw_uid for entry in pwd.getpwall()]
    assert not set(demo.pick_ids(5, 1)) & set(taken)


def test_render_table_aligns_columns_and_puts_numbers_to_the_right():
    """Every column is as wide as its widest cell; figures end in one line."""
    lines = demo.render_table([["a", "n"], ["longer", "5"], ["b", "1,234"]]).splitlines()
    assert lines == ["a           n", "------  -----", "longer      5", "b       1,234"]


@pytest.mark.parametrize("mask", [b"", b"\x01\xfe\x80\x7f"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_of_the_echo_are_read_as_they_were_written(size, mask):
    """Data of all three forms of a length, with and without a mask; what is cut short is no frame."""
    frame = demo_echo.Frame(demo_echo.FINAL | demo_echo.TEXT, bytes(number % 251 for number in range(size)))
    octets = demo_echo.encode(frame, mask)
    assert demo_echo.read_frame(io.BytesIO(octets)) == frame
    assert demo_echo.read_frame(io.BytesIO(octets[:-1])) is None


def test_the_echo_takes_no_frame_longer_than_64_kib():
    """Its length alone ends the connection."""
    assert demo_echo.read_frame(io.BytesIO(b"\x81\x7f" + (65_537).to_bytes(8, "big") + bytes(65_537))) is None


def test_the_echo_accepts_a_key_as_rfc_6455_does():
    """The example of its section 1.3."""
    assert demo_echo.accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
