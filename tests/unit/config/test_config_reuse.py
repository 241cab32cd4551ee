"""What has not changed is not compiled again, and what depends on a change is: each result is compared with that of a whole compilation."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perchild.config.certs import Facts, UnreadableError
from perchild.config.compile import compile_tree
from perchild.config.load import SETTLED_NS, Files, compile_config, make_reuse
from perchild.config.model import Options, Result, Version
from perchild.config.reuse import Base, Reuse
from perchild.dispatcher.compile import write_records
from perchild.wire.plan import Identity, Plan, decode_plan, encode_plan
from tests.unit.config.conftest import USERS, FakeFiles

HEAD = "Listen 127.0.0.1:8080\nAcceptScope unassigned\nDefaultRuntimeDir /run/p\n"
MAIN = "Define ROOT /srv\nCustomLog /var/log/all.log combined\nIncludeOptional /etc/perchild/sites-enabled/*.conf\n"
ENABLED = "/etc/perchild/sites-enabled"


def site(name: str, extra: str = "", user: str = "") -> str:
    return (f"<VirtualHost *:8080>\nServerName {name}.test\nDocumentRoot ${{ROOT}}/{name}\nAssignUserID {user or name} {user or name}\n"
            f"<Directory /srv/{name}>\nRequire all granted\n</Directory>\n{extra}</VirtualHost>\n")


class StampedFiles(FakeFiles):
    """Files whose stamps are what `stamps` says, else tell nothing."""

    def __init__(self, files: dict[str, str], stamps: dict[str, str]) -> None:
        super().__init__(files)
        self.stamps = stamps
        self.was_read: list[str] = []

    def read(self, path: str) -> str:
        self.was_read.append(path)
        return super().read(path)

    def stamp(self, path: str) -> str:
        return self.stamps.get(path, "")

    def has_warned(self, _path: str) -> bool:
        return False


class Kept:
    """Last good versions."""

    def __init__(self) -> None:
        self.versions: dict[str, Version] = {}

    def find(self, key: str) -> Version | None:
        return self.versions.get(key)

    def save(self, result: Result) -> None:
        kept = {key: self.versions[key] for key in result.held if key in self.versions}
        self.versions = {**kept, **result.good}


class Certificates:
    """Certificates that are good until a time; a stamp for each file."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.now = 1_000_000
        self.end = 1_000_000 + 90 * 86400

    def read(self, path: str) -> str:
        if path not in self.texts:
            message = f"{path} cannot be read"
            raise UnreadableError(message)
        return self.texts[path]

    def stamp(self, path: str) -> str:
        return str(hash(self.texts[path])) if path in self.texts else ""

    def names(self, path: str) -> list[str]:
        return sorted(one.rpartition("/")[2] for one in self.texts if one.startswith(f"{path}/"))

    def check(self, pem: str, key_path: str) -> Facts:
        certificates = self

        class Known:
            problem = int(key_path not in certificates.texts) * 2
            kind, bits, words = 6, 2048, ""
            not_before_s, not_after_s = 0, certificates.end

        del pem
        return Known()

    def check_list(self, _pem: str) -> str | None:
        return None

    def command(self, _name: str, _value: str) -> str | None:
        return None

    def now_s(self) -> int:
        return self.now


