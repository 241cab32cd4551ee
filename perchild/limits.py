"""Every number the server is bounded by: value, unit, reason, source.

`native/limits.h` is generated from this table (`python3 -m perchild.limits`), so both languages agree.
Runs as: any role (pure).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound: its C and Python name, value, unit and the reason for the number."""

    name: str
    value: int
    unit: str
    reason: str


LIMITS: tuple[Limit, ...] = (
    Limit("MAX_HEAD_BYTES", 32768, "bytes", "whole request head; 431 above"),
    Limit("MAX_LINE_BYTES", 8190, "bytes", "default of LimitRequestLine and LimitRequestFieldSize (httpd)"),
    Limit("MAX_FIELDS", 100, "count", "default of LimitRequestFields (httpd)"),
    Limit("MAX_FIELDS_HARD", 256, "count", "what LimitRequestFields may be raised to"),
    Limit("MAX_HOST_BYTES", 255, "bytes", "longest server name: RFC 1035 2.3.4"),
    Limit("MAX_PROXYHDR_BYTES", 536, "bytes", "PROXY protocol header: what one segment always carries (proxy-protocol.txt 2.2)"),
    Limit("MAX_PEEK_BYTES", 16384, "bytes", "looked at before the connection's owner is known"),
    Limit("MAX_HELLO_BYTES", 12288, "bytes", "TLS ClientHello; browsers send 2 KB with post-quantum keys; fits MAX_PEEK_BYTES with its records"),
    Limit("MAX_HELLO_RECORDS", 64, "count", "records that a ClientHello may be spread over: 1, by those who hide its name from middle boxes 20"),
    Limit("MAX_PATH_BYTES", 4095, "bytes", "PATH_MAX less its NUL"),
    Limit("MAX_RANGES", 5, "count", "ranges in one Range field; more are answered with the whole file"),
    Limit("MAX_CHUNK_EXT_BYTES", 1024, "bytes", "chunk extensions of one body (CVE-2023-39326 class)"),
    Limit("MAX_TRAILER_BYTES", 8190, "bytes", "trailer section of a body"),
    Limit("MAX_TRAILER_FIELDS", 96, "count", "fields in it, as in the head of an answer"),
    Limit("MAX_DRAIN_BYTES", 262144, "bytes", "of an unwanted request body read to keep the connection"),
    Limit("MAX_HOPS", 3, "count", "hand-offs one connection may take in a row without an answer"),
    Limit("INBOX_SNDBUF_BYTES", 65536, "bytes", "inbox depth: about 85 connections, and one carried head"),
    Limit("JOB_SNDBUF_BYTES", 425984, "bytes", "job box depth: three jobs of 128 KB; what the kernel allows by default"),
    Limit("MAX_WAITING", 1024, "count", "connections a child holds back for one full inbox: a burst that its owner works off in a moment"),
    Limit("WAITING_MS", 1000, "ms", "how long they are held back before 503"),
    Limit("RETRY_MS", 5, "ms", "pause between attempts at a full inbox"),
    Limit("PEEK_TIMEOUT_MS", 10000, "ms", "from accept to a name to route by"),
    Limit("TLS_HANDSHAKE_MS", 10000, "ms", "from the first step of a handshake to its end, whatever comes meanwhile"),
    Limit("TLS_TURN_BYTES", 65536, "bytes", "read from a client in one turn without a byte of it for a request: then it is cut off"),
    Limit("LISTEN_LOOK_MS", 1000, "ms", "a listener is tried this often without being told: a stopped child may keep the news"),
    Limit("LINGER_MS", 2000, "ms", "quiet time in a lingering close (httpd's SECONDS_TO_LINGER)"),
    Limit("LINGER_TOTAL_MS", 30000, "ms", "whole lingering close (httpd's MAX_SECS_TO_LINGER)"),
    Limit("MAX_THREADS", 1024, "count", "slots in one child's table"),
    Limit("SLOT_HISTORY", 8, "count", "past values a slot shows on the status page"),
    Limit("EVENT_BATCH", 64, "count", "events taken from epoll at once"),
    Limit("SWEEP_MS", 250, "ms", "resolution of connection deadlines"),
    Limit("LOG_BUFFER_BYTES", 4096, "bytes", "access log lines gathered before one write"),
    Limit("LOG_FLUSH_MS", 1000, "ms", "longest time a line stays in the buffer"),
    Limit("MAX_LOG_LINE_BYTES", 8192, "bytes", "longer access log lines are cut"),
    Limit("SMALL_FILE_BYTES", 16384, "bytes", "files sent in one write together with their head"),
    Limit("SENDFILE_CHUNK_BYTES", 65536, "bytes", "what fits the pipe behind sendfile(2); asked for more, 100 KB took twice the CPU time"),
    Limit("SEND_TURN_BYTES", 4194304, "bytes", "at most this much for one connection in a row"),
    Limit("MAX_LISTING_ENTRIES", 10000, "count", "names in one directory listing; then it says so"),
    Limit("MAX_LAYERS", 64, "count", "configuration sections that apply to one request"),
    Limit("MAX_INTERNAL_REDIRECTS", 10, "count", "LimitInternalRecursion (httpd)"),
    Limit("DOCROOT_RECHECK_MS", 1000, "ms", "a document root replaced by rename is noticed within this time"),
    Limit("MAX_LISTENERS", 256, "count", "Listen directives"),
    Limit("MAX_STORED_FDS", 1024, "count", "descriptors that the service manager keeps (FileDescriptorStoreMax=): it compares each new one with all"),
    Limit("MAX_CONNECTIONS", 65536, "count", "connections of one child"),
    Limit("MAX_RECORD_BYTES", 67108864, "bytes", "one identity's record"),
    Limit("MAX_CANCELS", 256, "count", "programs to be ended that a child remembers while the job box is full"),
    Limit("RUNNER_FINISH_MS", 360000, "ms", "for a replaced runner's programs to finish: the longest usual Timeout, 300 s, and 60 s; no CANCEL "
          "reaches them any more"),
    Limit("GATE_UP_BYTES", 16384, "bytes", "of a request body between a client and a program"),
    Limit("GATE_DOWN_BYTES", 32768, "bytes", "of an answer between a program and a client, once its head is read"),
    Limit("GATE_TURN_BYTES", 1048576, "bytes", "at most this much of a body for one connection in a row"),
    Limit("MAX_STDERR_BYTES", 1048576, "bytes", "of one program run that go to the error log; the rest is thrown away"),
    Limit("MAX_STDERR_LINES", 4096, "count", "of it: each becomes a line with a prefix, so that 1 MiB of short ones would be 75 MB"),
    Limit("MAX_BACKENDS", 1024, "count", "places that one child connects to: host and port, socket, service"),
    Limit("KEPT_PER_BACKEND", 16, "count", "connections a child keeps to one of them between requests"),
    Limit("MAX_KEPT", 64, "count", "such connections of a child, to all of them"),
    Limit("KEPT_MS", 60000, "ms", "how long one is kept idle"),
    Limit("KEPT_FCGI_MS", 1000, "ms", "the same for FastCGI, where it holds a whole worker of the pool"),
    Limit("KNOCK_MS", 20, "ms", "until a pool that has taken no byte of a request is knocked at, and how often at most; each time a request waits "
          "twice as long for its next"),
    Limit("MAX_REPLY_HEAD_BYTES", 65536, "bytes", "head of a program's or back end's answer"),
    Limit("MAX_REPLY_FIELDS", 96, "count", "fields in it: what a response has room for"),
    Limit("MAX_TICKET_KEYS", 4, "count", "session ticket keys that still open tickets: the newest seals, for TICKET_ROTATE_S"),
    Limit("TICKET_ROTATE_S", 43200, "s", "a new ticket key twice a day, so that none opens tickets for longer than two days"),
    Limit("H2_STREAMS", 100, "count", "default of H2MaxSessionStreams (httpd); RFC 9113 6.5.2 asks for no less"),
    Limit("H2_WINDOW_BYTES", 65535, "bytes", "default of H2WindowSize (httpd): the protocol's own, RFC 9113 6.9.2"),
    Limit("H2_OUT_BYTES", 32768, "bytes", "of one stream's response between its maker and the session: two full DATA frames"),
    Limit("H2_OUT_TOTAL_BYTES", 524288, "bytes", "of all streams' responses of one session; above it a stream gets H2_OUT_TIGHT_BYTES"),
    Limit("H2_INTERIM_BYTES", 8192, "bytes", "of one stream's interim responses that its session has not seen yet; what is above is left out"),
    Limit("H2_UNSENT", 10, "count", "frames other than DATA that the socket does not take, for a request to wait until it has taken some"),
    Limit("H2_OUT_FIRST_BYTES", 4096, "bytes", "of all streams' responses at first; each byte that the client takes makes that one more"),
    Limit("H2_STALLED", 2, "count", "streams whose responses a client does not take, for a request to wait until it has taken more"),
    Limit("H2_EARN_BYTES", 32768, "bytes", "that a client has taken and that allow one more of those"),
    Limit("H2_OUT_TIGHT_BYTES", 2048, "bytes", "of one stream's response when the session holds much already: a client that takes none"),
    Limit("H2_IN_TOTAL_BYTES", 524288, "bytes", "of all streams' request bodies of one session that nobody has read yet: its window"),
    Limit("H2_HEADS_BYTES", 393216, "bytes", "of all streams' request heads of one session, decoded (HPACK bombs); above it REFUSED_STREAM"),
    Limit("H2_BLOCK_BYTES", 65536, "bytes", "of one field block as it is sent; above it the session ends"),
    Limit("H2_CONTINUATIONS", 8, "count", "CONTINUATION frames of one field block (CVE-2024-27316); nghttp2's own default"),
    Limit("H2_PATIENCE", 1000, "count", "frames that carry nothing, or cost more than they are worth, in a row before the session ends"),
    Limit("H2_PATIENCE_PER_S", 100, "count", "of them that are forgiven each second, besides those that go with bytes sent"),
    Limit("H2_PATIENCE_BYTES", 512, "bytes", "of responses sent that forgive one: a WINDOW_UPDATE for the stream, one for the session each KB"),
    Limit("H2_NOTICE_MS", 1000, "ms", "between the two GOAWAYs of a graceful end: what a client had sent meanwhile is answered (RFC 9113 6.8)"),
)


def render_header() -> str:
    """Return the text of native/limits.h."""
    lines = ["/* limits.h - generated by perchild/limits.py; do not edit. */", "#ifndef PC_LIMITS_H", "#define PC_LIMITS_H", ""]
    lines += [f"#define PC_{limit.name} {limit.value} /* {limit.unit}: {limit.reason} */" for limit in LIMITS]
    return "\n".join([*lines, "", "#endif", ""])


def value(name: str) -> int:
    """Return the number called `name`; KeyError if there is none."""
    return {limit.name: limit.value for limit in LIMITS}[name]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "native/limits.h")
    target.write_text(render_header())
