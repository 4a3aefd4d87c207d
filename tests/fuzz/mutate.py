"""Changes to captured inputs: bits, numbers, lengths, splices. Deterministic for a seed, and quick."""

from __future__ import annotations

import random
from collections.abc import Sequence

MAX_SIZE = 4096
_NUMBERS = (0, 1, 2, 7, 15, 16, 19, 20, 63, 64, 127, 128, 191, 192, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF)


class Mutator:
    """``words``: pieces of the input's language, put in whole."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], seed: int) -> None:
        self._seeds, self._words = list(seeds), list(words)
        self._random = random.Random(seed)

    def next(self) -> bytes:
        """One of the seeds with one to six changes; rarely bytes without any seed."""
        dice = self._random
        if dice.random() < 0.02:
            return dice.randbytes(dice.randrange(200))
        data = bytearray(dice.choice(self._seeds))
        for _ in range(dice.choice((1, 1, 2, 3, 6))):
            self._change(data)
        return bytes(data[:MAX_SIZE])

    def _change(self, data: bytearray) -> None:
        dice = self._random
        at = dice.randrange(len(data) + 1)
        match dice.randrange(8 if self._words else 7):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(data):
                data[at] = dice.choice(_NUMBERS) & 0xFF
            case 2:
                size = dice.choice((1, 2, 4))
                data[at : at + size] = (dice.choice(_NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "big")
            case 3:
                del data[at : at + dice.choice((1, 2, 4, 16, 400))]
            case 4:
                data[at:at] = dice.randbytes(dice.choice((1, 2, 4, 16, 100)))
            case 5:
                data[at:at] = data[dice.randrange(len(data) + 1) :][: dice.choice((4, 16, 100))]
            case 6:
                other = dice.choice(self._seeds)
                data[at:] = other[dice.randrange(len(other) + 1) :]
            case _:
                data[at:at] = dice.choice(self._words or [b"\0"])
