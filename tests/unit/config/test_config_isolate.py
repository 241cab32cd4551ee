"""A broken site is put aside, and the rest is compiled as if it were not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perchild.config.compile import compile_tree
from perchild.config.isolate import LAST_GOOD, LEFT_OUT, UNAVAILABLE
from perchild.config.kept import LastGood
from perchild.config.model import Options, Result, Version
from tests.unit.config.conftest import FakeFiles, decode, group

HEAD = "Listen 127.0.0.1:8080\nAcceptScope unassigned\n"
MAIN = "IncludeOptional /etc/perchild/sites-enabled/*.conf\n"
ENABLED = "/etc/perchild/sites-enabled"


def site(name: str, extra: str = "", user: str = "") -> str:
    return f"<VirtualHost *:8080>\nServerName {name}.test\nDocumentRoot /srv/{name}\nAssignUserID {user or name} {user or name}\n{extra}</VirtualHost>\n"


class FakeKept:
    """Versions by key."""

    def __init__(self) -> None:
        self.versions: dict[str, Version] = {}

    def find(self, key: str) -> Version | None:
        return self.versions.get(key)

    def keep(self, result: Result) -> None:
        kept = {key: self.versions[key] for key in result.held if key in self.versions}
        self.versions = {**kept, **result.good}


@pytest.fixture
def kept() -> FakeKept:
    return FakeKept()


def isolate(world: Any, kept: FakeKept, text: str, generation: int = 1) -> Result:
    options = Options(config_file="/main.conf", generation=generation)
    return compile_tree(options, world.env(), FakeFiles(world.files), world.known, HEAD + text, lambda _directory: kept)


def roots(result: Result) -> dict[str, str]:
    """Return what is served: ServerName -> DocumentRoot."""
    assert result.model is not None, result.errors
    return {host.name: host.document_root for host in result.model.hosts}


def names(world: Any, *files: str) -> None:
    world.files |= {f"{ENABLED}/{name}.conf": site(name) for name in files}


def test_a_broken_file_is_replaced_by_its_last_good_version(world: Any, kept: FakeKept) -> None:
    """The others' changes are taken, its own are not; the diagnostic is the one of the file as it is."""
    names(world, "alice", "bob")
    kept.keep(isolate(world, kept, MAIN))
    world.files[f"{ENABLED}/bob.conf"] = site("bob", "Bogus on\n").replace("/srv/bob", "/srv/new")
    world.files[f"{ENABLED}/alice.conf"] = site("alice").replace("/srv/alice", "/srv/new")
    result = isolate(world, kept, MAIN)
    assert result.errors == []
    assert roots(result) == {"alice.test": "/srv/new", "bob.test": "/srv/bob"}
    broken, = result.broken
    assert (broken.file, broken.line, broken.stand_in, broken.hosts) == (f"{ENABLED}/bob.conf", 5, LAST_GOOD, ("bob.test",))
    assert f"AH00526: Syntax error on line 5 of {ENABLED}/bob.conf:\nInvalid command 'Bogus'" in result.report
    assert "was not taken: its last good version, of " in result.report
    assert result.compiled is not None
    assert result.compiled.plan.broken_sites == (broken,)


def test_the_stand_in_gives_the_same_record_so_that_no_child_is_touched(world: Any, kept: FakeKept) -> None:
    """Digests of the broken and of the whole site's identity are what they were."""
    names(world, "alice", "bob")
    before = isolate(world, kept, MAIN)
    kept.keep(before)
    world.files[f"{ENABLED}/bob.conf"] += "</Directory>\n"
    after = isolate(world, kept, MAIN)
    assert before.compiled is not None
    assert after.compiled is not None
    assert [one.digest for one in after.compiled.plan.identities] == [one.digest for one in before.compiled.plan.identities]


