"""The gate: who is heard. Hints take away, readings give, cuts outrank both, a crash forgets no cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.ids import EventId, RoomId, UserId, role_key
from bridge.rules import content as c
from bridge.rules.authority import Permission, Policy
from bridge.rules.effects import (
    Announce,
    BadEvent,
    CloseStage,
    DropCut,
    Follow,
    Keep,
    KeepCut,
    KickMember,
    PostCard,
    ReadRoom,
    ReadState,
    Tell,
    WriteState,
)
from bridge.rules.hints import MAX_HINTS, MAX_RECENT
from bridge.rules.inputs import (
    Asked,
    NotWritten,
    Present,
    Redacted,
    Restored,
    RoomRead,
    StateHint,
    StateRead,
    Tick,
    Written,
)
from bridge.rules.reduce import rewrite_cuts
from bridge.rules.state import Cut, StageState
from tests.rules.room import (
    ADMIN,
    AVA,
    BEN,
    BOT,
    COHOST,
    CYD,
    HOST,
    MOD,
    OUT,
    ROOM,
    S1,
    S2,
    Hall,
    Watcher,
    hall,
    levels,
    role_body,
    stage_body,
    the,
    those,
    watch,
    writes,
)

UP = role_body("speaker")
DOWN = role_body("listener")
MUTED = role_body("speaker", muted=True)
ROLE_OF_AVA = (c.ROLE, role_key(AVA))
ALL = {HOST, COHOST, AVA}


# -- what the room says -----------------------------------------------------------------------------------------


def test_those_on_stage_are_heard_and_all_members_hear() -> None:
    seen = watch(hall())
    assert seen.heard() == ALL
    assert seen.state.speakers() == [HOST, COHOST, AVA]
    assert seen.state.may_hear(BEN)
    assert not seen.state.may_hear(OUT)
    assert not seen.state.may_hear(None)
    assert [seen.state.shown_role(u) for u in (HOST, ADMIN, COHOST, AVA, BEN)] == [
        "host", "moderator", "moderator", "speaker", "listener",
    ]  # fmt: skip
    assert [seen.state.name(u) for u in (AVA, OUT)] == ["Ava", "out"]


def test_before_the_room_was_read_all_gates_are_shut() -> None:
    room, blind = hall(), Watcher()
    for event in room.state.values():
        blind.learn(room, event)
    assert blind.state.room.live
    assert not blind.heard()
    assert not blind.state.may_hear(BEN)
    assert "unread" in repr(blind.state)


def test_an_administrator_who_listens_is_in_the_audience() -> None:
    assert not watch(hall()).state.may_speak(ADMIN)


def test_roles_of_another_stage_are_void_and_standing_ones_are_not() -> None:
    room = hall()
    room.role(BEN, {"role": "speaker", "stage_id": S2})
    room.role(CYD, {"role": "speaker"})
    assert watch(room).heard() == {*ALL, CYD}
    room.put(c.STAGE, "", stage_body(S2))
    assert watch(room).heard() == {HOST, BEN, CYD}


def test_the_host_has_a_place_unless_an_explicit_role_says_otherwise() -> None:
    room = hall()
    room.role(HOST, DOWN)
    assert watch(room).heard() == {COHOST, AVA}
    room.role(HOST, {"role": "listener", "stage_id": S2})
    assert watch(room).heard() == ALL


@pytest.mark.parametrize("status", ["scheduled", "ended"])
def test_nobody_is_heard_on_a_stage_that_is_not_live(status: str) -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(status=status))
    seen = watch(room)
    assert not seen.heard()
    assert not seen.state.may_hear(BEN)
    assert seen.state.room.on_stage() == []
    assert seen.state.room.since(BEN) == 10


def test_a_room_without_a_stage_has_nobody_on_it() -> None:
    state = watch(hall(stage=False)).state
    assert (state.stage, state.live, state.speakers(), state.room.since(AVA), state.ours) == (None, False, [], 0, False)
    assert "- none" in repr(state)
    assert state.room.on_stage() == []


@pytest.mark.parametrize("membership", ["leave", "ban", "invite", "knock"])
def test_who_is_not_joined_is_cut_off(membership: str) -> None:
    room = hall()
    room.member(AVA, membership)
    assert watch(room).heard() == {HOST, COHOST}


def test_a_server_acl_cuts_off_its_people() -> None:
    room = hall()
    room.put(c.SERVER_ACL, "", {"allow": ["*"], "deny": ["b.org"]})
    seen = watch(room)
    assert seen.heard() == {HOST, COHOST}
    assert not seen.state.has_authority(MOD)


@pytest.mark.parametrize("power", [levels(events={c.ROLE: 0}), levels(users_default=50), levels(users_default=60)])
def test_where_anybody_could_hand_out_roles_none_counts(power: dict[str, Any]) -> None:
    room = hall()
    room.put(c.POWER_LEVELS, "", power)
    seen = watch(room)
    assert seen.heard() == {HOST}
    assert not seen.state.has_authority(ADMIN)
    assert not seen.state.has_authority(COHOST)


def test_no_power_level_event_no_roles() -> None:
    room = hall()
    del room.state[c.POWER_LEVELS, ""]
    assert watch(room).heard() == {HOST}


@pytest.mark.parametrize(("limit", "heard"), [(1, {HOST}), (2, {HOST, COHOST}), (3, ALL), (4, ALL)])
def test_the_stage_holds_no_more_than_its_limit_longest_there_first(limit: int, heard: set[UserId]) -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(speaker_limit=limit))
    assert watch(room).heard() == heard


def test_the_host_has_a_seat_however_late_the_role_came() -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(speaker_limit=1))
    room.role(HOST, UP, ts=10**9)
    assert watch(room).heard() == {HOST}


@pytest.mark.parametrize(
    ("level", "hears", "speaks"),
    [(Permission.none, False, False), (Permission.listen, True, False), (Permission.speak, True, True)],
)
def test_the_operator_says_at_most_what(level: Permission, hears: bool, speaks: bool) -> None:
    seen = watch(hall(), Policy(permissions={"*": Permission.host, AVA: level}))
    assert (seen.state.may_hear(AVA), seen.state.may_speak(AVA)) == (hears, speaks)


def test_guests_hear_where_the_stage_lets_them() -> None:
    room = hall()
    event = room.put(c.STAGE, "", stage_body(guests=True))
    seen = watch(room)
    assert seen.state.may_hear(None)
    assert not seen.state.may_speak(None)
    seen.tell(StateHint(room.event(c.NAME, "", {"name": "x"})))
    assert seen.state.may_hear(None)
    seen.tell(StateHint(room.event(c.STAGE, "", stage_body(guests=False))))
    assert not seen.state.may_hear(None)
    seen.tell(StateHint(event))
    assert not seen.state.may_hear(None)
    seen.tell(StateRead(c.STAGE, "", event))
    assert seen.state.may_hear(None)


def test_a_bot_put_out_of_the_room_ends_the_sound() -> None:
    room = hall()
    seen = watch(room)
    gone = room.event(c.MEMBER, BOT, {"membership": "leave"})
    assert seen.tell(StateHint(gone)) == [ReadState(c.MEMBER, BOT)]
    assert not seen.heard()
    room.state[c.MEMBER, BOT] = gone
    assert the(CloseStage, seen.tell(room.at(c.MEMBER, BOT))).stage_id == S1


# -- hints ------------------------------------------------------------------------------------------------------

TAKES_AWAY = [
    (c.ROLE, role_key(AVA), DOWN), (c.ROLE, role_key(AVA), MUTED), (c.ROLE, role_key(AVA), {}),
    (c.ROLE, role_key(AVA), {"role": "king"}), (c.ROLE, role_key(AVA), {"role": "speaker", "stage_id": S2}),
    (c.MEMBER, AVA, {"membership": "leave"}), (c.MEMBER, AVA, {}), (c.MEMBER, AVA, {"membership": 7}),
    (c.SERVER_ACL, "", {"allow": ["a.org"]}), (c.SERVER_ACL, "", {}),
    (c.POWER_LEVELS, "", levels(events={c.ROLE: 0})), (c.STAGE, "", stage_body(status="ended")), (c.STAGE, "", {}),
    (c.STAGE, "", stage_body(S2)), (c.STAGE, "", stage_body(speaker_limit=1)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "key", "content"), TAKES_AWAY)
def test_a_hint_takes_away_at_once_and_a_reading_that_knows_nothing_of_it_gives_back(
    kind: str, key: str, content: dict[str, Any]
) -> None:
    room = hall()
    seen = watch(room)
    assert seen.tell(StateHint(room.event(kind, key, content))) == [ReadState(kind, key)]
    assert not seen.state.may_speak(AVA)
    seen.tell(room.at(kind, key))
    assert seen.heard() == ALL
    assert seen.state.room == watch(room).state.room


@pytest.mark.parametrize(("kind", "key", "content"), TAKES_AWAY)
def test_no_later_hint_undoes_one_that_takes_away(kind: str, key: str, content: dict[str, Any]) -> None:
    room = hall()
    seen = watch(room)
    seen.tell(StateHint(room.event(kind, key, content)))
    standing = room.state.get((kind, key)) or room.event(kind, key, {"allow": ["*"]})
    seen.tell(StateHint(standing))
    assert not seen.state.may_speak(AVA)
    for _ in range(2 * MAX_HINTS):
        seen.tell(StateHint(room.event(kind, key, standing.content)))
    assert not seen.state.may_speak(AVA)
    assert len(seen.state.hints[kind, key]) == MAX_HINTS
    seen.tell(room.at(kind, key))
    assert seen.heard() == ALL


@pytest.mark.parametrize(("kind", "key", "content"), TAKES_AWAY)
def test_a_flood_of_harmless_hints_hides_none(kind: str, key: str, content: dict[str, Any]) -> None:
    room = hall()
    seen = watch(room)
    standing = room.state.get((kind, key)) or room.event(kind, key, {"allow": ["*"]})
    for each in [standing.content] * (MAX_HINTS + 1) + [content] + [standing.content] * (MAX_HINTS + 1):
        seen.tell(StateHint(room.event(kind, key, each)))
    assert not seen.state.may_speak(AVA)


def test_a_hint_about_one_place_is_not_undone_by_one_about_another() -> None:
    """Roles become void for all, and a second event names Ava the host: together they would let her be heard."""
    room = hall()
    seen = watch(room)
    seen.tell(StateHint(room.event(c.POWER_LEVELS, "", levels(events={c.ROLE: 0}))))
    seen.tell(StateHint(room.event(c.STAGE, "", stage_body(host=AVA))))
    assert not seen.state.may_speak(AVA)


@pytest.mark.parametrize(
    ("kind", "key", "content"),
    [(c.ROLE, role_key(BEN), UP), (c.STAGE, "", stage_body(host=BEN)), (c.MEMBER, OUT, {"membership": "join"})],
)
def test_a_hint_alone_never_opens(kind: str, key: str, content: dict[str, Any]) -> None:
    room = hall()
    room.role(OUT, UP)
    seen = watch(room)
    event = room.event(kind, key, content)
    seen.tell(StateHint(event))
    assert not seen.state.may_speak(BEN)
    assert not seen.state.may_hear(OUT)
    seen.tell(room.at(kind, key))  # soft-failed: it never became state
    assert not seen.state.may_speak(BEN)
    assert seen.heard() == ALL
    room.state[kind, key] = event
    seen.tell(StateHint(event))
    assert seen.heard() <= ALL
    seen.tell(room.at(kind, key))
    assert len(seen.heard()) == 4 if kind != c.STAGE else BEN in seen.heard()


def test_two_hints_that_are_harmless_alone_take_away_together() -> None:
    """The host's explicit role is taken back, and another is named host: each alone leaves the old host a place."""
    room = hall()
    room.role(HOST, UP)
    seen = watch(room)
    seen.tell(StateHint(room.event(c.ROLE, role_key(HOST), {})))
    assert seen.state.may_speak(HOST)
    seen.tell(StateHint(room.event(c.STAGE, "", stage_body(host=BEN))))
    assert not seen.state.may_speak(HOST)
    seen.tell(room.at(c.STAGE, ""))
    assert seen.state.may_speak(HOST)


