"""The moderator's desk on a desktop: hands, people, topic, end. What it does is seen on the others' pages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.helpers.browser import Browser
from tests.helpers.pages import HANG_S, Tab, Tabs, absent, at, tabs_of, until
from tests.helpers.world import World

QUEUE = "[...document.querySelectorAll('[data-testid=queued]')].map((n) => n.dataset.user.split(':')[0]).join()"


@pytest.fixture(scope="module")
async def desktop() -> AsyncIterator[Browser]:
    async with Browser.launch("chromium", viewport=(1280, 800)) as browser:
        yield browser


@pytest.fixture
async def tabs(desktop: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(desktop) as tabs:
        yield tabs


async def toast(desk: Tab, part: str) -> None:
    await desk.sees(f"document.querySelector('[data-testid=toast]')?.innerText.includes('{part}')")


async def test_the_queue_one_comes_up_one_waits(world: World, tabs: Tabs) -> None:
    stage = await world.new_stage(topic="Questions")
    desk = await tabs.enter(await world.link("host", stage))
    await desk.sees(at("tab-hands"))
    pages = {name: await world.client(name, stage) for name in ("ava", "ben", "cyrus")}
    user = {name: page.me.user or "" for name, page in pages.items()}
    for name in pages:
        await pages[name].hand(True, f"{name} asks")
        await desk.sees(at("queued", user=user[name]))
    assert await desk.page.eval(QUEUE) == "@ava,@ben,@cyrus"
    assert "ben asks" in (await desk.page.text("[data-testid=queue]") or "")
    assert await desk.page.text("[data-testid=tab-hands] .n") == "3"

    await desk.press("not-now", user=user["ben"])
    await desk.sees(f"{QUEUE} === '@ava,@cyrus,@ben'")
    await toast(desk, "end of the line")
    await pages["ben"].wait(lambda c: any(n.key == "hand_not_now" for n in c.notices), HANG_S, "told kindly")
    await desk.press("bring-up", user=user["ava"])
    await pages["ava"].wait(lambda c: c.me.can_speak and c.me.hand is None, HANG_S, "on the stage")
    await desk.sees(f"{QUEUE} === '@cyrus,@ben' && {at('speaker', user=user['ava'])}")
    await pages["cyrus"].hand(False)
    await desk.sees(f"{QUEUE} === '@ben'")


async def test_what_a_moderator_does_to_one_person(world: World, tabs: Tabs) -> None:
    stage = await world.new_stage(topic="People")
    desk = await tabs.enter(await world.link("host", stage))
    ava, ben, dara = [await world.client(name, stage) for name in ("ava", "ben", "dara")]
    users = {page: page.me.user or "" for page in (ava, ben, dara)}
    await world.set_role(stage, "ava", "speaker")

    async def choose(user: str, where: str, deed: str) -> None:
        await desk.press(where, user=user)
        await desk.sees(at("person-sheet"))
        await desk.press(deed)
        await desk.sees(absent("person-sheet"))

    await choose(users[ava], "speaker", "mute")
    await ava.wait(lambda c: c.me.muted and not c.me.can_speak, HANG_S, "muted")
    await desk.sees(at("speaker", user=users[ava], mic="muted"))
    await desk.press("undo")
    await ava.wait(lambda c: not c.me.muted and c.me.can_speak, HANG_S, "allowed again")
    await desk.sees(at("speaker", user=users[ava], mic="off"))

    await choose(users[ava], "speaker", "to-audience")
    await ava.wait(lambda c: c.me.place == "audience", HANG_S, "in the audience")
    await desk.sees(absent("speaker", user=users[ava]))
    await desk.press("undo")  # it says "Invite back"
    await ava.wait(lambda c: c.me.invited is not None, HANG_S, "invited back")

    await desk.press("tab-people")
    await choose(users[ben], "person", "make-moderator")
    await ben.wait(lambda c: c.me.role == "moderator" and "mute" in c.me.can, HANG_S, "a moderator")

    await desk.press("person", user=users[dara])
    await desk.press("kick")
    await desk.sees(at("kick-sheet"))
    assert dara.state == "live"  # nothing is done before the second press
    await desk.press("kick-confirm")
    await dara.wait(lambda c: c.bye is not None and c.bye.reason == "removed", HANG_S, "removed")

    async def left() -> bool:
        return users[dara] not in await stage.host.joined_members(stage.room_id)

    await until(left, "removed from the room, a moment after the cut")
    await desk.sees(absent("person", user=users[dara]))
    assert await desk.has_faults() == []


async def test_topic_and_end_reach_every_page(world: World, tabs: Tabs) -> None:
    stage = await world.new_stage(topic="The first topic")
    other, desk = [await tabs.enter(await world.link(name, stage)) for name in ("ava", "host")]
    client = await world.client("cyrus", stage)

    await desk.press("settings")
    await desk.press("topic-edit")
    await desk.sees(at("topic-sheet"))
    await desk.page.eval("document.querySelector('[data-testid=topic-field]').select()")
    await desk.page.type("[data-testid=topic-field]", "حافظ and after")
    await desk.press("topic-save")
    for tab in (desk, other):
        await tab.sees("document.querySelector('[data-testid=topic]')?.innerText === 'حافظ and after'")

    async def written() -> bool:
        return bool((await world.stage_state(stage))["topic"] == "حافظ and after")

    await until(written, "the topic in room state")

    assert not await other.is_so(at("end"))
    await desk.press("end")
    await desk.sees(at("end-sheet"))
    await desk.page.press("Escape")
    await desk.sees(absent("end-sheet"))
    assert await other.is_so(at("status", "live"))
    await desk.press("end")
    await desk.press("end-confirm")
    for tab in (desk, other):
        await tab.sees(at("ended"))
        assert await tab.page.eval("document.querySelector('[data-testid=sound]').srcObject === null")
    await client.wait(lambda c: c.state == "over" or c.stage.status == "ended", HANG_S, "ended")

    async def ended() -> bool:
        return bool((await world.stage_state(stage))["status"] == "ended")

    await until(ended, "ended in room state")
