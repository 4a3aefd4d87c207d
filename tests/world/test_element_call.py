"""An unmodified Element Call in a stage, in every role: what it hears, who hears it, and what ends it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from bridge.demo.cast import wait_for_state
from bridge.demo.people import PageClient
from bridge.doctor import run_doctor
from bridge.errors import Unavailable
from tests.helpers.browser import Browser, Page
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


async def on_air(call: ElementCall, ear: PageClient, presses: int = 2) -> None:
    """Press the microphone's button until the caller is heard: where Element Call believes that it is on, the first
    press means mute."""
    for _ in range(presses):
        await call.press_mute()
        with contextlib.suppress(Unavailable):
            await ear.wait(lambda c: ratio_at(c.recent(0.4), CALLERS) > 20, 8, "the caller's tone")
            return
    raise AssertionError(f"not heard after {presses} presses; Element Call shows {await call.text()}")


async def off_air(ear: PageClient) -> None:
    await ear.wait(lambda c: level_at(c.recent(0.5), CALLERS) < -60, HANG_S, "silence from the caller")


async def call_token(world: World, stage: StageHandle, name: str) -> tuple[str, str]:
    """URL and token for LiveKit's library, got as Element Call gets them."""
    person = world.users[name]
    openid = await person.request("POST", "user", person.user, "openid", "request_token", body={})
    body = {"room": stage.room_id, "openid_token": openid, "device_id": "ALONE"}
    async with aiohttp.ClientSession() as http, http.post(f"{world.web}/livekit/sfu/get", json=body) as answer:
        got = await answer.json()
        assert answer.status == 200, got
    return got["url"], got["jwt"]


async def membership(world: World, stage: StageHandle) -> Mapping[str, Any]:
    return await stage.host.get_state(stage.room_id, MEMBER, f"_{world.bot}_STAGE_m.call") or {}


async def test_every_role(rtc_world: World, origin: str, chromium: Browser, tell: Callable[[str], None]) -> None:
    world = rtc_world
    stage = await call_stage(world, "Element Call")
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)
    began = time.monotonic()
    ava = world.users["ava"]
    call = await open_call(chromium, origin, ava, stage)
    await call.joined()
    await call.wait("host.listen()", "Element Call plays the stage")
    first = time.monotonic() - began

    await hears(call, PAGE, loud=True)
    assert level_at(ben.recent(1.0), CALLERS) < -60, "who listens is not heard"
    await ben.wait(lambda c: ava.user in [face.user for face in c.audience.faces], HANG_S, "she sits in the audience")

    await call.raise_hand()
    await wait_for_state(stage.host, stage.room_id, "im.eyvan.queue", "", lambda q: ava.user in str(q.get("hands")))
    await call.press("Mute microphone")  # so that one press opens it later
    await call.wait("host.has('Unmute microphone')", "her button is off")
    await world.set_role(stage, "ava", "speaker")
    await call.wait("!host.has('Lower hand')", "Element Call shows it down once she is on stage")
    await on_air(call, ben, presses=1)
    await hears(call, PAGE, loud=True)
    assert level_at(await call.hear(0.7), CALLERS) < -60, "nobody hears himself"
    await ben.wait(lambda c: (p := c.speaker(ava.user)) and p.mic == "on", HANG_S, "her microphone shows on")

    await world.set_role(stage, "ava", "speaker", muted=True)
    await off_air(ben)
    await hears(call, PAGE, loud=True)
    await world.set_role(stage, "ava", "speaker")
    await on_air(call, ben)
    put_at = time.monotonic()
    await world.set_role(stage, "ava", "listener")
    await off_air(ben)
    silent = time.monotonic() - put_at
    await call.press_mute()  # whatever she presses now
    await call.press_mute()
    await hears(call, PAGE, loud=True)
    await hears(call, PAGE, loud=True)
    assert level_at(ben.recent(1.0), CALLERS) < -60

    await stage.host.kick(stage.room_id, ava.user)
    await call.wait("!host.sound()", "what plays in Element Call ends with the kick")
    await off_air(ben)
    await ben.wait(lambda c: ava.user not in [f.user for f in c.audience.faces], HANG_S, "she has gone")
    shows = " · ".join((await call.text()).split("\n"))[:300]
    tell(f"opened → playing {first:.1f} s; demoted → silent {silent:.1f} s; Element Call then shows: {shows}")


