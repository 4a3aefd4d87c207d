"""The people of the demo and their evening: accounts, room, bot, stage, roles and personal links.

Everything is done as anybody could do it: by the client-server API with a person's own token.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bridge.demo.client_api import Account, ClientApi
from bridge.demo.site import Site
from bridge.demo.synapse import LocalSynapse
from bridge.errors import MatrixRefused, Unavailable
from bridge.ids import RoomId, UserId, role_key

Part = Literal["moderator", "speaker", "listener"]
ROOM_NAME = "شب شعر · Poetry night"
TOPIC = "Poetry night: from Hafez to Simin"
STAGE, ROLE = "im.eyvan.stage", "im.eyvan.role"
_LIMIT_S = 60.0  # a hang limit


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    part: Part
    display_name: str
    partner: bool = False  # of the other homeserver


CAST = (
    Member("maryam", "moderator", "Maryam · مریم"),
    Member("arash", "speaker", "Arash · آرش"),
    Member("sara", "speaker", "Sara · سارا"),
    Member("omid", "listener", "Omid · امید"),  # nobody acts him: his link is for you
    Member("nilufar", "listener", "Nilufar · نیلوفر"),  # raises her hand in the play
)
PARTNER = Member("parisa", "moderator", "Parisa · پریسا", partner=True)  # at level 50 in the room


@dataclass(slots=True)
class Evening:
    """What was set up. Owns the people's clients; ``close`` closes them."""

    room: RoomId
    stage: str
    people: Mapping[str, ClientApi]
    links: Mapping[str, str]

    def user(self, member: Member) -> dict[str, str]:
        """What the report says of a member."""
        account = self.people[member.name].account
        return {
            "name": member.name,
            "role": member.part,
            "mxid": account.mxid,
            "password": account.password,
            "access_token": account.access_token,
            "link": self.links[member.name],
        }

    async def close(self) -> None:
        await asyncio.gather(*(person.close() for person in self.people.values()))


async def sign_in(synapse: LocalSynapse, partner: LocalSynapse | None, site: Site) -> dict[str, ClientApi]:
    """All members of the cast, signed in; made at the first start, with their display names."""
    accounts: dict[str, Any] = site.made.setdefault("accounts", {})
    people = {}
    homes = [(member, synapse) for member in CAST] + ([(PARTNER, partner)] if partner else [])
    for member, home in homes:
        kept = accounts.get(member.name)
        if kept is None or not await _token_holds(home.url, Account(**kept)):
            password = kept["password"] if kept else f"{member.name}-{secrets.token_hex(4)}"
            account = await home.register_or_login(member.name, password)
            accounts[member.name] = asdict(account)
            site.save()
            async with home.client(account) as api:
                body = {"displayname": member.display_name}
                await api.request("PUT", "profile", account.mxid, "displayname", body=body)
        people[member.name] = home.client(Account(**accounts[member.name]))
    return people


async def _token_holds(url: str, account: Account) -> bool:
    async with ClientApi(url, account) as api:
        try:
            await api.request("GET", "account", "whoami")
        except MatrixRefused:
            return False
        return True


async def open_room(people: Mapping[str, ClientApi], bot: str, site: Site) -> RoomId:
    """The room, made by maryam with the bot invited at level 50 (a partner's moderator too), all of the cast in it."""
    host = people["maryam"]
    room = RoomId(site.made.get("room", ""))
    if room not in await host.joined_rooms():
        levels = {bot: 50} | {people[name].user: 50 for name in people if name == PARTNER.name}
        room = await host.create_room(
            ROOM_NAME, power={"users": levels}, invite=[bot], topic="A live audio stage in an ordinary Matrix room"
        )
        site.made["room"] = room
        site.save()
    members = await host.joined_members(room)
    await asyncio.gather(
        *(each.join(room, via=[site.server_name]) for each in people.values() if each.user not in members)
    )
    if bot not in members:
        await wait_for_state(host, room, "m.room.member", bot, lambda content: content.get("membership") == "join")
    return room


async def start_stage(host: ClientApi, room: str, topic: str) -> str:
    """``!stage start`` unless one is live; the stage id when room state says ``live``."""
    now: Mapping[str, Any] = await host.get_state(room, STAGE) or {}
    if now.get("status") != "live":
        await host.send(room, f"!stage start {topic}")
        now = await wait_for_state(host, room, STAGE, "", lambda content: content.get("status") == "live")
    return str(now["stage_id"])


async def give_role(host: ClientApi, room: str, user: UserId, content: Mapping[str, Any]) -> None:
    """One plain state event: what any client with the power may do. Not sent where it stands already."""
    if await host.get_state(room, ROLE, role_key(user)) != dict(content):
        await host.put_state(room, ROLE, role_key(user), content)


async def wait_for_state(
    api: ClientApi, room: str, kind: str, key: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> Mapping[str, Any]:
    """The content of that state event once it is as ``wanted``. Raises Unavailable, saying what it waited for."""
    event: Mapping[str, Any]
    try:
        event = await api.wait_for_event(
            room,
            lambda event: event["type"] == kind and event.get("state_key") == key and wanted(event["content"]),
            _LIMIT_S,
        )
    except TimeoutError:
        found = await api.get_state(room, kind, key)
        raise Unavailable(f"{kind} {key!r} in {room} did not come within {_LIMIT_S:g} s; it is {found}") from None
    content: Mapping[str, Any] = event["content"]
    return content


async def ask_for_link(api: ClientApi, room: str, bot: str) -> str:
    """A personal link, as anybody gets one: ``!link`` in the room, then the bot's direct message.

    The chat is read backwards: what was said before a join over federation is in no timeline of ``/sync``.
    Raises Unavailable when none comes."""
    before = set(await _links(api, room, bot))
    await api.send(room, "!link")
    try:
        async with asyncio.timeout(_LIMIT_S):
            while True:
                await _accept_invitations(api, bot)
                new = [link for link in await _links(api, room, bot) if link not in before]
                if new:
                    return new[-1]
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise Unavailable(f"{bot} sent {api.user} no link within {_LIMIT_S:g} s after !link in {room}") from None


async def _accept_invitations(api: ClientApi, bot: str) -> None:
    """An invitation reaches another homeserver a moment before the inviting one has it in its own state: a program is
    quick enough to be told that it is not invited, and tries again."""
    invitations = (await api.sync()).get("rooms", {}).get("invite", {})
    for room, invitation in invitations.items():
        if any(event["sender"] == bot for event in invitation["invite_state"]["events"]):
            with contextlib.suppress(MatrixRefused):
                await api.join(room)


async def _links(api: ClientApi, stage_room: str, bot: str) -> list[str]:
    """Links that the bot sent in chats, oldest first in each."""
    chats = [room for room in await api.joined_rooms() if room != stage_room]
    events = [event for room in chats for event in await api.get_messages(room, 20)]
    bodies = [
        str(event["content"].get("body", ""))
        for event in events
        if event["sender"] == bot and event["type"] == "m.room.message"
    ]
    return [word for body in bodies for word in body.split() if "/s/" in word and "#l=" in word]
