"""What perchildctl writes: tables, rates between two tallies, links of sites, and the words when nobody answers."""

from __future__ import annotations

import copy
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from perchild.control import processes, watch
from perchild.control.command import main
from perchild.control.screen import Screen, columns, fit, plain_table, spell_bytes, spell_ms, spell_rate, spell_span
from perchild.status import rates, tally
from perchild.wire.board import Board


def make_tally(**counters: int) -> dict[str, Any]:
    """Return the tally of a server with one sleeping identity, whose figures are `counters`."""
    tree = {"ok": True, "mpm": "perchild", "generation": 1, "uptime_s": 9.0, "started_at": 1, "state": "running", "pid": 7, "host_count": 1,
            "accept_scope": "any", "listeners": [{"address": "::1", "port": 80}], "broken_sites": [], "identities": [
                {"number": 1, "name": "alice", "uid": 1001, "gid": 1001, "groups": [], "kind": "on-demand", "hosts": 1, "max_threads": 4,
                 "is_removed": False, "is_held_back": False, "children": [], "past_pages": [], "runner": None}]}
    result = processes.measure(tally.add_up(Board(tree, {}), 100.0))
    result["identities"][0].update(counters)
    result["totals"].update(counters)
    return result


def test_rates_are_what_happened_in_between() -> None:
    """Per second; percentiles of what was answered meanwhile alone."""
    before, now = make_tally(requests=100, handed_in=100, bytes_out=1000), make_tally(requests=300, handed_in=150, bytes_out=5000, refused=3)
    now["at"] = 104.0
    before["identities"][0]["latencies"], now["identities"][0]["latencies"] = {"0": 1000}, {"0": 1000, "48": 10}
    row = rates.compare(now, before)["tenants"][0]
    assert (row["requests_per_s"], row["handed_in_per_s"], row["bytes_out_per_s"], row["refused"]) == (50.0, 12.5, 1000.0, 3)
    assert 1.0 <= row["latency_ms"]["p50"] <= 1.2


def test_an_identity_that_is_new_or_begins_anew_has_no_negative_rate() -> None:
    """A reload may bring identities, and take figures away."""
    before, now = make_tally(requests=100), make_tally(requests=5)
    now["at"] = 101.0
    assert rates.compare(now, before)["tenants"][0]["requests_per_s"] == 0
    before["identities"] = []
    assert rates.compare(now, before)["tenants"][0]["requests_per_s"] == 5


@pytest.mark.parametrize("order", rates.ORDERS)
def test_every_order_orders(order: str) -> None:
    """By the busiest, by name and so on; nothing that is missing stops it."""
    now = make_tally(requests=7)
    other = copy.deepcopy(now["identities"][0]) | {"number": 2, "name": "bob", "requests": 9, "memory_kb": 50, "errors": 3}
    now["identities"].append(other)
    before = make_tally()
    now["at"] = 101.0
    names = [row["name"] for row in rates.compare(now, before, order)["tenants"]]
    assert names == (["alice", "bob"] if order in {"name", "cpu", "latency"} else ["bob", "alice"])


@pytest.mark.parametrize(("slots", "text"), [([], ""), ([-1], "-1"), ([-1, -1, 17, -2, -1], "-1*2 17 -2 -1"), (list(range(3, 30)), "3 4 5 6 7 8 9 10 11 12 13 14 15 16 17...")])
def test_slots_are_shown_as_they_are(slots: list[int], text: str) -> None:
    """Equal neighbours are counted, and a long row is cut."""
    assert rates.show_slots(slots, 40) == text


def test_a_table_is_aligned_and_has_no_blanks_at_its_ends() -> None:
    """Text to the left, figures to the right."""
    assert plain_table(columns("NAME< N"), [["a", "10"], ["longer", "2"]]) == "NAME     N\na       10\nlonger   2\n"


def test_what_does_not_fit_goes_in_order() -> None:
    """And no more than must."""
    wanted, rows = fit(columns("A B C"), [["111111", "222222", "333333"]], 17, ("C", "A"))
    assert [column.name for column in wanted] == ["A", "B"]
    assert rows == [["111111", "222222"]]


@pytest.mark.parametrize(("shown", "words"), [
    (spell_bytes(0), "0 B"), (spell_bytes(940), "940 B"), (spell_bytes(1500), "1.5 KB"), (spell_bytes(25e6), "25 MB"), (spell_bytes(9e18), "9000000 TB"),
    (spell_ms(None), "-"), (spell_ms(0.0854), "85 us"), (spell_ms(2.44), "2.4 ms"), (spell_ms(88.0), "88 ms"), (spell_ms(1234.0), "1.2 s"),
    (spell_rate(0), "0"), (spell_rate(0.44), "0.4"), (spell_rate(1250.4), "1250"),
    (spell_span(5), "5 s"), (spell_span(600), "10 min"), (spell_span(18000), "5 h"), (spell_span(864000), "10 days"),
])
def test_figures_are_spelled(shown: str, words: str) -> None:
    """With few digits, and their unit."""
    assert shown == words


