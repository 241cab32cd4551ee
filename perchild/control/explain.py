"""`perchildctl explain URL`: what would answer, and file and line of each directive that decided.

It works on the configuration as it is on disk, without a server. Files are looked at as the tenant, never as root.
Runs as: whoever calls perchildctl.
Before: command.py   After: explain_host.py, explain_map.py, as_tenant.py
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
import sys
from dataclasses import dataclass
from typing import Any

from perchild.config.compile import BUILT_IN_TYPES, DEFAULT_TYPES_CONFIG
from perchild.config.model import Model, Result
from perchild.config.tree import Node, Tree
from perchild.control import explain_map as maps
from perchild.control.as_tenant import look_at, run_as
from perchild.control.explain_host import Answerer, ExplainError, Url, find_answerer, parse_url
from perchild.control.offline import add_config_arguments, compile_offline, refuse, say, show
from perchild.control.table import Command

_MAX_INDEXES = 32
_PHP_WORD = "php"
_CHALLENGE = re.compile(r"/\.well-known/acme-challenge/[\w-]{1,128}", re.ASCII)
_BY_EXTENSION = frozenset(("add_type", "add_handler", "add_charset", "add_encoding", "wrappers"))
_SHOWN_APART = frozenset(("require", "order", "allow", "deny", "headers", "name", "aliases", "document_root", "assign", "log_formats", "url_aliases",
                          "redirects", "passes", "proxy_reverse"))


@dataclass(slots=True)
class Case:
    """One URL under a configuration."""

    url: Url
    model: Model
    tree: Tree
    answerer: Answerer
    place: maps.Place
    settings: dict[str, list[maps.Setting]]
    seen: dict[str, Any]  # what the identity sees of the file
    status: str = ""
    handler: str = ""
    handler_line: Node | None = None


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="as a client would ask for it: http://alice.example/path")
    parser.add_argument("--address", default="", help="the server's IP address that the client connects to, where it has several")
    add_config_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    result = compile_offline(options)
    if result.errors:
        return refuse(result)
    try:
        case = explain(result, options.url, options.address)
    except ExplainError as error:
        sys.stderr.write(f"perchildctl: {error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(to_json(case)) + "\n")
    else:
        say(render(case))
    return 0


def explain(result: Result, text: str, address: str = "") -> Case:
    """Explain a URL under a configuration without errors; ExplainError if it is no URL."""
    if result.model is None or result.compiled is None or result.tree is None:
        message = "there is no configuration"
        raise ExplainError(message)
    url = parse_url(text)
    model, tree = result.model, result.tree
    answerer = find_answerer(model, tree, result.compiled.plan.listeners, url, address)
    case = Case(url, model, tree, answerer, maps.Place(), {}, {})
    _go_to(case, url.path)
    if _CHALLENGE.fullmatch(url.path):
        _look_for_challenge(case)
    if case.status:
        pass
    elif case.place.redirect is not None:
        status, target = case.place.redirect
        case.status = f"{status} to {target}" if target else str(status)
    elif case.place.passed_to:
        case.handler, case.handler_line, case.status = f"passed on to {case.place.passed_to}", case.place.line, _of_access(case, "what it says")
    else:
        _look(case)
    engine = _last_node(case, "tls_engine")
    speaks_tls = engine is not None and maps.words_of(engine)[0].lower() == "on"
    if answerer.listener is None:
        case.status = "no answer: nobody listens there"
    elif speaks_tls is not (url.scheme == "https"):
        case.status = f"no answer: this address speaks {'TLS: ask https://' if speaks_tls else 'plain HTTP: ask http://'}"
    return case


def _main_nodes(case: Case) -> list[Node]:
    return [node for node in case.tree.nodes if node.name != "<virtualhost"]


def _go_to(case: Case, path: str) -> None:
    """Find the place of `path`, and what counts there."""
    main, node = _main_nodes(case), case.answerer.node
    case.place = maps.find_place(path, main, node, case.answerer.host.document_root)
    maps.find_layers(case.place, path, main, node)
    case.settings = maps.find_settings(case.place)
    found = maps.find_section_redirect(case.settings, path)
    if found is not None and case.place.redirect is None and not case.place.passed_to:
        case.place.redirect, case.place.line = found


def _look_for_challenge(case: Case) -> None:
    """A file that an ACME client has put there is sent ahead of everything else."""
    place = maps.find_file(case.url.path, _main_nodes(case), case.answerer.node, case.answerer.host.document_root)
    seen, = _look_as_identity(case, [place.file])
    if seen["kind"] == "file" and seen["can_read"]:
        case.place, case.seen, case.settings = place, seen, {}
        case.handler, case.status = "an ACME challenge: ahead of redirects, back ends and rules of access", "200"


def _look_as_identity(case: Case, paths: list[str]) -> list[dict[str, Any]]:
    person = case.answerer.host.person
    found: list[dict[str, Any]] = run_as(person.uid, person.gid, person.groups, lambda: [look_at(path) for path in paths])
    return found


def _look(case: Case) -> None:
    """Look at the file, or at the names that stand for its directory."""
    access, _ = maps.judge_access(case.settings)
    case.seen, = _look_as_identity(case, [case.place.file])
    if access == "denied":
        case.status = "403: nobody may"
    elif case.seen["kind"] == "directory":
        _enter_directory(case)
    elif not case.seen["kind"]:
        case.status = "403: the identity may not look there" if case.seen["error"] == "Permission denied" else f"404: {case.seen['error']}"
        if _last_node(case, "handler") is not None:
            _choose_handler(case)
            case.status = _of_access(case, "what the handler says")
    else:
        _choose_handler(case)
        is_served = case.seen["can_read"] or case.handler != _FILE
        case.status = _of_access(case, "200" if case.handler == _FILE else "what it says") if is_served else "403: the identity cannot read it"


_FILE = "the file itself"


def _of_access(case: Case, otherwise: str) -> str:
    access, _ = maps.judge_access(case.settings)
    return {"denied": "403: nobody may", "granted": otherwise}.get(access, f"{otherwise}, or 403: it depends on the client")


def _enter_directory(case: Case) -> None:
    path = case.url.path
    if not path.endswith("/"):
        case.status = f"301 to {path}/"
        return
    names = [word for one in case.settings.get("directory_index", []) for word in maps.words_of(one.node)] or ["index.html"]
    names = names[names.index("disabled") + 1 :] if "disabled" in names else names
    plain = [name for name in names if not name.startswith("/")][:_MAX_INDEXES]
    seen = _look_as_identity(case, [posixpath.join(case.place.file, name) for name in plain])
    index = next((name for name, one in zip(plain, seen, strict=True) if one["kind"] == "file"), None)
    if index is not None:
        _go_to(case, path + index)
        _look(case)
        return
    has_listing = any(word.lstrip("+").lower() in {"indexes", "all"} for one in case.settings.get("options", [])
                      for word in maps.words_of(one.node)) and not any(
        word.lower() in {"-indexes", "none"} for one in case.settings.get("options", [])[-1:] for word in maps.words_of(one.node))
    case.handler = "a listing of the directory" if has_listing else ""
    case.status = _of_access(case, "200") if has_listing else f"403: there is no {' or '.join(names) or 'index'}, and no listing"


def _last_node(case: Case, name: str) -> Node | None:
    found = case.settings.get(name)
    return found[-1].node if found else None


def _by_extension(case: Case, name: str) -> Node | None:
    extensions = case.place.file.rpartition("/")[2].lower().split(".")[1:]
    found = [one.node for one in case.settings.get(name, [])
             if {word.lower().lstrip(".") for word in maps.words_of(one.node)[1:]} & set(extensions)]
    return found[-1] if found else None


def _choose_handler(case: Case) -> None:
    """SetHandler, AddHandler, then PHPPool for .php; Action gives a handler's name its program."""
    node = _last_node(case, "handler") or _by_extension(case, "add_handler")
    pool = _last_node(case, "php_pool")
    has_pool = pool is not None and maps.words_of(pool)[:1] != ["off"]
    word = maps.words_of(node)[0] if node is not None and maps.words_of(node) else ""
    is_php = case.place.file.lower().endswith(".php") or _PHP_WORD in word.lower()
    if case.place.is_script and not word:
        case.handler, case.handler_line = "executed as CGI", case.place.line
    elif word and word.lower() != "none" and not (is_php and has_pool and not word.startswith("proxy:")):
        case.handler, case.handler_line = word, node
    elif is_php and has_pool:
        case.handler, case.handler_line = f"php-fpm of {case.answerer.host.person.name}", pool
    else:
        case.handler = _FILE


