"""What a stage is: the room as the homeserver confirms it, what is feared, what was cut, who asks.

A transaction is a *hint*: an appservice is also sent events that lost or were soft-failed. So there is one confirmed
view of the room, ``room``, which changes only by reading state back, and there are views that might be true:
``feared``, ``room`` with all hints not yet read back on top, and ``room`` with each single one of them. A person is
heard when *every* view says so and no pending cut says otherwise: a hint can only take away, and none can undo another.

``heard`` counts what was heard. A reading settles only what was heard before it began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bridge.ids import EventId, RoomId, StageId, UserId, role_key
from bridge.rules import view as views
from bridge.rules.authority import Permission, Policy
from bridge.rules.content import MEMBER, ROLE, StageContent, StateEvent, Via
from bridge.rules.cut import Cut, CutKind
from bridge.rules.room import Grant, Member, Place, Room

__all__ = [
    "Cut", "CutKind", "Grant", "Hand", "Heard", "Member", "Place", "Room", "ShownRole", "StageState", "Write",
]  # fmt: skip

ShownRole = Literal["host", "moderator", "speaker", "listener"]


@dataclass(frozen=True, slots=True)
class Heard:
    """An event (None: nothing stands there) and the count of all that was heard when it came, or its reading began."""

    number: int
    event: StateEvent | None


@dataclass(frozen=True, slots=True)
class Hand:
    user: UserId
    ts: int  # ms, as we received it
    via: Via
    note: str = ""
    event_id: EventId | None = None  # the reaction or state event that raised it


@dataclass(frozen=True, slots=True)
class Write:
    """A write under way that is not a cut, so that a refusal can be told to whoever asked."""

    by: UserId
    via: str
    act: str
    target: UserId | None = None


@dataclass(frozen=True, slots=True, repr=False)
class StageState:
    room_id: RoomId
    bot: UserId
    policy: Policy = Policy()
    room: Room = field(default_factory=Room)
    feared: Room = field(default_factory=Room)
    doubts: tuple[Room, ...] = ()  # one for each hint that bears on everybody
    hints: Mapping[tuple[str, str], tuple[Heard, ...]] = field(default_factory=dict)  # (type, state key) → unread
    heard: int = 0
    recent: Mapping[tuple[str, str], Heard] = field(default_factory=dict)  # read since the last whole reading
    forgotten: int = 0  # the number of the newest that fell out of ``recent``
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    writes: Mapping[str, Write] = field(default_factory=dict)
    hands: tuple[Hand, ...] = ()
    hand_events: Mapping[UserId, EventId] = field(default_factory=dict)  # hand state events already acted on
    invitations: Mapping[UserId, UserId] = field(default_factory=dict)  # invited → by whom
    present: Mapping[UserId, int] = field(default_factory=dict)  # connected pages and calls for each person
    card: EventId | None = None
    kept_for: StageId | None = None  # the stage that hands, invitations and card belong to
    seq: int = 0
    empty_since: int | None = None  # ms: nobody who could host is here since
    loaded: bool = False  # room state was read whole; before that every gate is shut

    def __repr__(self) -> str:
        """One line for a person who reads why a test failed or what the log says."""
        stage = self.room.stage
        status = "unread" if not self.loaded else "none" if stage is None else "live" if self.live else "shut"
        seats = [f"{user}{' (muted)' if self.muted(user) else ''}" for user in self.speakers()]
        cuts = [f"{c.kind} {c.user or ''}{'+' if c.written else '!' if c.failed else '?'}" for c in self.cuts.values()]
        unread = [f"{kind}|{key} ×{len(hints)}" for (kind, key), hints in self.hints.items()]
        parts: dict[str, list[str]] = {
            "stage": seats,
            "hands": [str(hand.user) for hand in self.hands],
            "cuts": cuts,
            "unread": unread,
        }
        shown = [f"{name}: {', '.join(texts)}" for name, texts in parts.items() if texts]
        return f"<Stage {stage.stage_id if stage else '-'} {status}; heard {self.heard}; {'; '.join(shown)}>"

    # -- what follows from it ------------------------------------------------------------------

    def views(self, user: UserId | None) -> Iterator[Room]:
        """The room as it is and as it might be, as far as ``user`` is concerned: each hint together with the others,
        and alone. In the latter ``members`` and ``roles`` may hold that user only."""
        yield self.room
        if not self.hints:
            return
        yield self.feared
        yield from self.doubts
        if user is None:
            return
        for kind, key in ((MEMBER, str(user)), (ROLE, role_key(user))):
            for hint in self.hints.get((kind, key), ()):
                yield views.apply(self._narrow(user), kind, key, hint.event)[0]

    def _narrow(self, user: UserId) -> Room:
        """``room`` with one person in it: copying all members for each hint about one is what a rush cannot bear."""
        member, grant = self.room.members.get(user), self.room.roles.get(user)
        return replace(self.room, members={user: member} if member else {}, roles={user: grant} if grant else {})

    @property
    def stage(self) -> StageContent | None:
        return self.room.stage

    @property
    def ours(self) -> bool:
        """Whether the stage is this bot's to write about: two Eyvans in one room otherwise answer and write twice."""
        return self.room.stage is not None and self.room.stage.bot in (None, self.bot)

    @property
    def live(self) -> bool:
        stage = self.room.stage
        if not self.loaded or stage is None or any(cut.kind == "end" for cut in self.cuts.values()):
            return False
        return all(
            view.runs(self.bot) and view.stage is not None and view.stage.stage_id == stage.stage_id
            for view in self.views(self.bot)
        )

    def concerns(self, cut: Cut) -> bool:
        """A cut is about the stage it was made on; a removal from the room is about any."""
        return cut.kind == "kick" or self.room.stage is None or cut.stage_id == self.room.stage.stage_id

    def is_cut(self, user: UserId, *kinds: CutKind) -> bool:
        return any(cut.user == user and cut.kind in kinds for cut in self.cuts.values())

    def stays_up(self, user: UserId) -> bool:
        """On stage as the room has it, and nobody is moving this person down just now."""
        return self.room.place(user) == "stage" and not self.is_cut(user, "to_audience")

    def may_hear(self, user: UserId | None) -> bool:
        """``None`` is a guest."""
        if not self.live:
            return False
        if user is None:
            return all(view.stage is not None and view.stage.guests for view in self.views(None))
        if self.is_cut(user, "kick") or self.policy.permission(user) < Permission.listen:
            return False
        return all(view.may_be_here(user) for view in self.views(user))

    def on_stage(self, user: UserId) -> bool:
        if not self.may_hear(user) or self.is_cut(user, "to_audience"):
            return False
        if self.policy.permission(user) < Permission.speak:
            return False
        return all(view.place(user) == "stage" for view in self.views(user)) and all(
            view.seats(user) for view in (self.room, *self.doubts)
        )

    def muted(self, user: UserId) -> bool:
        return self.is_cut(user, "mute") or any(view.muted(user) for view in self.views(user))

    def may_speak(self, user: UserId | None) -> bool:
        """The gate: whether what this person sends gets into the mix."""
        return user is not None and self.on_stage(user) and not self.muted(user)

    def has_authority(self, user: UserId) -> bool:
        """Moderator: by level, or as a co-host. Counts only while the person is in the room."""
        if self.is_cut(user, "kick"):
            return False
        cohost = not self.is_cut(user, "to_audience")
        return all(
            view.may_be_here(user) and (view.has_level(user) or (cohost and view.is_cohost(user)))
            for view in self.views(user)
        )

    def shown_role(self, user: UserId) -> ShownRole:
        if self.stage is not None and self.stage.host == user:
            return "host"
        if self.has_authority(user):
            return "moderator"
        return "speaker" if self.on_stage(user) else "listener"

    def name(self, user: UserId) -> str:
        member = self.room.members.get(user)
        return (member.name if member else "") or user[1:].split(":", 1)[0]

    def hand_of(self, user: UserId) -> Hand | None:
        return next((hand for hand in self.hands if hand.user == user), None)

    def speakers(self) -> list[UserId]:
        return [user for user in self.room.on_stage() if self.on_stage(user)] if self.live else []