class Server:
    """A server that compiles again and again, each time from notes and from nothing, and compares."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.text = MAIN
        self.options = Options(config_file="/main.conf")
        self.stamps: dict[str, str] = {}
        self.tls = Certificates()
        self.kept = Kept()
        self.notes = b""
        self.plan: Plan | None = None
        self.records: dict[str, bytes] = {}
        self.known: dict[str, int] = {}
        self.users: dict[str, tuple[int, int]] = {**USERS, "nobody": (65534, 65534)}
        self.groups: dict[str, tuple[int, ...]] = {}
        self.homes = "/home"
        world.files |= {f"{ENABLED}/{name}.conf": site(name) for name in ("alice", "bob", "carol")}
        world.files[f"{ENABLED}/alice2.conf"] = site("second", user="alice")

    def put(self, name: str, text: str) -> None:
        self.world.files[f"{ENABLED}/{name}.conf"] = text

    def _compile(self, kept: Kept, reuse: Reuse | None, files: StampedFiles) -> Result:
        env = self.world.env(dict(self.options.environ))
        env.tls = self.tls
        users, known_group = env.users, env.users.group
        users.user = self.users.get
        users.group = lambda name: 65534 if name == "nobody" else known_group(name)
        users.groups = lambda name, _gid: self.groups.get(name, ())
        users.home = lambda uid: f"{self.homes}/{uid}"
        result = compile_tree(self.options, env, files, self.known, HEAD + self.text, lambda _directory: kept, reuse)
        assert result.errors == []
        return result

    def reload(self) -> tuple[int, int]:
        """Compile, check that the result is that of a whole compilation, take it; return sites read and records made."""
        base = Base({one.number: one for one in self.plan.identities} if self.plan else {}, frozenset(self.records))
        files = StampedFiles(self.world.files, self.stamps)
        reuse = Reuse(files, self.notes, base, self.tls.now)
        whole = self._compile(copy.deepcopy(self.kept), None, StampedFiles(self.world.files, {}))
        result = self._compile(self.kept, reuse, files)
        assert result.compiled is not None
        assert whole.compiled is not None
        self.records |= result.compiled.records
        plan = decode_plan(encode_plan(result.compiled.plan, self.plan), self.plan)
        assert plan == result.compiled.plan
        bare = {"sites": 0, "sites_read": 0, "records_made": 0}
        plain = tuple(replace(one, source="") for one in plan.identities)
        assert replace(plan, identities=plain, **bare) == replace(whole.compiled.plan, **bare)
        assert {one.record: self.records[one.record] for one in plan.identities} == {
            one.record: whole.compiled.records[one.record] for one in plan.identities}
        assert result.compiled.route_table == whole.compiled.route_table
        self.kept.save(result)
        self.notes, self.plan, self.read = reuse.dump(), plan, files.was_read
        self.known = {f"{one.uid}:{one.gid}:{','.join(map(str, one.groups))}": one.number for one in plan.identities if one.number}
        return plan.sites_read, plan.records_made

    def identity(self, name: str) -> Identity:
        assert self.plan is not None
        return next(one for one in self.plan.identities if one.name == name)


@pytest.fixture
def server(world: Any) -> Server:
    one = Server(world)
    assert one.reload() == (4, 4), "the first time everything is compiled: four files, three users and the unassigned"
    return one


def test_nothing_is_compiled_when_nothing_has_changed(server: Server) -> None:
    """Whether the files say so by their stamps, or have to be read for it."""
    assert server.reload() == (0, 0)
    assert f"{ENABLED}/bob.conf" in server.read
    server.stamps = dict.fromkeys(server.world.files, "1")
    assert server.reload() == (0, 0)
    assert server.reload() == (0, 0)
    assert not [path for path in server.read if path.startswith(ENABLED)], "by their stamps they are known without being read"


def test_one_changed_site_is_compiled_alone(server: Server) -> None:
    """Changed, added, removed, and back."""
    server.put("bob", site("bob", "Redirect /x http://else.test/\n"))
    assert server.reload() == (1, 1)
    server.put("bob2", site("third", user="bob"))
    assert server.reload() == (2, 1), "the new one, and that which stands in the same record"
    del server.world.files[f"{ENABLED}/bob2.conf"]
    assert server.reload() == (1, 1)
    del server.world.files[f"{ENABLED}/carol.conf"]
    assert server.reload() == (0, 0)
    server.put("carol", site("carol"))
    assert server.reload() == (1, 1)


def test_a_stamp_that_changes_without_the_text_compiles_nothing(server: Server) -> None:
    """As touch does it."""
    server.stamps = dict.fromkeys(server.world.files, "1")
    assert server.reload() == (0, 0)
    server.stamps[f"{ENABLED}/bob.conf"] = "2"
    assert server.reload() == (0, 0)
    assert [path for path in server.read if path.startswith(ENABLED)] == [f"{ENABLED}/bob.conf"]
    assert server.reload() == (0, 0)
    assert not [path for path in server.read if path.startswith(ENABLED)], "the new stamp is known from then on"


def _main(old: str, new: str) -> Callable[[Server], None]:
    def change(server: Server) -> None:
        assert old in server.text
        server.text = server.text.replace(old, new)

    return change


def _options(**more: Any) -> Callable[[Server], None]:
    def change(server: Server) -> None:
        server.options = replace(server.options, **more)

    return change


@pytest.mark.parametrize(("change", "made"), [
    (_main("Define ROOT /srv", "Define ROOT /home"), 3), (_main("Define ROOT /srv\n", "Define ROOT /srv\nTimeout 7\n"), 4),
    (_main("combined", "common"), 4), (_main("CustomLog", "<Directory />\nOptions None\n</Directory>\nCustomLog"), 4),
    (_main("Include", "MPM worker\nInclude"), 4), (_main("Include", "ThreadLimit 32\nInclude"), 4),
    (_main("CustomLog", "User nobody\nGroup nobody\nCustomLog"), 4), (_main("Include", "Include /etc/perchild/more.conf\nInclude"), 4),
    (_main("Include", "Define OTHER\nInclude"), 0), (_options(defines=("TEST",)), 0), (_options(before=("Timeout 9",)), 4),
    (_options(after=("KeepAlive Off",)), 4), (_options(environ={"WHO": "else"}), 4),
], ids=["define", "timeout", "log", "section", "mpm", "threads", "user", "include", "other-define", "-D", "-C", "-c", "environ"])
def test_what_all_sites_depend_on_compiles_all_of_them(server: Server, change: Callable[[Server], None], made: int) -> None:
    """Whatever stands outside of sites, and what the command line and the environment say. made: records; a variable may mean nothing to them."""
    server.world.files["/etc/perchild/more.conf"] = "AddType text/x-else .else\n"
    change(server)
    assert server.reload() == (4, made)
    assert server.reload() == (0, 0)


def test_what_is_included_by_main_counts_as_it_stands_now(server: Server) -> None:
    """A file that main includes has changed, and main has not."""
    server.world.files["/etc/perchild/more.conf"] = "Timeout 7\n"
    server.text = f"Include /etc/perchild/more.conf\n{MAIN}"
    assert server.reload() == (4, 4)
    server.world.files["/etc/perchild/more.conf"] = "Timeout 8\n"
    assert server.reload() == (4, 4)


def test_what_a_site_includes_belongs_to_it(server: Server) -> None:
    """A file, and what a pattern stands for."""
    server.world.files |= {"/etc/perchild/bits/a.inc": "Redirect /a http://a.test/\n", "/etc/perchild/one.inc": "Redirect /o http://o.test/\n"}
    server.put("bob", site("bob", "Include /etc/perchild/one.inc\nIncludeOptional /etc/perchild/bits/*.inc\n"))
    assert server.reload() == (1, 1)
    assert server.reload() == (0, 0)
    server.world.files["/etc/perchild/one.inc"] = "Redirect /p http://o.test/\n"
    assert server.reload() == (1, 1)
    server.world.files["/etc/perchild/bits/b.inc"] = "Redirect /b http://b.test/\n"
    assert server.reload() == (1, 1)
    del server.world.files["/etc/perchild/bits/a.inc"]
    assert server.reload() == (1, 1)


@pytest.mark.parametrize(("name", "text"), [
    ("defines", "Define LATER yes\n" + site("bob")), ("looks", "<IfFile /nowhere>\nTimeout 3\n</IfFile>\n" + site("bob")),
    ("speaks of the server", site("bob") + "Timeout 11\n"), ("names a host", site("bob").replace("*:8080", "two.example:8080")),
    ("warns", site("bob", "SetEnv A ${NOWHERE}\n")), ("is of its address", site("bob", "RemoteIPHeader X-Forwarded-For\n")),
])
def test_a_site_that_is_not_plain_is_read_each_time(server: Server, name: str, text: str) -> None:
    """Its record is made again only if it comes out otherwise."""
    server.put("bob", text)
    server.reload()
    assert server.reload()[0] >= 1, name
    assert server.reload()[1] == 0, name


def test_a_define_of_a_site_counts_for_those_behind_it(server: Server) -> None:
    """Files are read in their order."""
    server.put("bob", "Define ROOT /else\n" + site("bob"))
    assert server.reload()[1] == 2, "bob and carol"
    assert server.identity("carol").record in server.records
    server.put("bob", "Define ROOT /third\n" + site("bob"))
    assert server.reload() == (2, 2)
    server.put("bob", site("bob"))
    assert server.reload() == (2, 2)


def test_ifmodule_and_relative_includes_are_asked_again(server: Server) -> None:
    """What a site only asks for, it asks for when it is not parsed, too."""
    server.put("bob", site("bob", "<IfModule mpm_worker_module>\nRedirect /w http://w.test/\n</IfModule>\n"))
    assert server.reload() == (1, 0), "nothing of it is in force"
    assert server.reload() == (0, 0)
    server.text = f"{MAIN}MPM worker\n"
    assert server.reload()[0] == 4
    server.text = MAIN
    assert server.reload()[0] == 4


def test_users_and_their_groups_are_looked_up_each_time(server: Server) -> None:
    """A user that got another uid, one who joined a group, others who moved."""
    server.users["bob"] = (1102, 1002)
    assert server.reload() == (1, 1)
    server.groups["carol"] = (2002,)
    assert server.reload() == (1, 1)
    server.put("bob", site("bob", "SetHandler cgi-script\n"))
    assert server.reload() == (1, 1)
    server.homes = "/elsewhere"
    assert server.reload()[1] == 4, "a home is where programs start"


def test_who_opens_a_log_is_looked_at_each_time(server: Server) -> None:
    """A directory of logs that others can write to by now."""
    server.world.roots = ()
    assert server.reload() == (4, 4)


def test_what_listen_stands_for_is_asked_each_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records hold the addresses; a name of one may mean another today."""
    addresses = {"here.example": [(4, bytes((127, 0, 0, 2)))]}
    known_env = server.world.env

    def env(environ: dict[str, str]) -> Any:
        one = known_env(environ)
        one.resolve = lambda name: addresses.get(name, [])
        return one

    monkeypatch.setattr(server.world, "env", env)
    server.text = f"Listen here.example:8081\n{MAIN}"
    assert server.reload() == (4, 4)
    assert server.reload() == (0, 0)
    addresses["here.example"] = [(4, bytes((127, 0, 0, 3)))]
    assert server.reload() == (4, 4)