def _media_type(case: Case) -> tuple[str, str]:
    """Return the type of a file that is sent as it is, and where it comes from."""
    forced = _last_node(case, "force_type")
    if forced is not None:
        return maps.words_of(forced)[0], f"{forced.file}:{forced.line}"
    added = _by_extension(case, "add_type")
    if added is not None:
        return maps.words_of(added)[0], f"{added.file}:{added.line}"
    config = next((maps.words_of(node)[0] for node in _main_nodes(case) if node.name == "typesconfig" and maps.words_of(node)), DEFAULT_TYPES_CONFIG)
    extension = case.place.file.rpartition("/")[2].lower().rpartition(".")[2]
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split("#")[0].split()
                if extension in words[1:]:
                    return words[0], config
    except OSError:
        return BUILT_IN_TYPES.get(extension, ""), "built in"
    return "", ""


# ---------------------------------------------------------------- output


def _where(node: Node | None) -> dict[str, Any] | None:
    return None if node is None else {"file": node.file, "line": node.line, "text": " ".join(node.text.split())}


def to_json(case: Case) -> dict[str, Any]:
    """Return everything that was found, for programs."""
    host, access = case.answerer.host, maps.judge_access(case.settings)
    listener, person = case.answerer.listener, host.person
    media_type = _media_type(case) if case.handler == _FILE else ("", "")
    return {
        "url": f"{case.url.scheme}://{case.url.host}:{case.url.port}{case.url.path}", "status": case.status,
        "address": {"address": case.answerer.address, "port": case.url.port, "listen": listener.source if listener else None},
        "host": {"name": host.name, "file": host.file, "line": host.line, "how": case.answerer.how, "decided": _where(case.answerer.decided)},
        "identity": {"name": person.name, "uid": person.uid, "gid": person.gid, "groups": list(person.groups),
                     "decided": _where(_identity_line(case))},
        "place": {"file": case.place.file, "passed_to": case.place.passed_to, "decided": _where(case.place.line)},
        "seen": {key: value for key, value in case.seen.items() if key != "inode"},
        "access": {"verdict": access[0], "decided": [_where(one.node) for one in access[1]]},
        "handler": {"name": case.handler, "decided": _where(case.handler_line)},
        "media_type": {"type": media_type[0], "from": media_type[1]},
        "headers": [_where(one.node) for one in case.settings.get("headers", [])],
        "sections": [{"title": title, **(_where(node) or {})} for title, node, _ in case.place.layers if node is not None],
        "lines": [{"section": one.section, **(_where(one.node) or {})} for one in _other_lines(case)],
    }


