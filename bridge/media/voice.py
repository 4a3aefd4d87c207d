"""What one peer says, from its packets to a frame at each tick."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bridge.media import opus
from bridge.media.jitter import JitterBuffer, Kind
from bridge.media.loudness import Evener
from bridge.media.opus import FRAME, Samples

FADE = 480
"""Samples of each channel: 10 ms."""
SILENCE = 127
"""−dBov."""
_UP: Samples = np.linspace(0, 1, FADE, dtype=np.float32)
RAMP_UP: dict[int, Samples] = {channels: np.repeat(_UP, channels) for channels in (1, 2)}
"""From 0 to 1 in 10 ms, for each number of interleaved channels."""
RAMP_DOWN: dict[int, Samples] = {channels: np.repeat(np.ascontiguousarray(_UP[::-1]), channels) for channels in (1, 2)}
_GUESS_GAINS = (1.0, 1.0, 0.6, 0.3, 0.1, 0.0)
"""At the edges of one concealed chunk after another: libopus itself fades a guessed tone to noise, never to nothing."""
_QUIET_RMS = 0.003  # −50 dBFS: such a frame may be dropped to win back delay
_FORCED_SURPLUS = 4 * FRAME  # so far behind, a loud frame is dropped too
_TALK_ON, _TALK_OFF = 50, 60  # −dBov
_TALK_HANGOVER = 15  # ticks: 300 ms


class Voice:
    """What one peer says: RTP payloads in, one frame per tick out. Owned by its peer, called in the worker's loop.

    The gate is shut at first. ``shut`` drops all that is buffered; what was being heard ends in a 10 ms fade.
    Frames have 960 samples for each of ``channels``, interleaved."""

    __slots__ = (
        "_channels",
        "_decoder",
        "_fading_in",
        "_guesses",
        "_queue",
        "_tail",
        "csrc",
        "decoded",
        "errors",
        "evener",
        "jitter",
        "level",
        "open",
        "owner",
        "quiet_ticks",
        "talking",
    )

    def __init__(self, owner: str, csrc: int) -> None:
        self.owner, self.csrc = owner, csrc
        self.open = False
        self.jitter = JitterBuffer()
        self.evener = Evener()  # used by the mixer; kept while the gate is shut: it is the same person after that
        self.level = SILENCE
        self.talking = False
        self.quiet_ticks = 0
        self.decoded = self.errors = 0
        self._channels = 1
        self._decoder: opus.Decoder | None = None  # made when first needed: most peers only listen
        self._queue: Samples = np.zeros(0, np.float32)  # decoded, not played; below one frame plus one packet
        self._tail: Samples | None = None
        self._fading_in = False
        self._guesses = 0  # concealed chunks since the last one that was decoded

    @property
    def fading(self) -> bool:
        """The gate was shut and the fade-out is still to be played."""
        return self._tail is not None

    @property
    def channels(self) -> int:
        return self._channels

    @channels.setter
    def channels(self, channels: int) -> None:
        """1 or 2, from the next frame on, which fades in: another decoder begins in the middle of the stream."""
        if channels == self._channels:
            return
        self._queue = _with_channels(self._queue, channels)
        if self._tail is not None:
            self._tail = _with_channels(self._tail, channels)
        self._channels, self._decoder = channels, None
        self._fading_in = True

    def put(self, sequence: int, timestamp: int, payload: bytes, now: float) -> None:
        """One authenticated packet, gate open."""
        self.jitter.put(sequence, timestamp, payload, opus.samples_in(payload), now)

    def restore(self, sequence: int, timestamp: int, payload: bytes) -> None:
        """The copy of an earlier packet, which one that was ``put`` has brought."""
        self.jitter.restore(sequence, timestamp, payload, opus.samples_in(payload))

    def change_source(self) -> None:
        """What comes from now on has sequence numbers and timestamps of its own."""
        self.jitter.clear()

    def counts(self) -> dict[str, Any]:
        """As PeerStats has them."""
        jitter = self.jitter
        return {
            "decoded": self.decoded,
            "lost": jitter.lost,
            "recovered": jitter.recovered,
            "restored": jitter.restored,
            "late": jitter.late,
            "jitter_target_ms": round(jitter.target_ms, 1),
        }

    def open_gate(self) -> None:
        if not self.open:
            self.open = True
            self._fading_in = True
            self._restart()

    def shut(self, now: float) -> None:
        """From here on nothing new is heard: the frame that was due next becomes the fade-out."""
        if not self.open:
            return
        frame = self.frame(now)
        if frame is not None:
            tail = np.zeros(len(frame), np.float32)
            reach = FADE * self._channels
            tail[:reach] = frame[:reach] * RAMP_DOWN[self._channels]
            self._tail = tail
        self.open = False
        self._restart()

    def _restart(self) -> None:
        self.jitter.clear()
        self._queue = np.zeros(0, np.float32)
        self.level = SILENCE
        if self._decoder is not None:
            self._decoder.reset()

    def frame(self, now: float) -> Samples | None:
        """The 20 ms of this tick, or None: silence."""
        if not self.open:
            tail, self._tail = self._tail, None
            return tail
        frame = self._next_frame(now)
        surplus = self.jitter.surplus(now, self._queued) if frame is not None else 0
        if frame is not None and surplus > FRAME and (surplus > _FORCED_SURPLUS or rms(frame) < _QUIET_RMS):
            following = self._next_frame(now)
            if following is not None:
                frame = _joined(frame, following, self._channels)
        if frame is None:
            self.level = SILENCE
            return None
        if self._fading_in:
            self._fading_in = False
            frame[: FADE * self._channels] *= RAMP_UP[self._channels]
        self.level = dbov(rms(frame))  # of what is decoded: the level in the packet (RFC 6464) is the sender's claim
        return frame

    @property
    def _queued(self) -> int:
        """Samples of each channel."""
        return len(self._queue) // self._channels

    def _next_frame(self, now: float) -> Samples | None:
        size = FRAME * self._channels
        while len(self._queue) < size:
            decoded = self._decode_next(now)
            if decoded is None:
                if not len(self._queue):
                    return None
                decoded = np.zeros(size - len(self._queue), np.float32)
            self._queue = np.concatenate((self._queue, decoded))
        frame = self._queue[:size].copy()
        self._queue = self._queue[size:]
        return frame

    def _decode_next(self, now: float) -> Samples | None:
        chunk = self.jitter.take(now, self._queued)
        if chunk.kind is Kind.NOTHING:
            return None
        if self._decoder is None:
            self._decoder = opus.Decoder(self._channels)
        try:
            if chunk.kind is Kind.CONCEAL:
                return self._guess(self._decoder, chunk.samples)
            if chunk.kind is Kind.PLAY:
                self.decoded += 1
                samples = self._decoder.decode(chunk.payload)
            else:
                samples = self._decoder.recover(chunk.payload, chunk.samples)
        except opus.OpusError:
            self.errors += 1  # a corrupt packet costs its own time only
            return np.zeros(chunk.samples * self._channels, np.float32)
        if self._guesses:
            gain = _GUESS_GAINS[min(self._guesses, len(_GUESS_GAINS) - 1)]
            reach = min(FADE // 2, len(samples) // self._channels)
            samples[: reach * self._channels] *= self._slope(gain, 1, reach)
            self._guesses = 0
        return samples

    def _guess(self, decoder: opus.Decoder, count: int) -> Samples:
        last = len(_GUESS_GAINS) - 1
        start, end = _GUESS_GAINS[min(self._guesses, last)], _GUESS_GAINS[min(self._guesses + 1, last)]
        self._guesses += 1
        return decoder.conceal(count) * self._slope(start, end, count)

    def _slope(self, start: float, end: float, count: int) -> Samples:
        return np.repeat(np.linspace(start, end, count, dtype=np.float32), self._channels)

    def track_talk(self) -> None:
        """Once a tick, after ``frame``. Hysteresis: talking above −50 dBov, and until 300 ms below −60 dBov."""
        if not self.open:
            self.talking = False
            return
        if self.level <= _TALK_ON or (self.talking and self.level <= _TALK_OFF):
            self.talking = True
            self.quiet_ticks = 0
            return
        self.quiet_ticks += 1
        if self.quiet_ticks > _TALK_HANGOVER:
            self.talking = False


def rms(frame: Samples) -> float:
    return math.sqrt(float(np.dot(frame, frame)) / len(frame))


def dbov(value: float) -> int:
    """−dBov of an RMS value as RFC 6464 §3 has it: 0 is the loudest, 127 is silence."""
    return min(SILENCE, max(0, round(-20 * math.log10(value)))) if value > 4e-7 else SILENCE


def _joined(dropped: Samples, kept: Samples, channels: int) -> Samples:
    """``kept`` with a 10 ms cross-fade from ``dropped``: the seam where a frame was left out."""
    reach = FADE * channels
    kept[:reach] = dropped[:reach] * RAMP_DOWN[channels] + kept[:reach] * RAMP_UP[channels]
    return kept


def _with_channels(samples: Samples, channels: int) -> Samples:
    """One channel as two, or two as one."""
    if channels == 2:
        return np.repeat(samples, 2)
    return np.ascontiguousarray(samples.reshape(-1, 2).mean(axis=1, dtype=np.float32))
