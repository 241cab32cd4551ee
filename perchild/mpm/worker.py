"""The worker MPM: a varying number of children, each with a fixed number of threads.

Runs as: dispatcher, child.  Pure.
"""

from __future__ import annotations

from perchild.mpm import spare
from perchild.mpm.policy import Counts, Decision, Message, Mpm, Rate, Threads
from perchild.wire.plan import Scale

WORDS = spare.Words(
    reached=Message("error", "AH00286", "server reached MaxRequestWorkers setting, consider raising the "
                                        "MaxRequestWorkers setting"),
    near=Message("error", "AH00287", "server is within MinSpareThreads of MaxRequestWorkers, consider raising the "
                                     "MaxRequestWorkers setting"),
    full=Message("error", "AH00288", "scoreboard is full, not at MaxRequestWorkers"),
    busy_code="AH00289",
    busy_text="server seems busy, (you may need to increase StartServers, ThreadsPerChild or Min/MaxSpareThreads), "
              "spawning {start} children, there are around {idle} idle threads, and {total} total children",
)


def decide_children(scale: Scale, counts: Counts, rate: Rate) -> Decision:
    """Keep the idle threads of all unassigned children between MinSpareThreads and MaxSpareThreads."""
    return spare.decide_spare(scale, counts, rate, WORDS)


def decide_threads(threads: Threads, idle: int, total: int) -> int:  # noqa: ARG001 - one signature for all MPMs
    """Return how many threads are missing or too many: there are always ThreadsPerChild of them."""
    return threads.maximum - total


MPM = Mpm("worker", "worker.c", "yes (fixed thread count)", "yes (variable process count)", "AH00292",
          spare.count_at_start, decide_children, decide_threads)
