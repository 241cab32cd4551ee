"""The board's layout, what it adds up to, and the three shapes it is shown in."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import struct
from typing import Any

import pytest

from perchild.status import metrics, own_page, server_status, tally
from perchild.wire.board import PAGE_STRIDE, decode_board, encode_text, read_board
from perchild.wire.page import COUNTERS, LATENCY_BUCKETS, MAGIC, MAX_HOSTS, PAGE_BYTES, SLOTS_AT, latency_bounds_us

HOSTS_AT = PAGE_BYTES - MAX_HOSTS * 320
LATENCIES_AT = SLOTS_AT - 8 - 8 * LATENCY_BUCKETS


def make_page(*, hosts: dict[str, tuple[int, ...]] | None = None, latencies: dict[int, int] | None = None, **counters: int) -> bytes:
    """Return a page as a child writes it. hosts: name -> responses[5], bytes in, bytes out, us."""
    raw = bytearray(PAGE_BYTES)
    struct.pack_into("<Q", raw, 0, MAGIC)
    for name, value in counters.items():
        struct.pack_into("<Q", raw, 8 + 8 * COUNTERS.index(name), value)
    for bucket, count in (latencies or {}).items():
        struct.pack_into("<Q", raw, LATENCIES_AT + 8 * bucket, count)
    struct.pack_into("<I", raw, SLOTS_AT - 8, 1)
    struct.pack_into("<iI8i", raw, SLOTS_AT, 17, 3, -1, -2, 17, 0, 0, 0, 0, 0)
    for row, (name, figures) in enumerate((hosts or {}).items()):
        struct.pack_into("<8Q256s", raw, HOSTS_AT + 320 * row, *figures, name.encode())
    return bytes(raw)


def describe(number: int, name: str, children: list[int], past: list[int]) -> dict[str, Any]:
    """Return an identity as the dispatcher describes it."""
    return {"number": number, "name": name, "uid": 1000 + number, "gid": 1000 + number, "groups": [], "kind": "on-demand", "hosts": 1, "max_threads": 8,
            "is_removed": False, "is_held_back": False, "runner": None, "past_pages": past,
            "children": [{"pid": 500 + page, "state": "ready", "generation": 1, "page": page, "is_accepting": False, "idle": 1, "busy": 0} for page in children]}


def add_up(identities: list[dict[str, Any]], pages: list[bytes], *, is_all: bool = True) -> dict[str, Any]:
    """Return the tally of a board that goes the whole way through its bytes."""
    tree = {"ok": True, "mpm": "perchild", "generation": 4, "uptime_s": 100.0, "started_at": 1_000_000, "state": "running", "identities": identities}
    if is_all:
        tree |= {"pid": 1, "is_privileged": True, "host_count": 2, "accept_scope": "unassigned", "listeners": [{"address": "0.0.0.0", "port": 80}]}
    raw = encode_text(tree) + b"".join(page.ljust(PAGE_STRIDE, b"\0") for page in pages)
    return tally.add_up(decode_board(memoryview(raw)), 1_000_100.0)


@pytest.fixture(name="tree")
def make_tree() -> dict[str, Any]:
    """Two identities: one with a live child and one that has ended, one that has never been asked."""
    a = {"a.test": (0, 90, 0, 10, 0, 1000, 50_000, 100_000), "b.test": (0, 0, 0, 0, 5, 10, 20, 3_000_000)}
    pages = [make_page(hosts=a, latencies={48: 90, 112: 15}, requests=105, bytes_out=50_020, connections=3, parked=2, threads=5, idle_threads=4,
                       handed_in=40, errors=5, cpu_user_us=1_500_000, memory_kb=2000),
             make_page(hosts={"a.test": (0, 10, 0, 0, 0, 1, 2, 3)}, requests=10, handed_in=2, connections=7, memory_kb=9000, cpu_user_us=500_000)]
    return add_up([describe(1, "alice", [0], [1]), describe(2, "bob", [], [])], pages)


def test_counters_go_on_and_states_are_of_who_lives(tree: dict[str, Any]) -> None:
    """What an ended child has counted stays; its connections and memory are gone."""
    alice, bob = tree["identities"]
    assert (alice["requests"], alice["handed_in"], alice["cpu_user_s"]) == (115, 42, 2.0)
    assert (alice["connections"], alice["memory_kb"], alice["busy_threads"]) == (3, 2000, 1)
    assert alice["children"][0]["slots"] == [[17, 3, [-1, -2, 17]]]
    assert (bob["requests"], bob["children"], bob["latency_ms"]["p50"]) == (0, [], None)
    assert tree["totals"]["requests"] == 115
    assert tree["totals"]["children"] == 1


def test_hosts_are_added_by_name(tree: dict[str, Any]) -> None:
    """Two pages with the same host are one line, the busiest first."""
    sites = tree["identities"][0]["sites"]
    assert [(site["name"], site["requests"], site["responses"]["2xx"]) for site in sites] == [("a.test", 110, 100), ("b.test", 5, 0)]
    assert tree["identities"][0]["responses"] == {"1xx": 0, "2xx": 100, "3xx": 0, "4xx": 10, "5xx": 5}


def test_percentiles_lie_in_their_buckets(tree: dict[str, Any]) -> None:
    """90 of 105 took 1 to 1.2 ms, the others 10 to 12 s."""
    late = tree["identities"][0]["latency_ms"]
    assert 1.0 <= late["p50"] <= 1.2
    assert 10_000 <= late["p99"] <= 12_000
    assert tally.percentile_ms([0] * LATENCY_BUCKETS, 0.5) is None
    assert tally.percentile_ms([0] * (LATENCY_BUCKETS - 1) + [1], 0.99) == latency_bounds_us()[-1] / 1000


@pytest.mark.parametrize("raw", [b"", b"\0" * 64, encode_text({})[:8] + b"\xff" * 4096, b"PCBOARD1" + b"\xff" * 8], ids=["empty", "zeroes", "length", "endless"])
def test_what_is_no_board_is_refused(raw: bytes) -> None:
    """ValueError, nothing else."""
    with pytest.raises(ValueError, match=r"board|decode|Expecting|char"):
        decode_board(memoryview(raw))


def test_a_board_is_read_from_its_descriptor() -> None:
    """And the descriptor is closed."""
    fd = os.memfd_create("board")
    os.write(fd, encode_text({"identities": []}))
    assert read_board(fd).tree == {"identities": []}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_board_with_a_page_of_nonsense_is_let_go_of() -> None:
    """Nothing keeps the mapping in use behind what was refused."""
    fd = os.memfd_create("board")
    os.write(fd, encode_text({"identities": []}) + b"\xff" * PAGE_STRIDE + make_page(requests=1).ljust(PAGE_STRIDE, b"\0"))
    board = read_board(fd)
    assert list(board.pages) == [1]
    assert board.pages[1].counters["requests"] == 1


@pytest.mark.parametrize("fill", [b"\xff", b"\x7f", b"\x01"])
def test_a_page_of_nonsense_changes_its_own_identity_alone(fill: bytes) -> None:
    """A child that is taken over may write anything into its page: others' figures, and the shapes, stay whole."""
    bad = MAGIC.to_bytes(8, "little") + fill * (PAGE_BYTES - 8)
    tree = add_up([describe(1, "alice", [0], []), describe(2, "bob", [1], [])], [bad, make_page(requests=7)])
    assert tree["identities"][1]["requests"] == 7
    assert tree["totals"]["requests"] < 2**62
    assert "Total Accesses: " in server_status.render_auto(tree, "x", (0, 0, 0))
    metrics.render_metrics(tree)
    json.loads(own_page.render_json(tree))


