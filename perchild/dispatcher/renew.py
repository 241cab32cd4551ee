"""A certificate that changes while the server runs: its identity alone gets new children, as with a reload that changes it alone.

The files that TLS is made of are looked at by stat, some each second. When one has changed, and was the same at two looks (whoever
writes a certificate writes its key, too), a throw-away process reads that identity's certificates again and writes a new record: the
configuration is not read, for an operator may be in the middle of it. Until the new record is there, no child is started with the old
one: it would find the new key beside the old certificate. One that was being started finds that out for itself, and ends before it
serves. What waits in the inbox waits for as long, but not for ever.
A host that works is not broken by that: if its new certificate cannot be used, or its key is not there yet, compile keeps the old one, in the new
record, or, where the old one's key is no longer on disk, the whole old record with the children that have read that key (config/certs.py). That lasts
until the files change again, or none of these children is left.
Runs as: dispatcher.
Before: start.py  After: compile.py:renew_plan, reload.py
"""

from __future__ import annotations

import os
from collections.abc import Callable

from perchild.dispatcher.state import Member, Phase, Server
from perchild.wire.plan import Identity
from perchild.wire.stamp import stamp_file

LOOKS_PER_S = 500  # files: 2 ms
PAUSE_S = 10.0  # between two renewals of one identity: whoever writes its certificate every second costs us no more
HOLD_S = 5.0  # longest time for which no child is started with a certificate that has changed
HELD_PAUSE_S = 2.0  # in place of PAUSE_S where a child waits to be started: two looks more, and it still has the new one in time
# Behind a renewal that was not taken up, too, and twice as long behind the next one: whoever mends it is served at once, whoever writes nonsense
# all the time is read every PAUSE_S.
MOST_REFUSALS = 8  # counted: twice as long is more than PAUSE_S by then
Look = Callable[[str], str]


def is_changed(identity: Identity, look: Look = stamp_file) -> bool:
    """Return whether a file of its TLS is another than compile has read."""
    return any(look(path) != stamp for path, stamp in identity.tls_files)


def find_changed(server: Server, look: Look = stamp_file) -> list[int]:
    """Look at some identities' files, at each in its turn; return the numbers of those to be renewed now. Once a second."""
    now_s = server.sys.now_s()
    with_tls = [member for member in server.members.values() if member.identity.tls_files and member.removed_s is None]
    if not with_tls:
        return []
    urgent = [member for member in with_tls if _is_urgent(member)]
    first = {member.identity.number for member in urgent}
    due = [member.identity.number for member in urgent if _is_due(member, now_s, look)]
    start, left = server.renew_at % len(with_tls), LOOKS_PER_S
    for count, member in enumerate((*with_tls[start:], *with_tls[:start])):
        if left <= 0:
            server.renew_at = start + count
            break
        left -= len(member.identity.tls_files)
        if member.identity.number not in first and _is_due(member, now_s, look):
            due.append(member.identity.number)
    return due


def _is_urgent(member: Member) -> bool:
    """Return whether a change was seen: at the last look, or when a child was to be started, which waits for no more than HOLD_S.

    A turn of all looks takes longer than that where there are many.
    """
    return bool(member.seen_stamps) or member.stale_s is not None or member.must_renew


def _is_due(member: Member, now_s: float, look: Look) -> bool:
    """Return whether its files have changed, are as they were at the last look, and it is time."""
    stamps = tuple(look(path) for path, _ in member.identity.tls_files)
    if stamps == tuple(stamp for _, stamp in member.identity.tls_files) and not member.must_renew:
        member.seen_stamps, member.stale_s = (), None
        return False
    is_quiet, member.seen_stamps = stamps == member.seen_stamps, stamps
    return is_quiet and now_s - member.renewed_s >= _pause_s(member)


def _pause_s(member: Member) -> float:
    """Return how long after the last renewal of an identity there may be another."""
    if member.stale_s is not None:
        return HELD_PAUSE_S
    return min(PAUSE_S, HELD_PAUSE_S * 2.0**member.refusals) if member.identity.tls_held else PAUSE_S


def must_wait(server: Server, member: Member, look: Look = stamp_file) -> bool:
    """Return whether no child may be started now, since its certificate has changed and is about to be read again."""
    if not member.identity.tls_files or not is_changed(member.identity, look):
        member.stale_s = None
        return False
    now_s = server.sys.now_s()
    if member.stale_s is None:
        member.stale_s = now_s
    return now_s - member.stale_s < HOLD_S


def note_renewal(server: Server, numbers: list[int]) -> None:
    """Note that a renewal of these begins."""
    for number in numbers:
        member = server.members.get(number)
        if member is not None:
            member.renewed_s, member.seen_stamps, member.must_renew = server.sys.now_s(), (), False
            member.refusals = min(member.refusals + 1, MOST_REFUSALS) if member.identity.tls_held else 0


def find_forced(server: Server, numbers: list[int]) -> frozenset[int]:
    """Return those of which no child is left that has what they go on with: they get what is on disk, whatever it is."""
    return frozenset(number for number in numbers if server.members[number].must_renew)


def note_stale(member: Member) -> None:
    """Note that a child could not be started, for a key on disk is not that of its certificate. While others have the old key they go on."""
    member.must_renew = bool(member.identity.tls_held) and not any(child.phase is Phase.READY for child in member.children.values())


def name_identities(server: Server, numbers: list[int]) -> str:
    """Return their names, for people."""
    return ", ".join(server.members[number].identity.name for number in numbers if number in server.members)


def keep_tables(server: Server) -> tuple[int, int]:
    """Return duplicates of the route table and the types table in force, which the caller owns.

    Raises:
        OSError: there is no descriptor left.
    """
    route_fd = os.dup(server.route_fd)
    try:
        return route_fd, os.dup(server.types_fd)
    except OSError:
        os.close(route_fd)
        raise
