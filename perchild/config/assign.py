"""Who serves what: User and Group, ChildPerUserID, AssignUserID -> groups of hosts, one for each identity.

Started by root, identities are what the configuration says. Started by anybody else, there is only one to be had, the caller's:
everything is served under it, and a warning says so where another was asked for.
Runs as: compile (pure).  Source: history.md 2.1; the first perchild manual (child_id); security.md 5 (CVE-2011-1176).
"""

from __future__ import annotations

from perchild.config.hosts import Group
from perchild.config.identity import Person, RootRefusedError
from perchild.config.messages import BadDirectiveError
from perchild.config.tree import Node
from perchild.config.work import Work
from perchild.wire.plan import FIXED, ON_DEMAND

NOBODY = Person(65534, 65534, (), "nobody")  # stands in where an error has been noted already



def find_unassigned(work: Work) -> Person:
    """Return who the unassigned children run as: User and Group, or a caller who is not root."""
    user, user_node = work.server.get("user", ("www-data", None))
    group, group_node = work.server.get("group", ("www-data", None))
    options = work.options
    if options.caller_uid:
        _refuse_root(work, (user, group), (user_node, group_node))
        if options.caller_gid == 0 or 0 in options.caller_groups:
            work.fail(None, "started by a member of group 0: no process that serves clients may be; start it with another group")
        name = work.env.users.user_name(options.caller_uid) or f"#{options.caller_uid}"
        return Person(options.caller_uid, options.caller_gid, tuple(sorted(set(options.caller_groups) - {options.caller_gid})), name)
    try:
        work.people.find_user(user, 0)
    except BadDirectiveError as error:
        _fail_default(work, user_node, "User", error)
        return NOBODY
    try:
        return work.people.find(user, group, -1)
    except BadDirectiveError as error:
        _fail_default(work, group_node, "Group", error)
        return NOBODY


def _refuse_root(work: Work, words: tuple[str, str], nodes: tuple[Node | None, Node | None]) -> None:
    """Refuse root even where the words have no other effect. words, nodes: of user and group."""
    for find, word, node in ((work.people.find_user, words[0], nodes[0]), (work.people.find_group, words[1], nodes[1])):
        try:
            find(word, 0)
        except RootRefusedError as error:
            work.fail(node, error.reason, 0)
        except BadDirectiveError:
            pass  # this machine need not know the user that another one serves as


def _fail_default(work: Work, node: Node | None, name: str, error: BadDirectiveError) -> None:
    if node is None:
        work.fail(None, f"{error.reason}; say which {name} the unassigned children run as")
    else:
        work.fail(node, error.reason, 0)


def find_group(work: Work, words: tuple[str, ...], node: Node) -> Group | None:
    """Return the group of the identity that a directive's first two words name; None after an error."""
    known = work.of_words.get(words[:2])
    if known is not None:
        return known
    unassigned = work.unassigned
    if work.options.caller_uid:
        return unassigned if _is_harmless(work, words, node) else None
    try:
        person = work.people.find(words[0], words[1])
        _check_range(work, person, words)
    except BadDirectiveError as error:
        work.fail(node, error.reason, error.word)
        return None
    group = work.groups.get(person.key)
    if group is None:
        group = work.groups[person.key] = Group(person, ON_DEMAND, 1)
    work.of_words[words[:2]] = group
    return group


def _is_harmless(work: Work, words: tuple[str, ...], node: Node) -> bool:
    """Tell whether what a caller who is not root asks for is not root; note it if it is not himself either."""
    try:
        person = work.people.find(words[0], words[1])
    except RootRefusedError as error:
        work.fail(node, error.reason, error.word)
        return False
    except BadDirectiveError:
        work.foreign.append(node)  # this machine need not know the user that another one serves as
        return True
    if (person.uid, person.gid) != (work.options.caller_uid, work.options.caller_gid):
        work.foreign.append(node)
    return True


def _check_range(work: Work, person: Person, words: tuple[str, ...]) -> None:
    for index, (number, name) in enumerate(((person.uid, "uid"), (person.gid, "gid"))):
        low, high = work.server[f"{name}_range"]
        if not low <= number <= high:
            message = f"{name} {number} of {words[index]} is out of range: Limit{name.upper()}Range allows {low}..{high}"
            raise BadDirectiveError(message, index)


def take_fixed(work: Work) -> int:
    """Take the ChildPerUserID lines; return how many children they name."""
    owners: dict[int, Group] = {}
    count = work.server["num_servers"]
    for words, node in work.server["child_per_user_id"]:
        if not words[2].isdecimal() or not 1 <= int(words[2]) <= count:
            work.fail(node, f"child_id {words[2]} is out of range: 1..{count} expected (NumServers is {count})", 2)
            continue
        group = find_group(work, words, node)
        if group is None:
            continue
        child = int(words[2])
        if owners.setdefault(child, group) is not group:
            work.fail(node, f"child_id {child} is already that of {owners[child].person.name}: an id stands for one identity", 2)
            continue
        if group is work.unassigned:
            if not work.options.caller_uid:
                work.warn(node, f"ChildPerUserID {words[0]}: this is the identity of User and Group, whose children are not assigned")
            continue
        group.kind = FIXED
        group.children = sum(1 for owner in owners.values() if owner is group)
    return sum(1 for owner in owners.values() if owner is not work.unassigned)


def number_groups(work: Work) -> None:
    """Give every group its number: the one it had, or the next free one; the unassigned keep 0."""
    known = {key: number for key, number in work.known_numbers.items() if number > 0}
    following = max(known.values(), default=0) + 1
    for key, group in work.groups.items():
        if group is work.unassigned:
            continue
        if key in known:
            group.number = known[key]
        else:
            group.number, following = following, following + 1