def _identity_line(case: Case) -> Node | None:
    nodes = (case.answerer.node.children if case.answerer.node else None) or _main_nodes(case)
    wanted = "assignuserid" if case.answerer.node and any(node.name == "assignuserid" for node in nodes) else "user"
    return next((node for node in (*nodes, *_main_nodes(case)) if node.name == wanted), None)


def _other_lines(case: Case) -> list[maps.Setting]:
    """Return the lines that count and are not shown by themselves; of those about extensions the file's only."""
    lines: list[maps.Setting] = []
    for name, found in case.settings.items():
        if name in _SHOWN_APART:
            continue
        node = _by_extension(case, name) if name in _BY_EXTENSION else None
        lines += [one for one in found if name not in _BY_EXTENSION or one.node is node]
    return lines


def render(case: Case) -> list[str]:
    """Return the explanation for people."""
    host, answerer = case.answerer.host, case.answerer
    person, listener = host.person, answerer.listener
    groups = f", groups {' '.join(map(str, person.groups))}" if person.groups else ""
    rows = [
        ("answer", case.status),
        ("address", f"{answerer.address} port {case.url.port} " + (f"(Listen, {listener.source})" if listener else "(nobody listens there)")),
        ("host", f"{host.name or '(no name)'} ({host.file}:{host.line or 1}): {answerer.how}"
                 + (f": {show(answerer.decided)}" if answerer.decided else "")),
        ("identity", _with(f"{person.name}, uid {person.uid}, gid {person.gid}{groups}", _identity_line(case))),
        ("place", _with(case.place.file or case.place.passed_to or case.status, case.place.line)),
    ]
    if case.seen:
        rows.append(("file", _describe_seen(case.seen)))
    if case.handler:
        rows.append(("handler", _with(case.handler, case.handler_line)))
    verdict, lines = maps.judge_access(case.settings)
    rows += [("access", verdict), *(("", show(one.node)) for one in lines)]
    media_type, source = _media_type(case) if case.handler == _FILE else ("", "")
    if media_type:
        rows.append(("headers", f"Content-Type: {media_type} ({source})"))
    rows += [("" if media_type or index else "headers", show(one.node)) for index, one in enumerate(case.settings.get("headers", []))]
    rows += [("sections" if index == 0 else "", f"{title} ({node.file}:{node.line})") for index, (title, node) in enumerate(
        (title, node) for title, node, _ in case.place.layers if node is not None)]
    rows += [("lines" if index == 0 else "", f"{show(one.node)} in {one.section}") for index, one in enumerate(_other_lines(case))]
    return [f"{name:<9} {text}" for name, text in rows]


def _with(text: str, node: Node | None) -> str:
    return f"{text}: {show(node)}" if node else text


def _describe_seen(seen: dict[str, Any]) -> str:
    if not seen["kind"]:
        return f"{seen['path']}: {seen['error']}"
    verb = "can" if seen["can_read"] else "cannot"
    return f"{seen['path']}: {seen['kind']}, mode {seen['mode']:04o}, uid {seen['uid']}, gid {seen['gid']}; the identity {verb} read it"


COMMANDS = (Command("explain", "what would answer a URL, and the file and line of each directive that decided", _run, _add_arguments),)
