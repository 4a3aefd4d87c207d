"""What a stage is: the room as the homeserver confirms it, what is feared, what was cut, who asks.

A transaction is a *hint*: an appservice is also sent events that lost or were soft-failed. So there are two views
of the room. ``room`` changes only by reading state back. ``feared`` is ``room`` with the hints not yet read back on
top. A person is heard when *both* say so and no pending cut says otherwise: a hint can only take away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.ids import EventId, RoomId, StageId, UserId, server_of
from bridge.rules.authority import Permission, Policy, PowerLevels, ServerAcl
from bridge.rules.content import ROLE, STAGE, RoleContent, StageContent, Via

Place = Literal["stage", "audience"]
ShownRole = Literal["host", "moderator", "speaker", "listener"]
CutKind = Literal["mute", "to_audience", "kick", "end"]


@dataclass(frozen=True, slots=True)
class Member:
    membership: str
    name: str = ""

    @property
    def joined(self) -> bool:
        return self.membership == "join"


@dataclass(frozen=True, slots=True)
class Grant:
    """A role as it stands in room state."""

    content: RoleContent
    event_id: EventId
    ts: int
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """One view of the room's state."""

    stage: StageContent | None = None
    stage_event: EventId | None = None
    stage_sender: str = ""
    roles: Mapping[UserId, Grant] = field(default_factory=dict)
    members: Mapping[UserId, Member] = field(default_factory=dict)
    power: PowerLevels = PowerLevels()
    power_content: Mapping[str, Any] | None = None
    create: Mapping[str, Any] = field(default_factory=dict)
    creator: str = ""
    acl: ServerAcl = ServerAcl()
    public: bool = False
    encrypted: bool = False
    name: str = ""
    successor: RoomId | None = None

    @property
    def live(self) -> bool:
        return self.stage is not None and self.stage.status == "live"

    def grant(self, user: UserId) -> Grant | None:
        """The role that counts now. One that names another stage is void; so are all where anybody could write one."""
        grant = self.roles.get(user)
        if grant is None or self.stage is None or not self.power.roles_are_guarded:
            return None
        return grant if grant.content.stage_id in (None, self.stage.stage_id) else None

    def may_be_here(self, user: UserId) -> bool:
        member = self.members.get(user)
        return member is not None and member.joined and self.acl.admits(server_of(user))

    def place(self, user: UserId) -> Place:
        """Everyone enters in the audience except the host; an explicit role decides."""
        grant = self.grant(user)
        if grant is not None:
            return "audience" if grant.content.role == "listener" else "stage"
        return "stage" if self.stage is not None and self.stage.host == user else "audience"

    def muted(self, user: UserId) -> bool:
        grant = self.grant(user)
        return grant is not None and grant.content.muted

    def has_level(self, user: UserId) -> bool:
        return self.power.roles_are_guarded and self.power.level(user) >= self.power.for_state(ROLE)

    def is_cohost(self, user: UserId) -> bool:
        grant = self.grant(user)
        return grant is not None and grant.content.role == "moderator"

    def since(self, user: UserId) -> int:
        grant = self.grant(user)
        if grant is not None:
            return grant.ts
        return (self.stage.started_ts or 0) if self.stage else 0

    def on_stage(self) -> list[UserId]:
        """Who has a place on the stage, longest there first, the host always; at most ``speaker_limit``."""
        if self.stage is None or self.stage.status != "live":
            return []
        named = set(self.roles) | ({self.stage.host} if self.stage.host else set())
        here = [u for u in named if self.place(u) == "stage" and self.may_be_here(u)]
        here.sort(key=lambda u: (u != self.stage.host, self.since(u), u))  # type: ignore[union-attr]
        return here[: self.stage.speaker_limit]


@dataclass(frozen=True, slots=True)
class Hand:
    user: UserId
    ts: int  # ms, as we received it
    via: Via
    note: str = ""
    event_id: EventId | None = None  # the reaction or state event that raised it


@dataclass(frozen=True, slots=True)
class Cut:
    """Somebody was cut off: acts at once, is durable, then written; outranks state until its own event came back."""

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
    """A cut that cannot be written stays until somebody gives a newer role, or the stage ends."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write under way that is not a cut, so that a refusal can be told to whoever asked."""

    by: UserId
    via: str
    act: str
    target: UserId | None = None


@dataclass(frozen=True, slots=True)
class StageState:
    room_id: RoomId
    bot: UserId
    policy: Policy = Policy()
    room: Room = Room()
    feared: Room = Room()
    hints: Mapping[tuple[str, str], Any] = field(
        default_factory=dict
    )  # (type, state key) → StateEvent not yet read back
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    writes: Mapping[str, Write] = field(default_factory=dict)
    hands: tuple[Hand, ...] = ()
    hand_events: Mapping[UserId, EventId] = field(default_factory=dict)  # hand state events already acted on
    invitations: Mapping[UserId, UserId] = field(default_factory=dict)  # invited → by whom
    present: Mapping[UserId, int] = field(default_factory=dict)  # connected pages and calls for each person
    card: EventId | None = None
    seq: int = 0
    empty_since: int | None = None  # ms: nobody who could host is here since
    loaded: bool = False  # room state was read whole; before that every gate is shut

    # -- what follows from it ------------------------------------------------------------------

    @property
    def stage(self) -> StageContent | None:
        return self.room.stage

    @property
    def live(self) -> bool:
        ended = any(cut.kind == "end" for cut in self.cuts.values())
        return self.loaded and self.room.live and self.feared.live and self._same_stage() and not ended

    def _same_stage(self) -> bool:
        a, b = self.room.stage, self.feared.stage
        return a is not None and b is not None and a.stage_id == b.stage_id

    def _cut(self, user: UserId, *kinds: CutKind) -> bool:
        return any(cut.user == user and cut.kind in kinds for cut in self.cuts.values())

    def may_hear(self, user: UserId | None) -> bool:
        """``None`` is a guest."""
        if not self.live or self.stage is None:
            return False
        if user is None:
            return self.stage.guests and self.feared.stage is not None and self.feared.stage.guests
        if self._cut(user, "kick") or self.policy.permission(user) < Permission.listen:
            return False
        return self.room.may_be_here(user) and self.feared.may_be_here(user)

    def on_stage(self, user: UserId) -> bool:
        if not self.may_hear(user) or self._cut(user, "to_audience", "kick"):
            return False
        if self.room.place(user) != "stage" or self.feared.place(user) != "stage":
            return False
        return user in self.room.on_stage() and self.policy.permission(user) >= Permission.speak

    def muted(self, user: UserId) -> bool:
        return self.room.muted(user) or self.feared.muted(user) or self._cut(user, "mute")

    def may_speak(self, user: UserId | None) -> bool:
        """The gate: whether what this person sends gets into the mix."""
        return user is not None and self.on_stage(user) and not self.muted(user)

    def has_authority(self, user: UserId) -> bool:
        """Moderator: by level, or as a co-host. Counts only while the person is in the room."""
        if not (self.room.may_be_here(user) and self.feared.may_be_here(user)):
            return False
        by_level = self.room.has_level(user) and self.feared.has_level(user)
        return by_level or (
            self.room.is_cohost(user) and self.feared.is_cohost(user) and not self._cut(user, "to_audience")
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


WATCHED_BY_CUT = {"mute": ROLE, "to_audience": ROLE, "end": STAGE, "kick": "m.room.member"}
"""The state type in which each kind of cut is written."""
