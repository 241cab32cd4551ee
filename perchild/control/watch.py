"""Be perchildctl status, top, tenants, sites: what the server does, for people and as JSON. docs/status.md describes the JSON.

Runs as: root, or the uid the server was started by.  Trusts: the dispatcher.  Distrusts: pages (status/tally.py).
Before: command.py  After: status/tally.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from perchild.control.client import ask_board, ask_server
from perchild.control.processes import measure
from perchild.control.screen import (
    Cell,
    Screen,
    columns,
    fit,
    plain_table,
    rich_table,
    spell_bytes,
    spell_ms,
    spell_rate,
    spell_span,
)
from perchild.control.table import Command
from perchild.status import rates, tally
from perchild.words import count_of

Tree = dict[str, Any]
MIN_INTERVAL_S = 0.2
_SLOTS_WIDTH = 40
_KB = 1024
_BUSY_PERCENT = 50


def take(run_dir: str) -> Tree:
    """Return the tally of a server as of now, with the system's own figures of its processes."""
    return measure(tally.add_up(ask_board(run_dir), time.time()))


def _write_json(tree: object) -> None:
    sys.stdout.write(json.dumps(tree) + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------- status


def run_status(options: argparse.Namespace) -> int:
    """Be perchildctl status."""
    tree = take(options.run_dir)
    if options.json:
        _write_json(tree)
    else:
        show_status(tree, Screen())
    return 0


def show_status(tree: Tree, screen: Screen) -> None:
    """Write a head, what is wrong, and a line for each process."""
    for text, style in head_lines(tree):
        screen.line(text, style)
    for problem in problems(tree):
        screen.line(problem, "bold red")
    screen.line()
    screen.table(columns("USER< KIND< PID STATE< GEN CONN PARKED MEMORY SLOTS<"), _status_rows(tree))


def head_lines(tree: Tree) -> list[tuple[str, str]]:
    """Return the lines that say how the server is, each with its style."""
    server, totals, late = tree["server"], tree["totals"], tree["totals"]["latency_ms"]
    names = [f"[{one['address']}]" if ":" in one["address"] else one["address"] for one in server["listeners"]]
    listeners = " ".join(f"{name}:{one['port']}" for name, one in zip(names, server["listeners"], strict=True))
    run = (f"{server['version']} pid {server['pid']}: {server['state']}, up {spell_span(server['uptime_s'])}, generation {server['generation']}, "
           f"MPM {server['mpm']}, AcceptScope {server['accept_scope']}")
    size = (f"listening on {listeners or 'nothing'}; {count_of(server['host_count'], 'host')}, "
            f"{count_of(len(tree['identities']), 'identity', 'identities')}, {count_of(totals['children'], 'process', 'processes')}, "
            f"{totals['busy_threads']} of {totals['threads']} threads busy")
    done = (f"{count_of(totals['requests'], 'request')}, {totals['errors']} with 5xx, {spell_bytes(totals['bytes_out'])} sent, "
            f"p50 {spell_ms(late['p50'])}, p90 {spell_ms(late['p90'])}, p99 {spell_ms(late['p99'])}")
    handed = (f"{count_of(totals['connections'], 'connection')}, {totals['parked']} of them parked; {totals['handed_in']} handed over, "
              f"{totals['refused']} refused, {totals['unavailable']} answered 503 for a full inbox; memory {spell_bytes(totals['memory_kb'] * _KB)}")
    return [(run, "bold"), (size, ""), (done, ""), (handed, "")]


def problems(tree: Tree) -> list[str]:
    """Return what somebody should look at, each with what to do."""
    found = [f"{one['file']}:{one['line']}: not in force: {one['reason']}; {one['stand_in']} is served. Mend it, then: perchildctl reload"
             for one in tree["server"].get("broken_sites", ())]
    found += [f"certificates of {one['identity']}: {one['reason']}" for one in tree["server"].get("held_certificates", ())]
    found += [f"{one['name']}: its processes die as soon as they are started; the next one comes later. The error log says why"
              for one in tree["identities"] if one["is_held_back"]]
    if tree["totals"]["log_lost"]:
        found.append(f"{tree['totals']['log_lost']} access log lines could not be written: is the disk full?")
    return found


def _status_rows(tree: Tree) -> Iterator[list[str | Cell]]:
    for one in tree["identities"]:
        note = "removed" if one["is_removed"] else "held back" if one["is_held_back"] else "asleep"
        if not one["children"]:
            yield [one["name"], one["kind"], "-", Cell(note, "dim"), "-", "0", "0", "-", ""]
        for child in one["children"]:
            slots = rates.show_slots([slot[0] for slot in child.get("slots", ())], _SLOTS_WIDTH)
            state = Cell(child["state"] + (" accepting" if child["is_accepting"] else ""), "green" if child["state"] == "ready" else "yellow")
            yield [one["name"], one["kind"], str(child["pid"]), state, str(child["generation"]), str(child.get("connections", 0)),
                   str(child.get("parked", 0)), spell_bytes(child.get("memory_kb", 0) * _KB), slots]
        if one["programs"]:
            yield [one["name"], "runner", str(one["programs"][0]), count_of(len(one["programs"]) - 1, "program"), "-", "-", "-",
                   spell_bytes(one["programs_memory_kb"] * _KB), ""]


# ---------------------------------------------------------------- tenants


def run_tenants(options: argparse.Namespace) -> int:
    """Be perchildctl tenants."""
    tree = take(options.run_dir)
    if options.json:
        _write_json({"schema": tree["schema"], "at": tree["at"], "tenants": tree["identities"]})
        return 0
    names = columns("USER< UID KIND< HOSTS PROCS CONN REQUESTS 4XX 5XX SENT IN OUT REFUSED P90 CPU MEMORY")
    Screen().table(names, map(_tenant_row, tree["identities"]), ("UID", "KIND", "4XX", "OUT", "CONN", "HOSTS", "SENT", "IN", "PROCS", "REFUSED"))
    return 0


def _tenant_row(one: Tree) -> list[str | Cell]:
    figures = [one["hosts"], len(one["children"]), one["connections"], one["requests"], one["responses"]["4xx"]]
    return [one["name"], str(one["uid"]), one["kind"], *map(str, figures), Cell(str(one["errors"]), "red" if one["errors"] else ""),
            spell_bytes(one["bytes_out"]), str(one["handed_in"]), str(one["handed_out"]), str(one["refused"]), spell_ms(one["latency_ms"]["p90"]),
            f"{one['cpu_user_s'] + one['cpu_system_s']:.1f} s", spell_bytes(one["memory_kb"] * _KB)]


# ---------------------------------------------------------------- top


def run_top(options: argparse.Namespace) -> int:
    """Be perchildctl top: until ctrl-C, or --count times."""
    with contextlib.suppress(KeyboardInterrupt):
        (_stream_json if options.json else _show_top)(options)
    return 0


def _samples(options: argparse.Namespace) -> Iterator[Tree]:
    """Yield a comparison each interval. The first is with the moment before."""
    interval_s = max(MIN_INTERVAL_S, options.interval)
    before, number = take(options.run_dir), 0
    while not options.count or number < options.count:
        time.sleep(interval_s)
        now = take(options.run_dir)
        yield rates.compare(now, before, options.sort)
        before, number = now, number + 1


def _stream_json(options: argparse.Namespace) -> None:
    for sample in _samples(options):
        _write_json(sample)


def _show_top(options: argparse.Namespace) -> None:
    screen = Screen()
    if screen.console is None:
        for sample in _samples(options):
            screen.line(top_head(sample))
            screen.stream.write(plain_table(_TOP, _top_rows(sample, options.limit)))
            screen.line()
            screen.stream.flush()
        return
    from rich.console import Group  # noqa: PLC0415 - there is a terminal, and rich
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(Text("measuring"), console=screen.console, screen=True, auto_refresh=False) as live:
        for sample in _samples(options):
            room = max(3, min(options.limit, screen.console.size.height - 5))
            head = Group(Text(top_head(sample), style="bold"), Text("ctrl-C ends", style="dim"))
            shown = fit(_TOP, _top_rows(sample, room), screen.console.size.width, _LEAST)
            live.update(Group(head, rich_table(*shown)), refresh=True)


_TOP = columns("USER< PROCS PROGS SLOTS< CONN REQ/S IN/S OUT/S REFUSED 5XX/S SENT/S P50 P90 P99 CPU MEMORY")
_LEAST = ("PROGS", "P50", "P99", "OUT/S", "5XX/S", "SENT/S", "PROCS", "REFUSED", "IN/S", "SLOTS")  # what goes where there is no room


def top_head(sample: Tree) -> str:
    """Return the line above the table."""
    totals, server = sample["totals"], sample["server"]
    return (f"{server['version']} {server['state']}, up {spell_span(server['uptime_s'])}: {spell_rate(totals['requests_per_s'])} requests/s, "
            f"{spell_rate(totals['handed_in_per_s'])} hand-offs/s, {spell_bytes(totals['bytes_out_per_s'])}/s, {totals['connections']} connections, "
            f"p90 {spell_ms(totals['latency_ms']['p90'])}, CPU {totals['cpu_percent']:.0f} %, {spell_bytes(totals['memory_kb'] * _KB)}")


def _top_rows(sample: Tree, limit: int) -> list[list[str | Cell]]:
    return [_top_row(one) for one in sample["tenants"][:limit]]


def _top_row(one: Tree) -> list[str | Cell]:
    late = one["latency_ms"]
    flow = [spell_rate(one[f"{name}_per_s"]) for name in ("requests", "handed_in", "handed_out")]
    return [one["name"], str(one["processes"]), str(one["programs"]), rates.show_slots(one["slots"], _SLOTS_WIDTH), str(one["connections"]), *flow,
            Cell(str(one["refused"]), "red" if one["refused"] else ""), Cell(spell_rate(one["errors_per_s"]), "red" if one["errors_per_s"] else ""),
            spell_bytes(one["bytes_out_per_s"]), *(spell_ms(late[name]) for name in ("p50", "p90", "p99")),
            Cell(f"{one['cpu_percent']:.0f} %", "yellow" if one["cpu_percent"] > _BUSY_PERCENT else ""), spell_bytes(one["memory_kb"] * _KB)]


def _add_top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks (2)")
    parser.add_argument("-n", "--count", type=int, default=0, metavar="N", help="so many looks; 0 = until ctrl-C")
    parser.add_argument("--sort", choices=tuple(rates.ORDERS), default="requests", help="order of the users (requests)")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="so many users at most (50); --json has all")


