"""The world's own story: a state event puts somebody on air, a page comes back, a crash of the bridge heals."""

from __future__ import annotations

from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import World

HANG_S = 90


async def test_plain_state_puts_a_listener_on_air_and_takes_him_off(world: World) -> None:
    stage = await world.new_stage(topic="On air")
    ava, ben = await world.client("ava", stage), await world.client("ben", stage)
    guest = await world.guest(stage)
    ava.say(sine(880, 1.0), loop=True)
    await ava.mic(True)
    await ben.wait(lambda c: c.audience.count == 3, HANG_S)
    assert not ava.me.can_speak
    assert level_at(ben.recent(1), 880) < -60

    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S)
    await ava.mic(True)
    for ear in (ben, guest):
        await ear.wait(lambda c: ratio_at(c.recent(1), 880) > 20, HANG_S, "880 Hz")
        assert level_at(ear.recent(1), 880) > -30
    assert level_at(ava.recent(1), 880) < -60, "nobody hears himself"
    assert ben.speaker(ava.me.user or "") is not None

    await world.set_role(stage, "ava", "listener")
    await ben.wait(lambda c: level_at(c.recent(1), 880) < -60, HANG_S, "silence")


async def test_a_page_comes_back_by_itself_with_its_microphone_on(world: World) -> None:
    stage = await world.new_stage(topic="Coming back")
    ava, ben = await world.client("ava", stage), await world.client("ben", stage)
    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S)
    ava.say(sine(660, 1.0), loop=True)
    await ava.mic(True)
    await ben.wait(lambda c: ratio_at(c.recent(1), 660) > 20, HANG_S, "660 Hz")

    ava.break_connection()
    await ava.wait(lambda c: c.connections == 2 and c.media_connected and c.me.can_speak, HANG_S)
    await ben.wait(lambda c: ratio_at(c.recent(1), 660) > 20, HANG_S, "660 Hz again")


async def test_a_killed_bridge_comes_back_with_its_stage(world: World) -> None:
    stage = await world.new_stage(topic="Crash")
    ava, ben = await world.client("ava", stage), await world.client("ben", stage)
    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S)
    ava.say(sine(550, 1.0), loop=True)
    await ava.mic(True)
    await ben.hand(True, "a question")
    await ben.wait(lambda c: c.me.hand is not None, HANG_S)

    await world.kill_bridge()
    await ben.wait(lambda c: c.state != "live", HANG_S)
    await world.start_bridge()
    await ben.wait(lambda c: c.connections == 2 and c.me.hand is not None, HANG_S)
    await ben.wait(lambda c: ratio_at(c.recent(1), 550) > 20, HANG_S, "550 Hz after the restart")
    assert (await world.stage_state(stage))["stage_id"] == stage.stage_id


async def test_a_homeserver_that_starts_again_is_still_listened_to(world: World) -> None:
    """Synapse on SQLite begins its transaction ids again at 1 after a restart when none was left to send
    (``get_max_as_txn_id``): an id seen before with other events is a new transaction."""
    stage = await world.new_stage(topic="Homeserver restart")
    ava = await world.client("ava", stage)
    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S)

    await world.synapse.stop()
    await world.synapse.start()
    await world.set_role(stage, "ava", "listener")
    await ava.wait(lambda c: not c.me.can_speak, HANG_S, "the first state event after the restart")
    await world.set_role(stage, "ava", "speaker")
    await ava.wait(lambda c: c.me.can_speak, HANG_S, "the second one")
