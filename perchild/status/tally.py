"""A board, added up: what status pages, metrics and perchildctl show. docs/status.md describes every member of the result.

A page's figures are what its child says of itself. They are added within its identity, and an identity can thus lie about itself alone.
Runs as: perchildctl; children, for their status pages.  Pure.  Distrusts: pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perchild.version import SERVER
from perchild.wire.board import Board
from perchild.wire.page import LATENCY_BUCKETS, OTHER_HOSTS, Page, latency_bounds_us

SCHEMA = 1
COUNTED = ("requests", "bytes_in", "bytes_out", "errors", "accepted", "handed_in", "handed_out", "carried", "refused", "inbox_full",
           "unavailable", "misdirected", "timeouts", "asked", "log_lost", "tls_handshakes", "tls_resumed", "tls_failed")
STATES = ("connections", "parked", "waiting", "threads", "idle_threads")
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
MAX_HOSTS = 512  # of one identity; the others are one line, whatever its pages say
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
Tree = dict[str, Any]
_KNOWN = ("number", "name", "uid", "gid", "kind", "hosts", "max_threads", "is_removed", "is_held_back", "runner")
_BOUNDS_US = latency_bounds_us()


def add_up(board: Board, at_s: float) -> Tree:
    """Return what a board says, added up. at_s: wall clock, seconds since 1970."""
    tree = board.tree
    identities = [_add_identity(one, board.pages) for one in tree["identities"]]
    server = {name: tree[name] for name in ("pid", "state", "mpm", "accept_scope", "generation", "uptime_s", "started_at", "host_count",
                                            "listeners", "broken_sites", "held_certificates") if name in tree}
    return {"schema": SCHEMA, "at": round(at_s, 3), "server": {"version": SERVER, "scope": "all" if "pid" in tree else "own", **server},
            "totals": _add_totals(identities), "identities": identities}


def _add_identity(one: Mapping[str, Any], pages: Mapping[int, Page]) -> Tree:
    live = [(child, pages[child["page"]]) for child in one["children"] if child["page"] in pages]
    past = [pages[number] for number in one["past_pages"] if number in pages]
    every = [*(page for _child, page in live), *past]
    result: Tree = {name: one[name] for name in _KNOWN}
    result["children"] = [_show_child(child, pages.get(child["page"])) for child in one["children"]]
    result.update({name: sum(page.counters[name] for _child, page in live) for name in STATES})
    result.update({name: sum(page.counters[name] for page in every) for name in COUNTED})
    result["busy_threads"] = max(0, result["threads"] - result["idle_threads"])
    result["memory_kb"] = sum(page.counters["memory_kb"] for _child, page in live)
    result["cpu_user_s"] = round(sum(page.counters["cpu_user_us"] for page in every) / 1e6, 3)
    result["cpu_system_s"] = round(sum(page.counters["cpu_system_us"] for page in every) / 1e6, 3)
    result["sites"] = _add_sites(every)
    result["responses"] = {name: sum(site["responses"][name] for site in result["sites"]) for name in CLASSES}
    result["duration_s"] = round(sum(site["duration_s"] for site in result["sites"]), 6)
    _put_latencies(result, [sum(counts) for counts in zip(*(page.latencies for page in every), strict=True)])
    return result


def _show_child(child: Mapping[str, Any], page: Page | None) -> Tree:
    """Return one process: what the dispatcher knows, and of its page what concerns it alone."""
    result: Tree = {name: child[name] for name in ("pid", "state", "generation", "is_accepting", "idle", "busy")}
    if page is not None:
        result.update({name: page.counters[name] for name in (*STATES, "memory_kb")})
        result["slots"] = [[slot.value, slot.changes, list(slot.history)] for slot in page.slots]
    return result


def _add_sites(pages: Iterable[Page]) -> list[Tree]:
    """Return hosts by name, over all pages of one identity, the busiest first."""
    found: dict[str, list[float]] = {}
    for page in pages:
        for host in page.hosts:
            name = host.name if host.name in found or len(found) < MAX_HOSTS else OTHER_HOSTS
            figures = (*host.responses, host.bytes_in, host.bytes_out, host.duration_us)
            found[name] = [a + b for a, b in zip(found.get(name, [0] * len(figures)), figures, strict=True)]
    rows = [{"name": name, "responses": dict(zip(CLASSES, figures, strict=False)), "requests": sum(figures[: len(CLASSES)]),
             "bytes_in": figures[-3], "bytes_out": figures[-2], "duration_s": round(figures[-1] / 1e6, 6)}
            for name, figures in found.items()]
    return sorted(rows, key=lambda row: (-row["requests"], row["name"]))


def _add_totals(identities: Sequence[Tree]) -> Tree:
    names = (*COUNTED, *STATES, "busy_threads", "memory_kb")
    totals: Tree = {name: sum(one[name] for one in identities) for name in names}
    for name in ("cpu_user_s", "cpu_system_s", "duration_s"):
        totals[name] = round(sum(one[name] for one in identities), 6)
    totals["children"] = sum(len(one["children"]) for one in identities)
    totals["responses"] = {name: sum(one["responses"][name] for one in identities) for name in CLASSES}
    latencies = [0] * LATENCY_BUCKETS
    for one in identities:
        for bucket, count in one["latencies"].items():
            latencies[int(bucket)] += count
    _put_latencies(totals, latencies)
    return totals


# ---------------------------------------------------------------- latencies


def _put_latencies(result: Tree, counts: Sequence[int]) -> None:
    """Put the buckets that are not empty, and percentiles since the start, in milliseconds (null: nothing was answered)."""
    result["latencies"] = {str(bucket): count for bucket, count in enumerate(counts) if count}
    result["latency_ms"] = {name: percentile_ms(counts, share) for name, share in PERCENTILES.items()}


def percentile_ms(counts: Sequence[int], share: float) -> float | None:
    """Return the duration that `share` (0 to 1) of the counted ones do not exceed, ms, interpolated within its bucket; None of none."""
    wanted = share * sum(counts)
    if not wanted:
        return None
    seen = 0
    for bucket, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = _BOUNDS_US[bucket]
            high = _BOUNDS_US[bucket + 1] if bucket + 1 < len(_BOUNDS_US) else low
            return round((low + (high - low) * (wanted - seen) / count) / 1000, 4)
        seen += count
    return None


def spread(latencies: Mapping[str, int]) -> list[int]:
    """Return every bucket's count from those that are not empty."""
    return [latencies.get(str(bucket), 0) for bucket in range(LATENCY_BUCKETS)]
