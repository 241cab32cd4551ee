"""Every process of a running server is what perchild/roles.py says: ids, capabilities, and the kind of each descriptor.

Runs as: root; real uids, real processes, everything asked of the kernel from outside.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from perchild import roles
from perchild.config import load
from perchild.dispatcher.spawn import is_accepting
from perchild.wire.plan import FIXED, ON_DEMAND, UNASSIGNED
from tests.boundary import procs
from tests.lab import ROOT, Lab, read_response, tree_of, uid_of, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

NAMES = ("alice", "bob", "carol")
NO_CAPABILITIES = "0" * 16
READ_SEARCH = f"{1 << 2:016x}"  # CAP_DAC_READ_SEARCH
EXTRA_GROUP = 59999
CODE = ("unknown: /usr/lib/python3", f"unknown: {ROOT}/perchild")


def fixed_children(lab: Lab) -> str:
    """Return ChildPerUserID for every tenant, and enough servers."""
    lines = [f"ChildPerUserID #{one.uid} #{one.uid} {index}" for index, one in enumerate(lab.tenants.values(), 1)]
    return "\n".join(["NumServers 5", *lines])


@pytest.fixture(scope="module", params=["any, fixed", "unassigned, fixed", "unassigned, on demand"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A server whose every identity has a child that has served a file and holds a kept connection."""
    scope, kind = request.param.split(", ")
    with Lab(accept_scope=scope, names=NAMES) as lab:
        if kind == "fixed":
            lab.config += fixed_children(lab)
        lab.start()
        held = []
        for host in [*(tenant.host for tenant in lab.tenants.values()), "main.test"]:
            sock = lab.connect()
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert read_response(sock).status == 200
            held.append(sock)
        wait_until(lambda: procs.has_ready_children(lab), "those that were not asked have begun as well")
        yield lab
        for sock in held:
            sock.close()


def identities(lab: Lab) -> dict[int, dict[str, object]]:
    """Return the status's identities by child's pid."""
    return {child["pid"]: one for one in lab.status()["identities"] for child in one["children"]}


def role_of_child(lab: Lab, kind: str) -> roles.Role:
    """Return the role of a child of an identity of that kind in this lab."""
    return roles.find_role(f"{FIXED}, accepting" if kind == FIXED and lab.accept_scope == "any" else kind)


def test_every_process_has_a_role(lab: Lab) -> None:
    """The dispatcher's descendants are its children of known identities, each of the expected uid, and nothing else."""
    known = identities(lab)
    assert set(tree_of(lab.pid)) == {lab.pid, lab.nursery, *known}
    wanted = {lab.user_uid, *(tenant.uid for tenant in lab.tenants.values())}
    assert {uid_of(pid) for pid in known} == wanted


def test_ids_and_groups_of_children(lab: Lab) -> None:
    """Real, effective, saved and file system ids are the identity's, all four; supplementary groups are its own, none here."""
    for pid, identity in identities(lab).items():
        status = procs.read_status(pid)
        assert status["Uid"].split() == [str(identity["uid"])] * 4
        assert status["Gid"].split() == [str(identity["gid"])] * 4
        assert status["Groups"].split() == []


def test_capabilities_of_children_are_none_in_all_five_sets(lab: Lab) -> None:
    """Inheritable, permitted, effective, bounding and ambient are empty, in every thread; no_new_privs and a filter are on."""
    for pid, identity in identities(lab).items():
        role = role_of_child(lab, str(identity["kind"]))
        assert role.capabilities == frozenset()
        for thread in os.listdir(f"/proc/{pid}/task"):
            status = procs.read_status(int(thread))
            assert [status[name] for name in procs.CAPABILITY_SETS] == [NO_CAPABILITIES] * 5
            assert (status["NoNewPrivs"], status["Seccomp"]) == (str(int(role.no_new_privs)), str(role.seccomp))


def test_children_are_not_dumpable(lab: Lab) -> None:
    """/proc/PID of a child belongs to root, not to its uid: the kernel's sign of dumpable 0; core files are off."""
    for pid, identity in identities(lab).items():
        assert not role_of_child(lab, str(identity["kind"])).is_dumpable
        for entry in ("environ", "mem", "maps", "fd"):
            assert os.stat(f"/proc/{pid}/{entry}").st_uid == 0
        limits = Path(f"/proc/{pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[-3:-1] == ["0", "0"]


def test_children_remember_no_environment_and_no_directory(lab: Lab) -> None:
    """A child's directory is /, its session its own: nothing of the starter's surroundings is within reach."""
    for pid in identities(lab):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) == pid


def test_dispatcher_is_root_alone_and_single_threaded(lab: Lab) -> None:
    """Four uids 0, one thread; but for the nursery, its like, no process of the server has any capability."""
    status = procs.read_status(lab.pid)
    assert status["Uid"].split() == ["0"] * 4
    assert status["Threads"] == "1"
    assert status["CapEff"] != NO_CAPABILITIES


