"""A live stage at which a test throws things, with those who must not notice: requests, events and links of anybody."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from bridge.demo.people import PageClient
from bridge.identity.links import LinkSigner
from bridge.ids import RoomId, StageId, UserId
from tests.helpers.hearing import Stalls, TimedEar, until
from tests.helpers.world import StageHandle, World

MEMBERS = ("host", "ava", "ben", "cyrus", "dara", "eli", "fay")
HANG_S = 60
HOUR_MS = 3_600_000


@dataclass
class Hall:
    world: World
    stage: StageHandle
    pages: dict[str, PageClient]  # of those who must not be disturbed
    ear: TimedEar
    eli: PageClient  # whose page sends junk
    links: dict[str, str]
    stalls: Stalls
    http: aiohttp.ClientSession

    @property
    def signer(self) -> LinkSigner:
        return LinkSigner(self.world.site.tokens["link_secret"])

    def user(self, name: str) -> UserId:
        return self.world.users[name].user

    def forged(
        self, name: str, *, room: str = "", stage: str = "", age_h: int = 0, signer: LinkSigner | None = None
    ) -> str:
        """A link that the bot would not have given."""
        issued = time.time_ns() // 1_000_000 - age_h * HOUR_MS
        room_id, stage_id = RoomId(room or self.stage.room_id), StageId(stage or self.stage.stage_id)
        return (signer or self.signer).make(self.user(name), room_id, stage_id, issued, 12)

    async def open(self, link: object, device: str | None = None) -> tuple[int, dict[str, Any]]:
        """``POST /api/v1/sessions``: status and body."""
        body = {"link": link} | ({"device": device} if device else {})
        async with self.http.post(f"{self.world.web}/api/v1/sessions", json=body) as answer:
            return answer.status, await answer.json()

    async def refused(self, link: str) -> tuple[int, str]:
        """Status and reason, once the link opens nothing any more."""
        async with asyncio.timeout(HANG_S):
            while True:
                status, body = await self.open(link)
                if status != 200:
                    return status, body["reason"]
                await asyncio.sleep(0.2)

    async def transaction(self, token: str | None, events: list[Any]) -> tuple[int, dict[str, Any]]:
        """What the homeserver sends, by anybody."""
        port = self.world.site.ports["appservice"]
        url = f"http://127.0.0.1:{port}/_matrix/app/v1/transactions/{secrets.token_hex(8)}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.http.put(url, json={"events": events}, headers=headers) as answer:
            return answer.status, await answer.json()

    def hand(self, name: str, **given: Any) -> dict[str, Any]:
        """An ``im.eyvan.hand`` as the homeserver would send it."""
        return {
            "type": "im.eyvan.hand",
            "room_id": self.stage.room_id,
            "event_id": f"${secrets.token_hex(8)}",
            "sender": self.user(name),
            "origin_server_ts": time.time_ns() // 1_000_000,
            "content": {"raised": True},
            **given,
        }

    def queue(self) -> set[str]:
        """Who the host's page shows with a hand."""
        return {each.user for each in self.pages["host"].queue}

    async def lower_all(self) -> None:
        for name in ("cyrus", "fay", "ben"):
            if self.user(name) in self.queue():
                await self.world.users[name].send(self.stage.room_id, {"raised": False}, "im.eyvan.hand")
        await until(lambda: not self.queue(), lambda: f"hands {self.queue()} stay up")


@contextlib.asynccontextmanager
async def socket_of_eli(hall: Hall) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A page of eli's without a page, past its snapshot."""
    status, body = await hall.open(hall.links["eli"].partition("#l=")[2], hall.eli._device)
    assert status == 200, body
    async with hall.http.ws_connect(f"{hall.world.web}/api/v1/socket") as ws:
        await ws.send_json({"t": "hello", "session": body["session"]})
        await answer_to(ws, "snapshot")
        yield ws


async def answer_to(ws: aiohttp.ClientWebSocketResponse, *kinds: str) -> dict[str, Any]:
    """The next frame of these kinds; patches and levels are passed over."""
    async with asyncio.timeout(HANG_S):
        while True:
            frame: dict[str, Any] = await ws.receive_json()
            if frame["t"] in kinds:
                return frame
