"""Two homeservers share a room: members, state and messages of either come to the other, and to our appservice."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.errors import MatrixRefused
from bridge.ids import UserId
from bridge.matrix.incoming import Incoming
from bridge.matrix.outgoing import Outgoing
from bridge.store import DatabaseStore, open_store
from tests.helpers.federation import Federation
from tests.helpers.synapse import Delivered, WallClock, listening


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DatabaseStore]:
    opened = await open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    await opened.close()


@pytest.fixture
async def outgoing(federation: Federation, store: DatabaseStore) -> AsyncIterator[Outgoing]:
    a = federation.a
    made = Outgoing(a.url, a.registration.as_token, a.bot, "eyvan", store)
    await made.start()
    yield made
    await made.close()


async def test_the_partners_moderator_writes_state_that_reaches_us(
    federation: Federation, outgoing: Outgoing, store: DatabaseStore
) -> None:
    a, b = federation.a, federation.b
    delivered = Delivered()
    incoming = Incoming(a.registration.hs_token, store, delivered, WallClock())
    ava, ben = await a.person("ava"), await b.person("ben")
    async with listening(incoming, a.registration.port):
        room = await ava.create_room("stage", invite=[a.bot, ben.user])
        await outgoing.join(room)
        await ben.wait_for_invite(ava.user)
        await ben.join(room)
        await ava.set_power(room, a.bot, 50)
        levels = await ava.set_power(room, ben.user, 50)
        await ben.wait_for_event(room, lambda event: event["event_id"] == levels)

        key, content = f"_{ava.user}", {"role": "speaker"}
        written = await ben.put_state(room, "im.eyvan.role", key, content)
        row = await delivered.wait_for(written)
        assert (row.event["sender"], row.event["content"]) == (ben.user, content)
        confirmed = await outgoing.read_state(room, "im.eyvan.role", key)
        assert confirmed is not None
        assert confirmed["event_id"] == written, "what our homeserver resolves is the event that came"

        ours = await outgoing.write_state(room, "im.eyvan.role", f"_{ben.user}", {"role": "listener"})
        seen = await ben.wait_for_event(room, lambda event: event["event_id"] == ours)
        assert seen["sender"] == a.bot


async def test_a_room_is_joined_by_its_alias(federation: Federation) -> None:
    ava, ben = await federation.a.person("ava"), await federation.b.person("ben")
    room = await ava.create_room("open", alias="open")
    assert await ben.join(f"#open:{federation.a.synapse.server_name}") == room
    sent = await ben.send(room, "hello from the other side")
    await ava.wait_for_event(room, lambda event: event["event_id"] == sent)


async def test_a_member_without_the_power_is_refused_by_their_own_server(federation: Federation) -> None:
    ava, ben = await federation.a.person("ava"), await federation.b.person("ben")
    room = await ava.create_room("strict", alias="strict")
    await ben.join(f"#strict:{federation.a.synapse.server_name}")
    with pytest.raises(MatrixRefused) as refused:
        await ben.put_state(room, "im.eyvan.role", f"_{ben.user}", {"role": "speaker"})
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_the_bot_opens_a_direct_chat_with_a_person_of_the_partner(
    federation: Federation, outgoing: Outgoing
) -> None:
    a, b = federation.a, federation.b
    ben = await b.person("ben")
    await outgoing.tell(ben.user, "your link", "your link")
    room = await ben.wait_for_invite(a.bot)
    await ben.join(room)
    said = [event["content"].get("body") for event in await ben.get_messages(room) if event["sender"] == a.bot]
    assert "your link" in said, "their server fetches what was said before they came in"
    await outgoing.tell(ben.user, "again", "again")
    await ben.wait_for_event(room, lambda event: event["content"].get("body") == "again")

    with pytest.raises(MatrixRefused):
        await outgoing.tell(UserId(f"@nobody:{b.synapse.server_name}x"), "text", "text")


async def test_only_our_own_authority_vouches_for_the_two(federation: Federation) -> None:
    settings = federation.b.synapse._federation
    assert settings

    async def version(context: ssl.SSLContext) -> Any:
        url = f"https://{federation.b.synapse.server_name}/_matrix/key/v2/server"
        async with aiohttp.ClientSession() as http, http.get(url, ssl=context) as answer:
            return await answer.json()

    ours = ssl.create_default_context(cafile=str(settings.ca))
    assert (await version(ours))["server_name"] == federation.b.synapse.server_name
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await version(ssl.create_default_context())