def test_a_page_without_its_magic_is_left_out() -> None:
    """The child counts as one without figures."""
    tree = add_up([describe(1, "alice", [0], [])], [b"\xff" * PAGE_BYTES])
    assert tree["identities"][0]["requests"] == 0
    assert "slots" not in tree["identities"][0]["children"][0]


def test_names_of_hosts_are_bounded_and_printable() -> None:
    """Labels come from pages: what no configuration calls a host is no line, and there are not more than MAX_HOSTS."""
    hosts = {f"h{number}.test": (0, 1, 0, 0, 0, 1, 1, 1) for number in range(300)}
    more = {f"i{number}.test": (0, 1, 0, 0, 0, 1, 1, 1) for number in range(300)}
    tree = add_up([describe(1, "alice", [0, 1], [])], [make_page(hosts={"evil\n# HELP x": (0,) * 8, **hosts}), make_page(hosts=more)])
    names = [site["name"] for site in tree["identities"][0]["sites"]]
    assert len(names) == tally.MAX_HOSTS + 1
    assert "*" in names
    assert not [name for name in names if not name.isprintable()]
    assert sum(site["requests"] for site in tree["identities"][0]["sites"]) == 600


# ---------------------------------------------------------------- server-status

# What monitoring programs look for in ?auto: munin's apache_accesses, _processes and _volume; collectd's apache plugin; Zabbix' template
# "Apache by HTTP"; apache_exporter.
WANTED = ("Total Accesses", "Total kBytes", "Total Duration", "BusyWorkers", "IdleWorkers", "Scoreboard", "Uptime", "ServerUptimeSeconds", "ReqPerSec",
          "BytesPerSec", "BytesPerReq", "DurationPerReq", "CPULoad", "CPUUser", "CPUSystem", "CPUChildrenUser", "CPUChildrenSystem", "Load1", "Load5",
          "Load15", "ServerVersion", "ServerMPM", "ConnsTotal", "ConnsAsyncWriting", "ConnsAsyncKeepAlive", "ConnsAsyncClosing", "Processes", "Stopping",
          "GracefulWorkers", "ParentServerConfigGeneration", "ParentServerMPMGeneration", "CurrentTime", "RestartTime", "ServerUptime", "Server Built")


