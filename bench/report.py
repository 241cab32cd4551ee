"""From samples to what is said of them: medians, ratios, targets, a table for the terminal and one for README.md.

    python3 -m bench.report [RESULT.json]    draw docs/bench.svg and fill README.md from a result, by default the latest
Runs as: anybody.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.chart import draw
from perchild.demo import render_table

Result = dict[str, Any]

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "bench" / "results"
LATEST = RESULTS / "latest.json"
CHART = PROJECT / "docs" / "bench.svg"
README = PROJECT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
OURS = "perchildd"

# What the design asks for: requests/s of perchildd over requests/s of the other, at least.
TARGETS: dict[str, dict[str, float]] = {
    "keepalive": {"nginx": 1.5, "event": 3.0, "itk": 4.0},
    "close": {"nginx": 1.0, "event": 2.0, "itk": 12.0},
    "php": {"nginx": 1.0},
    "php-close": {"nginx": 1.0, "itk": 10.0},
    "tls-full": {"nginx": 0.95},
    "tls-resumed": {"nginx": 0.95},
    "h2-16-1k": {"nginx": 1.0, "event": 2.0},
    "h2-16-100k": {"nginx": 1.0, "event": 2.0},
}
# And of perchildd alone: work, value, unit divisor, unit, at most.
BOUNDS: tuple[tuple[str, str, str, float, str, float], ...] = (
    ("cold", "median_ms", "first byte of a sleeping tenant, median", 1, "ms", 30),
    ("php-cold", "median_ms", "first answer of a sleeping tenant's PHP, median", 1, "ms", 0),
    ("php-memory", "awake", "200 tenants with PHP awake, PSS of all", 2**20, "MB", 0),
    ("php-memory", "awake_tenant", "of it, each tenant", 2**20, "MB", 0),
    ("php-memory", "missing", "of them, tenants not wholly awake", 1, "", 0),
    ("php-memory", "php_asleep", "after their PHP fell asleep, children awake", 2**20, "MB", 0),
    ("php-memory", "asleep", "after all fell asleep", 2**20, "MB", 0),
    ("memory", "idle_child", "idle tenant's child, PSS", 2**20, "MB", 2),
    ("children", "total", "2,000 live children, PSS of all", 2**30, "GB", 4),
    ("scale", "test_seconds", "configuration test, 5,000 hosts of 2,000 users", 1, "s", 2),
    ("scale", "start_seconds", "start with them", 1, "s", 0),
    ("scale", "quiet_seconds", "one host added live", 1, "s", 1),
    ("scale", "loaded_seconds", "one host added live, under load", 1, "s", 1),
    ("scale", "changed_seconds", "one host changed live, under load", 1, "s", 1),
    ("scale", "broken_seconds", "another one changed beside a broken one, under load", 1, "s", 2),
    ("scale", "removed_seconds", "one host removed live, under load", 1, "s", 1),
    ("scale", "dispatcher", "memory of the dispatcher, PSS", 2**20, "MB", 0),
    ("scale", "memory", "memory of all processes, 2,000 children awake, PSS", 2**30, "GB", 4),
    ("scale", "failed", "failed requests of that load", 1, "", 0),
    ("scale", "touched", "other children touched", 1, "", 0),
)
_COUNTS = frozenset({"failed", "touched", "missing"})


def median_of(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of every value over `rounds`; of failures the sum, for a median would hide them."""
    if not rounds:
        return {}
    found = {name: statistics.median(sample[name] for sample in rounds) for name in rounds[0]}
    found["failed"] = sum(sample["failed"] for sample in rounds)
    return found


def medians(result: Result) -> dict[str, dict[str, dict[str, float]]]:
    """Return work -> server -> median sample; a server that did not do a work is not in it."""
    return {work: {server: median_of(rounds) for server, rounds in servers.items() if rounds}
            for work, servers in result["works"].items()}


