"""The page's WebSocket, from hello to bye."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bridge.ids import UserId
from bridge.live.view import Me
from bridge.rules.content import STAGE
from bridge.web import messages as m
from bridge.web.frames import Frames, to_json
from tests.helpers.fakes import ADMIN, AVA, BEN, CYD, MOD, ROOM, FakePage, until
from tests.web.conftest import Origin, hang_up


async def test_hello_snapshot_offer_and_what_follows(origin: Origin) -> None:
    page = await origin.page(AVA)
    first = page.frames[-1]
    assert (first["seq"], first["me"]["user"], first["me"]["can_hear"]) == (1, AVA, False)
    assert first["stage"]["server_ts"] == origin.clock.now_ms()
    await page.send(t="offer", id=5, sdp="v=0")
    assert await page.next("answer", id=5) == {"t": "answer", "id": 5, "sdp": "answer to v=0"}
    await page.part("me", lambda me: me["can_hear"])
    origin.house.matrix.role(ADMIN, AVA, role="speaker")
    assert (await page.part("me", lambda me: me["can_speak"]))["place"] == "stage"
    await page.send(t="mic", id=6, on=True)
    await page.next("done", id=6)
    await page.part("speakers", lambda people: any(person["mic"] == "on" for person in people))
    sequence = [frame["seq"] for frame in page.frames if frame["t"] in ("snapshot", "patch")]
    assert sequence == list(range(1, len(sequence) + 1))
    await page.raw.close()


async def test_requests_are_answered_and_refused_in_the_pages_language(origin: Origin) -> None:
    page = await origin.page(BEN, lang="fa")
    await page.send(t="hand", id=1, raised=True, note="یک پرسش")
    await page.next("done", id=1)
    await page.send(t="act", id=2, act="mute", user=AVA)
    refused = await page.next("refused", id=2)
    assert (refused["errcode"], refused["error"]) == ("M_FORBIDDEN", "این کار فقط از گرداننده‌های اتاق برمی‌آید.")
    await page.send(t="act", id=3, act="mute", user="nobody")
    assert (await page.next("refused", id=3))["errcode"] == "M_INVALID_PARAM"
    await page.send(t="invite_reply", id=4, accept=True)
    assert (await page.next("refused", id=4))["errcode"] == "M_FORBIDDEN"
    await page.send(t="ping")
    await page.next("pong")
    host = await origin.page(ADMIN)
    assert [hand["user"] for hand in host.frames[-1]["queue"]] == [BEN]
    assert host.frames[-1]["queue"][0]["note"] == "یک پرسش"
    await host.send(t="act", id=9, act="bring_up", user=BEN)
    await host.next("done", id=9)
    await page.next("notice", key="to_stage")


async def test_leaving_somebody_out(origin: Origin) -> None:
    page = await origin.page(AVA, lang="fa")
    await page.send(t="offer", id=1, sdp="v=0")
    await page.next("answer", id=1)
    await page.send(t="leave_out", id=2, user=BEN, out=True)
    await page.next("done", id=2)
    await page.part("me", lambda me: me["left_out"] == [BEN])
    origin.house.media.most_left_out = 0
    await page.send(t="leave_out", id=3, user=CYD, out=True)
    refused = await page.next("refused", id=3)
    assert refused["errcode"] == "M_FORBIDDEN"
    assert "آمیزهٔ دیگری برای شما ساخته نمی‌شود" in refused["error"]
    await page.send(t="leave_out", id=4, user=BEN, out=False)
    await page.next("done", id=4)
    await page.part("me", lambda me: me["left_out"] == [])
    await page.send(t="leave_out", id=5, user="nobody", out=True)
    assert (await page.next("refused", id=5))["errcode"] == "M_INVALID_PARAM"


JUNK: list[str | bytes] = [
    "", "{", "null", "7", "[]", '"hello"', "{}", '{"t":7}', '{"t":"nothing"}', '{"t":"mic","id":1}',
    '{"t":"mic","id":-1,"on":true}',
    '{"t":"mic","id":true,"on":true}', '{"t":"mic","id":1e400,"on":true}',
    '{"t":"mic","id":' + "9" * 5000 + ',"on":true}',
    '{"t":"offer","id":1,"sdp":7}', '{"t":"hand","id":1,"raised":"yes"}', '{"t":"act","id":1,"act":"burn"}',
    '{"t":"act","id":1,"act":"mute","user":"\\ud800"}', '{"t":"hello","session":"x"}', "[" * 50_000, b"\x00\x01\x02",
]  # fmt: skip


async def test_junk_is_refused_and_the_page_goes_on(origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    page = await origin.page(AVA)
    for junk in JUNK:
        if isinstance(junk, bytes):
            await page.raw.send_bytes(junk)
        else:
            await page.raw.send_str(junk)
        assert (await page.next("refused"))["errcode"] == "M_INVALID_PARAM", junk
    await page.send(t="hand", id=77, raised=True)
    await page.next("done", id=77)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    "first",
    [
        {"t": "ping"}, {"t": "offer", "id": 1, "sdp": "x"}, {"t": "hello"}, {"t": "hello", "session": "x"}, {"t": "x"},
        [], {"t": "hello", "session": 5}, {"t": "hello", "session": "x", "lang": "de"},
    ],
)  # fmt: skip
async def test_a_wrong_first_frame(origin: Origin, first: Any) -> None:
    page = await origin.socket()
    await page.raw.send_str(json.dumps(first))
    assert (await page.until_closed())["reason"] == "expired"
    await until(lambda: origin.server._pending == 0, "not pending any more")


async def test_no_hello_in_time(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.web.session.HELLO_S", 0.05)
    page = await origin.socket()
    assert (await page.until_closed())["reason"] == "expired"
    await until(lambda: origin.server._pending == 0, "not pending any more")


async def test_a_page_that_hangs_up_before_hello(origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    page = await origin.socket()
    await page.raw.close()
    await until(lambda: origin.server._pending == 0 and not origin.server._sockets, "let go")
    assert not [record for record in caplog.records if record.exc_info]


async def test_too_many_that_say_nothing(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.web.server._PENDING", 2)
    session = await origin.session(AVA)
    silent = [await origin.socket() for _ in range(2)]
    async with origin.http.get(origin.url + "/api/v1/socket") as response:
        assert response.status == 429
    for each in silent:
        await each.raw.close()
    await until(lambda: origin.server._pending == 0, "let go")
    await origin.page(AVA, session)


async def test_an_oversize_frame_ends_the_page_and_no_other(origin: Origin) -> None:
    page, other = await origin.page(AVA), await origin.page(BEN)
    await page.send(t="offer", id=1, sdp="x" * m.MAX_FRAME)
    await page.until_closed()
    assert page.raw.close_code == 1009
    await other.send(t="ping")
    await other.next("pong")


async def test_sessions_that_open_nothing(origin: Origin) -> None:
    from bridge.identity.links import SessionClaims

    stage_id = origin.house.stage().stage_id
    assert stage_id is not None
    now = origin.clock.now_ms()

    def session(user: Any = AVA, room: Any = ROOM, stage: Any = stage_id, expires: int = now + 1000) -> str:
        return origin.signer.make_session(SessionClaims("session-0123456789", user, room, stage), now, expires)  # type: ignore[arg-type]

    for token, reason in (
        (session(room="!elsewhere:a.org"), "removed"),
        (session(stage="another-stage-000000"), "ended"),
        (session(user="@nobody:a.org"), "removed"),
        (session(user=None), "removed"),  # guests are off
        (session(expires=now), "expired"),
        (origin.link(AVA), "expired"),
    ):
        page = await origin.socket()
        await page.send(t="hello", session=token)
        assert (await page.until_closed())["reason"] == reason
    assert len(origin.house.stage()._seats) == 0


async def test_a_session_that_expires_while_connected(origin: Origin) -> None:
    from bridge.identity.links import SessionClaims

    stage_id = origin.house.stage().stage_id
    assert stage_id is not None
    now = origin.clock.now_ms()
    claims = SessionClaims("session-0123456789", AVA, ROOM, stage_id)  # type: ignore[arg-type]
    page = await origin.page(AVA, origin.signer.make_session(claims, now, now + 200))
    last = await page.until_closed()
    assert (last["t"], last["reason"]) == ("bye", "expired")
    assert last["error"]
    await until(lambda: len(origin.house.stage()._seats) == 0, "the seat is not kept for it")


async def test_a_link_that_is_revoked_while_connected(origin: Origin) -> None:
    session = await origin.session(AVA)
    page, other = await origin.page(AVA, session), await origin.page(BEN)
    origin.house.matrix.message(AVA, "!link revoke")
    assert (await page.until_closed())["reason"] == "expired"
    again = await origin.socket()
    await again.send(t="hello", session=session)
    assert (await again.until_closed())["reason"] == "expired"
    await other.send(t="ping")
    await other.next("pong")
    await until(lambda: len(origin.house.stage()._seats) == 1, "only the other is seated")


async def test_the_second_socket_of_a_session_takes_over(origin: Origin) -> None:
    session = await origin.session(AVA)
    first = await origin.page(AVA, session)
    second = await origin.page(AVA, session)
    assert (await first.until_closed())["reason"] == "elsewhere"
    await second.send(t="offer", id=1, sdp="v=0")
    await second.next("answer", id=1)
    assert len(origin.house.stage()._seats) == 1


@pytest.mark.parametrize(("code", "seats"), [(1000, 1), (1001, 2)])
async def test_who_leaves_gives_up_the_seat_at_once_who_breaks_off_keeps_it(
    origin: Origin, code: int, seats: int
) -> None:
    page, other = await origin.page(AVA), await origin.page(BEN)
    seated = origin.house.stage()._seats
    gone = next(seat for seat in seated if seat.user == AVA)
    old = gone.page
    await page.raw.close(code=code)
    await until(lambda: gone.page is not old or len(seated) == 1, "the stage has seen it")
    assert len(seated) == seats
    await other.send(t="ping")
    await other.next("pong")


@pytest.mark.parametrize(
    ("how", "reason"), [("ban", "removed"), ("end", "ended"), ("acl", "removed"), ("kick", "removed")]
)
async def test_byes(origin: Origin, how: str, reason: str) -> None:
    page = await origin.page(CYD)
    match how:
        case "ban":
            origin.house.matrix.member(ADMIN, CYD, "ban")
        case "end":
            origin.house.matrix.message(ADMIN, "!stage end")
        case "acl":
            origin.house.matrix.put(ADMIN, "m.room.server_acl", "", {"allow": ["*"], "deny": ["c.org"]})
        case "kick":
            origin.house.matrix.message(ADMIN, f"!stage kick {CYD}")
    last = await page.until_closed()
    assert (last["t"], last["reason"]) == ("bye", reason)
    assert last["error"]


async def test_resync_is_a_snapshot_with_the_next_number(origin: Origin) -> None:
    page = await origin.page(AVA)
    await origin.page(BEN)
    await page.next("patch")
    await page.send(t="resync")
    again = await page.next("snapshot")
    numbers = [frame["seq"] for frame in page.frames if "seq" in frame]
    assert again["seq"] == numbers[-1] == len(numbers)
    assert [face["user"] for face in again["audience"]["faces"]] == [AVA, BEN]


async def test_a_fast_page_waits_and_loses_nothing(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.web.session._REQUESTS_A_SECOND", 200.0)
    page = await origin.page(AVA)
    for number in range(150):
        await page.send(t="hand", id=number, raised=number % 2 == 0)
    answered: set[int] = set()
    async with asyncio.timeout(30):
        while len(answered) < 150:
            answered.add((await page.next("done"))["id"])
    assert answered == set(range(150))


async def test_a_server_that_closes_says_so(origin: Origin) -> None:
    page = await origin.page(AVA)
    await origin.house.stage().close()
    assert (await page.until_closed())["reason"] == "restart"


async def test_the_database_is_away_at_hello(origin: Origin) -> None:
    session = await origin.session(AVA)
    origin.store.broken = {"links_revoked_before"}
    page = await origin.socket()
    await page.send(t="hello", session=session)
    assert (await page.until_closed())["reason"] == "restart"


# -- slow pages ----------------------------------------------------------------------------------


class Stuck:
    """A socket that takes nothing until ``go_on``."""

    def __init__(self) -> None:
        self.go_on, self.sent, self.closed = asyncio.Event(), [], False  # type: ignore[var-annotated]

    async def send_frame(self, frame: bytes, kind: Any) -> None:
        await self.go_on.wait()
        self.sent.append(json.loads(frame))

    async def close(self) -> None:
        self.closed = True


def views(origin: Origin) -> tuple[Any, Me]:
    from bridge.live.view import SHUT, build, me

    state = origin.house.stage().state
    return build(state, [], origin.clock.now_ms()), me(state, AVA, SHUT)


async def test_what_a_slow_page_cannot_take_is_bounded(origin: Origin) -> None:
    from bridge.web.session import MAX_QUEUED, PageSocket

    socket = Stuck()
    page = PageSocket(socket, "!", Frames(), lambda: None)  # type: ignore[arg-type]
    writing = asyncio.create_task(page.write())
    view, mine = views(origin)
    for number in range(1000):
        page.show(view, mine)
        page.levels({1: number % 128})
        await asyncio.sleep(0)
    assert len(page._queue) == 0
    for _ in range(5 * MAX_QUEUED):
        page.notice("muted", "Ava")
    assert len(page._queue) == MAX_QUEUED + 1
    socket.go_on.set()
    await writing
    kinds = [frame["t"] for frame in socket.sent]
    assert kinds.count("snapshot") == 1
    assert kinds.count("levels") == 0
    assert (kinds[-1], socket.sent[-1]["reason"]) == ("bye", "slow")
    assert socket.closed


async def test_levels_are_the_newest(origin: Origin) -> None:
    from bridge.web.session import PageSocket

    socket = Stuck()
    page = PageSocket(socket, "!", Frames(), lambda: None)  # type: ignore[arg-type]
    writing = asyncio.create_task(page.write())
    page.notice("muted", "Ava")
    await asyncio.sleep(0)
    for number in range(100):
        page.levels({7: number})
    socket.go_on.set()
    await until(lambda: any(frame["t"] == "levels" for frame in socket.sent), "levels")
    assert [frame["levels"] for frame in socket.sent if frame["t"] == "levels"] == [{"7": 99}]
    page.bye("ended")
    await writing


async def test_a_page_that_takes_nothing_is_dropped(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.web.session import PageSocket

    monkeypatch.setattr("bridge.web.session.SEND_S", 0.02)
    dropped: list[bool] = []
    page = PageSocket(Stuck(), "!", Frames(), lambda: dropped.append(True))  # type: ignore[arg-type]
    page.notice("muted", "Ava")
    async with asyncio.timeout(20):
        await page.write()
    assert dropped == [True]


# -- frames --------------------------------------------------------------------------------------


async def test_frames_are_the_messages(origin: Origin) -> None:
    """The bytes made once for all equal what `messages` describes, part by part."""
    await origin.house.on_air(BEN)
    page, _ = await origin.house.seat(MOD)
    old, _ = await origin.house.seat(AVA)
    await until(lambda: isinstance(page, FakePage) and page.view and page.view.audience.count == 2, "shown")
    assert page.view is not None
    assert page.me is not None
    assert old.view is not None
    assert old.me is not None
    view, mine, theirs = page.view, page.me, old.me
    frames = Frames()
    for who in (mine, theirs):
        queue = view.queue if "not_now" in who.can else []
        snapshot = m.Snapshot(3, view.stage, who, view.speakers, view.audience, queue)
        made = json.loads(frames.snapshot(3, view, who))
        assert {**made, "stage": {**made["stage"], "server_ts": view.stage.server_ts}} == m.encode(snapshot)
    assert frames.patch(4, (view, mine), (view, mine)) is None
    from dataclasses import replace

    changed = replace(view, speakers=[], audience=replace(view.audience, count=9), stage=replace(view.stage, topic="x"))
    expected = m.Patch(4, stage=changed.stage, me=theirs, speakers=[], audience=changed.audience, queue=[])
    assert json.loads(frames.patch(4, (view, mine), (changed, theirs)) or b"") == m.encode(expected)
    assert json.loads(frames.levels({5: 9})) == m.encode(m.Levels({"5": 9}))


def _mic_of(people: Any, user: str) -> str | None:
    return next((person["mic"] for person in people if person["user"] == user), None)


async def test_a_change_is_written_down_once_however_many_look(origin: Origin) -> None:
    pages = [await origin.page(BEN, lang="fa") for _ in range(20)]
    await origin.house.on_air(AVA)
    await asyncio.gather(*(page.part("speakers", lambda people: _mic_of(people, AVA)) for page in pages))
    await origin.house.quiet()
    frames = origin.server._frames
    before = frames.written
    stage_id = origin.house.stage().stage_id
    assert stage_id is not None
    levels = {3: 10}
    origin.house.rooms.levels(stage_id, levels)
    await asyncio.gather(*(page.next("levels") for page in pages))
    assert frames.written == before + 1
    origin.house.matrix.role(ADMIN, AVA, role="speaker", muted=True)
    await asyncio.gather(*(page.part("speakers", lambda people: _mic_of(people, AVA) == "muted") for page in pages))
    assert frames.written <= before + 3


def test_half_a_surrogate_costs_no_page_its_view() -> None:
    assert json.loads(to_json({"name": "a\ud800b"})) == {"name": "a?b"}


async def test_what_is_remembered_is_bounded() -> None:
    frames = Frames()
    for number in range(1000):
        frames.levels({number: 1})
    assert len(frames._parts) <= 256


async def test_guests_see_no_names_of_listeners(origin: Origin) -> None:
    content = {**origin.house.matrix.rooms[ROOM].content(STAGE), "guests": True}
    origin.house.matrix.put(ADMIN, STAGE, "", content)
    await until(lambda: origin.house.stage().state.may_hear(None), "guests on")
    await origin.page(BEN)
    guest = await origin.page(None)
    text = json.dumps(guest.frames)
    assert BEN not in text
    assert guest.frames[-1]["audience"]["count"] == 2
    await guest.send(t="hand", id=1, raised=True)
    assert (await guest.next("refused", id=1))["errcode"] == "M_FORBIDDEN"


@pytest.mark.parametrize("origin", [{"sessions": 5, "sessions_per_user": 2, "guests_per_source": 1}], indirect=True)
async def test_places_of_a_person_of_a_source_and_in_all(origin: Origin) -> None:
    """Each refusal says why, comes as "full", and a place that is given back is another's."""
    content = {**origin.house.matrix.rooms[ROOM].content(STAGE), "guests": True}
    origin.house.matrix.put(ADMIN, STAGE, "", content)
    await until(lambda: origin.house.stage().state.may_hear(None), "guests on")

    async def refused(user: UserId | None) -> str:
        socket = await origin.socket()
        await socket.send(t="hello", session=await origin.session(user), lang="en")
        bye = await socket.next("bye")
        assert bye["reason"] == "full"
        return str(bye["error"])

    pages = [await origin.page(user) for user in (BEN, BEN, None)]
    assert await refused(BEN) == "you can have 2 pages at once; close another"
    assert await refused(None) == "this address can have 1 pages at once; close another"
    pages += [await origin.page(user) for user in (AVA, AVA)]
    assert await refused(CYD) == "this server gives 5 pages at once"
    await pages[0].raw.close()
    await until(lambda: origin.server._places._count == 4, "a place again")
    await origin.page(CYD)
    await hang_up(origin.sockets)
    await until(lambda: origin.server._places._count == 0 and not origin.server._places._taken, "all given back")
