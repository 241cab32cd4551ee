"""Comparing plans: what needs a new child, and what cannot change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dispatcher_plans import make_identity, make_plan

from perchild.dispatcher.errors import DispatcherError
from perchild.dispatcher.reload import check_plan, compare_plans, sign_identity
from perchild.wire.plan import FIXED, UNASSIGNED, Listener, Plan


def signatures(plan: Plan) -> dict[int, tuple[object, ...]]:
    """Return the signatures of a plan in force."""
    return {identity.number: sign_identity(plan, identity) for identity in plan.identities}


def with_identity(plan: Plan, number: int, **change: Any) -> Plan:
    """Return the plan with one identity changed."""
    return replace(plan, identities=tuple(replace(one, **change) if one.number == number else one for one in plan.identities))


def test_equal_plans_keep_every_child() -> None:
    """The same plan again: all kept."""
    changes = compare_plans(signatures(make_plan()), make_plan())
    assert (changes.kept, changes.changed, changes.added, changes.removed) == ((0, 1, 2), (), (), ())


@pytest.mark.parametrize(("change", "changed"), [
    ({"digest": "other"}, (2,)), ({"uid": 5}, (2,)), ({"gid": 5}, (2,)), ({"groups": (5,)}, (2,)), ({"kind": FIXED}, (2,)),
    ({"runner": "other"}, (2,)),
    ({"children": 9}, ()), ({"name": "other"}, ()), ({"host_count": 9}, ()),
])
def test_identity_is_renewed_for_what_its_child_cannot_be_told(change: dict[str, Any], changed: tuple[int, ...]) -> None:
    """Record, ids and kind need a new child; a name or a number of children does not."""
    assert compare_plans(signatures(make_plan()), with_identity(make_plan(), 2, **change)).changed == changed


@pytest.mark.parametrize(("change", "changed"), [
    ({"accept_scope": "unassigned"}, (0, 1, 2)),
    ({"types_digest": "u"}, (0, 1, 2)),
    ({"thread_stack_bytes": 1 << 20}, (0, 1, 2)),
    ({"listeners": (Listener(4, "127.0.0.1", 81, 511, 0, 0, "f:1"),)}, (0, 1)),
    ({"accept_mutex": "flock"}, (0,)),
    ({"graceful_shutdown_timeout_s": 9}, ()),
    ({"server_name": "y"}, ()),
])
def test_server_wide_change_renews_whom_it_concerns(change: dict[str, Any], changed: tuple[int, ...]) -> None:
    """Listeners renew accepting children, the accept mutex the unassigned ones, the rest all or none."""
    assert compare_plans(signatures(make_plan()), replace(make_plan(), **change)).changed == changed


def test_added_and_removed_identities_are_told_apart() -> None:
    """Identity 2 goes, 3 comes; the others are kept."""
    plan = make_plan(make_identity(0, UNASSIGNED), make_identity(1, FIXED), make_identity(3))
    changes = compare_plans(signatures(make_plan()), plan)
    assert (changes.added, changes.removed, changes.kept) == ((3,), (2,), (0, 1))


def test_mpm_cannot_change() -> None:
    """AH00534 with httpd's words."""
    with pytest.raises(DispatcherError, match=r"AH00534.*The MPM cannot be changed during restart"):
        check_plan(make_plan(), replace(make_plan(), mpm="worker"))


def test_server_limit_and_paths_stay_with_a_warning() -> None:
    """httpd's sentence for ServerLimit; run directory, pid file and accept mutex likewise."""
    old = make_plan()
    new = replace(old, scale=replace(old.scale, server_limit=99, start_servers=7), run_dir="/run/y", accept_mutex="flock")
    taken, warnings = check_plan(old, new)
    assert taken.scale.server_limit == 8
    assert taken.scale.start_servers == 7
    assert (taken.run_dir, taken.accept_mutex) == ("/run/x", "default")
    assert warnings[0] == "changing ServerLimit to 99 from original value of 8 not allowed during restart"
    assert len(warnings) == 3
