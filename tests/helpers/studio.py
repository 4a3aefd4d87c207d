"""The page's origin in front of live stages and a real relay: what is heard by WHEP and stream is real sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp

from bridge.config import WebConfig
from bridge.identity.links import LinkSigner
from bridge.ids import PeerId, StageId, UserId
from bridge.live.rooms import Rooms
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
from bridge.rules.content import STAGE
from bridge.store import open_store
from bridge.web.server import WebServer
from tests.helpers.fakes import ADMIN, AVA, BEN, BOT, CYD, MOD, ROOM, FakeMatrix, FaultyStore, HandClock, House, until
from tests.helpers.ogg import OggReader
from tests.helpers.ports import free_port
from tests.helpers.relay import Person, enter

SECRET = "s" * 40


class _Ears:
    rooms: Rooms | None = None

    def peer_connected(self, peer: PeerId) -> None: ...

    def peer_gone(self, peer: PeerId, reason: str) -> None:
        if self.rooms is not None:
            self.rooms.peer_gone(peer, reason)

    def peer_pressed(self, peer: PeerId, key: str) -> None: ...

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None: ...


@dataclass
class Studio:
    """A live stage on a real relay; people speak by ``voice``."""

    url: str
    house: House
    workers: Workers
    signer: LinkSigner
    http: aiohttp.ClientSession
    clock: HandClock
    server: WebServer
    stack: AsyncExitStack

    @property
    def stage(self) -> StageId:
        found = self.house.stage().stage_id
        assert found is not None
        return found

    async def voice(self, owner: str = "speaker", hz: float | None = 440) -> Person:
        """Somebody who is heard on the stage."""
        person = await enter(self.workers, self.stage, owner, speak=True)
        self.stack.push_async_callback(person.client.close)
        person.client.say(hz)
        return person

    def whep_token(self, user: UserId) -> str:
        return self.signer.make_whep(user, ROOM, self.stage, self.clock.now_ms(), 12)

    async def session(self, user: UserId | None) -> str:
        link = user and self.signer.make(user, ROOM, self.stage, self.clock.now_ms(), 12)
        body = {"link": link} if link else {"guest": self.stage}
        async with self.http.post(f"{self.url}/api/v1/sessions", json=body) as response:
            opened = await response.json()
            assert response.status == 200, opened
            return str(opened["session"])

    async def guests(self, allowed: bool) -> None:
        content = {**self.house.matrix.rooms[ROOM].content(STAGE), "guests": allowed}
        self.house.matrix.put(ADMIN, STAGE, "", content)
        await until(lambda: self.house.stage().state.may_hear(None) is allowed, "guests")

    async def listen(self, user: UserId | None = AVA, **more: Any) -> OggReader:
        """A stream that has begun."""
        headers = {"Authorization": f"Bearer {self.whep_token(user)}"} if user else {}
        response = await self.http.get(f"{self.url}/listen/{self.stage}.ogg", headers=headers, **more)
        assert response.status == 200, await response.text()
        self.stack.callback(response.close)
        return OggReader(response)

    def audience(self) -> int:
        views = self.house.stage()._window._look(True)
        return views[0].audience.count


@asynccontextmanager
async def running_studio(directory: Path, *people: UserId) -> AsyncIterator[Studio]:
    """With ADMIN, MOD, AVA, BEN, CYD and ``people`` in the room, and a live stage."""
    async with AsyncExitStack() as stack:
        clock = HandClock()
        database = await open_store(f"sqlite:///{directory / 'eyvan.db'}", clock.now_ms)
        stack.push_async_callback(database.close)
        ears = _Ears()
        workers = Workers(WorkerSettings(), ears)
        stack.push_async_callback(workers.close)
        await workers.start()
        matrix = FakeMatrix(clock)
        matrix.make_room(ROOM, BOT, MOD, AVA, BEN, CYD, *people)
        house = await House(matrix, FaultyStore(database), clock, media=cast(Any, workers)).start()
        ears.rooms = house.rooms
        stack.push_async_callback(house.close)
        await house.live()
        port = free_port()
        config = WebConfig(public_url=f"http://127.0.0.1:{port}", port=port, link_secret=SECRET)
        signer = LinkSigner(SECRET)
        server = WebServer(config, house.rooms, house.store, signer, clock, "!", source=workers)
        await server.start()
        stack.push_async_callback(server.close)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        inner = await stack.enter_async_context(AsyncExitStack())
        yield Studio(config.public_url, house, workers, signer, http, clock, server, inner)
        await asyncio.sleep(0)
