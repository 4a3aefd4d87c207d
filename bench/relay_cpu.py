"""CPU microseconds per listener-second of the media worker, against aiortc's documented MediaRelay in the same run.

``python -m bench.relay_cpu [--listeners 50] [--baseline-listeners 10] [--seconds 10]``

Both serve real WebRTC listeners (aiortc clients in other processes: ICE, DTLS, SRTP, decoding off) one talker's
music-like sound, mono, 48 kbit/s, 20 ms packets. CPU is read from /proc for the serving process alone, over the
steady state. The baseline runs at fewer listeners, as it falls behind at 30 (performance.md); µs per listener-second
do not depend on it. A baseline that lost packets is told as such. Ratios, not microseconds, compare between machines.
"""

from __future__ import annotations

import argparse
import asyncio
import fractions
import json
import os
import sys
import time
from pathlib import Path

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription, codecs
from aiortc.codecs import opus
from aiortc.contrib.media import MediaRelay
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from bridge.ids import PeerId, StageId
from bridge.media.control import WorkerSettings
from bridge.media.opus import FRAME, RATE
from bridge.media.workers import Workers

_A_CLIENT_PROCESS = 25
_HZ = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _HZ


class Music(MediaStreamTrack):
    """A second of chords and noise, over and over, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        times = np.arange(RATE) / RATE
        chord = sum(np.sin(2 * np.pi * hz * times) for hz in (220, 277, 330, 440))
        noise = np.random.default_rng(1).standard_normal(RATE)
        self._sound = (3000 * chord + 600 * noise).astype(np.int16)
        self._position, self._start = 0, 0.0

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        self._start = self._start or loop.time()
        await asyncio.sleep(max(0.0, self._start + self._position / RATE - loop.time()))
        at = self._position % RATE
        frame = av.AudioFrame.from_ndarray(self._sound[np.newaxis, at : at + FRAME], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, fractions.Fraction(1, RATE)
        self._position += FRAME
        return frame


async def lines() -> asyncio.StreamReader:
    """Standard input as a stream."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def listen(count: int, talk: bool) -> None:
    """A client process: ``count`` peer connections, offers out and answers in as JSON lines; then counts on request."""
    received = [0] * count
    reader = await lines()
    peers = [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(count)]
    for number, pc in enumerate(peers):
        if talk:
            pc.addTrack(Music())
        else:
            receiver = pc.addTransceiver("audio", direction="recvonly").receiver
            _count_only(receiver, received, number)
        await pc.setLocalDescription(await pc.createOffer())
        print(json.dumps(pc.localDescription.sdp), flush=True)
        answer = json.loads(await reader.readline())
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    while any(pc.connectionState != "connected" for pc in peers):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    print(json.dumps("connected"), flush=True)
    while await reader.readline():
        print(json.dumps(received), flush=True)
    for pc in peers:
        await pc.close()


def _count_only(receiver: RTCRtpReceiver, received: list[int], number: int) -> None:
    """Count packets instead of decoding them: the clients must not be what is slow."""

    async def count(packet: object, arrival_time_ms: int) -> None:
        received[number] += 1

    receiver._handle_rtp_packet = count  # type: ignore[method-assign]


class Mono(opus.OpusEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.codec.bit_rate = 48_000
        self.codec.layout = "mono"
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE, frame_size=FRAME)


