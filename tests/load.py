"""Load whose every request is accounted for: a unique id in the query string, the answer's body checked, the log reconciled.

One thread and one epoll set drive a few hundred clients. A client thinks for a random time, asks a random host for its
secret, on a new connection or on the one it kept, and records what came of it. `Load.stop` lets what is under way end and
returns a `Report`; `reconcile` compares it with access logs. The clients speak as their lab does: plain, over TLS, HTTP/2.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import random
import re
import select
import socket
import ssl
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Self, cast

from tests.lab import Lab, Response, parse_response
from tests.tls import TlsSocket

LOG_LINE = re.compile(r'\S+ \S+ \S+ \[[^\]]+\] "[A-Z]+ \S*\?id=(?P<id>[a-z0-9-]+) (?:HTTP/1\.[01]|HTTP/2\.0)" (?P<status>\d{3}) \S+ "[^"]*" "[^"]*"')
_QUOTED = r'"(?:[^"\\]|\\.)*"'
WHOLE_LINE = re.compile(rf"(?:[^\s:]+:\d+ )?\S+ \S+ \S+ \[[^\]]+\] {_QUOTED} \d{{3}} \S+ {_QUOTED} {_QUOTED}")  # of any request: combined, vhost_combined
IDLE, CONNECTING, SHAKING, WAITING = range(4)  # SHAKING: hands, TLS's


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request. Times are time.monotonic(), in seconds; error is "" for a whole answer."""

    id: str
    host: str
    host_before: str  # of the request before on the same connection; "" on a new one
    port: int  # the client's
    opened_s: float
    sent_s: float
    done_s: float
    status: int
    has_secret: bool  # the body is the host's own
    has_retry_after: bool
    error: str

    is_bound: bool  # to the host that the connection was made for, as TLS's and HTTP/2's connections are

    @property
    def is_good(self) -> bool:
        """Whether the host's own secret came, with 200; on another host's connection that its owner says 421."""
        return not self.error and (self.is_foreign if self.status == HTTPStatus.MISDIRECTED_REQUEST else self.status == HTTPStatus.OK and self.has_secret)

    @property
    def is_foreign(self) -> bool:
        """Whether it was asked on a connection that is another host's."""
        return self.is_bound and bool(self.host_before) and self.host != self.host_before

    @property
    def writer(self) -> str:
        """The host whose child writes its line into the log."""
        return self.host_before if self.is_foreign else self.host

    @property
    def took_s(self) -> float:
        """From the connect or the sent request to the last byte."""
        return self.done_s - self.sent_s


@dataclass(slots=True)
class Report:
    """All answers of a load, how often a kept connection was found closed between two requests, and a stream refused unseen (HTTP/2)."""

    answers: list[Answer] = field(default_factory=list)
    closed_idle: int = 0
    refused: int = 0

    def bad(self) -> list[Answer]:
        """Return what is not the host's secret with 200."""
        return [one for one in self.answers if not one.is_good]

    def of(self, *hosts: str) -> Report:
        """Return the part that concerns these hosts alone, now and on the request before."""
        wanted = {*hosts, ""}
        return Report([one for one in self.answers if one.host in wanted and one.host_before in wanted])

    def between(self, start_s: float, end_s: float) -> Report:
        """Return the part that was sent in this time."""
        return Report([one for one in self.answers if start_s <= one.sent_s < end_s])

    def percentile_s(self, share: float) -> float:
        """Return the time below which `share` of the good answers stayed."""
        times = sorted(one.took_s for one in self.answers if one.is_good)
        return times[min(len(times) - 1, int(len(times) * share))]

    def median_s(self) -> float:
        """Return the median time of the good answers."""
        return statistics.median(one.took_s for one in self.answers if one.is_good)

    def summary(self) -> str:
        """Return counts for a failure's message."""
        return str(Counter((one.error or one.status, one.has_secret) for one in self.answers))


class _Client:
    """One client: at most one connection and one request under way."""

    __slots__ = ("due_s", "got", "host", "host_before", "id", "index", "is_again", "is_closing", "left", "opened_s", "port", "request",
                 "secret", "sent_s", "sock", "state")

    def __init__(self, index: int, due_s: float) -> None:
        self.index = index
        self.sock: socket.socket | None = None
        self.state, self.due_s = IDLE, due_s
        self.host = self.host_before = self.id = ""
        self.secret = b""
        self.port = 0
        self.opened_s = self.sent_s = 0.0
        self.left = 0
        self.is_closing = self.is_again = False  # is_again: it was asked once, and refused unseen
        self.request = b""
        self.got = b""


