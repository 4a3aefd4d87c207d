"""Two real browsers speak, others listen: everybody hears the others, nobody hears himself.

Chromium's microphone is 440 Hz, Firefox's 660 Hz. With both on stage, each hears the other's tone alone, listeners hear
both alike: one mix for all who are silent, one without their own voice for each who talks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from bridge.demo.people import PageClient
from bridge.demo.voices import write_wav
from tests.helpers.browser import Browser, Page
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import World

HANG_S = 90
# Browsers take a steady tone for noise and remove it; a person's voice they leave. Only that processing is turned off.
PLAIN_MICROPHONE = """
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wish) => real({ ...wish, audio: {
  ...(typeof wish.audio === "object" ? wish.audio : {}),
  echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
"""
LIVE = "document.documentElement.dataset.connection === 'live'"


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    end = asyncio.get_running_loop().time() + HANG_S
    while not await condition():
        assert asyncio.get_running_loop().time() < end, f"not within {HANG_S} s: {what}"


async def turn_on_microphone(page: Page) -> None:
    await page.wait("document.querySelector('[data-testid=mic]')?.dataset.state === 'off'", HANG_S)
    await page.click("[data-testid=mic]")
    await page.wait("document.querySelector('[data-testid=mic]')?.dataset.state === 'on'", HANG_S)


async def test_two_browsers_speak_and_nobody_hears_himself(world: World, tmp_path: Path) -> None:
    stage = await world.new_stage(topic="A duet")
    wav = tmp_path / "440.wav"
    write_wav(wav, sine(440, 10.0))
    listener = await world.client("cyrus", stage)
    async with (
        Browser.launch("chromium", wav=wav) as chromium,
        Browser.launch("firefox", tone=660) as firefox,
        Browser.launch("chromium", lang="fa") as third,
    ):
        ava = await chromium.open(await world.link("ava", stage), before=PLAIN_MICROPHONE)
        ben = await firefox.open(await world.link("ben", stage), before=PLAIN_MICROPHONE)
        dara = await third.open(await world.link("dara", stage))
        for page in (ava, ben, dara):
            await page.wait(LIVE, HANG_S)
        for name in ("ava", "ben"):
            await world.set_role(stage, name, "speaker")

        await turn_on_microphone(ava)
        await listener.wait(lambda c: ratio_at(c.recent(1.0), 440) > 20, HANG_S, "440 Hz over all the rest")

        async def dara_hears_440() -> bool:
            return ratio_at(await dara.hear(1.0), 440) > 20

        await until(dara_hears_440, "440 Hz in the third browser")
        await turn_on_microphone(ben)

        async def ava_hears_ben() -> bool:
            heard = await ava.hear(1.0)
            return level_at(heard, 660) > -45 and level_at(heard, 660) - level_at(heard, 440) >= 20

        async def ben_hears_ava() -> bool:
            heard = await ben.hear(1.0)
            return level_at(heard, 440) > -45 and level_at(heard, 440) - level_at(heard, 660) >= 20

        async def dara_hears_both() -> bool:
            heard = await dara.hear(1.0)
            quieter = min(level_at(heard, 440), level_at(heard, 660))
            return quieter > -45

        await until(ava_hears_ben, "660 Hz and not 440 Hz at the first browser")
        await until(ben_hears_ava, "440 Hz and not 660 Hz at the second browser")
        await until(dara_hears_both, "both tones in the third browser")
        await listener.wait(
            lambda c: level_at(c.recent(1.0), 440) > -45 and level_at(c.recent(1.0), 660) > -45, HANG_S, "both tones"
        )
        # The rings on the third page show who talks, and no page asked anybody but this server.
        await dara.wait("document.querySelectorAll('[data-testid=speaker][data-talking=true]').length === 2", HANG_S)
        for page in (ava, ben, dara):
            strangers = [url for url in await page.requests() if not url.startswith((world.web, "data:", "blob:"))]
            assert not [url for url in strangers if "127.0.0.1" not in url and "localhost" not in url], strangers


async def test_equal_voices_are_equally_loud(world: World) -> None:
    stage = await world.new_stage(topic="Balance")
    ava, ben, cyrus = [await world.client(name, stage) for name in ("ava", "ben", "cyrus")]
    for page, name, hz in ((ava, "ava", 440), (ben, "ben", 660)):
        await world.set_role(stage, name, "speaker")
        await page.wait(lambda c: c.me.can_speak, HANG_S)
        page.say(sine(hz, 1.0), loop=True)
        await page.mic(True)

    def balanced(ear: PageClient) -> bool:
        first, second = (level_at(ear.recent(1.0), hz) for hz in (440, 660))
        return min(first, second) > -30 and abs(first - second) < 3

    await cyrus.wait(balanced, HANG_S, "both within 3 dB")
    await ava.wait(lambda c: level_at(c.recent(1.0), 660) - level_at(c.recent(1.0), 440) >= 20, HANG_S)
    await ben.wait(lambda c: level_at(c.recent(1.0), 440) - level_at(c.recent(1.0), 660) >= 20, HANG_S)
