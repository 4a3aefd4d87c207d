"""How a stage sounds, and whom one does not hear: by real clients, on one worker and on two that share the stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridge.errors import Full, NotFound
from bridge.ids import PeerId, StageId
from bridge.media.workers import Workers
from tests.helpers.relay import Witness, fan_out_in_c, loud, on_stage, running, two_workers
from tests.helpers.tone import Samples, level_at

OFFER = (Path(__file__).parents[1] / "media" / "offers" / "safari-18-listener.sdp").read_text()


@pytest.fixture(params=[fan_out_in_c, two_workers], ids=lambda each: each.__name__)
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Workers, Witness]]:
    async with running(request.param) as both:
        yield both


def hears(*tones: int) -> Callable[[Samples], bool]:
    """Those and no other of the three."""

    def only(heard: Samples) -> bool:
        return all(loud(hz)(heard) if hz in tones else level_at(heard, hz) < -55 for hz in (440, 660, 880))

    return only


async def test_whom_a_listener_leaves_out_only_that_one_does_not_hear(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    people = (("ava", True), ("ben", True), ("cem", True), ("dan", False), ("eve", False))
    async with on_stage(workers, *people) as (ava, ben, cem, dan, eve):
        for person, hz in ((ava, 440), (ben, 660), (cem, 880)):
            person.client.say(hz, dbfs=-20)
        await dan.client.hear(hears(440, 660, 880))
        await workers.leave_out(dan.peer, ["ben"])
        await workers.leave_out(eve.peer, ["ben", "cem"])
        await workers.leave_out(ava.peer, ["ben"])
        await dan.client.hear(hears(440, 880))
        await eve.client.hear(hears(440))
        await ava.client.hear(hears(880))  # nor herself
        await cem.client.hear(hears(440, 660))
        await workers.leave_out(eve.peer, [])
        await workers.gate(dan.peer, hear=True, speak=True)
        dan.client.say(550)
        await eve.client.hear(lambda heard: hears(440, 660, 880)(heard) and loud(550)(heard))
        await dan.client.hear(lambda heard: hears(440, 880)(heard) and level_at(heard, 550) < -55)
        with pytest.raises(NotFound):
            await workers.leave_out(PeerId("nobody"), ["ben"])


async def test_there_is_a_bound_of_what_is_mixed_for_it(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    for number in range(10):
        await workers.join(StageId("s"), PeerId(f"p{number}"), f"o{number}", OFFER, hear=True, speak=False)
    for number in range(8):
        await workers.leave_out(PeerId(f"p{number}"), ["ava", f"x{number}"])
    with pytest.raises(Full, match="leave out one person, or the same as others do"):
        await workers.leave_out(PeerId("p8"), ["ava", "ben"])
    await workers.leave_out(PeerId("p8"), ["ava", "x1"])
    await workers.leave_out(PeerId("p9"), ["ben"])
    await workers.leave(PeerId("p0"))
    await workers.leave_out(PeerId("p9"), ["ava", "ben"])


async def test_a_stage_becomes_one_for_music_while_people_listen(relay: tuple[Workers, Witness]) -> None:
    """Nobody reconnects; and who comes then is told in the answer."""
    workers, witness = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440, dbfs=-20, right=660)

        def has(own: int, other: int, side: int) -> bool:
            heard = ben.client.recent(0.3, side)
            return level_at(heard, own) - level_at(heard, other) > 25

        await ben.client.hear(lambda heard: loud(440)(heard) and loud(660)(heard))
        assert not has(440, 660, 0)
        assert "stereo=1" not in ben.answer.sdp
        before = len(witness.told)
        await workers.tune(StageId("stage"), "music")
        await ben.client.hear(lambda heard: has(440, 660, 0) and has(660, 440, 1))
        async with on_stage(workers, ("cem", False)) as (cem,):
            assert "stereo=1;sprop-stereo=1;maxaveragebitrate=128000" in cem.answer.sdp
            await cem.client.hear(lambda heard: loud(440)(heard) and level_at(heard, 660) < -50)
        await workers.tune(StageId("stage"), "low")
        await ben.client.hear(lambda heard: loud(440)(heard) and loud(660)(heard))
        assert not {ava.peer, ben.peer} & {told[1] for told in witness.told[before:]}