def test_descriptors_of_children_are_those_of_their_role(lab: Lab) -> None:
    """Each open descriptor of each child is of a kind that its role lists, and there are as many as the plan makes."""
    inboxes = {one["number"] for one in lab.status()["identities"]}
    for pid, identity in identities(lab).items():
        role = role_of_child(lab, str(identity["kind"]))
        fds = procs.look_at_fds(lab, pid)
        assert roles.compare_fds(role, [fd.kind for fd in fds]) == (), (role.name, fds)
        count = Counter(fd.kind for fd in fds)
        accepts = role.may_hold(roles.LISTENER)
        assert count[roles.LISTENER] == (1 if accepts else 0)
        assert count[roles.INBOX_WRITE] == (len(inboxes) if accepts else 1)
        assert count[roles.LOG] == 2  # access and error log


def test_descriptors_of_the_dispatcher_are_those_of_its_role(lab: Lab) -> None:
    """One control pair, pidfd and page for each child, both ends of each inbox, every listener; no connection, no record."""
    children, status = identities(lab), lab.status()
    fds = procs.look_at_fds(lab, lab.pid)
    assert roles.compare_fds(roles.find_role(roles.DISPATCHER), [fd.kind for fd in fds]) == (), fds
    count = Counter(fd.kind for fd in fds)
    assert count[roles.PAGE] == len(children)
    assert count[roles.PIDFD] == count[roles.CONTROL] == len(children) + 1  # and the nursery's
    assert count[roles.INBOX] == count[roles.INBOX_WRITE] == len(status["identities"])
    assert count[roles.LISTENER] == len(status["listeners"])


def test_the_nursery_holds_a_socket_and_nothing_else(lab: Lab) -> None:
    """The process that tenants' children are forked from: root, one thread, its socket to the dispatcher, and nobody's settings."""
    pid = lab.nursery
    status = procs.read_status(pid)
    assert (status["Uid"].split(), status["Threads"]) == (["0"] * 4, "1")
    kinds = [roles.STDERR if fd.number == 2 else fd.kind for fd in procs.look_at_fds(lab, pid)]
    assert roles.compare_fds(roles.find_role(roles.NURSERY), kinds) == (), kinds
    assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"


def test_a_tenants_child_can_send_to_no_other_tenant(lab: Lab) -> None:
    """Outside AcceptScope any, the only write end that a tenant's child holds is that of the unassigned children's inbox."""
    if lab.accept_scope == "any":
        pytest.skip("AcceptScope any: accepting children pass connections to every identity")
    unassigned = lab.children(lab.user_uid)[0]
    other = procs.peers()
    own = {fd.inode for fd in procs.look_at_fds(lab, unassigned) if fd.kind == roles.INBOX}
    for tenant in lab.tenants.values():
        for pid in lab.children(tenant.uid):
            ends = [fd.inode for fd in procs.look_at_fds(lab, pid) if fd.kind == roles.INBOX_WRITE]
            assert {other[inode] for inode in ends} == own


def test_every_inbox_is_read_by_its_own_identity_alone(lab: Lab) -> None:
    """No two identities hold the read end of one inbox: nobody can take what was handed to another."""
    readers: dict[int, set[int]] = {}
    for pid in lab.children():
        for fd in procs.look_at_fds(lab, pid):
            if fd.kind == roles.INBOX:
                readers.setdefault(fd.inode, set()).add(uid_of(pid))
    assert len(readers) == 1 + len(NAMES)
    assert all(len(uids) == 1 for uids in readers.values())


def test_no_listener_under_a_tenants_uid(lab: Lab) -> None:
    """R-ACC-1: under AcceptScope unassigned no process of a tenant's uid has a descriptor with SO_ACCEPTCONN = 1."""
    tenants = {tenant.uid for tenant in lab.tenants.values()}
    listening = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and uid_of(int(entry)) in tenants:
            for number, target in procs.descriptors(int(entry)).items():
                if target.startswith("socket:"):
                    with procs.borrowed(int(entry), number) as sock:
                        listening |= {entry} if sock.getsockopt(socket.SOL_SOCKET, procs.SO_ACCEPTCONN) else set()
    assert bool(listening) == (lab.accept_scope == "any")


def test_listening_kinds_and_roles_agree() -> None:
    """Who is given listeners in dispatcher/spawn.py is who may hold them in roles.py."""
    with Lab() as lab:
        lab.config = fixed_children(lab)
        for scope in ("any", "unassigned"):
            lab.accept_scope = scope
            result = load.compile_config(load.Options(config_file=str(lab.write_config()), server_root=str(lab.base)), {})
            assert result.compiled is not None, result.errors
            plan = result.compiled.plan
            for identity in plan.identities:
                assert is_accepting(plan, identity) == roles.role_of(plan, identity).may_hold(roles.LISTENER)


