"""Clients that are slow, silent, half gone or impolite: each meets its own deadline, and nobody else notices.

Runs as: root, which starts the server.  Source: security.md 6.2 (slow), RFC 9112 9.6 (closing).
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from perchild.control.client import ask_pages
from perchild.limits import value
from tests.boundary import procs
from tests.lab import Lab, read_all, wait_until
from tests.system.wire import Client, client, get

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

CONFIG = """
Timeout 3
KeepAliveTimeout 10
RequestReadTimeout header=1-3,MinRate=100 body=1-3,MinRate=1000
LimitRequestBody 100000
SendBufferSize 65536
"""
LARGE = 50_000_000
PARTIAL = b"GET /index.html HTTP/1.1\r\nHost: alice.test\r\nX-Slow: "
HALF_OPEN = 2000
EARLIEST_S = 0.5  # no limit of one second is over before; how soon behind it that is seen is bench/'s business
MOST_S = 30.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A server with short deadlines; alice has a large file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with Lab(CONFIG, names=("alice", "bob")) as one:
        one.tenants["alice"].write("large", bytes(LARGE))
        yield one.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def counters(lab: Lab, name: str) -> int:
    """Return the sum of one counter over all children."""
    return sum(page.counters[name] for page in ask_pages(str(lab.run), lab.children()).values())


def ask_often(lab: Lab, host: str, count: int) -> list[int]:
    """Return the statuses of so many requests, each on a connection of its own."""
    return [lab.get(host).status for _ in range(count)]


def drip(conn: Client, first: bytes, piece: bytes, pause_s: float, most_s: float) -> float:
    """Send `first`, and `piece` after each pause until the server answers or ends; return how long that took."""
    began, patience_s = time.monotonic(), conn.sock.gettimeout()
    conn.send(first)
    while time.monotonic() - began < most_s:
        conn.sock.settimeout(pause_s)
        with contextlib.suppress(TimeoutError):
            conn.fill()
            conn.sock.settimeout(patience_s)
            return time.monotonic() - began
        conn.send(piece)
    raise AssertionError(f"the server takes it for more than {most_s} s")


# ---------------------------------------------------------------- heads and bodies


@pytest.mark.http1("half a head; half a field block is in tests/native/test_h2.c")
def test_head_that_stops_is_answered_408(lab: Lab) -> None:
    """RequestReadTimeout header=1: half a head gets 408 after about a second, and the end; so on a kept connection."""
    for is_kept in (False, True):
        with client(lab) as conn:
            if is_kept:
                assert conn.ask(get("alice.test")).status == 200
            began = time.monotonic()
            conn.send(PARTIAL)
            answer = conn.read()
            assert answer is not None
            assert (answer.status, answer.fields["connection"]) == (408, "close")
            assert time.monotonic() - began > EARLIEST_S
            assert conn.reads_end()


@pytest.mark.http1("half a head")
def test_head_below_the_rate_ends_in_time_and_above_it_lives_to_the_maximum(lab: Lab) -> None:
    """MinRate=100: 20 bytes/s ends near the first second, 1000 bytes/s lives on, but not beyond the third.

    The first 200 come with the beginning, so that a client that is late with the second does not fall below the rate itself.
    """
    with client(lab) as conn:
        assert drip(conn, PARTIAL, b"x", 0.05, MOST_S) > EARLIEST_S
    with client(lab) as conn:
        assert drip(conn, PARTIAL + b"x" * 200, b"x" * 200, 0.2, MOST_S) > 1 + EARLIEST_S


def test_body_that_stops_is_answered_408(lab: Lab) -> None:
    """RequestReadTimeout body=1: the head is here, the body stops: 408 and the end; and nothing of it is a request."""
    with client(lab) as conn:
        began = time.monotonic()
        conn.send(get("alice.test", "/", "Content-Length: 1000", method="POST") + b"GET /smuggled HTTP/1.1\r\nHost: alice.test\r\n\r\n")
        answer = conn.read()
        assert answer is not None
        assert answer.status == 408
        assert time.monotonic() - began > EARLIEST_S
        assert conn.reads_end()


def test_body_below_the_rate_ends_in_time(lab: Lab) -> None:
    """MinRate=1000: a body of 100 bytes/s ends with 408."""
    with client(lab) as conn:
        assert drip(conn, get("alice.test", "/", "Content-Length: 90000", method="POST"), b"x" * 10, 0.1, MOST_S) > EARLIEST_S
        answer = conn.read()
        assert answer is not None
        assert answer.status == 408


@pytest.mark.http1("a head without a name")
@pytest.mark.plain("the name comes with the handshake; who says none is in test_sni.py")
def test_connection_without_a_name_ends_in_time(lab: Lab) -> None:
    """Silent, and dripping without a Host: both are closed without a word, PEEK_TIMEOUT_MS after they came, and cost nobody anything."""
    limit_s = value("PEEK_TIMEOUT_MS") / 1000
    with Client(("127.0.0.1", lab.port), timeout_s=limit_s + MOST_S) as silent, client(lab) as dripping:
        took = drip(dripping, b"GET / HTTP/1.1\r\n", b"X: y\r\n", 0.25, limit_s + MOST_S)
        assert took > limit_s - 1
        assert dripping.reads_end()
        assert silent.reads_end()


# ---------------------------------------------------------------- readers


def reader(lab: Lab, path: str = "/large") -> socket.socket:
    """Return a connection with a tiny window on which a large file was asked for."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(MOST_S)
    sock.connect(("127.0.0.1", lab.port))
    speaking = lab.speak(sock)
    speaking.sendall(get("alice.test", path))
    return speaking


