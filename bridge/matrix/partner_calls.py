"""Speakers of other homeservers who came by Element Call: their voice is fetched from their own server's SFU.

Element Call publishes to the transport of its own homeserver, and subscribes to that of every member of the call. So a
partner's user hears the stage through the bot's membership; to be heard, the bot has to go to *their* LiveKit. It does
so for people on the stage alone, as a participant that only listens, and leaves when none of them is on stage any more.

::

    role (room state) ─▶ on stage, of another server, a member of the call ─▶ `Line`: token, WebSocket
                                                                              └▶ `Speaker`: a seat, a way to our relay

Whom a packet belongs to is decided by the person's own state event, which names the service and the device: a service
can speak for nobody whose membership does not name it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from yarl import URL

from bridge.errors import BadInput, EyvanError, Unavailable
from bridge.identity.safe_http import SafeHttp
from bridge.ids import RoomId, SessionId, StageId, UserId, parse_user, server_of
from bridge.live.ports import Clock, JsonObject
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.live.view import Me, View
from bridge.matrix.looking import Looking
from bridge.matrix.matrixrtc import DEVICE, KIND
from bridge.telemetry import metrics

log = logging.getLogger(__name__)

MAX_LINES = 50  # partners' services at once
_MAX_DEVICES = 5  # of one person
_MAX_MEMBERS = 500  # memberships remembered for one room
_READ_AGAIN_MS = 30_000
_BACKOFF_S = (1.0, 1.0, 2.0, 5.0, 15.0, 30.0)
_GOOD_S = 60.0  # a connection that lasted so long was good: the next try comes at once
_OFFER_AGAIN_S = 1.0

LINES = metrics.gauge("eyvan_partner_sfus", "Partners' SFUs from which speakers are fetched")
FAILED = metrics.counter("eyvan_partner_sfu_failures_total", "Connections to them that failed or ended")


@dataclass(frozen=True, slots=True)
class Membership:
    """One device of a person in the call, as their own state event has it (``org.matrix.msc3401.call.member``)."""

    user: UserId
    device: str
    service: str  # livekit_service_url
    alias: str  # of the room, at that service

    @property
    def identity(self) -> str:
        """Their name at the SFU, for tokens of ``/sfu/get``."""
        return f"{self.user}:{self.device}"


def membership_of(event: Mapping[str, Any], now_ms: int) -> Membership | None:
    """None: an event that ends a membership, has run out, or says nothing of LiveKit. Raises BadInput: sender."""
    content, user = event.get("content"), parse_user(event.get("sender"), "sender")
    if not isinstance(content, Mapping) or not content:
        return None
    device, created, expires = content.get("device_id"), content.get("created_ts"), content.get("expires")
    began = created if isinstance(created, int) else event.get("origin_server_ts")
    if isinstance(began, int) and isinstance(expires, int) and began + expires < now_ms:
        return None
    foci = content.get("foci_preferred")
    focus = foci[0] if isinstance(foci, list) and foci else None
    if not isinstance(focus, Mapping) or focus.get("type") != "livekit" or not isinstance(device, str):
        return None
    service, alias = focus.get("livekit_service_url"), focus.get("livekit_alias", event.get("room_id"))
    if not isinstance(service, str) or not isinstance(alias, str) or not 1 <= len(device) <= 255:
        return None
    return Membership(user, device, service.rstrip("/"), alias)


class PartnerMatrix(Protocol):
    """What is needed of our homeserver. Raises MatrixRefused and Unavailable."""

    async def read_room(self, room: RoomId) -> Sequence[JsonObject]: ...

    async def openid_token(self) -> JsonObject: ...


class Subscriber(Protocol):
    """`bridge.media.partner_sfu.Sfu`."""

    def want(self, identities: Sequence[str]) -> None: ...

    async def run(self) -> None: ...


class Way(Protocol):
    """`bridge.media.partner_sfu.Uplink`."""

    async def offer(self) -> str: ...

    async def accept(self, answer: str) -> None: ...

    def put(self, timestamp: int, payload: bytes) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root hands in."""

    matrix: PartnerMatrix
    http: SafeHttp
    connect: Callable[[str, str, Line], Coroutine[Any, Any, Subscriber]]
    """(URL, token, who listens) → connected; raises Unavailable."""
    way: Callable[[], Way]
    clock: Clock


