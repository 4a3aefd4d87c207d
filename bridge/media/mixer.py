"""The sound of one stage: voices in, one mix and its variants out, 20 ms at a time.

Everybody who is silent shares one encode. An *owner* whose peers talk, or did in the last two seconds,
gets an encode of their own: the mix minus their own voices. That encoder begins as a clone of the
shared one, so that a listener moved to it hears no seam, and is given up after two seconds in which
both were fed the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bridge.media import opus
from bridge.media.jitter import JitterBuffer, Kind
from bridge.media.opus import FRAME, Encoder, Samples

_FADE = 480  # samples: 10 ms
_RAMP_UP: Samples = np.linspace(0, 1, _FADE, dtype=np.float32)
_RAMP_DOWN: Samples = np.ascontiguousarray(_RAMP_UP[::-1])
_GUESS_GAINS = (1.0, 1.0, 0.6, 0.3, 0.1, 0.0)
"""At the edges of one concealed chunk after another: libopus itself fades a guessed tone to noise, never to nothing."""
_SILENT_PEAK = 1e-4  # −80 dBFS: below it a frame adds nothing
_QUIET_RMS = 0.003  # −50 dBFS: such a frame may be dropped to win back delay
_FORCED_SURPLUS = 4 * FRAME  # so far behind, a loud frame is dropped too
_OWN_HANGOVER = 100  # ticks: 2 s
_TAIL = 10  # ticks of silence that are still encoded, so that every decoder's last sound dies away
_TALK_ON, _TALK_OFF = 50, 60  # −dBov
_TALK_HANGOVER = 15  # ticks: 300 ms
_LEVEL_TICKS = 5  # 10 reports a second
SILENCE = 127


class Voice:
    """What one peer says: RTP payloads in, one frame per tick out. Owned by its peer, called in the worker's loop.

    The gate is shut at first. ``shut`` drops all that is buffered; what was being heard ends in a 10 ms fade."""

    __slots__ = (
        "_decoder",
        "_fading_in",
        "_guesses",
        "_queue",
        "_tail",
        "csrc",
        "decoded",
        "errors",
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
        self.level = SILENCE
        self.talking = False
        self.quiet_ticks = 0
        self.decoded = self.errors = 0
        self._decoder: opus.Decoder | None = None  # made when first needed: most peers only listen
        self._queue: Samples = np.zeros(0, np.float32)  # decoded, not played; below one frame plus one packet
        self._tail: Samples | None = None
        self._fading_in = False
        self._guesses = 0  # concealed chunks since the last one that was decoded

    @property
    def fading(self) -> bool:
        """The gate was shut and the fade-out is still to be played."""
        return self._tail is not None

    def put(self, sequence: int, timestamp: int, payload: bytes, now: float) -> None:
        """One authenticated packet, gate open."""
        self.jitter.put(sequence, timestamp, payload, opus.samples_in(payload), now)

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
            tail = np.zeros(FRAME, np.float32)
            tail[:_FADE] = frame[:_FADE] * _RAMP_DOWN
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
        """The 960 samples of this tick, or None: silence."""
        if not self.open:
            tail, self._tail = self._tail, None
            return tail
        frame = self._next_frame(now)
        surplus = self.jitter.surplus(now, len(self._queue)) if frame is not None else 0
        if frame is not None and surplus > FRAME and (surplus > _FORCED_SURPLUS or _rms(frame) < _QUIET_RMS):
            following = self._next_frame(now)
            if following is not None:
                frame = _joined(frame, following)
        if frame is None:
            self.level = SILENCE
            return None
        if self._fading_in:
            self._fading_in = False
            frame[:_FADE] *= _RAMP_UP
        self.level = dbov(_rms(frame))  # of what is heard: the level in the packet (RFC 6464) is the sender's claim
        return frame

    def _next_frame(self, now: float) -> Samples | None:
        while len(self._queue) < FRAME:
            decoded = self._decode_next(now)
            if decoded is None:
                if not len(self._queue):
                    return None
                decoded = np.zeros(FRAME - len(self._queue), np.float32)
            self._queue = np.concatenate((self._queue, decoded))
        frame = self._queue[:FRAME].copy()
        self._queue = self._queue[FRAME:]
        return frame

    def _decode_next(self, now: float) -> Samples | None:
        chunk = self.jitter.take(now, len(self._queue))
        if chunk.kind is Kind.NOTHING:
            return None
        if self._decoder is None:
            self._decoder = opus.Decoder()
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
            return np.zeros(chunk.samples, np.float32)
        if self._guesses:
            gain = _GUESS_GAINS[min(self._guesses, len(_GUESS_GAINS) - 1)]
            reach = min(_FADE // 2, len(samples))
            samples[:reach] *= np.linspace(gain, 1, reach, dtype=np.float32)
            self._guesses = 0
        return samples

    def _guess(self, decoder: opus.Decoder, count: int) -> Samples:
        last = len(_GUESS_GAINS) - 1
        start, end = _GUESS_GAINS[min(self._guesses, last)], _GUESS_GAINS[min(self._guesses + 1, last)]
        self._guesses += 1
        return decoder.conceal(count) * np.linspace(start, end, count, dtype=np.float32)


def _rms(frame: Samples) -> float:
    return math.sqrt(float(np.dot(frame, frame)) / len(frame))


def _joined(dropped: Samples, kept: Samples) -> Samples:
    """``kept`` with a 10 ms cross-fade from ``dropped``: the seam where a frame was left out."""
    kept[:_FADE] = dropped[:_FADE] * _RAMP_DOWN + kept[:_FADE] * _RAMP_UP
    return kept


def dbov(rms: float) -> int:
    """−dBov as RFC 6464 §3 has it: 0 is the loudest, 127 is silence."""
    return min(SILENCE, max(0, round(-20 * math.log10(rms)))) if rms > 4e-7 else SILENCE


class Limiter:
    """Keeps a mix inside −1 … 1: a gain that falls within the frame and recovers in half a second, then a
    soft knee above 0.8 that no sum, however large, can pass."""

    __slots__ = ("gain",)
    _CEILING, _KNEE, _RELEASE = 0.9, 0.8, 0.04

    def __init__(self) -> None:
        self.gain = 1.0

    def apply(self, mix: Samples) -> Samples:
        """A new array; not a number becomes silence."""
        peak = float(np.abs(mix).max())
        if not math.isfinite(peak):
            return np.zeros_like(mix)
        wanted = min(1.0, self._CEILING / peak) if peak > self._CEILING else 1.0
        start = self.gain
        end = wanted if wanted < start else start + self._RELEASE * (wanted - start)
        self.gain = end
        if start > 0.999 and end > 0.999 and peak <= self._KNEE:
            return mix.astype(np.float32)
        ramp = np.full(len(mix), end, np.float32)
        ramp[: _FADE // 2] = np.linspace(start, end, _FADE // 2, dtype=np.float32)
        out = mix * ramp
        room = 1.0 - self._KNEE
        over = np.abs(out) - self._KNEE
        bent = self._KNEE + room * np.tanh(np.maximum(over, 0) / room)
        limited: Samples = np.where(over > 0, np.copysign(np.minimum(bent, 0.9999), out), out).astype(np.float32)
        return limited


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded 20 ms. ``csrcs``: (CSRC, −dBov) of the loudest in it, at most 15. ``sounding`` is False for
    the one byte that stands for silence: it need not be sent each tick (decisions 1.8)."""

    payload: bytes
    csrcs: tuple[tuple[int, int], ...]
    level: int
    sounding: bool = True


