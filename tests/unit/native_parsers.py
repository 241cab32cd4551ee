"""The native parsers and the HTTP/1 corpus, for tests: a driver process, built with ASan and UBSan once per run.

Runs as: the developer (pytest).
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TESTS = Path(__file__).resolve().parent.parent
NATIVE = TESTS.parent / "native"
DRIVER = TESTS / "native" / "parse_driver.c"
CORPUS = TESTS / "corpus" / "http1"

ERRORS = {
    "bad": -1,
    "uri_long": -2,
    "head_large": -3,
    "version": -4,
    "unknown": -5,
    "expect": -7,
}
WHOLE, BYTEWISE = 0, 1
NO_BODY = -99


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the corpus: its bytes and what the table beside them says."""

    name: str
    raw: bytes
    head: str
    body: str | None
    status: tuple[int, ...]
    then: tuple[int, ...]
    close: bool | None
    after: tuple[str, ...]
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the driver said: results as in pc.h, and the parts of an accepted head."""

    head: int
    peek: int
    words: dict[str, str]
    fields: tuple[tuple[bytes, bytes], ...]

    def text(self, word: str) -> bytes:
        """The bytes of a word that the driver wrote in hexadecimal; b"" if it is absent."""
        return bytes.fromhex(self.words.get(word, ""))

    def number(self, word: str) -> int:
        """The number of a word."""
        return int(self.words[word])


def load_corpus() -> tuple[Case, ...]:
    """All cases of tests/corpus/http1, by name; a missing half or key raises."""
    return tuple(_load_case(path) for path in sorted(CORPUS.glob("*.http")))


def _load_case(path: Path) -> Case:
    table = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    status = table["status"]
    return Case(
        name=path.stem,
        raw=path.read_bytes(),
        head=table["head"],
        body=table.get("body"),
        status=tuple(status) if isinstance(status, list) else (status,),
        then=tuple(table.get("then", ())),
        close=table.get("close"),
        after=tuple(entry["text"] for entry in table.get("after", ())),
        source=table["source"],
        reason=table["reason"],
    )


def build_driver(directory: Path) -> Path:
    """Compile the driver into `directory`; raises with the compiler's words if it does not."""
    compiler = shutil.which("clang") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("no C compiler: install clang or gcc")
    named = re.search(r"^/\* sources: (.*) \*/$", DRIVER.read_text(encoding="utf-8"), re.MULTILINE)
    if named is None:
        raise RuntimeError(f"{DRIVER} names no sources")
    target = directory / "parse_driver"
    flags = ["-std=gnu17", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [str(NATIVE / name) for name in named[1].split()]
    command = [compiler, *flags, "-idirafter", str(NATIVE), "-o", str(target), str(DRIVER), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return target


class Driver:
    """The running driver; use as a context manager."""

    def __init__(self, program: Path) -> None:
        """Start it."""
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; a sanitizer's report makes its status, and so the test, fail."""
        self._process.communicate()
        assert self._process.returncode == 0

    def parse(self, raw: bytes, split: int = WHOLE) -> Parsed:
        """Parse `raw` in the pieces that `split` says (0 whole, 1 bytewise, else a seed)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(struct.pack("<II", len(raw), split) + raw)
        self._process.stdin.flush()
        line = self._process.stdout.readline().decode("ascii")
        assert line.endswith("\n"), f"the driver died of {raw!r}"
        pairs = [word.partition("=")[::2] for word in line.split()]
        fields = tuple(_field(value) for name, value in pairs if name == "field")
        words = {name: value for name, value in pairs if name != "field"}
        return Parsed(int(words["head"]), int(words["peek"]), words, fields)


def _field(value: str) -> tuple[bytes, bytes]:
    name, _, content = value.partition(":")
    return bytes.fromhex(name), bytes.fromhex(content)