def test_nobody_hears_a_stage_that_one_hint_ended_and_another_did_not() -> None:
    room = hall()
    seen = watch(room)
    seen.tell(StateHint(room.event(c.STAGE, "", stage_body(status="ended"))), StateHint(room.state[c.STAGE, ""]))
    assert not seen.state.may_hear(BEN)
    assert not seen.state.live


def test_authority_needs_every_view_too() -> None:
    room = hall()
    seen = watch(room)
    seen.tell(StateHint(room.event(c.POWER_LEVELS, "", levels(users={}))))
    assert not seen.state.has_authority(MOD)
    seen.tell(StateHint(room.state[c.POWER_LEVELS, ""]))
    assert not seen.state.has_authority(MOD)
    seen.tell(room.at(c.POWER_LEVELS, ""), StateHint(room.event(c.ROLE, role_key(COHOST), DOWN)))
    assert seen.state.has_authority(MOD)
    assert not seen.state.has_authority(COHOST)
    seen.tell(StateHint(room.event(c.MEMBER, MOD, {"membership": "leave"})))
    assert not seen.state.has_authority(MOD)


@pytest.mark.parametrize(("kind", "key"), [("m.room.topic", ""), (c.QUEUE, ""), (c.HAND, f"_{AVA}"), (c.HAND, AVA)])
def test_what_says_nothing_of_a_stage_is_passed_over(kind: str, key: str) -> None:
    room = hall()
    seen = watch(room)
    before = seen.state
    assert seen.tell(StateHint(room.event(kind, key, {"raised": True}, MOD))) == []
    assert seen.state == before


