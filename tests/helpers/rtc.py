"""A WebRTC client with a mouth and an ear: aiortc, a tone that can be switched, a recorder of what was decoded."""

from __future__ import annotations

import asyncio
import fractions
from collections import deque
from collections.abc import Awaitable, Callable

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from tests.helpers.tone import Samples, sine

RATE = 48_000
_FRAME = 960
_KEPT = 30 * 50  # frames: 30 s
_BEHIND = int(0.6 * RATE)
"""aiortc holds four packets of up to 60 ms back; what is that old has been decoded, or never came."""


class Mouth(MediaStreamTrack):
    """One endless track (aiortc: an ended track kills its sender) that says a tone or silence."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._tone = np.zeros(2 * RATE, np.int16)  # two channels, interleaved
        self._position = 0
        self._start: float | None = None

    def say(self, hz: float | None, dbfs: float, right: float | None = None) -> None:
        """Whole ``hz`` only: one second is repeated."""
        sides = [np.zeros(RATE, np.int16) if each is None else sine(each, 1, dbfs=dbfs) for each in (hz, right or hz)]
        self._tone = np.stack(sides, axis=1).ravel()

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        if self._start is None:
            self._start = loop.time()
        due = self._start + self._position / RATE
        await asyncio.sleep(max(0.0, due - loop.time()))
        at = self._position % RATE * 2
        pair = self._tone[np.newaxis, at : at + 2 * _FRAME]  # aiortc takes one layout only, from the first frame on
        frame = av.AudioFrame.from_ndarray(pair, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, fractions.Fraction(1, RATE)
        self._position += _FRAME
        return frame


class _Ear:
    """Decoded frames on the sender's own time line, so that silence nobody sent is silence here."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, Samples]] = deque(maxlen=_KEPT)  # timestamp, (samples, channels)
        self._lead: int | None = None  # our clock minus the sender's, for the fastest frame
        self.fresh = asyncio.Event()
        self.frames = 0

    async def listen(self, track: MediaStreamTrack) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.AudioFrame)
            assert frame.pts is not None
            values = (
                frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                if frame.format.is_packed
                else (frame.to_ndarray().T)
            )
            lead = int(loop.time() * RATE) - frame.pts
            self._lead = lead if self._lead is None else min(lead, self._lead)
            self._frames.append((frame.pts, np.ascontiguousarray(values).astype(np.int16)))
            self.frames += 1
            self.fresh.set()

    def recent(self, seconds: float, side: int = 0) -> Samples:
        heard = np.zeros(round(seconds * RATE), np.int16)
        if not self._frames or self._lead is None:
            return heard
        last_start, last = self._frames[-1]
        now = int(asyncio.get_running_loop().time() * RATE) - self._lead
        end = max(last_start + len(last), now - _BEHIND)
        begin = end - len(heard)
        for start, samples in self._frames:
            first, stop = max(start, begin), min(start + len(samples), end)
            if first < stop:
                heard[first - begin : stop - begin] = samples[first - start : stop - start, side]
        return heard


class RtcClient:
    """One peer connection, sendrecv or ``listen_only``. Owns aiortc's tasks and one of its own; ``close`` ends them."""

    def __init__(self, *, listen_only: bool = False) -> None:
        self._listen_only = listen_only
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # the default asks a public STUN server
        self.offer = self.answer = ""
        self._mouth = Mouth()
        self._ear = _Ear()
        self._listening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.pc.add_listener("connectionstatechange", self._changed.set)
        self.pc.add_listener("track", self._on_track)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._listening = asyncio.create_task(self._ear.listen(track))

    async def connect(self, answer_offer: Callable[[str], Awaitable[str]], within_s: float = 60) -> None:
        """Offer, hand the offer to ``answer_offer``, take its answer, wait for ICE and DTLS."""
        if self._listen_only:
            self.pc.addTransceiver("audio", direction="recvonly")
        else:
            self.pc.addTrack(self._mouth)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self.offer = self.pc.localDescription.sdp
        self.answer = await answer_offer(self.offer)
        await self.pc.setRemoteDescription(RTCSessionDescription(self.answer, "answer"))
        await self.connected(within_s)

    async def accept(self, offer: str) -> str:
        """The answer to an offer of the other side; then wait for ``connected``."""
        await self.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        self.pc.addTrack(self._mouth)
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return str(self.pc.localDescription.sdp)

    async def connected(self, within_s: float = 60) -> None:
        """ICE and DTLS are up. Raises ConnectionError where they fail."""
        async with asyncio.timeout(within_s):
            while self.pc.connectionState != "connected":
                if self.pc.connectionState in ("failed", "closed"):
                    raise ConnectionError(f"the peer connection is {self.pc.connectionState}")
                self._changed.clear()
                await self._changed.wait()

    def say(self, hz: float | None, dbfs: float = -12, *, right: float | None = None) -> None:
        """A tone of whole ``hz`` from now on, or silence; with ``right`` another one in the other channel."""
        self._mouth.say(hz, dbfs, right)

    def recent(self, seconds: float, side: int = 0) -> Samples:
        """What was heard in the last seconds by the left ear (0) or the right one (1): int16 at 48 kHz, silence where
        nothing came."""
        return self._ear.recent(seconds, side)

    @property
    def frames_heard(self) -> int:
        return self._ear.frames

    async def hear(self, predicate: Callable[[Samples], bool], within_s: float = 30, window_s: float = 0.5) -> Samples:
        """Wait until ``predicate`` holds for the last ``window_s`` heard, and return these samples.
        Raises AssertionError that tells what was heard instead."""
        from tests.helpers.tone import level_at, rms_dbfs

        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while not predicate(heard := self.recent(window_s)):
            if loop.time() > end:
                tones = {hz: round(level_at(heard, hz), 1) for hz in (440, 550, 660, 880)}
                raise AssertionError(f"not heard within {within_s} s; now {rms_dbfs(heard):.1f} dBFS, {tones}")
            self._ear.fresh.clear()
            try:
                await asyncio.wait_for(self._ear.fresh.wait(), 0.05)
            except TimeoutError:
                continue  # silence is an answer too
        return heard

    async def close(self) -> None:
        """Harmless twice."""
        self._mouth.stop()
        await self.pc.close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
