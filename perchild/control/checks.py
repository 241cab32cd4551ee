"""The table of checks: what each looks for, how bad it is, and what to do about it.

A check looks at a configuration that has been compiled, and at files: those that belong to root as whoever calls; those of a tenant in a
process of the tenant's (as_tenant.py). Nothing is opened, nothing is changed.
Runs as: whoever calls perchildctl; root sees everything.  Distrusts: what lies below tenants' directories.
Before: check.py
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from perchild.config.identity import Person
from perchild.config.model import HostInfo, Model, Result
from perchild.config.tree import Node, Tree
from perchild.control.as_tenant import look_at, run_as
from perchild.control.explain_map import find_layers, find_place, find_settings, judge_access, words_of
from perchild.runner.commands import CommandError, find_php
from perchild.wire.plan import Identity, Plan

ERROR, WARNING, NOTE = "error", "warning", "note"
NOBODY = 65534
_UNIX = re.compile(r"unix:([^|]+)")
_TCP = re.compile(r"(?:fcgi|http|ws|proxy:fcgi)://(127\.[\d.]+|localhost|\[::1\]):(\d+)", re.IGNORECASE)
_TARGETS = frozenset(("sethandler", "addhandler", "proxypass", "proxypassmatch", "<proxy"))
_FOLDERS = ("sites-enabled", "conf-enabled", "conf.d")
_MAX_FINDINGS = 200  # of one check; a machine with more has one cause, not so many


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that a check found. file, line: of the line of the configuration that it is about, "" and 0 if it is about none."""

    what: str
    file: str = ""
    line: int = 0


@dataclass(slots=True)
class Subject:
    """What the checks look at. seen: identity number -> path -> what that identity sees (look_at); others: what nobody sees."""

    result: Result
    model: Model
    plan: Plan
    tree: Tree
    root: str
    seen: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)  # whose files could not be looked at, and why

    def hosts(self) -> Iterator[tuple[HostInfo, Identity]]:
        """Yield each host that has a document root of its own, with its identity."""
        known = {(one.uid, one.gid, one.groups): one for one in self.plan.identities}
        for host in self.model.hosts:
            person = host.person
            yield host, known[person.uid, person.gid, person.groups]

    def look(self, identity: Identity, path: str) -> dict[str, Any]:
        """Return what an identity sees of a path that was looked at."""
        return self.seen.get(identity.number, {}).get(path) or {"kind": "", "error": "it was not looked at", "can_read": False}


@dataclass(frozen=True, slots=True)
class Check:
    """One row: name, severity, what it means, what to do, and the function that finds."""

    name: str
    severity: str
    what: str
    remedy: str
    find: Callable[[Subject], Iterable[Found]]


def make_subject(result: Result, root: str) -> Subject | None:
    """Return what the checks look at, files already looked at; None if the configuration is broken as a whole."""
    if result.model is None or result.compiled is None or result.tree is None:
        return None
    subject = Subject(result, result.model, result.compiled.plan, result.tree, root)
    paths: dict[int, set[str]] = {identity.number: set() for identity in subject.plan.identities}
    for host, identity in subject.hosts():
        paths[identity.number] |= {host.document_root, f"{host.document_root}/.htaccess"}
    for identity in subject.plan.identities:
        paths[identity.number] |= {posixpath.dirname(log.path) for log in identity.logs}
    for identity, path, _ in _sockets(subject):
        paths[identity.number].add(path)
    for identity in subject.plan.identities:
        wanted = sorted(paths[identity.number])
        person = Person(identity.uid, identity.gid, identity.groups, identity.name)
        subject.seen[identity.number] = _look(subject, person, wanted)
    every = sorted({host.document_root for host, _ in subject.hosts()})
    subject.others = _look(subject, Person(NOBODY, NOBODY, (), "nobody"), every)
    return subject


def _look(subject: Subject, person: Person, paths: list[str]) -> dict[str, dict[str, Any]]:
    def work() -> dict[str, dict[str, Any]]:
        return {path: {**look_at(path), "real": os.path.realpath(path)} for path in paths}

    if not paths:
        return {}
    try:
        found: dict[str, dict[str, Any]] = run_as(person.uid, person.gid, person.groups, work)
    except OSError as error:
        subject.unseen.append(f"files of {person.name}: {error}")
        return {}
    return found


# ---------------------------------------------------------------- the configuration


def _find_broken(subject: Subject) -> Iterator[Found]:
    for one in subject.result.broken:
        yield Found(f"{one.reason}: {' '.join(one.hosts) or 'its hosts'} served by {one.stand_in}", one.file, one.line)