# -- which reading settles what ---------------------------------------------------------------------------------


def test_a_reading_begun_before_a_hint_does_not_settle_it_and_is_made_again() -> None:
    room = hall()
    seen = watch(room)
    stale = room.at(*ROLE_OF_AVA, heard=seen.state.heard)
    down = room.role(AVA, DOWN)
    seen.tell(StateHint(down))
    assert the(ReadState, seen.tell(stale)) == ReadState(*ROLE_OF_AVA)
    assert seen.state.room.place(AVA) == "stage"
    assert not seen.state.may_speak(AVA)
    seen.tell(room.at(*ROLE_OF_AVA, heard=seen.state.heard))
    assert not seen.state.may_speak(AVA)
    assert not seen.state.hints


def test_an_older_answer_after_a_newer_one_is_passed_over() -> None:
    room = hall()
    seen = watch(room)
    stale = room.at(*ROLE_OF_AVA, heard=seen.state.heard)
    seen.learn(room, room.role(AVA, DOWN))
    before = seen.state
    assert seen.tell(stale) == []
    assert seen.state == before


def test_a_whole_reading_begun_before_a_hint_does_not_settle_it() -> None:
    room = hall()
    seen = watch(room)
    stale = room.read(heard=seen.state.heard)
    seen.tell(StateHint(room.role(AVA, DOWN)))
    assert ReadState(*ROLE_OF_AVA) in seen.tell(stale)
    assert not seen.state.may_speak(AVA)
    assert seen.state.feared.place(AVA) == "audience"


