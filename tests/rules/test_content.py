"""Contents of our own events: what is taken, what is refused with field and remedy, what can never raise."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BadInput
from bridge.ids import EventId, UserId
from bridge.rules import content as c
from bridge.rules import view
from bridge.rules.content import RoleContent, StageContent, StateEvent
from bridge.rules.inputs import Redacted, RoomRead, StateHint, StateRead
from bridge.rules.reduce import reduce
from bridge.rules.room import Room
from bridge.rules.state import StageState
from tests.rules.room import AVA, BOT, HOST, NOW, ROOM, S1, hall, role_body, stage_body, watch

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
    | st.sampled_from(["live", "speaker", "listener", "moderator", S1, AVA, "@\ud800:x", "!\ud800", "50", " 7 ", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = st.sampled_from(
    ["status", "stage_id", "host", "topic", "started_ts", "ended_ts", "hands", "speaker_limit", "guests", "bot", "role",
     "music", "low",
     "muted", "reason", "by", "via", "raised", "note", "membership", "displayname", "users", "users_default", "events",
     "state_default", "kick", "redact", "room_version", "creator", "additional_creators", "allow", "deny",
     "allow_ip_literals", "join_rule", "name", "algorithm", "replacement_room"]
)  # fmt: skip
CONTENTS = st.dictionaries(FIELDS, JUNK, max_size=8)
ODD_KEYS = ["", AVA, f"_{AVA}", BOT, "@", "_@", "_x", "_@:", "@\ud800:x", "_@\ud800:x", "junk"]
KEYS = st.sampled_from(ODD_KEYS) | st.text(max_size=8)
KINDS = st.sampled_from([*sorted(c.WATCHED), "m.room.topic", c.QUEUE])
EVENTS = st.builds(
    StateEvent, KINDS, KEYS, st.sampled_from([AVA, BOT, HOST, "", "junk"]), CONTENTS,
    st.sampled_from([EventId("$a"), EventId("$b")]), st.integers(0, 2**53),
)  # fmt: skip


def test_a_stage_goes_to_json_and_back() -> None:
    stage = StageContent("live", S1, HOST, "On the air", 5, 7, "members", 3, True, BOT)
    assert c.parse_stage_content(c.stage_content(stage)) == stage
    bare = StageContent("scheduled", S1)
    assert c.parse_stage_content(c.stage_content(bare)) == bare
    assert "host" not in c.stage_content(bare)
    assert not {"music", "low"} & c.stage_content(bare).keys()


@pytest.mark.parametrize(
    ("content", "sound"),
    [
        ({"music": True}, "music"), ({"low": True}, "low"), ({"music": False, "low": False}, "voice"),
        ({"music": False, "low": True}, "low"), ({}, "voice"),
    ],
)  # fmt: skip
def test_how_a_stage_sounds(content: dict[str, Any], sound: str) -> None:
    parsed = c.parse_stage_content(stage_body(**content))
    assert parsed is not None
    assert parsed.sound == sound
    assert c.parse_stage_content(c.stage_content(parsed)) == parsed


def test_a_stage_is_for_music_or_low() -> None:
    with pytest.raises(BadInput, match=r"^low: "):
        c.parse_stage_content(stage_body(music=True, low=True))


def test_a_role_goes_to_json_and_back() -> None:
    role = RoleContent("speaker", True, S1, "too loud", HOST, "web")
    assert c.parse_role_content(c.role_content(role)) == role
    assert c.role_content(RoleContent("listener")) == {"role": "listener", "muted": False}
    assert c.parse_role_content({"role": "speaker"}) == RoleContent("speaker")


def test_empty_means_nothing_stands_there() -> None:
    assert c.parse_stage_content({}) is None
    assert c.parse_role_content({}) is None
    assert c.parse_hand({}) == (False, "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "on"), ("status", None), ("status", ["live"]), ("stage_id", "short"), ("stage_id", 7),
        ("host", "ava"), ("host", "@\ud800:a.org"), ("bot", 7), ("topic", 7), ("started_ts", -1), ("started_ts", 2**53),
        ("started_ts", True), ("ended_ts", "1"), ("hands", "some"), ("speaker_limit", 0), ("speaker_limit", 1001),
        ("speaker_limit", True), ("speaker_limit", "20"), ("guests", "yes"),
        ("music", 1), ("low", "true"), ("music", None),
    ],
)  # fmt: skip
def test_a_bad_stage_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"^{field}: ") as bad:
        c.parse_stage_content({**stage_body(), field: value})
    assert bad.value.field == field


def test_the_limits_of_speakers_are_taken() -> None:
    assert [c.parse_stage_content(stage_body(speaker_limit=n)).speaker_limit for n in (1, 1000)] == [1, 1000]  # type: ignore[union-attr]
    assert c.parse_stage_content(stage_body(started_ts=0)).started_ts == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("field", "value"),
    [("role", "king"), ("role", None), ("role", {}), ("muted", 1), ("muted", None), ("stage_id", ""), ("reason", []),
     ("by", "me"), ("by", "@\udfff:a.org"), ("via", 3)],
)  # fmt: skip
def test_a_bad_role_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"^{field}: "):
        c.parse_role_content({"role": "speaker", field: value})


@pytest.mark.parametrize("content", [{"raised": "yes"}, {"raised": True, "note": 7}])
def test_a_bad_hand_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        c.parse_hand(content)


def test_a_note_has_140_characters_at_most() -> None:
    assert c.parse_hand({"raised": True, "note": "x" * 141}) == (True, "x" * 140)


@pytest.mark.parametrize(
    "key", ["✋", "✋\ufe0f", "✋🏽", "🖐", "🖐️", "🖐🏿", "🤚🏻", "🙋", "🙋🏾‍♀️", "🙋‍♂️", "✋\ufe0e"]
)  # fmt: skip
def test_every_raised_hand_is_one(key: str) -> None:
    assert c.is_hand_emoji(key)


@pytest.mark.parametrize("key", ["👍", "", "✋✋", "🏽", "hand", None, 7, "✋" + "\ufe0f" * 12, "👋"])
def test_other_reactions_are_none(key: object) -> None:
    assert not c.is_hand_emoji(key)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a\n\tb  ", "a b"), ("a\u2028b\u2029c\x85d", "a b c d"),
        ("a\u202eb\u2066c\u200fd", "abcd"), ("a\x00b\x1bc", "abc"),
        ("می\u200cآیم", "می\u200cآیم"), ("\u200c\u200d \u200c", ""), ("a" * 9, "aaaaa"), ("aaaa b", "aaaa"),
        ("a\ud800b\ue000c", "abc"), ("a    b", "a b"),
    ],
)  # fmt: skip
def test_text_becomes_one_clean_line(text: str, clean: str) -> None:
    assert c.clean_text(text, 7 if len(clean) > 5 else 5) == clean


@given(st.text(), st.integers(1, 50))
def test_clean_text_is_one_short_line_and_clean_already(text: str, limit: int) -> None:
    clean = c.clean_text(text, limit)
    assert len(clean) <= limit
    assert not any(unicodedata.category(x) in {"Cc", "Cs", "Co", "Zl", "Zp"} for x in clean)
    assert c.clean_text(clean, limit) == clean


def test_the_queue_event_holds_the_first_hundred_and_the_count() -> None:
    hands: list[tuple[UserId, int, c.Via, str]] = [
        (UserId(f"@u{i}:a.org"), i, "web", "why" if i == 0 else "") for i in range(101)
    ]
    content = c.queue_content(S1, 9, hands)
    assert (content["stage_id"], content["seq"], content["total"], len(content["hands"])) == (S1, 9, 101, 100)
    assert content["hands"][0] == {"user": "@u0:a.org", "ts": 0, "via": "web", "note": "why"}
    assert content["hands"][99] == {"user": "@u99:a.org", "ts": 99, "via": "web"}


GOOD = {"type": c.ROLE, "sender": HOST, "event_id": "$1", "state_key": "", "content": {}, "origin_server_ts": 3}


def test_a_state_event_is_checked_for_shape() -> None:
    assert c.state_event(GOOD) == StateEvent(c.ROLE, "", HOST, {}, EventId("$1"), 3)
    assert c.state_event({**GOOD, "origin_server_ts": "now"}).ts == 0
    assert c.state_event({**GOOD, "origin_server_ts": True}).ts == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("type", 1), ("sender", None), ("event_id", []), ("state_key", None), ("state_key", "@\ud800:x"), ("content", [])],
)
def test_an_event_of_another_shape_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"^{field}: "):
        c.state_event({**GOOD, field: value})


# -- views ----------------------------------------------------------------------------------------------------


def seen(kind: str, content: dict[str, Any], key: str = "", room: Room | None = None) -> Room:
    return view.apply(room or Room(), kind, key, StateEvent(kind, key, HOST, content, EventId("$x")))[0]


def test_each_kind_of_event_is_seen_under_its_own_key_only() -> None:
    assert seen(c.NAME, {"name": " The \n hall "}).name == "The hall"
    assert seen(c.NAME, {"name": 7}).name == ""
    assert seen(c.JOIN_RULES, {"join_rule": "public"}).public
    assert not seen(c.JOIN_RULES, {"join_rule": "invite"}).public
    assert seen(c.ENCRYPTION, {"algorithm": "m.megolm.v1.aes-sha2"}).encrypted
    assert not seen(c.ENCRYPTION, {}).encrypted
    assert seen(c.TOMBSTONE, {"replacement_room": "!new"}).successor == "!new"
    assert seen(c.TOMBSTONE, {}).successor is None
    assert seen(c.STAGE, stage_body()).stage is not None
    for kind, content in [
        (c.NAME, {"name": "x"}), (c.JOIN_RULES, {"join_rule": "public"}), (c.ENCRYPTION, {"algorithm": "x"}),
        (c.TOMBSTONE, {"replacement_room": "!new"}), (c.STAGE, stage_body()), (c.SERVER_ACL, {"allow": []}),
        (c.POWER_LEVELS, {"users_default": 5}), (c.CREATE, {"room_version": "12"}), (c.HAND, {"raised": True}),
    ]:  # fmt: skip
        assert seen(kind, content, "other") == Room(), kind


@pytest.mark.parametrize("named", [7, "no room id", "!\ud800"])
def test_a_tombstone_that_names_no_room_is_passed_over_and_named(named: object) -> None:
    event = StateEvent(c.TOMBSTONE, "", HOST, {"replacement_room": named}, EventId("$t"))
    room, bad = view.apply(Room(), c.TOMBSTONE, "", event)
    assert room.successor is None
    assert [(b.event_id, b.kind, b.reason.split(":")[0]) for b in bad] == [("$t", c.TOMBSTONE, "replacement_room")]


def test_a_malformed_role_counts_as_empty_and_is_named() -> None:
    room = seen(c.ROLE, role_body("speaker"), f"_{AVA}")
    assert AVA in room.roles
    event = StateEvent(c.ROLE, f"_{AVA}", HOST, {"role": "king"}, EventId("$k"))
    room, bad = view.apply(room, c.ROLE, f"_{AVA}", event)
    assert AVA not in room.roles
    assert bad[0].event_id == "$k"
    assert "role: 'king'" in bad[0].reason


def test_a_role_under_a_useless_key_changes_nothing() -> None:
    room, bad = view.apply(Room(), c.ROLE, AVA, StateEvent(c.ROLE, AVA, HOST, role_body("speaker"), EventId("$k")))
    assert room == Room()
    assert "state_key" in bad[0].reason


def test_nothing_under_a_key_is_nothing() -> None:
    room = view.room_from(hall().state.values())[0]
    for kind, key in [(c.ROLE, f"_{AVA}"), (c.MEMBER, AVA), (c.STAGE, ""), (c.POWER_LEVELS, ""), (c.SERVER_ACL, "")]:
        room, bad = view.apply(room, kind, key, None)
        assert not bad
    assert AVA not in room.roles
    assert AVA not in room.members
    assert room.stage is None
    assert view.apply(room, c.CREATE, "", None)[0] == room


@given(st.lists(EVENTS, max_size=12, unique_by=lambda e: (e.kind, e.key)), st.randoms())
def test_the_order_of_current_state_does_not_matter(events: list[StateEvent], random: Any) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)
    one, other = view.room_from(events)[0], view.room_from(shuffled)[0]
    assert one == other
    step_by_step = Room()
    for event in events:
        step_by_step, _ = view.apply(step_by_step, event.kind, event.key, event)
    assert step_by_step == one


INPUTS = st.one_of(
    st.builds(StateHint, EVENTS),
    EVENTS.map(lambda e: StateRead(e.kind, e.key, e)),
    st.builds(StateRead, KINDS, KEYS, st.none(), st.none() | st.integers(0, 9)),
    st.lists(EVENTS, max_size=6).map(lambda events: RoomRead(tuple(events))),
    st.builds(Redacted, st.sampled_from([EventId("$a"), EventId("$b")]), st.just(AVA)),
)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(INPUTS, max_size=8))
def test_no_event_of_whatever_shape_makes_the_rules_raise(empty: bool, happened: list[Any]) -> None:
    state = StageState(ROOM, BOT) if empty else watch(hall()).state
    for each in happened:
        state, _ = reduce(state, each, NOW)
        assert repr(state).startswith("<Stage ")
        assert [state.may_speak(u) for u in (AVA, HOST, None)].count(True) <= 2
        state.shown_role(AVA)
        state.may_hear(None)
