"""Bad input of every kind gets a refusal that says what to do, and disturbs nobody.

While each test throws something at the bridge, ava speaks on, dara listens and ben's page stands open: a gap in what
dara hears, or a page that had to come back, fails the test whatever it asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.demo.cast import wait_for_state
from bridge.demo.people import PageClient, RequestRefused
from bridge.demo.site import write_whole
from bridge.errors import MatrixRefused
from bridge.identity.links import LinkSigner
from bridge.ids import new_stage_id, role_key
from bridge.media import stun
from bridge.web import messages as m
from tests.helpers.hall import MEMBERS, Hall, answer_to, socket_of_eli
from tests.helpers.hearing import Stalls, TimedEar, until
from tests.helpers.raw_peer import RawPeer
from tests.helpers.tone import sine
from tests.helpers.world import running_world

TONE = 450
GAP_MS = 200
HANG_S = 60
ROOT = Path(__file__).parents[2]
FLOOD = 10_000  # datagrams


@pytest.fixture(scope="module")
async def hall(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hall]:
    async with contextlib.AsyncExitStack() as stack:
        directory = tmp_path_factory.mktemp("bad")
        world = await stack.enter_async_context(running_world(directory, synapse_python, people=MEMBERS))
        await world.stop_bridge()
        config = json.loads(world.site.config.read_text())
        del config["web"]["link_devices"]  # the default: three
        write_whole(world.site.config, json.dumps(config))
        await world.start_bridge()
        stage = await world.new_stage(members=MEMBERS)
        await world.set_role(stage, "ava", "speaker")
        ear, links, pages = TimedEar(), {}, {}
        for name in ("host", "ava", "ben", "dara", "eli"):
            links[name] = await world.link(name, stage)
            page = PageClient(links[name], name=name, ear=ear if name == "dara" else None)
            pages[name] = await stack.enter_async_context(page)
        await pages["ava"].wait(lambda c: c.me.can_speak, what="ava to be on stage")
        pages["ava"].say(sine(TONE, 1, dbfs=-18), loop=True)
        await pages["ava"].mic(True)
        await until(lambda: ear.hears(TONE), lambda: "ava is not heard")
        http = await stack.enter_async_context(aiohttp.ClientSession())
        stalls = await stack.enter_async_context(Stalls.watching())
        yield Hall(world, stage, pages, ear, pages.pop("eli"), links, stalls, http)


@pytest.fixture(autouse=True)
async def undisturbed(hall: Hall) -> AsyncIterator[None]:
    """Nobody else noticed: no gap above 200 ms, and every page still has its first connection.

    The sound passes this process twice and the relay once; where the machine lets a process stand still, each of the
    three may."""
    await hall.stalls.longest_ms()
    since = time.monotonic()
    connections = {name: page.connections for name, page in hall.pages.items()}
    yield
    end = time.monotonic() + 0.3  # what was thrown last has had its effect by then
    await until(lambda: hall.ear.since(end), lambda: "dara hears nothing any more")
    gap, stalled = hall.ear.gap_ms(TONE, since), await hall.stalls.longest_ms()
    assert gap <= GAP_MS + 3 * stalled, f"dara missed ava for {gap:.0f} ms; processes stood still for {stalled:.0f} ms"
    for name, page in hall.pages.items():
        assert (page.state, page.connections, page.bye) == ("live", connections[name], None), name
    assert hall.world.bridge.pid is not None
    assert "Traceback" not in hall.world.log(), hall.world.bridge.log_tail()


# -- the configuration ---------------------------------------------------------------------------

CONFIG = """\
homeserver:
  domain: example.org
appservice:
  as_token: {as_token}
  hs_token: {hs_token}
web:
  link_secret: {link_secret}
media:
  port: 7400
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("  port: 7400", "  prot: 7400", 9, r"media\.prot: 7400 cannot be used; .+"),
        ("  port: 7400", "  port: many", 9, r"media\.port: 'many' cannot be used; .+"),
        ("  port: 7400", "  port: 70000", 9, r"media\.port: 70000 cannot be used; give a whole number from 1 to 65535"),
        ("  hs_token: {hs_token}", "  id: eyvan", 0, r"appservice\.hs_token: it is missing; make it with .+"),
    ],
    ids=["unknown key", "wrong type", "out of range", "missing secret"],
)
async def test_bad_configuration(tmp_path: Path, old: str, new: str, line: int, told: str) -> None:
    path = tmp_path / "config.yaml"
    words = {name: secrets.token_hex(32) for name in ("as_token", "hs_token", "link_secret")}
    path.write_text(CONFIG.replace(old, new).format(**words))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "run", "-c", str(path)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), HANG_S)
    assert (process.returncode, output) == (2, b"")
    said = errors.decode()
    assert said.count("\n") == 1, said
    where = f"{path}:{line}" if line else str(path)  # what is missing stands in no line
    assert re.fullmatch(rf"eyvan: {re.escape(where)}: {told}\n", said), said
    assert not any(secret in said for secret in words.values())


