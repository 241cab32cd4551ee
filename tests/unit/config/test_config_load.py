"""Files, users, patterns and log directories, from the real system but without needing root or users."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perchild.config.load import Directories, Files, check_pattern, compile_config, compile_text, resolve_name
from perchild.config.model import Options
from perchild.config.tree import LoadError
from perchild.config.users import SystemUsers
from perchild.limits import value

UID = os.getuid() or 65533  # pretend not to be root where root runs the tests: identities are then the caller's


@pytest.fixture
def umask() -> Iterator[None]:
    """Make files that only their owner can write."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def options(path: Path, **more: Any) -> Options:
    """Return options for a file below a ServerRoot of its own."""
    return Options(config_file=str(path), server_root=str(path.parent), caller_uid=UID, caller_gid=UID, **more)


@pytest.mark.usefixtures("umask")
def test_a_tree_of_files_and_symlinks_is_read(tmp_path: Path) -> None:
    """sites-enabled is made of symlinks; wildcards and directories are read in sorted order, hidden files are not."""
    (tmp_path / "sites-available").mkdir()
    (tmp_path / "sites-enabled").mkdir()
    for name in ("b", "a", ".hidden"):
        (tmp_path / "sites-available" / f"{name}.conf").write_text(f"<VirtualHost *:80>\nServerName {name.strip('.')}\n</VirtualHost>\n")
        (tmp_path / "sites-enabled" / f"{name}.conf").symlink_to(f"../sites-available/{name}.conf")
    (tmp_path / "main.conf").write_text("Listen 127.0.0.1:80\nIncludeOptional sites-enabled/*.conf\nInclude sites-available\n")
    result = compile_config(options(tmp_path / "main.conf"), {})
    assert result.errors == []
    assert result.model is not None
    assert [host.name for host in result.model.hosts] == ["a", "b", "hidden", "a", "b"]
    assert [Path(path).name for _, _, path in result.model.includes] == ["main.conf", "a.conf", "b.conf", ".hidden.conf", "a.conf", "b.conf"]


@pytest.mark.usefixtures("umask")
def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """FIFOs, devices, directories, NUL bytes, sockets, files beyond 16 MB; opening a FIFO does not wait."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nul").write_bytes(b"Listen 80\nServerName \0\n")
    with (tmp_path / "big").open("wb") as file:
        file.truncate((16 << 20) + 1)
    files = Files(UID)
    for name, reason in (("fifo", "is not a regular file"), ("nul", "contains a NUL byte (line 2)"), ("big", "is longer than"),
                         ("none", "No such file"), (".", "is not a regular file")):
        with pytest.raises(LoadError, match=r".*") as caught:
            files.read(str(tmp_path / name))
        assert reason in str(caught.value)
    with pytest.raises(LoadError, match="is not a regular file"):
        files.read("/dev/null")
    with pytest.raises(LoadError, match="NUL byte in its name"):
        files.read("/x\0y")


@pytest.mark.usefixtures("umask")
def test_root_does_not_read_what_others_can_write(tmp_path: Path) -> None:
    """With the remedy in the message; for others there is nothing to protect."""
    path = tmp_path / "c.conf"
    path.write_text("x")
    path.chmod(0o646)
    with pytest.raises(LoadError, match=f"can be written by others: root does not read it; chmod go-w {path}"):
        Files(0).read(str(path))
    assert Files(UID).read(str(path)) == "x"
    path.chmod(0o644)
    assert Files(0).read(str(path)) == "x"
    if os.getuid() == 0:
        path.chmod(0o664)
        assert Files(0).read(str(path)) == "x"  # group root
        os.chown(path, 0, 4321)
        with pytest.raises(LoadError, match="can be written by its group"):
            Files(0).read(str(path))
        path.chmod(0o644)
        os.chown(path, 4321, 0)
        files = Files(0)
        files.read(str(path))
        assert "belongs to uid 4321" in files.warnings[0].reason


@pytest.mark.usefixtures("umask")
def test_a_directory_that_contains_itself_is_an_error(tmp_path: Path) -> None:
    """A symlink to the directory above ends at the nesting level, with httpd's words."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "again").symlink_to(".")
    (tmp_path / "main.conf").write_text("Listen 127.0.0.1:80\nInclude conf.d\n")
    (error,) = compile_config(options(tmp_path / "main.conf"), {}).errors
    assert "exceeds the maximum include directory nesting level" in error.reason
    assert error.line == 2


@pytest.mark.usefixtures("umask")
def test_reading_leaves_no_descriptor(tmp_path: Path) -> None:
    """Good files and refused ones are closed."""
    (tmp_path / "a").write_text("Listen 127.0.0.1:80\nInclude nul\nInclude none\nInclude .\n")
    (tmp_path / "nul").write_bytes(b"\0")
    before = len(os.listdir("/proc/self/fd"))
    compile_config(options(tmp_path / "a"), {})
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    """A path in another encoding reaches the record as it was."""
    path = tmp_path / "l.conf"
    path.write_bytes(b"Listen 127.0.0.1:80\nDocumentRoot /srv/\xe9t\xe9\n")
    path.chmod(0o644)
    compiled = compile_config(options(path), {}).compiled
    assert compiled is not None
    assert b"/srv/\xe9t\xe9" in next(iter(compiled.records.values()))


