"""Words that the server and perchildctl say to people.

Runs as: every role that speaks to people (pure).
"""

from __future__ import annotations


def count_of(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 host`, `2 hosts`. many: the noun's plural if it is not made with s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
