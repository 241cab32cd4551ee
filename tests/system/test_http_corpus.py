"""The corpus tests/corpus/http1 on the wire: every case against a running server, whole, byte by byte and in random pieces.

The host belongs to a tenant that AssignUserID alone names, so each connection is peeked at under one uid, handed over and
parsed under another (AcceptScope unassigned); or tenants' children listen too (any), and any of them may accept it. Each connection comes from a client address of its own, by
which its lines in the access log are found.
Runs as: root, which starts the server.  Source: security.md 6.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from native_parsers import Case, load_corpus

from tests.lab import Lab, wait_until
from tests.system.wire import Client, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

CASES = load_corpus()
SHORT = 400  # longer ones are sent in three pieces instead of byte by byte
PROBE = b"GET /probe.txt HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n"
LOG = 'LogFormat "%a %>s \\"%r\\"" wire\nCustomLog log/wire.log wire\n'
REQUEST_LINE = re.compile(rb"(?:^|(?<=\n))(?:HEAD|GET) /(?!smuggled).*")


def make_lab(scope: str, config: str = "", **more: str) -> Lab:
    """Return the server that the corpus speaks of, not started."""
    lab = Lab(LOG + config, names=("example", "other"), accept_scope=scope, **more)
    if scope == "any":  # tenants' children listen too: a connection meets its own child, another's, or nobody's
        fixed = [f"ChildPerUserID #{one.uid} #{one.uid} {number}\n" for number, one in enumerate(lab.tenants.values(), 1)]
        lab.config += "NumServers 3\n" + "".join(fixed)
    tenant = lab.tenants["example"]
    tenant.write("file.txt", bytes(range(32, 122)) * 11 + b"0123456789")
    tenant.write("probe.txt", "probe\n")
    (tenant.docroot / "dir").mkdir(mode=0o755)
    os.chown(tenant.docroot / "dir", tenant.uid, tenant.uid)
    return lab


@pytest.fixture(scope="module", params=["unassigned", "any", "programs"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A running server, for each AcceptScope; and with programs, where a body is left unread until it is known who wants it."""
    is_plain = request.param != "programs"
    with make_lab(request.param) if is_plain else make_lab("unassigned", "AddHandler cgi-script .cgi\n") as one:
        yield one.start()


def whole(raw: bytes) -> list[bytes]:
    """One send."""
    return [raw]


def bytewise(raw: bytes) -> list[bytes]:
    """One send for each byte, or three for all of a long one."""
    if len(raw) <= SHORT:
        return [raw[at:at + 1] for at in range(len(raw))]
    third = len(raw) // 3
    return [raw[:third], raw[third:2 * third], raw[2 * third:]]


