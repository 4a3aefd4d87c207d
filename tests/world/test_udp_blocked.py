"""Where a network lets no UDP through, sound goes by TCP; where UDP dies in mid-stage, sound comes back by itself.

::

    A 203.0.113.1: homeserver, bridge, people ──veth── 203.0.113.2: B, a real Chromium that listens and speaks

UDP from the other side is dropped in silence, as such networks do it. 203.0.113.0/24 is public to Chromium, which takes
port 443 at no private address.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.demo.people import PageClient
from bridge.demo.voices import write_wav
from tests.helpers.browser import Browser, Kind, Page
from tests.helpers.certificates import certificate
from tests.helpers.hearing import TimedEar
from tests.helpers.netns import Namespace, block_udp, blocked_udp, inside, nft, require_root, two_namespaces
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import StageHandle, World, running_world

HANG_S = 120
AVA, BEN = 660, 450  # Hz; TimedEar wants multiples of 50
LIVE = "document.documentElement.dataset.connection === 'live'"
# Keeps the peer connections, and notes each 50 ms when packets came in: the gap is read off that.
BEFORE = """
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wish) => real({ ...wish, audio: {
  ...(typeof wish.audio === "object" ? wish.audio : {}),
  echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
window.kept = [];
window.arrivals = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(settings) { super(settings); window.kept.push(this); }
};
let count = -1;
setInterval(async () => {
  const peer = window.kept.at(-1);
  if (!peer) return;
  let received = 0;
  for (const each of (await peer.getStats()).values()) {
    if (each.type === "inbound-rtp") received += each.packetsReceived;
  }
  if (received !== count && received > 0) window.arrivals.push(Date.now());
  count = received;
}, 50);
"""
PATH = """
window.kept.at(-1).getStats().then((stats) => {
  const all = [...stats.values()];
  const transport = all.find((each) => each.type === "transport");
  const pair = all.find((each) => each.id === transport?.selectedCandidatePairId);
  const remote = all.find((each) => each.id === pair?.remoteCandidateId);
  return remote ? [remote.protocol, remote.address, remote.port] : null;
})
"""


class Scene:
    """A stage in A with ava, who talks, and ben's browser in B."""

    def __init__(self, world: World, stage: StageHandle, page: Page, ear: TimedEar, ben: str) -> None:
        self.world, self.stage, self.page, self.ear, self.ben = world, stage, page, ear, ben

    async def metric(self, name: str) -> int:
        url = self.world.site.ready_url.replace("/health/ready", "/metrics")
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            found = re.search(rf"^{name}(?:{{worker=\"0\"}})? (\d+)", await answer.text(), re.MULTILINE)
        assert found is not None, name
        return int(found[1])

    async def path(self) -> Any:
        """Of ben's browser: protocol, address and port of what it sends to."""
        return await self.page.eval(PATH)

    async def both_ways(self) -> None:
        """Ben hears ava, and is heard."""
        end = time.monotonic() + HANG_S
        while True:
            heard = await self.page.hear(1.0)
            if ratio_at(heard, AVA) > 20 and level_at(heard, AVA) > -40:
                break
            assert time.monotonic() < end, f"ava is at {level_at(heard, AVA):.0f} dBFS in ben's browser"
        while not self.ear.hears(BEN, 1.0):
            assert time.monotonic() < end, "ben is not heard"
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def scene(world: World, far: Namespace, directory: Path, kind: Kind = "chromium") -> AsyncIterator[Scene]:
    """Called inside A. Returns when ben is on stage with his microphone on."""
    stage = await world.new_stage(topic="Behind a wall")
    ear = TimedEar()
    async with contextlib.AsyncExitStack() as stack:
        ava = await stack.enter_async_context(PageClient(await world.link("ava", stage), name="ava"))
        await stack.enter_async_context(PageClient(await world.link("cyrus", stage), name="cyrus", ear=ear))
        await world.set_role(stage, "ava", "speaker")
        await world.set_role(stage, "ben", "speaker")
        await ava.wait(lambda c: c.me.can_speak, HANG_S, "ava may speak")
        ava.say(sine(AVA, 1.0), loop=True)
        await ava.mic(True)
        write_wav(directory / "ben.wav", sine(BEN, 10.0))
        voice: dict[str, Any] = {"wav": directory / "ben.wav"} if kind == "chromium" else {"tone": BEN}
        link = await world.link("ben", stage)
        with inside(far):
            browser = await stack.enter_async_context(Browser.launch(kind, trusted=world.web, **voice))
        page = await browser.open(link, before=BEFORE)
        await page.wait(LIVE, HANG_S)
        await page.wait("document.querySelector('[data-testid=mic]')?.dataset.state === 'off'", HANG_S)
        await page.click("[data-testid=mic]")
        await page.wait("document.querySelector('[data-testid=mic]')?.dataset.state === 'on'", HANG_S)
        yield Scene(world, stage, page, ear, str(world.users["ben"].user))


@contextlib.asynccontextmanager
async def stage_in(
    near: Namespace, directory: Path, python: Path, web: dict[str, str] | None = None, **media: Any
) -> AsyncIterator[World]:
    sections = {"web": web or {}, "media": media}
    with inside(near):
        async with running_world(directory / "world", python, address=near.address, sections=sections) as world:
            yield world


@pytest.mark.timeout(480)
@pytest.mark.parametrize(("kind", "announced"), [("chromium", 0), ("firefox", 443)])
async def test_listener_and_speaker_behind_a_wall_that_udp_does_not_pass(
    kind: Kind, announced: int, synapse_python: Path, tmp_path: Path
) -> None:
    require_root()
    async with two_namespaces() as (near, far):
        for each in (near, far):
            await block_udp(each)
        async with stage_in(near, tmp_path, synapse_python, tcp_announce_port=announced) as world:
            own = world.site.ports["media"]
            if announced:
                await nft(
                    near,
                    "add table ip nat",
                    "add chain ip nat in { type nat hook prerouting priority dstnat; }",
                    f"add rule ip nat in tcp dport {announced} redirect to :{own}",
                )
            async with scene(world, far, tmp_path, kind) as here:
                await here.both_ways()
                assert await here.path() == ["tcp", near.address, announced or own]
                assert await here.metric("eyvan_worker_streams") == 1
                assert await here.metric("eyvan_worker_tick_errors") == 0
                assert await blocked_udp(near) > 0, "it was tried"


@pytest.mark.timeout(480)
async def test_nothing_but_port_443(synapse_python: Path, tmp_path: Path) -> None:
    """Page by TLS and sound of a real Chromium at one port, which we listen on ourselves, with two media workers."""
    require_root()
    async with two_namespaces() as (near, far):
        for each in (near, far):
            await block_udp(each)
        files = certificate(tmp_path / "tls", near.address)
        web = {"tls_certificate": str(files[0]), "tls_key": str(files[1])}
        async with stage_in(near, tmp_path, synapse_python, web, tcp_single_port=443, workers=2) as world:
            trust = ssl.create_default_context(cafile=files[0])
            with inside(far):
                async with aiohttp.ClientSession() as http:
                    page = await http.get(f"https://{near.address}/", ssl=trust)
                    assert "<html" in await page.text()
            async with scene(world, far, tmp_path) as here:
                await here.both_ways()
                assert await here.path() == ["tcp", near.address, 443]
                assert await here.metric("eyvan_front_refused") == 0


@pytest.mark.timeout(480)
@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_udp_that_dies_in_mid_stage(
    kind: Kind, synapse_python: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    require_root()
    async with (
        two_namespaces() as (near, far),
        stage_in(near, tmp_path, synapse_python) as world,
        scene(world, far, tmp_path, kind) as here,
    ):
        await here.both_ways()
        assert (await here.path())[0] == "udp"
        await here.page.eval("(window.arrivals = []).length")
        blocked_at = time.monotonic()
        for each in (near, far):
            await block_udp(each)

        async def by_tcp() -> bool:
            path = await here.path()
            return bool(path) and path[0] == "tcp"

        end = time.monotonic() + HANG_S
        while not await by_tcp():
            assert time.monotonic() < end, await here.page.console()
            await asyncio.sleep(0.1)
        await here.both_ways()
        assert await here.metric("eyvan_worker_moved_to_tcp") == 1
        spoken_gap = here.ear.gap_ms(BEN, blocked_at)
        arrivals = await here.page.eval("window.arrivals")
        heard_gap = max(after - before for before, after in itertools.pairwise(arrivals))
        tell(f"UDP dies, {kind}: ben heard nothing for {heard_gap} ms, unheard {spoken_gap:.0f} ms")
