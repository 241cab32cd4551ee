"""The few RewriteRules that are redirects or refusals in other words.

Runs as: whoever calls perchildctl (pure).  Source: httpd's mod_rewrite, mod_alias.
"""

from __future__ import annotations

import re

from perchild.config.tokens import QuoteError, split_words
from perchild.config.tree import Node
from perchild.importer import rules

NAMES = frozenset(("rewritecond", "rewriterule"))
_HTTPS = re.compile(r"https://(%\{(?:HTTP_HOST|SERVER_NAME)\}|[\w.-]+)(%\{REQUEST_URI\}|/?\$1|/)?\Z", re.IGNORECASE)
_ACME = re.compile(r"%\{REQUEST_URI\} !\^?/?\\?\.well-known", re.IGNORECASE)
_HARMLESS = frozenset(("l", "last", "end", "r", "redirect", "ne", "noescape", "qsa", "qsappend"))
_REFUSALS = {"f": 403, "forbidden": 403, "g": 410, "gone": 410}
_ARGUMENTS = 2


class Rules:
    """Lines of one place: conditions wait for their rule. context: the section; per-directory patterns mean something else."""

    def __init__(self, context: str) -> None:
        self.context = context
        self._conditions: list[Node] = []

    def add_condition(self, node: Node) -> None:
        """Take a RewriteCond."""
        self._conditions.append(node)

    def take_conditions(self) -> list[Node]:
        """Return the conditions of the rule that comes now."""
        found, self._conditions = self._conditions, []
        return found

    def translate(self, conditions: list[Node], rule: Node) -> tuple[str, str, str] | None:
        """Return directive, arguments and note that say the same; None if nothing does."""
        words = _words(rule)
        if len(words) < _ARGUMENTS or self.context not in {"", "<virtualhost"}:
            return None
        flags = _flags(words)
        refusal = next((status for flag, status in _REFUSALS.items() if flag in flags), 0)
        if refusal and not conditions and words[1] == "-" and not words[0].startswith("!"):
            pattern = f"(?i){words[0]}" if flags & {"nc", "nocase"} else words[0]
            return "RedirectMatch", f'{refusal} "{pattern}"', f"RedirectMatch {refusal}"
        if flags - _HARMLESS - {flag for flag in flags if flag.startswith(("r=", "redirect="))}:
            return None
        return _to_https(conditions, words, flags) or _redirect(conditions, words, flags)


def is_refusal(rule: Node) -> bool:
    """Tell whether a rule keeps somebody out."""
    return not _flags(_words(rule)).isdisjoint(_REFUSALS)


def _words(node: Node) -> list[str]:
    try:
        return split_words(node.rest)
    except QuoteError:
        return []


def _flags(words: list[str]) -> set[str]:
    return {flag.strip().lower() for flag in words[2].strip("[]").split(",")} if len(words) > _ARGUMENTS else set()


def _status(flags: set[str]) -> str:
    given = next((flag.partition("=")[2] for flag in flags if flag.startswith(("r=", "redirect="))), "302")
    return {"permanent": "301", "temp": "302", "seeother": "303"}.get(given, given)


def _to_https(conditions: list[Node], words: list[str], flags: set[str]) -> tuple[str, str, str] | None:
    """A whole plain host goes to https, with or without an exception for ACME."""
    match = _HTTPS.match(words[1])
    shown = [" ".join(_words(one)[:_ARGUMENTS]) for one in conditions]
    others = [one for one in shown if one not in rules.PLAIN_CONDITIONS]
    if match is None or words[0] not in rules.ALL_PATTERNS or match.group(2) == "/" or any(not _ACME.match(one) for one in others):
        return None
    if not any(one in rules.PLAIN_CONDITIONS for one in shown) and not others:
        return None  # without a condition it may be a loop in httpd; nobody means that
    pattern = r"^/(?!\.well-known/acme-challenge/)(.*)$" if others else "^/(.*)$"
    target = "https://{name}/$1" if match.group(1).startswith("%") else f"https://{match.group(1)}/$1"
    return "RedirectMatch", f'{_status(flags)} "{pattern}" {target}', "RedirectMatch to https; aliases are sent to the ServerName"


def _redirect(conditions: list[Node], words: list[str], flags: set[str]) -> tuple[str, str, str] | None:
    """A rule without conditions that sends the client elsewhere."""
    is_redirect = bool(flags & {"r", "redirect"}) or any(flag.startswith(("r=", "redirect=")) for flag in flags)
    if conditions or not is_redirect or "%{" in words[1] or not words[1].startswith(("http://", "https://", "/")) or words[0].startswith("!"):
        return None
    return "RedirectMatch", f'{_status(flags)} "{words[0]}" {words[1]}', "RedirectMatch"
