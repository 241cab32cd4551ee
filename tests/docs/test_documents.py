"""Every command and every configuration that the operator's documents show is run, in the documents' order, and says what they say."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perchild import limits
from perchild.cli import USAGE
from perchild.control.command import COMMANDS
from tests.docs import sandbox
from tests.php import PHP_FPM

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("install.md", "first-site.md", "from-mpm-itk.md", "from-nginx.md", "limits.md")
OTHERS = ("troubleshooting.md", "programs.md", "status.md", "directives.md", "architecture.md", "protocol.md", "security.md", "service.md")
_FENCE = re.compile(r"^```(\S*)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
KNOWN = {"sh", "text", "apache", "apache-source", "nginx"}


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a document: its language, what stands behind it, its text, and the line that it begins in."""

    language: str
    argument: str
    text: str
    line: int


def blocks(name: str) -> list[Block]:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return [Block(match.group(1), match.group(2).strip(), match.group(3), page.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(page)]


def script_of(page: list[Block]) -> str:
    """Return a script that writes the files and runs the commands of a document; a mark before each block's output."""
    parts = []
    for block in page:
        if block.language.startswith("apache") and block.argument:
            parts.append(f"mkdir -p $(dirname {block.argument})\ncat > {block.argument} <<'__END__'\n{block.text}__END__\n")
        elif block.language == "sh" and block.argument != "root-of-tree":
            parts.append(f"echo '@@{block.line}'\n{block.text}")
    return "".join(parts) + "echo '@@end'\n"


def expected(page: list[Block]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each block of commands and the lines that the block behind it says it prints, patterns with *."""
    for first, second in itertools.pairwise(page):
        if first.language == "sh" and second.language == "text":
            yield first.line, second.text.splitlines()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and users")
@pytest.mark.skipif(not PHP_FPM, reason="no php-fpm")
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_does_what_it_says(name: str, tmp_path: Path) -> None:
    """Each command succeeds, and prints the lines that are shown, in their order."""
    page = blocks(name)
    said = sandbox.run(script_of(page), tmp_path)
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr
    printed = {int(mark): text.splitlines() for mark, text in re.findall(r"^@@(\d+)\n(.*?)(?=^@@)", said.stdout, re.MULTILINE | re.DOTALL)}
    for line, wanted in expected(page):
        rest = iter(printed[line])
        for pattern in wanted:
            literal = re.sub(r"([\[\]?])", r"[\1]", pattern)
            assert any(fnmatch.fnmatchcase(one, literal) for one in rest), f"{name}:{line}: {pattern!r} is not in:\n" + "\n".join(printed[line])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_of_a_kind_that_is_run(name: str) -> None:
    """No block slips through: its language is known, and a configuration has a file to stand in."""
    for block in blocks(name):
        assert block.language in KNOWN, f"{name}:{block.line}"
        if block.language.startswith("apache"):
            assert block.argument.startswith("/etc/"), f"{name}:{block.line}: where is it written to?"
        if block.language == "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
            assert block.argument in {"", "root-of-tree"}


def test_blocks_of_the_tree_are_right() -> None:
    """What is not run here names packages that packaging/lib.sh knows, and files that are there."""
    text = "".join(block.text for block in blocks("install.md") if block.argument == "root-of-tree")
    library = (ROOT / "packaging/lib.sh").read_text()
    packages = re.search(r"apt-get install (.*)", text).group(1).split()
    assert [one for one in packages if not re.search(rf"\b{re.escape(one)}\b", library)] == []
    for file in re.findall(r"\b(?:native|conf)/[\w./-]+\w", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("name", [*DOCUMENTS, *OTHERS])
def test_links_lead_to_pages_that_are_there(name: str) -> None:
    """Links between documents."""
    text = _FENCE.sub("", (ROOT / "docs" / name).read_text(encoding="utf-8"))
    missing = [target for target in _LINK.findall(text) if "://" not in target and not (ROOT / "docs" / target).exists()]
    assert missing == []


def test_numbers_of_limits_are_the_sources() -> None:
    """docs/limits.md's table of constants."""
    rows = re.findall(r"^\| `([A-Z_0-9]+)` \| (\d+) \|", (ROOT / "docs/limits.md").read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for name, number in rows:
        assert limits.value(name) == int(number), name


def test_commands_that_the_tables_show_exist() -> None:
    """perchildctl's words and perchildd's options in the text, too, are those of the programs."""
    known = {one.name for one in COMMANDS}
    for name in (*DOCUMENTS, "troubleshooting.md"):
        text = (ROOT / "docs" / name).read_text()
        assert set(re.findall(r"\bperchildctl ([a-z][a-z-]+)", text)) <= known, name
        for action in re.findall(r"\bperchildd (?:-d \S+ )?-k ([a-z-]+)", text):
            assert action in USAGE, f"{name}: -k {action}"
