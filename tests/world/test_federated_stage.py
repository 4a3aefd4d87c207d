"""A stage on one homeserver, people on another: they listen, raise hands, speak, moderate; nothing is installed there.

``ours`` runs the bridge; ``theirs`` is a plain Synapse. The names differ in their host, as a server ACL knows no ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.demo.cast import ask_for_link, start_stage, wait_for_state
from bridge.demo.client_api import ClientApi
from bridge.demo.federation import make_authority
from bridge.demo.local_bridge import LocalBridge
from bridge.demo.people import PageClient, RequestRefused
from bridge.demo.site import Site
from bridge.demo.synapse import LocalSynapse
from bridge.errors import MatrixRefused
from bridge.ids import EventId, RoomId, role_key
from tests.helpers.ports import free_port
from tests.helpers.tone import level_at, ratio_at, sine
from tests.helpers.world import StageHandle, World

HANG_S = 120
HZ = 880


@dataclass(frozen=True, slots=True)
class TwoServers:
    ours: World
    theirs: LocalSynapse

    async def partner(self, name: str) -> ClientApi:
        """A person of the other homeserver."""
        api = self.theirs.client(await self.theirs.register(name, f"password of {name}"))
        self.ours.users[f"partner {name}"] = api  # closed with the world
        return api


@pytest.fixture(scope="module")
async def servers(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwoServers]:
    root = tmp_path_factory.mktemp("two-servers")
    ports = free_port(), free_port()
    names = f"127.0.0.1:{ports[0]}", f"localhost:{ports[1]}"
    authority = make_authority(root / "authority")
    async with AsyncExitStack() as stack:
        site = stack.enter_context(Site.open(root / "ours", names[0]))
        site.write_files()
        config = json.loads(site.config.read_text())
        config["permissions"] = {**config.get("permissions", {}), f"@rana:{names[1]}": "host"}
        config["matrixrtc"] = {"openid_networks": ["127.0.0.0/8", "::1"]}
        site.config.write_text(json.dumps(config))
        first, second = (authority.settings(port, names) for port in ports)
        ours = LocalSynapse(
            site.directory / "synapse",
            names[0],
            site.ports["homeserver"],
            site.registration,
            synapse_python,
            federation=first,
        )
        theirs = LocalSynapse(root / "theirs", names[1], free_port(), None, synapse_python, federation=second)
        for synapse in (ours, theirs):
            stack.push_async_callback(synapse.stop)
            await synapse.start()
        bridge = LocalBridge(site.config, site.ready_url, site.directory / "bridge.log")
        stack.push_async_callback(bridge.stop)
        with pytest.MonkeyPatch.context() as env:  # whom the bridge trusts when it asks the other server
            env.setenv("SSL_CERT_FILE", str(first.ca))
            await bridge.start()
        world = World(site, ours, bridge)

        async def close_people() -> None:
            await world.close_pages()
            await asyncio.gather(*(person.close() for person in world.users.values()))

        stack.push_async_callback(close_people)
        yield TwoServers(world, theirs)


@pytest.fixture
async def both(servers: TwoServers) -> AsyncIterator[TwoServers]:
    yield servers
    await servers.ours.close_pages()


def is_card(world: World, event: Mapping[str, Any]) -> bool:
    """The stage card itself, not one of its edits."""
    content = event["content"]
    return event["sender"] == world.bot and "✋" in content.get("body", "") and "m.relates_to" not in content


async def joined(stage: StageHandle, person: ClientApi, server: str) -> None:
    await person.join(stage.room_id, via=[server])
    await stage.host.wait_for_event(
        stage.room_id,
        lambda e: (
            e["type"] == "m.room.member" and e.get("state_key") == person.user and e["content"]["membership"] == "join"
        ),
    )


async def on_air(page: PageClient, ear: PageClient) -> None:
    await page.wait(lambda c: c.me.can_speak, HANG_S, "may speak")
    page.say(sine(HZ, 1.0), loop=True)
    await page.mic(True)
    await ear.wait(lambda c: ratio_at(c.recent(0.5), HZ) > 20, HANG_S, "the partner's tone")


async def off_air(ear: PageClient) -> None:
    await ear.wait(lambda c: level_at(c.recent(0.5), HZ) < -60, HANG_S, "silence")


async def test_partners_listen_raise_hands_speak_moderate_and_are_cut_off(both: TwoServers) -> None:
    world, server = both.ours, both.ours.site.server_name
    moderator, singer, second, third = [await both.partner(name) for name in ("mina", "nima", "omid", "pari")]
    stage = await world.new_stage(topic="Across", members=("host", "ava"))
    card = await stage.host.wait_for_event(stage.room_id, lambda e: is_card(world, e))
    for person in (moderator, singer, second, third):
        await joined(stage, person, server)
    await stage.host.set_power(stage.room_id, moderator.user, 50)
    ear, host = await world.client("ava", stage), await world.client("host", stage)

    # listening: the bot's direct message with the link reaches the other homeserver
    pages = {p.user: await world.open(await ask_for_link(p, stage.room_id, world.bot)) for p in (singer, second, third)}

    # a hand: their reaction on the card
    await singer.react(stage.room_id, card["event_id"], "✋")
    await host.wait(lambda c: [hand.user for hand in c.queue] == [singer.user], HANG_S, "their hand")

    async def made_speaker(person: ClientApi) -> None:
        """By a plain state event of *their* moderator on *their* homeserver."""
        await moderator.put_state(stage.room_id, "im.eyvan.role", role_key(person.user), {"role": "speaker"})

    await made_speaker(singer)
    await on_air(pages[singer.user], ear)
    assert host.queue == [], "a hand ends on the stage"
    assert level_at(pages[singer.user].recent(0.5), HZ) < -60, "nobody hears himself"

    await singer.leave(stage.room_id)
    await off_air(ear)
    await pages[singer.user].wait(lambda c: c.state == "over", HANG_S, "told")

    await made_speaker(second)
    await on_air(pages[second.user], ear)
    await moderator.ban(stage.room_id, second.user)
    await off_air(ear)

    await made_speaker(third)
    await on_air(pages[third.user], ear)
    await stage.host.put_state(stage.room_id, "m.room.server_acl", "", {"allow": ["*"], "deny": ["localhost"]})
    await off_air(ear)
    await pages[third.user].wait(lambda c: c.state == "over", HANG_S, "told")
    assert ear.state == "live"


async def sign_in(world: World, stage: StageHandle, token: Any) -> tuple[int, dict[str, Any]]:
    body = {"openid": token, "room": stage.room_id}
    async with aiohttp.ClientSession() as http, http.post(f"{world.web}/api/v1/sessions", json=body) as answer:
        return answer.status, await answer.json()


async def told_in_chat(person: ClientApi, bot: str, words: str) -> tuple[RoomId, EventId]:
    """Where the bot says that in the direct chat. The chat is read backwards, and the join may come too early: see
    `bridge.demo.cast`."""
    chat = await person.wait_for_invite(bot)
    async with asyncio.timeout(HANG_S):
        while True:
            with contextlib.suppress(MatrixRefused):
                await person.join(chat)
                for event in await person.get_messages(chat):
                    if event["sender"] == bot and words in str(event["content"].get("body")):
                        return chat, EventId(event["event_id"])
            await asyncio.sleep(0.2)


async def test_a_partner_s_own_server_says_who_they_are_and_they_confirm_once_before_they_moderate(
    both: TwoServers,
) -> None:
    """What a widget does in a client, without the client: the token of *their* homeserver opens a page here."""
    world, server = both.ours, both.ours.site.server_name
    moderator = await both.partner("sina")
    stage = await world.new_stage(topic="By their word", members=("host", "ava"))
    await joined(stage, moderator, server)
    await stage.host.set_power(stage.room_id, moderator.user, 50)
    await world.set_role(stage, "ava", "speaker")
    ava = await world.client("ava", stage)
    token = await moderator.request("POST", "user", moderator.user, "openid", "request_token", body={})
    status, opened = await sign_in(world, stage, token)
    assert (status, opened.get("user")) == (200, moderator.user)
    page = PageClient(world.guest_link(stage), name="sina")
    page._session = opened["session"]
    try:
        await page.connect()
        assert (page.me.user, page.me.place) == (moderator.user, "audience")
        await on_air(ava, page)
        with pytest.raises(RequestRefused):
            await page.act("mute", world.users["ava"].user)
        code = next(notice.by_name for notice in page.notices if notice.key == "confirm")
        chat, question = await told_in_chat(moderator, world.bot, code)
        await moderator.react(chat, question, "👍")
        await page.wait(lambda c: any(notice.key == "confirmed" for notice in c.notices), HANG_S, "confirmed")
        await page.act("mute", world.users["ava"].user)
        await off_air(page)
    finally:
        await page.close()
    assert (await sign_in(world, stage, token))[1]["reason"] == "used"


async def test_a_room_of_the_partner_s_is_joined_and_followed_when_they_upgrade_it(both: TwoServers) -> None:
    """Our server is in neither room before: the inviter's server, then the upgrader's, lets the bot in. The id of a
    room of version 12 names no server."""
    world = both.ours
    owner = await both.partner("rana")
    room = await owner.create_room("Theirs", public=True, invite=[world.bot], power={"users": {world.bot: 50}})
    await wait_for_state(owner, room, "m.room.member", world.bot, lambda c: c.get("membership") == "join")
    await owner.wait_for_event(
        room, lambda e: e["type"] == "m.room.message" and e["sender"] == world.bot
    )  # its greeting
    old = await start_stage(owner, room, "Across")
    answer = await owner.request("POST", "rooms", room, "upgrade", body={"new_version": "12"})
    new = answer["replacement_room"]
    stage = await wait_for_state(owner, new, "im.eyvan.stage", "", lambda c: c.get("status") == "live")
    assert stage["stage_id"] != old
    await wait_for_state(owner, room, "m.room.member", world.bot, lambda c: c.get("membership") == "leave")
