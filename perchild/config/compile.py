"""Configuration -> plan, route table, types table and one record per identity.

    text -> tree.py -> collect.py -> (identities, hosts, routes, numbers: here) -> wire.plan.Compiled

Runs as: compile (pure: files, users, names come through Loader and Env).  Trusts: nothing.
Before: load.py   After: the dispatcher reads wire.plan.Compiled
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from perchild import __version__, limits
from perchild.config import directives_server, modules
from perchild.config.assign import find_group, find_unassigned, number_groups, take_fixed
from perchild.config.collect import Collector, Draft
from perchild.config.hosts import Group, HostPacker
from perchild.config.identity import People, Person
from perchild.config.isolate import Isolation, Kept, isolate
from perchild.config.messages import BadDirectiveError, Diagnostic
from perchild.config.model import HostInfo, Model, Options, Result
from perchild.config.reuse import Reuse
from perchild.config.reuse import digest as hash_value
from perchild.config.routes import Routes
from perchild.config.runner import Service, render
from perchild.config.scale import Numbers, compute_numbers
from perchild.config.targets import SOCKET_BYTES
from perchild.config.tree import KNOWN, Assumptions, Builder, Loader, LoadError, Node, Tree
from perchild.config.values import Env, pack_ip
from perchild.config.work import ConfigurationError, Work
from perchild.wire import record
from perchild.wire.plan import FIXED, ON_DEMAND, RUN_DIR, UNASSIGNED, Compiled, Identity, Listener, LogFile, Plan
from perchild.wire.route import build_table
from perchild.wire.runner import TOKEN_BYTES
from perchild.wire.types import build_types

MAX_RECORD_BYTES = limits.value("MAX_RECORD_BYTES")
MAX_LISTENERS = limits.value("MAX_LISTENERS")
COMMAND_LINE = "Command line"
_HOST = "<virtualhost"
DEFAULT_TYPES_CONFIG = "/etc/mime.types"
BUILT_IN_TYPES = {
    "html": "text/html", "htm": "text/html", "css": "text/css", "js": "text/javascript", "txt": "text/plain", "xml": "application/xml",
    "json": "application/json", "svg": "image/svg+xml", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg",
    "gif": "image/gif", "webp": "image/webp", "ico": "image/vnd.microsoft.icon", "pdf": "application/pdf", "woff2": "font/woff2",
}
_TOKENS = {
    "prod": "perchildd", "productonly": "perchildd", "major": f"perchildd/{__version__.split('.')[0]}",
    "minor": f"perchildd/{'.'.join(__version__.split('.')[:2])}", "min": f"perchildd/{__version__}",
    "minimal": f"perchildd/{__version__}", "os": f"perchildd/{__version__} (Unix)", "full": f"perchildd/{__version__} (Unix)",
}


# --- reading -----------------------------------------------------------------------------------------------------


def read_tree(options: Options, loader: Loader, main_text: str | None = None, reuse: Reuse | None = None) -> tuple[Tree, str, Assumptions]:
    """Read everything; return the tree, the name of the MPM, and what was assumed.

    <IfModule> may depend on the MPM, and relative Includes on ServerRoot, both of which may stand below: if what was assumed turns
    out wrong and mattered, the whole is read again with what was found.
    """
    assumed = Assumptions("perchild", options.server_root)
    while True:
        if reuse is not None:
            reuse.reset()
        tree = _read_once(options, loader, assumed, main_text, reuse)
        mpm = choose_mpm(tree.nodes)
        is_wrong = (assumed.mpm_was_asked and mpm != assumed.mpm) or (assumed.root_was_used and tree.server_root != assumed.server_root)
        if not is_wrong:
            return tree, mpm, assumed
        if assumed.mpm != "perchild" or assumed.server_root != options.server_root:
            raise ConfigurationError("AH00534", "The choice of the MPM or of ServerRoot depends on itself (through <IfModule> or Include).")
        assumed = Assumptions(mpm, tree.server_root)


def _read_once(options: Options, loader: Loader, assumed: Assumptions, main_text: str | None, reuse: Reuse | None) -> Tree:
    builder = Builder(loader, assumed, options.environ, options.defines, known=reuse)
    if options.before:
        builder.feed_text("\n".join(options.before), COMMAND_LINE)
    path = options.config_file
    builder.feed_file(path if path.startswith("/") else f"{options.server_root}/{path}", None, main_text)
    if options.after:
        builder.feed_text("\n".join(options.after), COMMAND_LINE)
    return builder.tree


def choose_mpm(nodes: list[Node]) -> str:
    """Return the MPM that MPM and LoadModule lines choose; perchild if none does.

    mpm_itk beside mpm_prefork, as Debian has it, is perchild: mpm_itk is a module of prefork there.
    """
    asked: set[str] = set()
    for node in nodes:
        if node.name == "mpm" and node.children is None:
            asked.add(node.rest.strip("\"' ").lower())
        elif node.name == "loadmodule":
            module = (node.rest.split(None, 1) or [""])[0]
            if module in modules.MPM_OF_MODULE:
                asked.add(module.removeprefix("mpm_").removesuffix("_module"))
    if "itk" in asked:
        asked = asked - {"itk", "prefork"} | {"perchild"}
    asked &= {"perchild", "worker", "event", "prefork"}
    if len(asked) > 1:
        raise ConfigurationError("AH00534", "More than one MPM loaded.")
    return {"event": "worker"}.get(*asked, *asked) if asked else "perchild"

_H2_LIMITS = {0: limits.value("H2_STREAMS"), 1: limits.value("H2_WINDOW_BYTES"), 2: 0, 3: 0}


# --- the whole ---------------------------------------------------------------------------------------------------


def compile_tree(options: Options, env: Env, loader: Loader, known_numbers: Mapping[str, int], main_text: str | None = None,
                 open_kept: Callable[[str], Kept] | None = None, reuse: Reuse | None = None) -> Result:
    """Compile one configuration.

    Args:
        options: what the command line says.
        env, loader: the world outside; env.server_root is overwritten.
        known_numbers: identity key (Person.key) -> its number so far; new identities get the next free one.
        main_text: the main file's text; None: read options.config_file.
        open_kept: DefaultStateDir -> last good versions; with it, a broken site is replaced and does not fail the whole.
        reuse: what an earlier compilation knows; it learns what this one does.
    Returns:
        Result; `compiled` and `model` are None if there are errors.
    Runs as: compile.
    """
    try:
        tree, mpm, assumed = read_tree(options, loader, main_text, reuse)
        if reuse is not None and reuse.server != hash_server(options, tree, mpm):
            reuse.forget()  # what stands outside of sites is another: all of them may mean something else
            tree, mpm, assumed = read_tree(options, loader, main_text, reuse)
    except ConfigurationError as error:
        return Result(errors=[Diagnostic("", 0, str(error), code=error.code)])
    env.server_root = tree.server_root

    def again(one: Tree, *, is_hasty: bool = False) -> Result:
        return compile_nodes(options, env, loader, known_numbers, one, mpm, reuse, is_hasty=is_hasty)

    if open_kept is None:
        return again(tree)
    result = again(tree, is_hasty=True)
    isolation = Isolation(tree, assumed, loader, options.environ, open_kept(result.state_dir), reuse.expand if reuse else None)
    result = isolate(isolation, result, again, is_start=options.generation <= 1)
    return again(tree) if result.errors else result  # refused as a whole: then with all that is wrong


def hash_server(options: Options, tree: Tree, mpm: str) -> str:
    """Return a hash of everything outside of hosts that the meaning of a host may depend on."""
    outside = [node for node in tree.nodes if node.name not in {_HOST, KNOWN}]
    return hash_value([options.config_file, options.server_root, options.caller_uid, options.caller_gid, options.caller_groups,
                       sorted(options.environ.items()), tree.server_root, mpm, outside])


def compile_nodes(options: Options, env: Env, loader: Loader, known_numbers: Mapping[str, int], tree: Tree, mpm: str,
                  reuse: Reuse | None = None, *, is_hasty: bool = False) -> Result:
    """Compile what has been read; see compile_tree. is_hasty: where a directive is wrong, look no further."""
    result = Result(tree=tree)
    collector = Collector(env, reuse)
    collected = collector.collect(tree.nodes)
    result.errors = [*tree.errors, *collector.errors]
    result.warnings = [*loader.warnings, *tree.warnings, *collector.warnings]
    work = Work(options, env, known_numbers, result, People(env.users), {**directives_server.DEFAULTS, **collected.server}, collected)
    result.state_dir = _state_dir(work, tree)
    if is_hasty and result.errors:
        result.errors = _in_order(result.errors, tree)
        return result
    counts = len(collector.errors), len(collector.warnings)
    compiled, model = _compile(work, tree, mpm, loader, reuse)
    result.errors = _in_order([*result.errors, *collector.errors[counts[0] :]], tree)  # of sites that were read after all
    result.warnings += collector.warnings[counts[1] :]
    if not result.errors:
        result.compiled, result.model = compiled, model
        if reuse is not None:
            reuse.note(tree, collected.hosts, hash_server(options, tree, mpm))
    return result


def _in_order(errors: list[Diagnostic], tree: Tree) -> list[Diagnostic]:
    """Return errors by file, in the order in which the files were read, and line."""
    order = {path: number for number, (_, _, path) in reversed(list(enumerate(tree.includes)))}
    return sorted(dict.fromkeys(errors), key=lambda error: (order.get(error.file, -1), error.line))


def _compile(work: Work, tree: Tree, mpm: str, loader: Loader, reuse: Reuse | None) -> tuple[Compiled | None, Model | None]:
    unassigned = Group(find_unassigned(work), UNASSIGNED, 0)
    work.unassigned = unassigned
    work.groups[unassigned.person.key] = unassigned
    fixed_count = take_fixed(work)
    owned = list(_own_hosts(work, unassigned))
    number_groups(work)
    _warn_foreign(work)
    packer = HostPacker(work.collected, tree.server_root, _run_dir(work, tree), work.fail, work.warn, work.env.tls)
    routes = Routes(work)
    main_file = work.options.config_file
    infos = [_describe(work.collected.main, unassigned.person, packer, main_file)]
    unassigned.drafts.append((work.collected.main, main_file))
    for draft, group in owned:
        infos.append(_describe(draft, group.person, packer, main_file))
        draft.speaks = draft.speaks or (packer.tls.speaks_tls(draft.host), packer.tls.speaks_h2c(draft.host))
        routes.add(draft, group, len(group.drafts), is_tls=draft.speaks[0], is_h2c=draft.speaks[1])
        group.drafts.append((draft, f"{infos[-1].file}:{infos[-1].line}"))
    main = work.collected.main.host
    routes.finish(unassigned, work.groups.values(), is_main_tls=packer.tls.speaks_tls(main), is_main_h2c=packer.tls.speaks_h2c(main))
    _check_roots(work, packer)
    listeners = _make_listeners(work)
    numbers = _make_numbers(work, mpm, fixed_count)
    types = _make_types(work, loader)
    unchanged: dict[str, Identity] = {}
    if reuse is not None:
        context = [hash_server(work.options, tree, mpm), repr(numbers), packer.daemons, repr(listeners), _run_dir(work, tree)]
        unchanged = _find_unchanged(work, reuse, hash_value(context))
    for key, group in work.groups.items():
        if key not in unchanged:
            _pack_hosts(work, packer, group)
    if numbers is None or work.result.errors:
        return None, None
    _warn_scope(work)
    plan, records = _make_plan(work, tree, mpm, packer, listeners, numbers, hashlib.sha256(types).hexdigest(), unchanged)
    if reuse is not None:
        reuse.packed = len(plan.identities) - len(unchanged)
        plan = replace(plan, sites_read=len(reuse.parsed), sites=sum(1 for unit in tree.units if not unit.line), records_made=reuse.packed)
    table = build_table(list(routes.addresses.values()), work.options.generation, secrets.token_bytes(16))
    model = _make_model(work, tree, mpm, plan, infos)
    return Compiled(plan, table, types, records), model


def _find_unchanged(work: Work, reuse: Reuse, context: str) -> dict[str, Identity]:
    """Return, by key, the identities of the plan in force whose records need not be made again; the others learn what they are made of."""
    unchanged: dict[str, Identity] = {}
    for key, group in work.groups.items():
        person = group.person
        addresses = [[family, packed.hex(), port, one.default, one.is_tls, one.is_front, one.is_h2c, list(one.names.items()), one.wildcards]
                     for (family, packed, port), one in group.addresses.items()]
        group.source = hash_value([context, group.number, group.kind, group.children, _count_hosts(work, group), person.name, key,
                                   work.env.users.home(person.uid),
                                   [draft.source for draft, _ in group.drafts], addresses])
        known = reuse.base.identities.get(group.number)
        if (known is not None and known.source and known.source == _hash_source(work, group.source, known.logs) and reuse.is_current(known)
                and all(work.env.tls.stamp(path) == stamp for path, stamp in known.tls_files)):
            unchanged[key] = known
    return unchanged


def _hash_source(work: Work, source: str, logs: Sequence[LogFile]) -> str:
    """Return Identity.source: what an identity's record is made of, and who opens its logs."""
    gids = find_gids(work)
    return hash_value([source, [not work.options.caller_uid and work.env.may_root_open(log.path, gids) for log in logs]]) if source else ""


