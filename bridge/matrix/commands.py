"""Events of a room → inputs of its stage: state, bot commands, reactions, redactions. English and Persian.

A command's first word chooses an act from a table, so a new command is a row. ``translate`` is pure but for fresh stage
ids; it never raises: an event that says nothing to a stage gives no input.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from bridge.errors import BadInput
from bridge.ids import EventId, UserId, new_stage_id, parse_user
from bridge.live.ports import InboxRow
from bridge.rules.content import HAND, WATCHED, is_hand_emoji, parse_hand, state_event
from bridge.rules.inputs import ActName, Asked, Input, Reacted, Redacted, StateHint

log = logging.getLogger(__name__)

MAX_AGE_MS = 60_000  # a message or reaction that comes later is not carried out; state has no age

_STAGE_WORDS: dict[str, ActName] = {
    "start": "start", "آغاز": "start", "شروع": "start",
    "end": "end", "پایان": "end",
    "status": "status", "وضعیت": "status",
    "topic": "topic", "موضوع": "topic",
    "speaker": "bring_up", "سخنران": "bring_up",
    "listener": "to_audience", "شنونده": "to_audience",
    "moderator": "make_moderator", "گرداننده": "make_moderator",
    "invite": "invite", "دعوت": "invite",
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
    "accept": "accept", "می‌آیم": "accept",
    "decline": "decline", "نه": "decline",
    "help": "help", "راهنما": "help",
}  # fmt: skip
_STAGE = ("stage", "نشست", "eyvan")
_ABOUT_SOMEBODY: frozenset[ActName] = frozenset(
    {"bring_up", "to_audience", "make_moderator", "invite", "mute", "unmute", "kick"}
)


@dataclass(frozen=True, slots=True)
class Translator:
    """``bot``: whose own messages and reactions say nothing. ``own_server``: whose events carry our server's clock."""

    bot: UserId
    prefix: str
    own_server: str

    def translate(self, row: InboxRow, now_ms: int) -> list[Input]:
        """What an event says to the stage of its room. A command always gives exactly one input."""
        event = row.event
        try:
            if "state_key" in event:
                parsed = state_event(event)
                return [StateHint(parsed)] if parsed.kind in WATCHED else []
            if event.get("sender") == self.bot:
                return []
            return self._message(event, self._age_ms(row, now_ms))
        except BadInput as bad:
            log.warning(
                "room %s event %s (%s) is passed over: %s",
                event.get("room_id"), event.get("event_id"), event.get("type"), bad,
            )  # fmt: skip
            return []

    def _age_ms(self, row: InboxRow, now_ms: int) -> int:
        """By our homeserver's receipt: ``origin_server_ts`` is that only for its own users; for others it is the
        sender's claim, so what counts is when the transaction came to us."""
        stamped = row.event.get("origin_server_ts")
        own = str(row.event.get("sender", "")).endswith(":" + self.own_server)
        received = min(row.received_ms, stamped) if own and isinstance(stamped, int) else row.received_ms
        return now_ms - received

    def _message(self, event: Mapping[str, Any], age_ms: int) -> list[Input]:
        kind, content = event.get("type"), event.get("content")
        sender, event_id = parse_user(event.get("sender"), "sender"), EventId(str(event.get("event_id")))
        if kind == "m.room.redaction":
            # ``redacts`` stands in the content from room version 11 on
            target = event.get("redacts") or (content.get("redacts") if isinstance(content, Mapping) else None)
            return [Redacted(EventId(target), sender)] if isinstance(target, str) else []
        if not isinstance(content, Mapping):
            return []
        if kind == "m.reaction":
            return _reaction(content, sender, event_id) if age_ms <= MAX_AGE_MS else []
        if kind == HAND:
            raised, note = parse_hand(content)
            if age_ms > MAX_AGE_MS:
                return []
            return [Asked(sender, "raise" if raised else "lower", "event", text=note, event_id=event_id)]
        if kind != "m.room.message" or content.get("msgtype") != "m.text":
            return []
        if (content.get("m.relates_to") or {}).get("rel_type") == "m.replace":
            return []  # an edited command is not a second one
        return self._command(content, sender, event_id, age_ms)

    def _command(self, content: Mapping[str, Any], sender: UserId, event_id: EventId, age_ms: int) -> list[Input]:
        body = content.get("body")
        if not isinstance(body, str) or not body.startswith(self.prefix) or len(body) > 2000:
            return []
        words = body[len(self.prefix) :].split(maxsplit=1)
        if not words or words[0].startswith(self.prefix):
            return []
        first, rest = words[0].lower(), words[1].strip() if len(words) > 1 else ""
        act = _WORDS.get(first)
        if first in _STAGE:
            parts = rest.split(maxsplit=1)
            act = _STAGE_WORDS.get(parts[0].lower()) if parts else "status"
            rest = parts[1].strip() if len(parts) > 1 else ""
            act = act or "help"
        if act is None or age_ms > MAX_AGE_MS:
            return []  # another bot's command, or one from before a pause
        if act == "link" and rest.lower() == "revoke":
            act = "revoke_links"
        target = None
        if act in _ABOUT_SOMEBODY:
            target, rest = _target(content, rest, sender if act == "to_audience" else None)
        new_stage = new_stage_id() if act == "start" else None
        return [Asked(sender, act, "command", event_id, target, rest, new_stage, event_id)]


def _reaction(content: Mapping[str, Any], sender: UserId, event_id: EventId) -> list[Input]:
    relates = content.get("m.relates_to")
    if not isinstance(relates, Mapping) or relates.get("rel_type") != "m.annotation":
        return []
    target = relates.get("event_id")
    if not isinstance(target, str) or not is_hand_emoji(relates.get("key")):
        return []
    return [Reacted(EventId(target), sender, event_id)]


_PILL = re.compile(r'href="(?:https://matrix\.to/#/|matrix:u/)(@?[^"?/]+)', re.IGNORECASE)


def _target(content: Mapping[str, Any], rest: str, default: UserId | None) -> tuple[UserId | None, str]:
    """Whom a command is about, and the words after. A client may send a mention as a name with a link: then the one
    user in ``m.mentions`` or in the link counts."""
    words = rest.split(maxsplit=1)
    if not words:
        return default, ""
    after = words[1] if len(words) > 1 else ""
    try:
        return parse_user(words[0].rstrip(",:;") if words[0].count(":") > 1 else words[0].rstrip(",;")), after
    except BadInput:
        pass
    mentions = content.get("m.mentions")
    listed = mentions.get("user_ids") if isinstance(mentions, Mapping) else None
    if isinstance(listed, list) and len(listed) == 1:
        return parse_user(listed[0], "m.mentions.user_ids"), ""
    html = content.get("formatted_body")
    pills = set(_PILL.findall(html)) if isinstance(html, str) else set()
    if len(pills) == 1:
        name = unquote(pills.pop())
        return parse_user(name if name.startswith("@") else "@" + name), ""
    return None, rest