class Load:
    """Clients that ask `hosts` (name -> body that is its alone).

    server: a lab, whose language they speak, or a port of 127.0.0.1 for plain HTTP/1.1;
    clients: how many; pace_s: mean time a client thinks between two requests; keep: most requests on one connection;
    switch: share of kept requests that name another host than before; timeout_s: when a request is given up;
    choose: picks the next host instead of an even draw.
    """

    def __init__(self, server: Lab | int, hosts: Mapping[str, bytes], *, clients: int = 200, pace_s: float = 0.1, keep: int = 8,
                 switch: float = 0.1, timeout_s: float = 20.0, seed: int | None = None, path: str = "/secret.txt",
                 name: str = "r") -> None:
        self.address = ("127.0.0.1", server if isinstance(server, int) else server.port)
        self._speak = _say_plainly if isinstance(server, int) else server.speak
        self.is_tls, self.is_bound = (False, False) if isinstance(server, int) else (server.tls, server.tls or server.h2)
        self.hosts = dict(hosts)
        self._names = tuple(self.hosts)
        self.pace_s, self.keep, self.switch, self.timeout_s = pace_s, keep, switch, timeout_s
        self.path, self.name = path, name
        self.seed = seed if seed is not None else random.randrange(1 << 32)
        print(f"load {name}: seed {self.seed}")
        self._random = random.Random(self.seed)
        self.report = Report()
        self._sent = 0
        now_s = time.monotonic()
        self._clients = [_Client(index, now_s + self._random.random() * pace_s) for index in range(clients)]
        self._heap = [(client.due_s, client.index) for client in self._clients]
        heapq.heapify(self._heap)
        self._by_fd: dict[int, int] = {}
        self._epoll = select.epoll()
        self._wake = socket.socketpair()
        self._epoll.register(self._wake[0], select.EPOLLIN)
        self._is_ending = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Report:
        """Begin nothing new, wait for what is under way, and return the whole account."""
        self._is_ending = True
        with contextlib.suppress(OSError):
            self._wake[1].send(b"x")
        if self._thread.is_alive():
            self._thread.join()
        self._epoll.close()
        for sock in self._wake:
            sock.close()
        if self._error is not None:
            raise self._error
        return self.report

    def wait_answers(self, count: int, timeout_s: float = 60.0, *, of: Callable[[Answer], bool] | None = None) -> None:
        """Wait until `count` more answers (for which `of` holds) are there."""
        begin = len(self.report.answers)
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while sum(1 for one in self.report.answers[begin:] if of is None or of(one)) < count:
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"not {count} answers within {timeout_s} s: {self.report.summary()}"
                self._changed.wait(min(left_s, 0.2))
                if self._error is not None:
                    raise self._error

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not (self._is_ending and not self._is_busy()):
                self._turn()
        except BaseException as error:  # noqa: BLE001 - told by stop()
            self._error = error
        for client in self._clients:
            self._drop(client)

    def _is_busy(self) -> bool:
        return any(client.state != IDLE for client in self._clients)

    def _turn(self) -> None:
        wait_s = max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else 1.0
        for fd, events in self._epoll.poll(min(wait_s, 0.2), 256):
            index = self._by_fd.get(fd)
            if index is not None:
                self._on_event(self._clients[index], events)
        now_s = time.monotonic()
        while self._heap and self._heap[0][0] <= now_s:
            due_s, index = heapq.heappop(self._heap)
            client = self._clients[index]
            if client.due_s == due_s:
                self._on_due(client)

    def _later(self, client: _Client, after_s: float) -> None:
        client.due_s = time.monotonic() + after_s
        heapq.heappush(self._heap, (client.due_s, client.index))

    def _on_due(self, client: _Client) -> None:
        if client.state != IDLE:
            self._finish(client, "timeout")
        elif not self._is_ending:
            self._begin(client)

    def _begin(self, client: _Client) -> None:
        is_kept = client.sock is not None
        if is_kept:
            self._read(client)  # before anything is asked on a connection that has ended meanwhile
            if client.sock is None:
                return
        client.host_before = client.host if is_kept else ""
        if not is_kept or self._random.random() < self.switch:
            client.host = self._random.choice(self._names)
        client.secret = self.hosts[client.host]
        self._sent += 1
        client.id = f"{self.name}-{self._sent}"
        if not is_kept:
            client.left = self._random.randint(1, self.keep)
        client.left -= 1
        client.is_closing = client.left <= 0
        client.got, client.is_again = b"", False
        field_line = "Connection: close\r\n" if client.is_closing else ""
        client.request = f"GET {self.path}?id={client.id} HTTP/1.1\r\nHost: {client.host}\r\n{field_line}\r\n".encode()
        client.sent_s = time.monotonic()
        if is_kept:
            self._send(client)
        else:
            self._connect(client)

    def _connect(self, client: _Client) -> None:
        raw = socket.socket()
        raw.setblocking(False)
        client.opened_s = client.sent_s
        error = raw.connect_ex(self.address)
        client.port, fd = raw.getsockname()[1], raw.fileno()
        client.sock = self._speak(raw)
        self._by_fd[fd] = client.index
        client.state = CONNECTING
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLOUT)
        self._later(client, self.timeout_s)
        if error not in {0, errno.EINPROGRESS}:
            self._finish(client, errno.errorcode[error])

    def _shake_hands(self, client: _Client) -> None:
        """Make a step of TLS's handshake, which asks for the host of the request."""
        client.state, sock = SHAKING, cast("TlsSocket", client.sock)
        try:
            waits_for = sock.step(client.host)
        except OSError as error:
            self._finish(client, _name_of(error))
            return
        if waits_for:
            self._epoll.modify(sock.fileno(), waits_for)
            return
        self._epoll.modify(sock.fileno(), select.EPOLLIN)
        self._send(client)

    def _send(self, client: _Client) -> None:
        assert client.sock is not None
        client.state = WAITING
        self._later(client, self.timeout_s)
        try:
            client.sock.sendall(client.request)
        except OSError as error:
            self._finish(client, _name_of(error))

    def _on_event(self, client: _Client, events: int) -> None:
        assert client.sock is not None
        if client.state == CONNECTING and not events & (select.EPOLLOUT | select.EPOLLERR):
            return
        if client.state == CONNECTING and (error := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self._finish(client, errno.errorcode[error])
        elif client.state == SHAKING or (client.state == CONNECTING and self.is_tls):
            self._shake_hands(client)
        elif client.state == CONNECTING:
            self._epoll.modify(client.sock.fileno(), select.EPOLLIN)
            self._send(client)
        else:
            self._read(client)

    def _read(self, client: _Client) -> None:
        """Take all that has come: what TLS has deciphered already is not told of by epoll."""
        while client.sock is not None:
            try:
                part = client.sock.recv(65536)
            except BlockingIOError:
                if client.state == IDLE and self._has_been_told_to_leave(client):
                    self._on_end(client, "end")
                return
            except OSError as error:
                self._on_end(client, _name_of(error))
                return
            if not part or client.state == IDLE:
                self._on_end(client, "unasked bytes" if part else "end")
                return
            client.got += part
            self._look(client)

    @staticmethod
    def _has_been_told_to_leave(client: _Client) -> bool:
        """Whether the server has said that it takes no further request on the connection (HTTP/2)."""
        return bool(getattr(client.sock, "is_leaving", False))

    def _on_end(self, client: _Client, error: str) -> None:
        """The other side closed: between two requests that is its right, else the request has failed."""
        if client.state == IDLE and error != "unasked bytes":
            self.report.closed_idle += 1
            self._drop(client)
            self._later(client, self._think_s())
        elif getattr(client.sock, "is_refused", False) and not client.got and not client.is_again:
            client.is_again = True  # nobody has seen it, says the server: that is no failure, and it is asked anew (RFC 9113 8.7)
            client.host_before = ""
            self.report.refused += 1
            self._drop(client)
            self._connect(client)
        else:
            self._finish(client, self._how(client) + error)

    @staticmethod
    def _how(client: _Client) -> str:
        """What is to be known of a request that has failed, beside its end."""
        if client.got:
            return "within the answer: "
        return "refused again: " if client.is_again and getattr(client.sock, "is_refused", False) else ""

    def _look(self, client: _Client) -> None:
        head, has_head, body = client.got.partition(b"\r\n\r\n")
        if not has_head:
            return
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if found is None:
            self._finish(client, "no Content-Length")
        elif len(body) >= int(found[1]):
            if re.search(rb"\r\nconnection: *close", head, re.IGNORECASE):
                client.is_closing = True
            self._finish(client, "" if len(body) == int(found[1]) else "too many bytes")

    def _finish(self, client: _Client, error: str) -> None:
        head, _, body = client.got.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
        answer = Answer(client.id, client.host, client.host_before, client.port, client.opened_s, client.sent_s, time.monotonic(),
                        status, body == client.secret, b"retry-after:" in head.lower(), error, self.is_bound)
        if error or client.is_closing or self._has_been_told_to_leave(client):
            self._drop(client)
        elif answer.is_foreign:
            client.host = client.host_before  # whose the connection still is
        client.state = IDLE
        self._later(client, self._think_s())
        with self._changed:
            self.report.answers.append(answer)
            self._changed.notify_all()

    def _think_s(self) -> float:
        return self._random.uniform(0.2, 1.8) * self.pace_s

    def _drop(self, client: _Client) -> None:
        if client.sock is not None:
            self._by_fd.pop(client.sock.fileno(), None)
            client.sock.close()  # leaves the epoll set
            client.sock = None


def _say_plainly(sock: socket.socket) -> socket.socket:
    """Return what speaks HTTP/1.1 without TLS on a socket: itself."""
    return sock


def _name_of(error: OSError) -> str:
    """Return an error's name, of the system or of OpenSSL."""
    return error.reason or type(error).__name__ if isinstance(error, ssl.SSLError) else errno.errorcode.get(error.errno or 0, str(error))


class Download:
    """A client that reads a little, and the rest when it likes: of 8 MB most is still the server's to send."""

    def __init__(self, lab: Lab, host: str, path: str) -> None:
        self.sock = lab.connect(timeout_s=60)
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self.raw = self.sock.recv(4096)

    def finish(self) -> Response:
        """Read the rest, as far as the announced length."""
        length = int(re.search(rb"Content-Length: (\d+)", self.raw)[1])
        parts, have = [self.raw], len(self.raw.partition(b"\r\n\r\n")[2])
        with self.sock:
            while have < length and (part := self.sock.recv(1 << 18)):
                parts.append(part)
                have += len(part)
        return parse_response(b"".join(parts))


# ---------------------------------------------------------------------- the access log


def write_secrets(lab: Lab) -> dict[str, bytes]:
    """Give each tenant a secret.txt of its own; return host -> its text."""
    secrets = {tenant.host: f"{tenant.name} {os.urandom(8).hex()}\n".encode() * 8 for tenant in lab.tenants.values()}
    for tenant in lab.tenants.values():
        tenant.write("secret.txt", secrets[tenant.host])
    return secrets


@dataclass(frozen=True, slots=True)
class Account:
    """What the access log says of a report's requests."""

    torn: tuple[str, ...]  # lines that are not whole
    doubled: tuple[str, ...]  # ids that stand there twice
    missing: tuple[Answer, ...]  # answered, and not in the log
    wrong: tuple[str, ...]  # in the log with another status than was received
    unasked: tuple[str, ...]  # in the log and never asked for


def read_lines(paths: Iterable[Path]) -> list[str]:
    """Return the lines of several logs; an end without a newline makes a line that ends with a mark."""
    lines: list[str] = []
    for path in paths:
        text = path.read_text(errors="replace") if path.exists() else ""
        lines += [line if line.endswith("\n") else f"{line}<unfinished>" for line in text.splitlines(keepends=True)]
    return lines


def reconcile(report: Report, paths: Iterable[Path]) -> Account:
    """Compare a report with access logs in the combined format; requests without an id are passed over."""
    asked = {one.id: one for one in report.answers}
    seen: Counter[str] = Counter()
    torn, wrong = [], []
    for line in read_lines(paths):
        found = LOG_LINE.fullmatch(line.rstrip("\n"))
        if found is None:
            if "id=" in line or WHOLE_LINE.fullmatch(line.rstrip("\n")) is None:  # the rest of a line that was cut in two has no id
                torn.append(line)
            continue
        seen[found["id"]] += 1
        answer = asked.get(found["id"])
        if answer is not None and not answer.error and answer.status != int(found["status"]):
            wrong.append(line)
    return Account(
        torn=tuple(torn), doubled=tuple(one for one, count in seen.items() if count > 1),
        missing=tuple(one for one in report.answers if not one.error and one.id not in seen),
        wrong=tuple(wrong), unasked=tuple(one for one in seen if one not in asked))