def in_pieces(raw: bytes) -> list[bytes]:
    """Pieces of random sizes, the same in each run."""
    dice = random.Random(len(raw))
    pieces = []
    while raw:
        size = dice.randint(1, max(2, len(raw) // 3))
        pieces.append(raw[:size])
        raw = raw[size:]
    return pieces


def answers_of(conn: Client, raw: bytes) -> list[int]:
    """Statuses of all final answers until the server ends the connection."""
    methods = [line.split(b" ")[0].decode() for line in REQUEST_LINE.findall(raw)] if b"HEAD " in raw else []
    statuses: list[int] = []
    while answer := conn.read(methods[len(statuses)] if len(statuses) < len(methods) else "GET"):
        if answer.status >= 200:
            statuses.append(answer.status)
    return statuses


def replay(lab: Lab, case: Case, source: str, split: Callable[[bytes], list[bytes]]) -> str:
    """Send one case and say what is wrong; "" if nothing is."""
    want = [case.status, *[(status,) for status in case.then]]
    with client(lab, source=source) as conn:
        for piece in split(case.raw):
            conn.send(piece)
        if case.close is not True:
            conn.send(PROBE)
        try:
            got = answers_of(conn, case.raw)
        except TimeoutError:
            return f"{case.name}: the connection stays open (buffer {conn.buffer[:80]!r})"
    if case.close is False or (case.close is None and len(got) > len(want)):
        want.append((200,))
    if len(got) == len(want) and all(one in allowed for one, allowed in zip(got, want, strict=True)):
        return ""
    return f"{case.name}: answers {got}, not {want} ({case.reason})"


@pytest.mark.parametrize("split", [whole, bytewise, in_pieces], ids=lambda split: split.__name__)
def test_every_case_is_answered_as_listed(lab: Lab, split: Callable[[bytes], list[bytes]]) -> None:
    """Statuses, their number and the connection's end are those of the table; what hides behind is never a request."""
    block = {"whole": 1, "bytewise": 2, "in_pieces": 3}[split.__name__]
    sources = {f"127.{block}.{number // 200 + 1}.{number % 200 + 1}": case for number, case in enumerate(CASES)}
    before = set(lab.children())
    with ThreadPoolExecutor(8) as pool:
        wrong = [text for text in pool.map(lambda pair: replay(lab, pair[1], pair[0], split), sources.items()) if text]
    assert not wrong, "\n".join(wrong)
    for number, name in enumerate(lab.tenants, 1):  # each child writes the lines of its own requests in their order
        last = f"127.{block}.99.{number}"
        with client(lab, source=last) as conn:
            assert conn.ask(get(f"{name}.test")).body == f"{name}\n".encode()
        wait_until(lambda last=last: f"{last} " in (lab.log / "wire.log").read_text(errors="replace"), f"{name}'s lines are written")
    assert smuggled((lab.log / "wire.log").read_text(errors="replace"), sources) == []
    assert {"exit signal", "AddressSanitizer"} & set(re.findall("exit signal|AddressSanitizer", lab.error_log())) == set()
    assert before <= set(lab.children()), "a child died"


def smuggled(log: str, sources: dict[str, Case]) -> list[str]:
    """Lines of the log that are requests which must never have been any."""
    found = []
    for line in log.splitlines():
        source, _, rest = line.partition(" ")
        case = sources.get(source)
        if case is None or " " not in rest:
            continue
        request = rest.split('"', 1)[1]
        target = request.split(" ")[1] if " " in request else ""
        found += [f"{case.name}: {line}" for text in case.after if text.startswith("/") and target.startswith(text)]
    return found


# ---------------------------------------------------------------- what one case cannot say


def test_thousand_pipelined_requests_are_answered_in_order(lab: Lab) -> None:
    """1000 requests for 50 files in one go: each answer is its file's, in order, on one connection."""
    for number in range(50):
        lab.tenants["example"].write(f"n{number}.txt", f"number {number}\n")
    with client(lab) as conn:
        order = [number * 7 % 50 for number in range(100)]  # MaxKeepAliveRequests is 100
        conn.send(b"".join(get("example.test", f"/n{number}.txt") for number in order))
        got = [answer.body for answer in iter(conn.read, None)]
    assert got == [f"number {number}\n".encode() for number in order]


def test_unlimited_connection_answers_a_thousand_requests_in_order() -> None:
    """MaxKeepAliveRequests 0: 1000 pipelined requests, then one more."""
    with make_lab("unassigned", "MaxKeepAliveRequests 0\n") as lab:
        for number in range(50):
            lab.tenants["example"].write(f"n{number}.txt", f"number {number}\n")
        lab.start()
        with client(lab) as conn:
            order = [number * 7 % 50 for number in range(1000)]
            conn.send(b"".join(get("example.test", f"/n{number}.txt") for number in order))
            got = [conn.read() for _ in order]
            assert [answer and answer.body for answer in got] == [f"number {number}\n".encode() for number in order]
            assert conn.ask(get("example.test", "/probe.txt")).body == b"probe\n"


def test_kept_connection_goes_to_another_tenant_with_its_bytes(lab: Lab) -> None:
    """A second request for another tenant's host, pipelined or not, is served by the other uid; and back again."""
    uids = {name: tenant.uid for name, tenant in lab.tenants.items()}
    with client(lab) as conn:
        for name in ("example", "other", "example"):
            answer = conn.ask(get(f"{name}.test", "/whoami"))
            assert f"uid={uids[name]}".encode() in answer.body.replace(b'": ', b"=").replace(b'"', b""), answer.body
    with client(lab) as conn:
        names = ["example", "other"] * 40
        conn.send(b"".join(get(f"{name}.test") for name in names))
        answers = [conn.read() for _ in names]
        assert [answer and answer.body for answer in answers] == [f"{name}\n".encode() for name in names]


def test_kept_connection_moves_with_a_partial_head_behind(lab: Lab) -> None:
    """The next tenant's request comes in two pieces, cut within Host: still served by its owner."""
    with client(lab) as conn:
        assert conn.ask(get("example.test")).body == b"example\n"
        raw = get("other.test")
        for at in range(1, len(raw) - 1, 5):
            conn.send(raw[:at])
            assert conn.ask(raw[at:]).body == b"other\n"
            assert conn.ask(get("example.test")).body == b"example\n"


def test_scope_identity_answers_421_and_closes() -> None:
    """KeepAliveScope identity: another tenant's host on a kept connection is 421, and what stands behind is not read."""
    with make_lab("unassigned", "KeepAliveScope identity\n") as lab:
        lab.start()
        with client(lab) as conn:
            conn.send(get("example.test") + get("example.test") + get("other.test") + get("example.test", "/smuggled"))
            got = [answer.status for answer in iter(conn.read, None)]
        assert got == [200, 200, 421]
        with client(lab) as conn:
            assert conn.ask(get("other.test")).body == b"other\n"


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("size", [1, 5000, 200_000, 262_144])
def test_body_that_nobody_wants_is_skipped_and_the_next_request_served(lab: Lab, method: str, size: int) -> None:
    """Up to the drain limit the connection is kept, with Content-Length and chunked, and pipelined bytes behind are a request."""
    body = (b"GET /smuggled HTTP/1.1\r\nHost: example.test\r\n\r\n" * (size // 46 + 1))[:size]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[at:at + 9000] for at in range(0, size, 9000))) + b"0\r\n\r\n"
    for fields, raw in ((f"Content-Length: {size}", body), ("Transfer-Encoding: chunked", chunked)):
        with client(lab) as conn:
            first = conn.ask(get("example.test", "/missing", fields, method=method) + raw + get("other.test"))
            assert first.status == 404
            second = conn.read()
            assert second is not None and (second.status, second.body) == (200, b"other\n")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_above_the_drain_limit_is_answered_and_the_connection_ends(lab: Lab, framing: str) -> None:
    """600 KB: an answer, then the end; the bytes behind are no request."""
    body = b"GET /smuggled HTTP/1.1\r\nHost: example.test\r\n\r\n" * 12800
    field = f"Content-Length: {len(body)}"
    if framing == "chunked":
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        field = "Transfer-Encoding: chunked"
    with client(lab) as conn:
        conn.send(get("example.test", "/index.html", field) + body + get("example.test", "/smuggled"))
        got = [answer.status for answer in iter(conn.read, None)]
    assert len(got) == 1
    assert got[0] in {200, 413}


def test_expect_continue_gets_its_final_answer_at_once_and_the_end(lab: Lab) -> None:
    """Nobody here wants a body: a client that waits to be asked is answered without an interim 100, and the connection ends."""
    with client(lab) as conn:
        conn.send(get("example.test", "/", "Expect: 100-continue", "Content-Length: 10"))
        got = [answer.status for answer in iter(conn.read, None)]
    assert got == [200]


def test_foreign_first_name_is_the_first_hosts(lab: Lab) -> None:
    """An unknown name gets the address's first host, as with httpd, on a fresh and on a kept connection."""
    assert lab.get("nobody.test").body == b"example\n"
    with client(lab) as conn:
        assert conn.ask(get("other.test")).body == b"other\n"
        assert conn.ask(get("nobody.test")).body == b"example\n"
