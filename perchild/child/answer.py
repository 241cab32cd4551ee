"""What a handler that Python implements gives back.

Runs as: the identity (pure).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response: status, media type, body."""

    status: int
    content_type: str
    body: bytes