def _find_warnings(subject: Subject) -> Iterator[Found]:
    for one in subject.result.warnings:
        if not one.text.lower().startswith("ssl"):
            yield Found(one.reason, one.file, one.line)


def _find_certificates(subject: Subject) -> Iterator[Found]:
    for one in subject.result.warnings:
        if one.text.lower().startswith("ssl"):
            yield Found(one.reason, one.file, one.line)


def _find_links(subject: Subject) -> Iterator[Found]:
    for folder in _FOLDERS:
        directory = f"{subject.root}/{folder}"
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            path = f"{directory}/{name}"
            if os.path.islink(path) and not os.path.exists(path):
                yield Found(f"{path} is a link to {os.readlink(path)}, which is not there")


def _find_writable(subject: Subject) -> Iterator[Found]:
    files = dict.fromkeys(path for _, _, path in subject.model.includes)
    directories = dict.fromkeys(one for path in files for one in _parents(os.path.realpath(path)))
    for path in (*directories, *files):
        try:
            state = os.stat(path)
        except OSError:
            continue
        is_sticky = stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX
        writers = [name for name, bit in (("everybody", stat.S_IWOTH), (f"group {state.st_gid}", stat.S_IWGRP))
                   if state.st_mode & bit and not is_sticky and not (bit == stat.S_IWGRP and state.st_gid == 0)]
        writers += [f"uid {state.st_uid}"] if state.st_uid else []
        if writers:
            yield Found(f"{path} can be written by {', '.join(writers)}")


def _parents(path: str) -> list[str]:
    found = []
    while path != "/":
        path = posixpath.dirname(path)
        found.append(path)
    return found


def _find_keys(subject: Subject) -> Iterator[Found]:
    for node in _all_nodes(subject.tree.nodes):
        if node.name != "sslcertificatekeyfile" or not words_of(node):
            continue
        path = posixpath.join(subject.model.server_root, words_of(node)[0])
        try:
            state = os.stat(path)
        except OSError:
            continue  # compile has said so
        readers = [name for name, bit in (("everybody", stat.S_IROTH), (f"group {state.st_gid}", stat.S_IRGRP))
                   if state.st_mode & bit and not (bit == stat.S_IRGRP and state.st_gid == 0)]
        if readers:
            yield Found(f"{path} can be read by {' and '.join(readers)}", node.file, node.line)


def _all_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from _all_nodes(node.children or ())


def _find_states(subject: Subject) -> Iterator[Found]:
    for path in (subject.result.state_dir, f"{subject.result.state_dir}/sites"):
        try:
            state = os.lstat(path)
        except OSError:
            continue
        if not stat.S_ISDIR(state.st_mode) or state.st_mode & 0o022 or state.st_uid not in {0, os.geteuid()}:
            yield Found(f"{path} is not a directory of root's that nobody else can write to")


# ---------------------------------------------------------------- document roots


def _find_unreadable(subject: Subject) -> Iterator[Found]:
    for host, identity in subject.hosts():
        seen = subject.look(identity, host.document_root)
        if seen["kind"] != "directory":
            yield Found(f"{host.document_root}: {seen['error'] or 'it is no directory'}, for {identity.name}", host.file, host.line)
        elif not seen["can_enter"]:
            yield Found(f"{host.document_root}: {identity.name} cannot enter it (mode {seen['mode']:04o}, uid {seen['uid']})", host.file, host.line)


def _find_overlaps(subject: Subject) -> Iterator[Found]:
    owners: dict[str, tuple[HostInfo, Identity]] = {}
    for host, identity in subject.hosts():
        real = subject.look(identity, host.document_root).get("real")
        if real:
            owners.setdefault(real, (host, identity))
    for host, identity in subject.hosts():
        real = subject.look(identity, host.document_root).get("real", "")
        for path in (real, *_parents(real)) if real else ():
            other = owners.get(path)
            if other is not None and other[1].number != identity.number:
                yield Found(f"{host.document_root} of {identity.name} is {'' if path == real else 'within '}{path}, the document root of "
                            f"{other[1].name} ({other[0].file}:{other[0].line})", host.file, host.line)
                break


def _find_open_roots(subject: Subject, word: str) -> Iterator[Found]:
    said: set[str] = set()
    for host, identity in subject.hosts():
        if identity.kind != "unassigned" and subject.others.get(host.document_root, {}).get(word) and host.document_root not in said:
            said.add(host.document_root)
            yield Found(f"{host.document_root} of {identity.name}", host.file, host.line)


