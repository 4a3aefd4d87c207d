"""matrix-js-sdk in Chromium calls the bot: what Element Web's call button does, with its own keys, hold and mute."""

from __future__ import annotations

import time
import wave
from collections.abc import AsyncIterator, Callable

import pytest

from bridge.demo.people import PageClient
from tests.helpers.browser import Browser
from tests.helpers.sdk_phone import HANG_S, SdkPhone, phone_page
from tests.helpers.telephone import Telephone, open_line
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import World

CALLER, PAGE = 990, 440  # Hz


@pytest.fixture(scope="module")
async def origin() -> AsyncIterator[str]:
    async with phone_page() as url:
        yield url


@pytest.fixture(scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    wav = tmp_path_factory.mktemp("wav") / "tone.wav"
    with wave.open(str(wav), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(sine(CALLER, 4.0, dbfs=-9).tobytes())
    async with Browser.launch("chromium", wav=wav) as browser:
        yield browser


async def hears(phone: SdkPhone) -> None:
    end = time.monotonic() + HANG_S
    while True:
        level = level_at(await phone.hear(), PAGE)
        if level > -30:
            return
        assert time.monotonic() < end, f"{PAGE} Hz at {level:.1f} dBFS"


async def heard(ear: PageClient, *, loud: bool = True) -> None:
    if loud:
        await ear.wait(lambda c: ratio_at(c.recent(0.4), CALLER) > 20, HANG_S, "the caller's tone")
    else:
        await ear.wait(lambda c: level_at(c.recent(0.5), CALLER) < -60, HANG_S, "silence from the caller")


async def test_a_call_with_its_own_buttons(
    world: World, origin: str, chromium: Browser, tell: Callable[[str], None]
) -> None:
    stage = await world.new_stage(topic="By Element")
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)
    ava = world.users["ava"]
    chat = await open_line(ava, stage.room_id, world.bot)
    notes = Telephone(ava, chat)  # only to read what the bot writes
    phone = await SdkPhone.open(chromium, origin, ava)
    began = time.monotonic()
    await phone.do(f"call('{chat}')")
    await phone.connected()
    up = time.monotonic() - began
    await hears(phone)
    assert level_at(ben.recent(1.0), CALLER) < -60, "who listens is not heard"

    await phone.do("press('1')")
    await notes.told("Your hand is up")
    await ben.wait(lambda c: c.audience.hands == 1, HANG_S, "the hand that a key raised")
    await world.set_role(stage, "ava", "speaker")
    await notes.told("You are on the stage, your microphone is off")
    assert level_at(ben.recent(1.0), CALLER) < -60
    await phone.do("press('2')")
    await heard(ben)
    await hears(phone)
    await phone.do("mute(true)")
    await heard(ben, loud=False)
    await phone.do("mute(false)")
    await heard(ben)

    await phone.do("hold(true)")
    await phone.wait("!document.querySelector('audio').srcObject.getAudioTracks().length", "hold ends the sound")
    await phone.do("hold(false)")
    await hears(phone)
    before = await phone.page.eval("phone.ufrag")
    await phone.do("restart()")  # as it does where the network changes
    await phone.wait(f"phone.ufrag !== '{before}'", "the ICE restart is answered")
    await hears(phone)
    await heard(ben)
    await stage.host.send(stage.room_id, "!stage end")
    assert await phone.ended() == "user_hangup"
    await notes.close()
    await phone.page.close()
    tell(f"call button → connected {up:.2f} s")


async def test_it_rings(world: World, origin: str, chromium: Browser) -> None:
    """The bot's own offer, answered by a browser: heard and hears, held and taken up again; another is declined."""
    stage = await world.new_stage(topic="Ringing")
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)
    dara = world.users["dara"]
    await open_line(dara, stage.room_id, world.bot)
    phone = await SdkPhone.open(chromium, origin, dara)
    await stage.host.send(stage.room_id, f"!stage ring {dara.user}")
    await phone.wait("phone.incoming.length > 0", "it rings")
    await phone.do("answer()")
    await phone.connected()
    await hears(phone)
    await ben.wait(lambda c: c.speaker(dara.user), HANG_S, "who answers comes up to the stage")
    assert level_at(ben.recent(0.5), CALLER) < -60
    await phone.do("press('2')")
    await heard(ben)
    await phone.do("hold(true)")
    await phone.wait("!document.querySelector('audio').srcObject.getAudioTracks().length", "hold ends the sound")
    await phone.do("hold(false)")
    await hears(phone)
    await phone.do("hangup()")
    await ben.wait(lambda c: (p := c.speaker(dara.user)) and not p.connected, HANG_S, "she has hung up")
    await world.set_role(stage, "dara", "listener")
    await ben.wait(lambda c: not c.speaker(dara.user), HANG_S, "she is in the audience")
    await stage.host.send(stage.room_id, f"!stage ring {dara.user}")
    await phone.wait("phone.incoming.length > 1", "it rings again")
    await phone.do("decline()")
    await stage.host.wait_for_event(stage.room_id, lambda e: "dara declined" in str(e["content"].get("body")), HANG_S)
