"""The prefork MPM: a varying number of children, each with one thread.

Runs as: dispatcher, child.  Pure.
"""

from __future__ import annotations

from perchild.mpm import spare
from perchild.mpm.policy import Counts, Decision, Message, Mpm, Rate, Threads
from perchild.wire.plan import Scale

WORDS = spare.Words(
    reached=Message("error", "AH00161", "server reached MaxRequestWorkers setting, consider raising the "
                                        "MaxRequestWorkers setting"),
    near=None,
    full=Message("error", "AH00288", "scoreboard is full, not at MaxRequestWorkers"),
    busy_code="AH00162",
    busy_text="server seems busy, (you may need to increase StartServers, or Min/MaxSpareServers), "
              "spawning {start} children, there are {idle} idle, and {total} total children",
)


def decide_children(scale: Scale, counts: Counts, rate: Rate) -> Decision:
    """Keep the idle unassigned children between MinSpareServers and MaxSpareServers (a child has one thread)."""
    return spare.decide_spare(scale, counts, rate, WORDS)


def decide_threads(threads: Threads, idle: int, total: int) -> int:  # noqa: ARG001 - one signature for all MPMs
    """Return how many threads are missing or too many: there is always one."""
    return 1 - total


MPM = Mpm("prefork", "prefork.c", "no", "yes (variable process count)", "AH00163",
          spare.count_at_start, decide_children, decide_threads)
