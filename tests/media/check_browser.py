"""By hand: ``python -m tests.media.check_browser [chromium|firefox]``. A real browser speaks 440 Hz to the relay and
hears an aiortc client's 660 Hz; ICE restart, mute and DTX on the way. Prints what was measured, and the offer.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from bridge.ids import PeerId, StageId
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
from tests.helpers.browser import Browser
from tests.helpers.relay import Witness, loud, on_stage
from tests.helpers.tone import level_at, ratio_at, sine

STAGE = StageId("stage")
PAGE = """<!doctype html><audio data-testid="sound" autoplay></audio><p></p><script>
const pc = new RTCPeerConnection({ iceServers: [] });
pc.ontrack = (event) => (document.querySelector("audio").srcObject = new MediaStream([event.track]));
pc.onconnectionstatechange = () => (document.querySelector("p").textContent = pc.connectionState);
async function offer(options) {
  await pc.setLocalDescription(await pc.createOffer(options));
  const answer = await (await fetch("/offer", { method: "POST", body: pc.localDescription.sdp })).text();
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  return pc.localDescription.sdp;
}
async function start() {
  const stream = await navigator.mediaDevices.getUserMedia(
    { audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  pc.addTransceiver(stream.getAudioTracks()[0], { direction: "sendrecv", streams: [stream] });
  window.first = await offer();
}
start().catch((error) => (document.querySelector("p").textContent = String(error)));
async function inbound() {
  const stats = [...(await pc.getStats()).values()];
  const one = stats.find((each) => each.type === "inbound-rtp");
  const pair = stats.find((each) => each.type === "candidate-pair" && each.nominated);
  const receiver = pc.getReceivers()[0];
  return { received: one.packetsReceived, lost: one.packetsLost, concealed: one.concealedSamples,
    silentConcealed: one.silentConcealedSamples, total: one.totalSamplesReceived,
    pair: pair && pair.currentRoundTripTime, sources: receiver.getContributingSources().map(
      (each) => [each.source, each.audioLevel]) };
}
</script>"""


async def check(kind: Literal["chromium", "firefox"]) -> None:
    witness = Witness()
    workers = Workers(WorkerSettings(), witness)
    await workers.start()

    async def offer(request: web.Request) -> web.Response:
        answer = await workers.join(STAGE, PeerId("browser"), "bob", await request.text(), hear=True, speak=True)
        return web.Response(text=answer.sdp)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    application = web.Application()
    application.add_routes([web.get("/", page), web.post("/offer", offer)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    with tempfile.TemporaryDirectory() as directory:
        wav = Path(directory) / "tone.wav"
        with wave.open(str(wav), "wb") as file:
            file.setparams((1, 2, 48_000, 0, "NONE", ""))
            file.writeframes(sine(440, 10).tobytes())
        microphone: dict[str, Any] = {"wav": wav} if kind == "chromium" else {"tone": 440}
        async with (
            on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben),
            Browser.launch(kind, **microphone) as browser,
        ):
            ava.client.say(660)
            tab = await browser.open(f"http://127.0.0.1:{port}/")
            await tab.wait("document.querySelector('p').textContent === 'connected'")
            print(await tab.eval("window.first"))
            heard = await ben.client.hear(loud(440))
            print("an ear hears the browser:", round(ratio_at(await tab.hear(2), 660)), "dB 660 in the browser over",
                  "all;", round(level_at(heard, 440)), "dBFS 440 at the ear")  # fmt: skip
            own = await tab.hear(2)
            print("the browser's own return:", round(level_at(own, 440)), "dBFS; the other:", round(level_at(own, 660)))
            print(await tab.eval("inbound()"))
            await tab.eval("offer({ iceRestart: true })")
            await ben.client.hear(loud(440))
            own = await tab.hear(2)
            print("after an ICE restart:", round(level_at(own, 660)), "dBFS", await tab.eval("pc.iceConnectionState"))
            await tab.eval("pc.getSenders()[0].track.enabled = false")
            ava.client.say(None)
            await asyncio.sleep(3)
            before = (await workers.stats()).peers[PeerId("browser")]
            first = await tab.eval("inbound()")
            await asyncio.sleep(5)
            after = (await workers.stats()).peers[PeerId("browser")]
            print("silence, packets in 5 s: to us", after.packets_in - before.packets_in, "to the browser",
                  after.packets_out - before.packets_out)  # fmt: skip
            print(first, await tab.eval("inbound()"), sep="\n")
            ava.client.say(660)
            await asyncio.sleep(1)
            print("again:", round(level_at(await tab.hear(1), 660)), "dBFS")
            print(after, (await workers.stats()).worker, await tab.console(), sep="\n")
            await tab.eval("pc.close()")
            await witness.until(lambda: ("gone", "browser", "closed") in witness.told, "peer_gone")
            print(witness.told)
    await runner.cleanup()
    await workers.close()


if __name__ == "__main__":
    asyncio.run(check("firefox" if "firefox" in sys.argv else "chromium"))