def test_a_whole_reading_begun_before_a_single_one_does_not_bring_the_old_back() -> None:
    room = hall()
    seen = watch(room)
    stale = room.read(heard=seen.state.heard)
    seen.learn(room, room.role(AVA, DOWN))
    seen.tell(stale)
    assert not seen.state.may_speak(AVA)
    assert seen.state.room == watch(room).state.room
    seen.tell(room.read(heard=seen.state.heard))
    assert not seen.state.recent


def test_a_whole_reading_older_than_what_is_remembered_is_made_again() -> None:
    room = hall()
    seen = watch(room)
    stale = room.read(heard=seen.state.heard)
    seen.learn(room, room.role(AVA, DOWN))
    for n in range(MAX_RECENT):
        seen.learn(room, room.member(UserId(f"@u{n}:c.org"), "join"))
    assert len(seen.state.recent) == MAX_RECENT
    assert seen.tell(stale) == [ReadRoom()]
    assert not seen.state.may_speak(AVA)
    seen.tell(room.read(heard=seen.state.heard))
    assert not seen.state.may_speak(AVA)
    assert len(seen.state.room.members) == 8 + MAX_RECENT


# -- cuts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "content"), [("mute", MUTED), ("to_audience", {**DOWN, "muted": False})])
def test_a_cut_shuts_at_once_is_durable_first_and_ends_when_its_own_event_came_back(act: Any, content: Any) -> None:
    room = hall()
    seen = watch(room)
    effects = seen.ask(MOD, act, AVA, text="noise " * 100)
    assert not seen.state.may_speak(AVA)
    kinds = [type(e) for e in effects]
    assert kinds.index(KeepCut) < kinds.index(WriteState)
    write, kept = the(WriteState, effects), the(KeepCut, effects).cut
    assert write.urgent
    assert write.content == {
        **content,
        "by": MOD,
        "via": "command",
        "reason": ("noise " * 100)[: c.TOPIC_LENGTH].strip(),
    }
    assert (kept.user, kept.by, kept.stage_id) == (AVA, MOD, S1)
    # an older grant's hint, and a reading of what stood before
    seen.learn(room, room.state[ROLE_OF_AVA])
    assert not seen.state.may_speak(AVA)
    stale = room.at(*ROLE_OF_AVA, heard=seen.state.heard)
    written = room.put(write.kind, write.key, write.content, BOT)
    assert seen.tell(Written(write.write_id, written.event_id)) == [ReadState(*ROLE_OF_AVA)]
    assert not those(DropCut, seen.tell(stale))
    assert not seen.state.may_speak(AVA)
    assert the(DropCut, seen.tell(room.at(*ROLE_OF_AVA, heard=seen.state.heard))).cut_id == write.write_id
    assert not seen.state.cuts
    assert not seen.state.may_speak(AVA)
    seen.learn(room, room.role(AVA, UP))
    assert seen.state.may_speak(AVA)


def test_a_cut_ends_by_its_own_event_even_from_a_reading_of_unknown_age() -> None:
    room = hall()
    seen = watch(room)
    write = the(WriteState, seen.ask(MOD, "mute", AVA))
    event = room.put(write.kind, write.key, write.content, BOT)
    read = room.at(*ROLE_OF_AVA, heard=0)
    seen.tell(Written(write.write_id, event.event_id))
    assert the(DropCut, seen.tell(read)).cut_id == write.write_id


