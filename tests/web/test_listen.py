"""The Ogg stream: what players hear, who may, and who is cut."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.rules.content import STAGE
from bridge.telemetry import metrics
from tests.helpers.fakes import ADMIN, AVA, BEN, CYD, MOD, ROOM, until
from tests.helpers.hearing import Stalls
from tests.helpers.ogg import OggReader, check_stream, opusdec
from tests.helpers.relay import loud
from tests.helpers.studio import Studio, running_studio
from tests.helpers.tone import Samples, level_at, ratio_at, rms_dbfs

HALF = 24_000


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    async with running_studio(tmp_path) as made:
        yield made


async def hear_tone(reader: OggReader, hz: float = 440) -> Samples:
    """Read until the last half second is the tone; all that was heard."""
    for _ in range(60):
        heard = await reader.seconds(0.5)
        if len(heard) > HALF and ratio_at(heard[-HALF:], hz) > 20:
            return heard
    raise AssertionError(f"no {hz} Hz; {rms_dbfs(heard):.1f} dBFS")


def gap_ms(heard: Samples) -> float:
    """The longest time below −20 dBFS."""
    longest = now = 0
    for each in heard[: len(heard) // 960 * 960].reshape(-1, 960):
        now = now + 20 if rms_dbfs(each) < -20 else 0
        longest = max(longest, now)
    return longest


async def test_a_tone_is_heard_without_a_gap_at_its_level(studio: Studio) -> None:
    await studio.voice()
    ear = await studio.voice("ear", None)
    ben = await studio.listen(BEN)
    await hear_tone(ben)
    async with Stalls.watching() as stalls:
        await ben.read(1.5)  # what was said while nobody watched
        before = 960 * ben.frames
        await ben.read(3)
        stalled = await stalls.longest_ms()
    heard = ben.heard()[before:]
    by_webrtc = await ear.client.hear(loud(440))
    windows = heard[: len(heard) // HALF * HALF].reshape(-1, HALF)
    whole = max(level_at(each, 440) for each in windows)  # a stall leaves silence in one; the gap is measured below
    assert abs(whole - level_at(by_webrtc, 440)) < 1.5
    assert gap_ms(heard) <= 60 + 2 * stalled  # speaker and relay may each have stood still
    check_stream(ben.pages)
    assert all(len(each.packets) <= 10 for each in ben.pages)
    reference, complaints = await opusdec(bytes(ben.data))
    assert ratio_at(reference[-HALF:], 440) > 20
    assert complaints == ""
    assert not [each for each in ben.pages[2:] for packet in each.packets if len(packet) < 3]


async def test_whoever_joins_in_the_middle_hears_the_same_from_there(studio: Studio) -> None:
    await studio.voice()
    early = await studio.listen(AVA)
    await hear_tone(early)
    await early.seconds(1.5)
    late = await studio.listen(BEN)
    await hear_tone(late)
    check_stream(late.pages)
    assert late.pages[0].sequence > 0
    assert late.pages[2].granule > 48_000
    await early.until(lambda reader: reader.pages[-1].granule >= late.pages[-1].granule)
    shared = {each.granule: each for each in early.pages[2:]}
    assert all(shared[each.granule] == each for each in late.pages[2:])  # made once
    reference, complaints = await opusdec(bytes(late.data))
    assert ratio_at(reference[-HALF:], 440) > 20
    assert complaints == ""


async def test_in_silence_the_stream_goes_on(studio: Studio) -> None:
    """Nobody is connected to the relay at all; then somebody is, and speaks."""
    reader = await studio.listen()
    heard = await reader.seconds(1.5)
    assert rms_dbfs(heard) < -90
    assert len(heard) > 1.3 * 48_000
    voice = await studio.voice()
    await hear_tone(reader)
    voice.client.say(None)
    for _ in range(30):
        heard = await reader.seconds(0.5)
        if rms_dbfs(heard[-HALF:]) < -90:
            break
    assert rms_dbfs(heard[-HALF:]) < -90
    check_stream(reader.pages)


async def test_the_relay_sends_frames_only_while_somebody_listens(studio: Studio) -> None:
    reader = await studio.listen()
    await reader.seconds(0.4)
    assert list(studio.workers._taps) == [studio.stage]
    second = await studio.listen(BEN)
    await second.seconds(0.4)
    assert studio.audience() == 2
    reader.response.close()
    await until(lambda: studio.audience() == 1, "one left")
    assert list(studio.workers._taps) == [studio.stage]
    second.response.close()
    await until(lambda: not studio.workers._taps, "no tap")
    assert studio.audience() == 0
    third = await studio.listen(CYD)
    await third.seconds(0.4)
    check_stream(third.pages)


async def test_a_worker_that_dies_is_followed_by_the_next(studio: Studio) -> None:
    reader = await studio.listen()
    await reader.seconds(0.4)
    os.kill((await studio.workers.stats()).worker.pid, signal.SIGKILL)
    await until(lambda: studio.workers.restarts == 1, "restart")
    await studio.voice()
    await hear_tone(reader)
    check_stream(reader.pages)


# -- cuts -----------------------------------------------------------------------------------------


def kick(studio: Studio) -> None:
    studio.house.matrix.member(ADMIN, AVA, "leave")


def ban(studio: Studio) -> None:
    studio.house.matrix.member(ADMIN, AVA, "ban")


def end(studio: Studio) -> None:
    studio.house.matrix.message(ADMIN, "!stage end")


def acl(studio: Studio) -> None:
    studio.house.matrix.put(ADMIN, "m.room.server_acl", "", {"allow": ["*"], "deny": ["a.org"]})


def revoke(studio: Studio) -> None:
    studio.house.matrix.message(AVA, "!link revoke")


@pytest.mark.parametrize("cut", [kick, ban, end, acl, revoke], ids=lambda each: each.__name__)
async def test_a_cut_ends_the_stream(studio: Studio, cut: Any) -> None:
    await studio.voice()
    reader, other = await studio.listen(AVA), await studio.listen(BEN)
    await hear_tone(reader)
    cut(studio)
    await reader.until(lambda each: each.ended)
    if cut is not end:
        before = other.frames
        await other.seconds(0.5)
        assert other.frames > before
    headers = {"Authorization": f"Bearer {studio.whep_token(AVA)}"} if cut is not end else {}
    async with studio.http.get(f"{studio.url}/listen/{studio.stage}.ogg", headers=headers) as again:
        assert again.status in ((401, 403) if cut is not end else (403, 404))


async def test_guests_off_ends_guests_alone(studio: Studio) -> None:
    async with studio.http.get(f"{studio.url}/listen/{studio.stage}.ogg") as refused:
        assert refused.status == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
    await studio.guests(True)
    guest, member = await studio.listen(None), await studio.listen(BEN)
    assert guest.response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in member.response.headers
    assert guest.response.headers["Content-Type"] == "audio/ogg; codecs=opus"
    await guest.seconds(0.4)
    assert studio.audience() == 2
    await studio.guests(False)
    await guest.until(lambda each: each.ended)
    await member.seconds(1)
    assert studio.audience() == 1


async def test_what_is_only_feared_silences_and_does_not_end(studio: Studio) -> None:
    """An event that says "banned" has come and the room's state is not read yet: the gate is shut, nobody is sent
    away; then it turns out to be untrue."""
    await studio.voice()
    reader = await studio.listen(AVA)
    await hear_tone(reader)
    held = asyncio.Event()

    async def wait(method: str, args: tuple[Any, ...]) -> None:
        await held.wait()

    matrix = studio.house.matrix
    matrix.before["read_state"] = wait
    true_state = dict(matrix.rooms[ROOM].state)
    matrix.member(MOD, AVA, "ban")
    matrix.rooms[ROOM].state = true_state  # state resolution has it otherwise
    for _ in range(60):
        heard = await reader.seconds(0.5)
        if rms_dbfs(heard[-HALF // 2 :]) < -90:
            break
    assert rms_dbfs(heard[-HALF // 2 :]) < -90
    held.set()
    await hear_tone(reader)
    check_stream(reader.pages)


# -- tokens ---------------------------------------------------------------------------------------


async def test_a_streams_token_listens_and_does_nothing_else(studio: Studio) -> None:
    session = await studio.session(AVA)
    bearer = {"Authorization": f"Bearer {session}"}
    async with studio.http.post(f"{studio.url}/api/v1/sessions/listen", headers=bearer) as response:
        assert response.status == 200
        made = await response.json()
    assert made["expires_ts"] == studio.clock.now_ms() + 15 * 60_000
    async with studio.http.get(made["url"]) as response:
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers
        await OggReader(response).seconds(0.4)
    token = made["url"].partition("?t=")[2]
    for path in ("api/v1/sessions/listen", f"whep/{studio.stage}"):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        async with studio.http.post(f"{studio.url}/{path}", headers=headers, data=b"v=0") as response:
            assert response.status == 401
    studio.clock.advance(15 * 60)
    async with studio.http.get(made["url"]) as response:
        assert (response.status, (await response.json())["reason"]) == (401, "expired")


@pytest.mark.parametrize("token", ["", "x", "listen1.e30.e30", "link"])
async def test_bad_tokens(studio: Studio, token: str) -> None:
    given = studio.signer.make(AVA, ROOM, studio.stage, studio.clock.now_ms(), 1) if token == "link" else token
    async with studio.http.get(f"{studio.url}/listen/{studio.stage}.ogg", params={"t": given}) as response:
        assert response.status in (401, 403)
    async with studio.http.post(f"{studio.url}/api/v1/sessions/listen") as response:
        assert response.status == 401
    other = studio.signer.make_whep(AVA, ROOM, "another-stage-000000", studio.clock.now_ms(), 1)  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {other}"}
    async with studio.http.get(f"{studio.url}/listen/{studio.stage}.ogg", headers=headers) as response:
        assert response.status == 401


async def test_a_person_has_eight_streams(studio: Studio) -> None:
    readers = [await studio.listen(AVA) for _ in range(8)]
    headers = {"Authorization": f"Bearer {studio.whep_token(AVA)}"}
    async with studio.http.get(f"{studio.url}/listen/{studio.stage}.ogg", headers=headers) as response:
        assert response.status == 429
    readers[0].response.close()
    await until(lambda: studio.audience() == 1 and studio.server._streams._places._count == 7, "a place")
    await (await studio.listen(AVA)).seconds(0.4)


async def test_head_and_http_1_0(studio: Studio) -> None:
    headers = {"Authorization": f"Bearer {studio.whep_token(AVA)}"}
    async with studio.http.head(f"{studio.url}/listen/{studio.stage}.ogg", headers=headers) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "audio/ogg; codecs=opus")
    assert studio.audience() == 0
    host, port = studio.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /listen/{studio.stage}.ogg HTTP/1.0\r\nHost: {host}\r\n".encode()
        + f"Authorization: {headers['Authorization']}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    data = await reader.readexactly(2_000)
    assert data.startswith(b"OggS")
    assert b"\r\n" not in data[:27]
    writer.close()


# -- slow readers ---------------------------------------------------------------------------------


async def test_a_reader_that_reads_nothing_is_dropped_and_nobody_else_hears_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.web.listen.MAX_BEHIND", 4_000)  # else the test waits for 10 s more of sound
    await studio.voice()
    good = await studio.listen(BEN)
    await hear_tone(good)
    host, port = studio.url.removeprefix("http://").split(":")
    stuck = studio.stack.enter_context(socket.socket())
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    stuck.setblocking(False)
    await asyncio.get_running_loop().sock_connect(stuck, (host, int(port)))
    asked = (
        f"GET /listen/{studio.stage}.ogg HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {studio.whep_token(CYD)}\r\n\r\n"
    )
    await asyncio.get_running_loop().sock_sendall(stuck, asked.encode())
    await until(lambda: studio.audience() == 2, "the stuck one")
    dropped = metrics.counter("eyvan_streams_dropped_total", "").value()
    async with asyncio.timeout(90), Stalls.watching() as stalls:
        await good.read(0.5)
        before = len(good.pages)
        while metrics.counter("eyvan_streams_dropped_total", "").value() == dropped:
            await good.read(0.5)
        await good.read(1)
        stalled = await stalls.longest_ms()
    waits = [1000 * (after - then) for then, after in itertools.pairwise(good.arrived[before:])]
    assert len(waits) > 10
    assert max(waits) <= 200 + 60 + 2 * stalled  # a page is 200 ms; relay and reader may each have stood still
    check_stream(good.pages)
    assert ratio_at(good.heard()[-HALF:], 440) > 20
    await until(lambda: studio.audience() == 1, "dropped")


async def test_a_stage_that_ends_leaves_nothing_behind(studio: Studio) -> None:
    readers = [await studio.listen(each) for each in (AVA, BEN, CYD)]
    await asyncio.gather(*(each.seconds(0.4) for each in readers))
    studio.house.matrix.put(ADMIN, STAGE, "", {**studio.house.matrix.rooms[ROOM].content(STAGE), "status": "ended"})
    await asyncio.gather(*(each.until(lambda reader: reader.ended) for each in readers))
    await until(lambda: not studio.workers._taps and not studio.server._streams._broadcasts, "tidy")
    assert studio.server._streams._places._count == 0
    assert np.all([len(each.pages) > 2 for each in readers])