def test_reader_that_stops_is_closed_and_others_notice_nothing(lab: Lab) -> None:
    """Fifty clients that take no byte of 50 MB: alice and bob serve others while they stand; with Timeout 3 they are closed."""
    with Lab("Timeout 300\nSendBufferSize 65536\n", names=("alice", "bob")) as patient, contextlib.ExitStack() as stack:
        patient.tenants["alice"].write("large", bytes(LARGE))
        patient.start()
        for _ in range(50):
            stack.enter_context(reader(patient))
        wait_until(lambda: counters(patient, "connections") >= 50, "all are being sent to")
        assert {*ask_often(patient, "alice.test", 40), *ask_often(patient, "bob.test", 40)} == {200}
        assert (counters(patient, "timeouts"), counters(patient, "connections") >= 50) == (0, True)
    before = counters(lab, "timeouts")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(reader(lab)) for _ in range(50)]
        wait_until(lambda: counters(lab, "timeouts") - before >= 50, "all were given up")
        with contextlib.suppress(ConnectionResetError):
            assert len(read_all(socks[0])) < LARGE


def test_reader_that_is_slow_but_steady_gets_all(lab: Lab) -> None:
    """A client that takes a little at a time, for longer than Timeout, is not cut off."""
    with client(lab) as conn:
        conn.send(get("alice.test", "/large"))
        got, began = 0, time.monotonic()
        while time.monotonic() - began < 4.5:
            select.select([], [], [], 0.1)
            wanted = got + (1 << 20)
            while got < wanted and (part := conn.sock.recv(1 << 20)):
                got += len(part)
        while got < LARGE and (part := conn.sock.recv(1 << 20)):
            got += len(part)
    assert got >= LARGE


# ---------------------------------------------------------------- closing


@pytest.mark.parametrize(("raw", "status"), [
    (get("alice.test", "/", "Content-Length: 6000000", method="POST"), 413),
    (get("alice.test", "/", "Content-Length: 6000000", "Bad Name: x", method="POST"), 400),
    (get("alice.test", "/", "Transfer-Encoding: chunked", method="POST") + b"5b8d80\r\n", 413),
    (b"NONSENSE\r\n\r\n", 400),
])
@pytest.mark.http1("bytes behind an answer; a stream is reset by a frame")
def test_client_that_sends_on_still_reads_the_answer(lab: Lab, raw: bytes, status: int) -> None:
    """6 MB behind a request that is refused at its head: the client that writes all before it reads gets the whole answer."""
    with client(lab) as conn:
        conn.sock.sendall(raw)
        conn.sock.sendall(b"x" * 6_000_000)  # raises if the server resets
        answer = conn.read()
        assert answer is not None
        assert (answer.status, answer.fields["connection"], answer.body[:9]) == (status, "close", b"<!DOCTYPE")


