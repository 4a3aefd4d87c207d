"""State → gate, cuts, and what the relay and the store may do meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bridge.errors import Unavailable
from bridge.ids import SessionId, role_key
from bridge.live import stage as live_stage
from bridge.rules.content import MEMBER, ROLE
from bridge.rules.inputs import Asked
from tests.helpers.fakes import ADMIN, AVA, BEN, CYD, MOD, ROOM, FakePage, FaultyStore, House, until


def ask(actor: str, act: Any, target: Any = None, ref: str = "page:1", text: str = "") -> Asked:
    return Asked(actor, act, "web", ref, target, text)  # type: ignore[arg-type]


async def test_a_role_by_plain_state_opens_the_gate_and_its_end_shuts_it(house: House) -> None:
    await house.live()
    page = await house.on_air(AVA)
    assert not house.media.heard(BEN)
    await until(lambda: page.me and page.me.place == "stage" and page.me.can_speak, "the place on the page")
    house.matrix.role(MOD, AVA, role="listener")
    await until(lambda: not house.media.heard(AVA), "the gate shut")
    assert house.media.hears(AVA)
    await until(lambda: page.me and page.me.place == "audience", "the place on the page")


async def test_others_see_a_speaker_when_the_relay_has_opened_the_gate(house: House) -> None:
    await house.live()
    page, _ = await house.seat(AVA)
    looks, _ = await house.seat(BEN)
    confirm, asked = asyncio.Event(), asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        asked.set()
        await confirm.wait()

    house.media.before["gate"] = wait
    house.matrix.role(MOD, AVA, role="speaker", stage_id=house.stage().stage_id)
    await asked.wait()
    house.matrix.message(CYD, "!hand")
    await until(lambda: looks.view and looks.view.audience.hands == 1, "news that came later")
    assert looks.view is not None
    assert [each.coming for each in looks.view.speakers if each.user == AVA] == [True]
    confirm.set()
    await until(
        lambda: looks.view and [each.coming for each in looks.view.speakers if each.user == AVA] == [False], "on stage"
    )
    await until(lambda: page.me and page.me.place == "stage", "their own place")


async def test_a_listener_is_never_opened(house: House) -> None:
    await house.live()
    await house.seat(BEN)
    await house.on_air(AVA)
    assert [change for change in house.media.changes if change[0] == BEN and change[2]] == []


async def test_a_cut_is_gate_then_row_then_state(house: House, store: FaultyStore) -> None:
    await house.live()
    await house.on_air(AVA)
    order: list[str] = []

    async def row(name: str, args: tuple[Any, ...]) -> None:
        order.append(f"row, heard: {house.media.heard(AVA)}")

    async def state(name: str, args: tuple[Any, ...]) -> None:
        if args[1] == ROLE:
            order.append("state")

    store.before["add_cut"] = row
    house.matrix.before["write_state"] = state
    outcome = await house.stage().ask(ask(ADMIN, "mute", AVA))
    assert (outcome.ok, outcome.text) == (True, "done-mute")
    await until(lambda: "state" in order, "the write")
    assert order == ["row, heard: False", "state"]
    await house.quiet()
    assert await store.load_cuts() == []
    assert house.matrix.rooms[ROOM].content(ROLE, role_key(AVA))["muted"] is True


async def test_store_failure_keeps_the_gate_shut_and_the_write_goes_out(house: House, store: FaultyStore) -> None:
    await house.live()
    await house.on_air(AVA)
    store.broken = {"add_cut", "drop_cut", "save_stage", "add_record", "mark_applied"}
    outcome = await house.stage().ask(ask(ADMIN, "mute", AVA))
    assert outcome.ok
    assert not house.media.heard(AVA)
    await until(lambda: house.matrix.rooms[ROOM].content(ROLE, role_key(AVA)).get("muted"), "the write")
    await until(lambda: house.matrix.chats.get(ADMIN), "the moderator is told")
    assert "database" in house.matrix.chats[ADMIN][0]
    outcome = await house.stage().ask(ask(ADMIN, "unmute", AVA, ref="page:2"))  # the stage lives on
    assert outcome.ok
    await until(lambda: house.media.heard(AVA), "unmuted")
    store.broken = set()
    await until(lambda: not house.stage()._keeping.owes, "what was owed is stored at a later tick")
    assert await store.load_cuts() == []
    assert await store.unapplied() == []


async def test_a_store_that_hangs_holds_up_no_other_cut(
    house: House, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.live.stage.PATIENCE_S", 0.05)
    await house.live()
    await house.on_air(AVA)
    await house.on_air(BEN)
    hang = asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        await hang.wait()

    store.before = dict.fromkeys(("add_cut", "save_stage", "drop_cut", "add_record", "mark_applied"), wait)
    first = asyncio.create_task(house.stage().ask(ask(ADMIN, "mute", AVA)))
    second = asyncio.create_task(house.stage().ask(ask(ADMIN, "mute", BEN, ref="page:2")))
    await until(lambda: not house.media.heard(AVA) and not house.media.heard(BEN), "both gates shut")
    hang.set()
    assert (await first).ok
    assert (await second).ok


async def test_a_relay_that_hangs_holds_up_no_row(
    house: House, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.live.seats.PATIENCE_S", 0.05)
    await house.live()
    page = await house.on_air(AVA)
    hang = asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        await hang.wait()

    house.media.before["gate"] = wait
    asking = asyncio.create_task(house.stage().ask(ask(ADMIN, "mute", AVA)))
    await until(lambda: "add_cut" in store.calls, "the row")
    assert (await asking).ok
    assert page.me is not None
    assert page.me.can_speak, "what the relay has not confirmed is not shown"
    hang.set()
    await until(lambda: not house.media.heard(AVA), "the gate shut")
    await until(lambda: page.me and page.me.muted and not page.me.can_speak, "shown when confirmed")


async def test_a_gate_the_relay_did_not_answer_is_asked_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.seats._AGAIN_S", 0.01)
    await house.live()
    await house.on_air(AVA)
    tries = 0

    async def fail(name: str, args: tuple[Any, ...]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise Unavailable("the media worker did not answer within 10 s")

    house.media.before["gate"] = fail
    house.matrix.role(ADMIN, AVA, role="speaker", muted=True)
    await until(lambda: not house.media.heard(AVA), "the gate shut at last")
    assert tries == 4


async def test_a_late_opening_does_not_outlive_a_cut(house: House) -> None:
    """The relay is asked to open, does not answer, the cut comes, then the relay does what it was asked."""
    await house.live()
    await house.seat(AVA)
    hold = asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        if args[2]:
            await hold.wait()

    house.media.before["gate"] = wait
    house.matrix.role(ADMIN, AVA, role="speaker")
    await until(lambda: ("gate") in [name for name, _ in house.media.calls], "the opening is asked for")
    house.matrix.role(ADMIN, AVA, role="listener")
    await until(lambda: house.stage().state.room.place(AVA) == "audience", "the demotion is read")
    hold.set()
    await until(lambda: house.media.changes[-1] == (AVA, True, False), "shut after all", lambda: house.media.changes)


async def test_worker_death_in_the_middle_of_gate(house: House) -> None:
    await house.live()
    page, _ = await house.seat(AVA)

    async def die(name: str, args: tuple[Any, ...]) -> None:
        house.media.before.clear()
        house.media.die()
        raise Unavailable("the media worker ended")

    house.media.before["gate"] = die
    house.matrix.role(ADMIN, AVA, role="speaker")
    await until(lambda: page.lost, "the page is told to offer again")
    await until(lambda: page.me and not page.me.can_hear, "shown")
    seat = next(iter(house.stage()._seats))
    await house.stage().offer(seat.session, page, "again")
    await until(lambda: house.media.heard(AVA), "heard by the new worker, as the role says")


async def test_a_demotion_while_an_offer_is_with_the_relay(house: House) -> None:
    await house.live()
    house.matrix.role(ADMIN, AVA, role="speaker", stage_id=house.stage().stage_id)
    await until(lambda: house.stage().state.may_speak(AVA), "the role")
    hold, began = asyncio.Event(), asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        began.set()
        await hold.wait()

    house.media.before["join"] = wait
    seating = asyncio.create_task(house.seat(AVA))
    await began.wait()
    assert (await house.stage().ask(ask(ADMIN, "to_audience", AVA))).ok
    hold.set()
    await seating
    await until(lambda: not house.media.heard(AVA), "not heard")
    assert house.media.changes[-1] == (AVA, True, False)


async def test_a_kick_while_an_offer_is_with_the_relay(house: House) -> None:
    await house.live()
    hold, began = asyncio.Event(), asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        began.set()
        await hold.wait()

    house.media.before["join"] = wait
    seating = asyncio.create_task(house.seat(BEN))
    await began.wait()
    house.matrix.member(ADMIN, BEN, "ban")
    await until(lambda: not len(house.stage()._seats), "sent away")
    hold.set()
    with pytest.raises(Exception, match="no seat"):
        await seating
    await until(lambda: not house.media.peers, "the relay let the peer go")


async def test_a_peer_that_dies_while_its_offer_is_answered(house: House) -> None:
    await house.live()

    async def die(name: str, args: tuple[Any, ...]) -> None:
        house.rooms.peer_gone(args[1], "worker")

    house.media.before["join"] = die
    with pytest.raises(Unavailable):
        await house.seat(AVA)
    assert all(seat.peer is None for seat in house.stage()._seats)


async def test_a_hundred_offers_do_not_hold_up_a_cut(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stage, "MAX_SEATS", 1000)  # one person stands here for many
    await house.live()
    await house.on_air(AVA)
    hold = asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        await hold.wait()

    house.media.before["join"] = wait
    joining = [asyncio.create_task(house.seat(BEN, f"s{number}")) for number in range(100)]
    await until(lambda: len(house.stage()._seats) == 101, "seated")
    assert (await house.stage().ask(ask(ADMIN, "mute", AVA))).ok
    assert not house.media.heard(AVA)
    hold.set()
    await asyncio.gather(*joining)


async def test_seat_kept_after_its_socket_broke_is_cut_like_any(house: House) -> None:
    await house.live()
    page, session = await house.seat(AVA)
    house.matrix.role(ADMIN, AVA, role="speaker")
    await until(lambda: house.media.heard(AVA), "on air")
    house.stage().rise(session, page)
    house.matrix.role(ADMIN, AVA, role="listener")
    await until(lambda: not house.media.heard(AVA), "shut without a page")
    house.matrix.member(ADMIN, AVA, "leave")
    await until(lambda: not house.media.peers, "sent away without a page")


async def test_a_ban_an_acl_and_a_leave_cut_at_once(house: House) -> None:
    await house.live()
    pages = {user: await house.on_air(user) for user in (AVA, BEN, CYD)}
    house.matrix.member(ADMIN, AVA, "ban")
    house.matrix.put(ADMIN, "m.room.server_acl", "", {"allow": ["*"], "deny": ["b.org"]})
    house.matrix.member(CYD, CYD, "leave")
    for user, reason in ((AVA, "removed"), (BEN, "removed"), (CYD, "left_room")):
        await until(lambda user=user: not house.media.heard(user), f"{user} shut")  # type: ignore[misc]
        await until(lambda user=user: pages[user].byes, f"{user} told")  # type: ignore[misc]
        assert pages[user].byes == [reason]


async def test_a_hint_that_lost_shuts_the_gate_and_sends_nobody_away(house: House) -> None:
    """An appservice is also sent events that lost: they may take away until the homeserver was asked, not more."""
    stage_id = await house.live()
    page = await house.on_air(AVA)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def wait(name: str, args: tuple[Any, ...]) -> None:
        asked.set()
        await answer.wait()

    house.matrix.before["read_state"] = wait
    lost = {
        "type": "im.eyvan.stage", "state_key": "", "room_id": ROOM, "sender": BEN, "event_id": "$lost",
        "content": {"status": "ended", "stage_id": stage_id}, "origin_server_ts": 1,
    }  # fmt: skip
    house.matrix.push([lost])
    await asked.wait()
    await until(lambda: not house.media.heard(AVA), "shut while in doubt")
    assert page.byes == []
    with pytest.raises(Unavailable):
        await house.seat(BEN)
    answer.set()
    await until(lambda: house.media.heard(AVA), "opened again")
    assert page.byes == []
    assert house.matrix.rooms[ROOM].content(MEMBER, BEN)["membership"] == "join"


async def test_a_read_begun_before_a_write_returned_settles_no_cut(house: House) -> None:
    """The answer of an old read says 'speaker'; the cut written meanwhile must stay."""
    await house.live()
    await house.on_air(AVA)
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow(name: str, args: tuple[Any, ...]) -> None:
        if args[1] == ROLE and not go_on.is_set():
            reading.set()
            await go_on.wait()

    house.matrix.after["read_state"] = slow
    house.matrix.role(ADMIN, AVA, role="speaker", reason="again")  # a hint: read back, slowly
    await reading.wait()
    assert (await house.stage().ask(ask(MOD, "mute", AVA))).ok
    await until(lambda: house.matrix.rooms[ROOM].content(ROLE, role_key(AVA)).get("muted"), "the write")
    opened: list[bool] = []
    house.media.watch = lambda: opened.append(house.media.heard(AVA))
    go_on.set()
    await house.quiet()
    assert not any(opened)
    assert not house.media.heard(AVA)


async def test_a_telephones_microphone_is_the_gates(house: House) -> None:
    """It is on from the start only for who is on the stage, and off again with each loss of the right to speak."""
    stage_id = await house.live()
    stage, page, name = house.stage(), FakePage(), SessionId("telephone")
    await stage.sit(name, AVA, page, stage_id, mic_gated=True)
    await stage.offer(name, page, "offer")
    house.matrix.role(ADMIN, AVA, role="speaker", stage_id=stage_id)
    await until(lambda: page.notices, "she is told of her place")
    await house.quiet()
    assert not house.media.heard(AVA)

    async def opened() -> None:
        stage.microphone(name, page, True)
        await until(lambda: house.media.heard(AVA), "her own press opens it")

    await opened()
    stage.microphone(name, page, False)
    await until(lambda: not house.media.heard(AVA), "and shuts it")
    for taken_away in ({"role": "speaker", "muted": True}, {"role": "listener"}):
        await opened()
        house.matrix.role(ADMIN, AVA, **taken_away, stage_id=stage_id)
        await until(lambda: not house.media.heard(AVA), f"{taken_away}")
        stage.microphone(name, page, True)  # whatever she presses now
        house.matrix.role(ADMIN, AVA, role="speaker", stage_id=stage_id)
        await house.quiet()
        assert stage.state.may_speak(AVA)
        assert not house.media.heard(AVA), "nobody's microphone is opened for them"
    stage.rise(name, page, keep=False)
    again = FakePage()
    await stage.sit(SessionId("again"), AVA, again, stage_id, mic_gated=True)
    await stage.offer(SessionId("again"), again, "offer")
    await until(lambda: house.media.heard(AVA), "who calls from the stage is heard at once")
