"""The network, the bridge or the relay goes away under a real page: it says so, comes back by itself, and opens no
microphone that the person had not open in that same page's life, or that is no longer theirs to open."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.demo.people import PageClient
from bridge.demo.voices import write_wav
from tests.helpers.browser import Browser
from tests.helpers.hearing import TimedEar
from tests.helpers.pages import HANG_S, Tab, Tabs, absent, at, connection, stopped_relay, tabs_of
from tests.helpers.tone import level_at, sine
from tests.helpers.world import StageHandle, World

AVA, BEN = 440, 660
STOOD_STILL_MS = 6_000


@pytest.fixture(scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    wav = tmp_path_factory.mktemp("voice") / "440.wav"
    write_wav(Path(wav), sine(AVA, 10.0))
    async with Browser.launch("chromium", wav=wav) as browser:
        yield browser


@pytest.fixture(scope="module")
async def firefox() -> AsyncIterator[Browser]:
    async with Browser.launch("firefox", tone=BEN) as browser:
        yield browser


@pytest.fixture
async def phones(chromium: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(chromium) as tabs:
        yield tabs


@pytest.fixture
async def foxes(firefox: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(firefox) as tabs:
        yield tabs


def heard(ear: PageClient, hz: int) -> bool:
    return level_at(ear.recent(1.0), hz) > -40


def silent(ear: PageClient, hz: int) -> bool:
    return level_at(ear.recent(1.0), hz) < -60


async def on_again(tab: Tab) -> None:
    """Live, and the microphone as it was, without a press."""
    await tab.sees(connection("live"))
    await tab.sees(at("mic", "on"))


async def test_after_a_crash_of_the_bridge_only_an_open_microphone_opens(
    world: World, phones: Tabs, foxes: Tabs
) -> None:
    stage = await world.new_stage(topic="A crash")
    timed = TimedEar()
    async with PageClient(await world.link("host", stage), name="host", ear=timed) as ear:
        await crash(world, phones, foxes, stage, ear, timed)


async def crash(world: World, phones: Tabs, foxes: Tabs, stage: StageHandle, ear: PageClient, timed: TimedEar) -> None:
    ava, cyrus = [await phones.enter(await world.link(name, stage)) for name in ("ava", "cyrus")]
    ben = await foxes.enter(await world.link("ben", stage))
    for name in ("ava", "ben", "cyrus"):
        await world.set_role(stage, name, "speaker")
    await ava.microphone_on()
    await ben.microphone_on()
    await cyrus.sees(at("mic", "off"))
    began = time.monotonic()
    await ear.wait(lambda _: timed.came(AVA, began) and timed.came(BEN, began), HANG_S, "both")

    await world.kill_bridge()
    for tab in (ava, ben, cyrus):
        await tab.sees(connection("lost"))
        assert not await tab.is_so(at("mic", "on"))
    await ava.sees(at("note-lost"))
    await world.set_role(stage, "ben", None)  # demoted while nobody could tell his page
    demoted = time.monotonic()
    await world.start_bridge()

    await on_again(ava)
    await ava.sees(at("note-back"))
    await ben.sees(f"{connection('live')} && {at('hand')} && {absent('mic')}")
    await cyrus.sees(f"{connection('live')} && {at('mic', 'off')}")
    assert await cyrus.page.eval("window.microphonesAsked") == 0
    await ear.wait(lambda _: len(timed.came(AVA, demoted)) > 100, HANG_S, "two seconds of ava, without a press")
    assert timed.came(BEN, demoted) == []


async def test_after_a_break_of_the_network_it_comes_back_by_itself(world: World, phones: Tabs) -> None:
    stage = await world.new_stage(topic="A tunnel")
    ear = await world.client("host", stage)
    ava, cyrus = [await phones.enter(await world.link(name, stage)) for name in ("ava", "cyrus")]
    for name in ("ava", "cyrus"):
        await world.set_role(stage, name, "speaker")
    await ava.microphone_on()
    await cyrus.sees(at("mic", "off"))
    await ear.wait(lambda c: heard(c, AVA), HANG_S, "ava")
    for tab in (ava, cyrus):
        await tab.page.offline(True)
    for tab in (ava, cyrus):
        await tab.sees(connection("lost"))
    assert not await ava.is_so(at("mic", "on"))
    for tab in (ava, cyrus):
        await tab.page.offline(False)
    await on_again(ava)
    await ear.wait(lambda c: heard(c, AVA), HANG_S, "ava, without a press")
    await cyrus.sees(f"{connection('live')} && {at('mic', 'off')}")
    assert await cyrus.page.eval("window.microphonesAsked") == 0


async def test_a_relay_that_stands_still_shows_and_heals(world: World, phones: Tabs) -> None:
    stage = await world.new_stage(topic="Standing still")
    ear = await world.client("host", stage)
    ava = await phones.enter(await world.link("ava", stage))
    await world.set_role(stage, "ava", "speaker")
    await ava.microphone_on()
    await ear.wait(lambda c: heard(c, AVA), HANG_S, "ava")
    with stopped_relay(world):
        await ava.page.eval("window.stoodStillAt = performance.now(); 0")
        await ava.sees(connection("lost"))
        assert not await ava.is_so(at("mic", "on"))
        await ava.sees(f"performance.now() - window.stoodStillAt > {STOOD_STILL_MS}")
        assert await ava.is_so(connection("lost"))
    await on_again(ava)
    await ear.wait(lambda c: heard(c, AVA), HANG_S, "ava, without a press")


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_a_reload_comes_back_muted(world: World, phones: Tabs, foxes: Tabs, kind: str) -> None:
    stage = await world.new_stage(topic="A reload")
    ear = await world.client("host", stage)
    tabs, tone = (foxes, BEN) if kind == "firefox" else (phones, AVA)
    tab = await tabs.enter(await world.link("ava", stage))
    await world.set_role(stage, "ava", "speaker")
    await tab.microphone_on()
    await ear.wait(lambda c: heard(c, tone), HANG_S, "the voice")
    await tab.page.reload()
    await tab.live()
    await tab.sees(at("mic", "off"))
    ava = (await world.person("ava")).user
    await ear.wait(lambda c: silent(c, tone) and (p := c.speaker(ava)) is not None and p.mic == "off", HANG_S, "off")
    assert await tab.page.eval("window.microphonesAsked") == 0
    await tab.microphone_on()
    await ear.wait(lambda c: heard(c, tone), HANG_S, "the voice, after a press")
