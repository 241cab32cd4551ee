"""Messages between the dispatcher and one child, on a SOCK_SEQPACKET pair that both got at the fork.

Every message is the same eight bytes, then nothing: u8 kind, u8 zero, u16 small, u32 number. Descriptors travel as
SCM_RIGHTS. The child sends kinds with an odd number, the dispatcher even ones; anything else ends the peer.
The end of the stream tells the child that the dispatcher is gone: it ends at once.
Runs as: dispatcher and child.  Distrusts: whatever the child sends (kind and clamped counts are all that is used).
"""

from __future__ import annotations

import array
import socket
import struct
from dataclasses import dataclass

MSG_READY = 1  # child -> dispatcher: serving. number = pid as it sees itself (for the log only)
MSG_LOAD = 3  # child -> dispatcher: small = idle threads, number = busy threads; when it changes, at most ten a second
MSG_IDLE = 5  # child -> dispatcher: takes nothing any more, ends when it has finished what it has
MSG_ASK_BOARD = 7  # child -> dispatcher: asks for a board (wire/board.py) of what it may see
MSG_ROUTE = 2  # dispatcher -> child: one descriptor, the new route table; number = generation
MSG_INBOX = 4  # dispatcher -> child: one descriptor, the write end of identity `number`'s inbox; none = forget it
MSG_REOPEN = 6  # dispatcher -> child: descriptors of the log files it opens for this child, in LOG_FILE order; small = last part
MSG_DRAIN = 8  # dispatcher -> child: let go of listeners and inbox, finish what is there, end
MSG_TICKETS = 10  # dispatcher -> child: one descriptor, its identity's new keys of session tickets
MSG_BOARD = 12  # dispatcher -> child: one descriptor, the board it asked for; none = there is none now

FORMAT = struct.Struct("<BBHI")
MAX_FDS = 64  # in one message
_FROM_CHILD = frozenset({MSG_READY, MSG_LOAD, MSG_IDLE, MSG_ASK_BOARD})


class WireError(Exception):
    """A peer broke the protocol; it is ended."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; the receiver owns `fds`."""

    kind: int
    small: int = 0
    number: int = 0
    fds: tuple[int, ...] = ()


def send_message(sock: socket.socket, message: Message) -> bool:
    """Send without waiting; False if the peer's queue is full or the peer is gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))] if message.fds else []
    try:
        sock.sendmsg([FORMAT.pack(message.kind, 0, message.small, message.number)], rights,
                     socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def decode_from_child(raw: bytes) -> Message:
    """Decode what a child sent.

    Args:
        raw: one whole message; 0..any bytes; not trusted.
    Raises:
        WireError: another length, or a kind that a child does not send.
    """
    if len(raw) != FORMAT.size:
        message = f"control message of {len(raw)} bytes"
        raise WireError(message)
    kind, zero, small, number = FORMAT.unpack(raw)
    if kind not in _FROM_CHILD or zero:
        message = f"control message of kind {kind}"
        raise WireError(message)
    return Message(kind, small, number)
