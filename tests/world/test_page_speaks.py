"""From the audience to the stage and back on the real page: hand, microphone, cut; one connection all along."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.demo.people import PageClient
from bridge.demo.voices import write_wav
from tests.helpers.browser import Browser
from tests.helpers.pages import HANG_S, Tab, Tabs, absent, at, shows, stopped_relay, tabs_of
from tests.helpers.tone import level_at, sine
from tests.helpers.world import World

TONE = 440
MIC = "window.peers[0].getSenders()[0].track"


@pytest.fixture(scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    wav = tmp_path_factory.mktemp("voice") / "440.wav"
    write_wav(Path(wav), sine(TONE, 10.0))
    async with Browser.launch("chromium", wav=wav) as browser:
        yield browser


@pytest.fixture
async def phone(chromium: Browser) -> AsyncIterator[Tabs]:
    async with tabs_of(chromium) as tabs:
        yield tabs


def loud(ear: PageClient) -> bool:
    return level_at(ear.recent(1.0), TONE) > -40


def silent(ear: PageClient) -> bool:
    return level_at(ear.recent(1.0), TONE) < -60


async def states(tab: Tab, testid: str) -> list[str]:
    """All states that the button has had, in turn."""
    found: list[str] = await tab.page.eval(f"window.seen.{testid}")
    return found


async def test_up_muted_allowed_and_down_again_on_one_connection(world: World, phone: Tabs) -> None:
    stage = await world.new_stage(topic="One way up")
    host, ear, ben = [await world.client(name, stage) for name in ("host", "cyrus", "ben")]
    tab = await phone.enter(await world.link("ava", stage))
    ava = (await world.person("ava")).user
    await ben.hand(True)
    await host.wait(lambda c: len(c.queue) == 1, HANG_S, "ben's hand")

    await tab.press("hand")
    await tab.page.type("[data-testid=hand-note]", "two lines of Hafez")
    await tab.press("hand-send")
    await tab.sees(at("hand", "up"))
    assert await states(tab, "hand") == ["down", "pending", "up"]
    await tab.sees(shows("hand", "2nd in line"))
    await host.wait(lambda c: [h.note for h in c.queue] == ["", "two lines of Hafez"], HANG_S, "the note")

    await host.act("bring_up", ava)
    await tab.sees(at("mic", "off"))
    await ear.wait(lambda c: c.speaker(ava) is not None, HANG_S, "on the stage")
    assert await tab.page.eval("window.microphonesAsked") == 0
    assert await tab.page.eval(f"{MIC} === null")
    assert silent(ear)

    await tab.microphone_on()
    await ear.wait(loud, HANG_S, "the voice")
    assert (await states(tab, "mic"))[-3:] == ["off", "asking", "on"]
    assert await tab.page.eval("window.tones") == 1  # the click that only she hears

    await muted_and_allowed_again(tab, host, ear, ava)

    await tab.microphone_on()
    await ear.wait(loud, HANG_S, "the voice again")
    await host.act("to_audience", ava)
    await tab.sees(f"{absent('mic')} && {at('hand')}")
    assert await tab.page.eval(f"{MIC} === null")
    await ear.wait(silent, HANG_S, "silence")
    assert await tab.offers() == [1]
    assert await tab.has_faults() == []


async def muted_and_allowed_again(tab: Tab, host: PageClient, ear: PageClient, ava: str) -> None:
    asked = await tab.page.eval("window.microphonesAsked")
    await host.act("mute", ava)
    await tab.sees(at("mic", "muted"))
    assert await tab.page.eval("window.tones") == 2
    assert await tab.page.eval(f"{MIC} === null")  # the device is let go, whatever the gate does
    await ear.wait(lambda c: silent(c) and c.speaker(ava) is not None, HANG_S, "silence")
    await tab.sees(at("note-muted"))
    await tab.page.eval("document.querySelector('[data-testid=mic]').click()")
    await tab.page.press("m")
    assert await tab.is_so(at("mic", "muted"))
    assert await tab.page.eval("window.microphonesAsked") == asked
    assert await tab.page.eval(f"{MIC} === null")

    await host.act("unmute", ava)
    await tab.sees(at("mic", "off"))
    await tab.sees(absent("note-muted"))
    await ear.wait(lambda c: (p := c.speaker(ava)) is not None and p.mic == "off", HANG_S, "off, not muted")
    assert await tab.page.eval("window.microphonesAsked") == asked
    assert await tab.page.eval(f"{MIC} === null")
    assert silent(ear)


async def test_an_invitation_is_declined_and_another_accepted(world: World, phone: Tabs) -> None:
    stage = await world.new_stage(topic="An invitation")
    host = await world.client("host", stage)
    tab = await phone.enter(await world.link("ben", stage))
    ben = (await world.person("ben")).user

    await host.act("invite", ben)
    await tab.sees(at("invitation"))
    assert await tab.is_so(at("hand", "invited"))
    await tab.page.eval("document.querySelector('.scrim').click()")  # a press beside it is no answer
    await tab.page.press("Escape")
    assert await tab.is_so(at("invitation"))
    await tab.press("invite-decline")
    await tab.sees(f"{absent('invitation')} && {at('hand', 'down')}")
    await host.wait(lambda c: any(n.key == "invite_declined" for n in c.notices), HANG_S, "the answer")
    assert host.speaker(ben) is None

    assert await tab.page.eval("window.tones") > 2
    tones = await tab.page.eval("window.tones")
    await tab.press("settings")
    await tab.press("sounds")
    await tab.page.press("Escape")
    await host.act("invite", ben)
    await tab.press("invite-accept")
    await tab.sees(at("mic", "off"))
    await tab.sees(f"{absent('invitation')} && {at('speaker', user=ben)}")
    await host.wait(lambda c: c.speaker(ben) is not None, HANG_S, "on the stage")
    assert await tab.offers() == [1]
    assert await tab.page.eval("window.microphonesAsked") == 0
    await tab.microphone_on()
    assert await tab.page.eval("window.tones") == tones  # switched off
    await tab.page.reload()
    await tab.sees(at("mic", "off"))
    await tab.press("settings")
    assert await tab.page.eval("document.querySelector('[data-testid=sounds]').checked") is False


async def change_topic(host: PageClient, topic: str, *tabs: Tab) -> None:
    """When all pages show the new topic, they have seen what came before it."""
    await host.act("topic", None, topic)
    for tab in tabs:
        await tab.sees(f"document.querySelector('[data-testid=topic]')?.innerText === '{topic}'")


async def test_a_role_shows_when_the_relay_has_confirmed_it_a_cut_at_once(world: World, phone: Tabs) -> None:
    stage = await world.new_stage(topic="Confirmed")
    host, ear = await world.client("host", stage), await world.client("cyrus", stage)
    ava, ben = [await phone.enter(await world.link(name, stage)) for name in ("ava", "ben")]
    user = {name: (await world.person(name)).user for name in ("ava", "ben")}
    await world.set_role(stage, "ben", "speaker")
    await ben.microphone_on()
    await ear.wait(loud, HANG_S, "ben")

    with stopped_relay(world):
        await world.set_role(stage, "ava", "speaker")
        await host.act("mute", user["ben"])
        await ben.sees(at("mic", "muted"))
        await change_topic(host, "While the relay stands still", ava, ben)
        assert not await ava.is_so(at("note-to_stage"))
        assert await ava.is_so(at("mic", "absent"))
        for looking in (ava, ben):
            assert await looking.is_so(at("speaker", "coming", user=user["ava"]))
        assert await states(ava, "mic") == ["absent"]
    await ava.sees(at("mic", "off"))
    for looking in (ava, ben):
        await looking.sees(at("speaker", "stage", user=user["ava"]))
    await ear.wait(lambda c: silent(c) and c.speaker(user["ava"]) is not None, HANG_S, "ben muted, ava on the stage")
