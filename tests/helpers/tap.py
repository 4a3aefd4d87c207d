"""Stands between homeserver and bridge, sees every transaction, and strikes at a chosen moment of one.

::

    homeserver ─PUT─▶ Tap ─PUT─▶ bridge          receipt   the bridge has the request in hand
                                    │ commit     committed the rows are in its database, nothing is answered
    homeserver ◀─200─ Tap ◀─200─────┘            answered  the bridge said 200, the homeserver never gets it
                                                 passed    the homeserver has the 200; the gate is about to move
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import aiohttp
from aiohttp import web
from yarl import URL

from bridge.demo.site import Site, write_whole
from tests.helpers.ports import free_port
from tests.helpers.world import World

Moment = Literal["receipt", "committed", "answered", "passed"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
_HEADERS = ("authorization", "content-type")


@dataclass(slots=True)
class _Armed:
    moment: Moment
    about: str
    strike: Callable[[], None]


class Tap:
    """Armed once, it strikes once: at the next transaction with an event of the wanted type by anybody but the bot."""

    def __init__(self, upstream: str, database: Path, bot: str, rng: random.Random) -> None:
        self._upstream, self._database, self._bot, self._rng = upstream, database, bot, rng
        self._http = aiohttp.ClientSession()
        self._armed: _Armed | None = None
        self._strikes: set[asyncio.Task[None]] = set()
        self.failures: list[float] = []
        """When a transaction could not be handed to the bridge, by ``time.monotonic``."""

    def arm(self, moment: Moment, about: str, strike: Callable[[], None]) -> None:
        self._armed = _Armed(moment, about, strike)

    def disarm(self) -> None:
        self._armed = None

    async def close(self) -> None:
        await asyncio.gather(*self._strikes, return_exceptions=True)
        await self._http.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        armed = self._armed if self._armed and self._is_about(body, self._armed.about) else None
        if armed:
            self._armed = None
        try:
            return await (self._struck(request, body, armed) if armed else self._forward(request, body))
        except (aiohttp.ClientError, OSError):
            if request.method == "PUT":
                self.failures.append(time.monotonic())
            return web.json_response({"errcode": "M_UNKNOWN", "error": "the bridge is down"}, status=502)

    def _is_about(self, body: bytes, kind: str) -> bool:
        with contextlib.suppress(ValueError):
            events = json.loads(body).get("events", ())
            return any(each.get("type") == kind and each.get("sender") != self._bot for each in events)
        return False

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() in _HEADERS}
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._http.request(request.method, url, data=body, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    async def _struck(self, request: web.Request, body: bytes, armed: _Armed) -> web.Response:
        known = self._transactions()
        forward = asyncio.ensure_future(self._forward(request, body))
        if armed.moment == "receipt":
            await asyncio.sleep(self._rng.uniform(0, 0.004))
            armed.strike()
        elif armed.moment == "committed":
            while self._transactions() == known and not forward.done():  # noqa: ASYNC110  (of another process)
                await asyncio.sleep(0)
            armed.strike()
        answer = await forward
        if armed.moment == "answered":
            armed.strike()
        if armed.moment != "passed":
            raise aiohttp.ClientConnectionError("the answer was lost")
        task = asyncio.create_task(self._soon(armed.strike))
        self._strikes.add(task)
        task.add_done_callback(self._strikes.discard)
        return answer

    async def _soon(self, strike: Callable[[], None]) -> None:
        await asyncio.sleep(self._rng.uniform(0, 0.03))
        strike()

    def _transactions(self) -> int:
        return int(rows(self._database, "SELECT count(*) FROM eyvan_transaction")[0][0])


def rows(database: Path, query: str) -> list[tuple[str, ...]]:
    """What the bridge has committed to its database, read from outside."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return list(connection.execute(query))


@asynccontextmanager
async def tapped(world: World, rng: random.Random) -> AsyncIterator[Tap]:
    """Put a tap where the homeserver looks for the bridge of ``world``, and the bridge behind it."""
    site: Site = world.site
    await world.stop_bridge()
    port = free_port()
    config = json.loads(site.config.read_text())
    config["appservice"]["port"] = port
    write_whole(site.config, json.dumps(config))
    tap = Tap(f"http://127.0.0.1:{port}", site.directory / "eyvan.db", site.bot, rng)
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.route("*", "/{rest:.*}", tap.handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", site.ports["appservice"]).start()
        await world.start_bridge()
        yield tap
    finally:
        await runner.cleanup()
        await tap.close()
