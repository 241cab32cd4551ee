"""httpd's idle maintenance, which worker and prefork share: keep between MinSpare and MaxSpare idle.

Runs as: dispatcher.  Pure.
Source: httpd 2.4 prefork.c and worker.c, perform_idle_server_maintenance.
"""

from __future__ import annotations

from dataclasses import dataclass

from perchild.mpm.policy import BUSY_RATE, Counts, Decision, Message, Rate, next_rate, say_once, slow_rate
from perchild.wire.plan import Scale


@dataclass(frozen=True, slots=True)
class Words:
    """The messages of one MPM."""

    reached: Message
    near: Message | None  # prefork has none
    full: Message
    busy_code: str
    busy_text: str  # with {start} {idle} {total}


def limit_children(scale: Scale) -> int:
    """Return how many children MaxRequestWorkers and ServerLimit allow, at least one."""
    wanted = scale.max_workers // max(1, scale.threads_per_child)
    return max(1, min(wanted, scale.server_limit))


def count_at_start(scale: Scale) -> int:
    """Return StartServers, within 1..limit."""
    return max(1, min(scale.start_servers, limit_children(scale)))


def decide_spare(scale: Scale, counts: Counts, rate: Rate, words: Words) -> Decision:
    """Decide for one second: end one child, start some, or neither.

    Children that drain occupy their place until they are gone, as in httpd. A server without any child starts one
    whatever the spare settings say.
    """
    if counts.idle > scale.max_spare and counts.live > 1:
        return Decision(end=1, rate=slow_rate(rate))
    if counts.idle >= scale.min_spare and counts.live > 0:
        return Decision(rate=slow_rate(rate))
    room = limit_children(scale) - counts.live - counts.draining
    if room <= 0:
        memory, messages = say_once(rate, *_explain_full(scale, counts, words))
        return Decision(rate=slow_rate(memory), messages=messages)
    start = min(room, rate.spawn)
    text = words.busy_text.format(start=start, idle=counts.idle, total=counts.live + counts.draining)
    messages = (Message("info", words.busy_code, text),) if rate.spawn >= BUSY_RATE else ()
    return Decision(start=start, rate=next_rate(rate), messages=messages)


def _explain_full(scale: Scale, counts: Counts, words: Words) -> tuple[Message, ...]:
    places = limit_children(scale) * max(1, scale.threads_per_child)
    if counts.live * max(1, scale.threads_per_child) < places:
        return (words.full,)
    if counts.idle == 0 or words.near is None:
        return (words.reached,)
    return (words.near,)
