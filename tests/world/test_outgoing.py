"""What the bot does on a real homeserver, and how it bears one that is busy, broken or gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from mautrix.api import Method

from bridge.demo.client_api import ClientApi
from bridge.errors import ConfigError, MatrixRefused, Unavailable
from bridge.ids import EventId, RoomId, UserId, new_txn_id
from bridge.live.ports import Matrix
from bridge.matrix.homeserver_api import HomeserverApi, RetryLimits, api_path
from bridge.matrix.outgoing import Outgoing, Pace
from bridge.store import DatabaseStore, open_store
from tests.helpers.faults import HANG_UP, LOST_ANSWER, Fault, FaultyProxy, faulty_proxy, refusal
from tests.helpers.ports import free_port
from tests.helpers.synapse import Homeserver

QUICK = RetryLimits(total_s=20, first_pause_s=0.02, longest_pause_s=0.1)
FAST = Pace(state_per_second=1000, state_burst=100, slow_interval_s=0.5, edit_interval_s=0.5, retry=QUICK)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DatabaseStore]:
    opened = await open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    await opened.close()


Make = Callable[..., Outgoing]


@pytest.fixture
async def make(homeserver: Homeserver, store: DatabaseStore) -> AsyncIterator[Make]:
    """Outgoing of this homeserver's bot, changed by keywords; closed when the test ends."""
    opened: list[Outgoing] = []

    def make(
        url: str = homeserver.url, token: str | None = None, bot: UserId = homeserver.bot, **options: Any
    ) -> Outgoing:
        token = token or homeserver.registration.as_token
        opened.append(Outgoing(url, token, bot, homeserver.registration.id, store, **{"pace": FAST} | options))
        return opened[-1]

    yield make
    for each in opened:
        await each.close()


@pytest.fixture
async def outgoing(make: Make) -> Outgoing:
    made = make()
    await made.start()
    return made


def met_by_shape(outgoing: Outgoing) -> Matrix:
    """For mypy: Outgoing is what a live stage needs of the homeserver."""
    return outgoing


@pytest.fixture
async def proxy(homeserver: Homeserver) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(homeserver.url) as made:
        yield made


@pytest.fixture
def through_proxy(make: Make, proxy: FaultyProxy) -> Outgoing:
    return make(proxy.url)


@pytest.fixture
async def ava(homeserver: Homeserver) -> ClientApi:
    return await homeserver.person("ava")


@pytest.fixture
async def room(homeserver: Homeserver, outgoing: Outgoing, ava: ClientApi) -> RoomId:
    """A room of Ava's where the bot is in with level 50."""
    made = await ava.create_room("stage", invite=[homeserver.bot])
    await outgoing.join(made)
    await ava.set_power(made, homeserver.bot, 50)
    return made


# The bot itself


async def test_the_bot_is_registered_named_once_and_itself(
    homeserver: Homeserver, outgoing: Outgoing, make: Make
) -> None:
    assert await outgoing.whoami() == homeserver.bot
    assert await outgoing.display_name(homeserver.bot) == "Eyvan"
    again = make(display_name="Other")
    await again.start()
    assert await again.display_name(homeserver.bot) == "Eyvan", "an admin's choice of name stays"


async def test_a_bot_other_than_the_registration_says_is_named(make: Make) -> None:
    other = UserId("@eyvan:b.test")
    wrong = make(bot=other)
    with pytest.raises(ConfigError, match=r"knows the bot as @eyvan:a\.test.*@eyvan:b\.test.*sender_localpart"):
        await wrong.start()


async def test_a_wrong_token_is_final(make: Make) -> None:
    wrong = make(token="wrong")
    with pytest.raises(MatrixRefused) as refused:
        await wrong.start()
    assert (refused.value.errcode, refused.value.status) == ("M_UNKNOWN_TOKEN", 401)


async def test_a_ping_that_cannot_reach_us_says_why(outgoing: Outgoing) -> None:
    with pytest.raises(MatrixRefused) as refused:
        await outgoing.ping()
    assert refused.value.errcode == "M_CONNECTION_FAILED"


