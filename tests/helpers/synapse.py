"""A real homeserver for a test module, with our registration, its people, and a listener in our place."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bridge.demo.synapse import Account, ClientApi, FederationSettings, LocalSynapse, ensure_synapse
from bridge.ids import EventId, RoomId, UserId
from bridge.live.ports import InboxRow
from bridge.matrix.incoming import Incoming
from tests.helpers.ports import free_port

ADDRESS = "127.0.0.1"
BOT_NAME = "eyvan"
SYNAPSE_VENV = Path(os.environ.get("EYVAN_SYNAPSE_VENV", Path(__file__).parents[2] / ".synapse-venv"))
HANG_S = 90  # how long a condition may take on a busy machine before the test says that it never came


async def until(condition: Callable[[], bool], limit_s: float = HANG_S) -> None:
    """Return when the condition holds; raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  (any condition, not only those with an event)
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Registration:
    """An appservice registration (Matrix application service API, "Registration")."""

    port: int
    id: str = "eyvan"
    as_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    hs_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    def write(self, path: Path, server_name: str) -> Path:
        users = [{"exclusive": True, "regex": f"@{BOT_NAME}:{server_name.replace('.', '[.]')}"}]
        content = {
            "id": self.id,
            "url": self.url,
            "as_token": self.as_token,
            "hs_token": self.hs_token,
            "sender_localpart": BOT_NAME,
            "rate_limited": False,
            "namespaces": {"users": users, "aliases": [], "rooms": []},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path


@dataclass
class Homeserver:
    """A running Synapse; owns the clients of its people."""

    synapse: LocalSynapse
    registration: Registration
    _people: dict[str, ClientApi] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.synapse.url

    @property
    def bot(self) -> UserId:
        return self.synapse.user_id(BOT_NAME)

    async def person(self, name: str, *, admin: bool = False) -> ClientApi:
        """That person's client, signed in; made at the first call."""
        if name not in self._people:
            account = await self.synapse.register(name, f"password of {name}", admin)
            self._people[name] = self.synapse.client(account)
        return self._people[name]

    def bot_client(self) -> ClientApi:
        """The bot as a plain client, for tests that need no Outgoing. The caller closes it."""
        return ClientApi(self.url, Account(self.bot, "", self.registration.as_token, ""))

    async def close(self) -> None:
        for client in self._people.values():
            await client.close()
        await self.synapse.stop()


@asynccontextmanager
async def running_homeserver(
    directory: Path,
    python: Path,
    *,
    server_name: str = "a.test",
    federation: FederationSettings | None = None,
    extra: Mapping[str, Any] | None = None,
) -> AsyncIterator[Homeserver]:
    """A Synapse with a registration whose listener is not up yet."""
    registration = Registration(free_port())
    file = registration.write(directory / "registration.yaml", server_name)
    synapse = LocalSynapse(
        directory, server_name, free_port(), file, python, federation=federation, address=ADDRESS, extra=extra
    )
    homeserver = Homeserver(synapse, registration)
    await synapse.start()
    try:
        yield homeserver
    finally:
        await homeserver.close()


@pytest.fixture(scope="session")
async def synapse_python() -> Path:
    return await ensure_synapse(SYNAPSE_VENV, print)


@pytest.fixture(scope="module")
async def homeserver(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Homeserver]:
    async with running_homeserver(tmp_path_factory.mktemp("homeserver"), synapse_python) as running:
        yield running


class WallClock:
    """The time of this machine; ``Clock`` of ports."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Delivered:
    """Takes the place of the live stages: keeps what is handed on, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[RoomId, InboxRow]] = []

    def __call__(self, room: RoomId, row: InboxRow) -> None:
        self.rows.append((room, row))

    def ids(self, room: RoomId | None = None) -> list[EventId]:
        return [EventId(row.event["event_id"]) for where, row in self.rows if room in (None, where)]

    async def wait_for(self, event: str) -> InboxRow:
        """The row of that event, when it has come."""
        await until(lambda: event in self.ids())
        return next(row for _, row in self.rows if row.event["event_id"] == event)


@asynccontextmanager
async def listening(incoming: Incoming, port: int) -> AsyncIterator[str]:
    """Serve the homeserver's way in; yields its base URL."""
    app = web.Application()
    app.add_routes(incoming.routes())
    async with serving(app, port) as url:
        yield url
    await incoming.close()


@asynccontextmanager
async def serving(app: web.Application, port: int) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, ADDRESS, port).start()
        yield f"http://{ADDRESS}:{port}"
    finally:
        await runner.cleanup()
