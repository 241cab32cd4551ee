"""The works with programs of bench/: who does which, configurations that give each tenant its own, plans and figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import programs, report
from bench.extras import EXTRAS
from bench.main import MEMORIES, PLANS, _extras, _plan, _works, parse
from bench.servers import PORTS, SPECS, spec_of
from bench.tenants import Tenant
from bench.works import WORKS, can_do
from perchild.config.load import compile_text
from perchild.config.model import Options
from perchild.runner.commands import CommandError, find_php

RUN = Path("/run/of/bench")
TENANTS = [Tenant(number, 40_000 + number, f"t{number}.bench.test", RUN / f"sites/t{number}") for number in (1, 2)]


def text_of(group: str, key: str) -> str:
    return programs.WAYS[group][key].write(RUN, PORTS[key], TENANTS)


def test_each_work_is_done_by_those_that_have_a_way():
    """Files by all, CGI and proxies by those the comparison names; only a held work is beyond a server that has the way."""
    works = {work.key: work for work in WORKS}
    doers = {key: {spec.key for spec in SPECS if can_do(spec, work)} for key, work in works.items()}
    assert doers["keepalive"] == set(PORTS)
    assert doers["idle"] == set(PORTS) - {"itk"}
    assert doers["php"] == doers["php-close"] == {"perchildd", "nginx", "event", "itk"}
    assert doers["cgi"] == {"perchildd", "itk"}
    assert doers["proxy"] == doers["proxy-close"] == {"perchildd", "nginx"}
    assert all(doers[work.key] == {"perchildd", "nginx", "event"} for work in WORKS if work.group == programs.TLS)
    assert all("perchildd" in found for found in doers.values())


def test_targets_and_bounds_name_works_that_are_done():
    """A target of a work or a server that does not exist would never be missed."""
    works = {work.key: work for work in WORKS}
    assert all(can_do(spec_of(key), works[work]) for work, others in report.TARGETS.items() for key in others)
    assert {bound[0] for bound in report.BOUNDS} <= {*MEMORIES.values(), *EXTRAS}


def test_plans_name_extras_that_there_are():
    """What runs unasked is known, and --only chooses one work, extras included."""
    for plan in PLANS.values():
        assert set(plan.extras) <= {*MEMORIES.values(), *EXTRAS}
    options = parse(["--only", "php-close,php-cold"])
    assert [work.key for work in _works(options)] == ["php-close"]
    assert _extras(options) == ["php-cold"]
    assert _extras(parse(["--servers", "nginx"])) == []


def test_rounds_and_seconds_of_the_command_line_count_for_all_works():
    """--rounds is that of files and of programs."""
    plan = _plan(parse(["--rounds", "1", "--seconds", "2"]))
    assert (plan.rounds, plan.program_rounds, plan.seconds) == (1, 1, 2.0)
    assert _plan(parse([])) == PLANS["full"]
    assert _plan(parse(["--quick"])) == PLANS["quick"]


def test_each_tenant_has_a_pool_of_its_own_uid_and_socket():
    """php-fpm's pools: as many as tenants, none shared, of as many workers as ours."""
    text = programs.pools_text(RUN, TENANTS)
    assert re.findall(r"^\[(.+)\]$", text, re.MULTILINE) == ["global", "t1", "t2"]
    assert re.findall(r"^user = (.+)$", text, re.MULTILINE) == ["40001", "40002"]
    assert re.findall(r"^listen = (.+)$", text, re.MULTILINE) == [f"{RUN}/t1.sock", f"{RUN}/t2.sock"]
    assert text.count(f"pm.max_children = {programs.PHP_CHILDREN}\n") == 2
    assert f"max_children={programs.PHP_CHILDREN}\n" in text_of("php", "perchildd")


@pytest.mark.parametrize("key", ["nginx", "event"])
def test_each_host_passes_php_to_its_own_tenants_pool(key):
    """Host 1 names socket 1 alone, and host 2 socket 2; nothing is left to be filled in."""
    text = text_of("php", key)
    for number in (1, 2):
        assert text.count(f"unix:{RUN}/t{number}.sock") == 1
    assert "{tenant" not in text
    assert "{run}" not in text


@pytest.mark.parametrize("group", ["php", "proxy", "tls"])
def test_nginxs_braces_match(group):
    """Braces are doubled for the filling in, and single in what nginx reads."""
    text = text_of(group, "nginx")
    assert text.count("{") == text.count("}")
    assert "{{" not in text


def test_nginx_keeps_fewer_connections_to_a_pool_than_it_has_workers():
    """Connections that all its processes keep idle leave workers for others."""
    kept = int(re.search(r"keepalive (\d+);", text_of("php", "nginx"))[1])
    assert kept >= 1
    assert kept * (os.cpu_count() or 1) <= max(programs.PHP_CHILDREN // 2, os.cpu_count() or 1)


def test_mpm_itk_has_mod_php_of_php_fpms_version():
    """The two PHPs that are compared are one version."""
    try:
        version = find_php("").rpartition("php-fpm")[2]
    except CommandError:
        pytest.skip("no php-fpm")
    assert f"libphp{version}.so" in text_of("php", "itk")


@pytest.mark.parametrize("group", ["php", "cgi", "proxy"])
def test_perchildd_takes_its_own_configurations(group):
    """Each is one that perchildd reads, with programs in every host."""
    result = compile_text(text_of(group, "perchildd"), Options(caller_uid=1001, caller_gid=1001))
    assert result.errors == []
    assert result.compiled


def test_a_tenants_programs_say_whose_they_are(tmp_path, monkeypatch):
    """Run as programs, both print the host first, which is what an answer is known by; the script is older than opcache wants."""
    monkeypatch.setattr("os.chown", lambda *_: None)
    tenant = Tenant(1, 40_001, "t1.bench.test", tmp_path)
    programs.add_programs([tenant])
    said = subprocess.run([tmp_path / programs.CGI_PATH[1:]], capture_output=True, check=True).stdout
    assert said == b"Content-Type: text/plain\r\n\r\nt1.bench.test\nHello, world\n"
    php = tmp_path / programs.PHP_PATH[1:]
    assert php.stat().st_mtime < php.stat().st_ctime - 2
    if shutil.which("php"):
        assert subprocess.run(["php", "-n", php], capture_output=True, check=True).stdout == b"t1.bench.test\nHello, world\n"


def test_a_figure_of_php_is_told_and_one_that_is_missing_is_a_miss():
    """The memory of sleeping PHP has a row; tenants that were not awake spoil the figure and are said."""
    found = {"php-memory": {"awake": 2**31, "awake_tenant": 10 * 2**20, "missing": 3, "php_asleep": 2**28, "asleep": 2**24},
             "php-cold": {"median_ms": 51.0}}
    result = {"works": {}, "extras": found}
    missed = report.misses(result)
    assert len(missed) == 1
    assert missed[0].startswith("of them, tenants not wholly awake: 3")
    text = report._extras_text(result)
    assert re.search(r"sleeping tenant's PHP, median +51\.00 ms", text)
    assert re.search(r"after all fell asleep +16\.00 MB", text)