def test_a_broken_file_that_never_was_good_answers_503(world: Any, kept: FakeKept) -> None:
    """Its names are its own still, served by nobody's user; with Retry-After."""
    names(world, "alice", "bob")
    world.files[f"{ENABLED}/bob.conf"] = site("bob", "ServerAlias www.bob.test\nBogus on\n")
    result = isolate(world, kept, MAIN)
    assert (result.broken[0].stand_in, result.broken[0].hosts) == (UNAVAILABLE, ("bob.test",))
    assert "bob.test will answer 503 until it is mended" in result.report
    assert result.compiled is not None
    assert [one.name for one in result.compiled.plan.identities] == ["www-data", "alice"]
    record = result.compiled.records[result.compiled.plan.identities[0].record]
    host = group([value for tag, value in decode(record) if tag == "HOST"][1])
    base = group(host["BASE"])
    assert host["NAME"] == "bob.test"
    assert "REDIRECT" in base
    assert "HEADER" in base


def test_the_place_of_a_stand_in_is_the_broken_ones(world: Any, kept: FakeKept) -> None:
    """The first host of an address stays the first: nobody else becomes the default."""
    names(world, "alice", "bob")
    world.files[f"{ENABLED}/alice.conf"] = site("alice", "Bogus on\n")
    assert list(roots(isolate(world, kept, MAIN))) == ["alice.test", "bob.test"]


@pytest.mark.parametrize("text", [
    "<VirtualHost *:8080>\nServerName bad/name\n</VirtualHost>\n", "<VirtualHost *:nonsense>\nServerName bob.test\n</VirtualHost>\n",
    "garbage\n", "<VirtualHost\n",
])
def test_a_file_without_usable_names_is_left_out(world: Any, kept: FakeKept, text: str) -> None:
    """In sites-enabled, whatever it contains."""
    names(world, "alice")
    world.files[f"{ENABLED}/bob.conf"] = text
    result = isolate(world, kept, MAIN)
    assert list(roots(result)) == ["alice.test"]
    assert result.broken[0].stand_in == LEFT_OUT
    assert "nothing of it is served" in result.report


def test_a_missing_user_breaks_his_site_alone(world: Any, kept: FakeKept) -> None:
    """The last good version names him too, so it is no good any more: 503."""
    names(world, "alice", "bob")
    kept.keep(isolate(world, kept, MAIN))
    world.files[f"{ENABLED}/bob.conf"] = site("bob", user="nobodyknows")
    kept.versions[f"{ENABLED}/bob.conf"] = Version(site("bob", user="nobodyknows"), {}, {})
    result = isolate(world, kept, MAIN)
    assert result.broken[0].stand_in == UNAVAILABLE
    assert "there is no such user" in result.broken[0].reason


def test_a_host_of_the_main_file_is_a_part_of_its_own(world: Any, kept: FakeKept) -> None:
    """What stands between <VirtualHost> and its end is replaced; lines keep their numbers."""
    kept.keep(isolate(world, kept, site("alice") + site("bob") + site("carol")))
    result = isolate(world, kept, site("alice") + site("bob", "Bogus on\nDocumentRoot /srv/new\n") + site("carol").replace("/srv/carol", "/srv/new"))
    assert roots(result) == {"alice.test": "/srv/alice", "bob.test": "/srv/bob", "carol.test": "/srv/new"}
    assert (result.broken[0].line, result.broken[0].stand_in) == (12, LAST_GOOD)


def test_what_a_site_includes_belongs_to_it(world: Any, kept: FakeKept) -> None:
    """A file within two sites' hosts breaks both, and each goes on with the version that it had."""
    world.files["/etc/perchild/common.inc"] = "ServerAdmin a@b.test\n"
    world.files |= {f"{ENABLED}/{name}.conf": site(name, "Include common.inc\n") for name in ("alice", "bob")}
    names(world, "carol")
    kept.keep(isolate(world, kept, MAIN))
    world.files["/etc/perchild/common.inc"] = "ServerAdmin\n"
    result = isolate(world, kept, MAIN)
    assert [one.stand_in for one in result.broken] == [LAST_GOOD, LAST_GOOD]
    assert list(roots(result)) == ["alice.test", "bob.test", "carol.test"]
    del world.files["/etc/perchild/common.inc"]
    result = isolate(world, kept, MAIN)
    assert [one.stand_in for one in result.broken] == [LAST_GOOD, LAST_GOOD]