@pytest.mark.parametrize("act", ["mute", "to_audience"])
def test_a_crash_between_cut_and_write_forgets_nothing(act: Any) -> None:
    room = hall()
    seen = watch(room)
    cut = the(KeepCut, seen.ask(MOD, act, AVA)).cut
    back = Watcher()
    back.tell(Restored(cuts=(replace(cut, written=EventId("$x"), failed=True),), stage_id=S1))
    assert not back.heard()
    back.tell(room.read())
    assert back.heard() == {HOST, COHOST}
    (write,) = rewrite_cuts(back.state)
    assert isinstance(write, WriteState)
    assert (write.write_id, write.key, write.urgent) == (cut.cut_id, role_key(AVA), True)
    assert write.content["by"] == MOD
    event = room.put(write.kind, write.key, write.content, BOT)
    back.tell(Written(write.write_id, event.event_id))
    assert rewrite_cuts(back.state) == []
    assert DropCut(cut.cut_id) in back.tell(room.read())
    assert back.heard() == {HOST, COHOST}


def test_a_restored_cut_of_a_stage_that_is_over_is_let_go() -> None:
    room = hall()
    seen = watch(room)
    cuts = [the(KeepCut, seen.ask(ADMIN, act, who)).cut for act, who in (("mute", AVA), ("end", None))]  # type: ignore[arg-type]
    room.put(c.STAGE, "", stage_body(S2))
    room.role(AVA, {"role": "speaker", "stage_id": S2})
    back = Watcher()
    back.tell(Restored(cuts=tuple(cuts), stage_id=S1))
    assert {e.cut_id for e in those(DropCut, back.tell(room.read()))} == {cut.cut_id for cut in cuts}
    assert back.heard() == {HOST, AVA}
    assert rewrite_cuts(back.state) == []


def test_a_restored_removal_is_carried_out_whatever_the_stage() -> None:
    room = hall()
    cut = the(KeepCut, watch(room).ask(ADMIN, "kick", AVA)).cut
    room.put(c.STAGE, "", stage_body(S2))
    back = Watcher()
    back.tell(Restored(cuts=(cut,)), room.read())
    assert rewrite_cuts(back.state) == [KickMember(cut.cut_id, AVA, "")]
    assert not back.state.may_hear(AVA)
    assert not back.state.has_authority(AVA)


def test_a_kick_holds_until_the_person_is_read_as_gone() -> None:
    room = hall()
    seen = watch(room)
    kick = the(KickMember, seen.ask(ADMIN, "kick", MOD))
    assert (kick.user, seen.state.may_hear(MOD), seen.state.has_authority(MOD)) == (MOD, False, False)
    stale = room.at(c.MEMBER, MOD, heard=seen.state.heard)
    room.member(MOD, "leave")
    assert seen.tell(Written(kick.write_id, None)) == [ReadState(c.MEMBER, MOD)]
    assert not those(DropCut, seen.tell(stale))
    assert not seen.state.may_hear(MOD)
    assert the(DropCut, seen.tell(room.at(c.MEMBER, MOD))).cut_id == kick.write_id
    seen.learn(room, room.member(MOD, "join"))
    assert seen.state.may_hear(MOD)


def test_a_kick_that_failed_is_not_undone_by_a_new_display_name() -> None:
    room = hall()
    seen = watch(room)
    kick = the(KickMember, seen.ask(ADMIN, "kick", AVA))
    assert the(Tell, seen.tell(NotWritten(kick.write_id, "M_FORBIDDEN"))).key == "cut_not_written"
    seen.learn(room, room.member(AVA, "join", "New name"))
    assert not seen.state.may_hear(AVA)
    assert "kick @ava:b.org!" in repr(seen.state)
    seen.learn(room, room.member(AVA, "leave"))
    assert not seen.state.cuts


@pytest.mark.parametrize("act", ["mute", "to_audience"])
def test_a_cut_that_failed_stays_until_a_newer_role(act: Any) -> None:
    room = hall()
    seen = watch(room)
    write = the(WriteState, seen.ask(MOD, act, AVA))
    newer = room.role(AVA, {**UP, "reason": "given while the cut was under way"})
    seen.learn(room, newer)
    stale = StateRead(*ROLE_OF_AVA, room.event(*ROLE_OF_AVA, UP), seen.state.heard)
    told = the(Tell, seen.tell(NotWritten(write.write_id, "M_FORBIDDEN")))
    assert (told.user, told.by_chat) == (MOD, True)
    seen.tell(room.at(*ROLE_OF_AVA), room.read(), StateHint(newer), room.at(*ROLE_OF_AVA))
    assert not seen.state.may_speak(AVA)
    seen.tell(StateRead(*ROLE_OF_AVA, None))
    seen.tell(room.at(*ROLE_OF_AVA), stale)
    assert not seen.state.may_speak(AVA)
    seen.learn(room, room.role(AVA, UP))
    assert seen.state.may_speak(AVA)
    assert not seen.state.cuts


