"""A hand goes up by every way there is; each becomes the one queue in room state and shows on the moderator's page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge.demo.people import PageClient
from tests.helpers.browser import Browser
from tests.helpers.world import StageHandle, World

HANG_S = 90


async def queue_in_room(world: World, stage: StageHandle, users: Sequence[str]) -> list[dict[str, object]]:
    """Wait until ``im.eyvan.queue`` holds exactly these, next to speak first."""
    for _ in range(HANG_S * 5):
        content = await stage.host.get_state(stage.room_id, "im.eyvan.queue") or {}
        hands: list[dict[str, object]] = list(content.get("hands", []))
        if [hand["user"] for hand in hands] == list(users):
            assert content["stage_id"] == stage.stage_id
            assert content["total"] == len(users)
            return hands
        await asyncio.sleep(0.2)
    raise AssertionError(f"the room's queue is {hands}, not {users}")


async def card_of(world: World, stage: StageHandle) -> str:
    """The event id of the stage card."""
    event = await stage.host.wait_for_event(
        stage.room_id,
        lambda e: (
            e["type"] == "m.room.message"
            and e["sender"] == world.bot
            and "A question" in e["content"].get("body", "")
            and "m.relates_to" not in e["content"]
        ),
    )
    return str(event["event_id"])


def queued(host: PageClient) -> list[tuple[str, str]]:
    return [(hand.user.split(":")[0], hand.via) for hand in host.queue]


async def test_reaction_command_event_and_button_raise_one_queue(world: World) -> None:
    stage = await world.new_stage(topic="A question")
    card = await card_of(world, stage)
    host = await world.client("host", stage)
    ava, ben, cyrus, dara = [await world.person(name) for name in ("ava", "ben", "cyrus", "dara")]

    reaction = await ava.react(stage.room_id, card, "🖐🏽\ufe0f")  # another hand than the bot's, with skin and variation
    await host.wait(lambda c: queued(c) == [("@ava", "reaction")], HANG_S, "the reaction")
    await ben.send(stage.room_id, "!hand about the second verse")
    await host.wait(lambda c: queued(c)[1:] == [("@ben", "command")], HANG_S, "the command")
    await cyrus.send(stage.room_id, {"raised": True, "note": "an event"}, kind="im.eyvan.hand")
    await host.wait(lambda c: queued(c)[2:] == [("@cyrus", "event")], HANG_S, "the event")
    async with Browser.launch("chromium") as chromium:
        page = await chromium.open(await world.link("dara", stage))
        await page.click("[data-testid=hand]")
        await page.click("[data-testid=hand-send]")
        await page.wait("document.querySelector('[data-testid=hand]').dataset.state === 'up'", HANG_S)
        await host.wait(lambda c: queued(c)[3:] == [("@dara", "web")], HANG_S, "the page's button")
        hands = await queue_in_room(world, stage, [each.user for each in (ava, ben, cyrus, dara)])
        assert hands[1]["note"] == "about the second verse"

        # taking the reaction away, a command, and the button lower them again
        await ava.redact(stage.room_id, reaction)
        await ben.send(stage.room_id, "!lower")
        await cyrus.send(stage.room_id, {"raised": False}, kind="im.eyvan.hand")
        await page.click("[data-testid=hand]")
        await page.wait("document.querySelector('[data-testid=hand]').dataset.state === 'down'", HANG_S)
    await host.wait(lambda c: queued(c) == [], HANG_S, "no hand is up")
    await queue_in_room(world, stage, [])


async def test_the_moderators_browser_shows_the_hand_and_brings_it_up(world: World) -> None:
    stage = await world.new_stage(topic="A question")
    ava = await world.client("ava", stage)
    async with Browser.launch("chromium", viewport=(1280, 800), lang="fa") as chromium:
        desk = await chromium.open(await world.link("host", stage))
        await ava.hand(True, "از حافظ، دو دقیقه")
        await desk.wait(
            "document.querySelector('[data-testid=queue]')?.innerText.includes('از حافظ، دو دقیقه')", HANG_S
        )
        await desk.click("[data-testid=bring-up]")
        await ava.wait(lambda c: c.me.can_speak and c.me.hand is None, HANG_S, "she is on stage")
    await queue_in_room(world, stage, [])
    role = await stage.host.get_state(stage.room_id, "im.eyvan.role", f"_{ava.me.user}")
    assert role is not None
    assert (role["role"], role["by"], role["via"]) == ("speaker", stage.host.user, "web")


async def test_an_invitation_is_answered_before_anybody_comes_up(world: World) -> None:
    stage = await world.new_stage(topic="A question")
    host, ava = await world.client("host", stage), await world.client("ava", stage)
    await host.act("invite", ava.me.user)
    await ava.wait(lambda c: c.me.invited is not None, HANG_S, "the invitation")
    assert not ava.me.can_speak
    await ava.reply(False)
    await ava.wait(lambda c: c.me.invited is None, HANG_S, "declined")
    assert ava.me.place == "audience"
    await host.act("invite", ava.me.user)
    await ava.wait(lambda c: c.me.invited is not None, HANG_S, "a second invitation")
    await ava.reply(True)
    await ava.wait(lambda c: c.me.can_speak, HANG_S, "on stage")