def test_system_users_are_those_of_the_system() -> None:
    """root is there, as name and as number; what is not there is None."""
    users = SystemUsers()
    assert users.user("root") == (0, 0)
    assert users.user_name(0) == "root"
    assert users.group("root") == 0
    assert users.group_name(0) == "root"
    assert users.user("no-such-user-here") is None
    assert users.group("no-such-group-here") is None
    assert users.user_name(4_000_000_001) is None
    assert users.group_name(4_000_000_001) is None
    assert users.groups("no-such-user-here", 5) == ()


@pytest.mark.parametrize(("pattern", "is_good"), [
    (r"\.php$", True), (r"(?<name>a)\K[[:alpha:]]++", True), ("(", False), ("[", False), ("a{2,1}", False), ("é\udcff", False),
])
def test_patterns_are_checked_by_the_library_that_runs_them(pattern: str, is_good: bool) -> None:  # noqa: FBT001
    """PCRE2's language, not Python's."""
    assert (check_pattern(pattern) is None) is is_good or "\udcff" in pattern


def test_names_are_resolved() -> None:
    """A number is itself; nonsense is nothing."""
    assert resolve_name("127.0.0.1") == [(4, bytes((127, 0, 0, 1)))]
    assert resolve_name("x" * 300) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root's directories are root's")
def test_root_opens_logs_only_where_nobody_else_can_write(tmp_path: Path) -> None:
    """Each directory above counts; symlinks are followed to where they lead; a tenant's group counts, too."""
    assert Directories().may_root_open("/var/log/x.log", frozenset())
    assert not Directories().may_root_open("/tmp/x.log", frozenset())
    for name in ("mine", "group", "theirs"):
        (tmp_path / name).mkdir()
    assert not Directories().may_root_open(str(tmp_path / "mine" / "x.log"), frozenset())  # /tmp is above it
    link = Path("/var") / f"perchild-test-{os.getpid()}"
    link.symlink_to(tmp_path)
    try:
        assert not Directories().may_root_open(f"{link}/x.log", frozenset())
    finally:
        link.unlink()
    base = Path("/var") / f"perchild-test-{os.getpid()}"
    base.mkdir(mode=0o755)
    try:
        base.chmod(0o775)
        os.chown(base, 0, 4321)
        assert Directories().may_root_open(f"{base}/x.log", frozenset((5,)))
        assert not Directories().may_root_open(f"{base}/x.log", frozenset((4321,)))
        os.chown(base, 4321, 0)
        assert not Directories().may_root_open(f"{base}/x.log", frozenset())
        assert not Directories().may_root_open(f"{base}/missing/x.log", frozenset())
    finally:
        base.rmdir()


def test_compile_text_needs_no_file() -> None:
    """For tools: the system's users, a text."""
    result = compile_text("Listen 127.0.0.1:80\n", Options(caller_uid=UID, caller_gid=UID))
    assert result.errors == []


def test_the_shipped_configuration_compiles() -> None:
    """conf/ is right as it is, accepts in the unassigned children only, and warns of nothing but missing directories."""
    conf = Path(__file__).parents[3] / "conf"
    main = conf / "perchild.conf"
    result = compile_text(main.read_text(), Options(config_file=str(main), server_root=str(conf), caller_uid=UID, caller_gid=UID,
                                                    after=(f"Include {conf}/sites-available/000-default.conf",)))
    assert result.errors == []
    assert result.compiled is not None
    assert result.compiled.plan.accept_scope == "unassigned"
    assert [warning.reason for warning in result.warnings if "does not exist" not in warning.reason and "mime.types" not in warning.reason] == []


HOST = """<VirtualHost *:8080>
    ServerName site{0}.example.org
    ServerAlias www.site{0}.example.org
    ServerAdmin webmaster@site{0}.example.org
    DocumentRoot /home/u{1}/site{0}/public_html
    AssignUserID #{1} #{1}
    CustomLog /home/u{1}/logs/site{0}.access.log combined
    ErrorLog /home/u{1}/logs/site{0}.error.log
    <Directory /home/u{1}/site{0}/public_html>
        Options +FollowSymLinks -Indexes
        AllowOverride All
        Require all granted
    </Directory>
</VirtualHost>
"""


def test_five_thousand_hosts_of_two_thousand_users_compile_quickly(world: Any) -> None:
    """65,000 lines, 2,000 records: some 0.5 s of processor time where this was written, and nowhere 20; no record is too long."""
    text = "CustomLog /var/log/a combined\n" + "".join(HOST.format(number, 10_000 + number % 2000) for number in range(5000))
    gc.disable()
    begin = time.process_time()
    result = world.good(text)
    used = time.process_time() - begin
    gc.enable()
    assert len(result.compiled.plan.identities) == 2001
    assert result.compiled.plan.host_count == 5000
    assert max(map(len, result.compiled.records.values())) < value("MAX_RECORD_BYTES")
    assert used < 20
