"""The package's life on a booted Debian: installed, configured, restarted and upgraded under load, killed, purged.

The tests stand in the order of that life; each finds what the one before it left.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import ROOT, wait_until
from tests.load import Answer, Report, reconcile
from tests.package.machine import Machine, build_package, run_host

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3600)]
VERSION, NEXT = "0.1.0-1", "0.1.1-1"
# What `systemd-analyze security` says; a lower number is better. What would lower it further is left out for reasons that the unit names.
EXPOSURE = {"bookworm": 4.3, "trixie": 4.3}
SITE = """<VirtualHost *:80>
    ServerName {name}.example
    AssignUserID {name} {name}
    DocumentRoot /home/{name}/public_html
    ScriptAlias /cgi-bin/ /home/{name}/cgi-bin/
    CustomLog /var/log/perchildd/access.log combined
    <Directory /home/{name}>
        Require all granted
    </Directory>
</VirtualHost>
"""
PROGRAM = '#!/bin/sh\nprintf "Content-Type: text/plain\\n\\n%s %s\\n" "$(id -u)" "$(ls -d /proc/[0-9]* | wc -l)"\n'
# Made by every installation, and no part of it.
PASSING = re.compile(r"/(var/(cache|lib/(dpkg|apt|systemd|man-db|logrotate)|log)|run|proc|sys|dev|tmp|root|etc/(passwd|group|shadow|gshadow|subuid|subgid|ld\.so\.cache))\b.*|"
                     r"/(etc|usr/lib/python3.*|usr/share/python3)(/.*__pycache__.*)?")
SECRETS = {f"{name}.example": f"{name}'s own\n".encode() * 20 for name in ("alice", "bob")}


def next_version(deb: Path) -> Path:
    """Return the same package as the next version, which says so itself."""
    tree = deb.parent / "next"
    shutil.rmtree(tree, ignore_errors=True)
    run_host("dpkg-deb", "--raw-extract", str(deb), str(tree))
    for path, pattern, text in ((tree / "DEBIAN/control", r"(?m)^Version: \S+?(~\S+)?$", rf"Version: {NEXT}\1"),
                                (tree / "usr/lib/perchild/perchild/__init__.py", r'"0\.1\.0"', '"0.1.1"')):
        changed, count = re.subn(pattern, text, path.read_text())
        assert count == 1, path
        path.write_text(changed)
    sums = tree / "DEBIAN/md5sums"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "perchild/__init__.py" not in line))
    target = deb.parent / "perchildd_next.deb"
    run_host("dpkg-deb", "--root-owner-group", "--build", str(tree), str(target))
    return target


@pytest.fixture(scope="module")
def deb(machine: Machine) -> Path:
    """The package, built for the machine's suite; lintian has looked at it (packaging/build-deb)."""
    return build_package(machine.suite, VERSION)


@pytest.fixture(scope="module")
def files_before(machine: Machine, deb: Path) -> frozenset[str]:
    """All that is on the machine when everything is installed that the package depends on, but not the package."""
    depends = run_host("dpkg-deb", "--field", str(deb), "Depends").strip()
    machine.run("apt-get", "satisfy", "-y", "--no-download", "--no-install-recommends", f"{depends}, logrotate, bash-completion, zsh")
    return list_files(machine)


def list_files(machine: Machine) -> frozenset[str]:
    """Return every path but passing ones."""
    return frozenset(path for path in machine.run("find", "/", "-xdev").splitlines() if not PASSING.fullmatch(path))


def main_pid(machine: Machine) -> int:
    """Return the dispatcher's pid, as the machine sees it."""
    return int(machine.property("MainPID"))


def is_active(machine: Machine) -> bool:
    """Whether the service runs and is ready."""
    return machine.try_run("systemctl", "is-active", "perchildd").stdout.strip() == "active"


