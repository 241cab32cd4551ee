r"""What the dispatcher knows: members (identities in force), their children, and the server as a whole.

A child's phases:  STARTING --READY--> READY --IDLE--> ENDING      (it ends by itself)
                       \------drain------\----> DRAINING           (it was told to end)
Any phase ends with the exit of the process. A draining or ending child is never counted as live.
Runs as: dispatcher.
"""

from __future__ import annotations

import enum
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from perchild.dispatcher.events import Events
from perchild.dispatcher.inbox import Inbox
from perchild.dispatcher.listen import Listeners
from perchild.dispatcher.loop import Loop
from perchild.dispatcher.service import Service
from perchild.dispatcher.signals import Escalation
from perchild.dispatcher.system import Sys
from perchild.mpm.policy import Mpm, Rate
from perchild.wire.child import ChildSpec, RunnerSpec
from perchild.wire.control import Message
from perchild.wire.plan import ON_DEMAND, UNASSIGNED, Identity, Plan

SPAWN_POINTS = 1.0  # mod_fcgid's SpawnScore
DEATH_POINTS = 2.0  # TerminationScore
DECAY_PER_S = 1.0  # TimeScore
LIMIT_POINTS = 10.0  # SpawnScoreUpLimit
YOUNG_S = 0.2  # who has lived so long is replaced at once, however often: what dies of itself does so five times a second at most


