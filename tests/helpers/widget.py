"""The page as a widget in a client: matrix-widget-api's own host side in a real browser, on an origin of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from bridge.demo.client_api import ClientApi
from tests.helpers.browser import Browser, Page
from tests.helpers.element_call import HERE, install
from tests.helpers.pages import KEEP_STATES, PLAIN_MICROPHONE, Tab
from tests.helpers.ports import free_port
from tests.helpers.synapse import serving
from tests.helpers.world import StageHandle

WIDGETS, LAYOUT, WIDGET = "im.vector.modular.widgets", "io.element.widgets.layout", "eyvan"


@asynccontextmanager
async def client_page() -> AsyncIterator[str]:
    """The client's origin: another site than the page's (``localhost``, not 127.0.0.1). Yields the URL of its page."""
    await asyncio.to_thread(install)

    async def index(_: web.Request) -> web.Response:
        text = "<!doctype html><meta charset=utf-8><title>client</title><body><script src=/widget.js></script>"
        return web.Response(text=text, content_type="text/html")

    async def script(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "dist" / "widget.js")

    app = web.Application()
    app.add_routes([web.get("/client", index), web.get("/widget.js", script)])
    async with serving(app, free_port()) as url:
        yield url.replace("127.0.0.1", "localhost") + "/client"


@dataclass(frozen=True, slots=True)
class Framed:
    """One person's client with our page in its frame."""

    client: Page
    tab: Tab  # what is in the frame

    async def agree(self) -> None:
        """The person lets the widget know who they are."""
        await self.client.wait("host.agree !== null")
        await self.client.eval("host.agree()")


async def open_widget(
    browser: Browser, origin: str, person: ClientApi, stage: StageHandle, *, theme: str = "dark", lang: str = "en"
) -> Framed:
    """Once the room has its widget: shown to ``person``, who has not agreed to anything yet."""
    async with asyncio.timeout(60):
        while not await person.get_state(stage.room_id, WIDGETS, WIDGET):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    client = await browser.open(origin, before=PLAIN_MICROPHONE + KEEP_STATES)
    me = {
        "homeserver": person.base_url,
        "user": person.user,
        "token": person.account.access_token,
        "room": stage.room_id,
    }
    await client.wait("window.host")
    await client.eval(f"host.start({json.dumps(me)}, {json.dumps({'clientTheme': theme, 'clientLanguage': lang})})")
    return Framed(client, Tab(await client.frame("/s/widget")))