def test_supplementary_groups_are_the_users_own() -> None:
    """A child of a user by name is in that user's groups as the system lists them, and in none of root's."""
    with Lab(names=("alice",)) as lab:
        uid = lab.tenants["alice"].uid
        lab.add_user_database([f"labalice:x:{uid}:{uid}::/:/bin/false"],
                              [f"labalice:x:{uid}:", f"labextra:x:{EXTRA_GROUP}:labalice", f"labother:x:{EXTRA_GROUP + 1}:root"])
        lab.assign["alice"] = "labalice labalice"
        lab.start()
        assert lab.get("alice.test").status == 200
        status = procs.read_status(lab.children(uid)[0])
        assert set(status["Groups"].split()) - {str(uid)} == {str(EXTRA_GROUP)}
        assert status["Gid"].split() == [str(uid)] * 4


def test_compile_has_one_capability_and_its_memfds() -> None:
    """While it parses, compile is root with CAP_DAC_READ_SEARCH alone, no_new_privs, and holds its memfds only."""
    with Lab(names=("alice",)) as lab:
        lab.start()
        many = "\n".join(f"<VirtualHost *:{lab.port}>\nServerName h{n}.test\nDocumentRoot {lab.main_root}\n</VirtualHost>"
                         for n in range(4000))
        lab.config = many
        before = set(lab.children())
        answer: list[dict[str, object]] = []
        reload = threading.Thread(target=lambda: answer.append(lab.reload()))
        reload.start()

        def find() -> int:
            for pid in set(lab.children()) - before:
                if procs.read_status(pid)["CapEff"] == READ_SEARCH:
                    return pid
            return 0

        pid = wait_until(find, "compile runs with one capability")
        try:
            wait_until(lambda: procs.stand_still(pid), "it stands still")
            status = procs.read_status(pid)
            kinds = Counter(fd.kind for fd in procs.look_at_fds(lab, pid))
        finally:
            os.kill(pid, signal.SIGCONT)
        reload.join()
        assert answer[0]["ok"], answer
        assert [status[name] for name in procs.CAPABILITY_SETS] == [
            NO_CAPABILITIES, READ_SEARCH, READ_SEARCH, READ_SEARCH, NO_CAPABILITIES]
        assert status["NoNewPrivs"] == "1"
        # It may be reading one file at that moment: the configuration, or the code that reads it, or look for that in its directory.
        reads = [kind for kind in kinds if kind == f"unknown: {lab.config_path}" or kind.startswith(CODE)]
        assert sum(kinds.pop(kind) for kind in reads) <= 1
        assert roles.compare_fds(roles.find_role(roles.COMPILE), kinds.elements()) == ()


@pytest.mark.parametrize("holder", ["fixed", "unassigned"])
def test_a_listener_that_was_shut_down_listens_again(holder: str) -> None:
    """R-ACC-2: a holder of the shared listener shuts it down; within seconds the dispatcher listens again, and says so."""
    with Lab(accept_scope="any") as lab:
        lab.config = fixed_children(lab)
        lab.start()
        uid = lab.tenants["alice"].uid if holder == "fixed" else lab.user_uid
        pid = lab.children(uid)[0]
        number = next(fd.number for fd in procs.look_at_fds(lab, pid) if fd.kind == roles.LISTENER)
        try:
            wait_until(lambda: procs.stand_still(lab.pid), "the dispatcher does not look")  # once a second, and could be there first
            with procs.borrowed(pid, number) as listener:
                listener.shutdown(socket.SHUT_RD)
            with pytest.raises(ConnectionRefusedError):
                lab.connect()
        finally:
            os.kill(lab.pid, signal.SIGCONT)
        wait_until(lambda: can_connect(lab), "the port accepts again", 5)
        for tenant in lab.tenants.values():
            for _ in range(4):
                assert lab.get(tenant.host).status == 200
        wait_until(lambda: "was shut down or changed by a process that holds it" in lab.error_log(), "it is said, behind the listening")


def test_a_blocking_listener_is_made_non_blocking_again() -> None:
    """R-ACC-2: O_NONBLOCK belongs to all holders; a holder that clears it stops nobody, and the dispatcher sets it again."""
    with Lab(accept_scope="any") as lab:
        lab.config = fixed_children(lab)
        lab.start()
        with procs.borrowed(lab.pid, procs.dispatcher_listener(lab)) as listener:
            listener.setblocking(True)
            for tenant in lab.tenants.values():
                assert lab.get(tenant.host).status == 200
            wait_until(lambda: not os.get_blocking(listener.fileno()), "O_NONBLOCK is back", 5)
            listener.settimeout(None)  # Python's own idea of it, not the kernel's


def can_connect(lab: Lab) -> bool:
    """Whether the port accepts connections."""
    try:
        lab.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def test_roles_list_every_kind_of_child() -> None:
    """There is a row for each kind of identity, and each says that nothing can be dumped."""
    names = {role.name for role in roles.ROLES}
    assert names >= {UNASSIGNED, FIXED, ON_DEMAND, f"{FIXED}, accepting", roles.DISPATCHER, roles.COMPILE}
