"""What a listener hears over a link that loses packets: ``python -m bench.loss``. Real browsers, losses by nft (root).

``run`` returns the rows; ``table`` makes Markdown of them. Copies (RFC 2198) are what Chromium takes; Firefox, which
takes none, gets packets of 20 ms with in-band FEC.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.media.control import WorkerSettings
from tests.helpers.browser import Kind
from tests.helpers.lossy import lossy_link
from tests.helpers.netns import require_root


@dataclass(frozen=True)
class LossRow:
    """One browser at one loss. ``lost`` and ``concealed`` are what the browser counted, in percent: of packets, and of
    samples played (getStats: ``concealedSamples`` of ``totalSamplesReceived``); ``buffer_ms`` is its jitter buffer."""

    browser: Kind
    loss: float
    seconds: float
    lost: float
    concealed: float
    buffer_ms: float
    copies: bool


async def run(browsers: Sequence[Kind], losses: Sequence[float], seconds: float) -> list[LossRow]:
    rows = []
    for kind in browsers:
        async with lossy_link(kind, WorkerSettings()) as link:
            for loss in losses:
                await link.lose(loss)
                if loss:
                    await link.until_told(0.02)
                await link.listen(6)
                found = await link.listen(seconds)
                copies = (await link.stats()).copies
                rows.append(
                    LossRow(kind, loss, seconds, 100 * found.lost, 100 * found.concealed, found.delay_ms, copies)
                )
                print(rows[-1], flush=True)
    return rows


def table(rows: Sequence[LossRow]) -> str:
    lines = [
        "| browser | loss set, % | lost, % | concealed, % | buffer, ms | each packet twice |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.browser} | {row.loss:g} | {row.lost:.1f} | {row.concealed:.2f} | {row.buffer_ms:.0f} "
            f"| {'yes' if row.copies else 'no'} |"
        )
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
