"""The corpus tests/corpus/http1 over TLS and over HTTP/2, as far as its cases have a meaning there.

Over TLS all of them have one: the bytes are the same. Over HTTP/2 it is those whose first request is well-formed, and it is that request which is
asked: what is found is what HTTP/1.1 finds, what is refused there is refused here, and the connection's next stream is served.
Runs as: root, which starts the server.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.h2socket import Head, NoMeaningError, Reader
from tests.lab import Lab
from tests.system.test_http_corpus import CASES, PROBE, Case, make_lab, replay, whole
from tests.system.wire import client

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

FRAMING = re.compile(r"-(te|cl|chunk|trailer|line-crlf|line-lf)-")  # how HTTP/1.1 says where a request begins and ends
DIFFERENCES = {
    "227-absolute-form-port": ((400,), "who says authority and Host must say the same, but for case"),
    "231-absolute-form-no-host": ((200,), "the authority is all that HTTP/2 says"),
    "233-absolute-form-empty": ((200,), "there is no empty authority, and Host is there"),
    "234-absolute-form-https": ((200,), "the scheme is what a front end's client used"),
    "259-head-at-limit": ((0, 431), "each field counts 32 bytes more (RFC 9113 6.5.2); routing reads no longer head"),
    "280-upgrade-websocket": ((501,), "it is a CONNECT, and no back end takes it"),
    "348-host-ipv4": ((200, 421), "as MISDIRECTED"),
    "349-host-ipv6": ((200, 421), "as MISDIRECTED"),
    "350-host-255": ((200, 421), "as MISDIRECTED"),
    "351-host-empty": ((0,), "there must be an authority (RFC 9113 8.3.1)"),
    "485-trailer-fields": ((0,), "Transfer-Encoding is malformed, in trailers too (RFC 9113 8.2.2)"),
}
MISDIRECTED = {"348-host-ipv4", "349-host-ipv6", "350-host-255"}  # no server name of TLS can say this, so the client has said another


@pytest.fixture(params=["h2c", "h2"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A server that is spoken to by HTTP/2."""
    with make_lab("unassigned", tls=request.param == "h2", h2=True) as one:
        yield one.start()


def test_every_case_is_answered_over_tls_as_without() -> None:
    with make_lab("unassigned", tls=True, h2=False) as lab, ThreadPoolExecutor(4) as pool:
        lab.start()
        cases = [replace(case, status=(421,), then=(), close=None) if case.name in MISDIRECTED else case for case in CASES]
        wrong = [text for text in pool.map(lambda case: replay(lab, case, "", whole), cases) if text]
    assert not wrong, "\n".join(wrong)


def first_of(case: Case) -> bytes:
    """Return the first request of a case; b"" if HTTP/2 cannot ask it."""
    if case.status[0] >= 400 and FRAMING.search(case.name):
        return b""
    reader = Reader()
    with contextlib.suppress(NoMeaningError):
        for number in range(len(case.raw)):
            for part in reader.feed(case.raw[number:number + 1]):
                if isinstance(part, list) or (isinstance(part, Head) and part.length == 0):
                    return case.raw[:number + 1]
    return b""


def ask(lab: Lab, case: Case) -> str:
    """Ask it, and the next; say what is wrong."""
    with client(lab) as conn:
        conn.send(first_of(case))
        answer = conn.read(case.raw.split(b" ")[0].decode())
        status = answer.status if answer is not None else 0
        if status and not re.search(rb"(?i)close|upgrade: websocket", first_of(case)):
            conn.send(PROBE)
            if (second := conn.read()) is None or second.body != b"probe\n":
                return f"{case.name}: {status}, and the connection serves no more"
    want = DIFFERENCES[case.name][0] if case.name in DIFFERENCES else case.status
    is_refused = want[0] >= 400 and want[0] not in {403, 404, 405, 416}
    if status in want or (is_refused and (status == 0 or status >= 400)):
        return ""
    return f"{case.name}: {status}, not {want} ({case.reason})"


def test_what_has_a_meaning_in_http2_is_answered_as_in_http1(lab: Lab) -> None:
    cases = [case for case in CASES if first_of(case)]
    with ThreadPoolExecutor(4) as pool:
        wrong = [text for text in pool.map(lambda case: ask(lab, case), cases) if text]
    assert not wrong, f"{len(cases)}\n" + "\n".join(wrong)
