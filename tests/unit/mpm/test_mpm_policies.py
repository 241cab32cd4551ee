"""Scaling policies: tables of counts in, decisions out."""

from __future__ import annotations

import pytest

from perchild.mpm import MPMS
from perchild.mpm.policy import HOLD_OFF_CYCLES, MAX_SPAWN_RATE, Counts, Rate, Threads, hold_off
from perchild.wire.plan import Scale

WORKER = Scale(3, 75, 250, 16, 25, 400)
PREFORK = Scale(5, 5, 10, 256, 1, 256)
PERCHILD = Scale(4, 0, 0, 8, 64, 0)


@pytest.mark.parametrize(("live", "rate", "start", "end"), [
    (4, 8, 0, 0), (3, 1, 1, 0), (0, 2, 2, 0), (0, 32, 4, 0), (6, 1, 0, 2), (5, 32, 0, 1),
])
def test_perchild_keeps_a_fixed_number_of_children(live: int, rate: int, start: int, end: int) -> None:
    """perchild refills up to NumServers less the assigned ones, at the spawn rate, and ends what is too many."""
    decision = MPMS["perchild"].decide_children(PERCHILD, Counts(live, 3, 0, 99), Rate(rate))
    assert (decision.start, decision.end) == (start, end)


def test_perchild_keeps_at_least_one_unassigned_child() -> None:
    """With every server assigned, one unassigned child remains."""
    scale = Scale(0, 0, 0, 8, 64, 0)
    assert MPMS["perchild"].count_at_start(scale) == 1
    assert MPMS["perchild"].decide_children(scale, Counts(0, 0, 0, 0), Rate()).start == 1


def test_spawning_doubles_each_second_up_to_the_maximum_and_falls_back_to_one() -> None:
    """1, 2, 4, 8, 16, 32, 32 children are started while idle ones are missing; then the rate is 1 again."""
    rate, starts = Rate(), []
    for _ in range(7):
        decision = MPMS["prefork"].decide_children(PREFORK, Counts(20, 0, 0, 20), rate)
        starts.append(decision.start)
        rate = decision.rate
    assert starts == [1, 2, 4, 8, 16, 32, 32]
    assert MPMS["prefork"].decide_children(PREFORK, Counts(20, 0, 7, 13), rate).rate.spawn == 1
    assert max(starts) == MAX_SPAWN_RATE


def test_spawning_does_not_double_for_ten_cycles_after_a_graceful_restart() -> None:
    """The hold-off keeps the rate at one for HOLD_OFF_CYCLES decisions."""
    rate, starts = hold_off(Rate(16)), []
    for _ in range(HOLD_OFF_CYCLES + 3):
        decision = MPMS["prefork"].decide_children(PREFORK, Counts(20, 0, 0, 20), rate)
        starts.append(decision.start)
        rate = decision.rate
    assert starts == [1] * (HOLD_OFF_CYCLES + 1) + [2, 4]


@pytest.mark.parametrize(("name", "scale", "counts", "start", "end"), [
    ("worker", WORKER, Counts(3, 0, 75, 0), 0, 0),
    ("worker", WORKER, Counts(3, 0, 74, 1), 1, 0),
    ("worker", WORKER, Counts(11, 0, 250, 25), 0, 0),
    ("worker", WORKER, Counts(11, 0, 251, 24), 0, 1),
    ("worker", WORKER, Counts(16, 0, 0, 400), 0, 0),
    ("prefork", PREFORK, Counts(5, 0, 5, 0), 0, 0),
    ("prefork", PREFORK, Counts(5, 0, 4, 1), 1, 0),
    ("prefork", PREFORK, Counts(20, 0, 11, 9), 0, 1),
    ("prefork", PREFORK, Counts(0, 0, 0, 0), 1, 0),
    ("prefork", PREFORK, Counts(200, 56, 0, 200), 0, 0),
    ("prefork", Scale(1, 0, 0, 1, 1, 1), Counts(1, 0, 1, 0), 0, 0),
])
def test_idle_maintenance_keeps_spare_between_its_bounds(name: str, scale: Scale, counts: Counts, start: int,
                                                          end: int) -> None:
    """Below MinSpare children are started, above MaxSpare one ends, at the limit neither."""
    decision = MPMS[name].decide_children(scale, counts, Rate())
    assert (decision.start, decision.end) == (start, end)


@pytest.mark.parametrize(("name", "scale", "counts", "code"), [
    ("worker", WORKER, Counts(16, 0, 0, 400), "AH00286"),
    ("worker", WORKER, Counts(16, 0, 30, 370), "AH00287"),
    ("worker", WORKER, Counts(10, 6, 0, 250), "AH00288"),
    ("prefork", PREFORK, Counts(256, 0, 0, 256), "AH00161"),
    ("prefork", PREFORK, Counts(200, 56, 0, 200), "AH00288"),
])
def test_a_full_server_says_so_once(name: str, scale: Scale, counts: Counts, code: str) -> None:
    """The message of httpd comes at the first decision and never again."""
    first = MPMS[name].decide_children(scale, counts, Rate(8))
    assert [message.code for message in first.messages] == [code]
    assert first.rate.spawn == 1
    assert MPMS[name].decide_children(scale, counts, first.rate).messages == ()


@pytest.mark.parametrize(("name", "scale", "code"), [("worker", WORKER, "AH00289"), ("prefork", PREFORK, "AH00162")])
def test_a_busy_server_is_reported_from_rate_eight(name: str, scale: Scale, code: str) -> None:
    """At a rate of 4 nothing is said, at 8 the busy message with the figures."""
    counts = Counts(6, 0, 1, 149)
    assert MPMS[name].decide_children(scale, counts, Rate(4)).messages == ()
    message = MPMS[name].decide_children(scale, counts, Rate(8)).messages[0]
    assert (message.code, message.level) == (code, "info")
    assert "spawning 8 children" in message.text


@pytest.mark.parametrize(("idle", "total", "expected"), [
    (5, 5, 0), (4, 6, 1), (0, 5, 5), (0, 62, 2), (0, 64, 0), (10, 20, 0), (11, 20, -1), (20, 20, -10),
])
def test_perchild_keeps_spare_threads_between_their_bounds(idle: int, total: int, expected: int) -> None:
    """Threads are started below MinSpareThreads, up to MaxThreadsPerChild itself, and ended above MaxSpareThreads."""
    assert MPMS["perchild"].decide_threads(Threads(5, 5, 10, 64), idle, total) == expected


def test_perchild_never_ends_the_last_thread() -> None:
    """With MaxSpareThreads 0 one thread stays."""
    assert MPMS["perchild"].decide_threads(Threads(1, 0, 0, 8), 3, 3) == -2


@pytest.mark.parametrize(("name", "total", "expected"), [("worker", 20, 5), ("worker", 25, 0), ("prefork", 0, 1),
                                                         ("prefork", 3, -2)])
def test_worker_and_prefork_have_a_fixed_number_of_threads(name: str, total: int, expected: int) -> None:
    """worker always has ThreadsPerChild threads, prefork one."""
    assert MPMS[name].decide_threads(Threads(25, 1, 1, 25), 9, total) == expected
