"""Hands: who may raise one, in what order, what ends it; the queue event."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.ids import EventId, UserId
from bridge.rules import content as c
from bridge.rules.authority import Permission, Policy
from bridge.rules.effects import BadEvent, Keep, Tell
from bridge.rules.inputs import Asked, CardPosted, Reacted, Redacted, Restored, StateHint, StateRead
from tests.rules.room import (
    ADMIN,
    AVA,
    BEN,
    BOT,
    COHOST,
    CYD,
    HOST,
    MOD,
    OUT,
    S1,
    Hall,
    Watcher,
    hall,
    role_body,
    stage_body,
    the,
    those,
    watch,
    writes,
)

CARD = EventId("$card")


def queue(seen: Watcher) -> list[UserId]:
    return [hand.user for hand in seen.state.hands]


def hand_event(room: Hall, user: UserId, sender: UserId | None = None, **content: Any) -> StateRead:
    return StateRead(c.HAND, user, room.put(c.HAND, user, content, sender or user))


def test_hands_stand_in_the_order_they_came_and_are_written_as_one_event() -> None:
    seen = watch(hall())
    assert seen.outcome(BEN, "raise", text="  why\nnot " + "x" * 200) == "ok done-raise"
    effects = seen.ask(CYD, "raise", via="web")
    assert queue(seen) == [BEN, CYD]
    assert Keep() in effects
    (write,) = writes(effects, c.QUEUE)
    assert (write.key, write.urgent, write.content["stage_id"], write.content["total"]) == ("", False, S1, 2)
    assert [(h["user"], h["via"]) for h in write.content["hands"]] == [(BEN, "command"), (CYD, "web")]
    assert write.content["hands"][0]["note"] == ("why not " + "x" * 200)[: c.NOTE_LENGTH]
    assert write.content["hands"][0]["ts"] < write.content["hands"][1]["ts"] <= seen.now


def test_one_hand_a_person_and_a_new_note_keeps_the_place() -> None:
    seen = watch(hall())
    seen.ask(BEN, "raise", text="one")
    seen.ask(CYD, "raise")
    before = seen.state.hand_of(BEN)
    assert not writes(seen.ask(BEN, "raise"), c.QUEUE)
    assert not writes(seen.ask(BEN, "raise", text="one"), c.QUEUE)
    assert seen.state.hand_of(BEN) == before
    assert len(writes(seen.ask(BEN, "raise", text="two"), c.QUEUE)) == 1
    after = seen.state.hand_of(BEN)
    assert before is not None
    assert after is not None
    assert (after.note, after.ts, queue(seen)) == ("two", before.ts, [BEN, CYD])


def test_lowering_is_ones_own_affair() -> None:
    seen = watch(hall())
    seen.ask(BEN, "raise")
    assert seen.outcome(CYD, "lower") == "ok done-lower"
    assert queue(seen) == [BEN]
    assert len(writes(seen.ask(BEN, "lower"), c.QUEUE)) == 1
    assert queue(seen) == []


@pytest.mark.parametrize(
    ("who", "stage", "policy", "reason"),
    [
        (AVA, {}, Policy(), "on-stage-already"), (HOST, {}, Policy(), "on-stage-already"),
        (OUT, {}, Policy(), "not-in-room"), (BEN, {"hands": "off"}, Policy(), "hands-closed"),
        (BEN, {"hands": "members"}, Policy(), "ok done-raise"), (ADMIN, {}, Policy(), "ok done-raise"),
        (BEN, {"status": "ended"}, Policy(), "no-stage"), (BEN, {"bot": MOD}, Policy(), "other-bot"),
        (BEN, {}, Policy(permissions={"*": Permission.listen}), "not-permitted"),
        (BEN, {}, Policy(permissions={"*": Permission.speak}), "ok done-raise"),
        (BEN, {}, Policy(permissions={"*": Permission.none}), "not-permitted"),
    ],
)  # fmt: skip
def test_who_may_raise(who: UserId, stage: dict[str, Any], policy: Policy, reason: str) -> None:
    room = hall()
    room.put(c.STAGE, "", {**stage_body(), **stage})
    seen = watch(room, policy)
    assert seen.outcome(who, "raise") == reason
    assert queue(seen) == ([who] if reason.startswith("ok") else [])


def test_a_kicked_person_raises_no_hand_while_the_kick_is_under_way() -> None:
    room = hall()
    seen = watch(room)
    seen.ask(ADMIN, "kick", BEN)
    assert seen.outcome(BEN, "raise") == "not-in-room"


def test_someone_on_stage_is_not_in_the_queue_even_while_sent_down() -> None:
    seen = watch(hall())
    seen.ask(ADMIN, "to_audience", AVA)
    assert seen.outcome(AVA, "raise") == "on-stage-already"


# -- by reaction ------------------------------------------------------------------------------------------------


def with_card() -> Watcher:
    seen = watch(hall())
    assert seen.tell(CardPosted(CARD)) == [Keep()]
    return seen


def test_a_reaction_on_the_card_raises_and_taking_it_away_lowers() -> None:
    seen = with_card()
    assert seen.tell(Reacted(EventId("$other"), BEN, EventId("$r"))) == []
    seen.tell(Reacted(CARD, BEN, EventId("$r")))
    assert queue(seen) == [BEN]
    assert seen.state.hands[0].via == "reaction"
    seen.tell(Redacted(EventId("$r"), BEN))
    assert queue(seen) == []


def test_a_reaction_refused_says_nothing() -> None:
    seen = with_card()
    assert seen.tell(Reacted(CARD, AVA, EventId("$r"))) == []


@pytest.mark.parametrize(
    ("sender", "lowered"), [(BEN, True), (AVA, True), (ADMIN, True), (HOST, True), (CYD, False), (COHOST, False)]
)
def test_a_redaction_counts_as_the_homeserver_would_take_it(sender: UserId, lowered: bool) -> None:
    """The own server's people, or the level for redacting; Ava is of Ben's server."""
    seen = with_card()
    seen.tell(Reacted(CARD, BEN, EventId("$r")), Redacted(EventId("$r"), sender))
    assert (queue(seen) == []) is lowered


def test_a_hand_raised_by_command_takes_the_reaction_that_follows() -> None:
    seen = with_card()
    seen.ask(BEN, "raise", text="why", event_id=None)
    seen.tell(Reacted(CARD, BEN, EventId("$r1")), Reacted(CARD, BEN, EventId("$r2")))
    assert seen.state.hands[0].note == "why"
    seen.tell(Redacted(EventId("$r2"), BEN))
    assert queue(seen) == [BEN]
    seen.tell(Redacted(EventId("$r1"), BEN))
    assert queue(seen) == []


# -- by the person's own state event ----------------------------------------------------------------------------


def test_ones_own_hand_event_raises_and_lowers_when_read_back() -> None:
    room = hall()
    seen = watch(room)
    read = hand_event(room, BEN, raised=True, note="me")
    assert read.event is not None
    seen.tell(StateHint(read.event))
    assert queue(seen) == []
    seen.tell(read)
    assert (queue(seen), seen.state.hands[0].note, seen.state.hands[0].via) == ([BEN], "me", "event")
    assert not writes(seen.tell(read), c.QUEUE)
    seen.tell(hand_event(room, BEN))
    assert queue(seen) == []
    assert seen.tell(hand_event(room, BEN)) == [Keep()]
    assert not seen.state.hints


@pytest.mark.parametrize("key", [f"_{BEN}", BEN, "", f"_{MOD}"])
def test_a_hand_event_for_somebody_else_is_passed_over(key: str) -> None:
    room = hall()
    seen = watch(room)
    event = room.put(c.HAND, key, {"raised": True}, MOD)
    assert seen.tell(StateHint(event)) == []
    seen.tell(StateRead(c.HAND, key, event), room.read(), StateRead(c.HAND, key, None))
    assert queue(seen) == []


def test_a_malformed_hand_event_is_named() -> None:
    room = hall()
    seen = watch(room)
    bad = the(BadEvent, seen.tell(hand_event(room, BEN, raised="yes")))
    assert (bad.kind, bad.reason.split(":")[0]) == (c.HAND, "raised")
    assert queue(seen) == []


def test_hand_events_are_found_at_the_start_in_their_order_and_acted_on_once() -> None:
    room = hall()
    room.put(c.HAND, CYD, {"raised": True}, CYD, ts=500)
    room.put(c.HAND, BEN, {"raised": True}, BEN, ts=400)
    room.put(c.HAND, AVA, {"raised": True}, AVA, ts=300)
    seen = watch(room)
    assert queue(seen) == [BEN, CYD]
    seen.ask(BEN, "lower")
    seen.tell(room.read())
    assert queue(seen) == [CYD]
    back = Watcher()
    back.tell(Restored(seen.state.hands, hand_events=seen.state.hand_events, stage_id=S1), room.read())
    assert queue(back) == [CYD]


def test_a_hand_event_of_the_last_stage_is_none_for_the_next() -> None:
    room = hall()
    seen = watch(room)
    seen.tell(hand_event(room, BEN, raised=True))
    seen.learn(room, room.put(c.STAGE, "", stage_body(status="ended")))
    assert queue(seen) == []
    seen.learn(room, room.put(c.STAGE, "", stage_body()))
    seen.tell(room.read())
    assert queue(seen) == []


def test_a_stale_whole_reading_does_not_act_on_an_older_hand_event() -> None:
    room = hall()
    seen = watch(room)
    hand_event(room, BEN, raised=True)
    stale = room.read(heard=seen.state.heard)
    lowered = hand_event(room, BEN)
    assert lowered.event is not None
    seen.tell(StateHint(lowered.event), lowered, stale)
    assert queue(seen) == []


# -- what ends a hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["on stage", "left", "banned", "server", "ended", "host"])
def test_a_hand_ends_with_its_person_on_stage_or_gone_or_with_the_stage(how: str) -> None:
    room = hall()
    seen = watch(room)
    seen.ask(BEN, "raise")
    seen.ask(CYD, "raise")
    seen.learn(room, room.put(c.NAME, "", {"name": "x"}))
    assert queue(seen) == [BEN, CYD]
    seen.learn(
        room,
        {
            "on stage": lambda: room.role(BEN, role_body("speaker")),
            "left": lambda: room.member(BEN, "leave"),
            "banned": lambda: room.member(BEN, "ban"),
            "server": lambda: room.put(c.SERVER_ACL, "", {"allow": ["*"], "deny": ["b.org"]}),
            "ended": lambda: room.put(c.STAGE, "", stage_body(status="ended")),
            "host": lambda: room.put(c.STAGE, "", stage_body(host=BEN)),
        }[how](),
    )
    assert queue(seen) == ([] if how == "ended" else [CYD])
    if how != "ended":
        assert writes(seen.said, c.QUEUE)[-1].content["total"] == 1


def test_no_queue_is_written_where_no_stage_of_ours_is_live() -> None:
    room = hall()
    seen = watch(room)
    seen.ask(BEN, "raise")
    effects = seen.tell(StateRead(c.STAGE, "", room.put(c.STAGE, "", stage_body(bot=MOD))), Asked(BEN, "lower", "web"))
    seen.tell(StateRead(c.MEMBER, BEN, room.member(BEN, "leave")))
    assert not writes(effects, c.QUEUE)
    assert queue(seen) == []
    assert writes(seen.said, c.QUEUE)[-1].content["total"] == 1
    kept = Watcher()
    kept.tell(Restored(seen.state.hands or watch_with_hand().state.hands, stage_id=None))
    assert not writes(kept.tell(hall(stage=False).read()), c.QUEUE)
    assert queue(kept) == []


def watch_with_hand() -> Watcher:
    seen = watch(hall())
    seen.ask(BEN, "raise")
    return seen


def test_not_now_puts_a_hand_at_the_end_and_is_said_kindly() -> None:
    seen = watch_with_hand()
    seen.ask(CYD, "raise")
    effects = seen.ask(MOD, "not_now", BEN)
    assert queue(seen) == [CYD, BEN]
    told = the(Tell, effects)
    assert (told.user, told.key, told.by) == (BEN, "hand_not_now", MOD)
    assert seen.outcome(MOD, "not_now", AVA) == "no-hand"


def test_a_hand_is_accepted_by_state_only() -> None:
    room = hall()
    seen = watch_with_hand()
    seen.ask(MOD, "bring_up", BEN)
    assert queue(seen) == [BEN]
    assert not seen.state.may_speak(BEN)
    write = writes(seen.said)[-1]
    seen.learn(room, room.put(write.kind, write.key, write.content, BOT))
    assert queue(seen) == []
    assert seen.state.may_speak(BEN)
    assert len(those(Keep, seen.said)) >= 2