# -- links and sessions --------------------------------------------------------------------------


async def test_bad_links(hall: Hall) -> None:
    good = hall.links["ben"].partition("#l=")[2]
    middle = len(good) // 2
    altered = good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1 :]
    stranger = await hall.world.person("gita")  # not in the room
    cases = {
        "expired": (hall.forged("ben", age_h=13), "expired"),
        "altered": (altered, "altered"),
        "of another secret": (hall.forged("ben", signer=LinkSigner(secrets.token_hex(32))), "altered"),
        "cut off": (good[:-5], "altered"),
        "of another stage": (hall.forged("ben", stage=new_stage_id()), "expired"),
        "of another room": (hall.forged("ben", room="!nowhere"), "expired"),
        "of a stranger": (hall.forged(stranger.user.partition(":")[0][1:]), "membership"),
    }
    for what, (link, reason) in cases.items():
        status, body = await hall.open(link)
        assert (status, body["errcode"], body["reason"]) == (401, "M_UNKNOWN_TOKEN", reason), (what, body)
        assert body["error"], what
    worse: tuple[object, ...] = (7, [], "", "x" * 10_000)
    for junk in worse:
        status, body = await hall.open(junk)
        assert (status, body["errcode"]) in ((400, "M_INVALID_PARAM"), (401, "M_UNKNOWN_TOKEN")), body
    async with hall.http.post(f"{hall.world.web}/api/v1/sessions", data=b"\xff{") as answer:
        assert answer.status == 400
    async with hall.http.post(f"{hall.world.web}/api/v1/sessions", data=b" " * 20_000) as answer:
        assert answer.status == 413


async def test_a_link_opens_on_three_devices(hall: Hall) -> None:
    link = (await hall.world.link("fay", hall.stage)).partition("#l=")[2]
    devices = []
    for _ in range(3):
        status, body = await hall.open(link)
        assert status == 200, body
        devices.append(body["device"])
    status, body = await hall.open(link)
    assert (status, body["errcode"], body["reason"]) == (401, "M_UNKNOWN_TOKEN", "devices")
    assert (await hall.open(link, devices[0]))[0] == 200


async def test_a_revoked_link(hall: Hall) -> None:
    link = (await hall.world.link("cyrus", hall.stage)).partition("#l=")[2]
    assert (await hall.open(link))[0] == 200
    await hall.world.users["cyrus"].send(hall.stage.room_id, "!link revoke")
    assert await hall.refused(link) == (401, "revoked")
    again = (await hall.world.link("cyrus", hall.stage)).partition("#l=")[2]
    assert (await hall.open(again))[0] == 200


async def test_a_link_of_an_ended_stage(hall: Hall) -> None:
    other = await hall.world.new_stage(members=("host", "fay"))
    link = (await hall.world.link("fay", other)).partition("#l=")[2]
    status, body = await hall.open(link)
    assert (status, body["stage"]) == (200, other.stage_id), "it opens its own room's stage and no other"
    await other.host.send(other.room_id, "!stage end")
    await wait_for_state(other.host, other.room_id, "im.eyvan.stage", "", lambda c: c.get("status") == "ended")
    assert await hall.refused(link) == (401, "expired")


async def test_bad_sessions(hall: Hall) -> None:
    session = (await hall.open(hall.links["ben"].partition("#l=")[2], hall.pages["ben"]._device))[1]["session"]
    hellos: tuple[Any, ...] = (
        {"t": "hello", "session": session[:-4] + "AAAA"},
        {"t": "hello", "session": hall.links["ben"].partition("#l=")[2]},  # a link is no session
        {"t": "hello", "session": None},
        {"t": "hello"},
        {"t": "mic", "id": 1, "on": True},
        {"t": "no such thing"},
        [],
        "not JSON",
    )
    for hello in hellos:
        async with hall.http.ws_connect(f"{hall.world.web}/api/v1/socket") as ws:
            await (ws.send_str(hello) if isinstance(hello, str) else ws.send_json(hello))
            answer = await ws.receive_json(timeout=HANG_S)
            assert (answer["t"], answer["reason"]) == ("bye", "expired"), (hello, answer)
            assert answer["error"]
            assert (await ws.receive(timeout=HANG_S)).type is aiohttp.WSMsgType.CLOSE


