"""Who serves what: names, numbers, ranges, several children, several hosts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perchild.config.model import Result

HOST = "<VirtualHost *:80>\nServerName {0}.example\n{1}\n</VirtualHost>\n"


def identities(result: Result) -> dict[str, Any]:
    """Return the plan's identities by name."""
    assert result.compiled is not None
    return {one.name: one for one in result.compiled.plan.identities}


def test_hosts_without_assign_belong_to_the_unassigned_identity(world: Any) -> None:
    """No host gets an identity by default but User and Group's."""
    found = identities(world.good(HOST.format("a", "")))
    assert list(found) == ["www-data"]
    assert (found["www-data"].number, found["www-data"].kind, found["www-data"].host_count) == (0, "unassigned", 1)
    assert identities(world.good(""))["www-data"].host_count == 1  # the main server itself


def test_one_identity_by_two_spellings_is_one(world: Any) -> None:
    """alice and #1001 are one identity, with the groups of the group database."""
    text = HOST.format("a", "AssignUserID alice alice") + HOST.format("b", "AssignUserID #1001 #1001")
    text += HOST.format("c", "assignuserid alice #1001") + "ChildPerUserID #1001 alice 3\n"
    found = identities(world.good(text))
    assert list(found) == ["www-data", "alice"]
    alice = found["alice"]
    assert (alice.uid, alice.gid, alice.groups, alice.host_count) == (1001, 1001, (2000, 2001), 3)
    assert (alice.kind, alice.children) == ("fixed", 1)


def test_a_number_without_user_has_no_supplementary_groups(world: Any) -> None:
    """A numeric user need not exist."""
    found = identities(world.good(HOST.format("a", "AssignUserID #70001 #70002")))
    assert (found["#70001"].uid, found["#70001"].gid, found["#70001"].groups) == (70001, 70002, ())


def test_the_same_user_with_another_group_is_another_identity(world: Any) -> None:
    """What counts is (uid, gid, groups)."""
    text = HOST.format("a", "AssignUserID alice alice") + HOST.format("b", "AssignUserID alice web")
    result = world.good(text)
    assert [(one.uid, one.gid) for one in result.compiled.plan.identities] == [(33, 33), (1001, 1001), (1001, 2000)]


def test_several_ids_of_one_identity_are_that_many_fixed_children(world: Any) -> None:
    """ChildPerUserID counts by id; NumServers may stand below; unassigned children are what is left, at least one."""
    text = "".join(f"ChildPerUserID alice alice {number}\n" for number in (1, 2, 7)) + "ChildPerUserID bob bob 3\nNumServers 7\n"
    result = world.good(text)
    found = identities(result)
    assert (found["alice"].children, found["bob"].children, found["alice"].host_count) == (3, 1, 0)
    assert result.compiled.plan.scale.start_servers == 3
    full = world.good("NumServers 1\nChildPerUserID alice alice 1\n").compiled.plan.scale
    assert full.start_servers == 1


@pytest.mark.parametrize(("text", "reason"), [
    ("ChildPerUserID alice alice 6\n", "child_id 6 is out of range: 1..5 expected (NumServers is 5)"),
    ("ChildPerUserID alice alice 0\n", "child_id 0 is out of range: 1..5 expected (NumServers is 5)"),
    ("ChildPerUserID alice alice ²\n", "child_id ² is out of range: 1..5 expected (NumServers is 5)"),
    ("ChildPerUserID alice alice x\n", "child_id x is out of range: 1..5 expected (NumServers is 5)"),
    ("ChildPerUserID alice alice 1\nChildPerUserID bob bob 1\n", "child_id 1 is already that of alice: an id stands for one identity"),
    ("ChildPerUserID alice alice\n", "ChildPerUserID takes three arguments, user group child_id"),
    ("ChildPerUserID nobody-here alice 1\n", "bad user name nobody-here: there is no such user"),
    ("ChildPerUserID alice nogroup-here 1\n", "bad group name nogroup-here: there is no such group"),
    ("ChildPerUserID #x alice 1\n", "'#x' is no id: # and a number 1..4294967294 expected"),
    ("ChildPerUserID #4294967295 alice 1\n", "'#4294967295' is no id: # and a number 1..4294967294 expected"),
])
def test_child_per_user_id_is_checked(world: Any, text: str, reason: str) -> None:
    """Ids 1..NumServers, one identity each, names that exist."""
    assert world.reasons(text) == [reason]


def test_the_same_id_twice_for_one_identity_is_one_child(world: Any) -> None:
    """Saying the same thing twice changes nothing."""
    text = "ChildPerUserID alice alice 1\nChildPerUserID #1001 #1001 1\n"
    assert identities(world.good(text))["alice"].children == 1


@pytest.mark.parametrize("words", ["root root", "#0 #1001", "alice root", "alice #0", "root alice", "#00 alice"])
@pytest.mark.parametrize("form", [HOST.format("a", "AssignUserID {}"), "ChildPerUserID {} 1\n"])
def test_uid_or_gid_zero_is_refused_everywhere(world: Any, words: str, form: str) -> None:
    """No spelling of root gets a process, whoever started the server."""
    for caller in (0, 1000):
        reasons = world.reasons(form.format(words), caller_uid=caller, caller_gid=caller)
        assert len(reasons) == 1
        assert "id 0" in reasons[0]


@pytest.mark.parametrize("text", ["User root\n", "User #0\n", "Group root\n", "Group #0\n"])
def test_user_and_group_may_not_be_root(world: Any, text: str) -> None:
    """Not even the unassigned children run as root."""
    assert "id 0" in world.reasons(text)[0]


