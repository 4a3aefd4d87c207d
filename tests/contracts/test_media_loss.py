"""What any relay must do on links that lose packets: copies both ways (RFC 2198), reports, replays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from bridge.ids import PeerId, StageId
from bridge.media import opus, rtcp, rtp
from bridge.media.counters import PeerStats
from bridge.media.workers import Workers
from tests.helpers.network import Weather, forwarding
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import BACKENDS, HANG_S, Witness, loud, on_stage, running, until

STAGE = StageId("stage")


@pytest.fixture(params=BACKENDS, ids=lambda each: each.__name__)
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Workers, Witness]]:
    async with running(request.param) as both:
        yield both


@pytest.fixture
async def receiver() -> AsyncIterator[Workers]:
    """For what does not depend on the engine that sends."""
    async with running(BACKENDS[0]) as (workers, _):
        yield workers


@pytest.fixture
def raw() -> Iterator[RawPeer]:
    peer = RawPeer()
    yield peer
    peer.close()


async def connected(workers: Workers, raw: RawPeer, *, speak: bool, red: str = "111/111") -> None:
    raw.red = red
    answer = await workers.join(STAGE, PeerId("raw"), "raw", raw.offer, hear=True, speak=speak)
    raw.take(answer.sdp)
    await raw.check()
    await raw.handshake()


async def stats(workers: Workers) -> PeerStats:
    return (await workers.stats()).peers[PeerId("raw")]


async def row_of(raw: RawPeer, payload_type: int, samples: int) -> list[rtp.Packet]:
    """Packets up to ten in a row that are of one payload type and whose newest block has one length."""
    packets: list[rtp.Packet] = []

    def fits(packet: rtp.Packet) -> bool:
        blocks = rtp.unpack_red(packet.payload) if packet.payload_type == 63 else [rtp.Block(111, 0, packet.payload)]
        return packet.payload_type == payload_type and opus.samples_in((blocks or [])[-1].payload) == samples

    async with asyncio.timeout(HANG_S):
        while len(packets) < 10 or not all(map(fits, packets[-10:])):
            packets.append(await raw.packet())
    return packets


async def test_a_lossy_link_gets_each_packet_twice_until_it_is_clean(
    relay: tuple[Workers, Witness], raw: RawPeer
) -> None:
    workers, _ = relay
    await connected(workers, raw, speak=False)
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        ssrc = (await row_of(raw, 111, 2880))[-1].ssrc
        raw.tell_loss(ssrc ^ 1, 0.5)  # about somebody else
        raw.tell_loss(ssrc, 0.02)
        await row_of(raw, 111, 2880)
        raw.tell_loss(ssrc, 0.03)
        packets = (await row_of(raw, 63, 2880))[-10:]
        assert (await stats(workers)).copies
        for before, packet in itertools.pairwise(packets):
            copy, _ = rtp.unpack_red(packet.payload) or []
            assert (copy.offset, copy.payload) == (2880, (rtp.unpack_red(before.payload) or [])[-1].payload)
            assert (packet.sequence - before.sequence) & 0xFFFF == 1
        await workers.tune(STAGE, "music")  # 128 kbit/s: two packets of 60 ms do not fit into one of 1200 bytes
        raw.tell_loss(ssrc, 0.03)
        packets = (await row_of(raw, 63, 960))[-10:]
        assert all(len(rtp.unpack_red(each.payload) or []) == 2 for each in packets)
        await workers.tune(STAGE, "voice")
        await workers.gate(PeerId("raw"), hear=True, speak=True)
        await row_of(raw, 63, 960)
        await workers.gate(PeerId("raw"), hear=True, speak=False)
        for _ in range(5):
            raw.tell_loss(ssrc, 0.0)
        await row_of(raw, 63, 2880)
        raw.tell_loss(ssrc, 0.0)
        await row_of(raw, 111, 2880)
        assert not (await stats(workers)).copies


async def test_who_understands_no_copies_gets_short_packets(receiver: Workers, raw: RawPeer) -> None:
    """In-band FEC gives back 20 ms of a lost packet at most."""
    await connected(receiver, raw, speak=False, red="")
    async with on_stage(receiver, ("ava", True)) as (ava,):
        ava.client.say(440)
        ssrc = (await row_of(raw, 111, 2880))[-1].ssrc
        raw.tell_loss(ssrc, 0.03)
        packets = await row_of(raw, 111, 960)
        async with asyncio.timeout(HANG_S):
            while packets[-1].payload[0] >> 3 >= 16:  # RFC 6716 §3.1: CELT alone has no FEC
                packets.append(await raw.packet())
        for _ in range(6):
            raw.tell_loss(ssrc, 0.0)
        await row_of(raw, 111, 2880)
        assert not (await stats(receiver)).copies


async def test_copies_from_a_speaker_fill_what_is_lost(receiver: Workers, raw: RawPeer) -> None:
    """Every third packet is lost, never two in a row: of the sound next to nothing is. The gate counts as ever."""
    await connected(receiver, raw, speak=False)
    before = b""
    async with on_stage(receiver, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(660)
        voice = raw.voice(440, 155)
        for payload in voice[:5]:
            raw.send(raw.protect(rtp.pack_red(111, payload), payload_type=63))

        async def gated() -> bool:
            return (await stats(receiver)).gated == 5

        await until(gated, "packets before the gate")
        await receiver.gate(PeerId("raw"), hear=True, speak=True)
        await row_of(raw, 111, 960)
        for number, payload in enumerate(voice[5:]):
            packet = raw.protect(rtp.pack_red(111, payload, before, 960), payload_type=63)
            if number % 3 != 1:
                raw.send(packet)
            before = payload
            await raw.packet()  # one comes for each that goes: the relay's clock paces us
        await ben.client.hear(lambda heard: loud(440)(heard) and loud(660)(heard), window_s=2)
    found = await stats(receiver)
    assert found.packets_in == 5 + 100
    assert found.restored > 40, "of 50, but for the first: the buffer had not learnt to wait for copies"
    assert found.lost < 10
    assert found.ignored == 0


async def test_broken_copies_cost_nothing_else(receiver: Workers, raw: RawPeer) -> None:
    await connected(receiver, raw, speak=True)
    good = rtp.pack_red(111, raw.voice(440, 1)[0])
    broken = [b"", b"\xef", b"\xef\x0f\x00\x02\x6f\x01", b"\x6f", b"\x00" + good[1:], b"\xef\x0f\x00\x00" * 9 + good]
    for payload in (*broken, good):
        raw.send(raw.protect(payload, payload_type=63))

    async def decoded() -> bool:
        return (await stats(receiver)).decoded == 1

    await until(decoded, "the good one")
    assert (await stats(receiver)).ignored == len(broken)


async def test_a_report_that_comes_again_is_refused(receiver: Workers, raw: RawPeer) -> None:
    """SRTCP's replay protection (RFC 3711 §3.3.2), and its authentication: loss and round trip stay what they were."""
    await connected(receiver, raw, speak=False)
    ssrc = (await raw.packet()).ssrc

    def told(loss: float) -> bytes:
        return raw.protect_report(raw.loss_report(ssrc, loss))

    old, new = told(0.5), told(0.25)
    forged = bytearray(told(0.75))
    forged[-1] ^= 1
    for datagram in (old, new, old, bytes(forged)):
        raw.send(datagram)

    async def refused() -> bool:
        return (await stats(receiver)).refused == 2

    await until(refused, "the refusals")
    assert (await stats(receiver)).remote_loss == 0.25


