"""Who may ask for what: one table, and what each request makes. The bot's power is never borrowed."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.ids import UserId
from bridge.rules import content as c
from bridge.rules.authority import Permission, Policy
from bridge.rules.effects import (
    Answer,
    Keep,
    KeepCut,
    KickMember,
    PostCard,
    Record,
    RevokeLinks,
    SendLink,
    Tell,
    WriteState,
)
from bridge.rules.inputs import ActName, Asked, NotWritten, Present, StateHint, Written
from bridge.rules.requests import why_no_hand
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
    S1,
    S2,
    Hall,
    hall,
    levels,
    role_body,
    stage_body,
    the,
    those,
    watch,
    writes,
)

HIGH = UserId("@high:a.org")  # level 50, in the audience


def crowd() -> Hall:
    room = hall()
    room.member(HIGH, "join")
    room.put(c.POWER_LEVELS, "", levels(users={ADMIN: 100, HOST: 50, MOD: 50, BOT: 50, HIGH: 50}))
    return room


OK = "ok"
NM, TH, NS, NH = "not-moderator", "target-higher", "not-self", "target-not-here"

TABLE: list[tuple[ActName, UserId, UserId | None, str]] = [
    # who has no authority does nothing to anybody
    *((act, who, target, NM) for act in ("mute", "unmute", "to_audience", "bring_up", "invite", "kick", "not_now",
      "make_moderator") for who, target in ((AVA, BEN), (BEN, AVA), (BEN, MOD))),
    # nobody acts without saying on whom
    *((act, ADMIN, None, "who") for act in ("mute", "kick", "invite", "to_audience")),
    # against somebody: a level above theirs
    ("mute", ADMIN, MOD, OK), ("mute", ADMIN, AVA, OK), ("mute", ADMIN, HOST, OK),
    ("mute", MOD, HIGH, TH), ("mute", MOD, HOST, TH), ("mute", MOD, ADMIN, TH), ("mute", MOD, AVA, OK),
    ("mute", MOD, COHOST, OK), ("mute", MOD, BOT, TH),
    ("to_audience", ADMIN, MOD, OK), ("to_audience", MOD, HIGH, TH), ("to_audience", MOD, ADMIN, TH),
    ("to_audience", MOD, AVA, OK), ("to_audience", MOD, COHOST, OK), ("to_audience", HOST, MOD, TH),
    ("kick", ADMIN, MOD, OK), ("kick", MOD, HIGH, TH), ("kick", MOD, ADMIN, TH), ("kick", MOD, AVA, OK),
    ("kick", MOD, COHOST, OK), ("kick", MOD, OUT, "target-not-here"), ("kick", MOD, BOT, TH),
    # for somebody: the level for the act will do
    ("unmute", MOD, ADMIN, OK), ("unmute", MOD, HIGH, OK), ("unmute", MOD, AVA, OK),
    ("bring_up", MOD, HIGH, OK), ("bring_up", MOD, BEN, OK), ("invite", MOD, ADMIN, OK), ("invite", MOD, BEN, OK),
    ("make_moderator", MOD, BEN, OK), ("make_moderator", HOST, AVA, OK),
    # a co-host acts on listeners and speakers only, removes nobody, makes no moderators
    ("mute", COHOST, AVA, OK), ("unmute", COHOST, AVA, OK), ("to_audience", COHOST, AVA, OK),
    ("bring_up", COHOST, BEN, OK), ("invite", COHOST, BEN, OK), ("mute", COHOST, BEN, OK),
    *((act, COHOST, target, TH) for act in ("mute", "unmute", "to_audience", "bring_up", "invite")
      for target in (MOD, HIGH, ADMIN, HOST)),
    *(("kick", COHOST, target, NM) for target in (AVA, BEN, MOD, OUT)),
    *(("make_moderator", COHOST, target, NM) for target in (AVA, BEN, COHOST)),
    # on oneself
    ("to_audience", AVA, AVA, OK), ("to_audience", BEN, BEN, OK), ("to_audience", HOST, HOST, OK),
    ("to_audience", COHOST, COHOST, OK), ("mute", COHOST, COHOST, OK), ("mute", MOD, MOD, OK),
    ("bring_up", MOD, MOD, OK), ("bring_up", BEN, BEN, NM), ("unmute", AVA, AVA, NM), ("unmute", COHOST, COHOST, OK),
    ("kick", MOD, MOD, NS), ("kick", AVA, AVA, NM), ("make_moderator", BEN, BEN, NM),
    # on somebody who is not here
    *((act, ADMIN, OUT, NH) for act in ("mute", "unmute", "to_audience", "bring_up", "invite", "make_moderator")),
    # of the stage as a whole: the level for its event
    ("end", ADMIN, None, OK), ("end", MOD, None, OK), ("end", COHOST, None, NM), ("end", AVA, None, NM),
    ("topic", HOST, None, OK), ("topic", COHOST, None, NM), ("topic", BEN, None, NM),
    ("language", HOST, None, "which-language"), ("language", BEN, None, NM),
    ("sound", HOST, None, "which-sound"), ("sound", COHOST, None, NM), ("sound", BEN, None, NM),
    ("hands", MOD, None, OK), ("hands", COHOST, None, OK), ("hands", AVA, None, NM),
    ("start", ADMIN, None, "already-live"),
    # anybody here
    *((act, BEN, None, OK) for act in ("status", "help", "lower", "decline", "revoke_links")),
    ("accept", BEN, None, "no-invitation"),
    # nobody from outside
    *((act, OUT, AVA, "not-in-room") for act in ("mute", "help", "status", "link", "start", "raise", "revoke_links")),
]  # fmt: skip


@pytest.mark.parametrize(("act", "actor", "target", "answer"), TABLE)
def test_who_may(act: ActName, actor: UserId, target: UserId | None, answer: str) -> None:
    seen = watch(crowd())
    before = seen.state
    said = seen.outcome(actor, act, target)
    assert (OK if said.startswith("ok ") else said) == answer
    if answer != OK:
        assert seen.state == before
        assert not [e for e in seen.said if isinstance(e, WriteState | KickMember | KeepCut)]


def test_done_is_said_with_the_name() -> None:
    seen = watch(crowd())
    answer = the(Answer, seen.ask(MOD, "mute", AVA, ref="$cmd"))
    assert answer == Answer("$cmd", True, "done-mute", {"name": "Ava"})
    assert the(Answer, seen.ask(MOD, "make_moderator", BEN)).text == "done-make-moderator"
    assert those(Answer, seen.ask(MOD, "mute", AVA, ref="")) == []
    assert those(Answer, seen.ask(BEN, "accept", ref="")) == []
    assert those(Answer, seen.ask(BEN, "mute", AVA, ref="")) == []


@pytest.mark.parametrize("act", ["mute", "to_audience", "kick"])
def test_a_level_between_the_acts_own_and_the_targets_is_not_enough(act: Any) -> None:
    room = crowd()
    room.put(c.POWER_LEVELS, "", levels(users={ADMIN: 100, MOD: 60, AVA: 60, BEN: 59, BOT: 100}))
    seen = watch(room)
    assert seen.outcome(MOD, act, AVA) == TH
    assert seen.outcome(MOD, act, BEN).startswith(OK)


def test_kick_needs_the_rooms_level_for_kick() -> None:
    room = crowd()
    room.put(c.POWER_LEVELS, "", levels(kick=51, users={ADMIN: 51, MOD: 50, BOT: 100}))
    seen = watch(room)
    assert seen.outcome(MOD, "kick", BEN) == NM
    assert seen.outcome(MOD, "mute", BEN).startswith(OK)
    assert seen.outcome(ADMIN, "kick", BEN).startswith(OK)


def test_creators_of_a_version_12_room_act_on_all_but_each_other() -> None:
    room = hall("12")
    room.put(c.CREATE, "", {"room_version": "12", "additional_creators": [AVA]}, ADMIN)
    room.put(c.POWER_LEVELS, "", levels(users={MOD: 2**53 - 1, BOT: 50}))
    seen = watch(room)
    assert seen.outcome(ADMIN, "mute", MOD).startswith(OK)
    assert seen.outcome(ADMIN, "mute", AVA) == TH
    assert seen.outcome(MOD, "mute", ADMIN) == TH


@pytest.mark.parametrize(
    ("hint", "actor", "act", "target", "answer"),
    [
        ((c.POWER_LEVELS, "", levels(users={ADMIN: 100})), MOD, "mute", AVA, NM),
        ((c.POWER_LEVELS, "", levels(users={ADMIN: 100, MOD: 50, AVA: 50})), MOD, "mute", AVA, TH),
        ((c.POWER_LEVELS, "", levels(kick=99)), MOD, "kick", AVA, NM),
        ((c.POWER_LEVELS, "", levels(users={ADMIN: 100})), MOD, "end", None, NM),
        ((c.POWER_LEVELS, "", levels(users={AVA: 50, BOT: 50})), COHOST, "mute", AVA, TH),
        ((c.ROLE, f"_{AVA}", role_body("moderator")), COHOST, "mute", AVA, TH),
        ((c.ROLE, f"_{COHOST}", role_body("speaker")), COHOST, "mute", AVA, NM),
        ((c.MEMBER, MOD, {"membership": "leave"}), MOD, "mute", AVA, "not-in-room"),
        ((c.STAGE, "", stage_body(status="ended")), MOD, "mute", AVA, "no-stage"),
    ],
)
def test_a_hint_takes_authority_away_too(
    hint: Any, actor: UserId, act: Any, target: UserId | None, answer: str
) -> None:
    room = crowd()
    seen = watch(room)
    seen.tell(StateHint(room.event(*hint)))
    assert seen.outcome(actor, act, target) == answer


@pytest.mark.parametrize("act", ["unmute", "bring_up"])
def test_a_cohost_muted_by_another_does_not_unmute_by_the_bots_power(act: Any) -> None:
    room = hall()
    seen = watch(room)
    cut = the(WriteState, seen.ask(ADMIN, "mute", COHOST))
    assert seen.outcome(COHOST, act, COHOST) == NM
    event = room.put(cut.kind, cut.key, cut.content, BOT)
    seen.tell(Written(cut.write_id, event.event_id), room.read())
    assert not seen.state.cuts
    assert seen.outcome(COHOST, act, COHOST) == NM
    assert seen.outcome(MOD, act, COHOST).startswith(OK)
    room.role(COHOST, {**role_body("moderator", muted=True), "by": COHOST}, BOT)
    seen.tell(room.read())
    assert seen.outcome(COHOST, act, COHOST).startswith(OK)
    room.role(COHOST, {**role_body("moderator", muted=True), "by": COHOST}, ADMIN)  # ``by`` is not believed from others
    seen.tell(room.read())
    assert seen.outcome(COHOST, act, COHOST) == NM
    room.role(ADMIN, role_body("speaker", muted=True), HOST)
    seen.tell(room.read())
    assert seen.outcome(ADMIN, act, ADMIN).startswith(OK)  # the room would let an administrator


def test_a_cohost_may_undo_the_own_mute_under_way() -> None:
    seen = watch(hall())
    seen.ask(COHOST, "mute", COHOST)
    assert seen.outcome(COHOST, "unmute", COHOST).startswith(OK)


def test_another_bots_stage_is_left_to_it() -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(bot=MOD))
    seen = watch(room)
    answer = the(Answer, seen.ask(ADMIN, "mute", AVA))
    assert (answer.text, answer.args) == ("other-bot", {"bot": MOD})


@pytest.mark.parametrize("act", ["help", "status", "revoke_links", "mute", "link", "end", "hands"])
def test_whom_the_operator_shuts_out_asks_for_nothing(act: Any) -> None:
    seen = watch(hall(), Policy(permissions={"*": Permission.host, ADMIN: Permission.none}))
    assert seen.outcome(ADMIN, act, AVA) == "not-permitted"


@pytest.mark.parametrize("act", ["mute", "end", "raise", "link", "hands", "topic", "lower", "accept"])
def test_without_a_stage_there_is_none(act: Any) -> None:
    assert watch(hall(stage=False)).outcome(ADMIN, act, AVA) == "no-stage"


# -- what each makes --------------------------------------------------------------------------------------------


def test_a_grant_is_written_and_acts_only_when_read_back() -> None:
    room = hall()
    seen = watch(room)
    effects = seen.ask(MOD, "bring_up", BEN, via="web", text="  welcome\n")
    (write,) = writes(effects)
    assert write.content == {
        "role": "speaker", "muted": False, "stage_id": S1, "by": MOD, "via": "web", "reason": "welcome",
    }  # fmt: skip
    assert not write.urgent
    assert the(Record, effects) == Record(S1, "bring_up", MOD, "web", BEN)
    event = room.put(write.kind, write.key, write.content, BOT)
    seen.tell(Written(write.write_id, event.event_id))
    assert not seen.state.may_speak(BEN)
    seen.tell(room.at(write.kind, write.key))
    assert seen.state.may_speak(BEN)


def test_a_grant_that_was_refused_is_told_to_whoever_asked() -> None:
    seen = watch(hall())
    (write,) = writes(seen.ask(MOD, "bring_up", BEN))
    told = the(Tell, seen.tell(NotWritten(write.write_id, "M_FORBIDDEN")))
    assert (told.user, told.key, told.by_chat) == (MOD, "not_written", True)
    assert not seen.state.writes


@pytest.mark.parametrize(
    ("act", "target", "role", "muted"),
    [("unmute", AVA, "speaker", False), ("unmute", COHOST, "moderator", False),
     ("bring_up", COHOST, "moderator", False),
     ("make_moderator", AVA, "moderator", False), ("unmute", HOST, "speaker", False), ("mute", HOST, "speaker", True),
     ("mute", COHOST, "moderator", True), ("mute", BEN, "listener", True), ("to_audience", COHOST, "listener", False)],
)  # fmt: skip
def test_what_a_role_becomes(act: Any, target: UserId, role: str, muted: bool) -> None:
    (write,) = writes(watch(hall()).ask(ADMIN, act, target))
    assert (write.key, write.content["role"], write.content["muted"]) == (f"_{target}", role, muted)
    assert write.content["stage_id"] == S1


def test_an_invitation_is_accepted_by_the_invited_and_judged_again() -> None:
    room = hall()
    seen = watch(room)
    effects = seen.ask(MOD, "invite", BEN)
    told = the(Tell, effects)
    assert (told.user, told.key, told.by, told.by_chat) == (BEN, "invited", MOD, True)
    assert not writes(effects)
    assert Keep() in effects
    assert seen.outcome(CYD, "accept") == "no-invitation"
    (write,) = writes(seen.ask(BEN, "accept", via="web"))
    assert (write.content["role"], write.content["by"], write.content["via"]) == ("speaker", MOD, "web")
    assert not seen.state.invitations


def test_an_invitation_is_worth_nothing_when_the_inviter_has_no_authority_any_more() -> None:
    room = hall()
    seen = watch(room)
    seen.ask(MOD, "invite", BEN)
    seen.learn(room, room.put(c.POWER_LEVELS, "", levels(users={ADMIN: 100, BOT: 50})))
    assert seen.outcome(BEN, "accept") == NM
    assert not writes(seen.said)
    assert not seen.state.invitations


def test_an_invitation_can_be_declined_and_is_withdrawn_by_a_cut() -> None:
    seen = watch(hall())
    seen.ask(MOD, "invite", BEN)
    told = the(Tell, seen.ask(BEN, "decline"))
    assert (told.user, told.key, told.by) == (MOD, "invite_declined", BEN)
    assert not those(Tell, seen.ask(BEN, "decline"))
    seen.ask(MOD, "invite", CYD)
    seen.ask(MOD, "to_audience", CYD)
    assert seen.outcome(CYD, "accept") == "no-invitation"


def test_inviting_whose_hand_is_up_brings_them_up_and_who_is_up_needs_none() -> None:
    seen = watch(hall())
    seen.ask(BEN, "raise")
    assert writes(seen.ask(MOD, "invite", BEN))[0].content["role"] == "speaker"
    seen.ask(MOD, "invite", AVA)
    assert not seen.state.invitations


def test_who_was_just_moved_down_can_be_invited_back_before_the_room_says_so() -> None:
    room = hall()
    seen = watch(room)
    seen.ask(MOD, "to_audience", AVA)
    assert the(Tell, seen.ask(MOD, "invite", AVA)).user == AVA
    seen.learn(room, room.member(CYD, "leave"))
    assert seen.state.invitations == {AVA: MOD}
    assert writes(seen.ask(AVA, "accept", via="web"))[0].content["role"] == "speaker"


@pytest.mark.parametrize("how", ["up", "gone"])
def test_an_invitation_ends_with_its_person_on_stage_or_gone(how: str) -> None:
    room = hall()
    seen = watch(room)
    seen.ask(MOD, "invite", BEN)
    seen.learn(room, room.role(BEN, role_body("speaker")) if how == "up" else room.member(BEN, "leave"))
    assert not seen.state.invitations


def test_stepping_down_where_one_is_not_writes_nothing() -> None:
    seen = watch(hall())
    assert seen.outcome(BEN, "to_audience", BEN) == "ok done-to-audience"
    assert not writes(seen.said)
    assert writes(seen.ask(AVA, "to_audience", AVA))[0].content["role"] == "listener"
    assert writes(seen.ask(MOD, "to_audience", CYD))[0].content["role"] == "listener"
    seen.ask(MOD, "bring_up", BEN)
    assert writes(seen.ask(BEN, "to_audience", BEN))[0].content["role"] == "listener"  # a grant is under way


def test_a_full_stage_counts_those_on_their_way() -> None:
    room = hall()
    room.put(c.STAGE, "", stage_body(speaker_limit=4))
    seen = watch(room)
    assert seen.outcome(MOD, "bring_up", BEN).startswith(OK)
    answer = the(Answer, seen.ask(MOD, "bring_up", CYD))
    assert (answer.ok, answer.text, answer.args) == (False, "stage-full", {"limit": 4})
    assert seen.outcome(MOD, "invite", CYD) == "stage-full"
    assert seen.outcome(MOD, "make_moderator", CYD) == "stage-full"
    assert seen.outcome(MOD, "bring_up", BEN).startswith(OK)
    assert seen.outcome(MOD, "make_moderator", AVA).startswith(OK)
    for write_id in list(seen.state.writes):
        seen.tell(NotWritten(write_id, "no"))
    assert seen.outcome(MOD, "bring_up", CYD).startswith(OK)


@pytest.mark.parametrize("act", ["bring_up", "invite"])
def test_whom_the_operator_lets_only_listen_is_not_brought_up(act: Any) -> None:
    seen = watch(hall(), Policy(permissions={"*": Permission.host, BEN: Permission.listen}))
    assert seen.outcome(MOD, act, BEN) == "target-not-permitted"
    assert seen.outcome(MOD, act, CYD).startswith(OK)


def test_a_kick_is_a_cut_of_its_own() -> None:
    effects = watch(hall()).ask(MOD, "kick", AVA, text="noise")
    assert the(KickMember, effects).reason == "noise"
    assert the(KeepCut, effects).cut.kind == "kick"
    assert the(Record, effects).reason == "noise"


# -- the stage itself -------------------------------------------------------------------------------------------


def no_stage(**power: Any) -> Hall:
    room = hall(stage=False)
    room.put(c.POWER_LEVELS, "", levels(**power))
    return room


def test_a_stage_starts_by_state() -> None:
    room = no_stage()
    seen = watch(room, Policy(speaker_limit=7, hands="members"))
    effects = seen.ask(HOST, "start", text=" On\nair ", new_stage=S2)
    (write,) = writes(effects, c.STAGE)
    assert write.content == {
        "status": "live", "stage_id": S2, "topic": "On air", "hands": "members", "speaker_limit": 7, "guests": False,
        "host": HOST, "bot": BOT, "started_ts": seen.now,
    }  # fmt: skip
    assert not seen.state.live
    assert not those(PostCard, effects)
    assert the(Record, effects).act == "start"
    assert seen.outcome(HOST, "start", new_stage=S1) == "already-live"  # it is on its way
    room.put(c.STAGE, "", write.content, BOT)
    seen.tell(Written(write.write_id, None))
    assert PostCard() in seen.tell(room.at(c.STAGE, ""))
    assert seen.heard() == {HOST}
    assert seen.state.kept_for == S2


def test_a_start_without_an_id_does_nothing_but_answers() -> None:
    seen = watch(no_stage())
    assert seen.outcome(HOST, "start") == "ok done-start"
    assert not writes(seen.said, c.STAGE)


def test_after_an_end_another_can_start() -> None:
    room = hall()
    seen = watch(room)
    seen.ask(HOST, "end")
    assert writes(seen.ask(HOST, "start", new_stage=S2), c.STAGE)[0].content["stage_id"] == S2


@pytest.mark.parametrize(
    ("public", "policy", "guests"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_guests_come_where_the_room_is_public_or_the_operator_says_so(public: bool, policy: bool, guests: bool) -> None:
    room = no_stage()
    room.put(c.JOIN_RULES, "", {"join_rule": "public" if public else "invite"})
    seen = watch(room, Policy(guests=policy))
    assert writes(seen.ask(HOST, "start", new_stage=S1), c.STAGE)[0].content["guests"] is guests


@pytest.mark.parametrize(
    ("power", "who", "answer"),
    [
        ({}, HOST, OK), ({}, ADMIN, OK), ({}, AVA, NM),
        ({"events": {c.ROLE: 0}}, ADMIN, "roles-open"), ({"users_default": 50}, ADMIN, "roles-open"),
        ({"events": {c.ROLE: 49}}, ADMIN, "roles-open"), ({"kick": 51}, ADMIN, "roles-open"), ({"kick": 49}, ADMIN, OK),
        ({"events": {c.ROLE: 51}}, HOST, NM), ({"events": {c.STAGE: 51}}, HOST, NM),
        ({"events": {c.ROLE: 51}}, ADMIN, "bot-needs-power"), ({"events": {c.STAGE: 51}}, ADMIN, "bot-needs-power"),
        ({"users": {ADMIN: 100}}, ADMIN, "bot-needs-power"),
        ({"users": {ADMIN: 100, BOT: 49}}, ADMIN, "bot-needs-power"),
        ({"users": {ADMIN: 100, BOT: 50}}, ADMIN, OK),
    ],
)  # fmt: skip
def test_where_a_stage_may_start(power: dict[str, Any], who: UserId, answer: str) -> None:
    said = watch(no_stage(**power)).outcome(who, "start", new_stage=S1)
    assert (OK if said.startswith("ok ") else said) == answer


def test_a_refused_start_says_what_an_administrator_must_do() -> None:
    answer = the(Answer, watch(no_stage(kick=60)).ask(ADMIN, "start", new_stage=S1))
    assert answer.args == {"level": 50, "kick": 60}
    answer = the(Answer, watch(no_stage(users={ADMIN: 100})).ask(ADMIN, "start", new_stage=S1))
    assert answer.args == {"bot": BOT, "level": 50}


def test_no_stage_in_a_room_without_power_levels() -> None:
    room = hall(stage=False)
    del room.state[c.POWER_LEVELS, ""]
    assert watch(room).outcome(ADMIN, "start", new_stage=S1) == "roles-open"


@pytest.mark.parametrize("hint", [True, False])
def test_no_stage_in_an_encrypted_room(hint: bool) -> None:
    room = no_stage()
    seen = watch(room)
    event = room.put(c.ENCRYPTION, "", {"algorithm": "m.megolm.v1.aes-sha2"})
    seen.tell(StateHint(event) if hint else room.read())
    assert seen.outcome(ADMIN, "start", new_stage=S1) == "encrypted"


@pytest.mark.parametrize(("level", "answer"), [(Permission.speak, "not-permitted"), (Permission.host, "ok done-start")])
def test_who_may_host_is_the_operators_to_say(level: Permission, answer: str) -> None:
    seen = watch(no_stage(), Policy(permissions={"*": Permission.host, "a.org": level}))
    assert seen.outcome(ADMIN, "start", new_stage=S1) == answer


def test_the_topic_changes_nothing_else() -> None:
    seen = watch(hall())
    (write,) = writes(seen.ask(HOST, "topic", text="x" * 300), c.STAGE)
    assert write.content == {
        **stage_body(),
        "topic": "x" * c.TOPIC_LENGTH,
        "hands": "everyone",
        "speaker_limit": 20,
        "guests": False,
    }
    assert seen.tell(Written(write.write_id, None))[0].key == ""  # type: ignore[union-attr]


def test_the_language_is_written_into_the_stage_and_kept_for_the_next() -> None:
    room = hall()
    seen = watch(room)
    said = seen.ask(HOST, "language", text="fa", ref="$cmd")
    assert the(Answer, said) == Answer("$cmd", True, "done-language", {"language": "fa"})
    (written,) = writes(said, c.STAGE)
    assert written.content["language"] == "fa"
    seen.learn(room, room.put(c.STAGE, "", {**written.content, "status": "ended"}))
    started = seen.ask(HOST, "start", new_stage=S2)
    assert writes(started, c.STAGE)[0].content["language"] == "fa"


@pytest.mark.parametrize(("words", "language"), [(True, "fa"), (False, None)])
def test_a_stage_that_is_started_in_persian_words_speaks_persian(words: bool, language: str | None) -> None:
    room = hall()
    seen = watch(room)
    seen.learn(room, room.put(c.STAGE, "", {}))
    started = seen.ask(HOST, "start", new_stage=S2, in_persian=words)
    assert writes(started, c.STAGE)[0].content.get("language") == language


def test_how_it_sounds_is_written_into_the_stage_and_can_be_taken_back() -> None:
    room = hall()
    seen = watch(room)
    for sound, kept in (("music", {"music": True}), ("low", {"low": True}), ("voice", {})):
        said = seen.ask(HOST, "sound", text=sound, ref="$cmd")
        assert the(Answer, said) == Answer("$cmd", True, "done-sound", {"sound": sound})
        (write,) = writes(said, c.STAGE)
        shown = {name: value for name, value in write.content.items() if name in ("music", "low")}
        assert shown == kept
        seen.learn(room, room.put(c.STAGE, "", write.content))
        assert seen.state.stage is not None
        assert seen.state.stage.sound == sound
    assert writes(seen.ask(HOST, "sound", text="voice"), c.STAGE) == []  # as it is already
    assert seen.outcome(HOST, "sound", text="loud") == "which-sound"


def test_status_and_hands_are_told() -> None:
    seen = watch(hall())
    seen.ask(BEN, "raise", text="why")
    seen.tell(Present(BEN, 1), Present(AVA, 1), Present(CYD, 1))
    status = the(Answer, seen.ask(BEN, "status"))
    assert status.text == "status-live"
    assert status.args == {"topic": "", "speakers": "Hos, Coh, Ava", "hands": 1, "listeners": 2}
    answer = the(Answer, seen.ask(MOD, "hands"))
    assert (answer.text, answer.args) == ("hands-list", {"count": 1, "list": f"1. Ben ({BEN}): why"})
    seen.ask(BEN, "lower")
    seen.ask(CYD, "raise")
    assert the(Answer, seen.ask(MOD, "hands")).args["list"] == f"1. Cyd ({CYD})"
    seen.ask(CYD, "lower")
    assert seen.outcome(MOD, "hands") == "ok hands-none"
    assert watch(hall(stage=False)).outcome(BEN, "status") == "ok status-none"
    quiet = hall()
    quiet.role(HOST, role_body("listener"))
    quiet.role(COHOST, {})
    quiet.role(AVA, {})
    assert the(Answer, watch(quiet).ask(BEN, "status")).args["speakers"] == "–"


def test_links_are_ones_own() -> None:
    seen = watch(hall())
    assert seen.ask(BEN, "link", ref="$c") == [SendLink(BEN, "$c")]
    assert RevokeLinks(BEN) in seen.ask(BEN, "revoke_links")
    assert RevokeLinks(BEN) in watch(hall(stage=False)).ask(BEN, "revoke_links")


def test_what_the_page_asks_of_the_rules() -> None:
    seen = watch(hall())
    assert why_no_hand(seen.state, BEN) is None
    assert why_no_hand(seen.state, AVA) == "on-stage-already"
    assert why_no_hand(watch(hall(stage=False)).state, BEN) == "no-stage"
    room = hall()
    room.put(c.STAGE, "", stage_body(bot=MOD))
    assert why_no_hand(watch(room).state, BEN) == "other-bot"
    assert seen.tell(Asked(BEN, "help", "web")) == []
