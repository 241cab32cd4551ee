"""`SetHandler perchild-status`: one screen that shows each identity's slots, hand-offs, load and memory, as they change.

page/status.html, .css and .js, put together here, without a build step. The script asks `?json` each second (docs/status.md says
what that answers) and reckons rates from two answers. The policy in its head lets nothing else run or load. What came is only ever put in as text.
Runs as: a child that is asked for it.  Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from perchild.wire.page import latency_bounds_us

_HERE = Path(__file__).resolve().parent / "page"


def _hash(part: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"


def _render() -> bytes:
    script = (_HERE / "status.js").read_text().replace("__BOUNDS__", json.dumps(latency_bounds_us()))
    style = (_HERE / "status.css").read_text()
    policy = (f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; img-src data:; base-uri 'none'; "
              "form-action 'none'")
    page = (_HERE / "status.html").read_text()
    for mark, part in (("__POLICY__", policy), ("__STYLE__", style), ("__SCRIPT__", script)):
        page = page.replace(mark, part)
    return page.encode()


PAGE = _render()


def render_json(tree: dict[str, Any]) -> bytes:
    """Return a tally as the page reads it."""
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"
