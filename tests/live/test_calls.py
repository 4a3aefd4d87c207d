"""1:1 calls without a homeserver: what is kept of a chat, what a flood does, who finds no place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.ids import EventId, RoomId, UserId
from bridge.live.ports import JsonObject
from bridge.matrix.call_line import MAX_WAITING
from bridge.matrix.calls import DROPPED, Calls
from tests.helpers.fakes import ADMIN, AVA, BOT, OTHER, ROOM, HandClock, House, until

INVITE = {"call_id": "c", "party_id": "P", "version": "1", "lifetime": 60_000, "offer": {"type": "offer", "sdp": "v=0"}}


@dataclass
class Chat:
    """`bridge.matrix.calls.CallMatrix`: keeps what the bot sent."""

    events: list[tuple[str, JsonObject]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def send(self, room: RoomId, text: str, html: str, *, reply_to: EventId | None, txn: str) -> EventId:
        self.said.append(text)
        return EventId("$said")

    async def send_event(self, room: RoomId, kind: str, content: JsonObject) -> EventId:
        self.events.append((kind, content))
        return EventId("$sent")

    async def chat_with(self, user: UserId) -> RoomId:
        return OTHER

    async def is_chat_with(self, room: RoomId, user: UserId) -> bool:
        return False


@dataclass(frozen=True)
class Row:
    event: JsonObject
    row: int = 1
    received_ms: int = 0


def event(kind: str, content: Any, *, sender: UserId = ADMIN, room: RoomId = OTHER, **more: Any) -> dict[str, Any]:
    return {"type": kind, "content": content, "sender": sender, "room_id": room, "event_id": "$e", **more}


def text(body: Any, **more: Any) -> dict[str, Any]:
    return event("m.room.message", {"msgtype": "m.text", "body": body}, **more)


@pytest.fixture
def chat() -> Chat:
    return Chat()


@pytest.fixture
async def calls(house: House, chat: Chat, clock: HandClock) -> AsyncIterator[Calls]:
    """In OTHER the bot is alone with ADMIN; in ROOM with many."""
    house.matrix.make_room(OTHER, BOT)
    house.rooms._open(OTHER)
    await house.stage(OTHER).loaded()
    made = Calls(BOT, chat, clock)
    made.rooms = house.rooms
    yield made
    await made.close()
    await made.close()


async def test_what_is_kept_of_what_people_write(calls: Calls) -> None:
    """The events of calls, and single digits where the bot is alone with one person: no word that people exchange."""
    for wanted in (event("m.call.invite", INVITE), event("m.call.hangup", None), text("2"), text(" ۲ ")):
        assert calls.wanted(wanted), wanted
    for passed_over in (
        text("2", room=ROOM),
        text("2", room=RoomId("!nowhere:a.org")),
        text("22"), text("two"), text(""), text(None), text("²"), text("2" * 1000),
        text("2", sender=BOT),
        event("m.room.message", {"msgtype": "m.notice", "body": "2"}),
        event("m.room.message", "2"),
        event("m.call.invite", INVITE, sender=BOT),
        event("m.call.invite", INVITE, state_key=""),
        event("m.call.member", {}),
        {},
    ):  # fmt: skip
        assert not calls.wanted(passed_over), passed_over


async def test_who_finds_no_stage_is_told(calls: Calls, chat: Chat) -> None:
    calls.take(OTHER, Row(event("m.call.invite", INVITE)), 0)
    await until(lambda: chat.said, "an answer in words")
    ((kind, content),) = chat.events
    assert (kind, content["call_id"], content["reason"]) == ("m.call.reject", "c", "unknown_error")
    assert "No stage is live" in chat.said[0]


async def test_calls_between_people_of_a_room_are_none_of_ours(calls: Calls, chat: Chat) -> None:
    calls.take(ROOM, Row(event("m.call.invite", INVITE, room=ROOM, sender=AVA)), 0)
    calls.take(OTHER, Row(event("m.call.invite", {**INVITE, "invitee": AVA})), 0)
    calls.take(OTHER, Row(event("m.call.invite", INVITE)), 0)
    await until(lambda: chat.said, "the one that is ours")
    assert len(chat.events) == 1


async def test_a_flood_is_dropped_and_counted(calls: Calls, chat: Chat) -> None:
    before = DROPPED.value()
    for number in range(3 * MAX_WAITING):
        calls.take(OTHER, Row(event("m.call.invite", {**INVITE, "call_id": f"c{number}"})), 0)
    assert DROPPED.value() - before >= 2 * MAX_WAITING - 1
    await until(lambda: len(chat.events) >= MAX_WAITING, "those that had a place")


async def test_a_bridge_that_stops_hangs_up_and_a_dead_relay_too(calls: Calls, chat: Chat, house: House) -> None:
    await house.live()
    for number, end in enumerate(("ice_failed", "user_hangup")):
        chat.events.clear()
        calls.take(OTHER, Row(event("m.call.invite", {**INVITE, "call_id": f"c{number}"})), 0)
        await until(lambda: chat.events and house.media.hears(ADMIN), "the call is up")
        assert chat.events[0][1]["answer"] == {"type": "answer", "sdp": "answer to v=0"}
        assert house.media.heard(ADMIN), "the host is on the stage when the call begins"
        if end == "ice_failed":
            house.media.die()
            await until(lambda: len(chat.events) == 2, "the call ends with its sound")
        else:
            await calls.close()
        kind, content = chat.events[1]
        assert (kind, content["call_id"], content["reason"]) == ("m.call.hangup", f"c{number}", end)
    assert [text for text in chat.said if "again" in text] == [
        "The connection of your call was lost. Please call again.",
        "I have to restart. Please call again in a moment.",
    ]