# -- frames and offers ---------------------------------------------------------------------------


async def test_bad_offers(hall: Hall) -> None:
    raw = RawPeer()
    good = raw.offer
    raw.close()
    cases = {
        "junk": "\x00\x01 what is this",
        "empty": "",
        "oversized": good + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 1600,
        "without audio": good.replace("m=audio", "m=video"),
        "without ICE": good.replace("a=ice-pwd", "a=ice-pw"),
        "without a fingerprint": good.replace("a=fingerprint", "a=finger"),
        "without Opus": good.replace("opus/48000/2", "speex/16000"),
    }
    assert 64 * 1024 < len(cases["oversized"]) < m.MAX_FRAME
    for what, sdp in cases.items():
        with pytest.raises(RequestRefused) as refusal:
            await hall.eli.request(m.Offer(hall.eli._next_id(), sdp))
        assert refusal.value.errcode == "M_INVALID_PARAM", what
        assert "offer" in str(refusal.value), what
    assert (hall.eli.state, hall.eli.media_connected) == ("live", True), "an offer that failed ended what it had"


async def test_junk_frames_are_refused_one_by_one(hall: Hall) -> None:
    junk: Mapping[str, str | bytes] = {
        "binary": secrets.token_bytes(1000),
        "no JSON": "{",
        "deep": "[" * 40_000,
        "no object": "7",
        "no such type": '{"t": "sudo"}',
        "a field is missing": '{"t": "mic", "id": 7}',
        "a field of another type": '{"t": "mic", "id": 7, "on": "yes"}',
        "an act that is none": '{"t": "act", "id": 7, "act": "explode"}',
        "a user that is none": '{"t": "act", "id": 7, "act": "mute", "user": "everybody"}',
        "half a surrogate pair": '{"t": "hand", "id": 7, "raised": "\\ud800"}',
    }
    async with socket_of_eli(hall) as ws:
        for what, frame in junk.items():
            await (ws.send_bytes(frame) if isinstance(frame, bytes) else ws.send_str(frame))
            answer = await answer_to(ws, "refused", "done", "bye")
            assert answer["t"] == "refused", (what, answer)
            assert answer["errcode"] in ("M_INVALID_PARAM", "M_FORBIDDEN"), (what, answer)
            assert answer["error"], what
        await ws.send_json({"t": "ping"})
        assert await answer_to(ws, "pong", "bye") == {"t": "pong"}


async def test_a_page_that_floods_is_slowed_down(hall: Hall) -> None:
    """It is read at 10 requests a second after a first 40; what it sent is answered all the same."""
    requests = 60
    async with socket_of_eli(hall) as ws:
        began = time.monotonic()
        for number in range(requests):
            await ws.send_json({"t": "mic", "id": number, "on": False})
        answers = [await answer_to(ws, "refused", "done", "bye") for _ in range(requests)]
        took = time.monotonic() - began
    assert answers == [{"t": "done", "id": number} for number in range(requests)]
    assert took > 1.5


async def test_an_oversized_frame_ends_its_own_page_alone(hall: Hall) -> None:
    async with socket_of_eli(hall) as ws:
        await ws.send_str(json.dumps({"t": "offer", "id": 1, "sdp": "x" * (m.MAX_FRAME + 1)}))
        async with asyncio.timeout(HANG_S):
            async for frame in ws:
                assert frame.type is aiohttp.WSMsgType.TEXT, frame
        assert ws.close_code == 1009, "message too big (RFC 6455 §7.4.1)"


# -- the media port ------------------------------------------------------------------------------


def _unsigned_check(raw: RawPeer) -> bytes:
    """A check that names the right ufrag and carries no MESSAGE-INTEGRITY."""
    name = f"{raw.remote_ufrag}:{raw.ufrag}".encode()
    username = struct.pack("!HH", 0x0006, len(name)) + name + bytes(-len(name) % 4)
    nominated = struct.pack("!HH", 0x0025, 0)
    return (
        struct.pack("!HHI", 1, len(username) + len(nominated), stun.COOKIE)
        + secrets.token_bytes(12)
        + username
        + nominated
    )


