"""pc_serve on real files, for tests: records are built, a driver process (ASan, UBSan) answers requests from them.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from perchild.wire import record, route
from perchild.wire.types import build_types

TESTS = Path(__file__).resolve().parents[2]
NATIVE = TESTS.parent / "native"
DRIVER = TESTS / "native" / "serve_driver.c"

SERVED, ASK, BLOCKS, GATE = 0, 1, 2, 3
ASK_HOSTNAME, ASK_POLICY, ASK_HANDLER = 1, 2, 3
DIRECTORY, DIRECTORY_MATCH, FILES, FILES_MATCH, LOCATION, LOCATION_MATCH = range(6)
OLD_S = 1_600_000_000  # a time at which no test file is "just written"
TYPES = {"html": "text/html", "txt": "text/plain", "png": "image/png", "gz": "application/gzip"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the driver said of one request: who serves it, the request's members, and the response if there is one."""

    served: int
    ask: int
    words: Mapping[str, bytes]
    env: Mapping[str, str]
    edits: Mapping[str, str | None]
    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str | None:
        """The only response field called `name`; None if there is none."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "surrogateescape")


@dataclass(slots=True)
class Host:
    """One host of a record: settings outside sections, sections and aliases, each as the bytes of its items."""

    root: Path
    settings: tuple[bytes, ...] = ()
    sections: tuple[bytes, ...] = ()
    aliases: tuple[bytes, ...] = ()
    name: str = "www.example.org"
    level: int = 7
    extra: tuple[bytes, ...] = field(default_factory=tuple)


def literal(text: str) -> bytes:
    """FORMAT operations for a text without variables."""
    raw = text.encode()
    return struct.pack("<BBH", record.FORMAT_OPS["literal"], 0, len(raw)) + raw


def node(kind: str, payload: bytes = b"", *, negate: bool = False) -> bytes:
    """One ACCESS node."""
    return struct.pack("<BBH", record.ACCESS_KINDS[kind], int(negate), len(payload)) + payload


def require(*nodes: bytes, kind: str = "any") -> bytes:
    """A Require tree around `nodes`."""
    return record.item("REQUIRE", node(kind, b"".join(nodes)))


DENIED = require(node("denied"))
GRANTED = require(node("granted"))


def section(kind: int, pattern: str, *settings: bytes, inner: tuple[bytes, ...] = ()) -> bytes:
    """One SECTION item."""
    return record.item("SECTION", section_items(kind, pattern, *settings) + b"".join(inner))


def section_items(kind: int, pattern: str, *settings: bytes) -> bytes:
    """A section's items without their box."""
    return (record.u32s("SECTION_KIND", kind) + record.text("SECTION_PATTERN", pattern)
            + record.item("SECTION_SETTINGS", b"".join(settings)))


def inner(kind: int, pattern: str, *settings: bytes) -> bytes:
    """A Files or FilesMatch inside a Directory."""
    return record.item("SECTION_INNER", section_items(kind, pattern, *settings))


def alias(source: str, target: Path | str, kind: int = 0) -> bytes:
    """One ALIAS item; kind 1 = AliasMatch."""
    return record.item("ALIAS", record.u32s("ALIAS_KIND", kind) + record.text("ALIAS_FROM", source)
                       + record.text("ALIAS_TO", str(target)))


def redirect(status: int, kind: int, source: str, target: str | None = None) -> bytes:
    """One REDIRECT item; kind 0 prefix, 1 pattern, 2 everything in its section."""
    texts = [source] if target is None else [source, target]
    return record.item("REDIRECT", record.u32s("VALUE_U32S", status, kind)
                       + b"".join(record.text("VALUE_STR", one) for one in texts))


def error_document(status: int, kind: int, value: str = "") -> bytes:
    """One ERROR_DOCUMENT item; kind 0 text, 1 local path, 2 URL, 3 default."""
    return record.item("ERROR_DOCUMENT", record.u32s("VALUE_U32S", status, kind) + record.text("VALUE_STR", value))


def header(action: str, name: str, value: str = "", *, always: bool = False, pattern: str | None = None,
           env: str | None = None, every: bool = False, item: str = "HEADER") -> bytes:
    """One HEADER or REQUEST_HEADER item."""
    parts = record.u32s("HEADER_ACTION", record.HEADER_ACTIONS[action], int(always), int(every))
    parts += record.text("HEADER_NAME", name) + record.item("HEADER_VALUE", literal(value))
    if pattern is not None:
        parts += record.text("HEADER_PATTERN", pattern)
    if env is not None:
        parts += record.text("HEADER_ENV", env)
    return record.item(item, parts)


