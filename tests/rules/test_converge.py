"""Whatever comes in whatever order: nobody is heard who should not be, and all ends as the room's state has it.

A homeserver on paper (`Hall`) holds the truth. Its events reach the stage as hints, late, twice, out of order, together
with hints of events that never became state; readings show the truth of the moment they began and come back later;
what the stage writes is accepted or refused, and the answer is late too; the bridge is killed and comes back.
The test keeps its own account of what was read when, and judges by rules of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.ids import UserId, role_key, server_of
from bridge.rules import content as c
from bridge.rules.content import StateEvent
from bridge.rules.effects import DropCut, KeepCut, KickMember, ReadRoom, ReadState, WriteState
from bridge.rules.inputs import (
    ActName,
    Asked,
    Input,
    NotWritten,
    Redacted,
    Restored,
    RoomRead,
    StateHint,
    StateRead,
    Tick,
    Written,
)
from bridge.rules.reduce import reduce, rewrite_cuts
from bridge.rules.state import Cut, StageState
from tests.rules.room import (
    ADMIN,
    AVA,
    BEN,
    BOT,
    COHOST,
    CYD,
    EVERYBODY,
    HOST,
    MOD,
    NOW,
    OUT,
    ROOM,
    S2,
    Hall,
    Place,
    hall,
    levels,
    role_body,
    stage_body,
)

PEOPLE = (*EVERYBODY, OUT)
OFTEN = (AVA, BEN, AVA, COHOST, HOST, BEN, CYD, BOT, OUT)  # whom things happen to
ACTS: tuple[ActName, ...] = (
    "mute", "to_audience", "bring_up", "unmute", "mute", "to_audience", "kick", "end", "make_moderator", "invite",
    "accept", "raise", "start",
)  # fmt: skip
ROLES: tuple[Mapping[str, Any], ...] = (
    role_body("speaker"),
    role_body("listener"),
    role_body("moderator"),
    role_body("speaker", muted=True),
    {},
    {"role": "speaker"},
    {"role": "speaker", "stage_id": S2},
    {"role": "king"},
    {"role": ["speaker"], "muted": 7},
)
STAGES: tuple[Mapping[str, Any], ...] = (
    stage_body(),
    stage_body(),
    stage_body(host=BEN),
    stage_body(S2),
    stage_body(status="ended"),
    stage_body(speaker_limit=1),
    {},
    {"status": 1},
)
POWERS: tuple[Mapping[str, Any], ...] = (
    levels(),
    levels(events={c.ROLE: 0}),
    levels(users={HOST: 50, BOT: 100}),
    levels(users_default="50"),
    {},
)
ACLS: tuple[Mapping[str, Any], ...] = ({"allow": ["*"]}, {"allow": ["*"], "deny": ["b.*"]}, {"allow": ["a.org"]}, {})
OPS = ("put", "put", "lie", "hint", "hint", "again", "begin", "begin", "answer", "answer", "land", "land", "refuse",
       "told", "ask", "ask", "redact", "room", "kill", "tick")  # fmt: skip


def some_event(room: Hall, a: int, b: int) -> StateEvent:
    """Event number (a, b) of all that this test knows."""
    who = OFTEN[b % len(OFTEN)]
    kind = a % 9
    if kind < 4:
        return room.event(c.ROLE, role_key(who), ROLES[(a // 9) % len(ROLES)])
    if kind < 6:
        membership = ("join", "leave", "ban", 7)[(a // 9) % 4]
        return room.event(c.MEMBER, who, {"membership": membership}, who)
    if kind == 6:
        return room.event(c.STAGE, "", STAGES[b % len(STAGES)])
    if kind == 7:
        return room.event(c.POWER_LEVELS, "", POWERS[b % len(POWERS)])
    return room.event(c.SERVER_ACL, "", ACLS[b % len(ACLS)])


# -- the judge: what one set of state events lets a person do, written down once more and simply ---------------


def judge(state: Mapping[Place, StateEvent], user: UserId) -> bool:
    """Whether ``user`` may be heard by this state, the speaker limit apart."""
    stage = body(state, c.STAGE, "")
    if stage.get("status") != "live" or body(state, c.MEMBER, user).get("membership") != "join":
        return False
    if (c.MEMBER, BOT) in state and body(state, c.MEMBER, BOT).get("membership") != "join":
        return False
    acl = state.get((c.SERVER_ACL, ""))
    if acl is not None:
        server = server_of(user)
        if server not in {"{}": (), "['*']": ("a.org", "b.org", "c.org"), "['a.org']": ("a.org",)}[
            str(acl.content.get("allow", "{}"))
        ] or (server == "b.org" and acl.content.get("deny")):
            return False
    power = body(state, c.POWER_LEVELS, "")
    guarded = int(power.get("events", {}).get(c.ROLE, 50)) > int(power.get("users_default", 0))
    role = body(state, c.ROLE, role_key(user)) if guarded else {}
    if role.get("role") not in ("speaker", "listener", "moderator"):
        role = {}
    if role.get("stage_id", stage["stage_id"]) != stage["stage_id"]:
        role = {}
    if not role:
        return bool(stage["host"] == user)
    return role["role"] != "listener" and not role.get("muted")


def body(state: Mapping[Place, StateEvent], kind: str, key: str) -> Mapping[str, Any]:
    event = state.get((kind, key))
    return event.content if event else {}


@dataclass
class World:
    """The homeserver, the wires to it, and the stage."""

    hall: Hall = field(default_factory=hall)
    state: StageState = field(default_factory=lambda: StageState(ROOM, BOT))
    now: int = NOW
    clock: int = 0  # this test's own order of what happened
    hints: list[StateEvent] = field(default_factory=list)  # under way
    old: list[StateEvent] = field(default_factory=list)  # delivered
    wanted: list[ReadState | ReadRoom] = field(default_factory=list)
    reading: list[tuple[StateRead | RoomRead, int]] = field(default_factory=list)  # with the time it began
    writing: list[WriteState | KickMember] = field(default_factory=list)
    answers: list[Written | NotWritten] = field(default_factory=list)
    durable: dict[str, Cut] = field(default_factory=dict)
    # the test's own account
    read: dict[Place, tuple[int, StateEvent | None]] = field(default_factory=dict)
    whole: int = 0
    unread: list[tuple[int, StateEvent]] = field(default_factory=list)

    def tell(self, what: Input) -> None:
        self.now += 1
        self.clock += 1
        self.state, effects = reduce(self.state, what, self.now)
        self.carry_out(effects)
        self.check()

    def carry_out(self, effects: Sequence[object]) -> None:
        for effect in effects:
            match effect:
                case ReadState() | ReadRoom():
                    self.wanted.append(effect)
                case WriteState() if effect.kind != c.QUEUE:
                    if effect.urgent:  # as the writer does: a cut voids what waits for its place
                        place = (effect.kind, effect.key)
                        void = [w for w in self.writing if isinstance(w, WriteState) and not w.urgent]
                        void = [w for w in void if (w.kind, w.key) == place]
                        self.writing = [effect, *(w for w in self.writing if w not in void)]
                        self.answers += [NotWritten(w.write_id, "void") for w in void]
                    else:
                        self.writing.append(effect)
                case KickMember():
                    self.writing.insert(0, effect)
                case KeepCut(cut):
                    self.durable[cut.cut_id] = cut
                case DropCut(cut_id):
                    self.durable.pop(cut_id, None)
                case _:
                    pass

    # -- what can happen -----------------------------------------------------------------------

    def step(self, op: str, a: int, b: int) -> None:
        getattr(self, "do_" + op)(a, b)

    def do_put(self, a: int, b: int) -> None:
        event = some_event(self.hall, a, b)
        self.hall.state[event.kind, event.key] = event
        self.hints.append(event)

    def do_lie(self, a: int, b: int) -> None:
        self.hints.append(some_event(self.hall, a, b))

    def do_hint(self, a: int, b: int) -> None:
        if self.hints:
            event = self.hints.pop(a % len(self.hints))
            self.old.append(event)
            self.hint(event)

    def do_again(self, a: int, b: int) -> None:
        if self.old:
            self.hint(self.old[a % len(self.old)])

    def hint(self, event: StateEvent) -> None:
        self.clock += 1
        self.unread.append((self.clock, event))
        self.tell(StateHint(event))

    def do_begin(self, a: int, b: int) -> None:
        if not self.wanted:
            return
        want = self.wanted.pop(a % len(self.wanted))
        self.clock += 1
        if isinstance(want, ReadRoom):
            self.reading.append((self.hall.read(self.state.heard), self.clock))
        else:
            self.reading.append((self.hall.at(want.kind, want.key, self.state.heard), self.clock))

    def do_answer(self, a: int, b: int) -> None:
        if not self.reading:
            return
        read, began = self.reading.pop(0)  # one reader: its answers come in order, between all else
        if isinstance(read, RoomRead):
            self.whole = max(self.whole, began)
            standing = {(event.kind, event.key): event for event in read.events}
            for place in {*standing, *self.read}:
                self.account(place, began, standing.get(place))
            self.unread = [(at, event) for at, event in self.unread if at > began]
        else:
            place = (read.kind, read.key)
            self.account(place, began, read.event)
            self.unread = [(at, e) for at, e in self.unread if at > began or (e.kind, e.key) != place]
        self.tell(read)

    def account(self, place: Place, began: int, event: StateEvent | None) -> None:
        if self.read.get(place, (0, None))[0] < began and (self.whole <= began or place in self.read):
            self.read[place] = (began, event)

    def do_land(self, a: int, b: int) -> None:
        """A write is accepted; cuts go first."""
        if not self.writing:
            return
        write = self.writing.pop(0)
        if isinstance(write, KickMember):
            event = self.hall.put(c.MEMBER, write.user, {"membership": "leave"}, BOT)
            self.answers.append(Written(write.write_id, None))
        else:
            standing = self.hall.state.get((write.kind, write.key))
            if standing is not None and standing.sender == BOT and standing.content == write.content:
                self.answers.append(Written(write.write_id, standing.event_id))  # as Synapse does
                return
            event = self.hall.put(write.kind, write.key, write.content, BOT)
            self.answers.append(Written(write.write_id, event.event_id))
        self.hints.append(event)

    def do_refuse(self, a: int, b: int) -> None:
        if self.writing:
            self.answers.append(NotWritten(self.writing.pop(0).write_id, "M_FORBIDDEN"))

    def do_told(self, a: int, b: int) -> None:
        if self.answers:
            self.tell(self.answers.pop(a % len(self.answers)))

    def do_ask(self, a: int, b: int) -> None:
        target = OFTEN[a % len(OFTEN)]
        actor = (ADMIN, MOD, ADMIN, COHOST, HOST, BEN, AVA)[b % 7]
        self.tell(Asked(actor, ACTS[(a // 9) % len(ACTS)], "web", "r", target, new_stage=S2))

    def do_redact(self, a: int, b: int) -> None:
        target = self.hall.state.get((c.ROLE, role_key(OFTEN[a % len(OFTEN)])))
        if target is None:
            return
        gone = replace(target, content={})
        self.hall.state[target.kind, target.key] = gone
        if any(hint.event_id == target.event_id for hint in self.hints):
            self.hints = [gone if hint.event_id == target.event_id else hint for hint in self.hints]
        self.tell(Redacted(target.event_id, ADMIN))
        if not any(isinstance(w, ReadState) and w.key == target.key for w in self.wanted):
            self.wanted.append(ReadState(target.kind, target.key))  # the stage may not know this event yet

    def do_room(self, a: int, b: int) -> None:
        self.wanted.append(ReadRoom())

    def do_kill(self, a: int, b: int) -> None:
        """kill -9 and a new start: cuts and hands are durable, hints under way come again, the rest is lost."""
        kept = Restored(
            self.state.hands, self.state.invitations, self.state.hand_events, self.state.card,
            self.state.seq, tuple(self.durable.values()), self.state.kept_for,
        )  # fmt: skip
        self.wanted, self.reading, self.writing, self.answers = [], [], [], []
        self.unread, self.read, self.whole = [], {}, 0
        self.state = StageState(ROOM, BOT)
        self.tell(kept)
        self.wanted.append(ReadRoom())
        while not self.state.loaded:
            self.do_begin(len(self.wanted) - 1, 0)
            self.do_answer(len(self.reading) - 1, 0)
        self.carry_out(rewrite_cuts(self.state))

    def do_tick(self, a: int, b: int) -> None:
        self.now += a
        self.tell(Tick())

    # -- what must hold ------------------------------------------------------------------------

    def check(self) -> None:
        confirmed = {place: event for place, (_, event) in self.read.items() if event is not None}
        for user in PEOPLE:
            if not self.state.may_speak(user):
                continue
            assert judge(confirmed, user), ("not by confirmed state", user, self.state)
            for _, hint in self.unread:
                might = {**confirmed, (hint.kind, hint.key): hint}
                assert judge(might, user), ("against a hint not read back", hint, user, self.state)
            for cut in self.durable.values():
                same = cut.stage_id == body(confirmed, c.STAGE, "").get("stage_id")
                assert not (same and cut.user in (user, None)), ("against a cut", cut, user, self.state)
            for cut in self.durable.values():
                assert not (cut.kind == "kick" and cut.user == user), ("against a removal", cut, self.state)

    def settle(self) -> None:
        """All that is under way arrives."""
        for _ in range(1000):
            if self.writing:
                self.do_land(0, 0)
            elif self.answers:
                self.do_told(0, 0)
            elif self.hints:
                self.do_hint(0, 0)
            elif self.wanted:
                self.do_begin(0, 0)
            elif self.reading:
                self.do_answer(0, 0)
            else:
                return
        pytest.fail(f"never comes to rest: {self.state}")


def run(steps: Sequence[tuple[str, int, int]]) -> World:
    world = World()
    world.wanted.append(ReadRoom())
    world.do_begin(0, 0)
    world.do_answer(0, 0)
    for op, a, b in steps:
        world.step(op, a, b)
    world.settle()
    return world


STEPS = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 500), st.integers(0, 50)), min_size=8, max_size=60)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_any_order_ends_as_the_room_has_it_and_nobody_is_heard_before(steps: list[tuple[str, int, int]]) -> None:
    world = run(steps)
    fresh = StageState(ROOM, BOT)
    hands = Restored(world.state.hands, stage_id=world.state.kept_for, cuts=tuple(world.durable.values()))
    for each in (hands, world.hall.read()):
        fresh, _ = reduce(fresh, each, NOW)
    state = world.state
    assert state.room == fresh.room
    assert state.feared == fresh.room
    assert not state.hints
    assert not state.doubts
    assert not state.writes
    assert all(cut.failed for cut in state.cuts.values()), state
    assert set(state.cuts) == set(world.durable)
    assert state.live == fresh.live
    assert state.hands == fresh.hands
    assert state.speakers() == fresh.speakers()
    for user in PEOPLE:
        mine = (state.may_hear(user), state.may_speak(user), state.shown_role(user), state.has_authority(user))
        assert mine == (
            fresh.may_hear(user), fresh.may_speak(user), fresh.shown_role(user), fresh.has_authority(user),
        ), (user, state, fresh)  # fmt: skip
        if not state.cuts and state.room.stage and state.room.stage.speaker_limit > 1:
            assert state.may_speak(user) == judge(world.hall.state, user), (user, state)


def test_the_judge_lets_somebody_be_heard() -> None:
    """Else all of the above could pass by silence."""
    world = run([])
    assert {user for user in PEOPLE if world.state.may_speak(user)} == {HOST, COHOST, AVA}
    assert {user for user in PEOPLE if judge(world.hall.state, user)} == {HOST, COHOST, AVA}
