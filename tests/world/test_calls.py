"""1:1 calls to the bot (``m.call.*``) at a real homeserver: heard and hears, in every role, never met by silence."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from bridge.demo.people import PageClient
from tests.helpers.relay import HANG_S
from tests.helpers.telephone import METADATA, Telephone, open_line
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import StageHandle, World

CALLER, PAGE = 990, 440  # Hz
CHAT_ANSWER = ("answer", "reject", "hangup")


@pytest.fixture
async def stage(world: World) -> StageHandle:
    return await world.new_stage(topic="By telephone")


@contextlib.asynccontextmanager
async def phone_of(world: World, name: str, stage: StageHandle, version: str | int = "1") -> AsyncIterator[Telephone]:
    person = world.users[name]
    phone = Telephone(person, await open_line(person, stage.room_id, world.bot), version=version)
    phone.sound.say(CALLER)
    try:
        yield phone
    finally:
        await phone.close()


async def ben_talks(world: World, stage: StageHandle) -> PageClient:
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)
    return ben


async def hears(phone: Telephone, hz: int = PAGE) -> None:
    await phone.sound.hear(lambda heard: level_at(heard, hz) > -30, HANG_S)


async def heard(ear: PageClient) -> None:
    await ear.wait(lambda c: ratio_at(c.recent(0.4), CALLER) > 20, HANG_S, "the caller's tone")


async def not_heard(ear: PageClient) -> None:
    await ear.wait(lambda c: level_at(c.recent(0.5), CALLER) < -60, HANG_S, "silence from the caller")


async def test_every_role(world: World, stage: StageHandle, tell: Callable[[str], None]) -> None:
    """A caller listens; is heard only on the stage and with the microphone opened by themselves; is cut at the gate."""
    ben = await ben_talks(world, stage)
    cyrus = world.users["cyrus"]
    async with phone_of(world, "cyrus", stage) as phone:
        began = time.monotonic()
        await phone.call(**{METADATA: {"s": {"purpose": "m.usermedia", "audio_muted": False}}})
        up = time.monotonic() - began
        await hears(phone)
        tell(f"invite → connected {up:.2f} s, stage heard {time.monotonic() - began:.2f} s")
        await phone.told("You are listening to", "By telephone")
        await ben.wait(lambda c: cyrus.user in [f.user for f in c.audience.faces], HANG_S, "he sits in the audience")
        assert level_at(ben.recent(1.0), CALLER) < -60, "who listens is not heard"

        await world.set_role(stage, "cyrus", "speaker")
        await phone.told("You are on the stage, your microphone is off")
        await ben.wait(lambda c: c.speaker(cyrus.user), HANG_S, "he is on the stage")
        assert level_at(ben.recent(1.0), CALLER) < -60, "a place on the stage opens no microphone"
        await cyrus.send(phone.chat, "2")
        await heard(ben)
        await ben.wait(lambda c: (p := c.speaker(cyrus.user)) and p.mic == "on", HANG_S, "his microphone shows on")
        await hears(phone)
        assert level_at(phone.sound.recent(1.0), CALLER) < -60, "nobody hears himself"

        muted = {METADATA: {"s": {"purpose": "m.usermedia", "audio_muted": True}}}
        await phone.send("sdp_stream_metadata_changed", **muted)  # his client's own button
        await not_heard(ben)
        muted[METADATA]["s"]["audio_muted"] = False
        await phone.send("sdp_stream_metadata_changed", **muted)
        await heard(ben)

        await world.set_role(stage, "cyrus", "speaker", muted=True)
        await not_heard(ben)
        await world.set_role(stage, "cyrus", "speaker")
        await phone.told("You may speak again")
        assert level_at(ben.recent(0.5), CALLER) < -60, "unmuted by a moderator, opened by himself"
        await cyrus.send(phone.chat, "۲")
        await heard(ben)

        await world.set_role(stage, "cyrus", "listener")
        await not_heard(ben)
        await phone.told("You are in the audience")
        await hears(phone)

        await stage.host.kick(stage.room_id, cyrus.user)
        ended = await phone.event("hangup")
        assert (ended["reason"], ended["party_id"]) == ("user_hangup", phone.answer["party_id"])
        await phone.told("Your call", "is over")


async def test_hand_by_key_and_the_end_of_the_stage(world: World, stage: StageHandle) -> None:
    """Who calls as a speaker is heard at once. Hands and help by digits; the end of the stage hangs up."""
    await world.set_role(stage, "dara", "speaker")
    ben = await ben_talks(world, stage)
    async with phone_of(world, "dara", stage) as speaker, phone_of(world, "cyrus", stage) as listener:
        await asyncio.gather(speaker.call(), listener.call())
        await heard(ben)
        await hears(listener, CALLER)
        cyrus = listener.person
        await cyrus.send(listener.chat, "1")
        await listener.told("Your hand is up")
        await ben.wait(lambda c: c.audience.hands == 1, HANG_S, "a hand is up")
        await cyrus.send(listener.chat, "1")
        await listener.told("Your hand is down")
        await cyrus.send(listener.chat, "3")
        await listener.told("one listener", "no hand up")
        await cyrus.send(listener.chat, "2")
        await listener.told("You are in the audience; nobody hears you")
        await stage.host.send(stage.room_id, f"!stage invite {cyrus.user}")
        await listener.told("invites you to speak")
        await cyrus.send(listener.chat, "1")
        await ben.wait(lambda c: c.speaker(cyrus.user), HANG_S, "he came up")
        await stage.host.send(stage.room_id, "!stage end")
        for phone in (speaker, listener):
            assert (await phone.event("hangup"))["reason"] == "user_hangup"
            await phone.told("is over. Thank you for calling.")


async def test_hold_hangup_and_calling_again(world: World, stage: StageHandle) -> None:
    """Hold is answered, never offered; a hangup frees the seat; a second call replaces the first."""
    ben = await ben_talks(world, stage)
    async with phone_of(world, "cyrus", stage, version=0) as first:
        await first.call()
        await hears(first)
        assert "party_id" not in first.answer
        await first.send("hangup", reason="user_hangup")
        user = first.person.user
        await ben.wait(lambda c: user not in [f.user for f in c.audience.faces], HANG_S, "he has gone")
    async with phone_of(world, "cyrus", stage) as second, phone_of(world, "cyrus", stage) as third:
        await second.call()
        await second.hold()
        await second.sound.hear(lambda h: level_at(h, PAGE) < -60, HANG_S)
        await second.hold(off=True)
        await hears(second)
        await third.call()
        assert (await second.event("hangup"))["reason"] == "replaced"
        await hears(third)
        await third.send("hangup")


async def test_nothing_is_met_with_silence(world: World, stage: StageHandle) -> None:
    """Expired, malformed, without a stage, unknown: the right event back, and the chat and other calls live on."""
    async with phone_of(world, "ava", stage) as phone:
        offer = {"type": "offer", "sdp": "v=0\r\n"}

        async def rejected(reason: str, call_id: str, kind: str = "invite", **content: object) -> None:
            await phone.send(kind, **{"call_id": call_id, **content})
            found = await phone.event(*CHAT_ANSWER, call_id=call_id)
            assert found["reason"] == reason, (call_id, found)

        await rejected("invite_timeout", "late", offer=offer, lifetime=1)
        await rejected("unknown_error", "no offer", lifetime=60_000)
        await rejected("user_media_failed", "no sdp", offer=offer, lifetime=60_000)
        await rejected("unknown_error", "never", "negotiate", description=offer)
        await rejected("unknown_error", "neither", "answer", answer={"type": "answer", "sdp": "v=0"})
        await phone.person.send(phone.chat, {"version": "1"}, "m.call.invite")  # names no call
        await phone.send("candidates", candidates=[{"candidate": "", "sdpMid": "0"}])
        await phone.call()
        await phone.send("hangup")


async def test_the_bot_calls_whom_a_moderator_invites(world: World, stage: StageHandle) -> None:
    """Who answers comes up to the stage; declined and busy are told; of two calls at once the lesser id stands.

    What is heard then is measured with a browser, in ``test_calls_sdk.py``."""

    async def ring(phone: Telephone) -> str:
        await stage.host.send(stage.room_id, f"!stage ring {phone.person.user}")
        return await phone.rung()

    async def host_is_told(words: str) -> None:
        async def said() -> list[str]:
            return [str(e["content"].get("body")) for e in await stage.host.get_messages(stage.room_id, 20)]

        while not any(words in each for each in await said()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async with phone_of(world, "cyrus", stage) as phone, phone_of(world, "cyrus", stage) as tablet:
        offer = await ring(phone)
        tablet.call_id = phone.call_id
        await phone.told("invites you to speak")
        await phone.pick_up(offer)
        await tablet.send("answer", answer={"type": "answer", "sdp": "v=0"})  # too late: the first one was taken
        await phone.told("You are on the stage, your microphone is off")
        await phone.send("hangup")
    async with phone_of(world, "dara", stage) as phone:
        await ring(phone)
        await phone.send("reject")
        await host_is_told("dara declined the call")
        await phone.send("hangup", reason="user_busy")  # of a call that is over: nothing comes of it
    async with phone_of(world, "ava", stage) as phone:
        await ring(phone)
        await phone.send("hangup", reason="user_busy")
        await host_is_told("ava is busy")
        await phone.event("hangup")  # so that no other device of hers goes on ringing
    async with phone_of(world, "ben", stage) as phone:
        await ring(phone)
        placed = phone.call_id
        phone.call_id = "~"  # sorts after the bot's
        await phone.send("invite", offer={"type": "offer", "sdp": "v=0"}, lifetime=60_000)
        assert (await phone.event(*CHAT_ANSWER))["reason"] == "replaced"
        phone.call_id = "!"
        await phone.call()
        assert (await phone.event("hangup", call_id=placed))["reason"] == "replaced"
        await phone.send("hangup")


async def test_which_stage_a_call_is_for(world: World) -> None:
    """The one asked for, else the only one, else the bot asks; a telephone on the card asks for that one."""
    zari = await world.person("zari")
    first, second, _ = [await world.new_stage(topic=topic, members=("zari",)) for topic in ("Aab", "Baad", "Khaak")]
    chat = await open_line(zari, first.room_id, world.bot)
    await first.host.send(first.room_id, "!stage end")
    await first.host.wait_for_event(first.room_id, lambda e: "is ended" in str(e["content"].get("body")), HANG_S)

    async def called(topic: str) -> None:
        phone = Telephone(zari, chat)
        try:
            await phone.call()
            await phone.told("You are listening to", topic)
            await phone.send("hangup")
        finally:
            await phone.close()

    asking = Telephone(zari, chat)
    await asking.send("invite", offer={"type": "offer", "sdp": "v=0"}, lifetime=60_000)
    assert (await asking.event(*CHAT_ANSWER))["reason"] == "user_busy"
    asked = await asking.told("Which stage?", "1 –", "2 –")
    await zari.send(chat, next(line[0] for line in asked.splitlines() if "Khaak" in line))
    await asking.told("Khaak", "press the call button now")
    await called("Khaak")
    card = await second.host.wait_for_event(second.room_id, lambda e: "Live: Baad" in str(e["content"].get("body")))
    await zari.react(second.room_id, card["event_id"], "📞")
    await asking.told("To listen to", "Baad")
    await called("Baad")
    await asking.close()
