"""Data channels: accepted for those who offer one, over the worker's port; what a client may not do ends them alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiortc import RTCDataChannel
from aiortc.rtcsctptransport import Chunk, DataChunk, RTCSctpTransport, SackChunk, serialize_packet

from bridge.ids import PeerId, StageId
from bridge.media.control import WorkerSettings
from bridge.media.data import DataChannels, _now, _Path, is_sound
from bridge.media.workers import Workers
from tests.helpers.browser import Browser
from tests.helpers.relay import HANG_S, Witness, enter, loud, until
from tests.helpers.rtc import RtcClient

STAGE = StageId("stage")


class Pair:
    """A client's SCTP and ours, without a network between."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str | bytes]] = []
        to_us: list[bytes] = []
        to_them: list[bytes] = []
        path: Any = _Path(to_us.append)
        path._role = "client"
        self.client = RTCSctpTransport(path, 5000)
        self.ours = DataChannels(5000, 65_536, to_them.append, lambda *message: self.taken.append(message))
        self.now = 0.0
        self._wires = ((to_us, self.to_us), (to_them, self._to_client))
        _now(self.client.start(None, 5000))

    def to_us(self, packet: bytes) -> None:
        self.now += 1  # whatever the test sends comes slowly enough
        self.ours.receive(packet, self.now)

    def _to_client(self, packet: bytes) -> None:
        _now(self.client._handle_data(packet))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not holds():
                await asyncio.sleep(0)  # aiortc sends from tasks
                for wire, deliver in self._wires:
                    while wire:
                        deliver(wire.pop(0))

    async def opened(self, label: str) -> RTCDataChannel:
        from aiortc.rtcdatachannel import RTCDataChannelParameters

        channel = RTCDataChannel(self.client, RTCDataChannelParameters(label=label))
        await self.until(lambda: channel.readyState == "open")
        return channel

    def data(self, tsn: int, stream: int = 1, flags: int = 3, text: bytes = b"x") -> None:
        """One DATA chunk, whatever the client's own state says."""
        chunk = DataChunk(flags=flags)
        chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = tsn, stream, 0, 51, text
        self.chunk(chunk)

    def chunk(self, chunk: Chunk) -> None:
        self.to_us(serialize_packet(5000, 5000, self.client._remote_verification_tag, chunk))

    async def close(self) -> None:
        self.ours.close()
        self.ours.close()
        await self.client.stop()
        await asyncio.sleep(0)


@pytest.fixture
async def pair() -> Any:
    made = Pair()
    yield made
    await made.close()


async def test_messages_of_channels_that_the_client_opens(pair: Pair) -> None:
    reliable, lossy = await pair.opened("_reliable"), await pair.opened("_lossy")
    reliable.send("a word")
    lossy.send(bytes(60_000))
    await pair.until(lambda: len(pair.taken) == 2)
    assert sorted(pair.taken, key=lambda each: each[0]) == [("_lossy", bytes(60_000)), ("_reliable", "a word")]
    await pair.client.stop()
    await pair.until(lambda: not pair.ours.is_open)


async def test_junk_is_dropped_and_unknown_streams_say_nothing(pair: Pair) -> None:
    channel = await pair.opened("x")
    for junk in (b"", b"\x00", bytes(12), bytes(1200)):
        pair.to_us(junk)
    pair.data(pair.client._local_tsn, stream=9, text=b"nobody opened this")
    assert pair.ours.is_open
    assert pair.taken == []
    assert channel.readyState == "open"


@pytest.mark.parametrize("how", ["streams", "ahead", "unfinished"])
async def test_what_is_kept_is_bounded(pair: Pair, how: str) -> None:
    await pair.opened("x")
    first, count = pair.client._local_tsn, 0
    while pair.ours.is_open:
        count += 1
        match how:
            case "streams":
                pair.data(first + count, stream=count)
            case "ahead":
                pair.data(first + 2 * count)
            case _:
                pair.data(first + count, flags=2 if count == 1 else 0, text=b"x")
        assert count <= 600
    assert count > 60
    pair.data(first)  # harmless after the end


