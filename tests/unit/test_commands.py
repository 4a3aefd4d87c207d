"""What people write → what a stage is asked, in English and Persian, as real clients send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bridge.ids import UserId
from bridge.live.reply import Reply
from bridge.matrix.commands import MAX_AGE_MS, Translator
from bridge.rules.inputs import Asked, Input, Reacted, Redacted, StateHint

BOT = UserId("@eyvan:a.org")
ME = UserId("@me:a.org")
FAR = UserId("@far:b.org")
AVA = UserId("@ava:b.org")
NOW = 1_800_000_000_000
TRANSLATOR = Translator(BOT, "!", "a.org")


@dataclass
class Row:
    event: dict[str, Any]
    received_ms: int = NOW
    row: int = 1


def event(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    given = {"type": kind, "content": content, "sender": ME, "event_id": "$e", "room_id": "!r:a.org"}
    return {**given, "origin_server_ts": NOW, **more}


def read(given: dict[str, Any], *, now: int = NOW, received: int = NOW, by: Translator = TRANSLATOR) -> list[Any]:
    inputs: list[Input | Reply] = by.translate(Row(given, received), now)
    assert by.wanted(given) or not inputs, "what says something must be kept"
    return list(inputs)


def say(body: object, **content: Any) -> list[Any]:
    return read(event("m.room.message", {"msgtype": "m.text", "body": body, **content}))


def ask(body: object, **content: Any) -> Asked:
    """The one request of a message."""
    (only,) = say(body, **content)
    assert isinstance(only, Asked)
    return only


def short(asked: Asked) -> tuple[str, str | None, str]:
    return asked.act, asked.target, asked.text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (event("m.room.message", {"msgtype": "m.text", "body": "what people say to each other"}), False),
        (event("m.room.message", {"msgtype": "m.text", "body": "!link"}), True),
        (event("m.room.message", {"msgtype": "m.text", "body": "!link"}, sender=BOT), False),
        (event("m.room.message", {"msgtype": "m.notice", "body": "!link"}), False),
        (event("m.room.message", {"msgtype": "m.image", "body": "!.png"}), False),
        (event("m.room.message", {"body": ["!"], "msgtype": "m.text"}), False),
        (event("m.room.message", None), False),
        (event("m.room.encrypted", {"ciphertext": "!"}), False),
        (event("m.reaction", {}), True),
        (event("m.reaction", {}, sender=BOT), False),
        (event("m.room.redaction", {}), True),
        (event("im.eyvan.hand", {"raised": True}), True),
        (event("m.room.topic", {"topic": "!"}, state_key=""), False),
        (event("m.room.member", {"membership": "invite"}, state_key=BOT), True),
        (event("im.eyvan.role", {}, state_key="_@me:a.org", sender=BOT), True),
        ({"type": ["m.room.message"], "sender": 7}, False),
    ],
)
def test_what_is_kept_at_all(given: dict[str, Any], wanted: bool) -> None:
    assert TRANSLATOR.wanted(given) is wanted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("!stage start", ("start", None, "")),
        ("!stage start An evening of poems", ("start", None, "An evening of poems")),
        ("!STAGE  Start   An  evening ", ("start", None, "An  evening")),
        ("!نشست آغاز شب شعر", ("start", None, "شب شعر")),
        ("!نشست شروع", ("start", None, "")),
        ("!stage شروع", ("start", None, "")),
        ("!stage end", ("end", None, "")),
        ("!نشست پایان", ("end", None, "")),
        ("!نشست پايان", ("end", None, "")),  # Arabic yeh
        ("!stage", ("status", None, "")),
        ("!eyvan", ("status", None, "")),
        ("!stage status", ("status", None, "")),
        ("!نشست وضعیت", ("status", None, "")),
        ("!stage topic خانه و باغ", ("topic", None, "خانه و باغ")),
        ("!نشست موضوع باغ", ("topic", None, "باغ")),
        ("!stage sound music", ("sound", None, "music")),
        ("!stage sound  LOW ", ("sound", None, "low")),
        ("!نشست صدا موسيقي", ("sound", None, "music")),
        ("!نشست صدا کم‌حجم", ("sound", None, "low")),
        ("!نشست صدا کم حجم", ("sound", None, "low")),
        ("!نشست صدا گفتار", ("sound", None, "voice")),
        ("!stage language Persian", ("language", None, "fa")),
        ("!نشست زبان انگلیسی", ("language", None, "en")),
        ("!stage language de", ("language", None, "de")),
        ("!stage sound", ("sound", None, "")),
        ("!stage sound very loud", ("sound", None, "very loud")),
        ("!stage speaker @ava:b.org", ("bring_up", AVA, "")),
        ("!نشست سخنران @ava:b.org", ("bring_up", AVA, "")),
        ("!stage speaker @ava:b.org, welcome", ("bring_up", AVA, "welcome")),
        ("!stage speaker @ava:b.org:", ("bring_up", AVA, "")),
        ("!stage speaker \u2066@ava:b.org\u2069", ("bring_up", AVA, "")),  # isolated in a Persian line
        ("\u200e!stage\u200e mute \u200e@ava:b.org\u200e", ("mute", AVA, "")),  # copied out of a Persian text
        ("\u2068!\u2069link", ("link", None, "")),
        ("!stage speaker", ("bring_up", None, "")),
        ("!stage speaker Ava", ("bring_up", None, "Ava")),
        ("!stage mute @ava:b.org:8448 too loud", ("mute", "@ava:b.org:8448", "too loud")),
        ("!نشست بی‌صدا @ava:b.org", ("mute", AVA, "")),
        ("!نشست بیصدا @ava:b.org", ("mute", AVA, "")),
        ("!نشست بی صدا @ava:b.org بلند", ("mute", AVA, "بلند")),
        ("!stage unmute @ava:b.org", ("unmute", AVA, "")),
        ("!نشست باصدا @ava:b.org", ("unmute", AVA, "")),
        ("!stage kick @ava:b.org spam", ("kick", AVA, "spam")),
        ("!نشست بیرون @ava:b.org", ("kick", AVA, "")),
        ("!stage listener @ava:b.org", ("to_audience", AVA, "")),
        ("!نشست شنونده @ava:b.org", ("to_audience", AVA, "")),
        ("!stage listener", ("to_audience", ME, "")),
        ("!stage listener Ava", ("to_audience", None, "Ava")),  # never oneself by mistake
        ("!stage invite @ava:b.org", ("invite", AVA, "")),
        ("!نشست دعوت @ava:b.org", ("invite", AVA, "")),
        ("!stage moderator @ava:b.org", ("make_moderator", AVA, "")),
        ("!نشست گرداننده @ava:b.org", ("make_moderator", AVA, "")),
        ("!hand", ("raise", None, "")),
        ("!hand about the second point", ("raise", None, "about the second point")),
        ("!دست", ("raise", None, "")),
        ("!دست یک پرسش", ("raise", None, "یک پرسش")),
        ("!lower", ("lower", None, "")),
        ("!پایین", ("lower", None, "")),
        ("!hands", ("hands", None, "")),
        ("!دست‌ها", ("hands", None, "")),
        ("!دستها", ("hands", None, "")),
        ("!دست ها", ("hands", None, "")),
        ("!link", ("link", None, "")),
        ("!stage link", ("link", None, "")),
        ("!stage join", ("link", None, "")),
        ("!پیوند", ("link", None, "")),
        ("!link revoke", ("revoke_links", None, "revoke")),
        ("!link whep", ("link_player", None, "whep")),
        ("!link player", ("link_player", None, "player")),
        ("!پیوند پخش", ("link_player", None, "پخش")),
        ("!link REVOKE", ("revoke_links", None, "REVOKE")),
        ("!پیوند باطل", ("revoke_links", None, "باطل")),
        ("!call", ("call", None, "")),
        ("!تماس", ("call", None, "")),
        ("!stage ring @ava:b.org", ("ring", AVA, "")),
        ("!نشست زنگ @ava:b.org", ("ring", AVA, "")),
        ("!accept", ("accept", None, "")),
        ("!می‌آیم", ("accept", None, "")),
        ("!میآیم", ("accept", None, "")),
        ("!می آیم", ("accept", None, "")),
        ("!decline", ("decline", None, "")),
        ("!نه", ("decline", None, "")),
        ("!help", ("help", None, "")),
        ("!stage help", ("help", None, "")),
        ("!راهنما", ("help", None, "")),
    ],
)
def test_commands(body: str, expected: tuple[str, str | None, str]) -> None:
    asked = ask(body)
    assert short(asked) == expected
    assert (asked.actor, asked.via, asked.ref, asked.event_id) == (ME, "command", "$e", "$e")
    assert (asked.new_stage is not None) == (asked.act == "start")


@pytest.mark.parametrize(
    "body",
    [
        "hand", "", "!", "! ", "!!hand", "!!stage start", "!roll 2d6", "!handy", "!stagecoach", " !hand", "> !hand",
        "! " * 3000, "!hand " + "x" * 2000, None, 7, ["!hand"], "!hand \ud800",
    ],
)  # fmt: skip
def test_what_is_no_command_says_nothing(body: object) -> None:
    assert say(body) == []


def test_an_unknown_word_after_stage_is_answered() -> None:
    assert say("!stage explode") == [Reply(to="$e", user=ME, key="unknown-command")]  # type: ignore[arg-type]


def test_another_prefix() -> None:
    other = Translator(BOT, "ایوان،", "a.org")
    body = {"msgtype": "m.text", "body": "ایوان، دست"}
    (asked,) = read(event("m.room.message", body), by=other)
    assert asked.act == "raise"
    assert read(event("m.room.message", {"msgtype": "m.text", "body": "!hand"}), by=other) == []


@pytest.mark.parametrize(
    "given",
    [
        event("m.room.message", {"msgtype": "m.notice", "body": "!hand"}),  # bots
        event("m.room.message", {"msgtype": "m.emote", "body": "!hand"}),
        event("m.room.message", {"msgtype": "m.text", "body": "!hand"}, sender=BOT),
        event("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$c", "key": "✋"}}, sender=BOT),
        event("m.room.message", {"msgtype": "m.text", "body": "!hand", "m.relates_to": {"rel_type": "m.replace"}}),
        event("m.room.message", {"body": "!hand"}),
        event("m.room.message", {}),
        event("m.room.message", []),
        event("m.room.message", None),
        event("m.room.encrypted", {"ciphertext": "!hand"}),
        event("m.room.topic", {"topic": "!hand"}, state_key=""),
        event("m.room.member", [], state_key="@x:y"),
        event("im.eyvan.hand", {"raised": "yes"}),
        event("m.room.message", {"msgtype": "m.text", "body": "!hand"}, sender="nobody"),
        event("m.room.message", {"msgtype": "m.text", "body": "!hand"}, sender="@\ud800:a.org"),
    ],
)
def test_what_is_passed_over(given: dict[str, Any]) -> None:
    assert read(given) == []


@pytest.mark.parametrize("relates", [None, [], "x", 5, {"rel_type": 7}, {"m.in_reply_to": None}, {"event_id": 1}])
def test_a_strange_relation_is_none(relates: Any) -> None:
    assert ask("!hand", **{"m.relates_to": relates}).act == "raise"
    assert read(event("m.reaction", {"m.relates_to": relates})) == []


def test_in_a_thread_and_as_a_reply() -> None:
    assert ask("!hand", **{"m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}}).act == "raise"
    reply = {"m.relates_to": {"m.in_reply_to": {"event_id": "$x"}}}
    assert short(ask("> <@far:b.org> !stage end\n> more\n\n!hand a note", **reply)) == ("raise", None, "a note")
    assert say("> <@far:b.org> !stage end\n\nno", **reply) == []
    assert say("> !stage end\n\n!hand") == [], "a quote that is no reply is somebody's words"


PILL = '<a href="{}">Ava</a>'


@pytest.mark.parametrize(
    "href",
    [
        "https://matrix.to/#/@ava:b.org",
        "https://matrix.to/#/%40ava%3Ab.org",
        "https://matrix.to/#/@ava:b.org?via=b.org&amp;via=c.org",
        "matrix:u/ava:b.org",
        "matrix:u/ava%3Ab.org?action=chat",
        "matrix:user/ava:b.org",
        "HTTPS://MATRIX.TO/#/@ava:b.org",
    ],
)
@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_mention_is_a_link(href: str, quote: str) -> None:
    formatted = f"!stage mute <a href={quote}{href}{quote}>Ava B</a>: too loud"
    asked = ask("!stage mute Ava B: too loud", formatted_body=formatted, format="org.matrix.custom.html")
    assert short(asked) == ("mute", AVA, "too loud")


def test_the_link_counts_and_not_the_name() -> None:
    """A person may call themselves like somebody else's id."""
    formatted = "!stage speaker " + '<a href="https://matrix.to/#/@ava:b.org">@me:a.org</a>'
    assert ask("!stage speaker @me:a.org", formatted_body=formatted).target == AVA


