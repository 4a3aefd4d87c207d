"""Keeps a mix from clipping."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from bridge.media.opus import Samples

_ATTACK = 4  # the gain changes within the first quarter of a frame: 5 ms


@lru_cache(maxsize=4)
def _slope(count: int) -> Samples:
    return np.linspace(0, 1, count, dtype=np.float32)


class Limiter:
    """Keeps a mix inside −1 … 1: a gain that falls within the frame and recovers in half a second, then a
    soft knee above 0.8 that no sum, however large, can pass."""

    __slots__ = ("gain",)
    _CEILING, _KNEE, _RELEASE = 0.9, 0.8, 0.04

    def __init__(self) -> None:
        self.gain = 1.0

    def apply(self, mix: Samples) -> Samples:
        """A new array; not a number becomes silence. Channels of a stereo mix are interleaved and share one gain."""
        peak = float(np.abs(mix).max())
        if not math.isfinite(peak):
            return np.zeros_like(mix)
        wanted = min(1.0, self._CEILING / peak) if peak > self._CEILING else 1.0
        start = self.gain
        end = wanted if wanted < start else start + self._RELEASE * (wanted - start)
        self.gain = end
        if start > 0.999 and end > 0.999 and peak <= self._KNEE:
            return mix.astype(np.float32)
        out = mix * np.float32(end)
        if end != start:
            slope = np.float32(start) + np.float32(end - start) * _slope(len(mix) // _ATTACK)
            out[: len(slope)] = mix[: len(slope)] * slope
        over = np.flatnonzero(np.abs(out) > self._KNEE)  # few: the bend is the costly part
        if len(over):
            room = 1.0 - self._KNEE
            bent = self._KNEE + room * np.tanh((np.abs(out[over]) - self._KNEE) / room)
            out[over] = np.copysign(np.minimum(bent, 0.9999), out[over])
        return out
