"""The page's origin on a free port, in front of a house of fakes and a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.config import WebConfig, WidgetConfig
from bridge.identity.links import LinkSigner
from bridge.identity.openid import USERINFO, OpenId
from bridge.ids import RoomId, UserId
from bridge.live.confirmations import Confirmations
from bridge.store import open_store
from bridge.web.server import WebServer
from tests.helpers.fakes import AVA, BEN, BOT, CYD, HANG_S, MOD, ROOM, FakeMatrix, FaultyStore, HandClock, House
from tests.helpers.ports import free_port
from tests.helpers.synapse import serving

SECRET = "s" * 40


class Socket:
    """A page's WebSocket: frames as JSON objects."""

    def __init__(self, raw: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = raw
        self.frames: list[dict[str, Any]] = []

    async def send(self, **frame: Any) -> None:
        await self.raw.send_str(json.dumps(frame))

    async def next(self, kind: str, **holds: Any) -> dict[str, Any]:
        """The next frame of this type with these values; the others are kept in ``frames``."""
        async with asyncio.timeout(HANG_S):
            while True:
                message = await self.raw.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, f"closed while waiting for {kind}: {self.frames[-5:]}"
                frame: dict[str, Any] = json.loads(message.data)
                self.frames.append(frame)
                if frame["t"] == kind and all(frame.get(name) == value for name, value in holds.items()):
                    return frame

    async def part(self, name: str, holds: Any) -> Any:
        """The newest of a part of the view (``me``, ``speakers`` …), as soon as it holds."""
        async with asyncio.timeout(HANG_S):
            while True:
                found = [f[name] for f in self.frames if f["t"] in ("snapshot", "patch") and name in f]
                if found and holds(found[-1]):
                    return found[-1]
                message = await self.raw.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, f"closed while waiting for {name}: {self.frames[-5:]}"
                self.frames.append(json.loads(message.data))

    async def until_closed(self) -> dict[str, Any]:
        """Until the server closes; returns the last frame."""
        async with asyncio.timeout(HANG_S):
            while True:
                message = await self.raw.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return self.frames[-1] if self.frames else {}
                self.frames.append(json.loads(message.data))


@dataclass
class Origin:
    """What tests of the web speak to."""

    url: str
    house: House
    server: WebServer
    signer: LinkSigner
    http: aiohttp.ClientSession
    store: FaultyStore
    clock: HandClock
    tokens: dict[str, str]  # OpenID token → whose it is, by the word of the homeserver a.org
    sockets: list[aiohttp.ClientWebSocketResponse] = field(default_factory=list)

    def link(self, user: UserId, room: RoomId = ROOM, *, hours: int = 12, stage: str | None = None) -> str:
        stage_id = stage or self.house.stage(room).stage_id
        assert stage_id is not None
        return self.signer.make(user, room, stage_id, self.clock.now_ms(), hours)  # type: ignore[arg-type]

    async def post(self, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.url + "/api/v1/sessions", data=data, headers=headers) as response:
            return response.status, await response.json()

    async def session(self, user: UserId | None, **more: Any) -> str:
        body = {"link": self.link(user), **more} if user else {"guest": self.house.stage().stage_id}
        status, opened = await self.post(body)
        assert status == 200, opened
        return str(opened["session"])

    async def socket(self) -> Socket:
        self.sockets.append(await self.http.ws_connect(self.url + "/api/v1/socket", max_msg_size=2**22))
        return Socket(self.sockets[-1])

    async def page(self, user: UserId | None, session: str | None = None, lang: str = "en") -> Socket:
        """Signed in, with its first snapshot."""
        opened = await self.socket()
        await opened.send(t="hello", session=session or await self.session(user), lang=lang)
        await opened.next("snapshot")
        return opened


async def hang_up(sockets: list[aiohttp.ClientWebSocketResponse]) -> None:
    """What a test leaves open is closed, not left to the garbage collector and to the next test."""
    await asyncio.gather(*(each.close() for each in sockets))


@asynccontextmanager
async def userinfo(tokens: dict[str, str]) -> AsyncIterator[str]:
    """Our own homeserver, as far as it knows OpenID tokens; yields its URL."""

    async def answer(request: web.Request) -> web.Response:
        user = tokens.get(request.query["access_token"])
        return web.json_response({"sub": user} if user else {"errcode": "M_UNKNOWN_TOKEN"}, status=200 if user else 401)

    app = web.Application()
    app.add_routes([web.get(USERINFO, answer)])
    async with serving(app, free_port()) as url:
        yield url


@pytest.fixture
async def origin(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Origin]:
    clock = HandClock()
    async with AsyncExitStack() as stack:  # a start that fails leaves no thread of SQLite for which pytest waits
        database = await open_store(f"sqlite:///{tmp_path / 'eyvan.db'}", clock.now_ms)
        stack.push_async_callback(database.close)
        store = FaultyStore(database)
        matrix = FakeMatrix(clock)
        matrix.make_room(ROOM, BOT, MOD, AVA, BEN, CYD)
        house = House(matrix, store, clock)
        stack.push_async_callback(house.close)
        await house.start()
        await house.live()
        port = free_port()
        more: dict[str, Any] = {"trusted_proxies": (), **getattr(request, "param", {})}
        config = WebConfig(public_url=f"http://127.0.0.1:{port}", port=port, link_secret=SECRET, **more)
        signer = LinkSigner(SECRET)
        confirmations, tokens = Confirmations(matrix, clock, "en"), dict[str, str]()
        stack.push_async_callback(confirmations.close)
        house.also = confirmations.reacted
        openid = OpenId("a.org", await stack.enter_async_context(userinfo(tokens)))
        stack.push_async_callback(openid.close)
        widget = (WidgetConfig(), openid, confirmations)
        server = WebServer(config, house.rooms, store, signer, clock, "!", widget=widget)
        stack.push_async_callback(server.close)
        await server.start()
        async with aiohttp.ClientSession() as http:
            made = Origin(config.public_url, house, server, signer, http, store, clock, tokens)
            yield made
            await hang_up(made.sockets)
            await server.close()