class Phase(enum.Enum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    DRAINING = "draining"


LIVE = frozenset({Phase.STARTING, Phase.READY})


@dataclass(slots=True)
class Damping:
    """Back-off for an identity whose children die young: points for each spawn and death, one less a second; none above the limit."""

    points: float = 0.0
    at_s: float = 0.0

    def add(self, points: float, now_s: float) -> None:
        """Add points."""
        self.points = self._left(now_s) + points
        self.at_s = now_s

    def blocked_until_s(self, now_s: float) -> float | None:
        """Return when the next child may be started; None = now."""
        surplus = self._left(now_s) - LIMIT_POINTS
        return now_s + surplus / DECAY_PER_S + 0.01 if surplus >= 0 else None

    def _left(self, now_s: float) -> float:
        return max(0.0, self.points - (now_s - self.at_s) * DECAY_PER_S)


@dataclass(slots=True)
class Child:
    """One child process. pidfd, control and page_fd are ours until close_child, which leaves the page to the identity."""

    pid: int
    pidfd: int
    number: int  # identity
    generation: int
    control: socket.socket
    page_fd: int
    signature: tuple[object, ...]
    is_accepting: bool
    log_is_ours: tuple[bool, ...]  # for each log file, whether the dispatcher opened it
    started_s: float
    phase: Phase = Phase.STARTING
    idle: int = 0
    busy: int = 0
    outgoing: deque[Message] = field(default_factory=deque)  # we own their descriptors
    closed_s: float | None = None  # when it closed its end of the control pair
    is_asked_to_end: bool = False  # its exit is no failure


@dataclass(slots=True)
class Runner:
    """One runner. pidfd is ours until its exit."""

    pid: int
    pidfd: int
    started_s: float
    is_asked_to_end: bool = False  # its exit is no failure
    finish_s: float | None = None  # it was told to finish what runs, and to end it then
    kill_s: float | None = None  # it was told to end, and is killed then


@dataclass(slots=True)
class Programs:
    """What an identity has that executes programs: its job box, its runner, and those that still finish."""

    box: Inbox
    file: str  # below `records`
    new_privs: bool
    runner: Runner | None = None  # who reads the box
    all: dict[int, Runner] = field(default_factory=dict)  # by pid
    damping: Damping = field(default_factory=Damping)
    retry_s: float | None = None  # held back until then


@dataclass(slots=True)
class Member:
    """One identity in force: its part of the plan, its inbox and its children."""

    identity: Identity
    inbox: Inbox
    signature: tuple[object, ...]
    damping: Damping = field(default_factory=Damping)
    children: dict[int, Child] = field(default_factory=dict)
    removed_s: float | None = None  # when a reload took it out of the plan
    programs: Programs | None = None  # None: it executes nothing
    ticket_fd: int = -1  # its keys of session tickets, ours; -1 = none yet
    ticket_s: float = 0.0  # when the newest was made
    seen_stamps: tuple[str, ...] = ()  # of its TLS files, if they have changed: at the last look (renew.py)
    renewed_s: float = -1e9  # when its certificates were last read again
    refusals: int = 0  # renewals in a row that were not taken up, but for the last one
    must_renew: bool = False  # at once, though a host breaks by that: no child is left that could go on with what it had
    stale_s: float | None = None  # since when a child waits to be started for that
    takes_any_key: bool = False  # the last child ended because a key was not its certificate's: the next one serves what it can
    is_crowded: bool = False  # its inbox was not empty at the last look
    free_pages: list[int] = field(default_factory=list)  # of children that have ended, for the next ones; ours

    def live(self) -> list[Child]:
        """Return the children that are not about to end."""
        return [child for child in self.children.values() if child.phase in LIVE]

    @property
    def is_on_demand(self) -> bool:
        """Whether its children are forked for connections in its inbox; so is what is left of a removed identity."""
        return self.identity.kind == ON_DEMAND or self.removed_s is not None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the dispatcher calls but does not import."""

    child_main: Callable[[ChildSpec], NoReturn]
    drop_privileges: Callable[[ChildSpec], None]  # in the child, unless fork_child does it
    restrict_compile: Callable[[], None]
    prepare: Callable[[], None] = lambda: None  # once, before the configuration is compiled
    finish: Callable[[], None] = lambda: None  # once, at the end
    prepare_child: Callable[[ChildSpec], None] = lambda _spec: None  # before each fork: what the child would else do itself
    nursery_pid: Callable[[], int] = lambda: 0  # of the process that forks for fork_child; 0 = there is none
    forget_nursery: Callable[[], None] = lambda: None  # it was reaped
    renew_nursery: Callable[[], None] | None = None  # starts another; None = there never is one
    fork_child: Callable[[ChildSpec], int] | None = None  # forks and drops in one call, instead of fork and drop_privileges
    fork_runner: Callable[[RunnerSpec], int] | None = None  # forks and drops; None: no program is executed
    rotate_tickets: Callable[[int, int], None] = lambda _before, _fd: None  # native.rotate_tickets
    runner_main: Callable[[], object] = lambda: None  # in the runner; does not return


@dataclass(slots=True)
class Reclaim:
    """Children that are being ended by force."""

    escalation: Escalation
    pids: set[int]


@dataclass(slots=True)
class Transition:
    """A reload that waits for the new children of changed identities before the old ones are drained."""

    pending: set[int]  # identities none of whose new children is ready
    old_pids: set[int]
    deadline_s: float
    done: Callable[[bool, str], None]
    is_draining: bool = False  # the old children were told to end; routes are sent when they have read so
    is_sent: bool = False  # routes are on their way; it is over when the children have read them


@dataclass(slots=True)
class Server:
    """All of it. Descriptors route_fd, types_fd, records_fd and notes_fd are ours."""

    plan: Plan
    mpm: Mpm
    sys: Sys
    events: Events
    loop: Loop
    hooks: Hooks
    listeners: Listeners
    route_fd: int
    types_fd: int
    records_fd: int
    nofile: int
    is_privileged: bool
    notes_fd: int = -1  # what the last compile has noted for the next one; never read here
    service: Service = field(default_factory=Service)
    has_one_worker: bool = False
    generation: int = 1
    started_s: float = 0.0
    members: dict[int, Member] = field(default_factory=dict)
    children: dict[int, Child] = field(default_factory=dict)  # by pid
    numbers: dict[str, int] = field(default_factory=dict)  # compile.identity_key -> number, ever seen
    rate: Rate = field(default_factory=Rate)
    retries: dict[int, float] = field(default_factory=dict)  # identity -> when its back-off ends
    reclaims: list[Reclaim] = field(default_factory=list)
    transition: Transition | None = None
    reopening: list[int] = field(default_factory=list)  # pids of children that are still to reopen their logs
    stopping: str = ""  # "", signals.STOP, signals.GRACEFUL_STOP
    stop_deadline_s: float | None = None
    was_ready: bool = False  # an unassigned child has been ready
    has_failed: bool = False  # it cannot serve at all: stop, and exit with 1
    exit_code: int | None = None
    renew_at: int = 0  # whose TLS files are looked at next
    mutex_path: str = ""
    mutex_id: int = -1
    mutex_fd: int = -1
    nursery_pidfd: int = -1
    nursery_damping: Damping = field(default_factory=Damping)
    boards: dict[int, tuple[float, int]] = field(default_factory=dict)  # board.py: scope -> when it was made, descriptor; ours
    on_ready: Callable[[], None] = lambda: None

    def unassigned(self) -> Member:
        """Return the identity of User and Group."""
        return next(member for member in self.members.values() if member.identity.kind == UNASSIGNED)