def options(*names: str) -> bytes:
    """Options, absolute."""
    return record.u32s("OPTIONS", 1, sum(record.OPTION_BITS[name.lower()] for name in names), 0)


def build_record(host: Host, log: Path) -> bytes:
    """A whole record with one host, one listener and one error log."""
    box = record.text("NAME", host.name) + record.u32s("PORT", 0) + record.text("ADMIN", "root@example.org")
    box += record.text("DOCUMENT_ROOT", str(host.root))
    box += record.u32s("TIMES", 60000, 5000, 20000, 40000, 20000, 0, 500, 500)
    box += record.u32s("KEEP_ALIVE", 1, 100, 0) + record.u32s("LIMITS", 8190, 8190, 100)
    box += record.u32s("ERROR_LOG", 0, host.level) + record.item("BASE", b"".join(host.settings))
    box += b"".join(host.sections) + b"".join(host.aliases) + b"".join(host.extra)
    address = route.Address(0, b"", 0, default=0, names={host.name: 0})
    return (record.u32s("VERSION", record.VERSION) + record.u32s("IDENTITY", 1, 1000, 1000)
            + record.item("ROUTE", route.build_table([address])) + record.text("SERVER_TOKENS", "perchildd")
            + record.item("LOG_FILE", record.text("FILE_PATH", str(log)) + record.u32s("FILE_OPENER", 0))
            + record.u32s("SCALE", 1, 1, 2, 4, 100, 0) + record.item("HOST", box))


def build_driver(directory: Path) -> Path:
    """Compile the driver into `directory`; raises with the compiler's words if it does not."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("no C compiler: install clang or gcc")
    text = DRIVER.read_text(encoding="utf-8")
    names = " ".join(re.findall(r"^/\* sources: (.*) \*/$", text, re.MULTILINE)).split()
    libs = " ".join(re.findall(r"^/\* libs: (.*) \*/$", text, re.MULTILINE)).split()
    target = directory / "serve_driver"
    flags = ["-std=gnu17", "-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, *flags, "-I", str(NATIVE), "-o", str(target), str(DRIVER), *(str(NATIVE / one) for one in names), *libs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return target


class Server:
    """The running driver, loaded with one record."""

    def __init__(self, program: Path, host: Host, work: Path) -> None:
        """Write the record into `work` and start."""
        self.log = work / "error.log"
        (work / "record").write_bytes(build_record(host, self.log))
        (work / "types").write_bytes(build_types(TYPES))
        self._process = subprocess.Popen([program, work / "record", work / "types"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)

    @property
    def log_text(self) -> str:
        """The error log so far; it is written line by line."""
        return self.log.read_text(encoding="utf-8")

    def close(self) -> None:
        """End it; a sanitizer's report makes its status, and so the test, fail."""
        self._process.communicate()
        assert self._process.returncode == 0

    def get(self, target: str, *fields: str, method: str = "GET", host: str = "www.example.org", **words: object) -> Answer:
        """Ask for `target`; words are the driver's (flags, client, answer, ask, error, again, ago)."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
        raw = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
        order = "".join(f"{name} {value}\n" for name, value in words.items()) + "\n"
        request = order.encode() + raw
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(struct.pack("<I", len(request)) + request)
        self._process.stdin.flush()
        head = self._process.stdout.read(4)
        assert len(head) == 4, f"the driver died of {raw!r}: {head!r}"
        return _parse(self._process.stdout.read(struct.unpack("<I", head)[0]))


@contextmanager
def serving(program: Path, host: Host, work: Path) -> Iterator[Server]:
    """A server for the length of a with block."""
    server = Server(program, host, work)
    try:
        yield server
    finally:
        server.close()


def _parse(raw: bytes) -> Answer:
    line, _, response = raw.partition(b"\n")
    pairs = [word.partition("=")[::2] for word in line.decode("ascii").split()]
    words = {name: bytes.fromhex(value) for name, value in pairs if name in {"path", "filename", "path_info", "handler"}}
    env, edits = _listed(pairs, "env"), dict[str, str | None](_listed(pairs, "in"))
    edits.update(dict.fromkeys(_listed(pairs, "in_unset")))
    numbers = dict(pairs)
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    fields = tuple((name, value) for name, _, value in (one.partition(": ") for one in lines[1:]))
    status = int(lines[0].split(" ")[1]) if lines[0] else 0
    return Answer(int(numbers["served"]), int(numbers["ask"]), words, env, edits, status, fields, body)


def _listed(pairs: list[tuple[str, str]], name: str) -> dict[str, str]:
    found = pairwise(pairs)
    return {bytes.fromhex(one[1]).decode(): bytes.fromhex(two[1]).decode() for one, two in found if one[0] == name}


Start = Callable[..., Server]
