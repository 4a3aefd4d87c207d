"""Rooms: start-up, invitations, upgrades, departures, and a kill in each gap of a cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.errors import MatrixRefused, Unavailable
from bridge.ids import EventId, RoomId, UserId, role_key
from bridge.rules.authority import Permission, Policy
from bridge.rules.content import ROLE, STAGE
from bridge.rules.inputs import Asked
from tests.helpers.fakes import (
    ADMIN,
    AVA,
    BEN,
    BOT,
    CYD,
    MOD,
    OTHER,
    ROOM,
    FakeMatrix,
    FakeMedia,
    FakePage,
    FaultyStore,
    HandClock,
    House,
    levels,
    until,
)

NEW = RoomId("!new:a.org")


def ask(actor: UserId, act: Any, target: UserId | None = None, ref: str = "page:1") -> Asked:
    return Asked(actor, act, "web", ref, target)


class Stop:
    """A hook at which the process dies: the call never goes on."""

    def __init__(self, only: Callable[[tuple[Any, ...]], bool] = lambda args: True) -> None:
        self.reached, self._only = asyncio.Event(), only

    async def __call__(self, name: str, args: tuple[Any, ...]) -> None:
        if self._only(args) and not self.reached.is_set():
            self.reached.set()
            await asyncio.Event().wait()


def is_role(args: tuple[Any, ...]) -> bool:
    return bool(args[1] == ROLE)


@asynccontextmanager
async def restarted(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock, watch: list[bool]
) -> AsyncIterator[House]:
    """A new process on the same homeserver and database; ``watch`` notes at each change whether AVA is heard."""
    media = FakeMedia()
    media.watch = lambda: watch.append(media.heard(AVA))
    house = House(matrix, store, clock, media=media)
    try:
        yield await house.start()
    finally:
        await house.close()


GAPS = ["gate and row", "row and state", "state and answer", "answer and reading"]


@pytest.mark.parametrize("act", ["mute", "to_audience", "kick"])
@pytest.mark.parametrize("gap", GAPS)
async def test_a_kill_in_each_gap_of_a_cut(
    gap: str, act: str, matrix: FakeMatrix, store: FaultyStore, clock: HandClock
) -> None:
    """Between gate and row the cut was never promised: the asker has no answer. From the row on nobody hears them."""
    house = await House(matrix, store, clock).start()
    await house.live()
    await house.on_air(AVA)
    await house.quiet()
    stop = Stop()
    write = "kick" if act == "kick" else "write_state"
    if gap == "gate and row":
        store.before["add_cut"] = stop
    elif gap == "row and state":
        matrix.before[write] = stop
    elif gap == "state and answer":
        matrix.after[write] = stop
    else:
        matrix.before["read_state"] = stop
    asking = asyncio.create_task(house.stage().ask(ask(ADMIN, act, AVA)))
    await stop.reached.wait()
    assert not house.media.heard(AVA), "the gate comes first"
    await house.kill()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    for hooks in (matrix.before, matrix.after, store.before):
        hooks.clear()

    heard: list[bool] = []
    async with restarted(matrix, store, clock, heard) as again:
        assert again.stage().state.loaded
        if gap == "gate and row":
            await again.seat(AVA)
            await until(lambda: again.media.heard(AVA), "the stage as before")
            return
        page = FakePage()
        stage_id = again.stage().stage_id
        assert stage_id is not None
        try:
            await again.stage().sit(("s"), AVA, page, stage_id)  # type: ignore[arg-type]
            await again.stage().offer("s", page, "offer")  # type: ignore[arg-type]
        except Exception:
            assert act == "kick"
        await again.quiet()
        await until(lambda: not again.stage().state.cuts, "settled", lambda: again.stage().state)
        await again.quiet()
        assert not any(heard)
        assert not again.media.heard(AVA)
        if act == "kick":
            assert matrix.rooms[ROOM].membership(AVA) == "leave"
        else:
            content = matrix.rooms[ROOM].content(ROLE, role_key(AVA))
            assert content["muted"] if act == "mute" else content["role"] == "listener"
        assert await store.load_cuts() == []
        matrix.role(ADMIN, AVA, role="speaker", reason="newer")
        if act != "kick":
            await until(lambda: again.media.heard(AVA), "a newer grant counts")


async def test_a_cut_that_was_never_written_acts_from_the_first_moment(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock
) -> None:
    """The homeserver is still away when we are back: its state says speaker, our row says muted."""
    house = await House(matrix, store, clock).start()
    await house.live()
    await house.on_air(AVA)
    await house.quiet()

    async def away(name: str, args: tuple[Any, ...]) -> None:
        raise Unavailable("away")

    matrix.before["write_state"] = away
    assert (await house.stage().ask(ask(ADMIN, "mute", AVA))).ok
    await house.kill()
    heard: list[bool] = []
    async with restarted(matrix, store, clock, heard) as again:
        page, _ = await again.seat(AVA)
        await until(lambda: page.me and page.me.muted, "muted")
        matrix.role(MOD, BEN, role="speaker")  # other things happen meanwhile
        await again.seat(BEN)
        await until(lambda: again.media.heard(BEN), "another is heard")
        assert not any(heard)
        assert len(await store.load_cuts()) == 1


async def test_hands_and_card_are_there_after_a_kill(matrix: FakeMatrix, store: FaultyStore, clock: HandClock) -> None:
    house = await House(matrix, store, clock).start()
    stage_id = await house.live()
    await until(lambda: house.stage().state.card, "the card")
    for user in (CYD, BEN):
        assert (await house.stage().ask(ask(user, "raise", ref=f"page:{user}"))).ok
    card = house.stage().state.card
    await house.quiet()
    await house.kill()
    async with restarted(matrix, store, clock, []) as again:
        assert [hand.user for hand in again.stage().state.hands] == [CYD, BEN]
        assert (again.stage().state.card, again.stage().stage_id) == (card, stage_id)
        await again.quiet()
        assert len([text for text in matrix.said() if "Live: Talk" in text]) == 1


async def test_an_event_kept_and_not_applied_is_applied_after_a_kill(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock
) -> None:
    house = await House(matrix, store, clock).start()
    await house.live()
    await house.quiet()
    stop = Stop()
    store.before["save_stage"] = stop
    matrix.message(BEN, "!hand")
    await stop.reached.wait()
    await house.kill()
    store.before.clear()
    async with restarted(matrix, store, clock, []) as again:
        await until(lambda: again.stage().state.hand_of(BEN), "the hand")
        await again.marked()


async def test_rows_of_rooms_that_are_not_open_are_marked(house: House, store: FaultyStore) -> None:
    house.matrix.make_room(OTHER, MOD)
    house.matrix.message(MOD, "!help", OTHER)
    await until(lambda: house.rows and house.rows[-1].event["room_id"] == OTHER, "delivered")
    await house.marked()
    assert house.matrix.said(OTHER) == []


async def test_two_rooms_do_not_hold_each_other_up(matrix: FakeMatrix, store: FaultyStore, clock: HandClock) -> None:
    matrix.make_room(OTHER, BOT, MOD, AVA, BEN)
    house = await House(matrix, store, clock).start()
    try:
        await house.live()
        await house.live(room=OTHER)
        hang = asyncio.Event()

        async def slow(name: str, args: tuple[Any, ...]) -> None:
            if ROOM in args:
                await hang.wait()

        for method in ("write_state", "read_state", "send"):
            matrix.before[method] = slow
        matrix.role(ADMIN, AVA, role="speaker")
        matrix.message(ADMIN, "!stage topic Slow")
        await house.on_air(BEN, OTHER)
        assert not house.media.heard(AVA)
        hang.set()
    finally:
        await house.close()


async def test_a_room_that_is_not_readable_holds_up_no_start(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.live.rooms._PATIENCE_S", 0.05)
    matrix.make_room(OTHER, BOT, AVA)

    async def slow(name: str, args: tuple[Any, ...]) -> None:
        if args[0] == ROOM:
            await asyncio.Event().wait()

    matrix.before["read_room"] = slow
    house = await House(matrix, store, clock).start()
    try:
        await house.live(room=OTHER)
        assert not house.stage().state.loaded
    finally:
        await house.close()


# -- invitations ---------------------------------------------------------------------------------


async def invited(house: House, power: dict[str, Any] | None = None, by: UserId = ADMIN) -> None:
    if OTHER not in house.matrix.rooms:
        house.matrix.make_room(OTHER, AVA, by, power=power)
    house.matrix.member(by, BOT, "invite", OTHER)


async def test_an_invitation_is_followed_and_greeted(house: House, store: FaultyStore) -> None:
    await invited(house)
    await until(lambda: house.matrix.said(OTHER), "a greeting")
    assert "live audio stage" in house.matrix.said(OTHER)[0]
    await house.live(room=OTHER)


async def test_a_greeting_says_what_is_missing(house: House) -> None:
    await invited(house, levels(users={ADMIN: 100}))
    await until(lambda: house.matrix.said(OTHER), "a greeting")
    assert f"/op {BOT} 50" in house.matrix.said(OTHER)[0]


async def test_an_encrypted_room_is_told_so(house: House) -> None:
    house.matrix.make_room(OTHER, AVA)
    house.matrix.put(ADMIN, "m.room.encryption", "", {"algorithm": "m.megolm.v1.aes-sha2"}, OTHER)
    await invited(house)
    await until(lambda: house.matrix.said(OTHER), "a greeting")
    assert "end-to-end encrypted" in house.matrix.said(OTHER)[0]


async def test_each_invitation_is_greeted(house: House) -> None:
    for number in (1, 2, 3):
        await invited(house)
        await until(lambda number=number: len(house.matrix.said(OTHER)) == number, "a greeting")  # type: ignore[misc]
        # With the next invitation right behind it: the bot is asked back before it has seen that it was put out.
        house.matrix.member(ADMIN, BOT, "leave", OTHER)


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.joining.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("bridge.live.joining.PATIENCE_S", 0.2)


def joins(house: House, room: RoomId) -> list[tuple[str, ...]]:
    """By which servers the bot tried to join."""
    return [args[1] for name, args in house.matrix.calls if name == "join" and args[0] == room]


def unknown() -> MatrixRefused:
    return MatrixRefused("M_UNKNOWN", 404, "no servers that are in the room have been provided")


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("fault", [unknown(), MatrixRefused("M_UNKNOWN", 502, "make_join failed"), Unavailable("away")])
async def test_a_room_of_another_server_is_joined_by_the_inviter_s_when_it_can_be(
    fault: MatrixRefused | Unavailable, house: House
) -> None:
    there, tries = RoomId("!room:c.org"), 0

    async def late(name: str, args: tuple[Any, ...]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise fault

    house.matrix.before["join"] = late
    house.matrix.make_room(there, BEN)
    house.matrix.member(BEN, BOT, "invite", there)
    await until(lambda: house.matrix.said(there), "a greeting")
    assert joins(house, there) == [("b.org", "c.org")] * 3


@pytest.mark.usefixtures("short_patience")
async def test_an_inviter_is_told_that_the_room_cannot_be_joined(house: House) -> None:
    async def never(name: str, args: tuple[Any, ...]) -> None:
        raise unknown()

    house.matrix.before["join"] = never
    await invited(house, by=BEN)
    await until(lambda: house.matrix.rooms[OTHER].membership(BOT) == "leave", "declined, so that it can be repeated")
    assert [OTHER in text and "again" in text for text in house.matrix.chats[BEN]] == [True]
    assert len(joins(house, OTHER)) > 2
    await house.marked()
    house.matrix.before.clear()
    await invited(house, by=BEN)
    await until(lambda: house.matrix.said(OTHER), "a greeting")


@pytest.mark.usefixtures("short_patience")
async def test_what_is_forbidden_is_tried_once(house: House) -> None:
    async def forbidden(name: str, args: tuple[Any, ...]) -> None:
        raise MatrixRefused("M_FORBIDDEN", 403, "you are banned")

    house.matrix.before["join"] = forbidden
    await invited(house, by=BEN)
    await until(lambda: joins(house, OTHER), "tried")
    await house.marked()
    assert len(joins(house, OTHER)) == 1
    assert house.matrix.chats == {}


@pytest.mark.usefixtures("short_patience")
async def test_a_homeserver_that_is_away_leaves_the_invitation_for_later(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock
) -> None:
    house = await House(matrix, store, clock).start()
    told = asyncio.Event()

    async def away(name: str, args: tuple[Any, ...]) -> None:
        if name == "tell":
            told.set()
        raise Unavailable("away")

    for each in ("join", "tell", "leave"):
        matrix.before[each] = away
    await invited(house)
    await told.wait()
    await house.close()
    matrix.before.clear()
    async with restarted(matrix, store, clock, []):
        await until(lambda: matrix.said(OTHER), "a greeting")


async def test_an_invitation_by_somebody_who_may_not_host(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock
) -> None:
    policy = Policy(permissions={"*": Permission.speak, ADMIN: Permission.host})
    house = await House(matrix, store, clock, policy=policy).start()
    try:
        await invited(house, by=BEN)
        await until(lambda: matrix.rooms[OTHER].membership(BOT) == "leave", "declined")
        assert house.rooms.of_room(OTHER) is None
    finally:
        await house.close()


async def test_an_invitation_that_came_before_a_kill_is_followed(
    matrix: FakeMatrix, store: FaultyStore, clock: HandClock
) -> None:
    house = await House(matrix, store, clock).start()
    stop = Stop()
    matrix.before["join"] = stop
    await invited(house)
    await stop.reached.wait()
    await house.kill()
    matrix.before.clear()
    async with restarted(matrix, store, clock, []) as again:
        await until(lambda: matrix.said(OTHER), "a greeting")
        assert again.rooms.of_room(OTHER) is not None


# -- departures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leave", "ban"])
async def test_a_bot_that_is_put_out_ends_the_sound_and_forgets(how: str, house: House, store: FaultyStore) -> None:
    await house.live()
    page = await house.on_air(AVA)
    stage = house.stage()
    assert (await stage.ask(ask(BEN, "raise"))).ok
    house.matrix.member(ADMIN, BOT, how)
    await until(lambda: house.rooms.of_room(ROOM) is None, "forgotten")
    await until(lambda: not house.media.peers, "the sound is ended")
    assert page.byes
    async with asyncio.timeout(20):
        while await store.load_stages() or await store.load_cuts():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert all(task.done() for task in stage._tasks)


async def test_a_departure_that_lost_changes_nothing_for_long(house: House) -> None:
    await house.live()
    page = await house.on_air(AVA)
    lost = {
        "type": "m.room.member", "state_key": BOT, "room_id": ROOM, "sender": BEN, "event_id": "$lost",
        "content": {"membership": "leave"}, "origin_server_ts": 1,
    }  # fmt: skip
    house.matrix.push([lost])
    await until(lambda: house.rows[-1].event["event_id"] == "$lost", "delivered")
    await house.quiet()
    await until(lambda: house.media.heard(AVA), "as before")
    assert house.rooms.of_room(ROOM) is not None
    assert page.byes == []


# -- upgrades ------------------------------------------------------------------------------------


def upgrade(
    matrix: FakeMatrix,
    *,
    predecessor: str = ROOM,
    power: dict[str, Any] | None = None,
    public: bool = True,
    by: UserId = ADMIN,
) -> None:
    """As Synapse does it: the new room first, people join it by themselves."""
    matrix.make_room(NEW, AVA, BEN, CYD, MOD, power=power)
    create = matrix.rooms[NEW].state["m.room.create", ""]
    create["content"] = {**create["content"], "predecessor": {"room_id": predecessor, "event_id": "$x"}}
    if public:
        matrix.put(ADMIN, "m.room.join_rules", "", {"join_rule": "public"}, NEW)
    matrix.put(by, "m.room.tombstone", "", {"body": "gone", "replacement_room": NEW})


async def test_a_stage_goes_on_in_the_upgraded_room(house: House) -> None:
    old = await house.live()
    page = await house.on_air(AVA)
    await house.on_air(BEN)
    house.matrix.role(ADMIN, BEN, role="speaker", muted=True, stage_id=old)
    await until(lambda: not house.media.heard(BEN), "muted")
    await house.quiet()
    upgrade(house.matrix)
    await until(lambda: house.rooms.of_room(NEW) and house.stage(NEW).state.live, "live in the new room")
    state = house.stage(NEW).state
    assert state.stage is not None
    assert (state.stage.topic, state.stage.host) == ("Talk", ADMIN)
    assert state.stage.stage_id != old
    await until(lambda: set(state.room.roles) >= {AVA, BEN}, "roles")
    assert state.may_speak(AVA)
    assert state.muted(BEN)
    await until(lambda: house.rooms.of_room(ROOM) is None, "the old one is left")
    assert page.byes == ["ended"]
    assert any("goes on here" in text for text in house.matrix.said(NEW))
    assert any(NEW in text for text in house.matrix.said(ROOM))
    assert house.matrix.rooms[ROOM].content(STAGE)["status"] == "ended"
    assert house.matrix.rooms[ROOM].membership(BOT) == "leave"
    await house.on_air(CYD, NEW)


@pytest.mark.usefixtures("short_patience")
async def test_a_successor_is_joined_by_servers_that_have_it(house: House) -> None:
    """First that of who upgraded the room, then of others with power; ours knows nobody there yet."""
    await house.live()
    users = {ADMIN: 100, MOD: 50, BOT: 50, CYD: 100, BEN: 75, UserId("@gone:d.org"): 100}
    house.matrix.put(ADMIN, "m.room.power_levels", "", levels(users=users))
    await until(lambda: house.stage().state.room.power.level(CYD) == 100, "the power")
    tries = 0

    async def late(name: str, args: tuple[Any, ...]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise unknown()

    house.matrix.before["join"] = late
    upgrade(house.matrix, by=BEN)
    await until(lambda: house.rooms.of_room(NEW) and house.stage(NEW).state.live, "live in the new room")
    assert joins(house, NEW) == [("b.org", "c.org")] * 3
    assert not any("invitation" in text for text in house.matrix.said(ROOM))


async def test_a_false_successor_is_left_again(house: House) -> None:
    await house.live()
    page = await house.on_air(AVA)
    upgrade(house.matrix, predecessor="!elsewhere:a.org")
    await until(
        lambda: house.matrix.rooms[NEW].membership(BOT) == "leave" and ("leave", (NEW,)) in house.matrix.calls, "left"
    )
    assert house.stage().state.live
    assert page.byes == []
    assert house.media.heard(AVA)


async def test_a_successor_without_power_is_told_and_the_stage_goes_on(house: House) -> None:
    await house.live()
    await house.on_air(AVA)
    upgrade(house.matrix, power=levels(users={ADMIN: 100}))
    await until(lambda: house.matrix.said(NEW), "told")
    assert "power level 50" in house.matrix.said(NEW)[0]
    assert house.media.heard(AVA)


async def test_a_successor_that_must_be_invited_to_is_followed_when_it_is(house: House) -> None:
    await house.live()
    await house.on_air(AVA)
    upgrade(house.matrix, public=False)
    await until(lambda: any("invitation" in text for text in house.matrix.said(ROOM)), "told")
    assert house.media.heard(AVA)
    house.matrix.member(ADMIN, BOT, "invite", NEW)
    await until(lambda: house.rooms.of_room(NEW) and house.stage(NEW).state.live, "live in the new room")
    await until(lambda: house.rooms.of_room(ROOM) is None, "the old one is left")


@pytest.mark.parametrize("at", ["join", "stage", "leave"])
async def test_an_upgrade_survives_a_kill(at: str, matrix: FakeMatrix, store: FaultyStore, clock: HandClock) -> None:
    house = await House(matrix, store, clock).start()
    await house.live()
    await house.on_air(AVA)
    await house.quiet()
    stop = Stop(lambda args: at != "stage" or (args[0] == NEW and args[1] == STAGE))
    matrix.before[{"stage": "write_state"}.get(at, at)] = stop
    upgrade(matrix)
    await stop.reached.wait()
    await house.kill()
    matrix.before.clear()
    async with restarted(matrix, store, clock, []) as again:
        await until(lambda: again.rooms.of_room(NEW) and again.stage(NEW).state.live, "live in the new room")
        await until(lambda: again.rooms.of_room(ROOM) is None, "the old one is left")
        assert again.stage(NEW).state.room.place(AVA) == "stage"
        stages = [
            event for event in matrix.rooms[NEW].timeline
            if event["type"] == STAGE and event["content"].get("status") == "live"
        ]  # fmt: skip
        assert len(stages) == 1


async def test_a_homeserver_that_is_away_is_followed_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.live.rooms.FOLLOW_AGAIN_S", 0.01)
    await house.live()
    tries = 0

    async def away(name: str, args: tuple[Any, ...]) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable("away")

    house.matrix.before["join"] = away
    upgrade(house.matrix)
    await until(lambda: house.rooms.of_room(NEW) and house.stage(NEW).state.live, "live in the new room")
    assert tries >= 4


# -- ticking -------------------------------------------------------------------------------------


async def test_pings_while_the_homeserver_is_silent_and_never_holds_up_ticks(
    house: House, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.rooms._ping_if_silent(live=False)
    assert house.matrix.pings == 0
    await house.live()
    last = clock.now_ms()
    house.rooms.last_transaction_ms = lambda: last
    hang = asyncio.Event()

    async def slow(name: str, args: tuple[Any, ...]) -> None:
        await hang.wait()
        raise MatrixRefused("M_CONNECTION_FAILED", 502, "cannot reach you")

    house.matrix.before["ping"] = slow
    for seconds in (0, 9):
        clock.advance(seconds)
        house.rooms._ping_if_silent(live=True)
    pinged = [name for name, _ in house.matrix.calls].count("ping")
    clock.advance(1)
    house.rooms._ping_if_silent(live=True)
    await until(lambda: [name for name, _ in house.matrix.calls].count("ping") == pinged + 1, "a ping")
    clock.advance(11)
    house.rooms._ping_if_silent(live=True)  # the first has not come back: no second
    hang.set()
    house.matrix.before.clear()
    await until(lambda: house.rooms._pinging is None or house.rooms._pinging.done(), "answered")
    house.rooms._ping_if_silent(live=True)
    await until(lambda: house.matrix.pings == 1, "another")


async def test_a_stage_that_nobody_can_host_ends(matrix: FakeMatrix, store: FaultyStore, clock: HandClock) -> None:
    house = await House(matrix, store, clock, policy=Policy(empty_grace_ms=5_000)).start()
    try:
        await house.live(host=MOD)
        matrix.member(MOD, MOD, "leave")
        await until(lambda: house.stage().state.empty_since is not None, "nobody hosts")
        clock.advance(6)
        await until(lambda: matrix.rooms[ROOM].content(STAGE)["status"] == "ended", "ended by the tick")
    finally:
        await house.close()


async def test_unused_events_leave_no_trace(house: House) -> None:
    assert house.rooms.of_stage("nothing") is None
    house.rooms.levels("nothing", {})  # type: ignore[arg-type]
    house.rooms.peer_gone("nothing", "timeout")  # type: ignore[arg-type]
    house.rooms.peer_connected("nothing")  # type: ignore[arg-type]
    assert EventId("$x") == "$x"