async def test_the_bot_is_a_member_of_the_call_while_the_stage_is_live(rtc_world: World) -> None:
    world = rtc_world
    stage = await world.new_stage(topic="Membership")

    async def stands(wanted: bool) -> Mapping[str, Any]:
        async with asyncio.timeout(HANG_S):
            while bool(content := await membership(world, stage)) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return content

    content = await stands(True)
    assert content["foci_preferred"][0]["livekit_service_url"] == f"{world.web}/livekit"

    def is_hint(event: Mapping[str, Any]) -> bool:
        return event["sender"] == world.bot and MEMBER in str(event["content"].get("body"))

    await stage.host.wait_for_event(
        stage.room_id, is_hint
    )  # members may not write theirs: the admin is told what to do
    await stage.host.send(stage.room_id, "!stage end")
    await stands(False)


async def test_a_token_by_way_of_the_homeserver(rtc_world: World) -> None:
    """MSC4512: Synapse says whose request it is."""
    world = rtc_world
    stage = await world.new_stage(topic="By the homeserver")
    ava = world.users["ava"]
    path = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit"
    body = {"room_id": stage.room_id, "slot_id": "m.call#ROOM", "member": {"id": "m", "claimed_device_id": "DEV"}}
    headers = {"Authorization": f"Bearer {ava.account.access_token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{ava.base_url}{path}/get_token", json=body) as answer:
            got = await answer.json()
            assert answer.status == 200, got
        async with http.get(f"{world.web}/livekit/rtc/v1/validate?access_token={got['jwt']}") as answer:
            assert answer.status == 200
        claims = jwt.decode(got["jwt"], options={"verify_signature": False})
        hashed = hashlib.sha256(json.dumps([ava.user, "DEV", "m"], separators=(",", ":")).encode()).digest()
        assert claims["sub"] == base64.b64encode(hashed).decode().rstrip("=")
        somebody_else = {**body, "member": {**body["member"], "claimed_user_id": world.users["ben"].user}}  # type: ignore[dict-item]
        for path_, asked, status in (
            ("/get_token", {**body, "room_id": "!none:eyvan.localhost"}, 404),
            ("/get_token", somebody_else, 400),
            ("/delegate_delayed_leave", body, 404),
        ):
            async with http.post(f"{ava.base_url}{path}{path_}", json=asked) as answer:
                assert answer.status == status, await answer.text()
    own = f"http://127.0.0.1:{world.site.ports['appservice']}{path}/get_token"
    async with (
        aiohttp.ClientSession() as http,
        http.post(own, json=body, headers={**headers, "X-Matrix-User-Identifier": ava.user}) as a,
    ):
        assert a.status == 401, "whoever is not the homeserver cannot say whose request it is"


async def test_the_doctor_finds_all_in_place(rtc_world: World) -> None:
    out = io.StringIO()
    await run_doctor(rtc_world.site.config, {}, out)
    lines = out.getvalue().splitlines()[-5:]
    assert [line.split(":")[0] for line in lines] == [
        "! calls",  # all of them depend on us, and there is no fallback here
        "! well-known",  # a made-up name has none
        "✓ RTC transport",
        "✓ OpenID",
        "✓ call service",
    ]


async def test_restart_of_the_bridge_and_end(
    rtc_world: World, origin: str, chromium: Browser, tell: Callable[[str], None]
) -> None:
    world = rtc_world
    stage = await call_stage(world, "A restart")
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)
    dara = world.users["dara"]
    call = await open_call(chromium, origin, dara, stage)
    await call.joined()
    await hears(call, PAGE, loud=True)

    assert world.bridge.pid
    os.killpg(world.bridge.pid, signal.SIGSTOP)  # for whoever is connected, the network is gone
    await asyncio.sleep(10)
    assert level_at(await call.hear(0.7), PAGE) < -60
    os.killpg(world.bridge.pid, signal.SIGCONT)
    began = time.monotonic()
    await hears(call, PAGE, loud=True)
    drop = time.monotonic() - began

    await world.kill_bridge()
    await world.start_bridge()
    began = time.monotonic()
    await ben.wait(lambda c: c.state == "live" and c.me.can_speak, HANG_S, "Ben is back")
    await ben.wait(lambda c: dara.user in [f.user for f in c.audience.faces], HANG_S, "Element Call is back by itself")
    back = time.monotonic() - began
    await hears(call, PAGE, loud=True)
    assert (await membership(world, stage)).get("application") == "m.call"

    await stage.host.send(stage.room_id, "!stage end")
    await call.wait("!host.sound()", "what plays in Element Call ends with the stage")
    shows = " · ".join((await call.text()).split("\n"))[:300]
    tell(f"back {drop:.1f} s after 10 s without network; bridge ready → Element Call back {back:.1f} s")
    tell(f"after the end it shows: {shows}")


