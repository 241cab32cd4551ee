"""What the service manager passes at a start: which inbox is taken again, and what happens to the rest."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from perchild.dispatcher.inbox import close_inbox, make_inbox
from perchild.dispatcher.service import READ_NAME, WRITE_NAME, Given, Service, _short

KEY, OTHER = "1001:1001:", "1002:1002:"


class Notifier:
    """A manager that only listens."""

    socket = None

    def __init__(self) -> None:
        self.said: list[str] = []

    def notify(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def passed() -> Iterator[list[Given]]:
    """Both ends of the inboxes of two identities, as an earlier start left them; whatever is left open is closed."""
    given = []
    for key in (KEY, OTHER):
        box = make_inbox()
        given += [Given(READ_NAME + _short(key), box.read_fd), Given(WRITE_NAME + _short(key), box.write_fd)]
    fds = [one.fd for one in given]
    yield given
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_an_inbox_is_taken_with_what_waits_in_it(passed: list[Given]) -> None:
    """Once, by its own identity; the manager goes on keeping both ends, and the others stay to be taken."""
    os.write(passed[1].fd, b"waits")
    service = Service(Notifier(), room=100, given=list(passed))
    box = service.take_inbox(KEY)
    assert box is not None
    assert (box.read_fd, box.write_fd) == (passed[0].fd, passed[1].fd)
    assert os.read(box.read_fd, 100) == b"waits"
    assert service.kept == {READ_NAME + _short(KEY), WRITE_NAME + _short(KEY)}
    assert service.given == passed[2:]
    assert service.take_inbox(KEY) is None
    assert service.notifier.said == []
    close_inbox(box)


def test_one_end_is_no_inbox(passed: list[Given]) -> None:
    """Nor are two descriptors of another kind under these names: they stay where discard_given finds and closes them."""
    service = Service(Notifier(), given=passed[:1])
    assert service.take_inbox(KEY) is None
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    null_fd = os.open(os.devnull, os.O_RDWR)
    strange = [Given(READ_NAME + _short(KEY), pair[0].fileno()), Given(WRITE_NAME + _short(KEY), pair[1].fileno())]
    for given in (strange, [strange[0], Given(WRITE_NAME + _short(KEY), null_fd)]):
        service = Service(Notifier(), given=list(given))
        assert service.take_inbox(KEY) is None
        assert service.given == given
    os.close(null_fd)
    for one in pair:
        one.close()


def test_an_inbox_that_was_shut_down_is_forgotten(passed: list[Given]) -> None:
    """Its names are for the new one: the manager lets go of the old ends before, and they are closed."""
    with socket.socket(fileno=os.dup(passed[1].fd)) as writer:
        writer.shutdown(socket.SHUT_WR)
    service = Service(Notifier(), room=100, given=list(passed))
    assert service.take_inbox(KEY) is None
    assert service.notifier.said == [f"FDSTOREREMOVE=1\nFDNAME={name}{_short(KEY)}" for name in (READ_NAME, WRITE_NAME)]
    assert not is_open(passed[0].fd)
    assert not is_open(passed[1].fd)
    assert service.given == passed[2:]
    assert service.kept == set()


def test_what_nobody_takes_is_closed_and_named_if_it_is_none_of_ours(passed: list[Given]) -> None:
    """An identity that is gone leaves an inbox behind; somebody's other socket is spoken of."""
    null_fd = os.open(os.devnull, os.O_RDWR)
    service = Service(Notifier(), given=[*passed, Given("theirs", null_fd)])
    assert service.discard_given() == ("theirs",)
    assert service.given == []
    assert not any(is_open(fd) for fd in (*(one.fd for one in passed), null_fd))
    assert len(service.notifier.said) == len(passed) + 1