def test_a_name_that_another_host_took_changes_both(server: Server) -> None:
    """The first mention of a name wins, and records hold the names that lead to them."""
    server.put("alice", site("alice", "ServerAlias bob.test\n"))
    assert server.reload() == (3, 2), "alice's two files and bob's"
    server.put("alice", site("alice"))
    assert server.reload() == (3, 2)


def test_a_record_that_is_gone_is_made_again(server: Server) -> None:
    """It lies in the run directory, where somebody may have cleaned up."""
    del server.records[server.identity("bob").record]
    assert server.reload() == (1, 1)
    assert server.identity("bob").record in server.records


def test_a_certificate_that_changed_is_read_again(server: Server) -> None:
    """Its file, its authorities, a new file in their directory; and one that ends soon is spoken of each time."""
    pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    server.tls.texts = {"/tls/bob.pem": pem.format("AAAA"), "/tls/bob.key": "key", "/tls/ca.pem": pem.format("BBBB"), "/tls/authorities": ""}
    tls = ("SSLEngine On\nSSLCertificateFile /tls/bob.pem\nSSLCertificateKeyFile /tls/bob.key\nSSLCACertificateFile /tls/ca.pem\n"
           "SSLVerifyClient optional\n")
    server.text = f"Listen 127.0.0.1:8443\n{MAIN}"
    server.put("bob", site("bob", tls).replace("*:8080", "*:8443"))
    server.reload()
    assert server.reload() == (0, 0)
    for path in ("/tls/bob.pem", "/tls/ca.pem", "/tls/bob.key"):
        server.tls.texts[path] = pem.format("CC" + path[-5:-4].upper() + "C")
        assert server.reload() == (1, 1), path
        assert server.reload() == (0, 0)
    server.tls.now = server.tls.end - 86400
    assert server.reload() == (1, 1)
    assert server.reload() == (1, 1), "it ends soon: that is said at each reload"
    assert server.plan is not None
    assert any("expires soon" in warning for warning in server.plan.warnings)