def test_a_link_to_the_id_that_is_written() -> None:
    formatted = '!stage kick <a href="https://matrix.to/#/@ava:b.org">@ava:b.org</a> spam'
    assert short(ask("!stage kick @ava:b.org spam", formatted_body=formatted)) == ("kick", AVA, "spam")


@pytest.mark.parametrize(
    "href", ["https://matrix.to/#/!room:b.org", "https://matrix.to/#/%23alias:b.org", "matrix:r/alias:b.org", "https://x/@ava:b.org"]
)  # fmt: skip
def test_links_to_other_things_are_nobody(href: str) -> None:
    assert ask("!stage mute Ava", formatted_body=PILL.format(href)).target is None


def test_two_links_are_nobody() -> None:
    both = PILL.format("https://matrix.to/#/@ava:b.org") + PILL.format("https://matrix.to/#/@far:b.org")
    assert ask("!stage mute Ava Far", formatted_body=both).target is None
    twice = PILL.format("https://matrix.to/#/@ava:b.org") * 2
    assert ask("!stage mute Ava Ava", formatted_body=twice).target == AVA


def test_a_link_that_is_no_user_is_nobody() -> None:
    assert ask("!stage mute Ava", formatted_body=PILL.format("https://matrix.to/#/@ava")).target is None