async def test_names_of_people(outgoing: Outgoing, ava: ClientApi) -> None:
    assert await outgoing.display_name(ava.user) == "ava"
    await ava.request("PUT", "profile", ava.user, "displayname", body={"displayname": "آوا"})
    assert await outgoing.display_name(ava.user) == "آوا"
    assert await outgoing.display_name(UserId("@nobody:a.test")) == "nobody"


async def test_joining_and_leaving(homeserver: Homeserver, outgoing: Outgoing, ava: ClientApi) -> None:
    room = await ava.create_room("private", public=False, invite=[homeserver.bot])
    await outgoing.join(room)
    await outgoing.join(room, via=["a.test", "b.test"])
    assert room in await outgoing.joined_rooms()
    await outgoing.leave(room)
    assert room not in await outgoing.joined_rooms()
    with pytest.raises(MatrixRefused):
        await outgoing.join(room)


# State

STRANGE = [
    "",
    "_@ava:a.test",
    "a/b",
    "/",
    "a?b=c&d",
    "100%",
    "%2F",
    "#room:a.test",
    "..",
    ".",
    "a b+c",
    "ایوان 🖐🏽",
    "\t\n",
    "'\"\\;",
]


@pytest.mark.parametrize("key", STRANGE)
async def test_any_state_key_arrives_as_it_is(outgoing: Outgoing, room: RoomId, key: str) -> None:
    written = await outgoing.write_state(room, "im.eyvan.test", key, {"key": key})
    event = await outgoing.read_state(room, "im.eyvan.test", key)
    assert event is not None
    assert event["event_id"] == written
    assert event["state_key"] == key
    assert event["content"] == {"key": key}
    assert event["sender"] == outgoing.bot
    assert [e["event_id"] for e in await outgoing.read_room(room) if e["type"] == "im.eyvan.test"] == [written]