async def serve_baseline() -> None:
    """aiortc as its documentation relays: MediaRelay().subscribe(track) and a peer connection for each listener;
    its encoders set to what ours does, mono and 48 kbit/s (their default is twice both)."""
    opus.OpusEncoder = Mono  # type: ignore[misc]
    codecs.OpusEncoder = Mono  # type: ignore[attr-defined]
    relay, source = MediaRelay(), Music()
    peers = []
    reader = await lines()
    while offer := await reader.readline():
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peers.append(pc)
        pc.addTrack(relay.subscribe(source))
        await pc.setRemoteDescription(RTCSessionDescription(json.loads(offer), "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        print(json.dumps(pc.localDescription.sdp), flush=True)
    for pc in peers:
        await pc.close()


class Child:
    """A process of this file in another role, spoken to in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *role: str) -> Child:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "bench.relay_cpu", *role)
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20))

    async def read(self) -> object:
        assert self.process.stdout is not None
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), 120))

    def write(self, value: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")

    async def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 20)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Nobody:
    def peer_connected(self, peer: PeerId) -> None: ...

    def peer_gone(self, peer: PeerId, reason: str) -> None: ...

    def levels(self, stage: StageId, levels: object) -> None: ...


async def connect(children: list[tuple[Child, int]], answer: object) -> None:
    number = 0
    for child, count in children:
        for _ in range(count):
            child.write(await answer(str(await child.read()), number))  # type: ignore[operator]
            number += 1
        await child.read()


async def measure(pid: int, children: list[tuple[Child, int]], listeners: int, seconds: float) -> dict[str, float]:
    """µs of CPU for one listener for one second, and the share of packets that did not come."""
    await asyncio.sleep(2)

    async def received() -> int:
        for child, _ in children:
            child.write("count")
        counts = [await child.read() for child, _ in children]
        return sum(sum(each) for each in counts if isinstance(each, list))

    before, cpu, began = await received(), cpu_s(pid), time.monotonic()
    await asyncio.sleep(seconds)
    got, used, took = await received() - before, cpu_s(pid) - cpu, time.monotonic() - began
    return {
        "us_per_listener_second": used / took / listeners * 1e6,
        "cpu_share": used / took,
        "missing": max(0.0, 1 - got / (took * 50 * listeners)),
    }


def groups(listeners: int) -> list[int]:
    return [min(_A_CLIENT_PROCESS, listeners - at) for at in range(0, listeners, _A_CLIENT_PROCESS)]


async def bench_ours(listeners: int, seconds: float) -> dict[str, float]:
    workers = Workers(WorkerSettings(), Nobody())
    await workers.start()
    talker = await Child.start("--listen", "1", "--talk")
    children = [(await Child.start("--listen", str(count)), count) for count in groups(listeners)]

    async def join(prefix: str, offer: str, number: int, speak: bool) -> str:
        name = f"{prefix}{number}"
        joined = await workers.join(StageId("bench"), PeerId(name), name, offer, hear=True, speak=speak)
        return joined.sdp

    try:
        await connect([(talker, 1)], lambda offer, number: join("talker", offer, number, True))
        await connect(children, lambda offer, number: join("ear", offer, number, False))
        pid = (await workers.stats()).worker.pid
        result = await measure(pid, children, listeners, seconds)
        stats = await workers.stats()
        peer = stats.peers[PeerId("ear0")]
        return result | {"late_p99_ms": stats.worker.late_p99_ms, "srtp_is_gcm": float("GCM" in peer.srtp_profile)}
    finally:
        for child, _ in [*children, (talker, 1)]:
            await child.close()
        await workers.close()


async def bench_baseline(listeners: int, seconds: float) -> dict[str, float]:
    server = await Child.start("--baseline-server")
    children = [(await Child.start("--listen", str(count)), count) for count in groups(listeners)]

    async def answer(offer: str, number: int) -> object:
        server.write(offer)
        return await server.read()

    try:
        await connect(children, answer)
        return await measure(server.process.pid, children, listeners, seconds)
    finally:
        for child, _ in [*children, (server, 1)]:
            await child.close()


async def compare(listeners: int, baseline: int, seconds: float) -> None:
    ours = await bench_ours(listeners, seconds)
    theirs = await bench_baseline(baseline, seconds)
    print(f"one talker, mono, 48 kbit/s, 20 ms packets, {os.cpu_count()} cores, {seconds:g} s each")
    rows = (("eyvan worker", listeners, ours), ("aiortc MediaRelay", baseline, theirs))
    for name, count, row in rows:
        facts = ", ".join(f"{key} {value:.3g}" for key, value in row.items() if key != "us_per_listener_second")
        print(f"{name:18} {count:5} listeners {row['us_per_listener_second']:9.0f} µs/l·s  ({facts})")
    print(f"ratio {theirs['us_per_listener_second'] / ours['us_per_listener_second']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=50)
    parser.add_argument("--baseline-listeners", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--listen", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--talk", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--baseline-server", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.listen is not None:
        asyncio.run(listen(given.listen, given.talk))
    elif given.baseline_server:
        asyncio.run(serve_baseline())
    else:
        asyncio.run(compare(given.listeners, given.baseline_listeners, given.seconds))


if __name__ == "__main__":
    main()
