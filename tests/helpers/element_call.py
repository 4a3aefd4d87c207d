"""Element Call, unmodified, as a widget in Chromium: its npm package, a host page of ours, and what one sees of it.

The package is AGPL-3.0: it is run here and no part of it is in this repository.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from aiohttp import web

from bridge.config import load_config
from bridge.demo.client_api import ClientApi
from bridge.demo.site import Site
from bridge.registration import registration_yaml
from tests.helpers.browser import Browser, BrowserError, Page
from tests.helpers.ports import free_port
from tests.helpers.synapse import ADDRESS, serving
from tests.helpers.world import StageHandle

HERE = Path(__file__).parents[1] / "element_call"
PACKAGE = HERE / "node_modules" / "@element-hq" / "element-call-embedded" / "dist"
MEMBER = "org.matrix.msc3401.call.member"
HANG_S = 90
Pcm = npt.NDArray[np.int16]

RTC = {"enabled": True, "claim_rtc": True}


def homeserver(site: Site) -> Mapping[str, Any]:
    """What Synapse needs for it: docs/element-call.md."""
    site.registration.write_text(registration_yaml(load_config(site.config, {})))  # of the whole configuration
    listener = {"port": site.ports["homeserver"], "bind_addresses": [ADDRESS], "type": "http", "tls": False}
    return {
        "listeners": [{**listener, "resources": [{"names": ["client", "openid"], "compress": False}]}],
        "experimental_features": {f"msc{number}_enabled": True for number in (4143, 4222, 4354, 4512)},
        "max_event_delay_duration": "24h",
        "matrix_rtc": {"transports": [{"type": "livekit", "livekit_service_url": f"{site.web}/livekit"}]},
        "rc_delayed_event_mgmt": {"per_second": 1000, "burst_count": 1000},
    }


def install() -> None:
    """The package and the built host page. Raises CalledProcessError with what npm said."""
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    if not all((HERE / "node_modules" / name).exists() for name in wanted):
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    subprocess.run(["npm", "run", "--silent", "build"], cwd=HERE, check=True)


@asynccontextmanager
async def host_page() -> AsyncIterator[str]:
    """The origin that serves the pages ``/host`` (for Element Call) and ``/livekit``; yields its URL."""
    await asyncio.to_thread(install)

    async def index(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        text = f"<!doctype html><meta charset=utf-8><title>{name}</title><body><script src=/js/{name}.js></script>"
        return web.Response(text=text, content_type="text/html")

    async def newer(_: web.Request) -> web.Response:
        return web.json_response({**json.loads((PACKAGE / "config.json").read_text()), "matrix_rtc_mode": "matrix_2_0"})

    app = web.Application()
    app.add_routes([web.get("/ec-2.0/config.json", newer), web.get("/{name:host|livekit}", index)])
    app.add_routes([web.static("/js", HERE / "dist"), web.static("/ec", PACKAGE), web.static("/ec-2.0", PACKAGE)])
    async with serving(app, free_port()) as url:
        yield url


class ElementCall:
    """One person's Element Call in one tab."""

    def __init__(self, page: Page, person: ClientApi) -> None:
        self.page, self.person = page, person

    @property
    def key(self) -> str:
        """The state key of this person's call membership."""
        return f"_{self.person.user}_{self.person.account.device_id}_m.call"

    async def wait(self, condition: str, what: str, limit_s: float = HANG_S) -> None:
        try:
            await self.page.wait(condition, limit_s)
        except BrowserError as error:
            console = "\n".join((await self.page.console())[-40:])
            shown = await self.page.eval("host.text().slice(0, 500)")
            acts = await self.page.eval("JSON.stringify(host.acts.map((a) => a.act))")
            raise AssertionError(f"{what}: {error}\nElement Call shows: {shown}\nacts: {acts}\n{console}") from None

    async def joined(self) -> None:
        await self.wait("host.did('io.element.join') > 0", "Element Call joins")

    async def hear(self, seconds: float) -> Pcm:
        """What its own audio element plays."""
        await self.wait("host.listen()", "Element Call plays something")
        return await self.page.hear(seconds)

    async def press_mute(self) -> None:
        assert await self.page.eval("host.press('incall_mute')")

    async def press(self, name: str) -> None:
        """The button of that name, as soon as there is one."""
        await self.wait(f"host.pressNamed({json.dumps(name)})", f"a button {name!r}")

    async def raise_hand(self) -> None:
        """Possible once Element Call has seen its own membership."""
        await self.wait(f"host.fed.has({json.dumps(self.key)})", "its own membership")
        await self.press("Reactions")
        await self.press("Raise hand")
        await self.wait("host.has('Lower hand')", "Element Call shows the hand up")

    async def text(self) -> str:
        text: str = await self.page.eval("host.text()")
        return text


async def open_call(
    browser: Browser, origin: str, person: ClientApi, stage: StageHandle, app: str = "ec", **more: str
) -> ElementCall:
    """``app``: ``ec``, or ``ec-2.0``, which writes sticky memberships (MSC4354) and asks ``/get_token``."""
    page = await browser.open(f"{origin}/host")
    given = {
        "homeserver": person.base_url,
        "user": person.user,
        "device": person.account.device_id,
        "token": person.account.access_token,
        "room": stage.room_id,
        "app": app,
        "more": more,
    }
    await page.wait("window.host")
    await page.eval(f"host.start({json.dumps(given)})")
    return ElementCall(page, person)
