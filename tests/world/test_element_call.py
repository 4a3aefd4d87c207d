"""An unmodified Element Call in a stage, in every role: what it hears, who hears it, and what ends it."""

from __future__ import annotations

import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.browser import Browser
from tests.helpers.element_call import HANG_S, MEMBER, RTC, ElementCall, homeserver, host_page, open_call
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import StageHandle, World, running_world

CALLERS, PAGE = 990, 440  # Hz


@pytest.fixture(scope="module")
async def rtc_world(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("rtc")
    async with running_world(directory, synapse_python, sections={"matrixrtc": RTC}, homeserver=homeserver) as running:
        yield running


@pytest.fixture(scope="module")
async def origin() -> AsyncIterator[str]:
    async with host_page() as url:
        yield url


@pytest.fixture(scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    wav = tmp_path_factory.mktemp("wav") / "tone.wav"
    with wave.open(str(wav), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(sine(CALLERS, 4.0, dbfs=-9).tobytes())
    async with Browser.launch("chromium", wav=wav, viewport=(1000, 700)) as browser:
        yield browser


async def call_stage(world: World, topic: str) -> StageHandle:
    stage = await world.new_stage(topic=topic)
    levels = await stage.host.power_levels(stage.room_id)
    levels["events"] = {**levels.get("events", {}), MEMBER: 0}
    await stage.host.put_state(stage.room_id, "m.room.power_levels", "", levels)
    return stage


async def hears(call: ElementCall, hz: int, *, loud: bool) -> None:
    end = time.monotonic() + HANG_S
    while True:
        heard = await call.hear(0.7)
        level = level_at(heard, hz)
        if (level > -30) if loud else (level < -60):
            return
        assert time.monotonic() < end, f"{hz} Hz at {level:.1f} dBFS in Element Call; it shows {await call.text()}"


async def test_every_role(rtc_world: World, origin: str, chromium: Browser, capsys: pytest.CaptureFixture[str]) -> None:
    world = rtc_world
    stage = await call_stage(world, "Element Call")
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)
    began = time.monotonic()
    call = await open_call(chromium, origin, world.users["ava"], stage)
    await call.joined()
    await call.wait("host.listen()", "Element Call plays the stage")
    first = time.monotonic() - began
    await hears(call, PAGE, loud=True)
    assert level_at(ben.recent(1.0), CALLERS) < -60, "who listens is not heard"
    await call.page.screenshot(Path("/tmp/ec-listener.png"))
    with capsys.disabled():
        print(f"\n  opened → playing {first:.1f} s")
        print(await call.text())

    await world.set_role(stage, "ava", "speaker")
    await call.page.screenshot(Path("/tmp/ec-promoted.png"))
    for _ in range(3):
        await call.press_mute()
        try:
            await ben.wait(lambda c: ratio_at(c.recent(0.4), CALLERS) > 20, 6, "the caller's tone")
            break
        except Exception as e:
            print(e)
    await ben.wait(lambda c: ratio_at(c.recent(0.4), CALLERS) > 20, 6, "the caller's tone")
    await hears(call, PAGE, loud=True)
