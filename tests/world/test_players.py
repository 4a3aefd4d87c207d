"""Players on a whole world: the bot's address for them, the demo's URL, real browsers' ``<audio src>``."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest

from tests.helpers.browser import Browser, Kind, Page, Pcm
from tests.helpers.ogg import OggReader
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.whep import WhepPlayer
from tests.helpers.world import StageHandle, World

HANG_S = 90
PLAY = """
(async () => {
  const audio = new Audio(%s);
  window.heardAudio = audio;
  const context = new AudioContext();
  const out = context.createMediaStreamDestination();
  context.createMediaElementSource(audio).connect(out);
  await context.resume();
  await audio.play();
  const tap = document.createElement("audio");
  tap.id = "tap";
  tap.srcObject = out.stream;
  document.body.append(tap);
  await tap.play();
  return audio.currentTime >= 0;
})()
"""


async def speak(world: World, stage: StageHandle, name: str = "ava") -> None:
    """That person is heard, saying 440 Hz."""
    page = await world.client(name, stage)
    await world.set_role(stage, name, "speaker")
    await page.wait(lambda c: c.me.can_speak, HANG_S)
    page.say(sine(440, 1.0), loop=True)
    await page.mic(True)


async def player_of(world: World, name: str, stage: StageHandle) -> dict[str, str]:
    """``!link player`` in the room, then what the bot's direct message says."""
    await world.link(name, stage)  # opens the direct chat
    api = world.users[name]
    await api.send(stage.room_id, "!link player")
    async with asyncio.timeout(HANG_S):
        while True:
            for room in [each for each in await api.joined_rooms() if each != stage.room_id]:
                for event in await api.get_messages(room, 20):
                    body = str(event["content"].get("body", ""))
                    if event["sender"] == world.bot and f"/whep/{stage.stage_id}" in body:
                        found = re.search(
                            r"(?P<stream>\S+/listen/\S+)\s.*?(?P<whep>\S+/whep/\S+)\s.*?(?P<token>whep1\S+)", body, re.S
                        )
                        assert found, body
                        return found.groupdict()
            await asyncio.sleep(0.2)


async def test_link_player_opens_stream_and_whep_until_a_kick(world: World) -> None:
    stage = await world.new_stage(topic="For players")
    await speak(world, stage)
    given = await player_of(world, "ben", stage)
    async with aiohttp.ClientSession() as http:
        player = await WhepPlayer(http, given["whep"], given["token"]).play()
        client = player.client
        await client.hear(lambda heard: ratio_at(heard, 440) > 20, HANG_S)
        async with http.get(given["stream"]) as response:
            assert response.status == 200
            reader = OggReader(response)
            for _ in range(60):
                heard = await reader.seconds(0.5)
                if len(heard) > 24_000 and ratio_at(heard[-24_000:], 440) > 20:
                    break
            assert ratio_at(heard[-24_000:], 440) > 20
            await stage.host.kick(stage.room_id, world.users["ben"].user)
            await reader.until(lambda each: each.ended)
        await client.hear(lambda heard: level_at(heard, 440) < -60, HANG_S)
        async with http.get(given["stream"]) as response:
            assert response.status == 403
    await player.close()
    assert given["token"] not in world.log()
    assert given["stream"].partition("?t=")[2] not in world.log()
    await world.users["ben"].join(stage.room_id)


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_a_browser_plays_the_stream(world: World, kind: Kind) -> None:
    """A guest's ``<audio src>``, joined in the middle, heard for a while."""
    stage = await world.new_stage(topic="For browsers")
    await speak(world, stage)
    async with aiohttp.ClientSession() as http, http.get(f"{world.web}/listen/{stage.stage_id}.ogg") as early:
        await OggReader(early).read(2)
        async with Browser.launch(kind) as browser:
            page = await browser.open(world.guest_link(stage))
            assert await page.eval(PLAY % f"'/listen/{stage.stage_id}.ogg'")
            heard = await _hears(page)
            assert ratio_at(heard, 440) > 20
            assert level_at(heard, 440) > -30
            first = await page.eval("window.heardAudio.currentTime")
            await page.wait(f"window.heardAudio.currentTime > {first} + 3", HANG_S)
            assert await page.eval("window.heardAudio.error === null && !window.heardAudio.ended")


async def _hears(page: Page) -> Pcm:
    for _ in range(20):
        heard = await page.hear(1.0, "#tap")
        if ratio_at(heard, 440) > 20:
            break
    return heard
