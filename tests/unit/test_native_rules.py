"""Rules of the C in native/ that a machine can check: calls that are not made, sizes, the lines each file begins with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
SOURCES = sorted(NATIVE.glob("*.c"))
MAX_FILE_LINES = 800
MAX_FUNCTION_LINES = 100
MAX_COLUMNS = 140  # 100 is the aim

FORBIDDEN = {
    **dict.fromkeys(("strcpy", "strcat", "sprintf", "vsprintf", "gets", "strtok"), "no bound: snprintf, or memcpy with its bound beside it"),
    **dict.fromkeys(("atoi", "atol", "atoll", "sscanf"), "no errors: pc_parse_u64"),
    **dict.fromkeys(("system", "popen", "execl", "execlp", "execle", "execv", "execvp", "execve", "fexecve", "posix_spawn"),
                    "a child never executes anything"),
    "dup": "not CLOEXEC at birth: dup3 or F_DUPFD_CLOEXEC",
    **dict.fromkeys(("accept", "pipe", "epoll_create", "inotify_init"), "not CLOEXEC at birth: its successor with flags"),
    **dict.fromkeys(("alloca", "longjmp", "setjmp", "signalfd4", "tmpnam", "mktemp"), "not used here"),
    **dict.fromkeys(("localtime", "gmtime", "asctime", "ctime", "strerror", "readdir_r", "inet_ntoa", "gethostbyname"),
                    "shared state between threads"),
}

# Calls that only some files may make: the name's pattern, and who needs it for what.
OWNED = {
    r"set(?:res|re|e)?[ug]id|setgroups|initgroups|setfsuid|setfsgid|capset|chroot|unshare|setns": {"drop.c", "restrict.c"},
    r"open|openat|openat2|creat|fopen|opendir|fdopendir": {
        "file.c", "listing.c", "log.c", "drop.c", "nursery.c",  # nursery.c: /dev/null
        "keys.c",  # TLS keys, as the tenant
        "page.c",  # what the system says of this process
        "spool.c",  # a file without a name, as the tenant
        "runexec.c"},  # the program, and the directories on the way to it
    r"getenv|secure_getenv|setenv|unsetenv|putenv": {"drop.c"},  # TZ, so that no file is looked for later
    r"dup2": {"drop.c", "nursery.c", "runexec.c"},  # onto 0, 1 and 2
    r"fchmod": {"log.c"},  # a log that it has just made
    r"unlink|unlinkat|rename|renameat|renameat2|mkdir|mkdirat|rmdir|link|symlink|chmod|chown|fchown|lchown|truncate|mknod":
        set(),
    r"fork|vfork|clone|clone3": {"spawn.c", "nursery.c", "runexec.c"},
    r"mount|umount2?|pivot_root": {"runner.c"},
    r"sendmsg": {"hand.c", "job.c", "nursery.c", "spawn.c"},
    r"recvmsg": {"hand.c", "main.c", "nursery.c", "spawn.c"},
    r"kill|tgkill|pthread_kill|pthread_cancel": set(),
    r"socketpair": {"nursery.c", "dial.c"},  # dial.c: the runner's answer to WAKE
    r"socket|connect": {"dial.c", "knock.c"},  # where the configuration says, as the tenant
    r"bind|listen": set(),
    r"accept4": {"accept.c"},
}

HEADER_WORDS = ("Runs as:", "Before:", "After:")


def bare(text: str) -> str:
    """Return C without comments and without what strings hold; lines stay where they are."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return "\n" * found.count("\n") if found.startswith("/") else found[0] + found[-1]

    return pattern.sub(blank, text)


def calls(text: str, names: str) -> list[tuple[int, str]]:
    """Return (line number, name) of each call of a function whose whole name fits `names`; members and declarations of ours apart."""
    found = []
    for number, line in enumerate(bare(text).split("\n"), 1):
        for match in re.finditer(rf"(?<![\w.>])({names})\s*\(", line):
            if not line.startswith(match.group(1)):  # column 0 is a definition
                found.append((number, match.group(1)))
    return found


def functions(text: str) -> list[tuple[str, int]]:
    """Return (name, lines from its name to its closing brace) of every function: the name stands at column 0."""
    lines = bare(text).split("\n")
    found = []
    start: tuple[str, int] | None = None
    for number, line in enumerate(lines):
        match = re.match(r"(\w+)\(", line)
        if match:
            start = (match.group(1), number)
        elif line == "}" and start:
            found.append((start[0], number - start[1] + 1))
            start = None
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_call_that_has_a_safer_successor(path: Path) -> None:
    """No file calls what FORBIDDEN lists."""
    found = [f"{path.name}:{line}: {name}: {FORBIDDEN[name]}" for line, name in calls(path.read_text(), "|".join(FORBIDDEN))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_calls_with_an_owner_are_made_by_their_owner(path: Path) -> None:
    """Ids, paths, processes and descriptors are made only by the files that OWNED names."""
    found = [f"{path.name}:{line}: {name} belongs to {sorted(owners) or 'nobody'}"
             for names, owners in OWNED.items() if path.name not in owners for line, name in calls(path.read_text(), names)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_files_and_functions_can_be_read_in_one_go(path: Path) -> None:
    """A file has at most MAX_FILE_LINES lines, a function MAX_FUNCTION_LINES, a line MAX_COLUMNS columns."""
    text = path.read_text()
    lines = text.split("\n")
    assert len(lines) <= MAX_FILE_LINES, f"{path.name}: {len(lines)} lines"
    found = [f"{path.name}: {name}: {size} lines" for name, size in functions(text) if size > MAX_FUNCTION_LINES]
    found += [f"{path.name}:{number}: {len(line)} columns" for number, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_each_file_says_who_runs_it_and_what_lies_around_it(path: Path) -> None:
    """A file begins with its own name, then says as whom it runs, what comes before it and what after."""
    text = path.read_text()
    head = text[: text.index("*/")]
    assert head.startswith(f"/* {path.name} - "), f"{path.name}: its first line does not name it"
    missing = [word for word in HEADER_WORDS if word not in head]
    assert not missing, f"{path.name}: its header lacks {missing}"


def test_the_rules_see_what_they_forbid() -> None:
    """Calls, sizes and comments are told apart: the checks above can fail."""
    text = '/* strcpy(a, b) */\nint\nf(void)\n{\n    x->open(1); "system(x)"; my_dup(2);\n    dup(3); strcpy (a, b);\n}\n'
    assert calls(text, "|".join(FORBIDDEN)) == [(6, "dup"), (6, "strcpy")]
    assert calls(text, "open") == []
    assert functions(text) == [("f", 5)]
