"""The table, part five: what is passed on to back ends, and whom requests come from when a front end passes them on to us.

Runs as: compile (pure).  Source: httpd's mod_proxy, mod_remoteip.
"""

from __future__ import annotations

import re

from perchild.config.access import pack_address, pack_node
from perchild.config.directives_program import BOTH, Pass
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import ANYWHERE, MANY, SECTION, Parse, Row, custom, one
from perchild.config.targets import MAX_TIME_MS, Parameters, find_worker, parse_parameters, parse_target
from perchild.config.values import FLAG, Env, time_ms

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_LOCATIONS = frozenset(("<location", "<locationmatch"))
_OUTSIDE = frozenset(("", "<virtualhost"))

# --- proxying ----------------------------------------------------------------------------------------------------


def _check_origin(name: str, word: str, kind: int, env: Env) -> None:
    if kind == 1:
        env.pattern(word)
    elif not word.startswith("/"):
        message = f"{name} needs a URL path that begins with '/', not '{word}'"
        raise BadDirectiveError(message, 0)


def _passer(name: str, kind: int) -> Parse:
    def parse(words: list[str], env: Env) -> Pass:
        if env.context in _LOCATIONS:
            at, origin, own_kind = 0, env.location, int(env.is_location_pattern)
            if len(words) > 1 and "=" not in words[1]:
                message = f"{name} within <Location> takes the back end's URL alone: the path is the section's"
                raise BadDirectiveError(message, 1)
        elif env.context not in _OUTSIDE:
            message = f"{name} not allowed in {env.context}> context: <Location> is the section for URLs"
            raise BadDirectiveError(message)
        else:
            at, origin, own_kind = 1, words[0], kind
            _check_origin(name, origin, kind, env)
            if len(words) < 2:  # noqa: PLR2004
                message = f"{name} needs a back end's URL behind the path, or '!'"
                raise BadDirectiveError(message, 0)
        is_section = at == 0
        if words[at] == "!":
            return Pass(own_kind, origin, "!", Parameters(), is_section)
        target = parse_target(words[at], at, env)
        worker = find_worker(target, env.workers)
        given = parse_parameters(words[at + 1 :], at + 1, env).within(worker.parameters if worker else Parameters())
        if target.startswith("ws://") and not given.upgrade:
            given = given._replace(upgrade="websocket")
        return Pass(own_kind, origin, target, given, is_section)

    return parse


def _parse_reverse(words: list[str], env: Env) -> tuple[str, str]:
    if words[-1].lower() == "interpolate" and len(words) > 1:
        env.warn("interpolate has no effect", len(words) - 1)
        words = words[:-1]
    if len(words) == 1:
        if env.context != "<location":
            message = "ProxyPassReverse needs the path that clients see, and the back end's URL"
            raise BadDirectiveError(message, 0)
        words = [env.location, *words]
    _check_origin("ProxyPassReverse", words[0], 0, env)
    url = words[1].rpartition("|")[2]
    if "://" not in url and not url.startswith("/"):
        message = f"'{words[1]}' is no URL"
        raise BadDirectiveError(message, 1)
    return words[0], url


def _parse_cookie(words: list[str], env: Env) -> tuple[str, str]:
    if len(words) > 2:  # noqa: PLR2004
        env.warn(f"{words[2]} has no effect", 2)
    return words[0], words[1]


def _parse_requests(words: list[str], env: Env) -> None:
    if FLAG.parse(words[0], 0, env):
        message = ("ProxyRequests On would make an open proxy, by which anybody reaches anything from this machine; it is not supported. "
                   "To pass requests on to a back end, ProxyPass is enough")
        raise BadDirectiveError(message, 0)


def _parse_proxy_set(words: list[str], env: Env) -> Parameters:
    if env.context != "<proxy":
        message = "ProxySet belongs into <Proxy URL>: there it says which back end is meant"
        raise BadDirectiveError(message)
    return parse_parameters(words, 0, env)


