"""What the server can write to its error log at the levels warn and above, read from its source."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOUD = ("emerg", "alert", "crit", "error", "warn")
_CALL = re.compile(r"\bpc_errlog\w*\s*\(")
_LEVEL = re.compile(r"\bPC_(EMERG|ALERT|CRIT|ERROR|WARN)\b")
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_JOINT = re.compile(r'"\s*(?:PRI\w+\s*)?"')
_FORMAT = re.compile(r"%[-+ #0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|h|ll|l|z|j|t)?[a-zA-Z%]|\\[nt]|\\\"")
_LEAST = 8  # characters of a message that can be looked up


@dataclass(frozen=True, slots=True)
class Message:
    """One message: where it is written, and its longest part that is always the same."""

    file: str
    line: int
    text: str

    @property
    def part(self) -> str:
        """Return what a reader would look for."""
        return max((piece.strip(" :;,.()'") for piece in self.text.replace("...", "\0").split("\0")), key=len)


def _calls(text: str) -> list[tuple[int, str]]:
    """Return (offset, arguments) of each call that logs."""
    found = []
    for match in _CALL.finditer(text):
        depth, at, quoted = 1, match.end(), False
        while at < len(text) and depth:
            char = text[at]
            if quoted:
                at += char == "\\"
                quoted = char != '"'
            elif char == '"':
                quoted = True
            else:
                depth += (char == "(") - (char == ")")
            at += 1
        found.append((match.start(), text[match.end() : at - 1]))
    return found


def native_messages() -> list[Message]:
    """Return what C writes: formats of calls, and texts with one of httpd's numbers wherever they stand."""
    found = []
    for path in sorted((ROOT / "native").glob("*.c")):
        text = path.read_text()
        for at, arguments in _calls(text):
            literals = _LITERAL.findall(_JOINT.sub("", arguments))
            if _LEVEL.search(arguments) and literals:
                found.append(_make(path, text, at, literals[-1] if len(literals) < 3 else max(literals, key=len)))
        for match in _LITERAL.finditer(_JOINT.sub("", text)):
            if re.match(r"AH\d{5}", match.group(1)):
                found.append(_make(path, text, max(0, text.find(match.group(1)[:20])), match.group(1)))
    return _tell_apart(found)


def _make(path: Path, text: str, at: int, literal: str) -> Message:
    return Message(str(path.relative_to(ROOT)), text.count("\n", 0, at) + 1, _FORMAT.sub("\0", literal))


def _tell_apart(found: list[Message]) -> list[Message]:
    kept: dict[str, Message] = {}
    for one in found:
        if len(one.part) >= _LEAST:
            kept.setdefault(one.part, one)
    return list(kept.values())


def python_messages() -> list[Message]:
    """Return what the dispatcher and runners write, and what keeps a server from starting."""
    found = []
    for folder in ("dispatcher", "runner", "mpm"):
        for path in sorted((ROOT / "perchild" / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                text = _text_of(node)
                if text:
                    found.append(Message(str(path.relative_to(ROOT)), getattr(node, "lineno", 0), text))
    return _tell_apart(found)


def _text_of(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
    is_loud = name == "say" and node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value in LOUD
    is_error = name.endswith("Error") and len(node.args) == 2 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    is_message = name == "Message" and len(node.args) == 3 and isinstance(node.args[0], ast.Constant) and node.args[0].value in LOUD
    return _constant(node.args[-1]) if is_loud or is_error or is_message else ""


def _constant(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{[^}]*\}", "\0", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else "\0" for one in node.values)
    if isinstance(node, ast.BinOp):
        return _constant(node.left) + _constant(node.right)
    if isinstance(node, ast.IfExp):
        return _constant(node.body)
    return "\0"


def all_messages() -> list[Message]:
    """Return all of them."""
    return [*native_messages(), *python_messages()]