def wait_for_another(machine: Machine, before: int, timeout_s: float) -> None:
    """Wait until systemd has put another dispatcher in the place of `before`; fail with all that there is to know if it does not."""
    try:
        wait_until(lambda: main_pid(machine) not in {0, before} and is_active(machine), "systemd has started another", timeout_s)
    except AssertionError as error:
        error.add_note(machine.run("sh", "-c", "systemctl show perchildd -p MainPID,ActiveState,SubState,Result,NRestarts,StatusText; "
                                   "systemd-cgls --no-pager -u perchildd.service; ps -eo pid,ppid,stat,wchan:30,user,args; "
                                   "journalctl --no-pager -n 60; tail -n 20 /var/log/perchildd/error.log"))
        raise


def is_refused(machine: Machine) -> bool:
    """Whether nobody listens on port 80."""
    try:
        machine.get("alice.example")
    except ConnectionRefusedError:
        return True
    return False


def check_lines(machine: Machine, report: Report, name: str) -> None:
    """Check that every answered request of the load called `name` stands in the access log once, rotated or not."""
    logs = [machine.root / f"var/log/perchildd/access.log{end}" for end in ("", ".1")]
    wait_until(lambda: not reconcile(report, logs).missing, "all lines are written")
    account = reconcile(report, logs)
    assert not [one for one in account.doubled if one.startswith(name)]
    assert not account.torn


def check_good(report: Report) -> None:
    """Check that every request was answered with its host's own text."""
    assert len(report.answers) > 100
    assert not report.bad(), f"{report.summary()}: {report.bad()[:5]}"


# ---------------------------------------------------------------- installed


@pytest.mark.usefixtures("quiet", "files_before")
def test_installed_package_serves_at_once(machine: Machine, deb: Path) -> None:
    """apt install; the service is enabled and ready, and its page is there; nothing is complained of."""
    said = machine.install(deb)
    assert "perchildd was not started" not in said, said
    assert is_active(machine), machine.try_run("systemctl", "status", "perchildd").stdout
    assert machine.run("systemctl", "is-enabled", "perchildd").strip() == "enabled"
    answer = machine.get("anything.example")
    assert (answer.status, b"<h1>perchildd works</h1>" in answer.body) == (200, True)
    assert answer.fields["server"] == "perchildd"
    log = machine.root / "var/log/perchildd/access.log"
    wait_until(lambda: log.read_text().startswith("localhost:80 "), "the first line is written, of a host that has no name")
    assert machine.run("perchildd", "-t").strip() == "Syntax OK"
    assert re.match(r"serving \d+ hosts? of 1 user, \d+ processes, generation 1$", machine.property("StatusText"))
    assert machine.run("sh", "-c", "ps -o user= -C pc:perchild | sort -u").strip() in {"perchild", ""}
    assert machine.property("NFileDescriptorStore") == "4"  # two addresses, an inbox with two ends
    assert machine.run("stat", "-c", "%a %U:%G", "/var/log/perchildd/access.log", "/var/log/perchildd/error.log").split("\n")[:2] == ["640 root:adm"] * 2


def test_every_program_has_its_manual_and_completion(machine: Machine) -> None:
    """man(1) finds a page for each, perchild.conf(5) knows a directive, and bash completes names of sites and commands."""
    for program in ("perchildd", "perchildctl", "pc2ensite", "pc2dissite", "pc2enconf", "pc2disconf"):
        assert (machine.root / f"usr/share/man/man8/{program}.8.gz").exists(), program
        assert (machine.root / f"usr/share/bash-completion/completions/{program}").exists(), program
    script = ('. /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/{0}; '
              'COMP_WORDS=({0} {1}); COMP_CWORD=1; COMP_LINE="{0} {1}"; COMP_POINT=${{#COMP_LINE}}; _{2} {0}; echo "${{COMPREPLY[@]}}"')
    for program, begun, function, wanted in (("pc2ensite", "000", "pc2ensite", "000-default"), ("perchildctl", "reo", "perchildctl", "reopen"),
                                             ("perchildd", "-k", "perchildd", "-k")):
        assert machine.run("bash", "-c", script.format(program, begun, function)).strip() == wanted
    assert "AssignUserID" in machine.run("sh", "-c", "zcat /usr/share/man/man5/perchild.conf.5.gz")


