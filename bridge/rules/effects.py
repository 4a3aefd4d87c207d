"""Everything a stage can ask for: one closed union. Gates are not among them: they are derived from the state as
a whole and compared with what the relay last confirmed, so that a lost message heals like an ordinary change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.ids import StageId, UserId
from bridge.rules.content import Via
from bridge.rules.cut import Cut


@dataclass(frozen=True, slots=True)
class ReadState:
    """Read one place back. The answer is ``StateRead(kind, key, event, heard)``, ``heard`` being `StageState.heard` at
    the moment the request was sent."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class ReadRoom:
    """Read all state again: the last reading began too long ago to be trusted. The answer is a ``RoomRead``."""


@dataclass(frozen=True, slots=True)
class WriteState:
    """``urgent``: it writes down a cut, goes before all others, and voids waiting writes of the same key."""

    write_id: str
    kind: str
    key: str
    content: Mapping[str, Any]
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class KickMember:
    write_id: str
    user: UserId
    reason: str


@dataclass(frozen=True, slots=True)
class KeepCut:
    """Make the cut durable, before it is written."""

    cut: Cut


@dataclass(frozen=True, slots=True)
class DropCut:
    cut_id: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Hands, invitations or card changed: keep them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To whoever asked. ``text``: key of a sentence; ``args``: what it names."""

    ref: str
    ok: bool
    text: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tell:
    """A person is told what was done to them, on their page; ``by_chat`` also where they have none open."""

    user: UserId
    key: str
    by: UserId
    by_chat: bool = False


@dataclass(frozen=True, slots=True)
class Announce:
    """A notice in the room."""

    text: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PostCard:
    """A new stage is live and has no card; later changes edit it by themselves."""


@dataclass(frozen=True, slots=True)
class SendLink:
    user: UserId
    ref: str
    player: bool = False  # what a player needs (WHEP, stream) instead of the page's link


@dataclass(frozen=True, slots=True)
class AwaitCall:
    """The person wants to come by a 1:1 call: they are told in their direct chat what to press."""

    user: UserId
    ref: str


@dataclass(frozen=True, slots=True)
class Ring:
    """The person is invited, and called where they are not connected. ``ref``: as in `Answer`; what came of it is told
    there."""

    user: UserId
    by: UserId
    ref: str


@dataclass(frozen=True, slots=True)
class RevokeLinks:
    user: UserId


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the moderation record."""

    stage_id: StageId
    act: str
    by: UserId
    via: Via | str
    target: UserId | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CloseStage:
    """The stage is over: its media is closed, its pages are told."""

    stage_id: StageId


@dataclass(frozen=True, slots=True)
class BadEvent:
    """An event that could not be read: for the log, with field and reason."""

    event_id: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Follow:
    """The room was upgraded; ``room`` is claimed as its successor and not yet checked."""

    room: str


Effect = (
    ReadState
    | ReadRoom
    | WriteState
    | KickMember
    | KeepCut
    | DropCut
    | Keep
    | Answer
    | Tell
    | Announce
    | PostCard
    | SendLink
    | AwaitCall
    | Ring
    | RevokeLinks
    | Record
    | CloseStage
    | BadEvent
    | Follow
)