async def test_junk_on_the_media_port(hall: Hall) -> None:
    raw, stranger = RawPeer(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.setblocking(False)
    try:
        async with socket_of_eli(hall) as ws:
            await ws.send_json({"t": "offer", "id": 1, "sdp": raw.offer})
            raw.take((await answer_to(ws, "answer", "refused"))["sdp"])
            odd = [b"", b"\x16", b"\x80" * 12, bytes(1400), secrets.token_bytes(65_000), secrets.token_bytes(1)]
            forged = [_unsigned_check(raw), raw.check_message(password="not the password"), raw.client_hello()]
            for datagram in (*odd, *forged):
                raw.send(datagram, stranger)
            for number in range(FLOOD):
                raw.send(secrets.token_bytes(1 + number % 1200), stranger)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await _until_taken(raw)
            with pytest.raises(BlockingIOError):
                stranger.recv(2048)  # not one byte was answered to who did not prove itself
            await raw.handshake()  # and the one who did is let in
    finally:
        raw.close()
        stranger.close()


async def _until_taken(raw: RawPeer) -> None:
    """Until a right check is answered: the port is read in order, so all that came before was looked at."""
    async with asyncio.timeout(HANG_S):
        while True:
            with contextlib.suppress(TimeoutError):  # the flood may have left no room for this one
                async with asyncio.timeout(1):
                    await raw.check()
                return


# -- the homeserver's way in ---------------------------------------------------------------------


async def test_transactions_of_somebody_else(hall: Hall) -> None:
    forged = [hall.hand("ben")]
    assert (await hall.transaction("not the token", forged))[0] == 403
    assert (await hall.transaction(hall.world.site.tokens["as_token"], forged))[0] == 403
    status, body = await hall.transaction(None, forged)
    assert (status, body["errcode"]) == (401, "M_MISSING_TOKEN")
    await hall.world.users["cyrus"].send(hall.stage.room_id, {"raised": True}, "im.eyvan.hand")
    await until(lambda: hall.queue() == {hall.user("cyrus")}, lambda: f"hands {hall.queue()}")
    await hall.lower_all()


async def test_one_malformed_event_among_good_ones(hall: Hall) -> None:
    token = hall.world.site.tokens["hs_token"]
    bad = [
        hall.hand("ben", event_id="$bad-content", content="up"),
        hall.hand("ben", event_id="$bad-sender", sender=7),
        hall.hand("ben", event_id="$bad-key", state_key=["@ben"]),
        hall.hand("ben", event_id="$bad-raised", content={"raised": "yes"}),
    ]
    roomless = hall.hand("ben", event_id="$bad-room", room_id=None)
    events = [hall.hand("cyrus"), *bad, roomless, "no event at all", None, hall.hand("fay")]
    assert await hall.transaction(token, events) == (200, {})
    await until(lambda: hall.queue() == {hall.user("cyrus"), hall.user("fay")}, lambda: f"hands {hall.queue()}")
    for event_id, field, reason in (
        ("$bad-content", "content", "is a JSON object"),
        ("$bad-sender", "sender", "full Matrix user id"),
        ("$bad-key", "state_key", "is a text"),
        ("$bad-raised", "raised", "give true or false"),
        ("$bad-room", "room_id", "begins with '!'"),
    ):
        lines = [line for line in hall.world.log().splitlines() if event_id in line]
        assert len(lines) == 1, f"{event_id} is told {len(lines)} times"
        assert re.search(rf"\b{field}\b", lines[0]), lines[0]
        assert reason in lines[0], lines[0]
        assert hall.stage.room_id in lines[0] or event_id == "$bad-room", lines[0]
    await hall.lower_all()


async def test_spoofed_events_change_nothing(hall: Hall) -> None:
    room = hall.stage.room_id
    for name in ("ben", "ava"):  # without power; ava is on stage, which gives none
        with pytest.raises(MatrixRefused) as refusal:
            await hall.world.set_role(hall.stage, "ben", "speaker", by=hall.world.users[name])
        assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")
    with pytest.raises(MatrixRefused) as refusal:  # somebody else's own key (auth rules, "state_key begins with @")
        await hall.stage.host.put_state(room, "im.eyvan.hand", hall.user("ben"), {"raised": True})
    assert refusal.value.status == 403
    await hall.stage.host.put_state(room, "im.eyvan.hand", role_key(hall.user("ben")), {"raised": True})
    await hall.stage.host.put_state(room, "im.eyvan.role", "ben", {"role": "speaker"})
    await hall.stage.host.put_state(room, "im.eyvan.role", role_key(hall.user("ben")), {"role": 7, "muted": "no"})
    # What comes after them in the room shows that they were passed.
    await hall.world.users["cyrus"].send(room, {"raised": True}, "im.eyvan.hand")
    await until(lambda: hall.user("cyrus") in hall.queue(), lambda: f"hands {hall.queue()}")
    assert hall.queue() == {hall.user("cyrus")}
    ben = hall.pages["ben"].me
    assert (ben.place, ben.can_speak, ben.hand) == ("audience", False, None)
    await until(lambda: "role: 7 cannot be used" in hall.world.log(), lambda: hall.world.bridge.log_tail())
    await hall.lower_all()
