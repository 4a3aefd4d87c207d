"""What a demo's person says and hears: 16-bit mono PCM at 48 kHz on both sides of aiortc."""

from __future__ import annotations

import asyncio
import fractions
import time
from typing import cast

import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame
from av.frame import Frame

RATE = 48_000
FRAME = 960  # samples of 20 ms, the one frame size of the relay
_GAP = RATE // 5  # a pause of more than 200 ms in what arrives is silence, less is jitter
_KEEP = 30 * RATE
Pcm = npt.NDArray[np.int16]


class Voice(MediaStreamTrack):
    """An audio track that is never renegotiated: silence until ``say`` gives it something.

    ``recv`` is called by aiortc's sender alone, ``say`` and ``hush`` by the owner, all in one loop.
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pcm: Pcm = np.zeros(0, np.int16)
        self._at = 0
        self._again = False
        self._pts = 0
        self._started: float | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    def say(self, pcm: Pcm, *, loop: bool = False) -> None:
        """Replace what is being said. Sound that is not int16 mono is refused by ValueError."""
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise ValueError(f"pcm: {pcm.dtype} with {pcm.ndim} axes; give int16 mono at 48 kHz")
        self._pcm, self._at, self._again = pcm, 0, loop
        if len(pcm):
            self._quiet.clear()
        else:
            self._quiet.set()

    def hush(self) -> None:
        self.say(np.zeros(0, np.int16))

    async def said(self) -> None:
        """Until what was given to ``say`` has been handed to the encoder; at once when silent."""
        await self._quiet.wait()

    async def recv(self) -> Frame:
        """The next 20 ms, in real time."""
        now = time.monotonic()
        if self._started is None or now - self._started - self._pts / RATE > 1.0:
            # After a stall of the whole process one does not talk faster to catch up.
            self._started = now - self._pts / RATE
        await asyncio.sleep(max(0.0, self._started + self._pts / RATE - now))
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(self._next().tobytes())
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._pts, fractions.Fraction(1, RATE)
        self._pts += FRAME
        return cast(Frame, frame)

    def _next(self) -> Pcm:
        out = np.zeros(FRAME, np.int16)
        filled = 0
        while filled < FRAME and len(self._pcm):
            part = self._pcm[self._at : self._at + FRAME - filled]
            out[filled : filled + len(part)] = part
            filled, self._at = filled + len(part), self._at + len(part)
            if self._at >= len(self._pcm):
                if not self._again:
                    self.hush()
                self._at = 0
        return out


class Ear:
    """The last half minute of what was heard, on a line of real time: where nothing came, it is silent.

    So ``recent`` never shows old sound as new. A ring: what is older is overwritten.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ring = np.zeros(_KEEP, np.int16)
        self._end = 0  # samples since the beginning
        self.frames = 0

    def hear(self, frame: AudioFrame) -> None:
        """Take one decoded frame (s16 packed, any layout, 48 kHz)."""
        sound = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
        self.frames += 1
        self._pad()
        self._add(sound.astype(np.int32).mean(axis=1).astype(np.int16))

    def recent(self, seconds: float) -> Pcm:
        """The last ``seconds`` (at most 30), int16 mono; zeros where nothing was received."""
        self._pad()
        want = min(int(seconds * RATE), _KEEP)
        return self._ring[np.arange(self._end - want, self._end) % _KEEP]

    def _pad(self) -> None:
        missing = int((time.monotonic() - self._began) * RATE) - self._end
        if missing > _GAP:
            self._end += max(0, missing - _KEEP)
            self._add(np.zeros(min(missing, _KEEP), np.int16))

    def _add(self, sound: Pcm) -> None:
        self._ring[np.arange(self._end, self._end + len(sound)) % _KEEP] = sound
        self._end += len(sound)