def _find_htaccess(subject: Subject) -> Iterator[Found]:
    for host, identity in subject.hosts():
        if subject.look(identity, f"{host.document_root}/.htaccess")["kind"] == "file":
            yield Found(f"{host.document_root}/.htaccess of {identity.name}", host.file, host.line)


def _find_denied(subject: Subject) -> Iterator[Found]:
    """A first page that no line of the host itself has closed, and nobody may see."""
    main = [node for node in subject.tree.nodes if node.name != "<virtualhost"]
    nodes = {(node.file, node.line): node for node in subject.tree.nodes if node.name == "<virtualhost"}
    for host, _ in subject.hosts():
        node = nodes.get((host.file, host.line))
        place = find_place("/", main, node, host.document_root)
        if place.redirect is not None or place.passed_to:
            continue
        find_layers(place, "/", main, node)
        verdict, lines = judge_access(find_settings(place))
        own = {id(one) for one in _all_nodes([node] if node else [])}
        if verdict == "denied" and not any(id(one.node) in own for one in lines):
            said = f": {words} ({lines[-1].node.file}:{lines[-1].node.line})" if lines and (words := " ".join(lines[-1].node.text.split())) else ""
            yield Found(f"{host.document_root} of {host.name or 'a host without a name'}{said}", host.file, host.line)


def _find_missing_php(subject: Subject) -> Iterator[Found]:
    for node in _all_nodes(subject.tree.nodes):
        word = words_of(node)[0].lower() if node.name == "phppool" and words_of(node) else "off"
        try:
            if word != "off":
                find_php("" if word == "on" else word)
        except CommandError as error:
            yield Found(str(error), node.file, node.line)


def _find_unassigned(subject: Subject) -> Iterator[Found]:
    for host, identity in subject.hosts():
        if identity.kind == "unassigned":
            yield Found(f"{host.name or 'a host without a name'} is served by {identity.name}", host.file, host.line)


# ---------------------------------------------------------------- logs and sockets


def _find_logs(subject: Subject, test: Callable[[dict[str, Any]], bool]) -> Iterator[Found]:
    for identity in subject.plan.identities:
        said: set[str] = set()
        for log in identity.logs:
            directory = posixpath.dirname(log.path)
            if directory not in said and test(subject.look(identity, directory)):
                said.add(directory)
                file, _, line = log.source.rpartition(":")
                yield Found(f"{directory}, the directory of {log.path}, for {identity.name}", file, int(line) if line.isdecimal() else 0)


def _is_log_writable(seen: dict[str, Any]) -> bool:
    return bool(seen.get("can_write"))


def _find_missing_logs(subject: Subject) -> Iterator[Found]:
    """A directory that root does not see either: its log cannot be opened by anybody."""
    for identity in subject.plan.identities:
        for log in identity.logs:
            directory = posixpath.dirname(log.path)
            if not log.path.startswith("/dev/") and not os.path.isdir(directory):
                file, _, line = log.source.rpartition(":")
                yield Found(f"{directory}, the directory of {log.path}, is not there", file, int(line) if line.isdecimal() else 0)


def _targets(subject: Subject) -> Iterator[tuple[Identity, Node, str]]:
    """Yield what names a back end: identity, line, and the text of its target."""
    known = {(host.file, host.line): identity for host, identity in subject.hosts()}
    unassigned = next(one for one in subject.plan.identities if one.kind == "unassigned")
    for top in subject.tree.nodes:
        identity = known.get((top.file, top.line), unassigned) if top.name == "<virtualhost" else unassigned
        for node in _all_nodes([top]):
            if node.name in _TARGETS:
                yield identity, node, node.rest


def _sockets(subject: Subject) -> Iterator[tuple[Identity, str, Node]]:
    for identity, node, text in _targets(subject):
        match = _UNIX.search(text)
        if match:
            yield identity, match.group(1).strip("\"' "), node


def _find_open_sockets(subject: Subject) -> Iterator[Found]:
    for identity, path, node in _sockets(subject):
        seen = subject.look(identity, path)
        if seen["kind"] == "socket" and seen["mode"] & stat.S_IWOTH:
            yield Found(f"{path}, which {identity.name} uses, has mode {seen['mode']:04o}", node.file, node.line)
    for identity, node, text in _targets(subject):
        match = _TCP.search(text)
        if match and not _UNIX.search(text):
            yield Found(f"{match.group(1)}:{match.group(2)}, which {identity.name} uses, is a port", node.file, node.line)


