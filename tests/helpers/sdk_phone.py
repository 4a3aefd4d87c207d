"""matrix-js-sdk in a browser as a telephone: the calls of Element Web and Desktop without their interface."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from bridge.demo.client_api import ClientApi
from tests.helpers.browser import Browser, BrowserError, Page, Pcm
from tests.helpers.ports import free_port
from tests.helpers.synapse import serving

HERE = Path(__file__).parents[1] / "legacy_call"
HANG_S = 60


def install() -> None:
    """The packages and the built page. Raises CalledProcessError with what npm said."""
    if not (HERE / "node_modules" / "matrix-js-sdk").exists():
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    subprocess.run(["npm", "run", "--silent", "build"], cwd=HERE, check=True)


@asynccontextmanager
async def phone_page() -> AsyncIterator[str]:
    """The origin that serves the page; yields its URL."""
    await asyncio.to_thread(install)

    async def index(_: web.Request) -> web.Response:
        text = "<!doctype html><meta charset=utf-8><title>phone</title><body><script src=/phone.js></script>"
        return web.Response(text=text, content_type="text/html")

    async def script(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "dist" / "phone.js")

    app = web.Application()
    app.add_routes([web.get("/", index), web.get("/phone.js", script)])
    async with serving(app, free_port()) as url:
        yield url


class SdkPhone:
    """One person's client in one tab."""

    def __init__(self, page: Page, person: ClientApi) -> None:
        self.page, self.person = page, person

    @classmethod
    async def open(cls, browser: Browser, origin: str, person: ClientApi) -> SdkPhone:
        page = await browser.open(f"{origin}/")
        account = {
            "homeserver": person.base_url,
            "user": person.user,
            "device": person.account.device_id,
            "token": person.account.access_token,
        }
        await page.wait("typeof phone === 'object'")
        await page.eval(f"phone.start({json.dumps(account)})")
        return cls(page, person)

    async def do(self, call: str) -> None:
        assert await self.page.eval(f"phone.{call}")

    async def wait(self, condition: str, what: str) -> None:
        """Until a condition of ``phone`` holds; an error tells what the client logged."""
        try:
            await self.page.wait(condition, HANG_S)
        except BrowserError as error:
            state = await self.page.eval("phone.state")
            console = "\n".join((await self.page.console())[-30:])
            raise AssertionError(f"{what}: {error}; the call is {state}\n{console}") from None

    async def connected(self) -> None:
        await self.wait("phone.state === 'connected'", "the call is connected")

    async def ended(self) -> str:
        """Why, as the client knows."""
        await self.wait("phone.ended.length > 0", "the call ends")
        return str(await self.page.eval("phone.ended.pop()"))

    async def hear(self, seconds: float = 0.6) -> Pcm:
        await self.wait(
            "(e => e?.srcObject?.getAudioTracks().length && !e.paused)(document.querySelector('audio'))", "sound plays"
        )
        return await self.page.hear(seconds)
