"""User and group words of the configuration -> who a child runs as.

One identity may be spelled in several ways (alice, #1001); what counts is (uid, gid, supplementary groups). An identity has no
default: a host either names one or belongs to the unassigned children. uid 0 and gid 0 are refused wherever they come from.
Runs as: compile (pure: the databases come through Env.users).
"""

from __future__ import annotations

from dataclasses import dataclass

from perchild.config.messages import BadDirectiveError
from perchild.config.values import MAX_ID, Users


class RootRefusedError(BadDirectiveError):
    """uid 0 or gid 0 was named."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who a process is: uid, gid, supplementary groups (sorted, without gid), and a name for people."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str

    @property
    def key(self) -> str:
        """Return what makes it one identity, in the form that keeps numbers over reloads: uid:gid:g1,g2."""
        return f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}"


class People:
    """Looks words up, each pair once."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._known: dict[tuple[str, str], Person] = {}
        self._by_key: dict[str, Person] = {}

    def find(self, user: str, group: str, first: int = 0) -> Person:
        """Return the person of a user word and a group word.

        Args:
            user, group: names, or '#' and a number.
            first: index of the user word among the directive's arguments, for the caret; the group's is the next.
        Raises:
            BadDirectiveError: no such name, a number out of range, uid or gid 0, or a member of group 0.
        """
        person = self._known.get((user, group))
        if person is None:
            person = self._look_up(user, group, first)
            person = self._by_key.setdefault(person.key, person)
            self._known[user, group] = person
        return person

    def _look_up(self, user: str, group: str, first: int) -> Person:
        uid, name = self.find_user(user, first)
        gid = self.find_group(group, first + 1)
        groups = self._users.groups(name, gid) if name else ()
        if 0 in groups:
            message = f"user {name} is a member of group 0: a server process may not be; take it out of that group"
            raise RootRefusedError(message, first)
        return Person(uid, gid, tuple(sorted(set(groups) - {gid})), name or f"#{uid}")

    def find_user(self, word: str, index: int) -> tuple[int, str]:
        """Return (uid, name or '') of a user word; see find."""
        if word.startswith("#"):
            uid = _parse_id(word, index)
            name = self._users.user_name(uid) or ""
        else:
            found = self._users.user(word)
            if found is None:
                message = f"bad user name {word}: there is no such user"
                raise BadDirectiveError(message, index)
            uid, name = found[0], word
        if uid == 0:
            message = f"user {word} is uid 0: no process that serves clients runs as root; name another user"
            raise RootRefusedError(message, index)
        return uid, name

    def find_group(self, word: str, index: int) -> int:
        """Return the gid of a group word; see find."""
        gid = _parse_id(word, index) if word.startswith("#") else self._users.group(word)
        if gid is None:
            message = f"bad group name {word}: there is no such group"
            raise BadDirectiveError(message, index)
        if gid == 0:
            message = f"group {word} is gid 0: no process that serves clients runs with it; name another group"
            raise RootRefusedError(message, index)
        return gid


def _parse_id(word: str, index: int) -> int:
    digits = word[1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 10) or int(digits) > MAX_ID:  # noqa: PLR2004
        message = f"'{word}' is no id: # and a number 1..{MAX_ID} expected"
        raise BadDirectiveError(message, index)
    return int(digits)
