"""The role in room state opens and shuts the gate, whoever wrote it, and whatever the client sends.

The listener here is hostile: it sends its voice at full level from the first moment. Its packets are authenticated,
counted and dropped until a moderator's plain state event says otherwise.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import aiohttp
import numpy as np
import pytest

from bridge.demo.people import PageClient
from tests.helpers.browser import Browser
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import StageHandle, World

HANG_S = 90
TONE = 880
FRAME = 960  # samples: 20 ms


async def gated_packets(world: World) -> int:
    """RTP that was authenticated and turned away by the gate, of all peers, as the operator's metrics say."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(world.site.ready_url.replace("/health/ready", "/metrics")) as a,
    ):
        found = re.search(r"^eyvan_peers_gated (\d+)", await a.text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for an async condition."""
    end = time.monotonic() + HANG_S
    while not await condition():
        assert time.monotonic() < end, f"not within {HANG_S} s: {what}"
        await asyncio.sleep(0.1)


def onset_ms(ear: PageClient, put_at: float, *, silent: bool = False) -> float:
    """When the tone came (or went), in ms after ``put_at`` (monotonic s), read off what was heard, frame by frame."""
    now, heard = time.monotonic(), ear.recent(4.0)
    loud = np.array(
        [level_at(heard[i : i + 4 * FRAME], TONE) > -40 for i in range(0, len(heard) - 4 * FRAME, FRAME)], dtype=bool
    )
    changes = np.flatnonzero(loud[1:] != loud[:-1])
    assert len(changes), "the change lies in what was heard last"
    first = int(changes[-1]) + 1
    position = first * FRAME + (0 if silent else 3 * FRAME)
    return (now - (len(heard) - position) / 48_000 - put_at) * 1000


async def hostile_listener(world: World, stage: StageHandle) -> PageClient:
    """Ava's page, which sends 880 Hz though nobody let her speak."""
    ava = await world.client("ava", stage)
    ava.say(sine(TONE, 1.0), loop=True)
    await ava.mic(True)
    return ava


async def test_a_listeners_voice_is_turned_away_until_state_lets_it_in(
    world: World, tell: Callable[[str], None]
) -> None:
    stage = await world.new_stage(topic="The gate")
    ava = await hostile_listener(world, stage)
    ben, guest = await world.client("ben", stage), await world.guest(stage)
    async with Browser.launch("chromium") as chromium:
        page = await chromium.open(await world.link("cyrus", stage))
        await page.wait("document.documentElement.dataset.connection === 'live'", HANG_S)
        ears = (ben, guest)

        before = await gated_packets(world)

        async def enough() -> bool:
            for ear in ears:
                assert level_at(ear.recent(0.5), TONE) < -60
            return await gated_packets(world) - before >= 500

        await until(enough, "500 packets of hers turned away")
        assert level_at(await page.hear(1.0), TONE) < -60

        put_at = time.monotonic()
        await world.set_role(stage, "ava", "speaker")  # by the host's own access token: no bot command
        await ben.wait(lambda c: ratio_at(c.recent(0.4), TONE) > 20, HANG_S, "880 Hz")
        audible = onset_ms(ben, put_at)
        for ear in ears:
            await ear.wait(lambda c: level_at(c.recent(0.5), TONE) > -30, HANG_S, "880 Hz")

        async def in_browser() -> bool:
            return level_at(await page.hear(0.5), TONE) > -30

        await until(in_browser, "880 Hz in Chromium")
        assert level_at(ava.recent(1.0), TONE) < -60, "nobody hears himself"

        put_at = time.monotonic()
        await world.set_role(stage, "ava", "listener")
        await ben.wait(lambda c: level_at(c.recent(0.4), TONE) < -60, HANG_S, "silence")
        silent = onset_ms(ben, put_at, silent=True)

        async def not_in_browser() -> bool:
            return level_at(await page.hear(0.5), TONE) < -60

        await until(not_in_browser, "silence in Chromium")
        before = await gated_packets(world)
        await until(enough, "500 more packets turned away after the demotion")
    tell(f"state PUT → audible {audible:.0f} ms, → silent {silent:.0f} ms (the listener's buffer included)")


async def test_a_member_without_power_changes_nothing(world: World) -> None:
    stage = await world.new_stage(topic="Spoofed")
    ava, ben = await hostile_listener(world, stage), await world.client("ben", stage)
    dara = await world.person("dara")
    with pytest.raises(Exception, match="M_FORBIDDEN"):
        await world.set_role(stage, "ava", "speaker", by=world.users["ava"])
    with pytest.raises(Exception, match="M_FORBIDDEN"):
        await dara.put_state(
            stage.room_id, "im.eyvan.queue", "", {"hands": [{"user": dara.user, "ts": 1, "via": "web"}]}
        )
    power = await stage.host.power_levels(stage.room_id)
    await stage.host.put_state(
        stage.room_id, "m.room.power_levels", "", {**power, "events": {**power["events"], "im.eyvan.hand": 0}}
    )
    await dara.put_state(stage.room_id, "im.eyvan.hand", f"_{ben.me.user}", {"raised": True})  # somebody else's hand
    await dara.put_state(stage.room_id, "im.eyvan.hand", dara.user, {"raised": True, "note": "mine"})  # her own
    host = await world.client("host", stage)
    await host.wait(lambda c: [h.user for h in c.queue] == [dara.user], HANG_S, "dara's hand alone")
    assert ben.me.hand is None
    assert not ava.me.can_speak
    assert level_at(ben.recent(0.5), TONE) < -60


async def test_every_way_of_cutting_off_is_heard(world: World) -> None:
    stage = await world.new_stage(topic="Cuts", members=("host", "ava", "ben"))
    ava, ben, host = [await world.client(name, stage) for name in ("ava", "ben", "host")]
    ava.say(sine(TONE, 1.0), loop=True)

    async def on_air() -> None:
        await ava.wait(lambda c: c.me.can_speak, HANG_S, "she may speak")
        await ava.mic(True)
        await ben.wait(lambda c: ratio_at(c.recent(0.5), TONE) > 20, HANG_S, "880 Hz")

    async def off_air() -> None:
        await ben.wait(lambda c: level_at(c.recent(0.5), TONE) < -60, HANG_S, "silence")

    user = str(ava.me.user)
    await host.act("bring_up", user)
    await on_air()
    await host.act("mute", user)
    await off_air()
    assert ava.me.muted
    await host.act("unmute", user)
    await on_air()
    await host.act("to_audience", user)
    await off_air()
    await stage.host.send(stage.room_id, f"!stage speaker {user}")
    await on_air()
    await stage.host.send(stage.room_id, f"!stage mute {user}")
    await off_air()
    await stage.host.send(stage.room_id, f"!stage unmute {user}")
    await on_air()
    await stage.host.ban(stage.room_id, user)
    await off_air()
    await ava.wait(lambda c: c.state == "over", HANG_S, "her page is told")
    await stage.host.send(stage.room_id, "!stage end")
    await ben.wait(lambda c: c.state == "over", HANG_S, "the stage is over")
