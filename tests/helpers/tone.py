"""Tones: made, and measured in what was heard. Samples are mono int16, levels dBFS of a full-scale sine."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]
FLOOR = -120.0
"""What is told of silence, in dB."""


def sine(hz: float, seconds: float, rate: int = 48_000, dbfs: float = -12) -> Samples:
    """A sine whose peak lies ``dbfs`` below full scale."""
    times = np.arange(round(seconds * rate)) / rate
    tone: Samples = np.round(32767 * 10 ** (dbfs / 20) * np.sin(2 * math.pi * hz * times)).astype(np.int16)
    return tone


def _spectrum(samples: Samples) -> npt.NDArray[np.float64]:
    """Power of each bin, scaled so that the bins around a full-scale sine add up to 1. A Blackman-Harris window:
    side lobes are below −92 dB, so a loud tone does not hide a quiet one beside it."""
    count = len(samples)
    turns = 2 * math.pi * np.arange(count) / count
    window = 0.35875 - 0.48829 * np.cos(turns) + 0.14128 * np.cos(2 * turns) - 0.01168 * np.cos(3 * turns)
    bins = np.abs(np.fft.rfft(samples / 32768.0 * window)) ** 2
    scaled: npt.NDArray[np.float64] = bins * 4 / (count * float(np.sum(window**2)))
    return scaled


def _around(hz: float, count: int, rate: int) -> slice:
    centre = round(hz * count / rate)
    return slice(max(centre - 6, 0), centre + 7)


def _db(power: float) -> float:
    return max(10 * math.log10(power), FLOOR) if power > 0 else FLOOR


def level_at(samples: Samples, hz: float, rate: int = 48_000) -> float:
    """dBFS of the component at ``hz``, within 6 bins: give at least 0.2 s (then ± 30 Hz)."""
    if not len(samples):
        return FLOOR
    return _db(float(np.sum(_spectrum(samples)[_around(hz, len(samples), rate)])))


def ratio_at(samples: Samples, hz: float, rate: int = 48_000) -> float:
    """dB of the tone at ``hz`` over all the rest together."""
    if not len(samples):
        return FLOOR
    powers = _spectrum(samples)
    tone = float(np.sum(powers[_around(hz, len(samples), rate)]))
    rest = float(np.sum(powers)) - tone
    return _db(tone) - _db(rest)


def rms_dbfs(samples: Samples) -> float:
    """Level of the whole; a full-scale sine is 0."""
    if not len(samples):
        return FLOOR
    return _db(2 * float(np.mean((samples / 32768.0) ** 2)))