def test_status_names_what_is_wrong_and_the_remedy() -> None:
    """A broken site with its place, an identity whose processes die, log lines that were lost."""
    tree = make_tally(log_lost=4)
    tree["identities"][0]["is_held_back"] = True
    tree["server"]["broken_sites"] = [{"file": "/etc/perchild/sites-enabled/a.conf", "line": 3, "reason": "Invalid command 'Foo'",
                                       "stand_in": "last good version", "when": "", "hosts": ["a.test"]}]
    out = io.StringIO()
    watch.show_status(tree, Screen(out))
    text = out.getvalue()
    assert "listening on [::1]:80; 1 host, 1 identity" in text
    assert "/etc/perchild/sites-enabled/a.conf:3: not in force: Invalid command 'Foo'" in text
    assert "perchildctl reload" in text
    assert "alice: its processes die" in text
    assert "4 access log lines could not be written" in text
    assert "alice  on-demand    -  held back" in text


def test_this_process_is_measured() -> None:
    """Its memory and processor time; of one that is gone, nothing."""
    assert (processes.memory_kb(os.getpid()) or 0) > 1000
    assert (processes.cpu_s(os.getpid()) or 0) > 0
    assert processes.memory_kb(2**22 + 1) is None
    assert processes.cpu_s(2**22 + 1) is None
    assert os.getpid() in processes.tree_of(os.getppid())


# ---------------------------------------------------------------- nobody answers


@pytest.mark.parametrize("command", [["status"], ["top", "-n", "1"], ["tenants"], ["sites"], ["reload"], ["reopen"], ["drain", "alice"]])
def test_without_a_server_it_says_what_to_do(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 3, the path, and the remedy; as JSON too where JSON was asked for."""
    assert main(["--run-dir", str(tmp_path), *command, "--json"]) == 3
    said = capsys.readouterr()
    assert "systemctl start perchildd" in said.err
    assert str(tmp_path) in said.err
    assert json.loads(said.out)["ok"] is False


def test_a_wrong_call_is_two() -> None:
    """argparse's own."""
    with pytest.raises(SystemExit) as ended:
        main(["nonsense"])
    assert ended.value.code == 2


# ---------------------------------------------------------------- ensite, dissite


@pytest.fixture(name="config")
def make_config(tmp_path: Path) -> Path:
    """A configuration directory with three sites, none of them enabled."""
    (tmp_path / "sites-available").mkdir()
    for name in ("000-default", "alice", "bob"):
        (tmp_path / "sites-available" / f"{name}.conf").write_text("\n")
    return tmp_path


def run(config: Path, *words: str) -> int:
    """Run perchildctl on that directory."""
    return main(["--run-dir", str(config / "run"), *words, "--config-dir", str(config)])


def test_a_site_is_enabled_by_a_relative_link(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a2ensite does it, with its words; a second time changes nothing."""
    assert run(config, "ensite", "alice") == 0
    assert (config / "sites-enabled/alice.conf").readlink() == Path("../sites-available/alice.conf")
    assert capsys.readouterr().out == "Enabling site alice.\nTo activate the new configuration, you need to run:\n  systemctl reload perchildd\n"
    assert run(config, "ensite", "alice.conf") == 0
    assert capsys.readouterr().out == "Site alice already enabled\n"
    assert run(config, "dissite", "alice") == 0
    assert not (config / "sites-enabled/alice.conf").is_symlink()
    assert capsys.readouterr().out.startswith("Site alice disabled.\n")
    assert run(config, "dissite", "alice") == 0
    assert capsys.readouterr().out == "Site alice already disabled\n"


def test_patterns_stand_for_sites(config: Path) -> None:
    """* of those that are there."""
    assert run(config, "ensite", "-q", "*") == 0
    assert sorted(path.name for path in (config / "sites-enabled").iterdir()) == ["000-default.conf", "alice.conf", "bob.conf"]
    assert run(config, "dissite", "-q", "b*") == 0
    assert not (config / "sites-enabled/bob.conf").is_symlink()
    assert run(config, "dissite", "x*") == 1


@pytest.mark.parametrize(("word", "name"), [("carol", "carol"), ("../alice", "alice"), ("", "alice"), ("a\nb", "a")])
def test_what_is_no_site_is_refused(config: Path, word: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made, exit status 1."""
    assert run(config, "ensite", word) == 1
    assert capsys.readouterr().err.startswith("ERROR: ")
    assert not (config / "sites-enabled" / f"{name}.conf").exists()


def test_a_file_where_a_link_should_be_is_left_alone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody's work may be in it."""
    (config / "sites-enabled").mkdir()
    (config / "sites-enabled/alice.conf").write_text("mine")
    assert run(config, "ensite", "alice") == 1
    assert run(config, "dissite", "alice") == 1
    assert (config / "sites-enabled/alice.conf").read_text() == "mine"
    assert "not touching it" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_is_removed(config: Path) -> None:
    """As a2ensite removes it."""
    (config / "sites-enabled").mkdir()
    (config / "sites-enabled/gone.conf").symlink_to("../sites-available/gone.conf")
    assert run(config, "ensite", "gone") == 1
    assert not (config / "sites-enabled/gone.conf").is_symlink()


def test_without_a_name_it_shows_the_choices(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2: nothing was asked for."""
    assert run(config, "ensite") == 2
    assert capsys.readouterr().err == "Your choices are: 000-default alice bob\n"


def test_the_answer_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For panels."""
    assert run(config, "ensite", "--json", "alice", "carol") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["done"], answer["is_in_force"]) == (False, ["Enabling site alice."], False)
    assert "carol does not exist" in answer["errors"][0]