def test_asking_to_speak_again_opens_only_when_it_is_state_and_lets_a_failed_cut_go() -> None:
    """Also where the homeserver answers with the event that stood already, as Synapse does for the same content."""
    room = hall()
    seen = watch(room)
    cut = the(WriteState, seen.ask(MOD, "to_audience", AVA)).write_id
    seen.tell(NotWritten(cut, "M_FORBIDDEN"))
    write = the(WriteState, seen.ask(MOD, "bring_up", AVA))
    assert not seen.state.may_speak(AVA)
    assert seen.tell(Written(write.write_id, room.state[ROLE_OF_AVA].event_id)) == [ReadState(*ROLE_OF_AVA)]
    assert not seen.state.may_speak(AVA)
    assert the(DropCut, seen.tell(room.at(*ROLE_OF_AVA))).cut_id == cut
    assert seen.state.may_speak(AVA)


def test_muting_whom_another_just_sent_down_does_not_bring_them_back() -> None:
    seen = watch(hall())
    seen.ask(ADMIN, "to_audience", AVA)
    assert the(WriteState, seen.ask(MOD, "mute", AVA)).content["role"] == "listener"
    assert writes(seen.ask(MOD, "unmute", AVA))[0].content["role"] == "listener"
    assert writes(seen.ask(MOD, "bring_up", AVA))[0].content["role"] == "speaker"


def test_a_cohost_sent_down_comes_back_as_a_speaker() -> None:
    seen = watch(hall())
    assert writes(seen.ask(ADMIN, "bring_up", COHOST))[0].content["role"] == "moderator"
    seen.ask(ADMIN, "to_audience", COHOST)
    assert not seen.state.has_authority(COHOST)
    assert writes(seen.ask(ADMIN, "bring_up", COHOST))[0].content["role"] == "speaker"


def test_muting_twice_is_two_cuts_and_both_must_come_back() -> None:
    room = hall()
    seen = watch(room)
    one, two = (the(WriteState, seen.ask(MOD, "mute", AVA)) for _ in range(2))
    assert one.write_id != two.write_id
    event = room.put(one.kind, one.key, one.content, BOT)
    seen.tell(Written(one.write_id, event.event_id), room.at(*ROLE_OF_AVA))
    assert list(seen.state.cuts) == [two.write_id]


# -- the end ----------------------------------------------------------------------------------------------------


def test_the_end_shuts_all_at_once_and_closes_when_it_is_state() -> None:
    room = hall()
    seen = watch(room)
    effects = seen.ask(HOST, "end")
    assert not seen.heard()
    assert not seen.state.may_hear(BEN)
    assert "shut" in repr(seen.state)
    assert the(Announce, effects).text == "stage-ended"
    write = the(WriteState, effects)
    assert (write.kind, write.content["status"], write.urgent) == (c.STAGE, "ended", True)
    assert write.content["ended_ts"] == seen.now
    event = room.put(c.STAGE, "", write.content, BOT)
    seen.tell(Written(write.write_id, event.event_id))
    done = seen.tell(room.at(c.STAGE, ""))
    assert the(CloseStage, done).stage_id == S1
    assert DropCut(write.write_id) in done
    assert Keep() in done
    assert (seen.state.cuts, seen.state.kept_for) == ({}, None)


def test_an_end_that_failed_holds_for_this_stage_and_for_no_other() -> None:
    room = hall()
    seen = watch(room)
    write = the(WriteState, seen.ask(HOST, "end"))
    seen.tell(NotWritten(write.write_id, "M_FORBIDDEN"))
    seen.learn(room, room.put(c.STAGE, "", stage_body(topic="again")))
    seen.tell(room.read())
    assert not seen.heard()
    seen.learn(room, room.put(c.STAGE, "", stage_body(S2)))
    assert seen.heard() == {HOST}
    assert not seen.state.cuts


def test_an_end_made_when_nothing_stands_any_more_still_says_which_stage() -> None:
    room = hall(stage=False)
    cut = Cut("w1", "end", None, HOST, "web", S1, 77)
    state = replace(watch(room).state, cuts={"w1": cut})
    (write,) = rewrite_cuts(state)
    assert isinstance(write, WriteState)
    assert (write.content["stage_id"], write.content["status"], write.content["ended_ts"]) == (S1, "ended", 77)


def test_another_stage_takes_the_place_of_the_old_one() -> None:
    room = hall()
    seen = watch(room)
    seen.tell(Asked(BEN, "raise", "web"))
    effects = seen.tell(StateRead(c.STAGE, "", room.put(c.STAGE, "", stage_body(S2))))
    assert the(CloseStage, effects).stage_id == S1
    assert PostCard() in effects
    assert (seen.state.hands, seen.state.kept_for) == ((), S2)


