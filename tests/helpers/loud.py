"""Loudness as ffmpeg's ``ebur128`` measures it, and sound that rises and falls as speech does. Mono float32, 48 kHz."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph

Samples = npt.NDArray[np.float32]
RATE = 48_000
_BLOCK = 4800


def lufs(samples: Samples) -> float:
    """Integrated loudness of the whole (EBU R128, gated), at least 0.4 s."""
    graph = Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono", time_base=Fraction(1, RATE))
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found = -120.0
    for start in range(0, len(samples) - _BLOCK + 1, _BLOCK):
        block = np.ascontiguousarray(samples[start : start + _BLOCK], np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        source.push(frame)
        while True:
            try:
                found = float(sink.pull().metadata["lavfi.r128.I"])
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    return found


def speech(seconds: float, loudness: float, *, pitch: float = 140, pause_s: float = 0.7, seed: int = 1) -> Samples:
    """Harmonics of ``pitch`` in syllables of 250 ms, some louder and some softer, with a pause after each 2.3 s;
    ``loudness`` in LUFS."""
    at = np.arange(round(seconds * RATE)) / RATE
    tone = np.zeros(len(at))
    for harmonic in range(1, 20):
        tone += np.sin(2 * np.pi * pitch * harmonic * at + harmonic) / harmonic
    chance = np.random.default_rng(seed)
    stress = 10 ** (chance.uniform(-4, 4, len(at) // (RATE // 4) + 1) / 20)
    syllables = np.repeat(stress, RATE // 4)[: len(at)] * np.sin(np.pi * (at * 4 % 1)) ** 2
    talks = at % (2.3 + pause_s) < 2.3
    sound = (tone * syllables * talks).astype(np.float32)
    return np.asarray(sound * 10 ** ((loudness - lufs(sound * np.float32(0.1))) / 20 - 1), np.float32)
