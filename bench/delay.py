"""Mouth to ear: what the relay adds between a talker's clock and a decoder without any buffer.

A talker sends bursts of a tone in real time. When a burst begins in the *talker's* packets, as a decoder of ours hears
them at the moment they are sent, is one time; when it begins for a listener who decodes and plays each packet the
moment it comes is the other. The difference holds the relay's jitter buffer, its tick, its encode, and the wait for a
packet's other frames; no network, no jitter buffer of a browser (its own statistics tell that one)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bench.client import Client
from bench.servers import Eyvan
from bridge.media import opus, rtp
from bridge.media.dtls import Identity

_HZ = 1000
_PERIOD_S = 0.587  # no multiple of 20 or 60 ms: bursts begin anywhere in a tick and in a packet
_BURST_S = 0.2
_LOUD = 0.05
_NICE = -15
_DEAF_S = 0.3  # after an onset; longer than a burst


class Onsets:
    """When bursts begin, of packets decoded and played at once. ``times``: seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._decoder = opus.Decoder()
        self._until = 0.0
        self.times: list[float] = []

    def hear(self, payload: bytes, now: float) -> None:
        samples = self._decoder.decode(payload)
        loud = np.flatnonzero(np.abs(samples) > _LOUD)
        if not len(loud):
            return
        at = now + float(loud[0]) / opus.RATE
        if at >= self._until:
            self.times.append(at)
        self._until = now + len(samples) / opus.RATE + _DEAF_S


@contextlib.contextmanager
def urgent() -> Iterator[None]:
    """The talker and the decoder stand for other machines: packets that leave late here would be jitter there, and the
    relay would wait for it. Where we may not, it is measured as it is."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def bursts_as_packets(seconds: float) -> list[bytes]:
    times = np.arange(int(seconds / 0.02) * opus.FRAME) / opus.RATE
    sound = np.where(times % _PERIOD_S > _PERIOD_S - _BURST_S, 0.4 * np.sin(2 * np.pi * _HZ * times), 0)
    encoder = opus.Encoder()
    frames = sound.astype(np.float32).reshape(-1, opus.FRAME)
    return [encoder.encode(np.ascontiguousarray(frame)) for frame in frames]


async def run(server: Eyvan, host: str, bursts: int) -> Mapping[str, Any]:
    """Milliseconds added for one who may speak (20 ms packets) and for one who listens (60 ms)."""
    identity = Identity()
    mouth, speaker, listener = (Client(identity, host, talks=talks) for talks in (True, True, False))
    people = (mouth, speaker, listener)
    try:
        for client, talks in ((mouth, True), (speaker, True), (listener, False)):
            client.take(await server.answer(client.offer, talks=talks))
            await client.connect()
        sent, at_speaker, at_listener = Onsets(), Onsets(), Onsets()
        ears = [asyncio.create_task(_listen(*each)) for each in ((speaker, at_speaker), (listener, at_listener))]
        ears.append(asyncio.create_task(_listen(mouth, None)))
        with urgent():
            await _talk(mouth, (speaker, listener), bursts_as_packets(bursts * _PERIOD_S + 1), sent)
        for ear in ears:
            ear.cancel()
        await asyncio.gather(*ears, return_exceptions=True)
    finally:
        for client in people:
            client.close()
    figures: dict[str, Any] = {"bursts": len(sent.times)}
    for name, heard in (("speaker", at_speaker), ("listener", at_listener)):
        added = sorted(1000 * each for each in _added(sent.times, heard.times))
        if added:
            figures[f"{name}_p50_ms"] = statistics.median(added)
            figures[f"{name}_max_ms"] = added[-1]
            figures[f"{name}_bursts"] = len(added)
    return figures


def _added(sent: list[float], heard: list[float]) -> list[float]:
    """Each burst against the first onset that comes after it; the first second is left out: buffers settle."""
    found = []
    for at in sent[2:]:
        following = [each for each in heard if 0 <= each - at < _PERIOD_S / 2]
        if following:
            found.append(following[0] - at)
    return found


async def _talk(mouth: Client, others: tuple[Client, ...], packets: list[bytes], sent: Onsets) -> None:
    """As a microphone does: a packet leaves when its last sample was taken."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number, payload in enumerate(packets):
        await asyncio.sleep(max(0.0, start + number * 0.02 - loop.time()))
        if number % 100 == 0:
            for each in (mouth, *others):
                each.socket.send(each.check())
        head = rtp.pack_header(False, 111, number & 0xFFFF, number * opus.FRAME, mouth.ssrc, 0, False)
        sent.hear(payload, time.monotonic())
        with contextlib.suppress(BlockingIOError):
            mouth.socket.send(mouth.outgoing.protect(head + payload))


async def _listen(client: Client, onsets: Onsets | None) -> None:
    """Until cancelled. None: only answers checks."""
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(client.socket, 2048)
        now = time.monotonic()
        if data[0] < 4:
            client._on_stun(data)
        elif onsets is not None and 128 <= data[0] <= 191 and not rtp.is_rtcp(data):
            packet = rtp.parse(client.incoming.unprotect(data))
            if packet is not None and packet.payload:
                onsets.hear(packet.payload, now)
