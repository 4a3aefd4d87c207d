"""Everything that can happen to a stage: one closed union. Time comes beside each, in ms since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bridge.ids import EventId, StageId, UserId
from bridge.rules.content import StateEvent, Via
from bridge.rules.state import Cut, Hand

ActName = Literal[
    "start",
    "end",
    "topic",
    "sound",
    "language",
    "bring_up",
    "invite",
    "to_audience",
    "mute",
    "unmute",
    "kick",
    "make_moderator",
    "raise",
    "lower",
    "not_now",
    "accept",
    "decline",
    "status",
    "hands",
    "link",
    "link_player",
    "revoke_links",
    "call",
    "ring",
    "help",
]


@dataclass(frozen=True, slots=True)
class StateHint:
    """A transaction holds a state event. It may have lost already."""

    event: StateEvent


@dataclass(frozen=True, slots=True)
class StateRead:
    """The homeserver's answer: this is the current event under (kind, key), or there is none.

    ``heard``: `StageState.heard` when the request was sent. What was heard after that is not in the answer, so a hint
    or a cut that came meanwhile is not settled by it. None: the answer was made after all that was heard so far."""

    kind: str
    key: str
    event: StateEvent | None
    heard: int | None = None


@dataclass(frozen=True, slots=True)
class RoomRead:
    """All current state of the room. ``heard``: as in `StateRead`."""

    events: tuple[StateEvent, ...]
    heard: int | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a crash left: kept hands, invitations, card, and cuts that may not be in state yet."""

    hands: tuple[Hand, ...] = ()
    invitations: Mapping[UserId, UserId] | None = None
    hand_events: Mapping[UserId, EventId] | None = None
    card: EventId | None = None
    seq: int = 0
    cuts: tuple[Cut, ...] = ()
    stage_id: StageId | None = None
    """The stage that hands, invitations and card belong to; those of another stage than the room's are let go."""


@dataclass(frozen=True, slots=True)
class Redacted:
    """``m.room.redaction`` of an event: a reaction taken away, or a state event emptied. A hint like any other: whether
    ``sender`` could is for the homeserver to say."""

    event_id: EventId
    sender: UserId


@dataclass(frozen=True, slots=True)
class Reacted:
    """A hand emoji on some message, or a telephone (``act`` is ``call`` then)."""

    target: EventId
    sender: UserId
    event_id: EventId
    act: ActName = "raise"


@dataclass(frozen=True, slots=True)
class Asked:
    """A person asks for something, by whatever way. ``ref`` names the asker's wait for an answer.

    ``new_stage`` is a fresh id, used by ``start`` only: rules draw no random numbers. ``in_persian``: in Persian words,
    so that a stage that is started in them speaks Persian."""

    actor: UserId
    act: ActName
    via: Via
    ref: str = ""
    target: UserId | None = None
    text: str = ""
    new_stage: StageId | None = None
    event_id: EventId | None = None
    in_persian: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A write we asked for was accepted. Each write is answered once, by this or by NotWritten."""

    write_id: str
    event_id: EventId | None


@dataclass(frozen=True, slots=True)
class NotWritten:
    """A write we asked for failed for good. ``why``: the homeserver's words."""

    write_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Present:
    """A page or call of this person connected (+1) or went (-1)."""

    user: UserId
    change: Literal[1, -1]


@dataclass(frozen=True, slots=True)
class CardPosted:
    event_id: EventId


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; sent about once a second while a stage is live."""


Input = (
    StateHint
    | StateRead
    | RoomRead
    | Restored
    | Redacted
    | Reacted
    | Asked
    | Written
    | NotWritten
    | Present
    | CardPosted
    | Tick
)
