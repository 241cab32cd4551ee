"""The dispatcher's loop: an event belongs to whoever watched when it came, not to whoever has the number now."""

from __future__ import annotations

import os

from perchild.dispatcher.loop import READ, Loop


def test_an_event_does_not_reach_a_later_owner_of_the_number() -> None:
    """One callback closes another's descriptor, and watches a new one that got its number: the event of the old one is nobody's."""
    loop, called = Loop(), []
    pipes = [os.pipe() for _ in range(2)]
    fresh: list[int] = []

    def take_over(mine: int, other: int) -> None:
        called.append("old")
        if fresh:
            return
        loop.forget(other)
        os.close(other)
        reader, writer = os.pipe()
        fresh.extend((reader, writer))
        assert reader == other, "the kernel gives the lowest free number"
        loop.watch(reader, READ, lambda _events: called.append("new"))
        loop.forget(mine)

    try:
        for index, (reader, writer) in enumerate(pipes):
            other = pipes[1 - index][0]
            loop.watch(reader, READ, lambda _events, reader=reader, other=other: take_over(reader, other))
            os.write(writer, b"x")
        loop.run_once(5)
        assert called == ["old"], "the new pipe is empty"
        os.write(fresh[1], b"x")
        loop.run_once(5)
        assert called == ["old", "new"], "from the next round on it is watched as any other"
    finally:
        loop.close()
        for fd in {fd for pair in pipes for fd in pair} | set(fresh):
            os.close(fd)