def test_a_broken_site_keeps_its_last_good_version_and_the_others_are_left_alone(server: Server) -> None:
    """Each reload reads what is broken, and nothing else."""
    server.put("bob", site("bob", "Bogus on\n"))
    assert server.reload()[0] == 1
    assert server.reload()[0] == 1
    server.put("carol", site("carol", "Redirect /x http://else.test/\n"))
    assert server.reload()[0] == 2
    assert server.plan is not None
    assert [one.stand_in for one in server.plan.broken_sites] == ["last good version"]
    server.put("bob", site("bob"))
    assert server.reload()[0] == 1
    assert server.plan.broken_sites == ()
    server.put("bob", site("bob", "SSLEngine On\n"))
    server.reload()
    assert [one.file for one in server.plan.broken_sites] == [f"{ENABLED}/bob.conf"], "who was changed is to blame, not who was there"


def test_notes_of_another_version_are_not_used(server: Server) -> None:
    """Nor does it matter what is in them."""
    server.notes = b'[1, "0.0.0", "x"]\nnonsense'
    assert server.reload() == (4, 0), "the records are as they were"


# --- anything, in any order ----------------------------------------------------------------------------------------------

EXTRAS = (
    "", "Redirect /a http://a.test/\n", "ServerAlias x.test\n", "ServerAlias *.w.test\n", "SetHandler cgi-script\n", "Timeout 9\n",
    "ErrorLog /home/x.log\n", "<Location /z>\nRequire all denied\n</Location>\n", "Define V 1\n", "SetEnv A ${V}\n", "Include /inc/a.inc\n",
    "IncludeOptional /inc/*.inc\n", "<IfDefine V>\nRedirect /v http://v.test/\n</IfDefine>\n", "Bogus on\n", "RemoteIPHeader X-A\n", "SSLEngine On\n",
    "PHPPool on\n", "ProxyPass /p http://127.0.0.1:9/\n", "WSGIDaemonProcess d home=/srv\n", "Header set X y\n", "AssignUserID nosuch nosuch\n",
    "CustomLog /var/log/own.log common\n", "<IfFile /inc/b.inc>\nRedirect /f http://v.test/\n</IfFile>\n", "CustomLog /var/log/x.log nickname\n",
    "ProxyPass /q http://127.0.0.1:9/ min=3\n", "<Location /w>\nProxyPass http://127.0.0.1:9/ min=3\n</Location>\n",
)
MAINS = (
    MAIN, f"{MAIN}Define V 2\n", f"Define V 3\n{MAIN}", MAIN.replace("/srv", "/home"), f"{MAIN}Timeout 5\n", f"<Directory />\nOptions None\n</Directory>\n{MAIN}",
    f"{MAIN}ChildPerUserID bob bob 1\nNumServers 3\n", f"{MAIN}<VirtualHost *:8080>\nServerName main.test\n</VirtualHost>\n",
)


