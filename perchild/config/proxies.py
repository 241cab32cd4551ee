"""<Proxy> sections, and which settings make a program of a file.

A <Proxy> says parameters of a back end, and may give its name a Unix socket: unix:/path|fcgi://name. It counts wherever that back end
is named in its host, before or behind it, so all of them are read before anything else.
Runs as: compile (pure).  Source: httpd's mod_proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perchild.config import access
from perchild.config.merge import Settings
from perchild.config.messages import BadDirectiveError
from perchild.config.targets import HANDLER_PREFIX, Parameters, Worker, find_worker, parse_worker
from perchild.config.tokens import QuoteError, split_words
from perchild.config.tree import Node
from perchild.config.values import Env

SECTION = "<proxy"
HANDLERS = frozenset(("handler", "add_handler"))
PROGRAM_FIELDS = HANDLERS | {"add_type", "force_type", "wrappers"}
_PROGRAM_HANDLERS = frozenset(("cgi-script", "fcgid-script", "fcgi-script", "fastcgi-script", "application/x-httpd-cgi"))
_ACCESS_FIELDS = frozenset(("require", "order", "allow", "deny"))

Fail = Callable[[Node, str, int], None]
TakeInside = Callable[[Node, str], tuple[Settings, Settings]]


def _names(field: str, value: Any) -> Sequence[str]:  # noqa: ANN401 (any field's)
    return tuple(value.values()) if field in {"add_handler", "add_type"} else (value,)


def is_run_here(field: str, value: Any) -> bool:  # noqa: ANN401 (any field's)
    """Tell whether a setting of PROGRAM_FIELDS has files run as programs by the host's user; passing on to a socket is none."""
    return field == "wrappers" or any(name.lower() in _PROGRAM_HANDLERS for name in _names(field, value))


def find_wrappers(field: str, value: Any) -> list[str]:  # noqa: ANN401 (any field's)
    """Return the commands of FcgidWrapper that a setting names."""
    return list(value.values()) if field == "wrappers" else []


def find_timeout_ms(field: str, value: Any, workers: Mapping[str, Worker]) -> int:  # noqa: ANN401 (any field's)
    """Return what <Proxy> says of the timeout of a handler's back end; 0 = nothing."""
    if not workers or field not in HANDLERS:
        return 0
    found = [find_worker(name[len(HANDLER_PREFIX) :], workers) for name in _names(field, value) if name.startswith(HANDLER_PREFIX)]
    return max((worker.parameters.timeout_ms for worker in found if worker), default=0)


class Reader:
    """Reads <Proxy> sections; env.workers are those in force, `key` says which they are."""

    def __init__(self, env: Env, fail: Fail, take_inside: TakeInside) -> None:
        self._env = env
        self._fail = fail
        self._take_inside = take_inside
        self._of_server: dict[str, Worker] = {}
        self.key = ""

    def find_of_server(self, nodes: Sequence[Node]) -> None:
        """Read the sections outside of hosts."""
        self._of_server = self._find(nodes)
        self.leave_host()

    def find_of_host(self, nodes: Sequence[Node]) -> bool:
        """Read a host's own sections; tell whether there are any. Then leave_host ends them."""
        own = self._find(nodes)
        if own:
            self._env.workers = {**self._of_server, **own}
            self.key = repr(self._env.workers)
        return bool(own)

    def leave_host(self) -> None:
        """Go back to the server's."""
        self._env.workers = self._of_server
        self.key = repr(self._of_server)

    def _find(self, nodes: Sequence[Node]) -> dict[str, Worker]:
        found: dict[str, Worker] = {}
        for node in nodes:
            if node.name == SECTION and node.children is not None:
                self._take(node, found)
        return found

    def _take(self, node: Node, found: dict[str, Worker]) -> None:
        try:
            words = split_words(node.rest)
            if not words:
                message = "<Proxy> needs the URL of a back end, or *"
                raise BadDirectiveError(message)
            name, worker = ("*", Worker("", Parameters())) if words[0] == "*" else parse_worker(words, self._env)
        except QuoteError as error:
            self._fail(node, str(error), 0)
            return
        except BadDirectiveError as error:
            self._fail(node, error.reason, error.word)
            return
        settings, host = self._take_inside(node, SECTION)
        for parameters in host.get("proxy_set", ()):
            worker = worker._replace(parameters=parameters.within(worker.parameters))
        if not _is_open(settings):
            self._fail(node, "rules of access in <Proxy> are not supported, but for Require all granted: put them into <Location>, "
                             "which is about the URLs that clients ask for", -1)
        if set(settings) - _ACCESS_FIELDS:
            self._fail(node, "<Proxy> may contain ProxySet and Require all granted; put other settings into <Location>", -1)
        if name != "*":
            found[name] = worker


def _is_open(settings: Settings) -> bool:
    granted = access.pack_node("granted")
    if any(part.raw != granted for part, _ in settings.get("require", ())) or settings.get("deny"):
        return False
    return settings.get("order", 0) == 0 or granted in settings.get("allow", ())