def _find_closed_sockets(subject: Subject) -> Iterator[Found]:
    for identity, path, node in _sockets(subject):
        seen = subject.look(identity, path)
        if seen["kind"] == "socket" and not seen["can_write"]:
            yield Found(f"{path} (mode {seen['mode']:04o}, uid {seen['uid']}, gid {seen['gid']}): {identity.name} cannot connect",
                        node.file, node.line)
        elif not seen["kind"] and seen["error"] == "Permission denied":
            yield Found(f"{path}: {identity.name} cannot get there", node.file, node.line)


CHECKS: tuple[Check, ...] = (
    Check("broken-site", ERROR, "a site is refused; its last good version, 503 or nothing is served instead",
          "mend the line that is named, then perchildctl reload", _find_broken),
    Check("broken-link", ERROR, "an enabled file is a link to nothing", "put the file back, or remove the link (perchildctl dissite NAME)",
          _find_links),
    Check("configuration", WARNING, "the configuration is taken, with a doubt", "each says what is doubtful", _find_warnings),
    Check("config-writable", ERROR, "a file of the configuration, or a directory on the way to it, can be changed by others than root: "
          "who can write it, can name any user", "chown root:root PATH; chmod go-w PATH", _find_writable),
    Check("certificate", ERROR, "a certificate is expired or will be, is not there, or does not belong to its key: clients are refused or warned",
          "renew it; the server takes the new file up by itself", _find_certificates),
    Check("key-readable", ERROR, "a private key can be read by others than its owner", "chmod 0600 PATH; and a new key, if others may have read it",
          _find_keys),
    Check("state-writable", ERROR, "others could change the last good versions of sites", "chown root:root PATH; chmod 0755 PATH", _find_states),
    Check("not-looked-at", WARNING, "files of a user could not be looked at, as that user: what is wrong with them is not known",
          "see whether a file system does not answer (df PATH), or the user has stopped the process (ps -u USER); then ask again",
          lambda subject: map(Found, subject.unseen)),
    Check("docroot-unreadable", ERROR, "a host's user cannot enter its document root: every request is answered 403 or 404",
          "chown -R USER PATH, and let USER pass the directories above it (chmod +x)", _find_unreadable),
    Check("docroot-overlap", WARNING, "the document roots of two users are one, or one is within the other: each serves, and may run, what is "
          "the other's", "give each user a directory of his own", _find_overlaps),
    Check("docroot-writable", ERROR, "everybody on this machine can write into a document root", "chmod o-w PATH",
          lambda subject: _find_open_roots(subject, "can_write")),
    Check("docroot-readable", NOTE, "everybody on this machine can read a document root, and so the passwords in it; the server does not need that",
          "chmod 0700 PATH, or 0750", lambda subject: _find_open_roots(subject, "can_read")),
    Check("docroot-denied", WARNING, "nobody may see a host's first page: no line of the host lets anybody in, and the server's lines let nobody",
          "a Directory section for the document root with Require all granted, in the host", _find_denied),
    Check("php-missing", ERROR, "a host has a PHPPool, and that php-fpm is not installed: its programs are answered 503", "apt-get install php-fpm",
          _find_missing_php),
    Check("htaccess", WARNING, "a document root has a .htaccess file, which this version does not read: what it forbids is open",
          "put its lines into the host's <Directory>", _find_htaccess),
    Check("no-user", NOTE, "a host names no user: it is served by User, together with all others that name none",
          "AssignUserID USER GROUP in the host", _find_unassigned),
    Check("log-writable", WARNING, "a user can write the directory of his log: he can replace it, and so what it says",
          "a directory of root's: chown root:adm PATH; chmod 0750 PATH", lambda subject: _find_logs(subject, _is_log_writable)),
    Check("log-missing", ERROR, "the directory of a log is not there: the log is not written", "mkdir -p PATH", _find_missing_logs),
    Check("socket-open", WARNING, "every user of this machine can connect to a back end, past the server and its rules",
          "a Unix socket of mode 0600 that belongs to the host's user; or PHPPool, AppServer, which make one", _find_open_sockets),
    Check("socket-closed", ERROR, "a host's user cannot connect to its back end: every request is answered 503",
          "in php-fpm's pool: listen.owner = USER, listen.mode = 0600; or PHPPool on instead", _find_closed_sockets),
)


def run_checks(subject: Subject) -> Iterator[tuple[Check, list[Found]]]:
    """Yield each check that found something, with what it found."""
    for check in CHECKS:
        found = list(dict.fromkeys(check.find(subject)))[:_MAX_FINDINGS]
        if found:
            yield check, found