async def test_reading_what_is_not_there(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    assert await outgoing.read_state(room, "im.eyvan.stage", "") is None
    closed = await ava.create_room("closed", public=False)
    with pytest.raises(MatrixRefused) as refused:
        await outgoing.read_state(closed, "im.eyvan.stage", "")
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_the_current_event_is_the_one_of_another_writer(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    await outgoing.write_state(room, "im.eyvan.role", "_@x:a.test", {"role": "listener"})
    hers = await ava.put_state(room, "im.eyvan.role", "_@x:a.test", {"role": "speaker"})
    event = await outgoing.read_state(room, "im.eyvan.role", "_@x:a.test")
    assert event is not None
    assert (event["event_id"], event["sender"]) == (hers, ava.user)


async def test_without_the_power_the_homeserver_refuses(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    await ava.set_power(room, outgoing.bot, 0)
    with pytest.raises(MatrixRefused) as refused:
        await outgoing.write_state(room, "im.eyvan.role", "_@x:a.test", {"role": "speaker"})
    assert (refused.value.errcode, refused.value.status) == ("M_FORBIDDEN", 403)


async def test_a_kick_removes_and_says_why(outgoing: Outgoing, room: RoomId, homeserver: Homeserver) -> None:
    bob = await homeserver.person("bob")
    await bob.join(room)
    await outgoing.kick(room, bob.user, "noise")
    member = await outgoing.read_state(room, "m.room.member", bob.user)
    assert member is not None
    assert member["content"] == {"membership": "leave", "reason": "noise"}
    with pytest.raises(MatrixRefused):
        await outgoing.kick(room, bob.user, "again")


# Words


async def test_a_notice_and_its_repeat(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    asked = await ava.send(room, "!stage status")
    txn = new_txn_id()
    first = await outgoing.send(room, "text", "<b>text</b>", reply_to=asked, txn=txn)
    assert await outgoing.send(room, "text", "<b>text</b>", reply_to=asked, txn=txn) == first
    event = await ava.get_event(room, first)
    assert event["content"] == {
        "msgtype": "m.notice",
        "body": "text",
        "format": "org.matrix.custom.html",
        "formatted_body": "<b>text</b>",
        "m.mentions": {},
        "m.relates_to": {"m.in_reply_to": {"event_id": asked}},
    }


async def test_a_reaction_is_there_once(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    asked = await ava.send(room, "hand?")
    await outgoing.react(room, asked, "✋")
    await outgoing.react(room, asked, "✋")
    reactions = [e["content"]["m.relates_to"] for e in await ava.get_messages(room) if e["type"] == "m.reaction"]
    assert reactions == [{"rel_type": "m.annotation", "event_id": asked, "key": "✋"}]
    with pytest.raises(MatrixRefused):
        await outgoing.react(RoomId("!nowhere"), asked, "✋")


async def edits_of(client: ClientApi, room: RoomId, event: str) -> list[str]:
    """The texts that replaced ``event``, oldest first."""
    relations = [e["content"] for e in await client.get_messages(room)]
    return [
        content["m.new_content"]["body"]
        for content in relations
        if content.get("m.relates_to", {}).get("rel_type") == "m.replace"
        and content["m.relates_to"]["event_id"] == event
    ]


async def test_edits_are_throttled_and_the_last_one_wins(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    card = await outgoing.send(room, "card", "<p>card</p>", reply_to=None, txn=new_txn_id())
    started = time.monotonic()
    for number in range(50):
        await outgoing.edit(room, card, f"card {number}", f"<p>card {number}</p>")
    assert time.monotonic() - started < 5, "an edit never waits"
    shown = await ava.wait_for_event(room, lambda e: e["content"].get("m.new_content", {}).get("body") == "card 49")
    assert shown["content"]["m.new_content"]["formatted_body"] == "<p>card 49</p>"
    assert shown["content"]["body"] == "* card 49"
    texts = await edits_of(ava, room, card)
    assert texts[-1] == "card 49"
    assert len(texts) <= 2, "the first goes at once, the last after the interval"


async def test_an_edit_that_fails_is_told_to_the_log_alone(
    outgoing: Outgoing, room: RoomId, caplog: pytest.LogCaptureFixture
) -> None:
    await outgoing.leave(room)
    await outgoing.edit(room, EventId("$card"), "text", "text")
    await outgoing.close()
    assert "$card could not be edited" in caplog.text
    assert room in caplog.text


async def test_closing_writes_the_last_edit(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    card = await outgoing.send(room, "card", "card", reply_to=None, txn=new_txn_id())
    await outgoing.edit(room, card, "first", "first")
    await outgoing.edit(room, card, "last", "last")
    await outgoing.close()
    await outgoing.close()
    assert (await edits_of(ava, room, card))[-1] == "last"
    with pytest.raises(Unavailable, match="closed"):
        await outgoing.read_room(room)


# Pace


async def test_state_is_written_first_in_first_out_and_cuts_pass_by(
    make: Make, proxy: FaultyProxy, room: RoomId
) -> None:
    pace = Pace(state_per_second=4, state_burst=2, retry=QUICK)
    paced = make(proxy.url, pace=pace)
    started = time.monotonic()
    writes = [asyncio.create_task(paced.write_state(room, "im.eyvan.role", f"u{n}", {"role": "x"})) for n in range(8)]
    await asyncio.sleep(0)  # let them queue up
    await paced.write_state(room, "im.eyvan.role", "cut", {"role": "listener"}, urgent=True)
    assert not all(write.done() for write in writes), "the cut did not wait for the eight"
    await asyncio.gather(*writes)
    assert time.monotonic() - started >= (8 - 2) / 4 - 0.05
    keys = [path.rsplit("/", 1)[1] for _, path in proxy.seen]
    assert set(keys[:3]) == {"u0", "u1", "cut"}
    assert keys[3:] == [f"u{n}" for n in range(2, 8)]


async def test_the_queue_of_hands_is_coalesced(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    kind = "im.eyvan.queue"
    ids = await asyncio.gather(*(outgoing.write_state(room, kind, "", {"seq": n}) for n in range(30)))
    assert len(set(ids)) <= 2
    later = await asyncio.gather(*(outgoing.write_state(room, kind, "", {"seq": 100 + n}) for n in range(30)))
    event = await outgoing.read_state(room, kind, "")
    assert event is not None
    assert event["content"] == {"seq": 129}
    assert set(later) == {event["event_id"]}, "those replaced get the id of the event that replaced them"
    written = [e for e in await ava.get_messages(room) if e["type"] == kind]
    assert len(written) == len({*ids, *later}) <= 3


async def test_a_refused_queue_is_told_to_all_who_wait(outgoing: Outgoing, room: RoomId, ava: ClientApi) -> None:
    await ava.set_power(room, outgoing.bot, 0)
    outcomes = await asyncio.gather(
        *(outgoing.write_state(room, "im.eyvan.queue", "", {"seq": n}) for n in range(5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [MatrixRefused] * 5


# A homeserver that is busy, broken or gone


async def test_a_real_429_is_waited_out(homeserver: Homeserver) -> None:
    admin = await homeserver.person("admin", admin=True)
    slow = await homeserver.person("slow")
    path = "/_synapse/admin/v1" + api_path("users", slow.user, "override_ratelimit")
    as_admin = HomeserverApi(homeserver.url, admin.account.access_token, QUICK)
    await as_admin.request(Method.POST, path, {"messages_per_second": 2, "burst_count": 1})
    room = await slow.create_room("slow")
    as_slow = HomeserverApi(homeserver.url, slow.account.access_token, QUICK)
    sent = []
    for number in range(4):
        path = "/_matrix/client/v3" + api_path("rooms", room, "send", "m.room.message", f"t{number}")
        answer = await as_slow.request(Method.PUT, path, {"msgtype": "m.text", "body": str(number)})
        sent.append(answer["event_id"])
    assert as_slow.limited >= 2, "the homeserver did not limit: this test shows nothing"
    assert as_slow.requests <= 4 + 2 * as_slow.limited
    assert [e["event_id"] for e in await slow.get_messages(room) if e["type"] == "m.room.message"] == sent
    await as_admin.close()
    await as_slow.close()


@pytest.mark.parametrize(
    "limited",
    [
        refusal(429, "M_LIMIT_EXCEEDED", retry_after_ms=700),
        Fault(429, b'{"errcode": "M_LIMIT_EXCEEDED"}', (("Retry-After", "1"),)),
    ],
)
async def test_429_waits_as_long_as_it_says(
    through_proxy: Outgoing, proxy: FaultyProxy, room: RoomId, limited: Fault
) -> None:
    proxy.faults.append(limited)
    started = time.monotonic()
    await through_proxy.write_state(room, "im.eyvan.test", "", {})
    assert time.monotonic() - started >= 0.7
    assert proxy.count("/state/") == 2


async def test_429_without_a_time_backs_off(through_proxy: Outgoing, proxy: FaultyProxy, room: RoomId) -> None:
    odd = [refusal(429, "M_LIMIT_EXCEEDED", retry_after_ms=value) for value in ("soon", -5, 1e12, None)]
    proxy.faults.extend(odd)
    await through_proxy.write_state(room, "im.eyvan.test", "", {})
    assert proxy.count("/state/") == 5


async def test_a_message_whose_answer_got_lost_is_sent_once(
    through_proxy: Outgoing, proxy: FaultyProxy, room: RoomId, ava: ClientApi
) -> None:
    proxy.faults.extend([LOST_ANSWER, Fault(502, b"<html>"), Fault(200, b"<html>"), HANG_UP])
    sent = await through_proxy.send(room, "once", "once", reply_to=None, txn=new_txn_id())
    paths = {path for _, path in proxy.seen}
    assert (len(proxy.seen), len(paths)) == (5, 1), "one transaction id over all retries"
    assert [e["event_id"] for e in await ava.get_messages(room) if e["content"].get("body") == "once"] == [sent]


async def test_state_whose_answer_got_lost_is_written_once(
    through_proxy: Outgoing, proxy: FaultyProxy, room: RoomId, ava: ClientApi
) -> None:
    proxy.faults.append(LOST_ANSWER)
    written = await through_proxy.write_state(room, "im.eyvan.test", "", {"a": 1})
    assert [e["event_id"] for e in await ava.get_messages(room) if e["type"] == "im.eyvan.test"] == [written]


async def test_trouble_that_lasts_ends_as_unavailable(make: Make) -> None:
    brief = Pace(retry=RetryLimits(total_s=0.5, first_pause_s=0.02, longest_pause_s=0.1))
    gone = make(f"http://127.0.0.1:{free_port()}", pace=brief)
    with pytest.raises(Unavailable, match=r"given up after 0\.5 s"):
        await gone.whoami()
    with pytest.raises(Unavailable):
        await gone.ping()


async def test_a_homeserver_that_never_answers_is_given_up(
    make: Make, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def swallow(request: Any) -> Any:
        await never.wait()

    monkeypatch.setattr(FaultyProxy, "_pass_on", lambda self, request: swallow(request))
    brief = Pace(retry=RetryLimits(total_s=0.5, request_s=0.2))
    silent = make(proxy.url, pace=brief)
    with pytest.raises(Unavailable, match="TimeoutError"):
        await silent.whoami()


# Direct chats


async def direct_chats(client: ClientApi, bot: UserId) -> list[RoomId]:
    invited = (await client.sync())["rooms"].get("invite", {})
    return [
        RoomId(room)
        for room, state in invited.items()
        if any(e["sender"] == bot and e["content"].get("is_direct") for e in state["invite_state"]["events"])
    ]


def body_is(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["content"].get("body") == text


async def test_a_direct_chat_is_opened_once_unencrypted_and_remembered(
    homeserver: Homeserver, outgoing: Outgoing, store: DatabaseStore, make: Make
) -> None:
    cyd = await homeserver.person("cyd")
    await asyncio.gather(*(outgoing.tell(cyd.user, f"text {n}", f"text {n}") for n in range(5)))
    (room,) = await direct_chats(cyd, homeserver.bot)
    assert await store.get_value(f"dm:{cyd.user}") == room
    await cyd.join(room)
    bodies = [e["content"]["body"] for e in await cyd.get_messages(room) if e["type"] == "m.room.message"]
    assert sorted(bodies) == [f"text {n}" for n in range(5)]
    assert await cyd.get_state(room, "m.room.encryption") is None
    with pytest.raises(MatrixRefused):
        await cyd.put_state(room, "m.room.encryption", "", {"algorithm": "m.megolm.v1.aes-sha2"})
    assert not len(outgoing._dm_locks), "no lock outlives its use"

    restarted = make()
    await restarted.tell(cyd.user, "after a restart", "after a restart")
    await cyd.wait_for_event(room, body_is("after a restart"))


async def test_who_left_is_invited_again(homeserver: Homeserver, outgoing: Outgoing) -> None:
    dan = await homeserver.person("dan")
    await outgoing.tell(dan.user, "first", "first")
    (room,) = await direct_chats(dan, homeserver.bot)
    await dan.join(room)
    await dan.leave(room)
    await outgoing.tell(dan.user, "second", "second")
    assert await direct_chats(dan, homeserver.bot) == [room]
    await dan.join(room)
    await dan.wait_for_event(room, body_is("second"))


async def test_a_chat_the_bot_cannot_use_any_more_is_replaced(
    homeserver: Homeserver, outgoing: Outgoing, store: DatabaseStore
) -> None:
    eve = await homeserver.person("eve")
    await store.set_value(f"dm:{eve.user}", "!gone")
    await outgoing.tell(eve.user, "first", "first")
    (room,) = await direct_chats(eve, homeserver.bot)
    await outgoing.leave(room)
    await outgoing.tell(eve.user, "second", "second")
    (other,) = set(await direct_chats(eve, homeserver.bot)) - {room}
    assert await store.get_value(f"dm:{eve.user}") == other


async def test_a_refused_direct_chat_is_told(homeserver: Homeserver, outgoing: Outgoing, store: DatabaseStore) -> None:
    nobody = UserId("@x:server-that-we-do-not-federate-with.test")
    with pytest.raises(MatrixRefused):
        await outgoing.tell(nobody, "text", "text")
    assert await store.get_value(f"dm:{nobody}") is None


async def test_a_room_whose_answer_got_lost_is_not_made_twice(
    homeserver: Homeserver, through_proxy: Outgoing, proxy: FaultyProxy
) -> None:
    fay = await homeserver.person("fay")
    proxy.on = "createRoom"
    proxy.faults.extend([refusal(429, "M_LIMIT_EXCEEDED", retry_after_ms=10), LOST_ANSWER])
    with pytest.raises(Unavailable, match="not known whether it was done"):
        await through_proxy.tell(fay.user, "text", "text")
    assert len(await direct_chats(fay, homeserver.bot)) == 1
