"""Loudness evened between speakers: each voice is led to −18 LUFS, slowly and by 6 dB at most.

Measured as EBU R128 and ITU-R BS.1770-4 do: K-weighted, gated, over the last three seconds in which there was sound.
A steady sound (hum, a fan, hiss, a tone) is never raised, as speech rises and falls by itself and that does not;
loud as it may be, it is lowered like anything else. What lifts a soft voice goes back to nothing in its pauses, so that
twenty open microphones do not add up their rooms, and is there again within a syllable.

    20 ms ─▶ power ─▶ blocks of 400 ms ─▶ the last 3 s of them, gated: a voice? ─▶ even gain ─▶ gain, ramped over
                └─────────────────▶ is this frame a pause? ───────────────────────────▲          the frame
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bridge.media.opus import FRAME, RATE, Samples

TARGET = -18.0
"""LUFS of each speaker, as one channel."""
MOST_DB = 6.0

_ABSOLUTE_GATE = (
    -60.0
)  # LUFS: below it a frame is silence and says nothing about the voice (BS.1770: −70 for a programme)
_RELATIVE_GATE = 0.1  # of the mean power: −10 LU (BS.1770-4 §5.1)
_WINDOW = 150  # frames: the 3 s of "short-term" (EBU Tech 3341)
_BLOCK, _STEP = 20, 5  # frames: BS.1770-4 §5.1 measures blocks of 400 ms, a new one each 100 ms
_SPEECH_RANGE_DB = 6.0  # between the softest and loudest tenth of speech there is more; hiss has 1 dB, a tone none
_SPEECH_ONSETS = 3  # … or it stops and begins again so often in the window
_PAUSE_DEPTH = 10**-1.5  # 15 dB below the voice itself a frame is a pause …
_PAUSE_TICKS = 20  # … and after 400 ms of it the lift is let go
_RISE_DB, _FALL_DB = 0.06, 0.12  # a frame: 3 dB a second up, 6 down, at most …
_FOLLOW = 0.02  # … and a fiftieth of what is missing, so that it does not go along with each sentence
_BACK_DB, _LET_GO_DB = 1.0, 0.15  # a frame, after and in a pause


def _k_weighting(bins: int) -> npt.NDArray[np.float64]:
    """|H|² of BS.1770-4's two filters (tables 1 and 2, at 48 kHz) for the bins of a real FFT over 20 ms, scaled so that
    its product with their powers is the mean square (Parseval)."""
    z = np.exp(-2j * np.pi * np.arange(bins) / FRAME)
    shelf = (1.53512485958697 - 2.69169618940638 * z + 1.19839281085285 * z**2) / (
        1 - 1.69065929318241 * z + 0.73248077421585 * z**2
    )
    high_pass = (1 - 2 * z + z**2) / (1 - 1.99004745483398 * z + 0.99007225036621 * z**2)
    weights = np.abs(shelf * high_pass) ** 2 * 2 / FRAME**2
    weights[-1] /= 2  # the bin at half the rate has no mirror; that of direct current weighs nothing here
    return np.asarray(weights, np.float64)


_SLOPE: Samples = np.linspace(0, 1, FRAME, dtype=np.float32)
_WEIGHTS = _k_weighting(FRAME // 2 + 1).astype(np.float32)


def power(frame: Samples) -> float:
    """K-weighted mean square of 20 ms, one channel: about 10 µs. By spectrum and not by filter, which numpy could only
    do a sample at a time; it differs by less than 0.3 dB."""
    spectrum = np.fft.rfft(frame)
    return float(np.dot(_WEIGHTS, spectrum.real**2 + spectrum.imag**2))


def lufs(mean_square: float) -> float:
    """BS.1770-4 §5.1; −120 for silence."""
    return -0.691 + 10 * math.log10(mean_square) if mean_square > 1e-12 else -120.0


_GATE_POWER = 10 ** ((_ABSOLUTE_GATE + 0.691) / 10)
assert RATE == 50 * FRAME


class Evener:
    """The gain of one voice. ``apply`` at each tick in which it has a frame, ``pause`` in the others."""

    __slots__ = (
        "_blocks", "_blocks_seen", "_even", "_onsets", "_paused", "_powers", "_powers_seen", "_recent", "_sounding",
        "_ticks", "_voice", "_wanted", "gain_db",
    )  # fmt: skip

    def __init__(self) -> None:
        self.gain_db = 0.0  # as applied at the end of the last frame
        self._wanted = 0.0  # dB that would lead the voice to the target
        self._even = 0.0  # … approached slowly
        self._recent = np.zeros(_BLOCK)  # powers of the last ticks, a ring
        self._blocks = np.zeros(_WINDOW // _STEP)  # of the last blocks with sound, a ring
        self._powers = np.zeros(_WINDOW)  # of the last frames with sound, a ring
        self._blocks_seen = self._powers_seen = 0
        self._voice = 0.0  # power of what was last measured as a voice
        self._paused = 0  # ticks
        self._sounding = False
        self._onsets: list[int] = []  # ticks at which sound last began after silence
        self._ticks = 0

    def pause(self) -> None:
        """A tick in which nothing was said."""
        self._take(0.0)
        if self.gain_db > 0:
            self.gain_db = self._next()

    def apply(self, frame: Samples) -> Samples:
        """The frame (960 samples, one channel), louder or softer. The same array where nothing is to be done."""
        self._take(power(frame))
        start = self.gain_db
        end = self.gain_db = self._next()
        if start == end == 0:
            return frame
        first, last = 10 ** (start / 20), 10 ** (end / 20)
        if first == last:
            return frame * np.float32(last)
        return frame * (np.float32(first) + np.float32(last - first) * _SLOPE)

    def _take(self, now: float) -> None:
        self._ticks += 1
        self._recent[self._ticks % _BLOCK] = now
        sounding = now > _GATE_POWER
        if sounding:
            self._powers[self._powers_seen % _WINDOW] = now
            self._powers_seen += 1
            if not self._sounding:
                self._onsets = [*self._onsets[1 - _SPEECH_ONSETS :], self._ticks]
        self._sounding = sounding
        if self._ticks % _STEP == 0:
            self._end_block()
        speaks = sounding and now >= self._voice * _PAUSE_DEPTH
        self._paused = 0 if speaks else self._paused + 1
        if speaks:
            self._even += min(_RISE_DB, max(-_FALL_DB, _FOLLOW * (self._wanted - self._even)))

    def _end_block(self) -> None:
        """BS.1770-4 §5.1: blocks of 400 ms, a new one each 100 ms, gated."""
        block = float(self._recent.mean())
        if block <= _GATE_POWER:
            return
        self._blocks[self._blocks_seen % len(self._blocks)] = block
        self._blocks_seen += 1
        if self._powers_seen >= _BLOCK:
            self._decide()

    def _decide(self) -> None:
        blocks = self._blocks[: self._blocks_seen]
        voice = float(blocks[blocks > _RELATIVE_GATE * blocks.mean()].mean())
        missing = TARGET - lufs(voice)
        if missing <= 0:
            self._voice, self._wanted = voice, max(-MOST_DB, missing)
        elif self._is_speech():
            self._voice, self._wanted = voice, min(MOST_DB, missing)
        elif (
            float(np.median(blocks)) >= self._voice * _PAUSE_DEPTH
        ):  # steady, and as loud as what was taken for a voice
            self._wanted = min(0.0, self._wanted)

    def _is_speech(self) -> bool:
        if len(self._onsets) == _SPEECH_ONSETS and self._onsets[0] > self._ticks - _WINDOW:
            return True
        ordered = np.sort(self._powers[: self._powers_seen])
        tenth = len(ordered) // 10
        return bool(ordered[-1 - tenth] > ordered[tenth] * 10 ** (_SPEECH_RANGE_DB / 10))

    def _next(self) -> float:
        lifts = self._even > 0 and self._paused > _PAUSE_TICKS
        goal = 0.0 if lifts else self._even
        return self.gain_db + min(_BACK_DB, max(-_LET_GO_DB, goal - self.gain_db))
