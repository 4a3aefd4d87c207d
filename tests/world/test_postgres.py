"""The bridge on PostgreSQL: `eyvan run` with another URL, the same life."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.helpers.postgres import Postgres, running_postgres
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import World, running_world

HANG_S = 90


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as running:
        yield running


@pytest.fixture
async def world_on_postgres(
    postgres: Postgres, synapse_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("on-postgres")
    async with running_world(directory, synapse_python, people=("host", "ava", "ben")) as world:
        await world.stop_bridge()
        config = json.loads(world.site.config.read_text())
        config["database"] = postgres.new_database()
        world.site.config.write_text(json.dumps(config))
        await world.start_bridge()
        yield world


async def test_a_stage_survives_a_crash_on_postgresql(world_on_postgres: World) -> None:
    world = world_on_postgres
    stage = await world.new_stage(topic="On PostgreSQL", members=("host", "ava", "ben"))
    ava, ben, host = [await world.client(name, stage) for name in ("ava", "ben", "host")]
    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S)
    ava.say(sine(550, 1.0), loop=True)
    await ava.mic(True)
    await ben.hand(True, "پرسشی دارم")
    await host.wait(lambda c: [hand.note for hand in c.queue] == ["پرسشی دارم"], HANG_S)

    await world.kill_bridge()
    await world.start_bridge()
    await ben.wait(lambda c: c.connections == 2 and c.me.hand is not None, HANG_S, "the hand is kept")
    await ben.wait(lambda c: ratio_at(c.recent(1), 550) > 20, HANG_S, "550 Hz after the restart")
    await host.wait(lambda c: c.connections == 2, HANG_S)
    await host.act("mute", ava.me.user)
    await ben.wait(lambda c: level_at(c.recent(0.5), 550) < -60, HANG_S, "silence")
