"""What the bot does on the homeserver: state, notices, direct chats; paced, repeated, made once.

Meets ``bridge.live.ports.Matrix`` by shape. Endpoints are those of the client-server API v1.15; the bot is the
appservice's own user, so no ``user_id`` parameter is needed (application service API, "Identity assertion").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from mautrix.api import Method

from bridge.errors import ConfigError, EyvanError, MatrixRefused
from bridge.ids import EventId, RoomId, UserId, localpart_of, new_txn_id
from bridge.live.ports import JsonObject
from bridge.matrix.homeserver_api import CLIENT, HomeserverApi, RetryLimits, api_path
from bridge.matrix.pacing import LastWins, RateLimit

log = logging.getLogger(__name__)

_JOIN_PATIENCE_S = 120.0  # a join over federation fetches the whole state of the room
_DM_KEY = "dm:"  # + user id: the room of the direct chat, in the store's values


class Values(Protocol):
    """The part of the store that remembers direct chats."""

    async def get_value(self, key: str) -> str | None: ...

    async def set_value(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the bot writes. ``slow_kinds`` are state types written at most once per interval and room."""

    state_per_second: float = 10
    state_burst: int = 5
    slow_kinds: frozenset[str] = frozenset({"im.eyvan.queue"})
    slow_interval_s: float = 1
    edit_interval_s: float = 3
    retry: RetryLimits = field(default_factory=RetryLimits)


