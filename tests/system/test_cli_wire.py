"""What panels parse: the outputs and exit statuses of -t, -S, -M, -l, -V and -v beside those of Debian's apache2.

Both are asked about the same <VirtualHost> sections. What test_server_cli.py and the unit tests say is not said again.
Runs as: root, for User in httpd's configuration; no server is started.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import Lab
from tests.system.test_routing import listens, sections
from tests.system.wire import HAS_APACHE, Httpd

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.skipif(os.geteuid() != 0, reason="httpd's User needs root"),
              pytest.mark.skipif(not HAS_APACHE, reason="Debian's apache2 is not installed")]

Said = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both configurations."""

    lab: Lab
    httpd: Httpd

    def run(self, *arguments: str) -> tuple[Said, Said]:
        """Return what both say: ours, then httpd's; file names, ports and lines made alike."""
        return (alike(self.lab.cli(*arguments), str(self.lab.config_path), self.lab.port),
                alike(self.httpd.cli(*arguments), str(self.httpd.config), self.httpd.port))


def alike(said: Said, path: str, port: int) -> Said:
    """Replace what must differ."""
    for number, word in ((port, "PORT"), (port + 500, "SECOND")):
        said.stdout = said.stdout.replace(str(number), word)
    said.stdout = re.sub(re.escape(path) + r":\d+", "FILE:LINE", said.stdout)
    return said


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Nothing runs: only configurations are written."""
    with Lab(vhosts=False) as lab:
        second = lab.port + 500
        hosts = sections(lab)
        lab.config = listens(lab.port, second) + hosts.replace("{port}", str(lab.port)).replace("{second}", str(second))
        lab.write_config()
        httpd = Httpd(lab.base / "httpd", lab.tenants["alice"].uid, "")
        text = listens(httpd.port, httpd.port + 500) + f"DocumentRoot {lab.main_root}\n"
        text += hosts.replace("{port}", str(httpd.port)).replace("{second}", str(httpd.port + 500))
        httpd.config.write_text(httpd.config.read_text() + text)
        yield Pair(lab, httpd)


def blocks(text: str) -> dict[str, list[str]]:
    """Return address -> its lines of the dump of hosts; the order of addresses is that of a hash table in httpd."""
    found: dict[str, list[str]] = {}
    for line in text.partition("ServerRoot:")[0].splitlines()[1:]:
        if not line.startswith(" "):
            address = line.split()[0]
            found[address] = []
        found[address].append(" ".join(line.split()) if line.startswith(" ") else line)
    return found


@pytest.mark.parametrize("arguments", [("-S",), ("-t", "-D", "DUMP_VHOSTS")])
def test_dump_of_hosts_is_httpds(pair: Pair, arguments: tuple[str, ...]) -> None:
    """Nine hosts at six addresses: head, addresses, default servers, names and aliases, line for line, on stdout; status 0."""
    ours, theirs = pair.run(*arguments)
    assert (ours.returncode, theirs.returncode) == (0, 0)
    assert ours.stdout.splitlines()[0] == theirs.stdout.splitlines()[0] == "VirtualHost configuration:"
    assert blocks(ours.stdout) == blocks(theirs.stdout)
    assert ours.stderr == theirs.stderr == ""
    assert len(blocks(ours.stdout)) == 5


def test_dump_of_settings_has_httpds_lines(pair: Pair) -> None:
    """-t -D DUMP_RUN_CFG: the same keys in the same order, and User and Group in the same shape."""
    ours, theirs = pair.run("-t", "-D", "DUMP_RUN_CFG")
    keys = [[line.split(":")[0].split(" ")[0] for line in said.stdout.splitlines()] for said in (ours, theirs)]
    assert [key for key in keys[0] if key != "Mutex"] == [key for key in keys[1] if key != "Mutex"]
    assert "Mutex" in keys[0]
    for said in (ours, theirs):
        assert re.search(r'^User: name="#\d+" id=\d+$', said.stdout, re.MULTILINE)
        assert re.search(r'^PidFile: "/\S+"$', said.stdout, re.MULTILINE)


def test_syntax_test_says_the_same(pair: Pair) -> None:
    """-t: "Syntax OK" on stderr, nothing on stdout, 0; an error: AH00526 and 1; a file that is not there: named, and 1."""
    ours, theirs = pair.run("-t")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr) == (0, "", "Syntax OK\n")
    ours, theirs = pair.run("-t", "-c", "Bogus x")
    assert (ours.returncode, theirs.returncode) == (1, 1)
    for said in (ours, theirs):
        assert re.match(r"AH00526: Syntax error on line 1 of .+:\nInvalid command 'Bogus', perhaps misspelled", said.stderr)
    ours, theirs = pair.run("-t", "-f", "/nonexistent")
    assert (ours.returncode, theirs.returncode) == (1, 1)
    for said in (ours, theirs):
        assert re.fullmatch(r"\w+: Could not open configuration file /nonexistent: No such file or directory\n", said.stderr)


@pytest.mark.parametrize(("arguments", "head", "line"), [
    (("-M",), "Loaded Modules:", r" \w+_module \((static|shared)\)"),
    (("-l",), "Compiled in modules:", r"  \w+\.c"),
    (("-t", "-D", "DUMP_INCLUDES"), "Included configuration files:", r"  \(\S+\) /\S+"),
    (("-v",), None, r"Server (version: \S+/\d+\.\d+\.\d+ \(.*\)|built: .*)"),
])
def test_lists_have_httpds_shape(pair: Pair, arguments: tuple[str, ...], head: str | None, line: str) -> None:
    """Head line and form of the lines on stdout, status 0."""
    for said in pair.run(*arguments):
        lines = said.stdout.splitlines()
        if head is not None:
            assert lines.pop(0) == head
        assert lines
        assert [one for one in lines if not re.fullmatch(line, one)] == []
        assert said.returncode == 0


def test_settings_of_the_build_have_httpds_keys(pair: Pair) -> None:
    """-V: the lines that scripts read are there in the same form."""
    for said in pair.run("-V"):
        assert said.returncode == 0
        for pattern in (r"^Server version: +\S", r"^Architecture: +64-bit$", r"^Server MPM: +\w+$", r"^  threaded: +(yes|no)", r"^    forked: +(yes|no)",
                        r"^Server compiled with\.\.\.\.$", r'^ -D HTTPD_ROOT="/[^"]+"$', r'^ -D SERVER_CONFIG_FILE="[^"]+"$', r'^ -D DEFAULT_PIDLOG="[^"]+"$'):
            assert re.search(pattern, said.stdout, re.MULTILINE), (pattern, said.stdout)


def test_wrong_options_end_with_one(pair: Pair) -> None:
    """An unknown option and -h: usage, status 1."""
    for arguments in (("-Q",), ("-h",)):
        for said in pair.run(*arguments):
            assert said.returncode == 1
            assert "Usage: " in said.stdout + said.stderr
