"""`SetHandler server-status`: httpd's status, as people read it and as `?auto`, which monitoring programs read.

Keys, their order and the sentences that programs search for are httpd's (mod_status.c, event's form). Where perchild differs:
a worker is a thread of any child; ConnsAsyncKeepAlive are parked connections, which hold no thread; the CPU's time is the children's.
Runs as: a child that is asked for it.  Pure.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Any

MAX_SCOREBOARD = 20000  # letters
MAX_THREADS = 1025  # of one child: more than that is a child's lie
KEY = ('"<b><code>_</code></b>" Waiting for Connection, "<b><code>S</code></b>" Starting up, "<b><code>W</code></b>" Working on a request, '
       '"<b><code>G</code></b>" Gracefully finishing, "<b><code>.</code></b>" Open slot with no current process')
_TIME = "%A, %d-%b-%Y %H:%M:%S %Z"
Pair = tuple[str, str]


def render_auto(tree: dict[str, Any], host: str, load: Sequence[float]) -> str:
    """Return what `?auto` answers: the host, then `Key: value` lines. load: the machine's averages over 1, 5, 15 minutes."""
    return "".join((f"{host or 'localhost'}\n", *(f"{name}: {value}\n" for name, value in _facts(tree, load))))


def _facts(tree: dict[str, Any], load: Sequence[float]) -> list[Pair]:
    server, totals = tree["server"], tree["totals"]
    uptime = max(1, int(server["uptime_s"]))
    return [
        ("ServerVersion", server["version"]), ("ServerMPM", server["mpm"]), ("Server Built", server["version"]),
        ("CurrentTime", _clock(tree["at"])), ("RestartTime", _clock(server["started_at"])),
        ("ParentServerConfigGeneration", str(server["generation"])), ("ParentServerMPMGeneration", str(server["generation"] - 1)),
        ("ServerUptimeSeconds", str(int(server["uptime_s"]))), ("ServerUptime", spell_duration(int(server["uptime_s"]))),
        *((f"Load{minutes}", f"{value:.2f}") for minutes, value in zip((1, 5, 15), load, strict=True)),
        ("Total Accesses", str(totals["requests"])), ("Total kBytes", str(totals["bytes_out"] // 1024)),
        ("Total Duration", str(int(totals["duration_s"] * 1000))),
        ("CPUUser", f"{totals['cpu_user_s']:.2f}"), ("CPUSystem", f"{totals['cpu_system_s']:.2f}"),
        ("CPUChildrenUser", "0"), ("CPUChildrenSystem", "0"),
        ("CPULoad", f"{100 * (totals['cpu_user_s'] + totals['cpu_system_s']) / uptime:.6g}"), ("Uptime", str(int(server["uptime_s"]))),
        *_rates(totals, uptime), *_workers(tree), ("Scoreboard", scoreboard(tree)),
    ]


def _rates(totals: dict[str, Any], uptime_s: int) -> list[Pair]:
    requests = max(1, totals["requests"])
    return [("ReqPerSec", f"{totals['requests'] / uptime_s:.6g}"), ("BytesPerSec", f"{totals['bytes_out'] / uptime_s:.6g}"),
            ("BytesPerReq", f"{totals['bytes_out'] / requests:.6g}"), ("DurationPerReq", f"{1000 * totals['duration_s'] / requests:.6g}")]


def _workers(tree: dict[str, Any]) -> list[Pair]:
    totals, board = tree["totals"], scoreboard(tree)
    children = [child for one in tree["identities"] for child in one["children"]]
    stopping = sum(child["state"] in {"draining", "ending"} for child in children)
    active = totals["connections"] - totals["parked"]
    return [("BusyWorkers", str(board.count("W"))), ("GracefulWorkers", str(board.count("G"))), ("IdleWorkers", str(board.count("_"))),
            ("Processes", str(len(children))), ("Stopping", str(stopping)), ("ConnsTotal", str(totals["connections"])),
            ("ConnsAsyncWaitIO", str(max(0, active - totals["busy_threads"]))), ("ConnsAsyncWriting", "0"),
            ("ConnsAsyncKeepAlive", str(totals["parked"])), ("ConnsAsyncClosing", "0")]


def scoreboard(tree: dict[str, Any]) -> str:
    """Return a letter for each worker there is or may be, child by child."""
    parts = [_letters(child, one["max_threads"]) for one in tree["identities"] for child in one["children"]]
    return "".join(parts)[:MAX_SCOREBOARD] or "."


def _letters(child: dict[str, Any], most: int) -> str:
    threads = min(int(child.get("threads", 0)), MAX_THREADS)
    most = max(most, threads)  # there is always room for one that decides in Python
    if child["state"] == "starting" or not threads:
        return "S" + "." * (most - 1)
    busy = max(0, threads - int(child["idle_threads"]))
    letter = "W" if child["state"] == "ready" else "G"
    return letter * busy + ("_" if child["state"] == "ready" else "G") * (threads - busy) + "." * (most - threads)


def _clock(at_s: float) -> str:
    return time.strftime(_TIME, time.localtime(at_s))


def spell_duration(seconds: int) -> str:
    """Return a duration in words, as httpd does: " 2 hours 1 minute 5 seconds" without what is none at its beginning."""
    words: list[str] = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count or (words and unit != "second") or unit == "second":
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(words)


# ---------------------------------------------------------------- for people


def render_page(tree: dict[str, Any], host: str, load: Sequence[float], refresh_s: int, *, has_tables: bool) -> str:
    """Return the page. refresh_s: it loads itself again so often, 0 = never; has_tables: not with `?notable`."""
    name, server, facts = html.escape(host or "localhost"), tree["server"], dict(_facts(tree, load))
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">\n' if refresh_s else ""
    totals = tree["totals"]
    rates = (f"{facts['ReqPerSec']} requests/sec - {_per(facts['BytesPerSec'], 'second')} - {_per(facts['BytesPerReq'], 'request')} - "
             f"{facts['DurationPerReq']} ms/request")
    workers = (f"{facts['BusyWorkers']} requests currently being processed, {facts['GracefulWorkers']} workers gracefully restarting, "
               f"{facts['IdleWorkers']} idle workers")
    return f"""<!DOCTYPE html>
<html lang="en"><head>
<meta charset="utf-8">
{refresh}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Apache Status</title>
</head><body>
<h1>Apache Server Status for {name}</h1>
<dl><dt>Server Version: {html.escape(server['version'])}</dt>
<dt>Server MPM: {server['mpm']}</dt>
<dt>Server Built: {html.escape(server['version'])}
</dt></dl><hr /><dl>
<dt>Current Time: {facts['CurrentTime']}</dt>
<dt>Restart Time: {facts['RestartTime']}</dt>
<dt>Parent Server Config. Generation: {server['generation']}</dt>
<dt>Parent Server MPM Generation: {server['generation'] - 1}</dt>
<dt>Server uptime:  {facts['ServerUptime']}</dt>
<dt>Server load: {' '.join(f'{value:.2f}' for value in load)}</dt>
<dt>Total accesses: {facts['Total Accesses']} - Total Traffic: {spell_bytes(totals['bytes_out'])} - Total Duration: {facts['Total Duration']}</dt>
<dt>CPU Usage: u{facts['CPUUser']} s{facts['CPUSystem']} cu0 cs0 - {facts['CPULoad']}% CPU load</dt>
<dt>{rates}</dt>
<dt>{workers}</dt>
</dl>{_processes(tree) if has_tables else ""}<pre>{_wrap(facts['Scoreboard'])}</pre>
<p>Scoreboard Key: {KEY}</p>
{_sites(tree) if has_tables else ""}<hr>
<address>{html.escape(server['version'])} Server at {name}</address>
</body></html>
"""


def _per(count: str, what: str) -> str:
    return f"{spell_bytes(float(count))}/{what}"


def _processes(tree: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{slot}</td><td>{child['pid']}</td><td>{html.escape(one['name'])}</td><td>{_stopping(child)}</td>"
        f"<td>{child.get('connections', 0)}</td><td>{'yes' if child['is_accepting'] and child['state'] == 'ready' else 'no'}</td>"
        f"<td>{child.get('threads', 0) - child.get('idle_threads', 0)}</td><td>{child.get('idle_threads', 0)}</td>"
        f"<td>{child.get('parked', 0)}</td></tr>"
        for slot, (one, child) in enumerate((one, child) for one in tree["identities"] for child in one["children"])
    ]
    return ('<table border="1"><caption>Processes</caption><tr><th>Slot</th><th>PID</th><th>User</th><th>Stopping</th><th>Connections</th>'
            f"<th>Accepting</th><th>Busy</th><th>Idle</th><th>Keep-alive</th></tr>\n{''.join(rows)}</table>")


def _stopping(child: dict[str, Any]) -> str:
    return "yes (old gen)" if child["state"] in {"draining", "ending"} else "no"


def _sites(tree: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{html.escape(site['name'])}</td><td>{html.escape(one['name'])}</td><td>{site['requests']}</td>"
        f"<td>{spell_bytes(site['bytes_out'])}</td><td>{site['responses']['4xx']}</td><td>{site['responses']['5xx']}</td>"
        f"<td>{1000 * site['duration_s'] / max(1, site['requests']):.3g}</td></tr>"
        for one in tree["identities"] for site in one["sites"]
    ]
    return ('<table border="1"><caption>Virtual hosts</caption><tr><th>VHost</th><th>User</th><th>Acc</th><th>Traffic</th><th>4xx</th><th>5xx</th>'
            f"<th>ms/request</th></tr>\n{''.join(rows)}</table>")


def _wrap(letters: str) -> str:
    return "\n".join(letters[at : at + 64] for at in range(0, len(letters), 64))


def spell_bytes(count: float) -> str:
    """Return a number of bytes as httpd writes it: "12 B", "1.5 kB", "3.0 MB"."""
    for unit, size in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"