def test_what_was_kept_for_another_stage_is_let_go() -> None:
    room = hall()
    seen = watch(room)
    seen.tell(Asked(BEN, "raise", "web"))
    for stage_id, hands in ((S1, 1), (S2, 0), (None, 1)):
        back = Watcher()
        back.tell(Restored(seen.state.hands, card=EventId("$card"), stage_id=stage_id))
        effects = back.tell(room.read())
        assert len(back.state.hands) == hands, stage_id
        assert (back.state.card == "$card") is bool(hands)
        assert (PostCard() in effects) is not bool(hands)
        assert back.state.kept_for == S1
    gone = Watcher()
    gone.tell(Restored(seen.state.hands, card=EventId("$card")), hall(stage=False).read())
    assert (gone.state.hands, gone.state.card, gone.state.kept_for) == ((), None, None)


def test_the_stage_of_another_bot_gets_no_card_of_ours() -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(bot=MOD))
    seen = Watcher()
    assert PostCard() not in seen.tell(room.read())
    assert not seen.state.ours
    assert seen.heard() == ALL


# -- the host ---------------------------------------------------------------------------------------------------


def heirs(seen: Watcher, room: Hall) -> list[WriteState]:
    seen.tell(StateHint(room.member(HOST, "leave")))
    return writes(seen.tell(room.at(c.MEMBER, HOST)), c.STAGE)


def test_when_the_host_leaves_the_moderator_on_stage_is_host() -> None:
    room = hall()
    room.role(AVA, UP, ts=1)  # longer there than the co-host, but no moderator
    seen = watch(room)
    (write,) = heirs(seen, room)
    assert write.content == {**c.stage_content(seen.state.room.stage), "host": COHOST}  # type: ignore[arg-type]
    assert not writes(seen.tell(room.read()), c.STAGE)  # it is under way already
    room.put(c.STAGE, "", write.content, BOT)
    assert seen.tell(Written(write.write_id, EventId("$h"))) == [ReadState(c.STAGE, "")]
    seen.tell(room.at(c.STAGE, ""))
    assert seen.state.shown_role(COHOST) == "host"
    assert not seen.state.writes


def test_without_a_moderator_the_speaker_longest_there_is_host() -> None:
    room = hall()
    room.role(COHOST, {})
    room.role(BEN, UP)
    assert heirs(watch(room), room)[0].content["host"] == AVA


def test_an_heir_that_cannot_be_written_is_logged_and_named_again() -> None:
    room = hall()
    seen = watch(room)
    (write,) = heirs(seen, room)
    assert "could not be written" in the(BadEvent, seen.tell(NotWritten(write.write_id, "no"))).reason
    assert len(writes(seen.tell(room.read()), c.STAGE)) == 1


def test_a_stage_with_nobody_to_host_it_ends_after_the_grace() -> None:
    room = hall()
    room.role(COHOST, {})
    room.role(AVA, {})
    seen = watch(room, Policy(empty_grace_ms=1000))
    assert heirs(seen, room) == []
    since = seen.state.empty_since
    assert since is not None
    seen.tell(room.read())
    assert seen.state.empty_since == since
    seen.now = since + 998
    assert seen.tell(Tick()) == []
    assert seen.state.live
    ended = seen.tell(Tick())
    assert the(WriteState, ended).content["status"] == "ended"
    assert (the(KeepCut, ended).cut.by, seen.state.live, seen.tell(Tick())) == (BOT, False, [])
    told = seen.tell(NotWritten(the(WriteState, ended).write_id, "no"))
    assert isinstance(told[0], BadEvent)  # nobody to tell


def test_the_host_coming_back_ends_the_grace() -> None:
    room = hall()
    room.role(COHOST, {})
    room.role(AVA, {})
    seen = watch(room, Policy(empty_grace_ms=1000))
    heirs(seen, room)
    seen.learn(room, room.member(HOST, "join"))
    seen.now += 10_000
    assert seen.state.empty_since is None
    assert seen.tell(Tick()) == []


def test_another_bots_stage_gets_no_heir_from_us() -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(bot=MOD))
    assert heirs(watch(room), room) == []


# -- told, redacted, followed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "content", "sender", "told"),
    [
        (BEN, UP, ADMIN, ("to_stage", ADMIN)), (AVA, DOWN, MOD, ("to_audience", MOD)),
        (AVA, MUTED, ADMIN, ("muted", ADMIN)),
        (AVA, {**UP, "by": MOD, "reason": "x"}, BOT, None), (AVA, {**MUTED, "by": MOD}, BOT, ("muted", MOD)),
        (AVA, {**MUTED, "by": HOST}, MOD, ("muted", MOD)), (AVA, {}, MOD, ("to_audience", BOT)),
        (AVA, MUTED, BOT, ("muted", BOT)), (BEN, {**DOWN, "muted": True}, MOD, None),
    ],
)  # fmt: skip
def test_people_are_told_what_was_done_and_by_whom(user: UserId, content: Any, sender: UserId, told: Any) -> None:
    room = hall()
    seen = watch(room)
    effects = seen.tell(StateRead(c.ROLE, role_key(user), room.role(user, content, sender)))
    assert [(t.user, (t.key, t.by)) for t in those(Tell, effects)] == ([(user, told)] if told else [])