# --- addresses of clients ----------------------------------------------------------------------------------------


def _parse_field_name(words: list[str], _env: Env) -> str:
    if not _TOKEN.match(words[0]):
        message = f"'{words[0]}' is no name of a header field"
        raise BadDirectiveError(message, 0)
    return words[0]


def _parse_addresses(words: list[str], env: Env) -> list[bytes]:
    leaves: list[bytes] = []
    for index, word in enumerate(words):
        leaf = pack_address(word, index)
        if leaf is None:
            found = env.resolve(word)
            if not found:
                message = f"'{word}' is no IP address, no network, and no name that is known"
                raise BadDirectiveError(message, index)
            leaves += [pack_node("ip", bytes((family, 8 * len(packed))) + packed) for family, packed in found]
        else:
            leaves.append(leaf)
    return leaves


_WORKER = "timeout=s, connectiontimeout=s, retry=s, upgrade=protocol[,...]|ANY|NONE, disablereuse=On|Off; fcgi: enablereuse=On max=workers"

ROWS: tuple[Row, ...] = (
    custom("ProxyPass", BOTH | SECTION, "[URL-path] URL|! [key=value ...]", (1, MANY), _passer("ProxyPass", 0), "host", "passes",
           f"Pass requests that begin so on to a back end; the first that fits counts; ! = not here. {_WORKER}. The host's own user connects, "
           "also to unix:/path|http://host/", store="append"),
    custom("ProxyPassMatch", BOTH | SECTION, "[regex] URL|! [key=value ...]", (1, MANY), _passer("ProxyPassMatch", 1), "host", "passes",
           "The same for URLs that match; $0..$9 stand for what matched, not in the host", store="append"),
    custom("ProxyPassReverse", ANYWHERE, "[URL-path] URL", (1, 3), _parse_reverse, "settings", "proxy_reverse",
           "Change Location, Content-Location and URI of a back end's responses back", store="append"),
    custom("ProxyPassReverseCookiePath", ANYWHERE, "internal public", (2, 3), _parse_cookie, "settings", "cookie_paths",
           "Change the path of a back end's cookies", store="append"),
    custom("ProxyPassReverseCookieDomain", ANYWHERE, "internal public", (2, 3), _parse_cookie, "settings", "cookie_domains",
           "Change the domain of a back end's cookies", store="append"),
    one("ProxyPreserveHost", ANYWHERE, FLAG, "settings", "preserve_host", "Whether a back end is sent the client's Host field", default="Off"),
    one("ProxyTimeout", BOTH, time_ms(1, MAX_TIME_MS), "settings", "proxy_timeout_ms", "How long a back end may be silent", default="Timeout"),
    custom("ProxyRequests", BOTH, "Off", (1, 1), _parse_requests, "host", "", "Off is what we do; On is refused", store="ignore",
           default="Off"),
    custom("ProxySet", SECTION, "key=value ...", (1, MANY), _parse_proxy_set, "host", "proxy_set",
           f"Within <Proxy>: parameters of this back end: {_WORKER}", store="append"),
    custom("RemoteIPHeader", BOTH, "field", (1, 1), _parse_field_name, "host", "remote_ip_header",
           "Field in which a trusted front end names the client"),
    custom("RemoteIPInternalProxy", BOTH, "address|network|host ...", (1, MANY), _parse_addresses, "host", "remote_ip_internal",
           "Front ends that are believed whatever address they name", store="extend"),
    custom("RemoteIPTrustedProxy", BOTH, "address|network|host ...", (1, MANY), _parse_addresses, "host", "remote_ip_trusted",
           "Front ends that are believed if they name a public address", store="extend"),
    one("RemoteIPProxyProtocol", BOTH, FLAG, "host", "proxy_protocol",
        "Whether connections begin with a PROXY protocol header (version 1 or 2), which must be there. It counts for the whole address. Only "
        "the front ends above may send one; where none is listed, any peer", default="Off"),
)
