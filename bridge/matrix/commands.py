"""Events of a room → inputs of its stage: state, bot commands, reactions, redactions. English and Persian.

A command's first word chooses an act from a table, so a new command is a row. ``translate`` is pure but for fresh stage
ids; it never raises: an event that says nothing to a stage gives no input.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from bridge.errors import BadInput
from bridge.ids import EventId, UserId, new_stage_id, parse_user
from bridge.live.ports import InboxRow
from bridge.live.reply import Reply
from bridge.rules.content import (
    HAND,
    WATCHED,
    is_call_emoji,
    is_encodable,
    is_hand_emoji,
    parse_hand,
    state_event,
)
from bridge.rules.inputs import ActName, Asked, Input, Reacted, Redacted, StateHint

log = logging.getLogger(__name__)

MAX_AGE_MS = 60_000  # a message or reaction that comes later is not carried out; state has no age
MAX_COMMAND = 2000  # characters

_STAGE_WORDS: dict[str, ActName] = {
    "start": "start", "آغاز": "start", "شروع": "start",
    "end": "end", "پایان": "end",
    "status": "status", "وضعیت": "status",
    "topic": "topic", "موضوع": "topic",
    "sound": "sound", "صدا": "sound",
    "language": "language", "زبان": "language",
    "speaker": "bring_up", "سخنران": "bring_up",
    "listener": "to_audience", "شنونده": "to_audience",
    "moderator": "make_moderator", "گرداننده": "make_moderator",
    "invite": "invite", "دعوت": "invite",
    "ring": "ring", "زنگ": "ring",
    "mute": "mute", "بی‌صدا": "mute",
    "unmute": "unmute", "باصدا": "unmute",
    "kick": "kick", "بیرون": "kick",
    "link": "link", "join": "link", "help": "help",
}  # fmt: skip
_WORDS: dict[str, ActName] = {
    "hand": "raise", "دست": "raise",
    "lower": "lower", "پایین": "lower",
    "hands": "hands", "دست‌ها": "hands",
    "link": "link", "پیوند": "link",
    "call": "call", "تماس": "call",
    "accept": "accept", "می‌آیم": "accept",
    "decline": "decline", "نه": "decline",
    "help": "help", "راهنما": "help",
}  # fmt: skip
_STAGE = frozenset({"stage", "نشست", "eyvan"})
_REVOKE = frozenset({"revoke", "باطل"})
_SOUNDS = {
    "voice": "voice", "گفتار": "voice",
    "music": "music", "موسیقی": "music",
    "low": "low", "کم‌حجم": "low", "کم": "low",
}  # fmt: skip
_LANGUAGES = {
    "en": "en", "english": "en", "انگلیسی": "en",
    "fa": "fa", "persian": "fa", "farsi": "fa", "فارسی": "fa",
}  # fmt: skip
_PERSIAN = re.compile("[\u0600-\u06ff]")
_PLAYER = frozenset({"whep", "player", "stream", "پخش"})
_ABOUT_SOMEBODY: frozenset[ActName] = frozenset(
    {"bring_up", "to_audience", "make_moderator", "invite", "mute", "unmute", "kick", "ring"}
)


_NO_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F])
"""Marks of direction, which come along when a command is copied out of a text."""

_SAME_LETTER = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک", "\u200c": None, "\u200d": None, "ـ": None})


def _bare(word: str) -> str:
    """A word as the tables know it: people write the zero-width non-joiner, the Arabic yeh and kaf, or not."""
    return word.casefold().translate(_SAME_LETTER)


_BARE_WORDS = {_bare(word): act for word, act in _WORDS.items()}
_BARE_SOUNDS = {_bare(word): sound for word, sound in _SOUNDS.items()}
_BARE_LANGUAGES = {_bare(word): language for word, language in _LANGUAGES.items()}
_BARE_STAGE_WORDS = {_bare(word): act for word, act in _STAGE_WORDS.items()}
_IN_TWO = {_bare(word) for word in (*_WORDS, *_STAGE_WORDS) if "\u200c" in word}
"""Words that are also written in two, such as ``می آیم``."""


def _first_word(text: str) -> tuple[str, str]:
    """(first word as the tables know it, what comes after)."""
    words = text.split(maxsplit=2)
    if len(words) > 1 and (both := _bare(words[0] + words[1])) in _IN_TWO:
        return both, words[2].strip() if len(words) > 2 else ""
    parts = text.split(maxsplit=1)
    return (_bare(parts[0]) if parts else ""), parts[1].strip() if len(parts) > 1 else ""


@dataclass(frozen=True, slots=True)
class Translator:
    """``bot``: whose own messages and reactions say nothing. ``own_server``: whose events carry our server's clock."""

    bot: UserId
    prefix: str
    own_server: str

    def translate(self, row: InboxRow, now_ms: int) -> list[Input | Reply]:
        """What an event says to the stage of its room. A command gives exactly one input, or a Reply that says why it
        gives none."""
        event = row.event
        try:
            if "state_key" in event:
                parsed = state_event(event)
                return [StateHint(parsed)] if parsed.kind in WATCHED else []
            if event.get("sender") == self.bot:
                return []
            return self._message(event, self.age_ms(row, now_ms))
        except BadInput as bad:
            log.warning(
                "room %s event %s (%s) is passed over: %s",
                event.get("room_id"), event.get("event_id"), event.get("type"), bad,
            )  # fmt: skip
            return []

    def wanted(self, event: Mapping[str, Any]) -> bool:
        """Whether an event says anything to a stage: all others are not even kept. Never raises."""
        kind, content = event.get("type"), event.get("content")
        if "state_key" in event:
            return kind in WATCHED
        if event.get("sender") == self.bot:
            return False
        if kind == "m.room.message":
            return isinstance(content, Mapping) and self._command_text(content) is not None
        return kind in ("m.reaction", "m.room.redaction", HAND)

    def age_ms(self, row: InboxRow, now_ms: int) -> int:
        """By our homeserver's receipt: ``origin_server_ts`` is that only for its own users; for others it is the
        sender's claim, so what counts is when the transaction came to us."""
        stamped = row.event.get("origin_server_ts")
        own = str(row.event.get("sender", "")).endswith(":" + self.own_server)
        received = min(row.received_ms, stamped) if own and isinstance(stamped, int) else row.received_ms
        return now_ms - received

    def _message(self, event: Mapping[str, Any], age_ms: int) -> list[Input | Reply]:
        kind, content = event.get("type"), event.get("content")
        sender, event_id = _user(event.get("sender"), "sender"), EventId(str(event.get("event_id")))
        if kind == "m.room.redaction":
            # ``redacts`` stands in the content from room version 11 on
            places = (event, content if isinstance(content, Mapping) else {})
            target = next((each["redacts"] for each in places if isinstance(each.get("redacts"), str)), None)
            return [Redacted(EventId(target), sender)] if target else []
        if not isinstance(content, Mapping):
            return []
        late = Reply(event_id, sender, "too-old", {"seconds": age_ms // 1000}) if age_ms > MAX_AGE_MS else None
        if kind == "m.reaction":
            return _reaction(content, sender, event_id, late)
        if kind == HAND:
            raised, note = parse_hand(content)
            ask = Asked(sender, "raise" if raised else "lower", "event", text=note, event_id=event_id)
            return [late or ask]
        said = self._command_text(content) if kind == "m.room.message" else None
        return [] if said is None else self._command(said, content, sender, event_id, late)

    def _command_text(self, content: Mapping[str, Any]) -> str | None:
        """What a message says after the prefix; None where it is no command."""
        body = content.get("body")
        if content.get("msgtype") != "m.text" or _relates(content).get("rel_type") == "m.replace":
            return None  # an edited command is not a second one
        if not isinstance(body, str) or len(body) > 10 * MAX_COMMAND or not is_encodable(body):
            return None
        body = _without_fallback(body, content).translate(_NO_BIDI)
        if not body.startswith(self.prefix) or len(body) > MAX_COMMAND:
            return None
        said = body[len(self.prefix) :]
        return None if said.startswith(self.prefix) else said  # ``!!`` is another bot's

    def _command(
        self, said: str, content: Mapping[str, Any], sender: UserId, event_id: EventId, late: Reply | None
    ) -> list[Input | Reply]:
        first, rest = _first_word(said)
        word = first
        act = _BARE_WORDS.get(first)
        if first in _STAGE:
            word, rest = _first_word(rest)
            act = _BARE_STAGE_WORDS.get(word) if word else "status"
            if act is None:
                return [late or Reply(event_id, sender, "unknown-command")]
        if act is None:
            return []  # another bot's command
        if late:
            return [late]
        if act == "link" and _bare(rest) in _REVOKE:
            act = "revoke_links"
        elif act == "link" and _bare(rest) in _PLAYER:
            act = "link_player"
        elif act == "sound":
            rest = _BARE_SOUNDS.get(_bare("".join(rest.split())), rest)
        elif act == "language":
            rest = _BARE_LANGUAGES.get(_bare(rest), rest)
        target = None
        if act in _ABOUT_SOMEBODY:
            target, rest = _target(content, rest, sender if act == "to_audience" else None)
        new_stage = new_stage_id() if act == "start" else None
        in_persian = _PERSIAN.search(word) is not None
        return [Asked(sender, act, "command", event_id, target, rest, new_stage, event_id, in_persian)]


def _relates(content: Mapping[str, Any]) -> Mapping[str, Any]:
    relates = content.get("m.relates_to")
    return relates if isinstance(relates, Mapping) else {}


def _is_reply(content: Mapping[str, Any]) -> bool:
    return "m.in_reply_to" in _relates(content)


def _without_fallback(body: str, content: Mapping[str, Any]) -> str:
    """Replies of older clients quote what they answer before what they say (client-server API v1.12, "Fallbacks for
    rich replies")."""
    if not _is_reply(content) or not body.startswith("> "):
        return body
    lines = body.split("\n")
    while lines and lines[0].startswith(">"):
        lines.pop(0)
    return "\n".join(lines).lstrip("\n")


def _reaction(content: Mapping[str, Any], sender: UserId, event_id: EventId, late: Reply | None) -> list[Input | Reply]:
    relates = _relates(content)
    target = relates.get("event_id")
    if relates.get("rel_type") != "m.annotation" or not isinstance(target, str):
        return []
    is_hand, is_call = is_hand_emoji(relates.get("key")), is_call_emoji(relates.get("key"))
    if not is_hand and not is_call:
        return []
    if late:
        return [Reply(late.to, late.user, late.key, late.args, about=EventId(target))]
    return [Reacted(EventId(target), sender, event_id, "raise" if is_hand else "call")]


_PILL = re.compile(r"""href=["'](?:https://matrix\.to/#/(?:@|%40)|matrix:u(?:ser)?/@?)([^"'?/]+)""", re.IGNORECASE)
_QUOTE = re.compile(r"<mx-reply>.*?</mx-reply>", re.DOTALL | re.IGNORECASE)


def _pills(content: Mapping[str, Any]) -> list[str]:
    """User ids that the message links to, without those it only quotes; each once, in order."""
    formatted = content.get("formatted_body")
    if not isinstance(formatted, str) or len(formatted) > 20 * MAX_COMMAND:
        return []
    found = _PILL.findall(_QUOTE.sub("", formatted))
    return list(dict.fromkeys("@" + unquote(html.unescape(each)) for each in found))


def _target(content: Mapping[str, Any], rest: str, default: UserId | None) -> tuple[UserId | None, str]:
    """Whom a command is about, and the words after. None: nobody can tell.

    A client writes a mention as the name that the person chose, with a link behind it. The link counts: a name may
    look like somebody else's id. ``m.mentions`` alone counts only outside replies, where it may also hold the person
    who is answered."""
    words = rest.split(maxsplit=1)
    after = words[1] if len(words) > 1 else ""
    first = words[0].strip(",;") if words else ""
    written = _maybe_user(first.rstrip(":") if first.count(":") > 1 else first)
    pills = _pills(content)
    if len(pills) == 1:
        linked = _maybe_user(pills[0])
        return linked, after if written == linked else _after_name(rest)
    if not words:
        return default, ""
    if written:
        return written, after
    mentions = content.get("m.mentions")
    listed = mentions.get("user_ids") if isinstance(mentions, Mapping) else None
    if isinstance(listed, list) and len(listed) == 1 and not _is_reply(content):
        return _maybe_user(listed[0]), _after_name(rest)
    return None, rest


def _after_name(rest: str) -> str:
    """A reason can stand behind a mention whose name ends with a colon, as clients write it at a line's start; else
    nobody can tell the name from the reason."""
    name, colon, reason = rest.partition(": ")
    return reason.strip() if colon and name else ""


def _user(value: object, field: str) -> UserId:
    """JSON can hold half a surrogate pair, which no id can."""
    if isinstance(value, str) and not is_encodable(value):
        raise BadInput(field, value, "give a full Matrix user id such as @ava:example.org")
    return parse_user(value, field)


def _maybe_user(value: object) -> UserId | None:
    try:
        return _user(value, "user")
    except BadInput:
        return None
