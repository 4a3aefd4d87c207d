"""What any relay must do, whatever its engine: real offers, real UDP, real sound, measured at the ear.

A relay is a factory in ``tests.helpers.relay``: one worker, and two that share each stage. What concerns the wire
alone is in ``test_media_wire.py``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from bridge.errors import BadInput, NotFound
from bridge.ids import PeerId, StageId
from bridge.media.workers import Workers
from tests.helpers.relay import (
    HANG_S,
    Witness,
    enter,
    fan_out_in_c,
    loud,
    on_stage,
    running,
    silent,
    two_workers,
    until,
)
from tests.helpers.rtc import RtcClient
from tests.helpers.tone import level_at, ratio_at, rms_dbfs


@pytest.fixture(params=[fan_out_in_c, two_workers], ids=lambda each: each.__name__)
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Workers, Witness]]:
    async with running(request.param) as both:
        yield both


async def test_each_hears_the_others_and_nobody_themselves(relay: tuple[Workers, Witness]) -> None:
    workers, witness = relay
    async with on_stage(workers, ("ava", True), ("ben", True), ("cem", False)) as (ava, ben, cem):
        await witness.until(lambda: ("connected", cem.peer) in witness.told, "peer_connected")
        ava.client.say(440)
        ben.client.say(660)
        await ava.client.hear(lambda heard: ratio_at(heard, 660) >= 20 and loud(660)(heard))
        await ben.client.hear(lambda heard: ratio_at(heard, 440) >= 20 and loud(440)(heard))
        await cem.client.hear(
            lambda heard: loud(440)(heard) and abs(level_at(heard, 440) - level_at(heard, 660)) < 3  # once both fill it
        )
        for person, own, other in ((ava, 440, 660), (ben, 660, 440)):
            heard = person.client.recent(1)
            assert level_at(heard, other) - level_at(heard, own) >= 20
        ava.client.say(None)
        ben.client.say(None)
        for person in (ava, ben, cem):
            await person.client.hear(silent)


async def test_gate_decides_who_is_heard_whatever_is_sent(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", True), ("ben", False), ("cem", False), ("dan", False)) as people:
        ava, ben, cem, dan = people
        others = (ava, ben, cem)
        ava.client.say(440, dbfs=-24)  # soft: on a busy machine its gaps must not reach −60 dBFS at 880 Hz
        dan.client.say(880)
        await ben.client.hear(loud(440))

        async def gated() -> int:
            return (await workers.stats()).peers[dan.peer].gated

        start = await gated()
        loudest = -120.0
        async with asyncio.timeout(HANG_S):
            while await gated() < start + 500:
                loudest = max(loudest, *(level_at(person.client.recent(0.5), 880) for person in others))
                await asyncio.sleep(0.1)
        assert loudest < -60
        assert (await workers.stats()).peers[dan.peer].decoded == 0

        await workers.gate(dan.peer, hear=True, speak=True)
        for person in others:
            await person.client.hear(loud(880))
        assert level_at(dan.client.recent(1), 880) < -60
        assert loud(440)(dan.client.recent(0.5))

        await workers.gate(dan.peer, hear=True, speak=False)
        for person in others:
            await person.client.hear(lambda heard: level_at(heard, 880) < -60)
        decoded = (await workers.stats()).peers[dan.peer].decoded
        start = await gated()
        async with asyncio.timeout(HANG_S):
            while await gated() < start + 50:
                assert all(level_at(person.client.recent(0.3), 880) < -60 for person in others)
                await asyncio.sleep(0.05)
        assert (await workers.stats()).peers[dan.peer].decoded == decoded


async def test_gate_opens_and_shuts_without_a_click(relay: tuple[Workers, Witness]) -> None:
    """A hard cut of a 440 Hz sine spreads over the whole spectrum; a 10 ms fade stays below 2 kHz."""
    workers, _ = relay
    async with on_stage(workers, ("ava", False), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        for speak in (True, False, True, False):
            await workers.gate(ava.peer, hear=True, speak=speak)
            heard = await ben.client.hear(loud(440) if speak else silent)
        heard = ben.client.recent(3)
        assert level_at(heard, 440) > -40
        assert max(level_at(heard, hz) for hz in range(4000, 12000, 250)) < level_at(heard, 440) - 50


async def test_hear_gate_silences_a_listener(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        await ben.client.hear(loud(440))
        await workers.gate(ben.peer, hear=False, speak=False)
        await ben.client.hear(silent)
        await workers.gate(ben.peer, hear=True, speak=False)
        await ben.client.hear(loud(440))


async def test_two_peers_of_one_owner_never_hear_each_other(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", True), ("ava", True), ("ben", False)) as (phone, laptop, ben):
        phone.client.say(440)
        laptop.client.say(660)
        await ben.client.hear(lambda heard: loud(440)(heard) and loud(660)(heard), window_s=1)
        for person in (phone, laptop):
            assert rms_dbfs(person.client.recent(1)) < -60


async def test_stages_never_mix(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with (
        on_stage(workers, ("ava", True), ("ben", False), stage="one") as (ava, ben),
        on_stage(workers, ("ava", True), ("cem", False), stage="two") as (other, cem),
    ):
        ava.client.say(440)
        other.client.say(660)
        for person, own, foreign in ((ben, 440, 660), (cem, 660, 440)):
            await person.client.hear(loud(own))
            assert level_at(person.client.recent(1), foreign) < -60
        await workers.close_stage(StageId("one"))
        assert set((await workers.stats()).peers) == {other.peer, cem.peer}
        await cem.client.hear(loud(660))


async def test_in_silence_a_packet_comes_each_second_and_sound_is_back_at_once(
    relay: tuple[Workers, Witness],
) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", False), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        start = await workers.stats()
        before = start.peers[ben.peer].packets_out

        async def five_more() -> bool:
            return (await workers.stats()).peers[ben.peer].packets_out >= before + 5

        await until(five_more, "packets in silence")
        end = await workers.stats()
        ticks = end.worker.ticks - start.worker.ticks
        assert 35 <= ticks / (end.peers[ben.peer].packets_out - before) <= 56  # a tick is 20 ms
        await workers.gate(ava.peer, hear=True, speak=True)
        await ben.client.hear(loud(440))


async def test_levels_name_who_talks_and_end_with_nothing(relay: tuple[Workers, Witness]) -> None:
    workers, witness = relay
    async with on_stage(workers, ("ava", True), ("ben", False), stage="levels") as (ava, ben):
        assert ava.answer.csrc != ben.answer.csrc
        ben.client.say(880)  # gated: not to be told
        ava.client.say(440)
        await witness.until(lambda: len(witness.levels_told) >= 40, "levels")
        for _, stage, levels in witness.levels_told:
            assert stage == "levels"
            assert set(levels) <= {ava.answer.csrc}
        told = dict(witness.levels_told[-1][2])
        assert 10 <= told[ava.answer.csrc] <= 20  # a sine of −12 dBFS peak has −15 dBov
        times = [at for at, _, _ in witness.levels_told]
        assert (len(times) - 1) / (times[-1] - times[0]) <= 13  # 10, and a stalled test
        ava.client.say(None)
        await witness.until(lambda: witness.levels_told[-1][2] == {}, "an empty mapping")
        count = len(witness.levels_told)
        await asyncio.sleep(0.5)  # the claim is that nothing more comes
        assert len(witness.levels_told) == count


async def test_leave_and_close_stage_end_connections(relay: tuple[Workers, Witness]) -> None:
    workers, witness = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        await ben.client.hear(loud(440))
        await workers.leave(ava.peer)
        await workers.leave(ava.peer)
        await ben.client.hear(silent)
        with pytest.raises(NotFound):
            await workers.gate(ava.peer, hear=True, speak=True)
        await workers.close_stage(StageId("stage"))
        await workers.close_stage(StageId("stage"))
        assert (await workers.stats()).peers == {}
        assert [each for each in witness.told if each[0] == "gone"] == []  # we asked for it


async def test_closing_the_page_is_told(relay: tuple[Workers, Witness]) -> None:
    workers, witness = relay
    async with on_stage(workers, ("ava", True)) as (ava,):
        await ava.client.close()
        await witness.until(lambda: ("gone", ava.peer, "closed") in witness.told, "peer_gone")


async def test_a_fresh_connection_of_the_same_peer_keeps_its_csrc(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        again = await enter(workers, "stage", "ava", speak=True, peer=ava.peer)
        try:
            assert again.answer.csrc == ava.answer.csrc
            again.client.say(660)
            await ben.client.hear(loud(660))
        finally:
            await again.client.close()


JUNK_OFFERS = {
    "": "offer",
    "hello": "offer",
    "v=0\r\n" + "a=x\r\n" * 20_000: "offer",
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n": "offer m=audio",
    "v=0\r\nm=audio nine UDP/TLS/RTP/SAVPF 96\r\n": "offer m=",
}


async def test_junk_offers_are_refused_by_field_and_disturb_nothing(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        good = ava.client.offer
        ava.client.say(440)
        await ben.client.hear(loud(440))
        cases = {
            **JUNK_OFFERS,
            re.sub(r"a=fingerprint.*\r\n", "", good): "offer a=fingerprint",
            re.sub(r"a=ice-ufrag.*\r\n", "", good): "offer a=ice-ufrag",
            re.sub(r"a=ice-pwd.*\r\n", "a=ice-pwd:short\r\n", good): "offer a=ice-pwd",
            re.sub(r"opus/48000/2", "opus/16000/1", good): "offer a=rtpmap",
            re.sub(r"a=rtcp-mux\r\n", "", good): "offer a=rtcp-mux",
            re.sub(r"a=setup:actpass", "a=setup:passive", good): "offer a=setup",
        }
        for offer, field in cases.items():
            for peer in (PeerId("new"), ava.peer):
                with pytest.raises(BadInput) as caught:
                    await workers.join(StageId("stage"), peer, "ava", offer, hear=True, speak=True)
                assert caught.value.field == field
        assert set((await workers.stats()).peers) == {ava.peer, ben.peer}
        heard = await ben.client.hear(lambda heard: ratio_at(heard, 440) > 30, window_s=1)
        assert loud(440)(heard)


async def test_somebody_who_is_called_answers_our_offer(relay: tuple[Workers, Witness]) -> None:
    """An offer of the relay's is as good as one of theirs; one that nobody answers leaves nothing behind."""
    workers, stage = relay[0], StageId("stage")
    async with on_stage(workers, ("ava", True)) as (ava,):
        called = RtcClient()
        try:
            offer = await workers.offer(stage, PeerId("called"))
            answer = await called.accept(offer)
            await workers.join(stage, PeerId("called"), "ben", answer, hear=True, speak=True, answer_to=offer)
            await called.connected()
            called.say(660)
            ava.client.say(440)
            await called.hear(loud(440))
            await ava.client.hear(loud(660))
            await workers.leave(PeerId("called"))
            with pytest.raises(NotFound):
                await workers.gate(PeerId("called"), hear=True, speak=True)
            unanswered = PeerId("never")
            await workers.offer(stage, unanswered)
            await workers.leave(unanswered)
            with pytest.raises(BadInput, match="answer_to"):
                await workers.join(stage, unanswered, "ben", answer, hear=True, speak=True, answer_to="v=0")
        finally:
            await called.close()
