"""A speaker of another homeserver by Element Call: heard from their own server's LiveKit, and only while on stage."""

from __future__ import annotations

import ipaddress
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from bridge.demo.federation import make_authority
from bridge.demo.site import own_address
from bridge.identity.safe_http import SafeHttp
from bridge.ids import RoomId, UserId
from bridge.live.ports import JsonObject
from bridge.matrix.matrixrtc import KIND, member_content
from bridge.matrix.partner_calls import Line, PartnerCalls, Parts
from bridge.media.partner_sfu import MAX_MESSAGE, Sfu, Uplink, query
from tests.helpers.fakes import ADMIN, BEN, CYD, ROOM, FakeMatrix, until
from tests.helpers.livekit import BINARY, Partner, Publisher, running_partner
from tests.helpers.ports import free_port
from tests.helpers.relay import Person, enter, loud, silent
from tests.helpers.studio import Studio, running_studio

pytestmark = pytest.mark.skipif(
    BINARY not in os.environ and not shutil.which("livekit-server"),
    reason=f"needs LiveKit's server, which takes Go and minutes to build: `make interop` does, and sets {BINARY}",
)

HZ = 520
BOT_THERE = "@eyvan:a.org:STAGE"
NETWORKS = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network(own_address())]


class OurServer:
    """What partner calls ask of our homeserver."""

    def __init__(self, matrix: FakeMatrix) -> None:
        self._matrix = matrix
        self.tokens = 0

    async def read_room(self, room: RoomId) -> Sequence[JsonObject]:
        return await self._matrix.read_room(room)

    async def openid_token(self) -> JsonObject:
        self.tokens += 1
        return {"access_token": f"token {self.tokens}", "matrix_server_name": "a.org", "expires_in": 3600}


@dataclass
class Federated:
    studio: Studio
    partner: Partner
    calls: PartnerCalls
    ear: Person
    stack: AsyncExitStack

    async def publisher(self, user: UserId, hz: int = HZ, device: str = "PHONE") -> Publisher:
        """Their Element Call: publishes at the partner's LiveKit, whatever the stage says."""
        made = Publisher(f"{user}:{device}", ROOM, self.partner.server.port)
        self.stack.push_async_callback(made.close)
        made.mouth.say(hz, -18)
        await made.start()
        return made

    def membership(self, user: UserId, service: str | None = None, device: str = "PHONE") -> None:
        now = self.studio.clock.now_ms()
        content = {**member_content(user, service or self.partner.service, ROOM, now, now), "device_id": device}
        self.studio.house.matrix.put(user, KIND, f"_{user}_{device}_m.call", content)

    def role(self, user: UserId, role: str) -> None:
        self.studio.house.matrix.role(ADMIN, user, role=role, stage_id=self.studio.stage)


@asynccontextmanager
async def federated(tmp_path: Path) -> AsyncIterator[Federated]:
    authority = make_authority(tmp_path / "authority")
    made = authority.settings(free_port(), ())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(made.certificate, made.key)
    http = SafeHttp(NETWORKS, ssl.create_default_context(cafile=made.ca))

    async def connect(url: str, jwt: str, line: Line) -> Sfu:
        socket = await http.socket(URL(f"{url}/rtc").with_query(query(jwt)), MAX_MESSAGE)
        return Sfu(socket, line, http.check)

    async with AsyncExitStack() as stack:
        studio = await stack.enter_async_context(running_studio(tmp_path))
        matrix = studio.house.matrix
        power: dict[str, Any] = dict(matrix.rooms[ROOM].content("m.room.power_levels"))
        matrix.put(ADMIN, "m.room.power_levels", "", {**power, "events": {**power.get("events", {}), KIND: 0}})
        partner = await stack.enter_async_context(running_partner(tmp_path, tls))
        parts = Parts(OurServer(matrix), http, connect, Uplink, studio.clock)
        calls = PartnerCalls("https://own.test/livekit", "a.org", studio.house.rooms, parts)
        push = matrix.push

        def push_to_both(events: list[dict[str, Any]]) -> None:
            push(events)
            for event in events:
                calls.take(ROOM, event)

        matrix.push = push_to_both
        stack.push_async_callback(calls.close)
        calls.start()
        ear = await enter(studio.workers, studio.stage, "ear", speak=False)
        stack.push_async_callback(ear.client.close)
        yield Federated(studio, partner, calls, ear, await stack.enter_async_context(AsyncExitStack()))


async def test_a_partners_user_is_fetched_for_as_long_as_they_are_on_stage(tmp_path: Path) -> None:
    async with federated(tmp_path) as here:
        here.membership(BEN)
        ben = await here.publisher(BEN)
        stranger = await here.publisher(CYD, 880)  # at the same SFU, with no membership that names it
        here.role(CYD, "speaker")
        await until(lambda: here.studio.house.stage().state.on_stage(CYD), "the stranger's role")
        assert BOT_THERE not in ben.others

        here.role(BEN, "speaker")
        heard = await here.ear.client.hear(loud(HZ))
        assert not loud(880)(heard)
        await until(lambda: ben.others.get(BOT_THERE), "the bot at their SFU")
        await until(lambda: seen(here, BEN) and seen(here, BEN)[0].mic == "on", "their microphone on the page")

        await ben.mute(True)
        await until(lambda: seen(here, BEN)[0].mic == "off", "their microphone off on the page")
        await ben.mute(False)
        await here.ear.client.hear(loud(HZ))

        here.role(BEN, "listener")
        await here.ear.client.hear(silent)
        await until(lambda: not ben.others[BOT_THERE], "the bot leaves their SFU")
        assert stranger.others[BOT_THERE] is False

        here.role(BEN, "speaker")
        await here.ear.client.hear(loud(HZ))


async def test_their_sfu_comes_back_after_a_crash(tmp_path: Path) -> None:
    async with federated(tmp_path) as here:
        here.membership(BEN)
        ben = await here.publisher(BEN)
        here.role(BEN, "speaker")
        await here.ear.client.hear(loud(HZ))
        await here.partner.server.stop()
        await here.ear.client.hear(silent)
        await ben.close()
        await here.partner.server.start()
        await here.publisher(BEN)
        await here.ear.client.hear(loud(HZ))


async def test_a_service_speaks_for_nobody_who_does_not_name_it(tmp_path: Path) -> None:
    async with federated(tmp_path) as here:
        here.membership(BEN)
        here.membership(CYD, "https://elsewhere.test/jwt")
        await here.publisher(CYD, 880)
        await here.publisher(BEN)
        for user in (BEN, CYD):
            here.role(user, "speaker")
        heard = await here.ear.client.hear(loud(HZ))
        heard = await here.ear.client.hear(lambda now: loud(HZ)(now) and len(now) >= len(heard))
        assert not loud(880)(heard)


def seen(here: Federated, user: UserId) -> list[Any]:
    view = here.studio.house.stage()._window._look(True)[0]
    return [person for person in view.speakers if person.user == user]