class Outgoing:
    """The homeserver for the rest of the program. Owned by ``app``: ``start``, calls from any task, ``close``.

    Calls raise MatrixRefused (the homeserver said no) and Unavailable (30 s of trying did not help). State goes
    first in, first out through one rate for the whole bot; ``urgent`` state (a cut) and kicks do not wait.
    """

    def __init__(
        self,
        homeserver_url: str,
        as_token: str,
        bot: UserId,
        appservice_id: str,
        values: Values,
        *,
        display_name: str = "Eyvan",
        pace: Pace | None = None,
    ) -> None:
        self.bot = bot
        self._pace = pace or Pace()
        self._api = HomeserverApi(homeserver_url, as_token, self._pace.retry)
        self._appservice_id, self._values, self._display_name = appservice_id, values, display_name
        self._rate = RateLimit(self._pace.state_per_second, self._pace.state_burst)
        self._slow_state = LastWins[tuple[RoomId, str, str], JsonObject, EventId](
            self._pace.slow_interval_s, self._write_slow_state
        )
        self._edits = LastWins[tuple[RoomId, EventId], tuple[str, str], None](
            self._pace.edit_interval_s, self._write_edit
        )
        # One lock per person a direct chat is being looked up for; gone with its last user.
        self._dm_locks: WeakValueDictionary[UserId, asyncio.Lock] = WeakValueDictionary()

    # Life

    async def start(self) -> None:
        """Register the bot where needed, see that it is who the configuration says, name it if it has no name.

        Raises ConfigError, MatrixRefused, Unavailable."""
        registration = {
            "type": "m.login.application_service",
            "username": localpart_of(self.bot),
            "inhibit_login": True,
        }
        try:
            await self._api.request(Method.POST, f"{CLIENT}/register", registration)
        except MatrixRefused as error:
            if error.errcode != "M_USER_IN_USE":
                raise
        known_as = await self.whoami()
        if known_as != self.bot:
            raise ConfigError(
                f"the homeserver knows the bot as {known_as}, the configuration as {self.bot}; "
                f"make sender_localpart of the registration and bot of the configuration agree"
            )
        # Synapse names a new user after the local part: that is no choice of anybody's.
        if (await self._profile(self.bot)).get("displayname") in (None, "", localpart_of(self.bot)):
            path = CLIENT + api_path("profile", self.bot, "displayname")
            await self._api.request(Method.PUT, path, {"displayname": self._display_name})

    async def close(self) -> None:
        """Write what waits (3 s at most) and close the connections. Harmless twice."""
        try:
            await asyncio.gather(self._slow_state.close(), self._edits.close())
        finally:
            await self._api.close()

    # The bot itself

    async def whoami(self) -> UserId:
        return UserId((await self._api.request(Method.GET, f"{CLIENT}/account/whoami"))["user_id"])

    async def ping(self) -> int:
        """Appservice ping (MSC2659); returns the homeserver's way to us and back in milliseconds.

        A successful ping also ends the back-off of up to 512 s in which Synapse keeps transactions to itself after
        we were away (PR 18521). Tried once. Raises MatrixRefused (also for the 502 and 504 that say how *it* failed
        to reach us: M_CONNECTION_FAILED, M_CONNECTION_TIMEOUT, M_BAD_STATUS) and Unavailable."""
        path = "/_matrix/client/v1" + api_path("appservice", self._appservice_id, "ping")
        answer = await self._api.ask_once(Method.POST, path, {"transaction_id": new_txn_id()}, patience_s=70)
        return int(answer["duration_ms"])

    async def openid_token(self) -> JsonObject:
        """A fresh OpenID token of the bot (client-server API, "OpenID"), for a service that asks who we are."""
        path = CLIENT + api_path("user", self.bot, "openid", "request_token")
        token: JsonObject = await self._api.request(Method.POST, path, {})
        return token

    async def joined_rooms(self) -> Sequence[RoomId]:
        answer = await self._api.request(Method.GET, f"{CLIENT}/joined_rooms")
        return [RoomId(room) for room in answer["joined_rooms"]]

    async def join(self, room: RoomId, via: Sequence[str] = ()) -> None:
        """Join, on an invitation or a public room. ``via``: servers to join by; harmless where we are in already."""
        path = CLIENT + api_path("join", room)
        await self._api.request(Method.POST, path, {}, query={"via": list(via)}, patience_s=_JOIN_PATIENCE_S)

    async def leave(self, room: RoomId) -> None:
        await self._api.request(Method.POST, _room(room, "leave"), {})

    # State

    async def read_room(self, room: RoomId) -> Sequence[JsonObject]:
        """All current state events of the room, whole."""
        events: Sequence[JsonObject] = await self._api.request(Method.GET, _room(room, "state"))
        return events

    async def read_state(self, room: RoomId, kind: str, key: str) -> JsonObject | None:
        """The current state event, whole (with ``event_id`` and ``sender``), or None where there is none."""
        try:
            event: JsonObject = await self._api.request(
                Method.GET, _room(room, "state", kind, key), query={"format": "event"}
            )
        except MatrixRefused as error:
            if error.errcode == "M_NOT_FOUND":
                return None
            raise
        return event

    async def write_state(
        self, room: RoomId, kind: str, key: str, content: JsonObject, *, urgent: bool = False
    ) -> EventId:
        """Write a state event. A repeat of the same content makes no second event (Synapse), so retries are safe.

        ``urgent``: for what cuts someone off; it passes by the rate. A kind of ``Pace.slow_kinds`` is written at
        most once a second and room: of several writes that wait the last one is made, and all get its event id."""
        if kind in self._pace.slow_kinds and not urgent:
            return await asyncio.shield(self._slow_state.put((room, kind, key), content))
        if urgent:
            self._rate.pass_by()
        else:
            await self._rate.wait()
        return await self._put_state(room, kind, key, content)

    async def _write_slow_state(self, where: tuple[RoomId, str, str], content: JsonObject) -> EventId:
        await self._rate.wait()
        return await self._put_state(*where, content)

    async def _put_state(self, room: RoomId, kind: str, key: str, content: JsonObject) -> EventId:
        answer = await self._api.request(Method.PUT, _room(room, "state", kind, key), content)
        return EventId(answer["event_id"])

    async def kick(self, room: RoomId, user: UserId, reason: str) -> None:
        """Remove ``user``. Raises MatrixRefused, M_FORBIDDEN also where they are not in the room."""
        await self._api.request(Method.POST, _room(room, "kick"), {"user_id": user, "reason": reason})

    # Words

    async def send(self, room: RoomId, text: str, html: str, *, reply_to: EventId | None, txn: str) -> EventId:
        """A notice in the room. ``txn`` makes a retry harmless, also by a later call with the same ``txn``."""
        content = _notice(text, html)
        if reply_to:
            content["m.relates_to"] = {"m.in_reply_to": {"event_id": reply_to}}
        path = _room(room, "send", "m.room.message", txn)
        return EventId((await self._api.request(Method.PUT, path, content))["event_id"])

    async def send_event(self, room: RoomId, kind: str, content: JsonObject) -> EventId:
        """A message-like event of any type, such as those of a call."""
        path = _room(room, "send", kind, new_txn_id())
        return EventId((await self._api.request(Method.PUT, path, content))["event_id"])

    async def edit(self, room: RoomId, event: EventId, text: str, html: str) -> None:
        """Replace the text of a notice of ours; returns at once. At most one every 3 s, the last one wins.

        A failure is logged: the next edit shows the truth again."""
        self._edits.put((room, event), (text, html))

    async def react(self, room: RoomId, event: EventId, key: str) -> None:
        """A reaction of the bot (``m.annotation``); one that is there already is fine."""
        content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event, "key": key}}
        try:
            await self._api.request(Method.PUT, _room(room, "send", "m.reaction", new_txn_id()), content)
        except MatrixRefused as error:
            if error.errcode != "M_DUPLICATE_ANNOTATION":
                raise

    async def read_event(self, room: RoomId, event: EventId) -> JsonObject | None:
        """Any event of the room, whole; None where there is none that the bot may see."""
        try:
            found: JsonObject = await self._api.request(Method.GET, _room(room, "event", event))
        except MatrixRefused as error:
            if error.errcode in ("M_NOT_FOUND", "M_FORBIDDEN"):
                return None
            raise
        return found

    async def redact(self, room: RoomId, event: EventId, txn: str) -> None:
        """Take an event away. Raises MatrixRefused where the bot lacks the room's level for it."""
        await self._api.request(Method.PUT, _room(room, "redact", event, txn), {})

    async def _write_edit(self, where: tuple[RoomId, EventId], words: tuple[str, str]) -> None:
        (room, event), (text, html) = where, words
        content = {
            **_notice(f"* {text}", f"* {html}"),
            "m.new_content": _notice(text, html),
            "m.relates_to": {"rel_type": "m.replace", "event_id": event},
        }
        try:
            await self._api.request(Method.PUT, _room(room, "send", "m.room.message", new_txn_id()), content)
        except EyvanError as error:
            log.warning("room %s: notice %s could not be edited: %s", room, event, error)

    async def tell(self, user: UserId, text: str, html: str) -> tuple[RoomId, EventId]:
        """A notice in the direct chat with ``user``, which is opened where there is none. Where it stands.

        Raises MatrixRefused where their server or ours refuses the invitation, and Unavailable."""
        lock = self._dm_locks.setdefault(user, asyncio.Lock())
        async with lock:
            known = await self._values.get_value(_DM_KEY + user)
            if known and (event := await self._tell_in(RoomId(known), user, text, html)):
                return RoomId(known), event
            room = await self._open_direct_chat(user)
            await self._values.set_value(_DM_KEY + user, room)
            return room, await self.send(room, text, html, reply_to=None, txn=new_txn_id())

    async def display_name(self, user: UserId) -> str:
        """The name of the user's profile; the local part of the user id where there is none."""
        try:
            name = (await self._profile(user)).get("displayname")
        except MatrixRefused:
            name = None
        return name if isinstance(name, str) and name else localpart_of(user)

    async def _profile(self, user: UserId) -> Mapping[str, Any]:
        try:
            profile: Mapping[str, Any] = await self._api.request(Method.GET, CLIENT + api_path("profile", user))
        except MatrixRefused as error:
            if error.status == 404:
                return {}
            raise
        return profile

    # Direct chats

    async def chat_with(self, user: UserId) -> RoomId:
        """The direct chat with ``user``, which is opened where there is none that can be used: one that was encrypted
        since carries no call. Raises as `tell`."""
        lock = self._dm_locks.setdefault(user, asyncio.Lock())
        async with lock:
            known = await self._values.get_value(_DM_KEY + user)
            if known and await self._is_usable(RoomId(known), user):
                return RoomId(known)
            room = await self._open_direct_chat(user)
            await self._values.set_value(_DM_KEY + user, room)
            return room

    async def _is_usable(self, room: RoomId, user: UserId) -> bool:
        try:
            if await self.read_state(room, "m.room.encryption", "") is not None:
                return False
            await self._invite_again(room, user)
        except MatrixRefused as error:
            log.info("room %s: direct chat with %s is of no use any more: %s", room, user, error)
            return False
        return True

    async def is_chat_with(self, room: RoomId, user: UserId) -> bool:
        """Whether ``room`` is the direct chat that was opened with ``user``."""
        return await self._values.get_value(_DM_KEY + user) == room

    async def _tell_in(self, room: RoomId, user: UserId, text: str, html: str) -> EventId | None:
        """Tell it in a chat opened before; who left is invited again. None where that chat is of no use any more."""
        try:
            await self._invite_again(room, user)
            return await self.send(room, text, html, reply_to=None, txn=new_txn_id())
        except MatrixRefused as error:
            log.info("room %s: direct chat with %s is of no use any more: %s", room, user, error)
            return None

    async def _invite_again(self, room: RoomId, user: UserId) -> None:
        member = await self.read_state(room, "m.room.member", user)
        if (member or {}).get("content", {}).get("membership") not in ("join", "invite"):
            # Not POST /invite, which cannot say that it is a direct chat.
            invitation = {"membership": "invite", "is_direct": True}
            await self._put_state(room, "m.room.member", user, invitation)

    async def _open_direct_chat(self, user: UserId) -> RoomId:
        """In ``private_chat`` the guest has level 0 and turning on encryption needs 100: a bot without device keys
        stays able to read (design: clients.md A14)."""
        content = {"preset": "private_chat", "is_direct": True, "invite": [user]}
        answer = await self._api.request(
            Method.POST, f"{CLIENT}/createRoom", content, repeatable=False, patience_s=_JOIN_PATIENCE_S
        )
        return RoomId(answer["room_id"])


def _room(room: RoomId, *segments: str) -> str:
    return CLIENT + api_path("rooms", room, *segments)


def _notice(text: str, html: str) -> dict[str, Any]:
    """``m.notice``: no client rings for it, no bot answers it; empty mentions: nobody is highlighted by its words."""
    return {
        "msgtype": "m.notice",
        "body": text,
        "format": "org.matrix.custom.html",
        "formatted_body": html,
        "m.mentions": {},
    }
