"""The page as a widget: put into the room by the bot, shown by a client, people known by their homeserver's word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.demo.voices import write_wav
from tests.helpers.browser import Browser
from tests.helpers.pages import HANG_S, at, shows
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.widget import LAYOUT, WIDGET, WIDGETS, Framed, client_page, open_widget
from tests.helpers.world import StageHandle, World

SPEAKER, OWN = 440, 880  # Hz


@pytest.fixture(scope="module")
async def origin() -> AsyncIterator[str]:
    async with client_page() as url:
        yield url


@pytest.fixture(params=["chromium", "firefox"])
async def browser(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Browser]:
    wav = tmp_path / "voice.wav"
    write_wav(wav, sine(OWN, 4.0))
    chromium = request.param == "chromium"
    async with Browser.launch(request.param, wav=wav if chromium else None, tone=None if chromium else OWN) as running:
        yield running


async def post(world: World, body: object) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as http, http.post(f"{world.web}/api/v1/sessions", json=body) as answer:
        return answer.status, await answer.json()


async def hears(framed: Framed, hz: int) -> None:
    async with asyncio.timeout(HANG_S):
        while level_at(await framed.tab.page.hear(0.7), hz) < -30:
            pass


async def test_listener_hand_speaker(world: World, origin: str, browser: Browser) -> None:
    stage = await world.new_stage(topic="In a frame")
    host = await world.client("host", stage)
    ben = await world.client("ben", stage)
    await world.set_role(stage, "ben", "speaker")
    ben.say(sine(SPEAKER, 1.0), loop=True)
    await ben.mic(True)
    ava = world.users["ava"]
    framed = await open_widget(browser, origin, ava, stage)
    tab = framed.tab
    await framed.client.wait("host.ready && host.consents === 1")
    assert await framed.client.eval("host.asked.join()") == "io.element.requires_client"
    await framed.agree()
    await tab.live()
    await hears(framed, SPEAKER)
    assert (
        await tab.page.eval("[document.documentElement.dataset.theme, document.documentElement.lang].join()")
        == "dark,en"
    )
    assert await framed.client.eval("host.theme('light')")
    assert await framed.client.eval("host.language('fa')")
    await tab.sees("document.documentElement.dataset.theme === 'light' && document.documentElement.dir === 'rtl'")
    assert await tab.is_so("document.querySelector('h1').matches('.vh, .vh *')"), "the client shows the room's name"
    await host.act("topic", None, "Hafez")
    await tab.sees(shows("topic", "Hafez"))
    assert await tab.page.eval("localStorage.length") == 0

    await tab.press("hand")
    await tab.press("hand-send")
    await host.wait(lambda c: [hand.user for hand in c.queue] == [ava.user], HANG_S, "her hand")
    await host.act("bring_up", ava.user)
    await tab.sees(at("mic", "off"))
    assert await tab.page.eval("window.microphonesAsked") == 0
    await tab.press("mic")
    await tab.sees(at("mic", "on"))
    assert await tab.page.eval("window.microphonesAsked") == 1
    await ben.wait(lambda c: ratio_at(c.recent(0.5), OWN) > 20, HANG_S, "her voice")
    await hears(framed, SPEAKER)
    await world.set_role(stage, "ava", "listener")
    await ben.wait(lambda c: level_at(c.recent(0.5), OWN) < -60, HANG_S, "silence")
    await stage.host.kick(stage.room_id, ava.user)
    await tab.sees(at("closed", "left_room"))
    assert await tab.has_faults() == []
    replay = {"openid": await framed.client.eval("host.tokens[0]"), "room": stage.room_id}
    status, refused = await post(world, replay)  # by somebody the token was handed to
    assert (status, refused["reason"]) == (401, "used")


async def test_the_bot_puts_it_there_and_takes_it_away(world: World) -> None:
    stage = await world.new_stage(topic="There and gone")

    async def stands(wanted: bool, kind: str = WIDGETS, key: str = WIDGET) -> dict[str, Any]:
        async with asyncio.timeout(HANG_S):
            while bool(content := await stage.host.get_state(stage.room_id, kind, key)) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return dict(content or {})

    await stands(True)
    layout = await stands(True, LAYOUT, "")
    assert layout["widgets"][WIDGET]["container"] == "top"
    token = await stage.host.request("POST", "user", stage.host.user, "openid", "request_token", body={})
    by_token = {"openid": token, "room": stage.room_id}
    assert (await post(world, by_token))[0] == 200
    put = await event_id(stage)
    await world.kill_bridge()
    await world.start_bridge()
    status, refused = await post(world, by_token)
    assert (status, refused["reason"]) == (401, "used"), "a token is taken once, restarts included"
    assert await event_id(stage) == put, "nobody is asked for consent again"
    await stage.host.send(stage.room_id, "!stage end")
    await stands(False)


async def event_id(stage: StageHandle) -> str:
    """Of the widget as it stands."""
    state = await stage.host.get_all_state(stage.room_id)
    return next(str(event["event_id"]) for event in state if event["type"] == WIDGETS)