# ---------------------------------------------------------------- sites


def run_sites(options: argparse.Namespace) -> int:
    """Be perchildctl sites: every host of the configuration as it is on disk, with what the server has counted of it."""
    from perchild.control import site_list  # noqa: PLC0415 - it compiles the configuration

    call = ask_server(options.run_dir, {"op": "config"})
    tree = tally.add_up(ask_board(options.run_dir), time.time())
    found = site_list.list_sites(call, tree)
    if options.json:
        _write_json({"schema": tree["schema"], "at": tree["at"], **found})
    else:
        _show_sites(found)
    return 1 if found["errors"] else 0


def _show_sites(found: Tree) -> None:
    screen = Screen()
    screen.table(columns("SITE< USER< LISTENS< STATE< REQUESTS 4XX 5XX SENT WHERE<"), map(_site_row, found["sites"]),
                 ("4XX", "SENT", "LISTENS", "5XX", "REQUESTS"))
    for one in found["broken"]:
        screen.line(f"{one['file']}:{one['line']}: {one['reason']}; {one['stand_in']} is served. Mend it, then: perchildctl reload", "bold red")
    for error in found["errors"]:
        screen.line(f"the configuration on disk would be refused: {error}", "bold red")


def _site_row(site: Tree) -> list[str | Cell]:
    name = site["name"] + (f" +{len(site['aliases'])}" if site["aliases"] else "")
    state = Cell(site["state"], "green" if site["state"] == "ok" else "bold red")
    return [name, site["user"], " ".join(site["addresses"]), state, str(site["requests"]), str(site["responses"]["4xx"]),
            str(site["responses"]["5xx"]), spell_bytes(site["bytes_out"]), f"{site['file']}:{site['line']}"]


COMMANDS: tuple[Command, ...] = (
    Command("status", "the server, what is wrong with it, and its processes", run_status),
    Command("top", "each user's processes, slots, requests, hand-offs, latency and memory, live", run_top, _add_top),
    Command("tenants", "each user, and what it has done since the start", run_tenants),
    Command("sites", "each host of the configuration: user, addresses, file and line, and what it has answered", run_sites),
)
