"""`bench/run`: the whole of a run, from installing to the chart.

One server runs at a time; the rounds are interleaved (A B C D A B C D ...), so that a change of the machine's mood falls on
all of them alike.
Runs as: root.  After: report.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import procfs, report
from bench.extras import EXTRAS
from bench.install import install
from bench.machine import describe_machine, versions
from bench.programs import FILES, GROUPS, TLS, WAYS, add_programs, can_run
from bench.servers import BY_DEFAULT, PORTS, SPECS, Running, Spec
from bench.tenants import Tenant, make_tenants
from bench.tls import add_tls, measure_tls_memory
from bench.works import WORKS, Work, can_do, measure, measure_memory, raise_limits

TENANTS = 20
PLACE = "/var/lib"  # root's alone on every Debian, so root may open tenants' logs there; /tmp is everybody's


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a run is: rounds of files, rounds of programs and of TLS, seconds per measurement, extras that are not asked for by name."""

    rounds: int
    program_rounds: int
    seconds: float
    extras: tuple[str, ...]


PLANS = {
    "quick": Plan(2, 1, 3.0, ("memory", "tls-memory", "cold", "php-cold")),
    "full": Plan(5, 3, 6.0, ("memory", "tls-memory", "cold", "php-cold", "php-memory", "children", "scale")),
}


MEMORIES = {FILES: "memory", TLS: "tls-memory"}  # what is looked at before a group's works, of all its servers