def test_auto_has_every_key_once(tree: dict[str, Any]) -> None:
    """`Key: value` lines behind the host's name, each with a value of the right kind."""
    host, *lines = server_status.render_auto(tree, "status.test", (0.5, 0.25, 0.125)).splitlines()
    facts = dict(line.split(": ", 1) for line in lines)
    assert host == "status.test"
    assert len(lines) == len(facts)
    assert set(WANTED) <= facts.keys()
    assert (facts["Total Accesses"], facts["Total kBytes"], facts["Load5"], facts["Uptime"]) == ("115", "48", "0.25", "100")
    assert facts["Scoreboard"] == "W____..."[:1] + "____" + "..."
    assert (facts["BusyWorkers"], facts["IdleWorkers"]) == ("1", "4")
    words = ("ServerVersion", "ServerMPM", "Server Built", "CurrentTime", "RestartTime", "ServerUptime", "Scoreboard")
    assert not [name for name, value in facts.items() if name not in words and not re.fullmatch(r"-?[0-9.e+-]+", value)]


def test_the_scoreboard_has_room_for_the_thread_that_answers() -> None:
    """Where all threads are there and idle, one more decides in Python: it is busy."""
    tree = add_up([describe(1, "alice", [0], [])], [make_page(threads=9, idle_threads=8)])
    assert server_status.scoreboard(tree) == "W________"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 seconds"), (1, "1 second"), (61, "1 minute 1 second"), (3600, "1 hour 0 minutes 0 seconds"),
                                                (90061, "1 day 1 hour 1 minute 1 second")])
def test_a_duration_is_spelled(seconds: int, words: str) -> None:
    """As httpd does."""
    assert server_status.spell_duration(seconds) == words


def test_the_page_for_people_says_what_scripts_search_for(tree: dict[str, Any]) -> None:
    """And takes no text for HTML; ?refresh and ?notable do what they do in httpd."""
    page = server_status.render_page(tree, "<b>", (0, 0, 0), 5, has_tables=True)
    assert "1 requests currently being processed, 0 workers gracefully restarting, 4 idle workers" in page
    assert "Total accesses: 115 - Total Traffic: 48.8 kB" in page
    assert "<h1>Apache Server Status for &lt;b&gt;</h1>" in page
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "<table" not in server_status.render_page(tree, "x", (0, 0, 0), 0, has_tables=False)


# ---------------------------------------------------------------- our page and metrics


def test_the_own_page_lets_nothing_but_itself_run() -> None:
    """The policy names the digest of the one script and the one style; nothing is loaded from elsewhere."""
    page = own_page.PAGE.decode()
    for tag, word in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{word} 'sha256-{digest}'" in page
    assert not re.findall(r'(?:src|href)="(?!\?json|data:)', page)
    assert "innerHTML" not in page
    assert " style=" not in page


def test_metrics_are_prometheus_text(tree: dict[str, Any]) -> None:
    """Parsed by the library's own parser; a histogram's buckets never fall and end with all."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    families = {family.name: family for family in text_string_to_metric_families(metrics.render_metrics(tree).decode())}
    samples = {(sample.name, *sorted(sample.labels.items())): sample.value for family in families.values() for sample in family.samples}
    assert samples["perchild_sent_bytes_total", ("identity", "alice"), ("uid", "1001")] == 50_020
    assert samples["perchild_host_responses_total", ("class", "2xx"), ("host", "a.test"), ("identity", "alice")] == 100
    buckets = [sample.value for sample in families["perchild_request_duration_seconds"].samples
               if sample.name.endswith("_bucket") and sample.labels["identity"] == "alice"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 105
    assert samples["perchild_request_duration_seconds_bucket", ("identity", "alice"), ("le", "0.002"), ("uid", "1001")] == 90


def test_two_identities_of_one_name_have_metrics_of_their_own() -> None:
    """One user with two sets of groups: else Prometheus would find two values for one series."""
    text = metrics.render_metrics(add_up([describe(1, "alice", [], []), describe(7, "alice", [], [])], [])).decode()
    lines = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_who_sees_one_identity_learns_nothing_of_the_server(tree: dict[str, Any]) -> None:
    """No count of hosts, no addresses, no pid of the dispatcher."""
    own = add_up([describe(1, "alice", [], [])], [], is_all=False)
    assert own["server"]["scope"] == "own"
    assert not own["server"].keys() & {"pid", "host_count", "listeners", "accept_scope"}
    assert tree["server"]["scope"] == "all"