@pytest.mark.parametrize("text", ["Bogus on\n" + MAIN, MAIN + "KeepAliveTimeout soon\n", MAIN + "<VirtualHost *:8080>\n",
                                  MAIN + "Include /nowhere.conf\n", MAIN + "User root\n"])
def test_what_is_everybodys_refuses_the_whole(world: Any, kept: FakeKept, text: str) -> None:
    """A server-wide directive, a <VirtualHost> of the main file that is never closed, a file that was asked for by name."""
    names(world, "alice", "bob")
    world.files[f"{ENABLED}/bob.conf"] = site("bob", "Bogus on\n")
    result = isolate(world, kept, text)
    assert result.compiled is None
    assert result.broken == []
    assert len(result.errors) >= 2  # bob's as well


def test_a_file_that_is_no_site_is_everybodys(world: Any, kept: FakeKept) -> None:
    """conf.d/security.conf may hold what protects all."""
    names(world, "alice")
    world.files["/etc/perchild/conf.d/security.conf"] = "<Directory />\nRequire none\n</Directory>\n"
    result = isolate(world, kept, "IncludeOptional /etc/perchild/conf.d/*.conf\n" + MAIN)
    assert result.compiled is None


def test_a_site_within_an_included_list_is_a_part_of_its_own(world: Any, kept: FakeKept) -> None:
    """A wildcard's file that includes sites by a wildcard of its own."""
    names(world, "alice", "bob")
    world.files["/etc/perchild/conf.d/sites.conf"] = MAIN
    kept.keep(isolate(world, kept, "Include /etc/perchild/conf.d/*.conf\n"))
    world.files[f"{ENABLED}/bob.conf"] += "Bogus\n"
    result = isolate(world, kept, "Include /etc/perchild/conf.d/*.conf\n")
    assert [one.file for one in result.broken] == [f"{ENABLED}/bob.conf"]
    assert list(roots(result)) == ["alice.test", "bob.test"]


def tls_site(name: str, engine: str = "SSLEngine On\n") -> str:
    return site(name, engine).replace("*:8080", "*:8443")


def test_of_two_that_do_not_go_together_the_new_one_is_refused(world: Any, kept: FakeKept) -> None:
    """A plain host that gets in front of an address's TLS hosts takes nobody down."""
    world.files |= {f"{ENABLED}/{name}.conf": tls_site(name) for name in ("alice", "bob", "carol")}
    main = "Listen 127.0.0.1:8443\n" + MAIN
    kept.keep(isolate(world, kept, main))
    world.files[f"{ENABLED}/000-new.conf"] = tls_site("new", "").replace("AssignUserID new new", "AssignUserID bob bob")
    result = isolate(world, kept, main, generation=2)
    assert [one.file for one in result.broken] == [f"{ENABLED}/000-new.conf"]
    assert {"alice.test", "bob.test", "carol.test"} <= set(roots(result))


def test_a_second_listen_in_a_site_is_that_sites_fault(world: Any, kept: FakeKept) -> None:
    """Whether it stands before or behind the one that was there."""
    names(world, "bob")
    world.files[f"{ENABLED}/bob.conf"] += "Listen 127.0.0.1:9999\n"
    kept.keep(isolate(world, kept, MAIN))
    for name in ("alice", "carol"):
        world.files[f"{ENABLED}/{name}.conf"] = site(name) + "Listen 127.0.0.1:9999\n"
        result = isolate(world, kept, MAIN, generation=2)
        assert [one.file for one in result.broken] == [f"{ENABLED}/{name}.conf"]
        assert len(result.compiled.plan.listeners) == 2  # type: ignore[union-attr]
        del world.files[f"{ENABLED}/{name}.conf"]


