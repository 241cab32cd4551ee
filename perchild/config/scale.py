"""The numbers of the MPMs: defaults, and httpd's corrections where two directives do not fit each other.

A single value out of its range is an error (values.py); values that contradict each other are corrected, with a warning, as
httpd does at start.
Runs as: compile (pure).  Source: history.md 2.1, 4.1; httpd's worker.c, prefork.c (*_check_config).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perchild.config.messages import BadDirectiveError
from perchild.wire.plan import Scale


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads a child has: at the start, idle at least and at most, in all."""

    start: int
    min_spare: int
    max_spare: int
    most: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """What an MPM makes of its directives: children and threads of the unassigned, threads of the assigned."""

    scale: Scale
    unassigned: Threads
    assigned: Threads
    warnings: tuple[str, ...]


def compute_numbers(mpm: str, server: dict[str, Any], fixed_count: int) -> Numbers:
    """Return the numbers in force.

    Args:
        mpm: perchild, worker or prefork.
        server: values of the server's directives by field, defaults included.
        fixed_count: children named by ChildPerUserID.
    Raises:
        BadDirectiveError: a bound is broken; the text names the range.
    """
    warnings: list[str] = []
    limit = server["thread_limit"]
    most = server.get("max_threads_per_child", limit)
    if most > limit:
        message = f"MaxThreadsPerChild {most} is out of range: 1..{limit} expected (ThreadLimit is {limit})"
        raise BadDirectiveError(message)
    assigned = _perchild_threads(server if mpm == "perchild" else {}, most, server["start_threads"], warnings)
    scale = {"perchild": _perchild, "worker": _worker, "prefork": _prefork}[mpm](server, fixed_count, assigned, warnings)
    unassigned = assigned if mpm == "perchild" else Threads(*(scale.threads_per_child,) * 4)
    return Numbers(scale, unassigned, assigned, tuple(warnings))


def _perchild_threads(server: dict[str, Any], most: int, start: int, warnings: list[str]) -> Threads:
    min_spare = min(server.get("min_spare_threads", 5), most)
    max_spare = min(server.get("max_spare_threads", 10), most)
    if max_spare < min_spare:
        warnings.append(f"MaxSpareThreads {max_spare} is less than MinSpareThreads; {min_spare} is used")
        max_spare = min_spare
    if start > most:
        warnings.append(f"StartThreads {start} is more than MaxThreadsPerChild; {most} is used")
        start = most
    return Threads(start, min_spare, max_spare, most)


def _perchild(server: dict[str, Any], fixed_count: int, threads: Threads, _warnings: list[str]) -> Scale:
    servers = server["num_servers"]
    limit = server.get("server_limit", max(8, servers))
    if servers > limit:
        message = f"NumServers {servers} is out of range: 1..{limit} expected (ServerLimit is {limit})"
        raise BadDirectiveError(message)
    return Scale(max(1, servers - fixed_count), threads.min_spare, threads.max_spare, limit, threads.most, servers * threads.most)


def _worker(server: dict[str, Any], _fixed: int, _threads: Threads, warnings: list[str]) -> Scale:
    limit = server.get("server_limit", 16)
    threads = server.get("threads_per_child", 25)
    if threads > server["thread_limit"]:
        message = f"ThreadsPerChild {threads} is out of range: 1..{server['thread_limit']} expected (ThreadLimit is {server['thread_limit']})"
        raise BadDirectiveError(message)
    workers = server.get("max_request_workers", min(400, limit * threads))
    if workers < threads:
        warnings.append(f"MaxRequestWorkers {workers} is less than ThreadsPerChild; {threads} is used")
        workers = threads
    if workers % threads:
        warnings.append(f"MaxRequestWorkers {workers} is no multiple of ThreadsPerChild {threads}; {workers - workers % threads} is used")
        workers -= workers % threads
    if workers > limit * threads:
        warnings.append(f"MaxRequestWorkers {workers} needs more than ServerLimit {limit} children; {limit * threads} is used")
        workers = limit * threads
    min_spare = server.get("min_spare_threads", 75)
    max_spare = server.get("max_spare_threads", 250)
    if max_spare < min_spare + threads:
        warnings.append(f"MaxSpareThreads {max_spare} is less than MinSpareThreads and ThreadsPerChild together; "
                        f"{min_spare + threads} is used")
        max_spare = min_spare + threads
    return Scale(min(server.get("start_servers", 3), workers // threads), min_spare, max_spare, limit, threads, workers)


def _prefork(server: dict[str, Any], _fixed: int, _threads: Threads, warnings: list[str]) -> Scale:
    limit = server.get("server_limit", 256)
    workers = server.get("max_request_workers", limit if "server_limit" in server else 256)
    if workers > limit:
        warnings.append(f"MaxRequestWorkers {workers} is more than ServerLimit; {limit} is used")
        workers = limit
    min_spare = server.get("min_spare_servers", 5)
    max_spare = server.get("max_spare_servers", 10)
    if max_spare <= min_spare:
        warnings.append(f"MaxSpareServers {max_spare} is not more than MinSpareServers; {min_spare + 1} is used")
        max_spare = min_spare + 1
    return Scale(min(server.get("start_servers", 5), workers), min_spare, max_spare, limit, 1, workers)
