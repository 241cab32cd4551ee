"""What the scaling policies share: counts in, a decision out.

An MPM decides how many unassigned children there are and how many threads a child has. Spawning is exponential as in
httpd: 1, 2, 4 .. 32 children a second while there are too few, one again as soon as there are enough.
Runs as: dispatcher (children), child (threads).  Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from perchild.wire.plan import Scale

MAX_SPAWN_RATE = 32  # children a second (httpd's MAX_SPAWN_RATE)
HOLD_OFF_CYCLES = 10  # seconds after a graceful restart in which the rate does not double (httpd)
BUSY_RATE = 8  # from this rate on the log says that the server seems busy


@dataclass(frozen=True, slots=True)
class Counts:
    """The unassigned children, counted. A starting child counts as live and its threads as idle, as in httpd."""

    live: int  # started and not asked to end
    draining: int  # asked to end and still there
    idle: int  # idle threads of the live ones
    busy: int  # busy threads of the live ones


@dataclass(frozen=True, slots=True)
class Rate:
    """What a policy remembers from one second to the next."""

    spawn: int = 1  # children to start at most this time
    hold_off: int = 0  # cycles left in which it does not double
    said: frozenset[str] = frozenset()  # messages that are said once


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the error log."""

    level: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Children to start and to end now, the memory for the next time, and what to log."""

    start: int = 0
    end: int = 0
    rate: Rate = field(default_factory=Rate)
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Threads:
    """A child's thread settings."""

    start: int
    min_spare: int
    max_spare: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Mpm:
    """One MPM: its names, what -V says of it, and its two policies."""

    name: str
    source: str  # what -l calls it
    threaded: str  # "yes (variable thread count)" ...
    forked: str
    configured_code: str  # AH number of "configured -- resuming normal operations"
    count_at_start: Callable[[Scale], int]
    decide_children: Callable[[Scale, Counts, Rate], Decision]
    decide_threads: Callable[[Threads, int, int], int]


def hold_off(rate: Rate) -> Rate:
    """Return the rate after a graceful restart: it does not double for HOLD_OFF_CYCLES seconds."""
    return replace(rate, spawn=1, hold_off=HOLD_OFF_CYCLES)


def next_rate(rate: Rate) -> Rate:
    """Return the rate after a second in which children were started."""
    if rate.hold_off > 0:
        return replace(rate, hold_off=rate.hold_off - 1)
    return replace(rate, spawn=min(rate.spawn * 2, MAX_SPAWN_RATE))


def slow_rate(rate: Rate) -> Rate:
    """Return the rate after a second in which there were enough children (or no room)."""
    return replace(rate, spawn=1)


def say_once(rate: Rate, *messages: Message) -> tuple[Rate, tuple[Message, ...]]:
    """Return the messages that were not said before, and the memory in which they are."""
    fresh = tuple(message for message in messages if message.code not in rate.said)
    return replace(rate, said=rate.said | {message.code for message in fresh}), fresh
