"""The chart: horizontal bars per work and server, drawn as an SVG that needs nothing else and reads in light and dark.

Runs as: anybody (pure).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]

WIDTH = 860
_LEFT, _RIGHT = 160, 210  # room for names, and for figures behind the bars
_BAR, _GAP, _PANEL_GAP, _TITLE = 20, 6, 26, 44
_TOP = 96
_DRAWN = frozenset(("keepalive", "close", "php-close", "tls-full", "h2-16-1k"))  # one of each kind, for one screen: README's table has all
_ORDER = ("perchildd", "itk", "nginx", "nginx-cached", "event")

# Plain rules, not var(): every viewer of SVG knows them.
_STYLE = """\
  text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1b1f24 }
  .title { font-size: 20px; font-weight: 650 } .panel { font-weight: 650 } .strong { font-weight: 650 }
  .faint { fill: #626b76; font-size: 12.5px; font-weight: 400 } .figure { font-variant-numeric: tabular-nums }
  .page { fill: #ffffff } .rule { stroke: #d9dee4 } .ours { fill: #1f6feb } .apart { fill: #8a63d2 } .shared { fill: #a9b4c0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .faint { fill: #98a3af } .page { fill: #0d1117 } .rule { stroke: #30363d }
    .ours { fill: #58a6ff } .apart { fill: #b392f0 } .shared { fill: #57616d }
  }"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: server key, name, length in the panel's unit, the figure and what stands behind it."""

    key: str
    label: str
    value: float
    figure: str
    remark: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One group of bars: title, explanation, bars (an absent value is 0 with a remark)."""

    title: str
    sentence: str
    bars: tuple[Bar, ...]


def draw(result: Mapping[str, Any], found: Medians) -> str:
    """Return the SVG of `result` and its medians (work -> server -> sample): a panel for each work of _DRAWN that was done, and for memory."""
    panels = [panel for work in result["titles"] if work["key"] in _DRAWN and (panel := _rate_panel(result, found, work))]
    memory = _memory_panel(result)
    panels += [memory] if memory else []
    y, parts = _TOP, []
    for panel in panels:
        parts.append(_panel(panel, y, _kinds(result)))
        y += _height(panel) + _PANEL_GAP
    return _frame(result, y + 44, "\n".join(parts))


def _kinds(result: Mapping[str, Any]) -> dict[str, str]:
    return {server["key"]: "ours" if server["key"] == "perchildd" else "apart" if server["isolation"] else "shared"
            for server in result["servers"]}


def _ordered(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(result["servers"], key=lambda server: _ORDER.index(server["key"]))


def _rate_panel(result: Mapping[str, Any], found: Medians, work: Mapping[str, str]) -> Panel | None:
    samples = found.get(work["key"], {})
    if not samples:
        return None
    ours = samples.get("perchildd", {}).get("rps", 0.0)
    bars = []
    for server in _ordered(result):
        if server["key"] not in result["works"][work["key"]]:
            continue  # it was not asked to
        sample = samples.get(server["key"])
        if sample is None:
            bars.append(Bar(server["key"], server["label"], 0, "cannot", "a process per held connection"))
            continue
        share = ours / sample["rps"] if sample["rps"] and server["key"] != "perchildd" else 0
        remark = f"perchildd {share:.2f}x" if share else f"{sample['cpu_us']:.0f} µs CPU each"
        bars.append(Bar(server["key"], server["label"], sample["rps"], f"{sample['rps']:,.0f}/s", remark))
    return Panel(work["title"], work["sentence"], tuple(bars))


def _memory_panel(result: Mapping[str, Any]) -> Panel | None:
    memory = result.get("memory", {})
    if not memory:
        return None
    bars = [Bar(server["key"], server["label"], memory[server["key"]]["per_tenant"],
                f"{memory[server['key']]['per_tenant'] / 2**20:.2f} MB", f"{memory[server['key']]['processes']:.0f} processes")
            for server in _ordered(result) if server["key"] in memory]
    return Panel("Memory per tenant", "PSS of all processes, 20 tenants with one kept connection each; less is better", tuple(bars))


def _height(panel: Panel) -> int:
    return _TITLE + len(panel.bars) * (_BAR + _GAP)


def _panel(panel: Panel, y: int, kinds: Mapping[str, str]) -> str:
    longest = max((bar.value for bar in panel.bars), default=0) or 1
    room = WIDTH - _LEFT - _RIGHT
    lines = [f'<line class="rule" x1="24" x2="{WIDTH - 24}" y1="{y}" y2="{y}"/>',
             (f'<text x="24" y="{y + 26}"><tspan class="panel">{escape(panel.title)}</tspan>'
             f'<tspan class="faint" dx="10">{escape(panel.sentence)}</tspan></text>')]
    for number, bar in enumerate(panel.bars):
        lines.append(_bar(bar, y + _TITLE + number * (_BAR + _GAP), bar.value / longest * room, kinds[bar.key]))
    return "\n".join(lines)


def _bar(bar: Bar, y: int, length: float, kind: str) -> str:
    base = y + _BAR - 5
    strong = " strong" if kind == "ours" else ""
    drawn = max(length, 2) if bar.value else 0
    return (f'<text class="{strong.strip()}" x="{_LEFT - 12}" y="{base}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{drawn:.1f}" height="{_BAR}" rx="3"/>'
            f'<text class="figure{strong}" x="{_LEFT + drawn + 8:.1f}" y="{base}">{escape(bar.figure)}'
            f'<tspan class="faint" dx="8">{escape(bar.remark)}</tspan></text>')


def _legend(x: int, y: int, entries: Sequence[tuple[str, str]]) -> str:
    parts = []
    for kind, text in entries:
        parts.append(f'<rect class="{kind}" x="{x}" y="{y - 10}" width="12" height="12" rx="2"/>'
                     f'<text class="faint" x="{x + 18}" y="{y}">{escape(text)}</text>')
        x += 40 + round(len(text) * 6.6)
    return "".join(parts)


def _frame(result: Mapping[str, Any], height: int, body: str) -> str:
    machine = result["machine"]
    feet = (f"{result['date']} · {machine['cores']} processors, {machine['cpu']} · {machine['memory_gb']} GB",
            f"Linux {machine['kernel']} · {machine['system']} · load generator on the same machine")
    legend = _legend(24, 72, (("ours", "perchildd: every tenant its own uid"), ("apart", "tenants apart, the usual way"),
                              ("shared", "one uid for all tenants")))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="t">
<title id="t">Requests per second of perchildd, httpd mpm-itk, nginx and httpd event, side by side</title>
<style>
{_STYLE}
</style>
<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>
<text class="title" x="24" y="42">Requests per second, 20 tenants, one machine</text>
{legend}
{body}
<text class="faint" x="24" y="{height - 36}">{escape(feet[0])}</text>
<text class="faint" x="24" y="{height - 18}">{escape(feet[1])}</text>
</svg>
"""
