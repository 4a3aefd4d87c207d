"""How a stage sounds, and who does not want to hear whom: what the relay is asked for, and what pages see."""

from __future__ import annotations

import pytest

from bridge.errors import BadInput, Full, NotFound
from bridge.rules.content import STAGE
from tests.helpers.fakes import ADMIN, AVA, BEN, CYD, ROOM, FakePage, House, until


async def test_the_relay_follows_the_stage_once_the_room_has_it(house: House) -> None:
    stage_id = await house.live()
    page, _ = await house.seat(BEN)
    house.matrix.message(ADMIN, "!stage sound music")
    await until(lambda: house.media.sounds.get(stage_id) == "music", "the sound")
    assert house.matrix.rooms[ROOM].content(STAGE)["music"] is True
    await until(lambda: page.view and page.view.stage.sound == "music", "the page")
    house.matrix.message(ADMIN, "!stage topic Songs")
    await until(lambda: page.view and page.view.stage.topic == "Songs", "another topic")
    assert page.view
    assert page.view.stage.sound == "music"
    content = {name: value for name, value in house.matrix.rooms[ROOM].content(STAGE).items() if name != "music"}
    house.matrix.put(ADMIN, STAGE, "", {**content, "low": True})  # by a plain client
    await until(lambda: house.media.sounds.get(stage_id) == "low", "the sound")
    assert [args[1] for name, args in house.media.calls if name == "tune"] == ["music", "low"]


async def test_a_stage_of_before_a_restart_sounds_as_it_did(house: House) -> None:
    stage_id = await house.live()
    house.matrix.message(ADMIN, "!stage sound low")
    await until(lambda: house.media.sounds.get(stage_id) == "low", "the sound")
    await house.kill()
    again = House(house.matrix, house.store, house.clock)
    try:
        await again.start()
        await until(lambda: again.media.sounds.get(stage_id) == "low", "the sound")
    finally:
        await again.close()


def out(page: FakePage) -> list[str]:
    assert page.me
    return page.me.left_out


async def test_who_is_left_out_stays_so_over_a_new_connection_and_a_new_page(house: House) -> None:
    await house.live()
    await house.on_air(AVA)
    page, session = await house.seat(BEN)
    stage = house.stage()
    await stage.leave_out(session, page, AVA, True)
    assert house.media.left_out == {frozenset({AVA})}
    await until(lambda: page.me and out(page) == [AVA], "shown")
    house.media.die()
    await stage.offer(session, page, "again")
    assert house.media.left_out == {frozenset({AVA})}
    stage.rise(session, page)
    fresh = FakePage()
    assert stage.stage_id
    await stage.sit(session, BEN, fresh, stage.stage_id)
    await until(lambda: fresh.me and out(fresh) == [AVA], "shown to the page that came back")
    await stage.leave_out(session, fresh, CYD, True)
    await stage.leave_out(session, fresh, AVA, False)
    assert house.media.left_out == {frozenset({CYD})}
    await stage.leave_out(session, fresh, CYD, False)
    await until(lambda: out(fresh) == [], "nobody left out")


async def test_what_the_relay_has_no_mix_for_changes_nothing(house: House) -> None:
    await house.live()
    pages = [await house.seat(user) for user in (BEN, CYD)]
    house.media.most_left_out = 1
    stage = house.stage()
    await stage.leave_out(pages[0][1], pages[0][0], AVA, True)
    await stage.leave_out(pages[1][1], pages[1][0], AVA, True)  # the same: no further mix
    with pytest.raises(Full):
        await stage.leave_out(pages[1][1], pages[1][0], ADMIN, True)
    await until(lambda: pages[1][0].me and out(pages[1][0]) == [AVA], "shown")
    assert house.media.left_out == {frozenset({AVA})}
    house.media.most_left_out = 0
    house.media.die()
    await stage.offer(pages[1][1], pages[1][0], "again")  # no mix for it any more: heard, and shown so
    await until(lambda: out(pages[1][0]) == [], "shown")


async def test_whom_one_cannot_leave_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.live()
    page, session = await house.seat(BEN)
    stage = house.stage()
    with pytest.raises(BadInput, match="oneself"):
        await stage.leave_out(session, page, BEN, True)
    with pytest.raises(NotFound):
        await stage.leave_out(session, FakePage(), AVA, True)
    monkeypatch.setattr("bridge.live.stage.MAX_LEFT_OUT", 1)
    await stage.leave_out(session, page, AVA, True)
    with pytest.raises(Full, match="1 people at most"):
        await stage.leave_out(session, page, CYD, True)
    assert house.media.left_out == {frozenset({AVA})}


async def test_places_are_kept_for_who_may_speak(house: House) -> None:
    """A speaker who comes again, and who has authority; not a listener."""
    await house.live()
    await house.on_air(AVA)
    assert house.media.kept_for == set()
    for user in (AVA, ADMIN, BEN):
        await house.seat(user)
    assert house.media.kept_for == {ADMIN, AVA}