def test_mentions_without_a_link() -> None:
    mentions = {"m.mentions": {"user_ids": [AVA]}}
    assert ask("!stage speaker Ava", **mentions).target == AVA
    assert ask("!stage speaker Ava", **{"m.mentions": {"user_ids": [AVA, FAR]}}).target is None
    strange_ones: list[Any] = [[], {"user_ids": "x"}, {"user_ids": [7]}, {"user_ids": ["\ud800"]}, 5]
    for strange in strange_ones:
        assert ask("!stage speaker Ava", **{"m.mentions": strange}).target is None


def test_in_a_reply_the_person_answered_is_not_meant() -> None:
    """Replies mention whom they answer (client-server API, "User and room mentions")."""
    reply = {"m.relates_to": {"m.in_reply_to": {"event_id": "$x"}}, "m.mentions": {"user_ids": [FAR]}}
    assert ask("!stage speaker Ava", **reply).target is None
    quote = '<mx-reply><blockquote><a href="https://matrix.to/#/@far:b.org">Far</a></blockquote></mx-reply>'
    formatted = quote + "!stage speaker " + PILL.format("https://matrix.to/#/@ava:b.org")
    assert ask("!stage speaker Ava", formatted_body=formatted, **reply).target == AVA


# -- time ---------------------------------------------------------------------------------------


