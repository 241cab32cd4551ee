"""What README.md tells people to write and to run is right."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.php import PHP_FPM

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_readme_shows_a_configuration_that_the_server_takes(tmp_path):
    """The ten lines pass the configuration test as they stand, but for the user, whom not every machine has."""
    text = re.search(r"```apache\n(.*?)```", README, re.DOTALL).group(1)
    assert len(text.splitlines()) == 10
    assert "AssignUserID alice alice" in text
    conf = tmp_path / "readme.conf"
    conf.write_text(text.replace("alice alice", "#40001 #40001"))
    tested = subprocess.run(["/usr/bin/python3", "-m", "perchild", "-t", "-f", str(conf)], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "Syntax OK" in tested.stdout + tested.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")
@pytest.mark.skipif(not PHP_FPM, reason="no php-fpm")
def test_readme_shows_a_host_that_serves_files_and_runs_php() -> None:
    """The ten lines' host, with its user, directory and port replaced."""
    with Lab("AcceptScope unassigned\n", names=("alice",)) as lab:
        alice = lab.tenants["alice"]
        block = re.search(r"```apache\n.*?(<VirtualHost.*?</VirtualHost>)", README, re.DOTALL).group(1)
        lab.has_vhosts = False
        lab.config_tail = (block.replace("alice alice", f"#{alice.uid} #{alice.uid}").replace("*:80", f"*:{lab.port}")
                           .replace("/home/alice/public_html", str(alice.docroot)))
        alice.write("who.php", "<?php echo posix_geteuid();")
        lab.start()
        assert lab.get("alice.example", "/").body == b"alice\n"
        assert lab.get("alice.example", "/who.php", timeout_s=30).body == str(alice.uid).encode()


def test_readme_names_only_files_and_commands_that_are_there():
    """Every file that it links to, and every command of the tree that it shows, exists."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    commands = re.findall(r"\b((?:packaging|bench)/[\w-]+)\b", README)
    assert links
    assert {"packaging/demo", "packaging/test", "bench/run"} <= set(commands)
    missing = [name for name in [*links, *commands] if not (PROJECT / name).exists()]
    assert missing == []
