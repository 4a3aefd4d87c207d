"""A homeserver that is busy, broken or far away: a real one behind a proxy that answers in its place when told to."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from tests.helpers.ports import free_port
from tests.helpers.synapse import serving


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer in the homeserver's place. ``passed`` = the homeserver did it, and only its answer got lost."""

    status: int = 503
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    passed: bool = False
    hang_up: bool = False


def refusal(status: int, errcode: str, **more: Any) -> Fault:
    return Fault(status, json.dumps({"errcode": errcode, "error": "a fault", **more}).encode())


HANG_UP = Fault(hang_up=True)
LOST_ANSWER = Fault(hang_up=True, passed=True)


@dataclass
class FaultyProxy:
    """``faults`` are used up one by one, by requests whose path holds ``on``; ``seen`` keeps all as (method, path)."""

    upstream: str
    on: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    seen: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    _http: aiohttp.ClientSession | None = None

    def count(self, part: str) -> int:
        return sum(part in path for _, path in self.seen)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path
        self.seen.append((request.method, path))
        fault = self.faults.popleft() if self.faults and self.on in path else None
        if fault is None or fault.passed:
            answer = await self._pass_on(request)
        if fault is None:
            return answer
        if fault.hang_up:
            assert request.transport
            request.transport.close()
        return web.Response(
            status=fault.status, body=fault.body, headers=dict(fault.headers), content_type="application/json"
        )

    async def _pass_on(self, request: web.Request) -> web.Response:
        assert self._http
        headers = {
            name: value for name, value in request.headers.items() if name.lower() in ("authorization", "content-type")
        }
        async with self._http.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            data=await request.read(),
            headers=headers,
        ) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


@asynccontextmanager
async def faulty_proxy(upstream: str) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy(upstream)
    app = web.Application()
    app.add_routes([web.route("*", "/{rest:.*}", proxy.handle)])
    async with aiohttp.ClientSession() as http, serving(app, free_port()) as url:
        proxy._http, proxy.url = http, url
        yield proxy
