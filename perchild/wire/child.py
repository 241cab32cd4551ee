"""What the dispatcher gives a child at the fork: identity, and every descriptor the child will ever hold from it.

Runs as: dispatcher (fills), child (reads).  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class ForkLostError(OSError):
    """Whoever was to fork a child is gone: there may be one, and what was made for it must be closed and made anew."""


@dataclass(slots=True)
class ChildSpec:
    """One child.

    Descriptors are -1 when its role has none; those that were made for this child alone are closed in the dispatcher after
    the fork.
    """

    number: int  # identity number
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    kind: str  # wire.plan: unassigned, fixed, on-demand
    generation: int
    parent_pid: int
    is_privileged: bool  # False: the server was not started by root; everything runs under one uid
    nofile: int  # RLIMIT_NOFILE of the child
    accept_scope: str
    accept_mutex: str  # as in the plan
    control_fd: int  # its end of the control pair (wire/control.py)
    inbox_fd: int  # read end of its identity's inbox (SOCK_SEQPACKET, shared by all children of the identity)
    record_fd: int
    types_fd: int
    page_fd: int  # memfd for its counters and slot table (wire/page.py), sealed against resizing
    route_fd: int = -1  # the server's route table; -1 unless it accepts
    mutex_fd: int = -1  # file of AcceptMutex flock/fcntl, or memfd of pthread
    job_fd: int = -1  # write end of its identity's job box (native/job.c); -1 = the identity has no runner
    ticket_fd: int = -1  # memfd: its identity's keys of session tickets (native/tickets.c); -1 = none
    mutex_id: int = -1  # System V semaphore of sysvsem
    listener_fds: tuple[int, ...] = ()  # empty unless it accepts
    inbox_write_fds: dict[int, int] = field(default_factory=dict)  # identity number -> write end, of those it may send to
    log_fds: tuple[int, ...] = ()  # one for each LogFile of its identity; -1 = the child opens it itself
    key_fds: tuple[int, ...] = ()  # one for each of its identity's keys; -1 = the child opens it itself
    takes_any_key: bool = False  # a key that is not its certificate's breaks its host; False: then the child ends with EXIT_STALE_KEY
    has_one_worker: bool = False  # -X
    thread_stack_bytes: int = 0
    prepared: object = None  # what native.prepare_child made of all this before the fork

    def descriptors(self) -> tuple[int, ...]:
        """Return every descriptor of the child besides 0, 1 and 2: what the drop keeps open."""
        single = (self.control_fd, self.inbox_fd, self.record_fd, self.types_fd, self.page_fd, self.route_fd, self.mutex_fd,
                  self.job_fd, self.ticket_fd)
        every = (*single, *self.listener_fds, *self.inbox_write_fds.values(), *self.log_fds, *self.key_fds)
        return tuple(sorted({fd for fd in every if fd >= 0}))


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """What the dispatcher gives a runner at the fork."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    is_privileged: bool
    nofile: int  # RLIMIT_NOFILE
    may_gain: bool  # Identity.new_privs
    box_fd: int  # read end of its identity's job box
    file_fd: int  # the runner's file (wire/runner.py)
    parent_fd: int  # pidfd of the dispatcher