class Speaker:
    """One device of a partner's user: a seat in the stage (`bridge.live.ports.Page`), and the way of its sound into
    our relay. Owned by its `Line`; ``close`` joins its task."""

    def __init__(self, member: Membership, stage: LiveStage, stage_id: StageId, parts: Parts) -> None:
        self._member, self._stage, self._stage_id, self._parts = member, stage, stage_id, parts
        name = hashlib.sha256(f"partner\0{member.identity}".encode()).hexdigest()[:32]
        self._session = SessionId(f"partner-{name}")
        self._way: Way | None = None
        self._on = False
        self._lost, self.over = asyncio.Event(), False
        self._task = asyncio.create_task(self._run(), name="partner's speaker")

    def put(self, timestamp: int, payload: bytes) -> None:
        if self._way is not None:
            self._way.put(timestamp, payload)

    def microphone(self, on: bool) -> None:
        self._on = on
        self._stage.microphone(self._session, self, on)

    async def _run(self) -> None:
        """Sit, and offer anew whenever the relay has lost us."""
        try:
            await self._stage.sit(self._session, self._member.user, self, self._stage_id)
            self._stage.microphone(self._session, self, self._on)
            while not self.over:
                self._lost.clear()
                try:
                    await self._offer()
                    await self._lost.wait()
                except EyvanError as error:
                    log.info("the relay does not take %s from their SFU: %s", self._member.user, error)
                await asyncio.sleep(_OFFER_AGAIN_S)
        except EyvanError as error:
            log.info("%s has no seat: %s", self._member.user, error)
        finally:
            self.over = True

    async def _offer(self) -> None:
        await self._let_go()
        self._way = way = self._parts.way()
        answer = await self._stage.offer(self._session, self, await way.offer())
        await way.accept(answer.sdp)

    async def _let_go(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            await way.close()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._stage.rise(self._session, self, keep=False)
        await self._let_go()

    # -- the stage calls these -----------------------------------------------------------------

    def show(self, view: View, me: Me) -> None: ...

    def levels(self, levels: Mapping[int, int]) -> None: ...

    def notice(self, key: str, by_name: str) -> None:
        """Their Element Call has no place for it."""

    def sound_lost(self) -> None:
        self._lost.set()

    def bye(self, reason: str) -> None:
        self.over = True
        self._lost.set()


class Line:
    """The connection to one service for one stage (`bridge.media.partner_sfu.Listener`). Owns a task and its speakers;
    ``close`` joins them. Bound: the people on stage, five devices each."""

    def __init__(self, service: str, stage: LiveStage, stage_id: StageId, parts: Parts) -> None:
        self.service, self.stage, self.stage_id = service, stage, stage_id
        self._parts = parts
        self._members: dict[str, Membership] = {}
        self._speakers: dict[str, Speaker] = {}
        self._sfu: Subscriber | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run(), name="partner's SFU")

    def want(self, members: Sequence[Membership]) -> None:
        """Who of this service is on stage now."""
        self._members = {each.identity: each for each in members}
        for identity in [identity for identity in self._speakers if identity not in self._members]:
            self._drop(identity)
        if self._sfu is not None:
            self._sfu.want(list(self._members))

    async def _run(self) -> None:
        loop, tries = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            try:
                url, jwt = await self._token()
                self._sfu = await self._parts.connect(url, jwt, self)
                self._sfu.want(list(self._members))
                await self._sfu.run()
            except EyvanError as error:
                FAILED.inc()
                log.warning("room %s: speakers at %s are not heard now: %s", self.stage.room, self.service, error)
            except Exception:
                FAILED.inc()
                log.exception("room %s: %s", self.stage.room, self.service)
            finally:
                self._sfu = None
            tries = 0 if loop.time() - began > _GOOD_S else min(tries + 1, len(_BACKOFF_S) - 1)
            await asyncio.sleep(_BACKOFF_S[tries])

    async def _token(self) -> tuple[str, str]:
        """MSC4195's ``/get_token``, else the older ``/sfu/get``; the service asks our homeserver who the bot is.
        Raises Unavailable and MatrixRefused."""
        alias = next(iter(self._members.values())).alias if self._members else self.stage.room
        member = {"id": DEVICE, "claimed_device_id": DEVICE}
        forms: tuple[tuple[str, dict[str, Any]], ...] = (
            ("get_token", {"room_id": self.stage.room, "slot_id": "m.call#ROOM", "member": member}),
            ("sfu/get", {"room": alias, "device_id": DEVICE}),
        )
        status = 0
        for path, body in forms:
            token = await self._parts.matrix.openid_token()  # services take each once
            if path == "get_token":
                member["claimed_user_id"] = str(token.get("sub", self.stage.state.bot))
            answer = await self._parts.http.post(URL(f"{self.service}/{path}"), {**body, "openid_token": dict(token)})
            status = answer.status
            if status == 200 and isinstance(answer.body, dict):
                url, jwt = answer.body.get("url"), answer.body.get("jwt")
                if isinstance(url, str) and isinstance(jwt, str):
                    return url, jwt
            if status not in (404, 405):
                break
        raise Unavailable(f"{self.service} gives no token ({status})")

    # -- the SFU calls these -------------------------------------------------------------------

    def said(self, identity: str, timestamp: int, payload: bytes) -> None:
        speaker = self._speakers.get(identity)
        if speaker is not None:
            speaker.put(timestamp, payload)

    def microphone(self, identity: str, on: bool | None) -> None:
        member = self._members.get(identity)
        if on is None or member is None:
            self._drop(identity)
            return
        speaker = self._speakers.get(identity)
        if speaker is None or speaker.over:
            self._drop(identity)
            speaker = self._speakers[identity] = Speaker(member, self.stage, self.stage_id, self._parts)
        speaker.microphone(on)

    def _drop(self, identity: str) -> None:
        speaker = self._speakers.pop(identity, None)
        if speaker is not None:
            task = asyncio.create_task(speaker.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for identity in list(self._speakers):
            self._drop(identity)
        await asyncio.gather(*self._leaving, return_exceptions=True)


class PartnerCalls:
    """Looks once a second at every live stage for people on it whose voice is at a partner's SFU. Owns its task and the
    lines; ``close`` joins all and is harmless twice. Bound: 50 lines, 500 memberships a room with a live stage."""

    def __init__(self, own_service: str, own_server: str, rooms: Rooms, parts: Parts) -> None:
        self._own, self._server, self._rooms, self._parts = own_service, own_server, rooms, parts
        self._known: dict[RoomId, dict[tuple[UserId, str], Membership]] = {}
        self._read_ms: dict[RoomId, int] = {}
        self._late: dict[RoomId, list[Mapping[str, Any]]] = {}  # what came while a room was being read
        self._lines: dict[tuple[RoomId, str], Line] = {}
        self._looking = Looking(self.look, "partners' calls")

    def start(self) -> None:
        self._looking.start()

    async def close(self) -> None:
        await self._looking.close()
        lines, self._lines = list(self._lines.values()), {}
        await asyncio.gather(*(line.close() for line in lines))
        await self._parts.http.close()

    @staticmethod
    def wanted(event: Mapping[str, Any]) -> bool:
        """Whether an event of a transaction says anything to us. Never raises."""
        return event.get("type") == KIND and isinstance(event.get("state_key"), str)

    def take(self, room: RoomId, event: Mapping[str, Any]) -> None:
        """A membership came or went. Only remembers, for rooms that were read."""
        if not self.wanted(event):
            return
        if room in self._late:
            self._late[room].append(event)
        elif room in self._known:
            self._note(room, event)

    def _note(self, room: RoomId, event: Mapping[str, Any]) -> None:
        known = self._known[room]
        try:
            member = membership_of(event, self._parts.clock.now_ms())
            user = parse_user(event.get("sender"), "sender")
        except BadInput as error:
            log.info("room %s: a call membership is passed over: %s", room, error)
            return
        key = str(event.get("state_key"))
        if not key.lstrip("_").startswith(user):
            return  # a state key with somebody else's name
        known.pop((user, key), None)
        own = [each for each in known if each[0] == user]
        if member is not None and len(own) < _MAX_DEVICES and len(known) < _MAX_MEMBERS:
            known[user, key] = member

    async def look(self) -> None:
        """Make every line what it should be, once."""
        wanted: dict[tuple[RoomId, str], tuple[LiveStage, StageId, list[Membership]]] = {}
        live = {stage.room: stage for stage in self._rooms.all() if stage.state.live and not stage.state.room.encrypted}
        for room in self._known.keys() - live.keys():
            del self._known[room]
            self._read_ms.pop(room, None)
        for room, stage in live.items():
            guests = {user for user in stage.state.speakers() if server_of(user) != self._server}
            stage_id = stage.stage_id
            if not guests or stage_id is None:
                continue
            await self._read(room)
            for member in self._known.get(room, {}).values():
                if member.user in guests and member.service != self._own and stage.state.on_stage(member.user):
                    wanted.setdefault((room, member.service), (stage, stage_id, []))[2].append(member)
        await self._align(wanted)

    async def _align(self, wanted: Mapping[tuple[RoomId, str], tuple[LiveStage, StageId, list[Membership]]]) -> None:
        for key, line in list(self._lines.items()):
            if key not in wanted or wanted[key][1] != line.stage_id:
                del self._lines[key]
                await line.close()
        for key, (stage, stage_id, members) in wanted.items():
            if key not in self._lines:
                if len(self._lines) >= MAX_LINES:
                    log.warning("room %s: %d partners' SFUs are in use already", key[0], MAX_LINES)
                    continue
                self._lines[key] = Line(key[1], stage, stage_id, self._parts)
            self._lines[key].want(members)
        LINES.set(len(self._lines))

    async def _read(self, room: RoomId) -> None:
        """All memberships of the room, once; what changes later comes by transactions."""
        now = self._parts.clock.now_ms()
        if room in self._known or now - self._read_ms.get(room, -_READ_AGAIN_MS) < _READ_AGAIN_MS:
            return
        self._read_ms[room] = now
        late = self._late[room] = []
        try:
            events = await self._parts.matrix.read_room(room)
        except EyvanError as error:
            log.info("room %s: its call memberships cannot be read now: %s", room, error)
            return
        finally:
            del self._late[room]
        self._known[room] = {}
        for event in (*events, *late):
            if self.wanted(event):
                self._note(room, {**event, "room_id": room})


__all__ = ["Line", "Membership", "PartnerCalls", "Parts", "Speaker", "membership_of"]