async def test_what_would_stop_the_worker_is_dropped(pair: Pair) -> None:
    """A parameter of no length, and gaps that are counted through for seconds."""
    channel = await pair.opened("x")
    sack = SackChunk()
    sack.cumulative_tsn, sack.gaps = pair.client._last_received_tsn or 0, [(1, 65_535)] * 200
    for packet in (_without_length(pair), serialize_packet(5000, 5000, pair.client._remote_verification_tag, sack)):
        assert not is_sound(packet)
        pair.to_us(packet)
    assert pair.ours.is_open
    channel.send("and goes on")
    await pair.until(lambda: pair.taken == [("x", "and goes on")])


def _without_length(pair: Pair) -> bytes:
    chunk = Chunk(body=b"\x00\x01\x00\x00")
    chunk.type = 4
    return serialize_packet(5000, 5000, pair.client._remote_verification_tag, chunk)


async def test_a_flood_costs_little(pair: Pair) -> None:
    """Two seconds' worth of packets are taken at once, then so many a second; nothing ends by it."""
    channel = await pair.opened("x")
    assert channel.id is not None
    for number in range(1000):
        chunk = DataChunk(flags=3)
        chunk.tsn, chunk.stream_id, chunk.stream_seq = pair.client._local_tsn + number, channel.id, number + 1
        chunk.protocol = 51
        chunk.user_data = b"x"
        packet = serialize_packet(5000, 5000, pair.client._remote_verification_tag, chunk)
        pair.ours.receive(packet, pair.now)
    assert 390 <= len(pair.taken) <= 400
    assert pair.ours.is_open


async def test_aiortc_opens_one_and_sound_goes_on() -> None:
    workers = Workers(WorkerSettings(), Witness())
    await workers.start()
    client = RtcClient()
    try:
        channel = client.pc.createDataChannel("_reliable")
        opened = asyncio.Event()
        channel.add_listener("open", opened.set)

        async def ask(offer: str) -> str:
            return (await workers.join(STAGE, PeerId("data"), "ben", offer, hear=True, speak=False)).sdp

        await client.connect(ask)
        async with asyncio.timeout(HANG_S):
            await opened.wait()
        channel.send("hello")
        channel.send(bytes(50_000))

        async def came() -> bool:
            return (await workers.stats()).peers[PeerId("data")].messages == 2

        await until(came, "both messages")
        ava = await enter(workers, STAGE, "ava", speak=True)
        try:
            assert "m=application" not in ava.answer.sdp
            ava.client.say(440)
            await client.hear(loud(440))
            channel.send("still here")
            await until(lambda: _counted(workers, 3), "the third message")
        finally:
            await ava.client.close()
    finally:
        await client.close()
        await workers.close()


async def _counted(workers: Workers, count: int) -> bool:
    return (await workers.stats()).peers[PeerId("data")].messages == count


async def test_chromium_opens_one() -> None:
    workers = Workers(WorkerSettings(), Witness())
    await workers.start()
    try:
        async with Browser.launch("chromium") as browser:
            page = await browser.open("about:blank")
            offer = await page.eval("""(async () => {
                window.pc = new RTCPeerConnection();
                pc.addTransceiver("audio", { direction: "recvonly" });
                window.channels = [pc.createDataChannel("_reliable"),
                                   pc.createDataChannel("_lossy", { ordered: false, maxRetransmits: 0 })];
                await pc.setLocalDescription();
                return pc.localDescription.sdp;
            })()""")
            answer = await workers.join(STAGE, PeerId("data"), "ben", offer, hear=True, speak=False)
            sdp = json.dumps(answer.sdp)
            await page.eval(f"pc.setRemoteDescription({{ type: 'answer', sdp: {sdp} }})")
            await page.wait("channels.every((each) => each.readyState === 'open')", HANG_S)
            await page.eval("channels.forEach((each) => { each.send('hello'); each.send(new Uint8Array(1000)); })")
            await until(lambda: _counted(workers, 4), "all four messages")
            assert await page.eval("pc.sctp.maxMessageSize") == 65_536
    finally:
        await workers.close()