@pytest.mark.usefixtures("quiet")
def test_first_sites_are_served_as_their_users(machine: Machine) -> None:
    """A file, pc2ensite, a reload: files that only alice can read are served, and her program runs as she, among her processes alone."""
    for name in ("alice", "bob"):
        machine.run("useradd", "--create-home", "--shell", "/bin/sh", name)
        home = machine.root / "home" / name
        for path, text, mode in ((home / "public_html/secret.txt", SECRETS[f"{name}.example"].decode(), 0o600),
                                 (home / "cgi-bin/who", PROGRAM, 0o700)):
            path.parent.mkdir(mode=0o700)
            path.write_text(text)
            path.chmod(mode)
        machine.run("chown", "-R", f"{name}:{name}", f"/home/{name}")
        machine.run("chmod", "700", f"/home/{name}")
        (machine.root / f"etc/perchild/sites-available/{name}.conf").write_text(SITE.format(name=name))
        assert machine.run("pc2ensite", name) == (f"Enabling site {name}.\nTo activate the new configuration, you need to run:\n"
                                                   "  systemctl reload perchildd\n")
    machine.run("systemctl", "reload", "perchildd")
    for host, secret in SECRETS.items():
        assert machine.get(host, "/secret.txt").body == secret
        uid, processes = machine.get(host, "/cgi-bin/who").body.split()
        assert uid.decode() == machine.run("id", "-u", host.partition(".")[0]).strip()
        assert int(processes) < 8
    assert "hosts of 3 users" in machine.property("StatusText")
    assert machine.property("NFileDescriptorStore") == "8"
    assert "[error]" not in machine.shell("cat /var/log/perchildd/error.log")
    assert "no PID namespace" not in machine.shell("cat /var/log/perchildd/error.log; journalctl -u perchildd")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_and_names(machine: Machine, shell: str) -> None:
    """Tab at an interactive shell: commands, options, sites, users."""
    with machine.open_terminal(shell) as terminal:
        for begun, wanted in (("pc2ensite 000", "pc2ensite 000-default"), ("pc2dissite bo", "pc2dissite bob"), ("pc2enconf cha", "pc2enconf charset"),
                              ("perchildctl reo", "perchildctl reopen"), ("perchildctl tenants --js", "perchildctl tenants --json"),
                              ("perchildctl drain al", "perchildctl drain alice"), ("perchildctl ensite 000", "perchildctl ensite 000-default"),
                              ("perchildctl reload bo", "perchildctl reload bob"), ("perchildd -k graceful-", "perchildd -k graceful-stop")):
            assert terminal.complete(begun) == wanted


def test_refused_reload_says_why_and_changes_nothing(machine: Machine) -> None:
    """What is broken outside of sites: systemctl reload fails, the journal says why, and alice is served as before."""
    path = machine.root / "etc/perchild/conf-enabled/broken.conf"
    path.write_text("NoSuchDirective on\n")
    pid = main_pid(machine)
    assert machine.try_run("systemctl", "reload", "perchildd").returncode != 0
    wait_until(lambda: any("NoSuchDirective" in line for line in machine.journal("-u", "perchildd")), "the journal says why")
    assert machine.get("alice.example", "/secret.txt").body == SECRETS["alice.example"]
    path.unlink()
    machine.run("systemctl", "reload", "perchildd")
    assert main_pid(machine) == pid