def ratios(result: Result) -> dict[str, dict[str, float]]:
    """Return work -> other server -> requests/s of perchildd over the other's."""
    found: dict[str, dict[str, float]] = {}
    for work, servers in medians(result).items():
        if OURS in servers:
            found[work] = {key: servers[OURS]["rps"] / sample["rps"] for key, sample in servers.items()
                           if key != OURS and sample["rps"] > 0}
    return found


def misses(result: Result) -> list[str]:
    """Return a sentence for every target that this result does not reach."""
    said = [f"{work}: {ratio:.2f}x {key}, wanted {TARGETS[work][key]:g}x"
            for work, others in ratios(result).items() for key, ratio in others.items()
            if ratio < TARGETS.get(work, {}).get(key, 0)]
    for work, name, title, divisor, unit, bound in BOUNDS:
        figure = result.get("extras", {}).get(work, {}).get(name)
        if figure is not None and (bound or name in _COUNTS) and figure / divisor > bound:
            said.append(f"{title}: {figure / divisor:.2f} {unit}, wanted at most {bound:g} {unit}".replace(" ,", ","))
    return said


def _labels(result: Result) -> dict[str, str]:
    return {server["key"]: server["label"] for server in result["servers"]}


def _head(result: Result) -> str:
    machine = result["machine"]
    return (f"{result['date']}, {machine['cores']} processors ({machine['cpu']}), {machine['memory_gb']} GB, "
            f"Linux {machine['kernel']}, {machine['system']}")


def render_text(result: Result) -> str:
    """Return the whole result as plain text for a terminal: one table per work, the choices made, what was missed."""
    labels, shares = _labels(result), ratios(result)
    parts = [_head(result)]
    for work in result["titles"]:
        servers = medians(result).get(work["key"], {})
        if servers:
            rows = [_text_row(labels[key], sample, shares.get(work["key"], {}).get(key)) for key, sample in servers.items()]
            head = ["", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "failed", "perchildd is"]
            parts.append(f"{work['title']}: {work['sentence']}\n{render_table([head, *rows])}")
    parts += [text for text in (_memory_text(result), _tls_memory_text(result), _extras_text(result), _missing_text(result)) if text]
    parts.append("\n".join(["Choices", *(f"  {server['label']}: {server['choices']}" for server in result["servers"]),
                            *(f"  {way['group']}, {labels[way['server']]}: {way['choices']}" for way in result.get("ways", ()))]))
    if OURS in labels:
        parts.append("Targets\n" + ("\n".join(f"  missed: {miss}" for miss in misses(result)) or "  all reached of those measured"))
    return "\n\n".join(parts) + "\n"


def _text_row(label: str, sample: Mapping[str, float], share: float | None) -> list[str]:
    return [label, f"{sample['rps']:,.0f}", _cell(sample, "p50_ms", ".2f"), _cell(sample, "p99_ms", ".2f"), f"{sample['cpu_us']:.1f}",
            f"{sample['failed']:.0f}", f"{share:.2f}x" if share else ""]


def _memory_text(result: Result) -> str:
    labels = _labels(result)
    rows = [[labels[key], f"{sample['per_tenant'] / 2**20:.2f}", f"{sample['total'] / 2**20:.1f}", f"{sample['processes']:.0f}"]
            for key, sample in result.get("memory", {}).items()]
    head = ["", "MB per tenant", "MB in all", "processes"]
    return f"Memory (PSS), 20 tenants with one kept connection each\n{render_table([head, *rows])}" if rows else ""


def _tls_memory_text(result: Result) -> str:
    labels = _labels(result)
    rows = [[labels[key], f"{sample['per_connection'] / 1024:.1f}", f"{sample['connections']:.0f}"]
            for key, sample in result.get("tls-memory", {}).items()]
    return f"Memory (PSS) of idle TLS connections\n{render_table([['', 'KB per connection', 'connections'], *rows])}" if rows else ""


