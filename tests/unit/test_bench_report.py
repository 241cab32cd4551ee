"""What bench/ says of its samples: medians, ratios, targets, tables and the chart."""

from __future__ import annotations

import copy
import re
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.chart import draw
from bench.load import _outcome
from bench.tenants import body_of

RATES = {
    "keepalive": {"perchildd": 120_000, "nginx": 60_000, "event": 40_000, "itk": 25_000},
    "close": {"perchildd": 26_000, "nginx": 27_000, "event": 12_000, "itk": 1_600},
    "idle": {"perchildd": 110_000, "nginx": 60_000, "event": 40_000, "itk": 0},
}
SVG = "{http://www.w3.org/2000/svg}"


def sample(rate: float, failed: float = 0) -> dict[str, float]:
    return {"rps": rate, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "max_ms": 9.0, "cpu_us": 1e6 / rate, "requests": rate, "failed": failed}


@pytest.fixture
def result() -> dict:
    servers = [("perchildd", True), ("nginx", False), ("event", False), ("itk", True)]
    works = {work: {key: [sample(rate * share) for share in (0.5, 1.0, 1.1)] if rate else [] for key, rate in rates.items()}
             for work, rates in RATES.items()}
    return {
        "date": "2026-01-02", "machine": {"cpu": "Test <CPU> & co", "cores": 2, "memory_gb": 8, "kernel": "6.1.0", "system": "Debian"},
        "versions": {"perchildd": "0.1.0", "nginx": "1", "apache2": "2", "libapache2-mpm-itk": "3"}, "rounds": 3, "seconds": 1, "tenants": 20,
        "servers": [{"key": key, "label": key, "isolation": apart, "choices": "as it comes"} for key, apart in servers],
        "titles": [{"key": key, "title": key.title(), "sentence": f"what {key} is"} for key in RATES], "works": works,
        "memory": {"perchildd": {"total": 40 * 2**20, "per_tenant": 2 * 2**20, "processes": 24}},
        "extras": {"cold": {"median_ms": 31.0}, "scale": {"test_seconds": 1.9, "failed": 0, "touched": 2}},
    }


def test_median_of_takes_the_middle_round_and_adds_up_failures():
    """One bad round does not move the figure, but its failures are not lost."""
    found = report.median_of([sample(100), sample(7, failed=3), sample(110)])
    assert found["rps"] == 100
    assert found["failed"] == 3


def test_ratios_are_ours_over_theirs_and_leave_out_who_did_not_run(result):
    """A server that could not do a work has no ratio, and no division by nothing happens."""
    assert report.ratios(result)["keepalive"] == pytest.approx({"nginx": 2.0, "event": 3.0, "itk": 4.8})
    assert set(report.ratios(result)["idle"]) == {"nginx", "event"}


def test_misses_names_each_target_that_is_not_reached_and_no_other(result):
    """A ratio below its target, a bound exceeded and a count above nothing are misses; what is reached exactly is none."""
    said = report.misses(result)
    assert len(said) == 3, said
    assert said[0].startswith("close: 0.96x nginx")
    assert "31.00 ms, wanted at most 30 ms" in said[1]
    assert "other children touched" in said[2]


def test_misses_is_empty_when_all_is_reached(result):
    """The same result with better figures has no miss."""
    result["extras"] = {"cold": {"median_ms": 30.0}, "scale": {"failed": 0, "touched": 0}}
    result["works"]["close"]["perchildd"] = [sample(27_000)]
    assert report.misses(result) == []


def test_render_text_says_every_figure_failure_and_inability(result):
    """The terminal's report has each server's row, the sum of failures, the ratio, and who could not."""
    result["works"]["close"]["itk"][0]["failed"] = 7
    text = report.render_text(result)
    assert re.search(r"^nginx +60,000 .* 2\.00x$", text, re.MULTILINE)
    assert re.search(r"^itk +1,600 .* 7 +16\.25x$", text, re.MULTILINE)
    assert "itk cannot do 'Idle'" in text
    assert "missed: close" in text


def test_draw_makes_bars_in_proportion_and_well_formed_xml(result):
    """Within a panel the lengths of bars are as the rates; text of the machine is escaped."""
    root = ET.fromstring(draw(result, report.medians(result)))
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("height") == "20"]
    assert len(bars) == 4 * len(RATES.keys() - {"idle"}) + 1  # idle is in README's table alone
    ours, itk, nginx = (float(bar.get("width")) for bar in bars[:3])
    assert nginx / ours == pytest.approx(0.5, abs=0.01)
    assert itk / ours == pytest.approx(25 / 120, abs=0.01)
    texts = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert "Test <CPU> & co" in texts
    assert "2026-01-02" in texts
    assert "120,000/s" in texts