def test_too_old_is_not_carried_out_and_said() -> None:
    given = event("m.room.message", {"msgtype": "m.text", "body": "!stage end"}, sender=FAR)
    assert isinstance(read(given, now=NOW + MAX_AGE_MS)[0], Asked)
    late = read(given, now=NOW + MAX_AGE_MS + 1000)
    assert late == [Reply("$e", FAR, "too-old", {"seconds": 61})]  # type: ignore[arg-type]
    for words in ("good morning", "!roll", "!!hand"):
        body = {"msgtype": "m.text", "body": words}
        assert read(event("m.room.message", body), now=NOW + 10 * MAX_AGE_MS) == []


def test_the_clock_of_another_server_does_not_count() -> None:
    body = {"msgtype": "m.text", "body": "!hand"}
    slow = event("m.room.message", body, sender=FAR, origin_server_ts=NOW - 3_600_000)
    assert isinstance(read(slow)[0], Asked)
    fast = event("m.room.message", body, sender=FAR, origin_server_ts=NOW + 3_600_000)
    assert isinstance(read(fast, now=NOW + 2 * MAX_AGE_MS)[0], Reply)


def test_our_own_servers_receipt_counts_where_the_transaction_came_late() -> None:
    mine = event("m.room.message", {"msgtype": "m.text", "body": "!hand"}, origin_server_ts=NOW - 120_000)
    assert isinstance(read(mine)[0], Reply)
    ahead = event("m.room.message", {"msgtype": "m.text", "body": "!hand"}, origin_server_ts=NOW + 9_000_000)
    assert isinstance(read(ahead, now=NOW + 2 * MAX_AGE_MS)[0], Reply)
    nonsense = event("m.room.message", {"msgtype": "m.text", "body": "!hand"}, origin_server_ts="soon")
    assert isinstance(read(nonsense)[0], Asked)