def _change(server: Server, rng: random.Random) -> None:
    """Change one thing: a site mostly, else what is included, main, or who is in a group."""
    files = server.world.files
    what = rng.random()
    if what < 0.6:
        user = rng.choice(("alice", "bob", "carol"))
        name = user + rng.choice(("", "2", "3"))
        server.put(name, site(name, "".join(rng.sample(EXTRAS, rng.choice((0, 1, 1, 2)))), user=user))
    elif what < 0.7:
        files.pop(rng.choice([path for path in files if path.startswith(ENABLED)]), None)
    elif what < 0.8:
        server.text = rng.choice(MAINS)
    elif what < 0.95:
        path = rng.choice(("/inc/a.inc", "/inc/b.inc"))
        files[path] = f"Header set Z {rng.randrange(3)}\n"
        if path == "/inc/b.inc" and what < 0.85:
            del files[path]
    else:
        server.groups["bob"] = rng.choice(((), (2000,)))


@pytest.mark.parametrize("seed", range(1, 9))
def test_whatever_changes_the_result_is_that_of_a_whole_compilation(server: Server, seed: int) -> None:
    """Sites good and broken, odd and plain, in any order: plan, warnings, records and routes are the same (see Server.reload)."""
    rng = random.Random(seed)
    server.world.files["/inc/a.inc"] = "Header set Z 1\n"
    server.put("alice0", site("alice0", user="alice"))  # one is always good: with none left the configuration as a whole is wrong
    for _ in range(60):
        _change(server, rng)
        if not any(path.startswith(ENABLED) for path in server.world.files):
            server.put("alice", site("alice"))
        server.reload()