def _quiet_frame() -> Frame:
    """A TOC byte with an empty frame: "nothing" to every decoder (RFC 6716 §3.2.1, RFC 7587 §3.1.3)."""
    toc = Encoder().encode(np.zeros(FRAME, np.float32))[0] & 0xFC
    return Frame(bytes((toc,)), (), SILENCE, sounding=False)


QUIET = _quiet_frame()


class _Stream:
    """One encoder with its limiter."""

    __slots__ = ("encoder", "encodes", "idle_ticks", "limiter", "silent_ticks")

    def __init__(self, bitrate: int, like: _Stream | None = None) -> None:
        self.encoder = Encoder(bitrate)
        self.limiter = Limiter()
        self.idle_ticks = 0  # since its owner was last heard
        self.silent_ticks = _TAIL + 1
        self.encodes = 0
        if like is not None:
            self.encoder.copy_from(like.encoder)
            self.limiter.gain = like.limiter.gain
            self.silent_ticks = like.silent_ticks

    def frame(self, mix: Samples, heard: list[Voice]) -> Frame:
        self.silent_ticks = 0 if heard else self.silent_ticks + 1
        if self.silent_ticks > _TAIL:
            return QUIET
        self.encodes += 1
        loudest = sorted(heard, key=lambda voice: voice.level)[:15]
        level = dbov(_rms(mix)) if heard else SILENCE
        payload = self.encoder.encode(self.limiter.apply(mix))
        return Frame(payload, tuple((voice.csrc, voice.level) for voice in loudest), level)


