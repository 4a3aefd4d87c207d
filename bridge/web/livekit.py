"""The service that MatrixRTC clients such as Element Call find by their homeserver (MSC4143, MSC4195), without LiveKit.

=====================================  ====================================================================
``POST /livekit/sfu/get``              OpenID token → ``{url, jwt}`` (the older form)
``POST /livekit/get_token``            the same, of MSC4195
``POST /livekit/delegate_delayed_…``   a leave made by the service (MSC4195): for ordinary calls alone
``GET /livekit/rtc/v1``                LiveKit's signalling; ``…/validate`` says whether a token is good
``GET /livekit/rtc``                   that of clients before 2026, with two connections: refused in words
=====================================  ====================================================================

A homeserver has one such service for all its calls, so a room without a live stage is somebody else's: its request is
passed on as it came to ``matrixrtc.fallback_service``, which asks neither the database nor the relay.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import web
from livekit.protocol.rtc import JoinRequest

from bridge.config import MatrixRtcConfig
from bridge.errors import BadInput, BadToken, EyvanError, Full, NotFound, Refused, Unavailable
from bridge.identity.call_tokens import Call, CallTokens
from bridge.identity.openid import OpenId, OpenIdToken
from bridge.ids import RoomId, StageId, UserId, parse_room
from bridge.live.card import plain_of
from bridge.live.ports import Clock
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.live.view import may_sit
from bridge.text import say
from bridge.web import livekit_messages as lk
from bridge.web.livekit_session import CallPage, Calls, CallSession, seated

log = logging.getLogger(__name__)

PATH = "/livekit"
DELEGATE = "/delegate_delayed_leave"
MAX_CALLS = 2_000
MAX_DEVICES = 5  # of one person in one stage
MAX_FRAME = 128 * 1024  # bytes
_FALLBACK_S = 30.0
_MAX_TOLD = 1_000  # people
_DEVICE = 255  # characters
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, X-Requested-With",
    "Access-Control-Max-Age": "86400",
}
_PASSED_ON = ("Content-Type", "Authorization", "Accept", "User-Agent")


def service_url(public_url: str) -> str:
    """What ``livekit_service_url`` is to be: in the homeserver's configuration and in the bot's membership."""
    return public_url.rstrip("/") + PATH


class LiveKit:
    """Its routes live in the page's web server, which calls ``hang_up`` when it stops. ``close`` is harmless twice."""

    def __init__(
        self,
        config: MatrixRtcConfig,
        public_url: str,
        bot: str,
        rooms: Rooms,
        openid: OpenId,
        tokens: CallTokens,
        clock: Clock,
        prefix: str,
        explain: Callable[[LiveStage, UserId], Awaitable[None]] | None = None,
    ) -> None:
        """``explain``: tell somebody that an encrypted room has no call, and how to hear the stage."""
        self._explain = explain
        self._told: OrderedDict[tuple[StageId, UserId], None] = OrderedDict()  # the oldest may be told again
        self._config, self._bot, self._rooms, self._clock = config, lk.bot_identity(bot), rooms, clock
        self._openid, self._tokens, self._prefix = openid, tokens, prefix
        self._service = service_url(public_url)
        self._calls = Calls()
        self._sockets: set[web.WebSocketResponse] = set()
        self._sign_in: Callable[[web.Request], None] = lambda request: None
        self._http: aiohttp.ClientSession | None = None

    def routes(self, sign_in: Callable[[web.Request], None]) -> list[web.RouteDef]:
        self._sign_in = sign_in
        posts = [("/sfu/get", self._sfu_get), ("/get_token", self._get_token), (DELEGATE, self._delegate)]
        return [
            *(web.post(PATH + path, handler) for path, handler in posts),
            *(web.options(PATH + path, _preflight) for path, _ in posts),
            web.get(f"{PATH}/rtc/v1", self._rtc),
            web.get(f"{PATH}/rtc/v1/validate", self._validate),
            web.get(f"{PATH}/rtc", _too_old),
            web.get(f"{PATH}/rtc/validate", _too_old),
        ]

    async def hang_up(self) -> None:
        """Everybody is told to join anew, which they do when we are back."""
        for page in self._calls:
            page.bye("restart")
        await asyncio.gather(*(_closed(socket) for socket in list(self._sockets)), return_exceptions=True)

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.close()
        await self._openid.close()

    # -- tokens --------------------------------------------------------------------------------

    async def _sfu_get(self, request: web.Request) -> web.StreamResponse:
        return await self._token(request, "/sfu/get", "room")

    async def _get_token(self, request: web.Request) -> web.StreamResponse:
        return await self._token(request, "/get_token", "room_id")

    async def _delegate(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = object_of(raw)
            if self._stage(body.get("room_id", body.get("room"))) is not None:
                raise NotFound("a stage sends nobody's delayed leave; your client restarts it itself")
            return await self._pass_on(request, DELEGATE, raw)
        except EyvanError as error:
            return self.refusal(request, error)

    async def _token(self, request: web.Request, path: str, field: str) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = object_of(raw)
            stage = self._stage(body.get(field))
            if stage is None:
                return await self._pass_on(request, path, raw)
            self._sign_in(request)
            call = await (self._of_sfu_get(body, stage) if path == "/sfu/get" else self._of_get_token(body, stage))
            return web.json_response(self._answer(call, stage), headers=_CORS)
        except EyvanError as error:
            log.info("a call token is refused: %s", error)
            return self.refusal(request, error)

    def _stage(self, room: object) -> LiveStage | None:
        """The live stage of that room; None where an ordinary call may go on. Raises Unavailable while we read it."""
        if not isinstance(room, str):
            return None
        stage = self._rooms.of_room(RoomId(room))
        if stage is None or stage.state.live:
            return stage
        if not stage.state.loaded:
            raise Unavailable("this room is being read; try again in a moment")
        return None

    async def give(self, user: UserId, body: Mapping[str, Any]) -> Mapping[str, str]:
        """``{url, jwt}`` for ``user``, for whom the homeserver vouches (`bridge.web.livekit_proxied`); ``body`` as in
        ``/get_token``, without a token. Raises EyvanError."""
        stage = self._stage(body.get("room_id"))
        if stage is None:
            raise NotFound("there is no live stage in this room; ordinary calls ask their livekit_service_url")
        return self._answer(await self._of_get_token(body, stage, user), stage)

    def _answer(self, call: Call, stage: LiveStage) -> Mapping[str, str]:
        jwt = self._tokens.make(call, self._clock.now_ms(), may_speak=stage.state.may_speak(call.user))
        return {"url": "ws" + self._service.removeprefix("http"), "jwt": jwt}

    async def _of_sfu_get(self, body: Mapping[str, Any], stage: LiveStage) -> Call:
        device = _device(body.get("device_id"), "device_id")
        return await self._call(body, stage, device, None)

    async def _of_get_token(self, body: Mapping[str, Any], stage: LiveStage, user: UserId | None = None) -> Call:
        member = body.get("member")
        if not isinstance(member, Mapping):
            raise BadInput("member", member, "send {id, claimed_user_id, claimed_device_id}")
        if body.get("slot_id") != "m.call#ROOM":
            raise BadInput("slot_id", body.get("slot_id"), "a stage has the slot m.call#ROOM")
        device = _device(member.get("claimed_device_id"), "member.claimed_device_id")
        number = _device(member.get("id"), "member.id")
        call = await self._call(body, stage, device, number, user)
        if member.get("claimed_user_id", user) != call.user:
            raise BadInput("member.claimed_user_id", member.get("claimed_user_id"), "it must be the token's own user")
        return call

    async def _call(
        self, body: Mapping[str, Any], stage: LiveStage, device: str, member: str | None, user: UserId | None = None
    ) -> Call:
        """``user``: known already. Raises as `OpenId.user_of`, and Refused where this person may not be here."""
        room, stage_id = parse_room(stage.room), stage.stage_id
        user = user or await self._openid.user_of(OpenIdToken.parse(body.get("openid_token")))
        if stage_id is None or not may_sit(stage.state, user):
            raise Refused("not-in-room")
        if stage.state.room.encrypted:
            await self._tell_of_encryption(stage, stage_id, user)
            raise Refused("encrypted")
        identity = f"{user}:{device}" if member is None else _hashed(user, device, member)
        return Call(identity, user, device, room, stage_id)

    async def _tell_of_encryption(self, stage: LiveStage, stage_id: StageId, user: UserId) -> None:
        """Element Call shows no server's words, only that something went wrong: so they come by chat, once a stage."""
        if self._explain is None or (stage_id, user) in self._told:
            return
        self._told[stage_id, user] = None
        if len(self._told) > _MAX_TOLD:
            self._told.popitem(last=False)
        try:
            await self._explain(stage, user)
        except EyvanError as error:
            log.info("%s could not be told why there is no call: %s", user, error)

    async def _pass_on(self, request: web.Request, path: str, raw: bytes) -> web.StreamResponse:
        """As it came, and the answer as it came; only the CORS headers are ours."""
        if not self._config.fallback_service:
            raise NotFound("there is no live stage in this room, and no service for ordinary calls on this server")
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_FALLBACK_S))
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        try:
            async with self._http.post(
                self._config.fallback_service + path, data=raw, headers=headers, allow_redirects=False
            ) as answer:
                kind = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
                return web.Response(status=answer.status, body=await answer.read(), headers={**_CORS, **kind})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("matrixrtc.fallback_service %s: %s", self._config.fallback_service, error)
            raise Unavailable("the service for ordinary calls does not answer; try again") from error

    def refusal(self, request: web.Request, error: EyvanError) -> web.Response:
        text = str(error)
        if isinstance(error, Refused):
            persian = request.headers.get("Accept-Language", "").startswith("fa")
            args = {"prefix": self._prefix, **error.args_for_text}
            text = plain_of(say("fa" if persian else "en", error.reason, **args))
        return web.json_response(
            {"errcode": error.errcode, "error": text},
            status=error.status,
            headers={**_CORS, "Cache-Control": "no-store"},
        )

    # -- signalling ----------------------------------------------------------------------------

    async def _validate(self, request: web.Request) -> web.StreamResponse:
        """LiveKit's clients ask here why a socket did not open. It spends nothing."""
        try:
            self._tokens.verify(request.query.get("access_token"), self._clock.now_ms())
        except BadToken as error:
            return web.Response(status=error.status, text=str(error), headers=_CORS)
        return web.Response(text="success", headers=_CORS)

    async def _rtc(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._signalling(request)
        except EyvanError as error:
            log.info("a call client is refused: %s", error)
            return web.Response(status=error.status, text=str(error), headers=_CORS)

    async def _signalling(self, request: web.Request) -> web.StreamResponse:
        """Raises EyvanError before the socket is open. A token that opened nothing may be used again."""
        if len(self._sockets) >= MAX_CALLS:
            raise Full("too many calls at once; try again later", 10_000)
        join = lk.parse_join(request.query.get("join_request", ""))
        token, now = request.query.get("access_token", ""), self._clock.now_ms()
        call = self._tokens.spend(token, now)
        opened = False
        try:
            stage = self._rooms.of_room(call.room)
            if stage is None:
                raise Refused("not-in-room")
            others = [each for key, each in self._calls.of(call.stage).items() if key != call.identity]
            if sum(each.user == call.user for each in others) >= MAX_DEVICES:
                raise Full(f"you are in this call with {MAX_DEVICES} devices already", 10_000)
            page = CallPage(
                call,
                stage.state.name(call.user),
                may_speak=stage.state.may_speak(call.user),
                others=lambda: self._calls.of(call.stage),
            )
            async with seated(call, stage, page):
                socket = web.WebSocketResponse(heartbeat=20, max_msg_size=MAX_FRAME, compress=False)
                await socket.prepare(request)
                opened = True
                await self._serve(
                    request, socket, CallSession(call, stage, page, self._calls, self._bot), join, call, stage
                )
            return socket
        finally:
            if not opened:
                self._tokens.give_back(token, now)

    async def _serve(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        session: CallSession,
        join: JoinRequest,
        call: Call,
        stage: LiveStage,
    ) -> None:
        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        def new_token() -> str:
            return self._tokens.make(call, self._clock.now_ms(), may_speak=stage.state.may_speak(call.user))

        self._sockets.add(socket)
        try:
            await session.run(socket, join, abort, new_token)
        finally:
            self._sockets.discard(socket)
            if not socket.closed:
                await socket.close()


async def _preflight(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204, headers=_CORS)


async def _too_old(_: web.Request) -> web.StreamResponse:
    """A 403, of whose text LiveKit's clients make their error when their socket did not open."""
    return web.Response(
        status=403, text="this client is too old for a stage: please update it (/rtc/v1)", headers=_CORS
    )


async def _closed(socket: web.WebSocketResponse) -> None:
    """Give the writer a moment for its last word."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while not socket.closed:  # noqa: ASYNC110  (the writer closes it)
                await asyncio.sleep(0.02)
    await socket.close()


def object_of(raw: bytes) -> Mapping[str, Any]:
    """What cannot be read names no room of ours: it is passed on."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _device(value: object, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _DEVICE or not value.isprintable():
        raise BadInput(name, value, f"send 1 to {_DEVICE} characters")
    return value


def _hashed(user: str, device: str, member: str) -> str:
    """The participant's identity of MSC4195: unpadded base64 of SHA-256 of the canonical JSON array."""
    text = json.dumps([user, device, member], separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
