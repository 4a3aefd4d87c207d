"""A real worker with a speaker and a listener, while another process throws changed captures at its port."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from bridge.ids import PeerId, StageId
from bridge.media import opus
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import Witness

LONGEST_GAP_MS = 60
_STAGE = StageId("stage")
_QUIET = 0.03  # −30 dBFS; the tone is at −12
_A_SECOND = 20_000  # datagrams


async def live(seconds: float, seed: int) -> bool:
    """Prints the longest stretch without the tone on the sender's time line; whether it is short enough."""
    workers = Workers(WorkerSettings(bind="127.0.0.1"), Witness())
    await workers.start()
    try:
        async with _joined(workers, "ava", speak=True) as ava, _joined(workers, "ben", speak=False) as ben:
            talking = asyncio.create_task(_talk(ava))
            heard = _Heard()
            await heard.until_tone(ben)
            command = [sys.executable, "-m", "tests.fuzz.live", str(workers.port), str(seconds), str(seed)]
            throwing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            listening = asyncio.create_task(heard.go_on(ben))
            output, _ = await throwing.communicate()
            for task in (listening, talking):
                task.cancel()
            await asyncio.gather(listening, talking, return_exceptions=True)
        stats = (await workers.stats()).worker
        print(
            f"live: {output.decode().strip()} datagrams in {seconds:.0f} s ({stats.stun_refused} refused as checks, "
            f"{stats.junk} as junk); {heard.packets} packets heard, longest gap {heard.gap_ms:.0f} ms, "
            f"{stats.tick_errors} tick errors, ticks late p99 {stats.late_p99_ms} ms",
            flush=True,
        )
        return heard.packets > 10 * seconds and heard.gap_ms <= LONGEST_GAP_MS and not stats.tick_errors
    finally:
        await workers.close()


@asynccontextmanager
async def _joined(workers: Workers, owner: str, *, speak: bool) -> AsyncIterator[RawPeer]:
    raw = RawPeer()
    try:
        raw.take((await workers.join(_STAGE, PeerId(owner), owner, raw.offer, hear=True, speak=speak)).sdp)
        await raw.check()
        await raw.handshake()
        yield raw
    finally:
        raw.close()


async def _talk(raw: RawPeer) -> None:
    """A tone in packets of 20 ms; those that are behind are sent at once."""
    loop = asyncio.get_running_loop()
    payloads, began = raw.voice(400, 50), loop.time()
    for number in range(1 << 30):
        raw.send(raw.protect(payloads[number % 50]))
        if number % 100 == 99:
            await raw.check()
        await asyncio.sleep(max(0.0, began + number * 0.02 - loop.time()))


class _Heard:
    """Longest time without the tone: what was lost and what was concealed count, what came late does not."""

    def __init__(self) -> None:
        self.packets, self.gap_ms = 0, 0.0
        self._decoder = opus.Decoder()
        self._since: int | None = None  # timestamp of the last sound
        self._checked = 0.0

    async def until_tone(self, raw: RawPeer) -> None:
        while self._since is None:
            await self._one(raw)
        self.gap_ms = 0.0

    async def go_on(self, raw: RawPeer) -> None:
        while True:
            await self._one(raw)

    async def _one(self, raw: RawPeer) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._checked > 2:
            self._checked = now
            raw.send(raw.check_message())
        packet = await raw.packet()
        self.packets += 1
        samples = self._decoder.decode(packet.payload)
        for at in range(0, len(samples) - 239, 240):
            if float(np.abs(samples[at : at + 240]).max()) > _QUIET:
                here = packet.timestamp + at & 0xFFFF_FFFF
                if self._since is not None:
                    self.gap_ms = max(self.gap_ms, ((here - self._since & 0xFFFF_FFFF) - 240) / 48)
                self._since = here


def throw(port: int, seconds: float, seed: int) -> int:
    """From several sockets, some of them connected by TCP; how many datagrams."""
    import time

    from tests.fuzz.mutate import Mutator
    from tests.fuzz.targets import captures

    mutator = Mutator([each for kind in ("stun", "dtls", "srtp", "rtcp") for each in captures(kind)], (), seed)
    through = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
    end, count, began = time.monotonic() + seconds, 0, time.monotonic()
    while (now := time.monotonic()) < end:
        if count > (now - began) * _A_SECOND:
            time.sleep(0.001)
            continue
        data = mutator.next()
        through[count % 8].sendto(data, ("127.0.0.1", port))
        count += 1
        if count % 200 == 0:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(len(data).to_bytes(2, "big") + data)
    for each in through:
        each.close()
    return count


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(throw(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
