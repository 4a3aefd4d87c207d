"""WHEP by an aiortc client over real UDP: what is heard, who may, restarts, limits, refusals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from bridge.ids import UserId
from bridge.rules.content import STAGE
from tests.helpers.fakes import ADMIN, AVA, BEN, ROOM, until
from tests.helpers.studio import Studio, running_studio
from tests.helpers.tone import level_at, ratio_at
from tests.helpers.whep import FRAGMENT, SDP, WhepPlayer


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    async with running_studio(tmp_path) as made:
        yield made


async def offer_of(direction: Any = "recvonly") -> tuple[RTCPeerConnection, str]:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", direction=direction)
    await pc.setLocalDescription(await pc.createOffer())
    return pc, pc.localDescription.sdp


@pytest.fixture
async def offer() -> AsyncIterator[str]:
    pc, sdp = await offer_of()
    yield sdp
    await pc.close()


def player_of(studio: Studio, token: str | None, *, listen_only: bool = True) -> WhepPlayer:
    url = f"{studio.url}/whep/{studio.stage}"
    player = WhepPlayer(studio.http, url, token, listen_only=listen_only)
    studio.stack.push_async_callback(player.close)
    return player


def tone(heard: Any) -> bool:
    return ratio_at(heard, 440) > 20 and level_at(heard, 440) > -30


async def test_a_tone_is_heard_until_delete(studio: Studio) -> None:
    await studio.voice()
    player = await player_of(studio, studio.whep_token(BEN)).play()
    await player.client.hear(tone)
    assert "a=sendonly" in player.client.answer
    assert studio.audience() == 1
    assert await player.delete() == 200
    await player.client.hear(lambda heard: level_at(heard, 440) < -60)
    await until(lambda: studio.audience() == 0, "gone")
    assert await player.delete() == 404
    assert studio.server._whep._places._count == 0


async def test_by_the_pages_session_too(studio: Studio) -> None:
    await studio.voice()
    player = await player_of(studio, await studio.session(AVA)).play()
    await player.client.hear(tone)


async def test_a_player_of_a_speaker_is_never_heard(studio: Studio) -> None:
    studio.house.matrix.role(ADMIN, BEN, role="speaker", stage_id=studio.stage)
    await until(lambda: studio.house.stage().state.may_speak(BEN), "speaker")
    await studio.voice(hz=440)
    player = await player_of(studio, studio.whep_token(BEN), listen_only=False).play()
    player.client.say(880)
    ear = await studio.voice("ear", None)

    async def gated() -> int:
        return sum(each.gated for each in (await studio.workers.stats()).peers.values())

    async with asyncio.timeout(60):
        while await gated() < 100:
            await ear.client.hear(tone)
            assert level_at(ear.client.recent(0.5), 880) < -50
    await player.client.hear(tone)


# -- cuts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leave", "ban", "end", "revoke"])
async def test_a_cut_ends_it(studio: Studio, how: str) -> None:
    await studio.voice()
    player = await player_of(studio, studio.whep_token(AVA)).play()
    await player.client.hear(tone)
    if how in ("leave", "ban"):
        studio.house.matrix.member(ADMIN, AVA, how)
    elif how == "end":
        studio.house.matrix.message(ADMIN, "!stage end")
    else:
        studio.house.matrix.message(AVA, "!link revoke")
    await player.client.hear(lambda heard: level_at(heard, 440) < -60)
    await until(lambda: not len(studio.server._whep), "the resource")
    with pytest.raises(ConnectionError, match=r"^40[134]"):
        await player_of(studio, studio.whep_token(AVA)).play()


async def test_guests(studio: Studio, offer: str) -> None:
    url = f"{studio.url}/whep/{studio.stage}"
    headers = {"Content-Type": SDP, "Origin": "https://elsewhere.example"}
    async with studio.http.post(url, data=offer, headers=headers) as refused:
        assert (refused.status, refused.content_type) == (403, "application/problem+json")
        assert "Access-Control-Allow-Origin" not in refused.headers
        problem = await refused.json()
        assert (problem["status"], problem["errcode"]) == (403, "M_FORBIDDEN")
    await studio.guests(True)
    await studio.voice()
    player = await player_of(studio, None).play()
    await player.client.hear(tone)
    async with studio.http.options(url, headers=headers) as allowed:
        assert allowed.headers["Access-Control-Allow-Origin"] == "*"
        assert allowed.headers["Accept-Post"] == SDP
        assert "authorization" not in allowed.headers["Access-Control-Allow-Headers"].lower()
    bearer = {**headers, "Authorization": f"Bearer {studio.whep_token(BEN)}"}
    async with studio.http.post(url, data=offer, headers=bearer) as own:
        assert own.status == 201
        assert "Access-Control-Allow-Origin" not in own.headers
    await studio.guests(False)
    await player.client.hear(lambda heard: level_at(heard, 440) < -60)
    await until(lambda: len(studio.server._whep) == 1, "the guest's resource")


async def test_one_that_never_connects_or_falls_silent_is_removed(studio: Studio, offer: str) -> None:
    player = player_of(studio, studio.whep_token(BEN))
    await player.post(offer)
    assert len(studio.server._whep) == 1
    await until(lambda: studio.audience() == 1, "seated")
    peer = next(iter(studio.house.stage()._seats)).peer
    assert peer is not None
    await asyncio.wait_for(_gone(studio), 60)
    assert studio.audience() == 0
    assert await player.delete() == 404


async def _gone(studio: Studio) -> None:
    while len(studio.server._whep):  # noqa: ASYNC110  (30 s, by the worker's own clock)
        await asyncio.sleep(0.2)


# -- trickle and restart ---------------------------------------------------------------------------


async def test_trickle_is_taken_and_a_restart_is_answered(studio: Studio) -> None:
    await studio.voice()
    player = await player_of(studio, studio.whep_token(BEN)).play()
    await player.client.hear(tone)
    ufrag = re.search(r"a=ice-ufrag:(\S+)", player.client.offer)
    assert ufrag
    same = f"a=ice-ufrag:{ufrag[1]}\r\na=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\na=end-of-candidates\r\n"
    assert (await player.patch(same, player.etag))[0] == 204
    assert (await player.patch("a=end-of-candidates\r\n"))[0] == 204
    assert (await player.patch(same, '"another"'))[0] == 412
    fresh = "a=ice-ufrag:newufrag\r\na=ice-pwd:" + "p" * 24 + "\r\n"
    assert (await player.patch(fresh))[0] == 428
    status, fragment, etag = await player.patch(fresh, '"*"'.strip('"'))
    assert status == 200
    assert etag not in ("", player.etag)
    found = dict(re.findall(r"a=(ice-ufrag|ice-pwd):(\S+)", fragment))
    assert f'"{found["ice-ufrag"]}"' == etag
    assert len(found["ice-pwd"]) >= 22
    assert "m=audio" in fragment
    assert "a=candidate:" in fragment
    assert (await player.patch(same, player.etag))[0] == 412  # of the session before
    await player.client.hear(tone)  # the old pair goes on until the new one is nominated (RFC 8445 §9)
    assert await player.delete() == 200


async def test_patch_is_refused_where_it_is_none(studio: Studio, offer: str) -> None:
    player = player_of(studio, studio.whep_token(BEN))
    await player.post(offer)
    headers = {**player.headers, "Content-Type": "application/json"}
    async with studio.http.patch(player.location, data="{}", headers=headers) as response:
        assert response.status == 415
        assert response.headers["Accept-Patch"] == FRAGMENT
    assert (await player.patch("a=ice-ufrag:newufrag\r\n", "*"))[0] == 400
    assert await player.delete(Authorization=f"Bearer {studio.whep_token(AVA)}") == 401
    async with studio.http.delete(player.location) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert await player.delete() == 200


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"v=0\r\n", SDP, 400), (b"", SDP, 400), (b"\xff\xfe", SDP, 400), (b"{}", "application/json", 415),
        (b"v=0" + b"x" * 70_000, SDP, 413), (b"v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n", SDP, 400),
    ],
)  # fmt: skip
async def test_bad_offers(studio: Studio, body: bytes, kind: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {studio.whep_token(BEN)}", "Content-Type": kind}
    async with studio.http.post(f"{studio.url}/whep/{studio.stage}", data=body, headers=headers) as response:
        assert (response.status, response.content_type) == (status, "application/problem+json")
        problem = await response.json()
        assert (problem["status"], problem["type"]) == (status, "about:blank")
        assert problem["detail"]
    await until(lambda: studio.audience() == 0 and not len(studio.server._whep), "nothing left")
    assert studio.server._whep._places._count == 0


async def test_bad_tokens_and_other_stages(studio: Studio, offer: str) -> None:
    other = studio.signer.make_whep(BEN, ROOM, "another-stage-000000", studio.clock.now_ms(), 1)  # type: ignore[arg-type]
    nobody = studio.whep_token(UserId("@nobody:a.org"))
    cases = [("x", 401), (studio.whep_token(BEN)[:-3], 401), (other, 401), (nobody, 403)]
    for token, status in cases:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": SDP}
        async with studio.http.post(f"{studio.url}/whep/{studio.stage}", data=offer, headers=headers) as response:
            assert response.status == status, token
    async with studio.http.get(f"{studio.url}/whep/{studio.stage}") as response:
        assert response.status == 405
    old = studio.whep_token(BEN)
    studio.clock.advance(12 * 3600)
    headers = {"Authorization": f"Bearer {old}", "Content-Type": SDP}
    async with studio.http.post(f"{studio.url}/whep/{studio.stage}", data=offer, headers=headers) as response:
        assert (response.status, (await response.json())["reason"]) == (401, "expired")


async def test_a_person_has_eight(studio: Studio, offer: str) -> None:
    players = [player_of(studio, studio.whep_token(BEN)) for _ in range(8)]
    for player in players:
        await player.post(offer)
    with pytest.raises(ConnectionError, match="429"):
        await player_of(studio, studio.whep_token(BEN)).post(offer)
    assert await players[0].delete() == 200
    await player_of(studio, studio.whep_token(BEN)).post(offer)
    studio.house.matrix.put(ADMIN, STAGE, "", {**studio.house.matrix.rooms[ROOM].content(STAGE), "status": "ended"})
    await until(lambda: not len(studio.server._whep), "all gone")
    assert studio.server._whep._places._count == 0