# --- files of the system -------------------------------------------------------------------------------------------------


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every change that is made here be an old one."""
    monkeypatch.setattr("perchild.config.load.SETTLED_NS", -SETTLED_NS)


@pytest.mark.usefixtures("later")
def test_a_stamp_tells_every_change(tmp_path: Path) -> None:
    """Text, time, owner's rights, another file under the same name, another target of a link."""
    path, other, link = tmp_path / "a.conf", tmp_path / "b.conf", tmp_path / "link.conf"
    path.write_text("one")
    other.write_text("two")
    link.symlink_to(path)
    seen = {Files(0).stamp(str(link))}
    changes: list[Callable[[], object]] = [
        lambda: path.write_text("three"), lambda: path.chmod(0o600), lambda: os.replace(other, path), lambda: os.utime(path, ns=(1, 1)),
        lambda: (link.unlink(), link.symlink_to(tmp_path / "c.conf"), (tmp_path / "c.conf").write_text("one"))]
    for number, change in enumerate(changes):
        change()
        stamp = Files(0).stamp(str(link))
        assert stamp, number
        assert stamp not in seen, number
        seen.add(stamp)
    link.unlink()
    assert Files(0).stamp(str(link)) == ""


def test_a_stamp_of_this_moment_tells_nothing(tmp_path: Path) -> None:
    """The clock of a file system may not have gone on between two changes."""
    (tmp_path / "a.conf").write_text("one")
    assert Files(0).stamp(str(tmp_path / "a.conf")) == ""


@pytest.mark.usefixtures("later")
def test_files_of_the_system_are_not_read_again(tmp_path: Path) -> None:
    """One that others may write to is refused at every look, and one that is not root's is spoken of."""
    uid = os.getuid() or 65533
    sites = tmp_path / "sites-enabled"
    sites.mkdir()
    for name in ("a", "b"):
        (sites / f"{name}.conf").write_text(f"<VirtualHost *:80>\nServerName {name}\n</VirtualHost>\n")
    main = tmp_path / "main.conf"
    main.write_text("Listen 127.0.0.1:80\nInclude sites-enabled/*.conf\n")
    options = Options(config_file=str(main), server_root=str(tmp_path), caller_uid=uid, caller_gid=uid)
    reuse = make_reuse(options, b"", None)
    first = compile_config(options, {}, reuse=reuse)
    assert first.errors == []
    assert first.compiled is not None
    write_records(first.compiled.plan.run_dir, first.compiled.records)
    again = make_reuse(options, reuse[0].dump(), first.compiled.plan)
    second = compile_config(options, {}, reuse=again)
    assert second.compiled is not None
    assert (second.compiled.plan.sites_read, second.compiled.plan.sites) == (0, 2)
    assert again[1]._texts.keys() == {str(main), "/etc/mime.types"} & again[1]._texts.keys()
    (sites / "a.conf").write_text("<VirtualHost *:80>\nServerName c\n</VirtualHost>\n")
    third = compile_config(options, {}, reuse=make_reuse(options, again[0].dump(), second.compiled.plan))
    assert third.model is not None
    assert [host.name for host in third.model.hosts] == ["c", "b"]


# --- one that is too long ------------------------------------------------------------------------------------------------


def test_a_record_that_is_too_long_takes_down_its_own_site(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else's; the longest of its user's sites goes on with its last good version, and its line is named."""
    monkeypatch.setattr("perchild.config.compile.MAX_RECORD_BYTES", 8000)
    server.put("bob", site("bob", "".join(f"Redirect /{number} http://else.test/\n" for number in range(200))))
    server.reload()
    assert server.plan is not None
    broken, = server.plan.broken_sites
    assert (broken.file, broken.line, broken.stand_in) == (f"{ENABLED}/bob.conf", 1, "last good version")
    assert "all that is said of the hosts of bob takes " in broken.reason
    assert {one.name for one in server.plan.identities} == {"www-data", "alice", "bob", "carol"}