class Progress:
    """Prints what is being done, with the time since the start."""

    def __init__(self) -> None:
        """Begin now."""
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        took = time.monotonic() - self._start
        print(f"[{int(took) // 60:2d}:{int(took) % 60:02d}] {text}", flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; --only and --servers as lists of known keys."""
    works = [work.key for work in WORKS] + [*MEMORIES.values(), *EXTRAS]
    servers = [spec.key for spec in SPECS]
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="about 7 minutes, in place of about 30")
    parser.add_argument("--only", type=_list_of(works), help=f"these works: {','.join(works)}")
    parser.add_argument("--servers", type=_list_of(servers), default=list(BY_DEFAULT), help=f"these servers: {','.join(servers)}")
    parser.add_argument("--rounds", type=int, help="rounds of each work")
    parser.add_argument("--seconds", type=float, help="seconds of each measurement")
    parser.add_argument("--no-publish", action="store_true", help="leave README.md, docs/bench.svg and latest.json as they are")
    parser.add_argument("--keep", action="store_true", help="keep configurations and logs")
    return parser.parse_args(argv)


def _list_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        unknown = [word for word in words if word not in known]
        if unknown or not words:
            raise argparse.ArgumentTypeError(f"'{','.join(unknown)}': known are {', '.join(known)}")
        return words

    return read


def main(argv: Sequence[str]) -> int:
    """Run what `argv` asks for; return 0, 1 if something failed, 130 if interrupted."""
    options = parse(argv)
    if os.geteuid() != 0:
        print("bench/run: run it with sudo: it starts servers that change their uid", file=sys.stderr)
        return 1
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Progress()
    base = Path(tempfile.mkdtemp(prefix="perchildd-bench-", dir=PLACE))
    base.chmod(0o755)
    try:
        return _run(options, base, progress)
    except RuntimeError as error:
        print(f"bench/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if options.keep:
            print(f"configurations and logs are in {base}")
        else:
            shutil.rmtree(base)


def _run(options: argparse.Namespace, base: Path, progress: Progress) -> int:
    installed = install()
    if installed:
        progress.say(f"installed {', '.join(installed)} (neither started nor enabled)")
    raise_limits()
    result = _empty_result(options)
    _side_by_side(options, base, result, progress)
    for key in _extras(options):
        progress.say(f"{key} ...")
        result["extras"][key] = EXTRAS[key](base / key, progress.say)
        shutil.rmtree(base / key)
    _save(result, options)
    print("\n" + report.render_text(result))
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    plan = PLANS["quick" if options.quick else "full"]
    return Plan(options.rounds or plan.rounds, options.rounds or plan.program_rounds, options.seconds or plan.seconds, plan.extras)


def _works(options: argparse.Namespace) -> list[Work]:
    return [work for work in WORKS if not options.only or work.key in options.only]


def _extras(options: argparse.Namespace) -> list[str]:
    if "perchildd" not in options.servers:
        return []
    return [key for key in EXTRAS if key in (options.only or _plan(options).extras)]


def _empty_result(options: argparse.Namespace) -> dict[str, Any]:
    plan, works = _plan(options), _works(options)
    specs = [spec for spec in SPECS if spec.key in options.servers]
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": describe_machine(), "versions": versions(), "rounds": plan.rounds,
        "program_rounds": plan.program_rounds, "seconds": plan.seconds, "tenants": TENANTS,
        "servers": [{"key": spec.key, "label": spec.label, "isolation": spec.isolation, "choices": spec.choices} for spec in specs],
        "titles": [{"key": work.key, "title": work.title, "sentence": work.sentence} for work in works],
        "ways": [{"group": group, "server": key, "choices": way.choices} for group, ways in WAYS.items() for key, way in ways.items()
                 if key in options.servers and any(work.group == group for work in works)],
        "works": {work.key: {spec.key: [] for spec in specs if can_run(work.group, spec.key)} for work in works},
        **{key: {} for key in MEMORIES.values()}, "extras": {},
    }


def _side_by_side(options: argparse.Namespace, base: Path, result: dict[str, Any], progress: Progress) -> None:
    works, plan = _works(options), _plan(options)
    memories = [key for key in MEMORIES.values() if key in (options.only or plan.extras)]
    if not works and not memories:
        return
    tenants = make_tenants(base / "sites", TENANTS)
    add_programs(tenants)
    if MEMORIES[TLS] in memories or any(work.group == TLS for work in works):
        add_tls(tenants)
    for group in GROUPS:
        wanted = [work for work in works if work.group == group]
        has_memory = MEMORIES.get(group) in memories
        rounds = (plan.rounds if group == FILES else plan.program_rounds) if wanted else 0
        for number in range(rounds or int(has_memory)):
            for spec in SPECS:
                if spec.key not in options.servers or not can_run(group, spec.key):
                    continue
                server = _started(spec, group, base / f"{group}-{spec.key}-{number}", tenants)
                try:
                    if has_memory and number == 0:
                        _MEASURES[group](server, tenants, result, progress)
                    _one_server(server, wanted, tenants, result, progress, f"round {number + 1}/{rounds}")
                finally:
                    server.stop()
                    if not options.keep:
                        shutil.rmtree(server.run)  # logs of millions of requests


def _started(spec: Spec, group: str, run: Path, tenants: Sequence[Tenant]) -> Running:
    """Start `spec` as it does the works of `group`."""
    if group == FILES:
        return Running(spec, run, tenants)
    way = WAYS[group][spec.key]
    run.mkdir(mode=0o755)
    return Running(spec, run, tenants, way.write(run, PORTS[spec.key], tenants), way.beside(run, tenants))


def _one_server(server: Running, works: Sequence[Work], tenants: Sequence[Tenant], result: dict[str, Any], progress: Progress, at: str) -> None:
    for work in works:
        if not can_do(server.spec, work):
            continue
        sample = measure(server, work, tenants, result["seconds"])
        result["works"][work.key][server.spec.key].append(sample)
        slowest = next((f"{name} {sample[f'{name}_ms']:7.2f} ms  " for name in ("p99", "max") if f"{name}_ms" in sample), "")
        progress.say(f"{at}  {server.spec.label:13} {work.title:24} {sample['rps']:9,.0f}/s  {slowest}"
                     f"{sample['cpu_us']:7.1f} us/request  {sample['failed']:.0f} failed")


def _memory(server: Running, tenants: Sequence[Tenant], result: dict[str, Any], progress: Progress) -> None:
    sample = measure_memory(server, tenants)
    result["memory"][server.spec.key] = sample
    progress.say(f"memory     {server.spec.label:13} {sample['per_tenant'] / 2**20:.2f} MB per tenant")
    if server.spec.key == "perchildd":
        uids = {tenant.uid for tenant in tenants}
        sizes = [procfs.pss_bytes(process.pid) for process in procfs.tree(server.pid) if procfs.uid_of(process.pid) in uids]
        if sizes:
            result["extras"]["memory"] = {"idle_child": sum(sizes) / len(sizes)}


def _tls_memory(server: Running, tenants: Sequence[Tenant], result: dict[str, Any], progress: Progress) -> None:
    sample = measure_tls_memory(server, tenants)
    result[MEMORIES[TLS]][server.spec.key] = sample
    progress.say(f"memory     {server.spec.label:13} {sample['per_connection'] / 2**10:.1f} KB per idle TLS connection")


_MEASURES = {FILES: _memory, TLS: _tls_memory}


def _save(result: dict[str, Any], options: argparse.Namespace) -> None:
    report.RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    (report.RESULTS / f"{stamp}.json").write_text(text, encoding="utf-8")
    is_whole = not options.only and set(BY_DEFAULT) <= set(options.servers)
    if is_whole and not options.no_publish:
        report.LATEST.write_text(text, encoding="utf-8")
        report.publish(result)
