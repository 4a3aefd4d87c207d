"""One view of a room's state, and what follows from it for one person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.ids import EventId, RoomId, UserId, server_of
from bridge.rules.authority import PowerLevels, ServerAcl
from bridge.rules.content import ROLE, RoleContent, StageContent

Place = Literal["stage", "audience"]


@dataclass(frozen=True, slots=True)
class Member:
    membership: str
    name: str = ""
    by: str = ""  # who wrote it: oneself, or whoever invited or removed

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

    def runs(self, bot: UserId) -> bool:
        """Live, and ``bot`` was not put out of the room. One that says nothing of ``bot`` counts as having it."""
        member = self.members.get(bot)
        return self.live and (member is None or member.joined)

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
        stage = self.stage
        if stage is None or not self.live:
            return []
        named = set(self.roles) | ({stage.host} if stage.host else set())
        here = [u for u in named if self.place(u) == "stage" and self.may_be_here(u)]
        here.sort(key=lambda u: (u != stage.host, self.since(u), u))
        return here[: stage.speaker_limit]

    def seats(self, user: UserId) -> bool:
        """Whether ``user`` is among `on_stage`."""
        return self.place(user) == "stage" and user in self.on_stage()