def find_gids(work: Work) -> frozenset[int]:
    """Return every group that a child may be in."""
    if work.gids is None:
        work.gids = frozenset(gid for group in work.groups.values() for gid in (group.person.gid, *group.person.groups))
    return work.gids


def _pack_hosts(work: Work, packer: HostPacker, group: Group) -> None:
    """Pack the hosts of an identity; those that are known in part are read before."""
    before = len(work.result.warnings)
    for draft, source in group.drafts:
        group.hosts.append(packer.pack(draft.expand() if draft.expand else draft, group, source))
    if len(work.result.warnings) != before or group.tls.has_remarks:
        group.source = ""  # what is odd about it is said each time


def _own_hosts(work: Work, unassigned: Group) -> Iterator[tuple[Draft, Group]]:
    for draft in work.collected.hosts:
        assign = draft.host.get("assign")
        group = unassigned if assign is None else find_group(work, assign[0], assign[1])
        if group is not None:
            yield draft, group


def _warn_foreign(work: Work) -> None:
    if work.foreign:
        many = f" (and {len(work.foreign) - 1} more)" if len(work.foreign) > 1 else ""
        work.warn(work.foreign[0], f"not started by root: every host is served as uid {work.options.caller_uid}, "
                                   f"whatever identity is asked for{many}")