def test_what_breaks_most_sites_is_no_site(world: Any, kept: FakeKept) -> None:
    """At a reload the whole is refused, for the server has something to go on with; at a start those that are left are served."""
    people = [f"ghost{number}" for number in range(6)]
    world.files |= {f"{ENABLED}/{name}.conf": site(name) for name in people}
    names(world, "alice", "bob")
    assert isolate(world, kept, MAIN, generation=2).compiled is None
    result = isolate(world, kept, MAIN)
    assert len(result.broken) == 6
    assert {"alice.test", "bob.test"} <= set(roots(result))


def test_without_kept_versions_every_error_refuses(world: Any) -> None:
    """perchildd -t says all that is wrong, and no."""
    names(world, "alice")
    world.files[f"{ENABLED}/bob.conf"] = site("bob", "Bogus on\n")
    result = world.compile(HEAD + MAIN)
    assert result.compiled is None
    assert [error.file for error in result.errors] == [f"{ENABLED}/bob.conf"]


# --- the files of the last good versions ---------------------------------------------------------------------------------


def test_versions_survive_on_disk(tmp_path: Path) -> None:
    """Written once, read back, private; what is neither good nor refused is forgotten."""
    version = Version("text\n", {"/a": "text\n"}, {"/p/*": ["/p/1"]})
    kept = LastGood(str(tmp_path / "state"))
    assert kept.save({"a": version, "b": version}, ()) == 2
    assert kept.save({"a": version, "b": version}, ()) == 0
    found = LastGood(str(tmp_path / "state")).find("a")
    assert found is not None
    assert (found.text, found.files, found.matches) == (version.text, version.files, version.matches)
    folder = tmp_path / "state/sites"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert kept.save({"a": Version("new", {}, {})}, ("b",)) == 1
    again = LastGood(str(tmp_path / "state"))
    assert (again.find("a").text, again.find("b").text) == ("new", "text\n")  # type: ignore[union-attr]
    kept.save({"a": version}, ())
    assert LastGood(str(tmp_path / "state")).find("b") is None
    assert len(list(folder.iterdir())) == 1


def test_a_damaged_version_is_none(tmp_path: Path) -> None:
    """A half written file does not become a site."""
    kept = LastGood(str(tmp_path))
    kept.save({"a": Version("text", {}, {})}, ())
    path, = (tmp_path / "sites").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert LastGood(str(tmp_path)).find("a") is None


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_directory_that_others_can_write_is_not_used(tmp_path: Path, mode: int) -> None:
    """Neither for writing nor for reading."""
    LastGood(str(tmp_path)).save({"a": Version("text", {}, {})}, ())
    os.chmod(tmp_path / "sites", mode)
    assert LastGood(str(tmp_path)).find("a") is None
    with pytest.raises(PermissionError, match="nobody else can write"):
        LastGood(str(tmp_path)).save({}, ())


def test_of_two_versions_the_newer_one_counts(tmp_path: Path) -> None:
    """A crash came between the writing of one and the removal of the other; a newer one that is damaged is none."""
    kept, folder = LastGood(str(tmp_path)), tmp_path / "sites"
    for round_s, text in enumerate(("first", "second", "third")):
        before = {path: path.read_bytes() for path in folder.iterdir()} if round_s else {}
        kept.save({"a": Version(text, {}, {})}, ())
        for path in folder.iterdir():
            os.utime(path, (1000 + round_s, 1000 + round_s))
        for number, (path, raw) in enumerate(before.items()):
            path.write_bytes(raw)
            path.chmod(0o600)
            os.utime(path, (900 + number, 900 + number))
        found = LastGood(str(tmp_path)).find("a")
        assert found is not None
        assert found.text == text
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"{}")
    os.utime(newest, (2000, 2000))
    found = LastGood(str(tmp_path)).find("a")
    assert found is not None
    assert found.text in {"first", "second"}
