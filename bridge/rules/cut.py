"""A cut: somebody was cut off. Its own module, as effects, views and state all speak of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridge.ids import EventId, StageId, UserId, role_key
from bridge.rules.content import MEMBER, ROLE, STAGE

CutKind = Literal["mute", "to_audience", "kick", "end"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Acts at once, is durable, then written; outranks state until its own event came back.

    A cut that cannot be written stays until somebody gives a newer role, or the stage ends."""

    cut_id: str
    kind: CutKind
    user: UserId | None  # None: everybody (end)
    by: UserId
    via: str
    stage_id: StageId
    at_ms: int
    reason: str = ""
    written: EventId | None = None
    failed: bool = False
    seen: EventId | None = None  # the role event it was aimed at
    settles: int = 0  # a reading begun when at least this much was heard shows what became of the write

    @property
    def place(self) -> tuple[str, str]:
        """(type, state key) where it is written."""
        if self.kind == "end":
            return STAGE, ""
        user = self.user or self.by
        return (MEMBER, user) if self.kind == "kick" else (ROLE, role_key(user))
