"""What is heard over a link that loses packets: ``python -m bench.loss``. Real browsers, losses by nft (root).

``run`` returns the rows; ``table`` makes Markdown of them. A listener: packets hold copies (RFC 2198) for Chromium;
Firefox, which takes none, gets packets of 20 ms with in-band FEC. A speaker: Chromium, which sends copies.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge.demo.voices import write_wav
from bridge.media.control import WorkerSettings
from tests.helpers.browser import Kind
from tests.helpers.lossy import lossy_link
from tests.helpers.loud import speech
from tests.helpers.netns import require_root


@dataclass(frozen=True)
class LossRow:
    """One browser at one loss; all in percent. A listener's: ``lost`` of packets, ``concealed`` of samples played, as
    the browser counts them (getStats: ``concealedSamples`` of ``totalSamplesReceived``). A speaker's: of packets of
    20 ms, as the relay counts them. ``buffer_ms``: the delay of the jitter buffer."""

    link: str
    loss: float
    lost: float
    concealed: float
    buffer_ms: float
    how: str


async def _listener(kind: Kind, losses: Sequence[float], seconds: float) -> list[LossRow]:
    rows = []
    async with lossy_link(kind, WorkerSettings()) as link:
        for loss in losses:
            await link.lose(loss)
            if loss:
                await link.until_told(0.02)
            await link.listen(6)
            found = await link.listen(seconds)
            how = "copies" if (await link.stats()).copies else "in-band FEC" if loss else "-"
            rows.append(LossRow(f"{kind} listens", loss, 100 * found.lost, 100 * found.concealed, found.delay_ms, how))
            print(rows[-1], flush=True)
    return rows


async def _speaker(losses: Sequence[float], seconds: float, directory: Path) -> list[LossRow]:
    voice = directory / "voice.wav"
    write_wav(voice, (speech(10, -20, pause_s=0) * 32767).astype(np.int16))
    rows = []
    async with lossy_link("chromium", WorkerSettings(), wav=voice) as link:
        for loss in losses:
            await link.lose_voice(loss)
            await link.speak(300)
            found = await link.speak(round(50 * seconds))
            how = f"copies {100 * found.restored:.1f} %, in-band FEC {100 * found.recovered:.1f} %"
            target = (await link.stats()).jitter_target_ms
            rows.append(LossRow("chromium speaks", loss, 100 * found.lost, 100 * found.concealed, target, how))
            print(rows[-1], flush=True)
    return rows


async def run(
    browsers: Sequence[Kind] = ("chromium", "firefox"), losses: Sequence[float] = (5, 10), seconds: float = 15
) -> list[LossRow]:
    """``seconds`` of sound for each row; ``losses`` in percent. Needs root."""
    rows = [row for kind in browsers for row in await _listener(kind, losses, seconds)]
    if "chromium" in browsers:
        with tempfile.TemporaryDirectory() as directory:
            rows += await _speaker(losses, seconds, Path(directory))
    return rows


def table(rows: Sequence[LossRow]) -> str:
    lines = ["| link | loss set, % | lost, % | concealed, % | buffer, ms | what helped |", "|---|---|---|---|---|---|"]
    for row in rows:
        figures = f"{row.loss:g} | {row.lost:.1f} | {row.concealed:.2f} | {row.buffer_ms:.0f}"
        lines.append(f"| {row.link} | {figures} | {row.how} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", nargs="+", choices=("chromium", "firefox"), default=("chromium", "firefox"))
    parser.add_argument("--losses", nargs="+", type=float, default=(0, 5, 10), help="percent")
    parser.add_argument("--seconds", type=float, default=60, help="of sound for each row")
    given = parser.parse_args()
    require_root()
    print(table(asyncio.run(run(given.browsers, given.losses, given.seconds))))


if __name__ == "__main__":
    main()
