"""LogFormat and Header value formats -> the FORMAT operations of wire/record.py.

Runs as: compile (pure).  Source: httpd's mod_log_config, mod_logio, mod_headers.
"""

from __future__ import annotations

import re
import struct

from perchild.config.messages import BadDirectiveError
from perchild.wire.record import FORMAT_OPS

NICKNAMES: dict[str, str] = {
    "common": '%h %l %u %t "%r" %>s %b',
    "combined": '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"',
    "vhost_combined": '%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"',
    "referer": "%{Referer}i -> %U",
    "agent": "%{User-agent}i",
}
DEFAULT_FORMAT = NICKNAMES["common"]

_ORIGINAL, _FINAL, _CONDITION, _NEGATED = 1, 2, 4, 8
_ITEM = re.compile(r"%(?P<not>!?)(?P<codes>\d{3}(?:,\d{3})*)?(?P<which>[<>]?)(?:\{(?P<arg>[^}]*)\})?(?P<which2>[<>]?)(?P<op>\^..|.)",
                   re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

# Operations that need, may have or cannot have an argument; None: any text.
_NEEDS = frozenset("Ceinox")
_CHOICES: dict[str, tuple[str, ...]] = {
    "a": ("c",), "h": ("c",), "p": ("canonical", "local", "remote"), "P": ("pid", "tid", "hextid"), "T": ("s", "ms", "us"), "L": ("c",),
}
_PLAIN = frozenset("ABbDfHklmqrRsUuvVXIOS")
_OTHER_NAMES = {"c": "X"}  # %c was %X before 2.0.44
_MIN_HEADER_ARG = frozenset("eos")


def operation(name: str, argument: bytes = b"", flags: int = 0) -> bytes:
    """Return one FORMAT operation; BadDirectiveError if its argument is too long."""
    if len(argument) > 0xFFFF:  # noqa: PLR2004 (u16)
        message = "a part of the format is longer than 65535 bytes"
        raise BadDirectiveError(message, 0)
    return struct.pack("<BBH", FORMAT_OPS[name], flags, len(argument)) + argument


def literal(text: str) -> bytes:
    """Return the operation that writes `text`."""
    return operation("literal", text.encode("utf-8", "surrogateescape")) if text else b""


def compile_log_format(text: str) -> bytes:
    """Return the operations of a log format.

    Raises:
        BadDirectiveError: an unknown operation or argument, with word 0.
    """
    out: list[bytes] = []
    held = ""
    at = 0
    while at < len(text):
        percent = text.find("%", at)
        if percent < 0:
            percent = len(text)
        held += _ESCAPE.sub(_unescape, text[at:percent])
        if percent == len(text):
            break
        if text.startswith("%%", percent):
            held, at = held + "%", percent + 2
            continue
        match = _ITEM.match(text, percent)
        if match is None:
            message = f"LogFormat ends within a %-directive: '{text[percent:]}'"
            raise BadDirectiveError(message, 0)
        out.append(literal(held))
        held = ""
        out.append(_compile_item(match))
        at = match.end()
    out.append(literal(held))
    return b"".join(out)


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match.group(1), match.group(0))


def _compile_item(match: re.Match[str]) -> bytes:
    name = _OTHER_NAMES.get(match["op"], match["op"])
    argument = match["arg"]
    _check_item(name, argument, match.group(0))
    which = match["which"] or match["which2"]
    flags = {"": 0, "<": _ORIGINAL, ">": _FINAL}[which]
    raw = (argument or "").encode("utf-8", "surrogateescape")
    if match["codes"]:
        codes = [int(code) for code in match["codes"].split(",")]
        if len(codes) > 255:  # noqa: PLR2004 (u8)
            message = f"more than 255 status codes in '{match.group(0)}'"
            raise BadDirectiveError(message, 0)
        flags |= _CONDITION | (_NEGATED if match["not"] else 0)
        raw = struct.pack(f"<B{len(codes)}H", len(codes), *codes) + raw
    elif match["not"]:
        message = f"'!' without status codes in '{match.group(0)}'"
        raise BadDirectiveError(message, 0)
    return operation(name, raw, flags)


def _check_item(name: str, argument: str | None, shown: str) -> None:
    if name in _NEEDS:
        if not argument:
            message = f"%{name} needs an argument in braces, as in %{{NAME}}{name}"
            raise BadDirectiveError(message, 0)
    elif name in _CHOICES:
        if argument and argument.lower() not in _CHOICES[name]:
            message = f"'{shown}': the argument of %{name} is one of {', '.join(_CHOICES[name])}"
            raise BadDirectiveError(message, 0)
    elif name == "t":
        return
    elif name not in _PLAIN:
        message = f"Unrecognized LogFormat directive {shown}"
        raise BadDirectiveError(message, 0)
    elif argument:
        message = f"'{shown}': %{name} takes no argument"
        raise BadDirectiveError(message, 0)


_HEADER_ITEM = re.compile(r"%(?:\{(?P<arg>[^}]*)\})?(?P<op>.)", re.DOTALL)


def compile_header_value(text: str, word: int) -> bytes:
    """Return the operations of a Header or RequestHeader value: %%, %t, %D, %{NAME}e and %{NAME}s, as mod_headers has them.

    Raises:
        BadDirectiveError: another %-item, at argument `word`.
    """
    out: list[bytes] = []
    at = 0
    held = ""
    for match in _HEADER_ITEM.finditer(text):
        held += text[at : match.start()]
        at = match.end()
        name, argument = match["op"], match["arg"]
        if name == "%" and argument is None:
            held += "%"
        elif name in "tD" and argument is None:
            out += [literal(held + f"{name}="), operation(name, b"usec" if name == "t" else b"")]
            held = ""
        elif name in "es" and argument:
            out += [literal(held), operation("e" if name == "e" else "x", argument.encode("utf-8", "surrogateescape"))]
            held = ""
        else:
            message = f"Unrecognized header format {match.group(0)}: there are %%, %t, %D, %{{NAME}}e and %{{NAME}}s"
            raise BadDirectiveError(message, word)
    if "%" in text[at:]:
        message = "a header value cannot end in a single %: write %%"
        raise BadDirectiveError(message, word)
    out.append(literal(held + text[at:]))
    return b"".join(out)
