"""A word of the bot to somebody whose message was understood and is not carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.ids import EventId, UserId


@dataclass(frozen=True, slots=True)
class Reply:
    """``key``: of a sentence. ``about``: said only where this is the stage's card; None: in any case."""

    to: EventId
    user: UserId
    key: str
    args: Mapping[str, Any] = field(default_factory=dict)
    about: EventId | None = None
    part: str = ""
    """Tells several replies to one message apart."""
