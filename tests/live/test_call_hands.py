"""Hands raised in Element Call (a reaction to one's own membership) on a house of fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import MatrixRefused, Unavailable
from bridge.ids import EventId, RoomId, UserId
from bridge.matrix.call_hands import CallHands
from bridge.matrix.matrixrtc import KIND
from bridge.store import open_store
from tests.helpers.fakes import ADMIN, AVA, BEN, BOT, MOD, ROOM, FakeMatrix, HandClock, House, levels, until

HAND = "🖐️"


class Homeserver:
    """What `CallHands` asks for, on the homeserver of the house."""

    def __init__(self, matrix: FakeMatrix) -> None:
        self.matrix, self.away, self.powerless = matrix, False, False
        self.redacted: list[EventId] = []

    async def read_event(self, room: RoomId, event: EventId) -> Mapping[str, Any] | None:
        return next((each for each in self.matrix.rooms[room].timeline if each["event_id"] == event), None)

    async def redact(self, room: RoomId, event: EventId, txn: str) -> None:
        if self.away:
            raise Unavailable("the homeserver does not answer")
        if self.powerless:
            raise MatrixRefused("M_FORBIDDEN", 403, "you have no power for that")
        self.redacted.append(event)
        self.matrix.redact(BOT, event, room)


class Call:
    """A house with people in a call."""

    def __init__(self, house: House, hands: CallHands, homeserver: Homeserver) -> None:
        self.house, self.hands, self.homeserver = house, hands, homeserver
        self.members: dict[UserId, EventId] = {}

    async def join(self, user: UserId) -> None:
        await self.house.seat(user)
        self.members[user] = self.house.matrix.put(user, KIND, f"_{user}_DEV_m.call", {"application": "m.call"})

    def wave(self, user: UserId, at: UserId | None = None) -> EventId:
        return self.house.matrix.reaction(user, self.members[at or user], HAND)

    def up(self) -> list[UserId]:
        return [hand.user for hand in self.house.stage().state.hands]

    async def raised(self, user: UserId) -> EventId:
        reaction = self.wave(user)
        await until(lambda: user in self.up(), f"{user}'s hand up")
        return reaction

    async def shows_nothing(self, reaction: EventId) -> None:
        await until(lambda: reaction in self.homeserver.redacted, "Element Call's hand down")


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Call]:
    clock = HandClock()
    database = await open_store(f"sqlite:///{tmp_path / 'eyvan.db'}", clock.now_ms)
    matrix = FakeMatrix(clock)
    matrix.make_room(ROOM, BOT, MOD, AVA, BEN, power=levels(events={KIND: 0}))
    house = House(matrix, database, clock)
    homeserver = Homeserver(matrix)
    hands = CallHands(BOT, house.rooms, homeserver)
    try:
        await house.start()
        to_house = matrix.push

        def push(events: list[dict[str, Any]]) -> None:
            for event in events:
                hands.take(event["room_id"], event, clock.now_ms() - event["origin_server_ts"])
            to_house(events)

        matrix.push = push
        hands.start()
        await house.live()
        yield Call(house, hands, homeserver)
    finally:
        await hands.close()
        await hands.close()
        await house.close()
        await database.close()


async def test_raised_and_taken_back(call: Call) -> None:
    await call.join(AVA)
    reaction = await call.raised(AVA)
    (hand,) = call.house.stage().state.hands
    assert (hand.via, hand.event_id) == ("call", reaction)
    call.house.matrix.redact(AVA, reaction)
    await until(lambda: not call.up(), "her hand down")
    again = await call.raised(AVA)
    assert not call.homeserver.redacted
    call.house.matrix.role(ADMIN, AVA, role="speaker", stage_id=call.house.stage().stage_id)
    await call.shows_nothing(again)  # she was brought up


async def test_a_hand_that_is_up_already_gets_a_second_way_down(call: Call) -> None:
    await call.join(AVA)
    call.house.matrix.message(AVA, "!hand")
    await until(lambda: call.up() == [AVA], "her hand up by command")
    reaction = call.wave(AVA)
    await until(lambda: reaction in call.hands._up, "the wave of the same hand known")
    call.house.matrix.message(AVA, "!lower")
    await call.shows_nothing(reaction)


async def test_lowered_by_a_moderator_while_the_homeserver_is_away(call: Call) -> None:
    await call.join(AVA)
    reaction = await call.raised(AVA)
    call.homeserver.away = True
    call.house.matrix.role(ADMIN, AVA, role="speaker", stage_id=call.house.stage().stage_id)
    await until(lambda: not call.up(), "her hand down")
    await call.hands.look()
    assert not call.homeserver.redacted
    call.homeserver.away = False
    await call.shows_nothing(reaction)


async def test_a_hand_of_before_a_restart_is_known(call: Call) -> None:
    await call.join(AVA)
    reaction = await call.raised(AVA)
    await call.hands.close()
    call.hands = CallHands(BOT, call.house.rooms, call.homeserver)
    await call.hands.look()
    call.house.matrix.message(AVA, "!lower")
    await until(lambda: not call.up(), "her hand down")
    await call.hands.look()
    assert call.homeserver.redacted == [reaction]


async def test_what_raises_no_hand(call: Call) -> None:
    matrix = call.house.matrix
    await call.join(AVA)
    call.members[BEN] = matrix.put(BEN, KIND, f"_{BEN}_DEV_m.call", {"application": "m.call"})
    call.wave(BEN)  # in the call, not with us
    call.wave(AVA, at=BEN)  # somebody else's membership
    matrix.reaction(AVA, matrix.message(AVA, "so many people!"), HAND)
    matrix.reaction(AVA, EventId("$unknown"), HAND)
    matrix.reaction(AVA, call.members[AVA], "👍")
    matrix._event(ROOM, "m.reaction", AVA, {"m.relates_to": "junk"}, None)
    call.house.clock.advance(120)
    late = call.wave(AVA)
    matrix.rooms[ROOM].timeline[-1]["origin_server_ts"] -= 120_000
    call.hands.take(ROOM, matrix.rooms[ROOM].timeline[-1], 120_000)
    await until(lambda: call.up() == [AVA], "the one wave that counts")
    assert call.house.stage().state.hands[0].event_id == late
    assert not call.homeserver.redacted


async def test_where_hands_are_closed_the_wave_is_taken_away(call: Call) -> None:
    stage = dict(call.house.matrix.rooms[ROOM].content("im.eyvan.stage"))
    call.house.matrix.put(ADMIN, "im.eyvan.stage", "", {**stage, "hands": "off"})
    await until(lambda: (s := call.house.stage().state.stage) and s.hands == "off", "hands closed")
    await call.join(AVA)
    await call.shows_nothing(call.wave(AVA))
    assert not call.up()


async def test_a_bot_without_that_power_leaves_it(call: Call) -> None:
    await call.join(AVA)
    await call.raised(AVA)
    call.homeserver.powerless = True
    call.house.matrix.message(AVA, "!lower")
    await until(lambda: not call.up(), "her hand down")
    await call.hands.look()
    call.homeserver.powerless = False
    await call.hands.look()
    assert not call.homeserver.redacted, "it is tried once"