def _describe(draft: Draft, person: Person, packer: HostPacker, main_file: str) -> HostInfo:
    name, port = draft.host.get("name", ("", 0))
    node = draft.node
    return HostInfo(name, port, tuple(draft.host.get("aliases", ())), tuple(draft.addresses), node.file if node else main_file,
                    node.line if node else 0, packer.document_root(draft)[0], person)


def _check_roots(work: Work, packer: HostPacker) -> None:
    for draft in (work.collected.main, *work.collected.hosts):
        if "document_root" in draft.host:
            path, node = packer.document_root(draft)
            if not work.env.is_directory(path):
                work.warn(node, f"Warning: DocumentRoot [{path}] does not exist", 0)


def _make_listeners(work: Work) -> tuple[Listener, ...]:
    server = work.server
    sizes = (server["listen_backlog"], server["send_buffer_bytes"], server["receive_buffer_bytes"])
    found: dict[tuple[int, str, int], Listener] = {}
    for addresses, node in server["listen"]:
        for address in addresses:
            if address in found:
                work.fail(node, f"Cannot define multiple Listeners on the same IP:port: see {found[address].source}", 0,
                          found[address].source)
            else:
                family, text, port = address
                found[address] = Listener(family, text, port, *sizes, source=f"{node.file}:{node.line}")
    if not server["listen"] and not work.result.errors:  # else it may stand where nothing could be read
        work.result.errors.append(Diagnostic("", 0, "no listening sockets available: there is no Listen directive", code="AH00451"))
    if len(found) > MAX_LISTENERS:
        work.fail(server["listen"][-1][1], f"{len(found)} listeners are out of range: 1..{MAX_LISTENERS} expected", 0)
    return tuple(found.values())


