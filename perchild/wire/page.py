"""A child's page: its counters, its slot table, its hosts' counters, in a memfd that the child writes and its readers get copies of.

No pid, pointer or size is in it, and the dispatcher's decisions never depend on it. When a child has ended, its page goes to the
next child of the same identity: what is counted goes on, what is a state (GAUGES, slots) begins anew.
    u64 magic "PCPAGE02", u64 counters[64], u64 latencies[128], u32 slot count, u32 zero, then 1024 slots of
    i32 value, u32 changes, i32 history[8] (history[changes % 8] is the next to be written), then 512 hosts of
    u64 responses[5] (1xx to 5xx), u64 bytes in, u64 bytes out, u64 duration (us), char name[256] (NUL-terminated; empty: unused)
The last host row, "*", counts what has no row of its own. Latencies are times from a request's first byte to its answer's last:
bucket 16 * D + S holds those from 10^D * LATENCY_STEPS[S] / 10 us on.
`native/page.h` is generated from this file (`python3 -m perchild.wire.page`).
Runs as: any.  Distrusts: the child that wrote it.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = int.from_bytes(b"PCPAGE02", "little")
COUNTERS = (
    "accepted",  # connections taken from a listener
    "handed_out",  # passed to another identity's inbox
    "handed_in",  # received on the inbox and adopted
    "refused",  # hand-offs that broke a rule
    "inbox_full",  # attempts at a full inbox
    "unavailable",  # 503 because an inbox stayed full
    "requests",
    "bytes_in",
    "bytes_out",
    "errors",  # responses with 5xx
    "connections",  # open now
    "parked",  # kept alive and waiting for a request now
    "timeouts",  # connections closed by a deadline
    "paused",  # times that accepting stopped for want of descriptors
    "threads",  # worker threads now
    "idle_threads",
    "led",  # times that leadership changed hands
    "asked",  # requests that Python decided
    "log_lost",  # log lines that could not be written
    "waiting",  # connections held back for a full inbox now
    "misdirected",  # 421 answers
    "carried",  # kept connections passed on with bytes
    "cpu_user_us",
    "cpu_system_us",
    "memory_kb",  # proportional set size, as of at most ten seconds ago; 0 = not known yet
    "tls_handshakes",  # full ones
    "tls_resumed",  # with a ticket
    "tls_failed",  # refused before, broken off, or not finished in time
)
GAUGES = ("connections", "parked", "threads", "idle_threads", "waiting", "memory_kb")  # what is now; the others are counted
COUNTER_ROOM = 64
LATENCY_STEPS = (10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90)  # tenths of a power of ten
LATENCY_DECADES = 8  # 1 us to 100 s
LATENCY_BUCKETS = len(LATENCY_STEPS) * LATENCY_DECADES
SLOT_HISTORY = 8
MAX_SLOTS = 1024
MAX_HOSTS = 512  # rows; what a child serves besides counts in the last one
HOST_CLASSES = 5  # responses by the first digit of their status
HOST_NAME_BYTES = 256
OTHER_HOSTS = "*"
Raw = bytes | memoryview
_HEAD = struct.Struct(f"<Q{COUNTER_ROOM}Q{LATENCY_BUCKETS}QII")
_SLOT = struct.Struct(f"<iI{SLOT_HISTORY}i")
_HOST = struct.Struct(f"<{HOST_CLASSES + 3}Q{HOST_NAME_BYTES}s")
SLOTS_AT = _HEAD.size
_HOSTS_AT = SLOTS_AT + MAX_SLOTS * _SLOT.size
PAGE_BYTES = _HOSTS_AT + MAX_HOSTS * _HOST.size
NONSENSE = 1 << 60  # no counter gets so far: who wrote it lies
_NAME = re.compile(rb"[!-~]{1,255}\Z")  # as a configuration may call a host: printable
THISCHILD = -1
OTHERCHILD = -2


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker thread's slot: value (-1, -2 or a descriptor), how often it changed, its last values, oldest first."""

    value: int
    changes: int
    history: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """What one host has answered: responses by class (1xx to 5xx), bytes, duration of all together (us)."""

    name: str
    responses: tuple[int, ...]
    bytes_in: int
    bytes_out: int
    duration_us: int


@dataclass(frozen=True, slots=True)
class Page:
    """A copy of a page."""

    counters: dict[str, int]
    slots: tuple[Slot, ...]
    latencies: tuple[int, ...] = ()
    hosts: tuple[Host, ...] = ()


