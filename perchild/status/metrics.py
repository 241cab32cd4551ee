"""`SetHandler prometheus`: the tally in Prometheus' text format, by prometheus_client (Debian: python3-prometheus-client).

Cardinality is bounded: labels are identities of the configuration and, of each, at most tally.MAX_HOSTS of its hosts; no label comes
from a request.
Runs as: a child that is asked for it.  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from perchild.status.tally import CLASSES, spread
from perchild.wire.page import latency_bounds_us

CONTENT_TYPE: str = CONTENT_TYPE_LATEST
_WHO = ("identity", "uid")
_BOUNDS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
# Of an identity: name, what it is, member of the tally, by what it is multiplied.
_COUNTERS = (
    ("perchild_accepted_connections", "Connections taken from a listener.", "accepted", 1),
    ("perchild_refused_handoffs", "Hand-offs that broke a rule.", "refused", 1),
    ("perchild_inbox_full", "Attempts to hand a connection to a full inbox.", "inbox_full", 1),
    ("perchild_unavailable", "Connections answered with 503 because the owner's inbox stayed full.", "unavailable", 1),
    ("perchild_misdirected", "Requests answered with 421.", "misdirected", 1),
    ("perchild_timeouts", "Connections closed by a deadline.", "timeouts", 1),
    ("perchild_lost_log_lines", "Access log lines that could not be written.", "log_lost", 1),
    ("perchild_tls_handshakes", "Full handshakes of TLS.", "tls_handshakes", 1),
    ("perchild_tls_resumed", "Handshakes of TLS with a ticket.", "tls_resumed", 1),
    ("perchild_tls_failed", "Handshakes of TLS that were refused, broken off or not finished in time.", "tls_failed", 1),
    ("perchild_received_bytes", "Bytes of requests.", "bytes_in", 1),
    ("perchild_sent_bytes", "Bytes of responses.", "bytes_out", 1),
)
_GAUGES = (
    ("perchild_connections", "Connections open now.", "connections", 1),
    ("perchild_parked_connections", "Connections kept alive that wait for a request now, and hold no thread.", "parked", 1),
    ("perchild_waiting_connections", "Connections held back for a full inbox now.", "waiting", 1),
    ("perchild_memory_pss_bytes", "Proportional set size of the identity's server processes.", "memory_kb", 1024),
)
_HOST_COUNTERS = (
    ("perchild_host_received_bytes", "Bytes of requests for a host.", "bytes_in"),
    ("perchild_host_sent_bytes", "Bytes of responses of a host.", "bytes_out"),
    ("perchild_host_duration_seconds", "Time from requests' first bytes to their answers' last, of a host.", "duration_s"),
)


class _Collector:
    """Gives the families of one tally, once."""

    def __init__(self, tree: dict[str, Any]) -> None:
        counts = Counter(one["name"] for one in tree["identities"])
        labelled = [one if counts[one["name"]] == 1 else {**one, "name": f"{one['name']}/{one['number']}"} for one in tree["identities"]]
        self._tree = {**tree, "identities": labelled}  # one user with two sets of groups is two identities

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from _server(self._tree["server"])
        yield from _identities(self._tree["identities"])
        yield from _hosts(self._tree["identities"])


def render_metrics(tree: dict[str, Any]) -> bytes:
    """Return a tally in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(tree))  # type: ignore[arg-type]
    return bytes(generate_latest(registry))


def _server(server: dict[str, Any]) -> Iterator[Metric]:
    yield InfoMetricFamily("perchild", "The server.", {"version": server["version"], "mpm": server["mpm"]})
    yield GaugeMetricFamily("perchild_uptime_seconds", "Since the server was started.", server["uptime_s"])
    yield GaugeMetricFamily("perchild_generation", "Number of the configuration in force.", server["generation"])
    if "host_count" in server:
        yield GaugeMetricFamily("perchild_hosts", "Hosts of the configuration in force.", server["host_count"])


def _who(one: dict[str, Any]) -> tuple[str, str]:
    return one["name"], str(one["uid"])


def _identities(identities: list[dict[str, Any]]) -> Iterator[Metric]:
    for families, kind in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
        for name, text, member, factor in families:
            family = kind(name, text, labels=_WHO)
            for one in identities:
                family.add_metric(_who(one), one[member] * factor)
            yield family
    children = GaugeMetricFamily("perchild_children", "Server processes.", labels=(*_WHO, "state"))
    threads = GaugeMetricFamily("perchild_threads", "Worker threads.", labels=(*_WHO, "state"))
    handed = CounterMetricFamily("perchild_handoffs", "Connections handed between identities.", labels=(*_WHO, "direction"))
    cpu = CounterMetricFamily("perchild_cpu_seconds", "Processor time of the identity's server processes.", labels=(*_WHO, "mode"))
    responses = CounterMetricFamily("perchild_responses", "Responses by the class of their status.", labels=(*_WHO, "class"))
    duration = HistogramMetricFamily("perchild_request_duration_seconds", "From a request's first byte to its answer's last.", labels=_WHO)
    for one in identities:
        who = _who(one)
        for state in ("starting", "ready", "ending", "draining"):
            children.add_metric((*who, state), sum(child["state"] == state for child in one["children"]))
        threads.add_metric((*who, "busy"), one["busy_threads"])
        threads.add_metric((*who, "idle"), one["idle_threads"])
        for direction, member in (("in", "handed_in"), ("out", "handed_out")):
            handed.add_metric((*who, direction), one[member])
        cpu.add_metric((*who, "user"), one["cpu_user_s"])
        cpu.add_metric((*who, "system"), one["cpu_system_s"])
        for name in CLASSES:
            responses.add_metric((*who, name), one["responses"][name])
        duration.add_metric(who, _buckets(spread(one["latencies"])), one["duration_s"])
    yield from (children, threads, handed, cpu, responses, duration)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Return cumulative counts. Our buckets begin at every one of _BOUNDS_S, so that no count is guessed."""
    begins_us = latency_bounds_us()
    below = [sum(count for count, begin in zip(counts, begins_us, strict=True) if begin < round(bound * 1e6)) for bound in _BOUNDS_S]
    return [*((str(bound), float(count)) for bound, count in zip(_BOUNDS_S, below, strict=True)), ("+Inf", float(sum(counts)))]


def _hosts(identities: list[dict[str, Any]]) -> Iterator[Metric]:
    for name, text, member in _HOST_COUNTERS:
        family = CounterMetricFamily(name, text, labels=("identity", "host"))
        for one in identities:
            for site in one["sites"]:
                family.add_metric((one["name"], site["name"]), site[member])
        yield family
    responses = CounterMetricFamily("perchild_host_responses", "Responses of a host by the class of their status.",
                                    labels=("identity", "host", "class"))
    for one in identities:
        for site in one["sites"]:
            for cls in CLASSES:
                if site["responses"][cls]:
                    responses.add_metric((one["name"], site["name"], cls), site["responses"][cls])
    yield responses