def _extras_text(result: Result) -> str:
    extras = result.get("extras", {})
    rows = [[title, _figure(extras[work][name] / divisor, unit), f"at most {bound:g} {unit}".strip() if bound or name in _COUNTS else ""]
            for work, name, title, divisor, unit, bound in BOUNDS if name in extras.get(work, {})]
    return f"perchildd alone\n{render_table([['', 'measured', 'wanted'], *rows])}" if rows else ""


def _figure(number: float, unit: str) -> str:
    return f"{number:.2f} {unit}" if unit else f"{number:.0f}"


def _missing_text(result: Result) -> str:
    labels, titles = _labels(result), {work["key"]: work["title"] for work in result["titles"]}
    return "\n".join(f"{labels[key]} cannot do '{titles[work]}': it needs two processes for each connection that is held"
                     for work, servers in result["works"].items() for key, rounds in servers.items() if not rounds)


# --- README.md -------------------------------------------------------------------------------------------------------------


def render_markdown(result: Result) -> str:
    """Return the comparison for README.md: a table of perchildd, mpm-itk and nginx + php-fpm, and where it was measured."""
    columns = [key for key in (OURS, "itk", "nginx", "nginx-cached", "event") if key in _labels(result)]
    titles = {OURS: "perchildd",
              "itk": "httpd + mpm-itk", "nginx": "nginx (+ php-fpm)", "nginx-cached": "nginx, files cached", "event": "httpd event (+ php-fpm)"}
    apart = {OURS: "all of it", "itk": "after the head is read", "nginx": "PHP only", "nginx-cached": "PHP only", "event": "PHP only"}
    rows = [["runs as the tenant", *(apart[key] for key in columns)]]
    found = medians(result)
    for work in result["titles"]:
        if work["key"] in found:
            rows.append([f"{work['title']}, requests/s", *(_cell(found[work["key"]].get(key), "rps", ",.0f") for key in columns)])
    for key, title in (("close", "CPU per new connection, µs"), ("keepalive", "CPU per kept request, µs")):
        if key in found:
            rows.append([title, *(_cell(found[key].get(column), "cpu_us", ".0f") for column in columns)])
    memory = result.get("memory", {})
    if memory:
        per = {key: {"mb": sample["per_tenant"] / 2**20} for key, sample in memory.items()}
        rows.append(["memory per tenant, MB", *(_cell(per.get(key), "mb", ".1f") for key in columns)])
    idle = {key: {"kb": sample["per_connection"] / 1024} for key, sample in result.get("tls-memory", {}).items()}
    if idle:
        rows.append(["memory per idle TLS connection, KB", *(_cell(idle.get(key), "kb", ".1f") for key in columns)])
    lines = ["| | " + " | ".join(titles[key] for key in columns) + " |", "|---|" + "---:|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + f"\n\n{_note(result)}\n"


def _cell(sample: Mapping[str, float] | None, name: str, form: str) -> str:
    return format(sample[name], form) if sample and name in sample else "-"


def _note(result: Result) -> str:
    versions = result["versions"]
    return (f"Measured on {_head(result)}; load generator and server share the processors. "
            f"perchildd {versions['perchildd']}, nginx {versions.get('nginx', '?')}, httpd {versions.get('apache2', '?')}, "
            f"mpm-itk {versions.get('libapache2-mpm-itk', '?')}, PHP {versions.get('php-fpm', '?')}; 20 tenants, access logs on, medians. "
            "Repeat it with `sudo bench/run`.")


def fill_readme(text: str, table: str) -> str:
    """Return `text` with `table` between the two markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"README.md must have {BEGIN} and, after it, {END}, once each")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def publish(result: Result) -> None:
    """Draw docs/bench.svg and fill README.md from `result`."""
    CHART.parent.mkdir(exist_ok=True)
    CHART.write_text(draw(result, medians(result)), encoding="utf-8")
    README.write_text(fill_readme(README.read_text(encoding="utf-8"), render_markdown(result)), encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Publish the result named in `argv`, or the latest, and print it."""
    result = json.loads(Path(argv[0] if argv else LATEST).read_text(encoding="utf-8"))
    print(render_text(result))
    publish(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