def test_state_has_no_age() -> None:
    given = event("im.eyvan.role", {"role": "speaker"}, state_key="_@ava:b.org")
    (hint,) = read(given, now=NOW + 100 * MAX_AGE_MS)
    assert isinstance(hint, StateHint)


# -- hands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["📞", "☎️", "📱"])
def test_a_telephone_on_the_card_asks_for_a_call(key: str) -> None:
    given = event("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$card", "key": key}})
    assert read(given) == [Reacted("$card", ME, "$e", "call")]  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["✋", "✋\ufe0f", "🖐", "🖐️", "🖐🏽", "🤚", "🤚🏿", "🙋", "🙋‍♀️", "🙋🏻‍♂️", "✋🏾"])
def test_hands_of_all_kinds(key: str) -> None:
    given = event("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$card", "key": key}})
    assert read(given) == [Reacted("$card", ME, "$e")]  # type: ignore[arg-type]
    (late,) = read(given, now=NOW + MAX_AGE_MS + 1)
    assert (late.key, late.about) == ("too-old", "$card")


@pytest.mark.parametrize("key", ["👍", "✊", "✋✋", "", None, 5, "✋" + "x" * 20])
def test_other_reactions_say_nothing(key: Any) -> None:
    relates = {"rel_type": "m.annotation", "event_id": "$card", "key": key}
    assert read(event("m.reaction", {"m.relates_to": relates})) == []


def test_a_hand_event() -> None:
    (up,) = read(event("im.eyvan.hand", {"raised": True, "note": "me"}))
    assert (up.act, up.text, up.via) == ("raise", "me", "event")
    (down,) = read(event("im.eyvan.hand", {}))
    assert down.act == "lower"


@pytest.mark.parametrize(
    "given",
    [
        event("m.room.redaction", {}, redacts="$gone"),
        event("m.room.redaction", {"redacts": "$gone"}),  # room version 11
        event("m.room.redaction", {"redacts": "$gone"}, redacts=7),
    ],
)
def test_redactions_in_both_forms(given: dict[str, Any]) -> None:
    assert read(given) == [Redacted("$gone", ME)]  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [{}, {"redacts": 5}, [], None])
def test_a_redaction_of_nothing(content: Any) -> None:
    assert read(event("m.room.redaction", content)) == []
