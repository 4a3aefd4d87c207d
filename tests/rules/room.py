"""A room on paper for the tests of the rules: its current state as a homeserver holds it, and a stage that watches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.ids import EventId, RoomId, StageId, UserId, role_key
from bridge.rules import content as c
from bridge.rules.authority import Policy
from bridge.rules.content import StateEvent
from bridge.rules.effects import Answer, Effect, WriteState
from bridge.rules.inputs import ActName, Asked, Input, RoomRead, StateHint, StateRead
from bridge.rules.reduce import reduce
from bridge.rules.state import StageState

ROOM = RoomId("!hall:a.org")
BOT = UserId("@eyvan:a.org")
ADMIN = UserId("@admin:a.org")  # level 100
HOST = UserId("@host:a.org")  # level 50
MOD = UserId("@mod:b.org")  # level 50
COHOST = UserId("@cohost:a.org")  # role moderator, no level
AVA = UserId("@ava:b.org")  # speaker
BEN = UserId("@ben:b.org")  # listener
CYD = UserId("@cyd:c.org")  # listener
OUT = UserId("@out:c.org")  # not in the room
EVERYBODY = (BOT, ADMIN, HOST, MOD, COHOST, AVA, BEN, CYD)

S1 = StageId("stage-one-0123456789ab")
S2 = StageId("stage-two-0123456789ab")
NOW = 1_000_000

Place = tuple[str, str]
Content = Mapping[str, Any]


def stage_body(stage_id: StageId = S1, **more: Any) -> dict[str, Any]:
    return {"status": "live", "stage_id": stage_id, "host": HOST, "started_ts": 10, "bot": BOT, **more}


def role_body(role: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "stage_id": S1, **more}


def levels(**more: Any) -> dict[str, Any]:
    users = {ADMIN: 100, HOST: 50, MOD: 50, BOT: 50}
    return {"users": users, "users_default": 0, "state_default": 50, "kick": 50, **more}


@dataclass
class Hall:
    """The room's current state. ``put`` is what the homeserver accepted; it returns the event."""

    state: dict[Place, StateEvent] = field(default_factory=dict)
    count: int = 0

    def event(self, kind: str, key: str, content: Content, sender: str = ADMIN, ts: int | None = None) -> StateEvent:
        """An event that is not (yet) state."""
        self.count += 1
        return StateEvent(kind, key, sender, content, EventId(f"${self.count}"), self.count if ts is None else ts)

    def put(self, kind: str, key: str, content: Content, sender: str = ADMIN, ts: int | None = None) -> StateEvent:
        event = self.event(kind, key, content, sender, ts)
        self.state[kind, key] = event
        return event

    def role(self, user: UserId, content: Content, sender: str = ADMIN, ts: int | None = None) -> StateEvent:
        return self.put(c.ROLE, role_key(user), content, sender, ts)

    def member(self, user: UserId, membership: str, name: str = "") -> StateEvent:
        return self.put(c.MEMBER, user, {"membership": membership, "displayname": name}, user)

    def read(self, heard: int | None = None) -> RoomRead:
        return RoomRead(tuple(self.state.values()), heard)

    def at(self, kind: str, key: str, heard: int | None = None) -> StateRead:
        return StateRead(kind, key, self.state.get((kind, key)), heard)


def hall(version: str = "11", stage: bool = True) -> Hall:
    """A room with everybody in it; with a live stage on which are host, cohost and Ava."""
    room = Hall()
    room.put(c.CREATE, "", {"room_version": version, "creator": ADMIN}, ADMIN)
    room.put(c.POWER_LEVELS, "", levels())
    room.put(c.NAME, "", {"name": "The hall"})
    for user in EVERYBODY:
        room.member(user, "join", user[1:4].title())
    if stage:
        room.put(c.STAGE, "", stage_body(), BOT)
        room.role(COHOST, role_body("moderator"))
        room.role(AVA, role_body("speaker"))
    return room


class Watcher:
    """A stage that is told things, one after another."""

    def __init__(self, policy: Policy | None = None, state: StageState | None = None) -> None:
        self.state = state or StageState(ROOM, BOT, policy or Policy())
        self.now = NOW
        self.said: list[Effect] = []

    def tell(self, *happened: Input) -> list[Effect]:
        """Returns the effects of the last."""
        effects: list[Effect] = []
        for each in happened:
            self.now += 1
            self.state, effects = reduce(self.state, each, self.now)
            self.said += effects
        return effects

    def ask(self, actor: UserId, act: ActName, target: UserId | None = None, **more: Any) -> list[Effect]:
        return self.tell(Asked(actor, act, more.pop("via", "command"), more.pop("ref", "r"), target, **more))

    def outcome(self, actor: UserId, act: ActName, target: UserId | None = None, **more: Any) -> str:
        """Ask, and what was answered: ``ok …`` or why not."""
        answers = [e for e in self.ask(actor, act, target, **more) if isinstance(e, Answer)]
        assert len(answers) == 1, (act, answers, self.state)
        return ("ok " if answers[0].ok else "") + answers[0].text

    def learn(self, room: Hall, event: StateEvent) -> None:
        """The whole way of an event that is state: hint, then read back."""
        self.tell(StateHint(event), room.at(event.kind, event.key))

    def heard(self) -> set[UserId]:
        return {user for user in (*EVERYBODY, OUT) if self.state.may_speak(user)}


def watch(room: Hall, policy: Policy | None = None) -> Watcher:
    watcher = Watcher(policy)
    watcher.tell(room.read())
    return watcher


def those(kind: type[Any], effects: Iterable[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def the(kind: type[Any], effects: Iterable[Effect]) -> Any:
    found = those(kind, effects)
    assert len(found) == 1, (kind.__name__, found)
    return found[0]


def writes(effects: Iterable[Effect], kind: str = c.ROLE) -> list[WriteState]:
    return [e for e in effects if isinstance(e, WriteState) and e.kind == kind]
