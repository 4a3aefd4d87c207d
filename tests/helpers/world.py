"""A whole world for a test: a real Synapse, the bridge as a process, people, stages, personal links, pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bridge.demo.cast import ROLE, STAGE, ask_for_link, start_stage, wait_for_state
from bridge.demo.client_api import ClientApi
from bridge.demo.local_bridge import LocalBridge
from bridge.demo.people import PageClient
from bridge.demo.site import Site
from bridge.demo.synapse import LocalSynapse
from bridge.ids import EventId, RoomId, role_key

PEOPLE = ("host", "ava", "ben", "cyrus", "dara")


@dataclass(frozen=True, slots=True)
class StageHandle:
    """A live stage in a room of its own."""

    room_id: RoomId
    stage_id: str
    host: ClientApi


class World:
    """Owned by the fixture that made it; the pages it opened are closed by ``close_pages`` after each test."""

    def __init__(self, site: Site, synapse: LocalSynapse, bridge: LocalBridge) -> None:
        self.site, self.synapse, self.bridge = site, synapse, bridge
        self.users: dict[str, ClientApi] = {}
        self._pages: list[PageClient] = []

    @property
    def bot(self) -> str:
        return self.site.bot

    @property
    def web(self) -> str:
        """The page's base URL."""
        return self.site.web

    async def person(self, name: str) -> ClientApi:
        """That person, signed in; registered at the first call."""
        if name not in self.users:
            self.users[name] = self.synapse.client(await self.synapse.register(name, f"password of {name}"))
        return self.users[name]

    async def new_stage(
        self,
        host: str = "host",
        topic: str = "A talk",
        *,
        members: Sequence[str] = PEOPLE,
        power: Mapping[str, int] | None = None,
        public: bool = True,
    ) -> StageHandle:
        """A room made by ``host`` with the bot at level 50 and the members in it, and a live stage there.

        ``power``: levels of further people by name."""
        owner = await self.person(host)
        others = [await self.person(name) for name in members if name != host]
        levels = {self.users[name].user: level for name, level in (power or {}).items()}
        invite = [self.bot] if public else [self.bot, *(each.user for each in others)]
        room = await owner.create_room(topic, public=public, invite=invite, power={"users": {self.bot: 50, **levels}})
        await asyncio.gather(*(each.join(room) for each in others))
        await wait_for_state(owner, room, "m.room.member", self.bot, lambda c: c.get("membership") == "join")
        return StageHandle(room, await start_stage(owner, room, topic), owner)

    async def set_role(
        self, stage: StageHandle, name: str, role: str | None, *, by: ClientApi | None = None, **more: Any
    ) -> EventId:
        """One plain state event from ``by`` (the host): ``im.eyvan.role`` of that person; None takes the role away."""
        content = {"role": role, **more} if role else {}
        key = role_key(self.users[name].user)
        return await (by or stage.host).put_state(stage.room_id, ROLE, key, content)

    async def stage_state(self, stage: StageHandle) -> Mapping[str, Any]:
        """The content of ``im.eyvan.stage`` now."""
        return await stage.host.get_state(stage.room_id, STAGE) or {}

    async def link(self, name: str, stage: StageHandle) -> str:
        """A personal link, got as a person gets it: ``!link`` in the room, the bot's direct message."""
        return await ask_for_link(self.users[name], stage.room_id, self.bot)

    def guest_link(self, stage: StageHandle) -> str:
        return f"{self.web}/s/{stage.stage_id}"

    async def client(self, name: str, stage: StageHandle, *, lang: Literal["en", "fa"] = "en") -> PageClient:
        """That person's page, connected; closed after the test."""
        return await self.open(await self.link(name, stage), name=name, lang=lang)

    async def guest(self, stage: StageHandle) -> PageClient:
        return await self.open(self.guest_link(stage), name="guest")

    async def open(self, link: str, *, name: str = "", lang: Literal["en", "fa"] = "en") -> PageClient:
        page = PageClient(link, name=name, lang=lang)
        self._pages.append(page)
        return await page.connect()

    async def close_pages(self) -> None:
        pages, self._pages = self._pages, []
        await asyncio.gather(*(page.close() for page in pages))

    async def kill_bridge(self) -> None:
        """SIGKILL, as when it crashes."""
        await self.bridge.kill()

    async def stop_bridge(self) -> None:
        await self.bridge.stop()

    async def start_bridge(self) -> None:
        """Returns when it is ready; harmless where it runs."""
        await self.bridge.start()

    def log(self) -> str:
        """All that the bridge has logged, over its restarts."""
        return self.bridge.log_text()


@asynccontextmanager
async def running_world(
    directory: Path,
    python: Path,
    *,
    people: Sequence[str] = PEOPLE,
    config: Mapping[str, Any] | None = None,
    media: Mapping[str, Any] | None = None,
    address: str | None = None,
    sections: Mapping[str, Any] | None = None,
    homeserver: Callable[[Site], Mapping[str, Any]] = lambda site: {},
) -> AsyncIterator[World]:
    """``config``: values laid over the stage section of the bridge's configuration; ``media``: over that section;
    ``sections``: over any section; ``homeserver``: laid over Synapse's. ``address``: serve page and sound there."""
    async with AsyncExitStack() as stack:
        site = stack.enter_context(Site.open(directory, address=address))
        site.media = dict(media or {})
        site.write_files(**dict(config or {}))
        if sections:
            values = json.loads(site.config.read_text())
            values |= {name: {**values.get(name, {}), **section} for name, section in sections.items()}
            site.config.write_text(json.dumps(values))
        synapse = LocalSynapse(
            site.directory / "synapse",
            site.server_name,
            site.ports["homeserver"],
            site.registration,
            python,
            extra=homeserver(site),
        )
        stack.push_async_callback(synapse.stop)
        await synapse.start()
        bridge = LocalBridge(site.config, site.ready_url, site.directory / "bridge.log")
        stack.push_async_callback(bridge.stop)
        await bridge.start()
        world = World(site, synapse, bridge)
        stack.push_async_callback(_close_people, world)
        stack.push_async_callback(world.close_pages)
        for name in people:
            await world.person(name)
        yield world


async def _close_people(world: World) -> None:
    await asyncio.gather(*(person.close() for person in world.users.values()))
