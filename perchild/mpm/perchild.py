"""The perchild MPM: a fixed number of children, each with a varying number of threads.

NumServers less the children that ChildPerUserID assigns, at least one, are kept as unassigned children; load does not
matter. Every assigned child scales its threads by the same rule, whichever MPM is chosen.
Runs as: dispatcher, child.  Pure.
"""

from __future__ import annotations

from perchild.mpm.policy import Counts, Decision, Mpm, Rate, Threads, next_rate, slow_rate
from perchild.wire.plan import Scale


def count_at_start(scale: Scale) -> int:
    """Return how many unassigned children there are: always the same number, at least one."""
    return max(1, scale.start_servers)


def decide_children(scale: Scale, counts: Counts, rate: Rate) -> Decision:
    """Refill what is missing, 1, 2, 4 .. 32 a second; end what is too many (after a reload), all at once.

    Source: perchild.c perform_child_maintenance.
    """
    missing = count_at_start(scale) - counts.live
    if missing > 0:
        return Decision(start=min(missing, rate.spawn), rate=next_rate(rate))
    return Decision(end=-missing, rate=slow_rate(rate))


def decide_threads(threads: Threads, idle: int, total: int) -> int:
    """Return how many threads a child should start (positive) or end (negative).

    Fewer than MinSpareThreads idle: start what is missing, at most up to MaxThreadsPerChild. More than MaxSpareThreads
    idle: end the surplus, but keep one thread.
    """
    if idle < threads.min_spare:
        return max(0, min(threads.min_spare - idle, threads.maximum - total))
    if idle > threads.max_spare:
        return -max(0, min(idle - threads.max_spare, total - 1))
    return 0


MPM = Mpm("perchild", "perchild.c", "yes (variable thread count)", "yes (fixed process count)", "AH00489",
          count_at_start, decide_children, decide_threads)