@pytest.mark.http1("a half-closed connection")
@pytest.mark.plain("Python's ssl cannot end its half alone")
def test_half_closed_client_gets_its_answers(lab: Lab) -> None:
    """A client that shuts its sending side down behind its requests gets all of them answered, then the end."""
    for raw, count in ((get("alice.test"), 1), (get("alice.test") * 3, 3), (get("alice.test") + get("bob.test"), 2),
                       (get("alice.test", "/large"), 1), (b"GET / HTTP/1.0\r\n\r\n", 1)):
        with client(lab) as conn:
            conn.send(raw)
            conn.sock.shutdown(socket.SHUT_WR)
            answers = list(iter(conn.read, None))
        assert [answer.status for answer in answers] == [200] * count


def test_client_that_goes_away_leaves_nothing(lab: Lab) -> None:
    """Clients gone in the middle of a head, of a body, of an answer: no connection stays counted, no child dies."""
    wait_until(lambda: counters(lab, "connections") == 0, "earlier connections have gone")
    pids = lab.children()
    for raw in (b"", b"GET", PARTIAL, get("alice.test", "/", "Content-Length: 1000", method="POST") + b"x", get("alice.test", "/large"),
                get("alice.test") * 20):
        for is_reset in (False, True):
            with client(lab) as conn:
                conn.send(raw)
                if is_reset:
                    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: counters(lab, "connections") == 0, "all are forgotten")
    assert lab.children() == pids


@pytest.mark.http1("half a head")
@pytest.mark.plain("clients that say nothing make no handshake; half a ClientHello is in test_sni.py")
def test_two_thousand_half_open_clients_hinder_nobody(lab: Lab) -> None:
    """1000 clients that said nothing and 1000 with half a head: requests of others are answered, and the tenant's end by its deadline;
    when all are gone nothing is left."""
    wait_until(lambda: counters(lab, "connections") == 0, "earlier connections have gone")
    with contextlib.ExitStack() as stack:
        assert lab.get("alice.test").status == 200
        child, *_ = lab.children(lab.tenants["alice"].uid)
        before = procs.counter(lab, child, "handed_in")
        socks = []
        for number in range(HALF_OPEN // 2):
            stack.enter_context(lab.connect())
            socks.append(stack.enter_context(lab.connect()))
            socks[-1].sendall(PARTIAL)
            if number % 50 == 49:  # no burst beyond what its inbox holds: that would be 503 for this tenant
                wait_until(lambda: procs.counter(lab, child, "handed_in") > before + number, "they were handed over")  # noqa: B023
        results: list[list[int]] = []
        assert lab.get("alice.test").status == 200
        threads = [threading.Thread(target=lambda host=host: results.append(ask_often(lab, host, 150))) for host in ("alice.test", "bob.test")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [[200] * 150] * 2
        assert b" 408 " in socks[0].recv(100)
        assert b" 408 " in socks[-1].recv(100)
    wait_until(lambda: counters(lab, "connections") == 0, "all are forgotten")


# ---------------------------------------------------------------- a server that is slow


STALLED = 100  # clients: more than a child hears of at once (PC_EVENT_BATCH)
KEPT_S = 5  # far longer than as many requests take


@pytest.mark.http1("a session that ends says which of its streams were not seen, and is asked anew")
@pytest.mark.plain("so many handshakes may take longer than KeepAliveTimeout, and it is the same socket")
def test_what_came_in_time_is_answered_by_a_child_that_stood_still() -> None:
    """KeepAliveTimeout is over when it goes on, and each client's next request has been there since before: nobody is closed for that."""
    with Lab(f"KeepAliveTimeout {KEPT_S}\n", names=("alice",)) as lab, contextlib.ExitStack() as stack:
        lab.start()
        raw = get("alice.test", "/index.html")
        clients = [stack.enter_context(client(lab)) for _ in range(STALLED)]
        assert lab.get("alice.test").status == 200
        pid, = lab.children(lab.tenants["alice"].uid)
        for one in clients:
            one.send(raw)
        for one in clients:
            assert one.read() is not None
        os.kill(pid, signal.SIGSTOP)
        for one in clients:
            one.send(raw)
        over_s = time.monotonic() + KEPT_S + 0.5
        wait_until(lambda: time.monotonic() > over_s, "KeepAliveTimeout is over")
        os.kill(pid, signal.SIGCONT)
        assert [answer.body if (answer := one.read()) else b"" for one in clients] == [b"alice\n"] * STALLED
        lab.stop()