def test_a_work_that_a_server_has_no_way_to_do_names_it_nowhere(result):
    """CGI of two servers: two rows, and none of the others is said to be unable."""
    result["titles"].append({"key": "cgi", "title": "CGI", "sentence": "hello"})
    result["works"]["cgi"] = {"perchildd": [sample(800)], "itk": [sample(200)]}
    result["ways"] = [{"group": "cgi", "server": "itk", "choices": "mod_cgi"}]
    text = report.render_text(result)
    assert "cannot do 'CGI'" not in text
    assert "  cgi, itk: mod_cgi\n" in text
    assert "| CGI, requests/s | 800 | 200 | - | - |" in report.render_markdown(result)


def test_php_with_new_connections_is_wanted_ten_times_quicker_than_with_mpm_itk(result):
    """The targets of PHP: nginx with php-fpm, and mpm-itk for new connections only."""
    result["extras"] = {}
    result["works"] = {key: {"perchildd": [sample(1000)], "nginx": [sample(900)], "itk": [sample(101)]} for key in ("php", "php-close")}
    assert report.misses(result) == ["php-close: 9.90x itk, wanted 10x"]


def test_draw_stays_within_its_frame_and_lets_no_text_overlap_another_row(result):
    """No bar leaves the picture, and every row has a height of its own."""
    root = ET.fromstring(draw(result, report.medians(result)))
    width, height = float(root.get("width")), float(root.get("height"))
    tops = [float(bar.get("y")) for bar in root.iter(f"{SVG}rect") if bar.get("height") == "20"]
    assert len(set(tops)) == len(tops)
    assert max(tops) + 20 < height
    assert all(float(bar.get("x", "0")) + float(bar.get("width")) <= width for bar in root.iter(f"{SVG}rect"))


def test_draw_reads_in_light_and_dark(result):
    """The picture brings colours for both schemes, and no element names one of its own."""
    text = draw(result, report.medians(result))
    assert "prefers-color-scheme: dark" in text
    assert "fill=" not in text


def test_render_markdown_has_a_cell_for_every_server_and_a_dash_where_none_was_measured(result):
    """All rows of README's table have the same number of cells."""
    rows = [line for line in report.render_markdown(result).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {6}
    assert [row for row in rows if row.startswith("| Idle")] == ["| Idle, requests/s | 110,000 | - | 60,000 | 40,000 |"]


def test_fill_readme_replaces_what_is_between_the_markers_and_nothing_else():
    """Filling twice gives the last table once."""
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.fill_readme(text, "new\n")
    assert once == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.fill_readme(once, "new\n") == once


@pytest.mark.parametrize("text", ["", report.BEGIN, f"{report.END}{report.BEGIN}", f"{report.BEGIN}{report.END}{report.BEGIN}{report.END}"])
def test_fill_readme_refuses_a_text_without_the_two_markers_in_order(text):
    """A README that lost its markers is not written over."""
    with pytest.raises(ValueError, match="README"):
        report.fill_readme(text, "new\n")


def test_the_readme_of_this_tree_has_the_markers_and_shows_both_pictures():
    """README.md can be filled, and the pictures it names are there or are the bench's own."""
    text = report.README.read_text(encoding="utf-8")
    assert "new" in report.fill_readme(text, "new\n")
    for name in re.findall(r'src="([^"]+)"', text):
        assert (report.PROJECT / name).exists() or report.PROJECT / name == report.CHART


def test_the_picture_of_the_processes_is_well_formed_and_reads_in_dark():
    """docs/processes.svg parses, and has colours for both schemes."""
    text = (report.PROJECT / "docs" / "processes.svg").read_text(encoding="utf-8")
    ET.fromstring(text)
    assert "prefers-color-scheme: dark" in text


def test_outcome_counts_every_kind_of_failure_of_wrk():
    """No kind of error that wrk knows is left out of `failed`."""
    seen = dict.fromkeys(("connect", "read", "write", "status", "timeout"), 1)
    seen |= {"requests": 10, "microseconds": 2_000_000, "bytes": 1, "p50_us": 1, "p90_us": 2, "p99_us": 3000, "max_us": 4}
    found = _outcome(copy.copy(seen))
    assert (found.failed, found.seconds, found.latencies["p99_ms"]) == (5, 2.0, 3.0)


def test_body_of_is_as_long_as_asked_and_begins_with_its_host():
    """A wrong tenant's file cannot pass for the right one."""
    body = body_of("t1.bench.test", 1024)
    assert len(body) == 1024
    assert body.startswith(b"t1.bench.test\n")