def test_unmuting_is_told() -> None:
    room = hall()
    room.role(AVA, MUTED)
    seen = watch(room)
    assert not seen.state.may_speak(AVA)
    assert the(Tell, seen.tell(StateRead(*ROLE_OF_AVA, room.role(AVA, UP)))).key == "unmuted"


def test_nobody_is_told_of_what_was_read_at_the_start() -> None:
    seen = Watcher()
    assert not those(Tell, seen.tell(hall().read()))


def test_a_redacted_role_counts_as_none_at_once() -> None:
    room = hall()
    seen = watch(room)
    event = room.state[ROLE_OF_AVA]
    assert seen.tell(Redacted(event.event_id, MOD)) == [ReadState(*ROLE_OF_AVA)]
    assert not seen.state.may_speak(AVA)
    seen.tell(room.at(*ROLE_OF_AVA))
    assert seen.state.may_speak(AVA)  # it was not redacted in truth
    room.state[ROLE_OF_AVA] = replace(event, content={})
    seen.tell(Redacted(event.event_id, MOD), room.at(*ROLE_OF_AVA))
    assert not seen.state.may_speak(AVA)
    assert AVA not in seen.state.room.roles


@pytest.mark.parametrize("content", [MUTED, DOWN])
def test_a_redacted_cut_is_logged(content: dict[str, Any]) -> None:
    room = hall()
    event = room.role(HOST, content)
    seen = watch(room)
    bad = the(BadEvent, seen.tell(Redacted(event.event_id, MOD)))
    assert bad.event_id == event.event_id
    assert HOST in bad.reason
    assert MOD in bad.reason


def test_a_redacted_stage_event_ends_the_stage() -> None:
    room = hall()
    seen = watch(room)
    event = room.state[c.STAGE, ""]
    assert seen.tell(Redacted(event.event_id, MOD)) == [ReadState(c.STAGE, "")]
    assert not seen.heard()
    room.state[c.STAGE, ""] = replace(event, content={})
    assert the(CloseStage, seen.tell(room.at(c.STAGE, ""))).stage_id == S1


def test_a_redaction_of_something_else_says_nothing() -> None:
    seen = watch(hall())
    before = seen.state
    assert seen.tell(Redacted(EventId("$unknown"), MOD)) == []
    assert seen.state == before


def test_an_upgraded_room_is_followed_once() -> None:
    room = hall()
    seen = watch(room)
    room.put(c.TOMBSTONE, "", {"replacement_room": "!next"})
    assert the(Follow, seen.tell(room.at(c.TOMBSTONE, ""))).room == RoomId("!next")
    assert not those(Follow, seen.tell(room.read()))


def test_presence_is_counted_and_never_below_nothing() -> None:
    seen = watch(hall())
    for change, count in ((1, 1), (1, 2), (-1, 1), (-1, None), (-1, None), (1, 1)):
        seen.tell(Present(BEN, change))  # type: ignore[arg-type]
        assert seen.state.present.get(BEN) == count


def test_an_answer_to_a_write_nobody_made_is_logged_or_nothing() -> None:
    seen = watch(hall())
    assert seen.tell(Written("w?", EventId("$1"))) == []
    assert "w?" in the(BadEvent, seen.tell(NotWritten("w?", "no"))).kind


def test_a_malformed_event_is_named_and_the_good_ones_act() -> None:
    room = hall()
    room.role(BEN, {"role": 7})
    seen = Watcher()
    bad = the(BadEvent, seen.tell(room.read()))
    assert bad.event_id == room.state[c.ROLE, role_key(BEN)].event_id
    assert seen.heard() == ALL


def test_a_restart_at_any_point_reads_as_a_fresh_start() -> None:
    assert StageState(ROOM, BOT).may_speak(AVA) is False
    empty = Watcher()
    empty.tell(RoomRead(()))
    assert empty.state.loaded
    assert not empty.heard()


def test_a_whole_reading_settles_a_cut_only_where_it_is_newer() -> None:
    room = hall()
    seen = watch(room)
    write = the(WriteState, seen.ask(MOD, "mute", AVA))
    stale = room.read(heard=seen.state.heard)
    event = room.put(write.kind, write.key, write.content, BOT)
    seen.tell(Written(write.write_id, event.event_id))
    assert not those(DropCut, seen.tell(stale))
    assert not seen.state.may_speak(AVA)
    assert the(DropCut, seen.tell(room.read(heard=seen.state.heard))).cut_id == write.write_id
    assert not seen.state.may_speak(AVA)
