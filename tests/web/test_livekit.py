"""LiveKit's signalling and tokens over real HTTP and WebSockets, in front of a house of fakes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from livekit.protocol import models as M
from livekit.protocol import rtc as L

from bridge.config import MatrixRtcConfig, WebConfig
from bridge.errors import BadInput
from bridge.identity.call_tokens import LIFE_S, CallTokens
from bridge.identity.links import LinkSigner
from bridge.identity.openid import USERINFO, OpenId
from bridge.ids import UserId
from bridge.matrix.matrixrtc import tell_of_encryption
from bridge.store import open_store
from bridge.web import livekit_messages as lk
from bridge.web.livekit import LiveKit
from bridge.web.livekit_messages import BOT_SID
from bridge.web.server import WebServer
from tests.helpers.fakes import (
    ADMIN,
    AVA,
    BOT,
    HANG_S,
    MOD,
    OTHER,
    ROOM,
    SERVER,
    FakeMatrix,
    FaultyStore,
    HandClock,
    House,
    until,
)  # fmt: skip
from tests.helpers.ports import free_port
from tests.helpers.synapse import serving
from tests.web.conftest import hang_up

BEN = UserId("@bea:a.org")
CYD = UserId("@cem:a.org")
SECRET = "s" * 40


class Client:
    """A LiveKit client's socket: signal responses one after the other."""

    def __init__(self, raw: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = raw
        self.got: list[L.SignalResponse] = []

    async def next(self, kind: str, holds: Callable[[Any], Any] = lambda message: True) -> Any:
        """The next message of this kind that holds."""
        async with asyncio.timeout(HANG_S):
            while True:
                frame = await self.raw.receive()
                assert frame.type is aiohttp.WSMsgType.BINARY, f"closed while waiting for {kind}: {self.got}"
                response = L.SignalResponse.FromString(frame.data)
                self.got.append(response)
                message = getattr(response, kind)
                if response.WhichOneof("message") == kind and holds(message):
                    return message

    async def send(self, **request: Any) -> None:
        await self.raw.send_bytes(L.SignalRequest(**request).SerializeToString())

    async def ping(self) -> None:
        """Returns when all that was sent before is handled."""
        await self.send(ping_req=L.Ping(timestamp=7))
        assert (await self.next("pong_resp")).last_ping_timestamp == 7

    async def closed(self) -> None:
        async with asyncio.timeout(HANG_S):
            while (await self.raw.receive()).type is aiohttp.WSMsgType.BINARY:
                pass


@dataclass
class Hall:
    url: str
    house: House
    store: FaultyStore
    http: aiohttp.ClientSession
    clock: HandClock
    calls: LiveKit
    passed_on: list[tuple[str, bytes, str]] = field(default_factory=list)
    sockets: list[aiohttp.ClientWebSocketResponse] = field(default_factory=list)
    _tokens: int = 0

    async def connect(self, url: str) -> aiohttp.ClientWebSocketResponse:
        self.sockets.append(await self.http.ws_connect(url))
        return self.sockets[-1]

    def openid(self, user: UserId) -> dict[str, str]:
        self._tokens += 1
        return {"access_token": f"{user}|{self._tokens}", "matrix_server_name": SERVER}

    async def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(f"{self.url}/livekit{path}", data=data) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            return response.status, await response.json()

    async def token(self, user: UserId, device: str = "DEV", room: str = ROOM) -> str:
        body = {"room": room, "openid_token": self.openid(user), "device_id": device}
        status, got = await self.post("/sfu/get", body)
        assert status == 200, got
        return str(got["jwt"])

    def join_url(self, token: str, **more: Any) -> str:
        join = L.JoinRequest(publisher_offer=L.SessionDescription(type="offer", sdp="offer", id=1), **more)
        packed = gzip.compress(join.SerializeToString())
        wrapped = L.WrappedJoinRequest(compression=L.WrappedJoinRequest.GZIP, join_request=packed)
        text = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode().rstrip("=")
        return f"{self.url}/livekit/rtc/v1?access_token={token}&join_request={text}"

    async def call(self, user: UserId, device: str = "DEV", token: str = "") -> tuple[Client, Any]:
        """A client that has joined, and its join message."""
        raw = await self.connect(self.join_url(token or await self.token(user, device)))
        client = Client(raw)
        joined = await client.next("join")
        assert (await client.next("answer")).id == 1
        return client, joined

    def role(self, user: UserId, role: str, **more: Any) -> None:
        self.house.matrix.role(ADMIN, user, role=role, stage_id=self.house.stage().stage_id, **more)


@pytest.fixture(params=["fallback"])
async def hall(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Hall]:
    clock = HandClock()
    matrix = FakeMatrix(clock)
    matrix.make_room(ROOM, BOT, MOD, AVA, BEN, CYD)
    matrix.make_room(OTHER, BOT, AVA)
    passed_on: list[tuple[str, bytes, str]] = []

    async def userinfo(asked: web.Request) -> web.Response:
        return web.json_response({"sub": asked.query["access_token"].split("|")[0]})

    async def ordinary(asked: web.Request) -> web.Response:
        passed_on.append((asked.path, await asked.read(), asked.headers["Content-Type"]))
        return web.json_response({"url": "wss://sfu.a.org", "jwt": "theirs"}, status=201)

    app = web.Application()
    app.add_routes([web.get(USERINFO, userinfo), web.post("/jwt/{rest:.*}", ordinary)])
    async with AsyncExitStack() as stack:  # a start that fails leaves no thread of SQLite for which pytest waits
        database = await open_store(f"sqlite:///{tmp_path / 'eyvan.db'}", clock.now_ms)
        stack.push_async_callback(database.close)
        store = FaultyStore(database)
        house = House(matrix, store, clock)
        stack.push_async_callback(house.close)
        await house.start()
        await house.live()
        beside = await stack.enter_async_context(serving(app, free_port()))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        fallback = f"{beside}/jwt" if request.param == "fallback" else request.param
        rtc = MatrixRtcConfig(enabled=True, fallback_service=fallback)
        explain = partial(tell_of_encryption, matrix, "en")
        calls = LiveKit(rtc, url, BOT, house.rooms, OpenId(SERVER, beside), CallTokens(SECRET), clock, "!", explain)
        stack.push_async_callback(calls.close)
        config = WebConfig(public_url=url, port=port, link_secret=SECRET)
        server = WebServer(config, house.rooms, store, LinkSigner(SECRET), clock, "!", calls)
        stack.push_async_callback(server.close)
        await server.start()
        http = await stack.enter_async_context(aiohttp.ClientSession())
        made = Hall(url, house, store, http, clock, calls, passed_on)
        yield made
        await hang_up(made.sockets)
        await server.close()
        await calls.close()


# -- tokens -------------------------------------------------------------------------------------


async def test_a_token_for_the_older_form(hall: Hall) -> None:
    status, got = await hall.post("/sfu/get", {"room": ROOM, "openid_token": hall.openid(AVA), "device_id": "DEV"})
    assert status == 200
    assert got["url"] == hall.url.replace("http", "ws") + "/livekit"
    claims = jwt.decode(got["jwt"], options={"verify_signature": False})
    assert (claims["sub"], claims["video"]["room"], claims["video"]["canPublish"]) == (f"{AVA}:DEV", ROOM, False)


async def test_a_token_for_the_form_of_msc4195(hall: Hall) -> None:
    member = {"id": "xyz", "claimed_user_id": AVA, "claimed_device_id": "DEV"}
    body = {"room_id": ROOM, "slot_id": "m.call#ROOM", "member": member}
    status, got = await hall.post("/get_token", {**body, "openid_token": hall.openid(AVA)})
    assert status == 200
    wanted = hashlib.sha256(json.dumps([AVA, "DEV", "xyz"], separators=(",", ":")).encode()).digest()
    claims = jwt.decode(got["jwt"], options={"verify_signature": False})
    assert claims["sub"] == base64.b64encode(wanted).decode().rstrip("=")
    status, got = await hall.post("/get_token", {**body, "openid_token": hall.openid(BEN)})
    assert (status, got["errcode"]) == (400, "M_INVALID_PARAM"), "somebody else's token"
    status, got = await hall.post("/get_token", {**body, "slot_id": "m.call#2", "openid_token": hall.openid(AVA)})
    assert (status, got["errcode"]) == (400, "M_INVALID_PARAM")


async def test_browsers_may_ask_from_everywhere(hall: Hall) -> None:
    for path in ("/sfu/get", "/get_token", "/delegate_delayed_leave"):
        async with hall.http.options(f"{hall.url}/livekit{path}") as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "Content-Type" in response.headers["Access-Control-Allow-Headers"]


async def test_who_gets_no_token(hall: Hall) -> None:
    body = {"room": ROOM, "openid_token": hall.openid(AVA), "device_id": "DEV"}
    assert (await hall.post("/sfu/get", body))[0] == 200
    status, got = await hall.post("/sfu/get", body)
    assert (status, got["errcode"]) == (401, "M_UNKNOWN_TOKEN"), "a replay"
    stranger = {"room": ROOM, "openid_token": hall.openid(UserId("@eve:a.org")), "device_id": "DEV"}
    status, got = await hall.post("/sfu/get", stranger)
    assert (status, got["errcode"]) == (403, "M_FORBIDDEN")
    for wrong in ({"device_id": ""}, {"device_id": "x\n"}, {"device_id": "x" * 300}, {"openid_token": "x"}):
        status, got = await hall.post("/sfu/get", {**body, "openid_token": hall.openid(AVA), **wrong})
        assert (status, got["errcode"]) == (400, "M_INVALID_PARAM")
    assert not hall.passed_on


async def test_an_encrypted_room_is_refused_in_words(hall: Hall) -> None:
    hall.house.matrix.put(ADMIN, "m.room.encryption", "", {"algorithm": "m.megolm.v1.aes-sha2"})
    await until(lambda: hall.house.stage().state.room.encrypted, "the room encrypted")
    for _ in range(3):  # as often as Element Call asks
        status, got = await hall.post("/sfu/get", {"room": ROOM, "openid_token": hall.openid(AVA), "device_id": "D"})
        assert status == 403
        assert "encrypted" in got["error"]
    stranger = {"room": ROOM, "openid_token": hall.openid(UserId("@eve:a.org")), "device_id": "D"}
    assert (await hall.post("/sfu/get", stranger))[0] == 403
    chats = hall.house.matrix.chats  # Element Call does not show what the answer says
    await until(lambda: len(chats.get(AVA, [])) == 2, "what she reads", lambda: chats)
    assert "end-to-end encrypted" in chats[AVA][0]
    assert f"https://x/s/{hall.house.stage().stage_id}" in chats[AVA][1]
    assert len(chats) == 1


async def test_rooms_without_a_stage_are_passed_on_as_they_came(hall: Hall) -> None:
    """With neither database nor relay: a server's ordinary calls depend on it."""
    hall.store.broken = {name for name in dir(hall.store._inner) if not name.startswith("_")}
    hall.house.media.dead = True
    for path, body in (
        ("/sfu/get", b'{"room":  "!elsewhere:a.org", "openid_token": {"\\u0061": 1}, "delay_id": "d"}'),
        ("/get_token", b'{"room_id": "!other:a.org", "slot_id": "m.call#ROOM"}'),  # the bot is in, no stage is live
        ("/sfu/get", b"not json"),
        ("/delegate_delayed_leave", b'{"room_id": "!elsewhere:a.org", "delay_id": "d"}'),
    ):
        assert await hall.post(path, body) == (201, {"url": "wss://sfu.a.org", "jwt": "theirs"})
        assert hall.passed_on.pop()[:2] == ("/jwt" + path, body)


async def test_a_stage_sends_nobodys_leave(hall: Hall) -> None:
    """Element Call asks for it, and restarts its delayed event itself where that is not to be had."""
    status, got = await hall.post("/delegate_delayed_leave", {"room_id": ROOM, "delay_id": "d"})
    assert (status, got["errcode"]) == (404, "M_NOT_FOUND")
    assert not hall.passed_on


@pytest.mark.parametrize("hall", [""], indirect=True)
async def test_without_a_fallback_such_rooms_are_not_found(hall: Hall) -> None:
    status, got = await hall.post("/sfu/get", {"room": "!elsewhere:a.org"})
    assert (status, got["errcode"]) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("hall", ["http://127.0.0.1:9"], indirect=True)
async def test_a_fallback_that_is_down_is_said(hall: Hall) -> None:
    status, got = await hall.post("/sfu/get", {"room": "!elsewhere:a.org"})
    assert (status, got["errcode"]) == (503, "M_UNAVAILABLE")
    assert await hall.token(AVA), "stages do not need it"


# -- the socket's door --------------------------------------------------------------------------


async def test_a_token_opens_once(hall: Hall) -> None:
    token = await hall.token(AVA)
    validate = f"{hall.url}/livekit/rtc/v1/validate?access_token="
    async with hall.http.get(validate + token) as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (200, "*")
    client, _ = await hall.call(AVA, token=token)
    again = (await client.next("refresh_token"),)
    for bad in (token, "junk", token[:-3], ""):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await hall.connect(hall.join_url(bad))
        assert refused.value.status == 401
        async with hall.http.get(validate + bad) as response:
            assert response.status == 401
    hall.clock.advance(LIFE_S)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hall.connect(hall.join_url(again[0]))
    assert refused.value.status == 401
    await client.ping()


async def test_older_signalling_is_refused_in_words(hall: Hall) -> None:
    token = await hall.token(AVA)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hall.connect(f"{hall.url}/livekit/rtc?access_token={token}&auto_subscribe=1&sdk=js&protocol=15")
    assert refused.value.status == 403
    async with hall.http.get(f"{hall.url}/livekit/rtc/validate?access_token={token}") as response:
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (403, "*")
        assert "update" in await response.text()
    await hall.call(AVA, token=token)  # it spent nothing


async def test_a_token_that_opened_nothing_may_be_used_again(hall: Hall) -> None:
    token = await hall.token(AVA)
    hall.house.matrix.member(ADMIN, AVA, "leave")
    await until(lambda: not hall.house.stage().state.may_hear(AVA), "she has left")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hall.connect(hall.join_url(token))
    assert refused.value.status == 403
    hall.house.matrix.member(AVA, AVA, "join")
    await until(lambda: hall.house.stage().state.may_hear(AVA), "she is back")
    await hall.call(AVA, token=token)


@pytest.mark.parametrize("text", ["", "%", "AAAA", base64.urlsafe_b64encode(b"\x08\x01\x12\x05junk!").decode()])
async def test_junk_in_place_of_a_join_request(hall: Hall, text: str) -> None:
    token = await hall.token(AVA)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hall.connect(f"{hall.url}/livekit/rtc/v1?access_token={token}&join_request={text}")
    assert refused.value.status == 400


async def test_a_join_request_that_unpacks_to_too_much(hall: Hall) -> None:
    packed = gzip.compress(bytes(1 << 22))
    wrapped = L.WrappedJoinRequest(compression=L.WrappedJoinRequest.GZIP, join_request=packed)
    text = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hall.connect(f"{hall.url}/livekit/rtc/v1?access_token=x&join_request={text}")
    assert refused.value.status == 400


# -- in the stage -------------------------------------------------------------------------------


async def test_a_listener(hall: Hall) -> None:
    client, joined = await hall.call(AVA)
    me = joined.participant
    assert (me.identity, me.permission.can_publish, me.permission.can_subscribe) == (f"{AVA}:DEV", False, True)
    bot = joined.other_participants[0]
    assert (bot.identity, bot.sid, len(bot.tracks)) == (f"{BOT}:STAGE", BOT_SID, 1)
    assert not joined.ice_servers, "nobody else is ever asked"
    assert joined.client_configuration.resume_connection == M.DISABLED
    media = hall.house.media
    assert (media.hears(AVA), media.heard(AVA)) == (True, False)
    await client.send(add_track=L.AddTrackRequest(cid="c", type=M.AUDIO, source=M.MICROPHONE))
    assert (await client.next("request_response")).reason == L.RequestResponse.NOT_ALLOWED
    await client.send(leave=L.LeaveRequest())
    await client.closed()
    await until(lambda: not media.hears(AVA), "her peer gone at once")


async def promoted(hall: Hall, user: UserId, client: Client) -> str:
    """On stage, with a microphone; the track's sid."""
    hall.role(user, "speaker")
    await client.next("update", lambda m: m.participants[0].permission.can_publish)
    assert hall.house.media.heard(user), "the gate is open before the client is told"
    await client.send(add_track=L.AddTrackRequest(cid="c", type=M.AUDIO, source=M.MICROPHONE))
    published = await client.next("track_published")
    assert published.cid == "c"
    return str(published.track.sid)


def mic(hall: Hall, user: UserId) -> bool:
    return any(seat.mic_on for seat in hall.house.stage()._seats.of([user]))


async def test_promoted_and_demoted(hall: Hall) -> None:
    client, _ = await hall.call(AVA)
    sid = await promoted(hall, AVA, client)
    await until(lambda: mic(hall, AVA), "her microphone on")
    await client.send(mute=L.MuteTrackRequest(sid=sid, muted=True))
    await until(lambda: not mic(hall, AVA), "her microphone off")
    await client.send(mute=L.MuteTrackRequest(sid=sid, muted=False))
    await until(lambda: mic(hall, AVA), "her microphone on")
    hall.role(AVA, "listener")
    muted = await client.next("mute")
    assert (muted.sid, muted.muted) == (sid, True)
    assert not hall.house.media.heard(AVA), "the gate is shut before the client is told"
    update = await client.next("update")
    assert not update.participants[0].permission.can_publish
    await client.send(mute=L.MuteTrackRequest(sid=sid, muted=False))
    assert (await client.next("mute")).muted, "its button shows what is true"
    assert not hall.house.media.heard(AVA)


async def test_muted_by_a_moderator_and_unmuted(hall: Hall) -> None:
    client, _ = await hall.call(AVA)
    sid = await promoted(hall, AVA, client)
    hall.role(AVA, "speaker", muted=True)
    assert (await client.next("mute")).sid == sid
    assert not (await client.next("update")).participants[0].permission.can_publish
    hall.role(AVA, "speaker")
    await client.next("update", lambda m: m.participants[0].permission.can_publish)
    await client.ping()
    assert not any(each.WhichOneof("message") == "mute" and not each.mute.muted for each in client.got), "never unmuted"


async def test_what_a_speaker_cannot_publish(hall: Hall) -> None:
    hall.role(AVA, "speaker")
    await until(lambda: hall.house.stage().state.may_speak(AVA), "on stage")
    client, joined = await hall.call(AVA)
    assert joined.participant.permission.can_publish
    for asked, why in (
        (L.AddTrackRequest(cid="v", type=M.VIDEO, source=M.CAMERA), L.RequestResponse.UNSUPPORTED_TYPE),
        (L.AddTrackRequest(cid="e", type=M.AUDIO, encryption=M.Encryption.GCM), L.RequestResponse.NOT_ALLOWED),
    ):
        await client.send(add_track=asked)
        refused = await client.next("request_response")
        assert (refused.reason, refused.add_track.cid) == (why, asked.cid)
    await client.ping()
    assert not any(each.WhichOneof("message") == "track_published" for each in client.got)


async def test_ends(hall: Hall) -> None:
    ava, ben = (await hall.call(AVA))[0], (await hall.call(BEN))[0]
    hall.house.matrix.member(ADMIN, AVA, "leave")
    left = await ava.next("leave")
    assert (left.reason, left.action) == (M.PARTICIPANT_REMOVED, L.LeaveRequest.DISCONNECT)
    await ava.closed()
    hall.house.media.die()
    assert (await ben.next("leave")).action == L.LeaveRequest.RECONNECT, "the relay lost it: join anew"
    await ben.closed()
    ben = (await hall.call(BEN))[0]
    hall.house.matrix.message(ADMIN, "!stage end")
    left = await ben.next("leave")
    assert (left.reason, left.action) == (M.ROOM_CLOSED, L.LeaveRequest.DISCONNECT)


async def test_a_bridge_that_stops_says_come_back(hall: Hall) -> None:
    client, _ = await hall.call(AVA)
    stopping = asyncio.create_task(hall.calls.hang_up())
    assert (await client.next("leave")).action == L.LeaveRequest.RECONNECT
    await client.closed()
    await stopping


async def test_one_device_has_one_seat(hall: Hall) -> None:
    """Element Call opens a socket, drops it and opens another; a page is reloaded; a network comes back."""
    first, _ = await hall.call(AVA)
    token = await first.next("refresh_token")
    second, _ = await hall.call(AVA, token=token)
    assert (await first.next("leave")).reason == M.DUPLICATE_IDENTITY
    await first.closed()
    await second.ping()
    assert len(hall.house.media.peers) == 1
    joining = [await hall.token(AVA) for _ in range(50)]
    sockets = await asyncio.gather(*(hall.connect(hall.join_url(each)) for each in joining))
    last, _ = await hall.call(AVA)
    await last.ping()
    assert len(hall.house.stage()._seats.of([AVA])) == 1
    assert len(hall.house.media.peers) == 1
    await hang_up(sockets)
    await last.ping()


async def test_one_person_has_few_devices(hall: Hall) -> None:
    clients = [(await hall.call(AVA, f"D{number}"))[0] for number in range(5)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hall.connect(hall.join_url(await hall.token(AVA, "D5")))
    assert refused.value.status == 429
    await hall.call(AVA, "D0")  # a device that is in may join anew
    await hall.call(BEN)
    await clients[1].send(leave=L.LeaveRequest())
    await clients[1].closed()
    await until(lambda: len(hall.house.stage()._seats.of([AVA])) == 4, "one device gone")
    await hall.call(AVA, "D5")


async def test_sign_ins_of_one_source_are_limited(hall: Hall) -> None:
    body = {"room": ROOM, "openid_token": hall.openid(AVA), "device_id": ""}  # refused before anybody is asked
    answers = await asyncio.gather(*(hall.post("/sfu/get", body) for _ in range(320)))
    assert {status for status, _ in answers} == {400, 429}
    status, _ = await hall.post("/sfu/get", {"room": "!elsewhere:a.org"})
    assert status == 201, "ordinary calls are not counted"


async def test_callers_see_each_other_and_who_talks(hall: Hall) -> None:
    ava, _ = await hall.call(AVA)
    ben, joined = await hall.call(BEN)
    assert f"{AVA}:DEV" in [each.identity for each in joined.other_participants]
    came = await ava.next("update", lambda m: m.participants[0].identity == f"{BEN}:DEV")
    assert came.participants[0].state == M.ParticipantInfo.ACTIVE
    hall.role(AVA, "speaker")
    await ava.next("update", lambda m: m.participants[0].permission.can_publish)
    assert not joined.other_participants[1].tracks
    await ava.send(add_track=L.AddTrackRequest(cid="c", type=M.AUDIO, source=M.MICROPHONE))
    sid = (await ava.next("track_published")).track.sid
    for muted in (False, True, False):
        await ava.send(mute=L.MuteTrackRequest(sid=sid, muted=muted))
        seen = await ben.next("update", lambda m: m.participants[0].tracks)
        (mic_of_ava,) = seen.participants[0].tracks
        assert (mic_of_ava.sid, mic_of_ava.muted, len(seen.participants)) == (sid, muted, 1)
    stage = hall.house.stage()
    csrc = next(iter(stage._seats.of([AVA]))).csrc
    assert csrc is not None
    bens = hall.calls._calls.of(stage.stage_id)[f"{BEN}:DEV"]  # type: ignore[arg-type]
    await until(lambda: bens._view and [csrc] in [p.csrc for p in bens._view.speakers], "Ben's page knows her voice")
    hall.house.rooms.levels(stage.stage_id, {csrc: 20})  # type: ignore[arg-type]
    talks = {each.sid: each.active for each in (await ben.next("speakers_changed")).speakers}
    assert talks == {joined.other_participants[1].sid: True, BOT_SID: True}
    talks = {each.sid: each.active for each in (await ava.next("speakers_changed")).speakers}
    assert talks == {joined.other_participants[1].sid: True}, "the mix she gets is without her"
    hall.house.rooms.levels(stage.stage_id, {})  # type: ignore[arg-type]
    talks = {each.sid: each.active for each in (await ben.next("speakers_changed")).speakers}
    assert not any(talks.values())
    await ben.send(leave=L.LeaveRequest())
    gone = await ava.next("update", lambda m: m.participants[0].identity == f"{BEN}:DEV")
    assert gone.participants[0].state == M.ParticipantInfo.DISCONNECTED


async def test_junk_frames_harm_nobody(hall: Hall) -> None:
    ava, _ = await hall.call(AVA)
    ben, _ = await hall.call(BEN)
    chance = random.Random(7)
    good = L.SignalRequest(add_track=L.AddTrackRequest(cid="c", type=M.AUDIO, name="x" * 30)).SerializeToString()
    for _ in range(60):
        frame = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        await ava.raw.send_bytes(bytes(frame[: chance.randrange(1, len(frame))]))
    await ava.raw.send_str("text")
    await ava.send(mute=L.MuteTrackRequest(sid="TR_unknown", muted=False))
    await ben.ping()
    await ava.ping()
    assert not hall.house.media.heard(AVA)


async def test_off_means_no_route(hall: Hall) -> None:
    """The page's server without `MoreRoutes`, as the composition root makes it where matrixrtc is off."""
    port = free_port()
    config = WebConfig(public_url=f"http://127.0.0.1:{port}", port=port, link_secret=SECRET)
    server = WebServer(config, hall.house.rooms, hall.store, LinkSigner(SECRET), hall.clock, "!")
    await server.start()
    for method, path in (("POST", "/sfu/get"), ("POST", "/get_token"), ("GET", "/rtc/v1"), ("GET", "/rtc/v1/validate")):
        async with hall.http.request(method, f"{config.public_url}/livekit{path}") as response:
            assert response.status == 404
            assert "Access-Control-Allow-Origin" not in response.headers
    await server.close()
    assert not MatrixRtcConfig().enabled


def test_altered_messages_are_refused_by_name() -> None:
    """2,000 of each: `BadInput`, or something that can be read; nothing else."""
    chance = random.Random(11)
    join = L.JoinRequest(publisher_offer=L.SessionDescription(type="offer", sdp="v=0", id=1)).SerializeToString()
    wrapped = L.WrappedJoinRequest(compression=L.WrappedJoinRequest.GZIP, join_request=gzip.compress(join))
    request = L.SignalRequest(add_track=L.AddTrackRequest(cid="c", type=M.AUDIO, name="x" * 30)).SerializeToString()
    refused = 0
    for good, parse in ((wrapped.SerializeToString(), _parse_packed), (request, lk.parse_request)):
        for _ in range(2_000):
            frame = bytearray(good)
            for _ in range(chance.randrange(1, 8)):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
            try:
                parse(bytes(frame[: chance.randrange(len(frame) + 1)]))
            except BadInput:
                refused += 1
    assert refused > 1_000


def _parse_packed(data: bytes) -> L.JoinRequest:
    return lk.parse_join(base64.urlsafe_b64encode(data).decode().rstrip("="))
