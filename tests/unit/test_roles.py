"""The table of roles: what it promises about itself."""

from __future__ import annotations

import pytest

from perchild import roles
from perchild.wire.plan import FIXED, ON_DEMAND, UNASSIGNED

CHILDREN = [role for role in roles.ROLES if role.name not in {roles.DISPATCHER, roles.COMPILE, roles.NURSERY}]


@pytest.mark.parametrize("role", CHILDREN, ids=lambda role: role.name)
def test_no_child_has_a_capability_or_can_be_dumped(role: roles.Role) -> None:
    """Every child: no capability, no_new_privs, a seccomp filter, not dumpable, no core file."""
    assert (role.capabilities, role.no_new_privs, role.seccomp, role.is_dumpable) == (frozenset(), True, 2, False)
    assert role.limits["RLIMIT_CORE"] == 0


@pytest.mark.parametrize("name", [FIXED, ON_DEMAND])
def test_tenants_children_hold_no_listener_and_no_route_table(name: str) -> None:
    """Outside AcceptScope any a tenant's child has neither, and one inbox to send to."""
    role = roles.find_role(name)
    assert not role.may_hold(roles.LISTENER)
    assert not role.may_hold(roles.ROUTE)
    assert not role.may_hold(roles.RECORD)
    assert roles.compare_fds(role, [roles.LISTENER])[0].endswith("which it may not hold")


def test_dispatcher_holds_no_connection_record_or_document() -> None:
    """The dispatcher has no descriptor through which a client's or a tenant's byte could be read."""
    role = roles.find_role(roles.DISPATCHER)
    assert not any(role.may_hold(kind) for kind in (roles.CONNECTION, roles.DOCUMENT, roles.RECORD))


def test_comparison_names_what_is_too_much_and_too_little() -> None:
    """Two controls, and no inbox: both are told; a right set is silent."""
    role = roles.find_role(UNASSIGNED)
    right = [roles.NULL, roles.NULL, roles.ERROR_LOG, roles.CONTROL, roles.INBOX, roles.EPOLL, roles.EVENTFD,
             roles.EVENTFD, roles.SIGNALFD, roles.LISTENER, roles.INBOX_WRITE]
    assert roles.compare_fds(role, right) == ()
    wrong = roles.compare_fds(role, [roles.CONTROL, *(kind for kind in right if kind != roles.INBOX)])
    assert len(wrong) == 2