def _make_numbers(work: Work, mpm: str, fixed_count: int) -> Numbers | None:
    try:
        numbers = compute_numbers(mpm, work.server, fixed_count)
    except BadDirectiveError as error:
        work.result.errors.append(Diagnostic("", 0, error.reason))
        return None
    for warning in numbers.warnings:
        work.warn(None, warning)
    return numbers


def _make_types(work: Work, loader: Loader) -> bytes:
    path, node = work.server.get("types_config", (DEFAULT_TYPES_CONFIG, None))
    try:
        text = loader.read(path)
    except LoadError as error:
        if node is not None:
            work.fail(node, str(error), 0)
        else:
            work.warn(None, f"{error}: the few media types that are built in are used")
        return build_types(BUILT_IN_TYPES)
    types: dict[str, str] = {}
    for line in text.splitlines():
        if line and line[0] != "#":
            media_type, *extensions = line.split()
            types.update((extension.lower(), media_type) for extension in extensions)
    return build_types(types)


def _warn_scope(work: Work) -> None:
    names = [group.person.name for group in work.groups.values() if group.kind == FIXED]
    if names and work.server["accept_scope"] == "any":
        shown = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")  # noqa: PLR2004
        work.warn(None, f"AcceptScope any: children of {shown} hold the shared listeners; one that is taken over can stop them or read "
                        "strangers' first bytes. Cure: AcceptScope unassigned")