async def test_reports_are_few_and_tell_what_was_received(receiver: Workers, raw: RawPeer) -> None:
    """RFC 3550 §6, over a path of 100 ms there and back that loses a quarter. One report in four seconds; a source
    that said good-bye makes place for another at once."""
    answer = await receiver.join(STAGE, PeerId("raw"), "raw", raw.offer, hear=True, speak=True)
    raw.take(answer.sdp)
    clear = Weather(delay_ms=60)
    async with forwarding((raw.host, raw.port), up=clear, down=Weather(delay_ms=40)) as between:
        raw.host, raw.port = between.address
        await raw.check()
        await raw.handshake()
        ((up, _),) = between.paths
        info = rtcp.parse(await raw.report()).info
        began = asyncio.get_running_loop().time()
        assert info is not None
        raw.tell_loss(info.ssrc, 0.0, info.ntp_middle)

        async def trip() -> bool:
            return (await stats(receiver)).rtt_s is not None

        await until(trip, "the round trip")
        assert ((await stats(receiver)).rtt_s or 0) >= 0.1

        voice = raw.voice(440, 41)
        before = up.passed + up.lost
        up.weather = Weather(delay_ms=60, loss=0.25)
        for payload in voice[:-1]:
            raw.send(raw.protect(payload))

        async def taken() -> bool:
            return up.passed + up.lost == before + 40

        await until(taken, "the forwarder")
        up.weather = clear
        raw.send(raw.protect(voice[-1]))
        blocks: list[rtcp.ReportBlock] = []
        while not blocks:
            blocks = rtcp.parse(await raw.report()).blocks
        assert asyncio.get_running_loop().time() - began > 3.9
        assert up.lost > 3
        assert (blocks[0].ssrc, blocks[0].lost, blocks[0].loss) == (raw.ssrc, up.lost, int(up.lost / 41 * 256) / 256)
        await _another_source(receiver, raw, 41 - up.lost)


async def _another_source(receiver: Workers, raw: RawPeer, received: int) -> None:
    raw.send_report(rtcp.bye(raw.ssrc, "raw"))
    raw.ssrc ^= 1
    raw.send(raw.protect(raw.voice(440, 1)[0]))

    async def heard() -> bool:
        return (await stats(receiver)).packets_in == received + 1

    await until(heard, "the other source")
    assert (await stats(receiver)).ignored == 0