async def test_two_callers_hear_each_other(rtc_world: World, origin: str, chromium: Browser) -> None:
    """One of them in the newer mode: a sticky membership (MSC4354), ``/get_token``, a hashed identity."""
    world = rtc_world
    stage = await call_stage(world, "Two")
    await world.set_role(stage, "cyrus", "speaker")
    speaker = await open_call(chromium, origin, world.users["cyrus"], stage, app="ec-2.0")
    await speaker.joined()
    listener = await open_call(chromium, origin, world.users["dara"], stage)
    await listener.joined()
    await hears(listener, CALLERS, loud=True)  # who joins as a speaker is heard without a press
    assert level_at(await speaker.hear(0.7), CALLERS) < -60, "nobody hears himself, nor who only listens"
    await listener.wait("host.text().includes('cyrus')", "the other caller's name")
    await listener.wait("!host.text().includes('Waiting for media')", "nobody is waited for")
    await speaker.wait("host.text().includes('dara')", "the other caller's name")


async def test_livekit_s_own_library_alone(
    rtc_world: World, origin: str, chromium: Browser, tell: Callable[[str], None]
) -> None:
    """Without Element Call: what its engine makes of our signalling, in two browsers on one stage."""
    world, fire = rtc_world, 1210  # Hz, of Firefox's microphone
    stage = await call_stage(world, "LiveKit's library")
    await world.set_role(stage, "ben", "speaker")
    ben = await world.client("ben", stage)
    ben.say(sine(PAGE, 1.0), loop=True)
    await ben.mic(True)

    async def both(of: Callable[[Page, str, int], Awaitable[None]]) -> None:
        await asyncio.gather(of(pages[0], "cyrus", fire), of(pages[1], "dara", CALLERS))

    async def listen(page: Page, name: str, _: int) -> None:
        url, token = await call_token(world, stage, name)
        assert "too old" in await page.eval(f"lk.joinAsOlder({json.dumps(url)}, {json.dumps(token)})")
        assert await page.eval(f"lk.join({json.dumps(url)}, {json.dumps(token)})") == ""
        await page.wait("lk.plays()", HANG_S)
        assert level_at(await page.hear(0.7), PAGE) > -30
        assert "insufficient permissions" in await page.eval("lk.microphone(true)")

    async def speak(page: Page, name: str, others: int) -> None:
        await world.set_role(stage, name, "speaker")
        await page.wait("lk.maySpeak()", HANG_S)
        assert await page.eval("lk.microphone(true)") == ""

    async def hear(page: Page, name: str, others: int) -> None:
        end, own = time.monotonic() + HANG_S, CALLERS + fire - others
        heard = await page.hear(0.7)
        while level_at(heard, others) < -35 or level_at(heard, own) > -50:  # a beginning has a bit of every frequency
            levels = f"{level_at(heard, others):.0f} dBFS, oneself {level_at(heard, own):.0f}"
            assert time.monotonic() < end, f"{name} hears the other at {levels}"
            heard = await page.hear(0.7)
        await page.wait("lk.talking().length === 3", HANG_S)  # the two, and the bot as whom Ben speaks

    async def muted(page: Page, name: str, _: int) -> None:
        await world.set_role(stage, name, "speaker", muted=True)
        await page.wait("!lk.microphoneOn()", HANG_S)

    async def leave(page: Page, name: str, _: int) -> None:
        assert await page.eval("lk.leave()") == ""
        user = world.users[name].user
        await ben.wait(lambda c: (p := c.speaker(user)) and not p.connected, HANG_S, f"{name} has gone")

    async with Browser.launch("firefox", tone=fire, viewport=(1000, 700)) as firefox:
        pages = [await browser.open(f"{origin}/livekit") for browser in (chromium, firefox)]
        for page in pages:
            await page.wait("window.lk")
        began = time.monotonic()
        await both(listen)
        first = time.monotonic() - began
        await both(speak)
        await ben.wait(lambda c: min(level_at(c.recent(0.4), hz) for hz in (CALLERS, fire)) > -35, HANG_S, "both tones")
        await both(hear)
        await both(muted)
        await off_air(ben)
        await both(leave)
        call = await open_call(firefox, origin, world.users["ava"], stage)  # and Element Call itself runs there
        await hears(call, PAGE, loud=True)
    tell(f"join → 0.7 s of sound measured, in both browsers {first:.1f} s")
