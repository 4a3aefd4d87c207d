"""What the operator sees: alive, ready, and the counters of a stage that is live."""

from __future__ import annotations

import re

import aiohttp

from tests.helpers.world import World

HANG_S = 60


async def metrics_of(world: World) -> dict[str, float]:
    url = world.site.ready_url.replace("/health/ready", "/metrics")
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == 200
        text = await answer.text()
    assert "access_token" not in text
    return {name: float(value) for name, value in re.findall(r"^(eyvan_\S+) ([\d.e+-]+)$", text, re.MULTILINE)}


async def test_alive_ready_and_counted(world: World) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(world.site.ready_url) as ready:
            assert (ready.status, await ready.json()) == (200, {"ready": True, "reason": None})
        async with http.get(world.site.ready_url.replace("/ready", "/live")) as alive:
            assert alive.status == 200
    before = await metrics_of(world)
    stage = await world.new_stage(topic="Counted")
    ava = await world.client("ava", stage)
    await ava.wait(lambda c: c.media_connected, HANG_S)
    after = await metrics_of(world)
    assert after["eyvan_stages_live"] == before["eyvan_stages_live"] + 1
    assert after["eyvan_people_connected"] >= 1
    assert after['eyvan_worker_peers{worker="0"}'] >= 1
    assert after["eyvan_events"] > before["eyvan_events"]
