"""An ear that keeps each 20 ms frame with the moment it was heard: gaps, and whether a tone came back."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from av import AudioFrame

from bridge.demo.sound import FRAME, RATE, Ear, Pcm

_KEPT = 50 * 120  # frames: 2 minutes; the oldest is dropped
HEARD_DBFS = -32.0
"""A tone of -18 dBFS counts as heard from here on; the click at the end of another tone stays below."""
_TWO = 2  # frames on end: where another tone breaks off, one frame has a bit of every frequency


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame and when it was heard, by ``time.monotonic``."""

    at: float
    samples: Pcm

    def level(self, hz: int) -> float:
        """dBFS of the tone. Multiples of 50 Hz are orthogonal over 20 ms; the window keeps breaks apart from tones."""
        at = np.arange(len(self.samples))
        window = np.hanning(len(self.samples))
        turned = np.exp(-2j * np.pi * hz * at / RATE) * window
        amplitude = 2 * abs(np.sum(self.samples / 32768 * turned)) / np.sum(window)
        return float(20 * np.log10(max(amplitude, 1e-6)))


class TimedEar(Ear):
    """Give it to a PageClient. It outlives the page's connections."""

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[Heard] = deque(maxlen=_KEPT)

    def hear(self, frame: AudioFrame) -> None:
        super().hear(frame)
        sound = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0].astype(np.int16)
        now = time.monotonic()
        self._frames.extend(Heard(now, part) for part in np.split(sound, range(FRAME, len(sound), FRAME)))

    def since(self, moment: float) -> list[Heard]:
        """The frames heard from ``moment`` on, by ``time.monotonic``."""
        return [each for each in self._frames if each.at >= moment]

    def came(self, hz: int, since: float) -> list[float]:
        """The moments since then at which the tone was heard in two frames on end."""
        found, before = [], False
        for each in self.since(since):
            now = each.level(hz) >= HEARD_DBFS
            if now and before:
                found.append(each.at)
            before = now
        return found

    def gap_ms(self, hz: int, since: float) -> float:
        """The longest time since then without the tone, up to now."""
        moments = [since, *(each.at for each in self.since(since) if each.level(hz) >= HEARD_DBFS), time.monotonic()]
        return 1000 * max(after - before for before, after in itertools.pairwise(moments))

    def hears(self, hz: int, seconds: float = 0.3) -> bool:
        """Whether most of the last frames had the tone."""
        frames = self.since(time.monotonic() - seconds)
        return bool(frames) and sum(each.level(hz) >= HEARD_DBFS for each in frames) > 0.8 * len(frames)


_WITNESS = """
import os, select, time
worst = 0.0
while True:
    before = time.monotonic()
    if select.select([0], [], [], 0.01)[0]:
        if not os.read(0, 100):
            break
        print(worst, flush=True)
        worst = 0.0
    else:
        worst = max(worst, time.monotonic() - before - 0.01)
"""


class Stalls:
    """How long a process of this machine stood still: our own loop, and a witness that does nothing else. A listener
    who is not run hears nothing, and the relay is not to blame. Made by ``watching``, which owns both."""

    def __init__(self, witness: asyncio.subprocess.Process) -> None:
        self._witness = witness
        self._own = 0.0

    @classmethod
    @asynccontextmanager
    async def watching(cls) -> AsyncIterator[Stalls]:
        """Measure until left."""
        pipe = asyncio.subprocess.PIPE
        witness = await asyncio.create_subprocess_exec(sys.executable, "-c", _WITNESS, stdin=pipe, stdout=pipe)
        stalls = cls(witness)
        watch = asyncio.create_task(stalls._watch())
        try:
            yield stalls
        finally:
            watch.cancel()
            assert witness.stdin
            witness.stdin.close()
            await asyncio.gather(watch, witness.wait(), return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self._own = max(self._own, time.monotonic() - before - 0.01)

    async def longest_ms(self) -> float:
        """The longest one since the last call."""
        assert self._witness.stdin
        assert self._witness.stdout
        self._witness.stdin.write(b"\n")
        others = float(await self._witness.stdout.readline())
        own, self._own = self._own, 0.0
        return 1000 * max(own, others)


async def until(holds: Callable[[], object], what: Callable[[], str], limit_s: float = 60) -> None:
    """Look every 20 ms; AssertionError that tells ``what`` is the case instead."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, what()
        await asyncio.sleep(0.02)
