"""``python -m tests.fuzz capture``: what a real Chromium, aiortc and our raw peer send to a worker's port, as seeds."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from bridge.demo.voices import write_wav
from bridge.media import data, rtcp, rtp
from bridge.media.control import Join, Reply, WorkerSettings
from bridge.media.stun import Address
from bridge.media.worker import Worker
from tests.fuzz.targets import HERE
from tests.helpers.browser import Browser
from tests.helpers.raw_peer import RawPeer
from tests.helpers.rtc import RtcClient
from tests.helpers.tone import sine
from tests.media.check_browser import PAGE

_EACH = 24  # of one kind and client
_LISTEN_S = 12  # both send reports by then


class _Recorder:
    def __init__(self) -> None:
        self.found: dict[str, dict[bytes, None]] = {
            each: {} for each in ("stun", "dtls", "sctp", "srtp", "rtp", "rtcp")
        }
        self.left: dict[str, int] = {}

    def next_client(self) -> None:
        self.left = dict.fromkeys(self.found, _EACH)

    def note(self, kind: str, data: bytes) -> None:
        if self.left[kind] > 0 and data not in self.found[kind]:
            self.left[kind] -= 1
            self.found[kind][data] = None

    def datagram(self, data: bytes) -> None:
        kinds = {"stun": data[0] < 4, "dtls": 20 <= data[0] <= 63, "srtp": data[0] >= 128 and not rtp.is_rtcp(data)}
        for kind, holds in kinds.items():
            if holds:
                self.note(kind, data)

    def write(self) -> None:
        (HERE / "captures").mkdir(exist_ok=True)
        for kind, datagrams in self.found.items():
            text = "".join(each.hex() + "\n" for each in sorted(datagrams, key=len))
            (HERE / "captures" / f"{kind}.hex").write_text(text)
            print(kind, len(datagrams))


@contextlib.contextmanager
def _recording(worker: Worker, recorder: _Recorder) -> Iterator[None]:
    """What arrives, and what was in it once it was found authentic."""
    real = worker._on_datagram
    parse, parse_rtcp, receive = rtp.parse, rtcp.parse, data.DataChannels.receive

    def on_sctp(self: data.DataChannels, packet: bytes, now: float) -> None:
        recorder.note("sctp", packet)
        receive(self, packet, now)

    def on_datagram(datagram: bytes, address: Address) -> None:
        recorder.datagram(datagram)
        real(datagram, address)

    def noting(kind: str, read: Any) -> Any:
        def note(data: bytes, *rest: int) -> Any:
            recorder.note(kind, data)
            return read(data, *rest)

        return note

    worker._on_datagram = on_datagram  # type: ignore[method-assign,assignment]
    data.DataChannels.receive = on_sctp  # type: ignore[method-assign]
    rtp.parse, rtcp.parse = noting("rtp", parse), noting("rtcp", parse_rtcp)
    try:
        worker.start()
        yield
    finally:
        worker.close()
        rtp.parse, rtcp.parse = parse, parse_rtcp
        data.DataChannels.receive = receive  # type: ignore[method-assign]


async def capture() -> None:
    recorder = _Recorder()
    worker = Worker(WorkerSettings(), lambda message: None)
    with _recording(worker, recorder):

        async def answer(offer: str) -> str:
            recorder.next_client()
            reply = worker.handle(Join(1, "stage", f"p{len(worker._peers)}", "o", offer, True, True))
            assert isinstance(reply, Reply)
            assert reply.error is None, reply.error
            return reply.sdp

        raw, client = RawPeer(), RtcClient()
        raw.take(await answer(raw.offer))
        await raw.check()
        await raw.handshake()
        for payload in raw.voice(440, 24):
            raw.send(raw.protect(payload))
        channel = client.pc.createDataChannel("_reliable")
        await client.connect(answer)
        client.say(440)
        await asyncio.sleep(_LISTEN_S)
        channel.send("hello" * 1000)
        await _chromium(answer)
        await client.close()
        raw.close()
    recorder.write()


async def _chromium(answer: Any) -> None:
    async def offer(request: web.Request) -> web.Response:
        return web.Response(text=await answer(await request.text()))

    async def page(_: web.Request) -> web.Response:
        channel = "pc.createDataChannel('x').onopen = (event) => event.target.send('hello');"
        text = PAGE.replace("window.first", f"{channel} window.first")
        return web.Response(text=text, content_type="text/html")

    application = web.Application()
    application.add_routes([web.get("/", page), web.post("/offer", offer)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with tempfile.TemporaryDirectory() as directory:
        write_wav(Path(directory) / "tone.wav", sine(440, 10))
        async with Browser.launch("chromium", wav=Path(directory) / "tone.wav") as browser:
            tab = await browser.open(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            await tab.wait("document.querySelector('p').textContent === 'connected'")
            await asyncio.sleep(_LISTEN_S)
    await runner.cleanup()
