"""The browser helper measures a tone right: a call from a page to itself, under a strict CSP, in both browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from bridge.demo.voices import write_wav
from tests.helpers.browser import Browser, BrowserError, Kind
from tests.helpers.tone import level_at, ratio_at, sine

HELPERS = Path(__file__).parents[1] / "helpers"
CSP = "default-src 'none'; script-src 'self'; media-src 'self' blob: mediastream:"
HZ = 440


@pytest.fixture(scope="module")
async def address() -> AsyncIterator[str]:
    app = web.Application()

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(HELPERS / request.match_info["name"], headers={"Content-Security-Policy": CSP})

    app.router.add_get("/{name:loopback[.](?:html|js)}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/loopback.html"
    await runner.cleanup()


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wav") / "tone.wav"
    write_wav(path, sine(HZ, 4.0, dbfs=-6))
    return path


@pytest.mark.parametrize("kind", ["chromium", "firefox"])
async def test_hears_the_tone_of_its_microphone(kind: Kind, address: str, wav: Path) -> None:
    given = {"wav": wav} if kind == "chromium" else {"tone": HZ}
    async with Browser.launch(kind, lang="fa", dark=True, viewport=(400, 700), **given) as browser:
        page = await browser.open(address)
        await page.wait("document.querySelector('p').textContent === 'connected'")
        seen = await page.eval("[navigator.language, matchMedia('(prefers-color-scheme: dark)').matches, innerWidth]")
        assert seen == ["fa", True, 400]

        heard = await page.hear(2.0)
        assert len(heard) == 2 * 48_000
        assert ratio_at(heard, HZ) > 20
        assert level_at(heard, 660) < level_at(heard, HZ) - 30

        await page.click('[data-testid="go"]')
        assert await page.text('[data-testid="state"]') == "connected"
        assert "log: clicked" in await page.console()
        assert {url.rsplit("/", 1)[1] for url in await page.requests()} >= {"loopback.html", "loopback.js"}

        await page.eval("void (document.querySelector('audio').srcObject.getTracks()[0].enabled = false)")
        assert np.abs((await page.hear(1.0))[24_000:]).max() < 30, "a track switched off is silent"
        await page.eval("document.querySelector('audio').muted = true")
        with pytest.raises(BrowserError, match="is muted"):
            await page.hear(1.0)


async def test_says_what_it_waited_for_and_what_the_page_shows(address: str) -> None:
    async with Browser.launch("chromium") as browser:
        page = await browser.open(address)
        with pytest.raises(BrowserError, match=r"waited 0[.]2 s for 1 === 2; the page shows: "):
            await page.wait("1 === 2", timeout_s=0.2)
        with pytest.raises(BrowserError, match=r"waited 0[.]2 s for"):
            await page.click("#nowhere", timeout_s=0.2)
