"""The record: what one identity's child knows of the configuration, as bytes that `compile` writes and the child reads.

A record is a sequence of items: u16 tag, u16 zero, u32 payload length, payload; no padding, little endian.
A container's payload is again a sequence of items. An item may repeat where its row says `many`.
`TAGS` is the only list of them; `native/record.h` is generated from it (`python3 -m perchild.wire.record`).
Runs as: compile (writes), any child (reads, in native/record.c).  Trusts: nothing; pure.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

VERSION = 1

# Payload types.
U32 = "u32"  # one u32
U32S = "u32s"  # several u32, count and meaning in the row
U64 = "u64"
STR = "str"  # bytes, no NUL inside, none at the end
STRS = "strs"  # items u32 length + bytes, one after the other
RAW = "raw"  # bytes in a format of their own, named in the row
BOX = "box"  # container


@dataclass(frozen=True, slots=True)
class Tag:
    """One kind of item: number, name, payload type, whether it may repeat, and what it means."""

    number: int
    name: str
    type: str
    many: bool
    meaning: str


TAGS: tuple[Tag, ...] = (
    # --- the record itself -------------------------------------------------------------------------------------
    Tag(1, "VERSION", U32, False, "VERSION; another one is refused"),
    Tag(2, "IDENTITY", U32S, False, "identity number, uid, gid"),
    Tag(3, "ROUTE", RAW, False, "the identity's own route table (wire/route.py); values are indexes of HOST items"),
    Tag(4, "LISTEN", RAW, True, "a listener: u8 family 4|6, u8 zero, u16 port, 16 bytes address (v4 in the first four)"),
    Tag(5, "SERVER_TOKENS", STR, False, "value of the Server field, ready made"),
    Tag(6, "LOG_FILE", BOX, True, "a log file; LOG and ERROR_LOG refer to it by its index in the record"),
    Tag(7, "ERROR_LOG_JSON", U32, False, "1: error log lines as JSON"),
    Tag(8, "HOST", BOX, True, "a virtual host"),
    Tag(9, "SCALE", U32S, False, "StartThreads, MinSpareThreads, MaxSpareThreads, MaxThreadsPerChild, "
                                 "MaxConnectionsPerChild, IdleTimeout seconds (0 = never ends)"),
    Tag(10, "SOCKET_BUFFERS", U32S, False, "SendBufferSize, ReceiveBufferSize, bytes, 0 = system's"),
    Tag(11, "SERVICE", BOX, True, 'a long-lived program that the runner keeps; "service:K" names it by its index in the record'),
    Tag(12, "H2_LIMITS", U32S, False, "H2MaxSessionStreams, H2WindowSize bytes, H2MaxDataFrameLen bytes (0 = what fits), H2EarlyHints 0|1"),
    # --- LOG_FILE ------------------------------------------------------------------------------------------------
    Tag(20, "FILE_PATH", STR, False, "absolute path"),
    Tag(21, "FILE_OPENER", U32, False, "0: the child opens it after the drop; 1: the dispatcher hands it over"),
    # --- HOST ----------------------------------------------------------------------------------------------------
    Tag(30, "NAME", STR, False, "ServerName without port, lower case; may be empty"),
    Tag(31, "PORT", U32, False, "port of ServerName, 0 = none given"),
    Tag(32, "ADMIN", STR, False, "ServerAdmin; empty = none"),
    Tag(33, "DOCUMENT_ROOT", STR, False, "absolute path without trailing slash (but '/')"),
    Tag(34, "TIMES", U32S, False, "ms: Timeout, KeepAliveTimeout, head initial, head maximum, body initial, body maximum; "
                                  "then bytes/s: head MinRate, body MinRate (0 = not checked)"),
    Tag(35, "KEEP_ALIVE", U32S, False, "KeepAlive 0|1, MaxKeepAliveRequests (0 = any number), KeepAliveScope 0 any|1 identity"),
    Tag(36, "LIMITS", U32S, False, "LimitRequestLine, LimitRequestFieldSize, LimitRequestFields"),
    Tag(37, "LOG", BOX, True, "an access log"),
    Tag(38, "ERROR_LOG", U32S, False, "index of its LOG_FILE, LogLevel 0 emerg .. 7 debug .. 15 trace8"),
    Tag(39, "BASE", BOX, False, "settings outside any section: server's merged with host's; contains SETTING items"),
    Tag(40, "SECTION", BOX, True, "a section, in the order httpd merges them: Directory by depth, DirectoryMatch, "
                                  "Files and FilesMatch, Location and LocationMatch"),
    Tag(41, "ALIAS", BOX, True, "Alias, AliasMatch, ScriptAlias or ScriptAliasMatch, in configuration order"),
    Tag(42, "PROXY_PASS", BOX, True, "ProxyPass, ProxyPassMatch, AppServer or WSGIScriptAlias, in the order they are tried: PROXY_* items"),
    Tag(43, "PHP_SERVICE", U32, False, "index of the SERVICE that runs what a PHP handler or media type names (PHPPool); absent: none"),
    Tag(44, "REMOTE_IP_HEADER", STR, False, "RemoteIPHeader: the request field that names the client; absent: none"),
    Tag(45, "REMOTE_IP_INTERNAL", RAW, False, "ACCESS leaves (ip): front ends believed whatever address they name"),
    Tag(46, "REMOTE_IP_TRUSTED", RAW, False, "ACCESS leaves (ip): front ends believed if the address they name is public"),
    Tag(47, "PROXY_PROTOCOL", U32, False, "1: connections to this host begin with a PROXY protocol header (RemoteIPProxyProtocol)"),
    Tag(48, "FCGID_SERVICE", STRS, True, 'command of a FCGID_WRAPPER, and the "service:K" that runs it'),
    Tag(49, "TLS", BOX, False, "SSLEngine On: TLS_* items; absent: this host speaks plain HTTP"),
    Tag(53, "PROTOCOLS", U32, False, "what clients may speak (PROTOCOL_BITS); absent: http/1.1"),
    # --- LOG -----------------------------------------------------------------------------------------------------
    Tag(50, "LOG_INDEX", U32, False, "index of its LOG_FILE"),
    Tag(51, "LOG_FORMAT", RAW, False, "format operations, see FORMAT below"),
    Tag(52, "LOG_ENV", STR, False, "log only if this variable is set; first byte '!' turns it round; absent: always"),
    # --- SECTION ---------------------------------------------------------------------------------------------------
    Tag(60, "SECTION_KIND", U32, False, "0 Directory, 1 DirectoryMatch, 2 Files, 3 FilesMatch, 4 Location, 5 LocationMatch"),
    Tag(61, "SECTION_PATTERN", STR, False, "literal or shell wildcard for 0, 2 and 4, PCRE2 pattern for 1, 3 and 5; "
                                           "for 0 without trailing slash (but '/')"),
    Tag(62, "SECTION_SETTINGS", BOX, False, "SETTING items"),
    Tag(63, "SECTION_INNER", BOX, True, "a Files or FilesMatch inside a Directory: a SECTION's items"),
    # --- ALIAS -----------------------------------------------------------------------------------------------------
    Tag(70, "ALIAS_KIND", U32, False, "0 Alias, 1 AliasMatch, 2 ScriptAlias, 3 ScriptAliasMatch (2 and 3: every file is a CGI program)"),
    Tag(71, "ALIAS_FROM", STR, False, "URL prefix, or pattern"),
    Tag(72, "ALIAS_TO", STR, False, "absolute path; $0..$9 for AliasMatch"),
    # --- SERVICE ---------------------------------------------------------------------------------------------------
    Tag(80, "SERVICE_KIND", U32, False, "0 FastCGI, 1 HTTP"),
    Tag(81, "SERVICE_SOCKET", STR, False, "absolute path of its Unix socket"),
    Tag(82, "SERVICE_CONNECTIONS", U32, False, "how many connections one child may have to it for it to keep them between requests; absent: none "
        "is kept"),
    Tag(83, "SERVICE_PHP_NAME", STRS, True, 'of a PHPPool: a setting of PHP that a section changes; "1" if one does by php_admin_value, else "0"'),
    # --- PROXY_PASS --------------------------------------------------------------------------------------------------
    Tag(85, "PROXY_KIND", U32, False, "0 prefix, 1 pattern"),
    Tag(86, "PROXY_FROM", STR, False, "URL path prefix, or PCRE2 pattern"),
    Tag(87, "PROXY_TO", STR, False, '"!" = not here; http://host[:port]/path, ws://..., unix:/path|http://host/path, fcgi://host[:port]/dir, '
                                    "unix:/path|fcgi://host/dir, service:K/path; $0..$9 for a pattern"),
    Tag(88, "PROXY_TIMES", U32S, False, "timeout ms, connect timeout ms, retry s plus 1; 0 = default"),
    Tag(89, "PROXY_UPGRADE", STR, False, "protocols a client may upgrade to, ANY, or NONE (which behind ws:// is ANY); absent: the URL says"),
    Tag(90, "PROXY_SINGLE_USE", U32, False, "1: a connection to the back end is used for one request only (disablereuse)"),
    Tag(91, "PROXY_KEPT", U32, False, "connections to a FastCGI responder that there may be for them to be kept (enablereuse, max); absent: none"),
    # --- settings: the items of BASE and SECTION_SETTINGS ---------------------------------------------------------
    Tag(100, "OPTIONS", U32S, False, "absolute 0|1, added bits, removed bits (OPTION_BITS)"),
    Tag(101, "DIRECTORY_INDEX", STRS, False, "names; empty list = disabled"),
    Tag(102, "REQUIRE", RAW, False, "access tree, see ACCESS below"),
    Tag(103, "ORDER_ALLOW_DENY", BOX, False, "Order/Allow/Deny: ORDER, ALLOW_FROM, DENY_FROM"),
    Tag(104, "ORDER", U32, False, "0 deny,allow; 1 allow,deny"),
    Tag(105, "ALLOW_FROM", RAW, False, "ACCESS leaves one after the other"),
    Tag(106, "DENY_FROM", RAW, False, "ACCESS leaves one after the other"),
    Tag(107, "ERROR_DOCUMENT", BOX, True, "VALUE_U32S = status, kind (0 text, 1 local path, 2 URL, 3 default); VALUE_STR"),
    Tag(108, "ADD_TYPE", STRS, True, "extension in lower case without dot, media type"),
    Tag(109, "FORCE_TYPE", STR, False, "media type; empty = none"),
    Tag(110, "DEFAULT_TYPE", STR, False, "media type; empty = none"),
    Tag(111, "ADD_CHARSET", STRS, True, "extension, charset"),
    Tag(112, "DEFAULT_CHARSET", STR, False, "charset added to text/plain and text/html; empty = off"),
    Tag(113, "ADD_ENCODING", STRS, True, "extension, content coding"),
    Tag(114, "HANDLER", STR, False, "SetHandler; empty = none"),
    Tag(115, "HEADER", BOX, True, "Header: HEADER_* items"),
    Tag(116, "REQUEST_HEADER", BOX, True, "RequestHeader: HEADER_* items"),
    Tag(117, "HEADER_ACTION", U32S, False, "action (HEADER_ACTIONS), 1 = always (also on errors), 1 = edit replaces all"),
    Tag(118, "HEADER_NAME", STR, False, "field name as written"),
    Tag(119, "HEADER_VALUE", RAW, False, "FORMAT operations (literals and the few that Header knows)"),
    Tag(120, "HEADER_PATTERN", STR, False, "PCRE2 pattern of edit and edit*; HEADER_VALUE is then one literal with $0..$9"),
    Tag(121, "HEADER_ENV", STR, False, "only if this variable is set; first byte '!' turns it round"),
    Tag(122, "SET_ENV", STRS, True, "name, value (PassEnv is resolved when compiled)"),
    Tag(123, "UNSET_ENV", STR, True, "name"),
    Tag(124, "FILE_ETAG", U32S, False, "absolute 0|1, added bits, removed bits (1 INode, 2 MTime, 4 Size); None = 1,0,0"),
    Tag(125, "ACCEPT_PATH_INFO", U32, False, "0 Off, 1 On, 2 Default"),
    Tag(126, "LIMIT_BODY", U64, False, "LimitRequestBody, bytes; 0 = any length"),
    Tag(127, "SIGNATURE", U32, False, "ServerSignature: 0 Off, 1 On, 2 EMail"),
    Tag(128, "REDIRECT", BOX, True, "VALUE_U32S = status, kind (0 prefix, 1 pattern, 2 everything below this section); "
                                    "VALUE_STR = from, then VALUE_STR = to (absent for gone and the like)"),
    Tag(129, "ALLOW_OVERRIDE", U32, False, "class bits: 1 AuthConfig, 2 FileInfo, 4 Indexes, 8 Limit, 16 Options; 0 None"),
    Tag(130, "ASK", U32, False, "1: the request policy hook (Python) decides on requests here"),
    Tag(131, "ADD_HANDLER", STRS, True, "extension in lower case without dot, handler; an empty handler = none (RemoveHandler)"),
    Tag(132, "ACTION", STRS, True, 'handler or media type, URL path of the program, "" or "virtual"'),
    Tag(133, "PROXY_REVERSE", STRS, True, "our path, back end's URL (ProxyPassReverse)"),
    Tag(134, "COOKIE_PATH", STRS, True, "path as the back end says it, as clients see it"),
    Tag(135, "COOKIE_DOMAIN", STRS, True, "domain as the back end says it, as clients see it"),
    Tag(136, "PRESERVE_HOST", U32, False, "ProxyPreserveHost 0|1"),
    Tag(137, "CGI_PASS_AUTH", U32, False, "CGIPassAuth 0|1"),
    Tag(138, "PROXY_TIMEOUT", U32, False, "ProxyTimeout, ms"),
    Tag(139, "FCGID_WRAPPER", STRS, True, "command, extension in lower case without dot; empty extension = all"),
    Tag(140, "FCGI_SETENV", BOX, True, "ProxyFCGISetEnvIf: FCGI_ENV_* items"),
    Tag(141, "FCGI_ENV_NAME", STR, False, "name of the variable"),
    Tag(142, "FCGI_ENV_VALUE", RAW, False, "FORMAT operations; absent: the variable is unset"),
    Tag(143, "PHP_VALUE", STRS, True, "php_value, php_flag, php_admin_value or php_admin_flag; name; value (flags: 1 or 0)"),
    Tag(144, "SSL_REQUIRE", U32, False, "SSLRequireSSL: 1 = requests without TLS are refused"),
    Tag(146, "SSL_VERIFY", U32, False, "SSLVerifyClient in a section, as TLS_VERIFY: what the handshake must have come to"),
    Tag(145, "SSL_OPTIONS", U32S, False, "SSLOptions: absolute 0|1, added bits, removed bits (SSL_OPTION_BITS)"),
    # --- anonymous members of boxes ---------------------------------------------------------------------------------
    Tag(200, "VALUE_U32S", U32S, True, "as the box says"),
    Tag(201, "VALUE_STR", STR, True, "as the box says"),
    # --- TLS -------------------------------------------------------------------------------------------------------
    Tag(210, "TLS_BROKEN", STR, False, "why this host has no usable certificate: its handshakes end with an alert and a line in the log; "
                                       "then there may be no TLS_CERT"),
    Tag(211, "TLS_CERT", BOX, True, "a certificate: at most one of each kind of key"),
    Tag(212, "CERT_PEM", STR, False, "PEM: the leaf, then its chain"),
    Tag(213, "KEY_NUMBER", U32, False, "index of its key among the descriptors that the child is given"),
    Tag(226, "TLS_SOURCE", STRS, True, "what this box is made of, for compile, when a file changes: cert, key (of the last cert), chain, ca, "
                                       "ca-path, crl or crl-path; absolute path"),
    Tag(225, "KEY_PATH", STR, False, "absolute path of it: the child opens what the dispatcher did not"),
    Tag(214, "TLS_PROTOCOLS", U32, False, "SSLProtocol (TLS_PROTOCOL_BITS), at least one"),
    Tag(215, "TLS_CIPHERS", STR, False, "SSLCipherSuite for TLS 1.2, as OpenSSL writes it; absent: as built in"),
    Tag(216, "TLS_SUITES", STR, False, "SSLCipherSuite TLSv1.3; absent: OpenSSL's"),
    Tag(217, "TLS_SERVER_ORDER", U32, False, "SSLHonorCipherOrder 0|1"),
    Tag(218, "TLS_CONF", STRS, True, "SSLOpenSSLConfCmd: command, value (SSL_CONF_cmd(3))"),
    Tag(219, "TLS_TICKETS", U32, False, "SSLSessionTickets 0|1"),
    Tag(220, "TLS_TIMEOUT", U32, False, "SSLSessionCacheTimeout, s: how long a session may be resumed"),
    Tag(221, "TLS_VERIFY", U32, False, "SSLVerifyClient: 0 none, 1 optional, 2 require, 3 optional_no_ca"),
    Tag(222, "TLS_DEPTH", U32, False, "SSLVerifyDepth"),
    Tag(223, "TLS_CA", STR, False, "PEM: authorities of clients' certificates (SSLCACertificateFile, SSLCACertificatePath)"),
    Tag(227, "TLS_CRL", STR, False, "PEM: revocation lists (SSLCARevocationFile, SSLCARevocationPath)"),
    Tag(228, "TLS_CRL_CHECK", U32, False, "SSLCARevocationCheck: bits 1 the client's own certificate, 2 the authorities' too, 4 no_crl_for_cert_ok"),
    Tag(224, "TLS_STRICT", U32, False, "SSLStrictSNIVHostCheck: 1 = a client without SNI is refused"),
)

# Bits of OPTIONS.  All = everything but MultiViews (httpd).
OPTION_BITS = {
    "indexes": 1, "includes": 2, "followsymlinks": 4, "symlinksifownermatch": 8, "execcgi": 16, "multiviews": 32,
    "includesnoexec": 64,
}

# Bits of PROTOCOLS, TLS_PROTOCOLS and SSL_OPTIONS.
PROTOCOL_BITS = {"http/1.1": 1, "h2": 2, "h2c": 4, "h1_first": 8}  # h1_first: http/1.1 is preferred to h2
TLS_PROTOCOL_BITS = {"tlsv1.2": 1, "tlsv1.3": 2}
SSL_OPTION_BITS = {"stdenvvars": 1, "exportcertdata": 2, "strictrequire": 4}

# HEADER_ACTION's first number.
HEADER_ACTIONS = {"set": 0, "append": 1, "add": 2, "merge": 3, "unset": 4, "edit": 5, "setifempty": 6, "echo": 7, "note": 8}

# ACCESS: a node is u8 kind, u8 negate (Require not ...), u16 payload length, payload.
# Containers (payload: nodes): REQUIRE_ALL, REQUIRE_ANY, REQUIRE_NONE. The tree is one container. Leaves:
ACCESS_KINDS = {
    "all": 1,  # container RequireAll
    "any": 2,  # container RequireAny
    "none": 3,  # container RequireNone
    "granted": 4,  # everybody ("all granted"; "Allow from all")
    "denied": 5,  # nobody
    "ip": 6,  # u8 family 4|6, u8 prefix bits, 4 or 16 bytes
    "host": 7,  # name or .suffix, lower case: forward-confirmed reverse DNS, asked of Python
    "local": 8,  # 127.0.0.0/8, ::1, or client and server address equal
    "env": 9,  # variable name (Allow from env=X, Require env X)
    "method": 10,  # method names, blank between
}

# FORMAT: a log or header format is a sequence of operations: u8 op, u8 flags, u16 argument length, argument.
# flags: 1 = '<' original request, 2 = '>' final request (no difference here), 4 = a status condition follows,
# 8 = the condition is negated. Condition (when flag 4): u8 count, count x u16 status, before the argument's bytes and
# counted in its length.
FORMAT_OPS = {
    "literal": 0,  # argument: the bytes
    "a": 1,  # client address; argument "c": the connection's
    "A": 2,  # server address
    "B": 3,  # body bytes, 0 as 0
    "b": 4,  # body bytes, 0 as -
    "C": 5,  # cookie; argument name
    "D": 6,  # duration, microseconds
    "e": 7,  # environment variable; argument name
    "f": 8,  # file name
    "h": 9,  # client host (address; names are not looked up)
    "H": 10,  # protocol
    "i": 11,  # request field; argument name
    "k": 12,  # keep-alive requests handled on this connection before this one
    "l": 13,  # identd: always -
    "L": 14,  # request log id
    "m": 15,  # method
    "n": 16,  # note; argument name
    "o": 17,  # response field; argument name
    "p": 18,  # port; argument canonical (default), local, remote
    "P": 19,  # argument pid (default), tid, hextid
    "q": 20,  # query with '?', or empty
    "r": 21,  # request line
    "R": 22,  # handler
    "s": 23,  # status
    "t": 24,  # time; argument: "" CLF form, else strftime format, or sec, msec, usec, msec_frac, usec_frac; begin:/end: before
    "T": 25,  # duration; argument s (default), ms, us
    "u": 26,  # user
    "U": 27,  # URL path without query
    "v": 28,  # canonical ServerName
    "V": 29,  # name according to UseCanonicalName Off: the request's Host
    "X": 30,  # connection: X aborted, + kept, - closed
    "I": 31,  # bytes received, head included
    "O": 32,  # bytes sent, head included
    "S": 33,  # bytes received and sent
    "x": 34,  # TLS variable; argument name; - without TLS
}

NO_HOST = 0xFFFFFFFF

_BY_NAME = {tag.name: tag for tag in TAGS}


def item(name: str, payload: bytes) -> bytes:
    """Return one item: the tag called `name` around `payload`."""
    return struct.pack("<HHI", _BY_NAME[name].number, 0, len(payload)) + payload


def u32s(name: str, *numbers: int) -> bytes:
    """Return an item of one or several u32."""
    return item(name, struct.pack(f"<{len(numbers)}I", *numbers))


def u64(name: str, number: int) -> bytes:
    """Return an item of one u64."""
    return item(name, struct.pack("<Q", number))


def text(name: str, value: str | bytes) -> bytes:
    """Return an item of type STR; str is encoded as UTF-8 with surrogateescape."""
    return item(name, value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)


def texts(name: str, *values: str) -> bytes:
    """Return an item of type STRS."""
    raw = [value.encode("utf-8", "surrogateescape") for value in values]
    return item(name, b"".join(struct.pack("<I", len(one)) + one for one in raw))


def render_header() -> str:
    """Return the text of native/record.h: the numbers above as C constants."""
    lines = ["/* record.h - generated by perchild/wire/record.py; do not edit. */", "#ifndef PC_RECORD_H",
             "#define PC_RECORD_H", "", f"#define PC_RECORD_VERSION {VERSION}", ""]
    lines += [f"#define PC_T_{tag.name} {tag.number} /* {tag.type}{', many' if tag.many else ''}: {tag.meaning} */"
              for tag in TAGS]
    for prefix, table in (("PC_OPT_", OPTION_BITS), ("PC_PROTOCOL_", PROTOCOL_BITS), ("PC_TLS_", TLS_PROTOCOL_BITS),
                          ("PC_SSL_", SSL_OPTION_BITS), ("PC_HDR_", HEADER_ACTIONS), ("PC_ACC_", ACCESS_KINDS)):
        lines += ["", *(f"#define {prefix}{name.upper().replace('/', '_').replace('.', '_')} {number}" for name, number in table.items())]
    lines += ["", *(f"#define PC_FMT_{name if len(name) == 1 else name.upper()} {number}" for name, number in FORMAT_OPS.items())]
    lines += ["", f"#define PC_NO_HOST 0x{NO_HOST:X}u"]
    return "\n".join([*lines, "", "#endif", ""])


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "native/record.h").write_text(render_header())
