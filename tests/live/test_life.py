"""A stage under load, with a homeserver that fails, and at its end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from bridge.errors import Full, MatrixRefused, NotFound, Refused, Unavailable
from bridge.ids import SessionId, StageId, UserId, role_key
from bridge.live import stage as live_stage
from bridge.rules.content import QUEUE, ROLE, STAGE
from bridge.rules.inputs import Asked
from bridge.rules.reduce import reduce
from tests.helpers.fakes import (
    ADMIN,
    AVA,
    BEN,
    BOT,
    CYD,
    MOD,
    ROOM,
    FakePage,
    FaultyStore,
    House,
    until,
)


def ask(actor: UserId, act: Any, target: UserId | None = None, ref: str = "page:1", text: str = "") -> Asked:
    return Asked(actor, act, "web", ref, target, text)


class Held:
    """A hook that lets calls wait. ``only``: those whose arguments hold it."""

    def __init__(self, only: Any = None) -> None:
        self.began, self.go_on, self._only = asyncio.Event(), asyncio.Event(), only

    async def __call__(self, name: str, args: tuple[Any, ...]) -> None:
        if self._only is None or self._only in args:
            self.began.set()
            await self.go_on.wait()


# -- asking -------------------------------------------------------------------------------------


async def test_every_act_is_answered_once(house: House) -> None:
    await house.live()
    await house.on_air(AVA)
    acts: list[Asked] = [
        ask(ADMIN, "topic", text="Other"), ask(ADMIN, "sound", text="music"),
        ask(BEN, "raise"), ask(BEN, "lower"), ask(ADMIN, "mute", AVA),
        ask(ADMIN, "unmute", AVA), ask(ADMIN, "invite", BEN), ask(BEN, "accept"), ask(CYD, "decline"),
        ask(ADMIN, "to_audience", AVA), ask(ADMIN, "not_now", AVA), ask(ADMIN, "status"), ask(ADMIN, "hands"),
        ask(BEN, "link"), ask(BEN, "revoke_links"), ask(BEN, "help"), ask(BEN, "mute", AVA),
        ask(ADMIN, "make_moderator", CYD), ask(ADMIN, "kick", CYD), ask(ADMIN, "end"), ask(ADMIN, "end"),
    ]  # fmt: skip
    for each in acts:
        async with asyncio.timeout(20):
            outcome = await house.stage().ask(each)
        assert outcome.text
    assert house.stage()._asked == {}
    assert house.stage()._inbox._calls == set()


async def test_answers_wait_for_what_was_kept(house: House, store: FaultyStore) -> None:
    await house.live()
    held = Held()
    store.before["save_stage"] = held
    asking = asyncio.create_task(house.stage().ask(ask(BEN, "raise")))
    await held.began.wait()
    assert not asking.done()
    held.go_on.set()
    assert (await asking).text == "done-raise"
    assert [hand["user"] for hand in (await store.load_stages())[ROOM]["hands"]] == [BEN]


async def test_many_hands_cost_few_rows_and_few_writes(house: House, store: FaultyStore) -> None:
    people = [UserId(f"@p{n}:b.org") for n in range(300)]
    for user in people:
        house.matrix.member(user, user, "join")
    await house.live()
    await house.quiet()
    store.calls.clear()
    writes = len(house.matrix.calls)
    outcomes = await asyncio.gather(*(house.stage().ask(ask(u, "raise", ref=f"page:{u}")) for u in people))
    assert all(outcome.ok for outcome in outcomes)
    assert store.calls.count("save_stage") <= 10
    await until(lambda: house.matrix.rooms[ROOM].content(QUEUE).get("total") == 300, "the queue in state")
    assert len([call for call in house.matrix.calls[writes:] if call[0] == "write_state"]) <= 30


async def test_closing_answers_everybody_who_waits(house: House) -> None:
    stage_id = await house.live()
    stage = house.stage()
    held = Held()
    house.media.before["gate"] = held
    page, _ = await house.seat(AVA)
    house.matrix.role(ADMIN, AVA, role="speaker")
    await held.began.wait()
    house.matrix.role(ADMIN, AVA, role="listener")  # the stage's task now waits for the relay
    await until(lambda: not stage.state.hints or len(stage._inbox) == 0, "the hint is taken")
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(stage.ask(ask(BEN, "raise"))),
        asyncio.create_task(stage.sit(SessionId("late"), BEN, FakePage(), stage_id)),
    ]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await stage.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert page.byes == ["restart"]
    for late in (stage.ask(ask(BEN, "raise")), stage.sit(SessionId("x"), BEN, FakePage(), stage_id)):
        with pytest.raises(Unavailable):
            await late
    await stage.close()
    assert all(task.done() for task in stage._tasks)
    assert not stage._seats._tasks


async def test_a_defect_in_the_rules_is_answered_and_ends_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await house.live()

    def broken(state: Any, what: Any, now: int) -> Any:
        if isinstance(what, Asked) and what.act == "raise":
            raise RuntimeError("a defect")
        return reduce(state, what, now)

    monkeypatch.setattr("bridge.live.stage.reduce", broken)
    with pytest.raises(Unavailable):
        await house.stage().ask(ask(BEN, "raise"))
    house.matrix.message(BEN, "!hand")
    assert (await house.stage().ask(ask(ADMIN, "status"))).ok
    assert "a defect" in caplog.text


async def test_a_full_inbox_refuses_requests_and_reads_state_again(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await house.live()
    await house.on_air(AVA)
    stage = house.stage()
    held = Held()
    house.media.before["gate"] = held
    monkeypatch.setattr("bridge.live.inbox.LIMIT", 3)
    house.matrix.role(ADMIN, AVA, role="speaker", muted=True)
    await held.began.wait()  # the task waits for the relay
    house.matrix.role(ADMIN, BEN, role="speaker", stage_id=stage.stage_id)
    house.matrix.role(ADMIN, CYD, role="speaker", stage_id=stage.stage_id)
    for _ in range(5):
        house.matrix.message(BEN, "!hand")
    await until(lambda: stage._inbox.refused, "refused")
    with pytest.raises(Full):
        await stage.ask(ask(BEN, "raise"))
    held.go_on.set()
    await until(lambda: stage.state.room.place(CYD) == "stage", "read again as a whole")
    await house.marked()
    assert "will be read again" in caplog.text


# -- a homeserver that fails ---------------------------------------------------------------------


@pytest.fixture
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.lanes._RETRY_S", (0.005,))


async def fail_times(times: int, error: Exception, only: Any = None) -> Any:
    left = times

    async def hook(name: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if left > 0 and (only is None or only in args):
            left -= 1
            raise error

    return hook


@pytest.mark.usefixtures("_hurry")
async def test_a_cut_is_written_when_the_homeserver_is_back(house: House, store: FaultyStore) -> None:
    await house.live()
    await house.on_air(AVA)
    house.matrix.before["write_state"] = await fail_times(5, Unavailable("502"))
    assert (await house.stage().ask(ask(ADMIN, "mute", AVA))).ok
    assert not house.media.heard(AVA)
    assert len(await store.load_cuts()) == 1
    await until(lambda: house.matrix.rooms[ROOM].content(ROLE, role_key(AVA)).get("muted"), "written")
    await house.quiet()
    await until(lambda: not house.stage().state.cuts, "settled")
    assert await store.load_cuts() == []
    assert not house.media.heard(AVA)


@pytest.mark.usefixtures("_hurry")
async def test_a_cut_that_is_refused_holds_and_is_told(house: House) -> None:
    await house.live()
    await house.on_air(AVA)
    page, _ = await house.seat(MOD)
    house.matrix.before["write_state"] = await fail_times(9, MatrixRefused("M_FORBIDDEN", 403, "no power"), ROLE)
    assert (await house.stage().ask(ask(MOD, "mute", AVA))).ok
    await until(lambda: ("cut_not_written", "") in page.notices, "told on the page")
    assert not house.media.heard(AVA)
    house.matrix.before.clear()
    house.matrix.role(ADMIN, AVA, role="speaker", reason="newer")
    await until(lambda: house.media.heard(AVA), "a newer role ends it")


@pytest.mark.usefixtures("_hurry")
async def test_a_grant_that_fails_is_told_and_nothing_opens(house: House) -> None:
    await house.live()
    await house.seat(AVA)
    house.matrix.before["write_state"] = await fail_times(1, Unavailable("gone"), ROLE)
    assert (await house.stage().ask(ask(ADMIN, "bring_up", AVA))).ok
    await until(lambda: house.matrix.chats.get(ADMIN), "told by chat")
    assert not house.media.heard(AVA)
    assert house.stage().state.writes == {}


@pytest.mark.usefixtures("_hurry")
async def test_reading_goes_on_after_failures_of_all_kinds(house: House, caplog: pytest.LogCaptureFixture) -> None:
    await house.live()
    await house.seat(AVA)
    for error in (Unavailable("500"), KeyError("event_id"), MatrixRefused("M_LIMIT_EXCEEDED", 429, "slow down")):
        house.matrix.before["read_state"] = await fail_times(3, error)
        house.matrix.role(ADMIN, AVA, role="speaker", reason=type(error).__name__)
        await until(lambda: house.media.heard(AVA), "heard")
        house.matrix.role(ADMIN, AVA, role="listener", reason=type(error).__name__)
        await until(lambda: not house.media.heard(AVA), "not heard")
    assert house.rooms.of_room(ROOM) is not None


@pytest.mark.usefixtures("_hurry")
async def test_a_refused_reading_alone_forgets_no_room(house: House, store: FaultyStore) -> None:
    """A wrong token, a proxy that says 403: the homeserver is asked whether the bot is in the room."""
    await house.live()
    await house.on_air(AVA)
    refusal = MatrixRefused("M_UNKNOWN_TOKEN", 401, "who are you")
    house.matrix.before["read_state"] = await fail_times(1, refusal)
    house.matrix.before["read_room"] = await fail_times(3, refusal)
    house.matrix.role(ADMIN, BEN, role="speaker", stage_id=house.stage().stage_id)
    await until(lambda: house.stage().state.room.place(BEN) == "stage", "read at last")
    assert "forget_stage" not in store.calls
    assert house.media.heard(AVA)


async def test_a_voided_grant_never_lands_after_the_cut(house: House) -> None:
    await house.live()
    await house.seat(AVA)
    held = Held(ROLE)
    house.matrix.before["write_state"] = held
    assert (await house.stage().ask(ask(ADMIN, "bring_up", BEN))).ok  # under way, and slow
    await held.began.wait()
    assert (await house.stage().ask(ask(ADMIN, "bring_up", AVA, ref="page:2"))).ok
    assert (await house.stage().ask(ask(ADMIN, "mute", AVA, ref="page:3"))).ok
    held.go_on.set()
    await house.quiet()
    await until(lambda: house.matrix.rooms[ROOM].content(ROLE, role_key(AVA)).get("muted"), "the cut in state")
    assert not house.media.heard(AVA)
    assert not any(speak for owner, _, speak in house.media.changes if owner == AVA)


@pytest.mark.usefixtures("_hurry")
async def test_a_kick_whose_answer_was_lost_is_done(house: House) -> None:
    await house.live()
    page, _ = await house.seat(MOD)
    await house.on_air(AVA)
    house.matrix.after["kick"] = await fail_times(1, Unavailable("the answer was lost"))
    assert (await house.stage().ask(ask(ADMIN, "kick", AVA))).ok
    await until(lambda: house.matrix.rooms[ROOM].membership(AVA) == "leave", "kicked")
    await until(lambda: not house.stage().state.cuts, "settled")
    assert page.notices == []
    assert ADMIN not in house.matrix.chats


@pytest.mark.usefixtures("_hurry")
async def test_an_end_that_came_too_late_does_not_end_the_next_stage(house: House) -> None:
    await house.live()
    gone = Unavailable("away")
    house.matrix.before["write_state"] = await fail_times(10**9, gone)
    assert (await house.stage().ask(ask(ADMIN, "end"))).ok
    await until(lambda: not house.stage().state.live, "ended here")
    other = {"status": "live", "stage_id": "another-stage-000000", "host": ADMIN, "bot": BOT}
    house.matrix.put(ADMIN, STAGE, "", other)
    await until(lambda: house.stage().stage_id == "another-stage-000000" and house.stage().state.live, "the next stage")
    house.matrix.before.clear()
    house.matrix.role(ADMIN, BEN, role="speaker")
    await house.quiet()
    assert house.matrix.rooms[ROOM].content(STAGE)["status"] == "live"


@pytest.mark.usefixtures("_hurry")
async def test_the_queue_is_written_when_the_homeserver_is_back(house: House) -> None:
    await house.live()
    house.matrix.before["write_state"] = await fail_times(3, Unavailable("away"), QUEUE)
    assert (await house.stage().ask(ask(BEN, "raise"))).ok
    await until(lambda: house.matrix.rooms[ROOM].content(QUEUE).get("total") == 1, "the queue in state")


# -- pages ---------------------------------------------------------------------------------------


async def test_the_same_session_twice_at_once(house: House) -> None:
    stage_id = await house.live()
    session, first, second = SessionId("same"), FakePage(), FakePage()
    stage = house.stage()
    await asyncio.gather(stage.sit(session, AVA, first, stage_id), stage.sit(session, AVA, second, stage_id))
    assert (first.byes, second.byes) == (["elsewhere"], [])
    with pytest.raises(NotFound):
        await stage.offer(session, first, "offer")
    await stage.offer(session, second, "offer")
    stage.rise(session, first)  # the first socket closes only now: it must not take the second's seat
    assert (await stage.ask(ask(ADMIN, "status"))).args["listeners"] == 1
    assert len(stage._seats) == 1
    assert stage.state.present == {AVA: 1}
    assert house.media.hears(AVA)


async def test_two_offers_at_once_are_one(house: House) -> None:
    stage_id = await house.live()
    page = FakePage()
    await house.stage().sit(SessionId("s"), AVA, page, stage_id)
    held = Held()
    house.media.before["join"] = held
    first = asyncio.create_task(house.stage().offer(SessionId("s"), page, "offer"))
    await held.began.wait()
    with pytest.raises(Full):
        await house.stage().offer(SessionId("s"), page, "offer")
    held.go_on.set()
    await first
    assert len(house.media.peers) == 1


async def test_a_page_that_is_back_in_time_keeps_its_sound(house: House) -> None:
    stage_id = await house.live()
    page, session = await house.seat(AVA)
    house.stage().rise(session, page)
    again = FakePage()
    await house.stage().sit(session, AVA, again, stage_id)
    await until(lambda: again.me and again.me.can_hear, "shown with its sound")
    assert [name for name, _ in house.media.calls] == ["join"]
    assert page.byes == []


async def test_a_page_that_does_not_come_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.stage.SEAT_KEPT_S", 0.02)
    await house.live()
    page, session = await house.seat(AVA)
    house.stage().rise(session, page)
    await until(lambda: not house.media.peers, "gone from the relay")
    assert house.stage().state.present == {}


async def test_pages_of_a_stage_that_another_replaces(house: House) -> None:
    """Their sound is bound to the old stage: they are told, and their old session seats nobody in the new one."""
    old = await house.live()
    page, session = await house.seat(AVA)
    other = StageId("another-stage-000000")
    house.matrix.put(ADMIN, STAGE, "", {"status": "live", "stage_id": other, "host": ADMIN, "bot": BOT})
    await until(lambda: page.byes == ["ended"], "told")
    await until(lambda: house.stage().state.live and house.stage().stage_id == other, "the next stage")
    with pytest.raises(Refused):
        await house.stage().sit(session, AVA, FakePage(), old)
    assert ("close_stage", (old,)) in house.media.calls or not house.media.peers


async def test_the_end_is_one_word_to_the_relay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stage, "MAX_SEATS", 1000)  # one person stands here for many
    stage_id = await house.live()
    pages = [(await house.seat(AVA, f"s{n}"))[0] for n in range(50)]
    house.media.calls.clear()
    assert (await house.stage().ask(ask(ADMIN, "end"))).ok
    assert [name for name, _ in house.media.calls] == ["close_stage"]
    assert all(page.byes == ["ended"] for page in pages)
    await until(lambda: house.matrix.rooms[ROOM].content(STAGE)["status"] == "ended", "written")
    assert house.matrix.rooms[ROOM].content(STAGE)["stage_id"] == stage_id


async def test_revoked_links_end_their_pages_after_it_is_kept(house: House, store: FaultyStore) -> None:
    await house.live()
    page, _ = await house.seat(AVA)
    other, _ = await house.seat(BEN)
    order: list[str] = []

    async def kept(name: str, args: tuple[Any, ...]) -> None:
        order.append(f"kept, told: {page.byes}")

    store.after["revoke_links"] = kept
    house.matrix.message(AVA, "!link revoke")
    await until(lambda: page.byes == ["expired"], "sent away")
    assert order == ["kept, told: []"]
    await until(lambda: not house.media.hears(AVA), "and not heard from")
    assert other.byes == []
    assert await store.links_revoked_before(AVA, ROOM) == house.clock.now_ms()


async def test_guests_on_and_off(house: House) -> None:
    await house.live()
    with pytest.raises(Refused):
        await house.seat(None)
    content = dict(house.matrix.rooms[ROOM].content(STAGE))
    house.matrix.put(ADMIN, STAGE, "", {**content, "guests": True})
    await until(lambda: house.stage().state.may_hear(None), "guests on")
    page, _ = await house.seat(None)
    await house.on_air(AVA)
    await until(lambda: page.view and page.view.speakers, "shown")
    assert page.view is not None
    assert page.me is not None
    assert (page.view.audience.faces, page.view.queue, page.me.can) == ([], [], [])
    house.matrix.put(ADMIN, STAGE, "", {**content, "guests": False})
    await until(lambda: page.byes == ["removed"], "guests off")


async def test_levels_reach_all_pages(house: House) -> None:
    stage_id = await house.live()
    page, _ = await house.seat(AVA)
    levels = {7: 12}
    house.rooms.levels(stage_id, levels)
    assert page.heard_levels[0] is levels


# -- words ---------------------------------------------------------------------------------------


async def test_a_card_that_could_not_be_posted_is_posted_later(house: House) -> None:
    house.matrix.before["send"] = await fail_times(1, Unavailable("away"), ROOM)
    house.matrix.message(ADMIN, "!stage start Talk")
    await until(lambda: house.stage().state.live, "live")
    await until(lambda: any(call[0] == "send" for call in house.matrix.calls), "tried")
    house.clock.advance(10)
    await until(lambda: house.stage().state.card, "the card")
    assert len([text for text in house.matrix.said() if "Live: Talk" in text]) == 1
    card = house.stage().state.card
    assert card is not None
    house.matrix.reaction(BEN, card, "✋🏽")
    await until(lambda: house.stage().state.hand_of(BEN), "a hand by reaction")
    house.matrix.message(ADMIN, "!stage end")
    await until(
        lambda: any(event == card and "is over" in text for event, text in house.matrix.edits), "the card says so"
    )


async def test_links_beyond_count_are_answered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.live()
    held = Held()
    house.matrix.before["tell"] = held
    monkeypatch.setattr(house.stage()._notices._chats._jobs, "_maxsize", 3)
    people = [UserId(f"@p{n}:b.org") for n in range(12)]
    for user in people:
        house.matrix.member(user, user, "join")
        house.matrix.message(user, "!link")
    await held.began.wait()
    await until(lambda: len([t for t in house.matrix.said() if "not to be had" in t]) >= 4, "told to try again")
    held.go_on.set()
    await until(
        lambda: len([t for t in house.matrix.said() if "personal link" in t and "direct chat" in t]) >= 7, "links"
    )
    said = house.matrix.said()
    for user in people:
        assert len([text for text in said if text.startswith(f"{house.stage().state.name(user)},")]) >= 1


async def test_a_slow_chat_holds_up_no_reply(house: House) -> None:
    await house.live()
    held = Held(AVA)
    house.matrix.before["tell"] = held
    house.matrix.message(AVA, "!link")
    await held.began.wait()
    house.matrix.message(BEN, "!link")
    house.matrix.message(BEN, "!help")
    await until(lambda: house.matrix.chats.get(BEN), "another's link")
    await until(lambda: any("For everyone" in text for text in house.matrix.said()), "help")
    held.go_on.set()
    await until(lambda: house.matrix.chats.get(AVA), "the slow one")


async def test_too_late_is_said_once(house: House) -> None:
    await house.live()
    old = house.clock.now_ms() - 120_000
    for _ in range(3):
        house.matrix.message(AVA, "!stage end", ts=old)
    house.matrix.message(AVA, "!help")
    await until(lambda: any("For everyone" in text for text in house.matrix.said()), "help")
    assert len([text for text in house.matrix.said() if "late" in text]) == 1
    assert house.stage().state.live


async def test_the_words_of_a_stage_of_another_bot_are_not_ours(house: House) -> None:
    other = {"status": "live", "stage_id": "their-stage-00000000", "host": ADMIN, "bot": "@eyvan:b.org"}
    house.matrix.put(ADMIN, STAGE, "", other)
    await until(lambda: house.stage().state.live, "live")
    house.matrix.message(AVA, "!stage explode")
    house.matrix.message(AVA, "!help")
    await until(lambda: any("For everyone" in text for text in house.matrix.said()), "help")
    assert not any("do not know" in text or "Live" in text for text in house.matrix.said())


async def test_no_task_is_left_and_nothing_grows(house: House, caplog: pytest.LogCaptureFixture) -> None:
    await house.live()
    stage = house.stage()
    for round_ in range(20):
        page, session = await house.seat(AVA, f"round {round_}")
        house.matrix.role(ADMIN, AVA, role="speaker", reason=str(round_))
        await until(lambda: house.media.heard(AVA), "on air")
        assert (await stage.ask(ask(ADMIN, "mute", AVA, ref=f"page:{round_}"))).ok
        stage.rise(session, page, keep=False)
        await until(lambda: not house.media.peers, "gone")
    await house.quiet()
    assert (len(stage._seats), len(stage._asked), len(stage._inbox._calls), len(stage._seats._tasks)) == (0, 0, 0, 0)
    assert (stage._seats._by_peer, stage._seats._by_user) == ({}, {})
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_room_has_a_language_of_its_own(house: House) -> None:
    await house.live()
    house.matrix.message(ADMIN, "!stage language fa")
    await until(lambda: house.matrix.rooms[ROOM].content(STAGE).get("language") == "fa", "the language")
    await house.quiet()
    house.matrix.message(AVA, "!stage status")
    said = house.matrix.rooms[ROOM].timeline
    await until(lambda: "شنونده" in str(said[-1]["content"].get("body")), "an answer in Persian", lambda: said[-1])