# --- plan and records --------------------------------------------------------------------------------------------


def _make_plan(work: Work, tree: Tree, mpm: str, packer: HostPacker, listeners: tuple[Listener, ...], numbers: Numbers,
               types_digest: str, unchanged: Mapping[str, Identity]) -> tuple[Plan, dict[str, bytes]]:
    server = work.server
    run_dir = _run_dir(work, tree)
    error_log, level = packer.error_log
    records: dict[str, bytes] = {}
    shared = _shared_items(server, listeners)
    identities = tuple(unchanged.get(key) or _make_identity(work, group, numbers, shared, records) for key, group in work.groups.items())
    person = work.groups[next(iter(work.groups))].person
    plan = Plan(
        mpm=mpm, server_root=tree.server_root, pid_file=server.get("pid_file", f"{run_dir}/perchildd.pid"), run_dir=run_dir,
        score_board_file=server["score_board_file"], core_dump_dir=server.get("core_dump_dir", tree.server_root),
        error_log=error_log, error_log_level=level, error_log_json=server["error_log_json"], accept_scope=server["accept_scope"],
        accept_mutex=server["accept_mutex"], lock_file=server.get("lock_file", f"{run_dir}/accept.lock"),
        graceful_shutdown_timeout_s=-(-server["graceful_shutdown_timeout_ms"] // 1000), thread_stack_bytes=server["thread_stack_bytes"],
        max_mem_free_kb=server["max_mem_free_kb"], exception_hook=server["exception_hook"], uid=person.uid, gid=person.gid,
        groups=person.groups, listeners=listeners, identities=identities, scale=numbers.scale, types_digest=types_digest,
        host_count=sum(_count_hosts(work, group) for group in work.groups.values()), server_name=work.collected.main.host.get("name", ("", 0))[0],
        warnings=tuple(warning.render_line() for warning in work.result.warnings),
    )
    return plan, records


def _run_dir(work: Work, tree: Tree) -> str:
    default = RUN_DIR if not work.options.caller_uid else f"{tree.server_root}/run"
    return str(work.server.get("run_dir") or default)


def _state_dir(work: Work, tree: Tree) -> str:
    is_packaged = not work.options.caller_uid and tree.server_root == "/etc/perchild"
    return str(work.server.get("state_dir") or ("/var/lib/perchildd" if is_packaged else f"{tree.server_root}/state"))


def _shared_items(server: dict[str, Any], listeners: tuple[Listener, ...]) -> bytes:
    items = [record.u32s("VERSION", record.VERSION)]
    for listener in listeners:
        packed = pack_ip(listener.address)
        if packed is not None:
            items.append(record.item("LISTEN", struct.pack("<BBH16s", listener.family, 0, listener.port, packed[1])))
    h2 = {**_H2_LIMITS, **server.get("h2_limits", {})}
    items += [
        record.u32s("H2_LIMITS", *(h2[place] for place in range(len(_H2_LIMITS)))),
        record.text("SERVER_TOKENS", _TOKENS[server["server_tokens"]]), record.u32s("ERROR_LOG_JSON", int(server["error_log_json"])),
        record.u32s("SOCKET_BUFFERS", server["send_buffer_bytes"], server["receive_buffer_bytes"]),
    ]
    return b"".join(items)


def _make_identity(work: Work, group: Group, numbers: Numbers, shared: bytes, records: dict[str, bytes]) -> Identity:
    person, server = group.person, work.server
    is_unassigned = group is work.unassigned
    threads = numbers.unassigned if is_unassigned else numbers.assigned
    idle_s = -(-server["idle_timeout_ms"] // 1000) if group.kind == ON_DEMAND else 0
    raw = b"".join((
        shared,
        record.u32s("IDENTITY", group.number, person.uid, person.gid),
        record.item("ROUTE", build_table(list(group.addresses.values()))),  # no generation: an unchanged record stays the same
        record.u32s("SCALE", threads.start, threads.min_spare, threads.max_spare, threads.most, server["max_connections"], idle_s),
        *(_pack_log_file(work, log.path, find_gids(work)) for log in group.logs),
        *(_pack_service(work, group, service) for service in group.programs.services),
        *(group.hosts),
    ))
    if len(raw) > MAX_RECORD_BYTES:
        largest = max(range(len(group.hosts)), key=lambda index: len(group.hosts[index]))
        work.fail(group.drafts[largest][0].node, f"all that is said of the hosts of {person.name} takes {len(raw)} bytes, more than "
                  f"{MAX_RECORD_BYTES}; this one, the longest, takes {len(group.hosts[largest])}: shorten it, or give it a user of its own")
    digest = hashlib.sha256(raw).hexdigest()
    name = f"{group.number}-{digest[:16]}"
    records[name] = raw
    return Identity(group.number, person.name, person.uid, person.gid, person.groups, group.kind, group.children, name, digest,
                    _count_hosts(work, group), threads.start, threads.min_spare, threads.max_spare, threads.most, server["max_connections"],
                    idle_s, tuple(group.logs), _make_runner(work, group, records),
                    keys=tuple(group.tls.keys), tls_files=tuple(group.tls.files.items()), new_privs=group.programs.may_gain,
                    source=_hash_source(work, group.source, group.logs), source_until_s=group.tls.until_s)


def _count_hosts(work: Work, group: Group) -> int:
    """Return how many hosts an identity has. The main server is one only where there is no <VirtualHost>: nobody takes it for another site."""
    return len(group.drafts) - (group is work.unassigned and bool(work.collected.hosts))


def _make_runner(work: Work, group: Group, records: dict[str, bytes]) -> str:
    """Return the name of the identity's runner file, "" if nothing of it is run as a program here."""
    if not group.programs.is_needed:
        return ""
    home = work.env.users.home(group.person.uid) or "/"
    raw = render(group.person, home, group.programs, work.server["runner_idle_s"], is_json=work.server["error_log_json"])
    name = f"{group.number}-{hashlib.sha256(raw).hexdigest()[:16]}.runner"
    records[name] = raw
    return name


def _pack_service(work: Work, group: Group, service: Service) -> bytes:
    length = len(service.socket.encode("utf-8", "surrogateescape")) + TOKEN_BYTES
    if length > SOCKET_BYTES:
        work.fail(None, f"the socket {service.socket} would have a path of {length} bytes, and {SOCKET_BYTES} is the most there can be: "
                        "name a shorter DefaultRuntimeDir")
    share = service.workers // group.children if group.kind in {FIXED, ON_DEMAND} else 0  # of each child
    return record.item("SERVICE", record.u32s("SERVICE_KIND", service.kind) + record.text("SERVICE_SOCKET", service.socket)
                       + (record.u32s("SERVICE_CONNECTIONS", share) if share else b"")
                       + b"".join(record.texts("SERVICE_PHP_NAME", name, "1" if is_admin else "0")
                                  for name, is_admin in sorted(service.entry.get("changed", {}).items())))


def _pack_log_file(work: Work, path: str, gids: frozenset[int]) -> bytes:
    is_roots = not work.options.caller_uid and work.env.may_root_open(path, gids)
    return record.item("LOG_FILE", record.text("FILE_PATH", path) + record.u32s("FILE_OPENER", int(is_roots)))


def _make_model(work: Work, tree: Tree, mpm: str, plan: Plan, infos: list[HostInfo]) -> Model:
    loaded = tuple(name for name, _ in work.server["load_module"])
    return Model(infos[0], tuple(infos[1:]), tree.server_root, plan.error_log, plan.pid_file, plan.run_dir, plan.accept_mutex,
                 tree.defines, tuple(tree.includes), loaded, work.groups[next(iter(work.groups))].person,
                 work.env.users.group_name(plan.gid) or f"#{plan.gid}", mpm)
