"""The table, part six: TLS and HTTP/2.

What mod_ssl and mod_http2 have besides is taken, and listed as without effect, where leaving it out changes no answer to the question
who may see what; what would (SSLRequire, OCSP) is not known here, and an error.
Runs as: compile (pure).  Source: httpd's mod_ssl, mod_http2; SSL_CONF_cmd(3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from perchild import limits
from perchild.config.directives_program import BOTH
from perchild.config.directives_section import Bits
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import ANYWHERE, MANY, Row, custom, one
from perchild.config.values import FLAG, PATH, Env, number, parse_choice, parse_number
from perchild.wire.record import PROTOCOL_BITS, SSL_OPTION_BITS, TLS_PROTOCOL_BITS

TLS_ALL = sum(TLS_PROTOCOL_BITS.values())
H1_FIRST = PROTOCOL_BITS["h1_first"]
_OLD = frozenset(("sslv2", "sslv3", "tlsv1", "tlsv1.1"))
_OUTSIDE = frozenset(("", "<virtualhost"))
_VERIFY = {"none": 0, "optional": 1, "require": 2, "optional_no_ca": 3, "off": 0, "on": 2}
_CRL_CHECK = {"none": 0, "leaf": 1, "chain": 3}
_CRL_MISSING_OK = 4
_IDLE_OPTIONS = frozenset(("optrenegotiate", "legacydnstringformat"))
# What SSL_CONF_cmd may be given here; the rest has directives, or reads files that a child must not.
_COMMANDS = {name.lower(): name for name in (
    "CipherString", "Ciphersuites", "Curves", "Groups", "ECDHParameters", "SignatureAlgorithms", "ClientSignatureAlgorithms", "MinProtocol",
    "MaxProtocol", "Protocol", "Options", "NumTickets")}


class Spoken(NamedTuple):
    """Protocols: bits of PROTOCOL_BITS; several lines add up."""

    bits: int

    def then(self, over: Spoken) -> Spoken:
        """Return both; which of http/1.1 and h2 came first stays."""
        return Spoken(self.bits | (over.bits & ~H1_FIRST))




def _parse_engine(words: list[str], _env: Env) -> bool:
    if words[0].lower() == "optional":
        message = "SSLEngine optional (RFC 2817) is not supported: no client speaks it; On or Off"
        raise BadDirectiveError(message, 0)
    return bool(parse_choice(words[0], 0, {"on": True, "off": False}))


def _parse_protocol(words: list[str], env: Env) -> int:
    bits = 0
    for index, word in enumerate(words):
        sign, name = (word[0], word[1:]) if word[0] in "+-" else ("", word)
        if name.lower() in _OLD:
            if sign != "-":
                env.warn(f"{name} is broken and not spoken any more: without effect", index)
            continue
        bit = TLS_ALL if name.lower() == "all" else parse_choice(name, index, TLS_PROTOCOL_BITS)
        bits = bits & ~bit if sign == "-" else bits | bit
    if not bits:
        message = "no protocol is left: TLSv1.2 and TLSv1.3 are spoken"
        raise BadDirectiveError(message, 0)
    return bits


def _parse_ciphers(words: list[str], env: Env) -> dict[str, str]:
    kind = parse_choice(words[0], 0, {"ssl": "CipherString", "tlsv1.3": "Ciphersuites"}) if len(words) > 1 else "CipherString"
    wrong = env.tls.command(kind, words[-1])
    if wrong is not None:
        message = f"SSLCipherSuite: OpenSSL does not take '{words[-1]}': {wrong}"
        raise BadDirectiveError(message, len(words) - 1)
    return {kind: words[-1]}


def _parse_command(words: list[str], env: Env) -> tuple[str, str] | None:
    if words[0].lower() == "dhparameters":
        env.warn("SSLOpenSSLConfCmd DHParameters has no effect: OpenSSL has groups of its own (RFC 7919)", -1)
        return None
    name = _COMMANDS.get(words[0].lower())
    if name is None:
        message = (f"SSLOpenSSLConfCmd {words[0]} is not supported; there are {', '.join(_COMMANDS.values())}, "
                   "and certificates, keys and authorities have directives")
        raise BadDirectiveError(message, 0)
    wrong = env.tls.command(name, words[1])
    if wrong is not None:
        message = f"SSLOpenSSLConfCmd: OpenSSL does not take '{words[1]}' for {name}: {wrong}"
        raise BadDirectiveError(message, 1)
    return name, words[1]


def _parse_options(words: list[str], env: Env) -> Bits:
    is_relative = words[0][0] in "+-"
    bits = Bits(int(not is_relative), 0, 0)
    for index, word in enumerate(words):
        name = word.lstrip("+-").lower()
        if name == "fakebasicauth" and word[0] != "-":
            message = "FakeBasicAuth is not supported: SSLVerifyClient require admits who has a certificate"
            raise BadDirectiveError(message, index)
        if name in _IDLE_OPTIONS or name == "fakebasicauth":
            if word[0] != "-":
                env.warn(f"{word} has no effect", index)
            continue
        bit = parse_choice(name, index, SSL_OPTION_BITS)
        bits = (Bits(bits.absolute, bits.added & ~bit, bits.removed | bit) if word[0] == "-"
                else Bits(bits.absolute, bits.added | bit, bits.removed & ~bit))
    return bits


def _for_hosts(name: str, parse: Callable[[list[str], Env], Any]) -> Callable[[list[str], Env], Any]:
    """Return a parser that says why this one cannot stand in a section."""
    def checked(words: list[str], env: Env) -> Any:  # noqa: ANN401 (any directive's)
        if env.context not in _OUTSIDE:
            message = (f"{name} in a section would need a second handshake in the middle of a connection, which TLS 1.3 and HTTP/2 do not have: "
                       "put it into the <VirtualHost>, or give that part a host of its own")
            raise BadDirectiveError(message)
        return parse(words, env)

    return checked


def _parse_verify(words: list[str], env: Env) -> int:
    """Return what a host asks of its clients; in a section: what must have come of it."""
    word = words[0]
    if env.context in _OUTSIDE:
        return int(parse_choice(word, 0, _VERIFY))
    if word.lower() == "optional_no_ca":
        message = "SSLVerifyClient optional_no_ca in a section has no meaning: the <VirtualHost> says which certificates a handshake takes"
        raise BadDirectiveError(message, 0)
    return int(parse_choice(word, 0, _VERIFY))


def _parse_crl_check(words: list[str], _env: Env) -> int:
    bits = int(parse_choice(words[0], 0, _CRL_CHECK))
    if len(words) > 1:
        bits |= parse_choice(words[1], 1, {"no_crl_for_cert_ok": _CRL_MISSING_OK}) if bits else 0
    return bits


def _parse_spoken(words: list[str], env: Env) -> Spoken:
    bits = 0
    for index, word in enumerate(words):
        bit = PROTOCOL_BITS.get(word.lower(), 0) & ~H1_FIRST
        if not bit:
            env.warn(f"{word} is not spoken here: without effect; there are http/1.1, h2 and h2c", index)
        if bit == PROTOCOL_BITS["http/1.1"] and not bits & PROTOCOL_BITS["h2"]:
            bits |= H1_FIRST
        bits |= bit
    if not bits & ~H1_FIRST:
        message = "no protocol is left: http/1.1, h2 and h2c are spoken"
        raise BadDirectiveError(message, 0)
    return Spoken(bits if bits & PROTOCOL_BITS["h2"] else bits & ~H1_FIRST)


def _for_server(place: int, parse: Callable[[list[str], Env], int]) -> Callable[[list[str], Env], dict[int, int]]:
    """Return a parser of what counts for the whole server, and is taken elsewhere, as in httpd, without effect."""
    def checked(words: list[str], env: Env) -> dict[int, int]:
        value = parse(words, env)
        if not env.context:
            return {place: value}
        env.warn("this counts for the whole server, and has no effect here: write it outside of hosts and sections", -1)
        return {}

    return checked


def _h2(place: int, low: int, high: int) -> Callable[[list[str], Env], dict[int, int]]:
    return _for_server(place, lambda words, _env: parse_number(words[0], 0, low, high))


def _idle(name: str, doc: str, *, is_said: bool, off: str = "off") -> Row:
    """Return the row of a directive without effect. is_said: with a warning, unless its argument is `off`."""
    def parse(words: list[str], env: Env) -> None:
        if is_said and not (words and words[0].lower() == off):
            env.warn(f"{name} has no effect: {doc}", -1)

    return custom(name, ANYWHERE, "...", (0, MANY), parse, "host", "", f"Without effect: {doc}", store="ignore")


_STAPLING = "stapled answers have gone out of use: authorities no longer give them"
_CACHE = "sessions are resumed by tickets, whose keys each identity has for itself"
_BACK = "no back end is reached by TLS"
_LANE = "streams are served by the child's own threads"
_QUIET: tuple[tuple[str, str], ...] = (
    *((name, _STAPLING) for name in (
        "SSLUseStapling", "SSLStaplingCache", "SSLStaplingErrorCacheTimeout", "SSLStaplingFakeTryLater", "SSLStaplingForceURL",
        "SSLStaplingResponderTimeout", "SSLStaplingResponseMaxAge", "SSLStaplingResponseTimeSkew", "SSLStaplingReturnResponderErrors",
        "SSLStaplingStandardCacheTimeout")),
    ("SSLSessionCache", _CACHE),
    ("SSLRandomSeed", "the kernel's random numbers need no seed"),
    ("SSLPassPhraseDialog", "keys with a pass phrase are refused"),
    ("SSLRenegBufferSize", "there is no renegotiation"),
    *((name, _BACK) for name in (
        "SSLProxyCACertificateFile", "SSLProxyCACertificatePath", "SSLProxyCARevocationCheck", "SSLProxyCARevocationFile",
        "SSLProxyCARevocationPath", "SSLProxyCheckPeerCN", "SSLProxyCheckPeerExpire", "SSLProxyCheckPeerName", "SSLProxyCipherSuite",
        "SSLProxyEngine", "SSLProxyMachineCertificateChainFile", "SSLProxyMachineCertificateFile", "SSLProxyMachineCertificatePath",
        "SSLProxyProtocol", "SSLProxyVerify", "SSLProxyVerifyDepth")),
    *((name, _LANE) for name in (
        "H2MaxWorkers", "H2MinWorkers", "H2MaxWorkerIdleSeconds", "H2StreamMaxMemSize", "H2SerializeHeaders", "H2CopyFiles",
        "H2OutputBuffering")),
    *((name, "nothing is pushed: browsers have dropped it") for name in (
        "H2Push", "H2PushDiarySize", "H2PushPriority", "H2PushResource")),
    ("H2ModernTLSOnly", "all that is spoken is modern enough"),
    ("H2Direct", "Protocols says whether h2c is spoken"),
    ("H2Upgrade", "Upgrade: h2c is not honoured, as in RFC 9113"),
    ("H2WebSockets", "RFC 8441 is spoken where a back end takes WebSockets"),
    ("H2TLSCoolDownSecs", "records have one size"), ("H2TLSWarmUpSize", "records have one size"),
    ("H2Padding", "answers are not padded"),
    ("H2MaxHeaderBlockLen", "a response's fields have limits of their own"),
    ("H2MaxStreamErrors", "clients that err again and again are ended without it"),
    ("H2SessionExtraFiles", "streams are served by the child's own threads"),
)
_SAID: tuple[tuple[str, str, str], ...] = (
    ("SSLCompression", "compression gives secrets away (CRIME)", "off"),
    ("SSLInsecureRenegotiation", "there is no renegotiation", "off"),
    ("SSLCryptoDevice", "OpenSSL's own code is used", "builtin"),
    ("SSLFIPS", "OpenSSL's own configuration says whether it is a FIPS module", "off"),
    ("SSLSessionTicketKeyFile", "ticket keys are made here, for each identity, and renewed twice a day", ""),
    ("SSLCADNRequestFile", "clients are sent the names of SSLCACertificateFile's", ""),
    ("SSLCADNRequestPath", "clients are sent the names of SSLCACertificateFile's", ""),
    ("SSLVHostSNIPolicy", "it is secure, and the name of a handshake and that of a request must belong to the same identity", ""),
    ("SSLSRPVerifierFile", "passwords by SRP are not spoken", ""), ("SSLSRPUnknownUserSeed", "passwords by SRP are not spoken", ""),
    ("H2AltSvc", "write an Alt-Svc field with Header", ""), ("H2AltSvcMaxAge", "write an Alt-Svc field with Header", ""),
    ("H2EarlyHint", "write a Link field with Header", ""),
    ("H2StreamTimeout", "Timeout counts for streams, too", ""),
    ("H2ProxyRequests", "there is no forward proxy", "off"),
)

ROWS: tuple[Row, ...] = (
    custom("SSLEngine", BOTH, "On|Off", (1, 1), _parse_engine, "host", "tls_engine",
           "Whether the host speaks TLS; all hosts of one address must agree", default="Off", is_located=True),
    one("SSLCertificateFile", BOTH, PATH, "host", "tls_certs",
        "Certificate in PEM form, its chain behind it; may be repeated for another kind of key (RSA, ECDSA)", store="append", is_located=True),
    one("SSLCertificateKeyFile", BOTH, PATH, "host", "tls_keys",
        "Its private key, without a pass phrase; may be root's alone, 0600. A second one belongs to the second certificate", store="append",
        default="the certificate's file", is_located=True),
    one("SSLCertificateChainFile", BOTH, PATH, "host", "tls_chain", "What is sent behind the certificate, if it is not in its file",
        is_located=True),
    one("SSLCACertificateFile", BOTH, PATH, "host", "tls_ca_file", "Authorities of clients' certificates", is_located=True),
    one("SSLCACertificatePath", BOTH, PATH, "host", "tls_ca_path", "Directory with them, in files that are called by their hash",
        is_located=True),
    one("SSLCARevocationFile", BOTH, PATH, "host", "tls_crl_file", "Revocation lists of those authorities, in PEM form; read again when they change",
        is_located=True),
    one("SSLCARevocationPath", BOTH, PATH, "host", "tls_crl_path", "Directory with them, in files that are called by their hash (.r0)",
        is_located=True),
    custom("SSLCARevocationCheck", BOTH, "none|leaf|chain [no_crl_for_cert_ok]", (1, 2), _parse_crl_check, "host", "tls_crl_check",
           "Whether the lists count: for the client's own certificate, or for its authorities', too", default="none", is_located=True),
    custom("SSLProtocol", BOTH, "[+|-]protocol ...", (1, MANY), _parse_protocol, "host", "tls_protocols",
           "all, TLSv1.2, TLSv1.3; older ones are not spoken", default="all"),
    custom("SSLCipherSuite", ANYWHERE, "[TLSv1.3] ciphers", (1, 2), _for_hosts("SSLCipherSuite", _parse_ciphers), "host", "tls_ciphers",
           "Ciphers as OpenSSL names them; with TLSv1.3 those of TLS 1.3; of a host alone", store="update", default="Mozilla's intermediate list"),
    one("SSLHonorCipherOrder", BOTH, FLAG, "host", "tls_server_order", "Whether our order of ciphers counts, not the client's", default="Off"),
    one("SSLSessionTickets", BOTH, FLAG, "host", "tls_tickets", "Whether clients may resume a session", default="On"),
    one("SSLSessionCacheTimeout", BOTH, number(1, 86_400, "seconds", "seconds"), "host", "tls_timeout_s",
        "How long a session may be resumed", default="300"),
    custom("SSLVerifyClient", ANYWHERE, "none|optional|require|optional_no_ca", (1, 1), _parse_verify, "host", "tls_verify",
           "Whether clients are asked for a certificate, in the handshake; in a section: who showed none is refused, if its host asks",
           default="none", is_located=True),
    custom("SSLVerifyDepth", ANYWHERE, "number", (1, 1),
           _for_hosts("SSLVerifyDepth", lambda words, _env: parse_number(words[0], 0, 0, 100)), "host", "tls_depth",
           "Authorities between a client's certificate and one of ours", default="1", range="0..100"),
    custom("SSLRequireSSL", ANYWHERE, "", (0, 0), lambda _words, _env: 1, "settings", "ssl_require", "Requests without TLS are refused"),
    custom("SSLOptions", ANYWHERE, "[+|-]option ...", (1, MANY), _parse_options, "settings", "ssl_options",
           "StdEnvVars: programs get SSL_* variables; ExportCertData: with the certificates; StrictRequire", store="combine"),
    one("SSLStrictSNIVHostCheck", BOTH, FLAG, "host", "tls_strict", "Whether clients that name no host in the handshake are refused", default="Off"),
    custom("SSLOpenSSLConfCmd", BOTH, "command value", (2, 2), _parse_command, "host", "tls_commands",
           f"Commands of SSL_CONF_cmd(3): {', '.join(_COMMANDS.values())}", store="append"),
    custom("Protocols", BOTH, "protocol ...", (1, MANY), _parse_spoken, "host", "protocols",
           "What clients may speak: http/1.1, h2 (by TLS), h2c (h2 without TLS, with prior knowledge)", store="combine", default="http/1.1"),
    custom("ProtocolsHonorOrder", BOTH, "On|Off", (1, 1), lambda words, env: FLAG.parse(words[0], 0, env), "host", "protocols_order",
           "Whether the order of Protocols counts, or h2 comes first wherever a client speaks it", default="On"),
    custom("H2MaxSessionStreams", BOTH, "number", (1, 1), _h2(0, 1, 1000), "server", "h2_limits",
           "Streams of one connection at a time; of the whole server",
           store="update", default=str(limits.value("H2_STREAMS")), range="1..1000"),
    custom("H2WindowSize", BOTH, "bytes", (1, 1), _h2(1, 65535, 1 << 24), "server", "h2_limits",
           "Bytes of a request's body on their way; of the whole server",
           store="update", default=str(limits.value("H2_WINDOW_BYTES")), unit="bytes", range=f"65535..{1 << 24}"),
    custom("H2MaxDataFrameLen", BOTH, "bytes", (1, 1), _h2(2, 0, 16384), "server", "h2_limits",
           "Longest piece of an answer, 0 = what fits; of the whole server",
           store="update", default="0", unit="bytes", range="0..16384"),
    custom("H2EarlyHints", ANYWHERE, "On|Off", (1, 1), _for_server(3, lambda words, env: int(FLAG.parse(words[0], 0, env))), "server", "h2_limits",
           "Whether 103 answers of back ends go to clients of HTTP/2, too; of the whole server", store="update", default="Off"),
    *(_idle(name, doc, is_said=False) for name, doc in _QUIET),
    *(_idle(name, doc, is_said=True, off=off) for name, doc, off in _SAID),
)

DEFAULTS: dict[str, Any] = {
    "tls_protocols": TLS_ALL, "tls_server_order": False, "tls_tickets": True, "tls_timeout_s": 300, "tls_verify": (0, None), "tls_depth": 1,
    "tls_crl_check": (0, None),
    "tls_strict": False, "tls_ciphers": {}, "tls_commands": [], "protocols": Spoken(PROTOCOL_BITS["http/1.1"]), "protocols_order": True,
}