def test_a_member_of_group_zero_is_refused(world: Any) -> None:
    """gid 0 does not come in through the group database either."""
    assert "member of group 0" in world.reasons(HOST.format("a", "AssignUserID rooty rooty"))[0]


@pytest.mark.parametrize(("text", "reason"), [
    ("LimitUIDRange 2000 3000\n", "uid 1001 of alice is out of range: LimitUIDRange allows 2000..3000"),
    ("LimitGIDRange 1 1000\n", "gid 1001 of alice is out of range: LimitGIDRange allows 1..1000"),
    ("LimitUIDRange 5 4\n", "the range is empty: 5 is more than 4"),
    ("LimitUIDRange 0 4\n", "0 is out of range: 1..4294967294 expected"),
])
def test_ranges_hold_wherever_they_stand(world: Any, text: str, reason: str) -> None:
    """A limit below the host that breaks it is still a limit."""
    assert world.reasons(HOST.format("a", "AssignUserID alice alice") + text)[-1] == reason


def test_numbers_are_stable_over_reloads_and_new_ones_follow(world: Any) -> None:
    """known_numbers keeps what was; a new identity gets the next free number; the unassigned is always 0."""
    world.known = {"33:33:": 9, "1002:1002:": 4, "1001:1001:2000,2001": 7, "1:1:": 12}
    text = HOST.format("c", "AssignUserID carol carol") + HOST.format("a", "AssignUserID alice alice") + HOST.format("b", "AssignUserID bob bob")
    found = identities(world.good(text))
    assert {name: one.number for name, one in found.items()} == {"www-data": 0, "alice": 7, "bob": 4, "carol": 13}
    assert all(one.record == f"{one.number}-{one.digest[:16]}" for one in found.values())


def test_started_by_a_user_everything_is_served_as_that_user(world: Any) -> None:
    """Without root there is one identity, and a warning if another was asked for."""
    text = HOST.format("a", "AssignUserID alice alice") + "ChildPerUserID bob bob 1\nUser nobody-here\n"
    result = world.good(text, caller_uid=1003, caller_gid=1003)
    assert [(one.name, one.uid, one.kind, one.host_count) for one in result.compiled.plan.identities] == [("carol", 1003, "unassigned", 1)]
    assert sum("not started by root" in warning.reason for warning in result.warnings) == 1
    silent = world.good(HOST.format("a", "AssignUserID carol carol"), caller_uid=1003, caller_gid=1003)
    assert silent.warnings == []


def test_started_by_a_member_of_group_zero_is_refused(world: Any) -> None:
    """gid 0 is no gid of a server process, not even the caller's."""
    assert len(world.reasons("", caller_uid=1003, caller_gid=0)) == 1
    assert len(world.reasons("", caller_uid=1003, caller_gid=1003, caller_groups=(0,))) == 1


def test_accept_scope_any_is_warned_about_in_one_line_with_its_cure(world: Any) -> None:
    """Only fixed children hold listeners; only then is there something to say."""
    result = world.compile("Listen 80\nChildPerUserID alice alice 1\n")
    (warning,) = result.warnings
    assert "Cure: AcceptScope unassigned" in warning.render_line()
    assert "\n" not in warning.render_line()
    assert world.compile("Listen 80\n" + HOST.format("a", "AssignUserID alice alice")).warnings == []
    assert world.good("ChildPerUserID alice alice 1\n").warnings == []


WORDS = st.sampled_from(["alice", "bob", "root", "www-data", "rooty", "#0", "#1", "#00", "#1001", "#65534", "#4294967294", "#4294967295",
                         "#-1", "", "''", "#", "nobody"])
LINES = st.one_of(
    st.builds("AssignUserID {} {}".format, WORDS, WORDS).map(lambda line: HOST.format("x", line)),
    st.builds("ChildPerUserID {} {} {}\n".format, WORDS, WORDS, st.integers(-1, 7)),
    st.builds("User {}\n".format, WORDS), st.builds("Group {}\n".format, WORDS),
    st.builds("LimitUIDRange {} {}\n".format, st.integers(0, 70000), st.integers(0, 1 << 32)),
    st.builds("LimitGIDRange {} {}\n".format, st.integers(0, 70000), st.integers(0, 1 << 32)),
    st.just(HOST.format("y", "")), st.builds("MPM {}\n".format, st.sampled_from(["perchild", "worker", "prefork"])),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150, deadline=None)
@given(lines=st.lists(LINES, max_size=8), caller=st.sampled_from([0, 0, 1003]))
def test_no_configuration_yields_uid_or_gid_zero_or_leaves_the_ranges(world: Any, lines: list[str], caller: int) -> None:
    """CVE-2011-1176's class: whatever is merged from whatever, nobody becomes root and tenants stay in their ranges."""
    result = world.compile("Listen 80\n" + "".join(lines), caller_uid=caller, caller_gid=caller)
    assert (result.compiled is None) is bool(result.errors)
    if result.compiled is None:
        return
    plan = result.compiled.plan
    ranges = {"uid": (1, 4294967294), "gid": (1, 4294967294)}
    for line in lines:
        if line.startswith("Limit"):
            _, low, high = line.split()
            ranges["uid" if "UID" in line else "gid"] = (int(low), int(high))
    for one in plan.identities:
        assert 0 < one.uid < 4294967295
        assert 0 < one.gid < 4294967295
        assert 0 not in one.groups
        if one.kind != "unassigned":
            assert ranges["uid"][0] <= one.uid <= ranges["uid"][1]
            assert ranges["gid"][0] <= one.gid <= ranges["gid"][1]
    assert (plan.uid, plan.gid) == (plan.identities[0].uid, plan.identities[0].gid)
    for identity in plan.identities:
        assert world.record(result, identity.name)[0] == ("VERSION", 1)
