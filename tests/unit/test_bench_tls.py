"""The works by TLS of bench/: what h2load says, configurations in which each host has its own certificate, and who measures memory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench import report, tls
from bench.programs import TLS, WAYS
from bench.servers import PORTS
from bench.tenants import Tenant
from bench.works import WORKS
from perchild.config.load import compile_text
from perchild.config.model import Options

RUN = Path("/run/of/bench")
TENANTS = [Tenant(number, 40_000 + number, f"t{number}.bench.test", RUN / f"sites/t{number}") for number in (1, 2)]

# From h2load 1.52, against a server that was asked for a file of 1,024 bytes; the numbers in braces are the tests'.
SAID = """\
starting benchmark...
spawning thread #0: 5 total client(s). Timing-based test with 0s of warm-up time and 2s of main duration for measurements.
Main benchmark duration is started for thread #0.
TLS Protocol: {protocol}
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: {alpn}
Main benchmark duration is over for thread #0. Stopping all clients.
Stopped all clients for thread #0

finished in 2.02s, 2500.00 req/s, 2.74MB/s
requests: {done} total, 5075 started, {done} done, {succeeded} succeeded, {failed} failed, {failed} errored, 0 timeout
status codes: {good} 2xx, 0 3xx, {missing} 4xx, 0 5xx
traffic: 5.48MB (5750330) total, 527.34KB (540000) headers (space savings 39.33%), 4.88MB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:      264us      {longest}      1.59ms      1.19ms    92.48%
time for connect:    39.33ms     39.53ms     39.45ms        75us    60.00%
time to 1st byte:    45.12ms     48.38ms     45.91ms      1.39ms    80.00%
req/s           :    5108.78     5204.75     5144.84       36.80    80.00%
"""
GOOD = {"protocol": "TLSv1.3", "alpn": "h2", "done": 5000, "succeeded": 5000, "failed": 0, "good": 5000, "missing": 0, "data": 5_120_000,
        "longest": "8.90ms"}


def said(**changes: object) -> str:
    return SAID.format(**{**GOOD, **changes})


def test_h2loads_figures_are_its_successes_over_the_time_that_was_asked_for():
    """What it says of a good run: requests, seconds, the longest in ms, no failure."""
    assert tls.read_h2load(said(), 1024) == tls.load.Outcome(5000, 2.0, 0, {"max_ms": 8.9})
    assert tls.read_h2load(said(longest="264us"), 1024).latencies["max_ms"] == pytest.approx(0.264)
    assert tls.read_h2load(said(longest="1.02s"), 1024).latencies["max_ms"] == pytest.approx(1020)


@pytest.mark.parametrize(("changes", "failed"), [
    ({"done": 5033, "failed": 33}, 33),
    ({"good": 4990, "missing": 10}, 10),
    ({"data": 5_120_000 - 3 * 1024}, 3),
    ({"data": 5_120_000 + 500 * 1024}, 0),
])
def test_requests_that_fail_are_counted(changes, failed):
    """Streams that were reset, wrong statuses, and bodies cut short; bytes of answers that the end of the time cut off are no failure."""
    assert tls.read_h2load(said(**changes), 1024).failed == failed


@pytest.mark.parametrize("output", ["", said(protocol="TLSv1.2"), said(alpn="http/1.1"), said().replace("status codes", "?")])
def test_h2load_that_spoke_something_else_is_an_error(output):
    """A server that has not spoken HTTP/2 over TLS 1.3 must not be compared with one that has."""
    with pytest.raises(RuntimeError, match="h2load"):
        tls.read_h2load(output, 1024)


def test_each_tenant_has_an_h2load_of_its_name_and_together_they_are_all_connections():
    """The name is in the URI, from which h2load takes SNI and :authority."""
    commands = [tls.Streams("/1k.html", 1024, 16).command(8101, tenant, len(TENANTS), 3.0) for tenant in TENANTS]
    assert sum(int(word[2:]) for command in commands for word in command if word.startswith("-c") and word[2:].isdigit()) == tls.H2_CONNECTIONS
    assert [command[-1] for command in commands] == [f"https://t{number}.bench.test:8201/1k.html" for number in (1, 2)]
    assert all("-m16" in command and "-D3" in command for command in commands)


@pytest.mark.parametrize("key", list(WAYS[TLS]))
def test_each_host_has_its_own_tenants_certificate_on_the_port_of_tls(key):
    """Host 1 names certificate 1 alone, and nothing is left to be filled in."""
    text = WAYS[TLS][key].write(RUN, PORTS[key], TENANTS)
    for number in (1, 2):
        assert len(re.findall(rf"t{number}\.bench\.test\.crt", text)) == len(re.findall(rf"t{number}\.bench\.test\.key", text)) == 1
    assert f"127.0.0.1:{PORTS[key] + 100}" in text
    assert re.search(r"TLSv1\.2 TLSv1\.3", text)
    assert "{tenant" not in text


@pytest.mark.parametrize(("version", "line"), [((1, 22, 1), "ssl http2;"), ((1, 26, 3), "ssl; http2 on;"), ((), "ssl http2;")])
def test_nginx_is_told_of_http2_as_its_version_wants_it(monkeypatch, version, line):
    """From 1.25.1 it is a directive; before, a word of listen."""
    monkeypatch.setattr(tls, "_nginx_version", lambda: version)
    assert f"127.0.0.1:8202 {line}" in tls.nginx_tls(RUN, PORTS["nginx"], TENANTS)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_perchildd_takes_its_configuration_with_the_certificates_that_are_made(tmp_path):
    """It compiles without an error or a warning of a certificate, and the program that makes handshakes is built."""
    tenants = [Tenant(number, 40_000 + number, f"t{number}.bench.test", tmp_path / f"t{number}") for number in (1, 2)]
    tls.add_tls(tenants)
    result = compile_text(tls.perchildd_tls(RUN, PORTS["perchildd"], tenants), Options(caller_uid=1001, caller_gid=1001))
    assert result.errors == []
    assert not [warning for warning in result.warnings if "ertificate" in str(warning)]
    assert (tmp_path / "tlsload").exists()
    assert (tmp_path / "t1.bench.test.key").stat().st_mode & 0o077 == 0


def test_memory_of_idle_connections_has_a_row_in_both_tables():
    """As the other memory: on the terminal, and in README.md."""
    result = {
        "date": "2026-01-02", "machine": {"cpu": "x", "cores": 2, "memory_gb": 8, "kernel": "6.1.0", "system": "Debian"}, "versions": {"perchildd": "1"},
        "servers": [{"key": "perchildd", "label": "perchildd", "choices": ""}, {"key": "nginx", "label": "nginx", "choices": ""}], "titles": [],
        "works": {}, "tls-memory": {"perchildd": {"per_connection": 20_480.0, "connections": 2000}},
    }
    assert re.search(r"perchildd +20\.0 +2000", report.render_text(result))
    assert "| memory per idle TLS connection, KB | 20.0 | - |" in report.render_markdown(result)


def test_a_work_whose_load_knows_no_percentiles_says_so():
    """A dash, and not a latency of nothing."""
    row = report._text_row("nginx", {"rps": 10.0, "max_ms": 3.0, "cpu_us": 5.0, "failed": 0}, 2.0)
    assert row == ["nginx", "10", "-", "-", "5.0", "0", "2.00x"]


def test_the_works_are_those_that_are_compared():
    """Three of handshakes, four of streams."""
    assert [work.key for work in WORKS if work.group == TLS] == [
        "tls-full", "tls-resumed", "tls-kept", "h2-1-1k", "h2-1-100k", "h2-16-1k", "h2-16-100k"]
