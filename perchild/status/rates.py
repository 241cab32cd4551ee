"""Two tallies of one server, compared: what happened in between, for perchildctl top. docs/status.md describes the result.

Runs as: perchildctl.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perchild.status.tally import PERCENTILES, Tree, percentile_ms, spread

_RATES = {"requests_per_s": "requests", "handed_in_per_s": "handed_in", "handed_out_per_s": "handed_out", "bytes_out_per_s": "bytes_out",
          "bytes_in_per_s": "bytes_in", "errors_per_s": "errors"}
_NOW = ("connections", "parked", "waiting", "threads", "busy_threads", "memory_kb", "requests", "errors")
_REFUSED = ("refused", "inbox_full", "unavailable", "misdirected")
ORDERS = {
    "requests": lambda row: (-row["requests_per_s"], -row["requests"], row["name"]),
    "memory": lambda row: (-row["memory_kb"], row["name"]),
    "cpu": lambda row: (-row["cpu_percent"], row["name"]),
    "latency": lambda row: (-(row["latency_ms"]["p90"] or 0.0), row["name"]),
    "errors": lambda row: (-row["errors_per_s"], -row["errors"], row["name"]),
    "name": lambda row: (row["name"], row["number"]),
}


def compare(now: Tree, before: Tree, order: str = "requests") -> Tree:
    """Return what happened between two tallies: `totals`, and a row for each identity in `tenants`."""
    seconds = max(0.001, now["at"] - before["at"])
    old = {one["number"]: one for one in before["identities"]}
    rows = [_compare_one(one, old.get(one["number"], {}), seconds) for one in now["identities"]]
    return {"schema": now["schema"], "at": now["at"], "interval_s": round(seconds, 3), "server": now["server"],
            "totals": _compare(now["totals"], before["totals"], seconds), "tenants": sorted(rows, key=ORDERS[order])}


def _compare_one(one: Tree, old: Mapping[str, Any], seconds: float) -> Tree:
    slots = [slot[0] for child in one["children"] for slot in child.get("slots", ())]
    return {**{name: one[name] for name in ("number", "name", "uid", "kind", "hosts", "is_held_back", "is_removed")},
            "processes": len(one["children"]), "programs": len(one.get("programs", ())), "slots": slots, **_compare(one, old, seconds)}


def _compare(one: Tree, old: Mapping[str, Any], seconds: float) -> Tree:
    row: Tree = {name: round(max(0, one[member] - old.get(member, 0)) / seconds, 2) for name, member in _RATES.items()}
    row.update({name: one[name] for name in _NOW})
    row["refused"] = sum(max(0, one[name] - old.get(name, 0)) for name in _REFUSED)
    row["cpu_percent"] = round(100 * max(0.0, _cpu_s(one) - _cpu_s(old)) / seconds, 1) if old else 0.0
    counts = [max(0, now - then) for now, then in zip(spread(one["latencies"]), spread(old.get("latencies", {})), strict=True)]
    row["latency_ms"] = {name: percentile_ms(counts, share) for name, share in PERCENTILES.items()}
    return row


def _cpu_s(one: Mapping[str, Any]) -> float:
    return float(one.get("cpu_user_s", 0.0) + one.get("cpu_system_s", 0.0) + one.get("programs_cpu_s", 0.0))


def show_slots(slots: Sequence[int], width: int) -> str:
    """Return slots as they are, equal neighbours counted: `-1*4 17 -2`, cut to `width` characters."""
    parts: list[str] = []
    at = 0
    while at < len(slots):
        end = at
        while end < len(slots) and slots[end] == slots[at]:
            end += 1
        parts.append(str(slots[at]) if end == at + 1 else f"{slots[at]}*{end - at}")
        at = end
    text = " ".join(parts)
    return text if len(text) <= width else text[: width - 3] + "..."