def decode_page(raw: Raw) -> Page:
    """Return what `raw` (PAGE_BYTES long) says, every figure clamped; ValueError if it is no page."""
    if len(raw) < PAGE_BYTES:
        message = f"page of {len(raw)} bytes"
        raise ValueError(message)
    magic, *rest = _HEAD.unpack_from(raw)
    if magic != MAGIC:
        message = "not a child's page"
        raise ValueError(message)
    numbers = [number if number < NONSENSE else 0 for number in rest]
    counters = dict(zip(COUNTERS, numbers[:COUNTER_ROOM], strict=False))
    latencies = tuple(numbers[COUNTER_ROOM : COUNTER_ROOM + LATENCY_BUCKETS])
    count = min(rest[COUNTER_ROOM + LATENCY_BUCKETS], MAX_SLOTS)
    slots = tuple(_decode_slot(raw, SLOTS_AT + index * _SLOT.size) for index in range(count))
    return Page(counters, slots, latencies, tuple(_decode_hosts(raw)))


def _decode_hosts(raw: Raw) -> Iterator[Host]:
    """Yield the rows that are in use, which stand one behind the other but for the last, and have a name that a host may have."""
    is_over = False
    for index in range(MAX_HOSTS):
        at = _HOSTS_AT + index * _HOST.size
        if is_over and index < MAX_HOSTS - 1:
            continue
        *numbers, name = _HOST.unpack_from(raw, at)
        name = name.split(b"\0", 1)[0]
        is_over = is_over or not name
        if _NAME.match(name):
            numbers = [number if number < NONSENSE else 0 for number in numbers]
            yield Host(name.decode("ascii"), tuple(numbers[:HOST_CLASSES]), *numbers[HOST_CLASSES:])


def latency_bounds_us() -> tuple[float, ...]:
    """Return where each bucket begins, us; the first holds what is shorter as well, the last what is longer."""
    return tuple(10**decade * step / 10 for decade in range(LATENCY_DECADES) for step in LATENCY_STEPS)


def _decode_slot(raw: Raw, at: int) -> Slot:
    value, changes, *history = _SLOT.unpack_from(raw, at)
    known = min(changes, SLOT_HISTORY)
    return Slot(value, changes, tuple(history[(changes - known + step) % SLOT_HISTORY] for step in range(known)))


def _render_steps() -> list[str]:
    steps = [sum(step <= tenths for step in LATENCY_STEPS) - 1 for tenths in range(10, 100)]
    return [f"        {', '.join(map(str, steps[at : at + 10]))}, \\" for at in range(0, 90, 10)]


def render_header() -> str:
    """Return the text of native/page.h."""
    lines = ["/* page.h - generated by perchild/wire/page.py; do not edit. */", "#ifndef PC_PAGE_H", "#define PC_PAGE_H", "",
             f"#define PC_PAGE_MAGIC 0x{MAGIC:016X}ull", f"#define PC_COUNTER_ROOM {COUNTER_ROOM}",
             f"#define PC_PAGE_BYTES {PAGE_BYTES}", f"#define PC_PAGE_SLOTS {MAX_SLOTS}", f"#define PC_PAGE_HOSTS {MAX_HOSTS}",
             f"#define PC_HOST_CLASSES {HOST_CLASSES}", f"#define PC_HOST_NAME_BYTES {HOST_NAME_BYTES}",
             f'#define PC_OTHER_HOSTS "{OTHER_HOSTS}"', f"#define PC_LATENCY_DECADES {LATENCY_DECADES}",
             f"#define PC_LATENCY_STEPS {len(LATENCY_STEPS)}", f"#define PC_LATENCY_BUCKETS {LATENCY_BUCKETS}",
             "/* By a duration's first two digits, 10 to 99: which step of its decade it is in. */",
             "#define PC_LATENCY_STEP_OF \\", "    { \\", *_render_steps(), "    }", "", "enum pc_counter {"]
    lines += [f"    PC_C_{name.upper()}," for name in COUNTERS]
    lines += ["};", "", "/* What is so now, and begins anew with each child. */",
              f"#define PC_GAUGES {{{', '.join(f'PC_C_{name.upper()}' for name in GAUGES)}}}"]
    return "\n".join([*lines, "", f"#define PC_THISCHILD ({THISCHILD})", f"#define PC_OTHERCHILD ({OTHERCHILD})",
                      "", "#endif", ""])


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "native/page.h").write_text(render_header())
