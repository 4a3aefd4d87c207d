"""A person's Matrix client, as small as demo and tests need it: the client-server API over aiohttp.

Rooms, users, events and contents are as in the Matrix specification v1.15, client-server API. Every call raises
MatrixRefused where the homeserver says no and Unavailable where it cannot be reached; nothing is retried here.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from bridge.errors import MatrixRefused, Unavailable
from bridge.ids import EventId, RoomId, UserId
from bridge.matrix.homeserver_api import api_path

Json = dict[str, Any]
_TIMEOUT = aiohttp.ClientTimeout(total=120)  # longest wait: a first federated join on a busy machine


@dataclass(frozen=True, slots=True)
class Account:
    """A user of a local homeserver; ``access_token`` is the one of the device made at registration or login."""

    mxid: UserId
    password: str
    access_token: str
    device_id: str


async def call(
    http: aiohttp.ClientSession,
    base_url: str,
    method: str,
    path: str,
    body: Any = None,
    query: Mapping[str, str] | None = None,
    token: str | None = None,
) -> Any:
    """One request; ``path`` is encoded already. Raises MatrixRefused, Unavailable."""
    url = URL(base_url + path, encoded=True).update_query(query or {})
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with http.request(method, url, json=body, headers=headers) as response:
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise Unavailable(f"{method} {path}: status {response.status}, not JSON") from error
    if response.status >= 400:
        known = answer if isinstance(answer, dict) else {}
        raise MatrixRefused(str(known.get("errcode", "M_UNKNOWN")), response.status, str(known.get("error", answer)))
    return answer


class ClientApi:
    """One signed-in person. Owns its HTTP session: use ``async with`` or ``close()``."""

    def __init__(self, base_url: str, account: Account) -> None:
        self.base_url, self.account = base_url, account
        self._http = aiohttp.ClientSession(timeout=_TIMEOUT)
        self._txn = (f"c{secrets.token_urlsafe(6)}.{n}" for n in itertools.count())

    @property
    def user(self) -> UserId:
        return self.account.mxid

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    async def request(
        self, method: str, *segments: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> Any:
        """``/_matrix/client/v3/`` and the segments; returns the JSON answered."""
        path = "/_matrix/client/v3" + api_path(*segments)
        return await call(self._http, self.base_url, method, path, body, query, self.account.access_token)

    # Rooms and members

    async def create_room(
        self,
        name: str = "",
        *,
        public: bool = True,
        invite: Sequence[str] = (),
        alias: str | None = None,
        version: str | None = None,
        power: Mapping[str, Any] | None = None,
        initial_state: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> RoomId:
        """``power`` is ``power_level_content_override``; ``alias`` the local part of a room alias."""
        body: Json = {"preset": "public_chat" if public else "private_chat", "invite": list(invite), **more}
        given: Json = {
            "name": name or None,
            "room_alias_name": alias,
            "room_version": version,
            "power_level_content_override": power,
            "initial_state": list(initial_state) or None,
        }
        body |= {key: value for key, value in given.items() if value is not None}
        return RoomId((await self.request("POST", "createRoom", body=body))["room_id"])

    async def join(self, room_or_alias: str, via: Sequence[str] = ()) -> RoomId:
        """``via``: servers to join by; ids of rooms of version 12 name none themselves (MSC4291)."""
        path = "/_matrix/client/v3" + api_path("join", room_or_alias)
        if via:
            path += "?" + "&".join(f"{kind}={quote(name, safe='')}" for kind in ("via", "server_name") for name in via)
        answer = await call(self._http, self.base_url, "POST", path, {}, None, self.account.access_token)
        return RoomId(answer["room_id"])

    async def leave(self, room: str) -> None:
        await self.request("POST", "rooms", room, "leave", body={})

    async def invite(self, room: str, user: str) -> None:
        await self.request("POST", "rooms", room, "invite", body={"user_id": user})

    async def kick(self, room: str, user: str, reason: str = "") -> None:
        await self.request("POST", "rooms", room, "kick", body={"user_id": user, "reason": reason})

    async def ban(self, room: str, user: str, reason: str = "") -> None:
        await self.request("POST", "rooms", room, "ban", body={"user_id": user, "reason": reason})

    async def unban(self, room: str, user: str) -> None:
        await self.request("POST", "rooms", room, "unban", body={"user_id": user})

    async def joined_members(self, room: str) -> Mapping[str, Json]:
        members: Mapping[str, Json] = (await self.request("GET", "rooms", room, "joined_members"))["joined"]
        return members

    async def joined_rooms(self) -> Sequence[RoomId]:
        return [RoomId(room) for room in (await self.request("GET", "joined_rooms"))["joined_rooms"]]

    # Events

    async def send(self, room: str, content: str | Mapping[str, Any], kind: str = "m.room.message") -> EventId:
        """A text is sent as ``m.text``; a mapping is the content as it is."""
        body = {"msgtype": "m.text", "body": content} if isinstance(content, str) else dict(content)
        answer = await self.request("PUT", "rooms", room, "send", kind, next(self._txn), body=body)
        return EventId(answer["event_id"])

    async def react(self, room: str, event: str, key: str) -> EventId:
        relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
        return await self.send(room, {"m.relates_to": relation}, "m.reaction")

    async def redact(self, room: str, event: str, reason: str = "") -> EventId:
        answer = await self.request("PUT", "rooms", room, "redact", event, next(self._txn), body={"reason": reason})
        return EventId(answer["event_id"])

    async def put_state(self, room: str, kind: str, key: str, content: Mapping[str, Any]) -> EventId:
        answer = await self.request("PUT", "rooms", room, "state", kind, key, body=dict(content))
        return EventId(answer["event_id"])

    async def get_state(self, room: str, kind: str, key: str = "") -> Json | None:
        """The content of the current state event, or None where there is none."""
        try:
            content: Json = await self.request("GET", "rooms", room, "state", kind, key)
        except MatrixRefused as error:
            if error.status == 404:
                return None
            raise
        return content

    async def get_all_state(self, room: str) -> Sequence[Json]:
        events: Sequence[Json] = await self.request("GET", "rooms", room, "state")
        return events

    async def get_event(self, room: str, event: str) -> Json:
        found: Json = await self.request("GET", "rooms", room, "event", event)
        return found

    async def power_levels(self, room: str) -> Json:
        return await self.get_state(room, "m.room.power_levels") or {}

    async def set_power(self, room: str, user: str, level: int) -> EventId:
        """Merge one user's level into the current ``m.room.power_levels``."""
        levels = await self.power_levels(room)
        levels["users"] = {**levels.get("users", {}), user: level}
        return await self.put_state(room, "m.room.power_levels", "", levels)

    # Reading on

    async def get_messages(self, room: str, limit: int = 100) -> Sequence[Json]:
        """The last events of the room, oldest first."""
        answer = await self.request("GET", "rooms", room, "messages", query={"dir": "b", "limit": str(limit)})
        return list(reversed(answer["chunk"]))

    async def sync(self, since: str | None = None, timeout_ms: int = 0) -> Json:
        query = {"timeout": str(timeout_ms), **({"since": since} if since else {})}
        answer: Json = await self.request("GET", "sync", query=query)
        return answer

    async def wait_for_event(self, room: str, wanted: Callable[[Json], bool], limit_s: float = 60) -> Json:
        """The first event of the room's timeline or state that is wanted, also one that came before this call.

        Raises TimeoutError after ``limit_s`` seconds. Needs the room joined by then."""
        async with asyncio.timeout(limit_s):
            since = None
            while True:
                answer = await self.sync(since, timeout_ms=10_000 if since else 0)
                since = answer["next_batch"]
                found = answer.get("rooms", {}).get("join", {}).get(room, {})
                for event in (*found.get("state", {}).get("events", ()), *found.get("timeline", {}).get("events", ())):
                    if wanted(event):
                        return dict(event)

    async def wait_for_invite(self, inviter: str, limit_s: float = 60) -> RoomId:
        """The room that ``inviter`` has invited this person to; raises TimeoutError."""
        async with asyncio.timeout(limit_s):
            since = None
            while True:
                answer = await self.sync(since, timeout_ms=10_000 if since else 0)
                since = answer["next_batch"]
                for room, invited in answer.get("rooms", {}).get("invite", {}).items():
                    for event in invited["invite_state"]["events"]:
                        if event["type"] == "m.room.member" and event["sender"] == inviter:
                            return RoomId(room)
