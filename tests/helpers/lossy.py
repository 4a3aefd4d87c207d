"""A real browser at the relay over a link that loses packets: what it says of what it hears (getStats), and what the
relay counts of what it says.

::

    A 203.0.113.1: worker, one who talks, the page ──veth── 203.0.113.2 B: the browser; nft drops at the entrances
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiohttp import web

from bridge.ids import PeerId, StageId
from bridge.media import opus
from bridge.media.control import WorkerSettings
from bridge.media.counters import PeerStats
from bridge.media.workers import Workers
from tests.helpers.browser import Browser, Kind, Page
from tests.helpers.loud import speech
from tests.helpers.netns import Namespace, inside, two_namespaces
from tests.helpers.network import lose
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import Witness

STAGE = StageId("stage")
LISTENER = PeerId("listener")
HANG_S = 120
_PAGE = """<!doctype html><audio data-testid="sound" autoplay></audio><script>
const pc = new RTCPeerConnection({ iceServers: [] });
pc.ontrack = (event) => (document.querySelector("audio").srcObject = new MediaStream([event.track]));
async function start() {
  const speaks = location.search === "?speaks";
  const voice = speaks && (await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } })).getAudioTracks()[0];
  pc.addTransceiver(voice || "audio", { direction: speaks ? "sendrecv" : "recvonly" });
  await pc.setLocalDescription(await pc.createOffer());
  const answer = await (await fetch("/offer", { method: "POST", body: pc.localDescription.sdp })).text();
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
}
start();
async function heard() {
  const one = [...(await pc.getStats()).values()].find((each) => each.type === "inbound-rtp");
  return one && { total: one.totalSamplesReceived, concealed: one.concealedSamples,
    packets: one.packetsReceived, lost: one.packetsLost,
    delay: one.jitterBufferDelay, emitted: one.jitterBufferEmittedCount };
}
</script>"""


@dataclass(frozen=True)
class Heard:
    """What happened between two looks. ``concealed``: of all samples, the part that was made up."""

    seconds: float
    concealed: float
    lost: float
    delay_ms: float


@dataclass(frozen=True)
class Spoken:
    """Of the packets of 20 ms that were ``sent``, the parts that did not come, whose copy did, that in-band FEC gave
    back, and that were concealed."""

    sent: int
    lost: float
    restored: float
    recovered: float
    concealed: float


class Link:
    """One browser that listens, and the figures of its link."""

    def __init__(self, workers: Workers, near: Namespace, far: Namespace, page: Page) -> None:
        self._workers, self._near, self._far, self._page = workers, near, far, page

    async def lose(self, percent: float) -> None:
        """Of what comes to the browser."""
        await lose(self._far, percent)

    async def lose_voice(self, percent: float) -> None:
        """Of what comes from it."""
        await lose(self._near, percent)

    async def speak(self, packets: int) -> Spoken:
        """Until so many packets more have come from the browser."""
        before = now = await self.stats()
        async with asyncio.timeout(HANG_S + packets / 10):
            while now.packets_in < before.packets_in + packets:
                await asyncio.sleep(0.1)
                now = await self.stats()
        came, restored = now.packets_in - before.packets_in, now.restored - before.restored
        lost, recovered = now.lost - before.lost, now.recovered - before.recovered
        sent = came + restored + lost
        return Spoken(sent, 1 - came / sent, restored / sent, recovered / sent, (lost - recovered) / sent)

    async def stats(self) -> PeerStats:
        return (await self._workers.stats()).peers[LISTENER]

    async def until_copies(self) -> None:
        """A browser reports each five seconds or so; TimeoutError where two minutes bring no report of loss."""
        async with asyncio.timeout(HANG_S):
            while not (await self.stats()).copies:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def until_told(self, loss: float) -> None:
        """A report tells of so much loss."""
        async with asyncio.timeout(HANG_S):
            while (await self.stats()).remote_loss < loss:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def listen(self, seconds: float) -> Heard:
        """Until the browser has played so many seconds more."""
        before = await self._page.eval("heard()")
        wanted = before["total"] + seconds * opus.RATE
        await self._page.wait(f"heard().then((now) => now.total >= {wanted})", timeout_s=4 * seconds + 60)
        now = await self._page.eval("heard()")
        change = {name: now[name] - before[name] for name in now}
        return Heard(
            seconds=change["total"] / opus.RATE,
            concealed=change["concealed"] / change["total"],
            lost=change["lost"] / max(1, change["packets"] + change["lost"]),
            delay_ms=1000 * change["delay"] / max(1, change["emitted"]),
        )


async def _talk(raw: RawPeer) -> None:
    """For ever, one packet each 20 ms of the loop's clock."""
    loop, encoder = asyncio.get_running_loop(), opus.Encoder()
    frames = [np.ascontiguousarray(each) for each in speech(10, -20, pause_s=0).reshape(-1, opus.FRAME)]
    began, number = loop.time(), 0
    while True:
        raw.send(raw.protect(encoder.encode(frames[number % len(frames)])))
        number += 1
        await asyncio.sleep(max(0.0, began + number * 0.02 - loop.time()))


@contextlib.asynccontextmanager
async def lossy_link(kind: Kind, settings: WorkerSettings, *, wav: Path | None = None) -> AsyncIterator[Link]:
    """Needs root. Loses nothing at first. ``wav``: it speaks, too (Chromium); else it only listens."""
    async with contextlib.AsyncExitStack() as stack:
        near, far = await stack.enter_async_context(two_namespaces())
        with inside(near):
            workers = Workers(settings, Witness())
            stack.push_async_callback(workers.close)
            await workers.start()
            url = await stack.enter_async_context(_site(workers, near.address, speak=wav is not None))
            raw = RawPeer()
            stack.callback(raw.close)
        answer = await workers.join(STAGE, PeerId("talker"), "talker", raw.offer, hear=False, speak=True)
        raw.take(answer.sdp)
        await raw.check()
        await raw.handshake()
        talking = asyncio.create_task(_talk(raw))
        stack.push_async_callback(_ended, talking)
        with inside(far):
            browser = await stack.enter_async_context(Browser.launch(kind, wav=wav, trusted=url.rstrip("/")))
        page = await browser.open(f"{url}?speaks" if wav is not None else url)
        await page.wait("heard().then((now) => now && now.total > 48000)", timeout_s=60)
        yield Link(workers, near, far, page)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _site(workers: Workers, address: str, *, speak: bool) -> AsyncIterator[str]:
    async def offer(request: web.Request) -> web.Response:
        answer = await workers.join(STAGE, LISTENER, "listener", await request.text(), hear=True, speak=speak)
        return web.Response(text=answer.sdp)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    application = web.Application()
    application.add_routes([web.get("/", page), web.post("/offer", offer)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, 0).start()
        yield f"http://{address}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