@dataclass(frozen=True, slots=True)
class Output:
    """What one tick gives: a frame for everyone, and other frames for the owners who talk."""

    shared: Frame
    own: Mapping[str, Frame]


class Mixer:
    """One stage's sound. Owns its encoders; voices are handed in at each tick."""

    def __init__(self, bitrate: int = 48_000) -> None:
        self._bitrate = bitrate
        self._shared = _Stream(bitrate)
        self._own: dict[str, _Stream] = {}  # only owners who talk or just did
        self._levels_in = 0
        self._levels_sent = False
        self._encodes_gone = 0

    @property
    def encodes(self) -> int:
        return self._encodes_gone + self._shared.encodes + sum(each.encodes for each in self._own.values())

    def tick(self, voices: Iterable[Voice], now: float) -> Output:
        """Mix and encode the next 20 ms."""
        total = np.zeros(FRAME, np.float32)
        by_owner: dict[str, Samples] = {}
        heard: list[Voice] = []
        for voice in voices:
            frame = voice.frame(now)
            _track_talk(voice)
            if frame is None or float(np.abs(frame).max()) < _SILENT_PEAK:
                continue
            total += frame
            by_owner[voice.owner] = by_owner[voice.owner] + frame if voice.owner in by_owner else frame
            heard.append(voice)
        own = self._frames_of_owners(total, by_owner, heard)
        return Output(self._shared.frame(total, heard), own)

    def _frames_of_owners(
        self, total: Samples, by_owner: Mapping[str, Samples], heard: list[Voice]
    ) -> dict[str, Frame]:
        """Before the shared encode: a clone must have the state that the listener's decoder has."""
        for owner in by_owner:
            if owner not in self._own:
                self._own[owner] = _Stream(self._bitrate, self._shared)
        frames = {}
        for owner, stream in list(self._own.items()):
            stream.idle_ticks = 0 if owner in by_owner else stream.idle_ticks + 1
            if stream.idle_ticks > _OWN_HANGOVER:
                self._encodes_gone += self._own.pop(owner).encodes
                continue
            others = [voice for voice in heard if voice.owner != owner]
            if not others:
                minus = np.zeros(FRAME, np.float32)  # exactly nothing, not the rounding of a − a
            else:
                minus = total - by_owner[owner] if owner in by_owner else total
            frames[owner] = stream.frame(minus, others)
        return frames

    def levels(self, voices: Iterable[Voice]) -> dict[int, int] | None:
        """Called once a tick: who talks now, or None where there is nothing to tell yet."""
        self._levels_in -= 1
        if self._levels_in > 0:
            return None
        talking = {voice.csrc: voice.level for voice in voices if voice.open and voice.talking}
        if not talking and not self._levels_sent:
            return None
        self._levels_in = _LEVEL_TICKS
        self._levels_sent = bool(talking)
        return talking


def _track_talk(voice: Voice) -> None:
    """Hysteresis: on above −50 dBov, off after 300 ms below −60 dBov."""
    if not voice.open:
        voice.talking = False
        return
    if voice.level <= _TALK_ON or (voice.talking and voice.level <= _TALK_OFF):
        voice.talking = True
        voice.quiet_ticks = 0
        return
    voice.quiet_ticks += 1
    if voice.quiet_ticks > _TALK_HANGOVER:
        voice.talking = False