def test_exposure_is_as_recorded(machine: Machine) -> None:
    """systemd-analyze security: no worse than when it was last looked at."""
    said = machine.run("systemd-analyze", "security", "--no-pager", "perchildd.service")
    found = re.search(r"Overall exposure level for perchildd.service: ([\d.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= EXPOSURE[machine.suite], said


# ---------------------------------------------------------------- under load


@pytest.mark.usefixtures("quiet")
def test_restarts_and_reloads_fail_no_request(machine: Machine) -> None:
    """systemctl restart and reload, again and again: whoever comes meanwhile waits in the listener that systemd keeps."""
    with machine.load(SECRETS, clients=40, pace_s=0.1, name="restart") as load:
        for _ in range(3):
            before = main_pid(machine)
            machine.run("systemctl", "restart", "perchildd")
            assert main_pid(machine) != before
            load.wait_answers(100)
            machine.run("systemctl", "reload", "perchildd")
            load.wait_answers(100)
        report = load.stop()
    check_good(report)
    check_lines(machine, report, "restart")
    assert machine.property("NFileDescriptorStore") == "8"
    assert machine.property("NRestarts") == "0"


@pytest.mark.usefixtures("quiet")
def test_upgrade_fails_no_request(machine: Machine, deb: Path) -> None:
    """The next version is installed while clients ask: the new one answers in the end, and nobody was turned away."""
    following = next_version(deb)
    with machine.load(SECRETS, clients=40, pace_s=0.1) as load:
        load.wait_answers(100)
        before = main_pid(machine)
        machine.install(following)
        load.wait_answers(200)
        check_good(load.stop())
    assert main_pid(machine) != before
    assert "perchildd/0.1.1" in machine.run("perchildd", "-v")
    assert machine.property("NRestarts") == "0"


def test_upgrade_leaves_a_server_alone_whose_configuration_it_refuses(machine: Machine, deb: Path) -> None:
    """The old process goes on, and the installation says what to do; it does not fail."""
    path = machine.root / "etc/perchild/conf-enabled/broken.conf"
    path.write_text("NoSuchDirective on\n")
    before = main_pid(machine)
    said = machine.install(next_version(deb))
    assert "perchildd was not restarted: this version does not take the configuration" in said
    assert main_pid(machine) == before
    assert machine.get("bob.example", "/secret.txt").body == SECRETS["bob.example"]
    path.unlink()


def test_upgrade_is_not_held_up_by_one_broken_site(machine: Machine, deb: Path) -> None:
    """Bob's file is broken: the new version serves his last good one, and alice."""
    path = machine.root / "etc/perchild/sites-available/bob.conf"
    good, before = path.read_text(), main_pid(machine)
    path.write_text(good.replace("</VirtualHost>", "NoSuchDirective on\n</VirtualHost>"))
    machine.install(next_version(deb))
    assert main_pid(machine) != before
    for host, secret in SECRETS.items():
        assert machine.get(host, "/secret.txt").body == secret
    path.write_text(good)
    machine.run("systemctl", "reload", "perchildd")


def is_cut(one: Answer, killed_s: float) -> bool:
    """Whether a request was under way when the server was killed, or came to a child that had not yet heard of it: who is busy hears late."""
    return one.error.startswith(("end", "ECONNRESET", "EPIPE")) and one.opened_s < killed_s + 5.0


def test_crash_of_the_dispatcher_refuses_no_connection(machine: Machine) -> None:
    """kill -9: systemd starts another at once, with the same sockets. Who was being answered is cut off, and nobody else."""
    restarts = int(machine.property("NRestarts"))
    with machine.load(SECRETS, clients=40, pace_s=0.1) as load:
        load.wait_answers(100)
        before = main_pid(machine)
        machine.run("kill", "-9", str(before))
        killed_s = time.monotonic()
        wait_for_another(machine, before, 150)  # longer than TimeoutStopSec, which systemd waits for what it believes to be left
        load.wait_answers(200)
        report = load.stop()
    bad = report.bad()
    assert not [one for one in bad if not is_cut(one, killed_s)], report.summary()
    assert len(bad) < 100
    assert int(machine.property("NRestarts")) == restarts + 1


def test_hanging_dispatcher_is_found_by_the_watchdog(machine: Machine) -> None:
    """A dispatcher that stands still is killed and started again."""
    directory = machine.root / "run/systemd/system/perchildd.service.d"
    machine.run("mkdir", "-p", "/run/systemd/system/perchildd.service.d")
    machine.run("tee", f"/run/systemd/system/{directory.name}/test.conf", text="[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "perchildd")
    before = main_pid(machine)
    machine.run("kill", "-STOP", str(before))
    wait_for_another(machine, before, 150)
    wait_until(lambda: any("Watchdog timeout" in line or "watchdog" in line for line in machine.journal("-u", "perchildd")), "the journal says why")
    machine.run("rm", "-r", f"/run/systemd/system/{directory.name}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "perchildd")
    assert machine.get("alice.example", "/secret.txt").status == 200


@pytest.mark.usefixtures("quiet")
def test_logrotate_loses_no_line(machine: Machine) -> None:
    """Every answered request stands in one of the two files, once."""
    with machine.load(SECRETS, clients=30, pace_s=0.1, name="rotate") as load:
        load.wait_answers(100)
        machine.run("logrotate", "--force", "/etc/logrotate.d/perchildd")
        load.wait_answers(200)
        report = load.stop()
    check_good(report)
    check_lines(machine, report, "rotate")
    log = machine.root / "var/log/perchildd/access.log"
    assert log.stat().st_mode & 0o777 == 0o640
    assert machine.run("stat", "-c", "%U:%G", "/var/log/perchildd/access.log").strip() == "root:adm"


# ---------------------------------------------------------------- stopped, and started by a socket


@pytest.mark.usefixtures("quiet")
def test_stop_leaves_nothing_behind(machine: Machine) -> None:
    """No process, and the port is closed: nothing waits for a server that does not come."""
    machine.run("systemctl", "stop", "perchildd")
    assert is_refused(machine)
    assert machine.property("NFileDescriptorStore") == "0"
    assert machine.property("Result") == "success"
    assert not machine.try_run("pgrep", "-u", "alice").stdout
    assert not machine.try_run("pgrep", "-f", "perchild").stdout


@pytest.fixture
def socket_unit(machine: Machine) -> Iterator[None]:
    """A socket unit as README.Debian shows it."""
    text = (machine.root / "usr/share/doc/perchildd/README.Debian").read_text()
    unit = re.search(r"( {6}\[Socket\].*?)\n\n", text, re.DOTALL)
    assert unit is not None
    machine.run("tee", "/etc/systemd/system/perchildd.socket", text=re.sub(r"(?m)^ {6}", "", unit[1]) + "\n")
    machine.run("systemctl", "daemon-reload")
    yield
    machine.run("systemctl", "stop", "perchildd.socket", "perchildd.service")
    machine.run("rm", "/etc/systemd/system/perchildd.socket")
    machine.run("systemctl", "daemon-reload")


@pytest.mark.usefixtures("quiet", "socket_unit")
def test_first_connection_starts_the_server(machine: Machine) -> None:
    """systemd listens, the first client makes it start the server, which takes the sockets; a restart keeps them."""
    machine.run("systemctl", "start", "perchildd.socket")
    assert not is_active(machine)
    assert machine.get("alice.example", "/secret.txt").body == SECRETS["alice.example"]
    wait_until(lambda: is_active(machine), "systemd has heard that it is ready")
    machine.run("systemctl", "restart", "perchildd")
    assert machine.get("bob.example", "/secret.txt").body == SECRETS["bob.example"]
    assert "passed" not in machine.shell("tail -n 20 /var/log/perchildd/error.log")


# ---------------------------------------------------------------- gone


@pytest.mark.usefixtures("quiet")
def test_purge_leaves_nothing(machine: Machine, files_before: frozenset[str]) -> None:
    """Every file is gone that was not there before, and so is the user; what people wrote themselves stays theirs."""
    machine.run("systemctl", "start", "perchildd")
    machine.run("pc2dissite", "alice", "bob")
    machine.run("rm", "/etc/perchild/sites-available/alice.conf", "/etc/perchild/sites-available/bob.conf")
    machine.run("userdel", "--remove", "alice")
    machine.run("userdel", "--remove", "bob")
    machine.run("apt-get", "purge", "-y", "perchildd")
    assert list_files(machine) - files_before == set()
    assert machine.try_run("getent", "passwd", "perchild").returncode != 0
    for gone in ("/run/perchildd", "/var/log/perchildd", "/var/lib/perchildd", "/var/lib/perchild-tenants", "/etc/perchild", "/var/www"):
        assert machine.try_run("test", "-e", gone).returncode != 0, gone
    assert "perchild" not in machine.run("systemctl", "list-units", "--all", "--failed")
    assert is_refused(machine)


def test_readme_leads_to_a_first_site(machine: Machine, deb: Path) -> None:
    """README's commands as they stand, fewer than five, on a machine that never saw us; the first has made the package."""
    machine.shell("useradd --create-home alice; install -d -o alice -g alice -m 0700 /home/alice/public_html; "
                  "echo 'first page' >/home/alice/public_html/index.html; chown alice: /home/alice/public_html/index.html")
    install = re.search(r"## Install it\n.*?```sh\n(.*?)```.*?`(curl [^`]*)`", (ROOT / "README.md").read_text(), re.DOTALL)
    assert install is not None
    assert len(re.findall(r"(?m)^sudo ", install[1])) < 5
    first, _, others = install[1].partition("\n")
    assert first.startswith("sudo packaging/build-deb ")
    machine.run("mkdir", "-p", "/root/tree/build/deb")
    shutil.copy(deb, machine.root / "root/tree/build/deb")
    machine.run("bash", "-ec", f'sudo() {{ "$@"; }}; cd /root/tree; {others}', text="")
    assert machine.run("sh", "-c", f"{install[2]} --silent --show-error") == "first page\n"
    machine.run("apt-get", "purge", "-y", "perchildd")
    machine.shell("userdel --remove alice; rm -r /etc/perchild /root/tree")


@pytest.mark.usefixtures("files_before")
@pytest.mark.parametrize("other", ["nginx", "apache2"])
def test_installation_beside_another_server_says_that_it_was_not_started(machine: Machine, deb: Path, other: str) -> None:
    """The other one has port 80: the installation succeeds, our unit is not failed, and on a port of its own it serves."""
    machine.run("apt-get", "install", "-y", "--no-download", "--no-install-recommends", other)
    wait_until(lambda: not is_refused(machine), f"{other} listens")
    said = machine.install(deb)
    assert "perchildd was not started: another program listens on port 80." in said, said
    assert machine.try_run("systemctl", "is-active", "perchildd").stdout.strip() == "inactive"
    assert "perchild" not in machine.run("systemctl", "list-units", "--all", "--failed")
    assert machine.get("x").fields["server"].lower().startswith(other.rstrip("2"))
    machine.shell("sed -i 's/^Listen 80$/Listen 8080/' /etc/perchild/perchild.conf; "
                  "sed -i 's/:80>/:8080>/' /etc/perchild/sites-available/000-default.conf")
    machine.run("systemctl", "start", "perchildd")
    assert machine.get("x", port=8080).fields["server"] == "perchildd"
    machine.run("apt-get", "purge", "-y", "perchildd")
    machine.run("systemctl", "disable", "--now", other)


# Not among them: a2dissite on a file that is no link, which says both an error and that it was disabled; ours says the error.
STEPS = (("en", "one"), ("en", "one"), ("en", "one.conf"), ("en", "none"), ("en", "t*"), ("en", "n*"), ("dis", "one"), ("dis", "one"), ("dis", "none"),
         ("en", "-q", "one"), ("en", "-q", "one"), ("en", "-m", "two"), ("en", "real"), ("en", "-z"), ("dis", "[ot]*"))


def test_pc2ensite_says_what_a2ensite_says(machine: Machine, deb: Path) -> None:
    """Debian's own program and ours, on the same files: the same words, statuses and links."""
    machine.install(deb)
    said = []
    for program, variable, name in (("a2", "APACHE_CONFDIR", "apache2"), ("pc2", "PERCHILD_CONFDIR", "perchild")):
        top = f"/root/{name}"
        machine.shell(f"mkdir -p {top}/sites-available {top}/sites-enabled; cd {top}; touch sites-available/one.conf sites-available/two.conf "
                      "sites-available/real.conf sites-enabled/real.conf")
        mine = []
        for verb, *arguments in STEPS:
            done = machine.try_run("env", f"{variable}={top}", f"APACHE_STATE_DIRECTORY={top}/state", f"{program}{verb}site", *arguments)
            links = machine.shell(f"cd {top}/sites-enabled; for one in *; do readlink $one || echo $one; done")
            words = (done.stdout + ("" if "-z" in arguments else done.stderr)).replace(top, "TOP").replace("perchildd", "apache2")
            mine.append(((verb, *arguments), done.returncode, words, links))
        said.append(mine)
    for theirs, ours in zip(*said, strict=True):
        assert ours == theirs


PEBBLE = """{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", "certificate": "/root/ca/cert.pem",
 "privateKey": "/root/ca/key.pem", "httpPort": 80, "tlsPort": 443, "ocspResponderURL": ""}}
"""
SITE_OF_TLS = """<VirtualHost *:443>
    ServerName carol.example
    AssignUserID carol carol
    DocumentRoot /home/carol/public_html
    SSLEngine on
    SSLCertificateFile /etc/letsencrypt/live/carol.example/fullchain.pem
    SSLCertificateKeyFile /etc/letsencrypt/live/carol.example/privkey.pem
    <Directory /home/carol>
        Require all granted
    </Directory>
</VirtualHost>
"""


@pytest.fixture
def authority(machine: Machine) -> Iterator[tuple[str, ...]]:
    """An authority in the machine (Let's Encrypt's own for tests); yield what certbot is told of it."""
    machine.run("apt-get", "install", "-y", "--no-download", "--no-install-recommends", "certbot", "pebble", "openssl")
    machine.shell("mkdir -p /root/ca; cd /root/ca; openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost "
                  "-addext subjectAltName=DNS:localhost 2>/dev/null; echo 127.0.0.1 localhost carol.example >>/etc/hosts")
    (machine.root / "root/ca/pebble.json").write_text(PEBBLE)
    machine.run("systemd-run", "--unit=pebble", "--setenv=PEBBLE_VA_NOSLEEP=1", "--setenv=PEBBLE_WFE_NONCEREJECT=0", "pebble", "-config", "/root/ca/pebble.json")
    wait_until(lambda: machine.try_run("curl", "-sko", "/dev/null", "https://localhost:14000/dir").returncode == 0, "pebble answers", 60)
    yield ("--server", "https://localhost:14000/dir", "--no-verify-ssl", "--agree-tos", "--register-unsafely-without-email", "--non-interactive")
    machine.run("systemctl", "stop", "pebble")


def served_serial(machine: Machine) -> str:
    """Return the number of the certificate that carol.example shows."""
    return machine.shell("openssl s_client -connect 127.0.0.1:443 -servername carol.example </dev/null 2>/dev/null | openssl x509 -noout -serial")


def test_certbot_gets_and_renews_a_certificate(machine: Machine, deb: Path, authority: tuple[str, ...]) -> None:
    """docs/tls.md's call, from a site on port 80 that sends everything to https; a renewed certificate is taken up by itself, without a hook."""
    machine.install(deb)
    machine.shell("useradd --create-home carol; install -d -o carol -g carol -m 0700 /home/carol/public_html; echo safe >/home/carol/public_html/index.html; "
                  "chown carol: /home/carol/public_html/index.html; sed -i 's/^Listen 80$/Listen 80\\nListen 443/' /etc/perchild/perchild.conf")
    sites = machine.root / "etc/perchild/sites-available"
    plain = SITE.format(name="carol").replace("</VirtualHost>", "    Redirect permanent / https://carol.example/\n</VirtualHost>")
    (sites / "carol.conf").write_text(plain)
    machine.run("perchildctl", "ensite", "carol", "--reload")
    shown = re.search(r"certbot certonly --webroot -w /home/alice/public_html -d alice.example$", (ROOT / "docs/tls.md").read_text(), re.MULTILINE)
    assert shown is not None
    machine.run(*shown[0].replace("alice", "carol").split(), *authority)
    (sites / "carol-tls.conf").write_text(SITE_OF_TLS)
    machine.run("perchildctl", "ensite", "carol-tls", "--reload")
    assert machine.run("curl", "-skL", "http://carol.example/") == "safe\n"
    before = served_serial(machine)
    machine.run("certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew", "--no-verify-ssl")
    wait_until(lambda: served_serial(machine) not in {before, ""}, "the new certificate is served", 120)
    assert machine.run("curl", "-sk", "https://carol.example/") == "safe\n"
